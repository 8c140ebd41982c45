//! Compression of WebSocket messages (RFC 7692) without context takeover: every message stands
//! alone, so one compressor and one decompressor serve all connections of a shard.
//!
//! Invariants: inflating stops one byte after the limit, whatever the input claims, and the output
//! buffer is never larger than that. Both sides keep at most 64 KiB of buffer between
//! messages of ordinary size; a larger one goes with [`Inflater::give_back`].
//!
//! Costs: no allocation per message once the buffers have grown; a large message takes a third more
//! than its size while it is inflated, and nothing beside what it becomes while it is compressed.
//! The state of the compressor (about 300 KiB) and of the decompressor (about 48 KiB) is allocated
//! when the first message needs it.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What a sync flush ends with, and what is left away on the wire (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// The tail and an empty final block: a stream that is complete ends there and nowhere else.
const TAIL_AND_END: [u8; 9] = [0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff];
/// How far back a deflate stream may refer.
const WINDOW_BYTES: usize = 32 * 1024;
/// Final blocks within one message. Each after the first costs a copy of the window.
const FINAL_BLOCKS_MAX: usize = 64;
/// Output space to begin with.
const FIRST_BYTES: usize = 4 * 1024;
/// Buffers larger than this are given back.
pub(crate) const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Compresses messages.
#[derive(Debug)]
pub struct Deflater {
    level: Compression,
    engine: Option<Compress>,
    scratch: Vec<u8>,
}

impl Deflater {
    /// `level` is -2..=9 as in Go: -1 is the default, 0 stores, 9 is the smallest. The library has
    /// no Huffman-only mode, so its fastest level stands for -2.
    pub fn new(level: i8) -> Deflater {
        let level = match level {
            ..=-2 => Compression::fast(),
            -1 => Compression::default(),
            level => Compression::new(u32::from(level.unsigned_abs().min(9))),
        };
        Deflater { level, engine: None, scratch: Vec::new() }
    }

    /// The compressed form of `data`, without the tail `00 00 ff ff`.
    pub fn deflate(&mut self, data: &[u8]) -> &[u8] {
        let mut scratch = std::mem::take(&mut self.scratch);
        prepare(&mut scratch, 0);
        self.compress(data, &mut scratch);
        self.scratch = scratch;
        &self.scratch
    }

    /// Gives back what an unusually large message took.
    pub fn give_back(&mut self) {
        prepare(&mut self.scratch, 0);
    }

    /// Appends the compressed form of `data`, without the tail `00 00 ff ff`. The room that `out`
    /// has then is more than that takes.
    pub fn compress(&mut self, data: &[u8], out: &mut Vec<u8>) {
        let level = self.level;
        let engine = self.engine.get_or_insert_with(|| Compress::new(level, false));
        engine.reset();
        // Nearly always enough, also for data that does not compress. What is not written to takes
        // no memory of the system.
        out.reserve(data.len() + data.len() / 8 + 64);
        loop {
            let done = engine.total_in() as usize;
            engine
                .compress_vec(&data[done..], out, FlushCompress::Sync)
                .expect("only a misconfigured compressor fails, and level and window are valid");
            // Space that is left over means that nothing waits inside.
            if out.len() < out.capacity() {
                break;
            }
            out.reserve(out.capacity());
        }
        debug_assert!(out.ends_with(&TAIL), "a sync flush ends with an empty stored block");
        out.truncate(out.len() - TAIL.len());
    }
}

/// Why a message could not be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// It has more bytes than the limit.
    #[error("the inflated message is longer than the limit")]
    TooBig,
    /// It is not a complete deflate stream.
    #[error("the message is not a complete deflate stream")]
    Corrupt,
}

/// Decompresses messages.
#[derive(Debug, Default)]
pub struct Inflater {
    /// In a box so that a shard can move the whole thing in and out of its struct for nothing.
    engine: Option<Box<Decompress>>,
    scratch: Vec<u8>,
}

impl Inflater {
    /// A decompressor without memory.
    pub fn new() -> Inflater {
        Inflater::default()
    }

    /// Gives back what an unusually large message took.
    pub fn give_back(&mut self) {
        prepare(&mut self.scratch, 0);
    }

    /// Inflates the payload of one message, which is `limit` bytes at the most.
    ///
    /// # Errors
    /// See [`InflateError`]; the next message is not affected.
    pub fn inflate(&mut self, data: &[u8], limit: usize) -> Result<&[u8], InflateError> {
        prepare(&mut self.scratch, limit);
        // RFC 7692 wants at least one byte here, but senders of nothing at all exist.
        if data.is_empty() {
            return Ok(&self.scratch);
        }
        let engine = self.engine.get_or_insert_with(|| Box::new(Decompress::new(false)));
        engine.reset(false);
        let mut stream = Stream { engine, out: &mut self.scratch, limit, final_blocks: 0 };
        if !stream.feed(data)? && !stream.feed(&TAIL_AND_END)? {
            return Err(InflateError::Corrupt);
        }
        Ok(&self.scratch)
    }
}

/// One message being inflated.
struct Stream<'a> {
    engine: &'a mut Decompress,
    out: &'a mut Vec<u8>,
    limit: usize,
    final_blocks: usize,
}

impl Stream<'_> {
    /// Inflates all of `input`; tells whether a final block ended with its last byte.
    fn feed(&mut self, mut input: &[u8]) -> Result<bool, InflateError> {
        loop {
            grow(self.out, self.limit);
            let before = (self.engine.total_in(), self.out.len());
            let status = self
                .engine
                .decompress_vec(input, self.out, FlushDecompress::None)
                .map_err(|_| InflateError::Corrupt)?;
            if self.out.len() > self.limit {
                return Err(InflateError::TooBig);
            }
            let consumed = self.engine.total_in() - before.0;
            input = &input[consumed as usize..];
            match status {
                Status::StreamEnd if input.is_empty() => return Ok(true),
                Status::StreamEnd => self.restart()?,
                // With space left over, the engine wants input.
                _ if self.out.len() < self.out.capacity() => {
                    return if input.is_empty() { Ok(false) } else { Err(InflateError::Corrupt) };
                }
                _ => {}
            }
        }
    }

    /// Goes on after a final block: more blocks may follow, and they may refer to what was before
    /// (RFC 7692 section 7.2.3.4).
    fn restart(&mut self) -> Result<(), InflateError> {
        self.final_blocks += 1;
        if self.final_blocks > FINAL_BLOCKS_MAX {
            return Err(InflateError::Corrupt);
        }
        self.engine.reset(false);
        let window = &self.out[self.out.len().saturating_sub(WINDOW_BYTES)..];
        if !window.is_empty() {
            self.engine.set_dictionary(window).map_err(|_| InflateError::Corrupt)?;
        }
        Ok(())
    }
}

/// Makes sure that there is space for output. The last byte of the largest buffer is beyond the
/// limit, so that a message of just the limit is told from a longer one. Buffers quadruple: what
/// was held before is a third of the last one, and what is not written to takes no memory of the
/// system.
pub(crate) fn grow(out: &mut Vec<u8>, limit: usize) {
    let (len, capacity) = (out.len(), out.capacity());
    if len == capacity {
        let wanted = capacity.saturating_mul(4).max(FIRST_BYTES).min(limit.saturating_add(1));
        out.reserve_exact(wanted.max(len + 1) - len);
    }
}

/// Empties a buffer for a message of at most so many bytes and one more, and gives it back if it is
/// unusually large for that. Several large messages one after the other have the same buffer.
pub(crate) fn prepare(scratch: &mut Vec<u8>, limit: usize) {
    scratch.clear();
    if scratch.capacity() > KEPT_BYTES_MAX.max(limit.saturating_add(1)) {
        *scratch = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\x00";

    #[test]
    fn inflating_stops_at_the_limit() {
        let mut bomb = Vec::new();
        Deflater::new(9).compress(&vec![0; 16 << 20], &mut bomb);
        let mut inflater = Inflater::new();
        let limit = 1 << 20;
        assert_eq!(inflater.inflate(&bomb, limit), Err(InflateError::TooBig));
        assert!(inflater.scratch.capacity() <= limit + 1);
        assert_eq!(inflater.inflate(HELLO, 5), Ok(&b"Hello"[..]));
        assert!(inflater.scratch.capacity() <= KEPT_BYTES_MAX);
        assert_eq!(inflater.inflate(&bomb, limit), Err(InflateError::TooBig));
        inflater.give_back();
        assert_eq!(inflater.scratch.capacity(), 0);
        assert_eq!(inflater.inflate(HELLO, 5), Ok(&b"Hello"[..]));
        inflater.give_back();
        assert!(inflater.scratch.capacity() > 0, "what is usual is kept");
    }

    #[test]
    fn an_unusual_message_leaves_no_large_buffer_behind() {
        let mut deflater = Deflater::new(1);
        let large: Vec<u8> =
            (0..1_000_000_u32).flat_map(|i| i.wrapping_mul(i).to_le_bytes()).collect();
        assert!(deflater.deflate(&large).len() > KEPT_BYTES_MAX);
        assert!(deflater.deflate(b"Hello").len() < 10);
        assert!(deflater.scratch.capacity() <= KEPT_BYTES_MAX);
        assert!(deflater.deflate(&large).len() > KEPT_BYTES_MAX);
        deflater.give_back();
        assert_eq!(deflater.scratch.capacity(), 0);
    }

    #[test]
    fn data_that_does_not_compress_survives_every_level() {
        let mut state = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(300_000)
        .collect();
        let mut inflater = Inflater::new();
        for level in -2..=9 {
            let mut deflater = Deflater::new(level);
            for data in [&noise[..], &noise[..257], b""] {
                assert_eq!(inflater.inflate(deflater.deflate(data), data.len()), Ok(data));
            }
        }
    }

    #[test]
    fn blocks_after_a_final_block_may_refer_to_what_was_before() {
        let first = b"\x4b\x4c\x4a\x4e\x49\x4d\x4b\xcf\x00\x00";
        let copy = b"\x4b\x84\xd2\x00";
        let mut inflater = Inflater::new();
        let both = [&first[..], copy].concat();
        assert_eq!(inflater.inflate(&both, 100), Ok(&b"abcdefghabcdefgh"[..]));
        assert_eq!(inflater.inflate(copy, 100), Err(InflateError::Corrupt));
    }

    #[test]
    fn final_blocks_are_counted() {
        let empty = [0x03, 0x00];
        let few = [&empty.repeat(60)[..], HELLO].concat();
        let mut inflater = Inflater::new();
        assert_eq!(inflater.inflate(&few, 100), Ok(&b"Hello"[..]));
        assert_eq!(inflater.inflate(&empty.repeat(100_000), 100), Err(InflateError::Corrupt));
    }

    #[test]
    fn a_stream_that_breaks_off_is_refused_wherever_it_does() {
        let mut deflater = Deflater::new(9);
        let text = "the quick brown fox jumps over the lazy dog, and again: ".repeat(9);
        let whole = deflater.deflate(text.as_bytes()).to_vec();
        let mut inflater = Inflater::new();
        for end in 1..whole.len() {
            let error = inflater.inflate(&whole[..end], 10_000);
            assert_eq!(error, Err(InflateError::Corrupt), "{end} of {} bytes", whole.len());
        }
        assert_eq!(inflater.inflate(&whole, 10_000), Ok(text.as_bytes()));
    }
}
