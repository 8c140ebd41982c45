//! Clients that do not read while a broadcast goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use ringway::config::model::SlowClient;
use ringway::wire::worker::proto;

use crate::binary::{Binary, metric};
use crate::common::*;
use crate::{config, shrink};

const PUSHES: usize = 1000;
const PUSH_BYTES: usize = 64 << 10;
/// Pushes that may be under way to a client that reads: below the limit of its outbox.
const AHEAD: usize = 8;
const READERS: usize = 8;

fn push(number: usize) -> Vec<u8> {
    let mut push = format!("{number} ").into_bytes();
    push.resize(PUSH_BYTES, b'.');
    push
}

fn number(frame: &Frame) -> usize {
    assert_eq!(frame.payload.len(), PUSH_BYTES, "a whole push");
    let number = frame.text().split(' ').next().expect("there is a first");
    number.parse().expect("a number")
}

/// Clients that read every push, in a thread each.
struct Readers {
    seen: Vec<Arc<AtomicUsize>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    fn start(clients: SocketAddr) -> Readers {
        let mut readers = Readers { seen: Vec::new(), threads: Vec::new() };
        for _ in 0..READERS {
            let mut client = Client::open(clients, "/netsvr");
            let seen = Arc::new(AtomicUsize::new(0));
            readers.seen.push(seen.clone());
            readers.threads.push(std::thread::spawn(move || {
                for expected in 0..PUSHES {
                    assert_eq!(number(&client.frame()), expected, "all of them, in order");
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        readers
    }

    /// What the slowest of them has seen.
    fn least(&self) -> usize {
        let seen = self.seen.iter().map(|seen| seen.load(Ordering::Relaxed));
        seen.min().expect("there are readers")
    }

    /// Broadcasts everything, no faster than they read; they end with the last push.
    fn broadcast(self, task: &mut Business) {
        for at in 0..PUSHES {
            wait_until("the clients that read", || self.least() + AHEAD > at);
            task.send(cmd::BROADCAST, &proto::Broadcast { data: push(at).into() });
        }
        self.threads.into_iter().for_each(|thread| thread.join().expect("it got everything"));
    }
}

/// A client that reads nothing, and for which the kernel takes little.
fn stalled(clients: SocketAddr) -> Client {
    let client = Client::open(clients, "/netsvr");
    shrink(&client.socket);
    client
}

#[test]
fn a_client_that_stops_reading_is_closed_and_costs_no_more_than_its_outbox() {
    // Long enough that the stalled one finds its close frame when it reads again.
    let server = Binary::start("[runtime]\nclose_timeout = \"1m\"\n");
    let mut worker = server.worker(2);
    let mut slow = stalled(server.address(CLIENTS));
    let readers = Readers::start(server.address(CLIENTS));
    let mut task = server.task();
    assert_eq!(task.online_count() as usize, READERS + 1);
    let before = server.rss_kib();
    // The others get all of it while it stands still.
    readers.broadcast(&mut task);
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown < 24 << 10, "{grown} KiB for one client that does not read 64 MB");
    wait_until("the verdict", || server.metric("ringway_slow_clients_closed_total", "") == 1);
    let mut expected = 0;
    let last = loop {
        let frame = slow.frame();
        if frame.first == 0x88 {
            break frame;
        }
        assert_eq!(number(&frame), expected, "nothing is missing before the end");
        expected += 1;
    };
    assert!(expected < PUSHES);
    assert_eq!(last.close(), (1008, "slow consumer"));
    slow.send_close(1008);
    slow.expect_end();
    for _ in 0..READERS + 1 {
        worker.closed();
    }
    server.check_serves();
}

#[test]
fn a_client_that_never_reads_again_is_gone_after_the_close_timeout() {
    let server = Binary::start("[runtime]\nclose_timeout = \"100ms\"\n");
    let mut worker = server.worker(1 | 2);
    let mut slow = stalled(server.address(CLIENTS));
    let uniq_id = worker.opened();
    let mut task = server.task();
    let data: Vec<u8> = vec![b'x'; PUSH_BYTES];
    for _ in 0..200 {
        task.single_cast(&uniq_id, data.clone());
    }
    assert_eq!(worker.closed().uniq_id, uniq_id);
    let gauge = |name| server.metric(name, "");
    wait_until("the end of the connection", || gauge("ringway_connections") == 2);
    assert_eq!(gauge("ringway_connections_stalled"), 0);
    // It was closed by force, so the stream may end anywhere.
    slow.rest();
}

#[test]
fn with_slow_client_drop_frames_are_lost_by_count_and_the_client_stays() {
    let mut config = config();
    config.runtime.slow_client = SlowClient::Drop;
    let server = Server::start(config);
    let admin = server.gateway().admin_address().expect("an admin server");
    let mut slow = stalled(server.address(CLIENTS));
    let readers = Readers::start(server.address(CLIENTS));
    let mut task = server.task();
    readers.broadcast(&mut task);
    let received = Arc::new(AtomicUsize::new(0));
    let counter = received.clone();
    let reading = std::thread::spawn(move || {
        let mut last = None;
        loop {
            let frame = slow.frame();
            if frame.payload == b"end" {
                return;
            }
            let number = number(&frame);
            assert!(last < Some(number), "in order, none twice");
            last = Some(number);
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let dropped = || metric(admin, "ringway_dropped_total", "slow_client") as usize;
    wait_until("every push to be delivered or counted", || {
        received.load(Ordering::Relaxed) + dropped() == PUSHES
    });
    assert!(dropped() > 0);
    task.send(cmd::BROADCAST, &proto::Broadcast { data: b"end"[..].into() });
    reading.join().expect("the client is still served");
    assert_eq!(received.load(Ordering::Relaxed) + dropped(), PUSHES);
}
