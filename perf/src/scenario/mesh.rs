//! A backend of one node publishes to members on another one, over NATS: `mesh`.
//!
//! Node 1 has the publisher and as many members of a topic of its own, which nobody elsewhere
//! wants: what a delivery takes there is the local figure. Node 2, the server of the run, has the
//! members that are counted; further nodes have nobody, or with `--mixed` somebody who is told of
//! every publish to no effect. The measurement is a closed loop with
//! `--window` publishes under way; then local and remote publishes come in turn at half of that
//! rate, each at its time, and only this part gives what NATS adds and what a publish costs whom.
//! With `--topics` node 2 gets so many, NATS ends and comes back, and what counts is the time until
//! every bucket is heard again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ringway::hub::mesh::{Bucket, Space};

use super::{Figure, Load};
use crate::Result;
use crate::nats::Nats;
use crate::netsvr::{self, Cmd, ConnInfoUpdate, TopicPublish};
use crate::options::Options;
use crate::rig::{PATIENCE, Rig, STAMP, payload, stamp};
use crate::server::{Server, Surroundings};
use crate::usage::{resident, threads};

const PUBLISHER_NODE: u16 = 1;
/// The node of the members, which is the server of the run.
pub const MEMBERS_NODE: u16 = 2;
const REMOTE: &str = "remote";
const LOCAL: &str = "local";
/// Rounds at half load: of local publishes, then of remote ones.
const ROUNDS: usize = 2;
/// What memory has to come to rest.
const REST: Duration = Duration::from_millis(500);
/// After that without a delivery, what is missing is published again.
const AGAIN: Duration = Duration::from_millis(20);

/// See the module.
pub struct Mesh {
    publisher: Server,
    bystanders: Vec<Server>,
    /// A backend of the publisher's node, and one of the members'.
    task: u32,
    members_task: u32,
    uniq_ids: Vec<String>,
    payload: usize,
    /// Publishes under way.
    window: usize,
    /// Deliveries that are missing.
    under_way: usize,
    options: Options,
}

impl Mesh {
    pub fn prepare(options: &Options, rig: &mut Rig) -> Result<Mesh> {
        if options.tls {
            return Err("mesh does without --tls".into());
        }
        let size = &options.size;
        let url = rig.server.nats.as_ref().map(Nats::url);
        let (Some(program), Some(url)) = (rig.server.program.clone(), url) else {
            return Err("mesh needs a gateway program, not --addr".into());
        };
        let nodes = size.nodes.unwrap_or(2).max(2);
        let start = |node: usize| {
            let mesh = Some((node as u16, url.clone()));
            let around = Surroundings { mesh, ..Surroundings::default() };
            Server::gateway(&program, &[options.server_cpu], false, &around)
        };
        let mut publisher = start(PUBLISHER_NODE.into())?;
        let mut bystanders = (3..=nodes).map(start).collect::<Result<Vec<_>>>()?;
        for server in bystanders.iter().chain([&publisher, &rig.server]) {
            let others = (nodes - 1) as f64;
            until("the nodes know each other", || {
                Ok(metric(server, "ringway_mesh_nodes")? == others)
            })?;
        }
        let members = size.members.unwrap_or(1000);
        let (members_task, uniq_ids) = subscribers(rig, members, REMOTE)?;
        let mut at = |server: &mut Server, count, topic: &str| {
            std::mem::swap(&mut rig.server, server);
            let done = subscribers(rig, count, topic);
            std::mem::swap(&mut rig.server, server);
            done
        };
        let (task, _) = at(&mut publisher, members, LOCAL)?;
        if size.mixed {
            for server in &mut bystanders {
                at(server, 1, &neighbour())?;
            }
        }
        until("the publisher's node knows of the members", || {
            Ok(metric(&publisher, "ringway_mesh_wanted_buckets")? >= 1.0)
        })?;
        Ok(Mesh {
            publisher,
            bystanders,
            task,
            members_task,
            uniq_ids,
            payload: size.payload.unwrap_or(128).max(STAMP),
            window: size.window.unwrap_or(8).max(1),
            under_way: 0,
            options: options.clone(),
        })
    }

    /// Publishes at a rate, each at its time; gives how long deliveries took and how many publishes
    /// there were.
    fn paced(&self, rig: &mut Rig, topic: &str, rate: f64) -> Result<(Histogram<u64>, usize)> {
        rig.tally.reset();
        let interval = ((1e9 / rate) as u64).max(1);
        let mut due = rig.tally.now();
        let end = due + (self.options.seconds / ROUNDS as f64 * 1e9) as u64;
        let (mut publishes, deadline) = (0, end + PATIENCE.as_nanos() as u64);
        let members = self.uniq_ids.len();
        while due < end || (rig.tally.messages as usize) < publishes * members {
            let now = rig.tally.now();
            if now > deadline {
                let late = publishes * members - rig.tally.messages as usize;
                return Err(format!("{late} deliveries of {topic} did not arrive").into());
            }
            let mut out = Vec::new();
            while due <= now && due < end {
                put(&mut out, topic, payload(self.payload, due, 0));
                due += interval;
                publishes += 1;
            }
            rig.net.send(self.task, &out)?;
            let patience = if due < end { due.saturating_sub(now) } else { 10_000_000 };
            for client in rig.net.wait(Duration::from_nanos(patience))? {
                let now = rig.tally.now();
                rig.net.read(client, |data| {
                    if let Some((sent, _)) = stamp(data) {
                        rig.tally.count(sent, now);
                    }
                })?;
            }
        }
        Ok((rig.tally.latency.clone(), publishes))
    }

    /// Local and remote publishes in turn, at half of the rate that was reached.
    fn half_load(&self, rig: &mut Rig, reached: f64) -> Result<Vec<Figure>> {
        let rate = self.options.size.rate.unwrap_or(reached / 2.0).max(1.0);
        let empty = || Histogram::new_with_bounds(1, 60_000_000_000, 3);
        let (mut local, mut remote) = (empty()?, empty()?);
        let (mut publishes, mut used) = (0, Costs::default());
        for _ in 0..ROUNDS {
            local.add(self.paced(rig, LOCAL, rate)?.0)?;
            let before = self.costs(rig)?;
            let (latencies, count) = self.paced(rig, REMOTE, rate)?;
            used.add(&self.costs(rig)?, &before);
            remote.add(latencies)?;
            publishes += count;
        }
        let mut figures = vec![Figure::new("half_publishes_per_s", rate)];
        let mut add = |name, value| figures.push(Figure::new(name, value));
        let us = |times: &Histogram<u64>, share| times.value_at_quantile(share) as f64 / 1000.0;
        let [local_p50, local_p99] = [0.5, 0.99].map(|share| us(&local, share));
        let [remote_p50, remote_p99] = [0.5, 0.99].map(|share| us(&remote, share));
        add("local_p50_us", local_p50);
        add("local_p99_us", local_p99);
        add("remote_p50_us", remote_p50);
        add("remote_p99_us", remote_p99);
        add("added_p50_us", remote_p50 - local_p50);
        add("added_p99_us", remote_p99 - local_p99);
        let each = publishes.max(1) as f64;
        for (name, value) in used.0 {
            add(name, value / each);
        }
        Ok(figures)
    }

    /// What everybody has used so far, by the names of the figures: CPU time in microseconds, and
    /// messages. Of the nodes without members the mean.
    fn costs(&self, rig: &Rig) -> Result<Costs> {
        let [publisher, members] = [&self.publisher, &rig.server].map(|server| busy(server.pid));
        let ([shard, mesh, other], at_members) = (publisher?, members?);
        let mut costs = BTreeMap::from([
            ("publisher_shard_us", shard),
            ("publisher_mesh_us", mesh),
            ("publisher_other_us", other),
            ("members_shard_us", at_members[0]),
            ("members_mesh_us", at_members[1]),
            ("members_other_us", at_members[2]),
        ]);
        if let Some(nats) = &rig.server.nats {
            costs.insert("nats_us", busy(nats.pid())?.iter().sum());
        }
        let count = self.bystanders.len().max(1) as f64;
        let (mut sent, mut received) = (0.0, 0.0);
        for server in self.bystanders.iter().chain([&self.publisher, &rig.server]) {
            sent += metric(server, "ringway_mesh_sent_total")?;
            received += metric(server, "ringway_mesh_received_total")?;
        }
        for server in &self.bystanders {
            let used: f64 = busy(server.pid)?.iter().sum();
            *costs.entry("bystander_us").or_default() += used / count;
        }
        costs.extend([("to_nats_per_publish", sent), ("from_nats_per_publish", received)]);
        Ok(Costs(costs))
    }

    /// Gives the members' node topics, lets NATS end, and waits until all are heard again.
    fn topics(&self, rig: &mut Rig, count: usize) -> Result<Vec<Figure>> {
        let sizes = [count / 2, count].map(|count| self.subscribe(rig, count));
        let [half, whole] = sizes;
        let slope = whole?.saturating_sub(half?) as f64 / (count - count / 2).max(1) as f64;
        let buckets = metric(&rig.server, "ringway_mesh_buckets")?;
        let mut missing = BTreeMap::new();
        for topic in (0..count).map(name) {
            missing.insert(Bucket::of(Space::Topics, &topic).number, topic);
        }
        let linked = |rig: &Rig, wanted: f64| {
            for server in self.bystanders.iter().chain([&self.publisher, &rig.server]) {
                if metric(server, "ringway_mesh_connected")? != wanted {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let nats = || "the mesh has NATS";
        rig.server.nats.as_mut().ok_or_else(nats)?.kill()?;
        until("the nodes notice that NATS has ended", || linked(rig, 0.0))?;
        rig.server.nats.as_mut().ok_or_else(nats)?.restart()?;
        let back = Instant::now();
        until("the nodes are linked again", || linked(rig, 1.0))?;
        let again = Instant::now();
        self.await_all(rig, missing)?;
        Ok(vec![
            Figure::new("topic_bytes", slope),
            Figure::new("buckets", buckets),
            Figure::new("reconnect_ms", (again - back).as_secs_f64() * 1000.0),
            Figure::new("resubscribe_ms", again.elapsed().as_secs_f64() * 1000.0),
        ])
    }

    /// Spreads so many topics over the members; gives the memory of their node afterwards.
    fn subscribe(&self, rig: &mut Rig, count: usize) -> Result<u64> {
        let members = self.uniq_ids.len();
        rig.update(self.members_task, &self.uniq_ids, |member| {
            let own = (member..count).step_by(members).map(name);
            let new_topics = own.chain([REMOTE.to_owned()]).collect();
            ConnInfoUpdate { new_topics, ..ConnInfoUpdate::default() }
        })?;
        std::thread::sleep(REST);
        Ok(resident(rig.server.pid)?)
    }

    /// Publishes to one topic of each bucket until all are heard.
    fn await_all(&self, rig: &mut Rig, topics: BTreeMap<u16, String>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut missing: BTreeSet<u16> = topics.keys().copied().collect();
        while !missing.is_empty() {
            if Instant::now() > deadline {
                let late = format!("{} buckets are not heard after a reconnect", missing.len());
                return Err(late.into());
            }
            let mut out = Vec::new();
            for bucket in &missing {
                let data = payload(STAMP, rig.tally.now(), (*bucket).into());
                put(&mut out, &topics[bucket], data);
            }
            rig.net.send(self.task, &out)?;
            loop {
                let ready = rig.net.wait(AGAIN)?;
                if ready.is_empty() {
                    break;
                }
                for client in ready {
                    rig.net.read(client, |data| {
                        if let Some((_, bucket)) = stamp(data) {
                            missing.remove(&(bucket as u16));
                        }
                    })?;
                }
            }
        }
        Ok(())
    }
}

impl Load for Mesh {
    fn step(&mut self, rig: &mut Rig) -> Result<()> {
        let mut out = Vec::new();
        let members = self.uniq_ids.len();
        while self.under_way + members <= self.window * members {
            put(&mut out, REMOTE, payload(self.payload, rig.tally.now(), 0));
            self.under_way += members;
        }
        rig.net.send(self.task, &out)?;
        let before = rig.tally.messages;
        rig.await_deliveries(1)?;
        self.under_way -= (rig.tally.messages - before) as usize;
        Ok(())
    }

    fn finish(&mut self, rig: &mut Rig) -> Result<Vec<Figure>> {
        let reached = rig.tally.messages as f64 / self.options.seconds / self.uniq_ids.len() as f64;
        rig.await_deliveries(std::mem::take(&mut self.under_way))?;
        let mut figures = self.half_load(rig, reached)?;
        if let Some(count) = self.options.size.topics {
            figures.extend(self.topics(rig, count)?);
        }
        Ok(figures)
    }
}

/// Connects clients to the rig's server and puts them into a topic; gives a backend, and uniqIds.
fn subscribers(rig: &mut Rig, count: usize, topic: &str) -> Result<(u32, Vec<String>)> {
    let uniq_ids = rig.netsvr_clients(0, count)?.uniq_ids;
    let task = rig.task()?;
    rig.update(task, &uniq_ids, |_| ConnInfoUpdate {
        new_topics: vec![topic.to_owned()],
        ..ConnInfoUpdate::default()
    })?;
    Ok((task, uniq_ids))
}

/// Another topic in the bucket of the remote one.
fn neighbour() -> String {
    let bucket = |topic: &str| Bucket::of(Space::Topics, topic);
    let names = (0..).map(|number| format!("neighbour-{number}"));
    let mut others = names.filter(|name| bucket(name) == bucket(REMOTE));
    others.next().expect("names spread over all buckets")
}

fn name(topic: usize) -> String {
    format!("topic-{topic}")
}

fn put(out: &mut Vec<u8>, topic: &str, data: Vec<u8>) {
    let publish = TopicPublish { topics: vec![topic.to_owned()], data: data.into() };
    netsvr::put(out, Cmd::TopicPublish, &publish);
}

/// Totals by the name of the figure that they become.
#[derive(Default)]
struct Costs(BTreeMap<&'static str, f64>);

impl Costs {
    /// Adds what has come since `before`.
    fn add(&mut self, after: &Costs, before: &Costs) {
        for (name, value) in &after.0 {
            let earlier = before.0.get(name).copied().unwrap_or_default();
            *self.0.entry(name).or_default() += value - earlier;
        }
    }
}

/// CPU time of the shards of a process, of its mesh thread and of all others, microseconds.
fn busy(pid: u32) -> Result<[f64; 3]> {
    let mut used = [0.0; 3];
    for thread in threads(pid)? {
        let kind = match thread.name.as_str() {
            name if name.starts_with("shard-") || name.starts_with("iou-") => 0,
            "mesh" => 1,
            _ => 2,
        };
        used[kind] += thread.cpu_ns as f64 / 1000.0;
    }
    Ok(used)
}

/// A metric of a node; 0 while it has not begun to count.
fn metric(server: &Server, name: &str) -> Result<f64> {
    let admin = server.admin.ok_or("a node without metrics")?;
    let mut socket = TcpStream::connect(admin)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: perf\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    socket.read_to_string(&mut page)?;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.map_or(Ok(0.0), |value| value.trim().parse())?)
}

fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        if Instant::now() > deadline {
            return Err(format!("waited {PATIENCE:?} in vain: {what}").into());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_what_has_come_since() {
        let costs = |value| Costs(BTreeMap::from([("nats_us", value)]));
        let mut used = Costs::default();
        used.add(&costs(5.0), &costs(2.0));
        used.add(&costs(9.0), &costs(8.0));
        used.add(&costs(1.0), &Costs::default());
        assert_eq!(used.0["nats_us"], 5.0);
    }
}
