//! What shards say to the mesh: the thread that knows the other nodes.
//!
//! One channel, in order: when a shard says that a bucket has members and then answers a question,
//! the other nodes learn it in this order too. The channel has no bound of its own; commands take
//! room in [`crate::hub::mesh::Interest`] first, and everything else is bounded by what it answers
//! or by the number of buckets.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::hub::mesh::Turn;
use crate::hub::push::Command;
use crate::shard::mailbox::Reply;

/// Which other nodes are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The one of this number.
    Node(u16),
    /// Every one that may have somebody whom the command reaches.
    Members,
}

/// One message of a shard to the mesh.
#[derive(Debug)]
pub enum MeshRequest {
    /// Buckets in which this shard got its first name or lost its last one.
    Turned { shard: u8, turns: Vec<Turn> },
    /// Carry this out on other nodes. `room` was reserved for it. With `reply`, what it came to is
    /// answered by [`super::Mail::Replied`] to this shard under this number, in any case.
    Command { reach: Reach, command: Arc<Command>, reply: Option<(u8, u64)>, room: usize },
    /// What a shard has to say to [`super::ReplyTo::Mesh`].
    Replied { number: u64, reply: Reply },
    /// The process ends.
    Stop,
}

/// The way to the mesh; one clone per thread.
#[derive(Clone, Debug)]
pub struct MeshSender(mpsc::UnboundedSender<MeshRequest>);

impl MeshSender {
    /// The channel.
    pub fn new() -> (MeshSender, mpsc::UnboundedReceiver<MeshRequest>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (MeshSender(sender), receiver)
    }

    /// Hands a message over. A mesh that has ended swallows it: the process ends.
    pub fn send(&self, request: MeshRequest) {
        let _ = self.0.send(request);
    }
}
