//! xxim's messages between clients, the gateway and backends, sans-io (specification sections 2 to
//! 4 and 6).

mod identity;

/// The messages as prost types, for whatever is not the data path.
#[allow(missing_docs)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/pb.rs"));
}

pub use identity::Identity;
