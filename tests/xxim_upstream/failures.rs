//! Upstreams that are slow, dead, or make no sense: every call is answered exactly once.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ringway::config::model::{XximMode, XximRoute, XximTarget, XximUpstream, XximUpstreams};
use ringway::shard::mailbox::Request;

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

#[test]
fn replies_that_make_no_sense_get_code_2() {
    let backend = Backend::start(|seen| match seen.body.as_slice() {
        b"long" => response("200 OK", &vec![0; 2 << 20]),
        b"http" => Some(b"\x16\x03\x01 this is TLS\r\n\r\n".to_vec()),
        _ => Some(b"HTTP/1.1 200 OK\r\nContent-Length: nine\r\n\r\n".to_vec()),
    });
    let sidecar = Sidecar::with(only(upstream("im", backend.url(), XximMode::Raw)));
    for body in [b"long".as_slice(), b"http", b"length"] {
        assert_eq!(sidecar.call(call(METHOD, body)).code, 2, "{body:?}");
    }
    assert_eq!(sidecar.metric(&calls_total("nonsense")), 3.0);
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
        sidecar.request(Request::CancelUpstream { conn: conn() });
        // Behind it, so that the other one would have been answered before.
        sidecar.begin(2, call(METHOD, OK));
        assert_eq!(sidecar.answer().0, 2);
        if detach {
            assert_eq!(sidecar.answer().0, 1, "it goes on until its timeout");
        } else {
            sidecar.begin(3, call(METHOD, b"silent".as_slice()));
            assert_eq!(sidecar.answer().0, 3, "the timeout of the cancelled one is over");
        }
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
