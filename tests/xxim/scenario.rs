//! The conformance scenario (section 8) for both documents, plain and encrypted, byte for byte, and
//! once more with a WebSocket library.

use ringway::config::model::{OriginMode, Origins};
use tungstenite::Message as WsMessage;

use crate::common::{Frame, Server};
use crate::support::{Xxim, address, config};
use crate::upstream::Upstream;
use crate::vectors::vector;

/// A request that goes to the upstream: what that must get, what it answers, what comes back.
fn through(client: &mut Xxim, upstream: &Upstream, names: [&str; 4]) {
    let [request, expected, reply, response] = names;
    client.send(&vector(request));
    let call = upstream.call();
    assert_eq!(call.body, vector(expected), "{request}");
    let reply = if reply.is_empty() { Vec::new() } else { vector(reply).to_vec() };
    call.answer(&reply);
    assert_eq!(client.receive(), vector(response), "{request}");
}

#[test]
fn document_2_in_plain_text() {
    let upstream = Upstream::start();
    let server = Server::start(config(&upstream.url));
    let mut client = Xxim::open(&server);
    client.send(&vector("V06"));
    assert_eq!(client.receive(), vector("V07"));
    let request = crate::support::request("r6", "/v1/relation/getFriendList", &[]);
    client.send(&request);
    assert_eq!(client.receive(), vector("V16"));
    client.send(&vector("V08"));
    let call = upstream.call();
    assert_eq!((&*call.method, &*call.body), ("/v1/user/white/login", &*vector("V08u")));
    assert_eq!(call.header("x-xxim-ip"), Some("203.0.113.7"));
    assert_eq!(call.header("x-xxim-user-id"), None);
    call.answer(&vector("V08r"));
    assert_eq!(client.receive(), vector("V09"));
    client.send(&vector("V10"));
    assert_eq!(client.receive(), vector("V11"));
    client.send(&vector("V12"));
    let call = upstream.call();
    assert_eq!(call.body, vector("V12u"));
    assert_eq!(call.header("x-xxim-user-id"), Some("test123456"));
    call.answer(b"\x12\x02u2\x12\x02u3");
    assert_eq!(client.receive(), vector("V13"));
    through(&mut client, &upstream, ["V14", "V14u", "", "V15"]);
    through(&mut client, &upstream, ["V14v1", "V14u", "", "V15"]);
    client.send(&vector("N08"));
    let call = upstream.call();
    assert_eq!(call.body, vector("V14u"), "what a client says of itself reached the upstream");
    call.answer(b"");
    assert_eq!(client.response().req_id, "n8");
    client.send(&crate::support::request("r7", "/v1/no/such", b""));
    assert_eq!(client.receive(), vector("V17"));
    client.send(&vector("V19"));
    assert_eq!(client.receive(), vector("V19r"));
    assert!(upstream.waits().is_none());
}

#[test]
fn document_1_on_its_own_paths() {
    let upstream = Upstream::start();
    let server = Server::start(config(&upstream.url));
    let mut client = Xxim::open(&server);
    for (request, response) in [("V02", "V03"), ("V04", "V05"), ("V19", "V19r")] {
        client.send(&vector(request));
        assert_eq!(client.receive(), vector(response));
    }
    client.send(&vector("V12"));
    let call = upstream.call();
    assert_eq!(call.header("x-xxim-platform"), Some("ios"));
    assert_eq!(call.header("x-xxim-device-id"), Some("dev-0001"));
    call.answer(b"");
}

#[test]
fn responses_may_overtake_each_other() {
    let upstream = Upstream::start();
    let server = Server::start(config(&upstream.url));
    let mut client = Xxim::login(&server, "u", "d");
    client.request("first", "/v1/relation/getFriendList", b"");
    let first = upstream.call();
    client.request("second", "/v1/relation/getFriendList", b"");
    upstream.call().answer(b"");
    assert_eq!(client.response().req_id, "second");
    first.answer(b"");
    assert_eq!(client.response().req_id, "first");
}

#[test]
fn encrypted_from_the_response_on_and_off_again() {
    let upstream = Upstream::start();
    let server = Server::start(config(&upstream.url));
    let mut client = Xxim::open(&server);
    let steps = [("E01", "E02"), ("E03", "E04"), ("E05", "E06"), ("E08", "E09"), ("V19", "V19r")];
    for (request, response) in steps {
        client.send_raw(&vector(request));
        assert_eq!(client.receive(), vector(response), "{request}");
    }
    // All at once: what follows the keys is read under them.
    let mut client = Xxim::open(&server);
    for (request, _) in steps {
        client.send_raw(&vector(request));
    }
    for (request, response) in steps {
        assert_eq!(client.receive(), vector(response), "{request}");
    }
}

#[test]
fn a_websocket_library_on_both_paths_and_without_compression() {
    let server = Server::start(config("http://127.0.0.1:9"));
    for path in ["ws", "", "?a=b"] {
        let url = format!("ws://{}/{path}", address(&server));
        let (mut socket, response) = tungstenite::connect(url).expect("a WebSocket");
        assert_eq!(response.headers().get("sec-websocket-extensions"), None);
        assert_eq!(socket.read().expect("a greeting"), WsMessage::text("connected"));
        socket.send(WsMessage::text("ping")).expect("sent");
        socket.send(WsMessage::Ping(b"now".to_vec().into())).expect("sent");
        assert_eq!(socket.read().expect("a pong"), WsMessage::Pong(b"now".to_vec().into()));
        for (request, expected) in [("V06", "V07"), ("V10", "V11"), ("V19", "V19r")] {
            socket.send(WsMessage::binary(vector(request))).expect("sent");
            assert_eq!(socket.read().expect("a response"), WsMessage::binary(vector(expected)));
        }
        socket.close(None).expect("a close frame");
        while socket.read().is_ok() {}
    }
}

#[test]
fn other_paths_are_not_found_and_a_plain_get_is_told_to_upgrade() {
    let server = Server::start(config("http://127.0.0.1:9"));
    let ask = |request: &str| {
        let mut client = crate::common::Client::tcp(address(&server));
        client.write(request.as_bytes());
        client.head()
    };
    let head = ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 426 "), "{head}");
    assert!(head.contains("Upgrade: websocket\r\n"), "{head}");
    let other = crate::common::upgrade_request("/other", "");
    assert!(ask(&other).starts_with("HTTP/1.1 404 "));
    assert!(ask("POST /ws HTTP/1.1\r\nHost: a\r\n\r\n").starts_with("HTTP/1.1 405 "));
    let good = crate::common::upgrade_request("/ws", "");
    let head = ask(&good.replace("Version: 13", "Version: 12"));
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert!(head.contains("Sec-WebSocket-Version: 13\r\n"), "{head}");
    assert!(ask(&good.replace("HTTP/1.1", "HTTP/1.0")).starts_with("HTTP/1.1 426 "));
    assert!(ask(&good).starts_with("HTTP/1.1 101 "));
}

#[test]
fn origins_can_be_restricted() {
    let mut config = config("http://127.0.0.1:9");
    let origins = Origins::read(["example.com"], OriginMode::Origin);
    config.xxim.allow_origin = origins.expect("a list of origins");
    let server = Server::start(config);
    for (origin, status) in [("https://example.com", "101"), ("https://example.org", "403")] {
        let mut client = crate::common::Client::tcp(address(&server));
        let headers = format!("Origin: {origin}\r\n");
        client.write(crate::common::upgrade_request("/ws", &headers).as_bytes());
        let head = client.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    }
}

#[test]
fn the_tcp_variant_speaks_the_same_in_its_own_frames() {
    let mut config = config("http://127.0.0.1:9");
    let mut listener = config.listeners[crate::common::WORKERS].clone();
    listener.service = ringway::config::model::Service::XximTcp;
    config.listeners.push(listener);
    let server = Server::start(config);
    let last = server.gateway().addresses().len() - 1;
    let mut socket = crate::common::connect(server.address(last));
    let expect = |socket: &mut std::net::TcpStream, bytes: &[u8]| {
        let mut found = vec![0; bytes.len()];
        std::io::Read::read_exact(socket, &mut found).expect("the gateway writes");
        assert_eq!(found, bytes);
    };
    let framed = |name: &str| {
        let body = vector(name);
        [&(body.len() as u32).to_le_bytes()[..], &2u32.to_le_bytes(), &body].concat()
    };
    expect(&mut socket, &vector("T01"));
    let mut all = framed("V06");
    all.extend(framed("V10"));
    all.extend([1, 0, 0, 0, 1, 0, 0, 0, b'x']);
    all.extend(vector("T02"));
    for piece in all.chunks(7) {
        std::io::Write::write_all(&mut socket, piece).expect("the gateway reads");
    }
    expect(&mut socket, &framed("V07"));
    expect(&mut socket, &framed("V11"));
    expect(&mut socket, &vector("T03"));
    // Keys over TCP.
    std::io::Write::write_all(&mut socket, &framed("E01")).expect("the gateway reads");
    expect(&mut socket, &framed("E02"));
    std::io::Write::write_all(&mut socket, &framed("N01")).expect("the gateway reads");
    assert_eq!(std::io::Read::read(&mut socket, &mut [0]).expect("the end"), 0);
}

#[test]
fn a_client_that_says_goodbye_is_answered() {
    let server = Server::start(config("http://127.0.0.1:9"));
    let mut client = Xxim::open(&server);
    client.client.send_close(1000);
    assert_eq!(client.client.frame(), Frame { first: 0x88, payload: vec![0x03, 0xe8] });
    client.client.expect_end();
}
