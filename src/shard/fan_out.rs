//! How a push reaches its connections: in the wire format of each, made at most once per push and
//! format where connections can share it.
//!
//! Costs: one frame per wire format and shard, then per delivery one entry in an outbox and no
//! allocation; the walk over a topic is linear.

use bytes::Bytes;

use crate::config::model::{MessageType, SlowClient};
use crate::hub::Hub;
use crate::hub::push::{Format, Kind, Outcome, Payload, Target};
use crate::hub::rooms::room_of;
use crate::metrics::DropReason;
use crate::shard::conns::{Conn, Conns, Flags, Role};
use crate::shard::ops::Frame;
use crate::shard::outbox::has_room;
use crate::shard::xxim::Delivery;
use crate::shard::{Shard, connmix, im, xxim};
use crate::wire::deflate::Deflater;
use crate::wire::websocket::{self, COMPRESS_ABOVE, Opcode};

impl Shard {
    /// Sends data to one client.
    pub(super) fn push_data(&mut self, slot: u32, data: Bytes) {
        self.push_all(&[slot], &Payload::new(data));
    }

    /// Answers a client, in text where that makes a difference. For who does not take its answers
    /// is not read, this asks for no room.
    pub(super) fn answer(&mut self, slot: u32, data: Bytes) {
        self.fan_out(&Payload::of_kind(data, Kind::Text), |_, fan| {
            (fan.outbox_bytes_max, fan.im_high_water) = (u32::MAX, u32::MAX);
            fan.deliver(slot);
        });
    }

    /// Sends a payload to these clients.
    pub(super) fn push_all(&mut self, slots: &[u32], payload: &Payload) -> Outcome {
        self.fan_out(payload, |_, fan| slots.iter().for_each(|&slot| fan.deliver(slot)))
    }

    /// Sends a payload to every client of the target.
    pub(super) fn push_to(&mut self, target: &Target, payload: &Payload) -> Outcome {
        let told = match target {
            // Requests over HTTP are no members; what is cast to one is its answer.
            Target::Conns(conns) => self.xxim_http_told(conns, payload.raw()),
            _ => 0,
        };
        let mut outcome = self.fan_out(payload, |hub, fan| match target {
            // IM members of a room get its messages in batches, and this one among them.
            Target::Topics(topics) => topics.iter().for_each(|topic| {
                fan.beside_rooms = room_of(topic).is_some();
                hub.for_each_in(topic, |slot| fan.deliver(slot));
            }),
            _ => hub.for_each(target, |slot| fan.deliver(slot)),
        });
        outcome.done += told;
        outcome
    }

    /// Sends a payload to the members of a room that do not speak IM.
    pub(super) fn push_beside_rooms(&mut self, topic: &str, payload: &Payload) -> Outcome {
        self.fan_out(payload, |hub, fan| {
            fan.beside_rooms = true;
            hub.for_each_in(topic, |slot| fan.deliver(slot));
        })
    }

    fn fan_out(&mut self, payload: &Payload, walk: impl FnOnce(&Hub, &mut FanOut<'_>)) -> Outcome {
        let opcode = match self.engine.config.netsvr.customer.send_message_type {
            MessageType::Text => Opcode::Text,
            MessageType::Binary => Opcode::Binary,
        };
        let mut fan = FanOut {
            conns: &mut self.engine.conns,
            touched: &mut self.engine.touched,
            deflater: self
                .engine
                .deflater
                .as_mut()
                .filter(|_| payload.raw().len() > COMPRESS_ABOVE),
            payload,
            opcode,
            forms: Forms::new(im::Forms::new(
                &self.engine.config,
                &mut self.im.gzip,
                self.engine.now.unix_ms,
            )),
            im_high_water: self.engine.config.im.out_high_water,
            beside_rooms: false,
            outbox_bytes_max: self.engine.config.runtime.outbox_bytes_max,
            large: xxim::Forms::is_large(payload),
            xxim_large: 0,
            queued: 0,
            slow: Vec::new(),
            unfit: 0,
            firsts: [None; 2],
        };
        walk(&self.engine.hub, &mut fan);
        let (queued, slow, unfit, firsts) = (fan.queued, fan.slow, fan.unfit, fan.firsts);
        self.engine.counters.xxim_large += fan.xxim_large;
        if firsts != [None; 2] {
            let firsts = firsts.map(|slot| slot.map(|slot| self.engine.conns.id(slot)));
            self.connmix.sends.begin(firsts, &self.engine.now);
        }
        self.dropped(DropReason::Closing, unfit);
        let failed = unfit + slow.len() as u64;
        for slot in slow {
            self.connmix_count(slot, 0, 1);
            self.engine.counters.frames_failed += 1;
            self.engine.counters.frame_bytes_failed += payload.raw().len() as u64;
            self.overflowed(slot);
        }
        Outcome { done: queued, failed }
    }

    /// A client has no room for a push, which is dropped.
    pub(super) fn overflowed(&mut self, slot: u32) {
        self.dropped(DropReason::SlowClient, 1);
        // The IM protocol drops notifications and closes only who takes nothing for long.
        let drops = matches!(self.engine.conns[slot].role, Role::Im(_));
        if !drops && self.engine.config.runtime.slow_client == SlowClient::Close {
            self.too_slow(slot);
        }
    }
}

/// One payload on its way to many connections of the shard.
struct FanOut<'a> {
    conns: &'a mut Conns,
    touched: &'a mut Vec<u32>,
    deflater: Option<&'a mut Deflater>,
    payload: &'a Payload,
    /// What netsvr clients get.
    opcode: Opcode,
    forms: Forms<'a>,
    outbox_bytes_max: u32,
    /// The same for IM clients.
    im_high_water: u32,
    /// Whether IM clients get it another way.
    beside_rooms: bool,
    /// Larger than what xxim clients take with common settings, and how many were sent it.
    large: bool,
    xxim_large: u64,
    queued: u64,
    /// Connections whose outbox had no room.
    slow: Vec<u32>,
    /// Connections that can not get it.
    unfit: u64,
    /// The first connmix clients, over TCP and over WebSocket.
    firsts: [Option<u32>; 2],
}

/// The wire formats of one payload that were needed so far.
struct Forms<'a> {
    plain: Option<Frame>,
    deflated: Option<Frame>,
    xxim: xxim::Forms,
    connmix: connmix::Forms,
    im: im::Forms<'a>,
}

impl<'a> Forms<'a> {
    fn new(im: im::Forms<'a>) -> Forms<'a> {
        Forms {
            plain: None,
            deflated: None,
            xxim: xxim::Forms::default(),
            connmix: connmix::Forms::default(),
            im,
        }
    }
}

impl FanOut<'_> {
    fn deliver(&mut self, slot: u32) {
        debug_assert!(!self.conns[slot].flags.has(Flags::CLOSING | Flags::GONE));
        if matches!(self.conns[slot].role, Role::Xxim(_)) {
            self.xxim_large += u64::from(self.large);
            if self.unsealed(slot) {
                return;
            }
        }
        let im = matches!(self.conns[slot].role, Role::Im(_));
        if im && self.beside_rooms {
            // It will be in the batch.
            self.queued += 1;
            return;
        }
        let Some(frame) = self.frame(slot) else {
            self.unfit += 1;
            return;
        };
        let bytes_max = if im { self.im_high_water } else { self.outbox_bytes_max };
        let conn = &mut self.conns[slot];
        if !conn.outbox.has_room(frame.len(), bytes_max) {
            self.slow.push(slot);
            return;
        }
        conn.outbox.push(frame);
        self.queued += 1;
        if conn.flags.set(Flags::TOUCHED) {
            self.touched.push(slot);
        }
    }

    /// Queues the payload for a connection that encrypts it when it is flushed. False: it does not
    /// encrypt.
    fn unsealed(&mut self, slot: u32) -> bool {
        let conn = &mut self.conns[slot];
        let Role::Xxim(own) = &mut conn.role else { return false };
        let Delivery::Unsealed(body) = self.forms.xxim.deliver(own, conn.flags, self.payload)
        else {
            return false;
        };
        let queued = conn.outbox.charge().saturating_add(own.unsealed_charge());
        if !has_room(queued, body.len(), self.outbox_bytes_max) {
            self.slow.push(slot);
            return true;
        }
        own.push_unsealed(body);
        self.queued += 1;
        if conn.flags.set(Flags::TOUCHED) {
            self.touched.push(slot);
        }
        true
    }

    /// The payload as this connection gets it; `None` if it can not get anything.
    fn frame(&mut self, slot: u32) -> Option<Frame> {
        let Conn { role, flags, .. } = &mut self.conns[slot];
        match role {
            Role::Netsvr(_) | Role::Opening(_) => {
                let deflate = flags.has(Flags::DEFLATE) && self.deflater.is_some();
                Some(self.netsvr_frame(deflate))
            }
            Role::Xxim(conn) => match self.forms.xxim.deliver(conn, *flags, self.payload) {
                Delivery::Frame(frame) => Some(frame),
                Delivery::Unsealed(_) => None,
            },
            Role::Connmix(conn) => {
                self.firsts[usize::from(flags.has(Flags::WEBSOCKET))].get_or_insert(slot);
                self.forms.connmix.frame(conn, *flags, self.payload)
            }
            Role::Im(conn) => self.forms.im.frame(conn, self.payload),
            _ => None,
        }
    }

    fn netsvr_frame(&mut self, deflate: bool) -> Frame {
        let (payload, opcode, deflater) = (self.payload, self.opcode, &mut self.deflater);
        let frame = if deflate {
            self.forms.deflated.get_or_insert_with(|| deflated(payload, opcode, deflater))
        } else {
            self.forms.plain.get_or_insert_with(|| plain(payload, opcode))
        };
        frame.clone()
    }
}

/// The payload in one WebSocket message.
pub(super) fn plain(payload: &Payload, opcode: Opcode) -> Frame {
    let format = match opcode {
        Opcode::Text => Format::WsText,
        Opcode::Binary => Format::WsBinary,
    };
    Frame::new(payload.format(format, |raw| websocket::frame(opcode, raw)).clone())
}

/// The opcode that a payload's kind asks for.
pub(super) fn opcode_of(kind: Kind) -> Opcode {
    match kind {
        Kind::Unspecified | Kind::Text => Opcode::Text,
        Kind::Binary => Opcode::Binary,
    }
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
