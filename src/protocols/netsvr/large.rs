//! Large answers to netsvr business processes, put together of what the shards have found.
//!
//! That takes as long as there is much: one topic can have a million members, and one row of a
//! response can not be sent before its length is known. So it is no work for a shard.
//! Pure functions. Costs: linear; memory for what was found, a copy of a part of it, and the frame.

use std::sync::Arc;

use bytes::Bytes;

use crate::hub::ConnId;
use crate::hub::heaps::Heaps;
use crate::hub::mesh::Lent;
use crate::hub::queries::{Answer, Query};
use crate::limits::MESH_QUERY_BYTES;
use crate::protocols::netsvr::commands::{self, Next, Response, Shape};
use crate::wire::worker::{Named, UniqId, UniqIds};

/// All that was found for one question.
#[derive(Debug)]
pub struct Job {
    /// Who asked, and under which number.
    pub shard: u8,
    pub number: u64,
    /// The query; it is [`Query::distinct`].
    pub query: Arc<Query>,
    pub shape: Shape,
    /// The parts, each with the shard that has found it, in the order in which it has.
    pub found: Vec<(usize, Answer)>,
    /// `None`: only connections of this node count.
    pub elsewhere: Option<Elsewhere>,
    /// How connections of this node are named.
    pub ids: UniqIds,
    pub shards: usize,
    /// Not known to who chooses names of users and topics.
    pub seed: u64,
}

/// What other nodes have found.
#[derive(Debug, Default)]
pub struct Elsewhere {
    /// The order that the answer to `CheckOnline` has.
    pub asked: Vec<UniqId>,
    /// The parts, each with how connections of its node are named.
    pub found: Vec<(UniqIds, Answer)>,
    /// The room that they take.
    pub lent: Vec<Lent>,
}

impl Elsewhere {
    /// Nothing yet.
    pub fn new(asked: Vec<UniqId>) -> Elsewhere {
        Elsewhere { asked, ..Elsewhere::default() }
    }

    /// What it takes to put the parts together.
    pub fn weight(&self) -> usize {
        self.found.iter().map(|(_, part)| part.weight()).sum()
    }
}

/// What became of it.
#[derive(Debug)]
pub enum Made {
    /// The response, in pieces.
    Frame(Vec<Bytes>),
    /// The response needs another round over all shards, and, if the first one had other nodes in
    /// it, over these, which get the same query in several. All are [`Query::distinct`].
    Ask { query: Arc<Query>, shape: Shape, abroad: Option<Vec<Query>> },
}

impl Job {
    /// Puts everything together. Calls `beat` now and then.
    pub fn make(self, mut beat: impl FnMut()) -> Made {
        let Job { query, shape, found, elsewhere, ids, shards, seed, .. } = self;
        let Some(Elsewhere { asked, found: others, .. }) = elsewhere else {
            let mut heaps: Heaps<ConnId> = Heaps::new(&query, seed);
            for (shard, part) in found {
                beat();
                heaps.add(shard, part);
            }
            let asked = match &*query {
                Query::Online(asked) => &asked[..],
                _ => &[],
            };
            return match respond(heaps, (&query, shape), shards, asked, &ids, beat) {
                Ok(pieces) => Made::Frame(pieces),
                Err((query, shape)) => {
                    Made::Ask { query: Arc::new(query.distinct()), shape, abroad: None }
                }
            };
        };
        let mut heaps: Heaps<UniqId> = Heaps::new(&query, seed);
        for (shard, part) in found {
            beat();
            heaps.add(shard, part.map(|conn| UniqId::of(conn, &ids)));
        }
        for (ids, part) in others {
            beat();
            heaps.add(shards, part.map(|conn| UniqId::of(conn, &ids)));
        }
        match respond(heaps, (&query, shape), shards, &asked, &(), beat) {
            Ok(pieces) => Made::Frame(pieces),
            Err((query, shape)) => {
                let query = query.distinct();
                let abroad = Some(query.clone().split(MESH_QUERY_BYTES));
                Made::Ask { query: Arc::new(query), shape, abroad }
            }
        }
    }
}

/// The response of the heaps, or what has to be asked before there is one.
fn respond<C: Named + Ord>(
    mut heaps: Heaps<C>,
    (query, shape): (&Query, Shape),
    shards: usize,
    asked: &[C],
    ids: &C::Ids,
    mut beat: impl FnMut(),
) -> Result<Vec<Bytes>, (Query, Shape)> {
    let heaps = std::iter::from_fn(|| {
        beat();
        heaps.take(shards)
    });
    if let Some(mut response) = Response::new(&shape) {
        heaps.for_each(|part| response.add(part.finish_as(asked), ids));
        return Ok(response.finish());
    }
    let mut whole = Answer::empty(query);
    heaps.for_each(|part| whole.merge(part));
    match commands::answer(shape, whole.finish_as(asked), ids) {
        Next::Done(frame) => Ok(vec![frame]),
        Next::Ask(query, shape) => Err((query, shape)),
    }
}
