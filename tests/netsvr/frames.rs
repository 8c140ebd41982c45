//! Frames of clients: every row of specification section 2.5 through a socket.

use ringway::config::all::Config;
use ringway::protocols::netsvr::config::NetsvrCustomer;

use crate::common::*;
use crate::support::*;

const FIN_TEXT: u8 = 0x81;
const TEXT: u8 = 0x01;
const FIN_BINARY: u8 = 0x82;
const FIN_CONTINUATION: u8 = 0x80;
const CONTINUATION: u8 = 0x00;
const RSV1: u8 = 0x40;
const FIN_CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

const NO_RSV: &str = "RSV1 bits must be 0 without extensions";
const NO_RSV_CONTROL: &str = "RSV1 must be 0";
const NOT_UTF8: &str = "invalid utf8 in text message";

fn customer(change: impl FnOnce(&mut NetsvrCustomer)) -> Config {
    let mut config = config();
    change(&mut config.netsvr.customer);
    config
}

fn with_deflate() -> Config {
    customer(|customer| customer.compression_level = 1)
}

/// What a client gets that sends these bytes: code and reason of a close frame, then the end of the
/// TCP connection and nothing else.
fn closed_with(server: &Server, headers: &str, bytes: &[u8]) -> (u16, String) {
    let mut client = Client::open_with(server.address(CLIENTS), "/netsvr", headers);
    client.write(bytes);
    let frame = client.frame();
    client.expect_end();
    let (code, reason) = frame.close();
    (code, reason.to_owned())
}

fn expect_plain(server: &Server, code: u16, reason: &str, frames: &[Vec<u8>]) {
    let seen = closed_with(server, "", &frames.concat());
    assert_eq!(seen, (code, reason.to_owned()), "{frames:02x?}");
}

fn expect_deflate(server: &Server, code: u16, reason: &str, frames: &[Vec<u8>]) {
    let seen = closed_with(server, DEFLATE, &frames.concat());
    assert_eq!(seen, (code, reason.to_owned()), "{frames:02x?}");
}

#[test]
fn an_unknown_opcode_is_unsupported() {
    let server = Server::start(config());
    for opcode in (3..8).chain(11..16) {
        expect_plain(&server, 1002, "unsupported opcode", &[masked(0x80 | opcode, b"x")]);
        expect_plain(&server, 1002, "unsupported opcode", &[masked(opcode, b"")]);
    }
}

#[test]
fn without_compression_the_reserved_bits_are_0() {
    let server = Server::start(config());
    for bits in [0x40, 0x20, 0x10, 0x70] {
        expect_plain(&server, 1002, NO_RSV, &[masked(FIN_TEXT | bits, b"x")]);
        expect_plain(&server, 1002, NO_RSV, &[masked(PING | bits, b"x")]);
        let fragments = [masked(TEXT, b"a"), masked(FIN_CONTINUATION | bits, b"b")];
        expect_plain(&server, 1002, NO_RSV, &fragments);
    }
}

#[test]
fn with_compression_only_the_first_frame_of_a_message_may_have_rsv1() {
    let server = Server::start(with_deflate());
    for bits in [0x40, 0x20, 0x10, 0x50] {
        for control in [PING, PONG, FIN_CLOSE] {
            expect_deflate(&server, 1002, NO_RSV_CONTROL, &[masked(control | bits, b"")]);
        }
        let fragments = [masked(TEXT | RSV1, b"\x4a"), masked(FIN_CONTINUATION | bits, b"\x04")];
        expect_deflate(&server, 1002, NO_RSV_CONTROL, &fragments);
    }
    for bits in [0x20, 0x10, 0x60, 0x50, 0x70] {
        expect_deflate(&server, 1002, "RSV1 must be 0 or 4", &[masked(FIN_TEXT | bits, b"x")]);
    }
    // A client that did not negotiate is held to the other rule on the same gateway.
    expect_plain(&server, 1002, NO_RSV, &[masked(FIN_TEXT | RSV1, b"x")]);
}

#[test]
fn a_fragmented_control_frame_is_refused_at_once() {
    let server = Server::start(config());
    for opcode in [0x08, 0x09, 0x0a] {
        let reason = "control message MUST NOT be fragmented";
        expect_plain(&server, 1002, reason, &[masked(opcode, b"")]);
    }
}

#[test]
fn a_message_inside_of_another_is_refused() {
    let server = Server::start(config());
    for second in [FIN_TEXT, TEXT, FIN_BINARY] {
        let reason = "non-first fragment must be continuation";
        expect_plain(&server, 1002, reason, &[masked(TEXT, b"a"), masked(second, b"b")]);
    }
}

#[test]
fn a_continuation_of_nothing_is_refused() {
    let server = Server::start(config());
    let reason = "unexpected continuation frame: no message to continue";
    for first in [CONTINUATION, FIN_CONTINUATION] {
        expect_plain(&server, 1002, reason, &[masked(first, b"a")]);
    }
    let after_the_end = [masked(TEXT, b"a"), masked(0x80, b"b"), masked(0x80, b"c")];
    expect_plain(&server, 1002, reason, &after_the_end);
}

#[test]
fn an_unmasked_frame_is_refused() {
    let server = Server::start(config());
    for frame in [&b"\x81\x05hello"[..], b"\x81\x00", b"\x89\x00", b"\x88\x02\x03\xe8"] {
        expect_plain(&server, 1002, "client must mask data", &[frame.to_vec()]);
    }
}

#[test]
fn a_length_with_the_top_bit_is_refused() {
    let server = Server::start(config());
    let mut frame = vec![FIN_BINARY, 0x80 | 127];
    frame.extend_from_slice(&(1u64 << 63).to_be_bytes());
    expect_plain(&server, 1002, "the most significant bit must be 0", &[frame]);
}

#[test]
fn a_control_frame_is_125_bytes_at_the_most() {
    let server = Server::start(config());
    for first in [PING, PONG, FIN_CLOSE] {
        expect_plain(&server, 1002, "control frame too long", &[masked(first, &[b'x'; 126])]);
        let announced = vec![first, 0x80 | 127];
        expect_plain(&server, 1002, "control frame too long", &[announced]);
    }
    let mut client = server.client();
    client.write(&masked(PONG, &[b'x'; 125]));
    client.write(&masked(PING, &[b'x'; 125]));
    assert_eq!(client.frame(), Frame { first: PONG, payload: vec![b'x'; 125] });
}

#[test]
fn bad_deflate_data_are_refused() {
    let server = Server::start(with_deflate());
    for data in [&b"\x07"[..], b"\x00\x01\x00\x00\x00x", b"\xff\xff\xff\xff"] {
        for first in [FIN_TEXT, FIN_BINARY] {
            let frame = masked(first | RSV1, data);
            expect_deflate(&server, 1007, "invalid deflate stream", &[frame]);
        }
        let fragments = [masked(TEXT | RSV1, &data[..1]), masked(FIN_CONTINUATION, &data[1..])];
        expect_deflate(&server, 1007, "invalid deflate stream", &fragments);
    }
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let server = Server::start(with_deflate());
    for data in [&b"\xff"[..], b"ok\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"] {
        expect_plain(&server, 1007, NOT_UTF8, &[masked(FIN_TEXT, data)]);
        let split = data.len() - 1;
        let fragments = [masked(TEXT, &data[..split]), masked(FIN_CONTINUATION, &data[split..])];
        expect_plain(&server, 1007, NOT_UTF8, &fragments);
        let compressed = masked(FIN_TEXT | RSV1, &deflated(data));
        expect_deflate(&server, 1007, NOT_UTF8, &[compressed]);
    }
    // It is refused as soon as it can not become valid any more.
    expect_plain(&server, 1007, NOT_UTF8, &[masked(TEXT, b"\xff")]);
}

#[test]
fn a_close_frame_must_have_an_acceptable_code_and_reason() {
    let server = Server::start(config());
    let reason = "close frame payload length invalid";
    expect_plain(&server, 1002, reason, &[masked(FIN_CLOSE, b"\x03")]);
    for code in [0u16, 1, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999] {
        let frame = masked(FIN_CLOSE, &code.to_be_bytes());
        expect_plain(&server, 1002, "invalid close status code", &[frame]);
    }
    expect_plain(&server, 1007, NOT_UTF8, &[masked(FIN_CLOSE, b"\x03\xe8\xff")]);
}

#[test]
fn a_close_frame_is_echoed_unchanged_and_ends_the_connection() {
    let server = Server::start(config());
    let mut payloads: Vec<Vec<u8>> = vec![Vec::new(), b"\x03\xe8bye \xe2\x82\xac".to_vec()];
    for code in [1000u16, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 1015, 3000, 4999, 5000] {
        payloads.push(code.to_be_bytes().to_vec());
    }
    payloads.push([&b"\x03\xe8"[..], &[b'r'; 123]].concat());
    for payload in payloads {
        let mut client = server.client();
        client.write(&masked(FIN_CLOSE, &payload));
        assert_eq!(client.frame(), Frame { first: FIN_CLOSE, payload });
        client.expect_end();
    }
}

#[test]
fn nothing_counts_after_a_close_frame() {
    let server = Server::start(config());
    let mut worker = server.worker(CLOSE | MESSAGE);
    let mut client = server.client();
    let frames = [
        masked(FIN_TEXT, b"before"),
        masked(FIN_CLOSE, b"\x03\xe8"),
        masked(FIN_TEXT, b"after"),
        masked(PING, b"after"),
    ];
    client.write(&frames.concat());
    assert_eq!(client.frame().close(), (1000, ""));
    client.expect_end();
    let transfer = worker.transfer();
    assert_eq!(&*transfer.data, b"before");
    assert_eq!(worker.closed().uniq_id, transfer.uniq_id);
}

#[test]
fn what_came_before_a_violation_still_counts() {
    let server = Server::start(config());
    let mut worker = server.worker(CLOSE | MESSAGE);
    let mut client = server.client();
    let frames = [masked(FIN_TEXT, b"before"), masked(PING, b"1"), masked(0x83, b"")];
    client.write(&frames.concat());
    assert_eq!(client.frame(), Frame { first: PONG, payload: b"1".to_vec() });
    assert_eq!(client.frame().close(), (1002, "unsupported opcode"));
    client.expect_end();
    let transfer = worker.transfer();
    assert_eq!(&*transfer.data, b"before");
    drop(client);
    assert_eq!(worker.closed().uniq_id, transfer.uniq_id);
}

#[test]
fn text_and_binary_are_forwarded_alike() {
    let server = Server::start(config());
    let mut worker = server.worker(MESSAGE);
    let mut client = server.client();
    let not_text: Vec<u8> = (0..=255).collect();
    let sent = [(FIN_TEXT, &b"hello"[..]), (FIN_BINARY, &not_text), (FIN_TEXT, b"")];
    for (first, payload) in sent {
        client.write(&masked(first, payload));
        assert_eq!(&*worker.transfer().data, payload);
    }
}

#[test]
fn every_length_and_mask_is_understood() {
    let server = Server::start(config());
    let mut worker = server.worker(MESSAGE);
    let mut client = server.client();
    let payload: Vec<u8> = (0..70_000u32).map(|n| (n % 251) as u8).collect();
    for len in [0, 1, 7, 125, 126, 127, 65_535, 65_536, 70_000] {
        let mask = [len as u8, 0, 0xff, 0x5a];
        let frame = ringway::wire::websocket::mask_frame(FIN_BINARY, mask, &payload[..len]);
        client.write(&frame);
        assert!(*worker.transfer().data == payload[..len], "{len} bytes");
    }
}

#[test]
fn a_heartbeat_is_not_answered_and_not_forwarded() {
    let mut stage = Stage::new(config());
    let mut worker = stage.server.worker(MESSAGE);
    for client in &mut stage.clients {
        client.send_text(HEARTBEAT);
        client.write(&masked(FIN_BINARY, HEARTBEAT.as_bytes()));
        let (first, second) = HEARTBEAT.as_bytes().split_at(5);
        client.write(&masked(TEXT, first));
        client.write(&masked(FIN_CONTINUATION, second));
        expect_silence(client);
    }
    for client in 0..2 {
        for nearly in [&HEARTBEAT[1..], "~6YOt5rW35piO~ ", "~6yOt5rW35piO~"] {
            stage.clients[client].send_text(nearly);
            let transfer = worker.transfer();
            assert_eq!(
                (&*transfer.data, &transfer.uniq_id),
                (nearly.as_bytes(), &stage.ids[client])
            );
        }
    }
    assert_eq!(metrics(&mut stage.task)[&3], 8, "three heartbeats and a ping of each client");
}

#[test]
fn another_heartbeat_text_can_be_configured() {
    let server =
        Server::start(customer(|customer| customer.heartbeat_message = b"\xff\x00beat".to_vec()));
    let mut worker = server.worker(MESSAGE);
    let mut client = server.client();
    client.write(&masked(FIN_BINARY, b"\xff\x00beat"));
    client.send_text(HEARTBEAT);
    assert_eq!(&*worker.transfer().data, HEARTBEAT.as_bytes());
}

#[test]
fn a_ping_is_answered_with_its_payload_and_a_pong_with_nothing() {
    let server = Server::start(config());
    let mut client = server.client();
    client.write(&masked(PONG, b"unasked"));
    client.write(&masked(PING, b""));
    assert_eq!(client.frame(), Frame { first: PONG, payload: Vec::new() });
    // Vectors V41 and V42.
    client.write(&hex("89 88 01 02 03 04 71 6b 6d 63 65 63 77 65"));
    let pong = client.frame();
    assert_eq!((pong.first, &*pong.payload), (0x8a, &b"pingdata"[..]));
}

#[test]
fn fragments_are_joined_and_control_frames_may_come_between_them() {
    let server = Server::start(config());
    let mut worker = server.worker(CLOSE | MESSAGE);
    let mut client = server.client();
    let euro = "\u{20ac}".as_bytes();
    let frames = [
        masked(TEXT, b"price: "),
        masked(PING, b"1"),
        masked(CONTINUATION, &euro[..1]),
        masked(PONG, b"x"),
        masked(CONTINUATION, b""),
        masked(CONTINUATION, &euro[1..2]),
        masked(PING, b"2"),
        masked(FIN_CONTINUATION, &euro[2..]),
        masked(FIN_TEXT, b"next"),
    ];
    client.write(&frames.concat());
    for ping in [b"1", b"2"] {
        assert_eq!(client.frame(), Frame { first: PONG, payload: ping.to_vec() });
    }
    assert_eq!(&*worker.transfer().data, "price: \u{20ac}".as_bytes());
    assert_eq!(&*worker.transfer().data, b"next");
    // A close frame between fragments ends it all; the unfinished message is not forwarded.
    client.write(&[masked(TEXT, b"half"), masked(FIN_CLOSE, b"\x03\xe8")].concat());
    assert_eq!(client.frame().close(), (1000, ""));
    client.expect_end();
    worker.closed();
}

#[test]
fn frames_may_arrive_byte_by_byte() {
    let server = Server::start(config());
    let mut worker = server.worker(MESSAGE);
    let mut client = server.client();
    let long = "x".repeat(200);
    let bytes = [masked(FIN_TEXT, b"short"), masked(PING, b"p"), masked(FIN_TEXT, long.as_bytes())];
    for byte in bytes.concat() {
        client.write(&[byte]);
    }
    assert_eq!(&*worker.transfer().data, b"short");
    assert_eq!(&*worker.transfer().data, long.as_bytes());
    assert_eq!(client.frame(), Frame { first: PONG, payload: b"p".to_vec() });
}

#[test]
fn exactly_the_limit_passes_and_one_byte_more_is_too_big() {
    for limit in [1024, 65_536, 2 * 1024 * 1024] {
        let server = Server::start(customer(|customer| customer.receive_pack_limit = limit));
        let mut worker = server.worker(MESSAGE);
        let mut client = server.client();
        let payload = vec![b'm'; limit as usize + 1];
        let whole = &payload[..limit as usize];
        client.write(&masked(FIN_TEXT, whole));
        assert!(*worker.transfer().data == *whole);
        let (front, back) = whole.split_at(700);
        client.write(&masked(TEXT, front));
        client.write(&masked(FIN_CONTINUATION, back));
        assert!(*worker.transfer().data == *whole);
        let header = masked(FIN_TEXT, &payload)[..14].to_vec();
        expect_plain(&server, 1009, "message too big", &[header]);
        let sum = [masked(TEXT, front), masked(FIN_CONTINUATION, &payload[..back.len() + 1])];
        expect_plain(&server, 1009, "message too big", &sum);
    }
}

#[test]
fn the_limit_holds_without_any_business_as_well() {
    let server = Server::start(customer(|customer| customer.receive_pack_limit = 1024));
    expect_plain(&server, 1009, "message too big", &[masked(FIN_TEXT, &[b'x'; 1025])]);
}

#[test]
fn a_frame_that_announces_more_than_there_can_be_is_too_big_and_hurts_nobody() {
    let server = Server::start(config());
    let mut bystander = server.client();
    for len in [u64::MAX >> 1, 1 << 62, 1 << 32, (1 << 31) + 5, 2 * 1024 * 1024 + 1] {
        let header = [&[FIN_BINARY, 0x80 | 127], &len.to_be_bytes()[..], &[1, 2, 3, 4]].concat();
        expect_plain(&server, 1009, "message too big", std::slice::from_ref(&header));
        let mut fragment = header;
        fragment[0] = CONTINUATION;
        let frames = [masked(TEXT, b"a"), fragment];
        expect_plain(&server, 1009, "message too big", &frames);
    }
    expect_silence(&mut bystander);
}

#[test]
fn a_big_text_is_refused_as_too_big_before_it_is_sent_completely() {
    let server = Server::start(config());
    let mut client = server.client();
    // 1 MiB fragments of a message without end; the third goes over the limit.
    let fragment = vec![b'x'; 1 << 20];
    client.write(&masked(TEXT, &fragment));
    client.write(&masked(CONTINUATION, &fragment));
    client.write(&masked(CONTINUATION, b"x"));
    assert_eq!(client.frame().close(), (1009, "message too big"));
    client.expect_end();
}

/// Raw deflate as permessage-deflate wants it.
fn deflated(data: &[u8]) -> Vec<u8> {
    crate::compression::deflate(data)
}
