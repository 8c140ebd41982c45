//! Frames over TCP: cut anywhere, joined, compressed, of both length modes (sections 1, 2, 7, 8).

use std::time::Duration;

use prost::Message;
use ringway::protocols::im::config::GzipServer;
use ringway::protocols::im::wire::proto::LoginRequest;
use ringway::protocols::im::wire::{Gzip, LenMode, LenRule, Modes};

use crate::common::{Server, wait_until};
use crate::support::*;

#[test]
fn a_login_byte_by_byte() {
    let server = Server::start(config());
    let mut guest = Im::tcp(&server);
    for byte in sent("V1") {
        guest.write(&[byte]);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(guest.response().bare(), (1, LOGIN, 0));
    let mut user = Im::tcp(&server);
    for piece in sent("V2").chunks(3) {
        user.write(piece);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(user.response().bare(), (1, LOGIN, 0));
}

#[test]
fn two_frames_in_one_write() {
    let server = Server::start(config());
    let mut guest = Im::tcp(&server);
    guest.write(&[sent("V1"), sent("V5")].concat());
    assert_eq!(guest.frame().bare(), (1, LOGIN, 0));
    assert_eq!(guest.frame().bare(), (3, JOIN, 0));
}

/// What comes while the LOGIN is verified waits for it, in whatever pieces.
#[test]
fn frames_behind_a_login_are_answered_after_it() {
    let server = Server::start(config());
    let stream = [sent("V2"), sent("V5"), sent("V4"), sent("E4")].concat();
    for step in [1, 7, 30, 1000] {
        let mut user = Im::tcp(&server);
        stream.chunks(step).for_each(|piece| user.write(piece));
        let answers: Vec<_> = (0..4).map(|_| user.frame().bare()).collect();
        assert_eq!(answers, [(1, LOGIN, 0), (3, JOIN, 0), (2, PONG, 0), (7, 99, 5)], "{step}");
    }
    let mut denied = Im::tcp(&server);
    denied.write(&[sent("V3"), sent("V5"), sent("V4")].concat());
    assert_eq!(denied.frame().bare(), (1, LOGIN, 0x11));
    denied.expect_end();
}

#[test]
fn logout_ends_without_a_byte_and_leaves_the_rooms() {
    let server = Server::start(config());
    let mut task = server.task();
    let mut members = |count: i32| {
        wait_until("the members of the room are counted", || room_members(&mut task) == count);
    };
    let mut leaver = Im::member(&server, "u1001", "room-7");
    let mut stayer = Im::member(&server, "u2002", "room-7");
    members(2);
    leaver.write(&sent("V14"));
    leaver.expect_end();
    members(1);
    stayer.end();
    stayer.expect_end();
    members(0);
}

fn room_members(task: &mut crate::common::Business) -> i32 {
    use ringway::wire::worker::proto::{TopicUniqIdCountReq, TopicUniqIdCountResp};
    let request = TopicUniqIdCountReq { topics: vec!["cr:room-7".to_owned()], count_all: false };
    let cmd = crate::common::cmd::TOPIC_UNIQ_ID_COUNT;
    let answer: TopicUniqIdCountResp = task.ask(cmd, &request);
    answer.items.get("cr:room-7").copied().unwrap_or_default()
}

#[test]
fn bodies_of_commands_without_body_are_ignored() {
    let server = Server::start(config());
    let mut guest = Im::guest(&server);
    assert_eq!(guest.ask_pong(b"not protobuf \xff"), 0);
    guest.flag = 0x14;
    assert_eq!(guest.ask_pong(b"not gzip"), 0);
    guest.flag = 0x18;
    guest.send(PING, b"");
    assert_eq!(guest.response().bare().2, 3, "a reserved compression is refused all the same");
    guest.flag = 0x10;
    guest.send(LOGOUT, &[7; 1000]);
    guest.expect_end();
}

impl Im {
    fn ask_pong(&mut self, body: &[u8]) -> u8 {
        self.send(PING, body);
        let (_, command, status) = self.response().bare();
        assert_eq!(command, PONG);
        status
    }
}

#[test]
fn a_compressed_login_is_read() {
    let server = Server::start(config());
    let mut user = Im::tcp(&server);
    user.flag = 0x14;
    let body = LoginRequest { token: "tok-42".to_owned(), user_id: "u1001".to_owned() };
    let body = Gzip::new().compress(&body.encode_to_vec());
    assert_eq!(user.ask(LOGIN, &body), 0);
    assert_eq!(user.try_log_in("u1001", "tok-42"), 3, "it is not compressed any more");
}

#[test]
fn notifications_are_compressed_for_those_who_read_that() {
    let flags = |server: &Server| {
        let mut reads_gzip = Im::tcp(server);
        reads_gzip.flag = 0x14;
        reads_gzip.log_in_as_guest();
        let mut plain = Im::guest(server);
        for member in [&mut reads_gzip, &mut plain] {
            member.flag = 0x10;
            member.join("room-7");
        }
        let mut speaker = Im::member(server, "u1001", "room-7");
        let content = "A".repeat(5000);
        speaker.say("room-7", &content);
        [&mut reads_gzip, &mut plain].map(|member| {
            let frame = member.next();
            assert_eq!(frame.notify().messages[0].message_content, content.as_bytes());
            frame.header.flag
        })
    };
    assert_eq!(flags(&Server::start(config())), [0x16, 0x12]);
    let mut always = config();
    always.im.gzip_server = GzipServer::Always;
    assert_eq!(flags(&Server::start(always)), [0x16, 0x16]);
    let mut never = config();
    never.im.gzip_server = GzipServer::Never;
    assert_eq!(flags(&Server::start(never)), [0x12, 0x12]);
}

#[test]
fn the_first_frame_decides_what_len_counts() {
    let mut config = config();
    let modes = Modes::of(&[LenMode::Rest, LenMode::Body]).expect("they differ");
    config.im.len_mode = LenRule::Auto(modes);
    let server = Server::start(config);
    let mut rest = Im::tcp(&server);
    rest.dialect.mode = LenMode::Rest;
    rest.log_in_as_guest();
    rest.join("room-7");
    let mut body = Im::tcp(&server);
    body.log_in_as_guest();
    body.join("room-7");
    let mut user = Im::tcp(&server);
    user.log_in("u1001");
    user.join("room-7");
    let mut rest_user = Im::tcp(&server);
    rest_user.dialect.mode = LenMode::Rest;
    rest_user.log_in("u2002");
    rest_user.join("room-7");
    user.say("room-7", "hello");
    let expected = [("u1001".to_owned(), "hello".to_owned())];
    for member in [&mut rest, &mut body, &mut rest_user] {
        assert_eq!(member.messages("room-7", 1), expected);
    }
}

#[test]
fn numbers_of_commands_and_statuses_can_be_others() {
    let mut config = config();
    config.im.commands.cr_notify = 7;
    config.im.commands.ping = 40;
    config.im.statuses.set(ringway::protocols::im::wire::Status::UnknownCommand, 200);
    let server = Server::start(config);
    let mut listener = Im::guest(&server);
    listener.join("room-7");
    assert_eq!(listener.ask(PING, &[]), 200, "3 is nothing any more");
    let mut speaker = Im::member(&server, "u1001", "room-7");
    speaker.say("room-7", "hello");
    let notify = listener.next();
    assert_eq!((notify.header.command, notify.header.flag), (7, 0x12));
    listener.send(40, &[]);
    assert_eq!(listener.response().header.command, PONG);
}
