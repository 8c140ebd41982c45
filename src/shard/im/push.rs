//! Pushes of backends that belong to no room, as IM clients get them: a CR_NOTIFY with one notice,
//! without `to` and `chatroom` (IM section 16).
//!
//! Costs: the body is made once per push for all shards, a frame once per wire format and shard.

use std::sync::Arc;

use bytes::Bytes;

use super::Conn;
use super::rooms::Fan;
use crate::config::model::Config;
use crate::hub::push::{Format, Payload};
use crate::shard::ops::Frame;
use crate::wire::im::proto::{CrMessage, CrMessageType};
use crate::wire::im::{FRAME_BYTES_MAX, Gzip, HEADER_BYTES, element};

/// What a notice has besides its content: header, keys, lengths, time, type.
const NOTICE_OVERHEAD: usize = HEADER_BYTES + 64;

/// The wire formats of one payload that clients of this protocol share.
pub struct Forms<'a> {
    config: &'a Config,
    gzip: &'a mut Gzip,
    unix_ms: u64,
    fan: Option<Fan<'a>>,
}

impl<'a> Forms<'a> {
    /// None made yet; the time is that of the message.
    pub fn new(config: &'a Arc<Config>, gzip: &'a mut Gzip, unix_ms: u64) -> Forms<'a> {
        Forms { config, gzip, unix_ms, fan: None }
    }

    /// The payload as this client gets it; `None` if no frame can hold it.
    pub fn frame(&mut self, conn: &Conn, payload: &Payload) -> Option<Frame> {
        if payload.raw().len() + NOTICE_OVERHEAD > FRAME_BYTES_MAX {
            return None;
        }
        let (config, unix_ms) = (self.config, self.unix_ms);
        let body = || payload.format(Format::ImNotify, |raw| body(raw, unix_ms)).clone();
        let fan = self.fan.get_or_insert_with(|| Fan::new(config, body()));
        Some(fan.frame(conn.session.wire(&config.im), self.gzip))
    }
}

/// A `CRMessageResponse` with one notice.
fn body(content: &[u8], unix_ms: u64) -> Bytes {
    element(&CrMessage {
        message_content: Bytes::copy_from_slice(content),
        timestamp: unix_ms,
        message_type: CrMessageType::Notify as u32,
        ..CrMessage::default()
    })
}
