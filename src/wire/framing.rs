//! Messages in a plain TCP stream: lines, or a length in front of each message (connmix section
//! 7.5, bundled framings).
//!
//! Invariants: the messages do not depend on how the stream is cut into pieces. What is held grows
//! with the bytes received, never with a length that a peer announces, and never reaches beyond the
//! limit of a message and what was stashed.
//! Costs: a message that lies complete in the input is handed out where it lies, without allocation
//! and without copy. One that comes in pieces is copied once. An idle connection holds nothing.

use std::mem;

use bytes::Bytes;
use memchr::memchr;

/// Bytes of the length in front of a message.
const LENGTH: usize = 4;

/// How the messages of a stream are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A message ends with a line feed; a carriage return right before it does not belong to the
    /// message.
    Line,
    /// Four bytes, big-endian, say how many bytes of message follow.
    Length,
}

/// A message is longer than it may be. The stream cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of more than {limit} bytes")]
pub struct TooLong {
    pub limit: u32,
}

/// The receiving side of one connection.
#[derive(Debug, Default)]
pub struct Framer {
    /// The beginning of a message, with its length if it has one. When `whole`, a message that was
    /// handed out by the call before.
    partial: Vec<u8>,
    whole: bool,
    /// Input that nobody has looked at yet, of which `taken` bytes are decoded. It comes before all
    /// further input.
    stash: Vec<u8>,
    taken: usize,
}

impl Framer {
    /// Takes bytes from what was stashed, then from the front of `input`, until they complete a
    /// message. `None`: all of it was taken and more is needed.
    ///
    /// # Errors
    /// A message has more than `limit` bytes. Do not call again.
    pub fn next<'e, 'i: 'e>(
        &'e mut self,
        input: &mut &'i [u8],
        framing: Framing,
        limit: u32,
    ) -> Result<Option<&'e [u8]>, TooLong> {
        if mem::take(&mut self.whole) {
            self.partial = Vec::new();
        }
        if self.taken == self.stash.len() {
            self.stash = Vec::new();
            self.taken = 0;
        }
        if !self.stash.is_empty() {
            let mut source = &self.stash[self.taken..];
            let before = source.len();
            let found = cut(&mut self.partial, &mut source, framing, limit)?;
            self.taken += before - source.len();
            match found {
                Cut::Here(message) => return Ok(Some(message)),
                Cut::Kept => {
                    self.whole = true;
                    return Ok(Some(message(&self.partial, framing)));
                }
                Cut::More => {}
            }
        }
        match cut(&mut self.partial, input, framing, limit)? {
            Cut::Here(message) => Ok(Some(message)),
            Cut::Kept => {
                self.whole = true;
                Ok(Some(message(&self.partial, framing)))
            }
            Cut::More => Ok(None),
        }
    }

    /// Keeps input for later calls, which see it before theirs. For a connection that must wait.
    pub fn stash(&mut self, rest: &[u8]) {
        // What was handed out does not stay with a connection that waits.
        if mem::take(&mut self.whole) {
            self.partial = Vec::new();
        }
        if rest.is_empty() {
            return;
        }
        self.stash.drain(..self.taken);
        self.taken = 0;
        self.stash.extend_from_slice(rest);
    }

    /// Bytes that wait here.
    pub fn held(&self) -> usize {
        let partial = if self.whole { 0 } else { self.partial.len() };
        partial + self.stash.len() - self.taken
    }
}

/// A message as it goes to the peer. `None`: it cannot be told in this framing, because it has a
/// line feed inside of a line, or more bytes than the length can say.
pub fn encode(framing: Framing, message: &[u8]) -> Option<Bytes> {
    let mut framed = Vec::with_capacity(message.len().checked_add(LENGTH)?);
    match framing {
        Framing::Line => {
            if memchr(b'\n', message).is_some() {
                return None;
            }
            framed.extend_from_slice(message);
            framed.push(b'\n');
        }
        Framing::Length => {
            framed.extend_from_slice(&u32::try_from(message.len()).ok()?.to_be_bytes());
            framed.extend_from_slice(message);
        }
    }
    Some(Bytes::from(framed))
}

/// What a step has found.
enum Cut<'i> {
    /// A message that lies in the input.
    Here(&'i [u8]),
    /// A message that is complete in `partial`.
    Kept,
    /// Everything was taken; the message is not complete.
    More,
}

fn cut<'i>(
    partial: &mut Vec<u8>,
    input: &mut &'i [u8],
    framing: Framing,
    limit: u32,
) -> Result<Cut<'i>, TooLong> {
    match framing {
        Framing::Line => cut_line(partial, input, limit),
        Framing::Length => cut_length(partial, input, limit),
    }
}

fn cut_line<'i>(
    partial: &mut Vec<u8>,
    input: &mut &'i [u8],
    limit: u32,
) -> Result<Cut<'i>, TooLong> {
    let Some(end) = memchr(b'\n', input) else {
        partial.extend_from_slice(input);
        *input = &[];
        // A carriage return at the end may turn out not to belong to the message.
        let cr = partial.last() == Some(&b'\r');
        return match partial.len() - usize::from(cr) > limit as usize {
            true => Err(TooLong { limit }),
            false => Ok(Cut::More),
        };
    };
    let (line, rest) = (&input[..end], &input[end + 1..]);
    *input = rest;
    if partial.is_empty() {
        let line = without_cr(line);
        return if line.len() > limit as usize {
            Err(TooLong { limit })
        } else {
            Ok(Cut::Here(line))
        };
    }
    partial.extend_from_slice(line);
    match without_cr(partial).len() > limit as usize {
        true => Err(TooLong { limit }),
        false => Ok(Cut::Kept),
    }
}

fn cut_length<'i>(
    partial: &mut Vec<u8>,
    input: &mut &'i [u8],
    limit: u32,
) -> Result<Cut<'i>, TooLong> {
    if partial.is_empty()
        && let Some((length, rest)) = input.split_first_chunk::<LENGTH>()
        && let Some((message, rest)) = rest.split_at_checked(checked(*length, limit)?)
    {
        *input = rest;
        return Ok(Cut::Here(message));
    }
    if !absorb(partial, input, LENGTH) {
        return Ok(Cut::More);
    }
    let Some(length) = partial.first_chunk::<LENGTH>() else { return Ok(Cut::More) };
    let len = checked(*length, limit)?;
    let complete = absorb(partial, input, LENGTH.saturating_add(len));
    Ok(if complete { Cut::Kept } else { Cut::More })
}

/// Takes input until `total` bytes are there; says whether they are.
fn absorb(partial: &mut Vec<u8>, input: &mut &[u8], total: usize) -> bool {
    let missing = total.saturating_sub(partial.len());
    let (taken, rest) = input.split_at(input.len().min(missing));
    partial.extend_from_slice(taken);
    *input = rest;
    partial.len() >= total
}

fn checked(length: [u8; LENGTH], limit: u32) -> Result<usize, TooLong> {
    let len = u32::from_be_bytes(length);
    if len > limit { Err(TooLong { limit }) } else { Ok(len as usize) }
}

/// The message in a complete `partial`.
fn message(partial: &[u8], framing: Framing) -> &[u8] {
    match framing {
        Framing::Line => without_cr(partial),
        Framing::Length => partial.get(LENGTH..).unwrap_or_default(),
    }
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&[u8]], framing: Framing, limit: u32) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut framer = Framer::default();
        let mut messages = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            while let Some(message) = framer.next(&mut input, framing, limit)? {
                messages.push(message.to_vec());
            }
            assert!(input.is_empty());
        }
        Ok(messages)
    }

    #[test]
    fn lines_end_with_a_line_feed_and_lose_one_carriage_return() {
        let found = all(&[b"a\r", b"\n\n\r\nb\rc\n", b"d"], Framing::Line, 3).unwrap();
        assert_eq!(found, [&b"a"[..], b"", b"", b"b\rc"]);
        assert_eq!(encode(Framing::Line, b"ab").unwrap(), &b"ab\n"[..]);
        assert_eq!(encode(Framing::Line, b"a\nb"), None);
    }

    #[test]
    fn lengths_are_four_bytes_in_network_order() {
        let stream = [0, 0, 0, 2, b'h', b'i', 0, 0, 0, 0, 0, 0, 0, 1, b'!'];
        let expected = [&b"hi"[..], b"", b"!"];
        for cut in 0..stream.len() {
            let (a, b) = stream.split_at(cut);
            assert_eq!(all(&[a, b], Framing::Length, 2).unwrap(), expected, "cut at {cut}");
        }
        assert_eq!(encode(Framing::Length, b"hi").unwrap(), &stream[..6]);
    }

    #[test]
    fn a_message_may_have_exactly_as_many_bytes_as_the_limit() {
        let wrong = Err(TooLong { limit: 3 });
        assert_eq!(all(&[b"abc\r\n"], Framing::Line, 3), Ok(vec![b"abc".to_vec()]));
        assert_eq!(all(&[b"abcd\n"], Framing::Line, 3), wrong);
        assert_eq!(all(&[b"abc\r"], Framing::Line, 3), Ok(vec![]));
        assert_eq!(all(&[b"ab", b"cd"], Framing::Line, 3), wrong);
        assert_eq!(all(&[b"ab", b"cd\n"], Framing::Line, 3), wrong);
        assert_eq!(all(&[&[0, 0, 0, 3], b"abc"], Framing::Length, 3), Ok(vec![b"abc".to_vec()]));
        assert_eq!(all(&[&[0, 0, 0, 4]], Framing::Length, 3), wrong);
        assert_eq!(all(&[&[255, 255, 255, 255]], Framing::Length, u32::MAX), Ok(vec![]));
    }

    #[test]
    fn what_was_stashed_comes_first_and_nothing_is_held_in_the_end() {
        let mut framer = Framer::default();
        framer.stash(b"one\ntw");
        framer.stash(b"o\n");
        let mut input = &b"three\n"[..];
        let mut found = Vec::new();
        while let Some(message) = framer.next(&mut input, Framing::Line, 10).unwrap() {
            found.push(message.to_vec());
        }
        assert_eq!(found, [&b"one"[..], b"two", b"three"]);
        assert_eq!(framer.held(), 0);
    }
}
