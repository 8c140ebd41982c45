//! A table of things by name, for users and topics: found by name through a hash table, by index
//! without one. The index of a thing stays the same while it exists.
//!
//! Invariants: a name occurs once; the hash tables and the segments hold the same things.
//! Costs: a lookup hashes the name once and compares it once. A hash table takes 8 bytes per name,
//! so that growing it never reads the names, and there are [`TABLES`] of them, so that one which
//! grows or shrinks is a fraction of all: 16,000 names of a million, well below a millisecond.
//! Opening a new name allocates the name; nothing else does, apart from growth. Room that is no
//! longer needed is given back.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::hash_table::{Entry, HashTable};

use crate::hub::segments::Segments;

/// See the module. The keys of the hash differ from table to table, so that names which collide in
/// one process do not in the next.
pub(super) struct Names<T> {
    things: Segments<(Arc<str>, T)>,
    /// By the hash; see [`table_of`].
    tables: [HashTable<Key>; TABLES],
    keys: hashbrown::DefaultHashBuilder,
}

impl<T: Default> Default for Names<T> {
    fn default() -> Names<T> {
        Names::new()
    }
}

impl<T: Default> Names<T> {
    pub fn new() -> Names<T> {
        Names {
            things: Segments::new(),
            tables: [const { HashTable::new() }; TABLES],
            keys: Default::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.things.len()
    }

    pub fn find(&self, name: &str) -> Option<u32> {
        let hash = self.keys.hash_one(name) as u32;
        let is_it = |key: &Key| key.hash == hash && *self.things[key.index].0 == *name;
        self.tables[table_of(hash)].find(spread(hash), is_it).map(|key| key.index)
    }

    /// The indexes of those names that exist, each once, in no useful order.
    pub fn find_all(&self, names: &[Box<str>]) -> Vec<u32> {
        let mut found: Vec<u32> = names.iter().filter_map(|name| self.find(name)).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Finds the thing of this name or makes an empty one.
    pub fn open(&mut self, name: &str) -> u32 {
        let hash = self.keys.hash_one(name) as u32;
        let is_it = |key: &Key| key.hash == hash && *self.things[key.index].0 == *name;
        let rehash = |key: &Key| spread(key.hash);
        match self.tables[table_of(hash)].entry(spread(hash), is_it, rehash) {
            Entry::Occupied(entry) => entry.get().index,
            Entry::Vacant(entry) => {
                let index = self.things.insert((Arc::from(name), T::default()));
                entry.insert(Key { hash, index });
                index
            }
        }
    }

    /// `index` must be that of a thing that exists; so for all that follow.
    pub fn name(&self, index: u32) -> &Arc<str> {
        &self.things[index].0
    }

    pub fn thing(&self, index: u32) -> &T {
        &self.things[index].1
    }

    pub fn thing_mut(&mut self, index: u32) -> &mut T {
        &mut self.things[index].1
    }

    /// The name of a thing, if there is one of this index.
    pub fn get(&self, index: u32) -> Option<&Arc<str>> {
        self.things.get(index).map(|(name, _)| name)
    }

    /// No thing has this index or a larger one. Hardly more than what there ever was at once.
    pub fn end(&self) -> u32 {
        self.things.end()
    }

    pub fn remove(&mut self, index: u32) -> T {
        let (name, thing) = self.things.remove(index);
        let hash = self.keys.hash_one(&*name) as u32;
        let table = &mut self.tables[table_of(hash)];
        let entry = table.find_entry(spread(hash), |key| key.index == index);
        debug_assert!(entry.is_ok());
        if let Ok(entry) = entry {
            entry.remove();
        }
        give_back_table(table, |key| spread(key.hash));
        thing
    }

    /// Indexes, names and things, in the order of the indexes.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Arc<str>, &T)> {
        let things = self.things.iter();
        things.map(|(index, (name, thing))| (index, name, thing))
    }

    /// Panics if an invariant of the module does not hold.
    pub fn check(&self) {
        self.things.check();
        let names: usize = self.tables.iter().map(HashTable::len).sum();
        assert_eq!(names, self.things.len());
        for (index, name, _) in self.iter() {
            assert_eq!(self.find(name), Some(index), "{name} is not found");
        }
        for table in &self.tables {
            assert!(!table.is_empty() || table.capacity() == 0);
            assert!(table.capacity() <= TABLE_KEPT.max(8 * table.len()));
        }
    }
}

#[derive(Clone, Copy)]
struct Key {
    hash: u32,
    index: u32,
}

/// Hash tables of one [`Names`].
const TABLES: usize = 64;

/// Which of them a name is in: by bits that a table of less than half a million names does not use.
fn table_of(hash: u32) -> usize {
    (hash >> 19) as usize % TABLES
}

/// hashbrown takes the bucket from the low bits and seven more bits from the top.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// Capacity below which a vector is left as it is.
pub(super) const VEC_KEPT: usize = 16;

/// Capacity below which a hash table is left as it is.
const TABLE_KEPT: usize = 64;

/// Shrinks a vector that uses less than a quarter of its room to twice what it uses: constant cost
/// per removal on average.
pub(super) fn give_back<T>(vec: &mut Vec<T>) {
    if vec.capacity() > VEC_KEPT && vec.len() < vec.capacity() / 4 {
        vec.shrink_to(2 * vec.len());
    }
}

/// The same for a hash table, at an eighth. An empty one owns nothing: each of the many small ones
/// that a peak leaves would lie in a page of its own.
pub(super) fn give_back_table<T>(table: &mut HashTable<T>, hash: impl Fn(&T) -> u64) {
    if table.is_empty() {
        *table = HashTable::new();
    } else if table.capacity() > TABLE_KEPT && table.len() < table.capacity() / 8 {
        table.shrink_to(2 * table.len(), hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_until_it_is_removed() {
        let mut names = Names::<u32>::new();
        let first = names.open("first");
        let second = names.open("second");
        assert_eq!(names.open("first"), first);
        assert_ne!(first, second);
        *names.thing_mut(first) = 7;
        assert_eq!(names.find_all(&["second".into(), "x".into(), "second".into()]), [second]);
        assert_eq!(names.remove(first), 7);
        assert_eq!(names.find("first"), None);
        assert_eq!(names.find("second"), Some(second));
        assert_eq!(names.len(), 1);
        names.check();
    }

    /// Of so many names some have the same 32 bits of hash.
    #[test]
    fn names_are_told_apart_by_more_than_the_hash() {
        let mut names = Names::<()>::new();
        for n in 0..300_000 {
            assert_eq!(names.open(&n.to_string()), n);
        }
        assert!((0..300_000).all(|n| names.find(&n.to_string()) == Some(n)));
    }

    #[test]
    fn room_is_given_back() {
        let mut names = Names::<u32>::new();
        let all: Vec<u32> = (0..100_000).map(|n| names.open(&n.to_string())).collect();
        let room = |names: &Names<u32>| names.tables.iter().map(HashTable::capacity).sum::<usize>();
        let peak = room(&names);
        assert!(peak >= 100_000);
        for &index in &all[10..] {
            names.remove(index);
        }
        names.check();
        assert!(room(&names) < peak / 16);
        for &index in &all[..10] {
            names.remove(index);
        }
        names.check();

        let mut vec = vec![0_u8; 10_000];
        while vec.pop().is_some() {
            give_back(&mut vec);
            assert!(vec.capacity() <= VEC_KEPT.max(4 * vec.len() + 4));
        }
    }
}
