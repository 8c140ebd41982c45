//! What peers that do not read can make the gateway hold, in memory of the process, over real
//! sockets: the limits count what things cost.
//!
//! The gateway is a process of its own, whose memory is looked at from outside. Nothing depends on
//! how fast the machine is.

mod common;

#[path = "faults/binary.rs"]
mod binary;
#[path = "bounds/floods.rs"]
mod floods;
#[path = "bounds/subscribers.rs"]
mod subscribers;

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use socket2::{Domain, Socket, Type};

use crate::binary::{Binary, File, serve};
use crate::common::*;

/// Listeners of every protocol, by number.
const CLIENTS: usize = 0;
const WORKERS: usize = 1;
const TASKS: usize = 2;
const LINES: usize = 3;
const LENGTHS: usize = 4;
const API: usize = 5;
const IM: usize = 6;

const LISTENERS: &str = r#"
[[listener]]
bind = "127.0.0.1:0"
routes = [
    { path = "/netsvr", protocol = "netsvr" },
    { path = "/echo", protocol = "echo" },
    { path = "/xxim", protocol = "xxim" },
    { path = "/chat", protocol = "connmix", server = "lines" },
    { path = "/im", protocol = "im" },
]

[[listener]]
bind = "127.0.0.1:0"
protocol = "netsvr-worker"

[[listener]]
bind = "127.0.0.1:0"
protocol = "netsvr-task"

[[listener]]
bind = "127.0.0.1:0"
protocol = "connmix"
server = "lines"

[[listener]]
bind = "127.0.0.1:0"
protocol = "connmix"
server = "lengths"

[[listener]]
bind = "127.0.0.1:0"
protocol = "connmix-api"

[[listener]]
bind = "127.0.0.1:0"
protocol = "im"

[[connmix.server]]
name = "lines"
text_ping = true
write_timeout = "1h"

[[connmix.server]]
name = "lengths"
framing = "length-text"
text_ping = true
write_timeout = "1h"

[connmix.api]
write_timeout = "1h"

[xxim]
params_timeout = "0s"
login_timeout = "0s"
write_timeout = "1h"

[im]
login_timeout = "1h"
write_timeout = "1h"
request_rate = 0

[admin]
bind = "127.0.0.1:0"

[log]
json = true
"#;

/// A gateway on which nobody is closed for being slow, with further keys of `runtime` and further
/// tables. It has few receive buffers: what the clients of a shard share is little of what one of
/// them may take.
fn gateway(runtime: &str, tables: &str) -> Binary {
    gateway_of(64, runtime, tables)
}

/// The same with so many receive buffers for each of the two shards.
fn gateway_of(receive_buffers: u32, runtime: &str, tables: &str) -> Binary {
    let runtime = format!("[runtime]\nreceive_buffers = {receive_buffers}\n{runtime}\n");
    let file = File::new(&format!("{LISTENERS}{runtime}{tables}"));
    let mut command = serve(&file);
    // A huge page of 2 MiB is occupied as soon as somebody takes a byte of it.
    command.env("MIMALLOC_ALLOW_THP", "0");
    Binary::spawn(command, file)
}

/// The default of `runtime.outbox_bytes_max`.
const OUTBOX_BYTES_MAX: u64 = 1 << 20;

/// A connection for which the kernel takes little when its peer does not read.
fn reluctant(address: SocketAddr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a TCP socket");
    socket.set_recv_buffer_size(2048).expect("a TCP socket");
    socket.connect_timeout(&address.into(), PATIENCE).expect("the gateway listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a valid timeout");
    socket.set_write_timeout(Some(PATIENCE)).expect("a valid timeout");
    Client::over(socket.into())
}

/// The same after an upgrade.
fn reluctant_at(address: SocketAddr, path: &str) -> Client {
    let mut client = reluctant(address);
    client.upgrade(path, "");
    client
}

/// One test at a time: each has the machine for the processes that it floods.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
