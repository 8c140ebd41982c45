//! Micro-benchmarks of what passes between threads: mail to a shard, and a shard's request to the
//! sidecar and the answer. All on one thread: what is measured is the work, not the waiting.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use ringway::life::Gone;
use ringway::lists::letters::{Mail, SidecarRequest};
use ringway::mail::{BoundedSender, Mailbox};
use ringway::protocols::connmix::letters::ServiceRequest;
use ringway::protocols::netsvr::letters::Letter;

/// Messages of a burst.
const BURST: u64 = 64;

fn mail(criterion: &mut Criterion) {
    let (sender, mailbox) = Mailbox::new(1024, Gone::default()).expect("an eventfd");
    let one = |number| Mail::Netsvr(Letter::ClosedCallback { number });
    let mut group = criterion.benchmark_group("mail to a shard");
    group.bench_function("awake", |bencher| {
        bencher.iter(|| {
            sender.send(black_box(one(1))).expect("room");
            mailbox.take()
        });
    });
    group.bench_function("asleep: one write to its eventfd", |bencher| {
        bencher.iter(|| {
            mailbox.waker().rest();
            sender.send(black_box(one(1))).expect("room");
            mailbox.take()
        });
    });
    group.bench_function("asleep, 64 at once", |bencher| {
        bencher.iter(|| {
            mailbox.waker().rest();
            assert!(sender.send_all((0..BURST).map(one)).is_none());
            while mailbox.take().is_some() {}
        });
    });
    group.finish();
}

fn request(criterion: &mut Criterion) {
    let (sender, mut requests) = BoundedSender::new(1024, Gone::default());
    criterion.bench_function("request to the sidecar, awake", |bencher| {
        bencher.iter(|| {
            let request = ServiceRequest::Metrics { shard: 0, number: black_box(1) };
            sender.send(SidecarRequest::Connmix(request)).expect("room");
            requests.try_recv()
        });
    });
}

criterion_group!(benches, mail, request);
criterion_main!(benches);
