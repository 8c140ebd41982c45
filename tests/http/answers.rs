//! How requests are answered: HEAD, methods, dates, and what is said of the connection.

use std::time::{Duration, SystemTime};

use crate::common::{Client, PATIENCE};
use crate::support::{Port, closes, start, status, value};

/// An answer without its date, which may have changed since the last one.
fn undated(answer: &str) -> String {
    answer.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
}

fn get(port: &Port, method: &str, path: &str) -> String {
    port.ask(format!("{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"))
}

#[test]
fn a_head_is_answered_as_a_get_without_its_body() {
    let (_server, ports) = start();
    for port in &ports {
        for path in ["/", port.path, "/nothing", "/version", "/v1/nodes", "/v1/mesh/send"] {
            let (with, without) = (get(port, "GET", path), get(port, "HEAD", path));
            let (head, body) = with.split_once("\r\n\r\n").expect("a head");
            assert!(!body.is_empty(), "{}: {with}", port.name);
            let what = format!("{} {path}: {without}", port.name);
            assert_eq!(undated(&without), undated(&format!("{head}\r\n\r\n")), "{what}");
        }
    }
    // The metrics are others by then; their head is of the same kind.
    let api = ports.last().expect("there are ports");
    let answer = get(api, "HEAD", "/metrics");
    assert_eq!(status(&answer), 200);
    assert!(answer.ends_with("\r\n\r\n") && value(&answer, "Content-Length") != Some("0"));
}

#[test]
fn a_connection_that_stays_is_in_step_behind_a_head() {
    let (_server, ports) = start();
    let api = ports.last().expect("there are ports");
    let mut client = Client::tcp(api.address);
    for path in ["/version", "/nothing", "/v1/mesh/send", "/ws/v1", "/v1/nodes", "/metrics"] {
        let request = |method| format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        client.write((request("HEAD") + &request("GET")).as_bytes());
        let (first, second) = (client.head(), client.head());
        assert_eq!(status(&first), status(&second), "{path}");
        let length = value(&second, "Content-Length").and_then(|length| length.parse().ok());
        client.bytes(length.expect("a length"));
    }
}

#[test]
fn what_is_not_allowed_says_what_is() {
    let (_server, ports) = start();
    for port in &ports {
        let answer =
            port.ask(format!("PUT {} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", port.path));
        assert_eq!(status(&answer), 405, "{}: {answer}", port.name);
        let expected = match port.name {
            // Its bytes are fixed.
            "netsvr" => None,
            "xxim" | "im" => Some("GET, HEAD, POST, OPTIONS"),
            _ => Some("GET, HEAD"),
        };
        assert_eq!(value(&answer, "Allow"), expected, "{}", port.name);
    }
    let api = ports.last().expect("there are ports");
    assert_eq!(value(&get(api, "GET", "/v1/mesh/send"), "Allow"), Some("POST"));
}

#[test]
fn where_an_upgrade_is_wanted_the_answer_says_so_and_what_becomes_of_the_connection() {
    let (_server, ports) = start();
    for port in ports.iter().filter(|port| !port.is_exact()) {
        let answer = get(port, "GET", port.path);
        assert_eq!(status(&answer), 426, "{}: {answer}", port.name);
        assert_eq!(value(&answer, "Upgrade"), Some("websocket"), "{answer}");
        assert_eq!(value(&answer, "Connection"), Some("Upgrade, close"), "{answer}");
    }
    let api = ports.last().expect("there are ports");
    let mut client = Client::tcp(api.address);
    client.write(b"GET /ws/v1 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(value(&client.head(), "Connection"), Some("Upgrade"), "it stays");
}

#[test]
fn answers_have_the_time_of_day() {
    let (_server, ports) = start();
    for port in &ports {
        for (method, path) in [("GET", port.path), ("GET", "/nothing"), ("PUT", "/"), ("\0", "")] {
            let answer = get(port, method, path);
            assert!(closes(&answer), "{}: {answer}", port.name);
            let Some(date) = value(&answer, "Date") else {
                assert!(port.is_exact(), "{}: {answer}", port.name);
                continue;
            };
            assert!(!port.is_exact(), "its bytes are fixed: {answer}");
            let date = httpdate::parse_http_date(date).expect("a date");
            let distance = SystemTime::now().duration_since(date).unwrap_or_else(|ahead| {
                assert!(ahead.duration() < Duration::from_secs(1), "{date:?} is to come");
                Duration::ZERO
            });
            assert!(distance < PATIENCE, "{date:?} is {distance:?} ago");
        }
    }
    let xxim = ports.iter().find(|port| port.name == "xxim").expect("it is there");
    for request in ["OPTIONS /v1/user/white/x", "POST /v1/no/such"] {
        let request = format!("{request} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert!(value(&xxim.ask(&request), "Date").is_some(), "{request}");
    }
}

#[test]
fn a_client_of_http_1_0_is_told_that_its_connection_stays() {
    let (_server, ports) = start();
    let api = ports.last().expect("there are ports");
    let mut client = Client::tcp(api.address);
    for _ in 0..2 {
        client.write(b"GET /version HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let head = client.head();
        assert_eq!(value(&head, "Connection"), Some("keep-alive"), "{head}");
        let length = value(&head, "Content-Length").and_then(|length| length.parse().ok());
        client.bytes(length.expect("a length"));
    }
    client.write(b"GET /version HTTP/1.0\r\n\r\n");
    let head = client.head();
    assert!(closes(&head), "{head}");
}

#[test]
fn only_who_waits_is_asked_for_a_body_and_http_1_0_never() {
    let (_server, ports) = start();
    for port in ports.iter().filter(|port| port.is_kept()) {
        let path = if port.name == "api" { "/v1/mesh/send" } else { "/v1/no/such" };
        let head = |version: &str| {
            format!(
                "POST {path} HTTP/{version}\r\nHost: h\r\nExpect: 100-continue\r\n\
                 Connection: close\r\nContent-Length: 2\r\n\r\n"
            )
        };
        let mut client = Client::tcp(port.address);
        client.write(head("1.1").as_bytes());
        assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n", "{}", port.name);
        client.write(b"[]");
        assert_eq!(status(&client.head()), 200, "{}", port.name);
        let at_once = port.ask(head("1.1") + "[]");
        assert_eq!((status(&at_once), at_once.matches("HTTP/1.1").count()), (200, 1));
        let mut old = Client::tcp(port.address);
        old.write(head("1.0").as_bytes());
        old.write(b"[]");
        assert_eq!(status(&old.head()), 200, "{}", port.name);
    }
}
