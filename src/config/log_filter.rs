//! The key `log.filter`: a filter that lets nothing through by a slip of the pen is refused.
//!
//! To the filter's library every word that is no level is a target, and a target that nobody logs
//! under switches everything off: with `inof` in the place of `info` the log stays empty.

use tracing_subscriber::EnvFilter;

use super::error::{Complaint, ConfigError};
use super::settings::Settings;
use super::tables::distance;
use crate::log::target;

const KEY: &str = "log.filter";
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// The crate whose targets are in the table [`target`].
const OWN: &str = "ringway";
/// Libraries that log; their targets are the paths of their modules.
const LIBRARIES: [&str; 6] = ["async_nats", "glommio", "h2", "hyper_util", "tonic", "tower"];

/// Reads the filter.
pub(crate) fn read(settings: &Settings) -> Result<String, ConfigError> {
    let filter = settings.text(KEY)?;
    match problem(&filter) {
        None => Ok(filter),
        Some((problem, advice)) => {
            let complaint = Complaint::new(problem).allowed(settings.allowed(KEY)).advise(advice);
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
        let words = all.iter().chain([&OWN]).chain(target::ALL).chain(&LIBRARIES);
        let near = words.min_by_key(|known| distance(&word.to_lowercase(), known));
        let kind = if is_target { "target" } else { "level or target" };
        return Some((
            format!("there is no {kind} {word:?}"),
            format!("The nearest is {:?}", near.copied().unwrap_or_default()),
        ));
    }
    None
}

fn is_level(word: &str) -> bool {
    LEVELS.contains(&&*word.to_lowercase()) || matches!(word, "0" | "1" | "2" | "3" | "4" | "5")
}

fn is_known_target(word: &str) -> bool {
    let name = word.split("::").next().unwrap_or_default();
    word == OWN || target::ALL.contains(&word) || LIBRARIES.contains(&name)
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
            "ringway::mesh=trace",
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
            ("ringway::mash", "ringway::mash", "\"ringway::mesh\""),
            ("ringway::shard::ring=info", "ringway::shard::ring", "\"ringway::shard\""),
            ("async_nat=off", "async_nat", "\"async_nats\""),
        ] {
            let (problem, advice) = problem(filter).expect(filter);
            assert!(problem.contains(&format!("{word:?}")), "{filter}: {problem}");
            assert!(advice.contains(near), "{filter}: {advice}");
        }
        assert!(problem("ringway=loud").expect("no level").0.contains("not a log filter"));
    }

    #[test]
    fn the_known_libraries_are_those_of_the_build() {
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
        let mut logging: BTreeSet<String> = packages.map(name).filter(silent).collect();
        assert!(logging.remove(OWN));
        assert_eq!(logging, LIBRARIES.iter().map(|name| (*name).to_owned()).collect());
    }

    #[test]
    fn the_readme_lists_the_targets() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let readme = std::fs::read_to_string(root.join("README.md")).expect("it is there");
        for target in target::ALL {
            let row = format!("\n| `{target}` | ");
            assert!(readme.contains(&row), "{target} has no row in the README");
            assert!(target.starts_with(OWN), "{target}");
        }
    }
}
