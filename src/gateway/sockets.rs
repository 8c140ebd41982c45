//! The sockets that the gateway listens on, bound or passed on before any thread starts, and their
//! certificates.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;

use super::StartError;
use super::passed::Passed;
use crate::config::all::Config;
use crate::config::model::{Listener, Service};
use crate::engine::ListenerSettings;
use crate::machine::sockets;
use crate::patience::Patience;
use crate::protocols::netsvr::wire::Generation;
use crate::tls_files::{self, TlsFilesError};

/// See the module.
pub(super) struct Sockets {
    /// Where each listener is bound, in the order of the configuration; with the real ports where
    /// the configuration says 0.
    pub addresses: Vec<SocketAddr>,
    /// A socket per shard, of each listener.
    pub listeners: Vec<Vec<OwnedFd>>,
    pub services: ServiceSockets,
}

/// The sockets of the servers beside the shards.
pub(super) struct ServiceSockets {
    pub admin: Option<TcpListener>,
    pub admin_socket: Option<UnixListener>,
    pub push: Option<TcpListener>,
}

impl Sockets {
    /// Binds everything that is not passed on.
    pub fn bind(config: &Config, patience: Patience) -> Result<Sockets, StartError> {
        let shards = config.runtime.cpus.len();
        let mut passed = Passed::take();
        let bound = config.listeners.iter().map(|listener| match passed.of(listener, shards)? {
            Some(sockets) => Ok(sockets),
            None => bind(listener, shards, patience),
        });
        let (addresses, listeners) = bound.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        passed.complain();
        let alone = |address, what| {
            sockets::listen_alone(address, patience).map_err(|error| refused(address, what, &error))
        };
        let admin = config.admin.bind.map(|address| alone(address, "admin"));
        let push = config.xxim_upstreams.push.as_ref();
        let push = push.map(|push| alone(push.bind, "xxim push service"));
        let admin_socket =
            config.admin.socket.as_deref().map(|path| unix_socket(path, patience)).transpose()?;
        let (admin, push) = (admin.transpose()?, push.transpose()?);
        let services = ServiceSockets { admin, admin_socket, push };
        Ok(Sockets { addresses, listeners, services })
    }
}

/// Binds a socket in the file system, for processes of this user and of root. One that nobody
/// listens at any more is replaced; anything else at the path is left alone.
fn unix_socket(path: &Path, patience: Patience) -> Result<UnixListener, StartError> {
    let refused = |reason: String| StartError::Socket { path: path.into(), reason };
    if let Ok(there) = std::fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(refused("there is a file that is no socket".to_owned()));
        }
        // That of a gateway that was killed a moment ago is soon gone.
        let free = || if is_listened_at(path) { Err(()) } else { Ok(()) };
        let taken = |()| refused("another process listens there; is it a gateway?".to_owned());
        patience.retry(|()| true, free).map_err(taken)?;
    }
    // Under another name until only this user reaches it.
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    let bound = UnixListener::bind(&new).and_then(|socket| {
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&new, path)?;
        Ok(socket)
    });
    bound.map_err(|error| {
        let _ = std::fs::remove_file(&new);
        refused(error.to_string())
    })
}

/// Whether a process listens at a socket. Does not wait for it.
fn is_listened_at(path: &Path) -> bool {
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
    };
    let (family, flags) = (AddressFamily::UNIX, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC);
    let Ok(address) = SocketAddrUnix::new(path) else { return false };
    let socket = socket_with(family, SocketType::STREAM, flags, None);
    socket.is_ok_and(|socket| {
        !matches!(connect(&socket, &address), Err(rustix::io::Errno::CONNREFUSED))
    })
}

fn refused(address: SocketAddr, what: &'static str, error: &io::Error) -> StartError {
    StartError::Bind { address, what, reason: sockets::advice(error) }
}

/// Binds a listener once per shard.
fn bind(
    listener: &Listener,
    shards: usize,
    patience: Patience,
) -> Result<(SocketAddr, Vec<OwnedFd>), StartError> {
    let mut address = listener.bind;
    let listen = |address, shared| {
        let what = listener.service.describe();
        sockets::listen(address, shared, patience).map_err(|error| refused(address, what, &error))
    };
    // With SO_REUSEPORT alone a second gateway would silently take connections (netsvr W23).
    if address.port() != 0 {
        drop(listen(address, false)?);
    }
    let mut sockets = Vec::new();
    for _ in 0..shards {
        let socket = listen(address, true)?;
        let local = socket.local_addr().ok().and_then(|local| local.as_socket());
        address = local.unwrap_or(address);
        sockets.push(OwnedFd::from(socket));
    }
    Ok((address, sockets))
}

/// Fills in the ports that the system has chosen, where uniqIds carry them.
pub(super) fn settle_advertised(config: &mut Config, addresses: &[SocketAddr]) {
    let advertised = &mut config.netsvr.advertise;
    if advertised.port() != 0 {
        return;
    }
    let wanted = match config.netsvr.generation {
        Generation::G5 => Service::NetsvrWorker,
        Generation::G6 => Service::NetsvrTask,
    };
    let mut listeners = config.listeners.iter().zip(addresses);
    if let Some((_, address)) = listeners.find(|(listener, _)| listener.service == wanted) {
        advertised.set_port(address.port());
    }
}

/// What shards know of each listener.
pub(super) fn listener_settings(
    config: &Config,
    addresses: &[SocketAddr],
) -> Result<Vec<ListenerSettings>, TlsFilesError> {
    let settings = |(listener, address): (&Listener, &SocketAddr)| {
        let tls = listener_tls(listener)?;
        let ip = match address.ip() {
            IpAddr::V4(ip) if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => *config.netsvr.advertise.ip(),
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        let bound = *address;
        let address = SocketAddrV4::new(ip, address.port());
        let (service, proxy) = (listener.service.clone(), listener.proxy);
        Ok(ListenerSettings { service, proxy, address, bound, tls })
    };
    config.listeners.iter().zip(addresses).map(settings).collect()
}

type Tls = Result<Option<Arc<ServerConfig>>, TlsFilesError>;

/// Reads the certificates of a listener, if it has any.
pub(super) fn listener_tls(listener: &Listener) -> Tls {
    let alpn: &[&[u8]] = match listener.service {
        Service::Http(_) | Service::ConnmixApi => &[b"http/1.1"],
        Service::Im => &[b"im/1"],
        _ => &[],
    };
    listener.tls.as_ref().map(|files| tls_files::load(files, alpn)).transpose()
}

/// Reads the certificates of the push service, if it has any.
pub(super) fn push_tls(config: &Config) -> Tls {
    let files = config.xxim_upstreams.push.as_ref().and_then(|push| push.tls.as_ref());
    files.map(|files| tls_files::load(files, &[b"h2", b"http/1.1"])).transpose()
}
