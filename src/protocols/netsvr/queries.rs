//! Questions of backends over all shards: each shard answers for its part, the one that was asked
//! merges the parts (netsvr sections 3.6, 6.7, 6.8).
//!
//! Questions travel through the same mailboxes as commands, so a question sees the effects of every
//! earlier command of its connection. What all shards together find within one piece is answered at
//! once; for more the question waits for its turn and begins anew (`answers`). With
//! `netsvr.cluster` the other nodes of the mesh answer too; their connections go by uniqId, which
//! says whose they are.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::engine::Engine;
use crate::hub::ConnId;
use crate::hub::mesh::Lent;
use crate::hub::queries::{Answer, Query};
use crate::hub::walk::Cursor;
use crate::limits::MESH_QUERY_BYTES;
use crate::lists::letters::{Mail, Reply, ReplyTo};
use crate::metrics::Rates;
use crate::protocols::netsvr::answers::Making;
use crate::protocols::netsvr::commands::{self, Next, Shape};
use crate::protocols::netsvr::large::Elsewhere;
use crate::protocols::netsvr::letters::Letter;
use crate::protocols::netsvr::wire::{self, MetricItem};
use crate::spare::Look;
use crate::wire::worker::{Cmd, UniqId, UniqIds};

/// Questions of this shard's backend connections that are not answered yet, and what this shard
/// has to find for questions of all.
#[derive(Debug)]
pub struct Asks {
    pub(crate) shards: usize,
    number: u64,
    open: HashMap<u64, Ask>,
    pub(crate) making: Making,
}

#[derive(Debug)]
struct Ask {
    conn: ConnId,
    /// Shards whose part is missing.
    missing: usize,
    about: About,
}

#[derive(Debug)]
enum About {
    /// Answered in some other way.
    Other,
    Query(Box<Question>),
    Rates(Box<Rates>),
    /// Only whether every shard has got that far; the answer is known.
    Known(Bytes),
}

/// A question about connections, users or topics.
#[derive(Debug)]
pub(crate) struct Question {
    pub query: Arc<Query>,
    pub shape: Shape,
    /// What the shards have found, while that is not much.
    answer: Answer,
    /// They find more than fits into a piece.
    large: bool,
    /// What other nodes have found, if they are asked too.
    pub wide: Option<Elsewhere>,
}

impl Question {
    fn new(query: Arc<Query>, shape: Shape, wide: Option<Elsewhere>) -> Box<Question> {
        let answer = Answer::empty(&query);
        Box::new(Question { query, shape, answer, large: false, wide })
    }

    /// Adds what a shard has found; if that is not all, it will be found again.
    fn add(&mut self, part: Answer, is_all: bool, weight_max: usize) {
        self.large |= !is_all || self.answer.weight() + part.weight() > weight_max;
        match self.large {
            true => self.answer = Answer::empty(&self.query),
            false => self.answer.merge(part),
        }
    }
}

impl Asks {
    /// Gives back what a peak took.
    pub(crate) fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.open);
        self.making.give_back(look);
    }

    /// For a process of so many shards. `seed` must not be known outside.
    pub fn new(shards: usize, seed: u64) -> Asks {
        Asks { shards, number: 0, open: HashMap::new(), making: Making::new(seed) }
    }

    /// Numbers a question of a connection.
    pub fn number(&mut self, conn: ConnId) -> u64 {
        self.number += 1;
        self.open.insert(self.number, Ask { conn, missing: self.shards, about: About::Other });
        self.number
    }

    /// Who asked, if the question is still open.
    pub fn asker(&self, number: u64) -> Option<ConnId> {
        self.open.get(&number).map(|ask| ask.conn)
    }

    /// The question is answered, or nobody wants the answer any more.
    pub fn forget(&mut self, number: u64) {
        if let Some(Ask { about: About::Query(question), .. }) = self.open.remove(&number) {
            self.making.discard(*question);
        }
        self.making.go_on();
    }

    /// Questions that are not answered.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    fn begin(&mut self, number: u64, about: About) {
        self.begin_with(number, about, self.shards);
    }

    fn begin_with(&mut self, number: u64, about: About, shards: usize) {
        if let Some(ask) = self.open.get_mut(&number) {
            ask.missing = shards;
            ask.about = about;
        }
    }

    /// Adds a shard's part; gives what the question is about when the last part is there.
    fn add(&mut self, number: u64, merge: impl FnOnce(&mut About)) -> Option<About> {
        let ask = self.open.get_mut(&number)?;
        merge(&mut ask.about);
        ask.missing -= 1;
        (ask.missing == 0).then(|| std::mem::replace(&mut ask.about, About::Other))
    }
}

impl super::Netsvr {
    /// A backend connection asks about connections, users or topics.
    pub(crate) fn ask(&mut self, engine: &mut Engine, slot: u32, query: Query, shape: Shape) {
        let number = self.question(engine, slot);
        self.ask_all(engine, number, Arc::new(query.distinct()), shape);
    }

    /// The query must be [`Query::distinct`].
    pub(crate) fn ask_all(
        &mut self,
        engine: &mut Engine,
        number: u64,
        query: Arc<Query>,
        shape: Shape,
    ) {
        self.asks.begin(number, About::Query(Question::new(query.clone(), shape, None)));
        self.ask_shards(engine, number, &query);
    }

    /// A backend connection asks about the connections, users or topics of all nodes.
    pub(crate) fn ask_wide(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        (cmd, body): (Cmd, Bytes),
        query: Query,
        shape: Shape,
    ) {
        if engine.mesh.as_ref().is_none_or(|mesh| mesh.nodes.is_empty()) {
            return self.ask(engine, slot, query, shape);
        }
        let number = self.question(engine, slot);
        let (asked, abroad) = match &query {
            Query::Online(_) => {
                let abroad = self.named_abroad(engine, cmd, &body);
                (commands::asked(body, &engine.uniq_ids), abroad)
            }
            Query::ConnInfo { .. } => (Vec::new(), self.named_abroad(engine, cmd, &body)),
            _ => (Vec::new(), vec![(None, query.clone())]),
        };
        let abroad = abroad
            .into_iter()
            .flat_map(|(to, query)| query.split(MESH_QUERY_BYTES).into_iter().map(move |q| (to, q)))
            .collect();
        self.ask_nodes(engine, number, Arc::new(query.distinct()), shape, asked, abroad);
    }

    /// Asks all shards, and other nodes what each of them is to be asked, in messages that are not
    /// too large. The query must be [`Query::distinct`].
    pub(crate) fn ask_nodes(
        &mut self,
        engine: &mut Engine,
        number: u64,
        query: Arc<Query>,
        shape: Shape,
        asked: Vec<UniqId>,
        abroad: Vec<(Option<u16>, Query)>,
    ) {
        let wide = Some(Elsewhere::new(asked));
        let about = About::Query(Question::new(query.clone(), shape, wide));
        self.asks.begin_with(number, about, self.asks.shards + abroad.len());
        for (to, query) in abroad {
            engine.ask_node(number, to, query);
        }
        self.ask_shards(engine, number, &query);
    }

    fn ask_shards(&mut self, engine: &mut Engine, number: u64, query: &Arc<Query>) {
        for shard in engine.others() {
            let reply = ReplyTo::Shard { shard: engine.id, number };
            engine.post(shard, Mail::Ask { query: query.clone(), from: Cursor::default(), reply });
        }
        let reply = ReplyTo::Shard { shard: engine.id, number };
        self.find(engine, query.clone(), Cursor::default(), reply);
    }

    /// What other nodes have; of one that has left meanwhile nothing is known.
    fn found_elsewhere(
        &mut self,
        engine: &mut Engine,
        number: u64,
        parts: Vec<(u16, Answer)>,
        lent: Lent,
    ) {
        let named = |(node, part)| Some((engine.uniq_ids_of(node)?, part));
        let parts: Vec<(UniqIds, Answer)> = parts.into_iter().filter_map(named).collect();
        let merge = |about: &mut About| {
            if let About::Query(question) = about
                && let Some(elsewhere) = &mut question.wide
            {
                elsewhere.found.extend(parts);
                elsewhere.lent.push(lent);
            }
        };
        let about = self.asks.add(number, merge);
        self.conclude(engine, number, about);
    }

    /// Sends this shard's part of an answer.
    pub(crate) fn reply(&mut self, engine: &mut Engine, to: ReplyTo, reply: Reply) {
        match to {
            ReplyTo::Shard { shard, number } if shard == engine.id => {
                self.replied(engine, number, reply)
            }
            ReplyTo::Shard { shard, number } => engine.post(shard, Mail::Replied { number, reply }),
            ReplyTo::Mesh { number } => engine.reply_to_mesh(number, reply),
        }
    }

    /// One shard's part of an answer to a question of this shard.
    pub(crate) fn replied(&mut self, engine: &mut Engine, number: u64, reply: Reply) {
        match reply {
            Reply::Answer(part, next) if self.asks.making.is_at(number) => {
                self.piece_found(engine, part, next);
            }
            Reply::Answer(part, next) => self.answered(engine, number, part, next.is_none()),
            Reply::Outcome(_) => debug_assert!(false, "nothing was told"),
            Reply::Elsewhere(parts, lent) => self.found_elsewhere(engine, number, parts, lent),
        }
    }

    /// One shard's part of an answer.
    fn answered(&mut self, engine: &mut Engine, number: u64, part: Answer, is_all: bool) {
        let weight_max = self.asks.making.piece;
        let merge = |about: &mut About| {
            if let About::Query(question) = about {
                question.add(part, is_all, weight_max);
            }
        };
        let about = self.asks.add(number, merge);
        self.conclude(engine, number, about);
    }

    /// All parts of an answer are in, if there is something to conclude.
    fn conclude(&mut self, engine: &mut Engine, number: u64, about: Option<About>) {
        let question = match about {
            Some(About::Query(question)) => question,
            Some(About::Known(frame)) => return self.answer_question(engine, number, frame),
            _ => return,
        };
        let elsewhere = question.wide.as_ref().map_or(0, Elsewhere::weight);
        if question.large || elsewhere > self.asks.making.piece {
            return self.make(engine, number, question);
        }
        let Question { query, shape, answer, wide, .. } = *question;
        let is_wide = wide.is_some();
        let next = match wide {
            None => commands::answer(shape, answer.finish(&query), &engine.uniq_ids),
            Some(Elsewhere { asked, found, .. }) => {
                let mut whole = answer.map(|conn| UniqId::of(conn, &engine.uniq_ids));
                for (ids, part) in found {
                    whole.merge(part.map(|conn| UniqId::of(conn, &ids)));
                }
                // Of a node that has found little in several turns something may be here twice.
                commands::answer(shape, whole.joined().finish_as(&asked), &())
            }
        };
        match next {
            Next::Done(frame) => self.answer_question(engine, number, frame),
            Next::Ask(query, shape) if is_wide => {
                let query = query.distinct();
                let abroad = query.clone().split(MESH_QUERY_BYTES).into_iter();
                let abroad = abroad.map(|query| (None, query)).collect();
                self.ask_nodes(engine, number, Arc::new(query), shape, Vec::new(), abroad);
            }
            Next::Ask(query, shape) => {
                self.ask_all(engine, number, Arc::new(query.distinct()), shape)
            }
        }
    }

    /// Answers a question when every shard has handled the mail that was posted before it.
    pub(crate) fn answer_when_known(&mut self, engine: &mut Engine, number: u64, answer: Bytes) {
        self.asks.begin(number, About::Known(answer));
        self.ask_shards(engine, number, &Arc::new(Query::Online(Vec::new())));
    }

    /// A backend connection asks for the metric items.
    pub(crate) fn ask_rates(&mut self, engine: &mut Engine, slot: u32) {
        let number = self.question(engine, slot);
        self.asks.begin(number, About::Rates(Box::default()));
        for shard in engine.others() {
            engine.post(shard, Mail::Netsvr(Letter::AskRates { from: engine.id, number }));
        }
        let rates = self.rates(engine);
        self.rates_answered(engine, number, &rates);
    }

    fn rates(&mut self, engine: &mut Engine) -> Rates {
        engine.meters.rates(engine.now.ms, &engine.counters.items())
    }

    /// Another shard asks what this one has counted.
    pub(crate) fn answer_rates(&mut self, engine: &mut Engine, from: u8, number: u64) {
        let rates = Box::new(self.rates(engine));
        engine.post(from, Mail::Netsvr(Letter::Rates { number, rates }));
    }

    /// One shard's part of the metric items.
    pub(crate) fn rates_answered(&mut self, engine: &mut Engine, number: u64, part: &Rates) {
        let merge = |about: &mut About| {
            if let About::Rates(rates) = about {
                rates.merge(part);
            }
        };
        let Some(About::Rates(rates)) = self.asks.add(number, merge) else { return };
        let items = self.config.metrics_items.iter().filter_map(|&item| {
            let rate = rates.item(item)?;
            Some(MetricItem {
                item: item as i32,
                count: rate.count as i64,
                mean_rate: rate.mean as f32,
                rate1: rate.rate1 as f32,
                rate5: rate.rate5 as f32,
                rate15: rate.rate15 as f32,
            })
        });
        let frame = wire::metrics_resp(&items.collect::<Vec<_>>());
        self.answer_question(engine, number, frame);
    }

    /// Sets the process-wide limiters and answers with what is in force (section 6.8, W15).
    pub(crate) fn limit(&mut self, engine: &mut Engine, slot: u32, on_open: i32, on_message: i32) {
        let shared = &engine.shared;
        let wanted = [(&shared.open_limiter, on_open), (&shared.message_limiter, on_message)];
        for (limiter, rate) in wanted {
            if rate > 0 {
                limiter.set_rate(rate as u32);
            }
        }
        let [on_open, on_message] = wanted.map(|(limiter, _)| limiter.rate() as i32);
        let answer: Bytes = wire::limit_resp(on_open, on_message);
        self.answer_now(engine, slot, answer);
    }
}
