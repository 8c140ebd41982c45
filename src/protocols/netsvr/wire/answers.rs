//! Responses (section 5.3): whole frames, one allocation of exact size each, whatever they list.
//!
//! Entries of maps have key and value also when these are default, all else is canonical (section
//! 3.5). Counts saturate at the maximum of int32. A response that would be longer than a frame can
//! be (4 GiB) becomes the empty response: exactly one response follows each query, and no part of
//! a list is passed off as the whole.

use bytes::{Buf, Bytes};

use super::RegisterCode;
use crate::wire::worker::encode::{
    Encode, bytes_size, float_size, frame, int_size, len_field_size, list_size, put_bytes,
    put_float, put_int, put_len, put_len_field, put_list, put_varint_field, varint_field_size,
};
use crate::wire::worker::{Cmd, HEADER, Named, UniqIds, encode};

/// The response in which every field has its default.
pub fn empty(cmd: Cmd) -> Bytes {
    encode::empty(cmd)
}

/// `RegisterResp`; `conn_id` on success only.
pub fn register_resp(code: RegisterCode, conn_id: Option<&str>) -> Bytes {
    response(Cmd::Register, &Registration { code, conn_id: conn_id.unwrap_or_default() })
}

/// `UnRegisterResp`.
pub fn unregister_resp() -> Bytes {
    empty(Cmd::Unregister)
}

/// `LimitResp`: the rates in force, per second.
pub fn limit_resp(on_open: i32, on_message: i32) -> Bytes {
    response(Cmd::Limit, &Rates { on_open, on_message })
}

/// One metric item of section 4.4.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricItem {
    pub item: i32,
    /// Since start.
    pub count: i64,
    /// Per second since start.
    pub mean_rate: f32,
    /// Per second, averaged over 1, 5 and 15 minutes.
    pub rate1: f32,
    pub rate5: f32,
    pub rate15: f32,
}

/// `MetricsResp`; the items in this order.
pub fn metrics_resp(items: &[MetricItem]) -> Bytes {
    response(Cmd::Metrics, &Metrics(items))
}

/// A number: `count` = 1.
pub fn count(cmd: Cmd, count: u64) -> Bytes {
    response(cmd, &Count(saturated(count)))
}

/// A list of uniqIds: `uniqIds` = 1.
pub fn uniq_ids<C: Named>(cmd: Cmd, conns: &[C], ids: &C::Ids) -> Bytes {
    response(cmd, &Conns(conns, ids))
}

/// A list of customerIds or topics, field 1.
pub fn names<S: AsRef<str>>(cmd: Cmd, names: &[S]) -> Bytes {
    response(cmd, &Names(names))
}

/// `TopicUniqIdCountResp`, `TopicCustomerIdCountResp`.
pub fn topic_counts<'a>(cmd: Cmd, topics: impl Iterator<Item = (&'a str, u64)> + Clone) -> Bytes {
    response(cmd, &map(1, topics.map(|(topic, count)| (Text::Str(topic), CountEntry(count)))))
}

/// `TopicUniqIdListResp`, whose map is field 2.
pub fn topic_uniq_ids<'a, C: Named + 'a>(
    topics: impl Iterator<Item = (&'a str, &'a [C])> + Clone,
    ids: &C::Ids,
) -> Bytes {
    let entries = topics.map(|(topic, conns)| (Text::Str(topic), Nested(2, Conns(conns, ids))));
    response(Cmd::TopicUniqIdList, &map(2, entries))
}

/// `TopicCustomerIdListResp`.
pub fn topic_customer_ids<'a, S: AsRef<str> + 'a>(
    topics: impl Iterator<Item = (&'a str, &'a [S])> + Clone,
) -> Bytes {
    let entries = topics.map(|(topic, names)| (Text::Str(topic), Nested(2, Names(names))));
    response(Cmd::TopicCustomerIdList, &map(1, entries))
}

/// `TopicCustomerIdToUniqIdsListResp`.
pub fn topic_customer_uniq_ids<'a, C, U>(
    topics: impl Iterator<Item = (&'a str, U)> + Clone,
    ids: &C::Ids,
) -> Bytes
where
    C: Named + 'a,
    U: Iterator<Item = (&'a str, &'a [C])> + Clone,
{
    let customer =
        |(name, conns): (&'a str, &'a [C])| (Text::Str(name), Nested(2, Conns(conns, ids)));
    let entries = topics
        .map(|(topic, customers)| (Text::Str(topic), Nested(2, map(1, customers.map(customer)))));
    response(Cmd::TopicCustomerIdToUniqIdsList, &map(1, entries))
}

/// What a response says about one connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnInfo<'a, S> {
    pub session: &'a str,
    /// Empty where it was not asked for, or where the uniqId is in its place.
    pub customer_id: &'a str,
    pub topics: &'a [S],
}

/// `ConnInfoResp`.
pub fn conn_infos<'a, C: Named, S: AsRef<str> + 'a>(
    conns: impl Iterator<Item = (C, ConnInfo<'a, S>)> + Clone,
    ids: &C::Ids,
) -> Bytes {
    let entries = conns.map(|(conn, info)| {
        let name = Text::Str(info.customer_id);
        (Text::UniqId(conn.uniq_id(ids)), Nested(2, InfoItem { info, name }))
    });
    response(Cmd::ConnInfo, &map(1, entries))
}

/// `ConnInfoByCustomerIdResp`; the uniqIds only if `with_uniq_ids`.
pub fn customer_infos<'a, C, S, I>(
    customers: impl Iterator<Item = (&'a str, I)> + Clone,
    with_uniq_ids: bool,
    ids: &C::Ids,
) -> Bytes
where
    C: Named,
    S: AsRef<str> + 'a,
    I: Iterator<Item = (C, ConnInfo<'a, S>)> + Clone,
{
    let item = |(conn, info): (C, ConnInfo<'a, S>)| {
        let name = if with_uniq_ids { Text::UniqId(conn.uniq_id(ids)) } else { Text::Str("") };
        Nested(1, InfoItem { info, name })
    };
    let entries =
        customers.map(|(customer, conns)| (Text::Str(customer), Nested(2, Each(conns.map(item)))));
    response(Cmd::ConnInfoByCustomerId, &map(1, entries))
}

/// One response of several to the same command: their fields one after the other, as if one message
/// had been written (the fields of each are elements of lists and maps). In pieces, the header
/// first; nothing is copied.
pub fn join(cmd: Cmd, mut responses: Vec<Bytes>) -> Vec<Bytes> {
    responses.iter_mut().for_each(|response| response.advance(HEADER));
    responses.retain(|fields| !fields.is_empty());
    let size: usize = responses.iter().map(Bytes::len).sum();
    let Some(header) = encode::header(cmd, size) else { return vec![empty(cmd)] };
    responses.insert(0, header);
    responses
}

fn response(cmd: Cmd, message: &impl Encode) -> Bytes {
    frame(cmd, message).unwrap_or_else(|| empty(cmd))
}

fn saturated(count: u64) -> i64 {
    count.min(i32::MAX as u64) as i64
}

/// A string that is at hand, or a uniqId.
#[derive(Clone, Copy)]
enum Text<'a> {
    Str(&'a str),
    UniqId([u8; UniqIds::LEN]),
}

impl Text<'_> {
    fn len(&self) -> usize {
        match self {
            Text::Str(text) => text.len(),
            Text::UniqId(id) => id.len(),
        }
    }

    /// The field, also when the string is empty.
    fn put(&self, tag: u8, out: &mut Vec<u8>) {
        match self {
            Text::Str(text) => put_len_field(tag, text.as_bytes(), out),
            Text::UniqId(id) => put_len_field(tag, id, out),
        }
    }
}

/// uniqIds = 1.
struct Conns<'a, C: Named>(&'a [C], &'a C::Ids);

impl<C: Named> Encode for Conns<'_, C> {
    fn size(&self) -> usize {
        self.0.len() * len_field_size(UniqIds::LEN)
    }

    fn put(&self, out: &mut Vec<u8>) {
        let Conns(conns, ids) = self;
        conns.iter().for_each(|conn| put_len_field(1, &conn.uniq_id(ids), out));
    }
}

/// customerIds or topics = 1.
struct Names<'a, S>(&'a [S]);

impl<S: AsRef<str>> Encode for Names<'_, S> {
    fn size(&self) -> usize {
        list_size(self.0.iter().map(S::as_ref))
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_list(1, self.0.iter().map(S::as_ref), out);
    }
}

struct Count(i64);

impl Encode for Count {
    fn size(&self) -> usize {
        int_size(self.0)
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_int(1, self.0, out);
    }
}

/// The value of a map entry that is a count.
struct CountEntry(u64);

impl Encode for CountEntry {
    fn size(&self) -> usize {
        varint_field_size(saturated(self.0))
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_varint_field(2, saturated(self.0), out);
    }
}

/// A field that is a message, also when that is empty.
struct Nested<M>(u8, M);

impl<M: Encode> Encode for Nested<M> {
    fn size(&self) -> usize {
        len_field_size(self.1.size())
    }

    fn put(&self, out: &mut Vec<u8>) {
        let Nested(tag, message) = self;
        put_len(*tag, message.size(), out);
        message.put(out);
    }
}

/// Several fields, one after the other.
struct Each<I>(I);

impl<M: Encode, I: Iterator<Item = M> + Clone> Encode for Each<I> {
    fn size(&self) -> usize {
        self.0.clone().map(|field| field.size()).sum()
    }

    fn put(&self, out: &mut Vec<u8>) {
        self.0.clone().for_each(|field| field.put(out));
    }
}

/// A map entry: the key is field 1, the value writes itself as field 2.
struct Entry<'a, V>(Text<'a>, V);

impl<V: Encode> Encode for Entry<'_, V> {
    fn size(&self) -> usize {
        len_field_size(self.0.len()) + self.1.size()
    }

    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(1, out);
        self.1.put(out);
    }
}

/// A map with string keys.
fn map<'a, V: Encode>(
    tag: u8,
    entries: impl Iterator<Item = (Text<'a>, V)> + Clone,
) -> impl Encode {
    Each(entries.map(move |(key, value)| Nested(tag, Entry(key, value))))
}

/// `ConnInfoRespItem` and `ConnInfoByCustomerIdRespItem`, in which field 2 is another name.
struct InfoItem<'a, S> {
    info: ConnInfo<'a, S>,
    name: Text<'a>,
}

impl<S: AsRef<str>> Encode for InfoItem<'_, S> {
    fn size(&self) -> usize {
        let name = self.name.len();
        bytes_size(self.info.session.as_bytes())
            + if name == 0 { 0 } else { len_field_size(name) }
            + list_size(self.info.topics.iter().map(S::as_ref))
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(1, self.info.session.as_bytes(), out);
        if self.name.len() > 0 {
            self.name.put(2, out);
        }
        put_list(3, self.info.topics.iter().map(S::as_ref), out);
    }
}

struct Registration<'a> {
    code: RegisterCode,
    conn_id: &'a str,
}

impl Registration<'_> {
    fn message(&self) -> &'static [u8] {
        match self.code {
            RegisterCode::Success => b"Success",
            RegisterCode::UnmarshalError => b"UnmarshalError",
            RegisterCode::InvalidEvent => b"InvalidEvent",
            RegisterCode::DuplicateRegister => b"DuplicateRegister",
        }
    }
}

impl Encode for Registration<'_> {
    fn size(&self) -> usize {
        int_size(self.code as i64)
            + bytes_size(self.message())
            + bytes_size(self.conn_id.as_bytes())
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_int(1, self.code as i64, out);
        put_bytes(2, self.message(), out);
        put_bytes(3, self.conn_id.as_bytes(), out);
    }
}

struct Rates {
    on_open: i32,
    on_message: i32,
}

impl Encode for Rates {
    fn size(&self) -> usize {
        int_size(self.on_open.into()) + int_size(self.on_message.into())
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_int(1, self.on_open.into(), out);
        put_int(2, self.on_message.into(), out);
    }
}

/// items = 1: a map from the number of an item to the item.
struct Metrics<'a>(&'a [MetricItem]);

impl Metrics<'_> {
    fn entry_size(item: &MetricItem) -> usize {
        varint_field_size(item.item.into()) + len_field_size(item.size())
    }
}

impl Encode for Metrics<'_> {
    fn size(&self) -> usize {
        self.0.iter().map(|item| len_field_size(Metrics::entry_size(item))).sum()
    }

    fn put(&self, out: &mut Vec<u8>) {
        for item in self.0 {
            put_len(1, Metrics::entry_size(item), out);
            put_varint_field(1, item.item.into(), out);
            put_len(2, item.size(), out);
            item.put(out);
        }
    }
}

impl MetricItem {
    /// The rates with their field numbers.
    fn floats(&self) -> [(u8, f32); 4] {
        [(3, self.mean_rate), (5, self.rate1), (7, self.rate5), (9, self.rate15)]
    }
}

impl Encode for MetricItem {
    fn size(&self) -> usize {
        int_size(self.item.into())
            + int_size(self.count)
            + self.floats().iter().map(|(_, rate)| float_size(*rate)).sum::<usize>()
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_int(1, self.item.into(), out);
        put_int(2, self.count, out);
        self.floats().iter().for_each(|(tag, rate)| put_float(*tag, *rate, out));
    }
}
