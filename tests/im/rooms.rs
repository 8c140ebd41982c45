//! Rooms: who hears what, in which order and in which batches (sections 10 and 11).

use std::time::Duration;

use crate::common::Server;
use crate::support::*;

fn said(by: &str, content: &str) -> (String, String) {
    (by.to_owned(), content.to_owned())
}

#[test]
fn members_get_what_others_say_and_never_their_own() {
    let server = Server::start(config());
    let mut guest = Im::guest(&server);
    guest.join("room-7");
    let mut first = Im::member(&server, "u1001", "room-7");
    let mut second = Im::member(&server, "u2002", "room-7");
    let all = [said("u1001", "hello"), said("u2002", "hi")];
    first.write(&sent("V6"));
    // Over another shard the order is that of the room's home, which has the first one by now.
    assert_eq!(guest.messages("room-7", 1), all[..1]);
    second.say("room-7", "hi");
    assert_eq!(guest.messages("room-7", 1), all[1..]);
    assert_eq!(first.messages("room-7", 1), all[1..]);
    assert_eq!(second.messages("room-7", 1), all[..1]);
    [&mut guest, &mut first, &mut second].into_iter().for_each(Im::expect_nothing);
}

#[test]
fn the_server_says_who_and_when() {
    let server = Server::start(config());
    let mut guest = Im::guest(&server);
    guest.join("room-7");
    let mut speaker = Im::member(&server, "u1001", "room-7");
    let mut forged = message("room-7", "x");
    forged.from = "someone-else".to_owned();
    forged.timestamp = 5;
    forged.user_info = Some(ann());
    for kind in [0, 2, 77] {
        forged.message_type = kind;
        speaker.send(CMS, &prost::Message::encode_to_vec(&forged));
    }
    let before = std::time::SystemTime::now();
    let before = before.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(guest.next().notify().messages);
    }
    assert_eq!(seen.iter().map(|m| m.message_type).collect::<Vec<_>>(), [0, 2, 77]);
    assert!(seen.iter().all(|m| m.from == "u1001" && m.user_info == Some(ann())));
    assert!(seen.windows(2).all(|pair| pair[0].timestamp <= pair[1].timestamp));
    assert!(u128::from(seen[0].timestamp).abs_diff(before) < 20_000, "{}", seen[0].timestamp);
}

#[test]
fn guests_and_strangers_are_not_heard() {
    let server = Server::start(config());
    let mut member = Im::member(&server, "u1001", "room-7");
    let mut guest = Im::guest(&server);
    guest.join("room-7");
    let mut stranger = Im::user(&server, "u2002");
    stranger.join("room-8");
    guest.say("room-7", "from a guest");
    stranger.say("room-7", "from a stranger");
    stranger.say("", "to nobody");
    stranger.say(&"r".repeat(129), "to a long name");
    let mut notice = message("room-8", "a forged notice");
    notice.message_type = 1;
    stranger.send(CMS, &prost::Message::encode_to_vec(&notice));
    stranger.say("room-8", &"x".repeat(16_385));
    stranger.expect_nothing();
    guest.expect_nothing();
    member.say("room-7", "the mark");
    assert_eq!(guest.messages("room-7", 1), [said("u1001", "the mark")]);
    guest.join("room-8");
    stranger.say("room-8", &"x".repeat(16_384));
    assert_eq!(guest.messages("room-8", 1), [said("u2002", &"x".repeat(16_384))]);
    member.expect_nothing();
}

#[test]
fn a_drop_says_why_where_that_is_configured() {
    let mut config = config();
    config.im.cms_error_reply = true;
    let server = Server::start(config);
    let mut user = Im::user(&server, "u1001");
    let mut status = |room: &str, kind: u32, len: usize| {
        let mut cms = message(room, &"x".repeat(len));
        cms.message_type = kind;
        user.ask(CMS, &prost::Message::encode_to_vec(&cms))
    };
    assert_eq!(status("room-7", 0, 1), 0x24);
    assert_eq!(status("", 0, 1), 0x20);
    assert_eq!(status("room-7", 1, 1), 0x06);
    assert_eq!(status("room-7", 0, 16_385), 0x06);
    assert_eq!(user.ask(CMS, b"\x0a\x7f"), 0x06);
    user.flag = 0x18;
    assert_eq!(user.ask(CMS, b""), 0x03);
    user.flag = 0x10;
    user.join("room-7");
    user.say("room-7", "never a response on success");
    user.expect_nothing();
}

#[test]
fn after_leaving_nothing_follows() {
    let mut config = config();
    config.im.batch_delay = Duration::from_millis(300);
    let server = Server::start(config);
    let mut leaver = Im::member(&server, "u1001", "room-7");
    let mut speaker = Im::member(&server, "u2002", "room-7");
    let mut witness = Im::guest(&server);
    witness.join("room-7");
    speaker.say("room-7", "in an open batch");
    speaker.fence();
    leaver.leave("room-7");
    leaver.leave("room-7");
    leaver.leave("never-joined");
    speaker.say("room-7", "after that");
    let all = [said("u2002", "in an open batch"), said("u2002", "after that")];
    assert_eq!(witness.messages("room-7", 2), all);
    leaver.expect_nothing();
    leaver.join("room-7");
    speaker.say("room-7", "again");
    // A batch that was open on its shard when it came may reach it whole (section 10).
    while leaver.messages_any("room-7").last() != Some(&said("u2002", "again")) {}
}

#[test]
fn a_flood_within_one_delay_is_batched_within_the_bounds() {
    let mut config = open_config();
    config.im.batch_delay = Duration::from_millis(300);
    let server = Server::start(config);
    let mut guest = Im::guest(&server);
    guest.join("room-7");
    let users = ["a", "b", "c"];
    let mut speakers: Vec<Im> =
        users.iter().map(|user| Im::member(&server, user, "room-7")).collect();
    for n in 0..30 {
        for speaker in &mut speakers {
            speaker.say("room-7", &n.to_string());
        }
    }
    let (mut seen, mut frames) = (Vec::new(), Vec::new());
    while seen.len() < 90 {
        let notify = guest.next().notify();
        frames.push(notify.messages.len());
        seen.extend(notify.messages);
    }
    assert!(frames.iter().all(|len| *len <= 64), "{frames:?}");
    assert!(frames.len() <= 10, "hardly anything was batched: {frames:?}");
    for (user, speaker) in users.iter().zip(&mut speakers) {
        let of = |m: &&ringway::protocols::im::wire::proto::CrMessage| m.from == *user;
        let own: Vec<_> = seen.iter().filter(of).map(|m| m.message_content.clone()).collect();
        let expected: Vec<_> = (0..30).map(|n: u32| n.to_string().into_bytes()).collect();
        assert_eq!(own, expected);
        // The others' messages stand in the same order for everybody.
        let others = seen.iter().filter(|m| m.from != *user);
        let others = others.map(|m| said(&m.from, &String::from_utf8_lossy(&m.message_content)));
        assert_eq!(speaker.messages("room-7", 60), others.collect::<Vec<_>>());
    }
}

#[test]
fn a_batch_is_bounded_in_bytes_and_a_larger_message_travels_alone() {
    let mut config = config();
    config.im.batch_delay = Duration::from_secs(1);
    config.im.batch_max_bytes = 4000;
    let server = Server::start(config);
    let mut guest = Im::guest(&server);
    guest.join("room-7");
    let mut speaker = Im::member(&server, "u1001", "room-7");
    for len in [1000, 1000, 1000, 1000, 5000, 10] {
        speaker.say("room-7", &"x".repeat(len));
    }
    let sizes = |notify: ringway::protocols::im::wire::proto::CrMessageResponse| -> Vec<usize> {
        notify.messages.iter().map(|message| message.message_content.len()).collect()
    };
    let frames: Vec<_> = (0..4).map(|_| sizes(guest.next().notify())).collect();
    assert_eq!(frames, [vec![1000; 3], vec![1000], vec![5000], vec![10]]);
}

#[test]
fn without_a_delay_every_message_is_sent_at_once() {
    let mut config = config();
    config.im.batch_delay = Duration::ZERO;
    let server = Server::start(config);
    let mut guest = Im::guest(&server);
    guest.join("room-7");
    let mut speaker = Im::member(&server, "u1001", "room-7");
    (0..20).for_each(|n| speaker.say("room-7", &n.to_string()));
    for n in 0..20 {
        assert_eq!(guest.next().notify().messages[0].message_content, n.to_string().as_bytes());
    }
}

#[test]
fn joins_are_announced_where_that_is_configured() {
    let mut config = config();
    config.im.announce_join = true;
    let server = Server::start(config);
    let mut guest = Im::guest(&server);
    guest.join("room-7");
    let mut other = Im::guest(&server);
    other.join("room-7");
    let mut user = Im::member(&server, "u1001", "room-7");
    user.join("room-7");
    user.say("room-7", "hello");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(guest.next().notify().messages);
    }
    assert_eq!((seen[0].message_type, &*seen[0].from), (1, ""));
    assert_eq!(seen[0].message_content, &br#"{"event":"join","userId":"u1001"}"#[..]);
    assert_eq!((seen[1].message_type, &*seen[1].from), (0, "u1001"));
    guest.expect_nothing();
}

#[test]
fn one_frame_is_for_one_room() {
    let server = Server::start(config());
    let mut guest = Im::guest(&server);
    let mut speaker = Im::user(&server, "u1001");
    for room in ["a", "b", "c"] {
        guest.join(room);
        speaker.join(room);
    }
    for n in 0..5 {
        ["a", "b", "c"].iter().for_each(|room| speaker.say(room, &n.to_string()));
    }
    let mut counts = [0; 3];
    while counts != [5; 3] {
        let notify = guest.next().notify();
        let room = ["a", "b", "c"].iter().position(|room| *room == notify.chatroom);
        counts[room.expect("a known room")] += notify.messages.len();
    }
}
