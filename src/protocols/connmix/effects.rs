//! What the rules of connmix clients want, carried out.

use bytes::Bytes;

use crate::config::model::MessageType;
use crate::engine::Engine;
use crate::engine::conns::Flags;
use crate::engine::forms::Made;
use crate::hub::ConnId;
use crate::hub::push::{CloseReason, Command, Payload, PayloadKind, Target};
use crate::hub::queues::{Outcome, PushError, Pushed, Waiter};
use crate::lists::numbers::kind;
use crate::log::target;
use crate::metrics::DropReason;
use crate::protocols::connmix::config::server::OnPushError;
use crate::protocols::connmix::rules::{Answer, Effect, Effects, Event, Resumed, Run, Suspended};

use super::{Conn, Connmix};
use crate::engine::wants::Want;

/// Close code of a client whose push failed: try again later.
const PUSH_FAILED: u16 = 1013;

/// All clients of a shard may leave at once, and each may have many rules.
const DEPARTURES_PER_TURN: usize = 256;

/// What is left to do of an event.
#[derive(Debug)]
pub(crate) struct Rest {
    id: ConnId,
    effects: Effects,
    suspended: Option<Suspended>,
}

impl Rest {
    /// Whether it is about this client.
    pub(crate) fn is_of(&self, conn: ConnId) -> bool {
        self.id == conn
    }
}

/// A client that has left and whose rules about that are still to be run.
#[derive(Debug)]
pub(crate) struct Leaving {
    id: ConnId,
    conn: Conn,
    flags: Flags,
}

/// A client that has left and whose rules about that wait for a push.
#[derive(Debug)]
pub(crate) struct Departed {
    conn: Conn,
    flags: Flags,
    suspended: Suspended,
}

impl Connmix {
    /// Does what an event led to. With `suspended` the connection waits then.
    pub(crate) fn carry_out(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        id: ConnId,
        suspended: Option<Suspended>,
    ) {
        let effects = std::mem::take(&mut self.effects);
        self.go_through(engine, slot, id, effects, suspended);
    }

    /// What follows a publish is carried out when that has been.
    pub(crate) fn carry_on(&mut self, engine: &mut Engine) {
        let Some(Rest { id, effects, suspended }) = self.rest.pop_front() else { return };
        if let Some(slot) = engine.conns.slot(id) {
            self.go_through(engine, slot, id, effects, suspended);
        }
    }

    fn go_through(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        id: ConnId,
        mut effects: Effects,
        suspended: Option<Suspended>,
    ) {
        let over = Flags::GONE | Flags::CLOSING | Flags::DEAF;
        let Effects { list, text } = &mut effects;
        let mut left = list.drain(..);
        while let Some(effect) = left.next() {
            if engine.conns[slot].flags.has(over) {
                break;
            }
            let publishes = matches!(effect, Effect::Publish { .. });
            self.effect(engine, slot, id, effect, text);
            if publishes && left.len() > 0 {
                let effects = Effects { list: left.collect(), text: std::mem::take(text) };
                self.rest.push_back(Rest { id, effects, suspended });
                return engine.wants.push(Want::CarryOn);
            }
        }
        drop(left);
        effects.clear();
        self.effects = effects;
        if let Some(suspended) = suspended
            && !engine.conns[slot].flags.has(over)
        {
            self.wait(engine, slot, id, suspended);
        }
    }

    fn wait(&mut self, engine: &mut Engine, slot: u32, id: ConnId, suspended: Suspended) {
        let due_ms = match &suspended.awaits {
            Answer::Key { timeout, .. } => engine.now.ms + timeout.as_millis() as u64,
            Answer::Call(call) => {
                self.call(engine, id, call.clone());
                u64::MAX
            }
            Answer::Push => u64::MAX,
        };
        if let Some(conn) = self.connmix(engine, slot) {
            conn.waits = Some(Box::new(suspended));
        }
        engine.hold_back(slot);
        engine.set_due(slot, due_ms);
    }

    fn effect(&mut self, engine: &mut Engine, slot: u32, id: ConnId, effect: Effect, text: &str) {
        match effect {
            Effect::Subscribe(channel) => self.subscribe(engine, slot, &channel),
            Effect::Unsubscribe(channel) => _ = engine.hub.unsubscribe(slot, &channel),
            Effect::Send(kind, data) => {
                let payload = Payload::of_kind(data, kind_of(kind));
                let made = super::make(engine.conns[slot].form, &payload);
                engine.offer(slot, &made);
            }
            Effect::Pong => {
                // Who does not take its answers is not read, so this asks for no room.
                let pong = Payload::of_kind(Bytes::from_static(b"pong"), PayloadKind::Text);
                if let Made::Frame(frame) = super::make(engine.conns[slot].form, &pong) {
                    engine.push(slot, frame.bytes());
                }
            }
            Effect::Push { topic, d, waits } => {
                let d = text.get(d).unwrap_or_default();
                let waiter = if waits { Waiter::Client } else { Waiter::Nobody };
                match engine.queue_push(id, &topic, d, waiter) {
                    Ok(Pushed::Queued) => {}
                    Ok(Pushed::Full) => {
                        if let Some(conn) = self.connmix(engine, slot) {
                            conn.full = conn.full.saturating_add(1);
                        }
                        engine.hold_back(slot);
                    }
                    Err(error) => self.refused(engine, slot, error),
                }
            }
            Effect::Context(context) => {
                if let Some(conn) = self.connmix(engine, slot) {
                    conn.context = context;
                }
            }
            Effect::User(user) => engine.hub.set_user(slot, &user),
            Effect::Close(goodbye) => {
                engine.close(slot, CloseReason::new(goodbye.code, goodbye.reason));
            }
            Effect::Violation(goodbye) => {
                engine.counters.protocol_violations += 1;
                engine.close(slot, CloseReason::new(goodbye.code, goodbye.reason));
            }
            effect => self.apply(engine, effect),
        }
    }

    /// Effects that need no connection.
    fn apply(&mut self, engine: &mut Engine, effect: Effect) {
        match effect {
            Effect::Publish { channel, kind, data } => {
                let payloads = vec![Payload::of_kind(data, kind_of(kind))];
                let target = Target::Topics(vec![Box::from(&*channel)]);
                engine.wants.push(Want::Wide(Command::Push { target, payloads }));
            }
            Effect::Failed { rule, action } => {
                engine.counters.rule_actions_failed += 1;
                if let Some(unsaid) = engine.complaints.allow(engine.now.ms) {
                    tracing::info!(
                        target: target::CONNMIX,
                        rule, action, unsaid, "an action of a connmix rule failed"
                    );
                }
            }
            Effect::NoRule => engine.dropped(DropReason::NoRule, 1),
            _ => {}
        }
    }

    fn subscribe(&mut self, engine: &mut Engine, slot: u32, channel: &str) {
        let channels_max = self.config.connmix.rules.channels_max as usize;
        let full = engine.hub.topics_of(slot).len() >= channels_max;
        if full && !engine.hub.topics_of(slot).any(|topic| **topic == *channel) {
            engine.counters.rule_actions_failed += 1;
            return;
        }
        engine.hub.subscribe(slot, channel);
    }

    /// What became of a message that this client pushed to a queue; a refusal has been counted.
    pub(crate) fn push_settled(&mut self, engine: &mut Engine, outcome: Outcome) {
        let Outcome { client, waiter, result } = outcome;
        if waiter == Waiter::Departed {
            return self.departed_settled(engine, client, result);
        }
        let Some(slot) = engine.hub.slot_of(client) else { return };
        if let Err(error) = result {
            self.refused(engine, slot, error);
        }
        let ended = engine.conns[slot].flags.has(Flags::GONE | Flags::CLOSING | Flags::DEAF);
        let waiting = self.connmix(engine, slot).and_then(|conn| conn.waits.as_deref());
        if waiter == Waiter::Client
            && !ended
            && waiting.is_some_and(|own| own.awaits == Answer::Push)
        {
            self.resume(engine, slot, Resumed::Waited);
        }
    }

    fn refused(&mut self, engine: &mut Engine, slot: u32, error: PushError) {
        let Some(conn) = self.conns.of(engine.index(slot, kind::CONNMIX)) else { return };
        let closes = self.rules_of(conn).on_push_error == OnPushError::Close;
        if let Some(unsaid) = engine.complaints.allow(engine.now.ms) {
            let why = error.text();
            tracing::warn!(
                target: target::CONNMIX,
                why, closes, unsaid, "a message of a connmix client was not queued"
            );
        }
        if closes {
            engine.close(slot, CloseReason::new(PUSH_FAILED, error.text()));
        }
    }

    /// The client has left: its rules about that are run before the end of the turn. Not at once,
    /// for what they publish may end others, whose rules do the same.
    pub(crate) fn leave(&mut self, engine: &mut Engine, slot: u32) {
        engine.counters.closes += 1;
        self.clients -= 1;
        let (id, flags) = (engine.conns.id(slot), engine.conns[slot].flags);
        let Some(conn) = self.connmix(engine, slot) else { return };
        // It waits for nothing any more but the peer's close.
        conn.waits = None;
        conn.full = 0;
        let conn = conn.take_last();
        self.leaving.push_back(Leaving { id, conn, flags });
    }

    /// Runs the rules about the clients that have left, of so many in a turn.
    pub(crate) fn tell_departures(&mut self, engine: &mut Engine) {
        for _ in 0..self.leaving.len().min(DEPARTURES_PER_TURN) {
            let Some(Leaving { id, conn, flags }) = self.leaving.pop_front() else {
                return;
            };
            self.depart(engine, id, conn, flags, None);
        }
    }

    /// A push of the rules about a client that has left has been stored, or not.
    fn departed_settled(&mut self, engine: &mut Engine, id: ConnId, result: Result<(), PushError>) {
        let Some(departed) = self.departed.remove(&id) else { return };
        let Departed { conn, flags, suspended } = *departed;
        // With `close` nothing follows a push that failed, as while the client was there.
        if result.is_ok() || self.rules_of(&conn).on_push_error == OnPushError::Ignore {
            self.depart(engine, id, conn, flags, Some(suspended));
        }
    }

    /// Runs the rules about the end of a client, or goes on with them.
    fn depart(
        &mut self,
        engine: &mut Engine,
        id: ConnId,
        conn: Conn,
        flags: Flags,
        suspended: Option<Suspended>,
    ) {
        let (client_id, node) = (engine.client_ids.encode(id), engine.settings.node);
        let subject = conn.subject(client_id, node, engine.homes(), flags, Event::Close);
        let rules = &self.config.connmix_servers[conn.server as usize];
        // Another client's effects may be being carried out: these are separate.
        let mut effects = Effects::default();
        let Connmix { json, .. } = self;
        let run = Run::new(rules, subject, &conn.context, json, &mut effects);
        let suspended = match &suspended {
            Some(suspended) => run.resume(suspended, Resumed::Waited),
            None => run.start(),
        };
        for effect in effects.list.drain(..) {
            match effect {
                // What can not be queued is counted there; nobody is left to be told.
                Effect::Push { topic, d, waits } => {
                    let d = effects.text.get(d).unwrap_or_default();
                    let waiter = if waits { Waiter::Departed } else { Waiter::Nobody };
                    _ = engine.queue_push(id, &topic, d, waiter);
                }
                effect => self.apply(engine, effect),
            }
        }
        if let Some(suspended) = suspended {
            self.departed.insert(id, Box::new(Departed { conn, flags, suspended }));
        }
    }
}

fn kind_of(kind: MessageType) -> PayloadKind {
    match kind {
        MessageType::Text => PayloadKind::Text,
        MessageType::Binary => PayloadKind::Binary,
    }
}
