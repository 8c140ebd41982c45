//! Several machines as one gateway: the real binary three times, and a real NATS server.

mod common;

#[path = "faults/binary.rs"]
mod binary;
#[path = "mesh/cluster.rs"]
mod cluster;
#[path = "mesh/credentials.rs"]
mod credentials;
#[path = "mesh/failures.rs"]
mod failures;
#[path = "operators/http.rs"]
#[allow(dead_code)]
mod http;
#[path = "im/support.rs"]
#[allow(dead_code)]
mod im;
#[path = "mesh/logins.rs"]
mod logins;
#[path = "mesh/nats.rs"]
mod nats;
#[path = "mesh/operations.rs"]
mod operations;
#[path = "mesh/operators.rs"]
mod operators;
#[path = "mesh/queries.rs"]
mod queries;
#[path = "xxim/vectors.rs"]
#[allow(dead_code)]
mod vectors;
#[path = "xxim/support.rs"]
mod xxim;
