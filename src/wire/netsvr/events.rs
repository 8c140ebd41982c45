//! Events: what the gateway tells a business, or asks its HTTP callback (sections 5.1, 5.4 and 7).
//!
//! Costs: one allocation of exact size per event, two passes over the topics.
//! An event that would be longer than a frame can be (4 GiB) goes without session and topics: those
//! may have come in many frames, customer and data in one each.

use bytes::Bytes;
use prost::Message as _;

use super::encode::{Encode, bytes_size, empty, frame, list_size, message, put_bytes, put_list};
use super::{Cmd, Generation, UniqIds, proto};

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

/// `ConnClose`. Its HTTP callback gets the same without the header.
pub fn conn_close<'a>(
    uniq_id: &[u8; UniqIds::LEN],
    customer_id: &str,
    session: &str,
    topics: impl Iterator<Item = &'a str> + Clone,
) -> Bytes {
    event(Cmd::ConnClose, &Event { uniq_id, customer_id, session, topics, data: &[] })
}

/// `Transfer`: a client's message.
pub fn transfer<'a>(
    uniq_id: &[u8; UniqIds::LEN],
    customer_id: &str,
    session: &str,
    topics: impl Iterator<Item = &'a str> + Clone,
    data: &[u8],
) -> Bytes {
    event(Cmd::Transfer, &Event { uniq_id, customer_id, session, topics, data })
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

fn event<'a, T: Iterator<Item = &'a str> + Clone>(cmd: Cmd, event: &Event<'_, T>) -> Bytes {
    let bare = || {
        let Event { uniq_id, customer_id, data, .. } = *event;
        let topics = std::iter::empty();
        frame(cmd, &Event { uniq_id, customer_id, session: "", topics, data })
    };
    frame(cmd, event).or_else(bare).unwrap_or_else(|| empty(cmd))
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

/// `ConnClose` or `Transfer`, which differ only in the data.
struct Event<'a, T> {
    uniq_id: &'a [u8; UniqIds::LEN],
    customer_id: &'a str,
    session: &'a str,
    topics: T,
    data: &'a [u8],
}

impl<'t, T: Iterator<Item = &'t str> + Clone> Encode for Event<'_, T> {
    fn size(&self) -> usize {
        bytes_size(self.uniq_id)
            + bytes_size(self.customer_id.as_bytes())
            + bytes_size(self.session.as_bytes())
            + list_size(self.topics.clone())
            + bytes_size(self.data)
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(1, self.uniq_id, out);
        put_bytes(2, self.customer_id.as_bytes(), out);
        put_bytes(3, self.session.as_bytes(), out);
        put_list(4, self.topics.clone(), out);
        put_bytes(5, self.data, out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::netsvr::HEADER;

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
        fn transfer_and_conn_close_are_what_prost_writes(
            customer_id in text(),
            session in text(),
            topics in vec(text(), 0..5),
            data in vec(any::<u8>(), 0..300),
        ) {
            let list = || topics.iter().map(String::as_str);
            let frame = conn_close(UNIQ_ID, &customer_id, &session, list());
            let (customer, kept) = (customer_id.clone(), session.clone());
            let close = proto::ConnClose {
                uniq_id: uniq_id(), customer_id: customer, session: kept, topics: topics.clone(),
            };
            prop_assert_eq!(body(Cmd::ConnClose, &frame), close.encode_to_vec());
            let frame = transfer(UNIQ_ID, &customer_id, &session, list(), &data);
            let data = data.into();
            let whole = proto::Transfer { uniq_id: uniq_id(), customer_id, session, topics, data };
            prop_assert_eq!(body(Cmd::Transfer, &frame), whole.encode_to_vec());
        }

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

    #[test]
    fn an_event_that_fits_no_frame_goes_without_session_and_topics() {
        let topic = "t".repeat(1 << 20);
        let topics = std::iter::repeat_n(&topic[..], 4096);
        let frame = transfer(UNIQ_ID, "42", "s", topics.clone(), b"hello");
        assert_eq!(frame, transfer(UNIQ_ID, "42", "", std::iter::empty(), b"hello"));
        let frame = conn_close(UNIQ_ID, "42", "s", topics);
        assert_eq!(frame, conn_close(UNIQ_ID, "42", "", std::iter::empty()));
    }
}
