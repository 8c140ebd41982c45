//! Queue topics whose home is this shard (connmix section 3): what waits, who consumes, whose turn
//! it is.
//!
//! A topic has one home in the process, so there is one order of its messages and one place that
//! decides who gets which; pushers and consumers may be anywhere and reach it by mail. Consumers
//! take turns, and each has a window: so much may be given to it that its shard has not reported as
//! written. A consumer whose window is full is skipped until half of it is written. What was given
//! is kept here until then; when a consumer dies, what was not written goes back to the head of its
//! topic, in the order in which it was pushed.
//!
//! Invariants ([`Queues::check`]): the messages of a topic are sorted by the number they got when
//! they were pushed; a topic exists while it has messages, waiting or given, or consumers; nothing
//! that can be given waits after [`Queues::hand_out`]; of any number of messages consumers whose
//! windows stay open get equal shares, give or take one. A topic holds at most its limits, and
//! beyond them only what dead consumers gave back and, with [`Full::Block`], what its pushers may
//! have under way.
//!
//! With the topics of a cluster ([`Queues::of_cluster`]) messages come from a store instead of from
//! pushers; see `supply`.
//! Costs: one queue entry per message at each stage and no copy of its bytes; O(1) per message,
//! except for a search among the topic's consumers for one whose window is open.

mod push;
mod room;
mod supply;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use slab::Slab;

use crate::hub::ConnId;
use crate::spare::{self, Look};

pub use push::{Homes, Outcome, Push, PushError, Waiter};
pub use room::Room;
pub use supply::Report;
use supply::{Supplied, Supply};

/// Messages of one topic that are given before the next topic has its turn.
const GIVEN_PER_TURN: usize = 64;

/// What happens to a message that finds its topic full (section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The pusher gets an error.
    Error,
    /// The pusher is not read until there is room.
    Block,
    /// The oldest message makes room.
    DropOldest,
}

/// Limits of topics.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Messages that may wait in one topic.
    pub messages_max: usize,
    /// Bytes of them.
    pub bytes_max: usize,
    /// Topics of the process.
    pub topics_max: u32,
    pub full: Full,
}

/// What a pusher is told when its message is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Queued,
    /// Queued, but nothing more of this pusher is to be handled until there is room.
    Full,
}

/// How much may be given to a consumer that is not reported as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub events: usize,
    pub bytes: usize,
}

/// The topics of the process, counted over all shards.
#[derive(Debug, Default)]
pub struct TopicCount(AtomicU32);

impl TopicCount {
    fn take(&self, topics_max: u32) -> bool {
        let taken = self.0.fetch_add(1, Ordering::Relaxed) < topics_max;
        if !taken {
            self.give_back();
        }
        taken
    }

    fn give_back(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts of what happened, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub pushed: u64,
    pub refused: u64,
    /// Dropped to make room ([`Full::DropOldest`]).
    pub dropped: u64,
    /// Written to a consumer's socket.
    pub delivered: u64,
    /// Taken back from consumers that died.
    pub returned: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Queues {
    limits: QueueLimits,
    count: Arc<TopicCount>,
    names: HashMap<Arc<str>, usize>,
    topics: Slab<Topic>,
    conns: HashMap<ConnId, usize>,
    consumers: Slab<Consumer>,
    /// Topics that may have something to give to somebody.
    ready: VecDeque<usize>,
    /// Acceptances to report to pushers' shards ([`Full::Block`]).
    accepted: Vec<(u8, Arc<str>)>,
    depth: usize,
    /// `None`: messages come from pushers.
    supply: Option<Supply>,
    pub tally: Tally,
}

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    waiting: VecDeque<Message>,
    bytes: usize,
    consumers: Vec<usize>,
    /// Whose turn it is among them.
    turn: usize,
    /// The number of the next message.
    number: u64,
    /// Given to consumers and not written.
    given: usize,
    /// Stands in `ready`.
    ready: bool,
    /// The shards of messages that were taken beyond the limit, oldest first.
    beyond: VecDeque<u8>,
    supplied: Supplied,
}

#[derive(Debug)]
struct Message {
    number: u64,
    pushed_ms: u64,
    event: Bytes,
}

#[derive(Debug)]
struct Consumer {
    conn: ConnId,
    topics: Vec<usize>,
    unwritten: VecDeque<(usize, Message)>,
    bytes: usize,
    window: Window,
    open: bool,
    /// Where its topics begin when its window opens again.
    turn: usize,
}

impl Queues {
    /// No topics; `count` is shared by the shards of the process.
    pub fn new(limits: QueueLimits, count: Arc<TopicCount>) -> Queues {
        Queues {
            limits,
            count,
            names: HashMap::new(),
            topics: Slab::new(),
            conns: HashMap::new(),
            consumers: Slab::new(),
            ready: VecDeque::new(),
            accepted: Vec::new(),
            depth: 0,
            supply: None,
            tally: Tally::default(),
        }
    }

    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.names);
        look.at(&mut self.topics);
        look.at(&mut self.conns);
        look.at(&mut self.consumers);
        look.at(&mut self.ready);
        look.at(&mut self.accepted);
    }

    /// The shard that is the home of a topic (FNV-1a over its name).
    pub fn home(topic: &str, shards: usize) -> u8 {
        let hash = topic.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        ((hash ^ hash >> 32) % shards.max(1) as u64) as u8
    }

    /// Appends a message of a client of shard `from`.
    pub fn push(
        &mut self,
        from: u8,
        topic: &str,
        event: Bytes,
        now_ms: u64,
    ) -> Result<(), PushError> {
        let stored = self.store(from, topic, event, now_ms);
        match stored {
            Ok(()) => self.tally.pushed += 1,
            Err(_) => self.tally.refused += 1,
        }
        stored
    }

    fn store(&mut self, from: u8, topic: &str, event: Bytes, now_ms: u64) -> Result<(), PushError> {
        let limits = self.limits;
        let key = self.open(topic).ok_or(PushError::TooManyTopics)?;
        let topic = &mut self.topics[key];
        let full = topic.waiting.len() >= limits.messages_max
            || (topic.bytes + event.len() > limits.bytes_max && !topic.waiting.is_empty());
        match limits.full {
            Full::Error if full => return Err(PushError::Full),
            Full::Block if full => topic.beyond.push_back(from),
            Full::Block => self.accepted.push((from, topic.name.clone())),
            Full::DropOldest if full => {
                while let Some(oldest) = topic.waiting.pop_front() {
                    topic.bytes -= oldest.event.len();
                    self.depth -= 1;
                    self.tally.dropped += 1;
                    if topic.waiting.len() < limits.messages_max
                        && topic.bytes + event.len() <= limits.bytes_max
                    {
                        break;
                    }
                }
            }
            Full::Error | Full::DropOldest => {}
        }
        topic.bytes += event.len();
        topic.waiting.push_back(Message { number: topic.number, pushed_ms: now_ms, event });
        topic.number += 1;
        self.depth += 1;
        self.rouse(key);
        Ok(())
    }

    /// Makes a connection a consumer of these topics, with a closed window. False: that would be
    /// more topics than the process may have; nothing has changed then.
    pub fn join(&mut self, conn: ConnId, topics: &[Arc<str>]) -> bool {
        let mut keys = Vec::with_capacity(topics.len());
        for topic in topics {
            match self.open(topic) {
                Some(key) => keys.push(key),
                None => {
                    keys.into_iter().for_each(|key| self.free(key));
                    return false;
                }
            }
        }
        let place = *self.conns.entry(conn).or_insert_with(|| {
            self.consumers.insert(Consumer {
                conn,
                topics: Vec::new(),
                unwritten: VecDeque::new(),
                bytes: 0,
                window: Window { events: 0, bytes: 0 },
                open: false,
                turn: 0,
            })
        });
        for &key in &keys {
            self.topics[key].consumers.push(place);
        }
        debug_assert!(self.consumers[place].topics.is_empty(), "{conn:?} consumes already");
        self.consumers[place].topics = keys;
        true
    }

    /// Opens the window of a consumer: from now on it is given messages.
    pub fn start(&mut self, conn: ConnId, window: Window) {
        let Some(&place) = self.conns.get(&conn) else { return };
        self.consumers[place].window = window;
        self.reopen(place);
    }

    /// Ends the consumption. What was given stays given.
    pub fn leave(&mut self, conn: ConnId) {
        let Some(&place) = self.conns.get(&conn) else { return };
        let consumer = &mut self.consumers[place];
        consumer.open = false;
        consumer.window = Window { events: 0, bytes: 0 };
        for key in std::mem::take(&mut consumer.topics) {
            self.topics[key].remove_consumer(place);
            self.abandon(key);
            self.rouse(key);
            self.free(key);
        }
        self.forget(place);
    }

    /// So many of the messages that were given to a consumer are written to its socket.
    pub fn written(&mut self, conn: ConnId, count: u32) {
        let Some(&place) = self.conns.get(&conn) else { return };
        debug_assert!(count as usize <= self.consumers[place].unwritten.len());
        for _ in 0..count {
            let consumer = &mut self.consumers[place];
            let Some((key, message)) = consumer.unwritten.pop_front() else { break };
            consumer.bytes -= message.event.len();
            self.tally.delivered += 1;
            self.topics[key].given -= 1;
            self.note_written(key, message.number);
            self.free(key);
        }
        spare::emptied(&mut self.consumers[place].unwritten);
        self.reopen(place);
        self.forget(place);
    }

    /// A consumer is gone, `written` more messages than reported had been written to it. The others
    /// go back.
    pub fn gone(&mut self, conn: ConnId, written: u32) {
        self.leave(conn);
        self.written(conn, written);
        let Some(place) = self.conns.remove(&conn) else { return };
        let mut back: Vec<(usize, Message)> = self.consumers.remove(place).unwritten.into();
        back.sort_unstable_by_key(|(key, message)| (*key, message.number));
        // From the last one on, so that each goes before those that are after it.
        while let Some((key, message)) = back.pop() {
            self.tally.returned += 1;
            self.topics[key].given -= 1;
            if self.released(key, message.number) {
                self.free(key);
                continue;
            }
            let topic = &mut self.topics[key];
            topic.bytes += message.event.len();
            // Only what others gave back before stands in front of it.
            let at = topic.waiting.partition_point(|other| other.number < message.number);
            topic.waiting.insert(at, message);
            self.depth += 1;
            self.rouse(key);
        }
    }

    /// Gives what waits to consumers with an open window, in turn.
    pub fn hand_out(&mut self, mut give: impl FnMut(ConnId, Bytes)) {
        while let Some(key) = self.ready.pop_front() {
            self.topics[key].ready = false;
            let mut given = 0;
            while given < GIVEN_PER_TURN
                && let Some((place, message)) = self.next_pair(key)
            {
                let topic = &mut self.topics[key];
                topic.bytes -= message.event.len();
                topic.given += 1;
                self.depth -= 1;
                if let Some(from) = topic.beyond.pop_front() {
                    spare::emptied(&mut topic.beyond);
                    self.accepted.push((from, topic.name.clone()));
                }
                let consumer = &mut self.consumers[place];
                give(consumer.conn, message.event.clone());
                consumer.take(key, message);
                given += 1;
            }
            if given == GIVEN_PER_TURN {
                self.rouse(key);
            }
            self.touch(key);
        }
    }

    /// Calls `f` for each message of a shard that now has its place in its topic, and forgets it
    /// ([`Full::Block`]).
    pub fn take_accepted(&mut self, mut f: impl FnMut(u8, &Arc<str>)) {
        self.accepted.drain(..).for_each(|(from, topic)| f(from, &topic));
    }

    /// Whether there may be something to hand out or to report.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty() || !self.accepted.is_empty() || self.has_reports()
    }

    /// Messages that wait.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Milliseconds for which the oldest of them has waited.
    pub fn oldest_ms(&self, now_ms: u64) -> u64 {
        let fronts = self.topics.iter().filter_map(|(_, topic)| topic.waiting.front());
        fronts.map(|message| now_ms.saturating_sub(message.pushed_ms)).max().unwrap_or(0)
    }

    /// Topics whose home is here.
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    /// Connections that consume, or have something that is not written.
    pub fn consumers(&self) -> usize {
        self.consumers.len()
    }

    /// Messages that will still be written if no consumer leaves: given, or waiting in a topic that
    /// somebody consumes.
    pub fn under_way(&self) -> usize {
        let waiting =
            |topic: &Topic| if topic.consumers.is_empty() { 0 } else { topic.waiting.len() };
        self.topics.iter().map(|(_, topic)| topic.given + waiting(topic)).sum()
    }

    /// For tests: panics if an invariant does not hold. Walks everything.
    pub fn check(&self) {
        let mut given: HashMap<usize, usize> = HashMap::new();
        for (place, consumer) in &self.consumers {
            assert_eq!(self.conns.get(&consumer.conn), Some(&place));
            let bytes: usize = consumer.unwritten.iter().map(|(_, m)| m.event.len()).sum();
            assert_eq!(consumer.bytes, bytes, "bytes given to {:?}", consumer.conn);
            assert!(!consumer.topics.is_empty() || !consumer.unwritten.is_empty(), "forgotten");
            for &key in &consumer.topics {
                let times = self.topics[key].consumers.iter().filter(|&&c| c == place).count();
                assert_eq!(times, 1, "{:?} at {}", consumer.conn, self.topics[key].name);
            }
            consumer.unwritten.iter().for_each(|(key, _)| *given.entry(*key).or_default() += 1);
        }
        assert_eq!(self.conns.len(), self.consumers.len());
        assert_eq!(self.names.len(), self.topics.len());
        let mut depth = 0;
        for (key, topic) in &self.topics {
            assert_eq!(self.names.get(&topic.name), Some(&key));
            assert!(!topic.is_idle(), "{} is empty", topic.name);
            let stays = topic.waiting.is_empty() || !topic.consumers.is_empty();
            assert!(self.supply.is_none() || stays, "{} waits for nobody", topic.name);
            assert!(topic.waiting.iter().is_sorted_by_key(|message| message.number));
            let bytes: usize = topic.waiting.iter().map(|message| message.event.len()).sum();
            assert_eq!(topic.bytes, bytes, "bytes in {}", topic.name);
            assert_eq!(topic.given, given.get(&key).copied().unwrap_or(0), "{}", topic.name);
            assert_eq!(topic.ready, self.ready.contains(&key), "{}", topic.name);
            depth += topic.waiting.len();
        }
        assert_eq!(self.depth, depth);
    }

    /// The topic of this name, made if need be; `None` if there are too many.
    fn open(&mut self, name: &str) -> Option<usize> {
        if let Some(&key) = self.names.get(name) {
            return Some(key);
        }
        if !self.count.take(self.limits.topics_max) {
            return None;
        }
        let name: Arc<str> = name.into();
        let key = self.topics.insert(Topic {
            name: name.clone(),
            waiting: VecDeque::new(),
            bytes: 0,
            consumers: Vec::new(),
            turn: 0,
            number: 0,
            given: 0,
            ready: false,
            beyond: VecDeque::new(),
            supplied: Supplied::default(),
        });
        self.names.insert(name, key);
        Some(key)
    }

    /// Ends a topic that nobody has anything to do with any more.
    fn free(&mut self, key: usize) {
        if !self.topics[key].is_idle() {
            return;
        }
        let topic = self.topics.remove(key);
        if topic.ready {
            self.ready.retain(|&other| other != key);
        }
        self.names.remove(&topic.name);
        self.count.give_back();
        self.last_words(&topic.name, topic.supplied);
    }

    /// Forgets a consumer that has nothing any more.
    fn forget(&mut self, place: usize) {
        let consumer = &self.consumers[place];
        if consumer.topics.is_empty() && consumer.unwritten.is_empty() {
            self.conns.remove(&consumer.conn);
            self.consumers.remove(place);
        }
    }

    /// Notes that a topic may have something to give to somebody.
    fn rouse(&mut self, key: usize) {
        let topic = &mut self.topics[key];
        let gives = !topic.waiting.is_empty() && !topic.consumers.is_empty();
        if gives && !std::mem::replace(&mut topic.ready, true) {
            self.ready.push_back(key);
        }
    }

    /// Opens the window of a consumer again if half of it is free.
    fn reopen(&mut self, place: usize) {
        let consumer = &mut self.consumers[place];
        let Window { events, bytes } = consumer.window;
        let half = consumer.unwritten.len() * 2 <= events && consumer.bytes * 2 <= bytes;
        if consumer.open || events == 0 || !half {
            return;
        }
        consumer.open = true;
        // Not always the same topic first, or it alone would fill the window.
        consumer.turn = consumer.turn.wrapping_add(1);
        let (count, turn) = (consumer.topics.len(), consumer.turn);
        for index in 0..count {
            let key = self.consumers[place].topics[(turn + index) % count];
            self.rouse(key);
            self.touch(key);
        }
    }

    /// The next consumer in turn whose window is open, and its message. A turn passes only with a
    /// message, or one that comes alone would always find the same consumer.
    fn next_pair(&mut self, key: usize) -> Option<(usize, Message)> {
        let topic = &mut self.topics[key];
        let count = topic.consumers.len();
        let mut turns = (0..count).map(|step| (topic.turn + step) % count);
        let at = turns.find(|&at| self.consumers[topic.consumers[at]].open)?;
        let message = topic.waiting.pop_front()?;
        spare::emptied(&mut topic.waiting);
        topic.turn = at + 1;
        Some((topic.consumers[at], message))
    }
}

impl Topic {
    /// Whose turn it is among the others stays so.
    fn remove_consumer(&mut self, place: usize) {
        if let Some(at) = self.consumers.iter().position(|&other| other == place) {
            self.consumers.remove(at);
            self.turn -= usize::from(at < self.turn);
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.consumers.is_empty() && self.given == 0
    }
}

impl Consumer {
    fn take(&mut self, key: usize, message: Message) {
        self.bytes += message.event.len();
        self.unwritten.push_back((key, message));
        self.open = self.unwritten.len() < self.window.events && self.bytes < self.window.bytes;
    }
}
