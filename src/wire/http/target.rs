//! Request targets and hosts (RFC 9112 section 3.2, RFC 9110 section 7.2).
//!
//! Served are the origin form (`/path?query`), the absolute form that forward proxies and some
//! WebSocket libraries write (`ws://host/path`), and `*` for OPTIONS. Costs: no allocation.

use std::net::Ipv6Addr;

/// A target in its parts, as the client wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Host and port of an absolute form; it counts in place of `Host`.
    pub authority: Option<&'a [u8]>,
    /// Up to the first `?`; `/` where an absolute form has none.
    pub path: &'a [u8],
    /// Behind the first `?`; may be empty.
    pub query: &'a [u8],
}

/// Schemes of absolute forms, which are compared without case.
const SCHEMES: [&[u8]; 4] = [b"http", b"https", b"ws", b"wss"];

/// The parts of the target of a request with this method; `None`: it has none of the forms. Bytes
/// beyond ASCII are taken as they are; a fragment never belongs to a request.
pub fn split<'a>(method: &str, target: &'a [u8]) -> Option<Target<'a>> {
    let valid = |byte: &u8| *byte > b' ' && *byte != 0x7f && *byte != b'#';
    // What follows a CONNECT is no HTTP.
    if method == "CONNECT" || !target.iter().all(valid) {
        return None;
    }
    match target {
        [b'/', ..] => Some(with_query(None, target)),
        b"*" => (method == "OPTIONS").then_some(with_query(None, target)),
        _ => absolute(target),
    }
}

fn absolute(target: &[u8]) -> Option<Target<'_>> {
    let colon = memchr::memchr(b':', target)?;
    let (scheme, rest) = target.split_at(colon);
    if !SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let rest = rest.strip_prefix(b"://")?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    // A name and a password before the host are refused with it (RFC 9110 section 4.2.4).
    is_host(authority).then(|| with_query(Some(authority), rest))
}

fn with_query<'a>(authority: Option<&'a [u8]>, rest: &'a [u8]) -> Target<'a> {
    let (path, query) = match memchr::memchr(b'?', rest) {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (rest, &[][..]),
    };
    Target { authority, path: if path.is_empty() { b"/" } else { path }, query }
}

/// Whether the text is a host that is not empty, with or without a port (RFC 3986 section 3.2.2).
pub fn is_host(text: &[u8]) -> bool {
    let host_len = match text {
        [b'[', ..] => memchr::memchr(b']', text).map_or(0, |at| at + 1),
        _ => memchr::memchr(b':', text).unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(host_len);
    is_name(host) && is_port(port)
}

fn is_name(host: &[u8]) -> bool {
    if let [b'[', address @ .., b']'] = host {
        return std::str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte);
    let mut rest = host;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'%', [a, b, after @ ..]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => after,
            _ if plain(byte) => after,
            _ => return false,
        };
    }
    !host.is_empty()
}

/// Nothing, or a colon and a number, which may be missing.
fn is_port(text: &[u8]) -> bool {
    let Some(digits) = text.strip_prefix(b":") else { return text.is_empty() };
    let number = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'));
    digits.is_empty() || number.is_some_and(|text| text.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(target: &str) -> Option<(Option<&str>, &str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).expect("it was text");
        let target = split("GET", target.as_bytes())?;
        Some((target.authority.map(text), text(target.path), text(target.query)))
    }

    #[test]
    fn forms_that_are_served() {
        for (target, expected) in [
            ("/", (None, "/", "")),
            ("/a?b?c", (None, "/a", "b?c")),
            ("//a/b?", (None, "//a/b", "")),
            ("/\u{e9}?\u{fc}", (None, "/\u{e9}", "\u{fc}")),
            ("http://h/a?b", (Some("h"), "/a", "b")),
            ("WSS://h:1/", (Some("h:1"), "/", "")),
            ("ws://h", (Some("h"), "/", "")),
            ("https://[::1]:443?b=/", (Some("[::1]:443"), "/", "b=/")),
        ] {
            assert_eq!(parts(target), Some(expected), "{target}");
        }
        assert_eq!(split("OPTIONS", b"*").map(|target| target.path), Some(&b"*"[..]));
        assert_eq!(split("CONNECT", b"/"), None);
    }

    #[test]
    fn forms_that_are_not() {
        for target in [
            "",
            "*",
            "h:80",
            "a/b",
            "?a",
            "ftp://h/",
            "http:/a",
            "http:///a",
            "http://:80/",
            "http://user@h/",
            "http://h h/",
            "/a#b",
            "/a?b#c",
            "/\x7f",
            "/a b",
        ] {
            assert_eq!(parts(target), None, "{target}");
        }
    }

    #[test]
    fn hosts() {
        for host in ["a", "a.b-c_d:80", "127.0.0.1", "[::1]", "[2001:db8::7]:6060", "a:", "%61"] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "", ":80", "a b", "a/b", "a@b", "a:b", "a:1:2", "a:65536", "a:+1", "[::1", "::1",
            "[::1]x", "[]", "[a]", "%6", "\u{e9}", "a\\b", "a?b",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}
