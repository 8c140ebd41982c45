//! The name of a connection inside the process.

/// Identifies one connection for the life of the process: shard, slot in the shard's slab, and a
/// generation that no other connection of that slot has had.
///
/// The generation is the second (Unix time) in which the connection was accepted, or one more than
/// the slot's previous generation if that is later. So the pair (generation, index) never repeats,
/// and the public ids of the protocols (netsvr's uniqId, connmix's client_id) are plain encodings
/// of it: they lead back to the connection without a table, and a stale one finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

impl ConnId {
    /// Shards a process can have.
    pub const SHARDS_MAX: usize = 1 << 8;
    /// Slots a shard can have.
    pub const SLOTS_MAX: u32 = 1 << 24;

    /// `slot` must be below [`ConnId::SLOTS_MAX`].
    pub const fn new(shard: u8, slot: u32, generation: u32) -> ConnId {
        debug_assert!(slot < ConnId::SLOTS_MAX);
        ConnId((generation as u64) << 32 | (shard as u64) << 24 | slot as u64)
    }

    /// The inverse of [`ConnId::generation`] and [`ConnId::index`]. Every pair is a valid id.
    pub const fn from_parts(generation: u32, index: u32) -> ConnId {
        ConnId((generation as u64) << 32 | index as u64)
    }

    /// The shard that owns the connection.
    pub const fn shard(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// The connection's place in its shard's slab.
    pub const fn slot(self) -> u32 {
        self.0 as u32 & (ConnId::SLOTS_MAX - 1)
    }

    /// Unix seconds; see the type.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Shard and slot in one number: unique among the connections that live at one time.
    pub const fn index(self) -> u32 {
        self.0 as u32
    }
}

impl std::fmt::Debug for ConnId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}@{}", self.shard(), self.slot(), self.generation())
    }
}
