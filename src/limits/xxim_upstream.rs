//! Limits of the sidecar's side of xxim (xxim specification sections 4 to 6) and of logins.

use super::{HOUR, Limit, MIB, MINUTE, SECOND, Unit, row};

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
    row(
        "xxim.upstream.connections_max",
        Unit::Count("connections"),
        [256, 1, 65_536],
        "Connections to one upstream, HTTP/1.1 carrying one request each at a time.",
        "Further requests wait for a connection within their timeout.",
    ),
    row(
        "xxim.upstream.connect_timeout",
        Unit::Milliseconds,
        [2 * SECOND, 10, MINUTE],
        "Time to open a connection to an upstream.",
        "The request gets code 8.",
    ),
    row(
        "xxim.upstream.reply_bytes_max",
        Unit::Bytes,
        [16 * MIB, 1024, 256 * MIB],
        "Body of a reply of an upstream.",
        "The request gets code 2, and the connection is closed.",
    ),
    row(
        "xxim.upstream.circuit_failures",
        Unit::Count("failures"),
        [16, 1, 65_536],
        "Failures in a row (no connection, no answer in time, 502 to 504) of one upstream.",
        "The circuit opens: requests get code 8 at once.",
    ),
    row(
        "xxim.upstream.circuit_pause",
        Unit::Milliseconds,
        [SECOND, 10, 10 * MINUTE],
        "Time after which an open circuit lets one request through; its result decides.",
        "",
    ),
    row(
        "xxim.route.request_tag",
        Unit::Number,
        [-1, -1, 536_870_911],
        "Field number of commonReq in requests; -1: as xxim defines it for the method (1 if \
         nothing is known), 0: requests have none.",
        "",
    ),
    row(
        "xxim.route.response_tag",
        Unit::Number,
        [-1, -1, 536_870_911],
        "Field number of commonResp in responses; -1: as xxim defines it for the method (1 if \
         nothing is known), 0: responses have none.",
        "",
    ),
    row(
        "xxim.route.timeout",
        Unit::Milliseconds,
        [10 * SECOND, 10, 10 * MINUTE],
        "Time for one request, waiting for a connection included.",
        "The request gets code 8.",
    ),
    row(
        "xxim.hooks.timeout",
        Unit::Milliseconds,
        [5 * SECOND, 10, 10 * MINUTE],
        "Time for one attempt of a hook.",
        "The attempt has failed.",
    ),
    row(
        "xxim.hooks.attempts_max",
        Unit::Count("attempts"),
        [5, 1, 100],
        "Attempts per hook, with pauses that double and vary.",
        "The hook is given up and counted.",
    ),
    row(
        "xxim.hooks.waiting_max",
        Unit::Count("hooks"),
        [65_536, 1, 16 * MIB],
        "Hooks that wait for their turn or their next attempt.",
        "A further hook is dropped and counted.",
    ),
    row(
        "xxim.hooks.under_way_max",
        Unit::Count("requests"),
        [64, 1, 65_536],
        "Requests of `[xxim.hooks]` that are under way.",
        "Further ones wait (`waiting_max`).",
    ),
    row(
        "xxim.hooks.before_request_cache",
        Unit::Milliseconds,
        [10 * SECOND, 0, 60 * MINUTE],
        "For how long a permission of `before_request` counts for further requests with the same \
         token on the same connection; 0: for none.",
        "The backend is asked again; further requests wait in order.",
    ),
    row(
        "xxim.push.request_bytes_max",
        Unit::Bytes,
        [16 * MIB, 1024, 256 * MIB],
        "One request to the push service.",
        "The request is refused.",
    ),
    row(
        "xxim.push.connections_max",
        Unit::Count("connections"),
        [1024, 1, 65_536],
        "Connections of the push service; at most an eighth of the descriptors. Kept free for it.",
        "The peer that has been waited for the longest is closed.",
    ),
    row(
        "xxim.push.requests_max",
        Unit::Count("requests"),
        [1024, 1, 65_536],
        "Requests of one HTTP/2 connection that are under way.",
        "The backend keeps further ones.",
    ),
    row(
        "xxim.push.head_timeout",
        Unit::Milliseconds,
        [10 * SECOND, 100, HOUR],
        "From accept to the end of the first head of a connection, its TLS handshake included; and \
         for each further head of HTTP/1.1.",
        "The connection is closed.",
    ),
    row(
        "xxim.push.body_timeout",
        Unit::Milliseconds,
        [10 * SECOND, 100, HOUR],
        "Time for the body of a request.",
        "The request fails with 400, or `INTERNAL` of gRPC.",
    ),
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
