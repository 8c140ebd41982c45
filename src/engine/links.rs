//! Events on their way from this shard's clients to workers, on whichever shard these are
//! connected.
//!
//! The shard keeps every event until the worker's shard says that it was written to the worker's
//! socket. So when a worker dies or leaves, what it had not been sent is here, in order, and goes
//! to the next worker. A queue that is full makes the clients wait ([`Links::ready`]); events that
//! can not wait (closes) and events of a dead worker queue up in the backlog, which goes out first.
//!
//! Invariants: a link holds at most its share of the limits plus one event; while the backlog holds
//! something no other event overtakes it. Costs: one queue entry per event, no copy of its bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::model::WorkerPick;
use crate::engine::look;
use crate::hub::ConnId;
use crate::spare::Look;

/// netsvr section 4.2; the values are the bits of a worker's mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EventKind {
    Open = 1,
    Close = 2,
    Message = 4,
}

impl EventKind {
    fn index(self) -> usize {
        (self as u8).trailing_zeros() as usize
    }
}

/// A registered worker, as every shard knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerInfo {
    /// The worker's connection.
    pub conn: ConnId,
    /// The name it was given at registration (netsvr section 3.8).
    pub name: String,
    /// The events it wants: bits of [`EventKind`].
    pub events: i32,
}

/// An event of a client, encoded for its worker.
#[derive(Clone, Debug)]
pub struct Event {
    pub kind: EventKind,
    pub client: ConnId,
    pub frame: Bytes,
}

/// An event that waits, and the worker that its client had by then.
#[derive(Clone, Debug)]
struct Kept {
    event: Event,
    own: Option<ConnId>,
}

/// What became of an event.
#[derive(Debug, PartialEq, Eq)]
pub enum Placed {
    /// Give it to this worker.
    To(ConnId),
    /// It waits in the backlog.
    Kept,
    /// No worker wants it.
    NoWorker,
}

/// Limits of one shard's share of a worker's queue.
#[derive(Clone, Copy, Debug)]
pub struct LinkLimits {
    pub frames_max: usize,
    pub bytes_max: usize,
}

/// The links of one shard to all workers of the process.
#[derive(Debug)]
pub struct Links {
    links: Vec<Link>,
    /// Round-robin position per kind of event; starts anywhere.
    next: [usize; 3],
    backlog: VecDeque<Kept>,
    backlog_bytes: usize,
    limits: LinkLimits,
    pick: WorkerPick,
}

#[derive(Debug)]
struct Link {
    worker: Arc<WorkerInfo>,
    unwritten: VecDeque<Event>,
    bytes: usize,
}

impl Link {
    fn wants(&self, kind: EventKind) -> bool {
        self.worker.events & kind as i32 != 0
    }

    fn has_room(&self, limits: &LinkLimits) -> bool {
        self.unwritten.len() < limits.frames_max && self.bytes < limits.bytes_max
    }
}

impl Links {
    /// No workers yet; `start` is where round-robin begins.
    pub fn new(limits: LinkLimits, pick: WorkerPick, start: usize) -> Links {
        Links {
            links: Vec::new(),
            next: [start; 3],
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            limits,
            pick,
        }
    }

    /// Adds a worker behind the others.
    pub fn add(&mut self, worker: Arc<WorkerInfo>) {
        debug_assert!(self.find(worker.conn).is_none());
        self.links.push(Link { worker, unwritten: VecDeque::new(), bytes: 0 });
    }

    /// The worker with this registration name.
    pub fn named(&self, name: &str) -> Option<ConnId> {
        self.links.iter().find(|link| link.worker.name == name).map(|link| link.worker.conn)
    }

    /// The registration name of a worker.
    pub fn name_of(&self, worker: ConnId) -> Option<String> {
        self.links.iter().find(|link| link.worker.conn == worker).map(|l| l.worker.name.clone())
    }

    /// The workers, with what this shard has for each.
    pub fn workers(&self) -> Vec<look::Worker> {
        let of = |link: &Link| look::Worker {
            conn: link.worker.conn,
            name: link.worker.name.clone(),
            events: link.worker.events,
            frames: link.unwritten.len(),
            bytes: link.bytes,
        };
        self.links.iter().map(of).collect()
    }

    /// Workers that are registered.
    fn len(&self) -> usize {
        self.links.iter().filter(|link| link.worker.events != 0).count()
    }

    /// Whether nobody is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether any worker wants events of this kind.
    pub fn wanted(&self, kind: EventKind) -> bool {
        self.links.iter().any(|link| link.wants(kind))
    }

    /// Whether an event of this kind can be placed now without growing a queue past its limit. With
    /// no worker for the kind the answer is yes: the event is dropped and counted.
    pub fn ready(&self, kind: EventKind, client: ConnId, sticky: Option<ConnId>) -> bool {
        if !self.wanted(kind) {
            return true;
        }
        if !self.backlog.is_empty() {
            return false;
        }
        if self.pick == WorkerPick::Sticky {
            let place = self.sticky(kind, client, sticky);
            return place.is_none_or(|place| self.links[place].has_room(&self.limits));
        }
        self.links.iter().any(|link| link.wants(kind) && link.has_room(&self.limits))
    }

    /// Places an event: with the next worker that has room, or at the end of the backlog. `sticky`
    /// is the client's worker; if picking is sticky and that worker is gone, it becomes the one
    /// chosen.
    pub fn place(&mut self, event: Event, sticky: &mut Option<ConnId>) -> Placed {
        if !self.wanted(event.kind) {
            return Placed::NoWorker;
        }
        let place = match self.backlog.is_empty() {
            true => self.choose(&event, *sticky),
            false => None,
        };
        let Some(place) = place else {
            self.backlog_bytes += event.frame.len();
            self.backlog.push_back(Kept { event, own: *sticky });
            return Placed::Kept;
        };
        let conn = self.give(place, event);
        if self.pick == WorkerPick::Sticky && sticky.is_none_or(|old| self.serving(old).is_none()) {
            *sticky = Some(conn);
        }
        Placed::To(conn)
    }

    /// Takes the next event of the backlog that can go out now, and says where.
    pub fn unkeep(&mut self) -> Option<(ConnId, Bytes)> {
        let Kept { event, own } = self.backlog.front()?.clone();
        let place = self.choose(&event, own)?;
        self.backlog.pop_front();
        self.backlog_bytes -= event.frame.len();
        let frame = event.frame.clone();
        Some((self.give(place, event), frame))
    }

    /// Takes the events of the backlog that no worker wants any more; returns how many.
    pub fn drop_unwanted(&mut self) -> usize {
        let links = &self.links;
        let before = self.backlog.len();
        self.backlog.retain(|kept| links.iter().any(|link| link.wants(kept.event.kind)));
        self.backlog_bytes = self.backlog.iter().map(|kept| kept.event.frame.len()).sum();
        before - self.backlog.len()
    }

    /// The worker's shard has written so many of this shard's events.
    pub fn written(&mut self, worker: ConnId, count: u32) {
        let Some(place) = self.find(worker) else { return };
        let link = &mut self.links[place];
        debug_assert!(count as usize <= link.unwritten.len());
        let count = (count as usize).min(link.unwritten.len());
        for event in link.unwritten.drain(..count) {
            link.bytes -= event.frame.len();
        }
    }

    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.backlog);
        self.links.iter_mut().for_each(|link| look.at(&mut link.unwritten));
    }

    /// Gives the worker nothing more; what it has been given stays until written.
    pub fn leave(&mut self, worker: ConnId) {
        if let Some(place) = self.find(worker) {
            let link = &mut self.links[place];
            link.worker = Arc::new(WorkerInfo { events: 0, ..(*link.worker).clone() });
        }
    }

    /// The worker is gone. What it was given and not sent goes to the front of the backlog, in
    /// order; returns how many events that are.
    pub fn gone(&mut self, worker: ConnId, written: u32) -> usize {
        self.written(worker, written);
        let Some(place) = self.find(worker) else { return 0 };
        let link = self.links.remove(place);
        self.backlog_bytes += link.bytes;
        for event in link.unwritten.iter().rev() {
            self.backlog.push_front(Kept { event: event.clone(), own: None });
        }
        link.unwritten.len()
    }

    /// Events that are not written yet, and their bytes.
    pub fn queued(&self) -> (usize, usize) {
        let frames = self.links.iter().map(|link| link.unwritten.len()).sum::<usize>();
        let bytes = self.links.iter().map(|link| link.bytes).sum::<usize>();
        (frames + self.backlog.len(), bytes + self.backlog_bytes)
    }

    /// For tests: panics if an invariant does not hold, with so many workers at one time. Returns
    /// how many there are on a shard.
    pub(crate) fn audit(&self, shard: u8, workers_max: usize) -> usize {
        let LinkLimits { frames_max, bytes_max } = self.limits;
        let kept: usize = self.backlog.iter().map(|kept| kept.event.frame.len()).sum();
        assert_eq!(self.backlog_bytes, kept, "bytes in the backlog");
        // Besides closes the backlog has only what workers had been given that are lost.
        let waits = |kept: &&Kept| kept.event.kind != EventKind::Close;
        let again = self.backlog.iter().filter(waits).count();
        assert!(again <= workers_max * frames_max, "{again} in the backlog");
        for link in &self.links {
            let last = link.unwritten.back().map_or(0, |event| event.frame.len());
            let bytes: usize = link.unwritten.iter().map(|event| event.frame.len()).sum();
            assert_eq!(link.bytes, bytes, "bytes for {:?}", link.worker);
            assert!(link.unwritten.len() <= frames_max, "frames for {:?}", link.worker);
            assert!(link.bytes < bytes_max + last.max(1), "bytes for {:?}", link.worker);
        }
        self.links.iter().filter(|link| link.worker.conn.shard() == shard).count()
    }

    fn give(&mut self, place: usize, event: Event) -> ConnId {
        let link = &mut self.links[place];
        link.bytes += event.frame.len();
        link.unwritten.push_back(event);
        link.worker.conn
    }

    fn find(&self, worker: ConnId) -> Option<usize> {
        self.links.iter().position(|link| link.worker.conn == worker)
    }

    /// The place of a worker that still takes events.
    fn serving(&self, worker: ConnId) -> Option<usize> {
        self.find(worker).filter(|&place| self.links[place].worker.events != 0)
    }

    /// The worker of a client when picking is sticky: its own while that serves, else the one with
    /// the highest hash, so that events which are given again and new ones find the same worker.
    fn sticky(&self, kind: EventKind, client: ConnId, own: Option<ConnId>) -> Option<usize> {
        let own = own.and_then(|own| self.serving(own));
        if let Some(place) = own.filter(|&place| self.links[place].wants(kind)) {
            return Some(place);
        }
        let takers = (0..).zip(&self.links).filter(|(_, link)| link.wants(kind));
        let weight = |link: &Link| hash((client, link.worker.conn));
        takers.max_by_key(|(_, link)| weight(link)).map(|(place, _)| place)
    }

    /// The next worker in turn that wants the event and has room; with sticky picking the client's.
    fn choose(&mut self, event: &Event, own: Option<ConnId>) -> Option<usize> {
        if self.pick == WorkerPick::Sticky {
            let place = self.sticky(event.kind, event.client, own)?;
            return self.links[place].has_room(&self.limits).then_some(place);
        }
        let takers = self.links.iter().filter(|link| link.wants(event.kind)).count();
        let turn = &mut self.next[event.kind.index()];
        for _ in 0..takers {
            *turn = (*turn + 1) % takers;
            let mut wanting = (0..).zip(&self.links).filter(|(_, link)| link.wants(event.kind));
            if let Some((place, link)) = wanting.nth(*turn)
                && link.has_room(&self.limits)
            {
                return Some(place);
            }
        }
        None
    }
}

fn hash(value: impl std::hash::Hash) -> u64 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    BuildHasherDefault::<DefaultHasher>::default().hash_one(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: ConnId = ConnId::new(0, 9, 1);

    fn worker(slot: u32, events: i32) -> Arc<WorkerInfo> {
        let conn = ConnId::new(0, slot, 1);
        Arc::new(WorkerInfo { conn, name: format!("worker {slot}"), events })
    }

    fn links(frames_max: usize, pick: WorkerPick) -> Links {
        Links::new(LinkLimits { frames_max, bytes_max: 1000 }, pick, 0)
    }

    fn event(name: &'static str) -> Event {
        let frame = Bytes::from_static(name.as_bytes());
        Event { kind: EventKind::Message, client: CLIENT, frame }
    }

    fn ready(links: &Links, kind: EventKind) -> bool {
        links.ready(kind, CLIENT, None)
    }

    fn place(links: &mut Links, name: &'static str) -> Placed {
        links.place(event(name), &mut None)
    }

    #[test]
    fn events_take_turns_and_skip_a_full_worker() {
        let mut links = links(2, WorkerPick::RoundRobin);
        assert_eq!(place(&mut links, "nobody"), Placed::NoWorker);
        let workers = [worker(1, 7), worker(2, 4), worker(3, 1)];
        workers.iter().for_each(|worker| links.add(worker.clone()));
        let (one, two) = (workers[0].conn, workers[1].conn);
        let turns = ["a", "b", "c", "d"].map(|name| place(&mut links, name));
        let first = [Placed::To(two), Placed::To(one), Placed::To(two), Placed::To(one)];
        assert_eq!(turns, first);
        assert!(!ready(&links, EventKind::Message));
        assert!(ready(&links, EventKind::Open), "the third worker has room for opens");
        links.written(one, 1);
        assert!(ready(&links, EventKind::Message));
        assert_eq!(place(&mut links, "e"), Placed::To(one));
        assert_eq!(place(&mut links, "f"), Placed::Kept);
    }

    #[test]
    fn what_a_dead_worker_was_not_sent_goes_on_in_order() {
        let mut links = links(3, WorkerPick::RoundRobin);
        links.add(worker(1, 4));
        for name in ["a", "b", "c", "d"] {
            place(&mut links, name);
        }
        links.add(worker(2, 4));
        assert_eq!(links.gone(worker(1, 4).conn, 1), 2);
        assert!(!ready(&links, EventKind::Message), "nothing overtakes the backlog");
        let moved: Vec<_> = std::iter::from_fn(|| links.unkeep()).map(|(_, bytes)| bytes).collect();
        assert_eq!(moved, ["b", "c", "d"]);
        assert_eq!(links.queued(), (3, 3));
    }

    #[test]
    fn a_sticky_client_stays_with_its_worker_until_that_is_gone() {
        let mut links = links(10, WorkerPick::Sticky);
        links.add(worker(1, 7));
        links.add(worker(2, 7));
        let mut sticky = None;
        let Placed::To(first) = links.place(event("a"), &mut sticky) else { panic!("not placed") };
        for _ in 0..5 {
            assert_eq!(links.place(event("b"), &mut sticky), Placed::To(first));
        }
        links.gone(first, 6);
        assert!(matches!(links.place(event("c"), &mut sticky), Placed::To(next) if next != first));
        assert_ne!(sticky, Some(first));
    }

    #[test]
    fn a_leaving_worker_gets_nothing_more_but_keeps_what_it_was_given() {
        let mut links = links(10, WorkerPick::RoundRobin);
        links.add(worker(1, 7));
        place(&mut links, "a");
        links.leave(worker(1, 7).conn);
        assert_eq!(place(&mut links, "b"), Placed::NoWorker);
        assert_eq!(links.queued(), (1, 1));
        links.written(worker(1, 7).conn, 1);
        assert_eq!(links.queued(), (0, 0));
    }
}
