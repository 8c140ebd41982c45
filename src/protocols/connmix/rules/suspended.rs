//! An event whose rules wait: for what, and where they go on.

use std::time::Duration;

use bytes::Bytes;

use super::Event;
use crate::config::model::MessageType;
use crate::hub::context::Context;

/// A request to a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub method: Box<str>,
    pub url: String,
    pub body: Bytes,
    pub content_type: Box<str>,
    pub timeout: Duration,
    /// Whether the body of the answer matters.
    pub answer_bytes_max: usize,
}

/// What a connection waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A context key, a JSON string with its quotes.
    Key { key: Box<str>, timeout: Duration },
    /// The answer to a request.
    Call(Call),
    /// What becomes of the last push.
    Push,
}

/// An event whose rules have not been run to their end. Nothing of the connection may be handled
/// before it is resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspended {
    pub awaits: Answer,
    pub(super) place: Place,
    pub(super) event: Kept,
    pub(super) captures: Vec<Option<Box<str>>>,
}

/// The action that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub rule: usize,
    pub otherwise: bool,
    pub at: usize,
    /// Its number in `on_error` of the action at `at`.
    pub on_error: Option<usize>,
}

/// An event whose message is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Open,
    Message(MessageType, Box<[u8]>),
    Close,
}

impl Suspended {
    /// Whether what it waits for is there already.
    pub fn is_over(&self, context: &Context) -> bool {
        match &self.awaits {
            Answer::Key { key, .. } => context.get(key).is_some(),
            Answer::Call(_) | Answer::Push => false,
        }
    }

    /// The event.
    pub fn event(&self) -> Event<'_> {
        match &self.event {
            Kept::Open => Event::Open,
            Kept::Message(kind, data) => Event::Message(*kind, data),
            Kept::Close => Event::Close,
        }
    }
}
