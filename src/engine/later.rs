//! What is encrypted only when it is flushed: a push to many connections with keys of their own
//! costs each of them an encryption, and a turn has time for so many only. What is queued behind it
//! waits too, so that the order of a connection's frames holds.

use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;

use crate::engine::ops::Frame;
use crate::engine::outbox::charge;

/// What a message costs besides its bytes, in bytes that could be encrypted meanwhile.
const MESSAGE_COST: usize = 64;

/// Makes of a message what goes to the socket. What it needs for that is as it was when the message
/// was queued.
pub trait Seal {
    /// The frame of a message, over a WebSocket or on a bare stream.
    fn seal(&self, message: &[u8], websocket: bool) -> Bytes;
}

/// Messages of one connection that are not encrypted yet, and frames behind them.
#[derive(Default)]
pub struct Later {
    queue: VecDeque<(Bytes, Option<Rc<dyn Seal>>)>,
    charge: u32,
}

impl Later {
    /// What is charged for the messages, as if they were frames in the outbox already.
    pub fn charge(&self) -> u32 {
        self.charge
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues a message; without a seal it is a frame already.
    pub fn push(&mut self, message: Bytes, seal: Option<Rc<dyn Seal>>) {
        self.charge = self.charge.saturating_add(charge(message.len()) as u32);
        self.queue.push_back((message, seal));
    }

    /// The next frame, if there is one and `left`, the bytes that may still be encrypted, is not
    /// used up.
    pub fn next(&mut self, websocket: bool, left: &mut usize) -> Option<Frame> {
        if *left == 0 && self.queue.front().is_some_and(|(_, seal)| seal.is_some()) {
            return None;
        }
        let (message, seal) = self.queue.pop_front()?;
        self.charge = self.charge.saturating_sub(charge(message.len()) as u32);
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Some(Frame::new(match seal {
            None => message,
            Some(seal) => {
                *left = left.saturating_sub(message.len() + MESSAGE_COST);
                seal.seal(&message, websocket)
            }
        }))
    }

    /// Gives everything up; returns how many messages and bytes that were. With `control_frames`,
    /// frames that look like control frames of a WebSocket are no messages.
    pub fn clear(&mut self, control_frames: bool) -> (u64, u64) {
        let queue = std::mem::take(self).queue;
        let is_data = |(message, seal): &&(Bytes, Option<Rc<dyn Seal>>)| {
            let data = |byte: &u8| byte & 0x08 == 0;
            seal.is_some() || !control_frames || message.first().is_some_and(data)
        };
        let messages = queue.iter().filter(is_data);
        messages.fold((0, 0), |(count, bytes), (body, _)| (count + 1, bytes + body.len() as u64))
    }
}

impl fmt::Debug for Later {
    /// Not what it is encrypted with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Later({} messages)", self.queue.len())
    }
}
