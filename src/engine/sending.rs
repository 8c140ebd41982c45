//! What a shard sends: frames wait in the outbox of their connection until the end of the turn, go
//! out in one send, and are known to be written when that is complete.
//!
//! Costs: one operation per connection and turn, whatever it gets.

use bytes::Bytes;

use crate::engine::Engine;
use crate::engine::conns::Flags;
use crate::engine::flight::Source;
use crate::engine::forms::{Forms, Made};
use crate::engine::ops::{Batch, Frame, Op};
use crate::engine::outbox::{charge, has_room};
use crate::engine::queues::QueueMail;
use crate::engine::wants::Want;
use crate::limits;
use crate::lists::letters::Mail;
use crate::metrics::DropReason;
use crate::wire::tls::Tls;

impl Engine {
    /// The last send could not be completed at once; `written` of its bytes are out. The write
    /// deadline runs.
    pub fn stalled(&mut self, slot: u32, written: usize) {
        let now_ms = self.now.ms;
        let conn = &mut self.conns[slot];
        if conn.flags.has(Flags::GONE) {
            return;
        }
        conn.flags.set(Flags::STALLED);
        if !conn.flags.has(Flags::FULL) {
            conn.stalls_from(now_ms);
        }
        conn.outbox.stall();
        self.stalls += 1;
        self.counters.sends_stalled += 1;
        self.confirm_frames(slot, written);
        // Whoever is ending has its time.
        if !self.conns[slot].is_ending() {
            self.rearm(slot);
        }
    }

    /// A stalled send is over; after an error `written` of its bytes are out.
    pub fn sent(&mut self, slot: u32, result: Result<(), usize>) {
        let conn = &mut self.conns[slot];
        if conn.flags.has(Flags::GONE) {
            return;
        }
        conn.flags.clear(Flags::STALLED);
        conn.outbox.unstall();
        self.stalls -= 1;
        match result {
            Ok(()) => {
                self.confirm_frames(slot, usize::MAX);
                if self.row(slot).backend {
                    self.rearm(slot);
                }
                self.touch(slot);
            }
            Err(written) => {
                self.confirm_frames(slot, written);
                self.broken(slot);
            }
        }
    }

    /// Marks a connection for the flush at the end of the turn.
    pub(crate) fn touch(&mut self, slot: u32) {
        if self.conns[slot].flags.set(Flags::TOUCHED) {
            self.touched.push(slot);
        }
    }

    /// Queues bytes for a connection, whatever its outbox holds already.
    pub(crate) fn push(&mut self, slot: u32, bytes: Bytes) {
        let conn = &mut self.conns[slot];
        if conn.flags.has(Flags::GONE) {
            return;
        }
        if let Some(extra) = &mut conn.extra {
            if let Some(flight) = &mut extra.flight {
                flight.queued(None, bytes.len());
                if flight.source == Source::Workers {
                    self.answer_bytes += charge(bytes.len());
                }
            }
            if !extra.later.is_empty() {
                extra.later.push(bytes, None);
                return self.touch(slot);
            }
        }
        conn.outbox.push(Frame::new(bytes));
        self.touch(slot);
    }

    /// Queues a push for one connection. False: there is no room, and the rule for slow clients was
    /// applied, or there is nothing that it could be sent.
    pub(crate) fn offer(&mut self, slot: u32, made: &Made) -> bool {
        let row = self.row(slot);
        let (bytes_max, measured) = (row.push_bytes_max, row.count.is_some());
        if measured {
            self.begin_sample(slot);
        }
        let conn = &mut self.conns[slot];
        let bytes = match made {
            Made::Frame(frame) => frame.len(),
            Made::Sealed(body) => body.len(),
            Made::Nothing => {
                self.dropped(DropReason::Closing, 1);
                return false;
            }
        };
        if !has_room(conn.charge(), bytes, bytes_max) {
            self.count_frames(slot, 0, 1);
            self.counters.frames_failed += 1;
            self.counters.frame_bytes_failed += bytes as u64;
            self.overflowed(slot);
            return false;
        }
        self.conns.push_made(slot, made);
        self.touch(slot);
        true
    }

    /// Queues an event for a backend; `from` is the shard that is told when it is written. If the
    /// backend is gone the event is not lost: `from` keeps it until it hears so.
    pub(crate) fn push_event(&mut self, slot: u32, from: u8, event: Frame) {
        let conn = &mut self.conns[slot];
        let Some(flight) = conn.flight() else { return };
        if let Some(event) = flight.keep(from, event) {
            flight.queued(Some(from), event.len());
            conn.outbox.push(event);
            self.touch(slot);
        }
    }

    /// Queues a pong. Who does not take its pongs is not read, which bounds them.
    pub(crate) fn push_pong(&mut self, slot: u32, pong: Bytes) {
        let bytes = pong.len();
        let conn = &mut self.conns[slot];
        let replaced = conn.outbox.push_pong(Frame::new(pong));
        if let Some(flight) = conn.flight() {
            let before = flight.own_bytes();
            match replaced {
                Some(behind) => flight.replaced(behind, bytes),
                None => flight.queued(None, bytes),
            }
            let (source, after) = (flight.source, flight.own_bytes());
            self.reckon(source, before, after);
        }
        match replaced {
            Some(_) => self.counters.pongs_dropped += 1,
            None => self.touch(slot),
        }
    }

    pub(crate) fn flush(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        conn.flags.clear(Flags::TOUCHED);
        if conn.flags.has(Flags::GONE | Flags::STALLED) {
            return;
        }
        let row = &self.rows[usize::from(conn.row)];
        let framed = conn.flags.has(Flags::WEBSOCKET) || !row.stream;
        let (client, counted) = (!row.backend, row.count.is_some());
        if let Some(extra) = &mut conn.extra {
            let websocket = conn.flags.has(Flags::WEBSOCKET);
            while let Some(frame) = extra.later.next(websocket, &mut self.seal_left) {
                conn.outbox.push(frame);
            }
            conn.drop_extra();
        }
        let unsealed = conn.later().is_some();
        let taken = conn.outbox.take(framed, &mut self.joined);
        let data_frames = taken.as_ref().map_or(0, |taken| u64::from(taken.data_frames));
        if let Some(taken) = &taken {
            let traffic = self.conns.traffic_mut(slot);
            traffic.sent.add(data_frames, taken.batch.len() as u64);
            let conn = &mut self.conns[slot];
            if client {
                self.counters.frames_written += data_frames;
                self.counters.frame_bytes_written += taken.data_bytes;
            } else if let Some(flight) = conn.flight() {
                flight.taken(taken.frames);
            }
        }
        if counted && data_frames > 0 {
            self.count_frames(slot, data_frames, 0);
        }
        let conn = &mut self.conns[slot];
        let ends = conn.flags.has(Flags::HANG_UP | Flags::LINGER);
        let batch = taken.map(|taken| taken.batch);
        let batch = match &mut conn.tls {
            None => batch,
            Some(tls) => encrypt(tls, batch, ends && conn.outbox.is_empty() && !unsealed),
        };
        if (unsealed || !conn.outbox.is_empty()) && conn.flags.set(Flags::TOUCHED) {
            self.touched.push(slot);
        }
        let watched = !client || ends || conn.flags.has(Flags::BLOCKED | Flags::ENDED);
        let Some(batch) = batch else {
            return if watched {
                self.confirm(slot)
            };
        };
        self.ops.push(Op::Send { slot, batch });
        self.counters.sends += 1;
        if watched {
            self.unconfirmed.push(slot);
        }
    }

    /// Counts data frames that were sent to a client, and that could not be, where its kind is
    /// counted by itself.
    pub(crate) fn count_frames(&mut self, slot: u32, sent: u64, failed: u64) {
        let Some(count) = self.row(slot).count else { return };
        let conn = &self.conns[slot];
        count(&mut self.counters, conn.flags.has(Flags::WEBSOCKET), sent, failed);
        if sent > 0 && conn.outbox.is_empty() {
            self.sends.taken(self.conns.id(slot));
        }
    }

    /// Begins to measure how long a push takes, at the first connection of each form.
    pub(crate) fn begin_samples(&mut self, forms: &Forms) {
        let measured = forms.iter().filter_map(|form| form.measured);
        measured.for_each(|slot| self.begin_sample(slot));
    }

    /// Begins to measure how long a push to this connection takes.
    fn begin_sample(&mut self, slot: u32) {
        let websocket = self.conns[slot].flags.has(Flags::WEBSOCKET);
        self.sends.begin(self.conns.id(slot), websocket, &self.now);
    }

    /// The last send is complete, unless it stalled.
    pub(crate) fn confirm(&mut self, slot: u32) {
        if self.conns[slot].flags.has(Flags::GONE | Flags::STALLED) {
            return;
        }
        self.confirm_frames(slot, usize::MAX);
        self.written_out(slot);
    }

    /// Of the last send to a backend `written` bytes are out, `usize::MAX` if all are: the shards
    /// whose events these were are told.
    fn confirm_frames(&mut self, slot: u32, written: usize) {
        let encrypted = self.conns[slot].tls.is_some();
        let id = self.conns.id(slot);
        let Some(flight) = self.conns[slot].flight() else { return };
        let (source, before) = (flight.source, flight.own_bytes());
        let mut counts = std::mem::take(&mut self.by_shard);
        counts.resize(self.mail.len(), 0);
        flight.confirm(written, encrypted, |shard| counts[shard as usize] += 1);
        let after = flight.own_bytes();
        self.reckon(source, before, after);
        for (shard, count) in (0u8..).zip(counts.drain(..)).filter(|(_, count)| *count > 0) {
            match source {
                Source::Workers if shard == self.id => self.links.written(id, count),
                Source::Workers => {
                    self.post(shard, Mail::EventsWritten { worker: id, count });
                }
                Source::Queues if shard == self.id => self.queueing.queues.written(id, count),
                Source::Queues => {
                    let mail = QueueMail::Written { consumer: id, count };
                    self.post(shard, Mail::Queue(mail));
                }
            }
        }
        self.by_shard = counts;
        if self.conns[slot].flags.has(Flags::TELLS) {
            self.wants.push(Want::Written { slot });
        }
    }
}

/// Encrypts what is to be sent, behind what the TLS session itself wants to say; with `last` the
/// session ends after it.
fn encrypt(tls: &mut Tls, batch: Option<Batch>, last: bool) -> Option<Batch> {
    let mut out = Vec::new();
    tls.output(&mut out);
    if let Some(batch) = batch {
        let mut write = |bytes: &[u8]| {
            for chunk in bytes.chunks(limits::TLS_CHUNK_BYTES) {
                // Fails only before the handshake is over, and nothing is sent before that.
                let _ = tls.write(chunk);
                tls.output(&mut out);
            }
        };
        match &batch {
            Batch::One(frame) => write(frame),
            Batch::Many(frames) => frames.iter().for_each(|frame| write(frame)),
            Batch::Own(bytes) => write(bytes),
        }
    }
    if last {
        tls.close_notify();
        tls.output(&mut out);
    }
    (!out.is_empty()).then_some(Batch::Own(out))
}
