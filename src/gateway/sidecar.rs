//! What the sidecar is started with.

use std::sync::Arc;

use super::StartError;
use super::mesh::MeshAtSidecar;
use super::sockets::bind_admin;
use crate::config::model::{Config, XximKey};
use crate::life::Life;
use crate::limits;
use crate::patience::Patience;
use crate::rsa_keys::{RsaKey, RsaKeyError};
use crate::sidecar::{Callbacks, Readiness, SidecarSettings};

/// The key of xxim clients.
fn rsa_key(config: &Config) -> Result<Option<Arc<RsaKey>>, RsaKeyError> {
    Ok(match &config.xxim.crypto.private_key {
        None => None,
        Some(XximKey::Made) => Some(Arc::new(RsaKey::made_when_needed())),
        Some(XximKey::File(path)) => Some(Arc::new(RsaKey::load(path)?)),
    })
}

pub(super) fn sidecar_settings(
    config: &Config,
    mesh: Option<MeshAtSidecar>,
    readiness: Arc<Readiness>,
    patience: Patience,
    life: Life,
) -> Result<SidecarSettings, StartError> {
    let customer = &config.netsvr.customer;
    Ok(SidecarSettings {
        sidecar: config.sidecar,
        login: config.login.clone(),
        upstreams: config.xxim_upstreams.clone(),
        push: None,
        pod: *config.netsvr.advertise.ip(),
        mesh,
        admin: config.admin.bind.map(|bind| bind_admin(bind, patience)).transpose()?,
        admin_time_max: config.admin.request_timeout,
        admin_connections_max: config.admin.connections_max as usize,
        readiness,
        life,
        callbacks: Callbacks {
            on_open: customer.on_open_callback_api.clone(),
            on_close: customer.on_close_callback_api.clone(),
            deadline: customer.callback_api_deadline,
            answer_bytes_max: limits::CALLBACK_ANSWER_BYTES_MAX,
        },
        key: rsa_key(config)?,
        key_threads: config.xxim.crypto.threads,
        key_shown: config.xxim.crypto.private_key == Some(XximKey::Made),
    })
}

/// Requests of all shards that the way to the sidecar has room for; what does not fit waits on its
/// shard.
pub(super) fn requests_max(config: &Config) -> usize {
    let each = config.netsvr.customer.callbacks_max as usize
        + config.login.under_way_max as usize
        + limits::XXIM_REQUESTS_SENT
        + config.connmix.rules.http_calls_max as usize
        + limits::LARGE_ANSWERS_MAX;
    each * config.runtime.cpus.len()
}
