//! How connections end, and what is due when their time is up (netsvr sections 2.5, 2.7, 2.8).
//!
//! There are three ways: `close` says goodbye with a close frame and waits for the peer's; `linger`
//! writes what is queued, says that nothing follows and waits for the peer's end, so that no reset
//! destroys what was written; `hang_up` closes as soon as everything is written. All of them end in
//! `finish`, at the latest after `runtime.close_timeout`. A client has left before (`leaving`).
//!
//! When the peer ends its side (`ended`), what came whole before is carried out and answered first,
//! within `runtime.close_timeout`, whatever the protocol. A connection that is closed because of
//! what the peer sent answers what came before that, too: data may follow the peer's close frame
//! until ours is sent (RFC 6455 section 5.5.1), so ours waits for the answers that are under way
//! (`says_last`), no longer than `runtime.close_timeout`. So does the goodbye of a kick and of a
//! drain; a drain lets a client that waits be heard out before that (`unblock`), within the same
//! time.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::hub::push::CloseReason;
use crate::metrics::DropReason;
use crate::shard::Shard;
use crate::shard::conns::{Flags, Role};
use crate::shard::ops::{Frame, Op};
use crate::wire::websocket::{self, Violation};

const IDLE: CloseReason = CloseReason { code: 1001, text: "heartbeat timeout" };
pub(super) const SHUTDOWN: CloseReason = CloseReason { code: 1001, text: "server shutdown" };
const SLOW: CloseReason = CloseReason { code: 1008, text: "slow consumer" };

impl Shard {
    /// Sends a close frame, behind the answers of upstreams that the client is owed, and waits for
    /// the peer's. Nothing is sent after it. Without a WebSocket there is no frame, and only the
    /// end of the stream follows.
    pub(super) fn close(&mut self, slot: u32, reason: CloseReason) {
        let goodbye = || websocket::close(reason.code, reason.text);
        if self.engine.conns[slot].flags.has(Flags::GONE) || self.xxim_says_last(slot, goodbye) {
            return;
        }
        if !self.engine.conns[slot].flags.has(Flags::WEBSOCKET) {
            return self.linger(slot);
        }
        if self.engine.conns[slot].flags.has(Flags::CLOSING) {
            return;
        }
        self.say_goodbye(slot, websocket::close(reason.code, reason.text));
        self.rearm(slot);
        self.connmix_give_up(slot);
        self.unblock_full(slot);
    }

    /// Queues a close frame, behind everything else. With that a client leaves.
    pub(super) fn say_goodbye(&mut self, slot: u32, frame: Bytes) {
        self.xxim_seal_all(slot);
        self.engine.conns[slot].flags.set(Flags::CLOSING);
        self.push(slot, frame);
        self.leave(slot);
    }

    /// A connection that ends is listened to, if only for its end, though its outbox is full.
    fn unblock_full(&mut self, slot: u32) {
        if self.engine.conns[slot].flags.has(Flags::FULL) {
            self.unblock(slot);
        }
    }

    /// Writes what is queued, says that nothing follows, then waits for the peer's end only.
    pub(super) fn linger(&mut self, slot: u32) {
        let flags = &mut self.engine.conns[slot].flags;
        if flags.has(Flags::GONE) {
            return;
        }
        flags.set(Flags::CLOSING);
        flags.set(Flags::DEAF);
        if flags.set(Flags::LINGER) {
            self.touch(slot);
            self.rearm(slot);
        }
        self.leave(slot);
        self.unblock_full(slot);
    }

    /// The peer has ended its side. What came whole before is carried out, and its answers are
    /// written; then the connection ends (`written_out`).
    pub fn ended(&mut self, slot: u32) {
        let conn = &mut self.engine.conns[slot];
        if conn.flags.has(Flags::GONE) || !conn.flags.set(Flags::ENDED) {
            return;
        }
        self.give_time(slot);
        self.touch(slot);
    }

    /// The connection has so long for what it still has to do.
    fn give_time(&mut self, slot: u32) {
        let close_ms = self.engine.config.runtime.close_timeout.as_millis() as u64;
        self.engine.timers.arm(slot, self.engine.now.ms + close_ms);
    }

    fn soon(&mut self, slot: u32) {
        self.engine.timers.arm(slot, self.engine.now.ms + 1);
    }

    /// Nobody is at the other end any more to be answered. What a client sent before still counts.
    pub fn broken(&mut self, slot: u32) {
        let conn = &self.engine.conns[slot];
        if conn.flags.has(Flags::GONE) {
            return;
        }
        let client = !conn.role.is_backend() && !matches!(conn.role, Role::Echo);
        if client && self.keeps_input(slot) {
            self.give_up_outbox(slot, self.at_end(DropReason::Closing));
            self.ended(slot);
            // Its end may have come before, and now there is room.
            return self.touch(slot);
        }
        self.finish(slot);
    }

    /// Whether something that the peer has sent is not carried out, or not answered.
    pub(super) fn under_way(&self, slot: u32) -> bool {
        self.keeps_input(slot) || self.owes_answers(slot)
    }

    /// Whether input is kept that will still be handled.
    fn keeps_input(&self, slot: u32) -> bool {
        let conn = &self.engine.conns[slot];
        let ends = Flags::CLOSING | Flags::DEAF | Flags::GONE;
        if !conn.flags.has(Flags::BLOCKED) || conn.flags.has(ends) {
            return false;
        }
        // A client that is not let in yet is let in only for what it has said.
        let said = || conn.held.is_some() || conn.decoder.has_kept();
        !matches!(conn.role, Role::Opening(_)) || said()
    }

    /// Whether answers will still be written.
    fn owes_answers(&self, slot: u32) -> bool {
        let conn = &self.engine.conns[slot];
        let silent = conn.flags.has(Flags::CLOSING);
        match &conn.role {
            Role::Business(business) => business.owes_answers(),
            Role::ConnmixApi(api) => !silent && !api.is_settled(),
            Role::Xxim(xxim) => !silent && xxim.owes_answers(),
            Role::XximHttp(http) => http.owes_answers(),
            _ => false,
        }
    }

    /// Says goodbye to a WebSocket behind the answers that it is owed, and reads nothing more.
    /// False: it is owed none.
    pub(super) fn says_last(&mut self, slot: u32, goodbye: impl FnOnce() -> Bytes) -> bool {
        match self.engine.conns[slot].role {
            Role::ConnmixApi(_) => self.api_says_last(slot, goodbye),
            Role::Xxim(_) => self.xxim_says_last(slot, goodbye),
            _ => false,
        }
    }

    /// Closes as soon as everything is written.
    pub(super) fn hang_up(&mut self, slot: u32) {
        let flags = &mut self.engine.conns[slot].flags;
        if flags.has(Flags::GONE) {
            return;
        }
        flags.set(Flags::DEAF);
        flags.set(Flags::HANG_UP);
        self.touch(slot);
        self.rearm(slot);
    }

    /// The client broke the WebSocket protocol (netsvr section 2.5).
    pub(super) fn violated(&mut self, slot: u32, violation: Violation) {
        self.engine.counters.protocol_violations += 1;
        let goodbye = || websocket::close(violation.code, violation.reason);
        if self.xxim_violated(slot, violation) || self.says_last(slot, goodbye) {
            return;
        }
        self.close(slot, CloseReason { code: violation.code, text: violation.reason });
        self.linger(slot);
    }

    /// The client does not read what it is sent; what waits for it is given up.
    pub(super) fn too_slow(&mut self, slot: u32) {
        // One push may overflow an outbox several times; the close frame stays in it.
        if self.engine.conns[slot].flags.has(Flags::CLOSING | Flags::GONE) {
            return;
        }
        self.give_up_outbox(slot, DropReason::SlowClient);
        self.engine.counters.slow_client_closes += 1;
        if matches!(self.engine.conns[slot].role, Role::Xxim(_)) {
            // Without a word (xxim section 1.5).
            return self.finish(slot);
        }
        self.close(slot, SLOW);
    }

    /// Why something is given up: once the shard stops it is that, whatever happened to be first.
    pub(super) fn at_end(&self, reason: DropReason) -> DropReason {
        if self.engine.stopping { DropReason::Shutdown } else { reason }
    }

    fn give_up_outbox(&mut self, slot: u32, reason: DropReason) {
        let conn = &mut self.engine.conns[slot];
        let framed = conn.has_control_frames();
        let (mut frames, mut bytes) = conn.outbox.clear(framed);
        let unsealed = self.xxim_give_up(slot);
        frames += unsealed.0;
        bytes += unsealed.1;
        if frames > 0 && self.engine.conns[slot].role.is_opened() {
            self.connmix_count(slot, 0, frames);
            self.engine.counters.frames_failed += frames;
            self.engine.counters.frame_bytes_failed += bytes;
            self.dropped(reason, frames);
        }
    }

    /// The last send was written: what the connection was waiting for happens now.
    pub(super) fn written_out(&mut self, slot: u32) {
        let under_way = self.under_way(slot);
        let has_room = self.engine.conns[slot].flags.has(Flags::FULL) && !self.outbox_is_full(slot);
        let conn = &mut self.engine.conns[slot];
        let blocked = conn.flags.has(Flags::BLOCKED);
        let reads = blocked && !conn.flags.has(Flags::DEAF);
        if reads && matches!(conn.role, Role::Business(_)) {
            self.unblock_business(slot);
        } else if reads && matches!(conn.role, Role::ConnmixApi(_)) {
            self.connmix_api_room(slot);
        } else if reads && has_room {
            self.unblock_full(slot);
        } else if !conn.outbox.is_empty() || conn.flags.has(Flags::TOUCHED) {
            // More is under way, or the TLS session has something to say.
        } else if conn.flags.has(Flags::HANG_UP) || conn.flags.has(Flags::ENDED) && !under_way {
            self.finish(slot);
        } else if !under_way && conn.flags.clear(Flags::LINGER) {
            self.retire(slot);
            self.engine.ops.push(Op::Shutdown { slot });
        } else if blocked && matches!(conn.role, Role::Xxim(_)) {
            self.xxim_resume(slot);
        }
    }

    /// Nothing more can be written to it: a backend that lingers is given no further events.
    fn retire(&mut self, slot: u32) {
        let role = &mut self.engine.conns[slot].role;
        if let Role::Business(_) = role
            && let Role::Business(business) = std::mem::replace(role, Role::Leaving)
        {
            self.business_lost(slot, *business);
            // Whoever waited for it may go on.
            self.engine.room_left = true;
        }
    }

    /// Ends a connection: a client leaves at the latest now, and the socket is closed.
    pub(super) fn finish(&mut self, slot: u32) {
        if !self.engine.conns[slot].flags.set(Flags::GONE) {
            return;
        }
        self.engine.timers.cancel(slot);
        self.engine.stalls -= self.engine.conns[slot].flags.has(Flags::STALLED) as usize;
        self.give_up_outbox(slot, self.at_end(DropReason::Closing));
        self.leave(slot);
        let conn = &mut self.engine.conns[slot];
        let kept = conn.held.is_some() || conn.decoder.has_kept();
        conn.held = None;
        conn.tls = None;
        conn.decoder = Default::default();
        if conn.flags.clear(Flags::ONLINE) {
            self.engine.shared.online.fetch_sub(1, Ordering::Relaxed);
        }
        match std::mem::replace(&mut conn.role, Role::Leaving) {
            Role::Business(business) => self.business_lost(slot, *business),
            Role::Xxim(conn) => self.xxim_departed(slot, *conn, kept),
            Role::XximHttp(conn) => self.xxim_http_departed(slot, &conn),
            Role::ConnmixApi(conn) => self.connmix_api_departed(slot, *conn),
            _ => {}
        }
        self.engine.ops.push(Op::Close { slot });
    }

    /// Sets the timer of a connection to whatever is due next.
    pub(super) fn rearm(&mut self, slot: u32) {
        let conn = &self.engine.conns[slot];
        if conn.flags.has(Flags::ENDED) {
            // Its time runs, whatever happens; it needs no write deadline beside that.
            return;
        }
        let runtime = &self.engine.config.runtime;
        let deadline_ms = if conn.is_ending() {
            self.engine.now.ms + runtime.close_timeout.as_millis() as u64
        } else {
            match &conn.role {
                Role::Greeting(_) => {
                    self.engine.now.ms + runtime.handshake_timeout.as_millis() as u64
                }
                Role::Business(business) => self.business_deadline_ms(slot, business),
                Role::Xxim(_) => self.xxim_deadline_ms(slot),
                Role::XximHttp(_) => self.xxim_http_deadline_ms(slot),
                Role::Connmix(_) => self.connmix_deadline_ms(slot),
                Role::Im(_) => self.im_deadline_ms(slot),
                Role::ConnmixApi(_) => self.connmix_api_deadline_ms(slot),
                _ => conn.active_ms + self.idle_ms() + 1,
            }
            .min(self.write_due_ms(slot))
        };
        let deadline_ms = deadline_ms.min(self.hears_until_ms(slot).unwrap_or(u64::MAX));
        self.engine.timers.arm(slot, deadline_ms);
    }

    /// While the shard drains: when a client that is heard out is said goodbye to, whatever it
    /// waits for. Who waits for room in the queues of workers has more time, see `timed_out`.
    fn hears_until_ms(&self, slot: u32) -> Option<u64> {
        let conn = &self.engine.conns[slot];
        let over = Flags::CLOSING | Flags::LINGER | Flags::HANG_UP | Flags::WAITING;
        // Requests over HTTP have time limits of their own.
        let other = conn.role.is_backend() || matches!(conn.role, Role::XximHttp(_));
        self.engine.drain_due_ms.filter(|_| !other && !conn.flags.has(over))
    }

    /// When a connection must have taken the send that is stalled, if one is, and if its outbox is
    /// full so much that it is not. Who does not is too slow, whatever waits for it and whether it
    /// is read.
    pub(super) fn write_due_ms(&self, slot: u32) -> u64 {
        let conn = &self.engine.conns[slot];
        if !conn.flags.has(Flags::STALLED) {
            return u64::MAX;
        }
        let config = &self.engine.config;
        let time = match &conn.role {
            Role::Business(business) => business.send_deadline(&config.netsvr),
            Role::ConnmixApi(_) => config.connmix.api.write_timeout,
            Role::Xxim(_) | Role::XximHttp(_) => config.xxim.write_timeout,
            Role::Connmix(connmix) => self.rules_of(connmix).write_timeout,
            Role::Im(_) => config.im.write_timeout,
            _ => config.netsvr.customer.heartbeat_interval,
        };
        conn.stalled_ms + time.as_millis() as u64
    }

    fn idle_ms(&self) -> u64 {
        self.engine.config.netsvr.customer.heartbeat_interval.as_millis() as u64
    }

    /// The timer of a connection has fired.
    pub(super) fn timed_out(&mut self, slot: u32) {
        let conn = &self.engine.conns[slot];
        match &conn.role {
            _ if conn.flags.has(Flags::GONE) => {}
            // Whether the last send has stalled is told after the timers of a turn.
            Role::Business(business) if business.is_unsettled() => self.soon(slot),
            Role::ConnmixApi(api) if api.is_unsettled() => self.soon(slot),
            // What it sent before it left counts, whenever there is room for it. It will be: a
            // worker takes its events within its send deadline, or others get them.
            _ if conn.flags.has(Flags::ENDED)
                && conn.flags.has(Flags::WAITING)
                && self.keeps_input(slot) =>
            {
                self.give_time(slot);
            }
            Role::Xxim(xxim) if xxim.goes() => {
                self.xxim_goodbye(slot);
                self.give_time(slot);
            }
            Role::ConnmixApi(api) if conn.flags.has(Flags::WEBSOCKET) && api.goes() => {
                self.api_goodbye(slot);
                self.give_time(slot);
            }
            _ if conn.is_ending() => self.finish(slot),
            _ if self.hears_until_ms(slot).is_some_and(|due_ms| due_ms <= self.engine.now.ms) => {
                self.close(slot, SHUTDOWN);
            }
            role if !role.is_backend() && self.write_due_ms(slot) <= self.engine.now.ms => {
                // It takes nothing, so it can not be told why.
                self.give_up_outbox(slot, DropReason::SlowClient);
                self.engine.counters.slow_client_closes += 1;
                self.finish(slot);
            }
            Role::Greeting(_) => {
                self.engine.counters.handshake_timeouts += 1;
                self.finish(slot);
            }
            Role::Business(_) => self.business_timed_out(slot),
            Role::Xxim(_) => self.xxim_timed_out(slot),
            Role::XximHttp(_) if self.xxim_http_deadline_ms(slot) > self.engine.now.ms => {
                self.rearm(slot)
            }
            Role::XximHttp(_) => self.xxim_http_timed_out(slot),
            Role::Connmix(_) => self.connmix_timed_out(slot),
            Role::Im(_) => self.im_timed_out(slot),
            Role::ConnmixApi(_) => self.connmix_api_timed_out(slot),
            // A client that is not being read can not show that it is alive.
            _ if conn.flags.has(Flags::BLOCKED) => {
                self.engine.conns[slot].active_ms = self.engine.now.ms;
                self.rearm(slot);
            }
            _ if self.engine.now.ms.saturating_sub(conn.active_ms) > self.idle_ms() => {
                self.engine.counters.idle_timeouts += 1;
                self.close(slot, IDLE);
            }
            _ => self.rearm(slot),
        }
    }

    /// Stops accepting and closes every client; backend connections stay for the events.
    pub(super) fn drain(&mut self) {
        if self.is_draining() {
            return;
        }
        let close_ms = self.engine.config.runtime.close_timeout.as_millis() as u64;
        self.engine.drain_due_ms = Some(self.engine.now.ms + close_ms);
        for listener in 0..self.engine.listeners.len() {
            self.engine.ops.push(Op::Unlisten { listener });
        }
        let clients = |role: &Role| !role.is_backend();
        let open = self.engine.conns.iter().filter(|(_, conn)| clients(&conn.role));
        for slot in open.map(|(slot, _)| slot).collect::<Vec<_>>() {
            match self.engine.conns[slot].role {
                Role::Greeting(_) => self.finish(slot),
                _ if self.engine.conns[slot].flags.has(Flags::GONE) => {}
                // Its request is answered first, if it has one.
                Role::XximHttp(_) => self.xxim_http_drain(slot),
                // What it has sent comes first; `unblock` closes it then.
                _ if self.engine.conns[slot].flags.has(Flags::WAITING) => {}
                _ if self.keeps_input(slot) => self.rearm(slot),
                _ => self.close(slot, SHUTDOWN),
            }
        }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.engine.drain_due_ms.is_some()
    }

    /// Whether draining is over: no client is left and every event has been written to its worker.
    pub fn drained(&self) -> bool {
        let clients = |role: &Role| !role.is_backend() && !matches!(role, Role::Free);
        self.is_draining()
            && self.engine.links.queued().0 == 0
            && self.engine.queueing.queues.under_way() == 0
            && self.engine.hooks.is_idle()
            && self.xxim.is_idle()
            && self.xxim.under_way() == 0
            && self.connmix.leaving.is_empty()
            && self.connmix.departed.is_empty()
            && self.engine.mail.iter().all(VecDeque::is_empty)
            && !self.engine.conns.iter().any(|(_, conn)| clients(&conn.role))
    }

    /// Closes every connection that is left, after what is queued for it.
    pub(super) fn stop(&mut self) {
        self.engine.stopping = true;
        for slot in self.engine.conns.iter().map(|(slot, _)| slot).collect::<Vec<_>>() {
            let conn = &self.engine.conns[slot];
            if !conn.flags.has(Flags::GONE) {
                if matches!(conn.role, Role::ConnmixApi(_)) && conn.flags.has(Flags::WEBSOCKET) {
                    self.close(slot, SHUTDOWN);
                }
                self.hang_up(slot);
            }
        }
    }

    /// Whether the shard has stopped: nothing is left.
    pub fn stopped(&self) -> bool {
        self.engine.stopping && self.engine.conns.is_empty()
    }

    /// Queues a pong. Who does not take its pongs is not read, which bounds them.
    pub(super) fn push_pong(&mut self, slot: u32, pong: Bytes) {
        let bytes = pong.len();
        match self.engine.conns[slot].outbox.push_pong(Frame::new(pong)) {
            Some(behind) => {
                self.engine.counters.pongs_dropped += 1;
                self.note_replaced(slot, behind, bytes);
            }
            None => {
                self.note_frame(slot, bytes);
                self.touch(slot);
            }
        }
    }
}
