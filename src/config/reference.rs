//! The reference of the README: Markdown made from the table of keys and the table of limits.

use std::fmt::Write;

use super::tables::Tables;
use crate::limits::{FIXED, Limit};

/// All keys and all limits as Markdown tables, with a line feed at the end.
pub(crate) fn reference(tables: &Tables) -> String {
    let mut out = String::new();
    for &(table, title, intro) in tables.sections.iter().flat_map(|section| section.titles) {
        let _ = writeln!(out, "#### {title}\n");
        if !intro.is_empty() {
            let _ = writeln!(out, "{intro}\n");
        }
        out.push_str("| key | default | allowed | meaning | when it is reached | reload |\n");
        out.push_str("|---|---|---|---|---|---|\n");
        let shown = |key: &&str| {
            let (of, _) = key.rsplit_once('.').unwrap_or_default();
            of == table || (table == "admin" && of == "log")
        };
        tables.all().filter(shown).for_each(|key| row(&mut out, tables, key, table));
        out.push('\n');
    }
    out.push_str("#### Limits that can not be configured\n\n");
    out.push_str("| limit | what | when it is reached |\n|---|---|---|\n");
    for limit in tables.limits.iter().copied().flatten().filter(|limit| limit.key == FIXED) {
        let (value, unit) = (limit.unit.show(limit.max), limit.unit.name());
        let _ = writeln!(out, "| {value} {unit} | {} | {} |", limit.what, limit.when_hit);
    }
    out
}

fn row(out: &mut String, tables: &Tables, key: &str, table: &str) {
    let limit: Option<&Limit> = tables.limit(key);
    let row = tables.find(key);
    let default = match (row, limit) {
        (Some(row), _) => row.default.to_owned(),
        (None, Some(limit)) => limit.unit.show(limit.default),
        (None, None) => String::new(),
    };
    let default = match default.as_str() {
        "" => String::new(),
        text => format!("`{text}`"),
    };
    let what = row.map(|row| row.what).filter(|what| !what.is_empty());
    let what = what.or(limit.map(|limit| limit.what)).unwrap_or_default();
    let when_hit = limit.map_or("", |limit| limit.when_hit);
    let reload = row.is_some_and(|row| row.reload) || limit.is_some_and(|limit| limit.reload);
    let reload = if reload { "SIGHUP" } else { "no" };
    let name = match table {
        "admin" | "" => key,
        _ => key.rsplit('.').next().unwrap_or(key),
    };
    let allowed = tables.allowed(key);
    let _ = writeln!(out, "| `{name}` | {default} | {allowed} | {what} | {when_hit} | {reload} |");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::all::TABLES;
    use crate::limits;

    #[test]
    fn every_key_and_every_fixed_limit_has_one_row() {
        let reference = reference(&TABLES);
        let rows = |line: &&str| line.starts_with("| ") && !line.starts_with("| key");
        let count = reference.lines().filter(rows).filter(|l| !l.starts_with("| limit")).count();
        let fixed = limits::all::rows().filter(|limit| limit.key == FIXED).count();
        assert_eq!(count, TABLES.all().count() + fixed);
        assert!(reference.contains("| `max_online` | `100000` | 1 to 16000000 connections |"));
    }

    #[test]
    fn no_cell_breaks_its_table() {
        for line in reference(&TABLES).lines().filter(|line| line.starts_with('|')) {
            let cells = line.matches('|').count();
            assert!(cells == 7 || cells == 4, "{line}");
        }
    }
}
