//! What a backend asks the gateway to do with connections, in words that no protocol owns.
//!
//! A backend protocol decodes its messages into [`Command`]s; every shard applies the part that
//! concerns its own connections. Costs: one allocation per push for the shared [`Payload`], one
//! more per wire format that is really needed.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::hub::ConnId;
use crate::hub::context::ContextValue;

/// A wire format of a payload that is the same for every connection that needs it, by its number
/// below [`Format::COUNT`]. Those of WebSocket are here; the list of protocols hands out the
/// others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format(pub u8);

impl Format {
    /// A WebSocket text frame.
    pub const WS_TEXT: Format = Format(0);
    /// A WebSocket binary frame.
    pub const WS_BINARY: Format = Format(1);
    /// A compressed WebSocket text frame (permessage-deflate without context takeover).
    pub const WS_TEXT_DEFLATE: Format = Format(2);
    /// A compressed WebSocket binary frame.
    pub const WS_BINARY_DEFLATE: Format = Format(3);
    /// How many there are.
    pub const COUNT: usize = 8;
}

/// Whether a payload is text or binary, as far as the backend has said so. Protocols that know the
/// difference follow it; the others take the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PayloadKind {
    /// The receiver's protocol decides.
    #[default]
    Unspecified,
    Text,
    Binary,
}

/// The bytes of a push and their encoded forms, shared by all shards. Each form is made by the
/// first shard that needs it, at most once per push.
#[derive(Debug)]
pub struct Payload {
    raw: Bytes,
    kind: PayloadKind,
    formats: [OnceLock<Bytes>; Format::COUNT],
}

impl Payload {
    /// A payload without any wire format yet.
    pub fn new(raw: Bytes) -> Arc<Payload> {
        Payload::of_kind(raw, PayloadKind::Unspecified)
    }

    /// The same, text or binary.
    pub fn of_kind(raw: Bytes, kind: PayloadKind) -> Arc<Payload> {
        Arc::new(Payload { raw, kind, formats: [const { OnceLock::new() }; Format::COUNT] })
    }

    /// Whether the backend says that it is text or binary.
    pub fn kind(&self) -> PayloadKind {
        self.kind
    }

    /// The bytes as the backend gave them.
    pub fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The payload in a wire format; `encode` makes it from the raw bytes if nobody has yet.
    pub fn format(&self, format: Format, encode: impl FnOnce(&[u8]) -> Bytes) -> &Bytes {
        self.formats[usize::from(format.0)].get_or_init(|| encode(&self.raw))
    }
}

/// Whom a command reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The listed connections; one listed twice is reached twice. Unknown ids are skipped.
    Conns(Vec<ConnId>),
    /// Every connection of the listed users, once each.
    Users(Vec<Box<str>>),
    /// Every member of each listed topic, in order, once per time its topic is listed.
    Topics(Vec<Box<str>>),
    /// Every registered connection.
    All,
}

/// How the topics of a connection change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicChange {
    /// Leave all topics, then join these.
    Replace(Vec<Box<str>>),
    /// Join these as well.
    Add(Vec<Box<str>>),
    /// Leave these.
    Remove(Vec<Box<str>>),
}

/// What an update changes about one connection. `None` leaves a thing as it is; empty strings
/// clear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub topics: Option<TopicChange>,
    pub session: Option<Box<str>>,
    pub user: Option<Box<str>>,
}

/// Why a connection is closed: WebSocket close code and reason text (at most 123 bytes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    pub code: u16,
    pub text: Cow<'static, str>,
}

impl CloseReason {
    /// One whose text is always the same.
    pub const fn new(code: u16, text: &'static str) -> CloseReason {
        CloseReason { code, text: Cow::Borrowed(text) }
    }
}

/// What `conn.call` of connmix does to a connection (connmix section 4). Names are not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Set and delete values of the context.
    SetContext(Vec<ContextValue>),
    /// Join these topics as well. All or, where that would be too many for a connection, none.
    Subscribe(Vec<Box<str>>),
    /// Leave these topics.
    Unsubscribe(Vec<Box<str>>),
}

/// What became of a command: deliveries, not connections; a connection that gets two payloads
/// counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Queued for a connection, or changed at it.
    pub done: u64,
    /// A connection was found but could not take it: closing, or its outbox is full.
    pub failed: u64,
}

impl Outcome {
    /// Adds what another shard, or another payload, came to.
    pub fn add(&mut self, other: Outcome) {
        self.done += other.done;
        self.failed += other.failed;
    }
}

/// A login of a user, by which older ones are told from newer ones on every shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub user: Box<str>,
    /// Above that of every login that this shard knew of; equal ones are told apart by `conn`.
    pub number: u64,
    pub conn: ConnId,
}

/// One message for a room, as every shard gets it.
#[derive(Debug)]
pub struct RoomMessage {
    pub topic: Box<str>,
    /// The message as a batch carries it, encoded once.
    pub element: Bytes,
    /// What members that speak other protocols get; `None` if it reaches them another way.
    pub content: Option<Arc<Payload>>,
    /// The connection that sent it, which gets no copy.
    pub sender: Option<ConnId>,
}

/// One thing to do. Commands of one backend connection take effect in order for any given client.
#[derive(Clone, Debug)]
pub enum Command {
    /// Send the payloads, in order, to every connection of the target.
    Push { target: Target, payloads: Vec<Arc<Payload>> },
    /// Change what is known about a connection, then send it the payload. A connection that is
    /// closing is left alone.
    Update { conn: ConnId, change: Change, payload: Option<Arc<Payload>> },
    /// Run a function on a connection; done or failed is 1 if there is such a connection.
    Call { conn: ConnId, call: Call },
    /// End topics; every connection that lost at least one gets the payload once.
    DeleteTopics { topics: Vec<Box<str>>, payload: Option<Arc<Payload>> },
    /// Send the payload, then close with the reason. With `guests_only`, connections that have a
    /// user or a session are left alone.
    Kick { target: Target, payload: Option<Arc<Payload>>, reason: CloseReason, guests_only: bool },
    /// A message for the members of a room, in the order in which its home has accepted it.
    Room(Arc<RoomMessage>),
    /// A login of xxim (user, platform, device) is held by another node now: the connection is
    /// closed if it still has it.
    Displace { conn: ConnId, login: [Box<str>; 3] },
    /// A user has logged in anew: its older IM connections are closed.
    Replace(Session),
}

impl Command {
    /// The connections that it names: it concerns their shards alone. `None`: it concerns all.
    pub fn conns(&self) -> Option<&[ConnId]> {
        match self {
            Command::Push { target: Target::Conns(conns), .. }
            | Command::Kick { target: Target::Conns(conns), .. } => Some(conns),
            Command::Update { conn, .. }
            | Command::Call { conn, .. }
            | Command::Displace { conn, .. } => Some(std::slice::from_ref(conn)),
            Command::Push { .. }
            | Command::Kick { .. }
            | Command::DeleteTopics { .. }
            | Command::Room(_)
            | Command::Replace(_) => None,
        }
    }

    /// The same for these of the connections that it names.
    #[must_use]
    pub fn part(&self, conns: Vec<ConnId>) -> Command {
        let target = Target::Conns(conns);
        match self {
            Command::Push { payloads, .. } => Command::Push { target, payloads: payloads.clone() },
            Command::Kick { payload, reason, guests_only, .. } => {
                let (payload, reason) = (payload.clone(), reason.clone());
                let guests_only = *guests_only;
                Command::Kick { target, payload, reason, guests_only }
            }
            other => other.clone(),
        }
    }
}
