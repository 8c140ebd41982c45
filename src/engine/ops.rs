//! The contract between a shard (the state machine) and what drives it: the socket ring in
//! production ([`crate::shard::driver`]), a seeded simulation in tests ([`crate::sim`]).
//!
//! One turn: `begin_turn(now)`, then any number of inputs (`accepted`, `received`, `ended`,
//! `stalled`, `sent`, `closed`, `mail`), then `end_turn()`, after which the driver carries out
//! everything in `ops` and hands over the outgoing mail.
//!
//! Rules that both drivers keep and the shard relies on:
//! * After `Op::Send` the whole batch is written before the next input of that connection, unless
//!   the driver answers `stalled` first; then the shard sends nothing more on it until `sent`.
//! * After `Op::Pause` input that was already on its way may still arrive; the shard keeps it.
//! * After `Op::Close` nothing arrives for the slot but exactly one `closed`. Only then is the slot
//!   free for another connection.

use std::rc::Rc;

use bytes::Bytes;

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

/// What a shard asks of its driver.
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
