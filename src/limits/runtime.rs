//! Limits of the process and of the engine that can be configured.

use super::{HOUR, KIB, Limit, MIB, MINUTE, SECOND, Unit, row};

/// The rows.
pub(super) const ROWS: &[Limit] = &[
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
         where RLIMIT_NOFILE, less 256 descriptors, 64 per shard and those of the push service, \
         does not permit so many.",
        "A further connection is closed as soon as it is accepted, and counted.",
    ),
    row(
        "runtime.outbox_bytes_max",
        Unit::Bytes,
        [MIB, 4 * KIB, 1024 * MIB],
        "What may wait for one client: the bytes of its frames, and 96 for each. A single frame \
         may be larger if nothing else waits.",
        "`runtime.slow_client` decides what becomes of a push: close with 1008 `slow \
         consumer` (xxim clients without a word), or drop the frame. A client that has filled \
         it with answers and pongs is not read while more waits than that. Who takes nothing for \
         its write deadline, or leaves more waiting than that for so long, is closed as slow \
         (netsvr and echo: `netsvr.customer.heartbeat_interval`; the others: `write_timeout`).",
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
        "Time between the close frame of the gateway and the end of the TCP connection; and for \
         answers that are under way when either side ends the connection.",
        "The connection is closed although the peer has not answered, or was not.",
    ),
    row(
        "runtime.shutdown_timeout",
        Unit::Milliseconds,
        [10 * SECOND, 100, HOUR],
        "Time that SIGTERM allows, behind that of `runtime.drain`, for the goodbyes of clients and \
         the delivery of their last events.",
        "The process exits with code 1; what was not delivered is lost.",
    ),
    row(
        "runtime.drain.delay",
        Unit::Milliseconds,
        [5 * SECOND, 0, HOUR],
        "Time between `/readyz` saying 503 and the end of accepting: that in which load balancers \
         notice.",
        "The listeners are closed, and clients begin to be closed.",
    ),
    row(
        "runtime.drain.spread",
        Unit::Milliseconds,
        [30 * SECOND, 0, HOUR],
        "Time over which the closes of all clients are spread evenly, those first from whom \
         nothing has come for the longest. 0s: all at once.",
        "",
    ),
    row(
        "runtime.drain.code",
        Unit::Number,
        [1001, 1000, 4999],
        "Close code of a drain, for clients over WebSocket: 1000 to 1003, 1007 to 1014, 3000 to \
         4999.",
        "",
    ),
    row(
        "runtime.drain.jitter",
        Unit::Count("percent"),
        [100, 0, 100],
        "How much of the time to the next close each is put off by chance.",
        "",
    ),
    row(
        "runtime.watchdog",
        Unit::Milliseconds,
        [30 * SECOND, 0, HOUR],
        "Time that a thread of the gateway may stand still; at least 3 s, 0: for ever. It is \
         counted while the process runs: not while it is stopped, or its machine is paused.",
        "`/healthz` answers 503, then the process exits with code 70.",
    ),
    row(
        "admin.connections_max",
        Unit::Count("connections"),
        [64, 8, 1024],
        "Connections of the admin server.",
        "The peer that has been waited for the longest is closed.",
    ),
    row(
        "admin.request_timeout",
        Unit::Milliseconds,
        [10 * SECOND, 100, HOUR],
        "Time for one connection to the admin server, which carries one request.",
        "The connection is closed.",
    ),
];
