//! The watchdog: a thread that looks at every pulse four times a second.
//!
//! It counts its own ticks, not the time: when the whole process was stopped (a debugger, a paused
//! machine) no tick has passed, and nobody is taken for dead. It waits for nobody: who finds the
//! sidecar or the main thread blocked must not be blocked by them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::pulse::{Phase, Pulse};
use super::{Failure, Life};
use crate::limits::{STILL_LOG_TIME, STILL_TIME};
use crate::log::target;

/// Between two looks.
pub const TICK: Duration = Duration::from_millis(250);
/// Ticks for which health checks can see a dead thread before the process ends.
const SEEN_TICKS: u64 = 4;

/// Starts the thread. It ends when the gateway stops. `limit` is what a thread may stand still
/// before the process ends; zero: for ever.
///
/// # Errors
/// No thread can be had.
pub fn start(life: &Life, limit: Duration) -> io::Result<()> {
    let mut watch = Watch::new(life.clone(), limit);
    std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        while !watch.life.is_stopping() {
            std::thread::sleep(TICK);
            if let Some(failure) = watch.tick() {
                watch.life.fail(failure);
            }
        }
    })?;
    Ok(())
}

const fn ticks(time: Duration) -> u64 {
    time.as_millis().div_ceil(TICK.as_millis()) as u64
}

/// What the watchdog knows.
pub(super) struct Watch {
    life: Life,
    /// Ticks after which a thread is dead; 0: never.
    limit: u64,
    seen: Vec<Seen>,
}

/// A thread as it was at the last look.
struct Seen {
    pulse: Arc<Pulse>,
    turns: u64,
    /// Ticks since its last turn.
    ticks: u64,
}

impl Watch {
    pub(super) fn new(life: Life, limit: Duration) -> Watch {
        Watch { life, limit: ticks(limit), seen: Vec::new() }
    }

    /// Looks at every thread. Gives a failure if one is dead, after health checks could see it.
    pub(super) fn tick(&mut self) -> Option<Failure> {
        let pulses = self.life.pulses();
        self.seen.retain(|seen| pulses.iter().any(|pulse| Arc::ptr_eq(pulse, &seen.pulse)));
        for pulse in pulses {
            if !self.seen.iter().any(|seen| Arc::ptr_eq(&pulse, &seen.pulse)) {
                self.seen.push(Seen { turns: pulse.turns(), pulse, ticks: 0 });
            }
        }
        let (now_ms, limit) = (self.life.now_ms(), self.limit);
        let mut failure = None;
        for seen in &mut self.seen {
            if seen.look(now_ms, limit) {
                failure.get_or_insert_with(|| seen.pulse.describe(now_ms));
            }
        }
        failure.map(|what| Failure::StandsStill { what })
    }
}

impl Seen {
    /// Returns whether it is time to end the process.
    fn look(&mut self, now_ms: u64, limit: u64) -> bool {
        let turns = self.pulse.turns();
        let lives = turns != self.turns || self.pulse.phase() == Phase::Idle;
        self.turns = turns;
        if lives {
            if self.ticks >= ticks(STILL_LOG_TIME) {
                let seconds = self.seconds();
                tracing::info!(
                    target: target::LIFE,
                    thread = self.pulse.name(), seconds, "turns again"
                );
            }
            self.ticks = 0;
            self.pulse.judge(false, false);
            return false;
        }
        self.ticks += 1;
        let dead = limit > 0 && self.ticks >= limit;
        self.pulse.judge(self.ticks >= ticks(STILL_TIME), dead);
        if self.ticks == ticks(STILL_LOG_TIME) {
            self.say("no turn: it stands still, or its CPU is taken", now_ms);
        }
        if self.ticks == ticks(STILL_TIME) {
            self.say("stands still; not ready until it turns again", now_ms);
        }
        dead && self.ticks >= limit + SEEN_TICKS
    }

    fn say(&self, what: &str, now_ms: u64) {
        let (thread, phase) = (self.pulse.name(), self.pulse.phase().name());
        let seconds = self.pulse.age_ms(now_ms) / 1000;
        let (conn, protocol) = match self.pulse.in_hand() {
            Some((conn, protocol)) => (format!("{conn:?}"), protocol),
            None => ("-".to_owned(), "-"),
        };
        tracing::warn!(target: target::LIFE, thread, phase, protocol, conn, seconds, "{what}");
    }

    fn seconds(&self) -> u64 {
        self.ticks * TICK.as_millis() as u64 / 1000
    }
}
