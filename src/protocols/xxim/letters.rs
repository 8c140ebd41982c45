//! What threads tell shards about xxim, and what shards ask of its services.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::hub::ConnId;
use crate::hub::login::Permission;
use crate::protocols::xxim::rules::Triple;
use crate::protocols::xxim::wire::Identity;
use crate::protocols::xxim::wire::cipher::Seeds;

/// A letter to xxim.
#[derive(Debug)]
pub enum Letter {
    /// The result of [`ServiceRequest::Upstream`]. Every call gets exactly one;
    /// one that comes for a connection or number that is gone is ignored.
    UpstreamAnswered { conn: ConnId, number: u32, result: UpstreamResult },
    /// The answer to [`ServiceRequest::Unwrap`]. `None`: a ciphertext is not one (xxim section
    /// 9.3).
    Unwrapped { conn: ConnId, number: u32, seeds: Option<Box<Seeds>> },
    /// A push, question or kick of an xxim backend (xxim section 6). Every shard gets it and
    /// tells its part through `reply`.
    Push { work: Arc<PushRequest>, reply: mpsc::UnboundedSender<PushResult> },
    /// Tell the mesh which xxim logins there are from this slot on; answered by
    /// [`crate::lists::letters::MeshRequest::Logins`].
    Logins { from: u32 },
    /// The answer to [`ServiceRequest::Check`] with this number.
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

/// What a shard asks of the services of xxim. The answer comes as a [`Letter`].
#[derive(Debug)]
pub enum ServiceRequest {
    /// May this client call this method (xxim section 4.1, step 6)? Answered by
    /// [`Letter::Checked`] with the same number.
    Check { conn: ConnId, number: u32, identity: Arc<Identity>, method: Box<str> },
    /// Carry a request of an xxim client to its upstream (xxim section 4). Answered by
    /// [`Letter::UpstreamAnswered`]; the shard keeps at most `xxim.requests_max` of them per
    /// connection.
    Upstream { conn: ConnId, number: u32, call: Box<UpstreamCall> },
    /// The connection is gone: give up its calls, except those of routes with `detach`. All of them
    /// are answered nevertheless.
    CancelUpstream { conn: ConnId },
    /// Decrypt the seeds of a client (xxim section 3.1) away from the shards. `None`: the client
    /// sent no such ciphertext. Answered by [`Letter::Unwrapped`].
    Unwrap { conn: ConnId, number: u32, key: Option<Bytes>, iv: Option<Bytes> },
    /// Tell a backend that an xxim client has come or gone; no answer (xxim section 5.2, step 6).
    /// What is told of one connection is told in order.
    Hook { conn: ConnId, kind: HookKind, body: Bytes },
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
pub struct PushFilter {
    pub users: Vec<Box<str>>,
    pub platforms: Vec<Box<str>>,
    pub devices: Vec<Box<str>>,
}

/// What an xxim backend asks for; checked by the push service against xxim section 6.
#[derive(Debug)]
pub enum PushRequest {
    /// Send `PushBody { event, data }`.
    Send { filter: PushFilter, event: i32, data: Bytes },
    /// Name the connections.
    Get { filter: PushFilter },
    /// Close the connections with 1001 `kick`.
    Kick { filter: PushFilter },
}

/// What one shard has to say to a [`PushRequest`]: each connection that it meant. Users of the
/// filter without any connection are for the asker to find, who knows the answers of all shards.
#[derive(Debug, Default)]
pub struct PushResult {
    /// Queued for, named, or about to be closed.
    pub success: Vec<PushedConn>,
    /// Could not be queued: the connection does not read, or is closing.
    pub failed: Vec<PushedConn>,
}

/// One connection in an answer.
#[derive(Clone, Debug)]
pub struct PushedConn {
    pub conn: ConnId,
    pub identity: Arc<Identity>,
}
