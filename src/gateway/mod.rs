//! Starts and stops a whole gateway: sockets, shards, sidecar.
//!
//! Everything that can fail at start fails here, before the first client is accepted, with a
//! sentence that says what to do.

mod sockets;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rustix::rand::{GetRandomFlags, getrandom};
use rustls::ServerConfig;
use tokio::sync::{mpsc, watch};

use crate::config;
use crate::config::model::{Config, Listener, Service, XximKey};
use crate::life::{Failure, Heart, Life, ages, shard_name, watch as watchdog};
use crate::limits;
use crate::machine::{self, MachineError};
use crate::mail::{BoundedSender, MailSender, Mailbox, UnboundedSender};
use crate::metrics::{DropReason, Registry};
use crate::patience::Patience;
use crate::rsa_keys::{RsaKey, RsaKeyError};
use crate::shard::clock::Clock;
use crate::shard::driver::{self, Notice, Parts};
use crate::shard::mailbox::{Mail, MeshCall, MeshRequest, QueueRequest, Request};
use crate::shard::ring::Settings;
use crate::shard::{ListenerSettings, Shard, Shared};
use crate::sidecar::mesh::queues::{self, QueueSettings};
use crate::sidecar::mesh::{self, MeshSettings, MeshStartError};
use crate::sidecar::{self, Callbacks, Phase, Readiness, SidecarSettings};
use crate::tls_files::{self, TlsFilesError};
use sockets::{Bound, PUSH_ALPN, bind_admin, bind_all, bind_push};

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
        let (way, requests) = sidecar::channel(requests_max(&config), &life);
        let thread = sidecar::start(settings, requests, senders.clone(), registry.clone());
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

/// What every shard is made with.
#[derive(Clone)]
struct Common {
    config: Arc<Config>,
    shared: Arc<Shared>,
    listeners: Vec<ListenerSettings>,
    clock: Clock,
    shards: Vec<MailSender<Mail>>,
    sidecar: BoundedSender<Request>,
    mesh: Option<UnboundedSender<MeshRequest>>,
    queues: Option<UnboundedSender<QueueRequest>>,
    registry: Arc<Registry>,
    life: Life,
    notices: Sender<Notice>,
}

impl Common {
    /// One shard with everything it needs; on the shard's own thread.
    fn parts(
        self,
        number: usize,
        sockets: Vec<OwnedFd>,
        mailbox: Mailbox<Mail>,
        heart: Heart,
    ) -> Parts {
        let Common { config, shared, clock, shards, sidecar, mesh, queues, registry, .. } = self;
        let notices = self.notices;
        let seed = fastrand::usize(..);
        let count = shards.len();
        Parts {
            cpu: config.runtime.cpus[number],
            clock,
            ring: Settings::of(&config.runtime),
            shard: Shard::new(number as u8, count, config, shared, self.listeners, seed),
            listeners: sockets,
            mailbox,
            shards,
            sidecar,
            mesh,
            queues,
            published: registry.shard(number).expect("one per shard was made"),
            heart,
            notices,
        }
    }
}

/// Starts the thread of every shard.
fn spawn_shards(
    common: &Common,
    bound: &mut [Bound],
    mailboxes: Vec<Mailbox<Mail>>,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let spawn = |(number, mailbox): (usize, Mailbox<Mail>)| {
        let cpu = common.config.runtime.cpus[number];
        let sockets = bound.iter_mut().filter_map(|(_, sockets)| sockets.pop()).collect();
        let common = common.clone();
        let notices = common.notices.clone();
        let life = common.life.clone();
        let parts = move |heart| common.parts(number, sockets, mailbox, heart);
        driver::spawn(number, cpu, &life, notices, parts).map_err(|error| StartError::Thread {
            shard: number,
            cpu,
            reason: error.to_string(),
        })
    };
    mailboxes.into_iter().enumerate().map(spawn).collect()
}

/// A number that nobody can guess.
fn random() -> Result<u32, StartError> {
    let mut bytes = [0; 4];
    getrandom(&mut bytes, GetRandomFlags::empty()).map_err(|e| StartError::Random(e.into()))?;
    Ok(u32::from_ne_bytes(bytes))
}

/// The key of xxim clients.
fn rsa_key(config: &Config) -> Result<Option<Arc<RsaKey>>, RsaKeyError> {
    Ok(match &config.xxim.crypto.private_key {
        None => None,
        Some(XximKey::Made) => Some(Arc::new(RsaKey::made_when_needed())),
        Some(XximKey::File(path)) => Some(Arc::new(RsaKey::load(path)?)),
    })
}

/// Fills in the ports that the system has chosen, where uniqIds carry them.
fn settle_advertised(config: &mut Config, addresses: &[SocketAddr]) {
    let advertised = &mut config.netsvr.advertise;
    if advertised.port() != 0 {
        return;
    }
    let wanted = match config.netsvr.generation {
        crate::config::model::Generation::G5 => Service::NetsvrWorker,
        crate::config::model::Generation::G6 => Service::NetsvrTask,
    };
    let mut listeners = config.listeners.iter().zip(addresses);
    if let Some((_, address)) = listeners.find(|(listener, _)| listener.service == wanted) {
        advertised.set_port(address.port());
    }
}

fn listener_settings(
    config: &Config,
    addresses: &[SocketAddr],
) -> Result<Vec<ListenerSettings>, StartError> {
    let settings = |(listener, address): (&Listener, &SocketAddr)| {
        let alpn = alpn(&listener.service);
        let tls = listener.tls.as_ref().map(|files| tls_files::load(files, alpn)).transpose()?;
        let ip = match address.ip() {
            IpAddr::V4(ip) if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => *config.netsvr.advertise.ip(),
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        let bound = *address;
        let address = SocketAddrV4::new(ip, address.port());
        Ok(ListenerSettings { service: listener.service.clone(), address, bound, tls })
    };
    config.listeners.iter().zip(addresses).map(settings).collect()
}

fn alpn(service: &Service) -> &'static [&'static [u8]] {
    match service {
        Service::Http(_) => &[b"http/1.1"],
        Service::Im => &[b"im/1"],
        Service::ConnmixApi => &[b"http/1.1"],
        _ => &[],
    }
}

/// Both sides of every shard's mailbox.
type Mailboxes = (Vec<MailSender<Mail>>, Vec<Mailbox<Mail>>);

fn mailboxes(config: &Config, shards: usize, life: &Life) -> Result<Mailboxes, StartError> {
    let messages_max = config.runtime.mailbox_messages_max as usize;
    let mailbox = |number| Mailbox::new(messages_max, life.gone(&shard_name(number)));
    let pairs: io::Result<Vec<_>> = (0..shards).map(mailbox).collect();
    Ok(pairs.map_err(StartError::Mailbox)?.into_iter().unzip())
}

fn sidecar_settings(
    config: &Config,
    mesh: Option<MeshAtSidecar>,
    readiness: Arc<Readiness>,
    patience: Patience,
    life: Life,
) -> Result<SidecarSettings, StartError> {
    let customer = &config.netsvr.customer;
    Ok(SidecarSettings {
        sidecar: config.sidecar,
        login: config.login.clone(),
        upstreams: config.xxim_upstreams.clone(),
        push: None,
        pod: *config.netsvr.advertise.ip(),
        mesh,
        admin: config.admin.bind.map(|bind| bind_admin(bind, patience)).transpose()?,
        admin_time_max: config.admin.request_timeout,
        admin_connections_max: config.admin.connections_max as usize,
        readiness,
        life,
        callbacks: Callbacks {
            on_open: customer.on_open_callback_api.clone(),
            on_close: customer.on_close_callback_api.clone(),
            deadline: customer.callback_api_deadline,
            answer_bytes_max: limits::CALLBACK_ANSWER_BYTES_MAX,
        },
        key: rsa_key(config)?,
        key_threads: config.xxim.crypto.threads,
        key_shown: config.xxim.crypto.private_key == Some(XximKey::Made),
    })
}

/// Requests of all shards that the way to the sidecar has room for; what does not fit waits on its
/// shard.
fn requests_max(config: &Config) -> usize {
    let each = config.netsvr.customer.callbacks_max as usize
        + config.login.under_way_max as usize
        + limits::XXIM_REQUESTS_SENT
        + config.connmix.rules.http_calls_max as usize
        + limits::LARGE_ANSWERS_MAX;
    each * config.runtime.cpus.len()
}

/// The ends of the channels to the mesh, before it is joined.
struct MeshEnds {
    sender: UnboundedSender<MeshRequest>,
    requests: mpsc::UnboundedReceiver<MeshRequest>,
    calls: mpsc::Sender<MeshCall>,
}

/// The sidecar's: the way to the mesh, and what other nodes ask it.
type MeshAtSidecar = (UnboundedSender<MeshRequest>, mpsc::Receiver<MeshCall>);

/// The channels of the mesh, if there is one: for itself, and for the sidecar.
fn mesh_ends(config: &Config, life: &Life) -> (Option<MeshEnds>, Option<MeshAtSidecar>) {
    if !config.mesh.is_on() {
        return (None, None);
    }
    let (sender, requests) = UnboundedSender::new(life.gone(mesh::THREAD));
    let (calls, served) = mpsc::channel(limits::MESH_CALLS_WAITING_MAX);
    (Some(MeshEnds { sender: sender.clone(), requests, calls }), Some((sender, served)))
}

/// Joins the mesh, if there is one.
fn start_mesh(
    ends: Option<MeshEnds>,
    config: &Config,
    addresses: &[SocketAddr],
    shared: &Shared,
    shards: &[MailSender<Mail>],
    registry: &Arc<Registry>,
    life: &Life,
) -> Result<Option<Thread<MeshRequest>>, StartError> {
    let (Some(interest), Some(ends)) = (shared.mesh.clone(), ends) else { return Ok(None) };
    let listeners = config.listeners.iter().zip(addresses);
    let announced = listeners.map(|(listener, &(mut address))| {
        if address.ip().is_unspecified() {
            address.set_ip((*config.netsvr.advertise.ip()).into());
        }
        (listener.service.id(), address)
    });
    let settings = MeshSettings {
        mesh: config.mesh.clone(),
        node: config.node,
        addresses: announced.collect(),
        netsvr: config.netsvr.advertise,
        slots_max: config.runtime.connections_max,
        ids_start: shared.ids_start,
        interest,
        calls: ends.calls,
        sender: ends.sender.clone(),
        life: life.clone(),
    };
    let thread = mesh::start(settings, ends.requests, shards.to_vec(), registry.clone())?;
    Ok(Some((ends.sender, thread)))
}

/// Starts the queues of the cluster, if topics are there.
fn start_queues(
    config: &Config,
    shared: &Shared,
    shards: &[MailSender<Mail>],
    registry: &Registry,
    life: &Life,
) -> Result<Option<Thread<QueueRequest>>, StartError> {
    let Some(room) = shared.queue_room.clone() else { return Ok(None) };
    let settings = QueueSettings {
        mesh: config.mesh.clone(),
        node: config.node,
        queue: config.connmix.queue,
        room,
        life: life.clone(),
    };
    let (sender, requests) = UnboundedSender::new(life.gone(queues::THREAD));
    let thread = queues::start(settings, requests, shards.to_vec(), registry)?;
    Ok(Some((sender, thread)))
}
