//! Limits of no protocol that can not be configured: constants that the code uses, and a row for
//! each.

use std::time::Duration;

use super::{Limit, Unit, fixed};

/// Bytes of an HTTP request head, including the empty line.
pub const HTTP_HEAD_BYTES_MAX: usize = 16_384;
/// Header lines of an HTTP request head.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Bytes of a header of the PROXY protocol, with what version 2 may say beside the addresses.
pub const PROXY_HEADER_BYTES_MAX: usize = 4096;
/// Levels of arrays and objects in JSON that is read.
pub const JSON_DEPTH_MAX: usize = 64;
/// Bytes of the reason in a WebSocket close frame (RFC 6455 section 5.5: 125 with the code).
pub const CLOSE_REASON_BYTES_MAX: usize = 123;
/// Bytes that one send to a socket gathers.
pub const SEND_BYTES_MAX: usize = 64 * 1024;
/// Frames that one send to a socket gathers; the kernel takes 1024 pieces (`IOV_MAX`).
pub const SEND_FRAMES_MAX: usize = 1024;
/// Frames of one send that have at most so many bytes together are copied into one buffer.
pub const COALESCE_BYTES_MAX: usize = 16 * 1024;
/// Plain bytes that are encrypted at a time; a TLS record holds 16 KiB.
pub const TLS_CHUNK_BYTES: usize = 16 * 1024;
/// Bytes of one WebSocket message where the protocol has no limit of its own, after inflating.
pub const WEBSOCKET_MESSAGE_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// What a frame that waits in an outbox is charged beside its bytes: about what one costs that no
/// other connection shares (the counts and the handle of its bytes 48, the smallest allocation of
/// an allocator 16, its places in a vector that doubles 16, and some to spare).
pub const FRAME_CHARGE_BYTES: usize = 96;
/// Bytes of the context of one connection as JSON. Its row is in the limits of connmix.
pub const CONTEXT_BYTES_MAX: usize = 64 * 1024;
/// Bytes that are kept of a client whose messages wait, before its socket is not read any more,
/// unless its protocol says otherwise. Its row is in the limits of connmix.
pub const HELD_BYTES_MAX: usize = 64 * 1024;
/// What may wait for one connection, in bytes charged, before only its newest pong waits as well.
pub const PONG_CHARGE_MAX: u32 = 64 * 1024;
/// Bytes of the answer to an HTTP callback.
pub const CALLBACK_ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Connections that may wait to be accepted, per listener and shard; the kernel caps it at
/// `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;
/// How long a start waits for ports and locked memory of a gateway that was killed, and for memory.
pub const RESTART_PATIENCE: Duration = Duration::from_secs(2);
/// A thread without a turn for so long has a line in the log.
pub const STILL_LOG_TIME: Duration = Duration::from_secs(2);
/// A thread without a turn for so long stands still.
pub const STILL_TIME: Duration = Duration::from_secs(5);
/// Operations that are handed to the kernel in one go.
pub const RING_SUBMISSION_ENTRIES: u32 = 1024;
/// Completions that may wait, at the least; an overflow ends multishot operations, so they are many
/// more than what usually completes in a turn.
pub const RING_COMPLETION_ENTRIES: u32 = 8192;
/// Completions that may wait for each receive buffer, if that is more.
pub const RING_COMPLETIONS_PER_BUFFER: u32 = 4;
/// Shards of a process.
pub const SHARDS_MAX: usize = 256;
/// Connections of a shard.
pub const SLOTS_MAX: u32 = 1 << 24;
/// Listeners of a process.
pub const LISTENERS_MAX: usize = 64;
/// Descriptors kept free of connections: log, rings, listeners, callbacks, admin. Those of the push
/// service come besides, and those of the admin server beyond its default.
pub const DESCRIPTORS_RESERVED: u64 = 256;
/// Further descriptors kept free per shard.
pub const DESCRIPTORS_RESERVED_PER_SHARD: u64 = 64;

/// What is read of peers, and one send to a socket.
pub(super) const PEERS: &[Limit] = &[
    fixed(
        Unit::Bytes,
        HTTP_HEAD_BYTES_MAX as i64,
        "HTTP request head, including the empty line.",
        "The request is answered with 431 and the connection closed.",
    ),
    fixed(
        Unit::Count("lines"),
        HTTP_HEADERS_MAX as i64,
        "Headers of an HTTP request.",
        "The request is answered with 431 and the connection closed.",
    ),
    fixed(
        Unit::Bytes,
        PROXY_HEADER_BYTES_MAX as i64,
        "Header of the PROXY protocol; of version 1: 107 bytes.",
        "The connection is closed.",
    ),
    fixed(
        Unit::Count("levels"),
        JSON_DEPTH_MAX as i64,
        "Nesting of JSON that clients and backends send.",
        "It is not JSON: a request is refused, to rules the message is none.",
    ),
    fixed(
        Unit::Bytes,
        CLOSE_REASON_BYTES_MAX as i64,
        "Reason text of a WebSocket close frame.",
        "The text is cut.",
    ),
    fixed(
        Unit::Bytes,
        SEND_BYTES_MAX as i64,
        "What one send to a socket gathers.",
        "The rest goes out with the next send. A larger frame goes out alone.",
    ),
    fixed(
        Unit::Count("frames"),
        SEND_FRAMES_MAX as i64,
        "What one send to a socket gathers.",
        "The rest goes out with the next send.",
    ),
    fixed(
        Unit::Bytes,
        COALESCE_BYTES_MAX as i64,
        "Frames of one send that are copied into one buffer.",
        "Larger sends gather the frames where they are.",
    ),
];

/// TLS, WebSocket, what waits for one connection, and answers of callbacks.
pub(super) const WAITING: &[Limit] = &[
    fixed(
        Unit::Bytes,
        TLS_CHUNK_BYTES as i64,
        "Plain bytes that are encrypted at a time.",
        "A longer send becomes several TLS records.",
    ),
    fixed(
        Unit::Bytes,
        WEBSOCKET_MESSAGE_BYTES_MAX as i64,
        "One WebSocket message where the protocol has no limit of its own (echo), after inflating.",
        "The client is closed with 1009 `message too big`.",
    ),
    fixed(
        Unit::Bytes,
        FRAME_CHARGE_BYTES as i64,
        "What each frame that waits for a connection is charged beside its bytes.",
        "",
    ),
    fixed(
        Unit::Bytes,
        PONG_CHARGE_MAX as i64,
        "What may wait for one connection before a further pong takes the place of an older one.",
        "Only the newest ping is answered then, as while the client does not read.",
    ),
    fixed(
        Unit::Bytes,
        CALLBACK_ANSWER_BYTES_MAX as i64,
        "Answer of an HTTP callback.",
        "The callback counts as failed.",
    ),
];

/// The process, its threads and rings.
pub(super) const PROCESS: &[Limit] = &[
    fixed(
        Unit::Milliseconds,
        STILL_LOG_TIME.as_millis() as i64,
        "Time that a thread may be without a turn; an idle one has one in a second.",
        "The log names the thread and what it is at.",
    ),
    fixed(
        Unit::Milliseconds,
        STILL_TIME.as_millis() as i64,
        "The same, until it counts as standing still.",
        "`/readyz` answers 503; other nodes do not wait for this one.",
    ),
    fixed(
        Unit::Count("connections"),
        BACKLOG as i64,
        "Connections that wait to be accepted, per listener and shard, if `net.core.somaxconn` is \
         not lower.",
        "The kernel drops further ones; clients try again.",
    ),
    fixed(
        Unit::Milliseconds,
        RESTART_PATIENCE.as_millis() as i64,
        "How long a start waits for ports and locked memory that are still in use, as those of a \
         killed gateway are for a moment, and for memory for its rings.",
        "The start fails and says what is in use or missing.",
    ),
    fixed(
        Unit::Count("operations"),
        RING_SUBMISSION_ENTRIES as i64,
        "What a shard gives to its ring before it calls the kernel.",
        "The kernel is called more often in a turn.",
    ),
    fixed(
        Unit::Count("completions"),
        RING_COMPLETION_ENTRIES as i64,
        "What a shard's ring can report at a time, at the least.",
        "The kernel keeps the rest until the ring was read.",
    ),
    fixed(
        Unit::Count("completions"),
        RING_COMPLETIONS_PER_BUFFER as i64,
        "The same for each of `runtime.receive_buffers`, if that is more, up to 65536 in all.",
        "The kernel keeps the rest until the ring was read.",
    ),
    fixed(
        Unit::Count("descriptors"),
        DESCRIPTORS_RESERVED as i64,
        "Kept free of connections.",
        "As `runtime.connections_max`.",
    ),
    fixed(
        Unit::Count("descriptors"),
        DESCRIPTORS_RESERVED_PER_SHARD as i64,
        "Kept free of connections, for each shard.",
        "As `runtime.connections_max`.",
    ),
    fixed(
        Unit::Count("shards"),
        SHARDS_MAX as i64,
        "CPUs that a process uses.",
        "Further CPUs are left unused; a longer `runtime.cpus` is refused.",
    ),
    fixed(
        Unit::Count("connections"),
        SLOTS_MAX as i64,
        "Connections of one shard.",
        "As `runtime.connections_max`.",
    ),
    fixed(
        Unit::Count("listeners"),
        LISTENERS_MAX as i64,
        "Listeners of a process.",
        "The configuration is refused.",
    ),
];
