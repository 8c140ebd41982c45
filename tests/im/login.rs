//! Logging in: as whom, twice, from guest to user, on several devices (section 8).

use crate::common::Server;
use crate::support::*;

#[test]
fn a_guest_becomes_a_user_and_keeps_its_rooms() {
    let server = Server::start(config());
    let mut other = Im::member(&server, "u2002", "room-7");
    let mut client = Im::guest(&server);
    client.join("room-7");
    assert_eq!(client.ask(LOGIN, &[]), 0, "a guest again");
    assert_eq!(client.try_log_in("u1001", "wrong"), 0x11);
    client.say("room-7", "not heard");
    client.fence();
    client.log_in("u1001");
    client.say("room-7", "heard");
    assert_eq!(other.messages("room-7", 1), [("u1001".to_owned(), "heard".to_owned())]);
    other.say("room-7", "hello");
    assert_eq!(client.messages("room-7", 1), [("u2002".to_owned(), "hello".to_owned())]);
    assert_eq!(client.ask(LOGIN, &[]), 0x12);
    assert_eq!(client.try_log_in("u2002", "tok"), 0x12);
}

#[test]
fn a_login_that_is_not_complete_or_too_long_is_refused_and_the_connection_ends() {
    let server = Server::start(config());
    let long = "x".repeat(129);
    let token = "x".repeat(4097);
    for (user, token) in [("", "tok-42"), ("u1001", ""), (&*long, "tok"), ("u1001", &*token)] {
        let mut client = Im::tcp(&server);
        assert_eq!(client.try_log_in(user, token), 0x11);
        client.expect_end();
    }
    let mut client = Im::tcp(&server);
    assert_eq!(client.ask(LOGIN, b"\x0a\x7f"), 6, "no protobuf");
    client.expect_end();
    let mut websocket = Im::websocket(&server);
    assert_eq!(websocket.try_log_in("u1001", "wrong"), 0x11);
    websocket.expect_close(1008);
}

#[test]
fn several_devices_of_a_user_are_in_sync_unless_one_session_is_allowed() {
    let server = Server::start(config());
    let mut phone = Im::member(&server, "u1001", "room-7");
    let mut tablet = Im::member(&server, "u1001", "room-7");
    phone.say("room-7", "hello");
    assert_eq!(tablet.messages("room-7", 1), [("u1001".to_owned(), "hello".to_owned())]);
    phone.expect_nothing();
    drop(server);
    let mut single = config();
    single.im.single_session = true;
    let server = Server::start(single);
    let mut guest = Im::guest(&server);
    let mut last = Im::websocket(&server);
    last.log_in("u1001");
    for round in 0..20 {
        let mut next = if round % 2 == 0 { Im::tcp(&server) } else { Im::websocket(&server) };
        next.log_in("u1001");
        match round % 2 {
            0 => last.expect_close(4001),
            _ => last.expect_end(),
        }
        last = next;
    }
    last.fence();
    guest.fence();
}

/// However many log in at once, exactly one session is left.
#[test]
fn of_logins_at_the_same_time_the_latest_stays() {
    let mut config = config();
    config.im.single_session = true;
    let server = Server::start(config);
    for _ in 0..10 {
        let mut clients: Vec<Im> = (0..8).map(|_| Im::tcp(&server)).collect();
        clients.iter_mut().for_each(|client| client.write(&sent("V2")));
        let mut task = server.task();
        crate::common::wait_until("one session is left", || task.online_count() == 1);
        clients.iter_mut().for_each(|client| assert_eq!(client.frame().bare(), (1, LOGIN, 0)));
        let closed = clients.iter_mut().filter_map(|client| client.is_closed().then_some(()));
        assert_eq!(closed.count(), 7);
        drop(clients);
        crate::common::wait_until("all have gone", || task.online_count() == 0);
    }
}
