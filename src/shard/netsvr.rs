//! WebSocket clients: from the first byte to the messages (netsvr sections 2.1 to 2.6).

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::config::model::WorkerFull;
use crate::edge::netsvr::{Client, Inbound};
use crate::edge::upgrade::Opening as Upgrade;
use crate::hub::limits::WindowRules;
use crate::hub::push::{Change, CloseReason, Payload, TopicChange};
use crate::hub::{ConnId, Departed};
use crate::metrics::DropReason;
use crate::shard::Shard;
use crate::shard::audit::LEFT_SPARE;
use crate::shard::conns::{Flags, Opening, Role};
use crate::shard::forms::Made;
use crate::shard::links::{Event, EventKind};
use crate::shard::rows;
use crate::shard::{lists, netsvr_push};
use crate::wire::netsvr::{self as wire, OpenInfo, Verdict};

const IDLE: CloseReason = CloseReason { code: 1001, text: "heartbeat timeout" };
/// Close reasons of a refused open (section 2.4).
const RATE_LIMITED: CloseReason =
    CloseReason { code: 1013, text: "open rate limited, try again later" };
/// Section 7.1; the original shows the client the error and with it the callback's address (W13).
const CALLBACK_FAILED: CloseReason = CloseReason { code: 1011, text: "open callback failed" };
const UNAUTHORIZED: CloseReason = CloseReason { code: 1008, text: "unauthorized" };

impl Shard {
    pub(super) fn netsvr_upgraded(&mut self, slot: u32, peer: SocketAddr, upgrade: Upgrade) {
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

    /// One WebSocket message.
    pub(super) fn netsvr_message(&mut self, slot: u32, data: &[u8]) {
        let customer = &self.engine.config.netsvr.customer;
        let window = WindowRules {
            zero_window_max: customer.limit_zero_window_max_requests,
            max: customer.limit_window_max_requests,
            window_ms: customer.limit_window.as_millis() as u32,
        };
        let heartbeat = &customer.heartbeat_message;
        // What nobody wants takes nothing from the limiters (netsvr section 2.6, step 1).
        if !self.engine.links.wanted(EventKind::Message) && data != heartbeat.as_slice() {
            return self.engine.dropped(DropReason::NoWorker, 1);
        }
        let Role::Netsvr(client) = &mut self.engine.conns[slot].role else { return };
        let limiter = &self.engine.shared.message_limiter;
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

    /// A netsvr client has left with what it had: a worker is told, after the callback if there is
    /// one.
    pub(super) fn netsvr_left(&mut self, slot: u32, departed: &Departed) {
        let worker = self.engine.conns[slot].worker();
        self.engine.counters.closes += 1;
        let id = self.engine.conns.id(slot);
        let uniq_id = self.engine.uniq_ids.encode(id);
        let topics = departed.topics.iter().map(|topic| &**topic);
        let (user, session) = (&departed.user, &departed.session);
        let frame = wire::conn_close(&uniq_id, user, session, topics);
        let event = Event { kind: EventKind::Close, client: id, frame };
        if self.engine.config.netsvr.customer.on_close_callback_api.is_some() {
            // The body of the callback is the frame without its header.
            let body = event.frame.slice(wire::HEADER..);
            if let Err(event) = self.engine.hooks.close(self.engine.id, body, event, worker) {
                self.engine.dropped(DropReason::CallbackSkipped, 1);
                self.engine.place_close(event, worker);
            }
        } else {
            self.engine.place_close(event, worker);
        }
    }

    /// A netsvr client is gone, or one that was not let in: its place is free.
    pub(super) fn netsvr_gone(&mut self, slot: u32) {
        if self.engine.conns[slot].flags.clear(Flags::ONLINE) {
            self.engine.shared.online.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The client has been silent for too long.
    pub(super) fn netsvr_silent(&mut self, slot: u32) {
        self.engine.counters.idle_timeouts += 1;
        self.engine.close(slot, IDLE);
    }

    /// The callback at close is over, whatever came of it (section 7.2).
    pub(super) fn close_told(&mut self, number: u64) {
        self.engine.hooks.done();
        if let Some((event, sticky)) = self.engine.hooks.told(number) {
            self.engine.place_close(event, sticky);
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
