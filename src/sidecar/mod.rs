//! The sidecar: one tokio thread for what is not the data path and for which good libraries exist.
//! It starts the services of the protocols and hands them what shards ask of them.
//!
//! It has no connection state. Shards send a [`SidecarRequest`] and get the answer as [`Mail`];
//! neither side ever blocks on the other: the channel to the sidecar has room for every request
//! that shards may have under way, and an answer to a full mailbox is tried again until it fits.
//! Costs: a task per request; no system call for a shard unless the sidecar sleeps.

mod admin;
mod login;
pub mod mesh;
#[cfg(test)]
mod tests;
mod workers;

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, mpsc};

use crate::allocator;
use crate::config::model::{LoginSettings, Sidecar};
use crate::life::{Heart, Life};
use crate::lists::letters::{Mail, MeshCall, MeshRequest, SidecarRequest};
use crate::mail::{BoundedSender, MailSender, UnboundedSender};
use crate::metrics::Registry;
use crate::outside::Outside;
use crate::outside::places::{Places, listener};
use crate::outside::shards::Shards;
use crate::protocols::{connmix, netsvr, xxim};
use crate::rsa_keys::RsaKey;

use admin::{Api, Asks, Door, METHOD, QUESTIONS_MAX, Role};
pub use admin::{ListenerFacts, Namer, Phase, Readiness};
use login::Logins;
use workers::Workers;

/// Name of the thread, and of all if there are several; metrics show their CPU time under it.
const THREAD: &str = "sidecar";
/// What the watchdog calls the other threads together, if there are several.
const WORKERS: &str = "sidecar-workers";
/// Between two turns of an idle thread.
const BEAT: Duration = Duration::from_secs(1);
/// Threads for name lookups, which the C library does blocking.
const LOOKUP_THREADS_MAX: usize = 4;
/// Room in the channel for [`SidecarRequest::Stop`] beside the requests.
const STOPS_MAX: usize = 4;
/// Calls of other nodes that are under way.
const CALLS_MAX: usize = 1024;
/// Requests that are taken out of the channel at a time.
const BATCH: usize = 64;

/// What the sidecar needs to know.
#[derive(Debug)]
pub struct SidecarSettings {
    /// Where the threads leave their pulse.
    pub life: Life,
    /// Of its threads one is this thread itself.
    pub sidecar: Sidecar,
    /// The admin server's socket, bound already. `None`: no admin server.
    pub admin: Option<TcpListener>,
    /// The same at a path of the file system.
    pub admin_socket: Option<UnixListener>,
    /// What one admin connection may take, from accept to the last byte of the answer.
    pub admin_time_max: Duration,
    pub admin_connections_max: usize,
    /// How operators get to see things of this node.
    pub namer: Namer,
    /// The way to other nodes and what they ask. `None`: no mesh.
    pub mesh: Option<(UnboundedSender<MeshRequest>, mpsc::Receiver<MeshCall>)>,
    /// What `/readyz` tells.
    pub readiness: Arc<Readiness>,
    pub callbacks: netsvr::service::CallbackSettings,
    /// Its public part can be fetched from the admin server.
    pub shown_key: Option<Arc<RsaKey>>,
    pub login: LoginSettings,
    pub xxim: xxim::service::Settings,
}

/// The way to the sidecar, for as many requests as all shards together have under way at the most,
/// and its end for [`start`].
pub fn channel(
    requests_max: usize,
    life: &Life,
) -> (BoundedSender<SidecarRequest>, mpsc::Receiver<SidecarRequest>) {
    BoundedSender::new(requests_max.saturating_add(STOPS_MAX), life.gone(THREAD))
}

/// Starts the thread. It ends at [`SidecarRequest::Stop`] or when every sender is gone; what is
/// under way then is given up.
///
/// Fails if an address in the settings is not a URL, if a key can not be read, or if the process
/// has no descriptor or thread left.
pub fn start(
    settings: SidecarSettings,
    requests: mpsc::Receiver<SidecarRequest>,
    shards: Vec<MailSender<Mail>>,
    registry: Arc<Registry>,
) -> io::Result<JoinHandle<()>> {
    let runtime = runtime(settings.sidecar.threads)?;
    let (life, threads) = (settings.life.clone(), settings.sidecar.threads);
    let services = {
        let _context = runtime.enter();
        Services::start(settings, shards, registry)?
    };
    let mut workers = Workers::default();
    if threads > 1 {
        runtime.spawn(beat(life.heart(WORKERS, &[]), Workers::default()));
        workers = Workers::of(&runtime, &life);
    }
    life.spawn(THREAD, &[], move |heart| run(runtime, requests, services, beat(heart, workers)))
}

fn runtime(threads: u16) -> io::Result<Runtime> {
    let mut builder = match threads {
        0 | 1 => Builder::new_current_thread(),
        _ => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(usize::from(threads) - 1);
            builder
        }
    };
    // With one thread only name lookups get threads of this name.
    let name = if threads > 1 { THREAD } else { "sidecar-dns" };
    let builder = builder.enable_io().enable_time().thread_name(name);
    builder.max_blocking_threads(LOOKUP_THREADS_MAX).build()
}

/// Has the turns of a thread seen, as long as it takes its turns, and those of others. Never ends.
async fn beat(heart: Heart, mut others: Workers) {
    let mut turns = tokio::time::interval(BEAT);
    loop {
        turns.tick().await;
        heart.beat();
        others.look();
        allocator::let_go();
    }
}

/// What carries requests.
struct Services {
    logins: Arc<Logins>,
    netsvr: netsvr::service::Service,
    xxim: xxim::service::Service,
    connmix: connmix::service::Service,
    shards: Shards,
}

impl Services {
    /// Makes everything and starts the servers. Needs the context of the runtime.
    fn start(
        settings: SidecarSettings,
        shards: Vec<MailSender<Mail>>,
        registry: Arc<Registry>,
    ) -> io::Result<Services> {
        let (shards, life) = (Shards::start(shards), settings.life);
        let outside = Outside { settings: settings.sidecar, shards, life, registry };
        let netsvr = netsvr::service::Service::start(settings.callbacks, &outside)?;
        let logins = Logins::new(&settings.login, settings.sidecar)?;
        let connmix = connmix::service::Service::start(&outside)?;
        let (mesh, calls) = settings.mesh.unzip();
        let api = Api {
            asks: Asks::new(outside.shards.clone()),
            namer: Arc::new(settings.namer),
            mesh: mesh.clone(),
            readiness: settings.readiness.clone(),
            life: outside.life.clone(),
            started: Instant::now(),
            turns: Arc::new(Semaphore::new(QUESTIONS_MAX)),
        };
        let calls_of_xxim = mesh.clone().zip(calls).map(|(mesh, calls)| {
            let (sender, receiver) = mpsc::channel(CALLS_MAX);
            tokio::spawn(route(calls, mesh.clone(), api.clone(), sender));
            (mesh, receiver)
        });
        let xxim = xxim::service::Settings { mesh: calls_of_xxim, ..settings.xxim };
        let xxim = xxim::service::Service::start(xxim, &outside)?;
        let doors = doors(settings.admin, settings.admin_socket)?;
        if !doors.is_empty() {
            let time_max = settings.admin_time_max;
            let places = Places::new(settings.admin_connections_max, time_max, time_max);
            let facts = admin::Facts {
                registry: outside.registry.clone(),
                readiness: settings.readiness,
                life: outside.life.clone(),
                key: settings.shown_key,
                api,
                role: None,
            };
            for door in doors {
                let (facts, places) = (facts.clone(), places.clone());
                tokio::spawn(admin::serve(door, facts, places, outside.peers("admin")));
            }
        }
        let (logins, shards) = (Arc::new(logins), outside.shards);
        Ok(Services { logins, netsvr, xxim, connmix, shards })
    }

    /// Begins to carry a request. False: it is the end.
    fn begin(&self, request: SidecarRequest) -> bool {
        match request {
            SidecarRequest::Verify { conn, number, login } => {
                let logins = self.logins.clone();
                self.shards.answer(conn.shard(), async move {
                    Mail::Verified { conn, number, verdict: logins.verify(&login).await }
                });
            }
            SidecarRequest::Netsvr(request) => self.netsvr.begin(request),
            SidecarRequest::Xxim(request) => self.xxim.begin(request),
            SidecarRequest::Connmix(request) => self.connmix.begin(request),
            SidecarRequest::Stop => return false,
        }
        true
    }
}

/// The ways to the admin server. Needs the context of a runtime.
fn doors(port: Option<TcpListener>, socket: Option<UnixListener>) -> io::Result<Vec<Door>> {
    let mut doors = Vec::new();
    if let Some(port) = port {
        let near = port.local_addr()?.ip().is_loopback();
        doors.push(Door::Port(listener(port)?, near.then_some(Role::Steer)));
    }
    if let Some(socket) = socket {
        socket.set_nonblocking(true)?;
        doors.push(Door::Socket(tokio::net::UnixListener::from_std(socket)?));
    }
    Ok(doors)
}

/// Gives calls of other nodes to whom they are for, until the mesh ends.
async fn route(
    mut calls: mpsc::Receiver<MeshCall>,
    mesh: UnboundedSender<MeshRequest>,
    api: Api,
    xxim: mpsc::Sender<MeshCall>,
) {
    let places = Arc::new(Semaphore::new(QUESTIONS_MAX));
    while let Some(call) = calls.recv().await {
        if call.method != METHOD {
            // Its service ends with this one.
            let _ = xxim.send(call).await;
            continue;
        }
        // Calls of xxim do not wait for these; who is not answered is told so where it was asked.
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (api, mesh) = (api.clone(), mesh.clone());
        tokio::spawn(async move {
            let _place = place;
            let MeshCall { node, number, body, .. } = call;
            let body = api.for_another_node(&body).await;
            mesh.send(MeshRequest::Called { node, number, body });
        });
    }
}

fn run(
    runtime: Runtime,
    mut requests: mpsc::Receiver<SidecarRequest>,
    services: Services,
    beat: impl Future<Output = ()>,
) {
    let carry = async {
        let mut batch = Vec::with_capacity(BATCH);
        while requests.recv_many(&mut batch, BATCH).await > 0 {
            if !batch.drain(..).all(|request| services.begin(request)) {
                break;
            }
        }
    };
    runtime.block_on(async {
        tokio::select! {
            () = carry => {}
            () = beat => {}
        }
    });
    // Dropping it would wait for name lookups.
    runtime.shutdown_background();
}
