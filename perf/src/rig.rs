//! What every scenario works with: the server, the sockets, the tally of one run.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

use crate::Result;
use crate::net::{self, Net};
use crate::netsvr::{self, Cmd, ConnInfoUpdate, ConnOpen6, RegisterReq};
use crate::options::Options;
use crate::server::Server;
use crate::team::{self, Note, Order, Team};
use crate::tls;

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
    /// Who holds a part of the clients.
    pub team: Team,
    /// Answers of helpers, besides counts.
    pub answers: usize,
}

/// What one run has counted.
pub struct Tally {
    pub messages: u64,
    /// Nanoseconds.
    pub latency: Histogram<u64>,
}

impl Tally {
    pub fn new() -> Tally {
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3);
        Tally { messages: 0, latency: latency.expect("the bounds are in order") }
    }

    /// Nanoseconds of the clock that all processes of the machine share.
    pub fn now(&self) -> u64 {
        let now = clock_gettime(ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
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
    pub fn new(server: Server, options: &Options) -> Result<Rig> {
        let mut net = Net::new()?;
        net.tls = server.trusted.as_deref().map(tls::trust).transpose()?;
        let team = Team::start(options, &server, &mut net)?;
        Ok(Rig { server, net, tally: Tally::new(), team, answers: 0 })
    }

    /// Connects echo clients. Gives those that are not with helpers.
    pub fn echo_clients(&mut self, count: usize) -> Result<Vec<u32>> {
        let path = self.server.echo_path.clone();
        let own = self.connect(count, &path, None)?;
        self.await_answers(self.team.helpers.len())?;
        Ok(own)
    }

    /// Connects clients, and lets the helpers connect their share; each answers when it has.
    fn connect(&mut self, count: usize, path: &str, first: Option<usize>) -> Result<Vec<u32>> {
        let shares = self.team.shares(count);
        let mut done = shares[0];
        for (&count, helper) in shares[1..].iter().zip(self.team.helpers.clone()) {
            let first = first.map(|first| first + done);
            let order = Order::Connect { count, path: path.to_owned(), first };
            team::tell(&mut self.net, helper, &order)?;
            done += count;
        }
        self.net.connect_clients(self.server.client, shares[0], |number| match first {
            Some(first) => format!("{path}{}", first + number),
            None => path.to_owned(),
        })
    }

    /// Tells all helpers the same.
    pub fn order(&mut self, order: &Order) -> Result<()> {
        let mut helpers = self.team.helpers.iter();
        helpers.try_for_each(|&helper| team::tell(&mut self.net, helper, order))
    }

    /// Takes in what helpers have said; returns how many messages they have counted, which are in
    /// the tally then.
    pub fn hear(&mut self) -> Result<u64> {
        let mut counted = 0;
        while let Some((_, note)) = self.net.notes.pop_front() {
            match serde_json::from_slice(&note)? {
                Note::Counted(count) => counted += count,
                Note::Connected => self.answers += 1,
                Note::Latencies(latencies) => {
                    self.answers += 1;
                    for (nanoseconds, count) in latencies {
                        self.tally.latency.saturating_record_n(nanoseconds, count);
                    }
                }
                Note::Failed(error) => return Err(format!("a helper: {error}").into()),
            }
        }
        self.tally.messages += counted;
        Ok(counted)
    }

    fn await_answers(&mut self, count: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.answers < count {
            if Instant::now() > deadline {
                return Err(format!("{} helpers do not answer", count - self.answers).into());
            }
            self.net.wait(Duration::from_millis(10))?;
            self.hear()?;
        }
        self.answers -= count;
        Ok(())
    }

    /// Forgets what was counted, here and by the helpers.
    pub fn reset(&mut self) -> Result<()> {
        self.hear()?;
        self.tally.reset();
        self.order(&Order::Reset)
    }

    /// Puts the latencies of the helpers beside the own.
    pub fn gather(&mut self) -> Result<()> {
        self.order(&Order::Report)?;
        self.await_answers(self.team.helpers.len())
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
        let first = clients.uniq_ids.len();
        clients.uniq_ids.resize(first + count, String::new());
        let (mut missing, mut parts) = (count, 0);
        // In parts, so that events never wait for this side.
        for start in (first..first + count).step_by(1000) {
            let part = 1000.min(first + count - start);
            clients.ids.extend(self.connect(part, "/netsvr?", Some(start))?);
            missing -= self.opened(clients, false)?;
            parts += 1;
        }
        let deadline = Instant::now() + PATIENCE;
        while missing > 0 {
            missing -= self.opened(clients, true)?;
            if Instant::now() > deadline {
                return Err(format!("{missing} ConnOpen events are missing").into());
            }
        }
        self.await_answers(parts * self.team.helpers.len())
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

    /// Waits for so many stamped messages, here and with the helpers, and counts them.
    pub fn await_deliveries(&mut self, count: usize) -> Result<()> {
        let mut missing = count;
        let deadline = Instant::now() + PATIENCE;
        while missing > 0 {
            if Instant::now() > deadline {
                let late = format!("{missing} of {count} did not arrive within {PATIENCE:?}");
                return Err(late.into());
            }
            for client in self.net.wait(Duration::from_millis(100))? {
                let now = self.tally.now();
                self.net.read(client, |data| {
                    if let Some((sent, _)) = stamp(data) {
                        self.tally.count(sent, now);
                        missing = missing.saturating_sub(1);
                    }
                })?;
            }
            missing = missing.saturating_sub(self.hear()? as usize);
        }
        Ok(())
    }

    /// Sets user, session and topics of clients, and waits until all is done: each client is told.
    pub fn update(
        &mut self,
        backend: u32,
        uniq_ids: &[String],
        mut update: impl FnMut(usize) -> ConnInfoUpdate,
    ) -> Result<()> {
        for first in (0..uniq_ids.len()).step_by(UPDATE_BATCH) {
            let last = (first + UPDATE_BATCH).min(uniq_ids.len());
            let mut out = Vec::new();
            let done = bytes::Bytes::from(payload(STAMP, self.tally.now(), 0));
            for (number, uniq_id) in uniq_ids.iter().enumerate().take(last).skip(first) {
                let (uniq_id, data) = (uniq_id.clone(), done.clone());
                let message = ConnInfoUpdate { uniq_id, data, ..update(number) };
                netsvr::put(&mut out, Cmd::ConnInfoUpdate, &message);
            }
            self.net.send(backend, &out)?;
            self.await_deliveries(last - first)?;
        }
        Ok(())
    }
}

/// netsvr clients and the worker that knows them.
pub struct Clients {
    pub worker: u32,
    /// Connections, without those of helpers.
    pub ids: Vec<u32>,
    /// Of all, by number.
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
