//! What threads tell shards about netsvr, and what shards ask of its service.

use bytes::Bytes;

use crate::hub::ConnId;
use crate::metrics::Rates;
use crate::protocols::netsvr::large::{Job, Made};
use crate::protocols::netsvr::wire::Verdict;

/// A letter to netsvr.
#[derive(Debug)]
pub enum Letter {
    /// What became of [`ServiceRequest::Make`].
    Made { number: u64, made: Made },
    /// What this shard counted, for the `Metrics` command.
    AskRates { from: u8, number: u64 },
    /// The answer to it.
    Rates { number: u64, rates: Box<Rates> },
    /// A worker unregistered: give it nothing more, then tell its shard so.
    WorkerLeaving { worker: ConnId },
    /// Answer to `WorkerLeaving`: one more shard gives it nothing any more.
    WorkerLeft { worker: ConnId },
    /// A backend connection of shard `from` asks for this worker to be unregistered.
    Unregister { from: u8, number: u64, worker: ConnId },
    /// The answer to it, when the last event before it has been written.
    Unregistered { number: u64 },
    /// What the HTTP callback at open said; `None`: it failed.
    Opened { conn: ConnId, verdict: Option<Box<Verdict>> },
    /// The HTTP callback at close is over, whatever it said.
    ClosedCallback { number: u64 },
}

/// What a shard asks of the service of netsvr. The answer comes as a [`Letter`].
#[derive(Debug)]
pub enum ServiceRequest {
    /// May this connection be opened? (netsvr section 7.1) Answered by [`Letter::Opened`].
    OnOpen { conn: ConnId, body: Bytes },
    /// A connection was closed (netsvr section 7.2). Answered by [`Letter::ClosedCallback`].
    OnClose { shard: u8, number: u64, body: Bytes },
    /// Put a large answer together. Answered by [`Letter::Made`]. A shard has one at a time.
    Make(Box<Job>),
}

impl Letter {
    /// The answer to [`ServiceRequest::Make`]; calls `beat` now and then while it takes its time.
    pub fn made(job: Job, beat: impl FnMut()) -> Letter {
        Letter::Made { number: job.number, made: job.make(beat) }
    }
}
