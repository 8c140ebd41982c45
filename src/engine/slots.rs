//! A slab that gives back what it does not need: entries live in chunks of 64 that never move, and
//! a chunk without entries is freed. So growing copies nothing, however many there are, and most of
//! what a peak took is given back when its connections are gone.
//!
//! Costs: an index is two loads; an entry is found room for in the chunk that had some last.

/// Entries of one chunk.
const CHUNK: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Slots<T> {
    chunks: Vec<Option<Box<Chunk<T>>>>,
    /// Chunks that have room, or are freed; none is in it twice.
    open: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Chunk<T> {
    /// A bit for each entry that is there.
    used: u64,
    entries: [Option<T>; CHUNK],
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots { chunks: Vec::new(), open: Vec::new(), len: 0 }
    }
}

impl<T> Slots<T> {
    /// Puts an entry in; returns its index.
    pub fn insert(&mut self, entry: T) -> u32 {
        if self.open.is_empty() {
            self.open.push(self.chunks.len() as u32);
            self.chunks.push(None);
        }
        let place = self.open[self.open.len() - 1];
        let empty = || Box::new(Chunk { used: 0, entries: [const { None }; CHUNK] });
        let chunk = self.chunks[place as usize].get_or_insert_with(empty);
        let free = (!chunk.used).trailing_zeros();
        chunk.used |= 1 << free;
        chunk.entries[free as usize] = Some(entry);
        if chunk.used == u64::MAX {
            self.open.pop();
        }
        self.len += 1;
        place * CHUNK as u32 + free
    }

    /// The entry with an index.
    fn get(&self, index: u32) -> Option<&T> {
        let chunk = self.chunks.get(index as usize / CHUNK)?.as_ref()?;
        chunk.entries[index as usize % CHUNK].as_ref()
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let chunk = self.chunks.get_mut(index as usize / CHUNK)?.as_mut()?;
        chunk.entries[index as usize % CHUNK].as_mut()
    }

    /// The entry with an index, if there is one.
    pub fn of(&self, index: Option<u32>) -> Option<&T> {
        self.get(index?)
    }

    /// The same, to change it.
    pub fn of_mut(&mut self, index: Option<u32>) -> Option<&mut T> {
        self.get_mut(index?)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let place = index as usize / CHUNK;
        let slot = self.chunks.get_mut(place)?;
        let chunk = slot.as_mut()?;
        let entry = chunk.entries[index as usize % CHUNK].take()?;
        if chunk.used == u64::MAX {
            self.open.push(place as u32);
        }
        chunk.used &= !(1 << (index as usize % CHUNK));
        if chunk.used == 0 {
            *slot = None;
        }
        self.len -= 1;
        Some(entry)
    }

    /// The same, if there is an index.
    pub fn remove_of(&mut self, index: Option<u32>) -> Option<T> {
        self.remove(index?)
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn it_holds_what_a_map_holds_and_frees_what_is_empty() {
        let (mut slots, mut map) = (Slots::default(), HashMap::new());
        let mut random = 12345_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        for round in 0..20_000_u64 {
            let grows = round / 4000 % 2 == 0;
            let key = map.keys().nth((next() % 7) as usize).copied();
            match key.filter(|_| next() % 10 < if grows { 3 } else { 9 }) {
                Some(key) => assert_eq!(slots.remove(key), map.remove(&key)),
                None => {
                    let index = slots.insert(round);
                    assert_eq!(map.insert(index, round), None, "an index is given out once");
                }
            }
            assert_eq!(slots.len, map.len());
        }
        for (&key, value) in &map {
            assert_eq!(slots.get(key), Some(value));
            assert_eq!(slots.get_mut(key).as_deref(), Some(value));
        }
        for key in map.into_keys() {
            slots.remove(key);
        }
        assert!(slots.is_empty() && slots.chunks.iter().all(Option::is_none));
        assert_eq!(slots.remove(0), None);
    }
}
