//! The socket ring of a shard: operations in, events out. With [`buffers`](crate::engine::buffers)
//! the only place with `unsafe`.
//!
//! # What it rests on (Linux 6.1; `ring/kernel.rs` shows it on the running kernel)
//! * **Inline sends.** A send goes out as SEND or SENDMSG with `MSG_DONTWAIT | MSG_WAITALL |
//!   MSG_NOSIGNAL` and `IOSQE_CQE_SKIP_SUCCESS`. The kernel attempts it while it consumes the
//!   submission. `MSG_DONTWAIT` sets `REQ_F_NOWAIT`: an attempt that is not complete fails instead
//!   of being queued. `MSG_WAITALL` makes a short send one of those: its completion carries the
//!   bytes that were written, or `-EAGAIN` for none. A failed operation completes in spite of
//!   SKIP_SUCCESS, before `io_uring_enter` returns. So when the kernel has consumed the submission
//!   and the completion queue is drained, overflow list included, every inline send without a
//!   completion is written and its batch can be dropped. No manual promises this, therefore each
//!   ring tries it on a pair of sockets before it is used (`setup::prove`).
//! * The rest of a failed attempt goes out again without `MSG_DONTWAIT`: the kernel waits for room
//!   by polling. It may wait 128 times per request, then it gives the request to a worker thread;
//!   therefore pieces of 64 KiB.
//! * **DEFER_TASKRUN | SINGLE_ISSUER.** All completions are made inside our own `io_uring_enter`,
//!   on our thread. Between two of them nothing that is shared changes but the flag that says
//!   there is something to run. Newer kernels run about 20 of these per enter; `submit` enters up
//!   to 8 times while there are more.
//! * **Order.** The kernel consumes the submission in order and ends each operation once: the
//!   completion without `F_MORE` is its last. A cancellation comes before whatever is submitted
//!   after it, so it cannot hit a later operation of the same slot.
//! * **NODROP.** When the completion queue is full the kernel keeps completions in a list and ends
//!   multishot operations, whose last completion still carries its data. They are armed again.
//! * Cancelling is by user data, which the kernel finds in a hash table. By descriptor it would
//!   walk all operations of the ring.
//!
//! # Invariants
//! * In-flight operations own what the kernel may touch: an inline send its batch until the
//!   submission is consumed, an asynchronous one (`Stalled`, boxed) until its completion, a receive
//!   the buffers. A slot is free (`Event::Closed`) after the last completion of each of its
//!   operations, and the user data carries a generation besides.
//! * Per connection: one receive, at most one asynchronous send; while there is one, later batches
//!   wait behind it. `Stalled` is reported before anything of that connection that came after the
//!   send. `Ended` comes from the receiving side only, so at most once and after all data; when a
//!   send fails the socket is shut down, which ends the receive.
//! * After `close` nothing is reported for a slot but one `Closed`.
//! * The ring stays on the thread that made it (`Frame` is not `Send`, so neither is `Ring`).
//!
//! # Costs
//! Per send: 64 bytes of submission, 48 bytes in a list, no allocation, no completion. Per receive:
//! 16 bytes copied out of the completion queue, a buffer of the shared ring, no allocation. Per
//! turn: one `io_uring_enter`, none if there is nothing to submit and nothing to run; one more for
//! each `submission_entries` operations. Per accept: one `getpeername`. Per close: no system call
//! of its own. Per socket: 24 bytes. A send that stalls allocates a box and a list of parts.

mod events;
#[cfg(test)]
mod kernel;
mod pages;
mod probe;
mod queue;
mod setup;
mod sockets;
mod turn;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use io_uring::squeue::Flags;
use io_uring::{opcode, types};

use self::queue::{Completion, Queue};
use self::sockets::{GENERATIONS, Gather, Inline, Life, Operation, Receive, Socket, Tag};
use crate::engine::buffers::Buffers;
use crate::engine::ops::Batch;
use crate::spare::Look;

pub(crate) use self::pages::Mapping;
pub use self::pages::PageAllocator;
pub use self::probe::Probe;
pub use self::setup::{Locked, Settings, SetupError, System, ring_bytes};
pub use crate::engine::buffers::Received;

/// How often one `submit` enters the kernel while that has something to run. More events per turn
/// coalesce better, fewer are answered sooner.
const EAGER_ENTERS: u32 = 8;
/// How often one submission is offered again to a kernel that is short of memory.
const REFUSALS: u32 = 64;
/// How long dropping a ring waits for the operations in flight.
const DROP_PATIENCE: Duration = Duration::from_secs(1);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A connection. Its socket is blocking (the ring does not mind) and close-on-exec.
    Accepted { listener: usize, socket: OwnedFd, peer: SocketAddr },
    /// Accepting stopped: no descriptors (EMFILE, ENFILE), no memory, or a broken socket.
    /// [`Ring::relisten`] goes on. Connections wait in the backlog meanwhile.
    AcceptFailed { listener: usize, error: io::Error },
    /// Bytes of the peer, to be given back with [`Ring::give_back`].
    Received { slot: u32, data: Received },
    /// Nothing more comes: end of stream (`None`) or a broken connection. Sending is still possible
    /// in the first case.
    Ended { slot: u32, error: Option<io::Error> },
    /// The last batch did not fit into the socket's buffer: `written` bytes of it did. The rest
    /// follows by itself; nothing may be sent until `Sent`.
    Stalled { slot: u32, written: usize },
    /// What stalled is written, or failed after `written` bytes of the batch in all. After a
    /// failure no more can be sent; what the peer sent before still arrives, and `Ended`, if it has
    /// not come already. A paused connection has to be resumed for that.
    Sent { slot: u32, result: Result<(), (usize, io::Error)> },
    /// The slot is free for another connection.
    Closed { slot: u32 },
}

/// The sockets of one shard.
pub struct Ring {
    // Dropped first: the kernel's ring goes before the buffers that it knows.
    queue: Queue,
    buffers: Buffers,
    sockets: Vec<Socket>,
    /// Slots that are not free.
    open: usize,
    listeners: Vec<Listener>,
    /// Accepts in flight.
    accepting: usize,
    /// Sends of the current submission.
    inline: Vec<Inline>,
    /// Those of them that failed: place and result.
    failed: Vec<(u32, i32)>,
    /// Number of the current submission.
    turn: u32,
    completions: VecDeque<Completion>,
    /// Stalls to report before `completions`: slot, generation, bytes written.
    stalls: VecDeque<(u32, u32, usize)>,
    /// Slots whose receive ended for want of buffers, oldest first: slot, generation.
    starved: VecDeque<(u32, u32)>,
    /// How often the kernel found no receive buffer.
    exhausted: u64,
    /// Slots that get a FIN after the current submission: slot, generation.
    fins: Vec<(u32, u32)>,
    #[expect(clippy::vec_box, reason = "the kernel knows the address of what is in use")]
    spare: Vec<Box<Gather>>,
    /// The eventfd that ends a `wait`. The kernel polls it all the time; nobody reads it here.
    waker: Option<OwnedFd>,
}

struct Listener {
    /// `None`: not listening.
    fd: Option<OwnedFd>,
    generation: u32,
    armed: bool,
}

impl Ring {
    /// Makes a ring with its receive buffers, for the calling thread.
    ///
    /// # Errors
    /// See [`SetupError`]; the process cannot go on without a ring.
    pub fn new(settings: &Settings) -> Result<Ring, SetupError> {
        let mut queue = Queue::new(setup::build(settings)?);
        setup::prove(&mut queue)?;
        // SAFETY: `Ring` drops the queue, and with it the kernel's ring, before the buffers.
        let buffers =
            unsafe { Buffers::register(queue.uring(), settings.buffers, settings.buffer_bytes) };
        let buffers = buffers
            .map_err(|error| setup::explain(setup::REGISTER, error, &setup::System::read()))?;
        Ok(Ring {
            queue,
            buffers,
            sockets: Vec::new(),
            open: 0,
            listeners: Vec::new(),
            accepting: 0,
            inline: Vec::new(),
            failed: Vec::new(),
            turn: 0,
            completions: VecDeque::new(),
            stalls: VecDeque::new(),
            starved: VecDeque::new(),
            exhausted: 0,
            fins: Vec::new(),
            spare: Vec::new(),
            waker: None,
        })
    }

    /// From now on whoever writes to this eventfd ends a [`Ring::wait`]. Once per ring.
    pub fn wake_by(&mut self, eventfd: OwnedFd) {
        self.waker = Some(eventfd);
        self.arm_waker();
    }

    /// Blocks the thread until there is something to collect, or the eventfd of
    /// [`Ring::wake_by`] is written to, for `time_max` at the most. Returns whether that happened.
    /// Only to be called after `submit`, and if nothing is `pending`.
    ///
    /// # Errors
    /// As [`Ring::submit`].
    pub fn wait(&mut self, time_max: Duration) -> io::Result<bool> {
        debug_assert!(self.inline.is_empty(), "sends that nobody would settle");
        let ended = self.queue.wait(time_max)?;
        self.collect();
        Ok(ended)
    }

    /// How often a receive found all buffers in use, since the ring was made. Nothing is lost then:
    /// the connection receives again when there is one.
    pub fn buffers_exhausted(&self) -> u64 {
        self.exhausted
    }

    /// Accepts connections from a listening socket, until `unlisten`. The number is the caller's;
    /// it must not be in use.
    pub fn listen(&mut self, listener: usize, socket: OwnedFd) {
        while self.listeners.len() <= listener {
            self.listeners.push(Listener { fd: None, generation: 0, armed: false });
        }
        let entry = &mut self.listeners[listener];
        debug_assert!(entry.fd.is_none(), "listener {listener} is in use");
        entry.fd = Some(socket);
        entry.generation = (entry.generation + 1) % GENERATIONS;
        entry.armed = false;
        self.relisten(listener);
    }

    /// Accepts again after `AcceptFailed`. Does nothing if it is accepting already.
    pub fn relisten(&mut self, listener: usize) {
        let Some(entry) = self.listeners.get_mut(listener) else { return };
        let Some(fd) = entry.fd.as_ref().filter(|_| !entry.armed) else { return };
        let target = types::Fd(fd.as_raw_fd());
        entry.armed = true;
        self.accepting += 1;
        let tag =
            Tag { kind: Operation::Accept, generation: entry.generation, index: listener as u32 };
        let entry = opcode::AcceptMulti::new(target).flags(libc::SOCK_CLOEXEC).build();
        self.push(entry, tag);
    }

    /// Takes no more connections and closes the listening socket; the system resets what waits in
    /// its backlog. Accepted connections that were not reported yet are closed.
    pub fn unlisten(&mut self, listener: usize) {
        let Some(entry) = self.listeners.get_mut(listener) else { return };
        let Some(fd) = entry.fd.take() else { return };
        let (generation, armed) = (entry.generation, entry.armed);
        if armed {
            self.cancel(Operation::Accept, Operation::CancelAccept, generation, listener as u32);
        }
        self.close_descriptor(fd);
    }

    /// Takes a connected socket into a free slot and starts receiving.
    pub fn adopt(&mut self, slot: u32, socket: OwnedFd) {
        let index = slot as usize;
        if self.sockets.len() <= index {
            self.sockets.resize_with(index + 1, || Socket::FREE);
        }
        let entry = &mut self.sockets[index];
        debug_assert_eq!(entry.life, Life::Free, "slot {slot} is in use");
        if entry.life != Life::Free {
            return;
        }
        let generation = (entry.generation + 1) % GENERATIONS;
        let turn = self.turn.wrapping_sub(1);
        let (fd, life) = (Some(socket), Life::Open);
        *entry = Socket { fd, life, generation, turn, ..Socket::FREE };
        self.open += 1;
        self.arm(slot);
    }

    /// Writes a batch. It is attempted with the next `submit` and over after it unless `Stalled` is
    /// reported. Not to be called for a slot that stalled. A second time before `submit` submits at
    /// once; if the first then stalls, the second follows it, and one `Sent` stands for both.
    pub fn send(&mut self, slot: u32, batch: Batch) {
        let Some(socket) = self.sockets.get_mut(slot as usize) else { return };
        if socket.life != Life::Open || batch.is_empty() {
            return;
        }
        if socket.turn == self.turn && self.drive().is_err() {
            // The attempt before may turn out short; nothing may be written behind it.
            return self.cut(slot);
        }
        let socket = &mut self.sockets[slot as usize];
        let (target, generation) = (socket.target(), socket.generation);
        if let Some(stalled) = &mut socket.stalled {
            debug_assert!(!stalled.reported, "slot {slot} has stalled");
            return stalled.follow(batch);
        }
        if self.queue.is_full() {
            // An error shows again with the next submit; until then there is the backlog.
            let _ = self.drive();
        }
        let Some((entry, gather)) = sockets::inline_entry(target, &batch, &mut self.spare) else {
            self.stall(slot, batch, 0);
            return self.send_piece(slot);
        };
        self.sockets[slot as usize].turn = self.turn;
        let tag = Tag { kind: Operation::Inline, generation: 0, index: self.inline.len() as u32 };
        self.inline.push(Inline { slot, generation, batch, gather });
        self.push(entry.flags(Flags::SKIP_SUCCESS), tag);
    }

    /// Receives no more until `resume`. What was received already is still reported.
    pub fn pause(&mut self, slot: u32) {
        let Some(socket) = self.opened(slot) else { return };
        socket.paused = true;
        if socket.receive == Receive::Armed {
            socket.receive = Receive::Cancelling;
            let generation = socket.generation;
            self.cancel(Operation::Receive, Operation::CancelReceive, generation, slot);
        }
    }

    /// Receives again.
    pub fn resume(&mut self, slot: u32) {
        let Some(socket) = self.opened(slot) else { return };
        socket.paused = false;
        self.arm(slot);
    }

    /// Sends a FIN, after everything that was handed over before.
    pub fn shutdown(&mut self, slot: u32) {
        let turn = self.turn;
        let Some(socket) = self.opened(slot) else { return };
        if socket.turn == turn {
            let generation = socket.generation;
            return self.fins.push((slot, generation));
        }
        turn::finish(socket);
    }

    /// Closes the socket. What the socket's buffer holds is still sent, a stalled send is given up.
    pub fn close(&mut self, slot: u32) {
        let Some(socket) = self.opened(slot) else { return };
        socket.life = Life::Closing;
        let generation = socket.generation;
        let fd = socket.fd.take();
        let receiving = socket.receive == Receive::Armed;
        if receiving {
            socket.receive = Receive::Cancelling;
        }
        let sending = socket.stalled.is_some();
        if receiving {
            self.cancel(Operation::Receive, Operation::CancelReceive, generation, slot);
        }
        if sending {
            self.cancel(Operation::Send, Operation::CancelSend, generation, slot);
        }
        if let Some(fd) = fd {
            self.close_descriptor(fd);
        }
        self.free_if_over(slot);
    }

    /// Hands everything to the kernel and collects what it has. Without anything to hand over or to
    /// collect it makes no system call.
    ///
    /// # Errors
    /// The kernel refuses the ring as a whole: no memory for requests after many attempts, or a
    /// lost completion (EBADR). The shard cannot go on.
    pub fn submit(&mut self) -> io::Result<()> {
        self.buffers.publish();
        self.arm_starved();
        for _ in 0..EAGER_ENTERS {
            if !self.queue.wants_enter() {
                break;
            }
            self.drive()?;
        }
        Ok(())
    }

    /// The next event. After `send`, `submit` comes first: only then is known what stalls.
    #[expect(clippy::should_implement_trait, reason = "no iterator: it goes on after None")]
    pub fn next(&mut self) -> Option<Event> {
        while let Some((slot, generation, written)) = self.stalls.pop_front() {
            let Some(socket) = self.opened_as(slot, generation) else { continue };
            if let Some(stalled) = &mut socket.stalled {
                stalled.reported = true;
            }
            return Some(Event::Stalled { slot, written });
        }
        while let Some(completion) = self.completions.pop_front() {
            let event = self.translate(completion);
            if event.is_some() {
                return event;
            }
        }
        None
    }

    /// The bytes of a receive. They may be changed in place.
    pub fn data(&mut self, received: &Received) -> &mut [u8] {
        self.buffers.data(received)
    }

    /// Returns a buffer to the kernel, which sees it with the next `submit`.
    pub fn give_back(&mut self, received: Received) {
        self.buffers.give_back(received);
    }

    /// Bytes of receive buffers that may be resident.
    pub fn buffer_bytes(&self) -> u64 {
        self.buffers.resident_bytes()
    }

    /// Gives back memory that a peak took: half of what is kept for sends of several parts,
    /// receive buffers that were not needed since the last call, and the room of lists. To be
    /// called about once a second, between turns.
    pub fn shrink(&mut self, look: &mut Look) {
        self.collect();
        if !self.queue.overflowed() {
            self.buffers.rest();
        }
        self.spare.truncate(self.spare.len() / 2);
        self.queue.give_back(look);
        look.at(&mut self.inline);
        look.at(&mut self.failed);
        look.at(&mut self.completions);
        look.at(&mut self.stalls);
        look.at(&mut self.starved);
        look.at(&mut self.fins);
    }

    /// Whether `submit` or `next` has something to do. Only if not may the shard wait.
    pub fn pending(&mut self) -> bool {
        !self.completions.is_empty()
            || !self.stalls.is_empty()
            || self.queue.wants_enter()
            || self.buffers.unpublished()
            || (!self.starved.is_empty() && self.buffers.free() > 0)
    }
}
