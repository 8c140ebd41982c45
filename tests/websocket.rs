//! What holds for the WebSocket of every protocol, over real sockets: handshakes with
//! sub-protocols, frames that RFC 6455 does not allow, and pages that may not come in.

mod common;

use common::{Client, Server, config, upgrade_request};
use ringway::config::model::{ClientProtocol, OriginMode, Origins, Service};
use ringway::wire::websocket::mask_frame;

/// A path of a listener.
type Place = (usize, &'static str);

const NETSVR: Place = (common::CLIENTS, "/netsvr");
const ECHO: Place = (common::CLIENTS, "/echo");

/// Where each of the others is in the configuration of the demo.
fn places() -> Vec<Place> {
    let config = config();
    let routed = |wanted: fn(&ClientProtocol) -> bool| {
        let has = |service: &Service| match service {
            Service::Http(routes) => routes.iter().any(|route| wanted(&route.protocol)),
            _ => false,
        };
        config.listeners.iter().position(|listener| has(&listener.service)).expect("it is there")
    };
    let api = config.listeners.iter().position(|one| one.service == Service::ConnmixApi);
    let xxim = routed(|protocol| *protocol == ClientProtocol::Xxim);
    vec![
        ECHO,
        (xxim, "/ws"),
        (xxim, "/"),
        (routed(|protocol| *protocol == ClientProtocol::Im), "/im"),
        (routed(|protocol| matches!(protocol, ClientProtocol::Connmix { .. })), "/chat"),
        (api.expect("it is there"), "/ws/v1"),
    ]
}

/// The close frame that these bytes get, whatever comes before it.
fn closed_with(server: &Server, (listener, path): Place, bytes: &[u8]) -> (u16, String) {
    let mut client = Client::open(server.address(listener), path);
    client.write(bytes);
    loop {
        let frame = client.frame();
        if frame.first == 0x88 {
            let (code, reason) = frame.close();
            return (code, reason.to_owned());
        }
    }
}

/// RFC 6455 section 5.2: the minimal number of bytes.
#[test]
fn a_length_in_more_bytes_than_needed_is_refused() {
    let server = Server::start(config());
    let long = [&[0x82, 0x80 | 126, 0, 2][..], &[0; 4], b"ok"].concat();
    let longest = [&[0x82, 0x80 | 127][..], &2_u64.to_be_bytes(), &[0; 4], b"ok"].concat();
    let large = [&[0x82, 0x80 | 127][..], &65_535_u64.to_be_bytes(), &[0; 4]].concat();
    for place in places().into_iter().chain([NETSVR]) {
        for frame in [&long, &longest, &large] {
            let reason = "payload length must have its shortest form".to_owned();
            assert_eq!(closed_with(&server, place, frame), (1002, reason), "{place:?}");
        }
    }
}

/// RFC 6455 section 7.4; netsvr has a table of its own (netsvr section 2.5).
#[test]
fn close_codes_that_no_endpoint_may_send_are_refused() {
    let server = Server::start(config());
    let close = |code: u16| mask_frame(0x88, [4, 3, 2, 1], &code.to_be_bytes());
    let strange = [1004, 1005, 1006, 1015, 1016, 1999, 2999, 5000, 65_535];
    for place in places() {
        for code in [0, 999].into_iter().chain(strange) {
            let reason = "invalid close status code".to_owned();
            let seen = closed_with(&server, place, &close(code));
            assert_eq!(seen, (1002, reason), "{code} at {place:?}");
        }
        for code in [1000, 1001, 1014, 3000, 4999] {
            assert_ne!(closed_with(&server, place, &close(code)).0, 1002, "{code} at {place:?}");
        }
    }
    for code in [1015, 1999, 5000, 65_535] {
        assert_eq!(closed_with(&server, NETSVR, &close(code)), (code, String::new()));
    }
}

/// The sub-protocols of the answer to a handshake with these header lines.
fn accepted(server: &Server, (listener, path): Place, lines: &[&str]) -> Vec<String> {
    let lines = lines.iter().map(|line| format!("Sec-WebSocket-Protocol: {line}\r\n"));
    let mut client = Client::tcp(server.address(listener));
    client.write(upgrade_request(path, &lines.collect::<String>()).as_bytes());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let names = head.lines().filter_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
    names.map(str::to_owned).collect()
}

#[test]
fn the_first_sub_protocol_is_accepted_and_several_lines_are_one_list() {
    let server = Server::start(config());
    for place in places().into_iter().chain([NETSVR]) {
        let im = place.1 == "/im";
        for (lines, first) in [
            (&["chat"][..], "chat"),
            (&["v2.example ,chat"], "v2.example"),
            (&["one", "two"], "one"),
            (&[", one"], "one"),
            (&["", " , ", "two"], "two"),
            (&["not a token, three"], "three"),
        ] {
            let expected = if im { vec![] } else { vec![first] };
            assert_eq!(accepted(&server, place, lines), expected, "{lines:?} at {place:?}");
        }
        for lines in [&["im.v1"][..], &["im.v1, other"], &[",im.v1"], &["im.v1", "chat"]] {
            assert_eq!(accepted(&server, place, lines), ["im.v1"], "{lines:?} at {place:?}");
        }
        assert_eq!(accepted(&server, place, &["chat, im.v1"]).len(), 1, "{place:?}");
        for lines in [&[][..], &[""], &[",,"], &["(no token)"]] {
            assert!(accepted(&server, place, lines).is_empty(), "{lines:?} at {place:?}");
        }
    }
}

/// The status of the answer to a handshake with this origin.
fn status(server: &Server, (listener, path): Place, origin: Option<&str>) -> u16 {
    let line = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
    let mut client = Client::tcp(server.address(listener));
    client.write(upgrade_request(path, &line).as_bytes());
    client.head().split(' ').nth(1).expect("a status").parse().expect("a number")
}

#[test]
fn lists_of_origins_mean_the_same_for_every_protocol() {
    let mut config = config();
    let texts = ["https://example.com", "plain.example", ".domain.example"];
    let list = Origins::read(texts, OriginMode::Origin).expect("a list of origins");
    config.netsvr.customer.allow_origin = list.clone();
    config.xxim.allow_origin = list.clone();
    config.connmix.api.allow_origin = list;
    let server = Server::start(config);
    let listed = |(_, path): &Place| matches!(*path, "/ws" | "/" | "/ws/v1");
    for place in places().into_iter().filter(listed).chain([NETSVR]) {
        for origin in [
            "https://example.com",
            "https://EXAMPLE.com:443",
            "http://plain.example:8080",
            "https://domain.example",
            "https://a.b.domain.example",
        ] {
            assert_eq!(status(&server, place, Some(origin)), 101, "{origin} at {place:?}");
        }
        for origin in [
            "http://example.com",
            "https://example.com:8443",
            "https://www.example.com",
            "https://example.com.evil.example",
            "https://www.plain.example",
            "https://notdomain.example",
            "null",
        ] {
            assert_eq!(status(&server, place, Some(origin)), 403, "{origin} at {place:?}");
        }
        // Clients show where they are from; backends are no pages.
        let expected = if place.1 == "/ws/v1" { 101 } else { 403 };
        assert_eq!(status(&server, place, None), expected, "{place:?}");
    }
}

#[test]
fn without_a_list_clients_of_every_origin_come_in() {
    let server = Server::start(config());
    for place in places().into_iter().filter(|(_, path)| *path != "/ws/v1").chain([NETSVR]) {
        assert_eq!(status(&server, place, Some("https://example.org")), 101, "{place:?}");
        assert_eq!(status(&server, place, None), 101, "{place:?}");
    }
}
