//! Pushes, questions and kicks of backends: xxim's own (section 6) and netsvr's.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use ringway::config::all::Config;
use ringway::protocols::xxim::config::push::XximPushService;
use ringway::protocols::xxim::wire::proto::{
    GetUserConnReq, GetUserConnResp, KickUserConnReq, SendMsgReq, SendMsgResp,
};
use ringway::wire::worker::{Cmd, proto as netsvr};

use crate::common::Server;
use crate::support::{Xxim, config};
use crate::vectors::vector;

fn server() -> (Server, SocketAddr) {
    server_with(|_| {})
}

fn server_with(change: impl FnOnce(&mut Config)) -> (Server, SocketAddr) {
    let mut config = config("http://127.0.0.1:9");
    change(&mut config);
    config.xxim.v1_notice_wrap = true;
    config.xxim_upstreams.push = Some(XximPushService {
        bind: "127.0.0.1:0".parse().expect("an address"),
        secret: String::new(),
        allow_from: Vec::new(),
        tls: None,
        allow_broadcast: false,
        cluster: false,
        expose_secrets: false,
        request_bytes_max: 1 << 20,
        bounds: Default::default(),
    });
    let server = Server::start(config);
    let address = server.gateway().push_address().expect("the push service listens");
    (server, address)
}

/// One request of the push service over HTTP.
pub fn post(address: SocketAddr, name: &str, body: &[u8]) -> Bytes {
    let mut socket = crate::common::connect(address);
    let head = format!(
        "POST /v1/internal/conn/{name} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
         Content-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(&[head.as_bytes(), body].concat()).expect("the gateway reads");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&answer[..end]);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Bytes::from(answer.split_off(end + 4))
}

pub fn filter(users: &[&str], platforms: &[&str], devices: &[&str]) -> GetUserConnReq {
    let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    GetUserConnReq { user_ids: list(users), platforms: list(platforms), devices: list(devices) }
}

pub fn send(address: SocketAddr, filter: GetUserConnReq, event: i32, data: &[u8]) -> SendMsgResp {
    let data = Bytes::copy_from_slice(data);
    let request = SendMsgReq { get_user_conn_req: Some(filter), event, data };
    SendMsgResp::decode(post(address, "sendMsg", &request.encode_to_vec())).expect("a SendMsgResp")
}

#[test]
fn the_vectors_of_a_notice_reach_plain_and_encrypted_clients_of_both_documents() {
    let (server, address) = server();
    let mut plain = Xxim::open(&server);
    plain.send(&vector("V06"));
    assert_eq!(plain.receive(), vector("V07"));
    plain.send(&vector("V10"));
    assert_eq!(plain.receive(), vector("V11"));
    let sent = SendMsgResp::decode(post(address, "sendMsg", &vector("V22"))).expect("an answer");
    assert_eq!(sent.success_conn_params.len(), 1);
    let named = &sent.success_conn_params[0];
    assert_eq!((&*named.user_id, &*named.device_id, &*named.token), ("test123456", "xxxx", ""));
    assert_eq!(plain.receive(), vector("V21"));
    // The same user on another device, under keys: the raw ciphertext is E07.
    let mut sealed = Xxim::open(&server);
    for (request, response) in [("E01", "E02"), ("E03", "E04")] {
        sealed.send_raw(&vector(request));
        assert_eq!(sealed.receive(), vector(response));
    }
    let mut request = SendMsgReq::decode(vector("V22")).expect("a request");
    request.get_user_conn_req = Some(filter(&["test123456"], &["android"], &[]));
    post(address, "sendMsg", &request.encode_to_vec());
    assert_eq!(sealed.receive(), vector("E07"));
    let mut old = Xxim::open(&server);
    for (request, response) in [("V02", "V03"), ("V04", "V05")] {
        old.send(&vector(request));
        assert_eq!(old.receive(), vector(response));
    }
    request.get_user_conn_req = Some(filter(&[], &["ios"], &[]));
    post(address, "sendMsg", &request.encode_to_vec());
    assert_eq!(old.receive(), vector("V21v1"));
    post(address, "kickUserConn", &vector("V22k"));
    plain.expect_close("C07");
    sealed.client.write(&[0x82, 0x80, 0, 0, 0, 0]);
    sealed.expect_close("C06");
}

#[test]
fn selection_is_by_every_list_and_results_come_from_all_shards() {
    let (server, address) = server();
    let mut clients: Vec<Xxim> =
        (0..20).map(|n| Xxim::login(&server, "ann", &format!("d{n}"))).collect();
    let mut bob = Xxim::login(&server, "bob", "d1");
    let stranger = Xxim::open(&server);
    let sent = send(address, filter(&["ann"], &["web"], &[]), 0, b"all");
    assert_eq!((sent.success_conn_params.len(), sent.failed_conn_params.len()), (20, 0));
    let sent = send(address, filter(&["ann", "eve"], &[], &["d1", "d2"]), 0, b"two");
    assert_eq!(sent.success_conn_params.len(), 2);
    let sent = send(address, filter(&["ann"], &["ios"], &[]), 0, b"none");
    assert_eq!(sent.success_conn_params.len(), 0);
    let sent = send(address, filter(&[], &[], &["d1"]), 0, b"by device");
    assert_eq!(sent.success_conn_params.len(), 2);
    for (n, client) in clients.iter_mut().enumerate() {
        let mut expected = vec!["all"];
        expected.extend((n == 1 || n == 2).then_some("two"));
        expected.extend((n == 1).then_some("by device"));
        for text in expected {
            assert_eq!(client.push().data, text);
        }
        client.keep_alive();
    }
    assert_eq!(bob.push().data, "by device");
    let found = post(address, "getUserConn", &filter(&["ann"], &[], &[]).encode_to_vec());
    let found = GetUserConnResp::decode(found).expect("an answer").conn_params;
    let devices: std::collections::BTreeSet<_> = found.iter().map(|c| &*c.device_id).collect();
    assert_eq!((found.len(), devices.len()), (20, 20));
    assert!(found.iter().all(|conn| conn.timestamp > 1_600_000_000_000));
    drop(stranger);
    let kick = KickUserConnReq { get_user_conn_req: Some(filter(&["ann"], &[], &[])) };
    post(address, "kickUserConn", &kick.encode_to_vec());
    clients.iter_mut().for_each(|client| client.expect_close("C07"));
    bob.keep_alive();
}

#[test]
fn who_is_kicked_is_nowhere_although_it_does_not_answer() {
    let (server, address) = server_with(|config| {
        // Longer than this test may take.
        config.runtime.close_timeout = Duration::from_secs(60);
    });
    let mut clients: Vec<Xxim> =
        (0..8).map(|n| Xxim::login(&server, "ann", &format!("d{n}"))).collect();
    let kick = KickUserConnReq { get_user_conn_req: Some(filter(&["ann"], &[], &[])) };
    post(address, "kickUserConn", &kick.encode_to_vec());
    let found = post(address, "getUserConn", &filter(&["ann"], &[], &[]).encode_to_vec());
    assert_eq!(GetUserConnResp::decode(found).expect("an answer").conn_params, []);
    let sent = send(address, filter(&["ann"], &[], &[]), 0, b"lost");
    assert_eq!(sent.success_conn_params, []);
    assert_eq!(server.task().online_count(), 0);
    // The login is free for others.
    let mut next = Xxim::login(&server, "ann", "d0");
    next.keep_alive();
    clients.iter_mut().for_each(|client| client.expect_close("C07"));
    next.keep_alive();
}

#[test]
fn pushes_keep_their_order_for_encrypted_clients_beyond_what_a_turn_encrypts() {
    const PUSHES: u32 = 300;
    let (server, _) = server();
    let mut sealed = Xxim::encrypted(&server);
    sealed.set_user("ann");
    let mut plain = Xxim::login(&server, "ann", "plain");
    let mut task = server.task();
    let mut payload = vec![b'x'; 2000];
    for number in 0..PUSHES {
        payload[..4].copy_from_slice(&number.to_be_bytes());
        let data = Bytes::copy_from_slice(&payload);
        let cast = netsvr::SingleCastByCustomerId { customer_id: "ann".into(), data };
        task.send(Cmd::SingleCastByCustomerId.number(), &cast);
    }
    for client in [&mut sealed, &mut plain] {
        for number in 0..PUSHES {
            let push = client.push();
            assert_eq!((push.event, &push.data[..4]), (0, &number.to_be_bytes()[..]));
        }
        client.keep_alive();
    }
}

#[test]
fn pushes_before_and_after_a_change_of_keys_are_read_with_the_keys_of_their_time() {
    let (server, _) = server();
    let mut client = Xxim::encrypted(&server);
    client.set_user("ann");
    let mut task = server.task();
    let mut cast = |text: &str| {
        let data = Bytes::copy_from_slice(text.as_bytes());
        let cast = netsvr::SingleCastByCustomerId { customer_id: "ann".into(), data };
        task.send(Cmd::SingleCastByCustomerId.number(), &cast);
    };
    cast("sealed");
    assert_eq!(client.push().data, "sealed");
    client.send(&vector("E08p"));
    client.cipher = None;
    assert_eq!(client.receive(), vector("E09"));
    cast("open");
    assert_eq!(client.push().data, "open");
}
