//! What the kernel knows about this process and its threads, read from `/proc` when somebody asks.
//!
//! The names are those that Prometheus client libraries agree on, except for the threads. A value
//! that cannot be read is left out. Costs: a handful of small files per scrape and two per
//! thread, none of them on a shard.

use std::collections::BTreeMap;
use std::fs;

use metrics::Key;
use metrics_exporter_prometheus::{LabelSet, formatting};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::{Row, rows};

/// Kinds of resident memory, and what the kernel calls them.
const MEMORY_KINDS: [(&str, &str); 3] =
    [("own", "RssAnon:"), ("program", "RssFile:"), ("shared", "RssShmem:")];

/// Appends all of it. `start` is the start of the process in Unix seconds.
pub(super) fn render(out: &mut String, start: f64) {
    family(out, &rows::BUILD, [(Some(("version", env!("CARGO_PKG_VERSION"))), 1.0)]);
    family(out, &rows::START, [(None, start)]);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |name| status_bytes(&status, name).map(|bytes| bytes as f64);
    family(out, &rows::MEMORY, bytes("VmRSS:").map(|bytes| (None, bytes)));
    let kinds = MEMORY_KINDS
        .iter()
        .filter_map(|(kind, name)| bytes(name).map(|bytes| (Some(("kind", *kind)), bytes)));
    family(out, &rows::MEMORY_KINDS, kinds);
    family(out, &rows::DESCRIPTORS, open_descriptors().map(|count| (None, count as f64)));
    let limit = getrlimit(Resource::Nofile).current;
    family(out, &rows::DESCRIPTORS_MAX, limit.map(|count| (None, count as f64)));
    let used = clock_gettime(ClockId::ProcessCPUTime);
    family(out, &rows::CPU, [(None, used.tv_sec as f64 + used.tv_nsec as f64 / 1e9)]);
    let threads = thread_seconds();
    let lines = threads.iter().map(|(name, seconds)| (Some(("thread", name.as_str())), *seconds));
    family(out, &rows::THREAD_CPU, lines);
}

/// The recorder of the library has integer counters only, so fractional seconds go past it.
fn family<'a>(
    out: &mut String,
    row: &Row,
    lines: impl IntoIterator<Item = (Option<(&'static str, &'a str)>, f64)>,
) {
    let unlabelled = LabelSet::from_key_and_global(&Key::from_name(""), &Default::default());
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_none() {
        return;
    }
    formatting::write_help_line(out, row.name, None, None, row.help);
    formatting::write_type_line(out, row.name, None, None, row.kind.name());
    for (label, value) in lines {
        let label = label.map(|(name, text)| (name, formatting::sanitize_label_value(text)));
        formatting::write_metric_line(out, row.name, None, &unlabelled, label, value, None);
    }
    out.push('\n');
}

fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Since Linux 6.2 the size of the directory is the number of descriptors; before, it is 0 and they
/// have to be listed.
fn open_descriptors() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64),
        count => Some(count),
    }
}

/// Of every name; threads of one name count together.
fn thread_seconds() -> BTreeMap<String, f64> {
    let mut seconds = BTreeMap::new();
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return seconds };
    for thread in threads.flatten() {
        let Ok(name) = fs::read_to_string(thread.path().join("comm")) else { continue };
        let name = name.trim_end();
        // First field of schedstat: nanoseconds on a CPU.
        let Ok(times) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
        let nanoseconds = times.split(' ').next().and_then(|field| field.parse::<u64>().ok());
        if let Some(nanoseconds) = nanoseconds {
            *seconds.entry(name.to_owned()).or_default() += nanoseconds as f64 / 1e9;
        }
    }
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers() {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let [all, own, program, shared] = ["VmRSS:", "RssAnon:", "RssFile:", "RssShmem:"]
            .map(|name| status_bytes(&status, name).unwrap());
        assert!(own > 1 << 20 && program > 1 << 20);
        assert_eq!(all, own + program + shared);
        let files: Vec<_> =
            (0..200).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
        assert!(open_descriptors().unwrap() >= 200);
        drop(files);
    }

    #[test]
    fn threads_are_found_by_name() {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let (started, ready) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("a new thread".into()).spawn(move || {
            started.send(()).unwrap();
            let _ = wait.recv();
        });
        ready.recv().unwrap();
        let threads = thread_seconds();
        assert!(threads.contains_key("a new thread"), "{threads:?}");
        drop(done);
        thread.unwrap().join().unwrap();
    }
}
