//! Calls: requests that the sidecars of all other nodes answer, in the words of a protocol. Their
//! answers are put together by whoever asked.
//!
//! Invariant: every call is answered exactly once, with the answers that came until the last node
//! or the deadline. Costs: one entry in a hash table per call.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Mesh;
use super::codec::Lane;
use crate::limits::{MESH_REQUEST_TIME, MESH_REQUESTS_MAX};
use crate::lists::letters::MeshCall;
use crate::log::target;
use crate::spare::Look;
use crate::wire::mesh::{self as wire, Body, Envelope, MeshError, proto};

/// Calls of this node that wait for answers.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: HashMap<u64, Open>,
    deadlines: VecDeque<(Instant, u64)>,
}

#[derive(Debug)]
struct Open {
    missing: Vec<u16>,
    bodies: Vec<Bytes>,
    answer: oneshot::Sender<Vec<Bytes>>,
}

impl Open {
    /// Nobody waits any more if it fails.
    fn close(self) -> Vec<u16> {
        let _ = self.answer.send(self.bodies);
        self.missing
    }
}

impl Calls {
    /// When the next call is over at the latest.
    pub fn due(&self) -> Option<Instant> {
        self.deadlines.front().map(|(due, _)| *due)
    }

    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.open);
        look.at(&mut self.deadlines);
    }

    /// Takes the answer of a node; false if it is to no call.
    fn answered(&mut self, number: u64, node: u16, body: Bytes) -> bool {
        let Some(open) = self.open.get_mut(&number) else { return false };
        if let Some(at) = open.missing.iter().position(|missing| *missing == node) {
            open.missing.swap_remove(at);
            open.bodies.push(body);
        }
        if open.missing.is_empty()
            && let Some(open) = self.open.remove(&number)
        {
            open.close();
        }
        true
    }

    /// Ends a call whose time is over; gives the nodes that have not answered.
    fn expired(&mut self, now: Instant) -> Option<Vec<u16>> {
        while let Some((due, number)) = self.deadlines.front().copied() {
            if due > now && self.open.contains_key(&number) {
                return None;
            }
            self.deadlines.pop_front();
            if let Some(open) = self.open.remove(&number) {
                return Some(open.close());
            }
        }
        None
    }
}

impl Mesh {
    /// Asks all other nodes.
    pub(super) fn call(&mut self, method: &str, body: Bytes, answer: oneshot::Sender<Vec<Bytes>>) {
        let missing = self.members.expected(Lane::All);
        let missing = self.who_answers(&missing);
        let reachable = self.link.is_up() && self.rival.is_none();
        let full = self.calls.open.len() >= MESH_REQUESTS_MAX;
        self.meters.asked.increment(1);
        if missing.is_empty() || !reachable || full {
            self.meters.unanswered.increment(u64::from(!missing.is_empty()));
            let _ = answer.send(Vec::new());
            return;
        }
        let number = self.asks.number();
        let call = proto::Call { method: method.to_owned(), body };
        let envelope = self.envelope(number, Body::Call(call));
        let bytes = wire::encode(&envelope);
        if bytes.len() > self.link.payload_max() {
            self.meters.dropped_large.increment(1);
            let _ = answer.send(Vec::new());
            return;
        }
        self.calls.open.insert(number, Open { missing, bodies: Vec::new(), answer });
        self.calls.deadlines.push_back((Instant::now() + MESH_REQUEST_TIME, number));
        self.link.publish(self.subjects.all(), bytes, 0);
    }

    /// A node has answered; false if that was to no call.
    pub(super) fn call_answered(&mut self, envelope: &Envelope, body: &Bytes) -> bool {
        self.calls.answered(envelope.number, envelope.node as u16, body.clone())
    }

    /// Ends the calls whose time is over.
    pub(super) fn expire_calls(&mut self, now: Instant) {
        while let Some(nodes) = self.calls.expired(now) {
            self.meters.unanswered.increment(1);
            if let Some(unsaid) = self.complain() {
                tracing::warn!(
                    target: target::MESH,
                    ?nodes, unsaid, "nodes of the mesh did not answer a call"
                );
            }
        }
    }

    /// A call of another node: for the sidecar. One that it has no room for is not answered.
    pub(super) fn serve_call(
        &mut self,
        envelope: &Envelope,
        call: proto::Call,
    ) -> Result<(), MeshError> {
        if self.members.knows(envelope) && !self.members.takes(envelope, Lane::All) {
            self.meters.dropped_repeated.increment(1);
            return Ok(());
        }
        let proto::Call { method, body } = call;
        let call = MeshCall { node: envelope.node as u16, number: envelope.number, method, body };
        if self.settings.calls.try_send(call).is_err() {
            self.meters.dropped_full.increment(1);
        }
        Ok(())
    }

    /// The sidecar has answered a call of another node.
    pub(super) fn called(&mut self, node: u16, number: u64, body: Bytes) {
        if !self.link.is_up() {
            return self.meters.dropped_down.increment(1);
        }
        let envelope =
            self.envelope(number, Body::Reply(proto::Reply { body, ..Default::default() }));
        let bytes = wire::encode(&envelope);
        if bytes.len() > self.link.payload_max() {
            return self.meters.dropped_large.increment(1);
        }
        self.link.publish(self.subjects.reply(node), bytes, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(
        calls: &mut Calls,
        number: u64,
        missing: &[u16],
        due: Instant,
    ) -> oneshot::Receiver<Vec<Bytes>> {
        let (answer, receiver) = oneshot::channel();
        let missing = missing.to_vec();
        calls.open.insert(number, Open { missing, bodies: Vec::new(), answer });
        calls.deadlines.push_back((due, number));
        receiver
    }

    #[test]
    fn a_call_is_over_with_the_last_answer_or_at_its_deadline() {
        let (mut calls, now) = (Calls::default(), Instant::now());
        let mut all = open(&mut calls, 7, &[2, 3], now + MESH_REQUEST_TIME);
        let mut some = open(&mut calls, 8, &[2, 3], now + MESH_REQUEST_TIME);
        let body = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert!(!calls.answered(9, 2, body("no call")));
        assert!(calls.answered(7, 2, body("two")) && calls.answered(7, 2, body("twice")));
        assert!(all.try_recv().is_err());
        assert!(calls.answered(7, 3, body("three")) && calls.answered(8, 3, body("three")));
        assert_eq!(all.try_recv(), Ok(vec![body("two"), body("three")]));
        assert_eq!(calls.expired(now), None);
        assert_eq!(calls.expired(now + MESH_REQUEST_TIME), Some(vec![2]));
        assert_eq!(some.try_recv(), Ok(vec![body("three")]));
        assert!(calls.due().is_none() && !calls.answered(8, 2, body("late")));
    }
}
