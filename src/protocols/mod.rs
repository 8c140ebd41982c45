//! The protocols, a folder each: their messages (`wire`), their decisions as data (`rules`), and
//! what a shard does with their connections (the tenant, `mod`). No protocol knows another one, nor
//! the shard.

pub mod connmix;
pub mod echo;
pub mod im;
pub mod netsvr;
pub mod xxim;
