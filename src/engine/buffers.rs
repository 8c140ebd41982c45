//! Receive buffers that belong to the kernel until something arrives: the provided-buffer ring of a
//! shard. An idle connection owns no buffer.
//!
//! Invariants:
//! * A buffer is in exactly one of three places: in the kernel's ring, named by a completion that
//!   waits in the [`Ring`](crate::engine::ring::Ring), or named by one [`Received`]. Only in the
//!   last case does anybody here look into it; a `Received` cannot be copied.
//! * `lent` counts the second and third place, `free() = count - lent`.
//! * The memory outlives every operation that may write into it: `Buffers` is dropped after the
//!   ring, and leaked if the kernel did not end its receives in time.
//!
//! Costs: no system call and no allocation per message. Giving a buffer back writes 16 bytes; the
//! tail that the kernel reads is stored once per turn (`publish`). The kernel takes buffers in the
//! order in which they came back, so all of them get touched in time: resident memory is
//! `buffers * buffer_bytes` under load, less before.

use std::io;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue};

use crate::engine::ring::Mapping;

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
    lent: u16,
    /// Where the next buffer goes that comes back.
    tail: u16,
    /// What the kernel was told of `tail`.
    published: u16,
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
        let owner = OWNERS.fetch_add(1, Ordering::Relaxed);
        let lent = count;
        let (tail, published) = (0, 0);
        let mut buffers = Buffers { entries, data, owner, bytes, count, lent, tail, published };
        (0..count).for_each(|buffer| buffers.put(buffer));
        buffers.publish();
        Ok(buffers)
    }

    /// A completion took a buffer out of the kernel's ring, if its flags say so.
    pub(crate) fn count_lent(&mut self, flags: u32) {
        if cqueue::buffer_select(flags).is_some() {
            debug_assert!(self.lent < self.count, "more buffers came than there are");
            self.lent = self.lent.saturating_add(1);
        }
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

    /// The kernel may use the buffer again, from the next `publish` on.
    pub(crate) fn give_back(&mut self, received: Received) {
        assert_eq!(received.owner, self.owner, "a receive of another ring");
        self.put(received.buffer);
    }

    /// Tells the kernel of everything that came back.
    pub(crate) fn publish(&mut self) {
        if self.published == self.tail {
            return;
        }
        // SAFETY: the tail lies inside the mapping, is 2-byte aligned, and only this thread writes
        // it. Release orders the entries before it, as the kernel's acquire expects.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.start.as_ptr().cast()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
        self.published = self.tail;
    }

    /// Whether the kernel does not know yet of everything that came back.
    pub(crate) fn unpublished(&self) -> bool {
        self.published != self.tail
    }

    /// Buffers that the kernel has or gets with the next `publish`.
    pub(crate) fn free(&self) -> usize {
        usize::from(self.count.saturating_sub(self.lent))
    }

    /// Gives the memory up for good, because the kernel may still write into it.
    pub(crate) fn leak(&mut self) {
        self.entries.leak();
        self.data.leak();
    }

    fn put(&mut self, buffer: u16) {
        debug_assert!(self.lent > 0, "a buffer came back twice");
        let address = self.data.start.as_ptr() as u64 + self.offset(buffer) as u64;
        let at = usize::from(self.tail & (self.count - 1));
        // SAFETY: `at` is below `count`. The kernel reads entries between its head and the
        // published tail only; this one is beyond it, because at most `count` buffers exist. The
        // setters leave the last two bytes alone, which are the tail in the first entry.
        let entry = unsafe { &mut *self.entries.start.as_ptr().cast::<BufRingEntry>().add(at) };
        entry.set_addr(address);
        entry.set_len(self.bytes);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        self.lent = self.lent.saturating_sub(1);
    }

    fn offset(&self, buffer: u16) -> usize {
        assert!(buffer < self.count, "the kernel named a buffer that does not exist");
        usize::from(buffer) * self.bytes as usize
    }
}
