//! Frames of a business connection, cut out of the byte stream (netsvr sections 3.1 to 3.3).
//!
//! Invariants: the frames do not depend on how the stream is cut into pieces; what is held grows
//! with the bytes received and never reaches beyond the frame that they belong to.
//! Costs: one allocation and one copy per frame that lies complete in the input. A frame that
//! comes in pieces is copied once and its buffer grown a logarithmic number of times, so it costs
//! O(length). An idle connection holds nothing.

use bytes::{Buf, Bytes, BytesMut};

use super::Cmd;

/// Bytes of the length in front of a frame.
const LENGTH: usize = 4;
/// Bytes of the command number.
const NUMBER: usize = 4;

/// What a business sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Heartbeat,
    /// A command or query; `body` is its protobuf message. Never an event.
    Command {
        cmd: Cmd,
        body: Bytes,
    },
}

/// Why a business connection must be closed, in the words of the log (section 3.3). Nothing is
/// answered. The reader is of no use afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {len} bytes is above the receive_pack_limit of {limit}")]
    TooLarge { len: u32, limit: u32 },
    #[error("a frame of {len} bytes has no command number and is not the heartbeat_message")]
    TooShort { len: u32 },
    #[error(
        "command number {0} (0x{0:08x}) is unknown, or a heartbeat differs from heartbeat_message"
    )]
    UnknownCommand(u32),
}

/// Incremental reader of one business connection.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// The beginning of a frame, its length included; the rest has not arrived yet.
    partial: Vec<u8>,
    /// Input that nobody has looked at yet. It comes before all further input.
    stash: BytesMut,
}

impl FrameReader {
    /// Holds nothing.
    pub fn new() -> FrameReader {
        FrameReader::default()
    }

    /// Takes bytes from the front of `input` until they complete a frame. `None`: all of it was
    /// taken and more is needed. `limit` is `ReceivePackLimit`: bytes of command number and
    /// message.
    pub fn next(
        &mut self,
        input: &mut &[u8],
        limit: u32,
        heartbeat: &[u8],
    ) -> Result<Option<Frame>, FrameError> {
        match self.payload(input, limit)? {
            Some(payload) => interpret(payload, heartbeat).map(Some),
            None => Ok(None),
        }
    }

    /// Like [`FrameReader::next`], but gives what follows the length, whatever it is. For the
    /// business side of the protocol.
    fn payload(&mut self, input: &mut &[u8], limit: u32) -> Result<Option<Bytes>, FrameError> {
        if !self.stash.is_empty() {
            let mut stash = std::mem::take(&mut self.stash);
            let mut rest = &stash[..];
            let payload = self.cut(&mut rest, limit)?;
            let used = stash.len() - rest.len();
            stash.advance(used);
            if !stash.is_empty() {
                self.stash = stash;
            }
            if payload.is_some() {
                return Ok(payload);
            }
        }
        self.cut(input, limit)
    }

    /// Keeps input for later calls, which see it before theirs. For a connection that must wait.
    pub fn stash(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.stash.extend_from_slice(rest);
        }
    }

    /// Bytes that wait here.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.partial.len() + self.stash.len()
    }

    /// Whether a frame has begun and is not complete. What was stashed does not count.
    #[cfg(test)]
    fn mid_frame(&self) -> bool {
        !self.partial.is_empty()
    }

    fn cut(&mut self, input: &mut &[u8], limit: u32) -> Result<Option<Bytes>, FrameError> {
        if self.partial.is_empty()
            && let Some((length, rest)) = input.split_first_chunk::<LENGTH>()
        {
            let len = checked(*length, limit)?;
            if let Some((payload, rest)) = rest.split_at_checked(len) {
                *input = rest;
                return Ok(Some(Bytes::copy_from_slice(payload)));
            }
        }
        if !self.absorb(input, LENGTH) {
            return Ok(None);
        }
        let &length = self.partial.first_chunk().expect("absorb has brought it to this length");
        let len = checked(length, limit)?;
        if !self.absorb(input, LENGTH.saturating_add(len)) {
            return Ok(None);
        }
        let mut payload = Bytes::from(std::mem::take(&mut self.partial));
        payload.advance(LENGTH);
        Ok(Some(payload))
    }

    /// Takes input until `total` bytes of the frame are there; says whether they are.
    fn absorb(&mut self, input: &mut &[u8], total: usize) -> bool {
        let have = self.partial.len();
        let (taken, rest) = input.split_at(input.len().min(total.saturating_sub(have)));
        if self.partial.capacity() - have < taken.len() {
            // Twice of what has arrived at the most, and never more than the frame.
            let room = (have * 2).max(have + taken.len()).min(total);
            self.partial.reserve_exact(room - have);
        }
        self.partial.extend_from_slice(taken);
        *input = rest;
        self.partial.len() >= total
    }
}

fn checked(length: [u8; LENGTH], limit: u32) -> Result<usize, FrameError> {
    let len = u32::from_be_bytes(length);
    if len > limit {
        return Err(FrameError::TooLarge { len, limit });
    }
    Ok(len as usize)
}

/// The heartbeat is compared before the command number is looked at (section 3.2).
fn interpret(mut payload: Bytes, heartbeat: &[u8]) -> Result<Frame, FrameError> {
    if payload == heartbeat {
        return Ok(Frame::Heartbeat);
    }
    let Some(&number) = payload.first_chunk::<NUMBER>() else {
        return Err(FrameError::TooShort { len: payload.len() as u32 });
    };
    let number = u32::from_be_bytes(number);
    match Cmd::try_from(number) {
        Ok(cmd) if !cmd.is_event() => {
            payload.advance(NUMBER);
            Ok(Frame::Command { cmd, body: payload })
        }
        _ => Err(FrameError::UnknownCommand(number)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const HEARTBEAT: &[u8] = b"~6YOt5rW35piO~";
    const LIMIT: u32 = 64;

    fn framed(payload: &[u8]) -> Vec<u8> {
        [&(payload.len() as u32).to_be_bytes(), payload].concat()
    }

    fn command(cmd: Cmd, body: &[u8]) -> Vec<u8> {
        framed(&[&cmd.number().to_be_bytes(), body].concat())
    }

    fn one(stream: &[u8]) -> Result<Option<Frame>, FrameError> {
        FrameReader::new().next(&mut &stream[..], LIMIT, HEARTBEAT)
    }

    /// All frames of a stream that arrives in these pieces, and the error that ends it.
    fn all(pieces: &[&[u8]]) -> (Vec<Frame>, Option<FrameError>) {
        let (mut reader, mut frames) = (FrameReader::new(), Vec::new());
        for mut piece in pieces.iter().copied() {
            loop {
                match reader.next(&mut piece, LIMIT, HEARTBEAT) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
            assert!(piece.is_empty(), "nothing is left over when more is needed");
            assert!(reader.held() < LENGTH + LIMIT as usize);
        }
        (frames, None)
    }

    #[test]
    fn the_limit_is_compared_with_the_length_and_equal_is_allowed() {
        let largest = command(Cmd::Broadcast, &[7; LIMIT as usize - NUMBER]);
        assert!(matches!(one(&largest), Ok(Some(Frame::Command { cmd: Cmd::Broadcast, .. }))));
        for len in [LIMIT + 1, i32::MAX as u32 + 1, u32::MAX] {
            let error = FrameError::TooLarge { len, limit: LIMIT };
            assert_eq!(one(&len.to_be_bytes()), Err(error), "as soon as the length is known");
        }
    }

    #[test]
    fn a_frame_without_command_number_must_be_the_heartbeat() {
        for len in 0..NUMBER {
            let frame = framed(&HEARTBEAT[..len]);
            assert_eq!(one(&frame), Err(FrameError::TooShort { len: len as u32 }));
            let beat = FrameReader::new().next(&mut &frame[..], LIMIT, &HEARTBEAT[..len]);
            assert_eq!(beat, Ok(Some(Frame::Heartbeat)), "a short heartbeat is configured");
        }
    }

    #[test]
    fn the_heartbeat_is_compared_before_the_command_number() {
        assert_eq!(one(&framed(HEARTBEAT)), Ok(Some(Frame::Heartbeat)));
        let as_command = &Cmd::UniqIdCount.number().to_be_bytes()[..];
        let beat = FrameReader::new().next(&mut &framed(as_command)[..], LIMIT, as_command);
        assert_eq!(beat, Ok(Some(Frame::Heartbeat)));
    }

    #[test]
    fn unknown_numbers_events_and_foreign_heartbeats_close_the_connection() {
        let events = [Cmd::ConnOpen, Cmd::ConnClose, Cmd::Transfer].map(Cmd::number);
        let gaps = [1, 900_001_004, 900_002_000, 900_002_018, 900_003_019, u32::MAX];
        for number in events.into_iter().chain(gaps).chain([Cmd::Placeholder.number()]) {
            let frame = framed(&number.to_be_bytes());
            assert_eq!(one(&frame), Err(FrameError::UnknownCommand(number)));
        }
        let foreign = FrameError::UnknownCommand(u32::from_be_bytes(*b"~7YO"));
        assert_eq!(one(&framed(b"~7YOt5rW35piO~")), Err(foreign));
    }

    #[test]
    fn every_other_command_is_taken_on_any_connection() {
        let known = (900_002_001..=900_002_017).chain(900_003_001..=900_003_018);
        for number in known {
            let cmd = Cmd::try_from(number).unwrap();
            let body = Bytes::from_static(b"x");
            assert_eq!(one(&command(cmd, b"x")), Ok(Some(Frame::Command { cmd, body })));
            assert_eq!((cmd.number(), cmd.is_event()), (number, false));
            assert_eq!(cmd.is_one_way(), number < 900_003_000);
        }
    }

    #[test]
    fn what_was_stashed_comes_before_new_input() {
        let stream = [command(Cmd::Broadcast, b"1"), command(Cmd::Multicast, b"2")].concat();
        let expected = all(&[&stream]);
        for (a, b) in (0..stream.len()).flat_map(|a| (a..stream.len()).map(move |b| (a, b))) {
            let mut reader = FrameReader::new();
            reader.stash(&stream[..a]);
            reader.stash(&stream[a..b]);
            assert_eq!((reader.held(), reader.mid_frame()), (b, false));
            let (mut input, mut frames) = (&stream[b..], Vec::new());
            while let Some(frame) = reader.next(&mut input, LIMIT, HEARTBEAT).unwrap() {
                frames.push(frame);
            }
            assert_eq!((frames, None), expected);
            assert_eq!((reader.held(), reader.mid_frame()), (0, false));
        }
    }

    #[test]
    fn memory_follows_what_arrived_and_never_what_was_announced() {
        let total = LENGTH + 1_000_000;
        let mut frame = framed(&vec![0; total - LENGTH]);
        frame[LENGTH..8].copy_from_slice(&Cmd::Broadcast.number().to_be_bytes());
        let (mut reader, mut growths) = (FrameReader::new(), 0);
        for (at, byte) in frame.iter().enumerate() {
            let before = reader.partial.capacity();
            let next = reader.next(&mut &[*byte][..], u32::MAX, HEARTBEAT);
            assert_eq!(next.unwrap().is_some(), at + 1 == total);
            let room = reader.partial.capacity();
            growths += usize::from(room != before);
            assert!(room <= total.min(2 * (at + 1)), "{room} for {}", at + 1);
            assert_eq!(reader.mid_frame(), at + 1 < total);
        }
        assert!(growths < 30, "the buffer grew {growths} times");
        assert_eq!(reader.partial.capacity(), 0, "an idle connection holds nothing");
    }

    /// Streams of good frames, heartbeats, and now and then something else.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let body = || vec(any::<u8>(), 0..50);
        let frame = prop_oneof![
            8 => (900_002_001u32..900_002_018, body()).prop_map(|(number, body)| {
                command(Cmd::try_from(number).unwrap(), &body)
            }),
            2 => Just(framed(HEARTBEAT)),
            1 => body().prop_map(|body| framed(&body)),
            1 => vec(any::<u8>(), 0..12),
        ];
        vec(frame, 0..12).prop_map(|frames| frames.concat())
    }

    proptest! {
        #[test]
        fn any_split_of_the_stream_gives_the_same_frames(
            stream in streams(),
            cuts in vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.push(stream.len());
            cuts.sort_unstable();
            let mut from = 0;
            let pieces: Vec<&[u8]> = cuts
                .iter()
                .map(|&cut| &stream[std::mem::replace(&mut from, cut)..cut])
                .collect();
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            let whole = all(&[&stream]);
            prop_assert_eq!(&all(&pieces), &whole);
            prop_assert_eq!(&all(&bytes), &whole);
        }

        #[test]
        fn random_bytes_hold_no_more_than_a_frame(pieces in vec(vec(any::<u8>(), 0..200), 0..20)) {
            let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
            all(&pieces);
        }
    }
}
