//! The process: `[runtime]`, `[sidecar]`, `[admin]`, `[log]`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::error::{Complaint, ConfigError};
use super::keys::{Key, Section, choice, flag, text};
use super::log_filter;
use super::machine::Machine;
use super::model::{Admin, Drain, Log, Runtime, Sidecar, SlowClient};
use super::places::address;
use super::settings::Settings;
use crate::limits::{DESCRIPTORS_RESERVED, DESCRIPTORS_RESERVED_PER_SHARD, SHARDS_MAX};

/// Descriptors that services keep for themselves.
pub(crate) type Taken<'a> = &'a dyn Fn() -> Result<u64, ConfigError>;

/// The keys of `[runtime]` that are no plain limits.
const KEYS: &[Key] = &[
    Key {
        allowed: "list of CPUs and ranges, e.g. \"0-3,6\"",
        ..text(
            "runtime.cpus",
            "\"\"",
            "CPUs to run on, one shard each. Empty: all that the process may use.",
        )
    },
    choice::<SlowClient>(
        "runtime.slow_client",
        "\"close\"",
        "What happens to a client whose outbox is full.",
    ),
];

/// The keys of the admin server and the log.
const OUTSIDE: &[Key] = &[
    Key {
        allowed: "`address:port`, or empty",
        ..text(
            "admin.bind",
            "\"127.0.0.1:9464\"",
            "Address of `/metrics`, `/healthz` and `/readyz`; on loopback also of the interface of \
             `ringway ctl`, by which whoever works on the machine can see and steer. Empty: none.",
        )
    },
    Key {
        allowed: "path of a file, or empty",
        ..text(
            "admin.socket",
            "\"\"",
            "Path of a Unix socket for `ringway ctl`, for root and the user of the gateway. Empty: \
             none.",
        )
    },
    Key {
        allowed: "`tracing` filter, e.g. \"info\" or \"warn,ringway::shard=debug\"",
        ..text(
            "log.filter",
            "\"info\"",
            "Which events are logged, to standard error. Those of the NATS library only if \
             `async_nats` is named. Words that are neither a level nor a target (The log) are \
             refused.",
        )
    },
    Key { default: "false", ..flag("log.json", "Log JSON lines instead of text.") },
];

const TITLES: &[(&str, &str, &str)] = &[
    ("", "Top of the file", ""),
    ("runtime", "`[runtime]`", ""),
    (
        "runtime.drain",
        "`[runtime.drain]`",
        "How the gateway ends at SIGTERM. A supervisor has to allow `delay`, `spread` and \
         `runtime.shutdown_timeout` together.",
    ),
    ("sidecar", "`[sidecar]`", ""),
];

/// The sections of the tables: the admin server and the log stand last in the reference.
pub(crate) const FIRST: Section = Section { keys: KEYS, lists: &[], titles: TITLES };
/// See [`FIRST`].
pub(crate) const ADMIN: Section = Section { keys: OUTSIDE, lists: &[], titles: &[] };
/// See [`FIRST`].
pub(crate) const LAST: Section =
    Section { keys: &[], lists: &[], titles: &[("admin", "`[admin]`, `[log]`", "")] };

/// Reads `[sidecar]`.
pub(crate) fn sidecar(settings: &Settings) -> Result<Sidecar, ConfigError> {
    Ok(Sidecar {
        threads: settings.number("sidecar.threads")?,
        redirects_max: settings.number("sidecar.redirects_max")?,
        idle_timeout: settings.duration("sidecar.idle_timeout")?,
    })
}

/// Reads `[runtime]`. `taken` are descriptors that services keep for themselves.
pub(crate) fn runtime(
    settings: &Settings,
    machine: &Machine,
    taken: Taken<'_>,
) -> Result<Runtime, ConfigError> {
    let cpus = cpus(settings, machine)?;
    let receive_buffers: u16 = settings.number("runtime.receive_buffers")?;
    if !receive_buffers.is_power_of_two() {
        let next = receive_buffers.next_power_of_two();
        let complaint = Complaint::new("this is not a power of two");
        let complaint = complaint.advise(format!("Use {} or {next}", next / 2));
        return Err(settings.error("runtime.receive_buffers", complaint));
    }
    Ok(Runtime {
        connections_max: connections_max(settings, machine, cpus.len(), taken)?,
        cpus,
        outbox_bytes_max: settings.number("runtime.outbox_bytes_max")?,
        slow_client: settings.choice("runtime.slow_client")?,
        mailbox_messages_max: settings.number("runtime.mailbox_messages_max")?,
        receive_buffers,
        receive_buffer_bytes: settings.number("runtime.receive_buffer_bytes")?,
        handshake_timeout: settings.duration("runtime.handshake_timeout")?,
        close_timeout: settings.duration("runtime.close_timeout")?,
        shutdown_timeout: settings.duration("runtime.shutdown_timeout")?,
        drain: drain(settings)?,
        watchdog: watchdog(settings)?,
    })
}

fn drain(settings: &Settings) -> Result<Drain, ConfigError> {
    const CODE: &str = "runtime.drain.code";
    let code = settings.number(CODE)?;
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        let complaint = Complaint::new("no close frame may have this code");
        let complaint = complaint.allowed("1000 to 1003, 1007 to 1014, 3000 to 4999");
        return Err(settings.error(CODE, complaint.advise("1001 says that the server goes away")));
    }
    Ok(Drain {
        delay: settings.duration("runtime.drain.delay")?,
        spread: settings.duration("runtime.drain.spread")?,
        code,
        jitter: settings.number("runtime.drain.jitter")?,
    })
}

/// An idle shard turns once in a second.
fn watchdog(settings: &Settings) -> Result<Duration, ConfigError> {
    const LEAST: Duration = Duration::from_secs(3);
    let watchdog = settings.duration("runtime.watchdog")?;
    if watchdog.is_zero() || watchdog >= LEAST {
        return Ok(watchdog);
    }
    let complaint = Complaint::new("a shard without work has a turn once in a second");
    let complaint =
        complaint.advise("Use at least 3s, or 0s to switch the watchdog off".to_owned());
    Err(settings.error("runtime.watchdog", complaint))
}

fn cpus(settings: &Settings, machine: &Machine) -> Result<Vec<usize>, ConfigError> {
    let text = settings.text("runtime.cpus")?;
    if text.trim().is_empty() {
        return Ok(machine.cpus.iter().copied().take(SHARDS_MAX).collect());
    }
    let usable = || format!("CPUs that this process may use: {}", cpu_list(&machine.cpus));
    let complaint = match parse_cpus(&text) {
        None => Complaint::new("this is not a list of CPUs").allowed(format!(
            "{}. {}",
            settings.allowed("runtime.cpus"),
            usable()
        )),
        Some(cpus) => match cpus.iter().find(|cpu| !machine.cpus.contains(cpu)) {
            Some(cpu) => Complaint::new(format!("this process may not use CPU {cpu}"))
                .allowed(usable())
                .advise("Look at taskset, cpuset or AllowedCPUs, or take other CPUs"),
            None if cpus.len() > SHARDS_MAX => Complaint::new(format!("these are {}", cpus.len()))
                .allowed(format!("at most {SHARDS_MAX} CPUs")),
            None => return Ok(cpus.into_iter().collect()),
        },
    };
    Err(settings.error("runtime.cpus", complaint))
}

/// `"0-3,6"`. `None` if it is not a list, is empty, or names a CPU twice.
fn parse_cpus(text: &str) -> Option<BTreeSet<usize>> {
    /// No machine that Linux runs on has a higher number.
    const CPU_MAX: usize = 8191;
    let mut cpus = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().ok()?;
        let last: usize = last.trim().parse().ok().filter(|last| *last <= CPU_MAX)?;
        if first > last || !(first..=last).all(|cpu| cpus.insert(cpu)) {
            return None;
        }
    }
    Some(cpus)
}

/// The inverse of [`parse_cpus`]; `cpus` ascends.
fn cpu_list(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|a, b| a + 1 == *b).filter_map(|run| {
        let (first, last) = (run.first()?, run.last()?);
        Some(if first == last { first.to_string() } else { format!("{first}-{last}") })
    });
    runs.collect::<Vec<_>>().join(",")
}

fn connections_max(
    settings: &Settings,
    machine: &Machine,
    shards: usize,
    taken: Taken<'_>,
) -> Result<u32, ConfigError> {
    const KEY: &str = "runtime.connections_max";
    let mut reserve = DESCRIPTORS_RESERVED + DESCRIPTORS_RESERVED_PER_SHARD * shards as u64;
    reserve += admin_descriptors(settings)?;
    reserve += taken()?;
    let permitted = machine.descriptors_max.saturating_sub(reserve);
    let wanted: u32 = settings.number(KEY)?;
    if u64::from(wanted) <= permitted {
        return Ok(wanted);
    }
    if !settings.is_set(KEY) {
        // Not above `wanted`, so it fits.
        return Ok(u32::try_from(permitted).unwrap_or(wanted).max(1));
    }
    let needed = u64::from(wanted) + reserve;
    let complaint = Complaint::new(format!(
        "this needs {needed} descriptors ({reserve} of them for ringway itself), but the process \
         may open {} (RLIMIT_NOFILE)",
        machine.descriptors_max
    ));
    let complaint = complaint.allowed(format!("1 to {permitted} connections")).advise(format!(
        "Raise the limit (systemd: LimitNOFILE={needed}; shell: ulimit -n {needed}, and \
         /etc/security/limits.conf), or lower the value"
    ));
    Err(settings.error(KEY, complaint))
}

/// Those of the admin server beyond the default, for which there is room in any case.
fn admin_descriptors(settings: &Settings) -> Result<u64, ConfigError> {
    let max: u64 = settings.number("admin.connections_max")?;
    let default = settings.tables.limit("admin.connections_max").map(|limit| limit.default);
    Ok(max.saturating_sub(default.expect("the key of a row").unsigned_abs()))
}

/// Reads `[admin]`.
pub(crate) fn admin(settings: &Settings) -> Result<Admin, ConfigError> {
    let off = settings.text("admin.bind")?.is_empty();
    Ok(Admin {
        bind: if off { None } else { Some(address(settings, "admin.bind", false)?) },
        socket: Some(settings.text("admin.socket")?).filter(|p| !p.is_empty()).map(PathBuf::from),
        connections_max: settings.number("admin.connections_max")?,
        request_timeout: settings.duration("admin.request_timeout")?,
    })
}

/// Reads `[log]`.
pub(crate) fn log(settings: &Settings) -> Result<Log, ConfigError> {
    Ok(Log { filter: log_filter::read(settings)?, json: settings.flag("log.json")? })
}
