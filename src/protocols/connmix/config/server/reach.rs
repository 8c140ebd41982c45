//! What a regular expression leaves to a client: whether it lets through every name of some length,
//! and so holds the client to nothing but that length.
//!
//! The expression is walked as an automaton, with every printable ASCII character at each step: the
//! states after n characters tell what becomes of all names of n characters together. Names longer
//! than [`LENGTH_MAX`] are not looked at. What can not be found out within [`STEPS_MAX`] counts as
//! holding to nothing.

use std::collections::BTreeSet;

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, Config, DFA};
use regex_automata::nfa::thompson::Compiler;
use regex_automata::{Anchored, Input, MatchKind};
use regex_syntax::hir::{Hir, HirKind, Look};

use super::model::Filter;

/// Longest names that are tried.
const LENGTH_MAX: usize = 64;
/// Steps of the automaton for one expression.
const STEPS_MAX: usize = 1 << 20;
/// The characters of names that are tried.
const NAMES: std::ops::RangeInclusive<u8> = 0x21..=0x7e;
/// Those of the values around them.
const VALUES: std::ops::RangeInclusive<u8> = 0x20..=0x7e;
/// Bytes for the states of one automaton.
const CACHE_BYTES: usize = 8 << 20;

/// Whether a value that matches leaves a client every name of some length, after these filters.
pub(super) fn leaves_any(pattern: &str, filters: &[Filter]) -> bool {
    let Ok(hir) = regex_syntax::parse(pattern) else { return true };
    left(&hir, filters).unwrap_or(true)
}

/// The same of what a group has captured; 0 is the whole match.
pub(super) fn group_leaves_any(pattern: &str, number: usize, filters: &[Filter]) -> bool {
    let Ok(hir) = regex_syntax::parse(pattern) else { return true };
    let group = match number {
        0 => Some(hir),
        _ => group(&hir, number).cloned(),
    };
    let Some(group) = group else { return true };
    let ends = [Hir::look(Look::Start), group, Hir::look(Look::End)];
    left(&Hir::concat(ends.to_vec()), filters).unwrap_or(true)
}

fn group(hir: &Hir, number: usize) -> Option<&Hir> {
    match hir.kind() {
        HirKind::Capture(capture) if capture.index as usize == number => Some(&capture.sub),
        HirKind::Capture(capture) => group(&capture.sub, number),
        HirKind::Repetition(repetition) => group(&repetition.sub, number),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().find_map(|part| group(part, number))
        }
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => None,
    }
}

/// `None`: it is not known.
fn left(hir: &Hir, filters: &[Filter]) -> Option<bool> {
    let mut parts = filters.iter().filter_map(|filter| match filter {
        Filter::Part { separator, index } => Some((separator.as_bytes(), *index)),
        Filter::Json | Filter::Base64 => None,
    });
    match (parts.next(), parts.next()) {
        (None, _) => Walk::new(hir)?.leaves_any(0, None),
        (Some((&[separator], index)), None) => Walk::new(hir)?.leaves_any(index, Some(separator)),
        // Longer separators, and parts of parts, would need states of their own.
        _ => None,
    }
}

/// Where the automaton may be; `None`: it has matched, whatever follows.
type States = BTreeSet<Option<LazyStateID>>;

struct Walk {
    dfa: DFA,
    cache: Cache,
    steps: usize,
}

impl Walk {
    fn new(hir: &Hir) -> Option<Walk> {
        let nfa = Compiler::new().build_from_hir(hir).ok()?;
        let config = Config::new()
            .match_kind(MatchKind::All)
            .unicode_word_boundary(true)
            .cache_capacity(CACHE_BYTES)
            .minimum_cache_clear_count(Some(0));
        let dfa = DFA::builder().configure(config).build_from_nfa(nfa).ok()?;
        let cache = dfa.create_cache();
        Some(Walk { dfa, cache, steps: 0 })
    }

    /// Whether every name of some length may be the part number `index` between separators; without
    /// a separator, the whole value.
    fn leaves_any(&mut self, index: usize, separator: Option<u8>) -> Option<bool> {
        // The expression says itself where in the value it looks.
        let input = Input::new("").anchored(Anchored::No);
        let start = self.dfa.start_state_forward(&mut self.cache, &input).ok()?;
        let mut begin = States::from([Some(start)]);
        for _ in 0..index {
            let before = self.reachable(begin, separator)?;
            begin = self.stepped(&before, separator?)?;
        }
        let bytes = self.bytes(NAMES, separator);
        // One set of states for each kind of name.
        let mut kinds = BTreeSet::from([begin]);
        for _ in 0..LENGTH_MAX {
            let mut longer = BTreeSet::new();
            for byte in &bytes {
                for states in &kinds {
                    longer.insert(self.stepped(states, *byte)?);
                }
            }
            let mut all = true;
            for states in &longer {
                all = all && self.may_end(states, separator)?;
            }
            if all || longer == kinds {
                return Some(all);
            }
            kinds = longer;
        }
        Some(false)
    }

    /// Whether the value may end here, or go on behind a separator to an end.
    fn may_end(&mut self, states: &States, separator: Option<u8>) -> Option<bool> {
        if self.matches(states)? {
            return Some(true);
        }
        let Some(separator) = separator else { return Some(false) };
        let behind = self.stepped(states, separator)?;
        let behind = self.reachable(behind, None)?;
        self.matches(&behind)
    }

    fn matches(&mut self, states: &States) -> Option<bool> {
        for state in states {
            let Some(state) = state else { return Some(true) };
            if self.dfa.next_eoi_state(&mut self.cache, *state).ok()?.is_match() {
                return Some(true);
            }
        }
        Some(false)
    }

    /// All states that more characters lead to, none of them `without`.
    fn reachable(&mut self, states: States, without: Option<u8>) -> Option<States> {
        let bytes = self.bytes(VALUES, without);
        let (mut all, mut new) = (states.clone(), states);
        while !new.is_empty() {
            let mut next = States::new();
            for byte in &bytes {
                next.extend(self.stepped(&new, *byte)?);
            }
            new = next.difference(&all).copied().collect();
            all.extend(&new);
        }
        Some(all)
    }

    fn stepped(&mut self, states: &States, byte: u8) -> Option<States> {
        let mut next = States::new();
        for state in states {
            let Some(state) = state else {
                next.insert(None);
                continue;
            };
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return None;
            }
            let state = self.dfa.next_state(&mut self.cache, *state, byte).ok()?;
            if !state.is_dead() {
                next.insert((!state.is_match()).then_some(state));
            }
        }
        Some(next)
    }

    /// One byte of each class that the expression tells apart, `without` as if it were not there.
    fn bytes(&self, range: std::ops::RangeInclusive<u8>, without: Option<u8>) -> Vec<u8> {
        let classes = self.dfa.byte_classes();
        let mut seen = BTreeSet::new();
        range.filter(|byte| Some(*byte) != without && seen.insert(classes.get(*byte))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_that_let_every_name_of_a_length_through_are_known() {
        for pattern in [
            "",
            ".*",
            ".+",
            ".",
            "^.*$",
            "^.+$",
            "(?s)^.*$",
            "^",
            "$",
            r"^[\s\S]+$",
            r"\S",
            r"^\S{1,64}$",
            r"^.{8}$",
            r"^.{3,8}$",
            "^[^ ]+$",
            "^[^/].*|/.*$",
            "^[!-~]*$",
            "room|.*",
            "room|",
            "^(a|[^a])+$",
            "x*",
            r"^\w|\W",
            r"\b|^\B",
            "(?i)[a-z]|[^A-Z]",
            r"^.{1,200}\z",
        ] {
            assert!(leaves_any(pattern, &[]), "{pattern}");
        }
    }

    #[test]
    fn expressions_that_hold_to_something_are_left_alone() {
        for pattern in [
            "^room",
            "room",
            "^room:.*$",
            "^[a-z0-9]+$",
            "^[^@ ]+@[^@ ]+$",
            "^[^@ ]*@(balance|order|position|account)$",
            r"^\w+$",
            r"\bnews\b",
            "^[^/]+$",
            "^.*-x$",
            "(?i)^NEWS",
            r"^\d{1,9}$",
            "^$",
            "[^a-z]",
            r"\p{Han}",
            r"^.{65}$",
        ] {
            assert!(!leaves_any(pattern, &[]), "{pattern}");
        }
    }

    #[test]
    fn what_can_not_be_walked_holds_to_nothing() {
        assert!(leaves_any("^(a|b)*a(a|b){40}$", &[]), "too many states");
        assert!(leaves_any("(", &[]), "no expression at all");
    }

    #[test]
    fn groups_are_judged_by_what_they_capture() {
        for (pattern, number, any) in [
            ("^join (.*)$", 1, true),
            ("^join (.*)$", 0, false),
            (r"^join (\S+) (\d+)$", 1, true),
            (r"^join (\S+) (\d+)$", 2, false),
            ("^@(balance|order)$", 1, false),
            ("^(a|(.+))$", 2, true),
            ("(?i)^(news-[a-z]+)$", 1, false),
            (".*", 0, true),
            ("[a-z]+", 0, false),
            ("(x)", 2, true),
        ] {
            assert_eq!(group_leaves_any(pattern, number, &[]), any, "{pattern} {number}");
        }
    }

    #[test]
    fn parts_are_judged_by_what_may_stand_there() {
        let part = |separator: &str, index| Filter::Part { separator: separator.into(), index };
        for (pattern, separator, index, any) in [
            ("^(chat|news)@.*$", "@", 0, false),
            ("^(chat|news)@.*$", "@", 1, true),
            ("^(chat|news)@.*$", "@", 5, true),
            ("^[a-z]+@[a-z]+$", "@", 1, false),
            ("^[a-z]+@[a-z]+$", "@", 2, false),
            ("^[^@]+@depth$", "@", 0, true),
            ("^[^@]+@depth$", "@", 1, false),
            ("^room", ":", 1, true),
            ("^room$", ":", 1, false),
            ("^room$", "::", 0, true),
        ] {
            let filters = [part(separator, index), Filter::Json];
            assert_eq!(leaves_any(pattern, &filters), any, "{pattern} {separator} {index}");
        }
        assert!(leaves_any("^a@b$", &[part("@", 0), part("-", 0)]), "a part of a part");
    }
}
