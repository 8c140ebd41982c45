//! Topics of a cluster: what clients push goes to JetStream, and what consumers get comes from it.
//!
//! Messages never pass between shards before JetStream has them. A push takes room first; JetStream
//! having stored or refused it comes back by mail ([`super::QueueMail::Settled`]). The home of a
//! topic asks for messages while its consumers can take some, and says what became of them.
//! Costs: a request per topic and turn in which clients push, and one in which consumers take.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::hub::ConnId;
use crate::hub::queues::{Full, Outcome, Push, PushError, Room, Waiter};
use crate::metrics::DropReason;
use crate::shard::Engine;
use crate::shard::mailbox::QueueRequest;
use crate::spare::Look;
use crate::wire::connmix;

/// See the module.
#[derive(Debug)]
pub(super) struct Cluster {
    room: Arc<Room>,
    out: VecDeque<QueueRequest>,
}

impl Cluster {
    pub fn new(room: Arc<Room>) -> Cluster {
        Cluster { room, out: VecDeque::new() }
    }

    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.out);
    }

    pub fn push(&mut self, from: u8, topic: Arc<str>, messages: Vec<Push>) {
        self.out.push_back(QueueRequest::Push { from, topic, messages });
    }
}

impl Engine {
    /// Adds a message to this turn's request to JetStream.
    pub(super) fn push_to_store(
        &mut self,
        topic: &str,
        client: ConnId,
        event: &Bytes,
        waiter: Waiter,
    ) -> Result<(), PushError> {
        let text = connmix::event_text(event);
        let cluster = self.queueing.cluster.as_ref();
        if !cluster.is_some_and(|cluster| cluster.room.take(text.len())) {
            self.queueing.queues.tally.refused += 1;
            self.dropped(DropReason::QueueUnstored, 1);
            return Err(PushError::Unstored);
        }
        self.push_later(self.id, topic, Push { client, event: text, waiter });
        Ok(())
    }

    /// What became of messages of this shard's clients.
    pub(super) fn settled(&mut self, topic: &Arc<str>, count: u32, told: Vec<Outcome>) {
        self.queueing.queues.tally.pushed += u64::from(count);
        for outcome in told {
            if let Err(error) = outcome.result {
                self.queueing.queues.tally.pushed -= 1;
                self.queueing.queues.tally.refused += 1;
                self.dropped(reason(error), 1);
            }
            self.queueing.outcomes.push_back(outcome);
        }
        if self.queueing.full == Full::Block {
            self.pushes_accepted(topic, count);
        }
    }

    /// Tells JetStream what became of its messages, and asks for more.
    pub(super) fn queue_reports(&mut self) {
        let wants = !self.is_draining();
        let Some(cluster) = &mut self.queueing.cluster else { return };
        self.queueing.queues.take_reports(wants, |report| {
            cluster.out.push_back(QueueRequest::Report(report));
        });
    }

    /// The next message to the thread that speaks with JetStream.
    pub fn next_queue_request(&mut self) -> Option<QueueRequest> {
        self.queueing.cluster.as_mut()?.out.pop_front()
    }
}

fn reason(error: PushError) -> DropReason {
    match error {
        PushError::Unstored => DropReason::QueueUnstored,
        PushError::Full | PushError::TooManyTopics | PushError::BadTopic | PushError::TooLarge => {
            DropReason::QueueRefused
        }
    }
}
