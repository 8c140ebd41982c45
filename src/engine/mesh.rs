//! The shard's side of the mesh: commands that go to other nodes as well, and what other nodes must
//! know about this shard.
//!
//! A command takes effect here first, as without a mesh, and is then handed to the mesh if another
//! node may have somebody whom it reaches; nothing here waits for it. When too much waits for the
//! link it is dropped and counted, and if somebody wants its outcome, that is one failure.
//! Costs: a hash and a bit per name; a copy of the names, and none of the payload, for what leaves.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::model::Service;
use crate::engine::Engine;
use crate::engine::wants::Want;
use crate::hub::ConnId;
use crate::hub::client_id::ClientIds;
use crate::hub::context::ContextValue;
use crate::hub::mesh::{Interest, Node, Nodes};
use crate::hub::push::{Call, Change, Command, Outcome, Payload, Target, TopicChange};
use crate::hub::queries::Query;
use crate::lists::letters::{MeshRequest, Reach, Reply};
use crate::metrics::DropReason;
use crate::spare::Look;
use crate::wire::worker::UniqIds;

/// What a command costs of the room for what waits, beside its payloads and names.
const COMMAND_BYTES: usize = 256;
/// The same per name.
const NAME_BYTES: usize = 32;

/// What a shard keeps of the mesh.
#[derive(Debug)]
pub(crate) struct Mesh {
    interest: Arc<Interest>,
    /// The other nodes.
    pub nodes: Arc<Nodes>,
    /// Their uniqIds (netsvr).
    pub uniq_ids: Vec<(u16, UniqIds)>,
    /// For the mesh, in order.
    out: VecDeque<MeshRequest>,
}

impl Mesh {
    /// No other node is known yet.
    pub fn new(interest: Arc<Interest>) -> Mesh {
        Mesh { interest, nodes: Arc::default(), uniq_ids: Vec::new(), out: VecDeque::new() }
    }

    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.out);
    }
}

impl Engine {
    /// Asks another node, or all of them; the answer is one more to the question.
    pub(crate) fn ask_node(&mut self, number: u64, to: Option<u16>, query: Query) {
        let reply = (self.id, number);
        self.tell_mesh(MeshRequest::Ask { to, query: Arc::new(query), reply });
    }

    /// How the connections of another node are named (netsvr).
    pub(crate) fn uniq_ids_of(&self, node: u16) -> Option<UniqIds> {
        let mut all = self.mesh.as_ref()?.uniq_ids.iter();
        all.find(|(of, _)| *of == node).map(|(_, ids)| *ids)
    }

    /// Carries out a command on another node.
    pub(crate) fn dispatch_to(&mut self, node: u16, command: Command) {
        self.hand_over(Reach::Node(node), Arc::new(command), None);
    }

    /// The connection that a connmix client_id names, and its node, if that is another one. A node
    /// that is not there has no connections.
    pub(crate) fn client(&self, client: i64) -> Option<(Option<u16>, ConnId)> {
        let number = ClientIds::node_of(client);
        if number == self.client_ids.node() {
            return Some((None, self.client_ids.decode(client, self.now.unix)?));
        }
        let node = self.mesh.as_ref()?.nodes.get(number)?;
        let ids = client_ids(node);
        Some((Some(number), ids.decode(client, self.now.unix)?))
    }

    /// The other nodes that have an API of connmix, and where.
    pub(crate) fn other_apis(&self) -> Vec<(u16, SocketAddr)> {
        let Some(mesh) = &self.mesh else { return Vec::new() };
        let api = Service::ConnmixApi.id();
        let of = |node: &Node| {
            let mut addresses = node.addresses.iter().rev();
            let (_, address) = addresses.find(|(service, _)| **service == *api)?;
            Some((node.number, *address))
        };
        mesh.nodes.iter().filter_map(of).collect()
    }

    /// Whether another node may have somebody whom the command reaches.
    pub(crate) fn leaves(&self, command: &Command) -> bool {
        let Some(mesh) = &self.mesh else { return false };
        match command {
            Command::Push { target, .. } | Command::Kick { target, .. } => {
                mesh.interest.wants(target)
            }
            Command::DeleteTopics { topics, .. } => mesh.interest.wants_topics(topics),
            Command::Room(message) => mesh.interest.wants_topic(&message.topic),
            // Their connection is here; sessions of IM are those of a node.
            Command::Update { .. }
            | Command::Call { .. }
            | Command::Replace(_)
            | Command::Displace { .. } => false,
        }
    }

    pub(crate) fn hand_over(&mut self, reach: Reach, command: Arc<Command>, reply: Option<u64>) {
        let room = room_of(&command);
        let Some(mesh) = &mut self.mesh else { return };
        if mesh.interest.reserve(room) {
            let reply = reply.map(|number| (self.id, number));
            mesh.out.push_back(MeshRequest::Command { reach, command, reply, room });
            return;
        }
        self.dropped(DropReason::MeshFull, 1);
        if let Some(number) = reply {
            let part = Outcome { done: 0, failed: 1 };
            self.wants.push(Want::Outcome { number, part });
        }
    }

    /// Answers a question of another node, after what other nodes must know before that.
    pub(crate) fn reply_to_mesh(&mut self, number: u64, reply: Reply) {
        self.tell_turns();
        self.tell_mesh(MeshRequest::Replied { number, reply });
    }

    /// Tells which buckets got their first name or lost their last one.
    pub(crate) fn tell_turns(&mut self) {
        let Some(occupancy) = self.hub.occupancy() else { return };
        if !occupancy.has_turned() {
            return;
        }
        let turns = occupancy.take();
        if let Some(mesh) = &mut self.mesh
            && !turns.is_empty()
        {
            mesh.out.push_back(MeshRequest::Turned { shard: self.id, turns });
        }
    }

    /// A connection of this node has taken an xxim login; other nodes must give it up.
    pub(crate) fn claim_everywhere(&mut self, login: [Box<str>; 3], conn: ConnId, order: u64) {
        if self.mesh.is_some() {
            let at_ms = order / 1000;
            self.tell_mesh(MeshRequest::Claim { login, conn, at_ms });
        }
    }

    /// Says something to the mesh, if there is one.
    pub(crate) fn tell_mesh(&mut self, request: MeshRequest) {
        if let Some(mesh) = &mut self.mesh {
            mesh.out.push_back(request);
        }
    }

    /// The next message to the mesh.
    pub(crate) fn next_mesh(&mut self) -> Option<MeshRequest> {
        self.mesh.as_mut()?.out.pop_front()
    }

    /// The other nodes have changed.
    pub(crate) fn nodes_changed(&mut self, nodes: Arc<Nodes>) {
        if let Some(mesh) = &mut self.mesh {
            let ids = nodes.iter().map(|node| (node.number, uniq_ids(node)));
            mesh.uniq_ids = ids.collect();
            mesh.nodes = nodes;
        }
    }
}

/// The client_ids of another node.
fn client_ids(node: &Node) -> ClientIds {
    ClientIds::new(node.number, node.shards.into(), node.slots_max).starting(node.ids_start)
}

/// The uniqIds of another node.
fn uniq_ids(node: &Node) -> UniqIds {
    UniqIds::new(node.advertise).rotated(client_ids(node).rotation(node.ids_start))
}

/// Bytes that a command takes of the room for what waits.
fn room_of(command: &Command) -> usize {
    let payload = |payload: &Arc<Payload>| payload.raw().len() + COMMAND_BYTES;
    let names = |names: &[Box<str>]| names.iter().map(|name| name.len() + NAME_BYTES).sum();
    let target = |target: &Target| -> usize {
        match target {
            Target::Conns(conns) => size_of_val(&conns[..]),
            Target::Users(list) | Target::Topics(list) => names(list),
            Target::All => 0,
        }
    };
    let change = |change: &Change| -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        let topics = match &change.topics {
            None => 0,
            Some(
                TopicChange::Replace(list) | TopicChange::Add(list) | TopicChange::Remove(list),
            ) => names(list),
        };
        topics + text(&change.session) + text(&change.user)
    };
    COMMAND_BYTES
        + match command {
            Command::Push { target: to, payloads } => {
                target(to) + payloads.iter().map(payload).sum::<usize>()
            }
            Command::Update { change: changed, payload: then, .. } => {
                change(changed) + then.as_ref().map_or(0, payload)
            }
            Command::DeleteTopics { topics, payload: then } => {
                names(topics) + then.as_ref().map_or(0, payload)
            }
            Command::Kick { target: to, payload: then, .. } => {
                target(to) + then.as_ref().map_or(0, payload)
            }
            Command::Call { call, .. } => match call {
                Call::Subscribe(list) | Call::Unsubscribe(list) => names(list),
                Call::SetContext(values) => {
                    let bytes = |(key, value): &ContextValue| {
                        key.len() + value.as_ref().map_or(0, |value| value.len()) + NAME_BYTES
                    };
                    values.iter().map(bytes).sum()
                }
            },
            Command::Room(message) => message.element.len() + message.topic.len(),
            Command::Replace(_) | Command::Displace { .. } => 0,
        }
}
