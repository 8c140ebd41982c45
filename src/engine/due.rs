//! What is due on a connection, and when: one timer each, armed for the first of its deadlines.
//!
//! A connection that is ending has `runtime.close_timeout`. Any other must end its TLS handshake in
//! time, take what it is sent (`write_ms` of its row), show life (`silence_ms`), and has what its
//! protocol wants (`due_ms`). A client that is not being read can not show that it is alive, so its
//! silence does not count.

use crate::engine::Engine;
use crate::engine::conns::Flags;
use crate::hub::push::CloseReason;
use crate::metrics::DropReason;
use crate::wire::websocket;

const IDLE: CloseReason = CloseReason::new(1001, "heartbeat timeout");

/// What has come due and is not done yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Nothing,
    /// What the protocol wanted ([`Engine::set_due`]).
    Own,
    /// The peer has been silent for too long, or, if it is a backend, does not take what it is
    /// sent.
    Silence,
    /// The goodbye that waits for answers is said now.
    Goodbye,
}

impl Engine {
    /// Sets when something of the protocol is due, milliseconds of the process clock; `u64::MAX`:
    /// nothing is.
    pub fn set_due(&mut self, slot: u32, due_ms: u64) {
        self.conns[slot].due_ms = due_ms;
        self.rearm(slot);
    }

    /// Sets the timer of a connection to whatever is due next.
    pub(crate) fn rearm(&mut self, slot: u32) {
        let conn = &self.conns[slot];
        if conn.flags.has(Flags::ENDED | Flags::GONE) {
            // Its time runs, whatever happens; it needs no write deadline beside that.
            return;
        }
        let deadline_ms = if conn.is_ending() {
            self.now.ms + self.settings.close_timeout.as_millis() as u64
        } else if conn.is_handshaking() {
            self.handshake_due_ms(slot)
        } else {
            conn.due_ms.min(self.silence_due_ms(slot)).min(self.write_due_ms(slot))
        };
        match deadline_ms {
            u64::MAX => self.timers.cancel(slot),
            deadline_ms => self.timers.arm(slot, deadline_ms),
        }
    }

    /// The connection has so long for what it still has to do.
    pub(crate) fn give_time(&mut self, slot: u32) {
        let close_ms = self.settings.close_timeout.as_millis() as u64;
        self.timers.arm(slot, self.now.ms + close_ms);
    }

    fn handshake_due_ms(&self, slot: u32) -> u64 {
        self.conns[slot].active_ms + self.settings.handshake_timeout.as_millis() as u64
    }

    fn silence_due_ms(&self, slot: u32) -> u64 {
        let (conn, row) = (&self.conns[slot], self.row(slot));
        let silence_ms = row.silence_ms;
        if silence_ms == 0 {
            u64::MAX
        } else if conn.flags.has(Flags::BLOCKED) {
            self.now.ms + silence_ms
        } else if self.may_ping(slot) {
            conn.active_ms + silence_ms / 2
        } else {
            conn.active_ms + silence_ms + 1
        }
    }

    fn may_ping(&self, slot: u32) -> bool {
        let flags = self.conns[slot].flags;
        self.row(slot).pings && flags.has(Flags::WEBSOCKET) && !flags.has(Flags::PINGED)
    }

    /// When a connection must have taken the send that is stalled, if one is, and if its outbox is
    /// full so much that it is not. Who does not is too slow, whatever waits for it and whether it
    /// is read.
    fn write_due_ms(&self, slot: u32) -> u64 {
        let conn = &self.conns[slot];
        match conn.flags.has(Flags::STALLED) {
            true => conn.stalled_since(self.now.ms) + self.row(slot).write_ms,
            false => u64::MAX,
        }
    }

    /// The timer of a connection has fired. What needs no protocol is done.
    pub(crate) fn due(&mut self, slot: u32) -> Due {
        let now_ms = self.now.ms;
        let conn = &mut self.conns[slot];
        if conn.flags.has(Flags::GONE) {
            return Due::Nothing;
        }
        if conn.flight().is_some_and(|flight| flight.is_unsettled()) {
            // Whether the last send has stalled is told after the timers of a turn.
            self.timers.arm(slot, now_ms + 1);
            return Due::Nothing;
        }
        if conn.flags.has(Flags::ENDED) && conn.flags.has(Flags::WAITING) && self.keeps_input(slot)
        {
            // What it sent before it left counts, whenever there is room for it. It will be: a
            // worker takes its events within its send deadline, or others get them.
            self.give_time(slot);
            return Due::Nothing;
        }
        let conn = &self.conns[slot];
        if conn.goes() {
            return Due::Goodbye;
        }
        if conn.is_ending() {
            self.finish(slot);
        } else if conn.is_handshaking() {
            match self.handshake_due_ms(slot) <= now_ms {
                true => self.handshake_timed_out(slot),
                false => self.rearm(slot),
            }
        } else {
            return self.due_of_peer(slot);
        }
        Due::Nothing
    }

    /// The peer has been silent for too long, and is told so.
    pub(crate) fn too_silent(&mut self, slot: u32) {
        self.counters.idle_timeouts += 1;
        self.close(slot, IDLE);
    }

    /// It has not said in time what it is here for.
    pub(crate) fn handshake_timed_out(&mut self, slot: u32) {
        self.counters.handshake_timeouts += 1;
        self.finish(slot);
    }

    fn due_of_peer(&mut self, slot: u32) -> Due {
        let now_ms = self.now.ms;
        let (backend, silence_ms) = (self.row(slot).backend, self.row(slot).silence_ms);
        let conn = &self.conns[slot];
        if self.write_due_ms(slot) <= now_ms {
            if backend {
                return Due::Silence;
            }
            // It takes nothing, so it can not be told why.
            self.give_up_outbox(slot, DropReason::SlowClient);
            self.counters.slow_client_closes += 1;
            self.finish(slot);
            return Due::Nothing;
        }
        if conn.due_ms <= now_ms {
            return Due::Own;
        }
        let silent_ms = now_ms.saturating_sub(conn.active_ms);
        if silence_ms == 0 {
        } else if conn.flags.has(Flags::BLOCKED) {
            self.conns[slot].active_ms = now_ms;
        } else if silent_ms > silence_ms {
            return Due::Silence;
        } else if self.may_ping(slot) && silent_ms >= silence_ms / 2 {
            self.conns[slot].flags.set(Flags::PINGED);
            self.push(slot, websocket::ping());
        }
        self.rearm(slot);
        Due::Nothing
    }
}
