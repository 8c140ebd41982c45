//! The house: protocols are tenants of an engine that does not know them. Which folder may import
//! which is in `rules::IMPORTS`; here is what that table can not say.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::crate_paths;
use super::source::{Source, is_word};

const FOLDER: &str = "src/protocols/";
/// Files over which the methods of one type may be spread.
const FILES_MAX: usize = 8;
/// Lines outside of its folder that a protocol may need, tests not counted. `echo` is the measure.
const LINES_MAX: usize = 4;

/// The protocol whose file this is, and which part of it.
fn part(source: &Source) -> Option<(&str, &str)> {
    let path = source.path.strip_prefix(FOLDER)?;
    let mut parts = path.split(['/', '.']);
    Some((parts.next()?, parts.next().unwrap_or_default()))
}

/// Whether a file is the codec of a protocol.
pub fn is_codec(source: &Source) -> bool {
    part(source).is_some_and(|(_, part)| part == "wire")
}

/// Imports of one protocol from another one.
pub fn aside(source: &Source) -> Vec<String> {
    let Some((own, _)) = part(source) else { return Vec::new() };
    let mut found = Vec::new();
    for (index, import) in crate_paths(source) {
        let other = import.strip_prefix("protocols::").and_then(|path| path.split("::").next());
        if other.is_some_and(|other| other != own) && own != "mod" {
            let message = "a protocol knows no other one; what both need stands below them";
            found.push(source.at(index, &format!("crate::{import}: {message}")));
        }
    }
    found
}

/// Codecs, rules and letters of protocols that know more than bytes, the hub and their
/// configuration.
pub fn pure_parts(source: &Source) -> Vec<String> {
    let Some((own, part @ ("wire" | "rules" | "letters"))) = part(source) else {
        return Vec::new();
    };
    let wire = format!("protocols::{own}::wire");
    let rules = format!("protocols::{own}::rules");
    let large = format!("protocols::{own}::large");
    let allowed: &[&str] = match part {
        "wire" => &[&wire, "wire", "limits", "hub::ConnId", "hub::Rotation"],
        "letters" => &[&wire, &rules, &large, "wire", "hub", "metrics::Rates"],
        _ => &[&wire, &rules, "wire", "hub", "config", "limits", "spare"],
    };
    let mut found = Vec::new();
    for (index, import) in crate_paths(source) {
        let below = |place: &&str| {
            import.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        if !allowed.iter().any(below) {
            let message = format!("{part} of a protocol may use {}", allowed.join(", "));
            found.push(source.at(index, &format!("crate::{import}: {message}")));
        }
    }
    found
}

/// The lines outside of its folder without which there would be no echo, if they are too many.
pub fn lines_of_echo(sources: &[Source]) -> Vec<String> {
    const NAMES: [&str; 3] = ["echo", "Echo", "ECHO"];
    let outside = |source: &&Source| {
        let own = source.path.starts_with("src/protocols/echo");
        source.is_in("src") && !own && !source.path.ends_with("tests.rs")
    };
    let mut lines = BTreeSet::new();
    for source in sources.iter().filter(outside) {
        for name in NAMES {
            for (index, rest) in source.words(name) {
                let line = &source.code[index];
                // A method of this name is another matter.
                let method = rest.starts_with('(') || line.contains(&format!(".{name}"));
                if !method && !rest.starts_with(is_word) {
                    lines.insert((&source.path, index));
                }
            }
        }
    }
    if lines.len() <= LINES_MAX {
        return Vec::new();
    }
    let all: Vec<String> =
        lines.iter().map(|(path, index)| format!("{path}:{}", index + 1)).collect();
    vec![format!(
        "{} lines outside of its folder say `echo`, {LINES_MAX} are allowed: {}",
        all.len(),
        all.join(", ")
    )]
}

/// The types that have methods, each with the files where these stand.
pub fn spread(sources: &[Source]) -> Vec<String> {
    let mut files: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.is_in("src")) {
        for line in &source.code {
            let name = line.strip_prefix("impl ").and_then(|rest| rest.strip_suffix(" {"));
            let name = name.map(|name| name.rsplit("::").next().unwrap_or(name));
            if let Some(name) = name.filter(|name| name.chars().all(char::is_alphanumeric)) {
                files.entry(name).or_default().insert(&source.path);
            }
        }
    }
    let many = files.iter().filter(|(_, files)| files.len() > FILES_MAX);
    let message = |(name, files): (&&str, &BTreeSet<&str>)| {
        let list: Vec<&str> = files.iter().copied().collect();
        format!(
            "{name} has methods in {} files, {FILES_MAX} are allowed; make parts of it types of \
             their own: {}",
            files.len(),
            list.join(", ")
        )
    };
    many.map(message).collect()
}

#[test]
fn who_reaches_aside_is_found() {
    let aside = |path: &str, code: &str| aside(&Source::new(path, code)).len();
    assert_eq!(aside("src/protocols/im/rooms.rs", "use crate::protocols::connmix::make;\n"), 1);
    assert_eq!(aside("src/protocols/im/rooms.rs", "use crate::protocols::{im::wire, echo};\n"), 1);
    assert_eq!(aside("src/protocols/im/rooms.rs", "use crate::wire::worker;\n"), 0);
    assert_eq!(aside("src/shard/dispatch.rs", "use crate::protocols::{echo, im};\n"), 0);
}

#[test]
fn codecs_and_rules_that_know_too_much_are_found() {
    let pure_parts = |path: &str, code: &str| pure_parts(&Source::new(path, code)).len();
    let wire = "src/protocols/im/wire/mod.rs";
    assert_eq!(pure_parts(wire, "use crate::protocols::im::rules::Session;\n"), 1);
    assert_eq!(pure_parts(wire, "use crate::hub::{ConnId, push};\n"), 1);
    let rules = "src/protocols/im/rules/mod.rs";
    assert_eq!(pure_parts(rules, "use crate::protocols::im::wire::Header;\n"), 0);
    assert_eq!(pure_parts(rules, "use crate::engine::Engine;\n"), 1);
    let letters = "src/protocols/im/letters.rs";
    assert_eq!(pure_parts(letters, "use crate::hub::ConnId;\n"), 0);
    assert_eq!(pure_parts(letters, "use crate::lists::letters::Mail;\n"), 1);
    assert_eq!(pure_parts("src/protocols/im/mod.rs", "use crate::engine::Engine;\n"), 0);
}

#[test]
fn lines_that_name_a_protocol_are_counted() {
    let lines = |code: &str| {
        let echo = Source::new("src/protocols/echo.rs", "struct Echo;\nmod echo {}\n");
        lines_of_echo(&[Source::new("src/a.rs", code), echo]).len()
    };
    assert_eq!(lines("mod echo;\necho::Echo;\nECHO\n// echo\nparams.echo();\nEcho\n"), 0);
    assert_eq!(lines("mod echo;\necho::Echo;\nECHO\nuse echo;\nEcho\n"), 1);
}

#[test]
fn a_type_in_many_files_is_found() {
    let file = |number: usize| Source::new(&format!("src/{number}.rs"), "impl super::Thing {\n}\n");
    assert_eq!(spread(&(0..FILES_MAX).map(file).collect::<Vec<_>>()).len(), 0);
    assert_eq!(spread(&(0..=FILES_MAX).map(file).collect::<Vec<_>>()).len(), 1);
}
