//! Limits of the mesh.

use std::time::Duration;

use super::{KIB, Limit, MIB, Unit, fixed, row};

/// Between two announcements of a node.
pub const MESH_HELLO_INTERVAL: Duration = Duration::from_secs(2);
/// A node that says nothing for so long is forgotten.
pub const MESH_FORGET_TIME: Duration = Duration::from_secs(10);
/// What another node has to answer.
pub const MESH_REQUEST_TIME: Duration = Duration::from_secs(2);
/// How long a starting node listens for another one with its number.
pub const MESH_JOIN_TIME: Duration = Duration::from_millis(500);
/// Requests to other nodes that may be under way at the same time.
pub const MESH_REQUESTS_MAX: usize = 65_536;
/// Topics and users of other nodes whose last number of members is remembered.
pub const MESH_COUNTS_MAX: usize = 65_536;
/// Calls of other nodes that wait for the sidecar.
pub const MESH_CALLS_WAITING_MAX: usize = 1024;
/// xxim logins that one look at a shard compares with those of other nodes, and slots that it
/// passes.
pub const MESH_LOGINS_MAX: usize = 250;
/// See [`MESH_LOGINS_MAX`].
pub const MESH_LOGIN_SLOTS_MAX: u32 = 32_768;
/// Between two such looks: 1,000 logins per second.
pub const MESH_LOGINS_INTERVAL: Duration = Duration::from_millis(250);
/// Bytes of names in one message of a question to other nodes, and of what was found in one piece
/// of an answer; about.
pub const MESH_QUERY_BYTES: usize = 256 << 10;
/// What other nodes have found for questions that are not answered yet, of all together: bytes, and
/// a charge for each thing.
pub const MESH_FOUND_BYTES_MAX: usize = 64 << 20;
/// Addresses that one node may announce.
pub const MESH_ADDRESSES_MAX: usize = 64;
/// What a push to a queue topic of the cluster has to be stored (`full = "error"`).
pub const QUEUE_PUSH_TIME: Duration = Duration::from_secs(15);
/// Time for JetStream to answer a push before it is sent once more.
pub const QUEUE_ANSWER_TIME: Duration = Duration::from_secs(2);
/// Pushes to JetStream under way at the same time.
pub const QUEUE_PUSHES_MAX: usize = 1024;
/// A message that its node says nothing of for so long goes to another one.
pub const QUEUE_ACK_TIME: Duration = Duration::from_secs(10);
/// Time within which JetStream knows a repeated push.
pub const QUEUE_REPEAT_TIME: Duration = Duration::from_secs(120);
/// A topic's consumer that no node has used for so long is removed from JetStream. Longer than a
/// backend may stall (`connmix.api.write_timeout`).
pub const QUEUE_CONSUMER_TIME: Duration = Duration::from_secs(2 * 3600);
/// Messages of one topic that are with nodes and not written.
pub const QUEUE_PENDING_MAX: u32 = 65_536;

/// The rows.
pub(super) const ROWS: &[Limit] = &[
    row(
        "mesh.queue_bytes_max",
        Unit::Bytes,
        [64 * MIB, 64 * KIB, 4096 * MIB],
        "What may wait for the link to NATS, and what of it may wait for the shards. For queue \
         topics of the cluster as much again: pushes that are not stored, messages not written.",
        "A push to other nodes is dropped, counted as `mesh_full`; a request fails at once. A push \
         to a queue is refused, counted as `queue_unstored`.",
    ),
    fixed(
        Unit::Milliseconds,
        MESH_HELLO_INTERVAL.as_millis() as i64,
        "Between two announcements of a node.",
        "",
    ),
    fixed(
        Unit::Milliseconds,
        MESH_FORGET_TIME.as_millis() as i64,
        "Time for which a node may be silent.",
        "The node is forgotten until it announces itself again.",
    ),
    fixed(
        Unit::Milliseconds,
        MESH_REQUEST_TIME.as_millis() as i64,
        "Time that another node has for an answer.",
        "The request counts as failed there, and the log names the node.",
    ),
    fixed(
        Unit::Milliseconds,
        MESH_JOIN_TIME.as_millis() as i64,
        "Time for which a starting node listens for another one with its number.",
        "",
    ),
    fixed(
        Unit::Count("requests"),
        MESH_REQUESTS_MAX as i64,
        "Requests to other nodes under way at the same time.",
        "A further request fails at once.",
    ),
    fixed(
        Unit::Count("names"),
        MESH_COUNTS_MAX as i64,
        "Topics and users of other nodes whose last number of members is remembered.",
        "All are forgotten; a node that does not answer then counts as one failure.",
    ),
    fixed(
        Unit::Count("requests"),
        MESH_CALLS_WAITING_MAX as i64,
        "Requests of xxim backends that came from other nodes and wait for the sidecar.",
        "A further one is not answered, and counted as `mesh_full`.",
    ),
    fixed(
        Unit::Count("logins"),
        MESH_LOGINS_MAX as i64,
        "xxim logins that are compared with those of other nodes at a time, after the link or a \
         node was lost.",
        "The others follow.",
    ),
    fixed(
        Unit::Count("connections"),
        MESH_LOGIN_SLOTS_MAX as i64,
        "Connections among which these logins are looked for.",
        "The others follow.",
    ),
    fixed(
        Unit::Milliseconds,
        MESH_LOGINS_INTERVAL.as_millis() as i64,
        "Between two such comparisons: 1,000 logins per second.",
        "",
    ),
    fixed(
        Unit::Bytes,
        MESH_QUERY_BYTES as i64,
        "Names in one message of a query to other nodes, and what was found in one of its answer.",
        "It becomes several messages.",
    ),
    fixed(
        Unit::Bytes,
        MESH_FOUND_BYTES_MAX as i64,
        "What other nodes have found for all queries that are not answered yet, with a charge for \
         each thing. A single query may find more if there is no other.",
        "The answer is without that of the node that finds more; a line of the log says so.",
    ),
    fixed(
        Unit::Count("addresses"),
        MESH_ADDRESSES_MAX as i64,
        "Addresses that one node may announce.",
        "Further ones are ignored.",
    ),
    fixed(
        Unit::Milliseconds,
        QUEUE_PUSH_TIME.as_millis() as i64,
        "Time for JetStream to store a push, with `connmix.queue.scope = \"cluster\"`.",
        "With `full = \"error\"` the push is refused, counted as `queue_unstored`.",
    ),
    fixed(
        Unit::Milliseconds,
        QUEUE_ANSWER_TIME.as_millis() as i64,
        "Time for JetStream to answer a push, and to store what waits when the process ends.",
        "The push is sent again under its number; at the end it is lost, counted as \
         `queue_unstored`.",
    ),
    fixed(
        Unit::Count("pushes"),
        QUEUE_PUSHES_MAX as i64,
        "Pushes of a node to JetStream under way at the same time; of one client and topic one.",
        "A further one waits, within `mesh.queue_bytes_max`.",
    ),
    fixed(
        Unit::Milliseconds,
        QUEUE_ACK_TIME.as_millis() as i64,
        "Time for which a node may say nothing of a message that it has from JetStream.",
        "Another node gets the message.",
    ),
    fixed(
        Unit::Milliseconds,
        QUEUE_REPEAT_TIME.as_millis() as i64,
        "Time within which JetStream knows a push that is repeated after the link was lost.",
        "The message is there twice.",
    ),
    fixed(
        Unit::Milliseconds,
        QUEUE_CONSUMER_TIME.as_millis() as i64,
        "Time for which no node need ask for messages of a topic.",
        "JetStream forgets who consumed it; its messages stay.",
    ),
    fixed(
        Unit::Count("messages"),
        QUEUE_PENDING_MAX as i64,
        "Messages of one topic that all nodes together have and have not written.",
        "No more are given until some are written.",
    ),
];
