//! Limits of IM (IM specification section 15), and its numbers of commands and statuses.

use crate::limits::{DAY, HOUR, KIB, Limit, MIB, SECOND, U32_MAX, Unit, row};

/// The rows.
pub(crate) const ROWS: &[Limit] = &[
    row("im.versions", Unit::Number, [1, 0, 15], "Versions that clients may speak.", ""),
    row(
        "im.idle_timeout",
        Unit::Milliseconds,
        [30 * SECOND, 100, DAY],
        "Time in which a client must send a complete frame.",
        "The connection is closed (1001), without a frame.",
    ),
    row(
        "im.login_timeout",
        Unit::Milliseconds,
        [10 * SECOND, 100, HOUR],
        "Time in which the LOGIN of a new connection must be complete.",
        "The connection is closed (1008), without a frame.",
    ),
    row(
        "im.frame_timeout",
        Unit::Milliseconds,
        [10 * SECOND, 100, HOUR],
        "Time in which the rest of a started frame must arrive.",
        "The connection is closed, without a frame.",
    ),
    row(
        "im.write_timeout",
        Unit::Milliseconds,
        [10 * SECOND, 100, HOUR],
        "Time in which a client must take something of what is sent to it.",
        "The connection is closed.",
    ),
    row(
        "im.batch_delay",
        Unit::Milliseconds,
        [50, 0, 10 * SECOND],
        "Time that the first message of a batch waits for others; 0 sends every message at \
         once.",
        "The batch is sent.",
    ),
    row(
        "im.batch_max_messages",
        Unit::Count("messages"),
        [64, 1, 65_536],
        "Messages of one batch of a room.",
        "The batch is sent.",
    ),
    row(
        "im.batch_max_bytes",
        Unit::Bytes,
        [32 * KIB, 64, 1_000_000],
        "Serialized size of one batch of a room. A single message may be larger.",
        "The batch is sent before the message that would exceed it.",
    ),
    row(
        "im.max_body",
        Unit::Bytes,
        [64 * KIB, 64, 1_000_000],
        "Body of one frame from a client, as transmitted.",
        "TOO_LARGE as soon as the header is there; the connection is closed (1009).",
    ),
    row(
        "im.max_plain",
        Unit::Bytes,
        [256 * KIB, 64, 1_000_000],
        "Body of one frame from a client after inflating.",
        "TOO_LARGE; the connection is closed (1009).",
    ),
    row(
        "im.max_content",
        Unit::Bytes,
        [16 * KIB, 1, 1_000_000],
        "`messageContent` of a CMS.",
        "The message is dropped and counted.",
    ),
    row(
        "im.max_websocket_message",
        Unit::Bytes,
        [256 * KIB, 128, 16 * MIB],
        "One WebSocket message of a client, which may hold several frames.",
        "The connection is closed with 1009 `message too big`.",
    ),
    row(
        "im.gzip_min",
        Unit::Bytes,
        [KIB, 0, 1_000_000],
        "Size from which a notification is compressed for clients that read gzip, if that \
         saves a tenth.",
        "",
    ),
    row(
        "im.max_rooms",
        Unit::Count("rooms"),
        [20, 1, 65_536],
        "Rooms of one connection.",
        "TOO_MANY_ROOMS; the connection stays.",
    ),
    row(
        "im.max_room_members",
        Unit::Count("connections"),
        [0, 0, 16_000_000],
        "Members of one room on this node; 0 is no limit.",
        "ROOM_FULL; the connection stays.",
    ),
    row(
        "im.max_room_id",
        Unit::Bytes,
        [128, 1, KIB],
        "Name of a room.",
        "ROOM_INVALID; the connection stays. A CMS is dropped and counted.",
    ),
    row(
        "im.max_user_id",
        Unit::Bytes,
        [128, 1, KIB],
        "`userId` of a LOGIN.",
        "AUTH_FAILED; a new connection is closed (1008).",
    ),
    row(
        "im.max_token",
        Unit::Bytes,
        [4 * KIB, 1, 64 * KIB],
        "`token` of a LOGIN.",
        "AUTH_FAILED; a new connection is closed (1008).",
    ),
    row(
        "im.cms_rate",
        Unit::Count("messages per second"),
        [20, 0, U32_MAX],
        "CMS of one connection, evenly; 0 is no limit.",
        "The message is dropped and counted.",
    ),
    row(
        "im.cms_burst",
        Unit::Count("messages"),
        [40, 1, U32_MAX],
        "CMS of one connection that may come at once.",
        "As `im.cms_rate`.",
    ),
    row(
        "im.room_rate",
        Unit::Count("messages per second"),
        [0, 0, U32_MAX],
        "CMS to one room on this node, evenly; 0 is no limit.",
        "The message is dropped and counted.",
    ),
    row(
        "im.room_burst",
        Unit::Count("messages"),
        [1000, 1, U32_MAX],
        "CMS to one room that may come at once.",
        "As `im.room_rate`.",
    ),
    row(
        "im.request_rate",
        Unit::Count("requests per second"),
        [10, 0, U32_MAX],
        "Other requests of one connection, evenly; 0 is no limit. Two PING a second count for \
         nothing.",
        "RATE_LIMITED; the connection stays.",
    ),
    row(
        "im.request_burst",
        Unit::Count("requests"),
        [20, 1, U32_MAX],
        "Other requests of one connection that may come at once.",
        "As `im.request_rate`.",
    ),
    row(
        "im.max_errors",
        Unit::Count("responses"),
        [10, 1, 1000],
        "Error responses, and CMS dropped for breaking the protocol, of one connection within \
         60 s.",
        "The next one closes the connection (1002).",
    ),
    row(
        "im.out_high_water",
        Unit::Bytes,
        [MIB, 4 * KIB, 1024 * MIB],
        "What may wait for one client, charged as for `runtime.outbox_bytes_max`. A single frame \
         may be larger if nothing else waits.",
        "CR_NOTIFY frames are dropped and counted; responses are sent up to \
         `runtime.outbox_bytes_max`, beyond that the client is not read.",
    ),
    number("im.commands.reserved", 0, "Command number of RESERVED, which is ignored."),
    number("im.commands.login", 1, "Command number of LOGIN."),
    number("im.commands.logout", 2, "Command number of LOGOUT."),
    number("im.commands.ping", 3, "Command number of PING."),
    number("im.commands.pong", 4, "Command number of PONG."),
    number("im.commands.join_cr", 5, "Command number of JOIN_CR."),
    number("im.commands.leave_cr", 6, "Command number of LEAVE_CR."),
    number("im.commands.cms", 7, "Command number of CMS."),
    number(
        "im.commands.cr_notify",
        8,
        "Command number of CR_NOTIFY; that of CMS for clients which tell them apart by the flow.",
    ),
    number("im.commands.kick", 9, "Command number of KICK."),
    status("im.statuses.bad_frame", 1, "Status number of BAD_FRAME."),
    status("im.statuses.bad_version", 2, "Status number of BAD_VERSION."),
    status("im.statuses.bad_compression", 3, "Status number of BAD_COMPRESSION."),
    status("im.statuses.too_large", 4, "Status number of TOO_LARGE."),
    status("im.statuses.unknown_command", 5, "Status number of UNKNOWN_COMMAND."),
    status("im.statuses.bad_body", 6, "Status number of BAD_BODY."),
    status("im.statuses.bad_flow", 7, "Status number of BAD_FLOW."),
    status("im.statuses.auth_failed", 17, "Status number of AUTH_FAILED."),
    status("im.statuses.already_logged_in", 18, "Status number of ALREADY_LOGGED_IN."),
    status("im.statuses.guest_forbidden", 19, "Status number of GUEST_FORBIDDEN."),
    status("im.statuses.kicked", 20, "Status number of KICKED."),
    status("im.statuses.room_invalid", 32, "Status number of ROOM_INVALID."),
    status("im.statuses.room_full", 33, "Status number of ROOM_FULL."),
    status("im.statuses.room_banned", 34, "Status number of ROOM_BANNED."),
    status("im.statuses.too_many_rooms", 35, "Status number of TOO_MANY_ROOMS."),
    status("im.statuses.not_in_room", 36, "Status number of NOT_IN_ROOM."),
    status("im.statuses.muted", 37, "Status number of MUTED."),
    status("im.statuses.rate_limited", 48, "Status number of RATE_LIMITED."),
    status("im.statuses.busy", 49, "Status number of BUSY."),
    status("im.statuses.internal", 63, "Status number of INTERNAL."),
    field("im.login_fields.token", 1, "Field number of `token`."),
    field("im.login_fields.user_id", 2, "Field number of `userId`."),
];

/// A field number of protobuf.
const fn field(key: &'static str, default: i64, what: &'static str) -> Limit {
    row(key, Unit::Number, [default, 1, (1 << 29) - 1], what, "")
}

/// A status number; 0 means success.
const fn status(key: &'static str, default: i64, what: &'static str) -> Limit {
    row(key, Unit::Number, [default, 1, u8::MAX as i64], what, "")
}

/// A number of one byte on the wire.
const fn number(key: &'static str, default: i64, what: &'static str) -> Limit {
    row(key, Unit::Number, [default, 0, u8::MAX as i64], what, "")
}
