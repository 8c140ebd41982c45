//! The listeners: addresses, protocols and routes, TLS files.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use super::choice::words;
use super::connmix_server;
use super::error::{Complaint, ConfigError};
use super::model::{ClientProtocol, ConnmixServer, Listener, Route, Service, TlsFiles};
use super::settings::Settings;
use crate::limits::LISTENERS_MAX;
use crate::pem::{self, Problem, Wanted};

/// What a listener speaks without HTTP.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum ListenerProtocol {
    NetsvrWorker,
    NetsvrTask,
    XximTcp,
    ConnmixApi,
    Connmix,
    Im,
}

words!(ListenerProtocol {
    NetsvrWorker = "netsvr-worker",
    NetsvrTask = "netsvr-task",
    XximTcp = "xxim-tcp",
    ConnmixApi = "connmix-api",
    Connmix = "connmix",
    Im = "im",
});

/// Reads `[[listener]]`. Host names are resolved, TLS files looked at.
pub(super) fn listeners(
    settings: &Settings,
    servers: &[ConnmixServer],
) -> Result<Vec<Listener>, ConfigError> {
    let count = settings.count("listener");
    let wanted = match count {
        0 => "there is no listener",
        1..=LISTENERS_MAX => "",
        _ => "there are too many listeners",
    };
    if !wanted.is_empty() {
        let complaint = Complaint::new(wanted)
            .allowed(format!("1 to {LISTENERS_MAX} tables [[listener]]"))
            .advise("ringway.example.toml shows one of each kind");
        return Err(settings.error("listener", complaint));
    }
    (0..count).map(|index| listener(settings, &format!("listener.{index}"), servers)).collect()
}

/// Refuses two sockets on one address. `admin` is that of the admin server.
pub(super) fn check_overlap(
    settings: &Settings,
    listeners: &[Listener],
    admin: Option<SocketAddr>,
) -> Result<(), ConfigError> {
    let named =
        |(index, listener): (usize, &Listener)| (format!("listener.{index}.bind"), listener.bind);
    let mut sockets: Vec<_> = listeners.iter().enumerate().map(named).collect();
    sockets.extend(admin.map(|bind| ("admin.bind".to_owned(), bind)));
    for (index, (path, bind)) in sockets.iter().enumerate() {
        let same = sockets[..index].iter().find(|(_, other)| overlap(*bind, *other));
        if let Some((other, _)) = same {
            let complaint = Complaint::new(format!("{other} has port {} already", bind.port()))
                .advise("Give each listener a port of its own");
            return Err(settings.error(path, complaint));
        }
    }
    Ok(())
}

/// Reads an address: literal or host name, and port. With `ipv4` an address of another family is
/// refused, and of a name's addresses one that is not loopback is preferred (netsvr section 1).
pub(super) fn address(
    settings: &Settings,
    path: &str,
    ipv4: bool,
) -> Result<SocketAddr, ConfigError> {
    let text = settings.text(path)?;
    let complaint = match resolve(&text, ipv4) {
        Ok(address) if address.is_ipv4() || !ipv4 => return Ok(address),
        Ok(_) => Complaint::new("this is not an IPv4 address")
            .advise("uniqIds have four bytes for the address of the gateway; use IPv4 here"),
        Err(complaint) => complaint,
    };
    Err(settings.error(path, complaint))
}

fn listener(
    settings: &Settings,
    path: &str,
    servers: &[ConnmixServer],
) -> Result<Listener, ConfigError> {
    if !settings.has(path) {
        let complaint = Complaint::new("it is missing, but a later listener exists")
            .advise("Number the listeners without gaps, from 0");
        return Err(settings.error(path, complaint));
    }
    let service = service(settings, path, servers)?;
    refuse_server(settings, path, matches!(service, Service::Connmix { .. }))?;
    let trusted = trusted(settings, path, &service)?;
    // uniqIds and registration names have four bytes for the address.
    let ipv4 = matches!(service, Service::NetsvrWorker | Service::NetsvrTask);
    let bind = address(settings, &format!("{path}.bind"), ipv4)?;
    let listener = Listener { bind, tls: tls(settings, path)?, service };
    if is_netsvr(&listener.service) && listener.lets_everybody_in() && !trusted {
        let complaint = Complaint::new(
            "whoever can reach this address could read and control every client: the protocol of \
             netsvr's business processes has no passwords",
        )
        .allowed("an address on loopback, tls with client_ca, or trusted = true")
        .advise(
            "Require client certificates with tls.client_ca, or bind it to 127.0.0.1. If nobody \
             but backends can reach it, set trusted = true for this listener",
        );
        return Err(settings.error(&format!("{path}.bind"), complaint));
    }
    Ok(listener)
}

fn is_netsvr(service: &Service) -> bool {
    matches!(service, Service::NetsvrWorker | Service::NetsvrTask)
}

/// Whether the operator says that only backends reach the listener.
fn trusted(settings: &Settings, path: &str, service: &Service) -> Result<bool, ConfigError> {
    let path = format!("{path}.trusted");
    if !settings.is_set(&path) || is_netsvr(service) {
        return settings.flag(&path);
    }
    let complaint = Complaint::new("only netsvr-worker and netsvr-task can be trusted");
    Err(settings.error(&path, complaint.advise("Remove it; other protocols have credentials")))
}

fn service(
    settings: &Settings,
    path: &str,
    servers: &[ConnmixServer],
) -> Result<Service, ConfigError> {
    let protocol = format!("{path}.protocol");
    let routes = settings.count(&format!("{path}.routes"));
    let complaint = match (settings.is_set(&protocol), routes) {
        (false, 0) => Complaint::new("this listener has no route and no protocol").advise(
            "Add routes = [ { path = \"/netsvr\", protocol = \"netsvr\" } ] for WebSocket clients, \
             or a protocol such as \"netsvr-worker\" for business processes",
        ),
        (true, 0) => {
            return Ok(match settings.choice(&protocol)? {
                ListenerProtocol::NetsvrWorker => Service::NetsvrWorker,
                ListenerProtocol::NetsvrTask => Service::NetsvrTask,
                ListenerProtocol::XximTcp => Service::XximTcp,
                ListenerProtocol::ConnmixApi => Service::ConnmixApi,
                ListenerProtocol::Connmix => Service::Connmix {
                    server: connmix_server::number(settings, &format!("{path}.server"), servers)?,
                },
                ListenerProtocol::Im => Service::Im,
            });
        }
        (false, _) => return self::routes(settings, path, routes, servers).map(Service::Http),
        (true, _) => Complaint::new("this listener has both routes and a protocol")
            .advise("Make two listeners of it, on two ports"),
    };
    Err(settings.error(path, complaint))
}

fn routes(
    settings: &Settings,
    path: &str,
    count: usize,
    servers: &[ConnmixServer],
) -> Result<Vec<Route>, ConfigError> {
    let mut routes: Vec<Route> = Vec::new();
    for index in 0..count {
        let at = format!("{path}.routes.{index}.path");
        let request_path = settings.text(&at)?;
        let complaint = if !is_request_path(&request_path) {
            Complaint::new("this is not the path of a request")
                .allowed("`/` and printable ASCII without space, `?` and `#`")
        } else if routes.iter().any(|route| route.path == request_path) {
            Complaint::new("this path has a route already").advise("Remove one of the two")
        } else {
            let route = format!("{path}.routes.{index}");
            let mut protocol: ClientProtocol = settings.choice(&format!("{route}.protocol"))?;
            let connmix = matches!(protocol, ClientProtocol::Connmix { .. });
            refuse_server(settings, &route, connmix)?;
            if let ClientProtocol::Connmix { server } = &mut protocol {
                *server = connmix_server::number(settings, &format!("{route}.server"), servers)?;
            }
            routes.push(Route { path: request_path, protocol });
            continue;
        };
        return Err(settings.error(&at, complaint));
    }
    Ok(routes)
}

/// Refuses the key `server` where no connmix clients come.
fn refuse_server(settings: &Settings, path: &str, connmix: bool) -> Result<(), ConfigError> {
    let path = format!("{path}.server");
    if connmix || !settings.is_set(&path) {
        return Ok(());
    }
    let complaint =
        Complaint::new("only clients of protocol \"connmix\" follow the rules of a server");
    Err(settings.error(&path, complaint.advise("Remove it, or change the protocol")))
}

fn is_request_path(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'?' && byte != b'#';
    path.starts_with('/') && path.bytes().all(plain)
}

pub(super) fn tls(settings: &Settings, path: &str) -> Result<Option<TlsFiles>, ConfigError> {
    let path = format!("{path}.tls");
    if !settings.has(&path) {
        return Ok(None);
    }
    let cert = pem(settings, &format!("{path}.cert"), Wanted::Certificates)?;
    let key = pem(settings, &format!("{path}.key"), Wanted::PrivateKey)?;
    let client_ca = format!("{path}.client_ca");
    let client_ca = match settings.is_set(&client_ca) {
        true => Some(pem(settings, &client_ca, Wanted::Certificates)?),
        false => None,
    };
    Ok(Some(TlsFiles { cert, key, client_ca }))
}

/// The path of a PEM file that can be read and has what is wanted. Whether that is valid, and
/// whether certificate and key belong together, is seen when they are used.
pub(super) fn pem(settings: &Settings, path: &str, wanted: Wanted) -> Result<PathBuf, ConfigError> {
    let file = PathBuf::from(settings.text(path)?);
    let makes = match wanted {
        Wanted::RsaKey => "`ringway keygen xxim` makes one",
        _ => "scripts/make-cert.sh makes certificates for trials",
    };
    let complaint = if file.as_os_str().is_empty() {
        Complaint::new("it is missing").allowed("path of a PEM file").advise(makes)
    } else if file.as_os_str().as_encoded_bytes().contains(&b'\n') {
        Complaint::new("this is not a path but the content of a file").allowed("path of a PEM file")
    } else {
        match pem::read(&file, wanted).map_err(|error| error.problem) {
            Ok(_) => return Ok(file),
            Err(problem @ Problem::Read(_)) => Complaint::new(problem.to_string()).advise(
                "Check the path, which is relative to the working directory, and the permissions \
                 of the user that ringway runs as",
            ),
            Err(problem) => Complaint::new(problem.to_string()).advise(makes),
        }
    };
    Err(settings.error(path, complaint))
}

fn resolve(text: &str, ipv4: bool) -> Result<SocketAddr, Complaint> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let shape = |problem: String| {
        Complaint::new(problem).allowed("address:port, e.g. \"0.0.0.0:6060\" or \"[::]:6060\"")
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(|| match text {
        "" => shape("it is missing".to_owned()),
        _ => shape("there is no port".to_owned()),
    })?;
    let port: u16 = port.parse().map_err(|_| shape(format!("{port:?} is not a port")))?;
    if host.is_empty() || host.contains([':', '[', ']']) {
        return Err(shape("there is no address before the port".to_owned()));
    }
    let found = (host, port).to_socket_addrs().map_err(|error| {
        Complaint::new(format!("the host name can not be resolved: {error}"))
            .advise("Use an IP address, or make the name known")
    })?;
    let found: Vec<_> = found.collect();
    let preferred = |address: &&SocketAddr| address.is_ipv4() && !address.ip().is_loopback();
    let best = found.iter().find(|address| ipv4 && preferred(address));
    let second = found.iter().find(|address| ipv4 && address.is_ipv4());
    let best = best.or(second).or(found.first());
    best.copied().ok_or_else(|| Complaint::new("the host name has no address"))
}

/// Whether two sockets would get in each other's way. `::` takes IPv4 connections as well.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && same_ip
}
