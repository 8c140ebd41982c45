//! What time does to a connection (sections 8 and 12), with shortened timeouts.

use std::time::{Duration, Instant};

use crate::common::Server;
use crate::support::*;

/// Long enough that a test machine under load does not run into it by accident.
const SHORT: Duration = Duration::from_secs(2);
/// A shard counts from the beginning of a turn, and under load that may be some time ago when what
/// has just come is handled.
const AT_LEAST: Duration = Duration::from_secs(1);

#[test]
fn a_connection_that_says_nothing_is_closed_after_login_timeout() {
    let mut config = config();
    config.im.login_timeout = SHORT;
    let server = Server::start(config);
    let start = Instant::now();
    let mut silent = Im::tcp(&server);
    let mut slow = Im::tcp(&server);
    slow.write(&sent("V2")[..20]);
    let mut websocket = Im::websocket(&server);
    silent.expect_end();
    assert!(start.elapsed() >= AT_LEAST, "{:?}", start.elapsed());
    slow.expect_end();
    websocket.expect_close(1008);
}

#[test]
fn silence_after_the_login_ends_the_connection_in_time() {
    let mut config = config();
    config.im.idle_timeout = SHORT;
    let server = Server::start(config);
    let start = Instant::now();
    let mut guest = Im::guest(&server);
    let mut websocket = Im::websocket(&server);
    websocket.log_in_as_guest();
    guest.expect_end();
    assert!(start.elapsed() >= AT_LEAST, "{:?}", start.elapsed());
    websocket.expect_close(1001);
}

#[test]
fn pings_keep_a_connection_open() {
    let mut config = config();
    config.im.idle_timeout = SHORT;
    let server = Server::start(config);
    let mut guest = Im::guest(&server);
    let start = Instant::now();
    let mut pongs = 0;
    while start.elapsed() < 3 * SHORT {
        guest.fence();
        pongs += 1;
        std::thread::sleep(SHORT / 3);
    }
    assert!(pongs >= 5);
    guest.expect_end();
}

/// Only frames of the protocol keep a connection alive (section 13).
#[test]
fn websocket_pings_are_answered_but_do_not_keep_a_connection_open() {
    let mut config = config();
    config.im.idle_timeout = SHORT;
    let server = Server::start(config);
    let mut guest = Im::websocket(&server);
    guest.log_in_as_guest();
    let start = Instant::now();
    let ping = ringway::wire::websocket::mask_frame(0x89, [1, 2, 3, 4], b"x");
    let code = loop {
        guest.client().write(&ping);
        let frame = guest.client().frame();
        if frame.first == 0x88 {
            break frame.close().0;
        }
        assert_eq!((frame.first, &frame.payload[..]), (0x8a, &b"x"[..]));
        std::thread::sleep(SHORT / 6);
        assert!(start.elapsed() < 20 * SHORT, "it stays open");
    };
    assert_eq!(code, 1001);
}

#[test]
fn a_reserved_command_only_restarts_the_clock() {
    let mut config = config();
    config.im.idle_timeout = SHORT;
    let server = Server::start(config);
    let mut guest = Im::guest(&server);
    let start = Instant::now();
    while start.elapsed() < 2 * SHORT {
        guest.send(0, b"whatever");
        guest.send(PONG, &[]);
        std::thread::sleep(SHORT / 3);
    }
    guest.expect_nothing();
    guest.expect_end();
}

#[test]
fn half_a_frame_is_given_up_after_frame_timeout() {
    let mut config = config();
    config.im.frame_timeout = SHORT;
    let server = Server::start(config);
    let mut guest = Im::guest(&server);
    let v5 = sent("V5");
    let start = Instant::now();
    guest.write(&v5[..12]);
    guest.expect_end();
    assert!(start.elapsed() >= AT_LEAST, "{:?}", start.elapsed());
    // Within the time it may come in pieces; the clock of the next frame starts anew.
    let mut other = Im::guest(&server);
    for _ in 0..3 {
        other.write(&v5[..5]);
        std::thread::sleep(SHORT / 3);
        other.write(&v5[5..]);
        assert_eq!(other.response().bare(), (3, JOIN, 0));
    }
}

#[test]
fn bytes_of_an_incomplete_frame_do_not_keep_a_connection_open() {
    let mut config = config();
    config.im.idle_timeout = SHORT;
    let server = Server::start(config);
    let mut guest = Im::guest(&server);
    let start = Instant::now();
    for byte in sent("V5") {
        guest.write(&[byte]);
        std::thread::sleep(SHORT / 12);
        if start.elapsed() > SHORT / 2 {
            break;
        }
    }
    guest.expect_end();
}
