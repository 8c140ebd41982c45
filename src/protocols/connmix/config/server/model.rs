//! The rules of a connmix client server in the form in which they are run: everything that can be
//! decided at start is decided (connmix section 7.4).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::config::choice::words;
use crate::config::model::MessageType;

/// One `[[connmix.server]]`: what clients of the routes and listeners that name it may do.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnmixServer {
    pub name: String,
    /// How messages of TCP clients are told apart.
    pub framing: ClientFraming,
    /// A client from which nothing arrives for longer is closed.
    pub read_timeout: Duration,
    /// A client that takes nothing of what waits for it for so long is dropped.
    pub write_timeout: Duration,
    /// Send ping frames after half of `read_timeout` of silence.
    pub ping: bool,
    /// Bytes of one message of a client.
    pub max_message: u32,
    pub on_push_error: OnPushError,
    /// Answer the text `ping` by `pong` before the rules.
    pub text_ping: bool,
    /// An action that fails closes the connection.
    pub strict: bool,
    /// Clients may name any channel (see the checks of names).
    pub allow_any_channel: bool,
    /// In order.
    pub rules: Vec<Rule>,
    /// Some rule looks at the head of the WebSocket handshake after it is over.
    pub keeps_head: bool,
}

/// Framing of TCP clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFraming {
    /// Lines of text.
    Line,
    /// Lines, each a JSON object with `method` and `params`.
    JsonLine,
    /// Binary messages, each behind its length.
    Length,
    /// Texts, each behind its length.
    LengthText,
}

words!(ClientFraming {
    Line = "line",
    JsonLine = "json-line",
    Length = "length",
    LengthText = "length-text",
});

/// What becomes of a client whose message finds its queue full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPushError {
    Close,
    Ignore,
}

words!(OnPushError { Close = "close", Ignore = "ignore" });

/// The events that rules are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Open,
    Message,
    Close,
}

words!(On { Open = "open", Message = "message", Close = "close" });

/// Which messages a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleType {
    Text,
    Binary,
    Any,
}

words!(RuleType { Text = "text", Binary = "binary", Any = "any" });

/// One `[[connmix.server.rule]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub on: On,
    /// Messages of this kind only.
    pub kind: Option<MessageType>,
    /// Conditions that are not about the context; all must hold.
    pub when: Vec<Condition>,
    /// Conditions about the context. If only these fail, `otherwise` runs.
    pub when_context: Vec<Condition>,
    pub actions: Vec<Action>,
    pub otherwise: Option<Vec<Action>>,
    /// Go on with the next rule after this one has matched.
    pub continues: bool,
    /// What has to be ready before the rule is tried.
    pub uses: Uses,
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// The message as JSON.
    pub json: bool,
    /// The context.
    pub context: bool,
    /// Captures of its regular expression.
    pub captures: bool,
    /// The head of the handshake.
    pub head: bool,
}

impl Uses {
    /// What either looks at.
    pub fn and(self, other: Uses) -> Uses {
        Uses {
            json: self.json | other.json,
            context: self.context | other.context,
            captures: self.captures | other.captures,
            head: self.head | other.head,
        }
    }
}

/// One entry of `when`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub source: Source,
    pub test: Test,
}

/// What a value is held against.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    Exists,
    Missing,
    /// JSON equality.
    Is(Literal),
    Matches(Pattern),
    /// One of these.
    Any(Vec<Test>),
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Text(Box<str>),
    Integer(i64),
    Float(f64),
    Flag(bool),
}

/// A compiled regular expression.
#[derive(Clone, Debug)]
pub struct Pattern(pub regex::Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// Where a reference finds its value.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    ClientId,
    NodeId,
    RemoteAddr,
    /// Path of the request of a WebSocket client.
    Path,
    /// The whole message.
    Data,
    /// A place in the message as JSON; no steps: all of it.
    Json(Vec<Step>),
    /// The context, or a place in it.
    Context(Place),
    Header(Box<str>),
    Query(Box<str>),
    /// A group of the rule's regular expression, 0 is all of it.
    Capture(usize),
}

/// A place in the context.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// A JSON string with its quotes, as contexts keep it; empty: the whole context.
    pub key: Box<str>,
    /// Where in the value.
    pub path: Vec<Step>,
}

/// One part of a dotted path.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub name: Box<str>,
    /// The part as an index of an array.
    pub index: Option<u32>,
}

/// A text with references in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template {
    pub pieces: Vec<Piece>,
}

impl Template {
    /// The text, if there is no reference in it.
    pub fn constant(&self) -> Option<&Arc<str>> {
        match &self.pieces[..] {
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The reference, if there is nothing else.
    pub fn only(&self) -> Option<&Reference> {
        match &self.pieces[..] {
            [Piece::Reference(reference)] => Some(reference),
            _ => None,
        }
    }

    /// The references, in order.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Reference(reference) => Some(reference),
            Piece::Text(_) => None,
        })
    }

    /// The constant text in front of the first reference.
    pub fn prefix(&self) -> &str {
        match self.pieces.first() {
            Some(Piece::Text(text)) => text,
            _ => "",
        }
    }

    /// The reference with `[*]`, of which there is at most one.
    pub fn each(&self) -> Option<&Reference> {
        self.references().find(|reference| reference.each)
    }
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    Text(Arc<str>),
    Reference(Reference),
}

/// `${source[*]|filter}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    pub source: Source,
    /// One value for each element of the array.
    pub each: bool,
    pub filters: Vec<Filter>,
}

/// What is done with a value before it stands in its text.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// As JSON. Always the last one.
    Json,
    /// Base64 of the bytes.
    Base64,
    /// One part of the text, counted from 0.
    Part { separator: Box<str>, index: usize },
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Subscribe(Vec<Template>),
    Unsubscribe(Vec<Template>),
    Send(Content),
    Publish {
        channel: Template,
        content: Content,
    },
    Push(Push),
    /// Keys are JSON strings with their quotes, here and below.
    Set(Vec<(Box<str>, Assigned)>),
    Unset(Vec<Box<str>>),
    User(Template),
    Wait {
        key: Box<str>,
        timeout: Duration,
    },
    Http(Box<Http>),
    Close(Goodbye),
}

impl Action {
    /// The key of the configuration.
    pub const fn name(&self) -> &'static str {
        match self {
            Action::Subscribe(_) => "subscribe",
            Action::Unsubscribe(_) => "unsubscribe",
            Action::Send(_) => "send",
            Action::Publish { .. } => "publish",
            Action::Push(_) => "push",
            Action::Set(_) => "set",
            Action::Unset(_) => "unset",
            Action::User(_) => "user",
            Action::Wait { .. } => "wait",
            Action::Http(_) => "http",
            Action::Close(_) => "close",
        }
    }
}

/// What is sent or published.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// The same every time.
    Fixed(MessageType, Bytes),
    Text(Template),
    /// The text is base64 of the message.
    Binary(Template),
}

/// `push`: what of a client goes to a queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    pub topic: Template,
    /// Members of `d`, sorted by name; each begins with its name and a colon, in JSON.
    pub members: Vec<(Box<str>, Member)>,
}

/// The value of a member of `d`.
#[derive(Clone, Debug, PartialEq)]
pub enum Member {
    /// JSON text.
    Fixed(Box<str>),
    Frame,
    Headers,
    Query,
    RemoteAddr,
    /// A place in the context; left out if there is nothing.
    Context(Place),
    Made(Assigned),
}

/// A value that an action stores.
#[derive(Clone, Debug, PartialEq)]
pub enum Assigned {
    /// JSON text.
    Fixed(Box<str>),
    /// A single reference: the value keeps its JSON type.
    Copy(Source),
    Text(Template),
}

/// A request to a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// Upper case.
    pub method: Box<str>,
    /// References in it are percent-encoded.
    pub url: Template,
    pub body: Template,
    pub content_type: Box<str>,
    pub timeout: Duration,
    /// Context keys, and where their values stand in the answer (RFC 6901, taken apart).
    pub set: Vec<(Box<str>, Vec<Step>)>,
    /// Instead of the rest of the rule, if there was no good answer.
    pub on_error: Vec<Action>,
    /// Bytes of URL and body.
    pub request_bytes_max: usize,
    /// Bytes of an answer of which something is set.
    pub answer_bytes_max: usize,
}

/// Why an action closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// WebSocket close code.
    pub code: u16,
    /// At most 123 bytes. Lives as long as the configuration, which is as long as the process.
    pub reason: &'static str,
}
