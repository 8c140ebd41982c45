//! Frames of a client, cut out of the byte stream (sections 2 and 12, steps 1 to 5).
//!
//! Invariants: the frames, and the refusal that ends them, do not depend on how the stream is cut;
//! what is held is the beginning of one frame, plus what was stashed, and it grows with the bytes
//! received, never with the length that a client announces.
//! Costs: a frame that lies complete in the input is handed out where it lies. One that comes in
//! pieces is copied once and its buffer grown a logarithmic number of times. An idle connection
//! holds nothing.

use super::{ByteOrder, Flow, Gzip, HEADER_BYTES, Header, LenMode, LenRule, LoginFields, Versions};

/// Where the command stands.
const COMMAND_AT: usize = 8;

/// What a decoder must know about its connection. Copied per call.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub len: LenRule,
    pub order: ByteOrder,
    /// How the mode `auto` reads a LOGIN.
    pub login: LoginFields,
    /// Bytes of one body as transmitted; exactly as many are allowed.
    pub body_bytes_max: u32,
    /// Bytes of a LOGIN body after inflating, to which the mode `auto` looks.
    pub plain_bytes_max: u32,
    pub versions: Versions,
    /// Before the login: the only command that may come.
    pub only: Option<u8>,
}

/// A frame whose header passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub header: Header,
    /// What `len` counts.
    pub mode: LenMode,
    /// As transmitted, perhaps compressed.
    pub body: &'a [u8],
}

/// Why the connection must be closed (section 12, steps 1 to 4). The decoder is of no use after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The first command is not LOGIN: no response.
    NotLogin,
    /// BAD_VERSION.
    Version(Header),
    /// BAD_FLOW.
    Flow(Header),
    /// `len` is impossible: BAD_FRAME.
    Len(Header),
    /// The body is above the limit: TOO_LARGE.
    TooLarge(Header),
}

/// The receiving side of one connection.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a frame, and what was stashed. All input that comes stands behind it.
    pending: Vec<u8>,
    /// Bytes at the start of `pending` that were handed out.
    taken: u32,
    mode: Option<LenMode>,
}

impl Decoder {
    /// Takes bytes from the front of `input` until they complete a frame. `None`: all of it was
    /// taken and more is needed.
    ///
    /// # Errors
    /// See [`Refusal`]. It comes as early as the bytes allow, before the body.
    pub fn next<'e, 'i: 'e>(
        &'e mut self,
        input: &mut &'i [u8],
        rules: Rules,
        gzip: &mut Gzip,
    ) -> Result<Option<Frame<'e>>, Refusal> {
        self.settle();
        if self.pending.is_empty() {
            match self.look(input, rules, gzip)? {
                Need::Frame(header, total) => {
                    let (frame, rest) = input.split_at(total);
                    *input = rest;
                    let mode = self.mode.unwrap_or_default();
                    return Ok(Some(Frame { header, mode, body: &frame[HEADER_BYTES..] }));
                }
                Need::Bytes(_) if input.is_empty() => return Ok(None),
                Need::Bytes(_) => {}
            }
        }
        loop {
            let from = self.taken as usize;
            let pending = std::mem::take(&mut self.pending);
            let need = self.look(&pending[from..], rules, gzip);
            self.pending = pending;
            match need? {
                Need::Frame(header, total) => {
                    self.taken += total as u32;
                    let body = &self.pending[from + HEADER_BYTES..from + total];
                    let mode = self.mode.unwrap_or_default();
                    return Ok(Some(Frame { header, mode, body }));
                }
                Need::Bytes(total) => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    self.absorb(input, total);
                }
            }
        }
    }

    /// Keeps input for later calls, which see it before theirs. For a connection that must wait.
    pub fn stash(&mut self, rest: &[u8]) {
        self.settle();
        self.pending.extend_from_slice(rest);
    }

    /// What `len` counts, as far as that is decided.
    pub fn mode(&self, rule: LenRule) -> LenMode {
        self.mode.unwrap_or(rule.undecided())
    }

    /// Bytes of memory that are held.
    pub fn held(&self) -> usize {
        self.pending.capacity()
    }

    /// Whether bytes wait: the beginning of a frame, or what was stashed.
    pub fn mid_frame(&self) -> bool {
        self.pending.len() > self.taken as usize
    }

    /// Forgets what was handed out; moves the rest to the front when it is the smaller part.
    fn settle(&mut self) {
        let taken = self.taken as usize;
        if taken == self.pending.len() {
            self.pending = Vec::new();
            self.taken = 0;
        } else if taken > self.pending.len() / 2 {
            self.pending.drain(..taken);
            self.taken = 0;
        }
    }

    /// Takes input until `total` bytes of the frame are there, if there is so much.
    fn absorb(&mut self, input: &mut &[u8], total: usize) {
        let have = self.pending.len() - self.taken as usize;
        let (new, rest) = input.split_at(input.len().min(total.saturating_sub(have)));
        if self.pending.capacity() - self.pending.len() < new.len() {
            // Twice of what has arrived at the most, and never more than the frame.
            let room = (have * 2).max(have + new.len()).min(total);
            self.pending.reserve_exact(room - have);
        }
        self.pending.extend_from_slice(new);
        *input = rest;
    }

    /// What the bytes from the start of a frame amount to.
    fn look(&mut self, bytes: &[u8], rules: Rules, gzip: &mut Gzip) -> Result<Need, Refusal> {
        // Decided as soon as the command is there, before any other check (section 8).
        if let (Some(only), Some(command)) = (rules.only, bytes.get(COMMAND_AT))
            && *command != only
        {
            return Err(Refusal::NotLogin);
        }
        let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(Need::Bytes(HEADER_BYTES));
        };
        let header = Header::parse(header, rules.order);
        if !rules.versions.has(header.version()) {
            return Err(Refusal::Version(header));
        }
        if header.flow() != Flow::ClientCommand {
            return Err(Refusal::Flow(header));
        }
        let mode = match (self.mode, rules.len) {
            (Some(mode), _) | (None, LenRule::Always(mode)) => mode,
            (None, LenRule::Auto(modes)) => match modes.judge(header, body, &rules, gzip) {
                Ok(mode) => mode,
                Err(bytes) => return Ok(Need::Bytes(HEADER_BYTES + bytes)),
            },
        };
        self.mode = Some(mode);
        let len = header.len.checked_sub(mode.extra()).ok_or(Refusal::Len(header))?;
        if len > rules.body_bytes_max {
            return Err(Refusal::TooLarge(header));
        }
        let total = HEADER_BYTES + len as usize;
        Ok(if bytes.len() < total { Need::Bytes(total) } else { Need::Frame(header, total) })
    }
}

/// What a decoder needs, counted from the start of the frame.
enum Need {
    /// So many bytes, to know more.
    Bytes(usize),
    /// Nothing: the frame has so many bytes.
    Frame(Header, usize),
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::protocols::im::wire::Modes;

    const RULES: Rules = Rules {
        len: LenRule::Always(LenMode::Body),
        order: ByteOrder::Big,
        login: LoginFields { token: 1, user_id: 2 },
        body_bytes_max: 64,
        plain_bytes_max: 256,
        versions: Versions::CURRENT,
        only: None,
    };

    fn frame(len: u32, flag: u8, body: &[u8]) -> Vec<u8> {
        let header = Header { len, seq: 5, command: 1, flag, status: 0 };
        [&header.bytes(ByteOrder::Big), body].concat()
    }

    /// Frames as (header, body), and how the stream ended.
    type Seen = (Vec<(Header, Vec<u8>)>, Option<Refusal>, LenMode);

    /// With `pause`, all input is stashed before it is looked at.
    fn all(pieces: &[&[u8]], rules: Rules, pause: bool) -> Seen {
        let (mut decoder, mut gzip, mut seen) = (Decoder::default(), Gzip::new(), Vec::new());
        for mut piece in pieces.iter().copied() {
            if pause {
                decoder.stash(std::mem::take(&mut piece));
            }
            loop {
                match decoder.next(&mut piece, rules, &mut gzip) {
                    Ok(Some(frame)) => seen.push((frame.header, frame.body.to_vec())),
                    Ok(None) => break,
                    Err(refusal) => return (seen, Some(refusal), decoder.mode(rules.len)),
                }
            }
            assert!(piece.is_empty(), "nothing is left over when more is needed");
            let most = HEADER_BYTES + (RULES.body_bytes_max + LenMode::Frame.extra()) as usize;
            assert!(pause || decoder.held() <= most, "{} bytes are held", decoder.held());
        }
        (seen, None, decoder.mode(rules.len))
    }

    #[test]
    fn the_first_command_is_judged_before_the_header_is_complete() {
        let rules = Rules { only: Some(1), ..RULES };
        let mut bytes = frame(9, 0xff, b"");
        bytes[8] = 3;
        assert_eq!(all(&[&bytes[..8]], rules, false).1, None);
        assert_eq!(all(&[&bytes[..9]], rules, false).1, Some(Refusal::NotLogin));
    }

    #[test]
    fn the_limit_is_that_of_the_body_in_every_mode() {
        for mode in MODES {
            let rules = Rules { len: LenRule::Always(mode), ..RULES };
            let exact = frame(64 + mode.extra(), 0x10, &[0; 64]);
            assert_eq!(all(&[&exact], rules, false).0.len(), 1, "{mode:?}");
            let above = frame(64 + mode.extra() + 1, 0x10, &[0; 65]);
            assert!(matches!(all(&[&above], rules, false).1, Some(Refusal::TooLarge(_))));
            let huge = frame(u32::MAX, 0x10, b"");
            assert!(matches!(all(&[&huge], rules, false).1, Some(Refusal::TooLarge(_))));
            for len in 0..mode.extra() {
                let end = all(&[&frame(len, 0x10, b"")], rules, false);
                assert!(matches!(end.1, Some(Refusal::Len(_))), "{mode:?}: {len}");
            }
            assert_eq!(all(&[&frame(mode.extra(), 0x10, b"")], rules, false).0.len(), 1);
        }
    }

    #[test]
    fn version_comes_before_flow_and_flow_before_length() {
        let end = |flag| all(&[&frame(1000, flag, b"")], RULES, false).1;
        assert!(matches!(end(0xf3), Some(Refusal::Version(_))));
        assert!(matches!(end(0x13), Some(Refusal::Flow(_))));
        assert!(matches!(end(0x10), Some(Refusal::TooLarge(_))));
    }

    #[test]
    fn memory_follows_what_arrived_and_never_what_was_announced() {
        let rules = Rules { body_bytes_max: 1 << 20, ..RULES };
        let total = HEADER_BYTES + (1 << 20);
        let bytes = frame(1 << 20, 0x10, &vec![1; 1 << 20]);
        let (mut decoder, mut gzip, mut growths) = (Decoder::default(), Gzip::new(), 0);
        for (at, byte) in bytes.iter().enumerate() {
            let before = decoder.held();
            let piece = [*byte];
            let whole = decoder.next(&mut &piece[..], rules, &mut gzip).unwrap().is_some();
            assert_eq!(whole, at + 1 == total);
            growths += usize::from(decoder.held() != before);
            assert!(decoder.held() <= total.min(2 * (at + 1)));
        }
        assert!(growths < 30, "the buffer grew {growths} times");
        assert_eq!(decoder.next(&mut &[][..], rules, &mut gzip), Ok(None));
        assert_eq!((decoder.held(), decoder.mid_frame()), (0, false));
    }

    const MODES: [LenMode; 3] = [LenMode::Body, LenMode::Rest, LenMode::Frame];

    fn modes() -> impl Strategy<Value = LenMode> {
        prop::sample::select(&MODES[..])
    }

    fn orders() -> impl Strategy<Value = ByteOrder> {
        prop_oneof![Just(ByteOrder::Big), Just(ByteOrder::Little)]
    }

    fn rules() -> impl Strategy<Value = Rules> {
        let auto = prop::sample::subsequence(&MODES[..], 2..=3).prop_shuffle();
        let auto = auto.prop_map(|modes| LenRule::Auto(Modes::of(&modes).expect("they differ")));
        let len = prop_oneof![modes().prop_map(LenRule::Always), auto];
        let fields = prop_oneof![Just((1, 2)), Just((2, 1)), Just((5, 4000))];
        let only = prop::option::of(any::<u8>());
        (len, orders(), fields, only).prop_map(|(len, order, (token, user_id), only)| Rules {
            len,
            order,
            login: LoginFields { token, user_id },
            only,
            ..RULES
        })
    }

    /// The body of a user's LOGIN, which makes `auto` look further.
    fn login() -> impl Strategy<Value = Vec<u8>> {
        let fields = prop_oneof![Just((1, 2)), Just((2, 1)), Just((5, 4000))];
        (fields, "[a-z]{1,9}", "[a-z]{1,9}", any::<bool>()).prop_map(
            |(fields, token, user, more)| {
                let mut body = Vec::new();
                prost::encoding::string::encode(fields.0, &token, &mut body);
                prost::encoding::string::encode(fields.1, &user, &mut body);
                if more {
                    prost::encoding::string::encode(9, &user, &mut body);
                }
                body
            },
        )
    }

    /// Streams of good frames, and now and then something else.
    fn streams() -> impl Strategy<Value = (Rules, Vec<u8>)> {
        let flag = prop_oneof![9 => Just(0x10_u8), 3 => Just(0), 1 => any::<u8>()];
        let body = prop_oneof![vec(any::<u8>(), 0..40), login()];
        let good = (any::<u32>(), any::<u8>(), flag, body, modes(), 0..90_u32, 0..12);
        let good = good.prop_map(|(seq, command, flag, body, mode, wrong, odd)| {
            let len = if odd == 0 { wrong } else { mode.len(body.len()) };
            (Header { len, seq, command, flag, status: 0 }, body)
        });
        let noise = vec(any::<u8>(), 0..12).prop_map(|noise| (Header::NONE, noise));
        let frames = vec(prop_oneof![12 => good, 1 => noise], 0..8);
        (rules(), frames).prop_map(|(rules, frames)| {
            let bytes = frames.into_iter().map(|(header, body)| match header {
                Header::NONE => body,
                header => [&header.bytes(rules.order)[..], &body].concat(),
            });
            (rules, bytes.collect::<Vec<_>>().concat())
        })
    }

    impl Header {
        const NONE: Header = Header { len: 0, seq: 0, command: 0, flag: 0, status: 0xff };
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_split_of_the_stream_gives_the_same_frames(
            (rules, stream) in streams(),
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
            let whole = all(&[&stream], rules, false);
            prop_assert_eq!(&all(&pieces, rules, false), &whole);
            prop_assert_eq!(&all(&bytes, rules, false), &whole);
            prop_assert_eq!(&all(&pieces, rules, true), &whole);
        }

        #[test]
        fn what_is_encoded_is_decoded_in_every_mode_and_order(
            mode in modes(),
            order in orders(),
            frames in vec((any::<u32>(), any::<u8>(), 0..2_u8, vec(any::<u8>(), 0..65)), 0..8),
        ) {
            let frames: Vec<(Header, Vec<u8>)> = frames
                .into_iter()
                .map(|(seq, command, version, body)| {
                    let (len, flag) = (mode.len(body.len()), version << 4);
                    (Header { len, seq, command, flag, status: 0 }, body)
                })
                .collect();
            let mut stream = Vec::new();
            for (header, body) in &frames {
                stream.extend([&header.bytes(order)[..], body].concat());
            }
            let rules = Rules { len: LenRule::Always(mode), order, ..RULES };
            prop_assert_eq!(all(&[&stream], rules, false), (frames, None, mode));
        }
    }
}
