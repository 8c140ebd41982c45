//! What every scenario works with: the server, the sockets, the tally of one run.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Result;
use crate::net::{self, Net};
use crate::netsvr::{self, Cmd, ConnInfoUpdate, ConnOpen6, RegisterReq};
use crate::server::Server;

/// How long a message may take before a run is given up.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes at the start of each payload: time (16 hex digits) and sender (8).
pub const STAMP: usize = 24;
/// After the registration of a worker.
const REGISTERED: Duration = Duration::from_millis(100);
/// Clients that are told something before their answers are awaited.
const UPDATE_BATCH: usize = 512;

/// One server under load.
pub struct Rig {
    pub server: Server,
    pub net: Net,
    pub tally: Tally,
}

/// What one run has counted.
pub struct Tally {
    pub messages: u64,
    /// Nanoseconds.
    pub latency: Histogram<u64>,
    start: Instant,
}

impl Tally {
    pub fn new() -> Tally {
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3);
        Tally {
            messages: 0,
            latency: latency.expect("the bounds are in order"),
            start: Instant::now(),
        }
    }

    /// Nanoseconds since the start of the process's run.
    pub fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Counts a message that was to be sent at `sent` and is here at `now`.
    pub fn count(&mut self, sent: u64, now: u64) {
        self.messages += 1;
        self.latency.saturating_record(now.saturating_sub(sent).max(1));
    }

    /// Forgets what was counted, not the time.
    pub fn reset(&mut self) {
        self.messages = 0;
        self.latency.reset();
    }
}

impl Rig {
    pub fn new(server: Server) -> Result<Rig> {
        Ok(Rig { server, net: Net::new()?, tally: Tally::new() })
    }

    /// Connects echo clients.
    pub fn echo_clients(&mut self, count: usize) -> Result<Vec<u32>> {
        let path = self.server.echo_path.clone();
        self.net.connect_clients(self.server.client, count, |_| path.clone())
    }

    /// Registers a worker and connects netsvr clients. Gives the worker's connection, and the
    /// clients with their uniqIds.
    pub fn netsvr_clients(&mut self, events: i32, count: usize) -> Result<Clients> {
        let worker = self.register(events | netsvr::ON_OPEN)?;
        let mut clients = Clients { worker, ids: Vec::new(), uniq_ids: Vec::new() };
        self.more_clients(&mut clients, count)?;
        Ok(clients)
    }

    /// Connects more of them.
    pub fn more_clients(&mut self, clients: &mut Clients, count: usize) -> Result<()> {
        let first = clients.ids.len();
        clients.uniq_ids.resize(first + count, String::new());
        let mut missing = count;
        // In parts, so that events never wait for this side.
        for start in (first..first + count).step_by(1000) {
            let part = 1000.min(first + count - start);
            let path = |number| format!("/netsvr?{}", start + number);
            clients.ids.extend(self.net.connect_clients(self.server.client, part, path)?);
            missing -= self.opened(clients, false)?;
        }
        let deadline = Instant::now() + PATIENCE;
        while missing > 0 {
            missing -= self.opened(clients, true)?;
            if Instant::now() > deadline {
                return Err(format!("{missing} ConnOpen events are missing").into());
            }
        }
        Ok(())
    }

    /// Takes ConnOpen events; returns how many there were.
    fn opened(&mut self, clients: &mut Clients, wait: bool) -> Result<usize> {
        let patience = if wait { Duration::from_millis(100) } else { Duration::ZERO };
        let ready = self.net.wait(patience)?;
        let mut opened = 0;
        let mut wrong = None;
        for peer in ready {
            self.net.read(peer, |message| {
                if peer != clients.worker {
                    return;
                }
                match conn_open(message) {
                    Ok((number, uniq_id)) => {
                        opened += 1;
                        clients.uniq_ids[number] = uniq_id;
                    }
                    Err(error) => wrong = Some(error),
                }
            })?;
        }
        wrong.map_or(Ok(opened), Err)
    }

    fn register(&mut self, events: i32) -> Result<u32> {
        let worker = self.net.connect_backend(self.server.worker()?)?;
        let request = RegisterReq { events, ..RegisterReq::default() };
        self.net.send(worker, &netsvr::frame(Cmd::Register, &request))?;
        self.await_messages(worker, 1)?;
        // The gateway holds events back for a moment after it, and shards hear of it one by one.
        std::thread::sleep(REGISTERED);
        Ok(worker)
    }

    /// Connects to the task listener.
    pub fn task(&mut self) -> Result<u32> {
        let address = self.server.task.ok_or("this scenario needs a gateway, not --addr")?;
        self.net.connect_backend(address)
    }

    /// Waits for so many messages on one connection; others are read and forgotten.
    pub fn await_messages(&mut self, from: u32, count: usize) -> Result<()> {
        let mut missing = count;
        self.until(|rig, peer| {
            rig.net.read(peer, |_| {
                if peer == from {
                    missing = missing.saturating_sub(1);
                }
            })?;
            Ok(missing == 0)
        })
    }

    /// Hands connections that have input to `step`, until it says that it is over.
    pub fn until(&mut self, mut step: impl FnMut(&mut Rig, u32) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut over = false;
            for peer in self.net.wait(Duration::from_millis(100))? {
                over |= step(self, peer)?;
            }
            if over {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("what was sent did not arrive within 20 s".into());
            }
        }
    }

    /// Sets user, session and topics of clients, and waits until all is done.
    pub fn update(
        &mut self,
        backend: u32,
        uniq_ids: &[String],
        mut update: impl FnMut(usize) -> ConnInfoUpdate,
    ) -> Result<()> {
        for first in (0..uniq_ids.len()).step_by(UPDATE_BATCH) {
            let last = (first + UPDATE_BATCH).min(uniq_ids.len());
            let mut out = Vec::new();
            for (number, uniq_id) in uniq_ids.iter().enumerate().take(last).skip(first) {
                let (uniq_id, data) = (uniq_id.clone(), bytes::Bytes::from_static(b"updated"));
                let message = ConnInfoUpdate { uniq_id, data, ..update(number) };
                netsvr::put(&mut out, Cmd::ConnInfoUpdate, &message);
            }
            self.net.send(backend, &out)?;
            let mut missing = last - first;
            self.until(|rig, peer| {
                rig.net.read(peer, |_| missing = missing.saturating_sub(1))?;
                Ok(missing == 0)
            })?;
        }
        Ok(())
    }
}

/// netsvr clients and the worker that knows them.
pub struct Clients {
    pub worker: u32,
    pub ids: Vec<u32>,
    pub uniq_ids: Vec<String>,
}

fn conn_open(message: &[u8]) -> Result<(usize, String)> {
    let (cmd, body) = netsvr::split(message)?;
    if cmd != Cmd::ConnOpen {
        return Err(format!("{cmd:?} instead of ConnOpen").into());
    }
    let open = <ConnOpen6 as prost::Message>::decode(body)?;
    Ok((open.raw_query.parse()?, open.uniq_id))
}

/// A payload that says when it was to be sent, and by whom.
pub fn payload(len: usize, sent: u64, sender: usize) -> Vec<u8> {
    let mut payload = format!("{sent:016x}{sender:08x}").into_bytes();
    payload.resize(len.max(STAMP), b'.');
    payload
}

/// Time and sender of a payload.
pub fn stamp(payload: &[u8]) -> Option<(u64, usize)> {
    let text = std::str::from_utf8(payload.get(..STAMP)?).ok()?;
    let sent = u64::from_str_radix(&text[..16], 16).ok()?;
    Some((sent, usize::from_str_radix(&text[16..], 16).ok()?))
}

/// The same as a masked frame.
pub fn message(len: usize, sent: u64, sender: usize) -> Vec<u8> {
    net::text(&payload(len, sent, sender))
}
