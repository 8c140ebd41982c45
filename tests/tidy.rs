//! The style of the repository, checked: sizes, one-way imports, purity, `unsafe`, dead files,
//! unfinished work, citations. Each message has file, line and what to do.

#[path = "tidy/cited.rs"]
mod cited;
#[path = "tidy/counted.rs"]
mod counted;
#[path = "tidy/house.rs"]
mod house;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::path::Path;

use source::{Source, files, sources};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Everything that is compiled.
fn all() -> Vec<Source> {
    let found = sources(root(), &["src", "tests", "perf", "fuzz", "benches"]);
    assert!(found.iter().any(|source| source.path == "src/lib.rs"), "src/ was not found");
    found
}

fn check(found: Vec<String>) {
    assert!(found.is_empty(), "{} found:\n{}\n", found.len(), found.join("\n"));
}

fn check_each(rule: impl Fn(&Source) -> Vec<String>) {
    check(all().iter().flat_map(rule).collect());
}

#[test]
fn files_functions_and_lines_are_short() {
    check_each(rules::size);
}

#[test]
fn every_file_says_what_it_is_for() {
    check_each(rules::first_line);
}

#[test]
fn imports_go_one_way() {
    check_each(rules::imports);
    let all = all();
    let files: Vec<&str> =
        all.iter().filter_map(|source| source.path.strip_prefix("src/")).collect();
    for (place, _) in rules::IMPORTS {
        let stands = files.iter().any(|path| rules::is_at(path, place));
        assert!(stands, "src/{place} has a row in IMPORTS but is gone");
    }
}

#[test]
fn no_protocol_knows_another_one() {
    check_each(house::aside);
}

#[test]
fn services_are_asked_by_letters() {
    check_each(house::services);
}

#[test]
fn protocols_and_their_parts_know_what_they_need() {
    check_each(house::pure_parts);
    check_each(house::lists);
}

#[test]
fn a_protocol_is_its_folder_and_four_lines() {
    check(house::lines_of_echo(&all()));
}

#[test]
fn no_type_is_spread_over_many_files() {
    check(house::spread(&all()));
}

#[test]
fn wire_and_hub_are_pure() {
    check_each(rules::purity);
}

#[test]
fn every_thread_is_watched() {
    check_each(rules::threads);
}

#[test]
fn every_event_of_the_log_has_a_target_of_the_table() {
    check_each(rules::targets);
    check(counted::targets(&all()));
}

#[test]
fn unsafe_stands_where_it_may_and_says_why_it_is_sound() {
    check_each(rules::unsafety);
}

#[test]
fn no_file_is_dead() {
    check(rules::dead(&all()));
}

#[test]
fn every_metric_and_every_reason_of_a_drop_is_counted() {
    check(counted::metrics(&all()));
    check(counted::rows(&all()));
}

#[test]
fn every_limit_is_kept() {
    check(counted::limits(&all()));
}

#[test]
fn every_public_name_is_used() {
    check(counted::once(&all()));
}

#[test]
fn nothing_is_unfinished() {
    check_each(rules::unfinished);
}

#[test]
fn what_is_cited_exists() {
    let all = cited::read(root());
    check_each(|source| cited::comments(source, &all));
    let others = ["proto", "tests/clients"].into_iter().flat_map(|folder| files(root(), folder));
    for (name, path) in others.filter(|(name, _)| name.ends_with(".proto") || name.ends_with(".go"))
    {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        check(cited::comments(&Source::new(&name, &text), &all));
    }
    for name in all.keys() {
        let path = format!("{}/{}.md", cited::FOLDER, name.to_lowercase());
        let text = std::fs::read_to_string(root().join(&path)).expect("it was read before");
        check(cited::specification(name, &path, &text, &all));
    }
}

#[test]
fn texts_name_no_private_place() {
    const TEXTS: [&str; 10] =
        [".rs", ".toml", ".md", ".sh", ".service", ".proto", ".py", ".js", ".go", "/run"];
    let mut found = Vec::new();
    for (name, path) in files(root(), "") {
        if TEXTS.iter().any(|end| name.ends_with(end)) {
            let text = std::fs::read(path).unwrap_or_else(|error| panic!("{name}: {error}"));
            found.extend(rules::prose(&name, &String::from_utf8_lossy(&text)));
        }
    }
    check(found);
}

/// A rule, a file that breaks it, and the lines in which it does.
type Sample = (fn(&Source) -> Vec<String>, &'static str, &'static str, &'static [usize]);

const SAMPLES: &[Sample] = &[
    (rules::first_line, "src/a.rs", "use std::fmt;\n", &[1]),
    (rules::first_line, "src/a.rs", "//! A thing.\n", &[]),
    (
        rules::unfinished,
        "src/a.rs",
        concat!("fn a() {\n    to", "do!()\n}\n// to", "do!()\n"),
        &[2],
    ),
    (rules::imports, "src/hub/a.rs", "use crate::wire::http;\n", &[1]),
    (rules::imports, "src/hub/a.rs", "use crate::{hub, shard::ops};\n", &[1]),
    (rules::imports, "src/hub/a.rs", "use crate::{\n    hub::{b, c as d},\n    limits,\n};\n", &[]),
    (rules::imports, "src/hub/a.rs", "/// [`crate::shard`]\nuse crate::hub::b;\n", &[]),
    (rules::imports, "src/hub/a.rs", "use super::super::shard;\n", &[1]),
    (rules::imports, "src/log.rs", "use super::hub;\nmod tests {\n    use super::*;\n}\n", &[1]),
    (rules::imports, "src/hub/mod.rs", "use super::a;\n", &[1]),
    (rules::imports, "src/hub/a.rs", "use super::b;\n", &[]),
    (rules::imports, "src/hub/a.rs", "fn a() -> crate::metrics::Rates {}\n", &[1]),
    (rules::imports, "src/wire/worker/a.rs", "use crate::hub::{ConnId, push};\n", &[1]),
    (rules::imports, "src/sidecar/a.rs", "use crate::lists::letters::Mail;\n", &[]),
    (rules::imports, "src/sidecar/a.rs", "use crate::shard::mail;\n", &[1]),
    (rules::imports, "src/outside/a.rs", "use crate::protocols::im;\n", &[1]),
    (rules::imports, "src/protocols/im/service.rs", "use crate::outside::grpc;\n", &[]),
    (rules::imports, "src/protocols/im/service/a.rs", "use crate::engine::Engine;\n", &[1]),
    (rules::imports, "src/protocols/im/service/a.rs", "use crate::sidecar::mesh;\n", &[1]),
    (rules::imports, "src/protocols/im/mod.rs", "use crate::outside::grpc;\n", &[1]),
    (rules::imports, "src/mail/a.rs", "use crate::lists::letters::Mail;\n", &[1]),
    (rules::imports, "src/mail/a.rs", "use crate::life::{Gone, Life};\n", &[1]),
    (rules::imports, "src/gateway/a.rs", "use crate::engine::driver;\n", &[]),
    (rules::purity, "src/wire/a.rs", "use std::time::Instant;\n// Instant\n", &[1]),
    (rules::purity, "src/wire/a.rs", "tracing::info!();\nlet x = \"tokio\";\n", &[1]),
    (rules::purity, "src/hub/a.rs", "mod tests {\n    use std::thread;\n}\n", &[]),
    (rules::purity, "src/shard/a.rs", "use std::time::Instant;\n", &[]),
    (rules::threads, "src/shard/a.rs", "std::thread::spawn(a);\nlife.spawn(a);\n", &[1]),
    (rules::threads, "src/sidecar/a.rs", "let a = thread::Builder::new();\n", &[1]),
    (rules::threads, "src/hub/a.rs", "mod tests {\n    thread::scope(a);\n}\n", &[]),
    (rules::threads, "src/demo/a.rs", "thread::spawn(a);\n", &[]),
    (rules::targets, "src/a.rs", "tracing::warn!(target: target::A, \"a\");\n", &[]),
    (rules::targets, "src/a.rs", "tracing::warn!(\n    target: target::A,\n    b,\n);\n", &[]),
    (rules::targets, "src/a.rs", "tracing::warn!(\"a\");\ntracing::info!(\n    a,\n);\n", &[1, 2]),
    (rules::targets, "src/a.rs", "tracing::warn!(target: \"ringway::a\", \"a\");\n", &[1]),
    (rules::targets, "src/a.rs", "use tracing::warn;\n", &[1]),
    (rules::targets, "tests/a.rs", "tracing::warn!(\"a\");\n", &[]),
    (rules::unsafety, "src/hub/a.rs", "// SAFETY: no.\nunsafe {}\n", &[2]),
    (rules::unsafety, "src/hub/a.rs", "#![deny(unsafe_code)]\n// unsafe\n", &[]),
    (rules::unsafety, "src/engine/ring/a.rs", "let a = 1;\nunsafe {}\n", &[2]),
    (rules::unsafety, "src/engine/ring/a.rs", "// SAFETY: yes.\nlet a =\n    unsafe {};\n", &[]),
    (rules::unsafety, "src/engine/ring/a.rs", "// SAFETY: yes.\nlet a = 1;\nunsafe {}\n", &[3]),
    (rules::unsafety, "src/engine/ring/a.rs", "/// A.\npub unsafe fn a() {}\n", &[2]),
    (rules::unsafety, "src/engine/ring/a.rs", "/// # Safety\n/// A.\nunsafe fn a() {}\n", &[]),
];

fn lines_of(found: &[String]) -> Vec<usize> {
    let line = |message: &String| message.split(':').nth(1).and_then(|line| line.parse().ok());
    found.iter().map(|message| line(message).expect("a message has a line")).collect()
}

#[test]
fn the_rules_find_what_they_look_for() {
    for (rule, path, text, expected) in SAMPLES {
        let found = rule(&Source::new(path, text));
        assert_eq!(lines_of(&found), *expected, "{path}: {text}: {found:?}");
    }
    assert_eq!(rules::prose("a.md", "a\nb \u{2014} c\n").len(), 1);
    let root = Source::new("src/lib.rs", "//! A.\npub mod a;\n// mod b;\n");
    let files = [root, Source::new("src/a/mod.rs", ""), Source::new("src/b.rs", "")];
    let dead = rules::dead(&files);
    assert!(dead.len() == 1 && dead[0].starts_with("src/b.rs:1: "), "{dead:?}");
}

#[test]
fn sizes_are_measured() {
    let function = |lines: usize| {
        let body = "        a();\n".repeat(lines - 2);
        format!("impl A {{\n    pub(crate) fn a(\n{body}    }}\n}}\n")
            .replacen("a(\n", "a() {\n", 1)
    };
    let size = |text: &str| lines_of(&rules::size(&Source::new("src/a.rs", text)));
    assert_eq!(size(&function(rules::FUNCTION_LINES_MAX)), [0; 0]);
    assert_eq!(size(&function(rules::FUNCTION_LINES_MAX + 1)), [2]);
    assert_eq!(size(&"\n".repeat(rules::FILE_LINES_MAX)), [0; 0]);
    assert_eq!(size(&"\n".repeat(rules::FILE_LINES_MAX + 1)), [rules::FILE_LINES_MAX + 1]);
    assert_eq!(size(&"\u{e4}".repeat(rules::LINE_COLUMNS_MAX)), [0; 0]);
    assert_eq!(size(&"a".repeat(rules::LINE_COLUMNS_MAX + 1)), [1]);
}

#[test]
fn what_nobody_counts_keeps_or_uses_is_found() {
    let table = "pub enum DropReason {\n    /// A.\n    Slow,\n    Lost,\n}\ntable! {\n    \
                 opens \"ringway_opens_total\" Count\n    naps \"ringway_naps_total\" Count\n}\n";
    let shard = "fn a() {\n    counters.opens += 1;\n    count(DropReason::Slow);\n    \
                 if counters.naps == 1 {}\n}\n";
    let files = [Source::new("src/metrics/table.rs", table), Source::new("src/shard/a.rs", shard)];
    assert_eq!(lines_of(&counted::metrics(&files)), [4, 8]);

    let rows = "rows! {\n    USED \"ringway_used\" Gauge Count\n        \"A\"\n    \
                FREE \"b\" Gauge Count\n}\n";
    let user = "fn a() {\n    registry.gauge(&rows::USED, &[]);\n}\n";
    let files = [Source::new("src/metrics/rows.rs", rows), Source::new("src/life/a.rs", user)];
    assert_eq!(lines_of(&counted::rows(&files)), [4]);

    let rows = "pub const USED_MAX: u8 = 1;\npub const FREE_MAX: u8 = 1;\nrow(\n    \"a.b.read\",\n\
                );\nrow(\n    \"a.b.idle\",\n);\n";
    let config = "fn a() {\n    table.number(\"b.read\", USED_MAX);\n}\n";
    let files = [Source::new("src/limits/a.rs", rows), Source::new("src/config/a.rs", config)];
    assert_eq!(lines_of(&counted::limits(&files)), [2, 7]);
    let own = "src/protocols/a/limits.rs";
    let files = [Source::new(own, rows), Source::new("src/protocols/a/config/b.rs", config)];
    assert_eq!(lines_of(&counted::limits(&files)), [2, 7]);

    let table = "table! {\n    USED = \"ringway::used\",\n    FREE = \"ringway::free\",\n}\n";
    let event = "tracing::info!(target: target::USED);\n";
    let files = [Source::new("src/log.rs", table), Source::new("src/a.rs", event)];
    assert_eq!(lines_of(&counted::targets(&files)), [3]);

    let names = "pub fn used() {}\npub const fn free() {}\npub struct Used {\n    \
                 pub idle: u8,\n}\nfn b(_: Used) {\n    used()\n}\n";
    assert_eq!(lines_of(&counted::once(&[Source::new("src/a.rs", names)])), [2, 4]);
}
