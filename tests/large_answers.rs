//! Questions of backends about very much, over real sockets: other clients are served meanwhile,
//! and what waits for those who do not read has its bound.
//!
//! The gateway is a process of its own, whose memory is looked at from outside. Nothing depends on
//! how fast the machine is.

mod common;

#[path = "faults/binary.rs"]
mod binary;

use std::net::TcpStream;

use prost::Message;
use ringway::wire::worker::proto;
use socket2::SockRef;

use crate::binary::Binary;
use crate::common::*;

/// Topics of one connection.
const TOPICS: usize = 100_000;
/// Topics in a list of 4 MB, and the bytes of the name of each: a list is long and soon made.
const LONG_TOPICS: usize = 4000;
const LONG_NAME_BYTES: usize = 1000;
/// Bytes of names in one command.
const BATCH_BYTES: usize = 400_000;
/// Members of one topic, on two shards: more than one of them finds in a turn.
const MEMBERS: usize = 6000;
/// Echoes while answers are made; after some 150 all have their bytes.
const ROUNDS: usize = 200;
/// What answers may cost on two shards: those that wait to be written, and one that is made.
const GROWTH_KIB_MAX: u64 = 2 * (64 << 10) + (96 << 10);

/// A gateway with a client that is in so many topics, with names of so many bytes.
fn many_topics(count: usize, name_bytes: usize) -> (Binary, Client) {
    let server = Binary::start("");
    let mut worker = server.worker(1);
    let client = server.client();
    let uniq_id = worker.opened();
    let mut task = server.task();
    let topics: Vec<String> = (0..count).map(|number| format!("{number:0>name_bytes$}")).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    for topics in topics.chunks(BATCH_BYTES / name_bytes) {
        task.subscribe(&uniq_id, topics);
    }
    let answer: proto::TopicCountResp = task.ask(cmd::TOPIC_COUNT, &());
    assert_eq!(answer.count as usize, count);
    (server, client)
}

/// A backend that asks so often and reads nothing.
fn asker(server: &Binary, command: u32, body: &impl Message, count: usize) -> TcpStream {
    let mut backend = server.task();
    SockRef::from(&backend.socket).set_recv_buffer_size(2048).expect("a TCP socket");
    backend.write(&business_frame(command, &body.encode_to_vec()).repeat(count));
    backend.socket
}

/// Clients of the echo protocol, on all shards.
fn echo_clients(server: &Binary) -> Vec<Client> {
    (0..4).map(|_| Client::open(server.address(CLIENTS), "/echo")).collect()
}

/// Each of them says something and reads the answer.
fn echo(clients: &mut [Client]) {
    clients.iter_mut().for_each(|client| client.send_text("hello"));
    clients.iter_mut().for_each(|client| assert_eq!(client.frame().text(), "hello"));
}

#[test]
fn lists_of_all_topics_for_backends_that_do_not_read() {
    let (server, _client) = many_topics(LONG_TOPICS, LONG_NAME_BYTES);
    let before = server.rss_kib();
    let mut clients = echo_clients(&server);
    let open = |_| asker(&server, cmd::TOPIC_LIST, &(), 64);
    let askers: Vec<TcpStream> = (0..4).map(open).collect();
    let (mut stalled, mut peak) = (false, 0);
    // However long that takes: each echo has its own limit of time.
    for _ in 0..ROUNDS {
        echo(&mut clients);
        peak = peak.max(server.rss_kib());
        stalled |= server.metric("ringway_connections_stalled", "") > 0;
    }
    assert!(stalled, "no answer waits to be read");
    let grown = peak.saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
    // Who leaves is not answered.
    drop((askers, clients));
    wait_until("them to be gone", || server.metric("ringway_connections", "") == 1);
}

/// One row of an answer that is longer than a turn allows: what one connection is subscribed to.
#[test]
fn what_one_connection_has_that_has_very_much() {
    let (server, _client) = many_topics(TOPICS, 19);
    let mut clients = echo_clients(&server);
    let mut task = server.task();
    let all: proto::UniqIdListResp = task.ask(cmd::UNIQ_ID_LIST, &());
    let question = proto::ConnInfoReq {
        uniq_ids: all.uniq_ids.clone(),
        req_topic: true,
        ..Default::default()
    };
    task.send(cmd::CONN_INFO, &question);
    let mut rounds = 0;
    wait_until("the answer", || {
        echo(&mut clients);
        rounds += 1;
        task.has_input()
    });
    let answer: proto::ConnInfoResp = task.expect(cmd::CONN_INFO);
    let mut topics = answer.items[&all.uniq_ids[0]].topics.clone();
    topics.sort_unstable();
    topics.dedup();
    assert_eq!(topics.len(), TOPICS);
    assert!(rounds >= 3, "{rounds} echoes while the answer was made");
}

/// The same for the members of one topic and the connections of one user.
#[test]
fn who_is_in_a_topic_that_very_many_are_in() {
    let server = Binary::start("");
    let mut worker = server.worker(1);
    let mut task = server.task();
    let clients: Vec<Client> = (0..MEMBERS).map(|_| server.client()).collect();
    let mut members: Vec<String> = (0..MEMBERS).map(|_| worker.opened()).collect();
    for uniq_id in &members {
        let change = proto::ConnInfoUpdate {
            uniq_id: uniq_id.clone(),
            new_customer_id: "everybody".to_owned(),
            new_topics: vec!["all".to_owned()],
            ..Default::default()
        };
        task.send(cmd::CONN_INFO_UPDATE, &change);
    }
    let names = proto::TopicUniqIdListReq { topics: vec!["all".to_owned()] };
    let mut answer: proto::TopicUniqIdListResp = task.ask(cmd::TOPIC_UNIQ_ID_LIST, &names);
    let found = &mut answer.items.get_mut("all").expect("the topic").uniq_ids;
    found.sort_unstable();
    members.sort_unstable();
    assert!(*found == members, "{} of {MEMBERS} members", found.len());
    let user = proto::ConnInfoByCustomerIdReq {
        customer_ids: vec!["everybody".to_owned()],
        req_uniq_id: true,
        req_topic: true,
        ..Default::default()
    };
    let answer: proto::ConnInfoByCustomerIdResp = task.ask(cmd::CONN_INFO_BY_CUSTOMER_ID, &user);
    let items = &answer.items["everybody"].items;
    let mut found: Vec<String> = items.iter().map(|item| item.uniq_id.clone()).collect();
    found.sort_unstable();
    assert!(found == members, "{} of {MEMBERS} connections", found.len());
    assert!(items.iter().all(|item| item.topics == ["all"]));
    let question = proto::TopicCustomerIdToUniqIdsListReq { topics: vec!["all".to_owned()] };
    let answer: proto::TopicCustomerIdToUniqIdsListResp =
        task.ask(cmd::TOPIC_CUSTOMER_ID_TO_UNIQ_IDS_LIST, &question);
    let users = &answer.items["all"].items;
    assert_eq!((users.len(), users["everybody"].uniq_ids.len()), (1, MEMBERS));
    drop(clients);
}
