//! What the shard asks of a protocol: its hooks.
//!
//! A hook is called when something happens to a connection of one of the protocol's kinds. It is
//! given the engine and calls its verbs; what it wants of anybody else goes on the list of wants.
//! Only what a protocol does otherwise than most has to be said.

use std::net::SocketAddr;

use crate::config::model::ClientProtocol;
use crate::engine::Engine;
use crate::engine::look::Notes;
use crate::hub::Departed;
use crate::hub::login::Verdict;
use crate::hub::push::CloseReason;
use crate::lists::letters::SidecarRequest;
use crate::metrics::Gauges;
use crate::spare::Look;
use crate::wire::websocket::Opcode;

/// A request for a WebSocket that was accepted, and what of it a business process gets to know
/// (netsvr section 2.3). Bytes that are not UTF-8 are replaced by U+FFFD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    pub protocol: ClientProtocol,
    /// Whether permessage-deflate was agreed on.
    pub deflate: bool,
    /// The 101 as it goes to the socket.
    pub response: Vec<u8>,
    /// The path of the request.
    pub path: String,
    /// The query string without `?`, not decoded.
    pub raw_query: String,
    /// Every header line, name as it came. Empty for protocols that have no use for them.
    pub headers: Vec<(String, String)>,
    /// All offered sub-protocols, as business processes are told.
    pub sub_protocols: Vec<String>,
    /// The first `X-Forwarded-For` line as it came, or nothing (netsvr section 2.3).
    pub x_forwarded_for: String,
    /// The first `X-Real-IP` line, or nothing.
    pub x_real_ip: String,
}

/// See the module.
pub trait Tenant {
    /// A connection was accepted by a listener that speaks the protocol without a WebSocket; its
    /// TLS handshake may not be over.
    fn accepted(&mut self, _engine: &mut Engine, _slot: u32, _peer: SocketAddr) {}

    /// A WebSocket connection was upgraded on a route of the protocol; the answer is queued.
    fn upgraded(&mut self, _: &mut Engine, _slot: u32, _peer: SocketAddr, _upgrade: Upgrade) {}

    /// A connection without a WebSocket can be spoken to: it was accepted, or its TLS handshake is
    /// over.
    fn opened(&mut self, _engine: &mut Engine, _slot: u32) {}

    /// Whether the next WebSocket frame can be handled; if not, the connection is blocked.
    fn ready(&mut self, engine: &mut Engine, slot: u32) -> bool {
        !engine.outbox_blocks(slot)
    }

    /// One WebSocket message.
    fn message(&mut self, _engine: &mut Engine, _slot: u32, _opcode: Opcode, _data: &[u8]) {}

    /// Handles the next frame of a bare stream. False: there is none, or the connection must wait.
    /// A protocol that is spoken without a WebSocket has to say how.
    fn next(&mut self, _engine: &mut Engine, _slot: u32, _input: &mut &[u8]) -> bool {
        debug_assert!(false, "no bare stream");
        false
    }

    /// A verifier has decided about the login of this number.
    fn verified(&mut self, _: &mut Engine, _slot: u32, _number: u32, _verdict: Verdict) {}

    /// The end of a client has begun: it has left the hub, with what it had there. A protocol whose
    /// clients join the hub has to say what becomes of them.
    fn left(&mut self, _engine: &mut Engine, _slot: u32, _departed: &Departed) {
        debug_assert!(false, "no client joins the hub");
    }

    /// The connection is gone, or nothing more can be written to a backend: what was kept of it is
    /// taken away.
    fn gone(&mut self, engine: &mut Engine, slot: u32);

    /// What was sent to a connection that waits is written.
    fn written(&mut self, _engine: &mut Engine, _slot: u32) {}

    /// A client that waited for a worker has room.
    fn worker_room(&mut self, engine: &mut Engine, slot: u32) {
        engine.read_on(slot);
    }

    /// The queue that a message of this client found full has room again.
    fn queue_room(&mut self, _engine: &mut Engine, _slot: u32) {}

    /// What the protocol wanted is due ([`Engine::set_due`]).
    fn due(&mut self, engine: &mut Engine, slot: u32) {
        engine.set_due(slot, u64::MAX);
    }

    /// The peer has been silent for too long.
    fn silent(&mut self, engine: &mut Engine, slot: u32) {
        engine.too_silent(slot);
    }

    /// A backend does not want the client any more.
    fn kicked(&mut self, engine: &mut Engine, slot: u32, reason: CloseReason) {
        engine.close(slot, reason);
    }

    /// The goodbye waits no longer for the answers that are missing.
    fn give_up(&mut self, _engine: &mut Engine, _slot: u32) {}

    /// The gateway ends. False: the connection is closed like any other.
    fn drain(&mut self, _engine: &mut Engine, _slot: u32) -> bool {
        false
    }

    /// A turn has begun, and what was due has been seen to.
    fn turn_begins(&mut self, _engine: &mut Engine) {}

    /// A turn ends; what is queued now goes out in it.
    fn turn_ends(&mut self, _engine: &mut Engine) {}

    /// Whether there is something to do in another turn without any input.
    fn is_busy(&self, _engine: &Engine) -> bool {
        false
    }

    /// When the next turn must come at the latest, milliseconds of the process clock.
    fn next_ms(&self, _engine: &Engine) -> Option<u64> {
        None
    }

    /// Tells operators what the protocol knows of a connection. No secrets.
    fn describe(&self, _engine: &Engine, _slot: u32, _notes: &mut Notes) {}

    /// Adds what is the protocol's own to the gauges of this moment.
    fn report(&self, _gauges: &mut Gauges) {}

    /// Whether nothing is under way that a drain waits for.
    fn is_idle(&self) -> bool {
        true
    }

    /// The next request for the sidecar, if its turn has come.
    fn next_request(&mut self, _engine: &mut Engine) -> Option<SidecarRequest> {
        None
    }

    /// Whether nothing is kept of any connection; for tests.
    fn has_nobody(&self) -> bool;

    /// Gives back what a peak took.
    fn give_back(&mut self, _look: &mut Look) {}
}
