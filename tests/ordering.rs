//! Order that holds, over real sockets and across shards (netsvr sections 3.6 and 6.1).

mod common;

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use prost::Message;
use ringway::config::model::WorkerPick;
use ringway::wire::websocket::mask_frame;
use ringway::wire::worker::proto;

const OPEN: i32 = 1;
const CLOSE: i32 = 2;
const MESSAGE: i32 = 4;

/// A client of the wanted shard and its uniqId.
fn client_on(server: &Server, worker: &mut Business, shard: u8) -> (Client, String) {
    for _ in 0..200 {
        let client = server.client();
        let uniq_id = worker.opened();
        if shard_of(&uniq_id) == shard {
            return (client, uniq_id);
        }
    }
    panic!("no connection came to shard {shard}");
}

#[test]
fn pipelined_single_casts_to_one_client_arrive_in_order_from_every_shard() {
    let server = Server::start(config());
    let mut worker = server.worker(OPEN);
    for shard in [0, 1] {
        let (mut client, uniq_id) = client_on(&server, &mut worker, shard);
        // Several connections, so that some are on the other shard.
        for round in 0..4 {
            let task = server.task();
            let mut frames = Vec::new();
            for number in 0..5000 {
                let data = format!("{round}-{number}").into_bytes().into();
                let message = proto::SingleCast { uniq_id: uniq_id.clone(), data };
                frames.extend(business_frame(cmd::SINGLE_CAST, &message.encode_to_vec()));
            }
            let mut writer = task.socket.try_clone().expect("a descriptor is left");
            let writing = std::thread::spawn(move || writer.write_all(&frames));
            for number in 0..5000 {
                assert_eq!(client.frame().text(), format!("{round}-{number}"));
            }
            writing.join().expect("no panic").expect("the gateway reads");
        }
    }
}

#[test]
fn a_single_cast_right_before_force_offline_is_delivered_200_times_of_200() {
    let server = Server::start(config());
    let mut worker = server.worker(OPEN);
    let mut tasks = [server.task(), server.task(), server.task(), server.task()];
    for round in 0..200 {
        let mut client = server.client();
        let uniq_id = worker.opened();
        let cast = proto::SingleCast { uniq_id: uniq_id.clone(), data: b"last words"[..].into() };
        let kick = proto::ForceOffline { uniq_ids: vec![uniq_id], ..Default::default() };
        let mut both = business_frame(cmd::SINGLE_CAST, &cast.encode_to_vec());
        both.extend(business_frame(cmd::FORCE_OFFLINE, &kick.encode_to_vec()));
        tasks[round % 4].write(&both);
        assert_eq!(client.frame().text(), "last words");
        assert_eq!(client.frame().close(), (1008, "forceOffline"));
        client.send_close(1008);
        client.expect_end();
    }
}

#[test]
fn open_message_close_come_in_that_order_1000_times_of_1000() {
    let server = Server::start(config());
    let mut worker = server.worker(OPEN | CLOSE | MESSAGE);
    let address = server.address(CLIENTS);
    for batch in 0..20 {
        let clients = std::thread::spawn(move || {
            for _ in 0..50 {
                // Upgrade, message and close in one segment.
                let mut client = Client::tcp(address);
                let mut bytes = upgrade_request("/netsvr", "").into_bytes();
                bytes.extend(mask_frame(0x81, [1, 2, 3, 4], b"only message"));
                bytes.extend(mask_frame(0x88, [1, 2, 3, 4], &1000u16.to_be_bytes()));
                client.write(&bytes);
                client.head();
                assert_eq!(client.frame().close().0, 1000);
                client.expect_end();
            }
        });
        let mut stages: HashMap<String, usize> = HashMap::new();
        for _ in 0..150 {
            let (number, body) = worker.frame();
            let (uniq_id, stage) = match number {
                cmd::CONN_OPEN => (proto::ConnOpen6::decode(&*body).map(|open| open.uniq_id), 0),
                cmd::TRANSFER => (proto::Transfer::decode(&*body).map(|data| data.uniq_id), 1),
                _ => (proto::ConnClose::decode(&*body).map(|close| close.uniq_id), 2),
            };
            let next = stages.entry(uniq_id.expect("it decodes")).or_default();
            assert_eq!(*next, stage, "batch {batch}: the order is open, message, close");
            *next += 1;
        }
        assert_eq!(stages.len(), 50);
        clients.join().expect("every client was served");
    }
}

/// 100 clients send 1,000 numbered messages each; four workers count what they get.
fn hundred_thousand_messages(pick: WorkerPick) -> Vec<Vec<(String, u32)>> {
    let mut config = config();
    config.netsvr.worker.pick = pick;
    config.netsvr.customer.limit_zero_window_max_requests = u32::MAX;
    config.netsvr.worker.queue_frames_max = 512;
    let server = Server::start(config);
    let workers: Vec<Business> = (0..4).map(|_| server.worker(MESSAGE)).collect();
    let address = server.address(CLIENTS);
    let total = Arc::new(AtomicUsize::new(0));
    let readers = workers.into_iter().map(|mut worker| {
        let total = total.clone();
        std::thread::spawn(move || {
            let mut seen = Vec::new();
            loop {
                let transfer = worker.transfer();
                if &*transfer.data == b"end" {
                    return seen;
                }
                let text = std::str::from_utf8(&transfer.data).expect("a number");
                seen.push((transfer.uniq_id, text.parse().expect("a number")));
                total.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut clients: Vec<Client> =
                    (0..25).map(|_| Client::open(address, "/netsvr")).collect();
                for number in 0..1000 {
                    for client in &mut clients {
                        client.send_text(&number.to_string());
                    }
                }
                clients
            })
        })
        .collect();
    let clients: Vec<_> = writers.into_iter().map(|w| w.join().expect("all sent")).collect();
    wait_until("100,000 events", || total.load(Ordering::Relaxed) >= 100_000);
    // Whom an end mark reaches is up to the gateway: more of them until every worker has one.
    while readers.iter().any(|reader| !reader.is_finished()) {
        server.client().send_text("end");
    }
    drop(clients);
    readers.into_iter().map(|reader| reader.join().expect("a worker ended well")).collect()
}

fn check_exactly_once(seen: &[Vec<(String, u32)>]) {
    let mut counts: HashMap<(&str, u32), u32> = HashMap::new();
    for (uniq_id, number) in seen.iter().flatten() {
        *counts.entry((uniq_id, *number)).or_default() += 1;
    }
    assert_eq!(counts.len(), 100_000, "none is lost");
    assert!(counts.values().all(|&count| count == 1), "none comes twice");
}

#[test]
fn of_100_000_messages_through_4_workers_none_is_lost_and_none_comes_twice() {
    let seen = hundred_thousand_messages(WorkerPick::RoundRobin);
    check_exactly_once(&seen);
    assert!(seen.iter().all(|worker| worker.len() > 10_000), "every worker got its share");
}

#[test]
fn with_sticky_workers_each_client_keeps_its_order_as_well() {
    let seen = hundred_thousand_messages(WorkerPick::Sticky);
    check_exactly_once(&seen);
    for worker in &seen {
        let mut next: HashMap<&str, u32> = HashMap::new();
        for (uniq_id, number) in worker {
            let expected = next.entry(uniq_id).or_default();
            assert_eq!(number, expected, "the messages of one client come in order to one worker");
            *expected += 1;
        }
        assert!(next.values().all(|&count| count == 1000));
    }
}
