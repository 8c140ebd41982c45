//! One `[[connmix.server.rule]]`: its event, its conditions, its actions, and what cannot work
//! together.

use toml::Value;

use super::action::{actions, at};
use super::model::*;
use super::template::source;
use super::{Bounds, most};
use crate::config::choice::Choice;
use crate::config::error::{Complaint, ConfigError};
use crate::config::model::MessageType;
use crate::config::settings::Settings;

/// Reads the rule at `path`.
pub(super) fn rule(settings: &Settings, path: &str, bounds: &Bounds) -> Result<Rule, ConfigError> {
    let key = |name: &str| format!("{path}.{name}");
    let on = settings.choice(&key("on"))?;
    let kind = match settings.choice(&key("type"))? {
        RuleType::Text => Some(MessageType::Text),
        RuleType::Binary => Some(MessageType::Binary),
        RuleType::Any => None,
    };
    let fail = |name: &str, complaint| named(settings, path, name, on, complaint);
    if on != On::Message && settings.is_set(&key("type")) {
        let complaint = Complaint::new("`type` is about messages, and this event has none");
        return Err(fail("type", complaint.advise("Remove it")));
    }
    let list = |name: &str| match settings.free(&key(name)) {
        Some(value) => {
            actions(name, value, bounds).map(Some).map_err(|complaint| fail(name, complaint))
        }
        None => Ok(None),
    };
    let Some(done) = list("do")? else {
        let complaint = Complaint::new("`do` is missing").allowed("a list of actions");
        return Err(fail(
            "do",
            complaint.advise("Write do = [] for a rule that only ends the list"),
        ));
    };
    let conditions = match settings.free(&key("when")) {
        Some(value) => conditions(value, bounds).map_err(|complaint| fail("when", complaint))?,
        None => Vec::new(),
    };
    let about_context = |condition: &Condition| matches!(condition.source, Source::Context(_));
    let (when_context, when) = conditions.into_iter().partition(about_context);
    let mut rule = Rule {
        on,
        kind,
        when,
        when_context,
        actions: done,
        otherwise: list("else")?,
        continues: settings.flag(&key("continue"))?,
        uses: Uses::default(),
    };
    if rule.otherwise.is_some() && rule.when_context.is_empty() {
        let complaint =
            Complaint::new("`else` can never happen: no condition is about the context")
                .allowed("`else` with at least one ctx.<key> in `when`")
                .advise("Write another rule after this one instead");
        return Err(fail("else", complaint));
    }
    rule.uses = check(&rule).map_err(|(name, complaint)| fail(name, complaint))?;
    Ok(rule)
}

/// An error that names the rule: `connmix.server.0.rule.3 (on = message)`.
pub(super) fn named(
    settings: &Settings,
    path: &str,
    name: &str,
    on: On,
    complaint: Complaint,
) -> ConfigError {
    let error = settings.error(&format!("{path}.{name}"), complaint);
    let line =
        error.line.or_else(|| settings.error(&format!("{path}.on"), Complaint::default()).line);
    let key = format!("{path} (on = {})", on.word());
    ConfigError { key: key.into(), line, ..error }
}

fn conditions(value: &Value, bounds: &Bounds) -> Result<Vec<Condition>, Complaint> {
    let Some(table) = value.as_table() else {
        let complaint = Complaint::new("`when` is not a table");
        return Err(complaint.allowed("{ \"json.op\" = \"join\", \"ctx.uid\" = \"exists\" }"));
    };
    let mut conditions = Vec::new();
    flatten("", table, bounds, &mut conditions)?;
    let patterns = conditions.iter().filter(|condition| matches!(condition.test, Test::Matches(_)));
    let captures = patterns.filter(|condition| groups(condition) > 1).count();
    if captures > 1 {
        let complaint = Complaint::new("`when` has groups in more than one regular expression");
        return Err(complaint.advise("Write (?:...) for groups that no m.<number> needs"));
    }
    Ok(conditions)
}

/// TOML reads `json.op = 1` in an inline table as a table in a table; both spellings are the same.
fn flatten(
    prefix: &str,
    table: &toml::Table,
    bounds: &Bounds,
    conditions: &mut Vec<Condition>,
) -> Result<(), Complaint> {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if let Value::Table(inner) = value {
            flatten(&name, inner, bounds, conditions)?;
            continue;
        }
        let wrong = |complaint| at(&format!("`when`, {name:?}"), complaint);
        let source = source(&name).map_err(wrong)?;
        if let Source::Capture(_) = source {
            let complaint = Complaint::new("a capture is known only after all conditions");
            return Err(wrong(complaint));
        }
        conditions.push(Condition { source, test: test(value, bounds).map_err(wrong)? });
    }
    Ok(())
}

fn test(value: &Value, bounds: &Bounds) -> Result<Test, Complaint> {
    Ok(match value {
        Value::String(text) => match text.as_str() {
            "exists" => Test::Exists,
            "missing" => Test::Missing,
            text => match text.strip_prefix("re:") {
                Some(pattern) => Test::Matches(pattern_of(pattern, bounds)?),
                None => Test::Is(Literal::Text(text.into())),
            },
        },
        Value::Integer(number) => Test::Is(Literal::Integer(*number)),
        Value::Float(number) => Test::Is(Literal::Float(*number)),
        Value::Boolean(flag) => Test::Is(Literal::Flag(*flag)),
        Value::Array(list) if list.is_empty() => {
            return Err(Complaint::new("there are no alternatives").advise("Write one at least"));
        }
        Value::Array(list) if list.len() > bounds.alternatives_max => {
            let complaint = Complaint::new(format!("there are {} alternatives", list.len()));
            return Err(most(complaint, bounds.alternatives_max, "alternatives_max"));
        }
        Value::Array(list) => {
            let tests =
                list.iter().map(|value| test(value, bounds)).collect::<Result<Vec<_>, _>>()?;
            if tests.iter().any(|test| matches!(test, Test::Any(_))) {
                return Err(Complaint::new("a list in a list").advise("Write one list"));
            }
            Test::Any(tests)
        }
        Value::Datetime(_) | Value::Table(_) => {
            let complaint =
                Complaint::new(format!("{value} is nothing that a value can be held to"));
            return Err(complaint.allowed(
                "text, number, true, false, \"exists\", \"missing\", \"re:<regular expression>\", \
                 or a list of these",
            ));
        }
    })
}

fn pattern_of(pattern: &str, bounds: &Bounds) -> Result<Pattern, Complaint> {
    let built = regex::RegexBuilder::new(pattern).size_limit(bounds.pattern_bytes_max).build();
    built.map(Pattern).map_err(|error| match error {
        regex::Error::CompiledTooBig(max) => {
            let complaint = Complaint::new("the regular expression is too large when compiled");
            most(complaint, format!("{max} bytes"), "pattern_bytes_max")
        }
        error => {
            let last = error.to_string();
            let last = last.lines().last().unwrap_or_default().trim().to_owned();
            Complaint::new(format!("{pattern:?} is not a regular expression: {last}")).allowed(
                "the syntax of https://docs.rs/regex, without look-around and back-references",
            )
        }
    })
}

/// Groups of the condition's expression, the whole match included; 0 without one.
fn groups(condition: &Condition) -> usize {
    match &condition.test {
        Test::Matches(pattern) => pattern.0.captures_len(),
        _ => 0,
    }
}

/// The condition whose expression gives the captures.
pub(super) fn capturing(rule: &Rule) -> Option<&Condition> {
    let all = || rule.when.iter().chain(&rule.when_context);
    let most = all().map(groups).max().filter(|groups| *groups > 0)?;
    all().find(|condition| groups(condition) == most)
}

/// What the rule looks at; an error if it looks at what cannot be there, or does what cannot be
/// done.
fn check(rule: &Rule) -> Result<Uses, (&'static str, Complaint)> {
    let mut uses = Uses { context: !rule.when_context.is_empty(), ..Uses::default() };
    for condition in rule.when.iter().chain(&rule.when_context) {
        uses = uses.and(used(rule, &condition.source).map_err(|complaint| ("when", complaint))?);
    }
    let lists = [("do", Some(&rule.actions)), ("else", rule.otherwise.as_ref())];
    for (name, list) in lists {
        for action in list.into_iter().flatten() {
            let part = check_action(rule, action);
            uses = uses.and(part.map_err(|complaint| (name, at(action.name(), complaint)))?);
        }
    }
    Ok(uses)
}

fn check_action(rule: &Rule, action: &Action) -> Result<Uses, Complaint> {
    let ended = rule.on == On::Close && !matches!(action, Action::Push(_) | Action::Publish { .. });
    if ended {
        let complaint = Complaint::new("the connection has ended");
        return Err(complaint.allowed("push and publish in rules with on = \"close\""));
    }
    let mut uses = Uses::default();
    for source in sources(action) {
        uses = uses.and(used(rule, source)?);
    }
    match action {
        Action::Push(push) => {
            for (_, member) in &push.members {
                match member {
                    Member::Frame if rule.on != On::Message => {
                        let complaint = Complaint::new("include: there is no frame");
                        return Err(complaint.allowed("frame in rules with on = \"message\""));
                    }
                    Member::Headers | Member::Query => uses.head = true,
                    Member::Context(_) => uses.context = true,
                    _ => {}
                }
            }
        }
        Action::Set(_) | Action::Unset(_) | Action::Wait { .. } => uses.context = true,
        Action::Http(http) => {
            uses.context = true;
            for inner in &http.on_error {
                if matches!(inner, Action::Http(_) | Action::Wait { .. }) {
                    let complaint = Complaint::new(format!("on_error: {} here", inner.name()));
                    return Err(complaint.advise("Let on_error only tell and close"));
                }
                uses = uses.and(check_action(rule, inner).map_err(|c| at("on_error", c))?);
            }
        }
        _ => {}
    }
    Ok(uses)
}

/// What a source needs; an error if the rule's event has nothing of the kind.
fn used(rule: &Rule, source: &Source) -> Result<Uses, Complaint> {
    let message = |what: &str| match rule.on {
        On::Message => Ok(()),
        _ => Err(Complaint::new(format!("{what}: there is no message"))
            .allowed("data and json in rules with on = \"message\"")),
    };
    let mut uses = Uses::default();
    match source {
        Source::Data => message("data")?,
        Source::Json(_) => {
            message("json")?;
            uses.json = true;
        }
        Source::Context(_) => uses.context = true,
        Source::Header(_) | Source::Query(_) | Source::Path => uses.head = true,
        Source::Capture(number) => {
            let groups = capturing(rule).map_or(0, groups);
            if *number >= groups {
                let allowed = match groups {
                    0 => "m.<number> with a \"re:\" in `when`".to_owned(),
                    _ => format!("m.0 to m.{}", groups - 1),
                };
                let complaint = Complaint::new(format!("there is no group m.{number}"));
                return Err(complaint.allowed(allowed));
            }
            uses.captures = true;
        }
        Source::ClientId | Source::NodeId | Source::RemoteAddr => {}
    }
    Ok(uses)
}

/// Everything that an action refers to, apart from what is in its `on_error`.
pub(super) fn sources(action: &Action) -> Vec<&Source> {
    let mut found = Vec::new();
    match action {
        Action::Subscribe(list) | Action::Unsubscribe(list) => {
            list.iter().for_each(|template| referred(template, &mut found));
        }
        Action::Send(content) => in_content(content, &mut found),
        Action::Publish { channel, content } => {
            referred(channel, &mut found);
            in_content(content, &mut found);
        }
        Action::Push(push) => {
            referred(&push.topic, &mut found);
            for (_, member) in &push.members {
                if let Member::Made(assigned) = member {
                    in_assigned(assigned, &mut found);
                }
            }
        }
        Action::Set(list) => list.iter().for_each(|(_, value)| in_assigned(value, &mut found)),
        Action::User(template) => referred(template, &mut found),
        Action::Http(http) => {
            referred(&http.url, &mut found);
            referred(&http.body, &mut found);
        }
        Action::Unset(_) | Action::Wait { .. } | Action::Close(_) => {}
    }
    found
}

fn referred<'a>(template: &'a Template, found: &mut Vec<&'a Source>) {
    found.extend(template.references().map(|reference| &reference.source));
}

fn in_content<'a>(content: &'a Content, found: &mut Vec<&'a Source>) {
    match content {
        Content::Fixed(..) => {}
        Content::Text(template) | Content::Binary(template) => referred(template, found),
    }
}

/// What a stored value refers to.
fn in_assigned<'a>(assigned: &'a Assigned, found: &mut Vec<&'a Source>) {
    match assigned {
        Assigned::Fixed(_) => {}
        Assigned::Copy(source) => found.push(source),
        Assigned::Text(template) => referred(template, found),
    }
}
