//! The second driver of shards: a whole gateway in one thread, without a kernel, from one seed.
//!
//! It keeps the same contract as the production driver ([`crate::engine::ops`]) and makes use of
//! every freedom that the contract leaves: bytes arrive in pieces of any size, sends are cut off
//! anywhere and finished later, shards take their turns in any order, mailboxes are small and full,
//! input arrives after a pause and after a close, peers reset at any point, the clock jumps.
//! A shard that has no reason for a turn waits, as in production; [`World::settle`] finds one that
//! waits although it has something to do.
//! A test drives the peers and checks what must hold; the seed replays everything.

mod digest;
mod outside;
mod socket;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::all::Config;
use crate::engine::ListenerSettings;
use crate::engine::Now;
use crate::engine::Shared;
use crate::engine::conns::Flags;
use crate::engine::ops::{Machine, Op};
use crate::hub::ConnId;
use crate::lists::letters::{Mail, Outgoing, SidecarRequest};
use crate::protocols::netsvr::letters as netsvr;
use crate::protocols::netsvr::wire::Verdict;
use crate::protocols::xxim::letters::{self as xxim, UpstreamCall, UpstreamResult};
use crate::shard::Shard;
use crate::shard::audit::Sizes;

pub use self::outside::{REFUSED, SEALED, UNAVAILABLE};
pub use self::socket::Socket;

/// How the simulated world treats the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Connections, users and topics that a shard finds for answers in one turn.
    pub answer_piece: usize,
    /// Messages that connections may handle in one turn which read on.
    pub read_on: usize,
    /// Messages that fit into a mailbox.
    pub mailbox_messages_max: usize,
    /// Bytes that the "kernel" takes for a peer that does not read.
    pub socket_bytes_max: usize,
    /// Longest piece in which bytes arrive.
    pub piece_bytes_max: usize,
    /// All that waits arrives at once, in the order of the sockets, and whole up to the longest
    /// piece. Otherwise the seed decides how much of it, and in which order.
    pub calm: bool,
    /// One turn in so many jumps the clock by up to `jump_ms_max`; 0 is never.
    pub jump_every: u32,
    pub jump_ms_max: u64,
    /// What the open callback says: chance in percent that it fails, and that it denies.
    pub callback_fails_percent: u8,
    pub callback_denies_percent: u8,
    /// What else it says.
    pub callback_verdict: fn() -> Verdict,
}

impl Weather {
    /// How many of those that wait come now: one at the least.
    fn some(&self, rng: &mut fastrand::Rng, waiting: usize) -> usize {
        if self.calm { waiting } else { rng.usize(1..=waiting) }
    }
}

/// A peer's end of a simulated connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer(usize);

/// Shards, sockets, mail and time.
pub struct World {
    pub rng: fastrand::Rng,
    weather: Weather,
    now: Now,
    shared: Arc<Shared>,
    cells: Vec<Cell>,
    sockets: Vec<Socket>,
    callbacks: Vec<(u64, SidecarRequest)>,
    /// Calls of xxim upstreams that are under way. A test takes them out and answers them.
    pub calls: Vec<Call>,
}

/// A call of an xxim upstream.
#[derive(Debug)]
pub struct Call {
    pub conn: ConnId,
    pub number: u32,
    pub call: Box<UpstreamCall>,
}

/// One shard and what waits for it.
struct Cell {
    shard: Shard,
    mailbox: VecDeque<Mail>,
    congested: bool,
    /// Stalled, Sent and Closed of earlier operations.
    ends: VecDeque<End>,
    slots: HashMap<u32, usize>,
}

enum End {
    Stalled { slot: u32, written: usize },
    Sent { slot: u32, result: Result<(), usize> },
    Closed { slot: u32 },
}

impl End {
    fn slot(&self) -> u32 {
        match *self {
            End::Stalled { slot, .. } | End::Sent { slot, .. } | End::Closed { slot } => slot,
        }
    }
}

/// Everything that a shard does it does in here, so that a profiler can tell its instructions from
/// those of the simulation (`perf/instructions.sh`).
#[inline(never)]
fn of_shard<R>(work: impl FnOnce() -> R) -> R {
    work()
}

impl World {
    /// A gateway of `shards` shards.
    pub fn new(
        seed: u64,
        shards: usize,
        config: Config,
        listeners: Vec<ListenerSettings>,
        weather: Weather,
    ) -> World {
        let mut rng = fastrand::Rng::with_seed(seed);
        let config = Arc::new(config);
        let shared = crate::shard::settings::shared(&config, 0);
        let cells = (0..shards).map(|id| Cell {
            shard: {
                let (config, shared) = (config.clone(), shared.clone());
                let seed = rng.usize(..);
                let mut shard =
                    Shard::new(id as u8, shards, config, shared, listeners.clone(), seed);
                shard.tenants.netsvr.set_answer_piece(weather.answer_piece);
                shard.engine.reading_max = weather.read_on;
                shard
            },
            mailbox: VecDeque::new(),
            congested: false,
            ends: VecDeque::new(),
            slots: HashMap::new(),
        });
        let cells = cells.collect();
        let now = Now { ms: 0, us: 0, unix: 1_700_000_000, unix_ms: 1_700_000_000_000 };
        let (sockets, callbacks, calls) = (Vec::new(), Vec::new(), Vec::new());
        World { rng, weather, now, shared, cells, sockets, callbacks, calls }
    }

    /// Connects a peer to a listener of any shard.
    pub fn connect(&mut self, listener: usize) -> Peer {
        let shard = self.rng.usize(..self.cells.len());
        self.connect_to(listener, shard)
    }

    /// Connects a peer to a listener of this shard.
    fn connect_to(&mut self, listener: usize, shard: usize) -> Peer {
        self.sockets.push(Socket { shard, listener, ..Socket::default() });
        Peer(self.sockets.len() - 1)
    }

    /// The peer writes.
    pub fn write(&mut self, peer: Peer, bytes: &[u8]) {
        let socket = &mut self.sockets[peer.0];
        if !socket.inbound_ended {
            socket.inbound.extend(bytes);
        }
    }

    /// The peer reads up to so many bytes.
    pub fn read(&mut self, peer: Peer, bytes_max: usize) -> Vec<u8> {
        let outbound = &mut self.sockets[peer.0].outbound;
        let count = bytes_max.min(outbound.len());
        outbound.drain(..count).collect()
    }

    /// What happened on the connection so far.
    pub fn socket(&self, peer: Peer) -> &Socket {
        &self.sockets[peer.0]
    }

    /// Whether the client is registered at the moment.
    pub fn is_open(&self, peer: Peer) -> bool {
        let socket = &self.sockets[peer.0];
        let hub = &self.cells[socket.shard].shard.engine.hub;
        socket.id.is_some_and(|id| hub.slot_of(id).is_some())
    }

    /// The peer ends its side; it still reads.
    pub fn end(&mut self, peer: Peer) {
        self.sockets[peer.0].inbound_ended = true;
    }

    /// The peer closes its socket; what it has written still arrives.
    pub fn hang_up(&mut self, peer: Peer) {
        let socket = &mut self.sockets[peer.0];
        socket.inbound_ended = true;
        socket.broken = true;
    }

    /// The peer resets; some of what it has written may never arrive.
    pub fn reset(&mut self, peer: Peer) {
        let socket = &mut self.sockets[peer.0];
        let arrives = self.rng.usize(..=socket.inbound.len());
        socket.inbound.truncate(arrives);
        self.hang_up(peer);
    }

    /// Puts a message of the main thread into every mailbox.
    pub fn tell_all(&mut self, mail: impl Fn() -> Mail) {
        self.cells.iter_mut().for_each(|cell| cell.mailbox.push_back(mail()));
    }

    /// Puts a message of the sidecar into a mailbox.
    pub fn tell(&mut self, shard: u8, mail: Mail) {
        self.cells[usize::from(shard)].mailbox.push_back(mail);
    }

    /// Questions of shards that the sidecar has not answered yet.
    pub fn questions(&self) -> usize {
        self.callbacks.len()
    }

    /// The shards, for their figures.
    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.cells.iter().map(|cell| &cell.shard)
    }

    /// Process-wide counts: connections and online clients.
    pub fn counts(&self) -> (u32, u32) {
        let count = |number: &std::sync::atomic::AtomicU32| number.load(Ordering::Relaxed);
        (count(&self.shared.connections), count(&self.shared.online))
    }

    /// Panics if an invariant of a shard does not hold, or one of all shards together.
    pub fn audit(&self, frame_bytes_max: usize, workers_max: usize) {
        let piece_bytes_max = self.weather.piece_bytes_max;
        let sizes = Sizes { frame_bytes_max, piece_bytes_max, workers_max };
        let (mut connections, mut online) = (0, 0);
        for cell in &self.cells {
            let holdings = cell.shard.audit(sizes);
            connections += holdings.connections;
            online += holdings.online;
        }
        for socket in self.sockets.iter().filter(|socket| !socket.closed) {
            let Some(slot) = socket.slot else { continue };
            let conn = &self.cells[socket.shard].shard.engine.conns[slot];
            let counted = conn.outbox.charge() as usize >= socket.stalled_bytes();
            assert!(
                counted || !conn.flags.has(Flags::STALLED),
                "slot {slot}: bytes of a stalled send"
            );
        }
        assert_eq!(self.counts(), (connections, online), "connections and clients online");
    }

    /// Milliseconds since the start.
    pub fn now_ms(&self) -> u64 {
        self.now.ms
    }

    /// Moves the clock.
    pub fn pass(&mut self, ms: u64) {
        self.now.ms += ms;
        self.now.unix_ms += ms;
        self.now.unix += (ms / 1000) as u32;
    }

    /// One turn of a shard that the seed chooses, if it is awake or the seed wakes it. Time passes.
    pub fn step(&mut self) {
        let ms = self.rng.u64(..4);
        self.pass(ms);
        let Weather { jump_every, jump_ms_max, .. } = self.weather;
        if jump_every > 0 && self.rng.u32(..jump_every) == 0 {
            let jump = self.rng.u64(..jump_ms_max);
            self.pass(jump);
        }
        self.answer_callbacks();
        let shard = self.rng.usize(..self.cells.len());
        if self.awake(shard) || self.rng.u8(..4) == 0 {
            self.turn(shard);
        }
    }

    /// Turns of the shards that are awake until all sleep, with the clock standing still; fails
    /// after so many rounds. Fails too if one sleeps that has something to do.
    pub fn settle(&mut self, rounds_max: usize) {
        for _ in 0..rounds_max {
            self.answer_callbacks();
            let shards = 0..self.cells.len();
            let awake: Vec<usize> = shards.filter(|&shard| self.awake(shard)).collect();
            awake.iter().for_each(|&shard| _ = self.turn(shard));
            if awake.is_empty() {
                for shard in 0..self.cells.len() {
                    let moved = self.turn(shard);
                    assert!(!moved, "shard {shard} slept although it had something to do");
                }
                return;
            }
        }
        panic!("the gateway does not come to rest within {rounds_max} rounds");
    }

    /// Whether the driver has a reason to give the shard a turn.
    fn awake(&self, shard: usize) -> bool {
        let cell = &self.cells[shard];
        let socket_max = self.weather.socket_bytes_max;
        let stirs = |socket: &Socket| socket.shard == shard && socket.stirs(socket_max);
        cell.congested
            || cell.shard.busy()
            || !cell.mailbox.is_empty()
            || !cell.ends.is_empty()
            || cell.shard.next_ms().is_some_and(|due_ms| due_ms <= self.now.ms)
            || self.sockets.iter().any(stirs)
    }

    /// One turn; says whether the shard did anything.
    fn turn(&mut self, shard: usize) -> bool {
        of_shard(|| self.cells[shard].shard.begin_turn(self.now));
        self.ends(shard);
        for index in self.sockets_of(shard) {
            self.drain_stalled(index);
        }
        if !self.cells[shard].congested {
            self.inputs(shard);
        }
        let cell = &mut self.cells[shard];
        let count = match cell.mailbox.len() {
            0 => 0,
            waiting => self.weather.some(&mut self.rng, waiting),
        };
        for mail in cell.mailbox.drain(..count).collect::<Vec<_>>() {
            of_shard(|| cell.shard.mail(mail));
        }
        of_shard(|| cell.shard.end_turn());
        let mut moved = !cell.shard.engine.ops.is_empty();
        for op in std::mem::take(&mut cell.shard.engine.ops) {
            self.carry_out(shard, op);
        }
        moved |= self.carry_mail(shard);
        while let Some(outgoing) = self.cells[shard].shard.next_outgoing(true) {
            moved = true;
            let Outgoing::Sidecar(request) = outgoing else { unreachable!("there is no mesh") };
            match request {
                // Nothing overtakes these on their way.
                SidecarRequest::Xxim(xxim::ServiceRequest::Upstream { conn, number, call }) => {
                    self.calls.push(Call { conn, number, call });
                }
                SidecarRequest::Xxim(xxim::ServiceRequest::CancelUpstream { conn }) => {
                    self.cancel(conn)
                }
                SidecarRequest::Netsvr(netsvr::ServiceRequest::Make(job)) => {
                    let shard = job.shard;
                    self.tell(shard, Mail::Netsvr(netsvr::Letter::made(*job, || {})));
                }
                request => self.callbacks.push((self.now.ms + self.rng.u64(..20), request)),
            }
        }
        moved
    }

    /// Calls of a connection that has gone are answered, now or, if they go on, with all others.
    fn cancel(&mut self, conn: ConnId) {
        let shard = usize::from(conn.shard());
        let routes = self.cells[shard].shard.config.xxim_upstreams.routes.clone();
        let goes_on =
            |call: &Call| routes.get(usize::from(call.call.route)).is_some_and(|r| r.detach);
        let (given_up, left) = std::mem::take(&mut self.calls)
            .into_iter()
            .partition::<Vec<_>, _>(|call| call.conn == conn && !goes_on(call));
        self.calls = left;
        for Call { conn, number, .. } in given_up {
            let mail = Mail::Xxim(xxim::Letter::UpstreamAnswered {
                conn,
                number,
                result: UpstreamResult::default(),
            });
            self.tell(conn.shard(), mail);
        }
    }

    /// Reports how earlier sends and closes ended. A stall is reported at once, as the contract
    /// wants it; the others may take their time.
    fn ends(&mut self, shard: usize) {
        for _ in 0..self.cells[shard].ends.len() {
            let cell = &mut self.cells[shard];
            let Some(end) = cell.ends.pop_front() else { break };
            let waits = !matches!(end, End::Stalled { .. }) && !self.weather.calm;
            if waits && self.rng.u8(..4) == 0 {
                cell.ends.push_back(end);
                continue;
            }
            let Some(&index) = cell.slots.get(&end.slot()) else { continue };
            // The shard may have given the connection up in this very turn.
            let gone = cell.shard.engine.conns[end.slot()].flags.has(Flags::GONE);
            let mut known = |written| {
                if !gone {
                    self.sockets[index].known(written);
                }
            };
            match end {
                End::Stalled { slot, written } => {
                    known(written);
                    of_shard(|| cell.shard.stalled(slot, written));
                }
                End::Sent { slot, result } => {
                    known(result.err().unwrap_or(usize::MAX));
                    of_shard(|| cell.shard.sent(slot, result));
                }
                End::Closed { slot } => {
                    cell.slots.remove(&slot);
                    of_shard(|| cell.shard.closed(slot));
                }
            }
        }
    }

    /// The sockets of a shard that are not closed, in an order of the seed's.
    fn sockets_of(&mut self, shard: usize) -> Vec<usize> {
        let here = |index: &usize| {
            let socket = &self.sockets[*index];
            socket.shard == shard && !socket.closed
        };
        let mut order: Vec<usize> = (0..self.sockets.len()).filter(here).collect();
        if !self.weather.calm {
            self.rng.shuffle(&mut order);
        }
        order
    }

    fn inputs(&mut self, shard: usize) {
        for index in self.sockets_of(shard) {
            if self.weather.calm || self.rng.u8(..3) > 0 {
                self.input(shard, index);
            }
        }
    }

    fn input(&mut self, shard: usize, index: usize) {
        let cell = &mut self.cells[shard];
        let socket = &mut self.sockets[index];
        let Some(slot) = socket.slot else {
            let peer = SocketAddr::from(([127, 0, 0, 1], (index % 60_000) as u16 + 1));
            match of_shard(|| cell.shard.accepted(socket.listener, peer)) {
                Some(slot) => {
                    socket.slot = Some(slot);
                    socket.id = Some(cell.shard.engine.conns.id(slot));
                    cell.slots.insert(slot, index);
                }
                None => socket.closed = true,
            }
            return;
        };
        if socket.paused {
            // Little of what was on its way may arrive although the socket is paused.
            if socket.late == 0 {
                return;
            }
            socket.late -= 1;
            if self.rng.bool() {
                return;
            }
        }
        if !socket.inbound.is_empty() {
            let longest = self.weather.piece_bytes_max.min(socket.inbound.len());
            let count = self.weather.some(&mut self.rng, longest);
            let mut piece: Vec<u8> = socket.inbound.drain(..count).collect();
            of_shard(|| cell.shard.received(slot, &mut piece));
        } else if socket.inbound_ended && !socket.ended_told {
            socket.ended_told = true;
            match socket.broken {
                true => of_shard(|| cell.shard.broken(slot)),
                false => of_shard(|| cell.shard.ended(slot)),
            }
        }
    }

    /// Writes more of a stalled send, as far as the peer has read.
    fn drain_stalled(&mut self, index: usize) {
        let socket = &mut self.sockets[index];
        let Some(slot) = socket.slot else { return };
        if let Some(result) = socket.go_on(self.weather.socket_bytes_max) {
            self.cells[socket.shard].ends.push_back(End::Sent { slot, result });
        }
    }

    fn carry_out(&mut self, shard: usize, op: Op) {
        let of = |slot: u32| self.cells[shard].slots.get(&slot).copied();
        match op {
            Op::Send { slot, batch } => {
                let index = of(slot).expect("sends go to a socket that is there");
                let fails = self.rng.bool();
                let socket = &mut self.sockets[index];
                if let Err(written) = socket.send(batch, self.weather.socket_bytes_max, fails) {
                    self.cells[shard].ends.push_back(End::Stalled { slot, written });
                }
            }
            Op::Pause { slot } => {
                if let Some(index) = of(slot) {
                    self.sockets[index].paused = true;
                    self.sockets[index].late = self.rng.u8(..3);
                }
            }
            Op::Resume { slot } => {
                if let Some(index) = of(slot) {
                    self.sockets[index].paused = false;
                }
            }
            Op::Shutdown { slot } => {
                if let Some(index) = of(slot) {
                    self.sockets[index].shut_down();
                }
            }
            Op::Close { slot } => {
                let index = of(slot).expect("only a socket that is there is closed");
                self.sockets[index].close();
                let ends = &mut self.cells[shard].ends;
                ends.retain(|end| end.slot() != slot);
                ends.push_back(End::Closed { slot });
            }
            Op::Unlisten { listener } => {
                let waiting = |socket: &&mut Socket| {
                    socket.shard == shard && socket.listener == listener && socket.slot.is_none()
                };
                self.sockets.iter_mut().filter(waiting).for_each(|socket| socket.closed = true);
            }
        }
    }

    fn carry_mail(&mut self, shard: usize) -> bool {
        let mut queues = std::mem::take(&mut self.cells[shard].shard.engine.mail);
        let mut active = false;
        self.cells[shard].congested = false;
        for (to, queue) in queues.iter_mut().enumerate() {
            let mailbox = &mut self.cells[to].mailbox;
            let room = self.weather.mailbox_messages_max.saturating_sub(mailbox.len());
            let count = room.min(queue.len());
            active |= count > 0;
            mailbox.extend(queue.drain(..count));
            self.cells[shard].congested |= !queue.is_empty();
        }
        self.cells[shard].shard.engine.mail = queues;
        active
    }
}
