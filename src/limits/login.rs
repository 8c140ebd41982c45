//! Limits of logins, whatever the protocol.

use super::{Limit, MINUTE, SECOND, Unit, fixed, row};

/// Tags of a user that a verifier tells.
pub const LOGIN_TAGS_MAX: usize = 64;
/// Characters of a verifier's message that a client is told.
pub const LOGIN_MESSAGE_CHARS_MAX: usize = 512;

/// The rows.
pub(super) const ROWS: &[Limit] = &[
    row(
        "login.under_way_max",
        Unit::Count("logins"),
        [256, 1, 65_536],
        "Logins of one shard that are being verified at the same time.",
        "Further ones wait for their turn.",
    ),
    row(
        "login.timeout",
        Unit::Milliseconds,
        [5 * SECOND, 10, MINUTE],
        "Time for a backend to verify a login.",
        "xxim clients get code 8 and may try again; IM clients get BUSY.",
    ),
    row(
        "login.json_timeout",
        Unit::Milliseconds,
        [3 * SECOND, 10, MINUTE],
        "Time for a backend to verify a login over HTTP with JSON (IM).",
        "The login is refused.",
    ),
    row(
        "login.jwt.leeway",
        Unit::Milliseconds,
        [30 * SECOND, 0, 10 * MINUTE],
        "How far the clocks of the gateway and of who signs tokens may differ.",
        "",
    ),
];

/// The rows of those that can not be configured.
pub(super) const FIXED: &[Limit] = &[
    fixed(
        Unit::Count("tags"),
        LOGIN_TAGS_MAX as i64,
        "Tags of a user that a verifier or token tells.",
        "The rest is left out.",
    ),
    fixed(
        Unit::Count("characters"),
        LOGIN_MESSAGE_CHARS_MAX as i64,
        "Message of a backend that refuses a login or request, as a client is told it.",
        "The rest is cut.",
    ),
];
