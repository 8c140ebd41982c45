//! Mailboxes between shards that are full all the time.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use prost::Message;
use ringway::config::model::WorkerPick;
use ringway::wire::websocket::mask_frame;
use ringway::wire::worker::proto;

use crate::binary::metric;
use crate::common::*;
use crate::{MESSAGE, OPEN, config};

/// Casts of each task connection to each client, and messages of each client.
const EACH: usize = 2000;
const TASKS_COUNT: usize = 4;
const PER_SHARD: usize = 2;

/// Clients, the same number on each shard.
fn clients(server: &Server) -> Vec<(Client, String)> {
    let mut worker = server.worker(OPEN);
    let mut clients: Vec<(Client, String)> = Vec::new();
    for _ in 0..500 {
        let client = server.client();
        let uniq_id = worker.opened();
        let shard = shard_of(&uniq_id);
        let there = clients.iter().filter(|(_, other)| shard_of(other) == shard).count();
        if there < PER_SHARD {
            clients.push((client, uniq_id));
        }
        if clients.len() == 2 * PER_SHARD {
            return clients;
        }
    }
    panic!("no {PER_SHARD} connections came to one of the shards");
}

#[test]
fn full_mailboxes_lose_nothing_and_keep_every_order() {
    let mut config = config();
    config.runtime.mailbox_messages_max = 16;
    config.netsvr.worker.pick = WorkerPick::Sticky;
    config.netsvr.worker.queue_frames_max = 1024;
    // Casts are not held back by clients: the outbox must have room for all of them.
    config.runtime.outbox_bytes_max = 64 << 20;
    let server = Server::start(config);
    let clients = clients(&server);
    let ids: Vec<String> = clients.iter().map(|(_, id)| id.clone()).collect();
    let workers: Vec<_> = (0..4).map(|_| server.worker(MESSAGE)).collect();
    let tasks = (0..TASKS_COUNT).map(|at| cast(at, server.task(), ids.clone()));
    let mut threads: Vec<_> = tasks.collect();
    // The sockets stay open until everything is counted.
    let open: Vec<_> = clients.iter().map(|(client, _)| client.socket.try_clone()).collect();
    for (mut client, _) in clients {
        let mut writer = client.socket.try_clone().expect("a descriptor is left");
        threads.push(std::thread::spawn(move || {
            for number in 0..EACH {
                let text = number.to_string();
                let frame = mask_frame(0x81, [1, 2, 3, 4], text.as_bytes());
                writer.write_all(&frame).expect("the gateway reads");
            }
        }));
        threads.push(std::thread::spawn(move || read_casts(&mut client)));
    }
    let total = Arc::new(AtomicUsize::new(0));
    let read = |worker| {
        let total = total.clone();
        std::thread::spawn(move || read_events(worker, &total))
    };
    let readers: Vec<_> = workers.into_iter().map(read).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("everything came in order"));
    let all = 2 * PER_SHARD * EACH;
    wait_until("all events", || total.load(Ordering::Relaxed) == all);
    // Whom an end mark reaches is up to the gateway: more of them until every worker has one.
    while readers.iter().any(|reader| !reader.is_finished()) {
        server.client().send_text("end");
    }
    let mut clients = 0;
    for (uniq_id, numbers) in readers.into_iter().flat_map(|r| r.join().expect("no panic")) {
        let sorted = numbers.iter().copied().eq(0..EACH);
        assert!(
            sorted,
            "{uniq_id}: all messages at one worker in order, not {} of them",
            numbers.len()
        );
        clients += 1;
    }
    assert_eq!(clients, 2 * PER_SHARD);
    drop(open);
    let admin = server.gateway().admin_address().expect("an admin server");
    assert!(metric(admin, "ringway_mail_overflowed_total", "") > 0, "no mailbox was ever full");
}

/// Casts to all of these in turn, from one task connection.
fn cast(task: usize, mut socket: Business, ids: Vec<String>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut frames = Vec::new();
        for number in 0..EACH {
            for uniq_id in &ids {
                let data = format!("{task} {number}").into_bytes().into();
                let cast = proto::SingleCast { uniq_id: uniq_id.clone(), data };
                frames.extend(business_frame(cmd::SINGLE_CAST, &cast.encode_to_vec()));
            }
        }
        socket.write(&frames);
        // The answer comes after everything that was asked for before.
        assert_eq!(socket.online_count() as usize, ids.len());
    })
}

/// All casts of all task connections, in the order of each.
fn read_casts(client: &mut Client) {
    let mut next = [0; TASKS_COUNT];
    for _ in 0..TASKS_COUNT * EACH {
        let frame = client.frame();
        let (task, number) = frame.text().split_once(' ').expect("two numbers");
        let task: usize = task.parse().expect("a number");
        assert_eq!(number.parse(), Ok(next[task]), "casts of task {task} come in order");
        next[task] += 1;
    }
}

/// The numbers of each client until the end mark, in the order in which they came.
fn read_events(mut worker: Business, total: &AtomicUsize) -> HashMap<String, Vec<usize>> {
    let mut seen: HashMap<String, Vec<usize>> = HashMap::new();
    loop {
        let transfer = worker.transfer();
        let text = std::str::from_utf8(&transfer.data).expect("a text");
        if text == "end" {
            return seen;
        }
        seen.entry(transfer.uniq_id).or_default().push(text.parse().expect("a number"));
        total.fetch_add(1, Ordering::Relaxed);
    }
}
