//! What shards know about the other nodes of the mesh: who they are ([`Nodes`]), and in which
//! buckets of topics and users one of them has members ([`Interest`]); and what they tell of
//! themselves ([`Occupancy`]).
//!
//! Names of topics and users are hashed onto 4,096 buckets each, the same on every node. A node
//! gets what is published to a bucket while it has a member in it.
//! Costs: a hash of the name per first and last member of a topic or user; a push asks one bit per
//! name and, while no other node wants it, goes no further. Without a mesh nothing is counted.

mod interest;
mod lent;
mod nodes;
mod occupancy;

pub use interest::Interest;
pub use lent::{Lent, Room};
pub use nodes::{Node, Nodes};
pub use occupancy::{Occupancy, Turn};

/// Buckets of a space.
pub const BUCKETS: usize = 4096;

/// What a name is of; each has its own buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    Topics,
    Users,
}

/// One bucket of a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    pub space: Space,
    /// Below [`BUCKETS`].
    pub number: u16,
}

impl Bucket {
    /// The bucket of a name: FNV-1a of 64 bits, folded. Part of the protocol between nodes.
    pub fn of(space: Space, name: &str) -> Bucket {
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        let folded = hash ^ hash >> 32 ^ hash >> 48;
        Bucket { space, number: (folded % BUCKETS as u64) as u16 }
    }
}

/// One bit per bucket of a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap([u64; BUCKETS / 64]);

impl Default for Bitmap {
    fn default() -> Bitmap {
        Bitmap([0; BUCKETS / 64])
    }
}

impl Bitmap {
    /// Bytes of the form that nodes send each other.
    pub const BYTES: usize = BUCKETS / 8;

    /// Whether the bit is set; `number` must be below [`BUCKETS`].
    pub fn has(&self, number: u16) -> bool {
        self.0[usize::from(number) / 64] >> (number % 64) & 1 == 1
    }

    /// Sets or clears the bit.
    pub fn set(&mut self, number: u16, on: bool) {
        let word = &mut self.0[usize::from(number) / 64];
        let bit = 1 << (number % 64);
        *word = if on { *word | bit } else { *word & !bit };
    }

    /// Sets what the other has set.
    pub fn add(&mut self, other: &Bitmap) {
        self.0.iter_mut().zip(other.0).for_each(|(word, other)| *word |= other);
    }

    /// Bits that are set.
    #[cfg(test)]
    fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// 64 bits at a time.
    fn words(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().copied()
    }

    /// As nodes send it: little-endian words.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The inverse of [`Bitmap::to_bytes`]; `None` if the length is another.
    pub fn from_bytes(bytes: &[u8]) -> Option<Bitmap> {
        if bytes.len() != Bitmap::BYTES {
            return None;
        }
        let mut bitmap = Bitmap::default();
        for (word, bytes) in bitmap.0.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        Some(bitmap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes of different versions must agree.
    #[test]
    fn names_have_the_buckets_that_the_protocol_says() {
        let bucket = |name| Bucket::of(Space::Topics, name).number;
        let found = ["", "a", "lobby", "cr:lobby", "\u{623f}\u{95f4}"].map(bucket);
        assert_eq!(found, [1075, 4003, 2639, 1873, 1533]);
        assert_eq!(Bucket::of(Space::Users, "a").number, bucket("a"));
    }

    #[test]
    fn names_spread_over_all_buckets() {
        let mut counts = [0u32; BUCKETS];
        for n in 0..40 * BUCKETS {
            counts[usize::from(Bucket::of(Space::Topics, &format!("topic-{n}")).number)] += 1;
        }
        let (least, most) = (counts.iter().min(), counts.iter().max());
        assert!(least > Some(&10) && most < Some(&90), "{least:?} to {most:?} instead of 40");
    }

    #[test]
    fn a_bitmap_is_what_was_set_also_after_a_journey() {
        let mut bitmap = Bitmap::default();
        let set = [0, 1, 63, 64, 4095];
        set.iter().for_each(|&number| bitmap.set(number, true));
        bitmap.set(1, false);
        let there = Bitmap::from_bytes(&bitmap.to_bytes()).expect("the right length");
        assert_eq!(there, bitmap);
        assert!(there.has(0) && there.has(63) && there.has(64) && there.has(4095));
        assert!(!there.has(1) && there.count() == 4);
        assert_eq!(Bitmap::from_bytes(&[0; 511]), None);
    }
}
