//! How long a start tries again what time can be the remedy of.
//!
//! The kernel frees the listening sockets and the locked memory of a killed process some 10 ms
//! after its end, as they hang on its rings. While the page cache fills the memory, it refuses a
//! ring whose queues are more than a page, until it has put some aside.

use std::time::{Duration, Instant};

/// A moment in the future until which it is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    until: Instant,
}

impl Patience {
    /// Between two attempts.
    pub const PAUSE: Duration = Duration::from_millis(10);

    /// From now on for so long.
    pub fn new(time: Duration) -> Patience {
        Patience { until: Instant::now() + time }
    }

    /// Waits a little; `false` if that was often enough.
    pub fn pause(self) -> bool {
        let goes_on = Instant::now() < self.until;
        if goes_on {
            std::thread::sleep(Patience::PAUSE);
        }
        goes_on
    }

    /// Tries again after errors of which time can be the remedy.
    pub fn retry<T, E>(
        self,
        passes: impl Fn(&E) -> bool,
        mut attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        loop {
            match attempt() {
                Err(error) if passes(&error) && self.pause() => {}
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again_and_not_for_ever() {
        let patience = Patience::new(Duration::from_secs(20));
        let mut attempts = 0;
        let third = |wanted: u32| {
            attempts += 1;
            if attempts == wanted { Ok(attempts) } else { Err("not yet") }
        };
        let mut third = third;
        assert_eq!(patience.retry(|_| true, || third(3)), Ok(3));
        assert_eq!(patience.retry(|_| false, || third(5)), Err("not yet"));
        let over = Patience::new(Duration::ZERO);
        assert_eq!(over.retry(|_| true, || third(99)), Err("not yet"));
        assert_eq!(attempts, 5);
    }
}
