//! What a reference finds, and whether a condition holds.

use std::borrow::Cow;

use super::run::Run;
use crate::protocols::connmix::config::server::{
    Condition, Literal, Pattern, Place, Source, Step, Test,
};
use crate::wire::json::{self, Index, ValueKind};

/// A value. There is no null: it counts as missing.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found<'s> {
    /// The text of a JSON value.
    Json(Cow<'s, str>),
    Text(Cow<'s, str>),
    /// A message that is not UTF-8.
    Bytes(&'s [u8]),
}

impl<'s> Found<'s> {
    /// As it stands in a text; `None` of bytes.
    pub fn text(self) -> Option<Cow<'s, str>> {
        match self {
            Found::Json(Cow::Borrowed(raw)) => json::shown(raw),
            // Only objects are made.
            Found::Json(text) | Found::Text(text) => Some(text),
            Found::Bytes(_) => None,
        }
    }
}

impl Run<'_> {
    /// The value of a source; `None` if there is none.
    pub(super) fn find(&self, source: &Source) -> Option<Found<'_>> {
        let subject = &self.subject;
        Some(match source {
            Source::ClientId => Found::Text(subject.client_id.to_string().into()),
            Source::NodeId => Found::Text(subject.node.to_string().into()),
            Source::RemoteAddr => Found::Text(subject.peer.to_string().into()),
            Source::Path => Found::Text(Cow::Borrowed(&subject.head?.path)),
            Source::Data => match self.text {
                Some(text) => Found::Text(Cow::Borrowed(text)),
                None => Found::Bytes(self.data?),
            },
            Source::Json(steps) => {
                let value = walk(self.json()?, steps)?;
                return (!value.is_null()).then(|| Found::Json(value.text().into()));
            }
            Source::Context(place) => {
                return self.find_in_context(place);
            }
            Source::Header(name) => Found::Text(subject.head?.header(name)?),
            Source::Query(name) => Found::Text(subject.head?.query(name)?.into()),
            Source::Capture(number) => {
                Found::Text(Cow::Borrowed(self.captures.get(*number)?.as_deref()?))
            }
        })
    }

    fn find_in_context(&self, place: &Place) -> Option<Found<'_>> {
        if place.key.is_empty() {
            let known = !self.context.is_empty();
            return known.then(|| Found::Json(self.context.to_json().into()));
        }
        let value = self.context.get(&place.key)?;
        let value = inside(value, &place.path)?;
        (value != "null").then_some(Found::Json(value.into()))
    }

    /// Whether a condition holds.
    pub(super) fn holds(&self, condition: &Condition) -> bool {
        let found = self.find(&condition.source);
        fits(found.as_ref(), &condition.test)
    }

    /// The groups of an expression in what a source finds.
    pub(super) fn captured(&self, source: &Source, pattern: &Pattern) -> Vec<Option<Box<str>>> {
        let text = self.find(source).and_then(Found::text).unwrap_or_default();
        let groups = pattern.0.captures(&text);
        let group = |group: Option<regex::Match<'_>>| group.map(|group| group.as_str().into());
        groups.map(|groups| groups.iter().map(group).collect()).unwrap_or_default()
    }
}

fn fits(found: Option<&Found<'_>>, test: &Test) -> bool {
    match (test, found) {
        (Test::Exists, found) => found.is_some(),
        (Test::Missing, found) => found.is_none(),
        (Test::Any(tests), found) => tests.iter().any(|test| fits(found, test)),
        (_, None) => false,
        (Test::Is(literal), Some(found)) => equals(found, literal),
        (Test::Matches(pattern), Some(found)) => {
            found.clone().text().is_some_and(|text| pattern.0.is_match(&text))
        }
    }
}

/// JSON equality. Values that come from texts are strings.
fn equals(found: &Found<'_>, literal: &Literal) -> bool {
    match (found, literal) {
        (Found::Text(text), Literal::Text(literal)) => **text == **literal,
        (Found::Json(raw), Literal::Text(literal)) => {
            raw.starts_with('"') && json::shown(raw).is_some_and(|text| *text == **literal)
        }
        (Found::Json(raw), Literal::Integer(number)) => match raw.parse::<i64>() {
            Ok(value) => value == *number,
            Err(_) => is_number(raw) && raw.parse() == Ok(*number as f64),
        },
        (Found::Json(raw), Literal::Float(number)) => is_number(raw) && raw.parse() == Ok(*number),
        (Found::Json(raw), Literal::Flag(flag)) => raw == if *flag { "true" } else { "false" },
        _ => false,
    }
}

fn is_number(raw: &str) -> bool {
    raw.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// Follows a path.
pub(super) fn walk<'a>(root: json::Value<'a>, steps: &[Step]) -> Option<json::Value<'a>> {
    steps.iter().try_fold(root, |value, step| match (value.kind(), step.index) {
        (ValueKind::Array, Some(index)) => value.element(index),
        _ => value.get(&step.name),
    })
}

/// The text of the value at a path in the text of a value.
pub(super) fn inside<'t>(raw: &'t str, steps: &[Step]) -> Option<&'t str> {
    if steps.is_empty() {
        return Some(raw);
    }
    let mut index = Index::default();
    let range = walk(index.read(raw.as_bytes())?, steps)?.range();
    raw.get(range)
}
