//! Texts out of templates.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::found::Found;
use super::run::Run;
use crate::protocols::connmix::config::server::{Assigned, Filter, Piece, Reference, Template};
use crate::wire::json::{Index, ValueKind, push_string};

/// How references are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    /// Percent-encoded, for a part of a URL.
    Url,
}

impl Run<'_> {
    /// Appends the text. `None`: something that it refers to is not there; what was appended is of
    /// no use.
    pub(super) fn render(&self, template: &Template, style: Style, out: &mut String) -> Option<()> {
        for piece in &template.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Reference(reference) => {
                    append(self.find(&reference.source)?, &reference.filters, style, out)?;
                }
            }
        }
        Some(())
    }

    /// The text.
    pub(super) fn rendered(&self, template: &Template) -> Option<String> {
        let mut text = String::new();
        self.render(template, Style::Plain, &mut text)?;
        Some(text)
    }

    /// Calls `f` with each text of the template: one, or one for each element of the array with
    /// `[*]`. `None`: something that it refers to is not there; `f` may have been called before.
    pub(super) fn each(&self, template: &Template, mut f: impl FnMut(String)) -> Option<()> {
        let Some(array) = template.each() else {
            f(self.rendered(template)?);
            return Some(());
        };
        let found = self.find(&array.source)?;
        let Found::Json(raw) = found else { return None };
        let mut index = Index::default();
        let array = index.read(raw.as_bytes()).filter(|array| array.kind() == ValueKind::Array)?;
        for element in array.elements() {
            let named = matches!(element.kind(), ValueKind::String | ValueKind::Number);
            let element = named.then(|| Found::Json(element.text().into()))?;
            let mut text = String::new();
            for piece in &template.pieces {
                match piece {
                    Piece::Text(plain) => text.push_str(plain),
                    Piece::Reference(Reference { source, each, filters }) => {
                        let found = if *each { element.clone() } else { self.find(source)? };
                        append(found, filters, Style::Plain, &mut text)?;
                    }
                }
            }
            f(text);
        }
        Some(())
    }

    /// Appends a value as JSON. `None`: something that it refers to is not there.
    pub(super) fn push_assigned(&self, assigned: &Assigned, out: &mut String) -> Option<()> {
        match assigned {
            Assigned::Fixed(json) => out.push_str(json),
            Assigned::Copy(source) => {
                append(self.find(source)?, &[Filter::Json], Style::Plain, out)?;
            }
            Assigned::Text(template) => push_string(out, &self.rendered(template)?),
        }
        Some(())
    }
}

fn append(found: Found<'_>, filters: &[Filter], style: Style, out: &mut String) -> Option<()> {
    let mut found = found;
    for filter in filters {
        found = match filter {
            Filter::Part { separator, index } => {
                let text = found.text()?;
                Found::Text(text.split(&**separator).nth(*index)?.to_owned().into())
            }
            Filter::Base64 => match found {
                Found::Bytes(bytes) => Found::Text(STANDARD.encode(bytes).into()),
                found => Found::Text(STANDARD.encode(found.text()?.as_bytes()).into()),
            },
            Filter::Json => match found {
                Found::Json(raw) => Found::Text(raw),
                found => {
                    let mut quoted = String::new();
                    push_string(&mut quoted, &found.text()?);
                    Found::Text(quoted.into())
                }
            },
        };
    }
    let text = found.text()?;
    match style {
        Style::Plain => out.push_str(&text),
        Style::Url => percent_encode(&text, out),
    }
    Some(())
}

/// RFC 3986: everything but unreserved characters.
fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}
