//! The actions of rules, out of TOML.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use toml::{Table, Value};

use super::model::*;
use super::template::{context_key, source, step, template};
use super::{Bounds, most};
use crate::config::error::Complaint;
use crate::config::model::MessageType;
use crate::limits::CLOSE_REASON_BYTES_MAX;
use crate::wire::json::{push_string, quoted};
use crate::wire::path::has_dot_segment;
use crate::wire::websocket::CloseCodes;

/// Every action, in the words of errors.
const ACTIONS: &str = "subscribe, unsubscribe, send, publish, push, set, unset, user, wait, http, \
     close";
const WAIT_DEFAULT: Duration = Duration::from_secs(60);
const HTTP_DEFAULT: Duration = Duration::from_secs(5);

/// A list of actions. `name` is that of the list.
pub(super) fn actions(
    name: &str,
    value: &Value,
    bounds: &Bounds,
) -> Result<Vec<Action>, Complaint> {
    let shape = || {
        Complaint::new(format!("`{name}` is not a list of actions"))
            .allowed("[ { send = \"text\" }, { close = { code = 1008 } } ]")
    };
    let list = value.as_array().ok_or_else(shape)?;
    if list.len() > bounds.actions_max {
        let complaint = Complaint::new(format!("`{name}` has {} actions", list.len()));
        return Err(most(complaint, bounds.actions_max, "actions_max"));
    }
    let one = |(index, value): (usize, &Value)| {
        let table = value.as_table().ok_or_else(shape)?;
        action(table, bounds)
            .map_err(|complaint| at(&format!("action {} of `{name}`", index + 1), complaint))
    };
    list.iter().enumerate().map(one).collect()
}

/// Says where something is wrong.
pub(super) fn at(place: &str, complaint: Complaint) -> Complaint {
    Complaint { problem: format!("{place}: {}", complaint.problem), ..complaint }
}

fn action(table: &Table, bounds: &Bounds) -> Result<Action, Complaint> {
    let mut entries = table.iter();
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        let complaint = Complaint::new(format!("there are {} actions in one table", table.len()));
        return Err(complaint
            .allowed(format!("one of {ACTIONS}"))
            .advise("Write one table for each action, in the order in which they shall happen"));
    };
    known(name, value, bounds).map_err(|complaint| at(name, complaint))
}

fn known(name: &str, value: &Value, bounds: &Bounds) -> Result<Action, Complaint> {
    Ok(match name {
        "subscribe" => Action::Subscribe(templates(value)?),
        "unsubscribe" => Action::Unsubscribe(templates(value)?),
        "send" => Action::Send(sent(value)?),
        "publish" => publish(&Members::of(value, &["channel", "data", "type"])?)?,
        "push" => {
            let keys = ["topic", "event", "include", "extra"];
            Action::Push(push(&Members::of(value, &keys)?)?)
        }
        "set" => Action::Set(assignments(value)?),
        "unset" => {
            Action::Unset(texts(value)?.into_iter().map(context_key).collect::<Result<_, _>>()?)
        }
        "user" => Action::User(single(text(value)?)?),
        "wait" => {
            let members = Members::of(value, &["key", "timeout"])?;
            let key = context_key(members.text("key")?)?;
            Action::Wait {
                key,
                timeout: members.duration(
                    "timeout",
                    WAIT_DEFAULT,
                    ("wait_max", bounds.wait_max),
                )?,
            }
        }
        "http" => {
            let keys = ["method", "url", "body", "content_type", "timeout", "set", "on_error"];
            Action::Http(Box::new(http(&Members::of(value, &keys)?, bounds)?))
        }
        "close" => Action::Close(goodbye(&Members::of(value, &["code", "reason"])?)?),
        _ => {
            let complaint = Complaint::new("there is no such action");
            return Err(complaint.allowed(ACTIONS));
        }
    })
}

/// The members of a table whose names are known.
struct Members<'a>(&'a Table);

impl<'a> Members<'a> {
    fn of(value: &'a Value, known: &[&str]) -> Result<Members<'a>, Complaint> {
        let allowed = || format!("a table with {}", known.join(", "));
        let Some(table) = value.as_table() else {
            return Err(
                Complaint::new(format!("{} where a table belongs", kind(value))).allowed(allowed())
            );
        };
        match table.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(Members(table)),
            Some(key) => {
                Err(Complaint::new(format!("there is no such key as `{key}`")).allowed(allowed()))
            }
        }
    }

    /// The value of a key that may be missing.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key)
    }

    fn text(&self, key: &str) -> Result<&'a str, Complaint> {
        let missing = || Complaint::new(format!("`{key}` is missing"));
        text(self.get(key).ok_or_else(missing)?).map_err(|complaint| at(key, complaint))
    }

    fn text_or(&self, key: &str, default: &'static str) -> Result<&'a str, Complaint> {
        if self.get(key).is_some() { self.text(key) } else { Ok(default) }
    }

    fn template(&self, key: &str) -> Result<Template, Complaint> {
        single(self.text(key)?).map_err(|complaint| at(key, complaint))
    }

    /// A number of seconds, or a text like `"5s"`.
    /// The longest that is permitted is what `bound` says.
    fn duration(
        &self,
        key: &str,
        default: Duration,
        (bound, max): (&str, Duration),
    ) -> Result<Duration, Complaint> {
        let Some(value) = self.get(key) else { return Ok(default.min(max)) };
        let duration = match value {
            Value::Integer(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
            Value::Float(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
            Value::String(text) => crate::config::settings::milliseconds(text)
                .and_then(|ms| u64::try_from(ms).ok())
                .map(Duration::from_millis),
            _ => None,
        };
        let good = duration.filter(|duration| !duration.is_zero() && *duration <= max);
        good.ok_or_else(|| {
            let allowed = format!("more than 0, at most {} seconds", max.as_secs());
            Complaint::new(format!("{key}: {value} is not a duration that is allowed"))
                .allowed(format!("{allowed}; a number of seconds, or a text like \"5s\""))
                .advise(format!("For longer ones raise connmix.rules.{bound}"))
        })
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date or time",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

fn text(value: &Value) -> Result<&str, Complaint> {
    let wrong = || Complaint::new(format!("{} where a text belongs", kind(value)));
    value.as_str().ok_or_else(wrong)
}

/// A list of texts; a text alone is a list of one.
fn texts(value: &Value) -> Result<Vec<&str>, Complaint> {
    match value {
        Value::String(text) => Ok(vec![text]),
        Value::Array(list) if !list.is_empty() => list.iter().map(text).collect(),
        Value::Array(_) => Err(Complaint::new("the list is empty")),
        _ => Err(Complaint::new(format!("{} where a list of texts belongs", kind(value)))),
    }
}

fn templates(value: &Value) -> Result<Vec<Template>, Complaint> {
    texts(value)?.into_iter().map(template).collect()
}

/// A template for one text.
fn single(text: &str) -> Result<Template, Complaint> {
    let template = template(text)?;
    match template.each() {
        None => Ok(template),
        Some(_) => Err(Complaint::new("[*] where one text belongs")
            .allowed("[*] in the lists of subscribe and unsubscribe")),
    }
}

fn sent(value: &Value) -> Result<Content, Complaint> {
    match value {
        Value::String(text) => content(text, MessageType::Text),
        _ => content(Members::of(value, &["binary"])?.text("binary")?, MessageType::Binary),
    }
}

fn content(text: &str, kind: MessageType) -> Result<Content, Complaint> {
    let template = single(text)?;
    Ok(match (kind, template.constant()) {
        (MessageType::Text, Some(text)) => {
            Content::Fixed(kind, Bytes::copy_from_slice(text.as_bytes()))
        }
        (MessageType::Text, None) => Content::Text(template),
        (MessageType::Binary, None) => Content::Binary(template),
        (MessageType::Binary, Some(text)) => {
            let bytes = STANDARD.decode(text.as_bytes()).map_err(|error| {
                Complaint::new(format!("this is not base64: {error}"))
                    .advise("Write the bytes in base64 with padding, without line breaks")
            })?;
            Content::Fixed(kind, bytes.into())
        }
    })
}

fn publish(members: &Members<'_>) -> Result<Action, Complaint> {
    let kind = match members.text_or("type", "text")? {
        "text" => MessageType::Text,
        "binary" => MessageType::Binary,
        other => {
            let complaint = Complaint::new(format!("type: there is no such choice as {other:?}"));
            return Err(complaint.allowed("\"text\" or \"binary\""));
        }
    };
    let content =
        content(members.text("data")?, kind).map_err(|complaint| at("data", complaint))?;
    Ok(Action::Publish { channel: members.template("channel")?, content })
}

fn push(members: &Members<'_>) -> Result<Push, Complaint> {
    let mut parts: Vec<(String, Member)> = Vec::new();
    if members.get("event").is_some() {
        parts.push(("event".to_owned(), Member::Made(assigned_text(members.text("event")?)?)));
    }
    if let Some(include) = members.get("include") {
        for item in texts(include).map_err(|complaint| at("include", complaint))? {
            parts.push(included(item).map_err(|complaint| at("include", complaint))?);
        }
    }
    if let Some(extra) = members.get("extra") {
        let table =
            extra.as_table().ok_or_else(|| Complaint::new("extra: a table belongs here"))?;
        for (key, value) in table {
            let made = assigned(value).map_err(|complaint| at("extra", complaint))?;
            parts.push((key.clone(), Member::Made(made)));
        }
    }
    parts.sort_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
    if let Some(pair) = parts.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let complaint = Complaint::new(format!("\"{}\" would be twice in `d`", pair[0].0));
        return Err(complaint.advise("Remove it from include, or rename it in extra"));
    }
    let named = |(name, member): (String, Member)| {
        let member = match member {
            Member::Made(Assigned::Fixed(json)) => Member::Fixed(json),
            member => member,
        };
        (format!("{}:", quoted(&name)).into_boxed_str(), member)
    };
    let members_of_d = parts.into_iter().map(named).collect();
    Ok(Push { topic: members.template("topic")?, members: members_of_d })
}

fn included(item: &str) -> Result<(String, Member), Complaint> {
    let plain = match item {
        "frame" => Member::Frame,
        "headers" => Member::Headers,
        "query" => Member::Query,
        "remote_addr" => Member::RemoteAddr,
        _ => {
            let named = item.split_once('=').filter(|(name, _)| !name.is_empty());
            return match named.map(|(name, path)| (name, source(path))) {
                Some((name, Ok(Source::Context(place)))) => {
                    Ok((name.to_owned(), Member::Context(place)))
                }
                _ => Err(Complaint::new(format!("{item:?} can not be included"))
                    .allowed("frame, headers, query, remote_addr, <name>=ctx.<key>")
                    .advise("Put anything else into `extra`")),
            };
        }
    };
    Ok((item.to_owned(), plain))
}

fn assignments(value: &Value) -> Result<Vec<(Box<str>, Assigned)>, Complaint> {
    let table = value.as_table().filter(|table| !table.is_empty()).ok_or_else(|| {
        Complaint::new("a table of context keys belongs here")
            .allowed("{ room = \"${json.room_id}\" }")
    })?;
    let one = |(key, value): (&String, &Value)| {
        let value = assigned(value).map_err(|complaint| at(key, complaint))?;
        Ok((context_key(key)?, value))
    };
    table.iter().map(one).collect()
}

fn assigned(value: &Value) -> Result<Assigned, Complaint> {
    match value {
        Value::String(text) => assigned_text(text),
        constant => {
            let mut json = String::new();
            push_json(constant, &mut json)?;
            Ok(Assigned::Fixed(json.into()))
        }
    }
}

fn assigned_text(text: &str) -> Result<Assigned, Complaint> {
    // What looks like a reference is meant to be one.
    if text.contains('.') && source(text).is_ok() {
        let complaint = Complaint::new(format!("\"{text}\" would be taken as it is written"));
        return Err(complaint.advise(format!("Write \"${{{text}}}\" for the value")));
    }
    let template = single(text)?;
    if let Some(text) = template.constant() {
        return Ok(Assigned::Fixed(quoted(text).into()));
    }
    Ok(match template.only() {
        Some(reference) if reference.filters.is_empty() => Assigned::Copy(reference.source.clone()),
        _ => Assigned::Text(template),
    })
}

/// Appends a constant as JSON; texts in it are taken as they are.
fn push_json(value: &Value, out: &mut String) -> Result<(), Complaint> {
    match value {
        Value::String(text) => push_string(out, text),
        Value::Integer(number) => out.push_str(&number.to_string()),
        Value::Float(number) if number.is_finite() => out.push_str(&format!("{number:?}")),
        Value::Boolean(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Array(list) => {
            out.push('[');
            for (at, element) in list.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                push_json(element, out)?;
            }
            out.push(']');
        }
        Value::Table(table) => {
            out.push('{');
            for (at, (key, value)) in table.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                push_string(out, key);
                out.push(':');
                push_json(value, out)?;
            }
            out.push('}');
        }
        Value::Float(_) | Value::Datetime(_) => {
            let complaint = Complaint::new(format!("{value} has no form in JSON"));
            return Err(complaint.allowed("texts, finite numbers, true, false, lists, tables"));
        }
    }
    Ok(())
}

fn http(members: &Members<'_>, bounds: &Bounds) -> Result<Http, Complaint> {
    let method = members.text_or("method", "POST")?.to_ascii_uppercase();
    if !["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method.as_str()) {
        let complaint = Complaint::new(format!("method: {method} is not known here"));
        return Err(complaint.allowed("GET, POST, PUT, PATCH, DELETE"));
    }
    let url = members.template("url")?;
    let prefix = url.prefix();
    let authority = prefix.strip_prefix("http://").or_else(|| prefix.strip_prefix("https://"));
    let host = authority.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let fixed = authority.zip(host).is_some_and(|(rest, host)| {
        !host.is_empty() && (rest.len() > host.len() || url.constant().is_some())
    });
    if !fixed {
        let complaint = Complaint::new("url: host and port are not known at start")
            .allowed("http://host:port/path or https://host:port/path; references after the host");
        return Err(complaint.advise("Write the host out, or clients could choose whom to call"));
    }
    // With something harmless for each reference.
    let constants = url.pieces.iter().map(|piece| match piece {
        Piece::Text(text) => &**text,
        Piece::Reference(_) => "x",
    });
    if has_dot_segment(&constants.collect::<String>()) {
        let complaint = Complaint::new("url: its path has a segment `.` or `..`");
        return Err(complaint.advise("Write the path that it stands for"));
    }
    let on_error = members.get("on_error").map(|value| actions("on_error", value, bounds));
    let on_error = on_error.transpose()?;
    let content_type = members.text_or("content_type", "application/json")?;
    if content_type.is_empty() || !content_type.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        return Err(Complaint::new("content_type: this is not a media type"));
    }
    Ok(Http {
        method: method.into(),
        url,
        body: match members.get("body") {
            Some(_) => members.template("body")?,
            None => Template::default(),
        },
        content_type: content_type.into(),
        timeout: members.duration(
            "timeout",
            HTTP_DEFAULT,
            ("http_timeout_max", bounds.http_timeout_max),
        )?,
        set: kept_of_answer(members)?,
        on_error: on_error.unwrap_or_default(),
        request_bytes_max: bounds.http_request_bytes_max,
        answer_bytes_max: bounds.http_answer_bytes_max,
    })
}

/// What of the answer goes into the context: key, and where in the answer it stands.
type Kept = Vec<(Box<str>, Vec<Step>)>;

fn kept_of_answer(members: &Members<'_>) -> Result<Kept, Complaint> {
    let mut set = Vec::new();
    if let Some(value) = members.get("set") {
        let table = value.as_table().ok_or_else(|| Complaint::new("set: a table belongs here"))?;
        for (key, pointer) in table {
            let place = pointer.as_str().and_then(json_pointer).ok_or_else(|| {
                Complaint::new(format!("set: {pointer} is not a JSON pointer"))
                    .allowed("\"/uid\" or \"/data/0/name\" (RFC 6901)")
            })?;
            set.push((context_key(key)?, place));
        }
    }
    Ok(set)
}

fn json_pointer(text: &str) -> Option<Vec<Step>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let parts = text.strip_prefix('/')?.split('/');
    Some(parts.map(|part| step(&part.replace("~1", "/").replace("~0", "~"))).collect())
}

fn goodbye(members: &Members<'_>) -> Result<Goodbye, Complaint> {
    let code = match members.get("code") {
        None => 1000,
        Some(value) => {
            let code = value.as_integer().and_then(|code| u16::try_from(code).ok());
            let sendable = |code: &u16| CloseCodes::Registered.accept(*code);
            code.filter(sendable).ok_or_else(|| {
                Complaint::new(format!("code: {value} is not a close code that can be sent"))
                    .allowed("1000 to 1003, 1007 to 1014, 3000 to 4999")
            })?
        }
    };
    let reason = members.text_or("reason", "")?;
    if reason.len() > CLOSE_REASON_BYTES_MAX {
        let complaint = Complaint::new(format!("reason: it has {} bytes", reason.len()));
        return Err(complaint.allowed(format!("at most {CLOSE_REASON_BYTES_MAX} bytes")));
    }
    // The configuration is read once and lives as long as the process.
    let reason = if reason.is_empty() { "" } else { Box::leak(Box::from(reason)) };
    Ok(Goodbye { code, reason })
}
