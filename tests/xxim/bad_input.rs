//! What clients send that they should not (sections 1.3, 1.8, 3.6 and 10.3).

use ringway::config::all::Config;
use ringway::protocols::xxim::config::XximEra;
use ringway::wire::websocket::mask_frame;

use crate::common::Server;
use crate::support::{Xxim, config, request, user_params};
use crate::vectors::vector;

fn server() -> Server {
    Server::start(config("http://127.0.0.1:9"))
}

#[test]
fn damaged_messages_in_plain_text_are_answered_and_the_connection_goes_on() {
    let server = server();
    let mut client = Xxim::open(&server);
    client.send_raw(&[0xff]);
    assert_eq!(client.receive(), vector("V18c"));
    client.send_raw(&vector("N07"));
    let answer = client.response();
    assert_eq!((&*answer.req_id, &*answer.method, answer.code), ("n7", "", 2));
    assert!(!answer.data.is_empty());
    client.client.send_text("ping");
    client.send_raw(&[]);
    let answer = client.response();
    assert_eq!((&*answer.req_id, &*answer.method, answer.code), ("", "", 4));
    client.set_params("d");
    client.set_user("u");
    client.keep_alive();
}

#[test]
fn every_damaged_ciphertext_ends_the_connection_in_the_same_way() {
    let server = server();
    for name in ["N01", "", "N03", "N04", "N05", "N06"] {
        let mut client = Xxim::encrypted(&server);
        let message = if name.is_empty() { Vec::new() } else { vector(name).to_vec() };
        client.send_raw(&message);
        client.expect_close("C06");
    }
}

#[test]
fn a_wrong_rsa_padding_is_not_told_from_a_right_one() {
    let server = server();
    let mut client = Xxim::open(&server);
    client.send_raw(&vector("N09"));
    let sealed = client.receive();
    assert_eq!(sealed.len() % 16, 0);
    assert_ne!(sealed.len(), 0);
    client.send_raw(&vector("E05"));
    client.expect_close("C06");
    // A length that no ciphertext of this key has is public.
    for len in [255, 257] {
        let mut params = vec![0x12, 3, b'w', b'e', b'b', 0x4a];
        params.extend([(len & 0x7f) as u8 | 0x80, (len >> 7) as u8]);
        params.extend(vec![1; len]);
        let mut client = Xxim::open(&server);
        client.request("x", "/v1/conn/white/setCxnParams", &params);
        client.expect_close("C03");
    }
}

#[test]
fn keys_without_a_key_of_the_gateway_are_refused() {
    let mut config = config("http://127.0.0.1:9");
    config.xxim.crypto.private_key = None;
    let server = Server::start(config);
    let mut client = Xxim::open(&server);
    client.send_raw(&vector("E01"));
    client.expect_close("C03");
}

/// A gateway that checks what the last version of the original checks.
fn strict() -> Config {
    let mut config = config("http://127.0.0.1:9");
    config.xxim.era = XximEra::C;
    config
}

#[test]
fn era_b_takes_any_platform_and_device_and_a_login_before_the_parameters() {
    const SET_USER: &str = "/v1/conn/white/setUserParams";
    const SET_PARAMS: &str = "/v1/conn/white/setCxnParams";
    let server = server();
    let mut client = Xxim::open(&server);
    client.send_raw(&vector("N11"));
    assert_eq!(client.response().code, 0, "a platform that is not listed");
    client.set_user("u");
    client.keep_alive();
    // As a public bot does: a platform, a model, an os version, and no device.
    let mut bot = Xxim::open(&server);
    let params = b"\x12\x05macos\x22\x03bot\x2a\x05linux";
    assert_eq!(bot.ask("p", SET_PARAMS, params).code, 0);
    assert_eq!(bot.ask("u", SET_USER, &user_params("bot", "t")).code, 0, "no device id");
    bot.keep_alive();
    let mut early = Xxim::open(&server);
    assert_eq!(early.ask("u", SET_USER, &user_params("early", "t")).code, 0, "no parameters");
    early.keep_alive();
    early.set_params("d");
    early.keep_alive();
    // Without a device they are one as well: the older one makes room.
    let mut again = Xxim::open(&server);
    assert_eq!(again.ask("p", SET_PARAMS, params).code, 0);
    assert_eq!(again.ask("u", SET_USER, &user_params("bot", "t")).code, 0);
    bot.expect_close("C08");
    again.keep_alive();
}

#[test]
fn a_body_on_the_wrong_path_is_understood_and_in_era_c_a_wrong_platform_is_not() {
    let server = Server::start(strict());
    let mut client = Xxim::open(&server);
    client.send_raw(&vector("N10"));
    let answer = client.response();
    assert_eq!((&*answer.req_id, answer.code), ("n10", 0));
    let mut client = Xxim::open(&server);
    client.send_raw(&vector("N11"));
    let answer = client.response();
    assert_eq!((&*answer.req_id, answer.code, &*answer.data), ("n11", 3, &b"\x08\x03"[..]));
    client.expect_close("C04");
}

#[test]
fn logins_without_parameters_or_credentials_are_answered_and_closed() {
    const SET_USER: &str = "/v1/conn/white/setUserParams";
    let server = Server::start(strict());
    let mut client = Xxim::open(&server);
    assert_eq!(client.ask("a", SET_USER, &user_params("u", "t")).code, 3);
    client.expect_close("C04");
    let mut client = Xxim::open(&server);
    client.set_params("");
    assert_eq!(client.ask("a", SET_USER, &user_params("u", "t")).code, 3);
    client.expect_close("C05");
    for (user, token) in [("", "t"), ("u", "")] {
        let mut client = Xxim::open(&server);
        client.set_params("d");
        let answer = client.ask("a", SET_USER, &user_params(user, token));
        assert_eq!(answer.code, 4);
        client.expect_close("C01");
    }
    // On the path of document 1 any platform of up to 32 bytes will do.
    let mut client = Xxim::open(&server);
    let params = b"\x0a\x09\x0a\x02tv\x12\x03dev";
    assert_eq!(client.ask("a", "/v1/conn/setCxnParams", params).code, 0);
    assert_eq!(client.ask("b", "/v1/conn/setUserParams", &user_params("u", "t")).code, 0);
    client.keep_alive();
}

#[test]
fn texts_that_are_too_long_and_methods_that_are_none_are_refused() {
    let server = server();
    let mut client = Xxim::open(&server);
    let long = "d".repeat(1025);
    let params = [&[0x0a, 0x81, 0x08][..], long.as_bytes(), b"\x12\x03web"].concat();
    assert_eq!(client.ask("a", "/v1/conn/white/setCxnParams", &params).code, 3);
    client.set_params("d");
    let answer = client.ask("b", "/v1/conn/white/setUserParams", &user_params(&long, "t"));
    assert_eq!(answer.code, 3);
    client.set_user("u");
    for method in
        ["/v1/user/a?/white/", "/v1/user/a b", "/v1/user/", "/v1/user/..", "/v1/user/a\r\nX: y"]
    {
        let answer = client.ask("c", method, b"");
        assert_eq!((answer.code, &*answer.data), (3, &b"\x08\x03"[..]), "{method}");
    }
    assert_eq!(client.ask("d", "/v1/user/getUserHome", b"\xff").code, 3);
    client.keep_alive();
}

#[test]
fn messages_that_are_too_large_get_the_words_of_the_original() {
    let mut config = config("http://127.0.0.1:9");
    config.xxim.message_bytes_max = 32_768;
    let server = Server::start(config);
    let mut client = Xxim::login(&server, "u", "d");
    let fits = request("k", "/v1/conn/keepAlive", &vec![0; 32_768 - 27]);
    assert_eq!(fits.len(), 32_768);
    client.send_raw(&fits);
    assert_eq!(client.response().code, 0);
    client.client.write(&mask_frame(0x82, [0; 4], &vec![0; 32_769]));
    assert_eq!(client.client.frame().close(), (1009, "read limited at 32769 bytes"));
}

#[test]
fn platforms_and_devices_that_will_not_do_can_be_closed_without_a_word() {
    let mut config = strict();
    config.xxim.respond_then_close = false;
    let server = Server::start(config);
    let mut client = Xxim::open(&server);
    client.send_raw(&vector("N11"));
    client.expect_close("C04");
    let mut client = Xxim::open(&server);
    client.request("a", "/v1/conn/white/setUserParams", &user_params("u", "t"));
    client.expect_close("C04");
    let mut client = Xxim::open(&server);
    client.set_params("");
    client.request("a", "/v1/conn/white/setUserParams", &user_params("u", "t"));
    client.expect_close("C05");
}

#[test]
fn frames_that_websocket_does_not_allow_end_the_connection_with_1002() {
    let server = server();
    let bad: [&[u8]; 6] = [
        // Not masked.
        &[0x82, 1, b'x'],
        // A reserved bit without an extension that would need it.
        &[0xc2, 0x81, 0, 0, 0, 0, b'x'],
        // An unknown opcode.
        &[0x83, 0x80, 0, 0, 0, 0],
        // A continuation of nothing.
        &[0x80, 0x80, 0, 0, 0, 0],
        // A message inside of a message.
        &[0x02, 0x80, 0, 0, 0, 0, 0x82, 0x80, 0, 0, 0, 0],
        // A ping in two pieces.
        &[0x09, 0x80, 0, 0, 0, 0],
    ];
    for bytes in bad {
        let mut client = Xxim::open(&server);
        client.client.write(bytes);
        assert_eq!(client.client.frame().close().0, 1002, "{bytes:02x?}");
        client.client.expect_end();
    }
}

#[test]
fn a_message_may_come_in_pieces_and_a_method_may_be_empty() {
    let server = server();
    let mut client = Xxim::login(&server, "u", "d");
    let message = vector("V19");
    let (first, last) = message.split_at(5);
    client.client.write(&mask_frame(0x02, [1, 2, 3, 4], first));
    client.client.write(&mask_frame(0x89, [5, 6, 7, 8], b"between"));
    client.client.write(&mask_frame(0x00, [0; 4], b""));
    client.client.write(&mask_frame(0x80, [9; 4], last));
    let pong = client.client.frame();
    assert_eq!((pong.first, &*pong.payload), (0x8a, &b"between"[..]));
    assert_eq!(client.receive(), vector("V19r"));
    assert_eq!(client.ask("", "", b"").code, 3);
    client.keep_alive();
}
