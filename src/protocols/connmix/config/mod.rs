//! `[connmix]`: the API for backends, its users, and queues (connmix specification sections 1.3, 3,
//! 8.1).

pub mod server;

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::config::choice::words;
use crate::config::error::{Complaint, ConfigError};
use crate::config::keys::{self, Key, Section, ValueType, choice, secret, text};
use crate::config::model::{Listener, Service};
use crate::config::origins;
use crate::config::settings::Settings;
use crate::wire::origin::{OriginMode, Origins};

/// The keys that are no plain limits.
const KEYS: &[Key] = &[
    origins::key(
        "connmix.allow_origin",
        "Origins of the web pages that may use the API. Empty: without users only pages of this \
         machine (their host is the one that they ask, and on loopback), with users all. Programs \
         send no origin.",
    ),
    Key {
        allowed: "`address:port` or `name:port`, or empty",
        ..text(
            "connmix.api.advertise",
            "\"\"",
            "Address of the API as `/v1/nodes` tells it to backends. Empty: that of the last \
             connmix-api listener; 0.0.0.0 stands for the host that the request came to.",
        )
    },
    Key {
        default: "true",
        ..keys::flag(
            "connmix.api.query_credentials",
            "Accept `?username=..&password=..` on `/ws/v1`, for browsers, which can not set \
             headers.",
        )
    },
    choice::<QueueScope>(
        "connmix.queue.scope",
        "\"node\"",
        "node: a topic is in the memory of one machine, whose clients push and whose backends \
         consume. cluster: all machines of the mesh have the same topics, in JetStream; needs \
         mesh.nats and the same value on every machine.",
    ),
    choice::<QueueFull>(
        "connmix.queue.full",
        "\"error\"",
        "What happens to a message that finds its topic full. error: the rule that pushes it \
         fails; block: the client is not read until there is room; drop_oldest: the oldest message \
         is dropped and counted.",
    ),
    Key {
        allowed: "text without `:`",
        ..text("connmix.user.username", "", "Name of a backend or person.")
    },
    Key { allowed: "text", ..secret("connmix.user.password", "", "Password.") },
    Key {
        kind: ValueType::Texts,
        allowed: "list of \"read\" and \"write\"",
        ..text(
            "connmix.user.roles",
            "[\"read\", \"write\"]",
            "read: `/metrics`, `/version`, `/v1/nodes`, pings; write: everything.",
        )
    },
    Key {
        allowed: "`*`, or an IPv4 address in which a part may be `*`",
        ..text("connmix.user.host", "\"*\"", "Where the user may come from.")
    },
];

/// The tables of the reference: name, title, what is said above it.
const TITLES: &[(&str, &str, &str)] = &[
    ("connmix", "`[connmix]`", ""),
    ("connmix.api", "`[connmix.api]`", ""),
    (
        "connmix.user",
        "`[[connmix.user]]`",
        "Who may use the connmix API, with HTTP Basic authentication. Without such a table \
         everybody may, and the API must be on loopback.",
    ),
    ("connmix.queue", "`[connmix.queue]`", ""),
];

/// The section of the tables.
pub(crate) const SECTION: Section =
    Section { keys: KEYS, lists: &["connmix.user"], titles: TITLES };

/// `[connmix]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Connmix {
    pub api: Api,
    pub queue: Queue,
    pub rules: RuleBounds,
}

/// `[connmix.rules]`: what rules may take while they run. What the configuration itself is held to
/// is in [`server`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleBounds {
    /// `http` actions of one shard that are under way.
    pub http_calls_max: u32,
    /// Channels of one connection.
    pub channels_max: u32,
}

/// The API for backends.
#[derive(Clone, Debug, PartialEq)]
pub struct Api {
    /// What `/v1/nodes` tells; `None`: the listener's address.
    pub advertise: Option<String>,
    /// Bytes of an HTTP body or WebSocket message.
    pub message_bytes_max: u32,
    /// A connection on which nothing arrives for so long is closed.
    pub read_timeout: Duration,
    /// A connection that takes nothing for so long is dropped.
    pub write_timeout: Duration,
    /// Events that may wait for one consumer.
    pub events_max: u32,
    /// Bytes of events that may wait for one consumer.
    pub event_bytes_max: u32,
    /// Malformed requests in a row after which a WebSocket is closed.
    pub faults_max: u32,
    /// Whether credentials may stand in the query of `/ws/v1`.
    pub query_credentials: bool,
    /// Who may use it; empty: everybody.
    pub users: Vec<User>,
    /// Pages that may use it; empty: local ones, if there are no users, else all.
    pub allow_origin: Origins,
}

/// One `[[connmix.user]]`.
#[derive(Clone, PartialEq)]
pub struct User {
    pub username: String,
    pub password: String,
    /// May do more than look.
    pub write: bool,
    /// Parts of the IPv4 address that it must come from; `None` is any. All `None`: any address.
    pub host: [Option<u8>; 4],
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "User({}, write {}, from {:?})", self.username, self.write, self.host)
    }
}

impl User {
    /// Whether the user may come from this address.
    pub fn may_come_from(&self, ip: std::net::IpAddr) -> bool {
        match ip.to_canonical() {
            std::net::IpAddr::V4(ip) => {
                let fits = |(part, byte): (&Option<u8>, u8)| part.is_none_or(|part| part == byte);
                self.host.iter().zip(ip.octets()).all(fits)
            }
            std::net::IpAddr::V6(_) => self.host == [None; 4],
        }
    }
}

/// Topics that clients push to and backends consume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Messages that may wait in one topic.
    pub topic_messages_max: u32,
    /// Bytes of them.
    pub topic_bytes_max: u32,
    /// Topics of the process.
    pub topics_max: u32,
    pub full: QueueFull,
    pub scope: QueueScope,
    /// Bytes of all topics of a cluster together.
    pub cluster_bytes_max: u64,
    /// NATS servers that keep each message of a cluster.
    pub replicas: u8,
}

/// What happens to a message that finds its topic full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueFull {
    Error,
    Block,
    DropOldest,
}

words!(QueueFull { Error = "error", Block = "block", DropOldest = "drop_oldest" });

/// Whose topics they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueScope {
    /// Of this process.
    Node,
    /// Of all nodes of the mesh together.
    Cluster,
}

words!(QueueScope { Node = "node", Cluster = "cluster" });

/// Reads it.
pub(crate) fn read(settings: &Settings, listeners: &[Listener]) -> Result<Connmix, ConfigError> {
    let api = api(settings)?;
    if api.users.is_empty() {
        refuse_strangers(settings, listeners)?;
    }
    let key = |name: &str| format!("connmix.queue.{name}");
    let queue = Queue {
        topic_messages_max: settings.number(&key("topic_messages_max"))?,
        topic_bytes_max: settings.number(&key("topic_bytes_max"))?,
        topics_max: settings.number(&key("topics_max"))?,
        full: settings.choice(&key("full"))?,
        scope: scope(settings)?,
        cluster_bytes_max: settings.number(&key("cluster_bytes_max"))?,
        replicas: settings.number(&key("replicas"))?,
    };
    let rules = RuleBounds {
        http_calls_max: settings.number("connmix.rules.http_calls_max")?,
        channels_max: settings.number("connmix.rules.channels_max")?,
    };
    Ok(Connmix { api, queue, rules })
}

fn scope(settings: &Settings) -> Result<QueueScope, ConfigError> {
    const KEY: &str = "connmix.queue.scope";
    if settings.choice::<QueueScope>(KEY)? == QueueScope::Node {
        return Ok(QueueScope::Node);
    }
    if settings.texts("mesh.nats")?.is_empty() {
        let complaint = Complaint::new("the topics of a cluster are in JetStream of NATS")
            .allowed("\"node\" without a mesh")
            .advise("Set mesh.nats to servers that run with JetStream (nats-server -js)");
        return Err(settings.error(KEY, complaint));
    }
    Ok(QueueScope::Cluster)
}

fn api(settings: &Settings) -> Result<Api, ConfigError> {
    let key = |name: &str| format!("connmix.api.{name}");
    let users = 0..settings.count("connmix.user");
    Ok(Api {
        advertise: advertise(settings)?,
        message_bytes_max: settings.number(&key("message_bytes_max"))?,
        read_timeout: settings.duration(&key("read_timeout"))?,
        write_timeout: settings.duration(&key("write_timeout"))?,
        events_max: settings.number(&key("events_max"))?,
        event_bytes_max: settings.number(&key("event_bytes_max"))?,
        faults_max: settings.number(&key("faults_max"))?,
        query_credentials: settings.flag(&key("query_credentials"))?,
        users: users.map(|index| user(settings, index)).collect::<Result<_, _>>()?,
        allow_origin: origins::read(settings, "connmix.allow_origin", OriginMode::Origin)?,
    })
}

fn advertise(settings: &Settings) -> Result<Option<String>, ConfigError> {
    const KEY: &str = "connmix.api.advertise";
    let text = settings.text(KEY)?;
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let port = port.and_then(|(_, port)| port.parse::<u16>().ok());
    if text.is_empty() {
        return Ok(None);
    }
    if port.is_some() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/') {
        return Ok(Some(text));
    }
    let complaint = Complaint::new("backends can not connect to this")
        .allowed("address:port or name:port, e.g. \"10.0.0.5:6789\"")
        .advise("Write no scheme and no path; backends add ws:// and /ws/v1");
    Err(settings.error(KEY, complaint))
}

fn user(settings: &Settings, index: usize) -> Result<User, ConfigError> {
    let key = |name: &str| format!("connmix.user.{index}.{name}");
    let username = settings.text(&key("username"))?;
    if username.is_empty() || username.contains(':') {
        let problem = if username.is_empty() { "it is missing" } else { "there is a colon in it" };
        let complaint = Complaint::new(problem)
            .allowed("text without `:`, which separates name and password in HTTP Basic");
        return Err(settings.error(&key("username"), complaint));
    }
    let password = settings.text(&key("password"))?;
    if password.is_empty() {
        let complaint = Complaint::new("it is missing").advise("Give every user a password");
        return Err(settings.error(&key("password"), complaint));
    }
    let roles = settings.texts(&key("roles"))?;
    let known = |role: &String| role == "read" || role == "write";
    if roles.is_empty() || !roles.iter().all(known) {
        let complaint = Complaint::new("there is no such role");
        let complaint = complaint.allowed("[\"read\"], [\"write\"] or [\"read\", \"write\"]");
        return Err(settings.error(&key("roles"), complaint));
    }
    let write = roles.iter().any(|role| role == "write");
    let pattern = settings.text(&key("host"))?;
    let Some(host) = host(&pattern) else {
        let complaint = Complaint::new("this is not a pattern of IPv4 addresses")
            .allowed("\"*\", \"10.0.0.5\" or e.g. \"172.*.*.*\"");
        return Err(settings.error(&key("host"), complaint));
    };
    Ok(User { username, password, write, host })
}

fn host(pattern: &str) -> Option<[Option<u8>; 4]> {
    if pattern == "*" {
        return Some([None; 4]);
    }
    let given = pattern.replace('*', "0").parse::<Ipv4Addr>().ok()?.octets();
    let mut host = [None; 4];
    for ((part, byte), text) in host.iter_mut().zip(given).zip(pattern.split('.')) {
        match text {
            "*" => {}
            _ if text.contains('*') => return None,
            _ => *part = Some(byte),
        }
    }
    Some(host)
}

/// Everything outside of loopback requires users (or client certificates).
fn refuse_strangers(settings: &Settings, listeners: &[Listener]) -> Result<(), ConfigError> {
    let open = |listener: &Listener| {
        listener.service == Service::ConnmixApi && listener.lets_everybody_in()
    };
    let Some(index) = listeners.iter().position(open) else { return Ok(()) };
    let complaint = Complaint::new(
        "whoever can reach this address could read and control every client: the connmix API has \
         no users",
    )
    .allowed("without [[connmix.user]] only an address on loopback, or tls with client_ca")
    .advise("Add [[connmix.user]] with username and password");
    Err(settings.error(&format!("listener.{index}.bind"), complaint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_in_which_parts_may_be_open() {
        assert_eq!(host("*"), Some([None; 4]));
        assert_eq!(host("172.*.0.9"), Some([Some(172), None, Some(0), Some(9)]));
        for pattern in ["", "1.2.3", "1.2.3.4.5", "1*.2.3.4", "**.1.1.1", "a.b.c.d", "::1"] {
            assert_eq!(host(pattern), None, "{pattern}");
        }
        let host = host("172.*.0.9").expect("a pattern");
        let user = User { username: "a".into(), password: "b".into(), write: true, host };
        let ip = |text: &str| text.parse().expect("an address");
        assert!(user.may_come_from(ip("172.16.0.9")) && user.may_come_from(ip("::ffff:172.1.0.9")));
        assert!(!user.may_come_from(ip("172.16.1.9")) && !user.may_come_from(ip("::1")));
    }
}
