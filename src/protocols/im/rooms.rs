//! Rooms of this shard: who enters, what is said, and how it reaches the members (IM sections 10,
//! 11 and 16).
//!
//! A message goes to the home shard of its room, which gives it its place in the room's order and
//! its time, encodes it once and carries it to every shard; each shard collects it in the room's
//! batch and sends that when it is due. So all members of a process see one order.
//!
//! Costs per message: one mail to the home shard, one to each other shard, one encoding. Per batch
//! and shard: one body, one frame per wire format among the members, one compression if a member
//! reads gzip; one more frame for each member who has spoken in it. A delivery allocates nothing.

use std::sync::Arc;

use bytes::Bytes;

use crate::engine::Engine;
use crate::engine::conns::Flags;
use crate::engine::ops::Frame;
use crate::engine::wants::Want;
use crate::hub::limits::BucketRules;
use crate::hub::push::{Command, Payload, RoomMessage};
use crate::hub::rooms::{Batch, Bounds, home, room_of};
use crate::lists::letters::Mail;
use crate::lists::numbers::kind;
use crate::metrics::DropReason;
use crate::protocols::im::config::{Forward, Im as Config};
use crate::protocols::im::letters::{Chat, Letter};
use crate::protocols::im::rules::{Around, Say, State};
use crate::protocols::im::wire::proto::{CrMessage, CrMessageType};
use crate::protocols::im::wire::{
    Answer, FRAME_BYTES_MAX, HEADER_BYTES, NotifyBody, Status, Wire, chatroom_bytes, element,
    notification, notify_body,
};
use crate::wire::json::push_texts;

/// What a notification has besides the content of its only message: header, keys, lengths, names of
/// bounded length, time.
const NOTIFY_OVERHEAD: usize = HEADER_BYTES + 4096;

impl super::Im {
    /// The client has asked for a room that it is not in.
    pub(crate) fn join(&mut self, engine: &mut Engine, slot: u32, answer: Answer, topic: &str) {
        let config = self.config.clone();
        if !engine.hub.join(slot, topic, config.max_room_members) {
            return self.refuse_join(engine, slot, answer.seq);
        }
        self.answer(engine, slot, Some(answer), None);
        let Some(conn) = self.im(engine, slot) else { return };
        if !config.announce_join || conn.session.state() != State::User {
            return;
        }
        let mut event = String::new();
        push_texts(&mut event, [("event", "join"), ("userId", conn.session.user())]);
        let message = notice(topic, Bytes::from(event));
        if config.forward == Forward::Message {
            self.forward(engine, slot, &message, Forward::Message);
        }
        self.send_home(engine, Chat { topic: topic.into(), message, sender: None, wrapped: false });
    }

    fn refuse_join(&mut self, engine: &mut Engine, slot: u32, seq: u32) {
        let (config, now_ms) = (self.config.clone(), engine.now.ms);
        let Some(conn) = self.conns.of_mut(engine.index(slot, kind::IM)) else { return };
        let around = Around { rules: &config, hub: &engine.hub, slot, now_ms };
        let step = conn.session.drop_join(seq, Status::RoomFull, &around);
        self.step(engine, slot, step);
    }

    /// The client leaves a room, in which it need not be.
    pub(crate) fn leave(&mut self, engine: &mut Engine, slot: u32, answer: Answer, topic: &str) {
        engine.hub.unsubscribe(slot, topic);
        self.answer(engine, slot, Some(answer), None);
    }

    /// A CMS that passed the session's checks.
    pub(crate) fn say(&mut self, engine: &mut Engine, slot: u32, say: Say) {
        let (config, now_ms) = (self.config.clone(), engine.now.ms);
        let Say { seq, topic, message } = say;
        let rules = BucketRules { rate: config.room_rate, burst: config.room_burst };
        if !engine.hub.room_message(&topic, now_ms, rules) {
            let Some(conn) = self.conns.of_mut(engine.index(slot, kind::IM)) else { return };
            let around = Around { rules: &config, hub: &engine.hub, slot, now_ms };
            let step = conn.session.drop_said(seq, Status::RateLimited, &around);
            engine.dropped(DropReason::RoomLimiter, 1);
            if let crate::protocols::im::rules::Step::Dropped(_, answer, end) = step {
                self.answer(engine, slot, answer, end);
            }
            return;
        }
        engine.message_came(slot, message.message_content.len());
        if config.forward != Forward::No {
            self.forward(engine, slot, &message, config.forward);
        }
        if !config.queue.is_empty() {
            self.queue(engine, slot, &config.queue, &message);
        }
        let sender = Some(engine.conns.id(slot));
        self.send_home(engine, Chat { topic: topic.into(), message, sender, wrapped: false });
    }

    /// A backend has published to rooms: their home shards make a message of it for the IM members.
    pub(crate) fn published(
        &mut self,
        engine: &mut Engine,
        topics: &[Box<str>],
        payload: &Payload,
    ) {
        for topic in topics.iter().filter(|topic| room_of(topic).is_some()) {
            if home(topic, engine.mail.len()) != engine.id {
                continue;
            }
            if payload.raw().len() + NOTIFY_OVERHEAD + topic.len() > FRAME_BYTES_MAX {
                engine.dropped(DropReason::TooLarge, 1);
                continue;
            }
            let message = notice(topic, payload.raw().clone());
            self.order(engine, Chat { topic: topic.clone(), message, sender: None, wrapped: true });
        }
    }

    fn send_home(&mut self, engine: &mut Engine, chat: Chat) {
        let home = home(&chat.topic, engine.mail.len());
        if home == engine.id {
            self.order(engine, chat);
        } else {
            engine.post(home, Mail::Im(Letter::Chat(Box::new(chat))));
        }
    }

    /// This shard is the home of the room: the message gets its place and its time.
    pub(crate) fn order(&mut self, engine: &mut Engine, chat: Chat) {
        let Chat { topic, mut message, sender, wrapped } = chat;
        message.timestamp = engine.now.unix_ms;
        engine.counters.im_messages += 1;
        let content = (!wrapped).then(|| Payload::new(message.message_content.clone()));
        let element = element(&message);
        let message = Arc::new(RoomMessage { topic, element, content, sender });
        match wrapped {
            // What was published has gone to the other nodes as it was.
            true => engine.wants.push(Want::Command(Command::Room(message))),
            false => engine.wants.push(Want::Wide(Command::Room(message))),
        }
    }

    /// A message of a room has come from its home.
    pub(crate) fn room(&mut self, engine: &mut Engine, message: &Arc<RoomMessage>) {
        let topic = &message.topic;
        if engine.hub.topic_len(topic) == 0 {
            return;
        }
        let bounds = self.bounds();
        let name_bytes = room_of(topic).map_or(0, chatroom_bytes);
        let added = self.rooms.add(message.clone(), name_bytes, bounds);
        if added.opened {
            let due_ms = engine.now.ms + self.config.batch_delay.as_millis() as u64;
            self.timers.arm(added.room, due_ms);
        } else if added.full.is_some() {
            self.timers.cancel(added.room);
        }
        for batch in added.before.into_iter().chain(added.full) {
            self.flush(engine, &batch);
        }
    }

    /// The bounds of batches.
    pub(crate) fn bounds(&self) -> Bounds {
        let im = &self.config;
        Bounds {
            messages_max: im.batch_max_messages as usize,
            bytes_max: im.batch_max_bytes as usize,
            at_once: im.batch_delay.is_zero(),
        }
    }

    /// Batches whose time is over.
    pub(crate) fn tick(&mut self, engine: &mut Engine) {
        self.timers.advance(engine.now.ms);
        while let Some(room) = self.timers.expired() {
            if let Some(batch) = self.rooms.take(room) {
                self.flush(engine, &batch);
            }
        }
    }

    /// Sends a batch to the IM members of its room on this shard.
    fn flush(&mut self, engine: &mut Engine, batch: &Batch) {
        let config = self.config.clone();
        let Some(first) = batch.messages.first() else { return };
        let (topic, room) = (&first.topic, room_of(&first.topic).unwrap_or_default());
        let elements = batch.messages.iter().map(|message| &message.element[..]);
        let mut fan = Fan::new(&config, notify_body(elements, room));
        self.mark(engine, batch, true);
        let (mut queued, mut slow) = (0, 0);
        let mut speakers = Vec::new();
        let Engine { hub, conns, touched, .. } = &mut *engine;
        hub.for_each_in(topic, |slot| {
            let conn = &mut conns[slot];
            let index = (conn.kind == kind::IM).then_some(conn.index);
            let Some(member) = self.conns.of(index) else { return };
            if member.spoke {
                return speakers.push(slot);
            }
            let frame = fan.frame(member.session.wire(&config), &mut self.gzip);
            if !conn.outbox.has_room(frame.len(), config.out_high_water) {
                slow += 1;
                return;
            }
            conn.outbox.push(frame);
            queued += 1;
            if conn.flags.set(Flags::TOUCHED) {
                touched.push(slot);
            }
        });
        let counters = &mut engine.counters;
        counters.im_batches += 1;
        counters.im_batch_messages += batch.messages.len() as u64;
        counters.im_notifications += queued;
        counters.im_deliveries += queued * batch.messages.len() as u64;
        counters.im_deflated += fan.packed_bytes();
        engine.dropped(DropReason::SlowClient, slow);
        speakers.iter().for_each(|&slot| self.flush_to(engine, slot, batch, room));
        self.mark(engine, batch, false);
    }

    /// Marks the connections of this shard that have sent something in the batch.
    fn mark(&mut self, engine: &mut Engine, batch: &Batch, spoke: bool) {
        for sender in batch.messages.iter().filter_map(|message| message.sender) {
            if let Some(slot) = engine.hub.slot_of(sender)
                && let Some(conn) = self.im(engine, slot)
            {
                conn.spoke = spoke;
            }
        }
    }

    /// Sends a batch to one who has spoken in it: without what it said, and never compressed, which
    /// would cost once per speaker.
    fn flush_to(&mut self, engine: &mut Engine, slot: u32, batch: &Batch, room: &str) {
        let own = Some(engine.conns.id(slot));
        let others = batch.messages.iter().filter(|message| message.sender != own);
        let count = others.clone().count() as u64;
        if count == 0 {
            return;
        }
        let body = NotifyBody::new(notify_body(others.map(|message| &message.element[..]), room));
        let config = self.config.clone();
        let Some(conn) = self.im(engine, slot) else { return };
        let wire = Wire { gzip: false, ..conn.session.wire(&config) };
        let frame = notification(wire, config.commands.cr_notify, &body);
        if !engine.conns[slot].outbox.has_room(frame.len(), config.out_high_water) {
            return engine.dropped(DropReason::SlowClient, 1);
        }
        engine.counters.im_notifications += 1;
        engine.counters.im_deliveries += count;
        engine.push(slot, frame);
    }
}

/// A notice to a room; the home shard adds the time.
fn notice(topic: &str, content: Bytes) -> CrMessage {
    CrMessage {
        message_content: content,
        to: room_of(topic).unwrap_or_default().to_owned(),
        message_type: CrMessageType::Notify as u32,
        ..CrMessage::default()
    }
}

/// One notification on its way to many connections: a frame per wire format that they need.
pub(crate) struct Fan<'a> {
    config: &'a Config,
    body: NotifyBody,
    frames: Vec<(Wire, Frame)>,
}

impl<'a> Fan<'a> {
    /// Of a serialized `CRMessageResponse`.
    pub fn new(config: &'a Config, body: Bytes) -> Fan<'a> {
        Fan { config, body: NotifyBody::new(body), frames: Vec::new() }
    }

    /// The frame for connections of this kind. There are few kinds: versions, modes, gzip,
    /// WebSocket.
    pub fn frame(&mut self, wire: Wire, gzip: &mut crate::protocols::im::wire::Gzip) -> Frame {
        if let Some((_, frame)) = self.frames.iter().find(|(made, _)| *made == wire) {
            return frame.clone();
        }
        if wire.gzip {
            self.body.pack(self.config.gzip_min as usize, gzip);
        }
        let command = self.config.commands.cr_notify;
        let frame = Frame::new(notification(wire, command, &self.body));
        self.frames.push((wire, frame.clone()));
        frame
    }

    /// Bytes of the compressed body, if one was made.
    fn packed_bytes(&self) -> u64 {
        self.body.packed().map_or(0, |packed| packed.len() as u64)
    }
}
