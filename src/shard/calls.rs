//! `conn.call` of connmix on a connection of this shard, whatever its protocol (connmix section 4).
//!
//! The context of a connmix client is with the client. That of any other connection is its session,
//! as far as that is a JSON object: an empty session is an empty context, and a session that is
//! something else is left alone.

use crate::control::connmix_api::context_values;
use crate::hub::ConnId;
use crate::hub::context::{Context, ContextValue};
use crate::hub::push::{Call, Outcome};
use crate::shard::Shard;
use crate::shard::lists::kind;

impl Shard {
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
            <= self.engine.config.connmix.rules.channels_max as usize;
        if room {
            topics.iter().for_each(|topic| _ = self.engine.hub.subscribe(slot, topic));
        }
        room
    }

    fn set_context(&mut self, slot: u32, values: &[ContextValue]) -> bool {
        if self.engine.conns[slot].kind == kind::CONNMIX {
            return self.connmix.set_context(&mut self.engine, slot, values);
        }
        let mut context = Context::default();
        let session = self.engine.hub.session(slot);
        let known = if session.is_empty() { Some(Vec::new()) } else { context_values(session) };
        let set = known
            .is_some_and(|known| context.set(&known).and_then(|()| context.set(values)).is_ok());
        if set {
            let session = if context.is_empty() { String::new() } else { context.to_json() };
            self.engine.hub.set_session(slot, &session);
        }
        set
    }
}
