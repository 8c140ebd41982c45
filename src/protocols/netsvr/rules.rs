//! netsvr clients (specification sections 2.5 and 2.6): which messages go on to a worker.
//!
//! Costs: no allocation; one compare-and-swap per message if the global limiter is on.

use crate::hub::limits::{SharedLimiter, Window, WindowRules};

/// What the gateway remembers about one netsvr client besides what all protocols share.
#[derive(Debug, Default)]
pub struct Client {
    window: Window,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// It only shows that the client is alive; there is no answer.
    Heartbeat,
    /// It goes to a worker.
    Forward,
    /// The connection's own limiter drops it (metric 13).
    OverConnectionLimit,
    /// The global limiter drops it (metric 9).
    OverMessageLimit,
}

impl Client {
    /// Decides about a message, in the order of section 2.6. Heartbeats take nothing from the
    /// limiters. The size was checked by the codec.
    pub fn message(
        &mut self,
        data: &[u8],
        now_ms: u64,
        heartbeat: &[u8],
        window: &WindowRules,
        messages: &SharedLimiter,
    ) -> Inbound {
        if data == heartbeat {
            Inbound::Heartbeat
        } else if !self.window.take(now_ms, window) {
            Inbound::OverConnectionLimit
        } else if !messages.take(now_ms.saturating_mul(1_000_000)) {
            Inbound::OverMessageLimit
        } else {
            Inbound::Forward
        }
    }
}
