//! connmix's client_id: a connection as a positive number of 63 bits (connmix section 6.1).
//!
//! The layout is that of a snowflake, so the node number stands where every node finds it:
//!
//! ```text
//! bit 62          22 21      12 11       0
//! [ milliseconds    ][ node    ][ step    ]      milliseconds since 2010-11-04 01:42:54.657 UTC
//! ```
//!
//! Milliseconds and step are one number of 53 bits: the second in which the connection was accepted
//! (its generation), times the connections that one second has numbers for, plus the connection's
//! place: slot ([rotated](Rotation)), then shard. One second has 1000 * 4096 places, as in every
//! snowflake. A process that may have more (shards times connections) takes what it needs and its
//! seconds wrap sooner: with 8 shards of a million connections after 35 years. So an id leads back
//! to its connection without a table, a stale one finds nothing, and ids that look like times are
//! times.

use crate::hub::{ConnId, Rotation};

/// 2010-11-04 01:42:54 UTC, the second in which the time of snowflakes begins.
const EPOCH: u32 = 1_288_834_974;
/// Bits that time and step have together.
const BITS: u32 = 53;
/// Connections that a second has numbers for in a snowflake: 1000 ms of 4096 steps.
const PLACES: u64 = 1000 << 12;
const STEP_MASK: u64 = (1 << 12) - 1;
const NODE_MASK: u64 = (1 << 10) - 1;

/// Makes and reads the client_ids of one node.
#[derive(Clone, Copy, Debug)]
pub struct ClientIds {
    node: u16,
    shards: u64,
    /// Numbers per second.
    places: u64,
    rotation: Rotation,
}

impl ClientIds {
    /// For a process of so many shards, with at most `slots_max` connections each.
    pub fn new(node: u16, shards: usize, slots_max: u32) -> ClientIds {
        debug_assert!(node as u64 <= NODE_MASK && shards <= ConnId::SHARDS_MAX);
        let shards = shards.max(1) as u64;
        let places = PLACES.max(shards * slots_max.min(ConnId::SLOTS_MAX) as u64);
        ClientIds { node, shards, places, rotation: Rotation::NONE }
    }

    /// The same for a process whose [`Rotation`] begins here.
    #[must_use]
    pub fn starting(self, start: u32) -> ClientIds {
        ClientIds { rotation: self.rotation(start), ..self }
    }

    /// The rotation of all public ids of this process: over as many slots as a second has numbers
    /// for.
    pub fn rotation(&self, start: u32) -> Rotation {
        let slots = (self.places / self.shards).min(ConnId::SLOTS_MAX.into());
        Rotation::new(start, slots as u32)
    }

    /// The node whose ids these are.
    pub fn node(&self) -> u16 {
        self.node
    }

    /// The client_id of a connection; always positive.
    pub fn encode(&self, conn: ConnId) -> i64 {
        let seconds = conn.generation().wrapping_sub(EPOCH) as u64 % self.seconds();
        let conn = self.rotation.show(conn);
        let place = conn.slot() as u64 * self.shards + conn.shard() as u64;
        debug_assert!(place < self.places, "{conn:?} is beyond the slots of this process");
        let number = seconds * self.places + place % self.places;
        let (time, step) = (number >> 12, number & STEP_MASK);
        (time << 22 | (self.node as u64 & NODE_MASK) << 12 | step) as i64
    }

    /// The node that a client_id names, whether or not it exists.
    pub fn node_of(client: i64) -> u16 {
        (client as u64 >> 12 & NODE_MASK) as u16
    }

    /// The connection that a client_id of this node names, if it can exist at `unix` seconds.
    pub fn decode(&self, client: i64, unix: u32) -> Option<ConnId> {
        if client <= 0 || ClientIds::node_of(client) != self.node {
            return None;
        }
        let number = (client as u64) >> 22 << 12 | client as u64 & STEP_MASK;
        let (seconds, place) = (number / self.places, number % self.places);
        let (slot, shard) = (place / self.shards, (place % self.shards) as u8);
        if slot >= ConnId::SLOTS_MAX as u64 {
            return None;
        }
        self.rotation.find(ConnId::new(shard, slot as u32, self.generation(seconds, unix)))
    }

    /// Seconds after which they wrap.
    fn seconds(&self) -> u64 {
        (1 << BITS) / self.places
    }

    /// The generation around now that these seconds stand for. A generation may be ahead of the
    /// clock, so a quarter of the circle lies in the future.
    fn generation(&self, seconds: u64, unix: u32) -> u32 {
        let circle = self.seconds();
        let now = unix.wrapping_sub(EPOCH) as u64;
        let ahead = (seconds + circle - now % circle) % circle;
        let since =
            if ahead <= circle / 4 { now + ahead } else { (now + ahead).wrapping_sub(circle) };
        EPOCH.wrapping_add(since as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u32 = 1_795_000_000;

    #[test]
    fn an_id_is_a_snowflake_of_the_second_in_which_the_connection_was_accepted() {
        let ids = ClientIds::new(1, 2, 1_000_000);
        let conn = ConnId::new(1, 2050, NOW);
        let client = ids.encode(conn);
        let unix_ms = (client >> 22) as u64 + 1_288_834_974_000;
        assert_eq!((unix_ms / 1000, unix_ms % 1000), (NOW as u64, 1), "4101 is 1 ms and 5 steps");
        assert_eq!((client >> 12 & 0x3ff, client & 0xfff), (1, 5));
        assert_eq!(client.to_string().len(), 19);
    }

    #[test]
    fn every_id_leads_back_to_its_connection() {
        for (shards, slots_max) in [(1, 1), (2, 1_000_000), (64, 1_000_000), (256, 1 << 24)] {
            let ids = ClientIds::new(1023, shards, slots_max).starting(u32::MAX);
            for shard in [0, shards - 1] {
                for slot in [0, slots_max / 2, slots_max - 1] {
                    for generation in [NOW - 86_400 * 7, NOW - 1, NOW, NOW + 1000] {
                        let conn = ConnId::new(shard as u8, slot, generation);
                        let client = ids.encode(conn);
                        assert!(client > 0);
                        assert_eq!(ids.decode(client, NOW), Some(conn));
                        assert_eq!(ClientIds::node_of(client), 1023);
                    }
                }
            }
        }
    }

    #[test]
    fn different_connections_have_different_ids() {
        let ids = ClientIds::new(7, 3, 5000).starting(4_000_000_000);
        let mut seen = std::collections::HashSet::new();
        for generation in [NOW, NOW + 1] {
            for shard in 0..3 {
                for slot in 0..5000 {
                    assert!(seen.insert(ids.encode(ConnId::new(shard, slot, generation))));
                }
            }
        }
    }

    #[test]
    fn ids_of_other_nodes_and_numbers_that_are_no_id_name_nobody_here() {
        let ids = ClientIds::new(7, 2, 1_000_000);
        let other = ClientIds::new(8, 2, 1_000_000).encode(ConnId::new(0, 1, NOW));
        for client in [0, -1, i64::MIN, other] {
            assert_eq!(ids.decode(client, NOW), None, "{client}");
        }
        // Whatever the number, reading it gives a connection that may not exist, and no panic.
        for client in [1 | 7 << 12, i64::MAX & !(0x3ff << 12) | 7 << 12] {
            let _ = ids.decode(client, NOW);
        }
    }
}
