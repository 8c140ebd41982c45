//! The invariants of the whole gateway, over many random stories.
//!
//! A seed decides everything: configuration, who takes part, what they do, how the "kernel" treats
//! them. What is checked: every event of a client is written to exactly one worker or counted as
//! dropped, in order; every push arrives at most once, in order, and what is missing was counted;
//! every question is answered once, in order, with the effects of earlier commands; memory stays
//! within its limits at every moment; nothing is left when everybody has left.
//!
//! A failure prints its seed. `RINGWAY_SEED=123 cargo test --test simulation replay -- --nocapture`
//! tells that story again; `RINGWAY_SEEDS=1000..2000` makes a range of it.

#[path = "simulation/checks.rs"]
mod checks;
#[path = "simulation/commands.rs"]
mod commands;
#[path = "digests/mod.rs"]
mod digests;
#[path = "simulation/drains.rs"]
mod drains;
#[path = "simulation/half_closed.rs"]
mod half_closed;
#[path = "simulation/peers.rs"]
mod peers;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/scenes.rs"]
mod scenes;
#[path = "simulation/slow.rs"]
mod slow;
#[path = "simulation/story.rs"]
mod story;
#[path = "simulation/streams.rs"]
mod streams;

use std::ops::Range;

use checks::Summary;
use story::Story;

/// Tells the story of a seed and checks it.
fn run(seed: u64) -> Summary {
    let _seed = Seed(seed);
    let mut story = Story::new(seed);
    story.tell();
    checks::check(&story)
}

/// Says on the way out of a failure which seed it was.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("seed {seed} failed. To see it again:");
            eprintln!("RINGWAY_SEED={seed} cargo test --test simulation replay -- --nocapture");
        }
    }
}

/// Runs all seeds; the sums show that the stories were not empty.
fn run_all(seeds: Range<u64>) -> Summary {
    let mut sum = Summary::default();
    for seed in seeds {
        let summary = run(seed);
        sum.events += summary.events;
        sum.rerouted += summary.rerouted;
        sum.pushes += summary.pushes;
        sum.answers += summary.answers;
        for (sum, count) in sum.dropped.iter_mut().zip(summary.dropped) {
            *sum += count;
        }
    }
    println!("{sum:?}");
    sum
}

/// 250 seeds.
fn chapter(number: u64) {
    let sum = run_all(number * 250..(number + 1) * 250);
    assert!(sum.events > 1000 && sum.pushes > 1000 && sum.answers > 1000, "{sum:?}");
    assert!(sum.rerouted > 0, "no worker was lost with events in its queue");
}

#[test]
fn stories_0_to_249() {
    chapter(0);
}

#[test]
fn stories_250_to_499() {
    chapter(1);
}

#[test]
fn stories_500_to_749() {
    chapter(2);
}

#[test]
fn stories_750_to_999() {
    chapter(3);
}

#[test]
fn stories_1000_to_1249() {
    chapter(4);
}

#[test]
fn stories_1250_to_1499() {
    chapter(5);
}

#[test]
fn stories_1500_to_1749() {
    chapter(6);
}

#[test]
fn stories_1750_to_1999() {
    chapter(7);
}

#[test]
fn digests() {
    digests::check("netsvr", |seed| {
        let mut story = Story::new(seed);
        story.tell();
        story.world.digest()
    });
}

/// `RINGWAY_SEED` or `RINGWAY_SEEDS`; without them there is nothing to replay.
#[test]
fn replay() {
    let number = |text: &str| text.trim().parse::<u64>().expect("a seed is a number");
    if let Ok(seed) = std::env::var("RINGWAY_SEED") {
        println!("{:?}", run(number(&seed)));
    }
    if let Ok(seeds) = std::env::var("RINGWAY_SEEDS") {
        let (first, end) = seeds.split_once("..").expect("RINGWAY_SEEDS is first..end");
        run_all(number(first)..number(end));
    }
}

/// Takes half an hour.
#[test]
#[ignore = "for long runs"]
fn a_hundred_thousand_stories() {
    run_all(10_000..110_000);
}
