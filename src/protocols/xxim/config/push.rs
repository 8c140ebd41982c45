//! `[xxim.push]`: what xxim backends push, and who may (xxim specification section 6).
//!
//! Invariant: a service that everybody could use is accepted for loopback only.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::error::{Complaint, ConfigError};
use crate::config::keys::{Key, Section, ValueType, flag, secret, text};
use crate::config::model::TlsFiles;
use crate::config::places::{address, networks, tls};
use crate::config::settings::Settings;
use crate::wire::network::Network;

/// The push service (section 6.1).
#[derive(Clone, PartialEq)]
pub struct XximPushService {
    pub bind: SocketAddr,
    /// What backends must show in `Authorization: Bearer`; empty: nothing.
    pub secret: String,
    /// Networks whose backends need not show it. Without a secret: the only ones that may push,
    /// unless client certificates are verified.
    pub allow_from: Vec<Network>,
    pub tls: Option<TlsFiles>,
    /// A filter without any value sends to or kicks everybody, instead of an error.
    pub allow_broadcast: bool,
    /// Requests are carried out on every node of the mesh.
    pub cluster: bool,
    /// Answers name tokens and handshake headers of clients. Seeds are never named.
    pub expose_secrets: bool,
    /// Bytes of one request.
    pub request_bytes_max: u32,
    pub bounds: PushBounds,
}

/// How much of the service backends may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PushBounds {
    /// Connections, where the process may open enough descriptors.
    pub connections_max: u32,
    /// Requests of one HTTP/2 connection that are under way.
    pub requests_max: u32,
    /// From accept to the end of the first head, and for each further head of HTTP/1.1.
    pub head_timeout: Duration,
    /// For the body of a request.
    pub body_timeout: Duration,
}

impl Default for PushBounds {
    fn default() -> PushBounds {
        let ten_seconds = Duration::from_secs(10);
        PushBounds {
            connections_max: 1024,
            requests_max: 1024,
            head_timeout: ten_seconds,
            body_timeout: ten_seconds,
        }
    }
}

/// Without the secret.
impl fmt::Debug for XximPushService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("XximPushService")
            .field("bind", &self.bind)
            .field("has_secret", &!self.secret.is_empty())
            .finish_non_exhaustive()
    }
}

/// The keys that are not limits.
const KEYS: &[Key] = &[
    Key {
        allowed: "`address:port`, or empty",
        ..text("xxim.push.bind", "\"\"", "Address of the push service. Empty: none.")
    },
    Key {
        allowed: "text of 16 to 256 printable ASCII characters, or empty",
        ..secret(
            "xxim.push.secret",
            "\"\"",
            "What backends show in `Authorization: Bearer <secret>`. This, allow_from or \
             tls.client_ca is required outside of loopback.",
        )
    },
    Key {
        kind: ValueType::Texts,
        allowed: "list of addresses and networks, e.g. \"10.0.0.0/8\"",
        ..text(
            "xxim.push.allow_from",
            "[]",
            "Backends that need no secret, by the address from which they connect. The unmodified \
             imService shows none, so it is listed here. Without `secret` nobody else may push.",
        )
    },
    Key {
        allowed: "path of a PEM file",
        reload: true,
        ..text("xxim.push.tls.cert", "", "Certificate chain; with it TLS only.")
    },
    Key {
        allowed: "path of a PEM file",
        reload: true,
        ..text("xxim.push.tls.key", "", "Key of the certificate.")
    },
    Key {
        allowed: "path of a PEM file",
        reload: true,
        ..text(
            "xxim.push.tls.client_ca",
            "",
            "Authorities of client certificates; with it a backend must show one (mutual TLS).",
        )
    },
    Key {
        default: "false",
        ..flag(
            "xxim.push.cluster",
            "Carry requests out on every node of the mesh. Leave it off where backends ask every \
             node themselves, as imService does.",
        )
    },
    Key {
        default: "false",
        ..flag(
            "xxim.push.allow_broadcast",
            "SendMsg and KickUserConn with a filter without any value mean everybody. GetUserConn \
             always does.",
        )
    },
    Key {
        default: "false",
        ..flag("xxim.push.expose_secrets", "Answers name tokens and headers of clients.")
    },
];

/// The tables of the reference.
const TITLES: &[(&str, &str, &str)] = &[
    ("xxim.push", "`[xxim.push]`", "gRPC `pb.connService` and the same over HTTP."),
    ("xxim.push.tls", "`tls` of `[xxim.push]`", ""),
];

/// The section of the tables.
pub(crate) const SECTION: Section = Section { keys: KEYS, lists: &[], titles: TITLES };

/// Reads it; `None`: there is none.
pub(crate) fn read(settings: &Settings) -> Result<Option<XximPushService>, ConfigError> {
    const BIND: &str = "xxim.push.bind";
    // What is not used is checked as well.
    let request_bytes_max = settings.number("xxim.push.request_bytes_max")?;
    let bounds = PushBounds {
        connections_max: settings.number("xxim.push.connections_max")?,
        requests_max: settings.number("xxim.push.requests_max")?,
        head_timeout: settings.duration("xxim.push.head_timeout")?,
        body_timeout: settings.duration("xxim.push.body_timeout")?,
    };
    if settings.text(BIND)?.is_empty() {
        return Ok(None);
    }
    let bind = address(settings, BIND, false)?;
    let secret = settings.text("xxim.push.secret")?;
    let long = (16..=256).contains(&secret.len());
    let good = secret.is_empty() || long && secret.bytes().all(|byte| byte.is_ascii_graphic());
    if !good {
        let complaint = Complaint::new("this is not a secret")
            .allowed("16 to 256 printable ASCII characters without space, or empty");
        return Err(settings.error("xxim.push.secret", complaint));
    }
    let tls = tls(settings, "xxim.push")?;
    let verified = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let allow_from = allow_from(settings)?;
    if !bind.ip().is_loopback() && secret.is_empty() && allow_from.is_empty() && !verified {
        let complaint = Complaint::new("whoever reaches this address could push to every client")
            .allowed("an address on loopback, or one that is protected")
            .advise(
                "Set xxim.push.secret, or xxim.push.allow_from, or xxim.push.tls with client_ca, \
                 or bind it to 127.0.0.1",
            );
        return Err(settings.error(BIND, complaint));
    }
    Ok(Some(XximPushService {
        bind,
        secret,
        allow_from,
        tls,
        allow_broadcast: settings.flag("xxim.push.allow_broadcast")?,
        cluster: settings.flag("xxim.push.cluster")?,
        expose_secrets: settings.flag("xxim.push.expose_secrets")?,
        request_bytes_max,
        bounds,
    }))
}

/// Connections that the push service, configured for `max`, may have in a process that may open so
/// many descriptors: these are kept free for them.
pub fn push_connections_max(max: u32, descriptors_max: u64) -> u64 {
    (descriptors_max / 8).clamp(1, u64::from(max.max(1)))
}

/// Descriptors that are kept free for the push service.
pub(crate) fn descriptors(settings: &Settings, descriptors_max: u64) -> Result<u64, ConfigError> {
    if settings.text("xxim.push.bind")?.is_empty() {
        return Ok(0);
    }
    let max = settings.number("xxim.push.connections_max")?;
    Ok(push_connections_max(max, descriptors_max))
}

fn allow_from(settings: &Settings) -> Result<Vec<Network>, ConfigError> {
    const KEY: &str = "xxim.push.allow_from";
    let networks = networks(settings, KEY)?;
    if networks.iter().any(Network::is_everybody) {
        let complaint = Complaint::new("this would let everybody push without a secret")
            .allowed("the networks of backends, such as \"10.0.0.0/8\"");
        return Err(settings.error(KEY, complaint));
    }
    Ok(networks)
}
