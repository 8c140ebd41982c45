//! What shards tell each other about IM.

use crate::hub::ConnId;
use crate::protocols::im::wire::proto::CrMessage;

/// A letter to IM.
#[derive(Debug)]
pub enum Letter {
    /// A message for a room whose home this shard is.
    Chat(Box<Chat>),
}

/// A message on its way to the home shard of its room; it lacks only the time.
#[derive(Debug)]
pub struct Chat {
    pub topic: Box<str>,
    pub message: CrMessage,
    /// The connection that gets no copy.
    pub sender: Option<ConnId>,
    /// Members that speak other protocols have it already.
    pub wrapped: bool,
}
