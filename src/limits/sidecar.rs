//! Limits of the sidecar.

use super::{HOUR, Limit, SECOND, Unit, row};

/// The rows.
pub(super) const ROWS: &[Limit] = &[
    row(
        "sidecar.threads",
        Unit::Count("threads"),
        [1, 1, 64],
        "Threads for calls of upstreams, hooks and pushes. One carries tens of thousands of calls \
         a second.",
        "",
    ),
    row(
        "sidecar.redirects_max",
        Unit::Count("redirects"),
        [10, 0, 100],
        "Redirects that a callback of netsvr, a hook of xxim or a verifier over HTTP may take. \
         Upstreams and rules follow none.",
        "The call has failed.",
    ),
    row(
        "sidecar.idle_timeout",
        Unit::Milliseconds,
        [4 * SECOND, 0, HOUR],
        "For how long a connection to a backend is kept for the next call. Shorter than the \
         backend keeps it (many: 5 s), or calls meet its close and fail.",
        "The next call opens another one.",
    ),
];
