//! The push service as HTTP: what is there and what is not, in which form it says so, and what a
//! web page gets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use prost::Message;
use ringway::protocols::xxim::config::push::XximPushService;
use ringway::protocols::xxim::wire::proto as pb;
use ringway::wire::network::Network;

use crate::{SECRET, service, start};

/// Status, head and body of the answer to one request.
fn exchange(address: SocketAddr, line: &str, headers: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nHost: 127.0.0.1:6700\r\nConnection: close\r\n");
    let head = format!("{head}Content-Length: {length}\r\n{headers}\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8(answer[..end].to_vec()).expect("ASCII").to_ascii_lowercase();
    (head[9..12].parse().expect("a status"), head, answer[end..].to_vec())
}

/// Checks that the answer has this status, is protobuf and says something like this.
fn refused(answer: (u16, String, Vec<u8>), status: u16, says: &str) {
    let (told, head, body) = answer;
    assert_eq!(told, status, "{head}");
    assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
    let resp = pb::CommonResp::decode(&*body).expect("a CommonResp");
    let msg = resp.msg.expect("a message");
    assert!(resp.code != 0 && msg.contains(says), "{} {msg}", resp.code);
}

const KEEP_ALIVE: &str = "POST /v1/internal/conn/keepAlive";

#[test]
fn what_does_not_exist_is_not_found_in_the_form_of_every_answer() {
    let (_sidecar, address) = start(service());
    for line in [
        "POST /v1/internal/conn/sendmsg",
        "POST /v1/internal/conn/",
        "POST /v1/internal/conn/keepAlive/",
        "POST /v1/internal/conn//keepAlive",
        "GET /",
        "POST /pb.imService/SendMsg",
    ] {
        for kind in ["", "Content-Type: application/x-protobuf\r\n"] {
            refused(exchange(address, line, kind, b""), 404, "/v1/internal/conn/");
        }
    }
    let get = exchange(address, "GET /v1/internal/conn/keepAlive", "", b"");
    assert!(get.1.contains("allow: post\r\n"), "{}", get.1);
    refused(get, 405, "POST");
    // Its length is not announced.
    let chunk = [&b"200000\r\n"[..], &vec![0; 2 << 20], b"\r\n0\r\n\r\n"].concat();
    let mut stream = TcpStream::connect(address).expect("it listens");
    let head = format!("{KEEP_ALIVE} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(&[head.as_bytes(), &chunk[..1 << 20]].concat()).expect("it reads");
    let mut answer = [0; 2000];
    // It may close before it has read all of it.
    let _ = stream.write_all(&chunk[1 << 20..]);
    let len = stream.read(&mut answer).expect("an answer");
    let text = String::from_utf8_lossy(&answer[..len]).to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 413"), "{text}");
    assert!(text.contains("content-type: application/x-protobuf\r\n"), "{text}");
}

#[test]
fn grpc_is_what_has_its_content_type() {
    let (_sidecar, address) = start(service());
    let call = |path: &str, kind: &str| {
        let kind =
            if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        exchange(address, &format!("POST {path}"), &kind, &[0; 5])
    };
    let method = "/pb.connService/KeepAlive";
    let grpc = ["application/grpc", "application/grpc+proto", "Application/gRPC; charset=utf-8"];
    for kind in grpc {
        let (status, head, _) = call(method, kind);
        assert!(status == 200 && head.contains("content-type: application/grpc"), "{kind}: {head}");
        assert!(!head.contains("grpc-status"), "{head}");
        // An unknown method is one of gRPC: the status of HTTP says nothing there.
        let (status, head, _) = call("/pb.connService/Nothing", kind);
        assert!(status == 200 && head.contains("grpc-status: 12\r\n"), "{kind}: {head}");
    }
    for kind in ["", "application/json", "application/grpc-web", "application/grpc+json", "text"] {
        refused(call(method, kind), 415, "application/grpc");
        refused(call("/pb.other/KeepAlive", kind), 404, "/v1/internal/conn/");
    }
}

#[test]
fn where_no_secret_is_needed_pages_of_strangers_are_refused() {
    let local = Network::parse("127.0.0.1").expect("an address");
    for service in [
        service(),
        XximPushService { allow_from: vec![local], ..service() },
        XximPushService { secret: SECRET.into(), allow_from: vec![local], ..service() },
    ] {
        let (_sidecar, address) = start(service);
        let from =
            |origin: &str| exchange(address, KEEP_ALIVE, &format!("Origin: {origin}\r\n"), b"");
        for origin in ["https://evil.example", "http://localhost:6700", "null"] {
            refused(from(origin), 403, "origin");
        }
        let both = "https://evil.example\r\nOrigin: http://127.0.0.1";
        refused(from(both), 403, "origin");
        assert_eq!(from("http://127.0.0.1:8080").0, 200, "a page of this machine");
        assert_eq!(exchange(address, KEEP_ALIVE, "", b"").0, 200, "no page");
        let grpc = "Content-Type: application/grpc\r\nOrigin: https://evil.example\r\n";
        let (_, head, _) = exchange(address, "POST /pb.connService/KeepAlive", grpc, &[0; 5]);
        assert!(head.contains("grpc-status: 7\r\n"), "{head}");
        let unknown = exchange(address, "GET /", "Origin: https://evil.example\r\n", b"");
        refused(unknown, 403, "origin");
    }
    let (_sidecar, address) = start(XximPushService { secret: SECRET.into(), ..service() });
    let secret = format!("Origin: https://console.example\r\nAuthorization: Bearer {SECRET}\r\n");
    assert_eq!(exchange(address, KEEP_ALIVE, &secret, b"").0, 200, "it shows the secret");
    let none = "Origin: https://console.example\r\n";
    refused(exchange(address, KEEP_ALIVE, none, b""), 401, "secret");
}
