//! Masses of connections that never begin, or end at once.

use std::collections::HashSet;
use std::io::Write;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use prost::Message;
use ringway::wire::websocket::mask_frame;
use ringway::wire::worker::proto;

use crate::binary::Binary;
use crate::common::*;
use crate::{CLOSE, OPEN, reset};

const STORM: usize = 30_000;
const THREADS: usize = 4;
const GROWTH_KIB_MAX: u64 = 64 << 10;

#[test]
fn ten_thousand_connections_that_never_upgrade_are_gone_after_the_timeout() {
    const COUNT: usize = 10_000;
    let server = Binary::start("[runtime]\nhandshake_timeout = \"2s\"\n");
    let before = server.rss_kib();
    let connections: Vec<Client> = (0..COUNT)
        .map(|at| {
            let mut client = Client::tcp(server.address(CLIENTS));
            if at % 2 == 0 {
                // Without an answer it may be over already; then the end shows below.
                let _ = client.socket.write_all(b"GET /netsvr HTTP/1.1\r\nHost: te");
            }
            client
        })
        .collect();
    for mut client in connections {
        client.expect_end();
    }
    let timeouts = || server.metric("ringway_handshake_timeouts_total", "");
    wait_until("all to be counted", || timeouts() == COUNT as u64);
    // A shard counts who is to go, and later who is gone.
    wait_until("all to be gone", || server.metric("ringway_connections", "") == 0);
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB are left of them");
    server.check_serves();
}

/// `STORM` connections one after another in each of a few threads.
fn storm(address: SocketAddr, one: fn(SocketAddr, usize)) -> Vec<JoinHandle<()>> {
    let thread =
        |_| std::thread::spawn(move || (0..STORM / THREADS).for_each(|at| one(address, at)));
    (0..THREADS).map(thread).collect()
}

#[test]
fn a_storm_of_connects_and_resets_on_every_port_leaves_nothing() {
    let server = Binary::start("");
    let task_address = server.address(TASKS);
    let mut task = Business::connect(task_address);
    assert_eq!(task.online_count(), 0);
    let before = server.rss_kib();
    let one = |address, at| {
        let mut socket = connect(address);
        if at % 3 == 0 {
            // A part of a head, of a length.
            let _ = socket.write_all(&b"GET"[..1 + at % 2]);
        }
        reset(socket);
    };
    storm(server.address(CLIENTS), one).into_iter().for_each(|t| t.join().expect("no panic"));
    for address in [server.address(WORKERS), task_address] {
        (0..1000).for_each(|at| one(address, at));
    }
    wait_until("the end of all", || server.metric("ringway_connections", "") == 1);
    assert_eq!(task.online_count(), 0);
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
    server.check_serves();
}

/// Resets at whichever point the gateway has come to.
fn upgrade_and_reset(address: SocketAddr, at: usize) {
    let mut client = Client::tcp(address);
    let mut bytes = upgrade_request("/netsvr", "").into_bytes();
    if at % 4 == 1 {
        bytes.extend(mask_frame(0x81, [1, 2, 3, 4], b"hello"));
    }
    client.write(&bytes);
    if at % 4 == 2 {
        client.head();
    }
    if at % 4 == 3 {
        // An orderly end right behind the request.
        drop(client);
    } else {
        reset(client.socket);
    }
}

/// A worker that has been told about clients of both shards, and about their end.
fn known_worker(server: &Binary) -> Business {
    let mut worker = server.worker(OPEN | CLOSE);
    let mut shards = HashSet::new();
    while shards.len() < 2 {
        let client = server.client();
        shards.insert(shard_of(&worker.opened()));
        drop(client);
        worker.closed();
    }
    let clients = || server.metric("ringway_clients", "");
    wait_until("nobody to be there", || clients() == 0);
    worker
}

/// The race of opening and ending, which leaves ghosts in the original (netsvr W10).
#[test]
fn a_storm_of_upgrades_and_resets_leaves_no_ghost() {
    let server = Binary::start("");
    let mut task = server.task();
    assert_eq!(task.online_count(), 0);
    let mut worker = known_worker(&server);
    let before = server.rss_kib();
    let gauge = |name| server.metric(name, "");
    let earlier = gauge("ringway_clients_opened_total");
    let storm = storm(server.address(CLIENTS), upgrade_and_reset);
    let (mut open, mut all) = (HashSet::new(), Vec::new());
    let mut read = |worker: &mut Business| {
        let (number, body) = worker.frame();
        if number == cmd::CONN_OPEN {
            let id = proto::ConnOpen6::decode(&*body).expect("it decodes").uniq_id;
            assert!(open.insert(id.clone()), "{id} is opened once");
            all.push(id);
        } else {
            let id = proto::ConnClose::decode(&*body).expect("it decodes").uniq_id;
            assert!(open.remove(&id), "{id} is closed once, after it was opened");
        }
        (all.len(), open.len())
    };
    // Every fourth has waited for its response, so it was opened.
    let mut heard = (0, 0);
    while heard.0 < STORM / 4 {
        heard = read(&mut worker);
    }
    storm.into_iter().for_each(|thread| thread.join().expect("no panic"));
    // Each shard tells its counts when it comes to it, so what they say may be of several moments,
    // and of one before the last connections. Nothing is over until all of it fits together.
    wait_until("the end of all", || {
        while worker.has_input() {
            heard = read(&mut worker);
        }
        let quiet = ["ringway_clients", "ringway_clients_waiting", "ringway_worker_queue_frames"];
        let closes = gauge("ringway_clients_closed_total") - earlier;
        let opens = gauge("ringway_clients_opened_total") - earlier;
        gauge("ringway_connections") == 2
            && (opens, closes) == (heard.0 as u64, heard.0 as u64)
            && heard.1 == 0
            && quiet.iter().all(|name| gauge(name) == 0)
            && task.online_count() == 0
    });
    for uniq_ids in all.chunks(1000) {
        let request = proto::CheckOnlineReq { uniq_ids: uniq_ids.to_vec() };
        let online: proto::CheckOnlineResp = task.ask(cmd::CHECK_ONLINE, &request);
        assert_eq!(online.uniq_ids, Vec::<String>::new());
    }
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
    drop(worker);
    server.check_serves();
}
