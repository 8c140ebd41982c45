//! What the configuration needs to know about the machine: CPUs, descriptors, addresses.

use std::net::Ipv4Addr;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};
use rustix::process::{Resource, Rlimit};

/// Facts about the machine and the limits of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// CPUs that the process may use, in order.
    pub cpus: Vec<usize>,
    /// Descriptors that the process may open.
    pub descriptors_max: u64,
    /// First IPv4 that is neither loopback nor link-local, in the order of the interfaces.
    pub ipv4: Option<Ipv4Addr>,
}

impl Machine {
    /// This machine. Raises the limit of descriptors first.
    pub fn here() -> Machine {
        Machine { cpus: cpus(), descriptors_max: raise_nofile(), ipv4: first_ipv4() }
    }
}

/// Raises the soft limit of open descriptors to the hard limit and returns what is in force then;
/// `u64::MAX` is no limit.
pub fn raise_nofile() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        // Can not fail for want of rights; if it does, the old limit stays and is what counts.
        let _ = rustix::process::setrlimit(Resource::Nofile, raised);
    }
    rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Makes the process's table of descriptors large enough for `count` of them, as far as the limit
/// permits. Otherwise it would be doubled whenever it is full, and in a process with threads the
/// one that needs the next descriptor, a shard that accepts, then waits some 10 ms for all others.
/// Costs 8 bytes of the kernel's memory for each.
pub fn reserve_descriptors(count: u32) {
    let permitted = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let last = u64::from(count).min(permitted).saturating_sub(1);
    let Ok(last) = i32::try_from(last) else { return };
    // What it names is closed at once; the table stays. If it fails, the table grows as it must.
    let _ = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), last);
}

fn cpus() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect(),
        // More CPUs than the set has room for.
        Err(_) => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
    }
}

/// Numbers of rtnetlink(7).
mod netlink {
    pub const DONE: u16 = 3;
    pub const ERROR: u16 = 2;
    pub const NEW_ADDRESS: u16 = 20;
    pub const GET_ADDRESS: u16 = 22;
    /// `NLM_F_REQUEST | NLM_F_DUMP`
    pub const DUMP: u16 = 0x301;
    pub const HEADER_BYTES: usize = 16;
    pub const ADDRESS_HEADER_BYTES: usize = 8;
    pub const FAMILY_IPV4: u8 = 2;
    /// `IFA_LOCAL`: the address of the interface itself.
    pub const LOCAL: u16 = 2;
}

/// The first IPv4 of the machine that is not loopback: asks the kernel for the addresses of all
/// interfaces, as Go's `net.InterfaceAddrs` does.
pub fn first_ipv4() -> Option<Ipv4Addr> {
    // No protocol is number 0, which is NETLINK_ROUTE.
    let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None).ok()?;
    let mut request = Vec::new();
    let len = netlink::HEADER_BYTES + netlink::ADDRESS_HEADER_BYTES;
    request.extend((len as u32).to_ne_bytes());
    request.extend(netlink::GET_ADDRESS.to_ne_bytes());
    request.extend(netlink::DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([netlink::FAMILY_IPV4, 0, 0, 0, 0, 0, 0, 0]);
    rustix::net::send(&socket, &request, SendFlags::empty()).ok()?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (len, _) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty()).ok()?;
        match scan(&buffer[..len]) {
            Scan::Found(address) => return Some(address),
            Scan::More if len > 0 => {}
            Scan::More | Scan::End => return None,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Scan {
    Found(Ipv4Addr),
    /// The answer goes on in the next datagram.
    More,
    End,
}

/// Looks through one datagram of the answer.
fn scan(mut datagram: &[u8]) -> Scan {
    while let Some((message, rest)) = split(datagram, 4) {
        match u16_at(message, 4) {
            Some(netlink::DONE | netlink::ERROR) => return Scan::End,
            Some(netlink::NEW_ADDRESS) => {
                let address = message.get(netlink::HEADER_BYTES..).and_then(address);
                if let Some(address) = address.filter(|a| !a.is_loopback() && !a.is_link_local()) {
                    return Scan::Found(address);
                }
            }
            _ => {}
        }
        datagram = rest;
    }
    Scan::More
}

/// The `IFA_LOCAL` attribute of an address message.
fn address(message: &[u8]) -> Option<Ipv4Addr> {
    let mut attributes = message.get(netlink::ADDRESS_HEADER_BYTES..)?;
    while let Some((attribute, rest)) = split(attributes, 2) {
        if u16_at(attribute, 2) == Some(netlink::LOCAL) {
            let octets: [u8; 4] = attribute.get(4..8)?.try_into().ok()?;
            return Some(octets.into());
        }
        attributes = rest;
    }
    None
}

/// Takes one item off the front: its length stands in its first 2 or 4 bytes, the next one begins
/// at a multiple of 4.
fn split(bytes: &[u8], length_bytes: usize) -> Option<(&[u8], &[u8])> {
    let len = match length_bytes {
        2 => usize::from(u16_at(bytes, 0)?),
        _ => u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize,
    };
    let item = bytes.get(..len).filter(|item| item.len() >= 4)?;
    Some((item, bytes.get(len.next_multiple_of(4)..).unwrap_or_default()))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, address: [u8; 4]) -> Vec<u8> {
        let mut message = 32u32.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend([netlink::FAMILY_IPV4, 8, 0, 0, 1, 0, 0, 0]);
        message.extend(8u16.to_ne_bytes());
        message.extend(netlink::LOCAL.to_ne_bytes());
        message.extend(address);
        message
    }

    #[test]
    fn the_first_address_that_others_can_reach_is_found() {
        let mut datagram = message(netlink::NEW_ADDRESS, [127, 0, 0, 1]);
        assert_eq!(scan(&datagram), Scan::More);
        datagram.extend(message(netlink::NEW_ADDRESS, [169, 254, 3, 4]));
        datagram.extend(message(netlink::NEW_ADDRESS, [10, 0, 0, 5]));
        datagram.extend(message(netlink::NEW_ADDRESS, [10, 0, 0, 6]));
        assert_eq!(scan(&datagram), Scan::Found([10, 0, 0, 5].into()));
        assert_eq!(scan(&message(netlink::DONE, [10, 0, 0, 5])), Scan::End);
    }

    #[test]
    fn a_cut_answer_is_not_read_beyond_its_end() {
        let datagram = message(netlink::NEW_ADDRESS, [10, 0, 0, 5]);
        for len in 0..datagram.len() {
            assert_eq!(scan(&datagram[..len]), Scan::More);
        }
    }

    #[test]
    fn the_table_of_descriptors_is_made_large_at_once() {
        let size = || -> u64 {
            let status = std::fs::read_to_string("/proc/self/status").expect("this process");
            let line = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
            line.expect("a size").trim().parse().expect("a number")
        };
        let count = raise_nofile().min(10_000);
        reserve_descriptors(count as u32);
        assert!(size() >= count, "{} of {count}", size());
    }

    #[test]
    fn this_machine_has_cpus_and_descriptors() {
        let machine = Machine::here();
        assert!(!machine.cpus.is_empty());
        assert!(machine.descriptors_max > 0);
        assert!(machine.ipv4.is_none_or(|ip| !ip.is_loopback() && !ip.is_unspecified()));
    }
}
