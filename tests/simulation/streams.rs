//! What the gateway writes, taken apart again: WebSocket frames to clients, events and answers to
//! business connections. Anything that is not well-formed fails the test.

use bytes::Bytes;
use prost::Message;
use ringway::wire::deflate::Inflater;
use ringway::wire::worker::proto::{self, Cmd};

/// A frame to a client.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Data { text: bool, payload: Vec<u8> },
    Pong(Vec<u8>),
    Close(Vec<u8>),
}

/// The answer to an upgrade and the frames after it.
#[derive(Debug, Default)]
pub struct ClientStream {
    pub head: Vec<u8>,
    pub frames: Vec<Frame>,
    /// Bytes at the end that are no complete frame.
    pub rest: usize,
}

/// Takes the stream to a client apart. What is no upgrade is all head.
pub fn client(bytes: &[u8]) -> ClientStream {
    let mut stream = ClientStream::default();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let Some(end) = end.filter(|_| bytes.starts_with(b"HTTP/1.1 101 ")) else {
        stream.head = bytes.to_vec();
        return stream;
    };
    let (head, mut rest) = bytes.split_at(end + 4);
    stream.head = head.to_vec();
    let deflated = head.windows(24).any(|window| window == b"sec-websocket-extensions");
    let mut inflater = deflated.then(Inflater::new);
    while let Some((frame, size)) = frame(rest, &mut inflater) {
        stream.frames.push(frame);
        rest = &rest[size..];
    }
    stream.rest = rest.len();
    stream
}

fn frame(bytes: &[u8], inflater: &mut Option<Inflater>) -> Option<(Frame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(first & 0xb0, 0x80, "an unfragmented frame without RSV2 and RSV3: {first:x}");
    assert_eq!(second & 0x80, 0, "a server does not mask");
    let (len, start) = match second {
        126 => (u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?) as usize, 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize, 10),
        len => (len as usize, 2),
    };
    let payload = bytes.get(start..start + len)?;
    let compressed = first & 0x40 != 0;
    let deflated = inflater.is_some();
    let payload = match inflater {
        Some(inflater) if compressed => {
            inflater.inflate(payload, 1 << 20).expect("a valid deflate stream").to_vec()
        }
        None if compressed => panic!("compression was not negotiated"),
        _ => payload.to_vec(),
    };
    let frame = match first & 0x0f {
        1 | 2 => {
            let expected = deflated && payload.len() > 256;
            assert_eq!(compressed, expected, "payload of {} bytes", payload.len());
            Frame::Data { text: first & 0x0f == 1, payload }
        }
        8 => Frame::Close(payload),
        10 => Frame::Pong(payload),
        other => panic!("opcode {other} to a client"),
    };
    Some((frame, start + len))
}

/// What a worker is told about a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Open { query: String, address: String },
    Close { user: String, session: String, topics: Vec<String> },
    Transfer { user: String, session: String, topics: Vec<String>, data: Bytes },
}

/// A frame to a business connection.
#[derive(Clone, Debug)]
pub enum Told {
    Event { uniq_id: String, event: Event },
    Answer { cmd: Cmd, body: Bytes },
}

/// The frame at the front of the bytes and its length.
pub fn told(bytes: &[u8], generation5: bool) -> Option<(Told, usize)> {
    let len = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    assert!(len >= 4, "a business can not read a frame of {len} bytes");
    let body = bytes.get(4..4 + len)?;
    let number = u32::from_be_bytes(body[..4].try_into().expect("four bytes"));
    let cmd = Cmd::try_from(number).expect("a known command");
    let body = Bytes::copy_from_slice(&body[4..]);
    Some((interpret(cmd, body, generation5), 4 + len))
}

fn interpret(cmd: Cmd, body: Bytes, generation5: bool) -> Told {
    const WHY: &str = "the gateway writes valid protobuf";
    match cmd {
        Cmd::ConnOpen if generation5 => {
            let open = proto::ConnOpen5::decode(body).expect(WHY);
            let event = Event::Open { query: open.raw_query, address: open.remote_addr };
            Told::Event { uniq_id: open.uniq_id, event }
        }
        Cmd::ConnOpen => {
            let open = proto::ConnOpen6::decode(body).expect(WHY);
            let event = Event::Open { query: open.raw_query, address: open.remote_addr };
            Told::Event { uniq_id: open.uniq_id, event }
        }
        Cmd::ConnClose => {
            let proto::ConnClose { uniq_id, customer_id: user, session, topics } =
                proto::ConnClose::decode(body).expect(WHY);
            Told::Event { uniq_id, event: Event::Close { user, session, topics } }
        }
        Cmd::Transfer => {
            let proto::Transfer { uniq_id, customer_id: user, session, topics, data } =
                proto::Transfer::decode(body).expect(WHY);
            Told::Event { uniq_id, event: Event::Transfer { user, session, topics, data } }
        }
        cmd => Told::Answer { cmd, body },
    }
}
