//! What file and environment say, by key, and typed access to it with defaults and bounds.
//!
//! A path is a key with its tables, joined by dots; the elements of lists of tables
//! (`Section::lists`) have their index in it: `listener.0.routes.1.path`. Invariant: after
//! [`Settings::check_keys`] every path has a key that is known.

use std::collections::BTreeMap;
use std::time::Duration;

use super::choice::Choice;
use super::env;
use super::error::{Complaint, ConfigError};
use super::keys::{Shown, ValueType};
use super::tables::Tables;
use crate::limits::Limit;

/// A value, whatever its type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Number(i64),
    Flag(bool),
    Text(String),
    List(Vec<Value>),
    /// A table without keys; others are not values.
    Table,
    /// The value of a key that takes whatever TOML can say ([`ValueType::Free`]).
    Free(toml::Value),
    /// Anything that no key takes, as it was written, and what it is.
    Other(String, &'static str),
}

impl Value {
    /// As it would be written in a file.
    pub fn show(&self) -> String {
        match self {
            Value::Number(number) => number.to_string(),
            Value::Flag(flag) => flag.to_string(),
            Value::Text(text) => format!("{text:?}"),
            Value::List(list) => {
                format!("[{}]", list.iter().map(Value::show).collect::<Vec<_>>().join(", "))
            }
            Value::Table => "{}".to_owned(),
            Value::Free(value) => value.to_string(),
            Value::Other(text, _) => text.clone(),
        }
    }

    /// What an error may repeat of it.
    fn repeat(&self, shown: Shown) -> Option<String> {
        let mut text = match (shown, self) {
            (Shown::Nothing, _) => return None,
            // Who writes a key in the place of its path does not want to read it in a log.
            (_, Value::Text(text)) if text.contains("-----BEGIN") => return None,
            (Shown::All, value) => value.show(),
            (Shown::Url, Value::Text(text)) => format!("{:?}", without_secrets(text)),
            (Shown::Url, Value::List(list)) => {
                let urls = list.iter().filter_map(|url| url.repeat(shown));
                format!("[{}]", urls.collect::<Vec<_>>().join(", "))
            }
            (Shown::Url, _) => return None,
        };
        if let Some((cut, _)) = text.char_indices().nth(SHOWN_MAX) {
            text.truncate(cut);
            text.push_str("...");
        }
        Some(text)
    }

    fn type_name(&self) -> &'static str {
        match self {
            Value::Number(_) => "a number",
            Value::Flag(_) => "true or false",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Table | Value::Free(_) => "a table",
            Value::Other(_, name) => name,
        }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub value: Value,
    /// Path of the file, or name of the environment variable.
    pub file: String,
    pub line: Option<u32>,
}

/// Everything that was said, by path.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub entries: BTreeMap<String, Entry>,
    /// What to name where a key is missing.
    pub file: String,
    pub tables: &'static Tables,
}

/// Characters of a value that an error shows.
const SHOWN_MAX: usize = 120;

impl Settings {
    /// Nothing is said yet.
    pub fn new(file: &str, tables: &'static Tables) -> Settings {
        Settings { entries: BTreeMap::new(), file: file.to_owned(), tables }
    }

    /// What may be written for a key; the words that errors and reference use.
    pub fn allowed(&self, key: &str) -> String {
        self.tables.allowed(key)
    }

    fn allowed_at(&self, path: &str) -> String {
        self.allowed(&self.tables.key_of(path).unwrap_or_default())
    }

    fn limit_of(&self, path: &str) -> Option<&'static Limit> {
        self.tables.key_of(path).and_then(|key| self.tables.limit(&key))
    }

    /// Whether the key was given, rather than left to its default.
    pub fn is_set(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    /// Whether anything at or below the path was given.
    pub fn has(&self, path: &str) -> bool {
        let inside =
            |key: &String| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        self.is_set(path) || self.entries.keys().any(inside)
    }

    /// Number of elements of an array of tables: one more than the highest index.
    pub fn count(&self, path: &str) -> usize {
        let index = |key: &String| {
            let rest = key.strip_prefix(path)?.strip_prefix('.')?;
            rest.split('.').next()?.parse::<usize>().ok()
        };
        self.entries.keys().filter_map(index).max().map_or(0, |highest| highest.saturating_add(1))
    }

    /// A key as a warning names it: with the environment variable, if its value comes from one.
    pub fn show(&self, path: &str) -> String {
        match self.entries.get(path).filter(|entry| entry.line.is_none()) {
            Some(entry) => format!("{path} ({})", entry.file),
            None => path.to_owned(),
        }
    }

    /// Where the value of a path is from: the file, or an environment variable. For what is missing
    /// that is the variable if all of its table comes from such.
    fn origin(&self, path: &str) -> &str {
        if let Some(entry) = self.entries.get(path) {
            return &entry.file;
        }
        let below = |path: &str| {
            let prefix = format!("{path}.");
            let found = self.entries.range(prefix.clone()..);
            let mut found = found.take_while(move |(key, _)| key.starts_with(&prefix));
            let first = found.next()?.1;
            // What stands in a file has a line.
            (first.line.is_none() && found.all(|(_, entry)| entry.line.is_none())).then_some(first)
        };
        let table = path.rsplit_once('.').map_or("", |(table, _)| table);
        below(path).or_else(|| below(table)).map_or(&self.file, |entry| &entry.file)
    }

    /// An error about the value of a path. It repeats of the value what the key permits, and
    /// nothing of one whose key nobody knows: it may be a secret behind a slip of the pen.
    pub fn error(&self, path: &str, complaint: Complaint) -> ConfigError {
        let entry = self.entries.get(path);
        let shown = self.tables.key_of(path).and_then(|key| self.tables.shown(&key));
        let value = entry.and_then(|entry| entry.value.repeat(shown?)).unwrap_or_default();
        ConfigError {
            file: self.origin(path).into(),
            line: entry.and_then(|entry| entry.line),
            key: path.into(),
            value: value.into(),
            problem: complaint.problem.into(),
            allowed: complaint.allowed.into(),
            to_do: complaint.to_do.into(),
        }
    }

    /// Refuses what no key knows.
    pub fn check_keys(&self) -> Result<(), ConfigError> {
        for (path, entry) in &self.entries {
            let Some(key) = self.tables.key_of(path) else {
                let complaint = Complaint::new("this is a list of tables")
                    .allowed(format!(
                        "one element of it each time, e.g. [[{}]]",
                        self.tables.list_of(path)
                    ))
                    .advise("In the environment the index is part of the name: LISTENER__0__BIND");
                return Err(self.error(path, complaint));
            };
            let is_empty = entry.value == Value::Table || entry.value == Value::List(Vec::new());
            let complaint = match self.tables.kind(&key) {
                Some(_) if entry.value != Value::Table => continue,
                None if self.tables.is_table(&key) && is_empty => continue,
                None if !self.tables.is_table(&key) => {
                    Complaint::new("there is no such key").advise(self.tables.advice(&key))
                }
                None => {
                    Complaint::new(format!("{} where a table belongs", entry.value.type_name()))
                        .allowed(self.tables.members(&key))
                }
                Some(_) => {
                    Complaint::new("a table where a value belongs").allowed(self.allowed(&key))
                }
            };
            return Err(self.error(path, complaint));
        }
        Ok(())
    }

    /// A number of a type that holds the bounds of its limit.
    pub fn number<T: TryFrom<i64>>(&self, path: &str) -> Result<T, ConfigError> {
        match self.value(path) {
            Value::Number(number) => self.bounded(path, number, |number| T::try_from(number).ok()),
            value => Err(self.wrong_type(path, &value, "a whole number")),
        }
    }

    /// A duration, e.g. `"1m30s"`.
    pub fn duration(&self, path: &str) -> Result<Duration, ConfigError> {
        let Value::Text(text) = self.value(path) else {
            let value = self.value(path);
            return Err(self.wrong_type(path, &value, "a duration, a text like \"5s\""));
        };
        let Some(milliseconds) = milliseconds(&text) else {
            let complaint = Complaint::new("this is not a duration")
                .allowed(format!("{}; units are ms, s, m and h", self.allowed_at(path)))
                .advise("Write a whole number and its unit, e.g. \"100ms\", \"5s\" or \"1m30s\"");
            return Err(self.error(path, complaint));
        };
        let duration = |ms| u64::try_from(ms).ok().map(Duration::from_millis);
        self.bounded(path, milliseconds, duration)
    }

    /// A text; the empty one where nothing was given and there is no default.
    pub fn text(&self, path: &str) -> Result<String, ConfigError> {
        let text = match self.value(path) {
            Value::Text(text) => text,
            value => return Err(self.wrong_type(path, &value, "a text")),
        };
        match self.limit_of(path) {
            Some(limit) => self.bounded(path, text.len() as i64, |_| Some(text)).map_err(|error| {
                let limit = format!("{} to {} bytes", limit.min, limit.max);
                ConfigError { allowed: limit.into(), ..error }
            }),
            None => Ok(text),
        }
    }

    /// A text that is one of the choices of its key.
    pub fn choice<C: Choice>(&self, path: &str) -> Result<C, ConfigError> {
        let text = match self.value(path) {
            Value::Text(text) => text,
            value => return Err(self.wrong_type(path, &value, "a text")),
        };
        debug_assert_eq!(
            self.tables.key_of(path).and_then(|key| self.tables.kind(&key)),
            Some(ValueType::Choice(C::WORDS))
        );
        let found = C::WORDS.iter().position(|word| *word == text).map(|at| C::VALUES[at]);
        found.ok_or_else(|| {
            let problem =
                if self.is_set(path) { "there is no such choice" } else { "it is missing" };
            self.error(path, Complaint::new(problem).allowed(self.allowed_at(path)))
        })
    }

    /// `true` or `false`.
    pub fn flag(&self, path: &str) -> Result<bool, ConfigError> {
        match self.value(path) {
            Value::Flag(flag) => Ok(flag),
            value => Err(self.wrong_type(path, &value, "true or false")),
        }
    }

    /// A list of texts.
    pub fn texts(&self, path: &str) -> Result<Vec<String>, ConfigError> {
        self.list(path, "a list of texts", |value| match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// A list of numbers, each within the bounds of the limit.
    pub fn numbers<T: TryFrom<i64>>(&self, path: &str) -> Result<Vec<T>, ConfigError> {
        let numbers = self.list(path, "a list of whole numbers", |value| match value {
            Value::Number(number) => Some(*number),
            _ => None,
        })?;
        let fit = |number| self.bounded(path, number, |number| T::try_from(number).ok());
        numbers.into_iter().map(fit).collect()
    }

    /// Whatever TOML can say; `None` if nothing was.
    pub fn free(&self, path: &str) -> Option<&toml::Value> {
        match &self.entries.get(path)?.value {
            Value::Free(value) => Some(value),
            _ => None,
        }
    }

    fn list<T>(
        &self,
        path: &str,
        expected: &'static str,
        convert: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<T>, ConfigError> {
        let value = self.value(path);
        let list = match &value {
            Value::List(list) => list.iter().map(convert).collect(),
            _ => None,
        };
        list.ok_or_else(|| self.wrong_type(path, &value, expected))
    }

    /// What was given, or the default.
    fn value(&self, path: &str) -> Value {
        if let Some(entry) = self.entries.get(path) {
            return entry.value.clone();
        }
        let key = self.tables.key_of(path).unwrap_or_default();
        match self.tables.find(&key) {
            Some(row) if row.default.is_empty() => Value::Text(String::new()),
            Some(row) => env::toml_value(row.default),
            None => match self.tables.limit(&key) {
                Some(limit) => env::toml_value(&limit.unit.show(limit.default)),
                None => Value::Text(String::new()),
            },
        }
    }

    fn bounded<T>(
        &self,
        path: &str,
        number: i64,
        convert: impl FnOnce(i64) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let limit = self.limit_of(path);
        let (min, max) = limit.map_or((i64::MIN, i64::MAX), |limit| (limit.min, limit.max));
        if (min..=max).contains(&number)
            && let Some(value) = convert(number)
        {
            return Ok(value);
        }
        let problem = if number < min { "this is too small" } else { "this is too large" };
        let complaint = Complaint::new(problem).allowed(self.allowed_at(path));
        Err(self.error(path, complaint.advise("Choose a value within these bounds")))
    }

    fn wrong_type(&self, path: &str, value: &Value, expected: &str) -> ConfigError {
        let problem = format!("{} where {expected} belongs", value.type_name());
        self.error(path, Complaint::new(problem).allowed(self.allowed_at(path)))
    }
}

/// A URL without user, password and query, also if it is malformed: what is not surely scheme,
/// host, port or path is left out.
fn without_secrets(url: &str) -> String {
    const LEFT_OUT: &str = "...";
    let is_scheme =
        |scheme: &str| scheme.len() <= 8 && scheme.bytes().all(|byte| byte.is_ascii_lowercase());
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
        return LEFT_OUT.to_owned();
    };
    let (user, rest) = match rest.rsplit_once('@') {
        // What looks like a user can be a part of the query, and a host its end.
        Some((before, _)) if before.contains(['?', '#']) => {
            return format!("{scheme}://{LEFT_OUT}");
        }
        Some((_, rest)) => ("...@", rest),
        None => ("", rest),
    };
    let (place, query) = match rest.find(['?', '#']) {
        Some(at) => (&rest[..at], LEFT_OUT),
        None => (rest, ""),
    };
    let host = place.split('/').next().unwrap_or_default();
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, "0"),
    };
    // Behind the name of a user there can be a password, but no port.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
    match name.bytes().all(plain) && port.parse::<u16>().is_ok() {
        true => format!("{scheme}://{user}{place}{query}"),
        false => format!("{scheme}://{LEFT_OUT}"),
    }
}

/// `"1m30s"` as milliseconds. `None` if it is not a duration or too long for the type.
pub(crate) fn milliseconds(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let factor = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(factor)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_whole_numbers_and_units() {
        for (text, expected) in [
            ("5s", Some(5000)),
            ("100ms", Some(100)),
            ("2m", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("1m30s", Some(90_000)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("s", None),
            ("1.5s", None),
            ("-1s", None),
            ("5 s", None),
            ("5d", None),
            ("99999999999999999h", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(milliseconds(text), expected, "{text}");
        }
    }

    #[test]
    fn of_a_url_only_what_is_no_secret_is_repeated() {
        for (url, shown) in [
            ("http://host", "http://host"),
            ("https://host:8080/path", "https://host:8080/path"),
            ("nats://[::1]:4222", "nats://[::1]:4222"),
            ("nats://user:secret@host:4222", "nats://...@host:4222"),
            ("nats://user:sec@ret@host", "nats://...@host"),
            ("http://user:se/cret@host/path", "http://...@host/path"),
            ("http://user:12/cret@host/path", "http://...@host/path"),
            ("http://user:secret@ho st:1", "http://..."),
            ("http://user:secret", "http://..."),
            ("http://user:123456", "http://..."),
            ("http://host/path?token=secret", "http://host/path..."),
            ("http://host#secret", "http://host..."),
            ("http://host/path?token=sec@ret", "http://..."),
            ("http://host/path#sec@ret", "http://..."),
            ("user:secret@host", "..."),
            ("SECRET://host", "..."),
            ("[\"nats://user:secret@host\"", "..."),
            ("secret", "..."),
            ("", "..."),
        ] {
            assert_eq!(without_secrets(url), shown, "{url}");
        }
    }
}
