//! The other nodes: who they are, what they want, and when they were heard last.
//!
//! Invariants: what [`Interest`] says is the union of what the nodes here have said; of each lane
//! of a node no envelope is taken twice, nor one that is older than one that was taken.
//! Costs: a change of a bucket asks every node once; an envelope is one look-up by node and one by
//! lane.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

use super::codec::Lane;
use crate::hub::mesh::{Bitmap, Bucket, Interest, Node, Nodes, Space};
use crate::limits::{MESH_ADDRESSES_MAX, MESH_COUNTS_MAX, MESH_FORGET_TIME, SHARDS_MAX, SLOTS_MAX};
use crate::wire::mesh::{Envelope, Hello, MeshError, proto};

/// One other node.
#[derive(Debug)]
struct Peer {
    node: Node,
    heard: Instant,
    topics: Bitmap,
    users: Bitmap,
    /// Whether `topics` and `users` are from after the link was lost last.
    fresh: bool,
    /// It says that it stands still: it does not answer.
    still: bool,
    /// Highest sequence of each lane.
    taken: HashMap<Lane, u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Members {
    peers: BTreeMap<u16, Peer>,
    /// What names had members at each node when it last answered.
    counts: HashMap<(u16, Box<str>), u64>,
}

/// What a [`Hello`] was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A node that was not there, or that has started anew.
    Came,
    /// One that is there already; its load may have changed.
    Stays,
    /// It says that it ends, or it is an older instance of one that is there.
    Left,
}

impl Members {
    /// Takes what a node says of itself.
    pub fn hello(
        &mut self,
        envelope: &Envelope,
        hello: &Hello,
        now: Instant,
        interest: &Interest,
    ) -> Result<News, MeshError> {
        let node = node(envelope, hello)?;
        let bitmap = |bytes: &[u8]| {
            Bitmap::from_bytes(bytes).ok_or(MeshError::Wrong("a map of buckets has no 512 bytes"))
        };
        let (topics, users) = (bitmap(&hello.topics)?, bitmap(&hello.users)?);
        let number = node.number;
        let known = self.peers.get(&number).map(|p| (p.node.started_ms, p.node.instance));
        let age = (node.started_ms, node.instance);
        if hello.leaves || known.is_some_and(|known| known > age) {
            if known == Some(age) {
                self.remove(number);
                self.tell(interest);
            }
            return Ok(News::Left);
        }
        let news = if known == Some(age) { News::Stays } else { News::Came };
        let taken = match (news, self.peers.remove(&number)) {
            (News::Stays, Some(peer)) => peer.taken,
            _ => HashMap::new(),
        };
        let still = hello.stands_still;
        let peer = Peer { node, heard: now, topics, users, fresh: true, still, taken };
        self.peers.insert(number, peer);
        self.tell(interest);
        Ok(news)
    }

    /// Takes a change of what a node wants; false if the node is not known, and must be asked.
    pub fn buckets(
        &mut self,
        envelope: &Envelope,
        buckets: &proto::Buckets,
        interest: &Interest,
    ) -> bool {
        let Some(peer) = self.peer(envelope) else { return false };
        let lists = [
            (Space::Topics, true, &buckets.topics_taken),
            (Space::Topics, false, &buckets.topics_left),
            (Space::Users, true, &buckets.users_taken),
            (Space::Users, false, &buckets.users_left),
        ];
        let mut changed = Vec::new();
        for (space, on, numbers) in lists {
            let map = match space {
                Space::Topics => &mut peer.topics,
                Space::Users => &mut peer.users,
            };
            for number in numbers.iter().filter_map(|&number| u16::try_from(number).ok()) {
                if usize::from(number) < crate::hub::mesh::BUCKETS {
                    map.set(number, on);
                    changed.push(Bucket { space, number });
                }
            }
        }
        for bucket in changed {
            interest.set(bucket, self.peers.values().any(|peer| peer.wants(bucket)));
        }
        true
    }

    /// Whether an envelope is the next of its lane, from a node that is there.
    pub fn takes(&mut self, envelope: &Envelope, lane: Lane) -> bool {
        let Some(peer) = self.peer(envelope) else { return false };
        let taken = peer.taken.entry(lane).or_default();
        let news = envelope.sequence > *taken;
        *taken = envelope.sequence.max(*taken);
        news
    }

    /// Whether the node that sent it is there.
    pub fn knows(&self, envelope: &Envelope) -> bool {
        let peer = u16::try_from(envelope.node).ok().and_then(|node| self.peers.get(&node));
        peer.is_some_and(|peer| peer.node.instance == envelope.instance)
    }

    /// Forgets who has been silent for too long; returns their numbers.
    pub fn forget(&mut self, now: Instant, interest: &Interest) -> Vec<u16> {
        let silent = |peer: &Peer| now.saturating_duration_since(peer.heard) > MESH_FORGET_TIME;
        let gone: Vec<u16> =
            self.peers.iter().filter(|(_, peer)| silent(peer)).map(|(node, _)| *node).collect();
        gone.iter().for_each(|&node| self.remove(node));
        if !gone.is_empty() {
            self.tell(interest);
        }
        gone
    }

    /// The link was lost: what nodes want may have changed meanwhile.
    pub fn doubt(&mut self, interest: &Interest) {
        self.peers.values_mut().for_each(|peer| peer.fresh = false);
        self.tell(interest);
    }

    /// Who must answer what goes out on a lane.
    pub fn expected(&self, lane: Lane) -> Vec<u16> {
        let peers = self.peers.iter();
        let wanted = peers.filter(|(number, peer)| match lane {
            Lane::Node(node) => node == **number,
            Lane::Bucket(bucket) => peer.wants(bucket),
            Lane::All => true,
        });
        wanted.map(|(number, _)| *number).collect()
    }

    /// Whether a node has said that it stands still. Nobody waits for its answers.
    pub fn stands_still(&self, node: u16) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.still)
    }

    /// Whether it is known of every node what it wants.
    pub fn is_sure(&self) -> bool {
        self.peers.values().all(|peer| peer.fresh)
    }

    /// Remembers what a node answered about a name.
    pub fn count(&mut self, node: u16, name: &str, members: u64) {
        if self.counts.len() >= MESH_COUNTS_MAX {
            self.counts.clear();
        }
        self.counts.insert((node, name.into()), members);
    }

    /// How many members a name had when the node last answered; at least 1.
    pub fn last_count(&self, node: u16, name: Option<&str>) -> u64 {
        let known = name.and_then(|name| self.counts.get(&(node, name.into())));
        known.copied().unwrap_or_default().max(1)
    }

    /// For the shards.
    pub fn nodes(&self) -> Nodes {
        Nodes::new(self.peers.values().map(|peer| peer.node.clone()).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Tells the shards everything anew.
    pub fn tell(&self, interest: &Interest) {
        for space in [Space::Topics, Space::Users] {
            let mut wanted = Bitmap::default();
            for peer in self.peers.values() {
                wanted.add(peer.map(space));
            }
            interest.set_all(space, &wanted);
        }
        interest.set_nodes(self.peers.len(), !self.is_sure());
    }

    fn peer(&mut self, envelope: &Envelope) -> Option<&mut Peer> {
        let peer = self.peers.get_mut(&u16::try_from(envelope.node).ok()?)?;
        (peer.node.instance == envelope.instance).then_some(peer)
    }

    fn remove(&mut self, node: u16) {
        self.peers.remove(&node);
        self.counts.retain(|(of, _), _| *of != node);
    }
}

impl Peer {
    fn map(&self, space: Space) -> &Bitmap {
        match space {
            Space::Topics => &self.topics,
            Space::Users => &self.users,
        }
    }

    fn wants(&self, bucket: Bucket) -> bool {
        self.map(bucket.space).has(bucket.number)
    }
}

fn node(envelope: &Envelope, hello: &Hello) -> Result<Node, MeshError> {
    let port = u16::try_from(hello.netsvr_port).map_err(|_| MeshError::Wrong("no port"))?;
    let shards = u16::try_from(hello.shards).unwrap_or(u16::MAX);
    if usize::from(shards) > SHARDS_MAX || hello.slots_max > SLOTS_MAX {
        return Err(MeshError::Wrong("more connections than a node can have"));
    }
    let addresses = hello.addresses.iter().take(MESH_ADDRESSES_MAX).filter_map(|address| {
        Some((address.protocol.as_str().into(), address.address.parse().ok()?))
    });
    Ok(Node {
        number: envelope.node as u16,
        instance: envelope.instance,
        started_ms: hello.started_ms,
        version: hello.program_version.as_str().into(),
        addresses: addresses.collect(),
        advertise: SocketAddrV4::new(Ipv4Addr::from(hello.netsvr_ip), port),
        shards,
        slots_max: hello.slots_max,
        ids_start: hello.ids_start,
        connections: hello.connections,
        clients: hello.clients,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(node: u32, instance: u64, sequence: u64) -> Envelope {
        Envelope { version: 1, node, instance, sequence, ..Default::default() }
    }

    fn hello(started_ms: u64, topics: &[u16]) -> Hello {
        let mut map = Bitmap::default();
        topics.iter().for_each(|&number| map.set(number, true));
        let users = Bitmap::default().to_bytes().into();
        Hello { started_ms, topics: map.to_bytes().into(), users, shards: 1, ..Default::default() }
    }

    fn topic(number: u16) -> Lane {
        Lane::Bucket(Bucket { space: Space::Topics, number })
    }

    #[test]
    fn a_node_is_there_from_its_first_word_until_it_leaves_or_is_silent() {
        let (mut members, interest) = (Members::default(), Interest::new(1));
        let start = Instant::now();
        let mut say = |node, instance, hello: &Hello, at| {
            members.hello(&envelope(node, instance, 1), hello, at, &interest).expect("valid")
        };
        assert_eq!(say(2, 20, &hello(5, &[7]), start), News::Came);
        assert_eq!(say(2, 20, &hello(5, &[7, 9]), start), News::Stays);
        assert_eq!(say(3, 30, &hello(6, &[9]), start + MESH_FORGET_TIME / 2), News::Came);
        // An instance that started earlier is a ghost; one that started later replaces it.
        assert_eq!(say(2, 19, &hello(4, &[1]), start), News::Left);
        assert_eq!(members.expected(topic(9)), [2, 3]);
        assert_eq!(members.expected(topic(7)), [2]);
        assert!(interest.has(Bucket { space: Space::Topics, number: 7 }));
        assert_eq!(members.expected(Lane::All), [2, 3]);
        assert_eq!(members.expected(Lane::Node(3)), [3]);
        assert!(members.expected(Lane::Node(4)).is_empty() && members.len() == 2);
        let late = start + MESH_FORGET_TIME + std::time::Duration::from_secs(1);
        assert_eq!(members.forget(late, &interest), [2]);
        assert!(!interest.has(Bucket { space: Space::Topics, number: 7 }));
        let bye = Hello { leaves: true, ..hello(6, &[]) };
        let left = members.hello(&envelope(3, 30, 9), &bye, late, &interest);
        assert_eq!((left, members.len()), (Ok(News::Left), 0));
    }

    #[test]
    fn no_envelope_of_a_lane_is_taken_twice() {
        let (mut members, interest) = (Members::default(), Interest::new(1));
        let now = Instant::now();
        assert!(!members.takes(&envelope(2, 20, 1), Lane::All), "not known yet");
        members.hello(&envelope(2, 20, 1), &hello(5, &[]), now, &interest).expect("valid");
        let mut takes =
            |instance, sequence, lane| members.takes(&envelope(2, instance, sequence), lane);
        assert!(takes(20, 2, topic(1)) && takes(20, 3, topic(2)) && takes(20, 4, topic(1)));
        assert!(!takes(20, 2, topic(1)) && !takes(20, 4, topic(1)) && !takes(20, 3, topic(2)));
        assert!(!takes(21, 9, topic(1)), "another instance");
        assert!(takes(20, 5, topic(1)));
    }

    #[test]
    fn changes_of_buckets_reach_the_shards_and_doubt_lets_everything_out() {
        let (mut members, interest) = (Members::default(), Interest::new(1));
        let now = Instant::now();
        let taken = proto::Buckets {
            topics_taken: vec![5, 70_000, 4096],
            users_taken: vec![6],
            ..Default::default()
        };
        assert!(!members.buckets(&envelope(2, 20, 1), &taken, &interest));
        members.hello(&envelope(2, 20, 1), &hello(5, &[1]), now, &interest).expect("valid");
        assert!(members.buckets(&envelope(2, 20, 2), &taken, &interest));
        let has = |space, number| interest.has(Bucket { space, number });
        assert!(has(Space::Topics, 1) && has(Space::Topics, 5) && has(Space::Users, 6));
        let left = proto::Buckets { topics_left: vec![5], ..Default::default() };
        assert!(members.buckets(&envelope(2, 20, 3), &left, &interest));
        assert!(!has(Space::Topics, 5) && has(Space::Topics, 1) && members.is_sure());
        members.doubt(&interest);
        assert!(!members.is_sure());
        let other = crate::hub::push::Target::Topics(vec!["whatever".into()]);
        assert!(interest.wants(&other));
        members.hello(&envelope(2, 20, 4), &hello(5, &[1]), now, &interest).expect("valid");
        assert!(!interest.wants(&other) || has(Space::Topics, 1) && members.is_sure());
    }

    #[test]
    fn the_last_number_of_members_stands_in_for_a_node_that_is_silent() {
        let mut members = Members::default();
        assert_eq!(members.last_count(2, Some("t")), 1);
        members.count(2, "t", 40);
        members.count(3, "t", 0);
        let counts = [2, 3, 4].map(|node| members.last_count(node, Some("t")));
        assert_eq!((counts, members.last_count(2, None)), ([40, 1, 1], 1));
    }
}
