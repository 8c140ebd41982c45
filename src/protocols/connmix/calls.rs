//! Requests of connmix rules to backends (connmix section 7.4, `http`): how many are under way, and
//! what waits for them.
//!
//! The sidecar makes the requests; here is only the bound on how many it gets at a time. Each waits
//! with its connection, which has at most one; those of connections that have left are forgotten
//! before they become many.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::engine::Engine;
use crate::engine::LEFT_SPARE;
use crate::engine::conns::Flags;
use crate::hub::ConnId;
use crate::protocols::connmix::letters::{HttpCall, ServiceRequest};
use crate::protocols::connmix::rules::{Answer, Call, Resumed};
use crate::spare::Look;

/// The requests of one shard.
#[derive(Debug, Default)]
pub struct Calls {
    under_way: usize,
    queue: VecDeque<(ConnId, Box<HttpCall>)>,
}

impl Calls {
    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.queue);
    }

    /// Requests that wait or are under way.
    pub fn len(&self) -> usize {
        self.queue.len() + self.under_way
    }

    /// Requests that wait for their turn.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The next request to hand to the sidecar, if fewer than `under_way_max` are.
    pub fn next(&mut self, under_way_max: u32) -> Option<ServiceRequest> {
        if self.under_way >= under_way_max as usize {
            return None;
        }
        let (conn, call) = self.queue.pop_front()?;
        self.under_way += 1;
        Some(ServiceRequest::HttpCall { conn, call })
    }
}

impl super::Connmix {
    /// Has a request made for a connection, which is blocked until the answer comes.
    pub(crate) fn call(&mut self, engine: &mut Engine, id: ConnId, call: Call) {
        let Call { method, url, body, content_type, timeout, answer_bytes_max } = call;
        let call = HttpCall { method, url, body, content_type, timeout, answer_bytes_max };
        self.calls.queue.push_back((id, Box::new(call)));
        if self.calls.queue.len() > 2 * engine.conns.len() + LEFT_SPARE {
            let conns = &engine.conns;
            self.calls.queue.retain(|(id, _)| conns.slot(*id).is_some());
        }
    }

    /// A request is over. `None`: there was no good answer.
    pub(crate) fn http_called(&mut self, engine: &mut Engine, id: ConnId, answer: Option<Bytes>) {
        let calls = &mut self.calls;
        debug_assert!(calls.under_way > 0, "an answer that nobody asked for");
        calls.under_way = calls.under_way.saturating_sub(1);
        let Some(slot) = engine.conns.slot(id) else { return };
        if engine.conns[slot].flags.has(Flags::GONE | Flags::CLOSING | Flags::DEAF) {
            return;
        }
        let waits = self.connmix(engine, slot).and_then(|conn| conn.waits.as_deref());
        if waits.is_some_and(|waits| matches!(waits.awaits, Answer::Call(_))) {
            match &answer {
                Some(body) => self.resume(engine, slot, Resumed::Answered(body)),
                None => self.resume(engine, slot, Resumed::Failed),
            }
        }
    }
}
