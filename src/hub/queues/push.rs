//! Messages on their way to their topics, and what becomes of them.

use bytes::Bytes;

use super::Queues;
use crate::hub::ConnId;

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushError {
    /// The topic is full.
    Full,
    /// It would be one topic more than the process may have.
    TooManyTopics,
    /// The name is empty or longer than 255 bytes.
    BadTopic,
    /// The message is larger than a consumer's window, or than the store takes.
    TooLarge,
    /// The store of the cluster did not take it in time, or too much waits for it.
    Unstored,
}

impl PushError {
    /// In words, for the pusher.
    pub const fn text(self) -> &'static str {
        match self {
            PushError::Full => "queue is full",
            PushError::TooManyTopics => "too many queues",
            PushError::BadTopic => "not a queue name",
            PushError::TooLarge => "message too big for queue",
            PushError::Unstored => "queue not available",
        }
    }
}

/// A message on its way to a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Who pushes it.
    pub client: ConnId,
    pub event: Bytes,
    pub waiter: Waiter,
}

/// Who waits until it is known what became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiter {
    Nobody,
    /// The rules of its pusher.
    Client,
    /// The rules about the end of its pusher.
    Departed,
}

/// What became of a message, for its pusher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub client: ConnId,
    pub waiter: Waiter,
    pub result: Result<(), PushError>,
}

/// Where topics have their home, as one shard sees it.
#[derive(Clone, Copy, Debug)]
pub struct Homes {
    /// This shard, and how many there are.
    pub shard: u8,
    pub shards: usize,
    /// Topics are those of a cluster.
    pub cluster: bool,
}

impl Homes {
    /// Whether a push to this topic is told at once what became of it.
    pub fn tell_at_once(&self, topic: &str) -> bool {
        !self.cluster && Queues::home(topic, self.shards) == self.shard
    }
}
