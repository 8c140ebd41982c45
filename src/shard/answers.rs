//! Answers that take several turns: what this shard finds for questions, piece by piece, and large
//! answers, put together and written one at a time.
//!
//! In a turn a shard spends about [`ANSWER_PIECE`] on all of that, and the one large answer in the
//! making has half of it to itself. A small answer is exact: it shows what all earlier commands of
//! its connection have done and none of the later ones. A large one shows everything that is there
//! all the time exactly once; what comes and goes while it is made, it shows or not.
//! Invariants: a large answer is made when all earlier questions of its connection are answered;
//! none is begun while [`ANSWERS_BYTES_MAX`] wait to be written, or too much for its connection; of
//! a connection that is gone nothing more is asked, and what was found is given up in pieces.
//! So a shard holds for answers the bytes that wait, one large answer, and what small ones take.
//! Costs: a turn per piece. Measured with 1,000,000 topics of one connection, a release build and a
//! busy machine of two cores: 1,600 turns and 160 ms of CPU per TopicList, 0.1 ms a turn.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::control::worker::{self, Response};
use crate::hub::ConnId;
use crate::hub::heaps::Heaps;
use crate::hub::queries::{Answer, Query};
use crate::hub::walk::{Cursor, Room};
use crate::limits::{ANSWER_PIECE, ANSWERS_BYTES_MAX};
use crate::shard::Shard;
use crate::shard::conns::Role;
use crate::shard::mailbox::{Mail, Reply, ReplyTo};
use crate::shard::queries::{Asks, Question};
use crate::spare::Look;
use crate::wire::netsvr::{UniqId, UniqIds};

/// What a question may find at once in any turn, however many there are.
const FIRST_PIECE: usize = 64;

/// What a shard does for answers, turn by turn.
#[derive(Debug)]
pub(super) struct Making {
    seed: u64,
    /// What may be done in a turn: [`ANSWER_PIECE`], but for simulations.
    pub piece: usize,
    /// What may still be done in this turn.
    room: Room,
    /// What other nodes asked and is not found to the end.
    pieces: VecDeque<(Arc<Query>, Cursor, ReplyTo)>,
    /// Questions with large answers.
    waiting: VecDeque<(u64, Box<Question>)>,
    /// Nobody among them may begin until something is written or gone.
    stuck: bool,
    now: Option<Box<Large>>,
    /// Bytes of answers that wait to be written to all connections.
    bytes: usize,
}

/// The large answer in the making.
#[derive(Debug)]
struct Large {
    number: u64,
    question: Box<Question>,
    found: Found,
    /// The shard that is asked, from where on, and whether its piece is on its way.
    shard: usize,
    from: Cursor,
    asked: bool,
    /// `None`: the answer is of no use in parts.
    response: Option<Response>,
}

/// What was found, with names for connections that are good here or everywhere.
#[derive(Debug)]
enum Found {
    Here(Heaps<ConnId>),
    Everywhere(Heaps<UniqId>),
}

impl Found {
    fn add(&mut self, shard: usize, part: Answer, ids: &UniqIds) {
        match self {
            Found::Here(heaps) => heaps.add(shard, part),
            Found::Everywhere(heaps) => {
                heaps.add(shard, part.map(|conn| UniqId::of(conn, ids)));
            }
        }
    }

    fn drop_one(&mut self) -> bool {
        match self {
            Found::Here(heaps) => heaps.drop_one(),
            Found::Everywhere(heaps) => heaps.drop_one(),
        }
    }
}

impl Making {
    /// Nothing is asked.
    pub fn new(seed: u64) -> Making {
        Making {
            seed,
            piece: ANSWER_PIECE,
            room: Room::default(),
            pieces: VecDeque::new(),
            waiting: VecDeque::new(),
            stuck: false,
            now: None,
            bytes: 0,
        }
    }

    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.pieces);
        look.at(&mut self.waiting);
    }

    /// Something is answered, written or gone: another answer may have its turn.
    pub fn go_on(&mut self) {
        self.stuck = false;
    }

    /// Whether this question has the large answer in the making.
    pub fn is_at(&self, number: u64) -> bool {
        self.now.as_ref().is_some_and(|now| now.number == number)
    }
}

impl Asks {
    /// Whether another turn brings an answer further.
    pub(super) fn is_busy(&self) -> bool {
        let making = &self.making;
        let large = match &making.now {
            Some(now) => !now.asked,
            None => !making.waiting.is_empty() && !making.stuck,
        };
        large || !making.pieces.is_empty()
    }

    /// So many bytes of answers are now to be written.
    pub(super) fn await_writing(&mut self, bytes: usize) {
        self.making.bytes += bytes;
    }

    /// So many are written, or will not be.
    pub(super) fn written(&mut self, bytes: usize) {
        self.making.bytes -= bytes;
        self.making.go_on();
    }

    /// For tests: panics if an invariant does not hold. `bytes` wait in all connections.
    pub(super) fn audit(&self, bytes: usize) {
        assert_eq!(self.making.bytes, bytes, "bytes of answers");
        let gone = |(number, _): &&(u64, _)| self.asker(*number).is_none();
        let gone = self.making.waiting.iter().filter(gone).count();
        assert_eq!(gone, 0, "questions of connections that are gone");
    }

    /// A connection is gone: what it asked is not answered any more.
    pub(super) fn give_up(&mut self) {
        let mut waiting = std::mem::take(&mut self.making.waiting);
        waiting.retain(|(number, _)| self.asker(*number).is_some());
        self.making.waiting = waiting;
    }
}

impl Shard {
    /// For simulations: what is found for answers in one turn, instead of [`ANSWER_PIECE`].
    pub(super) fn set_answer_piece(&mut self, things: usize) {
        self.asks.making.piece = things;
    }

    /// A turn begins: what could not be done in the one before goes on.
    pub(super) fn go_on_answering(&mut self) {
        self.asks.making.room = Room::things(self.asks.making.piece);
        if !self.asks.is_busy() {
            return;
        }
        let rest = self.asks.making.room.halve();
        self.make_large();
        self.asks.making.room.put_back(rest);
        while !self.asks.making.room.is_used_up()
            && let Some((query, from, reply)) = self.asks.making.pieces.pop_front()
        {
            self.find(query, from, reply);
        }
    }

    /// Finds a piece of an answer. Where that is all, the answer fits to the commands before and
    /// after the question, so a little of it is found in any turn.
    pub(super) fn find(&mut self, query: Arc<Query>, from: Cursor, reply: ReplyTo) {
        let making = &mut self.asks.making;
        making.room.raise_to(Room::things(FIRST_PIECE.min(making.piece)));
        let (part, next) = self.hub.walk(&query, from, &mut making.room);
        // Whoever is on another node can not ask for the rest.
        if let (Some(next), ReplyTo::Mesh { .. }) = (next, &reply) {
            making.pieces.push_back((query, next, reply.clone()));
        }
        self.reply(reply, Reply::Answer(part, next));
    }

    /// A question has a large answer: it is made in its turn, from the beginning.
    pub(super) fn make(&mut self, number: u64, question: Box<Question>) {
        if self.asks.asker(number).is_none() {
            return;
        }
        self.asks.making.waiting.push_back((number, question));
        self.asks.making.stuck = false;
    }

    /// The piece that was asked of another shard for the large answer.
    pub(super) fn piece_found(&mut self, part: Answer, next: Option<Cursor>) {
        let Some(now) = &mut self.asks.making.now else { return };
        now.asked = false;
        Self::add_piece(now, part, next, &self.uniq_ids, &mut self.asks.making.room);
        self.make_large();
    }

    fn add_piece(
        now: &mut Large,
        part: Answer,
        next: Option<Cursor>,
        ids: &UniqIds,
        room: &mut Room,
    ) {
        room.spend(part.weight());
        now.found.add(now.shard, part, ids);
        now.from = next.unwrap_or_default();
        now.shard += usize::from(next.is_none());
    }

    /// Goes on with large answers as long as there is room in this turn.
    fn make_large(&mut self) {
        while !self.asks.making.room.is_used_up() {
            if self.asks.making.now.is_none() && !self.begin_large() {
                return;
            }
            let Some(now) = self.asks.making.now.take() else { return };
            self.asks.making.now = match self.asks.asker(now.number) {
                Some(_) => self.step(now),
                None => self.drop_piece(now),
            };
            if self.asks.making.now.as_ref().is_some_and(|now| now.asked) {
                return;
            }
        }
    }

    /// Takes the next question whose answer may be made.
    fn begin_large(&mut self) -> bool {
        if self.asks.making.stuck || self.asks.making.bytes > ANSWERS_BYTES_MAX {
            self.asks.making.stuck = true;
            return false;
        }
        let may_begin = |(number, _): &(u64, Box<Question>)| {
            let slot = self.asks.asker(*number).and_then(|conn| self.conns.slot(conn));
            slot.is_some_and(|slot| match &self.conns[slot].role {
                Role::Business(business) => business.has_room_for(*number),
                _ => false,
            })
        };
        let at = self.asks.making.waiting.iter().position(may_begin);
        let Some((number, question)) = at.and_then(|at| self.asks.making.waiting.remove(at)) else {
            self.asks.making.stuck = true;
            return false;
        };
        let seed = self.asks.making.seed;
        let found = match question.wide {
            None => Found::Here(Heaps::new(&question.query, seed)),
            Some(_) => Found::Everywhere(Heaps::new(&question.query, seed)),
        };
        let response = Response::new(&question.shape);
        let from = Cursor::default();
        let large = Large { number, question, found, shard: 0, from, asked: false, response };
        self.asks.making.now = Some(Box::new(large));
        true
    }

    /// One step: another piece is found, or another heap is written.
    fn step(&mut self, mut now: Box<Large>) -> Option<Box<Large>> {
        if now.shard >= self.asks.shards {
            if let Found::Everywhere(heaps) = &mut now.found
                && let Some(wide) = &mut now.question.wide
                && let Some(part) = wide.found.pop()
            {
                self.asks.making.room.spend(part.weight());
                heaps.add(now.shard, part);
                return Some(now);
            }
            return self.write_piece(now);
        }
        let query = now.question.query.clone();
        if now.shard == usize::from(self.id) {
            let room = &mut self.asks.making.room;
            let (part, next) = self.hub.walk(&query, now.from, room);
            Self::add_piece(&mut now, part, next, &self.uniq_ids, room);
        } else if !now.asked {
            let reply = ReplyTo::Shard { shard: self.id, number: now.number };
            self.post(now.shard as u8, Mail::Ask { query, from: now.from, reply });
            now.asked = true;
        }
        Some(now)
    }

    /// Everything is found: another heap of it is written.
    fn write_piece(&mut self, mut now: Box<Large>) -> Option<Box<Large>> {
        if now.response.is_none() {
            self.write_whole(*now);
            return None;
        }
        let response = now.response.as_mut()?;
        let (shards, room) = (self.asks.shards, &mut self.asks.making.room);
        let more = match &mut now.found {
            Found::Here(heaps) => heaps.take(shards).map(|part| {
                room.spend(1 + part.weight());
                response.add(part.finish(&now.question.query), &self.uniq_ids);
            }),
            Found::Everywhere(heaps) => heaps.take(shards).map(|part| {
                room.spend(1 + part.weight());
                response.add(part.finish_as(asked(&now.question)), &());
            }),
        };
        if more.is_some() {
            return Some(now);
        }
        let answer = now.response.take().map(Response::finish).unwrap_or_default();
        self.answer_in_pieces(now.number, answer);
        None
    }

    /// The answer leads to its response, or to another round, only as a whole.
    fn write_whole(&mut self, now: Large) {
        let Large { number, question, found, .. } = now;
        let shards = self.asks.shards;
        let (next, is_wide) = match found {
            Found::Here(mut heaps) => {
                let whole = whole(&question, std::iter::from_fn(|| heaps.take(shards)));
                let whole = whole.finish(&question.query);
                (worker::answer(question.shape.clone(), whole, &self.uniq_ids), false)
            }
            Found::Everywhere(mut heaps) => {
                let whole = whole(&question, std::iter::from_fn(|| heaps.take(shards)));
                let whole = whole.finish_as(asked(&question));
                (worker::answer(question.shape.clone(), whole, &()), true)
            }
        };
        self.answer_or_ask(number, next, is_wide);
    }

    /// Nobody wants the answer any more: what was found goes, heap by heap.
    fn drop_piece(&mut self, mut now: Box<Large>) -> Option<Box<Large>> {
        self.asks.making.room.spend(self.asks.making.piece / 4);
        now.asked = false;
        now.found.drop_one().then_some(now)
    }
}

/// The order in which `CheckOnline` named the connections of all nodes.
fn asked(question: &Question) -> &[UniqId] {
    question.wide.as_ref().map_or(&[], |wide| &wide.asked)
}

fn whole<C: Copy + Ord>(question: &Question, heaps: impl Iterator<Item = Answer<C>>) -> Answer<C> {
    let mut whole = Answer::empty(&question.query);
    heaps.for_each(|heap| whole.merge(heap));
    whole
}
