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

/// How public ids hide slots: each is moved on by a number that is another one in every process, so
/// that a process that starts within the second in which another ended repeats none of its ids, and
/// the id of the first connection can not be guessed. Other nodes hear the number with the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    start: u32,
    slots: u32,
}

impl Rotation {
    /// Slots as they are.
    pub const NONE: Rotation = Rotation { start: 0, slots: ConnId::SLOTS_MAX };

    /// `start` is random; `slots`, of a shard, at least 1 and at most [`ConnId::SLOTS_MAX`].
    pub const fn new(start: u32, slots: u32) -> Rotation {
        debug_assert!(0 < slots && slots <= ConnId::SLOTS_MAX);
        Rotation { start: start % slots, slots }
    }

    /// The connection as public ids name it. Its slot must be one of the slots.
    pub const fn show(self, conn: ConnId) -> ConnId {
        debug_assert!(conn.slot() < self.slots);
        self.moved(conn, self.start)
    }

    /// The inverse; `None` if there is no such slot.
    pub const fn find(self, shown: ConnId) -> Option<ConnId> {
        if shown.slot() >= self.slots {
            return None;
        }
        Some(self.moved(shown, self.slots - self.start))
    }

    const fn moved(self, conn: ConnId, by: u32) -> ConnId {
        let slot = conn.slot() + by;
        let slot = if slot >= self.slots { slot - self.slots } else { slot };
        ConnId::new(conn.shard(), slot, conn.generation())
    }
}

impl std::fmt::Debug for ConnId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}@{}", self.shard(), self.slot(), self.generation())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_shown_as_another_one_and_found_again() {
        for slots in [1, 2, 7, 1000, ConnId::SLOTS_MAX] {
            for start in [0, 1, slots - 1, slots, u32::MAX] {
                let rotation = Rotation::new(start, slots);
                let mut seen = std::collections::HashSet::new();
                for slot in (0..slots).take(1000).chain([slots - 1]) {
                    let conn = ConnId::new(3, slot, 1_795_000_000);
                    let shown = rotation.show(conn);
                    assert_eq!((shown.shard(), shown.generation()), (3, 1_795_000_000));
                    assert_eq!(rotation.find(shown), Some(conn));
                    assert!(seen.insert(shown) || slot == slots - 1);
                }
            }
        }
        assert_eq!(Rotation::new(5, 10).find(ConnId::new(0, 10, 1)), None);
        let conn = ConnId::new(1, 2, 3);
        assert_eq!(Rotation::NONE.show(conn), conn);
    }
}
