//! The HTTP head and the WebSocket handshake: every row of netsvr specification section 2.2 with
//! the exact bytes of its answer, and that the cutting of the stream does not matter.

use std::time::Duration;

use proptest::prelude::*;
use ringway::config::model::{ClientProtocol, MessageType, OriginMode, Origins, Route};
use ringway::engine::tenant::Upgrade;
use ringway::protocols::netsvr::config::NetsvrCustomer;
use ringway::shard::upgrade::{Refusal, upgrade};
use ringway::wire::http::date::Date;
use ringway::wire::http::fault::Fault;
use ringway::wire::http::{HEAD_BYTES_MAX, HEADERS_MAX, Request, accept_key, head};

/// A handshake that is accepted. Tests replace or add lines.
const PLAIN: &str = "GET /netsvr HTTP/1.1\r\n\
    Host: gateway\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    \r\n";

/// The answer to it up to where sub-protocol and extensions stand.
const ACCEPTED: &str = "HTTP/1.1 101 Switching Protocols\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
    Upgrade: websocket\r\n";

const DEFLATE: &str = "sec-websocket-extensions: permessage-deflate; \
    server_no_context_takeover; client_no_context_takeover";

fn customer() -> NetsvrCustomer {
    NetsvrCustomer {
        allow_origin: Origins::default(),
        heartbeat_interval: Duration::from_secs(120),
        heartbeat_message: b"~6YOt5rW35piO~".to_vec(),
        max_online: 100_000,
        receive_pack_limit: 2_097_152,
        send_message_type: MessageType::Text,
        compression_level: 1,
        on_open_callback_api: None,
        on_close_callback_api: None,
        callback_api_deadline: Duration::from_secs(3),
        callbacks_max: 100,
        close_callbacks_max: 100,
        limit_window: Duration::from_secs(1),
        limit_window_max_requests: 100,
        limit_zero_window_max_requests: 1000,
    }
}

fn routes() -> Vec<Route> {
    vec![
        Route { path: "/netsvr".to_owned(), protocol: ClientProtocol::Netsvr },
        Route { path: "/echo".to_owned(), protocol: ClientProtocol::Echo },
    ]
}

/// What a listener answers to a complete head.
fn answer_with(bytes: &[u8], customer: &NetsvrCustomer) -> Result<Upgrade, String> {
    let text = |refusal: Refusal, path: Option<&[u8]>, bodiless| {
        text(&refusal.encode(path, &routes(), bodiless, &Date::default()))
    };
    match head(bytes, 0) {
        Ok(Some((request, len))) => {
            assert_eq!(len, bytes.len());
            let bodiless = request.manner().bodiless;
            upgrade(&request, &routes(), customer)
                .map_err(|refusal| text(refusal, Some(request.path), bodiless))
        }
        Err(fault) => Err(text(Refusal::of(fault), None, false)),
        Ok(None) => panic!("the head is complete"),
    }
}

fn answer(head: &str) -> Result<Upgrade, String> {
    answer_with(head.as_bytes(), &customer())
}

fn accept(head: &str) -> Upgrade {
    answer(head).expect("a handshake that is accepted")
}

fn response(opening: &Upgrade) -> String {
    text(&opening.response)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The plain handshake with one more header line.
fn with(line: &str) -> String {
    PLAIN.replace("Host: gateway", &format!("Host: gateway\r\n{line}"))
}

/// Why the bytes are no head, if that is known.
fn fault(bytes: &[u8]) -> Option<Fault> {
    head(bytes, 0).err()
}

/// The request of a complete head.
fn request(bytes: &[u8]) -> (Request<'_>, usize) {
    head(bytes, 0).expect("no fault").expect("a complete head")
}

/// The plain handshake without the lines that start like this.
fn without(name: &str) -> String {
    PLAIN.split_inclusive("\r\n").filter(|line| !line.starts_with(name)).collect()
}

fn refused(status: &str, body: &str) -> Result<Upgrade, String> {
    Err(format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{body}"))
}

// ---- Section 2.2, row by row ----

#[test]
fn row_1_an_incomplete_head_waits_and_a_long_one_is_refused() {
    for end in 0..PLAIN.len() {
        assert!(matches!(head(&PLAIN.as_bytes()[..end], 0), Ok(None)), "{end} bytes");
    }
    let long = with(&format!("A: {}", "a".repeat(HEAD_BYTES_MAX)));
    assert!(matches!(head(&long.as_bytes()[..HEAD_BYTES_MAX - 1], 0), Ok(None)));
    assert_eq!(fault(&long.as_bytes()[..HEAD_BYTES_MAX]), Some(Fault::Head));
    assert_eq!(
        answer(&long),
        refused("431 Request Header Fields Too Large", "Request Header Fields Too Large")
    );
    let most = HEAD_BYTES_MAX - with("A: ").len();
    assert!(answer(&with(&format!("A: {}", "a".repeat(most)))).is_ok());
    assert!(answer(&with(&format!("A: {}", "a".repeat(most + 1)))).is_err());
}

#[test]
fn row_2_what_is_not_http_gets_400() {
    let expected = refused("400 Bad Request", "Bad Request");
    for head in [
        "hello\r\n\r\n",
        "GET /netsvr\r\n\r\n",
        "GET /netsvr HTTP/2.0\r\n\r\n",
        "GET  HTTP/1.1\r\n\r\n",
        "GET /a b HTTP/1.1\r\n\r\n",
        "GET /\x07 HTTP/1.1\r\n\r\n",
        " GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "GET / HTTP/1.1\r\nA : b\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\x01c\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
    ] {
        assert_eq!(answer(head), expected, "{head:?}");
    }
    // A TLS client on a plain port is told at once.
    assert_eq!(fault(&[0x16, 0x03, 0x01]), Some(Fault::RequestLine));
}

#[test]
fn row_3_another_method_gets_405() {
    let expected = refused("405 Method Not Allowed", "Method Not Allowed");
    assert_eq!(answer(&PLAIN.replace("GET", "POST")), expected);
    // A HEAD is answered as a GET without its body; it is never a handshake.
    assert_eq!(answer("HEAD / HTTP/1.1\r\nHost: g\r\n\r\n"), refused("200 OK", ""));
    assert_eq!(answer(&PLAIN.replace("GET", "HEAD")), refused("200 OK", ""));
}

#[test]
fn row_4_no_upgrade_header_is_the_health_check_on_any_path() {
    let expected = refused("200 OK", "Hello netsvr");
    for path in ["/", "/netsvr", "/echo", "/other?x=1"] {
        assert_eq!(answer(&format!("GET {path} HTTP/1.1\r\nHost: g\r\n\r\n")), expected);
    }
    assert_eq!(answer(&without("Upgrade:")), expected);
}

#[test]
fn row_5_the_path_is_compared_without_the_query() {
    let expected = refused("404 Not Found", "Not Found");
    for path in ["/", "/netsvr/", "/netsvr2", "/NETSVR", "http://g/netsvr/"] {
        assert_eq!(answer(&PLAIN.replace("/netsvr", path)), expected, "{path}");
    }
    assert_eq!(accept(PLAIN).raw_query, "");
    let opening = accept(&PLAIN.replace("/netsvr", "/netsvr?token=1%20?&x"));
    assert_eq!(opening.raw_query, "token=1%20?&x");
    assert_eq!(opening.protocol, ClientProtocol::Netsvr);
    assert_eq!(accept(&PLAIN.replace("/netsvr", "ws://g/netsvr?a")).raw_query, "a");
    let opening = accept(&PLAIN.replace("/netsvr", "/echo?"));
    assert_eq!((opening.protocol, &opening.raw_query[..]), (ClientProtocol::Echo, ""));
}

#[test]
fn row_6_the_origin_must_contain_an_allowed_part() {
    let mut customer = customer();
    let parts = Origins::read(["example.com", "localhost"], OriginMode::Contains);
    customer.allow_origin = parts.expect("a list of texts");
    let answer = |head: &str| answer_with(head.as_bytes(), &customer);
    let expected = refused("403 Forbidden", "Forbidden");
    assert_eq!(answer(PLAIN), expected);
    assert_eq!(answer(&with("Origin: http://example.org")), expected);
    assert!(answer(&with("Origin: http://www.example.com:80")).is_ok());
    assert!(answer(&with("origin: localhost")).is_ok());
    // The echo protocol belongs to nobody.
    assert!(answer(&PLAIN.replace("/netsvr", "/echo")).is_ok());
}

#[test]
fn row_7_upgrade_must_be_websocket() {
    let expected = refused("400 Bad Request", "invalid Upgrade header");
    assert_eq!(answer(&PLAIN.replace("websocket", "h2c")), expected);
    assert!(answer(&PLAIN.replace("websocket", "WebSocket")).is_ok());
}

#[test]
fn row_8_connection_must_have_the_token_upgrade() {
    let expected = refused("400 Bad Request", "invalid Connection header");
    assert_eq!(answer(&without("Connection:")), expected);
    assert_eq!(answer(&PLAIN.replace(": Upgrade", ": keep-alive")), expected);
    assert_eq!(answer(&PLAIN.replace(": Upgrade", ": Upgraded")), expected);
    for value in ["upgrade", "UPGRADE", "keep-alive, Upgrade", "keep-alive ,upgrade,"] {
        assert!(answer(&PLAIN.replace(": Upgrade", &format!(": {value}"))).is_ok(), "{value}");
    }
    let two_lines = PLAIN.replace(": Upgrade", ": keep-alive\r\nConnection: Upgrade");
    assert!(answer(&two_lines).is_ok());
}

#[test]
fn row_9_the_version_must_be_13() {
    let expected = "HTTP/1.1 426 Upgrade Required\r\nConnection: close\r\n\
        Sec-WebSocket-Version: 13\r\n\r\nUpgrade Required";
    assert_eq!(answer(&without("Sec-WebSocket-Version:")), Err(expected.to_owned()));
    assert_eq!(answer(&PLAIN.replace(": 13", ": 8")), Err(expected.to_owned()));
}

#[test]
fn row_10_malformed_extensions_are_refused() {
    let expected = refused("400 Bad Request", "invalid Sec-WebSocket-Extensions header");
    for value in [
        ";",
        "permessage-deflate;",
        "permessage-deflate; =10",
        "permessage-deflate; client_max_window_bits=",
        "permessage-deflate client_max_window_bits",
        "permessage-deflate; a=\"b",
        "permessage-deflate; a=\"b c\"",
        "permessage-deflate; a=\"\"",
        "x; a=\"b\\",
        "permessage-deflate, (",
        "perm\u{e9}ssage",
    ] {
        let head = with(&format!("Sec-WebSocket-Extensions: {value}"));
        assert_eq!(answer(&head), expected, "{value}");
    }
}

#[test]
fn row_11_the_key_must_not_be_empty() {
    let expected = refused("400 Bad Request", "missing Sec-WebSocket-Key");
    assert_eq!(answer(&without("Sec-WebSocket-Key:")), expected);
    assert_eq!(answer(&PLAIN.replace("dGhlIHNhbXBsZSBub25jZQ==", " ")), expected);
    assert!(answer(&PLAIN.replace("dGhlIHNhbXBsZSBub25jZQ==", "x")).is_ok());
}

#[test]
fn row_12_the_response_is_exact() {
    let opening = accept(PLAIN);
    assert_eq!(response(&opening), format!("{ACCEPTED}\r\n"));
    assert!(!opening.deflate);
    let opening = accept(&with("Sec-WebSocket-Extensions: permessage-deflate"));
    assert_eq!(response(&opening), format!("{ACCEPTED}{DEFLATE}\r\n\r\n"));
    assert!(opening.deflate);
    let both = "Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: b, a";
    let opening = accept(&with(both));
    let expected = format!("{ACCEPTED}Sec-WebSocket-Protocol: b\r\n{DEFLATE}\r\n\r\n");
    assert_eq!(response(&opening), expected);
}

// ---- What is agreed on and passed on ----

#[test]
fn offers_of_permessage_deflate() {
    let full = format!("{DEFLATE}; server_max_window_bits=15\r\n");
    let plain = format!("{DEFLATE}\r\n");
    for (value, expected) in [
        ("permessage-deflate; client_max_window_bits", &plain[..]),
        ("permessage-deflate;client_max_window_bits=9", &plain),
        ("permessage-deflate; client_max_window_bits=\"1\\0\"", &plain),
        ("Permessage-Deflate ; server_no_context_takeover; client_no_context_takeover", &plain),
        ("x-webkit-deflate-frame, permessage-deflate", &plain),
        (" , permessage-deflate ,", &plain),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", &plain),
        ("permessage-deflate; server_max_window_bits=15", &full),
        ("", ""),
        ("permessage-bzip2; level=9", ""),
        ("permessage-deflate; server_max_window_bits=14", ""),
        ("permessage-deflate; server_max_window_bits", ""),
        ("permessage-deflate; client_max_window_bits=7", ""),
        ("permessage-deflate; client_max_window_bits=16", ""),
        ("permessage-deflate; client_max_window_bits=08", ""),
        ("permessage-deflate; server_no_context_takeover=1", ""),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits", ""),
        ("permessage-deflate; unknown", ""),
    ] {
        let opening = accept(&with(&format!("Sec-WebSocket-Extensions: {value}")));
        assert_eq!(response(&opening), format!("{ACCEPTED}{expected}\r\n"), "{value}");
        assert_eq!(opening.deflate, !expected.is_empty(), "{value}");
    }
}

#[test]
fn level_0_switches_compression_off() {
    let customer = NetsvrCustomer { compression_level: 0, ..customer() };
    let head = with("Sec-WebSocket-Extensions: permessage-deflate");
    let opening = answer_with(head.as_bytes(), &customer).unwrap();
    assert_eq!(response(&opening), format!("{ACCEPTED}\r\n"));
    assert!(!opening.deflate);
}

#[test]
fn sub_protocols_are_listed_and_the_first_is_echoed() {
    let opening =
        accept(&with("Sec-WebSocket-Protocol:  chat.v2 ,,chat\r\nSec-WebSocket-Protocol: x"));
    assert_eq!(opening.sub_protocols, ["chat.v2", "", "chat", "x"]);
    assert_eq!(response(&opening), format!("{ACCEPTED}Sec-WebSocket-Protocol: chat.v2\r\n\r\n"));
    let opening = accept(&with("Sec-WebSocket-Protocol: "));
    assert_eq!(opening.sub_protocols, [""; 0]);
    // What is not a token does not get into the response.
    let opening = accept(&with("Sec-WebSocket-Protocol: a b, c"));
    assert_eq!(opening.sub_protocols, ["a b", "c"]);
    assert_eq!(response(&opening), format!("{ACCEPTED}Sec-WebSocket-Protocol: c\r\n\r\n"));
    // An empty element is none, but business processes are told what was between the commas.
    let opening = accept(&with("Sec-WebSocket-Protocol: , d"));
    assert_eq!(opening.sub_protocols, ["", "d"]);
    assert_eq!(response(&opening), format!("{ACCEPTED}Sec-WebSocket-Protocol: d\r\n\r\n"));
}

#[test]
fn request_data_is_passed_on_verbatim_but_valid() {
    let head = with("X-Forwarded-For: 1.2.3.4, 5.6.7.8\r\nx-forwarded-for: 9\r\nX-Real-IP: ::1");
    let opening = accept(&head);
    // A proxy that adds a line of its own must not be hidden by the line of a client.
    assert_eq!(opening.x_forwarded_for, "1.2.3.4, 5.6.7.8");
    assert_eq!(opening.x_real_ip, "::1");

    let replace = |head: &str| {
        let bytes = head.bytes().map(|byte| if byte == b'~' { 0xff } else { byte });
        bytes.collect::<Vec<u8>>()
    };
    let head = with("X-Forwarded-For: a~\r\nX-Real-IP: ~\r\nSec-WebSocket-Protocol: p~");
    let head = replace(&head.replace("/netsvr", "/netsvr?q=~&r=ä"));
    let opening = answer_with(&head, &customer()).unwrap();
    assert_eq!(opening.raw_query, "q=\u{fffd}&r=ä");
    assert_eq!(opening.x_forwarded_for, "a\u{fffd}");
    assert_eq!(opening.x_real_ip, "\u{fffd}");
    assert_eq!(opening.sub_protocols, ["p\u{fffd}"]);
}

#[test]
fn accept_key_of_rfc_6455() {
    assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

// ---- The head ----

#[test]
fn bytes_behind_the_head_are_left_alone() {
    let stream = [PLAIN.as_bytes(), b"\x81\x80\x01\x02\x03\x04\r\n\r\n"].concat();
    let (request, len) = request(&stream);
    assert_eq!(len, PLAIN.len());
    assert_eq!((request.method, request.target), ("GET", &b"/netsvr"[..]));
    assert_eq!(request.header("HOST"), Some(&b"gateway"[..]));
}

#[test]
fn a_head_that_arrives_byte_by_byte_ends_at_its_last_byte() {
    for end in 1..PLAIN.len() {
        assert!(matches!(head(&PLAIN.as_bytes()[..end], end - 1), Ok(None)), "{end} bytes");
    }
    let whole = head(PLAIN.as_bytes(), PLAIN.len() - 1).expect("no fault");
    assert!(whole.is_some_and(|(_, len)| len == PLAIN.len()));
}

#[test]
fn an_empty_line_before_the_request_is_ignored() {
    assert!(answer(&format!("\r\n{PLAIN}")).is_ok());
    assert!(matches!(head(b"\r", 0), Ok(None)));
    assert!(matches!(head(b"\r\n", 0), Ok(None)));
    assert_eq!(fault(b"\r\n\r\n"), Some(Fault::RequestLine));
    assert_eq!(fault(b"\rG"), Some(Fault::RequestLine));
}

#[test]
fn too_many_headers_are_too_large() {
    let lines = PLAIN.matches("\r\n").count() - 2;
    let more = |n: usize| with(&vec!["A: b"; n - lines].join("\r\n"));
    assert!(answer(&more(HEADERS_MAX)).is_ok());
    assert_eq!(fault(more(HEADERS_MAX + 1).as_bytes()), Some(Fault::Fields));
}

#[test]
fn tokens_are_found_in_every_line_of_a_list() {
    let head = with("A: x, Y\r\nB: z\r\na:z ,w");
    let (request, _) = request(head.as_bytes());
    for token in ["x", "y", "Z", "w"] {
        assert!(request.has_token("A", token), "{token}");
    }
    assert!(!request.has_token("A", "xy"));
    assert!(!request.has_token("C", "x"));
    assert_eq!(request.header_lines("a").collect::<Vec<_>>(), [&b"x, Y"[..], b"z ,w"]);
}

/// What becomes of a stream, as far as a connection cares; `None`: it needs more.
fn outcome(bytes: &[u8], seen: usize) -> Option<Result<(usize, Vec<u8>), Fault>> {
    let request = head(bytes, seen).transpose()?;
    Some(request.map(|(request, len)| (len, request.target.to_vec())))
}

proptest! {
    #[test]
    fn a_head_parses_the_same_however_it_is_cut(
        query in "[ -~]{0,40}",
        line in "[ -~\r\n\u{80}-\u{ff}]{0,60}",
        filler in prop_oneof![Just(0), 16_000..16_600_usize],
        steps in prop::collection::vec(1..4000_usize, 1..40),
    ) {
        let head = with(&format!("{line}: {}", "x".repeat(filler)));
        let stream = head.replace("/netsvr", &format!("/netsvr?{query}")) + "behind\r\n\r\n";
        let stream = stream.as_bytes();
        let mut seen = 0;
        let mut in_pieces = None;
        for step in steps.iter().cycle() {
            let end = (seen + step).min(stream.len());
            in_pieces = outcome(&stream[..end], seen);
            seen = end;
            if in_pieces.is_some() || end == stream.len() {
                break;
            }
        }
        prop_assert_eq!(in_pieces, outcome(stream, 0));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let start = &b"GET /netsvr HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"[..];
        let stream = [start, &bytes, b"\r\n\r\n"].concat();
        if let Ok(Some((request, len))) = head(&stream, 0) {
            prop_assert!(len <= stream.len());
            let _ = upgrade(&request, &routes(), &customer());
        }
    }

    #[test]
    fn any_extensions_header_is_accepted_or_malformed(
        value in "[a-z0-9;=,\" \\\\-]{0,40}",
        prefix in any::<bool>(),
    ) {
        let prefix = if prefix { "permessage-deflate; " } else { "" };
        match answer(&with(&format!("Sec-WebSocket-Extensions: {prefix}{value}"))) {
            Ok(opening) => prop_assert!(opening.response.starts_with(b"HTTP/1.1 101 ")),
            Err(refusal) => prop_assert!(refusal.ends_with("Sec-WebSocket-Extensions header")),
        }
    }
}
