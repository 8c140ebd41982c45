//! Limits of connmix (connmix specification sections 3 to 5, 8).

use super::{HOUR, KIB, Limit, MIB, SECOND, Unit, row};

/// The rows.
pub(super) const ROWS: &[Limit] = &[
    row(
        "connmix.api.message_bytes_max",
        Unit::Bytes,
        [MIB, KIB, 16 * MIB],
        "Bytes of one HTTP body or WebSocket message of a backend.",
        "HTTP: 413; WebSocket: closed with 1009.",
    ),
    row(
        "connmix.api.read_timeout",
        Unit::Milliseconds,
        [60 * SECOND, 100, HOUR],
        "Time without anything from a backend; after half of it a ping is sent.",
        "The connection is closed with 1000 `read timeout`.",
    ),
    row(
        "connmix.api.write_timeout",
        Unit::Milliseconds,
        [60 * SECOND, 100, HOUR],
        "Time for which a backend may take nothing of what is sent to it.",
        "The connection is dropped; events that were not written go to other consumers.",
    ),
    row(
        "connmix.api.events_max",
        Unit::Count("events"),
        [256, 1, 65_536],
        "Events that may wait to be written to one consumer of queues.",
        "It is given nothing more until half of them are written; others are.",
    ),
    row(
        "connmix.api.event_bytes_max",
        Unit::Bytes,
        [MIB, KIB, 64 * MIB],
        "Bytes of events that may wait to be written to one consumer; also the size of one event.",
        "As with `events_max`. A larger event is refused.",
    ),
    row(
        "connmix.api.faults_max",
        Unit::Count("requests"),
        [100, 1, 1_000_000],
        "Malformed requests in a row on one WebSocket.",
        "The connection is closed with 1008 `too many errors`.",
    ),
    row(
        "connmix.queue.topic_messages_max",
        Unit::Count("messages"),
        [2000, 1, 10_000_000],
        "Messages that may wait in one topic.",
        "`connmix.queue.full` decides.",
    ),
    row(
        "connmix.queue.topic_bytes_max",
        Unit::Bytes,
        [64 * MIB, KIB, 1024 * MIB],
        "Bytes of the messages that wait in one topic.",
        "`connmix.queue.full` decides.",
    ),
    row(
        "connmix.queue.topics_max",
        Unit::Count("topics"),
        [100, 1, 65_536],
        "Queue topics that have messages or consumers.",
        "A push or `queue.pop` that needs one more fails.",
    ),
    row(
        "connmix.queue.cluster_bytes_max",
        Unit::Bytes,
        [1024 * MIB, MIB, 1024 * 1024 * MIB],
        "Bytes of all topics of a cluster together (`scope = \"cluster\"`).",
        "The topic of a push counts as full.",
    ),
    row(
        "connmix.queue.replicas",
        Unit::Count("servers"),
        [1, 1, 5],
        "NATS servers that keep each message of a cluster; read when its stream is made.",
        "",
    ),
];
