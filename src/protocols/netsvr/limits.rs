//! Limits of netsvr (netsvr specification section 8).

use crate::limits::{DAY, HOUR, KIB, Limit, MIB, MINUTE, SECOND, U32_MAX, Unit, fixed, row};

/// Queries of one backend connection that may be under way at the same time.
pub const BUSINESS_QUERIES_MAX: usize = 64;
/// Bytes of answers that may wait for one backend connection before it is not read any more.
pub const BUSINESS_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of answers that wait for all backend connections of a shard, before it makes no further
/// answer of those that take more than one piece ([`ANSWER_PIECE`]).
pub const ANSWERS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a shard finds, puts together and writes for answers in one turn: connections, users, topics
/// and members. With topics a turn took 0.1 ms of CPU on average (`protocols/netsvr/answers.rs`).
pub const ANSWER_PIECE: usize = 4096;
/// Answers of more than one piece that a shard has put together at the same time.
pub const LARGE_ANSWERS_MAX: usize = 1;
/// Delayed kicks (`ForceOfflineGuest` with a delay) that may wait on one shard.
pub const GUEST_KICKS_WAITING_MAX: usize = 65_536;

/// The rows.
pub(crate) const ROWS: &[Limit] = &[
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
        "netsvr.customer.close_callbacks_max",
        Unit::Count("closes"),
        [65_536, 1, 16 * MIB],
        "Closes of one shard that wait for `netsvr.customer.on_close_callback_api`.",
        "The workers get the event at once, without a callback. Counted.",
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
];

/// Queries and answers to them.
pub(crate) const ANSWERS: &[Limit] = &[
    fixed(
        Unit::Count("queries"),
        BUSINESS_QUERIES_MAX as i64,
        "Queries of one backend connection that are under way.",
        "The connection is not read until one is answered.",
    ),
    fixed(
        Unit::Bytes,
        BUSINESS_ANSWER_BYTES_MAX as i64,
        "Answers that wait for one backend connection, with the charge for each.",
        "The connection is not read until it has taken some.",
    ),
    fixed(
        Unit::Bytes,
        ANSWERS_BYTES_MAX as i64,
        "Answers that wait for all backend connections of one shard.",
        "Large answers are made when some of it is taken, one at a time.",
    ),
    fixed(
        Unit::Count("things"),
        ANSWER_PIECE as i64,
        "Connections, users, topics and their members that a shard finds for answers in one turn.",
        "The answer is found in several turns, and put together by another thread.",
    ),
    fixed(
        Unit::Count("answers"),
        LARGE_ANSWERS_MAX as i64,
        "Answers of more than one piece that a shard has put together at the same time.",
        "The next one waits for its turn.",
    ),
];

/// Commands that wait.
pub(crate) const KICKS: &[Limit] = &[fixed(
    Unit::Count("commands"),
    GUEST_KICKS_WAITING_MAX as i64,
    "`ForceOfflineGuest` commands with a delay that wait on one shard.",
    "The command is dropped, logged and counted.",
)];
