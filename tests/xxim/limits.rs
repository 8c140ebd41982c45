//! Times and bounds (sections 1.5, 1.6 and 4.6).

use std::time::Duration;

use prost::Message;
use ringway::protocols::xxim::wire::proto::PushBody;
use ringway::wire::worker::{Cmd, proto as netsvr};

use crate::common::Server;
use crate::support::{Xxim, config};
use crate::upstream::Upstream;
use crate::vectors::vector;

#[test]
fn parameters_and_logins_have_their_time() {
    let mut config = config("http://127.0.0.1:9");
    config.xxim.params_timeout = Duration::from_millis(300);
    config.xxim.login_timeout = Duration::from_millis(600);
    let server = Server::start(config);
    let mut logged_in = Xxim::login(&server, "u", "d");
    let mut named = Xxim::open(&server);
    named.set_params("d");
    let mut silent = Xxim::open(&server);
    silent.expect_close("C09");
    named.keep_alive_refused();
    named.expect_close("C09");
    logged_in.keep_alive();
}

#[test]
fn a_client_that_answers_no_ping_is_closed_and_one_that_does_stays() {
    let mut config = config("http://127.0.0.1:9");
    config.xxim.ping_interval = Duration::from_millis(100);
    let server = Server::start(config);
    let mut alive = Xxim::login(&server, "u", "d");
    let mut dead = Xxim::login(&server, "v", "d");
    let mut pings = 0;
    let close = loop {
        let frame = dead.client.frame();
        if frame.first == 0x88 {
            break frame;
        }
        assert_eq!((frame.first, frame.payload.len()), (0x89, 0));
        pings += 1;
        // The other one is alive as long as it says something.
        alive.keep_alive();
    };
    assert_eq!(close.close(), (1001, "heartbeat timeout"));
    assert_eq!(pings, 2);
    alive.keep_alive();
}

#[test]
fn with_too_many_requests_under_way_the_client_is_not_read() {
    let upstream = Upstream::start();
    let mut config = config(&upstream.url);
    config.xxim.requests_max = 4;
    let server = Server::start(config);
    let mut client = Xxim::login(&server, "u", "d");
    for number in 0..7 {
        client.request(&number.to_string(), "/v1/relation/getFriendList", b"");
    }
    // Answered by the gateway itself, so it shows how far the client was read.
    client.request("last", "/v1/conn/keepAlive", b"");
    let mut calls: Vec<_> = (0..4).map(|_| upstream.call()).collect();
    let mut answered = Vec::new();
    for _ in 0..3 {
        assert!(upstream.waits().is_none(), "more requests than may be under way");
        let call = calls.remove(0);
        let id = call.header("x-xxim-req-id").map(str::to_owned);
        call.answer(b"");
        answered.push(Some(client.response().req_id));
        assert_eq!(answered.last(), Some(&id));
        calls.push(upstream.call());
    }
    calls.remove(0).answer(b"");
    let mut last = [client.response().req_id, client.response().req_id];
    last.sort();
    assert_eq!(last[1], "last");
    calls.into_iter().for_each(|call| call.answer(b""));
    for _ in 0..3 {
        assert_eq!(client.response().code, 0);
    }
    client.keep_alive();
}

#[test]
fn one_client_that_fills_the_shard_makes_the_others_wait_and_not_fail() {
    let upstream = Upstream::start();
    let mut config = config(&upstream.url);
    config.xxim.shard_requests_max = 2;
    config.runtime.cpus.truncate(1);
    let server = Server::start(config);
    let mut greedy = Xxim::login(&server, "u", "d");
    let mut modest = Xxim::login(&server, "v", "d");
    greedy.request("a", "/v1/relation/getFriendList", b"");
    greedy.request("b", "/v1/relation/getFriendList", b"");
    let calls = [upstream.call(), upstream.call()];
    modest.request("c", "/v1/relation/getFriendList", b"");
    calls.into_iter().for_each(|call| call.answer(b""));
    let call = upstream.call();
    assert_eq!(call.header("x-xxim-user-id"), Some("v"));
    call.answer(b"");
    assert_eq!(modest.response().req_id, "c");
    assert_eq!((greedy.response().code, greedy.response().code), (0, 0));
}

#[test]
fn a_client_whose_keys_come_while_the_shard_is_full_goes_on_when_there_is_room() {
    let upstream = Upstream::start();
    let mut config = config(&upstream.url);
    config.xxim.shard_requests_max = 1;
    config.xxim.crypto.ip_rate = 1;
    config.runtime.cpus.truncate(1);
    let server = Server::start(config);
    let mut greedy = Xxim::login(&server, "u", "d");
    // The keys of the address are used up, so these will come a second later.
    for _ in 0..10 {
        let mut wrong = Xxim::open(&server);
        wrong.send_raw(&vector("N09"));
        wrong.receive();
    }
    let mut other = Xxim::open(&server);
    for request in ["E01", "E03", "E05"] {
        other.send_raw(&vector(request));
    }
    greedy.request("a", "/v1/relation/getFriendList", b"");
    let call = upstream.call();
    assert_eq!(other.receive(), vector("E02"));
    call.answer(b"");
    assert_eq!(greedy.response().code, 0);
    for response in ["E04", "E06"] {
        assert_eq!(other.receive(), vector(response));
    }
}

#[test]
fn a_client_that_leaves_frees_its_place_among_the_requests() {
    let upstream = Upstream::start();
    let mut config = config(&upstream.url);
    config.xxim.shard_requests_max = 1;
    config.runtime.cpus.truncate(1);
    let server = Server::start(config);
    for round in 0..3 {
        let mut client = Xxim::login(&server, "u", "d");
        client.request(&round.to_string(), "/v1/relation/getFriendList", b"");
        let call = upstream.call();
        assert_eq!(call.header("x-xxim-req-id"), Some(&*round.to_string()));
        drop(client);
    }
}

#[test]
fn a_client_that_does_not_read_is_dropped_without_a_word() {
    let mut config = config("http://127.0.0.1:9");
    config.runtime.outbox_bytes_max = 65_536;
    let server = Server::start(config);
    let mut slow = Xxim::login(&server, "slow", "d");
    let mut other = Xxim::login(&server, "other", "d");
    let mut task = server.task();
    // More than the outbox and both sockets hold.
    let data = bytes::Bytes::from(vec![b'x'; 32_768]);
    for _ in 0..1024 {
        let customer_id = "slow".to_owned();
        let cast = netsvr::SingleCastByCustomerId { customer_id, data: data.clone() };
        task.send(Cmd::SingleCastByCustomerId.number(), &cast);
    }
    let expected = PushBody { event: 0, data }.encode_to_vec();
    // Nothing but whole pushes, and perhaps a part of one, before the end of the stream.
    let rest = slow.client.rest();
    let frame = 4 + expected.len();
    assert!(rest.len() < 1024 * frame, "nothing was dropped");
    for message in rest.chunks(frame) {
        let header = [0x82, 126, (expected.len() >> 8) as u8, expected.len() as u8];
        let whole = [&header[..], &expected].concat();
        assert!(whole.starts_with(message), "something else than pushes");
    }
    other.keep_alive();
}

impl Xxim {
    /// Not logged in: the gateway says so, which shows that it reads the connection.
    fn keep_alive_refused(&mut self) {
        assert_eq!(self.ask("k", "/v1/conn/keepAlive", b"").code, 4);
    }
}
