//! What must hold between two turns of a shard, over all its parts, as a check for tests.
//!
//! Costs: it walks everything. Nothing on the data path calls it.

use std::collections::HashMap;

use crate::engine::LEFT_SPARE;
use crate::engine::conns::{Conn, Flags};
use crate::engine::flight::{Flight, Source};
use crate::limits::{
    FRAME_CHARGE_BYTES, HELD_BYTES_MAX, HTTP_HEAD_BYTES_MAX, PROXY_HEADER_BYTES_MAX,
};
use crate::lists::numbers::{self, kind};
use crate::protocols::connmix::limits::CONNMIX_ANSWER_BYTES_MAX;
use crate::protocols::netsvr::business::Tally;
use crate::shard::Shard;

/// What an outbox may hold beyond its limit: the answer to the upgrade, pongs, a close frame.
const CONTROL_BYTES_MAX: usize = 1024 + 2 * FRAME_CHARGE_BYTES;

/// What a test knows about the sizes that its peers use.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The largest frame that a backend pushes.
    pub frame_bytes_max: usize,
    /// The largest piece in which bytes arrive.
    pub piece_bytes_max: usize,
    /// How many workers there are at one time.
    pub workers_max: usize,
}

/// What a shard holds of what the process counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    pub connections: u32,
    pub online: u32,
    /// Of answers that wait to be written.
    pub answer_bytes: usize,
}

impl Shard {
    /// Panics if an invariant does not hold. To be called between two turns.
    pub fn audit(&self, sizes: Sizes) -> Holdings {
        self.engine.conns.check_kinds();
        let (mut touched, mut waiting) = (HashMap::new(), HashMap::new());
        self.engine.touched.iter().for_each(|&slot| *touched.entry(slot).or_insert(0) += 1);
        self.engine.waiting.iter().for_each(|&id| *waiting.entry(id).or_insert(0) += 1);
        let (mut stalls, mut members, mut online, mut timers) = (0, 0, 0, 0);
        let mut sum = Tally::default();
        for (slot, conn) in self.engine.conns.iter() {
            let times = touched.remove(&slot).unwrap_or(0);
            assert_eq!(times, conn.flags.has(Flags::TOUCHED) as u32, "touched: slot {slot}");
            let waits = conn.flags.has(Flags::WAITING) && !conn.flags.has(Flags::GONE);
            let times = waiting.get(&self.engine.conns.id(slot)).copied().unwrap_or(0);
            assert!(times == waits as u32 || !waits, "in the waiting list: slot {slot}");
            stalls += (conn.flags.has(Flags::STALLED) && !conn.flags.has(Flags::GONE)) as usize;
            members += self.engine.hub.id_of(slot).is_some() as usize;
            online += conn.flags.has(Flags::ONLINE) as u32;
            timers += self.engine.timers.armed(slot) as usize;
            let tally = self.audit_conn(slot, conn, sizes);
            let flight = conn.extra.as_ref().and_then(|extra| extra.flight.as_deref());
            let counts = flight.filter(|flight| flight.source == Source::Workers);
            sum.answer_bytes += counts.map_or(0, Flight::own_bytes);
            sum.questions += tally.questions;
            sum.tells += tally.tells;
            sum.links += tally.links;
            sum.workers += tally.workers;
        }
        assert!(touched.is_empty(), "free slots are touched: {touched:?}");
        assert!(self.engine.wants.is_empty(), "wants are left");
        assert_eq!(
            (self.engine.stalls, self.engine.hub.len()),
            (stalls, members),
            "stalls, members"
        );
        assert_eq!(
            (self.engine.timers.len(), self.engine.job_timers.len()),
            (timers, self.engine.jobs.len()),
            "timers"
        );
        assert_eq!(
            self.tenants.im.timers.len(),
            self.tenants.im.rooms.len(),
            "timers of open batches"
        );
        self.tenants.im.rooms.check(self.tenants.im.bounds());
        self.audit_lists(sizes, &sum);
        self.tenants.xxim.audit(&self.engine);
        self.engine.hub.check();
        self.engine.queueing.queues.check();
        let connections = self.engine.conns.len() as u32;
        Holdings { connections, online, answer_bytes: sum.answer_bytes }
    }

    /// What waits at the desks fits to the connections.
    fn audit_lists(&self, sizes: Sizes, sum: &Tally) {
        let calls = self.tenants.connmix.calls.waiting();
        assert!(
            calls <= 2 * self.engine.conns.len() + LEFT_SPARE,
            "{calls} requests of rules wait"
        );
        assert!(
            self.engine.logins.waiting() <= 2 * self.engine.conns.len() + LEFT_SPARE,
            "logins wait"
        );
        assert_eq!(
            (self.tenants.netsvr.asks.len(), self.engine.workers),
            (sum.questions, sum.workers),
            "asks, workers"
        );
        assert_eq!(self.engine.tells.len(), sum.tells, "commands whose outcome is awaited");
        self.tenants.netsvr.asks.audit();
        assert_eq!(self.engine.answer_bytes, sum.answer_bytes, "bytes of answers");
        assert_eq!(
            self.engine.links.audit(self.engine.id, sizes.workers_max),
            sum.links,
            "links to own workers"
        );
        let most = 2 * self.engine.settings.connections_max as usize + LEFT_SPARE;
        assert!(
            self.engine.waiting.len() <= most,
            "{} in the waiting list",
            self.engine.waiting.len()
        );
        assert!(
            self.tenants.netsvr.callbacks.opens() <= most,
            "{} callbacks at open wait",
            self.tenants.netsvr.callbacks.opens()
        );
    }

    /// Panics unless nothing is left of any connection.
    pub fn audit_empty(&self) {
        assert!(self.engine.conns.is_empty(), "{} connections are left", self.engine.conns.len());
        assert!(self.engine.hub.is_empty(), "{} members are left", self.engine.hub.len());
        assert_eq!((self.engine.hub.users(), self.engine.hub.topics()), (0, 0), "users, topics");
        assert!(
            self.engine.timers.is_empty() && self.engine.job_timers.is_empty(),
            "timers are left"
        );
        assert!(self.engine.jobs.is_empty(), "{} jobs are left", self.engine.jobs.len());
        assert_eq!(self.engine.links.queued(), (0, 0), "events are left");
        assert!(self.engine.links.is_empty() && self.engine.workers == 0, "workers are left");
        assert_eq!(
            (self.tenants.xxim.held(), self.tenants.xxim.under_way()),
            (0, 0),
            "triples, requests of xxim"
        );
        assert!(self.engine.tells.is_empty(), "outcomes are awaited");
        let preludes = self.greetings.is_empty() && self.preludes.is_empty();
        let nobody = preludes && self.tenants.have_nobody();
        assert!(nobody, "protocols keep something of connections that are gone");
        assert!(self.tenants.connmix.rest.is_empty(), "rules go on");
        assert!(self.tenants.are_idle(), "questions of clients are left");
        assert_eq!(
            (self.tenants.netsvr.asks.len(), self.tenants.netsvr.callbacks.len()),
            (0, 0),
            "questions, callbacks"
        );
        assert!(
            !self.tenants.netsvr.asks.is_busy(self.engine.answers_written),
            "answers are in the making"
        );
        assert_eq!((self.tenants.im.guests, self.tenants.im.users), (0, 0), "IM clients");
        assert!(
            self.tenants.im.rooms.is_empty() && self.tenants.im.timers.is_empty(),
            "batches are open"
        );
        assert_eq!(self.tenants.connmix.calls.len(), 0, "requests of rules");
        let (leaving, departed) =
            (self.tenants.connmix.leaving.len(), self.tenants.connmix.departed.len());
        assert_eq!((leaving, departed), (0, 0), "rules about the end of clients");
        assert!(
            self.engine.shared.room_limits.is_empty() && self.engine.logins.is_empty(),
            "rooms, logins"
        );
        let lists =
            (self.engine.touched.len(), self.engine.unconfirmed.len(), self.engine.waiting.len());
        assert_eq!(lists, (0, 0, 0), "touched, unconfirmed, waiting");
        let queues = &self.engine.queueing.queues;
        assert_eq!((queues.topics(), queues.consumers(), queues.depth()), (0, 0, 0), "queues");
        assert_eq!(self.engine.stalls, 0, "stalls");
        assert!(
            self.engine.ops.is_empty() && self.engine.mail.iter().all(|queue| queue.is_empty()),
            "output"
        );
    }

    fn audit_conn(&self, slot: u32, conn: &Conn, sizes: Sizes) -> Tally {
        let has = |bits: u32| conn.flags.has(bits);
        let at = |what: &str| format!("slot {slot}, {:?}: {what}", conn.flags);
        let member = self.engine.hub.id_of(slot);
        if has(Flags::GONE) {
            assert!(conn.kind == kind::LEAVING && member.is_none(), "{}", at("role"));
            let sealed = self.engine.conns.seal(slot).is_some();
            assert!(conn.is_written() && conn.extra.is_none() && !sealed, "{}", at("memory"));
            assert!(
                !self.engine.timers.armed(slot) && !has(Flags::ONLINE),
                "{}",
                at("timer, online")
            );
            return Tally::default();
        }
        let read = matches!(conn.kind, kind::CONNMIX | kind::XXIM | kind::XXIM_HTTP);
        assert!(!has(Flags::READS_ON) || has(Flags::BLOCKED), "{}", at("reads on and is read"));
        assert!(has(Flags::BLOCKED | Flags::ENDED) || !has(Flags::PAUSED), "{}", at("paused"));
        assert!(!has(Flags::BLOCKED) || has(Flags::PAUSED) || read, "{}", at("blocked, is read"));
        assert!(!has(Flags::WAITING) || has(Flags::BLOCKED), "{}", at("waits and is read"));
        let goes_on =
            || has(Flags::TOUCHED | Flags::STALLED) || self.engine.unconfirmed.contains(&slot);
        let waits = !has(Flags::ENDED) || self.engine.under_way(slot) || goes_on();
        assert!(waits, "{}", at("ended, does not wait"));
        assert!(!has(Flags::FULL) || has(Flags::BLOCKED), "{}", at("full and is read"));
        assert!(!has(Flags::FULL) || goes_on(), "{}", at("full, and nothing is written"));
        assert!(conn.held() == 0 || has(Flags::BLOCKED), "{}", at("held input"));
        let idle = conn.due_ms == u64::MAX && self.engine.row(slot).silence_ms == 0;
        assert!(self.engine.timers.armed(slot) || idle, "{}", at("no timer"));
        let there = has(Flags::MEMBER) && !has(Flags::CLOSING) && !conn.goes();
        let id = there.then(|| self.engine.conns.id(slot));
        assert_eq!(member, id, "{}", at("registration"));
        let sealed = conn.kind == kind::XXIM && conn.form == numbers::XXIM_SEALED;
        assert_eq!(self.engine.conns.seal(slot).is_some(), sealed, "{}", at("seal"));
        self.audit_memory(slot, conn, sizes);
        match conn.kind {
            kind::BUSINESS => {
                let frames = self.config.netsvr.worker.queue_frames_max as usize;
                let events_max = frames.max(self.engine.mail.len());
                let business = self.tenants.netsvr.backends.of(Some(conn.index));
                let business = business.expect("a backend has one");
                business.audit(audit_flight(conn), events_max)
            }
            kind::CONNMIX_API => {
                audit_flight(conn);
                Tally { tells: self.tenants.api.audit(&self.engine, slot).0, ..Tally::default() }
            }
            kind::OPENING | kind::NETSVR => {
                assert!(has(Flags::ONLINE), "{}", at("not counted as online"));
                Tally::default()
            }
            _ => Tally::default(),
        }
    }

    /// Bytes of a message and in the outbox of an API connection.
    fn audit_api_memory(&self, sizes: Sizes) -> (usize, usize) {
        let api = &self.config.connmix.api;
        let message_max = api.message_bytes_max as usize;
        let event_charges =
            self.engine.mail.len() * (api.events_max as usize + 1) * FRAME_CHARGE_BYTES;
        let events_bytes =
            self.engine.mail.len() * api.event_bytes_max as usize + sizes.frame_bytes_max;
        let events_max = events_bytes + event_charges;
        // One turn may read more requests than the limit by what a piece holds, and each answer
        // may have the id of its request in it.
        let answers_max = CONNMIX_ANSWER_BYTES_MAX
            + message_max
            + (64 + FRAME_CHARGE_BYTES) * sizes.piece_bytes_max;
        (message_max, events_max + answers_max)
    }

    fn audit_memory(&self, slot: u32, conn: &Conn, sizes: Sizes) {
        // What arrives during a pause is a few pieces, and a vector has room for twice its length.
        let kept_max = 8 * sizes.piece_bytes_max;
        let outbox_bytes_max = self.engine.settings.outbox_bytes_max as usize;
        let (message_max, frames_max) = match conn.kind {
            kind::BUSINESS => (0, usize::MAX),
            kind::CONNMIX_API => self.audit_api_memory(sizes),
            kind::IM => {
                let rules = &self.config.im;
                let message_max = rules.max_websocket_message.max(rules.max_body) as usize;
                let held = self.tenants.im.bytes_held(&self.engine, slot);
                assert!(held <= 2 * message_max + kept_max, "slot {slot}: {held} bytes of a frame");
                // Responses go on where notifications end.
                let high_water = outbox_bytes_max.max(rules.out_high_water as usize);
                (message_max, high_water.max(sizes.frame_bytes_max) + 16 * CONTROL_BYTES_MAX)
            }
            kind::CONNMIX => {
                let message_max = self.engine.row(slot).message_bytes_max as usize;
                self.tenants.connmix.audit(&self.engine, slot, message_max + kept_max);
                (message_max, outbox_bytes_max.max(sizes.frame_bytes_max) + 16 * CONTROL_BYTES_MAX)
            }
            kind::NETSVR
            | kind::OPENING
            | kind::XXIM
            | kind::XXIM_HTTP
            | kind::GREETING
            | kind::PROXY
            | kind::LEAVING => {
                let message_max = self.config.netsvr.customer.receive_pack_limit as usize;
                (message_max, outbox_bytes_max.max(sizes.frame_bytes_max) + CONTROL_BYTES_MAX)
            }
            // An answer may be as long as what it answers.
            _ => {
                let message_max = self.engine.row(slot).message_bytes_max as usize;
                (message_max, outbox_bytes_max + message_max)
            }
        };
        let bytes = conn.outbox.charge() as usize;
        assert!(bytes <= frames_max, "slot {slot}: {bytes} bytes in the outbox");
        let memory = conn.outbox.memory();
        assert!(memory <= bytes, "slot {slot}: {memory} bytes for {bytes} that are charged");
        let held = conn.held();
        let read = matches!(conn.kind, kind::CONNMIX | kind::XXIM | kind::XXIM_HTTP);
        let held_max = if read { HELD_BYTES_MAX + kept_max } else { kept_max };
        assert!(held <= held_max, "slot {slot}: {held} bytes of input are held");
        let decoder = conn.decoder.held();
        assert!(decoder <= message_max + kept_max + CONTROL_BYTES_MAX, "slot {slot}: {decoder}");
        if conn.kind == kind::CONNMIX_API {
            let held = self.tenants.api.audit(&self.engine, slot).1;
            assert!(held <= message_max + HTTP_HEAD_BYTES_MAX + kept_max, "slot {slot}: {held}");
        }
        let header = self.preludes.held(&self.engine, slot);
        assert!(header <= PROXY_HEADER_BYTES_MAX + sizes.piece_bytes_max, "slot {slot}: {header}");
        if let Some(greeting) = self.greetings.of(self.engine.index(slot, kind::GREETING)) {
            let most = HTTP_HEAD_BYTES_MAX + sizes.piece_bytes_max;
            let held = greeting.held();
            assert!(held <= most, "slot {slot}: {held} bytes of a head");
        }
    }
}

/// What became of the frames for a backend fits to its outbox.
fn audit_flight(conn: &Conn) -> &Flight {
    let extra = conn.extra.as_ref().expect("a backend has one");
    let flight = extra.flight.as_deref().expect("a backend has one");
    let stalled = conn.flags.has(Flags::STALLED);
    let charged = (!stalled).then(|| conn.outbox.charge() as usize);
    flight.audit(conn.outbox.frames(), charged);
    flight
}
