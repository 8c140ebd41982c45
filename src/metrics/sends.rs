//! How long messages wait until they are written to connmix clients, as connmix shows it: a summary
//! of the last ten minutes, by kind of client and by where the message came from (connmix section
//! 8.3).
//!
//! A shard notes samples in buckets, whose ends are a ninth apart at most; five of them, each for
//! two minutes, are the ten minutes. Quantiles are the ends of buckets. Costs: 17 KiB for a shard
//! that has connmix clients, none for others; a sample is two additions.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Row, rows};

/// Labels of the series, in the order of their numbers.
const LABELS: [[&str; 2]; 4] =
    [["socket", "local"], ["socket", "forward"], ["websocket", "local"], ["websocket", "forward"]];
/// How many series there are.
const SERIES: usize = LABELS.len();
const QUANTILES: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
/// Parts of the time that quantiles are about, and how long each is.
const PARTS: usize = 5;
const PART_MS: u64 = 120_000;
/// Eight for each doubling, up to 268 s.
const BUCKETS: usize = 208;
/// Numbers that a shard publishes of one series: count, sum, buckets.
const WIDTH: usize = 2 + BUCKETS;

/// The number of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendSeries(usize);

impl SendSeries {
    /// Of messages to clients over WebSocket or over TCP, from other nodes or from this one.
    pub fn new(websocket: bool, forward: bool) -> SendSeries {
        SendSeries(2 * usize::from(websocket) + usize::from(forward))
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = SendSeries> {
        (0..SERIES).map(SendSeries)
    }

    /// Its place in a table of all.
    pub fn index(self) -> usize {
        self.0
    }
}

/// What one shard has noted.
#[derive(Debug)]
pub struct SendTimes {
    count: [u64; SERIES],
    sum_us: [u64; SERIES],
    parts: [[[u32; BUCKETS]; PARTS]; SERIES],
    /// Which part is being filled, counted from the start of the process.
    part: u64,
    changed: bool,
}

impl Default for SendTimes {
    fn default() -> SendTimes {
        let parts = [[[0; BUCKETS]; PARTS]; SERIES];
        SendTimes { count: [0; SERIES], sum_us: [0; SERIES], parts, part: 0, changed: false }
    }
}

impl SendTimes {
    /// Notes one message.
    pub fn note(&mut self, series: SendSeries, time_us: u64, now_ms: u64) {
        self.go_on(now_ms);
        let SendSeries(series) = series;
        self.count[series] += 1;
        self.sum_us[series] = self.sum_us[series].saturating_add(time_us);
        let part = &mut self.parts[series][self.part as usize % PARTS];
        let bucket = &mut part[bucket(time_us)];
        *bucket = bucket.saturating_add(1);
        self.changed = true;
    }

    /// Forgets what is older than the time that quantiles are about.
    fn go_on(&mut self, now_ms: u64) {
        let now = now_ms / PART_MS;
        let over = now.saturating_sub(self.part).min(PARTS as u64);
        for part in 0..over {
            let old = (now - part) as usize % PARTS;
            self.parts.iter_mut().for_each(|parts| parts[old] = [0; BUCKETS]);
        }
        self.changed |= over > 0;
        self.part = self.part.max(now);
    }
}

/// What one shard lets others see of it.
#[derive(Debug)]
pub(super) struct PublishedSends(Box<[AtomicU64]>);

impl PublishedSends {
    pub fn new() -> PublishedSends {
        PublishedSends((0..SERIES * WIDTH).map(|_| AtomicU64::new(0)).collect())
    }

    /// Replaces what was published before, if something has changed.
    pub fn publish(&self, times: &mut SendTimes, now_ms: u64) {
        times.go_on(now_ms);
        if !std::mem::take(&mut times.changed) {
            return;
        }
        for (series, cells) in self.0.chunks_exact(WIDTH).enumerate() {
            cells[0].store(times.count[series], Ordering::Relaxed);
            cells[1].store(times.sum_us[series], Ordering::Relaxed);
            for (bucket, cell) in cells[2..].iter().enumerate() {
                let parts = times.parts[series].iter().map(|part| u64::from(part[bucket]));
                cell.store(parts.sum(), Ordering::Relaxed);
            }
        }
    }
}

/// Appends the summary of all shards.
pub(super) fn render<'a>(shards: impl Iterator<Item = &'a PublishedSends>, page: &mut String) {
    let mut sums = vec![0u64; SERIES * WIDTH];
    for shard in shards {
        let cells = shard.0.iter().map(|cell| cell.load(Ordering::Relaxed));
        sums.iter_mut().zip(cells).for_each(|(sum, cell)| *sum += cell);
    }
    // Writing to a string does not fail.
    let Row { name, kind, help, .. } = rows::CONNMIX_SEND_DURATION;
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
    for ([protocol, scenario], cells) in LABELS.iter().zip(sums.chunks_exact(WIDTH)) {
        let labels = format!("protocol=\"{protocol}\",scenario=\"{scenario}\"");
        for of in QUANTILES {
            let value = quantile(&cells[2..], of).map_or(f64::NAN, seconds);
            let _ = writeln!(page, "{name}{{{labels},quantile=\"{of}\"}} {value}");
        }
        let (count, sum) = (cells[0], seconds(cells[1]));
        let _ = writeln!(page, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {count}");
    }
    page.push('\n');
}

fn seconds(time_us: u64) -> f64 {
    time_us as f64 / 1e6
}

/// The end of the bucket that this part of the samples does not exceed; `None` without samples.
fn quantile(buckets: &[u64], of: f64) -> Option<u64> {
    let count: u64 = buckets.iter().sum();
    let rank = ((count as f64 * of).ceil() as u64).max(1);
    let mut seen = 0;
    let bucket = buckets.iter().position(|samples| {
        seen += samples;
        seen >= rank
    });
    bucket.map(end_us)
}

/// Where a time belongs: each up to 7 µs has a bucket of its own.
fn bucket(time_us: u64) -> usize {
    let Some(log) = time_us.checked_ilog2().filter(|log| *log >= 3) else {
        return time_us as usize;
    };
    let eighth = (time_us >> (log - 3)) as usize & 7;
    ((log as usize - 2) * 8 + eighth).min(BUCKETS - 1)
}

/// The longest time of a bucket, microseconds.
fn end_us(bucket: usize) -> u64 {
    match bucket {
        0..8 => bucket as u64,
        _ => ((8 + bucket as u64 % 8 + 1) << (bucket / 8 - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = rows::CONNMIX_SEND_DURATION.name;

    fn page(shards: &[PublishedSends]) -> String {
        let mut page = String::new();
        render(shards.iter(), &mut page);
        page
    }

    fn line(series: &str, value: &str) -> String {
        format!("{NAME}{series} {value}\n")
    }

    #[test]
    fn without_samples_there_are_no_quantiles() {
        let page = page(&[PublishedSends::new()]);
        assert_eq!(page.lines().count(), 2 + SERIES * (QUANTILES.len() + 2) + 1);
        for [protocol, scenario] in LABELS {
            let labels = format!("protocol=\"{protocol}\",scenario=\"{scenario}\"");
            assert!(page.contains(&line(&format!("{{{labels},quantile=\"0.5\"}}"), "NaN")));
            assert!(page.contains(&line(&format!("_sum{{{labels}}}"), "0")));
            assert!(page.contains(&line(&format!("_count{{{labels}}}"), "0")));
        }
    }

    #[test]
    fn shards_are_shown_together_and_what_is_old_is_forgotten() {
        let (one, other) = (PublishedSends::new(), PublishedSends::new());
        let (mut fast, mut slow) = (SendTimes::default(), SendTimes::default());
        let series = SendSeries::new(true, false);
        (0..3).for_each(|time_us| fast.note(series, time_us, 0));
        slow.note(series, 1_000_000, 4 * PART_MS);
        one.publish(&mut fast, 0);
        other.publish(&mut slow, 4 * PART_MS);
        let labels = "protocol=\"websocket\",scenario=\"local\"";
        let quantile =
            |of: &str, value: &str| line(&format!("{{{labels},quantile=\"{of}\"}}"), value);
        let shards = [one, other];
        let text = page(&shards);
        for (of, value) in [("0", "0"), ("0.5", "0.000001"), ("1", "1.048575")] {
            assert!(text.contains(&quantile(of, value)), "{of}: {text}");
        }
        assert!(text.contains(&line(&format!("_count{{{labels}}}"), "4")));
        assert!(text.contains(&line(&format!("_sum{{{labels}}}"), "1.000003")));
        // Ten minutes after the first ones; counts stay.
        shards[0].publish(&mut fast, 5 * PART_MS);
        let text = page(&shards);
        assert!(text.contains(&quantile("0", "1.048575")), "{text}");
        assert!(text.contains(&line(&format!("_count{{{labels}}}"), "4")));
        shards[1].publish(&mut slow, 100 * PART_MS);
        assert!(page(&shards).contains(&quantile("1", "NaN")));
    }

    proptest! {
        #[test]
        fn a_bucket_ends_not_far_behind_its_times(time_us in 0u64..251_000_000, more in 0u64..9) {
            let end = end_us(bucket(time_us));
            prop_assert!(time_us <= end && end - time_us <= time_us / 8, "{time_us} {end}");
            prop_assert!(bucket(time_us + more) >= bucket(time_us));
            prop_assert_eq!(bucket(end), bucket(time_us));
            prop_assert_eq!(bucket(end + 1), bucket(time_us) + 1);
        }

        #[test]
        fn a_quantile_is_that_of_the_sorted_times(
            times in prop::collection::vec(0u64..1 << 40, 1..100),
            of in prop::sample::select(QUANTILES.to_vec()),
        ) {
            let mut times = times;
            let mut buckets = vec![0u64; BUCKETS];
            times.iter().for_each(|time_us| buckets[bucket(*time_us)] += 1);
            times.sort_unstable();
            let rank = ((times.len() as f64 * of).ceil() as usize).max(1);
            prop_assert_eq!(quantile(&buckets, of), Some(end_us(bucket(times[rank - 1]))));
        }
    }
}
