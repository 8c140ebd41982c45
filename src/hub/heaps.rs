//! A large answer while it is put together: its rows in heaps by name, so that each heap can be
//! finished, encoded and given up by itself, and not all of it needs memory at the same time.
//!
//! Invariants: all rows of a name are in one heap; the parts of one shard come in their order.
//! Costs: a hash per row. Which heap a name goes to nobody outside can foresee.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::hub::queries::{Answer, ByName, Query};

/// Heaps of one answer: of 1,000,000 rows each gets about 1,000.
const HEAPS: usize = 1024;

/// See the module.
#[derive(Debug)]
pub struct Heaps<C> {
    /// What an answer is that has nothing in it.
    empty: Answer<C>,
    /// By the hash of the name, then by source. Rows without a name need no heap of theirs: there
    /// each part is one.
    heaps: VecDeque<Vec<Answer<C>>>,
    seed: u64,
}

impl<C: Copy + Ord> Heaps<C> {
    /// For the answer to this query. `seed` must not be known to who chooses the names.
    pub fn new(query: &Query, seed: u64) -> Heaps<C> {
        Heaps { empty: Answer::empty(query), heaps: VecDeque::new(), seed }
    }

    /// Adds a part that comes from this source: a shard, or several that are not told apart.
    pub fn add(&mut self, source: usize, part: Answer<C>) {
        match part {
            Answer::Users(names) => self.names(source, names, |part| match part {
                Answer::Users(names) => Some(names),
                _ => None,
            }),
            Answer::Topics(names) => self.names(source, names, |part| match part {
                Answer::Topics(names) => Some(names),
                _ => None,
            }),
            Answer::TopicConns(rows) => self.rows(source, rows, |part| match part {
                Answer::TopicConns(rows) => Some(rows),
                _ => None,
            }),
            Answer::TopicConnCount(rows) => self.rows(source, rows, |part| match part {
                Answer::TopicConnCount(rows) => Some(rows),
                _ => None,
            }),
            Answer::TopicUsers(rows) => self.rows(source, rows, |part| match part {
                Answer::TopicUsers(rows) => Some(rows),
                _ => None,
            }),
            Answer::TopicUserConns(rows) => self.rows(source, rows, |part| match part {
                Answer::TopicUserConns(rows) => Some(rows),
                _ => None,
            }),
            Answer::UserConns(rows) => self.rows(source, rows, |part| match part {
                Answer::UserConns(rows) => Some(rows),
                _ => None,
            }),
            Answer::UserInfo(rows) => self.rows(source, rows, |part| match part {
                Answer::UserInfo(rows) => Some(rows),
                _ => None,
            }),
            // Its order is that of the question, numbers are added up, and what is said of a
            // connection may be in several parts: one heap.
            whole @ (Answer::Online(_) | Answer::ConnCount(_) | Answer::ConnInfo(_)) => {
                if self.heaps.is_empty() {
                    self.heaps.push_back(vec![self.empty.clone()]);
                }
                self.heaps[0][0].merge(whole);
            }
            part @ Answer::Conns(_) => self.heaps.push_back(vec![part]),
        }
    }

    /// Takes the next heap out. `told_apart` are the sources below which each names a thing once.
    /// The concatenation of all of them, each finished, is the answer.
    pub fn take(&mut self, told_apart: usize) -> Option<Answer<C>> {
        let heap = self.heaps.pop_front()?;
        let mut whole = self.empty.clone();
        for (source, part) in heap.into_iter().enumerate() {
            whole.merge(if source < told_apart { part.once() } else { part.joined() });
        }
        Some(whole)
    }

    fn names(
        &mut self,
        source: usize,
        names: Vec<Arc<str>>,
        list: impl Fn(&mut Answer<C>) -> Option<&mut Vec<Arc<str>>>,
    ) {
        for name in names {
            if let Some(list) = list(self.part(source, &name)) {
                list.push(name);
            }
        }
    }

    fn rows<T>(
        &mut self,
        source: usize,
        rows: ByName<T>,
        list: impl Fn(&mut Answer<C>) -> Option<&mut ByName<T>>,
    ) {
        for row in rows {
            if let Some(list) = list(self.part(source, &row.0)) {
                list.push(row);
            }
        }
    }

    /// Where the rows of this name from this source are.
    fn part(&mut self, source: usize, name: &str) -> &mut Answer<C> {
        if self.heaps.is_empty() {
            self.heaps.resize_with(HEAPS, Vec::new);
        }
        let mut hasher = DefaultHasher::new();
        self.seed.hash(&mut hasher);
        name.hash(&mut hasher);
        let heap = &mut self.heaps[hasher.finish() as usize % HEAPS];
        if heap.len() <= source {
            heap.resize(source + 1, self.empty.clone());
        }
        &mut heap[source]
    }
}
