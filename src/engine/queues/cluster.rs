//! Topics of a cluster: what clients push goes to JetStream, and what consumers get comes from it.
//!
//! Messages never pass between shards before JetStream has them. A push takes room first; JetStream
//! having stored or refused it comes back by mail ([`super::QueueMail::Settled`]). The home of a
//! topic asks for messages while its consumers can take some, and says what became of them.
//! Costs: a request per topic and turn in which clients push, and one in which consumers take.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::hub::queues::{Push, Room};
use crate::lists::letters::QueueRequest;
use crate::spare::Look;

/// See the module.
#[derive(Debug)]
pub(super) struct Cluster {
    pub room: Arc<Room>,
    pub out: VecDeque<QueueRequest>,
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
