//! The API over HTTP: keep-alive, pipelining, bodies, bad input, users (sections 1.2, 1.3).

use std::io::Write;

use ringway::protocols::connmix::config::User;
use ringway::wire::websocket::mask_frame;
use serde_json::json;

use crate::common::{Client, upgrade_request};
use crate::support::{Api, Peer, config, request};

const SEND: &str = "/v1/mesh/send";
const PUBLISH: &str = "/v1/mesh/publish";

#[test]
fn many_requests_on_one_connection_are_answered_in_order() {
    let api = Api::start();
    let mut http = api.http();
    let clients: Vec<_> = (0..4).map(|_| api.netsvr_client()).collect();
    let mut wanted = Vec::new();
    let mut bytes = String::new();
    for round in 0..50 {
        let (_, client) = &clients[round % clients.len()];
        let body = format!(r#"{{"c":"{client}","d":"{round}"}}"#);
        bytes.push_str(&request("POST", SEND, "", &body));
        wanted.push(json!({"E": null, "r": {"s": true}}));
        bytes.push_str(&request("POST", PUBLISH, "", r#"{"c":"nobody","d":""}"#));
        wanted.push(json!({"E": null, "r": {"s": 0, "f": 0}}));
        bytes.push_str(&request("POST", SEND, "", "[]"));
        wanted.push(json!({"E": {"c": 101, "m": "invalid json"}}));
    }
    // Cut where it hurts: heads and bodies in pieces.
    for piece in bytes.as_bytes().chunks(97) {
        http.write(piece);
    }
    for wanted in wanted {
        let reply = http.reply();
        assert_eq!((reply.status, reply.json()), (200, wanted));
        assert!(reply.head.contains("Content-Type: application/json; charset=utf-8\r\n"));
    }
    for (index, (mut client, _)) in clients.into_iter().enumerate() {
        let numbers = (0..50).filter(|round| round % 4 == index);
        numbers.for_each(|round| assert_eq!(client.frame().text(), round.to_string()));
    }
}

#[test]
fn a_body_may_come_in_chunks_of_any_size() {
    let api = Api::start();
    let (mut client, id) = api.netsvr_client();
    let body = format!(r#"{{"c":"{id}","d":"in chunks"}}"#);
    for size in [1, 2, 7, 1000] {
        let mut http = api.http();
        let head = format!("POST {SEND} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut bytes = head.into_bytes();
        for chunk in body.as_bytes().chunks(size) {
            bytes.extend(format!("{:x};ext=1\r\n", chunk.len()).into_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\nTrailer: x\r\n\r\n");
        bytes.extend(request("GET", "/version", "", "").into_bytes());
        bytes.chunks(3).for_each(|piece| http.write(piece));
        assert_eq!(http.reply().json(), json!({"E": null, "r": {"s": true}}));
        assert_eq!(http.reply().json(), json!({"apis": ["v1"]}), "the next request is found");
        assert_eq!(client.frame().text(), "in chunks");
    }
}

#[test]
fn a_client_that_asks_before_it_sends_a_body_is_told_to_go_on() {
    let api = Api::start();
    let mut http = api.http();
    let body = r#"{"c":"nobody","d":"x"}"#;
    let whole = request("POST", PUBLISH, "Expect: 100-continue\r\n", body);
    let head = whole.len() - body.len();
    http.write(&whole.as_bytes()[..head]);
    assert_eq!(http.reply().status, 100);
    http.write(&whole.as_bytes()[head..]);
    assert_eq!(http.reply().json(), json!({"E": null, "r": {"s": 0, "f": 0}}));
}

#[test]
fn what_is_no_request_is_answered_and_ends_the_connection() {
    let api = Api::start();
    let large = 1 << 20 | 1;
    let head = "POST /v1/mesh/send HTTP/1.1\r\nHost: h\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let cases = [
        ("\0\0\0\0".to_owned(), 400),
        (format!("{head}Content-Length: {large}\r\n\r\n"), 413),
        (format!("{head}Content-Length: 99999999999999999999999\r\n\r\n"), 413),
        (format!("{head}Content-Length: -1\r\n\r\n"), 400),
        (format!("{head}Content-Length: 1, 1\r\n\r\n"), 400),
        (format!("{head}Content-Length: 1\r\nContent-Length: 2\r\n\r\n"), 400),
        (format!("{head}Content-Length: 1\r\n{chunked}"), 400),
        (format!("{head}Transfer-Encoding: gzip\r\n\r\n"), 501),
        (format!("{head}{chunked}x\r\n"), 400),
        (format!("{head}{chunked}5\r\nabcdefg"), 400),
        (format!("{head}{chunked}{large:x}\r\n"), 413),
        (format!("{head}{chunked}{}\r\n", "f".repeat(60)), 413),
        (format!("{head}X: {}\r\n\r\n", "x".repeat(20_000)), 431),
        ("PUT /v1/mesh/send HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc".to_owned(), 405),
    ];
    for (bytes, status) in cases {
        let mut http = api.http();
        // It may be refused, and closed, before all of it is out.
        let _ = http.socket.write_all(bytes.as_bytes());
        let reply = http.reply();
        assert_eq!(reply.status, status, "{}", &bytes[..bytes.len().min(120)]);
        assert_eq!(reply.json()["E"]["c"], 101);
        assert!(reply.head.contains("Connection: close\r\n"), "{}", reply.head);
        assert!(http.try_reply().is_none());
    }
}

#[test]
fn wrong_paths_and_methods_leave_the_connection_open() {
    let api = Api::start();
    let mut http = api.http();
    for (method, path, status, header) in [
        ("GET", "/nothing", 404, ""),
        ("GET", PUBLISH, 405, "Allow: POST\r\n"),
        ("POST", "/version", 405, "Allow: GET, HEAD\r\n"),
        ("GET", "/ws/v1", 426, "Upgrade: websocket\r\n"),
        ("GET", "/version", 200, ""),
    ] {
        let reply = http.ask(method, path, "");
        assert_eq!(reply.status, status, "{method} {path}");
        assert!(reply.head.contains(header), "{}", reply.head);
    }
    http.send("GET", "/version", "Connection: close\r\n", "");
    assert_eq!(http.reply().status, 200);
    assert!(http.try_reply().is_none());
    let mut old = api.http();
    old.write(b"GET /version HTTP/1.0\r\n\r\n");
    assert_eq!(old.reply().status, 200);
    assert!(old.try_reply().is_none());
}

#[test]
fn a_peer_that_ends_its_side_still_gets_its_answers() {
    let api = Api::start();
    let mut http = api.http();
    let clients: Vec<_> = (0..4).map(|_| api.netsvr_client()).collect();
    let body = |client: i64| format!(r#"{{"c":"{client}","d":"x"}}"#);
    let all: String =
        clients.iter().map(|(_, client)| request("POST", SEND, "", &body(*client))).collect();
    http.write(all.as_bytes());
    http.socket.shutdown(std::net::Shutdown::Write).expect("a connected socket");
    clients.iter().for_each(|_| assert_eq!(http.reply().json()["r"]["s"], true));
    assert!(http.try_reply().is_none());
}

#[test]
fn the_metrics_are_served_too() {
    let api = Api::start();
    let mut http = api.http();
    http.ask("GET", "/version", "");
    let reply = http.ask("GET", "/metrics", "");
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("Content-Type: text/plain; version=0.0.4"), "{}", reply.head);
    let text = String::from_utf8(reply.body).expect("UTF-8");
    for name in
        ["ringway_connections", "ringway_queue_messages", "ringway_queue_oldest_age_seconds"]
    {
        assert!(text.contains(&format!("# TYPE {name} gauge")), "{name}");
    }
}

#[test]
fn users_are_asked_for_where_there_are_any() {
    let (mut settings, number) = config();
    let user = |name: &str, write, host| User {
        username: name.to_owned(),
        password: "pass word".to_owned(),
        write,
        host,
    };
    settings.connmix.api.users = vec![
        user("writer", true, [None; 4]),
        user("reader", false, [None; 4]),
        user("elsewhere", true, [Some(10), None, None, None]),
    ];
    let api = Api::start_with(settings, number);
    let mut http = api.http();
    let basic = |name: &str, password: &str| {
        use base64::Engine;
        let both = base64::engine::general_purpose::STANDARD.encode(format!("{name}:{password}"));
        format!("Authorization: Basic {both}\r\n")
    };
    let publish = r#"{"c":"channel1","d":"data"}"#;
    let ask = |headers: &str, method: &str, path: &str, body: &str| {
        let mut http = api.http();
        http.send(method, path, headers, body);
        let reply = http.reply();
        (reply.status, reply.head.clone(), reply.json())
    };
    // H9
    let (status, head, body) = ask("", "POST", PUBLISH, publish);
    assert_eq!((status, &body["E"]["c"]), (401, &json!(101)));
    assert!(head.contains("WWW-Authenticate: Basic realm=\"connmix\"\r\n"), "{head}");
    for (name, password) in
        [("writer", "wrong"), ("writer", ""), ("nobody", "pass word"), ("elsewhere", "pass word")]
    {
        let status = ask(&basic(name, password), "POST", PUBLISH, publish).0;
        assert_eq!(status, 401, "{name}");
    }
    let writer = basic("writer", "pass word");
    let reader = basic("reader", "pass word");
    assert_eq!(ask(&writer, "POST", PUBLISH, publish).0, 200);
    assert_eq!(ask(&reader, "POST", PUBLISH, publish).0, 403);
    assert_eq!(ask(&reader, "GET", "/v1/nodes", "").0, 200);
    http.write(upgrade_request("/ws/v1", "").as_bytes());
    assert_eq!(http.reply().status, 401);
    let query = "/ws/v1?username=reader&password=pass%20word";
    let mut peer = Peer { client: Client::open(api.address, query) };
    peer.send(r#"{"m":"mesh.publish","p":{"c":"x","d":"y"},"i":1}"#);
    assert_eq!(peer.json()["E"]["c"], 101, "a reader can not publish");
    peer.send("ping");
    assert_eq!(peer.text(), "pong");
    let mut peer = Peer { client: Client::open_with(api.address, "/ws/v1", &writer) };
    peer.done(r#"{"m":"mesh.publish","p":{"c":"x","d":"y"},"i":1}"#);
}

#[test]
fn an_upgrade_waits_for_the_answers_before_it() {
    let api = Api::start();
    let clients: Vec<_> = (0..4).map(|_| api.netsvr_client()).collect();
    let mut bytes = String::new();
    for (_, client) in &clients {
        bytes.push_str(&request("POST", SEND, "", &format!(r#"{{"c":"{client}","d":"x"}}"#)));
    }
    bytes.push_str(&upgrade_request("/ws/v1", ""));
    let mut bytes = bytes.into_bytes();
    bytes.extend(mask_frame(0x81, [1, 2, 3, 4], b"ping"));
    let mut http = api.http();
    http.write(&bytes);
    clients.iter().for_each(|_| assert_eq!(http.reply().status, 200));
    let reply = http.reply();
    assert_eq!(reply.status, 101);
    assert!(reply.head.contains("Connection: Upgrade\r\n"), "{}", reply.head);
    assert!(!reply.head.contains("Sec-WebSocket-Protocol"), "{}", reply.head);
    assert_eq!(http.bytes(6), b"\x81\x04pong");
}
