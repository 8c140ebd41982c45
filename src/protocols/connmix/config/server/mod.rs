//! `[[connmix.server]]`: what connmix clients may do, as rules (connmix section 7.4).
//!
//! A route or TCP listener with protocol "connmix" names its server. Rules are compiled here:
//! templates taken apart, regular expressions built, and everything refused that could only fail
//! later. Errors name the rule and its event.

mod action;
mod checks;
mod model;
mod reach;
mod rule;
mod template;

use std::time::Duration;

pub use self::model::*;

use crate::config::error::{Complaint, ConfigError};
use crate::config::keys::{Key, Section, ValueType, choice, flag, secret, text};
use crate::config::settings::Settings;
use crate::protocols::connmix::limits::CONNMIX_SERVERS_MAX as SERVERS_MAX;

/// What rules are held to when they are read (`[connmix.rules]`).
#[derive(Clone, Copy, Debug)]
struct Bounds {
    rules_max: usize,
    /// Of one list.
    actions_max: usize,
    alternatives_max: usize,
    pattern_bytes_max: usize,
    wait_max: Duration,
    http_timeout_max: Duration,
    http_request_bytes_max: usize,
    http_answer_bytes_max: usize,
}

impl Bounds {
    fn read(settings: &Settings) -> Result<Bounds, ConfigError> {
        let key = |name: &str| format!("connmix.rules.{name}");
        Ok(Bounds {
            rules_max: settings.number(&key("rules_max"))?,
            actions_max: settings.number(&key("actions_max"))?,
            alternatives_max: settings.number(&key("alternatives_max"))?,
            pattern_bytes_max: settings.number(&key("pattern_bytes_max"))?,
            wait_max: settings.duration(&key("wait_max"))?,
            http_timeout_max: settings.duration(&key("http_timeout_max"))?,
            http_request_bytes_max: settings.number(&key("http_request_bytes_max"))?,
            http_answer_bytes_max: settings.number(&key("http_answer_bytes_max"))?,
        })
    }
}

/// The keys that are no plain limits.
const KEYS: &[Key] = &[
    Key {
        allowed: "text that no other server has",
        ..text("connmix.server.name", "", "What `server` of a route or listener says.")
    },
    choice::<ClientFraming>(
        "connmix.server.framing",
        "\"line\"",
        "How messages of TCP clients are told apart. line: texts that end with a line feed; \
         json-line: the same, each a JSON object with `method` and `params`; length: binary \
         messages behind four bytes of length, big-endian; length-text: the same with texts.",
    ),
    choice::<OnPushError>(
        "connmix.server.on_push_error",
        "\"close\"",
        "What becomes of a client whose push fails. close: 1013, with the reason; ignore: the rule \
         goes on.",
    ),
    Key {
        default: "false",
        ..flag("connmix.server.ping", "Send a ping frame after half of `read_timeout` of silence.")
    },
    Key {
        default: "false",
        ..flag(
            "connmix.server.text_ping",
            "Answer the message `ping` by `pong`, before the rules are asked.",
        )
    },
    Key {
        default: "false",
        ..flag(
            "connmix.server.strict",
            "An action that fails closes the connection with 1008, instead of being skipped.",
        )
    },
    Key {
        default: "false",
        ..flag(
            "connmix.server.allow_any_channel",
            "Let rules use channels that a client names without a prefix or a pattern that holds \
             it to something. Then clients can join topics that are meant for others.",
        )
    },
    choice::<On>("connmix.server.rule.on", "", "The event of the rule."),
    choice::<RuleType>("connmix.server.rule.type", "\"any\"", "Messages of this kind only."),
    Key {
        kind: ValueType::Free,
        allowed: "table of conditions, e.g. { \"json.op\" = \"join\", \"ctx.uid\" = \"exists\" }",
        ..secret("connmix.server.rule.when", "", "All of these must hold.")
    },
    Key {
        kind: ValueType::Free,
        allowed: "list of actions, e.g. [ { send = \"hello\" } ]",
        ..secret("connmix.server.rule.do", "", "What happens then, in order.")
    },
    Key {
        kind: ValueType::Free,
        allowed: "list of actions",
        ..secret(
            "connmix.server.rule.else",
            "",
            "What happens if only conditions about the context do not hold.",
        )
    },
    Key {
        default: "false",
        ..flag("connmix.server.rule.continue", "Try the next rules as well after a match.")
    },
];

/// The tables of the reference: name, title, what is said above it.
const TITLES: &[(&str, &str, &str)] = &[
    ("connmix.rules", "`[connmix.rules]`", "What rules may take, all servers alike."),
    (
        "connmix.server",
        "`[[connmix.server]]`",
        "What connmix clients may do. A route or TCP listener with protocol \"connmix\" names one.",
    ),
    (
        "connmix.server.rule",
        "`[[connmix.server.rule]]`",
        "The first rule whose `on`, `type` and `when` fit is run. A message that fits none is \
         dropped and counted.",
    ),
];

/// The section of the tables.
pub(crate) const SECTION: Section =
    Section { keys: KEYS, lists: &["connmix.server", "connmix.server.rule"], titles: TITLES };

/// Reads all of them.
pub(crate) fn read(settings: &Settings) -> Result<Vec<ConnmixServer>, ConfigError> {
    let bounds = Bounds::read(settings)?;
    let count = settings.count("connmix.server");
    if count > SERVERS_MAX {
        let complaint = Complaint::new(format!("there are {count} servers"));
        let complaint = complaint.allowed(format!("at most {SERVERS_MAX}"));
        return Err(settings.error("connmix.server", complaint));
    }
    let mut servers: Vec<ConnmixServer> = Vec::with_capacity(count);
    for index in 0..count {
        let path = format!("connmix.server.{index}");
        let server = server(settings, &path, &bounds)?;
        if servers.iter().any(|other| other.name == server.name) {
            let complaint = Complaint::new("another server has this name already");
            let complaint = complaint.advise("Give each [[connmix.server]] a name of its own");
            return Err(settings.error(&format!("{path}.name"), complaint));
        }
        servers.push(server);
    }
    Ok(servers)
}

/// The number of the server that a route or listener names with the key at `path`.
pub(crate) fn number(
    settings: &Settings,
    path: &str,
    servers: &[ConnmixServer],
) -> Result<u16, ConfigError> {
    let name = settings.text(path)?;
    let found = match (servers, settings.is_set(path)) {
        ([_], false) => Some(0),
        _ => servers.iter().position(|server| server.name == name),
    };
    if let Some(number) = found.and_then(|number| u16::try_from(number).ok()) {
        return Ok(number);
    }
    let names: Vec<String> = servers.iter().map(|server| format!("{:?}", server.name)).collect();
    let complaint = match (names.is_empty(), settings.is_set(path)) {
        (true, _) => Complaint::new("there is no [[connmix.server]]")
            .advise("Add one with a name and rules; ringway.example.toml shows how"),
        (false, true) => {
            Complaint::new("there is no server of this name").allowed(names.join(", "))
        }
        (false, false) => Complaint::new("it is missing, and there are several servers")
            .allowed(names.join(", "))
            .advise("Say which rules these clients follow"),
    };
    Err(settings.error(path, complaint))
}

/// Names a bound of rules, which can be raised.
fn most(complaint: Complaint, max: impl std::fmt::Display, key: &str) -> Complaint {
    complaint.allowed(format!("at most {max}")).advise(format!("Raise connmix.rules.{key}"))
}

fn server(settings: &Settings, path: &str, bounds: &Bounds) -> Result<ConnmixServer, ConfigError> {
    let key = |name: &str| format!("{path}.{name}");
    if !settings.has(path) {
        let complaint = Complaint::new("it is missing, but a later server exists")
            .advise("Number the servers without gaps, from 0");
        return Err(settings.error(path, complaint));
    }
    let name = settings.text(&key("name"))?;
    if name.is_empty() {
        let complaint = Complaint::new("it is missing").allowed("text that no other server has");
        return Err(settings.error(&key("name"), complaint));
    }
    let rules = settings.count(&key("rule"));
    if rules > bounds.rules_max {
        let complaint = Complaint::new(format!("there are {rules} rules"));
        return Err(settings.error(&key("rule"), most(complaint, bounds.rules_max, "rules_max")));
    }
    let rules: Vec<Rule> = (0..rules)
        .map(|index| rule::rule(settings, &format!("{path}.rule.{index}"), bounds))
        .collect::<Result<_, _>>()?;
    let server = ConnmixServer {
        name,
        framing: settings.choice(&key("framing"))?,
        read_timeout: settings.duration(&key("read_timeout"))?,
        write_timeout: settings.duration(&key("write_timeout"))?,
        ping: settings.flag(&key("ping"))?,
        max_message: settings.number(&key("max_message"))?,
        on_push_error: settings.choice(&key("on_push_error"))?,
        text_ping: settings.flag(&key("text_ping"))?,
        strict: settings.flag(&key("strict"))?,
        allow_any_channel: settings.flag(&key("allow_any_channel"))?,
        keeps_head: rules.iter().any(|rule| rule.on != On::Open && rule.uses.head),
        rules,
    };
    if !server.allow_any_channel {
        checks::channels(settings, path, &server)?;
    }
    Ok(server)
}
