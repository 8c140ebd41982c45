//! Codecs, sans-io: bytes in, events out, and back. Nothing here knows a socket, a clock, a log or
//! another part of the crate.
//!
//! `websocket` frames and messages (RFC 6455), with `deflate` (RFC 7692); `http` requests and
//! answers, with `sub_protocols` and `origin` as headers that browsers send; `tls` the server side
//! of a connection; `worker` what worker processes are told of clients of every protocol; `queue`
//! the events of queue topics; `mesh` what nodes say to each other; `json` what all of them read
//! and write as JSON; `path` how servers read paths of URLs. The codecs of protocols are in
//! [`crate::protocols`].

pub mod deflate;
pub mod forwarded;
pub mod framing;
pub mod http;
pub mod json;
pub mod mesh;
pub mod network;
pub mod origin;
pub mod path;
pub mod proxy;
pub mod queue;
pub mod sub_protocols;
pub mod tls;
pub mod websocket;
pub mod worker;
