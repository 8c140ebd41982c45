//! What a client says of itself reaches no backend (sections 4.3 and 4.4), however it spells it and
//! whatever the way: both HTTP modes, gRPC, workers, over a WebSocket and over HTTP.

use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use prost::Message;
use ringway::protocols::xxim::config::upstream::{XximMode, XximRoute, XximTarget};
use ringway::protocols::xxim::wire::proto as pb;
use ringway::wire::worker::{Cmd, proto as netsvr};

use crate::common::{Client, PATIENCE, Server};
use crate::support::{Xxim, address, config};
use crate::{grpc_server, upstream};

/// Methods with the field in which backends look for the identity.
const METHODS: [(&str, u8); 5] = [
    ("/v1/relation/getFriendList", 1),
    ("/v1/msg/sendMsgList", 11),
    ("/v1/msg/batchGetConvSeq", 11),
    ("/v1/notice/ackNoticeData", 11),
    ("/v1/user/searchUsersByKeyword", 1),
];
/// What else is in a request: field 101, which nobody knows.
const REST: &[u8] = b"\xaa\x06\x04rest";

/// Requests with a commonReq in field `tag`: once, twice, with key and length longer than needed,
/// cut into parts that a decoder merges, beside fields of other types.
fn smuggled(tag: u8) -> Vec<Vec<u8>> {
    let victim =
        pb::CommonReq { user_id: "victim".into(), token: "victims".into(), ..Default::default() };
    let (whole, key) = (victim.encode_to_vec(), tag << 3 | 2);
    let (len, part) = (whole.len() as u8, 8);
    let field = [&[key, len][..], &whole].concat();
    let long_key = [&[key | 0x80, 0, len][..], &whole].concat();
    let long_len = [&[key, len | 0x80, 0][..], &whole].concat();
    let parts = [
        &[key, part][..],
        &whole[..usize::from(part)],
        &[key, len - part],
        &whole[usize::from(part)..],
    ]
    .concat();
    let varint = [&[tag << 3, 5][..], &field].concat();
    let twice = [&field[..], &field].concat();
    let all = [field, twice, long_key, long_len, parts, varint];
    all.into_iter().flat_map(|one| [[&one, REST].concat(), [REST, &one].concat()]).collect()
}

fn clean(body: &[u8], what: &str) {
    let has = |text: &[u8]| body.windows(text.len()).any(|window| window == text);
    assert!(!has(b"victim"), "{what}: {body:?}");
    assert!(has(b"rest"), "{what}: the rest is missing: {body:?}");
}

/// An upstream of this kind, and the bodies of what it is asked.
fn backend(mode: XximMode, runtime: &tokio::runtime::Runtime) -> (String, Receiver<Vec<u8>>) {
    let (sender, bodies) = channel();
    if mode != XximMode::Grpc {
        let url = upstream::answering(move |call| {
            let _ = sender.send(call.body.clone());
            Vec::new()
        });
        return (url, bodies);
    }
    let routes = axum::Router::new().fallback(move |body: Bytes| {
        // Behind flag and length.
        let _ = sender.send(body[5..].to_vec());
        let headers = [("content-type", "application/grpc"), ("grpc-status", "0")];
        async move { (headers, Bytes::from_static(&[0; 5])) }
    });
    (grpc_server::serve(runtime, routes), bodies)
}

fn http_request(method: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("POST {method} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn no_common_req_of_a_client_reaches_an_upstream() {
    let runtime = grpc_server::runtime();
    for mode in [XximMode::Raw, XximMode::Envelope, XximMode::Grpc] {
        let (url, bodies) = backend(mode, &runtime);
        let mut config = config(&url);
        config.xxim_upstreams.http_api = true;
        config.xxim_upstreams.upstreams[0].mode = mode;
        let all = XximRoute::new("/v1/", XximTarget::Upstream(0), PATIENCE);
        config.xxim_upstreams.routes = vec![all];
        let server = Server::start(config);
        let mut client = Xxim::login(&server, "ann", "d");
        let mut http = Client::tcp(address(&server));
        for (method, tag) in METHODS {
            for data in smuggled(tag) {
                let what = format!("{mode:?} {method} {data:?}");
                client.ask("r", method, &data);
                let body = bodies.recv_timeout(PATIENCE).expect("a call");
                clean(&body, &what);
                let common = pb::CommonReq {
                    user_id: "ann".into(),
                    token: "t".into(),
                    data: data.clone().into(),
                    ..Default::default()
                };
                http.write(&http_request(method, &common.encode_to_vec()));
                let body = bodies.recv_timeout(PATIENCE).expect("a call");
                clean(&body, &format!("over HTTP: {what}"));
                let head = http.head();
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                http.bytes(length.and_then(|text| text.parse().ok()).expect("a length"));
            }
        }
    }
}

#[test]
fn nor_a_worker() {
    let mut config = config("http://127.0.0.1:9");
    config.xxim_upstreams.routes = vec![XximRoute::new("/v1/", XximTarget::Worker, PATIENCE)];
    let server = Server::start(config);
    let mut worker = server.worker(4);
    let mut client = Xxim::login(&server, "ann", "d");
    for (method, tag) in METHODS {
        for data in smuggled(tag) {
            assert_eq!(client.ask("r", method, &data).code, 0);
            let transfer: netsvr::Transfer = worker.expect(Cmd::Transfer.number());
            clean(&transfer.data, method);
        }
    }
}

/// Document 1 has the identity and the messages elsewhere: both places are cleared, and in mode
/// `envelope` backends get the layout of document 2 as well.
#[test]
fn send_msg_list_of_document_1_is_that_of_document_2_in_both_modes() {
    let runtime = grpc_server::runtime();
    for mode in [XximMode::Raw, XximMode::Envelope] {
        let (url, bodies) = backend(mode, &runtime);
        let mut config = config(&url);
        config.xxim_upstreams.upstreams[0].mode = mode;
        let server = Server::start(config);
        let mut client = Xxim::login(&server, "ann", "d");
        let victim = pb::CommonReq { user_id: "victim".into(), ..Default::default() };
        let message = pb::MsgData { client_msg_id: "m1".into(), ..Default::default() };
        let request = pb::SendMsgListReqV1 {
            common_req: Some(victim.clone()),
            msg_data_list: vec![message.clone()],
            deliver_after: Some(7),
        };
        let late = pb::SendMsgListReq { common_req: Some(victim), ..Default::default() };
        let data = [request.encode_to_vec(), late.encode_to_vec()].concat();
        client.ask("r", "/v1/msg/sendMsgList", &data);
        let body = bodies.recv_timeout(PATIENCE).expect("a call");
        let inner = match mode {
            XximMode::Envelope => pb::CommonReq::decode(&*body).expect("a CommonReq").data,
            _ => Bytes::from(body),
        };
        let read = pb::SendMsgListReq::decode(inner).expect("a SendMsgListReq");
        assert_eq!((read.msg_data_list, read.deliver_after), (vec![message], Some(7)));
        let user = read.common_req.map(|own| own.user_id);
        let expected = (mode == XximMode::Raw).then(|| "ann".to_owned());
        assert_eq!(user, expected, "{mode:?}");
    }
}
