//! How a push reaches its connections: in the wire format of each, made at most once per push and
//! format where connections can share it.
//!
//! Costs: one frame per wire format and shard, then per delivery one entry in an outbox and no
//! allocation; the walk over a topic is linear.

use crate::engine::Engine;
use crate::engine::conns::{Conns, Flags};
use crate::engine::forms::{Forms, Made};
use crate::engine::manners::Manners;
use crate::engine::outbox::has_room;
use crate::hub::Hub;
use crate::hub::push::{Outcome, Payload, Target};
use crate::hub::rooms::room_of;
use crate::metrics::DropReason;
use crate::shard::Shard;
use crate::shard::maker::{self, Maker};

impl Shard {
    /// Sends a payload to these clients.
    pub(super) fn push_all(&mut self, slots: &[u32], payload: &Payload) -> Outcome {
        self.fan_out(payload, |_, fan| slots.iter().for_each(|&slot| fan.deliver(slot)))
    }

    /// Sends a payload to every client of the target.
    pub(super) fn push_to(&mut self, target: &Target, payload: &Payload) -> Outcome {
        let answered = match target {
            // Requests over HTTP are no members; what is cast to one is its answer.
            Target::Conns(conns) => {
                self.tenants.xxim.http_cast(&mut self.engine, conns, payload.raw())
            }
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
        outcome.done += answered;
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
        let Engine { conns, hub, rows, touched, deflater, now, .. } = &mut self.engine;
        let make = Maker {
            payload,
            config: &self.config,
            deflater: deflater.as_mut(),
            gzip: &mut self.tenants.im.gzip,
            unix_ms: now.unix_ms,
            im: None,
        };
        let mut fan = FanOut {
            conns,
            rows,
            touched,
            make,
            forms: std::mem::take(&mut self.forms),
            beside_rooms: false,
            queued: 0,
            slow: Vec::new(),
            unfit: 0,
        };
        walk(hub, &mut fan);
        let FanOut { queued, slow, unfit, mut forms, .. } = fan;
        self.engine.begin_samples(&forms);
        self.engine.counters.xxim_large += maker::large(&forms, payload);
        forms.clear();
        self.forms = forms;
        self.engine.dropped(DropReason::Closing, unfit);
        let failed = unfit + slow.len() as u64;
        for slot in slow {
            self.engine.count_frames(slot, 0, 1);
            self.engine.counters.frames_failed += 1;
            self.engine.counters.frame_bytes_failed += payload.raw().len() as u64;
            self.engine.overflowed(slot);
        }
        Outcome { done: queued, failed }
    }
}

/// One payload on its way to many connections of the shard.
struct FanOut<'a> {
    conns: &'a mut Conns,
    rows: &'a [Manners],
    touched: &'a mut Vec<u32>,
    make: Maker<'a>,
    forms: Forms,
    /// Whether those who get the messages of rooms in batches get it that way.
    beside_rooms: bool,
    queued: u64,
    /// Connections whose outbox had no room.
    slow: Vec<u32>,
    /// Connections that can not get it.
    unfit: u64,
}

impl FanOut<'_> {
    fn deliver(&mut self, slot: u32) {
        let conn = &mut self.conns[slot];
        debug_assert!(!conn.flags.has(Flags::CLOSING | Flags::GONE));
        let row = &self.rows[usize::from(conn.row)];
        if self.beside_rooms && row.batched {
            return self.queued += 1;
        }
        let make = || (self.make.make(conn.form), row.count.is_some().then_some(slot));
        let made = self.forms.get(conn.form, make);
        let bytes = match made {
            Made::Frame(frame) => frame.len(),
            Made::Sealed(body) => body.len(),
            Made::Nothing => return self.unfit += 1,
        };
        if !has_room(conn.charge(), bytes, row.push_bytes_max) {
            return self.slow.push(slot);
        }
        self.conns.push_made(slot, made);
        self.queued += 1;
        let conn = &mut self.conns[slot];
        if conn.flags.set(Flags::TOUCHED) {
            self.touched.push(slot);
        }
    }
}
