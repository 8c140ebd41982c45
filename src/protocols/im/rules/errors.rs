//! Counts the errors of one connection, exactly (IM section 12, abuse).
//!
//! Costs: no allocation for a client without errors; otherwise 8 bytes for each of the last ones,
//! as many as are allowed.

use std::collections::VecDeque;

/// When the last errors happened.
#[derive(Debug, Default)]
pub struct Errors {
    times_ms: VecDeque<u64>,
}

impl Errors {
    /// One more; true if there were more than `max` within so many milliseconds, this one included.
    pub fn add(&mut self, now_ms: u64, within_ms: u64, max: usize) -> bool {
        let times = &mut self.times_ms;
        while times.front().is_some_and(|then| now_ms.saturating_sub(*then) >= within_ms) {
            times.pop_front();
        }
        if times.len() >= max {
            return true;
        }
        times.push_back(now_ms);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_slides() {
        let mut errors = Errors::default();
        assert!((0..10).all(|n| !errors.add(n * 1000, 60_000, 10)));
        assert!(errors.add(59_999, 60_000, 10));
        assert!(!errors.add(60_000, 60_000, 10), "the first one is over");
        assert!(errors.add(60_000, 60_000, 10));
        assert!(!errors.add(61_000, 60_000, 10));
        assert!(errors.times_ms.len() <= 10);
    }
}
