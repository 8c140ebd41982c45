//! What of netsvr's protocol between the gateway and business processes is netsvr's alone: opening
//! and callbacks, commands, queries and responses, sans-io (netsvr sections 3 to 7). What other
//! protocols' clients need of it is in [`crate::wire::worker`].
//!
//! Invariants: every frame that is written has exactly the size that was computed for it and a
//! length that fits its header. What is read and written on the data path is coded by hand, and
//! tested against the prost types.

/// Responses.
pub mod answers;
mod open;
/// Bodies of commands and queries.
pub mod requests;

pub use crate::wire::worker::proto::RegisterRespCode as RegisterCode;
pub use answers::{MetricItem, limit_resp, metrics_resp, register_resp, unregister_resp};
pub use open::{OpenInfo, Verdict, conn_open, conn_open_body};
pub use requests::DecodeError;

/// Which of the two incompatible `ConnOpen` layouts and uniqId prefixes is spoken (section 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    G5,
    G6,
}
