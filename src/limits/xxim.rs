//! Limits of xxim (xxim specification sections 1 to 4).

use super::{DAY, KIB, Limit, MIB, MINUTE, SECOND, Unit, fixed, row};

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

/// The rows.
pub(super) const ROWS: &[Limit] = &[
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
