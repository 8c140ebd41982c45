//! Queues from clients to consumers over real sockets and shards (section 3, W36, W37, W45).

use std::collections::{HashMap, HashSet};
use std::thread;

use ringway::wire::websocket::mask_frame;
use serde_json::{Value, json};

use crate::common::wait_until;
use crate::support::{Api, Peer, connmix};

/// Every text goes to the queue `work`.
const PUSH_ALL: &str = r#"
[[connmix.server.rule]]
on = "open"
do = [ { send = "${client_id}" } ]

[[connmix.server.rule]]
on = "message"
do = [ { push = { topic = "work", include = ["frame"] } } ]
"#;

const POP: &str = r#"{"m":"queue.pop","p":{"t":["work"]},"i":1}"#;

/// Client and text of an event of the queue `work`.
fn event(value: &Value) -> (i64, String) {
    assert_eq!((&value["e"], &value["p"]["t"]), (&json!("queue.pop"), &json!("work")), "{value}");
    let client = value["p"]["c"].as_str().and_then(|client| client.parse().ok());
    let text = value["p"]["d"]["frame"]["data"].as_str().expect("a text").to_owned();
    (client.expect("a client id as text"), text)
}

/// A counter or gauge, over all shards.
fn metric(api: &Api, name: &str) -> u64 {
    let reply = api.http().ask("GET", "/metrics", "");
    value(&String::from_utf8(reply.body).expect("UTF-8"), name)
}

fn value(text: &str, name: &str) -> u64 {
    let lines = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}

#[test]
fn two_consumers_share_a_topic_and_each_sees_the_order_of_the_pushes() {
    // W36
    let api = connmix(PUSH_ALL, "");
    let (mut client, id) = api.client("/chat");
    let mut peers = [api.peer(), api.peer()];
    peers.iter_mut().for_each(|peer| peer.done(POP));
    (0..10).for_each(|number| client.send_text(&number.to_string()));
    // Who is how often in turn depends on when the windows open, which the answer does not tell.
    wait_until("all are written", || metric(&api, "ringway_queue_messages_delivered_total") == 10);
    let mut seen = Vec::new();
    for peer in &mut peers {
        peer.send(r#"{"m":"queue.unpop","p":{},"i":2}"#);
        let mut mine: Vec<u32> = Vec::new();
        loop {
            let value = peer.json();
            if value.get("i").is_some() {
                break;
            }
            let (from, text) = event(&value);
            assert_eq!(from, id);
            mine.push(text.parse().expect("a number"));
        }
        assert!(mine.is_sorted(), "{mine:?}");
        seen.extend(mine);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
}

#[test]
fn consumers_take_turns_also_when_messages_come_singly() {
    let singly = PUSH_ALL.replace("[\"frame\"] } }", "[\"frame\"] } }, { send = \"next\" }");
    for consumers in 1..=4 {
        let api = connmix(&singly, "");
        let (mut client, _) = api.client("/chat");
        let mut peers: Vec<Peer> = (0..consumers).map(|_| api.peer()).collect();
        peers.iter_mut().for_each(|peer| peer.done(POP));
        for number in 0..24 {
            client.send_text(&number.to_string());
            assert_eq!(client.frame().text(), "next");
        }
        (24..240).for_each(|number| client.send_text(&number.to_string()));
        let delivered = || metric(&api, "ringway_queue_messages_delivered_total");
        wait_until("all are written", || delivered() == 240);
        for peer in &mut peers {
            peer.send(r#"{"m":"queue.unpop","p":{},"i":2}"#);
            let events = std::iter::from_fn(|| Some(peer.json()).filter(|v| v.get("i").is_none()));
            let numbers = events.map(|value| event(&value).1.parse::<usize>().expect("a number"));
            let numbers: Vec<usize> = numbers.collect();
            let single = numbers.iter().filter(|&&number| number < 24).count();
            assert_eq!((single, numbers.len()), (24 / consumers, 240 / consumers), "{numbers:?}");
        }
    }
}

#[test]
fn a_full_topic_refuses_and_the_client_is_closed() {
    // W37
    let api = connmix(PUSH_ALL, "");
    let (mut client, _) = api.client("/chat");
    let mut bytes = Vec::new();
    for number in 0..2001 {
        bytes.extend(mask_frame(0x81, [1, 2, 3, 4], number.to_string().as_bytes()));
    }
    client.write(&bytes);
    assert_eq!(client.frame().first, 0x88, "the push failed");
    let mut peer = api.peer();
    peer.done(POP);
    for number in 0..2000 {
        assert_eq!(event(&peer.json()).1, number.to_string());
    }
    peer.done(r#"{"m":"queue.unpop","p":{},"i":2}"#);
    wait_until("all are counted", || {
        metric(&api, "ringway_queue_messages_refused_total") >= 1
            && metric(&api, "ringway_queue_messages_delivered_total") == 2000
    });
}

#[test]
fn a_client_of_a_full_topic_may_be_made_to_wait() {
    let api = connmix(PUSH_ALL, "[connmix.queue]\nfull = \"block\"\ntopic_messages_max = 10\n");
    let (mut client, _) = api.client("/chat");
    let writer = thread::spawn(move || {
        for number in 0..5000 {
            client.send_text(&number.to_string());
        }
        client
    });
    wait_until("the topic is full", || metric(&api, "ringway_queue_messages{") >= 10);
    assert!(metric(&api, "ringway_queue_messages{") < 100, "the client is not read any more");
    let mut peer = api.peer();
    peer.done(POP);
    for number in 0..5000 {
        assert_eq!(event(&peer.json()).1, number.to_string());
    }
    drop(writer.join().expect("everything was taken"));
}

/// Consumers of `work`, until there are so many on every shard.
fn consumers(api: &Api, per_shard: usize, shards: usize) -> Vec<Peer> {
    // The connection that asks is counted as well; like all others it stays.
    let mut asker = api.http();
    let mut counted = |opened: u64| {
        let mut counts = Vec::new();
        wait_until("all connections are counted", || {
            let text = asker.ask("GET", "/metrics", "").body;
            let text = String::from_utf8(text).expect("UTF-8");
            let of = |shard| format!("ringway_connections{{shard=\"{shard}\"}}");
            counts = (0..shards).map(|shard| value(&text, &of(shard))).collect();
            counts.iter().sum::<u64>() == opened
        });
        counts
    };
    let mut before = counted(1);
    let (mut chosen, mut spare, mut counts) = (Vec::new(), Vec::new(), vec![0; shards]);
    for opened in 2..200 {
        let peer = api.peer();
        let after = counted(opened);
        let shard = (0..shards).find(|&shard| after[shard] > before[shard]).expect("one more");
        before = after;
        match counts[shard] < per_shard {
            true => chosen.push(peer),
            false => spare.push(peer),
        }
        counts[shard] += 1;
        if counts.iter().all(|&count| count >= per_shard) {
            return chosen;
        }
    }
    panic!("the connections do not spread over the shards: {counts:?}");
}

#[test]
fn four_consumers_share_the_messages_of_a_hundred_clients_exactly_once() {
    const CLIENTS: usize = 100;
    const MESSAGES: usize = 1000;
    let api = connmix(PUSH_ALL, "[connmix.queue]\nfull = \"block\"\n");
    let mut peers = consumers(&api, 2, 2);
    peers.iter_mut().for_each(|peer| peer.done(POP));
    let clients: Vec<_> = (0..CLIENTS).map(|_| api.client("/chat")).collect();
    let ids: HashSet<i64> = clients.iter().map(|(_, id)| *id).collect();
    assert_eq!(ids.len(), CLIENTS);
    let writers = thread::spawn(move || {
        let mut clients = clients;
        for first in (0..MESSAGES).step_by(50) {
            for (client, _) in &mut clients {
                let mut bytes = Vec::new();
                for number in first..first + 50 {
                    bytes.extend(mask_frame(0x81, [9, 9, 9, 9], number.to_string().as_bytes()));
                }
                client.write(&bytes);
            }
        }
        // The last word of every client, for each consumer to know the end.
        clients
    });
    let (sender, receiver) = std::sync::mpsc::channel();
    for mut peer in peers {
        let sender = sender.clone();
        thread::spawn(move || {
            while let Some(frame) = peer.client.try_frame() {
                let value: Value = serde_json::from_str(frame.text()).expect("JSON");
                if sender.send((peer.client.socket.local_addr().ok(), event(&value))).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut seen: HashSet<(i64, usize)> = HashSet::new();
    let mut last: HashMap<_, usize> = HashMap::new();
    while seen.len() < CLIENTS * MESSAGES {
        let (peer, (client, text)) =
            receiver.recv_timeout(crate::common::PATIENCE).expect("more messages");
        let number: usize = text.parse().expect("a number");
        assert!(ids.contains(&client) && seen.insert((client, number)), "{client} {number} twice");
        let before = last.insert((peer, client), number);
        assert!(before.is_none_or(|before| before < number), "{before:?} before {number}");
    }
    wait_until("an empty queue", || metric(&api, "ringway_queue_messages{") == 0);
    drop(writers.join().expect("everything was taken"));
    let mut task = api.server.task();
    drop(receiver);
    wait_until("the clients have left", || task.online_count() == 0);
}

#[test]
fn what_was_not_written_to_a_consumer_that_dies_goes_to_the_next_one() {
    let limits = "[connmix.queue]\ntopic_messages_max = 100000\n\
                  topic_bytes_max = 1000000000\n[connmix.api]\nevents_max = 4096\n";
    let api = connmix(PUSH_ALL, limits);
    let (mut client, _) = api.client("/chat");
    // More than the sockets between them hold.
    const MESSAGES: usize = 4000;
    let padding = "x".repeat(4000);
    let mut dying = api.peer();
    dying.done(POP);
    for number in 0..MESSAGES {
        client.send_text(&format!("{number} {padding}"));
    }
    for number in 0..3 {
        let (_, text) = event(&dying.json());
        assert!(text.starts_with(&format!("{number} ")));
    }
    wait_until("the topic has what does not fit", || metric(&api, "ringway_queue_messages{") > 0);
    drop(dying);
    // A consumer that is not known to be dead would still get some, and give them back later.
    wait_until("it is gone", || metric(&api, "ringway_queue_consumers") == 0);
    let mut heir = api.peer();
    heir.done(POP);
    let number = |text: &str| -> usize {
        text.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
    };
    let first = number(&event(&heir.json()).1);
    assert!((3..MESSAGES).contains(&first));
    for expected in first + 1..MESSAGES {
        assert_eq!(number(&event(&heir.json()).1), expected, "in the original order");
    }
    heir.done(r#"{"m":"queue.unpop","p":{},"i":2}"#);
    // What the heir did not get was written to the other's socket: nothing else is missing.
    wait_until("everything is counted", || {
        metric(&api, "ringway_queue_messages_delivered_total") == MESSAGES as u64
    });
    assert!(metric(&api, "ringway_queue_messages_returned_total") > 0);
}

#[test]
fn topics_are_limited_and_a_pop_gets_all_or_none() {
    let api = connmix(PUSH_ALL, "[connmix.queue]\ntopics_max = 3\n");
    let mut peer = api.peer();
    let pop = |topics: &[&str]| json!({"m": "queue.pop", "p": {"t": topics}, "i": 1}).to_string();
    assert_eq!(peer.ask(&pop(&["a", "b", "c", "d"]))["E"]["c"], 201);
    peer.done(&pop(&["a", "b", "c"]));
    let mut other = api.peer();
    assert_eq!(other.ask(&pop(&["e"]))["E"]["c"], 201);
    assert_eq!(other.ask(r#"{"m":"queue.unpop","i":1}"#)["E"]["c"], 203);
    drop(peer);
    wait_until("the topics are free again", || metric(&api, "ringway_queue_topics{") == 0);
    other.done(&pop(&["e", "f", "g"]));
    let (mut client, _) = api.client("/chat");
    client.send_text("one topic too many");
    assert_eq!(client.frame().first, 0x88, "the push failed");
}

#[test]
fn after_the_answer_to_unpop_no_event_follows() {
    let api = connmix(PUSH_ALL, "");
    let (mut client, _) = api.client("/chat");
    let mut peer = api.peer();
    for round in 0..50 {
        peer.done(POP);
        let messages = 20;
        (0..messages).for_each(|number| client.send_text(&format!("{round}.{number}")));
        peer.send(r#"{"m":"queue.unpop","p":[],"i":2}"#);
        let mut events = 0;
        loop {
            let value = peer.json();
            if value.get("i").is_some() {
                break;
            }
            events += 1;
        }
        peer.done(r#"{"m":"server.ping","i":3}"#);
        // Whatever is left comes with the next round's pop, behind its answer.
        peer.done(POP);
        while events < messages {
            event(&peer.json());
            events += 1;
        }
        peer.done(r#"{"m":"queue.unpop","p":[],"i":4}"#);
    }
}
