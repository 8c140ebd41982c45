//! How mimalloc, the allocator of the program, gives memory back to the system. A process with
//! another allocator may call this as well; it does nothing there.
//!
//! mimalloc gives back what was freed a second later at the earliest, and only when somebody frees
//! something again: after a peak an idle process would keep all of it, and a busy shard would spend
//! many milliseconds of one turn on it. So a thread that nobody waits for does it, more often than
//! once a second ([`give_back`]). Besides, a thread keeps some empty pages of each size, of up to
//! 4 MiB, which only itself can let go ([`let_go`]).

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

/// Gives the system what is free, whichever thread freed it. Takes some 0.1 ms per megabyte, during
/// which other threads can allocate.
pub fn give_back() {
    mi_collect(true);
}

/// Lets empty pages of this thread go that it had no use for since the last calls: five of them for
/// large pages, seventeen for small ones. Takes some microseconds, and some 50 ns for each page
/// that is partly used.
pub fn let_go() {
    mi_collect(false);
}
