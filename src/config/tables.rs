//! The tables of a configuration, and what is said about a key that nobody knows.
//!
//! Parser, error messages and reference are made from them. The list of all tables is given to
//! whoever needs it (`all`); nothing here knows what the keys are about.

use super::keys::{Key, Section, Shown, ValueType};
use crate::limits::{self, Limit, Unit};

/// Which keys there are, and what they may be.
#[derive(Debug)]
pub(crate) struct Tables {
    /// In the order of the reference.
    pub sections: &'static [Section],
    pub limits: &'static [&'static [Limit]],
    /// What to do about a key of another program that this one takes the place of; `None` if it is
    /// not one of its keys.
    pub former: fn(&Tables, &str) -> Option<String>,
}

impl Tables {
    /// The rows of every area, in the order of the reference.
    fn rows(&self) -> impl Iterator<Item = &'static Key> {
        self.sections.iter().flat_map(|section| section.keys)
    }

    fn lists(&self) -> impl Iterator<Item = &'static str> {
        self.sections.iter().flat_map(|section| section.lists).copied()
    }

    /// The row of a key that is a limit.
    pub fn limit(&self, key: &str) -> Option<&'static Limit> {
        limits::find(self.limits, key)
    }

    /// The kind of a key; `None` if there is no such key.
    pub fn kind(&self, key: &str) -> Option<ValueType> {
        match self.find(key) {
            Some(row) => Some(row.kind),
            None => self.limit(key).map(|limit| match limit.unit {
                Unit::Milliseconds => ValueType::Duration,
                _ => ValueType::Number,
            }),
        }
    }

    /// How much of the value of a key may be repeated; `None` if there is no such key.
    pub fn shown(&self, key: &str) -> Option<Shown> {
        self.find(key).map(|row| row.shown).or(self.limit(key).map(|_| Shown::All))
    }

    /// The row of a key that is no plain limit.
    pub fn find(&self, key: &str) -> Option<&'static Key> {
        self.rows().find(|row| row.key == key)
    }

    /// Every configuration key, those that are limits included, each once.
    pub fn all(&self) -> impl Iterator<Item = &'static str> {
        let known = |key: &str| self.find(key).is_some();
        let limits = self.limits.iter().copied().flatten().map(|limit| limit.key);
        let rest = limits.filter(move |key| *key != limits::FIXED && !known(key));
        self.rows().map(|row| row.key).chain(rest)
    }

    /// Every key of whose value errors repeat nothing, or only a part.
    pub fn secret_keys(&self) -> impl Iterator<Item = &'static str> {
        self.rows().filter(|row| row.shown != Shown::All).map(|row| row.key)
    }

    /// Whether the path is that of a table.
    pub fn is_table(&self, path: &str) -> bool {
        self.all().any(|key| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
    }

    /// What to do about a key that does not exist: its successor if it is a former one, otherwise
    /// the nearest key there is.
    pub fn advice(&self, unknown: &str) -> String {
        if let Some(advice) = (self.former)(self, unknown) {
            return advice;
        }
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        // A key in the wrong table is nearer than another key of the same table.
        let nearest = self.all().min_by_key(|key| {
            let whole = distance(unknown, key);
            (whole.min(distance(&last(unknown), &last(key)) + 2), whole)
        });
        let nearest = nearest.unwrap_or_default();
        let shown = "`ringway check --print-reference` shows all keys";
        format!("The nearest known key is `{nearest}`; {shown}")
    }

    /// What may be written for a key; the words that errors and reference use.
    pub fn allowed(&self, key: &str) -> String {
        let row = self.find(key);
        match (row.map(|row| row.kind), self.limit(key)) {
            (Some(ValueType::Choice(names)), _) => {
                names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" or ")
            }
            (Some(ValueType::Flag), _) => "true or false".to_owned(),
            (Some(ValueType::Numbers), Some(limit)) => {
                format!("list of numbers, {}", bounds(limit))
            }
            (Some(_), Some(limit)) => format!("text of {}", bounds(limit)),
            (None, Some(limit)) => bounds(limit),
            (Some(_), None) => row.map_or("", |row| row.allowed).to_owned(),
            (None, None) => String::new(),
        }
    }

    /// The keys of a table, in words.
    pub fn members(&self, table: &str) -> String {
        let mut members: Vec<&str> = Vec::new();
        for key in self.all() {
            let rest = key.strip_prefix(table).and_then(|rest| rest.strip_prefix('.'));
            if let Some(member) = rest.and_then(|rest| rest.split('.').next())
                && !members.contains(&member)
            {
                members.push(member);
            }
        }
        format!("a table with {}", members.join(", "))
    }

    /// The key of a path: without the indices of lists of tables. `None` where one is missing.
    pub fn key_of(&self, path: &str) -> Option<String> {
        let mut key = String::new();
        let mut index_next = false;
        for part in path.split('.') {
            if index_next {
                // Only one spelling, or `00` would be another element than `0`.
                part.parse::<u16>().ok().filter(|index| index.to_string() == part)?;
                index_next = false;
                continue;
            }
            if !key.is_empty() {
                key.push('.');
            }
            key.push_str(part);
            index_next = self.lists().any(|list| list == key);
        }
        Some(key)
    }

    /// The longest list of tables that the path leads into.
    pub fn list_of(&self, path: &str) -> &'static str {
        let inside = |list: &&str| path.replace(".0", "").starts_with(list);
        self.lists().filter(inside).max_by_key(|list| list.len()).unwrap_or_default()
    }
}

fn bounds(limit: &Limit) -> String {
    let (min, max) = (limit.unit.show(limit.min), limit.unit.show(limit.max));
    format!("{min} to {max} {}", limit.unit.name()).trim_end().to_owned()
}

/// Edit distance (Levenshtein) in characters.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::all::TABLES;

    #[test]
    fn every_key_says_what_it_is_for_and_what_is_allowed() {
        for key in TABLES.rows() {
            let limit = TABLES.limit(key.key);
            assert_ne!(key.what.is_empty(), limit.is_none(), "{}", key.key);
            let explained = limit.is_some() || !key.allowed.is_empty();
            let by_kind = matches!(key.kind, ValueType::Choice(_) | ValueType::Flag);
            assert!(explained || by_kind, "{}", key.key);
        }
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn a_typing_error_is_answered_with_the_key_that_was_meant() {
        for (typed, meant) in [
            ("netsvr.customer.max_onlin", "netsvr.customer.max_online"),
            ("netsvr.max_online", "netsvr.customer.max_online"),
            ("netsrv.worker.pick", "netsvr.worker.pick"),
            ("runtime.cpu", "runtime.cpus"),
            ("listener.tls.certificate", "listener.tls.cert"),
            ("listner.bind", "listener.bind"),
        ] {
            assert!(
                TABLES.advice(typed).contains(&format!("`{meant}`")),
                "{typed}: {}",
                TABLES.advice(typed)
            );
        }
    }

    #[test]
    fn keys_of_the_go_gateway_are_answered_with_what_takes_their_place() {
        for (old, new) in [
            ("Customer.Multicore", "runtime.cpus"),
            ("netsvr.worker.send_chan_cap", "netsvr.worker.queue_frames_max"),
            ("Worker.SendChanDeadline", "netsvr.worker.on_full"),
            ("Customer.HeartbeatInterval", "netsvr.customer.heartbeat_interval"),
            ("Limit.OnOpen", "netsvr.limit.on_open"),
            ("Customer.TLSCert", "tls = { cert, key }"),
        ] {
            assert!(TABLES.advice(old).contains(new), "{old}: {}", TABLES.advice(old));
        }
    }

    #[test]
    fn a_path_without_the_index_of_a_list_of_tables_has_no_key() {
        assert_eq!(TABLES.key_of("node").as_deref(), Some("node"));
        assert_eq!(TABLES.key_of("listener.0.bind").as_deref(), Some("listener.bind"));
        assert_eq!(
            TABLES.key_of("listener.12.routes.3.path").as_deref(),
            Some("listener.routes.path")
        );
        assert_eq!(TABLES.key_of("listener.0.routes").as_deref(), Some("listener.routes"));
        assert_eq!(TABLES.key_of("listener.bind"), None);
        assert_eq!(TABLES.key_of("listener.00.bind"), None);
        assert_eq!(TABLES.key_of("listener.99999999999999999999.bind"), None);
        assert_eq!(TABLES.key_of("listener.0.routes.path"), None);
    }
}
