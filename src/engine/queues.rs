//! Queue topics over all shards (connmix section 3): clients push, connections of the API consume.
//!
//! A topic has one home shard ([`Queues::home`]). A client's shard encodes the event once, as the
//! frame that goes to the consumer's socket, and mails it home, one letter per turn, shard and
//! topic. The home decides who gets it and mails it to the consumer's shard, again one letter per
//! turn and consumer. That shard reports what it has written; the home keeps events until then, so
//! a consumer that dies loses nothing that was not yet written to it.
//!
//! With `full = "block"` a pusher's shard may have so many messages per topic under way that the
//! home has not accepted (`unaccepted_max`); beyond that each client can push one more and is
//! then not read until there is room.
//!
//! With `scope = "cluster"` messages come to their home from JetStream; see `cluster`.
//!
//! For those who push there is `Engine::queue_push`; what they hear of is named there.

mod cluster;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::engine::Engine;
use crate::engine::Shared;
use crate::engine::wants::Want;
use crate::hub::ConnId;
use crate::hub::queues::{
    Full, Homes, Outcome, Push, PushError, Pushed, QueueLimits, Queues, Waiter, Window,
};
use crate::lists::letters::{Mail, QueueRequest};
use crate::metrics::DropReason;
use crate::spare::Look;
use crate::wire::queue as wire;
use cluster::Cluster;

/// Letters of this turn that are searched for one to the same topic.
const LETTERS_SEARCHED: usize = 16;

/// Mail between the shards of a queue.
#[derive(Debug)]
pub enum QueueMail {
    /// To a topic's home: messages of clients of shard `from`.
    Push { from: u8, topic: Arc<str>, messages: Vec<Push> },
    /// To a client's shard: a message of it was not queued, or the client waits to hear of it.
    Outcome(Outcome),
    /// To a pushers' shard: so many of its messages are accepted.
    Accepted { topic: Arc<str>, count: u32 },
    /// To a home: this connection wants to consume these topics.
    Join { consumer: ConnId, topics: Vec<Arc<str>> },
    /// The answer to it.
    Joined { consumer: ConnId, joined: bool },
    /// To a home: give this consumer messages.
    Start { consumer: ConnId, window: Window },
    /// To a home: give this consumer nothing more, and say so.
    Leave { consumer: ConnId },
    /// The answer to it.
    Left { consumer: ConnId },
    /// To a consumer's shard, from home `home`: events, in order.
    Events { home: u8, consumer: ConnId, events: Vec<Bytes> },
    /// To a home: so many of its events are written to the consumer's socket.
    Written { consumer: ConnId, count: u32 },
    /// To a home: the consumer is gone; `written` more events than reported are written.
    Gone { consumer: ConnId, written: u32 },
    /// To a home, from JetStream: messages with their numbers, as frames for consumers.
    Supplied { topic: Arc<str>, messages: Vec<(u64, Bytes)> },
    /// To a pushers' shard: this became of so many of its messages. `told` are those that JetStream
    /// has not stored and those whose clients wait.
    Settled { topic: Arc<str>, count: u32, outcomes: Vec<Outcome> },
}

/// What a shard keeps for queues beside its own topics.
#[derive(Debug)]
pub struct Queueing {
    /// The topics whose home is here.
    pub queues: Queues,
    /// Messages of this turn for other homes.
    pushes: Vec<Letter>,
    /// What clients of this shard are to hear of their messages.
    pub outcomes: VecDeque<Outcome>,
    /// Events of this turn for consumers on other shards.
    events: Vec<(ConnId, Vec<Bytes>)>,
    /// By topic, with `full = "block"`: what its home has not accepted.
    unaccepted: HashMap<Arc<str>, Unaccepted>,
    full: Full,
    /// `None`: topics are those of this process.
    cluster: Option<Cluster>,
}

/// Messages of this turn for one topic.
#[derive(Debug)]
struct Letter {
    home: u8,
    topic: Arc<str>,
    messages: Vec<Push>,
}

#[derive(Debug, Default)]
struct Unaccepted {
    messages: usize,
    /// Clients that are not read until there is room.
    waiting: VecDeque<ConnId>,
}

impl Queueing {
    /// Whether messages are kept elsewhere, so that the end of the process does not lose them.
    pub fn is_stored(&self) -> bool {
        self.cluster.is_some()
    }

    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        self.queues.give_back(look);
        look.at(&mut self.pushes);
        look.at(&mut self.outcomes);
        look.at(&mut self.events);
        look.at(&mut self.unaccepted);
        if let Some(cluster) = &mut self.cluster {
            cluster.give_back(look);
        }
    }

    /// Nothing queued.
    pub fn new(limits: QueueLimits, shared: &Shared) -> Queueing {
        let (count, room) = (shared.queue_topics.clone(), shared.queue_room.clone());
        Queueing {
            queues: match room {
                Some(_) => Queues::of_cluster(limits, count),
                None => Queues::new(limits, count),
            },
            pushes: Vec::new(),
            outcomes: VecDeque::new(),
            events: Vec::new(),
            unaccepted: HashMap::new(),
            full: limits.full,
            cluster: room.map(Cluster::new),
        }
    }

    /// Whether another turn has something to do here.
    pub fn is_busy(&self) -> bool {
        !self.pushes.is_empty() || !self.outcomes.is_empty() || self.queues.is_ready()
    }
}

impl Engine {
    /// What waits is given to consumers, and the letters of this turn go out.
    pub(crate) fn queue_turn(&mut self) {
        let mut pushes = std::mem::take(&mut self.queueing.pushes);
        for Letter { home, topic, messages } in pushes.drain(..) {
            let from = self.id;
            if let Some(cluster) = &mut self.queueing.cluster {
                cluster.push(from, topic, messages);
                continue;
            }
            self.post(home, Mail::Queue(QueueMail::Push { from, topic, messages }));
        }
        pushes.append(&mut self.queueing.pushes);
        self.queueing.pushes = pushes;
        let mut given = std::mem::take(&mut self.queueing.events);
        self.queueing.queues.hand_out(|consumer, event| {
            let mut letters = given.iter_mut().rev().take(LETTERS_SEARCHED);
            match letters.find(|(other, _)| *other == consumer) {
                Some((_, events)) => events.push(event),
                None => given.push((consumer, vec![event])),
            }
        });
        for (consumer, events) in given.drain(..) {
            let home = self.id;
            self.queue_post(consumer.shard(), QueueMail::Events { home, consumer, events });
        }
        self.queueing.events = given;
        let mut accepted: Vec<(u8, Arc<str>, u32)> = Vec::new();
        self.queueing.queues.take_accepted(|from, topic| match accepted.last_mut() {
            Some((last, name, count)) if *last == from && name == topic => *count += 1,
            _ => accepted.push((from, topic.clone(), 1)),
        });
        for (shard, topic, count) in accepted {
            self.queue_post(shard, QueueMail::Accepted { topic, count });
        }
        self.queue_reports();
    }

    /// Hands a letter to a shard, which may be this one.
    pub(crate) fn queue_post(&mut self, shard: u8, mail: QueueMail) {
        if shard == self.id {
            self.wants.push(Want::Queue(mail));
        } else {
            self.post(shard, Mail::Queue(mail));
        }
    }

    /// Where queue topics have their home.
    pub(crate) fn homes(&self) -> Homes {
        let cluster = self.queueing.cluster.is_some();
        Homes { shard: self.id, shards: self.mail.len(), cluster }
    }

    /// Appends a message of a client of this shard to a queue topic (connmix section 3.1).
    ///
    /// `client` names the pusher in the event (`p.c`); it may have left already (close events), and
    /// then errors are only counted. `d` is the JSON text of `p.d` (section 3.5); it is copied
    /// once, into the frame that the consumer gets.
    ///
    /// `Ok(Pushed::Full)`, only with `connmix.queue.full = "block"`: the message is queued, but the
    /// topic has no more room. No further message of this client is to be handled until
    /// [`Want::QueueRoom`] comes for it.
    ///
    /// With a `waiter` an [`Outcome`] tells in any case what becomes of the message.
    ///
    /// # Errors
    /// The message is not queued, and that is counted. Only what this shard can know is returned:
    /// if the topic's home is another shard, the answer is `Ok` and a refusal comes later, through
    /// an [`Outcome`]. With a `waiter` every refusal comes that way.
    pub(crate) fn queue_push(
        &mut self,
        client: ConnId,
        topic: &str,
        d: &str,
        waiter: Waiter,
    ) -> Result<Pushed, PushError> {
        let pushed = self.try_push(client, topic, d, waiter);
        if let Err(error) = pushed
            && waiter != Waiter::Nobody
        {
            self.queueing.outcomes.push_back(Outcome { client, waiter, result: Err(error) });
            return Ok(Pushed::Queued);
        }
        pushed
    }

    fn try_push(
        &mut self,
        client: ConnId,
        topic: &str,
        d: &str,
        waiter: Waiter,
    ) -> Result<Pushed, PushError> {
        let event = wire::event(self.settings.node, self.client_ids.encode(client), topic, d);
        let refused = if !wire::is_topic(topic) {
            Some(PushError::BadTopic)
        } else if event.len() > self.settings.queue_event_bytes_max {
            Some(PushError::TooLarge)
        } else {
            None
        };
        if let Some(error) = refused {
            self.dropped(DropReason::QueueRefused, 1);
            return Err(error);
        }
        let home = Queues::home(topic, self.mail.len());
        if self.queueing.cluster.is_some() {
            self.push_to_store(topic, client, &event, waiter)?;
        } else if home == self.id {
            let pushed = self.queueing.queues.push(home, topic, event, self.now.ms);
            pushed.inspect_err(|_| self.dropped(DropReason::QueueRefused, 1))?;
            debug_assert!(waiter == Waiter::Nobody, "what became of it is known");
        } else {
            self.push_later(home, topic, Push { client, event, waiter });
        }
        Ok(self.note_unaccepted(client, topic))
    }

    /// Adds a message to this turn's mail for another home.
    fn push_later(&mut self, home: u8, topic: &str, push: Push) {
        let letters = self.queueing.pushes.iter_mut().rev().take(LETTERS_SEARCHED);
        for letter in letters {
            if *letter.topic == *topic {
                return letter.messages.push(push);
            }
        }
        let messages = vec![push];
        self.queueing.pushes.push(Letter { home, topic: topic.into(), messages });
    }

    fn note_unaccepted(&mut self, client: ConnId, topic: &str) -> Pushed {
        if self.queueing.full != Full::Block {
            return Pushed::Queued;
        }
        if !self.queueing.unaccepted.contains_key(topic) {
            self.queueing.unaccepted.insert(topic.into(), Unaccepted::default());
        }
        let Some(unaccepted) = self.queueing.unaccepted.get_mut(topic) else {
            return Pushed::Queued;
        };
        unaccepted.messages += 1;
        if unaccepted.messages <= self.settings.unaccepted_max {
            return Pushed::Queued;
        }
        unaccepted.waiting.push_back(client);
        Pushed::Full
    }

    /// The home of a topic has a place for so many messages of this shard, or refused them.
    pub(crate) fn pushes_accepted(&mut self, topic: &str, count: u32) {
        let Some(unaccepted) = self.queueing.unaccepted.get_mut(topic) else { return };
        unaccepted.messages = unaccepted.messages.saturating_sub(count as usize);
        let room = self.settings.unaccepted_max.saturating_sub(unaccepted.messages);
        let goes_on = room.min(unaccepted.waiting.len());
        let clients: Vec<ConnId> = unaccepted.waiting.drain(..goes_on).collect();
        if unaccepted.messages == 0 && unaccepted.waiting.is_empty() {
            self.queueing.unaccepted.remove(topic);
        }
        clients.into_iter().for_each(|client| self.wants.push(Want::QueueRoom { client }));
    }

    /// Messages of clients of another shard have come home.
    pub(crate) fn pushed(&mut self, from: u8, topic: &Arc<str>, messages: Vec<Push>) {
        let mut refused = 0;
        for Push { client, event, waiter } in messages {
            let result = self.queueing.queues.push(from, topic, event, self.now.ms);
            refused += u32::from(result.is_err());
            if waiter != Waiter::Nobody || result.is_err() {
                let outcome = Outcome { client, waiter, result };
                self.post(from, Mail::Queue(QueueMail::Outcome(outcome)));
            }
        }
        // What is refused is not under way any more either.
        if refused > 0 && self.queueing.full == Full::Block {
            let topic = topic.clone();
            self.post(from, Mail::Queue(QueueMail::Accepted { topic, count: refused }));
        }
    }

    /// Adds a message to this turn's request to JetStream.
    pub(crate) fn push_to_store(
        &mut self,
        topic: &str,
        client: ConnId,
        event: &Bytes,
        waiter: Waiter,
    ) -> Result<(), PushError> {
        let text = wire::event_text(event);
        let cluster = self.queueing.cluster.as_ref();
        if !cluster.is_some_and(|cluster| cluster.room.take(text.len())) {
            self.queueing.queues.tally.refused += 1;
            self.dropped(DropReason::QueueUnstored, 1);
            return Err(PushError::Unstored);
        }
        self.push_later(self.id, topic, Push { client, event: text, waiter });
        Ok(())
    }

    /// What became of messages of this shard's clients.
    pub(crate) fn settled(&mut self, topic: &Arc<str>, count: u32, outcomes: Vec<Outcome>) {
        self.queueing.queues.tally.pushed += u64::from(count);
        for outcome in outcomes {
            if let Err(error) = outcome.result {
                self.queueing.queues.tally.pushed -= 1;
                self.queueing.queues.tally.refused += 1;
                self.dropped(reason(error), 1);
            }
            self.queueing.outcomes.push_back(outcome);
        }
        if self.queueing.full == Full::Block {
            self.pushes_accepted(topic, count);
        }
    }

    /// Tells JetStream what became of its messages, and asks for more.
    pub(crate) fn queue_reports(&mut self) {
        let wants = !self.is_emptied();
        let Some(cluster) = &mut self.queueing.cluster else { return };
        self.queueing.queues.take_reports(wants, |report| {
            cluster.out.push_back(QueueRequest::Report(report));
        });
    }

    /// The next message to the thread that speaks with JetStream.
    pub(crate) fn next_queue_request(&mut self) -> Option<QueueRequest> {
        self.queueing.cluster.as_mut()?.out.pop_front()
    }
}

fn reason(error: PushError) -> DropReason {
    match error {
        PushError::Unstored => DropReason::QueueUnstored,
        PushError::Full | PushError::TooManyTopics | PushError::BadTopic | PushError::TooLarge => {
            DropReason::QueueRefused
        }
    }
}
