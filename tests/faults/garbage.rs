//! What nobody in his senses sends: lengths without end, heads without end, noise on every port.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};

use ringway::wire::websocket::mask_frame;

use crate::binary::Binary;
use crate::common::*;

/// Memory may grow by this while a peer tries to make the gateway keep 60 MB.
const GROWTH_KIB_MAX: u64 = 24 << 10;
const MEGABYTE: usize = 1 << 20;

/// Writes until everything is out or the gateway has had enough.
fn pour(client: &mut Client, bytes: &[u8], times: usize) {
    for _ in 0..times {
        if client.socket.write_all(bytes).is_err() {
            return;
        }
    }
}

#[test]
fn announced_lengths_are_not_believed() {
    let server = Binary::start("");
    let before = server.rss_kib();
    for len in [u64::MAX >> 1, 1 << 62, u32::MAX as u64 + 1, 60 << 20] {
        let mut client = server.client();
        let mut frame = vec![0x82, 0xff];
        frame.extend_from_slice(&len.to_be_bytes());
        frame.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        client.write(&frame);
        assert_eq!(client.frame().close().0, 1009, "{len}");
    }
    let mut client = server.client();
    let mut frame = vec![0x82, 0xff];
    frame.extend_from_slice(&u64::MAX.to_be_bytes());
    client.write(&frame);
    assert_eq!(client.frame().close().0, 1002, "the first bit of a length is 0");
    for listener in [WORKERS, TASKS] {
        for len in [u32::MAX, i32::MAX as u32, 60 << 20] {
            let mut business = Business::connect(server.address(listener));
            business.write(&len.to_be_bytes());
            assert_eq!(business.try_frame(), None, "{len}");
        }
    }
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
    server.check_serves();
}

#[test]
fn sixty_megabytes_of_request_head_are_refused_and_not_kept() {
    let server = Binary::start("");
    let before = server.rss_kib();
    let mut client = Client::tcp(server.address(CLIENTS));
    client.write(b"GET /netsvr HTTP/1.1\r\nX-Long: ");
    pour(&mut client, &vec![b'a'; MEGABYTE], 60);
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
    let _ = client.socket.shutdown(Shutdown::Write);
    let answer = String::from_utf8(client.rest()).expect("ASCII");
    // It may be lost in the reset that answers what comes after the end.
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    server.check_serves();
}

#[test]
fn sixty_megabytes_in_pieces_are_refused_and_not_kept() {
    let server = Binary::start("");
    let before = server.rss_kib();
    let mut client = server.client();
    // One message of many frames, none of which is too big.
    let piece = vec![b'a'; MEGABYTE];
    pour(&mut client, &mask_frame(0x01, [1, 2, 3, 4], &piece), 1);
    pour(&mut client, &mask_frame(0x00, [1, 2, 3, 4], &piece), 59);
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
    // A client that writes without reading may lose the close frame in a reset.
    if let Some(frame) = take_if_any(&mut client) {
        assert_eq!(frame.close().0, 1009);
    }
    server.check_serves();
}

/// The next frame of a connection that may have been reset.
fn take_if_any(client: &mut Client) -> Option<Frame> {
    let _ = client.socket.shutdown(Shutdown::Write);
    client.try_frame()
}

/// What one connection sends before it ends.
type Noise = fn(&mut fastrand::Rng) -> Vec<u8>;

fn noise(random: &mut fastrand::Rng) -> Vec<u8> {
    let len = random.usize(1..40_000);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

/// Passes as HTTP for a while.
fn broken_request(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = upgrade_request("/netsvr", "").into_bytes();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..bytes.len());
        bytes[at] = random.u8(..);
    }
    bytes
}

/// A good beginning, then noise.
fn frames(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = upgrade_request("/netsvr", "").into_bytes();
    for _ in 0..random.usize(1..50) {
        let first = random.u8(..) & if random.bool() { 0x8f } else { 0xff };
        let payload = noise(random);
        let len = random.usize(..payload.len().min(300));
        bytes.extend(mask_frame(first, [1, 2, 3, 4], &payload[..len]));
    }
    bytes.extend(noise(random));
    bytes
}

/// Commands that exist, with bodies that make no sense.
fn commands(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..100) {
        let family = [900_001_000, 900_002_000, 900_003_000][random.usize(..3)];
        let body = noise(random);
        let len = random.usize(..body.len().min(200));
        bytes.extend(business_frame(family + random.u32(..20), &body[..len]));
    }
    bytes
}

/// Sends and goes, sometimes without having read, sometimes with a reset.
fn disturb(address: SocketAddr, bytes: &[u8], random: &mut fastrand::Rng) {
    let mut socket = connect(address);
    for piece in bytes.chunks(random.usize(1..bytes.len() + 1)) {
        if socket.write_all(piece).is_err() {
            return;
        }
    }
    match random.u8(..3) {
        0 => crate::reset(socket),
        1 => {}
        _ => {
            let _ = socket.shutdown(Shutdown::Write);
            // A reset is an end as good as any.
            let _ = socket.read_to_end(&mut Vec::new());
        }
    }
}

#[test]
fn noise_on_every_port_hurts_nobody() {
    let server = Binary::start("[runtime]\nclose_timeout = \"100ms\"\n");
    let mut random = fastrand::Rng::with_seed(20_240_607);
    let [clients, workers, tasks] = [CLIENTS, WORKERS, TASKS].map(|at| server.address(at));
    let kinds: [(SocketAddr, Noise); 9] = [
        (clients, noise),
        (clients, broken_request),
        (clients, frames),
        (workers, noise),
        (workers, commands),
        (tasks, noise),
        (tasks, commands),
        (server.admin(), noise),
        (server.admin(), broken_request),
    ];
    let mut round = |times: usize| {
        for _ in 0..times {
            for (address, noise) in kinds {
                let bytes = noise(&mut random);
                disturb(address, &bytes, &mut random);
            }
        }
    };
    // The first ones make the gateway fill its pools.
    round(10);
    let before = server.rss_kib();
    round(60);
    let gauge = |name| server.metric(name, "");
    wait_until("all of them to be gone", || gauge("ringway_connections") == 0);
    assert_eq!(gauge("ringway_clients") + gauge("ringway_workers"), 0);
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
    server.check_serves();
}
