//! connmix's API: what a request asks of the gateway, and what its outcome is called (connmix
//! sections 1, 3 to 5).
//!
//! Pure decisions: which endpoint an HTTP request is for and whether its sender may use it, which
//! command a request of the API becomes, which answer an outcome becomes. The shard carries them
//! out. Costs of a request: one allocation for what is pushed, a few for the command.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::hub::ConnId;
use crate::hub::push::{Call, Command, Outcome, Payload, PayloadKind, Target};
use crate::protocols::connmix::config::{Api, User};
use crate::protocols::connmix::wire::{self, Answer, ApiRequest, Code, Fault};
use crate::wire::http::fault::Fault as HttpFault;
use crate::wire::http::{Request as Http, accept_key};
use crate::wire::json::quoted;
use crate::wire::websocket::Opcode;
use crate::wire::{origin, sub_protocols};

/// What an HTTP request is for, and its sender may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `POST /v1/mesh/send`
    Send,
    /// `POST /v1/mesh/publish`
    Publish,
    /// `GET /version`
    Version,
    /// `GET /v1/nodes`, with the host that the request came to.
    Nodes { host: Option<String> },
    /// `GET /metrics`
    Metrics,
    /// `GET /ws/v1`: the head of the 101, and whether the peer may do more than look.
    WebSocket { response: Vec<u8>, may_write: bool },
}

/// An answer instead of what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Status code and reason phrase.
    pub status: &'static str,
    /// Whole header lines.
    pub headers: &'static str,
    /// Asks for a WebSocket.
    pub upgrade: bool,
    /// `E.m`; `E.c` is always 101 (section 1.2).
    pub message: &'static str,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Action {
    /// The answer is known.
    Answer(Answer),
    /// A command whose outcome decides the answer, and the node that it is for, if that is another
    /// one.
    Tell(Command, About, Option<u16>),
    /// Consume these topics.
    Pop(Vec<Arc<str>>),
    /// Consume nothing any more.
    Unpop,
}

/// What an outcome is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Send,
    Publish,
    Call,
}

const fn refusal(status: &'static str, headers: &'static str, message: &'static str) -> Refusal {
    Refusal { status, headers, upgrade: false, message }
}

/// The answer where the metrics can not be had at the moment.
pub const BUSY: Refusal = refusal("503 Service Unavailable", "Retry-After: 1\r\n", "try again");

const NOT_FOUND: Refusal = refusal("404 Not Found", "", "not found");
const ONLY_POST: Refusal =
    refusal("405 Method Not Allowed", "Allow: POST\r\n", "method not allowed");
const ONLY_GET: Refusal =
    refusal("405 Method Not Allowed", "Allow: GET, HEAD\r\n", "method not allowed");
const UPGRADE: Refusal = Refusal {
    upgrade: true,
    ..refusal("426 Upgrade Required", "Sec-WebSocket-Version: 13\r\n", "websocket upgrade required")
};
const HANDSHAKE_BODY: Refusal = refusal("400 Bad Request", "", "a handshake has no body");
const UNAUTHORIZED: Refusal =
    refusal("401 Unauthorized", "WWW-Authenticate: Basic realm=\"connmix\"\r\n", "unauthorized");
const FORBIDDEN: Refusal = refusal("403 Forbidden", "", "permission denied");
const FOREIGN: Refusal = refusal(
    "403 Forbidden",
    "",
    "pages of this origin may not use the API: connmix.allow_origin lists those that may",
);

impl From<HttpFault> for Refusal {
    fn from(fault: HttpFault) -> Refusal {
        refusal(fault.status(), "", fault.text())
    }
}

/// Which endpoint a request is for. `client` is the address that it came from.
pub fn endpoint(request: &Http<'_>, client: IpAddr, api: &Api) -> Result<Endpoint, Refusal> {
    if !comes_from_a_friend(request, api) {
        return Err(FOREIGN);
    }
    let (method, endpoint) = match request.path {
        b"/v1/mesh/send" => ("POST", Endpoint::Send),
        b"/v1/mesh/publish" => ("POST", Endpoint::Publish),
        b"/version" => ("GET", Endpoint::Version),
        b"/v1/nodes" => ("GET", Endpoint::Nodes { host: host(request) }),
        b"/metrics" => ("GET", Endpoint::Metrics),
        b"/ws/v1" => ("GET", Endpoint::WebSocket { response: Vec::new(), may_write: false }),
        _ => return Err(NOT_FOUND),
    };
    // A HEAD is answered as a GET is.
    let right = if method == "GET" { request.is_get() } else { request.method == method };
    if !right {
        return Err(if method == "POST" { ONLY_POST } else { ONLY_GET });
    }
    let may_write = permission(request, client, api).ok_or(UNAUTHORIZED)?;
    match endpoint {
        Endpoint::Send | Endpoint::Publish if !may_write => Err(FORBIDDEN),
        Endpoint::WebSocket { .. } => {
            let response = handshake(request)?;
            Ok(Endpoint::WebSocket { response, may_write })
        }
        endpoint => Ok(endpoint),
    }
}

/// Whether the sender is no page of a stranger (section 1.3): the browser of whoever
/// works on this machine reaches the API for every page that asks it to.
fn comes_from_a_friend(request: &Http<'_>, api: &Api) -> bool {
    let origin = origin::of(request);
    match api.users.is_empty() {
        true => api.allow_origin.trust(&origin, request.host),
        false => origin.is_empty() || api.allow_origin.admit(&origin),
    }
}

/// Whether the sender may do more than look; `None` if it may do nothing (section 1.3).
fn permission(request: &Http<'_>, client: IpAddr, api: &Api) -> Option<bool> {
    if api.users.is_empty() {
        return Some(true);
    }
    let query = request.path == b"/ws/v1" && api.query_credentials;
    let (name, password) = match request.header("Authorization") {
        Some(header) => basic(header)?,
        None if query => query_credentials(request.query)?,
        None => return None,
    };
    let fits = |user: &&User| {
        // Both are compared, whatever the first one says.
        let same = same(&user.username, &name) & same(&user.password, &password);
        same && user.may_come_from(client)
    };
    api.users.iter().find(fits).map(|user| user.write)
}

/// Compares without telling by its time where the difference is.
fn same(known: &str, given: &str) -> bool {
    let differences = known.bytes().zip(given.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    known.len() == given.len() && differences == 0
}

/// `Basic` and base64 of `name:password` (RFC 7617).
fn basic(header: &[u8]) -> Option<(String, String)> {
    let (scheme, rest) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(rest.trim_ascii()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// `username=..&password=..`, percent-encoded.
fn query_credentials(query: &[u8]) -> Option<(String, String)> {
    let value = |name: &[u8]| {
        let pairs = query.split(|byte| *byte == b'&');
        let value = pairs.filter_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"=")).next()?;
        decode_percent(value)
    };
    Some((value(b"username")?, value(b"password")?))
}

fn decode_percent(text: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(*rest.next()?).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// The host in the request, without port.
fn host(request: &Http<'_>) -> Option<String> {
    let host = std::str::from_utf8(request.host).ok()?;
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    (!name.is_empty() && name.bytes().all(plain)).then(|| name.to_owned())
}

/// The head of the 101 (sections 0 and 1.4). permessage-deflate is not negotiated: backends are
/// near, and the PHP clients do not offer it.
fn handshake(request: &Http<'_>) -> Result<Vec<u8>, Refusal> {
    let key = request.single("Sec-WebSocket-Key").unwrap_or_default();
    let upgrades = request.upgrades()
        && request.has_token("Upgrade", "websocket")
        && request.has_token("Connection", "upgrade")
        && request.single("Sec-WebSocket-Version") == Some(b"13");
    if !upgrades || key.is_empty() {
        return Err(UPGRADE);
    }
    if request.has_body() {
        return Err(HANDSHAKE_BODY);
    }
    let mut response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n",
        accept_key(key)
    )
    .into_bytes();
    sub_protocols::tell(&mut response, sub_protocols::offered(request).next());
    response.extend_from_slice(b"\r\n");
    Ok(response)
}

/// What a client_id names: a connection, and its node, if that is another one.
pub type Found = Option<(Option<u16>, ConnId)>;

/// What a request of the API asks for, from a peer that may do more than look or not. `find` reads
/// client_ids.
pub fn action(
    request: Result<ApiRequest<'_>, Fault>,
    may_write: bool,
    find: impl Fn(i64) -> Found,
) -> Action {
    let request = match request {
        Ok(ApiRequest::Ping) => return Action::Answer(Answer::Pong),
        Ok(_) if !may_write => return Action::Answer(Fault("permission denied").into()),
        Ok(request) => request,
        Err(fault) => return Action::Answer(fault.into()),
    };
    match request {
        ApiRequest::Ping => Action::Answer(Answer::Pong),
        ApiRequest::Pop { topics } => {
            Action::Pop(topics.iter().map(|topic| (**topic).into()).collect())
        }
        ApiRequest::Unpop => Action::Unpop,
        ApiRequest::Send { client, data, opcode } => match find(client) {
            None => Action::Answer(answer(About::Send, Outcome::default())),
            Some((node, conn)) => {
                let command = push(Target::Conns(vec![conn]), data, opcode);
                Action::Tell(command, About::Send, node)
            }
        },
        ApiRequest::Publish { channel, data, opcode } => {
            let target = Target::Topics(vec![channel.into()]);
            Action::Tell(push(target, data, opcode), About::Publish, None)
        }
        ApiRequest::Call { client, call } => match find(client) {
            None => Action::Answer(answer(About::Call, Outcome::default())),
            Some((node, conn)) => {
                Action::Tell(Command::Call { conn, call: owned(call) }, About::Call, node)
            }
        },
    }
}

/// The answer that an outcome is (section 1.9).
pub fn answer(about: About, outcome: Outcome) -> Answer {
    let Outcome { done, failed } = outcome;
    let error = |code, message| Answer::Error { code, message };
    match about {
        About::Publish => Answer::Counts { reached: done, failed },
        About::Send | About::Call if done > 0 => Answer::Done,
        About::Send if failed > 0 => error(Code::SendFailed, "client is closing or does not read"),
        About::Send => error(Code::SendFailed, "client not found"),
        About::Call if failed > 0 => {
            error(Code::CallFailed, "limit of the connection reached, or it is closing")
        }
        About::Call => error(Code::CallFailed, "client not found"),
    }
}

/// The body of `GET /v1/nodes`. `host` is where the request came to, `bind` the listener's address;
/// `others` are the other nodes and where their API is.
pub fn nodes(
    node: u16,
    api: &Api,
    bind: std::net::SocketAddr,
    host: Option<&str>,
    others: impl Iterator<Item = (u16, std::net::SocketAddr)>,
) -> Vec<u8> {
    let address = match (&api.advertise, bind.ip().is_unspecified(), host) {
        (Some(advertise), ..) => advertise.clone(),
        (None, true, Some(host)) => format!("{host}:{}", bind.port()),
        _ => bind.to_string(),
    };
    let mut body = format!("{{\"nodes\":[{{\"id\":{node},\"api_server\":").into_bytes();
    body.extend_from_slice(quoted(&address).as_bytes());
    for (node, address) in others {
        let more = format!("}},{{\"id\":{node},\"api_server\":\"{address}\"");
        body.extend_from_slice(more.as_bytes());
    }
    body.extend_from_slice(b"}]}");
    body
}

/// The body of `GET /version`.
pub const VERSION: &[u8] = br#"{"apis":["v1"]}"#;

/// The body that goes with a refusal.
pub fn refusal_body(refusal: Refusal) -> Vec<u8> {
    wire::http_body(Fault(refusal.message).into())
}

fn push(target: Target, data: bytes::Bytes, opcode: Opcode) -> Command {
    let kind = match opcode {
        Opcode::Text => PayloadKind::Text,
        Opcode::Binary => PayloadKind::Binary,
    };
    Command::Push { target, payloads: vec![Payload::of_kind(data, kind)] }
}

fn owned(call: wire::Call<'_>) -> Call {
    let names = |names: Vec<std::borrow::Cow<'_, str>>| {
        names.into_iter().map(|name| Box::from(&*name)).collect()
    };
    match call {
        wire::Call::SetContext(values) => Call::SetContext(
            values
                .into_iter()
                .map(|(key, value)| (quoted(&key).into(), value.map(Box::from)))
                .collect(),
        ),
        wire::Call::Subscribe(channels) => Call::Subscribe(names(channels)),
        wire::Call::Unsubscribe(channels) => Call::Unsubscribe(names(channels)),
    }
}
