//! The typed configuration of the process and its listeners: what the rest of the program sees
//! after the file, the environment and the defaults are merged and checked. Protocols and paths are
//! named by their words; what a protocol is configured to be is in its folder.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::choice::{Choice, choice, words};
use super::listeners::ListenerProtocol;
pub use super::login::{Jwt, JwtAlgorithm, LoginSettings, Verifier};
pub use super::mesh::Mesh;
pub use crate::wire::origin::{OriginMode, Origins};

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
    /// Time for what is left when every client has been told to leave; then the process exits with
    /// code 1.
    pub shutdown_timeout: Duration,
    pub drain: Drain,
    /// How long a thread may stand still before the process ends itself; zero: for ever.
    pub watchdog: Duration,
}

/// `[runtime.drain]`: how clients are said goodbye to at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Between not being ready and the end of accepting.
    pub delay: Duration,
    /// Over which the closes are spread; zero: all at once.
    pub spread: Duration,
    /// Close code, one that an endpoint may send.
    pub code: u16,
    /// How much of the time to the next close one is put off, 0 to 100 percent.
    pub jitter: u8,
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
    pub proxy: ProxyProtocol,
    /// The name under which a supervisor passes its socket on, if one does.
    pub socket: Option<String>,
    pub tls: Option<TlsFiles>,
    pub service: Service,
}

/// Whether connections begin with a header of the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// No.
    #[default]
    Off,
    /// Those of trusted proxies may.
    Accept,
    /// All of them, and there are none but those of trusted proxies.
    Require,
}

words!(ProxyProtocol { Off = "off", Accept = "accept", Require = "require" });

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
    /// netsvr business processes that register for events; see `netsvr.worker.commands`.
    NetsvrWorker,
    /// netsvr business processes that send commands and queries; see `netsvr.worker.commands`.
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
        /// With the number of the `[[connmix.server]]` whose rules these clients follow.
        Connmix { server: u16 = 0 } = "connmix",
        Im = "im",
        Echo = "echo",
    }
}

/// Opcode of messages to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    Text,
    Binary,
}

words!(MessageType { Text = "text", Binary = "binary" });

/// Which worker gets an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerPick {
    /// Round-robin per event.
    RoundRobin,
    /// One client's events stay with one worker while it lives.
    Sticky,
}

words!(WorkerPick { RoundRobin = "round-robin", Sticky = "sticky" });

/// What happens to events while every worker's queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerFull {
    /// Stop reading the clients that feed it.
    Wait,
    /// Drop the event and count it.
    Drop,
}

words!(WorkerFull { Wait = "wait", Drop = "drop" });

/// `/metrics`, `/healthz`, `/readyz`.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// `None`: it has no port.
    pub bind: Option<SocketAddr>,
    /// `None`: it has no socket in the file system.
    pub socket: Option<PathBuf>,
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
