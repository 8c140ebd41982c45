//! What a thread leaves of its last turn, and what the watchdog makes of it.
//!
//! Invariant: only the thread itself writes the turn; only the watchdog writes the verdict, on a
//! cache line of its own. Everything is relaxed: a reader may see a phase of the turn before.

use std::sync::Arc;
#[cfg(debug_assertions)]
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::{Failure, Life};
use crate::hub::ConnId;

/// Where a thread is in its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// It has not had a turn yet.
    Start,
    /// It has nothing to do and waits without a limit. Such a thread does not stand still.
    Idle,
    /// It takes what the kernel has.
    Receive,
    /// It handles what came from a connection.
    Handle,
    /// It handles mail.
    Mail,
    /// It makes sends of what waits for connections.
    Flush,
    /// It hands them to the kernel, and mail to other threads.
    Submit,
    /// It waits, for a second at the most.
    Wait,
    /// It works; that is all that is known.
    Work,
}

impl Phase {
    const ALL: [Phase; 9] = [
        Phase::Start,
        Phase::Idle,
        Phase::Receive,
        Phase::Handle,
        Phase::Mail,
        Phase::Flush,
        Phase::Submit,
        Phase::Wait,
        Phase::Work,
    ];

    /// In the log.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Start => "start",
            Phase::Idle => "idle",
            Phase::Receive => "receive",
            Phase::Handle => "handle",
            Phase::Mail => "mail",
            Phase::Flush => "flush",
            Phase::Submit => "submit",
            Phase::Wait => "wait",
            Phase::Work => "work",
        }
    }

    /// The phase of this name.
    #[cfg(debug_assertions)]
    fn named(name: &str) -> Option<Phase> {
        Phase::ALL.into_iter().find(|phase| phase.name() == name)
    }
}

/// What the watchdog thinks of a thread.
const TURNS: u8 = 0;
const STANDS_STILL: u8 = 1;
const DEAD: u8 = 2;

/// The last turn of a thread. Aligned so that no two threads write to one cache line (processors
/// fetch lines in pairs).
#[derive(Debug)]
#[repr(align(128))]
struct Turn {
    /// How many there were.
    count: AtomicU64,
    /// When it began, in milliseconds of [`Life`].
    began_ms: AtomicU64,
    phase: AtomicU8,
    /// The connection in hand, and its protocol; 0: none.
    conn: AtomicU64,
    protocol: AtomicU8,
}

/// See the module.
#[derive(Debug)]
pub struct Pulse {
    turn: Turn,
    name: Arc<str>,
    protocols: &'static [&'static str],
    verdict: AtomicU8,
    #[cfg(debug_assertions)]
    fault: Mutex<Option<Fault>>,
}

impl Pulse {
    pub(super) fn new(name: &str, protocols: &'static [&'static str], now_ms: u64) -> Pulse {
        Pulse {
            turn: Turn {
                count: AtomicU64::new(0),
                began_ms: AtomicU64::new(now_ms),
                phase: AtomicU8::new(Phase::Start as u8),
                conn: AtomicU64::new(0),
                protocol: AtomicU8::new(0),
            },
            name: name.into(),
            protocols,
            verdict: AtomicU8::new(TURNS),
            #[cfg(debug_assertions)]
            fault: Mutex::default(),
        }
    }

    /// A turn begins.
    pub fn turn(&self, now_ms: u64, phase: Phase) {
        let count = self.turn.count.load(Ordering::Relaxed);
        self.turn.count.store(count.wrapping_add(1), Ordering::Relaxed);
        self.turn.began_ms.store(now_ms, Ordering::Relaxed);
        self.enter(phase);
    }

    /// The next phase begins; no connection is in hand.
    pub fn enter(&self, phase: Phase) {
        self.turn.conn.store(0, Ordering::Relaxed);
        self.turn.phase.store(phase as u8, Ordering::Relaxed);
        #[cfg(debug_assertions)]
        self.suffer(phase);
    }

    /// Handles what came from this connection, whose protocol has this place among the names.
    pub fn hold(&self, conn: ConnId, protocol: u8) {
        let bits = u64::from(conn.generation()) << 32 | u64::from(conn.index());
        self.turn.conn.store(bits, Ordering::Relaxed);
        self.turn.protocol.store(protocol, Ordering::Relaxed);
        self.turn.phase.store(Phase::Handle as u8, Ordering::Relaxed);
        #[cfg(debug_assertions)]
        self.suffer(Phase::Handle);
    }

    /// Turns so far; wraps.
    pub fn turns(&self) -> u64 {
        self.turn.count.load(Ordering::Relaxed)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    pub(super) fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.turn.began_ms.load(Ordering::Relaxed))
    }

    pub(super) fn phase(&self) -> Phase {
        let phase = usize::from(self.turn.phase.load(Ordering::Relaxed));
        Phase::ALL.get(phase).copied().unwrap_or(Phase::Work)
    }

    /// The connection in hand and the name of its protocol.
    pub(super) fn in_hand(&self) -> Option<(ConnId, &'static str)> {
        let conn = self.turn.conn.load(Ordering::Relaxed);
        let protocol = usize::from(self.turn.protocol.load(Ordering::Relaxed));
        let name = self.protocols.get(protocol).copied().unwrap_or("-");
        (conn != 0).then(|| (ConnId::from_parts((conn >> 32) as u32, conn as u32), name))
    }

    /// For people.
    pub(super) fn describe(&self, now_ms: u64) -> String {
        let seconds = self.age_ms(now_ms) / 1000;
        let text =
            format!("{} stands still since {seconds} s in `{}`", self.name, self.phase().name());
        match self.in_hand() {
            Some((_, protocol)) => format!("{text} ({protocol})"),
            None => text,
        }
    }

    pub(super) fn judge(&self, still: bool, dead: bool) {
        let verdict = if dead { DEAD } else { u8::from(still) * STANDS_STILL };
        self.verdict.store(verdict, Ordering::Relaxed);
    }

    pub(super) fn stands_still(&self) -> bool {
        self.verdict.load(Ordering::Relaxed) != TURNS
    }

    pub(super) fn is_dead(&self) -> bool {
        self.verdict.load(Ordering::Relaxed) == DEAD
    }
}

/// A thread's own end of its pulse. Whoever drops it has ended.
#[derive(Debug)]
pub struct Heart {
    pulse: Arc<Pulse>,
    life: Life,
}

impl Heart {
    pub(super) fn new(pulse: Arc<Pulse>, life: Life) -> Heart {
        Heart { pulse, life }
    }

    /// A turn of a thread that knows nothing of phases.
    pub fn beat(&self) {
        self.pulse.turn(self.life.now_ms(), Phase::Work);
    }

    /// The thread can not go on.
    pub fn fail(&self, reason: String) {
        self.life.fail(Failure::Failed { thread: self.pulse.shared_name(), reason });
    }
}

impl std::ops::Deref for Heart {
    type Target = Pulse;

    fn deref(&self) -> &Pulse {
        &self.pulse
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.life.forget(&self.pulse);
        if std::thread::panicking() || !self.life.is_stopping() {
            self.life.fail(Failure::Ended { thread: self.pulse.shared_name() });
        }
    }
}

/// What a test has happen to a thread. There is no such thing in a release build.
#[cfg(debug_assertions)]
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Where, each time it comes there.
    pub phase: Phase,
    /// How often.
    pub times: u32,
    /// It is off its CPU for so long. `None`: it panics.
    pub hold: Option<std::time::Duration>,
}

/// Phase, number of times, and milliseconds or `panic`, with a space between them.
#[cfg(debug_assertions)]
impl std::str::FromStr for Fault {
    type Err = ();

    fn from_str(text: &str) -> Result<Fault, ()> {
        let words: Vec<&str> = text.split(' ').collect();
        let [phase, times, hold] = words[..] else { return Err(()) };
        let phase = Phase::named(phase).ok_or(())?;
        let times = times.parse().ok().filter(|times| *times > 0).ok_or(())?;
        let hold = match hold {
            "panic" => None,
            hold => Some(std::time::Duration::from_millis(hold.parse().map_err(|_| ())?)),
        };
        Ok(Fault { phase, times, hold })
    }
}

#[cfg(debug_assertions)]
impl Pulse {
    pub(super) fn inject(&self, fault: Fault) {
        *super::lock(&self.fault) = Some(fault);
    }

    fn suffer(&self, phase: Phase) {
        let hold = {
            let mut fault = super::lock(&self.fault);
            let Some(due) = fault.as_mut().filter(|fault| fault.phase == phase) else { return };
            due.times = due.times.saturating_sub(1);
            let (hold, over) = (due.hold, due.times == 0);
            if over {
                *fault = None;
            }
            hold
        };
        match hold {
            Some(time) => std::thread::sleep(time),
            None => panic!("a fault that was asked for, in {}", phase.name()),
        }
    }

    /// Whether faults are left to happen.
    pub(super) fn suffers(&self) -> bool {
        super::lock(&self.fault).is_some()
    }
}
