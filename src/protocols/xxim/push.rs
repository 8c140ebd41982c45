//! What backends send to xxim clients: pushes, questions and kicks of xxim's own backends, and the
//! payloads of others (xxim section 6).
//!
//! Costs: selection walks the connections of the named users, or all when none is named; a push is
//! serialized once per shard and carrier, and costs a connection one entry in its outbox, or one in
//! the list of what it has to encrypt.

use bytes::Bytes;

use super::{COMMON_MESSAGE_BYTES, requests::identity};
use crate::engine::Engine;
use crate::engine::forms::{Forms, Made};
use crate::engine::ops::Frame;
use crate::hub::push::{Payload, Target};
use crate::lists::numbers;
use crate::lists::numbers::{format, kind};
use crate::protocols::xxim::letters::{PushFilter, PushRequest, PushResult, PushedConn};
use crate::protocols::xxim::rules::Close;
use crate::protocols::xxim::wire::{Body, Carrier, Push, Version};

/// PushEvent of notices, which the two documents wrap differently.
const EVENT_NOTICE: i32 = 1;
/// PushEvent under which the payloads of other backends arrive.
const EVENT_MESSAGES: i32 = 0;

/// Whether clients with common settings refuse a payload of this size (section 1.4).
pub fn is_large(payload: &Payload) -> bool {
    message(payload.raw()).size() > COMMON_MESSAGE_BYTES
}

/// A payload in one of the forms of xxim.
pub fn make(form: u8, payload: &Payload) -> Made {
    let (shared, carrier) = match form {
        numbers::XXIM_WEBSOCKET => (format::XXIM_WEBSOCKET, Carrier::WebSocket),
        numbers::XXIM_TCP => (format::XXIM_TCP, Carrier::Tcp),
        _ => {
            let body = payload.format(format::XXIM, |raw| bytes(&message(raw)));
            return Made::Sealed(body.clone());
        }
    };
    let frame = payload.format(shared, |raw| carrier.binary(&message(raw), None));
    Made::Frame(Frame::new(frame.clone()))
}

/// A push in one of the forms of xxim.
fn make_push(form: u8, push: &Push<'_>) -> Made {
    let carrier = match form {
        numbers::XXIM_WEBSOCKET => Carrier::WebSocket,
        numbers::XXIM_TCP => Carrier::Tcp,
        _ => return Made::Sealed(bytes(push)),
    };
    Made::Frame(Frame::new(carrier.binary(push, None)))
}

impl super::Xxim {
    /// An xxim backend's push, question or kick, as far as it concerns this shard.
    pub(crate) fn push(&mut self, engine: &mut Engine, work: &PushRequest) -> PushResult {
        match work {
            PushRequest::Send { filter, event, data } => {
                self.push_send(engine, filter, *event, data)
            }
            PushRequest::Get { filter } => {
                let slots = self.select(engine, filter);
                let success =
                    slots.into_iter().filter_map(|slot| self.named(engine, slot)).collect();
                PushResult { success, failed: Vec::new() }
            }
            PushRequest::Kick { filter } => {
                let mut pushed = PushResult::default();
                for slot in self.select(engine, filter) {
                    pushed.success.extend(self.named(engine, slot));
                    self.close(engine, slot, &Close::KICK);
                }
                pushed
            }
        }
    }

    fn push_send(
        &mut self,
        engine: &mut Engine,
        filter: &PushFilter,
        event: i32,
        data: &[u8],
    ) -> PushResult {
        let slots = self.select(engine, filter);
        let mut pushed = PushResult::default();
        let wraps = event == EVENT_NOTICE && self.config.xxim.v1_notice_wrap;
        let plain = Push { event, data, wrapped: false };
        let wrapped = Push { event, data, wrapped: true };
        if plain.size() > COMMON_MESSAGE_BYTES {
            engine.counters.xxim_large += slots.len() as u64;
        }
        let (mut plain_forms, mut wrapped_forms) = (Forms::default(), Forms::default());
        for slot in slots {
            let Some(named) = self.named(engine, slot) else { continue };
            let conn = &engine.conns[slot];
            let Some(own) = self.conns.of(engine.index(slot, kind::XXIM)) else { continue };
            let v1 = own.client.version() == Some(Version::V1);
            let (push, forms) = match wraps && v1 {
                true => (&wrapped, &mut wrapped_forms),
                false => (&plain, &mut plain_forms),
            };
            let made = forms.get(conn.form, || (make_push(conn.form, push), None));
            let list = match engine.offer(slot, made) {
                true => &mut pushed.success,
                false => &mut pushed.failed,
            };
            list.push(named);
        }
        pushed
    }

    /// The logged-in connections of this shard that a filter means (section 6.2).
    fn select(&self, engine: &Engine, filter: &PushFilter) -> Vec<u32> {
        let PushFilter { users, platforms, devices } = filter;
        let mut slots = Vec::new();
        let meant = |slot: u32| {
            let Some(own) = self.conns.of(engine.index(slot, kind::XXIM)) else { return false };
            let identity = own.client.identity();
            let among = |list: &[Box<str>], value: &str| {
                list.is_empty() || list.iter().any(|entry| **entry == *value)
            };
            identity.logged_in()
                && among(platforms, &identity.platform)
                && among(devices, &identity.device_id)
        };
        let target = if users.is_empty() { Target::All } else { Target::Users(users.clone()) };
        engine.hub.for_each(&target, |slot| {
            if meant(slot) {
                slots.push(slot);
            }
        });
        slots
    }

    fn named(&self, engine: &Engine, slot: u32) -> Option<PushedConn> {
        let own = self.conns.of(engine.index(slot, kind::XXIM))?;
        Some(PushedConn { conn: engine.conns.id(slot), identity: identity(own) })
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
