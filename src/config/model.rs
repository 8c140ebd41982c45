//! The typed configuration: what the rest of the program sees after the file, the environment and
//! the defaults are merged and checked.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use super::choice::{Choice, choice, words};
pub use super::connmix::Connmix;
pub use super::connmix_server::*;
pub use super::im::{Forward, GzipServer, Im};
use super::listeners::ListenerProtocol;
pub use super::login::{Jwt, JwtAlgorithm, LoginSettings, Verifier};
pub use super::mesh::Mesh;
pub use super::xxim::{Xxim, XximKey};
pub use super::xxim_push::{PushBounds, XximPushService};
pub use super::xxim_upstream::{
    Tags, XximHooks, XximMode, XximRoute, XximTarget, XximUpstream, XximUpstreams,
};
pub use crate::protocols::netsvr::wire::Generation;
pub use crate::wire::origin::{OriginMode, Origins};

/// Everything `ringway serve` needs to know. Built by [`crate::config::load`] or
/// [`Config::demo`]; every value is within the bounds of [`crate::limits`].
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Number of this machine in the mesh, 1..=1023; part of connmix client ids.
    pub node: u16,
    pub runtime: Runtime,
    pub listeners: Vec<Listener>,
    pub netsvr: Netsvr,
    pub sidecar: Sidecar,
    pub login: LoginSettings,
    pub xxim: Xxim,
    /// `[[xxim.upstream]]`, `[[xxim.route]]`, `[xxim.hooks]`, `[xxim.push]`.
    pub xxim_upstreams: XximUpstreams,
    pub connmix: Connmix,
    /// `[[connmix.server]]`, in order.
    pub connmix_servers: Vec<ConnmixServer>,
    pub im: Im,
    pub mesh: Mesh,
    pub admin: Admin,
    pub log: Log,
}

/// Threads, memory and the life of the process.
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    /// CPUs to use, one shard each. Never empty.
    pub cpus: Vec<usize>,
    /// Client and backend connections that the process may hold, over all shards.
    pub connections_max: u32,
    /// Bytes that may wait for one client.
    pub outbox_bytes_max: u32,
    /// What happens to a client whose outbox is full.
    pub slow_client: SlowClient,
    /// Messages that may wait in one shard's mailbox.
    pub mailbox_messages_max: u32,
    /// Receive buffers per shard; a power of two.
    pub receive_buffers: u16,
    /// Bytes of one receive buffer.
    pub receive_buffer_bytes: u32,
    /// Time for a new connection to finish its TLS and HTTP handshakes.
    pub handshake_timeout: Duration,
    /// Time between a close frame and the end of the connection, if the peer does not answer.
    pub close_timeout: Duration,
    /// Time that SIGTERM allows for draining; then the process exits with code 1.
    pub shutdown_timeout: Duration,
    /// How long a thread may stand still before the process ends itself; zero: for ever.
    pub watchdog: Duration,
}

/// `[sidecar]`: the threads beside the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// Threads for calls of upstreams, hooks and pushes.
    pub threads: u16,
    /// Redirects that a call may take where any are followed.
    pub redirects_max: u32,
    /// For how long connections to backends are kept for the next call.
    pub idle_timeout: Duration,
}

impl Default for Sidecar {
    fn default() -> Sidecar {
        Sidecar { threads: 1, redirects_max: 10, idle_timeout: Duration::from_secs(4) }
    }
}

/// The rule for a client that does not read once its buffer is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowClient {
    /// Close it with 1008 `slow consumer`.
    Close,
    /// Drop the new frame and keep the connection.
    Drop,
}

words!(SlowClient { Close = "close", Drop = "drop" });

/// One `[[listener]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub bind: SocketAddr,
    pub tls: Option<TlsFiles>,
    pub service: Service,
}

impl Listener {
    /// Whether other machines may reach it and need no certificate.
    pub fn lets_everybody_in(&self) -> bool {
        let verified = self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        !self.bind.ip().is_loopback() && !verified
    }
}

/// PEM files of a TLS listener; read at start and again at SIGHUP.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Certificates of the authorities whose client certificates are required (mutual TLS).
    pub client_ca: Option<PathBuf>,
}

/// What a listener speaks.
#[derive(Clone, Debug, PartialEq)]
pub enum Service {
    /// HTTP upgrade to WebSocket; the path selects the protocol.
    Http(Vec<Route>),
    /// netsvr business processes that register for events; see [`WorkerCommands`].
    NetsvrWorker,
    /// netsvr business processes that send commands and queries; see [`WorkerCommands`].
    NetsvrTask,
    /// xxim clients over TCP (xxim section 7.2).
    XximTcp,
    /// connmix backends: HTTP, and WebSocket on `/ws/v1` (connmix section 1).
    ConnmixApi,
    /// connmix clients over TCP, with the number of their server.
    Connmix { server: u16 },
    /// IM clients over TCP.
    Im,
}

impl Service {
    /// What is spoken, by a name that nodes of all versions know.
    pub fn id(&self) -> &'static str {
        let protocol = match self {
            Service::Http(_) => return "http",
            Service::NetsvrWorker => ListenerProtocol::NetsvrWorker,
            Service::NetsvrTask => ListenerProtocol::NetsvrTask,
            Service::XximTcp => ListenerProtocol::XximTcp,
            Service::ConnmixApi => ListenerProtocol::ConnmixApi,
            Service::Connmix { .. } => ListenerProtocol::Connmix,
            Service::Im => ListenerProtocol::Im,
        };
        protocol.word()
    }

    /// In words, for people.
    pub fn describe(&self) -> &'static str {
        match self {
            Service::Http(_) => "WebSocket clients",
            Service::NetsvrWorker => "netsvr workers",
            Service::NetsvrTask => "netsvr tasks",
            Service::XximTcp => "xxim clients",
            Service::ConnmixApi => "connmix API",
            Service::Connmix { .. } => "connmix clients",
            Service::Im => "IM clients",
        }
    }
}

/// One path of an HTTP listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub path: String,
    pub protocol: ClientProtocol,
}

choice! {
    /// Protocols of WebSocket clients.
    pub enum ClientProtocol {
        Netsvr = "netsvr",
        Xxim = "xxim",
        /// With the number of the [`ConnmixServer`] whose rules these clients follow.
        Connmix { server: u16 = 0 } = "connmix",
        Im = "im",
        Echo = "echo",
    }
}

/// `[netsvr]`: netsvr specification section 8, with its defaults unless the document says
/// otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Netsvr {
    pub generation: Generation,
    /// The address that uniqIds carry and SDKs are configured with: by default that of the task
    /// listener (generation 6) or of the worker listener (generation 5).
    pub advertise: SocketAddrV4,
    pub customer: NetsvrCustomer,
    pub worker: NetsvrWorker,
    pub task: NetsvrTask,
    pub limit: NetsvrLimit,
    /// Commands reach the clients of every node of the mesh, and queries are about them.
    pub cluster: bool,
    /// Metric items (1..=13) that the `Metrics` command reports.
    pub metrics_items: Vec<u8>,
}

/// Client side of netsvr.
#[derive(Clone, Debug, PartialEq)]
pub struct NetsvrCustomer {
    /// Pages whose clients may come in.
    pub allow_origin: Origins,
    /// A client that sends nothing for longer is closed with 1001.
    pub heartbeat_interval: Duration,
    pub heartbeat_message: Vec<u8>,
    /// Accepted WebSocket connections of the process; more are refused with 1013.
    pub max_online: u32,
    /// Bytes of one client message, after inflating.
    pub receive_pack_limit: u32,
    pub send_message_type: MessageType,
    /// -2..=9; 0 switches permessage-deflate off.
    pub compression_level: i8,
    pub on_open_callback_api: Option<String>,
    pub on_close_callback_api: Option<String>,
    pub callback_api_deadline: Duration,
    /// Callbacks of one shard that may be under way at the same time; further ones wait.
    pub callbacks_max: u32,
    /// Closes of one shard that may wait for their callback; further ones go without.
    pub close_callbacks_max: u32,
    pub limit_window: Duration,
    pub limit_window_max_requests: u32,
    pub limit_zero_window_max_requests: u32,
}

/// Opcode of frames to netsvr clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    Text,
    Binary,
}

words!(MessageType { Text = "text", Binary = "binary" });

/// Connections of business processes that register for events.
#[derive(Clone, Debug, PartialEq)]
pub struct NetsvrWorker {
    pub read_deadline: Duration,
    pub send_deadline: Duration,
    pub receive_pack_limit: u32,
    pub heartbeat_message: Vec<u8>,
    pub pick: WorkerPick,
    pub on_full: WorkerFull,
    pub commands: WorkerCommands,
    /// Frames that may wait for one worker.
    pub queue_frames_max: u32,
    /// Bytes that may wait for one worker.
    pub queue_bytes_max: u32,
    /// Repeat the session in every Transfer (netsvr W12).
    pub transfer_session: bool,
    /// Repeat the topics in every Transfer (netsvr W12).
    pub transfer_topics: bool,
    /// Time after the answer to Register during which events wait (netsvr section 6.2).
    pub register_delay: Duration,
}

/// Which worker gets an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerPick {
    /// Round-robin per event.
    RoundRobin,
    /// One client's events stay with one worker while it lives.
    Sticky,
}

words!(WorkerPick { RoundRobin = "round-robin", Sticky = "sticky" });

/// Which commands the listeners for business processes take (netsvr section 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerCommands {
    /// Each takes all.
    Both,
    /// A connection that sends the other listener's is closed.
    Own,
}

words!(WorkerCommands { Both = "both", Own = "own" });

/// What happens to events while every worker's queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerFull {
    /// Stop reading the clients that feed it.
    Wait,
    /// Drop the event and count it.
    Drop,
}

words!(WorkerFull { Wait = "wait", Drop = "drop" });

/// Connections of business processes that send commands.
#[derive(Clone, Debug, PartialEq)]
pub struct NetsvrTask {
    pub read_deadline: Duration,
    pub send_deadline: Duration,
    pub receive_pack_limit: u32,
    pub heartbeat_message: Vec<u8>,
}

/// The two global limiters (netsvr section 6.8); 0 is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetsvrLimit {
    pub on_open: u32,
    pub on_message: u32,
}

/// `/metrics`, `/healthz`, `/readyz`.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// `None` switches the admin server off.
    pub bind: Option<SocketAddr>,
    pub connections_max: u32,
    /// For one connection, from accept to the last byte.
    pub request_timeout: Duration,
}

/// Where and how much is logged.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// `tracing` filter, e.g. `info` or `ringway::shard=debug`.
    pub filter: String,
    /// JSON lines instead of text.
    pub json: bool,
}
