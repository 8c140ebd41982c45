//! connmix clients (connmix section 7): what their messages mean, by the rules of their server.
//!
//! Sans-io: [`Run`] takes an event of a connection and what is known about it, and fills
//! [`Effects`], the list of what is to be done, in order. The rules were compiled when the
//! configuration was read ([`crate::protocols::connmix::config::server::ConnmixServer`]).
//!
//! Invariants: effects of one event are those of the first rule that fits, and of further ones only
//! after `continue`; after an action that waits nothing follows until [`Run::resume`]. What a
//! client sends decides about channel and queue names only as far as a rule says.
//! Costs: a message is read as JSON at most once, and only if a rule needs it; a message that is
//! only pushed to a queue allocates nothing here. Reading the context allocates nothing.

mod event;
mod found;
mod head;
mod render;
mod run;
mod suspended;

pub use self::head::Head;
pub use self::run::{Effect, Effects, Name, Resumed, Run};
pub use self::suspended::{Answer, Call, Suspended};

use std::net::SocketAddr;

use crate::config::model::MessageType;
use crate::hub::queues::Homes;
use crate::protocols::connmix::limits::CHANNEL_BYTES_MAX;

/// Whom rules are about, and what has happened.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub client_id: i64,
    pub node: u16,
    pub homes: Homes,
    pub peer: SocketAddr,
    /// The handshake of a WebSocket client, if the server keeps it; `None` of TCP clients.
    pub head: Option<&'a Head>,
    /// Not a WebSocket.
    pub stream: bool,
    pub event: Event<'a>,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Open,
    /// Texts are valid UTF-8.
    Message(MessageType, &'a [u8]),
    Close,
}

/// Whether this may be the name of a channel (section 4): 1 to 255 bytes without spaces and
/// control characters.
fn is_channel(name: &str) -> bool {
    let fits = !name.is_empty() && name.len() <= CHANNEL_BYTES_MAX;
    fits && !name.chars().any(|c| c == ' ' || c.is_control())
}
