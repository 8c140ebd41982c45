//! What operators get to see, as JSON. Names of fields are part of the interface: they do not
//! change within a version of it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use serde_json::{Map, Value, json};

use crate::engine::look::{Details, Row, Shard, Worker};
use crate::hub::ConnId;
use crate::hub::mesh::Node;
use crate::lists::numbers::kind;
use crate::wire::worker::UniqIds;

/// A listener, by its number.
#[derive(Clone, Debug)]
pub struct ListenerFacts {
    /// What it speaks, as the log names it.
    pub service: String,
    pub bound: SocketAddr,
    pub tls: bool,
}

impl ListenerFacts {
    pub(super) fn json(&self) -> Value {
        json!({ "service": self.service, "address": self.bound.to_string(), "tls": self.tls })
    }
}

/// How things of this node are named.
#[derive(Clone, Debug)]
pub struct Namer {
    pub node: u16,
    pub ids: UniqIds,
    pub listeners: Vec<ListenerFacts>,
}

impl Default for Namer {
    /// Of a node without listeners.
    fn default() -> Namer {
        let nowhere = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        Namer { node: 0, ids: UniqIds::new(nowhere), listeners: Vec::new() }
    }
}

impl Namer {
    /// The name of a connection.
    pub fn id(&self, conn: ConnId) -> String {
        String::from_utf8_lossy(&self.ids.encode(conn)).into_owned()
    }

    fn listener(&self, number: u16) -> String {
        let listener = self.listeners.get(usize::from(number));
        listener.map(|listener| listener.bound.to_string()).unwrap_or_default()
    }

    fn row_map(&self, row: &Row) -> Map<String, Value> {
        let traffic = row.traffic;
        let value = json!({
            "id": self.id(row.conn),
            "node": self.node,
            "shard": row.conn.shard(),
            "protocol": kind::NAMES.get(usize::from(row.kind.0)),
            "state": row.state.name(),
            "client": row.client,
            "address": row.peer.to_string(),
            "listener": self.listener(row.listener),
            "user": row.user,
            "topics": row.topics,
            "age_seconds": row.age_s,
            "idle_ms": row.idle_ms,
            "outbox_bytes": row.outbox_bytes,
            "received_messages": traffic.received.messages,
            "received_bytes": traffic.received.bytes,
            "sent_messages": traffic.sent.messages,
            "sent_bytes": traffic.sent.bytes,
        });
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    /// A connection in a list.
    pub fn row(&self, row: &Row) -> Value {
        Value::Object(self.row_map(row))
    }

    /// All that is known of a connection.
    pub fn details(&self, details: &Details) -> Value {
        let mut map = self.row_map(&details.row);
        let facts = details.notes.facts.iter();
        let facts: Map<_, _> =
            facts.map(|(name, text)| ((*name).to_owned(), json!(text))).collect();
        let reasons: Vec<_> = details.reasons.iter().chain(&details.notes.reasons).collect();
        let names: Vec<&str> = details.topics.iter().map(|topic| &**topic).collect();
        for (name, value) in [
            ("topic_names", json!(names)),
            ("session_bytes", json!(details.session_bytes)),
            ("tls", json!(details.tls)),
            ("websocket", json!(details.websocket)),
            ("held_bytes", json!(details.held_bytes)),
            ("stalled_ms", json!(details.stalled_ms)),
            ("worker", json!(details.worker)),
            ("reasons", json!(reasons)),
            ("facts", Value::Object(facts)),
        ] {
            map.insert(name.to_owned(), value);
        }
        Value::Object(map)
    }

    /// A registered worker.
    pub fn worker(&self, worker: &Worker) -> Value {
        json!({
            "id": self.id(worker.conn),
            "node": self.node,
            "shard": worker.conn.shard(),
            "name": worker.name,
            "events": worker.events,
            "queued_frames": worker.frames,
            "queued_bytes": worker.bytes,
        })
    }

    /// Another node of the mesh, as it has announced itself.
    pub fn other(&self, node: &Node) -> Value {
        let addresses = node.addresses.iter();
        let addresses: Vec<Value> = addresses
            .map(|(service, at)| json!({ "service": service, "address": at.to_string() }))
            .collect();
        json!({
            "node": node.number,
            "version": node.version,
            "own": false,
            "started_unix_ms": node.started_ms,
            "shards": node.shards,
            "connections": node.connections,
            "clients": node.clients,
            "listeners": addresses,
        })
    }

    /// The load of a shard.
    pub fn shard(&self, number: usize, load: &Shard) -> Value {
        let name = |kind: u8| kind::NAMES.get(usize::from(kind)).copied().unwrap_or_default();
        let by_kind = load.connections.iter();
        let by_kind: Map<_, _> =
            by_kind.map(|(kind, count)| (name(kind.0).to_owned(), json!(count))).collect();
        json!({
            "node": self.node,
            "shard": number,
            "connections": Value::Object(by_kind),
            "clients": load.clients,
            "users": load.users,
            "topics": load.topics,
            "subscriptions": load.subscriptions,
            "clients_waiting_for_workers": load.waiting,
            "stalled_sends": load.stalled,
            "mail_waiting": load.mail,
            "draining": load.draining,
        })
    }
}
