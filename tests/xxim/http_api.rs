//! Requests over HTTP on the port of the WebSocket (section 7.1).

use std::time::Duration;

use prost::Message;
use ringway::config::model::{OriginMode, Origins, Verifier};
use ringway::protocols::xxim::config::upstream::{XximRoute, XximTarget};
use ringway::protocols::xxim::wire::proto::{CommonReq, CommonResp, GetFriendListReq, RequestBody};
use ringway::wire::worker::{Cmd, proto as netsvr};

use crate::common::{Client, PATIENCE, Server, wait_until};
use crate::support::{Xxim, address, config};
use crate::upstream::Upstream;

const LOGIN: &str = "/v1/user/white/login";
const FRIENDS: &str = "/v1/relation/getFriendList";

fn server(upstream: &str) -> Server {
    let mut config = config(upstream);
    config.xxim_upstreams.http_api = true;
    config.login.verifier = Verifier::Static(vec![("ann".into(), "good".into())]);
    Server::start(config)
}

fn request(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.7\r\n\
         User-Agent: test\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn common(user: &str, token: &str, data: &'static [u8]) -> Vec<u8> {
    CommonReq {
        user_id: user.into(),
        token: token.into(),
        platform: "web".into(),
        ip: "6.6.6.6".into(),
        user_agent: "forged".into(),
        data: data.into(),
        ..CommonReq::default()
    }
    .encode_to_vec()
}

/// Head and body of the next answer.
fn answer(client: &mut Client) -> (String, CommonResp) {
    let head = client.head();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length = length.and_then(|text| text.parse().ok()).expect("a length");
    (head, CommonResp::decode(&*client.bytes(length)).expect("a CommonResp"))
}

#[test]
fn a_request_reaches_the_upstream_as_if_it_came_over_a_websocket() {
    let upstream = Upstream::start();
    let server = server(&upstream.url);
    let mut client = Client::tcp(address(&server));
    for round in 0..3 {
        client.write(&request(FRIENDS, "", &common("ann", "good", b"\x12\x02\x08\x01")));
        let call = upstream.call();
        assert_eq!(call.method, FRIENDS);
        assert_eq!(call.header("x-xxim-user-id"), Some("ann"));
        assert_eq!(call.header("x-xxim-ip"), Some("203.0.113.7"), "not what the client says");
        assert_eq!(call.header("x-xxim-user-agent"), Some("test"));
        assert!(call.body.starts_with(b"\x12\x02\x08\x01\x0a"), "{:?}", call.body);
        assert!(!call.body.windows(7).any(|window| window == b"6.6.6.6"));
        call.answer(b"\x12\x02u2");
        let (head, resp) = answer(&mut client);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{round}: {head}");
        assert!(head.contains("Content-Type: application/x-protobuf\r\n"));
        assert_eq!(
            (resp.code, resp.msg.as_deref(), &*resp.data),
            (0, Some(""), &b"\x12\x02u2"[..])
        );
    }
}

#[test]
fn nobody_is_somebody_else() {
    let upstream = Upstream::start();
    let server = server(&upstream.url);
    let mut client = Client::tcp(address(&server));
    // Neither without credentials, nor with bad ones, nor with `white` outside of the path.
    for (path, user, token) in [
        (FRIENDS, "", ""),
        (FRIENDS, "ann", "bad"),
        ("/v1/relation/getFriendList?/white/", "ann", "bad"),
        ("/v1/relation/getFriendList?/white/", "", ""),
    ] {
        client.write(&request(path, "", &common(user, token, b"")));
        assert_eq!(answer(&mut client).1.code, 4, "{path} {user}");
    }
    // Where no login is needed nobody is told who it is.
    client.write(&request(LOGIN, "", &common("ann", "good", b"")));
    let call = upstream.call();
    assert_eq!((call.header("x-xxim-user-id"), call.header("x-xxim-token")), (None, None));
    assert!(!call.body.windows(3).any(|window| window == b"ann"));
    call.answer(b"");
    assert_eq!(answer(&mut client).1.code, 0);
    assert!(upstream.waits().is_none());
}

#[test]
fn wrong_requests_are_answered_and_refusals_of_backends_passed_on() {
    let upstream = Upstream::start();
    let server = server(&upstream.url);
    let mut client = Client::tcp(address(&server));
    for (path, body) in [
        ("/v1/no/such", common("ann", "good", b"")),
        ("/v1/../etc", Vec::new()),
        (FRIENDS, b"\xff".to_vec()),
    ] {
        client.write(&request(path, "", &body));
        assert_eq!(answer(&mut client).1.code, 3, "{path}");
    }
    client.write(&request("/v1/conn/white/setCxnParams", "", b""));
    assert_eq!(answer(&mut client).1.code, 0, "nothing changes");
    client.write(&request(LOGIN, "", b""));
    let refusal = CommonResp { code: 5, msg: Some("no".into()), ..CommonResp::default() };
    let refusal = refusal.encode_to_vec();
    let field = [&[0x0a, refusal.len() as u8], &*refusal].concat();
    upstream.call().answer(&field);
    let (_, resp) = answer(&mut client);
    assert_eq!((resp.code, resp.msg.as_deref(), resp.data.len()), (5, Some("no"), 0));
    client.write(b"PUT / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 405 "));
    assert_eq!(client.rest(), b"method not allowed");
}

#[test]
fn pieces_pipelines_and_ends() {
    let upstream = Upstream::start();
    let server = server(&upstream.url);
    let mut client = Client::tcp(address(&server));
    let one = request(LOGIN, "", &common("", "", b"\x12\x01a"));
    one.iter().for_each(|byte| client.write(&[*byte]));
    upstream.call().answer(b"");
    assert_eq!(answer(&mut client).1.code, 0);
    let last = request(LOGIN, "Connection: close\r\n", &common("", "", b"\x12\x01b"));
    client.write(&[one, last].concat());
    for _ in 0..2 {
        upstream.call().answer(b"");
    }
    assert_eq!(answer(&mut client).1.code, 0);
    let (head, _) = answer(&mut client);
    assert!(head.contains("Connection: close\r\n"));
    client.expect_end();
}

#[test]
fn browsers_are_let_in_by_their_origin() {
    let server = server("http://127.0.0.1:9");
    let mut client = Client::tcp(address(&server));
    let options =
        |origin: &str| format!("OPTIONS {LOGIN} HTTP/1.1\r\nHost: a\r\nOrigin: {origin}\r\n\r\n");
    client.write(options("http://localhost:3000").as_bytes());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    assert!(head.contains("Access-Control-Allow-Origin: http://localhost:3000\r\n"), "{head}");
    for origin in ["http://localhost.evil.example", "https://evil.example"] {
        client.write(options(origin).as_bytes());
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 204 ") && !head.contains("Access-Control"), "{head}");
    }
}

#[test]
fn with_a_list_of_origins_other_pages_call_nothing() {
    let upstream = Upstream::start();
    let mut config = config(&upstream.url);
    config.xxim_upstreams.http_api = true;
    let origins = Origins::read([".example.com"], OriginMode::Origin);
    config.xxim.allow_origin = origins.expect("a list of origins");
    let server = Server::start(config);
    for method in ["POST", "OPTIONS"] {
        let mut client = Client::tcp(address(&server));
        let call = request(LOGIN, "Origin: https://example.com.evil.example\r\n", b"");
        let call = String::from_utf8(call).expect("ASCII").replacen("POST", method, 1);
        client.write(call.as_bytes());
        let answer = String::from_utf8(client.rest()).expect("ASCII");
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(!answer.contains("Access-Control"), "{answer}");
    }
    for origin in ["Origin: https://app.example.com\r\n", "Origin: http://localhost:1\r\n", ""] {
        let mut client = Client::tcp(address(&server));
        client.write(&request(LOGIN, origin, b""));
        upstream.call().answer(b"");
        let (head, answer) = answer(&mut client);
        assert_eq!(answer.code, 0, "{head}");
        assert_eq!(head.contains("Access-Control-Allow-Origin: "), !origin.is_empty(), "{head}");
    }
    assert!(upstream.waits().is_none(), "what was refused went nowhere");
}

#[test]
fn the_body_of_a_preflight_is_never_taken_for_a_request() {
    let server = server("http://127.0.0.1:9");
    let hidden = request(LOGIN, "", b"");
    let (length, size) = (format!("Content-Length: {}", hidden.len()), hidden.len());
    let chunked = [format!("{size:x}\r\n").as_bytes(), &hidden, b"\r\n0\r\n\r\n"].concat();
    for (line, body) in [(&*length, hidden), ("Transfer-Encoding: chunked", chunked)] {
        let mut client = Client::tcp(address(&server));
        let options = format!("OPTIONS {LOGIN} HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
        client.write(&[options.as_bytes(), &body].concat());
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
        assert!(head.contains("Connection: close\r\n"), "{head}");
        // Whoever comes next over the same proxy gets no answer of somebody else.
        client.expect_end();
    }
}

#[test]
fn it_is_off_unless_wanted_and_clients_that_leave_cost_nothing() {
    let upstream = Upstream::start();
    let off = Server::start(config(&upstream.url));
    let mut client = Client::tcp(address(&off));
    client.write(&request(LOGIN, "", b""));
    assert!(!client.head().starts_with("HTTP/1.1 200 "));
    let server = server(&upstream.url);
    let mut client = Client::tcp(address(&server));
    client.write(&request(LOGIN, "", b""));
    let call = upstream.call();
    drop(client);
    drop(call);
    // The WebSocket is on the same port as ever.
    let mut other = Xxim::open(&server);
    other.set_params("d");
    wait_until("the place is free", || other.ask("n", "/v1/no/such", &[]).code == 4);
}

const WORKER: &str = "/v1/worker/echo";

fn with_workers(timeout: Duration) -> Server {
    let mut config = config("http://127.0.0.1:9");
    config.xxim_upstreams.http_api = true;
    config.login.verifier = Verifier::Static(vec![("ann".into(), "good".into())]);
    let route = XximRoute::new("/v1/worker/", XximTarget::Worker, timeout);
    config.xxim_upstreams.routes.insert(0, route);
    Server::start(config)
}

#[test]
fn a_worker_answers_with_what_it_casts_to_the_request() {
    let server = with_workers(PATIENCE);
    let body = common("ann", "good", b"\x18\x01");
    let asks = || {
        let mut client = Client::tcp(address(&server));
        client.write(&request(WORKER, "", &body));
        client
    };
    assert_eq!(answer(&mut asks()).1.code, 8, "there is no worker");
    let mut worker = server.worker(4);
    for round in 0..3 {
        let mut client = asks();
        let transfer: netsvr::Transfer = worker.expect(Cmd::Transfer.number());
        assert_eq!(transfer.customer_id, "ann");
        let told = RequestBody::decode(transfer.data).expect("a RequestBody");
        assert_eq!((&*told.method, &*told.req_id), (WORKER, ""));
        let own = GetFriendListReq::decode(told.data).expect("it has a CommonReq").common_req;
        let own = own.expect("the gateway's");
        assert_eq!((&*own.user_id, &*own.ip, &*own.user_agent), ("ann", "203.0.113.7", "test"));
        // It is no member: what goes to everybody is no answer.
        worker.send(Cmd::Broadcast.number(), &netsvr::Broadcast { data: "all".into() });
        let data = format!("round {round}").into();
        let cast = netsvr::SingleCast { uniq_id: transfer.uniq_id.clone(), data };
        worker.send(Cmd::SingleCast.number(), &cast);
        // Nobody waits for more.
        let late = netsvr::SingleCast { data: "late".into(), ..cast.clone() };
        worker.send(Cmd::SingleCast.number(), &late);
        let (_, resp) = answer(&mut client);
        assert_eq!((resp.code, resp.msg.as_deref(), resp.data), (0, Some(""), cast.data));
    }
    let mut client = Client::tcp(address(&server));
    client.write(&request(WORKER, "", &common("ann", "bad", b"")));
    assert_eq!(answer(&mut client).1.code, 4);
    // A client that leaves is nobody's any more.
    client.write(&request(WORKER, "", &body));
    let transfer: netsvr::Transfer = worker.expect(Cmd::Transfer.number());
    drop(client);
    let cast = netsvr::SingleCast { uniq_id: transfer.uniq_id, data: "gone".into() };
    worker.send(Cmd::SingleCast.number(), &cast);
    let mut other = Xxim::open(&server);
    other.set_params("d");
}

/// The uniqId of a Transfer names the connection. A request behind it could be another client's: a
/// proxy shares its connections among all of them.
#[test]
fn what_a_worker_casts_late_is_the_answer_to_no_other_request() {
    let server = with_workers(PATIENCE);
    let mut worker = server.worker(4);
    let mut client = Client::tcp(address(&server));
    let body = common("ann", "good", b"");
    client.write(&[request(WORKER, "", &body), request(WORKER, "", &body)].concat());
    let transfer: netsvr::Transfer = worker.expect(Cmd::Transfer.number());
    for data in ["first", "second"] {
        let uniq_id = transfer.uniq_id.clone();
        let cast = netsvr::SingleCast { uniq_id, data: data.into() };
        worker.send(Cmd::SingleCast.number(), &cast);
    }
    let (head, resp) = answer(&mut client);
    assert_eq!(resp.data, "first");
    assert!(head.contains("Connection: close"), "{head}");
    client.expect_end();
}

#[test]
fn a_worker_that_says_nothing_in_time_is_one_that_can_be_asked_again() {
    let server = with_workers(Duration::from_millis(100));
    let mut worker = server.worker(4);
    for _ in 0..2 {
        let mut client = Client::tcp(address(&server));
        client.write(&request(WORKER, "", &common("ann", "good", b"")));
        let transfer: netsvr::Transfer = worker.expect(Cmd::Transfer.number());
        assert_eq!(answer(&mut client).1.code, 8);
        let cast = netsvr::SingleCast { uniq_id: transfer.uniq_id, data: "late".into() };
        worker.send(Cmd::SingleCast.number(), &cast);
        // All shards have answered, so the cast has come before the end.
        worker.online_count();
        client.expect_end();
    }
    let mut client = Client::tcp(address(&server));
    client.write(&request("/v1/conn/keepAlive", "", &common("ann", "good", b"")));
    let (_, resp) = answer(&mut client);
    assert_eq!((resp.code, resp.data.len()), (0, 0), "what came late is nobody's answer");
}

#[test]
fn keep_alive_needs_a_login_here_too() {
    let server = server("http://127.0.0.1:9");
    let mut client = Client::tcp(address(&server));
    for (token, code) in [("", 4), ("bad", 4), ("good", 0)] {
        client.write(&request("/v1/conn/keepAlive", "", &common("ann", token, b"")));
        assert_eq!(answer(&mut client).1.code, code, "{token:?}");
    }
}

#[test]
fn a_request_that_is_under_way_is_answered_before_the_gateway_ends() {
    let upstream = Upstream::start();
    let server = server(&upstream.url);
    let mut client = Client::tcp(address(&server));
    client.write(&request(LOGIN, "", b""));
    let call = upstream.call();
    let gateway = address(&server);
    let ending = std::thread::spawn(move || drop(server));
    wait_until("nobody is let in any more", || std::net::TcpStream::connect(gateway).is_err());
    call.answer(b"\x1a\x01t");
    let (head, resp) = answer(&mut client);
    assert!(head.contains("Connection: close\r\n"), "{head}");
    assert_eq!((resp.code, &*resp.data), (0, &b"\x1a\x01t"[..]));
    client.expect_end();
    ending.join().expect("it ends");
}
