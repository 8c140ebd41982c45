//! Starts the queues of the cluster.

use super::{StartError, Thread};
use crate::config::model::Config;
use crate::life::Life;
use crate::mail::{MailSender, UnboundedSender};
use crate::metrics::Registry;
use crate::shard::Shared;
use crate::shard::mailbox::{Mail, QueueRequest};
use crate::sidecar::mesh::queues::{self, QueueSettings};

/// Starts the queues of the cluster, if topics are there.
pub(super) fn start_queues(
    config: &Config,
    shared: &Shared,
    shards: &[MailSender<Mail>],
    registry: &Registry,
    life: &Life,
) -> Result<Option<Thread<QueueRequest>>, StartError> {
    let Some(room) = shared.queue_room.clone() else { return Ok(None) };
    let settings = QueueSettings {
        mesh: config.mesh.clone(),
        node: config.node,
        queue: config.connmix.queue,
        room,
        life: life.clone(),
    };
    let (sender, requests) = UnboundedSender::new(life.gone(queues::THREAD));
    let thread = queues::start(settings, requests, shards.to_vec(), registry)?;
    Ok(Some((sender, thread)))
}
