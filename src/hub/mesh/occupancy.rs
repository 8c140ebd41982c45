//! How many topics and users of one shard fall into each bucket, and which buckets have changed
//! between empty and not.
//!
//! Invariants: a count is the number of names of the bucket; [`Occupancy::take`] tells every bucket
//! whose state is another than it announced last, and no other.
//! Costs: 33 KiB per shard; a hash of the name per name that begins or ends to exist.

use super::{BUCKETS, Bitmap, Bucket, Space};
use crate::spare::Look;

/// A bucket got its first name, or lost its last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    pub bucket: Bucket,
    pub occupied: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Occupancy {
    topics: Counts,
    users: Counts,
    /// Buckets that may have turned since the last [`Occupancy::take`].
    turned: Vec<Bucket>,
}

#[derive(Debug)]
struct Counts {
    names: [u32; BUCKETS],
    announced: Bitmap,
}

impl Counts {
    fn new() -> Counts {
        Counts { names: [0; BUCKETS], announced: Bitmap::default() }
    }
}

impl Occupancy {
    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.turned);
    }

    /// Everything is empty.
    pub fn new() -> Box<Occupancy> {
        let (topics, users) = (Counts::new(), Counts::new());
        Box::new(Occupancy { topics, users, turned: Vec::new() })
    }

    /// A name has begun to exist.
    pub fn enter(&mut self, space: Space, name: &str) {
        let bucket = Bucket::of(space, name);
        let names = &mut self.counts(space).names[usize::from(bucket.number)];
        *names += 1;
        if *names == 1 {
            self.turned.push(bucket);
        }
    }

    /// A name has ended to exist.
    pub fn leave(&mut self, space: Space, name: &str) {
        let bucket = Bucket::of(space, name);
        let names = &mut self.counts(space).names[usize::from(bucket.number)];
        debug_assert!(*names > 0, "{name} was not here");
        *names = names.saturating_sub(1);
        if *names == 0 {
            self.turned.push(bucket);
        }
    }

    /// Whether [`Occupancy::take`] has something to tell, or had before it turned back.
    pub fn has_turned(&self) -> bool {
        !self.turned.is_empty()
    }

    /// The buckets that have turned since the last call.
    pub fn take(&mut self) -> Vec<Turn> {
        let mut turned = std::mem::take(&mut self.turned);
        turned.sort_unstable();
        turned.dedup();
        let turns = turned.into_iter().filter_map(|bucket| {
            let counts = self.counts(bucket.space);
            let occupied = counts.names[usize::from(bucket.number)] > 0;
            let news = counts.announced.has(bucket.number) != occupied;
            counts.announced.set(bucket.number, occupied);
            news.then_some(Turn { bucket, occupied })
        });
        turns.collect()
    }

    /// Names of a bucket.
    pub fn names(&self, bucket: Bucket) -> u32 {
        let counts = match bucket.space {
            Space::Topics => &self.topics,
            Space::Users => &self.users,
        };
        counts.names[usize::from(bucket.number)]
    }

    fn counts(&mut self, space: Space) -> &mut Counts {
        match space {
            Space::Topics => &mut self.topics,
            Space::Users => &mut self.users,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_told_when_it_turns_and_not_when_it_turned_back() {
        let mut occupancy = Occupancy::new();
        let bucket = Bucket::of(Space::Topics, "a");
        occupancy.enter(Space::Topics, "a");
        occupancy.enter(Space::Topics, "a");
        assert_eq!(occupancy.take(), [Turn { bucket, occupied: true }]);
        occupancy.leave(Space::Topics, "a");
        assert!(!occupancy.has_turned() && occupancy.take().is_empty());
        occupancy.leave(Space::Topics, "a");
        occupancy.enter(Space::Topics, "a");
        assert!(occupancy.has_turned() && occupancy.take().is_empty());
        occupancy.leave(Space::Topics, "a");
        assert_eq!(occupancy.take(), [Turn { bucket, occupied: false }]);
        occupancy.enter(Space::Users, "a");
        let bucket = Bucket { space: Space::Users, ..bucket };
        assert_eq!(occupancy.take(), [Turn { bucket, occupied: true }]);
    }
}
