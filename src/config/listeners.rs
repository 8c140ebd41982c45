//! The listeners: addresses, protocols and routes, TLS files.

use std::net::SocketAddr;

use super::choice::words;
use super::error::{Complaint, ConfigError};
use super::keys::{Key, Section, choice, flag, text};
use super::model::{ClientProtocol, Listener, ProxyProtocol, Route, Service};
use super::places::{address, tls};
use super::settings::Settings;
use crate::limits::LISTENERS_MAX;

/// What a listener speaks without HTTP.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum ListenerProtocol {
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

const SERVER: &str = "name of a [[connmix.server]]; may be left out if there is one only";
const PROXY: &str = "listener.proxy_protocol";
const NAME: &str = "1 to 255 printable ASCII characters, no `:`; or empty";
const PEM: &str = "path of a PEM file, relative to the working directory";

/// The keys.
const KEYS: &[Key] = &[
    Key {
        allowed: "`address:port`; a host name is resolved at start",
        ..text(
            "listener.bind",
            "",
            "Address of the listener. Worker and task listeners need IPv4. Port 0 lets the kernel \
             choose one.",
        )
    },
    Key {
        allowed: NAME,
        ..text(
            "listener.socket",
            "",
            "`FileDescriptorName` of the systemd socket unit that opens this listener, so that a \
             restart refuses nobody; its address must be that of `bind`. Started without any such \
             socket the gateway binds it itself.",
        )
    },
    choice::<ProxyProtocol>(
        PROXY,
        "\"off\"",
        "Whether connections begin with a header of the PROXY protocol, version 1 or 2, which says \
         whom they come from, before TLS. accept: those of `trust.proxies` may; require: there are \
         no others.",
    ),
    choice::<ListenerProtocol>(
        "listener.protocol",
        "",
        "What is spoken on this listener without a WebSocket. netsvr-worker, netsvr-task, \
         connmix-api: backends; xxim-tcp, connmix, im: clients. Either this or `routes`.",
    ),
    Key {
        allowed: "path that begins with `/`, without query",
        ..text("listener.routes.path", "", "Request path of WebSocket clients.")
    },
    choice::<ClientProtocol>(
        "listener.routes.protocol",
        "",
        "What clients of this path speak. echo: every message comes back.",
    ),
    Key {
        allowed: SERVER,
        ..text("listener.server", "", "Rules for clients of protocol \"connmix\".")
    },
    Key { allowed: SERVER, ..text("listener.routes.server", "", "The same for this path.") },
    Key {
        default: "false",
        ..flag(
            "listener.trusted",
            "For netsvr-worker and netsvr-task, whose protocol has no passwords: serve outside of \
             loopback without `tls.client_ca`, because only backends reach this address. Said in \
             the log at every start.",
        )
    },
    Key {
        allowed: PEM,
        reload: true,
        ..text("listener.tls.cert", "", "Certificate chain; with it the listener speaks TLS only.")
    },
    Key { allowed: PEM, reload: true, ..text("listener.tls.key", "", "Key of the certificate.") },
    Key {
        allowed: PEM,
        reload: true,
        ..text(
            "listener.tls.client_ca",
            "",
            "Authorities of client certificates; with it a client must show one (mutual TLS).",
        )
    },
];

/// The section of the tables.
pub(crate) const SECTION: Section =
    Section { keys: KEYS, lists: &["listener", "listener.routes"], titles: TITLES };

const TITLES: &[(&str, &str, &str)] = &[
    (
        "listener",
        "`[[listener]]`",
        "One table per listener. In the environment the index is part of the name, e.g. \
         `RINGWAY_LISTENER__0__BIND`.",
    ),
    ("listener.routes", "`routes` of a `[[listener]]`", "A list of tables, one per path."),
    (
        "listener.tls",
        "`tls` of a `[[listener]]`",
        "The files are read at start and again at SIGHUP.",
    ),
];

/// The number of the rules that clients follow, which the key at a path names.
pub(crate) type Server<'a> = &'a dyn Fn(&str) -> Result<u16, ConfigError>;

/// Reads `[[listener]]`. Host names are resolved, TLS files looked at. `believes`: there are
/// trusted proxies.
pub(crate) fn read(
    settings: &Settings,
    number: Server<'_>,
    believes: bool,
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
    let read = |index| listener(settings, &format!("listener.{index}"), number, believes);
    (0..count).map(read).collect()
}

/// Refuses two sockets on one address. `admin` is that of the admin server.
pub(crate) fn check_overlap(
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

fn listener(
    settings: &Settings,
    path: &str,
    number: Server<'_>,
    believes: bool,
) -> Result<Listener, ConfigError> {
    if !settings.has(path) {
        let complaint = Complaint::new("it is missing, but a later listener exists")
            .advise("Number the listeners without gaps, from 0");
        return Err(settings.error(path, complaint));
    }
    let service = service(settings, path, number)?;
    refuse_server(settings, path, matches!(service, Service::Connmix { .. }))?;
    let trusted = trusted(settings, path, &service)?;
    // uniqIds and registration names have four bytes for the address.
    let ipv4 = matches!(service, Service::NetsvrWorker | Service::NetsvrTask);
    let bind = address(settings, &format!("{path}.bind"), ipv4)?;
    let socket = socket(settings, &format!("{path}.socket"))?;
    let proxy = proxy(settings, &format!("{path}.proxy_protocol"), believes)?;
    let listener = Listener { bind, proxy, socket, tls: tls(settings, path)?, service };
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

fn proxy(settings: &Settings, path: &str, believes: bool) -> Result<ProxyProtocol, ConfigError> {
    let proxy = settings.choice(path)?;
    if proxy == ProxyProtocol::Off || believes {
        return Ok(proxy);
    }
    let complaint = Complaint::new("trust.proxies is empty, so nobody may say it");
    Err(settings.error(path, complaint.advise("List the load balancers in trust.proxies")))
}

/// The name of a socket that is passed on.
fn socket(settings: &Settings, path: &str) -> Result<Option<String>, ConfigError> {
    let name = settings.text(path)?;
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b':';
    if name.len() > 255 || !name.bytes().all(plain) {
        let complaint = Complaint::new("no socket unit can have this name");
        return Err(settings.error(path, complaint.allowed(NAME)));
    }
    Ok(Some(name).filter(|name| !name.is_empty()))
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

fn service(settings: &Settings, path: &str, number: Server<'_>) -> Result<Service, ConfigError> {
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
                ListenerProtocol::Connmix => {
                    Service::Connmix { server: number(&format!("{path}.server"))? }
                }
                ListenerProtocol::Im => Service::Im,
            });
        }
        (false, _) => return self::routes(settings, path, routes, number).map(Service::Http),
        (true, _) => Complaint::new("this listener has both routes and a protocol")
            .advise("Make two listeners of it, on two ports"),
    };
    Err(settings.error(path, complaint))
}

fn routes(
    settings: &Settings,
    path: &str,
    count: usize,
    number: Server<'_>,
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
                *server = number(&format!("{route}.server"))?;
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

/// Whether two sockets would get in each other's way. `::` takes IPv4 connections as well.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && same_ip
}
