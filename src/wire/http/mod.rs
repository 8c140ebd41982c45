//! HTTP/1.1 as a server reads it: heads of requests, also of WebSocket handshakes (RFC 9112, RFC
//! 6455 section 4); bodies are in [`body`].
//!
//! Invariants: a head is parsed once, when its end is there; it has at most [`HEAD_BYTES_MAX`]
//! bytes and [`HEADERS_MAX`] header lines. The bytes behind it are not touched. Values are bytes;
//! only names, the method and the version are known to be ASCII.
//!
//! Costs: the search for the end looks at new bytes only, if [`resume`] is told what was there
//! before. One allocation per complete head. No syscalls.

pub mod body;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use httparse::{EMPTY_HEADER, Error, Header, Status};
use memchr::memmem;
use sha1::{Digest, Sha1};

/// Bytes that a request head may have, its last empty line included.
pub const HEAD_BYTES_MAX: usize = 16384;
/// Header lines that a request may have.
pub const HEADERS_MAX: usize = 64;

const HEAD_END: &[u8] = b"\r\n\r\n";

/// What stands at the front of a connection's bytes.
#[derive(Debug)]
pub enum Head<'a> {
    /// The head is not complete yet.
    Partial,
    /// A request, whose head is the first `len` bytes. The rest belongs to what follows it.
    Complete { request: Request<'a>, len: usize },
    /// Not HTTP.
    Bad,
    /// A head with more than [`HEAD_BYTES_MAX`] bytes or [`HEADERS_MAX`] lines.
    TooLarge,
}

/// A request without its body. Its strings are what the client wrote.
#[derive(Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    /// The request target, for example `/netsvr?token=1`.
    pub target: &'a [u8],
    /// The target before the first `?`.
    pub path: &'a [u8],
    /// The target after the first `?`, not decoded; may be empty.
    pub query: &'a [u8],
    /// HTTP/1.0, which closes after an answer unless asked not to; else HTTP/1.1.
    pub is_1_0: bool,
    headers: Vec<Header<'a>>,
}

impl<'a> Request<'a> {
    /// The value of the first header line of this name, without the white space around it.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.header_lines(name).next()
    }

    /// The values of all header lines of this name, in order.
    pub fn header_lines(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value.trim_ascii())
    }

    /// The lines of a header as one list, with a comma between them (RFC 9110 section 5.3); empty
    /// if there is none.
    pub fn joined(&self, name: &str) -> Vec<u8> {
        self.header_lines(name).collect::<Vec<_>>().join(&b", "[..])
    }

    /// Every header line: name as it came, value without the white space around it.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.headers.iter().map(|header| (header.name, header.value.trim_ascii()))
    }

    /// Whether the connection stays open after the answer (RFC 9112 section 9.3).
    pub fn keeps_alive(&self) -> bool {
        match self.is_1_0 {
            true => self.has_token("Connection", "keep-alive"),
            false => !self.has_token("Connection", "close"),
        }
    }

    /// Whether a header with a comma-separated list has this element, in any case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.header_lines(name)
            .flat_map(|line| line.split(|byte| *byte == b','))
            .any(|element| element.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// Parses what stands at the front of `buf`.
pub fn parse(buf: &[u8]) -> Head<'_> {
    resume(buf, 0)
}

/// Like [`parse`], for a buffer whose first `seen` bytes were [`Head::Partial`] before, so that a
/// head that arrives in many small pieces costs time in proportion to its bytes.
pub fn resume(buf: &[u8], seen: usize) -> Head<'_> {
    // One empty line before a request is to be ignored (RFC 9112 section 2.2).
    let start = if buf.starts_with(b"\r\n") { 2 } else { 0 };
    match buf.get(start) {
        Some(b'\r') if buf.len() == 1 => return Head::Partial,
        Some(byte) if !is_token_byte(*byte) => return Head::Bad,
        _ => {}
    }
    let searched = &buf[..buf.len().min(HEAD_BYTES_MAX)];
    let from = seen.saturating_sub(HEAD_END.len() - 1).max(start).min(searched.len());
    if memmem::find(&searched[from..], HEAD_END).is_none() {
        return if buf.len() < HEAD_BYTES_MAX { Head::Partial } else { Head::TooLarge };
    }
    parse_complete(searched, start)
}

/// Whether the byte may be part of a token (RFC 9110 section 5.6.2).
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The value of `Sec-WebSocket-Accept` for a client's key (RFC 6455 section 4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    let hash = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// Parses a head that begins at `start` and whose end is in `buf`.
fn parse_complete(buf: &[u8], start: usize) -> Head<'_> {
    // The request line is taken apart here: the library refuses a target that is not UTF-8.
    let Some(line_len) = memchr::memchr(b'\n', &buf[start..]) else { return Head::Bad };
    let line = &buf[start..start + line_len];
    let Some((method, target)) = request_line(line) else { return Head::Bad };
    let is_1_0 = line.trim_ascii_end().ends_with(b"1.0");
    let (path, query) = match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &[][..]),
    };
    let lines = start + line_len + 1;
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    match httparse::parse_headers(&buf[lines..], &mut headers) {
        Ok(Status::Complete((size, headers))) => {
            let headers = headers.to_vec();
            let request = Request { method, target, path, query, is_1_0, headers };
            Head::Complete { request, len: lines + size }
        }
        Err(Error::TooManyHeaders) => Head::TooLarge,
        Ok(Status::Partial) | Err(_) => Head::Bad,
    }
}

/// Method and target of a request line, which may end with a carriage return.
fn request_line(line: &[u8]) -> Option<(&str, &[u8])> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = line.strip_suffix(b" HTTP/1.1").or_else(|| line.strip_suffix(b" HTTP/1.0"))?;
    let space = memchr::memchr(b' ', line)?;
    let (method, target) = (&line[..space], &line[space + 1..]);
    let valid = !method.is_empty()
        && method.iter().all(|byte| is_token_byte(*byte))
        && !target.is_empty()
        && target.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    valid.then(|| std::str::from_utf8(method).ok()).flatten().map(|method| (method, target))
}
