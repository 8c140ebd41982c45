//! Starts and stops a whole gateway: sockets, shards, sidecar.
//!
//! Everything that can fail at start fails here, before the first client is accepted, with a
//! sentence that says what to do.

mod mesh;
mod queues;
mod shards;
mod sidecar;
mod sockets;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rustix::rand::{GetRandomFlags, getrandom};
use rustls::ServerConfig;
use tokio::sync::watch;

use crate::config;
use crate::config::model::Config;
use crate::life::{Failure, Life, ages, shard_name, watch as watchdog};
use crate::limits;
use crate::machine::{self, MachineError};
use crate::mail::{BoundedSender, MailSender, UnboundedSender};
use crate::metrics::{DropReason, Registry};
use crate::patience::Patience;
use crate::rsa_keys::RsaKeyError;
use crate::shard::Shared;
use crate::shard::clock::Clock;
use crate::shard::driver::Notice;
use crate::shard::mailbox::{Mail, MeshRequest, QueueRequest, Request};
use crate::sidecar::mesh::MeshStartError;
use crate::sidecar::{self as sidecar_thread, Phase, Readiness};
use crate::tls_files::{self, TlsFilesError};
use mesh::{mesh_ends, start_mesh};
use queues::start_queues;
use shards::{Common, mailboxes, spawn_shards};
use sidecar::{requests_max, sidecar_settings};
use sockets::{PUSH_ALPN, alpn, bind_all, bind_push, listener_settings, settle_advertised};

/// Descriptors beside those of connections that the table has room for from the start.
const OWN_DESCRIPTORS: u32 = 1024;
/// How long new certificates wait for shards that take no mail.
const RELOAD_TIME: Duration = Duration::from_secs(1);
/// How long a shard may take to listen; none needs a hundredth of it.
const SHARD_START_TIME: Duration = Duration::from_secs(20);
const NOT_READY: &str = "it does not begin; its CPU may be taken by something else";

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("can not listen on {address} ({what}): {reason}")]
    Bind { address: SocketAddr, what: &'static str, reason: String },
    #[error(transparent)]
    Tls(#[from] TlsFilesError),
    #[error(transparent)]
    RsaKey(#[from] RsaKeyError),
    #[error("the sidecar thread can not start: {0}")]
    Sidecar(io::Error),
    #[error(transparent)]
    Mesh(#[from] MeshStartError),
    #[error("a mailbox can not be made: {0}; raise the limit of open files (`ulimit -n`)")]
    Mailbox(io::Error),
    #[error("the system gives no random numbers: {0}; allow getrandom(2)")]
    Random(io::Error),
    #[error("the watchdog's thread can not start: {0}")]
    Watchdog(io::Error),
    #[error("the thread of shard {shard} can not start on CPU {cpu}: {reason}")]
    Thread { shard: usize, cpu: usize, reason: String },
    #[error("a shard can not run: {0}")]
    Shard(String),
}

/// A thread and the way to it.
type Thread<M> = (UnboundedSender<M>, JoinHandle<()>);

/// A running gateway. Dropping it without [`Gateway::shut_down`] leaves its threads running.
pub struct Gateway {
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    push: Option<SocketAddr>,
    /// Where new certificates of the push service go.
    push_certificates: Option<watch::Sender<Arc<ServerConfig>>>,
    config: Arc<Config>,
    shards: Vec<MailSender<Mail>>,
    threads: Vec<JoinHandle<()>>,
    sidecar: (BoundedSender<Request>, JoinHandle<()>),
    mesh: Option<Thread<MeshRequest>>,
    queues: Option<Thread<QueueRequest>>,
    readiness: Arc<Readiness>,
    registry: Arc<Registry>,
    life: Life,
    notices: Receiver<Notice>,
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
        let shards = config.runtime.cpus.len();
        let mut bound = bind_all(&config.listeners, shards, patience)?;
        let addresses: Vec<SocketAddr> = bound.iter().map(|(address, _)| *address).collect();
        settle_advertised(&mut config, &addresses);
        let config = Arc::new(config);
        let listeners = listener_settings(&config, &addresses)?;
        let registry = Arc::new(Registry::new(shards));
        let readiness = Arc::new(Readiness::default());
        let (clock, life) = live(&registry, shards);
        let (senders, mailboxes) = mailboxes(&config, shards, &life)?;
        let (ends, calls) = mesh_ends(&config, &life);
        let mut settings =
            sidecar_settings(&config, calls, readiness.clone(), patience, life.clone())?;
        let service = config.xxim_upstreams.push.as_ref().map(|push| bind_push(push, patience));
        let push_certificates;
        (settings.push, push_certificates) = service.transpose()?.unzip();
        let admin = settings.admin.as_ref().and_then(|socket| socket.local_addr().ok());
        let push = settings.push.as_ref().and_then(|(socket, _)| socket.local_addr().ok());
        let (way, requests) = sidecar_thread::channel(requests_max(&config), &life);
        let thread = sidecar_thread::start(settings, requests, senders.clone(), registry.clone());
        let sidecar = (way, thread.map_err(StartError::Sidecar)?);
        let (sender, notices) = crossbeam_channel::unbounded();
        let shared = Shared::new(&config, random()?);
        let mesh = start_mesh(ends, &config, &addresses, &shared, &senders, &registry, &life)?;
        let queues = start_queues(&config, &shared, &senders, &registry, &life)?;
        let common = Common {
            config: config.clone(),
            shared,
            listeners,
            clock,
            life: life.clone(),
            shards: senders.clone(),
            sidecar: sidecar.0.clone(),
            mesh: mesh.as_ref().map(|(sender, _)| sender.clone()),
            queues: queues.as_ref().map(|(sender, _)| sender.clone()),
            registry: registry.clone(),
            notices: sender,
        };
        let threads = spawn_shards(&common, &mut bound, mailboxes)?;
        let gateway = Gateway {
            addresses,
            admin,
            push,
            push_certificates: push_certificates.flatten(),
            config,
            shards: senders,
            threads,
            sidecar,
            mesh,
            queues,
            readiness,
            registry,
            life,
            notices,
        };
        gateway.await_ready().inspect_err(|_| gateway.life.stop()).map(|()| gateway)
    }

    fn await_ready(&self) -> Result<(), StartError> {
        watchdog::start(&self.life, self.config.runtime.watchdog).map_err(StartError::Watchdog)?;
        for _ in &self.shards {
            match self.notices.recv_timeout(SHARD_START_TIME) {
                Ok(Notice::Ready) => {}
                Ok(Notice::Failed(reason)) => return Err(StartError::Shard(reason)),
                Err(_) => return Err(StartError::Shard(NOT_READY.to_owned())),
                other => return Err(StartError::Shard(format!("{other:?}"))),
            }
        }
        self.readiness.set(Phase::Ready);
        Ok(())
    }

    /// The address of each listener, in the order of the configuration; with the real ports where
    /// the configuration says 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
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
        &self.config
    }

    /// Reads the certificates again; connections that are there keep theirs. Nothing changes for a
    /// listener whose files can not be read.
    ///
    /// # Errors
    /// What is wrong with the first of those.
    pub fn reload_certificates(&self) -> Result<(), TlsFilesError> {
        let mut result = Ok(());
        for (listener, settings) in self.config.listeners.iter().enumerate() {
            let Some(files) = &settings.tls else { continue };
            match tls_files::load(files, alpn(&settings.service)) {
                Ok(config) => {
                    let mail = || Mail::Certificates { listener, config: config.clone() };
                    let until = Instant::now() + RELOAD_TIME;
                    let full = |shard: &&MailSender<Mail>| !shard.send_until(mail(), until);
                    let unreached = self.shards.iter().filter(full).count();
                    if unreached > 0 {
                        tracing::error!(unreached, "shards that take no mail keep certificates");
                    }
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        let files = self.config.xxim_upstreams.push.as_ref().and_then(|push| push.tls.as_ref());
        if let (Some(certificates), Some(files)) = (&self.push_certificates, files) {
            match tls_files::load(files, PUSH_ALPN) {
                Ok(config) => _ = certificates.send_replace(config),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// Waits so long for the reason why the gateway can not go on.
    pub fn failure(&self, patience: Duration) -> Option<Failure> {
        self.life.failure(patience)
    }

    /// The state of its threads.
    pub fn life(&self) -> &Life {
        &self.life
    }

    /// Drains: stops accepting, says goodbye to clients, delivers their events, closes everything.
    /// Returns whether that was finished within `runtime.shutdown_timeout`.
    pub fn shut_down(self) -> bool {
        let deadline = Instant::now() + self.config.runtime.shutdown_timeout;
        self.readiness.set(Phase::Draining);
        let mut finished = true;
        // The first round ends when no shard has clients, the second when nothing is left of what
        // they have told other shards at their end.
        for mail in [|| Mail::Drain, || Mail::Drain, || Mail::Stop] {
            if matches!(mail(), Mail::Stop) {
                self.life.stop();
            }
            for shard in &self.shards {
                finished &= shard.send_until(mail(), deadline);
            }
            finished &= self.await_notices(deadline);
        }
        let _ = self.sidecar.0.send(Request::Stop);
        if let Some((queues, thread)) = self.queues {
            queues.send(QueueRequest::Stop);
            // What is not stored then has two seconds at the most.
            let _ = thread.join();
        }
        if let Some((mesh, thread)) = self.mesh {
            mesh.send(MeshRequest::Stop);
            // Its last words take half a second at the most.
            let _ = thread.join();
        }
        if finished {
            for thread in self.threads {
                let _ = thread.join();
            }
            let _ = self.sidecar.1.join();
        }
        // Shards that have not ended could not say what they give up; what waited is lost then.
        let waiting = if finished { 0 } else { self.registry.waiting() };
        let lost = self.registry.dropped(DropReason::Shutdown) + waiting;
        if lost > 0 {
            tracing::warn!(lost, "messages that nobody took before the end of the process");
        }
        finished
    }

    /// Waits until each shard has done what it was asked for.
    fn await_notices(&self, deadline: Instant) -> bool {
        self.shards.iter().all(|_| {
            let patience = deadline.saturating_duration_since(Instant::now());
            let notice = self.notices.recv_timeout(patience);
            matches!(notice, Ok(Notice::Drained | Notice::Stopped))
        })
    }
}

/// The clock of the shards and the state of all threads, counted from the same moment.
fn live(registry: &Registry, shards: usize) -> (Clock, Life) {
    let clock = Clock::start();
    let life = Life::new(clock.started());
    ages::show(&life, registry, (0..shards).map(shard_name));
    (clock, life)
}

/// A number that nobody can guess.
fn random() -> Result<u32, StartError> {
    let mut bytes = [0; 4];
    getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|e| StartError::Random(e.into()))?;
    Ok(u32::from_ne_bytes(bytes))
}
