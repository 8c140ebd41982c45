//! A gateway with the connmix API, and peers of the API: WebSocket and HTTP, byte by byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use ringway::config::all::Config;
use ringway::config::model::{Listener, ProxyProtocol, Service};
use ringway::hub::ConnId;
use ringway::hub::client_id::ClientIds;
use ringway::wire::websocket::mask_frame;
use ringway::wire::worker::proto;
use serde_json::Value;

use crate::common::{self, Client, Server, cmd};

/// The configuration of the other tests with a connmix API, whose listener has this number.
pub fn config() -> (Config, usize) {
    let mut config = common::config();
    let is_api = |listener: &Listener| listener.service == Service::ConnmixApi;
    if !config.listeners.iter().any(is_api) {
        let bind = "127.0.0.1:0".parse().expect("an address");
        config.listeners.push(Listener {
            bind,
            proxy: ProxyProtocol::Off,
            socket: None,
            tls: None,
            service: Service::ConnmixApi,
        });
    }
    let number = config.listeners.iter().rposition(is_api).expect("it is there");
    (config, number)
}

/// A gateway with connmix clients on `/chat`, whose only server has these rules; `more` is further
/// configuration.
pub fn connmix(rules: &str, more: &str) -> Api {
    let text = format!(
        r#"
{more}
[[listener]]
bind = "127.0.0.1:0"
routes = [ {{ path = "/netsvr", protocol = "netsvr" }}, {{ path = "/chat", protocol = "connmix" }} ]

[[listener]]
bind = "127.0.0.1:0"
protocol = "netsvr-worker"

[[listener]]
bind = "127.0.0.1:0"
protocol = "netsvr-task"

[[listener]]
bind = "127.0.0.1:0"
protocol = "connmix-api"

[admin]
bind = ""

[[connmix.server]]
name = "chat"
{rules}
"#
    );
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("a file takes it");
    let loaded = ringway::config::all::load_with(file.path(), []);
    let mut config = loaded.unwrap_or_else(|error| panic!("{error}")).config;
    config.runtime.cpus = common::config().runtime.cpus;
    Api::start_with(config, 3)
}

/// A gateway, and the addresses of its API and of its WebSocket clients.
pub struct Api {
    pub server: Server,
    pub address: SocketAddr,
    pub clients: SocketAddr,
    ids: ClientIds,
}

impl Api {
    pub fn start() -> Api {
        let (config, number) = config();
        Api::start_with(config, number)
    }

    pub fn start_with(config: Config, number: usize) -> Api {
        let (shards, slots_max) = (config.runtime.cpus.len(), config.runtime.connections_max);
        let ids = ClientIds::new(config.node, shards, slots_max);
        let server = Server::start(config);
        let (address, clients) = (server.address(number), server.address(common::CLIENTS));
        Api { server, address, clients, ids }
    }

    /// A backend on the WebSocket.
    pub fn peer(&self) -> Peer {
        Peer { client: Client::open(self.address, "/ws/v1") }
    }

    /// A backend that speaks HTTP.
    pub fn http(&self) -> Http {
        Http { socket: common::connect(self.address), buffer: Vec::new() }
    }

    /// A netsvr client and its client_id.
    pub fn netsvr_client(&self) -> (Client, i64) {
        let mut task = self.server.task();
        let known: proto::UniqIdListResp = task.ask(cmd::UNIQ_ID_LIST, &());
        let client = self.server.client();
        let mut found = Vec::new();
        common::wait_until("the client is open", || {
            let now: proto::UniqIdListResp = task.ask(cmd::UNIQ_ID_LIST, &());
            found = now.uniq_ids;
            found.retain(|id| !known.uniq_ids.contains(id));
            !found.is_empty()
        });
        (client, self.client_id(&found[0]))
    }

    /// A connmix client whose rules tell it its client_id when it opens.
    pub fn client(&self, path: &str) -> (Client, i64) {
        let mut client = Client::open(self.clients, path);
        let id = client.frame().text().parse().expect("a client_id");
        (client, id)
    }

    /// The client_id of the connection with this uniqId.
    pub fn client_id(&self, uniq_id: &str) -> i64 {
        let number = |text: &str| u32::from_str_radix(text, 16).expect("hexadecimal digits");
        self.ids.encode(ConnId::from_parts(number(&uniq_id[12..20]), number(&uniq_id[20..28])))
    }

    /// The connection of a client_id that was just issued.
    pub fn conn(&self, client: i64) -> ConnId {
        let unix = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let unix = unix.expect("after 1970").as_secs() as u32;
        self.ids.decode(client, unix).expect("an id of this node")
    }
}

/// A WebSocket connection to the API.
pub struct Peer {
    pub client: Client,
}

impl Peer {
    pub fn send(&mut self, text: &str) {
        self.client.send_text(text);
    }

    /// The next message, which must be text.
    pub fn text(&mut self) -> String {
        let frame = self.client.frame();
        assert_eq!(frame.first, 0x81, "a text message was expected, not {frame:?}");
        frame.text().to_owned()
    }

    /// The next message as JSON.
    pub fn json(&mut self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// A request and its answer.
    pub fn ask(&mut self, text: &str) -> Value {
        self.send(text);
        self.json()
    }

    /// A request that must succeed.
    pub fn done(&mut self, text: &str) {
        let answer = self.ask(text);
        assert_eq!(answer["E"], Value::Null, "{text}: {answer}");
    }

    /// Sends a message in fragments of so many bytes.
    pub fn send_fragments(&mut self, text: &str, size: usize) {
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let opcode = if index == 0 { 1 } else { 0 };
            let fin = if index + 1 == pieces.len() { 0x80 } else { 0 };
            self.client.write(&mask_frame(fin | opcode, [5, 6, 7, 8], piece));
        }
    }
}

/// An HTTP connection to the API.
pub struct Http {
    pub socket: TcpStream,
    buffer: Vec<u8>,
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{self:?}: {error}"))
    }
}

impl Http {
    pub fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the gateway reads");
    }

    pub fn send(&mut self, method: &str, path: &str, headers: &str, body: &str) {
        self.write(request(method, path, headers, body).as_bytes());
    }

    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> Reply {
        self.send(method, path, "", body);
        self.reply()
    }

    /// The next answer.
    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("the gateway closed without another answer")
    }

    /// The next answer, or `None` at the end of the stream.
    pub fn try_reply(&mut self) -> Option<Reply> {
        loop {
            if let Some(reply) = self.take() {
                return Some(reply);
            }
            let mut piece = [0; 65536];
            match self.socket.read(&mut piece) {
                Ok(0) => {
                    assert!(self.buffer.is_empty(), "closed inside of an answer");
                    return None;
                }
                Ok(count) => self.buffer.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// The next bytes behind the last answer.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            let mut piece = [0; 1024];
            let read = self.socket.read(&mut piece).expect("more bytes");
            assert!(read > 0, "closed with {:?}", self.buffer);
            self.buffer.extend_from_slice(&piece[..read]);
        }
        self.buffer.drain(..count).collect()
    }

    fn take(&mut self) -> Option<Reply> {
        let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.buffer[..end].to_vec()).expect("an ASCII head");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(0, |length| length.trim().parse().expect("a number"));
        let body = self.buffer.get(end..end + length)?.to_vec();
        self.buffer.drain(..end + length);
        let status = head[9..12].parse().expect("a status code");
        Some(Reply { status, head, body })
    }
}

/// A request with a `Content-Length`. `headers` are whole lines.
pub fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// Compares an answer with what was expected; the text of errors is for people.
pub fn assert_answer(mut actual: Value, mut expected: Value, what: &str) {
    for value in [&mut actual, &mut expected] {
        if let Some(error) = value.get_mut("E").and_then(Value::as_object_mut) {
            assert!(error.remove("m").is_some_and(|m| m.is_string()), "{what}: no text");
        }
    }
    assert_eq!(actual, expected, "{what}");
}
