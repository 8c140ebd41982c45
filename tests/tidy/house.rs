//! The house: protocols are tenants of an engine that does not know them. Who stands above whom in
//! `src/shard`, and that no type is spread over many files.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::crate_paths;
use super::source::Source;

/// The protocols, and the modules of `shard` that are theirs.
const TENANTS: &[(&str, &[&str])] = &[
    ("netsvr", &["netsvr", "business", "queries", "answers", "netsvr_push", "hooks"]),
    ("xxim", &["xxim"]),
    ("connmix", &["connmix", "connmix_api", "connmix_http"]),
    ("im", &["im"]),
    ("echo", &["echo"]),
];
/// The modules of `control`, and whose they are.
const CONTROL: &[(&str, &str)] =
    &[("worker", "netsvr"), ("large", "netsvr"), ("connmix_api", "connmix")];
/// What stands above the protocols: the shard itself, its driver and its simulation.
const ABOVE: &[&str] = &[
    "mod", "audit", "commands", "dispatch", "driver", "fan_out", "letters", "maker", "reading",
    "sim", "spare", "tenants",
];
/// Lists that name all protocols. The letters are one enum of all of them.
const LISTS: &[&str] = &["lists", "mailbox"];
/// Files over which the methods of one type may be spread.
const FILES_MAX: usize = 8;

/// The module of `shard` that a file belongs to.
fn module(source: &Source) -> Option<&str> {
    let path = source.path.strip_prefix("src/shard/")?;
    Some(path.split(['/', '.']).next().unwrap_or(path))
}

fn tenant(module: &str) -> Option<&'static str> {
    let of = TENANTS.iter().find(|(_, modules)| modules.contains(&module));
    of.map(|(name, _)| *name)
}

pub fn floors(source: &Source) -> Vec<String> {
    let Some(own) = module(source) else { return Vec::new() };
    if ABOVE.contains(&own) || LISTS.contains(&own) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (index, import) in crate_paths(source) {
        let decides = import.starts_with("edge::") || import.starts_with("control::");
        let used = import.strip_prefix("shard::").map(|path| path.split("::").next());
        let used = used.flatten().unwrap_or_default();
        let message = match (tenant(own), tenant(used)) {
            (None, None) if decides => "the engine knows no protocol; give it what it needs",
            (None, Some(_)) => "the engine knows no protocol; it puts a want on the list",
            (Some(one), Some(other)) if one != other => {
                "a protocol knows no other one; what both need stands below them"
            }
            _ if ABOVE.contains(&used) || used == "Shard" => {
                "nothing calls upwards; put a want on the list"
            }
            _ => continue,
        };
        found.push(source.at(index, &format!("crate::{import}: {message}")));
    }
    found
}

/// Whether there is a protocol of this name.
fn protocol(name: &str) -> Option<&'static str> {
    TENANTS.iter().map(|(name, _)| *name).find(|protocol| *protocol == name)
}

/// The protocol of a module of `control`.
fn control(module: &str) -> Option<&'static str> {
    let of = CONTROL.iter().find(|(name, _)| *name == module);
    of.map(|(_, protocol)| *protocol)
}

/// The protocol whose file this is.
fn owner(source: &Source) -> Option<&'static str> {
    let path = source.path.strip_prefix("src/")?;
    let mut parts = path.split(['/', '.']);
    match (parts.next()?, parts.next()?) {
        ("wire" | "edge", name) => protocol(name),
        ("control", name) => control(name),
        ("shard", name) => tenant(name),
        _ => None,
    }
}

/// Who reads or writes the messages of a protocol, or decides for it, that is not its own. What
/// stands above the protocols, and the lists of them, may.
pub fn messages(source: &Source) -> Vec<String> {
    const SHARED: [&str; 4] = ["src/wire", "src/edge", "src/hub", "src/mail"];
    let own = owner(source);
    let engine = module(source).is_some_and(|own| !ABOVE.contains(&own) && !LISTS.contains(&own));
    if own.is_none() && !engine && !SHARED.iter().any(|folder| source.is_in(folder)) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (index, import) in crate_paths(source) {
        let mut path = import.split("::");
        let of = match (path.next(), path.next()) {
            (Some("wire" | "edge"), Some(name)) => protocol(name),
            (Some("control"), Some(name)) => control(name),
            _ => None,
        };
        if of.is_some() && of != own {
            let message = "messages and rules of another protocol; what several need stands in \
                           wire/worker, wire/queue, hub, or is given as data";
            found.push(source.at(index, &format!("crate::{import}: {message}")));
        }
    }
    found
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
fn who_reaches_upwards_or_aside_is_found() {
    let floors = |path: &str, code: &str| floors(&Source::new(path, code)).len();
    assert_eq!(floors("src/shard/closing.rs", "use crate::shard::xxim::Conn;\n"), 1);
    assert_eq!(floors("src/shard/sending.rs", "use crate::edge::im::Session;\n"), 1);
    assert_eq!(floors("src/shard/im/rooms.rs", "use crate::shard::connmix::make;\n"), 1);
    assert_eq!(floors("src/shard/xxim.rs", "use crate::shard::{Engine, Shard};\n"), 1);
    assert_eq!(floors("src/shard/xxim.rs", "use crate::shard::{Engine, slots, lists};\n"), 0);
    assert_eq!(floors("src/shard/dispatch.rs", "use crate::shard::xxim::Conn;\n"), 0);
}

#[test]
fn who_uses_messages_of_another_protocol_is_found() {
    let messages = |path: &str, code: &str| messages(&Source::new(path, code)).len();
    assert_eq!(messages("src/shard/im/forward.rs", "use crate::wire::netsvr::transfer;\n"), 1);
    assert_eq!(messages("src/shard/im/forward.rs", "use crate::wire::{im, worker};\n"), 0);
    assert_eq!(messages("src/edge/xxim/mod.rs", "use crate::edge::{echo, im::Session};\n"), 2);
    assert_eq!(messages("src/edge/upgrade.rs", "use crate::wire::xxim::code;\n"), 1);
    assert_eq!(messages("src/wire/queue.rs", "use crate::wire::connmix::Answer;\n"), 1);
    assert_eq!(messages("src/wire/netsvr/open.rs", "use crate::wire::worker::Cmd;\n"), 0);
    assert_eq!(messages("src/control/connmix_api.rs", "use crate::wire::connmix::Call;\n"), 0);
    assert_eq!(messages("src/control/worker.rs", "use crate::wire::connmix::Call;\n"), 1);
    assert_eq!(messages("src/shard/xxim.rs", "use crate::control::worker::answer;\n"), 1);
    assert_eq!(messages("src/hub/context.rs", "use crate::wire::{json, xxim};\n"), 1);
    assert_eq!(messages("src/shard/engine.rs", "use crate::wire::netsvr::Verdict;\n"), 1);
    assert_eq!(messages("src/shard/reading.rs", "use crate::edge::echo;\n"), 0);
}

#[test]
fn a_type_in_many_files_is_found() {
    let file = |number: usize| Source::new(&format!("src/{number}.rs"), "impl super::Thing {\n}\n");
    assert_eq!(spread(&(0..FILES_MAX).map(file).collect::<Vec<_>>()).len(), 0);
    assert_eq!(spread(&(0..=FILES_MAX).map(file).collect::<Vec<_>>()).len(), 1);
}
