//! What shards say to the thread that speaks with JetStream about the topics of the cluster.
//!
//! The channel has no bound of its own: pushes take room in [`crate::hub::queues::Room`] first, and
//! reports are about messages that were asked for.

use std::sync::Arc;

use crate::hub::queues::{self, Report};

/// One message of a shard.
#[derive(Debug)]
pub enum QueueRequest {
    /// Store what clients of shard `from` have pushed: their events as JSON texts. Answered by
    /// [`super::QueueMail::Settled`].
    Push { from: u8, topic: Arc<str>, messages: Vec<queues::Push> },
    /// What the home of a topic has to say of it. Messages come by [`super::QueueMail::Supplied`].
    Report(Report),
    /// The process ends.
    Stop,
}
