//! How mimalloc, the allocator of the program, gives memory back to the system. A process with
//! another allocator may call this as well; it does nothing there.
//!
//! mimalloc gives back what was freed a second later at the earliest, and only when somebody frees
//! something again: after a peak an idle process would keep all of it, and a busy shard would spend
//! many milliseconds of one turn on it. So a thread that nobody waits for does it, more often than
//! once a second ([`give_back`]). Besides, a thread keeps some empty pages of each size, of up to
//! 4 MiB, which only itself can let go ([`let_go`]).

use std::mem::MaybeUninit;
use std::time::Duration;

// It has the function below.
use mimalloc as _;

/// Between two calls of [`give_back`]. Less than the second after which mimalloc would have
/// whichever thread frees something give back what all have freed.
pub const INTERVAL: Duration = Duration::from_millis(750);

// SAFETY: mimalloc declares it so, for every thread; it gives up nothing that is in use.
unsafe extern "C" {
    safe fn mi_collect(force: bool);
}

/// Has the process go without huge pages, from now on. mimalloc asks for them, and so what lies
/// alone in 2 MiB takes 2 MiB: a third of what a gateway without clients took. Nothing was found to
/// be slower without. If the kernel refuses, the process takes more memory.
pub fn avoid_huge_pages() {
    // SAFETY: changes how the kernel backs memory, not what is in it.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Gives the system what is free, whichever thread freed it. Takes some 0.1 ms per megabyte, during
/// which other threads can allocate.
pub fn give_back() {
    mi_collect(true);
}

/// Size of a page.
pub fn page_bytes() -> usize {
    // SAFETY: asks for a constant.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(4096)
}

/// Gives the system the whole pages of the room behind the last entry of a vector, which keeps its
/// capacity: for one that is made for the most there can be, so that it never moves.
pub fn give_back_room<T>(vector: &mut Vec<T>) {
    let room: &mut [MaybeUninit<T>] = vector.spare_capacity_mut();
    let page = page_bytes();
    let start = room.as_mut_ptr() as usize;
    let (first, end) = (start.next_multiple_of(page), (start + size_of_val(room)) / page * page);
    if first < end {
        // SAFETY: these pages belong to the room alone, and nothing in it is initialised. They stay
        // mapped and are zero when they are used again.
        unsafe { libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_DONTNEED) };
    }
}

/// Lets empty pages of this thread go that it had no use for since the last calls: five of them for
/// large pages, seventeen for small ones. Takes some microseconds, and some 50 ns for each page
/// that is partly used.
pub fn let_go() {
    mi_collect(false);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KiB of this process that are resident, in memory without a file.
    fn resident_kib() -> u64 {
        let text = std::fs::read_to_string("/proc/self/smaps_rollup").expect("this process");
        let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.trim().parse().ok()).expect("a number of KiB")
    }

    #[test]
    fn the_room_of_a_vector_takes_no_memory_and_can_be_used_again() {
        const ENTRIES: usize = 32 << 20;
        let mut vector: Vec<u64> = Vec::with_capacity(ENTRIES);
        let start = vector.as_ptr();
        vector.extend((0..ENTRIES as u64).map(|number| number ^ 5));
        let full_kib = resident_kib();
        vector.truncate(1000);
        give_back_room(&mut vector);
        // Other tests of this process take a few megabytes meanwhile.
        assert!(resident_kib() + 200 * 1024 < full_kib, "of {full_kib} KiB");
        assert!(vector.iter().copied().eq((0..1000).map(|number| number ^ 5)));
        vector.resize(10_000, 7);
        assert_eq!((vector.as_ptr(), vector.capacity()), (start, ENTRIES));
        assert!(vector[1000..].iter().all(|number| *number == 7));
        give_back_room(&mut Vec::<u8>::new());
    }
}
