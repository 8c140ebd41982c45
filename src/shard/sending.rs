//! What a shard sends: frames wait in the outbox of their connection until the end of the turn, go
//! out in one send, and are known to be written when that is complete.
//!
//! Costs: one operation per connection and turn, whatever it gets.

use crate::limits;
use crate::shard::Shard;
use crate::shard::conns::{Flags, Role};
use crate::shard::ops::{Batch, Frame, Op};
use crate::wire::tls::Tls;

impl Shard {
    /// The last send could not be completed at once; `written` of its bytes are out. The write
    /// deadline runs.
    pub fn stalled(&mut self, slot: u32, written: usize) {
        let conn = &mut self.engine.conns[slot];
        if conn.flags.has(Flags::GONE) {
            return;
        }
        conn.flags.set(Flags::STALLED);
        if !conn.flags.has(Flags::FULL) {
            conn.stalled_ms = self.engine.now.ms;
        }
        conn.outbox.stall();
        self.engine.stalls += 1;
        self.engine.counters.sends_stalled += 1;
        if conn.role.is_backend() {
            self.confirm_backend(slot, written);
        }
        // Whoever is ending has its time, and a callback that decides has its own.
        let conn = &self.engine.conns[slot];
        if !conn.is_ending() && !matches!(conn.role, Role::Opening(_)) {
            self.rearm(slot);
        }
    }

    /// A stalled send is over; after an error `written` of its bytes are out.
    pub fn sent(&mut self, slot: u32, result: Result<(), usize>) {
        let conn = &mut self.engine.conns[slot];
        if conn.flags.has(Flags::GONE) {
            return;
        }
        conn.flags.clear(Flags::STALLED);
        conn.outbox.unstall();
        self.engine.stalls -= 1;
        match result {
            Ok(()) => {
                if conn.role.is_backend() {
                    self.confirm_backend(slot, usize::MAX);
                    self.rearm(slot);
                }
                self.touch(slot);
            }
            Err(written) => {
                if conn.role.is_backend() {
                    self.confirm_backend(slot, written);
                }
                self.broken(slot);
            }
        }
    }

    /// Marks a connection for the flush at the end of the turn.
    pub(super) fn touch(&mut self, slot: u32) {
        if self.engine.conns[slot].flags.set(Flags::TOUCHED) {
            self.engine.touched.push(slot);
        }
    }

    /// Queues bytes for a connection, whatever its outbox holds already.
    pub(super) fn push(&mut self, slot: u32, bytes: bytes::Bytes) {
        self.note_frame(slot, bytes.len());
        self.engine.conns[slot].outbox.push(Frame::new(bytes));
        self.touch(slot);
    }

    pub(super) fn flush(&mut self, slot: u32) {
        let conn = &mut self.engine.conns[slot];
        conn.flags.clear(Flags::TOUCHED);
        if conn.flags.has(Flags::GONE | Flags::STALLED) {
            return;
        }
        let unsealed = matches!(conn.role, Role::Xxim(_)) && self.xxim_seal(slot);
        let conn = &mut self.engine.conns[slot];
        let framed = conn.has_control_frames();
        let taken = conn.outbox.take(framed, &mut self.engine.joined);
        let client = !conn.role.is_backend();
        if let Some(taken) = &taken {
            if client {
                self.engine.counters.frames_written += taken.data_frames as u64;
                self.engine.counters.frame_bytes_written += taken.data_bytes;
            } else if let Role::Business(business) = &mut conn.role {
                business.flying = taken.frames;
                business.flown_bytes = 0;
            } else if let Role::ConnmixApi(api) = &mut conn.role {
                api.taken(taken.frames);
            }
        }
        let data_frames = taken.as_ref().map_or(0, |taken| taken.data_frames);
        if data_frames > 0 {
            self.connmix_count(slot, data_frames.into(), 0);
        }
        let conn = &mut self.engine.conns[slot];
        let ends = conn.flags.has(Flags::HANG_UP | Flags::LINGER);
        let batch = taken.map(|taken| taken.batch);
        let batch = match &mut conn.tls {
            None => batch,
            Some(tls) => seal(tls, batch, ends && conn.outbox.is_empty() && !unsealed),
        };
        if (unsealed || !conn.outbox.is_empty()) && conn.flags.set(Flags::TOUCHED) {
            self.engine.touched.push(slot);
        }
        let watched = !client || ends || conn.flags.has(Flags::BLOCKED | Flags::ENDED);
        let Some(batch) = batch else {
            return if watched {
                self.confirm(slot)
            };
        };
        self.engine.ops.push(Op::Send { slot, batch });
        self.engine.counters.sends += 1;
        if watched {
            self.engine.unconfirmed.push(slot);
        }
    }

    /// The last send is complete, unless it stalled.
    pub(super) fn confirm(&mut self, slot: u32) {
        let conn = &self.engine.conns[slot];
        if conn.flags.has(Flags::GONE | Flags::STALLED) {
            return;
        }
        if conn.role.is_backend() {
            self.confirm_backend(slot, usize::MAX);
        }
        self.written_out(slot);
    }

    /// Of the last send to a backend `written` bytes are out, `usize::MAX` if all are.
    pub(super) fn confirm_backend(&mut self, slot: u32, written: usize) {
        match self.engine.conns[slot].role {
            Role::ConnmixApi(_) => self.api_written(slot, written),
            _ => self.confirm_frames(slot, written),
        }
    }
}

/// Encrypts what is to be sent, behind what the TLS session itself wants to say; with `last` the
/// session ends after it.
fn seal(tls: &mut Tls, batch: Option<Batch>, last: bool) -> Option<Batch> {
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
