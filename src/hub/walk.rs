//! Walks over the tables of a shard in pieces: how a query is answered, and whatever else has to go
//! through all connections, users or topics without holding up a turn.
//!
//! A walk is a [`Cursor`]: an index in a table, or in the list that the query names, and how much
//! is left of the list that the row there has. Between two pieces members come and go. Indexes of
//! users and topics and slots of connections stay the same while these exist. The list of a row is
//! walked from its end: whoever leaves it gives their place to the last one, so that nobody who is
//! left to be found moves to where the walk has been. So whatever exists during the whole walk is
//! found; what comes or goes meanwhile is found or not. Something can be found twice: what moved
//! within its list, a topic or user that ended and began anew. Whoever puts the pieces together
//! keeps one ([`super::queries::Answer::once`]).
//! Costs: a place of a table costs 1 of the [`Room`], a thing that is there [`FOUND`], and so does
//! whatever its row lists, and a thing that is named and not there. A piece goes beyond its room by
//! one thing at the most.

use std::sync::Arc;

use crate::hub::queries::{Answer, ByName, Info, Query, Want};
use crate::hub::sessions::Member;
use crate::hub::{ConnId, Hub};

/// What a thing costs that is there: it is read from memory that the CPU has not at hand.
pub const FOUND: usize = 16;

/// Where a walk goes on. The default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    place: u32,
    /// What is left of the list that the row has; `None`: all of it.
    list: Option<u32>,
    /// The connection whose topics are gone through, by slot, and what is left of them.
    topics: Option<(u32, u32)>,
}

/// What may still be touched in this turn; see the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room(usize);

impl Room {
    /// Room for so many things.
    pub fn things(count: usize) -> Room {
        Room(count.saturating_mul(FOUND))
    }

    /// Whether nothing more may be touched.
    pub fn is_used_up(self) -> bool {
        self.0 == 0
    }

    /// Uses the room of so many things.
    pub fn spend(&mut self, things: usize) {
        self.0 = self.0.saturating_sub(things * FOUND);
    }

    /// Makes it at least as much.
    pub fn raise_to(&mut self, least: Room) {
        self.0 = self.0.max(least.0);
    }

    /// Gives a part of it away: half.
    pub fn halve(&mut self) -> Room {
        let half = self.0 / 2;
        self.0 -= half;
        Room(half)
    }

    /// Takes back what is left of it.
    pub fn put_back(&mut self, rest: Room) {
        self.0 += rest.0;
    }
}

/// One piece of a walk.
struct Piece<'a> {
    at: Cursor,
    end: u32,
    room: &'a mut Room,
}

impl Piece<'_> {
    /// The rows that the places have. A row that leaves something of its list is gone on with.
    fn rows<T>(&mut self, mut row: impl FnMut(u32, &mut Self) -> Option<T>) -> Vec<T> {
        let mut rows = Vec::new();
        while self.at.place < self.end && !self.room.is_used_up() {
            self.room.0 -= 1;
            match row(self.at.place, self) {
                Some(row) => {
                    self.room.spend(1);
                    rows.push(row);
                }
                None => self.at.list = None,
            }
            if self.at.list.is_none() {
                self.at = Cursor { place: self.at.place + 1, ..Cursor::default() };
            }
        }
        rows
    }

    /// Goes through what is left of the list of a row, from its end, while there is room. `entry`
    /// says whether it is done with the one of this index.
    fn list(&mut self, len: usize, mut entry: impl FnMut(usize, &mut Self) -> bool) {
        let mut left = self.at.list.map_or(len, |left| len.min(left as usize));
        while left > 0 {
            self.room.spend(1);
            if !entry(left - 1, self) {
                break;
            }
            left -= 1;
            if self.room.is_used_up() {
                break;
            }
        }
        self.at.list = (left > 0).then_some(left as u32);
    }

    /// Goes in the same way through the topics of a connection. Says whether none is left.
    fn topics(&mut self, slot: u32, len: usize, mut topic: impl FnMut(usize)) -> bool {
        let begun = self.at.topics.take().filter(|(of, _)| *of == slot);
        let mut left = begun.map_or(len, |(_, left)| len.min(left as usize));
        while left > 0 {
            self.room.spend(1);
            topic(left - 1);
            left -= 1;
            if self.room.is_used_up() {
                break;
            }
        }
        self.at.topics = (left > 0).then_some((slot, left as u32));
        left == 0
    }
}

impl Hub {
    /// Answers a query for the connections of this shard in one go.
    pub fn answer(&self, query: &Query) -> Answer {
        let query = query.clone().distinct();
        self.walk(&query, Cursor::default(), &mut Room(usize::MAX)).0
    }

    /// Answers from `from` on until the room is used up; also gives where the walk goes on, unless
    /// it is over. The query must be [`Query::distinct`].
    pub fn walk(&self, query: &Query, from: Cursor, room: &mut Room) -> (Answer, Option<Cursor>) {
        let end = self.places(query);
        let mut piece = Piece { at: from, end, room };
        let answer = self.piece(query, &mut piece);
        let next = (piece.at.place < piece.end).then_some(piece.at);
        (answer, next)
    }

    /// How many places a walk has.
    fn places(&self, query: &Query) -> u32 {
        match query {
            Query::Online(conns) | Query::ConnInfo { conns, .. } => conns.len() as u32,
            Query::Conns => self.members.end(),
            Query::ConnCount => 0,
            Query::Users => self.users.end(),
            Query::Topics | Query::TopicConnCount(None) | Query::TopicUsers(None) => {
                self.topics.end()
            }
            Query::TopicConnCount(Some(names))
            | Query::TopicUsers(Some(names))
            | Query::TopicConns(names)
            | Query::TopicUserConns(names)
            | Query::UserConns(names)
            | Query::UserInfo { users: names, .. } => names.len() as u32,
        }
    }

    fn piece(&self, query: &Query, piece: &mut Piece<'_>) -> Answer {
        match query {
            Query::Online(conns) => Answer::Online(piece.rows(|at, piece| {
                let conn = conns[at as usize];
                piece.looked_up(self.slot_of(conn)).map(|_| conn)
            })),
            Query::Conns => Answer::Conns(piece.rows(|slot, _| self.id_of(slot))),
            Query::ConnCount => Answer::ConnCount(self.len() as u64),
            Query::Users => {
                Answer::Users(piece.rows(|user, piece| Some(piece.name(self.users.get(user)?))))
            }
            Query::Topics => {
                Answer::Topics(piece.rows(|topic, piece| Some(piece.name(self.topics.get(topic)?))))
            }
            Query::TopicConns(names) => {
                Answer::TopicConns(self.per_topic(Some(names), piece, |topic, piece| {
                    self.subscribers(topic, piece, |member| Some(member.id))
                }))
            }
            Query::TopicConnCount(names) => {
                Answer::TopicConnCount(self.per_topic(names.as_deref(), piece, |topic, _| {
                    self.topics.subscribers(topic).len() as u64
                }))
            }
            Query::TopicUsers(names) => {
                Answer::TopicUsers(self.per_topic(names.as_deref(), piece, |topic, piece| {
                    self.topic_users(topic, piece)
                }))
            }
            Query::TopicUserConns(names) => {
                Answer::TopicUserConns(self.per_topic(Some(names), piece, |topic, piece| {
                    self.topic_user_conns(topic, piece)
                }))
            }
            Query::UserConns(names) => {
                Answer::UserConns(self.per_user(names, piece, |member, _| (member.id, true)))
            }
            Query::ConnInfo { conns, want } => Answer::ConnInfo(piece.rows(|at, piece| {
                let slot = piece.looked_up(self.slot_of(conns[at as usize]))?;
                let member = self.members.get(slot)?;
                let (info, is_all) = self.info(member, *want, piece);
                // Something is left of the row.
                piece.at.list = (!is_all).then_some(1);
                Some(info)
            })),
            Query::UserInfo { users, want } => {
                Answer::UserInfo(
                    self.per_user(users, piece, |member, piece| self.info(member, *want, piece)),
                )
            }
        }
    }

    /// One row for each topic that exists; `None` asks for all.
    fn per_topic<T>(
        &self,
        names: Option<&[Box<str>]>,
        piece: &mut Piece<'_>,
        part: impl Fn(u32, &mut Piece<'_>) -> T,
    ) -> ByName<T> {
        piece.rows(|at, piece| {
            let topic = match names {
                Some(names) => piece.looked_up(self.topics.find(&names[at as usize]))?,
                None => at,
            };
            let name = piece.name(self.topics.get(topic)?);
            Some((name, part(topic, piece)))
        })
    }

    /// One row for each user that exists, with a part for each of its connections. `part` also
    /// says whether it is all.
    fn per_user<T>(
        &self,
        names: &[Box<str>],
        piece: &mut Piece<'_>,
        part: impl Fn(&Member, &mut Piece<'_>) -> (T, bool),
    ) -> ByName<Vec<T>> {
        piece.rows(|at, piece| {
            let user = piece.looked_up(self.users.find(&names[at as usize]))?;
            let conns = self.users.conns(user);
            let mut parts = Vec::new();
            piece.list(conns.len(), |at, piece| {
                let member = self.members.get(conns[at]);
                let part = member.map(|member| part(member, piece));
                let is_all = part.as_ref().is_none_or(|(_, is_all)| *is_all);
                parts.extend(part.map(|(part, _)| part));
                is_all
            });
            Some((self.users.name(user).clone(), parts))
        })
    }

    /// What `part` has of each member of a topic.
    fn subscribers<T>(
        &self,
        topic: u32,
        piece: &mut Piece<'_>,
        part: impl Fn(&Member) -> Option<T>,
    ) -> Vec<T> {
        let subscribers = self.topics.subscribers(topic);
        let mut parts = Vec::new();
        piece.list(subscribers.len(), |at, _| {
            parts.extend(self.members.get(subscribers[at].slot).and_then(&part));
            true
        });
        parts
    }

    fn topic_users(&self, topic: u32, piece: &mut Piece<'_>) -> Vec<Arc<str>> {
        let mut users = self.subscribers(topic, piece, |member| member.user.user());
        users.sort_unstable();
        users.dedup();
        users.into_iter().map(|user| self.users.name(user).clone()).collect()
    }

    fn topic_user_conns(&self, topic: u32, piece: &mut Piece<'_>) -> ByName<Vec<ConnId>> {
        let bound = |member: &Member| Some((member.user.user()?, member.id));
        let mut bound = self.subscribers(topic, piece, bound);
        bound.sort_unstable();
        let users = bound.chunk_by(|a, b| a.0 == b.0);
        users
            .map(|conns| {
                let name = self.users.name(conns[0].0).clone();
                (name, conns.iter().map(|conn| conn.1).collect())
            })
            .collect()
    }

    /// What is wanted of a connection, and whether that is all. What was begun before has only
    /// further topics.
    fn info(&self, member: &Member, want: Want, piece: &mut Piece<'_>) -> (Info, bool) {
        let slot = member.id.slot();
        let begun = piece.at.topics.is_some_and(|(of, _)| of == slot);
        let mut info = Info {
            conn: member.id,
            session: Box::default(),
            user: Box::default(),
            topics: Vec::new(),
        };
        if want.session && !begun {
            info.session = self.session(slot).into();
            piece.room.spend(info.session.len() / TEXT_BYTES);
        }
        if want.user && !begun {
            info.user = self.user(slot).into();
        }
        if !want.topics {
            return (info, true);
        }
        let topics = member.topics.as_slice();
        let is_all = piece.topics(slot, topics.len(), |at| {
            info.topics.push(self.topics.name(topics[at].topic).clone());
        });
        (info, is_all)
    }
}

impl Piece<'_> {
    /// What was looked up by name or number: to find nothing costs as much as to find something.
    fn looked_up<T>(&mut self, found: Option<T>) -> Option<T> {
        self.room.spend(usize::from(found.is_none()));
        found
    }

    fn name(&mut self, name: &Arc<str>) -> Arc<str> {
        self.room.spend(name.len() / TEXT_BYTES);
        name.clone()
    }
}

/// So many bytes of a text cost as much as another thing.
const TEXT_BYTES: usize = 256;
