//! What the mesh counts.

use metrics::{Counter, Gauge};

use crate::metrics::{Registry, rows};

/// See [`rows`] for what each means.
pub(super) struct Meters {
    pub nodes: Gauge,
    pub connected: Gauge,
    pub buckets: Gauge,
    pub wanted: Gauge,
    pub queued: Gauge,
    pub sent: Counter,
    pub sent_bytes: Counter,
    pub received: Counter,
    pub received_bytes: Counter,
    pub asked: Counter,
    pub unanswered: Counter,
    pub reconnects: Counter,
    /// `ringway_dropped_total` by reason.
    pub dropped_full: Counter,
    pub dropped_down: Counter,
    pub dropped_large: Counter,
    pub dropped_invalid: Counter,
    pub dropped_repeated: Counter,
}

impl Meters {
    /// Registers all of them.
    pub fn new(registry: &Registry) -> Meters {
        let counter = |row| registry.counter(row, &[]);
        let gauge = |row| registry.gauge(row, &[]);
        let dropped = |reason| registry.counter(&rows::DROPPED, &[("reason", reason)]);
        Meters {
            nodes: gauge(&rows::MESH_NODES),
            connected: gauge(&rows::MESH_CONNECTED),
            buckets: gauge(&rows::MESH_BUCKETS),
            wanted: gauge(&rows::MESH_WANTED),
            queued: gauge(&rows::MESH_QUEUED),
            sent: counter(&rows::MESH_SENT),
            sent_bytes: counter(&rows::MESH_SENT_BYTES),
            received: counter(&rows::MESH_RECEIVED),
            received_bytes: counter(&rows::MESH_RECEIVED_BYTES),
            asked: counter(&rows::MESH_ASKED),
            unanswered: counter(&rows::MESH_UNANSWERED),
            reconnects: counter(&rows::MESH_RECONNECTS),
            dropped_full: dropped("mesh_full"),
            dropped_down: dropped("mesh_down"),
            dropped_large: dropped("mesh_too_large"),
            dropped_invalid: dropped("mesh_invalid"),
            dropped_repeated: dropped("mesh_repeated"),
        }
    }
}
