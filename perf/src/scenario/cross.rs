//! Publisher and members on different shards, against both on the same one. The kernel decides
//! which shard takes a connection: clients tell by their uniqIds, backends by the thread that works
//! when they ask.

use std::time::{Duration, Instant};

use super::push::await_deliveries;
use super::{Figure, Load};
use crate::Result;
use crate::netsvr::{self, CheckOnlineReq, Cmd, ConnInfoUpdate, TopicPublish};
use crate::options::Options;
use crate::rig::{Rig, payload};
use crate::usage::{Usage, threads};

/// The shard of the members: the one that does not share the load's CPU.
const HOME: u8 = 0;
const TOPIC: &str = "members";
/// Backends that are tried until one is on each shard.
const BACKENDS_MAX: usize = 64;
/// Questions by which a backend's shard is found.
const QUESTIONS: usize = 50;

/// Rounds of a publish from the other shard and its arrival at every member.
pub struct Cross {
    members: usize,
    payload: usize,
    same: u32,
    other: u32,
    seconds: f64,
}

impl Cross {
    pub fn prepare(options: &Options, rig: &mut Rig) -> Result<Cross> {
        let wanted = options.size.members.unwrap_or(1000);
        let mut clients = rig.netsvr_clients(0, 0)?;
        let at_home = |uniq_id: &&String| netsvr::shard_of(uniq_id) == Some(HOME);
        while clients.uniq_ids.iter().filter(at_home).count() < wanted {
            let before = clients.ids.len();
            if before > wanted * 4 + 64 {
                return Err("the server has one shard only".into());
            }
            rig.more_clients(&mut clients, (wanted / 2).max(8))?;
        }
        let members: Vec<String> =
            clients.uniq_ids.iter().filter(at_home).take(wanted).cloned().collect();
        let task = rig.task()?;
        rig.update(task, &members, |_| ConnInfoUpdate {
            new_topics: vec![TOPIC.to_owned()],
            ..ConnInfoUpdate::default()
        })?;
        let (mut same, mut other) = (None, None);
        for _ in 0..BACKENDS_MAX {
            let backend = rig.task()?;
            match shard_of(rig, backend)? {
                HOME => same = same.or(Some(backend)),
                _ => other = other.or(Some(backend)),
            }
            if let (Some(same), Some(other)) = (same, other) {
                let payload = options.size.payload.unwrap_or(128);
                let seconds = options.seconds;
                return Ok(Cross { members: wanted, payload, same, other, seconds });
            }
        }
        Err("every backend came to the same shard".into())
    }

    fn publish(&self, rig: &mut Rig, from: u32) -> Result<()> {
        let data = payload(self.payload, rig.tally.now(), 0);
        let command = TopicPublish { topics: vec![TOPIC.to_owned()], data: data.into() };
        rig.net.send(from, &netsvr::frame(Cmd::TopicPublish, &command))?;
        await_deliveries(rig, self.members)
    }

    /// CPU time of both shards per delivery, microseconds.
    fn cost(&self, rig: &mut Rig, from: u32) -> Result<f64> {
        rig.tally.reset();
        let before = Usage::of(rig.server.pid)?;
        let until = Instant::now() + Duration::from_secs_f64(self.seconds / 2.0);
        while Instant::now() < until {
            self.publish(rig, from)?;
        }
        let used = Usage::of(rig.server.pid)?.since(&before).shards_ns;
        Ok(used as f64 / 1000.0 / rig.tally.messages.max(1) as f64)
    }
}

impl Load for Cross {
    fn step(&mut self, rig: &mut Rig) -> Result<()> {
        self.publish(rig, self.other)
    }

    /// Same and other shard once more, in turn, so that the ratio is of the same moment.
    fn finish(&mut self, rig: &mut Rig) -> Result<Vec<Figure>> {
        let mut costs = [0.0; 2];
        for _ in 0..2 {
            costs[0] += self.cost(rig, self.same)? / 2.0;
            costs[1] += self.cost(rig, self.other)? / 2.0;
        }
        Ok(vec![
            Figure::new("same_shard_us", costs[0]),
            Figure::new("cross_to_same_ratio", costs[1] / costs[0]),
        ])
    }
}

/// The shard whose thread works while a backend asks questions.
fn shard_of(rig: &mut Rig, backend: u32) -> Result<u8> {
    let before = threads(rig.server.pid)?;
    let ids = vec!["0".repeat(28); 500];
    let question = netsvr::frame(Cmd::CheckOnline, &CheckOnlineReq { uniq_ids: ids });
    for _ in 0..QUESTIONS {
        rig.net.send(backend, &question)?;
        rig.await_messages(backend, 1)?;
    }
    let mut busiest = (0, 0);
    for thread in threads(rig.server.pid)? {
        // `shard-0-1`: the executor adds a number of its own.
        let number = thread.name.strip_prefix("shard-").and_then(|name| name.split('-').next());
        let Some(Ok(shard)) = number.map(str::parse) else { continue };
        let then = before.iter().find(|earlier| earlier.id == thread.id);
        let used = thread.cpu_ns - then.map_or(0, |earlier| earlier.cpu_ns);
        busiest = busiest.max((used, shard));
    }
    Ok(busiest.1)
}
