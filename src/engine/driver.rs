//! The production driver of a shard: a task on a pinned glommio executor that moves between the
//! socket ring, the mailbox and the state machine ([`Machine`]).
//!
//! A turn collects completions, feeds them and the mail to the shard, carries out its operations
//! and submits: one `io_uring_enter` per turn, whatever the number of connections. With nothing to
//! do it waits in the socket ring, which costs that one system call, until something comes from the
//! kernel, mail from another thread, or the next deadline; for a second at the most, so that a
//! shard that lives turns.
//!
//! Everything that is used of glommio is in this file: a pinned thread. The task never returns to
//! the executor while the shard lives, because glommio 0.9 may park although a task is runnable:
//! when the thread was off its CPU until the preempt timer fired, between `poll_io` and the look at
//! `need_preempt`, `run_task_queues` says that nothing ran. Nobody would wake it then. The first
//! poll of the task goes the same way, so the timer is set to a time that never comes.
//!
//! A turn ends soon, however much has come: what it has no time for waits, so that
//! what was made leaves, memory is bounded by what the input of a short time can make, and ends of
//! sends and mail are seen.
//!
//! Back-pressure: while mail to another shard does not fit into its mailbox, input stays where it
//! is. The receive buffers it occupies are not given back, so the kernel stops receiving in its
//! turn, and TCP holds the peers back.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use glommio::{GlommioError, LocalExecutorBuilder, Placement};

use crate::allocator;
use crate::engine::clock::Clock;
use crate::engine::ops::{Machine, Op};
use crate::engine::ring::{Event, Locked, Ring, Settings, SetupError, ring_bytes};
use crate::life::{Heart, Life, Phase, shard_name};
use crate::limits;
use crate::lists::letters::{Mail, MeshRequest, Outgoing, QueueRequest, SidecarRequest};
use crate::lists::numbers::kind;
use crate::log::{Every, target};
use crate::mail::{BoundedSender, MailSender, Mailbox, UnboundedSender};
use crate::metrics::Published;
use crate::patience::Patience;
use crate::spare::{EVERY_MS, Look};

/// Mail that is handled before the sockets get another look.
const MAIL_PER_TURN: usize = 1024;
/// How long input of the sockets is handled in one turn, and mail; what is left waits for the next.
/// Few bytes may ask for very much work, and what that makes leaves at the end of the turn only.
const WORK_TIME: Duration = Duration::from_millis(10);
/// How long a shard without work waits before it publishes its counters and waits on: the pauses of
/// moderate traffic are shorter.
const PAUSE: Duration = Duration::from_millis(10);
/// The longest wait. A shard that is waited for longer than this and some more stands still.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How often counters are published while the shard is busy.
const PUBLISH_MS: u64 = 250;
/// How long to wait before mail that did not fit is tried again, and before accepting is tried
/// again when the process had no descriptor left.
const RETRY_MS: u64 = 1;
const RELISTEN_MS: u64 = 100;
/// Below this `RLIMIT_MEMLOCK` glommio refuses to run.
pub const EXECUTOR_MEMLOCK_MIN: u64 = 512 << 10;
/// glommio's own rings serve nothing here; this is the least that it registers.
const EXECUTOR_IO_MEMORY: usize = 64 << 10;
const EXECUTOR_RING_ENTRIES: usize = 8;
/// When glommio would look for other tasks: there are none.
const EXECUTOR_PREEMPT: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What a shard tells the thread that started it.
#[derive(Debug)]
pub enum Notice {
    /// The shard listens.
    Ready,
    /// The shard can not run; the text says why.
    Failed(String),
    /// Draining is over.
    Drained,
    /// The thread ends.
    Stopped,
}

/// The ways from a shard to other threads.
#[derive(Clone, Debug)]
pub struct Ways {
    /// The mailboxes of all shards, by shard number.
    pub shards: Vec<MailSender<Mail>>,
    pub sidecar: BoundedSender<SidecarRequest>,
    /// `None` if there is no mesh.
    pub mesh: Option<UnboundedSender<MeshRequest>>,
    /// `None` if queue topics are those of this process.
    pub queues: Option<UnboundedSender<QueueRequest>>,
}

/// What a driver needs to run the machine of a shard.
pub struct Parts<M> {
    pub machine: M,
    pub cpu: usize,
    pub clock: Clock,
    pub ring: Settings,
    /// Listening sockets, by listener number.
    pub listeners: Vec<OwnedFd>,
    pub mailbox: Mailbox<Mail>,
    pub ways: Ways,
    pub published: Arc<Published>,
    /// Its times are those of `clock`.
    pub heart: Heart,
    pub notices: crossbeam_channel::Sender<Notice>,
}

/// What an executor takes of the user's locked memory: it has three rings and registers its buffer
/// with each.
pub fn executor_locked() -> Locked {
    const RINGS: u64 = 3;
    let entries = EXECUTOR_RING_ENTRIES as u32;
    let each =
        Locked { buffers: EXECUTOR_IO_MEMORY as u64, rings: ring_bytes(entries, entries * 2) };
    each.times(RINGS)
}

/// Tells the gateway why a shard's thread has ended, if nothing else did.
struct LastWord {
    shard: usize,
    notices: crossbeam_channel::Sender<Notice>,
    said: bool,
}

impl LastWord {
    fn say(&mut self, notice: Notice) {
        self.said = true;
        // Fails only if the main thread is gone, and then nobody listens.
        let _ = self.notices.send(notice);
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        if !self.said {
            let shard = self.shard;
            self.say(Notice::Failed(format!("the thread of shard {shard} ended in a panic")));
        }
    }
}

/// Starts the thread of a shard, pinned to its CPU. Its first notice says whether it runs.
pub fn spawn<M: Machine>(
    number: usize,
    cpu: usize,
    life: &Life,
    notices: crossbeam_channel::Sender<Notice>,
    make: impl FnOnce(Heart) -> Parts<M> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let builder = move || {
        LocalExecutorBuilder::new(Placement::Fixed(cpu))
            .name(&shard_name(number))
            .io_memory(EXECUTOR_IO_MEMORY)
            .ring_depth(EXECUTOR_RING_ENTRIES)
            .preempt_timer(EXECUTOR_PREEMPT)
    };
    life.spawn(&shard_name(number), kind::NAMES, move |heart| {
        let mut last_word = LastWord { shard: number, notices, said: false };
        // The machine was found good a moment ago.
        let patience = Patience::new(limits::RESTART_PATIENCE);
        let no_memory = |error: &GlommioError<()>| error.raw_os_error() == Some(libc::ENOMEM);
        let notice = match patience.retry(no_memory, || builder().make()) {
            Ok(executor) => executor.run(run(move || make(heart), patience)),
            Err(error) => Notice::Failed(format!(
                "the executor of shard {number} can not be made on CPU {cpu}: {error}"
            )),
        };
        last_word.say(notice);
    })
}

/// Runs a shard to its end.
async fn run<M: Machine>(make: impl FnOnce() -> Parts<M>, patience: Patience) -> Notice {
    let parts = make();
    let notices = parts.notices.clone();
    match Driver::new(parts, patience) {
        Ok(mut driver) => {
            let _ = notices.send(Notice::Ready);
            match driver.run() {
                Ok(()) => Notice::Stopped,
                Err(error) => {
                    let reason = format!("the socket ring failed: {error}");
                    driver.parts.heart.fail(reason.clone());
                    Notice::Failed(reason)
                }
            }
        }
        Err(error) => Notice::Failed(error),
    }
}

struct Driver<M> {
    parts: Parts<M>,
    ring: Ring,
    /// Input that waits because mail to another shard did not fit, or a turn had no time for it.
    held: VecDeque<Event>,
    /// Whether such mail is left from the last turn.
    congested: bool,
    /// A request that the channel to the sidecar had no room for.
    unsent: Option<SidecarRequest>,
    relisten_ms: Vec<(usize, u64)>,
    /// When the next look for room that nobody needs is due.
    spare_ms: u64,
    /// When the allocator may be asked again to let go what it keeps.
    let_go_ms: u64,
    complaints: Every,
    published_ms: u64,
    drained: bool,
    sleeps: u64,
    overflows: u64,
}

impl<M: Machine> Driver<M> {
    fn new(mut parts: Parts<M>, patience: Patience) -> Result<Driver<M>, String> {
        let ring = patience.retry(SetupError::is_memory, || Ring::new(&parts.ring));
        let mut ring = ring.map_err(|error| error.to_string())?;
        let describe = |error: io::Error| format!("the shard's eventfd can not be used: {error}");
        let waker = parts.mailbox.waker().clone();
        ring.wake_by(waker.fd().try_clone_to_owned().map_err(describe)?);
        for (listener, socket) in std::mem::take(&mut parts.listeners).into_iter().enumerate() {
            ring.listen(listener, socket);
        }
        Ok(Driver {
            parts,
            ring,
            held: VecDeque::new(),
            congested: false,
            unsent: None,
            relisten_ms: Vec::new(),
            spare_ms: 0,
            let_go_ms: 0,
            complaints: Every::new(1000),
            published_ms: 0,
            drained: false,
            sleeps: 0,
            overflows: 0,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        loop {
            let active = self.turn()?;
            if self.parts.machine.engine().stopped() {
                self.publish(u64::MAX);
                return Ok(());
            }
            if !active && !self.rest(PAUSE)? {
                self.publish(self.parts.clock.ms());
                self.let_go();
                self.rest(WAIT_MAX)?;
            }
        }
    }

    /// One turn; returns whether there is reason for another one at once.
    fn turn(&mut self) -> io::Result<bool> {
        let now = self.parts.clock.now();
        self.parts.heart.turn(now.ms, Phase::Receive);
        self.parts.machine.begin_turn(now);
        self.relisten(now.ms);
        self.look_for_spare(now.ms);
        let mut active = self.collect(now.ms);
        self.parts.heart.enter(Phase::Mail);
        let until_us = self.work_until_us();
        for _ in 0..MAIL_PER_TURN {
            let Some(mail) = self.parts.mailbox.take() else { break };
            active = true;
            // Each round of draining gets its answer.
            self.drained &= !matches!(mail, Mail::Drain(_));
            self.parts.machine.mail(mail);
            if self.parts.clock.us() >= until_us {
                break;
            }
        }
        self.parts.heart.enter(Phase::Flush);
        self.parts.machine.end_turn();
        // Before the sockets: who is answered may rely on what the answer says.
        self.carry_mail();
        self.carry_out();
        self.parts.heart.enter(Phase::Submit);
        self.ring.submit()?;
        if self.parts.machine.engine().asks_for_time() {
            self.parts.machine.engine().carried_out(self.parts.clock.us());
        }
        self.carry_outgoing();
        if now.ms.saturating_sub(self.published_ms) >= PUBLISH_MS {
            self.publish(now.ms);
        }
        if !self.drained && self.parts.machine.drained() {
            self.drained = true;
            let _ = self.parts.notices.send(Notice::Drained);
        }
        // Input that was held back can be handled now that the mail is out, or that there is time.
        let released = !self.held.is_empty() && !self.congested;
        Ok(active || released || self.parts.machine.busy() || self.ring.pending())
    }

    /// When to go on with something else, if work begins now.
    fn work_until_us(&self) -> u64 {
        self.parts.clock.us() + WORK_TIME.as_micros() as u64
    }

    /// Feeds what the ring has collected to the shard, unless mail is in the way or it is too much
    /// for one turn.
    fn collect(&mut self, now_ms: u64) -> bool {
        let mut active = false;
        let until_us = self.work_until_us();
        let mut waits = self.congested;
        while !waits && let Some(event) = self.held.pop_front() {
            active = true;
            self.handle(event, now_ms);
            waits = self.parts.clock.us() >= until_us;
        }
        while let Some(event) = self.ring.next() {
            active = true;
            // The end of a send never waits: it only makes room.
            let urgent = matches!(event, Event::Stalled { .. } | Event::Sent { .. });
            if urgent {
                self.handle(event, now_ms);
            } else if self.held.is_empty() && !waits {
                self.handle(event, now_ms);
                waits = self.parts.clock.us() >= until_us;
            } else {
                self.held.push_back(event);
            }
        }
        active
    }

    fn handle(&mut self, event: Event, now_ms: u64) {
        let machine = &mut self.parts.machine;
        match event {
            Event::Accepted { listener, socket, peer } => {
                if let Some(slot) = machine.accepted(listener, peer) {
                    self.ring.adopt(slot, socket);
                }
            }
            Event::AcceptFailed { listener, error } => {
                machine.engine().accept_failed();
                if let Some(unsaid) = self.complaints.allow(now_ms) {
                    tracing::warn!(
                        target: target::SHARD,
                        listener, %error, unsaid, "can not accept; trying again"
                    );
                }
                if !self.relisten_ms.iter().any(|(other, _)| *other == listener) {
                    self.relisten_ms.push((listener, now_ms + RELISTEN_MS));
                }
            }
            Event::Received { slot, data } => {
                let (conn, protocol) = machine.engine().in_hand(slot);
                self.parts.heart.hold(conn, protocol);
                machine.received(slot, self.ring.data(&data));
                self.ring.give_back(data);
            }
            Event::Ended { slot, error: None } => machine.ended(slot),
            Event::Ended { slot, error: Some(_) } => machine.broken(slot),
            Event::Stalled { slot, written } => machine.stalled(slot, written),
            Event::Sent { slot, result } => {
                machine.sent(slot, result.map_err(|(written, _)| written));
            }
            Event::Closed { slot } => machine.closed(slot),
        }
    }

    fn carry_out(&mut self) {
        for op in self.parts.machine.engine().ops.drain(..) {
            match op {
                Op::Send { slot, batch } => self.ring.send(slot, batch),
                Op::Pause { slot } => self.ring.pause(slot),
                Op::Resume { slot } => self.ring.resume(slot),
                Op::Shutdown { slot } => self.ring.shutdown(slot),
                Op::Close { slot } => self.ring.close(slot),
                Op::Unlisten { listener } => self.ring.unlisten(listener),
            }
        }
    }

    fn carry_mail(&mut self) {
        self.congested = false;
        let queues = self.parts.machine.engine().mail.iter_mut().zip(&self.parts.ways.shards);
        for (queue, shard) in queues.filter(|(queue, _)| !queue.is_empty()) {
            while let Some(mail) = queue.pop_front() {
                if let Err(mail) = shard.send(mail) {
                    queue.push_front(mail);
                    self.congested = true;
                    self.overflows += 1;
                    break;
                }
            }
        }
    }

    /// Hands over what the shard has for other threads. A request that the sidecar has no room for
    /// waits here, in front of the others for it.
    fn carry_outgoing(&mut self) {
        let Driver { parts: Parts { machine, ways, .. }, unsent, .. } = self;
        *unsent = unsent.take().and_then(|request| ways.sidecar.send(request).err());
        while let Some(outgoing) = machine.next_outgoing(unsent.is_none()) {
            match outgoing {
                Outgoing::Mesh(request) => {
                    if let Some(mesh) = &ways.mesh {
                        mesh.send(request);
                    }
                }
                Outgoing::Queues(request) => {
                    if let Some(queues) = &ways.queues {
                        queues.send(request);
                    }
                }
                Outgoing::Sidecar(request) => *unsent = ways.sidecar.send(request).err(),
            }
        }
    }

    fn relisten(&mut self, now_ms: u64) {
        let ring = &mut self.ring;
        self.relisten_ms.retain(|&(listener, due_ms)| {
            let due = due_ms <= now_ms;
            if due {
                ring.relisten(listener);
            }
            !due
        });
    }

    /// Gives back what the allocator keeps for this thread, while it has nothing else to do. Under
    /// load the allocator does so by itself.
    fn let_go(&mut self) {
        let now_ms = self.parts.clock.ms();
        if now_ms >= self.let_go_ms {
            self.let_go_ms = now_ms + EVERY_MS;
            allocator::let_go();
        }
    }

    /// Gives back what a peak took, if it is time; the shard does so by itself.
    fn look_for_spare(&mut self, now_ms: u64) {
        if now_ms >= self.spare_ms {
            self.spare_ms = now_ms + EVERY_MS;
            let mut look = Look::default();
            look.at(&mut self.held);
            self.ring.shrink(&mut look);
        }
    }

    fn publish(&mut self, now_ms: u64) {
        self.published_ms = now_ms;
        let (mut counters, mut gauges) = self.parts.machine.report();
        counters.sleeps = self.sleeps;
        counters.mail_overflowed = self.overflows;
        counters.receive_buffers_exhausted = self.ring.buffers_exhausted();
        gauges.receive_buffer_bytes = self.ring.buffer_bytes();
        self.parts.published.publish(&counters, &gauges);
        if let Some(times) = self.parts.machine.engine().send_times() {
            self.parts.published.publish_sends(times, self.parts.clock.ms());
        }
    }

    /// Waits in the socket ring. Returns whether there is reason for a turn: something came, or is
    /// due.
    fn rest(&mut self, time_max: Duration) -> io::Result<bool> {
        let due = self.due_in();
        let time_max = due.map_or(time_max, |due| due.min(time_max));
        if time_max.is_zero() {
            return Ok(true);
        }
        self.sleeps += 1;
        self.parts.heart.enter(Phase::Wait);
        self.parts.mailbox.waker().rest();
        let woken = !self.parts.mailbox.is_empty() || self.ring.wait(time_max)?;
        self.parts.mailbox.waker().awake();
        Ok(woken)
    }

    /// The time until the shard has something to do by itself, if it will.
    fn due_in(&self) -> Option<Duration> {
        let now_ms = self.parts.clock.ms();
        let mut due_ms = self.parts.machine.next_ms();
        let mut by = |ms: u64| due_ms = Some(due_ms.map_or(ms, |due_ms: u64| due_ms.min(ms)));
        if self.congested || self.unsent.is_some() {
            by(now_ms + RETRY_MS);
        }
        self.relisten_ms.iter().for_each(|&(_, ms)| by(ms));
        due_ms.map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms)))
    }
}
