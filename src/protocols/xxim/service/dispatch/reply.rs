//! Replies of an HTTP/1.1 upstream, from bytes (RFC 9112): head, body with a length, in chunks, or
//! until the end of the connection.
//!
//! Sans-io. Invariants: no more than the limits is ever kept; after an error the connection is of
//! no use. Costs: the head is parsed once when it is complete; a body that came with its head is a
//! slice of what was read.

use bytes::{Buf, BytesMut};
use httparse::{EMPTY_HEADER, Response, Status, parse_chunk_size};

use super::result::{CodeHeader, Reply};
use crate::limits::HTTP_HEADERS_MAX;
use crate::protocols::xxim::limits::UPSTREAM_REPLY_HEAD_BYTES_MAX;

/// Bytes of one chunk's size line or of the trailers.
const CHUNK_LINE_BYTES_MAX: usize = 16 * 1024;

/// What came is not a reply. The connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the reply is not HTTP/1.1")]
    Http,
    #[error("the head of the reply is too long")]
    Head,
    #[error("the body of the reply is longer than {0} bytes")]
    Body(usize),
    #[error("the connection ended inside of the reply")]
    Ended,
}

/// A complete reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complete {
    pub reply: Reply,
    /// The connection may carry another request.
    pub reusable: bool,
}

/// The state of one reply.
#[derive(Debug)]
pub(super) struct Parser {
    stage: Stage,
    reply: Reply,
    reusable: bool,
    body: BytesMut,
    body_bytes_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    /// So many bytes of the body are missing.
    Length(usize),
    UntilEnd,
    ChunkSize,
    /// So many bytes of the chunk are missing, and its line end.
    Chunk(usize),
    ChunkEnd,
    Trailers,
}

impl Parser {
    /// Awaits a reply with a body of at most `body_bytes_max`.
    pub(super) fn new(body_bytes_max: usize) -> Parser {
        Parser {
            stage: Stage::Head,
            reply: Reply::default(),
            reusable: true,
            body: BytesMut::new(),
            body_bytes_max,
        }
    }

    /// Takes what was read; `ended`: nothing more will come. `None`: more is needed.
    pub(super) fn advance(
        &mut self,
        input: &mut BytesMut,
        ended: bool,
    ) -> Result<Option<Complete>, Malformed> {
        loop {
            let progress = match self.stage {
                Stage::Head => self.head(input)?,
                Stage::Length(missing) => {
                    let left = missing - self.take(input, missing);
                    self.stage = Stage::Length(left);
                    if left == 0 {
                        return Ok(Some(self.complete(input)));
                    }
                    false
                }
                Stage::UntilEnd => {
                    self.bounded(input.len())?;
                    self.take(input, usize::MAX);
                    if ended {
                        return Ok(Some(self.complete(input)));
                    }
                    false
                }
                Stage::Chunk(missing) => {
                    let left = missing - self.take(input, missing);
                    self.stage = if left == 0 { Stage::ChunkEnd } else { Stage::Chunk(left) };
                    left == 0
                }
                Stage::ChunkSize => self.chunk_size(input)?,
                Stage::ChunkEnd => self.chunk_end(input)?,
                Stage::Trailers => {
                    if self.trailers(input)? {
                        return Ok(Some(self.complete(input)));
                    }
                    false
                }
            };
            if !progress {
                return if ended { Err(Malformed::Ended) } else { Ok(None) };
            }
        }
    }

    fn complete(&mut self, rest: &BytesMut) -> Complete {
        let mut reply = std::mem::take(&mut self.reply);
        reply.body = std::mem::take(&mut self.body).freeze();
        // Bytes behind the reply belong to nothing that was asked.
        Complete { reply, reusable: self.reusable && rest.is_empty() }
    }

    fn take(&mut self, input: &mut BytesMut, max: usize) -> usize {
        let piece = input.split_to(input.len().min(max));
        let taken = piece.len();
        // Joins without a copy if both stand behind one another in one buffer.
        self.body.unsplit(piece);
        taken
    }

    fn bounded(&self, more: usize) -> Result<(), Malformed> {
        match self.body.len().checked_add(more) {
            Some(len) if len <= self.body_bytes_max => Ok(()),
            _ => Err(Malformed::Body(self.body_bytes_max)),
        }
    }

    /// Whether the head is complete.
    fn head(&mut self, input: &mut BytesMut) -> Result<bool, Malformed> {
        let mut headers = [EMPTY_HEADER; HTTP_HEADERS_MAX];
        let mut response = Response::new(&mut headers);
        let status = match response.parse(input) {
            Ok(status) => status,
            Err(httparse::Error::TooManyHeaders) => return Err(Malformed::Head),
            Err(_) => return Err(Malformed::Http),
        };
        let head_len = match status {
            Status::Complete(len) if len <= UPSTREAM_REPLY_HEAD_BYTES_MAX => len,
            Status::Partial if input.len() < UPSTREAM_REPLY_HEAD_BYTES_MAX => return Ok(false),
            _ => return Err(Malformed::Head),
        };
        let code = response.code.ok_or(Malformed::Http)?;
        if code < 200 {
            // 101 was not asked for; others announce the reply (RFC 9110 section 15.2).
            if code == 101 {
                return Err(Malformed::Http);
            }
            input.advance(head_len);
            return Ok(true);
        }
        let facts = Facts::read(&response)?;
        self.reply.status = code;
        self.reply.protobuf = facts.protobuf;
        self.reply.code = facts.code;
        self.reusable = if response.version == Some(1) { !facts.close } else { facts.keep_alive };
        input.advance(head_len);
        self.stage = match (code, facts.chunked, facts.length) {
            (204 | 304, _, _) => Stage::Length(0),
            (_, true, _) => Stage::ChunkSize,
            (_, false, Some(length)) => {
                self.bounded(length)?;
                Stage::Length(length)
            }
            (_, false, None) => {
                self.reusable = false;
                Stage::UntilEnd
            }
        };
        Ok(true)
    }

    fn chunk_size(&mut self, input: &mut BytesMut) -> Result<bool, Malformed> {
        match parse_chunk_size(input) {
            Ok(Status::Complete((line, size))) => {
                let size = usize::try_from(size).map_err(|_| Malformed::Http)?;
                self.bounded(size)?;
                input.advance(line);
                self.stage = if size == 0 { Stage::Trailers } else { Stage::Chunk(size) };
                Ok(true)
            }
            Ok(Status::Partial) if input.len() < CHUNK_LINE_BYTES_MAX => Ok(false),
            _ => Err(Malformed::Http),
        }
    }

    fn chunk_end(&mut self, input: &mut BytesMut) -> Result<bool, Malformed> {
        if input.len() < 2 {
            return Ok(false);
        }
        if &input[..2] != b"\r\n" {
            return Err(Malformed::Http);
        }
        input.advance(2);
        self.stage = Stage::ChunkSize;
        Ok(true)
    }

    /// Whether the empty line behind the trailers was there. What they say is ignored.
    fn trailers(&mut self, input: &mut BytesMut) -> Result<bool, Malformed> {
        let mut start = 0;
        while let Some(len) = memchr::memchr(b'\n', &input[start..]) {
            let line = &input[start..start + len];
            start += len + 1;
            if line.is_empty() || line == b"\r" {
                input.advance(start);
                return Ok(true);
            }
        }
        if input.len() < CHUNK_LINE_BYTES_MAX { Ok(false) } else { Err(Malformed::Http) }
    }
}

/// What the headers say.
#[derive(Default)]
struct Facts {
    length: Option<usize>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    protobuf: bool,
    code: CodeHeader,
}

impl Facts {
    fn read(response: &Response<'_, '_>) -> Result<Facts, Malformed> {
        let mut facts = Facts::default();
        for header in response.headers.iter() {
            let value = header.value.trim_ascii();
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                let text = std::str::from_utf8(value).map_err(|_| Malformed::Http)?;
                if !text.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(Malformed::Http);
                }
                let length = text.parse().map_err(|_| Malformed::Http)?;
                if facts.length.replace(length).is_some_and(|other| other != length) {
                    return Err(Malformed::Http);
                }
            } else if is("transfer-encoding") {
                // No other coding was offered (`TE`), so none may be used.
                facts.chunked = value.eq_ignore_ascii_case(b"chunked");
                if !facts.chunked {
                    return Err(Malformed::Http);
                }
            } else if is("connection") {
                for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    facts.close |= token.eq_ignore_ascii_case(b"close");
                    facts.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if is("content-type") {
                facts.protobuf = is_protobuf(value);
            } else if is("x-xxim-code") {
                facts.code = facts.code.and(value);
            }
        }
        Ok(facts)
    }
}

/// Whether a content type, whatever its parameters, is that of protobuf.
pub(super) fn is_protobuf(value: &[u8]) -> bool {
    let kind = value.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/x-protobuf")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The reply from bytes that arrive in pieces of `piece`.
    fn read(bytes: &[u8], piece: usize) -> Result<Option<Complete>, Malformed> {
        let mut parser = Parser::new(1000);
        let mut input = BytesMut::new();
        for piece in bytes.chunks(piece.max(1)) {
            input.extend_from_slice(piece);
            if let Some(complete) = parser.advance(&mut input, false)? {
                return Ok(Some(complete));
            }
        }
        parser.advance(&mut input, true)
    }

    fn complete(bytes: &[u8]) -> Complete {
        let whole = read(bytes, bytes.len()).expect("a reply").expect("all of it");
        for piece in 1..bytes.len() {
            let pieces = read(bytes, piece).expect("a reply").expect("all of it");
            assert_eq!(pieces.reply, whole.reply, "pieces of {piece}");
        }
        whole
    }

    #[test]
    fn bodies_of_every_kind() {
        let plain = complete(
            b"HTTP/1.1 200 OK\r\nContent-Type: Application/X-Protobuf; v=1\r\nX-Xxim-Code: 5\r\n\
              content-length: 3\r\n\r\nabc",
        );
        assert_eq!((&*plain.reply.body, plain.reusable), (&b"abc"[..], true));
        assert_eq!((plain.reply.protobuf, plain.reply.code), (true, CodeHeader::Is(5)));
        let chunked = complete(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\
              Trailer: 1\r\n\r\n",
        );
        assert_eq!((&*chunked.reply.body, chunked.reusable), (&b"abcde"[..], true));
        let open = complete(b"HTTP/1.1 500 \r\n\r\nabc");
        assert_eq!(
            (&*open.reply.body, open.reusable, open.reply.status),
            (&b"abc"[..], false, 500)
        );
        let none = complete(b"HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!((none.reply.body.len(), none.reusable), (0, true));
        let early =
            complete(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!((early.reply.status, early.reusable), (200, true));
    }

    #[test]
    fn connections_that_can_not_be_used_again_are_told() {
        for head in [
            "HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nsurplus",
        ] {
            let complete = read(head.as_bytes(), head.len()).unwrap().unwrap();
            assert!(!complete.reusable, "{head}");
        }
        let old =
            complete(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n");
        assert!(old.reusable);
    }

    #[test]
    fn what_is_not_a_reply_is_refused() {
        let refused: [&[u8]; 11] = [
            b"\x00\x01\x02\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        ];
        for bytes in refused {
            assert!(read(bytes, bytes.len()).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(UPSTREAM_REPLY_HEAD_BYTES_MAX));
        assert_eq!(read(long.as_bytes(), 4096), Err(Malformed::Head));
        let endless = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'a'; 1001]].concat();
        assert_eq!(read(&endless, 100), Err(Malformed::Body(1000)));
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            piece in 1_usize..50,
            start in 0_usize..3,
        ) {
            const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let starts: [&[u8]; 3] = [b"", b"HTTP/1.1 200 OK\r\n", CHUNKED];
            let bytes = [starts[start], &bytes].concat();
            let _ = read(&bytes, piece);
        }

        #[test]
        fn any_split_gives_the_same_reply(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let bytes = [head.as_bytes(), &body].concat();
            prop_assert_eq!(complete(&bytes).reply.body, body);
        }
    }
}
