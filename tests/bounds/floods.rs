//! Clients of each protocol that ask for answers, pongs most of all, and read none.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};

use ringway::protocols::im::wire::{ByteOrder, Header};
use ringway::wire::websocket::mask_frame;

use crate::binary::Binary;
use crate::common::*;
use crate::{API, CLIENTS, IM, LENGTHS, LINES, OUTBOX_BYTES_MAX, TASKS};
use crate::{gateway, one_at_a_time, reluctant, reluctant_at};

/// Enough that what the process takes once is little of what one of them may take.
const FLOODERS: u64 = 16;
/// What each of them says at a time.
const BLOCK_BYTES: usize = 64 << 10;
/// What each of them may say of what it goes on with, if it is read.
const MORE: usize = 256 << 10;

/// IM commands.
const LOGIN: u8 = 1;
const PING: u8 = 3;

/// A peer that writes and does not read.
struct Flooder {
    socket: TcpStream,
    /// Of the message before, what comes first.
    rest: Vec<u8>,
    block: Vec<u8>,
    message_bytes: usize,
    /// Bytes of blocks that were taken.
    said: usize,
}

impl Flooder {
    /// `message` over and over, in pieces that begin and end anywhere.
    fn new(socket: TcpStream, message: &[u8]) -> Flooder {
        socket.set_nonblocking(true).expect("a socket");
        let block = message.repeat(BLOCK_BYTES.div_ceil(message.len()));
        Flooder { socket, rest: Vec::new(), block, message_bytes: message.len(), said: 0 }
    }

    /// Says another message from here on, behind the end of the last one.
    fn goes_on_with(&mut self, message: &[u8]) {
        let begun = self.said % self.block.len();
        let count = self.block[begun..].len() % self.message_bytes;
        let rest = self.block[begun..begun + count].to_vec();
        self.block = message.repeat(BLOCK_BYTES.div_ceil(message.len()));
        self.message_bytes = message.len();
        self.rest = rest;
        self.said = 0;
    }

    /// Writes a block, or as much of it as is taken. Whether it is still connected.
    fn write(&mut self) -> bool {
        let block = &self.block[self.said % self.block.len()..];
        match self.socket.write(if self.rest.is_empty() { block } else { &self.rest }) {
            Ok(count) if self.rest.is_empty() => {
                self.said += count;
                true
            }
            Ok(count) => {
                self.rest.drain(..count);
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
}

/// Writes until nobody gets any further: each is not read any more, or has said a lot.
fn flood(server: &Binary, flooders: &mut [Flooder]) {
    let mut task = Business::connect(server.address(TASKS));
    let before: Vec<usize> = flooders.iter().map(|flooder| flooder.said).collect();
    let mut still = 0;
    wait_until("nobody to get any further", || {
        let (mut all, mut any) = (true, false);
        for (flooder, before) in flooders.iter_mut().zip(&before) {
            let said = flooder.said;
            if said < before + MORE {
                assert!(flooder.write(), "{:?}", server.log().last());
                all = false;
                any |= flooder.said > said;
            }
        }
        // Every shard has a turn, in which it reads what it wants.
        task.online_count();
        still = if any { 0 } else { still + 1 };
        all || still > 20
    });
}

/// Writes until the kernel takes nothing more for any of them.
fn stall(server: &Binary, flooders: &mut [Flooder]) {
    wait_until("all to be stalled", || {
        for _ in 0..4 {
            assert!(flooders.iter_mut().all(Flooder::write), "{:?}", server.log().last());
        }
        server.metric("ringway_connections_stalled", "") == FLOODERS
    });
}

/// Somebody who reads: what the gateway takes once for all is taken.
fn warm_up(mut socket: TcpStream, message: &[u8]) {
    socket.write_all(&message.repeat(100)).expect("it reads");
    socket.shutdown(Shutdown::Write).expect("it is connected");
    std::io::copy(&mut socket, &mut std::io::sink()).expect("it says all and closes");
}

/// `FLOODERS` of a protocol cost at most one and a half outboxes each. They say `first` until the
/// kernel takes no more answers, if there is something large to say, and then `message`.
fn check(open: impl Fn(&Binary) -> TcpStream, first: &[u8], message: &[u8]) -> Binary {
    let _turn = one_at_a_time();
    let server = gateway("", "");
    warm_up(open(&server), &[first, message].concat());
    let before = server.rss_kib();
    let words = if first.is_empty() { message } else { first };
    let one = |_| Flooder::new(open(&server), words);
    let mut flooders: Vec<Flooder> = (0..FLOODERS).map(one).collect();
    if !first.is_empty() {
        stall(&server, &mut flooders);
        flooders.iter_mut().for_each(|flooder| flooder.goes_on_with(message));
    }
    flood(&server, &mut flooders);
    let each = || server.rss_kib().saturating_sub(before) * 1024 / FLOODERS;
    println!("{} bytes for each", each());
    // What was freed is given back a second later.
    wait_until("one and a half outboxes for each", || each() <= OUTBOX_BYTES_MAX * 3 / 2);
    let closed = server.metric("ringway_slow_clients_closed_total", "");
    assert_eq!(closed, 0, "they have time");
    assert!(flooders.iter_mut().all(Flooder::write), "{:?}", server.log().last());
    server
}

/// A client of a route, after its upgrade.
fn websocket(path: &'static str) -> impl Fn(&Binary) -> TcpStream {
    move |server| reluctant_at(server.address(CLIENTS), path).socket
}

/// A ping, with a payload so small that a pong costs more than it has bytes.
fn ping() -> Vec<u8> {
    mask_frame(0x89, [1, 2, 3, 4], b"")
}

/// One as large as may be.
fn large_ping() -> Vec<u8> {
    mask_frame(0x89, [1, 2, 3, 4], &[b'p'; 125])
}

/// Pongs for which there is no room are counted, unless the client is not read any more.
fn check_pongs(path: &'static str) {
    let server = check(websocket(path), &large_ping(), &ping());
    assert!(server.metric("ringway_pongs_dropped_total", "") > 0);
}

#[test]
fn netsvr_clients_that_ping() {
    check_pongs("/netsvr");
}

#[test]
fn netsvr_clients_that_send_small_pings() {
    check(websocket("/netsvr"), b"", &ping());
}

#[test]
fn echo_clients_that_ping() {
    check_pongs("/echo");
}

#[test]
fn echo_clients_that_talk() {
    let message = mask_frame(0x82, [1, 2, 3, 4], &[b'x'; 1000]);
    check(websocket("/echo"), &message, &message);
}

#[test]
fn xxim_clients_that_ping() {
    check_pongs("/xxim");
}

#[test]
fn connmix_clients_that_ping() {
    check_pongs("/chat");
}

#[test]
fn connmix_clients_that_say_ping() {
    check(websocket("/chat"), &large_ping(), &mask_frame(0x81, [1, 2, 3, 4], b"ping"));
}

#[test]
fn connmix_clients_that_say_ping_in_lines() {
    check(|server| reluctant(server.address(LINES)).socket, b"", b"ping\n");
}

#[test]
fn connmix_clients_that_say_ping_behind_a_length() {
    check(|server| reluctant(server.address(LENGTHS)).socket, b"", b"\0\0\0\x04ping");
}

#[test]
fn backends_of_connmix_that_ping() {
    let open = |server: &Binary| reluctant_at(server.address(API), "/ws/v1").socket;
    let server = check(open, &large_ping(), &ping());
    assert!(server.metric("ringway_pongs_dropped_total", "") > 0);
}

#[test]
fn backends_of_connmix_that_say_ping() {
    let open = |server: &Binary| reluctant_at(server.address(API), "/ws/v1").socket;
    check(open, &large_ping(), &mask_frame(0x81, [1, 2, 3, 4], b"ping"));
}

/// A frame of IM without a body.
fn im(command: u8) -> Vec<u8> {
    Header { len: 0, seq: 1, command, flag: 0x10, status: 0 }.bytes(ByteOrder::Big).to_vec()
}

#[test]
fn im_clients_that_ping_over_tcp() {
    let open = |server: &Binary| {
        let mut client = reluctant(server.address(IM));
        client.write(&im(LOGIN));
        client.bytes(im(LOGIN).len());
        client.socket
    };
    check(open, b"", &im(PING));
}

#[test]
fn im_clients_that_ping_over_a_websocket() {
    check_pongs("/im");
}

#[test]
fn im_clients_that_say_ping_over_a_websocket() {
    let message = |command| mask_frame(0x82, [1, 2, 3, 4], &im(command));
    let open = |server: &Binary| {
        let mut client = reluctant_at(server.address(CLIENTS), "/im");
        client.write(&message(LOGIN));
        client.frame();
        client.socket
    };
    check(open, &large_ping(), &message(PING));
}

/// Who takes nothing is closed after `heartbeat_interval`, whatever it says meanwhile, and whether
/// its outbox is full.
#[test]
fn netsvr_clients_that_take_nothing_are_closed() {
    let _turn = one_at_a_time();
    for outbox_bytes_max in [4096, OUTBOX_BYTES_MAX] {
        let runtime = format!("outbox_bytes_max = {outbox_bytes_max}");
        let server = gateway(&runtime, "[netsvr.customer]\nheartbeat_interval = \"1s\"");
        let one = |_| Flooder::new(websocket("/netsvr")(&server), &large_ping());
        let mut flooders: Vec<Flooder> = (0..4).map(one).collect();
        let closed = || server.metric("ringway_slow_clients_closed_total", "");
        wait_until("all to be closed", || {
            flooders.retain_mut(Flooder::write);
            closed() == 4
        });
        wait_until("all to be gone", || server.metric("ringway_connections", "") == 0);
    }
}
