//! Upstreams that are slow, dead, or make no sense: every call is answered exactly once.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prost::Message;
use ringway::lists::letters::SidecarRequest;
use ringway::protocols::xxim::config::upstream::{
    XximMode, XximRoute, XximTarget, XximUpstream, XximUpstreams,
};
use ringway::protocols::xxim::letters::ServiceRequest;
use ringway::protocols::xxim::wire::proto::CommonResp;

use super::sidecar::*;

const METHOD: &str = "/v1/user/white/login";

fn routed(upstream: XximUpstream, timeout: Duration, detach: bool) -> XximUpstreams {
    let mut route = XximRoute::new("/", XximTarget::Upstream(0), timeout);
    route.detach = detach;
    XximUpstreams { routes: vec![route], ..only(upstream) }
}

fn calls_total(result: &str) -> String {
    format!("ringway_upstream_calls_total{{upstream=\"im\",result=\"{result}\"}}")
}

#[test]
fn a_slow_upstream_gets_code_8_and_its_late_reply_reaches_nobody() {
    let backend = Backend::start(|seen| match seen.body.as_slice() {
        b"\x1a\x04slow" => None,
        body => response("200 OK", body),
    });
    let im = upstream("im", backend.url(), XximMode::Raw);
    let sidecar = Sidecar::with(routed(im, Duration::from_millis(100), false));
    assert_eq!(sidecar.call(call(METHOD, b"\x1a\x04slow".as_slice())).code, 8);
    let result = sidecar.call(call(METHOD, b"\x1a\x04fast".as_slice()));
    assert_eq!((result.code, &*result.data), (0, b"\x1a\x04fast".as_slice()));
    assert_eq!(backend.connections.load(Ordering::SeqCst), 2, "the first one was given up");
    assert_eq!(sidecar.metric(&calls_total("timeout")), 1.0);
}

/// What no upstream should answer to mode `raw`, with the number of bytes of a reply's body that
/// the limit allows.
fn nonsense() -> Vec<Vec<u8>> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        response("200 OK", &vec![0; 2 << 20]).expect("a response"),
        text("HTTP/1.1 200 OK\r\nContent-Length: 2097152\r\n\r\n"),
        text("HTTP/1.1 200 OK\r\nContent-Length: nine\r\n\r\n"),
        text("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        text("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
        text("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nwhat\r\n"),
        text("HTTP/1.1 101 Switching Protocols\r\n\r\n"),
        text("HTTP/1.1 two hundred\r\n\r\n"),
        text(&format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(100_000))),
        b"\x16\x03\x01 this is TLS\r\n\r\n".to_vec(),
        text("220 mail.example ESMTP\r\n"),
        // HTTP, but not what a response message is.
        response("200 OK", b"\x0a\xff").expect("a response"),
        response("200 OK", b"<html>").expect("a response"),
        response("200 OK", b"\x0a\x03\x08\x05").expect("a response"),
        response_with("200 OK", "X-Xxim-Code: none\r\n", b"").expect("a response"),
        response_with("200 OK", "X-Xxim-Code: 0\r\nX-Xxim-Code: 4\r\n", b"").expect("one"),
    ]
}

#[test]
fn replies_that_make_no_sense_get_code_2() {
    let replies = nonsense();
    let all = replies.len();
    let backend = Backend::start(move |seen| Some(replies[usize::from(seen.body[0])].clone()));
    let sidecar = Sidecar::with(only(upstream("im", backend.url(), XximMode::Raw)));
    for number in 0..all {
        let result = sidecar.call(call(METHOD, vec![number as u8]));
        let told = CommonResp::decode(result.data).expect("a CommonResp");
        assert_eq!((result.code, told.code), (2, 2), "reply {number}");
    }
    assert_eq!(sidecar.metric(&calls_total("nonsense")), all as f64);
    // An upstream that answers is there, whatever it says.
    assert_eq!(sidecar.metric("ringway_upstream_circuit_open{upstream=\"im\"}"), 0.0);
}

#[test]
fn envelopes_that_are_none_get_code_2() {
    let backend = Backend::start(|seen| match seen.body.len() % 2 {
        0 => response("200 OK", b"\x0a\x05hello"),
        _ => response("200 OK", b"\x12\x7f"),
    });
    let sidecar = Sidecar::with(only(upstream("im", backend.url(), XximMode::Envelope)));
    for body in [b"".as_slice(), b"x"] {
        assert_eq!(sidecar.call(call(METHOD, body)).code, 2, "{body:?}");
    }
    assert_eq!(sidecar.metric(&calls_total("nonsense")), 2.0);
}

/// A server that answers every connection with these bytes, whatever it hears, and closes it when
/// `leaves`.
fn talker(bytes: &'static [u8], leaves: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut input = [0; 4096];
                let heard = stream.read(&mut input).is_ok_and(|count| count > 0);
                if heard && stream.write_all(bytes).is_ok() && !leaves {
                    while stream.read(&mut input).is_ok_and(|count| count > 0) {}
                }
            });
        }
    });
    url
}

#[test]
fn who_breaks_http_2_gets_code_2_and_who_leaves_code_8() {
    // The settings of a server, then nothing more.
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    for (mode, http2) in
        [(XximMode::Raw, true), (XximMode::Envelope, true), (XximMode::Grpc, false)]
    {
        for (bytes, leaves, code, result) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"[..], false, 2, "nonsense"),
            (
                &b"\x15\x03\x03\x00\x02\x02\x46 and this is TLS, which nobody asked for"[..],
                false,
                2,
                "nonsense",
            ),
            (SETTINGS, true, 8, "transport"),
            (b"", true, 8, "transport"),
        ] {
            let im = XximUpstream { http2, ..upstream("im", talker(bytes, leaves), mode) };
            let sidecar = Sidecar::with(only(im));
            let told = sidecar.call(call(METHOD, OK));
            assert_eq!(told.code, code, "{mode:?}: {bytes:?}");
            assert_eq!(sidecar.metric(&calls_total(result)), 1.0, "{mode:?}: {bytes:?}");
        }
    }
}

#[test]
fn a_dead_upstream_opens_the_circuit_and_its_return_closes_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let im = XximUpstream {
        circuit_failures: 4,
        ..upstream("im", format!("http://{address}"), XximMode::Raw)
    };
    let sidecar = Sidecar::with(only(im));
    for _ in 0..4 {
        assert_eq!(sidecar.call(call(METHOD, OK)).code, 8);
    }
    let open = "ringway_upstream_circuit_open{upstream=\"im\"}";
    assert_eq!(sidecar.metric(open), 1.0);
    assert_eq!(sidecar.metric("ringway_upstream_circuit_opened_total{upstream=\"im\"}"), 1.0);
    // While it is open nobody is asked; an occasional probe is.
    for _ in 0..200 {
        let result = sidecar.call(call(METHOD, OK));
        assert_eq!((result.code, result.data.first()), (8, Some(&8)));
    }
    let carried = sidecar.metric(&calls_total("unreachable"));
    assert!(sidecar.metric(&calls_total("circuit_open")) + carried >= 204.0);
    let listener = TcpListener::bind(address).expect("the port is free again");
    let backend = Backend::on(listener, |_| response("200 OK", OK));
    let deadline = Instant::now() + PATIENCE;
    while sidecar.call(call(METHOD, OK)).code != 0 {
        assert!(Instant::now() < deadline, "the circuit stays open");
    }
    assert_eq!(sidecar.metric(open), 0.0);
    assert_eq!(backend.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn an_upstream_that_dies_under_load_costs_no_answer() {
    let served = std::sync::Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    let backend = Backend::start(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        response("200 OK", OK)
    });
    let sidecar = Sidecar::with(only(upstream("im", backend.url(), XximMode::Raw)));
    let mut open: HashSet<u32> = HashSet::new();
    let begin = |number| {
        sidecar.begin(number, call(METHOD, OK));
        number
    };
    (0..64).for_each(|number| _ = open.insert(begin(number)));
    let mut backend = Some(backend);
    let (mut good, mut bad, mut next) = (0, 0, 64);
    while !open.is_empty() {
        let (number, result) = sidecar.answer();
        assert!(open.remove(&number), "{number} has two answers");
        match result.code {
            0 => good += 1,
            8 => bad += 1,
            other => panic!("code {other}"),
        }
        if good >= 500 {
            drop(backend.take());
        }
        if next < 3000 {
            open.insert(begin(next));
            next += 1;
        }
    }
    assert_eq!(good + bad, 3000);
    assert!(good >= 500 && bad > 0, "{good} good, {bad} bad");
    assert!(sidecar.mailboxes[0].is_empty(), "no answer beside these");
}

#[test]
fn the_calls_of_a_connection_end_with_it_unless_they_are_detached() {
    for detach in [false, true] {
        let backend = Backend::start(|seen| match seen.body.as_slice() {
            b"silent" => None,
            _ => response("200 OK", OK),
        });
        let im = upstream("im", backend.url(), XximMode::Raw);
        let sidecar = Sidecar::with(routed(im, Duration::from_millis(300), detach));
        sidecar.begin(1, call(METHOD, b"silent".as_slice()));
        assert_eq!(backend.next().body, b"silent");
        sidecar.request(SidecarRequest::Xxim(ServiceRequest::CancelUpstream { conn: conn() }));
        // Behind it, so that the other one would have been answered before.
        sidecar.begin(2, call(METHOD, OK));
        let cancelled = "ringway_upstream_calls_total{upstream=\"im\",result=\"cancelled\"}";
        let answered: Vec<u32> = (0..2).map(|_| sidecar.answer().0).collect();
        if detach {
            assert_eq!(answered, [2, 1], "it goes on until its timeout");
        } else {
            assert_eq!(answered.iter().sum::<u32>(), 3, "what was given up is answered as well");
            sidecar.begin(3, call(METHOD, b"silent".as_slice()));
            assert_eq!(sidecar.answer().0, 3, "the timeout of the cancelled one is over");
        }
        assert_eq!(sidecar.metric(cancelled), f64::from(u8::from(!detach)));
        assert!(sidecar.mailboxes[0].is_empty());
    }
}

#[test]
fn no_more_connections_than_allowed() {
    let backend = Backend::start(|_| response("200 OK", OK));
    let im = XximUpstream { connections_max: 2, ..upstream("im", backend.url(), XximMode::Raw) };
    let sidecar = Sidecar::with(only(im));
    (0..100).for_each(|number| sidecar.begin(number, call(METHOD, OK)));
    let answered: HashSet<u32> = (0..100).map(|_| sidecar.answer().0).collect();
    assert_eq!(answered.len(), 100);
    assert!(backend.connections.load(Ordering::SeqCst) <= 2);
}

#[test]
fn no_url_and_no_text_of_the_transport_reaches_a_client() {
    let im = upstream("im", "http://localhost:9/secret-path", XximMode::Raw);
    let sidecar = Sidecar::with(only(im));
    let result = sidecar.call(call(METHOD, OK));
    let text = String::from_utf8_lossy(&result.data[4..]).into_owned();
    assert_eq!((result.code, &*text), (8, "网络繁忙，请重试"));
}
