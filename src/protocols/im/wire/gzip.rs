//! gzip (RFC 1952) of bodies, in both directions (section 7).
//!
//! Invariants: inflating stops one byte after the limit and never trusts the size in the trailer;
//! exactly one member is accepted, with its checksum and length, and nothing after it.
//! Costs: no allocation per body once the buffers have grown, apart from the result of
//! [`Gzip::compress`]. The states of compressor (about 300 KiB) and decompressor (about 48 KiB)
//! are allocated when the first body needs them; one [`Gzip`] serves all connections of a shard.

use bytes::Bytes;
use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress, Status};

use crate::wire::deflate::{grow, prepare};

/// Magic, deflate, no flags, no time, no extra flags, Unix.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
const TRAILER_BYTES: usize = 8;
/// The level of the test vectors.
const LEVEL: u32 = 6;

/// Flags of a gzip header (RFC 1952 section 2.3.1).
const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0xe0;

/// Why a body does not inflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GzipError {
    /// It has more bytes than the limit (TOO_LARGE).
    #[error("the inflated body is longer than the limit")]
    TooLarge,
    /// It is not exactly one gzip member (BAD_COMPRESSION).
    #[error("the body is not exactly one gzip member")]
    Corrupt,
}

/// Compressor and decompressor of a shard.
#[derive(Debug, Default)]
pub struct Gzip {
    compress: Option<Box<Compress>>,
    decompress: Option<Box<Decompress>>,
    scratch: Vec<u8>,
}

impl Gzip {
    /// Without memory.
    pub fn new() -> Gzip {
        Gzip::default()
    }

    /// One gzip member with this body.
    pub fn compress(&mut self, body: &[u8]) -> Bytes {
        let new = || Box::new(Compress::new(Compression::new(LEVEL), false));
        let engine = self.compress.get_or_insert_with(new);
        engine.reset();
        let mut out = Vec::with_capacity(HEAD.len() + body.len() / 2 + 64);
        out.extend_from_slice(&HEAD);
        loop {
            let done = engine.total_in() as usize;
            let status = engine
                .compress_vec(&body[done..], &mut out, FlushCompress::Finish)
                .expect("only a misconfigured compressor fails, and level and window are valid");
            if status == Status::StreamEnd {
                break;
            }
            out.reserve(out.capacity());
        }
        let mut sum = Crc::new();
        sum.update(body);
        out.extend_from_slice(&sum.sum().to_le_bytes());
        out.extend_from_slice(&sum.amount().to_le_bytes());
        Bytes::from(out)
    }

    /// Gives back what an unusually large body took.
    pub fn give_back(&mut self) {
        prepare(&mut self.scratch, 0);
    }

    /// The body of exactly one member; `limit` bytes at the most.
    ///
    /// # Errors
    /// See [`GzipError`]; the next body is not affected.
    pub fn inflate(&mut self, member: &[u8], limit: usize) -> Result<&[u8], GzipError> {
        let deflated = after_head(member).ok_or(GzipError::Corrupt)?;
        let engine = self.decompress.get_or_insert_with(|| Box::new(Decompress::new(false)));
        engine.reset(false);
        let out = &mut self.scratch;
        prepare(out, limit);
        loop {
            grow(out, limit);
            let input = &deflated[engine.total_in() as usize..];
            let status = engine
                .decompress_vec(input, out, FlushDecompress::None)
                .map_err(|_| GzipError::Corrupt)?;
            if out.len() > limit {
                return Err(GzipError::TooLarge);
            }
            if status == Status::StreamEnd {
                break;
            }
            // With space left over, the engine wants input, and there is none.
            if out.len() < out.capacity() {
                return Err(GzipError::Corrupt);
            }
        }
        let trailer = &deflated[engine.total_in() as usize..];
        let mut sum = Crc::new();
        sum.update(out);
        let expected = [sum.sum().to_le_bytes(), sum.amount().to_le_bytes()];
        match trailer.len() == TRAILER_BYTES && *trailer == *expected.as_flattened() {
            true => Ok(out),
            false => Err(GzipError::Corrupt),
        }
    }
}

/// What follows the header of a member. `None`: it is no gzip.
fn after_head(member: &[u8]) -> Option<&[u8]> {
    let (head, mut rest) = member.split_first_chunk::<10>()?;
    let flags = head[3];
    if head[..3] != HEAD[..3] || flags & RESERVED != 0 {
        return None;
    }
    if flags & FEXTRA != 0 {
        let (len, after) = rest.split_first_chunk::<2>()?;
        rest = after.get(usize::from(u16::from_le_bytes(*len))..)?;
    }
    for text in [FNAME, FCOMMENT] {
        if flags & text != 0 {
            let end = memchr::memchr(0, rest)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & FHCRC != 0 {
        let (given, after) = rest.split_first_chunk::<2>()?;
        let mut sum = Crc::new();
        sum.update(&member[..member.len() - rest.len()]);
        if u16::from_le_bytes(*given) != sum.sum() as u16 {
            return None;
        }
        rest = after;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::deflate::KEPT_BYTES_MAX;

    #[test]
    fn inflating_stops_at_the_limit_and_a_body_of_just_the_limit_passes() {
        let mut gzip = Gzip::new();
        let bomb = gzip.compress(&vec![0; 16 << 20]);
        let limit = 262_144;
        assert_eq!(gzip.inflate(&bomb, limit), Err(GzipError::TooLarge));
        assert!(gzip.scratch.capacity() <= limit + 1);
        let exact = gzip.compress(&vec![7; limit]);
        assert_eq!(gzip.inflate(&exact, limit), Ok(&vec![7; limit][..]));
        assert_eq!(gzip.inflate(&exact, limit - 1), Err(GzipError::TooLarge));
        gzip.give_back();
        assert_eq!(gzip.scratch.capacity(), 0);
        let small = gzip.compress(b"x");
        assert_eq!(gzip.inflate(&small, 1), Ok(&b"x"[..]));
        assert!(gzip.scratch.capacity() <= KEPT_BYTES_MAX);
    }

    #[test]
    fn one_member_and_nothing_else_is_accepted() {
        let mut gzip = Gzip::new();
        let member = gzip.compress(b"hello hello hello").to_vec();
        let mut with = |bytes: &[u8]| gzip.inflate(bytes, 1000).map(<[u8]>::to_vec);
        assert_eq!(with(&member), Ok(b"hello hello hello".to_vec()));
        assert_eq!(with(&[&member[..], b"\0"].concat()), Err(GzipError::Corrupt));
        assert_eq!(with(&[&member[..], &member[..]].concat()), Err(GzipError::Corrupt));
        for end in 0..member.len() {
            assert_eq!(with(&member[..end]), Err(GzipError::Corrupt), "{end}");
        }
        for at in [0, 1, 2, member.len() - 8, member.len() - 1] {
            let mut broken = member.clone();
            broken[at] ^= 1;
            assert_eq!(with(&broken), Err(GzipError::Corrupt), "byte {at}");
        }
    }

    #[test]
    fn all_fields_of_a_header_are_skipped() {
        let mut gzip = Gzip::new();
        let plain = gzip.compress(b"body").to_vec();
        let mut head = plain[..10].to_vec();
        head[3] = FHCRC | FEXTRA | FNAME | FCOMMENT;
        head.extend_from_slice(b"\x03\x00abcname\0comment\0");
        let mut sum = Crc::new();
        sum.update(&head);
        head.extend_from_slice(&(sum.sum() as u16).to_le_bytes());
        let member = [&head[..], &plain[10..]].concat();
        assert_eq!(gzip.inflate(&member, 100), Ok(&b"body"[..]));
        let mut wrong = member.clone();
        wrong[head.len() - 1] ^= 1;
        assert_eq!(gzip.inflate(&wrong, 100), Err(GzipError::Corrupt));
        let mut reserved = member;
        reserved[3] |= 0x20;
        assert_eq!(gzip.inflate(&reserved, 100), Err(GzipError::Corrupt));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_was_compressed_inflates(body in prop::collection::vec(0..4_u8, 0..5000)) {
            let mut gzip = Gzip::new();
            let member = gzip.compress(&body);
            prop_assert_eq!(gzip.inflate(&member, body.len()), Ok(&body[..]));
        }

        #[test]
        fn random_bytes_never_inflate_beyond_the_limit(tail in any::<Vec<u8>>()) {
            let mut gzip = Gzip::new();
            let member = [&HEAD[..], &tail].concat();
            if let Ok(body) = gzip.inflate(&member, 100) {
                prop_assert!(body.len() <= 100);
            }
        }
    }
}
