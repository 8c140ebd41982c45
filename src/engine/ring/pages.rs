//! Whole pages from the kernel, for memory whose address the kernel keeps.
//!
//! What is registered with a ring is charged to the user's limit of locked memory page by page, and
//! a transparent huge page counts in full for the smallest piece in it: 2 MiB on x86-64. So such
//! memory gets pages of its own that never become huge.

use std::alloc::{GlobalAlloc, Layout};
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use crate::allocator::page_bytes;

/// Anonymous memory, page-aligned and zero; resident only where it was touched.
pub(crate) struct Mapping {
    pub(crate) start: NonNull<u8>,
    /// 0: not to be unmapped.
    pub(crate) bytes: usize,
}

impl Mapping {
    pub(crate) fn new(bytes: usize) -> io::Result<Mapping> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { start, bytes })
    }

    /// The same from pages of the smallest size only.
    pub(super) fn of_small_pages(bytes: usize) -> io::Result<Mapping> {
        let mapping = Mapping::new(bytes)?;
        // SAFETY: advice about a mapping that is ours. It fails where there are no huge pages.
        unsafe { libc::madvise(mapping.start.as_ptr().cast(), bytes, libc::MADV_NOHUGEPAGE) };
        Ok(mapping)
    }

    /// Gives the whole pages in a part of it back to the system. They are zero when they are used
    /// again.
    pub(crate) fn purge(&mut self, part: Range<usize>) {
        let page = page_bytes();
        let (start, end) = (part.start.next_multiple_of(page), part.end / page * page);
        assert!(part.end <= self.bytes, "behind the end of the mapping");
        if start >= end {
            return;
        }
        // SAFETY: these pages are ours, and nobody looks into them now. It does not fail for
        // anonymous memory that is not locked; then they stay.
        unsafe {
            let start_at = self.start.as_ptr().add(start);
            libc::madvise(start_at.cast(), end - start, libc::MADV_DONTNEED);
        }
    }

    /// Gives the memory up for good.
    pub(crate) fn leak(&mut self) {
        self.bytes = 0;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: the mapping was made by `new` with this size; nobody looks into it any more.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
        }
    }
}

/// The allocator of a process that runs shards: another one, but what asks to begin at a page gets
/// pages of its own. glommio registers such a piece of 64 KiB with each of its three rings; taken
/// from a heap of huge pages it was charged with 6 MiB per shard.
///
/// Costs one comparison for every other allocation.
pub struct PageAllocator<A>(pub A);

/// What glommio asks for.
const PAGE_ALIGN: usize = 4096;

/// Whether a layout gets pages of its own.
fn is_pages(layout: Layout) -> bool {
    layout.align() == PAGE_ALIGN
}

// SAFETY: a layout goes to the same of two allocators whenever it is used. Mappings are at least
// as large as asked for, begin at a page, are zero, and are unmapped with the size they were made
// with.
unsafe impl<A: GlobalAlloc> GlobalAlloc for PageAllocator<A> {
    /// # Safety
    /// See [`GlobalAlloc::alloc`].
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_pages(layout) {
            // SAFETY: the caller's promises.
            return unsafe { self.0.alloc(layout) };
        }
        match Mapping::of_small_pages(layout.size()) {
            Ok(mut mapping) => {
                mapping.leak();
                mapping.start.as_ptr()
            }
            Err(_) => std::ptr::null_mut(),
        }
    }

    /// # Safety
    /// See [`GlobalAlloc::dealloc`].
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match NonNull::new(pointer).filter(|_| is_pages(layout)) {
            Some(start) => drop(Mapping { start, bytes: layout.size() }),
            // SAFETY: the caller's promises; `alloc` took it from there.
            None => unsafe { self.0.dealloc(pointer, layout) },
        }
    }

    /// # Safety
    /// See [`GlobalAlloc::alloc_zeroed`].
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_pages(layout) {
            // SAFETY: the caller's promises; what is mapped is zero.
            unsafe { self.alloc(layout) }
        } else {
            // SAFETY: the caller's promises.
            unsafe { self.0.alloc_zeroed(layout) }
        }
    }

    /// # Safety
    /// See [`GlobalAlloc::realloc`].
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !is_pages(layout) {
            // SAFETY: the caller's promises.
            return unsafe { self.0.realloc(pointer, layout, new_size) };
        }
        // SAFETY: the caller promises that the new size fits into a layout.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the caller promises that the new size is not 0.
        let new = unsafe { self.alloc(new_layout) };
        if !new.is_null() {
            let both = layout.size().min(new_size);
            // SAFETY: two mappings, each at least so large; the old one is the caller's.
            unsafe {
                std::ptr::copy_nonoverlapping(pointer, new, both);
                self.dealloc(pointer, layout);
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::System;

    const ALLOCATOR: PageAllocator<System> = PageAllocator(System);

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).expect("small")
    }

    /// The `VmFlags` of the mapping that an address lies in.
    fn flags_of(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("this process");
        let mut inside = false;
        for line in maps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let number = |text| usize::from_str_radix(text, 16).ok();
            if let Some((Some(from), Some(to))) = range.map(|(a, b)| (number(a), number(b))) {
                inside = (from..to).contains(&address);
            } else if inside && line.starts_with("VmFlags:") {
                return line.to_owned();
            }
        }
        panic!("{address:x} is mapped nowhere");
    }

    #[test]
    fn what_begins_at_a_page_lies_in_pages_that_never_become_huge() {
        let layout = layout(64 << 10, 4096);
        // SAFETY: what is written and read was allocated with this layout, and freed once.
        unsafe {
            let start = ALLOCATOR.alloc(layout);
            assert_eq!(start as usize % 4096, 0);
            let flags = flags_of(start as usize);
            assert!(flags.split(' ').any(|flag| flag == "nh"), "{flags}");
            start.write_bytes(7, layout.size());
            let larger = ALLOCATOR.realloc(start, layout, 128 << 10);
            let new = Layout::from_size_align(128 << 10, 4096).expect("small");
            let bytes = std::slice::from_raw_parts(larger, new.size());
            assert!(bytes[..64 << 10].iter().all(|byte| *byte == 7));
            assert!(bytes[64 << 10..].iter().all(|byte| *byte == 0));
            ALLOCATOR.dealloc(larger, new);
        }
    }

    #[test]
    fn what_is_purged_has_no_memory_and_is_zero() {
        let page = page_bytes();
        let mut mapping = Mapping::new(4 * page).expect("memory");
        let resident = |mapping: &Mapping| -> Vec<bool> {
            let mut pages = vec![0_u8; 4];
            let start = mapping.start.as_ptr().cast();
            // SAFETY: the mapping is of four pages, and there is a byte for each.
            let result = unsafe { libc::mincore(start, 4 * page, pages.as_mut_ptr()) };
            assert_eq!(result, 0);
            pages.into_iter().map(|page| page & 1 == 1).collect()
        };
        // SAFETY: nobody else has the mapping.
        unsafe { mapping.start.as_ptr().write_bytes(7, 4 * page) };
        assert_eq!(resident(&mapping), [true; 4]);
        mapping.purge(page / 2..3 * page + 1);
        assert_eq!(resident(&mapping), [true, false, false, true]);
        mapping.purge(10..page);
        assert_eq!(resident(&mapping), [true, false, false, true]);
        // SAFETY: the mapping is initialised.
        let bytes = unsafe { std::slice::from_raw_parts(mapping.start.as_ptr(), 4 * page) };
        let zero = page..3 * page;
        assert!((0..4 * page).all(|at| bytes[at] == if zero.contains(&at) { 0 } else { 7 }));
    }

    #[test]
    fn everything_else_comes_from_the_other_allocator() {
        for (size, align) in [(1, 1), (64 << 10, 16), (4096, 2048), (100, 8192)] {
            let layout = layout(size, align);
            // SAFETY: what is written was allocated with this layout, and freed once.
            unsafe {
                let start = ALLOCATOR.alloc_zeroed(layout);
                assert_eq!((*start, start as usize % align), (0, 0));
                let flags = flags_of(start as usize);
                assert!(!flags.split(' ').any(|flag| flag == "nh"), "{flags}");
                let new = ALLOCATOR.realloc(start, layout, size * 2);
                ALLOCATOR.dealloc(new, self::layout(size * 2, align));
            }
        }
    }
}
