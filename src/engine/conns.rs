//! The slab of a shard's connections.
//!
//! A slot is reused only after its socket is closed, oldest first, and never with the same
//! generation. An idle connection is one [`Conn`]: no buffer, no task, no timer object. What is
//! rare (handshake, TLS, kept input, business connections) is boxed and freed when it is over.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;

use crate::allocator;
use crate::engine::flight::Flight;
use crate::engine::forms::Made;
use crate::engine::later::{Later, Seal};
use crate::engine::outbox::Outbox;
use crate::engine::traffic::{Peer, Traffic};
use crate::hub::ConnId;
use crate::wire::tls::Tls;
use crate::wire::websocket::Decoder;

/// One connection of the shard, or a free slot.
pub struct Conn {
    pub generation: u32,
    pub listener: u16,
    /// Its place in the table of [`super::manners::Manners`].
    pub row: u16,
    /// In which wire format it gets a push; see [`super::forms`].
    pub form: u8,
    pub flags: Flags,
    /// See [`Conn::stalled_since`]; the low bits of the time.
    stalled_ms: u32,
    /// When the peer last showed life, milliseconds of the process clock.
    pub active_ms: u64,
    /// When something of its protocol is due, milliseconds of the process clock; `u64::MAX`:
    /// nothing is.
    pub due_ms: u64,
    pub outbox: Outbox,
    pub decoder: Decoder,
    pub tls: Option<Box<Tls>>,
    /// What few connections have at a time.
    pub extra: Option<Box<Extra>>,
    /// See [`Conn::worker`].
    worker: [u32; 2],
    pub kind: Kind,
    /// Where its protocol keeps what it knows of the connection.
    pub index: u32,
}

/// What few connections have at a time.
#[derive(Default)]
pub struct Extra {
    /// Bytes of the socket that arrived while the connection was not being read.
    held: Vec<u8>,
    /// The close frame that follows the answers under way; empty without a WebSocket.
    pub goodbye: Option<Bytes>,
    /// What waits to be encrypted.
    pub later: Later,
    /// Only of backends.
    pub flight: Option<Box<Flight>>,
}

impl Extra {
    fn is_empty(&self) -> bool {
        let Extra { held, goodbye, later, flight } = self;
        let sends = goodbye.is_some() || !later.is_empty() || flight.is_some();
        held.is_empty() && !sends
    }
}

/// What a connection is: a number that the list of protocols gives out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub u8);

impl Kind {
    /// Nobody is here.
    pub const FREE: Kind = Kind(0);
    /// Refused, or closing without having been opened; only waits for its end.
    pub const LEAVING: Kind = Kind(1);
}

/// Every kind has a number below this one.
pub const KINDS_MAX: usize = 32;

/// State bits of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// Has output to flush this turn.
    pub const TOUCHED: u32 = 1;
    /// A send is under way; nothing else is sent until it is over.
    pub const STALLED: u32 = 1 << 1;
    /// The driver was told not to receive.
    pub const PAUSED: u32 = 1 << 2;
    /// Input is kept, not handled: no room for its events, or not opened yet.
    pub const BLOCKED: u32 = 1 << 3;
    /// The peer has ended its side; what it sent before is carried out and answered first.
    pub const ENDED: u32 = 1 << 4;
    /// A close frame was queued: nothing else is sent, and only the peer's close is listened to. A
    /// client has left the hub.
    pub const CLOSING: u32 = 1 << 5;
    /// When everything is written, say that nothing follows and wait for the peer's end.
    pub const LINGER: u32 = 1 << 6;
    /// When everything is written, close.
    pub const HANG_UP: u32 = 1 << 7;
    /// Nothing that arrives matters any more.
    pub const DEAF: u32 = 1 << 8;
    /// `Op::Close` was issued; waits for `closed`.
    pub const GONE: u32 = 1 << 9;
    /// permessage-deflate was negotiated.
    pub const DEFLATE: u32 = 1 << 10;
    /// Counted as an online client.
    pub const ONLINE: u32 = 1 << 11;
    /// In the list of connections that wait for room in the workers' queues.
    pub const WAITING: u32 = 1 << 12;
    /// Upgraded to a WebSocket; without it the protocol runs on the bare stream.
    pub const WEBSOCKET: u32 = 1 << 13;
    /// Blocked because its outbox is full; goes on when it is not any more.
    pub const FULL: u32 = 1 << 14;
    /// A client in the hub, or was one until its end began.
    pub const MEMBER: u32 = 1 << 15;
    /// Something that the peer has asked is not answered; a goodbye waits for it.
    pub const OWES: u32 = 1 << 16;
    /// A ping was sent since the peer last showed life.
    pub const PINGED: u32 = 1 << 17;
    /// It is gone, and something that it had sent was never handled.
    pub const UNREAD: u32 = 1 << 18;
    /// May read on; waits for its turn among those.
    pub const READS_ON: u32 = 1 << 19;
    /// Its protocol is told when what it was sent is written.
    pub const TELLS: u32 = 1 << 20;
    /// Its turn in a drain has come: it is closed when it has been heard out.
    pub const LEAVES: u32 = 1 << 21;

    /// Whether any of the bits is set.
    pub fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    /// Sets bits; returns whether all of them were clear before.
    pub fn set(&mut self, bits: u32) -> bool {
        let fresh = self.0 & bits == 0;
        self.0 |= bits;
        fresh
    }

    /// Clears bits; returns whether any of them was set.
    pub fn clear(&mut self, bits: u32) -> bool {
        let had = self.0 & bits != 0;
        self.0 &= !bits;
        had
    }
}

// The memory goal is a compile error: with the hub's member (64), the timer wheel's node (24) and
// the ring's socket (32) an idle connection stays within 256 bytes.
const _: () = assert!(size_of::<Conn>() <= 128);

/// Fewer free slots behind the last one in use are kept.
const GONE_MIN: usize = 512;
/// What one look gives back, in a fraction of a millisecond.
const GONE_MAX: usize = 16 * 1024;

/// All connections of a shard.
pub struct Conns {
    shard: u8,
    slots: Vec<Conn>,
    /// Of the connections in the same slots.
    traffic: Vec<Traffic>,
    peers: Vec<Peer>,
    free: VecDeque<u32>,
    /// Connections by kind.
    kinds: [u32; KINDS_MAX],
    /// What encrypts a push to the connection of a slot now; long enough for the highest slot that
    /// ever had one.
    seals: Vec<Option<Rc<dyn Seal>>>,
}

impl Conns {
    /// A slab that will not move while it holds up to `connections_max`.
    pub fn new(shard: u8, connections_max: u32) -> Conns {
        let slots_max = connections_max.min(ConnId::SLOTS_MAX);
        let slots_max = slots_max as usize;
        Conns {
            shard,
            slots: Vec::with_capacity(slots_max),
            traffic: Vec::with_capacity(slots_max),
            peers: Vec::with_capacity(slots_max),
            free: VecDeque::new(),
            kinds: [0; KINDS_MAX],
            seals: Vec::new(),
        }
    }

    /// Takes a slot for a connection of `peer` that was accepted at `unix` seconds; `None` if there
    /// are too many.
    ///
    /// A slot that was born this very second is left for later if the slab can grow, so that
    /// generations stay close to the clock under a storm of short connections.
    pub fn open(&mut self, unix: u32, listener: u16, peer: SocketAddr, now_ms: u64) -> Option<u32> {
        let fresh = self.free.front().is_none_or(|&slot| self[slot].generation >= unix);
        let grow = fresh && self.slots.len() < self.slots.capacity();
        let slot = if grow {
            self.slots.push(Conn::free(0));
            self.traffic.push(Traffic::default());
            self.peers.push(Peer::NONE);
            self.slots.len() as u32 - 1
        } else {
            self.free.pop_front()?
        };
        let generation = unix.max(self[slot].generation.wrapping_add(1));
        let kind = Kind::LEAVING;
        self[slot] = Conn { listener, kind, active_ms: now_ms, ..Conn::free(generation) };
        self.kinds[usize::from(kind.0)] += 1;
        self.traffic[slot as usize] = Traffic::default();
        self.peers[slot as usize] = peer.into();
        Some(slot)
    }

    /// Gives a slot back.
    pub fn free(&mut self, slot: u32) {
        self.kinds[usize::from(self[slot].kind.0)] -= 1;
        self[slot] = Conn::free(self[slot].generation);
        self.set_seal(slot, None);
        self.free.push_back(slot);
    }

    /// Gives back the memory of the slots behind the last one in use, if they are many. Only while
    /// nothing names a free slot. `unix` is the present: a slot that was born in this second stays,
    /// so that none gets a generation twice.
    pub fn give_back(&mut self, unix: u32) {
        let needed = |conn: &Conn| conn.kind != Kind::FREE || conn.generation >= unix;
        let end = self.slots.iter().rposition(needed).map_or(0, |last| last + 1);
        let gone = (self.slots.len() - end).min(GONE_MAX);
        if gone < GONE_MIN {
            return;
        }
        self.slots.truncate(self.slots.len() - gone);
        let end = self.slots.len();
        self.free.retain(|&slot| (slot as usize) < end);
        self.free.shrink_to(2 * self.free.len());
        self.traffic.truncate(end);
        self.peers.truncate(end);
        self.seals.truncate(end);
        allocator::give_back_room(&mut self.slots);
        allocator::give_back_room(&mut self.traffic);
        allocator::give_back_room(&mut self.peers);
        allocator::give_back_room(&mut self.seals);
    }

    /// What has gone over the connection.
    pub fn traffic(&self, slot: u32) -> Traffic {
        self.traffic[slot as usize]
    }

    /// The same, to be counted.
    #[inline]
    pub fn traffic_mut(&mut self, slot: u32) -> &mut Traffic {
        &mut self.traffic[slot as usize]
    }

    /// The address at the other end of the socket.
    pub fn peer(&self, slot: u32) -> SocketAddr {
        self.peers[slot as usize].address()
    }

    /// What encrypts a push to the connection now, if anything does.
    pub fn seal(&self, slot: u32) -> Option<&Rc<dyn Seal>> {
        self.seals.get(slot as usize)?.as_ref()
    }

    /// Pushes to the connection are encrypted by this from now on, or are not.
    pub fn set_seal(&mut self, slot: u32, seal: Option<Rc<dyn Seal>>) {
        let index = slot as usize;
        if seal.is_some() && index >= self.seals.len() {
            // Like the slots it does not move; memory that nobody touches takes none.
            self.seals.reserve_exact(self.slots.capacity() - self.seals.len());
            self.seals.resize_with(index + 1, || None);
        }
        if let Some(place) = self.seals.get_mut(index) {
            *place = seal;
        }
    }

    /// Queues a push.
    #[inline]
    pub fn push_made(&mut self, slot: u32, made: &Made) {
        match made {
            Made::Sealed(body) => {
                let seal = self.seal(slot).cloned();
                self[slot].push_later(body.clone(), seal);
            }
            Made::Frame(frame) if self[slot].is_sealing() => {
                self[slot].push_later(frame.bytes(), None);
            }
            Made::Frame(frame) => self[slot].outbox.push(frame.clone()),
            Made::Nothing => {}
        }
    }

    /// The id of the connection in a slot.
    pub fn id(&self, slot: u32) -> ConnId {
        ConnId::new(self.shard, slot, self[slot].generation)
    }

    /// The slot of a connection that still exists.
    pub fn slot(&self, id: ConnId) -> Option<u32> {
        let conn = self.slots.get(id.slot() as usize)?;
        let alive = conn.generation == id.generation() && conn.kind != Kind::FREE;
        (alive && id.shard() == self.shard).then_some(id.slot())
    }

    /// Every slot is below this, whether in use or not.
    pub fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Slots in use.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// How many connections there are of each kind of which there is one.
    pub fn by_kind(&self) -> Vec<(Kind, u64)> {
        let counts = (0..).map(Kind).zip(&self.kinds);
        let there = counts.filter(|(kind, count)| *kind != Kind::FREE && **count > 0);
        there.map(|(kind, count)| (kind, u64::from(*count))).collect()
    }

    /// A connection is of another kind now; its protocol keeps what it knows at `index`.
    pub fn set_kind(&mut self, slot: u32, kind: Kind, index: u32) {
        let conn = &mut self[slot];
        let before = std::mem::replace(&mut conn.kind, kind);
        conn.index = index;
        self.kinds[usize::from(before.0)] -= 1;
        self.kinds[usize::from(kind.0)] += 1;
    }

    /// For tests: panics if the connections of a kind are not as many as are counted.
    pub fn check_kinds(&self) {
        let mut kinds = [0; KINDS_MAX];
        self.iter().for_each(|(_, conn)| kinds[usize::from(conn.kind.0)] += 1);
        assert_eq!(kinds, self.kinds, "connections by kind");
    }

    /// Whether no slot is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every slot that is in use.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Conn)> {
        let used = |(_, conn): &(u32, &Conn)| conn.kind != Kind::FREE;
        (0u32..).zip(&self.slots).filter(used)
    }
}

impl Conn {
    /// Whether it has only `runtime.close_timeout` left.
    pub fn is_ending(&self) -> bool {
        let ends = Flags::CLOSING | Flags::LINGER | Flags::HANG_UP | Flags::DEAF | Flags::ENDED;
        self.flags.has(ends)
    }

    /// Whether the TLS handshake is not over.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.handshaking())
    }

    /// The worker that gets this client's events, if workers are picked sticky.
    pub fn worker(&self) -> Option<ConnId> {
        let [generation, index] = self.worker;
        (generation != 0).then(|| ConnId::from_parts(generation, index))
    }

    /// Its events go to this worker from now on.
    pub fn set_worker(&mut self, worker: Option<ConnId>) {
        // Generations are times, which are not 0.
        self.worker = worker.map_or([0; 2], |worker| [worker.generation(), worker.index()]);
    }

    /// Since when the write deadline runs, milliseconds of the process clock, where `now_ms` is the
    /// present: the send under way has stalled, or, if that was later, the outbox has become full
    /// and has been since. Of no meaning without [`Flags::STALLED`].
    pub fn stalled_since(&self, now_ms: u64) -> u64 {
        now_ms - u64::from((now_ms as u32).wrapping_sub(self.stalled_ms))
    }

    /// The write deadline begins to run.
    pub fn stalls_from(&mut self, now_ms: u64) {
        self.stalled_ms = now_ms as u32;
    }

    /// Keeps bytes of the socket while the connection is not being read; returns how many these
    /// are.
    pub fn hold(&mut self, data: &[u8]) -> usize {
        let extra = self.extra.get_or_insert_default();
        extra.held.extend_from_slice(data);
        extra.held.len()
    }

    /// Bytes of the socket that are kept.
    pub fn held(&self) -> usize {
        self.extra.as_ref().map_or(0, |extra| extra.held.len())
    }

    /// Takes what was kept, if anything was.
    pub fn take_held(&mut self) -> Option<Vec<u8>> {
        let extra = self.extra.as_mut().filter(|extra| !extra.held.is_empty())?;
        let held = std::mem::take(&mut extra.held);
        self.drop_extra();
        Some(held)
    }

    /// Whether a goodbye waits for answers that are under way.
    pub fn goes(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.goodbye.is_some())
    }

    /// What became of the frames that were queued for a backend.
    pub fn flight(&mut self) -> Option<&mut Flight> {
        self.extra.as_mut()?.flight.as_deref_mut()
    }

    /// What waits to be encrypted when it is flushed.
    pub fn later(&mut self) -> Option<&mut Later> {
        self.extra.as_mut().map(|extra| &mut extra.later).filter(|later| !later.is_empty())
    }

    /// Whether nothing waits to be sent. A stalled send may still be under way.
    pub fn is_written(&self) -> bool {
        self.outbox.is_empty() && self.extra.as_ref().is_none_or(|extra| extra.later.is_empty())
    }

    /// What is charged for that which waits to be written.
    pub fn charge(&self) -> u32 {
        let later = self.extra.as_ref().map_or(0, |extra| extra.later.charge());
        self.outbox.charge().saturating_add(later)
    }

    /// Whether something waits to be encrypted: what is queued goes behind it.
    pub fn is_sealing(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| !extra.later.is_empty())
    }

    /// Queues what is encrypted when it is flushed, or, without a seal, a frame behind that.
    pub fn push_later(&mut self, message: Bytes, seal: Option<Rc<dyn Seal>>) {
        self.extra.get_or_insert_default().later.push(message, seal);
    }

    /// Frees the box if nothing is in it.
    pub fn drop_extra(&mut self) {
        if self.extra.as_ref().is_some_and(|extra| extra.is_empty()) {
            self.extra = None;
        }
    }

    fn free(generation: u32) -> Conn {
        Conn {
            generation,
            listener: 0,
            flags: Flags::default(),
            active_ms: 0,
            row: 0,
            form: 0,
            due_ms: u64::MAX,
            stalled_ms: 0,
            outbox: Outbox::default(),
            decoder: Decoder::default(),
            tls: None,
            extra: None,
            worker: [0; 2],
            kind: Kind::FREE,
            index: 0,
        }
    }
}

impl std::ops::Index<u32> for Conns {
    type Output = Conn;

    fn index(&self, slot: u32) -> &Conn {
        &self.slots[slot as usize]
    }
}

impl std::ops::IndexMut<u32> for Conns {
    fn index_mut(&mut self, slot: u32) -> &mut Conn {
        &mut self.slots[slot as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    #[test]
    fn a_slot_never_has_the_same_generation_twice_even_within_one_second() {
        let mut conns = Conns::new(3, 2);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100 {
            let slot = conns.open(1000, 0, PEER, 0).expect("there is a free slot");
            assert!(seen.insert(conns.id(slot)));
            let id = conns.id(slot);
            assert_eq!(conns.slot(id), Some(slot));
            conns.free(slot);
            assert_eq!(conns.slot(id), None);
        }
    }

    #[test]
    fn what_a_peak_took_goes_and_no_generation_comes_twice() {
        const PEAK: u32 = 4000;
        let mut conns = Conns::new(0, PEAK);
        let mut seen = std::collections::HashSet::new();
        let mut fill = |conns: &mut Conns, unix: u32| -> Vec<u32> {
            let mut slots: Vec<u32> =
                (0..PEAK).filter_map(|_| conns.open(unix, 0, PEER, 0)).collect();
            assert!(slots.iter().all(|&slot| seen.insert(conns.id(slot))));
            slots.sort_unstable();
            assert!(slots.iter().copied().eq(0..PEAK));
            slots
        };
        for (unix, kept) in [(1000, 1), (1001, 700), (1002, 0)] {
            let slots = fill(&mut conns, unix);
            let ids: Vec<ConnId> = slots.iter().map(|&slot| conns.id(slot)).collect();
            slots[kept..].iter().for_each(|&slot| conns.free(slot));
            conns.give_back(unix);
            assert_eq!(conns.slots(), PEAK, "they were born in this second");
            conns.give_back(unix + 1);
            assert_eq!((conns.slots() as usize, conns.len()), (kept, kept));
            for (place, id) in ids.into_iter().enumerate() {
                assert_eq!(conns.slot(id).is_some(), place < kept);
            }
            (0..kept as u32).for_each(|slot| conns.free(slot));
        }
    }

    #[test]
    fn a_full_slab_refuses_and_an_old_slot_is_used_again() {
        let mut conns = Conns::new(0, 2);
        let first = conns.open(1000, 0, PEER, 0).expect("empty slab");
        conns.open(1000, 0, PEER, 0).expect("one slot is left");
        assert_eq!(conns.open(1000, 0, PEER, 0), None);
        conns.free(first);
        assert_eq!(conns.open(1001, 0, PEER, 0), Some(first));
        assert_eq!(conns.len(), 2);
    }
}
