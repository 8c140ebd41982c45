//! The connmix API against a real gateway over real sockets: vectors, HTTP, WebSocket, queues.

mod common;
#[path = "connmix_api/http.rs"]
mod http;
#[path = "connmix_api/origins.rs"]
mod origins;
#[path = "connmix_api/queues.rs"]
mod queues;
#[path = "connmix_api/session.rs"]
mod session;
#[path = "connmix_api/socket.rs"]
mod socket;
#[path = "connmix_api/support.rs"]
mod support;
#[path = "connmix_api/vectors.rs"]
mod vectors;
