//! The two queues that are shared with the kernel, and nothing of what goes through them.
//!
//! What does not fit into the submission queue waits in `backlog`, in order, so that putting an
//! operation in never fails. Costs: 64 bytes written per operation, one atomic load and store; the
//! backlog allocates only when it grows.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring};

use crate::spare::Look;

/// A completion as the kernel laid it down.
#[derive(Clone, Copy)]
pub(super) struct Completion {
    /// See [`Tag`](super::sockets::Tag).
    pub(super) data: u64,
    /// Not negative: success; negative: an error number.
    pub(super) result: i32,
    /// `IORING_CQE_F_*`.
    pub(super) flags: u32,
}

/// Submissions on their way to the kernel, completions on their way back.
pub(super) struct Queue {
    uring: IoUring,
    backlog: VecDeque<Entry>,
}

impl Queue {
    pub(super) fn new(uring: IoUring) -> Queue {
        Queue { uring, backlog: VecDeque::new() }
    }

    /// Gives back what a peak took.
    pub(super) fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.backlog);
    }

    pub(super) fn uring(&self) -> &IoUring {
        &self.uring
    }

    /// Puts an operation behind the others.
    ///
    /// # Safety
    /// What the entry points at stays where it is, and unchanged, until the final completion of the
    /// operation, or until [`Queue::enter`] consumed it if its kind is over by then.
    pub(super) unsafe fn push(&mut self, entry: Entry) {
        // SAFETY: passed on to the caller.
        let full =
            !self.backlog.is_empty() || unsafe { self.uring.submission().push(&entry) }.is_err();
        if full {
            self.backlog.push_back(entry);
        }
    }

    /// Whether the next operation would have to wait in the backlog.
    pub(super) fn is_full(&mut self) -> bool {
        !self.backlog.is_empty() || self.uring.submission().is_full()
    }

    /// Whether there are operations that the kernel has not consumed.
    pub(super) fn unsubmitted(&mut self) -> bool {
        !self.backlog.is_empty() || !self.uring.submission().is_empty()
    }

    /// Whether completions wait behind a full completion queue, where only the kernel sees them.
    pub(super) fn overflowed(&mut self) -> bool {
        self.uring.submission().cq_overflow()
    }

    /// Whether entering the kernel would achieve anything.
    pub(super) fn wants_enter(&mut self) -> bool {
        let submission = self.uring.submission();
        let kernel_waits = submission.taskrun() || submission.cq_overflow();
        let empty = submission.is_empty();
        drop(submission);
        !empty || kernel_waits || !self.backlog.is_empty()
    }

    /// One `io_uring_enter` that waits for nothing: hands over what fits, runs completions.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        let mut submission = self.uring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: whoever called `push` promised the same for this entry.
            if unsafe { submission.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
        submission.sync();
        let count = submission.len() as u32;
        drop(submission);
        let flags = EnterFlags::GETEVENTS.bits();
        // SAFETY: there is no argument; count is at most the length of the queue.
        unsafe { self.uring.submitter().enter::<libc::sigset_t>(count, 0, flags, None) }?;
        Ok(())
    }

    /// Waits for a completion, for `timeout` at the most; returns whether there is one.
    pub(super) fn wait(&mut self, timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec::from(timeout);
        let arguments = SubmitArgs::new().timespec(&timeout);
        match self.uring.submitter().submit_with_args(1, &arguments) {
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => Ok(false),
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => Err(error),
            _ => Ok(true),
        }
    }

    /// Takes everything out of the completion queue.
    pub(super) fn drain(&mut self, mut each: impl FnMut(Completion)) {
        for entry in self.uring.completion() {
            each(Completion {
                data: entry.user_data(),
                result: entry.result(),
                flags: entry.flags(),
            });
        }
    }
}
