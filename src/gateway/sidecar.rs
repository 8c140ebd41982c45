//! The service for what is not the data path: callbacks, upstreams, admin server, push service.

use std::sync::Arc;
use std::thread::JoinHandle;

use rustls::ServerConfig;
use tokio::sync::{mpsc, watch};

use super::drain::End;
use super::service::{Service, Started};
use super::sockets::{ServiceSockets, push_tls};
use super::{Common, StartError};
use crate::config::all::Config;
use crate::engine::ListenerSettings;
use crate::hub::client_id::ClientIds;
use crate::limits;
use crate::lists::letters::{MeshCall, SidecarRequest};
use crate::mail::BoundedSender;
use crate::protocols::netsvr::service::CallbackSettings;
use crate::protocols::xxim;
use crate::protocols::xxim::config::XximKey;
use crate::rsa_keys::{RsaKey, RsaKeyError};
use crate::sidecar::{self, ListenerFacts, Namer, SidecarSettings};
use crate::tls_files::TlsFilesError;
use crate::wire::worker::UniqIds;

struct Sidecar {
    way: BoundedSender<SidecarRequest>,
    thread: JoinHandle<()>,
    /// Where new certificates of the push service go.
    certificates: Option<watch::Sender<Arc<ServerConfig>>>,
}

/// Starts it. `calls` is what other nodes ask it.
pub(super) fn start(
    common: &Common,
    requests: mpsc::Receiver<SidecarRequest>,
    sockets: ServiceSockets,
    calls: mpsc::Receiver<MeshCall>,
) -> Started {
    let Common { config, ways, registry, .. } = common;
    let key = rsa_key(config)?;
    let made = config.xxim.crypto.private_key == Some(XximKey::Made);
    let (certificates, receiver) = push_tls(config)?.map(watch::channel).unzip();
    let settings = SidecarSettings {
        life: common.life.clone(),
        sidecar: config.sidecar,
        admin: sockets.admin,
        admin_socket: sockets.admin_socket,
        admin_time_max: config.admin.request_timeout,
        admin_connections_max: config.admin.connections_max as usize,
        readiness: common.readiness.clone(),
        namer: namer(common),
        mesh: ways.mesh.clone().map(|mesh| (mesh, calls)),
        callbacks: callbacks(config),
        shown_key: key.clone().filter(|_| made),
        login: config.login.clone(),
        xxim: xxim::service::Settings {
            key,
            key_threads: config.xxim.crypto.threads,
            upstreams: config.xxim_upstreams.clone(),
            push: sockets.push.map(|socket| (socket, receiver)),
            pod: *config.netsvr.advertise.ip(),
            mesh: None,
        },
    };
    let thread = sidecar::start(settings, requests, ways.shards.clone(), registry.clone());
    let refused = |error| StartError::Service { what: "sidecar thread", error };
    let thread = thread.map_err(refused)?;
    Ok(Some(Box::new(Sidecar { way: ways.sidecar.clone(), thread, certificates })))
}

/// How operators get to see what is here.
fn namer(common: &Common) -> Namer {
    let Common { config, shared, ways, listeners, .. } = common;
    let (node, slots_max) = (config.node, config.runtime.connections_max);
    let client_ids = ClientIds::new(node, ways.shards.len(), slots_max);
    let ids = UniqIds::new(config.netsvr.advertise).rotated(client_ids.rotation(shared.ids_start));
    let facts = |listener: &ListenerSettings| ListenerFacts {
        service: listener.service.id().to_string(),
        bound: listener.bound,
        tls: listener.tls.is_some(),
    };
    Namer { node, ids, listeners: listeners.iter().map(facts).collect() }
}

fn callbacks(config: &Config) -> CallbackSettings {
    let customer = &config.netsvr.customer;
    CallbackSettings {
        on_open: customer.on_open_callback_api.clone(),
        on_close: customer.on_close_callback_api.clone(),
        deadline: customer.callback_api_deadline,
        answer_bytes_max: limits::CALLBACK_ANSWER_BYTES_MAX,
    }
}

/// The key of xxim clients.
fn rsa_key(config: &Config) -> Result<Option<Arc<RsaKey>>, RsaKeyError> {
    Ok(match &config.xxim.crypto.private_key {
        None => None,
        Some(XximKey::Made) => Some(Arc::new(RsaKey::made_when_needed())),
        Some(XximKey::File(path)) => Some(Arc::new(RsaKey::load(path)?)),
    })
}

impl Service for Sidecar {
    fn reload(&self, config: &Config) -> Result<(), TlsFilesError> {
        if let (Some(certificates), Some(config)) = (&self.certificates, push_tls(config)?) {
            certificates.send_replace(config);
        }
        Ok(())
    }

    fn stop(self: Box<Self>, end: &mut End) {
        let _ = self.way.send(SidecarRequest::Stop);
        if end.finished {
            let _ = self.thread.join();
        }
    }
}
