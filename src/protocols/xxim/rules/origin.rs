//! Where a client comes from, as its handshake and the proxies before the gateway tell it
//! (specification sections 1.1, 1.7 and 7.1).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::protocols::xxim::config::Network;
use crate::protocols::xxim::wire::Identity;
use crate::wire::http;
use crate::wire::origin::{self, Origins};

/// The address of the client: what a trusted proxy says, else the peer's. Of `X-Forwarded-For` the
/// last address counts that is not a trusted proxy itself: what stands before it is hearsay.
pub fn client_ip(
    peer: SocketAddr,
    forwarded_for: &str,
    real_ip: &str,
    trusted: &[Network],
) -> String {
    let peer = peer.ip().to_canonical();
    let is_trusted = |ip: IpAddr| trusted.iter().any(|network| network.contains(ip));
    if !is_trusted(peer) {
        return peer.to_string();
    }
    let mut last = None;
    for text in forwarded_for.rsplit(',') {
        let Some(ip) = address(text) else { break };
        last = Some(ip);
        if !is_trusted(ip) {
            break;
        }
    }
    last.or_else(|| address(real_ip)).unwrap_or(peer).to_string()
}

/// An address, with or without port, brackets and white space.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|at| at.ip()));
    ip.map(|ip: IpAddr| ip.to_canonical())
}

/// The first value of each header, ascending, under the names by which the original tells them
/// (`ConnParam.headers`): the first letter and each one behind a hyphen are capital, the others
/// are not.
pub fn first_values(headers: Vec<(String, String)>) -> std::sync::Arc<[(String, String)]> {
    let mut values = BTreeMap::new();
    for (mut name, value) in headers {
        name.make_ascii_lowercase();
        values.entry(canonical(&name)).or_insert(value);
    }
    values.into_iter().collect()
}

/// A name in lower case as Go writes it.
fn canonical(name: &str) -> String {
    let mut capital = true;
    let letter = |letter: char| {
        let written = if capital { letter.to_ascii_uppercase() } else { letter };
        capital = letter == '-';
        written
    };
    name.chars().map(letter).collect()
}

/// The login of the query of a handshake, whose other parameters go into the identity. `None`:
/// user or token is missing, so that nothing of the query counts.
pub fn query_login(query: &str, identity: &mut Identity) -> Option<(String, String)> {
    let mut values: BTreeMap<&str, String> = BTreeMap::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        values.entry(name).or_insert_with(|| decoded(value));
    }
    let user = values.remove("userId").filter(|user| !user.is_empty())?;
    let token = values.remove("token").filter(|token| !token.is_empty())?;
    let mut take = |name: &str| values.remove(name).unwrap_or_default();
    identity.platform = take("platform");
    identity.device_id = take("deviceId");
    identity.device_model = take("deviceModel");
    identity.os_version = take("osVersion");
    identity.app_version = take("appVersion");
    identity.language = take("language");
    identity.network_used = take("networkUsed");
    Some((user, token))
}

/// Percent-decoding of a query value; what is not UTF-8 is replaced.
fn decoded(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
                match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    Some(byte) => {
                        out.push(byte);
                        rest = &after[2..];
                    }
                    None => out.push(b'%'),
                }
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Header lines that let a browser of another origin in: those that are listed, and `localhost`.
/// `None`: there is a list, and the page is not in it.
pub fn cors(request: &http::Request<'_>, listed: &Origins) -> Option<Box<str>> {
    let origin = origin::of(request);
    let text = std::str::from_utf8(&origin).unwrap_or_default();
    let local = text.strip_prefix("http://localhost");
    let local = local.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
    if !local && !listed.lists(&origin) {
        return (origin.is_empty() || listed.is_empty()).then(Box::default);
    }
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    let lines = format!(
        "Access-Control-Allow-Origin: {text}\r\nAccess-Control-Allow-Credentials: true\r\n\
         Access-Control-Allow-Methods: POST, OPTIONS\r\n\
         Access-Control-Allow-Headers: Content-Type\r\nVary: Origin\r\n"
    );
    Some(if plain { lines.into() } else { Box::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(peer: &str, forwarded: &str, real: &str) -> String {
        let trusted: Vec<_> =
            ["10.0.0.0/8", "::1"].iter().filter_map(|text| Network::parse(text)).collect();
        client_ip(peer.parse().expect("an address"), forwarded, real, &trusted)
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(ip("203.0.113.9:5", "192.0.2.1", "192.0.2.2"), "203.0.113.9");
        assert_eq!(ip("10.0.0.1:5", "192.0.2.1", "192.0.2.2"), "192.0.2.1");
        assert_eq!(ip("10.0.0.1:5", "6.6.6.6, 192.0.2.1, 10.0.0.7", ""), "192.0.2.1");
        assert_eq!(ip("10.0.0.1:5", "10.0.0.9,10.0.0.7", ""), "10.0.0.9");
        assert_eq!(ip("10.0.0.1:5", "", "192.0.2.2:80"), "192.0.2.2");
        assert_eq!(ip("10.0.0.1:5", "nonsense", "also"), "10.0.0.1");
        assert_eq!(ip("[::1]:5", "[2001:db8::1]:443", ""), "2001:db8::1");
        assert_eq!(ip("[::ffff:10.0.0.1]:5", "[2001:db8::2]", ""), "2001:db8::2");
    }

    #[test]
    fn a_query_counts_only_with_user_and_token() {
        let mut identity = Identity::default();
        assert_eq!(query_login("userId=a&platform=ios", &mut identity), None);
        assert_eq!(identity, Identity::default());
        let login = query_login("userId=a%20b&token=t+1&platform=ios&deviceId=%zz", &mut identity);
        assert_eq!(login, Some(("a b".into(), "t 1".into())));
        assert_eq!((&*identity.platform, &*identity.device_id), ("ios", "%zz"));
    }

    #[test]
    fn the_first_value_of_a_header_counts() {
        let headers = [("user-AGENT", "1"), ("a", "2"), ("User-Agent", "3")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let values = first_values(headers);
        assert_eq!(*values, [("A".into(), "2".into()), ("User-Agent".into(), "1".into())]);
    }
}
