//! What backends ask for: commands find their shards, and are applied to the connections here
//! (netsvr sections 6.0, 6.3 to 6.6).
//!
//! Costs of a push: one frame per wire format and shard, then per delivery one entry in an outbox
//! and no allocation; the walk over a topic is linear.

use std::sync::Arc;

use crate::config::model::{MessageType, SlowClient};
use crate::hub::ConnId;
use crate::hub::push::{CloseReason, Command, Format, Payload, Target};
use crate::limits::GUEST_KICKS_WAITING_MAX;
use crate::metrics::DropReason;
use crate::shard::Shard;
use crate::shard::conns::{Conns, Flags};
use crate::shard::mailbox::Mail;
use crate::shard::ops::Frame;
use crate::wire::deflate::Deflater;
use crate::wire::websocket::{self, COMPRESS_ABOVE, Opcode};

impl Shard {
    /// Carries a command to every shard that it concerns, this one included.
    pub(super) fn dispatch(&mut self, command: Command) {
        if self.mail.len() == 1 {
            return self.apply(&command);
        }
        match command {
            Command::Push { target: Target::Conns(conns), payloads } => {
                self.dispatch_parts(conns, |conns| {
                    let payloads = payloads.clone();
                    Command::Push { target: Target::Conns(conns), payloads }
                });
            }
            Command::Kick { target: Target::Conns(conns), payload, reason, guests_only } => {
                self.dispatch_parts(conns, |conns| {
                    let (target, payload) = (Target::Conns(conns), payload.clone());
                    Command::Kick { target, payload, reason, guests_only }
                });
            }
            Command::Update { conn, .. } if conn.shard() == self.id => self.apply(&command),
            Command::Update { conn, .. } if (conn.shard() as usize) < self.mail.len() => {
                self.post(conn.shard(), Mail::Part(command));
            }
            Command::Update { .. } => {}
            command => {
                let command = Arc::new(command);
                for shard in self.others() {
                    self.post(shard, Mail::Command(command.clone()));
                }
                self.apply(&command);
            }
        }
    }

    /// Splits a list of connections by shard, keeping its order.
    fn dispatch_parts(&mut self, conns: Vec<ConnId>, part: impl Fn(Vec<ConnId>) -> Command) {
        let mut parts: Vec<Vec<ConnId>> = vec![Vec::new(); self.mail.len()];
        for conn in conns {
            // An id of a shard that does not exist names nobody.
            if let Some(part) = parts.get_mut(conn.shard() as usize) {
                part.push(conn);
            }
        }
        for (shard, conns) in (0u8..).zip(parts).filter(|(_, conns)| !conns.is_empty()) {
            let command = part(conns);
            if shard == self.id {
                self.apply(&command);
            } else {
                self.post(shard, Mail::Part(command));
            }
        }
    }

    /// Keeps a command for later (`ForceOfflineGuest` with a delay).
    pub(super) fn later(&mut self, delay_s: u32, command: Command) {
        if self.jobs.len() >= GUEST_KICKS_WAITING_MAX {
            if let Some(unsaid) = self.complaints.allow(self.now.ms) {
                tracing::warn!(GUEST_KICKS_WAITING_MAX, unsaid, "too many delayed kicks; dropped");
            }
            return self.dropped(DropReason::TooManyJobs, 1);
        }
        let job = self.jobs.insert(command) as u32;
        self.job_timers.arm(job, self.now.ms + delay_s as u64 * 1000);
    }

    /// Applies a command to the connections of this shard.
    pub(super) fn apply(&mut self, command: &Command) {
        match command {
            Command::Push { target, payloads } => {
                payloads.iter().for_each(|payload| self.push_to(target, payload));
            }
            Command::Update { conn, change, payload } => {
                let Some(slot) = self.hub.slot_of(*conn) else { return };
                if self.conns[slot].flags.has(Flags::CLOSING) {
                    return;
                }
                self.hub.change(slot, change);
                if let Some(payload) = payload {
                    self.push_all(&[slot], payload);
                }
            }
            Command::DeleteTopics { topics, payload } => {
                let mut lost = Vec::new();
                topics.iter().for_each(|topic| self.hub.delete_topic(topic, &mut lost));
                lost.sort_unstable();
                lost.dedup();
                if let Some(payload) = payload {
                    self.push_all(&lost, payload);
                }
            }
            Command::Kick { target, payload, reason, guests_only } => {
                self.kick(target, payload.as_deref(), *reason, *guests_only);
            }
        }
    }

    fn kick(
        &mut self,
        target: &Target,
        payload: Option<&Payload>,
        reason: CloseReason,
        guests_only: bool,
    ) {
        let mut slots = Vec::new();
        self.hub.for_each(target, |slot| slots.push(slot));
        for slot in slots {
            let guest = self.hub.user(slot).is_empty() && self.hub.session(slot).is_empty();
            if self.conns[slot].flags.has(Flags::CLOSING) || (guests_only && !guest) {
                continue;
            }
            if let Some(payload) = payload {
                self.push_all(&[slot], payload);
            }
            self.close(slot, reason);
        }
    }

    /// Sends data to one client.
    pub(super) fn push_data(&mut self, slot: u32, data: bytes::Bytes) {
        self.push_all(&[slot], &Payload::new(data));
    }

    fn push_all(&mut self, slots: &[u32], payload: &Payload) {
        self.fan_out(payload, |_, fan| slots.iter().for_each(|&slot| fan.deliver(slot)));
    }

    fn push_to(&mut self, target: &Target, payload: &Payload) {
        self.fan_out(payload, |hub, fan| hub.for_each(target, |slot| fan.deliver(slot)));
    }

    fn fan_out(&mut self, payload: &Payload, walk: impl FnOnce(&crate::hub::Hub, &mut FanOut<'_>)) {
        let opcode = match self.config.netsvr.customer.send_message_type {
            MessageType::Text => Opcode::Text,
            MessageType::Binary => Opcode::Binary,
        };
        let mut fan = FanOut {
            conns: &mut self.conns,
            touched: &mut self.touched,
            deflater: self.deflater.as_mut().filter(|_| payload.raw().len() > COMPRESS_ABOVE),
            payload,
            opcode,
            plain: None,
            deflated: None,
            outbox_bytes_max: self.config.runtime.outbox_bytes_max,
            slow: Vec::new(),
            closing: 0,
        };
        walk(&self.hub, &mut fan);
        let (slow, closing) = (fan.slow, fan.closing);
        self.dropped(DropReason::Closing, closing);
        for slot in slow {
            self.counters.frames_failed += 1;
            self.counters.frame_bytes_failed += payload.raw().len() as u64;
            self.dropped(DropReason::SlowClient, 1);
            if self.config.runtime.slow_client == SlowClient::Close {
                self.too_slow(slot);
            }
        }
    }
}

/// One payload on its way to many connections of the shard.
struct FanOut<'a> {
    conns: &'a mut Conns,
    touched: &'a mut Vec<u32>,
    deflater: Option<&'a mut Deflater>,
    payload: &'a Payload,
    opcode: Opcode,
    plain: Option<Frame>,
    deflated: Option<Frame>,
    outbox_bytes_max: u32,
    /// Connections whose outbox had no room.
    slow: Vec<u32>,
    /// Connections that were closing.
    closing: u64,
}

impl FanOut<'_> {
    fn deliver(&mut self, slot: u32) {
        let flags = self.conns[slot].flags;
        if flags.has(Flags::CLOSING | Flags::GONE | Flags::ENDED) {
            self.closing += 1;
            return;
        }
        let frame = if flags.has(Flags::DEFLATE) && self.deflater.is_some() {
            let deflater = &mut self.deflater;
            self.deflated.get_or_insert_with(|| deflated(self.payload, self.opcode, deflater))
        } else {
            self.plain.get_or_insert_with(|| plain(self.payload, self.opcode))
        };
        let conn = &mut self.conns[slot];
        if !conn.outbox.has_room(frame.len(), self.outbox_bytes_max) {
            self.slow.push(slot);
            return;
        }
        conn.outbox.push(frame.clone());
        if conn.flags.set(Flags::TOUCHED) {
            self.touched.push(slot);
        }
    }
}

fn plain(payload: &Payload, opcode: Opcode) -> Frame {
    let format = match opcode {
        Opcode::Text => Format::WsText,
        Opcode::Binary => Format::WsBinary,
    };
    Frame::new(payload.format(format, |raw| websocket::frame(opcode, raw)).clone())
}

fn deflated(payload: &Payload, opcode: Opcode, deflater: &mut Option<&mut Deflater>) -> Frame {
    let format = match opcode {
        Opcode::Text => Format::WsTextDeflate,
        Opcode::Binary => Format::WsBinaryDeflate,
    };
    let encode = |raw: &[u8]| match deflater {
        Some(deflater) => websocket::frame_compressed(opcode, raw, deflater),
        None => websocket::frame(opcode, raw),
    };
    Frame::new(payload.format(format, encode).clone())
}
