//! The API over WebSocket: order, limits, bad input, timeouts, reaching clients of other protocols
//! (sections 1.4 to 1.9, 2, 4, 5).

use std::net::Shutdown;
use std::time::Duration;

use ringway::wire::websocket::mask_frame;
use ringway::wire::worker::proto;
use serde_json::{Value, json};

use crate::common::{Client, cmd, connect, wait_until};
use crate::support::{Api, Peer, assert_answer, config};

#[test]
fn effects_on_a_client_come_in_the_order_of_the_requests_and_so_do_the_answers() {
    // W42, with clients on both shards.
    let api = Api::start();
    let mut clients: Vec<_> = (0..6).map(|_| api.netsvr_client()).collect();
    let shards: std::collections::HashSet<u8> =
        clients.iter().map(|(_, client)| api.conn(*client).shard()).collect();
    assert!(!shards.is_empty());
    let mut peer = api.peer();
    for (index, (_, client)) in clients.iter().enumerate() {
        let channel = format!("x{index}");
        peer.send(&format!(
            r#"{{"m":"conn.call","i":{},
                 "p":{{"c":"{client}","f":"subscribe","a":["{channel}"]}}}}"#,
            index * 3
        ));
        peer.send(&format!(
            r#"{{"m":"mesh.publish","p":{{"c":"{channel}","d":"1"}},"i":{}}}"#,
            index * 3 + 1
        ));
        peer.send(&format!(
            r#"{{"m":"mesh.send","p":{{"c":"{client}","d":"2"}},"i":{}}}"#,
            index * 3 + 2
        ));
    }
    for index in 0..clients.len() * 3 {
        let result = if index % 3 == 1 { json!({"s": 1, "f": 0}) } else { json!({"s": true}) };
        assert_eq!(peer.json(), json!({"E": null, "r": result, "i": index}));
    }
    for (client, _) in &mut clients {
        assert_eq!(client.frame().text(), "1");
        assert_eq!(client.frame().text(), "2");
    }
}

#[test]
fn every_malformed_request_has_one_answer_and_too_many_in_a_row_close_the_connection() {
    let (mut settings, number) = config();
    settings.connmix.api.faults_max = 50;
    let api = Api::start_with(settings, number);
    let mut peer = api.peer();
    let deep = format!(r#"{{"m":"mesh.send","p":{}1{},"i":1}}"#, "[".repeat(64), "]".repeat(64));
    for (text, id) in [
        (deep.as_str(), Value::Null),
        ("[]", Value::Null),
        ("null", Value::Null),
        ("{", Value::Null),
        (r#"{"i":1} x"#, Value::Null),
        (r#"{"m":"mesh.send","i":{}}"#, Value::Null),
        (r#"{"m":"mesh.send","i":[1]}"#, Value::Null),
        (r#"{"m":"mesh.send","i":true}"#, Value::Null),
        (r#"{"m":5,"i":1}"#, json!(1)),
        (r#"{"i":1}"#, json!(1)),
        (r#"{"m":"mesh.send","i":1}"#, json!(1)),
        (r#"{"m":"mesh.send","p":[],"i":1}"#, json!(1)),
        (r#"{"m":"mesh.send","p":[{},{}],"i":1}"#, json!(1)),
        (r#"{"m":"mesh.send","p":"x","i":1}"#, json!(1)),
        (r#"{"m":"mesh.send","p":{"c":1.0,"d":""},"i":1}"#, json!(1)),
        (r#"{"m":"mesh.send","p":{"c":0,"d":""},"i":1}"#, json!(1)),
        (r#"{"m":"mesh.send","p":{"c":"","d":""},"i":1}"#, json!(1)),
        (r#"{"m":"mesh.send","p":{"c":9223372036854775808,"d":""},"i":1}"#, json!(1)),
        (r#"{"m":"mesh.send","p":{"c":"00000000000000000001","d":""},"i":1}"#, json!(1)),
        (r#"{"m":"mesh.send","p":{"c":true,"d":""},"i":1}"#, json!(1)),
        (r#"{"m":"mesh.publish","p":{"c":"a b","d":""},"i":"a\"b"}"#, json!("a\"b")),
        (r#"{"m":"mesh.publish","p":{"c":"a\u0000","d":""},"i":null}"#, Value::Null),
        (r#"{"m":"mesh.publish","p":{"c":"x","d":"a","t":"binary"},"i":-7}"#, json!(-7)),
        (r#"{"m":"queue.pop","p":{},"i":1}"#, json!(1)),
        (r#"{"m":"queue.pop","p":{"t":[1]},"i":1}"#, json!(1)),
        (r#"{"m":"queue.pop","p":[""],"i":1}"#, json!(1)),
        (r#"{"m":"queue.unpop","p":1,"i":1}"#, json!(1)),
        (r#"{"m":"conn.call","p":{"c":1,"f":"set_context","a":[[1]]},"i":1}"#, json!(1)),
        (r#"{"m":"conn.call","p":{"c":1,"f":"set_context_value","a":["",1]},"i":1}"#, json!(1)),
        (r#"{"m":"conn.call","p":{"c":1,"f":"subscribe","a":{}},"i":1}"#, json!(1)),
    ] {
        let expected = json!({"E": {"c": 101, "m": ""}, "i": id});
        assert_answer(peer.ask(text), expected, text);
    }
    // A binary message is read as if it were text; bytes that are no text are no JSON.
    peer.client.write(&mask_frame(0x82, [1, 2, 3, 4], b"{\"m\":\"\xff\"}"));
    assert_eq!(peer.json()["E"]["c"], 101);
    peer.client.write(&mask_frame(0x82, [1, 2, 3, 4], br#"{"m":"server.ping","i":2}"#));
    assert_eq!(peer.json(), json!({"E": null, "r": {"m": "server.pong"}, "i": 2}));
    for _ in 0..51 {
        assert_eq!(peer.ask("x")["E"]["c"], 101);
    }
    assert_eq!(peer.client.frame().close(), (1008, "too many errors"));
}

#[test]
fn of_a_key_that_occurs_twice_the_last_value_counts() {
    let api = Api::start();
    let mut peer = api.peer();
    let text = r#"{"m":"x","m":"server.ping","i":1,"i":2}"#;
    assert_eq!(peer.ask(text), json!({"E": null, "r": {"m": "server.pong"}, "i": 2}));
    let text =
        r#"{"m":"mesh.publish","p":{"c":" ","c":"ok","d":1,"d":"x"},"i":123456789012345678901}"#;
    peer.send(text);
    assert_eq!(peer.text(), r#"{"E":null,"r":{"s":0,"f":0},"i":123456789012345678901}"#);
}

#[test]
fn ping_frames_and_fragments_are_those_of_a_websocket() {
    // W38, W39, W40
    let api = Api::start();
    let mut peer = api.peer();
    peer.client.write(&mask_frame(0x89, [1, 2, 3, 4], &[1, 2]));
    let pong = peer.client.frame();
    assert_eq!((pong.first, &*pong.payload), (0x8a, &[1, 2][..]));
    let long =
        format!(r#"{{"m":"mesh.publish","p":{{"c":"x","d":"{}"}},"i":1}}"#, "y".repeat(9950));
    peer.send_fragments(&long, 4096);
    assert_eq!(peer.json(), json!({"E": null, "r": {"s": 0, "f": 0}, "i": 1}));
    let mut peer = api.peer();
    // The head of the frame is enough to refuse it.
    let mut frame = vec![0x81, 0x80 | 127];
    frame.extend_from_slice(&(1_048_577u64).to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    peer.client.write(&frame);
    assert_eq!(peer.client.frame().close().0, 1009);
}

#[test]
fn an_idle_peer_stays_while_it_answers_pings() {
    // W41
    let (mut settings, number) = config();
    settings.connmix.api.read_timeout = Duration::from_secs(1);
    settings.runtime.close_timeout = Duration::from_millis(200);
    let api = Api::start_with(settings, number);
    let mut peer = api.peer();
    for _ in 0..6 {
        let ping = peer.client.frame();
        assert_eq!(ping.first, 0x89);
        peer.client.write(&mask_frame(0x8a, [1, 2, 3, 4], &ping.payload));
    }
    peer.done(r#"{"m":"server.ping","i":1}"#);
    let mut silent = api.peer();
    assert_eq!(silent.client.frame().first, 0x89);
    assert_eq!(silent.client.frame().close(), (1000, "read timeout"));
    silent.client.expect_end();
    let mut http = api.http();
    http.ask("GET", "/version", "");
    assert!(http.try_reply().is_none(), "an idle HTTP connection is closed");
}

#[test]
fn a_request_that_does_not_come_to_its_end_is_given_up() {
    let (mut settings, number) = config();
    settings.runtime.handshake_timeout = Duration::from_millis(200);
    let api = Api::start_with(settings, number);
    for start in
        ["POST /v1/mesh/send HT", "POST /v1/mesh/send HTTP/1.0\r\nContent-Length: 9\r\n\r\n{"]
    {
        let mut http = api.http();
        http.write(start.as_bytes());
        assert!(http.try_reply().is_none());
    }
}

#[test]
fn a_client_that_left_is_unknown() {
    // W43
    let api = Api::start();
    let (client, id) = api.netsvr_client();
    let mut peer = api.peer();
    let subscribe =
        format!(r#"{{"m":"conn.call","p":{{"c":{id},"f":"subscribe","a":["x"]}},"i":1}}"#);
    peer.done(&subscribe);
    assert_eq!(peer.ask(r#"{"m":"mesh.publish","p":{"c":"x","d":"y"}}"#)["r"]["s"], 1);
    drop(client);
    let mut task = api.server.task();
    wait_until("the client has left", || task.online_count() == 0);
    let send = format!(r#"{{"m":"mesh.send","p":{{"c":{id},"d":"y"}},"i":2}}"#);
    assert_eq!(peer.ask(&send)["E"]["c"], 401);
    assert_eq!(peer.ask(&subscribe)["E"]["c"], 301);
    assert_eq!(peer.ask(r#"{"m":"mesh.publish","p":{"c":"x","d":"y"}}"#)["r"]["s"], 0);
}

#[test]
fn channels_are_topics_of_every_protocol_and_contexts_are_sessions() {
    let api = Api::start();
    let (mut client, id) = api.netsvr_client();
    let mut task = api.server.task();
    let uniq_ids: proto::UniqIdListResp = task.ask(cmd::UNIQ_ID_LIST, &());
    let uniq_id = uniq_ids.uniq_ids[0].clone();
    task.subscribe(&uniq_id, &["news"]);
    let mut peer = api.peer();
    wait_until("the subscription is in force", || {
        let text = r#"{"m":"mesh.publish","p":{"c":"news","d":"to subscribers"},"i":1}"#;
        peer.ask(text)["r"]["s"] == 1
    });
    assert_eq!(client.frame().text(), "to subscribers");
    for (arguments, session) in [
        (r#"{"uid":7,"name":"\u00e9"}"#, r#"{"name":"\u00e9","uid":7}"#),
        (r#"{"uid":null,"list":[1, 2]}"#, r#"{"list":[1, 2],"name":"\u00e9"}"#),
        ("[]", r#"{"list":[1, 2],"name":"\u00e9"}"#),
        (r#"{"name":null,"list":null}"#, ""),
    ] {
        let text = format!(
            r#"{{"m":"conn.call","p":{{"c":{id},"f":"set_context","a":[{arguments}]}},"i":1}}"#
        );
        peer.done(&text);
        assert_eq!(session_of(&api, &uniq_id), session, "{arguments}");
    }
    let large = "x".repeat(65_536);
    let value = |value: &str| {
        format!(
            r#"{{"m":"conn.call","i":1,
                 "p":{{"c":{id},"f":"set_context_value","a":["k","{value}"]}}}}"#
        )
    };
    assert_eq!(peer.ask(&value(&large))["E"]["c"], 301, "the context would be too large");
    peer.done(&value("v"));
    assert_eq!(session_of(&api, &uniq_id), r#"{"k":"v"}"#);
    // A session that is no JSON object is left alone.
    let change = proto::ConnInfoUpdate {
        uniq_id: uniq_id.clone(),
        new_session: "opaque".into(),
        ..Default::default()
    };
    task.send(cmd::CONN_INFO_UPDATE, &change);
    wait_until("the session is set", || session_of(&api, &uniq_id) == "opaque");
    assert_eq!(peer.ask(&value("w"))["E"]["c"], 301);
    assert_eq!(session_of(&api, &uniq_id), "opaque");
}

#[test]
fn a_connection_has_a_limit_of_channels() {
    let api = Api::start();
    let (_client, id) = api.netsvr_client();
    let mut peer = api.peer();
    let names: Vec<String> = (0..1024).map(|number| format!("\"c{number}\"")).collect();
    let call = |function: &str, names: &[String]| {
        let names = names.join(",");
        format!(r#"{{"m":"conn.call","p":{{"c":{id},"f":"{function}","a":[{names}]}},"i":1}}"#)
    };
    peer.done(&call("subscribe", &names));
    peer.done(&call("subscribe", &names[..5]));
    assert_eq!(peer.ask(&call("subscribe", &["\"one more\"".to_owned()]))["E"]["c"], 101);
    assert_eq!(peer.ask(&call("subscribe", &["\"more\"".to_owned()]))["E"]["c"], 301);
    peer.done(&call("unsubscribe", &names[..1]));
    peer.done(&call("subscribe", &["\"more\"".to_owned()]));
}

#[test]
fn a_peer_that_does_not_read_is_not_read_and_dropped_in_the_end() {
    let (mut settings, number) = config();
    settings.connmix.api.write_timeout = Duration::from_millis(500);
    let api = Api::start_with(settings, number);
    let mut socket = connect(api.address);
    use std::io::Write;
    socket.write_all(crate::common::upgrade_request("/ws/v1", "").as_bytes()).expect("it reads");
    let request = mask_frame(0x81, [1, 2, 3, 4], br#"{"m":"server.ping","i":"0123456789"}"#);
    let many = request.repeat(1000);
    let mut written = 0usize;
    // Until its answers fill the sockets between them.
    while socket.write_all(&many).is_ok() {
        written += many.len();
        assert!(written < 1 << 30, "the gateway reads without end");
    }
    let mut peer = api.peer();
    peer.done(r#"{"m":"server.ping","i":1}"#);
}

#[test]
fn a_browser_gets_the_protocol_that_it_offers_and_the_end_is_told() {
    let api = Api::start();
    let mut client = Client::tcp(api.address);
    let header = "Sec-WebSocket-Protocol: one, two\r\n";
    client.write(crate::common::upgrade_request("/ws/v1", header).as_bytes());
    let head = client.head();
    assert!(head.contains("Sec-WebSocket-Protocol: one\r\n"), "{head}");
    let mut peer = Peer { client };
    peer.done(r#"{"m":"server.ping","i":1}"#);
    assert!(api.server.stop(), "nothing is left to wait for");
    assert_eq!(peer.client.frame().close(), (1001, "server shutdown"));
}

/// The session of a client, as netsvr business processes see it.
fn session_of(api: &Api, uniq_id: &str) -> String {
    let mut task = api.server.task();
    let request = proto::ConnInfoReq {
        uniq_ids: vec![uniq_id.to_owned()],
        req_session: true,
        ..Default::default()
    };
    let info: proto::ConnInfoResp = task.ask(cmd::CONN_INFO, &request);
    info.items[uniq_id].session.clone()
}

/// A close frame and a bad frame behind requests, in one packet with them: every shard is asked, so
/// no answer is there when the end is read (RFC 6455 section 5.5.1).
#[test]
fn requests_before_an_end_are_answered_whatever_the_end() {
    let api = Api::start();
    let close = mask_frame(0x88, [1, 2, 3, 4], &1000u16.to_be_bytes());
    let reserved = mask_frame(0x83, [1, 2, 3, 4], b"");
    let ends = [
        (&[][..], true, None),
        (&close, false, Some(1000)),
        (&close, true, Some(1000)),
        (&reserved, false, Some(1002)),
        (&reserved, true, Some(1002)),
    ];
    for (end, fin, code) in ends {
        // More than 256 are not taken at once.
        for count in [1, 5, 50, 300] {
            let mut peer = api.peer();
            let request = |id: usize| {
                let text = format!(r#"{{"m":"mesh.publish","p":{{"c":"x","d":""}},"i":{id}}}"#);
                mask_frame(0x81, [1, 2, 3, 4], text.as_bytes())
            };
            let mut packet: Vec<u8> = (0..count).flat_map(request).collect();
            packet.extend_from_slice(end);
            rustix::net::sockopt::set_tcp_cork(&peer.client.socket, true).expect("a socket");
            peer.client.write(&packet);
            match fin {
                true => peer.client.socket.shutdown(Shutdown::Write).expect("a socket"),
                false => rustix::net::sockopt::set_tcp_cork(&peer.client.socket, false)
                    .expect("a socket"),
            }
            for id in 0..count {
                assert_eq!(peer.json(), json!({"E": null, "r": {"s": 0, "f": 0}, "i": id}));
            }
            if let Some(code) = code {
                assert_eq!(peer.client.frame().close().0, code, "{count} requests");
            }
            peer.client.expect_end();
        }
    }
}
