//! Scenarios in which a backend sends to clients: `broadcast`, `slow`, `topics`, `unicast`.

use super::{Figure, Load};
use crate::Result;
use crate::net::Options;
use crate::netsvr::{self, Broadcast as ToAll, Cmd, ConnInfoUpdate, SingleCast, TopicPublish};
use crate::options::Size;
use crate::rig::{Rig, STAMP, message, payload};

/// Rounds: some publishes in one write, then their arrival at every client.
pub struct Broadcast {
    members: usize,
    payload: usize,
    publishes: usize,
    publisher: Publisher,
    /// Clients that do not read.
    slow: Vec<u32>,
}

/// How a message to everybody is asked for.
enum Publisher {
    /// With a command, from a backend.
    Backend(u32),
    /// With a message of a client that gets none itself.
    Client(u32),
}

impl Broadcast {
    pub fn prepare(size: &Size, rig: &mut Rig, slow: usize) -> Result<Broadcast> {
        let count = size.clients.unwrap_or(1000);
        let (publisher, slow) = if rig.server.worker.is_some() {
            rig.netsvr_clients(0, count - slow)?;
            let slow = neglected(rig, slow)?;
            (Publisher::Backend(rig.task()?), slow)
        } else {
            rig.echo_clients(count - slow)?;
            (Publisher::Client(rig.echo_clients(1)?[0]), Vec::new())
        };
        let publishes = size.publishes.unwrap_or(1);
        let payload = size.payload.unwrap_or(128);
        Ok(Broadcast { members: count - slow.len(), payload, publishes, publisher, slow })
    }

    /// One percent of the clients do not read.
    pub fn slow(size: &Size, rig: &mut Rig) -> Result<Broadcast> {
        let count = size.clients.unwrap_or(1000);
        let size = Size { payload: Some(size.payload.unwrap_or(1024)), ..size.clone() };
        let slow = if rig.server.worker.is_some() { (count / 100).max(1) } else { 0 };
        Broadcast::prepare(&size, rig, slow)
    }
}

/// Clients with small buffers from which nothing is read.
fn neglected(rig: &mut Rig, count: usize) -> Result<Vec<u32>> {
    let options = Options { source: None, receive_buffer: Some(4096) };
    let server = rig.server.client;
    let clients: Result<Vec<u32>> =
        (0..count).map(|_| rig.net.connect(server, options, "/netsvr?0")).collect();
    let clients = clients?;
    rig.net.await_upgrades(&clients)?;
    clients.iter().try_for_each(|&client| rig.net.neglect(client))?;
    Ok(clients)
}

impl Load for Broadcast {
    fn step(&mut self, rig: &mut Rig) -> Result<()> {
        let now = rig.tally.now();
        let mut out = Vec::new();
        let to = match self.publisher {
            Publisher::Backend(task) => {
                let data = payload(self.payload, now, 0);
                let command = ToAll { data: data.into() };
                (0..self.publishes).for_each(|_| netsvr::put(&mut out, Cmd::Broadcast, &command));
                task
            }
            Publisher::Client(client) => {
                let one = message(self.payload, now, 0);
                (0..self.publishes).for_each(|_| out.extend_from_slice(&one));
                client
            }
        };
        rig.net.send(to, &out)?;
        await_deliveries(rig, self.members * self.publishes)
    }

    fn finish(&mut self, rig: &mut Rig) -> Result<Vec<Figure>> {
        if self.slow.is_empty() {
            return Ok(Vec::new());
        }
        let ended = self.slow.iter().filter(|&&client| rig.net.has_ended(client)).count();
        Ok(vec![
            Figure::new("slow_clients", self.slow.len() as f64),
            Figure::new("slow_clients_closed", ended as f64),
        ])
    }
}

/// Waits for so many stamped messages and counts them.
pub fn await_deliveries(rig: &mut Rig, count: usize) -> Result<()> {
    rig.await_deliveries(count)
}

/// Publishes to a topic of `--members` members, while every client is in `--topics` topics whose
/// sizes follow Zipf's law; with `--mixed` to those, each as often as it is popular.
pub struct Topics {
    payload: usize,
    task: u32,
    /// Name and size of what is published to.
    targets: Vec<(String, usize)>,
}

/// Topics to choose from, per topic of a client.
const TOPICS_PER_CHOICE: usize = 50;
const TARGET: &str = "target";

impl Topics {
    pub fn prepare(size: &Size, rig: &mut Rig) -> Result<Topics> {
        let count = size.clients.unwrap_or(5000);
        let choices = size.topics.unwrap_or(20).max(2);
        let members = size.members.unwrap_or(1000).min(count);
        let clients = rig.netsvr_clients(0, count)?;
        let task = rig.task()?;
        let mut random = fastrand::Rng::with_seed(1);
        let mut order: Vec<usize> = (0..count).collect();
        random.shuffle(&mut order);
        let mut is_member = vec![false; count];
        order[..members].iter().for_each(|&client| is_member[client] = true);
        let zipf = Zipf::new(choices * TOPICS_PER_CHOICE);
        let mut sizes = vec![0; choices * TOPICS_PER_CHOICE];
        rig.update(task, &clients.uniq_ids, |client| {
            let mut topics: Vec<usize> = Vec::with_capacity(choices);
            while topics.len() < choices - 1 {
                let topic = zipf.draw(&mut random);
                if !topics.contains(&topic) {
                    topics.push(topic);
                    sizes[topic] += 1;
                }
            }
            let mut names: Vec<String> = topics.iter().map(|t| format!("topic-{t}")).collect();
            names.push(if is_member[client] { TARGET.to_owned() } else { "others".to_owned() });
            ConnInfoUpdate { new_topics: names, ..ConnInfoUpdate::default() }
        })?;
        let targets = if size.mixed {
            let draws = (0..4096).map(|_| zipf.draw(&mut random)).filter(|&topic| sizes[topic] > 0);
            draws.map(|topic| (format!("topic-{topic}"), sizes[topic])).collect()
        } else {
            vec![(TARGET.to_owned(), members)]
        };
        Ok(Topics { payload: size.payload.unwrap_or(128), task, targets })
    }
}

impl Load for Topics {
    fn step(&mut self, rig: &mut Rig) -> Result<()> {
        let (topic, members) = &self.targets[fastrand::usize(..self.targets.len())];
        let data = payload(self.payload, rig.tally.now(), 0);
        let command = TopicPublish { topics: vec![topic.clone()], data: data.into() };
        rig.net.send(self.task, &netsvr::frame(Cmd::TopicPublish, &command))?;
        await_deliveries(rig, *members)
    }
}

/// Numbers from 0 whose frequency falls with 1 / (number + 1).
struct Zipf {
    sums: Vec<f64>,
}

impl Zipf {
    fn new(count: usize) -> Zipf {
        let mut sum = 0.0;
        let mut add = |rank: usize| {
            sum += 1.0 / rank as f64;
            sum
        };
        Zipf { sums: (1..=count).map(&mut add).collect() }
    }

    fn draw(&self, random: &mut fastrand::Rng) -> usize {
        let all = self.sums.last().copied().unwrap_or(0.0);
        let place = random.f64() * all;
        self.sums.partition_point(|&sum| sum <= place).min(self.sums.len() - 1)
    }
}

/// SingleCast to random clients, `--window` under way.
pub struct Unicast {
    uniq_ids: Vec<String>,
    task: u32,
    payload: usize,
    window: usize,
    under_way: usize,
}

impl Unicast {
    pub fn prepare(size: &Size, rig: &mut Rig) -> Result<Unicast> {
        let clients = rig.netsvr_clients(0, size.clients.unwrap_or(1000))?;
        Ok(Unicast {
            uniq_ids: clients.uniq_ids,
            task: rig.task()?,
            payload: size.payload.unwrap_or(64).max(STAMP),
            window: size.window.unwrap_or(256),
            under_way: 0,
        })
    }
}

impl Load for Unicast {
    fn step(&mut self, rig: &mut Rig) -> Result<()> {
        let mut out = Vec::new();
        let data: bytes::Bytes = payload(self.payload, rig.tally.now(), 0).into();
        while self.under_way < self.window {
            let uniq_id = self.uniq_ids[fastrand::usize(..self.uniq_ids.len())].clone();
            netsvr::put(&mut out, Cmd::SingleCast, &SingleCast { uniq_id, data: data.clone() });
            self.under_way += 1;
        }
        rig.net.send(self.task, &out)?;
        let before = rig.tally.messages;
        await_deliveries(rig, 1)?;
        self.under_way -= (rig.tally.messages - before) as usize;
        Ok(())
    }
}
