//! The sidecar: one tokio thread for what is not the data path and for which good libraries exist.
//!
//! It has no connection state. Shards send a [`Request`] and get the answer as [`Mail`]; neither
//! side ever blocks on the other: the channel to the sidecar has room for every request that shards
//! may have under way, and an answer to a full mailbox is tried again until it fits.
//! Costs: a task per request; no system call for a shard unless the sidecar sleeps.

mod admin;
mod hooks;
mod login;
#[cfg(test)]
mod tests;
mod upstream;

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::metrics::Registry;
use crate::shard::mailbox::{Mail, MailSender, Request, SidecarSender};

pub use admin::{Phase, Readiness};
pub use hooks::Callbacks;
use hooks::Hooks;
use login::Logins;

/// Name of the thread; metrics show its CPU time under it.
const THREAD: &str = "sidecar";
/// Threads for name lookups, which the C library does blocking.
const LOOKUP_THREADS_MAX: usize = 4;
/// Pause before an answer to a full mailbox is tried again.
const MAILBOX_PAUSE: Duration = Duration::from_millis(1);
/// Room in the channel for [`Request::Stop`] beside the callbacks.
const STOPS_MAX: usize = 4;

/// What the sidecar needs to know.
#[derive(Debug)]
pub struct SidecarSettings {
    /// The admin server's socket, bound already. `None`: no admin server.
    pub admin: Option<TcpListener>,
    /// What one admin connection may take, from accept to the last byte of the answer.
    pub admin_time_max: Duration,
    /// What `/readyz` tells.
    pub readiness: Arc<Readiness>,
    pub callbacks: Callbacks,
    /// Callbacks that all shards together have under way at the most.
    pub requests_max: usize,
}

/// Starts the thread. It ends at [`Request::Stop`] or when every sender is gone; what is under way
/// then is given up.
///
/// Fails if an address in the settings is not a URL, or if the process has no descriptor or thread
/// left.
pub fn start(
    settings: SidecarSettings,
    shards: Vec<MailSender>,
    registry: Arc<Registry>,
) -> io::Result<(SidecarSender, JoinHandle<()>)> {
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(LOOKUP_THREADS_MAX)
        .thread_name("sidecar-dns")
        .build()?;
    let hooks = Hooks::new(settings.callbacks, &registry)?;
    if let Some(listener) = settings.admin {
        let _context = runtime.enter();
        let listener = admin::listener(listener)?;
        let registry = registry.clone();
        let server = admin::serve(listener, registry, settings.readiness, settings.admin_time_max);
        runtime.spawn(server);
    }
    let requests_max = settings.requests_max.saturating_add(STOPS_MAX);
    let (sender, requests) = SidecarSender::new(requests_max);
    let thread = std::thread::Builder::new()
        .name(THREAD.to_owned())
        .spawn(move || run(runtime, requests, hooks, shards, registry))?;
    Ok((sender, thread))
}

fn run(
    runtime: Runtime,
    mut requests: mpsc::Receiver<Request>,
    hooks: Hooks,
    shards: Vec<MailSender>,
    registry: Arc<Registry>,
) {
    let hooks = Arc::new(hooks);
    let logins = Arc::new(Logins::new());
    let shards: Arc<[MailSender]> = shards.into();
    runtime.block_on(async {
        while let Some(request) = requests.recv().await {
            match request {
                Request::OnOpen { conn, body } => {
                    let (hooks, shards) = (hooks.clone(), shards.clone());
                    tokio::spawn(async move {
                        let verdict = hooks.on_open(body).await;
                        deliver(&shards, conn.shard(), Mail::Opened { conn, verdict }).await;
                    });
                }
                Request::OnClose { shard, number, body } => {
                    let (hooks, shards) = (hooks.clone(), shards.clone());
                    tokio::spawn(async move {
                        hooks.on_close(body).await;
                        deliver(&shards, shard, Mail::ClosedCallback { number }).await;
                    });
                }
                Request::Verify { conn, number, login } => {
                    let (logins, shards) = (logins.clone(), shards.clone());
                    tokio::spawn(async move {
                        let verdict = logins.verify(&login).await;
                        let mail = Mail::Verified { conn, number, verdict };
                        deliver(&shards, conn.shard(), mail).await;
                    });
                }
                Request::Metrics { shard, number } => {
                    let (registry, shards) = (registry.clone(), shards.clone());
                    tokio::spawn(async move {
                        let text = registry.render();
                        deliver(&shards, shard, Mail::Rendered { number, text }).await;
                    });
                }
                Request::Stop => break,
                // No client speaks xxim yet.
                Request::Upstream { .. }
                | Request::CancelUpstream { .. }
                | Request::Unwrap { .. }
                | Request::Hook { .. } => {}
            }
        }
    });
    // Dropping it would wait for name lookups.
    runtime.shutdown_background();
}

async fn deliver(shards: &[MailSender], shard: u8, mut mail: Mail) {
    let Some(sender) = shards.get(usize::from(shard)) else {
        debug_assert!(false, "a request from shard {shard} of {}", shards.len());
        return;
    };
    while let Err(returned) = sender.send(mail) {
        mail = returned;
        tokio::time::sleep(MAILBOX_PAUSE).await;
    }
}
