//! What the ring remembers per socket, and how operations are named to the kernel.
//!
//! A socket costs 24 bytes. Only a send that did not fit into the socket's buffer owns more: the
//! batch, and where in it the kernel is.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::squeue::Entry;
use io_uring::{opcode, types};

use crate::engine::ops::Batch;

/// The most bytes of one asynchronous send. The kernel gives a request up to a worker thread after
/// it has waited 128 times for room; in pieces of this size it does not come to that even with the
/// smallest send buffer.
const PIECE_BYTES: usize = 64 << 10;
/// The most bytes of one send in all: beyond 2 GiB the kernel cuts the request without a word.
const INLINE_BYTES: usize = 1 << 30;
/// The most parts of one gathering send (UIO_MAXIOV).
const PARTS: usize = 1024;

/// Attempted during submission and never after it.
const INLINE: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
/// Waits for room as often as it takes.
const PATIENT: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// What an operation is, kept by the kernel with the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    /// Multishot accept; index: listener.
    Accept = 1,
    /// Multishot receive; index: slot.
    Receive,
    /// Asynchronous send; index: slot.
    Send,
    /// Inline send; index: place in the current submission.
    Inline,
    /// Cancellation of one of the first three; index as there.
    CancelAccept,
    CancelReceive,
    CancelSend,
    /// Closing a descriptor; nobody waits for it.
    Close,
    /// Multishot poll of the descriptor that ends a wait.
    Wake,
    /// Not the kernel's: the last operation of a closed slot is over.
    Closed,
}

/// The user data of an operation: kind (8 bits), generation (24), index (32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) kind: Operation,
    pub(super) generation: u32,
    pub(super) index: u32,
}

/// Generations count modulo this.
pub(super) const GENERATIONS: u32 = 1 << 24;

impl Tag {
    pub(super) fn pack(self) -> u64 {
        debug_assert!(self.generation < GENERATIONS);
        u64::from(self.kind as u8) << 56 | u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// `None` if no operation of ours has this user data.
    pub(super) fn unpack(data: u64) -> Option<Tag> {
        const KINDS: [Operation; 10] = [
            Operation::Accept,
            Operation::Receive,
            Operation::Send,
            Operation::Inline,
            Operation::CancelAccept,
            Operation::CancelReceive,
            Operation::CancelSend,
            Operation::Close,
            Operation::Wake,
            Operation::Closed,
        ];
        let kind = *KINDS.get(((data >> 56) as usize).checked_sub(1)?)?;
        Some(Tag { kind, generation: (data >> 32) as u32 % GENERATIONS, index: data as u32 })
    }
}

/// Whether a slot holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Free,
    Open,
    /// Closed by the caller; operations are still in flight.
    Closing,
}

/// The receiving side of a socket. In flight in `Armed` and `Cancelling`, and only then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receive {
    /// Paused, or just ended and about to be armed again.
    Off,
    Armed,
    Cancelling,
    /// Ended for want of buffers; the slot is in the queue of those who wait for one.
    Starved,
    /// End of stream or an error: never again.
    Ended,
}

/// One slot.
pub(super) struct Socket {
    /// A send is in flight exactly while this is there.
    pub(super) stalled: Option<Box<Stalled>>,
    pub(super) fd: Option<OwnedFd>,
    /// Of the slot; differs from one socket to the next.
    pub(super) generation: u32,
    /// The submission that carries an inline send of this socket, if it is the current one.
    pub(super) turn: u32,
    pub(super) life: Life,
    pub(super) receive: Receive,
    pub(super) paused: bool,
    /// A FIN follows the stalled send.
    pub(super) fin: bool,
}

// The memory goal: what a million idle connections cost here.
const _: () = assert!(size_of::<Socket>() <= 24);

impl Socket {
    pub(super) const FREE: Socket = Socket {
        stalled: None,
        fd: None,
        generation: 0,
        turn: 0,
        life: Life::Free,
        receive: Receive::Off,
        paused: false,
        fin: false,
    };

    /// For the kernel. -1, which it refuses, when the socket was given to it for closing.
    pub(super) fn target(&self) -> types::Fd {
        types::Fd(self.fd.as_ref().map_or(-1, AsRawFd::as_raw_fd))
    }

    pub(super) fn receive_in_flight(&self) -> bool {
        matches!(self.receive, Receive::Armed | Receive::Cancelling)
    }
}

/// A batch handed to the kernel with the current submission.
pub(super) struct Inline {
    pub(super) slot: u32,
    pub(super) generation: u32,
    pub(super) batch: Batch,
    pub(super) gather: Option<Box<Gather>>,
}

/// The list of parts of a gathering send. The kernel reads header and parts during submission; they
/// are kept until the operation is over all the same.
pub(super) struct Gather {
    header: libc::msghdr,
    parts: Vec<libc::iovec>,
}

impl Gather {
    pub(super) fn new() -> Gather {
        // SAFETY: a msghdr is integers and pointers, for which zero is a value.
        let header = unsafe { std::mem::zeroed() };
        Gather { header, parts: Vec::new() }
    }

    /// Lists the parts of `batch` from byte `from` on and says how many bytes they are: all that is
    /// left, or `limit`, or what 1024 parts hold.
    fn fill(&mut self, batch: &Batch, from: usize, limit: usize) -> usize {
        match batch {
            Batch::One(frame) => self.list([&**frame], from, limit),
            Batch::Own(bytes) => self.list([bytes.as_slice()], from, limit),
            Batch::Many(frames) => self.list(frames.iter().map(|frame| &**frame), from, limit),
        }
    }

    fn list<'a>(
        &mut self,
        frames: impl IntoIterator<Item = &'a [u8]>,
        from: usize,
        limit: usize,
    ) -> usize {
        self.parts.clear();
        let (mut skip, mut room) = (from, limit);
        for frame in frames {
            let (skipped, rest) = frame.split_at(skip.min(frame.len()));
            skip -= skipped.len();
            let part = &rest[..rest.len().min(room)];
            if !part.is_empty() {
                let iov_base = part.as_ptr().cast_mut().cast();
                self.parts.push(libc::iovec { iov_base, iov_len: part.len() });
                room -= part.len();
            }
            if room == 0 || self.parts.len() == PARTS {
                break;
            }
        }
        limit - room
    }

    /// The send of what was listed. It points into `self` and into the batch.
    fn entry(&mut self, fd: types::Fd, flags: i32) -> Entry {
        if let [part] = self.parts.as_slice() {
            let len = part.iov_len as u32;
            return opcode::Send::new(fd, part.iov_base.cast(), len).flags(flags).build();
        }
        self.header.msg_iov = self.parts.as_mut_ptr();
        self.header.msg_iovlen = self.parts.len() as _;
        opcode::SendMsg::new(fd, &raw const self.header).flags(flags as u32).build()
    }
}

/// The inline send of a batch; `None` if one operation cannot carry all of it. `spare` gives and
/// takes lists of parts, so that gathering allocates nothing once there are some.
#[expect(clippy::vec_box, reason = "the kernel knows the address of what is in use")]
pub(super) fn inline_entry(
    fd: types::Fd,
    batch: &Batch,
    spare: &mut Vec<Box<Gather>>,
) -> Option<(Entry, Option<Box<Gather>>)> {
    let bytes: &[u8] = match batch {
        Batch::One(frame) => frame,
        Batch::Own(bytes) => bytes,
        Batch::Many(_) => {
            let mut gather = spare.pop().unwrap_or_else(|| Box::new(Gather::new()));
            if gather.fill(batch, 0, INLINE_BYTES) < batch.len() {
                spare.push(gather);
                return None;
            }
            let entry = gather.entry(fd, INLINE);
            return Some((entry, Some(gather)));
        }
    };
    if bytes.len() > INLINE_BYTES {
        return None;
    }
    let entry = opcode::Send::new(fd, bytes.as_ptr(), bytes.len() as u32).flags(INLINE).build();
    Some((entry, None))
}

/// A send that goes on asynchronously, piece by piece.
pub(super) struct Stalled {
    batch: Batch,
    /// Bytes of `batch` that are written; below its length.
    done: usize,
    /// Batches that were handed over before anybody could know that this one stalls.
    behind: VecDeque<Batch>,
    /// Bytes written in all.
    pub(super) written: usize,
    /// Whether the caller knows.
    pub(super) reported: bool,
    gather: Gather,
}

impl Stalled {
    /// `done` bytes of the batch are written, fewer than it has.
    pub(super) fn new(batch: Batch, done: usize) -> Stalled {
        debug_assert!(done < batch.len());
        let behind = VecDeque::new();
        Stalled { batch, done, behind, written: done, reported: false, gather: Gather::new() }
    }

    /// One more batch, not empty, to follow.
    pub(super) fn follow(&mut self, batch: Batch) {
        debug_assert!(!batch.is_empty());
        self.behind.push_back(batch);
    }

    /// The send of the next piece. It points into `self`, which stays boxed until it is over.
    pub(super) fn piece(&mut self, fd: types::Fd) -> Entry {
        self.gather.fill(&self.batch, self.done, PIECE_BYTES);
        self.gather.entry(fd, PATIENT)
    }

    /// So many bytes more are written; `true`: that was all.
    pub(super) fn advance(&mut self, bytes: usize) -> bool {
        self.done += bytes;
        self.written += bytes;
        debug_assert!(self.done <= self.batch.len());
        if self.done < self.batch.len() {
            return false;
        }
        self.done = 0;
        match self.behind.pop_front() {
            Some(batch) => self.batch = batch,
            None => return true,
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::engine::ops::Frame;

    fn many(lens: &[usize]) -> Batch {
        let frame = |len: &usize| Frame::new(Bytes::from(vec![0; *len]));
        Batch::Many(lens.iter().map(frame).collect())
    }

    fn lens(gather: &Gather) -> Vec<usize> {
        gather.parts.iter().map(|part| part.iov_len).collect()
    }

    #[test]
    fn tags_survive_the_way_through_the_kernel() {
        for kind in
            [Operation::Accept, Operation::Receive, Operation::CancelSend, Operation::Closed]
        {
            let tag = Tag { kind, generation: GENERATIONS - 1, index: u32::MAX };
            assert_eq!(Tag::unpack(tag.pack()), Some(tag));
        }
        assert_eq!(Tag::unpack(0), None);
        assert_eq!(Tag::unpack(u64::MAX), None);
    }

    #[test]
    fn parts_start_and_end_anywhere() {
        let batch = many(&[10, 0, 20, 30]);
        let mut gather = Gather::new();
        assert_eq!(gather.fill(&batch, 0, 1000), 60);
        assert_eq!(lens(&gather), [10, 20, 30]);
        assert_eq!(gather.fill(&batch, 10, 1000), 50);
        assert_eq!(lens(&gather), [20, 30]);
        assert_eq!(gather.fill(&batch, 15, 20), 20);
        assert_eq!(lens(&gather), [15, 5]);
        assert_eq!(gather.fill(&batch, 59, 1000), 1);
        assert_eq!(lens(&gather), [1]);
        assert_eq!(gather.fill(&many(&[1; 3000]), 5, 1 << 20), PARTS);
    }

    #[test]
    fn a_batch_of_too_many_parts_is_no_inline_send() {
        let mut spare = Vec::new();
        assert!(inline_entry(types::Fd(0), &many(&[1; 1025]), &mut spare).is_none());
        assert_eq!(spare.len(), 1);
        let (_, gather) = inline_entry(types::Fd(0), &many(&[1; 1024]), &mut spare).unwrap();
        assert!(gather.is_some() && spare.is_empty());
    }

    #[test]
    fn stalled_batches_follow_each_other() {
        let mut stalled = Stalled::new(many(&[4, 4]), 3);
        stalled.follow(many(&[2]));
        assert!(!stalled.advance(4));
        assert!(!stalled.advance(1));
        assert!(!stalled.advance(1));
        assert!(stalled.advance(1));
        assert_eq!(stalled.written, 10);
    }
}
