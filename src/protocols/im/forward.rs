//! What members say, on its way to backends: a Transfer to a netsvr worker, an event in a connmix
//! queue (IM section 16).
//!
//! Costs per message and destination: one encoding. A worker whose queue is full holds its clients
//! back as for netsvr; a queue that is full follows `connmix.queue.full`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;

use crate::engine::links::EventKind;
use crate::hub::queues::{Pushed, Waiter};
use crate::protocols::im::config::Forward;
use crate::protocols::im::wire::proto::CrMessage;
use crate::wire::json::quoted;
use crate::wire::worker;

impl super::Im {
    /// Tells a worker what was said (section 16).
    pub(crate) fn forward(
        &mut self,
        engine: &mut crate::engine::Engine,
        slot: u32,
        message: &CrMessage,
        forward: Forward,
    ) {
        let worker = &engine.settings.workers;
        let (with_session, with_topics) = (worker.transfer_session, worker.transfer_topics);
        let uniq_id = engine.uniq_ids.encode(engine.conns.id(slot));
        let unix_ms = engine.now.unix_ms;
        engine.event(slot, EventKind::Message, |hub| {
            let session = if with_session { hub.session(slot) } else { "" };
            let topics = hub.topics_of(slot).filter(|_| with_topics).map(|topic| &**topic);
            let data = match forward {
                Forward::Message => {
                    let message = CrMessage { timestamp: unix_ms, ..message.clone() };
                    Bytes::from(message.encode_to_vec())
                }
                Forward::Content | Forward::No => message.message_content.clone(),
            };
            worker::transfer(&uniq_id, hub.user(slot), session, topics, &data)
        });
    }

    /// Appends what was said to a queue topic. What the queue refuses is counted there; the room
    /// gets the message all the same.
    pub(crate) fn queue(
        &mut self,
        engine: &mut crate::engine::Engine,
        slot: u32,
        topic: &str,
        message: &CrMessage,
    ) {
        let event = format!(
            concat!(
                r#"{{"event":"cms","frame":{{"data":"{}","finish":true,"type":"binary"}},"#,
                r#""messageType":{},"room":{},"uid":{}}}"#,
            ),
            STANDARD.encode(&message.message_content),
            message.message_type,
            quoted(&message.to),
            quoted(&message.from),
        );
        let client = engine.conns.id(slot);
        if let Ok(Pushed::Full) = engine.queue_push(client, topic, &event, Waiter::Nobody) {
            // Nothing more of this client until there is room.
            engine.block(slot);
        }
    }
}
