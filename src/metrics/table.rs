//! The table of everything that shards count: name, meaning, type and unit, once.
//!
//! A line here is a field of [`Counters`] or [`Gauges`], a cell of what shards publish and a family
//! on `/metrics`. Names follow Prometheus: base units, `_total` for counters.

use metrics::Unit;

use super::rates::ITEMS;

/// One family of metrics. Made in the lists of this folder alone.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: MetricType,
    pub(super) unit: Unit,
}

/// Prometheus type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricType {
    Counter,
    Gauge,
    Summary,
}

impl MetricType {
    /// The word in a `# TYPE` line.
    pub const fn name(self) -> &'static str {
        match self {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Summary => "summary",
        }
    }
}

/// Why something that was accepted was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum DropReason {
    /// No worker has registered for the event.
    NoWorker,
    /// Every worker's queue is full and the configuration says drop.
    WorkerFull,
    /// A worker ended or unregistered, and nobody was left to take what waited for room.
    WorkerLost,
    /// The client does not read.
    SlowClient,
    /// The connection was closing.
    Closing,
    /// The limiter of opens refused the client (netsvr metric item 8).
    OpenLimiter,
    /// The limiter of all messages (netsvr metric item 9).
    MessageLimiter,
    /// The limiter of one connection's messages (netsvr metric item 13).
    ConnectionLimiter,
    /// Too many delayed kicks wait.
    TooManyJobs,
    /// A queue topic had no room, or there were too many topics (connmix section 3.1).
    QueueRefused,
    /// The oldest message of a full queue topic made room (connmix section 3.1).
    QueueOldest,
    /// JetStream did not take a message of a queue topic in time, or too many wait for it.
    QueueUnstored,
    /// Too many callbacks at close wait; the event itself is not dropped.
    CallbackSkipped,
    /// No rule is about this message of a connmix client.
    NoRule,
    /// Too much waits for the link to other nodes.
    MeshFull,
    /// The process ended first: frames that clients had not taken, events that workers had not, and
    /// messages in queue topics of the process.
    Shutdown,
    /// A guest may not speak (IM).
    Guest,
    /// The sender is not in the room, or there can be no such room (IM).
    NotInRoom,
    /// What the client sent can not be read, or is not allowed (IM).
    Malformed,
    /// The limiter of one room's messages (IM).
    RoomLimiter,
    /// It is too large for the receiver's protocol.
    TooLarge,
    /// An xxim connection ended before what it had sent was carried out; once per connection.
    Unread,
}

impl DropReason {
    /// Every reason, in the order of their numbers.
    pub const ALL: [DropReason; 22] = [
        DropReason::NoWorker,
        DropReason::WorkerFull,
        DropReason::WorkerLost,
        DropReason::SlowClient,
        DropReason::Closing,
        DropReason::OpenLimiter,
        DropReason::MessageLimiter,
        DropReason::ConnectionLimiter,
        DropReason::TooManyJobs,
        DropReason::QueueRefused,
        DropReason::QueueOldest,
        DropReason::QueueUnstored,
        DropReason::CallbackSkipped,
        DropReason::NoRule,
        DropReason::MeshFull,
        DropReason::Shutdown,
        DropReason::Guest,
        DropReason::NotInRoom,
        DropReason::Malformed,
        DropReason::RoomLimiter,
        DropReason::TooLarge,
        DropReason::Unread,
    ];

    /// Value of the label `reason`.
    pub const fn label(self) -> &'static str {
        match self {
            DropReason::NoWorker => "no_worker",
            DropReason::WorkerFull => "worker_full",
            DropReason::WorkerLost => "worker_lost",
            DropReason::SlowClient => "slow_client",
            DropReason::Closing => "closing",
            DropReason::OpenLimiter => "open_limiter",
            DropReason::MessageLimiter => "message_limiter",
            DropReason::ConnectionLimiter => "connection_limiter",
            DropReason::TooManyJobs => "too_many_jobs",
            DropReason::QueueRefused => "queue_refused",
            DropReason::QueueOldest => "queue_oldest",
            DropReason::QueueUnstored => "queue_unstored",
            DropReason::CallbackSkipped => "callback_skipped",
            DropReason::NoRule => "no_rule",
            DropReason::MeshFull => "mesh_full",
            DropReason::Shutdown => "shutdown",
            DropReason::Guest => "guest",
            DropReason::NotInRoom => "not_in_room",
            DropReason::Malformed => "malformed",
            DropReason::RoomLimiter => "room_limiter",
            DropReason::TooLarge => "too_large",
            DropReason::Unread => "unread",
        }
    }
}

macro_rules! table {
    (
        $(#[$doc:meta])*
        $table:ident: $kind:ident $(+ $(#[$extra_doc:meta])* $extra:ident: $extra_type:ty)?;
        $($field:ident $name:literal $unit:ident $help:literal)*
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $table {
            $(#[doc = $help] pub $field: u64,)*
            $($(#[$extra_doc])* pub $extra: $extra_type,)?
        }

        impl $table {
            /// The families, in the order of their values.
            pub const ROWS: &'static [Row] = &[
                $(Row { name: $name, help: $help, kind: MetricType::$kind, unit: Unit::$unit },)*
            ];

            /// The numbers that have a row.
            pub(super) fn values(&self) -> impl Iterator<Item = u64> + use<> {
                [$(self.$field,)*].into_iter()
            }
        }
    };
}

table! {
    /// What one shard has counted since the process started. Plain integers, changed in place.
    Counters: Counter
        + /// By [`DropReason`]; use [`Counters::count_dropped`].
          dropped: [u64; DropReason::ALL.len()];

    connections_accepted "ringway_connections_accepted_total" Count
        "Connections accepted, of clients and of backends"
    accept_failures "ringway_accept_failures_total" Count
        "Accepts that failed, mostly for want of descriptors"
    connections_refused "ringway_connections_refused_total" Count
        "Connections closed at once, at the limit of connections or while draining"
    proxy_headers_refused "ringway_proxy_headers_refused_total" Count
        "Connections closed for want of a good PROXY header"
    upgrades_refused "ringway_upgrades_refused_total" Count
        "HTTP requests answered with something else than an upgrade"
    handshake_timeouts "ringway_handshake_timeouts_total" Count
        "Connections that did not finish their TLS or HTTP handshake in time"
    tls_handshakes "ringway_tls_handshakes_total" Count
        "TLS handshakes finished"
    tls_failures "ringway_tls_failures_total" Count
        "TLS handshakes and sessions that failed"
    opens_refused "ringway_opens_refused_total" Count
        "Clients closed after the upgrade because they were not let in, for whatever reason"
    opens "ringway_clients_opened_total" Count
        "Clients whose open was allowed (netsvr metric item 1)"
    closes "ringway_clients_closed_total" Count
        "Client connections that ended (netsvr metric item 2)"
    heartbeats "ringway_client_heartbeats_total" Count
        "Heartbeat messages and ping frames of clients (netsvr metric item 3)"
    idle_timeouts "ringway_idle_timeouts_total" Count
        "Connections closed because nothing arrived on them"
    protocol_violations "ringway_protocol_violations_total" Count
        "Connections closed because of what the peer sent"
    slow_client_closes "ringway_slow_clients_closed_total" Count
        "Clients closed because they did not read what was sent to them"
    clients_drained "ringway_drain_clients_closed_total" Count
        "Clients whose turn in a drain has come"
    pongs_dropped "ringway_pongs_dropped_total" Count
        "Pongs given up for a newer one because too much waited (RFC 6455 section 5.5.3)"
    messages_received "ringway_client_messages_received_total" Count
        "Messages from clients"
    message_bytes_received "ringway_client_messages_received_bytes_total" Bytes
        "Bytes of those messages, after inflating"
    events "ringway_worker_events_total" Count
        "Frames with events handed to workers (netsvr metric item 4)"
    event_bytes "ringway_worker_events_bytes_total" Bytes
        "Bytes of those frames (netsvr metric item 5)"
    events_failed "ringway_worker_events_failed_total" Count
        "Failures to hand an event to a worker (netsvr metric item 10)"
    events_rerouted "ringway_worker_events_rerouted_total" Count
        "Events given to another worker because theirs had gone"
    clients_blocked "ringway_clients_blocked_total" Count
        "Times a client was not read because every worker's queue was full"
    frames_written "ringway_client_frames_written_total" Count
        "Frames with data written to clients (netsvr metric item 6)"
    frame_bytes_written "ringway_client_frames_written_bytes_total" Bytes
        "Bytes of those frames (netsvr metric item 7)"
    frames_failed "ringway_client_frames_failed_total" Count
        "Frames that could not be written to clients (netsvr metric item 11)"
    frame_bytes_failed "ringway_client_frames_failed_bytes_total" Bytes
        "Bytes of those frames (netsvr metric item 12)"
    im_frames_received "ringway_im_frames_received_total" Count
        "Complete frames of IM clients"
    im_errors "ringway_im_errors_total" Count
        "Responses to IM clients whose status is not OK"
    im_logins "ringway_im_logins_total" Count
        "Logins of IM clients that succeeded, as guest or as user"
    im_messages "ringway_im_messages_total" Count
        "Messages for rooms that were put into the room's order, on the room's home shard"
    im_batches "ringway_im_batches_total" Count
        "Batches of room messages that this shard has sent to its members"
    im_batch_messages "ringway_im_batch_messages_total" Count
        "Messages in those batches"
    im_notifications "ringway_im_notifications_total" Count
        "CR_NOTIFY frames queued for clients"
    im_deliveries "ringway_im_deliveries_total" Count
        "Room messages in those frames"
    im_inflated "ringway_im_inflated_bytes_total" Bytes
        "Bytes of compressed bodies from IM clients, before inflating"
    im_deflated "ringway_im_deflated_bytes_total" Bytes
        "Bytes of notifications that were compressed, after compressing"
    rule_actions_failed "ringway_rule_actions_failed_total" Count
        "Actions of connmix rules that could not be done"
    commands "ringway_commands_total" Count
        "Commands received from backends, queries not included"
    queries "ringway_queries_total" Count
        "Queries received from backends"
    queue_pushed "ringway_queue_messages_pushed_total" Count
        "Messages accepted by queue topics"
    queue_delivered "ringway_queue_messages_delivered_total" Count
        "Messages of queue topics written to a consumer's socket"
    queue_returned "ringway_queue_messages_returned_total" Count
        "Messages taken back from consumers that ended before they were written"
    queue_refused "ringway_queue_messages_refused_total" Count
        "Messages that found their topic full, or one topic too many"
    connmix_websocket_received "ringway_connmix_websocket_messages_received_total" Count
        "Messages from connmix clients over WebSocket"
    connmix_socket_received "ringway_connmix_socket_messages_received_total" Count
        "Messages from connmix clients over TCP"
    connmix_websocket_sent "ringway_connmix_websocket_messages_sent_total" Count
        "Messages written to connmix clients over WebSocket"
    connmix_socket_sent "ringway_connmix_socket_messages_sent_total" Count
        "Messages written to connmix clients over TCP"
    connmix_websocket_failed "ringway_connmix_websocket_messages_failed_total" Count
        "Messages that could not be written to connmix clients over WebSocket"
    connmix_socket_failed "ringway_connmix_socket_messages_failed_total" Count
        "Messages that could not be written to connmix clients over TCP"
    api_requests "ringway_connmix_api_requests_total" Count
        "Requests to the connmix API, over HTTP and WebSocket"
    api_faults "ringway_connmix_api_faults_total" Count
        "Of those, requests answered with an invalid parameter or an HTTP error"
    callbacks_started "ringway_callbacks_started_total" Count
        "HTTP callbacks handed to the sidecar"
    callbacks_denied "ringway_callbacks_denied_total" Count
        "Clients closed because their open callback said no"
    callbacks_failed "ringway_callbacks_failed_total" Count
        "Clients closed because their open callback failed"
    xxim_requests "ringway_xxim_requests_total" Count
        "Requests of xxim clients, those that the gateway answers itself included"
    xxim_forwarded "ringway_xxim_requests_forwarded_total" Count
        "Requests of xxim clients that were handed to an upstream"
    xxim_checks "ringway_xxim_requests_checked_total" Count
        "Requests of xxim clients about which the hook before_request was asked"
    xxim_logins "ringway_xxim_logins_total" Count
        "Logins of xxim clients that were accepted"
    xxim_displaced "ringway_xxim_displaced_total" Count
        "xxim clients closed because the same device of the user logged in again"
    xxim_text_ignored "ringway_xxim_text_messages_ignored_total" Count
        "Text messages of xxim clients, which mean nothing"
    xxim_decrypt_failures "ringway_xxim_decrypt_failures_total" Count
        "xxim clients closed because a message was no ciphertext under their key"
    xxim_unwraps "ringway_xxim_key_decryptions_total" Count
        "Pairs of RSA ciphertexts of xxim clients that were handed to a thread"
    xxim_unwraps_failed "ringway_xxim_key_decryptions_failed_total" Count
        "Pairs that were no RSA ciphertexts of the key"
    xxim_large "ringway_xxim_large_messages_total" Count
        "Messages to xxim clients above 32768 bytes, which clients with default settings refuse"
    mail_sent "ringway_mail_sent_total" Count
        "Messages sent to other shards"
    mail_overflowed "ringway_mail_overflowed_total" Count
        "Messages kept back because the mailbox of the other shard was full"
    turns "ringway_turns_total" Count
        "Turns of the loop in which something happened"
    sleeps "ringway_sleeps_total" Count
        "Times the loop waited for something to do"
    sends "ringway_socket_sends_total" Count
        "Send operations given to the kernel"
    sends_stalled "ringway_socket_sends_stalled_total" Count
        "Send operations that had to wait for the peer"
    receives "ringway_socket_receives_total" Count
        "Receive completions with data"
    receive_buffers_exhausted "ringway_receive_buffers_exhausted_total" Count
        "Times the kernel found no receive buffer"
}

table! {
    /// What one shard has at the moment.
    Gauges: Gauge;

    connections "ringway_connections" Count
        "Open connections, of clients and of backends"
    clients "ringway_clients" Count
        "Clients whose open was allowed"
    workers "ringway_workers" Count
        "Registered worker connections of this shard"
    users "ringway_users" Count
        "Users with a connection on this shard; one on two shards counts on both"
    topics "ringway_topics" Count
        "Topics with a member on this shard; one on two shards counts on both"
    subscriptions "ringway_subscriptions" Count
        "Pairs of client and topic"
    event_queue_frames "ringway_worker_queue_frames" Count
        "Frames that wait to be written to the workers of this shard"
    event_queue_bytes "ringway_worker_queue_bytes" Bytes
        "Bytes of those frames"
    queue_messages "ringway_queue_messages" Count
        "Messages that wait in queue topics of this shard"
    queue_oldest_s "ringway_queue_oldest_age_seconds" Seconds
        "Age of the oldest of them"
    queue_topics "ringway_queue_topics" Count
        "Queue topics of this shard"
    queue_consumers "ringway_queue_consumers" Count
        "Connections that consume queue topics of this shard"
    clients_waiting "ringway_clients_waiting" Count
        "Clients that are not read until a worker's queue has room"
    connections_stalled "ringway_connections_stalled" Count
        "Connections whose peer does not take what is being sent"
    drain_waiting "ringway_drain_clients_waiting" Count
        "Clients whose turn in a drain has not come"
    connmix_clients "ringway_connmix_clients" Count
        "connmix clients"
    im_guests "ringway_im_guests" Count
        "IM clients that are logged in as guests"
    im_users "ringway_im_users" Count
        "IM clients that are logged in as users"
    im_batches_open "ringway_im_batches_open" Count
        "Rooms whose batch waits to be sent"
    xxim_keys_waiting "ringway_xxim_keys_waiting" Count
        "xxim clients whose keys wait for their turn to be decrypted"
    receive_buffer_bytes "ringway_receive_buffer_bytes" Bytes
        "Receive buffers that have been used lately and so take memory"
    timers "ringway_timers" Count
        "Armed timers"
}

impl Counters {
    /// Counts messages, events or opens that end here.
    pub fn count_dropped(&mut self, reason: DropReason, count: u64) {
        self.dropped[reason as usize] += count;
    }

    /// netsvr's 13 metric items (netsvr section 4.4); items 8, 9 and 13 are reasons of drops.
    pub fn items(&self) -> [u64; ITEMS] {
        let dropped = |reason| self.dropped[reason as usize];
        [
            self.opens,
            self.closes,
            self.heartbeats,
            self.events,
            self.event_bytes,
            self.frames_written,
            self.frame_bytes_written,
            dropped(DropReason::OpenLimiter),
            dropped(DropReason::MessageLimiter),
            self.events_failed,
            self.frames_failed,
            self.frame_bytes_failed,
            dropped(DropReason::ConnectionLimiter),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_in_order() {
        for (number, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
        }
    }

    #[test]
    fn every_item_has_a_counter_of_its_own() {
        let mut counters = Counters {
            opens: 1,
            closes: 2,
            heartbeats: 3,
            events: 4,
            event_bytes: 5,
            frames_written: 6,
            frame_bytes_written: 7,
            events_failed: 10,
            frames_failed: 11,
            frame_bytes_failed: 12,
            ..Counters::default()
        };
        counters.count_dropped(DropReason::OpenLimiter, 8);
        counters.count_dropped(DropReason::MessageLimiter, 9);
        counters.count_dropped(DropReason::ConnectionLimiter, 13);
        assert_eq!(counters.items(), std::array::from_fn(|item| item as u64 + 1));
    }
}
