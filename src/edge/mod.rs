//! Client protocols, sans-io: what a message of a client means, given what the client has done so
//! far. The shard owns the connections and carries out what is decided here.

pub mod connmix;
pub mod im;
pub mod netsvr;
pub mod upgrade;
pub mod xxim;
