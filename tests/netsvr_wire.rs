//! netsvr's business-side wire format: the vectors of the specification's section 12, byte for
//! byte, through the hand-written code and through prost, in both directions.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::str::FromStr;

use bytes::Bytes;
use prost::Message;
use ringway::hub::ConnId;
use ringway::protocols::netsvr::wire::{self, Generation, OpenInfo, RegisterCode, Verdict};
use ringway::protocols::netsvr::wire::{answers, requests};
use ringway::wire::worker::{self, Cmd, Frame, FrameReader, UniqIds, proto};

const HEARTBEAT: &[u8] = b"~6YOt5rW35piO~";
const LIMIT: u32 = 2_097_152;
const U6: ConnId = ConnId::from_parts(0x65e5_a100, 0x2a);
const U6B: ConnId = ConnId::from_parts(0x65e5_a100, 0x2b);

fn ids() -> UniqIds {
    UniqIds::new("127.0.0.1:6062".parse().unwrap())
}

/// One vector of the file.
#[derive(Default)]
struct Vector {
    number: String,
    message: String,
    bytes: Bytes,
    fields: Vec<(String, String)>,
}

impl Vector {
    fn list(&self, name: &str) -> Vec<String> {
        let fields = self.fields.iter().filter(|field| field.0 == name);
        fields.map(|field| field.1.clone()).collect()
    }

    fn payloads(&self, name: &str) -> Vec<Bytes> {
        self.list(name).into_iter().map(Bytes::from).collect()
    }

    /// What is not there has its default.
    fn one<T: FromStr<Err: Debug> + Default>(&self, name: &str) -> T {
        self.list(name).pop().map(|text| text.parse().unwrap()).unwrap_or_default()
    }

    fn text(&self, name: &str) -> String {
        self.one(name)
    }

    fn data(&self, name: &str) -> Bytes {
        self.payloads(name).pop().unwrap_or_default()
    }

    fn flag(&self, name: &str) -> bool {
        self.one::<u8>(name) == 1
    }

    fn body(&self) -> Bytes {
        let header = if self.message == "ConnOpenResp" { 0 } else { worker::HEADER };
        self.bytes.slice(header..)
    }

    /// prost agrees in both directions.
    fn is(&self, message: impl Message + Default + PartialEq + Debug) {
        self.decodes_to(&message);
        assert_eq!(message.encode_to_vec(), self.body(), "{}", self.number);
    }

    fn decodes_to<M: Message + Default + PartialEq + Debug>(&self, message: &M) {
        assert_eq!(M::decode(self.body()).as_ref(), Ok(message), "{}", self.number);
    }

    /// The reader takes it from the wire.
    fn is_command(&self, cmd: Cmd) {
        let mut input = &self.bytes[..];
        let frame = FrameReader::new().next(&mut input, LIMIT, HEARTBEAT);
        assert_eq!(frame, Ok(Some(Frame::Command { cmd, body: self.body() })), "{}", self.number);
        assert!(input.is_empty());
    }
}

fn vectors() -> Vec<Vector> {
    let unhex = |text: &str| {
        let digits = text.replace(' ', "");
        let pairs = (0..digits.len()).step_by(2).map(|at| &digits[at..at + 2]);
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect::<Vec<u8>>()
    };
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/netsvr.txt");
    let text = std::fs::read_to_string(path).unwrap();
    let mut vectors: Vec<Vector> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if !line.starts_with(' ') {
            let (name, hex) = line.split_once(':').unwrap();
            let (number, message) = name.split_once(' ').unwrap();
            let (number, message) = (number.into(), message.into());
            vectors.push(Vector { number, message, bytes: unhex(hex).into(), fields: vec![] });
            continue;
        }
        let vector = vectors.last_mut().unwrap();
        match line.trim_start().strip_prefix(": ") {
            Some(more) => vector.bytes = [vector.bytes.to_vec(), unhex(more)].concat().into(),
            None => {
                let (name, value) = line.trim_start().split_once(" =").unwrap();
                let value = value.strip_prefix(' ').unwrap_or(value);
                vector.fields.push((name.into(), value.into()));
            }
        }
    }
    vectors
}

#[test]
fn every_vector_of_the_specification_is_read_and_written_byte_for_byte() {
    let vectors = vectors();
    let numbers: Vec<&str> = vectors.iter().map(|vector| &vector.number[..]).collect();
    let expected: Vec<String> = (1..=38).map(|number| format!("V{number}")).collect();
    assert_eq!(numbers, expected);
    for vector in &vectors {
        let checked = registration(vector)
            || event(vector)
            || cast(vector)
            || change(vector)
            || question(vector)
            || answer(vector);
        assert!(checked, "nothing checks {} {}", vector.number, vector.message);
    }
}

fn registration(v: &Vector) -> bool {
    match &v.message[..] {
        "Heartbeat" => {
            let text = v.text("text");
            let frame = FrameReader::new().next(&mut &v.bytes[..], LIMIT, text.as_bytes());
            assert_eq!(frame, Ok(Some(Frame::Heartbeat)));
            assert_eq!(v.bytes[4..], *text.as_bytes());
        }
        "RegisterReq" => {
            let (events, goroutines) = (v.one("events"), v.one("processCmdGoroutineNum"));
            v.is(proto::RegisterReq { events, process_cmd_goroutine_num: goroutines });
            v.is_command(Cmd::Register);
            assert_eq!(requests::numbers(v.body()).unwrap()[0], events);
        }
        "RegisterResp" => {
            let (code, message, conn_id) = (v.one("code"), v.text("message"), v.text("connId"));
            v.is(proto::RegisterResp { code, message, conn_id: conn_id.clone() });
            let name = (!conn_id.is_empty()).then_some(&conn_id[..]);
            assert_eq!(wire::register_resp(RegisterCode::try_from(code).unwrap(), name), v.bytes);
        }
        "UnRegisterReq" => {
            v.is(proto::UnRegisterReq { conn_id: v.text("connId") });
            v.is_command(Cmd::Unregister);
            assert_eq!(requests::conn_id(v.body()), Ok(v.text("connId")));
        }
        "UnRegisterResp" => {
            v.is(proto::UnRegisterResp {});
            assert_eq!(wire::unregister_resp(), v.bytes);
        }
        _ => return false,
    }
    true
}

fn event(v: &Vector) -> bool {
    let uniq_id = || -> [u8; 28] { v.text("uniqId").into_bytes().try_into().unwrap() };
    let (customer_id, session) = (v.text("customerId"), v.text("session"));
    let (topics, data) = (v.list("topics"), v.data("data"));
    let list = topics.iter().map(String::as_str);
    let info = OpenInfo {
        raw_query: v.text("rawQuery"),
        sub_protocols: v.list("subProtocol"),
        x_forwarded_for: v.text("xForwardedFor"),
        x_real_ip: v.text("xRealIp"),
        remote_addr: v.text("remoteAddr"),
    };
    let ours = match &v.message[..] {
        "ConnOpen6" => {
            v.is(open6(&v.text("uniqId"), &info));
            assert_eq!(wire::conn_open_body(Generation::G6, &uniq_id(), &info), v.body());
            wire::conn_open(Generation::G6, &uniq_id(), &info)
        }
        "ConnOpen5" => {
            v.is(open5(&v.text("uniqId"), &info));
            assert_eq!(wire::conn_open_body(Generation::G5, &uniq_id(), &info), v.body());
            wire::conn_open(Generation::G5, &uniq_id(), &info)
        }
        "Transfer" => {
            let ours = worker::transfer(&uniq_id(), &customer_id, &session, list, &data);
            v.is(proto::Transfer { uniq_id: v.text("uniqId"), customer_id, session, topics, data });
            ours
        }
        "ConnClose" => {
            let ours = worker::conn_close(&uniq_id(), &customer_id, &session, list);
            v.is(proto::ConnClose { uniq_id: v.text("uniqId"), customer_id, session, topics });
            ours
        }
        _ => return false,
    };
    assert_eq!(ours, v.bytes, "{}", v.number);
    true
}

fn cast(v: &Vector) -> bool {
    let (uniq_id, uniq_ids) = (v.text("uniqId"), v.list("uniqIds"));
    let (topics, data, payloads) = (v.list("topics"), v.data("data"), v.payloads("data"));
    let conns: Vec<ConnId> = uniq_ids.iter().map(|id| ids().decode(id).unwrap()).collect();
    match &v.message[..] {
        "SingleCast" => {
            v.is(proto::SingleCast { uniq_id, data: data.clone() });
            v.is_command(Cmd::SingleCast);
            let cast = requests::single_cast::<ConnId>(v.body(), &ids()).unwrap();
            assert_eq!((cast.targets, cast.data), (vec![U6], data));
        }
        "SingleCastByCustomerId" => {
            let customer_id = v.text("customerId");
            v.is(proto::SingleCastByCustomerId { customer_id, data: data.clone() });
            v.is_command(Cmd::SingleCastByCustomerId);
            let cast = requests::single_cast::<Box<str>>(v.body(), &ids()).unwrap();
            assert_eq!((cast.targets, cast.data), (vec!["42".into()], data));
        }
        "SingleCastBulk" => {
            v.is(proto::SingleCastBulk { uniq_ids, data: payloads.clone() });
            v.is_command(Cmd::SingleCastBulk);
            let bulk = requests::bulk::<ConnId>(v.body(), &ids()).unwrap();
            let targets: Vec<ConnId> = bulk.targets.into_iter().map(Option::unwrap).collect();
            assert_eq!((targets, bulk.data), (conns, payloads));
        }
        "Multicast" => {
            v.is(proto::Multicast { uniq_ids, data: data.clone() });
            v.is_command(Cmd::Multicast);
            let cast = requests::cast::<ConnId>(v.body(), &ids()).unwrap();
            assert_eq!((cast.targets, cast.data), (vec![U6, U6B], data));
        }
        "Broadcast" => {
            v.is(proto::Broadcast { data: data.clone() });
            v.is_command(Cmd::Broadcast);
            assert_eq!(requests::broadcast(v.body()), Ok(data));
        }
        "TopicPublish" => {
            v.is(proto::TopicPublish { topics, data: data.clone() });
            v.is_command(Cmd::TopicPublish);
            let cast = requests::cast::<Box<str>>(v.body(), &ids()).unwrap();
            assert_eq!((cast.targets, cast.data), (vec!["room".into(), "news".into()], data));
        }
        "TopicPublishBulk" => {
            v.is(proto::TopicPublishBulk { topics, data: payloads.clone() });
            v.is_command(Cmd::TopicPublishBulk);
            let bulk = requests::bulk::<Box<str>>(v.body(), &ids()).unwrap();
            let expected = vec![Some("room".into()), Some("news".into())];
            assert_eq!((bulk.targets, bulk.data), (expected, payloads));
        }
        _ => return false,
    }
    true
}

fn change(v: &Vector) -> bool {
    let (uniq_id, uniq_ids, data) = (v.text("uniqId"), v.list("uniqIds"), v.data("data"));
    match &v.message[..] {
        "ConnInfoUpdate" => {
            let (session, customer) = (v.text("newSession"), v.text("newCustomerId"));
            v.is(proto::ConnInfoUpdate {
                uniq_id,
                new_session: session.clone(),
                new_customer_id: customer.clone(),
                new_topics: v.list("newTopics"),
                data: data.clone(),
            });
            v.is_command(Cmd::ConnInfoUpdate);
            let update = requests::info_update(v.body(), &ids()).unwrap();
            assert_eq!((update.conn, &*update.session), (Some(U6), &session[..]));
            assert_eq!((&*update.customer_id, update.data), (&customer[..], data));
            assert_eq!(update.topics, Some(vec!["room".into(), "news".into()]));
        }
        "TopicSubscribe" => {
            v.is(proto::TopicSubscribe { uniq_id, topics: v.list("topics"), data: data.clone() });
            v.is_command(Cmd::TopicSubscribe);
            let update = requests::topic_update(v.body(), &ids()).unwrap();
            assert_eq!((update.conn, update.data), (Some(U6), data));
            assert_eq!(update.topics, Some(vec!["room".into(), "news".into()]));
        }
        "ForceOffline" => {
            v.is(proto::ForceOffline { uniq_ids, data: data.clone() });
            v.is_command(Cmd::ForceOffline);
            let cast = requests::cast::<ConnId>(v.body(), &ids()).unwrap();
            assert_eq!((cast.targets, cast.data), (vec![U6], data));
        }
        "ForceOfflineGuest" => {
            v.is(proto::ForceOfflineGuest { uniq_ids, delay: v.one("delay"), data });
            v.is_command(Cmd::ForceOfflineGuest);
            let kick = requests::guest_kick(v.body(), &ids()).unwrap();
            assert_eq!((kick.targets, kick.delay), (vec![U6], v.one("delay")));
            assert!(kick.data.is_empty());
        }
        _ => return false,
    }
    true
}

fn question(v: &Vector) -> bool {
    match &v.message[..] {
        "UniqIdCount" => {
            v.is_command(Cmd::UniqIdCount);
            assert!(v.body().is_empty());
        }
        "LimitReq" => {
            let (on_open, on_message) = (v.one("onOpen"), v.one("onMessage"));
            v.is(proto::LimitReq { on_open, on_message });
            v.is_command(Cmd::Limit);
            assert_eq!(requests::numbers(v.body()), Ok([on_open, on_message]));
        }
        "CheckOnlineReq" => {
            v.is(proto::CheckOnlineReq { uniq_ids: v.list("uniqIds") });
            v.is_command(Cmd::CheckOnline);
            let question = requests::question::<ConnId>(v.body(), &ids()).unwrap();
            assert_eq!(question.targets, [U6, U6B]);
        }
        "ConnOpenResp" => {
            let (session, customer) = (v.text("newSession"), v.text("newCustomerId"));
            let (allow, data) = (v.flag("allow"), v.data("data"));
            v.is(proto::ConnOpenResp {
                allow,
                new_session: session.clone(),
                new_customer_id: customer.clone(),
                new_topics: v.list("newTopics"),
                data: data.clone(),
            });
            let (session, customer_id) = (session.into(), customer.into());
            let verdict =
                Verdict { allow, session, customer_id, topics: vec!["room".into()], data };
            assert_eq!(Verdict::decode(&v.body()), Ok(verdict));
        }
        _ => return false,
    }
    true
}

fn answer(v: &Vector) -> bool {
    let (key, uniq_ids, count) = (v.text("items"), v.list("uniqIds"), v.one("count"));
    let ours = match &v.message[..] {
        "UniqIdCountResp" => {
            v.is(proto::UniqIdCountResp { count });
            answers::count(Cmd::UniqIdCount, count as u64)
        }
        "LimitResp" => {
            let (on_open, on_message) = (v.one("onOpen"), v.one("onMessage"));
            v.is(proto::LimitResp { on_open, on_message });
            wire::limit_resp(on_open, on_message)
        }
        "CheckOnlineResp" => {
            v.is(proto::CheckOnlineResp { uniq_ids });
            answers::uniq_ids(Cmd::CheckOnline, &[U6], &ids())
        }
        "ConnInfoResp" => {
            let (session, customer_id) = (v.text("session"), v.text("customerId"));
            let item = proto::ConnInfoRespItem { session, customer_id, topics: v.list("topics") };
            v.is(proto::ConnInfoResp { items: BTreeMap::from([(key, item.clone())]) });
            let proto::ConnInfoRespItem { session, customer_id, topics } = &item;
            let info = answers::ConnInfo { session, customer_id, topics };
            answers::conn_infos([(U6, info)].into_iter(), &ids())
        }
        "TopicUniqIdListResp" => {
            let item = proto::TopicUniqIdListRespItem { uniq_ids };
            v.is(proto::TopicUniqIdListResp { items: BTreeMap::from([(key.clone(), item)]) });
            answers::topic_uniq_ids([(&*key, &[U6][..])].into_iter(), &ids())
        }
        // prost leaves default values of map entries out, so it only reads these two.
        "TopicCustomerIdCountResp" => {
            let items = BTreeMap::from([(key.clone(), count)]);
            v.decodes_to(&proto::TopicCustomerIdCountResp { items });
            let items = [(&*key, count as u64)].into_iter();
            answers::topic_counts(Cmd::TopicCustomerIdCount, items)
        }
        "TopicCustomerIdListResp" => {
            let items = BTreeMap::from([(key.clone(), Default::default())]);
            v.decodes_to(&proto::TopicCustomerIdListResp { items });
            answers::topic_customer_ids::<String>([(&*key, &[][..])].into_iter())
        }
        "MetricsResp" => {
            let item = proto::MetricsRespItem {
                item: v.one("items"),
                count: v.one("count"),
                mean_rate: v.one("meanRate"),
                rate1: v.one("rate1"),
                rate5: v.one("rate5"),
                rate15: v.one("rate15"),
            };
            v.is(proto::MetricsResp { items: BTreeMap::from([(item.item, item)]) });
            wire::metrics_resp(&[metric(&item)])
        }
        _ => return false,
    };
    assert_eq!(ours, v.bytes, "{}", v.number);
    true
}

fn metric(item: &proto::MetricsRespItem) -> wire::MetricItem {
    let proto::MetricsRespItem { item, count, mean_rate, rate1, rate5, rate15 } = *item;
    wire::MetricItem { item, count, mean_rate, rate1, rate5, rate15 }
}

fn open5(uniq_id: &str, info: &OpenInfo) -> proto::ConnOpen5 {
    let OpenInfo { raw_query, sub_protocols, x_forwarded_for, x_real_ip, remote_addr } =
        info.clone();
    let (uniq_id, sub_protocol) = (uniq_id.into(), sub_protocols);
    proto::ConnOpen5 { uniq_id, raw_query, sub_protocol, x_forwarded_for, x_real_ip, remote_addr }
}

fn open6(uniq_id: &str, info: &OpenInfo) -> proto::ConnOpen6 {
    let OpenInfo { raw_query, x_forwarded_for, x_real_ip, remote_addr, .. } = info.clone();
    let uniq_id = uniq_id.into();
    proto::ConnOpen6 { uniq_id, raw_query, x_forwarded_for, x_real_ip, remote_addr }
}
