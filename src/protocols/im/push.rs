//! Pushes of backends that belong to no room, as IM clients get them: a CR_NOTIFY with one notice,
//! without `to` and `chatroom` (IM section 16).
//!
//! Costs: the body is made once per push for all shards, a frame once per wire format and shard.

use bytes::Bytes;

use super::rooms::Fan;
use crate::engine::forms::Made;
use crate::hub::push::Payload;
use crate::lists::numbers::format;
use crate::protocols::im::config::Im as Config;
use crate::protocols::im::wire::proto::{CrMessage, CrMessageType};
use crate::protocols::im::wire::{
    ByteOrder, FRAME_BYTES_MAX, Gzip, HEADER_BYTES, LenMode, Wire, element,
};

/// What a notice has besides its content: header, keys, lengths, time, type.
const NOTICE_OVERHEAD: usize = HEADER_BYTES + 64;

/// Forms of IM: one for each [`Wire`] of one configuration.
pub const FORMS: u8 = 16 * 3 * 4;

/// The number of a wire format among the forms of IM.
pub fn form_of(wire: Wire) -> u8 {
    let mode = match wire.mode {
        LenMode::Body => 0,
        LenMode::Rest => 1,
        LenMode::Frame => 2,
    };
    (wire.version & 15) * 12 + mode * 4 + u8::from(wire.gzip) * 2 + u8::from(wire.websocket)
}

/// The inverse of [`form_of`].
fn wire_of(form: u8, order: ByteOrder) -> Wire {
    let mode = match form / 4 % 3 {
        0 => LenMode::Body,
        1 => LenMode::Rest,
        _ => LenMode::Frame,
    };
    let (gzip, websocket) = (form & 2 != 0, form & 1 != 0);
    Wire { version: form / 12, mode, order, gzip, websocket }
}

/// A payload in one of the forms of IM; the time is that of the message. What the forms have in
/// common is made once, and kept in `fan`.
pub fn make<'a>(
    form: u8,
    payload: &Payload,
    config: &'a Config,
    gzip: &mut Gzip,
    unix_ms: u64,
    fan: &mut Option<Fan<'a>>,
) -> Made {
    if payload.raw().len() + NOTICE_OVERHEAD > FRAME_BYTES_MAX {
        return Made::Nothing;
    }
    let body = || payload.format(format::IM_NOTIFY, |raw| body(raw, unix_ms)).clone();
    let fan = fan.get_or_insert_with(|| Fan::new(config, body()));
    Made::Frame(fan.frame(wire_of(form, config.byte_order), gzip))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wire_format_has_a_form_of_its_own() {
        for form in 0..FORMS {
            assert_eq!(form_of(wire_of(form, ByteOrder::Big)), form);
        }
    }
}
