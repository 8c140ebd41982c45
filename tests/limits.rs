//! Limits that can be configured apply: each is set so that it is reached, through a real gateway.

mod common;

#[path = "netsvr/http_server.rs"]
mod http_server;

use std::net::SocketAddr;
use std::time::Duration;

use ringway::config;

use common::*;
use http_server::HttpServer;

const LISTENERS: &str = r#"
[[listener]]
bind = "127.0.0.1:0"
routes = [
    { path = "/netsvr", protocol = "netsvr" },
    { path = "/echo", protocol = "echo" },
    { path = "/chat", protocol = "connmix" },
    { path = "/ws", protocol = "xxim" },
]
[[listener]]
bind = "127.0.0.1:0"
protocol = "netsvr-worker"
[[listener]]
bind = "127.0.0.1:0"
protocol = "netsvr-task"
[[listener]]
bind = "127.0.0.1:0"
protocol = "im"
[[connmix.server]]
name = "chat"
"#;
const IM: usize = 3;
const OPEN: i32 = 1;
const CLOSE: i32 = 2;
/// Nobody reaches it in a test.
const HOUR: &str = "\"1h\"";
/// Long enough for a request of this machine to come, if it comes.
const SOON: Duration = Duration::from_millis(500);

/// A gateway with one shard and these settings, rules of the server first.
fn gateway(settings: &str) -> Server {
    let admin = if settings.contains("[admin]") { "" } else { "admin.bind = \"\"\n" };
    let text = format!("{admin}{LISTENERS}{settings}");
    let loaded = config::all::from_text(&text, "test").unwrap_or_else(|error| panic!("{error}"));
    let mut config = loaded.config;
    config.runtime.cpus.truncate(1);
    Server::start(config)
}

fn refusal(settings: &str) -> String {
    match config::all::from_text(&format!("{LISTENERS}{settings}"), "test") {
        Ok(_) => panic!("{settings}"),
        Err(error) => error.to_string(),
    }
}

/// A peer of an HTTP server that has sent this much.
fn peer(address: SocketAddr, sent: &[u8]) -> Client {
    let mut peer = Client::tcp(address);
    peer.write(sent);
    peer
}

fn admin(server: &Server) -> SocketAddr {
    server.gateway().admin_address().expect("there is one")
}

fn push(server: &Server) -> SocketAddr {
    server.gateway().push_address().expect("there is one")
}

const PAGE: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n";
const HALF_BODY: &[u8] = b"POST /v1/internal/conn/getUserConn HTTP/1.1\r\nHost: test\r\n\
                           Content-Length: 9\r\n\r\nx";

#[test]
fn the_admin_server_takes_as_many_connections_as_it_may() {
    let bind = "[admin]\nbind = \"127.0.0.1:0\"\nrequest_timeout";
    let server = gateway(&format!("{bind} = {HOUR}\nconnections_max = 8\n"));
    let mut idle: Vec<Client> = (0..8).map(|_| peer(admin(&server), b"GET")).collect();
    let mut ninth = peer(admin(&server), PAGE);
    assert!(ninth.rest().starts_with(b"HTTP/1.1 200"), "there is a place for it");
    idle[0].expect_end();
    assert!(!idle[7].has_input(), "only the oldest had to go");
}

#[test]
fn one_request_to_the_admin_server_has_so_much_time() {
    let bind = "[admin]\nbind = \"127.0.0.1:0\"\n";
    let server = gateway(&format!("{bind}request_timeout = {HOUR}\n"));
    let patient = peer(admin(&server), b"GET");
    let server_too = gateway(&format!("{bind}request_timeout = \"100ms\"\n"));
    let ended = peer(admin(&server_too), b"GET").rest();
    assert!(ended.is_empty() || ended.starts_with(b"HTTP/1.1 408"), "{ended:?}");
    assert!(!patient.has_input(), "the other one has an hour");
}

const PUSH: &str = "[xxim.push]\nbind = \"127.0.0.1:0\"\n";

#[test]
fn the_push_service_takes_as_many_connections_as_it_may() {
    let hour = format!("head_timeout = {HOUR}\nbody_timeout = {HOUR}\n");
    let server = gateway(&format!("{PUSH}{hour}connections_max = 2\n"));
    let mut idle: Vec<Client> = (0..2).map(|_| peer(push(&server), b"POST")).collect();
    let keep_alive = b"POST /v1/internal/conn/keepAlive HTTP/1.1\r\nHost: a\r\n\
                       Content-Length: 0\r\n\r\n";
    let mut third = peer(push(&server), keep_alive);
    assert!(third.head().starts_with("HTTP/1.1 200"), "there is a place for it");
    idle[0].expect_end();
}

#[test]
fn a_head_and_a_body_for_the_push_service_have_so_much_time() {
    let server = gateway(&format!("{PUSH}head_timeout = \"100ms\"\nbody_timeout = {HOUR}\n"));
    let body = peer(push(&server), HALF_BODY);
    peer(push(&server), b"POST").expect_end();
    assert!(!body.has_input(), "its head was there in time");
    let server = gateway(&format!("{PUSH}head_timeout = {HOUR}\nbody_timeout = \"100ms\"\n"));
    let head = peer(push(&server), b"POST");
    assert!(peer(push(&server), HALF_BODY).head().starts_with("HTTP/1.1 400"));
    assert!(!head.has_input(), "no head, no body");
}

#[test]
fn an_http_2_connection_to_the_push_service_carries_so_many_requests() {
    let server = gateway(&format!("{PUSH}requests_max = 7\n"));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut backend = peer(push(&server), preface);
    // The first frame is SETTINGS (RFC 9113 section 6.5): number and value of each.
    let head = backend.bytes(9);
    assert_eq!(head[3], 4, "{head:?}");
    let length = usize::from(head[2]) | usize::from(head[1]) << 8;
    let settings = backend.bytes(length);
    let streams = settings.chunks(6).find(|setting| setting[..2] == [0, 3]);
    assert_eq!(streams.map(|setting| &setting[2..]), Some(&[0, 0, 0, 7][..]));
}

#[test]
fn an_xxim_client_over_http_may_be_idle_for_so_long() {
    let server = gateway("[xxim]\nhttp_api = true\nhttp_idle_timeout = \"100ms\"\n");
    let options = b"OPTIONS /v1/user/login HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut client = peer(server.address(CLIENTS), options);
    assert!(client.head().starts_with("HTTP/1.1 204"), "it is answered");
    // Sooner than in the minute that is the default, which nothing here waits for.
    client.expect_end();
}

/// A LOGIN of IM: header, token, user.
fn login(server: &Server, user: &str) -> Client {
    let mut body = vec![10, 1, b't', 18, user.len() as u8];
    body.extend(user.as_bytes());
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame.extend([0, 0, 0, 1, 1, 16, 0]);
    frame.extend(body);
    peer(server.address(IM), &frame)
}

#[test]
fn so_many_logins_are_verified_at_a_time() {
    let verifier = HttpServer::start();
    let settings = |max: u32| {
        let url = verifier.url("/verify");
        let times = format!("timeout = {HOUR}\njson_timeout = \"1m\"\n").replace(HOUR, "\"1m\"");
        format!("[login]\nverifier = \"http\"\nurl = \"{url}\"\n{times}under_way_max = {max}\n")
    };
    let server = gateway(&settings(1));
    let _clients = ["ann", "bob"].map(|user| login(&server, user));
    let first = verifier.request();
    assert!(verifier.request_within(SOON).is_none(), "the other one waits");
    first.answer("200 OK", b"{}");
    verifier.request();
    let server = gateway(&settings(2));
    let _clients = ["ann", "bob"].map(|user| login(&server, user));
    let _both = (verifier.request(), verifier.request());
}

#[test]
fn calls_follow_so_many_redirects() {
    for (max, follows) in [(0, false), (1, true)] {
        let application = HttpServer::start();
        let url = application.url("/onopen");
        let server = gateway(&format!(
            "[netsvr.customer]\non_open_callback_api = \"{url}\"\n\
             [sidecar]\nredirects_max = {max}\n"
        ));
        let mut client = server.client();
        let elsewhere = application.url("/elsewhere");
        let moved = format!("307 Temporary Redirect\r\nLocation: {elsewhere}");
        application.request().answer(&moved, b"");
        if follows {
            assert_eq!(application.request().line, "POST /elsewhere HTTP/1.1");
        } else {
            assert_eq!(client.frame().close(), (1011, "open callback failed"));
        }
    }
}

#[test]
fn a_connection_to_a_backend_is_kept_for_so_long() {
    for (time, kept) in [(HOUR, true), ("\"0s\"", false)] {
        let application = HttpServer::start();
        let url = application.url("/onopen");
        let server = gateway(&format!(
            "[netsvr.customer]\non_open_callback_api = \"{url}\"\n\
             [sidecar]\nidle_timeout = {time}\n"
        ));
        let mut peers = Vec::new();
        for _ in 0..2 {
            let mut client = server.client();
            let request = application.request();
            peers.push(request.peer());
            // It may not open.
            request.answer("200 OK", b"");
            assert_eq!(client.frame().close().0, 1008);
        }
        assert_eq!(peers[0] == peers[1], kept, "{time}");
    }
}

#[test]
fn so_many_closes_wait_for_their_callback() {
    let application = HttpServer::start();
    let url = application.url("/onclose");
    let server = gateway(&format!(
        "[netsvr.customer]\non_close_callback_api = \"{url}\"\ncallback_api_deadline = \"1m\"\n\
         close_callbacks_max = 1\n"
    ));
    let mut worker = server.worker(OPEN | CLOSE);
    let mut first = server.client();
    let first_id = worker.opened();
    let mut second = server.client();
    let second_id = worker.opened();
    first.send_close(1000);
    let request = application.request();
    second.send_close(1000);
    assert_eq!(worker.closed().uniq_id, second_id, "without a callback");
    request.answer("200 OK", b"");
    assert_eq!(worker.closed().uniq_id, first_id, "behind its callback");
}

fn rule(actions: &str) -> String {
    format!("[[connmix.server.rule]]\non = \"message\"\ndo = [ {actions} ]\n")
}

#[test]
fn rules_are_held_to_what_the_configuration_permits() {
    let values = |key: &str, value: &str| format!("[connmix.rules]\n{key} = {value}\n");
    let two = rule("").repeat(2);
    let alternatives = "when = { data = [\"a\", \"b\"] }\n";
    let pattern = "when = { data = \"re:[a-z]{99}\" }\n";
    let http = "{ http = { url = \"http://a/\", timeout = 3 } }";
    for (key, value, enough, rules) in [
        ("rules_max", "1", "2", two),
        ("actions_max", "1", "2", rule("{ send = \"a\" }, { send = \"b\" }")),
        ("alternatives_max", "1", "2", format!("{}{alternatives}", rule(""))),
        ("pattern_bytes_max", "1024", "1000000", format!("{}{pattern}", rule(""))),
        ("wait_max", "\"2s\"", "\"3s\"", rule("{ wait = { key = \"a\", timeout = 3 } }")),
        ("http_timeout_max", "\"2s\"", "\"3s\"", rule(http)),
    ] {
        let error = refusal(&format!("{rules}{}", values(key, value)));
        assert!(error.contains(&format!("connmix.rules.{key}")), "{error}");
        let text = format!("{LISTENERS}{rules}{}", values(key, enough));
        config::all::from_text(&text, "test").unwrap_or_else(|error| panic!("{key}: {error}"));
    }
    // A default that is too long becomes the longest that is permitted.
    let wait = rule("{ wait = { key = \"a\" } }");
    let text = format!("{LISTENERS}{wait}{}", values("wait_max", "\"2s\""));
    config::all::from_text(&text, "test").unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn so_many_requests_of_rules_are_under_way() {
    let backend = HttpServer::start();
    let action =
        format!("{{ send = \"begun\" }}, {{ http = {{ url = \"{}\" }} }}", backend.url("/"));
    for max in [1, 2] {
        let rules = format!("{}[connmix.rules]\nhttp_calls_max = {max}\n", rule(&action));
        let server = gateway(&rules);
        let _clients = [1, 2].map(|_| {
            let mut client = Client::open(server.address(CLIENTS), "/chat");
            client.send_text("x");
            assert_eq!(client.frame().text(), "begun");
            client
        });
        let first = backend.request();
        let second = backend.request_within(if max == 1 { SOON } else { PATIENCE });
        assert_eq!(second.is_some(), max == 2, "{max}");
        first.answer("200 OK", b"");
        second.unwrap_or_else(|| backend.request()).answer("200 OK", b"");
    }
}

#[test]
fn requests_of_rules_and_their_answers_have_so_many_bytes() {
    let backend = HttpServer::start();
    let action = format!(
        "{{ http = {{ url = \"{}\", body = \"${{data}}\", set = {{ a = \"/a\" }}, \
         on_error = [ {{ send = \"failed\" }} ] }} }}, {{ send = \"good\" }}",
        backend.url("/")
    );
    let bounds = "http_request_bytes_max = 1024\nhttp_answer_bytes_max = 2048\n";
    let server = gateway(&format!("{}[connmix.rules]\n{bounds}", rule(&action)));
    let mut client = Client::open(server.address(CLIENTS), "/chat");
    client.send_text(&"x".repeat(1024));
    assert_eq!(client.frame().text(), "failed", "URL and body are longer");
    for (length, said) in [(2040, "good"), (2041, "failed")] {
        client.send_text(&"x".repeat(900));
        let answer = format!("{{\"a\":\"{}\"}}", "y".repeat(length));
        backend.request().answer("200 OK", answer.as_bytes());
        assert_eq!(client.frame().text(), said, "{} bytes", answer.len());
    }
}

#[test]
fn a_connection_may_have_so_many_channels() {
    let action = "{ subscribe = [\"c:1\", \"c:2\"] }, { send = \"done\" }";
    let server = gateway(&format!("{}[connmix.rules]\nchannels_max = 1\n", rule(action)));
    let mut client = Client::open(server.address(CLIENTS), "/chat");
    client.send_text("x");
    assert_eq!(client.frame().text(), "done");
    let mut task = server.task();
    for topic in ["c:2", "c:1"] {
        let data = topic.as_bytes().to_vec().into();
        let publish =
            ringway::wire::worker::proto::TopicPublish { topics: vec![topic.into()], data };
        task.send(cmd::TOPIC_PUBLISH, &publish);
    }
    assert_eq!(client.frame().text(), "c:1", "it never came into the other one");
}
