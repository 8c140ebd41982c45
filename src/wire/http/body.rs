//! The body of an HTTP/1.1 request (RFC 9112 sections 6 and 7).
//!
//! Invariants: a body that is longer than the limit is refused as soon as that is known, before
//! memory is taken for it; a request whose length can be understood in two ways is refused, or a
//! proxy and this server could disagree about where the next one begins. The lines of chunks end
//! with CR LF and nothing else. However the bytes are cut into pieces, the same bodies come out.
//! Costs: a body with a `Content-Length` that has arrived with its head is not copied; any other is
//! copied once.

use super::fault::Fault;
use super::is_token_byte;

/// Digits of the size of a chunk.
const SIZE_DIGITS_MAX: u8 = 64;
/// Bytes of the extensions of a chunk; they are ignored.
const EXTENSION_BYTES_MAX: u16 = 256;
/// Bytes of the trailer lines behind the last chunk; they are ignored.
const TRAILER_BYTES_MAX: u16 = 8192;

/// How long the body of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; 0 where nothing is said.
    Length(usize),
    /// In chunks, each with its size.
    Chunked,
}

/// What the lines of a head say about its body.
#[derive(Debug, Default)]
pub(super) struct Lines<'a> {
    length: Option<&'a [u8]>,
    coding: Option<&'a [u8]>,
    fault: Option<Fault>,
}

impl<'a> Lines<'a> {
    /// A `Content-Length` line.
    pub(super) fn length(&mut self, value: &'a [u8]) {
        if self.length.is_some_and(|other| other != value) {
            self.fault = Some(Fault::Lengths);
        }
        self.length = Some(value);
    }

    /// A `Transfer-Encoding` line.
    pub(super) fn coding(&mut self, value: &'a [u8]) {
        if self.coding.is_some() {
            self.fault = Some(Fault::Coding);
        }
        self.coding = Some(value);
    }

    /// What they come to in a request of HTTP/1.1, or of HTTP/1.0, which has no chunks.
    pub(super) fn framing(self, is_1_0: bool) -> Result<Framing, Fault> {
        if self.coding.is_some() && (self.length.is_some() || is_1_0) {
            // RFC 9112 section 6.3 permits to refuse both together.
            return Err(Fault::LengthAndCoding);
        }
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        match (self.coding, self.length) {
            (Some(coding), _) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (Some(_), _) => Err(Fault::Coding),
            (None, None) => Ok(Framing::Length(0)),
            (None, Some(length)) => {
                let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
                let text = std::str::from_utf8(length).ok().filter(|_| digits);
                // Digits that are too many for the type are a number that is too large.
                text.ok_or(Fault::Length)?.parse().map(Framing::Length).map_err(|_| Fault::Body)
            }
        }
    }
}

/// A body that arrives in pieces.
#[derive(Debug)]
pub struct Body {
    bytes: Vec<u8>,
    bytes_max: usize,
    state: State,
    extension_bytes: u16,
    trailer_bytes: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes are missing, and that is all.
    Plain(usize),
    /// In the digits of a chunk's size.
    Size {
        size: usize,
        digits: u8,
    },
    /// In white space behind the size, where only an extension may follow.
    Space(usize),
    /// In an extension.
    Extension(usize),
    /// Behind the CR of the line with the size.
    SizeEnd(usize),
    /// So many bytes of the chunk are missing.
    Chunk(usize),
    /// Behind a chunk, and behind the CR there.
    ChunkEnd,
    ChunkEndLine,
    /// Where a trailer line may begin.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerEndLine,
    /// Behind the CR of the last line.
    EndLine,
    Done,
}

const SIZE: State = State::Size { size: 0, digits: 0 };

impl Body {
    /// A body of which nothing has arrived.
    pub fn new(framing: Framing, bytes_max: usize) -> Body {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Plain(length),
            Framing::Chunked => SIZE,
        };
        Body { bytes: Vec::new(), bytes_max, state, extension_bytes: 0, trailer_bytes: 0 }
    }

    /// Takes what belongs to the body from the front of `input`. Returns whether it is complete.
    ///
    /// # Errors
    /// A malformed chunk, or more bytes than the limit.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<bool, Fault> {
        while self.state != State::Done {
            match self.state {
                State::Plain(missing) => {
                    let missing = self.take_data(input, missing);
                    self.state = if missing == 0 { State::Done } else { State::Plain(missing) };
                }
                State::Chunk(missing) => {
                    let missing = self.take_data(input, missing);
                    self.state = match missing {
                        0 => State::ChunkEnd,
                        _ => State::Chunk(missing),
                    };
                }
                _ => {
                    let Some((&byte, rest)) = input.split_first() else { return Ok(false) };
                    *input = rest;
                    self.state = self.framing_byte(byte)?;
                }
            }
            if input.is_empty() && self.state != State::Done {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The bytes of the body so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the bytes of the body away.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Moves up to `missing` bytes; returns how many are still missing.
    fn take_data(&mut self, input: &mut &[u8], missing: usize) -> usize {
        let (piece, rest) = input.split_at(missing.min(input.len()));
        self.bytes.extend_from_slice(piece);
        *input = rest;
        missing - piece.len()
    }

    /// A byte that is not data.
    fn framing_byte(&mut self, byte: u8) -> Result<State, Fault> {
        match (self.state, byte) {
            (State::Size { size, digits: 1.. } | State::Extension(size), b'\r') => {
                Ok(State::SizeEnd(size))
            }
            (State::Size { size, digits: 1.. } | State::Space(size), b';') => {
                self.extension(State::Extension(size))
            }
            (State::Size { size, digits: 1.. } | State::Space(size), b' ' | b'\t') => {
                self.extension(State::Space(size))
            }
            (State::Size { size, digits }, _) => {
                let digit = char::from(byte).to_digit(16).filter(|_| digits < SIZE_DIGITS_MAX);
                let digit = digit.ok_or(Fault::Chunk)? as usize;
                // Beyond the limit the exact size does not matter, only that it is too large.
                let size = size.saturating_mul(16).saturating_add(digit);
                Ok(State::Size { size, digits: digits + 1 })
            }
            (State::Extension(size), _) if is_text_byte(byte) => {
                self.extension(State::Extension(size))
            }
            (State::SizeEnd(0), b'\n') => Ok(State::Trailer),
            (State::SizeEnd(size), b'\n') => {
                let room = self.bytes_max - self.bytes.len();
                if size > room { Err(Fault::Body) } else { Ok(State::Chunk(size)) }
            }
            (State::ChunkEnd, b'\r') => Ok(State::ChunkEndLine),
            (State::ChunkEndLine, b'\n') => {
                self.extension_bytes = 0;
                Ok(SIZE)
            }
            (State::Trailer, b'\r') => Ok(State::EndLine),
            (State::Trailer | State::TrailerName, _) if is_token_byte(byte) => {
                self.trailer(State::TrailerName)
            }
            (State::TrailerName, b':') => self.trailer(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerEndLine),
            (State::TrailerValue, _) if is_text_byte(byte) => self.trailer(State::TrailerValue),
            (State::TrailerEndLine, b'\n') => Ok(State::Trailer),
            (State::EndLine, b'\n') => Ok(State::Done),
            _ => Err(Fault::Chunk),
        }
    }

    fn extension(&mut self, state: State) -> Result<State, Fault> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX { Err(Fault::Chunk) } else { Ok(state) }
    }

    fn trailer(&mut self, state: State) -> Result<State, Fault> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX { Err(Fault::Chunk) } else { Ok(state) }
    }
}

/// Whether the byte may stand in the value of a field (RFC 9110 section 5.5).
fn is_text_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
