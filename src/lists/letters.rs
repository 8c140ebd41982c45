//! The letters: what other threads say to a shard (other shards, the sidecar, the main thread), and
//! what shards say to other threads. Those of one protocol are in its folder; here they are named.
//! The channels are in [`crate::mail`].

mod mesh;
mod queues;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::engine::drain::Order;
use crate::engine::links::WorkerInfo;
use crate::engine::look;
use crate::hub::ConnId;
use crate::hub::login::{self, Login};
use crate::hub::mesh::{Lent, Nodes};
use crate::hub::push::{Command, Outcome, RoomMessage};
use crate::hub::queries::{Answer, Query};
use crate::hub::walk::Cursor;
use crate::protocols::connmix::letters as connmix;
use crate::protocols::im::letters as im;
use crate::protocols::netsvr::letters as netsvr;
use crate::protocols::xxim::letters as xxim;
use crate::wire::tls::ServerConfig;

pub use crate::engine::queues::QueueMail;
pub use mesh::{MeshCall, MeshRequest, Reach};
pub use queues::QueueRequest;

/// One message to a shard. Those that concern a protocol alone are enums of their own.
#[derive(Debug)]
pub enum Mail {
    /// Do this to your connections. From the shard of the backend connection that asked.
    Command(Arc<Command>),
    /// The same. From another node.
    Abroad(Arc<Command>),
    /// Do this to your connections; the command concerns this shard alone.
    Part(Command),
    /// Answer this about your connections, from there on.
    Ask {
        query: Arc<Query>,
        from: Cursor,
        reply: ReplyTo,
    },
    /// Do this to your connections and say what came of it.
    Tell {
        command: Arc<Command>,
        reply: ReplyTo,
    },
    /// Answer this question of an operator from a place on, with so many rows at the most.
    Look {
        question: Arc<look::Question>,
        from: u32,
        max: usize,
        reply: oneshot::Sender<look::Piece>,
    },
    /// Do this to your connections, for an operator, and say what came of it.
    Order {
        command: Arc<Command>,
        reply: mpsc::UnboundedSender<Outcome>,
    },
    /// The answer of one shard.
    Replied {
        number: u64,
        reply: Reply,
    },
    /// An event of a client on shard `from`, encoded, for a worker connection of this shard.
    Event {
        from: u8,
        worker: ConnId,
        frame: Bytes,
    },
    /// So many events that this shard gave to `worker` have been written to its socket.
    EventsWritten {
        worker: ConnId,
        count: u32,
    },
    /// A worker registered.
    WorkerAdded(Arc<WorkerInfo>),
    /// A worker is gone; of this shard's events `written` more than acknowledged reached its
    /// socket.
    WorkerGone {
        worker: ConnId,
        written: u32,
    },
    /// What became of [`SidecarRequest::Verify`].
    Verified {
        conn: ConnId,
        number: u32,
        verdict: login::Verdict,
    },
    /// A message of another node for a room whose home this shard is here.
    Room(Arc<RoomMessage>),
    /// The other nodes of the mesh have changed.
    Nodes(Arc<Nodes>),
    /// About queues of connmix.
    Queue(QueueMail),
    Netsvr(netsvr::Letter),
    Xxim(xxim::Letter),
    Connmix(connmix::Letter),
    Im(im::Letter),
    /// New certificates for a listener.
    Certificates {
        listener: usize,
        config: Arc<ServerConfig>,
    },
    /// Say goodbye to clients, and deliver their events; if it is the end, accept no more.
    Drain(Box<Order>),
    /// Do so at once with those whose turn has not come.
    Hurry,
    /// Do not, as far as their turn has not come.
    Stay,
    /// Close everything that is left and end the thread.
    Stop,
}

/// Who gets a [`Reply`].
#[derive(Clone, Debug)]
pub enum ReplyTo {
    /// A shard, which knows the question by its number.
    Shard { shard: u8, number: u64 },
    /// The mesh, which knows the question by its number, for another node.
    Mesh { number: u64 },
}

/// One shard's part of an answer.
#[derive(Debug)]
pub enum Reply {
    /// To [`Mail::Ask`]: a piece, and where the next one begins. A shard gets that when it asks
    /// again; the mesh gets all, one after the other.
    Answer(Answer, Option<Cursor>),
    /// To [`Mail::Tell`].
    Outcome(Outcome),
    /// To [`MeshRequest::Ask`]: what each of the nodes has that answered, and the room it takes.
    Elsewhere(Vec<(u16, Answer)>, Lent),
}

/// What a shard has to say to a thread that is none.
#[derive(Debug)]
pub enum Outgoing {
    Mesh(MeshRequest),
    /// To the thread that speaks with JetStream.
    Queues(QueueRequest),
    Sidecar(SidecarRequest),
}

/// What a shard asks of the sidecar. The answer comes as [`Mail`]. Those that concern a protocol
/// alone are enums of their own.
#[derive(Debug)]
pub enum SidecarRequest {
    /// Is this client who it says? Answered by [`Mail::Verified`] with the same number.
    Verify {
        conn: ConnId,
        number: u32,
        login: Box<Login>,
    },
    Netsvr(netsvr::ServiceRequest),
    Xxim(xxim::ServiceRequest),
    Connmix(connmix::ServiceRequest),
    /// End the thread.
    Stop,
}
