//! Encryption of what xxim clients are sent (xxim section 3.3).
//!
//! What is for one connection alone is encrypted at once. A push to many costs a queue entry each,
//! and each connection encrypts its own when it is flushed ([`crate::engine::later`]). Invariants:
//! the order of a connection's messages is that in which they were queued; each is encrypted under
//! the keys of the moment at which it was queued. Costs: one allocation per message and connection.

use bytes::Bytes;

use crate::engine::Engine;
use crate::engine::later::Seal;
use crate::protocols::xxim::wire::cipher::Cipher;
use crate::protocols::xxim::wire::{Body, Carrier};

impl Seal for Cipher {
    fn seal(&self, message: &[u8], websocket: bool) -> Bytes {
        let carrier = if websocket { Carrier::WebSocket } else { Carrier::Tcp };
        carrier.binary(&message, Some(self))
    }
}

impl super::State {
    /// Queues a message of this connection alone.
    pub(crate) fn send(&mut self, engine: &mut Engine, slot: u32, body: &impl Body) {
        let carrier = self.carrier(engine, slot);
        let Some(own) = self.xxim(engine, slot) else { return };
        let cipher = own.client.cipher().cloned();
        if let Some(cipher) = cipher.clone().filter(|_| engine.conns[slot].is_sealing()) {
            // What was pushed before it goes first.
            let mut bytes = Vec::with_capacity(body.size());
            body.put(&mut bytes);
            engine.conns[slot].push_later(Bytes::from(bytes), Some(cipher));
            return engine.touch(slot);
        }
        let message = carrier.binary(body, cipher.as_deref());
        engine.push(slot, message);
    }

    /// A turn begins: keys whose time has come are decrypted.
    pub(crate) fn begin_turn(&mut self, engine: &mut Engine) {
        if self.unwraps.waiting() > 0 {
            self.next_unwrap(engine);
        }
    }
}
