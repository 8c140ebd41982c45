//! Events: who gets them and what is in them (specification sections 2.3, 2.9, 3.7, 6.1).

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use ringway::config::all::Config;
use ringway::config::model::WorkerPick;
use ringway::protocols::netsvr::wire::Generation;
use ringway::wire::worker::proto;

use crate::common::*;
use crate::support::*;

fn without_delay() -> Config {
    let mut config = config_with_admin();
    config.netsvr.worker.register_delay = Duration::ZERO;
    config
}

/// The counter of drops for this reason.
fn dropped(server: &Server, reason: &str) -> f64 {
    prometheus_sum(server, "ringway_dropped_total", &format!("reason=\"{reason}\""))
}

fn workers(server: &Server) -> f64 {
    prometheus_sum(server, "ringway_workers", "")
}

#[test]
fn two_workers_on_different_shards_get_the_messages_of_a_client_strictly_in_turn() {
    let server = Server::start(without_delay());
    let mut clients = client_pair(&server, "");
    let [(mut first, _), (mut second, _)] = worker_pair(&server, MESSAGE);
    for (client, _) in &mut clients {
        let texts: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        texts.iter().for_each(|text| client.send_text(text));
        // Whose turn it is at first is open, all that follows is not.
        let (one, other) = (first.transfer().data, second.transfer().data);
        let (mut even, mut odd) = match &*one == b"0" {
            true => ((&mut first, one), (&mut second, other)),
            false => ((&mut second, other), (&mut first, one)),
        };
        for pair in texts.chunks(2) {
            assert_eq!(&*even.1, pair[0].as_bytes());
            assert_eq!(&*odd.1, pair[1].as_bytes());
            if pair[1] != "39" {
                even.1 = even.0.transfer().data;
                odd.1 = odd.0.transfer().data;
            }
        }
    }
}

#[test]
fn each_event_goes_to_one_of_those_who_asked_for_its_kind() {
    let server = Server::start(config());
    let masks = [ALL, OPEN, CLOSE, MESSAGE];
    let readers = Readers::new(masks.map(|events| server.worker(events)).into());
    let count = 40;
    for _ in 0..count {
        let mut client = server.client();
        client.send_text("message");
        client.send_close(1000);
        assert_eq!(client.frame().close().0, 1000);
        client.expect_end();
    }
    let mut shares: HashMap<(usize, u32), usize> = HashMap::new();
    let mut seen = BTreeSet::new();
    for (worker, number, body) in readers.take(3 * count) {
        assert!(seen.insert((number, id_of(&body))), "an event came twice");
        *shares.entry((worker, number)).or_default() += 1;
    }
    let kinds = [cmd::CONN_OPEN, cmd::CONN_CLOSE, cmd::TRANSFER];
    for (worker, kind) in [1, 2, 3].into_iter().zip(kinds) {
        // Turns are taken per shard, so the shares may differ by one for each.
        let (own, other) = (shares[&(worker, kind)], shares[&(0, kind)]);
        assert_eq!(own + other, count, "nobody else got any");
        assert!(own.abs_diff(other) <= 2, "{own} and {other}");
    }
}

#[test]
fn without_a_worker_events_are_dropped_and_counted_and_the_client_stays() {
    let server = Server::start(config_with_admin());
    let mut client = server.client();
    client.send_text("to nobody");
    expect_silence(&mut client);
    wait_until("open and message are counted", || dropped(&server, "no_worker") == 2.0);
    let mut worker = server.worker(MESSAGE);
    client.send_text("to somebody");
    assert_eq!(&*worker.transfer().data, b"to somebody");
    drop(client);
    wait_until("the close is counted", || dropped(&server, "no_worker") == 3.0);
}

#[test]
fn sticky_clients_stay_with_their_worker_and_move_when_it_dies() {
    let mut config = without_delay();
    config.netsvr.worker.pick = WorkerPick::Sticky;
    let server = Server::start(config);
    let readers = Readers::new(worker_pair(&server, ALL).map(|(worker, _)| worker).into());
    let address = server.address(CLIENTS);
    let mut clients: Vec<Client> = (0..40).map(|_| Client::open(address, "/netsvr")).collect();
    for round in 0..5 {
        clients.iter_mut().for_each(|client| client.send_text(&round.to_string()));
    }
    let mut worker_of = HashMap::new();
    for (worker, number, body) in readers.take(40 * 6) {
        let id = id_of(&body);
        let known = *worker_of.entry(id).or_insert(worker);
        assert_eq!(known, worker, "event {number} came to another worker");
    }
    let of_first = worker_of.values().filter(|worker| **worker == 0).count();
    assert!((1..40).contains(&of_first), "both workers have clients: {of_first} of 40");
    readers.kill(0);
    wait_until("it is gone", || workers(&server) == 1.0);
    clients.iter_mut().for_each(|client| client.send_text("again"));
    clients.clear();
    let mut again = BTreeSet::new();
    for (worker, number, body) in readers.take(40 * 2) {
        assert_eq!(worker, 1);
        assert!(again.insert((number, id_of(&body))), "an event came twice");
    }
}

#[test]
fn what_a_worker_was_not_sent_when_it_died_goes_to_the_next() {
    let mut config = config_with_admin();
    // Events wait in the gateway for so long.
    config.netsvr.worker.register_delay = Duration::from_millis(1500);
    let server = Server::start(config);
    let mut clients = client_pair(&server, "");
    let (first, mut second) = (server.worker(MESSAGE), server.worker(MESSAGE));
    for number in 0..10 {
        for (client, _) in &mut clients {
            client.send_text(&number.to_string());
        }
    }
    clients.iter_mut().for_each(|(client, _)| expect_silence(client));
    drop(first);
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        let transfer = second.transfer();
        assert!(seen.insert((transfer.uniq_id, transfer.data)), "a message came twice");
    }
    wait_until("half of them is counted as given again", || {
        prometheus_sum(&server, "ringway_worker_events_rerouted_total", "") == 10.0
    });
}

#[test]
fn a_worker_that_stops_reading_is_closed_and_others_get_its_events() {
    let mut config = without_delay();
    config.netsvr.worker.send_deadline = Duration::from_millis(300);
    config.netsvr.customer.limit_zero_window_max_requests = u32::MAX;
    let server = Server::start(config);
    let mut clients = client_pair(&server, "");
    let [(mut stalled, _), (reading, _)] = worker_pair(&server, MESSAGE);
    let readers = Readers::new(vec![reading]);
    // More than the kernel keeps for the half that goes to the worker that does not read.
    let mut text = "x".repeat(100_000);
    for number in 0..120 {
        for (client, _) in &mut clients {
            text.replace_range(..3, &format!("{number:03}"));
            client.send_text(&text);
        }
    }
    wait_until("it is closed", || workers(&server) == 1.0);
    let mut seen = BTreeSet::new();
    let mut take = |body: &[u8]| {
        let transfer = proto::Transfer::decode(body).expect("a Transfer");
        assert!(seen.insert((transfer.uniq_id, transfer.data.slice(..3))), "it came twice");
    };
    // What was written to it before counts as delivered, and comes to nobody else.
    let (frames, _) = whole_frames(&read_to_end(&mut stalled.socket));
    frames.iter().for_each(|(_, body)| take(body));
    assert!(frames.len() < 120, "it was never stalled");
    readers.take(240 - frames.len()).iter().for_each(|(_, _, body)| take(body));
}

#[test]
fn a_transfer_carries_what_is_known_about_its_client() {
    let mut stage = Stage::new(config());
    let mut worker = stage.server.worker(MESSAGE);
    for client in 0..2 {
        let id = stage.ids[client].clone();
        stage.clients[client].send_text("a");
        let bare =
            proto::Transfer { uniq_id: id.clone(), data: b"a"[..].into(), ..Default::default() };
        assert_eq!(worker.transfer(), bare);
        stage.update(client, "the session", "42", &["room", "news"]);
        stage.info(client);
        stage.clients[client].send_text("b");
        let transfer = worker.transfer();
        assert_eq!(set(&transfer.topics), set(&strings(&["room", "news"])));
        let names = (transfer.uniq_id, transfer.customer_id, transfer.session, transfer.data);
        assert_eq!(names, (id, "42".into(), "the session".into(), b"b"[..].into()));
    }
}

#[test]
fn session_and_topics_can_be_left_out_of_every_transfer() {
    let mut config = config();
    config.netsvr.worker.transfer_session = false;
    config.netsvr.worker.transfer_topics = false;
    let mut stage = Stage::new(config);
    let mut worker = stage.server.worker(MESSAGE | CLOSE);
    stage.update(0, "the session", "42", &["room"]);
    stage.info(0);
    stage.clients[0].send_text("a");
    let expected = proto::Transfer {
        uniq_id: stage.ids[0].clone(),
        customer_id: "42".to_owned(),
        data: b"a"[..].into(),
        ..Default::default()
    };
    assert_eq!(worker.transfer(), expected);
    let Stage { clients, .. } = stage;
    drop(clients);
    let closed = [worker.closed(), worker.closed()];
    let known = closed.iter().find(|close| close.uniq_id == expected.uniq_id);
    assert_eq!(known.map(|close| &*close.session), Some("the session"), "the close has all");
}

#[test]
fn a_close_carries_what_was_known_at_the_end() {
    let mut stage = Stage::new(config());
    let mut worker = stage.server.worker(CLOSE);
    stage.update(0, "s", "42", &["room", "news"]);
    stage.info(0);
    let Stage { clients: [known, anonymous], ids, mut task, server } = stage;
    drop(known);
    let close = worker.closed();
    assert_eq!((&*close.uniq_id, &*close.customer_id, &*close.session), (&*ids[0], "42", "s"));
    assert_eq!(set(&close.topics), set(&strings(&["room", "news"])));
    drop(anonymous);
    let expected = proto::ConnClose { uniq_id: ids[1].clone(), ..Default::default() };
    assert_eq!(worker.closed(), expected);
    // When the event is out the connection has left everything.
    assert_eq!(task.online_count(), 0);
    assert_eq!(task.ask::<proto::TopicCountResp>(cmd::TOPIC_COUNT, &()).count, 0);
    assert_eq!(task.ask::<proto::CustomerIdCountResp>(cmd::CUSTOMER_ID_COUNT, &()).count, 0);
    drop(server);
}

#[test]
fn generation_5_has_sub_protocols_in_its_open_event() {
    let mut config = config();
    config.netsvr.generation = Generation::G5;
    let server = Server::start(config);
    let mut worker = server.worker(OPEN);
    let headers = "Sec-WebSocket-Protocol: chat , superchat\r\nX-Forwarded-For: 1.2.3.4\r\n\
                   X-Real-IP: 9.9.9.9\r\n";
    let client = Client::open_with(server.address(CLIENTS), "/netsvr?token=1", headers);
    let open: proto::ConnOpen5 = worker.expect(cmd::CONN_OPEN);
    let expected = proto::ConnOpen5 {
        uniq_id: open.uniq_id.clone(),
        raw_query: "token=1".to_owned(),
        sub_protocol: strings(&["chat", "superchat"]),
        x_forwarded_for: "1.2.3.4".to_owned(),
        x_real_ip: "9.9.9.9".to_owned(),
        remote_addr: "127.0.0.1".to_owned(),
    };
    assert_eq!(open, expected);
    drop(client);
    let _plain = server.client();
    let open: proto::ConnOpen5 = worker.expect(cmd::CONN_OPEN);
    assert_eq!(open.sub_protocol, strings(&[]));
}

#[test]
fn bytes_that_are_not_utf8_are_replaced() {
    let server = Server::start(config());
    let mut worker = server.worker(OPEN);
    let mut client = Client::tcp(server.address(CLIENTS));
    let mut request = upgrade_request("/netsvr?a=!", "X-Forwarded-For: !\r\nX-Real-IP: !ok\r\n");
    request = request.replacen("Host: test", "Host: test\r\nCookie: \u{20ac}", 1);
    let bytes: Vec<u8> =
        request.bytes().map(|byte| if byte == b'!' { 0xff } else { byte }).collect();
    client.write(&bytes);
    assert!(client.head().starts_with("HTTP/1.1 101 "));
    let open: proto::ConnOpen6 = worker.expect(cmd::CONN_OPEN);
    assert_eq!(open.raw_query, "a=\u{fffd}");
    assert_eq!(open.x_forwarded_for, "\u{fffd}");
    assert_eq!(open.x_real_ip, "\u{fffd}ok");
}

#[test]
fn an_ipv6_peer_has_no_brackets_and_a_mapped_one_is_ipv4() {
    if TcpListener::bind(("::1", 0)).is_err() {
        return eprintln!("skipped: this machine has no IPv6");
    }
    let mut config = config();
    config.listeners[CLIENTS].bind = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let server = Server::start(config);
    let mut worker = server.worker(OPEN);
    let port = server.address(CLIENTS).port();
    let peers = [IpAddr::from(Ipv6Addr::LOCALHOST), IpAddr::from(Ipv4Addr::LOCALHOST)];
    for (peer, expected) in peers.into_iter().zip(["::1", "127.0.0.1"]) {
        let _client = Client::open(SocketAddr::from((peer, port)), "/netsvr");
        let open: proto::ConnOpen6 = worker.expect(cmd::CONN_OPEN);
        assert_eq!(open.remote_addr, expected);
    }
}

/// Opens clients and checks their uniqIds: the address, the time, and that none comes twice.
fn check_ids(server: &Server, prefix: SocketAddrV4) {
    let mut worker = server.worker(OPEN);
    let ip: String = prefix.ip().octets().iter().map(|byte| format!("{byte:02x}")).collect();
    let prefix = format!("{ip}{:04x}", prefix.port());
    let mut ids = BTreeSet::new();
    for _ in 0..20 {
        let _client = server.client();
        let (_, body) = worker.frame();
        let id = id_of(&body);
        assert!(id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
        assert_eq!(id[..12], prefix, "{id}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let time = u64::from_str_radix(&id[12..20], 16).expect("hexadecimal digits");
        assert!(now.abs_diff(time) < 60, "{time} is not about {now}");
        assert!(ids.insert(id), "a uniqId came twice");
    }
}

fn listener(server: &Server, number: usize) -> SocketAddrV4 {
    match server.address(number) {
        std::net::SocketAddr::V4(address) => address,
        std::net::SocketAddr::V6(address) => panic!("{address} is not IPv4"),
    }
}

#[test]
fn a_uniq_id_begins_with_the_task_address_in_generation_6() {
    let server = Server::start(config());
    check_ids(&server, listener(&server, TASKS));
}

#[test]
fn a_uniq_id_begins_with_the_worker_address_in_generation_5() {
    let mut config = config();
    config.netsvr.generation = Generation::G5;
    let server = Server::start(config);
    check_ids(&server, listener(&server, WORKERS));
}

#[test]
fn a_uniq_id_begins_with_the_advertised_address_if_there_is_one() {
    let mut config = config();
    config.netsvr.advertise = SocketAddrV4::new([10, 20, 30, 40].into(), 6062);
    let server = Server::start(config);
    check_ids(&server, SocketAddrV4::new([10, 20, 30, 40].into(), 6062));
    // Commands find the connection under this id; another address in front names nobody.
    let [(mut client, id), _other] = client_pair(&server, "");
    let mut task = server.task();
    task.single_cast(&format!("7f000001{}", &id[8..]), "not for you");
    assert_eq!(texts_until_mark(&mut task, &mut client, &id), strings(&[]));
}
