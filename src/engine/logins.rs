//! Logins of this shard's clients that are to be verified (xxim section 5.2, IM section 8).
//!
//! The sidecar asks the verifier; here is only the bound on how many it gets at a time. Each waits
//! with its connection, which has at most one; those of connections that have left are forgotten
//! before they become many.

use std::collections::VecDeque;

use crate::engine::LEFT_SPARE;
use crate::engine::conns::Conns;
use crate::hub::ConnId;
use crate::hub::login::Login;
use crate::lists::letters::SidecarRequest;
use crate::spare::Look;

/// The logins of one shard.
#[derive(Debug, Default)]
pub struct Logins {
    under_way: usize,
    queue: VecDeque<(ConnId, u32, Box<Login>)>,
}

impl Logins {
    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.queue);
    }

    /// A login of a connection waits for its turn.
    pub fn push(&mut self, conn: ConnId, number: u32, login: Box<Login>, conns: &Conns) {
        self.queue.push_back((conn, number, login));
        if self.queue.len() > 2 * conns.len() + LEFT_SPARE {
            self.queue.retain(|(id, ..)| conns.slot(*id).is_some());
        }
    }

    /// Logins that wait for their turn.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Logins that wait or are under way.
    fn len(&self) -> usize {
        self.queue.len() + self.under_way
    }

    /// Whether no login waits or is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One verdict is there.
    pub fn done(&mut self) {
        debug_assert!(self.under_way > 0, "a verdict that nobody asked for");
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// The next request to hand to the sidecar, if fewer than `under_way_max` are.
    pub fn next(&mut self, under_way_max: u32) -> Option<SidecarRequest> {
        if self.under_way >= under_way_max as usize {
            return None;
        }
        let (conn, number, login) = self.queue.pop_front()?;
        self.under_way += 1;
        Some(SidecarRequest::Verify { conn, number, login })
    }
}
