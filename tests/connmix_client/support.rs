//! A gateway with one connmix server, over WebSocket and TCP, and a backend of its API.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;

use ringway::config;
use serde_json::Value;

use crate::common::{self, Business, Client, Server};

const LISTENERS: &str = r#"
[[listener]]
bind = "127.0.0.1:0"
routes = [ { path = "/chat", protocol = "connmix" }, { path = "/netsvr", protocol = "netsvr" } ]

[[listener]]
bind = "127.0.0.1:0"
protocol = "connmix"

[[listener]]
bind = "127.0.0.1:0"
protocol = "connmix-api"

[[listener]]
bind = "127.0.0.1:0"
protocol = "netsvr-worker"

[[listener]]
bind = "127.0.0.1:0"
protocol = "im"

[admin]
bind = ""

[[connmix.server]]
name = "chat"
"#;

/// Pushes everything to queue `q`.
pub const PUSH_ALL: &str = r#"
[[connmix.server.rule]]
on = "open"
do = [ { push = { topic = "q", event = "open" } } ]
[[connmix.server.rule]]
on = "message"
do = [ { push = { topic = "q", include = ["frame"] } } ]
[[connmix.server.rule]]
on = "close"
do = [ { push = { topic = "q", event = "close" } } ]
"#;

pub struct Gateway {
    pub server: Server,
}

impl Gateway {
    /// With these settings and rules of the server, and tables after it.
    pub fn start(rules: &str) -> Gateway {
        let text = format!("{LISTENERS}{rules}");
        let mut config =
            config::all::from_text(&text, "test").expect("a good configuration").config;
        let first = config.runtime.cpus[0];
        let second = *config.runtime.cpus.last().expect("there is a first");
        config.runtime.cpus = vec![first, second];
        Gateway { server: Server::start(config) }
    }

    /// A WebSocket client.
    pub fn client(&self) -> Client {
        Client::open(self.server.address(0), "/chat")
    }

    pub fn client_with(&self, target: &str, headers: &str) -> Client {
        Client::open_with(self.server.address(0), target, headers)
    }

    pub fn netsvr_client(&self) -> Client {
        Client::open(self.server.address(0), "/netsvr")
    }

    pub fn tcp(&self) -> Tcp {
        Tcp { socket: common::connect(self.server.address(1)), buffer: Vec::new() }
    }

    /// The page of `/metrics` on the API's port.
    pub fn metrics(&self) -> String {
        self.http("GET /metrics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    }

    /// The answer to a post to the API, with its head.
    pub fn post(&self, path: &str, body: &str) -> String {
        let length = body.len();
        self.http(&format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ))
    }

    fn http(&self, request: &str) -> String {
        let mut socket = common::connect(self.server.address(2));
        socket.write_all(request.as_bytes()).expect("it reads");
        let mut page = String::new();
        socket.read_to_string(&mut page).expect("it answers");
        page
    }

    /// A worker of the API that consumes these queues.
    pub fn worker(&self, topics: &[&str]) -> Worker {
        let mut worker = Worker {
            client: Client::open(self.server.address(2), "/ws/v1"),
            events: VecDeque::new(),
        };
        if !topics.is_empty() {
            worker.done("queue.pop", serde_json::json!({ "t": topics }));
        }
        worker
    }

    pub fn netsvr_worker(&self) -> Business {
        Business::connect(self.server.address(3))
    }
}

/// A backend on `/ws/v1`.
pub struct Worker {
    client: Client,
    /// Events that came while it waited for an answer.
    events: VecDeque<Value>,
}

impl Worker {
    fn json(&mut self) -> Value {
        serde_json::from_str(self.client.frame().text()).expect("JSON")
    }

    /// The next event: client and `d`.
    pub fn event(&mut self) -> (String, Value) {
        let mut event = self.events.pop_front().unwrap_or_else(|| self.json());
        assert_eq!(event["e"], "queue.pop", "{event}");
        let client = event["p"]["c"].as_str().expect("a text").to_owned();
        (client, event["p"]["d"].take())
    }

    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        self.ask_text(&serde_json::json!({ "m": method, "p": params, "i": 1 }).to_string())
    }

    /// A request as it is written here; its answer.
    pub fn ask_text(&mut self, request: &str) -> Value {
        self.client.send_text(request);
        self.answer()
    }

    fn answer(&mut self) -> Value {
        loop {
            let message = self.json();
            match message.get("e") {
                Some(_) => self.events.push_back(message),
                None => return message,
            }
        }
    }

    /// A request that succeeds.
    pub fn done(&mut self, method: &str, params: Value) -> Value {
        let answer = self.ask(method, params);
        assert_eq!(answer["E"], Value::Null, "{method}: {answer}");
        answer["r"].clone()
    }

    pub fn call(&mut self, client: &str, function: &str, arguments: Value) {
        self.done("conn.call", serde_json::json!({ "c": client, "f": function, "a": arguments }));
    }

    pub fn send(&mut self, client: &str, data: &str) {
        self.done("mesh.send", serde_json::json!({ "c": client, "d": data }));
    }
}

/// A TCP client.
pub struct Tcp {
    pub socket: TcpStream,
    buffer: Vec<u8>,
}

impl Tcp {
    pub fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the gateway reads");
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill(), "closed after {:?}", self.buffer);
        }
        self.buffer.drain(..count).collect()
    }

    /// The next line, without its end.
    pub fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return String::from_utf8(line[..end].to_vec()).expect("a text");
            }
            assert!(self.fill(), "closed after {:?}", self.buffer);
        }
    }

    /// Checks that nothing but the end follows.
    pub fn expect_end(&mut self) {
        while self.fill() {}
        assert_eq!(String::from_utf8_lossy(&self.buffer), "");
    }

    fn fill(&mut self) -> bool {
        let mut piece = [0; 65536];
        match self.socket.read(&mut piece) {
            Ok(0) => false,
            Ok(count) => {
                self.buffer.extend_from_slice(&piece[..count]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came: {error}"),
        }
    }
}

/// The next message of a client, which is a text.
pub fn text(client: &mut Client) -> String {
    let frame = client.frame();
    assert_eq!(frame.first, 0x81, "a text was expected, not {frame:?}");
    frame.text().to_owned()
}
