//! What the engine and the protocols want of the shard: one list, first in, first out.
//!
//! A verb of the engine calls nobody. What only a protocol can finish it puts here, and the shard
//! empties the list after every call of a protocol and before the next message of any connection.
//! Who may read on waits in a list of its own: it is served when nothing else is being read.

use std::collections::VecDeque;

use crate::engine::queues::QueueMail;
use crate::hub::push::{Command, Outcome};
use crate::hub::{ConnId, Departed};

/// One entry.
#[derive(Debug)]
pub enum Want {
    /// The end of a client has begun: it has left the hub, with what it had there.
    Left { slot: u32, departed: Box<Departed> },
    /// Nothing more can be written to a backend, which is only waited for.
    Shut { slot: u32 },
    /// The connection is gone; its socket is being closed.
    Gone { slot: u32 },
    /// What was sent is written, and the connection waits for something.
    Written { slot: u32 },
    /// The queue that a message of this client found full has room again.
    QueueRoom { client: ConnId },
    /// A letter about queues for this shard.
    Queue(QueueMail),
    /// A rule of connmix goes on behind what it has published.
    CarryOn,
    /// Carry this out on every shard that it concerns.
    Command(Command),
    /// The same on every node.
    Wide(Command),
    /// What a command came to on some shards or nodes ([`Tells`]).
    ///
    /// [`Tells`]: crate::engine::tells::Tells
    Outcome { number: u64, part: Outcome },
}

/// The lists.
#[derive(Debug, Default)]
pub struct Wants {
    list: VecDeque<Want>,
    /// Connections that may read on.
    readers: VecDeque<ConnId>,
}

impl Wants {
    /// Puts an entry at the end.
    pub fn push(&mut self, want: Want) {
        self.list.push_back(want);
    }

    /// Takes the first entry.
    pub fn pop(&mut self) -> Option<Want> {
        self.list.pop_front()
    }

    /// A connection may read on, behind those that may already.
    pub fn read_on(&mut self, conn: ConnId) {
        self.readers.push_back(conn);
    }

    /// The next connection that may read on.
    pub fn reader(&mut self) -> Option<ConnId> {
        self.readers.pop_front()
    }

    /// Whether connections that may read on wait for their turn.
    pub fn has_readers(&self) -> bool {
        !self.readers.is_empty()
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut crate::spare::Look) {
        look.at(&mut self.list);
        look.at(&mut self.readers);
    }
}
