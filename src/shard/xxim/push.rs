//! What backends send to xxim clients: pushes, questions and kicks of xxim's own backends, and the
//! payloads of others (xxim section 6).
//!
//! Costs: selection walks the connections of the named users, or all when none is named; a push is
//! serialized once per shard and carrier, and costs a connection one entry in its outbox, or one in
//! the list of what it has to encrypt.

use bytes::Bytes;

use super::{COMMON_MESSAGE_BYTES, Conn, requests::identity};
use crate::edge::xxim::Close;
use crate::hub::push::{Format, Payload, Target};
use crate::shard::Shard;
use crate::shard::conns::{Flags, Role};
use crate::shard::mailbox::{XximConn, XximFilter, XximPush, XximPushed};
use crate::shard::ops::Frame;
use crate::shard::outbox::has_room;
use crate::wire::xxim::{Body, Carrier, Push, Version};

/// PushEvent of notices, which the two documents wrap differently.
const EVENT_NOTICE: i32 = 1;
/// PushEvent under which the payloads of other backends arrive.
const EVENT_MESSAGES: i32 = 0;

/// What becomes of a message for one client.
pub enum Delivery {
    /// It goes into the outbox.
    Frame(Frame),
    /// It is encrypted later; this is what.
    Unsealed(Bytes),
}

/// The wire formats of one payload that clients of this protocol share.
#[derive(Default)]
pub struct Forms {
    websocket: Option<Frame>,
    tcp: Option<Frame>,
}

impl Forms {
    /// Whether clients with common settings refuse a payload of this size (section 1.4).
    pub fn is_large(payload: &Payload) -> bool {
        message(payload.raw()).size() > COMMON_MESSAGE_BYTES
    }

    /// The payload as this client gets it.
    pub fn deliver(&mut self, conn: &Conn, flags: Flags, payload: &Payload) -> Delivery {
        if conn.encrypts() {
            return Delivery::Unsealed(
                payload.format(Format::Xxim, |raw| bytes(&message(raw))).clone(),
            );
        }
        let (place, format, carrier) = match flags.has(Flags::WEBSOCKET) {
            true => (&mut self.websocket, Format::XximWs, Carrier::WebSocket),
            false => (&mut self.tcp, Format::XximTcp, Carrier::Tcp),
        };
        let make = || {
            let made = payload.format(format, |raw| carrier.binary(&message(raw), None));
            Frame::new(made.clone())
        };
        Delivery::Frame(place.get_or_insert_with(make).clone())
    }
}

impl Conn {
    /// Whether a message has to be encrypted, or must wait behind one that has to be.
    fn encrypts(&self) -> bool {
        self.client.cipher().is_some() || !self.unsealed.is_empty()
    }

    /// Queues a message that is encrypted under the keys of this moment when it is sent.
    pub(in crate::shard) fn push_unsealed(&mut self, body: Bytes) {
        let cipher = self.client.cipher().cloned();
        self.unsealed.push(body, cipher);
    }

    /// What is charged for that which waits for encryption.
    pub(in crate::shard) fn unsealed_charge(&self) -> u32 {
        self.unsealed.charge()
    }
}

/// One push of an xxim backend on this shard, in the forms that were needed so far.
struct Forming<'a> {
    push: Push<'a>,
    body: Option<Bytes>,
    websocket: Option<Frame>,
    tcp: Option<Frame>,
}

impl<'a> Forming<'a> {
    fn new(event: i32, data: &'a [u8], wrapped: bool) -> Forming<'a> {
        let push = Push { event, data, wrapped };
        Forming { push, body: None, websocket: None, tcp: None }
    }

    fn deliver(&mut self, conn: &Conn, flags: Flags) -> Delivery {
        let push = &self.push;
        if conn.encrypts() {
            return Delivery::Unsealed(self.body.get_or_insert_with(|| bytes(push)).clone());
        }
        let (place, carrier) = match flags.has(Flags::WEBSOCKET) {
            true => (&mut self.websocket, Carrier::WebSocket),
            false => (&mut self.tcp, Carrier::Tcp),
        };
        Delivery::Frame(place.get_or_insert_with(|| Frame::new(carrier.binary(push, None))).clone())
    }
}

impl Shard {
    /// An xxim backend's push, question or kick, as far as it concerns this shard.
    pub(in crate::shard) fn xxim_push(&mut self, work: &XximPush) -> XximPushed {
        match work {
            XximPush::Send { filter, event, data } => self.xxim_push_send(filter, *event, data),
            XximPush::Get { filter } => {
                let slots = self.xxim_select(filter);
                let success = slots.into_iter().filter_map(|slot| self.xxim_named(slot)).collect();
                XximPushed { success, failed: Vec::new() }
            }
            XximPush::Kick { filter } => {
                let mut pushed = XximPushed::default();
                for slot in self.xxim_select(filter) {
                    pushed.success.extend(self.xxim_named(slot));
                    self.xxim_close(slot, &Close::KICK);
                }
                pushed
            }
        }
    }

    fn xxim_push_send(&mut self, filter: &XximFilter, event: i32, data: &[u8]) -> XximPushed {
        let slots = self.xxim_select(filter);
        let mut pushed = XximPushed::default();
        let wraps = event == EVENT_NOTICE && self.engine.config.xxim.v1_notice_wrap;
        let mut plain = Forming::new(event, data, false);
        let mut wrapped = Forming::new(event, data, true);
        if plain.push.size() > COMMON_MESSAGE_BYTES {
            self.engine.counters.xxim_large += slots.len() as u64;
        }
        for slot in slots {
            let Some(named) = self.xxim_named(slot) else { continue };
            let conn = &self.engine.conns[slot];
            let Role::Xxim(own) = &conn.role else { continue };
            let v1 = own.client.version() == Some(Version::V1);
            let forming = if wraps && v1 { &mut wrapped } else { &mut plain };
            let delivery = forming.deliver(own, conn.flags);
            let list = match self.xxim_queue(slot, delivery) {
                true => &mut pushed.success,
                false => &mut pushed.failed,
            };
            list.push(named);
        }
        pushed
    }

    /// Queues a push for one connection. False: there is no room, and the rule for slow clients was
    /// applied.
    fn xxim_queue(&mut self, slot: u32, delivery: Delivery) -> bool {
        let outbox_bytes_max = self.engine.config.runtime.outbox_bytes_max;
        let len = match &delivery {
            Delivery::Frame(frame) => frame.len(),
            Delivery::Unsealed(body) => body.len(),
        };
        if !has_room(self.xxim_queued(slot), len, outbox_bytes_max) {
            self.engine.counters.frames_failed += 1;
            self.engine.counters.frame_bytes_failed += len as u64;
            self.overflowed(slot);
            return false;
        }
        let conn = &mut self.engine.conns[slot];
        match (delivery, &mut conn.role) {
            (Delivery::Frame(frame), _) => conn.outbox.push(frame),
            (Delivery::Unsealed(body), Role::Xxim(own)) => own.push_unsealed(body),
            _ => return false,
        }
        self.touch(slot);
        true
    }

    /// The logged-in connections of this shard that a filter means (section 6.2).
    fn xxim_select(&self, filter: &XximFilter) -> Vec<u32> {
        let XximFilter { users, platforms, devices } = filter;
        let mut slots = Vec::new();
        let meant = |slot: u32| {
            let conn = &self.engine.conns[slot];
            let Role::Xxim(own) = &conn.role else { return false };
            let identity = own.client.identity();
            let among = |list: &[Box<str>], value: &str| {
                list.is_empty() || list.iter().any(|entry| **entry == *value)
            };
            identity.logged_in()
                && among(platforms, &identity.platform)
                && among(devices, &identity.device_id)
        };
        let target = if users.is_empty() { Target::All } else { Target::Users(users.clone()) };
        self.engine.hub.for_each(&target, |slot| {
            if meant(slot) {
                slots.push(slot);
            }
        });
        slots
    }

    fn xxim_named(&self, slot: u32) -> Option<XximConn> {
        let Role::Xxim(own) = &self.engine.conns[slot].role else { return None };
        Some(XximConn { conn: self.engine.conns.id(slot), identity: identity(own) })
    }
}

/// A payload of another protocol's backend.
fn message(raw: &[u8]) -> Push<'_> {
    Push { event: EVENT_MESSAGES, data: raw, wrapped: false }
}

fn bytes(push: &Push<'_>) -> Bytes {
    let mut out = Vec::with_capacity(push.size());
    push.put(&mut out);
    Bytes::from(out)
}
