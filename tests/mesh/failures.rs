//! What breaks: a node, NATS, the network between.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringway::wire::worker::proto;
use rustix::process::Signal;

use crate::binary::run;
use crate::cluster::*;
use crate::common::*;
use crate::nats::Nats;

/// What a request to other nodes may take: its 2 s, and a slow machine.
const ANSWER_TIME: Duration = Duration::from_secs(6);

/// Reads numbers until a text comes; they must ascend.
fn numbers(client: &mut Client) -> Vec<u64> {
    let mut heard: Vec<u64> = Vec::new();
    loop {
        let frame = client.frame();
        let Ok(number) = frame.text().parse() else { return heard };
        assert!(heard.last().is_none_or(|last| *last < number), "{number} after {heard:?}");
        heard.push(number);
    }
}

/// Puts a client into the topic `news` of its node.
fn listener(node: &mut Node) -> Member {
    let mut member = node.member();
    node.settle(&mut member, "", &["news"]);
    member
}

/// Publishes 0, 1, 2, .. on a node until it is told to stop; how many that were, with the longest
/// time that one took.
struct Publisher {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: thread::JoinHandle<(Node, Duration)>,
}

impl Publisher {
    fn start(node: Node) -> Publisher {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), count.clone());
        let thread = thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                node.publish("news", &counted.load(Ordering::Relaxed).to_string());
                longest = longest.max(begun.elapsed());
                counted.fetch_add(1, Ordering::Relaxed);
            }
            (node, longest)
        });
        Publisher { stop, count, thread }
    }

    fn await_more(&self, more: u64) {
        let start = self.count.load(Ordering::Relaxed);
        wait_until("publishes", || self.count.load(Ordering::Relaxed) >= start + more);
    }

    fn stop(self) -> (Node, u64, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let (node, longest) = self.thread.join().expect("no panic");
        (node, self.count.load(Ordering::Relaxed), longest)
    }
}

#[test]
fn a_node_that_is_killed_in_the_middle_costs_only_its_own_clients() {
    let nats = Nats::start();
    let [mut a, mut b, mut c] = cluster::<3>(&nats);
    let mut here = listener(&mut a);
    let mut there = listener(&mut b);
    let lost = listener(&mut c);
    await_wanted(&a, 1);
    wait_until("all three are reached", || a.publish("news", "begin") == (3, 0));
    let publisher = Publisher::start(a);
    publisher.await_more(50);
    c.binary.signal(Signal::KILL);
    publisher.await_more(5);
    let (a, count, longest) = publisher.stop();
    assert!(longest < ANSWER_TIME, "a publish took {longest:?}");
    // Its last number of members is missed until it is forgotten.
    let (reached, _) = a.publish("news", "last");
    assert_eq!(reached, 2);
    wait_until("the node is forgotten", || a.metric("ringway_mesh_nodes") == 1);
    assert_eq!(a.publish("news", "end"), (2, 0));
    // Every number, in order, on the nodes that were not killed.
    for client in [&mut here.client, &mut there.client] {
        assert_eq!(client.frame().text(), "begin");
        while client.frame().text() != "0" {}
        let mut heard = numbers(client);
        heard.insert(0, 0);
        assert_eq!(heard, (0..count).collect::<Vec<_>>());
    }
    drop(lost);
    // It may come back under its number.
    let c = Node::start(3, &nats.url());
    await_nodes(&[a, b, c]);
}

#[test]
fn without_nats_local_traffic_goes_on_and_afterwards_all_of_it() {
    let mut nats = Nats::start();
    let [mut a, mut b] = cluster::<2>(&nats);
    let mut here = listener(&mut a);
    let mut there = listener(&mut b);
    await_wanted(&a, 1);
    let admin = a.binary.admin();
    let publisher = Publisher::start(a);
    publisher.await_more(20);
    nats.stop();
    let gone = Instant::now();
    publisher.await_more(20);
    wait_until("five seconds", || gone.elapsed() > Duration::from_secs(5));
    nats.resume();
    let linked = || crate::binary::metric(admin, "ringway_mesh_connected", "") == 1;
    wait_until("the links are back", || b.metric("ringway_mesh_connected") == 1 && linked());
    publisher.await_more(20);
    let (mut a, count, longest) = publisher.stop();
    assert!(longest < ANSWER_TIME, "a publish took {longest:?}");
    wait_until("both are reached", || a.publish("news", "end") == (2, 0));
    // Every number here, in order; there a gap, and none twice.
    let local = numbers(&mut here.client);
    assert_eq!(local, (0..count).collect::<Vec<_>>());
    let remote = numbers(&mut there.client);
    assert!(remote.len() >= 20 && remote.last() == Some(&(count - 1)), "{remote:?}");
    // Subscriptions are all there again.
    let topics = vec!["news".to_owned()];
    let publish = proto::TopicPublish { topics, data: "after".into() };
    a.send(cmd::TOPIC_PUBLISH, &publish);
    while there.client.frame().text() != "after" {}
}

#[test]
fn the_younger_of_two_processes_with_one_number_says_what_to_do_and_ends() {
    let nats = Nats::start();
    let elder = Node::start(5, &nats.url());
    let (mut younger, _file) = command(5, &nats.url());
    let (code, _, log) = run(&mut younger);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("node 5 is in the mesh `ringway` already, at 127.0.0.1:"), "{log}");
    assert_eq!(elder.metric("ringway_mesh_connected"), 1);
}

/// A network of its own for NATS, with one cable for each node.
struct Network {
    name: String,
}

impl Network {
    /// `None` if this process may not make one.
    fn new() -> Option<Network> {
        let network = Network { name: format!("rw{}", std::process::id()) };
        if !ip(&["netns", "add", &network.name]) {
            return None;
        }
        for cable in 0..2 {
            let (outer, inner) = (network.cable(cable), format!("{}i", network.cable(cable)));
            let made = ip(&["link", "add", &outer, "type", "veth", "peer", "name", &inner])
                && ip(&["link", "set", &inner, "netns", &network.name])
                && ip(&["addr", "add", &format!("10.213.{cable}.1/30"), "dev", &outer])
                && ip(&["link", "set", &outer, "up"])
                && ip(&["-n", &network.name, "addr", "add", &inside(cable), "dev", &inner])
                && ip(&["-n", &network.name, "link", "set", &inner, "up"]);
            if !made {
                return None;
            }
        }
        Some(network)
    }

    fn cable(&self, number: usize) -> String {
        format!("{}c{number}", self.name)
    }

    /// Pulls a cable, or plugs it in.
    fn plug(&self, number: usize, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        assert!(ip(&["link", "set", &self.cable(number), state]), "the cable is ours");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        (0..2).for_each(|cable| _ = ip(&["link", "del", &self.cable(cable)]));
        ip(&["netns", "del", &self.name]);
    }
}

fn inside(cable: usize) -> String {
    format!("10.213.{cable}.2/30")
}

fn ip(arguments: &[&str]) -> bool {
    let output = Command::new("ip").args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

#[test]
fn a_partition_separates_the_nodes_and_nothing_else() {
    let Some(network) = Network::new() else {
        eprintln!("skipped: this process may not create network namespaces (it needs root)");
        return;
    };
    let nats = Nats::start_in(&network.name, "10.213.0.2");
    let mut a = Node::start(1, "nats://10.213.0.2:4222");
    let mut b = Node::start(2, "nats://10.213.1.2:4222");
    wait_until("a knows b", || a.metric("ringway_mesh_nodes") == 1);
    let mut here = listener(&mut a);
    let mut there = listener(&mut b);
    await_wanted(&a, 1);
    let publisher = Publisher::start(a);
    publisher.await_more(20);
    network.plug(0, false);
    publisher.await_more(10);
    // The other node serves its own clients all the while.
    let own = b.publish("news", "b's own");
    assert_eq!(own.0, 1);
    wait_until("b forgets a", || b.metric("ringway_mesh_nodes") == 0);
    network.plug(0, true);
    wait_until("they meet again", || b.metric("ringway_mesh_nodes") == 1);
    publisher.await_more(10);
    let (a, count, longest) = publisher.stop();
    assert!(longest < ANSWER_TIME, "a publish took {longest:?}");
    wait_until("both are reached", || a.publish("news", "end") == (2, 0));
    assert_eq!(numbers(&mut here.client), (0..count).collect::<Vec<_>>());
    let mut before = numbers(&mut there.client);
    before.extend(numbers(&mut there.client));
    let distinct: HashSet<&u64> = before.iter().collect();
    assert_eq!(distinct.len(), before.len(), "nothing twice: {before:?}");
    drop(nats);
}
