//! Puts the process together: sockets, services, reload, drain, stop.
//!
//! Everything that has a thread is a `Service`, and `start_services` lists them: a new thread is a
//! new entry. They are started from the first to the last, and reloaded, drained and stopped from
//! the last to the first. The ways between them are made before (`channels`). Shards come last:
//! they ask all others, and no client is accepted before those are there.
//!
//! Everything that can fail at start fails here, before the first client is accepted, with a
//! sentence that says what to do.

mod channels;
mod drain;
mod mesh;
mod passed;
mod queues;
mod service;
mod shards;
mod sidecar;
mod sockets;
pub mod supervisor;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::config;
use crate::config::all::Config;
use crate::engine::ListenerSettings;
use crate::engine::Shared;
use crate::engine::clock::Clock;
use crate::engine::driver::Ways;
use crate::life::{Life, watch as watchdog};
use crate::limits;
use crate::log::target;
use crate::machine::{self, MachineError};
use crate::metrics::{DropReason, Registry};
use crate::patience::Patience;
use crate::rsa_keys::RsaKeyError;
use crate::sidecar::mesh::MeshStartError;
use crate::sidecar::{Phase, Readiness};
use crate::tls_files::TlsFilesError;
use channels::Ends;
use drain::{Bell, End};
use service::{Service, Started};
use sockets::Sockets;

pub use drain::Hurry;

/// Descriptors beside those of connections that the table has room for from the start.
const OWN_DESCRIPTORS: u32 = 1024;

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("can not listen on {address} ({what}): {reason}")]
    Bind { address: SocketAddr, what: &'static str, reason: String },
    #[error("the socket {name:?} can not be listened on: {problem}")]
    Passed { name: String, problem: String },
    #[error("admin.socket can not be made at {}: {reason}", path.display())]
    Socket { path: PathBuf, reason: String },
    #[error(transparent)]
    Tls(#[from] TlsFilesError),
    #[error(transparent)]
    RsaKey(#[from] RsaKeyError),
    #[error(transparent)]
    Mesh(#[from] MeshStartError),
    #[error("a mailbox can not be made: {0}; raise the limit of open files (`ulimit -n`)")]
    Mailbox(io::Error),
    #[error("the system gives no random numbers: {0}; allow getrandom(2)")]
    Random(io::Error),
    #[error("the {what} can not start: {error}")]
    Service { what: &'static str, error: io::Error },
    #[error("the thread of shard {shard} can not start on CPU {cpu}: {reason}")]
    Thread { shard: usize, cpu: usize, reason: String },
    #[error("a shard can not run: {0}")]
    Shard(String),
}

/// What is there before the first thread starts; every service is made with it.
#[derive(Clone)]
struct Common {
    config: Arc<Config>,
    listeners: Vec<ListenerSettings>,
    shared: Arc<Shared>,
    registry: Arc<Registry>,
    readiness: Arc<Readiness>,
    clock: Clock,
    /// Counts from the same moment as the clock.
    life: Life,
    ways: Ways,
}

impl Common {
    fn new(config: Config, addresses: &[SocketAddr]) -> Result<(Common, Ends), StartError> {
        let listeners = sockets::listener_settings(&config, addresses)?;
        let clock = Clock::start();
        let life = Life::new(clock.started());
        let shared = crate::shard::settings::shared(&config, random()?);
        let (ways, ends) = channels::open(&config, &shared, &life)?;
        let registry = Arc::new(Registry::new(ways.shards.len()));
        let (config, readiness) = (Arc::new(config), Arc::default());
        let common = Common { config, listeners, shared, registry, readiness, clock, life, ways };
        Ok((common, ends))
    }
}

/// The list of services; see the module.
fn start_services(
    common: &Common,
    ends: Ends,
    sockets: Sockets,
) -> Result<Vec<Box<dyn Service>>, StartError> {
    let Sockets { listeners, services: bound, .. } = sockets;
    let (calls, called) = ends.calls;
    let services = [
        sidecar::start(common, ends.sidecar, bound, called)?,
        mesh::start(common, ends.mesh, calls)?,
        queues::start(common, ends.queues)?,
        start_watchdog(common)?,
        shards::start(common, ends.mailboxes, listeners)?,
    ];
    Ok(services.into_iter().flatten().collect())
}

/// It ends by itself when the gateway stops.
fn start_watchdog(common: &Common) -> Started {
    let limit = common.config.runtime.watchdog;
    let started = watchdog::start(&common.life, limit).map(|()| None);
    started.map_err(|error| StartError::Service { what: "watchdog's thread", error })
}

/// A number that nobody can guess.
fn random() -> Result<u32, StartError> {
    let mut bytes = [0; 4];
    getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|e| StartError::Random(e.into()))?;
    Ok(u32::from_ne_bytes(bytes))
}

/// A running gateway. Dropping it without [`Gateway::shut_down`] leaves its threads running.
pub struct Gateway {
    common: Common,
    admin: Option<SocketAddr>,
    push: Option<SocketAddr>,
    services: Vec<Box<dyn Service>>,
    bell: Bell,
}

impl Gateway {
    /// Tries what it needs, binds, starts all threads and waits until every shard listens.
    ///
    /// # Errors
    /// What is in the way. Threads that run already are left behind: the process is to end.
    pub fn start(mut config: Config) -> Result<Gateway, StartError> {
        let patience = Patience::new(limits::RESTART_PATIENCE);
        machine::prepare(&config, patience)?;
        config::reserve_descriptors(config.runtime.connections_max.saturating_add(OWN_DESCRIPTORS));
        let sockets = Sockets::bind(&config, patience)?;
        let local = |socket: &TcpListener| socket.local_addr().ok();
        let admin = sockets.services.admin.as_ref().and_then(local);
        let push = sockets.services.push.as_ref().and_then(local);
        sockets::settle_advertised(&mut config, &sockets.addresses);
        let (common, ends) = Common::new(config, &sockets.addresses)?;
        let services = start_services(&common, ends, sockets);
        let services = services.inspect_err(|_| common.life.stop())?;
        common.readiness.set(Phase::Ready);
        let bell = Bell::new(&common.config.runtime);
        Ok(Gateway { common, admin, push, services, bell })
    }

    /// The address of each listener, in the order of the configuration; with the real ports where
    /// the configuration says 0.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.common.listeners.iter().map(|listener| listener.bound).collect()
    }

    /// The address of the admin server, if there is one.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The address of the push service of xxim backends, if there is one.
    pub fn push_address(&self) -> Option<SocketAddr> {
        self.push
    }

    /// What the gateway runs with.
    pub fn config(&self) -> &Config {
        &self.common.config
    }

    /// Reads the certificates again; connections that are there keep theirs. Nothing changes for a
    /// listener whose files can not be read.
    ///
    /// # Errors
    /// What is wrong with the first of those.
    pub fn reload_certificates(&self) -> Result<(), TlsFilesError> {
        let config = &self.common.config;
        let reloaded = self.services.iter().rev().map(|service| service.reload(config));
        reloaded.fold(Ok(()), Result::and)
    }

    /// The state of its threads.
    pub fn life(&self) -> &Life {
        &self.common.life
    }

    /// Has the drain that [`Gateway::shut_down`] begins hurry.
    pub fn hurry(&self) -> Hurry {
        self.bell.hurry()
    }

    /// Drains, as `runtime.drain` says: not ready any more, stops accepting, says goodbye to
    /// clients, delivers their events, closes everything. Returns whether that was finished within
    /// `runtime.shutdown_timeout` after the last goodbye was due.
    pub fn shut_down(self) -> bool {
        let Gateway { common, services, bell, .. } = self;
        common.readiness.set(Phase::Draining);
        let mut end = End::begin(&common.config.runtime, bell, common.registry.clone());
        services.iter().rev().for_each(|service| service.drain(&mut end));
        common.life.stop();
        services.into_iter().rev().for_each(|service| service.stop(&mut end));
        // Shards that have not ended could not say what they give up; what waited is lost then.
        let waiting = if end.finished { 0 } else { common.registry.waiting() };
        let lost = common.registry.dropped(DropReason::Shutdown) + waiting;
        if lost > 0 {
            tracing::warn!(
                target: target::GATEWAY,
                lost, "messages that nobody took before the end of the process"
            );
        }
        end.finished
    }
}
