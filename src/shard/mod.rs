//! The runtime of one core as a state machine: inputs in, operations out, time as an argument.
//!
//! A [`Shard`] owns its connections, its part of the users and topics, its timers and its counters.
//! It is fed by a driver ([`crate::engine::driver`] on io_uring, [`crate::sim`] in tests) under the
//! contract in [`crate::engine::ops`] and never touches a socket, a clock or another thread itself.
//! Other shards and the sidecar are reached through mail that the driver carries.
//!
//! [`Engine`] is what the protocols have in common; it knows none of them. The protocols are
//! tenants (`tenants`): each keeps what it knows of a connection in a slab of its own.
//!
//! There are three kinds of call. The shard calls a tenant and gives it the engine; it may use what
//! comes back. A tenant calls a verb of the engine, which returns at once and calls nobody. All
//! else is a want (`wants`): the shard empties the list of wants after every call of a tenant and
//! before the next message of any connection (`dispatch`). So nothing calls upwards:
//!
//! ```text
//! driver -> shard (reading, dispatch, letters) -> tenant -> engine -> operations, mail
//!              ^                                              |
//!              +----------------- wants ----------------------+
//! ```
//!
//! `commands` carries out what backends ask for, `fan_out` how a push reaches its connections.
//!
//! Costs per message on the data path: no allocation for receiving, one for an event to a worker,
//! one per push and wire format, none per delivery; no system call of its own (the driver batches
//! them).

pub mod audit;
mod commands;
mod dispatch;
mod fan_out;
mod letters;
mod look;
mod maker;
mod prelude;
mod reading;
pub mod settings;
mod spare;
mod tenants;
pub mod upgrade;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::config::all::Config;
use crate::config::model::Service;
use crate::engine::Job;
use crate::engine::forms::Forms;
use crate::engine::manners::{LEAVING, Manners};
use crate::engine::ops::Machine;
use crate::engine::slots::Slots;
use crate::engine::tenant::Tenant;
use crate::engine::timers::Wheel;
use crate::engine::{Engine, ListenerSettings, Now, Shared};
use crate::lists::letters::{Mail, Outgoing};
use crate::lists::numbers::kind;
use crate::log::target;
use crate::metrics::{Counters, DropReason, Gauges};
use crate::shard::prelude::Preludes;
use crate::shard::reading::Greeting;
use crate::shard::tenants::Tenants;
use crate::wire::tls::Tls;

/// The manners of connections that speak no protocol: those that are refused or only wait for their
/// end, and those whose request head is incomplete. Returns the row of the latter.
fn manners(engine: &mut Engine, config: &Config) -> u16 {
    let customer = &config.netsvr.customer;
    let (message_bytes_max, silence) = (customer.receive_pack_limit, customer.heartbeat_interval);
    let outbox_bytes_max = engine.settings.outbox_bytes_max;
    let of = |silence| {
        Manners::new(message_bytes_max, outbox_bytes_max, customer.heartbeat_interval, silence)
    };
    let (leaving, greeting) = (of(silence), of(Duration::ZERO));
    let row = engine.add_row(leaving);
    debug_assert_eq!(row, LEAVING, "the first row");
    engine.add_row(greeting)
}

/// One shard; see the module.
pub struct Shard {
    pub(crate) config: Arc<Config>,
    pub engine: Engine,
    /// Connections whose request head is incomplete.
    greetings: Slots<Greeting>,
    /// Connections whose PROXY header is incomplete.
    preludes: Preludes,
    /// How they behave.
    greeting_row: u16,
    pub(crate) tenants: Tenants,
    /// Empty; what the forms of the last push took.
    forms: Forms,
    /// When the next look for room that nobody needs is due.
    spare_ms: u64,
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
        let settings = settings::of_engine(&config);
        let mut engine = Engine::new(id, shards, settings, shared, listeners, seed);
        let greeting_row = manners(&mut engine, &config);
        Shard {
            tenants: Tenants::new(&mut engine, &config),
            config,
            engine,
            greetings: Slots::default(),
            preludes: Preludes::default(),
            greeting_row,
            forms: Forms::default(),
            spare_ms: 0,
        }
    }

    /// The protocol of its listener takes a connection of which it is known whom it comes from.
    fn greet_with(&mut self, slot: u32, listener: usize, peer: SocketAddr) {
        self.give(slot, listener, peer);
        if let Some(config) = &self.engine.listeners[listener].tls {
            match Tls::new(config.clone()) {
                Ok(tls) => self.engine.conns[slot].tls = Some(Box::new(tls)),
                Err(error) => {
                    if let Some(unsaid) = self.engine.complaints.allow(self.engine.now.ms) {
                        tracing::error!(
                            target: target::SHARD,
                            listener, %error, unsaid, "TLS can not start"
                        );
                    }
                    return self.engine.finish(slot);
                }
            }
        }
        self.engine.rearm(slot);
        if self.engine.conns[slot].tls.is_none() {
            self.stream_opened(slot);
        }
    }

    fn give(&mut self, slot: u32, listener: usize, peer: SocketAddr) {
        let Shard { engine, tenants, .. } = self;
        match engine.listeners[listener].service {
            Service::Http(_) => {
                let index = self.greetings.insert(Greeting::new(peer));
                engine.turn_into(slot, kind::GREETING, index, self.greeting_row);
                let time_ms = engine.settings.handshake_timeout.as_millis() as u64;
                engine.set_due(slot, engine.now.ms + time_ms);
            }
            Service::NetsvrWorker | Service::NetsvrTask => {
                tenants.netsvr.accepted(engine, slot, peer)
            }
            Service::XximTcp => tenants.xxim.accepted(engine, slot, peer),
            Service::ConnmixApi => tenants.api.accepted(engine, slot, peer),
            Service::Connmix { .. } => tenants.connmix.accepted(engine, slot, peer),
            Service::Im => tenants.im.accepted(engine, slot, peer),
        }
    }

    /// For tests: triples of xxim that are at home here.
    pub fn xxim_held(&self) -> usize {
        self.tenants.xxim.held()
    }
}

impl Machine for Shard {
    fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    fn begin_turn(&mut self, now: Now) {
        self.engine.begin_turn(now);
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
        self.see_off();
        self.look_for_spare();
        self.tenants.turn_begins(&mut self.engine);
        self.settle_all();
    }

    fn accepted(&mut self, listener: usize, peer: SocketAddr) -> Option<u32> {
        let total = self.engine.shared.connections.fetch_add(1, Ordering::Relaxed);
        let full = total >= self.engine.settings.connections_max;
        let slot = match full || self.engine.is_draining() {
            true => None,
            false => {
                let now = self.engine.now;
                self.engine.conns.open(now.unix, listener as u16, peer, now.ms)
            }
        };
        let Some(slot) = slot else {
            self.engine.shared.connections.fetch_sub(1, Ordering::Relaxed);
            self.engine.counters.connections_refused += 1;
            return None;
        };
        self.engine.counters.connections_accepted += 1;
        let row = self.greeting_row;
        let heard = self.preludes.begin(&mut self.engine, slot, peer, row);
        self.heard(slot, heard);
        self.settle_all();
        Some(slot)
    }

    fn received(&mut self, slot: u32, data: &mut [u8]) {
        self.engine.counters.receives += 1;
        self.engine.conns.traffic_mut(slot).received.bytes += data.len() as u64;
        if self.engine.holds(slot, data) {
            return;
        }
        self.take_in(slot, data);
        self.settle_all();
    }

    fn ended(&mut self, slot: u32) {
        self.engine.ended(slot);
        self.settle_all();
    }

    fn broken(&mut self, slot: u32) {
        self.engine.broken(slot);
        self.settle_all();
    }

    fn stalled(&mut self, slot: u32, written: usize) {
        self.engine.stalled(slot, written);
        self.settle_all();
    }

    fn sent(&mut self, slot: u32, result: Result<(), usize>) {
        self.engine.sent(slot, result);
        self.settle_all();
    }

    fn mail(&mut self, mail: Mail) {
        self.open_mail(mail);
        self.settle_all();
    }

    fn end_turn(&mut self) {
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
        self.tenants.turn_ends(&mut self.engine);
        self.queue_turn();
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

    fn next_outgoing(&mut self, sidecar: bool) -> Option<Outgoing> {
        let Shard { engine, tenants, config, .. } = self;
        if let Some(request) = engine.next_mesh() {
            return Some(Outgoing::Mesh(request));
        }
        if let Some(request) = engine.next_queue_request() {
            return Some(Outgoing::Queues(request));
        }
        if !sidecar {
            return None;
        }
        let login = engine.logins.next(config.login.under_way_max);
        let request = login.or_else(|| tenants.next_request(engine));
        request.map(Outgoing::Sidecar)
    }

    fn busy(&self) -> bool {
        !self.engine.touched.is_empty()
            || !self.engine.unconfirmed.is_empty()
            || self.engine.room_left
            || self.engine.wants.has_readers()
            || self.engine.queueing.is_busy()
            || self.tenants.are_busy(&self.engine)
    }

    fn next_ms(&self) -> Option<u64> {
        let wheels = [&self.engine.timers, &self.engine.job_timers];
        let timers = wheels.into_iter().filter_map(Wheel::next_ms);
        timers.chain(self.tenants.next_ms(&self.engine)).chain(self.engine.drain.next_ms()).min()
    }

    fn drained(&self) -> bool {
        let engine = &self.engine;
        engine.is_emptied()
            && engine.links.queued().0 == 0
            && engine.queueing.queues.under_way() == 0
            && !engine.wants.has_readers()
            && self.tenants.are_idle()
            && engine.mail.iter().all(|queue| queue.is_empty())
            && engine.conns.iter().all(|(slot, _)| engine.row(slot).backend)
    }

    fn report(&self) -> (Counters, Gauges) {
        let (event_frames, event_bytes) = self.engine.links.queued();
        let mut gauges = Gauges {
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
            drain_waiting: self.engine.drain.waiting() as u64,
            timers: (self.engine.timers.len() + self.engine.job_timers.len()) as u64,
            ..Gauges::default()
        };
        self.tenants.report(&mut gauges);
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
