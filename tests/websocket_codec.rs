//! The WebSocket codec: the vectors of `vectors/websocket.txt`, and that neither the cutting of the
//! byte stream nor pauses change what is decoded, for valid, damaged and random streams.

#[path = "websocket_codec/strict.rs"]
mod strict;

use std::collections::VecDeque;

use proptest::prelude::*;
use ringway::wire::deflate::{Deflater, InflateError, Inflater};
use ringway::wire::websocket::{
    COMPRESS_ABOVE, CloseCodes, Decoder, Event, Opcode, Rules, close, close_echo, frame,
    frame_compressed, mask_frame, pong,
};

/// What a decoder may hold beyond the message limit.
const OVERHEAD_BYTES_MAX: usize = 16 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Vec<u8>),
    Violation(u16, String),
}

impl Seen {
    fn of(event: Event<'_>) -> Seen {
        match event {
            Event::Message { opcode: Opcode::Text, data } => Seen::Text(data.to_vec()),
            Event::Message { opcode: Opcode::Binary, data } => Seen::Binary(data.to_vec()),
            Event::Ping(data) => Seen::Ping(data.to_vec()),
            Event::Pong(data) => Seen::Pong(data.to_vec()),
            Event::Close(data) => Seen::Close(data.to_vec()),
        }
    }
}

/// A connection as a shard drives it.
struct Peer {
    decoder: Decoder,
    inflater: Inflater,
    rules: Rules,
    seen: Vec<Seen>,
    /// Whether to pause after each event, repeated; a pause ends before the next piece or after it.
    pauses: Vec<(bool, bool)>,
    events: usize,
    stashed: usize,
}

impl Peer {
    fn new(rules: Rules) -> Peer {
        Peer {
            decoder: Decoder::default(),
            inflater: Inflater::new(),
            rules,
            seen: Vec::new(),
            pauses: vec![(false, false)],
            events: 0,
            stashed: 0,
        }
    }

    /// Feeds the stream in pieces that end at the given places. Nothing follows a violation.
    fn feed(&mut self, stream: &[u8], ends: &[usize]) {
        let mut start = 0;
        let mut resume_now = true;
        for end in ends.iter().copied().chain([stream.len()]) {
            let end = end.clamp(start, stream.len());
            let mut piece = stream[start..end].to_vec();
            start = end;
            if !resume_now {
                self.decoder.stash(&piece);
                self.stashed += piece.len();
                piece.clear();
            }
            match self.receive(&mut piece) {
                Some(now) => resume_now = now,
                None => return,
            }
        }
    }

    /// Decodes a piece; tells whether the next one is decoded at once. `None` after a violation.
    fn receive(&mut self, mut input: &mut [u8]) -> Option<bool> {
        let mut resume_now = true;
        loop {
            match self.decoder.next(&mut input, self.rules, &mut self.inflater) {
                Ok(Some(event)) => {
                    self.seen.push(Seen::of(event));
                    let (pause, after_next) = self.pauses[self.events % self.pauses.len()];
                    self.events += 1;
                    if pause {
                        self.decoder.stash(input);
                        self.stashed += input.len();
                        input = &mut [];
                        resume_now = !after_next;
                    }
                }
                Ok(None) => {
                    assert!(input.is_empty(), "{} bytes are left", input.len());
                    let max = self.rules.message_bytes_max as usize + OVERHEAD_BYTES_MAX;
                    let held = self.decoder.held();
                    assert!(held <= max + 2 * self.stashed, "{held} bytes are held");
                    return Some(resume_now);
                }
                Err(violation) => {
                    self.seen.push(Seen::Violation(violation.code, violation.reason.to_owned()));
                    return None;
                }
            }
        }
    }
}

/// What is decoded from a stream that arrives in one piece.
fn decode(stream: &[u8], rules: Rules) -> Vec<Seen> {
    let mut peer = Peer::new(rules);
    peer.feed(stream, &[]);
    peer.seen
}

// ---- Vectors ----

#[derive(Default)]
struct Vector {
    title: String,
    deflate: bool,
    netsvr: bool,
    limit: Option<u32>,
    client: Vec<u8>,
    expected: Vec<Seen>,
    made: Vec<u8>,
    gateway: Vec<u8>,
}

fn hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect(text)).collect()
}

fn code_and_text(text: &str) -> (u16, &str) {
    let (code, text) = text.split_once(' ').expect(text);
    (code.parse().expect(code), text)
}

fn encode(text: &str) -> Vec<u8> {
    let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
    let frame = match kind {
        "text" => frame(Opcode::Text, &hex(rest)),
        "binary" => frame(Opcode::Binary, &hex(rest)),
        "pong" => pong(&hex(rest)),
        "echo" => close_echo(&hex(rest)),
        "close" => {
            let (code, reason) = code_and_text(rest);
            close(code, reason)
        }
        _ => panic!("unknown frame {text}"),
    };
    frame.to_vec()
}

impl Vector {
    fn line(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "rules" if rest == "deflate" => self.deflate = true,
            "rules" if rest == "netsvr" => self.netsvr = true,
            "rules" => {
                let limit = rest.strip_prefix("limit ").expect(line);
                self.limit = Some(limit.parse().expect(line));
            }
            "client" => self.client.extend(hex(rest)),
            "text" => self.expected.push(Seen::Text(hex(rest))),
            "binary" => self.expected.push(Seen::Binary(hex(rest))),
            "ping" => self.expected.push(Seen::Ping(hex(rest))),
            "pong" => self.expected.push(Seen::Pong(hex(rest))),
            "close" => self.expected.push(Seen::Close(hex(rest))),
            "violation" => {
                let (code, text) = code_and_text(rest);
                self.expected.push(Seen::Violation(code, text.to_owned()));
            }
            "encode" => self.made.extend(encode(rest)),
            "gateway" => self.gateway.extend(hex(rest)),
            _ => panic!("unknown line {line}"),
        }
    }

    fn rules(&self) -> Rules {
        let close_codes = if self.netsvr { CloseCodes::Netsvr } else { CloseCodes::Registered };
        let message_bytes_max = self.limit.unwrap_or(1000);
        Rules { message_bytes_max, deflate: self.deflate, close_codes }
    }
}

fn vectors() -> Vec<Vector> {
    let text = include_str!("vectors/websocket.txt");
    let mut vectors: Vec<Vector> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            Some(line) => vectors.last_mut().expect("a title comes first").line(line),
            None => vectors.push(Vector { title: line.to_owned(), ..Vector::default() }),
        }
    }
    vectors
}

#[test]
fn every_vector_decodes_and_encodes_byte_for_byte() {
    let vectors = vectors();
    assert!(vectors.len() > 70, "only {} vectors were read", vectors.len());
    for vector in &vectors {
        assert_eq!(vector.made, vector.gateway, "{}", vector.title);
        assert_eq!(decode(&vector.client, vector.rules()), vector.expected, "{}", vector.title);
    }
}

#[test]
fn every_vector_gives_the_same_events_however_it_is_cut() {
    for vector in vectors() {
        let every_byte: Vec<usize> = (1..vector.client.len()).collect();
        let mut peer = Peer::new(vector.rules());
        peer.feed(&vector.client, &every_byte);
        assert_eq!(peer.seen, vector.expected, "{}", vector.title);
        for cut in every_byte {
            let mut peer = Peer::new(vector.rules());
            peer.feed(&vector.client, &[cut]);
            assert_eq!(peer.seen, vector.expected, "{} cut at {cut}", vector.title);
        }
    }
}

// ---- Properties ----

#[derive(Clone, Debug)]
enum Control {
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

#[derive(Clone, Debug)]
struct Message {
    opcode: Opcode,
    data: Vec<u8>,
    compressed: bool,
    /// Where fragments end, as parts of 256 of the payload.
    cuts: Vec<u8>,
    /// What stands between fragments, from the first on.
    between: Vec<Control>,
    mask: [u8; 4],
}

impl Message {
    /// Appends the frames to a stream and the events to what is expected of it.
    fn send(&self, deflater: &mut Deflater, stream: &mut Vec<u8>, expected: &mut Vec<Seen>) {
        let mut payload = self.data.clone();
        if self.compressed {
            payload.clear();
            deflater.compress(&self.data, &mut payload);
        }
        let mut ends: Vec<usize> =
            self.cuts.iter().map(|part| payload.len() * usize::from(*part) / 256).collect();
        ends.sort_unstable();
        ends.push(payload.len());
        let mut between = self.between.iter();
        let mut start = 0;
        for (i, end) in ends.iter().copied().enumerate() {
            let opcode = match (i, self.opcode) {
                (0, Opcode::Text) => 1,
                (0, Opcode::Binary) => 2,
                _ => 0,
            };
            let fin = if i + 1 == ends.len() { 0x80 } else { 0 };
            let rsv1 = if i == 0 && self.compressed { 0x40 } else { 0 };
            stream.extend(mask_frame(fin | rsv1 | opcode, self.mask, &payload[start..end]));
            start = end;
            if fin == 0 {
                match between.next() {
                    Some(Control::Ping(data)) => {
                        stream.extend(mask_frame(0x89, self.mask, data));
                        expected.push(Seen::Ping(data.clone()));
                    }
                    Some(Control::Pong(data)) => {
                        stream.extend(mask_frame(0x8a, self.mask, data));
                        expected.push(Seen::Pong(data.clone()));
                    }
                    None => {}
                }
            }
        }
        expected.push(match self.opcode {
            Opcode::Text => Seen::Text(self.data.clone()),
            Opcode::Binary => Seen::Binary(self.data.clone()),
        });
    }
}

fn controls() -> impl Strategy<Value = Control> {
    let data = prop::collection::vec(any::<u8>(), 0..=125);
    (any::<bool>(), data)
        .prop_map(|(ping, data)| if ping { Control::Ping(data) } else { Control::Pong(data) })
}

fn messages() -> impl Strategy<Value = Message> {
    let text = prop::collection::vec(any::<char>(), 0..200)
        .prop_map(|text| (Opcode::Text, text.into_iter().collect::<String>().into_bytes()));
    let short = prop::collection::vec(any::<u8>(), 0..300).prop_map(|data| (Opcode::Binary, data));
    let long = (any::<u8>(), 60_000..70_000_usize)
        .prop_map(|(byte, len)| (Opcode::Binary, vec![byte; len]));
    (
        prop_oneof![4 => text, 4 => short, 1 => long],
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 0..4),
        prop::collection::vec(controls(), 0..3),
        any::<[u8; 4]>(),
    )
        .prop_map(|((opcode, data), compressed, cuts, between, mask)| Message {
            opcode,
            data,
            compressed,
            cuts,
            between,
            mask,
        })
}

/// A valid stream that ends with a close frame, and what it decodes to.
fn stream(messages: &[Message]) -> (Vec<u8>, Vec<Seen>) {
    let mut deflater = Deflater::new(1);
    let (mut stream, mut expected) = (Vec::new(), Vec::new());
    for message in messages {
        message.send(&mut deflater, &mut stream, &mut expected);
    }
    stream.extend(mask_frame(0x88, [9, 8, 7, 6], b"\x03\xe8bye"));
    expected.push(Seen::Close(b"\x03\xe8bye".to_vec()));
    (stream, expected)
}

/// Decodes in pieces and with pauses.
fn decode_cut(
    stream: &[u8],
    rules: Rules,
    cuts: &[u16],
    pauses: &[(bool, bool)],
) -> (Vec<Seen>, usize) {
    let mut ends: Vec<usize> =
        cuts.iter().map(|part| stream.len() * usize::from(*part) / 65536).collect();
    ends.sort_unstable();
    let mut peer = Peer::new(rules);
    peer.pauses = pauses.to_vec();
    peer.feed(stream, &ends);
    // What was stashed last is still to be decoded.
    if !matches!(peer.seen.last(), Some(Seen::Violation(..))) {
        peer.receive(&mut []);
    }
    (peer.seen, peer.decoder.held())
}

fn cuts() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(any::<u16>(), 0..40)
}

fn pauses() -> impl Strategy<Value = Vec<(bool, bool)>> {
    prop::collection::vec(any::<(bool, bool)>(), 1..6)
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_however_it_is_cut(
        messages in prop::collection::vec(messages(), 0..6),
        cuts in cuts(),
        pauses in pauses(),
    ) {
        let rules = Rules { message_bytes_max: 100_000, ..RULES };
        let (stream, expected) = stream(&messages);
        prop_assert_eq!(&decode(&stream, rules), &expected);
        let (seen, held) = decode_cut(&stream, rules, &cuts, &pauses);
        prop_assert_eq!(&seen, &expected);
        prop_assert_eq!(held, 0, "a decoder without a message holds nothing");
    }

    #[test]
    fn a_damaged_stream_gives_the_same_however_it_is_cut(
        messages in prop::collection::vec(messages(), 1..4),
        damage in prop::collection::vec((any::<u16>(), 1..=255_u8), 1..4),
        end in any::<u16>(),
        limit in prop_oneof![0..500_u32, 50_000..100_000_u32],
        deflate in any::<bool>(),
        cuts in cuts(),
        pauses in pauses(),
    ) {
        let rules = Rules { message_bytes_max: limit, deflate, ..RULES };
        let (mut stream, _) = stream(&messages);
        for (at, bits) in damage {
            let at = stream.len() * usize::from(at) / 65536;
            stream[at] ^= bits;
        }
        stream.truncate(stream.len() * (usize::from(end) + 65536) / 131_072);
        let (seen, _) = decode_cut(&stream, rules, &cuts, &pauses);
        prop_assert_eq!(seen, decode(&stream, rules));
    }

    #[test]
    fn random_bytes_give_the_same_however_they_are_cut(
        stream in prop::collection::vec(any::<u8>(), 0..600),
        cuts in cuts(),
        pauses in pauses(),
    ) {
        let rules = Rules { message_bytes_max: 300, ..RULES };
        let (seen, _) = decode_cut(&stream, rules, &cuts, &pauses);
        prop_assert_eq!(seen, decode(&stream, rules));
    }

    #[test]
    fn what_the_gateway_encodes_a_client_decodes(
        data in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..400),
            prop::collection::vec(any::<u8>(), 65_500..65_600),
        ],
        text in any::<bool>(),
        level in -2..=9_i8,
    ) {
        let opcode = if text { Opcode::Text } else { Opcode::Binary };
        let bits = if text { 0x81 } else { 0x82 };
        let plain = frame(opcode, &data);
        prop_assert_eq!(plain[0], bits);
        prop_assert_eq!(unframed(&plain), &data[..]);
        let packed = frame_compressed(opcode, &data, &mut Deflater::new(level));
        prop_assert_eq!(packed[0], bits | 0x40);
        let mut inflater = Inflater::new();
        prop_assert_eq!(inflater.inflate(unframed(&packed), data.len()), Ok(&data[..]));
        if !data.is_empty() {
            let error = inflater.inflate(unframed(&packed), data.len() - 1);
            prop_assert_eq!(error, Err(InflateError::TooBig));
        }
    }
}

/// The payload of one unmasked frame with the shortest possible length.
fn unframed(frame: &[u8]) -> &[u8] {
    let (len, at) = match frame[1] {
        126 => (usize::from(u16::from_be_bytes([frame[2], frame[3]])), 4),
        127 => (u64::from_be_bytes(frame[2..10].try_into().unwrap()) as usize, 10),
        len => (usize::from(len), 2),
    };
    assert!(at == 2 || len >= [126, 65536][usize::from(at == 10)], "{len} takes too many bytes");
    assert_eq!(frame.len(), at + len);
    &frame[at..]
}

// ---- Memory and order ----

const RULES: Rules = Rules {
    message_bytes_max: 2 * 1024 * 1024,
    deflate: true,
    close_codes: CloseCodes::Registered,
};

#[test]
fn a_complete_frame_is_decoded_without_memory() {
    let mut stream = mask_frame(0x81, [1, 2, 3, 4], "grüß".as_bytes());
    stream.extend(mask_frame(0x89, [1, 2, 3, 4], b"p"));
    let (mut decoder, mut inflater) = (Decoder::default(), Inflater::new());
    let mut input = &mut stream[..];
    for _ in 0..2 {
        let event = decoder.next(&mut input, RULES, &mut inflater);
        assert!(matches!(event, Ok(Some(_))));
        assert_eq!(decoder.held(), 0);
    }
    assert_eq!(decoder.next(&mut input, RULES, &mut inflater), Ok(None));
}

#[test]
fn an_announced_length_takes_no_memory() {
    let mut stream = vec![0x82, 0xff, 0, 0, 0, 0, 0, 0x20, 0, 0, 1, 2, 3, 4];
    stream.extend([0; 100]);
    let mut peer = Peer::new(RULES);
    peer.feed(&stream, &[]);
    assert_eq!(peer.seen, []);
    assert!((100..2000).contains(&peer.decoder.held()), "{} bytes", peer.decoder.held());
}

#[test]
fn a_message_of_many_pieces_never_takes_more_than_the_limit() {
    let limit = RULES.message_bytes_max as usize;
    let data: Vec<u8> = (0..limit).map(|i| (i * 7 + i / 256) as u8).collect();
    let ends: Vec<usize> = (0..limit).step_by(4096).collect();

    let mut peer = Peer::new(RULES);
    peer.feed(&mask_frame(0x82, [0xa5, 0x5a, 0x3c, 0xc3], &data), &ends);
    assert!(peer.seen == [Seen::Binary(data.clone())]);

    let mut stream = mask_frame(0x02, [5, 6, 7, 8], b"");
    for fragment in data.chunks(1000) {
        stream.extend(mask_frame(0x00, [5, 6, 7, 8], fragment));
    }
    stream.extend(mask_frame(0x80, [5, 6, 7, 8], b""));
    let mut peer = Peer::new(RULES);
    peer.feed(&stream, &ends);
    assert!(peer.seen == [Seen::Binary(data)]);
    assert_eq!(peer.decoder.held(), 0);
}

#[test]
fn what_is_stashed_is_decoded_first_and_then_freed() {
    let mut expected = VecDeque::new();
    let (mut decoder, mut inflater) = (Decoder::default(), Inflater::new());
    let mut stream = Vec::new();
    for i in 0..200_u8 {
        let data = vec![i; usize::from(i)];
        stream.extend(mask_frame(0x82, [i, 1, i, 2], &data));
        expected.push_back(data);
    }
    let (first, rest) = stream.split_at_mut(5000);
    decoder.stash(&first[..1234]);
    decoder.stash(&first[1234..]);
    assert!(decoder.held() >= 5000);
    let mut input = rest;
    while let Some(event) = decoder.next(&mut input, RULES, &mut inflater).unwrap() {
        assert_eq!(Seen::of(event), Seen::Binary(expected.pop_front().unwrap()));
    }
    assert!(expected.is_empty());
    assert_eq!(decoder.held(), 0);
}

#[test]
fn a_stash_that_is_never_empty_does_not_grow() {
    let (mut decoder, mut inflater) = (Decoder::default(), Inflater::new());
    let frame = mask_frame(0x82, [1, 2, 3, 4], &[7; 100]);
    decoder.stash(&frame);
    for _ in 0..10_000 {
        decoder.stash(&frame);
        let event = decoder.next(&mut &mut [][..], RULES, &mut inflater);
        assert_eq!(event.map(|event| event.map(Seen::of)), Ok(Some(Seen::Binary(vec![7; 100]))));
    }
    assert!(decoder.held() < 2000, "{} bytes", decoder.held());
}

#[test]
fn text_that_cannot_become_valid_is_refused_before_it_ends() {
    let frame = mask_frame(0x81, [1, 2, 3, 4], &[&b"ok \xff"[..], &[b'x'; 1000]].concat());
    let mut peer = Peer::new(RULES);
    peer.feed(&frame[..20], &[]);
    let reason = "invalid utf8 in text message".to_owned();
    assert_eq!(peer.seen, [Seen::Violation(1007, reason)]);
}

#[test]
fn a_close_reason_is_cut_between_characters() {
    let reason = "x".to_owned() + &"é".repeat(80);
    let frame = close(1011, &reason);
    assert_eq!(frame[..4], [0x88, 2 + 123, 0x03, 0xf3]);
    assert_eq!(frame[4..], reason.as_bytes()[..123]);
    let reason = "é".repeat(80);
    let frame = close(1011, &reason);
    assert_eq!(frame[..4], [0x88, 2 + 122, 0x03, 0xf3]);
    assert_eq!(frame[4..], reason.as_bytes()[..122]);
}

#[test]
fn payloads_above_256_bytes_are_worth_compressing() {
    assert_eq!(COMPRESS_ABOVE, 256);
    let payload = [b'a'; COMPRESS_ABOVE + 1];
    assert!(frame_compressed(Opcode::Text, &payload, &mut Deflater::new(1)).len() < 30);
}
