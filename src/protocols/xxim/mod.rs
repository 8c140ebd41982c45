//! xxim clients of this shard: the socket side of what [`rules`] decides (xxim specification).
//!
//! The parts: here the life of a connection, `login` set-params, set-user and who holds which
//! triple, `checks` requests that a backend must permit, `http` requests without a WebSocket,
//! `requests` the way to upstreams and back, `push` what backends send, `seal` encryption.
//! Invariants: a connection at a barrier, with as many requests under way as it may have, or that
//! does not take its answers, is not read; a response is never dropped, only given up together with
//! its connection. Costs: one entry of a slab per connection; see the parts for messages.

mod checks;
pub mod config;
mod describe;
mod http;
mod http_answers;
pub mod letters;
pub mod limits;
mod login;
mod push;
mod requests;
pub mod rules;
mod seal;
pub mod service;
pub mod wire;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::engine::Engine;
use crate::engine::LEFT_SPARE;
use crate::engine::conns::Flags;
use crate::engine::later::Seal;
use crate::engine::look::Notes;
use crate::engine::tenant::Tenant;
use crate::engine::tenant::Upgrade;
use crate::hub::Departed;
use crate::hub::login::Verdict;
use crate::hub::push::CloseReason;
use crate::lists::letters::SidecarRequest;
use crate::lists::numbers;
use crate::lists::numbers::kind;
use crate::metrics::{DropReason, Gauges};
use crate::protocols::xxim::letters::Letter;
use crate::protocols::xxim::rules::{
    Client, Close, InFlight, Step, Triple, first_values, query_login,
};
use crate::protocols::xxim::wire::{Carrier, EVENT_AFTER_CONNECT, GREETING, Identity, Push, tcp};
use crate::spare::Look;
use crate::wire::websocket::{self, Opcode};

pub use http::{HttpConn, Piece};
pub use push::{is_large, make};
pub use requests::{Sections, Xxim};

/// Pings without an answer after which a client is gone (section 1.6).
const MISSED_MAX: u8 = 2;
/// The largest message that the original's clients take with the settings of their library
/// (section 1.4); larger ones are counted.
const COMMON_MESSAGE_BYTES: usize = 32_768;
const IDLE: CloseReason = CloseReason::new(1001, "heartbeat timeout");

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
    /// Its place in the order of accepting; see [`crate::engine::Shared::next_in_order`].
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
    pub(crate) fn owes_answers(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// A connection that was just accepted.
    fn new(peer: SocketAddr) -> Conn {
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

impl Xxim {
    pub(crate) fn xxim(&mut self, engine: &Engine, slot: u32) -> Option<&mut Conn> {
        self.conns.of_mut(engine.index(slot, kind::XXIM))
    }

    fn add(&mut self, engine: &mut Engine, slot: u32, conn: Conn) {
        if let Some(before) = engine.index(slot, kind::XXIM) {
            self.conns.remove(before);
        }
        let index = self.conns.insert(conn);
        engine.turn_into(slot, kind::XXIM, index, self.row);
    }

    fn enter(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        peer: SocketAddr,
        mut identity: Identity,
        greet: bool,
    ) {
        let order = engine.shared.next_in_order(engine.now.unix_ms);
        identity.accepted_unix_ms = i64::try_from(order / 1000).unwrap_or(i64::MAX);
        let seed = (greet && self.config.xxim.crypto.server_iv).then(seal::server_seed);
        let greeting = seed.as_ref().map(|seed| seal::after_connect(seed));
        let mut conn = Conn::with(peer, Client::new(identity, seed));
        conn.order = order;
        conn.accepted_ms = engine.now.ms;
        conn.pinged_ms = engine.now.ms;
        conn.greeted = true;
        self.add(engine, slot, conn);
        engine.counters.opens += 1;
        let websocket = engine.conns[slot].flags.has(Flags::WEBSOCKET);
        engine.conns[slot].form =
            if websocket { numbers::XXIM_WEBSOCKET } else { numbers::XXIM_TCP };
        engine.join(slot);
        if greet {
            let carrier = self.carrier(engine, slot);
            engine.push(slot, carrier.text(GREETING));
            if let Some(body) = greeting {
                let push = Push { event: EVENT_AFTER_CONNECT, data: &body, wrapped: false };
                engine.push(slot, carrier.binary(&push, None));
            }
        }
        self.rearm(engine, slot);
    }

    fn carrier(&self, engine: &Engine, slot: u32) -> Carrier {
        match engine.conns[slot].flags.has(Flags::WEBSOCKET) {
            true => Carrier::WebSocket,
            false => Carrier::Tcp,
        }
    }

    /// If a blocked connection could not go on for want of room among the requests of the shard, it
    /// waits for that.
    fn await_room(&mut self, engine: &mut Engine, slot: u32) {
        if self.under_way < self.config.xxim.shard_requests_max {
            return;
        }
        let id = engine.conns.id(slot);
        if self.xxim(engine, slot).is_some_and(|conn| !std::mem::replace(&mut conn.waiting, true)) {
            self.waiting.push_back(id);
        }
        // Of those who have left only so many stay in the list.
        if self.waiting.len() > 2 * engine.conns.len() + LEFT_SPARE {
            let conns = &engine.conns;
            self.waiting.retain(|id| conns.slot(*id).is_some());
        }
    }

    fn can_go_on(&self, engine: &Engine, slot: u32) -> bool {
        let Some(conn) = self.conns.of(engine.index(slot, kind::XXIM)) else { return true };
        let config = &self.config.xxim;
        !conn.client.at_barrier()
            && conn.check.is_none()
            && conn.in_flight.len() < config.requests_max as usize
            && self.under_way < config.shard_requests_max
            && !engine.is_full(slot)
    }

    /// Goes on with a connection whose reason to wait may be gone.
    pub(crate) fn resume(&mut self, engine: &mut Engine, slot: u32) {
        let flags = engine.conns[slot].flags;
        if !flags.has(Flags::BLOCKED) || flags.has(Flags::GONE) {
            return;
        }
        match self.can_go_on(engine, slot) {
            true => engine.read_on(slot),
            // Its own reason may be gone while its outbox is full or others have taken the room.
            false => {
                engine.outbox_blocks(slot);
                self.await_room(engine, slot);
            }
        }
    }

    /// A letter of another thread.
    pub(crate) fn letter(&mut self, engine: &mut Engine, letter: Letter) {
        match letter {
            Letter::UpstreamAnswered { conn, number, result } => {
                self.answered(engine, conn, number, &result);
            }
            Letter::Unwrapped { conn, number, seeds } => {
                self.unwrapped(engine, conn, number, seeds);
            }
            Letter::Push { work, reply } => {
                let pushed = self.push(engine, &work);
                // Nobody waits any more if it fails.
                let _ = reply.send(pushed);
            }
            Letter::Logins { from } => self.tell_logins(engine, from),
            Letter::Checked { conn, number, permission } => {
                self.checked(engine, conn, number, permission);
            }
            Letter::Claim { triple, conn, order } => {
                self.claim_from(engine, triple, conn, order);
            }
            Letter::Claimed { triple, conn, held } => self.claimed(engine, &triple, conn, held),
            Letter::Displaced { triple, conn } => self.displaced(engine, &triple, conn),
            Letter::Release { triple, conn } => self.release(engine, triple, conn),
        }
    }

    /// The keys of a connection may have changed: what is pushed to it from now on is encrypted
    /// under them.
    fn note_keys(&mut self, engine: &mut Engine, slot: u32) {
        let index = engine.index(slot, kind::XXIM);
        let Some(own) = self.conns.of(index) else { return };
        let cipher = own.client.cipher();
        let same = match (cipher, engine.conns.seal(slot)) {
            (None, _) => engine.conns[slot].form != numbers::XXIM_SEALED,
            (Some(cipher), Some(seal)) => std::ptr::addr_eq(Rc::as_ptr(cipher), Rc::as_ptr(seal)),
            (Some(_), None) => false,
        };
        if same {
            return;
        }
        let conn = &mut engine.conns[slot];
        conn.form = match (cipher, conn.flags.has(Flags::WEBSOCKET)) {
            (Some(_), _) => numbers::XXIM_SEALED,
            (None, true) => numbers::XXIM_WEBSOCKET,
            (None, false) => numbers::XXIM_TCP,
        };
        let seal = cipher.map(|cipher| cipher.clone() as Rc<dyn Seal>);
        engine.conns.set_seal(slot, seal);
    }

    /// Carries out what the protocol decided; a request that goes to an upstream is not among it.
    pub(crate) fn step(&mut self, engine: &mut Engine, slot: u32, step: Step<'_>) {
        // A request that goes on to an upstream says nothing of keys.
        if !matches!(step, Step::Forward(_)) {
            self.note_keys(engine, slot);
        }
        match step {
            Step::Nothing => {}
            Step::Answer(answer) => {
                self.respond(engine, slot, &answer.head, answer.code, &answer.data);
                if let Some(close) = answer.close {
                    self.close(engine, slot, &close);
                }
            }
            Step::Close(close) => self.close(engine, slot, &close),
            Step::Unwrap { key, iv } => self.unwrap(engine, slot, key, iv),
            Step::Verify(login) => self.verify(engine, slot, login),
            Step::Claim(triple) => self.claim(engine, slot, triple),
            Step::Check(request) => self.check(engine, slot, &request),
            Step::Forward(request) => self.forward(engine, slot, &request),
        }
    }

    /// Says goodbye with this code and text, behind the answers under way.
    pub(crate) fn close(&mut self, engine: &mut Engine, slot: u32, close: &Close) {
        engine.close_with(slot, close.code, &close.text);
    }

    /// Sets when something is due on a connection.
    pub(crate) fn rearm(&mut self, engine: &mut Engine, slot: u32) {
        let conn = &engine.conns[slot];
        let Some(own) = self.conns.of(engine.index(slot, kind::XXIM)) else { return };
        let config = &self.config.xxim;
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
        engine.set_due(slot, due_ms);
    }

    fn ping(&mut self, engine: &mut Engine, slot: u32) {
        let index = engine.index(slot, kind::XXIM);
        let Some(own) = self.conns.of_mut(index) else { return };
        let conn = &mut engine.conns[slot];
        // A client that is not being read can not show that it is alive.
        if conn.active_ms >= own.pinged_ms || conn.flags.has(Flags::BLOCKED) {
            own.unanswered = 0;
        }
        if own.unanswered >= MISSED_MAX {
            engine.counters.idle_timeouts += 1;
            return engine.close(slot, IDLE);
        }
        own.unanswered += 1;
        own.pinged_ms = engine.now.ms;
        let ping = websocket::ping();
        if conn.outbox.has_room(ping.len(), engine.settings.outbox_bytes_max) {
            engine.push(slot, ping);
        }
        self.rearm(engine, slot);
    }
}

impl Tenant for Xxim {
    fn accepted(&mut self, engine: &mut Engine, slot: u32, peer: SocketAddr) {
        self.add(engine, slot, Conn::new(peer));
    }

    fn opened(&mut self, engine: &mut Engine, slot: u32) {
        let secure = !engine.conns[slot].is_handshaking();
        let websocket = engine.conns[slot].flags.has(Flags::WEBSOCKET);
        let Some(conn) = self.xxim(engine, slot) else { return };
        if websocket || conn.greeted || !secure {
            return;
        }
        let peer = conn.peer;
        let ip = peer.ip().to_canonical().to_string();
        self.enter(engine, slot, peer, Identity { ip, ..Identity::default() }, true);
        self.over_tcp += 1;
        if self.over_tcp > self.config.xxim.tcp.connections_max {
            engine.counters.opens_refused += 1;
            engine.linger(slot);
        }
    }

    /// A WebSocket connection was upgraded; the answer is queued.
    fn upgraded(&mut self, engine: &mut Engine, slot: u32, peer: SocketAddr, upgrade: Upgrade) {
        let config = &self.config.xxim;
        let Upgrade { headers, raw_query, .. } = upgrade;
        let user_agent = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("User-Agent"));
        let mut identity = Identity {
            ip: peer.ip().to_canonical().to_string(),
            user_agent: user_agent.map(|(_, value)| value.clone()).unwrap_or_default(),
            headers: first_values(headers),
            ..Identity::default()
        };
        let login = match config.query_auth {
            true => query_login(&raw_query, &mut identity),
            false => None,
        };
        // A client that logs in by its query gets no greeting, and so no seed (section 3.7).
        self.enter(engine, slot, peer, identity, login.is_none());
        let Some((user, token)) = login else { return };
        let config = self.config.clone();
        let Some(conn) = self.xxim(engine, slot) else { return };
        let step = conn.client.query_login(&user, &token, &config.xxim);
        self.step(engine, slot, step);
    }

    /// Whether the next message can be handled now; if not, the connection is blocked.
    fn ready(&mut self, engine: &mut Engine, slot: u32) -> bool {
        if engine.conns[slot].flags.has(Flags::CLOSING) || self.can_go_on(engine, slot) {
            return true;
        }
        if !engine.outbox_blocks(slot) {
            engine.block(slot);
        }
        self.await_room(engine, slot);
        false
    }

    /// One WebSocket message.
    fn message(&mut self, engine: &mut Engine, slot: u32, opcode: Opcode, data: &[u8]) {
        match opcode {
            Opcode::Text => engine.counters.xxim_text_ignored += 1,
            Opcode::Binary => self.request(engine, slot, data),
        }
    }

    /// Handles the next frame of a bare stream. False: there is none, or the client must wait.
    fn next(&mut self, engine: &mut Engine, slot: u32, input: &mut &[u8]) -> bool {
        if engine.conns[slot].flags.has(Flags::GONE | Flags::DEAF) {
            return false;
        }
        let may_read = engine.takes(slot) && self.ready(engine, slot);
        let bytes_max = self.config.xxim.tcp.message_bytes_max;
        let Some(conn) = self.xxim(engine, slot) else { return false };
        if !may_read {
            conn.reader.stash(input);
            *input = &[];
            return false;
        }
        let mut reader = std::mem::take(&mut conn.reader);
        let more = match reader.next(input, bytes_max) {
            Ok(None) => false,
            Ok(Some(frame)) => {
                engine.conns[slot].active_ms = engine.now.ms;
                engine.message_came(slot, frame.payload.len());
                match frame.kind {
                    tcp::BINARY => self.request(engine, slot, frame.payload),
                    _ => engine.counters.xxim_text_ignored += 1,
                }
                true
            }
            Err(_) => {
                engine.counters.protocol_violations += 1;
                if !engine.says_last(slot, Bytes::new) {
                    engine.finish(slot);
                }
                return false;
            }
        };
        if let Some(conn) = self.xxim(engine, slot) {
            conn.reader = reader;
        }
        more
    }

    /// The client has left: its triple is free for others, and the hooks are told.
    fn left(&mut self, engine: &mut Engine, slot: u32, _: &Departed) {
        engine.counters.closes += 1;
        let id = engine.conns.id(slot);
        let Some(conn) = self.xxim(engine, slot) else { return };
        if let Some(announced) = conn.announced.take() {
            self.tell_departure(engine, id, announced);
        }
        if let Some(triple) = self.xxim(engine, slot).and_then(|conn| conn.held.take()) {
            self.release(engine, triple, id);
        }
    }

    /// The connection is gone.
    fn gone(&mut self, engine: &mut Engine, slot: u32) {
        if engine.conns[slot].kind == kind::XXIM_HTTP {
            return self.http_gone(engine, slot);
        }
        let index = engine.index(slot, kind::XXIM);
        let Some(conn) = index.and_then(|index| self.conns.remove(index)) else { return };
        let id = engine.conns.id(slot);
        let flags = engine.conns[slot].flags;
        let kept = flags.has(Flags::UNREAD) || conn.reader.has_kept();
        let asked = conn.client.at_barrier() || conn.check.is_some();
        if asked || flags.has(Flags::BLOCKED) && kept {
            engine.dropped(DropReason::Unread, 1);
        }
        if !flags.has(Flags::WEBSOCKET) && conn.greeted {
            self.over_tcp -= 1;
        }
        self.leave(id, conn.in_flight.numbers());
    }

    /// That time has come.
    fn due(&mut self, engine: &mut Engine, slot: u32) {
        if engine.conns[slot].kind == kind::XXIM_HTTP {
            return self.http_due(engine, slot);
        }
        let now_ms = engine.now.ms;
        let Some(own) = self.conns.of(engine.index(slot, kind::XXIM)) else { return };
        let config = &self.config.xxim;
        let over = |from_ms: u64, time: Duration| {
            !time.is_zero() && from_ms + time.as_millis() as u64 <= now_ms
        };
        let unnamed =
            own.client.version().is_none() && over(own.accepted_ms, config.params_timeout);
        if own.held.is_none() && (unnamed || over(own.accepted_ms, config.login_timeout)) {
            engine.counters.handshake_timeouts += 1;
            return self.close(engine, slot, &Close::TIMEOUT);
        }
        let websocket = engine.conns[slot].flags.has(Flags::WEBSOCKET);
        if websocket && over(own.pinged_ms, config.ping_interval) {
            return self.ping(engine, slot);
        }
        self.rearm(engine, slot);
    }

    /// For tests: whether nothing is kept of any connection.
    fn has_nobody(&self) -> bool {
        self.conns.is_empty() && self.https.is_empty()
    }

    fn verified(&mut self, engine: &mut Engine, slot: u32, number: u32, verdict: Verdict) {
        match engine.conns[slot].kind {
            kind::XXIM_HTTP => self.http_verified(engine, slot, number, verdict),
            _ => self.login_verified(engine, slot, number, verdict),
        }
    }

    fn written(&mut self, engine: &mut Engine, slot: u32) {
        if engine.conns[slot].kind == kind::XXIM {
            self.resume(engine, slot);
        }
    }

    fn drain(&mut self, engine: &mut Engine, slot: u32) -> bool {
        let http = engine.conns[slot].kind == kind::XXIM_HTTP;
        if http {
            // Its request is answered first, if it has one.
            self.http_drain(engine, slot);
        }
        http
    }

    fn is_idle(&self) -> bool {
        self.outgoing.is_empty() && self.unwraps.is_idle() && self.under_way == 0
    }

    fn next_request(&mut self, _: &mut Engine) -> Option<SidecarRequest> {
        self.outgoing.pop_front().map(SidecarRequest::Xxim)
    }

    fn give_back(&mut self, look: &mut Look) {
        self.holders.give_back(look);
        self.unwraps.give_back(look);
        look.at(&mut self.outgoing);
        look.at(&mut self.left);
        look.at(&mut self.waiting);
    }

    fn turn_begins(&mut self, engine: &mut Engine) {
        // Keys whose time has come are decrypted.
        if self.unwraps.waiting() > 0 {
            self.next_unwrap(engine);
        }
    }

    /// Lets clients go on that waited for room among the requests of the shard.
    fn turn_ends(&mut self, engine: &mut Engine) {
        let most = self.waiting.len().min(crate::protocols::xxim::limits::XXIM_GIVEN_PER_TURN);
        for _ in 0..most {
            if self.under_way >= self.config.xxim.shard_requests_max {
                return;
            }
            let Some(id) = self.waiting.pop_front() else { return };
            if let Some(slot) = engine.conns.slot(id) {
                if let Some(conn) = self.xxim(engine, slot) {
                    conn.waiting = false;
                }
                self.resume(engine, slot);
            }
        }
    }

    fn is_busy(&self, _: &Engine) -> bool {
        // A client that waits for room among the requests of the shard could have it.
        !self.waiting.is_empty() && self.under_way < self.config.xxim.shard_requests_max
    }

    fn next_ms(&self, _: &Engine) -> Option<u64> {
        self.unwraps.next_ms(&self.config.xxim.crypto)
    }

    fn describe(&self, engine: &Engine, slot: u32, notes: &mut Notes) {
        if let Some(conn) = self.conns.of(engine.index(slot, kind::XXIM)) {
            conn.describe(notes);
        }
    }

    fn report(&self, gauges: &mut Gauges) {
        gauges.xxim_keys_waiting = self.unwraps.waiting() as u64;
    }
}
