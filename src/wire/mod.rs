//! Codecs, sans-io: bytes in, events out, and back. Nothing here knows a socket, a clock, a log or
//! another part of the crate.
//!
//! `websocket` frames and messages (RFC 6455), with `deflate` (RFC 7692); `http` upgrade requests;
//! `tls` the server side of a connection; `netsvr` the frames of business processes.

pub mod deflate;
pub mod framing;
pub mod http;
pub mod netsvr;
pub mod tls;
pub mod websocket;
