//! Events of clients to workers, from both sides: this shard's clients of any protocol, and the
//! workers that are connected here (netsvr sections 3.7 and 6.1). What can not be delivered is
//! counted by reason.

use bytes::Bytes;

use crate::config::model::WorkerFull;
use crate::engine::Engine;
use crate::engine::links::{Event, EventKind, Placed};
use crate::engine::ops::Frame;
use crate::hub::{ConnId, Hub};
use crate::lists::letters::Mail;
use crate::metrics::DropReason;

impl Engine {
    /// Tells a worker about a client of this shard; the event is encoded only if somebody wants it.
    pub(crate) fn event(&mut self, slot: u32, kind: EventKind, encode: impl FnOnce(&Hub) -> Bytes) {
        let client = self.conns.id(slot);
        let mut sticky = self.conns[slot].worker();
        if !self.links.wanted(kind) {
            return self.dropped(DropReason::NoWorker, 1);
        }
        let may_drop = self.settings.workers.on_full == WorkerFull::Drop;
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

    pub(crate) fn send_event(&mut self, worker: ConnId, frame: Bytes) {
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
    pub(crate) fn deliver_event(&mut self, from: u8, worker: ConnId, frame: Bytes) {
        if let Some(slot) = self.conns.slot(worker) {
            self.push_event(slot, from, Frame::new(frame));
        }
    }

    pub(crate) fn place_close(&mut self, event: Event, mut sticky: Option<ConnId>) {
        let may_drop = self.settings.workers.on_full == WorkerFull::Drop;
        if may_drop && !self.links.ready(EventKind::Close, event.client, sticky) {
            self.counters.events_failed += 1;
            return self.dropped(DropReason::WorkerFull, 1);
        }
        self.place(event, &mut sticky);
    }

    /// A worker is gone: what it had not been sent goes to others.
    pub(crate) fn worker_gone(&mut self, worker: ConnId, written: u32) {
        let again = self.links.gone(worker, written);
        self.counters.events_rerouted += again as u64;
        self.drop_unwanted_events();
    }

    /// Gives up the events that waited for room if nobody is left to take them.
    pub(crate) fn drop_unwanted_events(&mut self) {
        let lost = self.links.drop_unwanted() as u64;
        self.counters.events_failed += lost;
        self.dropped(self.at_end(DropReason::WorkerLost), lost);
    }

    /// Whether a client that waits can go on.
    pub(crate) fn has_room(&mut self, id: ConnId, slot: u32) -> bool {
        let sticky = self.conns[slot].worker();
        let opening = self.row(slot).opening;
        let kind = if opening { EventKind::Open } else { EventKind::Message };
        self.links.ready(kind, id, sticky)
    }
}
