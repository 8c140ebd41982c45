//! Queue topics of a cluster: the real binary several times, and a real NATS server with JetStream.

mod common;

#[path = "faults/binary.rs"]
mod binary;
#[path = "mesh_queues/failures.rs"]
mod failures;
#[path = "mesh_queues/limits.rs"]
mod limits;
#[path = "mesh/nats.rs"]
mod nats;
#[path = "mesh_queues/nodes.rs"]
mod nodes;
#[path = "mesh_queues/sharing.rs"]
mod sharing;
