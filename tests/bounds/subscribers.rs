//! Subscribers that do not read while somebody publishes next to nothing, very often.

use std::time::Duration;

use ringway::config::model::SlowClient;
use ringway::wire::worker::proto;

use crate::binary::Binary;
use crate::common::*;
use crate::{
    CLIENTS, OUTBOX_BYTES_MAX, TASKS, WORKERS, gateway, gateway_of, one_at_a_time, reluctant_at,
};

const SUBSCRIBERS: u64 = 100;
/// Without optimisation as many as fill every outbox twice.
const PUBLISHES: usize = if cfg!(debug_assertions) { 25_000 } else { 800_000 };
/// In one write.
const BATCH: usize = 1000;

/// Subscribers of one topic that do not read.
fn subscribers(server: &Binary, task: &mut Business) -> Vec<Client> {
    let mut worker = Business::connect(server.address(WORKERS));
    worker.register(1);
    let subscriber = |_| {
        let client = reluctant_at(server.address(CLIENTS), "/netsvr");
        task.subscribe(&worker.opened(), &["t"]);
        client
    };
    (0..SUBSCRIBERS).map(subscriber).collect()
}

/// The same, where the kernel takes nothing for them any more.
fn stalled(server: &Binary, task: &mut Business) -> Vec<Client> {
    let subscribers = subscribers(server, task);
    let data = vec![b'x'; 60_000];
    wait_until("all to be stalled", || {
        publish(task, &data, 1);
        task.online_count();
        server.metric("ringway_connections_stalled", "") == SUBSCRIBERS
    });
    subscribers
}

fn publish(task: &mut Business, data: &[u8], count: usize) {
    let data = data.to_vec().into();
    let message = proto::TopicPublish { topics: vec!["t".to_owned()], data };
    let frame = business_frame(cmd::TOPIC_PUBLISH, &prost::Message::encode_to_vec(&message));
    task.write(&frame.repeat(count));
}

fn check(slow_client: SlowClient) {
    let _turn = one_at_a_time();
    let slow_client = match slow_client {
        SlowClient::Close => "close",
        SlowClient::Drop => "drop",
    };
    let server = gateway(&format!("slow_client = \"{slow_client}\""), "");
    let mut task = Business::connect(server.address(TASKS));
    let before = server.rss_kib();
    let subscribers = stalled(&server, &mut task);
    let mut peak = 0;
    for _ in 0..PUBLISHES / BATCH {
        publish(&mut task, b"y", BATCH);
        // Not faster than the gateway can follow.
        task.online_count();
        peak = peak.max(server.rss_kib());
    }
    // Counters show a little later.
    wait_until("every outbox to have been full", || {
        server.metric("ringway_dropped_total", "slow_client") >= SUBSCRIBERS
    });
    let each = peak.saturating_sub(before) * 1024 / SUBSCRIBERS;
    println!("{each} bytes for each");
    assert!(each <= OUTBOX_BYTES_MAX * 3 / 2, "{each} bytes for each that does not read");
    drop(subscribers);
}

#[test]
fn subscribers_that_are_closed_for_it() {
    check(SlowClient::Close);
}

#[test]
fn subscribers_that_lose_what_they_do_not_read() {
    check(SlowClient::Drop);
}

/// With all the input that may come in a turn: what it makes has to leave before there is more, for
/// it is made faster than outboxes and mail to the other shard can be emptied at the end.
#[test]
fn subscribers_of_somebody_who_does_not_wait() {
    let _turn = one_at_a_time();
    let server = gateway_of(256, "", "");
    let mut task = Business::connect(server.address(TASKS));
    let before = server.rss_kib();
    let subscribers = subscribers(&server, &mut task);
    let mut peak = 0;
    for _ in 0..16 * PUBLISHES / BATCH {
        publish(&mut task, b"y", BATCH);
        peak = peak.max(server.rss_kib());
    }
    // It answers when it has carried out all that; a busy machine takes its time for that.
    task.socket.set_read_timeout(Some(Duration::from_secs(300))).expect("a socket");
    task.online_count();
    let each = peak.max(server.rss_kib()).saturating_sub(before) * 1024 / SUBSCRIBERS;
    println!("{each} bytes for each");
    assert!(each <= OUTBOX_BYTES_MAX / 2, "{each} bytes for each");
    drop(subscribers);
}
