//! Queries of netsvr business processes and their responses (specification sections 3.5 and 6.7):
//! what is asked of the hub, and that prost reads from the response what was put in.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use ringway::hub::ConnId;
use ringway::hub::queries::{Answer, Info, Query, Want};
use ringway::protocols::netsvr::commands::{BackendRequest, Next, Shape, answer, request};
use ringway::protocols::netsvr::wire::{self, Generation};
use ringway::wire::worker::{Cmd, HEADER, UniqIds, proto};

const A: ConnId = ConnId::from_parts(1_709_547_776, 1);
const B: ConnId = ConnId::from_parts(1_709_547_776, 2);
const ABROAD: &str = "7f00000117ad65e5a10000000001";

fn ids() -> UniqIds {
    UniqIds::new("127.0.0.1:6062".parse().unwrap())
}

fn uniq_id(conn: ConnId) -> String {
    String::from_utf8(ids().encode(conn).to_vec()).unwrap()
}

fn ask_as(generation: Generation, cmd: Cmd, message: impl Message) -> (Query, Shape) {
    match request(cmd, message.encode_to_vec().into(), &ids(), generation) {
        BackendRequest::Ask { query, shape } => (query, shape),
        other => panic!("{other:?}"),
    }
}

fn ask(cmd: Cmd, message: impl Message) -> (Query, Shape) {
    ask_as(Generation::G6, cmd, message)
}

/// The message of the response, whose header is right.
fn done(cmd: Cmd, next: Next) -> Bytes {
    let frame = match next {
        Next::Done(frame) => frame,
        other => panic!("{other:?}"),
    };
    assert_eq!(frame[..4], (frame.len() as u32 - 4).to_be_bytes());
    assert_eq!(frame[4..HEADER], cmd.number().to_be_bytes());
    frame.slice(HEADER..)
}

/// Asks without parameters and reads the response to this answer.
fn plain<M: Message + Default>(cmd: Cmd, query: Query, found: Answer) -> M {
    let asked = ask(cmd, ());
    assert_eq!(asked.0, query);
    M::decode(done(cmd, answer(asked.1, found, &ids()))).unwrap()
}

fn respond<M: Message + Default>(cmd: Cmd, asked: (Query, Shape), found: Answer) -> M {
    M::decode(done(cmd, answer(asked.1, found, &ids()))).unwrap()
}

fn boxed(list: &[&str]) -> Vec<Box<str>> {
    list.iter().map(|name| Box::from(*name)).collect()
}

fn arcs(list: &[String]) -> Vec<Arc<str>> {
    list.iter().map(|name| Arc::from(&name[..])).collect()
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| name.to_string()).collect()
}

fn names() -> impl Strategy<Value = Vec<String>> {
    vec(prop_oneof![Just(String::new()), ".{1,9}", ".{130}"], 0..6)
}

fn conns() -> impl Strategy<Value = Vec<ConnId>> {
    vec(any::<(u32, u32)>().prop_map(|(g, i)| ConnId::from_parts(g, i)), 0..6)
}

fn map<V: std::fmt::Debug>(
    value: impl Strategy<Value = V>,
) -> impl Strategy<Value = BTreeMap<String, V>> {
    prop::collection::btree_map(prop_oneof![Just(String::new()), ".{1,9}"], value, 0..5)
}

/// The entries of an answer from a map of what it should say.
fn entries<V, T>(map: &BTreeMap<String, V>, part: impl Fn(&V) -> T) -> Vec<(Arc<str>, T)> {
    map.iter().map(|(name, value)| (Arc::from(&name[..]), part(value))).collect()
}

proptest! {
    #[test]
    fn lists_and_counts_say_what_was_found(conns in conns(), names in names(), n in any::<u64>()) {
        let uniq_ids: Vec<String> = conns.iter().copied().map(uniq_id).collect();
        let list: proto::UniqIdListResp =
            plain(Cmd::UniqIdList, Query::Conns, Answer::Conns(conns.clone()));
        prop_assert_eq!(&list.uniq_ids, &uniq_ids);
        let asked = ask(Cmd::CheckOnline, proto::CheckOnlineReq { uniq_ids: uniq_ids.clone() });
        prop_assert_eq!(&asked.0, &Query::Online(conns.clone()));
        let online: proto::CheckOnlineResp =
            respond(Cmd::CheckOnline, asked, Answer::Online(conns));
        prop_assert_eq!(online.uniq_ids, uniq_ids);

        let users = || Answer::Users(arcs(&names));
        let list: proto::CustomerIdListResp = plain(Cmd::CustomerIdList, Query::Users, users());
        prop_assert_eq!(&list.customer_ids, &names);
        let count: proto::CustomerIdCountResp = plain(Cmd::CustomerIdCount, Query::Users, users());
        prop_assert_eq!(count.count as usize, names.len());
        let topics = || Answer::Topics(arcs(&names));
        let list: proto::TopicListResp = plain(Cmd::TopicList, Query::Topics, topics());
        prop_assert_eq!(&list.topics, &names);
        let count: proto::TopicCountResp = plain(Cmd::TopicCount, Query::Topics, topics());
        prop_assert_eq!(count.count as usize, names.len());

        for n in [n, 0, 127, 128] {
            let found = Answer::ConnCount(n);
            let count: proto::UniqIdCountResp = plain(Cmd::UniqIdCount, Query::ConnCount, found);
            prop_assert_eq!(count.count as u64, n.min(i32::MAX as u64), "it saturates");
        }
    }

    #[test]
    fn maps_of_topics_say_what_was_found(
        members in map(conns()),
        counts in map(prop_oneof![Just(0), any::<u64>()]),
        users in map(names()),
    ) {
        let found = Answer::TopicConns(entries(&members, Vec::clone));
        let asked = ask(Cmd::TopicUniqIdList, proto::TopicUniqIdListReq::default());
        let list: proto::TopicUniqIdListResp = respond(Cmd::TopicUniqIdList, asked, found);
        let read: BTreeMap<_, _> = list.items.into_iter().map(|(k, v)| (k, v.uniq_ids)).collect();
        let expected: BTreeMap<String, Vec<String>> = members
            .iter()
            .map(|(topic, conns)| (topic.clone(), conns.iter().copied().map(uniq_id).collect()))
            .collect();
        prop_assert_eq!(read, expected);

        let found = Answer::TopicConnCount(entries(&counts, |count| *count));
        let asked = ask(Cmd::TopicUniqIdCount, proto::TopicUniqIdCountReq::default());
        let list: proto::TopicUniqIdCountResp = respond(Cmd::TopicUniqIdCount, asked, found);
        let read: BTreeMap<_, _> = list.items.into_iter().map(|(k, v)| (k, v as u64)).collect();
        let saturated = |(topic, count): (_, u64)| (topic, count.min(i32::MAX as u64));
        let expected: BTreeMap<String, u64> = counts.into_iter().map(saturated).collect();
        prop_assert_eq!(read, expected);

        let found = || Answer::TopicUsers(entries(&users, |users| arcs(users)));
        let asked = ask(Cmd::TopicCustomerIdList, proto::TopicCustomerIdListReq::default());
        let list: proto::TopicCustomerIdListResp =
            respond(Cmd::TopicCustomerIdList, asked, found());
        let read: BTreeMap<_, _> =
            list.items.into_iter().map(|(k, v)| (k, v.customer_ids)).collect();
        prop_assert_eq!(&read, &users);
        let asked = ask(Cmd::TopicCustomerIdCount, proto::TopicCustomerIdCountReq::default());
        let list: proto::TopicCustomerIdCountResp =
            respond(Cmd::TopicCustomerIdCount, asked, found());
        let read: BTreeMap<_, _> =
            list.items.into_iter().map(|(k, v)| (k, v as usize)).collect();
        let expected: BTreeMap<String, usize> =
            users.into_iter().map(|(topic, users)| (topic, users.len())).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn customers_of_topics_come_with_their_connections(found in map(map(conns()))) {
        let per_user = |users: &BTreeMap<String, Vec<ConnId>>| entries(users, Vec::clone);
        let topics = Answer::TopicUserConns(entries(&found, per_user));
        let cmd = Cmd::TopicCustomerIdToUniqIdsList;
        let asked =
            ask_as(Generation::G5, cmd, proto::TopicCustomerIdToUniqIdsListReq::default());
        let list: proto::TopicCustomerIdToUniqIdsListResp = respond(cmd, asked, topics);
        let mut read = BTreeMap::new();
        for (topic, item) in list.items {
            let users: BTreeMap<_, Vec<ConnId>> = item
                .items
                .into_iter()
                .map(|(k, v)| (k, v.uniq_ids.iter().map(|id| ids().decode(id).unwrap()).collect()))
                .collect();
            read.insert(topic, users);
        }
        prop_assert_eq!(read, found);
    }

    #[test]
    fn infos_say_what_was_found(
        infos in map(vec((any::<u32>(), ".{0,9}", ".{0,9}", names()), 0..4)),
        with_uniq_ids in any::<bool>(),
    ) {
        let info = |(index, session, user, topics): &(u32, String, String, Vec<String>)| Info {
            conn: ConnId::from_parts(7, *index),
            session: (&session[..]).into(),
            user: (&user[..]).into(),
            topics: arcs(topics),
        };
        let found = entries(&infos, |list| list.iter().map(info).collect());
        let asked = ask(
            Cmd::ConnInfoByCustomerId,
            proto::ConnInfoByCustomerIdReq { req_uniq_id: with_uniq_ids, ..Default::default() },
        );
        let response: proto::ConnInfoByCustomerIdResp =
            respond(Cmd::ConnInfoByCustomerId, asked, Answer::UserInfo(found));
        prop_assert_eq!(response.items.len(), infos.len());
        for (customer, list) in &infos {
            let items = &response.items[customer].items;
            prop_assert_eq!(items.len(), list.len());
            for (item, from) in items.iter().zip(list) {
                let id = if with_uniq_ids { uniq_id(info(from).conn) } else { String::new() };
                prop_assert_eq!(
                    (&item.session, &item.uniq_id, &item.topics), (&from.1, &id, &from.3)
                );
            }
        }

        let all: BTreeMap<u32, _> = infos.values().flatten().map(|from| (from.0, from)).collect();
        let found = all.values().map(|from| info(from)).collect();
        let asked = ask(Cmd::ConnInfo, proto::ConnInfoReq::default());
        let response: proto::ConnInfoResp =
            respond(Cmd::ConnInfo, asked, Answer::ConnInfo(found));
        prop_assert_eq!(response.items.len(), all.len());
        for from in all.values() {
            let item = &response.items[&uniq_id(info(from).conn)];
            prop_assert_eq!(
                (&item.session, &item.customer_id, &item.topics), (&from.1, &from.2, &from.3)
            );
        }
    }

    #[test]
    fn metrics_say_what_was_counted(
        items in vec((any::<i32>(), any::<i64>(), prop::array::uniform4(-9f32..9.0)), 0..14),
    ) {
        let items: BTreeMap<i32, proto::MetricsRespItem> = items
            .into_iter()
            .map(|(item, count, [mean_rate, rate1, rate5, rate15])| {
                let item = proto::MetricsRespItem { item, count, mean_rate, rate1, rate5, rate15 };
                (item.item, item)
            })
            .collect();
        let ours: Vec<wire::MetricItem> = items
            .values()
            .map(|&proto::MetricsRespItem { item, count, mean_rate, rate1, rate5, rate15 }| {
                wire::MetricItem { item, count, mean_rate, rate1, rate5, rate15 }
            })
            .collect();
        let body = done(Cmd::Metrics, Next::Done(wire::metrics_resp(&ours)));
        prop_assert_eq!(proto::MetricsResp::decode(body).unwrap(), proto::MetricsResp { items });
    }
}

#[test]
fn a_metric_that_counted_nothing_is_in_the_map() {
    let item =
        wire::MetricItem { item: 3, count: 0, mean_rate: 0.0, rate1: 0.0, rate5: 0.0, rate15: 0.0 };
    let body = done(Cmd::Metrics, Next::Done(wire::metrics_resp(&[item])));
    assert_eq!(body[..], *b"\x0a\x06\x08\x03\x12\x02\x08\x03");
    assert!(done(Cmd::Metrics, Next::Done(wire::metrics_resp(&[]))).is_empty());
}

#[test]
fn limits_that_are_off_are_not_written() {
    let body = done(Cmd::Limit, Next::Done(wire::limit_resp(0, 0)));
    assert!(body.is_empty());
    let body = done(Cmd::Limit, Next::Done(wire::limit_resp(-1, i32::MAX)));
    let read = proto::LimitResp::decode(body).unwrap();
    assert_eq!(read, proto::LimitResp { on_open: -1, on_message: i32::MAX });
}

#[test]
fn check_online_asks_for_ids_of_this_gateway_in_order_with_repetitions() {
    let uniq_ids = vec![uniq_id(B), ABROAD.into(), uniq_id(A), String::new(), uniq_id(B)];
    let (query, _) = ask(Cmd::CheckOnline, proto::CheckOnlineReq { uniq_ids });
    assert_eq!(query, Query::Online(vec![B, A, B]));
}

#[test]
fn questions_about_topics_skip_empty_names_and_count_all_ignores_the_list() {
    let topics = strings(&["a", "", "b"]);
    let listed = || boxed(&["a", "b"]);
    let (query, _) =
        ask(Cmd::TopicUniqIdList, proto::TopicUniqIdListReq { topics: topics.clone() });
    assert_eq!(query, Query::TopicConns(listed()));
    let (query, _) =
        ask(Cmd::TopicCustomerIdList, proto::TopicCustomerIdListReq { topics: topics.clone() });
    assert_eq!(query, Query::TopicUsers(Some(listed())));
    for count_all in [false, true] {
        let asked = (!count_all).then(listed);
        let request = proto::TopicUniqIdCountReq { topics: topics.clone(), count_all };
        let (query, _) = ask(Cmd::TopicUniqIdCount, request);
        assert_eq!(query, Query::TopicConnCount(asked.clone()));
        let request = proto::TopicCustomerIdCountReq { topics: topics.clone(), count_all };
        let (query, _) = ask(Cmd::TopicCustomerIdCount, request);
        assert_eq!(query, Query::TopicUsers(asked));
    }
    let (query, _) = ask(Cmd::TopicUniqIdCount, ());
    assert_eq!(query, Query::TopicConnCount(Some(vec![])), "nothing is asked for");
}

#[test]
fn questions_about_connections_want_what_their_flags_say() {
    for flags in 0..8 {
        let [session, second, topics] = [1, 2, 4].map(|bit| flags & bit != 0);
        let request = proto::ConnInfoReq {
            uniq_ids: vec![uniq_id(A), ABROAD.into(), uniq_id(A)],
            req_session: session,
            req_customer_id: second,
            req_topic: topics,
        };
        let (query, _) = ask(Cmd::ConnInfo, request);
        let want = Want { session, user: second, topics };
        assert_eq!(query, Query::ConnInfo { conns: vec![A, A], want });
        let request = proto::ConnInfoByCustomerIdReq {
            customer_ids: strings(&["42", ""]),
            req_session: session,
            req_uniq_id: second,
            req_topic: topics,
        };
        let (query, _) = ask(Cmd::ConnInfoByCustomerId, request);
        let want = Want { session, user: false, topics };
        assert_eq!(query, Query::UserInfo { users: boxed(&["42"]), want });
    }
}

#[test]
fn generation_5_asks_for_the_subscribed_connections_of_customers() {
    let request = proto::TopicCustomerIdToUniqIdsListReq { topics: strings(&["a", ""]) };
    let (query, _) = ask_as(Generation::G5, Cmd::TopicCustomerIdToUniqIdsList, request);
    assert_eq!(query, Query::TopicUserConns(boxed(&["a"])));
}

#[test]
fn generation_6_asks_twice_for_all_connections_of_customers() {
    let cmd = Cmd::TopicCustomerIdToUniqIdsList;
    let request = proto::TopicCustomerIdToUniqIdsListReq { topics: strings(&["a", "", "b"]) };
    let (query, shape) = ask(cmd, request);
    assert_eq!(query, Query::TopicUsers(Some(boxed(&["a", "b"]))));
    let customers = vec![
        ("a".into(), vec!["7".into(), "42".into(), "gone".into()]),
        ("b".into(), vec!["42".into()]),
        ("c".into(), vec![]),
    ];
    let (query, shape) = match answer(shape, Answer::<ConnId>::TopicUsers(customers), &ids()) {
        Next::Ask(query, shape) => (query, shape),
        other => panic!("{other:?}"),
    };
    assert_eq!(query, Query::UserConns(boxed(&["42", "7", "gone"])), "each customer once");
    let found = Answer::UserConns(vec![("42".into(), vec![A, B]), ("7".into(), vec![B])]);
    let list: proto::TopicCustomerIdToUniqIdsListResp = respond(cmd, (query, shape), found);
    let read: Vec<String> = list
        .items
        .iter()
        .flat_map(|(topic, item)| {
            let users = item.items.iter();
            users.map(move |(user, list)| format!("{topic} {user} {}", list.uniq_ids.join(" ")))
        })
        .collect();
    let (a, b) = (uniq_id(A), uniq_id(B));
    assert_eq!(read, [format!("a 42 {a} {b}"), format!("a 7 {b}"), format!("b 42 {a} {b}")]);
    assert_eq!(list.items.len(), 3, "a topic without customers is there, and empty");
}

#[test]
fn a_list_of_a_million_connections_is_exact() {
    let conns: Vec<ConnId> = (0..1_000_000).map(|n| ConnId::from_parts(7, n)).collect();
    let (_, shape) = ask(Cmd::UniqIdList, ());
    let body = done(Cmd::UniqIdList, answer(shape, Answer::Conns(conns), &ids()));
    assert_eq!(body.len(), 30_000_000);
    assert_eq!(body[29_999_970..][2..], *uniq_id(ConnId::from_parts(7, 999_999)).as_bytes());
}

#[test]
fn a_response_that_fits_no_frame_is_the_empty_response() {
    let topic: Arc<str> = "t".repeat(1 << 20).into();
    let (_, shape) = ask(Cmd::TopicList, ());
    let found: Answer = Answer::Topics(vec![topic; 4096]);
    assert!(done(Cmd::TopicList, answer(shape, found, &ids())).is_empty());
}
