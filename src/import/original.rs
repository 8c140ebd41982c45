//! The TOML file of another gateway: every value with its line, taken once. Names of keys are
//! compared without regard to case, as the TOML library of Go does.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::ImportError;
use crate::config;

/// One value of the file.
#[derive(Debug)]
pub(super) struct Entry {
    /// As the file writes it, with its table.
    pub name: String,
    pub line: u32,
    pub value: toml::Value,
}

/// What nobody has taken yet, by name in lower case.
#[derive(Debug)]
pub(super) struct Original {
    file: String,
    entries: BTreeMap<String, Entry>,
}

impl Original {
    /// Takes a file apart. `file` is what errors call it.
    pub fn parse(text: &str, file: &str) -> Result<Original, ImportError> {
        let table = DeTable::parse(text).map_err(|error| ImportError {
            file: file.to_owned(),
            line: error.span().map(|span| config::line_at(text, span.start)),
            key: None,
            problem: format!("this is not TOML: {}", error.message().trim()),
        })?;
        let mut original = Original { file: file.to_owned(), entries: BTreeMap::new() };
        original.walk(table.get_ref(), "", text);
        Ok(original)
    }

    fn walk(&mut self, table: &DeTable<'_>, path: &str, text: &str) {
        for (key, element) in table {
            let name = match path {
                "" => key.get_ref().to_string(),
                _ => format!("{path}.{}", key.get_ref()),
            };
            match element.get_ref() {
                DeValue::Table(table) => self.walk(table, &name, text),
                value => {
                    let line = config::line_at(text, key.span().start);
                    let value = config::toml_value(value);
                    self.entries.insert(name.to_lowercase(), Entry { name, line, value });
                }
            }
        }
    }

    /// Whether there is anything in a table. `table` is in lower case.
    pub fn has_table(&self, table: &str) -> bool {
        self.entries
            .keys()
            .any(|name| name.strip_prefix(table).is_some_and(|rest| rest.starts_with('.')))
    }

    pub fn take(&mut self, key: &str) -> Option<Entry> {
        self.entries.remove(&key.to_lowercase())
    }

    /// Puts something in the place of what was taken.
    pub fn put(&mut self, key: &str, entry: Entry) {
        self.entries.insert(key.to_lowercase(), entry);
    }

    /// What nobody has taken.
    pub fn rest(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// An error about a key that is missing, or about the whole file.
    pub fn error(&self, key: Option<&str>, problem: impl Into<String>) -> ImportError {
        let key = key.map(str::to_owned);
        ImportError { file: self.file.clone(), line: None, key, problem: problem.into() }
    }

    /// An error about a value.
    pub fn wrong(&self, entry: &Entry, problem: impl Into<String>) -> ImportError {
        let line = Some(entry.line);
        ImportError { line, ..self.error(Some(&entry.name), problem) }
    }
}

/// A duration of Go (`time.ParseDuration`) in nanoseconds, e.g. `"1h15m30.5s"`. `None`: it is none,
/// or longer than Go's.
pub(super) fn nanoseconds(text: &str) -> Option<i128> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let factor: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let digits = |text: &str| match text {
            "" => Some(0),
            text => text.parse::<i128>().ok(),
        };
        total = total.checked_add(digits(whole)?.checked_mul(factor)?)?;
        // Nobody writes parts of a nanosecond.
        let fraction = &fraction[..fraction.len().min(15)];
        total += digits(fraction)? * factor / 10i128.pow(fraction.len() as u32);
        rest = tail;
    }
    let total = if negative { -total } else { total };
    i64::try_from(total).ok().map(i128::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        const MS: i128 = 1_000_000;
        for (text, ms) in [
            ("5s", Some(5000 * MS)),
            ("1h15m30.918s", Some(4_530_918 * MS)),
            ("1.5h", Some(5_400_000 * MS)),
            (".5s", Some(500 * MS)),
            ("5.s", Some(5000 * MS)),
            ("100us", Some(MS / 10)),
            ("1µs", Some(1000)),
            ("-3s", Some(-3000 * MS)),
            ("+3s", Some(3000 * MS)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("", None),
            ("-", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("5 s", None),
            ("3d", None),
            ("9999999999h", None),
            ("99999999999999999999999999999999999999999999s", None),
        ] {
            assert_eq!(nanoseconds(text), ms, "{text}");
        }
    }
}
