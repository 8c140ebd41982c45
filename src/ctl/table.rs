//! Answers as text for a terminal.

use std::fmt::Write;

use serde_json::Value;

use super::{CtlError, out};

/// Fields and the titles of their columns.
pub(super) type Columns = &'static [(&'static str, &'static str)];

pub(super) const CONNECTIONS: Columns = &[
    ("id", "ID"),
    ("protocol", "PROTOCOL"),
    ("state", "STATE"),
    ("address", "ADDRESS"),
    ("user", "USER"),
    ("topics", "TOPICS"),
    ("age_seconds", "AGE_S"),
    ("idle_ms", "IDLE_MS"),
    ("outbox_bytes", "OUTBOX"),
    ("received_messages", "IN"),
    ("sent_messages", "OUT"),
];
pub(super) const NAMES: Columns = &[("name", "NAME"), ("connections", "CONNECTIONS")];
pub(super) const WORKERS: Columns = &[
    ("id", "ID"),
    ("name", "REGISTRATION"),
    ("events", "EVENTS"),
    ("queued_frames", "QUEUED"),
    ("queued_bytes", "QUEUED_BYTES"),
];
pub(super) const NODES: Columns = &[
    ("node", "NODE"),
    ("own", "OWN"),
    ("version", "VERSION"),
    ("shards", "SHARDS"),
    ("connections", "CONNECTIONS"),
    ("clients", "CLIENTS"),
];
pub(super) const SHARDS: Columns = &[
    ("node", "NODE"),
    ("shard", "SHARD"),
    ("clients", "CLIENTS"),
    ("users", "USERS"),
    ("topics", "TOPICS"),
    ("subscriptions", "SUBSCRIPTIONS"),
    ("clients_waiting_for_workers", "WAITING"),
    ("stalled_sends", "STALLED"),
    ("mail_waiting", "MAIL"),
];

/// Rows under their titles.
pub(super) struct Table {
    pub columns: Columns,
    /// Whether the titles are printed.
    pub title: bool,
}

impl Table {
    /// Prints the rows of an answer, or of the answers of several nodes.
    pub fn print(&self, answer: &Value) -> Result<(), CtlError> {
        let parts: Vec<&Value> = match answer["nodes"].as_array() {
            Some(nodes) => nodes.iter().map(|node| &node["answer"]).collect(),
            None => vec![answer],
        };
        let rows = parts.iter().filter_map(|part| part["rows"].as_array()).flatten();
        let titles = self.title.then(|| self.columns.iter().map(|c| c.1.to_owned()).collect());
        let cells = |row: &Value| self.columns.iter().map(|(name, _)| text(&row[*name])).collect();
        let lines: Vec<Vec<String>> = titles.into_iter().chain(rows.map(cells)).collect();
        out(align(&lines).trim_end_matches('\n'))
    }
}

/// Prints the fields of an answer, one in a line.
pub(super) fn fields(answer: &Value) -> Result<(), CtlError> {
    let mut lines = Vec::new();
    collect("", answer, &mut lines);
    out(align(&lines).trim_end_matches('\n'))
}

fn collect(path: &str, value: &Value, lines: &mut Vec<Vec<String>>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(&path, value, lines);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                collect(&format!("{path}.{index}"), item, lines);
            }
        }
        _ => lines.push(vec![path.to_owned(), text(value)]),
    }
}

/// A value in a cell. Control characters would move the cursor.
fn text(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    };
    plain(&text)
}

/// A text without what moves the cursor, or turns the direction of writing.
pub(super) fn plain(text: &str) -> String {
    let turns =
        |c: char| matches!(u32::from(c), 0x200e | 0x200f | 0x202a..=0x202e | 0x2066..=0x2069);
    text.chars().map(|c| if c.is_control() || turns(c) { '\u{fffd}' } else { c }).collect()
}

fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut aligned = String::new();
    for line in lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let _ = write!(text, "{cell:width$}  ");
        }
        aligned.push_str(text.trim_end());
        aligned.push('\n');
    }
    aligned
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_stand_under_their_titles_and_keep_the_cursor_where_it_is() {
        assert_eq!(text(&json!("a\u{1b}[2Jb")), "a\u{fffd}[2Jb");
        assert_eq!(
            (text(&json!(null)), text(&json!("")), text(&json!(7))),
            ("-".into(), "-".into(), "7".into())
        );
        let lines =
            vec![vec!["ID".to_owned(), "USER".to_owned()], vec!["12345".into(), "ü".into()]];
        assert_eq!(align(&lines), "ID     USER\n12345  ü\n");
    }

    #[test]
    fn fields_have_their_paths() {
        let mut lines = Vec::new();
        collect("", &json!({ "a": { "b": 1 }, "c": ["x", "y"], "d": [{ "e": true }] }), &mut lines);
        let lines: Vec<String> = lines.iter().map(|line| line.join("=")).collect();
        assert_eq!(lines, ["a.b=1", "c=x, y", "d.0.e=true"]);
    }
}
