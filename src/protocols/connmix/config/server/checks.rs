//! What clients may choose: channels and queues whose name comes from a client.
//!
//! A name that a rule makes is safe if it begins with a constant, or if everything in it that a
//! client can choose is held to a constant or to a regular expression by the same rule. An
//! expression that lets every name through ([`leaves_any`]) holds to nothing; of a capture or a
//! part the same is asked of what can stand there. Context values that some rule copies from the
//! client count as chosen by the client; those that backends set do not.

use super::model::*;
use super::reach::{group_leaves_any, leaves_any};
use super::rule::{capturing, named};
use crate::config::error::{Complaint, ConfigError};
use crate::config::settings::Settings;

/// Refuses a rule that lets its client name any channel or queue.
pub(super) fn channels(
    settings: &Settings,
    path: &str,
    server: &ConnmixServer,
) -> Result<(), ConfigError> {
    let copied = copied(server);
    for (index, rule) in server.rules.iter().enumerate() {
        for (list, action) in actions(rule) {
            for template in names(action) {
                let Some(free) = free(rule, list, template, &copied) else { continue };
                let complaint = Complaint::new(format!(
                    "{list}: {}: a client could choose any name with ${{{free}}}",
                    action.name()
                ));
                let complaint = complaint
                    .allowed("a name that begins with a constant, e.g. \"room:${json.room}\"")
                    .advise(format!(
                        "Begin the name with a constant, or hold {free} to constants in `when`, or \
                         to a \"re:\" that does not let everything through, or set \
                         allow_any_channel = true for this server"
                    ));
                let path = format!("{path}.rule.{index}");
                return Err(named(settings, &path, list, rule.on, complaint));
            }
        }
    }
    Ok(())
}

/// Every action of the rule and the list that it is in.
fn actions<'a>(rule: &'a Rule) -> impl Iterator<Item = (&'static str, &'a Action)> {
    let done = rule.actions.iter().map(|action| ("do", action));
    let otherwise = rule.otherwise.iter().flatten().map(|action| ("else", action));
    let inner = |(list, action): (&'static str, &'a Action)| {
        let after: &[Action] = match action {
            Action::Http(http) => &http.on_error,
            _ => &[],
        };
        std::iter::once((list, action)).chain(after.iter().map(move |action| (list, action)))
    };
    done.chain(otherwise).flat_map(inner)
}

/// The names of channels and queues that an action uses.
fn names(action: &Action) -> &[Template] {
    match action {
        Action::Subscribe(list) => list,
        Action::Publish { channel, .. } => std::slice::from_ref(channel),
        Action::Push(push) => std::slice::from_ref(&push.topic),
        _ => &[],
    }
}

/// Context keys that hold what a client has said.
fn copied(server: &ConnmixServer) -> Vec<&str> {
    let mut keys: Vec<&str> = Vec::new();
    // A key may be copied from a key: go round until nothing is added.
    loop {
        let before = keys.len();
        for rule in &server.rules {
            for (list, action) in actions(rule) {
                let Action::Set(values) = action else { continue };
                for (key, value) in values {
                    let free = match value {
                        Assigned::Fixed(_) => false,
                        Assigned::Copy(source) => is_free(rule, list, source, &[], &keys),
                        Assigned::Text(template) => template.references().any(|reference| {
                            is_free(rule, list, &reference.source, &reference.filters, &keys)
                        }),
                    };
                    if free && !keys.contains(&&**key) {
                        keys.push(key);
                    }
                }
            }
        }
        if keys.len() == before {
            return keys;
        }
    }
}

/// What of the name a client can choose freely.
fn free(rule: &Rule, list: &str, template: &Template, copied: &[&str]) -> Option<String> {
    if !template.prefix().is_empty() {
        return None;
    }
    let mut references = template.references();
    let free = references.find(|reference| {
        reference.each && !matches!(reference.source, Source::Context(_))
            || is_free(rule, list, &reference.source, &reference.filters, copied)
    });
    free.map(|reference| shown(&reference.source))
}

/// Whether a client can choose freely what a reference gives.
fn is_free(rule: &Rule, list: &str, source: &Source, filters: &[Filter], copied: &[&str]) -> bool {
    if let Source::Capture(number) = source {
        let Some(Condition { source, test: Test::Matches(pattern) }) = capturing(rule) else {
            return false;
        };
        let pattern = pattern.0.as_str();
        return is_of_client(source, copied) && group_leaves_any(pattern, *number, filters);
    }
    let held =
        |condition: &Condition| condition.source == *source && holds(&condition.test, filters);
    // In `else` the conditions about the context do not hold.
    let in_context = rule.when_context.iter().filter(|_| list != "else");
    is_of_client(source, copied) && !rule.when.iter().chain(in_context).any(held)
}

/// Whether a value comes from the client.
fn is_of_client(source: &Source, copied: &[&str]) -> bool {
    match source {
        Source::Data | Source::Json(_) | Source::Header(_) | Source::Query(_) => true,
        Source::Context(place) if place.key.is_empty() => !copied.is_empty(),
        Source::Context(place) => copied.contains(&&*place.key),
        Source::ClientId
        | Source::NodeId
        | Source::RemoteAddr
        | Source::Path
        | Source::Capture(_) => false,
    }
}

/// Whether a test lets through only what the operator has thought of.
fn holds(test: &Test, filters: &[Filter]) -> bool {
    match test {
        Test::Is(_) => true,
        Test::Matches(pattern) => !leaves_any(pattern.0.as_str(), filters),
        Test::Any(tests) => tests.iter().all(|test| holds(test, filters)),
        Test::Exists | Test::Missing => false,
    }
}

fn shown(source: &Source) -> String {
    let path = |root: &str, steps: &[Step]| {
        steps.iter().fold(root.to_owned(), |path, step| format!("{path}.{}", step.name))
    };
    match source {
        Source::Data => "data".to_owned(),
        Source::Json(steps) => path("json", steps),
        Source::Context(place) if place.key.is_empty() => "ctx".to_owned(),
        Source::Context(place) => {
            path(&format!("ctx.{}", place.key.trim_matches('"')), &place.path)
        }
        Source::Header(name) => format!("header.{name}"),
        Source::Query(name) => format!("query.{name}"),
        Source::ClientId => "client_id".to_owned(),
        Source::NodeId => "node_id".to_owned(),
        Source::RemoteAddr => "remote_addr".to_owned(),
        Source::Path => "path".to_owned(),
        Source::Capture(number) => format!("m.{number}"),
    }
}
