//! Requests: the envelope and the parameters of each method (connmix sections 1.5 to 1.9, 3 to 5).
//!
//! Everything that is wrong with a request is a [`Fault`], that is an answer with code 101; where
//! several things are wrong the first that is seen is named.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

use crate::wire::json::{Index, Value, ValueKind};
use crate::wire::queue::is_topic;
use crate::wire::websocket::Opcode;

/// Bytes that one message to a client may have (section 5).
const DATA_BYTES_MAX: usize = 1 << 20;

/// Standard alphabet, padding optional, nothing else (section 5).
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// An invalid parameter: what `E.m` says. The code is always 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault(pub &'static str);

const INVALID_JSON: Fault = Fault("invalid json");
const BAD_CLIENT: Fault = Fault("c: not a client id");
const BAD_CHANNEL: Fault = Fault("bad channel name");
const BAD_TOPICS: Fault = Fault("t: non-empty array of strings required");

/// A WebSocket message: what to answer to, and what is asked.
#[derive(Debug, PartialEq)]
pub struct Envelope<'a> {
    /// The token of `i` or `id` as it was written; `null` if there is none.
    pub id: &'a str,
    pub request: Result<ApiRequest<'a>, Fault>,
}

/// What an API peer asks for.
#[derive(Debug, PartialEq)]
pub enum ApiRequest<'a> {
    /// `queue.pop`: distinct topics, at least one.
    Pop { topics: Vec<Cow<'a, str>> },
    /// `queue.unpop`
    Unpop,
    /// `conn.call`; the client is a positive number.
    Call { client: i64, call: Call<'a> },
    /// `mesh.send`
    Send { client: i64, data: Bytes, opcode: Opcode },
    /// `mesh.publish`
    Publish { channel: Cow<'a, str>, data: Bytes, opcode: Opcode },
    /// `server.ping` of old versions (section 2).
    Ping,
}

/// A function of `conn.call` with its arguments (section 4).
#[derive(Debug, PartialEq)]
pub enum Call<'a> {
    /// Set these context values, JSON texts; `None` deletes.
    SetContext(Vec<(Cow<'a, str>, Option<&'a str>)>),
    /// Join these channels.
    Subscribe(Vec<Cow<'a, str>>),
    /// Leave these channels.
    Unsubscribe(Vec<Cow<'a, str>>),
}

/// Reads a WebSocket message. `index` is memory that is used again.
pub fn envelope<'a>(message: &'a [u8], index: &'a mut Index) -> Envelope<'a> {
    let whole = index.read(message).filter(|whole| whole.kind() == ValueKind::Object);
    let Some(whole) = whole else {
        return Envelope { id: "null", request: Err(INVALID_JSON) };
    };
    let (mut method, mut params, mut i, mut id) = (None, None, None, None);
    for (key, value) in whole.members() {
        match &*key {
            "m" => method = Some(value),
            "p" => params = Some(value),
            "i" => i = Some(value),
            "id" => id = Some(value),
            _ => {}
        }
    }
    match i.or(id) {
        None => Envelope { id: "null", request: request(method, params) },
        Some(id)
            if matches!(id.kind(), ValueKind::Null | ValueKind::Number | ValueKind::String) =>
        {
            Envelope { id: id.text(), request: request(method, params) }
        }
        Some(_) => {
            let fault = Fault("i: integer or string required");
            Envelope { id: "null", request: Err(fault) }
        }
    }
}

/// Reads the body of `POST /v1/mesh/send`.
pub fn send<'a>(body: &'a [u8], index: &'a mut Index) -> Result<ApiRequest<'a>, Fault> {
    mesh_send(http_params(body, index)?)
}

/// Reads the body of `POST /v1/mesh/publish`.
pub fn publish<'a>(body: &'a [u8], index: &'a mut Index) -> Result<ApiRequest<'a>, Fault> {
    mesh_publish(http_params(body, index)?)
}

fn http_params<'a>(body: &'a [u8], index: &'a mut Index) -> Result<Value<'a>, Fault> {
    index.read(body).filter(|body| body.kind() == ValueKind::Object).ok_or(INVALID_JSON)
}

fn request<'a>(
    method: Option<Value<'a>>,
    params: Option<Value<'a>>,
) -> Result<ApiRequest<'a>, Fault> {
    let method = method.and_then(Value::string).ok_or(Fault("m: method name required"))?;
    match &*method {
        "mesh.send" => mesh_send(object(params)?),
        "mesh.publish" => mesh_publish(object(params)?),
        "conn.call" => conn_call(object(params)?),
        "queue.pop" => Ok(ApiRequest::Pop { topics: topics(params)? }),
        "queue.unpop" => match params.map_or(ValueKind::Null, Value::kind) {
            ValueKind::Object | ValueKind::Array | ValueKind::Null => Ok(ApiRequest::Unpop),
            _ => Err(Fault("p: object required")),
        },
        "server.ping" => Ok(ApiRequest::Ping),
        _ => Err(Fault("unknown method")),
    }
}

/// Parameters that are an object, or an array that holds exactly one (section 1.7).
fn object(params: Option<Value<'_>>) -> Result<Value<'_>, Fault> {
    let params = params.ok_or(Fault("p: object required"))?;
    let mut elements = params.elements();
    let object = match (params.kind(), elements.next(), elements.next()) {
        (ValueKind::Array, Some(only), None) => only,
        _ => params,
    };
    let is_object = object.kind() == ValueKind::Object;
    is_object.then_some(object).ok_or(Fault("p: object required"))
}

/// `{"t":["a","b"]}` or `["a","b"]`, as a list without repetitions.
fn topics(params: Option<Value<'_>>) -> Result<Vec<Cow<'_, str>>, Fault> {
    let list = match params {
        Some(params) if params.kind() == ValueKind::Object => params.get("t"),
        other => other,
    };
    let list = list.filter(|list| list.kind() == ValueKind::Array).ok_or(BAD_TOPICS)?;
    let mut topics = Vec::new();
    for element in list.elements() {
        let topic = element.string().ok_or(BAD_TOPICS)?;
        if !is_topic(&topic) {
            return Err(Fault("t: a topic has 1 to 255 bytes"));
        }
        topics.push(topic);
    }
    topics.sort_unstable();
    topics.dedup();
    if topics.is_empty() { Err(BAD_TOPICS) } else { Ok(topics) }
}

fn mesh_send(params: Value<'_>) -> Result<ApiRequest<'_>, Fault> {
    let [target, data, kind] = mesh_params(params);
    let client = client_id(target)?;
    let (data, opcode) = payload(data, kind)?;
    Ok(ApiRequest::Send { client, data, opcode })
}

fn mesh_publish(params: Value<'_>) -> Result<ApiRequest<'_>, Fault> {
    let [target, data, kind] = mesh_params(params);
    let channel = channel(target)?;
    let (data, opcode) = payload(data, kind)?;
    Ok(ApiRequest::Publish { channel, data, opcode })
}

/// `c`, `d` and `t`.
fn mesh_params(params: Value<'_>) -> [Option<Value<'_>>; 3] {
    let (mut target, mut data, mut kind) = (None, None, None);
    for (key, value) in params.members() {
        match &*key {
            "c" => target = Some(value),
            "d" => data = Some(value),
            "t" => kind = Some(value),
            _ => {}
        }
    }
    [target, data, kind]
}

/// A decimal string of 1 to 19 digits or an integer, from 1 to 2^63-1 (section 4).
fn client_id(value: Option<Value<'_>>) -> Result<i64, Fault> {
    let value = value.ok_or(BAD_CLIENT)?;
    let number = match value.string() {
        None => value.integer(),
        Some(text) => {
            let digits = (1..=19).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|_| digits)
        }
    };
    number.filter(|&number: &i64| number > 0).ok_or(BAD_CLIENT)
}

/// Data and type of a message to clients (section 5).
fn payload(data: Option<Value<'_>>, kind: Option<Value<'_>>) -> Result<(Bytes, Opcode), Fault> {
    let data = data.and_then(Value::string).ok_or(Fault("d: string required"))?;
    let opcode = match kind.filter(|kind| !kind.is_null()).map(Value::string) {
        None => Opcode::Text,
        Some(Some(kind)) if kind.is_empty() || kind == "text" => Opcode::Text,
        Some(Some(kind)) if kind == "binary" => Opcode::Binary,
        Some(_) => return Err(Fault("t: unknown type")),
    };
    let data = match (opcode, data) {
        (Opcode::Text, Cow::Borrowed(text)) => Bytes::copy_from_slice(text.as_bytes()),
        (Opcode::Text, Cow::Owned(text)) => Bytes::from(text),
        (Opcode::Binary, text) => {
            Bytes::from(BASE64.decode(&*text).map_err(|_| Fault("d: invalid base64"))?)
        }
    };
    if data.len() > DATA_BYTES_MAX { Err(Fault("d: too large")) } else { Ok((data, opcode)) }
}

/// A channel name (section 4): 1 to 255 bytes, no space, no control characters.
fn channel(value: Option<Value<'_>>) -> Result<Cow<'_, str>, Fault> {
    let name = value.and_then(Value::string).ok_or(BAD_CHANNEL)?;
    let legal = is_topic(&name) && !name.chars().any(|c| c == ' ' || c.is_control());
    if legal { Ok(name) } else { Err(BAD_CHANNEL) }
}

fn conn_call(params: Value<'_>) -> Result<ApiRequest<'_>, Fault> {
    let (mut client, mut function, mut arguments) = (None, None, None);
    for (key, value) in params.members() {
        match &*key {
            "c" => client = Some(value),
            "f" => function = Some(value),
            "a" => arguments = Some(value),
            _ => {}
        }
    }
    let client = client_id(client)?;
    let function = function.and_then(Value::string).ok_or(Fault("f: string required"))?;
    let arguments = arguments.filter(|arguments| arguments.kind() == ValueKind::Array);
    let arguments = arguments.ok_or(Fault("a: array required"));
    let call = match &*function {
        "set_context_value" => context_value(arguments?)?,
        "set_context" => context(arguments?)?,
        "subscribe" => Call::Subscribe(channels(arguments?)?),
        "unsubscribe" => Call::Unsubscribe(channels(arguments?)?),
        _ => return Err(Fault("f: unknown function")),
    };
    Ok(ApiRequest::Call { client, call })
}

fn context_value(arguments: Value<'_>) -> Result<Call<'_>, Fault> {
    let mut elements = arguments.elements();
    let (Some(key), Some(value), None) = (elements.next(), elements.next(), elements.next()) else {
        return Err(Fault("a: key and value required"));
    };
    let key = key.string().filter(|key| !key.is_empty());
    let key = key.ok_or(Fault("a: the key must be a non-empty string"))?;
    Ok(Call::SetContext(vec![(key, present(value))]))
}

/// One object; an empty array stands for an empty one, as PHP writes it.
fn context(arguments: Value<'_>) -> Result<Call<'_>, Fault> {
    const FAULT: Fault = Fault("a: one object required");
    let mut elements = arguments.elements();
    let (Some(object), None) = (elements.next(), elements.next()) else { return Err(FAULT) };
    let empty_array = object.kind() == ValueKind::Array && object.elements().next().is_none();
    if object.kind() != ValueKind::Object && !empty_array {
        return Err(FAULT);
    }
    let values: Vec<_> = object.members().map(|(key, value)| (key, present(value))).collect();
    match values.iter().any(|(key, _)| key.is_empty()) {
        true => Err(Fault("a: a key is empty")),
        false => Ok(Call::SetContext(values)),
    }
}

/// `null` deletes a key (Lua nil).
fn present(value: Value<'_>) -> Option<&str> {
    (!value.is_null()).then_some(value.text())
}

fn channels(arguments: Value<'_>) -> Result<Vec<Cow<'_, str>>, Fault> {
    let channels: Result<Vec<_>, Fault> =
        arguments.elements().map(|name| channel(Some(name))).collect();
    match channels? {
        names if names.is_empty() => Err(Fault("a: at least one channel required")),
        names => Ok(names),
    }
}
