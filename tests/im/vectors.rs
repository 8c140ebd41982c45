//! Every vector of section 17, byte for byte, over real sockets; notifications except for the time
//! stamp, which is the server's.

use std::io::{Read, Write};
use std::net::TcpStream;

use prost::Message;
use ringway::config::all::Config;
use ringway::protocols::im::wire::proto::{CrMessage, CrMessageResponse};
use ringway::protocols::im::wire::{
    ByteOrder, Gzip, HEADER_BYTES, Header, LenMode, LenRule, NotifyBody, Wire, element, kick,
    notification, notify_body,
};

use crate::common::{Server, connect};
use crate::support::*;

/// A connection of which every byte is shown.
struct Raw(TcpStream);

impl Raw {
    fn new(server: &Server) -> Raw {
        Raw(connect(address(server)))
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the gateway reads");
    }

    /// The client's frame of a vector, and exactly the server's.
    fn tell(&mut self, number: &str) {
        let (sent, got) = vectors()[number].clone();
        sent.iter().for_each(|frame| self.send(frame));
        got.iter().for_each(|frame| self.expect(frame, number));
    }

    fn expect(&mut self, bytes: &[u8], number: &str) {
        let mut got = vec![0; bytes.len()];
        self.0.read_exact(&mut got).unwrap_or_else(|error| panic!("{number}: {error}"));
        assert_eq!(got, bytes, "{number}");
    }

    /// Nothing but the end follows.
    fn expect_end(&mut self, number: &str) {
        let mut rest = Vec::new();
        let end = self.0.read_to_end(&mut rest);
        assert!(end.is_ok() && rest.is_empty(), "{number}: {end:?}, {rest:?}");
    }

    /// The connection stays, and nothing has come: a PING is answered next.
    fn expect_stays(&mut self, number: &str) {
        self.send(&sent("V4"));
        self.expect(&got("V4"), number);
    }
}

#[test]
fn requests_and_their_responses() {
    let server = Server::start(config());
    let mut guest = Raw::new(&server);
    ["V1", "V4", "V5", "V13"].iter().for_each(|number| guest.tell(number));
    guest.tell("V14");
    guest.expect_end("V14");
    let mut user = Raw::new(&server);
    ["V2", "V5", "V6", "V7", "V12"].iter().for_each(|number| user.tell(number));
    user.expect_stays("V12");
    let mut denied = Raw::new(&server);
    denied.tell("V3");
    denied.expect_end("V3");
    let mut announces = Raw::new(&server);
    announces.tell("V11");
    announces.expect_stays("V11");
    let mut old = Raw::new(&server);
    old.send(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0]);
    old.expect(&[0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0], "LOGIN of version 0");
    old.tell("V15");
}

#[test]
fn errors_after_which_the_connection_stays() {
    let server = Server::start(config());
    let mut guest = Raw::new(&server);
    guest.tell("V1");
    for number in ["E3", "E4", "E5", "E7", "E9"] {
        guest.tell(number);
        guest.expect_stays(number);
    }
    guest.send(&sent("E10"));
    guest.expect_stays("E10");
    let mut user = Raw::new(&server);
    user.tell("V2");
    user.tell("E11");
    user.expect_stays("E11");
}

#[test]
fn a_dropped_cms_is_answered_where_that_is_configured() {
    let mut config = config();
    config.im.cms_error_reply = true;
    let server = Server::start(config);
    let mut guest = Raw::new(&server);
    guest.tell("V1");
    guest.tell("E10");
    guest.expect_stays("E10");
}

#[test]
fn errors_that_end_the_connection() {
    let server = Server::start(config());
    for (number, logs_in) in [("E1", false), ("E2", false), ("E6", true), ("E8", true)] {
        let mut raw = Raw::new(&server);
        if logs_in {
            raw.tell("V1");
        }
        raw.tell(number);
        raw.expect_end(number);
    }
    let mut flow = Raw::new(&server);
    flow.tell("V1");
    flow.tell("E12");
    flow.expect_end("E12");
    let mut cut = Raw::new(&server);
    cut.tell("V1");
    cut.send(&sent("E13"));
    cut.0.shutdown(std::net::Shutdown::Write).expect("a connected socket");
    cut.expect_end("E13");
}

#[test]
fn the_other_length_mode() {
    let mut config = config();
    config.im.len_mode = LenRule::Always(LenMode::Rest);
    let server = Server::start(config);
    let mut rest = Raw::new(&server);
    let (sent, got) = vectors()["A1"].clone();
    rest.send(&sent[0]);
    rest.expect(&[0, 0, 0, 7, 0, 0, 0, 1, 1, 0x11, 0], "LOGIN of A1");
    rest.send(&sent[1]);
    rest.expect(&got[0], "A1");
    // A length that does not even count the header.
    rest.send(&[0, 0, 0, 6, 0, 0, 0, 9, 5, 0x10, 0]);
    rest.expect(&[0, 0, 0, 7, 0, 0, 0, 9, 5, 0x11, 1], "BAD_FRAME");
    rest.expect_end("BAD_FRAME");
}

fn body_of(number: &str) -> (Header, CrMessageResponse) {
    let frame = got(number);
    let header = Header::parse(frame.first_chunk().expect("a header"), ByteOrder::Big);
    let body = frame[HEADER_BYTES..].to_vec();
    let plain = match header.flag >> 2 & 3 {
        1 => Gzip::new().inflate(&body, 1 << 20).expect("a gzip member").to_vec(),
        _ => body,
    };
    (header, CrMessageResponse::decode(&*plain).expect("a CRMessageResponse"))
}

const PLAIN: Wire =
    Wire { version: 1, mode: LenMode::Body, order: ByteOrder::Big, gzip: false, websocket: false };

/// V8 to V10 with the server's own code, byte for byte where gzip has no choice.
#[test]
fn notifications_are_encoded_as_the_vectors_are() {
    let config = Config::demo();
    for number in ["V8", "V9", "V10"] {
        let (header, response) = body_of(number);
        let elements: Vec<_> = response.messages.iter().map(element).collect();
        let elements = elements.iter().map(|element| &element[..]);
        let mut body = NotifyBody::new(notify_body(elements, &response.chatroom));
        let gzip = number == "V10";
        let wire = Wire { gzip, ..PLAIN };
        body.pack(config.im.gzip_min as usize, &mut Gzip::new());
        let frame = notification(wire, NOTIFY, &body);
        let made = Header::parse(frame.first_chunk().expect("a header"), ByteOrder::Big);
        assert_eq!(made.flag, header.flag, "{number}");
        if gzip {
            let plain = Gzip::new().inflate(&frame[HEADER_BYTES..], 1 << 20).unwrap().to_vec();
            assert_eq!(plain.len(), 2036);
            assert_eq!(CrMessageResponse::decode(&*plain).unwrap(), response);
        } else {
            assert_eq!(frame[..], got(number)[..], "{number}");
        }
    }
    assert_eq!(kick(PLAIN, KICK, 0x14)[..], got("V16")[..]);
}

#[test]
fn what_a_member_gets_is_the_vector_but_for_the_time() {
    let mut config = config();
    config.im.batch_delay = std::time::Duration::from_millis(200);
    let server = Server::start(config);
    let mut guest = Im::guest(&server);
    guest.join("room-7");
    let mut speaker = Raw::new(&server);
    ["V2", "V5", "V6"].iter().for_each(|number| speaker.tell(number));
    let notify = guest.next();
    let (header, expected) = body_of("V8");
    assert_eq!(notify.header, header);
    let mut seen = notify.notify();
    let stamp = std::mem::replace(&mut seen.messages[0].timestamp, 1_700_000_000_000);
    assert_eq!(seen, expected);
    assert!(stamp > 1_700_000_000_000, "a time of the server");
    assert_eq!(CrMessage::decode(&sent("V6")[HEADER_BYTES..]).unwrap(), expected.messages[0]);
}

#[test]
fn kick_is_told_where_that_is_configured() {
    let mut config = config();
    config.im.kick_notify = true;
    config.im.single_session = true;
    let server = Server::start(config);
    let mut older = Raw::new(&server);
    older.tell("V2");
    let mut newer = Raw::new(&server);
    newer.tell("V2");
    older.expect(&got("V16"), "V16");
    older.expect_end("V16");
    newer.expect_stays("V16");
}
