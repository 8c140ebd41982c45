//! What xxim has done away from the shards.

pub(crate) mod dispatch;
pub(crate) mod hooks;
pub mod push;
pub(crate) mod unwrap;
