//! From an HTTP request to a WebSocket connection: the decision table of netsvr specification
//! section 2.2 in its corrected form, for a listener with several paths.
//!
//! Invariants: every answer but the 101 ends the TCP connection and says so. On listeners and paths
//! of netsvr it is exactly the bytes of the table; elsewhere it has what HTTP wants of an answer.
//! What a client wrote goes into a response only if it is a token.
//!
//! Costs: a handful of allocations per handshake. No syscalls.

use std::borrow::Cow;

use crate::config::model::{ClientProtocol, Route};
use crate::engine::tenant::Upgrade;
use crate::protocols::netsvr::config::NetsvrCustomer;
use crate::wire::http::answer::{Answer, Manner};
use crate::wire::http::date::Date;
use crate::wire::http::fault::Fault;
use crate::wire::http::{Request, accept_key, is_token_byte};
use crate::wire::origin::{self, Origins};
use crate::wire::sub_protocols;

const EXTENSIONS: &str = "Sec-WebSocket-Extensions";

/// An answer instead of a WebSocket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Status code and reason phrase.
    status: &'static str,
    body: &'static str,
    /// Tells which version of WebSocket is spoken.
    version: bool,
    /// Whole header lines that netsvr's table does not know.
    headers: &'static str,
    /// Asks for a WebSocket, which netsvr's table does not.
    upgrade: bool,
}

const METHOD: Refusal = Refusal {
    headers: "Allow: GET, HEAD\r\n",
    ..refusal("405 Method Not Allowed", "Method Not Allowed")
};
const NOT_FOUND: Refusal = refusal("404 Not Found", "Not Found");
const FORBIDDEN: Refusal = refusal("403 Forbidden", "Forbidden");
const UPGRADE: Refusal =
    Refusal { upgrade: true, ..refusal("426 Upgrade Required", "Upgrade Required") };
const HELLO: Refusal = refusal("200 OK", "Hello netsvr");

const fn refusal(status: &'static str, body: &'static str) -> Refusal {
    Refusal { status, body, version: false, headers: "", upgrade: false }
}

const fn bad(body: &'static str) -> Refusal {
    refusal("400 Bad Request", body)
}

impl Refusal {
    /// What is said of a request that can not be read.
    pub fn of(fault: Fault) -> Refusal {
        let status = fault.status();
        refusal(status, status.split_once(' ').map_or(status, |(_, reason)| reason))
    }

    /// The answer to a request with this path; `None`: it could not be read. `bodiless`: to a HEAD.
    /// The TCP connection is to be closed after it.
    pub fn encode(
        &self,
        path: Option<&[u8]>,
        routes: &[Route],
        bodiless: bool,
        date: &Date,
    ) -> Vec<u8> {
        let version = if self.version { "Sec-WebSocket-Version: 13\r\n" } else { "" };
        if is_exact(path, routes) {
            let body = if bodiless { "" } else { self.body };
            let status = self.status;
            let answer = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{version}\r\n{body}");
            return answer.into_bytes();
        }
        let headers = [version, self.headers].concat();
        let content = Some(("text/plain; charset=utf-8", self.body.as_bytes()));
        let answer =
            Answer { status: self.status, headers: &headers, upgrade: self.upgrade, content };
        answer.encode(Manner { bodiless, ..Manner::LAST }, date)
    }
}

/// Whether answers are the bytes of netsvr's table: on its paths, and on any other of a listener
/// that has one of them.
fn is_exact(path: Option<&[u8]>, routes: &[Route]) -> bool {
    let is_own = |route: &Route| is_netsvr_like(route.protocol);
    match path.and_then(|path| route(path, routes)) {
        Some(route) => is_own(route),
        None => routes.iter().any(is_own),
    }
}

/// Whether clients are upgraded as netsvr does it: its compression, its answers to the byte. So is
/// every protocol that says nothing else.
fn is_netsvr_like(protocol: ClientProtocol) -> bool {
    use ClientProtocol::{Connmix, Im, Xxim};
    !matches!(protocol, Xxim | Connmix { .. } | Im)
}

fn route<'a>(path: &[u8], routes: &'a [Route]) -> Option<&'a Route> {
    routes.iter().find(|route| route.path.as_bytes() == path)
}

/// Decides about a request. `routes` are those of the listener; the origin is checked for netsvr
/// only.
pub fn upgrade(
    request: &Request<'_>,
    routes: &[Route],
    netsvr: &NetsvrCustomer,
) -> Result<Upgrade, Refusal> {
    if !request.is_get() {
        return Err(METHOD);
    }
    let route = route(request.path, routes);
    if !request.upgrades() {
        return Err(not_an_upgrade(route, routes));
    }
    let route = route.ok_or(NOT_FOUND)?;
    // Whoever takes its body for frames hears something else than a proxy has sent.
    if request.has_body() {
        return Err(bad("Bad Request"));
    }
    let origin = origin::of(request);
    if route.protocol == ClientProtocol::Netsvr && !netsvr.allow_origin.admit(&origin) {
        return Err(FORBIDDEN);
    }
    check_headers(request)?;
    let offer = deflate_offer(request).ok_or(bad("invalid Sec-WebSocket-Extensions header"))?;
    let key = request.single("Sec-WebSocket-Key").unwrap_or_default();
    if key.is_empty() {
        return Err(bad("missing Sec-WebSocket-Key"));
    }
    let netsvrs = is_netsvr_like(route.protocol);
    let compress = netsvr.compression_level != 0 && netsvrs;
    let offer = if compress { offer } else { Offer::None };
    let headers = || request.headers().map(|(name, value)| (name.to_owned(), text(value)));
    Ok(Upgrade {
        protocol: route.protocol,
        deflate: offer != Offer::None,
        response: switching_protocols(key, accepted(route.protocol, request), offer),
        path: text(request.path),
        raw_query: text(request.query),
        headers: if netsvrs { Vec::new() } else { headers().collect() },
        sub_protocols: told_sub_protocols(request),
        x_forwarded_for: text(request.header("X-Forwarded-For").unwrap_or_default()),
        x_real_ip: text(request.header("X-Real-IP").unwrap_or_default()),
    })
}

/// What a request for xxim is refused for beside what every request is (xxim section 1.1): its
/// origin or another version of WebSocket. `None`: nothing of these.
pub fn xxim_refusal(request: &Request<'_>, routes: &[Route], origins: &Origins) -> Option<Refusal> {
    let route = route(request.path, routes)?;
    if route.protocol != ClientProtocol::Xxim || !request.upgrades() {
        return None;
    }
    if !origins.admit(&origin::of(request)) {
        return Some(FORBIDDEN);
    }
    let wrong = request.single("Sec-WebSocket-Version") != Some(b"13");
    wrong.then(|| Refusal { version: true, ..bad("unsupported Sec-WebSocket-Version") })
}

/// The answer to a plain GET. Load balancers of netsvr look for its greeting; elsewhere the answer
/// says what is missing (xxim section 1.1).
fn not_an_upgrade(route: Option<&Route>, routes: &[Route]) -> Refusal {
    let greets = |route: &Route| matches!(route.protocol, ClientProtocol::Netsvr);
    match route {
        Some(route) if !is_netsvr_like(route.protocol) => UPGRADE,
        None if !routes.iter().any(greets) => NOT_FOUND,
        _ => HELLO,
    }
}

/// The sub-protocol that the client is told: its first one, but IM has one of its own.
fn accepted<'a>(protocol: ClientProtocol, request: &Request<'a>) -> Option<&'a [u8]> {
    let mut offered = sub_protocols::offered(request);
    match protocol {
        ClientProtocol::Im => offered.find(|name| *name == b"im.v1"),
        _ => offered.next(),
    }
}

/// Rows 7 to 9.
fn check_headers(request: &Request<'_>) -> Result<(), Refusal> {
    if !request.has_token("Upgrade", "websocket") {
        return Err(bad("invalid Upgrade header"));
    }
    if !request.has_token("Connection", "upgrade") {
        return Err(bad("invalid Connection header"));
    }
    if request.single("Sec-WebSocket-Version") != Some(b"13") {
        return Err(Refusal { version: true, ..UPGRADE });
    }
    Ok(())
}

/// Row 12.
fn switching_protocols(key: &[u8], sub_protocol: Option<&[u8]>, offer: Offer) -> Vec<u8> {
    let mut response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nUpgrade: websocket\r\n",
        accept_key(key)
    )
    .into_bytes();
    sub_protocols::tell(&mut response, sub_protocol);
    let window = match offer {
        Offer::None => None,
        Offer::Plain => Some(""),
        Offer::FullWindow => Some("; server_max_window_bits=15"),
    };
    if let Some(window) = window {
        response.extend_from_slice(
            b"sec-websocket-extensions: permessage-deflate; \
              server_no_context_takeover; client_no_context_takeover",
        );
        response.extend_from_slice(window.as_bytes());
        response.extend_from_slice(b"\r\n");
    }
    response.extend_from_slice(b"\r\n");
    response
}

/// What business processes are told of the offered sub-protocols (section 2.3): split at `,`,
/// trimmed, whatever is between.
fn told_sub_protocols(request: &Request<'_>) -> Vec<String> {
    request
        .header_lines("Sec-WebSocket-Protocol")
        .filter(|line| !line.is_empty())
        .flat_map(|line| line.split(|byte| *byte == b','))
        .map(|name| text(name.trim_ascii()))
        .collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

/// What of a client's extensions can be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    None,
    /// permessage-deflate; the response is that of the specification.
    Plain,
    /// The same with `server_max_window_bits=15`, which is what the gateway uses, but which the
    /// response has to repeat (RFC 7692 section 7.1.2.1).
    FullWindow,
}

/// The first acceptable permessage-deflate offer. `None`: a header line is malformed (row 10).
fn deflate_offer(request: &Request<'_>) -> Option<Offer> {
    let mut accepted = Offer::None;
    for mut line in request.header_lines(EXTENSIONS) {
        while !line.is_empty() {
            let offer = extension(&mut line)?;
            if accepted == Offer::None {
                accepted = offer;
            }
        }
    }
    Some(accepted)
}

/// Reads one element of an extension list and the comma behind it (RFC 6455 section 9.1). An empty
/// element is none (RFC 9110 section 5.6.1).
fn extension(line: &mut &[u8]) -> Option<Offer> {
    let name = token(line);
    if name.is_empty() {
        return end_of_element(line).then_some(Offer::None);
    }
    let mut params = Params { valid: name.eq_ignore_ascii_case(b"permessage-deflate"), seen: 0 };
    while eat(line, b';') {
        let name = token(line);
        if name.is_empty() {
            return None;
        }
        let value = if eat(line, b'=') { Some(value(line)?) } else { None };
        params.take(name, value.as_deref());
    }
    end_of_element(line).then(|| params.offer())
}

/// Parameters of a permessage-deflate offer (RFC 7692 section 7.1).
struct Params {
    valid: bool,
    /// One bit for each name that has occurred.
    seen: u8,
}

impl Params {
    const SERVER_WINDOW: u8 = 4;

    /// An unknown or repeated parameter or a wrong value makes the offer one to decline, and so
    /// does a window that is smaller than the one that the shared compressor uses.
    fn take(&mut self, name: &[u8], value: Option<&[u8]>) {
        let (bit, valid) = match name {
            b"server_no_context_takeover" => (1, value.is_none()),
            b"client_no_context_takeover" => (2, value.is_none()),
            b"server_max_window_bits" => (Self::SERVER_WINDOW, value == Some(b"15")),
            b"client_max_window_bits" => (8, value.is_none_or(is_window_bits)),
            _ => (0, false),
        };
        self.valid &= valid && self.seen & bit == 0;
        self.seen |= bit;
    }

    fn offer(&self) -> Offer {
        match self.valid {
            false => Offer::None,
            true if self.seen & Self::SERVER_WINDOW != 0 => Offer::FullWindow,
            true => Offer::Plain,
        }
    }
}

fn is_window_bits(value: &[u8]) -> bool {
    matches!(value, b"8" | b"9" | [b'1', b'0'..=b'5'])
}

fn skip_space(line: &mut &[u8]) {
    *line = line.trim_ascii_start();
}

/// Consumes the byte and the white space around it, if it comes next.
fn eat(line: &mut &[u8], byte: u8) -> bool {
    skip_space(line);
    match line.split_first() {
        Some((first, rest)) if *first == byte => {
            *line = rest;
            skip_space(line);
            true
        }
        _ => false,
    }
}

/// Whether the element ends here. Consumes the comma.
fn end_of_element(line: &mut &[u8]) -> bool {
    eat(line, b',') || line.is_empty()
}

/// Consumes a token, which is empty if none comes next.
fn token<'a>(line: &mut &'a [u8]) -> &'a [u8] {
    skip_space(line);
    let end = line.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(line.len());
    let (token, rest) = line.split_at(end);
    *line = rest;
    token
}

/// Consumes a token or a quoted string that has a token in it. `None`: there is none.
fn value<'a>(line: &mut &'a [u8]) -> Option<Cow<'a, [u8]>> {
    if line.first() != Some(&b'"') {
        let token = token(line);
        return (!token.is_empty()).then_some(Cow::Borrowed(token));
    }
    let mut value = Vec::new();
    let mut bytes = line[1..].iter();
    loop {
        match bytes.next()? {
            b'"' => break,
            b'\\' => value.push(*bytes.next()?),
            byte => value.push(*byte),
        }
    }
    *line = bytes.as_slice();
    is_token(&value).then_some(Cow::Owned(value))
}
