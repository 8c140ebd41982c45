//! How connections of one kind behave towards their peers, as data: a row per kind, not a copy per
//! connection. What the engine does by itself (deadlines, pings, slow peers, bounds) it reads here,
//! so that it need not know any protocol.

use std::time::Duration;

use crate::limits::HELD_BYTES_MAX;
use crate::metrics::Counters;
use crate::wire::websocket::CloseCodes;

/// The row of a connection that is refused or only waits for its end; also that of a free slot.
pub const LEAVING: u16 = 0;

/// One row.
#[derive(Clone, Debug)]
pub struct Manners {
    /// A backend is at the other end: it outlives the clients when the gateway ends, and what
    /// became of each frame that it is sent is known.
    pub backend: bool,
    /// What it asked before is answered although it is closing.
    pub heard_out: bool,
    /// When its turn in a drain has come, it is heard out for a time and closed then.
    pub drains: bool,
    /// Without a WebSocket the protocol runs on the bare stream, where no frame is a control frame.
    pub stream: bool,
    /// Not let in yet; its peer may only have said something.
    pub opening: bool,
    /// Bytes that one WebSocket message may have.
    pub message_bytes_max: u32,
    /// Which close codes of the peer are good.
    pub close_codes: CloseCodes,
    /// The reason of the close frame for a message that is too large, if not the usual one.
    pub too_large: Option<Box<str>>,
    /// Charge that may wait to be written; beyond it the peer is not read.
    pub outbox_bytes_max: u32,
    /// Charge up to which a push finds room.
    pub push_bytes_max: u32,
    /// It gets the messages of rooms in batches, not as pushes.
    pub batched: bool,
    /// Bytes of input that are kept while the connection is blocked and still read.
    pub held_bytes_max: usize,
    /// Time in which it must take a send that has stalled, milliseconds.
    pub write_ms: u64,
    /// Time without a sign of life after which it is silent, milliseconds; 0: no limit.
    pub silence_ms: u64,
    /// Over a WebSocket it is pinged when half of that is over.
    pub pings: bool,
    /// What shows that the peer is there.
    pub life: Life,
    /// What happens when it does not take what it is sent.
    pub slow: Slow,
    /// Counts data frames beside the totals: with or without a WebSocket, sent, failed.
    pub count: Option<fn(&mut Counters, bool, u64, u64)>,
}

impl Manners {
    /// Those of a client that has nothing particular: the WebSocket messages it may send, what may
    /// wait to be written to it, the time for taking that, and how long it may be silent (zero:
    /// without a limit).
    pub fn new(
        message_bytes_max: u32,
        outbox_bytes_max: u32,
        write: Duration,
        silence: Duration,
    ) -> Manners {
        Manners {
            backend: false,
            heard_out: false,
            drains: true,
            stream: false,
            opening: false,
            message_bytes_max,
            close_codes: CloseCodes::Registered,
            too_large: None,
            outbox_bytes_max,
            push_bytes_max: outbox_bytes_max,
            batched: false,
            held_bytes_max: HELD_BYTES_MAX,
            write_ms: write.as_millis() as u64,
            silence_ms: silence.as_millis() as u64,
            pings: false,
            life: Life::Messages,
            slow: Slow::Close,
            count: None,
        }
    }
}

/// What shows that a peer is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// WebSocket messages and pings.
    Messages,
    /// Every WebSocket frame that has come whole.
    Frames,
    /// The protocol says so itself.
    Own,
}

/// What happens when a push finds no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slow {
    /// It is closed with a reason, unless `runtime.slow_client` says otherwise.
    Close,
    /// It is closed without a word, unless `runtime.slow_client` says otherwise.
    Finish,
    /// The push is dropped.
    Drop,
}
