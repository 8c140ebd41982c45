//! Topics that several nodes share: who gets what, in which order.

use std::collections::{HashMap, HashSet};

use ringway::wire::websocket::mask_frame;
use serde_json::json;

use crate::common::*;
use crate::nats::Nats;
use crate::nodes::*;

const BLOCK: &str = "full = \"block\"\ntopic_messages_max = 100000";

#[test]
fn each_message_goes_to_one_of_all_consumers_and_keeps_the_order_of_its_client() {
    const CLIENTS: usize = 20;
    const EACH: usize = 100;
    let nats = Nats::start();
    let nodes = [1, 2, 3].map(|number| Node::start(number, &nats.url(), BLOCK));
    let consumers = nodes.iter().map(|node| node.consumer(&["t"])).collect();
    let events = readers(consumers);
    let pushing: Vec<_> = nodes.iter().map(|node| push_all(node, "t", CLIENTS, EACH)).collect();
    let (mut seen, mut of) = (Seen::default(), [0; 3]);
    let mut last: HashMap<(usize, String), usize> = HashMap::new();
    while seen.len() < 3 * CLIENTS * EACH {
        let (consumer, event) = events.recv_timeout(PATIENCE).expect("more messages");
        seen.add(&event);
        of[consumer] += 1;
        let before = last.insert((consumer, event.client.clone()), event.number());
        assert!(before.is_none_or(|before| before < event.number()), "{before:?}, {event:?}");
    }
    assert_eq!(seen.repeated(), 0);
    assert!(of.iter().all(|part| *part > 0), "{of:?}");
    for clients in pushing {
        drop(clients.join().expect("everything was pushed"));
    }
}

#[test]
fn what_nobody_consumes_waits_for_whoever_comes_on_whatever_node() {
    let nats = Nats::start();
    let [a, b] = [1, 2].map(|number| Node::start(number, &nats.url(), BLOCK));
    let mut client = a.client();
    (0..50).for_each(|number| client.send_text(&format!("t {number}")));
    wait_until("they are stored", || a.pushed() == 50);
    let mut consumer = b.consumer(&["t"]);
    for number in 0..20 {
        assert_eq!(event(&mut consumer).number(), number);
    }
    // The one who leaves says so: nothing more comes for it, and the rest is for others.
    consumer.send_text(&json!({ "m": "queue.unpop", "i": 2 }).to_string());
    let mut next = 20;
    loop {
        let text = consumer.frame().text().to_owned();
        if text.contains("\"i\":2") {
            break;
        }
        assert_eq!(Event::parse(&text).number(), next);
        next += 1;
    }
    let mut client = a.client();
    (50..100).for_each(|number| client.send_text(&format!("t {number}")));
    let mut heir = a.consumer(&["t"]);
    for number in next..100 {
        assert_eq!(event(&mut heir).number(), number);
    }
}

#[test]
fn what_a_consumer_did_not_take_goes_to_other_nodes_at_once_when_it_leaves() {
    const MESSAGES: usize = 3000;
    let nats = Nats::start();
    let [a, b] = [1, 2].map(|number| Node::start(number, &nats.url(), BLOCK));
    let mut stalled = b.consumer(&["t"]);
    let mut client = a.client();
    let padding = "x".repeat(4000);
    for number in 0..MESSAGES {
        client.send_text(&format!("t {number} {padding}"));
    }
    // More than the sockets hold: some of it stays with the node.
    wait_until("everything is stored", || a.pushed() == MESSAGES as u64);
    let mut before = (0, 0);
    wait_until("the consumer takes no more", || {
        let now = (b.metric("acknowledged_total"), b.metric("held_messages"));
        let still = now == before && now.1 > 0;
        before = now;
        still
    });
    assert!(before.0 > 0 && before.0 < MESSAGES as u64, "{before:?}");
    assert_eq!(event(&mut stalled).number(), 0);
    drop(stalled);
    let mut heir = a.consumer(&["t"]);
    let mut seen = HashSet::new();
    // What was written to the other one's socket is gone with it.
    while seen.len() < MESSAGES - before.0 as usize - 64 {
        assert!(seen.insert(event(&mut heir).number()), "twice");
    }
    wait_until("it is counted", || b.metric("returned_total") > 0);
}

#[test]
fn a_thousand_topics_work() {
    const TOPICS: usize = 1000;
    let nats = Nats::start();
    let queue = format!("{BLOCK}\ntopics_max = 2000");
    let [a, b] = [1, 2].map(|number| Node::start(number, &nats.url(), &queue));
    let names: Vec<String> = (0..TOPICS).map(|number| format!("topic{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let events = readers(vec![a.consumer(&names), b.consumer(&names)]);
    let mut client = a.client();
    for round in 0..3 {
        let mut bytes = Vec::new();
        for name in &names {
            bytes.extend(mask_frame(0x81, [1, 2, 3, 4], format!("{name} {round}").as_bytes()));
        }
        client.write(&bytes);
    }
    let mut seen = HashSet::new();
    while seen.len() < 3 * TOPICS {
        let (_, event) = events.recv_timeout(PATIENCE).expect("more messages");
        assert!(seen.insert((event.topic.clone(), event.number())), "{event:?} twice");
    }
    wait_until("nothing is left", || a.metric("messages") == 0);
}

#[test]
fn messages_from_another_node_are_measured_as_forwarded() {
    let nats = Nats::start();
    let [a, b] = [1, 2].map(|number| Node::start(number, &nats.url(), ""));
    let mut client = b.client();
    client.send_text("join");
    assert_eq!(client.frame().text(), "joined");
    let mut backend = a.backend();
    let publish = json!({ "m": "mesh.publish", "p": { "c": "hall", "d": "hello" }, "i": 1 });
    wait_until("the node knows who listens", || ask(&mut backend, &publish)["r"]["s"] == 1);
    assert_eq!(client.frame().text(), "hello");
    let name = "connmix_engine_servers_send_duration_seconds_count";
    let forward = |node: &Node| node.binary.metric(name, "\"websocket\",scenario=\"forward\"");
    wait_until("it was measured", || forward(&b) == 1);
    assert_eq!(forward(&a), 0);
}
