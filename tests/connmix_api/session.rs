//! The complete worker session of connmix section 10.3, and a client that waits (W45).

use serde_json::{Value, json};

use crate::support::{Api, Peer, connmix};

/// Style B of section 7.4.
const STYLE_B: &str = r#"
[[connmix.server.rule]]
on = "open"
do = [ { push = { topic = "chat", event = "handshake", include = ["headers"] } } ]

[[connmix.server.rule]]
on = "message"
type = "text"
when = { "json.op" = "auth" }
do = [ { push = { topic = "chat", event = "message",
                  include = ["uid=ctx.uid", "frame", "headers"] } },
       { wait = { key = "uid", timeout = 60 } } ]

[[connmix.server.rule]]
on = "message"
type = "text"
when = { "json" = "exists" }
do = [ { push = { topic = "chat", event = "message", include = ["uid=ctx.uid", "frame"] } } ]

[[connmix.server.rule]]
on = "close"
do = [ { push = { topic = "chat", event = "close", include = ["uid=ctx.uid"] } } ]
"#;

/// The next event: client and `d`.
fn event(peer: &mut Peer) -> (String, Value) {
    let value = peer.json();
    assert_eq!(value["e"], "queue.pop", "{value}");
    assert_eq!((&value["id"], &value["p"]["n"]), (&Value::Null, &json!(1)));
    assert_eq!(value["p"]["t"], "chat");
    assert!(value.get("i").is_none() && value.as_object().is_some_and(|v| v.len() == 3));
    (value["p"]["c"].as_str().expect("a text").to_owned(), value["p"]["d"].clone())
}

fn done(peer: &mut Peer, id: u64) {
    assert_eq!(peer.json(), json!({"E": null, "r": {"s": true}, "i": id}));
}

fn frame(text: &str) -> Value {
    json!({"type": "text", "data": text, "finish": true})
}

fn start() -> (Api, Peer) {
    let api = connmix(STYLE_B, "");
    let mut peer = api.peer();
    peer.send(r#"{"m":"queue.pop","p":["chat"],"i":1}"#);
    done(&mut peer, 1);
    (api, peer)
}

#[test]
fn a_chat_worker_serves_a_client_from_its_handshake_to_its_end() {
    let (api, mut peer) = start();
    let mut a = crate::common::Client::open(api.clients, "/chat");
    let (client, d) = event(&mut peer);
    assert_eq!(d["event"], "handshake");
    for (name, value) in [
        ("Host", "test"),
        ("Method", "GET"),
        ("RequestUri", "/chat"),
        ("ServerProtocol", "HTTP/1.1"),
        ("Upgrade", "websocket"),
    ] {
        assert_eq!(d["headers"][name], value, "{d}");
    }
    let login = r#"{"op":"auth","args":["user1","123456"]}"#;
    a.send_text(login);
    let (from, mut d) = event(&mut peer);
    assert_eq!(from, client);
    let headers = d.as_object_mut().and_then(|d| d.remove("headers")).expect("headers");
    assert_eq!(headers["RequestUri"], "/chat");
    assert_eq!(d, json!({"event": "message", "frame": frame(login)}), "no uid yet");
    peer.send(&format!(
        r#"{{"m":"conn.call","p":{{"c":{client},"f":"set_context_value","a":["uid",1]}},"i":2}}"#
    ));
    let answer = r#"{\"op\":\"auth\",\"success\":true}"#;
    peer.send(&format!(r#"{{"m":"mesh.send","p":{{"c":{client},"d":"{answer}"}},"i":3}}"#));
    done(&mut peer, 2);
    done(&mut peer, 3);
    assert_eq!(a.frame().text(), r#"{"op":"auth","success":true}"#);
    let join = r#"{"op":"subscribe","args":["room_101"]}"#;
    a.send_text(join);
    let (_, d) = event(&mut peer);
    assert_eq!(d, json!({"event": "message", "frame": frame(join), "uid": 1}));
    peer.send(&format!(
        r#"{{"m":"conn.call","p":{{"c":{client},"f":"subscribe","a":["room_101"]}},"i":4}}"#
    ));
    let answer = r#"{\"op\":\"subscribe\",\"success\":true}"#;
    peer.send(&format!(r#"{{"m":"mesh.send","p":{{"c":{client},"d":"{answer}"}},"i":5}}"#));
    done(&mut peer, 4);
    done(&mut peer, 5);
    assert_eq!(a.frame().text(), r#"{"op":"subscribe","success":true}"#);
    // The sender of a publish sees it before it is confirmed.
    peer.send(r#"{"m":"mesh.publish","p":{"c":"room_101","d":"to all"},"i":6}"#);
    assert_eq!(peer.json(), json!({"E": null, "r": {"s": 1, "f": 0}, "i": 6}));
    assert_eq!(a.frame().text(), "to all");
    a.send_close(1000);
    let (from, d) = event(&mut peer);
    assert_eq!((from, d), (client, json!({"event": "close", "uid": 1})));
}

#[test]
fn a_client_that_waits_goes_on_when_its_context_has_the_value() {
    // W45
    let (api, mut peer) = start();
    let mut a = crate::common::Client::open(api.clients, "/chat");
    let (client, _) = event(&mut peer);
    a.send_text(r#"{"op":"auth"}"#);
    a.send_text(r#"{"op":"next"}"#);
    event(&mut peer);
    // Were it handled, its event would be here before this answer.
    peer.done(r#"{"m":"server.ping","i":1}"#);
    let send = format!(r#"{{"m":"mesh.send","p":{{"c":{client},"d":"still there?"}},"i":2}}"#);
    peer.done(&send);
    assert_eq!(a.frame().text(), "still there?", "what is sent to it is delivered meanwhile");
    let set = format!(
        r#"{{"m":"conn.call","p":{{"c":{client},"f":"set_context_value","a":["uid",7]}},"i":3}}"#
    );
    peer.send(&set);
    // Answer and event come from different shards, so in either order.
    let mut both = [peer.json(), peer.json()];
    both.sort_by_key(|value| value.get("e").is_some());
    assert_eq!(both[0], json!({"E": null, "r": {"s": true}, "i": 3}));
    let expected = json!({"event": "message", "frame": frame(r#"{"op":"next"}"#), "uid": 7});
    assert_eq!(both[1]["p"]["d"], expected);
}
