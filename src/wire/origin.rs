//! Which web pages may talk to the gateway: the `Origin` that browsers send (RFC 6454 section 7),
//! compared with lists of the configuration and with the `Host` of the request.
//!
//! A browser connects wherever a page tells it to, also to ports that only this machine reaches,
//! and says where the page is from; the page can not change that. So origins keep strangers' pages
//! out, and nobody else: other programs send none, or what they like.
//!
//! Costs: no allocation, O(entries) per request.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::wire::http::Request;

/// A list of origins and hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<Entry>);

/// How the texts of a list are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginMode {
    /// `https://example.com:8443`: scheme, host and port must be the same; `null`: an origin that
    /// has none. `example.com`: the host must, whatever the scheme and port. `.example.com`: the
    /// host or a subdomain of it.
    Origin,
    /// The origin must contain one of them (netsvr section 2.2).
    Contains,
}

/// Why a text can not stand in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    #[error("an empty text names no origin")]
    Empty,
    #[error("there are no wildcards; .example.com is a host with its subdomains")]
    Wildcard,
    #[error("ws and wss are how a page connects; its origin has http or https")]
    Connection,
    #[error("an origin ends with its host or port, without a slash or path")]
    Path,
    #[error("a port needs its scheme; a host without scheme counts with every port")]
    Port,
    #[error("this is neither an origin nor a host; hosts are written in ASCII")]
    Malformed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// An opaque origin, which browsers write as `null`.
    Null,
    Whole {
        scheme: Box<str>,
        host: Box<str>,
        port: Option<u16>,
    },
    Host(Box<str>),
    /// With the dot in front.
    Domain(Box<str>),
    Part(Box<str>),
}

impl Origins {
    /// Reads a list.
    ///
    /// # Errors
    /// The first text that can not stand in it, and why; the list is not to be used.
    pub fn read<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        mode: OriginMode,
    ) -> Result<Origins, (&'a str, OriginError)> {
        let entry = |text: &'a str| match mode {
            _ if text.is_empty() => Err((text, OriginError::Empty)),
            OriginMode::Origin => Entry::read(text).map_err(|error| (text, error)),
            OriginMode::Contains => Ok(Entry::Part(text.into())),
        };
        texts.into_iter().map(entry).collect::<Result<_, _>>().map(Origins)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a page of this origin is in the list.
    pub fn lists(&self, origin: &[u8]) -> bool {
        let Ok(origin) = std::str::from_utf8(origin) else { return false };
        self.0.iter().any(|entry| entry.covers(origin))
    }

    /// Whether clients of this origin may come in: all of them, if the list is empty. Who sends no
    /// origin has an empty one, which no list has.
    pub fn admit(&self, origin: &[u8]) -> bool {
        self.is_empty() || self.lists(origin)
    }

    /// Whether a port that acts for whoever reaches it may act for a request with this origin: for
    /// pages that are listed or on this machine, and for what is no page. Browsers send no
    /// origin with a GET to the page's own host, so this does not keep anybody from reading.
    pub fn trust(&self, origin: &[u8], host: &[u8]) -> bool {
        origin.is_empty() || is_local(origin, host) || self.lists(origin)
    }
}

impl Entry {
    fn read(text: &str) -> Result<Entry, OriginError> {
        if text == "null" {
            return Ok(Entry::Null);
        }
        if text.contains('*') {
            return Err(OriginError::Wildcard);
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, text),
        };
        if scheme.is_some_and(|scheme| ["ws", "wss"].iter().any(|ws| same(ws, scheme))) {
            return Err(OriginError::Connection);
        }
        if rest.contains(['/', '?', '#']) {
            return Err(OriginError::Path);
        }
        let lower = |text: &str| text.to_ascii_lowercase().into_boxed_str();
        if scheme.is_some() {
            let Some(Origin { scheme, host, port }) = Origin::parse(text) else {
                return Err(OriginError::Malformed);
            };
            return Ok(Entry::Whole { scheme: lower(scheme), host: lower(host), port });
        }
        if let Some(domain) = text.strip_prefix('.') {
            let named = is_host(domain) && domain.parse::<Ipv4Addr>().is_err();
            let entry = (named && !domain.starts_with(['.', '['])).then(|| lower(text));
            return entry.map(Entry::Domain).ok_or(OriginError::Malformed);
        }
        match host_and_port(text) {
            Some((host, None)) if is_host(host) => Ok(Entry::Host(lower(host))),
            Some((host, Some(_))) if is_host(host) => Err(OriginError::Port),
            _ => Err(OriginError::Malformed),
        }
    }

    fn covers(&self, origin: &str) -> bool {
        if let Entry::Part(part) = self {
            return origin.contains(&**part);
        }
        let Some(seen) = Origin::parse(origin) else {
            return *self == Entry::Null && origin == "null";
        };
        match self {
            Entry::Null | Entry::Part(_) => false,
            Entry::Whole { scheme, host, port } => {
                same(scheme, seen.scheme) && same(host, seen.host) && *port == seen.port
            }
            Entry::Host(host) => same(host, seen.host),
            Entry::Domain(domain) => {
                let start = seen.host.len().checked_sub(domain.len());
                let tail = start.and_then(|start| seen.host.get(start..));
                same(&domain[1..], seen.host) || tail.is_some_and(|tail| same(domain, tail))
            }
        }
    }
}

/// An origin as browsers write it (RFC 6454 section 6.2).
struct Origin<'a> {
    scheme: &'a str,
    /// IPv6 addresses have their brackets; empty for schemes without hosts, such as `file://`.
    host: &'a str,
    /// `None`: the scheme's own.
    port: Option<u16>,
}

impl Origin<'_> {
    fn parse(text: &str) -> Option<Origin<'_>> {
        let (scheme, rest) = text.split_once("://")?;
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(letter) {
            return None;
        }
        let (host, port) = host_and_port(rest)?;
        let web = [("http", 80), ("https", 443)];
        let own = web.iter().find(|(name, _)| same(name, scheme)).map(|(_, port)| *port);
        let valid = is_host(host) || host.is_empty() && own.is_none() && port.is_none();
        valid.then(|| Origin { scheme, host, port: port.filter(|port| Some(*port) != own) })
    }
}

/// The lines of `Origin` of a request as one text, empty if there is none. There is one at most
/// (RFC 6454 section 7.3), and several are no origin.
pub fn of(request: &Request<'_>) -> Vec<u8> {
    request.joined("Origin")
}

/// Whether the page is one of this machine: its host is the one that the request is for (`host`,
/// whatever the ports), and a name or address of loopback. The second matters, for the name of a
/// stranger may be made to lead to this machine, and then his pages have the same host.
fn is_local(origin: &[u8], host: &[u8]) -> bool {
    let [origin, host] = [origin, host].map(|text| std::str::from_utf8(text).unwrap_or_default());
    let host = host_and_port(host).map_or("", |(host, _)| host);
    let page = Origin::parse(origin).map_or("", |origin| origin.host);
    !page.is_empty() && same(page, host) && is_loopback(page)
}

fn is_loopback(host: &str) -> bool {
    if let Some(address) = ipv6(host) {
        return address.to_canonical().is_loopback();
    }
    // Names below `localhost` lead nowhere else (RFC 6761 section 6.3).
    let name = host.rsplit('.').next().unwrap_or_default();
    same(name, "localhost") || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// Takes `host:port` apart. `None`: what follows the colon is not a port.
fn host_and_port(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => return Some((text, None)),
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| port.parse().ok()).flatten().map(|port| (host, Some(port)))
}

fn is_host(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !text.is_empty() && (text.bytes().all(letter) || ipv6(text).is_some())
}

/// An address in brackets.
fn ipv6(text: &str) -> Option<Ipv6Addr> {
    text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(texts: &[&str], mode: OriginMode) -> Origins {
        Origins::read(texts.iter().copied(), mode).expect("a list of origins")
    }

    fn lists(text: &str, origin: &str) -> bool {
        origins(&[text], OriginMode::Origin).lists(origin.as_bytes())
    }

    #[test]
    fn a_whole_origin_has_scheme_host_and_port() {
        for (text, origin) in [
            ("https://example.com", "https://example.com"),
            ("https://example.com:443", "https://example.com"),
            ("HTTP://Example.COM", "http://example.com:80"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("file://", "file://"),
            ("app://local", "app://local"),
            ("null", "null"),
        ] {
            assert!(lists(text, origin), "{text} {origin}");
        }
        for origin in [
            "http://example.com",
            "https://example.com:8443",
            "https://www.example.com",
            "https://example.com.evil.example",
            "https://evil.example/https://example.com",
            "https://example.com, https://evil.example",
            "https://example.com@evil.example",
            "https://example.com/",
            "example.com",
            "null",
            "",
        ] {
            assert!(!lists("https://example.com", origin), "{origin}");
        }
    }

    #[test]
    fn a_host_counts_with_every_scheme_and_port_and_a_domain_with_its_subdomains() {
        for origin in ["https://example.com", "http://EXAMPLE.com:8080", "app://example.com"] {
            assert!(lists("example.com", origin) && lists(".Example.com", origin), "{origin}");
        }
        assert!(lists("[::1]", "http://[::1]:3000"));
        for origin in ["https://www.example.com", "http://a.b.example.com:1"] {
            assert!(lists(".example.com", origin) && !lists("example.com", origin), "{origin}");
        }
        for origin in ["https://notexample.com", "https://example.com.evil.example", "é://x", "éé"]
        {
            assert!(!lists(".example.com", origin), "{origin}");
        }
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        for (text, error) in [
            ("", OriginError::Empty),
            ("*", OriginError::Wildcard),
            ("https://*.example.com", OriginError::Wildcard),
            ("wss://example.com", OriginError::Connection),
            ("https://example.com/", OriginError::Path),
            ("example.com/chat", OriginError::Path),
            ("localhost:3000", OriginError::Port),
            ("https://", OriginError::Malformed),
            ("https://example.com:99999", OriginError::Malformed),
            ("https://me@example.com", OriginError::Malformed),
            ("://local", OriginError::Malformed),
            ("example com", OriginError::Malformed),
            ("bücher.example", OriginError::Malformed),
            ("..example.com", OriginError::Malformed),
            (".127.0.0.1", OriginError::Malformed),
            (".", OriginError::Malformed),
            ("[::1", OriginError::Malformed),
        ] {
            assert_eq!(Origins::read(["a.example", text], OriginMode::Origin), Err((text, error)));
        }
        assert_eq!(Origins::read([""], OriginMode::Contains), Err(("", OriginError::Empty)));
    }

    #[test]
    fn parts_are_looked_for_anywhere() {
        let parts = origins(&["example.com", "://local"], OriginMode::Contains);
        for origin in ["https://example.com.evil.example", "http://localhost:1", "example.com"] {
            assert!(parts.lists(origin.as_bytes()), "{origin}");
        }
        assert!(!parts.lists(b"https://example.org") && !parts.lists(b""));
    }

    #[test]
    fn an_empty_list_admits_everybody_and_trusts_local_pages() {
        let none = Origins::default();
        assert!(none.admit(b"https://evil.example") && none.admit(b""));
        assert!(!none.trust(b"https://evil.example", b"evil.example") && none.trust(b"", b"x"));
        let some = origins(&["good.example"], OriginMode::Origin);
        assert!(some.admit(b"https://good.example") && !some.admit(b""));
        assert!(some.trust(b"https://good.example", b"127.0.0.1:1"));
    }

    #[test]
    fn a_local_page_has_the_host_of_the_request_on_loopback() {
        for (origin, host) in [
            ("http://localhost", "localhost:6789"),
            ("http://localhost:8080", "LOCALHOST"),
            ("https://app.localhost", "app.localhost:1"),
            ("http://127.0.0.1", "127.0.0.1:6789"),
            ("http://[::1]:3", "[::1]:6789"),
        ] {
            assert!(is_local(origin.as_bytes(), host.as_bytes()), "{origin} {host}");
        }
        for (origin, host) in [
            ("http://localhost", "127.0.0.1:6789"),
            ("http://evil.example", "evil.example"),
            ("http://evil.example", "localhost"),
            ("http://localhost.evil.example", "localhost.evil.example"),
            ("http://127.0.0.1.evil.example", "127.0.0.1.evil.example"),
            ("http://10.0.0.1", "10.0.0.1"),
            ("null", "null"),
            ("file://", ""),
            ("http://localhost, http://localhost", "localhost"),
        ] {
            assert!(!is_local(origin.as_bytes(), host.as_bytes()), "{origin} {host}");
        }
    }
}
