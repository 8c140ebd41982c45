//! Drains: who goes, when, and who stays.

use std::time::Duration;

use ringway::engine::drain::Order;
use ringway::engine::ops::Machine;
use ringway::hub::push::CloseReason;
use ringway::lists::letters::Mail;
use ringway::metrics::Gauges;
use ringway::sim::Peer;

use crate::peers::Kind;
use crate::scenes::{Scene, close_frame};

const MOVED: CloseReason = CloseReason::new(4000, "moved");

/// Over ten seconds, without chance.
fn order(percent: u8, last: bool) -> Order {
    Order { percent, spread: Duration::from_secs(10), jitter: 0, reason: MOVED, last }
}

/// So many clients, each of which was heard from one second after the one before it.
fn clients(scene: &mut Scene, count: usize) -> Vec<Peer> {
    let open = |_| {
        let peer = scene.client(Kind::Echo);
        scene.settle();
        scene.world.pass(1000);
        peer
    };
    (0..count).map(open).collect()
}

fn drain(scene: &mut Scene, order: &Order) {
    scene.world.tell_all(|| Mail::Drain(Box::new(order.clone())));
    scene.settle();
}

/// The clients that were told to leave.
fn told(scene: &Scene, clients: &[Peer]) -> Vec<usize> {
    let goodbye = close_frame(MOVED.code, &MOVED.text);
    let told = |(_, peer): &(usize, &Peer)| scene.frames(**peer).contains(&goodbye);
    clients.iter().enumerate().filter(told).map(|(number, _)| number).collect()
}

fn is_there(scene: &Scene, peer: Peer) -> bool {
    let socket = scene.world.socket(peer);
    socket.id.is_some() && !socket.closed
}

fn gauges(scene: &Scene) -> Gauges {
    scene.world.shards().next().expect("there is one shard").report().1
}

fn pass(scene: &mut Scene, ms: u64) {
    scene.world.pass(ms);
    scene.settle();
}

#[test]
fn those_go_first_who_were_silent_for_the_longest_and_who_speaks_goes_last() {
    let mut scene = Scene::new(|config, _| {
        config.netsvr.customer.heartbeat_interval = Duration::from_secs(600);
    });
    let clients = clients(&mut scene, 5);
    // The first one is the last to have spoken.
    scene.send(clients[0], 0x81, b"still here");
    scene.settle();
    scene.world.pass(1000);
    drain(&mut scene, &order(100, true));
    assert_eq!(told(&scene, &clients), [1], "one at once, the others one every two seconds");
    // Another one speaks while it waits.
    scene.send(clients[2], 0x81, b"so am I");
    for (expected, waiting) in [(&[1, 3][..], 3), (&[1, 3, 4], 2), (&[0, 1, 3, 4], 1)] {
        pass(&mut scene, 1850);
        let before = told(&scene, &clients).len();
        pass(&mut scene, 150);
        assert_eq!(told(&scene, &clients), expected);
        assert_eq!(before + 1, expected.len(), "not before its time");
        assert_eq!(gauges(&scene).drain_waiting, waiting);
    }
    assert!(!scene.world.shards().all(|shard| shard.drained()), "one has not been told");
    pass(&mut scene, 2000);
    assert_eq!(told(&scene, &clients), [0, 1, 2, 3, 4]);
    // Nobody answers the close frames.
    (0..10).for_each(|_| pass(&mut scene, 500));
    assert!(scene.world.shards().all(|shard| shard.drained()));
    assert_eq!(scene.counters().clients_drained, 5);
}

#[test]
fn a_share_of_the_clients_goes_and_others_are_welcome_meanwhile() {
    let mut scene = Scene::new(|_, _| {});
    let before = clients(&mut scene, 10);
    drain(&mut scene, &order(25, false));
    let after = clients(&mut scene, 2);
    (0..12).for_each(|_| pass(&mut scene, 1000));
    assert_eq!(told(&scene, &before), [0, 1, 2], "a quarter of ten, rounded up");
    assert!(told(&scene, &after).is_empty());
    assert!(after.iter().all(|peer| is_there(&scene, *peer)));
    // Another one finds those who are left.
    drain(&mut scene, &order(100, false));
    (0..12).for_each(|_| pass(&mut scene, 1000));
    assert_eq!(told(&scene, &before).len() + told(&scene, &after).len(), 12);
    let late = clients(&mut scene, 1);
    assert!(is_there(&scene, late[0]), "it was not the end");
}

#[test]
fn a_drain_can_be_taken_back_and_one_that_is_the_end_can_not() {
    let mut scene = Scene::new(|_, _| {});
    let clients = clients(&mut scene, 10);
    for (last, left) in [(false, 8), (true, 0)] {
        drain(&mut scene, &order(100, last));
        pass(&mut scene, 1100);
        scene.world.tell_all(|| Mail::Stay);
        scene.settle();
        (0..15).for_each(|_| pass(&mut scene, 1000));
        let open = clients.iter().filter(|peer| is_there(&scene, **peer)).count();
        assert_eq!(open, left, "last: {last}");
    }
}

#[test]
fn whoever_is_in_a_hurry_has_all_others_told_at_once() {
    let mut scene = Scene::new(|_, _| {});
    let clients = clients(&mut scene, 10);
    drain(&mut scene, &order(100, true));
    assert_eq!(told(&scene, &clients), [0]);
    scene.world.tell_all(|| Mail::Hurry);
    scene.settle();
    assert_eq!(told(&scene, &clients).len(), 10);
    assert_eq!(gauges(&scene).drain_waiting, 0);
}

/// Who has not said yet what it wants is not cut off before its turn.
#[test]
fn whoever_comes_right_before_the_end_is_let_in_and_told() {
    let mut scene = Scene::new(|_, _| {});
    let first = clients(&mut scene, 1);
    let late = scene.client(Kind::Echo);
    // It is accepted, and its request has not come.
    while scene.world.socket(late).id.is_none() {
        scene.world.step();
    }
    drain(&mut scene, &order(100, true));
    (0..12).for_each(|_| pass(&mut scene, 1000));
    assert_eq!(told(&scene, &[first[0], late]), [0, 1]);
}
