//! Who is at the door: addresses that proxies and load balancers tell, by header lines and by the
//! PROXY protocol.

mod common;

#[path = "faults/binary.rs"]
mod binary;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use binary::Binary;
use common::*;
use prost::Message;
use ringway::wire::worker::proto::ConnOpen6;

/// Listeners of [`start`] beside those of [`common`]: WebSocket clients with HTTP alone, clients of
/// connmix over TCP, which are told their address.
const HTTP: usize = 3;
const LINES: usize = 4;

/// A gateway that believes these, and takes PROXY headers on its listeners for clients.
fn start(proxies: &str, proxy_protocol: &str, more: &str) -> Binary {
    let routes = "routes = [ { path = \"/netsvr\", protocol = \"netsvr\" }, \
                  { path = \"/chat\", protocol = \"connmix\", server = \"chat\" } ]";
    let proxy = format!("proxy_protocol = \"{proxy_protocol}\"");
    Binary::start_as(&format!(
        r#"
{more}
[[listener]]
bind = "127.0.0.1:0"
{proxy}
{routes}

[[listener]]
bind = "127.0.0.1:0"
protocol = "netsvr-worker"

[[listener]]
bind = "127.0.0.1:0"
protocol = "netsvr-task"

[[listener]]
bind = "127.0.0.1:0"
{routes}

[[listener]]
bind = "127.0.0.1:0"
protocol = "connmix"
server = "lines"
{proxy}

[[connmix.server]]
name = "lines"
framing = "line"
[[connmix.server.rule]]
on = "message"
do = [ {{ send = "${{remote_addr}}" }} ]

[[connmix.server]]
name = "chat"
[[connmix.server.rule]]
on = "message"
do = [ {{ send = "${{remote_addr}}" }} ]

[trust]
proxies = [{proxies}]

[runtime.drain]
delay = "0s"
spread = "0s"

[admin]
bind = "127.0.0.1:0"

[log]
json = true
"#
    ))
}

fn opened(worker: &mut Business) -> ConnOpen6 {
    let (number, body) = worker.frame();
    assert_eq!(number, cmd::CONN_OPEN);
    ConnOpen6::decode(&*body).expect("it decodes")
}

/// What a client of connmix over TCP is told, whose connection begins with these bytes.
fn told(server: &Binary, header: &[u8]) -> String {
    let mut client = connect(server.address(LINES));
    client.write_all(header).expect("it reads");
    client.write_all(b"who am I?\n").expect("it reads");
    line(&mut client)
}

fn line(client: &mut TcpStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while client.read(&mut byte).is_ok_and(|count| count == 1) && byte != *b"\n" {
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("ASCII").trim_end().to_owned()
}

fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family][..], &length, rest].concat()
}

const LINE: &[u8] = b"PROXY TCP4 203.0.113.7 127.0.0.1 5678 443\r\n";

fn refused(server: &Binary) -> u64 {
    server.metric("ringway_proxy_headers_refused_total", "")
}

#[test]
fn every_protocol_has_the_address_that_trusted_proxies_tell() {
    let server = start("\"127.0.0.1\", \"10.0.0.0/8\"", "off", "");
    let mut worker = server.worker(7);
    let lines = "X-Forwarded-For: 6.6.6.6, 203.0.113.7\r\nX-Forwarded-For: 10.1.2.3\r\n";
    let client = Client::open_with(server.address(HTTP), "/netsvr", lines);
    let open = opened(&mut worker);
    assert_eq!(open.remote_addr, "203.0.113.7");
    assert_eq!(open.x_forwarded_for, "6.6.6.6, 203.0.113.7", "the first line as it came");
    for (lines, address) in [
        (lines, "203.0.113.7:0"),
        ("Forwarded: for=6.6.6.6, for=\"[2001:db8::7]:443\"\r\n", "[2001:db8::7]:443"),
        ("X-Real-IP: 203.0.113.8\r\n", "203.0.113.8:0"),
    ] {
        let mut client = Client::open_with(server.address(HTTP), "/chat", lines);
        client.send_text("who am I?");
        assert_eq!(client.frame().text(), address);
    }
    drop(client);
}

#[test]
fn nobody_is_believed_who_is_not_listed() {
    let server = start("\"10.0.0.0/8\"", "off", "");
    let mut client =
        Client::open_with(server.address(HTTP), "/chat", "X-Forwarded-For: 203.0.113.7\r\n");
    client.send_text("who am I?");
    let own = client.socket.local_addr().expect("it is connected").to_string();
    assert_eq!(client.frame().text(), own);
}

#[test]
fn a_header_in_whatever_pieces_says_whom_a_connection_comes_from() {
    let server = start("\"127.0.0.1\"", "require", "");
    let mut worker = server.worker(7);
    let mut client = Client::tcp(server.address(CLIENTS));
    LINE.iter().for_each(|byte| client.write(&[*byte]));
    client.upgrade("/netsvr", "");
    assert_eq!(opened(&mut worker).remote_addr, "203.0.113.7");
    // What it says itself is not believed: it is no trusted proxy.
    let mut client = Client::tcp(server.address(CLIENTS));
    client.write(LINE);
    client.upgrade("/netsvr", "X-Forwarded-For: 6.6.6.6\r\n");
    assert_eq!(opened(&mut worker).remote_addr, "203.0.113.7");
    assert_eq!(told(&server, LINE), "203.0.113.7:5678");
    let four = [203, 0, 113, 7, 127, 0, 0, 1, 0x16, 0x2e, 1, 0xbb];
    assert_eq!(told(&server, &version_2(1, 0x11, &four)), "203.0.113.7:5678");
    assert_eq!(refused(&server), 0);
}

/// Health checks of the load balancer are its own.
#[test]
fn who_speaks_for_himself_keeps_his_address_and_leaves_no_trace() {
    let server = start("\"127.0.0.1\"", "require", "");
    for header in [&version_2(0, 0, &[])[..], b"PROXY UNKNOWN\r\n"] {
        let mut client = connect(server.address(LINES));
        let own = client.local_addr().expect("it is connected").to_string();
        client.write_all(&[header, b"who am I?\n"].concat()).expect("it reads");
        assert_eq!(line(&mut client), own);
        let mut check = connect(server.address(LINES));
        check.write_all(header).expect("it reads");
        // It only connects.
        drop((check, connect(server.address(LINES))));
    }
    let gone = || server.metric("ringway_connections", "") == 0;
    wait_until("nobody is left", gone);
    assert_eq!(refused(&server), 0);
    let loud = |line: &&serde_json::Value| line["level"] != "INFO";
    assert!(server.log().iter().find(loud).is_none(), "{:?}", server.log());
}

#[test]
fn what_is_missing_broken_or_not_permitted_costs_its_own_connection() {
    let end = |server: &Binary, bytes: &[u8]| {
        let before = refused(server);
        let mut client = connect(server.address(LINES));
        // It may be closed before everything is written.
        let _ = client.write_all(bytes);
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
        assert_eq!(rest, b"", "{bytes:?}");
        wait_until("it is counted", || refused(server) == before + 1);
    };
    let server = start("\"127.0.0.1\"", "require", "");
    let long = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
    let huge = version_2(1, 0x11, &[0; 5000]);
    for bytes in [b"who am I?\n", &b"PROXY TCP4 nonsense\r\n"[..], &long, &huge] {
        end(&server, bytes);
    }
    assert_eq!(told(&server, LINE), "203.0.113.7:5678", "others are served");
    let said = |line: &serde_json::Value| line["message"] == "closed for want of a PROXY header";
    assert!(server.log().iter().any(said));
    // A good one, of somebody who may not say it.
    let server = start("\"10.0.0.0/8\"", "require", "");
    end(&server, LINE);
}

#[test]
fn a_header_that_does_not_come_in_time_is_not_waited_for() {
    let server = start("\"127.0.0.1\"", "require", "[runtime]\nhandshake_timeout = \"200ms\"\n");
    for bytes in [&b""[..], b"PROXY TCP4 203", b"\r\n\r\n\0\r\nQUIT\n\x21"] {
        let mut client = connect(server.address(LINES));
        client.write_all(bytes).expect("it reads");
        assert_eq!(line(&mut client), "", "closed without a word");
    }
    let counted = || server.metric("ringway_handshake_timeouts_total", "") == 3;
    wait_until("they are counted", counted);
}

#[test]
fn who_may_need_not() {
    let server = start("\"127.0.0.1\"", "accept", "");
    assert_eq!(told(&server, LINE), "203.0.113.7:5678");
    let mut client = connect(server.address(LINES));
    let own = client.local_addr().expect("it is connected").to_string();
    client.write_all(b"PRO, who am I?\n").expect("it reads");
    assert_eq!(line(&mut client), own);
    // Of others it is what their protocol says.
    let server = start("\"10.0.0.0/8\"", "accept", "");
    let mut client = connect(server.address(LINES));
    let own = client.local_addr().expect("it is connected").to_string();
    client.write_all(LINE).expect("it reads");
    assert_eq!(line(&mut client), own, "a line like every other");
    assert_eq!(refused(&server), 0);
}

/// Ended with the test.
struct Running(Child, #[allow(dead_code)] tempfile::TempDir);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_address() -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("it is bound")
}

/// The load balancer that many have. `None`: it is not installed.
fn haproxy(text: &str) -> Option<Running> {
    let directory = tempfile::TempDir::new().expect("a directory for temporary files");
    let file = directory.path().join("haproxy.cfg");
    std::fs::write(&file, text).expect("it is ours");
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(child) = command.spawn() else {
        eprintln!("skipped: HAProxy is not installed");
        return None;
    };
    Some(Running(child, directory))
}

#[test]
fn behind_haproxy_clients_have_their_own_addresses() {
    let server = start("\"127.0.0.1\"", "require", "");
    let [lines, old, http] = [free_address(), free_address(), free_address()];
    let (to_lines, to_http) = (server.address(LINES), server.address(HTTP));
    let text = format!(
        "defaults\n timeout connect 5s\n timeout client 1m\n timeout server 1m\n\
         listen lines\n mode tcp\n bind {lines}\n server a {to_lines} send-proxy-v2\n\
         listen old\n mode tcp\n bind {old}\n server a {to_lines} send-proxy\n\
         listen http\n mode http\n option forwardfor\n bind {http}\n server a {to_http}\n"
    );
    let Some(_running) = haproxy(&text) else { return };
    for address in [lines, old, http] {
        wait_until("its port is there", || TcpStream::connect(address).is_ok());
    }
    for address in [lines, old] {
        let mut client = connect(address);
        let own = client.local_addr().expect("it is connected").to_string();
        client.write_all(b"who am I?\n").expect("it reads");
        assert_eq!(line(&mut client), own);
    }
    let mut client = Client::open_with(http, "/chat", "X-Forwarded-For: 6.6.6.6\r\n");
    client.send_text("who am I?");
    // The client is a trusted proxy as well, by its address: it is believed.
    assert_eq!(client.frame().text(), "6.6.6.6:0");
    assert_eq!(refused(&server), 0);
}
