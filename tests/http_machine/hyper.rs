//! The same bytes for this machine and for hyper's server: what both take they must read alike, and
//! what only one takes is in a list here.
//!
//! Ringway refuses what hyper takes: [`STRICTER`], by the fault that it names. It takes what hyper
//! refuses: targets with bytes that hyper's URI does not know ([`is_lax`]).

use std::sync::{Arc, Mutex};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use ringway::wire::http::fault::Fault;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{BODY_BYTES_MAX, Read, Story, generated, read};

/// What this machine refuses although hyper may take it:
/// a line that ends with LF alone; a target with a fragment, of CONNECT, with a scheme that is
/// neither HTTP nor WebSocket or with a name before its host; no `Host` in HTTP/1.1, several of
/// them, or one that is none; a length beside a transfer coding; codings before `chunked`; chunks
/// with LF alone, with control characters, or with white space where none belongs; bodies beyond
/// the limit.
const STRICTER: [Fault; 9] = [
    Fault::LineEnd,
    Fault::Target,
    Fault::NoHost,
    Fault::Hosts,
    Fault::Host,
    Fault::LengthAndCoding,
    Fault::Coding,
    Fault::Chunk,
    Fault::Body,
];

/// Whether only the target can be why hyper refuses a request.
fn is_lax(request: &Read) -> bool {
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"/?:@-._~!$&'()*+,;=%".contains(byte);
    !request.target.iter().all(known)
}

/// What hyper makes of a stream.
fn by_hyper(stream: &[u8]) -> Vec<Read> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let seen: Arc<Mutex<Vec<Read>>> = Arc::default();
    let noted = seen.clone();
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let noted = noted.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = axum::body::to_bytes(axum::body::Body::new(body), usize::MAX).await?;
            let text = |name: &str| head.headers.get(name).map(|value| value.as_bytes().to_vec());
            let authority = head.uri.authority().map(|name| name.as_str().as_bytes().to_vec());
            let request = Read {
                method: head.method.to_string(),
                target: head.uri.to_string().into_bytes(),
                host: authority.or_else(|| text("host")).unwrap_or_default(),
                ends: false,
                headers: head
                    .headers
                    .iter()
                    .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
                    .collect(),
                body: body.to_vec(),
            };
            noted.lock().expect("nobody panics").push(request);
            Ok::<_, axum::Error>(hyper::Response::new(axum::body::Body::empty()))
        }
    });
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(stream).await.expect("there is room");
        client.shutdown().await.expect("it is open");
        let connection =
            http1::Builder::new().half_close(true).serve_connection(TokioIo::new(server), service);
        let mut answers = Vec::new();
        // What is wrong with the connection shows in what was read.
        let _ = tokio::join!(connection, client.read_to_end(&mut answers));
    });
    std::mem::take(&mut *seen.lock().expect("nobody panics"))
}

/// In a form in which both can be compared: hyper puts lines of one name together, knows no order
/// between names, and drops a length that is said again.
fn comparable(request: &Read) -> Read {
    let mut headers = request.headers.clone();
    headers.sort_by(|a, b| a.0.cmp(&b.0));
    headers.dedup_by(|a, b| a.0 == "content-length" && a == b);
    let target = match request.target.as_slice() {
        // It writes schemes in lower case and the path that an absolute form leaves out.
        b"ws://h" => b"ws://h/".to_vec(),
        target => target.to_vec(),
    };
    Read { headers, target, ends: false, ..request.clone() }
}

fn text(stream: &[u8]) -> String {
    String::from_utf8_lossy(stream).into_owned()
}

fn compare(stream: &[u8]) -> Result<(), TestCaseError> {
    let ours: Story = read(std::iter::once(stream));
    let theirs = by_hyper(stream);
    // Behind an answer that ends a connection hyper reads nothing.
    let last = ours.requests.iter().position(|request| request.ends);
    let requests = &ours.requests[..last.map_or(ours.requests.len(), |last| last + 1)];
    for (index, own) in requests.iter().enumerate() {
        match theirs.get(index) {
            Some(other) => {
                prop_assert_eq!(comparable(own), comparable(other), "{:?}", text(stream));
            }
            None => {
                prop_assert!(is_lax(own), "only Ringway takes {own:?} of {:?}", text(stream));
                return Ok(());
            }
        }
    }
    if theirs.len() > requests.len() && last.is_none() {
        let extra = &theirs[requests.len()];
        let fault = ours.fault.filter(|fault| STRICTER.contains(fault));
        prop_assert!(fault.is_some(), "hyper takes {extra:?} of {:?}", text(stream));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whoever_takes_a_request_reads_the_same(stream in generated::stream()) {
        compare(&stream)?;
    }

    /// One byte of a good stream is another one, or is missing.
    #[test]
    fn also_where_a_byte_is_wrong(
        at in any::<prop::sample::Index>(),
        byte in prop::option::of(prop_oneof![any::<u8>(), prop::sample::select(
            &b"\r\n\0 \t:;,#/x0"[..]
        )]),
        chunked in any::<bool>(),
    ) {
        let (line, body) = match chunked {
            true => ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\nA: b\r\n\r\n"),
            false => ("Content-Length: 5", "hello"),
        };
        let one = format!("POST /a?b HTTP/1.1\r\nHost: h\r\n{line}\r\nX: y\r\n\r\n{body}");
        let mut stream = one.repeat(2).into_bytes();
        let at = at.index(stream.len());
        match byte {
            Some(byte) => stream[at] = byte,
            None => _ = stream.remove(at),
        }
        compare(&stream)?;
    }
}

#[test]
fn each_stricter_rule_refuses_something_that_hyper_takes() {
    let request = |fields: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}").into_bytes()
    };
    let chunked = |body: &str| request("Transfer-Encoding: chunked\r\n", body);
    let large = "x".repeat(BODY_BYTES_MAX + 1);
    let cases = [
        (Fault::LineEnd, b"GET / HTTP/1.1\nHost: h\n\n".to_vec()),
        (Fault::Target, b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
        (Fault::NoHost, b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        (Fault::Hosts, request("Host: h\r\n", "")),
        (Fault::Host, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_vec()),
        (
            Fault::LengthAndCoding,
            request("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ),
        (Fault::Coding, request("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")),
        (Fault::Chunk, chunked("1 \r\nx\r\n0\r\n\r\n")),
        (Fault::Body, request(&format!("Content-Length: {}\r\n", large.len()), &large)),
    ];
    assert_eq!(cases.each_ref().map(|case| case.0), STRICTER);
    for (fault, stream) in cases {
        assert_eq!(read(std::iter::once(&*stream)).fault, Some(fault));
        assert_eq!(by_hyper(&stream).len(), 1, "hyper refuses it as well: {fault:?}");
    }
}
