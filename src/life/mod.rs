//! Whether the threads of a gateway live. A gateway that answers health checks while a part of it
//! stands still is worse than none.
//!
//! * Every thread that others rely on is started by [`Life::spawn`] and has a [`Heart`]: it leaves
//!   the time and the phase of its last turn there ([`Pulse`]), and when it ends before
//!   [`Life::stop`] that is a [`Failure`].
//! * One more thread watches all pulses ([`watch`]), and with them the one that answers health
//!   checks. It waits for nothing and nobody.
//! * Senders whose receiver is gone say so ([`Gone`]).
//! * What follows from a failure is decided by whoever started the gateway ([`Life::on_failure`]):
//!   the program ends, a test looks at it. A panic is told by the hook of [`panics`].
//!
//! Costs: a turn is a handful of plain stores into a cache line that nobody else writes.

pub mod ages;
pub mod panics;
pub mod peer;
mod pulse;
pub mod watch;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
pub use pulse::Fault;
pub use pulse::{Heart, Phase, Pulse};

/// The name of a shard's thread.
pub fn shard_name(number: usize) -> String {
    format!("shard-{number}")
}

/// Why a gateway can not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A thread says itself that it can not go on.
    #[error("{thread} can not go on: {reason}")]
    Failed { thread: Arc<str>, reason: String },
    /// A thread has ended, by a panic or without a word.
    #[error("the thread {thread} has ended")]
    Ended { thread: Arc<str> },
    /// There was mail for a thread that is gone.
    #[error("what was meant for {receiver} can not be delivered: nobody is there to take it")]
    Undeliverable { receiver: Arc<str> },
    /// A thread stood still for longer than `runtime.watchdog`.
    #[error("{what}; ended by runtime.watchdog")]
    StandsStill { what: String },
}

/// The state of all threads of one gateway, shared among them.
#[derive(Clone)]
pub struct Life(Arc<Inner>);

struct Inner {
    /// What the times of turns count from.
    start: Instant,
    pulses: Mutex<Vec<Arc<Pulse>>>,
    /// Threads may end.
    stopping: AtomicBool,
    failure: Mutex<Option<Failure>>,
    failed: Condvar,
    end: OnceLock<End>,
}

type End = Box<dyn Fn(&Failure) + Send + Sync>;

impl Life {
    /// No thread yet. Times of turns are milliseconds since `start`.
    pub fn new(start: Instant) -> Life {
        Life(Arc::new(Inner {
            start,
            pulses: Mutex::default(),
            stopping: AtomicBool::new(false),
            failure: Mutex::default(),
            failed: Condvar::new(),
            end: OnceLock::new(),
        }))
    }

    /// Milliseconds since the start.
    fn now_ms(&self) -> u64 {
        self.0.start.elapsed().as_millis() as u64
    }

    /// Starts a thread that others rely on, and watches it until it drops its heart. `protocols`
    /// are the names for [`Pulse::hold`].
    ///
    /// # Errors
    /// No thread can be had.
    pub fn spawn(
        &self,
        name: &str,
        protocols: &'static [&'static str],
        run: impl FnOnce(Heart) + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        let heart = self.heart(name, protocols);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || run(heart))
    }

    /// For what runs on threads that are not started here, those of a runtime.
    pub fn heart(&self, name: &str, protocols: &'static [&'static str]) -> Heart {
        let pulse = Arc::new(Pulse::new(name, protocols, self.now_ms()));
        lock(&self.0.pulses).push(pulse.clone());
        Heart::new(pulse, self.clone())
    }

    /// What a sender to this receiver needs to tell that it is gone.
    pub fn gone(&self, receiver: &str) -> Gone {
        Gone { receiver: receiver.into(), life: self.clone() }
    }

    /// From now on threads may end: the gateway stops.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether [`Life::stop`] was called.
    fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Relaxed)
    }

    /// The gateway can not go on. Only the first reason counts.
    fn fail(&self, failure: Failure) {
        {
            let mut first = lock(&self.0.failure);
            if first.is_some() {
                return;
            }
            *first = Some(failure.clone());
            self.0.failed.notify_all();
        }
        if let Some(end) = self.0.end.get() {
            end(&failure);
        }
    }

    /// Why the gateway can not go on, if it can not; waits for that so long.
    pub fn failure(&self, patience: Duration) -> Option<Failure> {
        let first = lock(&self.0.failure);
        let waited = self.0.failed.wait_timeout_while(first, patience, |first| first.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Has this called, on whichever thread finds out, when the gateway can not go on; at once if
    /// that is so already. Once per gateway.
    pub fn on_failure(&self, end: impl Fn(&Failure) + Send + Sync + 'static) {
        let failed = {
            let first = lock(&self.0.failure);
            let _ = self.0.end.set(Box::new(end));
            first.clone()
        };
        if let (Some(failure), Some(end)) = (failed, self.0.end.get()) {
            end(&failure);
        }
    }

    /// The first thread that stands still, in words. `None`: all of them turn.
    pub fn stands_still(&self) -> Option<String> {
        self.find(Pulse::stands_still)
    }

    /// The same for a thread that the watchdog has given up.
    pub fn is_dead(&self) -> Option<String> {
        self.find(Pulse::is_dead)
    }

    /// Whether the thread of this name stands still.
    pub fn is_still(&self, name: &str) -> bool {
        self.pulses().iter().any(|pulse| pulse.name() == name && pulse.stands_still())
    }

    /// Seconds since the thread of this name began its last turn.
    fn age(&self, name: &str) -> Option<f64> {
        let pulses = self.pulses();
        let pulse = pulses.iter().find(|pulse| pulse.name() == name)?;
        Some(pulse.age_ms(self.now_ms()) as f64 / 1000.0)
    }

    /// Turns so far of the thread of this name.
    pub fn turns(&self, name: &str) -> Option<u64> {
        self.pulses().iter().find(|pulse| pulse.name() == name).map(|pulse| pulse.turns())
    }

    /// Has a fault happen to a thread, for tests.
    #[cfg(debug_assertions)]
    pub fn inject(&self, thread: &str, fault: Fault) -> bool {
        let pulses = self.pulses();
        let found = pulses.iter().find(|pulse| pulse.name() == thread);
        found.inspect(|pulse| pulse.inject(fault)).is_some()
    }

    /// Whether such a fault has not happened as often as it should.
    #[cfg(debug_assertions)]
    pub fn suffers(&self, thread: &str) -> bool {
        self.pulses().iter().any(|pulse| pulse.name() == thread && pulse.suffers())
    }

    fn find(&self, is: fn(&Pulse) -> bool) -> Option<String> {
        self.pulses().iter().find(|pulse| is(pulse)).map(|pulse| pulse.describe(self.now_ms()))
    }

    fn pulses(&self) -> Vec<Arc<Pulse>> {
        lock(&self.0.pulses).clone()
    }

    fn forget(&self, gone: &Arc<Pulse>) {
        lock(&self.0.pulses).retain(|pulse| !Arc::ptr_eq(pulse, gone));
    }
}

impl Default for Life {
    fn default() -> Life {
        Life::new(Instant::now())
    }
}

impl std::fmt::Debug for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Life").field("threads", &self.pulses().len()).finish_non_exhaustive()
    }
}

/// Says that a receiver is gone.
#[derive(Clone, Debug)]
pub struct Gone {
    receiver: Arc<str>,
    life: Life,
}

/// Of a receiver whose end concerns nobody: for tests.
impl Default for Gone {
    fn default() -> Gone {
        Life::default().gone("nobody")
    }
}

impl Gone {
    /// Something could not be delivered, because nobody is there to take it.
    #[cold]
    pub fn notice(&self) {
        if !self.life.is_stopping() {
            self.life.fail(Failure::Undeliverable { receiver: self.receiver.clone() });
        }
    }
}

/// A panic while one of these was held has changed nothing halfway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
