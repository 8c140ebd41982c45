//! Events that clients of every protocol cause: what they said, and that they have left (netsvr
//! section 5.4).
//!
//! Costs: one allocation of exact size per event, two passes over the topics.
//! An event that would be longer than a frame can be (4 GiB) goes without session and topics: those
//! may have come in many frames, customer and data in one each.

use bytes::Bytes;

use super::encode::{Encode, bytes_size, empty, frame, list_size, put_bytes, put_list};
use super::{Cmd, UniqIds};

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

fn event<'a, T: Iterator<Item = &'a str> + Clone>(cmd: Cmd, event: &Event<'_, T>) -> Bytes {
    let bare = || {
        let Event { uniq_id, customer_id, data, .. } = *event;
        let topics = std::iter::empty();
        frame(cmd, &Event { uniq_id, customer_id, session: "", topics, data })
    };
    frame(cmd, event).or_else(bare).unwrap_or_else(|| empty(cmd))
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
    use prost::Message;

    use super::*;
    use crate::wire::worker::{HEADER, proto};

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
