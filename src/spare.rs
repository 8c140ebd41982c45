//! Room that containers keep after a peak and do not need, given back.
//!
//! A container grows with what is in it and does not shrink by itself. Who owns containers that
//! outlive a peak takes a [`Look`] at them every [`EVERY_MS`]: one that has room for more than
//! [`KEPT_BYTES`] and uses less than a quarter of it gets room for twice what is in it. Tables of
//! the hub, which are too large for that, shrink with each removal (`hub/names.rs`).
//!
//! Costs: nothing per message. What is left in a container moves, so a look moves
//! `MOVED_BYTES_MAX` at the most; what would be more waits for another one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hash};

use slab::Slab;

/// Milliseconds between two looks at the same containers.
pub const EVERY_MS: u64 = 1000;
/// Room below this is kept.
pub const KEPT_BYTES: usize = 64 * 1024;
/// What one look moves. A hash table of so many bytes is made anew in about a millisecond.
const MOVED_BYTES_MAX: usize = 1024 * 1024;

/// A container that keeps its room.
pub trait Spare {
    /// Bytes of an entry.
    const ENTRY_BYTES: usize;

    /// Entries that would have to move.
    fn used(&self) -> usize;

    /// Entries that it has room for.
    fn room(&self) -> usize;

    /// Makes room for so many entries, no fewer than there are, and gives the rest back.
    fn shrink(&mut self, entries: usize);
}

/// One look at the containers of one owner.
#[derive(Debug)]
pub struct Look {
    /// Bytes that may still move.
    left: usize,
}

impl Default for Look {
    fn default() -> Look {
        Look { left: MOVED_BYTES_MAX }
    }
}

impl Look {
    /// Gives back what the container has too much.
    pub fn at<C: Spare>(&mut self, container: &mut C) {
        let (used, room) = (container.used(), container.room());
        let bytes = used.saturating_mul(C::ENTRY_BYTES);
        if room.saturating_mul(C::ENTRY_BYTES) > KEPT_BYTES && used < room / 4 && bytes <= self.left
        {
            self.left -= bytes;
            container.shrink(2 * used);
        }
    }
}

/// For a container that is one of very many, where it may have become empty: gives its room back
/// if it has.
pub fn emptied<C: Spare>(container: &mut C) {
    if container.used() == 0 && container.room().saturating_mul(C::ENTRY_BYTES) > KEPT_BYTES {
        container.shrink(0);
    }
}

/// Of a container whose entries are counted by `len()`.
macro_rules! len_of_capacity {
    () => {
        fn used(&self) -> usize {
            self.len()
        }

        fn room(&self) -> usize {
            self.capacity()
        }
    };
}

impl<T> Spare for Vec<T> {
    const ENTRY_BYTES: usize = size_of::<T>();

    len_of_capacity!();

    fn shrink(&mut self, entries: usize) {
        // In place an allocator would copy all of the new room, or give nothing back.
        let mut small = Vec::with_capacity(entries);
        small.append(self);
        *self = small;
    }
}

impl<T> Spare for VecDeque<T> {
    const ENTRY_BYTES: usize = size_of::<T>();

    len_of_capacity!();

    fn shrink(&mut self, entries: usize) {
        let mut small = VecDeque::with_capacity(entries);
        small.append(self);
        *self = small;
    }
}

impl Spare for String {
    const ENTRY_BYTES: usize = 1;

    len_of_capacity!();

    fn shrink(&mut self, entries: usize) {
        let mut small = String::with_capacity(entries);
        small.push_str(self);
        *self = small;
    }
}

/// Its keys must not change, so it gives back its room when nothing is in it.
impl<T> Spare for Slab<T> {
    const ENTRY_BYTES: usize = size_of::<T>();

    fn used(&self) -> usize {
        if self.is_empty() { 0 } else { self.capacity() }
    }

    fn room(&self) -> usize {
        self.capacity()
    }

    fn shrink(&mut self, entries: usize) {
        *self = Slab::with_capacity(entries);
    }
}

impl<K: Eq + Hash, V, S: BuildHasher> Spare for HashMap<K, V, S> {
    const ENTRY_BYTES: usize = size_of::<(K, V)>();

    len_of_capacity!();

    fn shrink(&mut self, entries: usize) {
        self.shrink_to(entries);
    }
}

impl<K: Eq + Hash, S: BuildHasher> Spare for HashSet<K, S> {
    const ENTRY_BYTES: usize = size_of::<K>();

    len_of_capacity!();

    fn shrink(&mut self, entries: usize) {
        self.shrink_to(entries);
    }
}

impl<K: Eq + Hash, V, S: BuildHasher> Spare for hashbrown::HashMap<K, V, S> {
    const ENTRY_BYTES: usize = size_of::<(K, V)>();

    len_of_capacity!();

    fn shrink(&mut self, entries: usize) {
        self.shrink_to(entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More entries of 8 bytes than are kept without use.
    const MANY: u64 = 100_000;

    fn looked<C: Spare>(mut container: C) -> C {
        Look::default().at(&mut container);
        container
    }

    /// Fills each kind of container, takes out what `keep` does not want, and looks at it.
    fn peak(keep: impl Fn(&u64) -> bool) -> [(usize, usize); 5] {
        let mut vec: Vec<u64> = (0..MANY).collect();
        vec.retain(&keep);
        let mut deque: VecDeque<u64> = (0..MANY).collect();
        deque.retain(&keep);
        let mut map: HashMap<u64, ()> = (0..MANY).map(|key| (key, ())).collect();
        map.retain(|key, ()| keep(key));
        let mut set: HashSet<u64> = (0..MANY).collect();
        set.retain(&keep);
        let mut table: hashbrown::HashMap<u64, ()> = (0..MANY).map(|key| (key, ())).collect();
        table.retain(|key, ()| keep(key));
        let (vec, deque, map) = (looked(vec), looked(deque), looked(map));
        let (set, table) = (looked(set), looked(table));
        assert!(vec.iter().copied().eq((0..MANY).filter(&keep)), "in their order");
        assert!(deque.iter().eq(&vec));
        for key in &vec {
            assert!(map.contains_key(key) && set.contains(key) && table.contains_key(key));
        }
        [
            (vec.len(), vec.capacity()),
            (deque.len(), deque.capacity()),
            (map.len(), map.capacity()),
            (set.len(), set.capacity()),
            (table.len(), table.capacity()),
        ]
    }

    #[test]
    fn what_is_left_of_a_peak_has_room_for_twice_as_much() {
        for (used, room) in peak(|key| key % 100 == 0) {
            assert_eq!(used, 1000);
            assert!((1000..=4000).contains(&room), "room for {room}");
        }
        assert!(peak(|_| false).iter().all(|&(used, room)| used == 0 && room == 0));
    }

    #[test]
    fn what_is_needed_or_small_is_kept() {
        for (used, room) in peak(|key| key % 2 == 0) {
            // What was taken out of a hash table leaves marks that count as used.
            assert!(used == 50_000 && room > 60_000, "room for {room}");
        }
        let small = looked(Vec::<u8>::with_capacity(KEPT_BYTES));
        assert_eq!(small.capacity(), KEPT_BYTES);
    }

    #[test]
    fn one_look_moves_only_so_much_and_the_next_goes_on() {
        let large = || {
            let mut vec = vec![0_u8; 10 * MOVED_BYTES_MAX];
            vec.truncate(MOVED_BYTES_MAX);
            vec
        };
        let (mut first, mut second) = (large(), large());
        let mut look = Look::default();
        look.at(&mut first);
        look.at(&mut second);
        assert_eq!(first.capacity(), 2 * MOVED_BYTES_MAX);
        assert_eq!(second.capacity(), 10 * MOVED_BYTES_MAX);
        // Where nothing moves, nothing has to wait.
        let mut empty = large();
        empty.clear();
        look.at(&mut empty);
        assert_eq!(empty.capacity(), 0);
        Look::default().at(&mut second);
        assert_eq!(second.capacity(), 2 * MOVED_BYTES_MAX);
        let too_much = looked({
            let mut vec = vec![0_u8; 10 * MOVED_BYTES_MAX];
            vec.truncate(MOVED_BYTES_MAX + 1);
            vec
        });
        assert_eq!(too_much.capacity(), 10 * MOVED_BYTES_MAX);
    }

    #[test]
    fn keys_of_a_slab_stay_and_an_empty_one_has_no_room() {
        let mut slab: Slab<u64> = (0..MANY).map(|key| (key as usize, key)).collect();
        (0..MANY as usize - 1).for_each(|key| _ = slab.remove(key));
        let room = slab.capacity();
        let mut slab = looked(slab);
        assert_eq!((slab.len(), slab.capacity()), (1, room));
        slab.remove(MANY as usize - 1);
        assert_eq!(looked(slab).capacity(), 0);
    }

    #[test]
    fn one_of_many_gives_its_room_back_when_it_is_empty() {
        let mut deque: VecDeque<u64> = (0..MANY).collect();
        while deque.pop_front().is_some() {
            let before = deque.capacity();
            emptied(&mut deque);
            assert!(deque.is_empty() || deque.capacity() == before);
        }
        assert_eq!(deque.capacity(), 0);
    }
}
