//! Encryption of what xxim clients are sent (xxim section 3.3).
//!
//! What is for one connection alone is encrypted at once. A push to many costs a queue entry each,
//! and each connection encrypts its own when it is flushed ([`crate::engine::later`]). Invariants:
//! the order of a connection's messages is that in which they were queued; each is encrypted under
//! the keys of the moment at which it was queued. Costs: one allocation per message and connection.

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::engine::Engine;
use crate::engine::later::Seal;
use crate::protocols::xxim::wire::cipher::Cipher;
use crate::protocols::xxim::wire::{Body, Carrier, proto};

impl Seal for Cipher {
    fn seal(&self, message: &[u8], websocket: bool) -> Bytes {
        let carrier = if websocket { Carrier::WebSocket } else { Carrier::Tcp };
        carrier.binary(&message, Some(self))
    }
}

impl super::Xxim {
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
}

/// The seed of an IV as the original makes it: 32 hex characters (section 3.7).
pub(super) fn server_seed() -> Zeroizing<Vec<u8>> {
    let mut random = Zeroizing::new([0; 16]);
    let provider = rustls::crypto::ring::default_provider();
    provider.secure_random.fill(&mut *random).expect("the kernel has random numbers");
    let hex = random.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
    Zeroizing::new(hex.map(digit).collect())
}

/// The push that tells it.
pub(super) fn after_connect(seed: &[u8]) -> Vec<u8> {
    let aes_iv = String::from_utf8_lossy(seed).into_owned();
    prost::Message::encode_to_vec(&proto::AfterConnectBody { aes_iv })
}
