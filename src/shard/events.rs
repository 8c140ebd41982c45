//! Events of clients to workers, from both sides: this shard's clients, and the workers that are
//! connected here (netsvr sections 3.7 and 6.1). What can not be delivered is counted by reason.

use bytes::Bytes;

use crate::config::model::{WorkerFull, WorkerPick};
use crate::hub::{ConnId, Hub};
use crate::metrics::DropReason;
use crate::shard::conns::Flags;
use crate::shard::links::{Event, EventKind, Placed};
use crate::shard::lists::kind;
use crate::shard::mailbox::Mail;
use crate::shard::ops::Frame;
use crate::shard::{Engine, Shard};

/// Clients that are given room in one turn, so that a turn stays short.
const GIVEN_PER_TURN: usize = 256;

impl Engine {
    /// Tells a worker about a client of this shard; the event is encoded only if somebody wants it.
    pub(super) fn event(&mut self, slot: u32, kind: EventKind, encode: impl FnOnce(&Hub) -> Bytes) {
        let client = self.conns.id(slot);
        let mut sticky = self.conns[slot].worker();
        if !self.links.wanted(kind) {
            return self.dropped(DropReason::NoWorker, 1);
        }
        let may_drop = self.config.netsvr.worker.on_full == WorkerFull::Drop;
        if may_drop && !self.links.ready(kind, client, sticky) {
            self.counters.events_failed += 1;
            return self.dropped(DropReason::WorkerFull, 1);
        }
        let frame = encode(&self.hub);
        self.place(Event { kind, client, frame }, &mut sticky);
        self.conns[slot].set_worker(sticky);
    }

    fn place(&mut self, event: Event, sticky: &mut Option<ConnId>) {
        let frame = event.frame.clone();
        match self.links.place(event, sticky) {
            Placed::To(worker) => self.send_event(worker, frame),
            Placed::Kept => {}
            Placed::NoWorker => self.dropped(DropReason::NoWorker, 1),
        }
    }

    fn send_event(&mut self, worker: ConnId, frame: Bytes) {
        self.counters.events += 1;
        self.counters.event_bytes += frame.len() as u64;
        if worker.shard() == self.id {
            self.deliver_event(self.id, worker, frame);
        } else {
            self.post(worker.shard(), Mail::Event { from: self.id, worker, frame });
        }
    }

    /// An event for a worker of this shard. If the worker is gone the event is not lost: its shard
    /// keeps it until it hears so, and gives it to the next one.
    pub(super) fn deliver_event(&mut self, from: u8, worker: ConnId, frame: Bytes) {
        if let Some(slot) = self.conns.slot(worker) {
            self.push_event(slot, from, Frame::new(frame));
        }
    }

    pub(super) fn place_close(&mut self, event: Event, mut sticky: Option<ConnId>) {
        let may_drop = self.config.netsvr.worker.on_full == WorkerFull::Drop;
        if may_drop && !self.links.ready(EventKind::Close, event.client, sticky) {
            self.counters.events_failed += 1;
            return self.dropped(DropReason::WorkerFull, 1);
        }
        self.place(event, &mut sticky);
    }

    /// A worker is gone: what it had not been sent goes to others.
    pub(super) fn worker_gone(&mut self, worker: ConnId, written: u32) {
        let again = self.links.gone(worker, written);
        self.counters.events_rerouted += again as u64;
        self.drop_unwanted_events();
    }

    /// Gives up the events that waited for room if nobody is left to take them.
    pub(super) fn drop_unwanted_events(&mut self) {
        let lost = self.links.drop_unwanted() as u64;
        self.counters.events_failed += lost;
        self.dropped(self.at_end(DropReason::WorkerLost), lost);
    }

    /// Whether a client that waits can go on.
    fn has_room(&mut self, id: ConnId, slot: u32) -> bool {
        let sticky = self.conns[slot].worker();
        let opening = self.row(slot).opening;
        let kind = if opening { EventKind::Open } else { EventKind::Message };
        self.links.ready(kind, id, sticky)
    }
}

impl Shard {
    /// Gives the room in the workers' queues to the backlog, then to the clients that wait.
    pub(super) fn give_room(&mut self) {
        while let Some((worker, frame)) = self.engine.links.unkeep() {
            self.engine.send_event(worker, frame);
        }
        let sticky = self.engine.config.netsvr.worker.pick == WorkerPick::Sticky;
        let mut given = 0;
        for _ in 0..self.engine.waiting.len() {
            let Some(id) = self.engine.waiting.pop_front() else { break };
            let Some(slot) = self.engine.conns.slot(id) else { continue };
            let flags = self.engine.conns[slot].flags;
            if flags.has(Flags::GONE) || !flags.has(Flags::WAITING) {
                continue;
            }
            if !self.engine.has_room(id, slot) {
                // Others may have another worker only if workers are sticky.
                if !sticky {
                    self.engine.waiting.push_front(id);
                    break;
                }
                self.engine.waiting.push_back(id);
                continue;
            }
            self.engine.conns[slot].flags.clear(Flags::WAITING);
            match self.engine.conns[slot].kind {
                kind::OPENING => self.netsvr.try_open(&mut self.engine, slot),
                _ => self.engine.read_on(slot),
            }
            // The next one finds what this one has left.
            self.settle_all();
            given += 1;
            if given == GIVEN_PER_TURN {
                break;
            }
        }
        self.engine.room_left = given == GIVEN_PER_TURN;
    }
}
