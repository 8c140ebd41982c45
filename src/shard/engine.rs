//! What the protocols of a shard have in common: its connections, its part of the hub, its timers,
//! and the desks at which several protocols ask (events for workers, queues, questions, logins).
//!
//! Its methods are verbs: each does one thing, returns at once, and calls no protocol.

use std::collections::VecDeque;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;

use crate::config::model::{Config, NetsvrWorker, Service};
use crate::hub::client_id::ClientIds;
use crate::hub::{ConnId, Hub};
use crate::log::Every;
use crate::metrics::{Counters, Meters};
use crate::shard::conns::Conns;
use crate::shard::hooks::Hooks;
use crate::shard::links::{LinkLimits, Links};
use crate::shard::logins::Logins;
use crate::shard::mailbox::Mail;
use crate::shard::mesh::Mesh;
use crate::shard::ops::Op;
use crate::shard::outbox::Joined;
use crate::shard::queries::Asks;
use crate::shard::queues::Queueing;
use crate::shard::timers::Wheel;
use crate::shard::{Now, Shared};
use crate::wire::deflate::{Deflater, Inflater};
use crate::wire::http::date::Date;
use crate::wire::netsvr::UniqIds;
use crate::wire::tls::ServerConfig;

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

/// See the module.
pub struct Engine {
    pub(super) id: u8,
    pub config: Arc<Config>,
    pub(super) shared: Arc<Shared>,
    pub(super) listeners: Vec<ListenerSettings>,
    pub(super) now: Now,
    pub conns: Conns,
    pub hub: Hub,
    pub(super) uniq_ids: UniqIds,
    pub(super) client_ids: ClientIds,
    pub(super) timers: Wheel,
    pub(super) links: Links,
    pub(super) queueing: Queueing,
    pub(super) asks: Asks,
    pub(super) hooks: Hooks,
    /// `None` if there is no mesh.
    pub(super) mesh: Option<Mesh>,
    pub(super) logins: Logins,
    /// Connections with output to flush.
    pub(super) touched: Vec<u32>,
    /// What the connection flushed before had joined.
    pub(super) joined: Joined,
    /// Connections whose last send is complete unless the driver says otherwise by the next turn.
    pub(super) unconfirmed: Vec<u32>,
    /// Clients that wait for room in the workers' queues, in the order in which they began to.
    pub(super) waiting: VecDeque<ConnId>,
    /// More of them could go on than one turn allows.
    pub(super) room_left: bool,
    pub(super) inflater: Inflater,
    pub(super) deflater: Option<Deflater>,
    pub(super) plain: Vec<u8>,
    /// Of the last answer over HTTP.
    pub(super) date: Date,
    /// Operations for the driver, in order.
    pub ops: Vec<Op>,
    /// Mail for the other shards, by shard, in order.
    pub mail: Vec<VecDeque<Mail>>,
    pub(super) counters: Counters,
    pub(super) meters: Meters,
    /// Keeps what peers cause from flooding the log: one line a second and shard.
    pub(super) complaints: Every,
    pub(super) workers: usize,
    /// Connections with a stalled send.
    pub(super) stalls: usize,
    /// Set while it drains: when a client is said goodbye to at the latest, whatever it waits for,
    /// milliseconds of the process clock.
    pub(super) drain_due_ms: Option<u64>,
    pub(super) stopping: bool,
}

impl Engine {
    /// That of shard `id` of `shards`. `seed` only decides where round-robin begins.
    pub fn new(
        id: u8,
        shards: usize,
        config: Arc<Config>,
        shared: Arc<Shared>,
        listeners: Vec<ListenerSettings>,
        seed: usize,
    ) -> Engine {
        let limits = link_limits(&config.netsvr.worker, shards);
        let (topics, room) = (shared.queue_topics.clone(), shared.queue_room.clone());
        let queueing = Queueing::new(&config.connmix, topics, room);
        let client_ids = ClientIds::new(config.node, shards, config.runtime.connections_max);
        let start = shared.ids_start;
        let (level, mesh) = (config.netsvr.customer.compression_level, shared.mesh.clone());
        let hub = hub(&config, &shared);
        Engine {
            id,
            shared,
            listeners,
            now: Now::default(),
            conns: Conns::new(id, config.runtime.connections_max),
            hub,
            uniq_ids: UniqIds::new(config.netsvr.advertise).rotated(client_ids.rotation(start)),
            client_ids: client_ids.starting(start),
            timers: Wheel::new(),
            links: Links::new(limits, config.netsvr.worker.pick, seed),
            queueing,
            asks: Asks::new(shards, seed as u64),
            hooks: Hooks::new(&config.netsvr.customer),
            mesh: mesh.map(Mesh::new),
            logins: Logins::default(),
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
            mail: (0..shards).map(|_| VecDeque::new()).collect(),
            counters: Counters::default(),
            meters: Meters::new(0),
            complaints: Every::new(1000),
            workers: 0,
            stalls: 0,
            drain_due_ms: None,
            stopping: false,
            config,
        }
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
