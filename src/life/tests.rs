//! The watchdog by its own ticks, without a thread; what becomes of threads that end.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::watch::{TICK, Watch};
use super::*;
use crate::limits::{STILL_LOG_TIME, STILL_TIME};

const LIMIT: Duration = Duration::from_secs(30);
const NOW: Duration = Duration::ZERO;

fn ticks(time: Duration) -> u32 {
    (time.as_millis() / TICK.as_millis()) as u32
}

#[test]
fn who_turns_is_never_suspected_and_who_is_idle_neither() {
    let life = Life::default();
    let (turning, idle) = (life.heart("shard-0", &[]), life.heart("xxim-rsa-0", &[]));
    let mut watch = Watch::new(life.clone(), LIMIT);
    idle.turn(0, Phase::Idle);
    for _ in 0..4 * ticks(LIMIT) {
        turning.beat();
        assert_eq!((watch.tick(), life.stands_still()), (None, None));
    }
    life.stop();
}

#[test]
fn who_stands_still_is_named_then_given_up_and_comes_back_if_it_turns() {
    let life = Life::default();
    let (shard, other) = (life.heart("shard-1", &["echo", "netsvr"]), life.heart("mesh", &[]));
    let mut watch = Watch::new(life.clone(), LIMIT);
    let mut pass = |time| {
        (0..ticks(time)).fold(None, |failure: Option<Failure>, _| {
            other.beat();
            failure.or(watch.tick())
        })
    };
    shard.turn(life.now_ms(), Phase::Receive);
    shard.hold(crate::hub::ConnId::new(1, 7, 9), 1);
    assert_eq!(pass(STILL_TIME - TICK), None);
    assert_eq!(life.stands_still(), None);
    assert_eq!(pass(TICK), None);
    let what = life.stands_still().expect("five seconds");
    assert!(what.starts_with("shard-1 stands still") && what.ends_with("in `handle` (netsvr)"));
    assert!(life.is_still("shard-1") && !life.is_still("mesh") && life.is_dead().is_none());
    shard.beat();
    assert_eq!((pass(TICK), life.stands_still()), (None, None));
    assert_eq!(pass(LIMIT), None, "health checks see it first");
    assert!(life.is_dead().is_some());
    let failure = pass(4 * TICK);
    assert!(matches!(failure, Some(Failure::StandsStill { what }) if what.contains("shard-1")));
    life.stop();
}

#[test]
fn a_limit_of_zero_gives_nobody_up() {
    let life = Life::default();
    let _shard = life.heart("shard-0", &[]);
    let mut watch = Watch::new(life.clone(), Duration::ZERO);
    assert!((0..10 * ticks(LIMIT)).all(|_| watch.tick().is_none()));
    assert!(life.stands_still().is_some() && life.is_dead().is_none());
    assert!(STILL_LOG_TIME < STILL_TIME);
    life.stop();
}

#[test]
fn a_thread_that_ends_is_a_failure_unless_the_gateway_stops() {
    let ended = |thread: &str| Failure::Ended { thread: thread.into() };
    let life = Life::default();
    let heart = life.heart("sidecar", &[]);
    assert_eq!(life.failure(NOW), None);
    std::thread::spawn(move || drop(heart)).join().expect("no panic");
    assert_eq!(life.failure(NOW), Some(ended("sidecar")));
    drop(life.heart("mesh", &[]));
    assert_eq!(life.failure(NOW), Some(ended("sidecar")), "the first reason counts");

    let life = Life::default();
    let thread = life.spawn("answers", &[], |heart| {
        assert_eq!(std::thread::current().name(), Some("answers"));
        heart.beat();
    });
    thread.expect("a thread can be started").join().expect("no panic");
    assert_eq!(life.failure(NOW), Some(ended("answers")));

    let life = Life::default();
    let (orderly, panics) = (life.heart("mesh", &[]), life.heart("shard-0", &[]));
    life.stop();
    drop(orderly);
    assert_eq!(life.failure(NOW), None);
    let thread = std::thread::spawn(move || {
        let _heart = panics;
        panic!("on purpose");
    });
    assert!(thread.join().is_err());
    assert_eq!(life.failure(NOW), Some(ended("shard-0")));
}

#[test]
fn mail_for_nobody_is_a_failure_unless_the_gateway_stops() {
    let life = Life::default();
    life.gone("shard-1").notice();
    let failure = Failure::Undeliverable { receiver: "shard-1".into() };
    assert_eq!(life.failure(NOW), Some(failure));
    let life = Life::default();
    life.stop();
    life.gone("shard-1").notice();
    assert_eq!(life.failure(NOW), None);
}

#[test]
fn whoever_started_the_gateway_hears_of_its_failure_once() {
    let called = Arc::new(AtomicUsize::new(0));
    for late in [false, true] {
        let life = Life::default();
        let count = called.clone();
        let listen = || life.on_failure(move |_| _ = count.fetch_add(1, Ordering::Relaxed));
        if late {
            life.gone("mesh").notice();
            listen();
        } else {
            listen();
            life.gone("mesh").notice();
        }
        life.gone("sidecar").notice();
    }
    assert_eq!(called.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_panic_of_a_single_peer_is_counted_and_nothing_else_is_marked() {
    let registry = crate::metrics::Registry::new(1);
    let counter = registry.counter(&crate::metrics::rows::PEER_PANICS, &[("service", "admin")]);
    let peers = peer::Peers::new("admin", counter);
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    peers.spawn(async move {
        tokio::task::yield_now().await;
        assert_eq!(peer::served(), Some("admin"));
        let _ended = sender;
        panic!("on purpose");
    });
    assert!(receiver.await.is_err());
    assert_eq!(peer::served(), None);
    let text = registry.render();
    assert!(text.contains("ringway_peer_panics_total{service=\"admin\"} 1"), "{text}");
}
