//! Names of connections on the wire: uniqId of clients, connId of registrations.
//!
//! A uniqId encodes a [`ConnId`], so it leads back to the connection without a table. No allocation,
//! except for the `String` of a connId.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use crate::hub::ConnId;

/// Characters of the address part of a uniqId.
const PREFIX: usize = 12;

/// Makes and reads the uniqIds of one gateway (section 2.9).
#[derive(Clone, Copy, Debug)]
pub struct UniqIds {
    prefix: [u8; PREFIX],
}

impl UniqIds {
    /// Characters of a uniqId.
    pub const LEN: usize = 28;

    /// `advertise` is the address that SDKs are configured with.
    pub fn new(advertise: SocketAddrV4) -> UniqIds {
        let mut prefix = [0; PREFIX];
        hex(&advertise.ip().octets(), &mut prefix[..8]);
        hex(&advertise.port().to_be_bytes(), &mut prefix[8..]);
        UniqIds { prefix }
    }

    /// The uniqId of a connection: address, generation, index.
    pub fn encode(&self, conn: ConnId) -> [u8; UniqIds::LEN] {
        let mut text = [0; UniqIds::LEN];
        text[..PREFIX].copy_from_slice(&self.prefix);
        hex(&conn.generation().to_be_bytes(), &mut text[12..20]);
        hex(&conn.index().to_be_bytes(), &mut text[20..]);
        text
    }

    /// The connection that a uniqId names: exactly 28 lower-case hex characters with the address of
    /// this gateway. Everything else names nobody here.
    pub fn decode(&self, text: &str) -> Option<ConnId> {
        let text: &[u8; UniqIds::LEN] = text.as_bytes().try_into().ok()?;
        if text[..PREFIX] != self.prefix {
            return None;
        }
        Some(ConnId::from_parts(unhex(&text[12..20])?, unhex(&text[20..])?))
    }
}

/// The name of a registration (section 3.8): 32 hex characters. Of an IPv6 peer it has the last four
/// bytes.
pub fn conn_id(listener: SocketAddrV4, peer: SocketAddr, unix_seconds: u32) -> String {
    let ip = match peer.ip() {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            [a, b, c, d]
        }
    };
    let mut text = [0; 32];
    hex(&listener.ip().octets(), &mut text[..8]);
    hex(&listener.port().to_be_bytes(), &mut text[8..12]);
    hex(&ip, &mut text[12..20]);
    hex(&peer.port().to_be_bytes(), &mut text[20..24]);
    hex(&unix_seconds.to_be_bytes(), &mut text[24..]);
    text.iter().map(|&digit| digit as char).collect()
}

/// Writes two digits per byte; `out` has room for exactly that.
fn hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    debug_assert_eq!(out.len(), bytes.len() * 2);
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[(byte >> 4) as usize];
        pair[1] = DIGITS[(byte & 0xf) as usize];
    }
}

/// Reads up to eight lower-case digits.
fn unhex(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0, |number: u32, &digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | value as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> UniqIds {
        UniqIds::new("127.0.0.1:6062".parse().unwrap())
    }

    #[test]
    fn a_uniq_id_is_address_seconds_and_counter() {
        let conn = ConnId::from_parts(0x65e5_a100, 0x2a);
        assert_eq!(&ids().encode(conn), b"7f00000117ae65e5a1000000002a");
        assert_eq!(ids().decode("7f00000117ae65e5a1000000002a"), Some(conn));
        for conn in [ConnId::from_parts(0, 0), ConnId::from_parts(u32::MAX, u32::MAX)] {
            let text = ids().encode(conn);
            assert_eq!(ids().decode(std::str::from_utf8(&text).unwrap()), Some(conn));
        }
    }

    #[test]
    fn what_is_not_a_uniq_id_of_this_gateway_names_nobody() {
        for text in [
            "",
            "7f00000117ad65e5a1000000002a",
            "7f00000117ae65e5a1000000002",
            "7f00000117ae65e5a1000000002a0",
            "7f00000117ae65e5A1000000002a",
            "7F00000117AE65E5A1000000002A",
            "7f00000117ae65e5a1000000002g",
            "7f00000117ae65e5a100+000002a",
            "7f00000117ae65e5a1000000\u{e9}2a",
        ] {
            assert_eq!(ids().decode(text), None, "{text}");
        }
    }

    #[test]
    fn a_conn_id_has_listener_peer_and_seconds() {
        let listener = "127.0.0.1:6061".parse().unwrap();
        let name = conn_id(listener, "127.0.0.1:50000".parse().unwrap(), 0x65e5_a100);
        assert_eq!(name, "7f00000117ad7f000001c35065e5a100");
        let name = conn_id(listener, "[2001:db8::a0b:c0d]:1".parse().unwrap(), 1);
        assert_eq!(name, "7f00000117ad0a0b0c0d000100000001");
    }
}
