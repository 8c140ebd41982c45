//! Topics of a cluster: their messages come from a store that all nodes share, in portions that
//! the home of a topic asks for.
//!
//! The home decides as ever who gets which message; beyond that it tells the store how many more
//! it wants, which ones are written, and which ones it can not give to anybody here any more, so
//! that other nodes get them. Messages have the numbers of the store, which are also their order.
//!
//! Invariants: nothing waits in a topic without consumers; of each topic at most [`WANTED_MAX`]
//! messages wait or are asked for, or one per grant that crossed the end of a consumption; every
//! message that was supplied is reported once, as written or as released.
//! Costs: a report per topic and turn in which something happened to it.

use std::sync::Arc;

use bytes::Bytes;

use super::{Message, QueueLimits, Queues, TopicCount};

/// Messages of one topic that are asked for at a time.
const WANTED_MAX: usize = 256;
/// As many may be asked for although a consumer has other topics that could fill its window.
const WANTED_MIN: usize = 16;

/// What a home tells the store about a topic; see the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub topic: Arc<str>,
    /// Nobody consumes it here any more: what was wanted before is not. Comes before `wanted`.
    pub idle: bool,
    /// So many more messages are wanted.
    pub wanted: u32,
    /// Numbers of messages that are written to a consumer's socket.
    pub written: Vec<u64>,
    /// Numbers of messages that are for others.
    pub released: Vec<u64>,
}

impl Report {
    fn of(topic: &Arc<str>) -> Report {
        Report { topic: topic.clone(), ..Report::default() }
    }

    fn says_nothing(&self) -> bool {
        !self.idle && self.wanted == 0 && self.written.is_empty() && self.released.is_empty()
    }
}

/// What a home keeps for it.
#[derive(Debug, Default)]
pub(super) struct Supply {
    /// Last words about topics that have ended.
    last: Vec<Report>,
    /// Topics with something to report; one may stand here twice.
    touched: Vec<usize>,
}

/// The same of one topic.
#[derive(Debug, Default)]
pub(super) struct Supplied {
    /// Messages that were asked for and have not come.
    asked: usize,
    idle: bool,
    written: Vec<u64>,
    released: Vec<u64>,
    touched: bool,
}

impl Supplied {
    /// What there is to say, once.
    fn take(&mut self, topic: &Arc<str>) -> Report {
        Report {
            idle: std::mem::take(&mut self.idle),
            written: std::mem::take(&mut self.written),
            released: std::mem::take(&mut self.released),
            ..Report::of(topic)
        }
    }
}

impl Queues {
    /// No topics; their messages come from a store ([`Queues::supply`]).
    pub fn of_cluster(limits: QueueLimits, count: Arc<TopicCount>) -> Queues {
        Queues { supply: Some(Supply::default()), ..Queues::new(limits, count) }
    }

    /// Messages of a topic from the store, with their numbers.
    pub fn supply(&mut self, topic: &Arc<str>, messages: Vec<(u64, Bytes)>, now_ms: u64) {
        let key = self.names.get(topic).copied();
        let Some(key) = key.filter(|&key| !self.topics[key].consumers.is_empty()) else {
            let released = messages.into_iter().map(|(number, _)| number).collect();
            if let Some(supply) = &mut self.supply {
                supply.last.push(Report { released, ..Report::of(topic) });
            }
            return;
        };
        let topic = &mut self.topics[key];
        topic.supplied.asked = topic.supplied.asked.saturating_sub(messages.len());
        for (number, event) in messages {
            topic.bytes += event.len();
            // Most often the end.
            let at = topic.waiting.partition_point(|other| other.number < number);
            topic.waiting.insert(at, Message { number, pushed_ms: now_ms, event });
            self.depth += 1;
        }
        self.rouse(key);
        self.touch(key);
    }

    /// Calls `f` for each topic with something to tell the store. With `wants` it also asks for
    /// more where consumers could take it.
    pub fn take_reports(&mut self, wants: bool, mut f: impl FnMut(Report)) {
        let Some(supply) = &mut self.supply else { return };
        supply.last.drain(..).for_each(&mut f);
        for key in std::mem::take(&mut supply.touched) {
            let wanted = if wants { self.wanted(key) } else { 0 };
            let Some(topic) = self.topics.get_mut(key) else { continue };
            topic.supplied.touched = false;
            topic.supplied.asked += wanted;
            let report = topic.supplied.take(&topic.name);
            let report = Report { wanted: wanted as u32, ..report };
            if !report.says_nothing() {
                f(report);
            }
        }
    }

    /// How many more messages of a topic are to be asked for: none, or at least half of what its
    /// consumers could take.
    fn wanted(&self, key: usize) -> usize {
        let Some(topic) = self.topics.get(key) else { return 0 };
        let consumers = topic.consumers.iter().map(|&place| &self.consumers[place]);
        let room = consumers.filter(|consumer| consumer.open).map(|consumer| {
            let room = consumer.window.events.saturating_sub(consumer.unwritten.len());
            (room / consumer.topics.len().max(1)).max(WANTED_MIN).min(room)
        });
        let most = room.sum::<usize>().min(WANTED_MAX);
        let here = topic.waiting.len() + topic.supplied.asked;
        if here * 2 <= most { most - here } else { 0 }
    }

    /// Whether there may be something to tell the store.
    pub(super) fn has_reports(&self) -> bool {
        let told = |supply: &Supply| supply.last.is_empty() && supply.touched.is_empty();
        !self.supply.as_ref().is_none_or(told)
    }

    /// Something has changed that the store may have to know.
    pub(super) fn touch(&mut self, key: usize) {
        let Some(supply) = &mut self.supply else { return };
        if !std::mem::replace(&mut self.topics[key].supplied.touched, true) {
            supply.touched.push(key);
        }
    }

    /// A message of the topic is written.
    pub(super) fn note_written(&mut self, key: usize, number: u64) {
        if self.supply.is_some() {
            self.topics[key].supplied.written.push(number);
            self.touch(key);
        }
    }

    /// Whether a message that comes back has nobody here to go to; it is released then.
    pub(super) fn released(&mut self, key: usize, number: u64) -> bool {
        let topic = &mut self.topics[key];
        let released = self.supply.is_some() && topic.consumers.is_empty();
        if released {
            topic.supplied.released.push(number);
            self.touch(key);
        }
        released
    }

    /// A consumer has left the topic. If it was the last one, what waits is for others.
    pub(super) fn abandon(&mut self, key: usize) {
        let topic = &mut self.topics[key];
        if self.supply.is_none() || !topic.consumers.is_empty() {
            return;
        }
        let supplied = &mut topic.supplied;
        supplied.idle = true;
        supplied.asked = 0;
        self.depth -= topic.waiting.len();
        topic.bytes = 0;
        supplied.released.extend(topic.waiting.drain(..).map(|message| message.number));
        self.touch(key);
    }

    /// A topic has ended: what it has to say is kept.
    pub(super) fn last_words(&mut self, name: &Arc<str>, mut supplied: Supplied) {
        let Some(supply) = &mut self.supply else { return };
        let report = supplied.take(name);
        if !report.says_nothing() {
            supply.last.push(report);
        }
    }
}
