//! Whatever shards and their executors need of io_uring, tried on a small ring of its own before
//! any of them is made. Later it is too late: glommio answers what it does not expect with a panic.

use std::io;

use io_uring::opcode as op;
use io_uring::register;

use super::pages::Mapping;
use super::queue::Queue;
use super::setup::{
    self, ENTER, Locked, REGISTER, Settings, SetupError, System, explain, ring_bytes,
};
use crate::allocator::page_bytes;
use crate::engine::buffers::Buffers;

/// The operations that shards or executors use. glommio ends the process itself if one of its own
/// is missing.
const OPERATIONS: &[(u8, &str)] = &[
    (op::Nop::CODE, "IORING_OP_NOP"),
    (op::Readv::CODE, "IORING_OP_READV"),
    (op::Writev::CODE, "IORING_OP_WRITEV"),
    (op::Fsync::CODE, "IORING_OP_FSYNC"),
    (op::ReadFixed::CODE, "IORING_OP_READ_FIXED"),
    (op::WriteFixed::CODE, "IORING_OP_WRITE_FIXED"),
    (op::PollAdd::CODE, "IORING_OP_POLL_ADD"),
    (op::PollRemove::CODE, "IORING_OP_POLL_REMOVE"),
    (op::SendMsg::CODE, "IORING_OP_SENDMSG"),
    (op::RecvMsg::CODE, "IORING_OP_RECVMSG"),
    (op::Timeout::CODE, "IORING_OP_TIMEOUT"),
    (op::TimeoutRemove::CODE, "IORING_OP_TIMEOUT_REMOVE"),
    (op::Accept::CODE, "IORING_OP_ACCEPT"),
    (op::AsyncCancel::CODE, "IORING_OP_ASYNC_CANCEL"),
    (op::LinkTimeout::CODE, "IORING_OP_LINK_TIMEOUT"),
    (op::Connect::CODE, "IORING_OP_CONNECT"),
    (op::Fallocate::CODE, "IORING_OP_FALLOCATE"),
    (op::OpenAt::CODE, "IORING_OP_OPENAT"),
    (op::Close::CODE, "IORING_OP_CLOSE"),
    (op::Statx::CODE, "IORING_OP_STATX"),
    (op::Read::CODE, "IORING_OP_READ"),
    (op::Write::CODE, "IORING_OP_WRITE"),
    (op::Send::CODE, "IORING_OP_SEND"),
    (op::Recv::CODE, "IORING_OP_RECV"),
];

/// As small as a ring can be.
const SETTINGS: Settings =
    Settings { submission_entries: 1, completion_entries: 2, buffers: 1, buffer_bytes: 64 };
/// What is registered over and over to see how much locked memory is left.
const PIECE_BYTES: usize = 256 << 10;
/// The most buffers of a ring.
const PIECES_MAX: u64 = 1 << 14;

/// A ring on which everything works. Belongs to the thread that made it.
pub struct Probe {
    // Dropped first, as in a `Ring`.
    queue: Queue,
    _buffers: Buffers,
}

impl Probe {
    /// Makes a ring, asks for every operation, registers a group of receive buffers, and sends.
    ///
    /// # Errors
    /// What is in the way.
    pub fn new() -> Result<Probe, SetupError> {
        let failed = |call| move |error| explain(call, error, &System::read());
        let mut queue = Queue::new(setup::build(&SETTINGS)?);
        let mut known = register::Probe::new();
        queue.uring().submitter().register_probe(&mut known).map_err(failed(REGISTER))?;
        if let Some((_, missing)) = OPERATIONS.iter().find(|(code, _)| !known.is_supported(*code)) {
            return Err(SetupError::TooOld { release: System::read().release, missing });
        }
        // SAFETY: `Probe` drops the queue, and with it the kernel's ring, before the buffers.
        let buffers =
            unsafe { Buffers::register(queue.uring(), SETTINGS.buffers, SETTINGS.buffer_bytes) };
        let buffers = buffers.map_err(failed(REGISTER))?;
        queue.enter().map_err(failed(ENTER))?;
        setup::prove(&mut queue)?;
        Ok(Probe { queue, _buffers: buffers })
    }

    /// What the probe itself takes of the user's locked memory, together with the ring on which
    /// glommio asks for its operations.
    pub fn locked() -> Locked {
        Probe::taken() + Locked { buffers: 0, rings: ring_bytes(2, 4) }
    }

    /// The part of that which a probe holds while it is there.
    pub fn taken() -> Locked {
        SETTINGS.locked()
    }

    /// Whether the user may lock so many further bytes now.
    pub fn can_lock(&self, bytes: u64) -> Result<bool, SetupError> {
        let locked = self.lock(bytes)?;
        if locked {
            self.unlock()?;
        }
        Ok(locked)
    }

    /// How many bytes the user may lock now, in whole pages, looked for up to `bytes_max`.
    pub fn lockable(&self, bytes_max: u64) -> Result<u64, SetupError> {
        let page = page_bytes() as u64;
        let (mut low, mut high) = (0, bytes_max / page + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.can_lock(middle * page)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(low * page)
    }

    /// Whether the kernel charges the user for rings too, which shows when all that he may lock, up
    /// to `bytes_max`, is locked.
    pub fn rings_are_charged(&self, bytes_max: u64) -> Result<bool, SetupError> {
        let left = self.lockable(bytes_max)?;
        let locked = left > 0 && self.lock(left)?;
        let another = setup::build(&SETTINGS);
        if locked {
            self.unlock()?;
        }
        match another {
            Ok(_) => Ok(false),
            Err(error) if error.is_memory() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Registers the same pages as often as needed: each time they are charged.
    fn lock(&self, bytes: u64) -> Result<bool, SetupError> {
        let failed = |error| explain(REGISTER, error, &System::read());
        let piece = Mapping::of_small_pages(PIECE_BYTES).map_err(failed)?;
        let count = (bytes / PIECE_BYTES as u64).min(PIECES_MAX - 1);
        let rest = (bytes % PIECE_BYTES as u64) as usize;
        let part = |iov_len| libc::iovec { iov_base: piece.start.as_ptr().cast(), iov_len };
        let mut parts = vec![part(PIECE_BYTES); count as usize];
        if rest > 0 {
            parts.push(part(rest));
        }
        // SAFETY: no operation uses these buffers; the kernel keeps the pages, not the addresses.
        match unsafe { self.queue.uring().submitter().register_buffers(&parts) } {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => Ok(false),
            Err(error) => Err(explain(REGISTER, error, &System::read())),
        }
    }

    fn unlock(&self) -> Result<(), SetupError> {
        let failed = |error: io::Error| explain(REGISTER, error, &System::read());
        self.queue.uring().submitter().unregister_buffers().map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_there_on_this_machine() {
        let probe = Probe::new().expect("tests need io_uring");
        assert!(probe.can_lock(PIECE_BYTES as u64 * 2 + 1).expect("it may be asked"));
        // Asking leaves nothing behind.
        assert!(probe.can_lock(4096).expect("it may be asked again"));
    }
}
