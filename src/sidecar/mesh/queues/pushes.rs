//! Messages on their way to JetStream: bytes, answers and time in, publishes out.
//!
//! The messages of one client to one topic form a lane, of which one message is under way; the
//! next one follows when JetStream has it. So a client's messages are stored in the order in which
//! it sent them, whatever is refused, lost or repeated, while the lanes of different clients go
//! side by side. A message keeps its number when it is sent again, by which JetStream knows it.
//!
//! When the topic is full, `error` refuses the message; with `block` lanes wait and are tried
//! again, a few at first and more with each success; with `drop_oldest` the oldest message of the
//! topic is removed, and one of them tries again. What JetStream does not answer is sent again;
//! what it has not stored within [`QUEUE_PUSH_TIME`] `error` refuses, the others wait; with
//! `drop_oldest` a topic has at most as many messages waiting here as it may have there.
//!
//! Invariants: a lane exists while it has messages, and stands where its state says, or an entry
//! there is stale, which the number of its first message tells; every message is settled once, and
//! its room given back then. Costs: four entries in hash tables and queues per message.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use slab::Slab;

use super::names::{Refusal, token};
use crate::hub::ConnId;
use crate::hub::queues::{Outcome, Push, PushError, Room, Waiter};
use crate::limits::{QUEUE_ANSWER_TIME, QUEUE_PUSH_TIME, QUEUE_PUSHES_MAX};
use crate::protocols::connmix::config::QueueFull;
use crate::spare::Look;

const PUSH_MS: u64 = QUEUE_PUSH_TIME.as_millis() as u64;
/// A message that is under way for so long is sent once more.
const ANSWER_MS: u64 = QUEUE_ANSWER_TIME.as_millis() as u64;
/// Pause before something is tried again that failed for another reason than a full topic.
const AGAIN_MS: u64 = 200;
/// The first and the longest pause before lanes of a full topic are tried again.
const FULL_MS: u64 = 20;
const FULL_MS_MAX: u64 = 320;
/// Lanes that are tried then, and after each success.
const TRIED: usize = 4;
/// Entries that may be stale beside as many as there are lanes.
const STALE_MAX: usize = 1024;
/// Times that a message is refused although room was made for it.
const REFUSALS_MAX: u32 = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Pushes {
    full: QueueFull,
    room: Arc<Room>,
    names: HashMap<Arc<str>, usize>,
    topics: Slab<Topic>,
    lanes: Slab<Lane>,
    index: HashMap<(usize, ConnId), usize>,
    /// Lanes that can send.
    ready: VecDeque<Entry>,
    /// Lanes that try again at that time.
    later: VecDeque<(u64, Entry)>,
    /// By number: which lane, and since when.
    flying: HashMap<u64, (usize, u64)>,
    number: u64,
    settled: Vec<Settled>,
    /// Messages that are not settled.
    waiting: usize,
    /// Dropped to make room, since the last time that was asked.
    dropped: u64,
}

/// A lane and the number of its first message.
type Entry = (usize, u64);

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    token: Box<str>,
    lanes: usize,
    /// Its messages in the order in which they came, with the time; not with `block`.
    order: VecDeque<(u64, Entry)>,
    waiting: usize,
    /// Lanes that found it full.
    parked: VecDeque<Entry>,
    retry_ms: u64,
    pause_ms: u64,
    /// Its oldest message is being removed.
    makes_room: bool,
}

#[derive(Debug)]
struct Lane {
    topic: usize,
    client: ConnId,
    from: u8,
    messages: VecDeque<Message>,
    state: State,
    /// How often its first message found the topic full.
    refused: u32,
}

#[derive(Debug)]
struct Message {
    number: u64,
    event: Bytes,
    waiter: Waiter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Flying,
    Later,
    Parked,
}

/// A message that is to be published.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Publish {
    pub number: u64,
    pub token: Box<str>,
    pub event: Bytes,
}

/// What became of messages of one shard's clients to one topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub from: u8,
    pub topic: Arc<str>,
    pub count: u32,
    /// Of those that were not stored, and of those whose clients wait.
    pub outcomes: Vec<Outcome>,
}

impl Pushes {
    /// Nothing is under way. Room is given back as messages are settled.
    pub fn new(full: QueueFull, room: Arc<Room>) -> Pushes {
        Pushes {
            full,
            room,
            names: HashMap::new(),
            topics: Slab::new(),
            lanes: Slab::new(),
            index: HashMap::new(),
            ready: VecDeque::new(),
            later: VecDeque::new(),
            flying: HashMap::new(),
            number: 0,
            settled: Vec::new(),
            waiting: 0,
            dropped: 0,
        }
    }

    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.names);
        look.at(&mut self.topics);
        look.at(&mut self.lanes);
        look.at(&mut self.index);
        look.at(&mut self.ready);
        look.at(&mut self.later);
        look.at(&mut self.flying);
    }

    /// Messages that are not settled.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Messages that were dropped to make room for later ones, since this was last asked.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// What has been settled since this was last asked.
    pub fn take_settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    /// Takes a message. At most `messages_max` of a topic wait here with `drop_oldest`.
    pub fn push(&mut self, from: u8, topic: &Arc<str>, push: Push, messages_max: u64, now_ms: u64) {
        let Push { client, event, waiter } = push;
        let key = self.topic(topic);
        let number = self.number;
        self.number += 1;
        self.waiting += 1;
        let lane = *self.index.entry((key, client)).or_insert_with(|| {
            self.topics[key].lanes += 1;
            self.ready.push_back((self.lanes.vacant_key(), number));
            let (messages, state) = (VecDeque::new(), State::Ready);
            self.lanes.insert(Lane { topic: key, client, from, messages, state, refused: 0 })
        });
        self.lanes[lane].messages.push_back(Message { number, event, waiter });
        let topic = &mut self.topics[key];
        topic.waiting += 1;
        if self.full != QueueFull::Block {
            topic.order.push_back((now_ms, (lane, number)));
        }
        if self.full == QueueFull::DropOldest && topic.waiting as u64 > messages_max {
            self.drop_oldest(key);
        }
    }

    /// The next message to be published, if fewer are under way than may be.
    pub fn next(&mut self, now_ms: u64) -> Option<Publish> {
        while self.flying.len() < QUEUE_PUSHES_MAX {
            let entry = self.ready.pop_front()?;
            let Some(lane) = self.lane(entry, State::Ready) else { continue };
            lane.state = State::Flying;
            let Message { number, event, .. } = lane.messages.front()?;
            let (number, event) = (*number, event.clone());
            let topic = lane.topic;
            self.flying.insert(number, (entry.0, now_ms));
            return Some(Publish { number, token: self.topics[topic].token.clone(), event });
        }
        None
    }

    /// JetStream has answered a publish.
    pub fn answered(&mut self, number: u64, answer: Result<(), Refusal>, now_ms: u64) {
        let Some((lane, _)) = self.flying.remove(&number) else { return };
        let key = self.lanes[lane].topic;
        match (answer, self.full) {
            (Ok(()), _) => {
                self.settle(lane, None);
                if let Some(topic) = self.topics.get_mut(key) {
                    topic.pause_ms = FULL_MS;
                }
                if self.full == QueueFull::Block {
                    self.release(key, TRIED);
                }
            }
            (Err(Refusal::Full), QueueFull::Error) => self.settle(lane, Some(PushError::Full)),
            (Err(Refusal::Full), policy) => {
                self.lanes[lane].refused += 1;
                if policy == QueueFull::DropOldest && self.lanes[lane].refused > REFUSALS_MAX {
                    return self.settle(lane, Some(PushError::Full));
                }
                self.lanes[lane].state = State::Parked;
                let topic = &mut self.topics[key];
                if topic.parked.is_empty() {
                    topic.retry_ms = now_ms + topic.pause_ms;
                }
                topic.parked.push_back((lane, number));
            }
            (Err(_), _) => {
                self.lanes[lane].state = State::Later;
                self.later.push_back((now_ms + AGAIN_MS, (lane, number)));
            }
        }
    }

    /// A message is larger than NATS takes.
    pub fn too_large(&mut self, number: u64) {
        if let Some((lane, _)) = self.flying.remove(&number) {
            self.settle(lane, Some(PushError::TooLarge));
        }
    }

    /// The link was lost: what was under way is to be sent again.
    pub fn lost(&mut self) {
        let mut lost: Vec<Entry> = self.flying.drain().map(|(n, (lane, _))| (lane, n)).collect();
        lost.sort_unstable_by_key(|(_, number)| *number);
        for entry in lost.into_iter().rev() {
            self.lanes[entry.0].state = State::Ready;
            self.ready.push_front(entry);
        }
    }

    /// Topics whose oldest message is to be removed.
    pub fn full_topics(&mut self, now_ms: u64) -> Vec<Box<str>> {
        let mut full = Vec::new();
        for (_, topic) in self.topics.iter_mut().filter(|_| self.full == QueueFull::DropOldest) {
            if !topic.parked.is_empty() && !std::mem::replace(&mut topic.makes_room, true) {
                topic.retry_ms = now_ms + ANSWER_MS;
                full.push(topic.token.clone());
            }
        }
        full
    }

    /// There is room for one more message of a topic. `dropped`: because the oldest was removed.
    pub fn room(&mut self, token: &str, dropped: bool) {
        self.dropped += u64::from(dropped);
        let found = self.topics.iter_mut().find(|(_, topic)| *topic.token == *token);
        let Some((key, topic)) = found else { return };
        topic.makes_room = false;
        self.release(key, 1);
    }

    /// No room could be made for a topic: it is tried again.
    pub fn no_room(&mut self, token: &str, now_ms: u64) {
        let found = self.topics.iter_mut().find(|(_, topic)| *topic.token == *token);
        if let Some((_, topic)) = found {
            topic.retry_ms = now_ms + AGAIN_MS;
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now_ms: u64) {
        if self.full == QueueFull::Error {
            self.expire(now_ms);
        }
        let late = |since_ms: u64| now_ms.saturating_sub(since_ms) >= ANSWER_MS;
        let silent = self.flying.iter().filter(|(_, (_, since_ms))| late(*since_ms));
        for (number, lane) in silent.map(|(n, (lane, _))| (*n, *lane)).collect::<Vec<_>>() {
            self.flying.remove(&number);
            self.make_ready((lane, number), State::Flying);
        }
        while let Some((due_ms, entry)) = self.later.front().copied()
            && due_ms <= now_ms
        {
            self.later.pop_front();
            self.make_ready(entry, State::Later);
        }
        let keys = self.topics.iter().filter(|(_, topic)| !topic.parked.is_empty());
        for key in keys.map(|(key, _)| key).collect::<Vec<_>>() {
            let topic = &mut self.topics[key];
            if topic.retry_ms > now_ms {
                continue;
            }
            if self.full == QueueFull::DropOldest {
                // That has failed or its answer is missing: once more.
                topic.makes_room = false;
                continue;
            }
            topic.pause_ms = (topic.pause_ms * 2).min(FULL_MS_MAX);
            topic.retry_ms = now_ms + topic.pause_ms;
            self.release(key, TRIED);
        }
    }

    /// Refuses what was not stored in time.
    fn expire(&mut self, now_ms: u64) {
        let late = |since_ms: u64| now_ms.saturating_sub(since_ms) >= PUSH_MS;
        let keys: Vec<usize> = self.topics.iter().map(|(key, _)| key).collect();
        for key in keys {
            while let Some(topic) = self.topics.get(key)
                && let Some((since_ms, (lane, number))) = topic.order.front().copied()
                && late(since_ms)
            {
                debug_assert!(self.is_first((lane, number)), "settled messages leave the order");
                self.flying.remove(&number);
                self.settle(lane, Some(PushError::Unstored));
            }
        }
    }

    /// Drops the oldest message of a topic, unless it is under way.
    fn drop_oldest(&mut self, key: usize) {
        let Some((_, (lane, number))) = self.topics[key].order.front().copied() else { return };
        if self.lanes[lane].state == State::Flying {
            return;
        }
        debug_assert!(self.is_first((lane, number)), "settled messages leave the order");
        if self.waiter(lane) != Waiter::Nobody {
            // It is not stored, and somebody wants to know.
            return self.settle(lane, Some(PushError::Unstored));
        }
        self.dropped += 1;
        self.finish(lane);
    }

    /// Who waits for the first message of a lane.
    fn waiter(&self, lane: usize) -> Waiter {
        let first = self.lanes[lane].messages.front();
        first.map_or(Waiter::Nobody, |message| message.waiter)
    }

    /// Tells what became of the first message of a lane, which ends.
    fn settle(&mut self, lane: usize, refused: Option<PushError>) {
        let Lane { topic, client, from, .. } = self.lanes[lane];
        let waiter = self.waiter(lane);
        let topic = self.topics[topic].name.clone();
        let of_same = |s: &&mut Settled| s.from == from && s.topic == topic;
        let settled = match self.settled.iter_mut().rev().take(8).find(of_same) {
            Some(settled) => settled,
            None => {
                self.settled.push(Settled { from, topic, count: 0, outcomes: Vec::new() });
                let last = self.settled.len() - 1;
                &mut self.settled[last]
            }
        };
        settled.count += 1;
        if waiter != Waiter::Nobody || refused.is_some() {
            let result = refused.map_or(Ok(()), Err);
            settled.outcomes.push(Outcome { client, waiter, result });
        }
        self.finish(lane);
    }

    /// Forgets the first message of a lane; the next one can be sent.
    fn finish(&mut self, key: usize) {
        let lane = &mut self.lanes[key];
        let topic_key = lane.topic;
        lane.refused = 0;
        if let Some(message) = lane.messages.pop_front() {
            self.room.give_back(message.event.len());
            self.waiting -= 1;
            self.topics[topic_key].waiting -= 1;
        }
        match lane.messages.front() {
            Some(Message { number, .. }) => {
                lane.state = State::Ready;
                self.ready.push_back((key, *number));
                self.sift();
            }
            None => {
                let Lane { client, .. } = self.lanes.remove(key);
                self.index.remove(&(topic_key, client));
                self.topics[topic_key].lanes -= 1;
            }
        }
        self.tidy(topic_key);
    }

    /// Keeps stale entries from piling up while nothing is sent.
    fn sift(&mut self) {
        if self.ready.len() > 2 * self.lanes.len() + STALE_MAX {
            let mut ready = std::mem::take(&mut self.ready);
            ready.retain(|entry| self.lane(*entry, State::Ready).is_some());
            self.ready = ready;
        }
    }

    /// Takes what is settled out of a topic's order, and ends it with its last lane.
    fn tidy(&mut self, key: usize) {
        while let Some((_, entry)) = self.topics[key].order.front()
            && !self.is_first(*entry)
        {
            self.topics[key].order.pop_front();
        }
        if self.topics[key].lanes == 0 {
            let topic = self.topics.remove(key);
            self.names.remove(&topic.name);
        }
    }

    /// Lets lanes go on that have found their topic full.
    fn release(&mut self, key: usize, count: usize) {
        for _ in 0..count {
            let Some(topic) = self.topics.get_mut(key) else { return };
            let Some(entry) = topic.parked.pop_front() else { return };
            self.make_ready(entry, State::Parked);
        }
    }

    fn make_ready(&mut self, entry: Entry, from: State) {
        if let Some(lane) = self.lane(entry, from) {
            lane.state = State::Ready;
            self.ready.push_back(entry);
        }
    }

    /// The lane of an entry, if that is not stale.
    fn lane(&mut self, entry: Entry, state: State) -> Option<&mut Lane> {
        let first = self.is_first(entry);
        self.lanes.get_mut(entry.0).filter(|lane| first && lane.state == state)
    }

    fn is_first(&self, (lane, number): Entry) -> bool {
        let first = self.lanes.get(lane).and_then(|lane| lane.messages.front());
        first.is_some_and(|first| first.number == number)
    }

    fn topic(&mut self, name: &Arc<str>) -> usize {
        if let Some(&key) = self.names.get(name) {
            return key;
        }
        let key = self.topics.insert(Topic {
            name: name.clone(),
            token: token(name),
            lanes: 0,
            order: VecDeque::new(),
            waiting: 0,
            parked: VecDeque::new(),
            retry_ms: 0,
            pause_ms: FULL_MS,
            makes_room: false,
        });
        self.names.insert(name.clone(), key);
        key
    }
}

#[cfg(test)]
mod tests;
