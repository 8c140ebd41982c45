//! Pushes as netsvr clients get them: one WebSocket message (netsvr section 2.6).

use crate::config::model::MessageType;
use crate::engine::forms;
use crate::engine::ops::Frame;
use crate::hub::push::{Format, Payload};
use crate::protocols::netsvr::config::NetsvrCustomer;
use crate::wire::deflate::Deflater;
use crate::wire::websocket::{self, COMPRESS_ABOVE, Opcode};

fn opcode(customer: &NetsvrCustomer) -> Opcode {
    match customer.send_message_type {
        MessageType::Text => Opcode::Text,
        MessageType::Binary => Opcode::Binary,
    }
}

/// The payload as it is.
pub fn plain(payload: &Payload, customer: &NetsvrCustomer) -> Frame {
    forms::message(payload, opcode(customer))
}

/// The payload compressed, if that is worth it.
pub fn deflated(
    payload: &Payload,
    customer: &NetsvrCustomer,
    deflater: Option<&mut Deflater>,
) -> Frame {
    let opcode = opcode(customer);
    let Some(deflater) = deflater.filter(|_| payload.raw().len() > COMPRESS_ABOVE) else {
        return forms::message(payload, opcode);
    };
    let format = match opcode {
        Opcode::Text => Format::WS_TEXT_DEFLATE,
        Opcode::Binary => Format::WS_BINARY_DEFLATE,
    };
    let encode = |raw: &[u8]| websocket::frame_compressed(opcode, raw, deflater);
    Frame::new(payload.format(format, encode).clone())
}
