//! The chat example (style B): a worker decides, the gateway pushes, waits and delivers.

use serde_json::{Value, json};

use crate::support::{Gateway, Worker, text};

/// connmix section 7.4, completely.
const CHAT: &str = include_str!("../connmix_rules/chat.toml");

/// What the example's worker does with one event; false at a close.
fn work(worker: &mut Worker, users: &mut i64) -> Option<(String, Value)> {
    let (client, d) = worker.event();
    match d["event"].as_str() {
        Some("handshake") => return Some((client, d)),
        Some("message") => {}
        Some("close") => return None,
        _ => panic!("{d}"),
    }
    let said: Value = serde_json::from_str(d["frame"]["data"].as_str().expect("a text")).unwrap();
    let (op, args) = (said["op"].as_str().expect("an op"), &said["args"]);
    if op == "auth" {
        let known = args[1] == "123456";
        *users += 1;
        let uid = if known { *users } else { 0 };
        worker.call(&client, "set_context_value", json!(["uid", uid]));
        let answer = match known {
            true => json!({ "op": "auth", "success": true }),
            false => json!({ "op": "auth", "error": "wrong password" }),
        };
        worker.send(&client, &answer.to_string());
        return Some((client, d));
    }
    if d["uid"].as_i64().unwrap_or(0) == 0 {
        worker.send(&client, &json!({ "op": op, "error": "not logged in" }).to_string());
        return Some((client, d));
    }
    let publish = |worker: &mut Worker, channel: &str, message: &Value| {
        let data = format!("uid:{},message:{}", d["uid"], message.as_str().expect("a text"));
        let event = json!({ "event": "subscribe", "channel": channel, "data": data });
        worker.done("mesh.publish", json!({ "c": channel, "d": event.to_string() }));
    };
    match op {
        "subscribe" | "unsubscribe" => worker.call(&client, op, args.clone()),
        "sendtoroom" => publish(worker, args[0].as_str().expect("a room"), &args[1]),
        "ping" => {
            worker.send(&client, r#"{"op":"pong"}"#);
            return Some((client, d));
        }
        _ => panic!("{said}"),
    }
    worker.send(&client, &json!({ "op": op, "success": true }).to_string());
    Some((client, d))
}

#[test]
fn clients_log_in_join_talk_and_leave_through_a_worker() {
    let gateway = Gateway::start(CHAT);
    let (mut worker, mut users) = (gateway.worker(&["chat"]), 0);
    let mut ann = gateway.client_with("/chat?x=1", "X-Device: phone\r\nx-device: old\r\n");
    let (id, d) = work(&mut worker, &mut users).expect("a handshake");
    let headers = &d["headers"];
    assert_eq!(headers["RequestUri"], "/chat?x=1");
    assert_eq!(headers["X-Device"], "phone, old");
    let pseudo = (&headers["Method"], &headers["ServerProtocol"], &headers["Upgrade"]);
    assert_eq!(pseudo, (&json!("GET"), &json!("HTTP/1.1"), &json!("websocket")));
    let mut bob = gateway.client();
    work(&mut worker, &mut users).expect("a handshake");

    ann.send_text(r#"{"op":"subscribe","args":["room_101"]}"#);
    work(&mut worker, &mut users);
    assert_eq!(text(&mut ann), r#"{"error":"not logged in","op":"subscribe"}"#);
    for client in [&mut ann, &mut bob] {
        // What follows the login is not handled before the worker has decided.
        client.send_text(r#"{"op":"auth","args":["user","123456"]}"#);
        client.send_text(r#"{"op":"subscribe","args":["room_101"]}"#);
        let (_, d) = work(&mut worker, &mut users).expect("a login");
        assert!(d.get("uid").is_none() && d["headers"]["Host"] == "test", "{d}");
        assert_eq!(text(client), r#"{"op":"auth","success":true}"#);
        let (_, d) = work(&mut worker, &mut users).expect("a subscribe");
        assert_eq!(d["uid"], users);
        assert_eq!(text(client), r#"{"op":"subscribe","success":true}"#);
    }
    ann.send_text(r#"{"op":"sendtoroom","args":["room_101","hi"]}"#);
    work(&mut worker, &mut users);
    let event = r#"{"channel":"room_101","data":"uid:1,message:hi","event":"subscribe"}"#;
    assert_eq!(text(&mut ann), event, "the published message comes first");
    assert_eq!(text(&mut ann), r#"{"op":"sendtoroom","success":true}"#);
    assert_eq!(text(&mut bob), event);
    ann.send_text(r#"{"op":"ping"}"#);
    let (again, _) = work(&mut worker, &mut users).expect("a ping");
    assert_eq!((again, text(&mut ann).as_str()), (id.clone(), r#"{"op":"pong"}"#));

    drop(ann);
    let (closed, d) = worker.event();
    assert_eq!((closed, d), (id.clone(), json!({ "event": "close", "uid": 1 })));
    let gone = worker.ask("mesh.send", json!({ "c": id, "d": "x" }));
    assert_eq!(gone["E"]["c"], 401);
}

#[test]
fn a_failed_login_goes_on_with_the_marker_of_the_worker() {
    let gateway = Gateway::start(CHAT);
    let (mut worker, mut users) = (gateway.worker(&["chat"]), 0);
    let mut client = gateway.client();
    work(&mut worker, &mut users);
    client.send_text(r#"{"op":"auth","args":["user","guess"]}"#);
    client.send_text(r#"{"op":"subscribe","args":["x"]}"#);
    work(&mut worker, &mut users);
    assert_eq!(text(&mut client), r#"{"error":"wrong password","op":"auth"}"#);
    let (_, d) = work(&mut worker, &mut users).expect("a subscribe");
    assert_eq!(d["uid"], 0);
    assert_eq!(text(&mut client), r#"{"error":"not logged in","op":"subscribe"}"#);
}

#[test]
fn messages_of_many_clients_reach_the_queue_in_the_order_of_each() {
    const CLIENTS: usize = 20;
    const MESSAGES: usize = 200;
    let queue = "[connmix.queue]\ntopic_messages_max = 100000\n";
    let gateway = Gateway::start(&format!("{}{queue}", crate::support::PUSH_ALL));
    let mut worker = gateway.worker(&["q"]);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| gateway.client()).collect();
    for client in &mut clients {
        (0..MESSAGES).for_each(|number| client.send_text(&number.to_string()));
    }
    let mut next = std::collections::HashMap::new();
    for _ in 0..CLIENTS * (MESSAGES + 1) {
        let (client, d) = worker.event();
        let expected = next.entry(client).or_insert(-1i64);
        match d["event"].as_str() {
            Some("open") => assert_eq!(*expected, -1),
            _ => assert_eq!(d["frame"]["data"], expected.to_string()),
        }
        *expected += 1;
    }
    assert!(next.values().all(|next| *next == MESSAGES as i64) && next.len() == CLIENTS);
}

#[test]
fn dashboards_of_connmix_find_its_metrics_under_their_names() {
    let rules = "[[connmix.server.rule]]\non = \"message\"\ndo = [ { send = \"got ${data}\" } ]\n";
    let gateway = Gateway::start(rules);
    let (mut web, mut tcp) = (gateway.client(), gateway.tcp());
    for number in 0..3 {
        web.send_text(&number.to_string());
        assert_eq!(text(&mut web), format!("got {number}"));
    }
    tcp.write(b"hello\n");
    assert_eq!(tcp.line(), "got hello");
    let expected = [
        "connmix_center_registry_channels_total 0",
        "connmix_center_registry_clients 2",
        "connmix_center_registry_engine_nodes 1",
        "connmix_engine_servers_clients 2",
        "connmix_engine_servers_read_messages_total{protocol=\"socket\"} 1",
        "connmix_engine_servers_read_messages_total{protocol=\"websocket\"} 3",
        "connmix_engine_servers_send_messages_total{protocol=\"socket\"} 1",
        "connmix_engine_servers_send_messages_total{protocol=\"websocket\"} 3",
        "connmix_engine_servers_send_errors_total{protocol=\"socket\"} 0",
        "connmix_engine_servers_send_errors_total{protocol=\"websocket\"} 0",
    ];
    crate::common::wait_until("they are counted", || {
        let page = gateway.metrics();
        expected.iter().all(|line| page.lines().any(|other| other == *line))
    });
}

#[test]
fn times_of_sends_are_measured_for_each_kind_of_client() {
    let rules = "[[connmix.server.rule]]\non = \"open\"\ndo = [ { subscribe = [\"all\"] } ]\n";
    let gateway = Gateway::start(rules);
    let (mut web, mut tcp) = (gateway.client(), gateway.tcp());
    crate::common::wait_until("both are there", || {
        gateway.metrics().contains("connmix_engine_servers_clients 2\n")
    });
    let line = |end: &str, protocol: &str, scenario: &str, quantile: &str| {
        format!(
            "connmix_engine_servers_send_duration_seconds{end}\
             {{protocol=\"{protocol}\",scenario=\"{scenario}\"{quantile}}} "
        )
    };
    let value = |page: &str, line: &str| -> f64 {
        let found = page.lines().find_map(|other| other.strip_prefix(line));
        found.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{line}: {page}"))
    };
    let quantiles = ["0", "0.25", "0.5", "0.75", "1"].map(|of| format!(",quantile=\"{of}\""));
    let page = gateway.metrics();
    for (protocol, scenario) in [
        ("socket", "local"),
        ("socket", "forward"),
        ("websocket", "local"),
        ("websocket", "forward"),
    ] {
        for quantile in &quantiles {
            assert!(value(&page, &line("", protocol, scenario, quantile)).is_nan());
        }
        assert_eq!(value(&page, &line("_count", protocol, scenario, "")), 0.0);
        assert_eq!(value(&page, &line("_sum", protocol, scenario, "")), 0.0);
    }
    let mut worker = gateway.worker(&[]);
    let sent = worker.done("mesh.publish", json!({ "c": "all", "d": "hello" }));
    assert_eq!(sent, json!({ "s": 2, "f": 0 }));
    assert_eq!((text(&mut web), tcp.line()), ("hello".to_owned(), "hello".to_owned()));
    for protocol in ["socket", "websocket"] {
        crate::common::wait_until("it was measured", || {
            value(&gateway.metrics(), &line("_count", protocol, "local", "")) == 1.0
        });
        let page = gateway.metrics();
        let sum = value(&page, &line("_sum", protocol, "local", ""));
        let times = quantiles.each_ref().map(|of| value(&page, &line("", protocol, "local", of)));
        assert!(times.iter().all(|time| *time >= sum && *time <= sum * 1.125), "{times:?} {sum}");
        assert_eq!(value(&page, &line("_count", protocol, "forward", "")), 0.0);
    }
}
