//! Questions about connections, users and topics that other nodes answer, each in pieces.
//!
//! Invariants: every question is answered exactly once, with what those nodes have found that
//! answered in time and completely; a node of which a piece is missing has not answered. A question
//! of another node is asked here when the messages for buckets have been handled that were there
//! one turn after it came, so that it sees what earlier ones have done.
//! What other nodes have found is charged for what it takes; when all of it is more than
//! [`MESH_FOUND_BYTES_MAX`], nodes count as not answering.
//! Costs: one entry in a hash table per question; answers take room as everything that waits for
//! the link does.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use prost::Message;

use super::Mesh;
use super::asks::Asker;
use super::codec::Lane;
use super::finds;
use crate::hub::mesh::{Lent, Room};
use crate::hub::queries::{Answer, Query};
use crate::limits::{MESH_FOUND_BYTES_MAX, MESH_QUERY_BYTES, MESH_REQUEST_TIME, MESH_REQUESTS_MAX};
use crate::lists::letters::{Mail, Reply};
use crate::log::target;
use crate::spare::Look;
use crate::wire::mesh::{self as wire, Body, Envelope, MeshError, proto};

/// What a connection, user, topic or member that another node has found is charged beside the bytes
/// of its message: a name of its own, and its places in the lists of a question and of its answer.
const FOUND_CHARGE_BYTES: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Questions {
    open: HashMap<u64, Question>,
    deadlines: VecDeque<(Instant, u64)>,
    /// Of other nodes, that have to wait.
    arrived: VecDeque<Arrived>,
    /// Messages for buckets that were handled.
    handled: u64,
    /// For what other nodes have found.
    room: Room,
}

/// A question of another node.
#[derive(Debug)]
struct Arrived {
    node: u16,
    number: u64,
    query: Query,
    /// It is asked when so many messages for buckets have been handled; `None`: that is not known
    /// yet.
    after: Option<u64>,
}

#[derive(Debug)]
struct Question {
    asker: Asker,
    query: Arc<Query>,
    /// Nodes that have not answered, each with the number of its next piece.
    missing: Vec<(u16, u32)>,
    found: Vec<(u16, Answer)>,
    lent: Lent,
    /// Nodes that have found more than there was room for.
    given_up: Vec<u16>,
}

/// A question that is over, and who has not answered it.
struct Over {
    asker: Asker,
    found: Vec<(u16, Answer)>,
    lent: Lent,
    missing: Vec<u16>,
}

impl Questions {
    /// When the next question is over at the latest.
    pub fn due(&self) -> Option<Instant> {
        self.deadlines.front().map(|(due, _)| *due)
    }

    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.open);
        look.at(&mut self.deadlines);
        look.at(&mut self.arrived);
    }

    /// Whether questions of other nodes wait.
    pub fn wait(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// A turn is over since they came; so many messages for buckets are there.
    pub fn await_messages(&mut self, count: usize) {
        let after = self.handled.saturating_add(count as u64);
        for arrived in &mut self.arrived {
            arrived.after.get_or_insert(after);
        }
    }

    /// A message for a bucket was handled.
    pub fn count_message(&mut self) {
        self.handled += 1;
    }

    /// The next question of another node whose time has come.
    fn ripe(&mut self) -> Option<Arrived> {
        let first = self.arrived.front()?;
        let ripe = first.after.is_some_and(|after| after <= self.handled);
        if ripe { self.arrived.pop_front() } else { None }
    }

    /// Takes a piece of an answer; gives the question if that was the last one.
    fn piece(&mut self, number: u64, node: u16, piece: proto::Piece) -> Option<Over> {
        let question = self.open.get_mut(&number)?;
        let at = question.missing.iter().position(|(missing, _)| *missing == node)?;
        let next = &mut question.missing[at].1;
        if *next != piece.number {
            // One is lost: the question waits for its end.
            return None;
        }
        *next += 1;
        let (last, bytes) = (piece.last, piece.encoded_len());
        let found = finds::found(&question.query, piece.found.unwrap_or_default());
        let charge = bytes + found.weight() * FOUND_CHARGE_BYTES;
        let fits = question.lent.take(charge, MESH_FOUND_BYTES_MAX);
        match fits {
            true => question.found.push((node, found)),
            false => question.given_up.push(node),
        }
        if last || !fits {
            question.missing.swap_remove(at);
        }
        if question.missing.is_empty() { self.close(number) } else { None }
    }

    /// The next question whose time is over.
    fn expired(&mut self, now: Instant) -> Option<Over> {
        while let Some((due, number)) = self.deadlines.front().copied() {
            if due > now && self.open.contains_key(&number) {
                return None;
            }
            self.deadlines.pop_front();
            if let Some(over) = self.close(number) {
                return Some(over);
            }
        }
        None
    }

    fn close(&mut self, number: u64) -> Option<Over> {
        let Question { asker, missing, mut found, lent, given_up, .. } =
            self.open.remove(&number)?;
        let missing: Vec<u16> = missing.into_iter().map(|(node, _)| node).chain(given_up).collect();
        found.retain(|(node, _)| !missing.contains(node));
        Some(Over { asker, found, lent, missing })
    }
}

impl Mesh {
    /// A shard asks another node, or all of them. What is for one node goes the same way as
    /// commands for its connections, behind those that came before.
    pub(super) fn question(&mut self, to: Option<u16>, query: Arc<Query>, asker: Asker) {
        let nodes = self.members.expected(to.map_or(Lane::All, Lane::Node));
        let nodes = self.who_answers(&nodes);
        let body = finds::encode_query(&query);
        let number = self.asks.number();
        let reachable = self.link.is_up() && self.rival.is_none();
        let full = self.questions.open.len() >= MESH_REQUESTS_MAX;
        self.meters.asked.increment(1);
        let (found, lent) = (Vec::new(), self.questions.room.lend());
        if nodes.is_empty() || !reachable || full {
            return self.conclude(Over { asker, found, lent, missing: nodes });
        }
        let missing = nodes.iter().map(|node| (*node, 0)).collect();
        let given_up = Vec::new();
        let question = Question { asker, query, missing, found, lent, given_up };
        self.questions.open.insert(number, question);
        self.questions.deadlines.push_back((Instant::now() + MESH_REQUEST_TIME, number));
        for node in nodes {
            let envelope = self.envelope(number, Body::Query(body.clone()));
            let bytes = wire::encode(&envelope);
            if bytes.len() > self.link.payload_max() {
                // Nobody answers it.
                self.meters.dropped_large.increment(1);
                continue;
            }
            self.link.publish(self.subjects.node(node), bytes, 0);
        }
    }

    /// Ends the questions whose time is over.
    pub(super) fn expire_questions(&mut self, now: Instant) {
        while let Some(over) = self.questions.expired(now) {
            self.conclude(over);
        }
    }

    fn conclude(&mut self, over: Over) {
        let Over { asker, found, lent, missing } = over;
        if !missing.is_empty() {
            self.meters.unanswered.increment(1);
            if let Some(unsaid) = self.complain() {
                tracing::warn!(
                    target: target::MESH,
                    nodes = ?missing,
                    unsaid,
                    "nodes of the mesh did not answer a query; the answer is without theirs"
                );
            }
        }
        let reply = Reply::Elsewhere(found, lent);
        self.shards.post(asker.shard.into(), Mail::Replied { number: asker.number, reply }, 0);
    }

    /// A piece of an answer.
    pub(super) fn piece(&mut self, envelope: &Envelope, piece: proto::Piece) {
        let over = self.questions.piece(envelope.number, envelope.node as u16, piece);
        if let Some(over) = over {
            self.conclude(over);
        }
    }

    /// A question of another node: it waits for its time. One that there is no room for is not
    /// answered.
    pub(super) fn asked(
        &mut self,
        envelope: &Envelope,
        lane: Lane,
        query: proto::Query,
    ) -> Result<(), MeshError> {
        if self.members.knows(envelope) && !self.members.takes(envelope, lane) {
            self.meters.dropped_repeated.increment(1);
            return Ok(());
        }
        let full = self.questions.arrived.len() >= MESH_REQUESTS_MAX;
        if full || self.shards.is_full() {
            self.meters.dropped_full.increment(1);
            return Ok(());
        }
        let query = finds::decode_query(query)?;
        let (node, number) = (envelope.node as u16, envelope.number);
        self.questions.arrived.push_back(Arrived { node, number, query, after: None });
        Ok(())
    }

    /// Asks the shards what other nodes want to know, as far as the time has come.
    pub(super) fn ask_shards(&mut self) {
        while let Some(Arrived { node, number, query, .. }) = self.questions.ripe() {
            self.shards.ask(query, node, number);
        }
    }

    /// A shard has found its part of what another node wants to know, or, with `more`, some of it.
    pub(super) fn found(&mut self, served: u64, part: Answer, more: bool) {
        let pieces = finds::pieces(part, MESH_QUERY_BYTES);
        let count = pieces.len();
        let Some(place) = self.shards.answered(served, count, more) else { return };
        if !self.link.is_up() {
            return self.meters.dropped_down.increment(1);
        }
        for (at, found) in (0..).zip(pieces) {
            let last = place.last && at + 1 == count as u32;
            let piece =
                proto::Piece { number: place.first.wrapping_add(at), last, found: Some(found) };
            let bytes = wire::encode(&self.envelope(place.number, Body::Piece(piece)));
            let room = bytes.len();
            if room > self.link.payload_max() {
                return self.meters.dropped_large.increment(1);
            }
            if !self.settings.interest.reserve(room) {
                return self.meters.dropped_full.increment(1);
            }
            self.link.publish(self.subjects.reply(place.node), bytes, room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::ConnId;

    const ASKER: Asker = Asker { shard: 1, number: 9 };

    fn open(questions: &mut Questions, number: u64, nodes: &[u16], due: Instant) {
        let missing = nodes.iter().map(|node| (*node, 0)).collect();
        let query = Arc::new(Query::Conns);
        let (found, lent, given_up) = (Vec::new(), questions.room.lend(), Vec::new());
        let question = Question { asker: ASKER, query, missing, found, lent, given_up };
        questions.open.insert(number, question);
        questions.deadlines.push_back((due, number));
    }

    fn piece(number: u32, last: bool) -> proto::Piece {
        let found = proto::Found { conns: vec![number.into()], ..Default::default() };
        proto::Piece { number, last, found: Some(found) }
    }

    fn conn(number: u32) -> Answer {
        Answer::Conns(vec![ConnId::from_parts(0, number)])
    }

    #[test]
    fn a_question_is_over_with_the_last_piece_of_the_last_node() {
        let (mut questions, now) = (Questions::default(), Instant::now());
        open(&mut questions, 5, &[2, 3], now + MESH_REQUEST_TIME);
        assert!(questions.piece(6, 2, piece(0, true)).is_none(), "no such question");
        assert!(questions.piece(5, 4, piece(0, true)).is_none(), "not asked");
        assert!(questions.piece(5, 2, piece(0, false)).is_none());
        assert!(questions.piece(5, 3, piece(0, true)).is_none());
        assert!(questions.piece(5, 2, piece(0, false)).is_none(), "twice");
        let over = questions.piece(5, 2, piece(1, true)).expect("all pieces are there");
        assert!(over.missing.is_empty() && over.asker == ASKER);
        assert_eq!(over.found, [(2, conn(0)), (3, conn(0)), (2, conn(1))]);
        assert!(questions.expired(now).is_none() && questions.due().is_none());
    }

    #[test]
    fn a_node_of_which_a_piece_is_lost_has_not_answered() {
        let (mut questions, now) = (Questions::default(), Instant::now());
        open(&mut questions, 5, &[2, 3], now + MESH_REQUEST_TIME);
        assert!(questions.piece(5, 2, piece(0, false)).is_none());
        assert!(questions.piece(5, 2, piece(2, true)).is_none(), "one is missing");
        assert!(questions.piece(5, 3, piece(0, true)).is_none());
        assert!(questions.expired(now).is_none());
        let over = questions.expired(now + MESH_REQUEST_TIME).expect("its time is over");
        assert_eq!((over.missing, over.found), (vec![2], vec![(3, conn(0))]));
        assert!(questions.open.is_empty() && questions.due().is_none());
    }

    #[test]
    fn a_node_that_finds_more_than_there_is_room_for_has_not_answered() {
        let (mut questions, now) = (Questions::default(), Instant::now());
        let mut others = questions.room.lend();
        assert!(others.take(MESH_FOUND_BYTES_MAX, MESH_FOUND_BYTES_MAX));
        open(&mut questions, 5, &[2, 3], now + MESH_REQUEST_TIME);
        assert!(questions.piece(5, 2, piece(0, false)).is_none());
        let over = questions.piece(5, 3, piece(0, false)).expect("nobody is waited for");
        assert_eq!((over.missing, over.found), (vec![2, 3], Vec::new()));
        drop(others);
        open(&mut questions, 6, &[2], now + MESH_REQUEST_TIME);
        let over = questions.piece(6, 2, piece(0, true)).expect("there is room again");
        assert_eq!((over.missing, over.found), (vec![], vec![(2, conn(0))]));
        assert!(questions.room.used() > FOUND_CHARGE_BYTES);
        drop(over.lent);
        assert_eq!(questions.room.used(), 0);
    }

    #[test]
    fn a_question_waits_for_the_messages_that_were_there_before_it() {
        let mut questions = Questions::default();
        let arrived = |number| Arrived { node: 2, number, query: Query::Conns, after: None };
        questions.count_message();
        questions.arrived.push_back(arrived(5));
        assert!(questions.ripe().is_none(), "no turn is over yet");
        questions.await_messages(2);
        questions.arrived.push_back(arrived(6));
        questions.await_messages(0);
        questions.count_message();
        assert!(questions.ripe().is_none() && questions.wait());
        questions.count_message();
        let order = [questions.ripe(), questions.ripe()].map(|ripe| ripe.map(|ripe| ripe.number));
        assert_eq!((order, questions.wait()), ([Some(5), Some(6)], false));
    }
}
