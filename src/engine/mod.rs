//! What the protocols of a shard have in common: its connections, its part of the hub, its timers,
//! and the desks at which several protocols ask (events for workers, queues, questions, logins).
//!
//! Its methods are verbs: each does one thing, returns at once, and calls no protocol.

#[allow(unsafe_code)]
pub mod buffers;
pub mod clock;
pub mod closing;
pub mod conns;
pub mod drain;
pub mod driver;
pub mod due;
pub mod events;
pub mod flight;
pub mod forms;
pub mod in_order;
pub mod later;
pub mod links;
pub mod logins;
pub mod look;
pub mod manners;
pub mod mesh;
pub mod ops;
pub mod outbox;
pub mod queues;
#[allow(unsafe_code)]
pub mod ring;
pub mod sending;
pub mod sends;
pub mod settings;
pub mod shared;
pub mod slots;
pub mod tells;
pub mod tenant;
pub mod timers;
pub mod traffic;
pub mod wants;

use std::collections::VecDeque;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use slab::Slab;

use crate::config::model::{ProxyProtocol, Service};
use crate::engine::conns::Conns;
use crate::engine::conns::{Flags, Kind};
use crate::engine::drain::Drain;
use crate::engine::flight::{Flight, Source};
use crate::engine::links::{LinkLimits, Links};
use crate::engine::logins::Logins;
use crate::engine::manners::{LEAVING, Life, Manners};
use crate::engine::mesh::Mesh;
use crate::engine::ops::Op;
use crate::engine::outbox::Joined;
use crate::engine::queues::Queueing;
use crate::engine::sends::Sends;
use crate::engine::settings::{Settings, Workers};
use crate::engine::tells::Tells;
use crate::engine::timers::Wheel;
use crate::engine::wants::Wants;
use crate::hub::client_id::ClientIds;
use crate::hub::login::Login;
use crate::hub::push::Command;
use crate::hub::{ConnId, Hub};
use crate::lists::letters::Mail;
use crate::log::{Every, target};
use crate::metrics::{Counters, DropReason, Meters, SendTimes};
use crate::wire::deflate::{Deflater, Inflater};
use crate::wire::http::date::Date;
use crate::wire::tls::ServerConfig;
use crate::wire::worker::UniqIds;

pub use clock::Now;
pub use shared::Shared;

/// Connections that have left stay in the lists of those who wait until there are more of them than
/// connections, and this many.
pub(crate) const LEFT_SPARE: usize = 64;
/// Messages that connections may handle in one turn which read on after a wait.
const READ_ON_PER_TURN: usize = 256;

/// What a shard needs to know about one listener.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    pub service: Service,
    /// Whether its connections begin with a PROXY header.
    pub proxy: ProxyProtocol,
    /// The address as business processes know it; part of their registration names.
    pub address: SocketAddrV4,
    /// The address that it is bound to.
    pub bound: SocketAddr,
    pub tls: Option<Arc<ServerConfig>>,
}

/// A command that waits for its time.
#[derive(Debug)]
pub(crate) struct Job {
    /// The node that it is for, if that is another one.
    pub node: Option<u16>,
    pub command: Command,
}

/// See the module.
pub struct Engine {
    pub(crate) id: u8,
    pub settings: Settings,
    pub(crate) shared: Arc<Shared>,
    pub(crate) listeners: Vec<ListenerSettings>,
    pub(crate) now: Now,
    pub conns: Conns,
    pub hub: Hub,
    pub(crate) uniq_ids: UniqIds,
    pub(crate) client_ids: ClientIds,
    pub(crate) timers: Wheel,
    pub(crate) links: Links,
    pub(crate) queueing: Queueing,
    pub(crate) tells: Tells,
    /// For counting by shard; empty.
    pub(crate) by_shard: Vec<u32>,
    /// What is charged for answers that wait to be written to all business processes.
    pub(crate) answer_bytes: usize,
    /// Counts when that became less.
    pub(crate) answers_written: u64,
    /// Commands that wait for their time.
    pub(crate) jobs: Slab<Job>,
    pub(crate) job_timers: Wheel,
    /// `None` if there is no mesh.
    pub(crate) mesh: Option<Mesh>,
    pub(crate) logins: Logins,
    /// How connections behave, by [`Conn::row`](crate::engine::conns::Conn::row).
    pub(crate) rows: Vec<Manners>,
    pub(crate) wants: Wants,
    /// Only decides where round-robin begins, and how far goodbyes of a drain are put off.
    pub(crate) seed: usize,
    /// Messages that connections may still handle in this turn which read on.
    pub(crate) reading_left: usize,
    /// The same at the beginning of a turn: 256, but for simulations.
    pub(crate) reading_max: usize,
    /// The connection that is reading on.
    pub(crate) reader: Option<u32>,
    /// Bytes that may still be encrypted in this turn.
    pub(crate) seal_left: usize,
    /// How long sends take.
    pub(crate) sends: Sends,
    /// Connections with output to flush.
    pub(crate) touched: Vec<u32>,
    /// What the connection flushed before had joined.
    pub(crate) joined: Joined,
    /// Connections whose last send is complete unless the driver says otherwise by the next turn.
    pub(crate) unconfirmed: Vec<u32>,
    /// Clients that wait for room in the workers' queues, in the order in which they began to.
    pub(crate) waiting: VecDeque<ConnId>,
    /// More of them could go on than one turn allows.
    pub(crate) room_left: bool,
    pub(crate) inflater: Inflater,
    pub(crate) deflater: Option<Deflater>,
    pub(crate) plain: Vec<u8>,
    /// Of the last answer over HTTP.
    pub(crate) date: Date,
    /// Operations for the driver, in order.
    pub ops: Vec<Op>,
    /// Mail for the other shards, by shard, in order.
    pub mail: Vec<VecDeque<Mail>>,
    pub(crate) counters: Counters,
    pub(crate) meters: Meters,
    /// Keeps what peers cause from flooding the log: one line a second and shard.
    pub(crate) complaints: Every,
    pub(crate) workers: usize,
    /// Connections with a stalled send.
    pub(crate) stalls: usize,
    pub(crate) drain: Drain,
    pub(crate) stopping: bool,
}

impl Engine {
    /// That of shard `id` of `shards`. `seed` only decides where round-robin begins.
    pub fn new(
        id: u8,
        shards: usize,
        settings: Settings,
        shared: Arc<Shared>,
        listeners: Vec<ListenerSettings>,
        seed: usize,
    ) -> Engine {
        let client_ids = ClientIds::new(settings.node, shards, settings.connections_max);
        Engine {
            id,
            listeners,
            now: Now::default(),
            conns: Conns::new(id, settings.connections_max),
            hub: hub(&settings, &shared),
            uniq_ids: UniqIds::new(settings.advertise)
                .rotated(client_ids.rotation(shared.ids_start)),
            client_ids: client_ids.starting(shared.ids_start),
            timers: Wheel::new(),
            links: links(&settings.workers, shards, seed),
            queueing: Queueing::new(settings.queues, &shared),
            tells: Tells::default(),
            by_shard: Vec::new(),
            answer_bytes: 0,
            answers_written: 0,
            jobs: Slab::new(),
            job_timers: Wheel::new(),
            mesh: shared.mesh.clone().map(Mesh::new),
            logins: Logins::default(),
            rows: Vec::new(),
            seed,
            wants: Wants::default(),
            reading_left: 0,
            reading_max: READ_ON_PER_TURN,
            reader: None,
            seal_left: 0,
            sends: Sends::default(),
            touched: Vec::new(),
            joined: Joined::default(),
            unconfirmed: Vec::new(),
            waiting: VecDeque::new(),
            room_left: false,
            inflater: Inflater::new(),
            deflater: deflater(&settings),
            plain: Vec::new(),
            date: Date::default(),
            ops: Vec::new(),
            mail: (0..shards).map(|_| VecDeque::new()).collect(),
            counters: Counters::default(),
            meters: Meters::new(0),
            complaints: Every::new(1000),
            workers: 0,
            stalls: 0,
            drain: Drain::default(),
            stopping: false,
            shared,
            settings,
        }
    }

    /// A turn begins: the clock moves, and what may be done in a turn begins anew.
    pub(crate) fn begin_turn(&mut self, now: Now) {
        debug_assert!(now.ms >= self.now.ms, "the process clock never goes back");
        self.now = now;
        self.counters.turns += 1;
        self.seal_left = self.settings.seal_bytes_per_turn;
        self.reading_left = self.reading_max;
        self.meters.tick(now.ms, &self.counters.items());
    }

    /// Adds to the table of manners; returns the place there.
    pub(crate) fn add_row(&mut self, manners: Manners) -> u16 {
        self.rows.push(manners);
        self.rows.len() as u16 - 1
    }

    /// What the listener of a connection serves.
    pub(crate) fn service(&self, slot: u32) -> &Service {
        &self.listeners[usize::from(self.conns[slot].listener)].service
    }

    /// How a connection behaves.
    pub(crate) fn row(&self, slot: u32) -> &Manners {
        &self.rows[usize::from(self.conns[slot].row)]
    }

    /// Whether only WebSocket data frames count as data: everywhere but on bare streams of clients.
    pub(crate) fn has_control_frames(&self, slot: u32) -> bool {
        self.conns[slot].flags.has(Flags::WEBSOCKET) || !self.row(slot).stream
    }

    /// A connection becomes something else, with other manners.
    pub(crate) fn turn_into(&mut self, slot: u32, kind: Kind, index: u32, row: u16) {
        self.conns.set_kind(slot, kind, index);
        self.conns[slot].row = row;
        self.set_due(slot, u64::MAX);
    }

    /// A connection speaks no protocol any more: it is refused, or only waits for its end.
    pub(crate) fn turn_away(&mut self, slot: u32) {
        self.turn_into(slot, Kind::LEAVING, 0, LEAVING);
    }

    /// From now on it is known what becomes of each frame for a backend.
    pub(crate) fn watch_frames(&mut self, slot: u32, source: Source) {
        let flight = Some(Box::new(Flight::new(source)));
        self.conns[slot].extra.get_or_insert_default().flight = flight;
    }

    /// Where the protocol of this kind keeps what it knows of a connection; `None` if it is another
    /// kind.
    pub(crate) fn index(&self, slot: u32, kind: Kind) -> Option<u32> {
        let conn = &self.conns[slot];
        (conn.kind == kind).then_some(conn.index)
    }

    /// The connection becomes a client in the hub.
    pub(crate) fn join(&mut self, slot: u32) {
        self.conns[slot].flags.set(Flags::MEMBER);
        self.hub.insert(self.conns.id(slot));
    }

    /// A whole frame has come in, if that shows that the peer is there. Bytes of one that never
    /// ends do not.
    pub(crate) fn shows_life(&mut self, slot: u32) {
        if self.row(slot).life == Life::Frames {
            let conn = &mut self.conns[slot];
            conn.flags.clear(Flags::PINGED);
            conn.active_ms = self.now.ms;
        }
    }

    /// A message of a client has come, with a payload of so many bytes.
    #[inline]
    pub(crate) fn message_came(&mut self, slot: u32, bytes: usize) {
        self.counters.messages_received += 1;
        self.counters.message_bytes_received += bytes as u64;
        self.conns.traffic_mut(slot).received.messages += 1;
    }

    /// The peer is there, as its protocol says.
    pub(crate) fn alive(&mut self, slot: u32) {
        self.conns[slot].active_ms = self.now.ms;
    }

    /// Keeps bytes that arrive while the connection is not being read, or drops what does not
    /// matter any more. False: they are to be handled now.
    pub(crate) fn holds(&mut self, slot: u32, data: &[u8]) -> bool {
        let conn = &mut self.conns[slot];
        if conn.flags.has(Flags::GONE | Flags::DEAF | Flags::ENDED) {
            return true;
        }
        if !conn.flags.has(Flags::BLOCKED) {
            return false;
        }
        // Whoever is only waited for is still read, to notice its end, but not without bounds.
        let held = conn.hold(data);
        if held > self.row(slot).held_bytes_max && self.conns[slot].flags.set(Flags::PAUSED) {
            self.ops.push(Op::Pause { slot });
        }
        true
    }

    /// Keeps the connection's input and lets TCP hold the peer back.
    pub(crate) fn block(&mut self, slot: u32) {
        self.hold_back(slot);
        if self.conns[slot].flags.set(Flags::PAUSED) {
            self.ops.push(Op::Pause { slot });
        }
    }

    /// Keeps the connection's input. Its socket is still read as long as that is not much, so that
    /// its end is noticed.
    pub(crate) fn hold_back(&mut self, slot: u32) {
        let flags = &mut self.conns[slot].flags;
        flags.set(Flags::BLOCKED);
        // What was its reason to read on does not count any more.
        flags.clear(Flags::READS_ON);
    }

    /// The same until the workers' queues have room, in its turn.
    pub(crate) fn wait_for_room(&mut self, slot: u32) {
        self.block(slot);
        if self.conns[slot].flags.set(Flags::WAITING) {
            self.waiting.push_back(self.conns.id(slot));
            self.counters.clients_blocked += 1;
            // Of those who have left only so many stay in the list.
            if self.waiting.len() > 2 * self.conns.len() + LEFT_SPARE {
                self.waiting.retain(|id| self.conns.slot(*id).is_some());
            }
        }
    }

    /// A connection that was blocked may read on, in its turn: first what was kept, then its
    /// socket.
    pub(crate) fn read_on(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        if conn.flags.has(Flags::BLOCKED)
            && !conn.flags.has(Flags::GONE)
            && conn.flags.set(Flags::READS_ON)
        {
            self.wants.read_on(self.conns.id(slot));
        }
    }

    /// Whether the next message of a connection may be handled now. One that reads on has its turn
    /// again when too much has been handled in this one.
    #[inline(always)]
    pub(crate) fn takes(&mut self, slot: u32) -> bool {
        let blocked = self.conns[slot].flags.has(Flags::BLOCKED);
        !blocked
            && (self.reader != Some(slot) || self.reading_left > 0 || self.waits_its_turn(slot))
    }

    #[cold]
    fn waits_its_turn(&mut self, slot: u32) -> bool {
        self.block(slot);
        self.read_on(slot);
        false
    }

    /// Charge of what waits to be written to a backend but for events: its answers.
    #[inline]
    pub(crate) fn own_bytes(&mut self, slot: u32) -> usize {
        self.conns[slot].flight().map_or(0, |flight| flight.own_bytes())
    }

    /// Whether more waits for a peer than may.
    #[inline]
    pub(crate) fn is_full(&self, slot: u32) -> bool {
        let conn = &self.conns[slot];
        let waits = match &conn.extra {
            None => conn.outbox.charge() as usize,
            Some(extra) => match &extra.flight {
                None => conn.charge() as usize,
                Some(flight) => flight.own_bytes(),
            },
        };
        waits > self.rows[usize::from(conn.row)].outbox_bytes_max as usize
    }

    /// Whether a peer must wait because more waits for it than may; blocks it then. What it says
    /// now could only add to that, and nobody reads it.
    #[inline]
    pub(crate) fn outbox_blocks(&mut self, slot: u32) -> bool {
        let full = self.is_full(slot) && !self.conns[slot].flags.has(Flags::CLOSING);
        if full {
            self.waits_for_outbox(slot);
        }
        full
    }

    #[cold]
    fn waits_for_outbox(&mut self, slot: u32) {
        self.block(slot);
        let conn = &mut self.conns[slot];
        if conn.flags.set(Flags::FULL) {
            conn.stalls_from(self.now.ms);
        }
    }

    /// What is charged for the answers that wait to be written to one backend has changed. Only
    /// those of business processes are counted together.
    pub(crate) fn reckon(&mut self, source: Source, before: usize, after: usize) {
        if source != Source::Workers {
            return;
        }
        self.answer_bytes = self.answer_bytes - before + after;
        self.answers_written += u64::from(after < before);
    }

    /// Keeps a command for later (`ForceOfflineGuest` with a delay).
    pub(crate) fn later(&mut self, delay_s: u32, job: Job) {
        let jobs_max = self.settings.jobs_max;
        if self.jobs.len() >= jobs_max {
            if let Some(unsaid) = self.complaints.allow(self.now.ms) {
                tracing::warn!(
                    target: target::SHARD,
                    jobs_max, unsaid, "too many delayed kicks; dropped"
                );
            }
            return self.dropped(DropReason::TooManyJobs, 1);
        }
        let job = self.jobs.insert(job) as u32;
        self.job_timers.arm(job, self.now.ms + delay_s as u64 * 1000);
    }

    /// Counts what is given up.
    pub(crate) fn dropped(&mut self, reason: DropReason, count: u64) {
        self.counters.count_dropped(reason, count);
    }

    /// Leaves mail for another shard with the driver.
    pub(crate) fn post(&mut self, shard: u8, mail: Mail) {
        debug_assert!(shard != self.id, "a shard does not write to itself");
        self.counters.mail_sent += 1;
        self.mail[shard as usize].push_back(mail);
    }

    /// The other shards.
    pub(crate) fn others(&self) -> impl Iterator<Item = u8> + use<> {
        let id = self.id;
        (0..self.mail.len()).map(|shard| shard as u8).filter(move |&shard| shard != id)
    }

    /// The `Date` of an answer over HTTP that is written now.
    pub(crate) fn http_date(&mut self) -> Date {
        self.date.at(self.now.unix_ms / 1000)
    }

    /// The listener could not accept: most often the process has no descriptor left.
    pub fn accept_failed(&mut self) {
        self.counters.accept_failures += 1;
    }

    /// The socket of a slot is closed; the slot is free.
    pub fn closed(&mut self, slot: u32) {
        debug_assert!(self.conns[slot].flags.has(Flags::GONE));
        self.conns.free(slot);
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Has a login verified; the verdict comes with the same number. The caller blocks the
    /// connection.
    pub(crate) fn verify(&mut self, slot: u32, number: u32, login: Box<Login>) {
        self.logins.push(self.conns.id(slot), number, login, &self.conns);
    }
    /// The connection of a slot, and the number of its kind.
    pub fn in_hand(&self, slot: u32) -> (ConnId, u8) {
        (self.conns.id(slot), self.conns[slot].kind.0)
    }

    /// How long sends took, for whoever publishes it; `None`: there never was one to a connmix
    /// client.
    pub fn send_times(&mut self) -> Option<&mut SendTimes> {
        self.sends.times()
    }
}

/// An empty hub that counts what this process needs.
fn hub(settings: &Settings, shared: &Shared) -> Hub {
    let mut hub = Hub::new();
    if shared.mesh.is_some() {
        hub.count_buckets();
    }
    if settings.counts_rooms {
        hub.count_rooms(shared.room_limits.clone());
    }
    hub
}

/// What compresses frames for clients, if anything does.
fn deflater(settings: &Settings) -> Option<Deflater> {
    let level = settings.compression_level;
    (level != 0).then(|| Deflater::new(level))
}

/// No worker is known; each may be given one shard's share of its queue.
fn links(worker: &Workers, shards: usize, seed: usize) -> Links {
    let share = |total: u32| (total as usize / shards).max(1);
    let limits = LinkLimits {
        frames_max: share(worker.queue_frames_max),
        bytes_max: share(worker.queue_bytes_max),
    };
    Links::new(limits, worker.pick, seed)
}
