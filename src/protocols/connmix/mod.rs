//! connmix clients of this shard (connmix section 7): bytes and messages in, rules run, time. What
//! the rules want is carried out in `effects`; requests to backends wait in `calls`.
//!
//! A client whose rules wait is not handled any further. Its input is kept, so that its end is
//! noticed; only when that becomes much its socket is not read any more.
//! Costs: a connection is one entry of a slab besides its slot. A message that is only pushed to a
//! queue allocates nothing but the frame of its event.

pub mod api;
pub mod config;
pub mod http;
pub mod letters;
pub mod limits;
pub mod requests;
pub mod rules;
pub mod service;
pub mod wire;

pub(crate) mod calls;
mod effects;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::model::{ClientProtocol, MessageType, Service};
use crate::engine::Engine;
use crate::engine::conns::Flags;
use crate::engine::forms::{self, Made};
use crate::engine::look::Notes;
use crate::engine::manners::{Life, Manners};
use crate::engine::ops::Frame;
use crate::engine::slots::Slots;
use crate::engine::tenant::Tenant;
use crate::engine::tenant::Upgrade;
use crate::hub::context::{Context, ContextValue};
use crate::hub::push::{CloseReason, Payload, PayloadKind};
use crate::hub::queues::Homes;
use crate::hub::{ConnId, Departed};
use crate::lists::letters::SidecarRequest;
use crate::lists::numbers;
use crate::lists::numbers::kind;
use crate::metrics::Gauges;
use crate::protocols::connmix::config::server::{ClientFraming, ConnmixServer, On};
use crate::protocols::connmix::rules::{Effects, Event, Head, Resumed, Run, Subject, Suspended};
use crate::spare::Look;
use crate::wire::framing::{self, Framer, Framing};
use crate::wire::json::Index;
use crate::wire::websocket::Opcode;

const READ_TIMEOUT: CloseReason = CloseReason::new(1000, "read timeout");
const TOO_BIG: CloseReason = CloseReason::new(1009, "message too big");
const NOT_UTF8: CloseReason = CloseReason::new(1007, "invalid utf8 in text message");

/// What the shard keeps of one connection.
#[derive(Debug)]
pub struct Conn {
    /// Address of the peer.
    pub peer: SocketAddr,
    pub context: Context,
    /// Number of its [`ConnmixServer`].
    server: u16,
    framing: Framing,
    opened: bool,
    /// Pushes that found their queue full and whose room has not come up yet.
    full: u16,
    /// The handshake, as long as rules look at it.
    head: Option<Box<Head>>,
    framer: Framer,
    /// Rules that have not been run to their end.
    waits: Option<Box<Suspended>>,
}

impl Conn {
    /// A TCP connection that was just accepted.
    fn new(peer: SocketAddr, server: u16, rules: &ConnmixServer) -> Conn {
        let framing = match rules.framing {
            ClientFraming::Line | ClientFraming::JsonLine => Framing::Line,
            ClientFraming::Length | ClientFraming::LengthText => Framing::Length,
        };
        Conn::of(peer, server, framing)
    }

    fn of(peer: SocketAddr, server: u16, framing: Framing) -> Conn {
        Conn {
            peer,
            context: Context::default(),
            server,
            framing,
            opened: false,
            full: 0,
            head: None,
            framer: Framer::default(),
            waits: None,
        }
    }

    /// Takes what rules about its end look at.
    fn take_last(&mut self) -> Conn {
        Conn {
            context: std::mem::take(&mut self.context),
            head: self.head.take(),
            opened: true,
            ..Conn::of(self.peer, self.server, self.framing)
        }
    }

    /// For tests: panics if an invariant does not hold. `held_max` is for the bytes of input.
    pub(crate) fn audit(&self, flags: Flags, held_max: usize) {
        assert!(self.framer.held() <= held_max, "{} bytes of {}", self.framer.held(), self.peer);
        assert!(self.opened || !self.waits(), "{} waits and is not open", self.peer);
        let ending = flags.has(Flags::CLOSING | Flags::DEAF | Flags::GONE);
        let waits = self.waits() || flags.has(Flags::FULL | Flags::READS_ON);
        assert!(ending || waits == flags.has(Flags::BLOCKED), "{}: {flags:?}", self.peer);
    }

    fn subject<'a>(
        &'a self,
        client_id: i64,
        node: u16,
        homes: Homes,
        flags: Flags,
        event: Event<'a>,
    ) -> Subject<'a> {
        let (peer, head) = (self.peer, self.head.as_deref());
        let stream = !flags.has(Flags::WEBSOCKET);
        Subject { client_id, node, homes, peer, head, stream, event }
    }

    /// Whether nothing of it may be handled.
    pub(crate) fn waits(&self) -> bool {
        self.waits.is_some() || self.full > 0
    }
}

/// What connmix and its API need to know of the configuration.
#[derive(Debug)]
pub struct Sections {
    pub connmix: crate::protocols::connmix::config::Connmix,
    pub connmix_servers: Vec<ConnmixServer>,
}

/// What a shard has for all connmix clients together.
#[derive(Debug)]
pub(crate) struct Connmix {
    config: Arc<Sections>,
    conns: Slots<Conn>,
    /// How the clients of the first server behave; the others follow.
    rows: u16,
    /// Of the last JSON that a client has sent.
    json: Index,
    effects: Effects,
    /// What follows publishes that are being carried out.
    pub rest: VecDeque<effects::Rest>,
    pub calls: calls::Calls,
    /// Clients that are open.
    pub clients: u64,
    /// Clients that have left in this turn and whose rules about that are still to be run.
    pub leaving: VecDeque<effects::Leaving>,
    /// Clients that have left, as long as their rules about that wait for a push.
    pub departed: HashMap<ConnId, Box<effects::Departed>>,
}

/// How clients of a server behave.
fn manners(server: &ConnmixServer, outbox_bytes_max: u32) -> Manners {
    let (write, read) = (server.write_timeout, server.read_timeout);
    Manners {
        stream: true,
        pings: server.ping,
        life: Life::Frames,
        count: Some(|counters, websocket, sent, failed| {
            if websocket {
                counters.connmix_websocket_sent += sent;
                counters.connmix_websocket_failed += failed;
            } else {
                counters.connmix_socket_sent += sent;
                counters.connmix_socket_failed += failed;
            }
        }),
        ..Manners::new(server.max_message, outbox_bytes_max, write, read)
    }
}

/// A payload in one of the forms of connmix; some framings have none for some payloads.
pub fn make(form: u8, payload: &Payload) -> Made {
    let framing = match form {
        numbers::CONNMIX_MESSAGE => {
            return Made::Frame(forms::message(payload, opcode_of(payload.kind())));
        }
        numbers::CONNMIX_LINE => Framing::Line,
        _ => Framing::Length,
    };
    let bytes = framing::encode(framing, payload.raw());
    bytes.map_or(Made::Nothing, |bytes| Made::Frame(Frame::new(bytes)))
}

/// The opcode that a payload's kind asks for.
fn opcode_of(kind: PayloadKind) -> Opcode {
    match kind {
        PayloadKind::Unspecified | PayloadKind::Text => Opcode::Text,
        PayloadKind::Binary => Opcode::Binary,
    }
}

impl Connmix {
    /// Nobody is connected.
    pub(crate) fn new(engine: &mut Engine, config: Arc<Sections>) -> Connmix {
        let rows = config.connmix_servers.iter();
        let rows =
            rows.map(|server| engine.add_row(manners(server, engine.settings.outbox_bytes_max)));
        let rows: Vec<u16> = rows.collect();
        Connmix {
            conns: Slots::default(),
            rows: rows.first().copied().unwrap_or_default(),
            config: config.clone(),
            json: Index::default(),
            effects: Effects::default(),
            rest: VecDeque::new(),
            calls: calls::Calls::default(),
            clients: 0,
            leaving: VecDeque::new(),
            departed: HashMap::new(),
        }
    }

    fn connmix(&mut self, engine: &Engine, slot: u32) -> Option<&mut Conn> {
        self.conns.of_mut(engine.index(slot, kind::CONNMIX))
    }

    pub(crate) fn rules_of(&self, conn: &Conn) -> &ConnmixServer {
        &self.config.connmix_servers[conn.server as usize]
    }

    fn add(&mut self, engine: &mut Engine, slot: u32, conn: Conn) {
        let row = self.rows + conn.server;
        let index = self.conns.insert(conn);
        engine.turn_into(slot, kind::CONNMIX, index, row);
    }

    /// For tests: panics if an invariant of a connection does not hold.
    pub(crate) fn audit(&self, engine: &Engine, slot: u32, held_max: usize) {
        if let Some(conn) = self.conns.of(engine.index(slot, kind::CONNMIX)) {
            conn.audit(engine.conns[slot].flags, held_max);
        }
    }

    fn stream_message(&mut self, engine: &mut Engine, slot: u32, server: usize, message: &[u8]) {
        engine.shows_life(slot);
        engine.message_came(slot, message.len());
        engine.counters.connmix_socket_received += 1;
        let kind = match self.config.connmix_servers[server].framing {
            ClientFraming::Length => MessageType::Binary,
            ClientFraming::Line | ClientFraming::JsonLine | ClientFraming::LengthText => {
                MessageType::Text
            }
        };
        if kind == MessageType::Text && simdutf8::basic::from_utf8(message).is_err() {
            engine.counters.protocol_violations += 1;
            return engine.close(slot, NOT_UTF8);
        }
        self.event(engine, slot, Event::Message(kind, message));
    }

    /// Runs the rules for an event.
    fn event(&mut self, engine: &mut Engine, slot: u32, event: Event<'_>) {
        let id = engine.conns.id(slot);
        let Some(conn) = self.conns.of(engine.index(slot, kind::CONNMIX)) else { return };
        let (client_id, node) = (engine.client_ids.encode(id), engine.settings.node);
        let subject =
            conn.subject(client_id, node, engine.homes(), engine.conns[slot].flags, event);
        let Connmix { json, effects, .. } = self;
        let rules = &self.config.connmix_servers[conn.server as usize];
        let suspended = Run::new(rules, subject, &conn.context, json, effects).start();
        self.carry_out(engine, slot, id, suspended);
    }

    /// Goes on with the rules of an event.
    fn resume(&mut self, engine: &mut Engine, slot: u32, how: Resumed<'_>) {
        let id = engine.conns.id(slot);
        let waits = self.connmix(engine, slot).and_then(|conn| conn.waits.take());
        let Some(suspended) = waits else { return };
        engine.set_due(slot, u64::MAX);
        let Some(conn) = self.conns.of(engine.index(slot, kind::CONNMIX)) else { return };
        let (client_id, node) = (engine.client_ids.encode(id), engine.settings.node);
        let event = suspended.event();
        let subject =
            conn.subject(client_id, node, engine.homes(), engine.conns[slot].flags, event);
        let Connmix { json, effects, .. } = self;
        let rules = &self.config.connmix_servers[conn.server as usize];
        let run = Run::new(rules, subject, &conn.context, json, effects);
        let suspended = run.resume(&suspended, how);
        self.carry_out(engine, slot, id, suspended);
        self.go_on(engine, slot);
    }

    /// Handles what has arrived meanwhile, if nothing has to wait any more.
    fn go_on(&mut self, engine: &mut Engine, slot: u32) {
        let waits = self.connmix(engine, slot).is_none_or(|conn| conn.waits());
        if !waits && engine.conns[slot].flags.has(Flags::BLOCKED) {
            engine.conns[slot].active_ms = engine.now.ms;
            engine.rearm(slot);
            engine.read_on(slot);
        }
    }

    /// Sets and deletes values of the client's context. False: it would become too large.
    pub(crate) fn set_context(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        values: &[ContextValue],
    ) -> bool {
        let Some(conn) = self.connmix(engine, slot) else { return false };
        if conn.context.set(values).is_err() {
            return false;
        }
        if conn.waits.as_ref().is_some_and(|waits| waits.is_over(&conn.context)) {
            self.resume(engine, slot, Resumed::Waited);
        }
        true
    }
}

impl Tenant for Connmix {
    /// A connection of a listener that speaks connmix without WebSocket.
    fn accepted(&mut self, engine: &mut Engine, slot: u32, peer: SocketAddr) {
        let &Service::Connmix { server } = engine.service(slot) else { return };
        let rules = &self.config.connmix_servers[server as usize];
        let conn = Conn::new(peer, server, rules);
        self.add(engine, slot, conn);
    }

    /// A WebSocket connection was upgraded; the answer is queued.
    fn upgraded(&mut self, engine: &mut Engine, slot: u32, peer: SocketAddr, upgrade: Upgrade) {
        let ClientProtocol::Connmix { server } = upgrade.protocol else { return };
        let rules = &self.config.connmix_servers[server as usize];
        let mut conn = Conn::new(peer, server, rules);
        let (keeps, on_open) =
            (rules.keeps_head, |rule: &crate::protocols::connmix::config::server::Rule| {
                rule.on == On::Open && rule.uses.head
            });
        if keeps || rules.rules.iter().any(on_open) {
            let Upgrade { path, raw_query: query, headers, .. } = upgrade;
            conn.head = Some(Box::new(Head { path, query, headers }));
        }
        self.add(engine, slot, conn);
        self.opened(engine, slot);
        // A rule for the open that is not over needs it longer.
        let goes_on = self.rest.iter().any(|rest| rest.is_of(engine.conns.id(slot)));
        if let Some(conn) = self.connmix(engine, slot)
            && !keeps
            && !goes_on
            && conn.waits.is_none()
        {
            conn.head = None;
        }
    }

    /// The stream can be written to: the connection is registered and its first event happens.
    fn opened(&mut self, engine: &mut Engine, slot: u32) {
        let Some(conn) = self.connmix(engine, slot) else { return };
        if std::mem::replace(&mut conn.opened, true) {
            return;
        }
        let framing = conn.framing;
        engine.counters.opens += 1;
        self.clients += 1;
        let form = match (engine.conns[slot].flags.has(Flags::WEBSOCKET), framing) {
            (true, _) => numbers::CONNMIX_MESSAGE,
            (false, Framing::Line) => numbers::CONNMIX_LINE,
            (false, Framing::Length) => numbers::CONNMIX_LENGTH,
        };
        engine.conns[slot].form = form;
        engine.conns[slot].active_ms = engine.now.ms;
        engine.join(slot);
        engine.rearm(slot);
        self.event(engine, slot, Event::Open);
    }

    /// One WebSocket message.
    fn message(&mut self, engine: &mut Engine, slot: u32, opcode: Opcode, data: &[u8]) {
        engine.counters.connmix_websocket_received += 1;
        let kind = match opcode {
            Opcode::Text => MessageType::Text,
            Opcode::Binary => MessageType::Binary,
        };
        self.event(engine, slot, Event::Message(kind, data));
    }

    /// Handles the next message of a bare stream. False: there is none, or the client must wait.
    fn next(&mut self, engine: &mut Engine, slot: u32, input: &mut &[u8]) -> bool {
        if engine.conns[slot].flags.has(Flags::GONE | Flags::DEAF | Flags::CLOSING) {
            return false;
        }
        let may_read = engine.takes(slot) && !engine.outbox_blocks(slot);
        let limit = engine.row(slot).message_bytes_max;
        let Some(conn) = self.connmix(engine, slot) else { return false };
        if !may_read {
            conn.framer.stash(input);
            *input = &[];
            return false;
        }
        let (framing, server) = (conn.framing, conn.server as usize);
        let mut framer = std::mem::take(&mut conn.framer);
        let more = match framer.next(input, framing, limit) {
            Ok(None) => false,
            Ok(Some(message)) => {
                self.stream_message(engine, slot, server, message);
                true
            }
            Err(_) => {
                engine.counters.protocol_violations += 1;
                engine.close(slot, TOO_BIG);
                return false;
            }
        };
        if let Some(conn) = self.connmix(engine, slot) {
            conn.framer = framer;
        }
        more
    }

    /// The connection is gone.
    fn gone(&mut self, engine: &mut Engine, slot: u32) {
        if let Some(index) = engine.index(slot, kind::CONNMIX) {
            self.conns.remove(index);
        }
    }

    /// The wait of its rules is over.
    fn due(&mut self, engine: &mut Engine, slot: u32) {
        engine.set_due(slot, u64::MAX);
        self.resume(engine, slot, Resumed::Waited);
    }

    /// The client has been silent for too long.
    fn silent(&mut self, engine: &mut Engine, slot: u32) {
        engine.counters.idle_timeouts += 1;
        engine.close(slot, READ_TIMEOUT);
    }

    /// For tests: whether nothing is kept of any connection.
    fn has_nobody(&self) -> bool {
        self.conns.is_empty()
    }

    fn queue_room(&mut self, engine: &mut Engine, slot: u32) {
        if engine.hub.id_of(slot).is_none() {
            return;
        }
        if let Some(conn) = self.connmix(engine, slot) {
            conn.full = conn.full.saturating_sub(1);
            self.go_on(engine, slot);
        }
    }

    fn left(&mut self, engine: &mut Engine, slot: u32, _: &Departed) {
        self.leave(engine, slot);
    }

    fn is_idle(&self) -> bool {
        self.leaving.is_empty() && self.departed.is_empty()
    }

    fn next_request(&mut self, _: &mut Engine) -> Option<SidecarRequest> {
        let request = self.calls.next(self.config.connmix.rules.http_calls_max);
        request.map(SidecarRequest::Connmix)
    }

    fn give_back(&mut self, look: &mut Look) {
        self.effects.give_back(look);
        self.calls.give_back(look);
        look.at(&mut self.departed);
    }

    fn turn_ends(&mut self, engine: &mut Engine) {
        self.tell_departures(engine);
    }

    fn is_busy(&self, _: &Engine) -> bool {
        !self.leaving.is_empty()
    }

    fn describe(&self, engine: &Engine, slot: u32, notes: &mut Notes) {
        let Some(conn) = self.conns.of(engine.index(slot, kind::CONNMIX)) else { return };
        notes.fact("server", &self.config.connmix_servers[usize::from(conn.server)].name);
        notes.fact("client_id", engine.client_ids.encode(engine.conns.id(slot)));
        notes.fact("context_bytes", conn.context.to_json().len());
        notes.reason_if(conn.waits.is_some(), "a rule waits: for a queue, a login or a call");
    }

    fn report(&self, gauges: &mut Gauges) {
        gauges.connmix_clients = self.clients;
    }
}
