//! How connections end: ForceOffline (specification section 6.6), the graceful close (2.7), close
//! events (2.8), heartbeat timeout (2.5).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ringway::config::all::Config;
use ringway::gateway::Gateway;
use ringway::protocols::netsvr::wire::Generation;
use ringway::wire::worker::proto;

use crate::common::*;
use crate::support::*;

/// Vector V44 without its data: the close frame of ForceOffline.
const FORCED: &str = "88 0e 03 f0 66 6f 72 63 65 4f 66 66 6c 69 6e 65";

fn with_close_timeout(ms: u64) -> Config {
    let mut config = config();
    config.runtime.close_timeout = Duration::from_millis(ms);
    config
}

fn force_offline(ids: &[&str], data: &str) -> proto::ForceOffline {
    proto::ForceOffline { uniq_ids: strings(ids), data: data.as_bytes().to_vec().into() }
}

fn guests(ids: &[String], delay: i32, data: &str) -> proto::ForceOfflineGuest {
    let data = data.as_bytes().to_vec().into();
    proto::ForceOfflineGuest { uniq_ids: ids.to_vec(), delay, data }
}

/// Reads the close frame, answers it, and sees the end.
fn expect_closed(client: &mut Client, reason: &str) {
    assert_eq!(client.frame().close(), (1008, reason));
    client.send_close(1008);
    client.expect_end();
}

#[test]
fn force_offline_sends_the_data_and_the_close_frame_byte_for_byte() {
    let mut stage = Stage::new(with_close_timeout(200));
    for (client, id) in stage.clients.iter_mut().zip(&stage.ids) {
        stage.task.send(cmd::FORCE_OFFLINE, &force_offline(&[id], "hi"));
        // The client does not answer: these are all the bytes it ever gets (vector V44).
        assert_eq!(client.rest(), hex(&format!("81 02 68 69 {FORCED}")));
    }
}

#[test]
fn force_offline_closes_each_listed_client_once() {
    let mut stage = Stage::new(with_close_timeout(200));
    let [a, b] = stage.ids.clone();
    let unknown = unknown_id(&a);
    stage.task.send(cmd::FORCE_OFFLINE, &force_offline(&[], "lost"));
    stage.task.send(cmd::FORCE_OFFLINE, &force_offline(&[&unknown, "", "x"], "lost"));
    assert_eq!(stage.received(), [strings(&[]), strings(&[])]);
    stage.task.send(cmd::FORCE_OFFLINE, &force_offline(&[&a, &unknown, &b, &a, ""], ""));
    stage.task.send(cmd::FORCE_OFFLINE, &force_offline(&[&b], "too late"));
    for client in &mut stage.clients {
        assert_eq!(client.rest(), hex(FORCED));
    }
}

#[test]
fn force_offline_by_customer_closes_all_connections_of_the_customers() {
    let mut stage = Stage::new(config());
    let mut worker = stage.server.worker(OPEN);
    let mut other = stage.server.client();
    let other_id = worker.opened();
    stage.update(0, "", "42", &[]);
    stage.update(1, "", "42", &[]);
    let force = |customers: &[&str], data: &str| proto::ForceOfflineByCustomerId {
        customer_ids: strings(customers),
        data: data.as_bytes().to_vec().into(),
    };
    for message in [force(&[], "lost"), force(&["", "43"], "lost")] {
        stage.task.send(cmd::FORCE_OFFLINE_BY_CUSTOMER_ID, &message);
    }
    assert_eq!(stage.received(), [strings(&[]), strings(&[])]);
    let message = force(&["43", "42", "", "42"], "bye");
    stage.task.send(cmd::FORCE_OFFLINE_BY_CUSTOMER_ID, &message);
    for client in &mut stage.clients {
        assert_eq!(client.frame().text(), "bye");
        expect_closed(client, "forceOfflineByCustomerId");
    }
    let seen = texts_until_mark(&mut stage.task, &mut other, &other_id);
    assert_eq!(seen, strings(&[]), "an anonymous client is not customer \"\"");
}

#[test]
fn force_offline_guest_spares_who_has_a_session_or_a_customer() {
    let mut stage = Stage::new(config());
    for (session, customer) in [("s", ""), ("", "42")] {
        stage.update(0, session, customer, &["room"]);
        stage.update(1, session, customer, &["room"]);
        let message = guests(&stage.all_ids(), 0, "lost");
        stage.task.send(cmd::FORCE_OFFLINE_GUEST, &message);
        assert_eq!(stage.received(), [strings(&[]), strings(&[])]);
        for uniq_id in stage.ids.clone() {
            let (del_session, del_customer_id) = (true, true);
            let clear = proto::ConnInfoDelete {
                uniq_id,
                del_session,
                del_customer_id,
                ..Default::default()
            };
            stage.task.send(cmd::CONN_INFO_DELETE, &clear);
        }
    }
    // Topics do not make anybody more than a guest; a negative delay is none.
    let message = guests(&stage.all_ids(), -60, "bye");
    stage.task.send(cmd::FORCE_OFFLINE_GUEST, &message);
    for client in &mut stage.clients {
        assert_eq!(client.frame().text(), "bye");
        expect_closed(client, "forceOfflineGuest");
    }
}

#[test]
fn a_delayed_guest_is_looked_at_when_the_time_has_come() {
    let mut stage = Stage::new(config());
    stage.update(1, "s", "", &[]);
    let start = Instant::now();
    let message = guests(&stage.all_ids(), 1, "bye");
    stage.task.send(cmd::FORCE_OFFLINE_GUEST, &message);
    assert_eq!(stage.received(), [strings(&[]), strings(&[])], "nothing happens before");
    // Meanwhile the first logs in, the second logs out.
    stage.update(0, "s", "", &[]);
    let clear = proto::ConnInfoDelete {
        uniq_id: stage.ids[1].clone(),
        del_session: true,
        ..Default::default()
    };
    stage.task.send(cmd::CONN_INFO_DELETE, &clear);
    stage.info(1);
    assert!(start.elapsed() < Duration::from_secs(1), "the machine is too slow for this test");
    assert_eq!(stage.clients[1].frame().text(), "bye");
    let elapsed = start.elapsed();
    assert!(elapsed >= Duration::from_secs(1), "after {elapsed:?}");
    expect_closed(&mut stage.clients[1], "forceOfflineGuest");
    let first = &mut stage.clients[0];
    let seen = texts_until_mark(&mut stage.task, first, &stage.ids[0]);
    assert_eq!(seen, strings(&[]));
}

#[test]
fn a_client_that_answers_the_close_frame_is_gone_at_once() {
    // Longer than this test may take.
    let mut stage = Stage::new(with_close_timeout(60_000));
    let mut worker = stage.server.worker(CLOSE);
    for (client, id) in stage.clients.iter_mut().zip(&stage.ids) {
        stage.task.send(cmd::FORCE_OFFLINE, &force_offline(&[id], ""));
        // The client's frame is not echoed, whatever is in it.
        expect_closed(client, "forceOffline");
        assert_eq!(worker.closed().uniq_id, *id);
        assert_eq!(online(&mut stage.task, &[id]), strings(&[]));
    }
}

#[test]
fn a_client_that_does_not_answer_is_closed_after_the_close_timeout() {
    let mut stage = Stage::new(with_close_timeout(500));
    let start = Instant::now();
    let ids = stage.ids.each_ref().map(|id| &**id);
    stage.task.send(cmd::FORCE_OFFLINE, &force_offline(&ids, ""));
    for client in &mut stage.clients {
        assert_eq!(client.rest(), hex(FORCED));
    }
    let elapsed = start.elapsed();
    assert!(elapsed >= Duration::from_millis(490), "closed after {elapsed:?}");
    assert!(elapsed < Duration::from_millis(2000), "closed after {elapsed:?}");
    wait_until("they are gone", || stage.task.online_count() == 0);
}

#[test]
fn who_is_told_to_go_is_not_online_and_nothing_changes_or_reaches_it() {
    for generation in [Generation::G5, Generation::G6] {
        // Longer than this test may take: nobody answers the close frames.
        let mut config = with_close_timeout(60_000);
        config.netsvr.generation = generation;
        let mut stage = Stage::new(config);
        let mut worker = stage.server.worker(MESSAGE | CLOSE);
        let ids = stage.ids.clone();
        stage.update(0, "s", "42", &["room"]);
        stage.update(1, "s", "42", &["room"]);
        stage.task.send(cmd::FORCE_OFFLINE, &force_offline(&[&ids[0], &ids[1]], ""));
        expect_nobody(&mut stage.task, &ids);
        ids.iter().for_each(|id| disturb(&mut stage.task, id));
        let topics = strings(&["room"]);
        let publish = proto::TopicPublish { topics, data: b"lost"[..].into() };
        stage.task.send(cmd::TOPIC_PUBLISH, &publish);
        stage.task.send(cmd::BROADCAST, &proto::Broadcast { data: b"lost"[..].into() });
        expect_nobody(&mut stage.task, &ids);
        // They are told about while their connections stay.
        let mut gone = BTreeSet::new();
        for _ in 0..2 {
            let close = worker.closed();
            assert_eq!((&*close.session, &*close.customer_id), ("s", "42"));
            assert_eq!(close.topics, ["room"]);
            gone.insert(close.uniq_id);
        }
        assert_eq!(gone, set(&ids));
        for client in &mut stage.clients {
            // A message of a client that was told to go is not forwarded any more (W9).
            client.send_text("late");
            assert_eq!(client.frame().close(), (1008, "forceOffline"));
            client.send_close(1000);
            client.expect_end();
        }
        assert_eq!(worker.online_count(), 0, "the next frame is the answer: no other event came");
    }
}

/// Nobody is in the registry, the index of customers and that of topics.
fn expect_nobody(task: &mut Business, ids: &[String]) {
    assert_eq!(online(task, &[&ids[0], &ids[1]]), strings(&[]));
    assert_eq!(task.online_count(), 0);
    assert_eq!(task.ask::<proto::TopicCountResp>(cmd::TOPIC_COUNT, &()).count, 0);
    assert_eq!(task.ask::<proto::CustomerIdCountResp>(cmd::CUSTOMER_ID_COUNT, &()).count, 0);
    ids.iter().for_each(|id| assert_eq!(info(task, id), None));
}

/// Commands of every kind that name the client.
fn disturb(task: &mut Business, id: &str) {
    let update = proto::ConnInfoUpdate {
        uniq_id: id.to_owned(),
        new_session: "t".to_owned(),
        new_customer_id: "43".to_owned(),
        new_topics: strings(&["other"]),
        data: b"lost"[..].into(),
    };
    task.send(cmd::CONN_INFO_UPDATE, &update);
    let delete = proto::ConnInfoDelete {
        uniq_id: id.to_owned(),
        del_session: true,
        del_customer_id: true,
        del_topic: true,
        data: b"lost"[..].into(),
    };
    task.send(cmd::CONN_INFO_DELETE, &delete);
    task.subscribe(id, &["other"]);
    let topics = strings(&["room"]);
    let unsubscribe =
        proto::TopicUnsubscribe { uniq_id: id.to_owned(), topics, ..Default::default() };
    task.send(cmd::TOPIC_UNSUBSCRIBE, &unsubscribe);
    task.single_cast(id, "lost");
    task.send(cmd::FORCE_OFFLINE, &force_offline(&[id], "lost"));
}

/// What a client does to be closed.
type Misdeed = fn(&mut Client);

#[test]
fn every_close_of_the_gateway_is_told_when_the_close_frame_is_queued() {
    let mut config = with_close_timeout(60_000);
    config.netsvr.customer.heartbeat_interval = Duration::from_millis(300);
    config.netsvr.customer.receive_pack_limit = 1024;
    let server = Server::start(config);
    let mut worker = server.worker(OPEN | CLOSE);
    // Nobody answers the close frame.
    let ways: [(Misdeed, u16); 3] = [
        (|_| {}, 1001),
        (|client| client.write(&masked(0x83, b"")), 1002),
        (|client| client.write(&masked(0x81, &[b'x'; 1025])), 1009),
    ];
    for (provoke, code) in ways {
        let mut client = server.client();
        let id = worker.opened();
        provoke(&mut client);
        assert_eq!(worker.closed().uniq_id, id);
        assert_eq!(client.frame().close().0, code);
    }
}

#[test]
fn nobody_hears_of_connections_that_were_never_opened() {
    let mut config = config_with_admin();
    config.netsvr.customer.max_online = 2;
    let server = Server::start(config);
    let mut worker = server.worker(ALL);
    let address = server.address(CLIENTS);
    let [(mut first, first_id), _second] = [(); 2].map(|()| (server.client(), worker.opened()));
    // Port scan, silent connection, half a request, health check, refused requests, no room.
    drop(Client::tcp(address));
    let mut half = Client::tcp(address);
    half.write(b"GET /netsvr HTTP/1.1\r\n");
    drop(half);
    for request in ["GET / HTTP/1.0\r\n\r\n", "POST / HTTP/1.0\r\n\r\n", "nonsense\r\n\r\n"] {
        let mut client = Client::tcp(address);
        client.write(request.as_bytes());
        assert!(!client.rest().is_empty());
    }
    let mut refused = server.client();
    assert_eq!(refused.frame().close().0, 1013);
    refused.expect_end();
    drop(refused);
    wait_until("all are gone but two clients and the worker", || {
        prometheus_sum(&server, "ringway_connections", "") == 3.0
    });
    assert_eq!(worker.online_count(), 2, "the first frame is the answer: no event came");
    // Who was opened is told about.
    first.send_close(1000);
    assert_eq!(worker.closed().uniq_id, first_id);
}

#[test]
fn every_way_to_leave_is_told_once() {
    let server = Server::start(config_with_admin());
    let mut worker = server.worker(OPEN | CLOSE);
    let leave: [fn(Client); 4] = [
        drop,
        |mut client| {
            client.send_close(1000);
            assert_eq!(client.frame().close().0, 1000);
            client.expect_end();
        },
        |mut client| client.write(&masked(0x83, b"")),
        |mut client| client.write(&masked(0x81, b"half of a frame")[..7]),
    ];
    for leave in leave {
        for _ in 0..5 {
            let client = server.client();
            let id = worker.opened();
            leave(client);
            assert_eq!(worker.closed().uniq_id, id);
        }
    }
    wait_until("all are gone but the worker", || {
        prometheus_sum(&server, "ringway_connections", "") == 1.0
    });
    assert_eq!(worker.online_count(), 0, "no event came twice");
}

#[test]
fn opens_and_resets_leave_nobody_behind() {
    let server = Server::start(config_with_admin());
    let address = server.address(CLIENTS);
    let request = upgrade_request("/netsvr", "");
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let request = request.clone();
            std::thread::spawn(move || {
                for round in 0..250 {
                    let mut client = Client::tcp(address);
                    client.write(request.as_bytes());
                    // Some wait for the answer, which makes their end a regular one.
                    if (thread + round) % 3 == 0 {
                        client.head();
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    let mut task = server.task();
    wait_until("all are gone but this one", || {
        prometheus_sum(&server, "ringway_connections", "") == 1.0
    });
    assert_eq!(task.online_count(), 0);
    let metrics = metrics(&mut task);
    assert_eq!(metrics[&1], metrics[&2]);
}

#[test]
fn a_shutdown_says_goodbye_to_clients_and_tells_workers_about_all_of_them() {
    let Stage { clients, ids, task, server } = Stage::new(config());
    let mut worker = server.worker(CLOSE);
    let clients = clients.map(|mut client| {
        std::thread::spawn(move || {
            client.send_text("last words");
            assert_eq!(client.frame().close(), (1001, "server shutdown"));
            client.send_close(1001);
            client.expect_end();
        })
    });
    let reader = std::thread::spawn(move || {
        let closed = [worker.closed().uniq_id, worker.closed().uniq_id];
        assert_eq!(worker.try_frame(), None, "the gateway ends the connection");
        closed
    });
    assert!(server.stop(), "it drains in time");
    clients.into_iter().for_each(|client| client.join().expect("a goodbye"));
    assert_eq!(set(&reader.join().expect("two events")), set(&ids));
    drop(task);
}

#[test]
fn a_second_gateway_on_the_same_ports_does_not_start() {
    let first = Server::start(config());
    for listener in [CLIENTS, WORKERS, TASKS] {
        let mut second = config();
        second.listeners[listener].bind = first.address(listener);
        let error = Gateway::start(second).err().expect("the port is in use").to_string();
        assert!(error.contains(&first.address(listener).to_string()), "{error}");
        assert!(error.contains("another process has this port"), "{error}");
    }
    // It took none of the connections of the first one.
    for _ in 0..10 {
        expect_silence(&mut first.client());
    }
}

/// A heartbeat interval and how much of it may pass beyond it (W14).
const INTERVAL: Duration = Duration::from_millis(1000);

fn with_heartbeat() -> Server {
    let mut config = with_close_timeout(200);
    config.netsvr.customer.heartbeat_interval = INTERVAL;
    Server::start(config)
}

/// Waits for the timeout; returns how long after `since` it came.
fn timeout(client: &mut Client, since: Instant) -> Duration {
    assert_eq!(client.frame().close(), (1001, "heartbeat timeout"));
    let elapsed = since.elapsed();
    client.expect_end();
    elapsed
}

/// On a machine that is busy with other things a timeout may seem late, but not every time; it is
/// early never.
fn check_timeout(mut measure: impl FnMut() -> Duration) {
    let in_time = (0..4).map(|_| measure()).find(|elapsed| {
        assert!(*elapsed >= INTERVAL - Duration::from_millis(20), "closed after {elapsed:?}");
        *elapsed < INTERVAL.mul_f64(1.1)
    });
    assert!(in_time.is_some(), "closed after much more than {INTERVAL:?} four times");
}

#[test]
fn a_silent_client_is_closed_between_1_and_1_1_intervals() {
    let server = with_heartbeat();
    check_timeout(|| timeout(&mut server.client(), Instant::now()));
}

#[test]
fn any_message_or_ping_starts_the_interval_anew_and_a_pong_does_not() {
    let server = with_heartbeat();
    let beat = |first: u8, payload: &str, counts: bool| {
        let mut client = server.client();
        let opened = Instant::now();
        client.socket.set_read_timeout(Some(INTERVAL.mul_f64(0.6))).expect("valid");
        let read = std::io::Read::read(&mut client.socket, &mut [0; 100]);
        assert!(read.is_err(), "nothing comes for 0.6 intervals");
        client.socket.set_read_timeout(Some(PATIENCE)).expect("valid");
        client.write(&masked(first, payload.as_bytes()));
        let sent = Instant::now();
        if first == 0x89 {
            assert_eq!(client.frame().first, 0x8a);
        }
        timeout(&mut client, if counts { sent } else { opened })
    };
    std::thread::scope(|scope| {
        scope.spawn(|| check_timeout(|| beat(0x81, HEARTBEAT, true)));
        scope.spawn(|| check_timeout(|| beat(0x82, "message", true)));
        scope.spawn(|| check_timeout(|| beat(0x89, "", true)));
        scope.spawn(|| check_timeout(|| beat(0x8a, "", false)));
    });
}
