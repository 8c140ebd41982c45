//! The sockets that the gateway listens on, bound before any thread starts.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::sync::watch;

use super::StartError;
use crate::config::model::{Config, Listener, Service, XximPushService};
use crate::machine::sockets;
use crate::patience::Patience;
use crate::shard::ListenerSettings;
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

/// Fills in the ports that the system has chosen, where uniqIds carry them.
pub(super) fn settle_advertised(config: &mut Config, addresses: &[SocketAddr]) {
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

pub(super) fn listener_settings(
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

pub(super) fn alpn(service: &Service) -> &'static [&'static [u8]] {
    match service {
        Service::Http(_) => &[b"http/1.1"],
        Service::Im => &[b"im/1"],
        Service::ConnmixApi => &[b"http/1.1"],
        _ => &[],
    }
}
