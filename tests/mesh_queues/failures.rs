//! What breaks: a node, NATS; and what is lost then: nothing that was accepted.

use std::time::{Duration, Instant};

use ringway::limits::QUEUE_ACK_TIME;
use rustix::process::Signal;

use crate::binary::{Binary, run};
use crate::common::*;
use crate::nats::{Cable, Nats};
use crate::nodes::*;

const BLOCK: &str = "full = \"block\"\ntopic_messages_max = 100000";
/// What may be with a node that dies: given to its consumers or on the way there.
const WITH_A_NODE: usize = 1024;

#[test]
fn of_50000_messages_none_is_lost_when_a_node_is_killed() {
    const CLIENTS: usize = 100;
    const EACH: usize = 500;
    let nats = Nats::start();
    let [a, b, c] = [1, 2, 3].map(|number| Node::start(number, &nats.url(), BLOCK));
    let events = readers(vec![b.consumer(&["t"]), c.consumer(&["t"])]);
    let pushing = push_all(&a, "t", CLIENTS, EACH);
    let (mut seen, mut of) = (Seen::default(), [0; 2]);
    let mut b = Some(b);
    while seen.len() < CLIENTS * EACH {
        let (consumer, event) = events.recv_timeout(PATIENCE).expect("more messages");
        assert_eq!((event.node, &*event.topic), (1, "t"));
        seen.add(&event);
        of[consumer] += 1;
        if seen.len() == CLIENTS * EACH / 3
            && let Some(b) = b.take()
        {
            b.binary.signal(Signal::KILL);
        }
    }
    assert!(of[0] > CLIENTS * EACH / 20, "both nodes have a part: {of:?}");
    assert!(seen.repeated() <= WITH_A_NODE, "{} came twice", seen.repeated());
    drop(pushing.join().expect("everything was pushed"));
    wait_until("all are counted", || a.pushed() == (CLIENTS * EACH) as u64);
    wait_until("nothing is left", || c.metric("messages") == 0 && c.metric("held_messages") == 0);
    assert_eq!(a.dropped("queue_refused") + a.dropped("queue_unstored"), 0);
}

#[test]
fn what_is_pushed_while_nats_is_away_comes_when_it_is_back() {
    const CLIENTS: usize = 40;
    const EACH: usize = 200;
    let mut nats = Nats::start();
    let [a, b] = [1, 2].map(|number| Node::start(number, &nats.url(), BLOCK));
    let events = readers(vec![a.consumer(&["t"]), b.consumer(&["t"])]);
    let pushing = push_all(&a, "t", CLIENTS, EACH);
    let mut seen = Seen::default();
    let mut stops = vec![CLIENTS * EACH / 2, CLIENTS * EACH / 4];
    while seen.len() < CLIENTS * EACH {
        seen.add(&events.recv_timeout(PATIENCE).expect("more messages").1);
        if stops.last().is_some_and(|stop| seen.len() >= *stop) {
            nats.stop();
            let gone = Instant::now();
            // The second time long enough for JetStream to give messages to another node.
            let away = if stops.len() == 2 { 2 } else { 5 };
            wait_until("some seconds", || gone.elapsed() > Duration::from_secs(away));
            nats.resume();
            stops.pop();
        }
    }
    drop(pushing.join().expect("everything was pushed"));
    wait_until("all are counted", || a.pushed() == (CLIENTS * EACH) as u64);
    // What a crash of NATS makes it forget: acknowledgements of the last moment.
    assert!(seen.repeated() <= 4 * WITH_A_NODE, "{} came twice", seen.repeated());
    wait_until("nothing is held", || a.metric("held_messages") + b.metric("held_messages") == 0);
}

/// Pushes and acknowledgements are under way while the server stands still; what becomes of them is
/// never heard, for their link is cut. They are repeated, and known, if they come in time: what
/// JetStream has heard nothing of for ten seconds it gives to somebody else.
#[test]
fn answers_that_are_lost_with_the_link_double_nothing() {
    const CLIENTS: usize = 40;
    const EACH: usize = 200;
    let nats = Nats::start();
    let cables = [Cable::to(&nats), Cable::to(&nats)];
    let [a, b] =
        [1, 2].map(|number| Node::start(number, &cables[number as usize - 1].url(), BLOCK));
    let events = readers(vec![a.consumer(&["t"]), b.consumer(&["t"])]);
    let pushing = push_all(&a, "t", CLIENTS, EACH);
    let mut seen = Seen::default();
    let mut away = None;
    while seen.len() < CLIENTS * EACH {
        seen.add(&events.recv_timeout(PATIENCE).expect("more messages").1);
        if seen.len() >= CLIENTS * EACH / 3 && away.is_none() {
            let since = Instant::now();
            nats.freeze(true);
            wait_until("pushes are under way", || a.metric("unstored_messages") > 0);
            cables.iter().for_each(|cable| cable.cut(true));
            wait_until("the links are lost", || a.metric("connected") + b.metric("connected") == 0);
            nats.freeze(false);
            cables.iter().for_each(|cable| cable.cut(false));
            wait_until("the links are back", || a.metric("connected") + b.metric("connected") == 2);
            away = Some(since.elapsed());
        }
    }
    drop(pushing.join().expect("everything was pushed"));
    // Half of the time, since what was acknowledged before is repeated after the link is back.
    let in_time = away.is_some_and(|away| away < QUEUE_ACK_TIME / 2);
    let repeated_max = if in_time { 0 } else { 2 * WITH_A_NODE };
    assert!(seen.repeated() <= repeated_max, "{} came twice, {away:?} away", seen.repeated());
    wait_until("nothing is left", || a.metric("messages") == 0 && b.metric("messages") == 0);
}

/// How long it stands still is not for the test to say: JetStream gives messages to somebody else
/// that nobody has spoken of for ten seconds, and then some come twice.
#[test]
fn a_nats_server_that_stands_still_is_noticed_and_loses_nothing() {
    const CLIENTS: usize = 40;
    const EACH: usize = 200;
    let nats = Nats::start();
    let [a, b] = [1, 2].map(|number| Node::start(number, &nats.url(), BLOCK));
    let events = readers(vec![a.consumer(&["t"]), b.consumer(&["t"])]);
    let pushing = push_all(&a, "t", CLIENTS, EACH);
    let mut seen = Seen::default();
    let mut still = false;
    while seen.len() < CLIENTS * EACH {
        seen.add(&events.recv_timeout(PATIENCE).expect("more messages").1);
        if seen.len() >= CLIENTS * EACH / 3 && !std::mem::replace(&mut still, true) {
            nats.freeze(true);
            wait_until("the links are lost", || a.metric("connected") + b.metric("connected") == 0);
            nats.freeze(false);
        }
    }
    drop(pushing.join().expect("everything was pushed"));
    assert!(seen.repeated() <= 2 * WITH_A_NODE, "{} came twice", seen.repeated());
    wait_until("nothing is left", || a.metric("messages") == 0 && b.metric("messages") == 0);
}

#[test]
fn a_node_that_stands_still_loses_its_messages_to_the_others() {
    const CLIENTS: usize = 20;
    const EACH: usize = 200;
    let nats = Nats::start();
    let [a, b] = [1, 2].map(|number| Node::start(number, &nats.url(), BLOCK));
    let events = readers(vec![a.consumer(&["t"]), b.consumer(&["t"])]);
    let pushing = push_all(&a, "t", CLIENTS, EACH);
    let (mut seen, mut still) = (Seen::default(), false);
    while seen.len() < CLIENTS * EACH {
        let (consumer, event) = events.recv_timeout(PATIENCE).expect("more messages");
        seen.add(&event);
        if consumer == 1 && !std::mem::replace(&mut still, true) {
            b.binary.freeze(true);
        }
    }
    drop(pushing.join().expect("everything was pushed"));
    wait_until("nothing is left", || a.metric("messages") == 0);
    // What it had is delivered by it as well, and what it says of it changes nothing.
    b.binary.freeze(false);
    wait_until("it goes on", || b.metric("connected") == 1 && b.metric("held_messages") == 0);
    let mut client = a.client();
    client.send_text(&format!("t {EACH}"));
    while events.recv_timeout(PATIENCE).expect("one more").1.number() < EACH {}
}

/// Its link lives, and so does the thread that would prolong what its shards have.
#[test]
fn a_node_whose_shards_stand_still_loses_its_messages_to_the_others() {
    const CLIENTS: usize = 20;
    const EACH: usize = 200;
    let nats = Nats::start();
    let a = Node::start(1, &nats.url(), BLOCK);
    let (mut command, file) = command(2, &nats.url(), BLOCK);
    command.env("RINGWAY_RUNTIME__WATCHDOG", "0s");
    let b = Node { binary: Binary::spawn(command, file) };
    wait_until("the stream is there", || b.metric("connected") == 1);
    let events = readers(vec![a.consumer(&["t"]), b.consumer(&["t"])]);
    let pushing = push_all(&a, "t", CLIENTS, EACH);
    let (mut seen, mut still) = (Seen::default(), false);
    while seen.len() < CLIENTS * EACH {
        let (consumer, event) = events.recv_timeout(PATIENCE).expect("more messages");
        seen.add(&event);
        if consumer == 1 && !std::mem::replace(&mut still, true) {
            let shards = std::thread::available_parallelism().expect("CPUs").get();
            (0..shards).for_each(|shard| b.binary.order(&format!("shard-{shard} mail 1 3600000")));
        }
    }
    assert!(still, "the other node had a part");
    drop(pushing.join().expect("everything was pushed"));
    wait_until("nothing is left", || a.metric("messages") == 0);
    // It stands still to this moment.
    assert_eq!(b.metric("connected"), 1);
    assert!(b.binary.metric("ringway_shard_turn_age_seconds", "") >= 5);
}

#[test]
fn without_nats_a_push_is_refused_in_time_and_consumers_stay() {
    let mut nats = Nats::start();
    let (a, b) = (
        Node::start(1, &nats.url(), "full = \"error\""),
        Node::start(2, &nats.url(), "full = \"error\""),
    );
    let mut consumer = b.consumer(&["t"]);
    let mut client = a.client();
    client.send_text("t 0");
    assert_eq!(event(&mut consumer).text, "0");
    nats.stop();
    wait_until("the link is lost", || a.metric("connected") == 0 && b.metric("connected") == 0);
    let (mut refused, mut waiting) = (a.client(), a.client());
    refused.send_text("t 1");
    waiting.send_text("ack t 1");
    // It has time for a leader to be found.
    for mut client in [refused, waiting] {
        assert_eq!(client.frame().close(), (1013, "queue not available"));
    }
    wait_until("it is counted", || a.dropped("queue_unstored") == 2);
    // A push that waits when NATS comes back is stored, and reaches the consumer that waited.
    nats.resume();
    wait_until("the link is back", || a.metric("connected") == 1 && b.metric("connected") == 1);
    client.send_text("t 2");
    assert_eq!(event(&mut consumer).text, "2");
}

#[test]
fn what_is_behind_a_push_runs_when_the_store_has_the_message() {
    let nats = Nats::start();
    let node = Node::start(1, &nats.url(), "full = \"error\"\ntopic_messages_max = 3");
    let mut client = node.client();
    client.send_text("ack t 0");
    assert_eq!(client.frame().text(), "stored");
    // As while a leader is looked for: nothing answers for some seconds.
    nats.freeze(true);
    client.send_text("ack t 1");
    client.send_text("echo after");
    wait_until("the push waits", || node.metric("unstored_messages") == 1);
    std::thread::sleep(Duration::from_secs(4));
    assert!(is_silent(&client), "nothing is said of what is not stored");
    nats.freeze(false);
    assert_eq!((client.frame().text(), client.frame().text()), ("stored", "after"));
    client.send_text("ack t 2");
    assert_eq!(client.frame().text(), "stored");
    client.send_text("ack t 3");
    assert_eq!(client.frame().close(), (1013, "queue is full"));
}

#[test]
fn rules_about_a_client_that_is_gone_wait_for_the_store_too() {
    let nats = Nats::start();
    let node = Node::start(1, &nats.url(), BLOCK);
    let (mut consumer, mut other) = (node.consumer(&["gone"]), node.client());
    other.send_text("join");
    assert_eq!(other.frame().text(), "joined");
    let mut client = node.client();
    client.send_text("leaves");
    assert_eq!(client.frame().text(), "noted");
    nats.freeze(true);
    drop(client);
    wait_until("the push waits", || node.metric("unstored_messages") == 1);
    assert!(is_silent(&other), "it is not stored");
    nats.freeze(false);
    assert_eq!(other.frame().text(), "somebody is gone");
    assert!(consumer.frame().text().contains(r#""d":{"event":"close"}"#));
}

#[test]
fn a_node_that_starts_before_nats_begins_when_it_comes() {
    let mut nats = Nats::start();
    nats.stop();
    let a = Node::start_alone(1, &nats.url(), BLOCK);
    let mut consumer = a.consumer(&["t"]);
    let mut client = a.client();
    client.send_text("t 0");
    wait_until("the push waits", || a.metric("unstored_messages") == 1);
    nats.resume();
    assert_eq!(event(&mut consumer).text, "0");
    // Somebody removes the stream and its consumers: they are made again.
    let url = nats.url();
    remove_stream(&url);
    wait_until("the push is stored", || {
        client.send_text("t 1");
        a.pushed() > 1
    });
    assert_eq!(event(&mut consumer).text, "1");
}

/// Deletes the stream of the queues, as an operator can.
fn remove_stream(url: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let client = async_nats::connect(url).await.expect("NATS is there");
        let request = client.request("$JS.API.STREAM.DELETE.ringway-ringway-queues", "".into());
        let answer = request.await.expect("an answer").payload;
        assert!(answer.windows(14).any(|part| part == b"\"success\":true"), "{answer:?}");
    });
}

#[test]
fn what_is_pushed_before_the_end_of_a_process_is_stored() {
    const CLIENTS: usize = 10;
    const EACH: usize = 100;
    let nats = Nats::start();
    let [mut a, b] = [1, 2].map(|number| Node::start(number, &nats.url(), BLOCK));
    let pushing = push_all(&a, "t", CLIENTS, EACH);
    wait_until("most is read", || a.pushed() > (CLIENTS * EACH / 2) as u64);
    a.binary.signal(Signal::TERM);
    assert_eq!(a.binary.exit_code(), Some(0));
    drop(pushing.join());
    wait_until("it is in the stream", || b.metric("messages") > (CLIENTS * EACH / 2) as u64);
    let stored = b.metric("messages") as usize;
    let events = readers(vec![b.consumer(&["t"])]);
    let mut seen = Seen::default();
    while seen.len() < stored {
        seen.add(&events.recv_timeout(PATIENCE).expect("more messages").1);
    }
    assert_eq!(seen.repeated(), 0);
}

#[test]
fn topics_of_a_cluster_need_nats() {
    let (mut command, _file) = command(1, "", "");
    let (code, _, log) = run(&mut command);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("connmix.queue.scope") && log.contains("Set mesh.nats"), "{log}");
}
