//! Clients that do not take what waits for them, or hardly: who is closed when, and who is not.

use std::time::Duration;

use ringway::sim::Peer;
use ringway::wire::worker::proto::{self, Cmd};

use crate::peers::Kind;
use crate::scenes::Scene;
use crate::streams::{Event, Told};

/// The write deadline of netsvr and echo, and `runtime.close_timeout`, in seconds.
const WRITE_S: u64 = 10;
const CLOSE_S: u64 = 5;
const OUTBOX_BYTES_MAX: usize = 64 << 10;

fn scene() -> Scene {
    seeded(1)
}

fn seeded(seed: u64) -> Scene {
    Scene::seeded(seed, 1, |config, weather| {
        config.runtime.outbox_bytes_max = OUTBOX_BYTES_MAX as u32;
        config.runtime.close_timeout = Duration::from_secs(CLOSE_S);
        config.netsvr.customer.heartbeat_interval = Duration::from_secs(WRITE_S);
        config.netsvr.worker.queue_frames_max = 4;
        config.netsvr.customer.limit_zero_window_max_requests = u32::MAX;
        weather.socket_bytes_max = 2000;
    })
}

/// An echo client that has said so many messages of so many bytes and read nothing yet.
fn echo(scene: &mut Scene, messages: usize, bytes: usize) -> Peer {
    let client = scene.client(Kind::Echo);
    for _ in 0..messages {
        scene.send(client, 0x82, &vec![b'x'; bytes]);
        scene.settle();
    }
    client
}

/// A second in which the client reads so many bytes.
fn second(scene: &mut Scene, client: Peer, bytes: usize) {
    for _ in 0..10 {
        scene.world.pass(100);
        scene.world.read(client, bytes / 10);
        scene.settle();
    }
}

/// Seconds until the client is closed that reads so many bytes in each, `most` if it is not.
fn seconds(scene: &mut Scene, client: Peer, bytes: usize, most: u64) -> u64 {
    let mut lived = 0;
    while lived < most && !scene.world.socket(client).closed {
        second(scene, client, bytes);
        lived += 1;
    }
    lived
}

fn slow(scene: &Scene) -> u64 {
    scene.counters().slow_client_closes
}

#[test]
fn who_leaves_the_outbox_full_for_the_write_deadline_is_closed_though_something_is_taken() {
    let mut scene = scene();
    // Two sends, of 5 s and of 8 s: each alone would be in time.
    let client = echo(&mut scene, 3, 20_000);
    scene.send(client, 0x82, &[b'x'; 100_000]);
    scene.settle();
    let lived = seconds(&mut scene, client, 12_000, 60);
    assert!((WRITE_S..WRITE_S + 2).contains(&lived), "{lived} s");
    assert_eq!(slow(&scene), 1);
}

#[test]
fn who_takes_nothing_is_closed_after_the_write_deadline_whether_the_outbox_is_full_or_not() {
    for (messages, bytes) in [(1, 5000), (20, 20_000)] {
        let mut scene = scene();
        let client = echo(&mut scene, messages, bytes);
        let lived = seconds(&mut scene, client, 0, 60);
        assert!((WRITE_S..WRITE_S + 2).contains(&lived), "{lived} s");
        assert_eq!(slow(&scene), 1);
    }
}

#[test]
fn who_gets_below_the_limit_in_time_is_read_again_and_stays() {
    let mut scene = scene();
    let client = echo(&mut scene, 20, 20_000);
    // Full for 9 s.
    assert_eq!(seconds(&mut scene, client, 40_000, 9), 9);
    scene.send(client, 0x82, b"still there");
    assert_eq!(seconds(&mut scene, client, 40_000, 18), 18);
    assert_eq!(scene.frames(client).len(), 21);
    assert_eq!(slow(&scene), 0);
}

#[test]
fn a_slow_and_steady_reader_whose_outbox_is_not_full_stays() {
    let mut scene = scene();
    let client = echo(&mut scene, 3, 10_000);
    // Whatever it has read comes again, so that a send is stalled all the time.
    for _ in 0..100 {
        scene.send(client, 0x82, &[b'x'; 5000]);
        second(&mut scene, client, 5000);
        assert!(!scene.world.socket(client).closed && scene.counters().sends_stalled > 0);
    }
    assert_eq!(slow(&scene), 0);
}

#[test]
fn who_has_left_and_does_not_read_is_gone_after_the_close_timeout() {
    for (messages, bytes) in [(1, 5000), (20, 20_000)] {
        let mut scene = scene();
        let client = echo(&mut scene, messages, bytes);
        scene.world.end(client);
        scene.settle();
        // The end behind a full outbox is not seen, for nobody reads; the write deadline is.
        let lived = seconds(&mut scene, client, 0, 60);
        assert!(lived < WRITE_S + 2, "{lived} s with {messages} messages");
    }
}

/// Its end comes while nothing more of it is read, and then no send to it goes on.
#[test]
fn what_a_client_with_a_full_outbox_has_said_before_it_was_cut_off_is_heard() {
    // Seldom all that it has said is read before the end is seen.
    assert!((0..200).any(is_heard_to_the_end));
}

fn is_heard_to_the_end(seed: u64) -> bool {
    let mut scene = seeded(seed);
    let mut worker = scene.worker();
    scene.world.pass(100);
    let client = scene.client(Kind::Netsvr);
    scene.settle();
    // As much as may wait, but for a little.
    for bytes in [60_000, OUTBOX_BYTES_MAX - 60_000 - 250] {
        let (uniq_id, data) = (scene.uniq_id(client), vec![b'x'; bytes].into());
        worker.command(Cmd::SingleCast, &proto::SingleCast { uniq_id, data });
        scene.tell(&mut worker);
        scene.settle();
    }
    scene.send(client, 0x89, b"");
    scene.send(client, 0x81, b"the last word");
    scene.world.hang_up(client);
    scene.settle();
    assert!(scene.world.socket(client).closed, "nobody is there any more");
    let said = |told: &Told| matches!(told, Told::Event { event: Event::Transfer { .. }, .. });
    scene.told(&worker).iter().any(said)
}

/// It can not stay for ever either: the workers take what it has said, or others do.
#[test]
fn who_has_left_waits_for_room_at_a_worker_and_not_a_second_longer() {
    let mut scene = scene();
    let worker = scene.worker();
    scene.world.pass(100);
    let client = scene.client(Kind::Netsvr);
    scene.settle();
    for number in 0..100 {
        scene.send(client, 0x82, format!("{number:0>100}").as_bytes());
        scene.send(client, 0x89, b"nobody reads the answer");
    }
    scene.world.end(client);
    scene.settle();
    for _ in 0..20 {
        // The worker takes a little, so that it is not closed itself.
        second(&mut scene, worker.peer, 100);
    }
    assert!(!scene.world.socket(client).closed, "what it has said is not all heard");
    while !scene.world.read(worker.peer, usize::MAX).is_empty() {
        scene.settle();
    }
    let said = |told: &Told| matches!(told, Told::Event { event: Event::Transfer { .. }, .. });
    assert_eq!(scene.told(&worker).iter().filter(|told| said(told)).count(), 100);
    let lived = seconds(&mut scene, client, 0, 60);
    assert!(lived <= CLOSE_S + 1, "{lived} s");
}
