//! What `ringway check --machine` says: what was measured, line by line, and what to set.

use std::fmt;
use std::io;

use rustix::process::Resource;

use super::memory::Need;
use super::system::{self, Facts};
use super::{MachineError, memory, sockets, threads, threads_needed};
use crate::config;
use crate::config::all::Config;
use crate::engine::ring::{Probe, System};
use crate::limits;
use crate::patience::Patience;

/// What a line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// The gateway starts, but this will hurt later.
    Bad,
    /// The gateway does not start.
    Fatal,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub verdict: Verdict,
    /// What was measured; if it is not good, what to set.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Good => "ok",
            Verdict::Bad => "warning",
            Verdict::Fatal => "error",
        };
        write!(f, "{verdict}: {}", self.text)
    }
}

fn good(text: String) -> Finding {
    Finding { verdict: Verdict::Good, text }
}

fn bad(text: String) -> Finding {
    Finding { verdict: Verdict::Bad, text }
}

fn fatal(text: String) -> Finding {
    Finding { verdict: Verdict::Fatal, text }
}

/// Looks at everything; nothing is left out because of something else that is wrong. Ports are
/// bound for a moment, never listened on.
pub fn inspect(config: &Config) -> Vec<Finding> {
    config::raise_nofile();
    memory::raise_limit(config);
    let facts = Facts::read();
    let mut findings = vec![kernel()];
    findings.extend(rings(config));
    findings.push(match threads(config) {
        Ok(()) => good(format!("threads: {} can be started", threads_needed(config))),
        Err(error) => fatal(format!("threads: {error}")),
    });
    findings.push(descriptors(config, &facts));
    findings.extend(later(config, &facts));
    findings.extend(ports(config));
    findings
}

fn kernel() -> Finding {
    let system = System::read();
    let switch = match system.disabled {
        Some(level) => format!("kernel.io_uring_disabled is {level}"),
        None => "without kernel.io_uring_disabled".to_owned(),
    };
    let text = format!("kernel: {}, 6.1 or newer is needed; {switch}", system.release);
    if system.version() < (6, 1) { fatal(text) } else { good(text) }
}

fn rings(config: &Config) -> Vec<Finding> {
    let need = Need::of(config);
    let limit = match memory::limit() {
        u64::MAX => "RLIMIT_MEMLOCK is no limit".to_owned(),
        limit => format!("RLIMIT_MEMLOCK is {} KiB", limit / 1024),
    };
    let locked = |result: Result<(), MachineError>| match result {
        Ok(()) => good(format!("locked memory: {}; {limit}", need.show(true))),
        Err(error) => fatal(format!("locked memory: {error}")),
    };
    match Probe::new() {
        Ok(probe) => {
            let works = "io_uring: every operation that is needed is there, and allowed";
            let now = Patience::new(std::time::Duration::ZERO);
            vec![good(works.to_owned()), locked(memory::check(&probe, config, now))]
        }
        Err(error) if error.is_memory() => vec![locked(Err(memory::nothing_left(config, error)))],
        Err(error) => {
            let known = format!("locked memory: {}; {limit}; not tried", need.show(true));
            vec![fatal(format!("io_uring: {error}")), good(known)]
        }
    }
}

fn descriptors(config: &Config, facts: &Facts) -> Finding {
    if let Err(error) = super::descriptors(config) {
        return fatal(format!("descriptors: {error}"));
    }
    let limit = config::raise_nofile();
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    let connections = config.runtime.connections_max;
    let nr_open = facts.nr_open.unwrap_or(u64::MAX);
    let open = system::open_descriptors();
    let text = format!(
        "descriptors: RLIMIT_NOFILE is {limit} ({open} open), fs.nr_open {nr_open}; enough for \
         {connections} connections"
    );
    let wanted = limits::all::rows().find(|limit| limit.key == "runtime.connections_max");
    let wanted = wanted.map_or(0, |limit| limit.default.unsigned_abs());
    if u64::from(connections) >= wanted.min(CONNECTIONS_MANY) {
        return good(text);
    }
    let nr_open_first = hard.is_none_or(|hard| hard >= nr_open);
    let sysctl = if nr_open_first { "sysctl -w fs.nr_open=1048576, then " } else { "" };
    bad(format!(
        "{text}. For more set {sysctl}ulimit -n 1048576 (systemd: LimitNOFILE=1048576; Docker: \
         --ulimit nofile=1048576)"
    ))
}

/// Fewer connections than this are worth a word.
const CONNECTIONS_MANY: u64 = 10_000;

/// What a start does not notice.
fn later(config: &Config, facts: &Facts) -> Vec<Finding> {
    let connections = u64::from(config.runtime.connections_max);
    let backlog = limits::BACKLOG.unsigned_abs();
    let mut findings = Vec::new();
    if let Some(now) = facts.somaxconn {
        let text = format!("backlog: net.core.somaxconn is {now}, a listener asks for {backlog}");
        let set = format!("Set: sysctl -w net.core.somaxconn={backlog}");
        findings.push(match now < u64::from(backlog) {
            true => bad(format!("{text}; in a burst of connections the rest is lost. {set}")),
            false => good(text),
        });
    }
    if let Some(max) = facts.file_max {
        let text = format!("open files of the machine: fs.file-max is {max}");
        findings.push(match max < connections {
            true => bad(format!(
                "{text}, fewer than the {connections} connections of the configuration. Set: \
                 sysctl -w fs.file-max={}",
                connections * 2
            )),
            false => good(text),
        });
    }
    let mode = facts.huge_pages.as_deref().unwrap_or("not there");
    let text = format!("transparent huge pages: {mode}");
    findings.push(match mode {
        "always" => bad(format!(
            "{text}; small allocations then take 2 MiB each, and memory comes back late. Set: \
             echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"
        )),
        _ => good(text),
    });
    findings.push(match facts.conntrack {
        None => good("conntrack: connections are not tracked".to_owned()),
        Some((max, count)) => {
            let text = format!("conntrack: {count} of nf_conntrack_max {max} are tracked");
            match max < count.saturating_add(connections) {
                true => bad(format!(
                    "{text}; with {connections} connections the table overflows and packets are \
                     dropped. Set: sysctl -w net.netfilter.nf_conntrack_max={}, or do not track \
                     the listeners' ports (nft: notrack)",
                    count.saturating_add(connections.saturating_mul(2))
                )),
                false => good(text),
            }
        }
    });
    findings
}

fn ports(config: &Config) -> Vec<Finding> {
    // A supervisor may have opened the others.
    let mine = config.listeners.iter().filter(|listener| listener.socket.is_none());
    let listeners = mine.map(|listener| (listener.bind, listener.service.describe()));
    let admin = config.admin.bind.map(|bind| (bind, "admin"));
    let push = config.xxim_upstreams.push.as_ref().map(|push| (push.bind, "xxim push service"));
    let all = listeners.chain(admin).chain(push);
    all.map(|(address, what)| match sockets::bind(address, false) {
        Ok(_) => good(format!("port: {address} ({what}) is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => bad(format!(
            "port: {address} ({what}) is in use. If that is not the gateway itself, end the other \
             process or change `bind`"
        )),
        Err(error) => fatal(format!("port: {address} ({what}): {}", sockets::advice(&error))),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            somaxconn: Some(4096),
            nr_open: Some(1 << 20),
            file_max: Some(u64::MAX),
            huge_pages: Some("madvise".to_owned()),
            conntrack: None,
        }
    }

    fn verdicts(facts: &Facts) -> Vec<Verdict> {
        let mut config = Config::demo();
        config.runtime.connections_max = 1_000;
        later(&config, facts).iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn what_hurts_later_is_a_warning_with_what_to_set() {
        assert_eq!(verdicts(&facts()), [Verdict::Good; 4]);
        let cases = [
            (Facts { somaxconn: Some(128), ..facts() }, 0, "net.core.somaxconn=4096"),
            (Facts { file_max: Some(500), ..facts() }, 1, "fs.file-max=2000"),
            (Facts { huge_pages: Some("always".into()), ..facts() }, 2, "echo madvise >"),
            (Facts { conntrack: Some((1500, 700)), ..facts() }, 3, "nf_conntrack_max=2700"),
        ];
        for (facts, at, set) in cases {
            let mut expected = [Verdict::Good; 4];
            expected[at] = Verdict::Bad;
            assert_eq!(verdicts(&facts), expected);
            let mut config = Config::demo();
            config.runtime.connections_max = 1_000;
            let text = later(&config, &facts)[at].to_string();
            assert!(text.starts_with("warning: ") && text.contains(set), "{text}");
        }
        let tracked = Facts { conntrack: Some((10_000, 700)), ..facts() };
        assert_eq!(verdicts(&tracked), [Verdict::Good; 4]);
    }

    #[test]
    fn a_port_in_use_is_a_warning_and_an_address_of_others_is_fatal() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut config = Config::demo();
        config.listeners.truncate(2);
        config.xxim_upstreams.push = None;
        config.listeners[0].bind = other.local_addr().expect("it is bound");
        // TEST-NET-1 of RFC 5737.
        config.listeners[1].bind = ([192, 0, 2, 1], 1).into();
        config.admin.bind = Some(([127, 0, 0, 1], 0).into());
        let verdicts: Vec<Verdict> = ports(&config).iter().map(|found| found.verdict).collect();
        assert_eq!(verdicts, [Verdict::Bad, Verdict::Fatal, Verdict::Good]);
    }
}
