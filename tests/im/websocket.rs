//! The protocol over WebSocket (section 13).

use ringway::wire::websocket::mask_frame;

use crate::common::{Client, Server};
use crate::support::*;

#[test]
fn a_binary_message_holds_one_frame_or_several() {
    let server = Server::start(config());
    let mut guest = Im::websocket(&server);
    guest.write(&sent("V1"));
    assert_eq!(guest.client().frame().payload, got("V1"));
    guest.write(&[sent("V5"), sent("V4")].concat());
    assert_eq!(guest.client().frame().payload, got("V5"));
    assert_eq!(guest.client().frame().payload, got("V4"), "one frame per message");
    guest.write(&sent("V14"));
    guest.expect_close(1000);
}

#[test]
fn a_message_must_end_with_a_frame() {
    let server = Server::start(config());
    let mut split = Im::websocket(&server);
    let v1 = sent("V1");
    split.write(&v1[..5]);
    split.write(&v1[5..]);
    split.expect_close(1002);
    let mut empty = Im::websocket(&server);
    empty.write(&[]);
    empty.expect_close(1002);
    let mut behind = Im::websocket(&server);
    behind.log_in_as_guest();
    behind.write(&[sent("V4"), sent("V5")[..12].to_vec()].concat());
    assert_eq!(behind.response().bare(), (2, PONG, 0));
    behind.expect_close(1002);
}

/// Frames of one message wait for the LOGIN in front of them.
#[test]
fn what_follows_a_login_in_its_message_comes_after_it() {
    let server = Server::start(config());
    let mut user = Im::websocket(&server);
    user.write(&[sent("V2"), sent("V5")].concat());
    user.write(&sent("V4"));
    assert_eq!(user.response().bare(), (1, LOGIN, 0));
    assert_eq!(user.response().bare(), (3, JOIN, 0));
    assert_eq!(user.response().bare(), (2, PONG, 0));
    let mut cut = Im::websocket(&server);
    cut.write(&[sent("V2"), sent("V5")[..12].to_vec()].concat());
    assert_eq!(cut.response().bare(), (1, LOGIN, 0));
    cut.expect_close(1002);
}

#[test]
fn text_is_refused() {
    let server = Server::start(config());
    let mut guest = Im::websocket(&server);
    guest.client().send_text("hello");
    guest.expect_close(1003);
}

#[test]
fn close_codes_say_why() {
    let server = Server::start(config());
    let mut not_login = Im::websocket(&server);
    not_login.write(&sent("E1"));
    not_login.expect_close(1008);
    let mut version = Im::websocket(&server);
    version.write(&sent("E2"));
    assert_eq!(version.client().frame().payload, got("E2"));
    version.expect_close(1002);
    for (number, code) in [("E6", 1009), ("E8", 1009), ("E12", 1002)] {
        let mut guest = Im::websocket(&server);
        guest.log_in_as_guest();
        guest.write(&sent(number));
        assert_eq!(guest.client().frame().payload, got(number));
        guest.expect_close(code);
    }
    let mut large = Im::websocket(&server);
    large.write(&vec![0; 262_145]);
    large.expect_close(1009);
}

#[test]
fn the_subprotocol_is_selected_if_it_is_offered() {
    let server = Server::start(config());
    let head = |headers: &str| {
        let mut client = Client::tcp(websocket_address(&server));
        client.write(crate::common::upgrade_request("/im", headers).as_bytes());
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        head.to_lowercase()
    };
    assert!(!head("").contains("sec-websocket-protocol"));
    assert!(!head("Sec-WebSocket-Protocol: chat\r\n").contains("sec-websocket-protocol"));
    let offered = "Sec-WebSocket-Protocol: chat, im.v1\r\n\
                   Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let head = head(offered);
    assert!(head.contains("sec-websocket-protocol: im.v1\r\n"), "{head}");
    assert!(!head.contains("extensions"), "{head}");
}

#[test]
fn rooms_span_tcp_and_websocket() {
    let server = Server::start(config());
    let mut tcp = Im::member(&server, "u1001", "room-7");
    let mut websocket = Im::websocket(&server);
    websocket.log_in("u2002");
    websocket.join("room-7");
    tcp.say("room-7", "over TCP");
    let expected = ("u1001".to_owned(), "over TCP".to_owned());
    assert_eq!(websocket.messages("room-7", 1), [expected]);
    websocket.say("room-7", "over WebSocket");
    let expected = ("u2002".to_owned(), "over WebSocket".to_owned());
    assert_eq!(tcp.messages("room-7", 1), [expected]);
    // Fragments are put together before the frames are looked at.
    let cms = websocket.framed(CMS, &prost::Message::encode_to_vec(&message("room-7", "parts")));
    websocket.client().write(&mask_frame(0x02, [1, 2, 3, 4], &cms[..7]));
    websocket.client().write(&mask_frame(0x80, [1, 2, 3, 4], &cms[7..]));
    assert_eq!(tcp.messages("room-7", 1), [("u2002".to_owned(), "parts".to_owned())]);
}

#[test]
fn a_shutdown_says_so() {
    let server = Server::start(config());
    let mut websocket = Im::websocket(&server);
    websocket.log_in_as_guest();
    let mut tcp = Im::guest(&server);
    let stopping = std::thread::spawn(move || server.stop());
    websocket.expect_close(1001);
    websocket.client().send_close(1001);
    tcp.expect_end();
    drop(tcp);
    assert!(stopping.join().expect("no panic"));
}
