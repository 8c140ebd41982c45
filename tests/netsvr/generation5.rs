//! Where the gateway keeps to generation 6 although the SDKs are of generation 5: the list in
//! README.md. What generation 5 has of its own stands with the rest of its subject.

use std::time::Duration;

use ringway::config::all::Config;
use ringway::protocols::netsvr::wire::Generation;
use ringway::wire::worker::proto;

use crate::common::*;
use crate::support::*;

fn config5() -> Config {
    let mut config = config();
    config.netsvr.generation = Generation::G5;
    config
}

#[test]
fn what_the_gateway_closes_gets_a_close_frame() {
    let mut config = config5();
    // Long enough that all of them have come before one is taken for dead.
    config.netsvr.customer.heartbeat_interval = Duration::from_secs(3);
    let mut stage = Stage::new(config);
    let uniq_ids = vec![stage.ids[0].clone()];
    let message = proto::ForceOffline { uniq_ids, data: b"bye"[..].into() };
    stage.task.send(cmd::FORCE_OFFLINE, &message);
    assert_eq!(stage.clients[0].frame().text(), "bye");
    assert_eq!(stage.clients[0].frame().close(), (1008, "forceOffline"));
    assert_eq!(stage.clients[1].frame().close(), (1001, "heartbeat timeout"));
}

/// The original resets connections beyond MaxOnlineNum.
#[test]
fn a_client_that_is_one_too_many_gets_a_close_frame() {
    let mut config = config5();
    config.netsvr.customer.max_online = 1;
    let server = Server::start(config);
    let _first = server.client();
    assert_eq!(server.client().frame().close().0, 1013);
}

#[test]
fn a_pong_has_what_its_ping_had() {
    let server = Server::start(config5());
    let mut client = server.client();
    client.write(&masked(0x89, b"ping"));
    assert_eq!(client.frame(), Frame { first: 0x8a, payload: b"ping".to_vec() });
}

#[test]
fn a_frame_that_is_not_masked_closes() {
    let server = Server::start(config5());
    let mut client = server.client();
    client.write(b"\x81\x02hi");
    assert_eq!(client.frame().close(), (1002, "client must mask data"));
}

#[test]
fn an_empty_message_of_a_client_reaches_the_worker() {
    let server = Server::start(config5());
    let mut worker = server.worker(MESSAGE);
    let mut client = server.client();
    client.send_text("");
    client.write(&[masked(0x02, b""), masked(0x80, b"")].concat());
    client.send_text("last");
    for expected in ["", "", "last"] {
        assert_eq!(&*worker.transfer().data, expected.as_bytes());
    }
}

#[test]
fn metric_7_counts_whole_frames() {
    let mut stage = Stage::new(config5());
    stage.task.send(cmd::BROADCAST, &proto::Broadcast { data: b"hello"[..].into() });
    stage.clients.iter_mut().for_each(|client| assert_eq!(client.frame().text(), "hello"));
    let answer: proto::MetricsResp = stage.task.ask(cmd::METRICS, &());
    assert_eq!((answer.items[&6].count, answer.items[&7].count), (2, 2 * (2 + 5)));
}

#[test]
fn a_path_is_that_of_the_route_and_nothing_else() {
    let server = Server::start(config5());
    let ask = |head: &str| {
        let mut client = Client::tcp(server.address(CLIENTS));
        client.write(head.as_bytes());
        let answer = String::from_utf8(client.rest()).expect("a text");
        answer.lines().next().unwrap_or_default().to_owned()
    };
    for path in ["/netsvr/", "/netsvr/below", "//netsvr", "/x"] {
        assert_eq!(ask(&upgrade_request(path, "")), "HTTP/1.1 404 Not Found", "{path}");
    }
    // The original says hello only at its path.
    assert_eq!(ask("GET /x HTTP/1.1\r\nHost: a\r\n\r\n"), "HTTP/1.1 200 OK");
}
