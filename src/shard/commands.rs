//! What backends ask for: commands find their shards, and are applied to the connections here
//! (netsvr sections 6.0, 6.3 to 6.6). How a push reaches its connections is in `fan_out`.
//!
//! `conn.call` of connmix (connmix section 4) concerns a connection of any protocol. The context of
//! a connmix client is with the client. That of any other connection is its session, as far as that
//! is a JSON object: an empty session is an empty context, and a session that is something else is
//! left alone.

use std::sync::Arc;

use crate::hub::ConnId;
use crate::hub::context::{self, Context, ContextValue};
use crate::hub::push::Call;
use crate::hub::push::{CloseReason, Command, Outcome, Payload, Target};
use crate::lists::letters::{Mail, Reach, Reply, ReplyTo};
use crate::lists::numbers::kind;
use crate::protocols::connmix::api::Asked;
use crate::shard::Shard;
use crate::shard::tenants::hook;

/// A command by shard.
pub(super) enum Spread {
    One(u8, Command),
    /// None, if it names no connection that can exist.
    Parts(Vec<(u8, Command)>),
    /// The same for every shard.
    All(Arc<Command>),
}

impl Shard {
    /// Carries a command to every shard that it concerns, this one included.
    pub(super) fn dispatch(&mut self, command: Command) {
        if self.engine.mail.len() == 1 {
            self.apply(&command);
            return;
        }
        match self.spread(command) {
            Spread::One(shard, command) => self.dispatch_part(shard, command),
            Spread::Parts(parts) => {
                for (shard, command) in parts {
                    self.dispatch_part(shard, command);
                }
            }
            Spread::All(command) => {
                for shard in self.engine.others() {
                    self.engine.post(shard, Mail::Command(command.clone()));
                }
                self.apply(&command);
            }
        }
    }

    fn dispatch_part(&mut self, shard: u8, command: Command) {
        if shard == self.engine.id {
            self.apply(&command);
        } else {
            self.engine.post(shard, Mail::Part(command));
        }
    }

    /// Carries a command of an API connection to whom it concerns, on every node or on another one;
    /// the connection hears what it came to, in any case.
    pub(super) fn tell(&mut self, slot: u32, asked: Asked) {
        let Asked { command, node, about, form } = asked;
        let leaves = node.is_some() || self.engine.leaves(&command);
        if !leaves && self.is_here(&command) {
            let outcome = self.apply(&command);
            return self.tenants.api.done(&mut self.engine, slot, about, form, outcome);
        }
        let (number, conn) = (self.engine.tells.number(), self.engine.conns.id(slot));
        self.tenants.api.expect(&mut self.engine, slot, number, about, form);
        if let Some(node) = node {
            self.engine.tells.open(number, conn, 1);
            return self.engine.hand_over(Reach::Node(node), Arc::new(command), Some(number));
        }
        let abroad = leaves.then(|| Arc::new(command.clone()));
        let spread = self.spread(command);
        let shards = match &spread {
            Spread::One(..) => 1,
            Spread::Parts(parts) => parts.len(),
            Spread::All(_) => self.engine.mail.len(),
        };
        let answers = shards.max(1) + usize::from(leaves);
        self.engine.tells.open(number, conn, answers);
        match spread {
            Spread::Parts(parts) if parts.is_empty() => self.outcome_of(number, Outcome::default()),
            Spread::One(shard, command) => self.tell_shard(number, shard, &Arc::new(command)),
            Spread::Parts(parts) => {
                for (shard, command) in parts {
                    self.tell_shard(number, shard, &Arc::new(command));
                }
            }
            Spread::All(command) => {
                for shard in 0..self.engine.mail.len() as u8 {
                    self.tell_shard(number, shard, &command);
                }
            }
        }
        if let Some(command) = abroad {
            self.engine.hand_over(Reach::Members, command, Some(number));
        }
    }

    fn tell_shard(&mut self, number: u64, shard: u8, command: &Arc<Command>) {
        if shard == self.engine.id {
            let outcome = self.apply(command);
            return self.outcome_of(number, outcome);
        }
        let reply = ReplyTo::Shard { shard: self.engine.id, number };
        self.engine.post(shard, Mail::Tell { command: command.clone(), reply });
    }

    /// What a command came to on one shard, or on other nodes.
    pub(super) fn outcome_of(&mut self, number: u64, part: Outcome) {
        if let Some((conn, outcome)) = self.engine.tells.add(number, part) {
            self.tenants.api.outcome(&mut self.engine, conn, number, outcome);
        }
    }

    /// Applies a command to the connections of this shard.
    pub(super) fn apply(&mut self, command: &Command) -> Outcome {
        match command {
            Command::Push { target, payloads } => {
                let mut outcome = Outcome::default();
                if let Target::Topics(topics) = target {
                    payloads.iter().for_each(|payload| {
                        self.tenants.im.published(&mut self.engine, topics, payload)
                    });
                }
                payloads.iter().for_each(|payload| outcome.add(self.push_to(target, payload)));
                outcome
            }
            Command::Update { conn, change, payload } => {
                let Some(slot) = self.engine.hub.slot_of(*conn) else { return Outcome::default() };
                self.engine.hub.change(slot, change);
                if let Some(payload) = payload {
                    self.push_all(&[slot], payload);
                }
                Outcome { done: 1, failed: 0 }
            }
            Command::Call { conn, call } => self.call(*conn, call),
            Command::DeleteTopics { topics, payload } => {
                let mut lost = Vec::new();
                topics.iter().for_each(|topic| self.engine.hub.delete_topic(topic, &mut lost));
                lost.sort_unstable();
                lost.dedup();
                if let Some(payload) = payload {
                    self.push_all(&lost, payload);
                }
                Outcome { done: lost.len() as u64, failed: 0 }
            }
            Command::Kick { target, payload, reason, guests_only } => {
                self.kick(target, payload.as_deref(), reason, *guests_only)
            }
            Command::Room(message) => {
                // Usually all members speak IM.
                let others =
                    self.engine.hub.len() as u64 > self.tenants.im.guests + self.tenants.im.users;
                if let Some(content) = message.content.as_ref().filter(|_| others) {
                    self.push_beside_rooms(&message.topic, content);
                }
                self.tenants.im.room(&mut self.engine, message);
                Outcome::default()
            }
            Command::Displace { conn, login } => {
                self.tenants.xxim.displaced_elsewhere(&mut self.engine, *conn, login)
            }
            Command::Replace(session) => {
                Outcome { done: self.tenants.im.replace(&mut self.engine, session), failed: 0 }
            }
        }
    }

    fn kick(
        &mut self,
        target: &Target,
        payload: Option<&Payload>,
        reason: &CloseReason,
        guests_only: bool,
    ) -> Outcome {
        let mut slots = Vec::new();
        let mut outcome = Outcome::default();
        self.engine.hub.for_each(target, |slot| slots.push(slot));
        for slot in slots {
            // It was named twice, or went because of one before it.
            if self.engine.hub.id_of(slot).is_none() {
                continue;
            }
            let guest =
                self.engine.hub.user(slot).is_empty() && self.engine.hub.session(slot).is_empty();
            if guests_only && !guest {
                continue;
            }
            if let Some(payload) = payload {
                self.push_all(&[slot], payload);
            }
            self.send_away(slot, reason.clone());
            outcome.done += 1;
        }
        outcome
    }

    /// Closes a client that a backend does not want any more, in the words of its protocol.
    fn send_away(&mut self, slot: u32, reason: CloseReason) {
        let kind = self.engine.conns[slot].kind;
        let engine = &mut self.engine;
        hook!(self.tenants, kind, kicked(engine, slot, reason), else engine.close(slot, reason));
    }

    /// Carries out what comes from another node.
    pub(in crate::shard) fn for_another_node<T>(
        &mut self,
        work: impl FnOnce(&mut Shard) -> T,
    ) -> T {
        self.engine.sends.forwarded = true;
        let done = work(self);
        self.engine.sends.forwarded = false;
        done
    }

    /// Somebody wants to know what a command comes to here.
    pub(super) fn answer_tell(&mut self, command: &Command, to: ReplyTo) {
        let outcome = match to {
            ReplyTo::Mesh { .. } => self.for_another_node(|shard| shard.apply(command)),
            ReplyTo::Shard { .. } => self.apply(command),
        };
        // Who is answered may rely on what follows of it.
        self.settle();
        let reply = Reply::Outcome(outcome);
        match to {
            ReplyTo::Shard { shard, number } => {
                self.engine.post(shard, Mail::Replied { number, reply });
            }
            ReplyTo::Mesh { number } => self.engine.reply_to_mesh(number, reply),
        }
    }

    /// What each of the shards is to do that a command concerns. Parts keep the order of the list.
    pub(super) fn spread(&self, command: Command) -> Spread {
        let shards = self.engine.mail.len();
        let conns = match command.conns() {
            None => return Spread::All(Arc::new(command)),
            Some([conn]) if usize::from(conn.shard()) < shards => {
                return Spread::One(conn.shard(), command);
            }
            Some(conns) => conns,
        };
        let mut parts: Vec<Vec<ConnId>> = vec![Vec::new(); shards];
        for conn in conns {
            // An id of a shard that does not exist names nobody.
            if let Some(part) = parts.get_mut(usize::from(conn.shard())) {
                part.push(*conn);
            }
        }
        let parts = (0u8..).zip(parts).filter(|(_, conns)| !conns.is_empty());
        Spread::Parts(parts.map(|(shard, conns)| (shard, command.part(conns))).collect())
    }

    /// Whether a command concerns this shard alone.
    fn is_here(&self, command: &Command) -> bool {
        let here = |conns: &[ConnId]| conns.iter().all(|conn| conn.shard() == self.engine.id);
        self.engine.mail.len() == 1 || command.conns().is_some_and(here)
    }

    /// Runs a function on a connection.
    pub(super) fn call(&mut self, conn: ConnId, call: &Call) -> Outcome {
        let Some(slot) = self.engine.hub.slot_of(conn) else { return Outcome::default() };
        let done = match call {
            Call::SetContext(values) => self.set_context(slot, values),
            Call::Subscribe(topics) => self.subscribe_all(slot, topics),
            Call::Unsubscribe(topics) => {
                topics.iter().for_each(|topic| _ = self.engine.hub.unsubscribe(slot, topic));
                true
            }
        };
        Outcome { done: done as u64, failed: !done as u64 }
    }

    /// All of them or, where that would be too many, none.
    fn subscribe_all(&mut self, slot: u32, topics: &[Box<str>]) -> bool {
        let has = |topic: &str| self.engine.hub.topics_of(slot).any(|other| **other == *topic);
        let new = topics.iter().filter(|topic| !has(topic)).count();
        let room = self.engine.hub.topics_of(slot).len() + new
            <= self.config.connmix.rules.channels_max as usize;
        if room {
            topics.iter().for_each(|topic| _ = self.engine.hub.subscribe(slot, topic));
        }
        room
    }

    fn set_context(&mut self, slot: u32, values: &[ContextValue]) -> bool {
        if self.engine.conns[slot].kind == kind::CONNMIX {
            return self.tenants.connmix.set_context(&mut self.engine, slot, values);
        }
        let mut context = Context::default();
        let session = self.engine.hub.session(slot);
        let known = if session.is_empty() { Some(Vec::new()) } else { context::values(session) };
        let set = known
            .is_some_and(|known| context.set(&known).and_then(|()| context.set(values)).is_ok());
        if set {
            let session = if context.is_empty() { String::new() } else { context.to_json() };
            self.engine.hub.set_session(slot, &session);
        }
        set
    }
    /// Carries out a command on every node that it concerns, this one first.
    pub(super) fn dispatch_wide(&mut self, command: Command) {
        if self.engine.leaves(&command) {
            self.engine.hand_over(Reach::Members, Arc::new(command.clone()), None);
        }
        self.dispatch(command);
    }
}
