//! `xxim-flood`: what a flood of wrong RSA ciphertexts costs those who have nothing to do with it
//! (xxim section 9.2).
//!
//! Clients that are logged in send requests at fixed times, which the gateway answers itself; now
//! and then another one connects and sets keys. Calm and flood alternate within one run, so that
//! whatever else the machine does meets both. The flood comes from addresses of its own, as much as
//! the protocol lets a connection: behind its handshake it sends three set-params at once, two with
//! one ciphertext, which is decrypted and changes nothing, and one with both. It is given up for a
//! new one when too many are open. The thread that makes it has the lowest priority, or the load
//! would wait for itself.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use prost::Message;
use ringway::protocols::xxim::wire::proto as pb;
use ringway::wire::websocket::mask_frame;
use socket2::{Domain, Socket, Type};

use super::xxim::{log_in, request, set_params};
use super::{Figure, Load};
use crate::Result;
use crate::net::Options as Connection;
use crate::options::Options;
use crate::rig::{Rig, payload, stamp};

const BINARY: u8 = 0x82;
const MASK: [u8; 4] = [0x5a, 0x17, 0xc3, 0x99];
/// Bytes of a reqId.
const REQ_ID: usize = 32;
/// Between two clients that set keys.
const KEYS_INTERVAL: Duration = Duration::from_millis(50);
/// Where the flood comes from.
const SOURCES: u32 = 8;
/// Whether there is an IV beside the key, in each set-params with keys that the gateway takes of
/// one connection.
const KEYED: [bool; 3] = [false, false, true];
/// Ciphertexts of one connection.
const CIPHERTEXTS: u32 = 4;
/// Connections of the flood that are open.
const OPEN_MAX: usize = 2000;
/// Bytes of a ciphertext.
const CIPHERTEXT: usize = 256;
/// The lowest priority.
const NICE: i32 = 19;

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Calm,
    Flood,
    /// What is left of the flood passes; nothing is counted.
    Rest,
}

/// What was measured in one phase.
struct Measured {
    /// Nanoseconds.
    requests: Histogram<u64>,
    keys: Histogram<u64>,
}

/// See the module.
pub struct Flood {
    clients: Vec<u32>,
    /// Nanoseconds between two requests.
    interval: u64,
    due: u64,
    turn: usize,
    phase: Phase,
    since: Instant,
    period: Duration,
    measured: [Measured; 2],
    /// Who sets keys, since when, and in which phase.
    keyed: HashMap<u32, (u64, Phase)>,
    keyed_at: Instant,
    flooded: Duration,
    flood: Attack,
}

impl Flood {
    pub fn prepare(options: &Options, rig: &mut Rig) -> Result<Flood> {
        let size = &options.size;
        let server = rig.server.client;
        let count = size.clients.unwrap_or(100);
        let clients = rig.net.connect_clients(server, count, |_| "/ws".to_owned())?;
        for (number, &client) in clients.iter().enumerate() {
            log_in(rig, client, number, None)?;
        }
        let measured = || Measured { requests: histogram(), keys: histogram() };
        Ok(Flood {
            clients,
            interval: (1e9 / size.rate.unwrap_or(2000.0)) as u64,
            due: rig.tally.now(),
            turn: 0,
            phase: Phase::Calm,
            since: Instant::now(),
            // Each phase twice in a measurement.
            period: Duration::from_secs_f64((options.seconds / 6.0).clamp(0.02, 5.0)),
            measured: [measured(), measured()],
            keyed: HashMap::new(),
            keyed_at: Instant::now(),
            flooded: Duration::ZERO,
            flood: Attack::prepare(server, size.flood.unwrap_or(10_000.0))?,
        })
    }

    fn change_phase(&mut self, rig: &mut Rig) {
        let lasted = self.since.elapsed();
        if lasted < self.period {
            return;
        }
        self.phase = match self.phase {
            Phase::Calm => Phase::Flood,
            Phase::Flood => {
                self.flooded += lasted;
                Phase::Rest
            }
            Phase::Rest => Phase::Calm,
        };
        self.flood.on.store(self.phase == Phase::Flood, Ordering::Relaxed);
        self.since = Instant::now();
        // What is due while nobody looked is not late.
        self.due = self.due.max(rig.tally.now());
    }

    fn send(&mut self, rig: &mut Rig) -> Result<()> {
        while self.due <= rig.tally.now() {
            let client = self.clients[self.turn % self.clients.len()];
            self.turn += 1;
            let req_id = payload(REQ_ID, self.due, self.phase as usize);
            let body = pb::RequestBody {
                req_id: String::from_utf8(req_id)?,
                method: "/v1/conn/keepAlive".to_owned(),
                data: bytes::Bytes::new(),
            };
            rig.net.send(client, &mask_frame(BINARY, MASK, &body.encode_to_vec()))?;
            self.due += self.interval;
        }
        if self.keyed_at.elapsed() > KEYS_INTERVAL && self.phase != Phase::Rest {
            self.keyed_at = Instant::now();
            let options = Connection { source: None, receive_buffer: None };
            let peer = rig.net.connect(rig.server.client, options, "/ws")?;
            let params = set_params(peer as usize, true)?;
            let now = rig.tally.now();
            rig.net.send(peer, &mask_frame(BINARY, MASK, &params))?;
            self.keyed.insert(peer, (now, self.phase));
        }
        Ok(())
    }

    fn measured(&mut self, phase: usize) -> Option<&mut Measured> {
        self.measured.get_mut(phase)
    }

    /// What came for one connection.
    fn read(&mut self, rig: &mut Rig, peer: u32) -> Result<()> {
        let now = rig.tally.now();
        let mut stamps = Vec::new();
        let mut has_keys = false;
        rig.net.read(peer, |message| {
            // Behind the greeting there is nothing but the response, encrypted.
            has_keys |= message.len().is_multiple_of(16);
            stamps.extend(stamp_of(message));
        })?;
        if let Some((sent, phase)) = self.keyed.get(&peer).copied() {
            if has_keys {
                self.keyed.remove(&peer);
                rig.net.close(peer);
                if let Some(measured) = self.measured(phase as usize) {
                    measured.keys.saturating_record(now.saturating_sub(sent).max(1));
                }
            }
            return Ok(());
        }
        for (sent, phase) in stamps {
            if let Some(measured) = self.measured(phase) {
                measured.requests.saturating_record(now.saturating_sub(sent).max(1));
                rig.tally.count(sent, now);
            }
        }
        Ok(())
    }
}

impl Load for Flood {
    fn step(&mut self, rig: &mut Rig) -> Result<()> {
        self.change_phase(rig);
        self.send(rig)?;
        let until_due = self.due.saturating_sub(rig.tally.now());
        for peer in rig.net.wait(Duration::from_nanos(until_due))? {
            self.read(rig, peer)?;
        }
        let keyed = &mut self.keyed;
        let lost = rig.net.closed.drain(..).find(|peer| keyed.remove(peer).is_none());
        match lost {
            None => Ok(()),
            Some(_) => Err("the server closed a client".into()),
        }
    }

    fn finish(&mut self, rig: &mut Rig) -> Result<Vec<Figure>> {
        self.flood.on.store(false, Ordering::Relaxed);
        let now = rig.tally.now();
        for (_, (sent, phase)) in self.keyed.drain() {
            // They have waited so long at the least.
            if let Some(measured) = self.measured.get_mut(phase as usize) {
                measured.keys.saturating_record(now.saturating_sub(sent).max(1));
            }
        }
        let [calm, flood] = &self.measured;
        let us = |one: &Histogram<u64>, share| one.value_at_quantile(share) as f64 / 1000.0;
        let ratio = |share| us(&flood.requests, share) / us(&calm.requests, share).max(0.001);
        let seconds = self.flooded.as_secs_f64().max(0.001);
        Ok(vec![
            Figure::new("calm_p50_us", us(&calm.requests, 0.5)),
            Figure::new("calm_p99_us", us(&calm.requests, 0.99)),
            Figure::new("flood_p50_us", us(&flood.requests, 0.5)),
            Figure::new("flood_p99_us", us(&flood.requests, 0.99)),
            Figure::new("flood_p50_ratio", ratio(0.5)),
            Figure::new("flood_p99_ratio", ratio(0.99)),
            Figure::new("flood_per_s", self.flood.sent.load(Ordering::Relaxed) as f64 / seconds),
            Figure::new("calm_keys_p50_ms", us(&calm.keys, 0.5) / 1000.0),
            Figure::new("flood_keys_p50_ms", us(&flood.keys, 0.5) / 1000.0),
            Figure::new("flood_keys_max_ms", us(&flood.keys, 1.0) / 1000.0),
        ])
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

/// When a request was to be sent, and in which phase.
fn stamp_of(message: &[u8]) -> Option<(u64, usize)> {
    let response = pb::PushBody::decode(message).ok().filter(|push| push.event == 2)?;
    let body = pb::ResponseBody::decode(response.data).ok()?;
    stamp(body.req_id.as_bytes())
}

/// The thread that floods.
struct Attack {
    on: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    /// Ciphertexts that were sent.
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Attack {
    fn prepare(server: SocketAddr, per_second: f64) -> Result<Attack> {
        let [on, over] = [false, false].map(|is| Arc::new(AtomicBool::new(is)));
        let sent = Arc::new(AtomicU64::new(0));
        let opening = opening();
        let pause = Duration::from_secs_f64(f64::from(CIPHERTEXTS) / per_second.max(1.0));
        let (told, ends, count) = (on.clone(), over.clone(), sent.clone());
        let thread = std::thread::Builder::new().name("flood".to_owned()).spawn(move || {
            // Refused: the flood disturbs the measurement, and nothing else.
            let _ = rustix::process::setpriority_process(None, NICE);
            let (mut open, mut due, mut number) = (VecDeque::new(), Instant::now(), 0);
            while !ends.load(Ordering::Relaxed) {
                if !told.load(Ordering::Relaxed) {
                    open.clear();
                    std::thread::sleep(Duration::from_millis(1));
                    due = Instant::now();
                    continue;
                }
                let early = due.saturating_duration_since(Instant::now());
                if !early.is_zero() {
                    std::thread::sleep(early);
                }
                due += pause;
                number += 1;
                // A gateway that takes no connection is not asked for the next one.
                if let Ok(stream) = connect(server, number, &opening) {
                    count.fetch_add(u64::from(CIPHERTEXTS), Ordering::Relaxed);
                    open.push_back(stream);
                }
                if open.len() > OPEN_MAX {
                    open.pop_front();
                }
            }
        })?;
        Ok(Attack { on, over, sent, thread: Some(thread) })
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What each connection of the flood sends: its handshake, and as many wrong ciphertexts as it may.
fn opening() -> Vec<u8> {
    let mut out = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n"
        .to_vec();
    let wrong = || {
        let mut ciphertext: Vec<u8> = (0..CIPHERTEXT).map(|_| fastrand::u8(..)).collect();
        // Below any modulus of this length, or it would cost nothing.
        ciphertext[0] = 0;
        bytes::Bytes::from(ciphertext)
    };
    for both in KEYED {
        let params = pb::SetCxnParamsReq {
            package_id: "flood".to_owned(),
            platform: "web".to_owned(),
            aes_key: wrong(),
            aes_iv: if both { wrong() } else { bytes::Bytes::new() },
            ..Default::default()
        };
        let request = request("/v1/conn/white/setCxnParams", &params);
        out.extend(mask_frame(BINARY, MASK, &request));
    }
    out
}

fn connect(server: SocketAddr, number: u32, opening: &[u8]) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let source = Ipv4Addr::new(127, 9, 0, (number % SOURCES) as u8 + 1);
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    // No port stays taken by who has left.
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect_timeout(&server.into(), Duration::from_secs(1))?;
    let mut stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(opening)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_of_the_flood_sends_what_it_may() {
        let bytes = opening();
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        assert!(bytes.len() - head > CIPHERTEXTS as usize * CIPHERTEXT);
        assert_eq!(bytes[head], BINARY);
    }
}
