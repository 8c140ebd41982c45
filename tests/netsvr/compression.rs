//! permessage-deflate: negotiation (specification section 2.2), what is compressed (2.7), and what
//! a client may send compressed.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use ringway::config::all::Config;
use ringway::config::model::MessageType;
use ringway::wire::worker::proto;

use crate::common::*;
use crate::support::*;

const RSV1: u8 = 0x40;

/// A compressed payload as a client makes it (RFC 7692 section 7.2.1).
pub fn deflate(data: &[u8]) -> Vec<u8> {
    let mut compress = Compress::new(Compression::default(), false);
    let mut out = Vec::with_capacity(data.len() + 1024);
    compress.compress_vec(data, &mut out, FlushCompress::Sync).expect("it can be compressed");
    assert!(out.ends_with(&[0, 0, 0xff, 0xff]), "the output had room");
    out.truncate(out.len() - 4);
    out
}

/// The reverse (RFC 7692 section 7.2.2), as a client that knows no earlier message does it.
fn inflate(payload: &[u8]) -> Vec<u8> {
    let input = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut decompress = Decompress::new(false);
    let mut out = Vec::with_capacity(1 << 20);
    let status = decompress.decompress_vec(&input, &mut out, FlushDecompress::Sync);
    assert_ne!(status.expect("a valid stream"), Status::StreamEnd);
    assert_eq!(decompress.total_in() as usize, input.len(), "all of it was understood");
    out
}

fn with_level(level: i8) -> Config {
    let mut config = config();
    config.netsvr.customer.compression_level = level;
    config
}

/// The extension header of the response to an offer, if there is one.
fn negotiated(server: &Server, offer: &str) -> Option<String> {
    let mut client = Client::tcp(server.address(CLIENTS));
    let headers = format!("Sec-WebSocket-Extensions: {offer}\r\n");
    client.write(upgrade_request("/netsvr", &headers).as_bytes());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let line = head.lines().find_map(|line| line.strip_prefix("sec-websocket-extensions: "));
    line.map(str::to_owned)
}

#[test]
fn an_offer_is_accepted_without_context_takeover_or_declined() {
    let server = Server::start(with_level(1));
    let accepted = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for offer in [
        "permessage-deflate",
        "Permessage-Deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_max_window_bits=9",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        "x-unknown, permessage-deflate",
        "permessage-deflate; server_max_window_bits=10, permessage-deflate",
        "x-unknown\r\nSec-WebSocket-Extensions: permessage-deflate",
    ] {
        assert_eq!(negotiated(&server, offer).as_deref(), Some(accepted), "{offer}");
    }
    for offer in [
        "x-unknown",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=14",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; unknown",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    ] {
        assert_eq!(negotiated(&server, offer), None, "{offer}");
    }
    // The gateway's window is 15 bits; who asks for it is told that it will be honoured.
    let asked = negotiated(&server, "permessage-deflate; server_max_window_bits=15");
    assert_eq!(asked, Some(format!("{accepted}; server_max_window_bits=15")));
}

#[test]
fn level_0_declines_every_offer() {
    let server = Server::start(with_level(0));
    assert_eq!(negotiated(&server, "permessage-deflate"), None);
    let mut client = Client::open_with(server.address(CLIENTS), "/netsvr", DEFLATE);
    client.write(&masked(0x81 | RSV1, &deflate(b"x")));
    assert_eq!(client.frame().close(), (1002, "RSV1 bits must be 0 without extensions"));
}

#[test]
fn up_to_256_bytes_are_sent_plain_and_257_compressed() {
    let mut stage = Stage::with_headers(with_level(1), DEFLATE);
    for shard in 0..2 {
        for len in [1, 255, 256, 257, 258, 4096, 300_000] {
            let data: Vec<u8> = (0..len).map(|n| b'a' + (n % 23) as u8).collect();
            stage.task.single_cast(&stage.ids[shard], &*data);
            let frame = stage.clients[shard].frame();
            if len <= 256 {
                assert_eq!(frame, Frame { first: 0x81, payload: data });
            } else {
                assert_eq!(frame.first, 0x81 | RSV1, "{len} bytes");
                assert!(frame.payload.len() < len / 4, "{len} bytes became larger");
                assert!(inflate(&frame.payload) == data, "{len} bytes");
            }
        }
    }
}

#[test]
fn who_did_not_ask_gets_everything_plain() {
    let mut stage = Stage::new(with_level(9));
    let data = vec![b'p'; 5000];
    stage.task.send(cmd::BROADCAST, &proto::Broadcast { data: data.clone().into() });
    for client in &mut stage.clients {
        assert_eq!(client.frame(), Frame { first: 0x81, payload: data.clone() });
    }
}

#[test]
fn every_level_gives_what_was_sent() {
    let noise: Vec<u8> = (0..2000).map(|_| fastrand::u8(..)).collect();
    let text = "to be or not to be, ".repeat(100).into_bytes();
    for level in [-2, -1, 1, 2, 3, 4, 5, 6, 7, 8, 9] {
        let mut config = with_level(level);
        config.netsvr.customer.send_message_type = MessageType::Binary;
        let server = Server::start(config);
        let mut worker = server.worker(OPEN);
        let mut client = Client::open_with(server.address(CLIENTS), "/netsvr", DEFLATE);
        let id = worker.opened();
        for data in [&noise, &text] {
            worker.single_cast(&id, &**data);
            let frame = client.frame();
            assert_eq!(frame.first, 0x82 | RSV1, "level {level}");
            assert!(inflate(&frame.payload) == *data, "level {level}");
        }
    }
}

#[test]
fn a_push_to_many_is_compressed_once_and_shared_by_all_shards() {
    let mut stage = Stage::with_headers(with_level(1), DEFLATE);
    let server = &stage.server;
    let mut more: Vec<Client> =
        (0..6).map(|_| Client::open_with(server.address(CLIENTS), "/netsvr", DEFLATE)).collect();
    let mut plain = server.client();
    wait_until("all are there", || stage.task.online_count() == 9);
    let data = "a payload for many receivers ".repeat(40);
    // The same bytes twice: the second message must not refer to the first.
    for _ in 0..2 {
        let message = proto::Broadcast { data: data.clone().into_bytes().into() };
        stage.task.send(cmd::BROADCAST, &message);
    }
    let mut image = None;
    for client in stage.clients.iter_mut().chain(&mut more) {
        for _ in 0..2 {
            let frame = client.frame();
            assert_eq!(frame.first, 0x81 | RSV1);
            assert_eq!(inflate(&frame.payload), data.as_bytes());
            assert_eq!(image.get_or_insert_with(|| frame.clone()), &frame);
        }
    }
    for _ in 0..2 {
        assert_eq!(plain.frame(), Frame { first: 0x81, payload: data.clone().into_bytes() });
    }
}

#[test]
fn compressed_messages_are_forwarded_as_they_were_before() {
    let server = Server::start(with_level(1));
    let mut worker = server.worker(MESSAGE);
    let mut client = Client::open_with(server.address(CLIENTS), "/netsvr", DEFLATE);
    let long = "\u{20ac} and so on ".repeat(1000);
    for text in ["", "short", &long] {
        let payload = deflate(text.as_bytes());
        client.write(&masked(0x81 | RSV1, &payload));
        assert!(*worker.transfer().data == *text.as_bytes());
        // In three fragments with a ping between them; only the first has RSV1.
        let cut = payload.len() / 2;
        client.write(&masked(0x01 | RSV1, &payload[..cut]));
        client.write(&masked(0x89, b""));
        client.write(&masked(0x00, &payload[cut..]));
        client.write(&masked(0x80, b""));
        assert!(*worker.transfer().data == *text.as_bytes());
        assert_eq!(client.frame().first, 0x8a);
        // A client need not compress.
        client.send_text(text);
        assert!(*worker.transfer().data == *text.as_bytes());
    }
    let binary: Vec<u8> = (0..=255).collect();
    client.write(&masked(0x82 | RSV1, &deflate(&binary)));
    assert_eq!(&*worker.transfer().data, binary);
    client.write(&masked(0x81 | RSV1, &deflate(HEARTBEAT.as_bytes())));
    expect_silence(&mut client);
}

#[test]
fn the_limit_holds_for_the_inflated_message() {
    let limit = 65_536;
    let mut config = with_level(1);
    config.netsvr.customer.receive_pack_limit = limit;
    let server = Server::start(config);
    let mut worker = server.worker(MESSAGE);
    let open = || Client::open_with(server.address(CLIENTS), "/netsvr", DEFLATE);
    let mut client = open();
    let exactly = vec![b'x'; limit as usize];
    client.write(&masked(0x81 | RSV1, &deflate(&exactly)));
    assert!(*worker.transfer().data == *exactly);
    let over = vec![b'x'; limit as usize + 1];
    client.write(&masked(0x81 | RSV1, &deflate(&over)));
    assert_eq!(client.frame().close(), (1009, "message too big"));
    client.expect_end();
}

#[test]
fn an_inflate_bomb_is_stopped_at_the_limit() {
    let mut config = with_level(1);
    config.netsvr.customer.receive_pack_limit = 65_536;
    let server = Server::start(config);
    let mut bystander = server.client();
    // 60 KB that would become 60 MB.
    let bomb = deflate(&vec![0; 60 << 20]);
    assert!(bomb.len() < 65_536, "it passes the limit of the frame: {}", bomb.len());
    for first in [0x82 | RSV1, 0x81 | RSV1] {
        let mut client = Client::open_with(server.address(CLIENTS), "/netsvr", DEFLATE);
        client.write(&masked(first, &bomb));
        assert_eq!(client.frame().close(), (1009, "message too big"));
        client.expect_end();
        expect_silence(&mut bystander);
    }
}
