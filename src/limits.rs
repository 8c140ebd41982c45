//! The table of all limits: queues, buffers, batches, names, timeouts.
//!
//! One row per limit, and nothing else says what a limit is: the configuration parser takes default
//! and bounds from here, the reference in the README is generated from it, and tests walk it. Rows
//! whose key is [`FIXED`] can not be configured; their value is a constant that the code uses.
//!
//! Invariants: `min <= default <= max`; every key occurs once. Costs: none at run time, the table
//! is read while the configuration is.

use std::time::Duration;

/// One limit.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Configuration key, or [`FIXED`].
    pub key: &'static str,
    pub unit: Unit,
    pub default: i64,
    pub min: i64,
    pub max: i64,
    /// What the limit is about, in one line.
    pub what: &'static str,
    /// What happens when it is reached; empty if nothing can reach it.
    pub when_hit: &'static str,
    /// Whether SIGHUP applies a change. Today only certificates are read again.
    pub reload: bool,
}

/// What the numbers of a row count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    /// Written as a duration in the configuration: `"100ms"`, `"5s"`, `"2m"`, `"1h"`.
    Milliseconds,
    /// Things of this name, e.g. `frames`.
    Count(&'static str),
    /// A plain number.
    Number,
}

impl Unit {
    /// The value as it is written in a configuration file.
    pub fn show(self, value: i64) -> String {
        match self {
            Unit::Milliseconds => format!("\"{}\"", duration(value)),
            _ => value.to_string(),
        }
    }

    /// The name of the unit; empty where the number speaks for itself.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Bytes => "bytes",
            Unit::Count(name) => name,
            Unit::Milliseconds | Unit::Number => "",
        }
    }
}

/// The key of limits that can not be configured.
pub const FIXED: &str = "-";

/// Bytes of an HTTP request head, including the empty line.
pub const HTTP_HEAD_BYTES_MAX: usize = 16_384;
/// Header lines of an HTTP request head.
pub const HTTP_HEADERS_MAX: usize = 64;
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
/// Bytes of one message to the echo protocol, after inflating.
pub const ECHO_MESSAGE_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// Bytes that may wait for an echo client before it is not read any more.
pub const ECHO_OUTBOX_BYTES_MAX: u32 = 1024 * 1024;
/// Queries of one backend connection that may be under way at the same time.
pub const BUSINESS_QUERIES_MAX: usize = 64;
/// Bytes of answers that may wait for one backend connection before it is not read any more.
pub const BUSINESS_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Delayed kicks (`ForceOfflineGuest` with a delay) that may wait on one shard.
pub const GUEST_KICKS_WAITING_MAX: usize = 65_536;
/// Bytes of the answer to an HTTP callback.
pub const CALLBACK_ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// What one connection to the admin server may take, from accept to the last byte.
pub const ADMIN_REQUEST_TIME: Duration = Duration::from_secs(10);
/// Operations that are handed to the kernel in one go.
pub const RING_SUBMISSION_ENTRIES: u32 = 4096;
/// Completions that may wait; an overflow ends multishot operations, so it is much larger.
pub const RING_COMPLETION_ENTRIES: u32 = 65_536;
/// Closes of one shard that may wait for their HTTP callback.
pub const CLOSE_CALLBACKS_WAITING_MAX: usize = 65_536;
/// Ids (connections, users, topics) in one command of a backend.
pub const IDS_PER_COMMAND_MAX: usize = 1_000_000;
/// Shards of a process.
pub const SHARDS_MAX: usize = 256;
/// Connections of a shard.
pub const SLOTS_MAX: u32 = 1 << 24;
/// Listeners of a process.
pub const LISTENERS_MAX: usize = 64;
/// Descriptors kept free of connections: log, rings, listeners, callbacks, admin.
pub const DESCRIPTORS_RESERVED: u64 = 256;
/// Further descriptors kept free per shard.
pub const DESCRIPTORS_RESERVED_PER_SHARD: u64 = 64;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const KIB: i64 = 1024;
const MIB: i64 = 1024 * KIB;
const U32_MAX: i64 = u32::MAX as i64;

/// Every limit of the process.
pub const LIMITS: &[Limit] = &[
    row(
        "node",
        Unit::Number,
        [1, 1, 1023],
        "Number of this machine in the mesh; part of connmix client ids.",
        "",
    ),
    row(
        "runtime.connections_max",
        Unit::Count("connections"),
        [1_000_000, 1, 16_000_000],
        "Client and backend connections of the process, over all shards. The default is lower \
         where RLIMIT_NOFILE, less 256 descriptors and 64 per shard, does not permit so many.",
        "A further connection is closed as soon as it is accepted, and counted.",
    ),
    row(
        "runtime.outbox_bytes_max",
        Unit::Bytes,
        [MIB, 4 * KIB, 1024 * MIB],
        "Bytes that may wait for one client. A single frame may be larger if nothing else waits.",
        "`runtime.slow_client` decides: close with 1008 `slow consumer`, or drop the frame.",
    ),
    row(
        "runtime.mailbox_messages_max",
        Unit::Count("messages"),
        [65_536, 16, 16 * MIB],
        "Messages of other threads that may wait for one shard.",
        "The sender keeps its overflow and stops reading its own sockets until there is room.",
    ),
    row(
        "runtime.receive_buffers",
        Unit::Count("buffers"),
        [2048, 16, 32_768],
        "Receive buffers of one shard, shared by its connections; a power of two.",
        "Sockets wait in the kernel until a buffer is free again. Nothing is lost.",
    ),
    row(
        "runtime.receive_buffer_bytes",
        Unit::Bytes,
        [4 * KIB, 512, MIB],
        "Size of one receive buffer.",
        "A larger message arrives in several pieces.",
    ),
    row(
        "runtime.handshake_timeout",
        Unit::Milliseconds,
        [10 * SECOND, 100, 10 * MINUTE],
        "Time in which a new connection must finish its TLS and HTTP handshakes.",
        "The connection is closed.",
    ),
    row(
        "runtime.close_timeout",
        Unit::Milliseconds,
        [2 * SECOND, 10, MINUTE],
        "Time between the close frame of the gateway and the end of the TCP connection.",
        "The connection is closed although the peer has not answered.",
    ),
    row(
        "runtime.shutdown_timeout",
        Unit::Milliseconds,
        [10 * SECOND, 100, HOUR],
        "Time that SIGTERM allows for closing clients and delivering their last events.",
        "The process exits with code 1; what was not delivered is lost.",
    ),
    row(
        "netsvr.generation",
        Unit::Number,
        [6, 5, 6],
        "Generation of the netsvr SDKs that connect: layout of `ConnOpen`, address in uniqIds.",
        "",
    ),
    row(
        "netsvr.metrics_items",
        Unit::Number,
        [1, 1, 13],
        "Items that the `Metrics` command reports.",
        "",
    ),
    row(
        "netsvr.customer.heartbeat_interval",
        Unit::Milliseconds,
        [2 * MINUTE, 100, DAY],
        "Time in which a client must send something.",
        "The client is closed with 1001 `heartbeat timeout`.",
    ),
    row(
        "netsvr.customer.heartbeat_message",
        Unit::Bytes,
        [14, 1, KIB],
        "Message of a client that only says that it is alive; not answered, not forwarded.",
        "",
    ),
    row(
        "netsvr.customer.max_online",
        Unit::Count("connections"),
        [100_000, 1, 16_000_000],
        "Accepted netsvr WebSocket connections of the process.",
        "A further client is closed with 1013 `open rate limited, try again later`.",
    ),
    row(
        "netsvr.customer.receive_pack_limit",
        Unit::Bytes,
        [2 * MIB, KIB, 256 * MIB],
        "Size of one client message, after inflating.",
        "The client is closed with 1009 `message too big`.",
    ),
    row(
        "netsvr.customer.compression_level",
        Unit::Number,
        [0, -2, 9],
        "Deflate level of permessage-deflate; 0 switches it off.",
        "",
    ),
    row(
        "netsvr.customer.callback_api_deadline",
        Unit::Milliseconds,
        [3 * SECOND, 10, 10 * MINUTE],
        "Time for one HTTP callback.",
        "An open is refused with 1011; a close is reported to the workers without it.",
    ),
    row(
        "netsvr.customer.callbacks_max",
        Unit::Count("callbacks"),
        [256, 1, 65_536],
        "HTTP callbacks of one shard that may be under way at the same time.",
        "Further ones wait for their turn.",
    ),
    row(
        "netsvr.customer.limit_window_size",
        Unit::Milliseconds,
        [SECOND, 1, DAY],
        "Window of the limiter of one client, exact to the millisecond.",
        "",
    ),
    row(
        "netsvr.customer.limit_window_max_requests",
        Unit::Count("messages"),
        [100, 1, U32_MAX],
        "Messages of one client per window.",
        "The message is dropped and counted (metric item 13).",
    ),
    row(
        "netsvr.customer.limit_zero_window_max_requests",
        Unit::Count("messages"),
        [1000, 0, U32_MAX],
        "First messages of a client, to which the window does not apply.",
        "The window applies from the next message on.",
    ),
    row(
        "netsvr.worker.read_deadline",
        Unit::Milliseconds,
        [2 * MINUTE, 100, DAY],
        "Time in which a worker connection must send a complete frame.",
        "The connection is closed.",
    ),
    row(
        "netsvr.worker.send_deadline",
        Unit::Milliseconds,
        [10 * SECOND, 100, HOUR],
        "Time in which a worker connection must take one send: 64 KiB, or one larger frame.",
        "The connection is closed; events it had not been sent go to the next worker.",
    ),
    row(
        "netsvr.worker.receive_pack_limit",
        Unit::Bytes,
        [2 * MIB, KIB, 256 * MIB],
        "Announced length of one frame from a worker.",
        "The connection is closed before the frame is read.",
    ),
    row(
        "netsvr.worker.heartbeat_message",
        Unit::Bytes,
        [14, 1, KIB],
        "Payload of the frame with which a worker says that it is alive; not answered.",
        "",
    ),
    row(
        "netsvr.worker.queue_frames_max",
        Unit::Count("frames"),
        [65_536, 1, 16 * MIB],
        "Events that may wait for one worker, over all shards.",
        "The next worker gets the event; if all are full `netsvr.worker.on_full` decides.",
    ),
    row(
        "netsvr.worker.queue_bytes_max",
        Unit::Bytes,
        [64 * MIB, 64 * KIB, 2048 * MIB],
        "Bytes of events that may wait for one worker, over all shards.",
        "As `netsvr.worker.queue_frames_max`.",
    ),
    row(
        "netsvr.worker.register_delay",
        Unit::Milliseconds,
        [30, 0, SECOND],
        "Time between the answer to `Register` and the first event.",
        "Events wait for so long.",
    ),
    row(
        "netsvr.task.read_deadline",
        Unit::Milliseconds,
        [2 * MINUTE, 100, DAY],
        "Time in which a task connection must send a complete frame.",
        "The connection is closed.",
    ),
    row(
        "netsvr.task.send_deadline",
        Unit::Milliseconds,
        [10 * SECOND, 100, HOUR],
        "Time in which a task connection must take an answer.",
        "The connection is closed.",
    ),
    row(
        "netsvr.task.receive_pack_limit",
        Unit::Bytes,
        [2 * MIB, KIB, 256 * MIB],
        "Announced length of one frame on a task connection.",
        "The connection is closed before the frame is read.",
    ),
    row(
        "netsvr.task.heartbeat_message",
        Unit::Bytes,
        [14, 1, KIB],
        "Payload of the frame with which a task connection says that it is alive; not answered.",
        "",
    ),
    row(
        "netsvr.limit.on_open",
        Unit::Count("opens per second"),
        [0, 0, U32_MAX],
        "Opens of the whole process, as rate and as burst; 0 is no limit.",
        "The client is closed with 1013 `open rate limited, try again later`.",
    ),
    row(
        "netsvr.limit.on_message",
        Unit::Count("messages per second"),
        [0, 0, U32_MAX],
        "Client messages of the whole process, as rate and as burst; 0 is no limit.",
        "The message is dropped and counted (metric item 9).",
    ),
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
    fixed(
        Unit::Count("queries"),
        BUSINESS_QUERIES_MAX as i64,
        "Queries of one backend connection that are under way.",
        "The connection is not read until one is answered.",
    ),
    fixed(
        Unit::Bytes,
        BUSINESS_ANSWER_BYTES_MAX as i64,
        "Answers that wait for one backend connection.",
        "The connection is not read until it has taken some.",
    ),
    fixed(
        Unit::Count("closes"),
        CLOSE_CALLBACKS_WAITING_MAX as i64,
        "Closes of one shard that wait for `netsvr.customer.on_close_callback_api`.",
        "The workers get the event at once, without a callback. Counted.",
    ),
    fixed(
        Unit::Bytes,
        TLS_CHUNK_BYTES as i64,
        "Plain bytes that are encrypted at a time.",
        "A longer send becomes several TLS records.",
    ),
    fixed(
        Unit::Bytes,
        ECHO_MESSAGE_BYTES_MAX as i64,
        "One message to the echo protocol, after inflating.",
        "The client is closed with 1009 `message too big`.",
    ),
    fixed(
        Unit::Bytes,
        ECHO_OUTBOX_BYTES_MAX as i64,
        "What may wait for an echo client.",
        "The client is not read until it has taken some.",
    ),
    fixed(
        Unit::Count("ids"),
        IDS_PER_COMMAND_MAX as i64,
        "Connections, users and topics that one command of a backend names. \
         `receive_pack_limit` usually ends first.",
        "The frame counts as one that does not decode.",
    ),
    fixed(
        Unit::Bytes,
        CALLBACK_ANSWER_BYTES_MAX as i64,
        "Answer of an HTTP callback.",
        "The callback counts as failed.",
    ),
    fixed(
        Unit::Count("commands"),
        GUEST_KICKS_WAITING_MAX as i64,
        "`ForceOfflineGuest` commands with a delay that wait on one shard.",
        "The command is dropped, logged and counted.",
    ),
    fixed(
        Unit::Milliseconds,
        ADMIN_REQUEST_TIME.as_millis() as i64,
        "Time for one request to the admin server.",
        "The connection is closed.",
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
        "What a shard's ring can report at a time.",
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

/// The row of a configuration key.
pub fn find(key: &str) -> Option<&'static Limit> {
    LIMITS.iter().find(|limit| limit.key == key && key != FIXED)
}

/// A number of milliseconds as the configuration writes it, in the largest unit that divides it.
pub fn duration(milliseconds: i64) -> String {
    match milliseconds {
        0 => "0s".to_owned(),
        ms if ms % HOUR == 0 => format!("{}h", ms / HOUR),
        ms if ms % MINUTE == 0 => format!("{}m", ms / MINUTE),
        ms if ms % SECOND == 0 => format!("{}s", ms / SECOND),
        ms => format!("{ms}ms"),
    }
}

/// A configurable limit; the numbers are default, minimum and maximum.
const fn row(
    key: &'static str,
    unit: Unit,
    [default, min, max]: [i64; 3],
    what: &'static str,
    when_hit: &'static str,
) -> Limit {
    assert!(min <= default && default <= max);
    Limit { key, unit, default, min, max, what, when_hit, reload: false }
}

const fn fixed(unit: Unit, value: i64, what: &'static str, when_hit: &'static str) -> Limit {
    row(FIXED, unit, [value; 3], what, when_hit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_one_row() {
        for (index, limit) in LIMITS.iter().enumerate() {
            let twin = LIMITS[..index].iter().find(|l| l.key == limit.key && l.key != FIXED);
            assert!(twin.is_none(), "{} has two rows", limit.key);
            assert!(limit.what.ends_with('.'), "{}: {}", limit.key, limit.what);
        }
        assert!(find(FIXED).is_none());
        assert_eq!(find("node").map(|limit| limit.max), Some(1023));
    }

    #[test]
    fn durations_are_written_in_their_largest_unit() {
        let written: Vec<_> = [0, 1, 1500, 2000, 120_000, 7_200_000].map(duration).into();
        assert_eq!(written, ["0s", "1ms", "1500ms", "2s", "2m", "2h"]);
        assert_eq!(Unit::Milliseconds.show(2000), "\"2s\"");
        assert_eq!(Unit::Bytes.show(2000), "2000");
    }
}
