//! connmix clients of this shard (connmix specification section 7).

use std::net::SocketAddr;

use crate::edge::upgrade::Opening as Upgrade;
use crate::hub::ConnId;
use crate::hub::context::{Context, ContextValue};
use crate::hub::push::{CloseReason, Payload};
use crate::hub::queues::PushError;
use crate::shard::Shard;
use crate::shard::closing::SHUTDOWN;
use crate::shard::conns::{Flags, Role};
use crate::shard::fan_out::{opcode_of, plain};
use crate::shard::ops::Frame;
use crate::wire::websocket::Opcode;

const PUSH_FAILED: CloseReason = CloseReason { code: 1013, text: "queue is full" };

/// What the shard keeps of one connection.
#[derive(Debug)]
pub struct Conn {
    /// Address of the peer.
    pub peer: SocketAddr,
    /// The worker that gets this client's events, if workers are picked sticky.
    pub worker: Option<ConnId>,
    pub context: Context,
}

impl Conn {
    /// A connection that was just accepted.
    pub fn new(peer: SocketAddr) -> Conn {
        Conn { peer, worker: None, context: Context::default() }
    }
}

/// The wire formats of one payload that clients of this protocol share.
#[derive(Default)]
pub struct Forms {
    frame: Option<Frame>,
}

impl Forms {
    /// The payload as this client gets it.
    pub fn frame(&mut self, _conn: &mut Conn, _flags: Flags, payload: &Payload) -> Option<Frame> {
        let opcode = opcode_of(payload.kind());
        Some(self.frame.get_or_insert_with(|| plain(payload, opcode)).clone())
    }
}

impl Shard {
    /// A WebSocket connection was upgraded; the answer is queued.
    pub(super) fn connmix_upgraded(&mut self, slot: u32, peer: SocketAddr, _upgrade: Upgrade) {
        self.conns[slot].role = Role::Connmix(Box::new(Conn::new(peer)));
        self.rearm(slot);
    }

    /// One WebSocket message.
    pub(super) fn connmix_message(&mut self, slot: u32, _opcode: Opcode, _data: &[u8]) {
        self.close(slot, SHUTDOWN);
    }

    /// Bytes that one WebSocket message may have.
    pub(super) fn connmix_message_bytes_max(&self) -> u32 {
        65_536
    }

    /// Whether the next message can be handled now; if not, the connection is blocked.
    pub(super) fn connmix_ready(&mut self, _slot: u32) -> bool {
        true
    }

    /// Bytes of a connection without WebSocket.
    pub(super) fn connmix_bytes(&mut self, slot: u32, _data: &mut [u8]) {
        self.close(slot, SHUTDOWN);
    }

    /// When something is due on a connection that is not ending, milliseconds of the process clock.
    pub(super) fn connmix_deadline_ms(&self, slot: u32) -> u64 {
        self.conns[slot].active_ms + 60_000
    }

    /// That time has come.
    pub(super) fn connmix_timed_out(&mut self, slot: u32) {
        self.close(slot, SHUTDOWN);
    }

    /// A message that this client pushed to a queue on another shard was refused. An IM client did
    /// not ask for that, and stays.
    pub(super) fn connmix_push_failed(&mut self, client: ConnId, _error: PushError) {
        if let Some(slot) = self.hub.slot_of(client)
            && !matches!(self.conns[slot].role, Role::Im(_))
        {
            self.close(slot, PUSH_FAILED);
        }
    }

    /// The queue that was full has room again.
    pub(super) fn connmix_push_room(&mut self, client: ConnId) {
        if let Some(slot) = self.hub.slot_of(client) {
            self.unblock(slot);
        }
    }

    /// Sets and deletes values of the client's context. False: it would become too large.
    pub(super) fn connmix_set_context(&mut self, slot: u32, values: &[ContextValue]) -> bool {
        match &mut self.conns[slot].role {
            Role::Connmix(conn) => conn.context.set(values).is_ok(),
            _ => false,
        }
    }

    /// The connection is gone.
    pub(super) fn connmix_departed(&mut self, slot: u32, _conn: Conn) {
        self.hub.remove(slot);
    }
}
