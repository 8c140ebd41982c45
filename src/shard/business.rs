//! Backend connections that speak netsvr's length-prefixed protocol: reading, answering in order,
//! registration and what becomes of it (netsvr sections 3, 6.2).
//!
//! Invariants: answers leave in the order of the questions; every event that was handed to a worker
//! is either reported as written to its shard or given to another worker when this one is gone.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::config::model::{Netsvr, WorkerCommands};
use crate::control::worker::{self, Request};
use crate::hub::ConnId;
use crate::limits::{BUSINESS_ANSWER_BYTES_MAX, BUSINESS_QUERIES_MAX};
use crate::shard::Shard;
use crate::shard::commands::Job;
use crate::shard::conns::{Flags, Role};
use crate::shard::links::{EventKind, WorkerInfo};
use crate::shard::mailbox::Mail;
use crate::shard::ops::Frame;
use crate::shard::outbox::{Outbox, charge};
use crate::spare;
use crate::wire::netsvr::{self as wire, Cmd, Frame as Inbound, FrameReader, RegisterCode};

/// Events a worker can ask for; other bits are kept and ignored.
const EVENTS: i32 = EventKind::Open as i32 | EventKind::Close as i32 | EventKind::Message as i32;

/// State of a backend connection.
#[derive(Debug)]
pub struct Business {
    /// On a worker listener; else on a task listener. Both take every command (section 0), unless
    /// `netsvr.worker.commands` says otherwise.
    worker: bool,
    peer: SocketAddr,
    /// Registration name (section 3.8).
    name: String,
    reader: FrameReader,
    /// Questions that are not answered yet, in order, each with its answer once that is known.
    questions: VecDeque<(u64, Option<Vec<Bytes>>)>,
    /// The event mask of the last successful registration.
    mask: i32,
    registered: bool,
    /// The question that the first successful registration is, until it is answered.
    registering: Option<u64>,
    /// Events that arrived before the answer to Register had time to be read (section 6.2).
    pub settling: Option<Vec<(u8, Frame)>>,
    settled_ms: u64,
    /// Of each frame in the outbox or in flight: whose event it is (`None`: an answer), its bytes.
    pub order: VecDeque<(Option<u8>, u32)>,
    /// What the outbox charges for the answers among them.
    answer_bytes: usize,
    /// The same for answers that wait for those before them.
    kept_bytes: usize,
    /// Frames of the last send that are not known to be written.
    pub flying: u32,
    /// Bytes of the last send that are known to be written and reported.
    pub flown_bytes: usize,
    /// The last send has stalled or failed: only what was confirmed of it is written.
    incomplete: bool,
    leaving: Option<Leaving>,
}

/// What a backend connection has elsewhere in its shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub questions: usize,
    pub answer_bytes: usize,
    pub links: usize,
    pub workers: usize,
}

/// What the pieces of an answer are charged.
fn charges(answer: &[Bytes]) -> usize {
    answer.iter().map(|piece| charge(piece.len())).sum()
}

/// A registration that is being ended.
#[derive(Debug)]
struct Leaving {
    /// Shards that may still send events.
    shards: usize,
    /// Who waits for the end: shard and number of the question.
    askers: Vec<(u8, u64)>,
}

impl Business {
    /// A new connection, not registered.
    pub fn new(worker: bool, peer: SocketAddr, name: String) -> Business {
        Business {
            worker,
            peer,
            name,
            reader: FrameReader::new(),
            questions: VecDeque::new(),
            mask: 0,
            registered: false,
            registering: None,
            settling: None,
            settled_ms: 0,
            order: VecDeque::new(),
            answer_bytes: 0,
            kept_bytes: 0,
            flying: 0,
            flown_bytes: 0,
            incomplete: false,
            leaving: None,
        }
    }

    /// The name that a registration of this connection gets.
    pub fn name(listener: SocketAddrV4, peer: SocketAddr, unix: u32) -> String {
        wire::conn_id(listener, peer, unix)
    }

    /// Whether it is not known yet what became of the last send.
    pub(super) fn is_unsettled(&self) -> bool {
        self.flying > 0 && !self.incomplete
    }

    /// Whether questions are not answered yet.
    pub(super) fn owes_answers(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Whether as many answers wait as may.
    fn is_full(&self) -> bool {
        self.questions.len() >= BUSINESS_QUERIES_MAX
            || self.answer_bytes + self.kept_bytes > BUSINESS_ANSWER_BYTES_MAX
    }

    /// Whether a large answer may be made to this question: all earlier ones are answered and
    /// enough of those answers is written.
    pub(super) fn has_room_for(&self, number: u64) -> bool {
        let is_next = self.questions.front().is_some_and(|(next, _)| *next == number);
        is_next && self.answer_bytes <= BUSINESS_ANSWER_BYTES_MAX
    }

    /// For tests: panics if an invariant does not hold. `events_max` is how many events the shards
    /// may give to one worker.
    pub(super) fn audit(&self, outbox: &Outbox, stalled: bool, events_max: usize) -> Tally {
        let flying = self.flying as usize;
        let charged = |frames: &mut dyn Iterator<Item = &(Option<u8>, u32)>| {
            frames.map(|(_, bytes)| charge(*bytes as usize)).sum::<usize>()
        };
        assert_eq!(self.order.len(), outbox.frames() + flying, "frames of {}", self.name);
        let queued = charged(&mut self.order.iter().skip(flying));
        assert!(stalled || outbox.charge() as usize == queued, "bytes for {}", self.name);
        let answers = charged(&mut self.order.iter().filter(|(from, _)| from.is_none()));
        assert_eq!(self.answer_bytes, answers, "bytes of answers to {}", self.name);
        let kept = self.questions.iter().filter_map(|(_, answer)| answer.as_deref());
        assert_eq!(self.kept_bytes, kept.map(charges).sum::<usize>(), "kept for {}", self.name);
        let events = self.order.iter().filter(|(from, _)| from.is_some()).count();
        let early = self.settling.as_ref().map_or(0, Vec::len);
        assert!(events + early <= events_max, "{events} and {early} events for {}", self.name);
        assert!(self.questions.len() <= BUSINESS_QUERIES_MAX, "questions of {}", self.name);
        assert!(self.registered || (events == 0 && self.settling.is_none()), "{}", self.name);
        Tally {
            questions: self.questions.len(),
            answer_bytes: self.answer_bytes,
            links: self.registered as usize,
            workers: (self.registered && self.leaving.is_none()) as usize,
        }
    }

    fn events_waiting(&self) -> bool {
        let early = self.settling.as_ref().is_some_and(|events| !events.is_empty());
        early || self.order.iter().any(|(from, _)| from.is_some())
    }
}

impl Business {
    /// Time in which it must take what is written to it.
    pub(super) fn send_deadline(&self, netsvr: &Netsvr) -> Duration {
        match self.worker {
            true => netsvr.worker.send_deadline,
            false => netsvr.task.send_deadline,
        }
    }
}

impl Shard {
    pub(super) fn read_commands(&mut self, slot: u32, data: &[u8]) {
        let mut input = data;
        let Some(business) = self.business(slot) else { return };
        let mut reader = std::mem::take(&mut business.reader);
        let (is_worker, peer) = (business.worker, business.peer);
        let config = self.engine.config.clone();
        let (worker, task) = (&config.netsvr.worker, &config.netsvr.task);
        let own = worker.commands == WorkerCommands::Own;
        let (limit, heartbeat) = match is_worker {
            true => (worker.receive_pack_limit, &worker.heartbeat_message),
            false => (task.receive_pack_limit, &task.heartbeat_message),
        };
        loop {
            let flags = self.engine.conns[slot].flags;
            if flags.has(Flags::GONE | Flags::DEAF) {
                return;
            }
            if flags.has(Flags::BLOCKED) || self.blocks(slot) {
                reader.stash(input);
                break;
            }
            match reader.next(&mut input, limit, heartbeat) {
                Ok(None) => break,
                Ok(Some(Inbound::Heartbeat)) => self.alive(slot),
                Ok(Some(Inbound::Command { cmd, .. }))
                    if own && cmd.is_for_workers() != is_worker =>
                {
                    let error = format_args!("{cmd:?} is for the other port");
                    return self.refuse_business(slot, peer, &error);
                }
                Ok(Some(Inbound::Command { cmd, body })) => {
                    self.alive(slot);
                    self.request(slot, cmd, body);
                }
                Err(error) => return self.refuse_business(slot, peer, &error),
            }
        }
        if let Some(business) = self.business(slot) {
            business.reader = reader;
        }
    }

    /// Closes a backend connection because of what it sent. What came whole before is answered, and
    /// what follows is taken in, or the system would destroy the answers.
    fn refuse_business(&mut self, slot: u32, peer: SocketAddr, error: &dyn std::fmt::Display) {
        self.engine.counters.protocol_violations += 1;
        if let Some(unsaid) = self.engine.complaints.allow(self.engine.now.ms) {
            tracing::warn!(%peer, %error, unsaid, "business connection closed");
        }
        self.linger(slot);
    }

    pub(super) fn business(&mut self, slot: u32) -> Option<&mut Business> {
        match &mut self.engine.conns[slot].role {
            Role::Business(business) => Some(business),
            _ => None,
        }
    }

    fn alive(&mut self, slot: u32) {
        self.engine.conns[slot].active_ms = self.engine.now.ms;
    }

    /// Whether the connection must wait because too many of its answers are not read; blocks it
    /// then.
    fn blocks(&mut self, slot: u32) -> bool {
        let Some(business) = self.business(slot) else { return false };
        let full = business.is_full();
        if full {
            self.block(slot, false);
        }
        full
    }

    /// Goes on reading a connection whose answers have been read.
    pub(super) fn unblock_business(&mut self, slot: u32) {
        if self.business(slot).is_some_and(|business| !business.is_full()) {
            self.unblock(slot);
        }
    }

    fn request(&mut self, slot: u32, cmd: Cmd, body: Bytes) {
        self.engine.counters.commands += 1;
        let wide = self.engine.config.netsvr.cluster && self.engine.mesh.is_some();
        if wide && cmd.is_one_way() {
            self.carry_abroad(cmd, &body);
        }
        // A second hold on a frame costs an allocation.
        let question = if wide && !cmd.is_one_way() { body.clone() } else { Bytes::new() };
        match worker::request(
            cmd,
            body,
            &self.engine.uniq_ids,
            self.engine.config.netsvr.generation,
        ) {
            Request::Commands(commands) if wide => {
                commands.into_iter().for_each(|command| self.dispatch_wide(command));
            }
            Request::Commands(commands) => {
                commands.into_iter().for_each(|command| self.dispatch(command));
            }
            Request::GuestKickLater { delay_s, command } => {
                self.later(delay_s, Job { node: None, command });
            }
            Request::Ask { query, shape } if wide => {
                self.ask_wide(slot, (cmd, question), query, shape);
            }
            Request::Ask { query, shape } => self.ask(slot, query, shape),
            Request::Metrics => self.ask_rates(slot),
            Request::Limit { on_open, on_message } => self.limit(slot, on_open, on_message),
            Request::Answer(bytes) => self.answer_now(slot, bytes),
            Request::Register { events } => self.register(slot, events),
            Request::RegisterUndecodable => {
                let answer = wire::register_resp(RegisterCode::UnmarshalError, None);
                self.answer_now(slot, answer);
            }
            Request::Unregister { conn_id } => self.ask_unregister(slot, &conn_id),
            Request::Ignore(reason) => {
                let peer = self.business(slot).map(|business| business.peer);
                if let Some(unsaid) = self.engine.complaints.allow(self.engine.now.ms) {
                    tracing::warn!(?peer, ?cmd, reason, unsaid, "command ignored");
                }
            }
        }
    }

    fn register(&mut self, slot: u32, events: i32) {
        let conn = self.engine.conns.id(slot);
        let Some(business) = self.business(slot) else { return };
        if events & EVENTS == 0 {
            let answer = wire::register_resp(RegisterCode::InvalidEvent, None);
            return self.answer_now(slot, answer);
        }
        if business.mask > 0 || business.leaving.is_some() {
            let answer = wire::register_resp(RegisterCode::DuplicateRegister, None);
            return self.answer_now(slot, answer);
        }
        business.mask = events;
        let name = business.name.clone();
        let answer = wire::register_resp(RegisterCode::Success, Some(&name));
        if std::mem::replace(&mut business.registered, true) {
            return self.answer_now(slot, answer);
        }
        business.settling = Some(Vec::new());
        business.settled_ms = u64::MAX;
        self.engine.workers += 1;
        let worker = Arc::new(WorkerInfo { conn, name, events });
        for shard in self.others() {
            self.post(shard, Mail::WorkerAdded(worker.clone()));
        }
        self.engine.links.add(worker);
        // Once the answer is out no event may be dropped for want of a worker, on whichever shard.
        let number = self.question(slot);
        if let Some(business) = self.business(slot) {
            business.registering = Some(number);
        }
        self.answer_when_known(number, answer);
    }

    /// The answer to Register is on its way: events wait until it has had its time.
    fn registered(&mut self, slot: u32) {
        let delay_ms = self.engine.config.netsvr.worker.register_delay.as_millis() as u64;
        let settled_ms = self.engine.now.ms + delay_ms;
        if let Some(business) = self.business(slot) {
            business.registering = None;
            business.settled_ms = settled_ms;
            self.rearm(slot);
        }
    }

    /// The answer to Register has had its time: the events that wait follow.
    fn settle(&mut self, slot: u32) {
        let Some(business) = self.business(slot) else { return };
        for (from, frame) in business.settling.take().unwrap_or_default() {
            let Some(business) = self.business(slot) else { return };
            business.order.push_back((Some(from), frame.len() as u32));
            self.engine.conns[slot].outbox.push(frame);
        }
        self.touch(slot);
    }

    fn ask_unregister(&mut self, slot: u32, name: &str) {
        let number = self.question(slot);
        match self.engine.links.named(name) {
            None => self.answer_question(number, wire::unregister_resp()),
            Some(worker) if worker.shard() == self.engine.id => {
                self.unregister(self.engine.id, number, worker)
            }
            Some(worker) => {
                self.post(worker.shard(), Mail::Unregister { from: self.engine.id, number, worker })
            }
        }
    }

    /// Ends the registration of a worker of this shard. The question is answered when no shard
    /// gives it events any more and those that it was given are written.
    pub(super) fn unregister(&mut self, from: u8, number: u64, worker: ConnId) {
        let shards = self.engine.mail.len();
        let slot = self.engine.conns.slot(worker);
        let Some(business) = slot.and_then(|slot| self.business(slot)) else {
            return self.unregister_done(from, number);
        };
        if let Some(leaving) = &mut business.leaving {
            leaving.askers.push((from, number));
            return self.left(worker);
        }
        business.leaving = Some(Leaving { shards, askers: vec![(from, number)] });
        self.engine.workers -= 1;
        for shard in self.others() {
            self.post(shard, Mail::WorkerLeaving { worker });
        }
        self.worker_leaving(worker);
    }

    /// One more shard gives the worker nothing any more.
    pub(super) fn worker_left(&mut self, worker: ConnId) {
        let slot = self.engine.conns.slot(worker);
        if let Some(business) = slot.and_then(|slot| self.business(slot))
            && let Some(leaving) = &mut business.leaving
        {
            leaving.shards -= 1;
            self.left(worker);
        }
    }

    /// Answers those who wait for the end of a registration, if it has come.
    fn left(&mut self, worker: ConnId) {
        let Some(slot) = self.engine.conns.slot(worker) else { return };
        let Some(business) = self.business(slot) else { return };
        if business.leaving.as_ref().is_none_or(|leaving| leaving.shards > 0)
            || business.events_waiting()
        {
            return;
        }
        let Some(leaving) = &mut business.leaving else { return };
        for (from, number) in std::mem::take(&mut leaving.askers) {
            self.unregister_done(from, number);
        }
    }

    fn unregister_done(&mut self, from: u8, number: u64) {
        if from == self.engine.id {
            self.unregistered(number);
        } else {
            self.post(from, Mail::Unregistered { number });
        }
    }

    /// The registration that a question of this shard wanted to end has ended.
    pub(super) fn unregistered(&mut self, number: u64) {
        self.answer_question(number, wire::unregister_resp());
    }

    /// Notes a question; its answer must come through `answer_question`.
    pub(super) fn question(&mut self, slot: u32) -> u64 {
        self.engine.counters.queries += 1;
        let number = self.engine.asks.number(self.engine.conns.id(slot));
        if let Some(business) = self.business(slot) {
            business.questions.push_back((number, None));
        }
        number
    }

    pub(super) fn answer_now(&mut self, slot: u32, answer: Bytes) {
        let number = self.question(slot);
        self.answer_question(number, answer);
    }

    pub(super) fn answer_question(&mut self, number: u64, answer: Bytes) {
        self.answer_in_pieces(number, vec![answer]);
    }

    /// Answers a question, when those before it are answered.
    pub(super) fn answer_in_pieces(&mut self, number: u64, answer: Vec<Bytes>) {
        let Some(conn) = self.engine.asks.asker(number) else { return };
        let Some(slot) = self.engine.conns.slot(conn) else { return };
        let Some(business) = self.business(slot) else { return };
        if let Some(question) = business.questions.iter_mut().find(|(n, _)| *n == number) {
            business.kept_bytes += charges(&answer);
            question.1 = Some(answer);
        }
        loop {
            let Some(business) = self.business(slot) else { return };
            let ready = business.questions.front().is_some_and(|(_, answer)| answer.is_some());
            let question = if ready { business.questions.pop_front() } else { None };
            let Some((number, Some(answer))) = question else { break };
            business.order.extend(answer.iter().map(|piece| (None, piece.len() as u32)));
            let bytes = charges(&answer);
            business.kept_bytes -= bytes;
            business.answer_bytes += bytes;
            let registering = business.registering == Some(number);
            self.engine.asks.await_writing(bytes);
            self.engine.asks.forget(number);
            answer.into_iter().for_each(|piece| self.push(slot, piece));
            if registering {
                self.registered(slot);
            }
        }
    }

    /// Of the last send `written` bytes are out: the shards whose events these were are told.
    pub(super) fn confirm_frames(&mut self, slot: u32, written: usize) {
        let encrypted = self.engine.conns[slot].tls.is_some();
        let worker = self.engine.conns.id(slot);
        let shards = self.engine.mail.len();
        let Some(business) = self.business(slot) else { return };
        business.incomplete = written != usize::MAX;
        // What TLS makes of the frames has other lengths; such a send counts when it is complete.
        if encrypted && business.incomplete {
            return;
        }
        if business.flying == 0 {
            return;
        }
        let (mut counts, before) = (vec![0u32; shards], business.answer_bytes);
        while business.flying > 0
            && let Some(&(from, len)) = business.order.front()
            && written - business.flown_bytes >= len as usize
        {
            business.order.pop_front();
            business.flying -= 1;
            business.flown_bytes += len as usize;
            match from {
                Some(from) => counts[from as usize] += 1,
                None => business.answer_bytes -= charge(len as usize),
            }
        }
        spare::emptied(&mut business.order);
        let answered = before - business.answer_bytes;
        self.engine.asks.written(answered);
        for (shard, count) in (0u8..).zip(counts).filter(|(_, count)| *count > 0) {
            if shard == self.engine.id {
                self.engine.links.written(worker, count);
            } else {
                self.post(shard, Mail::EventsWritten { worker, count });
            }
        }
        self.left(worker);
    }

    /// A backend connection has ended: its events go to other workers.
    pub(super) fn business_lost(&mut self, slot: u32, business: Business) {
        business.questions.iter().for_each(|(number, _)| self.engine.asks.forget(*number));
        self.engine.asks.written(business.answer_bytes);
        self.engine.asks.give_up();
        if !business.registered {
            return;
        }
        let worker = self.engine.conns.id(slot);
        // A send that did not stall is written; of one that did, what was out is confirmed.
        let flying = if business.incomplete { 0 } else { business.flying as usize };
        let mut written = vec![0u32; self.engine.mail.len()];
        for from in business.order.iter().take(flying).filter_map(|(from, _)| *from) {
            written[from as usize] += 1;
        }
        for shard in self.others() {
            let written = written[shard as usize];
            self.post(shard, Mail::WorkerGone { worker, written });
        }
        self.worker_gone(worker, written[self.engine.id as usize]);
        match business.leaving {
            None => self.engine.workers -= 1,
            Some(leaving) => {
                for (from, number) in leaving.askers {
                    self.unregister_done(from, number);
                }
            }
        }
        tracing::info!(peer = %business.peer, "worker disconnected");
    }

    /// When something is due for a backend connection.
    pub(super) fn business_deadline_ms(&self, slot: u32, business: &Business) -> u64 {
        let netsvr = &self.engine.config.netsvr;
        let read = match business.worker {
            true => netsvr.worker.read_deadline,
            false => netsvr.task.read_deadline,
        };
        let conn = &self.engine.conns[slot];
        let mut due_ms = conn.active_ms + read.as_millis() as u64;
        if conn.flags.has(Flags::BLOCKED) {
            due_ms = self.engine.now.ms + read.as_millis() as u64;
        }
        due_ms = due_ms.min(self.write_due_ms(slot));
        if business.settling.is_some() {
            due_ms = due_ms.min(business.settled_ms);
        }
        due_ms
    }

    pub(super) fn business_timed_out(&mut self, slot: u32) {
        let now_ms = self.engine.now.ms;
        let Some(business) = self.business(slot) else { return };
        if business.settling.is_some() && business.settled_ms <= now_ms {
            self.settle(slot);
            return self.rearm(slot);
        }
        let Role::Business(business) = &self.engine.conns[slot].role else { return };
        if self.business_deadline_ms(slot, business) > now_ms {
            return self.rearm(slot);
        }
        let peer: IpAddr = business.peer.ip();
        let stalled = self.engine.conns[slot].flags.has(Flags::STALLED);
        let why = if stalled { "it does not read (send_deadline)" } else { "read_deadline" };
        if let Some(unsaid) = self.engine.complaints.allow(now_ms) {
            tracing::warn!(%peer, why, unsaid, "business connection closed");
        }
        self.engine.counters.idle_timeouts += 1;
        self.finish(slot);
    }
}
