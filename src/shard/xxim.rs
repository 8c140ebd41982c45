//! xxim clients of this shard: the socket side of what [`crate::edge::xxim`] decides (xxim
//! specification).
//!
//! The parts: here the life of a connection, `login` set-params, set-user and who holds which
//! triple, `checks` requests that a backend must permit, `http` requests without a WebSocket,
//! `requests` the way to upstreams and back, `push` what backends send, `seal` encryption.
//! Invariants: a connection at a barrier, with as many requests under way as it may have, or that
//! does not take its answers, is not read; a response is never dropped, only given up together with
//! its connection. Costs: one box per connection; see the parts for messages.

mod checks;
mod http;
mod login;
mod push;
mod requests;
mod seal;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::edge::upgrade::Opening as Upgrade;
use crate::edge::xxim::{
    Client, Close, InFlight, Step, Triple, client_ip, first_values, query_login,
};
use crate::hub::push::CloseReason;
use crate::metrics::DropReason;
use crate::shard::Shard;
use crate::shard::audit::LEFT_SPARE;
use crate::shard::conns::{Flags, Role};
use crate::shard::later::Seal;
use crate::shard::lists;
use crate::shard::rows;
use crate::wire::websocket::{self, Opcode};
use crate::wire::xxim::{Carrier, EVENT_AFTER_CONNECT, GREETING, Identity, Push, proto, tcp};

pub use http::{HttpConn, Piece};
pub use push::{is_large, make};
pub use requests::State;

/// Pings without an answer after which a client is gone (section 1.6).
const MISSED_MAX: u8 = 2;
/// The largest message that the original's clients take with the settings of their library
/// (section 1.4); larger ones are counted.
const COMMON_MESSAGE_BYTES: usize = 32_768;
const IDLE: CloseReason = CloseReason { code: 1001, text: "heartbeat timeout" };

/// What the shard keeps of one connection.
#[derive(Debug)]
pub struct Conn {
    /// Address of the peer.
    pub peer: SocketAddr,
    client: Client,
    in_flight: InFlight,
    /// The request that a backend is being asked about.
    check: Option<Bytes>,
    /// Until when the last permission counts, milliseconds of the process clock.
    permitted_ms: u64,
    /// In the list of those who wait for room among the requests of the shard.
    waiting: bool,
    /// Number of the question that the barrier waits for.
    number: u32,
    /// The triple that was claimed at its home; none once the connection is closing.
    held: Option<Triple>,
    /// Its place in the order of accepting; see [`crate::shard::Shared::next_in_order`].
    order: u64,
    /// Frames of the TCP variant.
    reader: tcp::FrameReader,
    accepted_ms: u64,
    pinged_ms: u64,
    /// Pings since the last sign of life.
    unanswered: u8,
    /// The greeting was sent.
    greeted: bool,
    /// Who the hooks were told has come, and when, Unix milliseconds.
    announced: Option<(Arc<Identity>, u64)>,
}

impl Conn {
    /// Whether requests are not answered yet.
    pub(super) fn owes_answers(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// A connection that was just accepted.
    pub fn new(peer: SocketAddr) -> Conn {
        Conn::with(peer, Client::new(Identity::default(), None))
    }

    fn with(peer: SocketAddr, client: Client) -> Conn {
        Conn {
            peer,
            client,
            in_flight: InFlight::default(),
            check: None,
            permitted_ms: 0,
            waiting: false,
            number: 0,
            held: None,
            order: 0,
            reader: tcp::FrameReader::default(),
            accepted_ms: 0,
            pinged_ms: 0,
            unanswered: 0,
            greeted: false,
            announced: None,
        }
    }
}

impl Shard {
    pub(super) fn xxim(&mut self, slot: u32) -> Option<&mut Conn> {
        match &mut self.engine.conns[slot].role {
            Role::Xxim(conn) => Some(conn),
            _ => None,
        }
    }

    /// A WebSocket connection was upgraded; the answer is queued.
    pub(super) fn xxim_upgraded(&mut self, slot: u32, peer: SocketAddr, upgrade: Upgrade) {
        let config = &self.engine.config.xxim;
        let Upgrade { headers, x_forwarded_for, x_real_ip, raw_query, .. } = upgrade;
        let user_agent = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("User-Agent"));
        let mut identity = Identity {
            ip: client_ip(peer, &x_forwarded_for, &x_real_ip, &config.trusted_proxies),
            user_agent: user_agent.map(|(_, value)| value.clone()).unwrap_or_default(),
            headers: first_values(headers),
            ..Identity::default()
        };
        let login = match config.query_auth {
            true => query_login(&raw_query, &mut identity),
            false => None,
        };
        // A client that logs in by its query gets no greeting, and so no seed (section 3.7).
        self.xxim_opened(slot, peer, identity, login.is_none());
        let Some((user, token)) = login else { return };
        let config = self.engine.config.clone();
        let Some(conn) = self.xxim(slot) else { return };
        let step = conn.client.query_login(&user, &token, &config.xxim);
        self.xxim_step(slot, step);
    }

    /// A connection without WebSocket was accepted, or its TLS handshake is over.
    pub(super) fn xxim_accepted(&mut self, slot: u32) {
        let secure = !self.engine.conns[slot].is_handshaking();
        let websocket = self.engine.conns[slot].flags.has(Flags::WEBSOCKET);
        let Some(conn) = self.xxim(slot) else { return };
        if websocket || conn.greeted || !secure {
            return;
        }
        let peer = conn.peer;
        let ip = peer.ip().to_canonical().to_string();
        self.xxim_opened(slot, peer, Identity { ip, ..Identity::default() }, true);
        self.xxim.over_tcp += 1;
        if self.xxim.over_tcp > self.engine.config.xxim.tcp.connections_max {
            self.engine.counters.opens_refused += 1;
            self.engine.linger(slot);
        }
    }

    fn xxim_opened(&mut self, slot: u32, peer: SocketAddr, mut identity: Identity, greet: bool) {
        let order = self.engine.shared.next_in_order(self.engine.now.unix_ms);
        identity.accepted_unix_ms = i64::try_from(order / 1000).unwrap_or(i64::MAX);
        let seed = (greet && self.engine.config.xxim.crypto.server_iv).then(server_seed);
        let greeting = seed.as_ref().map(|seed| after_connect(seed));
        let mut conn = Conn::with(peer, Client::new(identity, seed));
        conn.order = order;
        conn.accepted_ms = self.engine.now.ms;
        conn.pinged_ms = self.engine.now.ms;
        conn.greeted = true;
        self.engine.turn_into(slot, Role::Xxim(Box::new(conn)), rows::XXIM);
        self.engine.counters.opens += 1;
        let websocket = self.engine.conns[slot].flags.has(Flags::WEBSOCKET);
        self.engine.conns[slot].form =
            if websocket { lists::XXIM_WEBSOCKET } else { lists::XXIM_TCP };
        self.engine.join(slot);
        if greet {
            let carrier = self.carrier(slot);
            self.engine.push(slot, carrier.text(GREETING));
            if let Some(body) = greeting {
                let push = Push { event: EVENT_AFTER_CONNECT, data: &body, wrapped: false };
                self.engine.push(slot, carrier.binary(&push, None));
            }
        }
        self.xxim_rearm(slot);
    }

    fn carrier(&self, slot: u32) -> Carrier {
        match self.engine.conns[slot].flags.has(Flags::WEBSOCKET) {
            true => Carrier::WebSocket,
            false => Carrier::Tcp,
        }
    }

    /// One WebSocket message.
    pub(super) fn xxim_message(&mut self, slot: u32, opcode: Opcode, data: &[u8]) {
        match opcode {
            Opcode::Text => self.engine.counters.xxim_text_ignored += 1,
            Opcode::Binary => self.xxim_request(slot, data),
        }
    }

    /// Whether the next message can be handled now; if not, the connection is blocked.
    pub(super) fn xxim_ready(&mut self, slot: u32) -> bool {
        if self.engine.conns[slot].flags.has(Flags::CLOSING) || self.xxim_can_go_on(slot) {
            return true;
        }
        if !self.engine.outbox_blocks(slot) {
            self.engine.block(slot);
        }
        self.xxim_await_room(slot);
        false
    }

    /// If a blocked connection could not go on for want of room among the requests of the shard, it
    /// waits for that.
    fn xxim_await_room(&mut self, slot: u32) {
        if self.xxim.under_way < self.engine.config.xxim.shard_requests_max {
            return;
        }
        let id = self.engine.conns.id(slot);
        if self.xxim(slot).is_some_and(|conn| !std::mem::replace(&mut conn.waiting, true)) {
            self.xxim.waiting.push_back(id);
        }
        // Of those who have left only so many stay in the list.
        if self.xxim.waiting.len() > 2 * self.engine.conns.len() + LEFT_SPARE {
            let conns = &self.engine.conns;
            self.xxim.waiting.retain(|id| conns.slot(*id).is_some());
        }
    }

    fn xxim_can_go_on(&self, slot: u32) -> bool {
        let Role::Xxim(conn) = &self.engine.conns[slot].role else { return true };
        let config = &self.engine.config.xxim;
        !conn.client.at_barrier()
            && conn.check.is_none()
            && conn.in_flight.len() < config.requests_max as usize
            && self.xxim.under_way < config.shard_requests_max
            && !self.engine.is_full(slot)
    }

    /// Goes on with a connection whose reason to wait may be gone.
    pub(super) fn xxim_resume(&mut self, slot: u32) {
        let flags = self.engine.conns[slot].flags;
        if !flags.has(Flags::BLOCKED) || flags.has(Flags::GONE) {
            return;
        }
        match self.xxim_can_go_on(slot) {
            true => self.engine.read_on(slot),
            // Its own reason may be gone while its outbox is full or others have taken the room.
            false => {
                self.engine.outbox_blocks(slot);
                self.xxim_await_room(slot);
            }
        }
    }

    /// Lets clients go on that waited for room among the requests of the shard.
    pub(super) fn xxim_give_room(&mut self) {
        let most = self.xxim.waiting.len().min(crate::limits::XXIM_GIVEN_PER_TURN);
        for _ in 0..most {
            if self.xxim.under_way >= self.engine.config.xxim.shard_requests_max {
                return;
            }
            let Some(id) = self.xxim.waiting.pop_front() else { return };
            if let Some(slot) = self.engine.conns.slot(id) {
                if let Some(conn) = self.xxim(slot) {
                    conn.waiting = false;
                }
                self.xxim_resume(slot);
            }
        }
    }

    /// Handles the next frame of a bare stream. False: there is none, or the client must wait.
    pub(super) fn xxim_next(&mut self, slot: u32, input: &mut &[u8]) -> bool {
        if self.engine.conns[slot].flags.has(Flags::GONE | Flags::DEAF) {
            return false;
        }
        let may_read = self.engine.takes(slot) && self.xxim_ready(slot);
        let bytes_max = self.engine.config.xxim.tcp.message_bytes_max;
        let Some(conn) = self.xxim(slot) else { return false };
        if !may_read {
            conn.reader.stash(input);
            *input = &[];
            return false;
        }
        let mut reader = std::mem::take(&mut conn.reader);
        let more = match reader.next(input, bytes_max) {
            Ok(None) => false,
            Ok(Some(frame)) => {
                self.engine.conns[slot].active_ms = self.engine.now.ms;
                self.engine.counters.messages_received += 1;
                self.engine.counters.message_bytes_received += frame.payload.len() as u64;
                match frame.kind {
                    tcp::BINARY => self.xxim_request(slot, frame.payload),
                    _ => self.engine.counters.xxim_text_ignored += 1,
                }
                true
            }
            Err(_) => {
                self.engine.counters.protocol_violations += 1;
                if !self.engine.says_last(slot, Bytes::new) {
                    self.engine.finish(slot);
                }
                return false;
            }
        };
        if let Some(conn) = self.xxim(slot) {
            conn.reader = reader;
        }
        more
    }

    /// The keys of a connection may have changed: what is pushed to it from now on is encrypted
    /// under them.
    fn xxim_note_keys(&mut self, slot: u32) {
        let conn = &mut self.engine.conns[slot];
        let Role::Xxim(own) = &conn.role else { return };
        let cipher = own.client.cipher();
        if cipher.is_none() && conn.form != lists::XXIM_SEALED {
            return;
        }
        conn.form = match (cipher, conn.flags.has(Flags::WEBSOCKET)) {
            (Some(_), _) => lists::XXIM_SEALED,
            (None, true) => lists::XXIM_WEBSOCKET,
            (None, false) => lists::XXIM_TCP,
        };
        let seal = cipher.map(|cipher| cipher.clone() as Rc<dyn Seal>);
        conn.set_seal(seal);
    }

    /// Carries out what the protocol decided; a request that goes to an upstream is not among it.
    pub(super) fn xxim_step(&mut self, slot: u32, step: Step<'_>) {
        self.xxim_note_keys(slot);
        match step {
            Step::Nothing => {}
            Step::Answer(answer) => {
                self.xxim_respond(slot, &answer.head, answer.code, &answer.data);
                if let Some(close) = answer.close {
                    self.xxim_close(slot, &close);
                }
            }
            Step::Close(close) => self.xxim_close(slot, &close),
            Step::Unwrap { key, iv } => self.xxim_unwrap(slot, key, iv),
            Step::Verify(login) => self.xxim_verify(slot, login),
            Step::Claim(triple) => self.xxim_claim(slot, triple),
            Step::Check(request) => self.xxim_check(slot, &request),
            Step::Forward(request) => self.xxim_forward(slot, &request),
        }
    }

    /// Says goodbye with this code and text, behind the answers under way.
    pub(super) fn xxim_close(&mut self, slot: u32, close: &Close) {
        self.engine.close_with(slot, close.code, &close.text);
    }

    /// The client has left: its triple is free for others, and the hooks are told.
    pub(super) fn xxim_left(&mut self, slot: u32) {
        self.engine.counters.closes += 1;
        let id = self.engine.conns.id(slot);
        let Some(conn) = self.xxim(slot) else { return };
        if let Some(announced) = conn.announced.take() {
            self.xxim_tell_departure(id, announced);
        }
        if let Some(triple) = self.xxim(slot).and_then(|conn| conn.held.take()) {
            self.xxim_release(triple, id);
        }
    }

    /// Whether a client that waits for room among the requests of the shard could have it.
    pub(super) fn xxim_has_room(&self) -> bool {
        !self.xxim.waiting.is_empty()
            && self.xxim.under_way < self.engine.config.xxim.shard_requests_max
    }

    /// Sets when something is due on a connection.
    pub(super) fn xxim_rearm(&mut self, slot: u32) {
        let conn = &self.engine.conns[slot];
        let Role::Xxim(own) = &conn.role else { return };
        let config = &self.engine.config.xxim;
        let mut due_ms = u64::MAX;
        let mut by = |from_ms: u64, time: Duration| {
            if !time.is_zero() {
                due_ms = due_ms.min(from_ms + time.as_millis() as u64);
            }
        };
        if own.client.version().is_none() && own.held.is_none() {
            by(own.accepted_ms, config.params_timeout);
        }
        if own.held.is_none() {
            by(own.accepted_ms, config.login_timeout);
        }
        if conn.flags.has(Flags::WEBSOCKET) {
            by(own.pinged_ms, config.ping_interval);
        }
        self.engine.set_due(slot, due_ms);
    }

    /// That time has come.
    pub(super) fn xxim_due(&mut self, slot: u32) {
        let now_ms = self.engine.now.ms;
        let Role::Xxim(own) = &self.engine.conns[slot].role else { return };
        let config = &self.engine.config.xxim;
        let over = |from_ms: u64, time: Duration| {
            !time.is_zero() && from_ms + time.as_millis() as u64 <= now_ms
        };
        let unnamed =
            own.client.version().is_none() && over(own.accepted_ms, config.params_timeout);
        if own.held.is_none() && (unnamed || over(own.accepted_ms, config.login_timeout)) {
            self.engine.counters.handshake_timeouts += 1;
            return self.xxim_close(slot, &Close::TIMEOUT);
        }
        let websocket = self.engine.conns[slot].flags.has(Flags::WEBSOCKET);
        if websocket && over(own.pinged_ms, config.ping_interval) {
            return self.xxim_ping(slot);
        }
        self.xxim_rearm(slot);
    }

    fn xxim_ping(&mut self, slot: u32) {
        let conn = &mut self.engine.conns[slot];
        let Role::Xxim(own) = &mut conn.role else { return };
        // A client that is not being read can not show that it is alive.
        if conn.active_ms >= own.pinged_ms || conn.flags.has(Flags::BLOCKED) {
            own.unanswered = 0;
        }
        if own.unanswered >= MISSED_MAX {
            self.engine.counters.idle_timeouts += 1;
            return self.engine.close(slot, IDLE);
        }
        own.unanswered += 1;
        own.pinged_ms = self.engine.now.ms;
        let ping = websocket::ping();
        if conn.outbox.has_room(ping.len(), self.engine.config.runtime.outbox_bytes_max) {
            self.engine.push(slot, ping);
        }
        self.xxim_rearm(slot);
    }

    /// The connection is gone.
    pub(super) fn xxim_departed(&mut self, slot: u32, conn: Conn) {
        let id = self.engine.conns.id(slot);
        let flags = self.engine.conns[slot].flags;
        let kept = flags.has(Flags::UNREAD) || conn.reader.has_kept();
        let asked = conn.client.at_barrier() || conn.check.is_some();
        if asked || flags.has(Flags::BLOCKED) && kept {
            self.engine.dropped(DropReason::Unread, 1);
        }
        if !flags.has(Flags::WEBSOCKET) && conn.greeted {
            self.xxim.over_tcp -= 1;
        }
        self.xxim_leave(id, conn.in_flight.numbers());
    }
}

/// The seed of an IV as the original makes it: 32 hex characters (section 3.7).
fn server_seed() -> Zeroizing<Vec<u8>> {
    let mut random = Zeroizing::new([0; 16]);
    let provider = rustls::crypto::ring::default_provider();
    provider.secure_random.fill(&mut *random).expect("the kernel has random numbers");
    let hex = random.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
    Zeroizing::new(hex.map(digit).collect())
}

fn after_connect(seed: &[u8]) -> Vec<u8> {
    let aes_iv = String::from_utf8_lossy(seed).into_owned();
    prost::Message::encode_to_vec(&proto::AfterConnectBody { aes_iv })
}
