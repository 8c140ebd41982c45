//! Several gateway processes with one NATS server.

use std::io::{Read, Write};

use prost::Message;
use ringway::config::all::Config;
use ringway::hub::ConnId;
use ringway::hub::client_id::ClientIds;
use ringway::wire::worker::proto;
use serde_json::Value;

use crate::binary::{Binary, File, LISTENERS, serve};
use crate::common::*;
use crate::nats::Nats;

/// Listeners beside those of [`LISTENERS`].
pub const API: usize = 3;
pub const IM: usize = 4;
pub const XXIM: usize = 5;

const CONNECTIONS_MAX: u32 = 10_000;

/// One node: the process, and connections of a backend to it.
pub struct Node {
    pub binary: Binary,
    /// Hears of opened clients.
    pub worker: Business,
    pub task: Business,
    ids: ClientIds,
}

/// A client and its names.
pub struct Member {
    pub client: Client,
    pub uniq_id: String,
    /// Of connmix.
    pub client_id: i64,
}

impl Node {
    /// A node of the mesh, with netsvr commands for the whole cluster.
    pub fn start(number: u16, url: &str) -> Node {
        let (command, file) = command(number, url);
        let binary = Binary::spawn(command, file);
        let worker = binary.worker(1);
        let task = binary.task();
        let shards = Config::demo().runtime.cpus.len();
        let ids = ClientIds::new(number, shards, CONNECTIONS_MAX);
        Node { binary, worker, task, ids }
    }

    pub fn member(&mut self) -> Member {
        let client = self.binary.client();
        let uniq_id = self.worker.opened();
        let number = |text: &str| u32::from_str_radix(text, 16).expect("hexadecimal digits");
        let conn = ConnId::from_parts(number(&uniq_id[12..20]), number(&uniq_id[20..28]));
        Member { client, client_id: self.ids.encode(conn), uniq_id }
    }

    /// A request to the connmix API.
    pub fn http(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let mut socket = connect(self.binary.address(API));
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n\r\n\
             {body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).expect("the gateway reads");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("it answers");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{answer}: {error}"))
    }

    /// `mesh.publish`: how many connections it reached, and how many not.
    pub fn publish(&self, channel: &str, data: &str) -> (u64, u64) {
        let body = serde_json::json!({ "c": channel, "d": data });
        let answer = self.http("POST", "/v1/mesh/publish", &body);
        let number = |name: &str| answer["r"][name].as_u64();
        number("s").zip(number("f")).unwrap_or_else(|| panic!("{answer}"))
    }

    pub fn metric(&self, name: &str) -> u64 {
        self.binary.metric(name, "")
    }

    /// Sends a command of netsvr through the task connection.
    pub fn send(&mut self, cmd: u32, message: &impl Message) {
        self.task.send(cmd, message);
    }

    /// Makes a client a customer with topics, and waits until it is.
    pub fn settle(&mut self, member: &mut Member, customer: &str, topics: &[&str]) {
        let update = proto::ConnInfoUpdate {
            uniq_id: member.uniq_id.clone(),
            new_customer_id: customer.to_owned(),
            new_topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
            data: "settled".into(),
            ..Default::default()
        };
        self.send(cmd::CONN_INFO_UPDATE, &update);
        assert_eq!(member.client.frame().text(), "settled");
    }
}

/// The command line of a node and its file.
pub fn command(number: u16, url: &str) -> (std::process::Command, File) {
    let file = File::new(&format!(
        "{LISTENERS}\n[[listener]]\nbind = \"127.0.0.1:0\"\nprotocol = \"connmix-api\"\n\
         [[listener]]\nbind = \"127.0.0.1:0\"\nprotocol = \"im\"\n\
         [[listener]]\nbind = \"127.0.0.1:0\"\n\
         routes = [ {{ path = \"/ws\", protocol = \"xxim\" }} ]\n\
         [login]\nverifier = \"open\"\n[im]\nannounce_join = false\nbatch_delay = \"0s\"\n\
         [runtime]\nconnections_max = {CONNECTIONS_MAX}\nreceive_buffers = 256\n\
         [netsvr]\ncluster = true\n\
         [netsvr.worker]\nregister_delay = \"20ms\"\n[mesh]\nnats = [\"{url}\"]\n"
    ));
    let mut command = serve(&file);
    command.env("RINGWAY_NODE", number.to_string());
    (command, file)
}

/// Nodes 1, 2, .. that know each other.
pub fn cluster<const N: usize>(nats: &Nats) -> [Node; N] {
    let nodes = std::array::from_fn(|index| Node::start(index as u16 + 1, &nats.url()));
    await_nodes(&nodes);
    nodes
}

/// Waits until all know each other.
pub fn await_nodes(nodes: &[Node]) {
    for node in nodes {
        let others = nodes.len() as u64 - 1;
        wait_until("the nodes know each other", || node.metric("ringway_mesh_nodes") == others);
    }
}

/// Waits until a node knows that others listen to so many buckets.
pub fn await_wanted(node: &Node, buckets: u64) {
    let wanted = || node.metric("ringway_mesh_wanted_buckets");
    wait_until("the node knows what others want", || wanted() == buckets);
}
