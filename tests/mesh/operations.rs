//! Every operation from each node to each node.

use ringway::hub::mesh::{Bucket, Space};
use ringway::wire::worker::proto;
use serde_json::{Value, json};

use crate::cluster::*;
use crate::common::*;
use crate::im::{self, Im};
use crate::nats::Nats;

pub fn texts<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).into()
}

/// A member on each node: customer `user <n>`, topics `topic <n>` and `common`. Every node knows
/// what the others want.
pub fn settled<const N: usize>(nodes: &mut [Node; N]) -> [Member; N] {
    let mut buckets = vec![Bucket::of(Space::Topics, "common")];
    let members = std::array::from_fn(|n| {
        let mut member = nodes[n].member();
        let (user, topic) = (format!("user {n}"), format!("topic-{n}"));
        // From another node, which knows the client by its uniqId alone.
        nodes[(n + 1) % N].settle(&mut member, &user, &[&topic, "common"]);
        buckets.extend([Bucket::of(Space::Users, &user), Bucket::of(Space::Topics, &topic)]);
        member
    });
    buckets.sort_unstable();
    buckets.dedup();
    assert_eq!(buckets.len(), 1 + 2 * N, "the names are chosen so");
    nodes.iter().for_each(|node| await_wanted(node, 2 * (N as u64 - 1) + 1));
    members
}

#[test]
fn netsvr_commands_reach_every_node_from_every_node_once() {
    let nats = Nats::start();
    let mut nodes = cluster::<3>(&nats);
    let mut members = settled(&mut nodes);
    let ids: Vec<String> = members.iter().map(|member| member.uniq_id.clone()).collect();
    let mut expected = Vec::new();
    for (s, node) in nodes.iter_mut().enumerate() {
        let mut say = |what: &str| {
            expected.push(format!("{what} {s}"));
            expected.last().cloned().expect("just pushed").into_bytes().into()
        };
        let data = say("broadcast");
        node.send(cmd::BROADCAST, &proto::Broadcast { data });
        let data = say("multicast");
        node.send(cmd::MULTICAST, &proto::Multicast { uniq_ids: ids.clone(), data });
        let data = say("topic");
        let topics = texts(["common"]);
        node.send(cmd::TOPIC_PUBLISH, &proto::TopicPublish { topics, data });
        let data = say("topics");
        let topics = texts(["topic-0", "topic-1", "topic-2"]);
        node.send(cmd::TOPIC_PUBLISH, &proto::TopicPublish { topics, data });
        let data = say("customers");
        let customer_ids = texts(["user 0", "user 1", "user 2"]);
        let message = proto::MulticastByCustomerId { customer_ids, data };
        node.send(cmd::MULTICAST_BY_CUSTOMER_ID, &message);
        let data: bytes::Bytes = say("customer");
        for t in 0..3 {
            let (customer_id, data) = (format!("user {t}"), data.clone());
            let message = proto::SingleCastByCustomerId { customer_id, data };
            node.send(cmd::SINGLE_CAST_BY_CUSTOMER_ID, &message);
        }
        let data: bytes::Bytes = say("single");
        ids.iter().for_each(|id| node.task.single_cast(id, data.to_vec()));
    }
    expected.sort();
    for member in &mut members {
        let mut heard: Vec<String> =
            (0..expected.len()).map(|_| member.client.frame().text().to_owned()).collect();
        heard.sort();
        assert_eq!(heard, expected);
    }
    // A copy would have come before what follows it on the same way.
    for node in &mut nodes {
        node.send(cmd::BROADCAST, &proto::Broadcast { data: "end".into() });
        ids.iter().for_each(|id| node.task.single_cast(id, "end"));
        let topics = texts(["common"]);
        node.send(cmd::TOPIC_PUBLISH, &proto::TopicPublish { topics, data: "end".into() });
    }
    for member in &mut members {
        (0..9).for_each(|_| assert_eq!(member.client.frame().text(), "end"));
    }
}

#[test]
fn connections_are_changed_and_closed_from_every_node() {
    let nats = Nats::start();
    let mut nodes = cluster::<3>(&nats);
    for s in 0..3 {
        for t in 0..3 {
            let mut member = nodes[t].member();
            let uniq_id = member.uniq_id.clone();
            let data = "in".into();
            let subscribe =
                proto::TopicSubscribe { uniq_id: uniq_id.clone(), topics: texts(["here"]), data };
            nodes[s].send(cmd::TOPIC_SUBSCRIBE, &subscribe);
            assert_eq!(member.client.frame().text(), "in");
            let uniq_ids = vec![uniq_id];
            let data = "out".into();
            if (s + t) % 2 == 0 {
                nodes[s].send(cmd::FORCE_OFFLINE, &proto::ForceOffline { uniq_ids, data });
                assert_eq!(member.client.frame().text(), "out");
                assert_eq!(member.client.frame().close(), (1008, "forceOffline"));
            } else {
                let kick = proto::ForceOfflineGuest { uniq_ids, delay: 1, data };
                nodes[s].send(cmd::FORCE_OFFLINE_GUEST, &kick);
                assert_eq!(member.client.frame().text(), "out");
                assert_eq!(member.client.frame().close(), (1008, "forceOfflineGuest"));
            }
        }
    }
    let mut members = settled(&mut nodes);
    let topics = texts(["common", "nobody's"]);
    nodes[1].send(cmd::TOPIC_DELETE, &proto::TopicDelete { topics, data: "ended".into() });
    for (t, member) in members.iter_mut().enumerate() {
        assert_eq!(member.client.frame().text(), "ended");
        let customer_ids = vec![format!("user {t}")];
        let kick = proto::ForceOfflineByCustomerId { customer_ids, data: Default::default() };
        nodes[(t + 2) % 3].send(cmd::FORCE_OFFLINE_BY_CUSTOMER_ID, &kick);
        assert_eq!(member.client.frame().close(), (1008, "forceOfflineByCustomerId"));
    }
}

#[test]
fn the_connmix_api_works_on_any_node_for_connections_of_any_node() {
    let nats = Nats::start();
    let mut nodes = cluster::<3>(&nats);
    let mut members: Vec<Member> = nodes.iter_mut().map(Node::member).collect();
    for (s, node) in nodes.iter().enumerate() {
        let known = node.http("GET", "/v1/nodes", &Value::Null);
        let listed = known["nodes"].as_array().expect("a list");
        let mut ids: Vec<u64> = listed.iter().filter_map(|node| node["id"].as_u64()).collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3], "{known}");
        for other in listed {
            let number = other["id"].as_u64().expect("a number") as usize;
            let address = nodes[number - 1].binary.address(API).to_string();
            assert_eq!(other["api_server"], json!(address));
        }
        for member in &mut members {
            let send = json!({ "c": member.client_id.to_string(), "d": format!("from {s}") });
            let answer = node.http("POST", "/v1/mesh/send", &send);
            assert_eq!(answer["r"], json!({ "s": true }), "{answer}");
            assert_eq!(member.client.frame().text(), format!("from {s}"));
        }
    }
    // Whom its own node tells that a subscribe is done elsewhere reaches the new member.
    for (s, node) in nodes.iter().enumerate() {
        for (t, member) in members.iter_mut().enumerate() {
            let channel = format!("channel-{s}-{t}");
            let mut peer = Client::open(node.binary.address(API), "/ws/v1");
            let call = json!({ "i": "1", "m": "conn.call", "p": {
                "c": member.client_id.to_string(), "f": "subscribe", "a": [channel]
            } });
            peer.send_text(&call.to_string());
            let answer: Value = serde_json::from_str(peer.frame().text()).expect("JSON");
            assert_eq!(answer["r"], json!({ "s": true }), "{answer}");
            assert_eq!(node.publish(&channel, "welcome"), (1, 0), "from {s} to {t}");
            assert_eq!(member.client.frame().text(), "welcome");
        }
    }
    let nobody = json!({ "c": (9_i64 << 12 | 1 << 40).to_string(), "d": "x" });
    let answer = nodes[0].http("POST", "/v1/mesh/send", &nobody);
    assert!(answer["E"]["c"].is_u64(), "{answer}");
}

#[test]
fn a_publish_returns_the_sum_over_all_nodes() {
    let nats = Nats::start();
    let mut nodes = cluster::<3>(&nats);
    let mut members = settled(&mut nodes);
    for (s, node) in nodes.iter().enumerate() {
        assert_eq!(node.publish("common", &format!("from {s}")), (3, 0));
        assert_eq!(node.publish("nobody's", "unheard"), (0, 0));
        for t in 0..3 {
            assert_eq!(node.publish(&format!("topic-{t}"), "one"), (1, 0));
        }
    }
    for member in &mut members {
        let mut heard: Vec<String> =
            (0..6).map(|_| member.client.frame().text().to_owned()).collect();
        heard.sort();
        assert_eq!(heard, ["from 0", "from 1", "from 2", "one", "one", "one"]);
    }
}

#[test]
fn rooms_of_im_are_rooms_of_the_cluster() {
    let nats = Nats::start();
    let nodes = cluster::<3>(&nats);
    let mut speakers: Vec<Im> = nodes
        .iter()
        .enumerate()
        .map(|(n, node)| {
            let mut speaker = Im::of(connect(node.binary.address(IM)));
            speaker.log_in(&format!("speaker {n}"));
            speaker.join("lobby");
            speaker
        })
        .collect();
    nodes.iter().for_each(|node| {
        wait_until("the others' members", || node.metric("ringway_mesh_wanted_buckets") >= 3);
    });
    for round in 0..20 {
        for (n, speaker) in speakers.iter_mut().enumerate() {
            speaker.say("lobby", &format!("{n} says {round}"));
        }
    }
    for (own, speaker) in speakers.iter_mut().enumerate() {
        let heard = speaker.messages("lobby", 40);
        for other in (0..3).filter(|other| *other != own) {
            let from = format!("speaker {other}");
            let said: Vec<_> = heard.iter().filter(|(who, _)| *who == from).collect();
            let expected: Vec<String> =
                (0..20).map(|round| format!("{other} says {round}")).collect();
            let said: Vec<&String> = said.into_iter().map(|(_, text)| text).collect();
            assert_eq!(said, expected.iter().collect::<Vec<_>>());
        }
    }
    // What a backend publishes reaches them too, once.
    assert_eq!(im::NOTIFY, 8);
    nodes[2].publish("cr:lobby", "from a backend");
    for speaker in &mut speakers {
        let heard = speaker.messages("lobby", 1);
        assert_eq!(heard[0].1, "from a backend");
    }
}
