//! What shards say to the thread that speaks with JetStream about the topics of the cluster.
//!
//! The channel has no bound of its own: pushes take room in [`crate::hub::queues::Room`] first, and
//! reports are about messages that were asked for.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::hub::queues::{self, Report};
use crate::life::Gone;

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

/// The way to that thread; one clone per shard.
#[derive(Clone, Debug)]
pub struct QueueSender(mpsc::UnboundedSender<QueueRequest>, Gone);

impl QueueSender {
    /// The channel.
    pub fn new(gone: Gone) -> (QueueSender, mpsc::UnboundedReceiver<QueueRequest>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (QueueSender(sender, gone), receiver)
    }

    /// Hands a message over. A thread that has ended is the end of the gateway.
    pub fn send(&self, request: QueueRequest) {
        if self.0.send(request).is_err() {
            self.1.notice();
        }
    }
}
