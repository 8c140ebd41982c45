//! Queries of netsvr that are answered for the whole cluster.

use std::collections::BTreeMap;

use prost::Message;
use ringway::wire::worker::proto;
use serde_json::{Value, json};

use crate::cluster::*;
use crate::common::*;
use crate::nats::Nats;
use crate::operations::{settled, texts};

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

/// Lists in any order become lists in order.
fn lists<T>(
    items: impl IntoIterator<Item = (String, T)>,
    list: impl Fn(T) -> Vec<String>,
) -> BTreeMap<String, Vec<String>> {
    items.into_iter().map(|(name, item)| (name, sorted(list(item)))).collect()
}

fn expected<const N: usize>(items: [(&str, &[&String]); N]) -> BTreeMap<String, Vec<String>> {
    let item = |(name, ids): (&str, &[&String])| {
        (name.to_owned(), sorted(ids.iter().map(|id| (*id).clone()).collect()))
    };
    items.into_iter().map(item).collect()
}

fn ask<R: Message + Default>(node: &mut Node, cmd: u32, query: &impl Message) -> R {
    node.task.ask(cmd, query)
}

/// Members 0, 1, 2 of nodes 0, 1, 2 as `settled` makes them, and two more of node 2: one is
/// `user 0` and only in `topic-1`, the other has no customer and is only in `common`.
#[test]
fn lists_are_those_of_all_nodes_whichever_is_asked() {
    let nats = Nats::start();
    let mut nodes = cluster::<3>(&nats);
    let members = settled(&mut nodes);
    let (mut fourth, mut fifth) = (nodes[2].member(), nodes[2].member());
    nodes[0].settle(&mut fourth, "user 0", &["topic-1"]);
    nodes[1].settle(&mut fifth, "", &["common"]);
    let [a, b, c] = members.each_ref().map(|member| &member.uniq_id);
    let (d, e) = (&fourth.uniq_id, &fifth.uniq_id);
    let nothing = proto::TopicUniqIdListReq::default();
    for node in &mut nodes {
        let all: proto::UniqIdListResp = ask(node, cmd::UNIQ_ID_LIST, &nothing);
        assert_eq!(sorted(all.uniq_ids), sorted([a, b, c, d, e].map(String::clone).into()));
        let names: proto::CustomerIdListResp = ask(node, cmd::CUSTOMER_ID_LIST, &nothing);
        assert_eq!(sorted(names.customer_ids), texts(["user 0", "user 1", "user 2"]));
        let names: proto::TopicListResp = ask(node, cmd::TOPIC_LIST, &nothing);
        assert_eq!(sorted(names.topics), texts(["common", "topic-0", "topic-1", "topic-2"]));
        // In the order of the question, as often as asked.
        let mut uniq_ids = [c, d, a, c].map(String::clone).to_vec();
        uniq_ids.insert(1, "7f0000010001ffffffffffffffff".to_owned());
        uniq_ids.push("no id".to_owned());
        let online: proto::CheckOnlineResp =
            ask(node, cmd::CHECK_ONLINE, &proto::CheckOnlineReq { uniq_ids });
        assert_eq!(online.uniq_ids, [c, d, a, c].map(String::clone));

        let topics = texts(["common", "topic-1", "nobody's"]);
        let query = proto::TopicUniqIdListReq { topics: topics.clone() };
        let found: proto::TopicUniqIdListResp = ask(node, cmd::TOPIC_UNIQ_ID_LIST, &query);
        let found = lists(found.items, |item| item.uniq_ids);
        assert_eq!(found, expected([("common", &[a, b, c, e]), ("topic-1", &[b, d])]));
        let query = proto::TopicCustomerIdListReq { topics: topics.clone() };
        let found: proto::TopicCustomerIdListResp = ask(node, cmd::TOPIC_CUSTOMER_ID_LIST, &query);
        let found = lists(found.items, |item| item.customer_ids);
        let [u0, u1, u2] = [0, 1, 2].map(|n| format!("user {n}"));
        assert_eq!(found, expected([("common", &[&u0, &u1, &u2]), ("topic-1", &[&u0, &u1])]));
        // All connections of each customer, also those that are not in the topic.
        let query = proto::TopicCustomerIdToUniqIdsListReq { topics };
        let found: proto::TopicCustomerIdToUniqIdsListResp =
            ask(node, cmd::TOPIC_CUSTOMER_ID_TO_UNIQ_IDS_LIST, &query);
        let of = |topic: &str| lists(found.items[topic].items.clone(), |item| item.uniq_ids);
        assert_eq!(
            of("common"),
            expected([("user 0", &[a, d]), ("user 1", &[b]), ("user 2", &[c])])
        );
        assert_eq!(of("topic-1"), expected([("user 0", &[a, d]), ("user 1", &[b])]));
        assert_eq!(found.items.len(), 2);
    }
}

#[test]
fn counts_and_infos_are_those_of_all_nodes_whichever_is_asked() {
    let nats = Nats::start();
    let mut nodes = cluster::<3>(&nats);
    let members = settled(&mut nodes);
    let mut fourth = nodes[2].member();
    nodes[0].settle(&mut fourth, "user 0", &["common"]);
    let (a, d) = (&members[0].uniq_id, &fourth.uniq_id);
    let nothing = proto::TopicUniqIdCountReq::default();
    for node in &mut nodes {
        let count: proto::UniqIdCountResp = ask(node, cmd::UNIQ_ID_COUNT, &nothing);
        assert_eq!(count.count, 4);
        let count: proto::CustomerIdCountResp = ask(node, cmd::CUSTOMER_ID_COUNT, &nothing);
        assert_eq!(count.count, 3, "a customer with connections on two nodes is one");
        let count: proto::TopicCountResp = ask(node, cmd::TOPIC_COUNT, &nothing);
        assert_eq!(count.count, 4);
        let topics = texts(["common", "topic-1"]);
        let query = proto::TopicUniqIdCountReq { topics: topics.clone(), count_all: false };
        let found: proto::TopicUniqIdCountResp = ask(node, cmd::TOPIC_UNIQ_ID_COUNT, &query);
        assert_eq!(found.items, [("common".to_owned(), 4), ("topic-1".to_owned(), 1)].into());
        let query = proto::TopicCustomerIdCountReq { topics: Vec::new(), count_all: true };
        let found: proto::TopicCustomerIdCountResp =
            ask(node, cmd::TOPIC_CUSTOMER_ID_COUNT, &query);
        assert_eq!((found.items["common"], found.items["topic-2"], found.items.len()), (3, 1, 4));
        let query = proto::ConnInfoReq {
            uniq_ids: vec![a.clone(), d.clone(), a.clone()],
            req_customer_id: true,
            req_topic: true,
            ..Default::default()
        };
        let found: proto::ConnInfoResp = ask(node, cmd::CONN_INFO, &query);
        assert_eq!(found.items.len(), 2);
        assert_eq!(found.items[d].customer_id, "user 0");
        assert_eq!(sorted(found.items[a].topics.clone()), texts(["common", "topic-0"]));
        let query = proto::ConnInfoByCustomerIdReq {
            customer_ids: texts(["user 0", "user 2", "nobody"]),
            req_uniq_id: true,
            ..Default::default()
        };
        let found: proto::ConnInfoByCustomerIdResp =
            ask(node, cmd::CONN_INFO_BY_CUSTOMER_ID, &query);
        let ids = lists(found.items, |user| user.items.into_iter().map(|i| i.uniq_id).collect());
        assert_eq!(ids, expected([("user 0", &[a, d]), ("user 2", &[&members[2].uniq_id])]));
    }
}

#[test]
fn a_query_sees_what_its_connection_has_done_on_other_nodes() {
    let nats = Nats::start();
    let mut nodes = cluster::<2>(&nats);
    let member = nodes[1].member();
    for round in 0..50 {
        let topics = vec![format!("round {round}")];
        let uniq_id = member.uniq_id.clone();
        let data = Default::default();
        let subscribe = proto::TopicSubscribe { uniq_id, topics: topics.clone(), data };
        nodes[0].send(cmd::TOPIC_SUBSCRIBE, &subscribe);
        let query = proto::TopicUniqIdCountReq { topics: topics.clone(), count_all: false };
        let found: proto::TopicUniqIdCountResp =
            ask(&mut nodes[0], cmd::TOPIC_UNIQ_ID_COUNT, &query);
        assert_eq!(found.items, [(topics[0].clone(), 1)].into());
        // Through the bucket of the topic, not the subject of the node.
        nodes[0].send(cmd::TOPIC_DELETE, &proto::TopicDelete { topics, data: Default::default() });
        let found: proto::TopicUniqIdCountResp =
            ask(&mut nodes[0], cmd::TOPIC_UNIQ_ID_COUNT, &query);
        assert_eq!(found.items, Default::default(), "round {round}");
    }
}

/// Questions and answers that are larger than what NATS takes in one message.
#[test]
fn long_lists_are_complete() {
    let nats = Nats::start();
    let mut nodes = cluster::<2>(&nats);
    let mut member = nodes[1].member();
    let topics: Vec<String> = (0..3000).map(|n| format!("{n:0600}")).collect();
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    nodes[1].settle(&mut member, "user", &names);
    let nothing = proto::TopicUniqIdListReq::default();
    let found: proto::TopicListResp = ask(&mut nodes[0], cmd::TOPIC_LIST, &nothing);
    assert!(sorted(found.topics) == topics);
    let query = proto::TopicUniqIdListReq { topics: topics.clone() };
    let found: proto::TopicUniqIdListResp = ask(&mut nodes[0], cmd::TOPIC_UNIQ_ID_LIST, &query);
    assert_eq!(found.items.len(), topics.len());
    assert!(found.items.values().all(|item| item.uniq_ids == [member.uniq_id.clone()]));
}

#[test]
fn a_node_that_is_silent_is_left_out_and_named() {
    let nats = Nats::start();
    let mut nodes = cluster::<3>(&nats);
    let members = settled(&mut nodes);
    nodes[2].binary.freeze(true);
    let nothing = proto::TopicUniqIdListReq::default();
    let all: proto::UniqIdListResp = ask(&mut nodes[0], cmd::UNIQ_ID_LIST, &nothing);
    let there = members[..2].iter().map(|member| member.uniq_id.clone()).collect();
    assert_eq!(sorted(all.uniq_ids), sorted(there));
    let said = "nodes of the mesh did not answer a query";
    nodes[0].binary.await_log(said);
    let log = nodes[0].binary.log();
    let is_it = |line: &&Value| line["message"].as_str().is_some_and(|t| t.starts_with(said));
    assert_eq!(log.iter().find(is_it).expect("just awaited")["nodes"], json!("[3]"));
    nodes[2].binary.freeze(false);
    wait_until("it answers again", || {
        let all: proto::UniqIdListResp = ask(&mut nodes[0], cmd::UNIQ_ID_LIST, &nothing);
        all.uniq_ids.len() == 3
    });
}
