//! What is shown or offered has somebody who writes or uses it: metrics, reasons of drops, limits,
//! targets of the log, public names.

use std::collections::HashMap;

use super::house;
use super::source::{Source, is_word};

const METRICS: &str = "src/metrics/table.rs";
const ROWS: &str = "src/metrics/rows.rs";
const LOG: &str = "src/log.rs";

/// Families of shards and reasons of drops that no code outside of the tables counts.
pub fn metrics(sources: &[Source]) -> Vec<String> {
    let Some(table) = sources.iter().find(|source| source.path == METRICS) else {
        return vec![format!("{METRICS} was not found")];
    };
    let mut found = Vec::new();
    let mut reasons = false;
    for (index, line) in table.lines.iter().enumerate() {
        let line = line.trim();
        reasons = line == "pub enum DropReason {" || reasons && line != "}";
        let family = line.split_once(" \"ringway_").map(|(field, _)| field);
        if let Some(field) = family.filter(|field| field.chars().all(is_word)) {
            if !sources.iter().any(|source| is_counted(source, field)) {
                let message = format!("no line of a shard counts `{field}`; count it or drop it");
                found.push(table.at(index, &message));
            }
        } else if let Some(reason) = line.strip_suffix(',').filter(|_| reasons) {
            let path = format!("DropReason::{reason}");
            let outside = |source: &Source| !source.is_in("src/metrics") && used_in(source, &path);
            if !sources.iter().any(outside) {
                let message = format!("nothing is dropped for `{reason}`; count it or remove it");
                found.push(table.at(index, &message));
            }
        }
    }
    found
}

/// Families that no shard counts, and nobody else either.
pub fn rows(sources: &[Source]) -> Vec<String> {
    let Some(list) = sources.iter().find(|source| source.path == ROWS) else {
        return vec![format!("{ROWS} was not found")];
    };
    let mut found = Vec::new();
    for (index, line) in list.lines.iter().enumerate() {
        let Some((name, _)) = line.trim().split_once(" \"") else { continue };
        let path = format!("rows::{name}");
        let is_row = !name.is_empty() && name.chars().all(is_word);
        if is_row && !sources.iter().any(|source| used_in(source, &path)) {
            found.push(list.at(index, &format!("nobody counts `{path}`; count it or drop it")));
        }
    }
    found
}

/// Whether a shard writes to this field of its counters or gauges.
fn is_counted(source: &Source, field: &str) -> bool {
    let writes = |rest: &str| {
        let rest = rest.trim_start();
        rest.starts_with("+=") || rest.starts_with("= ") || rest.starts_with(':')
    };
    ["src/engine", "src/protocols", "src/shard"].iter().any(|place| source.is_in(place))
        && source.words(field).any(|(_, rest)| writes(rest))
}

fn used_in(source: &Source, word: &str) -> bool {
    let tests = |index| source.module_around(index) == Some("tests");
    source.is_in("src") && source.words(word).any(|(index, _)| !tests(index))
}

/// Constants of the table of limits that no code uses, and keys that the configuration does not
/// read.
pub fn limits(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    let is_table =
        |source: &&Source| source.is_in("src/limits") || house::is_part(source, "limits");
    let elsewhere = |source: &&Source| !is_table(source);
    for source in sources.iter().filter(is_table) {
        for (index, rest) in source.words("pub const") {
            let name: String = rest.trim_start().chars().take_while(|c| is_word(*c)).collect();
            let is_type = !name.chars().all(|c| c.is_uppercase() || c.is_numeric() || c == '_');
            if !is_type && !sources.iter().filter(elsewhere).any(|other| used_in(other, &name)) {
                let message = format!("no code keeps `{name}`; use it or remove its row");
                found.push(source.at(index, &message));
            }
        }
        for (index, line) in source.lines.iter().enumerate() {
            let before = source.lines[..index].last().map_or("", |line| line.trim());
            let Some(key) = line.trim().strip_prefix('"').and_then(|l| l.strip_suffix("\","))
            else {
                continue;
            };
            let configuration = || {
                let is_one = |source: &&Source| {
                    source.is_in("src/config") || house::is_part(source, "config")
                };
                sources.iter().filter(is_one)
            };
            if before == "row(" && !configuration().any(|source| reads(source, key)) {
                let message =
                    format!("the configuration never reads `{key}`; read it or remove it");
                found.push(source.at(index, &message));
            }
        }
    }
    found
}

/// Whether a file has the key, or the end of it that follows a section, as a text.
fn reads(source: &Source, key: &str) -> bool {
    let ends = key.match_indices('.').map(|(at, _)| &key[at + 1..]).chain([key]);
    ends.map(|end| format!("{end}\"")).any(|end| source.lines.iter().any(|l| l.contains(&end)))
}

/// Targets of the log under which there is no event.
pub fn targets(sources: &[Source]) -> Vec<String> {
    let Some(table) = sources.iter().find(|source| source.path == LOG) else {
        return vec![format!("{LOG} was not found")];
    };
    let mut found = Vec::new();
    for (index, line) in table.lines.iter().enumerate() {
        let row = line.trim().split_once(" = \"ringway::");
        let Some((name, _)) = row.filter(|(name, _)| name.chars().all(is_word)) else { continue };
        let path = format!("target::{name}");
        if !sources.iter().any(|source| used_in(source, &path)) {
            found.push(table.at(index, &format!("no event has `{path}`; remove it")));
        }
    }
    found
}

/// Public names that stand nowhere but where they are defined.
pub fn once(sources: &[Source]) -> Vec<String> {
    const KINDS: [&str; 8] = ["fn", "struct", "enum", "const", "static", "trait", "type", "mod"];
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for line in sources.iter().flat_map(|source| &source.code) {
        line.split(|c| !is_word(c)).for_each(|word| *seen.entry(word).or_default() += 1);
    }
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| source.is_in("src")) {
        for (index, line) in source.code.iter().enumerate() {
            let Some(item) = line.trim_start().strip_prefix("pub ") else { continue };
            let mut words = item.split(|c| !is_word(c)).filter(|word| !word.is_empty());
            let first = words.next().unwrap_or_default();
            let name = match KINDS.contains(&first) || ["unsafe", "async"].contains(&first) {
                true => words.find(|word| !KINDS.contains(word)).unwrap_or_default(),
                false => first,
            };
            if seen.get(name) == Some(&1) {
                let message = format!("nobody uses `{name}`; remove it");
                found.push(source.at(index, &message));
            }
        }
    }
    found
}
