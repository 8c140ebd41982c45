//! connmix clients over real sockets: the applications of connmix section 7.3 without scripting,
//! TCP framings, waiting, and what a hostile client gets.

mod common;

#[path = "connmix_client/bad.rs"]
mod bad;
#[path = "connmix_client/chat.rs"]
mod chat;
// netsvr's tests use all of it.
#[path = "netsvr/http_server.rs"]
mod http_server;
#[path = "connmix_client/others.rs"]
mod others;
#[path = "connmix_client/streams.rs"]
mod streams;
#[path = "connmix_client/support.rs"]
mod support;
#[path = "connmix_client/tcp.rs"]
mod tcp;
#[path = "connmix_client/waiting.rs"]
mod waiting;
