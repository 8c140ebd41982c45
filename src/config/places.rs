//! Addresses, URLs and files, as several areas read them.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use super::error::{Complaint, ConfigError};
use super::model::TlsFiles;
use super::settings::Settings;
use crate::pem::{self, Problem, Wanted};
use crate::wire::network::Network;

/// Reads an address: literal or host name, and port. With `ipv4` an address of another family is
/// refused, and of a name's addresses one that is not loopback is preferred (netsvr section 1).
pub(crate) fn address(
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

/// Reads a list of addresses and networks.
pub(crate) fn networks(settings: &Settings, key: &str) -> Result<Vec<Network>, ConfigError> {
    let texts = settings.texts(key)?;
    let read = |text: &String| {
        Network::parse(text).ok_or_else(|| {
            let complaint = Complaint::new(format!("{text:?} is not an address or network"))
                .allowed("addresses such as \"10.1.2.3\", networks such as \"10.0.0.0/8\"");
            settings.error(key, complaint)
        })
    };
    texts.iter().map(read).collect()
}

/// The URL of a callback; `None` if it is empty.
pub(crate) fn url(settings: &Settings, path: &str) -> Result<Option<String>, ConfigError> {
    let url = settings.text(path)?;
    if url.is_empty() {
        return Ok(None);
    }
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic());
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    if plain && !name.is_empty() && port.is_none_or(|port| port.parse::<u16>().is_ok()) {
        return Ok(Some(url));
    }
    let complaint = Complaint::new("this is not a URL of an HTTP server")
        .allowed("http://host:port/path or https://host:port/path, or empty for no callback")
        .advise("Write other characters than printable ASCII as %XX");
    Err(settings.error(path, complaint))
}

/// A URL to which a path can be appended, without `/` at the end.
pub(crate) fn base(settings: &Settings, path: &str) -> Result<String, ConfigError> {
    let complaint = match url(settings, path)? {
        None => Complaint::new("it is missing"),
        Some(url) if url.contains(['?', '#', '@']) => {
            Complaint::new("a path must fit behind this URL, and it may not carry credentials")
        }
        Some(url) => return Ok(url.trim_end_matches('/').to_owned()),
    };
    Err(settings.error(path, complaint.allowed("http://host:port/path or https://host:port/path")))
}

/// The files of the table `tls` of a listener or service; `None` if there is no such table.
pub(crate) fn tls(settings: &Settings, path: &str) -> Result<Option<TlsFiles>, ConfigError> {
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
pub(crate) fn pem(settings: &Settings, path: &str, wanted: Wanted) -> Result<PathBuf, ConfigError> {
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
