//! What happens to a message that finds its topic full.

use std::collections::HashMap;

use crate::common::*;
use crate::nats::Nats;
use crate::nodes::*;

#[test]
fn a_full_topic_refuses_and_keeps_what_it_has() {
    // connmix W37, with a smaller topic.
    let nats = Nats::start();
    let queue = "full = \"error\"\ntopic_messages_max = 10";
    let [a, b] = [1, 2].map(|number| Node::start(number, &nats.url(), queue));
    let mut client = a.client();
    (0..10).for_each(|number| client.send_text(&format!("t {number}")));
    wait_until("they are stored", || a.pushed() == 10);
    // On another node the topic is as full.
    let mut refused = b.client();
    refused.send_text("t 10");
    assert_eq!(refused.frame().close(), (1013, "queue is full"));
    wait_until("it is counted", || b.dropped("queue_refused") == 1);
    assert_eq!(b.dropped("queue_unstored"), 0);
    client.send_text("u 0");
    let mut consumer = b.consumer(&["t"]);
    for number in 0..10 {
        assert_eq!(event(&mut consumer).number(), number);
    }
    wait_until("there is room", || {
        let mut client = a.client();
        client.send_text("t 11");
        wait_until("it is settled", || a.pushed() + a.dropped("queue_refused") > 11);
        a.pushed() > 11
    });
    assert_eq!(event(&mut consumer).number(), 11);
}

#[test]
fn a_client_that_is_held_back_goes_on_when_there_is_room_and_keeps_its_order() {
    const CLIENTS: usize = 8;
    const EACH: usize = 150;
    let nats = Nats::start();
    let queue = "full = \"block\"\ntopic_messages_max = 5";
    let [a, b] = [1, 2].map(|number| Node::start(number, &nats.url(), queue));
    let pushing = push_all(&a, "t", CLIENTS, EACH);
    wait_until("the topic is full", || a.pushed() == 5 && a.metric("unstored_messages") > 0);
    let mut consumer = b.consumer(&["t"]);
    let mut last: HashMap<String, usize> = HashMap::new();
    for _ in 0..CLIENTS * EACH {
        let event = event(&mut consumer);
        let expected = last.get(&event.client).map_or(0, |last| last + 1);
        assert_eq!(event.number(), expected, "{event:?}");
        last.insert(event.client, expected);
    }
    assert!(last.values().all(|last| *last == EACH - 1));
    drop(pushing.join().expect("nobody was closed"));
    assert_eq!(a.dropped("queue_refused") + a.dropped("queue_unstored"), 0);
}

#[test]
fn the_oldest_message_makes_room_and_is_counted() {
    let nats = Nats::start();
    let queue = "full = \"drop_oldest\"\ntopic_messages_max = 10";
    let [a, b] = [1, 2].map(|number| Node::start(number, &nats.url(), queue));
    let mut client = a.client();
    client.send_text("other 0");
    (0..10).for_each(|number| client.send_text(&format!("t {number}")));
    wait_until("they are stored", || a.pushed() == 11);
    (10..25).for_each(|number| client.send_text(&format!("t {number}")));
    wait_until("the others are counted", || a.dropped("queue_oldest") == 15);
    let mut consumer = b.consumer(&["t", "other"]);
    let mut numbers: Vec<(String, usize)> = (0..11)
        .map(|_| {
            let event = event(&mut consumer);
            (event.topic.clone(), event.number())
        })
        .collect();
    numbers.sort();
    let mut expected: Vec<(String, usize)> = vec![("other".to_owned(), 0)];
    expected.extend((15..25).map(|number| ("t".to_owned(), number)));
    assert_eq!(numbers, expected);
    assert_eq!(a.dropped("queue_refused") + a.dropped("queue_unstored"), 0);
}

#[test]
fn larger_limits_of_another_node_hold_for_the_cluster() {
    let nats = Nats::start();
    let a = Node::start(1, &nats.url(), "topic_messages_max = 2");
    let _b = Node::start(2, &nats.url(), "topic_messages_max = 20");
    let mut tries = 0;
    wait_until("the limit is raised", || {
        tries += 1;
        let before = a.pushed();
        let mut client = a.client();
        (0..3).for_each(|number| client.send_text(&format!("try{tries} {number}")));
        let settled = || a.pushed() + a.dropped("queue_refused") >= 3 * tries;
        wait_until("they are settled", settled);
        a.pushed() == before + 3
    });
    let mut client = a.client();
    let before = a.pushed();
    (0..20).for_each(|number| client.send_text(&format!("t {number}")));
    wait_until("they are stored", || a.pushed() == before + 20);
}

#[test]
fn large_messages_come_and_one_that_nats_does_not_take_is_refused() {
    let nats = Nats::start();
    let large = "full = \"block\"\n[connmix.api]\nevent_bytes_max = 4000000";
    let a = Node::start(1, &nats.url(), large);
    let mut consumer = a.consumer(&["t"]);
    let mut client = a.client();
    // More than one pull brings.
    for number in 0..15 {
        client.send_text(&format!("t {number} {}", "x".repeat(1_000_000)));
    }
    for number in 0..15 {
        assert_eq!(event(&mut consumer).number(), number);
    }
    client.send_text(&format!("t 1 {}", "x".repeat(1_100_000)));
    assert_eq!(client.frame().close(), (1013, "message too big for queue"));
    wait_until("it is counted", || a.dropped("queue_refused") == 1);
}
