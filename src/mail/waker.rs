//! Wakes a thread that waits in its ring, which polls an eventfd.
//!
//! The thread says that it is about to rest, looks once more for what it would miss, and only then
//! waits. A sender wakes it only if it rests, after it has put its message where the thread looks.
//! So nothing is left lying. Costs: no system call while the receiver is busy, one `write` to wake
//! it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// See the module.
#[derive(Debug)]
pub struct Waker {
    resting: AtomicBool,
    eventfd: File,
}

impl Waker {
    /// Creates the eventfd. Fails if the process has no descriptor left.
    pub fn new() -> io::Result<Arc<Waker>> {
        let eventfd: OwnedFd = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        Ok(Arc::new(Waker { resting: AtomicBool::new(false), eventfd: eventfd.into() }))
    }

    /// What a sender writes to while the thread waits. Nobody needs to read it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    /// The thread is about to wait. It must look once more for what has come before it does.
    pub fn rest(&self) {
        self.resting.store(true, Ordering::Relaxed);
        // Pairs with the fence in `wake`: either the sender sees the state, or the thread sees what
        // was sent.
        fence(Ordering::SeqCst);
    }

    /// The thread is awake.
    pub fn awake(&self) {
        self.resting.store(false, Ordering::Relaxed);
    }

    /// Something has come.
    pub(super) fn wake(&self) {
        fence(Ordering::SeqCst);
        if !self.resting.load(Ordering::Relaxed) || !self.resting.swap(false, Ordering::Relaxed) {
            return;
        }
        // Fails only when the counter is full, and then the thread is awake anyway.
        let _ = (&self.eventfd).write(&1u64.to_ne_bytes());
    }
}
