//! How long messages wait until they are written to connmix clients (connmix section 8.3): samples.
//!
//! A sample begins with the turn in which this shard takes up a message, at its first client of a
//! kind, and ends when that client's socket has taken all that it was sent. Of each series one
//! sample is under way at a time, and one of each begins in a millisecond at most. Costs: nothing
//! for messages to other clients; a comparison for most of these.

use crate::engine::Engine;
use crate::engine::clock::Now;
use crate::engine::conns::Flags;
use crate::hub::ConnId;
use crate::metrics::{SendSeries, SendTimes};

/// See the module.
#[derive(Debug, Default)]
pub struct Sends {
    samples: [Option<Sample>; 4],
    /// What is being carried out comes from another node.
    pub forwarded: bool,
    /// When a sample of each series began last, milliseconds.
    began_ms: [u64; 4],
    times: Option<Box<SendTimes>>,
}

#[derive(Debug)]
struct Sample {
    conn: ConnId,
    since_us: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Queued,
    /// All that waited for the client was handed over in this turn.
    Taken,
    /// It was written by then, microseconds, unless the send has stalled.
    Written(u64),
    Stalled,
}

impl Sends {
    /// Begins a sample at this client, over TCP or over WebSocket, which has been given a message.
    pub fn begin(&mut self, conn: ConnId, websocket: bool, now: &Now) {
        let series = SendSeries::new(websocket, self.forwarded);
        let place = &mut self.samples[series.index()];
        if place.is_none() && now.ms != self.began_ms[series.index()] {
            *place = Some(Sample { conn, since_us: now.us, state: State::Queued });
            self.began_ms[series.index()] = now.ms;
        }
    }

    /// A send to this client has taken all that waited for it.
    pub fn taken(&mut self, conn: ConnId) {
        let of = |sample: &&mut Sample| sample.conn == conn && sample.state == State::Queued;
        let samples = self.samples.iter_mut().flatten();
        samples.filter(of).for_each(|sample| sample.state = State::Taken);
    }

    fn is_taken(&self) -> bool {
        self.samples.iter().flatten().any(|sample| sample.state == State::Taken)
    }

    fn note(&mut self, series: SendSeries, until_us: u64, now_ms: u64) {
        let Some(sample) = self.samples[series.index()].take() else { return };
        let time_us = until_us.saturating_sub(sample.since_us);
        self.times.get_or_insert_default().note(series, time_us, now_ms);
    }

    /// What has been noted, if anything ever was.
    pub fn times(&mut self) -> Option<&mut SendTimes> {
        self.times.as_deref_mut()
    }
}

impl Engine {
    /// Whether it matters when the operations of this turn are done.
    pub fn asks_for_time(&self) -> bool {
        self.sends.is_taken()
    }

    /// The operations of this turn were done by `now_us`, but for sends that stall.
    pub fn carried_out(&mut self, now_us: u64) {
        for sample in self.sends.samples.iter_mut().flatten() {
            if sample.state == State::Taken {
                sample.state = State::Written(now_us);
            }
        }
    }
}

impl Engine {
    /// Ends the samples of messages that are written, and those of clients that are gone.
    pub(crate) fn sends_end(&mut self) {
        for series in SendSeries::all() {
            let sends = &mut self.sends;
            let Some(sample) = &mut sends.samples[series.index()] else { continue };
            let slot = self.conns.slot(sample.conn);
            let Some(conn) = slot.map(|slot| &self.conns[slot]) else {
                sends.samples[series.index()] = None;
                continue;
            };
            let flags = conn.flags;
            match sample.state {
                _ if flags.has(Flags::GONE) => sends.samples[series.index()] = None,
                // There was no room for it.
                State::Queued if conn.outbox.is_empty() => sends.samples[series.index()] = None,
                State::Queued => {}
                _ if flags.has(Flags::STALLED) => sample.state = State::Stalled,
                State::Written(until_us) => sends.note(series, until_us, self.now.ms),
                State::Taken | State::Stalled => sends.note(series, self.now.us, self.now.ms),
            }
        }
    }
}
