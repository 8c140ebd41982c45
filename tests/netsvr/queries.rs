//! Questions about connections, customers and topics: every row of specification section 6.7, with
//! the answers gathered over both shards.

use std::collections::{BTreeMap, BTreeSet};

use ringway::protocols::netsvr::wire::Generation;
use ringway::wire::worker::proto;

use crate::common::*;
use crate::support::*;

fn texts(names: &[&str]) -> BTreeSet<String> {
    set(&strings(names))
}

/// Both clients have customer 42; the first has topics `room` and `news`, the second `room` and
/// `sport`.
fn stage(config: ringway::config::all::Config) -> Stage {
    let mut stage = Stage::new(config);
    stage.update(0, "first", "42", &["room", "news"]);
    stage.update(1, "second", "42", &["room", "sport"]);
    stage
}

#[test]
fn check_online_repeats_what_exists_in_the_order_asked() {
    let mut stage = Stage::new(config());
    let [a, b] = stage.ids.clone();
    let unknown = unknown_id(&a);
    let asked = [&*b, "", &a, &unknown, &b, "x", &a, &a];
    assert_eq!(online(&mut stage.task, &asked), [&b, &a, &b, &a, &a].map(|id| id.clone()));
    assert_eq!(online(&mut stage.task, &[&unknown]), strings(&[]));
    assert_eq!(online(&mut stage.task, &[]), strings(&[]));
}

#[test]
fn uniq_id_list_and_count_know_all_connections() {
    let mut stage = Stage::new(config());
    let list: proto::UniqIdListResp = stage.task.ask(cmd::UNIQ_ID_LIST, &());
    assert_eq!(set(&list.uniq_ids), set(&stage.ids));
    assert_eq!(stage.task.online_count(), 2);
    let Stage { clients, ids: _, mut task, server } = stage;
    drop(clients);
    wait_until("nobody is left", || task.online_count() == 0);
    let list: proto::UniqIdListResp = task.ask(cmd::UNIQ_ID_LIST, &());
    assert_eq!(list.uniq_ids, strings(&[]));
    drop(server);
}

#[test]
fn customers_are_listed_and_counted_once_over_both_shards() {
    let mut stage = stage(config());
    let list: proto::CustomerIdListResp = stage.task.ask(cmd::CUSTOMER_ID_LIST, &());
    assert_eq!(list.customer_ids, ["42"]);
    let count: proto::CustomerIdCountResp = stage.task.ask(cmd::CUSTOMER_ID_COUNT, &());
    assert_eq!(count.count, 1);
    stage.update(1, "", "43", &[]);
    let list: proto::CustomerIdListResp = stage.task.ask(cmd::CUSTOMER_ID_LIST, &());
    assert_eq!(set(&list.customer_ids), texts(&["42", "43"]));
    let count: proto::CustomerIdCountResp = stage.task.ask(cmd::CUSTOMER_ID_COUNT, &());
    assert_eq!(count.count, 2);
}

#[test]
fn topics_are_listed_and_counted_once_over_both_shards() {
    let mut stage = stage(config());
    let list: proto::TopicListResp = stage.task.ask(cmd::TOPIC_LIST, &());
    assert_eq!(set(&list.topics), texts(&["room", "news", "sport"]));
    assert_eq!(stage.task.ask::<proto::TopicCountResp>(cmd::TOPIC_COUNT, &()).count, 3);
}

#[test]
fn topic_uniq_id_list_has_the_subscribers_of_existing_topics() {
    let mut stage = stage(config());
    let request =
        proto::TopicUniqIdListReq { topics: strings(&["room", "", "unknown", "news", "room"]) };
    let answer: proto::TopicUniqIdListResp = stage.task.ask(cmd::TOPIC_UNIQ_ID_LIST, &request);
    let seen: BTreeMap<_, _> =
        answer.items.iter().map(|(topic, item)| (&**topic, set(&item.uniq_ids))).collect();
    let expected = BTreeMap::from([("room", set(&stage.ids)), ("news", set(&stage.ids[..1]))]);
    assert_eq!(seen, expected);
    let answer: proto::TopicUniqIdListResp =
        stage.task.ask(cmd::TOPIC_UNIQ_ID_LIST, &proto::TopicUniqIdListReq::default());
    assert!(answer.items.is_empty());
}

/// The entries of an answer with counts.
fn counts<'a>(items: impl IntoIterator<Item = (&'a String, &'a i32)>) -> BTreeMap<&'a str, i32> {
    items.into_iter().map(|(name, count)| (&**name, *count)).collect()
}

#[test]
fn topic_uniq_id_count_counts_subscribers_over_both_shards() {
    let mut stage = stage(config());
    let mut ask = |topics: &[&str], count_all| {
        let request = proto::TopicUniqIdCountReq { topics: strings(topics), count_all };
        stage.task.ask::<proto::TopicUniqIdCountResp>(cmd::TOPIC_UNIQ_ID_COUNT, &request).items
    };
    let named = ask(&["room", "", "unknown", "sport", "room"], false);
    assert_eq!(counts(&named), BTreeMap::from([("room", 2), ("sport", 1)]));
    let all = BTreeMap::from([("room", 2), ("news", 1), ("sport", 1)]);
    assert_eq!(counts(&ask(&[], true)), all);
    assert_eq!(counts(&ask(&["room"], true)), all, "the list is ignored");
    assert!(ask(&[], false).is_empty());
}

#[test]
fn topic_customer_id_list_has_distinct_customers_of_existing_topics() {
    let mut stage = stage(config());
    let mut third = stage.server.worker(OPEN);
    let _anonymous = stage.server.client();
    let id = third.opened();
    stage.task.subscribe(&id, &["room", "guests"]);
    let topics = strings(&["room", "guests", "", "unknown", "sport"]);
    let request = proto::TopicCustomerIdListReq { topics };
    let answer: proto::TopicCustomerIdListResp =
        stage.task.ask(cmd::TOPIC_CUSTOMER_ID_LIST, &request);
    let seen: BTreeMap<_, _> =
        answer.items.iter().map(|(topic, item)| (&**topic, set(&item.customer_ids))).collect();
    let expected = BTreeMap::from([
        ("room", texts(&["42"])),
        ("sport", texts(&["42"])),
        // Nobody there has a customer; the topic exists all the same.
        ("guests", texts(&[])),
    ]);
    assert_eq!(seen, expected);
}

#[test]
fn topic_customer_id_count_counts_distinct_customers_and_zeros() {
    let mut stage = stage(config());
    let mut third = stage.server.worker(OPEN);
    let _anonymous = stage.server.client();
    let id = third.opened();
    stage.task.subscribe(&id, &["room", "guests"]);
    let mut ask = |topics: &[&str], count_all| {
        let request = proto::TopicCustomerIdCountReq { topics: strings(topics), count_all };
        let answer: proto::TopicCustomerIdCountResp =
            stage.task.ask(cmd::TOPIC_CUSTOMER_ID_COUNT, &request);
        answer.items
    };
    let named = ask(&["room", "guests", "", "unknown"], false);
    assert_eq!(counts(&named), BTreeMap::from([("room", 1), ("guests", 0)]));
    let all = BTreeMap::from([("room", 1), ("news", 1), ("sport", 1), ("guests", 0)]);
    assert_eq!(counts(&ask(&["x"], true)), all);
    assert!(ask(&[], false).is_empty());
}

/// Topic, customer, connections.
type Nested = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn customer_connections(stage: &mut Stage, topics: &[&str]) -> Nested {
    let request = proto::TopicCustomerIdToUniqIdsListReq { topics: strings(topics) };
    let answer: proto::TopicCustomerIdToUniqIdsListResp =
        stage.task.ask(cmd::TOPIC_CUSTOMER_ID_TO_UNIQ_IDS_LIST, &request);
    let customers = |item: proto::TopicCustomerIdToUniqIdsListRespItem| {
        let connections = item.items.into_iter();
        connections.map(|(customer, list)| (customer, set(&list.uniq_ids))).collect()
    };
    answer.items.into_iter().map(|(topic, item)| (topic, customers(item))).collect()
}

#[test]
fn topic_customer_id_to_uniq_ids_has_all_connections_of_the_customers_in_generation_6() {
    let mut stage = stage(config());
    let seen = customer_connections(&mut stage, &["news", "", "unknown"]);
    let all = BTreeMap::from([("42".to_owned(), set(&stage.ids))]);
    assert_eq!(seen, BTreeMap::from([("news".to_owned(), all.clone())]));
    let seen = customer_connections(&mut stage, &["room"]);
    assert_eq!(seen, BTreeMap::from([("room".to_owned(), all)]));
    assert!(customer_connections(&mut stage, &[]).is_empty());
}

#[test]
fn topic_customer_id_to_uniq_ids_has_the_subscribed_ones_in_generation_5() {
    let mut config = config();
    config.netsvr.generation = Generation::G5;
    let server = Server::start(config);
    // The events differ, the rest does not: find two clients of one customer.
    let mut worker = server.worker(OPEN);
    let mut clients = Vec::new();
    let mut ids: Vec<String> = Vec::new();
    while [0, 1].iter().any(|shard| !ids.iter().any(|id| shard_of(id) == *shard)) {
        clients.push(server.client());
        ids.push(worker.expect::<proto::ConnOpen5>(cmd::CONN_OPEN).uniq_id);
    }
    let [a, b] = [0, 1]
        .map(|shard| ids.iter().find(|id| shard_of(id) == shard).expect("there is one").clone());
    for (id, topics) in [(&a, &["room", "news"][..]), (&b, &["room"])] {
        let message = proto::ConnInfoUpdate {
            uniq_id: id.clone(),
            new_customer_id: "42".to_owned(),
            new_topics: strings(topics),
            ..Default::default()
        };
        worker.send(cmd::CONN_INFO_UPDATE, &message);
    }
    let request = proto::TopicCustomerIdToUniqIdsListReq { topics: strings(&["news", "room"]) };
    let answer: proto::TopicCustomerIdToUniqIdsListResp =
        worker.ask(cmd::TOPIC_CUSTOMER_ID_TO_UNIQ_IDS_LIST, &request);
    assert_eq!(answer.items.len(), 2);
    assert_eq!(answer.items["news"].items["42"].uniq_ids, std::slice::from_ref(&a));
    assert_eq!(set(&answer.items["room"].items["42"].uniq_ids), set(&[a, b]));
}

#[test]
fn conn_info_tells_what_is_asked_about_known_connections() {
    let mut stage = stage(config());
    let [a, b] = stage.ids.clone();
    let mut uniq_ids = stage.all_ids();
    uniq_ids.extend([String::new(), b.clone()]);
    for flags in 0..8u8 {
        let [session, customer, topics] = [1, 2, 4].map(|bit| flags & bit != 0);
        let request = proto::ConnInfoReq {
            uniq_ids: uniq_ids.clone(),
            req_session: session,
            req_customer_id: customer,
            req_topic: topics,
        };
        let answer: proto::ConnInfoResp = stage.task.ask(cmd::CONN_INFO, &request);
        assert_eq!(answer.items.keys().collect::<BTreeSet<_>>(), BTreeSet::from([&a, &b]));
        let text = |asked, text: &str| if asked { text.to_owned() } else { String::new() };
        for (id, name, topic) in [(&a, "first", "news"), (&b, "second", "sport")] {
            let item = &answer.items[id];
            assert_eq!(item.session, text(session, name));
            assert_eq!(item.customer_id, text(customer, "42"));
            let expected = if topics { texts(&["room", topic]) } else { texts(&[]) };
            assert_eq!(set(&item.topics), expected);
        }
    }
    let empty: proto::ConnInfoResp = stage.task.ask(cmd::CONN_INFO, &proto::ConnInfoReq::default());
    assert!(empty.items.is_empty());
}

#[test]
fn a_known_connection_with_nothing_to_tell_has_an_empty_entry() {
    let mut stage = Stage::new(config());
    let item = info(&mut stage.task, &stage.ids[0].clone());
    assert_eq!(item, Some(proto::ConnInfoRespItem::default()));
    assert_eq!(info(&mut stage.task, &unknown_id(&stage.ids[0])), None);
}

#[test]
fn conn_info_by_customer_tells_what_is_asked_about_each_connection() {
    let mut stage = stage(config());
    let [a, b] = stage.ids.clone();
    for flags in 0..8u8 {
        let [session, uniq_id, topics] = [1, 2, 4].map(|bit| flags & bit != 0);
        let request = proto::ConnInfoByCustomerIdReq {
            customer_ids: strings(&["42", "", "unknown", "42"]),
            req_session: session,
            req_uniq_id: uniq_id,
            req_topic: topics,
        };
        let answer: proto::ConnInfoByCustomerIdResp =
            stage.task.ask(cmd::CONN_INFO_BY_CUSTOMER_ID, &request);
        assert_eq!(answer.items.keys().collect::<Vec<_>>(), ["42"]);
        let mut items: Vec<_> = answer.items["42"].items.iter().collect();
        items.sort_by_key(|item| (item.session.clone(), item.uniq_id != a, item.topics.clone()));
        assert_eq!(items.len(), 2, "one per connection, also without anything asked");
        let text = |asked, text: &str| if asked { text.to_owned() } else { String::new() };
        let sessions: BTreeSet<_> = items.iter().map(|item| item.session.clone()).collect();
        assert_eq!(sessions, [text(session, "first"), text(session, "second")].into());
        let ids: BTreeSet<_> = items.iter().map(|item| item.uniq_id.clone()).collect();
        assert_eq!(ids, [text(uniq_id, &a), text(uniq_id, &b)].into());
        let seen: BTreeSet<_> = items.iter().map(|item| set(&item.topics)).collect();
        let expected = match topics {
            true => BTreeSet::from([texts(&["room", "news"]), texts(&["room", "sport"])]),
            false => BTreeSet::from([texts(&[])]),
        };
        assert_eq!(seen, expected);
    }
}

#[test]
fn a_query_sees_every_earlier_command_of_its_connection() {
    let stage = Stage::new(config());
    // Several connections, so that some are on either shard.
    for mut task in (0..4).map(|_| stage.server.task()) {
        for round in 0..100 {
            let id = &stage.ids[round % 2];
            let name = format!("{round}");
            let message = proto::ConnInfoUpdate {
                uniq_id: id.clone(),
                new_session: name.clone(),
                new_customer_id: name.clone(),
                new_topics: vec![name.clone()],
                ..Default::default()
            };
            task.send(cmd::CONN_INFO_UPDATE, &message);
            let expected = proto::ConnInfoRespItem {
                session: name.clone(),
                customer_id: name.clone(),
                topics: vec![name.clone()],
            };
            assert_eq!(info(&mut task, id), Some(expected));
            task.send(
                cmd::TOPIC_DELETE,
                &proto::TopicDelete { topics: vec![name], ..Default::default() },
            );
            let info = info(&mut task, id).expect("it is registered");
            assert_eq!(info.topics, strings(&[]));
        }
    }
}

#[test]
fn many_connections_can_ask_at_the_same_time() {
    let stage = stage(config());
    let [a, b] = stage.ids.clone();
    let tasks: Vec<Business> = (0..16).map(|_| stage.server.task()).collect();
    let threads = tasks.into_iter().zip(1usize..).map(|(mut task, number)| {
        let (a, b) = (a.clone(), b.clone());
        std::thread::spawn(move || {
            for round in 0..50 {
                // An answer of another connection or round has another length.
                let asked = vec![if round % 2 == 0 { &*a } else { &*b }; number * 50 + round];
                assert_eq!(online(&mut task, &asked), asked);
                assert_eq!(task.online_count(), 2);
                assert_eq!(task.ask::<proto::TopicCountResp>(cmd::TOPIC_COUNT, &()).count, 3);
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().expect("every answer was the right one");
    }
}
