//! Questions of operators to the shards: each answers in pieces, which are put together here.
//!
//! Invariants: no answer has more rows than were asked for; a shard works on one piece of a
//! question at a time, so a turn of it is never held up for longer than that. Costs: a letter and
//! a wake-up of the shard for each piece, and nothing while nobody asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};

use crate::engine::look::{
    Details, Filter, Found, Names, Piece, Question, Row, Shard, Sort, Worker, sort_names,
};
use crate::hub::ConnId;
use crate::hub::mesh::Nodes;
use crate::hub::push::{Command, Outcome};
use crate::lists::letters::Mail;
use crate::outside::shards::Shards;

/// Shards answer within a turn, unless they stand still or the process ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// A shard has not answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shard {0} did not answer within five seconds; /readyz says whether it stands still")]
pub(in crate::sidecar) struct NoAnswer(u8);

/// A shard has not said what became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not every shard has said within five seconds that it is done; some may have carried it out, \
     or will"
)]
pub(in crate::sidecar) struct NotDone;

/// Where a list of connections goes on: behind this row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sidecar) struct Place {
    pub key: u64,
    pub conn: ConnId,
}

/// The way to the shards.
#[derive(Clone)]
pub(in crate::sidecar) struct Asks {
    shards: Shards,
}

impl Asks {
    pub fn new(shards: Shards) -> Asks {
        Asks { shards }
    }

    /// One piece of a shard's answer.
    async fn piece(
        &self,
        shard: u8,
        question: &Arc<Question>,
        from: u32,
        max: usize,
    ) -> Result<Piece, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            let question = question.clone();
            self.shards.deliver(shard, Mail::Look { question, from, max, reply }).await;
            answer.await
        };
        let answer = tokio::time::timeout(PATIENCE, asked).await;
        answer.ok().and_then(Result::ok).ok_or(NoAnswer(shard))
    }

    /// Everything that a shard finds; `keep` cuts what is found so far to what can still matter.
    async fn whole<T>(
        &self,
        shard: u8,
        question: &Arc<Question>,
        max: usize,
        take: impl Fn(Found) -> Vec<T>,
        keep: impl Fn(&mut Vec<T>),
    ) -> Result<Vec<T>, NoAnswer> {
        let (mut all, mut from) = (Vec::new(), Some(0));
        while let Some(place) = from {
            let piece = self.piece(shard, question, place, max).await?;
            all.extend(take(piece.found));
            keep(&mut all);
            from = piece.next;
        }
        Ok(all)
    }

    /// The load of each shard, in their order.
    pub async fn load(&self) -> Vec<Result<Shard, NoAnswer>> {
        let question = Arc::new(Question::Shard);
        let of = |shard| {
            let question = question.clone();
            async move {
                match self.piece(shard, &question, 0, 1).await?.found {
                    Found::Shard(load) => Ok(*load),
                    _ => Err(NoAnswer(shard)),
                }
            }
        };
        join_all(self.shards.numbers().map(of)).await
    }

    /// Connections behind a place: in the order of shards and slots, or the largest first. Also
    /// says whether there may be more.
    pub async fn connections(
        &self,
        filter: Filter,
        sort: Option<Sort>,
        after: Option<Place>,
        max: usize,
    ) -> Result<(Vec<Row>, bool), NoAnswer> {
        match sort {
            None => self.in_order(filter, after.map(|place| place.conn), max).await,
            Some(_) => self.sorted(filter, sort, after, max).await,
        }
    }

    async fn in_order(
        &self,
        filter: Filter,
        after: Option<ConnId>,
        max: usize,
    ) -> Result<(Vec<Row>, bool), NoAnswer> {
        let question = Arc::new(Question::Connections { filter, sort: None, below: None });
        let first = after.map_or(0, |conn| conn.shard());
        let mut rows = Vec::new();
        for shard in self.shards.numbers().filter(|shard| *shard >= first) {
            let begun = after.filter(|conn| conn.shard() == shard);
            let mut from = Some(begun.map_or(0, |conn| conn.slot() + 1));
            while let Some(place) = from {
                if rows.len() >= max {
                    return Ok((rows, true));
                }
                let piece = self.piece(shard, &question, place, max - rows.len()).await?;
                rows.extend(rows_of(piece.found));
                from = piece.next;
            }
        }
        Ok((rows, false))
    }

    async fn sorted(
        &self,
        filter: Filter,
        sort: Option<Sort>,
        after: Option<Place>,
        max: usize,
    ) -> Result<(Vec<Row>, bool), NoAnswer> {
        let below = after.map(|place| (place.key, place.conn));
        let question = Arc::new(Question::Connections { filter, sort, below });
        // One more than is wanted tells whether there is more.
        let keep = |rows: &mut Vec<Row>| {
            rows.sort_unstable_by_key(|row| std::cmp::Reverse((row.key(sort), row.conn)));
            rows.truncate(max + 1);
        };
        let mut rows = Vec::new();
        for shard in self.shards.numbers() {
            rows.extend(self.whole(shard, &question, max + 1, rows_of, keep).await?);
            keep(&mut rows);
        }
        let more = rows.len() > max;
        rows.truncate(max);
        Ok((rows, more))
    }

    /// All that is known of a connection; `None`: it is not there.
    pub async fn details(&self, conn: ConnId) -> Result<Option<Details>, NoAnswer> {
        if !self.shards.numbers().any(|shard| shard == conn.shard()) {
            return Ok(None);
        }
        let question = Arc::new(Question::Connection(conn));
        match self.piece(conn.shard(), &question, 0, 1).await?.found {
            Found::Connection(details) => Ok(details.map(|details| *details)),
            _ => Ok(None),
        }
    }

    /// Users or topics with how many connections they have on all shards, and whether there may be
    /// more. By name it is exact; by number it is so for those that are among the first `most` of
    /// some shard.
    pub async fn names(
        &self,
        asked: Names,
        max: usize,
        most: usize,
    ) -> Result<(Vec<(Arc<str>, u64)>, bool), NoAnswer> {
        let by_count = asked.by_count;
        let each = if by_count { most } else { max + 1 };
        let question = Arc::new(Question::Names(asked));
        let keep = |names: &mut Vec<(Arc<str>, u64)>| {
            sort_names(names, by_count);
            names.truncate(each);
        };
        let mut sums: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for shard in self.shards.numbers() {
            for (name, count) in self.whole(shard, &question, each, names_of, keep).await? {
                *sums.entry(name).or_default() += count;
            }
        }
        let mut names: Vec<_> = sums.into_iter().collect();
        sort_names(&mut names, by_count);
        let more = names.len() > max;
        names.truncate(max);
        Ok((names, more))
    }

    /// The workers, with what all shards have for each.
    pub async fn workers(&self) -> Result<Vec<Worker>, NoAnswer> {
        let question = Arc::new(Question::Workers);
        let mut all: BTreeMap<ConnId, Worker> = BTreeMap::new();
        for shard in self.shards.numbers() {
            let Found::Workers(part) = self.piece(shard, &question, 0, 1).await?.found else {
                continue;
            };
            for worker in part {
                match all.get_mut(&worker.conn) {
                    Some(sum) => {
                        sum.frames += worker.frames;
                        sum.bytes += worker.bytes;
                    }
                    None => _ = all.insert(worker.conn, worker),
                }
            }
        }
        Ok(all.into_values().collect())
    }

    /// The other nodes of the mesh.
    pub async fn nodes(&self) -> Result<Arc<Nodes>, NoAnswer> {
        match self.piece(0, &Arc::new(Question::Nodes), 0, 1).await?.found {
            Found::Nodes(nodes) => Ok(nodes),
            _ => Ok(Arc::default()),
        }
    }

    /// Has a command carried out on every shard that it may concern; what it came to in all. After
    /// a failure some may have carried it out, or will.
    pub async fn order(&self, command: Command) -> Result<Outcome, NotDone> {
        let of_one = match command.conns() {
            Some([conn]) => Some(conn.shard()),
            _ => None,
        };
        let command = Arc::new(command);
        let of = |shard| {
            let command = command.clone();
            async move {
                let (reply, mut answer) = mpsc::unbounded_channel();
                self.shards.deliver(shard, Mail::Order { command, reply }).await;
                answer.recv().await
            }
        };
        let concerned = |shard: &u8| of_one.is_none_or(|one| one == *shard);
        let done = join_all(self.shards.numbers().filter(concerned).map(of));
        let parts = tokio::time::timeout(PATIENCE, done).await.map_err(|_| NotDone)?;
        let mut sum = Outcome::default();
        for part in parts {
            sum.add(part.ok_or(NotDone)?);
        }
        Ok(sum)
    }
}

fn rows_of(found: Found) -> Vec<Row> {
    match found {
        Found::Connections(rows) => rows,
        _ => Vec::new(),
    }
}

fn names_of(found: Found) -> Vec<(Arc<str>, u64)> {
    match found {
        Found::Names(names) => names,
        _ => Vec::new(),
    }
}
