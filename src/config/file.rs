//! A TOML document as settings: every value under its path, with the line it stands on.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Complaint, ConfigError};
use super::keys::ValueType;
use super::settings::{Entry, Settings, Value};
use super::tables::Tables;

/// Takes a document apart. `file` is what errors call it.
pub(crate) fn parse(
    text: &str,
    file: &str,
    tables: &'static Tables,
) -> Result<Settings, ConfigError> {
    let mut settings = Settings::new(file, tables);
    let table = DeTable::parse(text).map_err(|error| {
        let complaint = Complaint::new(format!("not TOML: {}", error.message().trim()))
            .advise("See https://toml.io for what a configuration file looks like");
        let line = error.span().map(|span| line_at(text, span.start));
        ConfigError { line, ..settings.error("", complaint) }
    })?;
    walk(table.get_ref(), "", text, &mut settings);
    Ok(settings)
}

/// A value without its place.
pub(crate) fn value(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Number(number),
            Err(_) => Value::Other(number.to_string(), "a number with more than 64 bits"),
        },
        DeValue::Float(number) => Value::Other(number.to_string(), "a number with a fraction"),
        DeValue::Datetime(time) => Value::Other(time.to_string(), "a date or time"),
        DeValue::Array(list) => {
            Value::List(list.iter().map(|element| self::value(element.get_ref())).collect())
        }
        DeValue::Table(table) if table.is_empty() => Value::Table,
        DeValue::Table(_) => Value::Other("{...}".to_owned(), "a table"),
    }
}

/// A value with everything in it, for a key that takes what TOML can say.
pub fn free(value: &DeValue<'_>) -> toml::Value {
    match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Boolean(flag) => toml::Value::Boolean(*flag),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => toml::Value::Integer(number),
            Err(_) => toml::Value::Float(number.as_str().parse().unwrap_or(f64::INFINITY)),
        },
        DeValue::Float(number) => toml::Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Datetime(time) => toml::Value::Datetime(*time),
        DeValue::Array(list) => {
            toml::Value::Array(list.iter().map(|element| free(element.get_ref())).collect())
        }
        DeValue::Table(table) => {
            let mut owned = toml::Table::new();
            for (key, value) in table {
                owned.insert(key.get_ref().to_string(), free(value.get_ref()));
            }
            toml::Value::Table(owned)
        }
    }
}

fn walk(table: &DeTable<'_>, path: &str, text: &str, settings: &mut Settings) {
    for (key, element) in table {
        let path = match path {
            "" => key.get_ref().to_string(),
            _ => format!("{path}.{}", key.get_ref()),
        };
        enter(element, path, line_at(text, key.span().start), text, settings);
    }
}

fn enter(
    element: &Spanned<DeValue<'_>>,
    path: String,
    line: u32,
    text: &str,
    settings: &mut Settings,
) {
    let is_free = settings.tables.key_of(&path).and_then(|key| settings.tables.kind(&key))
        == Some(ValueType::Free);
    match element.get_ref() {
        whole if is_free => {
            let value = Value::Free(free(whole));
            let entry = Entry { value, file: settings.file.clone(), line: Some(line) };
            settings.entries.insert(path, entry);
        }
        DeValue::Table(table) if !table.is_empty() => walk(table, &path, text, settings),
        DeValue::Array(list) if list.iter().any(|element| element.get_ref().is_table()) => {
            for (index, element) in list.iter().enumerate() {
                let line = line_at(text, element.span().start);
                enter(element, format!("{path}.{index}"), line, text, settings);
            }
        }
        plain => {
            let entry =
                Entry { value: value(plain), file: settings.file.clone(), line: Some(line) };
            settings.entries.insert(path, entry);
        }
    }
}

/// The line, counted from 1, of a place in the text.
pub fn line_at(text: &str, offset: usize) -> u32 {
    let before = text.as_bytes().iter().take(offset);
    let lines = before.filter(|byte| **byte == b'\n').count();
    u32::try_from(lines).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::all::TABLES;

    #[test]
    fn every_value_has_its_path_and_its_line() {
        let text = "node = 0x7\n\n[[listener]]\n\
                    routes = [\n  { path = \"/a\" },\n  { path = \"/b\" },\n]\n\
                    [netsvr.customer]\nallow_origin = [\"x\", \"y\"]\nmax_online = 1_000\n";
        let settings = parse(text, "a.toml", &TABLES).expect("this is TOML");
        let seen: Vec<_> = settings
            .entries
            .iter()
            .map(|(path, entry)| (path.as_str(), entry.value.show(), entry.line))
            .collect();
        let expected = [
            ("listener.0.routes.0.path", "\"/a\"", 5),
            ("listener.0.routes.1.path", "\"/b\"", 6),
            ("netsvr.customer.allow_origin", "[\"x\", \"y\"]", 9),
            ("netsvr.customer.max_online", "1000", 10),
            ("node", "7", 1),
        ];
        let expected = expected.map(|(path, value, line)| (path, value.to_owned(), Some(line)));
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_is_not_toml_is_refused_with_its_line() {
        let error =
            parse("node = 1\n[runtime\n", "a.toml", &TABLES).expect_err("a bracket is missing");
        assert_eq!((&*error.file, error.line), ("a.toml", Some(2)));
        let error =
            parse("node = 1\nnode = 2\n", "a.toml", &TABLES).expect_err("the key stands twice");
        assert_eq!(error.line, Some(2));
        assert!(error.to_string().starts_with("a.toml:2: not TOML: "), "{error}");
    }
}
