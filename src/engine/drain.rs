//! A drain: the clients of a shard, or a share of them, are said goodbye to one after the other.
//!
//! They come back somewhere else, and whoever takes them over is to live through that. Those go
//! first from whom nothing has come for the longest; who speaks while it waits goes behind all
//! others, once. The goodbyes are spread evenly over a time, each put off by chance within the time
//! to the next. No second has more of them than follows from that, also behind a shard that was
//! late. A drain can be taken back, unless it is the end of the gateway.
//!
//! A client whose turn has come is heard out first, no longer than `runtime.close_timeout`; who
//! waits for room in the queues of workers has more time.
//!
//! Costs: 8 bytes per client while it lasts, one sort at its beginning.

use std::collections::VecDeque;
use std::time::Duration;

use crate::engine::closing::SHUTDOWN;
use crate::engine::conns::{Conn, Conns, Flags};
use crate::hub::ConnId;
use crate::hub::push::CloseReason;

/// Milliseconds in which the number of goodbyes has a bound.
const WINDOW_MS: u64 = 1000;
const NANOS_PER_MS: u64 = 1_000_000;

/// Who goes, how fast, and why. The default: everybody, at once, and the gateway ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Share of the clients, 1 to 100.
    pub percent: u8,
    /// The goodbyes are spread over this time; zero: all at once.
    pub spread: Duration,
    /// How much of the time to the next one a goodbye may be put off, 0 to 100 percent.
    pub jitter: u8,
    /// What the clients are told.
    pub reason: CloseReason,
    /// The gateway ends: nobody is accepted any more, and it can not be taken back.
    pub last: bool,
}

impl Default for Order {
    fn default() -> Order {
        Order { percent: 100, spread: Duration::ZERO, jitter: 0, reason: SHUTDOWN, last: true }
    }
}

/// Where a shard stands in a drain.
#[derive(Debug)]
pub(crate) struct Drain {
    order: Order,
    began_ms: u64,
    /// Those whose turn has not come, in the order in which it comes.
    waiting: VecDeque<ConnId>,
    /// Those who spoke meanwhile; their turn is behind that of all others.
    spoke: VecDeque<ConnId>,
    /// Those who are heard out, and how long, milliseconds of the process clock.
    heard: VecDeque<(ConnId, u64)>,
    pace: Pace,
}

impl Default for Drain {
    fn default() -> Drain {
        Drain {
            order: Order { last: false, ..Order::default() },
            began_ms: 0,
            waiting: VecDeque::new(),
            spoke: VecDeque::new(),
            heard: VecDeque::new(),
            pace: Pace::default(),
        }
    }
}

impl Drain {
    /// Clients whose turn has not come; some may have left by themselves.
    pub fn waiting(&self) -> usize {
        self.waiting.len() + self.spoke.len()
    }

    /// Whether anybody waits for its turn, or is heard out.
    pub fn is_on(&self) -> bool {
        self.waiting() > 0 || !self.heard.is_empty()
    }

    /// What clients are told.
    pub fn reason(&self) -> CloseReason {
        self.order.reason.clone()
    }

    /// Whose turn it is, and whether it has not been put off before.
    fn next(&mut self) -> Option<(ConnId, bool)> {
        let first = self.waiting.pop_front().map(|conn| (conn, true));
        let next = first.or_else(|| self.spoke.pop_front().map(|conn| (conn, false)));
        if self.waiting() == 0 {
            self.let_stay();
        }
        next
    }

    /// Nobody waits any more; the room goes back.
    fn let_stay(&mut self) {
        (self.waiting, self.spoke) = (VecDeque::new(), VecDeque::new());
    }

    /// It begins, in the place of one that is under way, for a share of these clients: when each
    /// was last heard from, and who it is. `seed` decides what is left to chance.
    pub fn begin(&mut self, order: Order, clients: Vec<(u64, ConnId)>, now_ms: u64, seed: u64) {
        let mut clients = clients;
        if !order.spread.is_zero() || order.percent < 100 {
            clients.sort_unstable();
            clients.truncate((clients.len() * usize::from(order.percent)).div_ceil(100));
        }
        let waiting: VecDeque<_> = clients.into_iter().map(|(_, id)| id).collect();
        let pace = Pace::new(&order, waiting.len(), now_ms, seed);
        let heard = std::mem::take(&mut self.heard);
        let spoke = VecDeque::new();
        *self = Drain { order, began_ms: now_ms, waiting, spoke, heard, pace };
    }

    /// Whoever still waits for its turn has it now.
    pub fn hurry(&mut self) {
        self.pace = Pace::default();
    }

    /// It is taken back, if that is possible: whose turn has not come stays.
    pub fn stay(&mut self) {
        if !self.order.last {
            self.let_stay();
        }
    }

    /// The next client whose turn has come; it is marked.
    pub fn leaver(&mut self, conns: &mut Conns, now_ms: u64) -> Option<u32> {
        while self.pace.due_ms() <= now_ms
            && let Some((id, first)) = self.next()
        {
            let Some(slot) = conns.slot(id) else { continue };
            let Conn { flags, active_ms, .. } = &mut conns[slot];
            if flags.has(Flags::GONE | Flags::CLOSING) {
                continue;
            }
            if first && *active_ms > self.began_ms && self.pace.is_slow() {
                self.spoke.push_back(id);
                continue;
            }
            flags.set(Flags::LEAVES);
            self.pace.took(now_ms);
            return Some(slot);
        }
        None
    }

    /// A client whose turn has come has something to say before it goes, until then at the latest.
    pub fn hear_out(&mut self, id: ConnId, until_ms: u64) {
        self.heard.push_back((id, until_ms));
    }

    /// The next client that was heard out for long enough, if it is still there.
    pub fn heard_out(&mut self, conns: &Conns, now_ms: u64) -> Option<u32> {
        while let Some(&(id, until_ms)) = self.heard.front()
            && until_ms <= now_ms
        {
            self.heard.pop_front();
            let there =
                |slot: &u32| !conns[*slot].is_ending() && !conns[*slot].flags.has(Flags::GONE);
            if let Some(slot) = conns.slot(id).filter(there) {
                return Some(slot);
            }
        }
        None
    }

    /// When a turn of somebody comes, milliseconds of the process clock.
    pub fn next_ms(&self) -> Option<u64> {
        let leaves = (self.waiting() > 0).then(|| self.pace.due_ms());
        let heard = self.heard.front().map(|(_, until_ms)| *until_ms);
        leaves.into_iter().chain(heard).min()
    }

    /// Whether the gateway ends.
    pub fn is_last(&self) -> bool {
        self.order.last
    }
}

/// When the next goodbye may be said. The default: at any time.
#[derive(Debug, Default)]
struct Pace {
    /// From one to the next, nanoseconds; 0: all at once.
    each_ns: u64,
    /// When the next one is planned, and how much later it is said by chance; nanoseconds of the
    /// process clock.
    next_ns: u64,
    late_ns: u64,
    jitter: u64,
    rng: Option<fastrand::Rng>,
    /// When the last ones were said, as many as a second may have; milliseconds of the process
    /// clock.
    told_ms: VecDeque<u64>,
    window_max: usize,
}

impl Pace {
    fn new(order: &Order, clients: usize, now_ms: u64, seed: u64) -> Pace {
        let (clients, spread_ms) = (clients.max(1) as u64, order.spread.as_millis() as u64);
        if spread_ms == 0 {
            return Pace::default();
        }
        let mut pace = Pace {
            each_ns: (spread_ms * NANOS_PER_MS / clients).max(1),
            next_ns: now_ms * NANOS_PER_MS,
            late_ns: 0,
            jitter: u64::from(order.jitter),
            rng: Some(fastrand::Rng::with_seed(seed)),
            told_ms: VecDeque::new(),
            window_max: (clients * WINDOW_MS).div_ceil(spread_ms) as usize,
        };
        pace.put_off();
        pace
    }

    fn is_slow(&self) -> bool {
        self.each_ns > 0
    }

    fn due_ms(&self) -> u64 {
        let due_ms = (self.next_ns + self.late_ns).div_ceil(NANOS_PER_MS);
        match self.told_ms.front() {
            Some(first) if self.told_ms.len() >= self.window_max => due_ms.max(first + WINDOW_MS),
            _ => due_ms,
        }
    }

    fn took(&mut self, now_ms: u64) {
        if !self.is_slow() {
            return;
        }
        if self.told_ms.len() >= self.window_max {
            self.told_ms.pop_front();
        }
        self.told_ms.push_back(now_ms);
        self.next_ns += self.each_ns;
        self.put_off();
    }

    fn put_off(&mut self) {
        let late_max = self.each_ns / 100 * self.jitter;
        self.late_ns = self.rng.as_mut().map_or(0, |rng| rng.u64(..=late_max));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When each of so many clients goes, if the shard has a turn at these times.
    fn story(order: &Order, clients: usize, turns: impl Iterator<Item = u64>) -> Vec<u64> {
        let mut pace = Pace::new(order, clients, 0, 7);
        let mut told = Vec::new();
        for now_ms in turns {
            while told.len() < clients && pace.due_ms() <= now_ms {
                pace.took(now_ms);
                told.push(now_ms);
            }
        }
        told
    }

    fn most_in_a_second(told: &[u64]) -> usize {
        let until = |first: u64| told.partition_point(|ms| *ms < first + 1000);
        (0..told.len()).map(|first| until(told[first]) - first).max().unwrap_or(0)
    }

    fn order(spread_ms: u64, jitter: u8) -> Order {
        Order { spread: Duration::from_millis(spread_ms), jitter, ..Order::default() }
    }

    #[test]
    fn goodbyes_are_even_over_the_time_and_no_second_has_more_than_its_share() {
        for (clients, spread_ms, jitter) in [
            (1, 30_000, 0),
            (10, 30_000, 100),
            (4000, 30_000, 0),
            (4000, 30_000, 100),
            (3999, 7001, 50),
            (500_000, 10_000, 100),
        ] {
            let order = order(spread_ms, jitter);
            let told = story(&order, clients, 0..=2 * spread_ms);
            assert_eq!(told.len(), clients, "all of them go");
            let share = (clients as u64 * 1000).div_ceil(spread_ms) as usize;
            assert!(most_in_a_second(&told) <= share);
            // The bound of a second may move the last ones by one second.
            assert!(told[clients - 1] <= spread_ms + 1000, "{}", told[clients - 1]);
            let half = told.partition_point(|ms| *ms <= spread_ms / 2);
            assert!(half.abs_diff(clients / 2) <= share + 1, "{half} of {clients} after half");
        }
    }

    #[test]
    fn who_was_late_does_not_make_up_for_it_at_once() {
        let order = order(10_000, 100);
        // Nothing for four seconds.
        let told = story(&order, 1000, (0..2000).chain(6000..20_000));
        assert_eq!(told.len(), 1000);
        assert!(most_in_a_second(&told) <= 100);
    }

    #[test]
    fn without_a_time_all_go_at_once() {
        assert_eq!(story(&order(0, 100), 1000, 5..6), vec![5; 1000]);
    }
}
