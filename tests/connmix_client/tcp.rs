//! TCP clients: lines, requests in lines, lengths.

use serde_json::json;

use crate::support::{Gateway, PUSH_ALL, text};

fn gateway(framing: &str, rules: &str) -> Gateway {
    Gateway::start(&format!("framing = \"{framing}\"\n{rules}"))
}

#[test]
fn lines_are_messages_however_they_are_cut() {
    let gateway = gateway("line", PUSH_ALL);
    let mut worker = gateway.worker(&["q"]);
    let mut client = gateway.tcp();
    let (id, d) = worker.event();
    assert_eq!(d, json!({ "event": "open" }));
    for piece in ["one\r", "\ntw", "o\n\nthree", "\n"] {
        client.write(piece.as_bytes());
    }
    for expected in ["one", "two", "", "three"] {
        let (from, d) = worker.event();
        let frame = json!({ "type": "text", "data": expected, "finish": true });
        assert_eq!((from, d), (id.clone(), json!({ "frame": frame })));
    }
    worker.send(&id, "you");
    assert_eq!(client.line(), "you");
    worker.call(&id, "subscribe", json!(["news"]));
    let sent = worker.done("mesh.publish", json!({ "c": "news", "d": "\u{4f60}" }));
    assert_eq!(sent, json!({ "s": 1, "f": 0 }));
    assert_eq!(client.line(), "\u{4f60}");
    // A line can not have a line feed in it.
    let sent = worker.done("mesh.publish", json!({ "c": "news", "d": "a\nb" }));
    assert_eq!(sent, json!({ "s": 0, "f": 1 }));
    drop(client);
    assert_eq!(worker.event(), (id, json!({ "event": "close" })));
}

#[test]
fn lengths_carry_bytes_or_texts() {
    let gateway = gateway("length", PUSH_ALL);
    let mut worker = gateway.worker(&["q"]);
    let mut client = gateway.tcp();
    let (id, _) = worker.event();
    for byte in [0, 0, 0, 4, 0, 1, 2, 0xff, 0, 0, 0, 0] {
        client.write(&[byte]);
    }
    for data in ["AAEC/w==", ""] {
        let frame = json!({ "type": "binary", "data": data, "finish": true });
        assert_eq!(worker.event().1, json!({ "frame": frame }));
    }
    worker.done("mesh.send", json!({ "c": id, "d": "AAo=", "t": "binary" }));
    assert_eq!(client.bytes(6), [0, 0, 0, 2, 0, 10]);

    let gateway = self::gateway("length-text", PUSH_ALL);
    let mut worker = gateway.worker(&["q"]);
    let mut client = gateway.tcp();
    worker.event();
    client.write(b"\0\0\0\x02hi");
    let frame = json!({ "type": "text", "data": "hi", "finish": true });
    assert_eq!(worker.event().1, json!({ "frame": frame }));
    client.write(b"\0\0\0\x01\xff");
    client.expect_end();
}

#[test]
fn requests_in_lines_are_answered_without_a_worker() {
    let rules = r#"
[[connmix.server.rule]]
on = "message"
when = { "json.method" = "join", "json.params.room" = "re:^[a-z]+$" }
do = [ { subscribe = ["room:${json.params.room}"] }, { send = '{"result":${json.id|json}}' } ]
[[connmix.server.rule]]
on = "message"
when = { "json.method" = "say" }
do = [ { publish = { channel = "room:${json.params.room}", data = "${json.params.text|json}" } } ]
"#;
    let gateway = gateway("json-line", rules);
    let mut client = gateway.tcp();
    client.write(b"{\"method\":\"join\",\"params\":{\"room\":\"lobby\"},\"id\":7}\n");
    assert_eq!(client.line(), r#"{"result":7}"#);
    client.write(b"{\"method\":\"say\",\"params\":{\"room\":\"lobby\",\"text\":\"a\\nb\"}}\n");
    assert_eq!(client.line(), r#""a\nb""#);
    for bad in ["hello\n", "\n", "[1]\n", "{\"method\":\"join\"}\n"] {
        let mut client = gateway.tcp();
        client.write(bad.as_bytes());
        client.expect_end();
    }
}

#[test]
fn one_server_serves_websocket_and_tcp_clients_alike() {
    let rules = r#"
text_ping = true
[[connmix.server.rule]]
on = "open"
do = [ { subscribe = ["all"] }, { send = "welcome" } ]
[[connmix.server.rule]]
on = "message"
do = [ { publish = { channel = "all", data = "${data}" } } ]
"#;
    let gateway = gateway("line", rules);
    let (mut web, mut tcp) = (gateway.client(), gateway.tcp());
    assert_eq!((text(&mut web), tcp.line()), ("welcome".to_owned(), "welcome".to_owned()));
    tcp.write(b"from tcp\n");
    assert_eq!((text(&mut web), tcp.line()), ("from tcp".to_owned(), "from tcp".to_owned()));
    web.send_text("from web");
    assert_eq!((text(&mut web), tcp.line()), ("from web".to_owned(), "from web".to_owned()));
    tcp.write(b"ping\r\n");
    web.send_text("ping");
    assert_eq!((text(&mut web), tcp.line()), ("pong".to_owned(), "pong".to_owned()));
}

/// What a message says, and what a backend has said of its client.
const SHOWS: &str = r#"
[[connmix.server.rule]]
on = "open"
do = [ { subscribe = ["all"] }, { push = { topic = "q", event = "open" } } ]
[[connmix.server.rule]]
on = "message"
when = { "json.method" = "ask" }
do = [ { push = { topic = "q", extra = { v = "${json.params}" } } } ]
[[connmix.server.rule]]
on = "message"
when = { "json.method" = "show" }
do = [ { send = "${ctx.k|json}" } ]
"#;

#[test]
fn the_same_bytes_are_the_same_value_over_every_way_in() {
    let gateway = gateway("json-line", SHOWS);
    let mut worker = gateway.worker(&["q"]);
    let mut web = gateway.client();
    let (web_id, _) = worker.event();
    let mut tcp = gateway.tcp();
    let (tcp_id, _) = worker.event();
    let cases = [
        (r#""\ud83d""#, json!("\u{fffd}")),
        (r#""\ude00\ud83d\ude00!""#, json!("\u{fffd}\u{1f600}!")),
        (r#"["\uDBFF",{"\udc00":1}]"#, json!(["\u{fffd}", { "\u{fffd}": 1 }])),
        (r#" [ 1.50e1 , "\/" ] "#, json!([15.0, "/"])),
    ];
    for (text, expected) in &cases {
        let request = format!(r#"{{"method":"ask","params":{text}}}"#);
        web.send_text(&request);
        assert_eq!(worker.event(), (web_id.clone(), json!({ "v": expected })), "{text}");
        tcp.write(format!("{request}\n").as_bytes());
        assert_eq!(worker.event(), (tcp_id.clone(), json!({ "v": expected })), "{text}");
        for id in [&web_id, &tcp_id] {
            let call = format!(r#"{{"c":"{id}","f":"set_context_value","a":["k",{text}]}}"#);
            let answer = worker.ask_text(&format!(r#"{{"m":"conn.call","p":{call},"i":1}}"#));
            assert_eq!(answer["E"], json!(null), "{text}");
        }
        web.send_text(r#"{"method":"show","params":0}"#);
        tcp.write(b"{\"method\":\"show\",\"params\":0}\n");
        for shown in [self::text(&mut web), tcp.line()] {
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), *expected);
        }
        if let Some(said) = expected.as_str() {
            let body = format!(r#"{{"c":"all","d":{text}}}"#);
            let answer = gateway.post("/v1/mesh/publish", &body);
            assert!(answer.ends_with(r#"{"E":null,"r":{"s":2,"f":0}}"#), "{answer}");
            worker.ask_text(&format!(r#"{{"m":"mesh.publish","p":{body},"i":1}}"#));
            for _ in 0..2 {
                assert_eq!((&*self::text(&mut web), &*tcp.line()), (said, said));
            }
        }
    }
    // What is no JSON is none anywhere, and everybody else goes on.
    let wrong = r#"{"method":"ask","params":"\ud83"}"#;
    web.send_text(wrong);
    web.send_text(r#"{"method":"show","params":0}"#);
    assert!(!text(&mut web).is_empty());
    assert_eq!(worker.ask_text(wrong)["E"]["m"], "invalid json");
    assert!(gateway.post("/v1/mesh/send", wrong).ends_with(r#""m":"invalid json"}}"#));
    tcp.write(format!("{wrong}\n").as_bytes());
    tcp.expect_end();
}
