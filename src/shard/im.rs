//! IM clients of this shard: bytes and messages in, steps of the session carried out, time (IM
//! sections 1, 8, 10, 12 and 13). Rooms are in `rooms`, other pushes in `push`.
//!
//! Costs: a connection is one box besides its slot; one that waits holds no bytes. A response is
//! one small allocation.

mod forward;
mod push;
mod rooms;

use std::net::SocketAddr;

use self::push::form_of;
pub(super) use self::push::{FORMS, make};
use crate::config::model::{Forward, WorkerFull};
use crate::edge::im::{Around, End, Entered, Session, State, Step, Who};
use crate::edge::upgrade::Opening as Upgrade;
use crate::hub::login::{Login, LoginProtocol, Verdict};
use crate::hub::push::{self as pushing, CloseReason, Command};
use crate::hub::rooms::Rooms;
use crate::metrics::DropReason;
use crate::shard::conns::{Flags, Role};
use crate::shard::links::EventKind;
use crate::shard::timers::Wheel;
use crate::shard::wants::Want;
use crate::shard::{Engine, Shard, conns};
use crate::shard::{lists, rows};
use crate::wire::im::{Answer, Gzip, Status, kick};
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
    pub fn new(peer: SocketAddr) -> Conn {
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
    pub(super) fn held(&self) -> usize {
        self.session.decoder.held()
    }
}

/// What a shard has for all IM clients together.
#[derive(Default)]
pub(super) struct Im {
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

impl Shard {
    /// A WebSocket connection was upgraded; the answer is queued.
    pub(super) fn im_upgraded(&mut self, slot: u32, peer: SocketAddr, upgrade: Upgrade) {
        let session = Session::new(true);
        let conn = Conn { session, headers: upgrade.headers, ..Conn::new(peer) };
        self.engine.turn_into(slot, Role::Im(Box::new(conn)), rows::IM_NEW);
    }

    /// A WebSocket message begins: one or more complete frames (IM section 13). False: it is none.
    pub(super) fn im_begins(&mut self, slot: u32, opcode: Opcode) -> bool {
        if opcode == Opcode::Text {
            self.engine.counters.protocol_violations += 1;
            let reason = CloseReason { code: 1003, text: "binary messages only" };
            self.engine.close(slot, reason);
        }
        opcode == Opcode::Binary
    }

    /// Whether something is left of the WebSocket message before.
    pub(super) fn im_mid_frame(&mut self, slot: u32) -> bool {
        self.im(slot).is_some_and(|conn| conn.session.decoder.mid_frame())
    }

    /// Handles the next complete frame. False: there is none, or the client must wait.
    pub(super) fn im_next(&mut self, slot: u32, input: &mut &[u8]) -> bool {
        if !self.im_may_read(slot) {
            let blocked = self.engine.conns[slot].flags.has(Flags::BLOCKED);
            if let Some(conn) = self.im(slot).filter(|_| blocked) {
                conn.session.decoder.stash(input);
                *input = &[];
            }
            return false;
        }
        let Engine { conns, hub, config, now, counters, .. } = &mut self.engine;
        let conns::Conn { role, active_ms, due_ms, .. } = &mut conns[slot];
        let Role::Im(conn) = role else { return false };
        let gzip = &mut self.im.gzip;
        let around = Around { rules: &config.im, hub, slot, now_ms: now.ms };
        let mut decoder = std::mem::take(&mut conn.session.decoder);
        let step = match decoder.next(input, conn.session.decoding(&config.im), gzip) {
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
                let mode = decoder.mode(config.im.len_mode);
                Some(conn.session.refused(refusal, mode, &config.im))
            }
        };
        conn.session.decoder = decoder;
        let Some(step) = step else { return false };
        self.im_step(slot, step);
        true
    }

    /// What has come on a bare stream was handled: a frame that has begun must end in time.
    pub(super) fn im_end_of_bytes(&mut self, slot: u32) {
        let blocked = self.engine.conns[slot].flags.has(Flags::BLOCKED);
        if self.im(slot).is_none() {
            return;
        }
        if blocked || !self.im_mid_frame(slot) {
            // The timer finds out when it fires.
            self.engine.conns[slot].due_ms = u64::MAX;
        } else if self.engine.conns[slot].due_ms == u64::MAX {
            let time_ms = self.engine.config.im.frame_timeout.as_millis() as u64;
            self.engine.set_due(slot, self.engine.now.ms + time_ms);
        }
    }

    /// After the last frame of a WebSocket message nothing may be left.
    pub(super) fn im_end_of_message(&mut self, slot: u32, empty: bool) {
        if self.engine.conns[slot].flags.has(Flags::BLOCKED | Flags::CLOSING | Flags::GONE) {
            return;
        }
        let incomplete = self.im(slot).is_some_and(|conn| conn.session.decoder.mid_frame());
        if incomplete || empty {
            self.engine.counters.protocol_violations += 1;
            self.engine.close(slot, End::Protocol.reason());
        }
    }

    /// Whether the next frame can be handled now; if its event had no room, the client is blocked.
    pub(super) fn im_may_read(&mut self, slot: u32) -> bool {
        let over = Flags::GONE | Flags::DEAF | Flags::CLOSING;
        if self.engine.conns[slot].flags.has(over) || !self.engine.takes(slot) {
            return false;
        }
        if self.engine.outbox_blocks(slot) {
            return false;
        }
        let Role::Im(im) = &self.engine.conns[slot].role else { return false };
        let forwards =
            self.engine.config.im.forward != Forward::No && im.session.state() == State::User;
        let wait = self.engine.config.netsvr.worker.on_full == WorkerFull::Wait;
        let (id, worker) = (self.engine.conns.id(slot), self.engine.conns[slot].worker());
        if forwards && wait && !self.engine.links.ready(EventKind::Message, id, worker) {
            self.engine.wait_for_room(slot);
            return false;
        }
        true
    }

    fn im(&mut self, slot: u32) -> Option<&mut Conn> {
        match &mut self.engine.conns[slot].role {
            Role::Im(conn) => Some(conn),
            _ => None,
        }
    }

    fn im_step(&mut self, slot: u32, step: Step) {
        match step {
            Step::Ignore => {}
            Step::Answer(answer, end) => self.im_answer(slot, answer, end),
            Step::Dropped(status, answer, end) => {
                self.engine.dropped(reason_of(status), 1);
                self.im_answer(slot, answer, end);
            }
            Step::Guest(answer) => {
                self.im_register(slot);
                self.im.guests += 1;
                self.engine.counters.im_logins += 1;
                self.im_answer(slot, Some(answer), None);
            }
            Step::Verify(who) => self.im_verify(slot, who),
            Step::Join(answer, topic) => self.im_join(slot, answer, &topic),
            Step::Leave(answer, topic) => self.im_leave(slot, answer, &topic),
            Step::Say(say) => self.im_say(slot, say),
        }
    }

    /// Sends a response and ends the connection, if there is one and a reason.
    fn im_answer(&mut self, slot: u32, answer: Option<Answer>, end: Option<End>) {
        let config = self.engine.config.clone();
        let Some(conn) = self.im(slot) else { return };
        if let Some(answer) = answer {
            let wire = conn.session.wire(&config.im);
            self.engine.counters.im_errors += (answer.status != 0) as u64;
            self.engine.push(slot, wire.response(answer));
        }
        if let Some(end) = end {
            let broke = matches!(end, End::NotLogin | End::Protocol | End::TooManyErrors);
            self.engine.counters.protocol_violations += broke as u64;
            self.engine.close(slot, end.reason());
        }
    }

    /// It gets pushes in its own wire format from now on.
    fn im_note_form(&mut self, slot: u32) {
        let Role::Im(conn) = &self.engine.conns[slot].role else { return };
        let form = form_of(conn.session.wire(&self.engine.config.im));
        self.engine.conns[slot].form = lists::IM + form;
    }

    fn im_register(&mut self, slot: u32) {
        self.im_note_form(slot);
        self.engine.join(slot);
        // The time for the login is over, that for silence begins.
        self.engine.conns[slot].row = rows::IM;
        self.engine.rearm(slot);
    }

    fn im_verify(&mut self, slot: u32, who: Who) {
        let Some(conn) = self.im(slot) else { return };
        conn.questions = conn.questions.wrapping_add(1);
        let number = conn.questions;
        conn.asked = Some((number, who.user.as_str().into()));
        let login = Login {
            protocol: LoginProtocol::Im,
            user: who.user,
            token: who.token,
            ip: conn.peer.ip().to_canonical().to_string(),
            headers: conn.headers.clone(),
            ..Login::default()
        };
        self.engine.block(slot);
        self.engine.verify(slot, number, Box::new(login));
    }

    /// The verifier has decided about a login.
    pub(super) fn im_verified(&mut self, slot: u32, number: u32, verdict: Verdict) {
        let (config, now_ms) = (self.engine.config.clone(), self.engine.now.ms);
        if let Verdict::Unavailable(why) = &verdict
            && let Some(unsaid) = self.engine.complaints.allow(now_ms)
        {
            tracing::warn!(why, unsaid, "an IM login could not be verified");
        }
        let Role::Im(conn) = &mut self.engine.conns[slot].role else { return };
        let Some((_, user)) = conn.asked.take_if(|(asked, _)| *asked == number) else { return };
        let around = Around { rules: &config.im, hub: &self.engine.hub, slot, now_ms };
        match conn.session.verified(&user, verdict, &around) {
            Entered::No(step) => self.im_step(slot, step),
            Entered::User { answer, first } => {
                conn.headers = Vec::new();
                self.im.logins += 1;
                conn.login = self.im.logins;
                self.engine.conns[slot].active_ms = now_ms;
                if first {
                    self.im_register(slot);
                } else {
                    self.im_note_form(slot);
                    self.im.guests -= 1;
                }
                self.im.users += 1;
                self.engine.counters.im_logins += 1;
                self.engine.hub.set_user(slot, &user);
                self.im_answer(slot, Some(answer), None);
                if config.im.single_session {
                    let (number, conn) = (self.im.logins, self.engine.conns.id(slot));
                    let session = pushing::Session { user, number, conn };
                    self.engine.wants.push(Want::Command(Command::Replace(session)));
                }
            }
        }
        self.engine.read_on(slot);
    }

    /// Closes the IM connections of a user that are older than this session (section 8).
    pub(super) fn im_replace(&mut self, newer: &pushing::Session) -> u64 {
        self.im.logins = self.im.logins.max(newer.number);
        let mut slots = Vec::new();
        let target = pushing::Target::Users(vec![newer.user.clone()]);
        self.engine.hub.for_each(&target, |slot| slots.push(slot));
        slots.retain(|&slot| {
            let id = self.engine.conns.id(slot);
            let Role::Im(conn) = &self.engine.conns[slot].role else { return false };
            if conn.session.user() != &*newer.user {
                return false;
            }
            (conn.login, id) < (newer.number, newer.conn)
        });
        slots.iter().for_each(|&slot| self.im_kicked(slot, End::Kicked.reason()));
        slots.len() as u64
    }

    /// A backend or an operator sends the client away (section 8, KICK).
    pub(super) fn im_kicked(&mut self, slot: u32, _reason: CloseReason) {
        let config = self.engine.config.clone();
        let rules = &config.im;
        let there = self.engine.hub.id_of(slot).is_some();
        let Some(conn) = self.im(slot) else { return };
        if rules.kick_notify && there {
            let wire = conn.session.wire(rules);
            let status = rules.statuses.number(Status::Kicked);
            self.engine.push(slot, kick(wire, rules.commands.kick, status));
        }
        self.engine.close(slot, End::Kicked.reason());
    }

    /// The time for a frame that has begun is over.
    pub(super) fn im_due(&mut self, slot: u32) {
        if self.engine.conns[slot].flags.has(Flags::BLOCKED) {
            // It can not come to an end.
            return self.engine.set_due(slot, u64::MAX);
        }
        self.engine.counters.idle_timeouts += 1;
        self.engine.close(slot, End::Stuck.reason());
    }

    /// The client has been silent for too long.
    pub(super) fn im_silent(&mut self, slot: u32) {
        let Some(conn) = self.im(slot) else { return };
        let end = match conn.session.state() {
            State::New => End::LoginTimeout,
            _ => End::Idle,
        };
        self.engine.counters.idle_timeouts += 1;
        self.engine.close(slot, end.reason());
    }

    /// The client has left.
    pub(super) fn im_left(&mut self, slot: u32) {
        match self.im(slot).map(|conn| conn.session.state()) {
            Some(State::Guest) => self.im.guests -= 1,
            Some(State::User) => self.im.users -= 1,
            Some(State::New) | None => {}
        }
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
