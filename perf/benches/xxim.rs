//! Micro-benchmarks of xxim: what a push costs plain and under keys, and what a request costs on
//! its way to an upstream.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringway::protocols::xxim::wire::cipher::Cipher;
use ringway::protocols::xxim::wire::{
    Carrier, ClientRequest, Identity, Push, Response, common_req, head,
};
use ringway::protocols::xxim::wire::{inject_send_msg_list, is_method, request_body};

fn cipher() -> Cipher {
    Cipher::new(b"9f86d081884c7d659a2feaa0c55ad015", b"3c6e0b8a9c15224a8228b9a98ca1531d")
}

/// One stream of pushes: framing, padding and encryption, as one connection of a fan-out has it.
fn push(criterion: &mut Criterion) {
    let cipher = cipher();
    let mut group = criterion.benchmark_group("xxim push");
    for len in [128, 1024, 16_384] {
        let data = vec![b'x'; len];
        let push = Push { event: 0, data: &data, wrapped: false };
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("plain {len} B"), |bencher| {
            bencher.iter(|| Carrier::WebSocket.binary(black_box(&push), None));
        });
        group.bench_function(format!("encrypted {len} B"), |bencher| {
            bencher.iter(|| Carrier::WebSocket.binary(black_box(&push), Some(&cipher)));
        });
    }
    group.finish();
}

fn decrypt(criterion: &mut Criterion) {
    let cipher = cipher();
    let mut group = criterion.benchmark_group("xxim decrypt");
    for len in [128, 1024] {
        let mut sealed = vec![b'x'; len];
        cipher.encrypt(&mut sealed, 0);
        let mut scratch = Vec::with_capacity(sealed.len());
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len} B"), |bencher| {
            bencher.iter(|| {
                scratch.clear();
                scratch.extend_from_slice(black_box(&sealed));
                cipher.decrypt(&mut scratch)
            });
        });
    }
    group.finish();
}

/// The load loop's request: read, checked, its identity put in; and its response.
fn request(criterion: &mut Criterion) {
    let identity = Identity {
        user_id: "test123456".into(),
        token: "tok.en.sig".into(),
        platform: "windows".into(),
        device_id: "xxxx".into(),
        ip: "203.0.113.7".into(),
        ..Identity::default()
    };
    let common_req = common_req(&identity);
    // One message in the first field, as long as that of the load loop.
    let data = [&[0x0a, 231, 1][..], &[b'x'; 231]].concat();
    let body = request_body("0c6175b9c0f1b6a831c399e269772661", "/v1/msg/sendMsgList", &data);
    let mut group = criterion.benchmark_group("xxim request");
    group.bench_function("parse and inject", |bencher| {
        bencher.iter(|| {
            let request = ClientRequest::parse(black_box(&body)).expect("a request");
            assert!(is_method(request.method));
            inject_send_msg_list(request.data, true, &common_req)
        });
    });
    group.bench_function("response", |bencher| {
        let (head, _) = head("0c6175b9c0f1b6a831c399e269772661", "/v1/msg/sendMsgList");
        let response = Response { head: &head, code: 0, data: &[] };
        bencher.iter(|| Carrier::WebSocket.binary(black_box(&response), None));
    });
    group.finish();
}

criterion_group!(benches, push, decrypt, request);
criterion_main!(benches);
