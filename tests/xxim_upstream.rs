//! Calls of xxim upstreams, from the shards' side of the sidecar: bodies and headers as specified,
//! and exactly one answer whatever the upstream does (xxim sections 4.3 to 4.6).

#[path = "xxim_upstream/failures.rs"]
mod failures;
#[path = "xxim_upstream/hooks.rs"]
mod hooks;
#[path = "xxim_upstream/other.rs"]
mod other;
mod sidecar;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use prost::Message;
use ringway::protocols::xxim::config::upstream::XximMode;
use ringway::protocols::xxim::letters::UpstreamCall;
use ringway::protocols::xxim::wire::proto::CommonResp;
use ringway::protocols::xxim::wire::{Identity, common_req, inject, inject_send_msg_list};
use sidecar::*;

const LOGIN: &str = "/v1/user/white/login";
const SEND: &str = "/v1/msg/sendMsgList";
const FRIENDS: &str = "/v1/relation/getFriendList";

fn raw(answer: impl Fn(&Seen) -> Option<Vec<u8>> + Send + Sync + 'static) -> (Backend, Sidecar) {
    let backend = Backend::start(answer);
    let sidecar = Sidecar::with(only(upstream("im", backend.url(), XximMode::Raw)));
    (backend, sidecar)
}

#[test]
fn a_call_is_a_post_as_specified_and_its_reply_the_result() {
    let reply = hex("1a0a746f6b2e656e2e736967220a74657374313233343536");
    let told = reply.clone();
    let (backend, sidecar) = raw(move |_| response("200 OK", &told));
    let result = sidecar.call(call(LOGIN, b"\x12\x01a".as_slice()));
    assert_eq!((result.code, &*result.data), (0, &*reply));
    let seen = backend.next();
    assert_eq!(seen.line, "POST /v1/user/white/login HTTP/1.1");
    assert_eq!(seen.body, b"\x12\x01a");
    let conn = (1_700_000_000_u64 << 32 | 5).to_string();
    for (name, value) in [
        ("host", &*backend.address.to_string()),
        ("content-type", "application/x-protobuf"),
        ("accept", "application/x-protobuf"),
        ("x-xxim-req-id", "r1"),
        ("x-xxim-conn-id", &conn),
        ("x-xxim-user-id", "test123456"),
        ("x-xxim-token", "tok.en.sig"),
        ("x-xxim-platform", "windows"),
        ("x-xxim-device-id", "xxxx"),
        ("x-xxim-device-model", "DeviceModel"),
        ("x-xxim-os-version", "OsVersion"),
        ("x-xxim-app-version", "AppVersion"),
        ("x-xxim-language", "Language"),
        ("x-xxim-network", "NetworkUsed"),
        ("x-xxim-ip", "203.0.113.7"),
        ("content-length", "3"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    assert_eq!(seen.header("x-xxim-package-id"), None, "there is none");
    assert_eq!(seen.header("traceparent").map(str::len), Some(55));
}

#[test]
fn a_smuggled_common_req_never_arrives() {
    // N08 without its envelope, and what it must become: N08u, which is V14u.
    let smuggled = hex("0a5d0a0263311a0d313637373230303030303030305a0a7465737431323334353662137b22
         6964223a2274657374313233343536227daa010b67726f75703a3130313334f8010b820201
         31ca02080801100128013001d202060a01541201435a120a0676696374696d120178d20204
         6576696c");
    let expected = hex("0a5d0a0263311a0d313637373230303030303030305a0a746573743132333435
         3662137b226964223a2274657374313233343536227daa010b67726f75703a31
         30313334f8010b82020131ca02080801100128013001d202060a01541201435a
         650a0a74657374313233343536120a746f6b2e656e2e7369675a0b4465766963
         654d6f64656c6204787878786a094f7356657273696f6e720777696e646f7773
         aa010a41707056657273696f6eb201084c616e6775616765ca020b3230332e30
         2e3131332e37");
    let (backend, sidecar) = raw(|_| response("200 OK", OK));
    let own = common_req(&identity());
    let body = inject_send_msg_list(&smuggled, true, &own).expect("a message");
    assert_eq!(sidecar.call(call(SEND, body)).code, 0);
    assert_eq!(hex_of(&backend.next().body), hex_of(&expected));
}

#[test]
fn before_login_the_block_names_nobody() {
    // V08 without its envelope, and V08u.
    let request = hex(
        "120a746573743132333435361a2065313061646333393439626135396162626535366530353766323066383833
         65",
    );
    let expected = hex("120a746573743132333435361a2065313061646333393439626135396162626535
         36653035376632306638383365
         0a4d5a0b4465766963654d6f64656c6204787878786a094f7356657273696f6e72
         0777696e646f7773aa010a41707056657273696f6eb201084c616e6775616765ca
         020b3230332e302e3131332e37");
    let (backend, sidecar) = raw(|_| response("200 OK", OK));
    let guest = Identity { user_id: String::new(), token: String::new(), ..identity() };
    let body = inject(&request, 1, &common_req(&guest)).expect("a message");
    let call = UpstreamCall { identity: Arc::new(guest), ..call(LOGIN, body) };
    assert_eq!(sidecar.call(call).code, 0);
    let seen = backend.next();
    assert_eq!(hex_of(&seen.body), hex_of(&expected));
    assert_eq!((seen.header("x-xxim-user-id"), seen.header("x-xxim-token")), (None, None));
}

#[test]
fn the_envelope_is_that_of_the_vectors() {
    // H01, H02, H03.
    let request = hex("0a0a74657374313233343536120a746f6b2e656e2e7369675a0b446576696365
         4d6f64656c6204787878786a094f7356657273696f6e720777696e646f7773aa
         010a41707056657273696f6eb201084c616e6775616765fa01081206080110bf
         843dca020b3230332e302e3131332e37");
    let refused = hex("0804120fe799bbe5bd95e5b7b2e8bf87e69c9f");
    let told = refused.clone();
    let backend = Backend::start(move |seen| match seen.line.contains("getFriendList") {
        true => response("200 OK", &hex("12001a081202753212027533")),
        false => response("200 OK", &told),
    });
    let sidecar = Sidecar::with(only(upstream("im", backend.url(), XximMode::Envelope)));
    let identity = Arc::new(identity());
    let data = hex("1206080110bf843d");
    let first = UpstreamCall { identity: identity.clone(), ..call(FRIENDS, data) };
    let result = sidecar.call(first);
    assert_eq!((result.code, &*result.data), (0, &*hex("1202753212027533")));
    let seen = backend.next();
    assert_eq!(seen.line, "POST /v1/relation/getFriendList HTTP/1.1");
    assert_eq!(hex_of(&seen.body), hex_of(&request));
    let result = sidecar.call(UpstreamCall { identity, ..call(SEND, Bytes::new()) });
    assert_eq!((result.code, &*result.data), (4, &*refused));
}

/// A client that tries to end a line, a head, a request, in everything that it says of itself.
const HOSTILE: &str = "a\r\nX-Xxim-User-Id: victim\r\n\r\nPOST /v1/admin HTTP/1.1\r\n\0\u{8d3a}%0d";
/// The same as a header value.
const ENCODED: &str = "a%0D%0AX-Xxim-User-Id:%20victim%0D%0A%0D%0APOST%20/v1/admin%20HTTP/1.1%0D%0A\
     %00%E8%B4%BA%250d";

fn hostile() -> UpstreamCall {
    let identity = Identity {
        user_id: HOSTILE.into(),
        token: HOSTILE.into(),
        platform: HOSTILE.into(),
        device_id: HOSTILE.into(),
        package_id: HOSTILE.into(),
        device_model: HOSTILE.into(),
        os_version: HOSTILE.into(),
        app_version: HOSTILE.into(),
        language: HOSTILE.into(),
        network_used: HOSTILE.into(),
        ip: "203.0.113.7".into(),
        user_agent: HOSTILE.into(),
        ..Identity::default()
    };
    UpstreamCall {
        identity: Arc::new(identity),
        req_id: Bytes::copy_from_slice(HOSTILE.as_bytes()),
        ..call(SEND, b"body".as_slice())
    }
}

#[test]
fn no_client_can_add_a_header() {
    let (backend, sidecar) = raw(|_| response("200 OK", OK));
    assert_eq!(sidecar.call(hostile()).code, 0);
    let seen = backend.next();
    assert_eq!(seen.header("x-xxim-user-id"), Some(ENCODED));
    assert_eq!(seen.header("x-xxim-req-id"), Some(ENCODED));
    assert_eq!(seen.headers.len(), 20, "{:?}", seen.headers);
    assert_eq!(seen.body, b"body");
    assert!(backend.seen.try_recv().is_err(), "one request");
}

#[test]
fn an_identity_that_fits_no_head_is_refused_without_a_call() {
    let (backend, sidecar) = raw(|_| response("200 OK", OK));
    let identity = Identity { device_model: "m".repeat(100_000), ..identity() };
    let call = UpstreamCall { identity: Arc::new(identity), ..call(SEND, OK) };
    let result = sidecar.call(call);
    assert_eq!((result.code, &*result.data), (3, b"\x08\x03".as_slice()));
    assert_eq!(backend.connections.load(Ordering::SeqCst), 0);
}

#[test]
fn results_come_from_header_field_or_status() {
    let resp = CommonResp { code: 5, msg: Some("no".into()), ..Default::default() }.encode_to_vec();
    let told = resp.clone();
    let (_backend, sidecar) = raw(move |seen| {
        let field = [b"\x0a\x06".as_slice(), &told].concat();
        match seen.body.as_slice() {
            b"field" => response("200 OK", &field),
            b"header" => response_with("200 OK", "X-Xxim-Code: 5\r\n", &told),
            b"status" => response("500 Oops", &told),
            b"404" => response_with("404 Not Found", "", b"<html>"),
            b"503" => response_with("503 Busy", "", b""),
            b"500" => response_with("500 Oops", "", b""),
            _ => response("200 OK", b"\x0a\xff"),
        }
    });
    let result = |body: &'static [u8]| sidecar.call(call(LOGIN, body));
    for body in [b"field".as_slice(), b"header", b"status"] {
        let result = result(body);
        assert_eq!((result.code, &*result.data), (5, &*resp), "{body:?}");
    }
    for (body, code) in [(b"404".as_slice(), 3), (b"503", 8), (b"500", 2), (b"nonsense", 2)] {
        let result = result(body);
        assert_eq!(result.code, code, "{body:?}");
        assert_eq!(CommonResp::decode(result.data).expect("a CommonResp").code, code);
    }
}

#[test]
fn connections_are_kept_and_closed_ones_are_replaced() {
    let (backend, sidecar) = raw(|seen| match seen.body.as_slice() {
        b"last" => response_with("200 OK", "Connection: close\r\n", OK),
        _ => response("200 OK", OK),
    });
    for _ in 0..20 {
        assert_eq!(sidecar.call(call(LOGIN, OK)).code, 0);
    }
    assert_eq!(backend.connections.load(Ordering::SeqCst), 1);
    assert_eq!(sidecar.call(call(LOGIN, b"last".as_slice())).code, 0);
    assert_eq!(sidecar.call(call(LOGIN, OK)).code, 0);
    assert_eq!(backend.connections.load(Ordering::SeqCst), 2);
}

#[test]
fn several_threads_answer_every_call_once() {
    let backend = Backend::start(|seen| response("200 OK", &seen.body));
    let settings = ringway::sidecar::SidecarSettings {
        sidecar: ringway::config::model::Sidecar { threads: 3, ..Default::default() },
        xxim: ringway::protocols::xxim::service::Settings {
            upstreams: only(upstream("im", backend.url(), XximMode::Raw)),
            ..Default::default()
        },
        ..settings()
    };
    let sidecar = Sidecar::start(settings);
    let mut open: std::collections::HashSet<u32> = (0..2000).collect();
    let call_of = |number: u32| {
        // A field that is nobody's commonResp.
        let body = [b"\x82\x01\x04".as_slice(), &number.to_be_bytes()].concat();
        call(LOGIN, body)
    };
    (0..64).for_each(|number| sidecar.begin(number, call_of(number)));
    for next in 64..2064 {
        let (number, result) = sidecar.answer();
        assert!(open.remove(&number), "{number} twice");
        assert_eq!((result.code, &result.data[3..]), (0, &number.to_be_bytes()[..]));
        if next < 2000 {
            sidecar.begin(next, call_of(next));
        }
    }
    assert!(open.is_empty());
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
