//! The list of all families of metrics beside those of shards, which the table has: name, meaning,
//! type and unit, once. Who counts one names its constant here; elsewhere no [`Row`] can
//! be made.

use metrics::Unit;

use super::{MetricType, Row};

macro_rules! rows {
    ($($row:ident $name:literal $kind:ident $unit:ident $help:literal)*) => {
        $(
            #[doc = $help]
            pub const $row: Row =
                Row { name: $name, help: $help, kind: MetricType::$kind, unit: Unit::$unit };
        )*

        /// All of them.
        pub(super) const ALL: &[Row] = &[$($row,)*];
    };
}

rows! {
    DROPPED "ringway_dropped_total" Counter Count
        "Messages, events, opens and callbacks that were given up, by reason"
    TURN_AGE "ringway_shard_turn_age_seconds" Gauge Seconds
        "Time since the last turn of the loop began; more than 2 is a shard that stands still"
    PEER_PANICS "ringway_peer_panics_total" Counter Count
        "Connections of the admin server or push service that ended by a fault of the gateway"
    CALLBACK_FAILURES "ringway_callback_failures_total" Counter Count
        "Attempts of callbacks and hooks that failed, by callback and reason"
    RULE_CALL_FAILURES "ringway_rule_call_failures_total" Counter Count
        "HTTP requests of connmix rules that failed, by reason"
    UPSTREAM_CALLS "ringway_upstream_calls_total" Counter Count
        "Calls of xxim upstreams, by upstream and result"
    UPSTREAM_CIRCUIT_OPEN "ringway_upstream_circuit_open" Gauge Count
        "Whether the circuit of an upstream is open"
    UPSTREAM_CIRCUIT_OPENED "ringway_upstream_circuit_opened_total" Counter Count
        "How often the circuit of an upstream has opened"
    MESH_NODES "ringway_mesh_nodes" Gauge Count
        "Other nodes of the mesh"
    MESH_CONNECTED "ringway_mesh_connected" Gauge Count
        "1 while there is a link to NATS"
    MESH_BUCKETS "ringway_mesh_buckets" Gauge Count
        "Buckets that this node listens to"
    MESH_WANTED "ringway_mesh_wanted_buckets" Gauge Count
        "Buckets that other nodes listen to"
    MESH_QUEUED "ringway_mesh_queued_bytes" Gauge Bytes
        "Bytes that wait for the link"
    MESH_SENT "ringway_mesh_sent_total" Counter Count
        "Messages sent to other nodes"
    MESH_SENT_BYTES "ringway_mesh_sent_bytes_total" Counter Bytes
        "Bytes of those messages"
    MESH_RECEIVED "ringway_mesh_received_total" Counter Count
        "Messages of other nodes"
    MESH_RECEIVED_BYTES "ringway_mesh_received_bytes_total" Counter Bytes
        "Bytes of those"
    MESH_ASKED "ringway_mesh_requests_total" Counter Count
        "Requests to other nodes"
    MESH_UNANSWERED "ringway_mesh_requests_failed_total" Counter Count
        "Requests that not every node answered in time"
    MESH_RECONNECTS "ringway_mesh_reconnects_total" Counter Count
        "Links to NATS after the first"
    QUEUES_CONNECTED "ringway_queue_cluster_connected" Gauge Count
        "1 while JetStream has the stream of the queue topics"
    QUEUES_STORED "ringway_queue_cluster_messages" Gauge Count
        "Messages of all topics in JetStream, those that nodes have included"
    QUEUES_UNSTORED "ringway_queue_cluster_unstored_messages" Gauge Count
        "Pushes of this node that JetStream has not stored yet"
    QUEUES_UNSTORED_BYTES "ringway_queue_cluster_unstored_bytes" Gauge Bytes
        "Bytes of those"
    QUEUES_HELD "ringway_queue_cluster_held_messages" Gauge Count
        "Messages that this node has from JetStream and not written yet"
    QUEUES_HELD_BYTES "ringway_queue_cluster_held_bytes" Gauge Bytes
        "Bytes of those"
    QUEUES_TAKEN "ringway_queue_cluster_taken_total" Counter Count
        "Messages taken from JetStream for consumers of this node"
    QUEUES_REDELIVERED "ringway_queue_cluster_redelivered_total" Counter Count
        "Messages that JetStream has delivered to some node before"
    QUEUES_REPEATED "ringway_queue_cluster_repeated_total" Counter Count
        "Messages that this node knew already and did not deliver again"
    QUEUES_RETURNED "ringway_queue_cluster_returned_total" Counter Count
        "Messages given back to JetStream for other nodes"
    QUEUES_ACKNOWLEDGED "ringway_queue_cluster_acknowledged_total" Counter Count
        "Messages acknowledged after they were written to a consumer"
    BUILD "ringway_build_info" Gauge Count
        "Always 1; the version is in the label"
    START "process_start_time_seconds" Gauge Seconds
        "When the process started, in seconds of Unix time"
    MEMORY "process_resident_memory_bytes" Gauge Bytes
        "Resident memory"
    MEMORY_KINDS "ringway_resident_memory_bytes" Gauge Bytes
        "The same by kind: its own, of the program and its libraries, shared"
    DESCRIPTORS "process_open_fds" Gauge Count
        "Open file descriptors"
    DESCRIPTORS_MAX "process_max_fds" Gauge Count
        "File descriptors that the process may open"
    CPU "process_cpu_seconds_total" Counter Seconds
        "CPU time of all threads, user and system"
    THREAD_CPU "ringway_thread_cpu_seconds_total" Counter Seconds
        "CPU time of the threads of one name that run now, user and system"
    CONNMIX_CHANNELS "connmix_center_registry_channels_total" Counter Count
        "Topics with a member on this node; one on two shards counts on both"
    CONNMIX_CLIENTS "connmix_center_registry_clients" Gauge Count
        "Clients of this node, of all protocols"
    CONNMIX_NODES "connmix_center_registry_engine_nodes" Gauge Count
        "Nodes of the mesh, this one included"
    CONNMIX_SERVER_CLIENTS "connmix_engine_servers_clients" Gauge Count
        "connmix clients of this node"
    CONNMIX_READ "connmix_engine_servers_read_messages_total" Counter Count
        "Messages from connmix clients"
    CONNMIX_SEND_ERRORS "connmix_engine_servers_send_errors_total" Counter Count
        "Messages that could not be written to connmix clients"
    CONNMIX_SENT "connmix_engine_servers_send_messages_total" Counter Count
        "Messages written to connmix clients"
    CONNMIX_SEND_DURATION "connmix_engine_servers_send_duration_seconds" Summary Seconds
        "Time until a message was written to a connmix client, of a sample of them, over ten \
         minutes"
}
