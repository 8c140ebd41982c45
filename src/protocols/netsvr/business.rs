//! Backend connections that speak netsvr's length-prefixed protocol: reading, answering in order,
//! registration and what becomes of it (netsvr sections 3, 6.2).
//!
//! Invariants: answers leave in the order of the questions; every event that was handed to a worker
//! is either reported as written to its shard or given to another worker when this one is gone.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use bytes::Bytes;

use crate::config::model::Service;
use crate::engine::Engine;
use crate::engine::Job;
use crate::engine::conns::Flags;
use crate::engine::flight::{Flight, Source};
use crate::engine::in_order::InOrder;
use crate::engine::links::{EventKind, WorkerInfo};
use crate::engine::look::Notes;
use crate::engine::outbox::charge;
use crate::hub::ConnId;
use crate::lists::letters::Mail;
use crate::lists::numbers::kind;
use crate::log::target;
use crate::protocols::netsvr::commands::{self, BackendRequest, Commands};
use crate::protocols::netsvr::config::WorkerCommands;
use crate::protocols::netsvr::letters::Letter;
use crate::protocols::netsvr::limits::{BUSINESS_ANSWER_BYTES_MAX, BUSINESS_QUERIES_MAX};
use crate::protocols::netsvr::wire::{self, RegisterCode};
use crate::wire::worker::{Cmd, Frame as Inbound, FrameReader, conn_id};

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
    questions: InOrder<(), Vec<Bytes>>,
    /// The event mask of the last successful registration.
    mask: i32,
    registered: bool,
    /// The question that the first successful registration is, until it is answered.
    registering: Option<u64>,
    /// What is charged for answers that wait for those before them.
    kept_bytes: usize,
    leaving: Option<Leaving>,
}

/// What became of a frame.
#[derive(Default)]
pub(crate) struct Asked {
    /// There may be another one.
    pub more: bool,
    /// What it asks to be carried out.
    pub commands: Commands,
    /// On every node.
    pub wide: bool,
}

/// What a backend connection has elsewhere in its shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
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
    fn new(worker: bool, peer: SocketAddr, name: String) -> Business {
        Business {
            worker,
            peer,
            name,
            reader: FrameReader::new(),
            questions: InOrder::default(),
            mask: 0,
            registered: false,
            registering: None,
            kept_bytes: 0,
            leaving: None,
        }
    }

    /// The name that a registration of this connection gets.
    fn name(listener: SocketAddrV4, peer: SocketAddr, unix: u32) -> String {
        conn_id(listener, peer, unix)
    }

    /// What operators see of it.
    pub(super) fn describe(&self, notes: &mut Notes) {
        notes.fact("port", if self.worker { "worker" } else { "task" });
        notes.fact("registration", &self.name);
        notes.fact("registered", self.registered && self.leaving.is_none());
        notes.fact("events", self.mask);
        notes.fact("questions", self.questions.len());
        let full = self.questions.len() >= BUSINESS_QUERIES_MAX;
        notes.reason_if(full, "as many of its questions are open as may be");
        notes.reason_if(self.leaving.is_some(), "its registration is being ended");
    }

    /// Whether as many answers wait as may, of which `own_bytes` are in the outbox.
    fn is_full(&self, own_bytes: usize) -> bool {
        self.questions.len() >= BUSINESS_QUERIES_MAX
            || own_bytes + self.kept_bytes > BUSINESS_ANSWER_BYTES_MAX
    }

    /// Whether a large answer may be made to this question: all earlier ones are answered and
    /// enough of those answers is written.
    pub(crate) fn has_room_for(&self, number: u64, own_bytes: usize) -> bool {
        self.questions.first() == Some(number) && own_bytes <= BUSINESS_ANSWER_BYTES_MAX
    }

    /// For tests: panics if an invariant does not hold. `events_max` is how many events the shards
    /// may give to one worker.
    pub(crate) fn audit(&self, flight: &Flight, events_max: usize) -> Tally {
        let kept: usize = self.questions.answers().map(|answer| charges(answer)).sum();
        assert_eq!(self.kept_bytes, kept, "kept for {}", self.name);
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

impl super::Netsvr {
    /// A connection was accepted, on a worker listener or on a task listener.
    pub(crate) fn business_accepted(&mut self, engine: &mut Engine, slot: u32, peer: SocketAddr) {
        let listener = &engine.listeners[usize::from(engine.conns[slot].listener)];
        let worker = listener.service == Service::NetsvrWorker;
        let name = Business::name(listener.address, peer, engine.now.unix);
        let index = self.backends.insert(Business::new(worker, peer, name));
        let row = if worker { self.rows.worker } else { self.rows.task };
        engine.turn_into(slot, kind::BUSINESS, index, row);
        engine.watch_frames(slot, Source::Workers);
    }

    /// Handles the next frame, but for the commands in it.
    pub(crate) fn business_next(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        input: &mut &[u8],
    ) -> Asked {
        let conn = &mut engine.conns[slot];
        if conn.flags.has(Flags::GONE | Flags::DEAF) {
            return Asked::default();
        }
        let Some(business) = self.backends.of_mut(Some(conn.index)) else {
            return Asked::default();
        };
        let full = business.is_full(conn.flight().map_or(0, |flight| flight.own_bytes()));
        let takes = engine.takes(slot);
        if !takes || full {
            if takes {
                engine.block(slot);
            }
            business.reader.stash(input);
            *input = &[];
            return Asked::default();
        }
        let (worker, task) = (&self.config.worker, &self.config.task);
        let own = worker.commands == WorkerCommands::Own;
        let (is_worker, peer) = (business.worker, business.peer);
        let (limit, heartbeat) = match is_worker {
            true => (worker.receive_pack_limit, &worker.heartbeat_message),
            false => (task.receive_pack_limit, &task.heartbeat_message),
        };
        match business.reader.next(input, limit, heartbeat) {
            Ok(None) => return Asked::default(),
            Ok(Some(Inbound::Heartbeat)) => engine.alive(slot),
            Ok(Some(Inbound::Command { cmd, .. })) if own && cmd.is_for_workers() != is_worker => {
                let error = format_args!("{cmd:?} is for the other port");
                self.refuse_business(engine, slot, peer, &error);
                return Asked::default();
            }
            Ok(Some(Inbound::Command { cmd, body })) => {
                engine.alive(slot);
                let (commands, wide) = self.request(engine, slot, cmd, body);
                return Asked { more: true, commands, wide };
            }
            Err(error) => {
                self.refuse_business(engine, slot, peer, &error);
                return Asked::default();
            }
        }
        Asked { more: true, ..Asked::default() }
    }

    /// Closes a backend connection because of what it sent. What came whole before is answered, and
    /// what follows is taken in, or the system would destroy the answers.
    fn refuse_business(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        peer: SocketAddr,
        error: &dyn std::fmt::Display,
    ) {
        engine.counters.protocol_violations += 1;
        if let Some(unsaid) = engine.complaints.allow(engine.now.ms) {
            tracing::warn!(
                target: target::NETSVR,
                %peer, %error, unsaid, "business connection closed"
            );
        }
        engine.linger(slot);
    }

    #[inline]
    pub(crate) fn business(&mut self, engine: &Engine, slot: u32) -> Option<&mut Business> {
        self.backends.of_mut(engine.index(slot, kind::BUSINESS))
    }

    fn business_is_full(&mut self, engine: &mut Engine, slot: u32) -> bool {
        let own_bytes = engine.own_bytes(slot);
        self.business(engine, slot).is_some_and(|business| business.is_full(own_bytes))
    }

    /// What was sent is written: a connection whose answers have been read is read on.
    pub(crate) fn business_written(&mut self, engine: &mut Engine, slot: u32) {
        if !self.business_is_full(engine, slot) {
            engine.read_on(slot);
        }
        self.registration_ended(engine, engine.conns.id(slot));
    }

    fn request(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        cmd: Cmd,
        body: Bytes,
    ) -> (Commands, bool) {
        engine.counters.commands += 1;
        engine.conns.traffic_mut(slot).received.messages += 1;
        let wide = self.config.cluster && engine.mesh.is_some();
        if wide && cmd.is_one_way() {
            self.carry_abroad(engine, cmd, &body);
        }
        // A second hold on a frame costs an allocation.
        let question = if wide && !cmd.is_one_way() { body.clone() } else { Bytes::new() };
        match commands::request(cmd, body, &engine.uniq_ids, self.config.generation) {
            BackendRequest::Commands(commands) => return (commands, wide),
            BackendRequest::GuestKickLater { delay_s, command } => {
                engine.later(delay_s, Job { node: None, command });
            }
            BackendRequest::Ask { query, shape } if wide => {
                self.ask_wide(engine, slot, (cmd, question), query, shape);
            }
            BackendRequest::Ask { query, shape } => self.ask(engine, slot, query, shape),
            BackendRequest::Metrics => self.ask_rates(engine, slot),
            BackendRequest::Limit { on_open, on_message } => {
                self.limit(engine, slot, on_open, on_message)
            }
            BackendRequest::Answer(bytes) => self.answer_now(engine, slot, bytes),
            BackendRequest::Register { events } => self.register(engine, slot, events),
            BackendRequest::RegisterUndecodable => {
                let answer = wire::register_resp(RegisterCode::UnmarshalError, None);
                self.answer_now(engine, slot, answer);
            }
            BackendRequest::Unregister { conn_id } => self.ask_unregister(engine, slot, &conn_id),
            BackendRequest::Ignore(reason) => {
                let peer = self.business(engine, slot).map(|business| business.peer);
                if let Some(unsaid) = engine.complaints.allow(engine.now.ms) {
                    tracing::warn!(
                        target: target::NETSVR,
                        ?peer, ?cmd, reason, unsaid, "command ignored"
                    );
                }
            }
        }
        (Commands::new(), false)
    }

    fn register(&mut self, engine: &mut Engine, slot: u32, events: i32) {
        let conn = engine.conns.id(slot);
        let Some(business) = self.business(engine, slot) else { return };
        if events & EVENTS == 0 {
            let answer = wire::register_resp(RegisterCode::InvalidEvent, None);
            return self.answer_now(engine, slot, answer);
        }
        if business.mask > 0 || business.leaving.is_some() {
            let answer = wire::register_resp(RegisterCode::DuplicateRegister, None);
            return self.answer_now(engine, slot, answer);
        }
        business.mask = events;
        let name = business.name.clone();
        let answer = wire::register_resp(RegisterCode::Success, Some(&name));
        if std::mem::replace(&mut business.registered, true) {
            return self.answer_now(engine, slot, answer);
        }
        if let Some(flight) = engine.conns[slot].flight() {
            // Until the answer had time to be read (section 6.2).
            flight.hold();
        }
        engine.workers += 1;
        let worker = Arc::new(WorkerInfo { conn, name, events });
        for shard in engine.others() {
            engine.post(shard, Mail::WorkerAdded(worker.clone()));
        }
        engine.links.add(worker);
        // Once the answer is out no event may be dropped for want of a worker, on whichever shard.
        let number = self.question(engine, slot);
        if let Some(business) = self.business(engine, slot) {
            business.registering = Some(number);
        }
        self.answer_when_known(engine, number, answer);
    }

    /// The answer to Register is on its way: events wait until it has had its time.
    fn registered(&mut self, engine: &mut Engine, slot: u32) {
        let delay_ms = self.config.worker.register_delay.as_millis() as u64;
        let settled_ms = engine.now.ms + delay_ms;
        if let Some(business) = self.business(engine, slot) {
            business.registering = None;
            engine.set_due(slot, settled_ms);
        }
    }

    /// The answer to Register has had its time: the events that wait follow.
    pub(crate) fn business_settled(&mut self, engine: &mut Engine, slot: u32) {
        engine.set_due(slot, u64::MAX);
        let early = engine.conns[slot].flight().map(|flight| flight.release());
        for (from, event) in early.unwrap_or_default() {
            engine.push_event(slot, from, event);
        }
        engine.touch(slot);
    }

    fn ask_unregister(&mut self, engine: &mut Engine, slot: u32, name: &str) {
        let number = self.question(engine, slot);
        match engine.links.named(name) {
            None => self.answer_question(engine, number, wire::unregister_resp()),
            Some(worker) if worker.shard() == engine.id => {
                self.unregister(engine, engine.id, number, worker)
            }
            Some(worker) => engine.post(
                worker.shard(),
                Mail::Netsvr(Letter::Unregister { from: engine.id, number, worker }),
            ),
        }
    }

    /// Ends the registration of a worker of this shard. The question is answered when no shard
    /// gives it events any more and those that it was given are written.
    pub(crate) fn unregister(
        &mut self,
        engine: &mut Engine,
        from: u8,
        number: u64,
        worker: ConnId,
    ) {
        let shards = engine.mail.len();
        let slot = engine.conns.slot(worker);
        let Some(business) = slot.and_then(|slot| self.business(engine, slot)) else {
            return self.unregister_done(engine, from, number);
        };
        if let Some(leaving) = &mut business.leaving {
            leaving.askers.push((from, number));
            return self.registration_ended(engine, worker);
        }
        business.leaving = Some(Leaving { shards, askers: vec![(from, number)] });
        if let Some(slot) = slot {
            engine.conns[slot].flags.set(Flags::TELLS);
        }
        engine.workers -= 1;
        for shard in engine.others() {
            engine.post(shard, Mail::Netsvr(Letter::WorkerLeaving { worker }));
        }
        self.worker_leaving(engine, worker);
    }

    /// One more shard gives the worker nothing any more.
    pub(crate) fn worker_left(&mut self, engine: &mut Engine, worker: ConnId) {
        let slot = engine.conns.slot(worker);
        if let Some(business) = slot.and_then(|slot| self.business(engine, slot))
            && let Some(leaving) = &mut business.leaving
        {
            leaving.shards -= 1;
            self.registration_ended(engine, worker);
        }
    }

    /// Answers those who wait for the end of a registration, if it has come.
    fn registration_ended(&mut self, engine: &mut Engine, worker: ConnId) {
        let Some(slot) = engine.conns.slot(worker) else { return };
        let Some(business) = self.business(engine, slot) else { return };
        if business.leaving.as_ref().is_none_or(|leaving| leaving.shards > 0) {
            return;
        }
        if engine.conns[slot].flight().is_some_and(|flight| flight.events() > 0) {
            return;
        }
        let Some(business) = self.business(engine, slot) else { return };
        let Some(leaving) = &mut business.leaving else { return };
        for (from, number) in std::mem::take(&mut leaving.askers) {
            self.unregister_done(engine, from, number);
        }
    }

    fn unregister_done(&mut self, engine: &mut Engine, from: u8, number: u64) {
        if from == engine.id {
            self.unregistered(engine, number);
        } else {
            engine.post(from, Mail::Netsvr(Letter::Unregistered { number }));
        }
    }

    /// The registration that a question of this shard wanted to end has ended.
    pub(crate) fn unregistered(&mut self, engine: &mut Engine, number: u64) {
        self.answer_question(engine, number, wire::unregister_resp());
    }

    /// Notes a question; its answer must come through `answer_question`.
    pub(crate) fn question(&mut self, engine: &mut Engine, slot: u32) -> u64 {
        engine.counters.queries += 1;
        let number = self.asks.number(engine.conns.id(slot));
        if let Some(business) = self.business(engine, slot) {
            business.questions.ask(number, ());
            engine.owes(slot, true);
        }
        number
    }

    pub(crate) fn answer_now(&mut self, engine: &mut Engine, slot: u32, answer: Bytes) {
        let number = self.question(engine, slot);
        self.answer_question(engine, number, answer);
    }

    pub(crate) fn answer_question(&mut self, engine: &mut Engine, number: u64, answer: Bytes) {
        self.answer_in_pieces(engine, number, vec![answer]);
    }

    /// Answers a question, when those before it are answered.
    pub(crate) fn answer_in_pieces(
        &mut self,
        engine: &mut Engine,
        number: u64,
        answer: Vec<Bytes>,
    ) {
        let Some(conn) = self.asks.asker(number) else { return };
        let Some(slot) = engine.conns.slot(conn) else { return };
        let Some(business) = self.business(engine, slot) else { return };
        let kept_bytes = &mut business.kept_bytes;
        business.questions.answer(number, |()| {
            *kept_bytes += charges(&answer);
            answer
        });
        while let Some(business) = self.business(engine, slot)
            && let Some((number, (), answer)) = business.questions.take_first()
        {
            business.kept_bytes -= charges(&answer);
            let registering = business.registering == Some(number);
            self.asks.forget(number);
            answer.into_iter().for_each(|piece| engine.push(slot, piece));
            if registering {
                self.registered(engine, slot);
            }
        }
        let owes =
            self.business(engine, slot).is_some_and(|business| !business.questions.is_empty());
        engine.owes(slot, owes);
    }

    /// A backend connection has ended: its events go to other workers.
    pub(crate) fn business_lost(&mut self, engine: &mut Engine, slot: u32) {
        let index = engine.index(slot, kind::BUSINESS);
        let Some(business) = index.and_then(|index| self.backends.remove(index)) else { return };
        business.questions.numbers().for_each(|number| self.asks.forget(number));
        self.asks.give_up();
        if !business.registered {
            return;
        }
        let worker = engine.conns.id(slot);
        // A send that did not stall is written; of one that did, what was out is confirmed.
        let mut written = vec![0u32; engine.mail.len()];
        if let Some(flight) = engine.conns[slot].flight() {
            flight.lost(|from| written[from as usize] += 1);
        }
        for shard in engine.others() {
            let written = written[shard as usize];
            engine.post(shard, Mail::WorkerGone { worker, written });
        }
        engine.worker_gone(worker, written[engine.id as usize]);
        match business.leaving {
            None => engine.workers -= 1,
            Some(leaving) => {
                for (from, number) in leaving.askers {
                    self.unregister_done(engine, from, number);
                }
            }
        }
        tracing::info!(target: target::NETSVR, peer = %business.peer, "worker disconnected");
    }

    /// The peer has been silent for too long, or does not take what it is sent.
    pub(crate) fn business_silent(&mut self, engine: &mut Engine, slot: u32) {
        let Some(business) = self.business(engine, slot) else { return };
        let peer: IpAddr = business.peer.ip();
        let stalled = engine.conns[slot].flags.has(Flags::STALLED);
        let why = if stalled { "it does not read (send_deadline)" } else { "read_deadline" };
        if let Some(unsaid) = engine.complaints.allow(engine.now.ms) {
            tracing::warn!(
                target: target::NETSVR,
                %peer, why, unsaid, "business connection closed"
            );
        }
        engine.counters.idle_timeouts += 1;
        engine.finish(slot);
    }
}
