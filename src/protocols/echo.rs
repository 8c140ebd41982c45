//! The echo protocol: every message goes back as it came. For conformance suites and benchmarks,
//! and the smallest tenant there can be.
//!
//! Costs: one allocation and one copy per message.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::engine::Engine;
use crate::engine::conns::Flags;
use crate::engine::manners::Manners;
use crate::engine::tenant::Tenant;
use crate::engine::tenant::Upgrade;
use crate::limits::WEBSOCKET_MESSAGE_BYTES_MAX;
use crate::lists::numbers::kind;
use crate::wire::deflate::Deflater;
use crate::wire::websocket::{self, COMPRESS_ABOVE, Opcode};

/// Nothing is kept of a connection.
#[derive(Debug)]
pub struct Echo {
    /// How its clients behave.
    row: u16,
}

impl Echo {
    /// Nobody is connected; who says nothing for so long is closed.
    pub fn new(engine: &mut Engine, silence: Duration) -> Echo {
        let outbox_bytes_max = engine.settings.outbox_bytes_max;
        let manners = Manners::new(WEBSOCKET_MESSAGE_BYTES_MAX, outbox_bytes_max, silence, silence);
        Echo { row: engine.add_row(manners) }
    }
}

impl Tenant for Echo {
    fn upgraded(&mut self, engine: &mut Engine, slot: u32, _: SocketAddr, _: Upgrade) {
        engine.turn_into(slot, kind::ECHO, 0, self.row);
    }

    fn message(&mut self, engine: &mut Engine, slot: u32, opcode: Opcode, data: &[u8]) {
        let deflate = engine.conns[slot].flags.has(Flags::DEFLATE);
        let reply = reply(opcode, data, engine.deflater.as_mut().filter(|_| deflate));
        engine.push(slot, reply);
    }

    fn gone(&mut self, _: &mut Engine, _: u32) {}

    fn has_nobody(&self) -> bool {
        true
    }
}

/// The answer to a message: the same opcode and bytes, compressed if that was negotiated.
fn reply(opcode: Opcode, data: &[u8], deflater: Option<&mut Deflater>) -> Bytes {
    match deflater {
        Some(deflater) if data.len() > COMPRESS_ABOVE => {
            websocket::frame_compressed(opcode, data, deflater)
        }
        _ => websocket::frame(opcode, data),
    }
}
