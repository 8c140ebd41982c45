//! What the queues of a cluster count.

use metrics::{Counter, Gauge};

use crate::metrics::{Registry, rows};

/// See [`rows`] for what each means.
pub(super) struct Meters {
    pub connected: Gauge,
    pub stored: Gauge,
    pub unstored: Gauge,
    pub unstored_bytes: Gauge,
    pub held: Gauge,
    pub held_bytes: Gauge,
    pub taken: Counter,
    pub redelivered: Counter,
    pub repeated: Counter,
    pub returned: Counter,
    pub acknowledged: Counter,
    /// `ringway_dropped_total` by reason.
    pub dropped_oldest: Counter,
    pub dropped_unstored: Counter,
    pub dropped_invalid: Counter,
}

impl Meters {
    /// Registers all of them.
    pub fn new(registry: &Registry) -> Meters {
        let counter = |row| registry.counter(row, &[]);
        let gauge = |row| registry.gauge(row, &[]);
        let dropped = |reason| registry.counter(&rows::DROPPED, &[("reason", reason)]);
        Meters {
            connected: gauge(&rows::QUEUES_CONNECTED),
            stored: gauge(&rows::QUEUES_STORED),
            unstored: gauge(&rows::QUEUES_UNSTORED),
            unstored_bytes: gauge(&rows::QUEUES_UNSTORED_BYTES),
            held: gauge(&rows::QUEUES_HELD),
            held_bytes: gauge(&rows::QUEUES_HELD_BYTES),
            taken: counter(&rows::QUEUES_TAKEN),
            redelivered: counter(&rows::QUEUES_REDELIVERED),
            repeated: counter(&rows::QUEUES_REPEATED),
            returned: counter(&rows::QUEUES_RETURNED),
            acknowledged: counter(&rows::QUEUES_ACKNOWLEDGED),
            dropped_oldest: dropped("queue_oldest"),
            dropped_unstored: dropped("queue_unstored"),
            dropped_invalid: dropped("queue_invalid"),
        }
    }
}
