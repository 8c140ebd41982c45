//! The header of the PROXY protocol, versions 1 and 2: a load balancer says whom a connection comes
//! from, before anything else is sent. The library `ppp` reads it; here is what may be read.
//!
//! Invariants: a header has no more than [`PROXY_HEADER_BYTES_MAX`] bytes, and a peer whose bytes
//! can not become one is known by the first byte that differs.

use std::net::SocketAddr;

use ppp::{PartialResult, v1, v2};

use crate::limits::PROXY_HEADER_BYTES_MAX;

/// Bytes of a header of version 1, its line end included.
const LINE_BYTES_MAX: usize = 107;
const LINE: &[u8] = b"PROXY ";
/// Before the addresses of version 2.
const FIXED_BYTES: usize = 16;

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// More of them are needed.
    More,
    /// No header begins with them.
    Nothing,
    /// A header, of so many bytes. `None`: it says nothing of the client; the load balancer speaks
    /// for itself, or does not know.
    Header { client: Option<SocketAddr>, bytes: usize },
    /// They begin like a header, and are none.
    Broken,
}

/// Reads the beginning of a connection.
pub fn read(bytes: &[u8]) -> Said {
    if begins(bytes, LINE) {
        return line(bytes);
    }
    match begins(bytes, v2::PROTOCOL_PREFIX) {
        true => binary(bytes),
        false => Said::Nothing,
    }
}

/// Whether these bytes are, as far as they go, this beginning.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let length = bytes.len().min(with.len());
    bytes[..length] == with[..length]
}

fn line(bytes: &[u8]) -> Said {
    let known = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'\n', known) else {
        return if known.len() < LINE_BYTES_MAX { Said::More } else { Said::Broken };
    };
    let line = &bytes[..=end];
    let client = match v1::Header::try_from(line).map(|header| header.addresses) {
        Ok(v1::Addresses::Tcp4(of)) => Some((of.source_address, of.source_port).into()),
        Ok(v1::Addresses::Tcp6(of)) => Some((of.source_address, of.source_port).into()),
        Ok(v1::Addresses::Unknown) => None,
        Err(_) => return Said::Broken,
    };
    Said::Header { client, bytes: line.len() }
}

fn binary(bytes: &[u8]) -> Said {
    let Some(fixed) = bytes.get(..FIXED_BYTES) else { return Said::More };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED_BYTES + length > PROXY_HEADER_BYTES_MAX {
        return Said::Broken;
    }
    let header = v2::Header::try_from(bytes);
    if header.is_incomplete() {
        return Said::More;
    }
    let Ok(header) = header else { return Said::Broken };
    let client = match (header.command, header.addresses) {
        // A health check.
        (v2::Command::Local, _) => None,
        (v2::Command::Proxy, v2::Addresses::IPv4(of)) => {
            Some((of.source_address, of.source_port).into())
        }
        (v2::Command::Proxy, v2::Addresses::IPv6(of)) => {
            Some((of.source_address, of.source_port).into())
        }
        (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
    };
    Said::Header { client, bytes: FIXED_BYTES + length }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[0x20 | command, family], &length, rest].concat()
    }

    fn client(text: &str) -> Option<SocketAddr> {
        Some(text.parse().expect("an address"))
    }

    /// Every beginning of a header, and a header with something behind it.
    fn check(header: &[u8], client: Option<SocketAddr>) {
        for length in 0..header.len() {
            assert_eq!(read(&header[..length]), Said::More, "{length} of {header:?}");
        }
        let whole = Said::Header { client, bytes: header.len() };
        assert_eq!(read(header), whole, "{header:?}");
        assert_eq!(read(&[header, b"GET / HTTP/1.1\r\n"].concat()), whole, "{header:?}");
    }

    #[test]
    fn headers_of_both_versions_are_read_whole() {
        check(b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n", client("192.0.2.7:56324"));
        check(b"PROXY TCP6 2001:db8::7 ::1 56324 443\r\n", client("[2001:db8::7]:56324"));
        check(b"PROXY UNKNOWN\r\n", None);
        check(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None);
        let four = [192, 0, 2, 7, 10, 0, 0, 1, 0xdc, 4, 1, 0xbb];
        check(&v2(1, 0x11, &four), client("192.0.2.7:56324"));
        check(&v2(0, 0x11, &four), None);
        check(&v2(0, 0, &[]), None);
        check(&v2(1, 0, &[]), None);
        // With what it may say beside the addresses: type 4 (no-op), 3 bytes.
        check(&v2(1, 0x11, &[&four[..], &[4, 0, 3, 1, 2, 3]].concat()), client("192.0.2.7:56324"));
        let mut six = [0; 36];
        six[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        (six[15], six[31], six[32], six[33]) = (7, 1, 0xdc, 4);
        check(&v2(1, 0x21, &six), client("[2001:db8::7]:56324"));
        check(&v2(1, 0x31, &[0; 216]), None);
    }

    #[test]
    fn what_is_no_header_is_known_by_its_first_byte_that_differs() {
        for bytes in
            [&b"GET / HTTP/1.1\r\n"[..], b"PROXX", b"\x16\x03\x01", b"\r\n\r\n\0\r\nQUIX", b"\0"]
        {
            assert_eq!(read(bytes), Said::Nothing, "{bytes:?}");
        }
        assert_eq!(read(b""), Said::More);
    }

    #[test]
    fn broken_headers_are_no_headers() {
        let long = [b"PROXY UNKNOWN ", &[b'x'; 120][..]].concat();
        for bytes in [
            &b"PROXY TCP4 192.0.2.7\r\n"[..],
            b"PROXY TCP4 192.0.2.7 10.0.0.1 99999 443\r\n",
            b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
            b"PROXY TCP9 192.0.2.7 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n",
            &long,
            &v2(2, 0x11, &[0; 12]),
            &v2(1, 0x11, &[0; 4]),
            &[v2::PROTOCOL_PREFIX, &[0x31, 0x11, 0, 12]].concat(),
            &v2(1, 0x11, &[0; 5000]),
        ] {
            assert_eq!(read(bytes), Said::Broken, "{bytes:?}");
        }
    }
}
