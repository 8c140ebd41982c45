//! What netsvr has done away from the shards.

pub(crate) mod large;
