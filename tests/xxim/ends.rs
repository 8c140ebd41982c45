//! Requests and the end of their connection, whoever ends it: what is under way is answered before
//! the gateway says goodbye (RFC 6455 section 5.5.1: data may follow the peer's close frame until
//! the own one is sent).

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use prost::Message;
use ringway::config::model::{Listener, ProxyProtocol, Service, Verifier};
use ringway::protocols::xxim::wire::proto::{PushBody, ResponseBody};
use ringway::protocols::xxim::wire::tcp;
use ringway::wire::websocket::mask_frame;
use ringway::wire::worker::{Cmd, proto as netsvr};

use crate::common::{self, PATIENCE, Server, wait_until};
use crate::support::{Xxim, address, config, metric, observed, request, user_params};
use crate::upstream::{Call, Upstream};

const SEND: &str = "/v1/msg/sendMsgList";
const REQUESTS: usize = 5;

/// How a client ends behind its requests: in words, what it sends, whether a FIN follows, and the
/// close frame that it is to get.
type End = (&'static str, &'static [u8], bool, Option<(u16, &'static str)>);

const ENDS: [End; 7] = [
    ("FIN", &[], true, None),
    ("close frame", &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8], false, Some((1000, ""))),
    ("close frame and FIN", &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8], true, Some((1000, ""))),
    ("close frame without a code", &[0x88, 0x80, 0, 0, 0, 0], false, Some((1005, ""))),
    ("unmasked frame", &[0x82, 0x00], false, Some((1002, "client must mask"))),
    ("unmasked frame and FIN", &[0x82, 0x00], true, Some((1002, "client must mask"))),
    (
        "huge frame",
        &[0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4],
        false,
        Some((1009, "read limited")),
    ),
];

fn requests(more: &[u8]) -> Vec<u8> {
    let one = |number| mask_frame(0x82, [1, 2, 3, 4], &request(&format!("{number}"), SEND, b""));
    let mut packet: Vec<u8> = (0..REQUESTS).flat_map(one).collect();
    packet.extend_from_slice(more);
    packet
}

/// One packet, with the FIN in it if there is to be one.
fn send(client: &mut Xxim, packet: &[u8], fin: bool) {
    let socket = &mut client.client.socket;
    rustix::net::sockopt::set_tcp_cork(&*socket, true).expect("a socket");
    socket.write_all(packet).expect("it is read");
    match fin {
        true => socket.shutdown(Shutdown::Write).expect("a socket"),
        false => rustix::net::sockopt::set_tcp_cork(&*socket, false).expect("a socket"),
    }
}

fn calls(upstream: &Upstream) -> Vec<Call> {
    (0..REQUESTS).map(|_| upstream.call()).collect()
}

#[test]
fn requests_before_an_end_are_answered_before_the_goodbye() {
    let upstream = Upstream::start();
    let mut config = config(&upstream.url);
    config.runtime.close_timeout = PATIENCE;
    let server = Server::start(config);
    for (name, end, fin, close) in ENDS {
        let mut client = Xxim::login(&server, "u", name);
        send(&mut client, &requests(end), fin);
        let calls = calls(&upstream);
        // Who has said goodbye has left its place.
        let next = close.is_some().then(|| Xxim::login(&server, "u", name));
        calls.into_iter().rev().for_each(|call| call.answer(b""));
        let answered: HashSet<String> = (0..REQUESTS).map(|_| client.response().req_id).collect();
        assert_eq!(answered.len(), REQUESTS, "{name}");
        if let Some((code, reason)) = close {
            let frame = client.client.frame();
            let (said, text) = match frame.payload.is_empty() {
                true => (1005, ""),
                false => frame.close(),
            };
            assert_eq!((frame.first, said), (0x88, code), "{name}");
            assert!(text.starts_with(reason), "{name}: {text}");
        }
        client.client.expect_end();
        next.into_iter().for_each(|mut next| next.keep_alive());
    }
}

#[test]
fn a_message_that_ends_the_connection_does_not_take_the_answers_before_it() {
    let upstream = Upstream::start();
    let mut config = config(&upstream.url);
    config.runtime.close_timeout = PATIENCE;
    let server = Server::start(config);
    let mut client = Xxim::encrypted(&server);
    client.set_user("u");
    for number in 0..REQUESTS {
        client.request(&number.to_string(), SEND, b"");
    }
    // Not under its keys.
    client.send_raw(b"no ciphertext");
    let calls = calls(&upstream);
    // Nothing of it is read any more.
    client.request("late", SEND, b"");
    calls.into_iter().for_each(|call| call.answer(b""));
    (0..REQUESTS).for_each(|_| assert_ne!(client.response().req_id, "late"));
    assert_eq!(client.client.frame().close().0, 1008);
    client.client.expect_end();
    assert!(upstream.waits().is_none());
}

#[test]
fn the_goodbye_waits_for_answers_no_longer_than_it_may() {
    let upstream = Upstream::start();
    let mut config = config(&upstream.url);
    config.runtime.close_timeout = Duration::from_millis(100);
    let server = Server::start(observed(config));
    for (name, end, fin, close) in ENDS {
        let mut client = Xxim::login(&server, "u", name);
        send(&mut client, &requests(end), fin);
        let calls = calls(&upstream);
        if close.is_some() {
            assert_eq!(client.client.frame().first, 0x88, "{name}");
        }
        client.client.expect_end();
        calls.into_iter().for_each(|call| call.answer(b""));
    }
    let left = || metric(&server, "ringway_connections{", "");
    wait_until("nothing is left of them", || left() == 0.0);
}

#[test]
fn without_a_websocket_the_stream_ends_behind_the_answers() {
    let upstream = Upstream::start();
    let mut config = config(&upstream.url);
    config.runtime.close_timeout = PATIENCE;
    let bind = ([127, 0, 0, 1], 0).into();
    config.listeners.push(Listener {
        bind,
        proxy: ProxyProtocol::Off,
        socket: None,
        tls: None,
        service: Service::XximTcp,
    });
    let at = config.listeners.len() - 1;
    let server = Server::start(config);
    let framed =
        |message: &[u8]| [tcp::begin(tcp::BINARY, message.len()), message.to_vec()].concat();
    for (bad, fin) in [(false, true), (true, false), (true, true)] {
        let mut socket = common::connect(server.address(at));
        let mut packet = Vec::new();
        packet.extend(framed(&request("p", "/v1/conn/white/setCxnParams", b"\x12\x03web")));
        packet.extend(framed(&request(
            "u",
            "/v1/conn/white/setUserParams",
            &user_params("u", "t"),
        )));
        for number in 0..REQUESTS {
            packet.extend(framed(&request(&number.to_string(), SEND, b"")));
        }
        if bad {
            packet.extend_from_slice(&[0xff; 16]);
        }
        rustix::net::sockopt::set_tcp_cork(&socket, true).expect("a socket");
        socket.write_all(&packet).expect("it is read");
        match fin {
            true => socket.shutdown(Shutdown::Write).expect("a socket"),
            false => rustix::net::sockopt::set_tcp_cork(&socket, false).expect("a socket"),
        }
        calls(&upstream).into_iter().for_each(|call| call.answer(b""));
        let mut heard = Vec::new();
        socket.read_to_end(&mut heard).expect("an orderly end");
        assert_eq!(responses(&heard), REQUESTS + 2, "bad: {bad}, FIN: {fin}");
    }
}

/// A drain begins that is waited for elsewhere: returns once no shard accepts any more.
fn drain(server: Server) -> std::thread::JoinHandle<bool> {
    let clients = address(&server);
    let draining = std::thread::spawn(move || server.stop());
    wait_until("the drain begins", || TcpStream::connect(clients).is_err());
    draining
}

#[test]
fn requests_before_a_drain_are_answered_before_the_goodbye() {
    let upstream = Upstream::start();
    let mut config = config(&upstream.url);
    config.runtime.close_timeout = PATIENCE;
    config.runtime.shutdown_timeout = 2 * PATIENCE;
    let server = Server::start(config);
    let mut client = Xxim::login(&server, "u", "d");
    send(&mut client, &requests(&[]), false);
    let calls = calls(&upstream);
    let draining = drain(server);
    calls.into_iter().rev().for_each(|call| call.answer(b""));
    let answered: HashSet<String> = (0..REQUESTS).map(|_| client.response().req_id).collect();
    assert_eq!(answered.len(), REQUESTS);
    assert_eq!(client.client.frame().close(), (1001, "server shutdown"));
    drop(client);
    assert!(draining.join().expect("it ends"), "it did not drain in time");
}

/// What came behind a login that is being verified was received, too.
#[test]
fn a_drain_hears_out_who_waits_for_its_login() {
    let (upstream, verifier) = (Upstream::start(), Upstream::start());
    let mut config = config(&upstream.url);
    config.runtime.close_timeout = PATIENCE;
    config.runtime.shutdown_timeout = 2 * PATIENCE;
    config.login.verifier = Verifier::Http(verifier.url.clone());
    config.login.timeout = PATIENCE;
    let server = Server::start(config);
    let mut client = Xxim::open(&server);
    client.set_params("d");
    let login = request("u", "/v1/conn/white/setUserParams", &user_params("u", "t"));
    let login = mask_frame(0x82, [1, 2, 3, 4], &login);
    send(&mut client, &[login, requests(&[])].concat(), false);
    let asked = verifier.call();
    let draining = drain(server);
    asked.answer(b"");
    calls(&upstream).into_iter().for_each(|call| call.answer(b""));
    (0..=REQUESTS).for_each(|_| assert_eq!(client.response().code, 0));
    assert_eq!(client.client.frame().close(), (1001, "server shutdown"));
    drop(client);
    assert!(draining.join().expect("it ends"), "it did not drain in time");
}

#[test]
fn a_drain_waits_for_answers_no_longer_than_it_may() {
    let (upstream, verifier) = (Upstream::start(), Upstream::start());
    let mut config = config(&upstream.url);
    config.runtime.close_timeout = Duration::from_millis(100);
    config.runtime.shutdown_timeout = PATIENCE;
    config.login.verifier = Verifier::Http(verifier.url.clone());
    config.login.timeout = PATIENCE;
    let server = Server::start(config);
    let mut waits = Xxim::open(&server);
    waits.set_params("w");
    waits.request("u", "/v1/conn/white/setUserParams", &user_params("w", "t"));
    let asked = verifier.call();
    let mut client = Xxim::open(&server);
    client.set_params("d");
    client.request("u", "/v1/conn/white/setUserParams", &user_params("u", "t"));
    verifier.call().answer(b"");
    assert_eq!(client.response().code, 0);
    send(&mut client, &requests(&[]), false);
    let calls = calls(&upstream);
    let draining = drain(server);
    for client in [&mut client, &mut waits] {
        assert_eq!(client.client.frame().close(), (1001, "server shutdown"));
    }
    calls.into_iter().for_each(|call| call.answer(b""));
    asked.answer(b"");
    drop((client, waits));
    assert!(draining.join().expect("it ends"), "it did not drain in time");
}

/// Who is displaced or kicked has left at once, but is told what it asked.
#[test]
fn requests_before_a_kick_are_answered_before_the_goodbye() {
    let upstream = Upstream::start();
    let mut config = config(&upstream.url);
    config.runtime.close_timeout = PATIENCE;
    let server = Server::start(config);
    let mut task = server.task();
    for displaced in [true, false] {
        let mut client = Xxim::login(&server, "u", "d");
        send(&mut client, &requests(&[]), false);
        let calls = calls(&upstream);
        let next = displaced.then(|| Xxim::login(&server, "u", "d"));
        if !displaced {
            let customer_ids = vec!["u".to_owned()];
            let kick = netsvr::ForceOfflineByCustomerId { customer_ids, ..Default::default() };
            task.send(Cmd::ForceOfflineByCustomerId.number(), &kick);
        }
        let left = i32::from(displaced);
        wait_until("it has left", || task.online_count() == left);
        calls.into_iter().rev().for_each(|call| call.answer(b""));
        let answered: HashSet<String> = (0..REQUESTS).map(|_| client.response().req_id).collect();
        assert_eq!(answered.len(), REQUESTS, "displaced: {displaced}");
        let frame = client.client.frame();
        assert_eq!(frame.first, 0x88, "displaced: {displaced}, {frame:?}");
        next.into_iter().for_each(|mut next| next.keep_alive());
    }
}

/// Responses in a stream of whole frames.
fn responses(mut heard: &[u8]) -> usize {
    let mut reader = tcp::FrameReader::default();
    let mut count = 0;
    while let Some(frame) = reader.next(&mut heard, 1 << 20).expect("frames") {
        let push = PushBody::decode(frame.payload).ok().filter(|push| push.event == 2);
        let response = push.and_then(|push| ResponseBody::decode(push.data).ok());
        count += usize::from(response.is_some_and(|response| response.code == 0));
    }
    assert!(heard.is_empty() && !reader.has_kept(), "a part of a frame");
    count
}
