//! The slab of a shard's connections.
//!
//! A slot is reused only after its socket is closed, oldest first, and never with the same
//! generation. An idle connection is one [`Conn`]: no buffer, no task, no timer object. What is
//! rare (handshake, TLS, kept input, business connections) is boxed and freed when it is over.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::edge;
use crate::hub::ConnId;
use crate::shard::business::Business;
use crate::shard::outbox::Outbox;
use crate::shard::{connmix, connmix_api, im, xxim};
use crate::wire::http::machine::Machine;
use crate::wire::netsvr::{OpenInfo, Verdict};
use crate::wire::tls::Tls;
use crate::wire::websocket::Decoder;

/// One connection of the shard, or a free slot.
pub struct Conn {
    pub generation: u32,
    pub listener: u16,
    pub flags: Flags,
    /// When the peer last showed life, milliseconds of the process clock.
    pub active_ms: u64,
    /// Since when the write deadline runs, milliseconds of the process clock: the send under way
    /// has stalled, or, if that was later, the outbox has become full and has been since. Of no
    /// meaning without [`Flags::STALLED`].
    pub stalled_ms: u64,
    pub outbox: Outbox,
    pub decoder: Decoder,
    pub tls: Option<Box<Tls>>,
    /// Bytes of the socket that arrived while the connection was not being read.
    pub held: Option<Box<Vec<u8>>>,
    pub role: Role,
}

/// What a connection is, or is about to become.
#[derive(Debug)]
pub enum Role {
    /// Nobody is here.
    Free,
    /// A client of an HTTP listener that has not been upgraded yet.
    Greeting(Box<Greeting>),
    /// Upgraded; waits for the callback's verdict or for a worker with room.
    Opening(Box<Opening>),
    /// A netsvr client.
    Netsvr(edge::netsvr::Client),
    /// A client of the echo protocol.
    Echo,
    /// An xxim client.
    Xxim(Box<xxim::Conn>),
    /// Requests of xxim over HTTP.
    XximHttp(Box<xxim::HttpConn>),
    /// A connmix client.
    Connmix(Box<connmix::Conn>),
    /// An IM client.
    Im(Box<im::Conn>),
    /// A connection of a netsvr business process.
    Business(Box<Business>),
    /// A connection to the connmix API.
    ConnmixApi(Box<connmix_api::Conn>),
    /// Refused or closing without having been opened; only waits for its end.
    Leaving,
}

impl Role {
    /// What each of them is called in the log, by [`Role::name_index`].
    pub const NAMES: &'static [&'static str] = &[
        "nobody",
        "http",
        "opening",
        "netsvr",
        "echo",
        "xxim",
        "xxim-http",
        "connmix",
        "im",
        "netsvr-business",
        "connmix-api",
        "leaving",
    ];

    /// Its place in [`Role::NAMES`].
    pub fn name_index(&self) -> u8 {
        match self {
            Role::Free => 0,
            Role::Greeting(_) => 1,
            Role::Opening(_) => 2,
            Role::Netsvr(_) => 3,
            Role::Echo => 4,
            Role::Xxim(_) => 5,
            Role::XximHttp(_) => 6,
            Role::Connmix(_) => 7,
            Role::Im(_) => 8,
            Role::Business(_) => 9,
            Role::ConnmixApi(_) => 10,
            Role::Leaving => 11,
        }
    }

    /// Whether it is a client in the hub, or was one until its end began.
    pub fn is_opened(&self) -> bool {
        match self {
            Role::Netsvr(_) => true,
            Role::Xxim(xxim) => xxim.is_member(),
            Role::Connmix(connmix) => connmix.opened(),
            Role::Im(im) => im.is_member(),
            _ => false,
        }
    }

    /// Whether a backend is at the other end. It outlives the clients when the gateway ends.
    pub fn is_backend(&self) -> bool {
        matches!(self, Role::Business(_) | Role::ConnmixApi(_))
    }
}

/// A connection whose request head is incomplete.
#[derive(Debug)]
pub struct Greeting {
    pub peer: SocketAddr,
    pub machine: Machine,
}

/// A connection that was upgraded but not opened.
#[derive(Debug)]
pub struct Opening {
    pub info: OpenInfo,
    /// What the callback has said; it is applied when the connection is opened.
    pub verdict: Option<Box<Verdict>>,
}

/// State bits of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// Has output to flush this turn.
    pub const TOUCHED: u16 = 1;
    /// A send is under way; nothing else is sent until it is over.
    pub const STALLED: u16 = 1 << 1;
    /// The driver was told not to receive.
    pub const PAUSED: u16 = 1 << 2;
    /// Input is kept, not handled: no room for its events, or not opened yet.
    pub const BLOCKED: u16 = 1 << 3;
    /// The peer has ended its side; what it sent before is carried out and answered first.
    pub const ENDED: u16 = 1 << 4;
    /// A close frame was queued: nothing else is sent, and only the peer's close is listened to. A
    /// client has left the hub.
    pub const CLOSING: u16 = 1 << 5;
    /// When everything is written, say that nothing follows and wait for the peer's end.
    pub const LINGER: u16 = 1 << 6;
    /// When everything is written, close.
    pub const HANG_UP: u16 = 1 << 7;
    /// Nothing that arrives matters any more.
    pub const DEAF: u16 = 1 << 8;
    /// `Op::Close` was issued; waits for `closed`.
    pub const GONE: u16 = 1 << 9;
    /// permessage-deflate was negotiated.
    pub const DEFLATE: u16 = 1 << 10;
    /// Counted as an online client.
    pub const ONLINE: u16 = 1 << 11;
    /// In the list of connections that wait for room in the workers' queues.
    pub const WAITING: u16 = 1 << 12;
    /// Upgraded to a WebSocket; without it the protocol runs on the bare stream.
    pub const WEBSOCKET: u16 = 1 << 13;
    /// Blocked because its outbox is full; goes on when it is not any more.
    pub const FULL: u16 = 1 << 14;

    /// Whether any of the bits is set.
    pub fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }

    /// Sets bits; returns whether all of them were clear before.
    pub fn set(&mut self, bits: u16) -> bool {
        let fresh = self.0 & bits == 0;
        self.0 |= bits;
        fresh
    }

    /// Clears bits; returns whether any of them was set.
    pub fn clear(&mut self, bits: u16) -> bool {
        let had = self.0 & bits != 0;
        self.0 &= !bits;
        had
    }
}

// The memory goal is a compile error: with the hub's member (64), the timer wheel's node (24) and
// the ring's socket (32) an idle connection stays within 256 bytes.
const _: () = assert!(size_of::<Conn>() <= 128);

/// All connections of a shard.
pub struct Conns {
    shard: u8,
    slots: Vec<Conn>,
    free: VecDeque<u32>,
}

impl Conns {
    /// A slab that will not move while it holds up to `connections_max`.
    pub fn new(shard: u8, connections_max: u32) -> Conns {
        let slots_max = connections_max.min(ConnId::SLOTS_MAX);
        Conns { shard, slots: Vec::with_capacity(slots_max as usize), free: VecDeque::new() }
    }

    /// Takes a slot for a connection accepted at `unix` seconds; `None` if there are too many.
    ///
    /// A slot that was born this very second is left for later if the slab can grow, so that
    /// generations stay close to the clock under a storm of short connections.
    pub fn open(&mut self, unix: u32, listener: u16, role: Role, now_ms: u64) -> Option<u32> {
        let fresh = self.free.front().is_none_or(|&slot| self[slot].generation >= unix);
        let grow = fresh && self.slots.len() < self.slots.capacity();
        let slot = if grow {
            self.slots.push(Conn::free(0));
            self.slots.len() as u32 - 1
        } else {
            self.free.pop_front()?
        };
        let generation = unix.max(self[slot].generation.wrapping_add(1));
        self[slot] = Conn { listener, role, active_ms: now_ms, ..Conn::free(generation) };
        Some(slot)
    }

    /// Gives a slot back.
    pub fn free(&mut self, slot: u32) {
        self[slot] = Conn::free(self[slot].generation);
        self.free.push_back(slot);
    }

    /// The id of the connection in a slot.
    pub fn id(&self, slot: u32) -> ConnId {
        ConnId::new(self.shard, slot, self[slot].generation)
    }

    /// The slot of a connection that still exists.
    pub fn slot(&self, id: ConnId) -> Option<u32> {
        let conn = self.slots.get(id.slot() as usize)?;
        let alive = conn.generation == id.generation() && !matches!(conn.role, Role::Free);
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

    /// Whether no slot is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every slot that is in use.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Conn)> {
        let used = |(_, conn): &(u32, &Conn)| !matches!(conn.role, Role::Free);
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

    /// Whether only WebSocket data frames count as data: everywhere but on bare streams of clients.
    pub fn has_control_frames(&self) -> bool {
        let stream = matches!(self.role, Role::Xxim(_) | Role::Connmix(_) | Role::Im(_));
        self.flags.has(Flags::WEBSOCKET) || !stream
    }

    fn free(generation: u32) -> Conn {
        Conn {
            generation,
            listener: 0,
            flags: Flags::default(),
            active_ms: 0,
            stalled_ms: 0,
            outbox: Outbox::default(),
            decoder: Decoder::default(),
            tls: None,
            held: None,
            role: Role::Free,
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

    #[test]
    fn a_slot_never_has_the_same_generation_twice_even_within_one_second() {
        let mut conns = Conns::new(3, 2);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100 {
            let slot = conns.open(1000, 0, Role::Echo, 0).expect("there is a free slot");
            assert!(seen.insert(conns.id(slot)));
            let id = conns.id(slot);
            assert_eq!(conns.slot(id), Some(slot));
            conns.free(slot);
            assert_eq!(conns.slot(id), None);
        }
    }

    #[test]
    fn a_full_slab_refuses_and_an_old_slot_is_used_again() {
        let mut conns = Conns::new(0, 2);
        let first = conns.open(1000, 0, Role::Echo, 0).expect("empty slab");
        conns.open(1000, 0, Role::Echo, 0).expect("one slot is left");
        assert_eq!(conns.open(1000, 0, Role::Echo, 0), None);
        conns.free(first);
        assert_eq!(conns.open(1001, 0, Role::Echo, 0), Some(first));
        assert_eq!(conns.len(), 2);
    }
}
