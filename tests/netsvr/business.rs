//! The protocol of business processes: frames, limits, bad input (specification section 3).

use std::io::Write;
use std::time::{Duration, Instant};

use prost::Message;
use ringway::config::all::Config;
use ringway::protocols::netsvr::config::WorkerCommands;
use ringway::protocols::netsvr::wire::Generation;
use ringway::wire::worker::proto;

use crate::common::*;
use crate::support::*;

const LISTENERS: [usize; 2] = [WORKERS, TASKS];

/// Queries with parameters.
const QUERIES: [u32; 9] = [
    cmd::CHECK_ONLINE,
    cmd::TOPIC_UNIQ_ID_LIST,
    cmd::TOPIC_UNIQ_ID_COUNT,
    cmd::TOPIC_CUSTOMER_ID_LIST,
    cmd::TOPIC_CUSTOMER_ID_TO_UNIQ_IDS_LIST,
    cmd::TOPIC_CUSTOMER_ID_COUNT,
    cmd::CONN_INFO,
    cmd::CONN_INFO_BY_CUSTOMER_ID,
    cmd::UNREGISTER,
];

/// Queries that take no parameters.
const PLAIN_QUERIES: [u32; 7] = [
    cmd::UNIQ_ID_LIST,
    cmd::UNIQ_ID_COUNT,
    cmd::TOPIC_LIST,
    cmd::TOPIC_COUNT,
    cmd::CUSTOMER_ID_LIST,
    cmd::CUSTOMER_ID_COUNT,
    cmd::METRICS,
];

/// Field 1 is length-delimited and longer than the body: no message decodes this.
const TRUNCATED: &[u8] = &[0x0a, 0x7f, b'x'];
/// A string in field 1 that is not UTF-8.
const NOT_UTF8: &[u8] = &[0x0a, 0x02, 0xff, 0xfe];

fn limits(bytes: u32) -> Config {
    let mut config = config();
    config.netsvr.worker.receive_pack_limit = bytes;
    config.netsvr.task.receive_pack_limit = bytes;
    config
}

/// Checks that the gateway closes after these bytes, without a word.
fn expect_closed(server: &Server, listener: usize, bytes: &[u8]) {
    let mut business = Business::connect(server.address(listener));
    business.write(bytes);
    assert_eq!(business.try_frame(), None, "{bytes:02x?}");
}

/// Checks that a connection still answers, and has nothing to say before that.
fn expect_alive(business: &mut Business) {
    assert_eq!(business.online_count(), 0);
}

/// A query whose answer repeats its parameter: which of the ids are online.
fn question(uniq_id: &str, times: usize) -> Vec<u8> {
    let request = proto::CheckOnlineReq { uniq_ids: vec![uniq_id.to_owned(); times] };
    framed(cmd::CHECK_ONLINE, &request)
}

#[test]
fn a_frame_of_exactly_the_limit_is_read_and_a_longer_one_closes() {
    let server = Server::start(limits(4096));
    for listener in LISTENERS {
        let mut business = Business::connect(server.address(listener));
        business.write(&business_frame(cmd::UNIQ_ID_COUNT, &vec![0; 4092]));
        assert_eq!(business.frame(), (cmd::UNIQ_ID_COUNT, Vec::new()));
        // The announced length is enough.
        expect_closed(&server, listener, &4097u32.to_be_bytes());
        expect_closed(&server, listener, &u32::MAX.to_be_bytes());
    }
}

#[test]
fn each_listener_has_its_own_limit() {
    let mut config = limits(4096);
    config.netsvr.worker.receive_pack_limit = 1024;
    let server = Server::start(config);
    let frame = business_frame(cmd::UNIQ_ID_COUNT, &[0; 2000]);
    expect_closed(&server, WORKERS, &frame);
    let mut task = server.task();
    task.write(&frame);
    assert_eq!(task.frame(), (cmd::UNIQ_ID_COUNT, Vec::new()));
}

#[test]
fn a_frame_without_room_for_a_command_closes() {
    let server = Server::start(config());
    for listener in LISTENERS {
        for len in 0..4u32 {
            let bytes = [&len.to_be_bytes()[..], &[b'x'; 3][..len as usize]].concat();
            expect_closed(&server, listener, &bytes);
        }
    }
}

/// Nothing of it is lost to a reset, which unread bytes would lead to.
#[test]
fn what_was_asked_before_is_answered_though_more_of_a_bad_frame_follows() {
    let server = Server::start(limits(4096));
    for listener in LISTENERS {
        let mut business = Business::connect(server.address(listener));
        let asked = business_frame(cmd::UNIQ_ID_COUNT, &[]).repeat(50);
        business.write(&[&asked[..], &8_000_000u32.to_be_bytes()].concat());
        let mut rest = business.socket.try_clone().expect("a descriptor");
        let writing = std::thread::spawn(move || rest.write_all(&vec![b'x'; 8_000_000]));
        for _ in 0..50 {
            assert_eq!(business.frame(), (cmd::UNIQ_ID_COUNT, Vec::new()));
        }
        assert_eq!(business.try_frame(), None);
        drop(business);
        let _ = writing.join();
    }
}

#[test]
fn an_unknown_command_closes() {
    let server = Server::start(config());
    let numbers = [0, 1, 900_001_000, 900_002_000, 900_002_018, 900_003_000, 900_003_019, u32::MAX];
    let to_business = [cmd::CONN_OPEN, cmd::CONN_CLOSE, cmd::TRANSFER];
    for listener in LISTENERS {
        for number in numbers.into_iter().chain(to_business) {
            expect_closed(&server, listener, &business_frame(number, b""));
        }
        // A heartbeat with another text is nothing but a strange command.
        expect_closed(&server, listener, &heartbeat("~6YOt5rW35piO!"));
        expect_closed(&server, listener, &heartbeat("~6YOt5rW35piO~~"));
    }
}

fn heartbeat(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
}

#[test]
fn a_heartbeat_is_not_answered() {
    let server = Server::start(config());
    for listener in LISTENERS {
        let mut business = Business::connect(server.address(listener));
        // Vector V1, split at every place, then several in one segment.
        let vector = hex("0000000e 7e36594f7435725733357069 4f7e");
        assert_eq!(vector, heartbeat(HEARTBEAT));
        for at in 1..vector.len() {
            business.write(&vector[..at]);
            business.write(&vector[at..]);
        }
        business.write(&vector.repeat(5));
        expect_alive(&mut business);
    }
}

#[test]
fn each_listener_has_its_own_heartbeat_and_it_may_be_short() {
    let mut config = config();
    config.netsvr.worker.heartbeat_message = b"hb".to_vec();
    config.netsvr.task.heartbeat_message = b"\x35\xa4\xf4\xbf".to_vec();
    let server = Server::start(config);
    let mut worker = Business::connect(server.address(WORKERS));
    worker.write(&heartbeat("hb"));
    expect_alive(&mut worker);
    expect_closed(&server, WORKERS, &heartbeat(HEARTBEAT));
    expect_closed(&server, TASKS, &heartbeat("hb"));
    // The heartbeat is recognised before the command number is looked at: this would be a query.
    let mut task = server.task();
    task.write(&business_frame(cmd::UNIQ_ID_COUNT, b""));
    assert_eq!(task.ask::<proto::TopicCountResp>(cmd::TOPIC_COUNT, &()).count, 0);
}

#[test]
fn both_listeners_take_every_command() {
    let server = Server::start(config());
    for listener in LISTENERS {
        let mut business = Business::connect(server.address(listener));
        let name = business.register(OPEN).conn_id;
        let mut client = server.client();
        let id = business.opened();
        business.single_cast(&id, "hello");
        assert_eq!(client.frame().text(), "hello");
        business.subscribe(&id, &["room"]);
        assert_eq!(business.ask::<proto::TopicListResp>(cmd::TOPIC_LIST, &()).topics, ["room"]);
        let limit: proto::LimitResp = business.ask(cmd::LIMIT, &proto::LimitReq::default());
        assert_eq!(limit, proto::LimitResp::default());
        unregister(&mut business, &name);
        drop(client);
        wait_until("the client is gone", || business.online_count() == 0);
    }
}

#[test]
fn with_own_commands_each_listener_takes_its_own_only() {
    let mut config = config();
    config.netsvr.worker.commands = WorkerCommands::Own;
    let server = Server::start(config);
    for (listener, own) in [(WORKERS, true), (TASKS, false)] {
        for number in (900_002_001..=900_002_017).chain(900_003_001..=900_003_018) {
            let is_own = own == [cmd::REGISTER, cmd::UNREGISTER].contains(&number);
            let frame = business_frame(number, b"");
            if !is_own {
                expect_closed(&server, listener, &frame);
                continue;
            }
            let mut business = Business::connect(server.address(listener));
            business.write(&frame);
            // One-way commands are not answered.
            if number > 900_003_000 {
                assert_eq!(business.frame().0, number);
            } else {
                expect_alive(&mut business);
            }
        }
    }
    // What came before the command of the other port is answered.
    let mut task = server.task();
    let question = business_frame(cmd::UNIQ_ID_COUNT, b"");
    task.write(&[question, business_frame(cmd::UNREGISTER, b"")].concat());
    assert_eq!(task.frame(), (cmd::UNIQ_ID_COUNT, Vec::new()));
    assert_eq!(task.try_frame(), None);
}

#[test]
fn generation_5_needs_no_task_listener() {
    let mut config = config();
    config.netsvr.generation = Generation::G5;
    config.listeners.remove(TASKS);
    let server = Server::start(config);
    // One connection for events, and another one for everything else.
    let mut main = Business::connect(server.address(WORKERS));
    let name = main.register(OPEN | MESSAGE).conn_id;
    let mut task = Business::connect(server.address(WORKERS));
    let mut client = server.client();
    let id = main.expect::<proto::ConnOpen5>(cmd::CONN_OPEN).uniq_id;
    client.send_text("hello");
    assert_eq!(main.transfer().uniq_id, id);
    // One-way commands may come on the main connection as well.
    main.single_cast(&id, "from the main connection");
    assert_eq!(client.frame().text(), "from the main connection");
    task.single_cast(&id, "from the task connection");
    assert_eq!(client.frame().text(), "from the task connection");
    assert_eq!(task.online_count(), 1);
    unregister(&mut task, &name);
}

#[test]
fn who_sends_nothing_for_the_read_deadline_is_closed() {
    let mut config = config();
    config.netsvr.worker.read_deadline = Duration::from_millis(400);
    config.netsvr.task.read_deadline = Duration::from_millis(400);
    let server = Server::start(config);
    for listener in LISTENERS {
        let start = Instant::now();
        let mut registered = Business::connect(server.address(listener));
        registered.register(ALL);
        let mut silent = Business::connect(server.address(listener));
        assert_eq!(silent.try_frame(), None);
        assert_eq!(registered.try_frame(), None);
        let elapsed = start.elapsed();
        assert!(elapsed >= Duration::from_millis(390), "closed after {elapsed:?}");
        assert!(elapsed < Duration::from_secs(5), "closed after {elapsed:?}");
    }
}

#[test]
fn a_frame_must_be_complete_before_the_read_deadline() {
    let mut config = config();
    config.netsvr.worker.read_deadline = Duration::from_millis(400);
    config.netsvr.task.read_deadline = Duration::from_millis(400);
    let server = Server::start(config);
    for listener in LISTENERS {
        let mut business = Business::connect(server.address(listener));
        business.write(&[0, 0, 0xff, 0xff]);
        let elapsed = trickle_until_closed(&mut business.socket, b'x');
        assert!(elapsed >= Duration::from_millis(390), "closed after {elapsed:?}");
        assert!(elapsed < Duration::from_secs(5), "closed after {elapsed:?}");
    }
}

#[test]
fn heartbeats_keep_a_connection_beyond_the_read_deadline() {
    let deadline = Duration::from_millis(600);
    let mut config = config();
    config.netsvr.task.read_deadline = deadline;
    let server = Server::start(config);
    let mut silent = server.task();
    let mut task = server.task();
    // Another connection that is closed twice in this time is the clock.
    for _ in 0..2 {
        silent.socket.set_read_timeout(Some(Duration::from_millis(50))).expect("valid");
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            task.write(&heartbeat(HEARTBEAT));
            match std::io::Read::read(&mut silent.socket, &mut [0]) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                _ => break,
            }
        }
        silent = server.task();
    }
    expect_alive(&mut task);
}

#[test]
fn an_undecodable_register_is_answered_with_code_1_and_may_be_repeated() {
    let server = Server::start(config());
    for listener in LISTENERS {
        for body in [TRUNCATED, &[0x08][..], &[0xff; 12]] {
            let mut business = Business::connect(server.address(listener));
            business.write(&business_frame(cmd::REGISTER, body));
            let response: proto::RegisterResp = business.expect(cmd::REGISTER);
            let expected = proto::RegisterResp {
                code: 1,
                message: "UnmarshalError".to_owned(),
                conn_id: String::new(),
            };
            assert_eq!(response, expected);
            assert_eq!(business.register(ALL).message, "Success");
        }
    }
}

#[test]
fn an_undecodable_query_gets_the_empty_answer_in_its_turn() {
    let server = Server::start(config());
    for listener in LISTENERS {
        let mut business = Business::connect(server.address(listener));
        for body in [TRUNCATED, NOT_UTF8] {
            for query in QUERIES {
                business.write(&business_frame(query, body));
                business.write(&business_frame(cmd::UNIQ_ID_COUNT, b""));
            }
            for query in QUERIES {
                assert_eq!(business.frame(), (query, Vec::new()));
                assert_eq!(business.frame(), (cmd::UNIQ_ID_COUNT, Vec::new()));
            }
        }
        business.write(&business_frame(cmd::LIMIT, TRUNCATED));
        assert_eq!(business.frame(), (cmd::LIMIT, Vec::new()));
    }
}

#[test]
fn an_undecodable_one_way_command_is_ignored() {
    let server = Server::start(config());
    for listener in LISTENERS {
        let mut business = Business::connect(server.address(listener));
        for number in cmd::CONN_INFO_UPDATE..=cmd::FORCE_OFFLINE_GUEST {
            business.write(&business_frame(number, TRUNCATED));
        }
        expect_alive(&mut business);
    }
}

#[test]
fn a_one_way_command_with_invalid_text_does_nothing() {
    let mut stage = Stage::new(config());
    // ConnInfoUpdate with a session that is not UTF-8, and with data.
    let mut body = proto::ConnInfoUpdate { uniq_id: stage.ids[0].clone(), ..Default::default() }
        .encode_to_vec();
    body.extend([0x1a, 0x01, 0xff, 0x32, 0x01, b'x']);
    stage.task.write(&business_frame(cmd::CONN_INFO_UPDATE, &body));
    assert_eq!(stage.received(), [strings(&[]), strings(&[])]);
    assert_eq!(stage.info(0).0, "");
}

#[test]
fn the_body_of_a_query_without_parameters_is_not_looked_at() {
    let mut config = config();
    config.netsvr.metrics_items = Vec::new();
    let server = Server::start(config);
    let mut task = server.task();
    for query in PLAIN_QUERIES {
        for body in [TRUNCATED, NOT_UTF8, b"anything"] {
            task.write(&business_frame(query, body));
            assert_eq!(task.frame(), (query, Vec::new()));
        }
    }
}

#[test]
fn unknown_fields_are_ignored() {
    let mut stage = Stage::new(config());
    let mut body =
        proto::SingleCast { uniq_id: stage.ids[0].clone(), data: b"hi"[..].into() }.encode_to_vec();
    // Field 15 as varint, field 16 as text.
    body.extend([0x78, 0x05, 0x82, 0x01, 0x01, b'x']);
    stage.task.write(&business_frame(cmd::SINGLE_CAST, &body));
    assert_eq!(stage.received()[0], ["hi"]);
    // RegisterReq of generation 5 has one field more (vector V3).
    let mut worker = Business::connect(stage.server.address(WORKERS));
    worker.write(&hex("00000008 35a4f4b9 0807 1019"));
    let response: proto::RegisterResp = worker.expect(cmd::REGISTER);
    assert_eq!(response.code, 0);
}

#[test]
fn a_connection_that_did_not_register_is_sent_nothing_but_answers() {
    let mut stage = Stage::new(config());
    let mut onlookers = LISTENERS.map(|listener| {
        let mut business = Business::connect(stage.server.address(listener));
        business.online_count();
        business
    });
    stage.task.send(cmd::BROADCAST, &proto::Broadcast { data: b"x"[..].into() });
    for client in &mut stage.clients {
        client.send_text("to nobody");
        assert_eq!(client.frame().text(), "x");
        expect_silence(client);
    }
    drop(stage.server.client());
    wait_until("the third is gone", || stage.task.online_count() == 2);
    for business in &mut onlookers {
        assert_eq!(business.online_count(), 2);
    }
}

#[test]
fn frames_may_arrive_in_any_pieces() {
    let server = Server::start(config());
    let mut task = server.task();
    let frames = [
        business_frame(cmd::UNIQ_ID_COUNT, b""),
        heartbeat(HEARTBEAT),
        business_frame(cmd::TOPIC_COUNT, b""),
    ]
    .concat();
    for byte in frames.iter().chain(&frames) {
        task.write(&[*byte]);
    }
    for _ in 0..2 {
        assert_eq!(task.frame(), (cmd::UNIQ_ID_COUNT, Vec::new()));
        assert_eq!(task.frame(), (cmd::TOPIC_COUNT, Vec::new()));
    }
}

#[test]
fn a_large_command_in_many_segments_is_one_command() {
    let mut stage = Stage::new(config());
    let data = vec![b'd'; 1_500_000];
    let message = proto::Multicast { uniq_ids: stage.ids.to_vec(), data: data.clone().into() };
    let frame = framed(cmd::MULTICAST, &message);
    for piece in frame.chunks(100_000) {
        stage.task.write(piece);
    }
    for client in &mut stage.clients {
        assert!(client.frame().payload == data);
    }
}

#[test]
fn a_thousand_pipelined_queries_are_answered_in_order() {
    let mut stage = Stage::new(config());
    stage.update(0, "", "42", &["room"]);
    stage.update(1, "", "42", &["room"]);
    assert_eq!(stage.task.online_count(), 2);
    let rooms = proto::TopicCustomerIdToUniqIdsListReq { topics: strings(&["room"]) };
    // Several connections, so that some are on either shard.
    for _ in 0..4 {
        let mut task = stage.server.task();
        let mut frames = Vec::new();
        for number in 0..1000 {
            // Gathered once and twice, answered at once, and undecodable.
            frames.extend(match number % 5 {
                0 => question(&stage.ids[number / 5 % 2], number),
                1 => framed(cmd::TOPIC_CUSTOMER_ID_TO_UNIQ_IDS_LIST, &rooms),
                2 => business_frame(cmd::UNIQ_ID_COUNT, b""),
                3 => framed(cmd::LIMIT, &proto::LimitReq::default()),
                _ => business_frame(cmd::CONN_INFO, TRUNCATED),
            });
        }
        let mut writer = task.socket.try_clone().expect("a descriptor is left");
        let writing = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &frames));
        for number in 0..1000 {
            match number % 5 {
                0 => {
                    let answer: proto::CheckOnlineResp = task.expect(cmd::CHECK_ONLINE);
                    assert_eq!(answer.uniq_ids.len(), number, "the answer to another question");
                }
                1 => {
                    let answer: proto::TopicCustomerIdToUniqIdsListResp =
                        task.expect(cmd::TOPIC_CUSTOMER_ID_TO_UNIQ_IDS_LIST);
                    assert_eq!(answer.items["room"].items["42"].uniq_ids.len(), 2);
                }
                2 => {
                    let answer: proto::UniqIdCountResp = task.expect(cmd::UNIQ_ID_COUNT);
                    assert_eq!(answer.count, 2);
                }
                3 => assert_eq!(task.frame(), (cmd::LIMIT, Vec::new())),
                _ => assert_eq!(task.frame(), (cmd::CONN_INFO, Vec::new())),
            }
        }
        writing.join().expect("no panic").expect("the gateway reads");
    }
}

#[test]
fn who_does_not_read_its_answers_is_not_read_until_it_does() {
    let stage = Stage::new(config_with_admin());
    let mut task = stage.server.task();
    // 27 KB of answer each, more in total than all buffers on the way hold.
    let count = 1200;
    let mut writer = task.socket.try_clone().expect("a descriptor is left");
    let frame = question(&stage.ids[0], 900);
    let writing = std::thread::spawn(move || {
        for _ in 0..count {
            std::io::Write::write_all(&mut writer, &frame).expect("the gateway reads in the end");
        }
    });
    wait_until("its answers pile up", || {
        prometheus_sum(&stage.server, "ringway_connections_stalled", "") == 1.0
    });
    // Nobody else is held up meanwhile.
    let mut other = stage.server.task();
    assert_eq!(other.online_count(), 2);
    for _ in 0..count {
        let answer: proto::CheckOnlineResp = task.expect(cmd::CHECK_ONLINE);
        assert_eq!(answer.uniq_ids.len(), 900);
    }
    writing.join().expect("all was written");
    assert_eq!(other.online_count(), 2);
}

#[test]
fn answers_leave_out_defaults_but_not_in_maps() {
    let mut stage = Stage::new(config());
    // Vector V28: count 0 is the bare header.
    stage.task.write(&hex("00000004 35a4f4c1"));
    assert_eq!(stage.task.frame(), (cmd::TOPIC_COUNT, Vec::new()));
    stage.task.subscribe(&stage.ids[1], &["room"]);
    // Vectors V35 and V36: key and value are both written.
    let request = proto::TopicCustomerIdCountReq { topics: strings(&["room"]), count_all: false };
    stage.task.send(cmd::TOPIC_CUSTOMER_ID_COUNT, &request);
    let body = hex("0a08 0a04 726f6f6d 1000");
    assert_eq!(stage.task.frame(), (cmd::TOPIC_CUSTOMER_ID_COUNT, body));
    let request = proto::TopicCustomerIdListReq { topics: strings(&["room"]) };
    stage.task.send(cmd::TOPIC_CUSTOMER_ID_LIST, &request);
    let body = hex("0a08 0a04 726f6f6d 1200");
    assert_eq!(stage.task.frame(), (cmd::TOPIC_CUSTOMER_ID_LIST, body));
}
