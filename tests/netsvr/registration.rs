//! Register and Unregister (specification sections 3.8 and 6.2).

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringway::wire::worker::proto;

use crate::common::*;
use crate::support::*;

fn response(business: &mut Business, events: i32) -> proto::RegisterResp {
    let request = proto::RegisterReq { events, ..Default::default() };
    business.ask(cmd::REGISTER, &request)
}

#[test]
fn a_mask_without_any_event_is_invalid_and_may_be_corrected() {
    let server = Server::start(config());
    for events in [0, 8, 16, 24, i32::MIN] {
        let mut worker = Business::connect(server.address(WORKERS));
        worker.send(cmd::REGISTER, &proto::RegisterReq { events, ..Default::default() });
        // Vector V5.
        let expected = hex("08 02 12 0c 49 6e 76 61 6c 69 64 45 76 65 6e 74");
        assert_eq!(worker.frame(), (cmd::REGISTER, expected), "{events}");
        assert_eq!(response(&mut worker, OPEN).code, 0);
    }
}

#[test]
fn other_bits_are_kept_and_ignored() {
    let server = Server::start(config());
    for events in [15, 1 | 64, 4 | 1 << 30] {
        let mut worker = Business::connect(server.address(WORKERS));
        assert_eq!(response(&mut worker, events).message, "Success");
    }
}

#[test]
fn a_second_registration_of_a_connection_is_a_duplicate() {
    let server = Server::start(config());
    let mut worker = server.worker(OPEN);
    for events in [OPEN, ALL] {
        worker.send(cmd::REGISTER, &proto::RegisterReq { events, ..Default::default() });
        // Vector V6.
        let expected = hex("08 03 12 11 44 75 70 6c 69 63 61 74 65 52 65 67 69 73 74 65 72");
        assert_eq!(worker.frame(), (cmd::REGISTER, expected));
    }
    // What is wrong with the mask comes first.
    assert_eq!(response(&mut worker, 8).code, 2);
    // The first registration is as it was.
    let mut client = server.client();
    worker.opened();
    client.send_text("not asked for");
    expect_silence(&mut client);
    assert_eq!(worker.online_count(), 1);
}

#[test]
fn a_negative_mask_registers_repeatedly_and_still_gets_one_share() {
    let server = Server::start(config());
    let mut negative = Business::connect(server.address(WORKERS));
    for _ in 0..3 {
        assert_eq!(response(&mut negative, -1).message, "Success");
    }
    let mut other = server.worker(MESSAGE);
    let mut client = server.client();
    negative.opened();
    (0..20).for_each(|number| client.send_text(&number.to_string()));
    for _ in 0..10 {
        negative.transfer();
        other.transfer();
    }
    expect_silence(&mut client);
    for worker in [&mut negative, &mut other] {
        assert_eq!(worker.online_count(), 1, "nothing came twice");
    }
}

#[test]
fn the_name_of_a_registration_is_made_of_both_addresses_and_the_time() {
    let server = Server::start(config());
    for listener in [WORKERS, TASKS] {
        let mut worker = Business::connect(server.address(listener));
        let own = worker.socket.local_addr().expect("it is connected");
        let before = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let name = worker.register(ALL).conn_id;
        let port = server.address(listener).port();
        assert_eq!(name.len(), 32);
        assert_eq!(name[..24], format!("7f000001{port:04x}7f000001{:04x}", own.port()));
        let time = u64::from_str_radix(&name[24..], 16).expect("hexadecimal digits");
        assert!(before.abs_diff(time) < 30, "{time} is not about {before}");
    }
}

#[test]
fn the_answer_comes_first_and_events_wait_a_moment() {
    let delay = Duration::from_millis(400);
    let mut config = config();
    config.netsvr.worker.register_delay = delay;
    let mut stage = Stage::new(config);
    let mut worker = Business::connect(stage.server.address(WORKERS));
    let before = Instant::now();
    worker.register(MESSAGE);
    stage.clients.iter_mut().for_each(|client| client.send_text("early"));
    // Answers do not wait for events.
    assert_eq!(worker.online_count(), 2);
    worker.transfer();
    worker.transfer();
    let elapsed = before.elapsed();
    assert!(elapsed >= delay, "after {elapsed:?}");
}

#[test]
fn right_after_the_answer_every_shard_knows_the_worker() {
    let mut config = config();
    config.netsvr.worker.register_delay = Duration::ZERO;
    let mut stage = Stage::new(config);
    for round in 0..100 {
        let mut worker = Business::connect(stage.server.address(WORKERS));
        let name = worker.register(MESSAGE).conn_id;
        let text = round.to_string();
        stage.clients.iter_mut().for_each(|client| client.send_text(&text));
        for _ in 0..2 {
            assert_eq!(worker.transfer().data, text.as_bytes());
        }
        unregister(&mut stage.task, &name);
    }
}

#[test]
fn a_worker_can_end_its_own_registration_after_its_last_event() {
    let mut stage = Stage::new(config());
    let mut leaving = Business::connect(stage.server.address(WORKERS));
    let name = leaving.register(MESSAGE).conn_id;
    let staying = Readers::new(vec![stage.server.worker(MESSAGE)]);
    let count = 400;
    let [first, second] = &mut stage.clients;
    let unregister = framed(cmd::UNREGISTER, &proto::UnRegisterReq { conn_id: name });
    let mut seen = BTreeSet::new();
    std::thread::scope(|scope| {
        for client in [first, second] {
            scope.spawn(move || {
                (0..count).for_each(|number| client.send_text(&number.to_string()));
            });
        }
        while seen.len() < 100 {
            assert!(seen.insert(leaving.frame()));
        }
        leaving.write(&unregister);
        loop {
            match leaving.frame() {
                (cmd::UNREGISTER, body) => break assert_eq!(body, b""),
                frame => assert!(seen.insert(frame)),
            }
        }
    });
    // All the rest came to the other worker: nothing is lost, nothing follows the answer.
    for (_, number, body) in staying.take(2 * count - seen.len()) {
        assert!(seen.insert((number, body)), "an event came twice");
    }
    assert!(seen.iter().all(|(number, _)| *number == cmd::TRANSFER));
    assert_eq!(leaving.online_count(), 2, "the connection goes on");
}

#[test]
fn a_registration_can_be_ended_from_any_connection() {
    let mut stage = Stage::new(config_with_admin());
    let workers = worker_pair(&stage.server, MESSAGE);
    let mut staying = stage.server.worker(MESSAGE);
    // Four connections, so that some are on the shard of the worker and some are not.
    let mut tasks: Vec<Business> = (0..4).map(|_| stage.server.task()).collect();
    for ((mut worker, name), tasks) in workers.into_iter().zip(tasks.chunks_mut(2)) {
        for task in tasks {
            // The second time it is unknown already, and is answered all the same.
            unregister(task, &name);
        }
        assert_eq!(worker.online_count(), 2, "nothing came, and it answers");
    }
    for (number, client) in (0..).zip(&mut stage.clients) {
        for text in [format!("{number}a"), format!("{number}b"), format!("{number}c")] {
            client.send_text(&text);
            assert_eq!(staying.transfer().data, text.as_bytes());
        }
    }
}

#[test]
fn events_on_their_way_are_delivered_before_the_answer_on_another_connection() {
    let mut config = config();
    config.netsvr.worker.register_delay = Duration::from_millis(300);
    let mut stage = Stage::new(config);
    let mut worker = Business::connect(stage.server.address(WORKERS));
    let before = Instant::now();
    let name = worker.register(MESSAGE).conn_id;
    stage.clients.iter_mut().for_each(|client| client.send_text("on its way"));
    stage.clients.iter_mut().for_each(expect_silence);
    // The events still wait in the gateway.
    unregister(&mut stage.task, &name);
    assert!(before.elapsed() >= Duration::from_millis(300), "it was answered too early");
    assert_eq!(&*worker.transfer().data, b"on its way");
    assert_eq!(&*worker.transfer().data, b"on its way");
    stage.clients.iter_mut().for_each(|client| client.send_text("too late"));
    stage.clients.iter_mut().for_each(expect_silence);
    assert_eq!(worker.online_count(), 2, "nothing more came");
}

#[test]
fn an_unknown_registration_is_answered_as_well() {
    let server = Server::start(config());
    let mut task = server.task();
    let never = "7f00000117ad7f000001c35065e5a100";
    for name in [never, "", "x", &"y".repeat(1000)] {
        // Vectors V7 and V8.
        task.send(cmd::UNREGISTER, &proto::UnRegisterReq { conn_id: name.to_owned() });
        assert_eq!(task.frame(), (cmd::UNREGISTER, Vec::new()));
    }
    let mut worker = Business::connect(server.address(WORKERS));
    let name = worker.register(ALL).conn_id;
    drop(worker);
    unregister(&mut task, &name);
}

#[test]
fn after_unregister_a_connection_can_not_register_again() {
    let server = Server::start(config());
    for events in [ALL, -1] {
        let mut worker = Business::connect(server.address(WORKERS));
        let name = worker.register(events).conn_id;
        unregister(&mut worker, &name);
        assert_eq!(response(&mut worker, ALL).code, 3, "first {events}");
    }
}

#[test]
fn a_closed_worker_gets_nothing_more() {
    let mut stage = Stage::new(config_with_admin());
    let [(first, _), (mut second, _)] = worker_pair(&stage.server, MESSAGE);
    drop(first);
    wait_until("it is gone", || prometheus_sum(&stage.server, "ringway_workers", "") == 1.0);
    for (number, client) in (0..).zip(&mut stage.clients) {
        for text in [format!("{number}a"), format!("{number}b"), format!("{number}c")] {
            client.send_text(&text);
            assert_eq!(second.transfer().data, text.as_bytes());
        }
    }
}
