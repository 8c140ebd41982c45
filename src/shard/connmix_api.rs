//! connmix backends connected to this shard (connmix specification sections 1 to 5).

use std::net::SocketAddr;

use crate::hub::push::Outcome;
use crate::shard::Shard;
use crate::shard::closing::SHUTDOWN;

/// What the shard keeps of one connection.
#[derive(Debug)]
pub struct Conn {
    /// Address of the peer.
    pub peer: SocketAddr,
}

impl Conn {
    /// A connection that was just accepted.
    pub fn new(peer: SocketAddr) -> Conn {
        Conn { peer }
    }
}

impl Shard {
    /// Bytes of a connection without WebSocket.
    pub(super) fn connmix_api_bytes(&mut self, slot: u32, _data: &mut [u8]) {
        self.close(slot, SHUTDOWN);
    }

    /// When something is due on a connection that is not ending, milliseconds of the process clock.
    pub(super) fn connmix_api_deadline_ms(&self, slot: u32) -> u64 {
        self.conns[slot].active_ms + 60_000
    }

    /// That time has come.
    pub(super) fn connmix_api_timed_out(&mut self, slot: u32) {
        self.close(slot, SHUTDOWN);
    }

    /// The connection is gone.
    pub(super) fn connmix_api_departed(&mut self, slot: u32, _conn: Conn) {
        self.hub.remove(slot);
    }

    /// What a command of this connection came to.
    pub(super) fn connmix_api_told(&mut self, number: u64, _outcome: Outcome) {
        self.asks.forget(number);
    }
}
