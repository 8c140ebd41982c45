//! What the services of protocols have in common: how they reach backends, how backends reach them,
//! and the way to the shards. On tokio; no protocol is named here.

pub mod callback;
pub mod grpc;
pub mod http_client;
pub mod nodes;
pub mod origin;
pub mod places;
pub mod secrets;
pub mod shards;

use std::sync::Arc;

use crate::config::model::Sidecar;
use crate::life::{Life, peer};
use crate::metrics::{Registry, rows};

use shards::Shards;

/// What a service is started with.
pub struct Outside {
    pub settings: Sidecar,
    pub shards: Shards,
    pub life: Life,
    pub registry: Arc<Registry>,
}

impl Outside {
    /// The tasks of a server's peers; a panic of one ends that peer and is counted.
    pub fn peers(&self, service: &'static str) -> peer::Peers {
        let panics = self.registry.counter(&rows::PEER_PANICS, &[("service", service)]);
        peer::Peers::new(service, panics)
    }
}
