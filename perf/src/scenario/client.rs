//! Scenarios without a backend: `idle`, `echo`, `churn`.

use std::time::Duration;

use super::{Figure, Load};
use crate::Result;
use crate::net::Options;
use crate::netsvr::ConnInfoUpdate;
use crate::options::Size;
use crate::rig::{Rig, message, stamp};
use crate::team::Order;
use crate::usage::resident;

/// Connections that do nothing. Bound to a user and a topic each, unless `--bare`.
pub struct Idle {
    figures: Vec<Figure>,
    empty: u64,
    clients: Vec<u32>,
    rest: Duration,
}

impl Idle {
    pub fn prepare(size: &Size, rig: &mut Rig) -> Result<Idle> {
        let last = size.clients.unwrap_or(19_000);
        let first = size.first.unwrap_or(0).min(last.saturating_sub(1));
        let rest = Duration::from_secs_f64(size.rest.unwrap_or(10.0));
        let empty = settled(rig, rest)?;
        let bare = size.bare || rig.server.worker.is_none();
        let (sizes, clients) = if bare {
            let mut clients = rig.echo_clients(first)?;
            let early = settled(rig, rest)?;
            clients.extend(rig.echo_clients(last - first)?);
            ([early, settled(rig, rest)?], clients)
        } else {
            Idle::known_clients(size, rig, [first, last], rest)?
        };
        let slope = sizes[1].saturating_sub(sizes[0]) as f64 / (last - first) as f64;
        let whole = sizes[1].saturating_sub(empty) as f64 / last as f64;
        let figures = vec![
            Figure::new("rss_slope_bytes", slope),
            Figure::new("rss_whole_bytes", whole),
            Figure::new("rss_empty_mib", mib(empty)),
        ];
        Ok(Idle { figures, empty, clients, rest })
    }

    fn known_clients(
        size: &Size,
        rig: &mut Rig,
        totals: [usize; 2],
        rest: Duration,
    ) -> Result<([u64; 2], Vec<u32>)> {
        let mut clients = rig.netsvr_clients(0, 0)?;
        let task = rig.task()?;
        let session = "s".repeat(size.session.unwrap_or(0));
        let topics = |client: usize| match size.topics {
            None => vec![format!("topic-{}", client % 100)],
            Some(count) => (0..count).map(|topic| format!("topic-{client}-{topic}")).collect(),
        };
        let mut known = 0;
        let mut sizes = [0; 2];
        for (size, total) in sizes.iter_mut().zip(totals) {
            rig.more_clients(&mut clients, total - known)?;
            let ids = clients.uniq_ids.split_off(known);
            rig.update(task, &ids, |number| ConnInfoUpdate {
                new_customer_id: format!("user-{}", known + number),
                new_topics: topics(known + number),
                new_session: session.clone(),
                ..ConnInfoUpdate::default()
            })?;
            clients.uniq_ids.extend(ids);
            known = total;
            *size = settled(rig, rest)?;
        }
        Ok((sizes, clients.ids))
    }
}

/// Resident memory after everything has come to rest: a fifth of the time after which a peak is to
/// be forgotten.
fn settled(rig: &mut Rig, rest: Duration) -> Result<u64> {
    std::thread::sleep(rest / 5);
    Ok(resident(rig.server.pid)?)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

impl Load for Idle {
    fn step(&mut self, rig: &mut Rig) -> Result<()> {
        rig.net.wait(Duration::from_millis(50)).map(drop)
    }

    /// The clients go, unless helpers have a part of them.
    fn finish(&mut self, rig: &mut Rig) -> Result<Vec<Figure>> {
        let mut figures = std::mem::take(&mut self.figures);
        if rig.team.helpers.is_empty() {
            self.clients.drain(..).for_each(|client| rig.net.close(client));
            std::thread::sleep(self.rest);
            let left = mib(resident(rig.server.pid)?) - mib(self.empty);
            figures.push(Figure::new("rss_left_mib", left));
        }
        Ok(figures)
    }
}

/// Every client sends a message, and the next one when it is back; or, with a rate, one client
/// after the other at fixed times, whether answers are there or not. Then latency counts from the
/// time at which the message was to be sent.
pub struct Echo {
    clients: Vec<u32>,
    payload: usize,
    /// Nanoseconds between two messages.
    interval: Option<u64>,
    due: u64,
    turn: usize,
}

impl Echo {
    pub fn prepare(size: &Size, rig: &mut Rig) -> Result<Echo> {
        let count = size.clients.unwrap_or(1000);
        let clients = rig.echo_clients(count)?;
        let rate = size.rate.map(|rate| rate / (rig.team.helpers.len() + 1) as f64);
        let payload = size.payload.unwrap_or(64);
        rig.order(&Order::Converse { payload, rate })?;
        Echo::over(clients, &Size { rate, ..size.clone() }, rig)
    }

    /// The same with clients that are connected.
    pub fn over(clients: Vec<u32>, size: &Size, rig: &mut Rig) -> Result<Echo> {
        let payload = size.payload.unwrap_or(64);
        let interval = size.rate.map(|rate| (1e9 / rate) as u64);
        let due = rig.tally.now();
        if interval.is_none() {
            for &client in &clients {
                let now = rig.tally.now();
                rig.net.send(client, &message(payload, now, 0))?;
            }
        }
        Ok(Echo { clients, payload, interval, due, turn: 0 })
    }

    /// Sends what is due; gives the time until the next is.
    fn send_due(&mut self, rig: &mut Rig, interval: u64) -> Result<Duration> {
        while self.due <= rig.tally.now() {
            let client = self.clients[self.turn % self.clients.len()];
            rig.net.send(client, &message(self.payload, self.due, 0))?;
            self.turn += 1;
            self.due += interval;
        }
        Ok(Duration::from_nanos(self.due.saturating_sub(rig.tally.now())))
    }
}

impl Load for Echo {
    fn step(&mut self, rig: &mut Rig) -> Result<()> {
        let patience = match self.interval {
            Some(interval) => self.send_due(rig, interval)?,
            None => Duration::from_secs(5),
        };
        let ready = rig.net.wait(patience)?;
        let silent = ready.is_empty() && rig.net.notes.is_empty() && !self.clients.is_empty();
        if silent && self.interval.is_none() {
            return Err("no echo within 5 s".into());
        }
        for client in ready {
            let now = rig.tally.now();
            let mut count = 0;
            rig.net.read(client, |payload| {
                if let Some((sent, _)) = stamp(payload) {
                    rig.tally.count(sent, now);
                    count += 1;
                }
            })?;
            if self.interval.is_none() {
                for _ in 0..count {
                    rig.net.send(client, &message(self.payload, now, 0))?;
                }
            }
        }
        rig.net.closed.is_empty().then_some(()).ok_or_else(|| "the server closed a client".into())
    }
}

/// Connections that are opened, upgraded and closed; `--window` at a time.
pub struct Churn {
    pub path: String,
    pub window: usize,
}

impl Churn {
    pub fn prepare(size: &Size, rig: &mut Rig) -> Result<Churn> {
        let netsvr = size.netsvr && rig.server.worker.is_some();
        let path = if netsvr { "/netsvr".to_owned() } else { rig.server.echo_path.clone() };
        rig.echo_clients(size.clients.unwrap_or(0))?;
        let window = size.window.unwrap_or(64);
        rig.order(&Order::Churn { path: path.clone(), window })?;
        Ok(Churn { path, window })
    }
}

impl Load for Churn {
    fn step(&mut self, rig: &mut Rig) -> Result<()> {
        let began = rig.tally.now();
        let mut clients = Vec::with_capacity(self.window);
        for _ in 0..self.window {
            let options = Options { source: Some(rig.net.next_source()), receive_buffer: None };
            clients.push(rig.net.connect(rig.server.client, options, &self.path)?);
        }
        rig.net.await_upgrades(&clients)?;
        let now = rig.tally.now();
        for client in clients {
            rig.net.close(client);
            rig.tally.count(began, now);
        }
        Ok(())
    }
}
