//! Runs of a scenario: every contender in turn, each time with a fresh process, so that whatever
//! else the machine does meets all of them alike.

use std::io::{IsTerminal, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;
use crate::nats::Nats;
use crate::options::{Options, Scenario, Size};
use crate::rig::Rig;
use crate::scenario::{self, Figure};
use crate::server::{Contender, Server, Surroundings};
use crate::upstream;
use crate::usage::{Usage, resident};

/// A contender, what it is measured with, and the figures of each of its runs.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub contender: Contender,
    pub options: Options,
    pub runs: Vec<Vec<Figure>>,
}

impl Entry {
    /// The median of a figure over all runs that have it.
    pub fn median(&self, name: &str) -> Option<f64> {
        median(self.runs.iter().filter_map(|run| figure(run, name)).collect())
    }

    /// The median of the ratios of runs that followed each other.
    pub fn ratio(&self, to: &Entry, name: &str) -> Option<f64> {
        let pairs = self.runs.iter().zip(&to.runs);
        let ratio = |(one, other): (&Vec<Figure>, &Vec<Figure>)| {
            let (one, other) = (figure(one, name)?, figure(other, name)?);
            (other > 0.0).then(|| one / other)
        };
        median(pairs.filter_map(ratio).collect())
    }

    /// Names of all figures, in order.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for figure in self.runs.iter().flatten() {
            if !names.contains(&figure.name) {
                names.push(figure.name);
            }
        }
        names
    }
}

fn figure(run: &[Figure], name: &str) -> Option<f64> {
    run.iter().find(|figure| figure.name == name).map(|figure| figure.value)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// The servers to measure for a command line, the first one being the subject.
pub fn entries(options: &Options) -> Result<Vec<Entry>> {
    let alone = options.threads.max(1) * options.processes.max(1) == 1;
    if !alone && !scenario::spreads(options.scenario) {
        let name = options.scenario.name();
        return Err(format!("{name} runs in one thread: leave --threads, --processes out").into());
    }
    let mut entries = Vec::new();
    let mut add = |name: &str, contender, options: &Options| {
        let (name, options) = (name.to_owned(), options.clone());
        entries.push(Entry { name, contender, options, runs: Vec::new() });
    };
    let beside = |name: &str| -> Result<_> { Ok(std::env::current_exe()?.with_file_name(name)) };
    if let (Some(client), Some(pid)) = (options.addr, options.pid) {
        let path = options.path.clone();
        add("server", Contender::Running { client, pid, path }, options);
    } else {
        let server = options.server.clone().map_or_else(|| beside("ringway"), Ok)?;
        add("ringway", Contender::Gateway(server.clone()), options);
        if options.tls && !options.no_floor {
            let options = Options { tls: false, ..options.clone() };
            add("plain", Contender::Gateway(server), &options);
        }
    }
    if let Some(against) = &options.against {
        add("against", Contender::Gateway(against.clone()), options);
    }
    // The floor has no TLS.
    if !options.no_floor && !options.tls {
        let program = options.floor.clone().map_or_else(|| beside("floor"), Ok)?;
        let (floor, scenario) = scenario::floor(options.scenario);
        let options = Options { scenario, size: floor_size(options), ..options.clone() };
        add("floor", Contender::Floor(program, floor), &options);
    }
    Ok(entries)
}

/// As many receivers and bytes as the scenario has.
fn floor_size(options: &Options) -> Size {
    let size = options.size.clone();
    let members = size.members.or(Some(1000));
    match options.scenario {
        Scenario::Topics | Scenario::CrossShard | Scenario::Mesh => {
            Size { clients: members, ..size }
        }
        Scenario::Slow => Size { payload: size.payload.or(Some(1024)), ..size },
        Scenario::Groupchat => {
            let members = 2500.0 * size.scale.unwrap_or(0.19);
            let payload = size.payload.or(Some(100));
            Size { clients: Some((members as usize).max(1)), payload, ..size }
        }
        _ => size,
    }
}

/// Measures all contenders, in turn, as often as the options say.
pub fn all(entries: &mut [Entry], runs: usize) -> Result<()> {
    for run in 0..runs {
        for entry in entries.iter_mut() {
            progress(&format!("run {}/{runs} {}", run + 1, entry.name));
            let figures = one(entry, false).map_err(|error| format!("{}: {error}", entry.name))?;
            entry.runs.push(figures);
        }
    }
    if entries.first().is_some_and(|entry| entry.options.syscalls) {
        for entry in entries.iter_mut() {
            progress(&format!("system calls of {}", entry.name));
            let figures = one(entry, true)?;
            let counted = figures.into_iter().filter(|figure| figure.name == SYSCALLS);
            if let Some(run) = entry.runs.first_mut() {
                run.extend(counted);
            }
        }
    }
    progress("");
    Ok(())
}

const SYSCALLS: &str = "syscalls";

/// One run of one contender.
fn one(entry: &Entry, count_syscalls: bool) -> Result<Vec<Figure>> {
    let options = &entry.options;
    let cpus = scenario::server_cpus(options);
    let mut around = Surroundings::default();
    let mut nats = None;
    match (options.scenario, &entry.contender) {
        (Scenario::Xxim | Scenario::XximFlood, _) => around.upstream = Some(upstream::start()?),
        (Scenario::Mesh, Contender::Gateway(_)) => {
            let server = Nats::start()?;
            around.mesh = Some((scenario::mesh::MEMBERS_NODE, server.url()));
            nats = Some(server);
        }
        _ => {}
    }
    let mut server = Server::start(&entry.contender, &cpus, options, &around)?;
    server.nats = nats;
    let mut rig = Rig::new(server, options)?;
    let mut load = scenario::prepare(options, &mut rig)?;
    let pid = rig.server.pid;
    let mut repeat = |rig: &mut Rig, seconds: f64| -> Result<f64> {
        let (began, mut told) = (Instant::now(), Instant::now());
        while began.elapsed().as_secs_f64() < seconds {
            load.step(rig)?;
            rig.hear()?;
            if told.elapsed() > Duration::from_secs(1) {
                told = Instant::now();
                let rate = rig.tally.messages as f64 / began.elapsed().as_secs_f64();
                progress(&format!("{}: {rate:.0} messages/s", entry.name));
            }
        }
        Ok(began.elapsed().as_secs_f64())
    };
    repeat(&mut rig, options.warmup)?;
    rig.reset()?;
    let counter = count_syscalls.then(|| Syscalls::start(pid)).flatten();
    if options.announce {
        eprintln!("measuring {}", entry.name);
    }
    let before = Usage::of(pid)?;
    let seconds = repeat(&mut rig, options.seconds)?;
    let used = Usage::of(pid)?.since(&before);
    let messages = rig.tally.messages as f64;
    rig.gather()?;
    let mut figures = figures(&rig, &used, seconds, messages)?;
    if let Some(count) = counter.and_then(Syscalls::stop) {
        figures.push(Figure::new(SYSCALLS, count as f64 / messages.max(1.0)));
    }
    figures.extend(load.finish(&mut rig)?);
    Ok(figures)
}

fn figures(rig: &Rig, used: &Usage, seconds: f64, messages: f64) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut add = |name, value| figures.push(Figure::new(name, value));
    if messages > 0.0 {
        let quantile = |share| rig.tally.latency.value_at_quantile(share) as f64 / 1000.0;
        add("messages_per_s", messages / seconds);
        add("cpu_us", used.shards_ns as f64 / 1000.0 / messages);
        add("sidecar_us", used.others_ns as f64 / 1000.0 / messages);
        add("user_share", used.user_share());
        add("p50_us", quantile(0.5));
        add("p99_us", quantile(0.99));
        add("p999_us", quantile(0.999));
    }
    add("cpu_percent", used.shards_ns as f64 / seconds / 1e7);
    add("sidecar_percent", used.others_ns as f64 / seconds / 1e7);
    add("rss_mib", resident(rig.server.pid)? as f64 / (1 << 20) as f64);
    Ok(figures)
}

/// Counts the system calls of a process with `perf stat`.
struct Syscalls(Child);

impl Syscalls {
    /// `None`: there is no `perf` here, or it may not be used.
    fn start(pid: u32) -> Option<Syscalls> {
        let mut command = Command::new("perf");
        command.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", &pid.to_string()]);
        let child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().ok()?;
        // It gives no sign when it has begun.
        std::thread::sleep(Duration::from_millis(300));
        Some(Syscalls(child))
    }

    fn stop(self) -> Option<u64> {
        kill_process(Pid::from_child(&self.0), Signal::INT).ok()?;
        let output = self.0.wait_with_output().ok()?;
        let text = String::from_utf8(output.stderr).ok()?;
        let line = text.lines().find(|line| line.contains("raw_syscalls"))?;
        line.split(',').next()?.parse().ok()
    }
}

/// Shows how far it is, on a terminal.
fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
        let _ = std::io::stderr().flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
