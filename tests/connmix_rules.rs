//! Rules of connmix clients without a socket: what an event leads to (connmix section 7.4), and
//! what is refused when the configuration is read.

#[path = "connmix_rules/actions.rs"]
mod actions;
#[path = "connmix_rules/entrances.rs"]
mod entrances;
#[path = "connmix_rules/examples.rs"]
mod examples;
#[path = "connmix_rules/properties.rs"]
mod properties;
#[path = "connmix_rules/refused.rs"]
mod refused;
#[path = "json/texts.rs"]
mod texts;

use std::net::SocketAddr;

use ringway::config::model::MessageType;
use ringway::config::{self, ConfigError};
use ringway::hub::context::Context;
use ringway::hub::queues::Homes;
use ringway::protocols::connmix::config::server::ConnmixServer;
use ringway::protocols::connmix::rules::{
    Effect, Effects, Event, Head, Resumed, Run, Subject, Suspended,
};
use ringway::wire::json::Index;

/// The client_id of every client here.
pub const CLIENT: i64 = 1463784730422935552;

/// A configuration whose only server has these settings and rules.
pub fn read(server: &str) -> Result<ConnmixServer, ConfigError> {
    let text = format!(
        "[[listener]]\nbind = \"127.0.0.1:0\"\nprotocol = \"connmix\"\n\
         [[connmix.server]]\nname = \"chat\"\n{server}"
    );
    config::all::from_text(&text, "a.toml")
        .map(|mut loaded| loaded.config.connmix_servers.remove(0))
}

/// One connection of a server, and what its events led to.
pub struct Client {
    server: ConnmixServer,
    head: Option<Head>,
    pub stream: bool,
    /// Queue topics are those of a cluster.
    pub cluster: bool,
    pub context: Context,
    index: Index,
    pub waits: Option<Suspended>,
}

impl Client {
    pub fn new(server: &str) -> Client {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Client {
            server: read(server).expect("the rules are good"),
            head: Some(Head {
                path: "/chat".into(),
                query: "token=s%20e&room=7".into(),
                headers: vec![
                    header("host", "127.0.0.1:6790"),
                    header("Upgrade", "websocket"),
                    header("X-Device", "phone"),
                ],
            }),
            stream: false,
            cluster: false,
            context: Context::default(),
            index: Index::default(),
            waits: None,
        }
    }

    pub fn open(&mut self) -> Vec<String> {
        self.event(Event::Open)
    }

    pub fn text(&mut self, text: &str) -> Vec<String> {
        self.event(Event::Message(MessageType::Text, text.as_bytes()))
    }

    pub fn binary(&mut self, data: &[u8]) -> Vec<String> {
        self.event(Event::Message(MessageType::Binary, data))
    }

    pub fn close(&mut self) -> Vec<String> {
        self.event(Event::Close)
    }

    /// Runs the rules; the effects in short words.
    pub fn event(&mut self, event: Event<'_>) -> Vec<String> {
        assert_eq!(self.waits, None, "the connection waits");
        let mut effects = Effects::default();
        let subject = subject(self.head.as_ref(), self.stream, self.cluster, event);
        let run = Run::new(&self.server, subject, &self.context, &mut self.index, &mut effects);
        self.waits = run.start();
        self.apply(&effects)
    }

    /// Ends what the connection waits for.
    pub fn resume(&mut self, how: Resumed<'_>) -> Vec<String> {
        let suspended = self.waits.take().expect("the connection waits");
        let mut effects = Effects::default();
        let event = suspended.event();
        let subject = subject(self.head.as_ref(), self.stream, self.cluster, event);
        let run = Run::new(&self.server, subject, &self.context, &mut self.index, &mut effects);
        self.waits = run.resume(&suspended, how);
        self.apply(&effects)
    }

    /// It is known what became of the push that the connection waits for.
    pub fn pushed(&mut self) -> Vec<String> {
        self.resume(Resumed::Waited)
    }

    /// As a backend would with `conn.call`.
    pub fn set(&mut self, key: &str, value: &str) {
        let change = (format!("{key:?}").into(), Some(value.into()));
        self.context.set(&[change]).expect("there is room");
    }

    fn apply(&mut self, effects: &Effects) -> Vec<String> {
        for effect in &effects.list {
            if let Effect::Context(context) = effect {
                self.context = context.clone();
            }
        }
        effects.list.iter().map(|effect| short(effect, &effects.text)).collect()
    }
}

fn subject<'a>(
    head: Option<&'a Head>,
    stream: bool,
    cluster: bool,
    event: Event<'a>,
) -> Subject<'a> {
    let peer: SocketAddr = "192.0.2.7:1234".parse().expect("an address");
    let head = head.filter(|_| !stream);
    let homes = Homes { shard: 0, shards: 1, cluster };
    Subject { client_id: CLIENT, node: 1, homes, peer, head, stream, event }
}

/// An effect in one line.
pub fn short(effect: &Effect, text: &str) -> String {
    let shown = |kind: &MessageType, data: &[u8]| match kind {
        MessageType::Text => std::str::from_utf8(data).expect("a text").to_owned(),
        MessageType::Binary => format!("{data:02x?}"),
    };
    match effect {
        Effect::Subscribe(channel) => format!("+{channel}"),
        Effect::Unsubscribe(channel) => format!("-{channel}"),
        Effect::Pong => "pong".to_owned(),
        Effect::Send(kind, data) => format!("send {}", shown(kind, data)),
        Effect::Publish { channel, kind, data } => {
            format!("publish {} {}", &**channel, shown(kind, data))
        }
        Effect::Push { topic, d, .. } => format!("push {} {}", &**topic, &text[d.clone()]),
        Effect::Context(context) => format!("context {}", context.to_json()),
        Effect::User(user) => format!("user {user}"),
        Effect::Close(goodbye) => format!("close {} {}", goodbye.code, goodbye.reason),
        Effect::Failed { rule, action } => format!("failed {rule} {action}"),
        Effect::NoRule => "no rule".to_owned(),
        Effect::Violation(goodbye) => format!("violation {}", goodbye.code),
    }
}
