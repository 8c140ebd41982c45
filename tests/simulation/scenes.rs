//! Short stories with a purpose: what random ones would hardly come across.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use ringway::config::all::Config;
use ringway::config::model::{SlowClient, WorkerFull};
use ringway::engine::Now;
use ringway::engine::ops::Machine;
use ringway::engine::ops::Op;
use ringway::lists::letters::Mail;
use ringway::metrics::{Counters, DropReason};
use ringway::protocols::netsvr::wire::Verdict;
use ringway::shard::Shard;
use ringway::shard::audit::Sizes;
use ringway::sim::{Peer, Weather, World};
use ringway::wire::websocket::mask_frame;
use ringway::wire::worker::UniqIds;
use ringway::wire::worker::proto::{self, Cmd};

use crate::peers::{Business, Client, Expect, Kind};
use crate::plan::{CLIENTS, Plan, WORKERS};
use crate::streams::{self, Frame, Told};

const ROUNDS_MAX: usize = 20_000;
const FRAME_BYTES_MAX: usize = 10_000;

/// A gateway of one shard in fair weather.
pub struct Scene {
    pub world: World,
    ids: UniqIds,
    clients: usize,
}

impl Scene {
    pub fn new(change: impl FnOnce(&mut Config, &mut Weather)) -> Scene {
        Scene::on(1, change)
    }

    pub fn on(shards: usize, change: impl FnOnce(&mut Config, &mut Weather)) -> Scene {
        Scene::seeded(1, shards, change)
    }

    pub fn seeded(
        seed: u64,
        shards: usize,
        change: impl FnOnce(&mut Config, &mut Weather),
    ) -> Scene {
        let mut config = Config::demo();
        config.runtime.connections_max = 100;
        let mut weather = Weather {
            answer_piece: ringway::protocols::netsvr::limits::ANSWER_PIECE,
            read_on: 3,
            mailbox_messages_max: 100,
            socket_bytes_max: 100_000,
            piece_bytes_max: 100_000,
            calm: false,
            jump_every: 0,
            jump_ms_max: 0,
            callback_fails_percent: 0,
            callback_denies_percent: 0,
            callback_verdict: Verdict::default,
        };
        change(&mut config, &mut weather);
        let ids = UniqIds::new(config.netsvr.advertise);
        let listeners = Plan::listeners(&config);
        Scene { world: World::new(seed, shards, config, listeners, weather), ids, clients: 0 }
    }

    pub fn settle(&mut self) {
        self.world.settle(ROUNDS_MAX);
        self.world.audit(FRAME_BYTES_MAX, 1);
    }

    /// A client whose upgrade is on its way.
    pub fn client(&mut self, kind: Kind) -> Peer {
        let peer = self.world.connect(CLIENTS);
        let client = Client::new(peer, self.clients, kind, false);
        self.clients += 1;
        self.world.write(peer, &client.request());
        peer
    }

    pub fn send(&mut self, client: Peer, first: u8, payload: &[u8]) {
        self.world.write(client, &mask_frame(first, [1, 2, 3, 4], payload));
    }

    pub fn frames(&self, client: Peer) -> Vec<Frame> {
        streams::client(&self.world.socket(client).written).frames
    }

    /// A worker for all events, after its registration was answered.
    pub fn worker(&mut self) -> Business {
        let peer = self.world.connect(WORKERS);
        let mut worker = Business::new(peer, 0);
        let message = proto::RegisterReq { events: 7, ..Default::default() };
        worker.ask(Cmd::Register, &message, Expect::Registered(0));
        self.tell(&mut worker);
        worker
    }

    /// Writes what the backend has queued.
    pub fn tell(&mut self, business: &mut Business) {
        let bytes = business.pending.take_all();
        self.world.write(business.peer, &bytes);
        self.settle();
    }

    pub fn told(&self, business: &Business) -> Vec<Told> {
        let mut rest = &self.world.socket(business.peer).written[..];
        let mut told = Vec::new();
        while let Some((frame, size)) = streams::told(rest, false) {
            told.push(frame);
            rest = &rest[size..];
        }
        told
    }

    pub fn uniq_id(&self, client: Peer) -> String {
        let id = self.world.socket(client).id.expect("it was accepted");
        String::from_utf8_lossy(&self.ids.encode(id)).into_owned()
    }

    pub fn counters(&self) -> Counters {
        self.world.shards().next().expect("there is one shard").report().0
    }
}

fn dropped(counters: &Counters, reason: DropReason) -> u64 {
    counters.dropped[reason as usize]
}

pub fn close_frame(code: u16, text: &str) -> Frame {
    Frame::Close([&code.to_be_bytes()[..], text.as_bytes()].concat())
}

/// A client that reads nothing gets `count` pushes of 1000 bytes, each listed twice.
fn push_twice(scene: &mut Scene, client: Peer, count: usize) {
    let mut task = Business::new(scene.world.connect(WORKERS), 1);
    let uniq_id = scene.uniq_id(client);
    for _ in 0..count {
        let uniq_ids = vec![uniq_id.clone(), uniq_id.clone()];
        let data = vec![b'x'; 1000].into();
        task.command(Cmd::Multicast, &proto::Multicast { uniq_ids, data });
    }
    scene.tell(&mut task);
}

#[test]
fn a_slow_client_is_told_so_and_every_push_is_counted_once() {
    (3000..5000).step_by(100).for_each(slow_client);
}

fn slow_client(outbox_bytes_max: u32) {
    let mut scene = Scene::new(|config, weather| {
        config.runtime.outbox_bytes_max = outbox_bytes_max;
        config.runtime.slow_client = SlowClient::Close;
        weather.socket_bytes_max = 1500;
    });
    let client = scene.client(Kind::Netsvr);
    scene.settle();
    push_twice(&mut scene, client, 10);
    while !scene.world.read(client, usize::MAX).is_empty() {
        scene.settle();
    }
    let frames = scene.frames(client);
    let slow = close_frame(1008, "slow consumer");
    assert_eq!(frames.last(), Some(&slow), "{} frames", frames.len());
    let counters = scene.counters();
    let lost = dropped(&counters, DropReason::SlowClient);
    let pushed = counters.frames_written + lost;
    // What names it after it was closed names nobody.
    assert!(
        lost > 1 && pushed <= 20 && pushed.is_multiple_of(2),
        "{lost} of {pushed} were dropped"
    );
    assert_eq!(counters.frames_written as usize, frames.len() - 1);
    assert_eq!(dropped(&counters, DropReason::Closing), 0);
    assert!(!scene.world.is_open(client));
}

#[test]
fn a_slow_client_may_lose_pushes_and_stay_even_if_it_pings() {
    let mut scene = Scene::new(|config, weather| {
        config.runtime.outbox_bytes_max = 4096;
        config.runtime.slow_client = SlowClient::Drop;
        weather.socket_bytes_max = 1500;
    });
    let client = scene.client(Kind::Netsvr);
    scene.settle();
    for _ in 0..4 {
        push_twice(&mut scene, client, 3);
        (0..50).for_each(|_| scene.send(client, 0x89, &[b'p'; 100]));
        scene.settle();
    }
    while !scene.world.read(client, usize::MAX).is_empty() {
        scene.settle();
    }
    assert!(scene.world.is_open(client));
    let data = |frame: &&Frame| matches!(frame, Frame::Data { .. });
    let counters = scene.counters();
    let delivered = scene.frames(client).iter().filter(data).count() as u64;
    assert_eq!(delivered + dropped(&counters, DropReason::SlowClient), 24);
}

#[test]
fn pushes_that_a_client_leaves_behind_are_counted_and_nothing_else_is() {
    let mut scene = Scene::new(|_, weather| weather.socket_bytes_max = 1500);
    let client = scene.client(Kind::Netsvr);
    scene.settle();
    push_twice(&mut scene, client, 5);
    (0..5).for_each(|_| scene.send(client, 0x89, b"ping"));
    scene.settle();
    scene.world.reset(client);
    scene.settle();
    let counters = scene.counters();
    assert_eq!(counters.frames_written + dropped(&counters, DropReason::Closing), 10);
}

#[test]
fn an_echo_client_may_ping_while_its_echo_waits() {
    let mut scene = Scene::new(|config, weather| {
        config.runtime.outbox_bytes_max = 4096;
        weather.socket_bytes_max = 500;
    });
    let client = scene.client(Kind::Echo);
    scene.send(client, 0x82, &[b'x'; 8000]);
    scene.send(client, 0x89, b"ping");
    scene.send(client, 0x82, b"more");
    scene.settle();
    while !scene.world.read(client, usize::MAX).is_empty() {
        scene.settle();
    }
    let data = |payload: &[u8]| Frame::Data { text: false, payload: payload.to_vec() };
    let expected = [data(&[b'x'; 8000]), Frame::Pong(b"ping".to_vec()), data(b"more")];
    assert!(scene.frames(client) == expected, "{} frames", scene.frames(client).len());
}

#[test]
fn refused_clients_take_no_place_from_others() {
    let mut scene = Scene::new(|config, _| config.netsvr.customer.max_online = 1);
    let first = scene.client(Kind::Netsvr);
    scene.settle();
    let refused = scene.client(Kind::Netsvr);
    scene.settle();
    let reason = close_frame(1013, "open rate limited, try again later");
    assert_eq!(scene.frames(refused), [reason]);
    assert!(!scene.world.socket(refused).closed, "the refused client is still there");
    scene.world.hang_up(first);
    scene.settle();
    let second = scene.client(Kind::Netsvr);
    scene.settle();
    assert!(scene.world.is_open(second), "the place of the first one is free");
}

#[test]
fn a_backend_that_waits_for_room_gets_nothing_but_answers_during_a_drain() {
    for steps in 0..30 {
        let mut scene = Scene::on(2, |_, _| {});
        let mut task = Business::new(scene.world.connect(WORKERS), 0);
        (0..200).for_each(|_| task.ask_raw(Cmd::UniqIdCount, b"", Expect::AtLeast(0)));
        let bytes = task.pending.take_all();
        scene.world.write(task.peer, &bytes);
        (0..steps).for_each(|_| scene.world.step());
        scene.world.tell_all(|| Mail::Drain(Box::default()));
        scene.settle();
        if scene.world.socket(task.peer).closed {
            // The drain came before it was accepted.
            continue;
        }
        assert_eq!(scene.told(&task).len(), 200);
        assert_eq!(scene.world.socket(task.peer).written.len(), 200 * 8, "after {steps} steps");
    }
}

#[test]
fn a_stall_that_is_not_yet_known_when_a_worker_times_out_loses_nothing() {
    for (steps, wait_ms) in (1..6).flat_map(|steps| [150, 250].map(|wait_ms| (steps, wait_ms))) {
        let mut scene = Scene::new(|config, weather| {
            config.netsvr.worker.read_deadline = Duration::from_millis(200);
            config.netsvr.worker.register_delay = Duration::ZERO;
            weather.socket_bytes_max = 300;
        });
        let worker = scene.worker();
        scene.world.pass(20);
        let client = scene.client(Kind::Netsvr);
        scene.settle();
        (0..20).for_each(|_| scene.send(client, 0x82, &[b'x'; 40]));
        (0..steps).for_each(|_| scene.world.step());
        scene.world.pass(wait_ms);
        scene.settle();
        scene.world.pass(1000);
        scene.settle();
        let socket = scene.world.socket(worker.peer);
        assert!(socket.closed, "the worker has said nothing for too long");
        let (mut sure, mut rest) = (0, &socket.written[..socket.sure]);
        while let Some((told, size)) = streams::told(rest, false) {
            sure += matches!(told, Told::Event { .. }) as u64;
            rest = &rest[size..];
        }
        let counters = scene.counters();
        let [unwanted, lost_with_it] =
            [DropReason::NoWorker, DropReason::WorkerLost].map(|reason| dropped(&counters, reason));
        assert!(lost_with_it > 0 || sure + unwanted == 21, "what it was given is lost with it");
        let lost = unwanted + lost_with_it;
        assert_eq!(sure + lost, 21, "{sure} written, {lost} dropped: {steps} steps, {wait_ms} ms");
    }
}

#[test]
fn clients_that_leave_while_they_wait_leave_nothing_behind() {
    let mut scene = Scene::new(|config, weather| {
        config.netsvr.worker.on_full = WorkerFull::Wait;
        config.netsvr.worker.queue_frames_max = 1;
        weather.socket_bytes_max = 60;
    });
    scene.worker();
    scene.world.pass(100);
    (0..3).for_each(|_| _ = scene.client(Kind::Netsvr));
    scene.settle();
    for _ in 0..500 {
        let client = scene.client(Kind::Netsvr);
        scene.settle();
        scene.world.reset(client);
        scene.world.pass(10);
        scene.settle();
        let (_, gauges) = scene.world.shards().next().expect("there is one shard").report();
        let waiting = gauges.clients_waiting;
        assert!((3..100).contains(&waiting), "{waiting} in the waiting list");
    }
}

#[test]
fn a_client_that_was_sent_away_is_not_changed_any_more() {
    let mut scene = Scene::new(|_, _| {});
    let worker = scene.worker();
    scene.world.pass(100);
    let client = scene.client(Kind::Netsvr);
    scene.settle();
    let mut task = Business::new(scene.world.connect(WORKERS), 1);
    let uniq_id = scene.uniq_id(client);
    let uniq_ids = vec![uniq_id.clone()];
    let topics = vec!["topic".to_owned()];
    let session = |text: &str| proto::ConnInfoUpdate {
        uniq_id: uniq_id.clone(),
        new_session: text.to_owned(),
        data: text.to_owned().into(),
        ..Default::default()
    };
    let data = "bye".to_owned().into();
    task.command(Cmd::ConnInfoUpdate, &session("before"));
    task.command(Cmd::ForceOffline, &proto::ForceOffline { uniq_ids, data });
    task.command(Cmd::ConnInfoUpdate, &session("after"));
    let message = proto::TopicSubscribe { uniq_id: uniq_id.clone(), topics, ..Default::default() };
    task.command(Cmd::TopicSubscribe, &message);
    scene.tell(&mut task);
    scene.world.pass(3000);
    scene.settle();
    let told = scene.told(&worker);
    let Some(Told::Event { event: streams::Event::Close { session, topics, .. }, .. }) =
        told.last()
    else {
        panic!("no ConnClose: {told:?}");
    };
    assert_eq!((&session[..], topics.len()), ("before", 0));
    let data = |text: &str| Frame::Data { text: true, payload: text.as_bytes().to_vec() };
    let close = close_frame(1008, "forceOffline");
    assert_eq!(scene.frames(client), [data("before"), data("bye"), close]);
}

/// Request and reset arrive together, so that the shard hears of both in one turn.
#[test]
fn clients_that_leave_while_a_callback_is_due_leave_nothing_behind() {
    let mut config = Config::demo();
    config.netsvr.customer.on_open_callback_api = Some("http://application/open".to_owned());
    config.netsvr.customer.callbacks_max = 1;
    config.runtime.connections_max = 10;
    let (listeners, config) = (Plan::listeners(&config), Arc::new(config));
    let mut shard = Shard::new(
        0,
        1,
        config.clone(),
        ringway::shard::settings::shared(&config, 0),
        listeners,
        0,
    );
    let mut gone = Vec::new();
    for ms in 0..500 {
        shard.begin_turn(Now { ms, unix: 1_700_000_000, ..Now::default() });
        gone.drain(..).for_each(|slot| shard.closed(slot));
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let slot = shard.accepted(CLIENTS, peer).expect("there is a free slot");
        let mut request = Client::new(Peer::default(), 0, Kind::Netsvr, false).request();
        shard.received(slot, &mut request);
        shard.ended(slot);
        shard.end_turn();
        let closes = shard.engine.ops.drain(..).filter_map(|op| match op {
            Op::Close { slot } => Some(slot),
            _ => None,
        });
        gone.extend(closes);
        let requests = std::iter::from_fn(|| shard.next_outgoing(true)).count();
        assert_eq!(requests, (ms == 0) as usize, "one callback at a time");
        let piece_bytes_max = request.len();
        shard.audit(Sizes { frame_bytes_max: 0, piece_bytes_max, workers_max: 0 });
    }
}

/// Topics that stay, one message per client.
fn stay(scene: &mut Scene, task: &mut Business, topics: usize) {
    let topics: Vec<String> = (0..topics).map(|topic| format!("stays {topic}")).collect();
    let clients: Vec<Peer> = (0..4).map(|_| scene.client(Kind::Netsvr)).collect();
    scene.settle();
    for client in clients {
        let (uniq_id, topics) = (scene.uniq_id(client), topics.clone());
        let message = proto::TopicSubscribe { uniq_id, topics, ..Default::default() };
        task.command(Cmd::TopicSubscribe, &message);
    }
    scene.tell(task);
}

/// The messages of the answers to a command.
fn answers(scene: &Scene, business: &Business, wanted: Cmd) -> Vec<bytes::Bytes> {
    let body = |told| match told {
        Told::Answer { cmd, body } if cmd == wanted => Some(body),
        _ => None,
    };
    scene.told(business).into_iter().filter_map(body).collect()
}

/// A topic that ends and begins anew moves in the shard's tables, and so do its neighbours.
#[test]
fn what_is_there_all_the_time_is_in_a_large_answer_exactly_once() {
    for piece in 1..6 {
        let mut scene = Scene::on(2, |_, weather| weather.answer_piece = piece);
        let (mut task, mut other) = (scene.worker(), scene.worker());
        stay(&mut scene, &mut task, 40);
        let fickle = scene.client(Kind::Netsvr);
        scene.settle();
        let uniq_id = scene.uniq_id(fickle);
        task.command(Cmd::TopicList, &());
        let all = proto::TopicUniqIdCountReq { count_all: true, ..Default::default() };
        task.command(Cmd::TopicUniqIdCount, &all);
        let bytes = task.pending.take_all();
        scene.world.write(task.peer, &bytes);
        for round in 0..400 {
            let (uniq_id, topics) = (uniq_id.clone(), vec![format!("goes {}", round % 7)]);
            if round % 3 == 0 {
                let message = proto::TopicUnsubscribe { uniq_id, topics, ..Default::default() };
                other.command(Cmd::TopicUnsubscribe, &message);
            } else {
                let message = proto::TopicSubscribe { uniq_id, topics, ..Default::default() };
                other.command(Cmd::TopicSubscribe, &message);
            }
            let bytes = other.pending.take_all();
            scene.world.write(other.peer, &bytes);
            scene.world.step();
        }
        scene.settle();
        let list = answers(&scene, &task, Cmd::TopicList).remove(0);
        let mut list = proto::TopicListResp::decode(list).expect("a list").topics;
        let stays = list.iter().filter(|topic| topic.starts_with("stays")).count();
        let len = list.len();
        list.sort_unstable();
        list.dedup();
        assert_eq!((stays, list.len()), (40, len), "in pieces of {piece}");
        let counts = answers(&scene, &task, Cmd::TopicUniqIdCount).remove(0);
        let counts = proto::TopicUniqIdCountResp::decode(counts).expect("counts").items;
        let wrong = counts.iter().find(|(topic, count)| match topic.starts_with("stays") {
            true => **count != 4,
            false => **count != 1,
        });
        assert_eq!(wrong, None, "in pieces of {piece}");
        assert_eq!(counts.keys().filter(|topic| topic.starts_with("stays")).count(), 40);
    }
}

#[test]
fn others_are_served_while_a_large_answer_is_made() {
    let mut scene = Scene::new(|_, weather| weather.answer_piece = 1);
    let mut task = scene.worker();
    stay(&mut scene, &mut task, 300);
    let client = scene.client(Kind::Netsvr);
    scene.settle();
    task.command(Cmd::TopicList, &());
    let bytes = task.pending.take_all();
    scene.world.write(task.peer, &bytes);
    scene.world.step();
    scene.send(client, 0x89, b"still there?");
    (0..50).for_each(|_| scene.world.step());
    assert_eq!(scene.frames(client), [Frame::Pong(b"still there?".to_vec())]);
    assert!(answers(&scene, &task, Cmd::TopicList).is_empty(), "it takes 300 turns at least");
    scene.settle();
    assert_eq!(answers(&scene, &task, Cmd::TopicList).len(), 1);
}

#[test]
fn nothing_more_is_found_for_a_backend_that_has_left() {
    let mut scene = Scene::on(2, |_, weather| weather.answer_piece = 1);
    let mut task = scene.worker();
    stay(&mut scene, &mut task, 300);
    let mut gone = Business::new(scene.world.connect(WORKERS), 1);
    // With as many as may be it would not be read, and that it has left is noticed at a send.
    (0..60).for_each(|_| gone.command(Cmd::TopicList, &()));
    let bytes = gone.pending.take_all();
    scene.world.write(gone.peer, &bytes);
    (0..200).for_each(|_| scene.world.step());
    scene.world.reset(gone.peer);
    // A single answer takes 600.
    scene.world.settle(300);
    scene.world.audit(FRAME_BYTES_MAX, 1);
    assert_eq!(scene.world.shards().filter(|shard| shard.busy()).count(), 0);
}

/// Each answer has 10 MB; of what a connection is given 16 MiB may wait, of all together 64 MiB.
#[test]
fn answers_that_nobody_reads_take_so_much_memory_and_no_more() {
    let mut scene = Scene::new(|_, weather| {
        weather.answer_piece = 3;
        weather.socket_bytes_max = 1000;
        weather.piece_bytes_max = 1 << 20;
    });
    let mut task = scene.worker();
    let client = scene.client(Kind::Netsvr);
    scene.settle();
    for topic in 0..20 {
        let (uniq_id, topics) = (scene.uniq_id(client), vec![topic.to_string().repeat(250_000)]);
        let message = proto::TopicSubscribe { uniq_id, topics, ..Default::default() };
        task.command(Cmd::TopicSubscribe, &message);
        scene.tell(&mut task);
    }
    let answer_bytes = proto::TopicListResp {
        topics: (0..20).map(|topic| topic.to_string().repeat(250_000)).collect(),
    }
    .encoded_len();
    for number in 1..=12 {
        let mut silent = Business::new(scene.world.connect(WORKERS), number);
        (0..8).for_each(|_| silent.command(Cmd::TopicList, &()));
        let bytes = silent.pending.take_all();
        scene.world.write(silent.peer, &bytes);
        scene.world.settle(ROUNDS_MAX);
    }
    let sizes = Sizes { frame_bytes_max: 1 << 20, piece_bytes_max: 1 << 20, workers_max: 1 };
    let held = scene.world.shards().map(|shard| shard.audit(sizes).answer_bytes).sum::<usize>();
    assert!(held > ringway::protocols::netsvr::limits::ANSWERS_BYTES_MAX, "{held}: some are made");
    assert!(
        held < ringway::protocols::netsvr::limits::ANSWERS_BYTES_MAX + 2 * answer_bytes,
        "{held}"
    );
}
