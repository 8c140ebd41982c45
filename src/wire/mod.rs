//! Codecs, sans-io: bytes in, events out, and back. Nothing here knows a socket, a clock, a log or
//! another part of the crate.

/// permessage-deflate (RFC 7692): compression of WebSocket messages.
pub mod deflate;
/// HTTP/1.1 requests that ask for an upgrade to WebSocket, and the answers.
pub mod http;
/// netsvr: the length-prefixed protobuf frames of business processes.
pub mod netsvr;
/// The server side of a TLS connection.
pub mod tls;
/// WebSocket frames and messages (RFC 6455).
pub mod websocket;
