//! Backend protocols: what backends ask of the gateway, turned into the words of the hub.

/// netsvr business processes.
pub mod worker;
