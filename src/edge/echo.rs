//! The echo protocol: every message goes back as it came. For conformance suites and benchmarks.
//!
//! Costs: one allocation and one copy per message.

use bytes::Bytes;

use crate::wire::deflate::Deflater;
use crate::wire::websocket::{self, COMPRESS_ABOVE, Opcode};

/// The answer to a message: the same opcode and bytes, compressed if that was negotiated.
pub fn reply(opcode: Opcode, data: &[u8], deflater: Option<&mut Deflater>) -> Bytes {
    match deflater {
        Some(deflater) if data.len() > COMPRESS_ABOVE => {
            websocket::frame_compressed(opcode, data, deflater)
        }
        _ => websocket::frame(opcode, data),
    }
}
