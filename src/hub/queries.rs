//! Questions about connections, users and topics, and the answers of one shard and of all (netsvr
//! section 6.7).
//!
//! Each shard answers the whole query for its own connections, in pieces (`walk`). Whoever asked
//! starts with [`Answer::empty`], puts the parts together with [`Answer::merge`] and ends with
//! [`Answer::finish`]. The answer of a process with one shard is finished as it comes. Answers of
//! several nodes are put together in the same way, once their connections have names that are
//! good on all of them ([`Answer::map`]). A large answer is put together in heaps (`heaps`).
//! Costs: an answer shares the names. What is asked for repeatedly is answered once (except by
//! `Online`), so an answer is never larger than what there is. `finish` is O(length).

use std::sync::Arc;

use hashbrown::hash_map::{Entry, HashMap};
use hashbrown::hash_set::HashSet;

use crate::hub::ConnId;

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

impl Query {
    /// The same query, which names everything once; only `Online` keeps order and repetitions.
    pub fn distinct(mut self) -> Query {
        fn once<T: Ord>(list: &mut Vec<T>) {
            list.sort_unstable();
            list.dedup();
        }
        match &mut self {
            Query::ConnInfo { conns, .. } => once(conns),
            Query::TopicConnCount(Some(names))
            | Query::TopicUsers(Some(names))
            | Query::TopicConns(names)
            | Query::TopicUserConns(names)
            | Query::UserConns(names)
            | Query::UserInfo { users: names, .. } => once(names),
            Query::Online(_)
            | Query::Conns
            | Query::ConnCount
            | Query::Users
            | Query::Topics
            | Query::TopicConnCount(None)
            | Query::TopicUsers(None) => {}
        }
        self
    }

    /// The same as several queries of about `bytes_max` at the most, whose answers are merged like
    /// those of several shards. What a query names repeatedly is then named once.
    pub fn split(self, bytes_max: usize) -> Vec<Query> {
        let conns = |conns: Vec<ConnId>, query: &dyn Fn(Vec<ConnId>) -> Query| {
            cut(conns, bytes_max, |_| size_of::<ConnId>()).into_iter().map(query).collect()
        };
        let names = |names: Vec<Box<str>>, query: &dyn Fn(Vec<Box<str>>) -> Query| {
            cut(names, bytes_max, |name| name.len() + NAME_BYTES).into_iter().map(query).collect()
        };
        match self {
            Query::Online(list) => conns(list, &Query::Online),
            Query::ConnInfo { conns: list, want } => {
                conns(list, &|conns| Query::ConnInfo { conns, want })
            }
            Query::TopicConns(list) => names(list, &Query::TopicConns),
            Query::TopicConnCount(Some(list)) => {
                names(list, &|list| Query::TopicConnCount(Some(list)))
            }
            Query::TopicUsers(Some(list)) => names(list, &|list| Query::TopicUsers(Some(list))),
            Query::TopicUserConns(list) => names(list, &Query::TopicUserConns),
            Query::UserConns(list) => names(list, &Query::UserConns),
            Query::UserInfo { users, want } => {
                names(users, &|users| Query::UserInfo { users, want })
            }
            whole @ (Query::Conns
            | Query::ConnCount
            | Query::Users
            | Query::Topics
            | Query::TopicConnCount(None)
            | Query::TopicUsers(None)) => vec![whole],
        }
    }
}

/// What a name costs beside its letters.
const NAME_BYTES: usize = 8;

/// Cuts a list into parts of a size; one that is whole stays as it is.
fn cut<T: Ord>(mut list: Vec<T>, bytes_max: usize, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    if list.iter().map(&bytes).sum::<usize>() <= bytes_max {
        return vec![list];
    }
    // In two parts the same name would count twice.
    list.sort_unstable();
    list.dedup();
    let (mut parts, mut part, mut size) = (Vec::new(), Vec::new(), 0);
    for item in list {
        let more = bytes(&item);
        if size + more > bytes_max && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            size = 0;
        }
        size += more;
        part.push(item);
    }
    parts.push(part);
    parts
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
pub struct Info<C = ConnId> {
    pub conn: C,
    pub session: Box<str>,
    pub user: Box<str>,
    pub topics: Vec<Arc<str>>,
}

/// The answer to the [`Query`] of the same name. Lists have no order unless the query says so. `C`
/// names a connection: on one node a [`ConnId`], among several something that has the node in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<C = ConnId> {
    Online(Vec<C>),
    Conns(Vec<C>),
    ConnCount(u64),
    Users(Vec<Arc<str>>),
    Topics(Vec<Arc<str>>),
    TopicConns(ByName<Vec<C>>),
    TopicConnCount(ByName<u64>),
    TopicUsers(ByName<Vec<Arc<str>>>),
    TopicUserConns(ByName<ByName<Vec<C>>>),
    UserConns(ByName<Vec<C>>),
    ConnInfo(Vec<Info<C>>),
    UserInfo(ByName<Vec<Info<C>>>),
}

impl<C: Copy + Ord> Answer<C> {
    /// What nobody would answer: the start of a merge.
    pub fn empty(query: &Query) -> Answer<C> {
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

    /// What it takes to put the answer together: its rows, and what they list.
    pub fn weight(&self) -> usize {
        fn lists<T>(rows: &ByName<Vec<T>>) -> usize {
            rows.iter().map(|(_, list)| 1 + list.len()).sum()
        }
        fn infos<C>(infos: &[Info<C>]) -> usize {
            infos.iter().map(|info| 1 + info.topics.len()).sum()
        }
        match self {
            Answer::Online(conns) | Answer::Conns(conns) => conns.len(),
            Answer::ConnCount(_) => 1,
            Answer::Users(names) | Answer::Topics(names) => names.len(),
            Answer::TopicConnCount(topics) => topics.len(),
            Answer::TopicConns(rows) | Answer::UserConns(rows) => lists(rows),
            Answer::TopicUsers(rows) => lists(rows),
            Answer::TopicUserConns(rows) => rows.iter().map(|(_, users)| 1 + lists(users)).sum(),
            Answer::ConnInfo(all) => infos(all),
            Answer::UserInfo(rows) => rows.iter().map(|(_, all)| 1 + infos(all)).sum(),
        }
    }

    /// What one shard has found in several pieces, everything in it once.
    pub fn once(self) -> Answer<C> {
        match self {
            Answer::TopicConnCount(rows) => {
                Answer::TopicConnCount(group(rows, |count, later| *count = later))
            }
            other => other.joined(),
        }
    }

    /// The same for several shards that are not told apart: what pieces list of one thing is put
    /// together. A connection that several of them have is one.
    pub fn joined(self) -> Answer<C> {
        match self {
            Answer::TopicConns(rows) => Answer::TopicConns(group_conns(rows)),
            Answer::UserConns(rows) => Answer::UserConns(group_conns(rows)),
            Answer::TopicUserConns(rows) => {
                let mut topics = group(rows, Vec::extend);
                for (_, users) in &mut topics {
                    *users = group_conns(std::mem::take(users));
                }
                Answer::TopicUserConns(topics)
            }
            Answer::ConnInfo(infos) => Answer::ConnInfo(join_infos(infos)),
            Answer::UserInfo(rows) => {
                let mut users = group(rows, Vec::extend);
                users.iter_mut().for_each(|(_, all)| *all = join_infos(std::mem::take(all)));
                Answer::UserInfo(users)
            }
            // `finish_as` sees to these, or nothing is found twice.
            other => other,
        }
    }

    /// Adds the answer of another shard to the same query. Until [`Answer::finish`] names may occur
    /// more than once.
    pub fn merge(&mut self, other: Answer<C>) {
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
            _ => debug_assert!(false, "these are answers to different queries"),
        }
    }

    /// The whole answer, after all parts are in: one entry per name, distinct users, and `Online`
    /// in the order in which these were `asked`.
    pub fn finish_as(self, asked: &[C]) -> Answer<C> {
        match self {
            Answer::Online(found) => Answer::Online(in_order(found, asked)),
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

    /// The same answer, with other names for the connections.
    pub fn map<D>(self, to: impl Fn(C) -> D) -> Answer<D> {
        let list = |conns: Vec<C>| -> Vec<D> { conns.into_iter().map(&to).collect() };
        let lists = |names: ByName<Vec<C>>| -> ByName<Vec<D>> {
            names.into_iter().map(|(name, conns)| (name, list(conns))).collect()
        };
        let infos = |infos: Vec<Info<C>>| -> Vec<Info<D>> {
            let info = |info: Info<C>| {
                let Info { conn, session, user, topics } = info;
                Info { conn: to(conn), session, user, topics }
            };
            infos.into_iter().map(info).collect()
        };
        match self {
            Answer::Online(conns) => Answer::Online(list(conns)),
            Answer::Conns(conns) => Answer::Conns(list(conns)),
            Answer::ConnCount(count) => Answer::ConnCount(count),
            Answer::Users(names) => Answer::Users(names),
            Answer::Topics(names) => Answer::Topics(names),
            Answer::TopicConns(topics) => Answer::TopicConns(lists(topics)),
            Answer::TopicConnCount(topics) => Answer::TopicConnCount(topics),
            Answer::TopicUsers(topics) => Answer::TopicUsers(topics),
            Answer::TopicUserConns(topics) => {
                let users = topics.into_iter().map(|(topic, users)| (topic, lists(users)));
                Answer::TopicUserConns(users.collect())
            }
            Answer::UserConns(users) => Answer::UserConns(lists(users)),
            Answer::ConnInfo(all) => Answer::ConnInfo(infos(all)),
            Answer::UserInfo(users) => {
                let users = users.into_iter().map(|(user, all)| (user, infos(all)));
                Answer::UserInfo(users.collect())
            }
        }
    }
}

impl Answer {
    /// [`Answer::finish_as`] for the query of this node.
    pub fn finish(self, query: &Query) -> Answer {
        match query {
            Query::Online(asked) => self.finish_as(asked),
            _ => self.finish_as(&[]),
        }
    }
}

/// What was found of an `Online` query, in the order and as often as it asked.
fn in_order<C: Copy + Ord>(mut found: Vec<C>, asked: &[C]) -> Vec<C> {
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

/// One row per name, with each of its connections once.
fn group_conns<C: Copy + Ord>(rows: ByName<Vec<C>>) -> ByName<Vec<C>> {
    let mut rows = group(rows, Vec::extend);
    for (_, conns) in &mut rows {
        conns.sort_unstable();
        conns.dedup();
    }
    rows
}

/// One entry per connection, with each of its topics once. The first one has what is not a list.
fn join_infos<C: Copy + Ord>(mut infos: Vec<Info<C>>) -> Vec<Info<C>> {
    infos.sort_by_key(|info| info.conn);
    let mut joined: Vec<Info<C>> = Vec::with_capacity(infos.len());
    for mut info in infos {
        match joined.last_mut().filter(|last| last.conn == info.conn) {
            Some(last) => last.topics.append(&mut info.topics),
            None => joined.push(info),
        }
    }
    for info in &mut joined {
        info.topics = distinct(std::mem::take(&mut info.topics));
    }
    joined
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
