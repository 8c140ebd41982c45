//! connmix clients and the backends and clients of other protocols.

use serde_json::json;

use crate::common::cmd;
use crate::support::{Gateway, text};
use ringway::wire::worker::proto;

const RULES: &str = r#"
framing = "length"
[[connmix.server.rule]]
on = "open"
do = [ { subscribe = ["news"] }, { user = "u1" }, { set = { ready = true } },
       { push = { topic = "q", event = "open" } } ]
[[connmix.server.rule]]
on = "message"
do = [ { publish = { channel = "news", data = "${data}" } } ]
"#;

#[test]
fn topics_and_users_are_the_same_for_all_backends() {
    let gateway = Gateway::start(RULES);
    let mut worker = gateway.worker(&["q"]);
    let (mut web, mut tcp) = (gateway.client(), gateway.tcp());
    worker.event();
    worker.event();
    let mut netsvr = gateway.netsvr_worker();
    let publish = |data: &str| proto::TopicPublish {
        topics: vec!["news".to_owned()],
        data: data.to_owned().into_bytes().into(),
    };
    netsvr.send(cmd::TOPIC_PUBLISH, &publish("from netsvr"));
    assert_eq!(text(&mut web), "from netsvr");
    assert_eq!(tcp.bytes(15), b"\0\0\0\x0bfrom netsvr");
    let cast =
        proto::SingleCastByCustomerId { customer_id: "u1".to_owned(), data: b"to u1"[..].into() };
    netsvr.send(cmd::SINGLE_CAST_BY_CUSTOMER_ID, &cast);
    assert_eq!(text(&mut web), "to u1");
    assert_eq!(tcp.bytes(9), b"\0\0\0\x05to u1");

    // A netsvr client is in the topic because its worker says so, and hears connmix clients.
    let mut other = gateway.netsvr_client();
    crate::common::wait_until("three clients are online", || netsvr.online_count() == 3);
    let list: proto::UniqIdListResp = netsvr.ask(cmd::UNIQ_ID_LIST, &());
    let topics = proto::TopicUniqIdListReq { topics: vec!["news".to_owned()] };
    let members = |netsvr: &mut crate::common::Business| -> Vec<String> {
        let topics: proto::TopicUniqIdListResp = netsvr.ask(cmd::TOPIC_UNIQ_ID_LIST, &topics);
        topics.items.into_values().flat_map(|item| item.uniq_ids).collect()
    };
    let before = members(&mut netsvr);
    let stranger = list.uniq_ids.iter().find(|id| !before.contains(id)).expect("the netsvr client");
    netsvr.subscribe(stranger, &["news"]);
    crate::common::wait_until("it is in the topic", || members(&mut netsvr).len() == 3);
    web.send_text("hi all");
    assert_eq!((text(&mut web), text(&mut other)), ("hi all".to_owned(), "hi all".to_owned()));
    assert_eq!(tcp.bytes(10), b"\0\0\0\x06hi all");
    netsvr.send(
        cmd::FORCE_OFFLINE_BY_CUSTOMER_ID,
        &proto::ForceOfflineByCustomerId {
            customer_ids: vec!["u1".to_owned()],
            ..Default::default()
        },
    );
    assert_eq!(web.frame().first, 0x88);
    tcp.expect_end();
}

#[test]
fn binary_stays_binary() {
    let gateway = Gateway::start(RULES);
    let mut worker = gateway.worker(&["q"]);
    let mut web = gateway.client();
    let (id, _) = worker.event();
    let sent = worker.done("mesh.publish", json!({ "c": "news", "d": "AAEC/w==", "t": "binary" }));
    assert_eq!(sent["s"], 1);
    let frame = web.frame();
    assert_eq!((frame.first, &frame.payload[..]), (0x82, &[0, 1, 2, 0xff][..]));
    worker.send(&id, "text");
    assert_eq!(text(&mut web), "text");
}
