//! What the gateway counts, and how it is shown.
//!
//! A shard counts in plain integers ([`Counters`], [`Gauges`]) and copies them from time to time
//! into its [`Published`] cells; the sidecar reads the cells when `/metrics` is asked for. Nobody
//! waits for anybody, and no counter is shared on the data path.
//! [`Registry`] feeds the cells of all shards to a Prometheus recorder of its own; no global
//! recorder is installed. The rates of netsvr's `Metrics` command are in [`Meters`] and [`Rates`].
//! Costs: publishing is one relaxed store per number; a scrape is one load per number and shard and
//! the text.

mod connmix;
mod process;
mod rates;
/// Families that no shard counts.
pub mod rows;
mod sends;
mod table;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{Counter, Gauge, Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

pub use rates::{ITEMS, Meters, Rate, Rates};
pub use sends::{SendSeries, SendTimes};
pub use table::{Counters, DropReason, Gauges, MetricType, Row};

const CELLS: usize = Counters::ROWS.len() + DropReason::ALL.len() + Gauges::ROWS.len();

/// What one shard lets others see. Written by the shard only. Aligned so that two shards never
/// write to one cache line (processors fetch lines in pairs).
#[derive(Debug)]
#[repr(align(128))]
pub struct Published {
    cells: [AtomicU64; CELLS],
    sends: sends::PublishedSends,
}

impl Published {
    /// Replaces what was published before. Readers may see some numbers earlier than others.
    pub fn publish(&self, counters: &Counters, gauges: &Gauges) {
        let values = counters.values().chain(counters.dropped).chain(gauges.values());
        for (cell, value) in self.cells.iter().zip(values) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// The same for the times of sends.
    pub fn publish_sends(&self, times: &mut SendTimes, now_ms: u64) {
        self.sends.publish(times, now_ms);
    }
}

/// Everything that is shown on `/metrics`.
pub struct Registry {
    shards: Vec<(Arc<Published>, [Handle; CELLS])>,
    recorder: PrometheusRecorder,
    start: f64,
    /// Sets what is only known when somebody asks.
    ask: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// One line of text in the recorder.
enum Handle {
    Counter(Counter),
    Gauge(Gauge),
}

impl Registry {
    /// Cells for `shards` shards, all 0. The time of the call counts as the start of the process.
    pub fn new(shards: usize) -> Registry {
        let recorder = PrometheusBuilder::new().build_recorder();
        for row in Counters::ROWS.iter().chain([&rows::DROPPED]).chain(Gauges::ROWS) {
            describe(&recorder, row);
        }
        let shards = (0..shards)
            .map(|shard| {
                let published = Published {
                    cells: [const { AtomicU64::new(0) }; CELLS],
                    sends: sends::PublishedSends::new(),
                };
                (Arc::new(published), handles(&recorder, shard))
            })
            .collect();
        let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Registry { shards, recorder, start: start.as_secs_f64(), ask: OnceLock::new() }
    }

    /// Where shard number `shard` publishes. `None` if there is no such shard.
    pub fn shard(&self, shard: usize) -> Option<Arc<Published>> {
        self.shards.get(shard).map(|(published, _)| published.clone())
    }

    /// A counter of the process that belongs to no shard; `row` may be given several times with
    /// different labels.
    pub fn counter(&self, row: &Row, labels: &[(&'static str, &str)]) -> Counter {
        self.recorder.register_counter(&self.key(row, labels), &METADATA)
    }

    /// The same for a gauge.
    pub fn gauge(&self, row: &Row, labels: &[(&'static str, &str)]) -> Gauge {
        self.recorder.register_gauge(&self.key(row, labels), &METADATA)
    }

    fn key(&self, row: &Row, labels: &[(&'static str, &str)]) -> Key {
        describe(&self.recorder, row);
        let label = |&(name, value): &(&'static str, &str)| Label::new(name, value.to_owned());
        Key::from_parts(row.name, labels.iter().map(label).collect::<Vec<_>>())
    }

    /// Open connections, and clients among them, of all shards as they last told.
    pub fn load(&self) -> [u64; 2] {
        ["ringway_connections", "ringway_clients"].map(|name| self.sum(name))
    }

    /// Events and messages of queue topics that wait on all shards, as they last told.
    pub fn waiting(&self) -> u64 {
        ["ringway_worker_queue_frames", "ringway_queue_messages"]
            .map(|name| self.sum(name))
            .iter()
            .sum()
    }

    /// Clients of all shards whose turn in a drain has not come, as the shards last told.
    pub fn drain_waiting(&self) -> u64 {
        self.sum("ringway_drain_clients_waiting")
    }

    /// A gauge over all shards.
    fn sum(&self, name: &str) -> u64 {
        let first = Counters::ROWS.len() + DropReason::ALL.len();
        let Some(place) = Gauges::ROWS.iter().position(|row| row.name == name) else { return 0 };
        let cells = self.shards.iter().map(|(shard, _)| &shard.cells[first + place]);
        cells.map(|cell| cell.load(Ordering::Relaxed)).sum()
    }

    /// What was given up for this reason, on all shards as they last told.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        let place = Counters::ROWS.len() + reason as usize;
        self.shards.iter().map(|(shard, _)| shard.cells[place].load(Ordering::Relaxed)).sum()
    }

    /// Has this called before each [`Registry::render`], to set what is only known when somebody
    /// asks. Once per registry.
    pub fn before_render(&self, ask: impl Fn() + Send + Sync + 'static) {
        let _ = self.ask.set(Box::new(ask));
    }

    /// All families in the Prometheus text format (version 0.0.4), sorted.
    pub fn render(&self) -> String {
        if let Some(ask) = self.ask.get() {
            ask();
        }
        for (published, handles) in &self.shards {
            for (cell, handle) in published.cells.iter().zip(handles) {
                let value = cell.load(Ordering::Relaxed);
                match handle {
                    Handle::Counter(counter) => counter.absolute(value),
                    Handle::Gauge(gauge) => gauge.set(value as f64),
                }
            }
        }
        let mut text = sorted(&self.recorder.handle().render());
        connmix::render(&mut text);
        sends::render(self.shards.iter().map(|(published, _)| &published.sends), &mut text);
        process::render(&mut text, self.start);
        text
    }

    /// All families that [`Registry::render`] may show; those of what is switched off are left out
    /// there.
    pub fn rows() -> impl Iterator<Item = &'static Row> {
        Counters::ROWS.iter().chain(Gauges::ROWS).chain(rows::ALL)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

const METADATA: Metadata<'static> = Metadata::new("ringway", Level::INFO, None);

fn describe(recorder: &PrometheusRecorder, row: &Row) {
    let name = KeyName::from_const_str(row.name);
    match row.kind {
        MetricType::Counter => recorder.describe_counter(name, Some(row.unit), row.help.into()),
        MetricType::Gauge => recorder.describe_gauge(name, Some(row.unit), row.help.into()),
        MetricType::Summary => recorder.describe_histogram(name, Some(row.unit), row.help.into()),
    }
}

/// In the order of the cells.
fn handles(recorder: &PrometheusRecorder, shard: usize) -> [Handle; CELLS] {
    let shard = Label::new("shard", shard.to_string());
    let key = |row: &Row| Key::from_parts(row.name, vec![shard.clone()]);
    let reason = |reason: &DropReason| Label::new("reason", reason.label());
    let dropped = DropReason::ALL.iter().map(|why| vec![reason(why), shard.clone()]);
    let dropped = dropped.map(|labels| Key::from_parts(rows::DROPPED.name, labels));
    let counters = Counters::ROWS.iter().map(key).chain(dropped);
    let counters = counters.map(|key| Handle::Counter(recorder.register_counter(&key, &METADATA)));
    let gauges = Gauges::ROWS.iter().map(key);
    let gauges = gauges.map(|key| Handle::Gauge(recorder.register_gauge(&key, &METADATA)));
    let mut lines = counters.chain(gauges);
    std::array::from_fn(|_| lines.next().expect("CELLS counts these very rows"))
}

/// The recorder writes in the order of its hash maps, which differs from scrape to scrape.
fn sorted(text: &str) -> String {
    let mut families: Vec<Vec<&str>> = text
        .split("\n\n")
        .filter(|family| !family.is_empty())
        .map(|family| family.lines().collect())
        .collect();
    for family in &mut families {
        // Comments first, as they are: HELP, then TYPE.
        family.sort_by_key(|line| (!line.starts_with('#'), *line));
    }
    families.sort();
    let mut sorted = String::with_capacity(text.len());
    for family in families {
        for line in family {
            sorted.push_str(line);
            sorted.push('\n');
        }
        sorted.push('\n');
    }
    sorted
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    /// What a scraper sees: type and help by family, value by line without it.
    #[derive(Default)]
    struct Scrape {
        kinds: HashMap<String, String>,
        helps: HashMap<String, String>,
        values: HashMap<String, f64>,
    }

    fn is_name(text: &str) -> bool {
        let mut bytes = text.bytes();
        bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
    }

    /// Panics at anything that is not the text format.
    fn parse(text: &str) -> Scrape {
        let mut scrape = Scrape::default();
        let mut family = String::new();
        assert!(text.ends_with('\n'));
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(scrape.helps.insert(name.into(), help.into()).is_none(), "{line}");
                family = name.into();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, family, "{line}");
                assert!(scrape.kinds.insert(name.into(), kind.into()).is_none(), "{line}");
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                check_series(series, &family);
                let value = value.parse().unwrap();
                assert!(scrape.values.insert(series.into(), value).is_none(), "{line}");
            }
        }
        scrape
    }

    fn check_series(series: &str, family: &str) {
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        // A summary has two more.
        let ends = ["", "_sum", "_count"];
        assert!(ends.iter().any(|end| name == format!("{family}{end}")), "{series}");
        let labels = labels.strip_suffix('}').unwrap();
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once('=').unwrap();
            assert!(is_name(name), "{series}");
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
            assert!(!value.contains(['"', '\\']), "{series}");
        }
    }

    #[test]
    fn names_are_what_prometheus_asks_for() {
        let mut names = HashSet::new();
        for row in Registry::rows() {
            assert!(names.insert(row.name), "{} twice", row.name);
            assert!(is_name(row.name) && row.name == row.name.to_lowercase());
            let starts = ["ringway_", "process_", "connmix_"];
            assert!(starts.iter().any(|start| row.name.starts_with(start)), "{}", row.name);
            assert_eq!(
                row.name.ends_with("_total"),
                row.kind == MetricType::Counter,
                "{}",
                row.name
            );
            let stem = row.name.trim_end_matches("_total");
            assert_eq!(stem.ends_with("_bytes"), row.unit == metrics::Unit::Bytes, "{stem}");
            assert_eq!(stem.ends_with("_seconds"), row.unit == metrics::Unit::Seconds, "{stem}");
            assert!(!row.help.is_empty() && !row.help.ends_with('.'), "{}", row.name);
        }
    }

    #[test]
    fn every_row_is_rendered_for_every_shard() {
        let registry = Registry::new(3);
        let always = parse(&registry.render()).kinds;
        for row in rows::ALL.iter().filter(|row| !always.contains_key(row.name)) {
            match row.kind {
                MetricType::Counter => _ = registry.counter(row, &[]),
                MetricType::Gauge => _ = registry.gauge(row, &[]),
                MetricType::Summary => {}
            }
        }
        let scrape = parse(&registry.render());
        for row in Registry::rows() {
            assert_eq!(scrape.kinds.get(row.name).map(String::as_str), Some(row.kind.name()));
            assert_eq!(scrape.helps.get(row.name).map(String::as_str), Some(row.help));
        }
        assert_eq!(scrape.kinds.len(), Registry::rows().count(), "and nothing that has no row");
        for row in Counters::ROWS.iter().chain(Gauges::ROWS) {
            for shard in 0..3 {
                let series = format!("{}{{shard=\"{shard}\"}}", row.name);
                assert_eq!(scrape.values.get(&series), Some(&0.0), "{series}");
            }
        }
        for reason in DropReason::ALL {
            let labels = format!("reason=\"{}\",shard=\"2\"", reason.label());
            let series = format!("ringway_dropped_total{{{labels}}}");
            assert_eq!(scrape.values.get(&series), Some(&0.0), "{series}");
        }
    }

    #[test]
    fn what_a_shard_publishes_is_rendered_under_its_label() {
        let registry = Registry::new(2);
        let mut counters =
            Counters { opens: 3, frame_bytes_written: 1 << 53, ..Default::default() };
        counters.count_dropped(DropReason::SlowClient, 7);
        let gauges = Gauges { connections: 1, timers: 9, ..Default::default() };
        registry.shard(1).unwrap().publish(&counters, &gauges);
        assert!(registry.shard(2).is_none());

        let values = parse(&registry.render()).values;
        assert_eq!(values["ringway_clients_opened_total{shard=\"0\"}"], 0.0);
        assert_eq!(values["ringway_clients_opened_total{shard=\"1\"}"], 3.0);
        let bytes = "ringway_client_frames_written_bytes_total{shard=\"1\"}";
        assert_eq!(values[bytes], (1u64 << 53) as f64);
        assert_eq!(values["ringway_dropped_total{reason=\"slow_client\",shard=\"1\"}"], 7.0);
        assert_eq!(values["ringway_connections{shard=\"1\"}"], 1.0);
        assert_eq!(values["ringway_timers{shard=\"1\"}"], 9.0);

        registry.shard(1).unwrap().publish(&counters, &Gauges::default());
        let values = parse(&registry.render()).values;
        assert_eq!(values["ringway_timers{shard=\"1\"}"], 0.0, "gauges go down again");
        assert_eq!(values["ringway_clients_opened_total{shard=\"1\"}"], 3.0);
    }

    #[test]
    fn scrapes_keep_their_order_and_counters_of_the_process_are_in_them() {
        let registry = Registry::new(2);
        let row = Row { name: "ringway_test_total", ..rows::DROPPED };
        registry.counter(&row, &[("reason", "b")]).increment(2);
        registry.counter(&row, &[("reason", "a")]).increment(1);
        let text = registry.render();
        let scrape = parse(&text);
        assert_eq!(scrape.values["ringway_test_total{reason=\"b\"}"], 2.0);
        let shape = |text: &str| -> Vec<String> {
            let series = text.lines().map(|line| line.rsplit_once(' ').map_or(line, |(s, _)| s));
            series.filter(|line| !line.starts_with("process_")).map(str::to_owned).collect()
        };
        assert_eq!(shape(&text), shape(&registry.render()));
        let at = |series: &str| text.find(series).unwrap();
        assert!(at("ringway_test_total{reason=\"a\"}") < at("ringway_test_total{reason=\"b\"}"));
        assert!(scrape.values["process_cpu_seconds_total"] > 0.0);
    }
}
