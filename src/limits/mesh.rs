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
/// Addresses that one node may announce.
pub const MESH_ADDRESSES_MAX: usize = 64;

/// The rows.
pub(super) const ROWS: &[Limit] = &[
    row(
        "mesh.queue_bytes_max",
        Unit::Bytes,
        [64 * MIB, 64 * KIB, 4096 * MIB],
        "What may wait for the link to NATS, and what of it may wait for the shards.",
        "A push to other nodes is dropped, counted as `mesh_full`; a request fails at once.",
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
        Unit::Count("addresses"),
        MESH_ADDRESSES_MAX as i64,
        "Addresses that one node may announce.",
        "Further ones are ignored.",
    ),
];
