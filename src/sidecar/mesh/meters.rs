//! What the mesh counts.

use metrics::{Counter, Gauge, Unit};

use crate::metrics::{DROPPED, Kind, Registry, Row};

/// See [`ROWS`] for what each means.
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

const fn row(name: &'static str, help: &'static str, kind: Kind, unit: Unit) -> Row {
    Row { name, help, kind, unit }
}

/// Families of the mesh; there are none without one.
const ROWS: [Row; 12] = [
    row("ringway_mesh_nodes", "Other nodes of the mesh", Kind::Gauge, Unit::Count),
    row("ringway_mesh_connected", "1 while there is a link to NATS", Kind::Gauge, Unit::Count),
    row("ringway_mesh_buckets", "Buckets that this node listens to", Kind::Gauge, Unit::Count),
    row(
        "ringway_mesh_wanted_buckets",
        "Buckets that other nodes listen to",
        Kind::Gauge,
        Unit::Count,
    ),
    row("ringway_mesh_queued_bytes", "Bytes that wait for the link", Kind::Gauge, Unit::Bytes),
    row("ringway_mesh_sent_total", "Messages sent to other nodes", Kind::Counter, Unit::Count),
    row("ringway_mesh_sent_bytes_total", "Bytes of those messages", Kind::Counter, Unit::Bytes),
    row("ringway_mesh_received_total", "Messages of other nodes", Kind::Counter, Unit::Count),
    row("ringway_mesh_received_bytes_total", "Bytes of those", Kind::Counter, Unit::Bytes),
    row("ringway_mesh_requests_total", "Requests to other nodes", Kind::Counter, Unit::Count),
    row(
        "ringway_mesh_requests_failed_total",
        "Requests that not every node answered in time",
        Kind::Counter,
        Unit::Count,
    ),
    row(
        "ringway_mesh_reconnects_total",
        "Links to NATS after the first",
        Kind::Counter,
        Unit::Count,
    ),
];

impl Meters {
    /// Registers all of them.
    pub fn new(registry: &Registry) -> Meters {
        let [nodes, connected, buckets, wanted, queued, rest @ ..] = &ROWS;
        let [sent, sent_bytes, received, received_bytes, asked, unanswered, reconnects] = rest;
        let counter = |row| registry.counter(row, &[]);
        let dropped = |reason| registry.counter(&DROPPED, &[("reason", reason)]);
        Meters {
            nodes: registry.gauge(nodes, &[]),
            connected: registry.gauge(connected, &[]),
            buckets: registry.gauge(buckets, &[]),
            wanted: registry.gauge(wanted, &[]),
            queued: registry.gauge(queued, &[]),
            sent: counter(sent),
            sent_bytes: counter(sent_bytes),
            received: counter(received),
            received_bytes: counter(received_bytes),
            asked: counter(asked),
            unanswered: counter(unanswered),
            reconnects: counter(reconnects),
            dropped_full: dropped("mesh_full"),
            dropped_down: dropped("mesh_down"),
            dropped_large: dropped("mesh_too_large"),
            dropped_invalid: dropped("mesh_invalid"),
            dropped_repeated: dropped("mesh_repeated"),
        }
    }
}
