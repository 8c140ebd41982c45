//! WebSocket frames (RFC 6455) with permessage-deflate without context takeover (RFC 7692), as a
//! server reads and writes them. What a violation gets is netsvr specification section 2.5.
//!
//! Invariants: a [`Decoder`] gives the same events however the byte stream is cut into pieces. It
//! holds no more than [`Rules::message_bytes_max`] and a small constant, plus what was stashed, and
//! its memory grows with the bytes received, never with the length that a peer announces.
//!
//! Costs: a frame that lies complete in the input is decoded without allocation and without copy;
//! anything else is copied once, into a box that is freed when the message was handed out. Encoding
//! is one allocation per frame. No syscalls.

mod decode;
mod encode;

pub use decode::Decoder;
pub use encode::{
    COMPRESS_ABOVE, begin_frame, close, close_echo, frame, frame_compressed, frame_of, mask_frame,
    ping, pong,
};

/// Bytes of payload that a control frame may have (RFC 6455 section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// The kinds of data messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Text,
    Binary,
}

impl Opcode {
    /// The number on the wire (RFC 6455 section 5.2).
    const fn bits(self) -> u8 {
        match self {
            Opcode::Text => 1,
            Opcode::Binary => 2,
        }
    }
}

/// What a connection's decoder must know. Copied per call, so it costs the connection nothing.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Bytes of one message, as received and after inflating; exactly as many are allowed.
    pub message_bytes_max: u32,
    /// Whether permessage-deflate was negotiated.
    pub deflate: bool,
    pub close_codes: CloseCodes,
}

/// Which codes a client's close frame may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCodes {
    /// What an endpoint may send (RFC 6455 section 7.4, and the registry of RFC 6455 section 11.7):
    /// 1000 to 1003, 1007 to 1014, 3000 to 4999.
    Registered,
    /// All from 1000 on but seven, as netsvr's table says: 1015 and 65535 pass.
    Netsvr,
}

impl CloseCodes {
    /// Whether a close frame may have this code.
    pub const fn accept(self, code: u16) -> bool {
        match self {
            CloseCodes::Registered => matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999),
            CloseCodes::Netsvr => {
                !matches!(code, 0..1000 | 1004..=1006 | 1016 | 1100 | 2000 | 2999)
            }
        }
    }
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A complete message: defragmented, inflated, and valid UTF-8 if it is text.
    Message { opcode: Opcode, data: &'a [u8] },
    /// A ping with its payload, at most 125 bytes.
    Ping(&'a [u8]),
    /// A pong with its payload, at most 125 bytes.
    Pong(&'a [u8]),
    /// A close frame: empty, or an acceptable code and a reason in UTF-8. Nothing after it counts.
    Close(&'a [u8]),
}

/// Why the gateway ends the connection: the close frame to send. The decoder is of no use after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The close code.
    pub code: u16,
    /// The reason text, as the specification spells it.
    pub reason: &'static str,
}
