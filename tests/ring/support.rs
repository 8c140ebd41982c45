//! Pairs of sockets, a ring to try them on, and bytes that show where they belong.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use ringway::engine::ops::Batch;
use ringway::engine::ring::{Event, Received, Ring, Settings};
use socket2::{Domain, SockRef, Socket, Type};

/// How long an event may take that must come. Sanitizers make everything slow.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the ring waits at a time.
const TURN: Duration = Duration::from_millis(20);

/// Small enough to make many, large enough to never get in the way.
pub fn settings() -> Settings {
    Settings { submission_entries: 256, completion_entries: 4096, buffers: 256, buffer_bytes: 2048 }
}

/// A ring and what a test does with it.
pub struct Bench {
    pub ring: Ring,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with(settings())
    }

    pub fn with(settings: Settings) -> Bench {
        Bench { ring: Ring::new(&settings).unwrap() }
    }

    /// A connection in `slot`; the other end is returned.
    pub fn connect(&mut self, slot: u32) -> TcpStream {
        self.connect_with(slot, Sizes::default())
    }

    pub fn connect_with(&mut self, slot: u32, sizes: Sizes) -> TcpStream {
        let (socket, peer) = pair(sizes);
        self.ring.adopt(slot, socket);
        peer
    }

    /// The next event, which must come.
    pub fn event(&mut self) -> Event {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(event) = self.now() {
                return event;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no event within {PATIENCE:?}");
            if !self.ring.pending() {
                // Under valgrind nobody else runs while a thread waits in the ring.
                self.ring.wait(left.min(TURN)).unwrap();
                std::thread::yield_now();
            }
        }
    }

    /// The next event that is there without waiting.
    pub fn now(&mut self) -> Option<Event> {
        if let Some(event) = self.ring.next() {
            return Some(event);
        }
        self.ring.submit().unwrap();
        self.ring.next()
    }

    /// Copies the bytes of a receive and gives the buffer back.
    pub fn take(&mut self, data: Received) -> Vec<u8> {
        let bytes = self.ring.data(&data).to_vec();
        assert_eq!(bytes.len(), data.len());
        self.ring.give_back(data);
        bytes
    }

    /// Receives from `slot` until there are `count` bytes; no other event may come.
    pub fn receive(&mut self, slot: u32, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            match self.event() {
                Event::Received { slot: from, data } if from == slot => {
                    bytes.extend(self.take(data));
                }
                other => panic!("instead of bytes: {other:?}"),
            }
        }
        bytes
    }

    /// Closes a slot and waits for `Closed`; no other event of the slot may come. Those of other
    /// slots are returned.
    pub fn close(&mut self, slot: u32) -> Vec<Event> {
        self.ring.close(slot);
        let mut others = Vec::new();
        loop {
            match self.event() {
                Event::Closed { slot: closed } if closed == slot => return others,
                other => {
                    assert_ne!(slot_of(&other), Some(slot), "after close: {other:?}");
                    others.push(other);
                }
            }
        }
    }

    /// Asserts that there is nothing to report and nothing to do.
    pub fn idle(&mut self) {
        if let Some(event) = self.now() {
            panic!("unexpected: {event:?}");
        }
    }

    /// Reads from `peer` on another thread to the end while events are handled here.
    pub fn stalled_then_sent(&mut self, slot: u32, peer: &TcpStream, count: usize) -> Vec<u8> {
        match self.event() {
            Event::Stalled { slot: stalled, written } => {
                assert_eq!(stalled, slot);
                assert!(written < count);
            }
            other => panic!("instead of Stalled: {other:?}"),
        }
        let reader = reader(peer, count);
        match self.event() {
            Event::Sent { slot: sent, result: Ok(()) } => assert_eq!(sent, slot),
            other => panic!("instead of Sent: {other:?}"),
        }
        reader.join().unwrap()
    }
}

/// A thread that reads `count` bytes.
pub fn reader(peer: &TcpStream, count: usize) -> std::thread::JoinHandle<Vec<u8>> {
    let mut peer = peer.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut bytes = vec![0; count];
        peer.read_exact(&mut bytes).unwrap();
        bytes
    })
}

pub fn slot_of(event: &Event) -> Option<u32> {
    match event {
        Event::Received { slot, .. }
        | Event::Ended { slot, .. }
        | Event::Stalled { slot, .. }
        | Event::Sent { slot, .. }
        | Event::Closed { slot } => Some(*slot),
        Event::Accepted { .. } | Event::AcceptFailed { .. } => None,
    }
}

/// Socket buffers; 0: as the system likes.
#[derive(Clone, Copy, Default)]
pub struct Sizes {
    /// Of the ring's end.
    pub send: usize,
    /// Of the other end.
    pub receive: usize,
}

/// Buffers so small that a batch of a few hundred KiB does not fit.
pub const SMALL: Sizes = Sizes { send: 16 << 10, receive: 16 << 10 };

/// A TCP connection: an end for the ring, and the other one.
pub fn pair(sizes: Sizes) -> (OwnedFd, TcpStream) {
    let listener = listener(sizes.send);
    let peer = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    if sizes.receive > 0 {
        peer.set_recv_buffer_size(sizes.receive).unwrap();
    }
    peer.connect(&listener.local_addr().unwrap()).unwrap();
    let (socket, _) = listener.accept().unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    (socket.into(), peer.into())
}

/// A listening socket on a free port of 127.0.0.1, for connections with such a send buffer.
pub fn listener(send: usize) -> Socket {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    if send > 0 {
        listener.set_send_buffer_size(send).unwrap();
    }
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(1024).unwrap();
    listener
}

/// Closes a connection with a reset.
pub fn reset(peer: TcpStream) {
    SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Bytes that differ from place to place and from seed to seed: a random text of prime length over
/// and over, begun somewhere.
pub fn pattern(seed: u64, range: Range<usize>) -> Vec<u8> {
    const LEN: usize = 65_521;
    static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let random = |at: usize| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        (0..LEN).map(|at| (random(at) ^ random(at / 251)) as u8).collect()
    });
    let mut bytes = Vec::with_capacity(range.len());
    let mut at = (range.start + seed as usize * 7919) % LEN;
    while bytes.len() < range.len() {
        let count = (LEN - at).min(range.len() - bytes.len());
        bytes.extend_from_slice(&TEXT[at..at + count]);
        at = 0;
    }
    bytes
}

/// A batch that does not fit into [`SMALL`] buffers, whatever is in it.
pub fn big() -> Batch {
    Batch::Own(vec![b'x'; 1 << 20])
}

/// Asserts equality without printing megabytes.
#[track_caller]
pub fn assert_same(got: &[u8], wanted: &[u8]) {
    if got != wanted {
        let differs = got.iter().zip(wanted).position(|(got, wanted)| got != wanted);
        panic!("{} bytes instead of {}, first difference {differs:?}", got.len(), wanted.len());
    }
}

pub fn own(bytes: &[u8]) -> Batch {
    Batch::Own(bytes.to_vec())
}

/// Writes what the socket takes without waiting.
pub fn write_until_full(peer: &mut TcpStream, bytes: &[u8]) -> usize {
    peer.set_nonblocking(true).unwrap();
    let mut written = 0;
    loop {
        match io::Write::write(peer, &bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
        if written == bytes.len() {
            break;
        }
    }
    peer.set_nonblocking(false).unwrap();
    written
}

/// Counts events by slot and name.
#[derive(Default)]
pub struct Tally(HashMap<(u32, &'static str), usize>);

impl Tally {
    pub fn count(&mut self, event: &Event) {
        let name = match event {
            Event::Received { .. } => "received",
            Event::Ended { .. } => "ended",
            Event::Stalled { .. } => "stalled",
            Event::Sent { .. } => "sent",
            Event::Closed { .. } => "closed",
            Event::Accepted { .. } | Event::AcceptFailed { .. } => "accept",
        };
        *self.0.entry((slot_of(event).unwrap_or(u32::MAX), name)).or_default() += 1;
    }

    pub fn of(&self, slot: u32, name: &'static str) -> usize {
        self.0.get(&(slot, name)).copied().unwrap_or(0)
    }
}
