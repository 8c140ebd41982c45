//! What a hostile or broken client gets, and that nobody else notices.

use serde_json::json;

use crate::common::Client;
use crate::support::{Gateway, text};
use ringway::wire::websocket::mask_frame;

const RULES: &str = r#"
max_message = 1000
[[connmix.server.rule]]
on = "message"
when = { "json.n" = "re:^[0-9]+$" }
do = [ { send = "${json.n}" } ]
[[connmix.server.rule]]
on = "message"
when = { json = "exists" }
do = [ { send = "json" } ]
[[connmix.server.rule]]
on = "message"
do = [ { send = "other" } ]
"#;

#[test]
fn messages_are_bounded_and_texts_are_utf8() {
    let gateway = Gateway::start(RULES);
    let mut client = gateway.client();
    client.send_text(&"x".repeat(1000));
    assert_eq!(text(&mut client), "other");
    client.send_text(&"x".repeat(1001));
    assert_eq!(client.frame().close(), (1009, "message too big"));
    let mut client = gateway.client();
    client.write(&mask_frame(0x81, [1, 2, 3, 4], b"\xff"));
    assert_eq!(client.frame().close(), (1007, "invalid utf8 in text message"));
    // Fragments count together.
    let mut client = gateway.client();
    client.write(&mask_frame(0x01, [1, 2, 3, 4], &[b'x'; 600]));
    client.write(&mask_frame(0x80, [1, 2, 3, 4], &[b'x'; 600]));
    assert_eq!(client.frame().close(), (1009, "message too big"));

    for line in [vec![b'x'; 1001], [&[b'x'; 2000][..], b"\n"].concat(), b"\xff\n".to_vec()] {
        let mut client = gateway.tcp();
        client.write(&line);
        client.expect_end();
    }
    let mut client = gateway.tcp();
    client.write(&[&[b'x'; 1000][..], b"\r\n"].concat());
    assert_eq!(client.line(), "other");
}

#[test]
fn fragments_are_one_message() {
    let gateway = Gateway::start(RULES);
    let mut client = gateway.client();
    let message = br#"{"n":12345}"#;
    for (index, byte) in message.iter().enumerate() {
        let opcode = if index == 0 { 1 } else { 0 };
        let fin = if index + 1 == message.len() { 0x80 } else { 0 };
        client.write(&mask_frame(fin | opcode, [9, 8, 7, 6], &[*byte]));
        if index == 4 {
            client.write(&mask_frame(0x89, [1, 2, 3, 4], &[1, 2]));
        }
    }
    let pong = client.frame();
    assert_eq!((pong.first, &pong.payload[..]), (0x8a, &[1, 2][..]));
    assert_eq!(text(&mut client), "12345");
}

#[test]
fn strange_json_is_told_apart() {
    let gateway = Gateway::start(RULES);
    let mut client = gateway.client();
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let huge = format!(r#"{{"n":{}}}"#, "9".repeat(300));
    for (message, answer) in [
        (r#"{"n":1,"n":"2"}"#.to_owned(), "2"),
        (huge, &"9".repeat(300)),
        (r#"{"n":"1"#.to_owned(), "other"),
        (r#"{"n":[1]}"#.to_owned(), "json"),
        (r#"{"n":null}"#.to_owned(), "json"),
        (deep(64), "json"),
        (deep(65), "other"),
        ("[".repeat(1000), "other"),
        ("\"\\ud800\"".to_owned(), "json"),
        ("\"\\ud80\"".to_owned(), "other"),
        (String::new(), "other"),
        ("null".to_owned(), "other"),
    ] {
        client.send_text(&message);
        assert_eq!(text(&mut client), answer, "{message}");
    }
}

#[test]
fn only_upgrades_of_the_path_are_served() {
    let gateway = Gateway::start(RULES);
    let address = gateway.server.address(0);
    for (target, status) in
        [("/", "404"), ("/chat2", "404"), ("/chat/", "404"), ("/chat?a=/x", "101")]
    {
        let mut client = Client::tcp(address);
        client.write(crate::common::upgrade_request(target, "").as_bytes());
        assert_eq!(&client.head()[9..12], status, "{target}");
    }
    let mut client = Client::tcp(address);
    client.write(
        crate::common::upgrade_request(
            "/chat",
            "Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
        )
        .as_bytes(),
    );
    let head = client.head();
    assert!(head.contains("Sec-WebSocket-Protocol: a\r\n") && !head.contains("deflate"), "{head}");
}

#[test]
fn actions_that_fail_close_a_client_only_if_the_server_is_strict() {
    let rules = r#"
[[connmix.server.rule]]
on = "message"
do = [ { subscribe = ["room:${json.room}"] }, { send = "done" } ]
"#;
    let gateway = Gateway::start(rules);
    let mut client = gateway.client();
    for message in ["hello", "{}", r#"{"room":{"a":" "}}"#, r#"{"room":" "}"#, r#"{"room":"\n"}"#] {
        client.send_text(message);
        assert_eq!(text(&mut client), "done");
    }
    let mut worker = gateway.netsvr_worker();
    let topics: ringway::wire::worker::proto::TopicListResp =
        worker.ask(crate::common::cmd::TOPIC_LIST, &());
    assert!(topics.topics.is_empty(), "{topics:?}");
    let strict = Gateway::start(&format!("strict = true\n{rules}"));
    let mut client = strict.client();
    client.send_text(r#"{"room":"a"}"#);
    assert_eq!(text(&mut client), "done");
    client.send_text("hello");
    assert_eq!(client.frame().close(), (1008, "rule failed"));
}

#[test]
fn a_client_can_not_be_in_more_channels_than_the_limit() {
    let rules = r#"
[[connmix.server.rule]]
on = "message"
do = [ { subscribe = ["c:${json.l[*]}"] }, { send = "done" } ]
"#;
    let gateway = Gateway::start(rules);
    let mut client = gateway.client();
    for first in [0, 1000, 2000] {
        let list: Vec<i32> = (first..first + 1000).collect();
        client.send_text(&json!({ "l": list }).to_string());
        assert_eq!(text(&mut client), "done");
    }
    let mut worker = gateway.worker(&[]);
    let publish = |number: i32| json!({ "c": format!("c:{number}"), "d": "x" });
    assert_eq!(worker.done("mesh.publish", publish(1023))["s"], 1);
    assert_eq!(worker.done("mesh.publish", publish(1024))["s"], 0);
}
