//! The runtime of one core as a state machine: inputs in, operations out, time as an argument.
//!
//! A [`Shard`] owns its connections, its part of the users and topics, its timers and its counters.
//! It is fed by a driver ([`driver`] on io_uring, [`sim`] in tests) under the contract in [`ops`]
//! and never touches a socket, a clock or another thread itself. Other shards and the sidecar are
//! reached through mail that the driver carries.
//!
//! The code is one `impl Shard` in several files: `client` from the first byte to the messages,
//! `xxim`, `connmix` and `im` what those clients say, `business` and `connmix_api` the backend
//! connections, `commands` what backends ask for, `fan_out` how it reaches clients, `events` what
//! clients tell workers, `queries` questions over all shards, `answers` those that take
//! several turns, `leaving` how clients leave the hub, `closing` how connections end.
//!
//! Costs per message on the data path: no allocation for receiving, one for an event to a worker,
//! one per push and wire format, none per delivery; no system call of its own (the driver batches
//! them).

mod answers;
pub mod audit;
#[allow(unsafe_code)]
pub mod buffers;
mod business;
mod calls;
pub mod clock;
mod closing;
mod commands;
pub mod connmix;
pub mod connmix_api;
mod connmix_http;
pub mod conns;
mod dispatch;
pub mod driver;
mod due;
pub mod engine;
mod events;
mod fan_out;
pub mod flight;
pub mod forms;
mod hooks;
pub mod im;
pub mod later;
pub mod links;
pub mod lists;
mod logins;
pub mod mailbox;
pub mod manners;
mod mesh;
mod netsvr;
mod netsvr_push;
pub mod ops;
pub mod outbox;
mod queries;
pub mod queues;
mod reading;
#[allow(unsafe_code)]
pub mod ring;
mod rows;
mod sending;
pub mod sends;
mod shared;
pub mod sim;
mod spare;
mod tells;
pub mod timers;
mod wants;
pub mod xxim;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::model::{Config, Service};
use crate::hub::ConnId;
use crate::hub::push::Command;
use crate::metrics::{Counters, DropReason, Gauges, SendTimes};
use crate::shard::business::Business;
use crate::shard::commands::Job;
use crate::shard::conns::{Greeting, Role};
use crate::shard::flight::{Flight, Source};
use crate::shard::mailbox::{Mail, Reply, Request};
use crate::shard::queries::Asks;
use crate::shard::timers::Wheel;
use crate::wire::http::machine::Machine;
use crate::wire::tls::Tls;

pub use clock::Now;
pub use engine::{Engine, ListenerSettings};
pub use shared::Shared;

/// One shard; see the module.
pub struct Shard {
    pub engine: Engine,
    netsvr: netsvr::Netsvr,
    im: im::Im,
    connmix: connmix::Connmix,
    api: connmix_api::Api,
    xxim: xxim::State,
    /// When the next look for room that nobody needs is due.
    spare_ms: u64,
}

impl Engine {
    /// The connection of a slot, and the place of what it speaks in [`Role::NAMES`].
    pub fn in_hand(&self, slot: u32) -> (ConnId, u8) {
        (self.conns.id(slot), self.conns[slot].role.name_index())
    }

    /// How long sends took, for whoever publishes it; `None`: there never was one to a connmix
    /// client.
    pub fn send_times(&mut self) -> Option<&mut SendTimes> {
        self.sends.times()
    }
}

impl Shard {
    /// Shard `id` of `shards`. `seed` only decides where round-robin begins.
    pub fn new(
        id: u8,
        shards: usize,
        config: Arc<Config>,
        shared: Arc<Shared>,
        listeners: Vec<ListenerSettings>,
        seed: usize,
    ) -> Shard {
        Shard {
            engine: Engine::new(id, shards, config, shared, listeners, seed),
            netsvr: netsvr::Netsvr { asks: Asks::new(shards, seed as u64) },
            im: im::Im::default(),
            connmix: connmix::Connmix::default(),
            api: connmix_api::Api::default(),
            xxim: xxim::State::default(),
            spare_ms: 0,
        }
    }

    /// Starts a turn: the clock moves and what is due happens.
    pub fn begin_turn(&mut self, now: Now) {
        self.engine.begin_turn(now);
        self.xxim.begin_turn(&mut self.engine);
        self.engine.timers.advance(now.ms);
        while let Some(slot) = self.engine.timers.expired() {
            self.timed_out(slot);
            self.settle();
        }
        self.engine.job_timers.advance(now.ms);
        while let Some(job) = self.engine.job_timers.expired() {
            let Job { node, command } = self.engine.jobs.remove(job as usize);
            match node {
                None => self.dispatch(command),
                Some(node) => self.engine.dispatch_to(node, command),
            }
            self.settle();
        }
        self.im.tick(&mut self.engine);
        self.look_for_spare();
        self.netsvr.go_on_answering(&mut self.engine);
        self.settle_all();
    }

    /// A peer has connected. Returns the slot for its socket; with `None` the driver closes it.
    pub fn accepted(&mut self, listener: usize, peer: SocketAddr) -> Option<u32> {
        let total = self.engine.shared.connections.fetch_add(1, Ordering::Relaxed);
        let full = total >= self.engine.config.runtime.connections_max;
        let slot = match full || self.engine.is_draining() {
            true => None,
            false => {
                let now = self.engine.now;
                self.engine.conns.open(now.unix, listener as u16, now.ms)
            }
        };
        let Some(slot) = slot else {
            self.engine.shared.connections.fetch_sub(1, Ordering::Relaxed);
            self.engine.counters.connections_refused += 1;
            return None;
        };
        self.engine.counters.connections_accepted += 1;
        let (role, row) = self.first_role(listener, peer);
        self.engine.turn_into(slot, role, row);
        let source = match row {
            rows::WORKER | rows::TASK => Some(Source::Workers),
            rows::CONNMIX_API => Some(Source::Queues),
            _ => None,
        };
        if let Some(source) = source {
            let extra = self.engine.conns[slot].extra.get_or_insert_default();
            extra.flight = Some(Flight::new(source));
        }
        if let Some(config) = &self.engine.listeners[listener].tls {
            match Tls::new(config.clone()) {
                Ok(tls) => self.engine.conns[slot].tls = Some(Box::new(tls)),
                Err(error) => {
                    if let Some(unsaid) = self.engine.complaints.allow(self.engine.now.ms) {
                        tracing::error!(listener, %error, unsaid, "TLS can not start");
                    }
                    self.engine.finish(slot);
                    return Some(slot);
                }
            }
        }
        match row {
            rows::GREETING => {
                let time_ms = self.engine.config.runtime.handshake_timeout.as_millis() as u64;
                self.engine.set_due(slot, self.engine.now.ms + time_ms);
            }
            _ => self.engine.rearm(slot),
        }
        if self.engine.conns[slot].tls.is_none() {
            self.stream_opened(slot);
        }
        self.settle_all();
        Some(slot)
    }

    fn first_role(&self, listener: usize, peer: SocketAddr) -> (Role, u16) {
        let settings = &self.engine.listeners[listener];
        match settings.service {
            Service::Http(_) => {
                let greeting = Greeting { peer, machine: Machine::default() };
                (Role::Greeting(Box::new(greeting)), rows::GREETING)
            }
            Service::NetsvrWorker | Service::NetsvrTask => {
                let worker = settings.service == Service::NetsvrWorker;
                let name = Business::name(settings.address, peer, self.engine.now.unix);
                let row = if worker { rows::WORKER } else { rows::TASK };
                (Role::Business(Box::new(Business::new(worker, peer, name))), row)
            }
            Service::XximTcp => (Role::Xxim(Box::new(xxim::Conn::new(peer))), rows::XXIM),
            Service::ConnmixApi => {
                (Role::ConnmixApi(Box::new(connmix_api::Conn::new(peer))), rows::CONNMIX_API)
            }
            Service::Connmix { server } => self.connmix.accepted(&self.engine, peer, server),
            Service::Im => (Role::Im(Box::new(im::Conn::new(peer))), rows::IM_NEW),
        }
    }

    /// Bytes arrived. They may be changed in place (unmasked, decrypted).
    pub fn received(&mut self, slot: u32, data: &mut [u8]) {
        self.engine.counters.receives += 1;
        if self.engine.holds(slot, data) {
            return;
        }
        self.take_in(slot, data);
        self.settle_all();
    }

    /// The peer has ended its side: see [`Engine::ended`].
    pub fn ended(&mut self, slot: u32) {
        self.engine.ended(slot);
        self.settle_all();
    }

    /// The connection is broken: see [`Engine::broken`].
    pub fn broken(&mut self, slot: u32) {
        self.engine.broken(slot);
        self.settle_all();
    }

    /// A send has stalled: see [`Engine::stalled`].
    pub fn stalled(&mut self, slot: u32, written: usize) {
        self.engine.stalled(slot, written);
        self.settle_all();
    }

    /// A stalled send is over: see [`Engine::sent`].
    pub fn sent(&mut self, slot: u32, result: Result<(), usize>) {
        self.engine.sent(slot, result);
        self.settle_all();
    }

    /// The socket of a slot is closed: see [`Engine::closed`].
    pub fn closed(&mut self, slot: u32) {
        self.engine.closed(slot);
    }

    /// A listener could not accept: see [`Engine::accept_failed`].
    pub fn accept_failed(&mut self) {
        self.engine.accept_failed();
    }

    /// Whether the shard has stopped: see [`Engine::stopped`].
    pub fn stopped(&self) -> bool {
        self.engine.stopped()
    }

    /// A message from another thread.
    pub fn mail(&mut self, mail: Mail) {
        self.open_mail(mail);
        self.settle_all();
    }

    fn open_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Command(command) => _ = self.apply(&command),
            Mail::Abroad(command) => {
                self.for_another_node(|shard| _ = shard.apply(&command));
            }
            Mail::Part(command) => _ = self.apply(&command),
            Mail::Ask { query, from, reply } => {
                self.netsvr.find(&mut self.engine, query, from, reply)
            }
            Mail::Tell { command, reply } => self.answer_tell(&command, reply),
            Mail::Replied { number, reply: Reply::Outcome(part) } => self.told(number, part),
            Mail::Replied { number, reply } => self.netsvr.replied(&mut self.engine, number, reply),
            Mail::Made { number, made } => self.netsvr.made(&mut self.engine, number, made),
            Mail::AskRates { from, number } => {
                self.netsvr.answer_rates(&mut self.engine, from, number)
            }
            Mail::Rates { number, rates } => {
                self.netsvr.rates_answered(&mut self.engine, number, &rates)
            }
            Mail::Event { from, worker, frame } => self.engine.deliver_event(from, worker, frame),
            Mail::EventsWritten { worker, count } => self.engine.links.written(worker, count),
            Mail::WorkerAdded(worker) => self.engine.links.add(worker),
            Mail::WorkerLeaving { worker } => self.netsvr.worker_leaving(&mut self.engine, worker),
            Mail::WorkerLeft { worker } => self.netsvr.worker_left(&mut self.engine, worker),
            Mail::WorkerGone { worker, written } => self.engine.worker_gone(worker, written),
            Mail::Unregister { from, number, worker } => {
                self.netsvr.unregister(&mut self.engine, from, number, worker)
            }
            Mail::Unregistered { number } => self.netsvr.unregistered(&mut self.engine, number),
            Mail::Opened { conn, verdict } => self.netsvr.verdict(&mut self.engine, conn, verdict),
            Mail::ClosedCallback { number } => self.netsvr.close_told(&mut self.engine, number),
            Mail::Queue(mail) => self.queue_mail(mail),
            Mail::Rendered { number, text } => self.api.rendered(&mut self.engine, number, &text),
            Mail::Chat(chat) => self.im.order(&mut self.engine, *chat),
            Mail::Verified { conn, number, verdict } => self.verified(conn, number, verdict),
            Mail::HttpCalled { conn, answer } => {
                self.connmix.http_called(&mut self.engine, conn, answer)
            }
            Mail::Nodes(nodes) => self.engine.nodes_changed(nodes),
            Mail::Logins { from } => self.xxim.tell_logins(&mut self.engine, from),
            Mail::Room(message) => self.dispatch(Command::Room(message)),
            Mail::Certificates { listener, config } => {
                self.engine.listeners[listener].tls = Some(config);
            }
            Mail::UpstreamAnswered { conn, number, result } => {
                self.xxim.answered(&mut self.engine, conn, number, &result);
            }
            Mail::Unwrapped { conn, number, seeds } => {
                self.xxim.unwrapped(&mut self.engine, conn, number, seeds)
            }
            Mail::XximPush { work, reply } => {
                let pushed = self.xxim.push(&mut self.engine, &work);
                // Nobody waits any more if it fails.
                let _ = reply.send(pushed);
            }
            Mail::XximChecked { conn, number, permission } => {
                self.xxim.checked(&mut self.engine, conn, number, permission);
            }
            Mail::XximClaim { triple, conn, order } => {
                self.xxim.claim_from(&mut self.engine, triple, conn, order)
            }
            Mail::XximClaimed { triple, conn, held } => {
                self.xxim.claimed(&mut self.engine, &triple, conn, held)
            }
            Mail::XximDisplaced { triple, conn } => {
                self.xxim.displaced(&mut self.engine, &triple, conn)
            }
            Mail::XximRelease { triple, conn } => self.xxim.release(&mut self.engine, triple, conn),
            Mail::Drain => self.drain(),
            Mail::Stop => self.stop(),
        }
    }

    /// Ends a turn: room that has come up is used, and everything queued becomes operations.
    pub fn end_turn(&mut self) {
        let mut unconfirmed = std::mem::take(&mut self.engine.unconfirmed);
        for slot in unconfirmed.drain(..) {
            self.engine.confirm(slot);
            self.settle();
        }
        // What could not be confirmed yet; the vector is reused.
        unconfirmed.append(&mut self.engine.unconfirmed);
        self.engine.unconfirmed = unconfirmed;
        self.settle_all();
        self.engine.sends_end();
        self.give_room();
        self.connmix.tell_departures(&mut self.engine);
        self.queue_turn();
        self.xxim.give_room(&mut self.engine);
        self.settle_all();
        let mut touched = std::mem::take(&mut self.engine.touched);
        for slot in touched.drain(..) {
            self.engine.flush(slot);
            self.settle();
        }
        self.engine.joined.clear();
        // What was touched while flushing waits for the next turn; the vector is reused.
        touched.append(&mut self.engine.touched);
        self.engine.touched = touched;
        self.engine.tell_turns();
    }

    /// The next request for the sidecar, if its turn has come.
    pub fn next_request(&mut self) -> Option<Request> {
        let request = self.engine.hooks.next();
        let callback = |request: &Request| !matches!(request, Request::Metrics { .. });
        self.engine.counters.callbacks_started += request.as_ref().is_some_and(callback) as u64;
        request
            .or_else(|| self.engine.logins.next(self.engine.config.login.under_way_max))
            .or_else(|| self.connmix.calls.next(self.engine.config.connmix.rules.http_calls_max))
            .or_else(|| self.xxim.next_request())
            .or_else(|| self.netsvr.asks.making.next_request())
    }

    /// For tests: xxim clients whose keys wait to be decrypted.
    pub fn xxim_keys_waiting(&self) -> usize {
        self.xxim.keys_waiting()
    }

    /// For tests: triples of xxim that are at home here.
    pub fn xxim_held(&self) -> usize {
        self.xxim.held()
    }

    /// Whether there is something to do in another turn without any input.
    pub fn busy(&self) -> bool {
        !self.engine.touched.is_empty()
            || !self.engine.unconfirmed.is_empty()
            || self.engine.room_left
            || self.engine.wants.has_readers()
            || self.netsvr.asks.is_busy(self.engine.answers_written)
            || self.engine.queueing.is_busy()
            || !self.connmix.leaving.is_empty()
            || self.xxim.has_room(&self.engine)
    }

    /// When the next turn must come at the latest, in milliseconds of the process clock.
    pub fn next_ms(&self) -> Option<u64> {
        let wheels = [&self.engine.timers, &self.engine.job_timers, &self.im.timers];
        let timers = wheels.into_iter().filter_map(Wheel::next_ms);
        timers.chain(self.xxim.next_ms(&self.engine.config.xxim)).min()
    }

    /// Feeds the counters and the gauges of this moment to whoever publishes them.
    pub fn report(&self) -> (Counters, Gauges) {
        let (event_frames, event_bytes) = self.engine.links.queued();
        let gauges = Gauges {
            connections: self.engine.conns.len() as u64,
            clients: self.engine.hub.len() as u64,
            workers: self.engine.workers as u64,
            users: self.engine.hub.users() as u64,
            topics: self.engine.hub.topics() as u64,
            subscriptions: self.engine.hub.subscriptions() as u64,
            event_queue_frames: event_frames as u64,
            event_queue_bytes: event_bytes as u64,
            queue_messages: self.engine.queueing.queues.depth() as u64,
            queue_oldest_s: self.engine.queueing.queues.oldest_ms(self.engine.now.ms) / 1000,
            queue_topics: self.engine.queueing.queues.topics() as u64,
            queue_consumers: self.engine.queueing.queues.consumers() as u64,
            clients_waiting: self.engine.waiting.len() as u64,
            connections_stalled: self.engine.stalls as u64,
            connmix_clients: self.connmix.clients,
            im_guests: self.im.guests,
            im_users: self.im.users,
            im_batches_open: self.im.rooms.len() as u64,
            xxim_keys_waiting: self.xxim.keys_waiting() as u64,
            timers: (self.engine.timers.len() + self.engine.job_timers.len() + self.im.timers.len())
                as u64,
        };
        let tally = self.engine.queueing.queues.tally;
        let mut counters = self.engine.counters;
        counters.queue_pushed = tally.pushed;
        counters.queue_delivered = tally.delivered;
        counters.queue_returned = tally.returned;
        counters.queue_refused = tally.refused;
        counters.count_dropped(DropReason::QueueOldest, tally.dropped);
        if self.engine.stopped() && !self.engine.queueing.is_stored() {
            counters.count_dropped(DropReason::Shutdown, gauges.queue_messages);
        }
        (counters, gauges)
    }
}
