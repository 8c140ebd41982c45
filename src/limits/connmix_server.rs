//! Limits of connmix clients (connmix specification sections 7 and 8.1).

use super::{HOUR, Limit, MIB, MINUTE, SECOND, Unit, fixed, row};

/// Bytes of one connection's context as JSON (section 4).
pub const CONTEXT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a channel or queue name.
pub const CHANNEL_BYTES_MAX: usize = 255;
/// Bytes that are kept of a client whose messages wait, before its socket is not read any more.
pub const HELD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the answer to an `http` action.
pub const HTTP_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// `http` actions of one shard that may be under way at the same time.
pub const HTTP_CALLS_MAX: usize = 256;
/// Bytes of URL and body that one `http` action may send.
pub const HTTP_REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// The rows.
pub(super) const ROWS: &[Limit] = &[
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
    fixed(
        Unit::Bytes,
        HTTP_ANSWER_BYTES_MAX as i64,
        "Answer to an `http` action.",
        "The action fails; its `on_error` is run.",
    ),
    fixed(
        Unit::Bytes,
        HTTP_REQUEST_BYTES_MAX as i64,
        "URL and body of an `http` action.",
        "The action fails; its `on_error` is run.",
    ),
    fixed(
        Unit::Count("calls"),
        HTTP_CALLS_MAX as i64,
        "`http` actions of one shard under way at the same time.",
        "Further ones wait; each connection has one at the most.",
    ),
];
