//! netsvr. Here are its clients: let in or not, their messages, their end (netsvr sections 2.3 to
//! 2.8). `business` has the connections of business processes, `queries` and `answers` what they
//! ask, `callbacks` the HTTP callbacks at open and close, `push` what a push looks like.

mod answers;
pub mod business;
mod callbacks;
pub mod commands;
pub mod config;
pub mod large;
pub mod letters;
pub mod limits;
pub mod push;
pub mod queries;
pub mod rules;
pub mod service;
pub mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use crate::config::model::WorkerFull;
use crate::engine::Engine;
use crate::engine::Job;
use crate::engine::LEFT_SPARE;
use crate::engine::conns::Flags;
use crate::engine::forms::Made;
use crate::engine::links::{Event, EventKind};
use crate::engine::look::Notes;
use crate::engine::manners::{Life, Manners};
use crate::engine::slots::Slots;
use crate::engine::tenant::Tenant;
use crate::engine::tenant::Upgrade;
use crate::hub::limits::WindowRules;
use crate::hub::push::Command;
use crate::hub::push::{Change, CloseReason, Payload, TopicChange};
use crate::hub::queries::Query;
use crate::hub::{ConnId, Departed};
use crate::lists::letters::{Mail, SidecarRequest};
use crate::lists::numbers;
use crate::lists::numbers::kind;
use crate::metrics::DropReason;
use crate::protocols::netsvr::business::Business;
use crate::protocols::netsvr::callbacks::Callbacks;
use crate::protocols::netsvr::config::Netsvr as Config;
use crate::protocols::netsvr::letters::Letter;
use crate::protocols::netsvr::limits::BUSINESS_ANSWER_BYTES_MAX;
use crate::protocols::netsvr::queries::Asks;
use crate::protocols::netsvr::rules::{Client, Inbound};
use crate::protocols::netsvr::wire::{OpenInfo, Verdict};
use crate::spare::Look;
use crate::wire::websocket::{CloseCodes, Opcode};
use crate::wire::worker::{Cmd, HEADER, UniqIds, conn_close, transfer};

/// Close reasons of a refused open (section 2.4).
const RATE_LIMITED: CloseReason = CloseReason::new(1013, "open rate limited, try again later");
/// Section 7.1; the original shows the client the error and with it the callback's address (W13).
const CALLBACK_FAILED: CloseReason = CloseReason::new(1011, "open callback failed");
const UNAUTHORIZED: CloseReason = CloseReason::new(1008, "unauthorized");

/// A connection that was upgraded but not opened.
#[derive(Debug)]
pub struct Opening {
    info: OpenInfo,
    /// What the callback has said; it is applied when the connection is opened.
    verdict: Option<Box<Verdict>>,
}

/// How its connections behave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    opening: u16,
    client: u16,
    pub worker: u16,
    pub task: u16,
}

/// What a shard has for all connections of netsvr together.
#[derive(Debug)]
pub(crate) struct Netsvr {
    config: Arc<Config>,
    pub(crate) rows: Rows,
    clients: Slots<Client>,
    openings: Slots<Opening>,
    pub backends: Slots<Business>,
    /// Questions of business processes.
    pub asks: Asks,
    /// Callbacks at open and at close.
    pub callbacks: Callbacks,
}

impl Rows {
    fn new(engine: &mut Engine, config: &Config) -> Rows {
        let (customer, outbox_bytes_max) = (&config.customer, engine.settings.outbox_bytes_max);
        let (message_bytes_max, silence) =
            (customer.receive_pack_limit, customer.heartbeat_interval);
        let client = Manners {
            close_codes: CloseCodes::Netsvr,
            ..Manners::new(message_bytes_max, outbox_bytes_max, silence, silence)
        };
        // The time for the handshake does not run while the callback decides.
        let opening = Manners {
            opening: true,
            ..Manners::new(message_bytes_max, outbox_bytes_max, silence, Duration::ZERO)
        };
        let business = |write, read| Manners {
            backend: true,
            heard_out: true,
            drains: false,
            life: Life::Own,
            ..Manners::new(message_bytes_max, BUSINESS_ANSWER_BYTES_MAX as u32, write, read)
        };
        let (worker, task) = (&config.worker, &config.task);
        Rows {
            opening: engine.add_row(opening),
            client: engine.add_row(client),
            worker: engine.add_row(business(worker.send_deadline, worker.read_deadline)),
            task: engine.add_row(business(task.send_deadline, task.read_deadline)),
        }
    }
}

impl Netsvr {
    /// Nobody is connected.
    pub fn new(engine: &mut Engine, config: Arc<Config>) -> Netsvr {
        let (clients, openings, backends) = Default::default();
        let asks = Asks::new(engine.mail.len(), engine.seed as u64);
        let callbacks = Callbacks::new(&config.customer);
        Netsvr {
            rows: Rows::new(engine, &config),
            config,
            clients,
            openings,
            backends,
            asks,
            callbacks,
        }
    }

    /// A letter of another thread.
    pub(crate) fn letter(&mut self, engine: &mut Engine, letter: Letter) {
        match letter {
            Letter::Made { number, made } => self.made(engine, number, made),
            Letter::AskRates { from, number } => self.answer_rates(engine, from, number),
            Letter::Rates { number, rates } => self.rates_answered(engine, number, &rates),
            Letter::WorkerLeaving { worker } => self.worker_leaving(engine, worker),
            Letter::WorkerLeft { worker } => self.worker_left(engine, worker),
            Letter::Unregister { from, number, worker } => {
                self.unregister(engine, from, number, worker);
            }
            Letter::Unregistered { number } => self.unregistered(engine, number),
            Letter::Opened { conn, verdict } => self.verdict(engine, conn, verdict),
            Letter::ClosedCallback { number } => self.close_callback_over(engine, number),
        }
    }

    /// The client is none any more, before it was let in.
    fn turn_away(&mut self, engine: &mut Engine, slot: u32) {
        if let Some(index) = engine.index(slot, kind::OPENING) {
            self.openings.remove(index);
        }
        engine.turn_away(slot);
    }

    /// Closes a client that was upgraded but is not let in; nobody hears of it (W8).
    fn refuse(&mut self, engine: &mut Engine, slot: u32, reason: CloseReason) {
        engine.counters.opens_refused += 1;
        self.turn_away(engine, slot);
        let conn = &mut engine.conns[slot];
        // Its place is free at once, not when its close frame was answered.
        if conn.flags.clear(Flags::ONLINE) {
            engine.shared.online.fetch_sub(1, Ordering::Relaxed);
        }
        engine.close(slot, reason);
        engine.linger(slot);
    }

    fn ask_callback(&mut self, engine: &mut Engine, slot: u32) {
        let Some(opening) = self.openings.of(engine.index(slot, kind::OPENING)) else { return };
        let id = engine.conns.id(slot);
        let uniq_id = engine.uniq_ids.encode(id);
        let generation = self.config.generation;
        let body = wire::conn_open_body(generation, &uniq_id, &opening.info);
        self.callbacks.open(id, body);
        if self.callbacks.opens() > 2 * engine.conns.len() + LEFT_SPARE {
            self.callbacks.retain_opens(|id| engine.conns.slot(id).is_some());
        }
        engine.block(slot);
    }

    /// Sends data to a netsvr client, or one that is not let in.
    fn push(&mut self, engine: &mut Engine, slot: u32, data: Bytes) {
        let (payload, customer) = (Payload::new(data), &self.config.customer);
        let frame = match engine.conns[slot].form {
            numbers::NETSVR_DEFLATE => push::deflated(&payload, customer, engine.deflater.as_mut()),
            _ => push::plain(&payload, customer),
        };
        engine.offer(slot, &Made::Frame(frame));
    }

    /// The callback at open has decided (section 7.1).
    pub(crate) fn verdict(
        &mut self,
        engine: &mut Engine,
        id: ConnId,
        verdict: Option<Box<Verdict>>,
    ) {
        self.callbacks.done();
        let Some(slot) = engine.conns.slot(id) else { return };
        if engine.conns[slot].flags.has(Flags::GONE | Flags::CLOSING) {
            return;
        }
        let Some(opening) = self.openings.of_mut(engine.index(slot, kind::OPENING)) else { return };
        match verdict {
            Some(verdict) if verdict.allow => {
                opening.verdict = Some(verdict);
                self.try_open(engine, slot);
            }
            denied => {
                engine.counters.callbacks_denied += denied.is_some() as u64;
                engine.counters.callbacks_failed += denied.is_none() as u64;
                let data = denied.as_ref().map(|verdict| verdict.data.clone()).unwrap_or_default();
                if !data.is_empty() {
                    self.push(engine, slot, data);
                }
                self.turn_away(engine, slot);
                let failed = denied.is_none();
                engine.close(slot, if failed { CALLBACK_FAILED } else { UNAUTHORIZED });
            }
        }
    }

    /// Opens the connection, now or when a worker has room for the event.
    pub(crate) fn try_open(&mut self, engine: &mut Engine, slot: u32) {
        let id = engine.conns.id(slot);
        let wait = engine.settings.workers.on_full == WorkerFull::Wait;
        if wait && !engine.links.ready(EventKind::Open, id, None) {
            return engine.wait_for_room(slot);
        }
        let opening = engine.index(slot, kind::OPENING);
        let opening = opening.and_then(|index| self.openings.remove(index));
        let Some(Opening { info, verdict }) = opening else { return };
        let index = self.clients.insert(Client::default());
        engine.turn_into(slot, kind::NETSVR, index, self.rows.client);
        engine.counters.opens += 1;
        engine.join(slot);
        let verdict = verdict.map(|verdict| *verdict).unwrap_or_default();
        engine.hub.change(slot, &change_of(&verdict));
        if !verdict.data.is_empty() {
            self.push(engine, slot, verdict.data);
        }
        engine.conns[slot].active_ms = engine.now.ms;
        engine.rearm(slot);
        let generation = self.config.generation;
        let uniq_ids = engine.uniq_ids.encode(id);
        engine.event(slot, EventKind::Open, |_| wire::conn_open(generation, &uniq_ids, &info));
        engine.read_on(slot);
    }

    fn forward(&mut self, engine: &mut Engine, slot: u32, data: &[u8]) {
        let worker = &self.config.worker;
        let (with_session, with_topics) = (worker.transfer_session, worker.transfer_topics);
        let uniq_id = engine.uniq_ids.encode(engine.conns.id(slot));
        engine.event(slot, EventKind::Message, |hub| {
            let session = if with_session { hub.session(slot) } else { "" };
            let topics = hub.topics_of(slot).filter(|_| with_topics).map(|topic| &**topic);
            transfer(&uniq_id, hub.user(slot), session, topics, data)
        });
    }

    /// A netsvr client has left with what it had: a worker is told, after the callback if there is
    /// one.
    fn netsvr_left(&mut self, engine: &mut Engine, slot: u32, departed: &Departed) {
        let worker = engine.conns[slot].worker();
        engine.counters.closes += 1;
        let id = engine.conns.id(slot);
        let uniq_id = engine.uniq_ids.encode(id);
        let topics = departed.topics.iter().map(|topic| &**topic);
        let (user, session) = (&departed.user, &departed.session);
        let frame = conn_close(&uniq_id, user, session, topics);
        let event = Event { kind: EventKind::Close, client: id, frame };
        if self.config.customer.on_close_callback_api.is_some() {
            // The body of the callback is the frame without its header.
            let body = event.frame.slice(HEADER..);
            if let Err(event) = self.callbacks.close(engine.id, body, event, worker) {
                engine.dropped(DropReason::CallbackSkipped, 1);
                engine.place_close(event, worker);
            }
        } else {
            engine.place_close(event, worker);
        }
    }

    /// The callback at close is over, whatever came of it (section 7.2).
    pub(crate) fn close_callback_over(&mut self, engine: &mut Engine, number: u64) {
        self.callbacks.done();
        if let Some((event, sticky)) = self.callbacks.take_close(number) {
            engine.place_close(event, sticky);
        }
    }

    /// A worker unregisters: it gets nothing more from here, and its shard is told so.
    pub(crate) fn worker_leaving(&mut self, engine: &mut Engine, worker: ConnId) {
        engine.links.leave(worker);
        engine.drop_unwanted_events();
        if worker.shard() == engine.id {
            self.worker_left(engine, worker);
        } else {
            engine.post(worker.shard(), Mail::Netsvr(Letter::WorkerLeft { worker }));
        }
    }

    /// Carries out what a netsvr command asks of connections of other nodes: each of them is
    /// recognised by the address in its uniqIds. What it asks of users and topics is not carried.
    pub(crate) fn carry_abroad(&mut self, engine: &mut Engine, cmd: Cmd, body: &Bytes) {
        let Some(mesh) = &engine.mesh else { return };
        let named = |(_, ids): &&(u16, UniqIds)| ids.occur_in(body);
        let named: Vec<_> = mesh.uniq_ids.iter().filter(named).cloned().collect();
        for (node, ids) in named {
            let request = commands::request(cmd, body.clone(), &ids, self.config.generation);
            match request {
                commands::BackendRequest::Commands(commands) => {
                    let named =
                        |command: &Command| command.conns().is_some_and(|conns| !conns.is_empty());
                    let commands = commands.into_iter().filter(named);
                    commands.for_each(|command| engine.dispatch_to(node, command));
                }
                commands::BackendRequest::GuestKickLater { delay_s, command } => {
                    engine.later(delay_s, Job { node: Some(node), command });
                }
                // What is wrong with it is said where this node carries it out.
                _ => {}
            }
        }
    }

    /// What a netsvr query about connections asks of other nodes: of each that occurs in it.
    pub(crate) fn named_abroad(
        &self,
        engine: &Engine,
        cmd: Cmd,
        body: &Bytes,
    ) -> Vec<(Option<u16>, Query)> {
        let Some(mesh) = &engine.mesh else { return Vec::new() };
        let generation = self.config.generation;
        let named = mesh.uniq_ids.iter().filter(|(_, ids)| ids.occur_in(body));
        let asks = named.filter_map(|(node, ids)| {
            match commands::request(cmd, body.clone(), ids, generation) {
                commands::BackendRequest::Ask { query, .. } => Some((Some(*node), query)),
                _ => None,
            }
        });
        asks.collect()
    }
}

impl Tenant for Netsvr {
    fn upgraded(&mut self, engine: &mut Engine, slot: u32, peer: SocketAddr, upgrade: Upgrade) {
        let online = engine.shared.online.fetch_add(1, Ordering::Relaxed);
        engine.conns[slot].flags.set(Flags::ONLINE);
        if online >= self.config.customer.max_online {
            return self.refuse(engine, slot, RATE_LIMITED);
        }
        if !engine.shared.open_limiter.take(engine.now.ms.saturating_mul(1_000_000)) {
            engine.dropped(DropReason::OpenLimiter, 1);
            return self.refuse(engine, slot, RATE_LIMITED);
        }
        let info = OpenInfo {
            raw_query: upgrade.raw_query,
            sub_protocols: upgrade.sub_protocols,
            x_forwarded_for: upgrade.x_forwarded_for,
            x_real_ip: upgrade.x_real_ip,
            remote_addr: peer.ip().to_canonical().to_string(),
        };
        // The time for the handshake does not run while the callback decides.
        let index = self.openings.insert(Opening { info, verdict: None });
        engine.turn_into(slot, kind::OPENING, index, self.rows.opening);
        let deflate = engine.conns[slot].flags.has(Flags::DEFLATE);
        let deflate = deflate && engine.deflater.is_some();
        engine.conns[slot].form =
            if deflate { numbers::NETSVR_DEFLATE } else { numbers::NETSVR_PLAIN };
        match self.config.customer.on_open_callback_api {
            Some(_) => self.ask_callback(engine, slot),
            None => self.try_open(engine, slot),
        }
    }

    /// Whether the event of a client's next message has room, if such events wait for it; if not,
    /// the client is blocked until there is some.
    fn ready(&mut self, engine: &mut Engine, slot: u32) -> bool {
        let conn = &engine.conns[slot];
        let waits = engine.settings.workers.on_full == WorkerFull::Wait;
        if waits
            && !conn.flags.has(Flags::CLOSING)
            && !engine.links.ready(EventKind::Message, engine.conns.id(slot), conn.worker())
        {
            engine.wait_for_room(slot);
            return false;
        }
        !engine.outbox_blocks(slot)
    }

    /// One WebSocket message.
    fn message(&mut self, engine: &mut Engine, slot: u32, _: Opcode, data: &[u8]) {
        let customer = &self.config.customer;
        let window = WindowRules {
            zero_window_max: customer.limit_zero_window_max_requests,
            max: customer.limit_window_max_requests,
            window_ms: customer.limit_window.as_millis() as u32,
        };
        let heartbeat = &customer.heartbeat_message;
        // What nobody wants takes nothing from the limiters (netsvr section 2.6, step 1).
        if !engine.links.wanted(EventKind::Message) && data != heartbeat.as_slice() {
            return engine.dropped(DropReason::NoWorker, 1);
        }
        let Some(client) = self.clients.of_mut(engine.index(slot, kind::NETSVR)) else { return };
        let limiter = &engine.shared.message_limiter;
        match client.message(data, engine.now.ms, heartbeat, &window, limiter) {
            Inbound::Heartbeat => engine.counters.heartbeats += 1,
            Inbound::Forward => self.forward(engine, slot, data),
            Inbound::OverConnectionLimit => {
                engine.dropped(DropReason::ConnectionLimiter, 1);
            }
            Inbound::OverMessageLimit => {
                engine.dropped(DropReason::MessageLimiter, 1);
            }
        }
    }

    fn accepted(&mut self, engine: &mut Engine, slot: u32, peer: SocketAddr) {
        self.business_accepted(engine, slot, peer);
    }

    fn left(&mut self, engine: &mut Engine, slot: u32, departed: &Departed) {
        debug_assert!(engine.conns[slot].kind == kind::NETSVR, "only clients are in the hub");
        self.netsvr_left(engine, slot, departed);
    }

    fn describe(&self, engine: &Engine, slot: u32, notes: &mut Notes) {
        let conn = &engine.conns[slot];
        match conn.kind {
            kind::OPENING => {
                let opening = self.openings.of(Some(conn.index));
                let decided = opening.is_some_and(|opening| opening.verdict.is_some());
                notes.reason_if(!decided, "the open callback decides");
                notes.reason_if(decided, "its open event waits for a worker");
            }
            kind::BUSINESS => {
                if let Some(business) = self.backends.of(Some(conn.index)) {
                    business.describe(notes);
                }
            }
            _ => {}
        }
    }

    fn gone(&mut self, engine: &mut Engine, slot: u32) {
        let conn = &engine.conns[slot];
        match conn.kind {
            kind::BUSINESS => self.business_lost(engine, slot),
            kind::OPENING => _ = self.openings.remove(conn.index),
            _ => _ = self.clients.remove(conn.index),
        }
    }

    fn written(&mut self, engine: &mut Engine, slot: u32) {
        if engine.conns[slot].kind == kind::BUSINESS {
            self.business_written(engine, slot);
        }
    }

    fn worker_room(&mut self, engine: &mut Engine, slot: u32) {
        match engine.conns[slot].kind {
            kind::OPENING => self.try_open(engine, slot),
            _ => engine.read_on(slot),
        }
    }

    fn due(&mut self, engine: &mut Engine, slot: u32) {
        match engine.conns[slot].kind {
            kind::BUSINESS => self.business_settled(engine, slot),
            _ => engine.set_due(slot, u64::MAX),
        }
    }

    fn silent(&mut self, engine: &mut Engine, slot: u32) {
        match engine.conns[slot].kind {
            kind::BUSINESS => self.business_silent(engine, slot),
            _ => engine.too_silent(slot),
        }
    }

    fn has_nobody(&self) -> bool {
        self.clients.is_empty() && self.openings.is_empty() && self.backends.is_empty()
    }

    fn is_idle(&self) -> bool {
        self.callbacks.is_idle()
    }

    fn next_request(&mut self, engine: &mut Engine) -> Option<SidecarRequest> {
        let callback = self.callbacks.next();
        engine.counters.callbacks_started += u64::from(callback.is_some());
        let request = callback.or_else(|| self.asks.making.next_request());
        request.map(SidecarRequest::Netsvr)
    }

    fn give_back(&mut self, look: &mut Look) {
        self.asks.give_back(look);
        self.callbacks.give_back(look);
    }

    fn turn_begins(&mut self, engine: &mut Engine) {
        self.go_on_answering(engine);
    }

    fn is_busy(&self, engine: &Engine) -> bool {
        self.asks.is_busy(engine.answers_written)
    }
}

fn change_of(verdict: &Verdict) -> Change {
    let some = |text: &str| (!text.is_empty()).then(|| text.into());
    Change {
        session: some(&verdict.session),
        user: some(&verdict.customer_id),
        topics: (!verdict.topics.is_empty()).then(|| TopicChange::Add(verdict.topics.clone())),
    }
}
