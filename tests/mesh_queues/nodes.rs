//! Gateway processes whose queue topics are those of the cluster; clients that push, backends that
//! consume.

// Each test file uses its own part.
#![allow(dead_code)]

use std::collections::HashMap;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use ringway::wire::websocket::mask_frame;
use serde_json::{Value, json};

use crate::binary::{Binary, File, LISTENERS, serve};
use crate::common::*;

const API: usize = 3;
const CHAT: usize = 4;

/// One node.
pub struct Node {
    pub binary: Binary,
}

impl Node {
    /// A node that has found its stream. `queue` are further keys of `[connmix.queue]`.
    pub fn start(number: u16, url: &str, queue: &str) -> Node {
        let node = Node::start_alone(number, url, queue);
        wait_until("the stream is there", || node.metric("connected") == 1);
        node
    }

    /// The same without waiting for NATS.
    pub fn start_alone(number: u16, url: &str, queue: &str) -> Node {
        let (command, file) = command(number, url, queue);
        Node { binary: Binary::spawn(command, file) }
    }

    /// `ringway_queue_cluster_` with this ending.
    pub fn metric(&self, name: &str) -> u64 {
        self.binary.metric(&format!("ringway_queue_cluster_{name}"), "")
    }

    pub fn dropped(&self, reason: &str) -> u64 {
        self.binary.metric("ringway_dropped_total", &format!("reason=\"{reason}\""))
    }

    pub fn pushed(&self) -> u64 {
        self.binary.metric("ringway_queue_messages_pushed_total", "")
    }

    /// A client; what it says as `topic text` is pushed to `topic`.
    pub fn client(&self) -> Client {
        Client::open(self.binary.address(CHAT), "/chat")
    }

    /// A backend.
    pub fn backend(&self) -> Client {
        Client::open(self.binary.address(API), "/ws/v1")
    }

    /// A backend that consumes these topics.
    pub fn consumer(&self, topics: &[&str]) -> Client {
        let mut backend = self.backend();
        let pop = json!({ "m": "queue.pop", "p": { "t": topics }, "i": 1 });
        assert_eq!(ask(&mut backend, &pop)["E"], Value::Null);
        backend
    }
}

/// The command line of a node and its file.
pub fn command(number: u16, url: &str, queue: &str) -> (Command, File) {
    let nats = if url.is_empty() { String::new() } else { format!("nats = [\"{url}\"]") };
    let file = File::new(&format!(
        r#"{LISTENERS}
[[listener]]
bind = "127.0.0.1:0"
protocol = "connmix-api"
[[listener]]
bind = "127.0.0.1:0"
routes = [ {{ path = "/chat", protocol = "connmix" }} ]
[runtime]
connections_max = 10000
receive_buffers = 256
[mesh]
{nats}
[connmix.queue]
scope = "cluster"
{queue}
[[connmix.server]]
name = "chat"
read_timeout = "1h"
max_message = 2000000
[[connmix.server.rule]]
on = "message"
when = {{ "data" = "re:^ack ([a-z]+) " }}
do = [ {{ push = {{ topic = "${{m.1}}", include = ["frame"] }} }}, {{ send = "stored" }} ]
[[connmix.server.rule]]
on = "message"
when = {{ "data" = "re:^echo (.*)$" }}
do = [ {{ send = "${{m.1}}" }} ]
[[connmix.server.rule]]
on = "message"
when = {{ "data" = "join" }}
do = [ {{ subscribe = ["hall"] }}, {{ send = "joined" }} ]
[[connmix.server.rule]]
on = "message"
when = {{ "data" = "leaves" }}
do = [ {{ set = {{ leaves = true }} }}, {{ send = "noted" }} ]
[[connmix.server.rule]]
on = "close"
when = {{ "ctx.leaves" = true }}
do = [ {{ push = {{ topic = "gone", event = "close" }} }},
       {{ publish = {{ channel = "hall", data = "somebody is gone" }} }} ]
[[connmix.server.rule]]
on = "message"
when = {{ "data" = "re:^([a-z]+[0-9]*) " }}
do = [ {{ push = {{ topic = "${{m.1}}", include = ["frame"] }} }} ]
"#
    ));
    let mut command = serve(&file);
    command.env("RINGWAY_NODE", number.to_string());
    (command, file)
}

/// A request of a backend that consumes nothing yet, and its answer.
pub fn ask(backend: &mut Client, request: &Value) -> Value {
    backend.send_text(&request.to_string());
    serde_json::from_str(backend.frame().text()).expect("JSON")
}

/// One event: who pushed it (node and client), to which topic, which text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    pub node: u64,
    pub client: String,
    pub topic: String,
    pub text: String,
}

impl Event {
    pub fn parse(text: &str) -> Event {
        let value: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!((&value["e"], &value["id"]), (&json!("queue.pop"), &Value::Null), "{value}");
        let p = &value["p"];
        let of = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{p}")).to_owned();
        let text = of(&p["d"]["frame"]["data"]);
        let text = text.split_once(' ').expect("topic and text").1.to_owned();
        let node = p["n"].as_u64().expect("a node");
        Event { node, client: of(&p["c"]), topic: of(&p["t"]), text }
    }

    /// The text as a number.
    pub fn number(&self) -> usize {
        self.text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number")
    }
}

/// The next event of a consumer.
pub fn event(consumer: &mut Client) -> Event {
    Event::parse(consumer.frame().text())
}

/// Reads a consumer to its end in a thread, into a channel with the consumer's number.
pub fn read(mut consumer: Client, number: usize, sender: Sender<(usize, Event)>) {
    thread::spawn(move || {
        while let Some(frame) = consumer.try_frame() {
            if frame.first != 0x81 || sender.send((number, Event::parse(frame.text()))).is_err() {
                return;
            }
        }
    });
}

/// Consumers of one topic, read together.
pub fn readers(consumers: Vec<Client>) -> Receiver<(usize, Event)> {
    let (sender, receiver) = channel();
    for (number, consumer) in consumers.into_iter().enumerate() {
        read(consumer, number, sender.clone());
    }
    receiver
}

/// Clients of a node that push `0`, `1`, .. each to a topic, in a thread. Gives the clients back.
pub fn push_all(
    node: &Node,
    topic: &'static str,
    clients: usize,
    each: usize,
) -> thread::JoinHandle<Vec<Client>> {
    let mut clients: Vec<Client> = (0..clients).map(|_| node.client()).collect();
    thread::spawn(move || {
        for first in (0..each).step_by(20) {
            for client in &mut clients {
                let mut bytes = Vec::new();
                for number in first..each.min(first + 20) {
                    let text = format!("{topic} {number}");
                    bytes.extend(mask_frame(0x81, [9, 8, 7, 6], text.as_bytes()));
                }
                client.write(&bytes);
            }
        }
        clients
    })
}

/// What came: how often each message did.
#[derive(Default)]
pub struct Seen {
    times: HashMap<(String, usize), usize>,
    pub events: usize,
}

impl Seen {
    pub fn add(&mut self, event: &Event) {
        *self.times.entry((event.client.clone(), event.number())).or_default() += 1;
        self.events += 1;
    }

    /// Different messages.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Messages that came more than once.
    pub fn repeated(&self) -> usize {
        self.events - self.times.len()
    }
}

/// Whether nothing has come for a client.
pub fn is_silent(client: &Client) -> bool {
    client.socket.set_nonblocking(true).expect("a socket");
    let found = client.socket.peek(&mut [0]);
    client.socket.set_nonblocking(false).expect("a socket");
    found.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}
