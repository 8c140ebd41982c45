//! Which bytes are a request: everything that can be understood in two ways is refused, on every
//! port, in handshakes too.

use ringway::wire::websocket::mask_frame;

use crate::common::{Client, upgrade_request};
use crate::support::{closes, start, status};

#[test]
fn a_head_whose_lines_end_otherwise_is_refused_at_once() {
    let (_server, ports) = start();
    for port in &ports {
        for head in [
            "GET / HTTP/1.1\nHost: h\n\n".to_owned(),
            "GET / HTTP/1.1\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: h\r\n\n".to_owned(),
            port.handshake("").replace("\r\n", "\n"),
            port.handshake("").replace("Host: test\r\n", "Host: test\n"),
            port.handshake("A: b\rc\r\n"),
            port.handshake("A: b\0c\r\n"),
            port.handshake(" folded: b\r\n"),
        ] {
            port.refuses(head, 400);
        }
    }
}

#[test]
fn a_length_that_can_be_understood_in_two_ways_ends_the_connection() {
    let (_server, ports) = start();
    for port in &ports {
        for (lines, status) in [
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", 400),
            ("Content-Length: 5\r\nContent-Length: 6\r\n", 400),
            ("Content-Length: x\r\n", 400),
            ("Content-Length: +5\r\n", 400),
            ("Content-Length: 5, 5\r\n", 400),
            ("Transfer-Encoding: gzip\r\n", 501),
            ("Transfer-Encoding: chunked, identity\r\n", 501),
        ] {
            port.refuses(port.handshake(lines), status);
            port.refuses(format!("POST / HTTP/1.1\r\nHost: h\r\n{lines}\r\n"), status);
            port.refuses(format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n"), status);
        }
    }
}

#[test]
fn a_handshake_has_no_body() {
    let (_server, ports) = start();
    let frame = mask_frame(0x81, [1, 2, 3, 4], b"from the body");
    for port in &ports {
        let length = port.handshake(&format!("Content-Length: {}\r\n", frame.len()));
        port.refuses([length.as_bytes(), &frame].concat(), 400);
        let chunk = format!("{:x}\r\n", frame.len());
        let chunked = port.handshake("Transfer-Encoding: chunked\r\n");
        let parts = [chunked.as_bytes(), chunk.as_bytes(), &frame, b"\r\n0\r\n\r\n"];
        port.refuses(parts.concat(), 400);
        assert_eq!(port.status(port.handshake("Content-Length: 0\r\n")), 101, "{}", port.name);
    }
}

#[test]
fn there_is_one_host_and_it_is_one() {
    let (_server, ports) = start();
    for port in &ports {
        let usual = port.handshake("");
        for host in ["", "Host:\r\n", "Host: a b\r\n", "Host: h\r\nHost: h\r\n", "Host: h:x\r\n"] {
            port.refuses(usual.replace("Host: test\r\n", host), 400);
            port.refuses(format!("GET / HTTP/1.1\r\n{host}\r\n"), 400);
            port.refuses(format!("POST / HTTP/1.1\r\n{host}Content-Length: 0\r\n\r\n"), 400);
        }
        for host in ["127.0.0.1:6060", "[::1]:80", "a_b.example.com", "h:"] {
            let request = usual.replace("Host: test", &format!("Host: {host}"));
            assert_eq!(port.status(request), 101, "{}: {host}", port.name);
        }
    }
}

#[test]
fn absolute_targets_are_served() {
    let (_server, ports) = start();
    for port in &ports {
        for scheme in ["ws", "http", "wss", "HTTPS"] {
            for query in ["", "?token=1"] {
                let target = format!("{scheme}://{}{}{query}", port.address, port.path);
                let request = upgrade_request(&target, "");
                assert_eq!(port.status(request), 101, "{}: {target}", port.name);
            }
        }
        for target in ["ftp://h/", "http://", "http://u@h/", "h:80", "*", "/a#b", "?a"] {
            port.refuses(upgrade_request(target, ""), 400);
        }
    }
    let api = ports.last().expect("there are ports");
    let request = format!("GET http://{}/version HTTP/1.1\r\nHost: h\r\n\r\n", api.address);
    assert_eq!(api.status(request), 200);
}

#[test]
fn an_upgrade_over_http_1_0_is_none() {
    let (_server, ports) = start();
    for port in &ports {
        let old = port.handshake("").replace("HTTP/1.1", "HTTP/1.0");
        port.refuses(old, if port.is_exact() { 200 } else { 426 });
    }
}

#[test]
fn lists_may_come_in_several_lines() {
    let (_server, ports) = start();
    for port in &ports {
        let usual = port.handshake("");
        for (line, lines) in [
            ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: Upgrade"),
            ("Connection: Upgrade", "Connection: ,\r\nConnection: , Upgrade"),
            ("Upgrade: websocket", "Upgrade: h2c\r\nUpgrade: websocket"),
            ("Upgrade: websocket", "Upgrade:\r\nUpgrade: websocket"),
        ] {
            let request = usual.replace(line, lines);
            assert_eq!(port.status(&request), 101, "{}: {request}", port.name);
        }
        // What is no list is refused where there are two of it.
        for line in
            ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "Sec-WebSocket-Version: 13\r\n"]
        {
            let answer = port.status(port.handshake(line));
            assert!([400, 426].contains(&answer), "{}: {answer} for {line}", port.name);
        }
    }
}

/// Whatever the answer to it is: behind a request with a body the body is never taken for another.
#[test]
fn a_body_is_read_as_one_or_the_connection_ends() {
    let (_server, ports) = start();
    let hidden = "GET /version HTTP/1.1\r\nHost: h\r\n\r\n";
    let length = format!("Content-Length: {}\r\n\r\n{hidden}", hidden.len());
    let chunks =
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    for port in &ports {
        for path in ["/", port.path, "/version", "/v1/mesh/send", "/v1/user/white/x", "/nothing"] {
            for method in ["GET", "HEAD", "OPTIONS", "POST", "PUT", "DELETE", "FOO"] {
                for body in [&length, &chunks] {
                    let first = format!("{method} {path} HTTP/1.1\r\nHost: h\r\n{body}");
                    let last = "PUT /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
                    let answers = port.ask(first + last);
                    let what = format!("{}: {method} {path}: {answers}", port.name);
                    let count = answers.matches("HTTP/1.1 ").count();
                    assert!(count == 1 && closes(&answers) || count == 2, "{what}");
                    // Only the last request is refused like this behind an answer.
                    let end = answers.rfind("HTTP/1.1 ").expect("an answer");
                    let ending = [404, 405].contains(&status(&answers[end..]));
                    assert!(count == 1 || ending, "{what}");
                }
            }
        }
    }
}

#[test]
fn a_websocket_may_begin_on_a_connection_that_has_carried_requests() {
    let (_server, ports) = start();
    for port in ports.iter().filter(|port| port.is_kept()) {
        let mut client = Client::tcp(port.address);
        let path = if port.name == "api" { "/v1/mesh/send" } else { "/v1/no/such" };
        let post = format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n[]");
        for _ in 0..2 {
            client.write(post.as_bytes());
            let head = client.head();
            assert_eq!(status(&head), 200, "{}", port.name);
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            client.bytes(length.and_then(|text| text.parse().ok()).expect("a length"));
        }
        client.write(port.handshake("").as_bytes());
        assert_eq!(status(&client.head()), 101, "{}", port.name);
        client.send_close(1000);
        while client.try_frame().is_some_and(|frame| frame.first != 0x88) {}
        client.rest();
    }
}
