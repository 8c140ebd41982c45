//! Style A: the gateway does everything itself, a backend checks tokens and publishes; and the
//! quick start.

use serde_json::json;

use crate::http_server::HttpServer;
use crate::support::{Gateway, text};

fn streams(backend: &HttpServer) -> Gateway {
    let rules = include_str!("../connmix_rules/streams.toml");
    let url = backend.url("/websocket_auth");
    let rules = rules.replace("http://127.0.0.1:8000/websocket_auth", &url);
    Gateway::start(&rules.replace("timeout = 3", "timeout = 20"))
}

#[test]
fn private_streams_are_for_their_user_and_public_ones_for_all() {
    let backend = HttpServer::start();
    let gateway = streams(&backend);
    let (mut ann, mut guest) = (gateway.client(), gateway.client());
    for client in [&mut ann, &mut guest] {
        client.send_text(r#"{"op":"subscribe","channel":"@balance"}"#);
        assert_eq!(text(client), r#"{"code":1,"msg":"Not Auth"}"#);
        client.send_text(r#"{"op":"subscribe","channel":"BTCUSDT@depth"}"#);
        assert_eq!(text(client), r#"{"result":true}"#);
    }
    ann.send_text(r#"{"op":"auth","token":"a\"b"}"#);
    // Not handled before the backend has answered.
    ann.send_text(r#"{"op":"subscribe","channel":"@balance"}"#);
    let request = backend.request();
    assert_eq!(request.line, "POST /websocket_auth HTTP/1.1");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.body, br#"{"token":"a\"b"}"#);
    request.answer("200 OK", br#"{"uid":10001,"name":"ann"}"#);
    assert_eq!(text(&mut ann), r#"{"result":true}"#, "to the login");
    assert_eq!(text(&mut ann), r#"{"result":true}"#, "to the subscribe");

    let mut worker = gateway.worker(&[]);
    let publish = |channel: &str, data: &str| json!({ "c": channel, "d": data });
    let sent = worker.done("mesh.publish", publish("ex:10001@balance", "private"));
    assert_eq!(sent, json!({ "s": 1, "f": 0 }));
    let sent = worker.done("mesh.publish", publish("ex:BTCUSDT@depth", "public"));
    assert_eq!(sent, json!({ "s": 2, "f": 0 }));
    assert_eq!((text(&mut ann), text(&mut ann)), ("private".into(), "public".into()));
    assert_eq!(text(&mut guest), "public");
    let nobody = worker.done("mesh.publish", publish("BTCUSDT@depth", "x"));
    assert_eq!(nobody, json!({ "s": 0, "f": 0 }), "clients never name a channel without prefix");

    guest.send_text(r#"{"op":"subscribe","channel":"a@b@c"}"#);
    assert_eq!(guest.frame().close(), (1008, ""));
}

#[test]
fn a_login_that_the_backend_does_not_confirm_closes_the_client() {
    let backend = HttpServer::start();
    let gateway = streams(&backend);
    let answers: [(&str, &[u8]); 4] = [
        ("401 Unauthorized", b"{\"uid\":1}"),
        ("200 OK", b"{\"error\":\"unknown\"}"),
        ("200 OK", b"no json"),
        ("302 Found", b""),
    ];
    for (status, body) in answers {
        let mut client = gateway.client();
        client.send_text(r#"{"op":"auth","token":"x"}"#);
        backend.request().answer(status, body);
        assert_eq!(client.frame().close(), (1008, ""), "{status}");
    }
    let mut client = gateway.client();
    client.send_text(r#"{"op":"auth","token":"x"}"#);
    drop(backend.request());
    assert_eq!(client.frame().close(), (1008, ""), "no answer at all");
    // An answer that is too long is none.
    let mut client = gateway.client();
    client.send_text(r#"{"op":"auth","token":"x"}"#);
    let long = format!("{{\"uid\":1,\"x\":\"{}\"}}", "x".repeat(100_000));
    backend.request().answer("200 OK", long.as_bytes());
    assert_eq!(client.frame().close(), (1008, ""));
}

/// What a client says is one segment of the path, or nobody is asked.
#[test]
fn a_request_never_climbs_out_of_the_path_of_its_rule() {
    let backend = HttpServer::start();
    let url = backend.url("/users/${data}/name");
    let gateway = Gateway::start(&format!(
        "[[connmix.server.rule]]\non = \"message\"\ndo = [ {{ http = {{ method = \"GET\", \
         url = \"{url}\", timeout = 20, on_error = [ {{ send = \"failed\" }} ] }} }}, \
         {{ send = \"asked\" }} ]\n"
    ));
    let mut client = gateway.client();
    for climbs in ["..", ".", "%2e%2e", "../../admin", "a/..", "..\\admin", ".%2E", "..;a"] {
        client.send_text(climbs);
        assert_eq!(text(&mut client), "failed", "{climbs}");
    }
    for (says, path) in [("ann", "ann"), ("a.b/c", "a.b%2Fc"), ("...", "...")] {
        client.send_text(says);
        let request = backend.request();
        assert_eq!(request.line, format!("GET /users/{path}/name HTTP/1.1"), "the next one");
        request.answer("200 OK", b"");
        assert_eq!(text(&mut client), "asked");
    }
}

#[test]
fn a_client_that_leaves_during_its_login_is_forgotten() {
    let backend = HttpServer::start();
    let gateway = streams(&backend);
    let mut client = gateway.client();
    client.send_text(r#"{"op":"auth","token":"x"}"#);
    let request = backend.request();
    drop(client);
    let mut worker = gateway.netsvr_worker();
    crate::common::wait_until("the client has gone", || worker.online_count() == 0);
    request.answer("200 OK", br#"{"uid":1}"#);
    // The next one is served as ever.
    let mut client = gateway.client();
    client.send_text(r#"{"op":"auth","token":"y"}"#);
    backend.request().answer("200 OK", br#"{"uid":1}"#);
    assert_eq!(text(&mut client), r#"{"result":true}"#);
}

#[test]
fn more_logins_than_may_be_under_way_wait_for_their_turn() {
    const CLIENTS: usize = 600;
    let backend = HttpServer::start();
    let gateway = streams(&backend);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send_text(r#"{"op":"auth","token":"x"}"#);
    }
    (0..CLIENTS).for_each(|_| backend.request().answer("200 OK", br#"{"uid":1}"#));
    for client in &mut clients {
        assert_eq!(text(client), r#"{"result":true}"#);
    }
}

#[test]
fn quick_start_joins_one_room_talks_and_quits() {
    let gateway = Gateway::start(include_str!("../connmix_rules/quick_start.toml"));
    const SUCCESS: &str = r#"{"status":"success"}"#;
    let mut clients: Vec<_> = (0..4).map(|_| gateway.client()).collect();
    for client in &mut clients {
        client.send_text(r#"{"op":"join","room_id":1002}"#);
        assert_eq!(text(client), SUCCESS);
    }
    clients[3].send_text(r#"{"op":"join","room_id":7}"#);
    assert_eq!(text(&mut clients[3]), SUCCESS);
    clients[0].send_text(r#"{"op":"send","msg":"hello \"you\""}"#);
    let [first, second, third, _] = &mut clients[..] else { panic!("four clients") };
    let message = text(first);
    let value: serde_json::Value = serde_json::from_str(&message).expect("JSON");
    assert_eq!(value["msg"], "hello \"you\"");
    assert!(value["client_id"].as_str().expect("a text").parse::<i64>().expect("a number") > 0);
    assert_eq!(text(first), SUCCESS, "the own message comes first");
    assert_eq!((text(second), text(third)), (message.clone(), message));
    second.send_text(r#"{"op":"quit"}"#);
    assert_eq!(text(second), SUCCESS);
    third.send_text(r#"{"op":"send","msg":"after"}"#);
    text(first);
    assert_eq!((text(third).contains("after"), text(third).as_str()), (true, SUCCESS));
    // Those who are in another room, or in none, have heard nothing: what comes next is their
    // own answer.
    for client in [1, 3] {
        clients[client].send_text(r#"{"op":"join","room_id":9}"#);
        assert_eq!(text(&mut clients[client]), SUCCESS);
    }
}
