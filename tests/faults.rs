//! Faults over real sockets: peers that die, stall, lie, flood or never begin, and what the others
//! notice of it, which is nothing.
//!
//! Memory is looked at from outside, with the gateway in a process of its own; bounds are generous.
//! Nothing depends on how fast the machine is.

mod common;

#[path = "faults/binary.rs"]
mod binary;
#[path = "faults/clients.rs"]
mod clients;
#[path = "faults/descriptors.rs"]
mod descriptors;
#[path = "faults/garbage.rs"]
mod garbage;
#[path = "faults/memory.rs"]
mod memory;
#[path = "faults/shards.rs"]
mod shards;
#[path = "faults/storms.rs"]
mod storms;
#[path = "faults/workers.rs"]
mod workers;

use std::net::TcpStream;
use std::time::Duration;

use ringway::config::all::Config;
use socket2::SockRef;

/// Events (netsvr section 4.2).
const OPEN: i32 = 1;
const CLOSE: i32 = 2;
const MESSAGE: i32 = 4;

/// Two shards, an admin server, and no limit on what one client may send.
fn config() -> Config {
    let mut config = common::config();
    config.admin.bind = Some(([127, 0, 0, 1], 0).into());
    config.netsvr.customer.limit_zero_window_max_requests = u32::MAX;
    config
}

/// Closes with a reset, so that the peer learns of it at once and unread bytes are lost.
fn reset(socket: TcpStream) {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
}

/// Keeps the kernel from taking tens of megabytes for a peer that does not read. Not less than a
/// few segments of the loopback interface, or the stream crawls when the peer reads again.
fn shrink(socket: &TcpStream) {
    SockRef::from(socket).set_recv_buffer_size(256 << 10).expect("a TCP socket");
}
