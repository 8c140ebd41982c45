//! Encryption of what xxim clients are sent, within a budget per turn (xxim section 3.3).
//!
//! A push to many encrypted connections costs an encryption each. Here it costs a queue entry at
//! first; each connection encrypts its own when it is flushed, as far as the turn's budget goes,
//! and the others are flushed meanwhile. What is left goes out in the next turns. Invariants: the
//! order of a connection's messages is that in which they were queued; each is encrypted under the
//! keys of the moment at which it was queued. Costs: one allocation per message and connection.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;

use crate::limits::XXIM_SEAL_BYTES_PER_TURN;
use crate::shard::Shard;
use crate::shard::conns::{Flags, Role};
use crate::shard::ops::Frame;
use crate::shard::outbox::charge;
use crate::wire::xxim::cipher::Cipher;
use crate::wire::xxim::{Body, Carrier};

/// What a message costs besides its bytes, in bytes that could be encrypted meanwhile.
const MESSAGE_COST: usize = 64;

/// Messages of one connection that are not encrypted yet.
#[derive(Debug, Default)]
pub(super) struct Unsealed {
    queue: VecDeque<(Bytes, Option<Rc<Cipher>>)>,
    charge: u32,
}

impl Unsealed {
    /// What is charged for the messages, as if they were frames in the outbox already.
    pub(super) fn charge(&self) -> u32 {
        self.charge
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn push(&mut self, body: Bytes, cipher: Option<Rc<Cipher>>) {
        self.charge = self.charge.saturating_add(charge(body.len()) as u32);
        self.queue.push_back((body, cipher));
    }

    /// The next message as it goes to the socket, if the budget is not used up.
    fn next(&mut self, carrier: Carrier, left: &mut usize) -> Option<Frame> {
        if *left == 0 {
            return None;
        }
        let (body, cipher) = self.queue.pop_front()?;
        self.charge = self.charge.saturating_sub(charge(body.len()) as u32);
        *left = left.saturating_sub(body.len() + MESSAGE_COST);
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Some(Frame::new(carrier.binary(&&*body, cipher.as_deref())))
    }

    /// Gives everything up; returns how many messages and bytes that were.
    fn clear(&mut self) -> (u64, u64) {
        let queue = std::mem::take(self).queue;
        let bytes = queue.iter().map(|(body, _)| body.len() as u64).sum();
        (queue.len() as u64, bytes)
    }
}

impl Shard {
    /// Queues a message of this connection alone.
    pub(super) fn xxim_send(&mut self, slot: u32, body: &impl Body) {
        let carrier = self.carrier(slot);
        let Some(conn) = self.xxim(slot) else { return };
        let cipher = conn.client.cipher().cloned();
        if !conn.unsealed.is_empty() {
            // What was pushed before it goes first.
            let mut bytes = Vec::with_capacity(body.size());
            body.put(&mut bytes);
            conn.unsealed.push(Bytes::from(bytes), cipher);
            return self.touch(slot);
        }
        let message = carrier.binary(body, cipher.as_deref());
        self.push(slot, message);
    }

    /// A turn begins: so much may be encrypted in it, and keys whose time has come are decrypted.
    pub(in crate::shard) fn xxim_begin_turn(&mut self) {
        self.xxim.seal_left = XXIM_SEAL_BYTES_PER_TURN;
        if self.xxim.unwraps.waiting() > 0 {
            self.xxim_next_unwrap();
        }
    }

    /// Encrypts what a connection that is being flushed is to be sent, as far as the budget goes.
    /// Returns whether something is left.
    pub(in crate::shard) fn xxim_seal(&mut self, slot: u32) -> bool {
        let mut left = std::mem::take(&mut self.xxim.seal_left);
        let unsealed = self.seal(slot, &mut left);
        self.xxim.seal_left = left;
        unsealed
    }

    /// Encrypts everything that waits, because something else must come after it.
    pub(in crate::shard) fn xxim_seal_all(&mut self, slot: u32) {
        self.seal(slot, &mut usize::MAX.clone());
    }

    fn seal(&mut self, slot: u32, left: &mut usize) -> bool {
        let conn = &mut self.engine.conns[slot];
        let Role::Xxim(own) = &mut conn.role else { return false };
        if own.unsealed.is_empty() {
            return false;
        }
        let carrier = match conn.flags.has(Flags::WEBSOCKET) {
            true => Carrier::WebSocket,
            false => Carrier::Tcp,
        };
        while let Some(frame) = own.unsealed.next(carrier, left) {
            conn.outbox.push(frame);
        }
        !own.unsealed.is_empty()
    }

    /// The outbox of a connection is given up; so is this. Returns messages and bytes.
    pub(in crate::shard) fn xxim_give_up(&mut self, slot: u32) -> (u64, u64) {
        self.xxim(slot).map(|conn| conn.unsealed.clear()).unwrap_or_default()
    }
}
