//! Starts the mesh.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::{StartError, Thread};
use crate::config::model::Config;
use crate::life::Life;
use crate::limits;
use crate::mail::{MailSender, UnboundedSender};
use crate::metrics::Registry;
use crate::shard::Shared;
use crate::shard::mailbox::{Mail, MeshCall, MeshRequest};
use crate::sidecar::mesh::{self, MeshSettings};

/// The ends of the channels to the mesh, before it is joined.
pub(super) struct MeshEnds {
    pub sender: UnboundedSender<MeshRequest>,
    pub requests: mpsc::UnboundedReceiver<MeshRequest>,
    pub calls: mpsc::Sender<MeshCall>,
}

/// The sidecar's: the way to the mesh, and what other nodes ask it.
pub(super) type MeshAtSidecar = (UnboundedSender<MeshRequest>, mpsc::Receiver<MeshCall>);

/// The channels of the mesh, if there is one: for itself, and for the sidecar.
pub(super) fn mesh_ends(config: &Config, life: &Life) -> (Option<MeshEnds>, Option<MeshAtSidecar>) {
    if !config.mesh.is_on() {
        return (None, None);
    }
    let (sender, requests) = UnboundedSender::new(life.gone(mesh::THREAD));
    let (calls, served) = mpsc::channel(limits::MESH_CALLS_WAITING_MAX);
    (Some(MeshEnds { sender: sender.clone(), requests, calls }), Some((sender, served)))
}

/// Joins the mesh, if there is one.
pub(super) fn start_mesh(
    ends: Option<MeshEnds>,
    config: &Config,
    addresses: &[SocketAddr],
    shared: &Shared,
    shards: &[MailSender<Mail>],
    registry: &Arc<Registry>,
    life: &Life,
) -> Result<Option<Thread<MeshRequest>>, StartError> {
    let (Some(interest), Some(ends)) = (shared.mesh.clone(), ends) else { return Ok(None) };
    let listeners = config.listeners.iter().zip(addresses);
    let announced = listeners.map(|(listener, &(mut address))| {
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
        calls: ends.calls,
        sender: ends.sender.clone(),
        life: life.clone(),
    };
    let thread = mesh::start(settings, ends.requests, shards.to_vec(), registry.clone())?;
    Ok(Some((ends.sender, thread)))
}
