//! How connections end (netsvr sections 2.5, 2.7, 2.8).
//!
//! There are three ways: `close` says goodbye with a close frame and waits for the peer's; `linger`
//! writes what is queued, says that nothing follows and waits for the peer's end, so that no reset
//! destroys what was written; `hang_up` closes as soon as everything is written. All of them end in
//! `finish`, at the latest after `runtime.close_timeout`. A client has left before (`leave`).
//!
//! When the peer ends its side (`ended`), what came whole before is carried out and answered first,
//! within `runtime.close_timeout`, whatever the protocol. A connection that is closed because of
//! what the peer sent answers what came before that, too: data may follow the peer's close frame
//! until ours is sent (RFC 6455 section 5.5.1), so ours waits for the answers that are under way
//! (`says_last`), no longer than `runtime.close_timeout`. So does the goodbye of a kick and of a
//! drain; a drain lets a client that waits be heard out before that ([`super::drain`]).
//!
//! A client is in the hub until its end begins, however long its socket stays: when its close frame
//! is queued, or, if there is none, when nothing more will be handled of it. From then on no push
//! reaches it, no backend sees it, and its user, its topics and its login are free. Those who are
//! to hear of its end hear of it then, once (netsvr section 2.8 and the amendment for forced
//! offline).

use bytes::Bytes;

use crate::config::model::SlowClient;
use crate::engine::Engine;
use crate::engine::conns::Flags;
use crate::engine::manners::Slow;
use crate::engine::ops::Op;
use crate::engine::wants::Want;
use crate::hub::push::CloseReason;
use crate::metrics::DropReason;
use crate::wire::websocket::{self, Violation};

pub(crate) const SHUTDOWN: CloseReason = CloseReason::new(1001, "server shutdown");
const SLOW: CloseReason = CloseReason::new(1008, "slow consumer");
/// Close code of a message that is too large.
const TOO_LARGE: u16 = 1009;

impl Engine {
    /// Sends a close frame, behind the answers that the peer is owed, and waits for the peer's.
    /// Nothing is sent after it. Without a WebSocket there is no frame, and only the end of the
    /// stream follows.
    pub(crate) fn close(&mut self, slot: u32, reason: CloseReason) {
        self.close_with(slot, reason.code, &reason.text);
    }

    /// The same with a text that is not a constant.
    pub(crate) fn close_with(&mut self, slot: u32, code: u16, text: &str) {
        let flags = self.conns[slot].flags;
        if flags.has(Flags::GONE) || self.says_last(slot, || websocket::close(code, text)) {
            return;
        }
        if !flags.has(Flags::WEBSOCKET) {
            return self.linger(slot);
        }
        if flags.has(Flags::CLOSING) {
            return;
        }
        self.say_goodbye(slot, websocket::close(code, text));
        self.rearm(slot);
        self.listen(slot);
    }

    /// Queues a close frame, behind everything else. With that a client leaves.
    pub(crate) fn say_goodbye(&mut self, slot: u32, frame: Bytes) {
        self.conns[slot].flags.set(Flags::CLOSING);
        self.push(slot, frame);
        self.leave(slot);
    }

    /// Says goodbye behind the answers that the peer is owed, and reads nothing more. False: it is
    /// owed none. True as well if a goodbye waits already.
    pub(crate) fn says_last(&mut self, slot: u32, goodbye: impl FnOnce() -> Bytes) -> bool {
        let conn = &mut self.conns[slot];
        let ending = conn.flags.has(Flags::CLOSING | Flags::GONE | Flags::DEAF);
        if ending || !conn.flags.has(Flags::OWES) || conn.goes() {
            return conn.goes();
        }
        let websocket = conn.flags.has(Flags::WEBSOCKET);
        let goodbye = if websocket { goodbye() } else { Bytes::new() };
        conn.extra.get_or_insert_default().goodbye = Some(goodbye);
        conn.flags.set(Flags::DEAF);
        self.leave(slot);
        self.rearm(slot);
        self.listen(slot);
        true
    }

    /// Whether the peer has asked something that is not answered yet. When it is, the goodbye that
    /// waits for it is said.
    pub(crate) fn owes(&mut self, slot: u32, owes: bool) {
        let flags = &mut self.conns[slot].flags;
        if owes {
            flags.set(Flags::OWES);
        } else if flags.clear(Flags::OWES) {
            self.say_last(slot);
        }
    }

    /// Says the goodbye that waits for answers, if one does; those that are missing do not come any
    /// more.
    pub(crate) fn say_last(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        let Some(goodbye) = conn.extra.as_mut().and_then(|extra| extra.goodbye.take()) else {
            return;
        };
        conn.drop_extra();
        if conn.flags.has(Flags::GONE) {
            return;
        }
        if conn.flags.has(Flags::WEBSOCKET) {
            self.say_goodbye(slot, goodbye);
        }
        self.linger(slot);
    }

    /// A connection that ends is listened to, if only for its end, whatever it waited for.
    fn listen(&mut self, slot: u32) {
        if self.conns[slot].flags.has(Flags::BLOCKED) {
            self.read_on(slot);
        }
    }

    /// Writes what is queued, says that nothing follows, then waits for the peer's end only.
    pub(crate) fn linger(&mut self, slot: u32) {
        let flags = &mut self.conns[slot].flags;
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
        self.listen(slot);
    }

    /// Closes as soon as everything is written.
    pub(crate) fn hang_up(&mut self, slot: u32) {
        let flags = &mut self.conns[slot].flags;
        if flags.has(Flags::GONE) {
            return;
        }
        flags.set(Flags::DEAF);
        flags.set(Flags::HANG_UP);
        self.touch(slot);
        self.rearm(slot);
    }

    /// The peer has ended its side. What came whole before is carried out, and its answers are
    /// written; then the connection ends (`written_out`).
    pub fn ended(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        if conn.flags.has(Flags::GONE) || !conn.flags.set(Flags::ENDED) {
            return;
        }
        self.give_time(slot);
        self.touch(slot);
    }

    /// Nobody is at the other end any more to be answered. What a client sent before still counts.
    pub fn broken(&mut self, slot: u32) {
        if self.conns[slot].flags.has(Flags::GONE) {
            return;
        }
        if self.row(slot).backend || !self.keeps_input(slot) {
            return self.finish(slot);
        }
        self.give_up_outbox(slot, self.at_end(DropReason::Closing));
        self.ended(slot);
        // Its end may have come before, and now there is room.
        self.touch(slot);
    }

    /// Whether something that the peer has sent is not carried out, or not answered.
    pub(crate) fn under_way(&self, slot: u32) -> bool {
        let flags = self.conns[slot].flags;
        let answered = !flags.has(Flags::CLOSING) || self.row(slot).heard_out;
        self.keeps_input(slot) || flags.has(Flags::OWES) && answered
    }

    /// Whether input is kept that will still be handled.
    pub(crate) fn keeps_input(&self, slot: u32) -> bool {
        let conn = &self.conns[slot];
        let ends = Flags::CLOSING | Flags::DEAF | Flags::GONE;
        if !conn.flags.has(Flags::BLOCKED) || conn.flags.has(ends) {
            return false;
        }
        // A client that is not let in yet is let in only for what it has said.
        !self.row(slot).opening || conn.held() > 0 || conn.decoder.has_kept()
    }

    /// The peer broke the WebSocket protocol (netsvr section 2.5).
    pub(crate) fn violated(&mut self, slot: u32, violation: Violation) {
        self.counters.protocol_violations += 1;
        let Violation { code, reason } = violation;
        let own = self.row(slot).too_large.clone().filter(|_| code == TOO_LARGE);
        let text = own.as_deref().unwrap_or(reason);
        if self.says_last(slot, || websocket::close(code, text)) {
            return;
        }
        self.close_with(slot, code, text);
        self.linger(slot);
    }

    /// A client has no room for a push, which is dropped.
    pub(crate) fn overflowed(&mut self, slot: u32) {
        self.dropped(DropReason::SlowClient, 1);
        let drops = self.row(slot).slow == Slow::Drop;
        if !drops && self.settings.slow_client == SlowClient::Close {
            self.too_slow(slot);
        }
    }

    /// The client does not read what it is sent; what waits for it is given up.
    pub(crate) fn too_slow(&mut self, slot: u32) {
        // One push may overflow an outbox several times; the close frame stays in it.
        if self.conns[slot].flags.has(Flags::CLOSING | Flags::GONE) {
            return;
        }
        self.give_up_outbox(slot, DropReason::SlowClient);
        self.counters.slow_client_closes += 1;
        match self.row(slot).slow {
            Slow::Finish => self.finish(slot),
            Slow::Close | Slow::Drop => self.close(slot, SLOW),
        }
    }

    /// Why something is given up: once the shard stops it is that, whatever happened to be first.
    pub(crate) fn at_end(&self, reason: DropReason) -> DropReason {
        if self.stopping { DropReason::Shutdown } else { reason }
    }

    pub(crate) fn give_up_outbox(&mut self, slot: u32, reason: DropReason) {
        let framed = self.has_control_frames(slot);
        let conn = &mut self.conns[slot];
        let (mut frames, mut bytes) = conn.outbox.clear(framed);
        if let Some(later) = conn.later() {
            let unsealed = later.clear(framed);
            frames += unsealed.0;
            bytes += unsealed.1;
            conn.drop_extra();
        }
        if frames > 0 && self.conns[slot].flags.has(Flags::MEMBER) {
            self.count_frames(slot, 0, frames);
            self.counters.frames_failed += frames;
            self.counters.frame_bytes_failed += bytes;
            self.dropped(reason, frames);
        }
    }

    /// The last send was written: what the connection was waiting for happens now.
    pub(crate) fn written_out(&mut self, slot: u32) {
        let under_way = self.under_way(slot);
        let has_room = self.conns[slot].flags.has(Flags::FULL) && !self.is_full(slot);
        let conn = &mut self.conns[slot];
        let reads = conn.flags.has(Flags::BLOCKED) && !conn.flags.has(Flags::DEAF);
        if reads && has_room {
            return self.read_on(slot);
        }
        if reads {
            self.wants.push(Want::Written { slot });
        }
        if !conn.is_written() || conn.flags.has(Flags::TOUCHED) {
            // More is under way, or the TLS session has something to say.
        } else if conn.flags.has(Flags::HANG_UP) || conn.flags.has(Flags::ENDED) && !under_way {
            self.finish(slot);
        } else if !under_way && conn.flags.clear(Flags::LINGER) {
            if self.row(slot).backend {
                self.wants.push(Want::Shut { slot });
            }
            self.ops.push(Op::Shutdown { slot });
        }
    }

    /// Ends a connection: a client leaves at the latest now, and the socket is closed.
    pub(crate) fn finish(&mut self, slot: u32) {
        if !self.conns[slot].flags.set(Flags::GONE) {
            return;
        }
        self.timers.cancel(slot);
        self.stalls -= self.conns[slot].flags.has(Flags::STALLED) as usize;
        self.give_up_outbox(slot, self.at_end(DropReason::Closing));
        self.leave(slot);
        let conn = &mut self.conns[slot];
        if conn.held() > 0 || conn.decoder.has_kept() {
            conn.flags.set(Flags::UNREAD);
        }
        _ = conn.take_held();
        conn.tls = None;
        conn.decoder = Default::default();
        self.wants.push(Want::Gone { slot });
        self.ops.push(Op::Close { slot });
    }

    /// The connection is no client any more. Does nothing if it was none.
    pub(crate) fn leave(&mut self, slot: u32) {
        if let Some(departed) = self.hub.remove(slot) {
            self.wants.push(Want::Left { slot, departed: Box::new(departed) });
        }
    }

    /// Whether the gateway ends: nobody is accepted any more.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_last()
    }

    /// Whether the gateway ends, and every client has had its turn.
    pub(crate) fn is_emptied(&self) -> bool {
        self.is_draining() && self.drain.waiting() == 0
    }

    /// Whether the shard has stopped: nothing is left.
    pub fn stopped(&self) -> bool {
        self.stopping && self.conns.is_empty()
    }
}
