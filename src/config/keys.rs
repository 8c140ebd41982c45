//! What describes a key that is no plain limit, and what makes such a description.
//!
//! Every key is either a [`Key`] or a row of limits (numbers and durations); a text whose length is
//! limited has both.

use super::choice::Choice;

/// A configuration key that is not a plain number or duration. In keys of lists of tables
/// ([`Section::lists`]) the index is left out.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub key: &'static str,
    pub kind: ValueType,
    /// As it is written in a file; empty if the key has no default.
    pub default: &'static str,
    /// What may be written, where `kind` does not say it.
    pub allowed: &'static str,
    /// In one line.
    pub what: &'static str,
    /// Whether SIGHUP applies a change.
    pub reload: bool,
    /// How much of its value an error may repeat.
    pub shown: Shown,
}

/// How much of a value errors may repeat: they end in logs and tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    All,
    /// URLs, without user, password and query.
    Url,
    /// Nothing: it is a secret, or can have one in it.
    Nothing,
}

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// A whole number within the bounds of its limit.
    Number,
    /// A text like `"5s"` within the bounds of its limit.
    Duration,
    /// A text.
    Text,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// A list of texts.
    Texts,
    /// A list of whole numbers, each within the bounds of the limit.
    Numbers,
    /// Whatever TOML can say; whoever reads the key explains what it must be.
    Free,
}

/// What one area of a configuration has: its keys, and how the reference shows them.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    pub keys: &'static [Key],
    /// Keys whose value is a list of tables. In paths each is followed by the index of an element.
    pub lists: &'static [&'static str],
    /// The tables of the reference: name, title, what is said above it.
    pub titles: &'static [(&'static str, &'static str, &'static str)],
}

pub(crate) const fn text(key: &'static str, default: &'static str, what: &'static str) -> Key {
    Key { key, kind: ValueType::Text, default, allowed: "", what, reload: false, shown: Shown::All }
}

/// A text that errors do not repeat.
pub(crate) const fn secret(key: &'static str, default: &'static str, what: &'static str) -> Key {
    Key { shown: Shown::Nothing, ..text(key, default, what) }
}

/// A URL, of which errors repeat what is no secret.
pub(crate) const fn url(key: &'static str, default: &'static str, what: &'static str) -> Key {
    Key { shown: Shown::Url, ..text(key, default, what) }
}

pub(crate) const fn choice<C: Choice>(
    key: &'static str,
    default: &'static str,
    what: &'static str,
) -> Key {
    Key { kind: ValueType::Choice(C::WORDS), ..text(key, default, what) }
}

pub(crate) const fn flag(key: &'static str, what: &'static str) -> Key {
    Key { kind: ValueType::Flag, ..text(key, "true", what) }
}
