//! The key `log.filter`: a filter that lets nothing through by a slip of the pen is refused.
//!
//! To the filter's library every word that is no level is a target, and a target that nobody logs
//! under switches everything off: with `inof` in the place of `info` the log stays empty.

use tracing_subscriber::EnvFilter;

use super::error::{Complaint, ConfigError};
use super::keys::distance;
use super::settings::{Settings, allowed};

const KEY: &str = "log.filter";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// Crates that log, this one first; beside their names a target may have modules.
const CRATES: [&str; 7] =
    ["ringway", "async_nats", "glommio", "h2", "hyper_util", "tonic", "tower"];
/// Modules of this crate, from which its targets begin.
const MODULES: [&str; 22] = [
    "allocator",
    "config",
    "control",
    "demo",
    "edge",
    "gateway",
    "hub",
    "import",
    "life",
    "limits",
    "log",
    "machine",
    "mail",
    "metrics",
    "patience",
    "pem",
    "rsa_keys",
    "shard",
    "sidecar",
    "spare",
    "tls_files",
    "wire",
];

/// Reads the filter.
pub(super) fn read(settings: &Settings) -> Result<String, ConfigError> {
    let filter = settings.text(KEY)?;
    match problem(&filter) {
        None => Ok(filter),
        Some((problem, advice)) => {
            let complaint = Complaint::new(problem).allowed(allowed(KEY)).advise(advice);
            Err(settings.error(KEY, complaint))
        }
    }
}

/// What is wrong with a filter, and what to do about it.
fn problem(filter: &str) -> Option<(String, String)> {
    if let Err(error) = EnvFilter::try_new(filter) {
        return Some((format!("this is not a log filter: {error}"), String::new()));
    }
    // What names spans is for experts, and has brackets or quotes.
    let plain = |directive: &&str| !directive.contains(['[', ']', '{', '}', '"']);
    for directive in filter.split(',').filter(plain) {
        let (word, is_target) = match directive.split_once('=') {
            Some((target, _)) => (target, true),
            None => (directive, false),
        };
        if word.is_empty() || is_known_target(word) || (!is_target && is_level(word)) {
            continue;
        }
        let all = if is_target { &[] } else { &LEVELS[..] };
        let modules = MODULES.iter().map(|module| format!("ringway::{module}"));
        let words = all.iter().chain(&CRATES).map(|word| (*word).to_owned()).chain(modules);
        let near = words.min_by_key(|known| distance(&word.to_lowercase(), known));
        let kind = if is_target { "target" } else { "level or target" };
        return Some((
            format!("there is no {kind} {word:?}"),
            format!("The nearest is {:?}", near.unwrap_or_default()),
        ));
    }
    None
}

fn is_level(word: &str) -> bool {
    LEVELS.contains(&&*word.to_lowercase()) || matches!(word, "0" | "1" | "2" | "3" | "4" | "5")
}

fn is_known_target(word: &str) -> bool {
    match word.split_once("::") {
        None => CRATES.contains(&word),
        Some(("ringway", rest)) => MODULES.contains(&rest.split("::").next().unwrap_or_default()),
        Some((name, _)) => CRATES.contains(&name),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn filters_that_let_something_through_are_taken() {
        for filter in [
            "info",
            "INFO",
            "3",
            "off",
            "",
            "warn,ringway::shard=debug",
            "ringway",
            "ringway::sidecar::mesh=trace",
            "info,async_nats=debug",
            "ringway[a{b=1}]=debug",
            "tower::buffer=warn,error",
        ] {
            assert_eq!(problem(filter), None, "{filter}");
        }
    }

    #[test]
    fn a_word_that_nobody_logs_under_is_answered_with_the_nearest() {
        for (filter, word, near) in [
            ("inof", "inof", "\"info\""),
            ("Infos", "Infos", "\"info\""),
            ("wran", "wran", "\"warn\""),
            ("debgu,ringway=info", "debgu", "\"debug\""),
            ("rinway=debug", "rinway", "\"ringway\""),
            ("info,ringway::shrad=debug", "ringway::shrad", "\"ringway::shard\""),
            ("ringway::mchine", "ringway::mchine", "\"ringway::machine\""),
            ("async_nat=off", "async_nat", "\"async_nats\""),
        ] {
            let (problem, advice) = problem(filter).expect(filter);
            assert!(problem.contains(&format!("{word:?}")), "{filter}: {problem}");
            assert!(advice.contains(near), "{filter}: {advice}");
        }
        assert!(problem("ringway=loud").expect("no level").0.contains("not a log filter"));
    }

    #[test]
    fn the_known_targets_are_those_of_the_build() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let read = |file| std::fs::read_to_string(root.join(file)).expect("it is there");
        let lock = read("Cargo.lock");
        let packages =
            lock.split("[[package]]").filter(|package| package.contains("\n \"tracing\""));
        let name = |package: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix("name = \""));
            line.expect("every package has one").trim_end_matches('"').replace('-', "_")
        };
        // The first is not compiled, the second is what writes the log.
        let silent = |name: &String| !["loom", "tracing_subscriber"].contains(&&**name);
        let logging: BTreeSet<String> = packages.map(name).filter(silent).collect();
        assert_eq!(logging, CRATES.iter().map(|name| (*name).to_owned()).collect());
        let lib = read("src/lib.rs");
        let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod "));
        let modules: BTreeSet<_> = modules.map(|module| module.trim_end_matches(';')).collect();
        assert_eq!(modules, BTreeSet::from(MODULES));
    }
}
