//! What the one-way commands of netsvr business processes ask for: every row of the specification's
//! sections 6.3 to 6.6 that is decided before any connection is looked at, and what undecodable
//! bodies get (section 3.3).

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use ringway::hub::ConnId;
use ringway::hub::push::{Change, CloseReason, Command, Payload, Target, TopicChange};
use ringway::protocols::netsvr::commands::{BackendRequest, request};
use ringway::protocols::netsvr::wire::{Generation, answers};
use ringway::wire::worker::{Cmd, UniqIds, proto};

const A: &str = "7f00000117ae65e5a1000000002a";
const B: &str = "7f00000117ae65e5a1000000002b";
/// Of another gateway, too long, nonsense, empty.
const NOBODY: [&str; 4] =
    ["7f00000117ad65e5a1000000002a", "7f00000117ae65e5a1000000002a0", "room", ""];

fn ids() -> UniqIds {
    UniqIds::new("127.0.0.1:6062".parse().unwrap())
}

fn ask(cmd: Cmd, message: impl Message) -> BackendRequest {
    request(cmd, message.encode_to_vec().into(), &ids(), Generation::G6)
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| text.to_string()).collect()
}

fn payloads(list: &[&'static str]) -> Vec<Bytes> {
    list.iter().map(|text| Bytes::from(*text)).collect()
}

/// The commands of a request, one line each.
fn lines(request: BackendRequest) -> Vec<String> {
    match request {
        BackendRequest::Commands(commands) => commands.iter().map(line).collect(),
        other => panic!("{other:?}"),
    }
}

fn line(command: &Command) -> String {
    match command {
        Command::Push { target, payloads } => {
            let payloads: Vec<String> = payloads.iter().map(|payload| text(payload)).collect();
            format!("push {} to {}", payloads.join(" "), whom(target))
        }
        Command::Update { conn, change: Change { topics, session, user }, payload } => {
            let topics = topics.as_ref().map(|change| match change {
                TopicChange::Replace(topics) => format!(" ={topics:?}"),
                TopicChange::Add(topics) => format!(" +{topics:?}"),
                TopicChange::Remove(topics) => format!(" -{topics:?}"),
            });
            let session = session.as_ref().map(|session| format!(" session {session:?}"));
            let user = user.as_ref().map(|user| format!(" user {user:?}"));
            let changes = [session, user, topics].map(Option::unwrap_or_default).concat();
            format!("update {}{changes}{}", name(*conn), also(payload))
        }
        Command::DeleteTopics { topics, payload } => format!("end {topics:?}{}", also(payload)),
        Command::Kick { target, payload, reason: CloseReason { code, text }, guests_only } => {
            let guests = if *guests_only { "guests of " } else { "" };
            format!("kick {guests}{}{} with {code} {text}", whom(target), also(payload))
        }
        other => panic!("netsvr does not know {other:?}"),
    }
}

fn text(payload: &Payload) -> String {
    String::from_utf8(payload.raw().to_vec()).unwrap()
}

fn also(payload: &Option<Arc<Payload>>) -> String {
    payload.as_ref().map(|payload| format!(" push {}", text(payload))).unwrap_or_default()
}

fn whom(target: &Target) -> String {
    match target {
        Target::Conns(conns) => conns.iter().map(|conn| name(*conn)).collect::<Vec<_>>().join(","),
        Target::Users(users) => format!("users {}", users.join(",")),
        Target::Topics(topics) => format!("topics {}", topics.join(",")),
        Target::All => "all".into(),
    }
}

fn name(conn: ConnId) -> String {
    let names = [(A, "a"), (B, "b")];
    let known = names.iter().find(|(id, _)| ids().decode(id) == Some(conn));
    known.map(|(_, name)| name.to_string()).unwrap_or_else(|| format!("{conn:?}"))
}

const NOTHING: [&str; 0] = [];

#[test]
fn conn_info_update_changes_what_is_set() {
    let update = |session: &str, customer: &str, topics: &[&str], data: &'static str| {
        let message = proto::ConnInfoUpdate {
            uniq_id: A.into(),
            new_session: session.into(),
            new_customer_id: customer.into(),
            new_topics: strings(topics),
            data: data.into(),
        };
        lines(ask(Cmd::ConnInfoUpdate, message))
    };
    let all = r#"update a session "s" user "42" =["room", "news"] push ok"#;
    assert_eq!(update("s", "42", &["room", "", "news"], "ok"), [all]);
    assert_eq!(update("s", "", &[], ""), [r#"update a session "s""#]);
    assert_eq!(update("", "42", &[], ""), [r#"update a user "42""#]);
    assert_eq!(update("", "", &[""], ""), ["update a =[]"], "clears all topics");
    assert_eq!(update("", "", &[], "ok"), ["update a push ok"]);
    assert_eq!(update("", "", &[], ""), NOTHING);
}

#[test]
fn conn_info_delete_clears_what_is_set() {
    let delete = |del_session, del_customer_id, del_topic, data: &'static str| {
        let (uniq_id, data) = (A.into(), data.into());
        let message =
            proto::ConnInfoDelete { uniq_id, del_session, del_customer_id, del_topic, data };
        lines(ask(Cmd::ConnInfoDelete, message))
    };
    assert_eq!(delete(true, true, true, "ok"), [r#"update a session "" user "" =[] push ok"#]);
    assert_eq!(delete(true, false, false, ""), [r#"update a session """#]);
    assert_eq!(delete(false, true, false, ""), [r#"update a user """#]);
    assert_eq!(delete(false, false, true, ""), ["update a =[]"]);
    assert_eq!(delete(false, false, false, "ok"), ["update a push ok"]);
    assert_eq!(delete(false, false, false, ""), NOTHING);
}

#[test]
fn single_cast_needs_a_client_and_data() {
    let cast = |uniq_id: &str, data: &'static str| {
        let message = proto::SingleCast { uniq_id: uniq_id.into(), data: data.into() };
        lines(ask(Cmd::SingleCast, message))
    };
    assert_eq!(cast(A, "hi"), ["push hi to a"]);
    assert_eq!(cast(A, ""), NOTHING);
    for nobody in NOBODY {
        assert_eq!(cast(nobody, "hi"), NOTHING);
    }
}

#[test]
fn single_cast_by_customer_id_needs_a_customer_and_data() {
    let cast = |customer: &str, data: &'static str| {
        let message =
            proto::SingleCastByCustomerId { customer_id: customer.into(), data: data.into() };
        lines(ask(Cmd::SingleCastByCustomerId, message))
    };
    assert_eq!(cast("42", "hi"), ["push hi to users 42"]);
    assert_eq!(cast("42", ""), NOTHING);
    assert_eq!(cast("", "hi"), NOTHING);
}

#[test]
fn multicast_reaches_a_client_as_often_as_it_is_listed() {
    let cast = |uniq_ids: &[&str], data: &'static str| {
        let message = proto::Multicast { uniq_ids: strings(uniq_ids), data: data.into() };
        lines(ask(Cmd::Multicast, message))
    };
    assert_eq!(cast(&[A, B, A], "m"), ["push m to a,b,a"]);
    assert_eq!(cast(&[NOBODY[0], A, "", B], "m"), ["push m to a,b"]);
    assert_eq!(cast(&[A], ""), NOTHING);
    assert_eq!(cast(&NOBODY, "m"), NOTHING);
    assert_eq!(cast(&[], "m"), NOTHING);
}

#[test]
fn multicast_by_customer_id_leaves_collapsing_to_the_target() {
    let cast = |customers: &[&str], data: &'static str| {
        let message =
            proto::MulticastByCustomerId { customer_ids: strings(customers), data: data.into() };
        lines(ask(Cmd::MulticastByCustomerId, message))
    };
    assert_eq!(cast(&["42", "", "7", "42"], "m"), ["push m to users 42,7,42"]);
    assert_eq!(cast(&["42"], ""), NOTHING);
    assert_eq!(cast(&[""], "m"), NOTHING);
}

#[test]
fn broadcast_needs_data() {
    let cast =
        |data: &'static str| lines(ask(Cmd::Broadcast, proto::Broadcast { data: data.into() }));
    assert_eq!(cast("all"), ["push all to all"]);
    assert_eq!(cast(""), NOTHING);
}

#[test]
fn single_cast_bulk_follows_the_table() {
    let bulk = |uniq_ids: &[&str], data: &[&'static str]| {
        let message = proto::SingleCastBulk { uniq_ids: strings(uniq_ids), data: payloads(data) };
        ask(Cmd::SingleCastBulk, message)
    };
    assert_eq!(lines(bulk(&[A], &["a", "", "bb"])), ["push a bb to a"]);
    assert_eq!(lines(bulk(&[A], &["", ""])), NOTHING);
    for nobody in NOBODY {
        assert_eq!(lines(bulk(&[nobody], &["a", "b"])), NOTHING);
    }
    assert_eq!(lines(bulk(&[A], &["a"])), ["push a to a"]);
    assert_eq!(lines(bulk(&[A], &[""])), NOTHING);
    let pairs = ["push 1 to a", "push 2 to b", "push 4 to a"];
    assert_eq!(lines(bulk(&[A, B, "", A], &["1", "2", "3", "4"])), pairs);
    assert_eq!(lines(bulk(&[A, B], &["", "2"])), ["push 2 to b"]);
    for (uniq_ids, data) in [(2, 1), (2, 3), (0, 0), (0, 1), (1, 0)] {
        let request = bulk(&[A, B][..uniq_ids], &["1", "2", "3"][..data]);
        assert!(matches!(request, BackendRequest::Ignore(_)), "{uniq_ids} {data}");
    }
}

#[test]
fn single_cast_bulk_by_customer_id_follows_the_table() {
    let bulk = |customers: &[&str], data: &[&'static str]| {
        let (customer_ids, data) = (strings(customers), payloads(data));
        let message = proto::SingleCastBulkByCustomerId { customer_ids, data };
        ask(Cmd::SingleCastBulkByCustomerId, message)
    };
    assert_eq!(lines(bulk(&["42"], &["a", "", "bb"])), ["push a bb to users 42"]);
    assert_eq!(lines(bulk(&[""], &["a", "b"])), NOTHING);
    let pairs = ["push 1 to users 42", "push 3 to users 42"];
    assert_eq!(lines(bulk(&["42", "", "42"], &["1", "2", "3"])), pairs);
    assert!(matches!(bulk(&["42", "7"], &["1"]), BackendRequest::Ignore(_)));
    assert!(matches!(bulk(&[], &[]), BackendRequest::Ignore(_)));
}

#[test]
fn topic_publish_keeps_the_order_and_the_repetitions() {
    let publish = |topics: &[&str], data: &'static str| {
        let message = proto::TopicPublish { topics: strings(topics), data: data.into() };
        lines(ask(Cmd::TopicPublish, message))
    };
    assert_eq!(publish(&["b", "", "a", "b"], "p"), ["push p to topics b,a,b"]);
    assert_eq!(publish(&["a"], ""), NOTHING);
    assert_eq!(publish(&["", ""], "p"), NOTHING);
}

#[test]
fn topic_publish_bulk_follows_the_table() {
    let bulk = |topics: &[&str], data: &[&'static str]| {
        let message = proto::TopicPublishBulk { topics: strings(topics), data: payloads(data) };
        ask(Cmd::TopicPublishBulk, message)
    };
    // Generation 6 sends empty payloads if there are several for one topic (section 6.5), and
    // skips them in pairs; generation 5 skips them always.
    assert_eq!(lines(bulk(&["t"], &["1", "", "2"])), ["push 1  2 to topics t"]);
    assert_eq!(lines(bulk(&["t"], &["", ""])), ["push   to topics t"]);
    assert_eq!(lines(bulk(&["t"], &[""])), NOTHING);
    let message = proto::TopicPublishBulk { topics: strings(&["t"]), data: payloads(&["1", ""]) };
    let body = message.encode_to_vec().into();
    let older = request(Cmd::TopicPublishBulk, body, &ids(), Generation::G5);
    assert_eq!(lines(older), ["push 1 to topics t"]);
    assert_eq!(lines(bulk(&[""], &["1", "2"])), NOTHING);
    let pairs = ["push 1 to topics t", "push 4 to topics t"];
    assert_eq!(lines(bulk(&["t", "", "u", "t"], &["1", "2", "", "4"])), pairs);
    assert!(matches!(bulk(&["t", "u"], &["1", "2", "3"]), BackendRequest::Ignore(_)));
}

#[test]
fn topic_subscribe_needs_a_client_and_a_list() {
    let subscribe = |uniq_id: &str, topics: &[&str], data: &'static str| {
        let (uniq_id, topics, data) = (uniq_id.into(), strings(topics), data.into());
        lines(ask(Cmd::TopicSubscribe, proto::TopicSubscribe { uniq_id, topics, data }))
    };
    assert_eq!(subscribe(A, &["r", "", "n"], "ok"), [r#"update a +["r", "n"] push ok"#]);
    assert_eq!(subscribe(A, &["r"], ""), [r#"update a +["r"]"#]);
    assert_eq!(subscribe(A, &[""], "ok"), ["update a push ok"], "data is sent all the same");
    assert_eq!(subscribe(A, &[""], ""), NOTHING);
    assert_eq!(subscribe(A, &[], "ok"), NOTHING);
    for nobody in NOBODY {
        assert_eq!(subscribe(nobody, &["r"], "ok"), NOTHING);
    }
}

#[test]
fn topic_unsubscribe_has_the_same_guards() {
    let unsubscribe = |uniq_id: &str, topics: &[&str], data: &'static str| {
        let (uniq_id, topics, data) = (uniq_id.into(), strings(topics), data.into());
        lines(ask(Cmd::TopicUnsubscribe, proto::TopicUnsubscribe { uniq_id, topics, data }))
    };
    assert_eq!(unsubscribe(A, &["r", "", "n"], "ok"), [r#"update a -["r", "n"] push ok"#]);
    assert_eq!(unsubscribe(A, &[""], "ok"), ["update a push ok"]);
    assert_eq!(unsubscribe(A, &[], "ok"), NOTHING);
    assert_eq!(unsubscribe("", &["r"], "ok"), NOTHING);
}

#[test]
fn topic_delete_ends_what_is_named() {
    let delete = |topics: &[&str], data: &'static str| {
        let message = proto::TopicDelete { topics: strings(topics), data: data.into() };
        lines(ask(Cmd::TopicDelete, message))
    };
    assert_eq!(delete(&["r", "", "n"], "bye"), [r#"end ["r", "n"] push bye"#]);
    assert_eq!(delete(&["r"], ""), [r#"end ["r"]"#]);
    assert_eq!(delete(&[""], "bye"), NOTHING);
    assert_eq!(delete(&[], "bye"), NOTHING);
}

#[test]
fn force_offline_closes_with_its_own_reason() {
    let kick = |uniq_ids: &[&str], data: &'static str| {
        let message = proto::ForceOffline { uniq_ids: strings(uniq_ids), data: data.into() };
        lines(ask(Cmd::ForceOffline, message))
    };
    assert_eq!(kick(&[A, "", B], "bye"), ["kick a,b push bye with 1008 forceOffline"]);
    assert_eq!(kick(&[A], ""), ["kick a with 1008 forceOffline"]);
    assert_eq!(kick(&[], "bye"), NOTHING);
    assert_eq!(kick(&NOBODY, "bye"), NOTHING);
}

#[test]
fn force_offline_by_customer_id_closes_with_its_own_reason() {
    let kick = |customers: &[&str], data: &'static str| {
        let (customer_ids, data) = (strings(customers), data.into());
        let message = proto::ForceOfflineByCustomerId { customer_ids, data };
        lines(ask(Cmd::ForceOfflineByCustomerId, message))
    };
    let line = "kick users 42,7 push bye with 1008 forceOfflineByCustomerId";
    assert_eq!(kick(&["42", "", "7"], "bye"), [line]);
    assert_eq!(kick(&["42"], ""), ["kick users 42 with 1008 forceOfflineByCustomerId"]);
    assert_eq!(kick(&[""], "bye"), NOTHING);
}

#[test]
fn force_offline_guest_waits_for_positive_delays_only() {
    let kick = |uniq_ids: &[&str], delay, data: &'static str| {
        let (uniq_ids, data) = (strings(uniq_ids), data.into());
        ask(Cmd::ForceOfflineGuest, proto::ForceOfflineGuest { uniq_ids, delay, data })
    };
    let line_now = "kick guests of a,b push bye with 1008 forceOfflineGuest";
    for delay in [0, -1, i32::MIN] {
        assert_eq!(lines(kick(&[A, B], delay, "bye")), [line_now]);
    }
    for delay in [1, 60, i32::MAX] {
        match kick(&[A], delay, "") {
            BackendRequest::GuestKickLater { delay_s, command } => {
                assert_eq!(delay_s, delay as u32);
                assert_eq!(line(&command), "kick guests of a with 1008 forceOfflineGuest");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lines(kick(&[], 60, "bye")), NOTHING);
    assert_eq!(lines(kick(&NOBODY, 0, "bye")), NOTHING);
}

const GARBAGE: &[u8] = b"\x0a\x05ab";

fn garbage(cmd: Cmd) -> BackendRequest {
    request(cmd, Bytes::from_static(GARBAGE), &ids(), Generation::G6)
}

#[test]
fn an_undecodable_one_way_command_is_ignored() {
    for number in 900_002_001..=900_002_017 {
        let cmd = Cmd::try_from(number).unwrap();
        let reason = match garbage(cmd) {
            BackendRequest::Ignore(reason) => reason,
            other => panic!("{cmd:?} {other:?}"),
        };
        assert!(!reason.is_empty());
    }
    let bad_text =
        request(Cmd::TopicPublish, Bytes::from_static(b"\x0a\x01\xff"), &ids(), Generation::G6);
    assert!(matches!(bad_text, BackendRequest::Ignore(_)), "invalid UTF-8 does not decode");
}

#[test]
fn an_undecodable_query_gets_the_empty_response_and_register_its_code() {
    use Cmd::*;
    assert!(matches!(garbage(Register), BackendRequest::RegisterUndecodable));
    let undecodable = [
        Unregister,
        CheckOnline,
        TopicUniqIdList,
        TopicUniqIdCount,
        TopicCustomerIdList,
        TopicCustomerIdToUniqIdsList,
        TopicCustomerIdCount,
        ConnInfo,
        ConnInfoByCustomerId,
        Limit,
    ];
    for cmd in undecodable {
        match garbage(cmd) {
            BackendRequest::Answer(frame) => assert_eq!(frame, answers::empty(cmd)),
            other => panic!("{cmd:?} {other:?}"),
        }
    }
    let undecoded =
        [UniqIdList, UniqIdCount, TopicList, TopicCount, CustomerIdList, CustomerIdCount];
    for cmd in undecoded {
        assert!(matches!(garbage(cmd), BackendRequest::Ask { .. }), "{cmd:?} has no parameters");
    }
    assert!(matches!(garbage(Metrics), BackendRequest::Metrics));
}

#[test]
fn register_unregister_and_limit_are_left_to_the_shard() {
    for events in [0, 7, 8, 15, -1] {
        let message = proto::RegisterReq { events, process_cmd_goroutine_num: 200 };
        match ask(Cmd::Register, message) {
            BackendRequest::Register { events: read } => assert_eq!(read, events),
            other => panic!("{other:?}"),
        }
    }
    match ask(Cmd::Unregister, proto::UnRegisterReq { conn_id: "7f".into() }) {
        BackendRequest::Unregister { conn_id } => assert_eq!(conn_id, "7f"),
        other => panic!("{other:?}"),
    }
    match ask(Cmd::Limit, proto::LimitReq { on_open: -1, on_message: 20_000 }) {
        BackendRequest::Limit { on_open, on_message } => {
            assert_eq!((on_open, on_message), (-1, 20_000))
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn no_body_makes_any_command_panic(
        body in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..48], 0..60),
    ) {
        for number in (900_001_001..=900_001_003)
            .chain(900_002_001..=900_002_017)
            .chain(900_003_001..=900_003_018)
        {
            let cmd = Cmd::try_from(number).unwrap();
            let body = Bytes::copy_from_slice(&body);
            let request = request(cmd, body, &ids(), Generation::G5);
            prop_assert!(!cmd.is_event() || matches!(request, BackendRequest::Ignore(_)));
        }
    }
}
