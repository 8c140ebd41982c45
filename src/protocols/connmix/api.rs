//! connmix backends connected to this shard (connmix specification sections 1 to 5): requests over
//! HTTP and over WebSocket, answers in order, consuming of queues.
//!
//! A request is carried out as soon as it is read. What it asks of other shards goes out by mail,
//! and each mailbox keeps its order, so effects on any one client come in the order of the requests
//! although several requests of a connection may be under way. Answers wait for those before them.
//! `queue.pop` and `queue.unpop` alone hold back what follows until they are answered.
//!
//! Invariants: every request is answered exactly once, in order; the answer to `queue.pop` is
//! queued before the windows open at the topics' homes; every frame of the connection is noted in
//! its flight, so each event is reported as written, or taken back by its home.
//! Costs: a request that concerns this shard alone is answered at once; one that concerns others
//! takes an entry in `Tells` and a letter to each of them and back. Reading HTTP is in
//! `http`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::engine::Engine;
use crate::engine::conns::Flags;
use crate::engine::flight::Source;
use crate::engine::in_order::InOrder;
use crate::engine::look::Notes;
use crate::engine::manners::{Life, Manners};
use crate::engine::ops::Frame;
use crate::engine::queues::QueueMail;
use crate::engine::slots::Slots;
use crate::engine::tenant::Tenant;
use crate::hub::ConnId;
use crate::hub::push::{CloseReason, Command, Outcome};
use crate::hub::queues::{Queues, Window};
use crate::lists::letters::SidecarRequest;
use crate::lists::numbers::kind;
use crate::protocols::connmix::Sections;
use crate::protocols::connmix::http::{Form, Reading};
use crate::protocols::connmix::letters::ServiceRequest;
use crate::protocols::connmix::limits::{CONNMIX_ANSWER_BYTES_MAX, CONNMIX_REQUESTS_MAX};
use crate::protocols::connmix::requests::{self, About, Action};
use crate::protocols::connmix::wire::{self, Answer, Code};
use crate::wire::json::Index;
use crate::wire::websocket;

const READ_TIMEOUT: CloseReason = CloseReason::new(1000, "read timeout");
const TOO_MANY_ERRORS: CloseReason = CloseReason::new(1008, "too many errors");

/// What a shard has for all connections to the API together.
#[derive(Debug)]
pub(crate) struct Api {
    pub(super) config: Arc<Sections>,
    conns: Slots<Conn>,
    /// How its connections behave.
    row: u16,
    /// Of the last JSON that a backend has sent.
    pub json: Index,
    /// Requests for the metrics that the sidecar is to be given.
    pub(crate) to_render: VecDeque<u64>,
    /// Requests for the metrics that wait or are under way.
    pub(crate) rendering: usize,
}

/// What the shard keeps of one connection.
#[derive(Debug)]
pub struct Conn {
    /// Address of the peer.
    pub peer: SocketAddr,
    /// The HTTP request that is being read.
    pub(crate) reading: Reading,
    /// Whether the peer of a WebSocket may do more than look.
    pub(crate) may_write: bool,
    /// Requests that are not answered, in order.
    pending: InOrder<Pending, Bytes>,
    /// Malformed requests in a row.
    faults: u32,
    consuming: Consuming,
    /// Homes of the topics that it consumes.
    homes: Vec<u8>,
    /// Homes that may keep events of this connection.
    homes_ever: Vec<u8>,
}

/// A command of a connection: the shard carries it out, and what it comes to is the answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub command: Command,
    /// The node that it is for, if that is another one.
    pub node: Option<u16>,
    pub about: About,
    pub form: Form,
}

/// A request that is not answered, or whose answer waits for those before it.
#[derive(Debug)]
struct Pending {
    about: About,
    form: Form,
}

/// Whether the connection consumes queues.
#[derive(Debug)]
enum Consuming {
    No,
    /// Waits for the homes of the topics to agree.
    Joining {
        missing: usize,
        refused: bool,
    },
    Yes,
    /// Waits for the homes to have given their last event.
    Leaving {
        missing: usize,
    },
}

impl Conn {
    /// A connection that was just accepted.
    pub fn new(peer: SocketAddr) -> Conn {
        Conn {
            peer,
            reading: Reading::default(),
            may_write: false,
            pending: InOrder::default(),
            faults: 0,
            consuming: Consuming::No,
            homes: Vec::new(),
            homes_ever: Vec::new(),
        }
    }

    /// Whether no request is waiting for its answer.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether nothing more is to be read for now, where `own_bytes` of answers wait to be written.
    fn is_full(&self, own_bytes: usize) -> bool {
        self.pending.len() >= CONNMIX_REQUESTS_MAX
            || own_bytes > CONNMIX_ANSWER_BYTES_MAX
            || (self.reading.waits() && !self.pending.is_empty())
            || matches!(self.consuming, Consuming::Joining { .. } | Consuming::Leaving { .. })
    }

    /// For tests: panics if an invariant does not hold. Returns the questions that are open.
    pub(crate) fn audit(&self) -> usize {
        assert!(self.pending.len() <= CONNMIX_REQUESTS_MAX, "requests of {}", self.peer);
        self.pending.open().filter(|number| *number != 0).count()
    }
}

impl Api {
    /// Nobody is connected.
    pub(crate) fn new(engine: &mut Engine, config: Arc<Sections>) -> Api {
        let api = &config.connmix.api;
        let outbox_bytes_max = CONNMIX_ANSWER_BYTES_MAX as u32;
        let (write, read) = (api.write_timeout, api.read_timeout);
        let manners = Manners {
            backend: true,
            drains: false,
            pings: true,
            life: Life::Frames,
            ..Manners::new(api.message_bytes_max, outbox_bytes_max, write, read)
        };
        let row = engine.add_row(manners);
        Api {
            config,
            conns: Slots::default(),
            row,
            json: Index::default(),
            to_render: VecDeque::new(),
            rendering: 0,
        }
    }

    /// For tests: panics if an invariant of a connection does not hold; returns the outcomes that
    /// it waits for, and the bytes of a request that it holds.
    pub(crate) fn audit(&self, engine: &Engine, slot: u32) -> (usize, usize) {
        let conn = self.conns.of(engine.index(slot, kind::CONNMIX_API));
        conn.map_or((0, 0), |conn| (conn.audit(), conn.reading.held()))
    }

    fn is_full(&mut self, engine: &mut Engine, slot: u32) -> bool {
        let own_bytes = engine.own_bytes(slot);
        self.api(engine, slot).is_some_and(|conn| conn.is_full(own_bytes))
    }

    /// One WebSocket message. Returns what the shard is to carry out.
    pub(crate) fn request(&mut self, engine: &mut Engine, slot: u32, data: &[u8]) -> Option<Asked> {
        if data.trim_ascii() == b"ping" {
            engine.push(slot, websocket::frame(websocket::Opcode::Text, b"pong"));
            return None;
        }
        let mut index = std::mem::take(&mut self.json);
        let envelope = wire::envelope(data, &mut index);
        let may_write = self.api(engine, slot).is_some_and(|conn| conn.may_write);
        let action = requests::action(envelope.request, may_write, |id| engine.client(id));
        let form = |id: &str| Form::WebSocket { id: id.into() };
        let asked = self.action(engine, slot, action, envelope.id, form);
        self.json = index;
        asked
    }

    /// Carries out what a request asks for, or returns it. `form` makes the form of an answer that
    /// has to wait.
    pub(crate) fn action(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        action: Action,
        id: &str,
        form: impl FnOnce(&str) -> Form,
    ) -> Option<Asked> {
        engine.counters.api_requests += 1;
        match action {
            Action::Answer(answer) => self.answer(engine, slot, answer, id, form),
            Action::Tell(command, about, node) => {
                return Some(Asked { command, node, about, form: form(id) });
            }
            Action::Pop(topics) => self.queue_pop(engine, slot, &topics, id, form),
            Action::Unpop => self.queue_unpop(engine, slot, id, form),
        }
        None
    }

    /// Answers a request, now or when those before it are answered.
    pub(crate) fn answer(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        answer: Answer,
        id: &str,
        form: impl FnOnce(&str) -> Form,
    ) {
        engine.counters.api_faults += answer.is_fault() as u64;
        let faults_max = self.config.connmix.api.faults_max;
        let websocket = engine.conns[slot].flags.has(Flags::WEBSOCKET);
        let Some(conn) = self.api(engine, slot) else { return };
        conn.faults = if answer.is_fault() && websocket { conn.faults + 1 } else { 0 };
        let too_many = conn.faults > faults_max;
        if websocket {
            self.send(engine, slot, wire::text_frame(answer, id), false);
        } else {
            let form = form(id);
            let (ends, date) = (form.ends(), engine.http_date());
            self.send(engine, slot, form.encode(answer, &date), ends);
        }
        if too_many {
            engine.close(slot, TOO_MANY_ERRORS);
        }
    }

    /// Sends an answer in its turn. With `ends` nothing is read or answered after it.
    pub(crate) fn send(&mut self, engine: &mut Engine, slot: u32, answer: Bytes, ends: bool) {
        if engine.conns[slot].flags.has(Flags::CLOSING | Flags::GONE) {
            return;
        }
        let Some(conn) = self.api(engine, slot) else { return };
        if conn.pending.is_empty() {
            engine.push(slot, answer);
            if ends {
                engine.linger(slot);
            }
            return;
        }
        let form = Form::Raw { ends };
        conn.pending.answered(Pending { about: About::Send, form }, answer);
        engine.owes(slot, true);
    }

    /// Notes a request whose answer comes under this number.
    pub(crate) fn expect(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        number: u64,
        about: About,
        form: Form,
    ) {
        let Some(conn) = self.api(engine, slot) else { return };
        // No fault.
        conn.faults = 0;
        conn.pending.ask(number, Pending { about, form });
        engine.owes(slot, true);
    }

    /// What a command of a connection came to, at once.
    pub(crate) fn done(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        about: About,
        form: Form,
        outcome: Outcome,
    ) {
        let Some(conn) = self.api(engine, slot) else { return };
        // No fault.
        conn.faults = 0;
        let answer = form.encode(requests::answer(about, outcome), &engine.http_date());
        self.send(engine, slot, answer, form.ends());
    }

    /// What a command of a connection came to.
    pub(crate) fn outcome(
        &mut self,
        engine: &mut Engine,
        conn: ConnId,
        number: u64,
        outcome: Outcome,
    ) {
        let date = engine.http_date();
        let encode = |pending: &Pending| {
            pending.form.encode(requests::answer(pending.about, outcome), &date)
        };
        self.answered(engine, conn, number, encode);
    }

    /// The answer to a request of this number is known.
    fn answered(
        &mut self,
        engine: &mut Engine,
        conn: ConnId,
        number: u64,
        encode: impl FnOnce(&Pending) -> Bytes,
    ) {
        let Some(slot) = engine.conns.slot(conn) else { return };
        let Some(conn) = self.api(engine, slot) else { return };
        conn.pending.answer(number, encode);
        self.release(engine, slot);
    }

    /// The text of the metrics, for a request of this number.
    pub(crate) fn rendered(&mut self, engine: &mut Engine, number: u64, text: &str) {
        self.rendering -= 1;
        let Some(conn) = engine.tells.conn(number) else { return };
        engine.tells.forget(number);
        let date = engine.http_date();
        self.answered(engine, conn, number, |pending| pending.form.metrics(text, &date));
    }

    /// Sends the answers that wait for nothing any more, and goes on reading.
    fn release(&mut self, engine: &mut Engine, slot: u32) {
        while !engine.conns[slot].flags.has(Flags::CLOSING | Flags::GONE)
            && let Some(conn) = self.api(engine, slot)
            && let Some((_, pending, answer)) = conn.pending.take_first()
        {
            engine.push(slot, answer);
            if pending.form.ends() {
                return engine.linger(slot);
            }
        }
        let owes = self.api(engine, slot).is_some_and(|conn| !conn.is_settled());
        engine.owes(slot, owes);
        self.room(engine, slot);
    }

    /// Goes on reading a connection that was blocked, if there is room again.
    pub(crate) fn room(&mut self, engine: &mut Engine, slot: u32) {
        let flags = engine.conns[slot].flags;
        let goes_on = !self.is_full(engine, slot);
        if goes_on && !flags.has(Flags::DEAF) {
            engine.read_on(slot);
        }
    }

    /// `queue.pop` (section 3.2): the homes of the topics are asked to let the connection join.
    fn queue_pop(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        topics: &[Arc<str>],
        id: &str,
        form: impl FnOnce(&str) -> Form,
    ) {
        let error = |code, message| Answer::Error { code, message };
        let shards = engine.mail.len();
        let draining = engine.is_emptied();
        let consumer = engine.conns.id(slot);
        let Some(conn) = self.api(engine, slot) else { return };
        if !matches!(conn.consuming, Consuming::No) {
            let answer = error(Code::AlreadyConsuming, "already consuming");
            return self.answer(engine, slot, answer, id, form);
        }
        if draining {
            let answer = error(Code::ConsumeFailed, "the gateway is shutting down");
            return self.answer(engine, slot, answer, id, form);
        }
        let mut parts = vec![Vec::new(); shards];
        topics.iter().for_each(|topic| {
            parts[Queues::home(topic, shards) as usize].push(topic.clone());
        });
        let parts: Vec<_> = (0u8..).zip(parts).filter(|(_, part)| !part.is_empty()).collect();
        conn.homes = parts.iter().map(|(home, _)| *home).collect();
        conn.homes_ever.extend_from_slice(&conn.homes);
        conn.homes_ever.sort_unstable();
        conn.homes_ever.dedup();
        conn.consuming = Consuming::Joining { missing: parts.len(), refused: false };
        conn.faults = 0;
        let (about, form) = (About::Send, form(id));
        conn.pending.ask(0, Pending { about, form });
        engine.owes(slot, true);
        for (home, topics) in parts {
            engine.queue_post(home, QueueMail::Join { consumer, topics });
        }
    }

    /// A home has let the connection join, or not.
    pub(crate) fn queue_joined(&mut self, engine: &mut Engine, consumer: ConnId, joined: bool) {
        let Some(slot) = engine.conns.slot(consumer) else { return };
        let api = &self.config.connmix.api;
        let (events, bytes) = (api.events_max as usize, api.event_bytes_max as usize);
        let Some(conn) = self.api(engine, slot) else { return };
        let Consuming::Joining { missing, refused } = &mut conn.consuming else { return };
        *missing -= 1;
        *refused |= !joined;
        if *missing > 0 {
            return;
        }
        let refused = *refused;
        let homes = conn.homes.clone();
        if refused {
            // Those that agreed hear that it is off; nothing was given, so nothing comes of it.
            conn.consuming = Consuming::Leaving { missing: homes.len() };
            for home in homes {
                engine.queue_post(home, QueueMail::Leave { consumer });
            }
            return;
        }
        conn.consuming = Consuming::Yes;
        self.settle_barrier(engine, slot, Answer::Done);
        // Each home has its share of the window, so that all together stay within it.
        let share = |total: usize| (total / homes.len().max(1)).max(1);
        let window = Window { events: share(events), bytes: share(bytes) };
        for home in homes {
            engine.queue_post(home, QueueMail::Start { consumer, window });
        }
    }

    /// `queue.unpop` (section 3.3): the homes are told to give nothing more.
    fn queue_unpop(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        id: &str,
        form: impl FnOnce(&str) -> Form,
    ) {
        let consumer = engine.conns.id(slot);
        let Some(conn) = self.api(engine, slot) else { return };
        if !matches!(conn.consuming, Consuming::Yes) {
            let answer = Answer::Error { code: Code::NotConsuming, message: "not consuming" };
            return self.answer(engine, slot, answer, id, form);
        }
        let homes = conn.homes.clone();
        conn.consuming = Consuming::Leaving { missing: homes.len() };
        conn.faults = 0;
        let (about, form) = (About::Call, form(id));
        conn.pending.ask(0, Pending { about, form });
        engine.owes(slot, true);
        for home in homes {
            engine.queue_post(home, QueueMail::Leave { consumer });
        }
    }

    /// A home gives the connection nothing more; what it gave has arrived before this.
    pub(crate) fn queue_left(&mut self, engine: &mut Engine, consumer: ConnId) {
        let Some(slot) = engine.conns.slot(consumer) else { return };
        let Some(conn) = self.api(engine, slot) else { return };
        let Consuming::Leaving { missing } = &mut conn.consuming else { return };
        *missing -= 1;
        if *missing > 0 {
            return;
        }
        conn.consuming = Consuming::No;
        let unpop = conn.pending.last().is_some_and(|pending| pending.about == About::Call);
        let refused = Answer::Error { code: Code::ConsumeFailed, message: "too many topics" };
        self.settle_barrier(engine, slot, if unpop { Answer::Done } else { refused });
    }

    /// Answers the request that holds back what follows it; it is the last one.
    fn settle_barrier(&mut self, engine: &mut Engine, slot: u32, answer: Answer) {
        let date = engine.http_date();
        let Some(conn) = self.api(engine, slot) else { return };
        conn.pending.answer_last(|pending| pending.form.encode(answer, &date));
        self.release(engine, slot);
    }

    /// An event for a consumer of this shard. If it is gone or going the event is not lost: its
    /// home keeps it until it hears so.
    pub(crate) fn queue_event(
        &mut self,
        engine: &mut Engine,
        home: u8,
        consumer: ConnId,
        event: Bytes,
    ) {
        let Some(slot) = engine.conns.slot(consumer) else { return };
        if engine.conns[slot].flags.has(Flags::CLOSING | Flags::GONE) {
            return;
        }
        engine.push_event(slot, home, Frame::new(event));
    }

    /// Sets when the request that is being read must be complete.
    pub(crate) fn rearm(&mut self, engine: &mut Engine, slot: u32) {
        let since_ms = self.api(engine, slot).and_then(|conn| conn.reading.since_ms());
        let time_max = engine.settings.handshake_timeout.as_millis() as u64;
        engine.set_due(slot, since_ms.map_or(u64::MAX, |since_ms| since_ms + time_max));
    }

    pub(crate) fn api(&mut self, engine: &Engine, slot: u32) -> Option<&mut Conn> {
        self.conns.of_mut(engine.index(slot, kind::CONNMIX_API))
    }
}

impl Tenant for Api {
    /// A connection was accepted.
    fn accepted(&mut self, engine: &mut Engine, slot: u32, peer: SocketAddr) {
        let index = self.conns.insert(Conn::new(peer));
        engine.turn_into(slot, kind::CONNMIX_API, index, self.row);
        engine.watch_frames(slot, Source::Queues);
    }

    /// Whether the next request can be read; if not, the connection is blocked.
    fn ready(&mut self, engine: &mut Engine, slot: u32) -> bool {
        let full = self.is_full(engine, slot);
        if full {
            engine.block(slot);
        }
        !full
    }

    /// The connection is gone: its homes take back what was not written.
    fn gone(&mut self, engine: &mut Engine, slot: u32) {
        let index = engine.index(slot, kind::CONNMIX_API);
        let Some(conn) = index.and_then(|index| self.conns.remove(index)) else { return };
        let consumer = engine.conns.id(slot);
        conn.pending.numbers().for_each(|number| engine.tells.forget(number));
        let mut written = vec![0u32; engine.mail.len()];
        if let Some(flight) = engine.conns[slot].flight() {
            flight.lost(|home| written[home as usize] += 1);
        }
        for home in conn.homes_ever {
            let written = written[home as usize];
            engine.queue_post(home, QueueMail::Gone { consumer, written });
        }
    }

    /// That time has come.
    fn due(&mut self, engine: &mut Engine, slot: u32) {
        self.rearm(engine, slot);
        if engine.conns[slot].due_ms <= engine.now.ms {
            engine.counters.idle_timeouts += 1;
            engine.finish(slot);
        }
    }

    /// The peer has been silent for too long, or does not take what it is sent.
    fn silent(&mut self, engine: &mut Engine, slot: u32) {
        engine.counters.idle_timeouts += 1;
        let flags = engine.conns[slot].flags;
        match flags.has(Flags::WEBSOCKET) && !flags.has(Flags::STALLED) {
            true => engine.close(slot, READ_TIMEOUT),
            false => engine.finish(slot),
        }
    }

    /// The answers that are missing are not waited for any more: the goodbye follows what is known.
    fn give_up(&mut self, engine: &mut Engine, slot: u32) {
        let Some(conn) = self.api(engine, slot) else { return };
        conn.pending.give_up().into_iter().for_each(|number| engine.tells.forget(number));
        self.release(engine, slot);
    }

    /// For tests: whether nothing is kept of any connection.
    fn has_nobody(&self) -> bool {
        self.conns.is_empty()
    }

    fn describe(&self, engine: &Engine, slot: u32, notes: &mut Notes) {
        let Some(conn) = self.conns.of(engine.index(slot, kind::CONNMIX_API)) else { return };
        notes.fact("may_write", conn.may_write);
        notes.fact("requests_in_flight", conn.pending.len());
        notes.fact("consumes", !matches!(conn.consuming, Consuming::No));
    }

    fn is_idle(&self) -> bool {
        self.rendering == 0
    }

    fn next_request(&mut self, engine: &mut Engine) -> Option<SidecarRequest> {
        let number = self.to_render.pop_front()?;
        let request = ServiceRequest::Metrics { shard: engine.id, number };
        Some(SidecarRequest::Connmix(request))
    }

    fn written(&mut self, engine: &mut Engine, slot: u32) {
        self.room(engine, slot);
    }
}
