//! Backend protocols: what backends ask of the gateway, turned into the words of the hub.

/// connmix backends: HTTP and WebSocket API.
pub mod connmix_api;
/// Large answers to netsvr business processes.
pub mod large;
/// netsvr business processes.
pub mod worker;
