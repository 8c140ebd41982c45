//! Which buckets this node wants: those in which one of its shards has a name.
//!
//! Invariant: a bucket is on the maps while this node listens to it. It stays for a while after its
//! last name has gone, so that a topic which comes and goes is not subscribed over and over.
//! Costs: 16 KiB, and an entry per bucket that is about to be given up.

use std::collections::HashMap;
use std::time::Instant;

use super::Mesh;
use crate::hub::mesh::{BUCKETS, Bitmap, Bucket, Space, Turn};
use crate::limits::MESH_HELLO_INTERVAL;
use crate::wire::mesh::{self as wire, Body, proto};

/// See the module.
#[derive(Debug)]
pub(super) struct Wants {
    /// Shards that have a name in each bucket.
    topic_shards: Vec<u16>,
    user_shards: Vec<u16>,
    topics: Bitmap,
    users: Bitmap,
    /// Listened to without any name, and since when.
    idle: HashMap<Bucket, Instant>,
}

impl Wants {
    /// Nothing.
    pub fn new() -> Wants {
        Wants {
            topic_shards: vec![0; BUCKETS],
            user_shards: vec![0; BUCKETS],
            topics: Bitmap::default(),
            users: Bitmap::default(),
            idle: HashMap::new(),
        }
    }

    /// The buckets that are listened to: of topics, of users.
    pub fn maps(&self) -> (&Bitmap, &Bitmap) {
        (&self.topics, &self.users)
    }

    /// A bucket of a shard has turned; true if it must be listened to from now on.
    fn turn(&mut self, turn: Turn, now: Instant) -> bool {
        let Turn { bucket, occupied } = turn;
        let (shards, map) = match bucket.space {
            Space::Topics => (&mut self.topic_shards, &mut self.topics),
            Space::Users => (&mut self.user_shards, &mut self.users),
        };
        let shards = &mut shards[usize::from(bucket.number)];
        if !occupied {
            debug_assert!(*shards > 0, "{bucket:?} was empty");
            *shards = shards.saturating_sub(1);
            if *shards == 0 {
                self.idle.insert(bucket, now);
            }
            return false;
        }
        *shards += 1;
        self.idle.remove(&bucket);
        let news = !map.has(bucket.number);
        map.set(bucket.number, true);
        news
    }

    /// The buckets that have been without a name for long enough; they are off the maps then.
    fn retire(&mut self, now: Instant) -> Vec<Bucket> {
        let old = |since: &Instant| now.saturating_duration_since(*since) >= MESH_HELLO_INTERVAL;
        let idle = self.idle.iter().filter(|(_, since)| old(since));
        let retired: Vec<Bucket> = idle.map(|(bucket, _)| *bucket).collect();
        for bucket in &retired {
            self.idle.remove(bucket);
            match bucket.space {
                Space::Topics => self.topics.set(bucket.number, false),
                Space::Users => self.users.set(bucket.number, false),
            }
        }
        retired
    }
}

impl Mesh {
    /// A shard tells of its buckets. NATS hears of it before the other nodes do.
    pub(super) fn turned(&mut self, turns: &[Turn]) {
        let now = Instant::now();
        let new: Vec<Bucket> = turns
            .iter()
            .filter(|turn| self.wants.turn(**turn, now))
            .map(|turn| turn.bucket)
            .collect();
        new.iter().for_each(|&bucket| self.link.subscribe(bucket));
        let [topics_taken, users_taken] = split(&new);
        self.say_buckets(proto::Buckets { topics_taken, users_taken, ..Default::default() });
    }

    /// Gives up buckets without names. The other nodes hear of it before NATS does.
    pub(super) fn retire_buckets(&mut self, now: Instant) {
        let retired = self.wants.retire(now);
        let [topics_left, users_left] = split(&retired);
        self.say_buckets(proto::Buckets { topics_left, users_left, ..Default::default() });
        retired.iter().for_each(|&bucket| self.link.unsubscribe(bucket));
    }

    /// Without a link this is left out: everything is said anew after it is back.
    fn say_buckets(&mut self, buckets: proto::Buckets) {
        if self.rival.is_some() || !self.link.is_up() || buckets == proto::Buckets::default() {
            return;
        }
        let envelope = self.envelope(0, Body::Buckets(buckets));
        self.link.publish(self.subjects.hello(), wire::encode(&envelope), 0);
    }
}

/// The numbers of the buckets of topics, and of users.
fn split(buckets: &[Bucket]) -> [Vec<u32>; 2] {
    [Space::Topics, Space::Users].map(|space| {
        let of = buckets.iter().filter(|bucket| bucket.space == space);
        of.map(|bucket| bucket.number.into()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_wanted_from_the_first_shard_to_a_while_after_the_last() {
        let (mut wants, now) = (Wants::new(), Instant::now());
        let bucket = Bucket { space: Space::Users, number: 7 };
        let [on, off] = [true, false].map(|occupied| Turn { bucket, occupied });
        assert!(wants.turn(on, now), "the first");
        assert!(!wants.turn(on, now), "another shard");
        assert!(!wants.turn(off, now) && wants.retire(now + MESH_HELLO_INTERVAL).is_empty());
        assert!(!wants.turn(off, now) && wants.retire(now).is_empty(), "not at once");
        assert!(wants.maps().1.has(7) && !wants.maps().0.has(7));
        assert!(!wants.turn(on, now) && wants.retire(now + MESH_HELLO_INTERVAL).is_empty());
        assert!(!wants.turn(off, now));
        assert_eq!(wants.retire(now + MESH_HELLO_INTERVAL), [bucket]);
        assert!(!wants.maps().1.has(7) && wants.turn(on, now));
        assert_eq!(split(&[bucket]), [vec![], vec![7]]);
    }
}
