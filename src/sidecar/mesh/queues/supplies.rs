//! Messages on their way from JetStream to the homes of their topics: reports, messages, answers
//! and time in, requests out.
//!
//! While a home wants messages of a topic, one pull of the topic's consumer is open for them; when
//! nobody consumes it here any more, the subscription for it ends and with it the pull. What
//! comes is held until the home says that it is written, and is then acknowledged; the last of
//! several acknowledgements asks to be confirmed, and until it is they are kept and repeated. A
//! confirmation is one of everything before only within one link: after a new one all of them are
//! repeated first, and confirmations of before count no more. What is held is reported as in
//! progress, so that JetStream does not give it to another node; what comes once more although it
//! is held, or written and not confirmed, is not delivered again.
//! Of a home that stands still nothing is reported as in progress, nothing is asked for it, and
//! what still comes for it is given back: other nodes get it.
//!
//! Nothing is known of requests that are lost, so everything is asked for again: pulls that outlive
//! their time, consumers that are gone, all of it after the link was lost.
//!
//! Invariants: every message that comes is handed over, or known already, or given back; a message
//! is in `held` or in `done` or neither. A topic exists while somebody wants it or something is
//! open. Bounds: what homes want, `pull_bytes` per topic on the way, and `held_max` bytes, beyond
//! which messages are given back.
//! Costs: an entry in a hash table per message, and a copy of it into its frame.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::names::{About, Names, delivery, token};
use super::nats::Out;
use crate::hub::queues::{Queues, Report};
use crate::limits::QUEUE_ACK_TIME;
use crate::spare::Look;
use crate::wire::queue as wire;

/// Pulls that bring together what may be held.
const PULLS_HELD: usize = 16;
/// How long a pull is open.
const PULL_MS: u64 = 15_000;
/// How much later its end is still told.
const PULL_GRACE_MS: u64 = 2_000;
/// Pause between the words about what is held, and about what is not confirmed.
const WORD_MS: u64 = QUEUE_ACK_TIME.as_millis() as u64 / 3;
/// What a consumer takes to be made before it is asked for again.
const CONSUMER_MS: u64 = 2_000;

const ACK: &[u8] = b"+ACK";
const NAK: &[u8] = b"-NAK";
/// In nanoseconds: somebody else may have room before us.
const NAK_LATER: &[u8] = b"-NAK {\"delay\":1000000000}";
const PROGRESS: &[u8] = b"+WPI";
const TERM: &[u8] = b"+TERM";

/// See the module.
#[derive(Debug)]
pub(super) struct Supplies {
    topics: HashMap<Box<str>, Topic>,
    held: usize,
    held_bytes: usize,
    held_max: usize,
    /// Shards of this node, which are the homes of topics.
    homes: usize,
    /// Those that stand still.
    pub still: Vec<usize>,
    /// What one pull may bring.
    pub pull_bytes: usize,
    number: u64,
    pub tally: Tally,
}

/// Counts of what happened, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Handed over to homes.
    pub taken: u64,
    /// Not the first time that JetStream delivered them.
    pub redelivered: u64,
    /// Known already, and not handed over again.
    pub repeated: u64,
    /// Given back, for other nodes.
    pub returned: u64,
    pub acknowledged: u64,
    /// No events.
    pub invalid: u64,
}

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    /// Somebody here consumes it.
    active: bool,
    /// Messages that are wanted and not asked for.
    credit: usize,
    consumer: Consumer,
    pull: Option<Pull>,
    /// There is a subscription for what is pulled.
    listens: bool,
    /// Handed over and not written, by number.
    held: BTreeMap<u64, Held>,
    /// Written, in the order in which they were; their acknowledgements are not confirmed.
    done: VecDeque<Done>,
    done_ms: u64,
    /// Nothing of that was said since there is this link.
    unsaid: bool,
}

/// What is known of a topic's consumer in JetStream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consumer {
    Unknown,
    Asked { since_ms: u64 },
    There,
}

#[derive(Debug)]
struct Pull {
    number: u64,
    left: usize,
    until_ms: u64,
}

#[derive(Debug)]
struct Held {
    /// Where it is acknowledged.
    ack: String,
    /// When JetStream last heard of it.
    word_ms: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Done {
    /// Its place among all that are written.
    place: u64,
    number: u64,
    ack: String,
}

/// A message for the home of its topic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Supplied {
    pub topic: Arc<str>,
    pub number: u64,
    pub event: Bytes,
}

impl Supplies {
    /// Nothing is wanted. More than `held_max` bytes are not held. Topics have so many homes.
    pub fn new(held_max: usize, homes: usize) -> Supplies {
        let topics = HashMap::new();
        let tally = Tally::default();
        let pull_bytes = held_max / PULLS_HELD;
        Supplies {
            topics,
            held: 0,
            held_bytes: 0,
            held_max,
            homes,
            still: Vec::new(),
            pull_bytes,
            number: 0,
            tally,
        }
    }

    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.topics);
    }

    /// Messages and bytes that are held.
    pub fn held(&self) -> (usize, usize) {
        (self.held, self.held_bytes)
    }

    /// Whether every acknowledgement is confirmed.
    pub fn is_settled(&self) -> bool {
        self.topics.values().all(|topic| topic.done.is_empty())
    }

    /// The home of a topic says what it has done and what it wants. Gives the topic's token.
    pub fn report(
        &mut self,
        report: Report,
        names: &Names,
        now_ms: u64,
        out: &mut Vec<Out>,
    ) -> Box<str> {
        let token = token(&report.topic);
        let topic = self.topics.entry(token.clone()).or_insert_with(|| Topic::new(&report.topic));
        if report.idle {
            topic.active = false;
            topic.credit = 0;
            topic.pull = None;
            if std::mem::take(&mut topic.listens) {
                out.push(Out::Deafen(token.clone()));
            }
        }
        if report.wanted > 0 {
            topic.active = true;
            topic.credit += report.wanted as usize;
        }
        if topic.unsaid && !report.written.is_empty() {
            // What is confirmed next is behind these.
            topic.repeat(None, out);
        }
        let last = report.written.last().copied();
        for number in report.written {
            let Some(held) = topic.held.remove(&number) else { continue };
            self.held -= 1;
            self.held_bytes -= held.bytes;
            self.tally.acknowledged += 1;
            self.number += 1;
            let place = self.number;
            let confirm = Some(number) == last;
            let reply = confirm.then(|| names.reply(&About::Done(token.clone(), place)));
            out.push(Out::say(held.ack.clone(), reply, Bytes::from_static(ACK)));
            topic.done.push_back(Done { place, number, ack: held.ack });
            topic.done_ms = now_ms;
        }
        for number in report.released {
            let Some(held) = topic.held.remove(&number) else { continue };
            self.held -= 1;
            self.held_bytes -= held.bytes;
            self.tally.returned += 1;
            out.push(Out::say(held.ack, None, Bytes::from_static(NAK)));
        }
        token
    }

    /// JetStream has delivered a message of the topic with this token.
    pub fn message(
        &mut self,
        token: &str,
        ack: &str,
        text: &[u8],
        now_ms: u64,
        out: &mut Vec<Out>,
    ) -> Option<Supplied> {
        let (number, deliveries) = delivery(ack)?;
        let mut say = |word: &'static [u8]| {
            out.push(Out::say(ack.to_owned(), None, Bytes::from_static(word)));
        };
        self.tally.redelivered += u64::from(deliveries > 1);
        let Some(topic) = self.topics.get_mut(token) else {
            self.tally.returned += 1;
            say(NAK);
            return None;
        };
        topic.counted();
        if let Some(held) = topic.held.get_mut(&number) {
            held.ack = ack.to_owned();
            held.word_ms = now_ms;
            topic.credit += 1;
            self.tally.repeated += 1;
            return None;
        }
        if deliveries > 1 && topic.done.iter().any(|done| done.number == number) {
            topic.credit += 1;
            self.tally.repeated += 1;
            say(ACK);
            return None;
        }
        let full = self.held_bytes > self.held_max;
        let still = topic.home_is_among(&self.still, self.homes);
        if !topic.active || full || still {
            topic.credit += usize::from(topic.active);
            self.tally.returned += 1;
            say(if full || still { NAK_LATER } else { NAK });
            return None;
        }
        let Some(event) = wire::event_frame(text) else {
            topic.credit += 1;
            self.tally.invalid += 1;
            say(TERM);
            return None;
        };
        let bytes = event.len();
        topic.held.insert(number, Held { ack: ack.to_owned(), word_ms: now_ms, bytes });
        self.held += 1;
        self.held_bytes += bytes;
        self.tally.taken += 1;
        Some(Supplied { topic: topic.name.clone(), number, event })
    }

    /// A pull has ended before it was fulfilled. With `consumer_gone` there is nobody to pull from.
    pub fn pull_ended(&mut self, token: &str, number: u64, consumer_gone: bool) {
        let Some(topic) = self.topics.get_mut(token) else { return };
        if consumer_gone {
            topic.consumer = Consumer::Unknown;
        }
        if let Some(pull) = topic.pull.take_if(|pull| pull.number == number)
            && topic.active
        {
            topic.credit += pull.left;
        }
    }

    /// The consumer of a topic is there, or could not be made.
    pub fn consumer(&mut self, token: &str, made: bool, now_ms: u64) {
        let Some(topic) = self.topics.get_mut(token) else { return };
        topic.consumer = match made {
            true => Consumer::There,
            false => Consumer::Asked { since_ms: now_ms },
        };
    }

    /// The acknowledgements up to this place have arrived.
    pub fn confirmed(&mut self, token: &str, place: u64) {
        let Some(topic) = self.topics.get_mut(token) else { return };
        while topic.done.front().is_some_and(|done| done.place <= place) {
            topic.done.pop_front();
        }
    }

    /// There is a link again: everything that was open is open no more.
    pub fn linked(&mut self, now_ms: u64) {
        for topic in self.topics.values_mut() {
            topic.consumer = Consumer::Unknown;
            if let Some(pull) = topic.pull.take()
                && topic.active
            {
                topic.credit += pull.left;
            }
            topic.done_ms = now_ms.saturating_sub(WORD_MS);
            topic.unsaid = !topic.done.is_empty();
            for done in &mut topic.done {
                self.number += 1;
                done.place = self.number;
            }
        }
    }

    /// Asks for what is wanted of a topic.
    pub fn advance(&mut self, token: &str, names: &Names, now_ms: u64, out: &mut Vec<Out>) {
        let room = self.held_bytes <= self.held_max / 2;
        let Some(topic) = self.topics.get_mut(token) else { return };
        let still = topic.home_is_among(&self.still, self.homes);
        if !topic.active || topic.credit == 0 || topic.pull.is_some() || still {
            return;
        }
        match topic.consumer {
            Consumer::Asked { since_ms } if now_ms < since_ms + CONSUMER_MS => {}
            Consumer::Unknown | Consumer::Asked { .. } => {
                topic.consumer = Consumer::Asked { since_ms: now_ms };
                let (subject, body) = names.make_consumer(token);
                let about = About::Consumer(token.into());
                out.push(Out::say(subject, Some(names.reply(&about)), body));
            }
            Consumer::There if room => {
                if !std::mem::replace(&mut topic.listens, true) {
                    out.push(Out::Listen(token.into()));
                }
                self.number += 1;
                let (number, left) = (self.number, std::mem::take(&mut topic.credit));
                let until_ms = now_ms + PULL_MS + PULL_GRACE_MS;
                topic.pull = Some(Pull { number, left, until_ms });
                let (subject, body) = names.pull(token, left, self.pull_bytes, PULL_MS);
                let about = About::Pull(token.into(), number);
                out.push(Out::say(subject, Some(names.reply(&about)), body));
            }
            Consumer::There => {}
        }
    }

    /// Does what is due; not more often than a few times in a second.
    pub fn tick(&mut self, names: &Names, now_ms: u64, out: &mut Vec<Out>) {
        for (token, topic) in &mut self.topics {
            if !topic.home_is_among(&self.still, self.homes) {
                topic.say_words(token, names, now_ms, out);
            }
            if let Some(pull) = topic.pull.take_if(|pull| pull.until_ms <= now_ms) {
                // Without a word that it has ended: the consumer is not there, or has moved.
                topic.consumer = Consumer::Unknown;
                topic.credit += if topic.active { pull.left } else { 0 };
            }
        }
        self.topics.retain(|_, topic| !topic.is_over());
        let tokens: Vec<_> = self.topics.keys().cloned().collect();
        tokens.iter().for_each(|token| self.advance(token, names, now_ms, out));
    }

    /// Gives everything back that is held: the process ends.
    pub fn give_up(&mut self, out: &mut Vec<Out>) {
        for held in self.topics.values_mut().flat_map(|topic| std::mem::take(&mut topic.held)) {
            self.tally.returned += 1;
            out.push(Out::say(held.1.ack, None, Bytes::from_static(NAK)));
        }
        (self.held, self.held_bytes) = (0, 0);
    }
}

impl Topic {
    fn new(name: &Arc<str>) -> Topic {
        Topic {
            name: name.clone(),
            active: false,
            credit: 0,
            consumer: Consumer::Unknown,
            pull: None,
            listens: false,
            held: BTreeMap::new(),
            done: VecDeque::new(),
            done_ms: 0,
            unsaid: false,
        }
    }

    fn home_is_among(&self, shards: &[usize], homes: usize) -> bool {
        !shards.is_empty() && shards.contains(&usize::from(Queues::home(&self.name, homes)))
    }

    /// One more message has come.
    fn counted(&mut self) {
        match &mut self.pull {
            Some(pull) if pull.left > 1 => pull.left -= 1,
            pull => *pull = None,
        }
    }

    fn is_over(&self) -> bool {
        !self.active && self.pull.is_none() && self.held.is_empty() && self.done.is_empty()
    }

    /// Says that what is held is in progress, and repeats what is not confirmed.
    fn say_words(&mut self, token: &str, names: &Names, now_ms: u64, out: &mut Vec<Out>) {
        let due = |word_ms: u64| now_ms >= word_ms + WORD_MS;
        for held in self.held.values_mut().filter(|held| due(held.word_ms)) {
            held.word_ms = now_ms;
            out.push(Out::say(held.ack.clone(), None, Bytes::from_static(PROGRESS)));
        }
        if self.done.is_empty() || !due(self.done_ms) {
            return;
        }
        self.done_ms = now_ms;
        let last = self.done.back().map(|done| About::Done(token.into(), done.place));
        self.repeat(last.map(|last| names.reply(&last)), out);
    }

    /// Acknowledges once more what is not confirmed, in order; the last one goes with `reply`.
    fn repeat(&mut self, mut reply: Option<String>, out: &mut Vec<Out>) {
        self.unsaid = false;
        let last = self.done.len().saturating_sub(1);
        for (index, done) in self.done.iter().enumerate() {
            let reply = reply.take_if(|_| index == last);
            out.push(Out::say(done.ack.clone(), reply, Bytes::from_static(ACK)));
        }
    }
}

#[cfg(test)]
mod tests;
