//! Streams of requests: good ones, and such as smugglers write.

use proptest::prelude::*;
use proptest::sample::select;

/// Some requests, one behind the other.
pub fn stream() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(request(), 1..4).prop_map(|requests| requests.concat())
}

/// One request.
pub fn request() -> impl Strategy<Value = Vec<u8>> {
    let fields = prop::collection::vec(field(), 0..4);
    (line(), host(), framed(), fields, any::<prop::sample::Index>()).prop_map(
        |(line, host, (framing, body), mut fields, at)| {
            fields.insert(at.index(fields.len() + 1), framing);
            let fields = fields.concat();
            [line.as_bytes(), host.as_bytes(), fields.as_bytes(), b"\r\n", &*body].concat()
        },
    )
}

/// Mostly the first one.
fn mostly(usual: &'static str, others: &'static [&'static str]) -> BoxedStrategy<&'static str> {
    prop_oneof![6 => Just(usual), 1 => select(others)].boxed()
}

fn line() -> impl Strategy<Value = String> {
    let method = mostly("POST", &["GET", "HEAD", "OPTIONS", "get", "P\0ST", "", "G@T", "CONNECT"]);
    let target = mostly(
        "/path?query",
        &[
            "*",
            "http://other:80/a?b",
            "ws://h",
            "ftp://h/",
            "//a/b",
            "/a#b",
            "/a b",
            "/\u{e9}",
            "h:80",
            "",
            "http://u@h/",
            "/\"<>^`{|}\\",
        ],
    );
    let version = mostly("HTTP/1.1", &["HTTP/1.0", "HTTP/2.0", "HTTP/1.2", "http/1.1", ""]);
    let gap = mostly(" ", &["  ", "\t", ""]);
    (method, gap, target, version, end()).prop_map(|(method, gap, target, version, end)| {
        format!("{method}{gap}{target} {version}{end}")
    })
}

fn host() -> impl Strategy<Value = String> {
    let line = mostly(
        "Host: h",
        &["", "Host:", "Host: a b", "host:h:80", "Host : h", "Host: h\r\nHost: h", "Host: [::1]"],
    );
    (line, end()).prop_map(|(line, end)| match line {
        "" => String::new(),
        line => format!("{line}{end}"),
    })
}

fn end() -> BoxedStrategy<&'static str> {
    prop_oneof![30 => Just("\r\n"), 1 => select(&["\n", "\r", "\r\r\n", "\0\r\n"][..])].boxed()
}

fn field() -> impl Strategy<Value = String> {
    let line = select(
        &[
            "A: b",
            "a:",
            "Connection: close",
            "Connection: keep-alive",
            "Expect: 100-continue",
            "Content-Length: 3",
            "Transfer-Encoding: chunked",
            "X: \u{e9}",
            "X: a\tb  ",
            " folded: x",
            "no colon",
            ": empty",
            "X Y: z",
            "X: \x7f",
            "X: a\0b",
        ][..],
    );
    (prop_oneof![3 => Just("A: b"), 2 => line], end())
        .prop_map(|(line, end)| format!("{line}{end}"))
}

/// The line about a body, and the body.
fn framed() -> impl Strategy<Value = (String, Vec<u8>)> {
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        Just(b"POST /hidden HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
    ];
    (body, 0..10_u8, chunk_size(), chunk_end()).prop_map(|(body, kind, size, end)| {
        let length = body.len();
        let chunks = |size: String| {
            let head = format!("{size}{end}");
            [head.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat()
        };
        let line = |text: String| format!("{text}\r\n");
        match kind {
            0 | 1 => (line(format!("Content-Length: {length}")), body),
            2 if !body.is_empty() => {
                (line("Transfer-Encoding: chunked".into()), chunks(size(length)))
            }
            3 => (line(format!("Content-Length: +{length}")), body),
            4 => (line(format!("Content-Length: {length}\r\nContent-Length: 1")), body),
            5 => (line(format!("Content-Length: {length}, {length}")), body),
            6 => (
                line(format!("Content-Length: {length}\r\nTransfer-Encoding: chunked")),
                chunks(size(length)),
            ),
            7 => (line("Transfer-Encoding: gzip, chunked".into()), chunks(size(length))),
            8 => (line("Transfer-Encoding : chunked".into()), chunks(size(length))),
            9 => (line("Transfer-Encoding: xchunked".into()), chunks(size(length))),
            _ => (String::new(), Vec::new()),
        }
    })
}

fn chunk_size() -> BoxedStrategy<fn(usize) -> String> {
    let usual: fn(usize) -> String = |size| format!("{size:x}");
    let others: [fn(usize) -> String; 4] = [
        |size| format!("{size:X}"),
        |size| format!("000{size:x}"),
        |size| format!("0x{size:x}"),
        |size| format!("-{size:x}"),
    ];
    prop_oneof![4 => Just(usual), 1 => select(others.to_vec())].boxed()
}

fn chunk_end() -> BoxedStrategy<&'static str> {
    mostly("\r\n", &["\n", ";a=b\r\n", ";a\n", " \r\n", ";\0\r\n", "\r", " ;a\r\n"])
}
