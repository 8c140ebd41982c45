//! The service that speaks with other nodes, if there is a mesh.

use tokio::sync::mpsc;

use super::Common;
use super::service::{Started, Thread};
use crate::lists::letters::{MeshCall, MeshRequest};
use crate::sidecar::mesh::{self, MeshSettings};

/// Joins the mesh. Its last words take half a second at the most.
pub(super) fn start(
    common: &Common,
    requests: Option<mpsc::UnboundedReceiver<MeshRequest>>,
    calls: mpsc::Sender<MeshCall>,
) -> Started {
    let Common { config, shared, ways, registry, life, .. } = common;
    let (Some(requests), Some(way)) = (requests, ways.mesh.clone()) else { return Ok(None) };
    let Some(interest) = shared.mesh.clone() else { return Ok(None) };
    let announced = common.listeners.iter().map(|listener| {
        let mut address = listener.bound;
        if address.ip().is_unspecified() {
            address.set_ip((*config.netsvr.advertise.ip()).into());
        }
        (listener.service.id(), address)
    });
    let settings = MeshSettings {
        mesh: config.mesh.clone(),
        node: config.node,
        addresses: announced.collect(),
        netsvr: config.netsvr.advertise,
        slots_max: config.runtime.connections_max,
        ids_start: shared.ids_start,
        interest,
        calls,
        sender: way.clone(),
        life: life.clone(),
    };
    let thread = mesh::start(settings, requests, ways.shards.clone(), registry.clone())?;
    Ok(Some(Box::new(Thread { way, last: MeshRequest::Stop, thread })))
}
