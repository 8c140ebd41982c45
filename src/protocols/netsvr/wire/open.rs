//! Opening: what a business is told or asked about a new client, and what its HTTP callback decides
//! (netsvr sections 5.1 and 7).
//!
//! Costs: one allocation of exact size per event.

use bytes::Bytes;
use prost::Message as _;

use super::Generation;
use crate::wire::worker::encode::{
    Encode, bytes_size, empty, frame, list_size, message, put_bytes, put_list,
};
use crate::wire::worker::{Cmd, UniqIds, proto};

/// What a business learns about a client's request (section 2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenInfo {
    /// Without `?`, not decoded.
    pub raw_query: String,
    /// All that were offered; generation 5 only.
    pub sub_protocols: Vec<String>,
    pub x_forwarded_for: String,
    pub x_real_ip: String,
    /// IP without port.
    pub remote_addr: String,
}

/// `ConnOpen`.
pub fn conn_open(generation: Generation, uniq_id: &[u8; UniqIds::LEN], info: &OpenInfo) -> Bytes {
    let open = Open { generation, uniq_id, info };
    frame(Cmd::ConnOpen, &open).unwrap_or_else(|| empty(Cmd::ConnOpen))
}

/// `ConnOpen` without the header, for the HTTP callback.
pub fn conn_open_body(
    generation: Generation,
    uniq_id: &[u8; UniqIds::LEN],
    info: &OpenInfo,
) -> Bytes {
    message(&Open { generation, uniq_id, info })
}

/// What the HTTP callback decided about a client (section 7.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub allow: bool,
    /// Empty strings stand for nothing.
    pub session: Box<str>,
    pub customer_id: Box<str>,
    /// None is empty.
    pub topics: Vec<Box<str>>,
    /// For the client; a slice of the body.
    pub data: Bytes,
}

impl Verdict {
    /// Reads a `ConnOpenResp`. An empty body is a denial.
    pub fn decode(body: &Bytes) -> Result<Verdict, prost::DecodeError> {
        let response = proto::ConnOpenResp::decode(body.clone())?;
        let topics = response.new_topics.into_iter().filter(|topic| !topic.is_empty());
        Ok(Verdict {
            allow: response.allow,
            session: response.new_session.into(),
            customer_id: response.new_customer_id.into(),
            topics: topics.map(String::into_boxed_str).collect(),
            data: response.data,
        })
    }
}

#[derive(Clone, Copy)]
struct Open<'a> {
    generation: Generation,
    uniq_id: &'a [u8; UniqIds::LEN],
    info: &'a OpenInfo,
}

impl Open<'_> {
    /// The fields after the query and the sub-protocols, in order.
    fn tail(&self) -> [&str; 3] {
        let info = self.info;
        [&info.x_forwarded_for, &info.x_real_ip, &info.remote_addr]
    }

    fn sub_protocols(&self) -> impl Iterator<Item = &str> {
        let offered = match self.generation {
            Generation::G5 => &self.info.sub_protocols[..],
            Generation::G6 => &[],
        };
        offered.iter().map(String::as_str)
    }
}

impl Encode for Open<'_> {
    fn size(&self) -> usize {
        bytes_size(self.uniq_id)
            + bytes_size(self.info.raw_query.as_bytes())
            + list_size(self.sub_protocols())
            + self.tail().iter().map(|field| bytes_size(field.as_bytes())).sum::<usize>()
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(1, self.uniq_id, out);
        put_bytes(2, self.info.raw_query.as_bytes(), out);
        put_list(3, self.sub_protocols(), out);
        let first = match self.generation {
            Generation::G5 => 4,
            Generation::G6 => 3,
        };
        for (tag, field) in (first..).zip(self.tail()) {
            put_bytes(tag, field.as_bytes(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::worker::HEADER;

    const UNIQ_ID: &[u8; 28] = b"7f00000117ae65e5a1000000002a";

    fn uniq_id() -> String {
        String::from_utf8(UNIQ_ID.to_vec()).unwrap()
    }

    /// The message of a frame whose header is right.
    fn body(cmd: Cmd, frame: &Bytes) -> Bytes {
        assert_eq!(frame[..4], (frame.len() as u32 - 4).to_be_bytes());
        assert_eq!(frame[4..HEADER], cmd.number().to_be_bytes());
        frame.slice(HEADER..)
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), ".{0,40}", ".{120,140}"]
    }

    proptest! {
        #[test]
        fn conn_open_is_what_prost_writes_in_both_generations(
            fields in prop::array::uniform4(text()),
            sub_protocols in vec(text(), 0..4),
        ) {
            let [raw_query, x_forwarded_for, x_real_ip, remote_addr] = fields;
            let info = OpenInfo {
                raw_query, sub_protocols, x_forwarded_for, x_real_ip, remote_addr,
            };
            let OpenInfo { raw_query, sub_protocols, x_forwarded_for, x_real_ip, remote_addr } =
                info.clone();
            let open = proto::ConnOpen6 {
                uniq_id: uniq_id(), raw_query, x_forwarded_for, x_real_ip, remote_addr,
            }.encode_to_vec();
            let frame = conn_open(Generation::G6, UNIQ_ID, &info);
            prop_assert_eq!(body(Cmd::ConnOpen, &frame), &open);
            prop_assert_eq!(conn_open_body(Generation::G6, UNIQ_ID, &info), open);
            let OpenInfo { raw_query, x_forwarded_for, x_real_ip, remote_addr, .. } = info.clone();
            let open = proto::ConnOpen5 {
                uniq_id: uniq_id(), raw_query, sub_protocol: sub_protocols, x_forwarded_for,
                x_real_ip, remote_addr,
            }.encode_to_vec();
            let frame = conn_open(Generation::G5, UNIQ_ID, &info);
            prop_assert_eq!(body(Cmd::ConnOpen, &frame), &open);
            prop_assert_eq!(conn_open_body(Generation::G5, UNIQ_ID, &info), open);
        }

        #[test]
        fn a_verdict_is_what_prost_reads(bytes in vec(any::<u8>(), 0..60)) {
            let bytes = Bytes::from(bytes);
            let read = proto::ConnOpenResp::decode(bytes.clone()).ok();
            let verdict = Verdict::decode(&bytes).ok();
            prop_assert_eq!(verdict.is_some(), read.is_some());
            prop_assert_eq!(verdict.map(|v| v.allow), read.map(|r| r.allow));
        }
    }

    #[test]
    fn an_empty_verdict_denies_and_empty_topics_are_skipped() {
        assert_eq!(Verdict::decode(&Bytes::new()), Ok(Verdict::default()));
        let new_topics = vec!["".into(), "room".into(), "".into()];
        let response = proto::ConnOpenResp { allow: true, new_topics, ..Default::default() };
        let verdict = Verdict::decode(&response.encode_to_vec().into()).unwrap();
        assert_eq!(verdict.topics, ["room".into()]);
        assert!(Verdict::decode(&Bytes::from_static(b"\x12\x01\xff")).is_err(), "invalid UTF-8");
    }
}
