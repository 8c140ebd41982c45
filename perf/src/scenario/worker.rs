//! Scenarios in which clients send to a worker: `transfer`, `roundtrip`, `groupchat`.

use std::time::Duration;

use prost::Message;

use super::{Figure, Load};
use crate::Result;
use crate::netsvr::{self, Cmd, ConnInfoUpdate, ON_MESSAGE, SingleCast, TopicPublish, Transfer};
use crate::options::Size;
use crate::rig::{Rig, message, stamp};
use crate::team::Order;

/// Every client has one message under way: to the worker (`transfer`), or to the worker and back
/// (`roundtrip`). With a rate, one client after the other at fixed times.
pub struct Transfers {
    clients: Vec<u32>,
    worker: u32,
    payload: usize,
    answered: bool,
    interval: Option<u64>,
    due: u64,
    turn: usize,
}

impl Transfers {
    pub fn prepare(size: &Size, rig: &mut Rig, answered: bool) -> Result<Transfers> {
        let count = size.clients.unwrap_or(1000);
        let clients = rig.netsvr_clients(ON_MESSAGE, count)?;
        let session = "s".repeat(size.session.unwrap_or(0));
        if !session.is_empty() {
            let task = rig.task()?;
            rig.update(task, &clients.uniq_ids, |_| ConnInfoUpdate {
                new_session: session.clone(),
                ..ConnInfoUpdate::default()
            })?;
        }
        let rate = size.rate.map(|rate| rate / (rig.team.helpers.len() + 1) as f64);
        let payload = size.payload.unwrap_or(64);
        rig.order(&Order::Converse { payload, rate })?;
        let transfers = Transfers {
            clients: clients.ids,
            worker: clients.worker,
            payload,
            answered,
            interval: rate.map(|rate| (1e9 / rate) as u64),
            due: rig.tally.now(),
            turn: 0,
        };
        if transfers.interval.is_none() {
            let own = 0..transfers.clients.len();
            own.into_iter().try_for_each(|number| transfers.send(rig, number, rig.tally.now()))?;
        }
        Ok(transfers)
    }

    fn send(&self, rig: &mut Rig, number: usize, time: u64) -> Result<()> {
        rig.net.send(self.clients[number], &message(self.payload, time, number))
    }

    fn patience(&mut self, rig: &mut Rig) -> Result<Duration> {
        let Some(interval) = self.interval else { return Ok(Duration::from_secs(5)) };
        while self.due <= rig.tally.now() {
            self.send(rig, self.turn % self.clients.len(), self.due)?;
            self.turn += 1;
            self.due += interval;
        }
        Ok(Duration::from_nanos(self.due.saturating_sub(rig.tally.now())))
    }
}

impl Load for Transfers {
    fn step(&mut self, rig: &mut Rig) -> Result<()> {
        let patience = self.patience(rig)?;
        let ready = rig.net.wait(patience)?;
        if ready.is_empty() && rig.net.notes.is_empty() && self.interval.is_none() {
            return Err("no message within 5 s".into());
        }
        for peer in ready {
            let now = rig.tally.now();
            let mut over = Vec::new();
            let mut answers = Vec::new();
            rig.net.read(peer, |data| {
                let ended = if peer != self.worker {
                    stamp(data)
                } else {
                    let Some(transfer) = transfer(data) else { return };
                    let ended = stamp(&transfer.data).filter(|_| !self.answered);
                    if self.answered {
                        let (uniq_id, data) = (transfer.uniq_id, transfer.data);
                        netsvr::put(&mut answers, Cmd::SingleCast, &SingleCast { uniq_id, data });
                    }
                    ended
                };
                if let Some((sent, number)) = ended {
                    rig.tally.count(sent, now);
                    over.push(number);
                }
            })?;
            if !answers.is_empty() {
                rig.net.send(self.worker, &answers)?;
            }
            if self.interval.is_none() {
                over.into_iter().try_for_each(|number| self.send(rig, number, now))?;
            }
        }
        Ok(())
    }
}

fn transfer(message: &[u8]) -> Option<Transfer> {
    let (cmd, body) = netsvr::split(message).ok()?;
    (cmd == Cmd::Transfer).then(|| Transfer::decode(body).ok()).flatten()
}

/// The published netsvr test: 40 groups of 2,500 times `--scale`, sessions of 2 KiB, texts of 100
/// bytes. A member's message goes to the worker, which publishes it to the member's group. One
/// message per group is under way, or `--window` in all.
pub struct Groups {
    clients: Vec<u32>,
    worker: u32,
    members: usize,
    payload: usize,
    /// Deliveries that are missing, by group; a group with none gets its next message.
    missing: Vec<usize>,
    /// Groups that take part.
    groups: usize,
}

const GROUPS: usize = 40;
const GROUP_MEMBERS: f64 = 2500.0;

impl Groups {
    pub fn prepare(size: &Size, rig: &mut Rig) -> Result<Groups> {
        let scale = size.scale.unwrap_or(0.19);
        let members = ((GROUP_MEMBERS * scale) as usize).max(1);
        let clients = rig.netsvr_clients(ON_MESSAGE, members * GROUPS)?;
        let session = "s".repeat(size.session.unwrap_or(2048));
        let task = rig.task()?;
        rig.update(task, &clients.uniq_ids, |number| ConnInfoUpdate {
            new_session: session.clone(),
            new_customer_id: format!("user-{number}"),
            new_topics: vec![format!("group-{}", number / members)],
            ..ConnInfoUpdate::default()
        })?;
        Ok(Groups {
            clients: clients.ids,
            worker: clients.worker,
            members,
            payload: size.payload.unwrap_or(100),
            missing: vec![0; GROUPS],
            groups: size.window.unwrap_or(GROUPS).clamp(1, GROUPS),
        })
    }
}

impl Load for Groups {
    fn step(&mut self, rig: &mut Rig) -> Result<()> {
        for group in 0..self.groups {
            if self.missing[group] == 0 {
                let number = group * self.members + fastrand::usize(..self.members);
                self.missing[group] = self.members;
                let now = rig.tally.now();
                rig.net.send(self.clients[number], &message(self.payload, now, number))?;
            }
        }
        let ready = rig.net.wait(Duration::from_secs(5))?;
        if ready.is_empty() {
            return Err("no message within 5 s".into());
        }
        for peer in ready {
            let now = rig.tally.now();
            let mut publishes = Vec::new();
            rig.net.read(peer, |data| {
                if peer == self.worker {
                    let Some(transfer) = transfer(data) else { return };
                    let (topics, data) = (transfer.topics, transfer.data);
                    netsvr::put(&mut publishes, Cmd::TopicPublish, &TopicPublish { topics, data });
                } else if let Some((sent, number)) = stamp(data) {
                    rig.tally.count(sent, now);
                    let missing = &mut self.missing[number / self.members];
                    *missing = missing.saturating_sub(1);
                }
            })?;
            if !publishes.is_empty() {
                rig.net.send(self.worker, &publishes)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, _rig: &mut Rig) -> Result<Vec<Figure>> {
        Ok(vec![Figure::new("group_members", self.members as f64)])
    }
}
