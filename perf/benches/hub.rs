//! Micro-benchmarks of the hub: the walk of a publish, and what changes it.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringway::hub::push::Target;
use ringway::hub::{ConnId, Hub};

fn hub(members: u32) -> Hub {
    let mut hub = Hub::new();
    (0..members).for_each(|slot| hub.insert(ConnId::new(0, slot, 1)));
    hub
}

/// A hub whose members are in a topic, in random order.
fn topic(members: u32) -> Hub {
    let mut hub = hub(members);
    let mut slots: Vec<u32> = (0..members).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut slots);
    for slot in slots {
        hub.subscribe(slot, "topic");
    }
    hub
}

/// The walk over the members alone; time is per member.
fn publish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish, the walk");
    for members in [10, 1000, 10_000, 100_000, 1_000_000] {
        let hub = topic(members);
        let target = Target::Topics(vec!["topic".into()]);
        group.throughput(Throughput::Elements(members.into()));
        group.bench_function(format!("topic of {members}"), |bencher| {
            bencher.iter(|| {
                hub.for_each(&target, |slot| {
                    black_box(slot);
                })
            });
        });
        group.bench_function(format!("all {members}"), |bencher| {
            bencher.iter(|| {
                hub.for_each(&Target::All, |slot| {
                    black_box(slot);
                })
            });
        });
    }
    group.finish();
}

fn subscribe(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("subscribe and unsubscribe");
    for members in [10, 1000, 100_000] {
        let mut hub = topic(members);
        hub.insert(ConnId::new(0, members, 1));
        group.bench_function(format!("topic of {members}"), |bencher| {
            bencher.iter(|| {
                hub.subscribe(members, "topic");
                hub.unsubscribe(members, black_box("topic"));
            });
        });
    }
    group.finish();
}

/// The end of a client, whose topics have a hundred other members each.
fn disconnect(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("disconnect");
    for topics in [1, 20, 1000] {
        let names: Vec<String> = (0..topics).map(|topic| format!("topic-{topic}")).collect();
        let mut base = hub(101);
        for (slot, name) in (0..100).flat_map(|slot| names.iter().map(move |name| (slot, name))) {
            base.subscribe(slot, name);
        }
        // One hub for all rounds: the client comes back before each.
        let base = std::cell::RefCell::new(base);
        group.bench_function(format!("of a client in {topics} topics"), |bencher| {
            bencher.iter_batched(
                || {
                    let mut hub = base.borrow_mut();
                    if hub.id_of(100).is_none() {
                        hub.insert(ConnId::new(0, 100, 1));
                    }
                    for name in &names {
                        hub.subscribe(100, name);
                    }
                },
                |()| black_box(base.borrow_mut().remove(100).is_some()),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, publish, subscribe, disconnect);
criterion_main!(benches);
