//! WebSocket clients: from the first byte to the messages (netsvr sections 2.1 to 2.6).

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::config::model::{ClientProtocol, Route, Service, WorkerFull};
use crate::edge::echo;
use crate::edge::netsvr::{Client, Inbound};
use crate::edge::upgrade::{self, Opening as Upgrade, Refusal};
use crate::hub::ConnId;
use crate::hub::limits::WindowRules;
use crate::hub::login;
use crate::hub::push::{Change, CloseReason, Payload, TopicChange};
use crate::metrics::DropReason;
use crate::shard::Shard;
use crate::shard::audit::LEFT_SPARE;
use crate::shard::conns::{Flags, Opening, Role};
use crate::shard::forms::Made;
use crate::shard::links::EventKind;
use crate::shard::manners::Life;
use crate::shard::rows;
use crate::shard::{lists, netsvr_push};
use crate::wire::http::Request;
use crate::wire::http::machine::Event as Said;
use crate::wire::netsvr::{self as wire, OpenInfo, Verdict};
use crate::wire::websocket::{self, Decoder, Event, Opcode, Rules};

/// Close reasons of a refused open (section 2.4).
const RATE_LIMITED: CloseReason =
    CloseReason { code: 1013, text: "open rate limited, try again later" };
/// Section 7.1; the original shows the client the error and with it the callback's address (W13).
const CALLBACK_FAILED: CloseReason = CloseReason { code: 1011, text: "open callback failed" };
const UNAUTHORIZED: CloseReason = CloseReason { code: 1008, text: "unauthorized" };

impl Shard {
    /// Handles bytes of a connection that is being read.
    pub(super) fn take_in(&mut self, slot: u32, data: &mut [u8]) {
        let Some(mut tls) = self.engine.conns[slot].tls.take() else {
            return self.feed(slot, data);
        };
        let mut plain = std::mem::take(&mut self.engine.plain);
        let was_handshaking = tls.handshaking();
        let mut shaken = false;
        let result = tls.read(data, &mut plain);
        if was_handshaking && !tls.handshaking() {
            self.engine.counters.tls_handshakes += 1;
            shaken = true;
        }
        let ended = tls.peer_closed();
        self.engine.conns[slot].tls = Some(tls);
        self.engine.touch(slot);
        if shaken {
            self.stream_opened(slot);
        }
        if !plain.is_empty() {
            self.feed(slot, &mut plain);
        }
        plain.clear();
        plain.shrink_to(crate::limits::TLS_CHUNK_BYTES * 4);
        self.engine.plain = plain;
        if let Err(error) = result {
            self.engine.counters.tls_failures += 1;
            tracing::debug!(slot, %error, "TLS error");
            self.engine.linger(slot);
        } else if ended {
            self.engine.ended(slot);
        }
    }

    /// A connection without HTTP can be spoken to: it was accepted, or its TLS handshake is over.
    pub(super) fn stream_opened(&mut self, slot: u32) {
        match self.engine.conns[slot].role {
            Role::Connmix(_) => self.connmix_opened(slot),
            Role::Xxim(_) => self.xxim_accepted(slot),
            _ => {}
        }
    }

    /// Handles bytes as the protocol sees them. With no bytes it goes on with what was kept.
    pub(super) fn feed(&mut self, slot: u32, data: &mut [u8]) {
        let conn = &mut self.engine.conns[slot];
        match &mut conn.role {
            Role::Greeting(_) => self.greet(slot, data),
            Role::Opening(_) => conn.decoder.stash(data),
            Role::Netsvr(_) | Role::Echo | Role::Leaving => self.read_frames(slot, data),
            Role::Business(_) => self.read_commands(slot, data),
            Role::ConnmixApi(_) => self.connmix_api_bytes(slot, data),
            _ if conn.flags.has(Flags::WEBSOCKET) => self.read_frames(slot, data),
            Role::Connmix(_) => self.connmix_bytes(slot, data),
            Role::Xxim(_) => self.xxim_bytes(slot, data),
            Role::XximHttp(_) => self.xxim_http_bytes(slot, data),
            Role::Im(_) => self.im_bytes(slot, data),
            Role::Free => debug_assert!(false, "bytes for a free slot"),
        }
    }

    /// Reads the request that a connection begins with.
    fn greet(&mut self, slot: u32, data: &[u8]) {
        let Role::Greeting(greeting) = &mut self.engine.conns[slot].role else { return };
        let mut machine = std::mem::take(&mut greeting.machine);
        let bytes = machine.resume(data);
        let mut rest = &*bytes;
        let Some(event) = machine.next(&mut rest, usize::MAX) else {
            let unread = rest.len();
            machine.keep(bytes, unread);
            greeting.machine = machine;
            return;
        };
        match event {
            Said::Request(request) if !request.is_get() && self.takes_xxim_http(slot) => {
                self.xxim_over_http(slot, &bytes);
            }
            Said::Request(request) => self.greeted(slot, &request, rest),
            Said::Refuse(fault) => self.turn_away(slot, Refusal::of(fault), None),
            Said::Expect | Said::Body(_) => debug_assert!(false, "a request begins first"),
        }
    }

    /// Upgrades to a WebSocket, or says why not and ends the connection; a body is not read then.
    /// The bytes behind the request belong to the WebSocket.
    pub(super) fn greeted(&mut self, slot: u32, request: &Request<'_>, rest: &[u8]) {
        let config = self.engine.config.clone();
        let routes = self.routes(slot);
        let refusal = upgrade::xxim_refusal(request, routes, &config.xxim.allow_origin);
        let customer = &config.netsvr.customer;
        let decided = refusal.map_or_else(|| upgrade::upgrade(request, routes, customer), Err);
        match decided {
            Ok(upgrade) => self.upgraded(slot, upgrade, rest),
            Err(refusal) => self.turn_away(slot, refusal, Some(request)),
        }
    }

    fn turn_away(&mut self, slot: u32, refusal: Refusal, request: Option<&Request<'_>>) {
        self.engine.counters.upgrades_refused += 1;
        let date = self.engine.http_date();
        let path = request.map(|request| request.path);
        let bodiless = request.is_some_and(|request| request.manner().bodiless);
        let answer = refusal.encode(path, self.routes(slot), bodiless, &date);
        self.engine.push(slot, Bytes::from(answer));
        self.engine.linger(slot);
    }

    /// What the listener of a connection serves.
    pub(super) fn routes(&self, slot: u32) -> &[Route] {
        match &self.engine.listeners[self.engine.conns[slot].listener as usize].service {
            Service::Http(routes) => routes,
            _ => &[],
        }
    }

    fn upgraded(&mut self, slot: u32, mut upgrade: Upgrade, rest: &[u8]) {
        let conn = &mut self.engine.conns[slot];
        let peer = match &conn.role {
            Role::Greeting(greeting) => greeting.peer,
            Role::XximHttp(http) => http.peer(),
            _ => return,
        };
        conn.decoder.stash(rest);
        conn.active_ms = self.engine.now.ms;
        if upgrade.deflate {
            conn.flags.set(Flags::DEFLATE);
        }
        conn.flags.set(Flags::WEBSOCKET);
        self.engine.turn_into(slot, Role::Leaving, rows::LEAVING);
        self.engine.push(slot, Bytes::from_owner(std::mem::take(&mut upgrade.response)));
        match upgrade.protocol {
            ClientProtocol::Netsvr => self.netsvr_upgraded(slot, peer, upgrade),
            ClientProtocol::Echo => {
                self.engine.turn_into(slot, Role::Echo, rows::ECHO);
            }
            ClientProtocol::Xxim => self.xxim_upgraded(slot, peer, upgrade),
            ClientProtocol::Connmix { .. } => self.connmix_upgraded(slot, peer, upgrade),
            ClientProtocol::Im => self.im_upgraded(slot, peer, upgrade),
        }
        // What came with the request.
        self.feed(slot, &mut []);
    }

    fn netsvr_upgraded(&mut self, slot: u32, peer: SocketAddr, upgrade: Upgrade) {
        let online = self.engine.shared.online.fetch_add(1, Ordering::Relaxed);
        self.engine.conns[slot].flags.set(Flags::ONLINE);
        if online >= self.engine.config.netsvr.customer.max_online {
            return self.refuse(slot, RATE_LIMITED);
        }
        if !self.engine.shared.open_limiter.take(self.engine.now.ms.saturating_mul(1_000_000)) {
            self.engine.dropped(DropReason::OpenLimiter, 1);
            return self.refuse(slot, RATE_LIMITED);
        }
        let info = OpenInfo {
            raw_query: upgrade.raw_query,
            sub_protocols: upgrade.sub_protocols,
            x_forwarded_for: upgrade.x_forwarded_for,
            x_real_ip: upgrade.x_real_ip,
            remote_addr: peer.ip().to_canonical().to_string(),
        };
        // The time for the handshake does not run while the callback decides.
        let opening = Role::Opening(Box::new(Opening { info, verdict: None }));
        self.engine.turn_into(slot, opening, rows::OPENING);
        let deflate = self.engine.conns[slot].flags.has(Flags::DEFLATE);
        let deflate = deflate && self.engine.deflater.is_some();
        self.engine.conns[slot].form =
            if deflate { lists::NETSVR_DEFLATE } else { lists::NETSVR_PLAIN };
        match self.engine.config.netsvr.customer.on_open_callback_api {
            Some(_) => self.ask_callback(slot),
            None => self.try_open(slot),
        }
    }

    /// Closes a client that was upgraded but is not let in; nobody hears of it (W8).
    fn refuse(&mut self, slot: u32, reason: CloseReason) {
        self.engine.counters.opens_refused += 1;
        self.engine.turn_into(slot, Role::Leaving, rows::LEAVING);
        let conn = &mut self.engine.conns[slot];
        // Its place is free at once, not when its close frame was answered.
        if conn.flags.clear(Flags::ONLINE) {
            self.engine.shared.online.fetch_sub(1, Ordering::Relaxed);
        }
        self.engine.close(slot, reason);
        self.engine.linger(slot);
    }

    fn ask_callback(&mut self, slot: u32) {
        let Role::Opening(opening) = &self.engine.conns[slot].role else { return };
        let id = self.engine.conns.id(slot);
        let uniq_id = self.engine.uniq_ids.encode(id);
        let generation = self.engine.config.netsvr.generation;
        let body = wire::conn_open_body(generation, &uniq_id, &opening.info);
        self.engine.hooks.open(id, body);
        if self.engine.hooks.opens() > 2 * self.engine.conns.len() + LEFT_SPARE {
            self.engine.hooks.retain_opens(|id| self.engine.conns.slot(id).is_some());
        }
        self.engine.block(slot);
    }

    /// Sends data to a netsvr client, or one that is not let in.
    fn netsvr_push(&mut self, slot: u32, data: Bytes) {
        let engine = &mut self.engine;
        let (payload, customer) = (Payload::new(data), &engine.config.netsvr.customer);
        let frame = match engine.conns[slot].form {
            lists::NETSVR_DEFLATE => {
                netsvr_push::deflated(&payload, customer, engine.deflater.as_mut())
            }
            _ => netsvr_push::plain(&payload, customer),
        };
        engine.offer(slot, &Made::Frame(frame));
    }

    /// The callback at open has decided (section 7.1).
    pub(super) fn verdict(&mut self, id: ConnId, verdict: Option<Box<Verdict>>) {
        self.engine.hooks.done();
        let Some(slot) = self.engine.conns.slot(id) else { return };
        if self.engine.conns[slot].flags.has(Flags::GONE | Flags::CLOSING) {
            return;
        }
        let Role::Opening(opening) = &mut self.engine.conns[slot].role else { return };
        match verdict {
            Some(verdict) if verdict.allow => {
                opening.verdict = Some(verdict);
                self.try_open(slot);
            }
            denied => {
                self.engine.counters.callbacks_denied += denied.is_some() as u64;
                self.engine.counters.callbacks_failed += denied.is_none() as u64;
                let data = denied.as_ref().map(|verdict| verdict.data.clone()).unwrap_or_default();
                if !data.is_empty() {
                    self.netsvr_push(slot, data);
                }
                self.engine.turn_into(slot, Role::Leaving, rows::LEAVING);
                let failed = denied.is_none();
                self.engine.close(slot, if failed { CALLBACK_FAILED } else { UNAUTHORIZED });
            }
        }
    }

    /// Opens the connection, now or when a worker has room for the event.
    pub(super) fn try_open(&mut self, slot: u32) {
        let id = self.engine.conns.id(slot);
        let wait = self.engine.config.netsvr.worker.on_full == WorkerFull::Wait;
        if wait && !self.engine.links.ready(EventKind::Open, id, None) {
            return self.engine.wait_for_room(slot);
        }
        let Role::Opening(_) = self.engine.conns[slot].role else { return };
        let role = self.engine.turn_into(slot, Role::Netsvr(Client::default()), rows::NETSVR);
        let Role::Opening(opening) = role else { return };
        let Opening { info, verdict } = *opening;
        self.engine.counters.opens += 1;
        self.engine.join(slot);
        let verdict = verdict.map(|verdict| *verdict).unwrap_or_default();
        self.engine.hub.change(slot, &change_of(&verdict));
        if !verdict.data.is_empty() {
            self.netsvr_push(slot, verdict.data);
        }
        self.engine.conns[slot].active_ms = self.engine.now.ms;
        self.engine.rearm(slot);
        let generation = self.engine.config.netsvr.generation;
        let uniq_ids = self.engine.uniq_ids.encode(id);
        self.engine.event(slot, EventKind::Open, |_| wire::conn_open(generation, &uniq_ids, &info));
        self.engine.read_on(slot);
    }

    pub(super) fn read_frames(&mut self, slot: u32, mut input: &mut [u8]) {
        let mut decoder = std::mem::take(&mut self.engine.conns[slot].decoder);
        let mut inflater = std::mem::take(&mut self.engine.inflater);
        loop {
            if !self.wants_frames(slot) {
                // A connection that is gone needs nothing any more.
                if self.engine.conns[slot].flags.has(Flags::BLOCKED) {
                    decoder.stash(input);
                }
                break;
            }
            let rules = self.rules(slot);
            match decoder.next(&mut input, rules, &mut inflater) {
                Ok(None) => break,
                Ok(Some(event)) => {
                    self.frame(slot, event);
                    self.settle();
                }
                Err(violation) => {
                    self.engine.violated(slot, violation);
                    // Nothing is read any more; what was read does not wait for the end.
                    if self.engine.conns[slot].flags.has(Flags::DEAF) {
                        decoder = Decoder::default();
                    }
                    break;
                }
            }
        }
        self.engine.inflater = inflater;
        self.engine.conns[slot].decoder = decoder;
    }

    /// Whether the next frame of a client can be handled; blocks the client if it has to wait.
    fn wants_frames(&mut self, slot: u32) -> bool {
        if self.engine.conns[slot].flags.has(Flags::GONE | Flags::DEAF) || !self.engine.takes(slot)
        {
            return false;
        }
        let conn = &self.engine.conns[slot];
        match &conn.role {
            Role::Netsvr(_) => {
                let id = self.engine.conns.id(slot);
                let wait = self.engine.config.netsvr.worker.on_full == WorkerFull::Wait;
                if wait
                    && !conn.flags.has(Flags::CLOSING)
                    && !self.engine.links.ready(EventKind::Message, id, conn.worker())
                {
                    self.engine.wait_for_room(slot);
                    return false;
                }
            }
            Role::Xxim(_) => return self.xxim_ready(slot),
            Role::Im(_) => return self.im_ready(slot),
            Role::ConnmixApi(_) => return self.connmix_api_ready(slot),
            _ => {}
        }
        !self.engine.outbox_blocks(slot)
    }

    fn rules(&self, slot: u32) -> Rules {
        let row = self.engine.row(slot);
        Rules {
            message_bytes_max: row.message_bytes_max,
            deflate: self.engine.conns[slot].flags.has(Flags::DEFLATE),
            close_codes: row.close_codes,
        }
    }

    fn frame(&mut self, slot: u32, event: Event<'_>) {
        let closing = self.engine.conns[slot].flags.has(Flags::CLOSING);
        match event {
            Event::Close(payload) => {
                if self.engine.says_last(slot, || websocket::close_echo(payload)) {
                    return;
                }
                if !closing {
                    self.engine.say_goodbye(slot, websocket::close_echo(payload));
                }
                self.engine.hang_up(slot);
            }
            // After a close frame from here nothing of the client counts any more (W9).
            _ if closing => {}
            Event::Pong(_) => self.engine.shows_life(slot),
            Event::Ping(payload) => {
                match self.engine.row(slot).life {
                    Life::Own => {}
                    Life::Messages => self.engine.conns[slot].active_ms = self.engine.now.ms,
                    Life::Frames => self.engine.shows_life(slot),
                }
                self.engine.counters.heartbeats += 1;
                let pong = websocket::pong(payload);
                self.engine.push_pong(slot, pong);
            }
            Event::Message { opcode, data } => self.message(slot, opcode, data),
        }
    }

    fn message(&mut self, slot: u32, opcode: Opcode, data: &[u8]) {
        // IM counts what its frames say, and only they keep a connection alive.
        if matches!(self.engine.conns[slot].role, Role::Im(_)) {
            return self.im_message(slot, opcode, data);
        }
        self.engine.counters.messages_received += 1;
        self.engine.counters.message_bytes_received += data.len() as u64;
        self.engine.shows_life(slot);
        let conn = &mut self.engine.conns[slot];
        conn.active_ms = self.engine.now.ms;
        let customer = &self.engine.config.netsvr.customer;
        match &mut conn.role {
            Role::Netsvr(client) => {
                let window = WindowRules {
                    zero_window_max: customer.limit_zero_window_max_requests,
                    max: customer.limit_window_max_requests,
                    window_ms: customer.limit_window.as_millis() as u32,
                };
                let limiter = &self.engine.shared.message_limiter;
                let heartbeat = &customer.heartbeat_message;
                // What nobody wants takes nothing from the limiters (section 2.6, step 1).
                if !self.engine.links.wanted(EventKind::Message) && data != heartbeat.as_slice() {
                    return self.engine.dropped(DropReason::NoWorker, 1);
                }
                match client.message(data, self.engine.now.ms, heartbeat, &window, limiter) {
                    Inbound::Heartbeat => self.engine.counters.heartbeats += 1,
                    Inbound::Forward => self.forward(slot, data),
                    Inbound::OverConnectionLimit => {
                        self.engine.dropped(DropReason::ConnectionLimiter, 1);
                    }
                    Inbound::OverMessageLimit => {
                        self.engine.dropped(DropReason::MessageLimiter, 1);
                    }
                }
            }
            Role::Echo => {
                let deflate = conn.flags.has(Flags::DEFLATE);
                let deflater = self.engine.deflater.as_mut().filter(|_| deflate);
                let reply = echo::reply(opcode, data, deflater);
                self.engine.push(slot, reply);
            }
            Role::Xxim(_) => self.xxim_message(slot, opcode, data),
            Role::Connmix(_) => self.connmix_message(slot, opcode, data),
            Role::ConnmixApi(_) => self.connmix_api_message(slot, data),
            _ => {}
        }
    }

    fn forward(&mut self, slot: u32, data: &[u8]) {
        let worker = &self.engine.config.netsvr.worker;
        let (with_session, with_topics) = (worker.transfer_session, worker.transfer_topics);
        let uniq_id = self.engine.uniq_ids.encode(self.engine.conns.id(slot));
        self.engine.event(slot, EventKind::Message, |hub| {
            let session = if with_session { hub.session(slot) } else { "" };
            let topics = hub.topics_of(slot).filter(|_| with_topics).map(|topic| &**topic);
            wire::transfer(&uniq_id, hub.user(slot), session, topics, data)
        });
    }
}

impl Shard {
    /// A verifier has decided about a login.
    pub(super) fn verified(&mut self, id: ConnId, number: u32, verdict: login::Verdict) {
        self.engine.logins.done();
        let Some(slot) = self.engine.conns.slot(id) else { return };
        if self.engine.conns[slot].flags.has(Flags::GONE | Flags::CLOSING) {
            return;
        }
        match self.engine.conns[slot].role {
            Role::Xxim(_) => self.xxim_verified(slot, number, verdict),
            Role::XximHttp(_) => self.xxim_http_verified(slot, number, verdict),
            Role::Im(_) => self.im_verified(slot, number, verdict),
            _ => {}
        }
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
