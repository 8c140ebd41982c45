//! xxim end to end: a gateway with two shards, clients over real sockets, and an upstream that
//! shows what it is asked.

mod common;

#[path = "xxim/backends.rs"]
mod backends;
#[path = "xxim/bad_input.rs"]
mod bad_input;
#[path = "xxim/checks.rs"]
mod checks;
#[path = "xxim/cluster.rs"]
mod cluster;
#[path = "xxim/encrypted.rs"]
mod encrypted;
#[path = "xxim/ends.rs"]
mod ends;
#[path = "sidecar/server.rs"]
mod grpc_server;
#[path = "xxim/http_api.rs"]
mod http_api;
#[path = "xxim/limits.rs"]
mod limits;
#[path = "xxim/logins.rs"]
mod logins;
#[path = "mesh/nats.rs"]
mod nats;
#[path = "xxim/pushes.rs"]
mod pushes;
#[path = "xxim/requests.rs"]
mod requests;
#[path = "xxim/scenario.rs"]
mod scenario;
#[path = "xxim/smuggled.rs"]
mod smuggled;
#[path = "xxim/support.rs"]
mod support;
#[path = "xxim/upstream.rs"]
mod upstream;
#[path = "xxim/vectors.rs"]
mod vectors;
