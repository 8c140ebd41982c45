//! The production driver of a shard: a task on a pinned glommio executor that moves between the
//! socket ring, the mailbox and the state machine.
//!
//! A turn collects completions, feeds them and the mail to the shard, carries out its operations
//! and submits: one `io_uring_enter` per turn, whatever the number of connections. With nothing to
//! do it first naps: it waits in the socket ring itself, which costs that one system call, for some
//! milliseconds. When nothing comes the task waits as glommio does it, which is several times
//! dearer, so that the executor rests as well: for an eventfd that the ring signals, and other
//! threads with their mail. Everything that is used of glommio is in this file.
//!
//! Back-pressure: while mail to another shard does not fit into its mailbox, input stays where it
//! is. The receive buffers it occupies are not given back, so the kernel stops receiving in its
//! turn, and TCP holds the peers back.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use glommio::io::BufferedFile;
use glommio::timer::Timer;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

use crate::log::Every;
use crate::metrics::Published;
use crate::shard::mailbox::{
    Mail, MailSender, Mailbox, MeshSender, QueueSender, Request, SidecarSender,
};
use crate::shard::ops::Op;
use crate::shard::ring::{self, Event, Ring, Settings};
use crate::shard::{Now, Shard};

/// Mail that is handled before the sockets get another look.
const MAIL_PER_TURN: usize = 1024;
/// Turns between two looks at the executor's own queue while the shard is busy.
const TURNS_PER_YIELD: u32 = 64;
/// How long a shard without work waits in its ring before it sleeps in the executor.
const NAP: Duration = Duration::from_millis(10);
/// How often counters are published while the shard is busy.
const PUBLISH_MS: u64 = 250;
/// How long to wait before mail that did not fit is tried again, and before accepting is tried
/// again when the process had no descriptor left.
const RETRY_MS: u64 = 1;
const RELISTEN_MS: u64 = 100;
/// glommio's own ring serves one file here; its default would pin 10 MiB.
const EXECUTOR_IO_MEMORY: usize = 64 << 10;
const EXECUTOR_RING_ENTRIES: usize = 8;

/// The clock that all shards of a process share.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    start_unix: Duration,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Clock {
        let start_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { start: Instant::now(), start_unix }
    }

    fn now(&self) -> Now {
        let elapsed = self.start.elapsed();
        let since_1970 = self.start_unix + elapsed;
        let (unix, unix_ms) = (since_1970.as_secs() as u32, since_1970.as_millis() as u64);
        Now { ms: elapsed.as_millis() as u64, unix, unix_ms }
    }
}

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

/// What a driver needs to run its shard.
pub struct Parts {
    pub shard: Shard,
    pub cpu: usize,
    pub clock: Clock,
    pub ring: Settings,
    /// Listening sockets, by listener number.
    pub listeners: Vec<OwnedFd>,
    pub mailbox: Mailbox,
    /// The mailboxes of all shards, by shard number.
    pub shards: Vec<MailSender>,
    pub sidecar: SidecarSender,
    /// `None` if there is no mesh.
    pub mesh: Option<MeshSender>,
    /// `None` if queue topics are those of this process.
    pub queues: Option<QueueSender>,
    pub published: Arc<Published>,
    pub notices: crossbeam_channel::Sender<Notice>,
}

/// Starts the thread of a shard, pinned to its CPU. Its first notice says whether it runs.
pub fn spawn(
    number: usize,
    cpu: usize,
    make: impl FnOnce() -> Parts + Send + 'static,
) -> io::Result<ExecutorJoinHandle<()>> {
    LocalExecutorBuilder::new(Placement::Fixed(cpu))
        .name(&format!("shard-{number}"))
        .io_memory(EXECUTOR_IO_MEMORY)
        .ring_depth(EXECUTOR_RING_ENTRIES)
        .spawn(move || async move {
            let parts = make();
            let notices = parts.notices.clone();
            let notice = match Driver::new(parts) {
                Ok(driver) => {
                    let _ = notices.send(Notice::Ready);
                    match driver.run().await {
                        Ok(()) => Notice::Stopped,
                        Err(error) => Notice::Failed(format!("the socket ring failed: {error}")),
                    }
                }
                Err(error) => Notice::Failed(error),
            };
            // Fails only if the main thread is gone, and then nobody listens.
            let _ = notices.send(notice);
        })
        .map_err(|error| io::Error::other(error.to_string()))
}

struct Driver {
    parts: Parts,
    ring: Ring,
    eventfd: std::rc::Rc<BufferedFile>,
    /// Input that waits because mail to another shard did not fit.
    held: VecDeque<Event>,
    /// Whether such mail is left from the last turn.
    congested: bool,
    /// A request that the channel to the sidecar had no room for.
    unsent: Option<Request>,
    relisten_ms: Vec<(usize, u64)>,
    complaints: Every,
    published_ms: u64,
    drained: bool,
    sleeps: u64,
    overflows: u64,
}

type Wait = Pin<Box<dyn Future<Output = ()>>>;

impl Driver {
    fn new(mut parts: Parts) -> Result<Driver, String> {
        let mut ring = Ring::new(&parts.ring).map_err(|error| error.to_string())?;
        let describe = |error: io::Error| format!("the shard's eventfds can not be used: {error}");
        let waker = parts.mailbox.waker().clone();
        ring.wake_by(waker.nap_fd().try_clone_to_owned().map_err(describe)?);
        ring.notify(waker.sleep_fd()).map_err(describe)?;
        ring.set_notify(false);
        let eventfd = waker.sleep_fd().try_clone_to_owned().map_err(describe)?;
        let eventfd = std::rc::Rc::new(ring::adopt_file::<BufferedFile>(eventfd));
        for (listener, socket) in std::mem::take(&mut parts.listeners).into_iter().enumerate() {
            ring.listen(listener, socket);
        }
        Ok(Driver {
            parts,
            ring,
            eventfd,
            held: VecDeque::new(),
            congested: false,
            unsent: None,
            relisten_ms: Vec::new(),
            complaints: Every::new(1000),
            published_ms: 0,
            drained: false,
            sleeps: 0,
            overflows: 0,
        })
    }

    async fn run(mut self) -> io::Result<()> {
        let mut wait: Option<Wait> = None;
        let mut turns = 0u32;
        loop {
            let active = self.turn()?;
            if self.parts.shard.stopped() {
                self.publish(u64::MAX);
                return Ok(());
            }
            if !active && !self.nap()? && self.fall_asleep()? {
                self.sleep(&mut wait).await;
            }
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(TURNS_PER_YIELD) {
                glommio::yield_if_needed().await;
            }
        }
    }

    /// One turn; returns whether there is reason for another one at once.
    fn turn(&mut self) -> io::Result<bool> {
        let now = self.parts.clock.now();
        self.parts.shard.begin_turn(now);
        self.relisten(now.ms);
        let mut active = self.collect(now.ms);
        for _ in 0..MAIL_PER_TURN {
            let Some(mail) = self.parts.mailbox.take() else { break };
            active = true;
            // Each round of draining gets its answer.
            self.drained &= !matches!(mail, Mail::Drain);
            self.parts.shard.mail(mail);
        }
        self.parts.shard.end_turn();
        self.carry_out();
        self.ring.submit()?;
        self.carry_mail();
        self.carry_requests();
        while let Some(request) = self.parts.shard.next_mesh() {
            if let Some(mesh) = &self.parts.mesh {
                mesh.send(request);
            }
        }
        while let Some(request) = self.parts.shard.next_queue_request() {
            if let Some(queues) = &self.parts.queues {
                queues.send(request);
            }
        }
        if now.ms.saturating_sub(self.published_ms) >= PUBLISH_MS {
            self.publish(now.ms);
        }
        if !self.drained && self.parts.shard.drained() {
            self.drained = true;
            let _ = self.parts.notices.send(Notice::Drained);
        }
        // Input that was held back can be handled now that the mail is out.
        let released = !self.held.is_empty() && !self.congested;
        Ok(active || released || self.parts.shard.busy() || self.ring.pending())
    }

    /// Feeds what the ring has collected to the shard, unless mail is in the way.
    fn collect(&mut self, now_ms: u64) -> bool {
        let mut active = false;
        while !self.congested
            && let Some(event) = self.held.pop_front()
        {
            active = true;
            self.handle(event, now_ms);
        }
        while let Some(event) = self.ring.next() {
            active = true;
            // The end of a send never waits: it only makes room.
            let urgent = matches!(event, Event::Stalled { .. } | Event::Sent { .. });
            if urgent || (self.held.is_empty() && !self.congested) {
                self.handle(event, now_ms);
            } else {
                self.held.push_back(event);
            }
        }
        active
    }

    fn handle(&mut self, event: Event, now_ms: u64) {
        let shard = &mut self.parts.shard;
        match event {
            Event::Accepted { listener, socket, peer } => {
                if let Some(slot) = shard.accepted(listener, peer) {
                    self.ring.adopt(slot, socket);
                }
            }
            Event::AcceptFailed { listener, error } => {
                shard.accept_failed();
                if let Some(unsaid) = self.complaints.allow(now_ms) {
                    tracing::warn!(listener, %error, unsaid, "can not accept; trying again");
                }
                if !self.relisten_ms.iter().any(|(other, _)| *other == listener) {
                    self.relisten_ms.push((listener, now_ms + RELISTEN_MS));
                }
            }
            Event::Received { slot, data } => {
                shard.received(slot, self.ring.data(&data));
                self.ring.give_back(data);
            }
            Event::Ended { slot, .. } => shard.ended(slot),
            Event::Stalled { slot, written } => shard.stalled(slot, written),
            Event::Sent { slot, result } => {
                shard.sent(slot, result.map_err(|(written, _)| written));
            }
            Event::Closed { slot } => shard.closed(slot),
        }
    }

    fn carry_out(&mut self) {
        for op in self.parts.shard.ops.drain(..) {
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
        let queues = self.parts.shard.mail.iter_mut().zip(&self.parts.shards);
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

    /// Hands requests to the sidecar while it has room; one that does not fit waits here, in front
    /// of the others.
    fn carry_requests(&mut self) {
        let next = |driver: &mut Driver| {
            driver.unsent.take().or_else(|| driver.parts.shard.next_request())
        };
        while let Some(request) = next(self) {
            if let Err(request) = self.parts.sidecar.send(request) {
                self.unsent = Some(request);
                return;
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

    fn publish(&mut self, now_ms: u64) {
        self.published_ms = now_ms;
        let (mut counters, gauges) = self.parts.shard.report();
        counters.sleeps = self.sleeps;
        counters.mail_overflowed = self.overflows;
        self.parts.published.publish(&counters, &gauges);
    }

    /// Waits in the socket ring for a short time, which is where the pauses of moderate traffic are
    /// spent. Returns whether something came.
    fn nap(&mut self) -> io::Result<bool> {
        let time_max = self.sleep_time().map_or(NAP, |time| time.min(NAP));
        if time_max.is_zero() {
            return Ok(false);
        }
        self.parts.mailbox.waker().nap();
        let woken = !self.parts.mailbox.is_empty() || self.ring.wait(time_max)?;
        self.parts.mailbox.waker().awake();
        self.sleeps += 1;
        Ok(woken)
    }

    /// Makes sure that whatever comes from now on signals the eventfd; returns whether nothing came
    /// before that.
    fn fall_asleep(&mut self) -> io::Result<bool> {
        self.parts.mailbox.waker().sleep();
        self.ring.set_notify(true);
        self.ring.submit()?;
        if self.parts.mailbox.is_empty() && !self.ring.pending() {
            return Ok(true);
        }
        self.awake();
        Ok(false)
    }

    async fn sleep(&mut self, wait: &mut Option<Wait>) {
        self.sleeps += 1;
        self.publish(self.parts.clock.now().ms);
        let wake = wait.get_or_insert_with(|| {
            let eventfd = self.eventfd.clone();
            Box::pin(async move {
                // An error is treated like a wake-up: the turn that follows finds out.
                let _ = eventfd.read_at(0, 8).await;
            })
        });
        let mut timer = self.sleep_time().map(Timer::new);
        let woken = std::future::poll_fn(|cx| {
            if wake.as_mut().poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            match timer.as_mut().map(|timer| Pin::new(timer).poll(cx)) {
                Some(Poll::Ready(_)) => Poll::Ready(false),
                _ => Poll::Pending,
            }
        });
        if woken.await {
            *wait = None;
        }
        self.awake();
    }

    /// From now on nobody needs to signal anything.
    fn awake(&mut self) {
        self.parts.mailbox.waker().awake();
        self.ring.set_notify(false);
    }

    fn sleep_time(&self) -> Option<Duration> {
        let now_ms = self.parts.clock.now().ms;
        let mut due_ms = self.parts.shard.next_ms();
        let mut by = |ms: u64| due_ms = Some(due_ms.map_or(ms, |due_ms: u64| due_ms.min(ms)));
        if self.congested || self.unsent.is_some() {
            by(now_ms + RETRY_MS);
        }
        self.relisten_ms.iter().for_each(|&(_, ms)| by(ms));
        due_ms.map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms)))
    }
}
