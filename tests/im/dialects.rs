//! What the document leaves open and fleets have decided differently: what `len` counts, the order
//! of bytes in the header, the field numbers of a LOGIN (sections 2 and 9). The vectors are those
//! of `vectors/im.txt`, byte for byte, over both transports.

use std::time::Duration;

use prost::Message;
use ringway::config::all::Config;
use ringway::config::model::Verifier;
use ringway::protocols::im::wire::proto::{CrMessage, CrMessageResponse};
use ringway::protocols::im::wire::{
    ByteOrder, HEADER_BYTES, LenMode, LenRule, LoginFields, Modes, NotifyBody, Wire, element,
    notification, notify_body,
};

use crate::common::Server;
use crate::support::*;

fn gateway(dialect: Dialect) -> Config {
    let mut config = config();
    config.im.len_mode = LenRule::Always(dialect.mode);
    config.im.byte_order = dialect.order;
    config.im.login_fields = dialect.fields;
    config
}

/// The dialects that have vectors, with their names.
fn dialects() -> Vec<(String, Dialect)> {
    let mut dialects = Vec::new();
    for (mode_name, mode) in
        [("body", LenMode::Body), ("rest", LenMode::Rest), ("frame", LenMode::Frame)]
    {
        for (order_name, order) in [("big", ByteOrder::Big), ("little", ByteOrder::Little)] {
            for (token, user_id) in [(1, 2), (2, 1), (16, 2048)] {
                let fields = LoginFields { token, user_id };
                let name = format!("{mode_name}/{order_name}/{token}.{user_id}");
                dialects.push((name, Dialect { mode, order, fields }));
            }
        }
    }
    dialects
}

#[test]
fn every_dialect_is_spoken_byte_for_byte_over_tcp_and_websocket() {
    for (name, dialect) in dialects() {
        let server = Server::start(gateway(dialect));
        let (sent, got) = vectors()[&name].clone();
        let mut tcp = Im::tcp(&server);
        sent.iter().for_each(|frame| tcp.write(frame));
        let mut heard = vec![0; got.concat().len()];
        std::io::Read::read_exact(&mut tcp.socket(), &mut heard).expect(&name);
        assert_eq!(heard, got.concat(), "{name}");
        tcp.expect_end();
        let mut websocket = Im::websocket(&server);
        for (frame, answer) in sent.iter().zip(&got) {
            websocket.write(frame);
            assert_eq!(websocket.client().frame().payload, *answer, "{name}");
        }
        let code = if dialect.mode == LenMode::Body { 1009 } else { 1002 };
        websocket.expect_close(code);
    }
}

/// The same in one piece and byte by byte.
#[test]
fn a_dialect_does_not_depend_on_how_the_stream_is_cut() {
    for name in ["rest/little/16.2048", "frame/big/2.1", "frame/little/16.2048"] {
        let (_, dialect) = dialects().into_iter().find(|(other, _)| other == name).expect(name);
        let server = Server::start(gateway(dialect));
        let (sent, got) = vectors()[name].clone();
        for step in [1, 5, 1000] {
            let mut tcp = Im::tcp(&server);
            sent.concat().chunks(step).for_each(|piece| tcp.write(piece));
            let mut heard = vec![0; got.concat().len()];
            std::io::Read::read_exact(&mut tcp.socket(), &mut heard).expect(name);
            assert_eq!(heard, got.concat(), "{name} in pieces of {step}");
            tcp.expect_end();
        }
    }
}

#[test]
fn notifications_are_those_of_the_dialect() {
    let body = CrMessageResponse::decode(&got("V8")[HEADER_BYTES..]).expect("messages");
    let elements: Vec<_> = body.messages.iter().map(element).collect();
    let plain = notify_body(elements.iter().map(|element| &element[..]), &body.chatroom);
    for (name, Dialect { mode, order, .. }) in dialects() {
        let wire = Wire { version: 1, mode, order, gzip: false, websocket: false };
        let frame = notification(wire, NOTIFY, &NotifyBody::new(plain.clone()));
        let name = name.rsplit_once('/').expect("three parts").0;
        assert_eq!(frame[..], got(name)[..], "{name}");
    }
}

#[test]
fn rooms_work_in_every_dialect() {
    for (name, dialect) in dialects() {
        let server = Server::start(gateway(dialect));
        let mut listener = Im::websocket(&server);
        let mut speaker = Im::tcp(&server);
        for (client, user) in [(&mut listener, "u2002"), (&mut speaker, "u1001")] {
            client.dialect = dialect;
            client.log_in(user);
            client.join("room-7");
        }
        speaker.say("room-7", "hello");
        let expected = ("u1001".to_owned(), "hello".to_owned());
        assert_eq!(listener.messages("room-7", 1), [expected], "{name}");
        let mut stranger = Im::tcp(&server);
        stranger.dialect = dialect;
        assert_eq!(stranger.try_log_in("u2002", "wrong"), 0x11, "{name}");
        stranger.expect_end();
    }
}

/// A frame that is refused before it could decide anything.
#[test]
fn a_version_that_nobody_knows_is_refused_in_the_mode_of_the_gateway() {
    for (mode, len) in [(LenMode::Body, 0), (LenMode::Rest, 7), (LenMode::Frame, 11)] {
        let dialect = Dialect { mode, ..Dialect::default() };
        let server = Server::start(gateway(dialect));
        let mut client = Im::tcp(&server);
        client.dialect = dialect;
        client.write(&[0, 0, 0, len, 0, 0, 0, 1, LOGIN, 0xf0, 0]);
        let answer = client.frame();
        assert_eq!((answer.header.len, answer.header.flag), (u32::from(len), 0x11));
        assert_eq!(answer.bare(), (1, LOGIN, 2));
        client.expect_end();
    }
}

#[test]
fn fields_of_a_login_under_other_numbers_are_no_login() {
    let fields = LoginFields { token: 3, user_id: 4 };
    let server = Server::start(gateway(Dialect { fields, ..Dialect::default() }));
    let mut usual = Im::tcp(&server);
    assert_eq!(usual.try_log_in("u1001", "tok-42"), 0x11, "neither token nor user");
    usual.expect_end();
    let mut number = Im::tcp(&server);
    assert_eq!(number.ask(LOGIN, &[3 << 3, 5]), 6, "a number where the token belongs");
    number.expect_end();
}

fn auto(modes: &[LenMode]) -> Config {
    let mut config = config();
    config.im.len_mode = LenRule::Auto(Modes::of(modes).expect("they differ"));
    config
}

#[test]
fn three_kinds_of_clients_share_a_room_and_are_answered_in_their_own() {
    let modes = [LenMode::Frame, LenMode::Rest, LenMode::Body];
    let mut config = auto(&modes);
    config.im.byte_order = ByteOrder::Little;
    let server = Server::start(config);
    let mut clients = Vec::new();
    for mode in modes {
        for guest in [true, false] {
            let mut client = if guest { Im::tcp(&server) } else { Im::websocket(&server) };
            client.dialect = Dialect { mode, order: ByteOrder::Little, ..Dialect::default() };
            if guest {
                client.log_in_as_guest()
            } else {
                client.log_in("u2002")
            }
            client.join("room-7");
            clients.push(client);
        }
    }
    let mut speaker = Im::tcp(&server);
    speaker.dialect.order = ByteOrder::Little;
    speaker.log_in("u1001");
    speaker.join("room-7");
    speaker.say("room-7", "hello");
    for client in &mut clients {
        let expected = ("u1001".to_owned(), "hello".to_owned());
        assert_eq!(client.messages("room-7", 1), [expected], "{:?}", client.dialect);
    }
}

/// A LOGIN of seven bytes is as long as a guest of the mode `rest` says.
#[test]
fn the_configured_order_decides_what_a_first_frame_is_that_fits_two_modes() {
    let users = vec![("u1".to_owned(), "t".to_owned())];
    let login = b"\x0a\x01t\x12\x02u1";
    let answer = |config: Config| {
        let server = Server::start(config);
        let mut client = Im::tcp(&server);
        let seq = [0, 0, 0, 1];
        client.write(&[&[0, 0, 0, 7], &seq[..], &[LOGIN, 0x10, 0], login].concat());
        let answer = client.socket();
        let mut bytes = [0; HEADER_BYTES];
        std::io::Read::read_exact(&mut &answer, &mut bytes).expect("an answer");
        bytes
    };
    let with = |users: &[(String, String)], mut config: Config| {
        config.login.verifier = Verifier::Static(users.to_vec());
        config
    };
    let user = [0, 0, 0, 0, 0, 0, 0, 1, LOGIN, 0x11, 0];
    assert_eq!(answer(with(&users, auto(&[LenMode::Body, LenMode::Rest]))), user);
    let guest = [0, 0, 0, 7, 0, 0, 0, 1, LOGIN, 0x11, 0];
    assert_eq!(answer(with(&users, auto(&[LenMode::Rest, LenMode::Body]))), guest);
    let denied = [0, 0, 0, 0, 0, 0, 0, 1, LOGIN, 0x11, 0x11];
    assert_eq!(answer(with(&[], auto(&[LenMode::Body, LenMode::Rest]))), denied, "a user it is");
}

/// What the README warns of: behind `body` a guest that counts the rest waits for bytes that it
/// does not send, and is closed like everyone whose LOGIN is not complete.
#[test]
fn a_guest_behind_a_mode_that_counts_less_is_heard_with_its_next_frame() {
    let mut config = auto(&[LenMode::Body, LenMode::Rest]);
    config.im.login_timeout = Duration::from_millis(300);
    let server = Server::start(config);
    let guest = Dialect { mode: LenMode::Rest, ..Dialect::default() };
    let mut silent = Im::tcp(&server);
    silent.dialect = guest;
    silent.send(LOGIN, &[]);
    silent.expect_end();
    let mut talks = Im::tcp(&server);
    talks.dialect = guest;
    let (login, ping) = (talks.framed(LOGIN, &[]), talks.framed(PING, &[]));
    talks.write(&[login, ping].concat());
    assert_eq!(talks.response().bare(), (1, LOGIN, 0));
    assert_eq!(talks.response().bare(), (2, PONG, 0));
}

#[test]
fn a_cms_is_read_in_every_dialect() {
    for (name, dialect) in dialects() {
        let mut config = gateway(dialect);
        config.im.cms_error_reply = true;
        let server = Server::start(config);
        let mut guest = Im::tcp(&server);
        guest.dialect = dialect;
        guest.log_in_as_guest();
        let cms = CrMessage { to: "room-7".to_owned(), ..CrMessage::default() };
        assert_eq!(guest.ask(CMS, &cms.encode_to_vec()), 0x13, "{name}");
    }
}
