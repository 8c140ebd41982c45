//! What of this node's pushes other nodes want, and how much waits for the link: shared by the
//! shards, which read it, and the sidecar, which knows the other nodes.
//!
//! Invariant: `queued` never exceeds the bound by more than what one reservation asks for, and
//! every reservation is released once. Costs: one relaxed load per name of a push.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::{BUCKETS, Bitmap, Bucket, Space};
use crate::hub::push::Target;

type Bits = [AtomicU64; BUCKETS / 64];

/// See the module.
#[derive(Debug)]
pub struct Interest {
    topics: Bits,
    users: Bits,
    /// Other nodes.
    nodes: AtomicU32,
    /// It is not known what other nodes want: after the link was lost. Then they get everything.
    unsure: AtomicBool,
    /// Bytes handed over by shards and not given to the link yet.
    queued: AtomicUsize,
    queued_max: usize,
}

impl Interest {
    /// Nobody else is there. At most `queued_max` bytes may wait for the link.
    pub fn new(queued_max: usize) -> Interest {
        let none = || [const { AtomicU64::new(0) }; BUCKETS / 64];
        Interest {
            topics: none(),
            users: none(),
            nodes: AtomicU32::new(0),
            unsure: AtomicBool::new(false),
            queued: AtomicUsize::new(0),
            queued_max,
        }
    }

    /// Whether another node may have somebody whom the target reaches. Connections are never
    /// elsewhere: their ids are of this node.
    pub fn wants(&self, target: &Target) -> bool {
        if self.nodes.load(Ordering::Relaxed) == 0 {
            return false;
        }
        match target {
            Target::Conns(_) => false,
            Target::Topics(names) => self.any(Space::Topics, names),
            Target::Users(names) => self.any(Space::Users, names),
            Target::All => true,
        }
    }

    /// Whether another node may have a member of one of the topics.
    pub fn wants_topics(&self, topics: &[Box<str>]) -> bool {
        self.nodes.load(Ordering::Relaxed) > 0 && self.any(Space::Topics, topics)
    }

    /// Whether another node may have a member of the topic.
    pub fn wants_topic(&self, topic: &str) -> bool {
        let bucket = Bucket::of(Space::Topics, topic);
        let nodes = self.nodes.load(Ordering::Relaxed) > 0;
        nodes && (self.unsure.load(Ordering::Relaxed) || self.has(bucket))
    }

    fn any(&self, space: Space, names: &[Box<str>]) -> bool {
        self.unsure.load(Ordering::Relaxed)
            || names.iter().any(|name| self.has(Bucket::of(space, name)))
    }

    /// Whether another node has said that it has members in the bucket.
    pub fn has(&self, bucket: Bucket) -> bool {
        let word = &self.bits(bucket.space)[usize::from(bucket.number) / 64];
        word.load(Ordering::Relaxed) >> (bucket.number % 64) & 1 == 1
    }

    /// Buckets in which another node has members.
    pub fn wanted(&self) -> u32 {
        let words = self.topics.iter().chain(&self.users);
        words.map(|word| word.load(Ordering::Relaxed).count_ones()).sum()
    }

    /// Replaces what is known about a space.
    pub fn set_all(&self, space: Space, wanted: &Bitmap) {
        for (cell, word) in self.bits(space).iter().zip(wanted.words()) {
            cell.store(word, Ordering::Relaxed);
        }
    }

    /// Another node has members in the bucket, or none has any more.
    pub fn set(&self, bucket: Bucket, wanted: bool) {
        let word = &self.bits(bucket.space)[usize::from(bucket.number) / 64];
        let bit = 1 << (bucket.number % 64);
        match wanted {
            true => word.fetch_or(bit, Ordering::Relaxed),
            false => word.fetch_and(!bit, Ordering::Relaxed),
        };
    }

    /// How many other nodes there are, and whether it is unknown what they want.
    pub fn set_nodes(&self, nodes: usize, unsure: bool) {
        self.nodes.store(nodes as u32, Ordering::Relaxed);
        self.unsure.store(unsure, Ordering::Relaxed);
    }

    /// Takes room for so many bytes; false if there is none.
    pub fn reserve(&self, bytes: usize) -> bool {
        let before = self.queued.fetch_add(bytes, Ordering::Relaxed);
        let room = before == 0 || before.saturating_add(bytes) <= self.queued_max;
        if !room {
            self.queued.fetch_sub(bytes, Ordering::Relaxed);
        }
        room
    }

    /// Gives the room back.
    pub fn release(&self, bytes: usize) {
        let before = self.queued.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "released more than was reserved");
    }

    /// Bytes that wait for the link.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    fn bits(&self, space: Space) -> &Bits {
        match space {
            Space::Topics => &self.topics,
            Space::Users => &self.users,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_another_node_wants_leaves_this_one() {
        let interest = Interest::new(1000);
        let topics = |names: &[&str]| Target::Topics(names.iter().map(|&n| n.into()).collect());
        let users = Target::Users(vec!["a".into()]);
        assert!(!interest.wants(&Target::All));
        interest.set_nodes(1, false);
        assert!(interest.wants(&Target::All));
        assert!(!interest.wants(&topics(&["a"])) && !interest.wants(&users));
        interest.set(Bucket::of(Space::Topics, "a"), true);
        assert!(interest.wants(&topics(&["a"])) && interest.wants(&topics(&["b", "a"])));
        assert!(!interest.wants(&topics(&["b"])) && !interest.wants(&users));
        assert!(!interest.wants(&Target::Conns(Vec::new())));
        interest.set(Bucket::of(Space::Topics, "a"), false);
        assert!(!interest.wants(&topics(&["a"])));
        interest.set_nodes(1, true);
        assert!(interest.wants(&topics(&["a"])));
    }

    #[test]
    fn no_more_waits_for_the_link_than_was_agreed() {
        let interest = Interest::new(1000);
        assert!(interest.reserve(600) && !interest.reserve(500) && interest.reserve(400));
        interest.release(600);
        assert_eq!(interest.queued(), 400);
        assert!(!interest.reserve(2000));
        interest.release(400);
        // Something must be able to pass, however large.
        assert!(interest.reserve(2000) && !interest.reserve(1));
        interest.release(2000);
        assert_eq!(interest.queued(), 0);
    }
}
