//! What shards say to the mesh: the thread that knows the other nodes.
//!
//! One channel, in order: when a shard says that a bucket has members and then answers a question,
//! the other nodes learn it in this order too. The channel has no bound of its own; commands take
//! room in [`crate::hub::mesh::Interest`] first, and everything else is bounded by what it answers
//! or by the number of buckets.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::hub::ConnId;
use crate::hub::mesh::Turn;
use crate::hub::push::Command;
use crate::hub::queries::Query;
use crate::lists::letters::Reply;

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
    /// Ask this of another node, or of all. What they have is answered by [`super::Mail::Replied`]
    /// to this shard under this number, in any case.
    Ask { to: Option<u16>, query: Arc<Query>, reply: (u8, u64) },
    /// What a shard has to say to [`super::ReplyTo::Mesh`].
    Replied { number: u64, reply: Reply },
    /// A connection of this node has logged in as this user, platform and device (xxim); the
    /// connection of another node that has this login and is older is to be closed. `at_ms`: when
    /// the connection was accepted, Unix milliseconds.
    Claim { login: [Box<str>; 3], conn: ConnId, at_ms: u64 },
    /// Another node has a newer connection of this login than this connection of this node.
    Displaced { login: [Box<str>; 3], conn: ConnId },
    /// Some of the xxim logins of a shard, each with the Unix milliseconds at which its connection
    /// was accepted, and the slot at which to go on, if there are more.
    Logins { logins: Vec<([Box<str>; 3], ConnId, u64)>, next: Option<u32> },
    /// Let the sidecars of all other nodes answer this. Gives the answers that came in time.
    Call { method: &'static str, body: Bytes, answer: oneshot::Sender<Vec<Bytes>> },
    /// The answer to a [`MeshCall`].
    Called { node: u16, number: u64, body: Bytes },
    /// The process ends.
    Stop,
}

/// A call of another node, for the sidecar; answered by [`MeshRequest::Called`].
#[derive(Debug)]
pub struct MeshCall {
    pub node: u16,
    pub number: u64,
    pub method: String,
    pub body: Bytes,
}
