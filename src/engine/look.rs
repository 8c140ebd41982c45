//! What operators ask about a shard, and what it answers: plain data.
//!
//! A shard answers from a place on and in pieces, so that no turn is held up; whoever asks puts the
//! pieces of all shards together. What comes and goes meanwhile is found or not.

use std::net::SocketAddr;
use std::sync::Arc;

pub use crate::engine::conns::Kind;
use crate::engine::conns::{Conn, Flags};
use crate::engine::traffic::Traffic;
use crate::hub::ConnId;
use crate::hub::mesh::Nodes;
use crate::wire::network::Network;

/// A question. Every shard answers it for what it has itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// What kind of load the shard has.
    Shard,
    /// Connections that pass the filter: in the order of their slots, or by [`Row::key`], the
    /// largest first, those below a place in that order.
    Connections { filter: Filter, sort: Option<Sort>, below: Option<(u64, ConnId)> },
    /// All that is known of one connection.
    Connection(ConnId),
    /// Users or topics with how many connections they have.
    Names(Names),
    /// Registered workers, with what waits for them here.
    Workers,
    /// The other nodes of the mesh.
    Nodes,
}

/// Which users or topics are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    pub what: What,
    /// Their names begin so.
    pub prefix: Box<str>,
    /// Their names come after this one.
    pub after: Option<Box<str>>,
    /// Those with most connections first; else by name.
    pub by_count: bool,
}

/// What has names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Users,
    Topics,
}

/// Which connections are meant; empty filters mean all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub kinds: Option<Vec<Kind>>,
    pub user: Option<Box<str>>,
    pub topic: Option<Box<str>>,
    pub network: Option<Network>,
    /// By their numbers.
    pub listeners: Option<Vec<u16>>,
    pub state: Option<State>,
}

/// What stands first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// The oldest connection.
    Age,
    /// Whose peer has shown no life for longest.
    Idle,
    /// Whose outbox holds most.
    Outbox,
    /// Who has sent most bytes.
    In,
    /// Who was sent most bytes.
    Out,
}

/// How a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its TLS handshake, its request or its login is not over.
    Opening,
    Open,
    /// Its input is not read for the moment.
    Blocked,
    /// Its end has begun.
    Closing,
}

impl State {
    /// The state and its word.
    pub const NAMES: [(State, &str); 4] = [
        (State::Opening, "opening"),
        (State::Open, "open"),
        (State::Blocked, "blocked"),
        (State::Closing, "closing"),
    ];

    /// That of a connection. `opens`: its kind is one of those that only open.
    pub fn of(conn: &Conn, opens: bool) -> State {
        match () {
            _ if conn.is_ending() || conn.flags.has(Flags::GONE) => State::Closing,
            _ if opens || conn.is_handshaking() => State::Opening,
            _ if conn.flags.has(Flags::BLOCKED) => State::Blocked,
            _ => State::Open,
        }
    }

    /// Its word.
    pub fn name(self) -> &'static str {
        State::NAMES[self as usize].1
    }
}

/// A piece of an answer, and the place where the next one begins; `None`: it is the last.
#[derive(Debug)]
pub struct Piece {
    pub found: Found,
    pub next: Option<u32>,
}

/// What was found.
#[derive(Debug)]
pub enum Found {
    Shard(Box<Shard>),
    Connections(Vec<Row>),
    /// `None`: it is not there.
    Connection(Option<Box<Details>>),
    /// Users or topics, with how many connections each has.
    Names(Vec<(Arc<str>, u64)>),
    Workers(Vec<Worker>),
    Nodes(Arc<Nodes>),
}

/// Puts users or topics in order: those with most connections first, or by name.
pub fn sort_names(names: &mut [(Arc<str>, u64)], by_count: bool) {
    match by_count {
        true => names.sort_unstable_by(|(a, ca), (b, cb)| cb.cmp(ca).then_with(|| a.cmp(b))),
        false => names.sort_unstable(),
    }
}

/// One connection in a list.
#[derive(Clone, Debug)]
pub struct Row {
    pub conn: ConnId,
    pub kind: Kind,
    pub state: State,
    /// It can be sent to and be closed: it is in the hub.
    pub client: bool,
    pub peer: SocketAddr,
    pub listener: u16,
    pub user: Box<str>,
    pub topics: u32,
    pub age_s: u64,
    /// When the peer last showed life, milliseconds of the process clock.
    pub active_ms: u64,
    /// How long ago that is.
    pub idle_ms: u64,
    /// What waits for the peer, as it is charged.
    pub outbox_bytes: u32,
    pub traffic: Traffic,
}

impl Row {
    /// What the row is sorted by; the largest stands first. Times are those at which something was,
    /// so that rows stay where they are while somebody reads on.
    pub fn key(&self, sort: Option<Sort>) -> u64 {
        match sort {
            None => 0,
            Some(Sort::Age) => u64::from(u32::MAX - self.conn.generation()),
            Some(Sort::Idle) => u64::MAX - self.active_ms,
            Some(Sort::Outbox) => u64::from(self.outbox_bytes),
            Some(Sort::In) => self.traffic.received.bytes,
            Some(Sort::Out) => self.traffic.sent.bytes,
        }
    }
}

/// All that is known of one connection.
#[derive(Clone, Debug)]
pub struct Details {
    pub row: Row,
    /// The first of them.
    pub topics: Vec<Arc<str>>,
    pub session_bytes: usize,
    /// Version and cipher suite.
    pub tls: Option<String>,
    pub websocket: bool,
    /// Bytes of it that are kept because it is not read.
    pub held_bytes: usize,
    /// How long a send has been waiting for the peer to read.
    pub stalled_ms: Option<u64>,
    /// Why its input is not read, or how far its end is.
    pub reasons: Vec<&'static str>,
    /// The registration name of the worker that gets its events, where that is always the same.
    pub worker: Option<String>,
    pub notes: Notes,
}

/// What a protocol knows of a connection, by name.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    pub facts: Vec<(&'static str, String)>,
    /// Why it waits.
    pub reasons: Vec<&'static str>,
}

impl Notes {
    /// Adds a fact.
    pub fn fact(&mut self, name: &'static str, value: impl ToString) {
        self.facts.push((name, value.to_string()));
    }

    /// Adds a reason why it waits, if it is one.
    pub fn reason_if(&mut self, is: bool, reason: &'static str) {
        self.reasons.extend(is.then_some(reason));
    }
}

/// The load of a shard.
#[derive(Clone, Debug, Default)]
pub struct Shard {
    /// Connections by kind, those kinds that have one.
    pub connections: Vec<(Kind, u64)>,
    pub clients: u64,
    pub users: u64,
    pub topics: u64,
    pub subscriptions: u64,
    /// Clients whose input waits for room in the queues of workers.
    pub waiting: u64,
    pub stalled: u64,
    /// Letters that other shards have not taken.
    pub mail: u64,
    pub draining: bool,
}

/// A registered worker, with what one shard has for it.
#[derive(Clone, Debug)]
pub struct Worker {
    pub conn: ConnId,
    pub name: String,
    /// The mask of its registration (netsvr section 4.2).
    pub events: i32,
    /// Given or waiting, not written.
    pub frames: usize,
    pub bytes: usize,
}
