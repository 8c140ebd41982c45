//! What the queues of a cluster count.

use metrics::{Counter, Gauge, Unit};

use crate::metrics::{DROPPED, Kind, Registry, Row};

/// See [`ROWS`] for what each means.
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

const fn row(name: &'static str, help: &'static str, kind: Kind, unit: Unit) -> Row {
    Row { name, help, kind, unit }
}

/// Families of the queues of a cluster; there are none without.
const ROWS: [Row; 11] = [
    row(
        "ringway_queue_cluster_connected",
        "1 while JetStream has the stream of the queue topics",
        Kind::Gauge,
        Unit::Count,
    ),
    row(
        "ringway_queue_cluster_messages",
        "Messages of all topics in JetStream, those that nodes have included",
        Kind::Gauge,
        Unit::Count,
    ),
    row(
        "ringway_queue_cluster_unstored_messages",
        "Pushes of this node that JetStream has not stored yet",
        Kind::Gauge,
        Unit::Count,
    ),
    row("ringway_queue_cluster_unstored_bytes", "Bytes of those", Kind::Gauge, Unit::Bytes),
    row(
        "ringway_queue_cluster_held_messages",
        "Messages that this node has from JetStream and not written yet",
        Kind::Gauge,
        Unit::Count,
    ),
    row("ringway_queue_cluster_held_bytes", "Bytes of those", Kind::Gauge, Unit::Bytes),
    row(
        "ringway_queue_cluster_taken_total",
        "Messages taken from JetStream for consumers of this node",
        Kind::Counter,
        Unit::Count,
    ),
    row(
        "ringway_queue_cluster_redelivered_total",
        "Messages that JetStream has delivered to some node before",
        Kind::Counter,
        Unit::Count,
    ),
    row(
        "ringway_queue_cluster_repeated_total",
        "Messages that this node knew already and did not deliver again",
        Kind::Counter,
        Unit::Count,
    ),
    row(
        "ringway_queue_cluster_returned_total",
        "Messages given back to JetStream for other nodes",
        Kind::Counter,
        Unit::Count,
    ),
    row(
        "ringway_queue_cluster_acknowledged_total",
        "Messages acknowledged after they were written to a consumer",
        Kind::Counter,
        Unit::Count,
    ),
];

impl Meters {
    /// Registers all of them.
    pub fn new(registry: &Registry) -> Meters {
        let [connected, stored, unstored, unstored_bytes, held, held_bytes, rest @ ..] = &ROWS;
        let [taken, redelivered, repeated, returned, acknowledged] = rest;
        let counter = |row| registry.counter(row, &[]);
        let gauge = |row| registry.gauge(row, &[]);
        let dropped = |reason| registry.counter(&DROPPED, &[("reason", reason)]);
        Meters {
            connected: gauge(connected),
            stored: gauge(stored),
            unstored: gauge(unstored),
            unstored_bytes: gauge(unstored_bytes),
            held: gauge(held),
            held_bytes: gauge(held_bytes),
            taken: counter(taken),
            redelivered: counter(redelivered),
            repeated: counter(repeated),
            returned: counter(returned),
            acknowledged: counter(acknowledged),
            dropped_oldest: dropped("queue_oldest"),
            dropped_unstored: dropped("queue_unstored"),
            dropped_invalid: dropped("queue_invalid"),
        }
    }
}
