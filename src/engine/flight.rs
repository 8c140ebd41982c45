//! What was queued for a backend connection and is not known to be written: whose each frame is.
//!
//! The outbox says how many frames one send takes, the driver how many bytes of it are out if it
//! did not end at once. From both follows which frames reached the socket, so that the shards whose
//! events they were can be told. Every frame of such a connection must be noted, in the order in
//! which it is queued. Costs: 8 bytes per frame.

use std::collections::VecDeque;

use crate::engine::ops::Frame;
use crate::engine::outbox::charge;
use crate::spare;

/// Who gives the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Shards whose clients tell workers.
    Workers,
    /// Homes of queue topics.
    Queues,
}

/// See the module.
#[derive(Debug)]
pub struct Flight {
    pub source: Source,
    /// Events that have come before the backend may have any ([`Flight::hold`]).
    early: Option<Vec<(u8, Frame)>>,
    /// Of each frame in the outbox or in flight: the shard whose event it is (`None`: an answer or
    /// a control frame), its bytes.
    order: VecDeque<(Option<u8>, u32)>,
    /// What the outbox charges for the frames that are nobody's event.
    own_bytes: usize,
    /// Frames of the last send that are not known to be written.
    flying: usize,
    /// Bytes of the last send that are known to be written and reported.
    flown_bytes: usize,
    /// The last send has stalled or failed: only what was confirmed of it is written.
    incomplete: bool,
}

impl Flight {
    /// Nothing was queued.
    pub fn new(source: Source) -> Flight {
        Flight {
            source,
            early: None,
            order: VecDeque::new(),
            own_bytes: 0,
            flying: 0,
            flown_bytes: 0,
            incomplete: false,
        }
    }

    /// A frame was queued.
    pub fn queued(&mut self, from: Option<u8>, bytes: usize) {
        self.order.push_back((from, bytes as u32));
        if from.is_none() {
            self.own_bytes += charge(bytes);
        }
    }

    /// Keeps the events that come from now on, until [`Flight::release`].
    pub fn hold(&mut self) {
        self.early = Some(Vec::new());
    }

    /// Gives the event back if it need not wait.
    pub fn keep(&mut self, from: u8, event: Frame) -> Option<Frame> {
        match &mut self.early {
            None => return Some(event),
            Some(early) => early.push((from, event)),
        }
        None
    }

    /// Gives what was kept, to be queued, and keeps nothing more.
    pub fn release(&mut self) -> Vec<(u8, Frame)> {
        self.early.take().unwrap_or_default()
    }

    /// Another frame of so many bytes, nobody's event, took the place of one that is nobody's event
    /// either and has `behind` frames behind it.
    pub fn replaced(&mut self, behind: usize, bytes: usize) {
        let last = self.order.len().saturating_sub(1);
        let Some((from, old)) = self.order.get_mut(last - behind.min(last)) else { return };
        debug_assert!(from.is_none(), "an event is not replaced");
        self.own_bytes = self.own_bytes - *old as usize + bytes;
        *old = bytes as u32;
    }

    /// Events that are not known to be written.
    pub fn events(&self) -> usize {
        let early = self.early.as_ref().map_or(0, Vec::len);
        early + self.order.iter().filter(|(from, _)| from.is_some()).count()
    }

    /// For tests: panics if an invariant does not hold. `queued` frames are in the outbox, which
    /// charges `charged` for them.
    pub fn audit(&self, queued: usize, charged: Option<usize>) {
        assert_eq!(self.order.len(), queued + self.flying, "frames of a backend");
        let charges = |frames: &mut dyn Iterator<Item = &(Option<u8>, u32)>| {
            frames.map(|(_, bytes)| charge(*bytes as usize)).sum::<usize>()
        };
        let waits = charges(&mut self.order.iter().skip(self.flying));
        assert!(charged.is_none_or(|charged| charged == waits), "bytes for a backend");
        let own = charges(&mut self.order.iter().filter(|(from, _)| from.is_none()));
        assert_eq!(self.own_bytes, own, "bytes of answers to a backend");
    }

    /// A send took so many frames.
    pub fn taken(&mut self, frames: u32) {
        self.flying = frames as usize;
        self.flown_bytes = 0;
        self.incomplete = false;
    }

    /// Of the last send `written` bytes are out, `usize::MAX` if all are. Calls `f` with the shard
    /// of each event that has been written since the last report. What TLS makes of the frames has
    /// other lengths, so an `encrypted` send counts when it is complete.
    pub fn confirm(&mut self, written: usize, encrypted: bool, mut f: impl FnMut(u8)) {
        self.incomplete = written != usize::MAX;
        if encrypted && self.incomplete {
            return;
        }
        while self.flying > 0
            && let Some(&(from, bytes)) = self.order.front()
            && written - self.flown_bytes >= bytes as usize
        {
            self.order.pop_front();
            self.flying -= 1;
            self.flown_bytes += bytes as usize;
            match from {
                Some(shard) => f(shard),
                None => self.own_bytes -= charge(bytes as usize),
            }
        }
        spare::emptied(&mut self.order);
    }

    /// The connection is gone. Calls `f` with the shard of each event that was written and not
    /// reported: a send that did not stall is.
    pub fn lost(&self, mut f: impl FnMut(u8)) {
        let flying = if self.incomplete { 0 } else { self.flying };
        self.order.iter().take(flying).filter_map(|(from, _)| *from).for_each(&mut f);
    }

    /// What is charged for answers that wait.
    pub fn own_bytes(&self) -> usize {
        self.own_bytes
    }

    /// Whether a send is under way whose end is not known yet, and which has not stalled.
    pub fn is_unsettled(&self) -> bool {
        self.flying > 0 && !self.incomplete
    }

    /// Frames that wait or fly, and those of them that fly.
    #[cfg(test)]
    fn frames(&self) -> (usize, usize) {
        (self.order.len(), self.flying)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirm(flight: &mut Flight, written: usize) -> Vec<u8> {
        let mut shards = Vec::new();
        flight.confirm(written, false, |shard| shards.push(shard));
        shards
    }

    #[test]
    fn frames_count_as_written_when_their_last_byte_is() {
        let mut flight = Flight::new(Source::Workers);
        for (from, bytes) in [(Some(1), 10), (None, 5), (Some(0), 10), (Some(1), 3)] {
            flight.queued(from, bytes);
        }
        flight.taken(3);
        assert_eq!(confirm(&mut flight, 14), [1]);
        assert_eq!((flight.own_bytes(), flight.frames()), (charge(5), (3, 2)));
        let mut lost = Vec::new();
        flight.lost(|shard| lost.push(shard));
        assert_eq!(lost, [0; 0], "a send that stalled has written only what was confirmed");
        assert_eq!(confirm(&mut flight, usize::MAX), [0]);
        flight.taken(1);
        flight.lost(|shard| lost.push(shard));
        assert_eq!(lost, [1]);
    }

    #[test]
    fn a_frame_that_replaces_another_has_its_own_length() {
        let mut flight = Flight::new(Source::Workers);
        for (from, bytes) in [(Some(1), 10), (None, 5), (Some(0), 10)] {
            flight.queued(from, bytes);
        }
        flight.replaced(1, 9);
        assert_eq!(flight.own_bytes(), charge(9));
        flight.taken(3);
        assert_eq!(confirm(&mut flight, 28), [1]);
        assert_eq!(confirm(&mut flight, 29), [0]);
        assert_eq!(flight.own_bytes(), 0);
    }

    #[test]
    fn an_encrypted_send_counts_when_it_is_complete() {
        let mut flight = Flight::new(Source::Workers);
        flight.queued(Some(2), 10);
        flight.taken(1);
        flight.confirm(1000, true, |_| panic!("nothing is known of it"));
        let mut shards = Vec::new();
        flight.confirm(usize::MAX, true, |shard| shards.push(shard));
        assert_eq!(shards, [2]);
    }
}
