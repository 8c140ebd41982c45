//! Limits on how often things may happen: for all shards together, and per connection.
//!
//! Costs: [`SharedLimiter::take`] is two atomic loads and one compare-and-swap when it lets pass,
//! no write when it refuses, one load when it is off. So is [`SharedBucket`]. [`Window`] is 12
//! bytes in the connection, [`Bucket`] 8.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

const SECOND_NS: u64 = 1_000_000_000;

/// The burst in time: what is taken ahead may take a second to come in. One nanosecond more,
/// because the times are rounded to nanoseconds.
const AHEAD_NS_MAX: u64 = SECOND_NS + 1;

/// Token bucket shared by all shards (netsvr section 6.8; \[FIX\] W15: a new rate is also the new
/// burst, and a limiter that is off can be switched on).
///
/// It holds `rate` tokens, starts full, and `rate` tokens come in per second, evenly. Kept as one
/// time (GCRA): the moment at which the bucket would be full again. Rates above 10^9 act as 10^9.
#[derive(Debug)]
#[repr(align(64))]
pub struct SharedLimiter {
    full_at_ns: AtomicU64,
    rate: AtomicU32,
}

impl SharedLimiter {
    /// `per_second` 0 is off: everything passes.
    pub fn new(per_second: u32) -> SharedLimiter {
        SharedLimiter { full_at_ns: AtomicU64::new(0), rate: AtomicU32::new(per_second) }
    }

    /// Takes a token; false if there is none. `now_ns` comes from one monotonic clock; it may be a
    /// little behind that of another thread.
    pub fn take(&self, now_ns: u64) -> bool {
        // Relaxed throughout: the limiter guards no other memory.
        let rate = self.rate();
        if rate == 0 {
            return true;
        }
        let token = |full_at: u64| {
            let start = full_at.max(now_ns);
            let next = start.saturating_add(token_ns(start, rate));
            (next <= now_ns.saturating_add(AHEAD_NS_MAX)).then_some(next)
        };
        self.full_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, token).is_ok()
    }

    /// Tokens per second and the size of the bucket; 0 is off.
    pub fn rate(&self) -> u32 {
        self.rate.load(Ordering::Relaxed)
    }

    /// Changes rate and burst; 0 switches it off. A bucket that was half full is half full at the
    /// new rate, too.
    pub fn set_rate(&self, per_second: u32) {
        self.rate.store(per_second, Ordering::Relaxed);
    }
}

/// The time that one token takes to come in, counted from `start`. Tokens stand evenly on each
/// second, rounded down to nanoseconds; so the rate is exact although one token is not.
fn token_ns(start: u64, rate: u32) -> u64 {
    let rate = u64::from(rate).clamp(1, SECOND_NS);
    // Both products are at most 10^18.
    let index = ((start % SECOND_NS + 1) * rate - 1) / SECOND_NS;
    (index + 1) * SECOND_NS / rate - index * SECOND_NS / rate
}

/// The rules of a [`Window`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowRules {
    /// Messages that pass at the beginning of a connection, at any speed.
    pub zero_window_max: u32,
    /// Messages that pass in each window after that.
    pub max: u32,
    /// Length of a window, milliseconds.
    pub window_ms: u32,
}

/// Per-connection limiter (netsvr section 2.6, with exact durations as netsvr section 15 says):
/// the first `zero_window_max` messages pass, then at most `max` per window. A window starts with
/// the first message that comes more than `window_ms` after the start of the one before.
///
/// The start is kept modulo 2^32 ms (49.7 days). A connection that pauses for a multiple of that,
/// to within one window, finds its old window still going on; in the worst case it waits one
/// window more. A clock that goes back starts a new window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Messages that passed before the first window; at most `zero_window_max`.
    zero: u32,
    /// Messages that passed in this window; 0 means that none has started.
    passed: u32,
    start_ms: u32,
}

const _: () = assert!(size_of::<Window>() <= 12);

impl Window {
    /// Counts a message; false if it must not pass.
    pub fn take(&mut self, now_ms: u64, rules: &WindowRules) -> bool {
        if self.zero < rules.zero_window_max {
            self.zero += 1;
            return true;
        }
        let now_ms = now_ms as u32;
        if self.passed == 0 || now_ms.wrapping_sub(self.start_ms) > rules.window_ms {
            self.start_ms = now_ms;
            self.passed = 0;
        }
        let passes = self.passed < rules.max;
        self.passed += u32::from(passes);
        passes
    }
}

/// How fast a [`Bucket`] fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketRules {
    /// Tokens per second, evenly; 0 is no limit.
    pub rate: u32,
    /// Tokens that a full bucket holds; at least 1.
    pub burst: u32,
}

impl BucketRules {
    /// The time at which the bucket would be full again after one more token was taken from one
    /// that is full at `full_at_ns`; `None` if there is no token.
    fn take(self, full_at_ns: u64, now_ms: u64) -> Option<u64> {
        let now_ns = now_ms.saturating_mul(1_000_000);
        let token_ns = self.token_ns();
        let next = full_at_ns.max(now_ns).saturating_add(token_ns);
        let latest = now_ns.saturating_add(token_ns.saturating_mul(u64::from(self.burst.max(1))));
        (next <= latest).then_some(next)
    }

    /// The time that one token takes to come in.
    fn token_ns(self) -> u64 {
        SECOND_NS / u64::from(self.rate).clamp(1, SECOND_NS)
    }
}

/// Token bucket of one connection, kept as one time (GCRA). A new one is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    full_at_ns: u64,
}

impl Bucket {
    /// Takes a token; false if there is none.
    pub fn take(&mut self, now_ms: u64, rules: BucketRules) -> bool {
        if rules.rate == 0 {
            return true;
        }
        let next = rules.take(self.full_at_ns, now_ms);
        self.full_at_ns = next.unwrap_or(self.full_at_ns);
        next.is_some()
    }

    /// From when on there is a token, milliseconds of the clock of `take`.
    pub fn due_ms(&self, rules: BucketRules) -> u64 {
        if rules.rate == 0 {
            return 0;
        }
        let ahead_ns = rules.token_ns().saturating_mul(u64::from(rules.burst.max(1)) - 1);
        self.full_at_ns.saturating_sub(ahead_ns).div_ceil(1_000_000)
    }

    /// Whether it holds all that it can.
    pub fn is_full(&self, now_ms: u64) -> bool {
        self.full_at_ns <= now_ms.saturating_mul(1_000_000)
    }
}

/// The same, shared by all shards.
#[derive(Debug, Default)]
pub struct SharedBucket {
    full_at_ns: AtomicU64,
}

impl SharedBucket {
    /// Takes a token; false if there is none.
    pub fn take(&self, now_ms: u64, rules: BucketRules) -> bool {
        let token = |full_at_ns| rules.take(full_at_ns, now_ms);
        // Relaxed: the bucket guards no other memory.
        rules.rate == 0
            || self.full_at_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, token).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use proptest::prelude::*;

    use super::*;

    fn drain(limiter: &SharedLimiter, now_ns: u64) -> u64 {
        (0..u64::MAX).find(|_| !limiter.take(now_ns)).expect("it refuses at some time")
    }

    /// What has come in by a time, of a bucket that is never full.
    fn incoming(rate: u32, elapsed_ns: u64) -> u64 {
        (u128::from(rate) * u128::from(elapsed_ns) / u128::from(SECOND_NS)) as u64
    }

    #[test]
    fn a_full_bucket_holds_exactly_its_rate() {
        for rate in [1, 2, 3, 7, 999, 1000, 30_000, 123_457] {
            for now in [0, 1, 333_333_333, 333_333_334, 1_999_999_999, 7_000_000_123] {
                let limiter = SharedLimiter::new(rate);
                assert_eq!(drain(&limiter, now), u64::from(rate), "{rate}/s at {now}");
                assert!(!limiter.take(now));
            }
        }
    }

    #[test]
    fn a_bucket_holds_its_burst_and_fills_at_its_rate() {
        let rules = BucketRules { rate: 20, burst: 40 };
        let (mut bucket, shared) = (Bucket::default(), SharedBucket::default());
        let mut passed = |now_ms| {
            let passed = (0..1000).filter(|_| bucket.take(now_ms, rules)).count();
            assert_eq!((0..1000).filter(|_| shared.take(now_ms, rules)).count(), passed);
            passed
        };
        assert_eq!(passed(7), 40);
        assert_eq!(passed(7 + 49), 0);
        assert_eq!(passed(7 + 50), 1);
        assert_eq!(passed(7 + 1050), 20);
        assert_eq!(passed(1_000_000), 40);
        let off = BucketRules { rate: 0, burst: 1 };
        assert!((0..1000).all(|_| Bucket::default().take(5, off)));
    }

    #[test]
    fn a_bucket_says_when_it_has_a_token_again() {
        for rules in [BucketRules { rate: 7, burst: 3 }, BucketRules { rate: 3000, burst: 1 }] {
            let mut bucket = Bucket::default();
            assert!(bucket.is_full(0) && bucket.due_ms(rules) == 0);
            let mut now_ms = 5;
            for _ in 0..20 {
                while bucket.take(now_ms, rules) {}
                let due_ms = bucket.due_ms(rules);
                assert!(due_ms > now_ms && !bucket.is_full(now_ms));
                assert!(!bucket.clone().take(due_ms - 1, rules), "{rules:?}: not before");
                now_ms = due_ms;
                assert!(bucket.clone().take(now_ms, rules), "{rules:?}: at {now_ms}");
            }
            assert!(bucket.is_full(now_ms + 1000));
        }
    }

    #[test]
    fn off_lets_everything_pass_and_can_be_switched_on() {
        let limiter = SharedLimiter::new(0);
        assert!((0..10_000).all(|_| limiter.take(5)));
        limiter.set_rate(20);
        assert_eq!((limiter.rate(), drain(&limiter, 5)), (20, 20));
        limiter.set_rate(0);
        assert!((0..10_000).all(|_| limiter.take(5)));
    }

    #[test]
    fn a_new_rate_is_the_new_burst() {
        let limiter = SharedLimiter::new(50_000);
        limiter.set_rate(10);
        assert_eq!(drain(&limiter, SECOND_NS), 10);
        limiter.set_rate(1000);
        assert_eq!(drain(&limiter, 2 * SECOND_NS), 1000);
        // Half full at one rate is half full at the other.
        limiter.set_rate(10);
        assert_eq!(drain(&limiter, 2 * SECOND_NS + SECOND_NS / 2), 5);
    }

    #[test]
    fn extreme_rates_and_times_neither_overflow_nor_stop() {
        for rate in [1, SECOND_NS as u32, u32::MAX] {
            for now in [0, u64::MAX / 2, u64::MAX - SECOND_NS, u64::MAX] {
                let limiter = SharedLimiter::new(rate);
                assert!(limiter.take(now), "{rate}/s at {now}");
            }
        }
        assert!((0..3 * SECOND_NS).step_by(12_345_677).all(|now| token_ns(now, u32::MAX) == 1));
    }

    /// Asked at every moment, it lets pass all that came in, to within the rounding, for ever.
    #[test]
    fn the_rate_does_not_drift() {
        for rate in [1, 3, 7, 30_000, 49_999] {
            let limiter = SharedLimiter::new(rate);
            let start = 777_777_777;
            let mut passed = 0;
            for tick in 0..20_000 {
                let elapsed = tick * 4_999_999;
                passed += drain(&limiter, start + elapsed);
                let exact = u64::from(rate) + incoming(rate, elapsed);
                assert!(passed.abs_diff(exact) <= 1, "{rate}/s: {passed} for {exact}");
            }
        }
    }

    #[test]
    fn threads_share_one_bucket() {
        const THREADS: usize = 4;
        let (rate, step_ns, rounds) = (1000, 10_000_000, 50);
        let limiter = SharedLimiter::new(rate);
        let barrier = Barrier::new(THREADS);
        let passed: Vec<u64> = std::thread::scope(|scope| {
            let thread = || {
                let round = |round| {
                    barrier.wait();
                    drain(&limiter, round * step_ns)
                };
                (0..rounds).map(round).sum()
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(thread)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let exact = u64::from(rate) + incoming(rate, (rounds - 1) * step_ns);
        assert_eq!(passed.iter().sum::<u64>(), exact);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Against a bucket that is kept exactly, in billionths of a token, and asked at the same
        /// times.
        #[test]
        fn the_limiter_is_a_token_bucket(
            rate in prop_oneof![1..50_u32, 1..100_000_u32],
            pauses in prop::collection::vec(prop_oneof![
                Just(0), 0..1000_u64, 0..200_000_000_u64, 0..3_000_000_000_u64
            ], 1..300),
        ) {
            let limiter = SharedLimiter::new(rate);
            let token = u128::from(SECOND_NS);
            let mut level = u128::from(rate) * token;
            let (mut now, mut passed, mut exact) = (0, 0_u64, 0_u64);
            for pause in pauses {
                now += pause;
                level += u128::from(rate) * u128::from(pause);
                level = level.min(u128::from(rate) * token);
                passed += u64::from(limiter.take(now));
                if level >= token {
                    level -= token;
                    exact += 1;
                }
                prop_assert!(passed.abs_diff(exact) <= 1, "{} for {}", passed, exact);
            }
        }

        #[test]
        fn a_window_passes_its_maximum_and_no_more(
            (zero_window_max, max, window_ms) in (0..20_u32, 0..10_u32, 0..2000_u32),
            start in prop_oneof![Just(0), Just((1 << 32) - 3000), 0..u64::MAX / 2],
            pauses in prop::collection::vec(prop_oneof![0..20_u64, 0..3000_u64], 1..200),
        ) {
            let rules = WindowRules { zero_window_max, max, window_ms };
            let (mut window, mut now) = (Window::default(), start);
            // Start of the current window and what passed in it.
            let mut current: Option<(u64, u32)> = None;
            for (sent, pause) in (0_u32..).zip(pauses) {
                now += pause;
                let expected = sent < rules.zero_window_max || {
                    let (since, passed) = current.unwrap_or((now, 0));
                    let over = now - since > u64::from(rules.window_ms);
                    let (since, passed) = if over { (now, 0) } else { (since, passed) };
                    let passes = passed < rules.max;
                    current = Some((since, passed + u32::from(passes)));
                    passes
                };
                prop_assert_eq!(window.take(now, &rules), expected, "message {} at {}", sent, now);
            }
        }
    }

    #[test]
    fn a_window_lasts_its_exact_time() {
        let rules = WindowRules { zero_window_max: 1, max: 2, window_ms: 1000 };
        let mut window = Window::default();
        let mut passes = |now| window.take(now, &rules);
        assert!(passes(0), "the zero window");
        assert!(passes(500) && passes(500) && !passes(501));
        assert!(!passes(1500), "the window includes its last millisecond");
        assert!(passes(1501) && passes(2501) && !passes(2501) && passes(2502));
        // The clock's low half wraps.
        let wrap = 1 << 32;
        assert!(passes(wrap - 10) && passes(wrap + 900) && !passes(wrap + 990));
        assert!(passes(wrap + 991));
    }
}
