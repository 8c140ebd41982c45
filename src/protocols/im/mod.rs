//! IM clients of this shard: bytes and messages in, steps of the session carried out, time (IM
//! sections 1, 8, 10, 12 and 13). Rooms are in `rooms`, other pushes in `push`.
//!
//! Costs: a connection is one entry of a slab besides its slot; one that waits holds no bytes. A
//! response is one small allocation.

pub mod config;
pub mod letters;
pub mod limits;
pub mod rules;
pub mod wire;

mod forward;
mod push;
mod rooms;

use std::net::SocketAddr;
use std::sync::Arc;

use self::push::form_of;
pub(crate) use self::push::{FORMS, make};
pub(crate) use self::rooms::Fan;
use crate::config::model::WorkerFull;
use crate::engine::Engine;
use crate::engine::conns;
use crate::engine::conns::Flags;
use crate::engine::links::EventKind;
use crate::engine::look::Notes;
use crate::engine::manners::{Life, Manners, Slow};
use crate::engine::slots::Slots;
use crate::engine::tenant::Tenant;
use crate::engine::tenant::Upgrade;
use crate::engine::timers::Wheel;
use crate::engine::wants::Want;
use crate::hub::Departed;
use crate::hub::login::{Login, Question, Verdict};
use crate::hub::push::{self as pushing, CloseReason, Command};
use crate::hub::rooms::Rooms;
use crate::lists::numbers;
use crate::lists::numbers::kind;
use crate::log::target;
use crate::metrics::{DropReason, Gauges};
use crate::protocols::im::config::{Forward, Im as Config};
use crate::protocols::im::rules::{Around, End, Entered, Session, State, Step, Who};
use crate::protocols::im::wire::{Answer, Gzip, Status, kick};
use crate::spare::Look;
use crate::wire::websocket::Opcode;

/// What the shard keeps of one connection.
#[derive(Debug)]
pub struct Conn {
    /// Address of the peer.
    pub peer: SocketAddr,
    session: Session,
    /// Headers of the handshake, until the login.
    headers: Vec<(String, String)>,
    /// Who asked to be verified, and the number of that question.
    asked: Option<(u32, Box<str>)>,
    questions: u32,
    /// Number of the login as a user, by which older sessions are told from newer ones.
    login: u64,
    /// It has sent a message of the batch that is being distributed.
    spoke: bool,
}

impl Conn {
    /// A connection that was just accepted.
    fn new(peer: SocketAddr) -> Conn {
        Conn {
            peer,
            session: Session::new(false),
            headers: Vec::new(),
            asked: None,
            questions: 0,
            login: 0,
            spoke: false,
        }
    }

    /// Bytes of input that are held.
    pub(crate) fn held(&self) -> usize {
        self.session.decoder.held()
    }
}

/// What a shard has for all IM clients together.
pub struct Im {
    config: Arc<Config>,
    conns: Slots<Conn>,
    /// How a client behaves before its login, and after it.
    new_row: u16,
    row: u16,
    pub gzip: Gzip,
    /// Open batches.
    pub rooms: Rooms,
    /// When they are due, by number of the room.
    pub timers: Wheel,
    pub guests: u64,
    pub users: u64,
    /// The highest number of a login that is known here (a Lamport clock over the shards).
    logins: u64,
}

impl Im {
    /// Nobody is connected.
    pub(crate) fn new(engine: &mut Engine, config: Arc<Config>) -> Im {
        let rules = &config;
        // Its responses go on where its notifications end.
        let outbox_bytes_max = engine.settings.outbox_bytes_max.max(rules.out_high_water);
        let (write, idle) = (rules.write_timeout, rules.idle_timeout);
        let manners = Manners {
            stream: true,
            push_bytes_max: rules.out_high_water,
            batched: true,
            life: Life::Own,
            slow: Slow::Drop,
            ..Manners::new(rules.max_websocket_message, outbox_bytes_max, write, idle)
        };
        let silence_ms = rules.login_timeout.min(idle).as_millis() as u64;
        let new = Manners { silence_ms, ..manners.clone() };
        Im {
            config,
            conns: Slots::default(),
            new_row: engine.add_row(new),
            row: engine.add_row(manners),
            gzip: Gzip::default(),
            rooms: Rooms::default(),
            timers: Wheel::default(),
            guests: 0,
            users: 0,
            logins: 0,
        }
    }

    fn add(&mut self, engine: &mut Engine, slot: u32, conn: Conn) {
        let index = self.conns.insert(conn);
        engine.turn_into(slot, kind::IM, index, self.new_row);
    }

    /// For tests: bytes of input that are held.
    pub(crate) fn bytes_held(&self, engine: &Engine, slot: u32) -> usize {
        self.conns.of(engine.index(slot, kind::IM)).map_or(0, Conn::held)
    }

    /// A WebSocket message begins: one or more complete frames (IM section 13). False: it is none.
    pub(crate) fn begins(&mut self, engine: &mut Engine, slot: u32, opcode: Opcode) -> bool {
        if opcode == Opcode::Text {
            engine.counters.protocol_violations += 1;
            let reason = CloseReason::new(1003, "binary messages only");
            engine.close(slot, reason);
        }
        opcode == Opcode::Binary
    }

    /// Whether something is left of the WebSocket message before.
    pub(crate) fn mid_frame(&mut self, engine: &mut Engine, slot: u32) -> bool {
        self.im(engine, slot).is_some_and(|conn| conn.session.decoder.mid_frame())
    }

    /// What has come on a bare stream was handled: a frame that has begun must end in time.
    pub(crate) fn end_of_bytes(&mut self, engine: &mut Engine, slot: u32) {
        let blocked = engine.conns[slot].flags.has(Flags::BLOCKED);
        if self.im(engine, slot).is_none() {
            return;
        }
        if blocked || !self.mid_frame(engine, slot) {
            // The timer finds out when it fires.
            engine.conns[slot].due_ms = u64::MAX;
        } else if engine.conns[slot].due_ms == u64::MAX {
            let time_ms = self.config.frame_timeout.as_millis() as u64;
            engine.set_due(slot, engine.now.ms + time_ms);
        }
    }

    /// After the last frame of a WebSocket message nothing may be left.
    pub(crate) fn end_of_message(&mut self, engine: &mut Engine, slot: u32, empty: bool) {
        if engine.conns[slot].flags.has(Flags::BLOCKED | Flags::CLOSING | Flags::GONE) {
            return;
        }
        let incomplete = self.im(engine, slot).is_some_and(|conn| conn.session.decoder.mid_frame());
        if incomplete || empty {
            engine.counters.protocol_violations += 1;
            engine.close(slot, End::Protocol.reason());
        }
    }

    /// Whether the next frame can be handled now; if its event had no room, the client is blocked.
    pub(crate) fn may_read(&mut self, engine: &mut Engine, slot: u32) -> bool {
        let over = Flags::GONE | Flags::DEAF | Flags::CLOSING;
        if engine.conns[slot].flags.has(over) || !engine.takes(slot) {
            return false;
        }
        if engine.outbox_blocks(slot) {
            return false;
        }
        let Some(im) = self.conns.of(engine.index(slot, kind::IM)) else { return false };
        let forwards = self.config.forward != Forward::No && im.session.state() == State::User;
        let wait = engine.settings.workers.on_full == WorkerFull::Wait;
        let (id, worker) = (engine.conns.id(slot), engine.conns[slot].worker());
        if forwards && wait && !engine.links.ready(EventKind::Message, id, worker) {
            engine.wait_for_room(slot);
            return false;
        }
        true
    }

    fn im(&mut self, engine: &Engine, slot: u32) -> Option<&mut Conn> {
        self.conns.of_mut(engine.index(slot, kind::IM))
    }

    fn step(&mut self, engine: &mut Engine, slot: u32, step: Step) {
        match step {
            Step::Ignore => {}
            Step::Answer(answer, end) => self.answer(engine, slot, answer, end),
            Step::Dropped(status, answer, end) => {
                engine.dropped(reason_of(status), 1);
                self.answer(engine, slot, answer, end);
            }
            Step::Guest(answer) => {
                self.register(engine, slot);
                self.guests += 1;
                engine.counters.im_logins += 1;
                self.answer(engine, slot, Some(answer), None);
            }
            Step::Verify(who) => self.verify(engine, slot, who),
            Step::Join(answer, topic) => self.join(engine, slot, answer, &topic),
            Step::Leave(answer, topic) => self.leave(engine, slot, answer, &topic),
            Step::Say(say) => self.say(engine, slot, say),
        }
    }

    /// Sends a response and ends the connection, if there is one and a reason.
    fn answer(&mut self, engine: &mut Engine, slot: u32, answer: Option<Answer>, end: Option<End>) {
        let config = self.config.clone();
        let Some(conn) = self.im(engine, slot) else { return };
        if let Some(answer) = answer {
            let wire = conn.session.wire(&config);
            engine.counters.im_errors += (answer.status != 0) as u64;
            engine.push(slot, wire.response(answer));
        }
        if let Some(end) = end {
            let broke = matches!(end, End::NotLogin | End::Protocol | End::TooManyErrors);
            engine.counters.protocol_violations += broke as u64;
            engine.close(slot, end.reason());
        }
    }

    /// It gets pushes in its own wire format from now on.
    fn note_form(&mut self, engine: &mut Engine, slot: u32) {
        let Some(conn) = self.conns.of(engine.index(slot, kind::IM)) else { return };
        let form = form_of(conn.session.wire(&self.config));
        engine.conns[slot].form = numbers::IM + form;
    }

    fn register(&mut self, engine: &mut Engine, slot: u32) {
        self.note_form(engine, slot);
        engine.join(slot);
        // The time for the login is over, that for silence begins.
        engine.conns[slot].row = self.row;
        engine.rearm(slot);
    }

    fn verify(&mut self, engine: &mut Engine, slot: u32, who: Who) {
        let Some(conn) = self.im(engine, slot) else { return };
        conn.questions = conn.questions.wrapping_add(1);
        let number = conn.questions;
        conn.asked = Some((number, who.user.as_str().into()));
        let login = Login {
            protocol: "im",
            question: Question::Json,
            user: who.user,
            token: who.token,
            ip: conn.peer.ip().to_canonical().to_string(),
            headers: conn.headers.clone(),
            ..Login::default()
        };
        engine.block(slot);
        engine.verify(slot, number, Box::new(login));
    }

    /// Closes the IM connections of a user that are older than this session (section 8).
    pub(crate) fn replace(&mut self, engine: &mut Engine, newer: &pushing::Session) -> u64 {
        self.logins = self.logins.max(newer.number);
        let mut slots = Vec::new();
        let target = pushing::Target::Users(vec![newer.user.clone()]);
        engine.hub.for_each(&target, |slot| slots.push(slot));
        slots.retain(|&slot| {
            let id = engine.conns.id(slot);
            let Some(conn) = self.conns.of(engine.index(slot, kind::IM)) else { return false };
            if conn.session.user() != &*newer.user {
                return false;
            }
            (conn.login, id) < (newer.number, newer.conn)
        });
        slots.iter().for_each(|&slot| self.kicked(engine, slot, End::Kicked.reason()));
        slots.len() as u64
    }
}

impl Tenant for Im {
    /// A connection was accepted.
    fn accepted(&mut self, engine: &mut Engine, slot: u32, peer: SocketAddr) {
        self.add(engine, slot, Conn::new(peer));
    }

    /// A WebSocket connection was upgraded; the answer is queued.
    fn upgraded(&mut self, engine: &mut Engine, slot: u32, peer: SocketAddr, upgrade: Upgrade) {
        let session = Session::new(true);
        let conn = Conn { session, headers: upgrade.headers, ..Conn::new(peer) };
        self.add(engine, slot, conn);
    }

    /// Handles the next complete frame. False: there is none, or the client must wait.
    fn next(&mut self, engine: &mut Engine, slot: u32, input: &mut &[u8]) -> bool {
        if !self.may_read(engine, slot) {
            let blocked = engine.conns[slot].flags.has(Flags::BLOCKED);
            if let Some(conn) = self.im(engine, slot).filter(|_| blocked) {
                conn.session.decoder.stash(input);
                *input = &[];
            }
            return false;
        }
        let Engine { conns, hub, now, counters, .. } = engine;
        let config = &self.config;
        let conns::Conn { kind, index, active_ms, due_ms, .. } = &mut conns[slot];
        let index = (*kind == kind::IM).then_some(*index);
        let Some(conn) = self.conns.of_mut(index) else { return false };
        let gzip = &mut self.gzip;
        let around = Around { rules: config, hub, slot, now_ms: now.ms };
        let mut decoder = std::mem::take(&mut conn.session.decoder);
        let step = match decoder.next(input, conn.session.decoding(config), gzip) {
            Ok(None) => None,
            Ok(Some(frame)) => {
                *active_ms = now.ms;
                *due_ms = u64::MAX;
                counters.im_frames_received += 1;
                let packed = if frame.header.flag & 0x0C == 4 { frame.body.len() } else { 0 };
                counters.im_inflated += packed as u64;
                Some(conn.session.frame(frame, &around, gzip))
            }
            Err(refusal) => {
                let mode = decoder.mode(config.len_mode);
                Some(conn.session.refused(refusal, mode, config))
            }
        };
        conn.session.decoder = decoder;
        let Some(step) = step else { return false };
        self.step(engine, slot, step);
        true
    }

    /// The connection is gone.
    fn gone(&mut self, engine: &mut Engine, slot: u32) {
        if let Some(index) = engine.index(slot, kind::IM) {
            self.conns.remove(index);
        }
    }

    /// The verifier has decided about a login.
    fn verified(&mut self, engine: &mut Engine, slot: u32, number: u32, verdict: Verdict) {
        let (config, now_ms) = (self.config.clone(), engine.now.ms);
        if let Verdict::Unavailable(why) = &verdict
            && let Some(unsaid) = engine.complaints.allow(now_ms)
        {
            tracing::warn!(target: target::IM, why, unsaid, "an IM login could not be verified");
        }
        let Some(conn) = self.conns.of_mut(engine.index(slot, kind::IM)) else { return };
        let Some((_, user)) = conn.asked.take_if(|(asked, _)| *asked == number) else { return };
        let around = Around { rules: &config, hub: &engine.hub, slot, now_ms };
        match conn.session.verified(&user, verdict, &around) {
            Entered::No(step) => self.step(engine, slot, step),
            Entered::User { answer, first } => {
                conn.headers = Vec::new();
                self.logins += 1;
                conn.login = self.logins;
                engine.conns[slot].active_ms = now_ms;
                if first {
                    self.register(engine, slot);
                } else {
                    self.note_form(engine, slot);
                    self.guests -= 1;
                }
                self.users += 1;
                engine.counters.im_logins += 1;
                engine.hub.set_user(slot, &user);
                self.answer(engine, slot, Some(answer), None);
                if config.single_session {
                    let (number, conn) = (self.logins, engine.conns.id(slot));
                    let session = pushing::Session { user, number, conn };
                    engine.wants.push(Want::Command(Command::Replace(session)));
                }
            }
        }
        engine.read_on(slot);
    }

    /// A backend or an operator sends the client away (section 8, KICK).
    fn kicked(&mut self, engine: &mut Engine, slot: u32, _reason: CloseReason) {
        let config = self.config.clone();
        let rules = &config;
        let there = engine.hub.id_of(slot).is_some();
        let Some(conn) = self.im(engine, slot) else { return };
        if rules.kick_notify && there {
            let wire = conn.session.wire(rules);
            let status = rules.statuses.number(Status::Kicked);
            engine.push(slot, kick(wire, rules.commands.kick, status));
        }
        engine.close(slot, End::Kicked.reason());
    }

    /// The time for a frame that has begun is over.
    fn due(&mut self, engine: &mut Engine, slot: u32) {
        if engine.conns[slot].flags.has(Flags::BLOCKED) {
            // It can not come to an end.
            return engine.set_due(slot, u64::MAX);
        }
        engine.counters.idle_timeouts += 1;
        engine.close(slot, End::Stuck.reason());
    }

    /// The client has been silent for too long.
    fn silent(&mut self, engine: &mut Engine, slot: u32) {
        let Some(conn) = self.im(engine, slot) else { return };
        let end = match conn.session.state() {
            State::New => End::LoginTimeout,
            _ => End::Idle,
        };
        engine.counters.idle_timeouts += 1;
        engine.close(slot, end.reason());
    }

    /// The client has left.
    fn left(&mut self, engine: &mut Engine, slot: u32, _: &Departed) {
        match self.im(engine, slot).map(|conn| conn.session.state()) {
            Some(State::Guest) => self.guests -= 1,
            Some(State::User) => self.users -= 1,
            Some(State::New) | None => {}
        }
    }

    /// For tests: whether nothing is kept of any connection.
    fn has_nobody(&self) -> bool {
        self.conns.is_empty()
    }

    fn queue_room(&mut self, engine: &mut Engine, slot: u32) {
        // One that also waits for a worker goes on with that.
        if !engine.conns[slot].flags.has(Flags::WAITING | Flags::GONE) {
            engine.read_on(slot);
        }
    }

    fn give_back(&mut self, look: &mut Look) {
        self.gzip.give_back();
        self.timers.give_back(look);
    }

    fn turn_begins(&mut self, engine: &mut Engine) {
        self.tick(engine);
    }

    fn next_ms(&self, _: &Engine) -> Option<u64> {
        self.timers.next_ms()
    }

    fn describe(&self, engine: &Engine, slot: u32, notes: &mut Notes) {
        let Some(conn) = self.conns.of(engine.index(slot, kind::IM)) else { return };
        notes.fact(
            "login",
            match conn.session.state() {
                State::New => "none",
                State::Guest => "guest",
                State::User => "user",
            },
        );
        notes.reason_if(conn.asked.is_some(), "its login is being checked");
    }

    fn report(&self, gauges: &mut Gauges) {
        gauges.im_guests = self.guests;
        gauges.im_users = self.users;
        gauges.im_batches_open = self.rooms.len() as u64;
        gauges.timers += self.timers.len() as u64;
    }
}

/// Why a CMS with this status was dropped, as the metrics count it.
fn reason_of(status: Status) -> DropReason {
    match status {
        Status::GuestForbidden => DropReason::Guest,
        Status::NotInRoom | Status::RoomInvalid => DropReason::NotInRoom,
        Status::RateLimited => DropReason::ConnectionLimiter,
        Status::TooLarge => DropReason::TooLarge,
        _ => DropReason::Malformed,
    }
}
