//! Questions about connections, users and topics in the words of the mesh, and what was found, in
//! pieces that NATS carries.
//!
//! Invariant: the pieces of an answer, merged in any order, are the answer. What comes is checked
//! against the question: what does not belong to it is left out. Costs: names are copied.

use std::sync::Arc;

use prost::Message;

use super::codec::{conn_of, number_of};
use crate::hub::ConnId;
use crate::hub::queries::{Answer, ByName, Info, Query, Want};
use crate::wire::mesh::proto::{self, Found, query::Kind};
use crate::wire::mesh::{MeshError, NAMES_MAX};

/// A question for another node.
pub(super) fn encode_query(query: &Query) -> proto::Query {
    let of = |kind: Kind| proto::Query { kind: kind.into(), ..Default::default() };
    let conns = |kind, conns: &[ConnId]| {
        let conns = conns.iter().copied().map(number_of).collect();
        proto::Query { conns, ..of(kind) }
    };
    let names = |kind, names: &[Box<str>]| {
        let names = names.iter().map(|name| name.to_string()).collect();
        proto::Query { names, ..of(kind) }
    };
    let some = |kind, some: &Option<Vec<Box<str>>>| match some {
        Some(some) => names(kind, some),
        None => proto::Query { all: true, ..of(kind) },
    };
    let want = |query, want: &Want| proto::Query {
        session: want.session,
        user: want.user,
        topics: want.topics,
        ..query
    };
    match query {
        Query::Online(list) => conns(Kind::Online, list),
        Query::Conns => of(Kind::Conns),
        Query::ConnCount => of(Kind::ConnCount),
        Query::Users => of(Kind::Users),
        Query::Topics => of(Kind::Topics),
        Query::TopicConns(topics) => names(Kind::TopicConns, topics),
        Query::TopicConnCount(topics) => some(Kind::TopicConnCount, topics),
        Query::TopicUsers(topics) => some(Kind::TopicUsers, topics),
        Query::TopicUserConns(topics) => names(Kind::TopicUserConns, topics),
        Query::UserConns(users) => names(Kind::UserConns, users),
        Query::ConnInfo { conns: list, want: parts } => want(conns(Kind::ConnInfo, list), parts),
        Query::UserInfo { users, want: parts } => want(names(Kind::UserInfo, users), parts),
    }
}

/// A question of another node.
pub(super) fn decode_query(query: proto::Query) -> Result<Query, MeshError> {
    let kind = query.kind();
    let proto::Query { conns, names, all, session, user, topics, .. } = query;
    if conns.len() > NAMES_MAX || names.len() > NAMES_MAX {
        return Err(MeshError::Wrong("too many names"));
    }
    let conns: Vec<ConnId> = conns.into_iter().map(conn_of).collect();
    let names: Vec<Box<str>> = names.into_iter().map(String::into_boxed_str).collect();
    let want = Want { session, user, topics };
    Ok(match kind {
        Kind::Online => Query::Online(conns),
        Kind::Conns => Query::Conns,
        Kind::ConnCount => Query::ConnCount,
        Kind::Users => Query::Users,
        Kind::Topics => Query::Topics,
        Kind::TopicConns => Query::TopicConns(names),
        Kind::TopicConnCount => Query::TopicConnCount((!all).then_some(names)),
        Kind::TopicUsers => Query::TopicUsers((!all).then_some(names)),
        Kind::TopicUserConns => Query::TopicUserConns(names),
        Kind::UserConns => Query::UserConns(names),
        Kind::ConnInfo => Query::ConnInfo { conns, want },
        Kind::UserInfo => Query::UserInfo { users: names, want },
    })
}

/// What was found, in pieces of about so many bytes; at least one.
pub(super) fn pieces(answer: Answer, bytes_max: usize) -> Vec<Found> {
    let mut pieces = Pieces { done: Vec::new(), open: Found::default(), size: 0, bytes_max };
    match answer {
        Answer::Online(conns) | Answer::Conns(conns) => pieces.conns(conns),
        Answer::ConnCount(count) => pieces.open.count = count,
        Answer::Users(names) | Answer::Topics(names) => {
            for name in names {
                pieces.room(name.len() + FIELD_BYTES).names.push(name.to_string());
            }
        }
        Answer::TopicConns(entries) | Answer::UserConns(entries) => {
            for (topic, conns) in entries {
                pieces.each(name(topic), chunks(conns, bytes_max), |entry, conns| {
                    entry.conns = conns.into_iter().map(number_of).collect();
                });
            }
        }
        Answer::TopicConnCount(topics) => {
            for (topic, count) in topics {
                pieces.entry(Found { count, ..name(topic) });
            }
        }
        Answer::TopicUsers(topics) => {
            for (topic, users) in topics {
                pieces.each(name(topic), chunks(users, bytes_max), |entry, users| {
                    entry.names = users.into_iter().map(|user| user.to_string()).collect();
                });
            }
        }
        Answer::TopicUserConns(topics) => {
            topics.into_iter().for_each(|(topic, users)| pieces.users(name(topic), users));
        }
        Answer::ConnInfo(infos) => {
            for info in infos.into_iter().map(info_of) {
                pieces.room(info.encoded_len() + FIELD_BYTES).infos.push(info);
            }
        }
        Answer::UserInfo(users) => {
            for (user, infos) in users {
                pieces.each(name(user), chunks(infos, bytes_max), |entry, infos| {
                    entry.infos = infos.into_iter().map(info_of).collect();
                });
            }
        }
    }
    pieces.done.push(pieces.open);
    pieces.done
}

/// An entry of this name.
fn name(name: Arc<str>) -> Found {
    Found { name: name.to_string(), ..Found::default() }
}

/// Key and length of a field in a piece.
const FIELD_BYTES: usize = 8;

/// Pieces in the making.
struct Pieces {
    done: Vec<Found>,
    open: Found,
    /// Bytes of `open`, about.
    size: usize,
    bytes_max: usize,
}

impl Pieces {
    /// The piece that has room for so many bytes.
    fn room(&mut self, bytes: usize) -> &mut Found {
        if self.size > 0 && self.size + bytes > self.bytes_max {
            self.done.push(std::mem::take(&mut self.open));
            self.size = 0;
        }
        self.size += bytes;
        &mut self.open
    }

    fn conns(&mut self, conns: Vec<ConnId>) {
        for chunk in chunks(conns, self.bytes_max) {
            let chunk = chunk.into_iter().map(number_of);
            self.room(chunk.len() * size_of::<u64>()).conns.extend(chunk);
        }
    }

    fn entry(&mut self, entry: Found) {
        let bytes = entry.encoded_len() + FIELD_BYTES;
        self.room(bytes).entries.push(entry);
    }

    /// Entries of a topic with an entry for each user.
    fn users(&mut self, topic: Found, users: ByName<Vec<ConnId>>) {
        let users = users.into_iter().flat_map(|(user, conns)| {
            let conns = chunks(conns, self.bytes_max);
            conns.into_iter().map(move |conns| (user.clone(), conns))
        });
        let users = chunks(users.collect(), self.bytes_max);
        self.each(topic, users, |entry, users| {
            let user = |(user, conns): (Arc<str>, Vec<ConnId>)| Found {
                conns: conns.into_iter().map(number_of).collect(),
                ..name(user)
            };
            entry.entries = users.into_iter().map(user).collect();
        });
    }

    /// An entry for each part of what belongs to one name; one without anything if there is none.
    fn each<T>(&mut self, name: Found, parts: Vec<Vec<T>>, fill: impl Fn(&mut Found, Vec<T>)) {
        for part in parts {
            let mut entry = name.clone();
            fill(&mut entry, part);
            self.entry(entry);
        }
    }
}

/// What a list is cut by.
trait Weight {
    /// Bytes that it takes, about.
    fn bytes(&self) -> usize;
}

impl Weight for ConnId {
    fn bytes(&self) -> usize {
        size_of::<u64>()
    }
}

impl Weight for Arc<str> {
    fn bytes(&self) -> usize {
        self.len() + FIELD_BYTES
    }
}

impl Weight for (Arc<str>, Vec<ConnId>) {
    fn bytes(&self) -> usize {
        self.0.bytes() + self.1.len() * size_of::<u64>() + FIELD_BYTES
    }
}

impl Weight for Info {
    fn bytes(&self) -> usize {
        let topics = self.topics.iter().map(Weight::bytes).sum::<usize>();
        self.session.len() + self.user.len() + topics + 4 * FIELD_BYTES
    }
}

/// Cuts a list into parts of a quarter of a piece; at least one.
fn chunks<T: Weight>(list: Vec<T>, bytes_max: usize) -> Vec<Vec<T>> {
    let (mut parts, mut part, mut size) = (Vec::new(), Vec::new(), 0);
    for item in list {
        let bytes = item.bytes();
        if size + bytes > bytes_max / 4 && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            size = 0;
        }
        size += bytes;
        part.push(item);
    }
    parts.push(part);
    parts
}

fn info_of(info: Info) -> proto::Info {
    let Info { conn, session, user, topics } = info;
    proto::Info {
        conn: number_of(conn),
        session: session.into(),
        user: user.into(),
        topics: topics.iter().map(|topic| topic.to_string()).collect(),
    }
}

/// What another node has found.
pub(super) fn found(query: &Query, found: Found) -> Answer {
    let Found { conns, count, names: list, entries, infos: all, .. } = found;
    match query {
        Query::Online(_) => Answer::Online(conns_of(conns)),
        Query::Conns => Answer::Conns(conns_of(conns)),
        Query::ConnCount => Answer::ConnCount(count),
        Query::Users => Answer::Users(names(list)),
        Query::Topics => Answer::Topics(names(list)),
        Query::TopicConns(_) => Answer::TopicConns(by_name(entries, |e| conns_of(e.conns))),
        Query::TopicConnCount(_) => Answer::TopicConnCount(by_name(entries, |e| e.count)),
        Query::TopicUsers(_) => Answer::TopicUsers(by_name(entries, |e| names(e.names))),
        Query::TopicUserConns(_) => {
            let users = |entry: Found| by_name(entry.entries, |user| conns_of(user.conns));
            Answer::TopicUserConns(by_name(entries, users))
        }
        Query::UserConns(_) => Answer::UserConns(by_name(entries, |e| conns_of(e.conns))),
        Query::ConnInfo { .. } => Answer::ConnInfo(infos(all)),
        Query::UserInfo { .. } => Answer::UserInfo(by_name(entries, |e| infos(e.infos))),
    }
}

fn conns_of(conns: Vec<u64>) -> Vec<ConnId> {
    conns.into_iter().map(conn_of).collect()
}

fn names(names: Vec<String>) -> Vec<Arc<str>> {
    names.into_iter().map(Arc::from).collect()
}

fn by_name<T>(entries: Vec<Found>, what: impl Fn(Found) -> T) -> ByName<T> {
    let entry = |mut entry: Found| (std::mem::take(&mut entry.name).into(), what(entry));
    entries.into_iter().map(entry).collect()
}

fn infos(infos: Vec<proto::Info>) -> Vec<Info> {
    let info = |info: proto::Info| Info {
        conn: conn_of(info.conn),
        session: info.session.into(),
        user: info.user.into(),
        topics: names(info.topics),
    };
    infos.into_iter().map(info).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conns(range: std::ops::Range<u32>) -> Vec<ConnId> {
        range.map(|slot| ConnId::new(1, slot, 7)).collect()
    }

    fn texts(prefix: &str, count: usize) -> Vec<Arc<str>> {
        (0..count).map(|n| format!("{prefix} {n}").into()).collect()
    }

    fn boxes(names: &[&str]) -> Vec<Box<str>> {
        names.iter().map(|&name| name.into()).collect()
    }

    fn infos(range: std::ops::Range<u32>) -> Vec<Info> {
        let info = |conn: ConnId| Info {
            conn,
            session: "session".into(),
            user: Box::default(),
            topics: texts("topic", conn.slot() as usize % 4),
        };
        conns(range).into_iter().map(info).collect()
    }

    /// Every kind of question, with an answer that has something empty in it.
    fn examples() -> Vec<(Query, Answer)> {
        let want = Want { session: true, user: false, topics: true };
        let by = |n: usize| -> Arc<str> { format!("name {n}").into() };
        let lists = || (0..9).map(|n| (by(n), conns(0..n as u32 * 100))).collect::<Vec<_>>();
        let users = || (0..9).map(|n| (by(n), texts("user", n * 40))).collect::<Vec<_>>();
        vec![
            (Query::Online(conns(0..9)), Answer::Online(conns(3..5))),
            (Query::Conns, Answer::Conns(conns(0..1000))),
            (Query::ConnCount, Answer::ConnCount(77)),
            (Query::Users, Answer::Users(texts("user", 300))),
            (Query::Topics, Answer::Topics(Vec::new())),
            (Query::TopicConns(boxes(&["a", "b"])), Answer::TopicConns(lists())),
            (Query::TopicConnCount(None), Answer::TopicConnCount(vec![(by(1), 0), (by(2), 9)])),
            (Query::TopicConnCount(Some(boxes(&["a"]))), Answer::TopicConnCount(Vec::new())),
            (Query::TopicUsers(Some(Vec::new())), Answer::TopicUsers(users())),
            (Query::TopicUsers(None), Answer::TopicUsers(vec![(by(1), Vec::new())])),
            (
                Query::TopicUserConns(boxes(&["a"])),
                Answer::TopicUserConns(vec![(by(1), lists()), (by(2), Vec::new())]),
            ),
            (Query::UserConns(boxes(&["u"])), Answer::UserConns(lists())),
            (Query::ConnInfo { conns: conns(0..2), want }, Answer::ConnInfo(infos(0..200))),
            (
                Query::UserInfo { users: boxes(&["u", ""]), want },
                Answer::UserInfo(vec![(by(1), infos(0..200)), (by(2), infos(3..4))]),
            ),
        ]
    }

    #[test]
    fn a_question_arrives_as_it_was_asked() {
        for (query, _) in examples() {
            assert_eq!(decode_query(encode_query(&query)), Ok(query));
        }
    }

    #[test]
    fn pieces_of_any_size_are_the_answer_when_they_are_merged() {
        for (query, answer) in examples() {
            for bytes_max in [64, 1000, 1 << 20] {
                let pieces = pieces(answer.clone(), bytes_max);
                assert!(bytes_max < 1 << 20 || pieces.len() == 1);
                let mut merged = Answer::empty(&query);
                for piece in pieces {
                    let len = piece.encoded_len();
                    assert!(len <= 2 * bytes_max + 100, "{len} of {bytes_max}: {query:?}");
                    let piece = Found::decode(&*piece.encode_to_vec()).expect("a valid one");
                    merged.merge(found(&query, piece));
                }
                assert_eq!(merged.finish(&query), answer.clone().finish(&query));
            }
        }
    }

    #[test]
    fn a_question_that_is_not_known_is_the_first_one_and_finds_nothing() {
        let query = proto::Query { kind: 99, ..Default::default() };
        assert_eq!(decode_query(query), Ok(Query::Online(Vec::new())));
    }
}
