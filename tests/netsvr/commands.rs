//! What business processes make of clients: every row of specification sections 6.0 and 6.3 to 6.5,
//! with a client on each shard. ForceOffline is in `closing`.

use ringway::config::model::MessageType;
use ringway::protocols::netsvr::wire::Generation;
use ringway::wire::worker::proto;

use crate::common::*;
use crate::support::*;

/// Nobody was sent anything.
const NOTHING: [Vec<String>; 2] = [Vec::new(), Vec::new()];

fn texts(first: &[&str], second: &[&str]) -> [Vec<String>; 2] {
    [strings(first), strings(second)]
}

fn payloads(texts: &[&str]) -> Vec<bytes::Bytes> {
    texts.iter().map(|text| text.as_bytes().to_vec().into()).collect()
}

fn payload(text: &str) -> bytes::Bytes {
    text.as_bytes().to_vec().into()
}

impl Stage {
    fn bulk(&mut self, uniq_ids: Vec<String>, data: &[&str]) -> [Vec<String>; 2] {
        let message = proto::SingleCastBulk { uniq_ids, data: payloads(data) };
        self.task.send(cmd::SINGLE_CAST_BULK, &message);
        self.received()
    }

    fn bulk_by_customer(&mut self, customer_ids: &[&str], data: &[&str]) -> [Vec<String>; 2] {
        let customer_ids = strings(customer_ids);
        let message = proto::SingleCastBulkByCustomerId { customer_ids, data: payloads(data) };
        self.task.send(cmd::SINGLE_CAST_BULK_BY_CUSTOMER_ID, &message);
        self.received()
    }

    fn publish(&mut self, topics: &[&str], data: &str) -> [Vec<String>; 2] {
        let message = proto::TopicPublish { topics: strings(topics), data: payload(data) };
        self.task.send(cmd::TOPIC_PUBLISH, &message);
        self.received()
    }

    fn publish_bulk(&mut self, topics: &[&str], data: &[&str]) -> [Vec<String>; 2] {
        let message = proto::TopicPublishBulk { topics: strings(topics), data: payloads(data) };
        self.task.send(cmd::TOPIC_PUBLISH_BULK, &message);
        self.received()
    }

    fn topics(&mut self, client: usize) -> Vec<String> {
        self.info(client).2.into_iter().collect()
    }
}

#[test]
fn conn_info_update_replaces_what_is_given_and_then_sends_the_data() {
    let mut stage = Stage::new(config());
    for client in 0..2 {
        let message = proto::ConnInfoUpdate {
            uniq_id: stage.ids[client].clone(),
            new_session: "s".to_owned(),
            new_customer_id: "42".to_owned(),
            new_topics: strings(&["room", "news"]),
            data: payload("ok"),
        };
        stage.task.send(cmd::CONN_INFO_UPDATE, &message);
        let expected = ("s".to_owned(), "42".to_owned(), set(&strings(&["room", "news"])));
        assert_eq!(stage.info(client), expected);
        assert_eq!(stage.received()[client], ["ok"]);
        // What is empty stays as it is.
        stage.update(client, "", "", &[]);
        assert_eq!(stage.info(client), expected);
        stage.update(client, "t", "", &[]);
        assert_eq!(stage.info(client).0, "t");
        stage.update(client, "", "43", &[]);
        assert_eq!(stage.info(client).1, "43");
        // All topics are replaced.
        stage.update(client, "", "", &["sport", "room", "sport", ""]);
        assert_eq!(stage.topics(client), ["room", "sport"]);
        stage.update(client, "", "", &[""]);
        assert_eq!(stage.topics(client), strings(&[]));
    }
    let users: proto::CustomerIdListResp = stage.task.ask(cmd::CUSTOMER_ID_LIST, &());
    assert_eq!(users.customer_ids, ["43"], "the old customer has no connection left");
    assert_eq!(stage.received(), NOTHING);
}

#[test]
fn conn_info_update_of_nobody_does_nothing() {
    let mut stage = Stage::new(config());
    for uniq_id in [String::new(), unknown_id(&stage.ids[0]), "x".repeat(28), "short".to_owned()] {
        let message = proto::ConnInfoUpdate {
            uniq_id,
            new_session: "s".to_owned(),
            new_customer_id: "42".to_owned(),
            new_topics: strings(&["room"]),
            data: payload("lost"),
        };
        stage.task.send(cmd::CONN_INFO_UPDATE, &message);
    }
    assert_eq!(stage.received(), NOTHING);
    assert_eq!(stage.task.ask::<proto::TopicCountResp>(cmd::TOPIC_COUNT, &()).count, 0);
    let customers: proto::CustomerIdCountResp = stage.task.ask(cmd::CUSTOMER_ID_COUNT, &());
    assert_eq!(customers.count, 0);
}

#[test]
fn conn_info_delete_clears_what_is_asked_and_then_sends_the_data() {
    let mut stage = Stage::new(config());
    for client in 0..2 {
        stage.update(client, "s", "42", &["room", "news"]);
        let uniq_id = stage.ids[client].clone();
        let nothing = proto::ConnInfoDelete { uniq_id, ..Default::default() };
        stage.task.send(cmd::CONN_INFO_DELETE, &nothing);
        let all = ("s".to_owned(), "42".to_owned(), set(&strings(&["room", "news"])));
        assert_eq!(stage.info(client), all);
        let topics = proto::ConnInfoDelete { del_topic: true, ..nothing.clone() };
        stage.task.send(cmd::CONN_INFO_DELETE, &topics);
        assert_eq!(stage.info(client), ("s".to_owned(), "42".to_owned(), set(&[])));
        let session = proto::ConnInfoDelete { del_session: true, ..nothing.clone() };
        stage.task.send(cmd::CONN_INFO_DELETE, &session);
        assert_eq!(stage.info(client), (String::new(), "42".to_owned(), set(&[])));
        let customer =
            proto::ConnInfoDelete { del_customer_id: true, data: payload("bye"), ..nothing };
        stage.task.send(cmd::CONN_INFO_DELETE, &customer);
        assert_eq!(stage.info(client), (String::new(), String::new(), set(&[])));
        assert_eq!(stage.received()[client], ["bye"]);
    }
    let customers: proto::CustomerIdCountResp = stage.task.ask(cmd::CUSTOMER_ID_COUNT, &());
    assert_eq!(customers.count, 0);
    let delete = proto::ConnInfoDelete { data: payload("lost"), ..Default::default() };
    stage.task.send(cmd::CONN_INFO_DELETE, &delete);
    assert_eq!(stage.received(), NOTHING);
}

#[test]
fn single_cast_reaches_one_client_and_an_empty_payload_nobody() {
    let mut stage = Stage::new(config());
    let ids = stage.ids.clone();
    stage.task.single_cast(&ids[0], "to the first");
    stage.task.single_cast(&ids[1], "to the second");
    for id in &ids {
        stage.task.single_cast(id, "");
    }
    for nobody in ["", "x", &unknown_id(&ids[0]), &ids[0].to_uppercase(), &format!("{} ", ids[0])] {
        stage.task.single_cast(nobody, "lost");
    }
    assert_eq!(stage.received(), texts(&["to the first"], &["to the second"]));
}

#[test]
fn multicast_sends_once_per_listed_id() {
    let mut stage = Stage::new(config());
    let mut uniq_ids = stage.all_ids();
    uniq_ids.extend([String::new(), stage.ids[0].clone()]);
    let message = proto::Multicast { uniq_ids, data: payload("m") };
    stage.task.send(cmd::MULTICAST, &message);
    assert_eq!(stage.received(), texts(&["m", "m"], &["m"]));
    stage.task.send(cmd::MULTICAST, &proto::Multicast { data: payload(""), ..message });
    stage.task.send(cmd::MULTICAST, &proto::Multicast { uniq_ids: vec![], data: payload("m") });
    assert_eq!(stage.received(), NOTHING);
}

#[test]
fn casts_by_customer_reach_every_connection_of_the_customer_once() {
    let mut stage = Stage::new(config());
    stage.update(0, "", "42", &[]);
    stage.update(1, "", "42", &[]);
    let cast = |customer: &str, data: &str| proto::SingleCastByCustomerId {
        customer_id: customer.to_owned(),
        data: payload(data),
    };
    stage.task.send(cmd::SINGLE_CAST_BY_CUSTOMER_ID, &cast("42", "both"));
    stage.task.send(cmd::SINGLE_CAST_BY_CUSTOMER_ID, &cast("42", ""));
    stage.task.send(cmd::SINGLE_CAST_BY_CUSTOMER_ID, &cast("", "lost"));
    stage.task.send(cmd::SINGLE_CAST_BY_CUSTOMER_ID, &cast("43", "lost"));
    assert_eq!(stage.received(), texts(&["both"], &["both"]));
    stage.update(1, "", "43", &[]);
    let multicast = |customers: &[&str], data: &str| proto::MulticastByCustomerId {
        customer_ids: strings(customers),
        data: payload(data),
    };
    for message in [
        multicast(&["42", "43", "42", "", "44"], "m"),
        multicast(&["43"], "second"),
        multicast(&["42", "43"], ""),
        multicast(&[], "lost"),
    ] {
        stage.task.send(cmd::MULTICAST_BY_CUSTOMER_ID, &message);
    }
    assert_eq!(stage.received(), texts(&["m"], &["m", "second"]));
}

#[test]
fn a_customer_without_id_is_nobody() {
    let mut stage = Stage::new(config());
    // Both connections are anonymous: the empty customer does not match them.
    let message =
        proto::MulticastByCustomerId { customer_ids: strings(&[""]), data: payload("lost") };
    stage.task.send(cmd::MULTICAST_BY_CUSTOMER_ID, &message);
    assert_eq!(stage.bulk_by_customer(&["", ""], &["a", "b"]), NOTHING);
}

#[test]
fn broadcast_reaches_everybody_once_and_an_empty_one_nobody() {
    let mut stage = Stage::new(config());
    stage.update(0, "", "42", &["room", "news"]);
    stage.task.send(cmd::BROADCAST, &proto::Broadcast { data: payload("all") });
    stage.task.send(cmd::BROADCAST, &proto::Broadcast::default());
    assert_eq!(stage.received(), texts(&["all"], &["all"]));
}

#[test]
fn single_cast_bulk_follows_its_table() {
    let mut stage = Stage::new(config());
    let [a, b] = stage.ids.clone();
    let both = || vec![a.clone(), b.clone()];
    // One id, several payloads: all in order, empty ones skipped (vector V18).
    assert_eq!(stage.bulk(vec![a.clone()], &["1", "", "2", "3"]), texts(&["1", "2", "3"], &[]));
    assert_eq!(stage.bulk(vec![b.clone()], &["1", "2"]), texts(&[], &["1", "2"]));
    assert_eq!(stage.bulk(vec![unknown_id(&a)], &["1", "2"]), NOTHING);
    assert_eq!(stage.bulk(vec![String::new()], &["1", "2"]), NOTHING);
    // As many ids as payloads: pairs (vector V17).
    assert_eq!(stage.bulk(both(), &["a", "bb"]), texts(&["a"], &["bb"]));
    assert_eq!(stage.bulk(both(), &["", "bb"]), texts(&[], &["bb"]));
    assert_eq!(stage.bulk(vec![a.clone()], &["one"]), texts(&["one"], &[]));
    assert_eq!(stage.bulk(vec![a.clone()], &[""]), NOTHING);
    let repeated = vec![a.clone(), b.clone(), unknown_id(&a), a.clone(), String::new()];
    let seen = stage.bulk(repeated, &["1", "2", "lost", "3", "lost"]);
    assert_eq!(seen, texts(&["1", "3"], &["2"]));
    // Anything else is dropped.
    assert_eq!(stage.bulk(both(), &["1"]), NOTHING);
    assert_eq!(stage.bulk(both(), &["1", "2", "3"]), NOTHING);
    assert_eq!(stage.bulk(vec![], &["1"]), NOTHING);
    assert_eq!(stage.bulk(vec![a.clone()], &[]), NOTHING);
    assert_eq!(stage.bulk(vec![], &[]), NOTHING);
}

#[test]
fn single_cast_bulk_by_customer_follows_its_table() {
    let mut stage = Stage::new(config());
    stage.update(0, "", "42", &[]);
    stage.update(1, "", "42", &[]);
    let all = stage.bulk_by_customer(&["42"], &["1", "", "2"]);
    assert_eq!(all, texts(&["1", "2"], &["1", "2"]));
    assert_eq!(stage.bulk_by_customer(&["42"], &["one"]), texts(&["one"], &["one"]));
    stage.update(1, "", "43", &[]);
    assert_eq!(stage.bulk_by_customer(&["42", "43"], &["a", "b"]), texts(&["a"], &["b"]));
    assert_eq!(stage.bulk_by_customer(&["42", "43"], &["", "b"]), texts(&[], &["b"]));
    let repeated = stage.bulk_by_customer(&["42", "", "44", "42"], &["1", "x", "y", "2"]);
    assert_eq!(repeated, texts(&["1", "2"], &[]));
    for (customers, data) in [
        (&["42", "43"][..], &["1"][..]),
        (&["42", "43"], &["1", "2", "3"]),
        (&[], &["1"]),
        (&["42"], &[]),
        (&[""], &["1", "2"]),
    ] {
        assert_eq!(stage.bulk_by_customer(customers, data), NOTHING, "{customers:?} {data:?}");
    }
}

#[test]
fn topic_subscribe_adds_topics_and_then_sends_the_data() {
    let mut stage = Stage::new(config());
    for client in 0..2 {
        let subscribe = |topics: &[&str], data: &str| proto::TopicSubscribe {
            uniq_id: stage.ids[client].clone(),
            topics: strings(topics),
            data: payload(data),
        };
        let messages = [
            subscribe(&["room", "", "news", "room"], "ok"),
            subscribe(&["room"], "again"),
            subscribe(&[""], "only data"),
            subscribe(&[], "lost"),
            subscribe(&["sport"], ""),
        ];
        for message in messages {
            stage.task.send(cmd::TOPIC_SUBSCRIBE, &message);
        }
        assert_eq!(stage.topics(client), ["news", "room", "sport"]);
        assert_eq!(stage.received()[client], ["ok", "again", "only data"]);
    }
    for uniq_id in [String::new(), unknown_id(&stage.ids[0])] {
        let topics = strings(&["ghost"]);
        let message = proto::TopicSubscribe { uniq_id, topics, data: payload("lost") };
        stage.task.send(cmd::TOPIC_SUBSCRIBE, &message);
    }
    assert_eq!(stage.task.ask::<proto::TopicCountResp>(cmd::TOPIC_COUNT, &()).count, 3);
    assert_eq!(stage.received(), NOTHING);
}

#[test]
fn topic_unsubscribe_removes_topics_and_then_sends_the_data() {
    let mut stage = Stage::new(config());
    for client in 0..2 {
        stage.update(client, "", "", &["room", "news", "sport"]);
        let unsubscribe = |topics: &[&str], data: &str| proto::TopicUnsubscribe {
            uniq_id: stage.ids[client].clone(),
            topics: strings(topics),
            data: payload(data),
        };
        let messages = [
            unsubscribe(&["room", "", "unknown", "room"], "ok"),
            unsubscribe(&[], "lost"),
            unsubscribe(&["unknown"], "still sent"),
            unsubscribe(&["news"], ""),
        ];
        for message in messages {
            stage.task.send(cmd::TOPIC_UNSUBSCRIBE, &message);
        }
        assert_eq!(stage.topics(client), ["sport"]);
        assert_eq!(stage.received()[client], ["ok", "still sent"]);
    }
    let topics = strings(&["sport"]);
    let nobody = proto::TopicUnsubscribe { uniq_id: String::new(), topics, data: payload("lost") };
    stage.task.send(cmd::TOPIC_UNSUBSCRIBE, &nobody);
    assert_eq!(stage.received(), NOTHING);
    assert_eq!(stage.topics(0), ["sport"]);
}

#[test]
fn topic_delete_tells_everybody_who_lost_a_topic_once() {
    let mut stage = Stage::new(config());
    stage.update(0, "", "", &["room", "news", "kept"]);
    stage.update(1, "", "", &["room", "other"]);
    let delete = |topics: &[&str], data: &str| proto::TopicDelete {
        topics: strings(topics),
        data: payload(data),
    };
    let message = delete(&["room", "news", "", "unknown", "room"], "gone");
    stage.task.send(cmd::TOPIC_DELETE, &message);
    assert_eq!(stage.received(), texts(&["gone"], &["gone"]));
    assert_eq!((stage.topics(0), stage.topics(1)), (strings(&["kept"]), strings(&["other"])));
    stage.task.send(cmd::TOPIC_DELETE, &delete(&["other"], "only the second"));
    stage.task.send(cmd::TOPIC_DELETE, &delete(&["kept"], ""));
    stage.task.send(cmd::TOPIC_DELETE, &delete(&["kept", "room"], "nobody lost anything"));
    stage.task.send(cmd::TOPIC_DELETE, &delete(&[], "lost"));
    assert_eq!(stage.received(), texts(&[], &["only the second"]));
    assert_eq!(stage.task.ask::<proto::TopicCountResp>(cmd::TOPIC_COUNT, &()).count, 0);
    // A topic of that name can begin again.
    stage.update(1, "", "", &["room"]);
    assert_eq!(stage.publish(&["room"], "new"), texts(&[], &["new"]));
}

#[test]
fn topic_publish_sends_once_per_listed_topic() {
    let mut stage = Stage::new(config());
    stage.update(0, "", "", &["room", "news"]);
    stage.update(1, "", "", &["room"]);
    assert_eq!(stage.publish(&["room"], "p"), texts(&["p"], &["p"]));
    assert_eq!(stage.publish(&["room", "news"], "p"), texts(&["p", "p"], &["p"]));
    assert_eq!(stage.publish(&["room", "room"], "p"), texts(&["p", "p"], &["p", "p"]));
    assert_eq!(stage.publish(&["", "unknown", "news"], "p"), texts(&["p"], &[]));
    assert_eq!(stage.publish(&["room"], ""), NOTHING);
    assert_eq!(stage.publish(&[], "p"), NOTHING);
    assert_eq!(stage.publish(&["Room", "room ", "roo"], "p"), NOTHING);
}

#[test]
fn topic_publish_bulk_follows_its_table() {
    let mut stage = Stage::new(config());
    stage.update(0, "", "", &["room", "news"]);
    stage.update(1, "", "", &["room"]);
    let one = stage.publish_bulk(&["room"], &["1", "", "2"]);
    assert_eq!(one, texts(&["1", "", "2"], &["1", "", "2"]), "an empty payload is an empty frame");
    assert_eq!(stage.publish_bulk(&["room", "news"], &["1", "2"]), texts(&["1", "2"], &["1"]));
    assert_eq!(stage.publish_bulk(&["room", "news"], &["", "2"]), texts(&["2"], &[]));
    assert_eq!(stage.publish_bulk(&["", "news"], &["1", "2"]), texts(&["2"], &[]));
    let repeated = stage.publish_bulk(&["room", "unknown", "room"], &["1", "2", "3"]);
    assert_eq!(repeated, texts(&["1", "3"], &["1", "3"]));
    assert_eq!(stage.publish_bulk(&["news"], &["one"]), texts(&["one"], &[]));
    for (topics, data) in [
        (&["room", "news"][..], &["1"][..]),
        (&["room", "news"], &["1", "2", "3"]),
        (&["room"], &[]),
        (&[], &["1"]),
        (&[], &[]),
        (&["room"], &[""]),
        (&[""], &["1", "2"]),
    ] {
        assert_eq!(stage.publish_bulk(topics, data), NOTHING, "{topics:?} {data:?}");
    }
}

#[test]
fn generation_5_skips_empty_payloads_for_one_topic() {
    let mut config = config();
    config.netsvr.generation = Generation::G5;
    let mut stage = Stage::new(config);
    stage.update(0, "", "", &["room"]);
    assert_eq!(stage.publish_bulk(&["room"], &["1", "", "2"]), texts(&["1", "2"], &[]));
}

#[test]
fn a_topic_exists_as_long_as_it_has_a_subscriber() {
    let mut stage = Stage::new(config());
    stage.update(0, "", "", &["room"]);
    stage.update(1, "", "", &["room"]);
    let topics =
        |stage: &mut Stage| stage.task.ask::<proto::TopicListResp>(cmd::TOPIC_LIST, &()).topics;
    assert_eq!(topics(&mut stage), ["room"]);
    stage.update(0, "", "", &[""]);
    assert_eq!(topics(&mut stage), ["room"]);
    stage.update(1, "", "", &["other"]);
    assert_eq!(topics(&mut stage), ["other"]);
}

#[test]
fn payloads_are_one_frame_of_any_size_and_any_bytes() {
    let mut stage = Stage::new(config());
    let bytes: Vec<u8> = (0..300_000u32).map(|n| (n * 7 % 256) as u8).collect();
    for len in [1, 125, 126, 65_535, 65_536, 300_000] {
        let message =
            proto::Multicast { uniq_ids: stage.ids.to_vec(), data: bytes[..len].to_vec().into() };
        stage.task.send(cmd::MULTICAST, &message);
        for client in &mut stage.clients {
            let frame = client.frame();
            assert_eq!(frame.first, 0x81, "text, although it is not UTF-8");
            assert!(frame.payload == bytes[..len], "{len} bytes");
        }
    }
}

#[test]
fn payloads_are_binary_if_that_is_configured() {
    let mut config = config();
    config.netsvr.customer.send_message_type = MessageType::Binary;
    let mut stage = Stage::new(config);
    stage.task.send(cmd::BROADCAST, &proto::Broadcast { data: payload("b") });
    for client in &mut stage.clients {
        assert_eq!(client.frame(), Frame { first: 0x82, payload: b"b".to_vec() });
    }
}

#[test]
fn commands_work_from_any_connection_and_keep_their_order() {
    let mut stage = Stage::new(config());
    let mut connections: Vec<Business> = (0..4).map(|_| stage.server.task()).collect();
    connections.extend((0..4).map(|_| stage.server.worker(CLOSE)));
    for mut business in connections {
        let mut frames = Vec::new();
        for (number, id) in (0..).zip(stage.ids.iter().cycle().take(100)) {
            let topic = format!("topic {number}");
            let topics = vec![topic.clone()];
            let subscribe =
                proto::TopicSubscribe { uniq_id: id.clone(), topics, data: payload("s") };
            frames.extend(framed(cmd::TOPIC_SUBSCRIBE, &subscribe));
            let topics = vec![topic.clone()];
            let publish = proto::TopicPublish { topics, data: payload(&topic) };
            frames.extend(framed(cmd::TOPIC_PUBLISH, &publish));
            let delete = proto::TopicDelete { topics: vec![topic], data: payload("d") };
            frames.extend(framed(cmd::TOPIC_DELETE, &delete));
            frames.extend(framed(cmd::TOPIC_PUBLISH, &publish));
        }
        business.write(&frames);
        for number in 0..100 {
            let client = &mut stage.clients[number % 2];
            let seen = [client.frame(), client.frame(), client.frame()];
            let expected = ["s", &format!("topic {number}"), "d"];
            assert_eq!(seen.each_ref().map(Frame::text), expected);
        }
        assert_eq!(business.online_count(), 2);
    }
    assert_eq!(stage.received(), NOTHING);
}
