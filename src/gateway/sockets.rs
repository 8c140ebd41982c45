//! The sockets that the gateway listens on, bound before any thread starts.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::sync::watch;

use super::StartError;
use crate::config::model::{Listener, XximPushService};
use crate::machine::sockets;
use crate::patience::Patience;
use crate::sidecar::push::Certificates;
use crate::tls_files;

/// Where a listener was bound, and a socket per shard.
pub(super) type Bound = (SocketAddr, Vec<OwnedFd>);

/// Binds every listener once per shard.
pub(super) fn bind_all(
    listeners: &[Listener],
    shards: usize,
    patience: Patience,
) -> Result<Vec<Bound>, StartError> {
    listeners.iter().map(|listener| bind(listener, shards, patience)).collect()
}

fn bind(listener: &Listener, shards: usize, patience: Patience) -> Result<Bound, StartError> {
    let what = listener.service.describe();
    let mut address = listener.bind;
    let refused = |address, error: io::Error| StartError::Bind {
        address,
        what,
        reason: sockets::advice(&error),
    };
    // With SO_REUSEPORT alone a second gateway would silently take connections (netsvr W23).
    if address.port() != 0 {
        let probe =
            sockets::listen(address, false, patience).map_err(|error| refused(address, error))?;
        drop(probe);
    }
    let mut sockets = Vec::new();
    for _ in 0..shards {
        let socket =
            sockets::listen(address, true, patience).map_err(|error| refused(address, error))?;
        let local = socket.local_addr().ok().and_then(|local| local.as_socket());
        address = local.unwrap_or(address);
        sockets.push(OwnedFd::from(socket));
    }
    Ok((address, sockets))
}

/// Binds the admin server.
pub(super) fn bind_admin(
    address: SocketAddr,
    patience: Patience,
) -> Result<TcpListener, StartError> {
    let what = "admin";
    let refused =
        |error: io::Error| StartError::Bind { address, what, reason: sockets::advice(&error) };
    sockets::listen_alone(address, patience).map_err(refused)
}

/// What the push service speaks.
pub(super) const PUSH_ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

/// The push service's socket with its certificates, and where new ones go.
pub(super) type PushSocket =
    ((TcpListener, Certificates), Option<watch::Sender<Arc<ServerConfig>>>);

/// Binds the push service and reads its certificates.
pub(super) fn bind_push(
    settings: &XximPushService,
    patience: Patience,
) -> Result<PushSocket, StartError> {
    let (address, what) = (settings.bind, "xxim push service");
    let refused =
        |error: io::Error| StartError::Bind { address, what, reason: sockets::advice(&error) };
    let tls = settings.tls.as_ref().map(|files| tls_files::load(files, PUSH_ALPN)).transpose()?;
    let (sender, receiver) = tls.map(watch::channel).unzip();
    let socket = sockets::listen_alone(address, patience).map_err(refused)?;
    Ok(((socket, receiver), sender))
}
