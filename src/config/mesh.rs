//! `[mesh]`: several machines as one gateway.

use std::fmt;
use std::path::PathBuf;

use super::error::{Complaint, ConfigError};
use super::keys::{Key, Section, ValueType, secret, text, url};
use super::places::pem;
use super::settings::Settings;
use crate::pem::Wanted;

/// The keys that are no plain limits.
const KEYS: &[Key] = &[
    Key {
        kind: ValueType::Texts,
        allowed: "list of `nats://host:port` or `tls://host:port` URLs",
        ..url(
            "mesh.nats",
            "[]",
            "Servers of one NATS cluster; with `user:password@` before the host, unless mesh.user \
             says it. Empty: no mesh.",
        )
    },
    Key {
        allowed: "letters, digits, `-` and `_`, at most 64",
        ..text(
            "mesh.cluster",
            "\"ringway\"",
            "Name of the mesh: one NATS can carry several. Nodes of one name find each other.",
        )
    },
    Key {
        allowed: "path of a file as `nsc` writes it",
        ..text("mesh.credentials", "\"\"", "JWT and key for NATS. Empty: none.")
    },
    Key { allowed: "text", ..text("mesh.user", "\"\"", "User for NATS. Empty: none.") },
    Key { allowed: "text", ..secret("mesh.password", "\"\"", "Password of that user.") },
    Key { allowed: "text", ..secret("mesh.token", "\"\"", "Token for NATS. Empty: none.") },
    Key {
        allowed: "path of a PEM file",
        ..text(
            "mesh.tls.ca",
            "\"\"",
            "Authorities of the certificates of the NATS servers, beside those of the system.",
        )
    },
    Key {
        allowed: "path of a PEM file",
        ..text("mesh.tls.cert", "\"\"", "Certificate that NATS is shown. Needs mesh.tls.key.")
    },
    Key { allowed: "path of a PEM file", ..text("mesh.tls.key", "\"\"", "Key of it.") },
];

/// The tables of the reference: name, title, what is said above it.
const TITLES: &[(&str, &str, &str)] = &[
    (
        "mesh",
        "`[mesh]`",
        "Several machines as one gateway, over NATS. Every node needs a `node` of its own.",
    ),
    ("mesh.tls", "`[mesh.tls]`", "Files for the connection to NATS."),
];

/// The section of the tables.
pub(crate) const SECTION: Section = Section { keys: KEYS, lists: &[], titles: TITLES };

/// `[mesh]`.
#[derive(Clone, Default, PartialEq)]
pub struct Mesh {
    /// URLs of NATS servers; empty: there is no mesh.
    pub nats: Vec<String>,
    /// Second place of all subjects.
    pub cluster: String,
    /// At most one of these three.
    pub credentials: Option<PathBuf>,
    pub user: Option<(String, String)>,
    pub token: Option<String>,
    /// PEM file of authorities.
    pub ca: Option<PathBuf>,
    /// PEM files of certificate and key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Bytes that may wait for the link, and of what came from it for the shards.
    pub queue_bytes_max: usize,
}

impl Mesh {
    /// Whether there is one.
    pub fn is_on(&self) -> bool {
        !self.nats.is_empty()
    }
}

/// Without secrets, which may also be in the URLs.
impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh")
            .field("nats", &self.nats.len())
            .field("cluster", &self.cluster)
            .field("queue_bytes_max", &self.queue_bytes_max)
            .finish_non_exhaustive()
    }
}

/// Reads it.
pub(crate) fn read(settings: &Settings) -> Result<Mesh, ConfigError> {
    let nats = settings.texts("mesh.nats")?;
    if let Some(wrong) = nats.iter().position(|url| !is_server(url)) {
        let complaint =
            Complaint::new(format!("number {} is not the URL of a NATS server", wrong + 1))
                .allowed("nats://host:port or tls://host:port")
                .advise("NATS listens on port 4222 unless it is told otherwise");
        return Err(settings.error("mesh.nats", complaint));
    }
    let cluster = settings.text("mesh.cluster")?;
    let named = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if cluster.is_empty() || cluster.len() > 64 || !cluster.chars().all(named) {
        let complaint = Complaint::new("this can not be part of a NATS subject")
            .allowed("1 to 64 letters, digits, `-` and `_`");
        return Err(settings.error("mesh.cluster", complaint));
    }
    let given = |path: &str| settings.text(path).map(|text| Some(text).filter(|t| !t.is_empty()));
    let user = given("mesh.user")?;
    let mesh = Mesh {
        nats,
        cluster,
        credentials: given("mesh.credentials")?.map(PathBuf::from),
        user: user.map(|user| Ok((user, settings.text("mesh.password")?))).transpose()?,
        token: given("mesh.token")?,
        ca: given("mesh.tls.ca")?
            .map(|_| pem(settings, "mesh.tls.ca", Wanted::Certificates))
            .transpose()?,
        certificate: certificate(settings)?,
        queue_bytes_max: settings.number("mesh.queue_bytes_max")?,
    };
    let ways = [mesh.credentials.is_some(), mesh.user.is_some(), mesh.token.is_some()];
    if ways.iter().filter(|way| **way).count() > 1 {
        let complaint = Complaint::new("there is more than one way to log in to NATS")
            .advise("Keep one of mesh.credentials, mesh.user and mesh.token");
        return Err(settings.error("mesh", complaint));
    }
    Ok(mesh)
}

fn certificate(settings: &Settings) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    let (cert, key) = (settings.text("mesh.tls.cert")?, settings.text("mesh.tls.key")?);
    match (cert.is_empty(), key.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Ok(Some((
            pem(settings, "mesh.tls.cert", Wanted::Certificates)?,
            pem(settings, "mesh.tls.key", Wanted::PrivateKey)?,
        ))),
        (without_cert, _) => {
            let path = if without_cert { "mesh.tls.cert" } else { "mesh.tls.key" };
            let complaint = Complaint::new("certificate and key belong together")
                .advise("Set both mesh.tls.cert and mesh.tls.key, or none");
            Err(settings.error(path, complaint))
        }
    }
}

fn is_server(url: &str) -> bool {
    let rest = url.strip_prefix("nats://").or_else(|| url.strip_prefix("tls://"));
    let host = rest.map(|rest| rest.rsplit('@').next().unwrap_or_default());
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
    plain
        && host.is_some_and(|host| {
            let (name, port) = match host.rsplit_once(':') {
                Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
                _ => (host, None),
            };
            !name.is_empty()
                && !name.contains(['/', '?', '#'])
                && port.is_none_or(|port| port.parse::<u16>().is_ok())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_nats_are_told_from_other_texts() {
        for url in ["nats://a", "tls://a.b:4222", "nats://u:p@h:1", "nats://[::1]:4222"] {
            assert!(is_server(url), "{url}");
        }
        for url in ["", "a:4222", "http://a", "nats://", "nats://a:b", "nats://a b", "nats://a/x"] {
            assert!(!is_server(url), "{url}");
        }
    }
}
