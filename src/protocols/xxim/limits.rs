//! Limits of xxim (xxim specification sections 1 to 6).

use crate::limits::{DAY, HOUR, KIB, Limit, MIB, MINUTE, SECOND, Unit, fixed, row};

/// Bytes of a text among the parameters of a connection, and of a user id.
pub const XXIM_PARAM_BYTES_MAX: usize = 1024;
/// Bytes of a token.
pub const XXIM_TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Plain bytes that one shard encrypts for pushes in one turn.
pub const XXIM_SEAL_BYTES_PER_TURN: usize = 256 * 1024;
/// Requests of one shard that the sidecar is handed before it has taken them up.
pub const XXIM_REQUESTS_SENT: usize = 4096;
/// Bytes that are kept of a client while its keys, its login or its request over HTTP are waited
/// for.
pub const XXIM_HELD_BYTES_MAX: usize = 4 * 1024;
/// Clients that one shard lets go on in one turn after they had to wait.
pub const XXIM_GIVEN_PER_TURN: usize = 256;
/// Tables [[xxim.upstream]].
pub const XXIM_UPSTREAMS_MAX: usize = 64;
/// Tables [[xxim.route]].
pub const XXIM_ROUTES_MAX: usize = 256;
/// Bytes of the head of a request to an upstream.
pub const UPSTREAM_HEAD_BYTES_MAX: usize = 32 * 1024;
/// Bytes of the head of an upstream's reply.
pub const UPSTREAM_REPLY_HEAD_BYTES_MAX: usize = 64 * 1024;

/// The rows of clients.
pub(crate) const CLIENTS: &[Limit] = &[
    row(
        "xxim.message_bytes_max",
        Unit::Bytes,
        [4 * MIB, KIB, 256 * MIB],
        "Size of one message of an xxim client.",
        "The client is closed with 1009.",
    ),
    row(
        "xxim.response_bytes_max",
        Unit::Bytes,
        [16 * MIB, KIB, 256 * MIB],
        "Size of one response to an xxim client.",
        "The client gets code 2 instead.",
    ),
    row(
        "xxim.requests_max",
        Unit::Count("requests"),
        [256, 1, 256],
        "Requests of one xxim connection that may be under way.",
        "The connection is not read until one is answered.",
    ),
    row(
        "xxim.shard_requests_max",
        Unit::Count("requests"),
        [16_384, 1, 1_000_000],
        "Requests of all xxim connections of one shard that may be under way.",
        "Connections with a further request are not read until there is room.",
    ),
    row(
        "xxim.ping_interval",
        Unit::Milliseconds,
        [30 * SECOND, 0, DAY],
        "Time between two pings to an xxim client; 0 switches them off.",
        "A client that missed two pongs is closed with 1001 `heartbeat timeout`.",
    ),
    row(
        "xxim.params_timeout",
        Unit::Milliseconds,
        [30 * SECOND, 0, DAY],
        "Time in which an xxim client must set its parameters; 0 switches it off.",
        "The client is closed with 1000 `shake hand timeout`.",
    ),
    row(
        "xxim.login_timeout",
        Unit::Milliseconds,
        [5 * MINUTE, 0, DAY],
        "Time in which an xxim client must log in; 0 switches it off.",
        "The client is closed with 1000 `shake hand timeout`.",
    ),
    row(
        "xxim.write_timeout",
        Unit::Milliseconds,
        [10 * SECOND, 100, DAY],
        "Time in which an xxim client must take what is written to it.",
        "The connection is ended.",
    ),
    row(
        "xxim.http_idle_timeout",
        Unit::Milliseconds,
        [MINUTE, 100, DAY],
        "Time that a client over HTTP (`xxim.http_api`) may be connected without a request.",
        "The connection is closed.",
    ),
    row(
        "xxim.tcp.message_bytes_max",
        Unit::Bytes,
        [10 * MIB, KIB, 256 * MIB],
        "Size of one message of an xxim client over TCP.",
        "The connection is ended.",
    ),
    row(
        "xxim.tcp.connections_max",
        Unit::Count("connections"),
        [12_000, 1, 16_000_000],
        "xxim connections over TCP of one shard.",
        "Further ones are ended at once.",
    ),
    row(
        "xxim.crypto.threads",
        Unit::Count("threads"),
        [2, 1, 64],
        "Threads of low priority that decrypt the keys of xxim clients.",
        "Further decryptions wait.",
    ),
    row(
        "xxim.crypto.under_way_max",
        Unit::Count("clients"),
        [64, 1, 100_000],
        "Clients of one shard whose keys are being decrypted.",
        "Further ones wait in the order in which they came.",
    ),
    row(
        "xxim.crypto.keyed_max",
        Unit::Count("requests"),
        [3, 1, 1000],
        "Set-params with keys on one xxim connection.",
        "Further ones are answered with code 8.",
    ),
    row(
        "xxim.crypto.ip_rate",
        Unit::Count("decryptions"),
        [100, 0, 1_000_000],
        "Decryptions of keys per second and shard for clients of one IPv4 address or IPv6 network \
         of 64 bits, ten seconds' worth at once; 0 switches it off.",
        "Its clients wait; those of other addresses go on.",
    ),
    row(
        "xxim.crypto.rate",
        Unit::Count("decryptions"),
        [0, 0, 1_000_000],
        "Decryptions of keys per second and shard for all clients; 0: as many as the threads can.",
        "Clients wait, those of each address in turn.",
    ),
    fixed(
        Unit::Bytes,
        XXIM_PARAM_BYTES_MAX as i64,
        "A text among the parameters of an xxim connection, and a user id.",
        "The request is answered with code 3.",
    ),
    fixed(
        Unit::Bytes,
        XXIM_TOKEN_BYTES_MAX as i64,
        "The token of an xxim login.",
        "The request is answered with code 3.",
    ),
    fixed(
        Unit::Bytes,
        XXIM_SEAL_BYTES_PER_TURN as i64,
        "Bytes of pushes that one shard encrypts in one turn.",
        "Further encrypted connections get theirs in the next turns.",
    ),
    fixed(
        Unit::Count("requests"),
        XXIM_REQUESTS_SENT as i64,
        "Requests of one shard that wait in the channel to the sidecar.",
        "Further ones wait on the shard.",
    ),
    fixed(
        Unit::Bytes,
        XXIM_HELD_BYTES_MAX as i64,
        "What is kept of an xxim client while its keys are decrypted, its login is verified or its \
         request over HTTP is carried.",
        "Nothing more is received from it meanwhile.",
    ),
    fixed(
        Unit::Count("connections"),
        XXIM_GIVEN_PER_TURN as i64,
        "xxim connections that are read again in one turn after they had to wait.",
        "Further ones are read in the next turns.",
    ),
];

/// The rows of upstreams, hooks and the push service.
pub(crate) const UPSTREAMS: &[Limit] = &[
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
];

/// Heads of requests to upstreams and of their replies.
pub(crate) const HEADS: &[Limit] = &[
    fixed(
        Unit::Bytes,
        UPSTREAM_HEAD_BYTES_MAX as i64,
        "Head of a request to an upstream of xxim.",
        "The request is answered with code 3.",
    ),
    fixed(
        Unit::Bytes,
        UPSTREAM_REPLY_HEAD_BYTES_MAX as i64,
        "Head of a reply of an upstream of xxim.",
        "The request is answered with code 2.",
    ),
];

/// Tables of a configuration.
pub(crate) const TABLES: &[Limit] = &[
    fixed(
        Unit::Count("upstreams"),
        XXIM_UPSTREAMS_MAX as i64,
        "Upstreams of xxim in a configuration.",
        "The configuration is refused.",
    ),
    fixed(
        Unit::Count("routes"),
        XXIM_ROUTES_MAX as i64,
        "Routes of xxim in a configuration.",
        "The configuration is refused.",
    ),
];
