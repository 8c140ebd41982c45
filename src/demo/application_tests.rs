//! Every command of the demo protocol: what the gateway is told, and what bad requests get.

use bytes::{Bytes, BytesMut};
use prost::Message;
use serde_json::{Value, json};

use super::Application;
use crate::demo::link::{FRAME_BYTES_MAX, put};
use crate::protocols::netsvr::wire::Generation;
use crate::wire::worker::Cmd;
use crate::wire::worker::proto as pb;

const ME: &str = "7f00000117ae65e5a1000000002a";

fn application() -> Application {
    Application::new(Generation::G6)
}

fn encoded(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

/// The frames that follow from a message of a client.
fn frames_after(application: &mut Application, customer: &str, data: &[u8]) -> BytesMut {
    let transfer = pb::Transfer {
        uniq_id: ME.to_owned(),
        customer_id: customer.to_owned(),
        data: data.to_vec().into(),
        ..Default::default()
    };
    let mut out = BytesMut::new();
    application.event(Cmd::Transfer as u32, encoded(&transfer), &mut out).expect("an event");
    out
}

fn frame(cmd: Cmd, message: &impl Message) -> BytesMut {
    let mut out = BytesMut::new();
    assert!(put(&mut out, cmd, message));
    out
}

fn request(cmd: i64, parameters: &Value) -> Vec<u8> {
    json!({ "cmd": cmd, "data": parameters.to_string() }).to_string().into_bytes()
}

/// A request of somebody who is not signed in must lead to exactly this command.
fn leads_to(cmd: i64, parameters: Value, expected: Cmd, message: &impl Message) {
    let out = frames_after(&mut application(), "", &request(cmd, &parameters));
    assert_eq!(out, frame(expected, message), "cmd {cmd}");
}

/// The text of a message to a client, whose members are in the order of the published demo.
fn text(cmd: i64, code: u8, message: &str, data: &str) -> Bytes {
    let head = format!(r#"{{"cmd":{cmd},"data":{{"code":{code},"message":"{message}","#);
    format!(r#"{head}"data":{data}}}}}"#).into_bytes().into()
}

fn said(cmd: i64, message: &str) -> Bytes {
    let data = format!(r#"{{"fromUser":"uniqId({ME})","message":"{message}"}}"#);
    text(cmd, 0, "you have a message", &data)
}

fn list<T: From<&'static str>>(items: &[&'static str]) -> Vec<T> {
    items.iter().map(|item| T::from(*item)).collect()
}

/// Why a message was refused, and under which cmd its sender is told.
fn refusal(data: &[u8]) -> (i64, String) {
    let out = frames_after(&mut application(), "", data);
    let cast = pb::SingleCast::decode(&out[8..]).expect("a SingleCast");
    assert_eq!(cast.uniq_id, ME);
    let reply: Value = serde_json::from_slice(&cast.data).expect("JSON");
    assert_eq!(reply["data"]["code"], 1, "{reply}");
    let message = reply["data"]["message"].as_str().expect("a text").to_owned();
    (reply["cmd"].as_i64().expect("a number"), message)
}

#[test]
fn casts() {
    let (me, you) = (ME.to_owned(), "you".to_owned());
    let ids = json!(["a", "b"]);
    leads_to(
        21,
        json!({ "customerId": "you", "message": "m" }),
        Cmd::SingleCastByCustomerId,
        &pb::SingleCastByCustomerId { customer_id: you, data: said(21, "m") },
    );
    leads_to(
        22,
        json!({ "uniqId": ME, "message": "m" }),
        Cmd::SingleCast,
        &pb::SingleCast { uniq_id: me, data: said(22, "m") },
    );
    leads_to(
        23,
        json!({ "uniqIds": ids, "message": ["m", "n"] }),
        Cmd::SingleCastBulk,
        &pb::SingleCastBulk {
            uniq_ids: list(&["a", "b"]),
            data: vec![said(23, "m"), said(23, "n")],
        },
    );
    leads_to(
        24,
        json!({ "customerIds": ["a"], "message": ["m", "n"] }),
        Cmd::SingleCastBulkByCustomerId,
        &pb::SingleCastBulkByCustomerId {
            customer_ids: list(&["a"]),
            data: vec![said(24, "m"), said(24, "n")],
        },
    );
    leads_to(
        25,
        json!({ "uniqIds": ids, "message": "m" }),
        Cmd::Multicast,
        &pb::Multicast { uniq_ids: list(&["a", "b"]), data: said(25, "m") },
    );
    leads_to(
        26,
        json!({ "customerIds": ids, "message": "m" }),
        Cmd::MulticastByCustomerId,
        &pb::MulticastByCustomerId { customer_ids: list(&["a", "b"]), data: said(26, "m") },
    );
    leads_to(27, json!({ "message": "m" }), Cmd::Broadcast, &pb::Broadcast { data: said(27, "m") });
}

#[test]
fn topics() {
    let topics: Vec<String> = list(&["room", "news"]);
    let asked = json!({ "topics": topics });
    let (uniq_id, done) = (ME.to_owned(), "null");
    leads_to(
        28,
        asked.clone(),
        Cmd::TopicSubscribe,
        &pb::TopicSubscribe {
            uniq_id: uniq_id.clone(),
            topics: topics.clone(),
            data: text(28, 0, "subscribed", done),
        },
    );
    leads_to(
        29,
        asked.clone(),
        Cmd::TopicUnsubscribe,
        &pb::TopicUnsubscribe {
            uniq_id,
            topics: topics.clone(),
            data: text(29, 0, "unsubscribed", done),
        },
    );
    leads_to(
        30,
        asked,
        Cmd::TopicDelete,
        &pb::TopicDelete { topics: topics.clone(), data: text(30, 0, "topic deleted", done) },
    );
    leads_to(
        36,
        json!({ "topics": topics, "message": "m" }),
        Cmd::TopicPublish,
        &pb::TopicPublish { topics: topics.clone(), data: said(36, "m") },
    );
    leads_to(
        37,
        json!({ "topics": topics, "message": ["m", "n"] }),
        Cmd::TopicPublishBulk,
        &pb::TopicPublishBulk { topics, data: vec![said(37, "m"), said(37, "n")] },
    );
}

#[test]
fn force_offline() {
    let offline = || text(2, 0, "you were taken offline", "null");
    leads_to(
        18,
        json!({ "customerIds": ["you"] }),
        Cmd::ForceOfflineByCustomerId,
        &pb::ForceOfflineByCustomerId { customer_ids: list(&["you"]), data: offline() },
    );
    leads_to(
        19,
        json!({ "uniqId": "you" }),
        Cmd::ForceOffline,
        &pb::ForceOffline { uniq_ids: list(&["you"]), data: offline() },
    );
    leads_to(
        20,
        json!({ "uniqId": "you", "delay": 3 }),
        Cmd::ForceOfflineGuest,
        &pb::ForceOfflineGuest { uniq_ids: list(&["you"]), delay: 3, data: offline() },
    );
}

#[test]
fn sign_in_and_out() {
    let account = format!(r#"{{"id":"ann","name":"ann","uniqId":"{ME}"}}"#);
    for key in ["name", "username"] {
        leads_to(
            13,
            json!({ key: "ann", "password": "demo" }),
            Cmd::ConnInfoUpdate,
            &pb::ConnInfoUpdate {
                uniq_id: ME.to_owned(),
                new_session: r#"{"name":"ann"}"#.to_owned(),
                new_customer_id: "ann".to_owned(),
                new_topics: Vec::new(),
                data: text(13, 0, "signed in", &account),
            },
        );
    }
    let gone = |cmd| pb::ConnInfoDelete {
        uniq_id: ME.to_owned(),
        del_session: true,
        del_customer_id: true,
        del_topic: true,
        data: text(cmd, 0, "signed out", "null"),
    };
    leads_to(16, json!({}), Cmd::ConnInfoDelete, &gone(16));
    let out = frames_after(&mut application(), "ann", &request(14, &json!({})));
    assert_eq!(out, frame(Cmd::ConnInfoDelete, &gone(14)));
    assert_eq!(refusal(&request(14, &json!({}))), (14, "you are not signed in".to_owned()));
}

#[test]
fn forged_sign_ins_get_what_they_ask_for_and_different_customers() {
    let mut application = application();
    let mut customers = Vec::new();
    for _ in 0..2 {
        let wanted = request(15, &json!({ "topicNum": 20, "sessionLen": 2048 }));
        let out = frames_after(&mut application, "", &wanted);
        let update = pb::ConnInfoUpdate::decode(&out[8..]).expect("a ConnInfoUpdate");
        assert_eq!((update.new_topics.len(), update.new_session.len()), (20, 2048));
        let reply: Value = serde_json::from_slice(&update.data).expect("JSON");
        assert_eq!(reply["data"]["data"]["id"], update.new_customer_id.as_str());
        customers.push(update.new_customer_id);
    }
    assert_ne!(customers[0], customers[1]);
}

#[test]
fn receivers_see_the_name_of_a_signed_in_sender() {
    let data = request(27, &json!({ "message": "m" }));
    let out = frames_after(&mut application(), "ann", &data);
    let broadcast = pb::Broadcast::decode(&out[8..]).expect("a Broadcast");
    let reply: Value = serde_json::from_slice(&broadcast.data).expect("JSON");
    assert_eq!(reply["data"]["data"], json!({ "fromUser": "ann", "message": "m" }));
}

/// A query leads to this question; the gateway's answer is passed on like this.
fn asks<A: Message>(
    (cmd, parameters): (i64, Value),
    question: (Cmd, &impl Message),
    answer: &A,
    passed_on: Value,
) {
    let mut application = application();
    let out = frames_after(&mut application, "", &request(cmd, &parameters));
    assert_eq!(out, frame(question.0, question.1), "cmd {cmd}");
    let mut out = BytesMut::new();
    application.answer(question.0 as u32, encoded(answer), &mut out).expect("the right answer");
    let cast = pb::SingleCast::decode(&out[8..]).expect("a SingleCast");
    assert_eq!(cast.uniq_id, ME);
    let reply: Value = serde_json::from_slice(&cast.data).expect("JSON");
    let expected =
        json!({ "cmd": cmd, "data": { "code": 0, "message": "done", "data": passed_on } });
    assert_eq!(reply, expected);
    assert_eq!(application.pending(), 0);
}

#[test]
fn queries_about_connections() {
    let none = json!({});
    let limit = pb::LimitResp { on_open: 7, on_message: 9 };
    asks(
        (4, json!({ "onMessage": 9 })),
        (Cmd::Limit, &pb::LimitReq { on_open: 0, on_message: 9 }),
        &limit,
        json!({ "onOpen": 7, "onMessage": 9 }),
    );
    let ids = || list(&["a", "b"]);
    let all = pb::UniqIdListResp { uniq_ids: ids() };
    asks((5, none.clone()), (Cmd::UniqIdList, &()), &all, json!({ "uniqIds": ["a", "b"] }));
    let count = pb::UniqIdCountResp { count: 2 };
    asks((6, none.clone()), (Cmd::UniqIdCount, &()), &count, json!({ "count": 2 }));
    let all = pb::CustomerIdListResp { customer_ids: ids() };
    let passed_on = json!({ "customerIds": ["a", "b"] });
    asks((7, none.clone()), (Cmd::CustomerIdList, &()), &all, passed_on);
    asks((8, none.clone()), (Cmd::CustomerIdCount, &()), &count, json!({ "count": 2 }));
    let item = pb::ConnInfoRespItem {
        session: "s".to_owned(),
        customer_id: "ann".to_owned(),
        topics: list(&["t"]),
    };
    let infos = pb::ConnInfoResp { items: [(ME.to_owned(), item)].into() };
    let question = pb::ConnInfoReq {
        uniq_ids: vec![ME.to_owned()],
        req_session: true,
        req_customer_id: true,
        req_topic: true,
    };
    let seen = json!({ "session": "s", "customerId": "ann", "topics": ["t"] });
    let passed_on = json!({ "connInfo": { ME: seen } });
    asks((9, none), (Cmd::ConnInfo, &question), &infos, passed_on);
    asks(
        (17, json!({ "uniqIds": ["a"] })),
        (Cmd::CheckOnline, &pb::CheckOnlineReq { uniq_ids: list(&["a"]) }),
        &pb::CheckOnlineResp { uniq_ids: list(&["a"]) },
        json!({ "uniqIds": ["a"] }),
    );
}

#[test]
fn queries_about_customers_and_metrics() {
    let item = pb::ConnInfoByCustomerIdRespItem {
        session: "s".to_owned(),
        uniq_id: ME.to_owned(),
        topics: list(&["t"]),
    };
    let items = pb::ConnInfoByCustomerIdRespItems { items: vec![item] };
    let question = pb::ConnInfoByCustomerIdReq {
        customer_ids: list(&["ann"]),
        req_session: true,
        req_uniq_id: true,
        req_topic: true,
    };
    let seen = json!([{ "session": "s", "uniqId": ME, "topics": ["t"] }]);
    asks(
        (10, json!({ "customerIds": ["ann"] })),
        (Cmd::ConnInfoByCustomerId, &question),
        &pb::ConnInfoByCustomerIdResp { items: [("ann".to_owned(), items)].into() },
        json!({ "connInfo": { "ann": seen } }),
    );
    let metric = pb::MetricsRespItem {
        item: 1,
        count: 300,
        mean_rate: 1.5,
        rate1: 0.5,
        rate5: 0.25,
        rate15: 0.125,
    };
    let seen = json!({
        "item": 1, "count": 300, "meanRate": 1.5, "rate1": 0.5, "rate5": 0.25, "rate15": 0.125,
    });
    asks(
        (3, json!({})),
        (Cmd::Metrics, &()),
        &pb::MetricsResp { items: [(1, metric)].into() },
        json!({ "1": seen }),
    );
}

#[test]
fn queries_about_topics() {
    let count = pb::TopicCountResp { count: 2 };
    asks((11, json!({})), (Cmd::TopicCount, &()), &count, json!({ "count": 2 }));
    let all = pb::TopicListResp { topics: list(&["t"]) };
    asks((12, json!({})), (Cmd::TopicList, &()), &all, json!({ "topics": ["t"] }));
    let (topics, t) = (list::<String>(&["t"]), || "t".to_owned());
    let asked = json!({ "topics": ["t"] });
    asks(
        (31, json!({ "countAll": true })),
        (Cmd::TopicUniqIdCount, &pb::TopicUniqIdCountReq { topics: Vec::new(), count_all: true }),
        &pb::TopicUniqIdCountResp { items: [(t(), 3)].into() },
        json!({ "t": 3 }),
    );
    let members = pb::TopicUniqIdListRespItem { uniq_ids: list(&["a"]) };
    asks(
        (32, asked.clone()),
        (Cmd::TopicUniqIdList, &pb::TopicUniqIdListReq { topics: topics.clone() }),
        &pb::TopicUniqIdListResp { items: [(t(), members)].into() },
        json!({ "t": ["a"] }),
    );
    let customers = pb::TopicCustomerIdListRespItem { customer_ids: list(&["ann"]) };
    asks(
        (33, asked.clone()),
        (Cmd::TopicCustomerIdList, &pb::TopicCustomerIdListReq { topics: topics.clone() }),
        &pb::TopicCustomerIdListResp { items: [(t(), customers)].into() },
        json!({ "t": ["ann"] }),
    );
    let of_ann = pb::CustomerIdToUniqIdsRespItem { uniq_ids: list(&["a"]) };
    let of_topic =
        pb::TopicCustomerIdToUniqIdsListRespItem { items: [("ann".to_owned(), of_ann)].into() };
    let question = pb::TopicCustomerIdToUniqIdsListReq { topics: topics.clone() };
    asks(
        (34, asked.clone()),
        (Cmd::TopicCustomerIdToUniqIdsList, &question),
        &pb::TopicCustomerIdToUniqIdsListResp { items: [(t(), of_topic)].into() },
        json!({ "t": { "ann": ["a"] } }),
    );
    asks(
        (35, asked),
        (Cmd::TopicCustomerIdCount, &pb::TopicCustomerIdCountReq { topics, count_all: false }),
        &pb::TopicCustomerIdCountResp { items: [(t(), 0)].into() },
        json!({ "t": 0 }),
    );
}

#[test]
fn a_wrong_request_is_answered_with_what_is_wrong() {
    for (data, cmd, reason) in [
        (&b"{nonsense}"[..], 0, "not a request"),
        (b"{\"data\":\"{}\"}", 0, "missing field `cmd`"),
        (b"{\xff}", 0, "not a request"),
        (b"{\"cmd\":1}", 1, "only the server"),
        (b"{\"cmd\":38}", 38, "unknown cmd 38"),
        (b"{\"cmd\":28,\"data\":\"[\"}", 28, "data: "),
        (b"{\"cmd\":28}", 28, "missing field `topics`"),
        (b"{\"cmd\":28,\"data\":{\"topics\":[]}}", 28, "topics must not be empty"),
        (b"{\"cmd\":28,\"data\":{\"topics\":7}}", 28, "invalid type"),
        (b"{\"cmd\":19,\"data\":{\"uniqId\":\"\"}}", 19, "uniqId must not be empty"),
        (b"{\"cmd\":13,\"data\":{\"name\":\"ann\",\"password\":\"x\"}}", 13, "wrong password"),
        (b"{\"cmd\":13,\"data\":{\"name\":\"\",\"password\":\"demo\"}}", 13, "name must not be"),
        (b"{\"cmd\":15,\"data\":{\"topicNum\":10001}}", 15, "topicNum must not exceed"),
        (b"{\"cmd\":15,\"data\":{\"sessionLen\":-1}}", 15, "invalid value"),
        (
            b"{\"cmd\":23,\"data\":{\"uniqIds\":[\"a\",\"b\"],\"message\":[\"m\"]}}",
            23,
            "1 messages for 2",
        ),
        (
            b"{\"cmd\":37,\"data\":{\"topics\":[\"a\"],\"message\":[]}}",
            37,
            "message must not be empty",
        ),
    ] {
        let (told, message) = refusal(data);
        assert_eq!(told, cmd, "{message}");
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn nothing_longer_than_a_frame_is_sent() {
    let mut long = vec![b'x'; FRAME_BYTES_MAX];
    assert!(refusal(&long).1.contains("too long"));
    long.truncate(FRAME_BYTES_MAX - 64);
    let out = frames_after(&mut application(), "", &long);
    assert_eq!(pb::SingleCast::decode(&out[8..]).expect("an echo").data.len(), long.len());
    let text = String::from_utf8(long).expect("letters");
    let request = request(27, &json!({ "message": text }));
    assert!(refusal(&request).1.contains("bytes in one frame"));
    let mut application = application();
    let _ = frames_after(&mut application, "", br#"{"cmd":5}"#);
    let many = pb::UniqIdListResp { uniq_ids: vec![ME.to_owned(); 100_000] };
    let mut out = BytesMut::new();
    application.answer(Cmd::UniqIdList as u32, encoded(&many), &mut out).expect("an answer");
    let cast = pb::SingleCast::decode(&out[8..]).expect("a SingleCast");
    let reply: Value = serde_json::from_slice(&cast.data).expect("JSON");
    assert_eq!((&reply["cmd"], &reply["data"]["code"]), (&json!(5), &json!(1)));
}

#[test]
fn generation_5_opens_are_read_with_their_sub_protocols() {
    let open = pb::ConnOpen5 {
        uniq_id: ME.to_owned(),
        raw_query: "token=1".to_owned(),
        sub_protocol: list(&["chat"]),
        x_forwarded_for: "1.2.3.4".to_owned(),
        x_real_ip: "9.9.9.9".to_owned(),
        remote_addr: "10.0.0.8".to_owned(),
    };
    let mut out = BytesMut::new();
    let mut application = Application::new(Generation::G5);
    application.event(Cmd::ConnOpen as u32, encoded(&open), &mut out).expect("an event");
    let cast = pb::SingleCast::decode(&out[8..]).expect("a SingleCast");
    let reply: Value = serde_json::from_slice(&cast.data).expect("JSON");
    let expected = json!({
        "uniqId": ME, "rawQuery": "token=1", "subProtocol": ["chat"],
        "xForwardedFor": "1.2.3.4", "xRealIp": "9.9.9.9", "remoteAddr": "10.0.0.8",
    });
    assert_eq!(reply["data"]["data"], expected);
}

#[test]
fn an_answer_that_was_not_asked_for_is_an_error() {
    let mut out = BytesMut::new();
    let mut application = application();
    assert!(application.answer(Cmd::UniqIdCount as u32, Bytes::new(), &mut out).is_err());
    let _ = frames_after(&mut application, "", br#"{"cmd":6}"#);
    assert!(application.answer(Cmd::TopicCount as u32, Bytes::new(), &mut out).is_err());
}
