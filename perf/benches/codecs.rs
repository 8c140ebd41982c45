//! Micro-benchmarks of the codecs: what a message costs before and after the kernel.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use ringway::hub::ConnId;
use ringway::protocols::netsvr::wire::requests;
use ringway::wire::deflate::Inflater;
use ringway::wire::websocket::{CloseCodes, Decoder, Opcode, Rules, frame, mask_frame};
use ringway::wire::worker::proto::{SingleCast, TopicPublish};
use ringway::wire::worker::{Cmd, FrameReader, UniqIds, transfer};

const RULES: Rules =
    Rules { message_bytes_max: 1 << 20, deflate: false, close_codes: CloseCodes::Registered };
const BINARY: u8 = 0x82;
const LIMIT: u32 = 1 << 20;

/// A client's frame: header, unmasking in place.
fn websocket_decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("websocket decode");
    for len in [64, 1024, 65_536] {
        let input = mask_frame(BINARY, [1, 2, 3, 4], &vec![b'x'; len]);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len} B"), |bencher| {
            bencher.iter_batched_ref(
                || input.clone(),
                |input| {
                    let mut decoder = Decoder::default();
                    let mut inflater = Inflater::default();
                    let mut rest = input.as_mut_slice();
                    let event = decoder.next(&mut rest, RULES, &mut inflater);
                    black_box(event.is_ok())
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn websocket_encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("websocket encode");
    for len in [64, 1024, 65_536] {
        let payload = vec![b'x'; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len} B"), |bencher| {
            bencher.iter(|| frame(Opcode::Binary, black_box(&payload)));
        });
    }
    group.finish();
}

/// A backend's command from bytes to fields, and a client's event to bytes.
fn netsvr(criterion: &mut Criterion) {
    let ids = UniqIds::new("127.0.0.1:6062".parse().expect("an address"));
    let conn = ConnId::new(1, 1234, 1_700_000_000);
    let uniq_id = String::from_utf8(ids.encode(conn).to_vec()).expect("hex");
    let cast = SingleCast { uniq_id, data: vec![b'x'; 64].into() }.encode_to_vec();
    let publish = TopicPublish { topics: vec!["room-17".into()], data: vec![b'x'; 128].into() };
    let frame = {
        let body = publish.encode_to_vec();
        let mut frame = (body.len() as u32 + 4).to_be_bytes().to_vec();
        frame.extend(Cmd::TopicPublish.number().to_be_bytes());
        frame.extend(body);
        frame
    };
    let mut group = criterion.benchmark_group("netsvr");
    group.bench_function("frame", |bencher| {
        let mut reader = FrameReader::new();
        bencher.iter(|| reader.next(&mut black_box(frame.as_slice()), LIMIT, b"heartbeat"));
    });
    let body = Bytes::from(cast);
    group.bench_function("SingleCast decode", |bencher| {
        bencher.iter(|| requests::single_cast::<ConnId>(black_box(body.clone()), &ids));
    });
    let topics = ["a".to_owned(), "b".to_owned()];
    group.bench_function("Transfer encode", |bencher| {
        let uniq_id = ids.encode(conn);
        let topics = topics.iter().map(String::as_str);
        bencher.iter(|| transfer(&uniq_id, "user-1", "", topics.clone(), black_box(&[b'x'; 64])));
    });
    group.bench_function("uniqId decode", |bencher| {
        let text = String::from_utf8(ids.encode(conn).to_vec()).expect("hex");
        bencher.iter(|| ids.decode(black_box(&text)));
    });
    group.finish();
}

criterion_group!(benches, websocket_decode, websocket_encode, netsvr);
criterion_main!(benches);
