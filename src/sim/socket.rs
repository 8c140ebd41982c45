//! One simulated connection, as the "kernel" between its two ends sees it.

use std::collections::VecDeque;

use crate::engine::ops::Batch;
use crate::hub::ConnId;

/// See the module. What is public is there for tests to look at.
#[derive(Debug, Default)]
pub struct Socket {
    pub shard: usize,
    pub listener: usize,
    /// Since the shard accepted it.
    pub id: Option<ConnId>,
    /// Bytes of the peer that the gateway has not received.
    pub inbound: VecDeque<u8>,
    /// The gateway does not want to receive.
    pub paused: bool,
    /// Everything that the kernel has taken from the gateway, whether the peer has read it or not.
    pub written: Vec<u8>,
    /// How much of it the shard knows to be written.
    pub sure: usize,
    /// The gateway has ended its side.
    pub outbound_ended: bool,
    /// The peer is gone; what is written goes nowhere.
    pub broken: bool,
    /// The gateway has closed the connection, or never accepted it.
    pub closed: bool,
    /// Everything that the gateway has sent, whether the kernel has taken it or not.
    pub sent: Vec<u8>,
    pub(super) slot: Option<u32>,
    /// The peer has ended its side, or the connection is broken.
    pub(super) inbound_ended: bool,
    pub(super) ended_told: bool,
    /// Inputs that may still arrive during a pause.
    pub(super) late: u8,
    /// Bytes that the gateway has written and the peer has not read.
    pub(super) outbound: VecDeque<u8>,
    /// The rest of a send that did not fit, and how much of it is written.
    pub(super) stalled: Option<(Vec<u8>, usize)>,
    /// A send has failed, and so will all others.
    pub(super) failed: bool,
    /// Where in `written` the last send began.
    pub(super) begun: usize,
}

impl Socket {
    /// Whether its shard has something to do about it.
    pub(super) fn stirs(&self, socket_bytes_max: usize) -> bool {
        let ended = self.inbound_ended && !self.ended_told;
        let arrives = (!self.inbound.is_empty() || ended) && (!self.paused || self.late > 0);
        let room = self.broken || self.outbound.len() < socket_bytes_max;
        !self.closed && (self.slot.is_none() || arrives || (self.stalled.is_some() && room))
    }

    /// Carries out a send; after an error so many bytes of it are written and it is stalled. If the
    /// peer is gone, the kernel may or may not have heard of that.
    pub(super) fn send(
        &mut self,
        batch: Batch,
        socket_bytes_max: usize,
        fails: bool,
    ) -> Result<(), usize> {
        let bytes = match batch {
            Batch::One(frame) => frame.to_vec(),
            Batch::Many(frames) => frames.iter().flat_map(|frame| frame.to_vec()).collect(),
            Batch::Own(bytes) => bytes,
        };
        assert!(!bytes.is_empty(), "a send of nothing");
        assert!(self.stalled.is_none(), "two sends on one socket would lose their order");
        assert!(!self.closed && !self.outbound_ended, "a send after the end");
        self.sent.extend_from_slice(&bytes);
        self.begun = self.written.len();
        self.failed |= self.broken && fails;
        let written = match (self.failed, self.broken) {
            (true, _) => 0,
            (_, true) => bytes.len(),
            _ => self.room(socket_bytes_max).min(bytes.len()),
        };
        self.take(&bytes[..written]);
        if written < bytes.len() {
            self.stalled = Some((bytes[written..].to_vec(), written));
            return Err(written);
        }
        self.known(written);
        Ok(())
    }

    /// Goes on with a stalled send; says how it ended when it did.
    pub(super) fn go_on(&mut self, socket_bytes_max: usize) -> Option<Result<(), usize>> {
        let (rest, mut written) = self.stalled.take()?;
        if self.broken {
            self.failed = true;
            return Some(Err(written));
        }
        let count = self.room(socket_bytes_max).min(rest.len());
        self.take(&rest[..count]);
        written += count;
        if count == rest.len() {
            return Some(Ok(()));
        }
        self.stalled = Some((rest[count..].to_vec(), written));
        None
    }

    /// The shard knows that so many bytes of the last send are written.
    pub(super) fn known(&mut self, written: usize) {
        self.sure = self.begun.saturating_add(written).min(self.written.len());
    }

    /// What of a stalled send the kernel has not taken.
    pub(super) fn stalled_bytes(&self) -> usize {
        self.stalled.as_ref().map_or(0, |(rest, _)| rest.len())
    }

    pub(super) fn shut_down(&mut self) {
        assert!(self.stalled.is_none(), "FIN would cut off a send");
        self.outbound_ended = true;
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
        self.stalled = None;
    }

    fn take(&mut self, bytes: &[u8]) {
        self.written.extend_from_slice(bytes);
        if !self.broken {
            self.outbound.extend(bytes);
        }
    }

    fn room(&self, socket_bytes_max: usize) -> usize {
        socket_bytes_max.saturating_sub(self.outbound.len())
    }
}
