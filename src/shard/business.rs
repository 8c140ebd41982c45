//! Backend connections that speak netsvr's length-prefixed protocol: reading, answering in order,
//! registration and what becomes of it (netsvr sections 3, 6.2).
//!
//! Invariants: answers leave in the order of the questions; every event that was handed to a worker
//! is either reported as written to its shard or given to another worker when this one is gone.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use bytes::Bytes;

use crate::config::model::WorkerCommands;
use crate::control::worker::{self, Request};
use crate::hub::ConnId;
use crate::limits::{BUSINESS_ANSWER_BYTES_MAX, BUSINESS_QUERIES_MAX};
use crate::shard::Shard;
use crate::shard::commands::Job;
use crate::shard::conns::{Flags, Role};
use crate::shard::flight::Flight;
use crate::shard::links::{EventKind, WorkerInfo};
use crate::shard::mailbox::Mail;
use crate::shard::outbox::charge;
use crate::shard::wants::Want;
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
    /// What is charged for answers that wait for those before them.
    kept_bytes: usize,
    leaving: Option<Leaving>,
}

/// What a backend connection has elsewhere in its shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub questions: usize,
    pub tells: usize,
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
            kept_bytes: 0,
            leaving: None,
        }
    }

    /// The name that a registration of this connection gets.
    pub fn name(listener: SocketAddrV4, peer: SocketAddr, unix: u32) -> String {
        wire::conn_id(listener, peer, unix)
    }

    /// Whether as many answers wait as may, of which `own_bytes` are in the outbox.
    fn is_full(&self, own_bytes: usize) -> bool {
        self.questions.len() >= BUSINESS_QUERIES_MAX
            || own_bytes + self.kept_bytes > BUSINESS_ANSWER_BYTES_MAX
    }

    /// Whether a large answer may be made to this question: all earlier ones are answered and
    /// enough of those answers is written.
    pub(super) fn has_room_for(&self, number: u64, own_bytes: usize) -> bool {
        let is_next = self.questions.front().is_some_and(|(next, _)| *next == number);
        is_next && own_bytes <= BUSINESS_ANSWER_BYTES_MAX
    }

    /// For tests: panics if an invariant does not hold. `events_max` is how many events the shards
    /// may give to one worker.
    pub(super) fn audit(&self, flight: &Flight, events_max: usize) -> Tally {
        let kept = self.questions.iter().filter_map(|(_, answer)| answer.as_deref());
        assert_eq!(self.kept_bytes, kept.map(charges).sum::<usize>(), "kept for {}", self.name);
        let events = flight.events();
        assert!(events <= events_max, "{events} events for {}", self.name);
        assert!(self.questions.len() <= BUSINESS_QUERIES_MAX, "questions of {}", self.name);
        assert!(self.registered || events == 0, "{}", self.name);
        Tally {
            questions: self.questions.len(),
            links: self.registered as usize,
            workers: (self.registered && self.leaving.is_none()) as usize,
            ..Tally::default()
        }
    }
}

impl Shard {
    /// Handles the next command. False: there is none, or the connection must wait.
    pub(super) fn business_next(&mut self, slot: u32, input: &mut &[u8]) -> bool {
        if self.engine.conns[slot].flags.has(Flags::GONE | Flags::DEAF) {
            return false;
        }
        let may_read = self.engine.takes(slot) && !self.blocks(slot);
        let config = self.engine.config.clone();
        let Some(business) = self.business(slot) else { return false };
        if !may_read {
            business.reader.stash(input);
            *input = &[];
            return false;
        }
        let (worker, task) = (&config.netsvr.worker, &config.netsvr.task);
        let own = worker.commands == WorkerCommands::Own;
        let (is_worker, peer) = (business.worker, business.peer);
        let (limit, heartbeat) = match is_worker {
            true => (worker.receive_pack_limit, &worker.heartbeat_message),
            false => (task.receive_pack_limit, &task.heartbeat_message),
        };
        let mut reader = std::mem::take(&mut business.reader);
        match reader.next(input, limit, heartbeat) {
            Ok(None) => {
                business.reader = reader;
                return false;
            }
            Ok(Some(Inbound::Heartbeat)) => self.alive(slot),
            Ok(Some(Inbound::Command { cmd, .. })) if own && cmd.is_for_workers() != is_worker => {
                let error = format_args!("{cmd:?} is for the other port");
                self.refuse_business(slot, peer, &error);
                return false;
            }
            Ok(Some(Inbound::Command { cmd, body })) => {
                self.alive(slot);
                self.request(slot, cmd, body);
            }
            Err(error) => {
                self.refuse_business(slot, peer, &error);
                return false;
            }
        }
        if let Some(business) = self.business(slot) {
            business.reader = reader;
        }
        true
    }

    /// Closes a backend connection because of what it sent. What came whole before is answered, and
    /// what follows is taken in, or the system would destroy the answers.
    fn refuse_business(&mut self, slot: u32, peer: SocketAddr, error: &dyn std::fmt::Display) {
        self.engine.counters.protocol_violations += 1;
        if let Some(unsaid) = self.engine.complaints.allow(self.engine.now.ms) {
            tracing::warn!(%peer, %error, unsaid, "business connection closed");
        }
        self.engine.linger(slot);
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
        let full = self.business_is_full(slot);
        if full {
            self.engine.block(slot);
        }
        full
    }

    fn business_is_full(&mut self, slot: u32) -> bool {
        let own_bytes = self.engine.conns[slot].flight().map_or(0, |flight| flight.own_bytes());
        self.business(slot).is_some_and(|business| business.is_full(own_bytes))
    }

    /// What was sent is written: a connection whose answers have been read is read on.
    pub(super) fn business_written(&mut self, slot: u32) {
        if !self.business_is_full(slot) {
            self.engine.read_on(slot);
        }
        self.left(self.engine.conns.id(slot));
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
                let wants = &mut self.engine.wants;
                commands.into_iter().for_each(|command| wants.push(Want::Wide(command)));
            }
            Request::Commands(commands) => {
                let wants = &mut self.engine.wants;
                commands.into_iter().for_each(|command| wants.push(Want::Command(command)));
            }
            Request::GuestKickLater { delay_s, command } => {
                self.engine.later(delay_s, Job { node: None, command });
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
        if let Some(flight) = self.engine.conns[slot].flight() {
            // Until the answer had time to be read (section 6.2).
            flight.hold();
        }
        self.engine.workers += 1;
        let worker = Arc::new(WorkerInfo { conn, name, events });
        for shard in self.engine.others() {
            self.engine.post(shard, Mail::WorkerAdded(worker.clone()));
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
            self.engine.set_due(slot, settled_ms);
        }
    }

    /// The answer to Register has had its time: the events that wait follow.
    pub(super) fn business_settled(&mut self, slot: u32) {
        self.engine.set_due(slot, u64::MAX);
        let early = self.engine.conns[slot].flight().map(|flight| flight.release());
        for (from, event) in early.unwrap_or_default() {
            self.engine.push_event(slot, from, event);
        }
        self.engine.touch(slot);
    }

    fn ask_unregister(&mut self, slot: u32, name: &str) {
        let number = self.question(slot);
        match self.engine.links.named(name) {
            None => self.answer_question(number, wire::unregister_resp()),
            Some(worker) if worker.shard() == self.engine.id => {
                self.unregister(self.engine.id, number, worker)
            }
            Some(worker) => self
                .engine
                .post(worker.shard(), Mail::Unregister { from: self.engine.id, number, worker }),
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
        if let Some(slot) = slot {
            self.engine.conns[slot].flags.set(Flags::TELLS);
        }
        self.engine.workers -= 1;
        for shard in self.engine.others() {
            self.engine.post(shard, Mail::WorkerLeaving { worker });
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
        if business.leaving.as_ref().is_none_or(|leaving| leaving.shards > 0) {
            return;
        }
        if self.engine.conns[slot].flight().is_some_and(|flight| flight.events() > 0) {
            return;
        }
        let Some(business) = self.business(slot) else { return };
        let Some(leaving) = &mut business.leaving else { return };
        for (from, number) in std::mem::take(&mut leaving.askers) {
            self.unregister_done(from, number);
        }
    }

    fn unregister_done(&mut self, from: u8, number: u64) {
        if from == self.engine.id {
            self.unregistered(number);
        } else {
            self.engine.post(from, Mail::Unregistered { number });
        }
    }

    /// The registration that a question of this shard wanted to end has ended.
    pub(super) fn unregistered(&mut self, number: u64) {
        self.answer_question(number, wire::unregister_resp());
    }

    /// Notes a question; its answer must come through `answer_question`.
    pub(super) fn question(&mut self, slot: u32) -> u64 {
        self.engine.counters.queries += 1;
        let number = self.asks.number(self.engine.conns.id(slot));
        if let Some(business) = self.business(slot) {
            business.questions.push_back((number, None));
            self.engine.owes(slot, true);
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
        let Some(conn) = self.asks.asker(number) else { return };
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
            business.kept_bytes -= charges(&answer);
            let registering = business.registering == Some(number);
            self.asks.forget(number);
            answer.into_iter().for_each(|piece| self.engine.push(slot, piece));
            if registering {
                self.registered(slot);
            }
        }
        let owes = self.business(slot).is_some_and(|business| !business.questions.is_empty());
        self.engine.owes(slot, owes);
    }

    /// A backend connection has ended: its events go to other workers.
    pub(super) fn business_lost(&mut self, slot: u32, business: Business) {
        business.questions.iter().for_each(|(number, _)| self.asks.forget(*number));
        self.asks.give_up();
        if !business.registered {
            return;
        }
        let worker = self.engine.conns.id(slot);
        // A send that did not stall is written; of one that did, what was out is confirmed.
        let mut written = vec![0u32; self.engine.mail.len()];
        if let Some(flight) = self.engine.conns[slot].flight() {
            flight.lost(|from| written[from as usize] += 1);
        }
        for shard in self.engine.others() {
            let written = written[shard as usize];
            self.engine.post(shard, Mail::WorkerGone { worker, written });
        }
        self.engine.worker_gone(worker, written[self.engine.id as usize]);
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

    /// The peer has been silent for too long, or does not take what it is sent.
    pub(super) fn business_silent(&mut self, slot: u32) {
        let Some(business) = self.business(slot) else { return };
        let peer: IpAddr = business.peer.ip();
        let stalled = self.engine.conns[slot].flags.has(Flags::STALLED);
        let why = if stalled { "it does not read (send_deadline)" } else { "read_deadline" };
        if let Some(unsaid) = self.engine.complaints.allow(self.engine.now.ms) {
            tracing::warn!(%peer, why, unsaid, "business connection closed");
        }
        self.engine.counters.idle_timeouts += 1;
        self.engine.finish(slot);
    }
}
