//! The way to the kernel: operations into the queue, the queue into the kernel, and what became of
//! the inline sends.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::time::Instant;

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};
use rustix::net::{Shutdown, shutdown};

use super::queue::Completion;
use super::sockets::{Life, Operation, Receive, Socket, Stalled, Tag};
use super::{DROP_PATIENCE, REFUSALS, Ring};
use crate::engine::buffers::GROUP;
use crate::engine::ops::Batch;

/// Lists of parts that are kept for the next gathering sends. Each holds up to 16 KiB.
const SPARE: usize = 64;

impl Ring {
    /// The socket of a slot that the caller has not closed.
    pub(super) fn opened(&mut self, slot: u32) -> Option<&mut Socket> {
        self.sockets.get_mut(slot as usize).filter(|socket| socket.life == Life::Open)
    }

    /// The same, unless another socket has taken the slot since.
    pub(super) fn opened_as(&mut self, slot: u32, generation: u32) -> Option<&mut Socket> {
        self.opened(slot).filter(|socket| socket.generation == generation)
    }

    /// Puts an operation into the queue.
    pub(super) fn push(&mut self, entry: Entry, tag: Tag) {
        // SAFETY: the entries of this module point at: a batch and its list of parts, kept in
        // `inline` until the kernel consumed the submission, after which an inline send is over; or
        // at a boxed `Stalled` and its batch, kept until its completion, or leaked with the ring.
        // Receives name the buffer ring, which outlives the kernel's ring or is leaked. The other
        // operations carry numbers only.
        unsafe { self.queue.push(entry.user_data(tag.pack())) }
    }

    /// Ends an operation. Only a failure to find it is reported, see `cancel_failed`.
    pub(super) fn cancel(&mut self, kind: Operation, by: Operation, generation: u32, index: u32) {
        let target = Tag { kind, generation, index };
        let entry = opcode::AsyncCancel::new(target.pack()).build().flags(Flags::SKIP_SUCCESS);
        self.push(entry, Tag { kind: by, generation, index });
    }

    /// Closes a descriptor in turn with the other operations, and without a system call of its own.
    pub(super) fn close_descriptor(&mut self, fd: OwnedFd) {
        let entry = opcode::Close::new(types::Fd(fd.into_raw_fd())).build();
        let tag = Tag { kind: Operation::Close, generation: 0, index: 0 };
        self.push(entry.flags(Flags::SKIP_SUCCESS), tag);
    }

    /// Makes a connection end that cannot be written any more. Its receive reports the end, after
    /// the data that the peer had sent before.
    pub(super) fn cut(&mut self, slot: u32) {
        if let Some(fd) = self.opened(slot).and_then(|socket| socket.fd.as_ref()) {
            // ENOTCONN: it has ended already.
            let _ = shutdown(fd, Shutdown::Both);
        }
    }

    /// Starts receiving, if that is wanted and not under way.
    pub(super) fn arm(&mut self, slot: u32) {
        let Some(socket) = self.opened(slot) else { return };
        if socket.paused || socket.receive != Receive::Off {
            return;
        }
        socket.receive = Receive::Armed;
        let tag = Tag { kind: Operation::Receive, generation: socket.generation, index: slot };
        let entry = opcode::RecvMulti::new(socket.target(), GROUP).build();
        self.push(entry, tag);
    }

    /// Lets the descriptor given to [`Ring::wake_by`] end waits.
    pub(super) fn arm_waker(&mut self) {
        let Some(fd) = &self.waker else { return };
        let entry = opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), libc::POLLIN as u32);
        self.push(
            entry.multi(true).build(),
            Tag { kind: Operation::Wake, generation: 0, index: 0 },
        );
    }

    /// Gives those who wait for a buffer another chance, oldest first, not more of them than there
    /// are buffers. One that finds none goes to the end of the line.
    pub(super) fn arm_starved(&mut self) {
        for _ in 0..self.buffers.free() {
            let Some((slot, generation)) = self.starved.pop_front() else { return };
            let Some(socket) = self.opened_as(slot, generation) else { continue };
            if socket.receive == Receive::Starved {
                socket.receive = Receive::Off;
                self.arm(slot);
            }
        }
    }

    /// Enters the kernel until it has consumed everything and shows every completion, then settles
    /// the inline sends.
    pub(super) fn drive(&mut self) -> io::Result<()> {
        let mut refusals = 0;
        loop {
            if let Err(error) = self.queue.enter() {
                let passing =
                    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY));
                refusals += 1;
                if !passing || refusals > REFUSALS {
                    return Err(error);
                }
            }
            self.collect();
            if !self.queue.unsubmitted() && !self.queue.overflowed() {
                break;
            }
        }
        self.settle();
        Ok(())
    }

    /// Takes what is in the completion queue. Only failed inline sends complete.
    pub(super) fn collect(&mut self) {
        let Ring { queue, buffers, completions, failed, exhausted, .. } = self;
        queue.drain(|completion| match Tag::unpack(completion.data) {
            Some(Tag { kind: Operation::Inline, index, .. }) => {
                failed.push((index, completion.result))
            }
            tag => {
                buffers.count_lent(completion.flags);
                let receives = |tag: Tag| tag.kind == Operation::Receive;
                if completion.result == -libc::ENOBUFS && tag.is_some_and(receives) {
                    *exhausted += u64::from(buffers.are_lent());
                }
                completions.push_back(completion);
            }
        });
        buffers.drained();
    }

    /// The submission is consumed: what did not fail is written.
    fn settle(&mut self) {
        let mut failed = mem::take(&mut self.failed);
        failed.drain(..).for_each(|(place, result)| self.fall_back(place, result));
        self.failed = failed;
        for gather in self.inline.drain(..).filter_map(|inline| inline.gather) {
            if self.spare.len() < SPARE {
                self.spare.push(gather);
            }
        }
        self.turn = self.turn.wrapping_add(1);
        let mut fins = mem::take(&mut self.fins);
        for (slot, generation) in fins.drain(..) {
            if let Some(socket) = self.opened_as(slot, generation) {
                finish(socket);
            }
        }
        self.fins = fins;
    }

    /// What an inline send left over goes out asynchronously. If the connection is broken the
    /// failure is reported like that of an asynchronous send, behind what has been received.
    fn fall_back(&mut self, place: u32, result: i32) {
        let Some(inline) = self.inline.get_mut(place as usize) else { return };
        let (slot, generation) = (inline.slot, inline.generation);
        let batch = mem::replace(&mut inline.batch, Batch::Own(Vec::new()));
        let written = usize::try_from(result).unwrap_or(0);
        debug_assert!(written < batch.len(), "a complete inline send completes silently");
        if written >= batch.len() || self.opened_as(slot, generation).is_none() {
            return;
        }
        self.stall(slot, batch, written);
        let passing = [libc::EAGAIN, libc::EINTR, libc::ENOMEM, libc::ENOBUFS];
        if result >= 0 || passing.contains(&-result) {
            return self.send_piece(slot);
        }
        let data = Tag { kind: Operation::Send, generation, index: slot }.pack();
        self.completions.push_back(Completion { data, result, flags: 0 });
    }

    /// Keeps what is left of a batch with its socket. An operation has to follow.
    pub(super) fn stall(&mut self, slot: u32, batch: Batch, written: usize) {
        let Some(socket) = self.opened(slot) else { return };
        debug_assert!(socket.stalled.is_none());
        socket.stalled = Some(Box::new(Stalled::new(batch, written)));
        let generation = socket.generation;
        self.stalls.push_back((slot, generation, written));
    }

    /// Goes on with a stalled send.
    pub(super) fn send_piece(&mut self, slot: u32) {
        let Some(socket) = self.opened(slot) else { return };
        let target = socket.target();
        let tag = Tag { kind: Operation::Send, generation: socket.generation, index: slot };
        if let Some(stalled) = &mut socket.stalled {
            let entry = stalled.piece(target);
            self.push(entry, tag);
        }
    }

    /// A closed slot whose last operation is over is free.
    pub(super) fn free_if_over(&mut self, slot: u32) {
        let Some(socket) = self.sockets.get_mut(slot as usize) else { return };
        let over = !socket.receive_in_flight() && socket.stalled.is_none();
        if socket.life != Life::Closing || !over {
            return;
        }
        socket.life = Life::Free;
        self.open -= 1;
        let data =
            Tag { kind: Operation::Closed, generation: socket.generation, index: slot }.pack();
        self.completions.push_back(Completion { data, result: 0, flags: 0 });
    }
}

/// Sends a FIN, or leaves it to the stalled send.
pub(super) fn finish(socket: &mut Socket) {
    if socket.stalled.is_some() {
        socket.fin = true;
    } else if let Some(fd) = &socket.fd {
        // ENOTCONN: there is nobody to tell.
        let _ = shutdown(fd, Shutdown::Write);
    }
}

impl Drop for Ring {
    /// Closes everything and waits until the kernel touches our memory no more. If that takes too
    /// long the memory is leaked.
    fn drop(&mut self) {
        (0..self.listeners.len()).for_each(|listener| self.unlisten(listener));
        (0..self.sockets.len() as u32).for_each(|slot| self.close(slot));
        let deadline = Instant::now() + DROP_PATIENCE;
        loop {
            let submitted = self.submit();
            // Accepted sockets close with their events.
            while self.next().is_some() {}
            if self.open == 0 && self.accepting == 0 && !self.queue.unsubmitted() {
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if submitted.is_err() || left.is_zero() || self.queue.wait(left).is_err() {
                break;
            }
            self.collect();
        }
        self.buffers.leak();
        for stalled in self.sockets.iter_mut().filter_map(|socket| socket.stalled.take()) {
            Box::leak(stalled);
        }
    }
}
