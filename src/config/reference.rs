//! The reference of the README: Markdown made from the table of keys and the table of limits.

use std::fmt::Write;

use super::keys;
use super::settings::allowed;
use super::{connmix, connmix_server, im, login, mesh, xxim, xxim_push, xxim_upstream};
use crate::limits::{self, FIXED, Limit};

/// The tables of a configuration file, and what is said above each.
const TABLES: &[(&str, &str, &str)] = &[
    ("", "Top of the file", ""),
    ("runtime", "`[runtime]`", ""),
    ("sidecar", "`[sidecar]`", ""),
    (
        "listener",
        "`[[listener]]`",
        "One table per listener. In the environment the index is part of the name, e.g. \
         `RINGWAY_LISTENER__0__BIND`.",
    ),
    ("listener.routes", "`routes` of a `[[listener]]`", "A list of tables, one per path."),
    (
        "listener.tls",
        "`tls` of a `[[listener]]`",
        "The files are read at start and again at SIGHUP.",
    ),
    ("netsvr", "`[netsvr]`", ""),
    ("netsvr.customer", "`[netsvr.customer]`", ""),
    ("netsvr.worker", "`[netsvr.worker]`", ""),
    ("netsvr.task", "`[netsvr.task]`", ""),
    ("netsvr.limit", "`[netsvr.limit]`", ""),
];

/// What comes last.
const LAST: (&str, &str, &str) = ("admin", "`[admin]`, `[log]`", "");

/// All keys and all limits as Markdown tables, with a line feed at the end.
pub fn reference() -> String {
    let mut out = String::new();
    let areas = [
        TABLES,
        login::TABLES,
        xxim::TABLES,
        xxim_upstream::TABLES,
        xxim_push::TABLES,
        connmix::TABLES,
        connmix_server::TABLES,
        im::TABLES,
        mesh::TABLES,
        &[LAST],
    ];
    for &(table, title, intro) in areas.into_iter().flatten() {
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
        keys::all().filter(shown).for_each(|key| row(&mut out, key, table));
        out.push('\n');
    }
    out.push_str("#### Limits that can not be configured\n\n");
    out.push_str("| limit | what | when it is reached |\n|---|---|---|\n");
    for limit in limits::all::rows().filter(|limit| limit.key == FIXED) {
        let (value, unit) = (limit.unit.show(limit.max), limit.unit.name());
        let _ = writeln!(out, "| {value} {unit} | {} | {} |", limit.what, limit.when_hit);
    }
    out
}

fn row(out: &mut String, key: &str, table: &str) {
    let limit: Option<&Limit> = limits::all::find(key);
    let row = keys::find(key);
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
    let allowed = allowed(key);
    let _ = writeln!(out, "| `{name}` | {default} | {allowed} | {what} | {when_hit} | {reload} |");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_every_fixed_limit_has_one_row() {
        let reference = reference();
        let rows = |line: &&str| line.starts_with("| ") && !line.starts_with("| key");
        let count = reference.lines().filter(rows).filter(|l| !l.starts_with("| limit")).count();
        let fixed = limits::all::rows().filter(|limit| limit.key == FIXED).count();
        assert_eq!(count, keys::all().count() + fixed);
        assert!(reference.contains("| `max_online` | `100000` | 1 to 16000000 connections |"));
    }

    #[test]
    fn no_cell_breaks_its_table() {
        for line in reference().lines().filter(|line| line.starts_with('|')) {
            let cells = line.matches('|').count();
            assert!(cells == 7 || cells == 4, "{line}");
        }
    }
}
