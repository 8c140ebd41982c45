//! The table of the keys that are not limits, and what is said about a key that nobody knows.
//!
//! Every key is either a row here or a row of [`crate::limits`] (numbers and durations); a text
//! whose length is limited has both. Parser, error messages and reference are made from the rows.

use super::choice::Choice;
use super::listeners::ListenerProtocol;
use super::model::{
    ClientProtocol, MessageType, OriginMode, SlowClient, WorkerCommands, WorkerFull, WorkerPick,
};
use super::{connmix, connmix_server, im, login, mesh, origins, xxim, xxim_push, xxim_upstream};
use crate::limits::{self, Unit};

/// A configuration key that is not a plain number or duration. In keys of lists of tables
/// (`LISTS`) the index is left out.
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

/// Keys whose value is a list of tables. In paths each is followed by the index of an element.
pub(super) const LISTS: &[&str] = &[
    "listener",
    "listener.routes",
    "xxim.upstream",
    "xxim.route",
    "connmix.user",
    "connmix.server",
    "connmix.server.rule",
];

const HEARTBEAT: &str = "\"~6YOt5rW35piO~\"";
const SERVER: &str = "name of a [[connmix.server]]; may be left out if there is one only";
const PEM: &str = "path of a PEM file, relative to the working directory";

/// The keys of the process, its listeners and netsvr that are not limits.
const KEYS: &[Key] = &[
    Key {
        allowed: "list of CPUs and ranges, e.g. \"0-3,6\"",
        ..text(
            "runtime.cpus",
            "\"\"",
            "CPUs to run on, one shard each. Empty: all that the process may use.",
        )
    },
    choice::<SlowClient>(
        "runtime.slow_client",
        "\"close\"",
        "What happens to a client whose outbox is full.",
    ),
    Key {
        allowed: "`address:port`; a host name is resolved at start",
        ..text(
            "listener.bind",
            "",
            "Address of the listener. Worker and task listeners need IPv4. Port 0 lets the kernel \
             choose one.",
        )
    },
    choice::<ListenerProtocol>(
        "listener.protocol",
        "",
        "What is spoken on this listener without a WebSocket. netsvr-worker, netsvr-task, \
         connmix-api: backends; xxim-tcp, connmix, im: clients. Either this or `routes`.",
    ),
    Key {
        allowed: "path that begins with `/`, without query",
        ..text("listener.routes.path", "", "Request path of WebSocket clients.")
    },
    choice::<ClientProtocol>(
        "listener.routes.protocol",
        "",
        "What clients of this path speak. echo: every message comes back.",
    ),
    Key {
        allowed: SERVER,
        ..text("listener.server", "", "Rules for clients of protocol \"connmix\".")
    },
    Key { allowed: SERVER, ..text("listener.routes.server", "", "The same for this path.") },
    Key {
        default: "false",
        ..flag(
            "listener.trusted",
            "For netsvr-worker and netsvr-task, whose protocol has no passwords: serve outside of \
             loopback without `tls.client_ca`, because only backends reach this address. Said in \
             the log at every start.",
        )
    },
    Key {
        allowed: PEM,
        reload: true,
        ..text("listener.tls.cert", "", "Certificate chain; with it the listener speaks TLS only.")
    },
    Key { allowed: PEM, reload: true, ..text("listener.tls.key", "", "Key of the certificate.") },
    Key {
        allowed: PEM,
        reload: true,
        ..text(
            "listener.tls.client_ca",
            "",
            "Authorities of client certificates; with it a client must show one (mutual TLS).",
        )
    },
    Key {
        allowed: "IPv4 address and port",
        ..text(
            "netsvr.advertise",
            "\"\"",
            "Address that uniqIds carry and SDKs are configured with. Empty: that of the task \
             listener (generation 6) or worker listener (generation 5); 0.0.0.0 stands for the \
             first IPv4 of the machine that is not loopback.",
        )
    },
    Key {
        kind: ValueType::Numbers,
        ..text("netsvr.metrics_items", "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]", "")
    },
    Key {
        default: "false",
        ..flag(
            "netsvr.cluster",
            "Commands of business processes reach clients of every node of the mesh, not only of \
             this one, and queries are answered for all.",
        )
    },
    origins::key(
        "netsvr.customer.allow_origin",
        "Origins of the web pages that may connect. Empty: no check.",
    ),
    choice::<OriginMode>(
        "netsvr.customer.allow_origin_mode",
        "\"origin\"",
        "How `allow_origin` is meant. contains: as the original, by texts one of which must occur \
         in the origin; other hosts may have them in their names.",
    ),
    text("netsvr.customer.heartbeat_message", HEARTBEAT, ""),
    choice::<MessageType>(
        "netsvr.customer.send_message_type",
        "\"text\"",
        "Opcode of messages to clients.",
    ),
    Key {
        allowed: "`http://` or `https://` URL",
        ..url(
            "netsvr.customer.on_open_callback_api",
            "\"\"",
            "URL that decides whether a client may open. Empty: every client may.",
        )
    },
    Key {
        allowed: "`http://` or `https://` URL",
        ..url(
            "netsvr.customer.on_close_callback_api",
            "\"\"",
            "URL that is told of every close. Empty: none.",
        )
    },
    text("netsvr.worker.heartbeat_message", HEARTBEAT, ""),
    choice::<WorkerPick>(
        "netsvr.worker.pick",
        "\"round-robin\"",
        "Which worker gets an event. sticky: all events of one client go to one worker while it \
         lives.",
    ),
    choice::<WorkerFull>(
        "netsvr.worker.on_full",
        "\"wait\"",
        "What happens to events while every worker's queue is full. wait: the clients that feed \
         them are not read; drop: the event is dropped and counted.",
    ),
    choice::<WorkerCommands>(
        "netsvr.worker.commands",
        "\"both\"",
        "Which commands netsvr-worker and netsvr-task take. both: each takes all; own: \
         netsvr-worker takes `Register` and `Unregister`, netsvr-task all others, and a connection \
         that sends another is closed, as generation 6 of the original does.",
    ),
    flag("netsvr.worker.transfer_session", "Repeat the session of the client in every `Transfer`."),
    flag("netsvr.worker.transfer_topics", "Repeat the topics of the client in every `Transfer`."),
    text("netsvr.task.heartbeat_message", HEARTBEAT, ""),
    Key {
        allowed: "`address:port`, or empty",
        ..text(
            "admin.bind",
            "\"127.0.0.1:9464\"",
            "Address of `/metrics`, `/healthz` and `/readyz`. Empty: none.",
        )
    },
    Key {
        allowed: "`tracing` filter, e.g. \"info\" or \"warn,ringway::shard=debug\"",
        ..text(
            "log.filter",
            "\"info\"",
            "Which events are logged, to standard error. Those of the NATS library only if \
             `async_nats` is named. Words that are neither a level nor a target (The log) are \
             refused.",
        )
    },
    Key { default: "false", ..flag("log.json", "Log JSON lines instead of text.") },
];

pub(super) const fn text(key: &'static str, default: &'static str, what: &'static str) -> Key {
    Key { key, kind: ValueType::Text, default, allowed: "", what, reload: false, shown: Shown::All }
}

/// A text that errors do not repeat.
pub(super) const fn secret(key: &'static str, default: &'static str, what: &'static str) -> Key {
    Key { shown: Shown::Nothing, ..text(key, default, what) }
}

/// A URL, of which errors repeat what is no secret.
pub(super) const fn url(key: &'static str, default: &'static str, what: &'static str) -> Key {
    Key { shown: Shown::Url, ..text(key, default, what) }
}

pub(super) const fn choice<C: Choice>(
    key: &'static str,
    default: &'static str,
    what: &'static str,
) -> Key {
    Key { kind: ValueType::Choice(C::WORDS), ..text(key, default, what) }
}

pub(super) const fn flag(key: &'static str, what: &'static str) -> Key {
    Key { kind: ValueType::Flag, ..text(key, "true", what) }
}

/// The kind of a key; `None` if there is no such key.
pub(super) fn kind(key: &str) -> Option<ValueType> {
    match find(key) {
        Some(row) => Some(row.kind),
        None => limits::all::find(key).map(|limit| match limit.unit {
            Unit::Milliseconds => ValueType::Duration,
            _ => ValueType::Number,
        }),
    }
}

/// How much of the value of a key may be repeated; `None` if there is no such key.
pub(super) fn shown(key: &str) -> Option<Shown> {
    find(key).map(|row| row.shown).or(limits::all::find(key).map(|_| Shown::All))
}

/// The rows of every area, in the order of the reference.
pub(super) fn rows() -> impl Iterator<Item = &'static Key> {
    const AREAS: &[&[Key]] = &[
        KEYS,
        login::KEYS,
        xxim::KEYS,
        xxim_upstream::KEYS,
        xxim_push::KEYS,
        connmix::KEYS,
        connmix_server::KEYS,
        im::KEYS,
        mesh::KEYS,
    ];
    AREAS.iter().flat_map(|rows| rows.iter())
}

/// The row of a key that is no plain limit.
pub(super) fn find(key: &str) -> Option<&'static Key> {
    rows().find(|row| row.key == key)
}

/// Every configuration key, those of [`crate::limits`] included, each once.
pub fn all() -> impl Iterator<Item = &'static str> {
    let known = |key: &str| find(key).is_some();
    let limits = limits::all::rows().map(|limit| limit.key);
    let rest = limits.filter(move |key| *key != limits::FIXED && !known(key));
    rows().map(|row| row.key).chain(rest)
}

/// Every key of whose value errors repeat nothing, or only a part.
pub fn secret_keys() -> impl Iterator<Item = &'static str> {
    rows().filter(|row| row.shown != Shown::All).map(|row| row.key)
}

/// Whether the path is that of a table.
pub(super) fn is_table(path: &str) -> bool {
    all().any(|key| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// What to do about a key that does not exist: its successor if it is one of the Go gateway,
/// otherwise the nearest key there is.
pub(super) fn advice(unknown: &str) -> String {
    if let Some(advice) = former(unknown) {
        return advice;
    }
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    // A key in the wrong table is nearer than another key of the same table.
    let nearest = all().min_by_key(|key| {
        let whole = distance(unknown, key);
        (whole.min(distance(&last(unknown), &last(key)) + 2), whole)
    });
    let nearest = nearest.unwrap_or_default();
    let shown = "`ringway check --print-reference` shows all keys";
    format!("The nearest known key is `{nearest}`; {shown}")
}

/// Keys of the Go gateway (netsvr specification section 8) that have no namesake here; lower case,
/// without underscores, without the table `netsvr`.
const FORMER: &[(&str, &str)] = &[
    ("loglevel", "Use log.filter, e.g. \"info\""),
    ("logfile", "The log goes to standard error; let systemd or the shell redirect it"),
    ("shutdownwaittime", "Use runtime.shutdown_timeout"),
    ("pproflistenaddress", "Remove it; /metrics on admin.bind and `perf` take its place"),
    ("autobahn", "Use a route with protocol = \"echo\""),
    ("metrics.item", "Use netsvr.metrics_items"),
    ("customer.multicore", "Use runtime.cpus"),
    ("customer.listenaddress", "Use a [[listener]] with bind and routes"),
    ("customer.handlepattern", "Use the path of a route in [[listener]]"),
    ("customer.maxonlinenum", "Use netsvr.customer.max_online"),
    ("customer.readdeadline", "Use netsvr.customer.heartbeat_interval"),
    ("customer.senddeadline", "Use runtime.outbox_bytes_max and runtime.slow_client"),
    ("customer.iomod", "Remove it; there is one mode, io_uring"),
    ("customer.maxblockingonline", "Remove it; no connection blocks a thread"),
    ("customer.tlscert", "Use tls = { cert, key } in [[listener]]"),
    ("customer.tlskey", "Use tls = { cert, key } in [[listener]]"),
    ("customer.callbackscriptfile", "Use netsvr.customer.on_open_callback_api"),
    ("worker.listenaddress", "Use a [[listener]] with protocol = \"netsvr-worker\""),
    ("worker.readbuffersize", "Use runtime.receive_buffer_bytes"),
    ("worker.sendchancap", "Use netsvr.worker.queue_frames_max"),
    ("worker.sendchandeadline", "Use netsvr.worker.on_full"),
    ("task.listenaddress", "Use a [[listener]] with protocol = \"netsvr-task\""),
    ("task.readbuffersize", "Use runtime.receive_buffer_bytes"),
];

fn former(unknown: &str) -> Option<String> {
    let plain = |key: &str| key.to_lowercase().replace('_', "");
    let wanted = plain(unknown);
    let wanted = wanted.strip_prefix("netsvr.").unwrap_or(&wanted);
    if let Some((_, advice)) = FORMER.iter().find(|(key, _)| *key == wanted) {
        return Some((*advice).to_owned());
    }
    let same = |key: &&str| key.strip_prefix("netsvr.").is_some_and(|key| plain(key) == wanted);
    all().find(same).map(|key| format!("Here it is called {key}"))
}

/// Edit distance (Levenshtein) in characters.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_says_what_it_is_for_and_what_is_allowed() {
        for key in rows() {
            let limit = limits::all::find(key.key);
            assert_ne!(key.what.is_empty(), limit.is_none(), "{}", key.key);
            let explained = limit.is_some() || !key.allowed.is_empty();
            let by_kind = matches!(key.kind, ValueType::Choice(_) | ValueType::Flag);
            assert!(explained || by_kind, "{}", key.key);
        }
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn a_typing_error_is_answered_with_the_key_that_was_meant() {
        for (typed, meant) in [
            ("netsvr.customer.max_onlin", "netsvr.customer.max_online"),
            ("netsvr.max_online", "netsvr.customer.max_online"),
            ("netsrv.worker.pick", "netsvr.worker.pick"),
            ("runtime.cpu", "runtime.cpus"),
            ("listener.tls.certificate", "listener.tls.cert"),
            ("listner.bind", "listener.bind"),
        ] {
            assert!(advice(typed).contains(&format!("`{meant}`")), "{typed}: {}", advice(typed));
        }
    }

    #[test]
    fn keys_of_the_go_gateway_are_answered_with_what_takes_their_place() {
        for (old, new) in [
            ("Customer.Multicore", "runtime.cpus"),
            ("netsvr.worker.send_chan_cap", "netsvr.worker.queue_frames_max"),
            ("Worker.SendChanDeadline", "netsvr.worker.on_full"),
            ("Customer.HeartbeatInterval", "netsvr.customer.heartbeat_interval"),
            ("Limit.OnOpen", "netsvr.limit.on_open"),
            ("Customer.TLSCert", "tls = { cert, key }"),
        ] {
            assert!(advice(old).contains(new), "{old}: {}", advice(old));
        }
    }
}
