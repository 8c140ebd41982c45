//! Answers that take several turns: what this shard finds for questions, piece by piece, and large
//! answers, one at a time: found in pieces, put together on another thread, then written.
//!
//! In a turn a shard spends about [`ANSWER_PIECE`] on all of that, and the one large answer in the
//! making has half of it to itself. A small answer is exact: it shows what all earlier commands of
//! its connection have done and none of the later ones. A large one shows everything that is there
//! all the time exactly once; what comes and goes while it is made, it shows or not.
//! Invariants: a large answer is made when all earlier questions of its connection are answered;
//! none is begun while [`ANSWERS_BYTES_MAX`] wait to be written, or too much for its connection; of
//! a connection that is gone nothing more is asked, and what was found is given up in pieces.
//! So a shard holds for answers the bytes that wait, one large answer, and what small ones take.
//! Costs: a turn per piece, two messages between threads per large answer.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::engine::Engine;
use crate::engine::flight::Flight;
use crate::hub::queries::{Answer, Query};
use crate::hub::walk::{Cursor, Room};
use crate::lists::letters::{Mail, Reply, ReplyTo};
use crate::lists::numbers::kind;
use crate::protocols::netsvr::large::{Job, Made};
use crate::protocols::netsvr::letters::ServiceRequest;
use crate::protocols::netsvr::limits::{ANSWER_PIECE, ANSWERS_BYTES_MAX, LARGE_ANSWERS_MAX};
use crate::protocols::netsvr::queries::{Asks, Question};
use crate::spare::Look;

/// What a question may find at once in any turn, however many there are.
const FIRST_PIECE: usize = 64;

/// What a shard does for answers, turn by turn.
#[derive(Debug)]
pub(crate) struct Making {
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
    stuck: Option<u64>,
    now: Option<Box<Large>>,
    /// What is to be put together, on its way to who does that.
    out: Option<Box<Job>>,
    /// Nobody wants it any more.
    litter: Vec<Answer>,
}

// `Making::now` is that one.
const _: () = assert!(LARGE_ANSWERS_MAX == 1);

/// The large answer in the making.
#[derive(Debug)]
struct Large {
    number: u64,
    /// `None`: all is found, and the answer is being put together.
    question: Option<Box<Question>>,
    /// What was found, with the shard that has found it.
    found: Vec<(usize, Answer)>,
    /// The shard that is asked, from where on, and whether its piece is on its way.
    shard: usize,
    from: Cursor,
    asked: bool,
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
            stuck: None,
            now: None,
            out: None,
            litter: Vec::new(),
        }
    }

    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.pieces);
        look.at(&mut self.waiting);
    }

    /// Something is answered, written or gone: another answer may have its turn.
    pub fn go_on(&mut self) {
        self.stuck = None;
    }

    /// Whether this question has the large answer in the making.
    pub fn is_at(&self, number: u64) -> bool {
        self.now.as_ref().is_some_and(|now| now.number == number && now.asked)
    }

    /// Nobody wants the answer any more: what was found goes, piece by piece.
    pub fn discard(&mut self, question: Question) {
        if let Some(elsewhere) = question.wide {
            self.litter.extend(elsewhere.found.into_iter().map(|(_, part)| part));
        }
    }

    /// What is to be put together next.
    pub fn next_request(&mut self) -> Option<ServiceRequest> {
        self.out.take().map(ServiceRequest::Make)
    }
}

impl Asks {
    /// Whether another turn brings an answer further; `written` is [`Engine::answers_written`].
    pub(crate) fn is_busy(&self, written: u64) -> bool {
        let making = &self.making;
        let large = match &making.now {
            Some(now) => now.goes_on(),
            None => !making.waiting.is_empty() && making.stuck != Some(written),
        };
        large || !making.pieces.is_empty() || !making.litter.is_empty()
    }

    /// For tests: panics if an invariant does not hold.
    pub(crate) fn audit(&self) {
        let gone = |(number, _): &&(u64, _)| self.asker(*number).is_none();
        let gone = self.making.waiting.iter().filter(gone).count();
        assert_eq!(gone, 0, "questions of connections that are gone");
    }

    /// A connection is gone: what it asked is not answered any more.
    pub(crate) fn give_up(&mut self) {
        for (number, question) in std::mem::take(&mut self.making.waiting) {
            match self.asker(number) {
                Some(_) => self.making.waiting.push_back((number, question)),
                None => self.making.discard(*question),
            }
        }
    }
}

impl super::Netsvr {
    /// For simulations: what is found for answers in one turn, instead of [`ANSWER_PIECE`].
    pub(crate) fn set_answer_piece(&mut self, things: usize) {
        self.asks.making.piece = things;
    }

    /// A turn begins: what could not be done in the one before goes on.
    pub(crate) fn go_on_answering(&mut self, engine: &mut Engine) {
        self.asks.making.room = Room::things(self.asks.making.piece);
        if !self.asks.is_busy(engine.answers_written) {
            return;
        }
        let rest = self.asks.making.room.halve();
        self.make_large(engine);
        self.asks.making.room.put_back(rest);
        let Making { room, litter, .. } = &mut self.asks.making;
        while !room.is_used_up()
            && let Some(part) = litter.pop()
        {
            room.spend(1 + part.weight() / 4);
        }
        while !self.asks.making.room.is_used_up()
            && let Some((query, from, reply)) = self.asks.making.pieces.pop_front()
        {
            self.find(engine, query, from, reply);
        }
    }

    /// Finds a piece of an answer. Where that is all, the answer fits to the commands before and
    /// after the question, so a little of it is found in any turn.
    pub(crate) fn find(
        &mut self,
        engine: &mut Engine,
        query: Arc<Query>,
        from: Cursor,
        reply: ReplyTo,
    ) {
        let making = &mut self.asks.making;
        making.room.raise_to(Room::things(FIRST_PIECE.min(making.piece)));
        let (part, next) = engine.hub.walk(&query, from, &mut making.room);
        // Whoever is on another node can not ask for the rest.
        if let (Some(next), ReplyTo::Mesh { .. }) = (next, &reply) {
            making.pieces.push_back((query, next, reply.clone()));
        }
        self.reply(engine, reply, Reply::Answer(part, next));
    }

    /// A question has a large answer: it is made in its turn, from the beginning.
    pub(crate) fn make(&mut self, _engine: &mut Engine, number: u64, question: Box<Question>) {
        if self.asks.asker(number).is_none() {
            return;
        }
        self.asks.making.waiting.push_back((number, question));
        self.asks.making.stuck = None;
    }

    /// The piece that was asked of another shard for the large answer.
    pub(crate) fn piece_found(&mut self, engine: &mut Engine, part: Answer, next: Option<Cursor>) {
        let making = &mut self.asks.making;
        let Some(now) = &mut making.now else { return };
        now.asked = false;
        making.room.spend(1);
        now.add(part, next);
        self.make_large(engine);
    }

    /// Goes on with large answers as long as there is room in this turn.
    fn make_large(&mut self, engine: &mut Engine) {
        while !self.asks.making.room.is_used_up() {
            if self.asks.making.now.is_none() && !self.begin_large(engine) {
                return;
            }
            let Some(mut now) = self.asks.making.now.take_if(|now| now.goes_on()) else {
                return;
            };
            let Some(question) = now.question.take() else { return };
            if self.asks.asker(now.number).is_none() {
                let found = now.found.into_iter().map(|(_, part)| part);
                self.asks.making.litter.extend(found);
                self.asks.making.discard(*question);
                continue;
            }
            self.step(engine, &mut now, question);
            self.asks.making.now = Some(now);
        }
    }

    /// Takes the next question whose answer may be made.
    fn begin_large(&mut self, engine: &mut Engine) -> bool {
        let written = Some(engine.answers_written);
        let making = &mut self.asks.making;
        if making.stuck == written || engine.answer_bytes > ANSWERS_BYTES_MAX {
            making.stuck = written;
            return false;
        }
        let may_begin = |(number, _): &(u64, Box<Question>)| {
            let slot = self.asks.asker(*number).and_then(|conn| engine.conns.slot(conn));
            slot.is_some_and(|slot| {
                let business = self.backends.of(engine.index(slot, kind::BUSINESS));
                let extra = engine.conns[slot].extra.as_ref();
                let flight = extra.and_then(|extra| extra.flight.as_deref());
                let own_bytes = flight.map_or(0, Flight::own_bytes);
                business.is_some_and(|business| business.has_room_for(*number, own_bytes))
            })
        };
        let at = self.asks.making.waiting.iter().position(may_begin);
        let Some((number, question)) = at.and_then(|at| self.asks.making.waiting.remove(at)) else {
            self.asks.making.stuck = written;
            return false;
        };
        let (question, found, from) = (Some(question), Vec::new(), Cursor::default());
        let large = Large { number, question, found, shard: 0, from, asked: false };
        self.asks.making.now = Some(Box::new(large));
        true
    }

    /// One step: another piece is found, or all that was found is handed over.
    fn step(&mut self, engine: &mut Engine, now: &mut Large, question: Box<Question>) {
        let query = question.query.clone();
        if now.shard >= self.asks.shards {
            return self.hand_over_found(engine, now, *question);
        }
        if now.shard == usize::from(engine.id) {
            let (part, next) = engine.hub.walk(&query, now.from, &mut self.asks.making.room);
            now.add(part, next);
        } else {
            let reply = ReplyTo::Shard { shard: engine.id, number: now.number };
            engine.post(now.shard as u8, Mail::Ask { query, from: now.from, reply });
            now.asked = true;
        }
        now.question = Some(question);
    }

    fn hand_over_found(&mut self, engine: &mut Engine, now: &mut Large, question: Question) {
        let Question { query, shape, wide, .. } = question;
        self.asks.making.out = Some(Box::new(Job {
            shard: engine.id,
            number: now.number,
            query,
            shape,
            found: std::mem::take(&mut now.found),
            elsewhere: wide,
            ids: engine.uniq_ids,
            shards: self.asks.shards,
            seed: self.asks.making.seed,
        }));
    }

    /// A large answer is put together, or its next round is known.
    pub(crate) fn made(&mut self, engine: &mut Engine, number: u64, made: Made) {
        self.asks.making.now = None;
        self.asks.making.go_on();
        if self.asks.asker(number).is_none() {
            return;
        }
        match made {
            Made::Frame(pieces) => self.answer_in_pieces(engine, number, pieces),
            Made::Ask { query, shape, abroad: None } => self.ask_all(engine, number, query, shape),
            Made::Ask { query, shape, abroad: Some(abroad) } => {
                let abroad = abroad.into_iter().map(|query| (None, query)).collect();
                self.ask_nodes(engine, number, query, shape, Vec::new(), abroad);
            }
        }
    }
}

impl Large {
    /// Whether it waits for nobody.
    fn goes_on(&self) -> bool {
        !self.asked && self.question.is_some()
    }

    fn add(&mut self, part: Answer, next: Option<Cursor>) {
        self.found.push((self.shard, part));
        self.from = next.unwrap_or_default();
        self.shard += usize::from(next.is_none());
    }
}
