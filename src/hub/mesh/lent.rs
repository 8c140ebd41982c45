//! Room for what other nodes have found: of all questions of a process together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// All the room there is.
#[derive(Clone, Debug, Default)]
pub struct Room(Arc<AtomicUsize>);

/// The part of it that one question has. It is given back with it, wherever that ends.
#[derive(Debug)]
pub struct Lent {
    bytes: usize,
    room: Room,
}

impl Room {
    /// Nothing of it yet, for one question.
    pub fn lend(&self) -> Lent {
        Lent { bytes: 0, room: self.clone() }
    }

    /// Bytes that all questions have.
    pub fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Lent {
    /// Takes so many bytes more, so that all together have `bytes_max` at the most; a question
    /// that is alone may have any number. Returns whether that was possible. For one thread.
    pub fn take(&mut self, bytes: usize, bytes_max: usize) -> bool {
        let used = self.room.used();
        let alone = used == self.bytes;
        let fits = alone || used + bytes <= bytes_max;
        if fits {
            self.bytes += bytes;
            self.room.0.fetch_add(bytes, Ordering::Relaxed);
        }
        fits
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_so_much_together_and_one_alone_as_much_as_it_wants() {
        let room = Room::default();
        let (mut one, mut other) = (room.lend(), room.lend());
        assert!(one.take(70, 100) && one.take(70, 100), "it is alone");
        assert!(!other.take(1, 100));
        drop(one);
        let mut one = room.lend();
        assert!(other.take(60, 100) && one.take(40, 100));
        assert!(!one.take(1, 100) && !other.take(1, 100));
        assert_eq!(room.used(), 100);
        drop((one, other));
        assert_eq!(room.used(), 0);
    }
}
