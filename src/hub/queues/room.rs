//! Room for messages on their way to JetStream, shared by the shards, which take it, and the
//! thread that has it back when a message is stored or refused.
//!
//! Invariant: what is taken never exceeds the bound by more than one message. Costs: one atomic
//! addition per message at each end.

use std::sync::atomic::{AtomicUsize, Ordering};

/// What a message costs beside its bytes.
const MESSAGE_BYTES: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct Room {
    taken: AtomicUsize,
    bytes_max: usize,
}

impl Room {
    /// Room for so many bytes.
    pub fn new(bytes_max: usize) -> Room {
        Room { taken: AtomicUsize::new(0), bytes_max }
    }

    /// Takes room for a message of this size; false if there is none.
    pub fn take(&self, message_bytes: usize) -> bool {
        let bytes = message_bytes + MESSAGE_BYTES;
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        let fits = before == 0 || before.saturating_add(bytes) <= self.bytes_max;
        if !fits {
            self.taken.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Gives the room of a message of this size back.
    pub fn give_back(&self, message_bytes: usize) {
        let bytes = message_bytes + MESSAGE_BYTES;
        let before = self.taken.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "more is given back than was taken");
    }

    /// Bytes that are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is() {
        let room = Room::new(1000);
        assert!(room.take(400) && !room.take(400) && room.take(88));
        room.give_back(400);
        assert_eq!(room.taken(), 88 + MESSAGE_BYTES);
        room.give_back(88);
        // Something must be able to pass, however large.
        assert!(room.take(5000) && !room.take(0));
        room.give_back(5000);
        assert_eq!(room.taken(), 0);
    }
}
