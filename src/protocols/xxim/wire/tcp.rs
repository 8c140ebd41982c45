//! Frames of the TCP variant: length and type, both u32 little-endian, then the payload
//! (specification section 7.2).
//!
//! Invariants: a `FrameReader` gives the same frames however the bytes are cut; its memory grows
//! with the bytes received, never with the length that a peer announces. Costs: a frame that lies
//! complete in the input is not copied; others once.

/// Bytes before the payload.
pub const HEADER: usize = 8;
/// Frame types: the opcodes of WebSocket.
pub const TEXT: u32 = 1;
pub const BINARY: u32 = 2;

/// Starts a frame with room for its payload of `len` bytes, which the caller appends.
pub fn begin(kind: u32, len: usize) -> Vec<u8> {
    debug_assert!(len <= u32::MAX as usize, "outgoing messages are bounded far below 4 GiB");
    let mut out = Vec::with_capacity(HEADER + len);
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out
}

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    pub kind: u32,
    pub payload: &'a [u8],
}

/// The peer announced a frame that is larger than it may be. Nothing that follows can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes is too large")]
pub struct TooLarge(pub u32);

/// Cuts a byte stream into frames. Empty it owns no memory.
#[derive(Debug, Default)]
pub struct FrameReader {
    kept: Vec<u8>,
    /// Bytes at the front of `kept` that were handed out by the last call.
    used: usize,
}

impl FrameReader {
    /// The next frame, or `None` when `input` is used up.
    ///
    /// # Errors
    /// A payload of more than `payload_bytes_max`.
    pub fn next<'a, 'b: 'a>(
        &'a mut self,
        input: &mut &'b [u8],
        payload_bytes_max: u32,
    ) -> Result<Option<Frame<'a>>, TooLarge> {
        self.kept.drain(..std::mem::take(&mut self.used));
        if self.kept.is_empty() {
            // A large frame does not stay with the connection.
            if self.kept.capacity() > 0 {
                self.kept = Vec::new();
            }
            let Some((kind, len)) = header(input, payload_bytes_max)? else {
                self.kept.extend_from_slice(std::mem::take(input));
                return Ok(None);
            };
            if input.len() - HEADER >= len {
                let (frame, rest) = input.split_at(HEADER + len);
                *input = rest;
                return Ok(Some(Frame { kind, payload: &frame[HEADER..] }));
            }
            self.kept.extend_from_slice(std::mem::take(input));
            return Ok(None);
        }
        self.fill(input, HEADER);
        let Some((kind, len)) = header(&self.kept, payload_bytes_max)? else { return Ok(None) };
        self.fill(input, HEADER + len);
        if self.kept.len() < HEADER + len {
            return Ok(None);
        }
        self.used = HEADER + len;
        Ok(Some(Frame { kind, payload: &self.kept[HEADER..HEADER + len] }))
    }

    /// Keeps input that is not to be handled yet.
    pub fn stash(&mut self, input: &[u8]) {
        self.kept.drain(..std::mem::take(&mut self.used));
        self.kept.extend_from_slice(input);
    }

    /// Whether input waits.
    pub fn has_kept(&self) -> bool {
        self.kept.len() > self.used
    }

    /// Moves bytes from the input until `len` are kept.
    fn fill(&mut self, input: &mut &[u8], len: usize) {
        let missing = len.saturating_sub(self.kept.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.kept.extend_from_slice(taken);
        *input = rest;
    }
}

/// Type and payload length of the frame at the front, if its header is complete.
fn header(bytes: &[u8], payload_bytes_max: u32) -> Result<Option<(u32, usize)>, TooLarge> {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let [l0, l1, l2, l3, k0, k1, k2, k3] = *header;
    let len = u32::from_le_bytes([l0, l1, l2, l3]);
    if len > payload_bytes_max {
        return Err(TooLarge(len));
    }
    Ok(Some((u32::from_le_bytes([k0, k1, k2, k3]), len as usize)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(pieces: &[&[u8]]) -> Result<Vec<(u32, Vec<u8>)>, TooLarge> {
        let mut reader = FrameReader::default();
        let mut found = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            while let Some(frame) = reader.next(&mut input, 1000)? {
                found.push((frame.kind, frame.payload.to_vec()));
            }
            assert!(input.is_empty());
        }
        Ok(found)
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_frames(
            payloads in proptest::collection::vec(
                (0..4u32, proptest::collection::vec(any::<u8>(), 0..40)), 0..6),
            cuts in proptest::collection::vec(1..30usize, 1..20),
        ) {
            let mut stream = Vec::new();
            for (kind, payload) in &payloads {
                stream.extend(begin(*kind, payload.len()));
                stream.extend(payload);
            }
            let mut pieces = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            prop_assert_eq!(frames(&pieces), Ok(payloads.clone()));
            prop_assert_eq!(frames(&[&stream]), Ok(payloads));
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_is_kept() {
        assert_eq!(frames(&[&begin(BINARY, 1001)]), Err(TooLarge(1001)));
        assert_eq!(frames(&[&[0xff; 8]]), Err(TooLarge(u32::MAX)));
        let mut reader = FrameReader::default();
        let mut input: &[u8] = &begin(BINARY, 1000);
        assert_eq!(reader.next(&mut input, 1000), Ok(None));
        assert!(reader.kept.capacity() < 100);
    }

    #[test]
    fn stashed_input_comes_before_the_next() {
        let whole: Vec<u8> = [begin(TEXT, 1), vec![9], begin(BINARY, 2), vec![1, 2]].concat();
        let mut reader = FrameReader::default();
        reader.stash(&whole[..10]);
        let mut input = &whole[10..];
        let first = reader.next(&mut input, 10).expect("short").map(|frame| frame.kind);
        assert_eq!(first, Some(TEXT));
        let second =
            reader.next(&mut input, 10).expect("short").map(|frame| frame.payload.to_vec());
        assert_eq!(second, Some(vec![1, 2]));
    }
}
