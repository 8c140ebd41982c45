//! The mesh by itself: real nodes on a real NATS server, with mailboxes in place of shards.

mod common;

#[path = "mesh/nats.rs"]
mod nats;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::*;
use nats::Nats;
use ringway::config::model::Mesh;
use ringway::hub::ConnId;
use ringway::hub::mesh::{Bucket, Interest, Nodes, Space, Turn};
use ringway::hub::push::{Change, Command, Outcome, Payload, Target};
use ringway::hub::queries::{Answer, Query};
use ringway::life::{Gone, Life, watch};
use ringway::limits::{MESH_FORGET_TIME, MESH_REQUEST_TIME};
use ringway::lists::letters::{Mail, MeshRequest, Reach, Reply, ReplyTo};
use ringway::mail::{Mailbox, UnboundedSender};
use ringway::metrics::Registry;
use ringway::protocols::xxim::letters::Letter;
use ringway::sidecar::mesh::{self, MeshSettings, MeshStartError};

/// A node with one shard, played by the test.
struct Node {
    sender: UnboundedSender<MeshRequest>,
    mailbox: Mailbox<Mail>,
    interest: Arc<Interest>,
    registry: Arc<Registry>,
    thread: Option<JoinHandle<()>>,
    nodes: Arc<Nodes>,
    number: u64,
}

fn settings(url: &str, node: u16, queue_bytes_max: usize) -> MeshSettings {
    let mesh = Mesh {
        nats: vec![url.to_owned()],
        cluster: "test".to_owned(),
        queue_bytes_max,
        ..Mesh::default()
    };
    MeshSettings {
        mesh,
        node,
        addresses: vec![("test", ([127, 0, 0, 1], node).into())],
        netsvr: std::net::SocketAddrV4::new([127, 0, 0, 1].into(), node),
        slots_max: 1000,
        ids_start: 70_000,
        interest: Arc::new(Interest::new(queue_bytes_max)),
        calls: tokio::sync::mpsc::channel(8).0,
        sender: UnboundedSender::new(Gone::default()).0,
        life: Life::default(),
    }
}

impl Node {
    fn try_start(settings: MeshSettings) -> Result<Node, MeshStartError> {
        let (mail, mailbox) = Mailbox::new(64, Gone::default()).expect("a descriptor");
        let (sender, requests) = UnboundedSender::new(Gone::default());
        let registry = Arc::new(Registry::new(1));
        let interest = settings.interest.clone();
        let thread = mesh::start(settings, requests, vec![mail], registry.clone())?;
        let nodes = Arc::default();
        Ok(Node { sender, mailbox, interest, registry, thread: Some(thread), nodes, number: 0 })
    }

    fn start(nats: &Nats, node: u16) -> Node {
        Node::try_start(settings(&nats.url(), node, 1 << 20)).expect("it joins")
    }

    /// The next mail that is not about other nodes. There is nobody who has logged in.
    fn mail(&mut self) -> Mail {
        loop {
            match self.any_mail() {
                Mail::Xxim(Letter::Logins { .. }) => self.tell_logins(None),
                other => return other,
            }
        }
    }

    fn tell_logins(&self, next: Option<u32>) {
        self.sender.send(MeshRequest::Logins { logins: Vec::new(), next });
    }

    /// The next mail that is not about other nodes.
    fn any_mail(&mut self) -> Mail {
        let mut found = None;
        wait_until("mail for the shard", || {
            while let Some(mail) = self.mailbox.take() {
                match mail {
                    Mail::Nodes(nodes) => self.nodes = nodes,
                    other => {
                        found = Some(other);
                        return true;
                    }
                }
            }
            false
        });
        found.expect("waited for it")
    }

    fn await_nodes(&mut self, count: usize) {
        wait_until("other nodes", || {
            while let Some(mail) = self.mailbox.take() {
                match mail {
                    Mail::Nodes(nodes) => self.nodes = nodes,
                    Mail::Xxim(Letter::Logins { .. }) => self.tell_logins(None),
                    other => panic!("{other:?}"),
                }
            }
            self.nodes.iter().len() == count
        });
    }

    fn take_bucket(&self, name: &str, occupied: bool) {
        let turn = Turn { bucket: Bucket::of(Space::Topics, name), occupied };
        self.sender.send(MeshRequest::Turned { shard: 0, turns: vec![turn] });
    }

    fn publish(&self, topic: &str, data: &'static str) {
        self.send(Reach::Members, push(topic, data), None);
    }

    fn send(&self, reach: Reach, command: Command, reply: Option<(u8, u64)>) {
        assert!(self.interest.reserve(100), "there is room");
        let command = Arc::new(command);
        self.sender.send(MeshRequest::Command { reach, command, reply, room: 100 });
    }

    /// Sends a command whose outcome is wanted; [`Node::outcome`] has it.
    fn tell(&mut self, reach: Reach, command: Command) {
        self.number += 1;
        self.send(reach, command, Some((0, self.number)));
    }

    fn send_question(&mut self, to: Option<u16>) {
        self.number += 1;
        let (query, reply) = (Arc::new(Query::ConnCount), (0, self.number));
        self.sender.send(MeshRequest::Ask { to, query, reply });
    }

    /// What another node has, or each of the others.
    fn ask(&mut self, to: Option<u16>) -> Vec<(u16, Answer)> {
        self.send_question(to);
        match self.mail() {
            Mail::Replied { number, reply: Reply::Elsewhere(found, _) } => {
                assert_eq!(number, self.number);
                found
            }
            other => panic!("an answer was expected, not {other:?}"),
        }
    }

    /// Asks the sidecars of the others.
    fn call(&self) -> tokio::sync::oneshot::Receiver<Vec<Bytes>> {
        let (answer, answers) = tokio::sync::oneshot::channel();
        self.sender.send(MeshRequest::Call { method: "test", body: Bytes::new(), answer });
        answers
    }

    fn outcome(&mut self) -> (u64, u64) {
        match self.mail() {
            Mail::Replied { number, reply: Reply::Outcome(outcome) } => {
                assert_eq!(number, self.number);
                (outcome.done, outcome.failed)
            }
            other => panic!("an outcome was expected, not {other:?}"),
        }
    }

    /// The next command that wants no answer: its text.
    fn heard(&mut self) -> String {
        match self.mail() {
            Mail::Abroad(command) => text(&command),
            other => panic!("a command was expected, not {other:?}"),
        }
    }

    /// Carries out the next command that wants one.
    fn carry_out(&mut self, done: u64, failed: u64) {
        match self.mail() {
            Mail::Tell { reply: ReplyTo::Mesh { number }, .. } => {
                let reply = Reply::Outcome(Outcome { done, failed });
                self.sender.send(MeshRequest::Replied { number, reply });
            }
            other => panic!("a command was expected, not {other:?}"),
        }
    }

    fn metric(&self, start: &str) -> f64 {
        let page = self.registry.render();
        let line = page.lines().find(|line| line.starts_with(start));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
    }

    fn await_wanted(&self, name: &str, wanted: bool) {
        let bucket = Bucket::of(Space::Topics, name);
        wait_until("the other node's wish", || self.interest.has(bucket) == wanted);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.sender.send(MeshRequest::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn push(topic: &str, data: &'static str) -> Command {
    let payloads = vec![Payload::new(Bytes::from_static(data.as_bytes()))];
    Command::Push { target: Target::Topics(vec![topic.into()]), payloads }
}

fn text(command: &Command) -> String {
    let Command::Push { payloads, .. } = command else { panic!("{command:?}") };
    String::from_utf8(payloads[0].raw().to_vec()).expect("a text")
}

fn update() -> Command {
    let conn = ConnId::new(0, 5, 6);
    Command::Update { conn, change: Change::default(), payload: None }
}

#[test]
fn nodes_find_each_other_and_hear_when_one_leaves() {
    let nats = Nats::start();
    let mut a = Node::start(&nats, 1);
    let mut b = Node::start(&nats, 2);
    a.await_nodes(1);
    b.await_nodes(1);
    let seen = a.nodes.get(2).expect("b");
    assert_eq!((seen.advertise.port(), seen.shards, seen.slots_max), (2, 1, 1000));
    assert_eq!(seen.ids_start, 70_000);
    assert_eq!(seen.addresses[0].1.port(), 2);
    drop(b);
    a.await_nodes(0);
}

#[test]
fn the_younger_of_two_nodes_with_one_number_refuses_to_start() {
    let nats = Nats::start();
    let mut a = Node::start(&nats, 7);
    let refused = Node::try_start(settings(&nats.url(), 7, 1 << 20)).err().expect("taken");
    let sentence = refused.to_string();
    assert!(
        sentence.contains("node 7 is in the mesh `test` already, at 127.0.0.1:7"),
        "{sentence}"
    );
    // The elder goes on.
    let mut b = Node::start(&nats, 8);
    a.await_nodes(1);
    b.await_nodes(1);
}

#[test]
fn what_is_published_reaches_members_on_other_nodes_once_and_in_order() {
    let nats = Nats::start();
    let (mut a, mut b, mut c) =
        (Node::start(&nats, 1), Node::start(&nats, 2), Node::start(&nats, 3));
    [&mut a, &mut b, &mut c].into_iter().for_each(|node| node.await_nodes(2));
    b.take_bucket("room", true);
    a.await_wanted("room", true);
    c.await_wanted("room", true);
    for number in 0..200 {
        a.publish("room", if number % 2 == 0 { "even" } else { "odd" });
    }
    for number in 0..200 {
        assert_eq!(b.heard(), if number % 2 == 0 { "even" } else { "odd" });
    }
    // For everybody, behind it: c has heard nothing else.
    let all = Command::Push {
        target: Target::All,
        payloads: vec![Payload::new(Bytes::from_static(b"all"))],
    };
    a.send(Reach::Members, all, None);
    assert_eq!((b.heard().as_str(), c.heard().as_str()), ("all", "all"));
    assert_eq!(a.interest.queued(), 0);
    // A bucket without members is given up.
    b.take_bucket("room", false);
    a.await_wanted("room", false);
    wait_until("b listens to nothing", || b.metric("ringway_mesh_buckets") == 0.0);
}

#[test]
fn the_outcome_is_the_sum_of_all_nodes_that_have_members() {
    let nats = Nats::start();
    let (mut a, mut b, mut c) =
        (Node::start(&nats, 1), Node::start(&nats, 2), Node::start(&nats, 3));
    a.await_nodes(2);
    a.tell(Reach::Members, push("room", "nobody"));
    assert_eq!(a.outcome(), (0, 0));
    b.take_bucket("room", true);
    a.await_wanted("room", true);
    a.tell(Reach::Members, push("room", "one"));
    b.carry_out(5, 1);
    assert_eq!(a.outcome(), (5, 1));
    // When the answer is here, so is what c wants.
    a.tell(Reach::Node(3), update());
    c.take_bucket("room", true);
    c.carry_out(1, 0);
    assert_eq!(a.outcome(), (1, 0));
    a.tell(Reach::Members, push("room", "both"));
    b.carry_out(5, 0);
    c.carry_out(7, 2);
    assert_eq!(a.outcome(), (12, 2));
}

#[test]
fn a_command_for_a_connection_goes_to_its_node_alone() {
    let nats = Nats::start();
    let (mut a, mut b, mut c) =
        (Node::start(&nats, 1), Node::start(&nats, 2), Node::start(&nats, 3));
    [&mut a, &mut b, &mut c].into_iter().for_each(|node| node.await_nodes(2));
    a.tell(Reach::Node(2), update());
    b.carry_out(1, 0);
    assert_eq!(a.outcome(), (1, 0));
    // A node that is not there, and a connection that can not exist.
    a.tell(Reach::Node(9), update());
    assert_eq!(a.outcome(), (0, 0));
    let nowhere =
        Command::Update { conn: ConnId::new(9, 1, 1), change: Change::default(), payload: None };
    a.tell(Reach::Node(2), nowhere);
    assert_eq!(a.outcome(), (0, 0));
    c.await_nodes(2);
}

/// The new member hears what is published by who was told that it is one.
#[test]
fn who_was_told_that_a_subscribe_is_done_reaches_the_new_member() {
    let nats = Nats::start();
    let (mut a, mut b) = (Node::start(&nats, 1), Node::start(&nats, 2));
    a.await_nodes(1);
    b.await_nodes(1);
    for name in ["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9"] {
        a.tell(Reach::Node(2), update());
        let Mail::Tell { reply: ReplyTo::Mesh { number }, .. } = b.mail() else {
            panic!("a command was expected")
        };
        b.take_bucket(name, true);
        let reply = Reply::Outcome(Outcome { done: 1, failed: 0 });
        b.sender.send(MeshRequest::Replied { number, reply });
        assert_eq!(a.outcome(), (1, 0));
        assert!(a.interest.has(Bucket::of(Space::Topics, name)), "{name}");
        a.publish(name, "welcome");
        assert_eq!(b.heard(), "welcome");
    }
}

#[test]
fn a_node_that_is_silent_counts_as_failed_with_its_last_number_of_members() {
    let nats = Nats::start();
    let (mut a, mut b) = (Node::start(&nats, 1), Node::start(&nats, 2));
    a.await_nodes(1);
    b.take_bucket("room", true);
    a.await_wanted("room", true);
    let mut silence = |expected| {
        let begun = Instant::now();
        a.tell(Reach::Members, push("room", "anybody?"));
        assert_eq!(a.outcome(), expected);
        assert!(begun.elapsed() >= MESH_REQUEST_TIME, "it had its time");
    };
    silence((0, 1));
    let Mail::Tell { .. } = b.mail() else { panic!("it was asked") };
    a.tell(Reach::Members, push("room", "hello"));
    b.carry_out(40, 2);
    assert_eq!(a.outcome(), (40, 2));
    a.tell(Reach::Members, push("room", "again"));
    assert_eq!(a.outcome(), (0, 42));
    assert!(a.metric("ringway_mesh_requests_failed_total") >= 2.0);
}

/// It is not waited for, whatever it still answers.
#[test]
fn a_node_that_stands_still_counts_as_not_answering_until_it_turns_again() {
    let nats = Nats::start();
    let mut a = Node::start(&nats, 1);
    let life = Life::default();
    let thread = life.heart("shard-0", &[]);
    watch::start(&life, Duration::ZERO).expect("a thread");
    let of_b = MeshSettings { life: life.clone(), ..settings(&nats.url(), 2, 1 << 20) };
    let mut b = Node::try_start(of_b).expect("it joins");
    a.await_nodes(1);
    b.take_bucket("room", true);
    a.await_wanted("room", true);
    let mut told = || {
        a.tell(Reach::Members, push("room", "hello"));
        b.carry_out(5, 0);
        a.outcome()
    };
    assert_eq!(told(), (5, 0));
    wait_until("it stands still", || told() == (0, 5));
    assert_eq!(told(), (0, 5));
    wait_until("it turns again", || {
        thread.beat();
        told() == (5, 0)
    });
    a.take_bucket("room", true);
    life.stop();
}

/// Questions and calls are not even sent there.
#[test]
fn a_node_that_stands_still_is_not_asked_until_it_turns_again() {
    let nats = Nats::start();
    let mut a = Node::start(&nats, 1);
    let life = Life::default();
    let thread = life.heart("shard-0", &[]);
    watch::start(&life, Duration::ZERO).expect("a thread");
    let (calls, mut called) = tokio::sync::mpsc::channel(8);
    let of_b = MeshSettings { life: life.clone(), calls, ..settings(&nats.url(), 2, 1 << 20) };
    let mut b = Node::try_start(of_b).expect("it joins");
    a.await_nodes(1);
    a.tell(Reach::Node(2), update());
    b.carry_out(1, 0);
    assert_eq!(a.outcome(), (1, 0));
    wait_until("it stands still", || {
        a.tell(Reach::Node(2), update());
        b.carry_out(1, 0);
        a.outcome() == (0, 1)
    });
    for to in [None, Some(2)] {
        assert!(a.ask(to).is_empty());
    }
    assert!(a.call().blocking_recv().expect("an answer").is_empty());
    // On the way of the questions, behind them.
    a.tell(Reach::Node(2), update());
    b.carry_out(1, 0);
    assert_eq!(a.outcome(), (0, 1));
    assert!(called.try_recv().is_err(), "it was called");
    wait_until("it turns again", || {
        thread.beat();
        a.tell(Reach::Node(2), update());
        b.carry_out(1, 0);
        a.outcome() == (1, 0)
    });
    let answers = a.call();
    let call = called.blocking_recv().expect("a call");
    let body = Bytes::from_static(b"here");
    b.sender.send(MeshRequest::Called { node: call.node, number: call.number, body });
    assert_eq!(answers.blocking_recv().expect("an answer"), [&b"here"[..]]);
    a.send_question(None);
    let asked = b.mail();
    assert!(matches!(asked, Mail::Ask { .. }), "{asked:?}");
    life.stop();
}

#[test]
fn after_nats_was_away_everything_is_as_before_and_nothing_comes_twice() {
    let mut nats = Nats::start();
    let (mut a, mut b) = (Node::start(&nats, 1), Node::start(&nats, 2));
    a.await_nodes(1);
    b.await_nodes(1);
    let names: Vec<String> = (0..300).map(|number| format!("room {number}")).collect();
    names.iter().for_each(|name| b.take_bucket(name, true));
    names.iter().for_each(|name| a.await_wanted(name, true));
    a.publish("room 0", "before");
    assert_eq!(b.heard(), "before");
    nats.stop();
    wait_until("a notices", || a.metric("ringway_mesh_connected") == 0.0);
    let begun = Instant::now();
    a.tell(Reach::Members, push("room 0", "lost"));
    assert_eq!(a.outcome(), (0, 1));
    assert!(begun.elapsed() < MESH_REQUEST_TIME * 2);
    a.publish("room 0", "lost too");
    wait_until("it is counted", || a.metric("ringway_dropped_total{reason=\"mesh_down\"}") >= 1.0);
    assert_eq!(a.interest.queued(), 0);
    nats.resume();
    for node in [&a, &b] {
        wait_until("linked again", || node.metric("ringway_mesh_connected") == 1.0);
    }
    // A bucket that turned meanwhile, and all the others.
    b.take_bucket("new", true);
    a.await_wanted("new", true);
    names.iter().for_each(|name| a.publish(name, "after"));
    a.publish("new", "last");
    let mut heard = Vec::new();
    while heard.len() < names.len() + 1 {
        heard.push(b.heard());
    }
    assert_eq!(heard.iter().filter(|text| *text == "after").count(), names.len());
    assert_eq!(heard.iter().filter(|text| *text == "last").count(), 1);
    a.publish("room 0", "end");
    assert_eq!(b.heard(), "end");
}

#[test]
fn after_a_reconnect_a_shard_is_asked_for_all_of_its_logins_once() {
    let mut nats = Nats::start();
    let mut a = Node::start(&nats, 1);
    assert!(
        matches!(a.any_mail(), Mail::Xxim(Letter::Logins { from: 0 })),
        "also after the first link"
    );
    a.tell_logins(None);
    nats.stop();
    wait_until("a notices", || a.metric("ringway_mesh_connected") == 0.0);
    nats.resume();
    for (from, next) in [(0, Some(7)), (7, Some(300)), (300, None)] {
        let asked = a.any_mail();
        assert!(
            matches!(asked, Mail::Xxim(Letter::Logins { from: slot }) if slot == from),
            "{asked:?}"
        );
        a.tell_logins(next);
    }
    // Nothing more: the next mail is another one.
    a.tell(Reach::Node(9), update());
    let answer = a.any_mail();
    assert!(matches!(answer, Mail::Replied { .. }), "{answer:?}");
}

#[test]
fn a_frozen_link_fails_requests_in_time_and_bounds_what_waits() {
    let nats = Nats::start();
    let (mut a, b) = (Node::start(&nats, 1), Node::start(&nats, 2));
    a.await_nodes(1);
    b.take_bucket("room", true);
    a.await_wanted("room", true);
    nats.freeze(true);
    let begun = Instant::now();
    a.tell(Reach::Members, push("room", "anybody?"));
    assert_eq!(a.outcome(), (0, 1));
    assert!(begun.elapsed() < MESH_FORGET_TIME, "a request never waits for NATS");
    let big = vec![b'x'; 100_000];
    let command = Command::Push {
        target: Target::Topics(vec!["room".into()]),
        payloads: vec![Payload::new(big.into())],
    };
    let room = 100_000;
    let mut refused = 0;
    for _ in 0..2000 {
        if a.interest.reserve(room) {
            let (reach, command) = (Reach::Members, Arc::new(command.clone()));
            a.sender.send(MeshRequest::Command { reach, command, reply: None, room });
        } else {
            refused += 1;
        }
    }
    assert!(refused > 0 && a.interest.queued() <= 1 << 20, "{refused}");
    nats.freeze(false);
    wait_until("it flows again", || a.interest.queued() == 0);
    while b.metric("ringway_mesh_connected") == 0.0 || a.metric("ringway_mesh_connected") == 0.0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_node_without_nats_starts_and_joins_when_it_comes() {
    let mut nats = Nats::start();
    nats.stop();
    let mut a = Node::start(&nats, 1);
    a.tell(Reach::Members, push("room", "nobody"));
    assert_eq!(a.outcome(), (0, 0));
    nats.resume();
    let mut b = Node::start(&nats, 2);
    a.await_nodes(1);
    b.await_nodes(1);
}
