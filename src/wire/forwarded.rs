//! Whom a request comes from, as the proxies in front of the gateway say: `X-Forwarded-For`,
//! `Forwarded` (RFC 7239), `X-Real-IP`.
//!
//! A proxy puts the address of its peer at the end of the list, so lists are read from the right,
//! over all lines of the header, up to the first address that is no trusted proxy: what stands
//! before it is hearsay, and so is all that somebody says who is no trusted proxy himself.
//!
//! Costs: nothing for peers that are not trusted; one walk over the header lines for others.

use std::net::{IpAddr, SocketAddr};

use super::http::Request;
use super::network::Network;

/// Which header says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Saying {
    /// `X-Forwarded-For` if there is one, else `Forwarded`.
    #[default]
    Any,
    XForwardedFor,
    Forwarded,
}

/// Whom the gateway believes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    pub trusted: Vec<Network>,
    pub saying: Saying,
}

impl Proxies {
    /// Whether this is the address of a trusted proxy.
    pub fn trust(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// The address of the client behind a request of this peer: what trusted proxies say, else the
    /// peer's. Port 0: they do not say which.
    pub fn client(&self, peer: SocketAddr, request: &Request<'_>) -> SocketAddr {
        const LIST: &str = "X-Forwarded-For";
        if !self.trust(peer.ip()) {
            return peer;
        }
        let listed = match self.saying {
            Saying::XForwardedFor => true,
            Saying::Forwarded => false,
            Saying::Any => request.header(LIST).is_some(),
        };
        let name = if listed { LIST } else { "Forwarded" };
        let read = if listed { address } else { node };
        let lines: Vec<&[u8]> = request.header_lines(name).collect();
        let mut last = None;
        for element in lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b',')) {
            let Some(said) = read(element) else { break };
            last = Some(said);
            if !self.trust(said.ip()) {
                break;
            }
        }
        last.or_else(|| address(request.header("X-Real-IP")?)).unwrap_or(peer)
    }
}

/// The `for` of an element of `Forwarded`. An address has no comma in it, so neither quotes nor
/// what is in them hides the place where an element ends: whoever wants to, could write half of
/// them.
fn node(element: &[u8]) -> Option<SocketAddr> {
    let mut pairs = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let value = pairs.find_map(|pair| {
        let (name, value) = pair.split_at_checked(4)?;
        name.eq_ignore_ascii_case(b"for=").then_some(value)
    })?;
    let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    address(bare.unwrap_or(value))
}

/// An address, with or without port, brackets and white space.
fn address(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let alone = bare.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, 0));
    let said: SocketAddr = alone.or_else(|| text.parse().ok())?;
    Some(SocketAddr::new(said.ip().to_canonical(), said.port()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::head;

    /// What is made of these header lines, of a peer.
    fn of(peer: &str, lines: &str, saying: Saying) -> String {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let (request, _) = head(text.as_bytes(), 0).expect("a head").expect("a whole one");
        let trusted = ["10.0.0.0/8", "::1"].into_iter().filter_map(Network::parse).collect();
        let proxies = Proxies { trusted, saying };
        proxies.client(peer.parse().expect("an address"), &request).to_string()
    }

    #[test]
    fn lists_are_read_from_the_right_up_to_who_is_not_trusted() {
        for (lines, client) in [
            ("", "10.0.0.1:1"),
            ("X-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4:0"),
            ("X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.2.2.2\r\n", "1.2.3.4:0"),
            ("X-Forwarded-For: 6.6.6.6, 1.2.3.4\r\nX-Forwarded-For: 10.2.2.2\r\n", "1.2.3.4:0"),
            ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4:567\r\n", "1.2.3.4:567"),
            ("X-Forwarded-For: 10.3.3.3, 10.2.2.2\r\n", "10.3.3.3:0"),
            ("X-Forwarded-For: 6.6.6.6, who, 10.2.2.2\r\n", "10.2.2.2:0"),
            ("X-Forwarded-For: [2001:db8::7]:443\r\n", "[2001:db8::7]:443"),
            ("X-Forwarded-For: 2001:db8::7\r\n", "[2001:db8::7]:0"),
            ("X-Forwarded-For: ::ffff:1.2.3.4\r\n", "1.2.3.4:0"),
            ("Forwarded: for=1.2.3.4\r\n", "1.2.3.4:0"),
            ("Forwarded: for=6.6.6.6;by=a, For=\"1.2.3.4:567\";proto=https\r\n", "1.2.3.4:567"),
            (
                "Forwarded: for=6.6.6.6\r\nForwarded: proto=http;for=\"[2001:db8::7]\"\r\n",
                "[2001:db8::7]:0",
            ),
            ("Forwarded: for=6.6.6.6, for=unknown\r\n", "10.0.0.1:1"),
            ("Forwarded: for=6.6.6.6, for=_hidden, for=10.2.2.2\r\n", "10.2.2.2:0"),
            ("Forwarded: for=\"6.6.6.6, for=1.2.3.4\r\n", "1.2.3.4:0"),
            ("Forwarded: for=\"6.6.6.6\\\", for=1.2.3.4;host=\"a\"\r\n", "1.2.3.4:0"),
            ("Forwarded: by=1.2.3.4\r\n", "10.0.0.1:1"),
            ("X-Real-IP: 1.2.3.4\r\n", "1.2.3.4:0"),
            ("X-Real-IP: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n", "1.2.3.4:0"),
            ("X-Real-IP: who\r\n", "10.0.0.1:1"),
        ] {
            assert_eq!(of("10.0.0.1:1", lines, Saying::Any), client, "{lines}");
        }
    }

    #[test]
    fn who_is_no_trusted_proxy_is_not_believed() {
        let lines = "X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n";
        for peer in ["192.0.2.1:1", "[2001:db8::1]:1"] {
            assert_eq!(of(peer, lines, Saying::Any), peer);
        }
        assert_eq!(of("[::ffff:10.0.0.1]:1", lines, Saying::Any), "1.2.3.4:0");
        assert_eq!(of("[::1]:1", lines, Saying::Any), "1.2.3.4:0");
    }

    #[test]
    fn only_the_header_counts_that_proxies_write() {
        let lines = "X-Forwarded-For: 1.1.1.1\r\nForwarded: for=2.2.2.2\r\n";
        for (saying, client) in [
            (Saying::Any, "1.1.1.1:0"),
            (Saying::XForwardedFor, "1.1.1.1:0"),
            (Saying::Forwarded, "2.2.2.2:0"),
        ] {
            assert_eq!(of("10.0.0.1:1", lines, saying), client);
        }
        let other = "Forwarded: for=2.2.2.2\r\n";
        assert_eq!(of("10.0.0.1:1", other, Saying::XForwardedFor), "10.0.0.1:1");
    }
}
