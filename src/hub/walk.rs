//! Walks over the tables of a shard in pieces: how a query is answered, and whatever else has to go
//! through all connections, users or topics without holding up a turn.
//!
//! A walk is a [`Cursor`]: an index in a table, or in the list that the query names. Between two
//! pieces members come and go. Indexes of users and topics and slots of connections stay the same
//! while these exist, so whatever exists during the whole walk is found exactly once. What comes or
//! goes meanwhile is found or not; a topic or user that ends and begins anew can be found twice,
//! and whoever puts the pieces together keeps one ([`super::queries::Answer::once`]).
//! Costs: a place of a table costs 1 of the [`Room`], a thing that is there [`FOUND`], and so does
//! whatever its row lists. One row is never cut.

use std::sync::Arc;

use crate::hub::queries::{Answer, ByName, Info, Query, Want};
use crate::hub::sessions::Member;
use crate::hub::topics::Subscriber;
use crate::hub::{ConnId, Hub};

/// What a thing costs that is there: it is read from memory that the CPU has not at hand.
pub const FOUND: usize = 16;

/// Where a walk goes on. The default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(u32);

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

/// The indexes of one piece.
struct Piece<'a> {
    at: u32,
    end: u32,
    room: &'a mut Room,
}

impl Piece<'_> {
    /// The rows that the indexes have, each with what it lists.
    fn rows<T>(&mut self, row: impl Fn(u32) -> Option<(T, usize)>) -> Vec<T> {
        let mut rows = Vec::new();
        while self.at < self.end && self.room.0 > 0 {
            self.room.0 -= 1;
            if let Some((row, listed)) = row(self.at) {
                self.room.spend(1 + listed);
                rows.push(row);
            }
            self.at += 1;
        }
        rows
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
        let mut piece = Piece { at: from.0, end, room };
        let answer = self.piece(query, &mut piece);
        let next = (piece.at < piece.end).then_some(Cursor(piece.at));
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
            Query::Online(conns) => Answer::Online(piece.rows(|at| {
                let conn = conns[at as usize];
                self.slot_of(conn).map(|_| (conn, 0))
            })),
            Query::Conns => Answer::Conns(piece.rows(|slot| Some((self.id_of(slot)?, 0)))),
            Query::ConnCount => Answer::ConnCount(self.len() as u64),
            Query::Users => Answer::Users(piece.rows(|user| Some(name(self.users.get(user)?)))),
            Query::Topics => {
                Answer::Topics(piece.rows(|topic| Some(name(self.topics.get(topic)?))))
            }
            Query::TopicConns(names) => {
                Answer::TopicConns(
                    self.per_topic(Some(names), piece, |topic| listed(self.topic_conns(topic))),
                )
            }
            Query::TopicConnCount(names) => {
                let count = |topic| (self.topics.subscribers(topic).len() as u64, 0);
                Answer::TopicConnCount(self.per_topic(names.as_deref(), piece, count))
            }
            Query::TopicUsers(names) => {
                let users = |topic| (self.topic_users(topic), self.topics.subscribers(topic).len());
                Answer::TopicUsers(self.per_topic(names.as_deref(), piece, users))
            }
            Query::TopicUserConns(names) => {
                let conns =
                    |topic| (self.topic_user_conns(topic), self.topics.subscribers(topic).len());
                Answer::TopicUserConns(self.per_topic(Some(names), piece, conns))
            }
            Query::UserConns(names) => {
                Answer::UserConns(self.per_user(names, piece, |member| (member.id, 0)))
            }
            Query::ConnInfo { conns, want } => Answer::ConnInfo(piece.rows(|at| {
                let member = self.members.get(self.slot_of(conns[at as usize])?)?;
                Some(self.info(member, *want))
            })),
            Query::UserInfo { users, want } => {
                Answer::UserInfo(self.per_user(users, piece, |member| self.info(member, *want)))
            }
        }
    }

    /// One entry for each topic that exists; `None` asks for all.
    fn per_topic<T>(
        &self,
        names: Option<&[Box<str>]>,
        piece: &mut Piece<'_>,
        part: impl Fn(u32) -> (T, usize),
    ) -> ByName<T> {
        piece.rows(|at| {
            let (topic, name) = match names {
                Some(names) => {
                    let topic = self.topics.find(&names[at as usize])?;
                    (topic, self.topics.name(topic))
                }
                None => (at, self.topics.get(at)?),
            };
            let (part, listed) = part(topic);
            Some(((name.clone(), part), listed + name.len() / TEXT_BYTES))
        })
    }

    /// One entry for each user that exists, with a part for each of its connections.
    fn per_user<T>(
        &self,
        names: &[Box<str>],
        piece: &mut Piece<'_>,
        part: impl Fn(&Member) -> (T, usize),
    ) -> ByName<Vec<T>> {
        piece.rows(|at| {
            let user = self.users.find(&names[at as usize])?;
            let conns = self.users.conns(user).iter();
            let members = conns.filter_map(|&slot| self.members.get(slot));
            let (parts, listed): (Vec<T>, Vec<usize>) = members.map(&part).unzip();
            let listed = parts.len() + listed.iter().sum::<usize>();
            Some(((self.users.name(user).clone(), parts), listed))
        })
    }

    fn topic_conns(&self, topic: u32) -> Vec<ConnId> {
        let subscribers = self.topics.subscribers(topic).iter();
        subscribers.filter_map(|subscriber| self.id_of(subscriber.slot)).collect()
    }

    fn topic_users(&self, topic: u32) -> Vec<Arc<str>> {
        let mut users: Vec<u32> = self.bound(topic).map(|(user, _)| user).collect();
        users.sort_unstable();
        users.dedup();
        users.into_iter().map(|user| self.users.name(user).clone()).collect()
    }

    fn topic_user_conns(&self, topic: u32) -> ByName<Vec<ConnId>> {
        let mut bound: Vec<(u32, ConnId)> = self.bound(topic).collect();
        bound.sort_unstable();
        let users = bound.chunk_by(|a, b| a.0 == b.0);
        users
            .map(|conns| {
                let name = self.users.name(conns[0].0).clone();
                (name, conns.iter().map(|conn| conn.1).collect())
            })
            .collect()
    }

    /// The members of a topic that have a user, each with its user.
    fn bound(&self, topic: u32) -> impl Iterator<Item = (u32, ConnId)> {
        let subscribers = self.topics.subscribers(topic).iter();
        subscribers.filter_map(|&Subscriber { slot, .. }| {
            let member = self.members.get(slot)?;
            Some((member.user.user()?, member.id))
        })
    }

    /// What is wanted of a connection, and what that lists.
    fn info(&self, member: &Member, want: Want) -> (Info, usize) {
        let slot = member.id.slot();
        let mut info = Info {
            conn: member.id,
            session: Box::default(),
            user: Box::default(),
            topics: Vec::new(),
        };
        if want.session {
            info.session = self.session(slot).into();
        }
        if want.user {
            info.user = self.user(slot).into();
        }
        if want.topics {
            info.topics = self.topics_of(slot).cloned().collect();
        }
        let listed = info.topics.len() + info.session.len() / TEXT_BYTES;
        (info, listed)
    }
}

/// So many bytes of a text cost as much as another thing.
const TEXT_BYTES: usize = 256;

fn name(name: &Arc<str>) -> (Arc<str>, usize) {
    (name.clone(), name.len() / TEXT_BYTES)
}

fn listed<T>(list: Vec<T>) -> (Vec<T>, usize) {
    let len = list.len();
    (list, len)
}
