//! The load generator's sockets: one epoll instance, non-blocking connections, and as much of
//! WebSocket and of netsvr's framing as a client needs, over TLS if it is configured.
//!
//! Costs per message: one `send` and one `recv`; one `epoll_wait` per 1024 ready connections. All
//! connections share one receive buffer; one that has an incomplete frame keeps a copy of it.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway::wire::websocket::mask_frame;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustls::ClientConfig;
use socket2::{Domain, Socket, Type};

use crate::Result;
use crate::tls::Session;

/// Connections that are opened before their answers are waited for; below any listen backlog.
const CONNECT_BATCH: usize = 256;
/// Clients of one source address. The system's search for a free port becomes slow when half of
/// them (14,116 by default) are taken, so the others get ports below those that it searches.
const CLIENTS_PER_ADDRESS: usize = 10_000;
const FIRST_PORT: u16 = 20_000;
const RECEIVE_BYTES: usize = 256 << 10;
const EVENTS: usize = 1024;
/// FIN and opcode of a text message.
const TEXT: u8 = 0x81;

/// How a connection is cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// Waits for the 101.
    Upgrade,
    WebSocket,
    /// Answers with a `Content-Length`.
    Http,
    /// Length in four bytes.
    Netsvr,
    /// The same, with another process or thread of this program; see `team`.
    Team,
}

struct Peer {
    socket: TcpStream,
    framing: Framing,
    tls: Option<Box<Session>>,
    /// The beginning of an incomplete frame.
    rest: Vec<u8>,
    /// What the socket's buffer had no room for.
    out: Vec<u8>,
    /// Whether epoll tells when there is room.
    waits: bool,
}

/// All connections, by number. Numbers of closed ones are used again.
pub struct Net {
    epoll: OwnedFd,
    peers: Vec<Option<Peer>>,
    free: Vec<u32>,
    buffer: Vec<u8>,
    events: Vec<epoll::Event>,
    /// What clients encrypt with.
    pub tls: Option<Arc<ClientConfig>>,
    /// Which member of the team this is; each has source addresses of its own.
    pub place: u8,
    /// Messages of the team's other members.
    pub notes: VecDeque<(u32, Vec<u8>)>,
    /// Source addresses of short connections; each is used for some, then the next.
    sources: u32,
    /// Clients that `connect_clients` has opened.
    clients: usize,
    /// Connections that the server has closed.
    pub closed: Vec<u32>,
}

impl Net {
    pub fn new() -> Result<Net> {
        Ok(Net {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            peers: Vec::new(),
            free: Vec::new(),
            buffer: vec![0; RECEIVE_BYTES],
            events: Vec::with_capacity(EVENTS),
            tls: None,
            place: 0,
            notes: VecDeque::new(),
            sources: 0,
            clients: 0,
            closed: Vec::new(),
        })
    }

    /// Connects WebSocket clients and waits until all are upgraded. `path` gives each its request
    /// target.
    pub fn connect_clients(
        &mut self,
        server: SocketAddr,
        count: usize,
        path: impl Fn(usize) -> String,
    ) -> Result<Vec<u32>> {
        let mut clients = Vec::with_capacity(count);
        for first in (0..count).step_by(CONNECT_BATCH) {
            let last = (first + CONNECT_BATCH).min(count);
            for number in first..last {
                let source = source(self.place, self.clients)?;
                self.clients += 1;
                let options = Options { source, receive_buffer: None };
                clients.push(self.connect(server, options, &path(number))?);
            }
            self.await_upgrades(&clients[first..last])?;
        }
        Ok(clients)
    }

    /// Starts a WebSocket connection: connects and sends the request.
    pub fn connect(&mut self, server: SocketAddr, options: Options, path: &str) -> Result<u32> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(|error| {
            format!("{error} after {} connections: ulimit -n, or --processes", self.peers.len())
        })?;
        socket.set_reuse_address(true)?;
        if let Some(bytes) = options.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(source) = options.source {
            socket.bind(&source.into())?;
        }
        socket.connect(&server.into())?;
        let tls = self.tls.as_ref().map(|config| Session::new(config, server.ip())).transpose()?;
        let peer = self.add(socket, Framing::Upgrade, tls.map(Box::new))?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n"
        );
        self.send(peer, request.as_bytes())?;
        Ok(peer)
    }

    /// A source address for short connections: the next one after some hundred, so that closed
    /// ones in TIME_WAIT do not use up the ports.
    pub fn next_source(&mut self) -> SocketAddr {
        self.sources += 1;
        let block = (u32::from(self.place) * 0x1000 + self.sources / 512) % 0xfffe + 1;
        let address = Ipv4Addr::new(127, 1, (block >> 8) as u8, block as u8);
        SocketAddr::from((address, 0))
    }

    /// Waits until connections are upgraded.
    pub fn await_upgrades(&mut self, clients: &[u32]) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let upgraded = |peer: &Option<Peer>| {
            peer.as_ref().is_some_and(|peer| peer.framing != Framing::Upgrade)
        };
        let mut missing = clients.to_vec();
        loop {
            missing.retain(|&client| !upgraded(&self.peers[client as usize]));
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{} clients got no 101 within 10 s", missing.len()).into());
            }
            for peer in self.wait(Duration::from_millis(100))? {
                // What others have to say is for somebody else.
                if !upgraded(&self.peers[peer as usize]) {
                    self.read(peer, |_| {})?;
                }
            }
        }
    }

    /// Connects a peer that speaks HTTP and keeps its connection.
    pub fn connect_http(&mut self, server: SocketAddr) -> Result<u32> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.connect(&server.into())?;
        self.add(socket, Framing::Http, None)
    }

    /// Connects a backend.
    pub fn connect_backend(&mut self, server: SocketAddr) -> Result<u32> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.connect(&server.into())?;
        self.add(socket, Framing::Netsvr, None)
    }

    /// Takes the connection to another member of the team. Its messages come as `notes`.
    pub fn add_member(&mut self, socket: TcpStream) -> Result<u32> {
        self.add(socket.into(), Framing::Team, None)
    }

    fn add(&mut self, socket: Socket, framing: Framing, tls: Option<Box<Session>>) -> Result<u32> {
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let socket = TcpStream::from(socket);
        let number = self.free.pop().unwrap_or(self.peers.len() as u32);
        epoll::add(&self.epoll, &socket, EventData::new_u64(number.into()), EventFlags::IN)?;
        let (rest, out, waits) = (Vec::new(), Vec::new(), false);
        let peer = Some(Peer { socket, framing, tls, rest, out, waits });
        match self.peers.get_mut(number as usize) {
            Some(place) => *place = peer,
            None => self.peers.push(peer),
        }
        Ok(number)
    }

    /// Ends a connection.
    pub fn close(&mut self, peer: u32) {
        if self.peers[peer as usize].take().is_some() {
            self.free.push(peer);
        }
    }

    /// Leaves a connection alone: nothing is read from it any more.
    pub fn neglect(&mut self, peer: u32) -> Result<()> {
        if let Some(peer) = &self.peers[peer as usize] {
            epoll::delete(&self.epoll, &peer.socket)?;
        }
        Ok(())
    }

    /// Reads away what a neglected connection has; returns whether the server has ended it.
    pub fn has_ended(&mut self, peer: u32) -> bool {
        let Some(peer) = &mut self.peers[peer as usize] else { return true };
        loop {
            match peer.socket.read(&mut self.buffer) {
                Ok(1..) => {}
                Ok(0) => return true,
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Waits for input; gives the connections that have some. What the team has to say is taken in
    /// on the way.
    pub fn wait(&mut self, patience: Duration) -> Result<Vec<u32>> {
        let timeout = patience.try_into().ok();
        self.events.clear();
        let events = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, events, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = Vec::with_capacity(self.events.len());
        for event in std::mem::take(&mut self.events) {
            let peer = event.data.u64() as u32;
            let flags = event.flags;
            if flags.contains(EventFlags::OUT) {
                self.flush(peer)?;
            }
            if (flags - EventFlags::OUT).is_empty() {
                continue;
            }
            match self.peers[peer as usize].as_ref().map(|peer| peer.framing) {
                Some(Framing::Team) => self.take_notes(peer)?,
                _ => ready.push(peer),
            }
        }
        self.events.reserve(EVENTS);
        Ok(ready)
    }

    fn take_notes(&mut self, member: u32) -> Result<()> {
        let mut notes = std::mem::take(&mut self.notes);
        let result = self.read(member, |note| notes.push_back((member, note.to_vec())));
        self.notes = notes;
        result
    }

    /// Reads once and hands out every complete message: payload of a WebSocket frame, or netsvr
    /// frame without its length.
    pub fn read(&mut self, number: u32, mut each: impl FnMut(&[u8])) -> Result<()> {
        let Some(peer) = self.peers.get_mut(number as usize).and_then(Option::as_mut) else {
            return Ok(());
        };
        let count = match peer.socket.read(&mut self.buffer) {
            Ok(count @ 1..) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            _ => {
                self.close(number);
                self.closed.push(number);
                return Ok(());
            }
        };
        let mut fresh = &self.buffer[..count];
        let (plain, joined);
        if let Some(session) = &mut peer.tls {
            let mut decrypted = Vec::with_capacity(count);
            session.read(fresh, &mut decrypted, &mut peer.out)?;
            plain = decrypted;
            fresh = &plain;
        }
        let mut input = if peer.rest.is_empty() {
            fresh
        } else {
            let mut rest = std::mem::take(&mut peer.rest);
            rest.extend_from_slice(fresh);
            joined = rest;
            &joined
        };
        while let Some((message, used)) = cut(peer.framing, input)? {
            if peer.framing == Framing::Upgrade {
                peer.framing = Framing::WebSocket;
            } else {
                each(message);
            }
            input = &input[used..];
        }
        if !input.is_empty() {
            peer.rest = input.to_vec();
        }
        if peer.tls.is_some() && !peer.out.is_empty() {
            return self.flush(number);
        }
        Ok(())
    }

    /// Sends bytes; what does not fit now follows when there is room.
    pub fn send(&mut self, number: u32, bytes: &[u8]) -> Result<()> {
        let Some(peer) = self.peers[number as usize].as_mut() else { return Ok(()) };
        match &mut peer.tls {
            Some(session) => session.write(bytes, &mut peer.out)?,
            None => peer.out.extend_from_slice(bytes),
        }
        self.flush(number)
    }

    fn flush(&mut self, number: u32) -> Result<()> {
        let Some(peer) = self.peers[number as usize].as_mut() else { return Ok(()) };
        if peer.out.is_empty() && !peer.waits {
            return Ok(());
        }
        match peer.socket.write(&peer.out) {
            Ok(count) => drop(peer.out.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The receiving side finds out.
            Err(_) => peer.out.clear(),
        }
        let waits = !peer.out.is_empty();
        if waits != peer.waits {
            peer.waits = waits;
            let out = if waits { EventFlags::OUT } else { EventFlags::empty() };
            let data = EventData::new_u64(number.into());
            epoll::modify(&self.epoll, &peer.socket, data, EventFlags::IN | out)?;
        }
        Ok(())
    }
}

/// How a client connects.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `None`: the system chooses.
    pub source: Option<SocketAddr>,
    /// Bytes that the system may hold for it.
    pub receive_buffer: Option<usize>,
}

/// Where a client connects from; `None`: the system chooses.
fn source(place: u8, number: usize) -> Result<Option<SocketAddr>> {
    let block = u8::try_from(number / CLIENTS_PER_ADDRESS)?;
    let port = FIRST_PORT + (number % CLIENTS_PER_ADDRESS) as u16;
    let address = Ipv4Addr::new(127, 0, 1 + place, block);
    Ok((block > 0 || place > 0).then(|| SocketAddr::from((address, port))))
}

/// A masked text message as bytes.
pub fn text(payload: &[u8]) -> Vec<u8> {
    mask_frame(TEXT, [0x5a, 0x17, 0xc3, 0x99], payload)
}

/// The first complete message of `input` and the bytes that it takes.
fn cut(framing: Framing, input: &[u8]) -> Result<Option<(&[u8], usize)>> {
    let (header, len) = match framing {
        Framing::Upgrade => {
            let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Ok(None);
            };
            if !input.starts_with(b"HTTP/1.1 101") {
                let line = input.split(|byte| *byte == b'\r').next().unwrap_or_default();
                return Err(format!("refused: {}", String::from_utf8_lossy(line)).into());
            }
            (0, end + 4)
        }
        Framing::Http => match input.windows(4).position(|four| four == b"\r\n\r\n") {
            Some(end) => (end + 4, content_length(&input[..end])?),
            None => return Ok(None),
        },
        Framing::Netsvr | Framing::Team => match input.first_chunk() {
            Some(length) => (4, u32::from_be_bytes(*length) as usize),
            None => return Ok(None),
        },
        Framing::WebSocket => match *input {
            [_, len @ 0..126, ..] => (2, len as usize),
            [_, 126, a, b, ..] => (4, u16::from_be_bytes([a, b]) as usize),
            [_, 127, a, b, c, d, e, f, g, h, ..] => {
                (10, u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize)
            }
            _ => return Ok(None),
        },
    };
    Ok(input.get(header..header + len).map(|message| (message, header + len)))
}

/// The length of an answer's body; without the header it has none.
fn content_length(head: &[u8]) -> Result<usize> {
    let head = std::str::from_utf8(head)?;
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    Ok(length.map_or(Ok(0), |length| length.trim().parse())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_only_when_they_are_complete() {
        let frame = [0x81, 3, b'a', b'b', b'c', 0x81];
        for end in 0..5 {
            assert_eq!(cut(Framing::WebSocket, &frame[..end]).expect("no error"), None);
        }
        let first = cut(Framing::WebSocket, &frame).expect("no error");
        assert_eq!(first, Some((&frame[2..5], 5)));
        let frame = [0, 0, 0, 1, 7];
        assert_eq!(cut(Framing::Netsvr, &frame[..4]).expect("no error"), None);
        assert_eq!(cut(Framing::Netsvr, &frame).expect("no error"), Some((&frame[4..], 5)));
    }

    #[test]
    fn a_refusal_is_an_error() {
        assert!(cut(Framing::Upgrade, b"HTTP/1.1 404 Not Found\r\n\r\n").is_err());
    }
}
