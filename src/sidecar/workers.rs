//! The threads of a runtime that has several, for the watchdog. Tasks of one that is blocked are
//! taken over by the others, so a task that beats says nothing of a single thread. The runtime
//! tells which threads wait for work, and how long each has worked up to its last round of tasks.

use std::time::Duration;

use tokio::runtime::{Runtime, RuntimeMetrics};

use crate::life::{Heart, Life};

/// A pulse for each thread, `sidecar-1` and so on. The default is none.
#[derive(Default)]
pub(super) struct Workers {
    runtime: Option<RuntimeMetrics>,
    /// With the time that each had worked at the last look.
    threads: Vec<(Heart, Duration)>,
}

impl Workers {
    pub(super) fn of(runtime: &Runtime, life: &Life) -> Workers {
        let runtime = runtime.metrics();
        let heart = |number| life.heart(&format!("{}-{number}", super::THREAD), &[]);
        let threads = (1..=runtime.num_workers()).map(|number| (heart(number), Duration::ZERO));
        Workers { threads: threads.collect(), runtime: Some(runtime) }
    }

    /// Gives a turn to those that ended a round of tasks since the last look, or wait for work.
    pub(super) fn look(&mut self) {
        let Some(runtime) = &self.runtime else { return };
        for (thread, (heart, worked)) in self.threads.iter_mut().enumerate() {
            // It counts up when it begins to wait, and when that is over.
            let waits = runtime.worker_park_unpark_count(thread) % 2 == 1;
            let now = runtime.worker_total_busy_duration(thread);
            if std::mem::replace(worked, now) != now || waits {
                heart.beat();
            }
        }
    }
}
