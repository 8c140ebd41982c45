//! Environment variables over the file: `RINGWAY_NETSVR__CUSTOMER__MAX_ONLINE=1` is the key
//! `netsvr.customer.max_online`, `RINGWAY_LISTENER__0__BIND` the key `bind` of the first listener.
//!
//! Only names with `__` in them and keys without a table are meant for the gateway. Kubernetes puts
//! the addresses of services into the environment of every container, so a service called
//! "ringway" or "ringway-admin" brings `RINGWAY_SERVICE_HOST`, `RINGWAY_ADMIN_PORT_9464_TCP` and
//! the like: these are left alone. Other names with the prefix are worth a warning.

use std::ffi::OsString;

use toml::de::DeValue;

use super::FILE_VARIABLE;
use super::error::{Complaint, ConfigError};
use super::file;
use super::keys::ValueType;
use super::settings::{Entry, Settings, Value};
use super::tables::Tables;

const PREFIX: &str = "RINGWAY_";

/// Puts the variables over what the settings say. Gives a warning if there are some with the prefix
/// that mean nothing.
pub(crate) fn overlay(
    settings: &mut Settings,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Option<String>, ConfigError> {
    let mut unknown = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        if name == FILE_VARIABLE || is_of_kubernetes(name) {
            continue;
        }
        if !is_key(settings.tables, &name[PREFIX.len()..]) {
            unknown.push(name.to_owned());
            continue;
        }
        let path = name[PREFIX.len()..].to_lowercase().replace("__", ".");
        if path.split('.').any(|part| part.is_empty() || part.starts_with('_')) {
            return Err(misspelled(settings, name));
        }
        let kind = settings.tables.key_of(&path).and_then(|key| settings.tables.kind(&key));
        let (value, is_text) = match value.into_string() {
            Ok(value) => (value, true),
            Err(value) => (value.to_string_lossy().into_owned(), false),
        };
        let value = match kind {
            Some(kind) if is_text => convert(kind, &value),
            _ => Value::Text(value),
        };
        let file = format!("environment variable {name}");
        settings.entries.insert(path.clone(), Entry { value, file, line: None });
        if !is_text {
            return Err(settings.error(&path, Complaint::new("this is not UTF-8")));
        }
    }
    unknown.sort();
    Ok((!unknown.is_empty()).then(|| ignored(settings.tables, &unknown)))
}

/// A value as it would be written in a file. What is not TOML is a text.
pub(crate) fn toml_value(text: &str) -> Value {
    match DeValue::parse(text) {
        Ok(value) => file::value(value.get_ref()),
        Err(_) => Value::Text(text.to_owned()),
    }
}

/// Whether the name, without prefix, has the form of a key.
fn is_key(tables: &Tables, name: &str) -> bool {
    name.contains("__") || tables.all().any(|key| key == name.to_lowercase())
}

/// Whether Kubernetes sets such a variable for a service.
fn is_of_kubernetes(name: &str) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter().any(|part| {
        // `__` is not its work: a service's name has no dash at its end.
        name.match_indices(part).any(|(at, _)| {
            let rest = &name[at + part.len()..];
            !name[..at].ends_with('_') && (rest.is_empty() || rest.starts_with('_'))
        })
    })
}

/// The warning about names that are no keys.
fn ignored(tables: &Tables, names: &[String]) -> String {
    let meant = |name: &String| {
        let plain = name[PREFIX.len()..].to_lowercase();
        let key = tables.all().find(|key| key.replace('.', "_") == plain);
        match key {
            Some(key) => format!("{name} (is {} meant?)", variable_of(key)),
            None => name.clone(),
        }
    };
    format!(
        "environment variables that are no keys of the configuration are ignored: {}. Between \
         tables and keys stands `__`, e.g. {}",
        names.iter().map(meant).collect::<Vec<_>>().join(", "),
        variable_of("admin.bind")
    )
}

/// A name with underscores that neither separate nor belong to a name.
fn misspelled(settings: &Settings, name: &str) -> ConfigError {
    let complaint = Complaint::new("this is not the name of a variable of the gateway")
        .allowed(format!(
            "{PREFIX}, then the tables and the key with `__` between them, e.g. {}",
            variable_of("admin.bind")
        ))
        .advise("Correct the name, or unset the variable");
    let file = format!("environment variable {name}").into();
    ConfigError { file, ..settings.error("", complaint) }
}

/// The variable of a key; keys of lists of tables lack their index.
fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// Environment variables are texts; what they mean depends on the key. What does not fit stays a
/// text, and the key complains of that.
fn convert(kind: ValueType, text: &str) -> Value {
    match kind {
        ValueType::Text | ValueType::Choice(_) | ValueType::Duration => {
            Value::Text(text.to_owned())
        }
        ValueType::Number | ValueType::Flag => toml_value(text),
        ValueType::Texts | ValueType::Numbers if text.trim_start().starts_with('[') => {
            toml_value(text)
        }
        ValueType::Texts => {
            Value::List(items(text).map(|item| Value::Text(item.to_owned())).collect())
        }
        ValueType::Free => match DeValue::parse(text) {
            Ok(value) => Value::Free(file::free(value.get_ref())),
            Err(_) => Value::Free(toml::Value::String(text.to_owned())),
        },
        ValueType::Numbers => Value::List(items(text).map(toml_value).collect()),
    }
}

/// The parts of a list with commas.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::all::TABLES;

    fn overlaid(variables: &[(&str, &str)]) -> Settings {
        let mut settings = file::parse("node = 1\n", "a.toml", &TABLES).expect("this is TOML");
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
    fn a_value_that_is_no_text_is_no_line_of_the_file() {
        use std::os::unix::ffi::OsStringExt;
        let mut settings = file::parse("node = 1\n", "a.toml", &TABLES).expect("this is TOML");
        let variables = [("RINGWAY_NODE".into(), OsString::from_vec(vec![0xff]))];
        let error = overlay(&mut settings, variables).expect_err("not UTF-8");
        let text = error.to_string();
        assert!(text.starts_with("environment variable RINGWAY_NODE: node = "), "{text}");
    }

    #[test]
    fn a_name_with_too_many_underscores_is_no_name() {
        for name in [
            "RINGWAY___",
            "RINGWAY____",
            "RINGWAY___NODE",
            "RINGWAY_ADMIN___BIND",
            "RINGWAY_ADMIN__",
        ] {
            let mut settings = file::parse("node = 1\n", "a.toml", &TABLES).expect("this is TOML");
            let error = overlay(&mut settings, [(name.into(), "x".into())]).expect_err(name);
            let text = error.to_string();
            let start = format!("environment variable {name}: this is not the name");
            assert!(text.starts_with(&start) && text.contains("RINGWAY_ADMIN__BIND"), "{text}");
        }
    }

    fn warning(names: &[&str]) -> (usize, Option<String>) {
        let mut settings = file::parse("node = 1\n", "a.toml", &TABLES).expect("this is TOML");
        let variables = names.iter().map(|name| (name.into(), "x".into()));
        let warning = overlay(&mut settings, variables).expect("the variables are UTF-8");
        (settings.entries.len(), warning)
    }

    #[test]
    fn variables_of_others_are_left_alone() {
        let names = [
            "RINGWAY_SERVICE_HOST",
            "RINGWAY_SERVICE_PORT",
            "RINGWAY_SERVICE_PORT_HTTP",
            "RINGWAY_PORT",
            "RINGWAY_PORT_6060_TCP",
            "RINGWAY_PORT_6060_TCP_ADDR",
            "RINGWAY_ADMIN_SERVICE_HOST",
            "RINGWAY_ADMIN_SERVICE_PORT",
            "RINGWAY_ADMIN_PORT",
            "RINGWAY_ADMIN_PORT_9464_TCP_PROTO",
            "RINGWAY_A__B_SERVICE_HOST",
            "RINGWAY_CONFIG",
            "RINGWAYS__NODE",
            "HOME",
        ];
        assert_eq!(warning(&names), (1, None));
    }

    #[test]
    fn names_that_mean_nothing_are_one_warning() {
        let (entries, warning) =
            warning(&["RINGWAY_VERSION", "RINGWAY_HOME", "RINGWAY_ADMIN_BIND", "RINGWAY_NODE"]);
        assert_eq!(entries, 1, "the node was there already");
        let warning = warning.expect("three mean nothing");
        let names = "RINGWAY_ADMIN_BIND (is RINGWAY_ADMIN__BIND meant?), RINGWAY_HOME, \
                     RINGWAY_VERSION";
        assert!(warning.contains(names), "{warning}");
    }

    #[test]
    fn no_key_is_taken_for_a_variable_of_kubernetes() {
        for key in TABLES.all() {
            let name = variable_of(key);
            assert!(!is_of_kubernetes(&name), "{name}");
            assert!(is_key(&TABLES, &name[PREFIX.len()..]), "{name}");
        }
        // Nor are slips of the pen, which are errors.
        assert!(!is_of_kubernetes("RINGWAY_ADMIN__PORT"));
        assert!(!is_of_kubernetes("RINGWAY_ADMIN__PORTAL"));
    }
}
