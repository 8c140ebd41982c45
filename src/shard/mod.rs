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
mod client;
pub mod clock;
mod closing;
mod commands;
pub mod connmix;
pub mod connmix_api;
mod connmix_http;
pub mod conns;
pub mod driver;
mod events;
mod fan_out;
pub mod flight;
mod hooks;
pub mod im;
mod leaving;
pub mod links;
mod logins;
pub mod mailbox;
mod mesh;
pub mod ops;
pub mod outbox;
mod queries;
pub mod queues;
#[allow(unsafe_code)]
pub mod ring;
mod sending;
mod shared;
pub mod sim;
mod spare;
pub mod timers;
pub mod xxim;

use std::collections::VecDeque;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use slab::Slab;

use crate::config::model::{Config, NetsvrWorker, Service};
use crate::hub::client_id::ClientIds;
use crate::hub::push::Command;
use crate::hub::{ConnId, Hub};
use crate::limits;
use crate::log::Every;
use crate::metrics::{Counters, DropReason, Gauges, Meters, SendTimes};
use crate::shard::business::Business;
use crate::shard::commands::Job;
use crate::shard::conns::{Conns, Flags, Greeting, Role};
use crate::shard::hooks::Hooks;
use crate::shard::links::{LinkLimits, Links};
use crate::shard::logins::Logins;
use crate::shard::mailbox::{Mail, Request};
use crate::shard::ops::Op;
use crate::shard::outbox::Joined;
use crate::shard::queries::Asks;
use crate::shard::timers::Wheel;
use crate::wire::deflate::{Deflater, Inflater};
use crate::wire::http::date::Date;
use crate::wire::http::machine::Machine;
use crate::wire::netsvr::UniqIds;
use crate::wire::tls::{ServerConfig, Tls};

pub use clock::Now;
pub use shared::Shared;

/// What a shard needs to know about one listener.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    pub service: Service,
    /// The address as business processes know it; part of their registration names.
    pub address: SocketAddrV4,
    /// The address that it is bound to.
    pub bound: SocketAddr,
    pub tls: Option<Arc<ServerConfig>>,
}

/// One shard; see the module.
pub struct Shard {
    id: u8,
    config: Arc<Config>,
    shared: Arc<Shared>,
    listeners: Vec<ListenerSettings>,
    now: Now,
    conns: Conns,
    hub: Hub,
    uniq_ids: UniqIds,
    client_ids: ClientIds,
    timers: Wheel,
    jobs: Slab<Job>,
    job_timers: Wheel,
    links: Links,
    queueing: queues::Queueing,
    asks: Asks,
    hooks: Hooks,
    /// `None` if there is no mesh.
    mesh: Option<mesh::Mesh>,
    logins: Logins,
    im: im::Im,
    connmix: connmix::Desk,
    xxim: xxim::State,
    /// Connections with output to flush.
    touched: Vec<u32>,
    /// What the connection flushed before had joined.
    joined: Joined,
    /// Connections whose last send is complete unless the driver says otherwise by the next turn.
    unconfirmed: Vec<u32>,
    /// Clients that wait for room in the workers' queues, in the order in which they began to.
    waiting: VecDeque<ConnId>,
    /// More of them could go on than one turn allows.
    room_left: bool,
    inflater: Inflater,
    deflater: Option<Deflater>,
    plain: Vec<u8>,
    /// Of the last answer over HTTP.
    date: Date,
    /// Operations for the driver, in order.
    pub ops: Vec<Op>,
    /// Mail for the other shards, by shard, in order.
    pub mail: Vec<VecDeque<Mail>>,
    counters: Counters,
    meters: Meters,
    /// Keeps what peers cause from flooding the log: one line a second and shard.
    complaints: Every,
    workers: usize,
    /// Connections with a stalled send.
    stalls: usize,
    /// When the next look for room that nobody needs is due.
    spare_ms: u64,
    /// Set while it drains: when a client is said goodbye to at the latest, whatever it waits for,
    /// milliseconds of the process clock.
    drain_due_ms: Option<u64>,
    stopping: bool,
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
        let limits = link_limits(&config.netsvr.worker, shards);
        let (topics, room) = (shared.queue_topics.clone(), shared.queue_room.clone());
        let queueing = queues::Queueing::new(&config.connmix, topics, room);
        let client_ids = ClientIds::new(config.node, shards, config.runtime.connections_max);
        let start = shared.ids_start;
        let (level, mesh) = (config.netsvr.customer.compression_level, shared.mesh.clone());
        let hub = hub(&config, &shared);
        Shard {
            id,
            shared,
            listeners,
            now: Now::default(),
            conns: Conns::new(id, config.runtime.connections_max),
            hub,
            uniq_ids: UniqIds::new(config.netsvr.advertise).rotated(client_ids.rotation(start)),
            client_ids: client_ids.starting(start),
            timers: Wheel::new(),
            jobs: Slab::new(),
            job_timers: Wheel::new(),
            links: Links::new(limits, config.netsvr.worker.pick, seed),
            queueing,
            asks: Asks::new(shards, seed as u64),
            hooks: Hooks::new(&config.netsvr.customer),
            logins: Logins::default(),
            im: im::Im::default(),
            connmix: connmix::Desk::default(),
            xxim: xxim::State::default(),
            touched: Vec::new(),
            joined: Joined::default(),
            unconfirmed: Vec::new(),
            waiting: VecDeque::new(),
            room_left: false,
            inflater: Inflater::new(),
            deflater: (level != 0).then(|| Deflater::new(level)),
            plain: Vec::new(),
            date: Date::default(),
            ops: Vec::new(),
            mesh: mesh.map(mesh::Mesh::new),
            mail: (0..shards).map(|_| VecDeque::new()).collect(),
            counters: Counters::default(),
            meters: Meters::new(0),
            complaints: Every::new(1000),
            workers: 0,
            stalls: 0,
            spare_ms: 0,
            drain_due_ms: None,
            stopping: false,
            config,
        }
    }

    /// Starts a turn: the clock moves and what is due happens.
    pub fn begin_turn(&mut self, now: Now) {
        debug_assert!(now.ms >= self.now.ms, "the process clock never goes back");
        self.now = now;
        self.counters.turns += 1;
        self.xxim_begin_turn();
        self.meters.tick(now.ms, &self.counters.items());
        self.timers.advance(now.ms);
        while let Some(slot) = self.timers.expired() {
            self.timed_out(slot);
        }
        self.job_timers.advance(now.ms);
        while let Some(job) = self.job_timers.expired() {
            let Job { node, command } = self.jobs.remove(job as usize);
            match node {
                None => self.dispatch(command),
                Some(node) => self.dispatch_to(node, command),
            }
        }
        self.im_tick();
        self.look_for_spare();
        self.go_on_answering();
    }

    /// A peer has connected. Returns the slot for its socket; with `None` the driver closes it.
    pub fn accepted(&mut self, listener: usize, peer: SocketAddr) -> Option<u32> {
        let total = self.shared.connections.fetch_add(1, Ordering::Relaxed);
        let full = total >= self.config.runtime.connections_max;
        let role = self.first_role(listener, peer);
        let slot = match full || self.is_draining() {
            true => None,
            false => self.conns.open(self.now.unix, listener as u16, role, self.now.ms),
        };
        let Some(slot) = slot else {
            self.shared.connections.fetch_sub(1, Ordering::Relaxed);
            self.counters.connections_refused += 1;
            return None;
        };
        self.counters.connections_accepted += 1;
        if let Some(config) = &self.listeners[listener].tls {
            match Tls::new(config.clone()) {
                Ok(tls) => self.conns[slot].tls = Some(Box::new(tls)),
                Err(error) => {
                    if let Some(unsaid) = self.complaints.allow(self.now.ms) {
                        tracing::error!(listener, %error, unsaid, "TLS can not start");
                    }
                    self.finish(slot);
                    return Some(slot);
                }
            }
        }
        self.rearm(slot);
        if self.conns[slot].tls.is_none() {
            self.stream_opened(slot);
        }
        Some(slot)
    }

    fn first_role(&self, listener: usize, peer: SocketAddr) -> Role {
        let settings = &self.listeners[listener];
        match settings.service {
            Service::Http(_) => {
                Role::Greeting(Box::new(Greeting { peer, machine: Machine::default() }))
            }
            Service::NetsvrWorker | Service::NetsvrTask => {
                let worker = settings.service == Service::NetsvrWorker;
                let name = Business::name(settings.address, peer, self.now.unix);
                Role::Business(Box::new(Business::new(worker, peer, name)))
            }
            Service::XximTcp => Role::Xxim(Box::new(xxim::Conn::new(peer))),
            Service::ConnmixApi => Role::ConnmixApi(Box::new(connmix_api::Conn::new(peer))),
            Service::Connmix { server } => self.connmix_accepted(peer, server),
            Service::Im => Role::Im(Box::new(im::Conn::new(peer))),
        }
    }

    /// The connection of a slot, and the place of what it speaks in [`Role::NAMES`].
    pub fn in_hand(&self, slot: u32) -> (ConnId, u8) {
        (self.conns.id(slot), self.conns[slot].role.name_index())
    }

    /// Bytes arrived. They may be changed in place (unmasked, decrypted).
    pub fn received(&mut self, slot: u32, data: &mut [u8]) {
        self.counters.receives += 1;
        let conn = &mut self.conns[slot];
        if conn.flags.has(Flags::GONE | Flags::DEAF | Flags::ENDED) {
            return;
        }
        if conn.flags.has(Flags::BLOCKED) {
            let held = conn.held.get_or_insert_default();
            held.extend_from_slice(data);
            // Whoever is only waited for is still read, to notice its end, but not without bounds.
            let held_max = match conn.role {
                Role::Xxim(_) | Role::XximHttp(_) => limits::XXIM_HELD_BYTES_MAX,
                _ => limits::HELD_BYTES_MAX,
            };
            if held.len() > held_max && conn.flags.set(Flags::PAUSED) {
                self.ops.push(Op::Pause { slot });
            }
            return;
        }
        self.take_in(slot, data);
    }

    /// The socket of a slot is closed; the slot is free.
    pub fn closed(&mut self, slot: u32) {
        debug_assert!(self.conns[slot].flags.has(Flags::GONE));
        self.conns.free(slot);
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// The listener could not accept: most often the process has no descriptor left.
    pub fn accept_failed(&mut self) {
        self.counters.accept_failures += 1;
    }

    /// A message from another thread.
    pub fn mail(&mut self, mail: Mail) {
        match mail {
            Mail::Command(command) => _ = self.apply(&command),
            Mail::Abroad(command) => {
                self.for_another_node(|shard| _ = shard.apply(&command));
            }
            Mail::Part(command) => _ = self.apply(&command),
            Mail::Ask { query, from, reply } => self.find(query, from, reply),
            Mail::Tell { command, reply } => self.answer_tell(&command, reply),
            Mail::Replied { number, reply } => self.replied(number, reply),
            Mail::Made { number, made } => self.made(number, made),
            Mail::AskRates { from, number } => self.answer_rates(from, number),
            Mail::Rates { number, rates } => self.rates_answered(number, &rates),
            Mail::Event { from, worker, frame } => self.deliver_event(from, worker, frame),
            Mail::EventsWritten { worker, count } => self.links.written(worker, count),
            Mail::WorkerAdded(worker) => self.links.add(worker),
            Mail::WorkerLeaving { worker } => self.worker_leaving(worker),
            Mail::WorkerLeft { worker } => self.worker_left(worker),
            Mail::WorkerGone { worker, written } => self.worker_gone(worker, written),
            Mail::Unregister { from, number, worker } => self.unregister(from, number, worker),
            Mail::Unregistered { number } => self.unregistered(number),
            Mail::Opened { conn, verdict } => self.verdict(conn, verdict),
            Mail::ClosedCallback { number } => self.close_told(number),
            Mail::Queue(mail) => self.queue_mail(mail),
            Mail::Rendered { number, text } => self.rendered(number, &text),
            Mail::Chat(chat) => self.im_order(*chat),
            Mail::Verified { conn, number, verdict } => self.verified(conn, number, verdict),
            Mail::HttpCalled { conn, answer } => self.http_called(conn, answer),
            Mail::Nodes(nodes) => self.nodes_changed(nodes),
            Mail::Logins { from } => self.xxim_tell_logins(from),
            Mail::Room(message) => self.dispatch(Command::Room(message)),
            Mail::Certificates { listener, config } => {
                self.listeners[listener].tls = Some(config);
            }
            Mail::UpstreamAnswered { conn, number, result } => {
                self.xxim_answered(conn, number, &result);
            }
            Mail::Unwrapped { conn, number, seeds } => self.xxim_unwrapped(conn, number, seeds),
            Mail::XximPush { work, reply } => {
                let pushed = self.xxim_push(&work);
                // Nobody waits any more if it fails.
                let _ = reply.send(pushed);
            }
            Mail::XximChecked { conn, number, permission } => {
                self.xxim_checked(conn, number, permission);
            }
            Mail::XximClaim { triple, conn, order } => self.xxim_claim_from(triple, conn, order),
            Mail::XximClaimed { triple, conn, held } => self.xxim_claimed(&triple, conn, held),
            Mail::XximDisplaced { triple, conn } => self.xxim_displaced(&triple, conn),
            Mail::XximRelease { triple, conn } => self.xxim_release(triple, conn),
            Mail::Drain => self.drain(),
            Mail::Stop => self.stop(),
        }
    }

    /// Ends a turn: room that has come up is used, and everything queued becomes operations.
    pub fn end_turn(&mut self) {
        let mut unconfirmed = std::mem::take(&mut self.unconfirmed);
        unconfirmed.drain(..).for_each(|slot| self.confirm(slot));
        // What could not be confirmed yet; the vector is reused.
        unconfirmed.append(&mut self.unconfirmed);
        self.unconfirmed = unconfirmed;
        self.connmix_sends_end();
        self.give_room();
        self.connmix_tell_departures();
        self.queue_turn();
        self.xxim_give_room();
        let mut touched = std::mem::take(&mut self.touched);
        for slot in touched.drain(..) {
            self.flush(slot);
        }
        self.joined.clear();
        // What was touched while flushing waits for the next turn; the vector is reused.
        touched.append(&mut self.touched);
        self.touched = touched;
        self.tell_turns();
    }

    /// The next request for the sidecar, if its turn has come.
    pub fn next_request(&mut self) -> Option<Request> {
        let request = self.hooks.next();
        let callback = |request: &Request| !matches!(request, Request::Metrics { .. });
        self.counters.callbacks_started += request.as_ref().is_some_and(callback) as u64;
        request
            .or_else(|| self.logins.next(self.config.login.under_way_max))
            .or_else(|| self.connmix.calls.next(self.config.connmix.rules.http_calls_max))
            .or_else(|| self.xxim.next_request())
            .or_else(|| self.asks.making.next_request())
    }

    /// Whether there is something to do in another turn without any input.
    pub fn busy(&self) -> bool {
        !self.touched.is_empty()
            || !self.unconfirmed.is_empty()
            || self.room_left
            || self.asks.is_busy()
            || self.queueing.is_busy()
            || !self.connmix.leaving.is_empty()
            || self.xxim_has_room()
    }

    /// When the next turn must come at the latest, in milliseconds of the process clock.
    pub fn next_ms(&self) -> Option<u64> {
        let wheels = [&self.timers, &self.job_timers, &self.im.timers];
        let timers = wheels.into_iter().filter_map(Wheel::next_ms);
        timers.chain(self.xxim.next_ms(&self.config.xxim)).min()
    }

    /// Feeds the counters and the gauges of this moment to whoever publishes them.
    pub fn report(&self) -> (Counters, Gauges) {
        let (event_frames, event_bytes) = self.links.queued();
        let gauges = Gauges {
            connections: self.conns.len() as u64,
            clients: self.hub.len() as u64,
            workers: self.workers as u64,
            users: self.hub.users() as u64,
            topics: self.hub.topics() as u64,
            subscriptions: self.hub.subscriptions() as u64,
            event_queue_frames: event_frames as u64,
            event_queue_bytes: event_bytes as u64,
            queue_messages: self.queueing.queues.depth() as u64,
            queue_oldest_s: self.queueing.queues.oldest_ms(self.now.ms) / 1000,
            queue_topics: self.queueing.queues.topics() as u64,
            queue_consumers: self.queueing.queues.consumers() as u64,
            clients_waiting: self.waiting.len() as u64,
            connections_stalled: self.stalls as u64,
            connmix_clients: self.connmix.clients,
            im_guests: self.im.guests,
            im_users: self.im.users,
            im_batches_open: self.im.rooms.len() as u64,
            xxim_keys_waiting: self.xxim.keys_waiting() as u64,
            timers: (self.timers.len() + self.job_timers.len() + self.im.timers.len()) as u64,
        };
        let tally = self.queueing.queues.tally;
        let mut counters = self.counters;
        counters.queue_pushed = tally.pushed;
        counters.queue_delivered = tally.delivered;
        counters.queue_returned = tally.returned;
        counters.queue_refused = tally.refused;
        counters.count_dropped(DropReason::QueueOldest, tally.dropped);
        if self.stopped() && !self.queueing.is_stored() {
            counters.count_dropped(DropReason::Shutdown, gauges.queue_messages);
        }
        (counters, gauges)
    }

    /// The `Date` of an answer over HTTP that is written now.
    fn http_date(&mut self) -> Date {
        self.date.at(self.now.unix_ms / 1000)
    }

    /// How long sends took, for whoever publishes it; `None`: there never was one to a connmix
    /// client.
    pub fn send_times(&mut self) -> Option<&mut SendTimes> {
        self.connmix.sends.times()
    }

    fn dropped(&mut self, reason: DropReason, count: u64) {
        self.counters.count_dropped(reason, count);
    }
}

/// An empty hub that counts what this process needs.
fn hub(config: &Config, shared: &Shared) -> Hub {
    let mut hub = Hub::new();
    if shared.mesh.is_some() {
        hub.count_buckets();
    }
    if config.im.max_room_members > 0 || config.im.room_rate > 0 {
        hub.count_rooms(shared.room_limits.clone());
    }
    hub
}

/// One shard's share of a worker's queue.
fn link_limits(worker: &NetsvrWorker, shards: usize) -> LinkLimits {
    let share = |total: u32| (total as usize / shards).max(1);
    LinkLimits {
        frames_max: share(worker.queue_frames_max),
        bytes_max: share(worker.queue_bytes_max),
    }
}
