//! Receive buffers that belong to the kernel until something arrives: the provided-buffer ring of a
//! shard. An idle connection owns no buffer.
//!
//! The kernel takes buffers in the order in which it got them, so all that it has are touched in
//! turn. It therefore has few at a time, `OFFERED_MIN` to begin with, and gets another one when
//! it has used one; the others lie on a stack. It has twice as many once it was short of them a few
//! times, and fewer again when it has not needed so many for a second. What nobody has needed for
//! so long gives its memory back.
//!
//! Invariants:
//! * A buffer is in exactly one of four places: in the kernel's ring, named by a completion that
//!   waits in the [`Ring`](crate::engine::ring::Ring), named by one [`Received`], or on the stack.
//!   Only in the third case does anybody here look into it; a `Received` cannot be copied.
//! * Right after the completion queue was drained `offered` counts the first place, and those
//!   buffers are in the entries that were written last.
//! * The memory outlives every operation that may write into it: `Buffers` is dropped after the
//!   ring, and leaked if the kernel did not end its receives in time.
//!
//! Costs: no system call and no allocation per message. Giving a buffer back writes 16 bytes; the
//! tail that the kernel reads is stored once per entry into the kernel. Resident is what is in use
//! at once and what the kernel has besides.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue};

use crate::engine::ring::Mapping;

/// What the kernel has at the least, if there are as many: more than it uses in one entry, which
/// runs some 20 receives.
const OFFERED_MIN: u16 = 64;
/// How often within a second the kernel is short of buffers before it gets twice as many.
const SHORT_MAX: u16 = 8;
/// Buffers whose memory is given back in one rest: a system call each.
const PURGED_MAX: usize = 256;
/// The buffer group of the kernel that a ring uses. One per ring is enough.
pub(crate) const GROUP: u16 = 0;

/// The bytes of one receive: a claim to a buffer, to be given back exactly once.
#[derive(Debug)]
#[must_use = "a buffer that is not given back is lost for its shard"]
pub struct Received {
    /// At most the buffer size.
    len: u32,
    /// The ring that the buffer belongs to.
    owner: u32,
    buffer: u16,
}

impl Received {
    /// Bytes received, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.len as usize
    }
}

/// All receive buffers of a ring.
pub(crate) struct Buffers {
    entries: Mapping,
    data: Mapping,
    owner: u32,
    /// Size of each.
    bytes: u32,
    /// How many; a power of two up to 32768.
    count: u16,
    /// How many the kernel has.
    offered: u16,
    /// How many it should have.
    wanted: u16,
    /// How many it has used since the completion queue was drained before.
    used: u16,
    /// Those that nobody has; the last is used next.
    stack: Vec<u16>,
    /// At the bottom of the stack these have no memory.
    clean: usize,
    /// How many entries were written; the low bits are the place of the next.
    tail: u32,
    /// What the kernel was told of `tail`.
    published: u32,
    /// The buffers in these entries have no memory, counted like `tail`.
    purged: Range<u32>,
    recent: Recent,
}

/// What was needed since the last [`Buffers::rest`].
#[derive(Default)]
struct Recent {
    /// The lowest that the stack was.
    stack_min: usize,
    /// The most that the kernel used between two drains.
    used_max: u16,
    /// How often that was more than half of what it should have.
    short: u16,
}

impl Buffers {
    /// Maps the memory and registers it. `count` is a power of two up to 32768, `bytes` not 0.
    ///
    /// # Safety
    /// The buffers must be dropped after `ring`, or leaked.
    pub(crate) unsafe fn register(ring: &IoUring, count: u16, bytes: u32) -> io::Result<Buffers> {
        static OWNERS: AtomicU32 = AtomicU32::new(0);
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let data = Mapping::new(usize::from(count) * bytes as usize)?;
        // SAFETY: the mapping is page-aligned, holds `count` entries and outlives the ring.
        unsafe {
            let address = entries.start.as_ptr() as u64;
            ring.submitter().register_buf_ring_with_flags(address, count, GROUP, 0)?;
        }
        let mut buffers = Buffers {
            entries,
            data,
            owner: OWNERS.fetch_add(1, Ordering::Relaxed),
            bytes,
            count,
            offered: 0,
            wanted: count.min(OFFERED_MIN),
            used: 0,
            stack: (0..count).rev().collect(),
            clean: usize::from(count),
            tail: 0,
            published: 0,
            purged: 0..0,
            recent: Recent::default(),
        };
        buffers.publish();
        Ok(buffers)
    }

    /// A completion took a buffer out of the kernel's ring, if its flags say so.
    pub(crate) fn count_lent(&mut self, flags: u32) {
        if cqueue::buffer_select(flags).is_some() {
            debug_assert!(self.offered > 0, "more buffers came than there are");
            self.offered = self.offered.saturating_sub(1);
            self.used = self.used.saturating_add(1);
        }
    }

    /// The completion queue was drained: the kernel gets others for those that it has used.
    pub(crate) fn drained(&mut self) {
        if self.used == 0 {
            return;
        }
        self.recent.used_max = self.recent.used_max.max(self.used);
        self.recent.short += u16::from(self.used > self.wanted / 2);
        if self.recent.short > SHORT_MAX {
            self.recent.short = 0;
            self.wanted = self.wanted.saturating_mul(2).min(self.count);
        }
        self.used = 0;
        self.publish();
    }

    /// Whether the kernel has none, and there is none that it could get.
    pub(crate) fn are_lent(&self) -> bool {
        self.offered == 0 && self.stack.is_empty()
    }

    /// The claim that a receive completion stands for. To be called once per completion. A buffer
    /// that came with nothing in it goes back at once.
    pub(crate) fn claim(&mut self, flags: u32, result: i32) -> Option<Received> {
        let buffer = cqueue::buffer_select(flags)?;
        let len = u32::try_from(result).unwrap_or(0).min(self.bytes);
        let received = Received { len, owner: self.owner, buffer };
        if len == 0 {
            self.give_back(received);
            return None;
        }
        Some(received)
    }

    /// The bytes behind a claim.
    pub(crate) fn data(&mut self, received: &Received) -> &mut [u8] {
        assert_eq!(received.owner, self.owner, "a receive of another ring");
        let at = self.offset(received.buffer);
        // SAFETY: `offset` checks the index, `len` is at most the buffer size. The kernel gave this
        // buffer away with the completion and gets it back through `give_back`, which takes the
        // claim. Anonymous memory is initialised. The result borrows `self` mutably, so there is no
        // second slice.
        unsafe {
            let start = self.data.start.as_ptr().add(at);
            std::slice::from_raw_parts_mut(start, received.len as usize)
        }
    }

    /// The kernel may use the buffer again, from the next `publish` on or a later one.
    pub(crate) fn give_back(&mut self, received: Received) {
        assert_eq!(received.owner, self.owner, "a receive of another ring");
        let ours = usize::from(self.offered) + self.stack.len();
        debug_assert!(ours < usize::from(self.count), "a buffer came back twice");
        if self.offered < self.wanted {
            self.put(received.buffer);
        } else {
            self.stack.push(received.buffer);
        }
    }

    /// Tells the kernel of everything that it gets.
    pub(crate) fn publish(&mut self) {
        while self.offered < self.wanted
            && let Some(buffer) = self.stack.pop()
        {
            self.put(buffer);
        }
        self.clean = self.clean.min(self.stack.len());
        self.recent.stack_min = self.recent.stack_min.min(self.stack.len());
        if !self.unpublished() {
            return;
        }
        // SAFETY: the tail lies inside the mapping, is 2-byte aligned, and only this thread writes
        // it. Release orders the entries before it, as the kernel's acquire expects.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.start.as_ptr().cast()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail as u16, Ordering::Release);
        }
        self.published = self.tail;
    }

    /// Whether the kernel does not know yet of everything that it gets.
    pub(crate) fn unpublished(&self) -> bool {
        self.published != self.tail
    }

    /// Buffers that the kernel has or gets with the next `publish`.
    pub(crate) fn free(&self) -> usize {
        usize::from(self.wanted).min(usize::from(self.offered) + self.stack.len())
    }

    /// Bytes that may be resident.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let without = self.clean + self.purged_offered().len();
        (usize::from(self.count) - without) as u64 * u64::from(self.bytes)
    }

    /// To be called about once a second: memory that nobody has needed since the last call is given
    /// back, half of it or all that the kernel has too much, as far as it does not take too long.
    /// Only while `offered` is right, see the module.
    pub(crate) fn rest(&mut self) {
        let recent = std::mem::take(&mut self.recent);
        self.recent.stack_min = self.stack.len();
        let needed = (2 * u32::from(recent.used_max)).next_power_of_two();
        let needed = u16::try_from(needed).unwrap_or(u16::MAX);
        self.wanted = needed.max(OFFERED_MIN).min(self.wanted);
        let unneeded = recent.stack_min.saturating_sub(self.clean).div_ceil(2).min(PURGED_MAX);
        for place in self.clean..self.clean + unneeded {
            self.purge(self.stack[place]);
        }
        self.clean += unneeded;
        self.purge_offered(PURGED_MAX - unneeded);
    }

    /// Gives the memory up for good, because the kernel may still write into it.
    pub(crate) fn leak(&mut self) {
        self.entries.leak();
        self.data.leak();
    }

    /// The first entry that the kernel has not used.
    fn first(&self) -> u32 {
        self.tail.wrapping_sub(u32::from(self.offered))
    }

    /// Which of the buffers that the kernel has are without memory, counted from the next that it
    /// uses.
    fn purged_offered(&self) -> Range<u16> {
        let place = |entry: u32| u16::try_from(entry.wrapping_sub(self.first()));
        match (place(self.purged.start), place(self.purged.end)) {
            (start, Ok(end)) if end <= self.offered => {
                start.ok().filter(|start| *start <= end).unwrap_or(0)..end
            }
            _ => 0..0,
        }
    }

    /// Of what the kernel has, that which it uses last beyond what it should have gives its memory
    /// back.
    fn purge_offered(&mut self, mut purged_max: usize) {
        let (first, purged) = (self.first(), self.purged_offered());
        let begin = self.wanted.min(self.offered);
        let mut end = begin;
        while end < self.offered && purged_max > 0 {
            if !purged.contains(&end) {
                // SAFETY: `place` is below `count`, and the entry was written.
                let buffer = unsafe { (*self.entry(first.wrapping_add(u32::from(end)))).bid() };
                self.purge(buffer);
                purged_max -= 1;
            }
            end += 1;
        }
        let entry = |place: u16| first.wrapping_add(u32::from(place));
        self.purged = entry(begin)..entry(end);
    }

    /// What is in the buffer is lost, and its memory given back. Nobody may have it.
    fn purge(&mut self, buffer: u16) {
        let at = self.offset(buffer);
        self.data.purge(at..at + self.bytes as usize);
    }

    fn put(&mut self, buffer: u16) {
        let address = self.data.start.as_ptr() as u64 + self.offset(buffer) as u64;
        // SAFETY: the kernel reads entries between its head and the published tail only; this one
        // is beyond it, because at most `count` buffers exist. The setters leave the last two bytes
        // alone, which are the tail in the first entry.
        let entry = unsafe { &mut *self.entry(self.tail) };
        entry.set_addr(address);
        entry.set_len(self.bytes);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        self.offered += 1;
    }

    /// Where an entry is, counted like `tail`; inside the mapping, and aligned.
    fn entry(&self, number: u32) -> *mut BufRingEntry {
        let place = number as usize & (usize::from(self.count) - 1);
        // SAFETY: the mapping holds `count` entries.
        unsafe { self.entries.start.as_ptr().cast::<BufRingEntry>().add(place) }
    }

    fn offset(&self, buffer: u16) -> usize {
        assert!(buffer < self.count, "the kernel named a buffer that does not exist");
        usize::from(buffer) * self.bytes as usize
    }
}
