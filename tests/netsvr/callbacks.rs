//! HTTP callbacks (specification section 7), with a real HTTP server as the application.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use prost::Message;
use ringway::config::all::Config;
use ringway::protocols::netsvr::wire::Generation;
use ringway::wire::worker::proto;

use crate::common::*;
use crate::http_server::*;
use crate::support::*;

const FAILED: (u16, &str) = (1011, "open callback failed");
const UNAUTHORIZED: (u16, &str) = (1008, "unauthorized");

fn with_on_open(application: &HttpServer) -> Config {
    let mut config = config_with_admin();
    config.netsvr.customer.on_open_callback_api = Some(application.url("/onopen?secret=1"));
    config.netsvr.customer.callback_api_deadline = PATIENCE;
    config
}

fn with_on_close(application: &HttpServer) -> Config {
    let mut config = config_with_admin();
    config.netsvr.customer.on_close_callback_api = Some(application.url("/onclose"));
    config.netsvr.customer.callback_api_deadline = PATIENCE;
    config
}

fn allow() -> proto::ConnOpenResp {
    proto::ConnOpenResp { allow: true, ..Default::default() }
}

fn answer(request: Request, response: &proto::ConnOpenResp) {
    request.answer("200 OK", &response.encode_to_vec());
}

/// What the request asks about.
fn asked(request: &Request) -> proto::ConnOpen6 {
    proto::ConnOpen6::decode(&*request.body).expect("a ConnOpen")
}

#[test]
fn the_open_callback_is_a_post_of_the_open_event() {
    let application = HttpServer::start();
    let server = Server::start(with_on_open(&application));
    let mut worker = server.worker(OPEN);
    let headers = "X-Real-IP: 9.9.9.9\r\nX-Forwarded-For: 1.2.3.4\r\n";
    let _client = Client::open_with(server.address(CLIENTS), "/netsvr?token=1", headers);
    let request = application.request();
    assert_eq!(request.line, "POST /onopen?secret=1 HTTP/1.1");
    assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(request.header("accept"), Some("application/x-protobuf"));
    assert_eq!(request.header("content-length"), Some(&*request.body.len().to_string()));
    let open = asked(&request);
    let expected = proto::ConnOpen6 {
        uniq_id: open.uniq_id.clone(),
        raw_query: "token=1".to_owned(),
        x_forwarded_for: "1.2.3.4".to_owned(),
        x_real_ip: "9.9.9.9".to_owned(),
        remote_addr: "127.0.0.1".to_owned(),
    };
    assert_eq!(open, expected);
    answer(request, &allow());
    assert_eq!(worker.expect::<proto::ConnOpen6>(cmd::CONN_OPEN), expected, "and the same event");
}

#[test]
fn generation_5_asks_with_its_own_open_event() {
    let application = HttpServer::start();
    let mut config = with_on_open(&application);
    config.netsvr.generation = Generation::G5;
    let server = Server::start(config);
    let headers = "Sec-WebSocket-Protocol: chat, news\r\n";
    let _client = Client::open_with(server.address(CLIENTS), "/netsvr", headers);
    let open = proto::ConnOpen5::decode(&*application.request().body).expect("a ConnOpen");
    assert_eq!(open.sub_protocol, ["chat", "news"]);
    assert_eq!(open.remote_addr, "127.0.0.1");
}

#[test]
fn who_is_allowed_is_complete_before_it_hears_of_it() {
    let application = HttpServer::start();
    let server = Server::start(with_on_open(&application));
    let mut worker = server.worker(OPEN | MESSAGE);
    let mut task = server.task();
    // Several, so that some are on either shard.
    for number in 0..8 {
        let mut client = server.client();
        let request = application.request();
        let id = asked(&request).uniq_id;
        let response = proto::ConnOpenResp {
            allow: true,
            new_session: "the session".to_owned(),
            new_customer_id: format!("customer {number}"),
            new_topics: strings(&["room", "", "news", "room"]),
            data: id.clone().into_bytes().into(),
        };
        answer(request, &response);
        assert_eq!(client.frame().text(), id);
        // Commands for it work at once, from whichever connection.
        task.single_cast(&id, "hello");
        assert_eq!(client.frame().text(), "hello");
        let publish = proto::TopicPublish { topics: strings(&["news"]), data: b"p"[..].into() };
        task.send(cmd::TOPIC_PUBLISH, &publish);
        assert_eq!(client.frame().text(), "p");
        let info = info(&mut task, &id).expect("it is registered");
        assert_eq!((&*info.session, info.customer_id), ("the session", response.new_customer_id));
        assert_eq!(set(&info.topics), set(&strings(&["room", "news"])));
        assert_eq!(worker.opened(), id);
        drop(client);
        wait_until("it is gone", || task.online_count() == 0);
    }
}

#[test]
fn who_is_allowed_without_anything_gets_nothing() {
    let application = HttpServer::start();
    let server = Server::start(with_on_open(&application));
    let mut client = server.client();
    let request = application.request();
    let id = asked(&request).uniq_id;
    answer(request, &allow());
    let mut task = server.task();
    wait_until("it is open", || task.online_count() == 1);
    assert_eq!(texts_until_mark(&mut task, &mut client, &id), strings(&[]));
    assert_eq!(info(&mut task, &id), Some(proto::ConnInfoRespItem::default()));
}

#[test]
fn who_is_denied_gets_the_data_and_is_closed_and_nobody_hears_of_it() {
    let application = HttpServer::start();
    let server = Server::start(with_on_open(&application));
    let mut worker = server.worker(ALL);
    let denial = |data: &str| proto::ConnOpenResp {
        new_session: "s".to_owned(),
        new_customer_id: "42".to_owned(),
        new_topics: strings(&["room"]),
        data: data.as_bytes().to_vec().into(),
        ..Default::default()
    };
    for (body, data) in [
        (denial("").encode_to_vec(), None),
        (denial("why").encode_to_vec(), Some("why")),
        (Vec::new(), None),
    ] {
        let mut client = server.client();
        client.send_text("held");
        application.request().answer("200 OK", &body);
        if let Some(data) = data {
            assert_eq!(client.frame().text(), data);
        }
        assert_eq!(client.frame().close(), UNAUTHORIZED);
        client.send_close(1008);
        client.expect_end();
    }
    assert_eq!(worker.online_count(), 0, "no event came, nobody is registered");
    let customers: proto::CustomerIdCountResp = worker.ask(cmd::CUSTOMER_ID_COUNT, &());
    assert_eq!(customers.count, 0);
    let metrics = metrics(&mut worker);
    assert_eq!((metrics[&1], metrics[&2]), (0, 0));
}

#[test]
fn a_failed_callback_closes_with_a_fixed_text() {
    let application = HttpServer::start();
    let server = Server::start(with_on_open(&application));
    let mut worker = server.worker(ALL);
    let good = allow().encode_to_vec();
    for (status, body) in [
        ("204 No Content", &[][..]),
        ("201 Created", &good),
        ("500 Internal Server Error", &good),
        ("404 Not Found", b"not here"),
        ("200 OK", b"\x0a\x7f"),
        ("200 OK", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
    ] {
        let mut client = server.client();
        client.send_text("held");
        application.request().answer(status, body);
        assert_eq!(client.frame().close(), FAILED, "{status}");
        client.send_close(1000);
        client.expect_end();
    }
    let mut client = server.client();
    // The connection ends without an answer.
    drop(application.request());
    assert_eq!(client.frame().close(), FAILED);
    assert_eq!(worker.online_count(), 0, "no event came, nobody is registered");
}

#[test]
fn nobody_to_ask_is_a_failure_as_well() {
    let application = HttpServer::start();
    let mut config = with_on_open(&application);
    // Nobody listens on port 1.
    config.netsvr.customer.on_open_callback_api = Some("http://127.0.0.1:1/onopen".to_owned());
    let server = Server::start(config);
    assert_eq!(server.client().frame().close(), FAILED);
}

#[test]
fn an_answer_after_the_deadline_is_a_failure() {
    let application = HttpServer::start();
    let mut config = with_on_open(&application);
    let deadline = Duration::from_millis(300);
    config.netsvr.customer.callback_api_deadline = deadline;
    let server = Server::start(config);
    let start = Instant::now();
    let mut client = server.client();
    let request = application.request();
    assert_eq!(client.frame().close(), FAILED);
    assert!(start.elapsed() >= deadline);
    answer(request, &allow());
    client.send_close(1000);
    client.expect_end();
    assert_eq!(server.task().online_count(), 0);
}

#[test]
fn messages_wait_until_the_open_is_decided() {
    let application = HttpServer::start();
    let server = Server::start(with_on_open(&application));
    let mut worker = server.worker(ALL);
    let mut client = server.client();
    let request = application.request();
    let long = "l".repeat(100_000);
    client.send_text("one");
    client.write(&masked(0x89, b"ping"));
    client.send_text(&long);
    // The gateway has had the time to handle them, if it would: others are served.
    for _ in 0..3 {
        assert_eq!(worker.online_count(), 0, "nothing came to the worker");
    }
    let response = proto::ConnOpenResp { data: b"welcome"[..].into(), ..allow() };
    answer(request, &response);
    assert_eq!(client.frame().text(), "welcome");
    assert_eq!(client.frame(), Frame { first: 0x8a, payload: b"ping".to_vec() });
    let id = worker.opened();
    assert_eq!(&*worker.transfer().data, b"one");
    let transfer = worker.transfer();
    assert_eq!((transfer.uniq_id, transfer.data.len()), (id, long.len()));
}

#[test]
fn a_violation_while_the_open_is_pending_is_found_afterwards() {
    let application = HttpServer::start();
    let server = Server::start(with_on_open(&application));
    let mut worker = server.worker(ALL);
    let mut client = server.client();
    client.send_text("before");
    client.write(&masked(0x83, b""));
    answer(application.request(), &allow());
    assert_eq!(client.frame().close(), (1002, "unsupported opcode"));
    client.expect_end();
    drop(client);
    let id = worker.opened();
    assert_eq!(worker.transfer().uniq_id, id);
    assert_eq!(worker.closed().uniq_id, id);
}

#[test]
fn only_so_many_callbacks_are_under_way_and_the_others_wait_their_turn() {
    let application = HttpServer::start();
    let mut config = with_on_open(&application);
    config.netsvr.customer.callbacks_max = 2;
    config.runtime.cpus.truncate(1);
    let server = Server::start(config);
    let mut worker = server.worker(OPEN);
    let _clients: Vec<Client> = (0..7).map(|_| server.client()).collect();
    let mut under_way = std::collections::VecDeque::new();
    let mut opened = BTreeSet::new();
    for _ in 0..7 {
        under_way.push_back(application.request());
        if under_way.len() < 2 {
            continue;
        }
        assert!(application.request_within(Duration::from_millis(100)).is_none(), "a third came");
        answer(under_way.pop_front().expect("there are two"), &allow());
        opened.insert(worker.opened());
    }
    answer(under_way.pop_front().expect("there is one"), &allow());
    opened.insert(worker.opened());
    assert_eq!(opened.len(), 7);
}

#[test]
fn a_client_that_leaves_while_the_open_is_pending_leaves_no_trace() {
    let application = HttpServer::start();
    let server = Server::start(with_on_open(&application));
    let mut worker = server.worker(OPEN | CLOSE);
    let mut task = server.task();
    let response = proto::ConnOpenResp {
        new_customer_id: "42".to_owned(),
        new_topics: strings(&["room"]),
        data: b"too late"[..].into(),
        ..allow()
    };
    for round in 0..20 {
        let client = server.client();
        let request = application.request();
        if round % 2 == 0 {
            // Leaves with a reset: what it was sent is not read.
            client.socket.set_nonblocking(true).expect("a socket");
        }
        drop(client);
        answer(request, &response);
    }
    wait_until("all connections have come, and are gone but these two", || {
        let sum = |name| prometheus_sum(&server, name, "");
        // Both are of the same moment, which is up to 250 ms ago.
        sum("ringway_connections") == 2.0 && sum("ringway_connections_accepted_total") == 22.0
    });
    assert_eq!(task.online_count(), 0);
    assert_eq!(task.ask::<proto::TopicCountResp>(cmd::TOPIC_COUNT, &()).count, 0);
    let customers: proto::CustomerIdCountResp = task.ask(cmd::CUSTOMER_ID_COUNT, &());
    assert_eq!(customers.count, 0);
    // Whoever was opened in spite of it was closed as well, and the worker heard both.
    let metrics = metrics(&mut task);
    assert_eq!(metrics[&1], metrics[&2]);
    let mut open = BTreeSet::new();
    for _ in 0..metrics[&1] * 2 {
        match worker.frame() {
            (cmd::CONN_OPEN, body) => assert!(open.insert(id_of(&body))),
            (_, body) => assert!(open.remove(&id_of(&body)), "closed before it was opened"),
        }
    }
    assert!(open.is_empty());
}

#[test]
fn a_client_that_leaves_after_its_last_words_is_let_in_for_them() {
    let application = HttpServer::start();
    let server = Server::start(with_on_open(&application));
    let mut worker = server.worker(ALL);
    for _ in 0..10 {
        let mut client = server.client();
        client.send_text("last words");
        let request = application.request();
        drop(client);
        answer(request, &allow());
        let id = worker.opened();
        assert_eq!(&*worker.transfer().data, b"last words");
        assert_eq!(worker.closed().uniq_id, id);
    }
}

#[test]
fn who_is_refused_before_is_not_asked_about() {
    let application = HttpServer::start();
    let mut config = with_on_open(&application);
    config.netsvr.customer.max_online = 1;
    let server = Server::start(config);
    let _first = server.client();
    assert_eq!(server.client().frame().close().0, 1013);
    let _hello = Client::tcp(server.address(CLIENTS));
    let request = application.request();
    assert!(application.request_within(Duration::from_millis(100)).is_none());
    answer(request, &allow());
}

#[test]
fn the_close_callback_comes_before_the_close_event() {
    let application = HttpServer::start();
    let server = Server::start(with_on_close(&application));
    let mut worker = server.worker(OPEN | CLOSE);
    // Several, so that some are on either shard.
    for _ in 0..6 {
        let client = server.client();
        let uniq_id = worker.opened();
        let update = proto::ConnInfoUpdate {
            uniq_id: uniq_id.clone(),
            new_session: "s".to_owned(),
            new_customer_id: "42".to_owned(),
            new_topics: strings(&["room"]),
            ..Default::default()
        };
        worker.send(cmd::CONN_INFO_UPDATE, &update);
        assert_eq!(worker.online_count(), 1);
        drop(client);
        let request = application.request();
        assert_eq!(request.line, "POST /onclose HTTP/1.1");
        assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
        let close = proto::ConnClose::decode(&*request.body).expect("a ConnClose");
        let expected = proto::ConnClose {
            uniq_id,
            customer_id: "42".to_owned(),
            session: "s".to_owned(),
            topics: strings(&["room"]),
        };
        assert_eq!(close, expected);
        // The connection is gone, the event is not out yet.
        assert_eq!(worker.online_count(), 0);
        request.answer("204 No Content", b"");
        assert_eq!(worker.closed(), expected);
    }
}

#[test]
fn whatever_the_close_callback_says_the_close_event_follows() {
    let application = HttpServer::start();
    let mut config = with_on_close(&application);
    config.netsvr.customer.callback_api_deadline = Duration::from_millis(300);
    let server = Server::start(config);
    let mut worker = server.worker(OPEN | CLOSE);
    let mut pending = Vec::new();
    for end in ["500 Internal Server Error", "200 OK", "hang up", "no answer"] {
        let client = server.client();
        let id = worker.opened();
        drop(client);
        let request = application.request();
        match end {
            "hang up" => drop(request),
            "no answer" => pending.push(request),
            status => request.answer(status, &[0xff; 100]),
        }
        assert_eq!(worker.closed().uniq_id, id, "{end}");
    }
    assert!(application.request_within(Duration::from_millis(50)).is_none(), "tried again");
}

#[test]
fn the_close_callback_is_for_those_who_were_opened_only() {
    let application = HttpServer::start();
    let mut config = with_on_close(&application);
    config.netsvr.customer.max_online = 1;
    let server = Server::start(config);
    let mut worker = server.worker(OPEN);
    let client = server.client();
    let id = worker.opened();
    assert_eq!(server.client().frame().close().0, 1013, "refused");
    let mut health = Client::tcp(server.address(CLIENTS));
    health.write(b"GET / HTTP/1.0\r\n\r\n");
    assert!(health.rest().ends_with(b"Hello netsvr"));
    drop(Client::tcp(server.address(CLIENTS)));
    drop(client);
    let request = application.request();
    assert_eq!(proto::ConnClose::decode(&*request.body).map(|close| close.uniq_id), Ok(id));
    request.answer("200 OK", b"");
    assert!(application.request_within(Duration::from_millis(100)).is_none());
}

#[test]
fn a_shutdown_waits_for_close_callbacks_and_the_events_after_them() {
    let application = HttpServer::start();
    let server = Server::start(with_on_close(&application));
    let mut worker = server.worker(OPEN | CLOSE);
    let mut ids = BTreeSet::new();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let mut client = server.client();
            ids.insert(worker.opened());
            std::thread::spawn(move || {
                assert_eq!(client.frame().close(), (1001, "server shutdown"));
                client.send_close(1001);
                client.expect_end();
            })
        })
        .collect();
    let stopping = std::thread::spawn(move || server.stop());
    let requests: Vec<Request> = (0..4).map(|_| application.request()).collect();
    requests.into_iter().for_each(|request| request.answer("204 No Content", b""));
    let closed: BTreeSet<String> = (0..4).map(|_| worker.closed().uniq_id).collect();
    assert_eq!(closed, ids);
    assert_eq!(worker.try_frame(), None);
    assert!(stopping.join().expect("no panic"), "it drains in time");
    clients.into_iter().for_each(|client| client.join().expect("a goodbye"));
}

#[test]
fn a_shutdown_says_goodbye_to_those_whose_open_is_pending() {
    let application = HttpServer::start();
    let mut config = with_on_open(&application);
    config.netsvr.customer.callback_api_deadline = Duration::from_millis(500);
    config.runtime.close_timeout = Duration::from_millis(200);
    let server = Server::start(config);
    let mut worker = server.worker(ALL);
    let mut client = server.client();
    let _pending = application.request();
    let stopping = std::thread::spawn(move || server.stop());
    assert_eq!(client.frame().close(), (1001, "server shutdown"));
    client.expect_end();
    assert!(stopping.join().expect("no panic"), "it drains in time");
    assert_eq!(worker.try_frame(), None, "nobody hears of it");
}
