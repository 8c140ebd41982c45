//! The time of a turn: the process clock, which only goes on, and the time of day, which is put
//! right now and then.
//!
//! Costs: two readings of the kernel's clocks a turn, without a system call.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the process started; the same clock for all shards. For whatever is due.
    pub ms: u64,
    /// The same in microseconds, for what is measured.
    pub us: u64,
    /// Unix time in seconds that never goes back, for ids: where the time of day was set back, it
    /// stays ahead of it.
    pub unix: u32,
    /// Unix time in milliseconds as the machine has it now. It follows every correction, also back:
    /// for what others are told, never for order.
    pub unix_ms: u64,
}

/// Reads the time for one shard. All clocks of a process are copies of one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    /// The largest distance that was seen between the time of day and the process clock.
    ahead: Duration,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Clock {
        Clock { start: Instant::now(), ahead: Duration::ZERO }
    }

    /// What the milliseconds count from.
    pub fn started(&self) -> Instant {
        self.start
    }

    /// The time of a turn that begins.
    pub fn now(&mut self) -> Now {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.at(self.start.elapsed(), since_1970)
    }

    /// Milliseconds since the process started.
    pub fn ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// The same in microseconds.
    pub fn us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    fn at(&mut self, elapsed: Duration, since_1970: Duration) -> Now {
        self.ahead = self.ahead.max(since_1970.saturating_sub(elapsed));
        let unix = (self.ahead + elapsed).as_secs() as u32;
        let us = elapsed.as_micros() as u64;
        Now { ms: us / 1000, us, unix, unix_ms: since_1970.as_millis() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NOON: Duration = Duration::from_secs(1_795_000_000);

    #[test]
    fn corrections_of_the_time_of_day_are_followed_and_seconds_for_ids_never_go_back() {
        let mut clock = Clock::start();
        let mut at = |elapsed: u32, since_1970| {
            let now = clock.at(SECOND * elapsed, since_1970);
            (now.ms, now.unix_ms - NOON.as_millis() as u64, now.unix - NOON.as_secs() as u32)
        };
        assert_eq!(at(0, NOON + SECOND * 100), (0, 100_000, 100));
        assert_eq!(at(1, NOON + SECOND * 101), (1000, 101_000, 101));
        assert_eq!(at(2, NOON + SECOND * 2), (2000, 2000, 102), "set back by 100 s");
        assert_eq!(at(3, NOON + SECOND * 3), (3000, 3000, 103), "ids go on at their own pace");
        assert_eq!(at(4, NOON + SECOND * 900), (4000, 900_000, 900), "set ahead");
        assert_eq!(at(5, NOON + SECOND * 901), (5000, 901_000, 901));
    }

    #[test]
    fn a_machine_that_does_not_know_the_time_yet_has_ids_all_the_same() {
        let mut clock = Clock::start();
        assert_eq!(
            clock.at(SECOND, Duration::ZERO),
            Now { ms: 1000, us: 1_000_000, unix: 1, unix_ms: 0 }
        );
        assert_eq!(clock.at(SECOND * 2, NOON).unix_ms, NOON.as_millis() as u64);
    }
}
