//! Limits of connmix clients (connmix specification sections 7 and 8.1).

use super::{DAY, HOUR, KIB, Limit, MIB, MINUTE, SECOND, Unit, fixed, row};

/// Bytes of one connection's context as JSON (section 4).
pub const CONTEXT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a channel or queue name.
pub const CHANNEL_BYTES_MAX: usize = 255;
/// Bytes that are kept of a client whose messages wait, before its socket is not read any more.
pub const HELD_BYTES_MAX: usize = 64 * 1024;

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
