//! Messages from other threads to a shard: other shards, the sidecar, the main thread.
//!
//! A mailbox is a bounded channel and the eventfd that its shard waits for. A sender wakes the
//! shard only if it rests: the shard says that it will, looks into the mailbox once more and only
//! then waits, so no message is left lying. Costs: no system call while the receiver is busy, one
//! `write` to wake it.
//! When a mailbox is full the message comes back to the sender, which keeps it and stops reading
//! its own sockets until there is room.

mod mesh;
mod queues;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Instant;

use bytes::Bytes;
use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TrySendError};
use tokio::sync::mpsc;

use crate::control::large::{Job, Made};
use crate::edge::xxim::Triple;
use crate::hub::ConnId;
use crate::hub::login::{self, Login, Permission};
use crate::hub::mesh::{Lent, Nodes};
use crate::hub::push::{Command, Outcome, RoomMessage};
use crate::hub::queries::{Answer, Query};
use crate::hub::walk::Cursor;
use crate::life::Gone;
use crate::metrics::Rates;
use crate::shard::links::WorkerInfo;
use crate::wire::tls::ServerConfig;
use crate::wire::xxim::Identity;
use crate::wire::xxim::cipher::Seeds;

pub use crate::shard::queues::QueueMail;
pub use mesh::{MeshCall, MeshRequest, MeshSender, Reach};
pub use queues::{QueueRequest, QueueSender};

/// One message to a shard.
#[derive(Debug)]
pub enum Mail {
    /// Do this to your connections. From the shard of the backend connection that asked.
    Command(Arc<Command>),
    /// The same. From another node.
    Abroad(Arc<Command>),
    /// Do this to your connections; the command concerns this shard alone.
    Part(Command),
    /// Answer this about your connections, from there on.
    Ask { query: Arc<Query>, from: Cursor, reply: ReplyTo },
    /// Do this to your connections and say what came of it.
    Tell { command: Arc<Command>, reply: ReplyTo },
    /// The answer of one shard.
    Replied { number: u64, reply: Reply },
    /// What became of [`Request::Make`].
    Made { number: u64, made: Made },
    /// What this shard counted, for the `Metrics` command.
    AskRates { from: u8, number: u64 },
    /// The answer to it.
    Rates { number: u64, rates: Box<Rates> },
    /// An event of a client on shard `from`, encoded, for a worker connection of this shard.
    Event { from: u8, worker: ConnId, frame: Bytes },
    /// So many events that this shard gave to `worker` have been written to its socket.
    EventsWritten { worker: ConnId, count: u32 },
    /// A worker registered.
    WorkerAdded(Arc<WorkerInfo>),
    /// A worker unregistered: give it nothing more, then tell its shard so.
    WorkerLeaving { worker: ConnId },
    /// Answer to `WorkerLeaving`: one more shard gives it nothing any more.
    WorkerLeft { worker: ConnId },
    /// A worker is gone; of this shard's events `written` more than acknowledged reached its
    /// socket.
    WorkerGone { worker: ConnId, written: u32 },
    /// A backend connection of shard `from` asks for this worker to be unregistered.
    Unregister { from: u8, number: u64, worker: ConnId },
    /// The answer to it, when the last event before it has been written.
    Unregistered { number: u64 },
    /// What the HTTP callback at open said; `None`: it failed.
    Opened { conn: ConnId, verdict: Option<Box<crate::wire::netsvr::Verdict>> },
    /// The HTTP callback at close is over, whatever it said.
    ClosedCallback { number: u64 },
    /// What became of [`Request::Verify`].
    Verified { conn: ConnId, number: u32, verdict: login::Verdict },
    /// The result of [`Request::Upstream`]. Every call gets exactly one;
    /// one that comes for a connection or number that is gone is ignored.
    UpstreamAnswered { conn: ConnId, number: u32, result: UpstreamResult },
    /// The answer to [`Request::Unwrap`]. `None`: a ciphertext is not one (xxim section 9.3).
    Unwrapped { conn: ConnId, number: u32, seeds: Option<Box<Seeds>> },
    /// A push, question or kick of an xxim backend (xxim section 6). Every shard gets it and
    /// tells its part through `reply`.
    XximPush { work: Arc<XximPush>, reply: mpsc::UnboundedSender<XximPushed> },
    /// A message of another node for a room whose home this shard is here.
    Room(Arc<RoomMessage>),
    /// The other nodes of the mesh have changed.
    Nodes(Arc<Nodes>),
    /// Tell the mesh which xxim logins there are from this slot on; answered by
    /// [`MeshRequest::Logins`].
    Logins { from: u32 },
    /// About queues of connmix.
    Queue(QueueMail),
    /// The metrics as text, for [`Request::Metrics`] of this number.
    Rendered { number: u64, text: String },
    /// A message for a room whose home this shard is.
    Chat(Box<Chat>),
    /// What became of [`Request::HttpCall`]: the body of a good answer.
    HttpCalled { conn: ConnId, answer: Option<Bytes> },
    /// The answer to [`Request::Check`] with this number.
    XximChecked { conn: ConnId, number: u32, permission: Permission },
    /// An xxim connection of another shard wants to hold a triple that is at home here; `order` is
    /// its place in the order of accepting.
    XximClaim { triple: Triple, conn: ConnId, order: u64 },
    /// Whether it holds it now; if not, a connection that was accepted later does.
    XximClaimed { triple: Triple, conn: ConnId, held: bool },
    /// Another connection holds the triple of this one now.
    XximDisplaced { triple: Triple, conn: ConnId },
    /// A connection gives up a triple that is at home here.
    XximRelease { triple: Triple, conn: ConnId },
    /// New certificates for a listener.
    Certificates { listener: usize, config: Arc<ServerConfig> },
    /// Stop accepting, close clients with 1001, deliver their events.
    Drain,
    /// Close everything that is left and end the thread.
    Stop,
}

/// A message on its way to the home shard of its room; it lacks only the time.
#[derive(Debug)]
pub struct Chat {
    pub topic: Box<str>,
    pub message: crate::wire::im::proto::CrMessage,
    /// The connection that gets no copy.
    pub sender: Option<ConnId>,
    /// Members that speak other protocols have it already.
    pub wrapped: bool,
}

impl Mail {
    /// The answer to [`Request::Make`]; calls `beat` now and then while it takes its time.
    pub fn made(job: Job, beat: impl FnMut()) -> Mail {
        Mail::Made { number: job.number, made: job.make(beat) }
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

/// What a shard asks of the sidecar. The answer comes as [`Mail`].
#[derive(Debug)]
pub enum Request {
    /// May this connection be opened? (netsvr section 7.1) Answered by [`Mail::Opened`].
    OnOpen { conn: ConnId, body: Bytes },
    /// A connection was closed (netsvr section 7.2). Answered by [`Mail::ClosedCallback`].
    OnClose { shard: u8, number: u64, body: Bytes },
    /// Is this client who it says? Answered by [`Mail::Verified`] with the same number.
    Verify { conn: ConnId, number: u32, login: Box<Login> },
    /// May this client call this method (xxim section 4.1, step 6)? Answered by
    /// [`Mail::XximChecked`] with the same number.
    Check { conn: ConnId, number: u32, identity: Arc<Identity>, method: Box<str> },
    /// Carry a request of an xxim client to its upstream (xxim section 4). Answered by
    /// [`Mail::UpstreamAnswered`]; the shard keeps at most `xxim.requests_max` of them per
    /// connection.
    Upstream { conn: ConnId, number: u32, call: Box<UpstreamCall> },
    /// The connection is gone: give up its calls, except those of routes with `detach`. All of them
    /// are answered nevertheless.
    CancelUpstream { conn: ConnId },
    /// Decrypt the seeds of a client (xxim section 3.1) away from the shards. `None`: the client
    /// sent no such ciphertext. Answered by [`Mail::Unwrapped`].
    Unwrap { conn: ConnId, number: u32, key: Option<Bytes>, iv: Option<Bytes> },
    /// Tell a backend that an xxim client has come or gone; no answer (xxim section 5.2, step 6).
    /// What is told of one connection is told in order.
    Hook { conn: ConnId, kind: HookKind, body: Bytes },
    /// Put a large answer together. Answered by [`Mail::Made`]. A shard has one at a time.
    Make(Box<Job>),
    /// The metrics as text. Answered by [`Mail::Rendered`].
    Metrics { shard: u8, number: u64 },
    /// Make this request for a connmix rule. Answered by [`Mail::HttpCalled`].
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

/// The way to the sidecar; one clone per thread.
#[derive(Clone, Debug)]
pub struct SidecarSender {
    sender: mpsc::Sender<Request>,
    gone: Gone,
}

impl SidecarSender {
    /// A channel for so many requests.
    pub fn new(requests_max: usize, gone: Gone) -> (SidecarSender, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(requests_max);
        (SidecarSender { sender, gone }, receiver)
    }

    /// Hands a request over without waiting. A full channel gives it back. A sidecar that has
    /// ended is the end of the gateway.
    pub fn send(&self, request: Request) -> Result<(), Request> {
        match self.sender.try_send(request) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(request)) => return Err(request),
            Err(mpsc::error::TrySendError::Closed(_)) => self.gone.notice(),
        }
        Ok(())
    }
}

/// Wakes a shard that waits in its ring, which polls the eventfd.
#[derive(Debug)]
pub struct Waker {
    resting: AtomicBool,
    eventfd: File,
}

impl Waker {
    /// Creates the eventfd. Fails if the process has no descriptor left.
    pub fn new() -> std::io::Result<Arc<Waker>> {
        let eventfd: OwnedFd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        Ok(Arc::new(Waker { resting: AtomicBool::new(false), eventfd: eventfd.into() }))
    }

    /// What a sender writes to while the shard waits. Nobody needs to read it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    /// The shard is about to wait. It must look into its mailbox once more before it does.
    pub fn rest(&self) {
        self.resting.store(true, Ordering::Relaxed);
        // Pairs with the fence in `wake`: either the sender sees the state, or the shard sees the
        // mail.
        fence(Ordering::SeqCst);
    }

    /// The shard is awake.
    pub fn awake(&self) {
        self.resting.store(false, Ordering::Relaxed);
    }

    fn wake(&self) {
        fence(Ordering::SeqCst);
        if !self.resting.load(Ordering::Relaxed) || !self.resting.swap(false, Ordering::Relaxed) {
            return;
        }
        // Fails only when the counter is full, and then the shard is awake anyway.
        let _ = (&self.eventfd).write(&1u64.to_ne_bytes());
    }
}

/// The sending side; one clone per thread that writes to the shard.
#[derive(Clone, Debug)]
pub struct MailSender {
    sender: Sender<Mail>,
    waker: Arc<Waker>,
    gone: Gone,
}

impl MailSender {
    /// Puts a message into the mailbox and wakes the shard if it waits. A full mailbox gives the
    /// message back. A shard that has ended is the end of the gateway.
    pub fn send(&self, mail: Mail) -> Result<(), Mail> {
        match self.sender.try_send(mail) {
            Ok(()) => self.waker.wake(),
            Err(TrySendError::Full(mail)) => return Err(mail),
            Err(TrySendError::Disconnected(_)) => self.gone.notice(),
        }
        Ok(())
    }

    /// Puts in messages while there is room and wakes the shard once. The message that found none
    /// comes back; those behind it have not been asked for.
    pub fn send_all(&self, mails: impl IntoIterator<Item = Mail>) -> Option<Mail> {
        let mut full = None;
        for mail in mails {
            match self.sender.try_send(mail) {
                Ok(()) => {}
                Err(TrySendError::Full(mail)) => {
                    full = Some(mail);
                    break;
                }
                Err(TrySendError::Disconnected(_)) => self.gone.notice(),
            }
        }
        self.waker.wake();
        full
    }

    /// [`MailSender::send`] for threads that have nothing better to do than to wait for room
    /// (those that decrypt keys).
    pub fn send_blocking(&self, mail: Mail) {
        match self.sender.send(mail) {
            Ok(()) => self.waker.wake(),
            Err(_) => self.gone.notice(),
        }
    }

    /// The same, but no longer than until then; returns whether there was room.
    pub fn send_until(&self, mail: Mail, deadline: Instant) -> bool {
        match self.sender.send_deadline(mail, deadline) {
            Ok(()) => self.waker.wake(),
            Err(SendTimeoutError::Timeout(_)) => return false,
            Err(SendTimeoutError::Disconnected(_)) => self.gone.notice(),
        }
        true
    }
}

/// The receiving side, owned by the shard's driver.
#[derive(Debug)]
pub struct Mailbox {
    receiver: Receiver<Mail>,
    waker: Arc<Waker>,
}

impl Mailbox {
    /// A mailbox for `messages_max` messages.
    pub fn new(messages_max: usize, gone: Gone) -> std::io::Result<(MailSender, Mailbox)> {
        let (sender, receiver) = crossbeam_channel::bounded(messages_max);
        let waker = Waker::new()?;
        Ok((MailSender { sender, waker: waker.clone(), gone }, Mailbox { receiver, waker }))
    }

    /// The next message, if there is one.
    pub fn take(&self) -> Option<Mail> {
        self.receiver.try_recv().ok()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// What wakes this shard.
    pub fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }
}
