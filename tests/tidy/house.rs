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

/// Whether a file belongs to this part of a protocol.
pub fn is_part(source: &Source, wanted: &str) -> bool {
    part(source).is_some_and(|(_, part)| part == wanted)
}

/// Whether a file is the codec of a protocol.
pub fn is_codec(source: &Source) -> bool {
    is_part(source, "wire")
}

/// Whether a file is pure: bytes and values in, messages and decisions out.
fn is_pure(own: &str, part: &str) -> bool {
    matches!(
        (own, part),
        (_, "wire" | "rules" | "letters" | "config" | "limits")
            | ("netsvr", "commands" | "large")
            | ("connmix", "requests")
    )
}

/// Lines whose `super::` leads further up than to the module of so many names.
fn leads_out(source: &Source, names: usize) -> Vec<usize> {
    let parts = source.path.trim_start_matches("src/").trim_end_matches(".rs").split('/');
    let depth = parts.filter(|part| *part != "mod").count();
    let out = |(index, rest): (usize, &str)| {
        let supers = 1 + rest.split("super::").take_while(|between| between.is_empty()).count();
        let inline = usize::from(source.module_around(index).is_some());
        (supers > depth + inline - names).then_some(index)
    };
    source.words("super::").filter_map(out).collect()
}

/// Imports of one protocol from another one.
pub fn aside(source: &Source) -> Vec<String> {
    let Some((own, _)) = part(source).filter(|(own, _)| *own != "mod") else { return Vec::new() };
    let message = "a protocol knows no other one; what both need stands below them";
    let mut found = Vec::new();
    for (index, import) in crate_paths(source) {
        let other = import.strip_prefix("protocols").filter(|rest| !rest.starts_with(is_word));
        let other = other.map(|rest| rest.trim_start_matches("::").split("::").next());
        if other.is_some_and(|other| other != Some(own)) {
            found.push(source.at(index, &format!("crate::{import}: {message}")));
        }
    }
    let out = leads_out(source, 2).into_iter();
    found.extend(out.map(|index| source.at(index, message)));
    found
}

/// The lists of the tables of all protocols, the whole configuration among them, and who may know
/// them; tests beside.
const LISTS: [&str; 2] = ["config::all", "limits::all"];
const KNOW_LISTS: [&str; 8] = [
    "src/config/all.rs",
    "src/limits/all.rs",
    "src/main.rs",
    "src/gateway",
    "src/machine",
    "src/import",
    "src/shard",
    "src/sim",
];

/// Who knows the list of all tables and is not to: what is machinery, and what is given its own
/// table.
pub fn lists(source: &Source) -> Vec<String> {
    if !source.is_in("src") || KNOW_LISTS.iter().any(|place| source.is_in(place)) {
        return Vec::new();
    }
    let below = |import: &str, list: &str| {
        import.strip_prefix(list).is_some_and(|rest| !rest.starts_with(is_word))
    };
    let imports = crate_paths(source).into_iter();
    let mut lines: BTreeSet<usize> = imports
        // Who has the whole folder has the list.
        .filter(|(_, import)| import == "config" || LISTS.iter().any(|list| below(import, list)))
        .map(|(index, _)| index)
        .collect();
    // As one says it who has imported the folder, or stands in it.
    lines.extend(LISTS.iter().flat_map(|list| source.words(list)).map(|(index, _)| index));
    if source.is_in("src/config") || source.is_in("src/limits") {
        let own = ["super::all", "self::all", "all::"].into_iter();
        let own = own.flat_map(|name| source.words(name));
        lines.extend(own.map(|(index, _)| index));
    }
    let message = "the list of all tables; whoever needs one is given it";
    let found = lines.into_iter().filter(|index| source.module_around(*index) != Some("tests"));
    found.map(|index| source.at(index, message)).collect()
}

/// Services of protocols that others than they themselves and those who start them know: a tenant
/// asks them by letters.
pub fn services(source: &Source) -> Vec<String> {
    const STARTERS: [&str; 2] = ["src/sidecar", "src/gateway"];
    let own = part(source);
    let inside = own.is_some_and(|(_, part)| part == "service");
    if inside || !source.is_in("src") || STARTERS.iter().any(|place| source.is_in(place)) {
        return Vec::new();
    }
    let message = "services are started by the sidecar and asked by letters";
    let mut found = Vec::new();
    for (index, import) in crate_paths(source) {
        let mut names = import.split("::");
        if names.next() == Some("protocols") && names.nth(1) == Some("service") {
            found.push(source.at(index, &format!("crate::{import}: {message}")));
        }
    }
    // As a tenant would say it without `crate::`.
    for (index, _) in source.words("service::").filter(|_| own.is_some()) {
        if !source.code[index].contains("crate::") {
            found.push(source.at(index, message));
        }
    }
    found
}

/// Codecs, rules, letters and other pure parts of protocols that know more than bytes, the hub and
/// their configuration; and keys and limits of protocols that know more than what keys are.
pub fn pure_parts(source: &Source) -> Vec<String> {
    let Some((own, part)) = part(source).filter(|(own, part)| is_pure(own, part)) else {
        return Vec::new();
    };
    let of = |part: &str| format!("protocols::{own}::{part}");
    let mut allowed = match part {
        "limits" => vec!["limits".to_owned()],
        _ => vec![of("wire"), of("limits"), "wire".into(), "limits".into()],
    };
    let more: &[&str] = match part {
        "wire" => &["hub::ConnId", "hub::Rotation"],
        "letters" => &["hub", "metrics::Rates"],
        "config" => &["config", "pem"],
        "limits" => &[],
        _ => &["hub", "config", "spare"],
    };
    allowed.extend(more.iter().map(|place| (*place).to_owned()));
    match part {
        "wire" | "limits" => {}
        "large" => allowed.extend([of("commands"), of("config")]),
        "letters" => allowed.extend([of("rules"), of("large")]),
        _ => allowed.extend([of(part), of("config")]),
    }
    let mut found = Vec::new();
    for (index, import) in crate_paths(source) {
        let below = |place: &String| {
            import
                .strip_prefix(place.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        if !allowed.iter().any(below) {
            let message = format!("{part} of a protocol may use {}", allowed.join(", "));
            found.push(source.at(index, &format!("crate::{import}: {message}")));
        }
    }
    let message = format!("this leads out of {part}; write the path with crate::");
    let out = leads_out(source, 3).into_iter();
    found.extend(out.map(|index| source.at(index, &message)));
    found
}

/// The lines outside of its folder without which there would be no echo, if they are too many.
pub fn lines_of_echo(sources: &[Source]) -> Vec<String> {
    const NAMES: [&str; 3] = ["echo", "Echo", "ECHO"];
    // The chat of the demo has a command of this name.
    let elsewhere = |source: &&Source| {
        let own = source.path.starts_with("src/protocols/echo") || source.is_in("src/demo");
        source.is_in("src") && !own && !source.path.ends_with("tests.rs")
    };
    let mut lines = BTreeSet::new();
    for source in sources.iter().filter(elsewhere) {
        for (index, line) in source.code.iter().enumerate() {
            let named = NAMES.iter().flat_map(|name| line.match_indices(name)).any(|(at, name)| {
                let (before, after) = (&line[..at], &line[at + name.len()..]);
                // A method of this name is another matter.
                let method = before.ends_with('.') && after.starts_with('(');
                let word = !before.ends_with(is_word) && !after.starts_with(char::is_alphanumeric);
                word && !method && !after.starts_with("_params")
            });
            let quoted = !line.trim().is_empty() && source.lines[index].contains("\"echo\"");
            if named || quoted {
                lines.insert((&source.path, index));
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
    assert_eq!(aside("src/protocols/im/rooms.rs", "use crate::protocols::*;\n"), 1);
    assert_eq!(aside("src/protocols/im/rooms.rs", "use super::super::connmix::make;\n"), 1);
    assert_eq!(aside("src/protocols/im/mod.rs", "use super::connmix::make;\n"), 1);
    assert_eq!(aside("src/protocols/im/rooms.rs", "use super::push::make;\n"), 0);
    assert_eq!(aside("src/protocols/echo.rs", "use super::im;\n"), 1);
    assert_eq!(aside("src/protocols/echo.rs", "mod tests {\n    use super::*;\n}\n"), 0);
    assert_eq!(aside("src/shard/dispatch.rs", "use crate::protocols::{echo, im};\n"), 0);
}

#[test]
fn who_knows_services_is_found() {
    let services = |path: &str, code: &str| services(&Source::new(path, code)).len();
    assert_eq!(services("src/protocols/im/mod.rs", "pub mod service;\n"), 0);
    assert_eq!(services("src/protocols/im/mod.rs", "use service::Service;\n"), 1);
    assert_eq!(services("src/protocols/im/a.rs", "use super::{b, service::Service};\n"), 1);
    assert_eq!(services("src/protocols/im/a.rs", "use crate::protocols::im::service;\n"), 1);
    assert_eq!(services("src/shard/a.rs", "use crate::protocols::{im::service::A, xxim};\n"), 1);
    assert_eq!(services("src/protocols/im/service.rs", "use self::service::A;\n"), 0);
    assert_eq!(services("src/sidecar/mod.rs", "use crate::protocols::im::service;\n"), 0);
}

#[test]
fn codecs_and_rules_that_know_too_much_are_found() {
    let pure_parts = |path: &str, code: &str| pure_parts(&Source::new(path, code)).len();
    let wire = "src/protocols/im/wire/mod.rs";
    assert_eq!(pure_parts(wire, "use crate::protocols::im::rules::Session;\n"), 1);
    assert_eq!(pure_parts(wire, "use crate::hub::{ConnId, push};\n"), 1);
    assert_eq!(pure_parts(wire, "use super::rooms::Fan;\n"), 1);
    let header = "src/protocols/im/wire/header.rs";
    assert_eq!(pure_parts(header, "use super::Wire;\n"), 0);
    assert_eq!(pure_parts(header, "use super::super::rooms::Fan;\n"), 1);
    let large = "src/protocols/netsvr/large.rs";
    assert_eq!(pure_parts(large, "use crate::protocols::netsvr::commands::Shape;\n"), 0);
    assert_eq!(pure_parts(large, "use crate::engine::Engine;\n"), 1);
    let rules = "src/protocols/im/rules/mod.rs";
    assert_eq!(pure_parts(rules, "use crate::protocols::im::wire::Header;\n"), 0);
    assert_eq!(pure_parts(rules, "use crate::engine::Engine;\n"), 1);
    let letters = "src/protocols/im/letters.rs";
    assert_eq!(pure_parts(letters, "use crate::hub::ConnId;\n"), 0);
    assert_eq!(pure_parts(letters, "use crate::lists::letters::Mail;\n"), 1);
    assert_eq!(pure_parts("src/protocols/im/mod.rs", "use crate::engine::Engine;\n"), 0);
    let limits = "src/protocols/im/limits.rs";
    assert_eq!(pure_parts(limits, "use crate::limits::Limit;\n"), 0);
    assert_eq!(pure_parts(limits, "use crate::protocols::im::wire::Header;\n"), 1);
    let config = "src/protocols/im/config/mod.rs";
    assert_eq!(pure_parts(config, "use crate::protocols::im::{limits, wire::Header};\n"), 0);
    assert_eq!(pure_parts(config, "use crate::config::keys::Key;\n"), 0);
    assert_eq!(pure_parts(config, "use crate::protocols::im::rules::Session;\n"), 1);
    assert_eq!(pure_parts(config, "use super::rules::Session;\n"), 1);
    assert_eq!(pure_parts(config, "use crate::engine::Engine;\n"), 1);
}

#[test]
fn who_knows_the_lists_of_tables_is_found() {
    let lists = |path: &str, code: &str| lists(&Source::new(path, code)).len();
    assert_eq!(lists("src/engine/mod.rs", "use crate::limits::{all, FIXED};\n"), 1);
    assert_eq!(lists("src/engine/mod.rs", "use crate::limits;\nlimits::all::find(key);\n"), 1);
    assert_eq!(lists("src/protocols/im/config.rs", "use crate::config::all::Config;\n"), 1);
    assert_eq!(lists("src/protocols/im/mod.rs", "use crate::config::{self, model};\n"), 1);
    assert_eq!(lists("src/engine/mod.rs", "use crate::config::*;\n"), 1);
    assert_eq!(lists("src/engine/mod.rs", "use crate::config::model::Service;\n"), 0);
    assert_eq!(lists("src/config/keys.rs", "use super::all::TABLES;\n"), 1);
    assert_eq!(lists("src/limits/fixed.rs", "use super::all;\n"), 1);
    assert_eq!(lists("src/limits/fixed.rs", "use super::{all, file};\nall::keys();\n"), 1);
    assert_eq!(lists("src/limits/fixed.rs", "mod tests {\n    use crate::config::all;\n}\n"), 0);
    assert_eq!(lists("src/limits/fixed.rs", "keys::all();\ncrate::config::allowed();\n"), 0);
    assert_eq!(lists("src/shard/mod.rs", "use crate::config::all::Config;\n"), 0);
}

#[test]
fn lines_that_name_a_protocol_are_counted() {
    let lines = |code: &str| {
        let echo = Source::new("src/protocols/echo.rs", "struct Echo;\nmod echo {}\n");
        lines_of_echo(&[Source::new("src/a.rs", code), echo]).len()
    };
    assert_eq!(lines("mod echo;\necho::Echo;\nECHO\n// echo\nparams.said();\nEcho\n"), 0);
    assert_eq!(lines("mod echo;\necho::Echo;\nECHO\nuse echo;\nEcho\n"), 1);
    let more = ["self.echo.tick();", "Echo(1)", "ECHO_MAX", "\"echo\" => 1,"];
    for line in more {
        assert_eq!(lines(&format!("mod echo;\necho::Echo;\nECHO\nuse echo;\n{line}\n")), 1);
    }
}

#[test]
fn a_type_in_many_files_is_found() {
    let file = |number: usize| Source::new(&format!("src/{number}.rs"), "impl super::Thing {\n}\n");
    assert_eq!(spread(&(0..FILES_MAX).map(file).collect::<Vec<_>>()).len(), 0);
    assert_eq!(spread(&(0..=FILES_MAX).map(file).collect::<Vec<_>>()).len(), 1);
}
