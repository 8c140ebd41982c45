//! Backend protocols: what backends ask of the gateway, turned into the words of the hub.

/// connmix backends: HTTP and WebSocket API.
pub mod connmix_api;
/// netsvr business processes.
pub mod worker;
