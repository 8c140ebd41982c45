//! The letters: what other threads say to a shard (other shards, the sidecar, the main thread), and
//! what shards say to other threads. The channels are in [`crate::mail`].

mod mesh;
mod queues;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::engine::links::WorkerInfo;
use crate::hub::ConnId;
use crate::hub::login::{self, Login, Permission};
use crate::hub::mesh::{Lent, Nodes};
use crate::hub::push::{Command, Outcome, RoomMessage};
use crate::hub::queries::{Answer, Query};
use crate::hub::walk::Cursor;
use crate::metrics::Rates;
use crate::protocols::netsvr::large::{Job, Made};
use crate::protocols::xxim::rules::Triple;
use crate::protocols::xxim::wire::Identity;
use crate::protocols::xxim::wire::cipher::Seeds;
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
    /// What became of [`Request::Verify`].
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
    Netsvr(NetsvrLetter),
    Xxim(XximLetter),
    Connmix(ConnmixLetter),
    Im(ImLetter),
    /// New certificates for a listener.
    Certificates {
        listener: usize,
        config: Arc<ServerConfig>,
    },
    /// Stop accepting, close clients with 1001, deliver their events.
    Drain,
    /// Close everything that is left and end the thread.
    Stop,
}

/// A letter to netsvr.
#[derive(Debug)]
pub enum NetsvrLetter {
    /// What became of [`Request::Make`].
    Made { number: u64, made: Made },
    /// What this shard counted, for the `Metrics` command.
    AskRates { from: u8, number: u64 },
    /// The answer to it.
    Rates { number: u64, rates: Box<Rates> },
    /// A worker unregistered: give it nothing more, then tell its shard so.
    WorkerLeaving { worker: ConnId },
    /// Answer to `WorkerLeaving`: one more shard gives it nothing any more.
    WorkerLeft { worker: ConnId },
    /// A backend connection of shard `from` asks for this worker to be unregistered.
    Unregister { from: u8, number: u64, worker: ConnId },
    /// The answer to it, when the last event before it has been written.
    Unregistered { number: u64 },
    /// What the HTTP callback at open said; `None`: it failed.
    Opened { conn: ConnId, verdict: Option<Box<crate::protocols::netsvr::wire::Verdict>> },
    /// The HTTP callback at close is over, whatever it said.
    ClosedCallback { number: u64 },
}

/// A letter to xxim.
#[derive(Debug)]
pub enum XximLetter {
    /// The result of [`Request::Upstream`]. Every call gets exactly one;
    /// one that comes for a connection or number that is gone is ignored.
    UpstreamAnswered { conn: ConnId, number: u32, result: UpstreamResult },
    /// The answer to [`Request::Unwrap`]. `None`: a ciphertext is not one (xxim section 9.3).
    Unwrapped { conn: ConnId, number: u32, seeds: Option<Box<Seeds>> },
    /// A push, question or kick of an xxim backend (xxim section 6). Every shard gets it and
    /// tells its part through `reply`.
    Push { work: Arc<XximPush>, reply: mpsc::UnboundedSender<XximPushed> },
    /// Tell the mesh which xxim logins there are from this slot on; answered by
    /// [`MeshRequest::Logins`].
    Logins { from: u32 },
    /// The answer to [`Request::Check`] with this number.
    Checked { conn: ConnId, number: u32, permission: Permission },
    /// A connection of another shard wants to hold a triple that is at home here; `order` is its
    /// place in the order of accepting.
    Claim { triple: Triple, conn: ConnId, order: u64 },
    /// Whether it holds it now; if not, a connection that was accepted later does.
    Claimed { triple: Triple, conn: ConnId, held: bool },
    /// Another connection holds the triple of this one now.
    Displaced { triple: Triple, conn: ConnId },
    /// A connection gives up a triple that is at home here.
    Release { triple: Triple, conn: ConnId },
}

/// A letter to connmix or its API.
#[derive(Debug)]
pub enum ConnmixLetter {
    /// What became of [`Request::HttpCall`]: the body of a good answer.
    HttpCalled { conn: ConnId, answer: Option<Bytes> },
    /// The metrics as text, for [`Request::Metrics`] of this number.
    Rendered { number: u64, text: String },
}

/// A letter to IM.
#[derive(Debug)]
pub enum ImLetter {
    /// A message for a room whose home this shard is.
    Chat(Box<Chat>),
}

/// A message on its way to the home shard of its room; it lacks only the time.
#[derive(Debug)]
pub struct Chat {
    pub topic: Box<str>,
    pub message: crate::protocols::im::wire::proto::CrMessage,
    /// The connection that gets no copy.
    pub sender: Option<ConnId>,
    /// Members that speak other protocols have it already.
    pub wrapped: bool,
}

impl Mail {
    /// The answer to [`Request::Make`]; calls `beat` now and then while it takes its time.
    pub fn made(job: Job, beat: impl FnMut()) -> Mail {
        Mail::Netsvr(NetsvrLetter::Made { number: job.number, made: job.make(beat) })
    }
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

/// A request that a connmix rule makes.
#[derive(Debug)]
pub struct HttpCall {
    pub method: Box<str>,
    pub url: String,
    pub body: Bytes,
    pub content_type: Box<str>,
    /// For everything from the name lookup to the last byte of the answer.
    pub timeout: std::time::Duration,
    /// Longest answer that is read; 0: none is.
    pub answer_bytes_max: usize,
}

/// What a shard has to say to a thread that is none.
#[derive(Debug)]
pub enum Outgoing {
    Mesh(MeshRequest),
    /// To the thread that speaks with JetStream.
    Queues(QueueRequest),
    Sidecar(Request),
}

/// What a shard asks of the sidecar. The answer comes as [`Mail`].
#[derive(Debug)]
pub enum Request {
    /// May this connection be opened? (netsvr section 7.1) Answered by [`NetsvrLetter::Opened`].
    OnOpen { conn: ConnId, body: Bytes },
    /// A connection was closed (netsvr section 7.2). Answered by [`NetsvrLetter::ClosedCallback`].
    OnClose { shard: u8, number: u64, body: Bytes },
    /// Is this client who it says? Answered by [`Mail::Verified`] with the same number.
    Verify { conn: ConnId, number: u32, login: Box<Login> },
    /// May this client call this method (xxim section 4.1, step 6)? Answered by
    /// [`XximLetter::Checked`] with the same number.
    Check { conn: ConnId, number: u32, identity: Arc<Identity>, method: Box<str> },
    /// Carry a request of an xxim client to its upstream (xxim section 4). Answered by
    /// [`XximLetter::UpstreamAnswered`]; the shard keeps at most `xxim.requests_max` of them per
    /// connection.
    Upstream { conn: ConnId, number: u32, call: Box<UpstreamCall> },
    /// The connection is gone: give up its calls, except those of routes with `detach`. All of them
    /// are answered nevertheless.
    CancelUpstream { conn: ConnId },
    /// Decrypt the seeds of a client (xxim section 3.1) away from the shards. `None`: the client
    /// sent no such ciphertext. Answered by [`XximLetter::Unwrapped`].
    Unwrap { conn: ConnId, number: u32, key: Option<Bytes>, iv: Option<Bytes> },
    /// Tell a backend that an xxim client has come or gone; no answer (xxim section 5.2, step 6).
    /// What is told of one connection is told in order.
    Hook { conn: ConnId, kind: HookKind, body: Bytes },
    /// Put a large answer together. Answered by [`NetsvrLetter::Made`]. A shard has one at a time.
    Make(Box<Job>),
    /// The metrics as text. Answered by [`ConnmixLetter::Rendered`].
    Metrics { shard: u8, number: u64 },
    /// Make this request for a connmix rule. Answered by [`ConnmixLetter::HttpCalled`].
    HttpCall { conn: ConnId, call: Box<HttpCall> },
    /// End the thread.
    Stop,
}

/// One request of an xxim client, ready for its upstream.
#[derive(Debug)]
pub struct UpstreamCall {
    /// Path-like name; known to match xxim section 4.4 (`^/v[0-9]+(/[A-Za-z0-9_]+){1,6}$`, at
    /// most 128 bytes).
    pub method: Box<str>,
    /// Index into the routes of the configuration.
    pub route: u16,
    /// Of routes with a request tag: the client's bytes without any commonReq of theirs, with the
    /// gateway's appended (xxim section 4.3). Of others, `envelope` included: the client's bytes.
    pub body: Bytes,
    /// Who asks, as it was when the request came.
    pub identity: Arc<Identity>,
    /// The client's reqId, as it goes into `X-Xxim-Req-Id`.
    pub req_id: Bytes,
}

/// What a ResponseBody carries (xxim sections 4.4 and 4.5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamResult {
    /// 0: success.
    pub code: i32,
    /// Code 0: the response message; else a CommonResp.
    pub data: Bytes,
}

/// What an xxim hook tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// The body is an AfterConnectReq.
    AfterConnect,
    /// The body is an AfterDisconnectReq.
    AfterDisconnect,
}

/// Which logged-in xxim connections are meant: of each list that is not empty the connection's
/// value must be in it (xxim section 6.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XximFilter {
    pub users: Vec<Box<str>>,
    pub platforms: Vec<Box<str>>,
    pub devices: Vec<Box<str>>,
}

/// What an xxim backend asks for; checked by the sidecar against xxim section 6.
#[derive(Debug)]
pub enum XximPush {
    /// Send `PushBody { event, data }`.
    Send { filter: XximFilter, event: i32, data: Bytes },
    /// Name the connections.
    Get { filter: XximFilter },
    /// Close the connections with 1001 `kick`.
    Kick { filter: XximFilter },
}

/// What one shard has to say to an [`XximPush`]: each connection that it meant. Users of the filter
/// without any connection are for the asker to find, who knows the answers of all shards.
#[derive(Debug, Default)]
pub struct XximPushed {
    /// Queued for, named, or about to be closed.
    pub success: Vec<XximConn>,
    /// Could not be queued: the connection does not read, or is closing.
    pub failed: Vec<XximConn>,
}

/// One connection in an answer.
#[derive(Clone, Debug)]
pub struct XximConn {
    pub conn: ConnId,
    pub identity: Arc<Identity>,
}
