//! connmix clients of this shard (connmix section 7): bytes and messages in, rules run, time. What
//! the rules want is carried out in `effects`; requests to backends wait in `calls`.
//!
//! A client whose rules wait is not handled any further. Its input is kept, so that its end is
//! noticed; only when that becomes much its socket is not read any more.
//! Costs: a connection is one box besides its slot. A message that is only pushed to a queue
//! allocates nothing but the frame of its event.

pub(super) mod calls;
mod effects;
mod sends;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use crate::config::model::{ClientFraming, ClientProtocol, ConnmixServer, MessageType, On};
use crate::edge::connmix::{Effects, Event, Head, Resumed, Run, Subject, Suspended};
use crate::edge::upgrade::Opening as Upgrade;
use crate::hub::ConnId;
use crate::hub::context::{Context, ContextValue};
use crate::hub::push::{CloseReason, Payload};
use crate::hub::queues::Homes;
use crate::shard::Shard;
use crate::shard::conns::{Flags, Role};
use crate::shard::fan_out::{opcode_of, plain};
use crate::shard::ops::Frame;
use crate::spare::Look;
use crate::wire::framing::{self, Framer, Framing};
use crate::wire::json::Index;
use crate::wire::websocket::{self, Opcode};

const READ_TIMEOUT: CloseReason = CloseReason { code: 1000, text: "read timeout" };
const TOO_BIG: CloseReason = CloseReason { code: 1009, text: "message too big" };
const NOT_UTF8: CloseReason = CloseReason { code: 1007, text: "invalid utf8 in text message" };

/// What the shard keeps of one connection.
#[derive(Debug)]
pub struct Conn {
    /// Address of the peer.
    pub peer: SocketAddr,
    /// The worker that gets this client's events, if workers are picked sticky.
    pub worker: Option<ConnId>,
    pub context: Context,
    /// Number of its [`ConnmixServer`].
    server: u16,
    framing: Framing,
    opened: bool,
    /// A ping is under way, and nothing has arrived since.
    pinged: bool,
    /// Pushes that found their queue full and whose room has not come up yet.
    full: u16,
    /// The handshake, as long as rules look at it.
    head: Option<Box<Head>>,
    framer: Framer,
    waits: Option<Box<Waits>>,
}

/// Rules that have not been run to their end.
#[derive(Debug)]
struct Waits {
    suspended: Suspended,
    /// When the wait is over at the latest; `None`: an answer comes in any case.
    until_ms: Option<u64>,
}

impl Conn {
    /// A TCP connection that was just accepted.
    pub fn new(peer: SocketAddr, server: u16, rules: &ConnmixServer) -> Conn {
        let framing = match rules.framing {
            ClientFraming::Line | ClientFraming::JsonLine => Framing::Line,
            ClientFraming::Length | ClientFraming::LengthText => Framing::Length,
        };
        Conn::of(peer, server, framing)
    }

    fn of(peer: SocketAddr, server: u16, framing: Framing) -> Conn {
        Conn {
            peer,
            worker: None,
            context: Context::default(),
            server,
            framing,
            opened: false,
            pinged: false,
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

    /// The client has shown that it is there.
    pub(super) fn answers_pings(&mut self) {
        self.pinged = false;
    }

    /// Whether its open event has happened: it is registered.
    pub(super) fn opened(&self) -> bool {
        self.opened
    }

    /// For tests: panics if an invariant does not hold. `held_max` is for the bytes of input.
    pub(super) fn audit(&self, flags: Flags, held_max: usize) {
        assert!(self.framer.held() <= held_max, "{} bytes of {}", self.framer.held(), self.peer);
        assert!(self.opened || !self.waits(), "{} waits and is not open", self.peer);
        let ending = flags.has(Flags::CLOSING | Flags::DEAF | Flags::GONE);
        let waits = self.waits() || flags.has(Flags::FULL);
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
    pub(super) fn waits(&self) -> bool {
        self.waits.is_some() || self.full > 0
    }
}

/// What a shard has for all connmix clients together.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// Of the last JSON that a client or a backend of the API has sent.
    pub json: Index,
    pub sends: sends::Sends,
    effects: Effects,
    pub calls: calls::Calls,
    /// Clients that are open.
    pub clients: u64,
    /// Clients that have left in this turn and whose rules about that are still to be run.
    pub leaving: VecDeque<effects::Leaving>,
    /// Clients that have left, as long as their rules about that wait for a push.
    pub departed: HashMap<ConnId, Box<effects::Departed>>,
}

impl Desk {
    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        self.effects.give_back(look);
        self.calls.give_back(look);
        look.at(&mut self.departed);
    }
}

/// The wire formats of one payload that clients of this protocol share.
#[derive(Default)]
pub struct Forms {
    message: Option<Frame>,
    line: Option<Option<Frame>>,
    length: Option<Option<Frame>>,
}

impl Forms {
    /// The payload as this client gets it; `None` if its framing has no form for it.
    pub fn frame(&mut self, conn: &mut Conn, flags: Flags, payload: &Payload) -> Option<Frame> {
        if flags.has(Flags::WEBSOCKET) {
            let opcode = opcode_of(payload.kind());
            return Some(self.message.get_or_insert_with(|| plain(payload, opcode)).clone());
        }
        let form = match conn.framing {
            Framing::Line => &mut self.line,
            Framing::Length => &mut self.length,
        };
        let encode = || framing::encode(conn.framing, payload.raw()).map(Frame::new);
        form.get_or_insert_with(encode).clone()
    }
}

impl Shard {
    fn connmix(&mut self, slot: u32) -> Option<&mut Conn> {
        match &mut self.engine.conns[slot].role {
            Role::Connmix(conn) => Some(conn),
            _ => None,
        }
    }

    pub(super) fn rules_of(&self, conn: &Conn) -> &ConnmixServer {
        &self.engine.config.connmix_servers[conn.server as usize]
    }

    /// A connection of a listener that speaks connmix without WebSocket.
    pub(super) fn connmix_accepted(&self, peer: SocketAddr, server: u16) -> Role {
        let rules = &self.engine.config.connmix_servers[server as usize];
        Role::Connmix(Box::new(Conn::new(peer, server, rules)))
    }

    /// A WebSocket connection was upgraded; the answer is queued.
    pub(super) fn connmix_upgraded(&mut self, slot: u32, peer: SocketAddr, upgrade: Upgrade) {
        let ClientProtocol::Connmix { server } = upgrade.protocol else { return };
        let rules = &self.engine.config.connmix_servers[server as usize];
        let mut conn = Conn::new(peer, server, rules);
        let (keeps, on_open) = (rules.keeps_head, |rule: &crate::config::model::Rule| {
            rule.on == On::Open && rule.uses.head
        });
        if keeps || rules.rules.iter().any(on_open) {
            let Upgrade { path, raw_query: query, headers, .. } = upgrade;
            conn.head = Some(Box::new(Head { path, query, headers }));
        }
        self.engine.conns[slot].role = Role::Connmix(Box::new(conn));
        self.connmix_opened(slot);
        // A rule for the open that waits needs it longer.
        if let Some(conn) = self.connmix(slot)
            && !keeps
            && conn.waits.is_none()
        {
            conn.head = None;
        }
    }

    /// The stream can be written to: the connection is registered and its first event happens.
    pub(super) fn connmix_opened(&mut self, slot: u32) {
        let id = self.engine.conns.id(slot);
        let Some(conn) = self.connmix(slot) else { return };
        if std::mem::replace(&mut conn.opened, true) {
            return;
        }
        self.engine.counters.opens += 1;
        self.connmix.clients += 1;
        self.engine.conns[slot].active_ms = self.engine.now.ms;
        self.engine.hub.insert(id);
        self.rearm(slot);
        self.connmix_event(slot, Event::Open);
    }

    /// Counts messages written to a client, and messages that could not be.
    pub(super) fn connmix_count(&mut self, slot: u32, sent: u64, failed: u64) {
        let conn = &self.engine.conns[slot];
        if !matches!(conn.role, Role::Connmix(_)) {
            return;
        }
        let counters = &mut self.engine.counters;
        if sent > 0 && conn.outbox.is_empty() {
            self.connmix.sends.taken(self.engine.conns.id(slot));
        }
        if conn.flags.has(Flags::WEBSOCKET) {
            counters.connmix_websocket_sent += sent;
            counters.connmix_websocket_failed += failed;
        } else {
            counters.connmix_socket_sent += sent;
            counters.connmix_socket_failed += failed;
        }
    }

    /// One WebSocket message.
    pub(super) fn connmix_message(&mut self, slot: u32, opcode: Opcode, data: &[u8]) {
        self.engine.counters.connmix_websocket_received += 1;
        let kind = match opcode {
            Opcode::Text => MessageType::Text,
            Opcode::Binary => MessageType::Binary,
        };
        self.connmix_event(slot, Event::Message(kind, data));
    }

    /// Bytes that one WebSocket message may have.
    pub(super) fn connmix_message_bytes_max(&self, slot: u32) -> u32 {
        match &self.engine.conns[slot].role {
            Role::Connmix(conn) => self.rules_of(conn).max_message,
            _ => 0,
        }
    }

    /// Bytes of a connection without WebSocket.
    pub(super) fn connmix_bytes(&mut self, slot: u32, data: &mut [u8]) {
        let Role::Connmix(conn) = &mut self.engine.conns[slot].role else { return };
        let mut framer = std::mem::take(&mut conn.framer);
        let (framing, server) = (conn.framing, conn.server as usize);
        let mut input = &*data;
        loop {
            let flags = self.engine.conns[slot].flags;
            if flags.has(Flags::GONE | Flags::DEAF | Flags::CLOSING) {
                return;
            }
            if flags.has(Flags::BLOCKED) || self.outbox_blocks(slot) {
                framer.stash(input);
                break;
            }
            let limit = self.engine.config.connmix_servers[server].max_message;
            match framer.next(&mut input, framing, limit) {
                Ok(None) => break,
                Ok(Some(message)) => self.connmix_stream_message(slot, server, message),
                Err(_) => {
                    self.engine.counters.protocol_violations += 1;
                    return self.close(slot, TOO_BIG);
                }
            }
        }
        if let Some(conn) = self.connmix(slot) {
            conn.framer = framer;
        }
    }

    fn connmix_stream_message(&mut self, slot: u32, server: usize, message: &[u8]) {
        self.shows_life(slot);
        self.engine.counters.messages_received += 1;
        self.engine.counters.connmix_socket_received += 1;
        self.engine.counters.message_bytes_received += message.len() as u64;
        let kind = match self.engine.config.connmix_servers[server].framing {
            ClientFraming::Length => MessageType::Binary,
            ClientFraming::Line | ClientFraming::JsonLine | ClientFraming::LengthText => {
                MessageType::Text
            }
        };
        if kind == MessageType::Text && simdutf8::basic::from_utf8(message).is_err() {
            self.engine.counters.protocol_violations += 1;
            return self.close(slot, NOT_UTF8);
        }
        self.connmix_event(slot, Event::Message(kind, message));
    }

    /// Runs the rules for an event.
    fn connmix_event(&mut self, slot: u32, event: Event<'_>) {
        let id = self.engine.conns.id(slot);
        let Role::Connmix(conn) = &self.engine.conns[slot].role else { return };
        let (client_id, node) = (self.engine.client_ids.encode(id), self.engine.config.node);
        let subject =
            conn.subject(client_id, node, self.homes(), self.engine.conns[slot].flags, event);
        let Desk { json, effects, .. } = &mut self.connmix;
        let rules = &self.engine.config.connmix_servers[conn.server as usize];
        let suspended = Run::new(rules, subject, &conn.context, json, effects).start();
        self.connmix_carry_out(slot, id, suspended);
    }

    /// Goes on with the rules of an event.
    fn connmix_resume(&mut self, slot: u32, how: Resumed<'_>) {
        let id = self.engine.conns.id(slot);
        let Some(waits) = self.connmix(slot).and_then(|conn| conn.waits.take()) else { return };
        let Role::Connmix(conn) = &self.engine.conns[slot].role else { return };
        let (client_id, node) = (self.engine.client_ids.encode(id), self.engine.config.node);
        let event = waits.suspended.event();
        let subject =
            conn.subject(client_id, node, self.homes(), self.engine.conns[slot].flags, event);
        let Desk { json, effects, .. } = &mut self.connmix;
        let rules = &self.engine.config.connmix_servers[conn.server as usize];
        let run = Run::new(rules, subject, &conn.context, json, effects);
        let suspended = run.resume(&waits.suspended, how);
        self.connmix_carry_out(slot, id, suspended);
        self.connmix_go_on(slot);
    }

    /// Handles what has arrived meanwhile, if nothing has to wait any more.
    fn connmix_go_on(&mut self, slot: u32) {
        let waits = self.connmix(slot).is_none_or(|conn| conn.waits());
        if !waits && self.engine.conns[slot].flags.has(Flags::BLOCKED) {
            self.engine.conns[slot].active_ms = self.engine.now.ms;
            self.rearm(slot);
            self.unblock(slot);
        }
    }

    /// When something is due on a connection that is not ending, milliseconds of the process clock.
    pub(super) fn connmix_deadline_ms(&self, slot: u32) -> u64 {
        let active_ms = self.engine.conns[slot].active_ms;
        let ms = |duration: std::time::Duration| duration.as_millis() as u64;
        let Role::Connmix(conn) = &self.engine.conns[slot].role else { return active_ms };
        if !conn.opened {
            return active_ms + ms(self.engine.config.runtime.handshake_timeout);
        }
        let rules = self.rules_of(conn);
        let read = ms(rules.read_timeout);
        let mut deadline = active_ms + read + 1;
        if rules.ping && !conn.pinged && self.engine.conns[slot].flags.has(Flags::WEBSOCKET) {
            deadline = active_ms + read / 2;
        }
        if let Some(waits) = &conn.waits {
            deadline = waits.until_ms.unwrap_or(self.engine.now.ms + read);
        }
        deadline.max(self.engine.now.ms + 1)
    }

    /// That time has come.
    pub(super) fn connmix_timed_out(&mut self, slot: u32) {
        let now_ms = self.engine.now.ms;
        let (active_ms, flags) = (self.engine.conns[slot].active_ms, self.engine.conns[slot].flags);
        let Role::Connmix(conn) = &self.engine.conns[slot].role else { return };
        let rules = self.rules_of(conn);
        let read = rules.read_timeout.as_millis();
        let silent_ms = now_ms.saturating_sub(active_ms) as u128;
        let late = |until_ms: u64| until_ms <= now_ms;
        if !conn.opened {
            self.engine.counters.handshake_timeouts += 1;
            return self.finish(slot);
        }
        let waited = conn.waits.as_ref().and_then(|waits| waits.until_ms).is_some_and(late);
        let pings = rules.ping && !conn.pinged && flags.has(Flags::WEBSOCKET);
        if waited {
            return self.connmix_resume(slot, Resumed::Waited);
        }
        if flags.has(Flags::BLOCKED) {
            // A client that is not handled can not show that it is alive.
            self.engine.conns[slot].active_ms = now_ms;
        } else if silent_ms > read {
            self.engine.counters.idle_timeouts += 1;
            return self.close(slot, READ_TIMEOUT);
        } else if pings && silent_ms >= read / 2 {
            if let Some(conn) = self.connmix(slot) {
                conn.pinged = true;
            }
            self.push(slot, websocket::ping());
        }
        self.rearm(slot);
    }

    /// The connection is closing: it waits for nothing any more but the peer's close.
    pub(super) fn connmix_give_up(&mut self, slot: u32) {
        let Some(conn) = self.connmix(slot) else { return };
        conn.waits = None;
        conn.full = 0;
        if self.engine.conns[slot].flags.has(Flags::BLOCKED) {
            self.unblock(slot);
        }
    }

    /// The queue that was full has room again.
    pub(super) fn connmix_push_room(&mut self, client: ConnId) {
        let Some(slot) = self.engine.hub.slot_of(client) else { return };
        if let Some(conn) = self.connmix(slot) {
            conn.full = conn.full.saturating_sub(1);
            self.connmix_go_on(slot);
        }
    }

    /// Sets and deletes values of the client's context. False: it would become too large.
    pub(super) fn connmix_set_context(&mut self, slot: u32, values: &[ContextValue]) -> bool {
        let Some(conn) = self.connmix(slot) else { return false };
        if conn.context.set(values).is_err() {
            return false;
        }
        if conn.waits.as_ref().is_some_and(|waits| waits.suspended.is_over(&conn.context)) {
            self.connmix_resume(slot, Resumed::Waited);
        }
        true
    }
}
