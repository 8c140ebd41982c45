//! Environment variables over the file: `RINGWAY_NETSVR__CUSTOMER__MAX_ONLINE=1` is the key
//! `netsvr.customer.max_online`, `RINGWAY_LISTENER__0__BIND` the key `bind` of the first listener.
//!
//! Variables that Kubernetes sets for a service called "ringway" (`RINGWAY_SERVICE_*`,
//! `RINGWAY_PORT*`) are not meant for the gateway and are left alone.

use std::ffi::OsString;

use toml::de::DeValue;

use super::error::{Complaint, ConfigError};
use super::file;
use super::keys::{self, Kind};
use super::settings::{Entry, Settings, Value, key_of};

const PREFIX: &str = "RINGWAY_";
const FOREIGN: [&str; 2] = ["RINGWAY_SERVICE_", "RINGWAY_PORT"];

/// Puts the variables over what the settings say.
pub(super) fn overlay(
    settings: &mut Settings,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(), ConfigError> {
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| is_ours(name)) else {
            continue;
        };
        let path = name[PREFIX.len()..].to_lowercase().replace("__", ".");
        let value = value.into_string().map_err(|value| {
            let mut error = settings.error(&path, Complaint::new("this is not UTF-8"));
            error.file = format!("environment variable {name}").into();
            error.value = value.to_string_lossy().into();
            error
        })?;
        let kind = key_of(&path).and_then(|key| keys::kind(&key));
        let entry = Entry {
            value: kind.map_or(Value::Text(value.clone()), |kind| convert(kind, &value)),
            file: format!("environment variable {name}"),
            line: None,
        };
        settings.entries.insert(path, entry);
    }
    Ok(())
}

/// A value as it would be written in a file. What is not TOML is a text.
pub(super) fn toml_value(text: &str) -> Value {
    match DeValue::parse(text) {
        Ok(value) => file::value(value.get_ref()),
        Err(_) => Value::Text(text.to_owned()),
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX) && !FOREIGN.iter().any(|foreign| name.starts_with(foreign))
}

/// Environment variables are texts; what they mean depends on the key. What does not fit stays a
/// text, and the key complains of that.
fn convert(kind: Kind, text: &str) -> Value {
    match kind {
        Kind::Text | Kind::Choice(_) | Kind::Duration => Value::Text(text.to_owned()),
        Kind::Number | Kind::Flag => toml_value(text),
        Kind::Texts | Kind::Numbers if text.trim_start().starts_with('[') => toml_value(text),
        Kind::Texts => Value::List(items(text).map(|item| Value::Text(item.to_owned())).collect()),
        Kind::Free => match DeValue::parse(text) {
            Ok(value) => Value::Free(file::free(value.get_ref())),
            Err(_) => Value::Free(toml::Value::String(text.to_owned())),
        },
        Kind::Numbers => Value::List(items(text).map(toml_value).collect()),
    }
}

/// The parts of a list with commas.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlaid(variables: &[(&str, &str)]) -> Settings {
        let mut settings = file::parse("node = 1\n", "a.toml").expect("this is TOML");
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        overlay(&mut settings, variables).expect("the variables are UTF-8");
        settings
    }

    #[test]
    fn a_variable_takes_the_place_of_the_key() {
        let settings = overlaid(&[
            ("RINGWAY_NODE", "7"),
            ("RINGWAY_NETSVR__CUSTOMER__HEARTBEAT_MESSAGE", "42"),
            ("RINGWAY_NETSVR__CUSTOMER__ALLOW_ORIGIN", "a.example, b.example"),
            ("RINGWAY_NETSVR__METRICS_ITEMS", "[1, 2]"),
            ("RINGWAY_LISTENER__0__TLS__CERT", "a.pem"),
        ]);
        let seen: Vec<_> =
            settings.entries.iter().map(|(path, entry)| (&**path, entry.value.show())).collect();
        let expected = [
            ("listener.0.tls.cert", "\"a.pem\""),
            ("netsvr.customer.allow_origin", "[\"a.example\", \"b.example\"]"),
            ("netsvr.customer.heartbeat_message", "\"42\""),
            ("netsvr.metrics_items", "[1, 2]"),
            ("node", "7"),
        ];
        assert_eq!(seen, expected.map(|(path, value)| (path, value.to_owned())));
        assert_eq!(settings.entries["node"].file, "environment variable RINGWAY_NODE");
    }

    #[test]
    fn variables_of_others_are_left_alone() {
        let settings = overlaid(&[
            ("RINGWAY_SERVICE_HOST", "10.0.0.1"),
            ("RINGWAY_PORT_6060_TCP", "tcp://10.0.0.1:6060"),
            ("HOME", "/"),
        ]);
        assert_eq!(settings.entries.len(), 1);
    }
}
