//! What a peak took is given back to the system, also when nothing happens after it.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use ringway::wire::deflate::Deflater;
use ringway::wire::websocket::mask_frame;

use crate::binary::Binary;
use crate::common::*;
use crate::shrink;

const MIB_KIB: u64 = 1024;
/// A gateway is as large as before when it is not larger than that by more.
const SPREAD_KIB: u64 = 20 * MIB_KIB;
/// On an idle machine it takes some two seconds.
const RETURN_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at something that changes slowly.
const LOOK: Duration = Duration::from_millis(20);
/// The largest message of the echo protocol.
const ECHO_BYTES_MAX: usize = 16 << 20;
/// Few receive buffers: each takes memory when it is used for the first time.
const SETTINGS: &str =
    "[runtime]\nreceive_buffers = 64\n[netsvr.customer]\ncompression_level = 1\n";
const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
const TOPICS: usize = if cfg!(debug_assertions) { 200_000 } else { 1_000_000 };
const TOPICS_EACH: usize = 1000;
const SLOW_READERS: usize = 100;
const IDLE: usize = 2000;
/// A gateway without clients, in memory of its own, with debug assertions and some shards.
const EMPTY_KIB: u64 = 12 * MIB_KIB;
/// What clients may leave behind who have only been there.
const LEFT_KIB: u64 = 2 * MIB_KIB;

/// A gateway, and how large it is before anything has happened.
struct Gateway {
    server: Binary,
    before_kib: u64,
}

impl Gateway {
    fn start() -> Gateway {
        let server = Binary::start(SETTINGS);
        // What every first message takes stays.
        let mut client = compressing(&server);
        client.write(&message(&[b'a'; 1000]));
        client.frame();
        server.check_serves();
        let before_kib = server.rss_kib();
        Gateway { server, before_kib }
    }

    fn grown_kib(&self) -> u64 {
        self.server.rss_kib().saturating_sub(self.before_kib)
    }

    fn await_return(&self) {
        let deadline = Instant::now() + RETURN_PATIENCE;
        while self.grown_kib() > SPREAD_KIB {
            let grown_kib = self.grown_kib();
            assert!(Instant::now() < deadline, "still {grown_kib} KiB more than before");
            std::thread::sleep(LOOK);
        }
    }
}

fn compressing(server: &Binary) -> Client {
    Client::open_with(server.address(CLIENTS), "/echo", DEFLATE)
}

/// A compressed binary message.
fn message(data: &[u8]) -> Vec<u8> {
    mask_frame(0xc2, [1, 2, 3, 4], Deflater::new(1).deflate(data))
}

/// Bytes that do not become less by compressing.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(len)
    .collect()
}

#[test]
fn messages_that_inflate_to_the_limit_cost_less_than_100_mib_and_only_for_a_moment() {
    let gateway = Gateway::start();
    let bomb = message(&vec![0; ECHO_BYTES_MAX]);
    let too_large = message(&vec![0; 4 * ECHO_BYTES_MAX]);
    let mut client = compressing(&gateway.server);
    for _ in 0..4 {
        client.write(&bomb);
        assert_eq!(client.frame().first, 0xc2);
    }
    client.write(&too_large);
    assert_eq!(client.frame().close(), (1009, "message too big"));
    let peak_kib = gateway.server.peak_kib() - gateway.before_kib;
    assert!(peak_kib > ECHO_BYTES_MAX as u64 / 1024, "{peak_kib} KiB");
    assert!(peak_kib < 100 * MIB_KIB, "{peak_kib} KiB");
    gateway.await_return();
    let mut client = compressing(&gateway.server);
    // Compressed it is longer, and that has the same limit.
    let noise = noise(ECHO_BYTES_MAX / 4 * 3);
    client.write(&message(&noise));
    let echo = client.frame();
    assert_eq!(echo.first, 0xc2);
    assert!(echo.payload.len() > noise.len() / 2, "{} bytes", echo.payload.len());
    gateway.await_return();
}

#[test]
fn idle_clients_cost_little_and_an_empty_gateway_not_much() {
    // Everything is the default. What the program itself takes is none of it.
    let server = Binary::start("");
    let own_kib = || server.own_kib();
    assert!(own_kib() < EMPTY_KIB, "{} KiB", own_kib());
    assert_eq!(server.status_number("THP_enabled:"), 0, "of a huge page most would lie idle");
    let mut client = Client::open(server.address(CLIENTS), "/echo");
    client.send_text("once");
    client.frame();
    let before_kib = own_kib();
    let clients: Vec<Client> =
        (0..IDLE).map(|_| Client::open(server.address(CLIENTS), "/echo")).collect();
    let most_kib = before_kib + IDLE as u64 * 2;
    wait_until("2 KiB for each client", || own_kib() < most_kib);
    drop(clients);
    let connections = || server.metric("ringway_connections", "");
    wait_until("their end", || connections() == 1);
    wait_until("their memory", || own_kib() < before_kib + LEFT_KIB);
}

#[test]
fn very_many_topics_leave_nothing_behind_although_some_stay() {
    let gateway = Gateway::start();
    let server = &gateway.server;
    let mut worker = server.worker(1);
    let mut task = server.task();
    let names: Vec<String> = (0..TOPICS).map(|number| format!("a topic, {number}")).collect();
    let mut clients = Vec::new();
    for names in names.chunks(TOPICS_EACH) {
        clients.push(server.client());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        task.subscribe(&worker.opened(), &names);
    }
    // The task connection is answered in order.
    task.online_count();
    let topics = || server.metric("ringway_topics", "") as usize;
    wait_until("all topics", || topics() == TOPICS);
    let grown_kib = gateway.grown_kib();
    assert!(grown_kib > SPREAD_KIB, "{grown_kib} KiB");
    clients.drain(..clients.len() - 1);
    wait_until("one client", || topics() == TOPICS_EACH);
    gateway.await_return();
    drop(clients);
    wait_until("no topics", || topics() == 0);
    gateway.await_return();
}

#[test]
fn what_waited_for_slow_readers_goes_with_them() {
    let gateway = Gateway::start();
    let clients: Vec<Client> = (0..SLOW_READERS).map(|_| slow_reader(&gateway.server)).collect();
    let full_kib = SLOW_READERS as u64 * MIB_KIB / 2;
    wait_until("what waits for them", || gateway.grown_kib() > full_kib);
    drop(clients);
    let connections = || gateway.server.metric("ringway_connections", "");
    wait_until("their end", || connections() == 0);
    gateway.await_return();
    gateway.server.check_serves();
}

/// A client of the echo protocol that says as much as the gateway takes and hears nothing.
fn slow_reader(server: &Binary) -> Client {
    let mut client = Client::open(server.address(CLIENTS), "/echo");
    shrink(&client.socket);
    let message = mask_frame(0x82, [1, 2, 3, 4], &noise(64 << 10));
    client.socket.set_nonblocking(true).expect("a socket");
    let mut rest = &message[..];
    let mut refused = 0;
    while refused < 3 {
        match client.socket.write(rest) {
            Ok(written) if written < rest.len() => rest = &rest[written..],
            Ok(_) => rest = &message,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                refused += 1;
                std::thread::sleep(LOOK);
            }
        }
    }
    client
}
