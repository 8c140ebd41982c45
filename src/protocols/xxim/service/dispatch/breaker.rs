//! The circuit breaker of one upstream: after repeated failures its requests fail at once, until a
//! single request has shown that it is back.
//!
//! Time is an argument. Invariant: while the circuit is open at most one request is under way as a
//! probe; a probe that never reports (its client has left) is replaced after another pause.
//! Costs: a few comparisons per request.

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Carry it.
    Pass,
    /// Carry it; its result decides whether the circuit closes.
    Probe,
    /// Answer it with code 8 at once.
    Refuse,
}

/// How the state changed by a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Opened,
    Closed,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Breaker {
    failures_max: u32,
    pause_ms: u64,
    /// Failures in a row while closed.
    failures: u32,
    /// When open: the time from which one request may pass.
    open_until_ms: Option<u64>,
}

impl Breaker {
    /// A closed circuit that opens after `failures_max` failures in a row.
    pub(super) fn new(failures_max: u32, pause_ms: u64) -> Breaker {
        Breaker { failures_max, pause_ms, failures: 0, open_until_ms: None }
    }

    /// Whether a request may be carried now.
    pub(super) fn admit(&mut self, now_ms: u64) -> Admission {
        match self.open_until_ms {
            None => Admission::Pass,
            Some(until) if now_ms < until => Admission::Refuse,
            Some(_) => {
                self.open_until_ms = Some(now_ms.saturating_add(self.pause_ms));
                Admission::Probe
            }
        }
    }

    /// The upstream answered, whatever it said. A late answer to a request from before the circuit
    /// opened shows as well that it is back.
    pub(super) fn succeeded(&mut self) -> Change {
        self.failures = 0;
        match self.open_until_ms.take() {
            Some(_) => Change::Closed,
            None => Change::None,
        }
    }

    /// The upstream did not answer. Failures of requests from before the circuit opened change
    /// nothing.
    pub(super) fn failed(&mut self, admission: Admission, now_ms: u64) -> Change {
        if self.open_until_ms.is_some() {
            if admission == Admission::Probe {
                self.open_until_ms = Some(now_ms.saturating_add(self.pause_ms));
            }
            return Change::None;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < self.failures_max {
            return Change::None;
        }
        self.open_until_ms = Some(now_ms.saturating_add(self.pause_ms));
        Change::Opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASS: Admission = Admission::Pass;

    #[test]
    fn failures_in_a_row_open_it_and_a_probe_closes_it() {
        let mut breaker = Breaker::new(3, 1000);
        for _ in 0..2 {
            assert_eq!(breaker.failed(PASS, 0), Change::None);
        }
        assert_eq!(breaker.succeeded(), Change::None, "the row is broken");
        for _ in 0..2 {
            assert_eq!(breaker.failed(PASS, 5), Change::None);
        }
        assert_eq!(breaker.admit(5), Admission::Pass);
        assert_eq!(breaker.failed(PASS, 5), Change::Opened);
        assert_eq!(breaker.admit(1004), Admission::Refuse);
        assert_eq!(breaker.admit(1005), Admission::Probe);
        assert_eq!(breaker.admit(1005), Admission::Refuse, "one at a time");
        assert_eq!(breaker.failed(Admission::Probe, 1500), Change::None);
        assert_eq!(breaker.admit(2499), Admission::Refuse);
        assert_eq!(breaker.admit(2500), Admission::Probe);
        assert_eq!(breaker.succeeded(), Change::Closed);
        assert_eq!(breaker.admit(2500), Admission::Pass);
    }

    #[test]
    fn a_probe_that_never_reports_is_replaced() {
        let mut breaker = Breaker::new(1, 10);
        assert_eq!(breaker.failed(PASS, 0), Change::Opened);
        assert_eq!(breaker.admit(10), Admission::Probe);
        assert_eq!(breaker.admit(19), Admission::Refuse);
        assert_eq!(breaker.admit(20), Admission::Probe);
    }

    #[test]
    fn late_failures_do_not_prolong_the_pause() {
        let mut breaker = Breaker::new(1, 10);
        assert_eq!(breaker.failed(PASS, 0), Change::Opened);
        assert_eq!(breaker.failed(PASS, 9), Change::None);
        assert_eq!(breaker.admit(10), Admission::Probe);
    }
}
