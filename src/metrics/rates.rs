//! netsvr's 13 metric items: counts and how fast they grow (netsvr sections 4.4 and 6.7).
//!
//! Rates are exponentially weighted moving averages, updated every 5 seconds since the start of the
//! process. A shard updates them lazily: events that were not counted yet belong to the first tick
//! that is due, later ones that were missed had none. A shard that had events was awake, so nothing
//! is attributed to a wrong tick by more than one turn.
//! Everything here is linear: sums of the shards' rates are the rates of the process.
//! Costs: no allocation; catching up any number of ticks is O(1).

/// How many items there are; item `n` of the specification is at index `n - 1`.
pub const ITEMS: usize = 13;

/// Time between two updates of the averages.
const TICK_MS: u64 = 5_000;
/// The spans of the averages.
const MINUTES: [f64; 3] = [1.0, 5.0, 15.0];

/// One item as the `Metrics` command reports it. Rates are per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    pub count: u64,
    pub mean: f64,
    pub rate1: f64,
    pub rate5: f64,
    pub rate15: f64,
}

/// All items of one shard, or of several together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    items: [Rate; ITEMS],
}

impl Rates {
    /// Item 1..=13; `None` for any other number.
    pub fn item(&self, number: u8) -> Option<&Rate> {
        self.items.get(usize::from(number).checked_sub(1)?)
    }

    /// Adds what another shard reported.
    pub fn merge(&mut self, other: &Rates) {
        for (mine, theirs) in self.items.iter_mut().zip(&other.items) {
            mine.count = mine.count.saturating_add(theirs.count);
            mine.mean += theirs.mean;
            mine.rate1 += theirs.rate1;
            mine.rate5 += theirs.rate5;
            mine.rate15 += theirs.rate15;
        }
    }
}

/// The averages of one shard.
#[derive(Clone, Debug)]
pub struct Meters {
    start_ms: u64,
    ticks: u64,
    counted: [u64; ITEMS],
    averages: [[f64; MINUTES.len()]; ITEMS],
}

impl Meters {
    /// `start_ms` is when the process started, on the clock that `tick` is given. The same for all
    /// shards, so that they tick together.
    pub fn new(start_ms: u64) -> Meters {
        let averages = [[0.0; MINUTES.len()]; ITEMS];
        Meters { start_ms, ticks: 0, counted: [0; ITEMS], averages }
    }

    /// Carries out the ticks that are due; `counts` is what the shard has counted so far. To be
    /// called before counting, as soon as `now_ms` has moved on.
    pub fn tick(&mut self, now_ms: u64, counts: &[u64; ITEMS]) {
        let due = now_ms.saturating_sub(self.start_ms) / TICK_MS;
        if due <= self.ticks {
            return;
        }
        let missed = (due - self.ticks - 1) as f64;
        let first = self.ticks == 0;
        for ((averages, count), counted) in self.averages.iter_mut().zip(counts).zip(&self.counted)
        {
            let events = count.saturating_sub(*counted);
            let now = events as f64 / (TICK_MS as f64 / 1000.0);
            for (average, minutes) in averages.iter_mut().zip(MINUTES) {
                let keep = (-(TICK_MS as f64) / 60_000.0 / minutes).exp();
                let ticked = if first { now } else { now + keep * (*average - now) };
                *average = ticked * keep.powf(missed);
            }
        }
        self.ticks = due;
        self.counted = *counts;
    }

    /// The items as of `now_ms`.
    pub fn rates(&mut self, now_ms: u64, counts: &[u64; ITEMS]) -> Rates {
        self.tick(now_ms, counts);
        let seconds = now_ms.saturating_sub(self.start_ms) as f64 / 1000.0;
        let items = std::array::from_fn(|item| {
            let count = counts[item];
            let mean = if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
            let [rate1, rate5, rate15] = self.averages[item];
            Rate { count, mean, rate1, rate5, rate15 }
        });
        Rates { items }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The specification read literally: one item, one span, one tick after the other.
    struct Reference {
        alpha: f64,
        rate: Option<f64>,
    }

    impl Reference {
        fn new(minutes: f64) -> Reference {
            Reference { alpha: 1.0 - (-5.0f64 / 60.0 / minutes).exp(), rate: None }
        }

        fn tick(&mut self, events: u64) {
            let instant = events as f64 / 5.0;
            self.rate = Some(match self.rate {
                None => instant,
                Some(rate) => rate + self.alpha * (instant - rate),
            });
        }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs()))
    }

    fn counts(n: u64) -> [u64; ITEMS] {
        std::array::from_fn(|item| n * (item as u64 + 1))
    }

    proptest! {
        #[test]
        fn lazy_ticks_equal_a_tick_every_five_seconds(
            start_ms in 0u64..1_000_000,
            steps in prop::collection::vec((0u64..40_000, 0u64..10_000), 1..60),
        ) {
            let mut meters = Meters::new(start_ms);
            let mut references = MINUTES.map(Reference::new);
            let (mut now_ms, mut count, mut pending, mut ticks) = (start_ms, 0, 0, 0);
            for (pause_ms, events) in steps {
                now_ms += pause_ms;
                meters.tick(now_ms, &counts(count));
                while ticks < (now_ms - start_ms) / 5000 {
                    references.iter_mut().for_each(|r| r.tick(pending));
                    pending = 0;
                    ticks += 1;
                }
                count += events;
                pending += events;
                let rates = meters.rates(now_ms, &counts(count));
                let one = rates.item(1).unwrap();
                prop_assert_eq!(one.count, count);
                let shown = [one.rate1, one.rate5, one.rate15];
                for (rate, reference) in shown.iter().zip(&references) {
                    prop_assert!(close(*rate, reference.rate.unwrap_or(0.0)));
                }
                let last = rates.item(13).unwrap();
                prop_assert!(close(last.rate5, one.rate5 * 13.0));
            }
        }

        #[test]
        fn merged_shards_equal_one_shard_with_all_events(
            steps in prop::collection::vec((1u64..20_000, 0u64..500, 0u64..500), 1..40),
        ) {
            let (mut a, mut b, mut both) = (Meters::new(0), Meters::new(0), Meters::new(0));
            let (mut now_ms, mut count_a, mut count_b) = (0, 0, 0);
            for (pause_ms, events_a, events_b) in steps {
                now_ms += pause_ms;
                a.tick(now_ms, &counts(count_a));
                b.tick(now_ms, &counts(count_b));
                both.tick(now_ms, &counts(count_a + count_b));
                count_a += events_a;
                count_b += events_b;
            }
            let mut merged = a.rates(now_ms, &counts(count_a));
            merged.merge(&b.rates(now_ms, &counts(count_b)));
            let whole = both.rates(now_ms, &counts(count_a + count_b));
            for number in 1..=13 {
                let (m, w) = (merged.item(number).unwrap(), whole.item(number).unwrap());
                prop_assert_eq!(m.count, w.count);
                prop_assert!(close(m.mean, w.mean));
                prop_assert!(close(m.rate1, w.rate1));
                prop_assert!(close(m.rate5, w.rate5));
                prop_assert!(close(m.rate15, w.rate15));
            }
        }
    }

    #[test]
    fn rates_are_zero_before_the_first_tick_which_sets_them() {
        let mut meters = Meters::new(1000);
        let early = *meters.rates(1000, &counts(50)).item(1).unwrap();
        assert_eq!(early, Rate { count: 50, ..Rate::default() });
        let later = *meters.rates(5999, &counts(50)).item(1).unwrap();
        assert_eq!((later.rate1, later.rate15), (0.0, 0.0));
        assert!(close(later.mean, 50.0 / 4.999));
        let ticked = *meters.rates(6000, &counts(50)).item(1).unwrap();
        assert_eq!((ticked.rate1, ticked.rate5, ticked.rate15), (10.0, 10.0, 10.0));
        assert_eq!(ticked.mean, 10.0);
    }

    #[test]
    fn ages_of_silence_are_caught_up_at_once() {
        let mut meters = Meters::new(0);
        meters.tick(5000, &counts(500));
        let rates = meters.rates(u64::MAX, &counts(500));
        assert_eq!(rates.item(1).unwrap().rate15, 0.0);
        assert_eq!(rates.item(1).unwrap().count, 500);
    }

    #[test]
    fn there_are_items_one_to_thirteen() {
        let rates = Rates::default();
        assert!(rates.item(0).is_none() && rates.item(14).is_none());
        assert!(rates.item(1).is_some() && rates.item(13).is_some());
    }
}
