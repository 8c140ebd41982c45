//! What the shards of a process share: exact process-wide limits, and what other nodes want.
//! Touched once per connection, and once per message only where a global limiter is switched on or
//! there is a mesh.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::hub::limits::SharedLimiter;
use crate::hub::mesh::Interest;
use crate::hub::queues::{Room, TopicCount};
use crate::hub::rooms::RoomLimits;

/// What holds for all shards of a process together.
#[derive(Clone, Copy, Debug)]
pub struct SharedBounds {
    /// Opens in a second; 0 is any number.
    pub opens: u32,
    /// Messages of clients in a second; 0 is any number.
    pub messages: u32,
    /// Bytes that may be on their way to other nodes; `None` without a mesh.
    pub mesh_bytes_max: Option<usize>,
    /// Bytes that may be on their way to JetStream; `None` if topics are those of this process.
    pub queue_bytes_max: Option<usize>,
}

/// See the module.
#[derive(Debug)]
pub struct Shared {
    pub open_limiter: SharedLimiter,
    pub message_limiter: SharedLimiter,
    /// Clients that count against `netsvr.customer.max_online`.
    pub online: AtomicU32,
    /// Sockets that count against `runtime.connections_max`.
    pub connections: AtomicU32,
    /// Order of accepting of the last xxim connection; see [`Shared::next_in_order`].
    accepted: AtomicU64,
    /// What other nodes want; `None` if there is no mesh.
    pub mesh: Option<Arc<Interest>>,
    /// Topics that count against `connmix.queue.topics_max`.
    pub queue_topics: Arc<TopicCount>,
    /// For messages on their way to JetStream; `None` if topics are those of this process.
    pub queue_room: Option<Arc<Room>>,
    /// Members and messages of rooms, where they are limited.
    pub room_limits: Arc<RoomLimits>,
    /// Where the rotation of the process's public ids begins.
    pub ids_start: u32,
}

impl Shared {
    /// Nobody connected; `ids_start` is random.
    pub fn new(bounds: SharedBounds, ids_start: u32) -> Arc<Shared> {
        let SharedBounds { opens, messages, mesh_bytes_max, queue_bytes_max } = bounds;
        Arc::new(Shared {
            open_limiter: SharedLimiter::new(opens),
            message_limiter: SharedLimiter::new(messages),
            online: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            accepted: AtomicU64::new(0),
            mesh: mesh_bytes_max.map(|bytes_max| Arc::new(Interest::new(bytes_max))),
            queue_topics: Arc::default(),
            queue_room: queue_bytes_max.map(|bytes_max| Arc::new(Room::new(bytes_max))),
            room_limits: Arc::default(),
            ids_start,
        })
    }

    /// The place of a new connection in the order of accepting: Unix microseconds, but never the
    /// same twice and ascending over all shards, whatever their clocks say. Thousandths of it are
    /// comparable with other nodes.
    pub fn next_in_order(&self, unix_ms: u64) -> u64 {
        let next = |last: u64| (last + 1).max(unix_ms.saturating_mul(1000));
        let last = self.accepted.fetch_update(Relaxed, Relaxed, |last| Some(next(last)));
        // It never refuses.
        last.map_or_else(next, next)
    }
}
