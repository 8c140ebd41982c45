//! Limits of connmix (connmix specification sections 3 to 5, 7, 8).

use crate::limits::{
    CONTEXT_BYTES_MAX, DAY, HELD_BYTES_MAX, HOUR, KIB, Limit, MIB, MINUTE, SECOND, Unit, fixed, row,
};

/// Bytes of a channel or queue name.
pub const CHANNEL_BYTES_MAX: usize = 255;
/// Tables [[connmix.server]].
pub const CONNMIX_SERVERS_MAX: usize = 64;
/// Messages per queue topic that a shard may have under way to the topic's home, where a full
/// topic makes its pushers wait; beyond that each client may push one more.
pub const CONNMIX_UNACCEPTED_MAX: usize = 64;
/// Requests of one connmix API connection that may be under way at the same time.
pub const CONNMIX_REQUESTS_MAX: usize = 256;
/// Bytes of answers that may wait for one connmix API connection before it is not read any more.
pub const CONNMIX_ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Requests for `/metrics` that one shard may have under way.
pub const METRICS_REQUESTS_MAX: usize = 4;

/// The rows of the API and of queues.
pub(crate) const API: &[Limit] = &[
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

/// The rows of clients and their rules.
pub(crate) const CLIENTS: &[Limit] = &[
    row(
        "connmix.server.read_timeout",
        Unit::Milliseconds,
        [MINUTE, SECOND, 24 * HOUR],
        "A client from which nothing arrives for longer is closed. Its clock stands still while an \
         action waits.",
        "The connection is closed with 1000 `read timeout`.",
    ),
    row(
        "connmix.server.write_timeout",
        Unit::Milliseconds,
        [10 * SECOND, 100, HOUR],
        "Time in which a client must take something of what waits for it.",
        "The connection is dropped.",
    ),
    row(
        "connmix.server.max_message",
        Unit::Bytes,
        [65_535, 1, 16 * MIB],
        "Bytes of one message of a client.",
        "The connection is closed with 1009 `message too big`.",
    ),
    row(
        "connmix.rules.rules_max",
        Unit::Count("rules"),
        [1000, 1, 65_535],
        "Rules of one server. Each message is compared with them in turn until one fits.",
        "The configuration is refused.",
    ),
    row(
        "connmix.rules.actions_max",
        Unit::Count("actions"),
        [64, 1, 1024],
        "Actions in one list of a rule.",
        "The configuration is refused.",
    ),
    row(
        "connmix.rules.alternatives_max",
        Unit::Count("values"),
        [1000, 1, 65_536],
        "Values in one list of alternatives of a condition.",
        "The configuration is refused.",
    ),
    row(
        "connmix.rules.pattern_bytes_max",
        Unit::Bytes,
        [MIB, KIB, 256 * MIB],
        "What one regular expression of a condition takes when it is compiled.",
        "The configuration is refused.",
    ),
    row(
        "connmix.rules.wait_max",
        Unit::Milliseconds,
        [HOUR, SECOND, DAY],
        "Longest `timeout` of an action `wait`.",
        "The configuration is refused.",
    ),
    row(
        "connmix.rules.http_timeout_max",
        Unit::Milliseconds,
        [MINUTE, 10, HOUR],
        "Longest `timeout` of an action `http`, during which its client is not read.",
        "The configuration is refused.",
    ),
    row(
        "connmix.rules.http_calls_max",
        Unit::Count("calls"),
        [256, 1, 65_536],
        "`http` actions of one shard under way at the same time.",
        "Further ones wait; each connection has one at the most.",
    ),
    row(
        "connmix.rules.http_request_bytes_max",
        Unit::Bytes,
        [MIB, KIB, 64 * MIB],
        "URL and body of an `http` action.",
        "The action fails; its `on_error` is run.",
    ),
    row(
        "connmix.rules.http_answer_bytes_max",
        Unit::Bytes,
        [64 * KIB, KIB, 16 * MIB],
        "Answer to an `http` action whose values are wanted.",
        "The action fails; its `on_error` is run.",
    ),
    row(
        "connmix.rules.channels_max",
        Unit::Count("channels"),
        [1024, 1, 65_536],
        "Channels that rules and `conn.call` may subscribe one connection to.",
        "The action of a rule is skipped and counted, the call fails with 301.",
    ),
    fixed(
        Unit::Bytes,
        CONTEXT_BYTES_MAX as i64,
        "Context of one connection, as JSON.",
        "The action fails (301 for `conn.call`).",
    ),
    fixed(
        Unit::Bytes,
        CHANNEL_BYTES_MAX as i64,
        "Name of a channel or queue that a rule makes.",
        "The action fails.",
    ),
    fixed(
        Unit::Bytes,
        HELD_BYTES_MAX as i64,
        "Input kept of a connmix client whose messages wait for an action.",
        "The socket is not read until the action is over.",
    ),
];

/// Tables of a configuration.
pub(crate) const TABLES: &[Limit] = &[fixed(
    Unit::Count("servers"),
    CONNMIX_SERVERS_MAX as i64,
    "Tables `[[connmix.server]]` in a configuration.",
    "The configuration is refused.",
)];

/// What is under way.
pub(crate) const UNDER_WAY: &[Limit] = &[
    fixed(
        Unit::Count("messages"),
        CONNMIX_UNACCEPTED_MAX as i64,
        "Under way from one shard to a queue topic, with `connmix.queue.full = \"block\"`.",
        "Each client may push one more and is then not read until there is room.",
    ),
    fixed(
        Unit::Count("requests"),
        CONNMIX_REQUESTS_MAX as i64,
        "Requests of one connmix API connection that are under way.",
        "The connection is not read until one is answered.",
    ),
    fixed(
        Unit::Bytes,
        CONNMIX_ANSWER_BYTES_MAX as i64,
        "Answers that wait to be written to one connmix API connection, with the charge for each.",
        "The connection is not read until it has taken some.",
    ),
    fixed(
        Unit::Count("requests"),
        METRICS_REQUESTS_MAX as i64,
        "Requests for `/metrics` on the connmix API that one shard has under way.",
        "503.",
    ),
];
