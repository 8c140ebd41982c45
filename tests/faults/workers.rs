//! Workers that die or do not read.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use ringway::config::model::WorkerFull;
use ringway::wire::websocket::mask_frame;

use crate::binary::metric;
use crate::common::*;
use crate::{MESSAGE, config, reset, shrink};

/// Bytes that the kernel may take for a worker that does not read: the gateway's send buffer
/// (`net.ipv4.tcp_wmem`, 4 MiB at the most by default) and the worker's small receive buffer.
const KERNEL_BYTES_MAX: usize = 6 << 20;
const TEXT_BYTES: usize = 1024;

/// A worker that reads nothing.
fn stalled_worker(server: &Server) -> Business {
    let worker = server.worker(MESSAGE);
    shrink(&worker.socket);
    worker
}

fn text(client: usize, number: usize) -> String {
    format!("{client} {number:0>width$}", width = TEXT_BYTES - 2)
}

/// Client and number of a message made by [`text`].
fn parse(data: &[u8]) -> Option<(usize, usize)> {
    let (client, number) = std::str::from_utf8(data).ok()?.split_once(' ')?;
    Some((client.parse().ok()?, number.parse().ok()?))
}

/// Clients that send `count` numbered messages each, in a thread each.
fn senders(server: &Server, clients: usize, count: usize) -> Vec<JoinHandle<Client>> {
    let start = |client| {
        let mut socket = server.client();
        std::thread::spawn(move || {
            for number in 0..count {
                let message = text(client, number);
                socket.write(&mask_frame(0x81, [7, 6, 5, 4], message.as_bytes()));
            }
            socket
        })
    };
    (0..clients).map(start).collect()
}

fn join(threads: Vec<JoinHandle<Client>>) -> Vec<Client> {
    threads.into_iter().map(|thread| thread.join().expect("everything was sent")).collect()
}

fn admin(server: &Server) -> std::net::SocketAddr {
    server.gateway().admin_address().expect("an admin server")
}

fn received(server: &Server) -> u64 {
    metric(admin(server), "ringway_client_messages_received_total", "")
}

#[test]
fn a_killed_worker_leaves_its_events_to_the_others() {
    const EACH: usize = 5000;
    let server = Server::start(config());
    let stalled = stalled_worker(&server);
    let clients = join(senders(&server, 4, EACH));
    wait_until("all messages to be in the gateway", || received(&server) == 4 * EACH as u64);
    let mut other = server.worker(MESSAGE);
    reset(stalled.socket);
    let mut next: BTreeMap<usize, usize> = BTreeMap::new();
    let mut count = 0;
    let mut done = 0;
    while done < 4 {
        let (client, number) = parse(&other.transfer().data).expect("one of our messages");
        let expected = next.entry(client).or_insert(number);
        assert_eq!(number, *expected, "client {client}: in order, none lost, none twice");
        *expected += 1;
        count += 1;
        done += (number == EACH - 1) as usize;
    }
    let lost = 4 * EACH - count;
    assert!(lost * TEXT_BYTES <= KERNEL_BYTES_MAX, "{lost} messages are lost");
    wait_until("all that came to be counted", || {
        metric(admin(&server), "ringway_worker_events_rerouted_total", "") as usize >= count
    });
    for mut client in clients {
        client.send_text("and now?");
        assert_eq!(&*other.transfer().data, b"and now?", "the other one serves all");
    }
    wait_until("empty queues", || metric(admin(&server), "ringway_worker_queue_frames", "") == 0);
}

#[test]
fn a_worker_over_its_send_deadline_is_closed_and_leaves_its_events_to_the_others() {
    const EACH: usize = 5000;
    let mut config = config();
    config.netsvr.worker.send_deadline = Duration::from_secs(1);
    let server = Server::start(config);
    let stalled = stalled_worker(&server);
    let mut readers = Readers::new();
    readers.add(server.worker(MESSAGE), None);
    let clients = join(senders(&server, 4, EACH));
    let gauge = |name| metric(admin(&server), name, "");
    wait_until("the stalled worker to be closed", || gauge("ringway_workers") == 1);
    wait_until("empty queues", || gauge("ringway_worker_queue_frames") == 0);
    let seen = readers.finish(&server).remove(0);
    let all: HashSet<_> = seen.iter().collect();
    assert_eq!(all.len(), seen.len(), "none comes twice");
    let lost = 4 * EACH - seen.len();
    assert!(lost * TEXT_BYTES <= KERNEL_BYTES_MAX, "{lost} messages are lost");
    assert!(gauge("ringway_worker_events_rerouted_total") > 0);
    drop((stalled, clients));
}

/// Readers that note what they get, until a message `end`.
struct Readers {
    total: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<(usize, usize)>>>,
}

impl Readers {
    fn new() -> Readers {
        Readers { total: Arc::default(), threads: Vec::new() }
    }

    /// Starts to read when `go` says so, or at once.
    fn add(&mut self, mut worker: Business, go: Option<mpsc::Receiver<()>>) {
        let total = self.total.clone();
        self.threads.push(std::thread::spawn(move || {
            if let Some(go) = go {
                go.recv().expect("the test goes on");
            }
            let mut seen = Vec::new();
            while let Some(message) = parse(&worker.transfer().data) {
                seen.push(message);
                total.fetch_add(1, Ordering::Relaxed);
            }
            seen
        }));
    }

    fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Whom an end mark reaches is up to the gateway: more of them until everybody has one.
    fn finish(self, server: &Server) -> Vec<Vec<(usize, usize)>> {
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            server.client().send_text("end");
        }
        let join = |thread: JoinHandle<_>| thread.join().expect("a reader ended well");
        self.threads.into_iter().map(join).collect()
    }
}

#[test]
fn while_one_worker_does_not_read_the_others_get_the_events_and_nothing_is_lost() {
    const EACH: usize = 4000;
    let mut config = config();
    config.netsvr.worker.queue_frames_max = 256;
    let server = Server::start(config);
    let mut readers = Readers::new();
    let (go, wait) = mpsc::channel();
    readers.add(stalled_worker(&server), Some(wait));
    readers.add(server.worker(MESSAGE), None);
    let sending = senders(&server, 4, EACH);
    // What the stalled one keeps is what the kernel takes and its queue.
    let kept = KERNEL_BYTES_MAX / TEXT_BYTES + 256;
    wait_until("the other one's events", || readers.total() >= 4 * EACH - kept);
    go.send(()).expect("it waits");
    wait_until("all events", || readers.total() == 4 * EACH);
    let clients = join(sending);
    let seen = readers.finish(&server);
    let all: HashSet<_> = seen.iter().flatten().collect();
    assert_eq!(all.len(), 4 * EACH, "none is lost");
    assert_eq!(seen.iter().map(Vec::len).sum::<usize>(), 4 * EACH, "none comes twice");
    assert!(seen.iter().all(|one| !one.is_empty()));
    drop(clients);
}

#[test]
fn clients_are_held_back_while_no_worker_reads_and_then_nothing_is_lost() {
    const EACH: usize = 8000;
    let mut config = config();
    config.netsvr.worker.queue_frames_max = 64;
    let server = Server::start(config);
    let mut worker = stalled_worker(&server);
    let mut client = server.client();
    let socket = socket2::SockRef::from(&client.socket);
    socket.set_send_buffer_size(256 << 10).expect("a TCP socket");
    let sending = std::thread::spawn(move || {
        for number in 0..EACH {
            client.send_text(&text(0, number));
        }
        client
    });
    let gauge = |name| metric(admin(&server), name, "");
    wait_until("a client that waits", || gauge("ringway_clients_waiting") == 1);
    assert!(gauge("ringway_worker_queue_frames") <= 64, "the queue has its limit");
    assert!(received(&server) < EACH as u64, "the rest is with the client and in TCP");
    for number in 0..EACH {
        assert_eq!(parse(&worker.transfer().data), Some((0, number)));
    }
    drop(sending.join().expect("everything was sent"));
    wait_until("an empty queue", || gauge("ringway_worker_queue_frames") == 0);
}

#[test]
fn with_on_full_drop_what_has_no_room_is_counted_and_the_rest_arrives_in_order() {
    const COUNT: usize = 10_000;
    let mut config = config();
    config.netsvr.worker.queue_frames_max = 64;
    config.netsvr.worker.on_full = WorkerFull::Drop;
    let server = Server::start(config);
    let mut worker = stalled_worker(&server);
    let mut clients = join(senders(&server, 1, COUNT));
    wait_until("all messages to be in the gateway", || received(&server) == COUNT as u64);
    let dropped = || metric(admin(&server), "ringway_dropped_total", "worker_full") as usize;
    let count = dropped();
    assert!(count > 0 && count < COUNT, "{count} were dropped");
    assert_eq!(metric(admin(&server), "ringway_worker_events_failed_total", ""), count as u64);
    let mut last = None;
    for _ in 0..COUNT - count {
        let message = parse(&worker.transfer().data).expect("one of our messages");
        assert!(last < Some(message), "in order, none twice");
        last = Some(message);
    }
    clients[0].send_text("end");
    assert_eq!(&*worker.transfer().data, b"end", "what was not dropped has arrived");
    assert_eq!(dropped(), count);
}

/// What a worker was given before it unregistered is written to it, so nothing is uncertain.
#[test]
fn workers_that_come_and_go_under_load_lose_nothing() {
    const EACH: usize = 3000;
    let mut config = config();
    config.netsvr.worker.queue_frames_max = 64;
    let server = Server::start(config);
    let mut readers = Readers::new();
    readers.add(server.worker(MESSAGE), None);
    let sending = senders(&server, 4, EACH);
    let mut seen = Vec::new();
    let mut guests = 0;
    while readers.total() + seen.len() < 4 * EACH {
        let mut guest = Business::connect(server.address(WORKERS));
        let conn_id = guest.register(MESSAGE).conn_id;
        guest.send(cmd::UNREGISTER, &ringway::wire::worker::proto::UnRegisterReq { conn_id });
        loop {
            let (number, body) = guest.frame();
            if number == cmd::UNREGISTER {
                break;
            }
            let transfer: ringway::wire::worker::proto::Transfer =
                prost::Message::decode(&*body).expect("a Transfer");
            seen.push(parse(&transfer.data).expect("one of our messages"));
        }
        guests += 1;
    }
    let clients = join(sending);
    for one in readers.finish(&server) {
        seen.extend(one);
    }
    assert!(guests > 0);
    let all: HashSet<_> = seen.iter().collect();
    assert_eq!((all.len(), seen.len()), (4 * EACH, 4 * EACH), "none lost, none twice");
    drop(clients);
}
