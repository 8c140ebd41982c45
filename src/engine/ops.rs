//! The contract between the state machine of a core ([`Machine`]) and what drives it: the socket
//! ring in production ([`crate::engine::driver`]), a seeded simulation in tests ([`crate::sim`]).
//!
//! One turn: `begin_turn(now)`, then any number of inputs (`accepted`, `received`, `ended`,
//! `broken`, `stalled`, `sent`, `closed`, `mail`), then `end_turn()`. After it the driver carries
//! out everything in `Engine::ops`, and hands over `Engine::mail` and what `next_outgoing` gives.
//!
//! Rules that both drivers keep and the machine relies on:
//! * After `Op::Send` the whole batch is written before the next input of that connection, unless
//!   the driver answers `stalled` first; then nothing more is sent on it until `sent`.
//! * After `Op::Pause` input that was already on its way may still arrive; the machine keeps it.
//! * After `Op::Close` nothing arrives for the slot but exactly one `closed`. Only then is the slot
//!   free for another connection.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;

use crate::engine::{Engine, Now};
use crate::lists::letters::{Mail, Outgoing};
use crate::metrics::{Counters, Gauges};

/// One core as a state machine: inputs in, operations out, time as an argument.
pub trait Machine {
    /// Where its operations, its mail and its connections are.
    fn engine(&mut self) -> &mut Engine;
    /// Starts a turn: the clock moves and what is due happens.
    fn begin_turn(&mut self, now: Now);
    /// A peer has connected. Returns the slot for its socket; with `None` the driver closes it.
    fn accepted(&mut self, listener: usize, peer: SocketAddr) -> Option<u32>;
    /// Bytes arrived. They may be changed in place (unmasked, decrypted).
    fn received(&mut self, slot: u32, data: &mut [u8]);
    /// The peer has ended its side: see [`Engine::ended`].
    fn ended(&mut self, slot: u32);
    /// The connection is broken: see [`Engine::broken`].
    fn broken(&mut self, slot: u32);
    /// A send has stalled after so many bytes: see [`Engine::stalled`].
    fn stalled(&mut self, slot: u32, written: usize);
    /// A stalled send is over, or failed after so many bytes: see [`Engine::sent`].
    fn sent(&mut self, slot: u32, result: Result<(), usize>);
    /// The socket of a slot is closed: see [`Engine::closed`].
    fn closed(&mut self, slot: u32) {
        self.engine().closed(slot);
    }
    /// A message from another thread.
    fn mail(&mut self, mail: Mail);
    /// Ends a turn: room that has come up is used, and everything queued becomes operations.
    fn end_turn(&mut self);
    /// What is to be said next to a thread that is no shard; to the sidecar only if it has room.
    fn next_outgoing(&mut self, sidecar: bool) -> Option<Outgoing>;
    /// Whether there is something to do in another turn without any input.
    fn busy(&self) -> bool;
    /// When the next turn must come at the latest, in milliseconds of the process clock.
    fn next_ms(&self) -> Option<u64>;
    /// Whether draining is over: no client is left and every event has been written to its worker.
    fn drained(&self) -> bool;
    /// The counters, and the gauges of this moment, for who publishes them.
    fn report(&self) -> (Counters, Gauges);
}

/// Encoded bytes for a socket, shared by all connections of a shard that get them. The count is not
/// atomic: a frame never leaves its shard; other shards get the `Bytes`.
#[derive(Clone, Debug)]
pub struct Frame(Rc<Bytes>);

impl Frame {
    /// Takes the bytes as they go to the socket.
    pub fn new(bytes: Bytes) -> Frame {
        Frame(Rc::new(bytes))
    }

    /// The bytes, for who keeps them otherwise.
    pub fn bytes(&self) -> Bytes {
        Bytes::clone(&self.0)
    }

    /// Whether both are the same frame, not only the same bytes.
    pub fn is(&self, other: &Frame) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Whether somebody else has this frame too.
    pub fn is_shared(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }
}

impl std::ops::Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// What one send carries. The driver keeps it until the kernel is done with it.
#[derive(Debug)]
pub enum Batch {
    /// One frame, usually shared with other connections; or several small ones that were joined for
    /// all connections which get the same.
    One(Frame),
    /// Several large frames, written in order with one gathering send.
    Many(Vec<Frame>),
    /// Bytes of this connection alone: several small frames in one, or TLS records.
    Own(Vec<u8>),
}

impl Batch {
    /// Bytes in all.
    pub fn len(&self) -> usize {
        match self {
            Batch::One(frame) => frame.len(),
            Batch::Many(frames) => frames.iter().map(|f| f.len()).sum(),
            Batch::Own(bytes) => bytes.len(),
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a machine asks of its driver.
#[derive(Debug)]
pub enum Op {
    /// Write the batch to the socket in slot.
    Send { slot: u32, batch: Batch },
    /// Stop receiving from the socket, so that TCP holds the peer back.
    Pause { slot: u32 },
    /// Receive again.
    Resume { slot: u32 },
    /// Tell the peer that nothing more follows (FIN), after what is being sent.
    Shutdown { slot: u32 },
    /// Close the socket. Sends still under way are given up.
    Close { slot: u32 },
    /// Take no more connections on this listener; what waits in its backlog is reset.
    Unlisten { listener: usize },
}
