//! The configuration as the engine and what shards share know it.

use std::sync::Arc;

use crate::config::all::Config;
use crate::engine::settings::{Settings, Workers};
use crate::engine::shared::{Shared, SharedBounds};
use crate::hub::queues::{Full, QueueLimits};
use crate::protocols::connmix::config::{QueueFull, QueueScope};
use crate::protocols::connmix::limits::CONNMIX_UNACCEPTED_MAX;
use crate::protocols::netsvr::limits::GUEST_KICKS_WAITING_MAX;
use crate::protocols::xxim::limits::XXIM_SEAL_BYTES_PER_TURN;

/// What the engine needs to know.
pub(super) fn of_engine(config: &Config) -> Settings {
    let (runtime, worker, queue) = (&config.runtime, &config.netsvr.worker, &config.connmix.queue);
    Settings {
        node: config.node,
        connections_max: runtime.connections_max,
        outbox_bytes_max: runtime.outbox_bytes_max,
        slow_client: runtime.slow_client,
        handshake_timeout: runtime.handshake_timeout,
        close_timeout: runtime.close_timeout,
        compression_level: config.netsvr.customer.compression_level,
        proxies: config.trust.clone(),
        advertise: config.netsvr.advertise,
        workers: Workers {
            pick: worker.pick,
            on_full: worker.on_full,
            queue_frames_max: worker.queue_frames_max,
            queue_bytes_max: worker.queue_bytes_max,
            transfer_session: worker.transfer_session,
            transfer_topics: worker.transfer_topics,
        },
        queues: QueueLimits {
            messages_max: queue.topic_messages_max as usize,
            bytes_max: queue.topic_bytes_max as usize,
            topics_max: queue.topics_max,
            full: match queue.full {
                QueueFull::Error => Full::Error,
                QueueFull::Block => Full::Block,
                QueueFull::DropOldest => Full::DropOldest,
            },
        },
        queue_event_bytes_max: config.connmix.api.event_bytes_max as usize,
        unaccepted_max: CONNMIX_UNACCEPTED_MAX,
        jobs_max: GUEST_KICKS_WAITING_MAX,
        seal_bytes_per_turn: XXIM_SEAL_BYTES_PER_TURN,
        counts_rooms: config.im.max_room_members > 0 || config.im.room_rate > 0,
    }
}

/// What the shards of a process share; `ids_start` is random.
pub fn shared(config: &Config, ids_start: u32) -> Arc<Shared> {
    let (limit, bytes_max) = (&config.netsvr.limit, config.mesh.queue_bytes_max);
    let cluster = config.connmix.queue.scope == QueueScope::Cluster;
    let bounds = SharedBounds {
        opens: limit.on_open,
        messages: limit.on_message,
        mesh_bytes_max: config.mesh.is_on().then_some(bytes_max),
        queue_bytes_max: cluster.then_some(bytes_max),
    };
    Shared::new(bounds, ids_start)
}
