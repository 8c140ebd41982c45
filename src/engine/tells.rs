//! What commands come to, for who wants to know: each is numbered, and the outcomes of the shards
//! and nodes that it concerns are added up.

use std::collections::HashMap;

use crate::hub::ConnId;
use crate::hub::push::Outcome;
use crate::spare::Look;

/// The commands of this shard's connections whose outcome is not known.
#[derive(Debug, Default)]
pub struct Tells {
    number: u64,
    open: HashMap<u64, Tell>,
}

#[derive(Debug)]
struct Tell {
    conn: ConnId,
    /// Shards, and other nodes together, that have not answered.
    missing: usize,
    outcome: Outcome,
}

impl Tells {
    /// A number that was not given out before.
    pub fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// A connection waits for so many answers.
    pub fn open(&mut self, number: u64, conn: ConnId, missing: usize) {
        self.open.insert(number, Tell { conn, missing, outcome: Outcome::default() });
    }

    /// Who waits for the answer.
    pub fn conn(&self, number: u64) -> Option<ConnId> {
        self.open.get(&number).map(|tell| tell.conn)
    }

    /// Adds an answer. With the last one it gives who waits, and the sum.
    pub fn add(&mut self, number: u64, part: Outcome) -> Option<(ConnId, Outcome)> {
        let tell = self.open.get_mut(&number)?;
        tell.outcome.add(part);
        tell.missing -= 1;
        if tell.missing > 0 {
            return None;
        }
        self.open.remove(&number).map(|tell| (tell.conn, tell.outcome))
    }

    /// Nobody waits any more.
    pub fn forget(&mut self, number: u64) {
        self.open.remove(&number);
    }

    /// Commands whose outcome is not known.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.open);
    }
}
