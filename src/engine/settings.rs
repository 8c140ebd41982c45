//! What the engine needs to know of the configuration, by names of its own.

use std::net::SocketAddrV4;
use std::time::Duration;

use crate::config::model::{SlowClient, WorkerFull, WorkerPick};
use crate::hub::queues::QueueLimits;
use crate::wire::forwarded::Proxies;

/// See the module. Built by the shard, which knows the whole configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Number of this machine in the mesh.
    pub node: u16,
    /// Connections that the process may hold, over all shards.
    pub connections_max: u32,
    /// Bytes that may wait for one client.
    pub outbox_bytes_max: u32,
    /// What happens to a client whose outbox is full.
    pub slow_client: SlowClient,
    /// Time for a new connection to finish its TLS and HTTP handshakes.
    pub handshake_timeout: Duration,
    /// Time between a close frame and the end of the connection, if the peer does not answer.
    pub close_timeout: Duration,
    /// -2..=9; 0 switches permessage-deflate off.
    pub compression_level: i8,
    /// Whom it believes where a client comes from.
    pub proxies: Proxies,
    /// The address in the names of connections that workers are told.
    pub advertise: SocketAddrV4,
    pub workers: Workers,
    pub queues: QueueLimits,
    /// Bytes of one event of a queue topic.
    pub queue_event_bytes_max: usize,
    /// Messages per queue topic under way to a home that makes its pushers wait; beyond that each
    /// client may push one more.
    pub unaccepted_max: usize,
    /// Commands that may wait for their time.
    pub jobs_max: usize,
    /// Plain bytes that are encrypted for pushes in one turn.
    pub seal_bytes_per_turn: usize,
    /// Rooms have limits, so their members are counted.
    pub counts_rooms: bool,
}

/// How events of clients go to workers.
#[derive(Clone, Debug)]
pub struct Workers {
    pub pick: WorkerPick,
    pub on_full: WorkerFull,
    /// Frames that may wait for one worker, over all shards.
    pub queue_frames_max: u32,
    /// The same in bytes.
    pub queue_bytes_max: u32,
    /// Events have the session of their client.
    pub transfer_session: bool,
    /// Events have the topics of their client.
    pub transfer_topics: bool,
}
