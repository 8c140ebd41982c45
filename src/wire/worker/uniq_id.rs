//! Names of connections on the wire: uniqId of clients, connId of registrations (netsvr
//! sections 2.9 and 3.8).
//!
//! A uniqId encodes a [`ConnId`], so it leads back to the connection without a table. No
//! allocation, except for the `String` of a connId.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use crate::hub::{ConnId, Rotation};

/// Characters of the address part of a uniqId.
const PREFIX: usize = 12;

/// Makes and reads the uniqIds of one gateway (section 2.9).
#[derive(Clone, Copy, Debug)]
pub struct UniqIds {
    prefix: [u8; PREFIX],
    rotation: Rotation,
}

impl UniqIds {
    /// Characters of a uniqId.
    pub const LEN: usize = 28;

    /// `advertise` is the address that SDKs are configured with.
    pub fn new(advertise: SocketAddrV4) -> UniqIds {
        let mut prefix = [0; PREFIX];
        prefix[..8].copy_from_slice(&hex((*advertise.ip()).into()));
        prefix[8..].copy_from_slice(&hex(advertise.port().into())[4..]);
        UniqIds { prefix, rotation: Rotation::NONE }
    }

    /// The same for a process that rotates its slots so.
    #[must_use]
    pub fn rotated(self, rotation: Rotation) -> UniqIds {
        UniqIds { rotation, ..self }
    }

    /// Whether a text with uniqIds may name a connection of this gateway.
    pub fn occur_in(&self, text: &[u8]) -> bool {
        memchr::memmem::find(text, &self.prefix).is_some()
    }

    /// The uniqId of a connection: address, generation, index.
    #[inline]
    pub fn encode(&self, conn: ConnId) -> [u8; UniqIds::LEN] {
        let mut text = [0; UniqIds::LEN];
        text[..PREFIX].copy_from_slice(&self.prefix);
        let conn = self.rotation.show(conn);
        text[12..20].copy_from_slice(&hex(conn.generation()));
        text[20..].copy_from_slice(&hex(conn.index()));
        text
    }

    /// The connection that a uniqId names: exactly 28 lower-case hex characters with the address of
    /// this gateway. Everything else names nobody here.
    pub fn decode(&self, text: &str) -> Option<ConnId> {
        let text: &[u8; UniqIds::LEN] = text.as_bytes().try_into().ok()?;
        if text[..PREFIX] != self.prefix {
            return None;
        }
        self.rotation.find(ConnId::from_parts(unhex(&text[12..20])?, unhex(&text[20..])?))
    }
}

/// What a response can name as a connection.
pub trait Named: Copy {
    /// What its uniqId is made with.
    type Ids;
    /// Its uniqId.
    fn uniq_id(self, ids: &Self::Ids) -> [u8; UniqIds::LEN];
}

impl Named for ConnId {
    type Ids = UniqIds;
    fn uniq_id(self, ids: &UniqIds) -> [u8; UniqIds::LEN] {
        ids.encode(self)
    }
}

/// A uniqId of any gateway, 28 lower-case hex characters: the name of a connection in answers of
/// several gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UniqId([u8; UniqIds::LEN]);

impl UniqId {
    /// Of a connection of the gateway that `ids` are of.
    pub fn of(conn: ConnId, ids: &UniqIds) -> UniqId {
        UniqId(ids.encode(conn))
    }

    /// `None`: no gateway has a connection of this name.
    pub fn parse(text: &str) -> Option<UniqId> {
        let text: [u8; UniqIds::LEN] = text.as_bytes().try_into().ok()?;
        let digits = text.iter().all(|&digit| DIGITS[digit as usize] != NO_DIGIT);
        digits.then_some(UniqId(text))
    }
}

impl Named for UniqId {
    type Ids = ();
    fn uniq_id(self, _: &()) -> [u8; UniqIds::LEN] {
        self.0
    }
}

/// The name of a registration (section 3.8): 32 hex characters. Of an IPv6 peer it has the last
/// four bytes.
pub fn conn_id(listener: SocketAddrV4, peer: SocketAddr, unix_seconds: u32) -> String {
    let peer_ip = match peer.ip() {
        IpAddr::V4(ip) => u32::from(ip),
        IpAddr::V6(ip) => u128::from(ip) as u32,
    };
    let ports = (listener.port() as u32) << 16 | peer.port() as u32;
    let [listener_ip, peer_ip, ports, seconds] =
        [(*listener.ip()).into(), peer_ip, ports, unix_seconds].map(hex);
    let (listener_port, peer_port) = ports.split_at(4);
    let parts: [&[u8]; 5] = [&listener_ip, listener_port, &peer_ip, peer_port, &seconds];
    parts.iter().flat_map(|part| part.iter()).map(|&digit| digit as char).collect()
}

/// Eight lower-case digits, made all at once: one nibble per byte, then the distance to its digit.
fn hex(number: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut nibbles = number as u64;
    nibbles = (nibbles | nibbles << 16) & 0x0000_ffff_0000_ffff;
    nibbles = (nibbles | nibbles << 8) & 0x00ff_00ff_00ff_00ff;
    nibbles = (nibbles | nibbles << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = (nibbles + ONES * 6) >> 4 & ONES;
    (nibbles + ONES * b'0' as u64 + letters * (b'a' - b'0' - 10) as u64).to_be_bytes()
}

/// The value of each lower-case digit; `NO_DIGIT` for everything else.
const DIGITS: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    values
};
const NO_DIGIT: u8 = 0xff;

/// Reads eight lower-case digits.
fn unhex(text: &[u8]) -> Option<u32> {
    let values = text.iter().map(|&digit| DIGITS[digit as usize]);
    let (number, seen) = values
        .fold((0, 0), |(number, seen), value| (number << 4 | (value & 0xf) as u32, seen | value));
    (seen < 16).then_some(number)
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
    fn digits_are_those_of_the_standard_library() {
        let numbers = (0..32).map(|bit| 1 << bit).chain([0, u32::MAX, 0x89ab_cdef, 0x0123_4567]);
        for number in numbers.chain((0..=255).map(|byte| byte * 0x0101_0101)) {
            let text = format!("{number:08x}");
            assert_eq!(hex(number), text.as_bytes());
            assert_eq!(unhex(text.as_bytes()), Some(number));
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
    fn a_uniq_id_of_any_gateway_is_the_text_that_it_was() {
        let conn = ConnId::from_parts(0x65e5_a100, 0x2a);
        let text = "7f00000117ae65e5a1000000002a";
        assert_eq!(UniqId::parse(text), Some(UniqId::of(conn, &ids())));
        assert_eq!(&UniqId::of(conn, &ids()).uniq_id(&()), text.as_bytes());
        for text in ["", "7f00000117ae65e5a1000000002", "7f00000117ae65e5A1000000002a"] {
            assert_eq!(UniqId::parse(text), None, "{text}");
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
