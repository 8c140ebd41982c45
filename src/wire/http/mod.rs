//! HTTP/1.1 as a server speaks it (RFC 9112), also for WebSocket handshakes (RFC 6455 section 4).
//!
//! [`machine`] reads the requests of a connection, [`answer`] writes what is answered, [`target`]
//! knows request targets and hosts, [`body`] the framing of bodies, [`date`] the time; [`fault`] is
//! the list of what is refused. Here are the heads of requests.
//!
//! Invariants: a head is parsed once, when its end is there; it has at most [`HEAD_BYTES_MAX`]
//! bytes and [`HEADERS_MAX`] header lines, and each of its lines ends with CR LF. What can be
//! understood in two ways is refused, or a proxy and this server could disagree. The bytes behind
//! the head are not touched. Values are bytes; only names, the method and the version are known to
//! be ASCII.
//!
//! Costs: the search for the end looks at new bytes only, if [`head`] is told what was there
//! before. One allocation per complete head. No syscalls.

pub mod answer;
pub mod body;
pub mod date;
pub mod fault;
pub mod machine;
pub mod target;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use httparse::{EMPTY_HEADER, Error, Header, Status};
use sha1::{Digest, Sha1};

use answer::Manner;
use body::{Framing, Lines};
use fault::Fault;

/// Bytes that a request head may have, its last empty line included.
pub const HEAD_BYTES_MAX: usize = 16384;
/// Header lines that a request may have.
pub const HEADERS_MAX: usize = 64;

/// A request without its body. Its strings are what the client wrote.
#[derive(Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    /// The request target, for example `/netsvr?token=1`.
    pub target: &'a [u8],
    /// The path of the target.
    pub path: &'a [u8],
    /// The target after the first `?`, not decoded; may be empty.
    pub query: &'a [u8],
    /// Host and port that the request is for; empty only in HTTP/1.0.
    pub host: &'a [u8],
    /// HTTP/1.0, which closes after an answer unless asked not to; else HTTP/1.1.
    pub is_1_0: bool,
    /// How long the body is.
    pub framing: Framing,
    headers: Vec<Header<'a>>,
}

impl<'a> Request<'a> {
    /// The value of the first header line of this name, without the white space around it.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.header_lines(name).next()
    }

    /// The value of a header that has no more than one line; `None` too if it has several.
    pub fn single(&self, name: &str) -> Option<&'a [u8]> {
        let mut lines = self.header_lines(name);
        lines.next().filter(|_| lines.next().is_none())
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

    /// The elements of a comma-separated list, whichever lines they are in; empty ones are none
    /// (RFC 9110 section 5.6.1).
    pub fn elements(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.header_lines(name)
            .flat_map(|line| line.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }

    /// Whether a header with a comma-separated list has this element, in any case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.elements(name).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Every header line: name as it came, value without the white space around it.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.headers.iter().map(|header| (header.name, header.value.trim_ascii()))
    }

    /// Whether it is a GET or a HEAD, which is answered like one.
    pub fn is_get(&self) -> bool {
        matches!(self.method, "GET" | "HEAD")
    }

    /// Whether it asks for another protocol: HTTP/1.0 knows none (RFC 9110 section 7.8), and a
    /// WebSocket begins with GET.
    pub fn upgrades(&self) -> bool {
        self.method == "GET" && !self.is_1_0 && self.elements("Upgrade").next().is_some()
    }

    /// Whether it has a body, or says that one in chunks follows.
    pub fn has_body(&self) -> bool {
        self.framing != Framing::Length(0)
    }

    /// How it is to be answered (RFC 9112 section 9.3).
    pub fn manner(&self) -> Manner {
        let close = self.has_token("Connection", "close");
        let ends = close || self.is_1_0 && !self.has_token("Connection", "keep-alive");
        Manner { ends, bodiless: self.method == "HEAD", is_1_0: self.is_1_0 }
    }
}

/// Reads the head at the front of `buf`, of which the first `seen` bytes were not a whole one
/// before. Returns the request and the bytes of its head; the rest belongs to what follows it.
/// `None`: it is not complete yet.
pub fn head(buf: &[u8], seen: usize) -> Result<Option<(Request<'_>, usize)>, Fault> {
    // One empty line before a request is to be ignored (RFC 9112 section 2.2).
    let start = if buf.starts_with(b"\r\n") { 2 } else { 0 };
    match buf.get(start) {
        Some(b'\r') if buf.len() == 1 => return Ok(None),
        Some(b'\n') => return Err(Fault::LineEnd),
        Some(byte) if !is_token_byte(*byte) => return Err(Fault::RequestLine),
        _ => {}
    }
    let searched = &buf[..buf.len().min(HEAD_BYTES_MAX)];
    match end_of_head(searched, start, seen.max(start).min(searched.len()))? {
        Some(end) => parse(&searched[..end], start).map(|request| Some((request, end))),
        None if buf.len() < HEAD_BYTES_MAX => Ok(None),
        None => Err(Fault::Head),
    }
}

/// Where the head that begins at `start` ends; new bytes begin at `from`.
fn end_of_head(buf: &[u8], start: usize, from: usize) -> Result<Option<usize>, Fault> {
    for at in memchr::memchr_iter(b'\n', &buf[from..]) {
        match &buf[start..from + at] {
            [.., b'\n', b'\r'] => return Ok(Some(from + at + 1)),
            [.., b'\r'] => {}
            // Others would find the end of the head here, or not.
            _ => return Err(Fault::LineEnd),
        }
    }
    Ok(None)
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

/// Parses a whole head that begins at `start`.
fn parse(head: &[u8], start: usize) -> Result<Request<'_>, Fault> {
    // The request line is taken apart here: the library refuses a target that is not UTF-8.
    let line_len = memchr::memchr(b'\n', &head[start..]).ok_or(Fault::RequestLine)?;
    let (line, lines) = head[start..].split_at(line_len + 1);
    let (method, target, is_1_0) = request_line(line).ok_or(Fault::RequestLine)?;
    let parts = target::split(method, target).ok_or(Fault::Target)?;
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let headers = match httparse::parse_headers(lines, &mut headers) {
        Ok(Status::Complete((size, headers))) if size == lines.len() => headers.to_vec(),
        Err(Error::TooManyHeaders) => return Err(Fault::Fields),
        Ok(_) | Err(_) => return Err(Fault::Field),
    };
    let (host, framing) = host_and_framing(&headers, is_1_0)?;
    let host = parts.authority.unwrap_or(host);
    let (path, query) = (parts.path, parts.query);
    Ok(Request { method, target, path, query, host, is_1_0, framing, headers })
}

/// What the header lines say about the host, which HTTP/1.0 need not have, and about the body.
fn host_and_framing<'a>(
    headers: &[Header<'a>],
    is_1_0: bool,
) -> Result<(&'a [u8], Framing), Fault> {
    let mut host = None;
    let mut lines = Lines::default();
    for header in headers {
        let value = header.value.trim_ascii();
        match header.name.len() {
            4 if header.name.eq_ignore_ascii_case("Host") => {
                if host.replace(value).is_some() {
                    return Err(Fault::Hosts);
                }
                if !target::is_host(value) {
                    return Err(Fault::Host);
                }
            }
            14 if header.name.eq_ignore_ascii_case("Content-Length") => lines.length(value),
            17 if header.name.eq_ignore_ascii_case("Transfer-Encoding") => lines.coding(value),
            _ => {}
        }
    }
    if host.is_none() && !is_1_0 {
        return Err(Fault::NoHost);
    }
    Ok((host.unwrap_or_default(), lines.framing(is_1_0)?))
}

/// Method, target and whether it is HTTP/1.0, of a request line with its end.
fn request_line(line: &[u8]) -> Option<(&str, &[u8], bool)> {
    let (line, is_1_0) = match line.strip_suffix(b" HTTP/1.1\r\n") {
        Some(line) => (line, false),
        None => (line.strip_suffix(b" HTTP/1.0\r\n")?, true),
    };
    let space = memchr::memchr(b' ', line)?;
    let (method, target) = (&line[..space], &line[space + 1..]);
    let valid = !method.is_empty() && method.iter().all(|byte| is_token_byte(*byte));
    let method = std::str::from_utf8(method).ok().filter(|_| valid)?;
    Some((method, target, is_1_0))
}
