//! Reading of client frames.
//!
//! Two paths. A frame that lies complete in the input and is no fragment is unmasked and handed
//! out where it lies. Everything else goes through the box [`Partial`]: header bytes, then
//! payload, which is appended and unmasked as it arrives, so that a message in many pieces costs
//! time in proportion to its bytes.
//!
//! Invariants: after `next` said `None`, the box exists if and only if a frame or message is
//! incomplete. `message` bytes plus what the current frame still announces never exceed the limit.

use std::mem;

use super::{CONTROL_BYTES_MAX, CloseCodes, Event, Opcode, Rules, Violation};
use crate::wire::deflate::{InflateError, Inflater};

/// Two bytes, eight of extended length, four of mask.
const HEADER_BYTES_MAX: usize = 14;

const fn protocol_error(reason: &'static str) -> Violation {
    Violation { code: 1002, reason }
}

const TOO_BIG: Violation = Violation { code: 1009, reason: "message too big" };
const NOT_UTF8: Violation = Violation { code: 1007, reason: "invalid utf8 in text message" };
const NOT_DEFLATE: Violation = Violation { code: 1007, reason: "invalid deflate stream" };

/// The receiving side of one connection.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

const _: () = assert!(size_of::<Decoder>() == 8);

impl Decoder {
    /// Decodes the next event from what was kept and from the front of `input`, which is advanced.
    /// `None`: everything is consumed, and what was incomplete is kept. Call it until it says so;
    /// an empty `input` is allowed and goes on with what was stashed.
    ///
    /// # Errors
    /// The peer broke a rule of netsvr section 2.5. The close frame is due; do not call again.
    pub fn next<'e, 'i: 'e>(
        &'e mut self,
        input: &mut &'i mut [u8],
        rules: Rules,
        inflater: &'e mut Inflater,
    ) -> Result<Option<Event<'e>>, Violation> {
        self.settle();
        if self.partial.is_none() {
            match Header::parse(input, rules, None)? {
                Some((header, size)) if header.lies_in(input, size) => {
                    let payload = header.unmasked(input, size);
                    return header.event(payload, rules, inflater).map(Some);
                }
                None if input.is_empty() => return Ok(None),
                _ => {}
            }
        }
        self.partial.get_or_insert_with(Box::default).next(input, rules, inflater)
    }

    /// Keeps the rest of an input whose processing was interrupted; `next` goes on with it first.
    pub fn stash(&mut self, input: &[u8]) {
        self.settle();
        if !input.is_empty() {
            self.partial.get_or_insert_with(Box::default).stash(input);
        }
    }

    /// Whether input waits that was kept with [`Decoder::stash`].
    pub fn has_kept(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| !partial.stash.is_empty())
    }

    /// Bytes of memory held on the heap.
    pub fn held(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            size_of::<Partial>() + partial.stash.capacity() + partial.work.data.capacity()
        })
    }

    /// Frees what the event before has borrowed.
    fn settle(&mut self) {
        if let Some(partial) = &mut self.partial {
            partial.settle();
            if partial.is_idle() {
                self.partial = None;
            }
        }
    }
}

/// What a connection keeps between two inputs.
#[derive(Debug, Default)]
struct Partial {
    /// Input as it came, of which `taken` bytes are decoded.
    stash: Vec<u8>,
    taken: usize,
    work: Assembly,
}

impl Partial {
    fn next<'e, 'i: 'e>(
        &'e mut self,
        input: &mut &'i mut [u8],
        rules: Rules,
        inflater: &'e mut Inflater,
    ) -> Result<Option<Event<'e>>, Violation> {
        if self.stash.is_empty() {
            return self.work.step(input, rules, inflater);
        }
        self.stash(take(input, input.len()));
        let mut source = &mut self.stash[self.taken..];
        let before = source.len();
        let event = self.work.step(&mut source, rules, inflater);
        self.taken += before - source.len();
        event
    }

    /// Appends to the stash, from which decoded bytes are removed when they are the larger part.
    fn stash(&mut self, input: &[u8]) {
        if self.taken > self.stash.len() / 2 {
            self.stash.drain(..self.taken);
            self.taken = 0;
        }
        self.stash.extend_from_slice(input);
    }

    fn settle(&mut self) {
        if self.taken == self.stash.len() {
            self.stash = Vec::new();
            self.taken = 0;
        }
        if self.work.handed_out {
            self.work.handed_out = false;
            self.work.message = None;
            self.work.data = Vec::new();
            self.work.checked = 0;
        }
    }

    fn is_idle(&self) -> bool {
        let work = &self.work;
        self.stash.is_empty()
            && work.header_len == 0
            && work.frame.is_none()
            && work.message.is_none()
    }
}

/// A frame or message under construction.
#[derive(Debug)]
struct Assembly {
    /// The first `header_len` bytes of a header whose rest is to come.
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    /// The frame whose payload is incomplete; its `len` is what is missing, its mask begins there.
    frame: Option<Header>,
    /// The data message of which `data` has the payload so far.
    message: Option<Start>,
    data: Vec<u8>,
    /// How much of `data` is known to be valid UTF-8, if it is uncompressed text.
    checked: usize,
    /// `data` was given to the caller as a complete message.
    handed_out: bool,
    /// Payload of the control frame in `frame`.
    control: [u8; CONTROL_BYTES_MAX],
    control_len: usize,
}

/// What the first frame says about a message.
#[derive(Clone, Copy, Debug)]
struct Start {
    opcode: Opcode,
    compressed: bool,
}

impl Default for Assembly {
    fn default() -> Assembly {
        Assembly {
            header: [0; HEADER_BYTES_MAX],
            header_len: 0,
            frame: None,
            message: None,
            data: Vec::new(),
            checked: 0,
            handed_out: false,
            control: [0; CONTROL_BYTES_MAX],
            control_len: 0,
        }
    }
}

impl Assembly {
    /// Consumes `source` up to the next event or completely.
    fn step<'e, 's: 'e>(
        &'e mut self,
        source: &mut &'s mut [u8],
        rules: Rules,
        inflater: &'e mut Inflater,
    ) -> Result<Option<Event<'e>>, Violation> {
        loop {
            if self.frame.is_none() {
                let Some(header) = self.read_header(source, rules)? else { return Ok(None) };
                if header.lies_in(source, 0) && (header.is_control() || self.message.is_none()) {
                    let payload = header.unmasked(source, 0);
                    return header.event(payload, rules, inflater).map(Some);
                }
                self.begin(header);
            }
            let Some(header) = self.read_payload(source, rules)? else { return Ok(None) };
            if header.is_control() {
                let payload = &self.control[..self.control_len];
                return header.event(payload, rules, inflater).map(Some);
            }
            if let (true, Some(start)) = (header.fin, self.message) {
                self.handed_out = true;
                if start.is_plain_text() {
                    let valid = self.checked == self.data.len();
                    let message = Event::Message { opcode: Opcode::Text, data: &self.data };
                    return if valid { Ok(Some(message)) } else { Err(NOT_UTF8) };
                }
                return start.message(&self.data, rules, inflater).map(Some);
            }
        }
    }

    /// Consumes a header from what is kept and from `source`, or keeps what there is of it.
    fn read_header(
        &mut self,
        source: &mut &mut [u8],
        rules: Rules,
    ) -> Result<Option<Header>, Violation> {
        let message = self.message.map(|_| self.data.len());
        let kept = self.header_len;
        let more = source.len().min(HEADER_BYTES_MAX - kept);
        self.header[kept..kept + more].copy_from_slice(&source[..more]);
        match Header::parse(&self.header[..kept + more], rules, message)? {
            Some((header, size)) => {
                self.header_len = 0;
                take(source, size - kept);
                Ok(Some(header))
            }
            None => {
                self.header_len = kept + more;
                take(source, more);
                Ok(None)
            }
        }
    }

    /// Makes the frame the current one.
    fn begin(&mut self, header: Header) {
        if let FrameKind::Data(opcode) = header.kind {
            self.message = Some(Start { opcode, compressed: header.compressed });
        }
        self.control_len = 0;
        self.frame = Some(header);
    }

    /// Consumes payload of the current frame; gives its header when the frame is complete.
    fn read_payload(
        &mut self,
        source: &mut &mut [u8],
        rules: Rules,
    ) -> Result<Option<Header>, Violation> {
        let Some(mut frame) = self.frame.take() else { return Ok(None) };
        let piece = take(source, frame.len.min(source.len()));
        if frame.is_control() {
            let end = self.control_len + piece.len();
            self.control[self.control_len..end].copy_from_slice(piece);
            unmask(&mut self.control[self.control_len..end], frame.mask);
            self.control_len = end;
        } else {
            self.append(piece, &frame, rules);
            if self.message.is_some_and(Start::is_plain_text) {
                self.check_text()?;
            }
        }
        frame.len -= piece.len();
        frame.mask.rotate_left(piece.len() % 4);
        if frame.len > 0 {
            self.frame = Some(frame);
            return Ok(None);
        }
        Ok(Some(frame))
    }

    /// Appends payload. The buffer doubles, but not beyond what the message can come to.
    fn append(&mut self, piece: &[u8], frame: &Header, rules: Rules) {
        let start = self.data.len();
        let needed = start + piece.len();
        if needed > self.data.capacity() {
            let end = if frame.fin { start + frame.len } else { rules.message_bytes_max as usize };
            let capacity = needed.max(2 * self.data.capacity()).min(end.max(needed));
            self.data.reserve_exact(capacity - start);
        }
        self.data.extend_from_slice(piece);
        unmask(&mut self.data[start..], frame.mask);
    }

    /// Refuses text as soon as it cannot become valid any more. Every byte is looked at once, but
    /// for the at most three of an unfinished character.
    fn check_text(&mut self) -> Result<(), Violation> {
        match simdutf8::compat::from_utf8(&self.data[self.checked..]) {
            Ok(text) => self.checked += text.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(NOT_UTF8),
        }
        Ok(())
    }
}

impl Start {
    fn is_plain_text(self) -> bool {
        self.opcode == Opcode::Text && !self.compressed
    }

    /// The event of a complete payload.
    fn message<'e>(
        self,
        payload: &'e [u8],
        rules: Rules,
        inflater: &'e mut Inflater,
    ) -> Result<Event<'e>, Violation> {
        let data = if self.compressed {
            match inflater.inflate(payload, rules.message_bytes_max as usize) {
                Ok(data) => data,
                Err(InflateError::TooBig) => return Err(TOO_BIG),
                Err(InflateError::Corrupt) => return Err(NOT_DEFLATE),
            }
        } else {
            payload
        };
        if self.opcode == Opcode::Text && simdutf8::basic::from_utf8(data).is_err() {
            return Err(NOT_UTF8);
        }
        Ok(Event::Message { opcode: self.opcode, data })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FrameKind {
    Continuation,
    Data(Opcode),
    Ping,
    Pong,
    Close,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    fin: bool,
    compressed: bool,
    kind: FrameKind,
    mask: [u8; 4],
    len: usize,
}

impl Header {
    /// Reads and checks a header at the front of `bytes`; gives its size too. `None`: more bytes
    /// are needed. `message` is how much the message under way has, if there is one.
    #[inline]
    fn parse(
        bytes: &[u8],
        rules: Rules,
        message: Option<usize>,
    ) -> Result<Option<(Header, usize)>, Violation> {
        let [first, second, ..] = *bytes else { return Ok(None) };
        let kind = kind(first, second, rules.deflate, message.is_some())?;
        let Some((len, size)) = length(second & 0x7f, bytes)? else { return Ok(None) };
        let room = (rules.message_bytes_max as usize).saturating_sub(message.unwrap_or(0));
        if !is_control(kind) && len > room as u64 {
            return Err(TOO_BIG);
        }
        let Some(&[a, b, c, d]) = bytes.get(size..size + 4) else { return Ok(None) };
        let header = Header {
            fin: first & 0x80 != 0,
            compressed: first & 0x40 != 0,
            kind,
            mask: [a, b, c, d],
            len: len as usize,
        };
        Ok(Some((header, size + 4)))
    }

    fn is_control(&self) -> bool {
        is_control(self.kind)
    }

    /// Whether the frame is no fragment and all of its payload stands in `source` after `skip`
    /// bytes.
    fn lies_in(&self, source: &[u8], skip: usize) -> bool {
        self.fin && source.len() - skip >= self.len
    }

    /// Consumes `skip` bytes and the payload, which is unmasked where it lies.
    fn unmasked<'s>(&self, source: &mut &'s mut [u8], skip: usize) -> &'s [u8] {
        let payload = &mut take(source, skip + self.len)[skip..];
        unmask(payload, self.mask);
        payload
    }

    /// The event of a complete frame that is not part of a fragmented message.
    #[inline]
    fn event<'e>(
        &self,
        payload: &'e [u8],
        rules: Rules,
        inflater: &'e mut Inflater,
    ) -> Result<Event<'e>, Violation> {
        match self.kind {
            FrameKind::Data(opcode) => {
                let start = Start { opcode, compressed: self.compressed };
                start.message(payload, rules, inflater)
            }
            FrameKind::Ping => Ok(Event::Ping(payload)),
            FrameKind::Pong => Ok(Event::Pong(payload)),
            FrameKind::Close => {
                check_close(payload, rules.close_codes).map(|()| Event::Close(payload))
            }
            FrameKind::Continuation => Err(NO_MESSAGE),
        }
    }
}

const NO_MESSAGE: Violation =
    protocol_error("unexpected continuation frame: no message to continue");

/// The checks that need only the first two bytes, in the order of the table of netsvr section 2.5.
#[inline]
fn kind(first: u8, second: u8, deflate: bool, in_message: bool) -> Result<FrameKind, Violation> {
    let kind = match first & 0x0f {
        0 => FrameKind::Continuation,
        1 => FrameKind::Data(Opcode::Text),
        2 => FrameKind::Data(Opcode::Binary),
        8 => FrameKind::Close,
        9 => FrameKind::Ping,
        10 => FrameKind::Pong,
        _ => return Err(protocol_error("unsupported opcode")),
    };
    let reserved = first & 0x70;
    if reserved != 0 {
        match kind {
            _ if !deflate => {
                return Err(protocol_error("RSV1 bits must be 0 without extensions"));
            }
            FrameKind::Data(_) if reserved == 0x40 => {}
            FrameKind::Data(_) => return Err(protocol_error("RSV1 must be 0 or 4")),
            _ => return Err(protocol_error("RSV1 must be 0")),
        }
    }
    let control = is_control(kind);
    if control && first & 0x80 == 0 {
        return Err(protocol_error("control message MUST NOT be fragmented"));
    }
    match kind {
        FrameKind::Data(_) if in_message => {
            return Err(protocol_error("non-first fragment must be continuation"));
        }
        FrameKind::Continuation if !in_message => return Err(NO_MESSAGE),
        _ => {}
    }
    if second & 0x80 == 0 {
        return Err(protocol_error("client must mask data"));
    }
    if control && usize::from(second & 0x7f) > CONTROL_BYTES_MAX {
        return Err(protocol_error("control frame too long"));
    }
    Ok(kind)
}

/// The length of the payload and what it takes with the two bytes before it. `None`: more bytes are
/// needed. The shortest form is the only one (RFC 6455 section 5.2).
#[inline]
fn length(short: u8, bytes: &[u8]) -> Result<Option<(u64, usize)>, Violation> {
    let (len, size, least) = match short {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4, 126),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|bytes| bytes.try_into().ok()) {
            Some(bytes) => (u64::from_be_bytes(bytes), 10, 1 << 16),
            None => return Ok(None),
        },
        len => return Ok(Some((u64::from(len), 2))),
    };
    if len >> 63 != 0 {
        return Err(protocol_error("the most significant bit must be 0"));
    }
    if len < least {
        return Err(protocol_error("payload length must have its shortest form"));
    }
    Ok(Some((len, size)))
}

fn is_control(kind: FrameKind) -> bool {
    matches!(kind, FrameKind::Ping | FrameKind::Pong | FrameKind::Close)
}

/// Checks the payload of a close frame.
fn check_close(payload: &[u8], codes: CloseCodes) -> Result<(), Violation> {
    match payload {
        [] => Ok(()),
        [_] => Err(protocol_error("close frame payload length invalid")),
        [high, low, reason @ ..] => {
            if !codes.accept(u16::from_be_bytes([*high, *low])) {
                return Err(protocol_error("invalid close status code"));
            }
            if simdutf8::basic::from_utf8(reason).is_err() {
                return Err(NOT_UTF8);
            }
            Ok(())
        }
    }
}

/// Splits `n` bytes off the front of `source`.
fn take<'s>(source: &mut &'s mut [u8], n: usize) -> &'s mut [u8] {
    let (front, rest) = mem::take(source).split_at_mut(n);
    *source = rest;
    front
}

/// Applies the mask; `data[0]` belongs to `mask[0]`. The compiler makes vector instructions of it.
#[inline]
fn unmask(data: &mut [u8], mask: [u8; 4]) {
    let key = u64::from(u32::from_ne_bytes(mask)) * 0x1_0000_0001;
    let (words, rest) = data.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ key).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.to_ne_bytes()) {
        *byte ^= key;
    }
}
