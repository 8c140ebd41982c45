//! How a gateway ends: it is not ready any more, accepts for a while all the same, and then its
//! clients are said goodbye to at a pace ([`crate::engine::drain`]). Whoever can not wait has it
//! hurry. How far it is the log and the supervisor are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::supervisor;
use crate::config::model::Runtime;
use crate::engine::drain::Order;
use crate::hub::push::CloseReason;
use crate::log::target;
use crate::metrics::Registry;

/// Between two lines of the log about a drain.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at how far it is.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the drain of a gateway waits for, and what has it hurry.
#[derive(Debug)]
pub(super) struct Bell {
    rung: Receiver<()>,
    hurry: Hurry,
}

/// Has the drain of a gateway hurry.
#[derive(Clone, Debug)]
pub struct Hurry {
    ring: Sender<()>,
    /// It takes its time.
    calm: Arc<AtomicBool>,
}

impl Hurry {
    /// From now on there is no delay, and the closes of clients are not spread. False: that is so
    /// already.
    pub fn hurry(&self) -> bool {
        let calm = self.calm.swap(false, Ordering::Relaxed);
        if calm {
            let _ = self.ring.send(());
        }
        calm
    }
}

impl Bell {
    /// Of a gateway with these settings.
    pub fn new(runtime: &Runtime) -> Bell {
        let (ring, rung) = crossbeam_channel::unbounded();
        let calm = !(runtime.drain.delay + runtime.drain.spread).is_zero();
        Bell { rung, hurry: Hurry { ring, calm: Arc::new(AtomicBool::new(calm)) } }
    }

    /// For whoever may have it hurry.
    pub fn hurry(&self) -> Hurry {
        self.hurry.clone()
    }

    /// Rings when the drain is to hurry.
    pub fn rung(&self) -> &Receiver<()> {
        &self.rung
    }
}

/// The end of a gateway, as it goes.
pub(super) struct End {
    /// When nothing is waited for any more.
    pub deadline: Instant,
    /// Whether everything was done so far; if not, a thread that may never end is not waited for.
    pub finished: bool,
    pub order: Order,
    pub bell: Bell,
    /// For what is left when all clients have been told.
    timeout: Duration,
    registry: Arc<Registry>,
    log_next: Instant,
}

impl End {
    /// It begins: the gateway accepts for as long as it is to, then the clients leave.
    pub fn begin(runtime: &Runtime, bell: Bell, registry: Arc<Registry>) -> End {
        let drain = runtime.drain;
        tracing::info!(
            target: target::GATEWAY,
            delay_ms = drain.delay.as_millis() as u64,
            spread_ms = drain.spread.as_millis() as u64,
            clients = registry.load()[1],
            "not ready any more"
        );
        supervisor::stopping();
        let hurries = !drain.delay.is_zero() && bell.rung.recv_timeout(drain.delay).is_ok();
        let spread = if hurries { Duration::ZERO } else { drain.spread };
        let reason = CloseReason::new(drain.code, "server shutdown");
        let order = Order { percent: 100, spread, jitter: drain.jitter, reason, last: true };
        let (timeout, now) = (runtime.shutdown_timeout, Instant::now());
        let deadline = now + spread + timeout;
        let log_next = now + LOG_EVERY;
        End { deadline, finished: true, order, bell, timeout, registry, log_next }
    }

    /// Nobody is waited for any longer than needed.
    pub fn hurries(&mut self) {
        self.deadline = self.deadline.min(Instant::now() + self.timeout);
    }

    /// Says how far it is, if it is time.
    pub fn tell(&mut self) {
        let waiting = self.registry.drain_waiting();
        let left = self.registry.load()[1];
        supervisor::status(&format!("Draining: {left} clients left, {waiting} not told yet"));
        let now = Instant::now();
        if now >= self.log_next {
            self.log_next = now + LOG_EVERY;
            tracing::info!(target: target::GATEWAY, left, waiting, "clients leave");
        }
    }
}
