//! Hooks that tell of logins and departures: bounded attempts against endpoints that fail.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ringway::hub::ConnId;
use ringway::lists::letters::SidecarRequest;
use ringway::protocols::xxim::config::upstream::{XximHooks, XximUpstreams};
use ringway::protocols::xxim::letters::{HookKind, ServiceRequest};

use super::sidecar::*;

fn sidecar(hooks: XximHooks) -> Sidecar {
    Sidecar::with(XximUpstreams { hooks, ..XximUpstreams::default() })
}

fn told(backend: &Backend) -> XximHooks {
    let url = Some(format!("{}/hooks", backend.url()));
    XximHooks { url, attempts_max: 3, timeout: Duration::from_secs(20), ..XximHooks::default() }
}

fn failures(reason: &str) -> String {
    let labels = format!("callback=\"after_connect\",reason=\"{reason}\"");
    format!("ringway_callback_failures_total{{{labels}}}")
}

fn connect(body: &'static [u8]) -> SidecarRequest {
    hook(0, HookKind::AfterConnect, body)
}

fn hook(conn: u32, kind: HookKind, body: &'static [u8]) -> SidecarRequest {
    let (conn, body) = (ConnId::new(0, conn, 1), Bytes::from_static(body));
    SidecarRequest::Xxim(ServiceRequest::Hook { conn, kind, body })
}

#[test]
fn hooks_are_posts_to_their_paths() {
    let backend = Backend::start(|_| response("200 OK", OK));
    let sidecar = sidecar(told(&backend));
    sidecar.request(connect(b"came"));
    let seen = backend.next();
    assert_eq!(seen.line, "POST /hooks/afterConnect HTTP/1.1");
    assert_eq!(seen.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(seen.body, b"came");
    sidecar.request(hook(0, HookKind::AfterDisconnect, b"went"));
    let seen = backend.next();
    assert_eq!(seen.line, "POST /hooks/afterDisconnect HTTP/1.1");
    assert_eq!(seen.body, b"went");
}

#[test]
fn a_failing_endpoint_is_tried_so_often_and_no_more() {
    let backend = Backend::start(|_| response("503 Busy", OK));
    let sidecar = sidecar(told(&backend));
    sidecar.request(connect(b"x"));
    sidecar.await_metric(&failures("status"), 3.0);
    // Of another hook the first attempt follows; of this one none.
    sidecar.request(connect(b"y"));
    sidecar.await_metric(&failures("status"), 6.0);
    let bodies: Vec<_> = backend.seen.try_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [b"x", b"x", b"x", b"y", b"y", b"y"]);
}

#[test]
fn an_endpoint_that_recovers_is_told_once_more_and_then_left_alone() {
    let count = Arc::new(AtomicUsize::new(0));
    let attempts = count.clone();
    let backend = Backend::start(move |_| match attempts.fetch_add(1, Ordering::SeqCst) {
        0 => response("500 Oops", OK),
        _ => response("204 No Content", OK),
    });
    let sidecar = sidecar(told(&backend));
    sidecar.request(connect(b"x"));
    (0..2).for_each(|_| _ = backend.next());
    sidecar.request(connect(b"y"));
    assert_eq!(backend.next().body, b"y");
    assert_eq!(count.load(Ordering::SeqCst), 3);
    assert_eq!(sidecar.metric(&failures("status")), 1.0);
}

#[test]
fn what_will_never_be_taken_is_not_repeated() {
    let backend = Backend::start(|_| response("404 Not Found", OK));
    let sidecar = sidecar(told(&backend));
    sidecar.request(connect(b"x"));
    sidecar.await_metric(&failures("status"), 1.0);
    sidecar.request(connect(b"y"));
    sidecar.await_metric(&failures("status"), 2.0);
    assert_eq!(backend.seen.try_iter().count(), 2);
}

/// The first hook of a connection fails twice; what follows of it waits, other connections do not.
#[test]
fn what_is_told_of_one_connection_is_told_in_order() {
    let failures_left = Arc::new(AtomicUsize::new(2));
    let left = failures_left.clone();
    let backend = Backend::start(move |seen| {
        let fails = seen.body == b"ann came"
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        response(if fails { "503 Busy" } else { "200 OK" }, OK)
    });
    let sidecar = sidecar(told(&backend));
    sidecar.request(hook(1, HookKind::AfterConnect, b"ann came"));
    sidecar.request(hook(1, HookKind::AfterDisconnect, b"ann went"));
    sidecar.request(hook(1, HookKind::AfterConnect, b"bob came"));
    sidecar.request(hook(2, HookKind::AfterConnect, b"eve came"));
    let bodies: Vec<_> = (0..6).map(|_| backend.next().body).collect();
    let text = |body: &Vec<u8>| String::from_utf8_lossy(body).into_owned();
    let mut bodies: Vec<_> = bodies.iter().map(text).collect();
    let other = bodies.iter().position(|body| body == "eve came").expect("it was told");
    assert_ne!(other, 5, "one connection waited for another");
    bodies.remove(other);
    assert_eq!(bodies, ["ann came", "ann came", "ann came", "ann went", "bob came"]);
}

#[test]
fn hooks_without_room_are_dropped_and_counted() {
    let backend = Backend::start(|_| None);
    let sidecar = sidecar(XximHooks { waiting_max: 1, ..told(&backend) });
    (0..5).for_each(|conn| sidecar.request(hook(conn, HookKind::AfterConnect, b"x")));
    sidecar.await_metric(&failures("no_room"), 4.0);
    assert_eq!(backend.next().body, b"x");
}

#[test]
fn so_many_hooks_are_under_way() {
    const MAX: usize = 2;
    // How many there are, and were at the most.
    let under_way = Arc::new((Mutex::new((0, 0)), Condvar::new()));
    let seen = under_way.clone();
    let backend = Backend::start(move |_| {
        let (counts, changed) = &*seen;
        let mut counts = counts.lock().unwrap();
        *counts = (counts.0 + 1, counts.1.max(counts.0 + 1));
        changed.notify_all();
        // Time for one too many to come.
        let wait = Duration::from_millis(300);
        let (mut counts, _) =
            changed.wait_timeout_while(counts, wait, |counts| counts.1 <= MAX).unwrap();
        counts.0 -= 1;
        response("200 OK", OK)
    });
    let sidecar = sidecar(XximHooks { under_way_max: MAX as u32, ..told(&backend) });
    (0..6).for_each(|conn| sidecar.request(hook(conn, HookKind::AfterConnect, b"x")));
    (0..6).for_each(|_| _ = backend.next());
    assert!(under_way.0.lock().unwrap().1 <= MAX);
}
