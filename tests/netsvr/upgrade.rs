//! From the request to the 101: every row of specification section 2.2 with its exact bytes, in the
//! corrected form.

use std::time::{Duration, Instant};

use ringway::config::all::Config;
use ringway::config::model::{OriginMode, Origins};
use ringway::wire::worker::proto;

use crate::common::*;
use crate::support::*;

/// The accept value of the key in [`USUAL`] (RFC 6455 section 1.3).
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
                        Upgrade: websocket\r\n";

const USUAL: [(&str, &str); 5] = [
    ("Host", "test"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// A correct request with one header line replaced, added, or left out (`None`).
fn with(name: &str, value: Option<&str>) -> String {
    request("GET /netsvr HTTP/1.1", &[(name, value)])
}

fn request(line: &str, changes: &[(&str, Option<&str>)]) -> String {
    let mut lines: Vec<(&str, Option<&str>)> =
        USUAL.iter().map(|&(name, value)| (name, Some(value))).collect();
    for &(name, value) in changes {
        match lines.iter_mut().find(|line| line.0 == name) {
            Some(line) => line.1 = value,
            None => lines.push((name, value)),
        }
    }
    let mut head = format!("{line}\r\n");
    for (name, value) in lines {
        if let Some(value) = value {
            head += &format!("{name}: {value}\r\n");
        }
    }
    head + "\r\n"
}

/// Everything that comes until the gateway closes.
fn answer(server: &Server, request: impl AsRef<[u8]>) -> String {
    let mut client = Client::tcp(server.address(CLIENTS));
    client.write(request.as_ref());
    String::from_utf8(client.rest()).expect("ASCII")
}

/// The response head of a request that is accepted.
fn switched(server: &Server, request: impl AsRef<[u8]>) -> String {
    let mut client = Client::tcp(server.address(CLIENTS));
    client.write(request.as_ref());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    expect_silence(&mut client);
    head
}

fn refusal(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{body}")
}

fn upgrade_required() -> String {
    "HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\nSec-WebSocket-Version: 13\r\n\r\n\
     Upgrade Required"
        .to_owned()
}

#[test]
fn row_1_a_head_that_does_not_end_gets_nothing_but_the_end_of_its_time() {
    let mut config = config();
    config.runtime.handshake_timeout = Duration::from_millis(300);
    let server = Server::start(config);
    let limit = Duration::from_millis(290);
    for sent in ["", "GET", "GET /netsvr HTTP/1.1\r\nHost: test\r\n", "\r\n"] {
        let start = Instant::now();
        assert_eq!(answer(&server, sent), "", "{sent:?}");
        assert!(start.elapsed() > limit, "{sent:?} was closed after {:?}", start.elapsed());
    }
    // A byte now and then does not buy time.
    let mut client = Client::tcp(server.address(CLIENTS));
    client.write(b"GET /netsvr HTTP/1.1\r\nX: ");
    let elapsed = trickle_until_closed(&mut client.socket, b'x');
    assert!(elapsed > limit && elapsed < Duration::from_secs(5), "closed after {elapsed:?}");
}

#[test]
fn row_2_what_is_not_http_is_a_bad_request() {
    let server = Server::start(config());
    for junk in [
        &b"hello\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET /netsvr\r\n\r\n",
        b"GET /netsvr HTTP/2.0\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET /netsvr HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /netsvr HTTP/1.1\r\nna me: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\0\0\0\x0e~6YOt5rW35piO~\r\n\r\n",
    ] {
        assert_eq!(answer(&server, junk), refusal("400 Bad Request", "Bad Request"), "{junk:?}");
    }
}

#[test]
fn row_3_only_get_is_allowed() {
    let server = Server::start(config());
    for method in ["POST", "OPTIONS", "PUT", "get", "FOO"] {
        let request = request(&format!("{method} /netsvr HTTP/1.1"), &[]);
        let expected = refusal("405 Method Not Allowed", "Method Not Allowed");
        assert_eq!(answer(&server, request), expected, "{method}");
    }
    // A HEAD is answered as a GET without its body; it is never a handshake.
    let head = request("HEAD /netsvr HTTP/1.1", &[]);
    assert_eq!(answer(&server, head), refusal("200 OK", ""));
}

#[test]
fn row_4_without_upgrade_any_path_says_hello() {
    let server = Server::start(config());
    for path in ["/", "/netsvr", "/health?x=1", "/nothing"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(answer(&server, request), refusal("200 OK", "Hello netsvr"), "{path}");
    }
    assert_eq!(answer(&server, "GET / HTTP/1.0\r\n\r\n"), refusal("200 OK", "Hello netsvr"));
}

#[test]
fn row_5_another_path_is_not_found_and_the_query_is_not_part_of_it() {
    let server = Server::start(config());
    for path in ["/", "/netsvr/", "/netsv", "/netsvrx", "/Netsvr", "//netsvr", "/%6eetsvr"] {
        let request = request(&format!("GET {path} HTTP/1.1"), &[]);
        assert_eq!(answer(&server, request), refusal("404 Not Found", "Not Found"), "{path}");
    }
    for target in ["/netsvr", "/netsvr?", "/netsvr?token=1", "/netsvr?a=/b?c"] {
        switched(&server, request(&format!("GET {target} HTTP/1.1"), &[]));
    }
}

#[test]
fn row_6_the_origin_must_contain_an_allowed_part_where_that_is_configured() {
    let mut config = config();
    let parts = Origins::read(["example.com", "://local"], OriginMode::Contains);
    config.netsvr.customer.allow_origin = parts.expect("a list of texts");
    let server = Server::start(config);
    for origin in [None, Some(""), Some("https://example.org"), Some("null")] {
        let expected = refusal("403 Forbidden", "Forbidden");
        assert_eq!(answer(&server, with("Origin", origin)), expected, "{origin:?}");
    }
    for origin in ["https://example.com", "http://www.example.com:8080", "http://localhost"] {
        switched(&server, with("Origin", Some(origin)));
    }
}

#[test]
fn row_6_without_a_list_every_origin_is_allowed() {
    let server = Server::start(config());
    for origin in [None, Some("https://example.org")] {
        switched(&server, with("Origin", origin));
    }
}

#[test]
fn row_7_upgrade_must_be_websocket_in_any_case() {
    let server = Server::start(config());
    for value in ["h2c", "websockets", "web socket"] {
        let expected = refusal("400 Bad Request", "invalid Upgrade header");
        assert_eq!(answer(&server, with("Upgrade", Some(value))), expected, "{value}");
    }
    for value in ["websocket", "WebSocket", "WEBSOCKET"] {
        switched(&server, with("Upgrade", Some(value)));
    }
}

#[test]
fn row_8_connection_is_a_list_of_tokens_in_any_case() {
    let server = Server::start(config());
    for value in [None, Some("keep-alive"), Some("Upgraded"), Some("Up grade"), Some("close")] {
        let expected = refusal("400 Bad Request", "invalid Connection header");
        assert_eq!(answer(&server, with("Connection", value)), expected, "{value:?}");
    }
    for value in
        ["Upgrade", "upgrade", "UPGRADE", "keep-alive, Upgrade", "Upgrade,keep-alive", ",upgrade ,"]
    {
        switched(&server, with("Connection", Some(value)));
    }
    let two_lines = with("Connection", Some("keep-alive\r\nConnection: Upgrade"));
    switched(&server, two_lines);
}

#[test]
fn row_9_the_version_must_be_13() {
    let server = Server::start(config());
    for value in [None, Some("12"), Some("8"), Some(""), Some("13, 8"), Some("013")] {
        let request = with("Sec-WebSocket-Version", value);
        assert_eq!(answer(&server, request), upgrade_required(), "{value:?}");
    }
}

#[test]
fn row_10_malformed_extensions_are_refused() {
    let server = Server::start(config());
    for value in ["permessage-deflate;", "permessage-deflate; =1", "a b", "\"x\"", "x; y=\"", ";"] {
        let request = with("Sec-WebSocket-Extensions", Some(value));
        let expected = refusal("400 Bad Request", "invalid Sec-WebSocket-Extensions header");
        assert_eq!(answer(&server, request), expected, "{value}");
    }
    switched(&server, with("Sec-WebSocket-Extensions", Some("unknown; x=\"y\", other")));
}

#[test]
fn row_11_a_key_is_needed_and_not_looked_into() {
    let server = Server::start(config());
    for value in [None, Some("")] {
        let expected = refusal("400 Bad Request", "missing Sec-WebSocket-Key");
        assert_eq!(answer(&server, with("Sec-WebSocket-Key", value)), expected, "{value:?}");
    }
    let head = switched(&server, with("Sec-WebSocket-Key", Some("not base64!")));
    let expected = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: qNFXnHRWK9gXMY88SCqWaExzK/Q=\r\n\
                    Upgrade: websocket\r\n\r\n";
    assert_eq!(head, expected);
}

#[test]
fn row_12_the_101_is_exactly_this() {
    let server = Server::start(config());
    assert_eq!(switched(&server, request("GET /netsvr HTTP/1.1", &[])), format!("{SWITCHED}\r\n"));
    let mut config = config();
    config.netsvr.customer.compression_level = 1;
    let server = Server::start(config);
    assert_eq!(switched(&server, request("GET /netsvr HTTP/1.1", &[])), format!("{SWITCHED}\r\n"));
    let head = switched(&server, with("Sec-WebSocket-Extensions", Some("permessage-deflate")));
    let expected = format!(
        "{SWITCHED}sec-websocket-extensions: permessage-deflate; server_no_context_takeover; \
         client_no_context_takeover\r\n\r\n"
    );
    assert_eq!(head, expected);
}

#[test]
fn the_first_rule_that_is_broken_decides() {
    let mut config = config();
    let origins = Origins::read(["example.com"], OriginMode::Origin);
    config.netsvr.customer.allow_origin = origins.expect("a list of origins");
    let server = Server::start(config);
    // Everything is wrong; what the answer complained about is repaired before the next try.
    let mut line = "POST /wrong HTTP/1.1";
    let mut headers = vec![
        ("Upgrade", None),
        ("Connection", Some("close")),
        ("Sec-WebSocket-Version", Some("7")),
        ("Sec-WebSocket-Extensions", Some(";")),
        ("Sec-WebSocket-Key", None),
    ];
    let seen =
        |line: &str, headers: &[(&str, Option<&str>)]| answer(&server, request(line, headers));
    assert_eq!(
        seen(line, &headers),
        refusal("405 Method Not Allowed", "Method Not Allowed"),
        "row 3"
    );
    line = "GET /wrong HTTP/1.1";
    assert_eq!(seen(line, &headers), refusal("200 OK", "Hello netsvr"), "row 4");
    headers[0].1 = Some("h2c");
    assert_eq!(seen(line, &headers), refusal("404 Not Found", "Not Found"), "row 5");
    line = "GET /netsvr HTTP/1.1";
    assert_eq!(seen(line, &headers), refusal("403 Forbidden", "Forbidden"), "row 6");
    headers.push(("Origin", Some("http://example.com")));
    let bad = |body| refusal("400 Bad Request", body);
    assert_eq!(seen(line, &headers), bad("invalid Upgrade header"), "row 7");
    headers[0].1 = Some("websocket");
    assert_eq!(seen(line, &headers), bad("invalid Connection header"), "row 8");
    headers[1].1 = Some("Upgrade");
    assert_eq!(seen(line, &headers), upgrade_required(), "row 9");
    headers[2].1 = Some("13");
    assert_eq!(seen(line, &headers), bad("invalid Sec-WebSocket-Extensions header"), "row 10");
    headers[3].1 = None;
    assert_eq!(seen(line, &headers), bad("missing Sec-WebSocket-Key"), "row 11");
    headers[4].1 = Some("dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(switched(&server, request(line, &headers)), format!("{SWITCHED}\r\n"), "row 12");
}

#[test]
fn the_first_offered_sub_protocol_is_accepted() {
    let server = Server::start(config());
    for (offered, accepted) in [
        ("chat", "chat"),
        ("chat, superchat", "chat"),
        (" v2.example ,chat", "v2.example"),
        ("one\r\nSec-WebSocket-Protocol: two", "one"),
        (", two", "two"),
    ] {
        let head = switched(&server, with("Sec-WebSocket-Protocol", Some(offered)));
        let expected = format!("{SWITCHED}Sec-WebSocket-Protocol: {accepted}\r\n\r\n");
        assert_eq!(head, expected, "{offered}");
    }
}

#[test]
fn what_can_not_be_a_sub_protocol_is_not_repeated() {
    let server = Server::start(config());
    for offered in ["", "a b", "\u{e4}", "a=b"] {
        let head = switched(&server, with("Sec-WebSocket-Protocol", Some(offered)));
        assert_eq!(head, format!("{SWITCHED}\r\n"), "{offered}");
    }
}

#[test]
fn frames_in_the_segment_of_the_request_are_handled() {
    let server = Server::start(config());
    let mut worker = server.worker(OPEN | MESSAGE);
    let mut client = Client::tcp(server.address(CLIENTS));
    let mut bytes = upgrade_request("/netsvr", "").into_bytes();
    bytes.extend(masked(0x81, b"early"));
    bytes.extend(masked(0x89, b"ping"));
    let message = masked(0x81, b"in two segments");
    bytes.extend(&message[..7]);
    client.write(&bytes);
    assert_eq!(client.head(), format!("{SWITCHED}\r\n"));
    assert_eq!(client.frame(), Frame { first: 0x8a, payload: b"ping".to_vec() });
    client.write(&message[7..]);
    let opened = worker.opened();
    for data in ["early", "in two segments"] {
        let transfer = worker.transfer();
        assert_eq!((&*transfer.uniq_id, &*transfer.data), (&*opened, data.as_bytes()));
    }
}

#[test]
fn a_head_may_arrive_byte_by_byte() {
    let server = Server::start(config());
    let mut client = Client::tcp(server.address(CLIENTS));
    for byte in upgrade_request("/netsvr", "").bytes() {
        client.write(&[byte]);
    }
    assert_eq!(client.head(), format!("{SWITCHED}\r\n"));
    expect_silence(&mut client);
}

#[test]
fn the_defaults_let_clients_in() {
    let mut config = Config::demo();
    // Only the ports are other ones.
    config.listeners.iter_mut().for_each(|listener| listener.bind.set_port(0));
    config.netsvr.advertise.set_port(0);
    config.admin.bind = None;
    config.xxim_upstreams.push = None;
    assert!(config.netsvr.customer.max_online > 0);
    assert_eq!(config.netsvr.customer.on_open_callback_api, None);
    let server = Server::start(config);
    expect_silence(&mut server.client());
}

/// A correct request of exactly so many bytes.
fn request_of(len: usize) -> String {
    let padding = len - with("X", Some("")).len();
    let request = with("X", Some(&"x".repeat(padding)));
    assert_eq!(request.len(), len);
    request
}

#[test]
fn a_head_of_16_kib_is_accepted_and_a_longer_one_refused() {
    let server = Server::start(config());
    switched(&server, request_of(16_384));
    let body = "Request Header Fields Too Large";
    let expected = refusal(&format!("431 {body}"), body);
    assert_eq!(answer(&server, request_of(16_385)), expected);
    // The end of the head is not waited for.
    assert_eq!(answer(&server, &request_of(20_000)[..16_384]), expected);
    let many = "X: y\r\n".repeat(65);
    let request = format!("GET /netsvr HTTP/1.1\r\n{many}\r\n");
    assert_eq!(answer(&server, request), expected);
}

#[test]
fn the_query_and_the_headers_of_section_2_3_reach_the_business() {
    let server = Server::start(config());
    let mut worker = server.worker(OPEN);
    let address = server.address(CLIENTS);
    let headers = "X-Forwarded-For: 1.2.3.4, 5.6.7.8\r\nX-Forwarded-For: 9.9.9.9\r\n\
                   x-real-ip: 10.0.0.1\r\nCookie: secret\r\n";
    let _client = Client::open_with(address, "/netsvr?token=%20a+b&x", headers);
    let open: proto::ConnOpen6 = worker.expect(cmd::CONN_OPEN);
    assert_eq!(open.raw_query, "token=%20a+b&x");
    assert_eq!(open.x_forwarded_for, "1.2.3.4, 5.6.7.8");
    assert_eq!(open.x_real_ip, "10.0.0.1");
    assert_eq!(open.remote_addr, "127.0.0.1");
    let _plain = Client::open(address, "/netsvr");
    let open: proto::ConnOpen6 = worker.expect(cmd::CONN_OPEN);
    let strings = [open.raw_query, open.x_forwarded_for, open.x_real_ip];
    assert_eq!(strings, ["", "", ""]);
}

/// Section 2.9: a process that starts within the second in which another one ended repeats none of
/// its uniqIds, and its first one can not be guessed. The address in them differs here: both run.
#[test]
fn processes_that_start_in_the_same_second_have_no_uniq_id_in_common() {
    let servers = [Server::start(config()), Server::start(config())];
    let [first, second] = servers.map(|server| {
        let mut worker = server.worker(OPEN);
        let clients: Vec<Client> = (0..40).map(|_| server.client()).collect();
        let ids = clients.iter().map(|_| worker.opened()[20..].to_owned());
        ids.collect::<std::collections::BTreeSet<String>>()
    });
    assert_eq!((first.len(), second.len()), (40, 40), "each is another one");
    assert!(first.is_disjoint(&second), "{first:?} {second:?}");
}
