//! Limiters, the number of clients, and what is counted (specification sections 2.4, 2.6, 4.4, 6.7,
//! 6.8).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringway::config::all::Config;
use ringway::config::model::{SlowClient, WorkerFull};
use ringway::wire::worker::proto;

use crate::common::*;
use crate::support::*;

/// Vector V45: the close frame of a client that is not let in.
const REFUSED: &str = "88 24 03 f5 6f 70 65 6e 20 72 61 74 65 20 6c 69 6d 69 74 65 64 2c 20 74 72
                       79 20 61 67 61 69 6e 20 6c 61 74 65 72";

/// So many messages pass at first, then so many per window.
fn window(first: u32, then: u32, window: Duration) -> Config {
    let mut config = config();
    config.netsvr.customer.limit_zero_window_max_requests = first;
    config.netsvr.customer.limit_window_max_requests = then;
    config.netsvr.customer.limit_window = window;
    config
}

fn limit(task: &mut Business, on_open: i32, on_message: i32) -> (i32, i32) {
    let request = proto::LimitReq { on_open, on_message };
    let answer: proto::LimitResp = task.ask(cmd::LIMIT, &request);
    (answer.on_open, answer.on_message)
}

/// Upgrades and tells whether the client was let in; a refusal must be exactly as specified.
fn let_in(server: &Server) -> Option<Client> {
    let mut client = server.client();
    client.write(&masked(0x89, b""));
    let frame = client.frame();
    if frame.first == 0x8a {
        return Some(client);
    }
    let bytes = [&[frame.first, frame.payload.len() as u8], &*frame.payload].concat();
    assert_eq!(bytes, hex(REFUSED));
    client.expect_end();
    None
}

#[test]
fn a_client_may_send_so_many_messages_at_first_and_then_so_many_per_window() {
    let server = Server::start(window(5, 2, Duration::from_secs(3600)));
    let mut worker = server.worker(OPEN | MESSAGE);
    let mut task = server.task();
    let mut client = server.client();
    worker.opened();
    // Heartbeats and pings take nothing.
    for _ in 0..10 {
        client.send_text(HEARTBEAT);
        expect_silence(&mut client);
    }
    (0..20).for_each(|number| client.send_text(&number.to_string()));
    expect_silence(&mut client);
    for number in 0..7 {
        assert_eq!(worker.transfer().data, number.to_string().as_bytes());
    }
    assert_eq!(metrics(&mut task)[&13], 13, "the rest is dropped and counted");
    // The limiter is one of each connection.
    let mut other = server.client();
    worker.opened();
    other.send_text("other");
    assert_eq!(&*worker.transfer().data, b"other");
}

/// Everything that the library logs in this process from now on.
fn log() -> Arc<Mutex<Vec<u8>>> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_env_filter("ringway=trace")
        .with_ansi(false)
        .with_writer(move || Log(writer.clone()))
        .init();
    log
}

struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics in here").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn messages_that_are_dropped_are_counted_and_not_logged() {
    let log = log();
    let mut stage = Stage::new(window(0, 1, Duration::from_secs(3600)));
    let mut worker = stage.server.worker(MESSAGE);
    stage.update(0, "the secret session", "the secret customer", &[]);
    (0..50).for_each(|_| stage.clients[0].send_text("the secret text"));
    expect_silence(&mut stage.clients[0]);
    worker.transfer();
    assert_eq!(metrics(&mut stage.task)[&13], 49);
    // A line that is there shows that lines are seen.
    worker.write(&business_frame(12345, b""));
    assert_eq!(worker.try_frame(), None);
    let log = log.lock().expect("nobody panics in here");
    let text = String::from_utf8_lossy(&log);
    assert!(text.contains("12345"), "the unknown command is not in the log:\n{text}");
    assert!(!text.contains("secret"), "{text}");
}

/// How long a window of this length lasts, as a client sees it.
fn window_seen(length: Duration) -> Duration {
    let server = Server::start(window(0, 1, length));
    let mut worker = server.worker(MESSAGE);
    let mut client = server.client();
    let start = Instant::now();
    client.send_text("first");
    worker.transfer();
    // A few tries per window until a message passes.
    worker.socket.set_read_timeout(Some(Duration::from_millis(20))).expect("valid");
    loop {
        client.send_text("next");
        match std::io::Read::read(&mut worker.socket, &mut [0; 4096]) {
            Ok(count) => {
                assert!(count > 0, "the worker was closed");
                return start.elapsed();
            }
            Err(_) => assert!(start.elapsed() < PATIENCE, "the window never ends"),
        }
    }
}

#[test]
fn a_window_lasts_exactly_as_long_as_configured() {
    let length = Duration::from_millis(500);
    // On a machine that is busy with other things it may look longer, but not every time.
    let best = (0..5).map(|_| window_seen(length)).find(|seen| {
        assert!(*seen >= length, "it lasted {seen:?}");
        *seen < length.mul_f64(1.4)
    });
    assert!(best.is_some(), "it lasted much longer five times");
}

#[test]
fn messages_without_a_worker_take_nothing_from_the_limiters() {
    let mut config = window(3, 1, Duration::from_secs(3600));
    config.netsvr.limit.on_message = 3;
    let server = Server::start(config);
    let mut client = server.client();
    (0..20).for_each(|_| client.send_text("to nobody"));
    expect_silence(&mut client);
    let mut worker = server.worker(MESSAGE);
    for text in ["1", "2", "3"] {
        client.send_text(text);
        assert_eq!(worker.transfer().data, text.as_bytes());
    }
}

/// How many of so many messages pass, sent by both clients of the stage.
fn passed(stage: &mut Stage, worker: &mut Business, count: usize) -> usize {
    let before = metrics(&mut stage.task)[&9];
    for _ in 0..count / 2 {
        stage.clients.iter_mut().for_each(|client| client.send_text("x"));
    }
    stage.clients.iter_mut().for_each(expect_silence);
    let dropped = (metrics(&mut stage.task)[&9] - before) as usize;
    (0..count - dropped).for_each(|_| assert_eq!(&*worker.transfer().data, b"x"));
    count - dropped
}

#[test]
fn the_message_limiter_is_one_for_both_shards() {
    let mut config = config();
    config.netsvr.limit.on_message = 10;
    let mut stage = Stage::new(config);
    let mut worker = stage.server.worker(MESSAGE);
    let start = Instant::now();
    let count = passed(&mut stage, &mut worker, 60);
    let refill = start.elapsed().as_secs_f64() * 10.0;
    assert!(count >= 10, "{count} passed, the burst is 10");
    assert!((count as f64) < 12.0 + refill, "{count} passed");
    wait_until("tokens come back", || passed(&mut stage, &mut worker, 2) > 0);
}

#[test]
fn limit_sets_rate_and_burst_and_leaves_what_is_not_positive() {
    let mut config = config();
    config.netsvr.limit.on_open = 1000;
    config.netsvr.limit.on_message = 50_000;
    let mut stage = Stage::new(config);
    let mut worker = stage.server.worker(MESSAGE);
    let task = &mut stage.task;
    assert_eq!(limit(task, 0, 0), (1000, 50_000));
    assert_eq!(limit(task, -5, i32::MIN), (1000, 50_000));
    assert_eq!(limit(task, 0, 10), (1000, 10));
    // Any other connection sees the same.
    assert_eq!(limit(&mut stage.server.task(), 0, 0), (1000, 10));
    let start = Instant::now();
    let count = passed(&mut stage, &mut worker, 60);
    let refill = start.elapsed().as_secs_f64() * 10.0;
    assert!((count as f64) < 12.0 + refill, "a burst of {count} is more than the new rate");
    assert_eq!(limit(&mut stage.task, 2000, 100_000), (2000, 100_000));
    assert_eq!(limit(&mut stage.task, i32::MAX, 0), (i32::MAX, 100_000));
}

#[test]
fn limit_can_switch_on_what_was_off() {
    let mut stage = Stage::new(config());
    let mut worker = stage.server.worker(MESSAGE);
    assert_eq!(limit(&mut stage.task, 0, 0), (0, 0));
    assert_eq!(passed(&mut stage, &mut worker, 60), 60);
    assert_eq!(limit(&mut stage.task, 0, 10), (0, 10));
    let start = Instant::now();
    let count = passed(&mut stage, &mut worker, 60);
    let refill = start.elapsed().as_secs_f64() * 10.0;
    assert!(count >= 10 && (count as f64) < 12.0 + refill, "{count} passed");
    assert_eq!(limit(&mut stage.task, 1, 0), (1, 10));
    let mut guests: Vec<Client> = (0..10).map(|_| stage.server.client()).collect();
    wait_until("the others are refused", || metrics(&mut stage.task)[&8] >= 5);
    guests.clear();
}

#[test]
fn the_open_limiter_refuses_with_1013_and_is_counted() {
    let mut config = config();
    config.netsvr.limit.on_open = 3;
    let server = Server::start(config);
    let mut task = server.task();
    let start = Instant::now();
    let clients: Vec<Option<Client>> = (0..12).map(|_| let_in(&server)).collect();
    let refill = start.elapsed().as_secs_f64() * 3.0;
    let open = clients.iter().flatten().count();
    assert!(open >= 3 && (open as f64) < 5.0 + refill, "{open} were let in");
    let metrics = metrics(&mut task);
    assert_eq!((metrics[&1], metrics[&8]), (open as i64, 12 - open as i64));
    assert_eq!(task.online_count(), open as i32);
    wait_until("tokens come back", || let_in(&server).is_some());
}

#[test]
fn max_online_refuses_with_1013_and_is_not_counted_as_the_limiter() {
    let mut config = config();
    config.netsvr.customer.max_online = 2;
    let server = Server::start(config);
    let mut worker = server.worker(OPEN | CLOSE);
    let mut task = server.task();
    // Who is not upgraded does not count.
    let silent: Vec<Client> = (0..5).map(|_| Client::tcp(server.address(CLIENTS))).collect();
    let mut first = let_in(&server).expect("there is room");
    let first_id = worker.opened();
    let second = let_in(&server).expect("there is room");
    worker.opened();
    for _ in 0..3 {
        assert!(let_in(&server).is_none(), "it is full");
    }
    assert_eq!(metrics(&mut task)[&8], 0);
    // A place is free again as soon as its client is gone.
    first.send_close(1000);
    assert_eq!(first.frame().close().0, 1000);
    first.expect_end();
    assert_eq!(worker.closed().uniq_id, first_id, "the refused ones are not told to anybody");
    let _third = let_in(&server).expect("there is room again");
    worker.opened();
    assert!(let_in(&server).is_none(), "it is full");
    drop((second, silent));
}

#[test]
fn metrics_count_known_traffic_exactly() {
    let server = Server::start(config());
    let mut worker = server.worker(ALL);
    let mut task = server.task();
    let zeros: BTreeMap<i32, i64> = (1..=13).map(|item| (item, 0)).collect();
    assert_eq!(metrics(&mut task), zeros, "all items are there, also without any count");
    let mut events = (0, 0);
    let mut event = |worker: &mut Business| {
        let (_, body) = worker.frame();
        events = (events.0 + 1, events.1 + 8 + body.len() as i64);
        id_of(&body)
    };
    let mut clients: Vec<Client> = (0..6).map(|_| server.client()).collect();
    let ids: Vec<String> = clients.iter().map(|_| event(&mut worker)).collect();
    for client in &mut clients {
        client.send_text(HEARTBEAT);
        expect_silence(client);
        client.send_text("a message");
        event(&mut worker);
    }
    // 5 bytes and a header of 2 for each; then 300 bytes and a header of 4 for one.
    task.send(cmd::BROADCAST, &proto::Broadcast { data: b"hello"[..].into() });
    task.single_cast(&ids[0], vec![b'x'; 300]);
    clients.iter_mut().for_each(|client| assert_eq!(client.frame().text(), "hello"));
    assert_eq!(clients[0].frame().payload.len(), 300);
    // Close frames are not counted as written.
    for client in clients.drain(..2) {
        drop(client);
        event(&mut worker);
    }
    for mut client in clients.drain(..2) {
        client.send_close(1000);
        client.frame().close();
        event(&mut worker);
    }
    let expected =
        [(1, 6), (2, 4), (3, 12), (4, events.0), (5, events.1), (6, 7), (7, 6 * 7 + 304)];
    let expected: BTreeMap<i32, i64> = zeros.into_iter().chain(expected).collect();
    assert_eq!(events.0, 6 + 6 + 4);
    assert_eq!(metrics(&mut task), expected);
}

#[test]
fn metrics_have_rates_and_repeat_the_item_in_the_value() {
    let server = Server::start(config());
    let _clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    let mut task = server.task();
    wait_until("they are open", || task.online_count() == 3);
    let answer: proto::MetricsResp = task.ask(cmd::METRICS, &());
    assert_eq!(answer.items.len(), 13);
    assert!(answer.items.iter().all(|(item, value)| *item == value.item));
    let opens = &answer.items[&1];
    assert_eq!(opens.count, 3);
    assert!(opens.mean_rate > 0.0, "{opens:?}");
    assert!(answer.items[&8].mean_rate == 0.0);
}

#[test]
fn only_the_configured_metric_items_are_reported() {
    let mut config = config();
    config.netsvr.metrics_items = vec![1, 3, 13];
    let server = Server::start(config);
    let seen = metrics(&mut server.task());
    assert_eq!(seen.into_keys().collect::<Vec<_>>(), [1, 3, 13]);
}

#[test]
fn without_any_item_metrics_are_the_bare_header() {
    let mut config = config();
    config.netsvr.metrics_items = Vec::new();
    let server = Server::start(config);
    let mut task = server.task();
    task.write(&hex("00000004 35a4f4c9"));
    assert_eq!(task.frame(), (cmd::METRICS, Vec::new()));
}

#[test]
fn events_that_find_every_queue_full_are_dropped_and_counted_if_so_configured() {
    let mut config = config();
    config.netsvr.worker.on_full = WorkerFull::Drop;
    config.netsvr.worker.queue_frames_max = 4;
    config.netsvr.worker.send_deadline = Duration::from_secs(60);
    config.netsvr.worker.register_delay = Duration::ZERO;
    let server = Server::start(config);
    let mut worker = server.worker(MESSAGE);
    let mut task = server.task();
    let mut client = server.client();
    // 60 MB to a worker that does not read.
    let mut text = "x".repeat(1_000_000);
    for number in 0..60 {
        text.replace_range(..2, &format!("{number:02}"));
        client.send_text(&text);
    }
    expect_silence(&mut client);
    let failed = metrics(&mut task)[&10];
    assert!(failed > 0, "60 MB can not be on the way");
    let mut seen = BTreeSet::new();
    for _ in 0..60 - failed {
        assert!(seen.insert(worker.transfer().data.slice(..2)), "it came twice");
    }
    assert_eq!(metrics(&mut task)[&4], 60 - failed, "delivered and dropped make all");
    client.send_text("fits again");
    assert_eq!(&*worker.transfer().data, b"fits again");
}

#[test]
fn clients_wait_for_a_full_worker_and_nothing_is_lost() {
    let mut config = config_with_admin();
    config.netsvr.worker.queue_frames_max = 4;
    config.netsvr.worker.send_deadline = Duration::from_secs(60);
    config.netsvr.customer.heartbeat_interval = Duration::from_millis(800);
    let server = Server::start(config);
    let mut worker = server.worker(MESSAGE | CLOSE);
    let mut client = server.client();
    let writing = std::thread::spawn(move || {
        let mut text = "x".repeat(1_000_000);
        for number in 0..40 {
            text.replace_range(..2, &format!("{number:02}"));
            client.send_text(&text);
        }
    });
    wait_until("the client has to wait", || {
        prometheus_sum(&server, "ringway_clients_waiting", "") == 1.0
    });
    // Who waits can not show that it is alive and is not cut for that; a silent echo client is.
    for _ in 0..2 {
        let mut silent = Client::open(server.address(CLIENTS), "/echo");
        assert_eq!(silent.frame().close(), (1001, "heartbeat timeout"));
    }
    assert_eq!(prometheus_sum(&server, "ringway_clients_waiting", ""), 1.0);
    for number in 0..40 {
        let data = worker.transfer().data;
        assert_eq!((&data[..2], data.len()), (format!("{number:02}").as_bytes(), 1_000_000));
    }
    // The client has left as soon as it had sent everything.
    writing.join().expect("all was written");
    worker.closed();
}

#[test]
fn clients_whose_open_nobody_wants_do_not_wait_for_a_full_worker() {
    let mut config = config_with_admin();
    config.netsvr.worker.queue_frames_max = 4;
    config.netsvr.worker.send_deadline = Duration::from_secs(60);
    config.runtime.cpus.truncate(1);
    let server = Server::start(config);
    let mut worker = server.worker(MESSAGE | CLOSE);
    let mut task = server.task();
    let leaving = server.client();
    let mut client = server.client();
    let writing = std::thread::spawn(move || {
        let text = "x".repeat(1_000_000);
        (0..40).for_each(|_| client.send_text(&text));
    });
    wait_until("the client has to wait", || {
        prometheus_sum(&server, "ringway_clients_waiting", "") == 1.0
    });
    // A close can not wait in its client, only in the gateway.
    drop(leaving);
    wait_until("it has left", || task.online_count() == 1);
    let _late = server.client();
    wait_until("another one is let in", || task.online_count() == 2);
    (0..41).for_each(|_| drop(worker.frame()));
    writing.join().expect("all was written");
}

#[test]
fn prometheus_shows_the_same_counts() {
    let mut stage = Stage::new(config_with_admin());
    let mut worker = stage.server.worker(MESSAGE);
    for client in &mut stage.clients {
        client.send_text(HEARTBEAT);
        client.send_text("message");
        worker.transfer();
        expect_silence(client);
    }
    stage.task.send(cmd::BROADCAST, &proto::Broadcast { data: b"x"[..].into() });
    stage.clients.iter_mut().for_each(|client| assert_eq!(client.frame().text(), "x"));
    drop(stage.server.client());
    wait_until("a third came and went", || {
        let items = metrics(&mut stage.task);
        items[&2] > 0 && items[&1] == items[&2] + 2
    });
    let items = metrics(&mut stage.task);
    for (item, family) in [
        (1, "ringway_clients_opened_total"),
        (2, "ringway_clients_closed_total"),
        (3, "ringway_client_heartbeats_total"),
        (4, "ringway_worker_events_total"),
        (5, "ringway_worker_events_bytes_total"),
        (6, "ringway_client_frames_written_total"),
        (7, "ringway_client_frames_written_bytes_total"),
    ] {
        assert!(items[&item] > 0 || item == 2, "item {item}");
        wait_until(family, || prometheus_sum(&stage.server, family, "") == items[&item] as f64);
    }
    for (family, expected) in [("ringway_clients", 2.0), ("ringway_workers", 1.0)] {
        wait_until(family, || prometheus_sum(&stage.server, family, "") == expected);
    }
}

#[test]
fn connections_max_closes_what_comes_too_much() {
    let mut config = config_with_admin();
    config.runtime.connections_max = 5;
    let server = Server::start(config);
    let mut task = server.task();
    task.online_count();
    let mut clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    for listener in [CLIENTS, WORKERS, TASKS] {
        let mut surplus = Business::connect(server.address(listener));
        assert_eq!(surplus.try_frame(), None, "closed at once");
    }
    wait_until("they are counted", || {
        prometheus_sum(&server, "ringway_connections_refused_total", "") == 3.0
    });
    // Those who are in are not disturbed, and a place that becomes free is given away.
    clients.iter_mut().for_each(expect_silence);
    clients.pop();
    wait_until("one is gone", || prometheus_sum(&server, "ringway_connections", "") == 4.0);
    expect_silence(&mut server.client());
}

/// Broadcasts so many payloads of 100 kB while one of three clients does not read. Returns the
/// stage, the client, and its id.
fn broadcast_to_a_slow_client(config: Config, count: usize) -> (Stage, Client, String) {
    let mut stage = Stage::new(config);
    let mut worker = stage.server.worker(OPEN);
    let slow = stage.server.client();
    let id = worker.opened();
    let message = proto::Broadcast { data: vec![b'b'; 100_000].into() };
    for _ in 0..count {
        stage.task.send(cmd::BROADCAST, &message);
        for client in &mut stage.clients {
            assert_eq!(client.frame().payload.len(), 100_000, "the others are served");
        }
    }
    (stage, slow, id)
}

#[test]
fn a_client_that_does_not_read_is_closed_and_what_it_missed_is_counted() {
    let mut config = config_with_admin();
    config.runtime.outbox_bytes_max = 500_000;
    config.runtime.close_timeout = Duration::from_millis(200);
    let (mut stage, mut slow, id) = broadcast_to_a_slow_client(config, 150);
    wait_until("it is closed", || online(&mut stage.task, &[&id]).is_empty());
    let metrics = metrics(&mut stage.task);
    assert!(metrics[&11] > 0 && metrics[&12] >= 100_000, "{metrics:?}");
    wait_until("that is counted", || {
        prometheus_sum(&stage.server, "ringway_slow_clients_closed_total", "") == 1.0
    });
    let received = read_to_end(&mut slow.socket).len();
    assert!(received < 150 * 100_000, "it got everything: {received}");
}

#[test]
fn a_client_that_does_not_read_loses_frames_and_stays_if_so_configured() {
    let mut config = config();
    config.runtime.outbox_bytes_max = 500_000;
    config.runtime.slow_client = SlowClient::Drop;
    let (mut stage, mut slow, id) = broadcast_to_a_slow_client(config, 150);
    assert_eq!(online(&mut stage.task, &[&id]), [&*id]);
    let lost = metrics(&mut stage.task)[&11];
    assert!(lost > 0 && lost < 150, "{lost} of 150 were lost");
    for _ in 0..150 - lost {
        assert_eq!(slow.frame().payload.len(), 100_000);
    }
    assert_eq!(texts_until_mark(&mut stage.task, &mut slow, &id), strings(&[]));
}
