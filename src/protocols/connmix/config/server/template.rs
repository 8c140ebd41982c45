//! Texts with references: `ex:${json.channel|part:@:1}` (connmix section 7.4).
//!
//! `$${` stands for `${` itself. What a reference names is checked here; whether it can be there
//! when it is needed is checked with its rule.

use std::sync::Arc;

use super::model::{Filter, Piece, Place, Reference, Source, Step, Template};
use crate::config::error::Complaint;
use crate::wire::json::quoted;

/// What may stand in `${...}`, in the words of errors.
pub(super) const REFERENCES: &str = "client_id, node_id, remote_addr, path, data, json, \
     json.<path>, ctx, ctx.<key>, header.<name>, query.<name>, m.<number>";
const FILTERS: &str = "|json, |base64, |part:<separator>:<number from 1>";

/// Takes a text apart.
pub(super) fn template(text: &str) -> Result<Template, Complaint> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            plain.push_str(before);
            plain.push_str("${");
            rest = &from[2..];
            continue;
        }
        plain.push_str(before);
        let Some(end) = from.find('}') else {
            // What follows is not part of the reference and may be a secret.
            let name = |c: char| c.is_ascii_alphanumeric() || "${_.|[*]".contains(c);
            let from = &from[..from.find(|c| !name(c)).unwrap_or(from.len())];
            let complaint = Complaint::new(format!("\"{from}\" has no closing brace"));
            return Err(
                complaint.advise("Write ${reference}, and $${ for the characters themselves")
            );
        };
        if !plain.is_empty() {
            pieces.push(Piece::Text(Arc::from(std::mem::take(&mut plain))));
        }
        pieces.push(Piece::Reference(reference(&from[2..end])?));
        rest = &from[end + 1..];
    }
    plain.push_str(rest);
    if !plain.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(Arc::from(plain)));
    }
    let template = Template { pieces };
    if template.references().filter(|reference| reference.each).count() > 1 {
        let complaint = Complaint::new("there is [*] twice in one text");
        return Err(complaint.advise("Expand one array only; write two texts for two arrays"));
    }
    Ok(template)
}

/// What stands between the braces.
fn reference(text: &str) -> Result<Reference, Complaint> {
    let mut parts = text.split('|');
    let name = parts.next().unwrap_or_default();
    let (name, each) = match name.strip_suffix("[*]") {
        Some(name) => (name, true),
        None => (name, false),
    };
    let source = source(name)?;
    if each && !matches!(source, Source::Json(_) | Source::Context(_)) {
        let complaint = Complaint::new(format!("[*] after {name}, which is not an array"));
        return Err(complaint.allowed("[*] after json.<path> and ctx.<key>"));
    }
    let filters: Vec<Filter> = parts.map(filter).collect::<Result<_, _>>()?;
    if filters.iter().rev().skip(1).any(|filter| *filter == Filter::Json) {
        return Err(Complaint::new("a filter after |json").advise("Make |json the last one"));
    }
    Ok(Reference { source, each, filters })
}

/// What a reference or the key of a condition names.
pub(super) fn source(name: &str) -> Result<Source, Complaint> {
    let (root, path) = match name.split_once('.') {
        Some((root, path)) => (root, Some(path)),
        None => (name, None),
    };
    let unknown = || {
        let complaint = Complaint::new(format!("\"{name}\" is not a reference"));
        complaint.allowed(REFERENCES)
    };
    Ok(match (root, path) {
        ("client_id", None) => Source::ClientId,
        ("node_id", None) => Source::NodeId,
        ("remote_addr", None) => Source::RemoteAddr,
        ("path", None) => Source::Path,
        ("data", None) => Source::Data,
        ("json", path) => Source::Json(steps(path).ok_or_else(unknown)?),
        ("ctx", path) => {
            let mut path = steps(path).ok_or_else(unknown)?.into_iter();
            let key = path.next().map(|step| context_key(&step.name)).transpose()?;
            Source::Context(Place { key: key.unwrap_or_default(), path: path.collect() })
        }
        ("header", Some(header)) if !header.is_empty() => Source::Header(header.into()),
        ("query", Some(query)) if !query.is_empty() => Source::Query(query.into()),
        ("m", Some(number)) => Source::Capture(number.parse().map_err(|_| unknown())?),
        _ => return Err(unknown()),
    })
}

/// A key of the context as contexts keep it.
pub(super) fn context_key(name: &str) -> Result<Box<str>, Complaint> {
    if name.is_empty() || name.chars().any(char::is_control) {
        let complaint = Complaint::new(format!("{name:?} is not a key of the context"));
        return Err(complaint.allowed("one character or more, none of them a control character"));
    }
    Ok(quoted(name).into())
}

/// A dotted path. `None`: a part is empty.
fn steps(path: Option<&str>) -> Option<Vec<Step>> {
    let Some(path) = path else { return Some(Vec::new()) };
    let parts = path.split('.');
    parts.map(|part| (!part.is_empty()).then(|| step(part))).collect()
}

/// One part of a path.
pub(super) fn step(part: &str) -> Step {
    // Only one spelling, or `00` would be another name of element 0.
    let index = part.parse::<u32>().ok().filter(|index| index.to_string() == part);
    Step { name: part.into(), index }
}

fn filter(text: &str) -> Result<Filter, Complaint> {
    if let Some(part) = text.strip_prefix("part:") {
        let (separator, number) = part.rsplit_once(':').unwrap_or_default();
        let index = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        if let (Some(index), false) = (index, separator.is_empty()) {
            return Ok(Filter::Part { separator: separator.into(), index });
        }
    }
    match text {
        "json" => Ok(Filter::Json),
        "base64" => Ok(Filter::Base64),
        _ => Err(Complaint::new(format!("\"|{text}\" is not a filter")).allowed(FILTERS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(text: &str) -> String {
        let complaint = template(text).expect_err(text);
        format!("{}; {}; {}", complaint.problem, complaint.allowed, complaint.to_do)
    }

    #[test]
    fn a_template_is_texts_and_references() {
        let found = template("a$${b}${json.x.0[*]|part:::2|json}!").expect("this is well formed");
        let steps = vec![step("x"), step("0")];
        assert_eq!(steps[1].index, Some(0));
        let part = Filter::Part { separator: ":".into(), index: 1 };
        let filters = vec![part, Filter::Json];
        let reference = Reference { source: Source::Json(steps), each: true, filters };
        let expected =
            vec![Piece::Text("a${b}".into()), Piece::Reference(reference), Piece::Text("!".into())];
        assert_eq!(found.pieces, expected);
        assert_eq!(template("").unwrap().constant().map(|text| &**text), Some(""));
        assert_eq!(template("$ {} }").unwrap().constant().map(|text| &**text), Some("$ {} }"));
    }

    #[test]
    fn what_is_not_a_reference_is_refused_with_what_is() {
        for (text, part) in [
            ("${", "no closing brace"),
            ("a ${json", "no closing brace"),
            ("${}", "\"\" is not a reference; client_id, node_id"),
            ("${jsn.a}", "\"jsn.a\" is not a reference"),
            ("${json.}", "\"json.\" is not a reference"),
            ("${json..a}", "\"json..a\" is not a reference"),
            ("${client_id.a}", "is not a reference"),
            ("${header}", "is not a reference"),
            ("${m.x}", "is not a reference"),
            ("${data[*]}", "[*] after data"),
            ("${json.a[*]}${json.b[*]}", "[*] twice"),
            ("${data|upper}", "\"|upper\" is not a filter; |json, |base64, |part"),
            ("${data|part:@:0}", "is not a filter"),
            ("${data|part:@}", "is not a filter"),
            ("${data|part::1}", "is not a filter"),
            ("${data|json|base64}", "last one"),
        ] {
            assert!(complaint(text).contains(part), "{text}: {}", complaint(text));
        }
    }
}
