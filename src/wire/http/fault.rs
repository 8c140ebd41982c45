//! Why a request can not be read (RFC 9112 sections 2 to 7). Nothing behind such a request can be
//! understood, so each of these is answered, if at all, and ends the connection.

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A line of the head ends with LF alone (section 2.2 permits to refuse it).
    LineEnd,
    /// No method, target and HTTP/1.0 or HTTP/1.1 with one space between them (section 3).
    RequestLine,
    /// The target has none of the forms of section 3.2, or bytes that no target has.
    Target,
    /// A field line is malformed or folded (section 5).
    Field,
    /// More than [`super::HEADERS_MAX`] field lines.
    Fields,
    /// More than [`super::HEAD_BYTES_MAX`] bytes before the empty line.
    Head,
    /// HTTP/1.1 without `Host` (section 3.2).
    NoHost,
    /// More than one `Host`.
    Hosts,
    /// `Host` is not a host with or without a port.
    Host,
    /// `Content-Length` is not a number.
    Length,
    /// Several `Content-Length` lines that differ.
    Lengths,
    /// `Transfer-Encoding` together with `Content-Length`, or in HTTP/1.0 (section 6.1).
    LengthAndCoding,
    /// A transfer coding that this server does not know.
    Coding,
    /// A chunk or a trailer line is malformed (section 7.1).
    Chunk,
    /// A body that is longer than the limit.
    Body,
}

impl Fault {
    /// Every fault, for tests that must know all of them.
    pub const ALL: [Fault; 15] = [
        Fault::LineEnd,
        Fault::RequestLine,
        Fault::Target,
        Fault::Field,
        Fault::Fields,
        Fault::Head,
        Fault::NoHost,
        Fault::Hosts,
        Fault::Host,
        Fault::Length,
        Fault::Lengths,
        Fault::LengthAndCoding,
        Fault::Coding,
        Fault::Chunk,
        Fault::Body,
    ];

    /// Status code and reason phrase of the answer.
    pub fn status(self) -> &'static str {
        match self {
            Fault::Fields | Fault::Head => "431 Request Header Fields Too Large",
            Fault::Coding => "501 Not Implemented",
            Fault::Body => "413 Content Too Large",
            _ => "400 Bad Request",
        }
    }

    /// What is wrong, for whoever wrote the client.
    pub fn text(self) -> &'static str {
        match self {
            Fault::LineEnd => "bad request: a line of the head does not end with CR LF",
            Fault::RequestLine => "bad request: not a request line of HTTP/1.1",
            Fault::Target => "bad request: not a request target",
            Fault::Field => "bad request: malformed header line",
            Fault::Fields => "request head too large: more than 64 header lines",
            Fault::Head => "request head too large: more than 16384 bytes",
            Fault::NoHost => "bad request: Host is missing",
            Fault::Hosts => "bad request: more than one Host",
            Fault::Host => "bad request: malformed Host",
            Fault::Length => "bad request: Content-Length is not a number",
            Fault::Lengths => "bad request: differing Content-Length",
            Fault::LengthAndCoding => {
                "bad request: Transfer-Encoding with Content-Length or in HTTP/1.0"
            }
            Fault::Coding => "unknown transfer coding: send Content-Length or chunked",
            Fault::Chunk => "bad request: malformed chunk",
            Fault::Body => "body too large",
        }
    }
}

const _: () = assert!(super::HEADERS_MAX == 64 && super::HEAD_BYTES_MAX == 16384, "texts say so");
