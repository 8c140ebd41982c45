//! The ways between threads. All of them are made before the first thread starts, since the threads
//! write to each other.

use std::io;

use tokio::sync::mpsc;

use super::StartError;
use crate::config::all::Config;
use crate::engine::Shared;
use crate::engine::driver::Ways;
use crate::life::{Life, shard_name};
use crate::limits;
use crate::lists::letters::{Mail, MeshCall, MeshRequest, QueueRequest, SidecarRequest};
use crate::mail::{Mailbox, UnboundedSender};
use crate::protocols::netsvr::limits::LARGE_ANSWERS_MAX;
use crate::protocols::xxim::limits::XXIM_REQUESTS_SENT;
use crate::sidecar::mesh::{self, queues};

/// The ends of the ways, each for the service that reads it.
pub(super) struct Ends {
    /// By shard number.
    pub mailboxes: Vec<Mailbox<Mail>>,
    pub sidecar: mpsc::Receiver<SidecarRequest>,
    /// `None` if there is no mesh.
    pub mesh: Option<mpsc::UnboundedReceiver<MeshRequest>>,
    /// What other nodes ask the sidecar: from the mesh, to the sidecar.
    pub calls: (mpsc::Sender<MeshCall>, mpsc::Receiver<MeshCall>),
    /// `None` if queue topics are those of this process.
    pub queues: Option<mpsc::UnboundedReceiver<QueueRequest>>,
}

/// Makes all of them.
pub(super) fn open(
    config: &Config,
    shared: &Shared,
    life: &Life,
) -> Result<(Ways, Ends), StartError> {
    let messages_max = config.runtime.mailbox_messages_max as usize;
    let mailbox = |number| Mailbox::new(messages_max, life.gone(&shard_name(number)));
    let pairs: io::Result<Vec<_>> = (0..config.runtime.cpus.len()).map(mailbox).collect();
    let (shards, mailboxes) = pairs.map_err(StartError::Mailbox)?.into_iter().unzip();
    let (sidecar, requests) = crate::sidecar::channel(requests_max(config), life);
    let mesh = shared.mesh.is_some().then(|| UnboundedSender::new(life.gone(mesh::THREAD)));
    let (mesh, mesh_end) = mesh.unzip();
    let queues = shared.queue_room.is_some();
    let queues = queues.then(|| UnboundedSender::new(life.gone(queues::THREAD)));
    let (queues, queues_end) = queues.unzip();
    let ways = Ways { shards, sidecar, mesh, queues };
    let calls = mpsc::channel(limits::MESH_CALLS_WAITING_MAX);
    Ok((ways, Ends { mailboxes, sidecar: requests, mesh: mesh_end, calls, queues: queues_end }))
}

/// Requests of all shards that the way to the sidecar has room for; what does not fit waits on its
/// shard.
fn requests_max(config: &Config) -> usize {
    let each = config.netsvr.customer.callbacks_max as usize
        + config.login.under_way_max as usize
        + XXIM_REQUESTS_SENT
        + config.connmix.rules.http_calls_max as usize
        + LARGE_ANSWERS_MAX;
    each * config.runtime.cpus.len()
}
