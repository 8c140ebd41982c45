//! Networks of IP addresses, as lists of them name whom a peer is trusted as.

use std::net::IpAddr;

/// A network of IP addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `address/bits` or a single address. `None`: it is neither.
    pub fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Network { address, bits })
    }

    /// Whether every address of its family is in it.
    pub fn is_everybody(&self) -> bool {
        self.bits == 0
    }

    /// Whether the address is in the network; families are told apart.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.bits);
                let of = |bits: u32| bits.checked_shr(shift).unwrap_or(0);
                of(network.to_bits()) == of(address.to_bits())
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.bits);
                let of = |bits: u128| bits.checked_shr(shift).unwrap_or(0);
                of(network.to_bits()) == of(address.to_bits())
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_compared_as_numbers() {
        let network = |text| Network::parse(text).expect(text);
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(network("10.0.0.0/8").contains(ip("10.255.1.2")));
        assert!(network("10.0.0.0/8").contains(ip("::ffff:10.1.1.1")));
        assert!(!network("10.0.0.0/8").contains(ip("11.0.0.1")));
        assert!(network("0.0.0.0/0").contains(ip("200.1.1.1")));
        assert!(!network("0.0.0.0/0").contains(ip("::1")));
        assert!(network("192.0.2.7").contains(ip("192.0.2.7")));
        assert!(!network("192.0.2.7").contains(ip("192.0.2.8")));
        assert!(network("fd00::/8").contains(ip("fdff::1")));
        assert!(network("::/0").contains(ip("2001:db8::1")));
        for text in ["", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/", "host", "::/129"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
