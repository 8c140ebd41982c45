//! A slab in segments: the index of a thing stays the same while it exists, and a segment that
//! nothing is in owns no memory, but for one. Neither growing nor giving back moves a thing.
//!
//! Invariants: `room` has the numbers of exactly those segments that are not full; the last segment
//! is not empty, unless it is `spare`; at most one empty segment has memory.
//! Costs: an access is two array accesses. New things go to the first segment with room, so that
//! later ones empty when there are fewer.

use std::collections::BTreeSet;

use slab::Slab;

/// Things in a segment.
const SEGMENT: usize = 256;

/// See the module.
pub(super) struct Segments<T> {
    segments: Vec<Slab<T>>,
    room: BTreeSet<u32>,
    /// The empty segment that keeps its memory, so that one thing that comes and goes does not
    /// allocate a segment each time.
    spare: Option<u32>,
    len: usize,
}

impl<T> Segments<T> {
    /// Nothing; allocates nothing.
    pub fn new() -> Segments<T> {
        Segments { segments: Vec::new(), room: BTreeSet::new(), spare: None, len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Nothing has this index or a larger one.
    pub fn end(&self) -> u32 {
        (self.segments.len() * SEGMENT) as u32
    }

    /// Returns the index.
    pub fn insert(&mut self, thing: T) -> u32 {
        let number = match self.room.first() {
            Some(&number) => number,
            None => {
                let number = self.segments.len() as u32;
                self.segments.push(Slab::new());
                self.room.insert(number);
                number
            }
        };
        let segment = &mut self.segments[number as usize];
        if segment.is_empty() {
            segment.reserve(SEGMENT);
            self.spare.take_if(|spare| *spare == number);
        }
        let place = segment.insert(thing);
        if segment.len() == SEGMENT {
            self.room.remove(&number);
        }
        self.len += 1;
        number * SEGMENT as u32 + place as u32
    }

    /// The index must be that of a thing that exists.
    pub fn remove(&mut self, index: u32) -> T {
        let (number, place) = split(index);
        let segment = &mut self.segments[number];
        if segment.len() == SEGMENT {
            self.room.insert(number as u32);
        }
        let thing = segment.remove(place);
        self.len -= 1;
        if segment.is_empty() {
            self.emptied(number as u32);
        }
        thing
    }

    pub fn get(&self, index: u32) -> Option<&T> {
        let (number, place) = split(index);
        self.segments.get(number)?.get(place)
    }

    /// Indexes and things, in the order of the indexes.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let first = (0..).step_by(SEGMENT);
        first.zip(&self.segments).flat_map(|(first, segment)| {
            segment.iter().map(move |(place, thing)| (first + place as u32, thing))
        })
    }

    /// Of the empty segments only the first with memory keeps it, and what is behind the last thing
    /// goes.
    fn emptied(&mut self, number: u32) {
        let (kept, gone) = match self.spare {
            None => (number, None),
            Some(spare) => (spare.min(number), Some(spare.max(number))),
        };
        self.spare = Some(kept);
        if let Some(gone) = gone {
            self.segments[gone as usize] = Slab::new();
        }
        while let Some(last) = self.segments.len().checked_sub(1)
            && last as u32 != kept
            && self.segments[last].is_empty()
        {
            self.segments.pop();
            self.room.remove(&(last as u32));
        }
        let segments = &mut self.segments;
        if segments.len() < segments.capacity() / 4 {
            segments.shrink_to(2 * segments.len());
        }
    }

    /// Panics if an invariant of the module does not hold.
    pub fn check(&self) {
        let mut len = 0;
        for (number, segment) in (0..).zip(&self.segments) {
            len += segment.len();
            assert!(segment.capacity() <= SEGMENT, "segment {number}");
            assert_eq!(self.room.contains(&number), segment.len() < SEGMENT, "segment {number}");
            let owns = !segment.is_empty() || self.spare == Some(number);
            assert_eq!(segment.capacity() > 0, owns, "segment {number}");
        }
        assert_eq!(len, self.len);
        let last = self.segments.len().wrapping_sub(1);
        let needed = |last: &Slab<T>| !last.is_empty();
        let spare = self.spare.map(|spare| spare as usize);
        assert!(self.segments.last().is_none_or(needed) || spare == Some(last), "the last one");
        assert!(self.room.last().is_none_or(|&room| (room as usize) < self.segments.len()));
    }
}

impl<T> std::ops::Index<u32> for Segments<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        let (number, place) = split(index);
        &self.segments[number][place]
    }
}

impl<T> std::ops::IndexMut<u32> for Segments<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        let (number, place) = split(index);
        &mut self.segments[number][place]
    }
}

fn split(index: u32) -> (usize, usize) {
    (index as usize / SEGMENT, index as usize % SEGMENT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Things that segments have memory for.
    fn memory<T>(segments: &Segments<T>) -> usize {
        segments.segments.iter().map(|segment| segment.capacity()).sum()
    }

    #[test]
    fn a_peak_is_given_back_although_something_of_it_is_left() {
        let mut segments = Segments::new();
        let all: Vec<u32> = (0..100_000_u32).map(|n| segments.insert(n)).collect();
        let left = [70, 40_000, 40_001, 99_999];
        for &index in all.iter().filter(|index| !left.contains(index)) {
            segments.remove(index);
        }
        segments.check();
        assert!(memory(&segments) <= 4 * SEGMENT, "room for {}", memory(&segments));
        for index in left {
            assert_eq!(segments[index], index);
        }
        segments.remove(99_999);
        assert!(segments.end() < 41_000);
        left[..3].iter().for_each(|&index| _ = segments.remove(index));
        segments.check();
        assert!(segments.end() as usize <= SEGMENT && memory(&segments) <= SEGMENT);
        assert!(segments.segments.capacity() < 10);
    }

    #[test]
    fn what_comes_and_goes_alone_allocates_once() {
        let mut segments = Segments::new();
        (0..SEGMENT).for_each(|n| _ = segments.insert(n));
        for _ in 0..3 {
            let index = segments.insert(7);
            assert_eq!((index as usize, memory(&segments)), (SEGMENT, 2 * SEGMENT));
            segments.remove(index);
            assert_eq!(memory(&segments), 2 * SEGMENT);
            segments.check();
        }
    }

    proptest! {
        #[test]
        fn things_are_where_they_were_put(
            steps in proptest::collection::vec((any::<bool>(), 1..600_u32, any::<u32>()), 1..40)
        ) {
            let (mut segments, mut model) = (Segments::new(), BTreeMap::new());
            for (grows, count, at) in steps {
                for n in 0..count {
                    if grows {
                        let index = segments.insert(n);
                        prop_assert_eq!(model.insert(index, n), None);
                    } else if let Some((&index, _)) =
                        model.range(at.wrapping_mul(n) % (segments.end() + 1)..).next()
                    {
                        prop_assert_eq!(Some(segments.remove(index)), model.remove(&index));
                    }
                }
                segments.check();
                prop_assert_eq!(segments.len(), model.len());
                prop_assert!(segments.iter().eq(model.iter().map(|(&index, n)| (index, n))));
                prop_assert!(model.keys().all(|&index| index < segments.end()));
                prop_assert_eq!(segments.get(segments.end()), None);
            }
        }
    }
}
