//! Limits and what they do (sections 5, 12 and 15).

use std::time::Duration;

use crate::common::{Server, wait_until};
use crate::support::*;

#[test]
fn the_eleventh_error_closes() {
    let server = Server::start(config());
    let mut guest = Im::guest(&server);
    for _ in 0..11 {
        guest.write(&sent("E4"));
        assert_eq!(guest.response().bare(), (7, 99, 5));
    }
    guest.expect_end();
    let mut websocket = Im::websocket(&server);
    websocket.log_in_as_guest();
    for _ in 0..11 {
        websocket.write(&sent("E4"));
        assert_eq!(websocket.response().bare(), (7, 99, 5));
    }
    websocket.expect_close(1002);
    let mut drops = Im::user(&server, "u1001");
    (0..11).for_each(|_| drops.send(CMS, b"\x0a\x7f"));
    drops.expect_end();
}

/// What an application refuses is no abuse.
#[test]
fn drops_that_break_no_protocol_are_not_counted() {
    let server = Server::start(config());
    let mut user = Im::user(&server, "u1001");
    (0..30).for_each(|_| user.say("not-joined", "x"));
    user.expect_nothing();
}

#[test]
fn rooms_of_a_connection_are_limited() {
    let server = Server::start(config());
    let mut guest = Im::guest(&server);
    let mut statuses = Vec::new();
    for n in 0..22 {
        // In two steps, as requests are limited as well.
        if n == 15 {
            std::thread::sleep(Duration::from_secs(1));
        }
        statuses.push(guest.try_join(&format!("room-{n}")));
    }
    assert_eq!(statuses, [vec![0; 20], vec![0x23; 2]].concat());
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(guest.try_join("room-5"), 0, "it is in that one");
    guest.leave("room-5");
    assert_eq!(guest.try_join("room-21"), 0);
    assert_eq!(guest.try_join(""), 0x20);
    assert_eq!(guest.try_join(&"r".repeat(129)), 0x20);
}

#[test]
fn members_of_a_room_are_limited_over_all_shards() {
    let mut config = config();
    config.im.max_room_members = 5;
    let server = Server::start(config);
    let mut members: Vec<Im> = (0..12).map(|_| Im::guest(&server)).collect();
    let statuses: Vec<u8> = members.iter_mut().map(|m| m.try_join("room-7")).collect();
    assert_eq!(statuses, [vec![0; 5], vec![0x21; 7]].concat());
    members[0].leave("room-7");
    assert_eq!(members[11].try_join("room-7"), 0);
    assert_eq!(members[10].try_join("room-7"), 0x21);
    // One that is gone makes room, too.
    drop(members.remove(1));
    wait_until("there is room again", || {
        members[9].try_join("room-7") == 0 || {
            std::thread::sleep(Duration::from_millis(200));
            false
        }
    });
}

#[test]
fn messages_of_a_connection_are_limited() {
    let server = Server::start(config());
    let mut guest = Im::guest(&server);
    guest.join("room-7");
    let mut speaker = Im::member(&server, "u1001", "room-7");
    (0..60).for_each(|n| speaker.say("room-7", &n.to_string()));
    let seen = guest.messages("room-7", 40);
    let expected: Vec<_> = (0..40).map(|n| ("u1001".to_owned(), n.to_string())).collect();
    assert_eq!(seen, expected, "the burst passes, in order");
    std::thread::sleep(Duration::from_millis(300));
    speaker.say("room-7", "later");
    let rest = loop {
        let (_, content) = guest.messages("room-7", 1).remove(0);
        if content == "later" {
            break content;
        }
    };
    assert_eq!(rest, "later");
}

#[test]
fn messages_of_a_room_are_limited_over_all_shards() {
    let mut config = open_config();
    config.im.room_rate = 1;
    config.im.room_burst = 10;
    let server = Server::start(config);
    let mut guest = Im::guest(&server);
    guest.join("room-7");
    let users: Vec<String> = (0..6).map(|n| format!("user-{n}")).collect();
    let mut speakers: Vec<Im> =
        users.iter().map(|user| Im::member(&server, user, "room-7")).collect();
    for speaker in &mut speakers {
        (0..5).for_each(|n| speaker.say("room-7", &n.to_string()));
        speaker.fence();
    }
    let seen = guest.messages("room-7", 10);
    assert!(seen.len() == 10);
    guest.expect_nothing();
}

#[test]
fn other_requests_are_limited_and_pings_a_little_are_not() {
    let mut config = config();
    config.im.max_errors = 1000;
    let server = Server::start(config);
    let mut guest = Im::guest(&server);
    let statuses: Vec<u8> = (0..30).map(|_| guest.try_join("room-7")).collect();
    let passed = statuses.iter().filter(|status| **status == 0).count();
    assert!((19..25).contains(&passed), "{statuses:?}");
    assert!(statuses.iter().all(|status| [0, 0x30].contains(status)));
    guest.fence();
    guest.fence();
    guest.send(PING, &[]);
    let (_, command, status) = guest.response().bare();
    assert!((command, status) == (PING, 0x30) || (command, status) == (PONG, 0), "{command}");
}

#[test]
fn a_body_of_exactly_the_limit_passes() {
    let server = Server::start(config());
    let mut guest = Im::guest(&server);
    assert_eq!(guest.ask(JOIN, &vec![0xff; 65_536]), 6, "read, and no protobuf");
    guest.send(JOIN, &vec![0; 65_537]);
    let seq_status = guest.response().bare();
    assert_eq!(seq_status, (3, JOIN, 4));
}

/// Who does not read gets no more notifications, but is not closed at once, and others are not
/// kept waiting.
#[test]
fn a_slow_member_loses_notifications_and_is_closed_when_it_takes_nothing() {
    let mut config = open_config();
    config.im.out_high_water = 512 * 1024;
    config.im.cms_rate = 0;
    config.im.batch_delay = Duration::from_millis(5);
    config.im.write_timeout = Duration::from_millis(800);
    let server = Server::start(config);
    let small = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    small.set_recv_buffer_size(2048).unwrap();
    small.connect(&address(&server).into()).unwrap();
    let mut slow = Im::of(small.into());
    slow.log_in_as_guest();
    slow.join("room-7");
    let mut quick = Im::guest(&server);
    quick.join("room-7");
    let mut speaker = Im::member(&server, "a", "room-7");
    let content = "x".repeat(16_000);
    let mut task = server.task();
    let mut rounds = 0;
    wait_until("the slow one is closed", || {
        for _ in 0..20 {
            speaker.say("room-7", &content);
        }
        assert_eq!(quick.messages("room-7", 20).len(), 20);
        rounds += 1;
        task.online_count() == 2
    });
    assert!(rounds > 10, "closed long before it could have stalled");
}
