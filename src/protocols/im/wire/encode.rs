//! Frames of the server (sections 5 to 7, 9, 11).
//!
//! Invariants: a frame says the version and counts the length as its connection does; a
//! notification has at least one message and at most [`FRAME_BYTES_MAX`] bytes, which the bounds of
//! a batch and the limits on what goes into one keep.
//! Costs: a message is serialized once ([`element`]) and copied into each body that has it; a body
//! is compressed at most once; a frame is one allocation of its exact size.

use bytes::Bytes;
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::header::flag;
use super::{ByteOrder, FRAME_BYTES_MAX, Flow, Gzip, HEADER_BYTES, Header, LenMode, proto};
use crate::wire::websocket::{self, Opcode};

/// How frames to one connection look; connections of the same `Wire` share them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// That of the client's LOGIN, four bits.
    pub version: u8,
    pub mode: LenMode,
    pub order: ByteOrder,
    /// Whether the client reads gzip.
    pub gzip: bool,
    /// Whether a frame is one binary message of a WebSocket.
    pub websocket: bool,
}

/// A header-only frame of the server: a response, or KICK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub seq: u32,
    pub command: u8,
    /// The number on the wire.
    pub status: u8,
}

/// Field 1 of `CRMessageResponse`, length-delimited.
const MESSAGES_KEY: u8 = 1 << 3 | 2;
/// Field 2 of it.
const CHATROOM_KEY: u8 = 2 << 3 | 2;

impl Wire {
    /// A response.
    pub fn response(self, answer: Answer) -> Bytes {
        self.bare(Flow::Response, answer)
    }

    /// A frame without body.
    fn bare(self, flow: Flow, answer: Answer) -> Bytes {
        let Answer { seq, command, status } = answer;
        let flag = flag(self.version, false, flow);
        let header = Header { len: self.mode.len(0), seq, command, flag, status };
        self.wrapped(header.bytes(self.order).to_vec())
    }

    /// A frame as the transport takes it.
    fn wrapped(self, frame: Vec<u8>) -> Bytes {
        match self.websocket {
            true => websocket::frame(Opcode::Binary, &frame),
            false => Bytes::from(frame),
        }
    }
}

/// KICK with this status number (section 8).
pub fn kick(wire: Wire, command: u8, status: u8) -> Bytes {
    wire.bare(Flow::Notification, Answer { seq: 0, command, status })
}

/// A message as an element of `CRMessageResponse`, with key and length.
pub fn element(message: &proto::CrMessage) -> Bytes {
    let len = message.encoded_len();
    let mut out = Vec::with_capacity(1 + encoded_len_varint(len as u64) + len);
    out.push(MESSAGES_KEY);
    encode_varint(len as u64, &mut out);
    message.encode_raw(&mut out);
    Bytes::from(out)
}

/// Bytes of the room's name in a `CRMessageResponse`.
pub fn chatroom_bytes(room: &str) -> usize {
    match room.len() {
        0 => 0,
        len => 1 + encoded_len_varint(len as u64) + len,
    }
}

/// A serialized `CRMessageResponse` of these elements. An empty room is not encoded.
pub fn notify_body<'a>(elements: impl Iterator<Item = &'a [u8]> + Clone, room: &str) -> Bytes {
    let len: usize = elements.clone().map(<[u8]>::len).sum();
    let mut out = Vec::with_capacity(len + chatroom_bytes(room));
    elements.for_each(|element| out.extend_from_slice(element));
    if !room.is_empty() {
        out.push(CHATROOM_KEY);
        encode_varint(room.len() as u64, &mut out);
        out.extend_from_slice(room.as_bytes());
    }
    debug_assert!(out.len() + HEADER_BYTES <= FRAME_BYTES_MAX, "{} bytes", out.len());
    Bytes::from(out)
}

/// The body of a notification, and its compressed form when somebody asked for it.
#[derive(Debug)]
pub struct NotifyBody {
    plain: Bytes,
    packed: Packed,
}

#[derive(Debug)]
enum Packed {
    Unknown,
    /// It is too short, or does not get smaller.
    No,
    Yes(Bytes),
}

impl NotifyBody {
    /// Of a serialized `CRMessageResponse`.
    pub fn new(plain: Bytes) -> NotifyBody {
        NotifyBody { plain, packed: Packed::Unknown }
    }

    /// Compresses the body, once: only if it has `min` bytes and becomes at most 90 % of it
    /// (section 7). `Some` says what it became.
    pub fn pack(&mut self, min: usize, gzip: &mut Gzip) -> Option<&Bytes> {
        if matches!(self.packed, Packed::Unknown) {
            self.packed = Packed::No;
            if self.plain.len() >= min {
                let packed = gzip.compress(&self.plain);
                if packed.len() <= self.plain.len() / 10 * 9 + self.plain.len() % 10 * 9 / 10 {
                    self.packed = Packed::Yes(packed);
                }
            }
        }
        self.packed()
    }

    /// The compressed form, if there is one already.
    pub fn packed(&self) -> Option<&Bytes> {
        match &self.packed {
            Packed::Yes(packed) => Some(packed),
            Packed::Unknown | Packed::No => None,
        }
    }
}

/// A CR_NOTIFY for connections of this kind. Compressed if they read that and the body was packed.
pub fn notification(wire: Wire, command: u8, body: &NotifyBody) -> Bytes {
    let packed = body.packed().filter(|_| wire.gzip);
    let bytes = packed.unwrap_or(&body.plain);
    let flag = flag(wire.version, packed.is_some(), Flow::Notification);
    let header = Header { len: wire.mode.len(bytes.len()), seq: 0, command, flag, status: 0 };
    let mut frame = Vec::with_capacity(HEADER_BYTES + bytes.len());
    frame.extend_from_slice(&header.bytes(wire.order));
    frame.extend_from_slice(bytes);
    wire.wrapped(frame)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TCP: Wire = Wire {
        version: 1,
        mode: LenMode::Body,
        order: ByteOrder::Big,
        gzip: true,
        websocket: false,
    };

    fn message(content: &[u8], to: &str, timestamp: u64) -> proto::CrMessage {
        proto::CrMessage {
            message_content: content.to_vec().into(),
            to: to.to_owned(),
            timestamp,
            ..Default::default()
        }
    }

    #[test]
    fn a_body_is_packed_only_if_that_pays() {
        let mut gzip = Gzip::new();
        let mut noise = 1_u32;
        let mut random = || {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        };
        let cases = [
            (vec![b'a'; 1023], false),
            (vec![b'a'; 1024], true),
            ((0..4000).map(|_| random()).collect(), false),
        ];
        for (plain, pays) in cases {
            let mut body = NotifyBody::new(plain.into());
            let packed = body.pack(1024, &mut gzip).cloned();
            assert_eq!(packed.is_some(), pays);
            let frame = notification(TCP, 8, &body);
            assert_eq!(frame[9], if pays { 0x16 } else { 0x12 });
            let plain = notification(Wire { gzip: false, ..TCP }, 8, &body);
            assert_eq!((plain[9], &plain[11..]), (0x12, &body.plain[..]));
        }
    }

    #[test]
    fn over_a_websocket_a_frame_is_one_binary_message() {
        let answer = Answer { seq: 1, command: 1, status: 0 };
        let plain = TCP.response(answer);
        let wrapped = Wire { websocket: true, ..TCP }.response(answer);
        assert_eq!(wrapped[..2], [0x82, 11]);
        assert_eq!(wrapped[2..], plain[..]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_body_is_what_prost_makes_of_it(
            messages in prop::collection::vec((any::<Vec<u8>>(), any::<u64>()), 1..5),
            room in "[a-z]{0,200}",
        ) {
            let messages: Vec<proto::CrMessage> =
                messages.iter().map(|(content, at)| message(content, &room, *at)).collect();
            let elements: Vec<Bytes> = messages.iter().map(element).collect();
            let body = notify_body(elements.iter().map(|element| &element[..]), &room);
            let whole = proto::CrMessageResponse { messages, chatroom: room.clone() };
            prop_assert_eq!(&body[..], &whole.encode_to_vec()[..]);
            let elements: usize = elements.iter().map(Bytes::len).sum();
            prop_assert_eq!(body.len(), elements + chatroom_bytes(&room));
        }

        #[test]
        fn frames_count_and_are_written_as_the_connection_says(
            content in any::<Vec<u8>>(),
            seq in any::<u32>(),
            little in any::<bool>(),
        ) {
            let body = NotifyBody::new(Bytes::from(content));
            let order = if little { ByteOrder::Little } else { ByteOrder::Big };
            for (mode, more) in [(LenMode::Body, 0), (LenMode::Rest, 7), (LenMode::Frame, 11)] {
                let wire = Wire { mode, order, ..TCP };
                let frame = notification(wire, 8, &body);
                let header = Header::parse(frame.first_chunk().unwrap(), order);
                prop_assert_eq!(header.len as usize, frame.len() - HEADER_BYTES + more);
                prop_assert_eq!((header.seq, header.status, header.command), (0, 0, 8));
                prop_assert_eq!(&frame[HEADER_BYTES..], &body.plain[..]);
                let frame = wire.response(Answer { seq, command: 5, status: 6 });
                let header = Header::parse(frame.first_chunk().unwrap(), order);
                prop_assert_eq!(header.len as usize, frame.len() - HEADER_BYTES + more);
                prop_assert_eq!((header.seq, header.status, header.command), (seq, 6, 5));
            }
        }
    }
}
