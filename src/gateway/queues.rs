//! The service that speaks with JetStream, if queue topics are those of the cluster.

use tokio::sync::mpsc;

use super::Common;
use super::service::{Started, Thread};
use crate::lists::letters::QueueRequest;
use crate::sidecar::mesh::queues::{self, QueueSettings};

/// Starts it. When it is to end, what is not stored has two seconds at the most.
pub(super) fn start(
    common: &Common,
    requests: Option<mpsc::UnboundedReceiver<QueueRequest>>,
) -> Started {
    let Common { config, shared, ways, registry, life, .. } = common;
    let (Some(requests), Some(way)) = (requests, ways.queues.clone()) else { return Ok(None) };
    let Some(room) = shared.queue_room.clone() else { return Ok(None) };
    let settings = QueueSettings {
        mesh: config.mesh.clone(),
        node: config.node,
        queue: config.connmix.queue,
        room,
        life: life.clone(),
    };
    let thread = queues::start(settings, requests, ways.shards.clone(), registry)?;
    Ok(Some(Box::new(Thread { way, last: QueueRequest::Stop, thread })))
}
