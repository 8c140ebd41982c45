//! The other nodes of the mesh, as shards see them.

use std::net::{SocketAddr, SocketAddrV4};

/// One node, as it announces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// 1..=1023.
    pub number: u16,
    /// Random; another one after each start.
    pub instance: u64,
    /// Unix milliseconds at which its process started.
    pub started_ms: u64,
    /// Of the program.
    pub version: Box<str>,
    /// What it listens for, in the words of the configuration, and where.
    pub addresses: Vec<(Box<str>, SocketAddr)>,
    /// The address that its uniqIds carry (netsvr).
    pub advertise: SocketAddrV4,
    /// Shards, and connections that a shard can have: its connmix client_ids depend on them.
    pub shards: u16,
    pub slots_max: u32,
    /// Where the rotation of its public ids begins.
    pub ids_start: u32,
    /// Open connections, of clients and of backends.
    pub connections: u64,
    /// Clients.
    pub clients: u64,
}

/// The other nodes, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes(Vec<Node>);

impl Nodes {
    /// In any order; no number may occur twice.
    pub fn new(mut nodes: Vec<Node>) -> Nodes {
        nodes.sort_unstable_by_key(|node| node.number);
        debug_assert!(nodes.is_sorted_by(|a, b| a.number < b.number));
        Nodes(nodes)
    }

    /// The node of this number, if it is there.
    pub fn get(&self, number: u16) -> Option<&Node> {
        let at = self.0.binary_search_by_key(&number, |node| node.number).ok()?;
        self.0.get(at)
    }

    /// All of them, by number.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.0.iter()
    }

    /// Whether there is no other node.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
