//! Questions of this node that other nodes have to answer: who is still missing, what came so far,
//! and when waiting ends.
//!
//! One question may go out in several messages, one per bucket; each has a number of its own and
//! its own list of nodes that must answer. Invariant: every question that was opened is closed
//! exactly once, by the last answer or by its deadline. All have the same time, so the deadlines
//! are a queue. Costs: two entries in hash tables per question.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::hub::push::Outcome;
use crate::limits::{MESH_REQUEST_TIME, MESH_REQUESTS_MAX};
use crate::spare::Look;

/// See the module.
#[derive(Debug)]
pub(super) struct Asks {
    number: u64,
    /// By the number of a message.
    messages: HashMap<u64, Message>,
    /// By the number of a question.
    open: HashMap<u64, Ask>,
    deadlines: VecDeque<(Instant, u64)>,
}

#[derive(Debug)]
struct Message {
    ask: u64,
    /// Nodes whose answer is missing.
    missing: Vec<u16>,
    /// The only topic or user that it names.
    name: Option<Box<str>>,
}

#[derive(Debug)]
struct Ask {
    asker: Asker,
    messages: Vec<u64>,
    /// Messages that not every node has answered.
    unanswered: usize,
    outcome: Outcome,
}

/// Who wants the answer: a shard, under the number that it knows the question by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub shard: u8,
    pub number: u64,
}

/// A question that is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Over {
    pub asker: Asker,
    /// What the nodes came to that have answered.
    pub outcome: Outcome,
    /// Nodes that have not, and what the message to them named.
    pub missing: Vec<(u16, Option<Box<str>>)>,
}

impl Asks {
    /// Nothing is asked. `first` is any number: answers to an earlier process must not fit.
    pub fn new(first: u64) -> Asks {
        Asks {
            number: first,
            messages: HashMap::new(),
            open: HashMap::new(),
            deadlines: VecDeque::new(),
        }
    }

    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.messages);
        look.at(&mut self.open);
        look.at(&mut self.deadlines);
    }

    /// Begins a question; each message then needs [`Asks::message`]. `None`: too many are open.
    pub fn begin(&mut self, asker: Asker, now: Instant) -> Option<u64> {
        if self.open.len() >= MESH_REQUESTS_MAX {
            return None;
        }
        let ask = self.next();
        let outcome = Outcome::default();
        self.open.insert(ask, Ask { asker, messages: Vec::new(), unanswered: 0, outcome });
        self.deadlines.push_back((now + MESH_REQUEST_TIME, ask));
        Some(ask)
    }

    /// Numbers a message of a question; `missing` must answer it, and is not empty.
    pub fn message(&mut self, ask: u64, missing: Vec<u16>, name: Option<Box<str>>) -> u64 {
        debug_assert!(!missing.is_empty());
        let number = self.next();
        if let Some(open) = self.open.get_mut(&ask) {
            open.messages.push(number);
            open.unanswered += 1;
            self.messages.insert(number, Message { ask, missing, name });
        }
        number
    }

    /// Everything was sent. If nobody has to answer, the question is over.
    pub fn sent(&mut self, ask: u64) -> Option<Over> {
        let done = self.open.get(&ask).is_some_and(|open| open.unanswered == 0);
        if done { self.close(ask) } else { None }
    }

    /// A node has answered a message. Gives what the message named, and the question if that was
    /// the last answer. `None` if nobody waits for it.
    pub fn answered(
        &mut self,
        number: u64,
        node: u16,
        outcome: Outcome,
    ) -> Option<(Option<Box<str>>, Option<Over>)> {
        let message = self.messages.get_mut(&number)?;
        let at = message.missing.iter().position(|missing| *missing == node)?;
        message.missing.swap_remove(at);
        let (ask, all, name) = (message.ask, message.missing.is_empty(), message.name.clone());
        if all {
            self.messages.remove(&number);
        }
        let open = self.open.get_mut(&ask)?;
        open.outcome.add(outcome);
        open.unanswered -= usize::from(all);
        let over = if open.unanswered == 0 { self.close(ask) } else { None };
        Some((name, over))
    }

    /// The next question whose time is over.
    pub fn expired(&mut self, now: Instant) -> Option<Over> {
        while let Some((due, ask)) = self.deadlines.front().copied() {
            if due > now && self.open.contains_key(&ask) {
                return None;
            }
            self.deadlines.pop_front();
            if let Some(over) = self.close(ask) {
                return Some(over);
            }
        }
        None
    }

    /// When that will be.
    pub fn due(&self) -> Option<Instant> {
        self.deadlines.front().map(|(due, _)| *due)
    }

    fn close(&mut self, ask: u64) -> Option<Over> {
        let Ask { asker, messages, outcome, .. } = self.open.remove(&ask)?;
        let mut missing = Vec::new();
        for number in messages {
            if let Some(message) = self.messages.remove(&number) {
                missing.extend(message.missing.into_iter().map(|n| (n, message.name.clone())));
            }
        }
        Some(Over { asker, outcome, missing })
    }

    /// A number that no message has, for questions that are kept elsewhere.
    pub fn number(&mut self) -> u64 {
        self.next()
    }

    fn next(&mut self) -> u64 {
        self.number = self.number.wrapping_add(1).max(1);
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: Asker = Asker { shard: 1, number: 9 };

    fn outcome(done: u64, failed: u64) -> Outcome {
        Outcome { done, failed }
    }

    #[test]
    fn a_question_is_over_with_the_last_answer_to_its_last_message() {
        let mut asks = Asks::new(u64::MAX - 1);
        let ask = asks.begin(ASKER, Instant::now()).expect("room");
        let a = asks.message(ask, vec![2, 3], Some("t".into()));
        let b = asks.message(ask, vec![2], None);
        assert_eq!(asks.sent(ask), None);
        assert_eq!(asks.answered(a, 2, outcome(1, 0)), Some((Some("t".into()), None)));
        assert_eq!(asks.answered(a, 2, outcome(1, 0)), None, "twice");
        assert_eq!(asks.answered(a, 4, outcome(1, 0)), None, "not asked");
        assert_eq!(asks.answered(b, 2, outcome(0, 2)), Some((None, None)));
        let over = Over { asker: ASKER, outcome: outcome(11, 2), missing: Vec::new() };
        assert_eq!(asks.answered(a, 3, outcome(10, 0)), Some((Some("t".into()), Some(over))));
        assert_eq!(asks.expired(Instant::now()), None);
        assert!(asks.messages.is_empty() && asks.open.is_empty() && asks.due().is_none());
    }

    #[test]
    fn what_nobody_has_to_answer_is_over_at_once() {
        let mut asks = Asks::new(0);
        let ask = asks.begin(ASKER, Instant::now()).expect("room");
        let over = Over { asker: ASKER, outcome: outcome(0, 0), missing: Vec::new() };
        assert_eq!(asks.sent(ask), Some(over));
        assert_eq!(asks.sent(ask), None);
    }

    #[test]
    fn at_its_deadline_a_question_names_who_is_missing() {
        let (mut asks, now) = (Asks::new(0), Instant::now());
        let ask = asks.begin(ASKER, now).expect("room");
        let a = asks.message(ask, vec![2, 3], Some("t".into()));
        asks.message(ask, vec![4], None);
        asks.answered(a, 3, outcome(5, 0));
        assert_eq!(asks.expired(now + MESH_REQUEST_TIME / 2), None);
        let missing = vec![(2, Some("t".into())), (4, None)];
        let over = Over { asker: ASKER, outcome: outcome(5, 0), missing };
        assert_eq!(asks.expired(now + MESH_REQUEST_TIME), Some(over));
        assert_eq!(asks.expired(now + MESH_REQUEST_TIME), None);
        assert_eq!(asks.answered(a, 2, outcome(1, 0)), None, "too late");
    }

    #[test]
    fn no_more_questions_are_open_than_agreed() {
        let (mut asks, now) = (Asks::new(0), Instant::now());
        assert!((0..MESH_REQUESTS_MAX).all(|_| asks.begin(ASKER, now).is_some()));
        assert_eq!(asks.begin(ASKER, now), None);
        assert!(asks.expired(now + MESH_REQUEST_TIME).is_some());
        assert!(asks.begin(ASKER, now).is_some());
    }
}
