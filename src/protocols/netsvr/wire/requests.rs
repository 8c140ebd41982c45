//! Bodies of commands and queries (sections 5.2 and 5.3), read without intermediate strings.
//!
//! What cannot be read as protobuf, invalid UTF-8 in a string included, is an error. As in the Go
//! gateway unknown fields, and known ones of another wire type, are skipped; of a single field that
//! occurs repeatedly the last one counts.
//! Costs: names are one allocation each, uniqIds none: they are turned into `ConnId`s, and those
//! that cannot be of this gateway are dropped at once. Payloads are slices of the frame.

use std::ops::Range;

use bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::hub::ConnId;
use crate::wire::worker::{UniqId, UniqIds};

/// Why a body cannot be read. Concerns only the command it came with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("not protobuf: {0}")]
    Malformed(#[from] prost::DecodeError),
    #[error("a field is longer than the message")]
    Truncated,
    #[error("a string is not UTF-8")]
    NotUtf8,
}

/// What a string in a list of targets names.
pub trait Name: Sized {
    /// `None`: certainly nothing (section 6.0).
    fn parse(text: &str, ids: &UniqIds) -> Option<Self>;
}

impl Name for ConnId {
    fn parse(text: &str, ids: &UniqIds) -> Option<ConnId> {
        ids.decode(text)
    }
}

/// A connection of whichever gateway.
impl Name for UniqId {
    fn parse(text: &str, _: &UniqIds) -> Option<UniqId> {
        UniqId::parse(text)
    }
}

/// A customerId or topic.
impl Name for Box<str> {
    fn parse(text: &str, _: &UniqIds) -> Option<Box<str>> {
        (!text.is_empty()).then(|| text.into())
    }
}

/// `Broadcast`.
pub fn broadcast(body: Bytes) -> Result<Bytes, DecodeError> {
    let mut fields = Fields::new(body);
    let mut data = 0..0;
    while let Some(field) = fields.next()? {
        if let (1, Value::Len(range)) = field {
            data = range;
        }
    }
    Ok(fields.into_slice(data))
}

/// Targets and a payload.
#[derive(Debug)]
pub struct Cast<T> {
    pub targets: Vec<T>,
    /// Empty: none.
    pub data: Bytes,
}

/// `Multicast`, `MulticastByCustomerId`, `TopicDelete`, `TopicPublish`, `ForceOffline`,
/// `ForceOfflineByCustomerId`: a list and a payload.
pub fn cast<T: Name>(body: Bytes, ids: &UniqIds) -> Result<Cast<T>, DecodeError> {
    let mut fields = Fields::new(body);
    let (mut targets, mut data) = (Vec::new(), 0..0);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Len(range)) => targets.extend(T::parse(fields.text(range)?, ids)),
            (2, Value::Len(range)) => data = range,
            _ => {}
        }
    }
    Ok(Cast { targets, data: fields.into_slice(data) })
}

/// `SingleCast`, `SingleCastByCustomerId`: one target at the most.
pub fn single_cast<T: Name>(body: Bytes, ids: &UniqIds) -> Result<Cast<T>, DecodeError> {
    let mut fields = Fields::new(body);
    let (mut target, mut data) = (None, 0..0);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Len(range)) => target = T::parse(fields.text(range)?, ids),
            (2, Value::Len(range)) => data = range,
            _ => {}
        }
    }
    Ok(Cast { targets: Vec::from_iter(target), data: fields.into_slice(data) })
}

/// As many targets and payloads as the message has, because they belong together by number.
#[derive(Debug)]
pub struct Bulk<T> {
    pub targets: Vec<Option<T>>,
    pub data: Vec<Bytes>,
}

/// `SingleCastBulk`, `SingleCastBulkByCustomerId`, `TopicPublishBulk`.
pub fn bulk<T: Name>(body: Bytes, ids: &UniqIds) -> Result<Bulk<T>, DecodeError> {
    let mut fields = Fields::new(body);
    let (mut targets, mut data) = (Vec::new(), Vec::new());
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Len(range)) => targets.push(T::parse(fields.text(range)?, ids)),
            (2, Value::Len(range)) => data.push(fields.body.slice(range)),
            _ => {}
        }
    }
    Ok(Bulk { targets, data })
}

/// `ForceOfflineGuest`.
#[derive(Debug)]
pub struct GuestKick {
    pub targets: Vec<ConnId>,
    /// Seconds; 0 and less is now.
    pub delay: i32,
    pub data: Bytes,
}

/// `ForceOfflineGuest`.
pub fn guest_kick(body: Bytes, ids: &UniqIds) -> Result<GuestKick, DecodeError> {
    let mut fields = Fields::new(body);
    let (mut targets, mut delay, mut data) = (Vec::new(), 0, 0..0);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Len(range)) => targets.extend(ids.decode(fields.text(range)?)),
            (2, Value::Varint(value)) => delay = value as i32,
            (3, Value::Len(range)) => data = range,
            _ => {}
        }
    }
    Ok(GuestKick { targets, delay, data: fields.into_slice(data) })
}

/// `TopicSubscribe`, `TopicUnsubscribe`.
#[derive(Debug)]
pub struct TopicUpdate {
    pub conn: Option<ConnId>,
    /// `None`: the list is empty. A list of empty strings gives an empty one.
    pub topics: Option<Vec<Box<str>>>,
    pub data: Bytes,
}

/// `TopicSubscribe`, `TopicUnsubscribe`.
pub fn topic_update(body: Bytes, ids: &UniqIds) -> Result<TopicUpdate, DecodeError> {
    let mut fields = Fields::new(body);
    let (mut conn, mut topics, mut data) = (None, None, 0..0);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Len(range)) => conn = ids.decode(fields.text(range)?),
            (2, Value::Len(range)) => add(&mut topics, fields.text(range)?),
            (3, Value::Len(range)) => data = range,
            _ => {}
        }
    }
    Ok(TopicUpdate { conn, topics, data: fields.into_slice(data) })
}

/// `ConnInfoUpdate`.
#[derive(Debug)]
pub struct InfoUpdate {
    pub conn: Option<ConnId>,
    /// Empty strings leave things as they are.
    pub session: Box<str>,
    pub customer_id: Box<str>,
    /// As in [`TopicUpdate`].
    pub topics: Option<Vec<Box<str>>>,
    pub data: Bytes,
}

/// `ConnInfoUpdate`.
pub fn info_update(body: Bytes, ids: &UniqIds) -> Result<InfoUpdate, DecodeError> {
    let mut fields = Fields::new(body);
    let (mut conn, mut topics, mut data) = (None, None, 0..0);
    let (mut session, mut customer_id) = (Box::default(), Box::default());
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Len(range)) => conn = ids.decode(fields.text(range)?),
            (3, Value::Len(range)) => session = fields.text(range)?.into(),
            (4, Value::Len(range)) => customer_id = fields.text(range)?.into(),
            (5, Value::Len(range)) => add(&mut topics, fields.text(range)?),
            (6, Value::Len(range)) => data = range,
            _ => {}
        }
    }
    Ok(InfoUpdate { conn, session, customer_id, topics, data: fields.into_slice(data) })
}

/// `ConnInfoDelete`.
#[derive(Debug)]
pub struct InfoDelete {
    pub conn: Option<ConnId>,
    pub session: bool,
    pub customer_id: bool,
    pub topics: bool,
    pub data: Bytes,
}

/// `ConnInfoDelete`.
pub fn info_delete(body: Bytes, ids: &UniqIds) -> Result<InfoDelete, DecodeError> {
    let mut fields = Fields::new(body);
    let (mut conn, mut data) = (None, 0..0);
    let (mut session, mut customer_id, mut topics) = (false, false, false);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Len(range)) => conn = ids.decode(fields.text(range)?),
            (2, Value::Varint(value)) => session = value != 0,
            (3, Value::Varint(value)) => customer_id = value != 0,
            (4, Value::Varint(value)) => topics = value != 0,
            (5, Value::Len(range)) => data = range,
            _ => {}
        }
    }
    Ok(InfoDelete { conn, session, customer_id, topics, data: fields.into_slice(data) })
}

/// A list of targets and the flags beside it: `CheckOnlineReq`, the `Topic...Req`s, `ConnInfoReq`
/// and `ConnInfoByCustomerIdReq`.
#[derive(Debug)]
pub struct Question<T> {
    pub targets: Vec<T>,
    /// Fields 2 (`countAll`, `reqSession`), 3 (`reqCustomerId`, `reqUniqId`) and 4 (`reqTopic`).
    pub flags: [bool; 3],
}

/// See [`Question`].
pub fn question<T: Name>(body: Bytes, ids: &UniqIds) -> Result<Question<T>, DecodeError> {
    let mut fields = Fields::new(body);
    let (mut targets, mut flags) = (Vec::new(), [false; 3]);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Len(range)) => targets.extend(T::parse(fields.text(range)?, ids)),
            (tag @ 2..=4, Value::Varint(value)) => flags[tag as usize - 2] = value != 0,
            _ => {}
        }
    }
    Ok(Question { targets, flags })
}

/// Two int32 fields: `LimitReq`, and the events of `RegisterReq`.
pub fn numbers(body: Bytes) -> Result<[i32; 2], DecodeError> {
    let mut fields = Fields::new(body);
    let mut numbers = [0; 2];
    while let Some(field) = fields.next()? {
        if let (tag @ 1..=2, Value::Varint(value)) = field {
            numbers[tag as usize - 1] = value as i32;
        }
    }
    Ok(numbers)
}

/// `UnRegisterReq`.
pub fn conn_id(body: Bytes) -> Result<String, DecodeError> {
    let mut fields = Fields::new(body);
    let mut conn_id = String::new();
    while let Some(field) = fields.next()? {
        if let (1, Value::Len(range)) = field {
            conn_id = fields.text(range)?.into();
        }
    }
    Ok(conn_id)
}

fn add(topics: &mut Option<Vec<Box<str>>>, topic: &str) {
    let topics = topics.get_or_insert_default();
    if !topic.is_empty() {
        topics.push(topic.into());
    }
}

/// The value of a field.
enum Value {
    Varint(u64),
    /// Where the contents of a string, bytes or message field are in the body.
    Len(Range<usize>),
    /// Of a wire type that no field of a request has.
    Other,
}

/// The fields of a message, in the order in which they come.
struct Fields {
    body: Bytes,
    /// Never beyond the end of the body.
    at: usize,
}

impl Fields {
    fn new(body: Bytes) -> Fields {
        Fields { body, at: 0 }
    }

    fn next(&mut self) -> Result<Option<(u32, Value)>, DecodeError> {
        let mut rest = &self.body[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let (tag, wire_type) = decode_key(&mut rest)?;
        let value = match wire_type {
            WireType::Varint => Value::Varint(decode_varint(&mut rest)?),
            WireType::LengthDelimited => {
                let len = decode_varint(&mut rest)?;
                let start = self.body.len() - rest.len();
                let len = usize::try_from(len).map_err(|_| DecodeError::Truncated)?;
                rest = rest.get(len..).ok_or(DecodeError::Truncated)?;
                Value::Len(start..start + len)
            }
            other => {
                skip_field(other, tag, &mut rest, DecodeContext::default())?;
                Value::Other
            }
        };
        self.at = self.body.len() - rest.len();
        Ok(Some((tag, value)))
    }

    fn text(&self, range: Range<usize>) -> Result<&str, DecodeError> {
        std::str::from_utf8(&self.body[range]).map_err(|_| DecodeError::NotUtf8)
    }

    /// A part of the body. The usual place of a payload is the end, which costs no second
    /// allocation for sharing the first.
    fn into_slice(self, range: Range<usize>) -> Bytes {
        let mut body = self.body;
        if range.end == body.len() {
            body.advance(range.start);
            return body;
        }
        body.slice(range)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use prost::Message;
    use prost::encoding::encode_varint;

    use super::*;
    use crate::wire::worker::proto;

    const U6: &str = "7f00000117ae65e5a1000000002a";

    fn ids() -> UniqIds {
        UniqIds::new("127.0.0.1:6062".parse().unwrap())
    }

    /// Messages of fields with random tags and wire types, mostly well-formed, sometimes cut off.
    fn soups() -> impl Strategy<Value = Bytes> {
        let contents = prop_oneof![
            Just(U6.as_bytes().to_vec()),
            Just(Vec::new()),
            Just(b"room".to_vec()),
            Just(b"7f00000117ad65e5a1000000002a".to_vec()),
            Just(b"\xff\xfe".to_vec()),
            vec(any::<u8>(), 0..8),
        ];
        let long = (1u64..8, contents).prop_map(|(tag, contents)| {
            let mut field = vec![(tag << 3 | 2) as u8];
            encode_varint(contents.len() as u64, &mut field);
            field.extend(contents);
            field
        });
        let number = (1u64..8, any::<u64>(), 0..64u32).prop_map(|(tag, value, shift)| {
            let mut field = vec![(tag << 3) as u8];
            encode_varint(value >> shift, &mut field);
            field
        });
        let field = prop_oneof![
            12 => long,
            6 => number,
            1 => Just(b"\x7d1234".to_vec()),
            1 => Just(b"\x7b\x08\x01\x7c".to_vec()),
            1 => vec(any::<u8>(), 0..4),
        ];
        (vec(field, 0..8), prop::option::weighted(0.2, any::<prop::sample::Index>())).prop_map(
            |(fields, cut)| {
                let mut soup = fields.concat();
                if let Some(cut) = cut {
                    soup.truncate(cut.index(soup.len() + 1));
                }
                Bytes::from(soup)
            },
        )
    }

    fn conns(list: &[String]) -> Vec<ConnId> {
        list.iter().filter_map(|id| ids().decode(id)).collect()
    }

    fn names(list: &[String]) -> Vec<Box<str>> {
        list.iter().filter(|name| !name.is_empty()).map(|name| name[..].into()).collect()
    }

    /// As lists are kept where an empty one is not the same as one of empty strings.
    fn listed(list: &[String]) -> Option<Vec<Box<str>>> {
        (!list.is_empty()).then(|| names(list))
    }

    // What prost reads we read, and the same. Only what prost rejects may be an error here.
    proptest! {
        #[test]
        fn payloads_and_targets_are_what_prost_reads(soup in soups()) {
            let ids = ids();
            if let Ok(cast) = proto::Broadcast::decode(soup.clone()) {
                prop_assert_eq!(broadcast(soup.clone()).unwrap(), cast.data);
            }
            if let Ok(read) = proto::Multicast::decode(soup.clone()) {
                let cast = cast::<ConnId>(soup.clone(), &ids).unwrap();
                prop_assert_eq!((cast.targets, cast.data), (conns(&read.uniq_ids), read.data));
            }
            if let Ok(read) = proto::TopicPublish::decode(soup.clone()) {
                let cast = cast::<Box<str>>(soup.clone(), &ids).unwrap();
                prop_assert_eq!((cast.targets, cast.data), (names(&read.topics), read.data));
            }
            if let Ok(read) = proto::SingleCast::decode(soup.clone()) {
                let cast = single_cast::<ConnId>(soup.clone(), &ids).unwrap();
                prop_assert_eq!((cast.targets, cast.data), (conns(&[read.uniq_id]), read.data));
            }
            if let Ok(read) = proto::TopicPublishBulk::decode(soup.clone()) {
                let bulk = bulk::<Box<str>>(soup.clone(), &ids).unwrap();
                let targets: Vec<String> =
                    bulk.targets.into_iter().map(|name| name.unwrap_or_default().into()).collect();
                prop_assert_eq!((targets, bulk.data), (read.topics, read.data));
            }
            if let Ok(read) = proto::ForceOfflineGuest::decode(soup.clone()) {
                let kick = guest_kick(soup, &ids).unwrap();
                prop_assert_eq!((kick.targets, kick.delay), (conns(&read.uniq_ids), read.delay));
                prop_assert_eq!(kick.data, read.data);
            }
        }

        #[test]
        fn changes_are_what_prost_reads(soup in soups()) {
            let ids = ids();
            if let Ok(read) = proto::TopicSubscribe::decode(soup.clone()) {
                let update = topic_update(soup.clone(), &ids).unwrap();
                prop_assert_eq!(update.conn, ids.decode(&read.uniq_id));
                prop_assert_eq!((update.topics, update.data), (listed(&read.topics), read.data));
            }
            if let Ok(read) = proto::ConnInfoUpdate::decode(soup.clone()) {
                let update = info_update(soup.clone(), &ids).unwrap();
                prop_assert_eq!(update.conn, ids.decode(&read.uniq_id));
                prop_assert_eq!(&*update.session, &read.new_session);
                prop_assert_eq!(&*update.customer_id, &read.new_customer_id);
                let topics = listed(&read.new_topics);
                prop_assert_eq!((update.topics, update.data), (topics, read.data));
            }
            if let Ok(read) = proto::ConnInfoDelete::decode(soup.clone()) {
                let delete = info_delete(soup, &ids).unwrap();
                prop_assert_eq!(delete.conn, ids.decode(&read.uniq_id));
                prop_assert_eq!(delete.session, read.del_session);
                prop_assert_eq!(delete.customer_id, read.del_customer_id);
                prop_assert_eq!((delete.topics, delete.data), (read.del_topic, read.data));
            }
        }

        #[test]
        fn questions_are_what_prost_reads(soup in soups()) {
            let ids = ids();
            if let Ok(read) = proto::ConnInfoReq::decode(soup.clone()) {
                let question = question::<ConnId>(soup.clone(), &ids).unwrap();
                let flags = [read.req_session, read.req_customer_id, read.req_topic];
                prop_assert_eq!((question.targets, question.flags), (conns(&read.uniq_ids), flags));
            }
            if let Ok(read) = proto::ConnInfoByCustomerIdReq::decode(soup.clone()) {
                let question = question::<Box<str>>(soup.clone(), &ids).unwrap();
                let flags = [read.req_session, read.req_uniq_id, read.req_topic];
                let users = names(&read.customer_ids);
                prop_assert_eq!((question.targets, question.flags), (users, flags));
            }
            if let Ok(read) = proto::TopicUniqIdCountReq::decode(soup.clone()) {
                let question = question::<Box<str>>(soup.clone(), &ids).unwrap();
                prop_assert_eq!(question.targets, names(&read.topics));
                prop_assert_eq!(question.flags[0], read.count_all);
            }
            if let Ok(read) = proto::LimitReq::decode(soup.clone()) {
                prop_assert_eq!(numbers(soup.clone()), Ok([read.on_open, read.on_message]));
            }
            if let Ok(read) = proto::UnRegisterReq::decode(soup.clone()) {
                prop_assert_eq!(conn_id(soup), Ok(read.conn_id));
            }
        }
    }

    #[test]
    fn unknown_fields_and_known_ones_of_another_type_are_skipped() {
        let soup = b"\x08\x05\x0a\x04room\x7d1234\x7b\x08\x01\x7c\x12\x01x\x9a\x06\x00";
        let cast = cast::<Box<str>>(Bytes::from_static(soup), &ids()).unwrap();
        assert_eq!((cast.targets, cast.data), (vec!["room".into()], Bytes::from_static(b"x")));
    }

    #[test]
    fn what_is_not_protobuf_is_an_error() {
        for soup in [
            &b"\x0a"[..],
            b"\x0a\x05room",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x0a\x01\xff",
            b"\x00",
            b"\x7c",
            b"\x7b\x08\x01",
            b"\x0e",
        ] {
            let body = Bytes::copy_from_slice(soup);
            assert!(cast::<Box<str>>(body.clone(), &ids()).is_err(), "{soup:?}");
            assert!(proto::TopicPublish::decode(body).is_err(), "{soup:?}");
        }
        let body = Bytes::from_static(b"\x0a\x01\xff");
        assert_eq!(cast::<ConnId>(body, &ids()).unwrap_err(), DecodeError::NotUtf8);
    }

    #[test]
    fn a_payload_shares_the_memory_of_its_frame() {
        for (at, message) in [(8, &b"\x0a\x04room\x12\x01x"[..]), (2, b"\x12\x01x\x0a\x04room")] {
            let body = Bytes::copy_from_slice(message);
            let place = body[at..].as_ptr();
            let data = cast::<Box<str>>(body, &ids()).unwrap().data;
            assert_eq!((data.as_ptr(), &data[..]), (place, &b"x"[..]));
        }
    }
}
