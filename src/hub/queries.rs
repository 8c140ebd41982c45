//! Questions about connections, users and topics, and the answers of one shard and of all (netsvr
//! section 6.7).
//!
//! Each shard answers the whole query for its own connections ([`Hub::answer`]). Whoever asked
//! starts with [`Answer::empty`], puts the parts together with [`Answer::merge`] and ends with
//! [`Answer::finish`]. The answer of a process with one shard is finished as it comes.
//! Costs: an answer shares the names. What is asked for repeatedly is answered once (except by
//! `Online`), so an answer is never larger than what there is. `finish` is O(length).

use std::sync::Arc;

use hashbrown::hash_map::{Entry, HashMap};
use hashbrown::hash_set::HashSet;

use crate::hub::sessions::Member;
use crate::hub::topics::Subscriber;
use crate::hub::{ConnId, Hub};

/// A question that each shard answers for its own part. Empty and unknown names find nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// Which of these are registered, in the order asked, duplicates repeated.
    Online(Vec<ConnId>),
    /// All registered connections.
    Conns,
    /// How many there are.
    ConnCount,
    /// Distinct users with at least one connection.
    Users,
    /// Topics with at least one member.
    Topics,
    /// Members of each topic that exists.
    TopicConns(Vec<Box<str>>),
    /// How many members each topic has; `None` asks for every topic.
    TopicConnCount(Option<Vec<Box<str>>>),
    /// Distinct users among the members of each topic that exists; `None` asks for every topic.
    TopicUsers(Option<Vec<Box<str>>>),
    /// The same with each user's connections that are members of the topic.
    TopicUserConns(Vec<Box<str>>),
    /// Connections of each user that is known.
    UserConns(Vec<Box<str>>),
    /// What is known about each registered connection of the list, duplicates collapsed.
    ConnInfo { conns: Vec<ConnId>, want: Want },
    /// What is known about every connection of each user that is known.
    UserInfo { users: Vec<Box<str>>, want: Want },
}

/// Which parts of a connection's data an answer holds; the others stay empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    pub session: bool,
    pub user: bool,
    pub topics: bool,
}

/// One entry per name.
pub type ByName<T> = Vec<(Arc<str>, T)>;

/// What is known about one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    pub conn: ConnId,
    pub session: Box<str>,
    pub user: Box<str>,
    pub topics: Vec<Arc<str>>,
}

/// The answer to the [`Query`] of the same name. Lists have no order unless the query says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Online(Vec<ConnId>),
    Conns(Vec<ConnId>),
    ConnCount(u64),
    Users(Vec<Arc<str>>),
    Topics(Vec<Arc<str>>),
    TopicConns(ByName<Vec<ConnId>>),
    TopicConnCount(ByName<u64>),
    TopicUsers(ByName<Vec<Arc<str>>>),
    TopicUserConns(ByName<ByName<Vec<ConnId>>>),
    UserConns(ByName<Vec<ConnId>>),
    ConnInfo(Vec<Info>),
    UserInfo(ByName<Vec<Info>>),
}

impl Hub {
    /// Answers for the connections of this shard.
    pub fn answer(&self, query: &Query) -> Answer {
        match query {
            Query::Online(conns) => {
                let online = conns.iter().copied().filter(|&id| self.slot_of(id).is_some());
                Answer::Online(online.collect())
            }
            Query::Conns => Answer::Conns(self.members.iter().map(|member| member.id).collect()),
            Query::ConnCount => Answer::ConnCount(self.len() as u64),
            Query::Users => Answer::Users(self.users.iter().map(|user| user.1.clone()).collect()),
            Query::Topics => {
                Answer::Topics(self.topics.iter().map(|topic| topic.1.clone()).collect())
            }
            Query::TopicConns(names) => {
                Answer::TopicConns(self.per_topic(Some(names), |topic| self.topic_conns(topic)))
            }
            Query::TopicConnCount(names) => {
                let count = |topic| self.topics.subscribers(topic).len() as u64;
                Answer::TopicConnCount(self.per_topic(names.as_deref(), count))
            }
            Query::TopicUsers(names) => {
                let users = |topic| self.topic_users(topic);
                Answer::TopicUsers(self.per_topic(names.as_deref(), users))
            }
            Query::TopicUserConns(names) => {
                let conns = |topic| self.topic_user_conns(topic);
                Answer::TopicUserConns(self.per_topic(Some(names), conns))
            }
            Query::UserConns(names) => Answer::UserConns(self.per_user(names, |member| member.id)),
            Query::ConnInfo { conns, want } => {
                let mut slots: Vec<u32> = conns.iter().filter_map(|&id| self.slot_of(id)).collect();
                slots.sort_unstable();
                slots.dedup();
                let members = slots.iter().filter_map(|&slot| self.members.get(slot));
                Answer::ConnInfo(members.map(|member| self.info(member, *want)).collect())
            }
            Query::UserInfo { users, want } => {
                Answer::UserInfo(self.per_user(users, |member| self.info(member, *want)))
            }
        }
    }

    /// One entry for each topic that exists; `None` asks for all.
    fn per_topic<T>(&self, names: Option<&[Box<str>]>, part: impl Fn(u32) -> T) -> ByName<T> {
        let entry = |topic| (self.topics.name(topic).clone(), part(topic));
        match names {
            Some(names) => self.topics.find_all(names).into_iter().map(entry).collect(),
            None => self.topics.iter().map(|topic| entry(topic.0)).collect(),
        }
    }

    /// One entry for each user that exists, with a part for each of its connections.
    fn per_user<T>(&self, names: &[Box<str>], part: impl Fn(&Member) -> T) -> ByName<Vec<T>> {
        let entry = |user| {
            let conns = self.users.conns(user).iter();
            let members = conns.filter_map(|&slot| self.members.get(slot));
            (self.users.name(user).clone(), members.map(&part).collect())
        };
        self.users.find_all(names).into_iter().map(entry).collect()
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

    fn info(&self, member: &Member, want: Want) -> Info {
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
        info
    }
}

impl Answer {
    /// What nobody would answer: the start of a merge.
    pub fn empty(query: &Query) -> Answer {
        match query {
            Query::Online(_) => Answer::Online(Vec::new()),
            Query::Conns => Answer::Conns(Vec::new()),
            Query::ConnCount => Answer::ConnCount(0),
            Query::Users => Answer::Users(Vec::new()),
            Query::Topics => Answer::Topics(Vec::new()),
            Query::TopicConns(_) => Answer::TopicConns(Vec::new()),
            Query::TopicConnCount(_) => Answer::TopicConnCount(Vec::new()),
            Query::TopicUsers(_) => Answer::TopicUsers(Vec::new()),
            Query::TopicUserConns(_) => Answer::TopicUserConns(Vec::new()),
            Query::UserConns(_) => Answer::UserConns(Vec::new()),
            Query::ConnInfo { .. } => Answer::ConnInfo(Vec::new()),
            Query::UserInfo { .. } => Answer::UserInfo(Vec::new()),
        }
    }

    /// Adds the answer of another shard to the same query. Until [`Answer::finish`] names may occur
    /// more than once.
    pub fn merge(&mut self, other: Answer) {
        match (self, other) {
            (Answer::Online(all), Answer::Online(part)) => all.extend(part),
            (Answer::Conns(all), Answer::Conns(part)) => all.extend(part),
            (Answer::ConnCount(all), Answer::ConnCount(part)) => *all += part,
            (Answer::Users(all), Answer::Users(part)) => all.extend(part),
            (Answer::Topics(all), Answer::Topics(part)) => all.extend(part),
            (Answer::TopicConns(all), Answer::TopicConns(part)) => all.extend(part),
            (Answer::TopicConnCount(all), Answer::TopicConnCount(part)) => all.extend(part),
            (Answer::TopicUsers(all), Answer::TopicUsers(part)) => all.extend(part),
            (Answer::TopicUserConns(all), Answer::TopicUserConns(part)) => all.extend(part),
            (Answer::UserConns(all), Answer::UserConns(part)) => all.extend(part),
            (Answer::ConnInfo(all), Answer::ConnInfo(part)) => all.extend(part),
            (Answer::UserInfo(all), Answer::UserInfo(part)) => all.extend(part),
            (all, part) => debug_assert!(false, "{part:?} is no part of {all:?}"),
        }
    }

    /// The whole answer, after all parts are in: one entry per name, distinct users, and `Online`
    /// in the order of the query.
    pub fn finish(self, query: &Query) -> Answer {
        match self {
            Answer::Online(found) => Answer::Online(in_order(found, query)),
            Answer::Users(users) => Answer::Users(distinct(users)),
            Answer::Topics(topics) => Answer::Topics(distinct(topics)),
            Answer::TopicConns(parts) => Answer::TopicConns(group(parts, Vec::extend)),
            Answer::TopicConnCount(parts) => {
                Answer::TopicConnCount(group(parts, |all, part| *all += part))
            }
            Answer::TopicUsers(parts) => {
                let mut topics = group(parts, Vec::extend);
                topics
                    .iter_mut()
                    .for_each(|topic| topic.1 = distinct(std::mem::take(&mut topic.1)));
                Answer::TopicUsers(topics)
            }
            Answer::TopicUserConns(parts) => {
                let mut topics = group(parts, Vec::extend);
                for (_, users) in &mut topics {
                    *users = group(std::mem::take(users), Vec::extend);
                }
                Answer::TopicUserConns(topics)
            }
            Answer::UserConns(parts) => Answer::UserConns(group(parts, Vec::extend)),
            Answer::UserInfo(parts) => Answer::UserInfo(group(parts, Vec::extend)),
            whole @ (Answer::Conns(_) | Answer::ConnCount(_) | Answer::ConnInfo(_)) => whole,
        }
    }
}

/// What was found of an `Online` query, in the order and as often as it asked.
fn in_order(mut found: Vec<ConnId>, query: &Query) -> Vec<ConnId> {
    let Query::Online(asked) = query else {
        debug_assert!(false, "{query:?} has another answer");
        return found;
    };
    found.sort_unstable();
    let online = asked.iter().copied().filter(|id| found.binary_search(id).is_ok());
    online.collect()
}

/// Each name once, at its first place.
fn distinct(mut names: Vec<Arc<str>>) -> Vec<Arc<str>> {
    let mut seen = HashSet::with_capacity(names.len());
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// One entry per name, at its first place; `join` adds a further part to it.
fn group<T>(parts: ByName<T>, join: impl Fn(&mut T, T)) -> ByName<T> {
    let mut places: HashMap<Arc<str>, usize> = HashMap::with_capacity(parts.len());
    let mut whole: ByName<T> = Vec::with_capacity(parts.len());
    for (name, part) in parts {
        match places.entry(name) {
            Entry::Occupied(entry) => join(&mut whole[*entry.get()].1, part),
            Entry::Vacant(entry) => {
                whole.push((entry.key().clone(), part));
                entry.insert(whole.len() - 1);
            }
        }
    }
    whole
}
