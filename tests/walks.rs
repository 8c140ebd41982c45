//! Walks over a shard's tables in small pieces, while members come and go between them: what is
//! there all the time is found, what never was is not, and nothing is there twice in the end.

use std::collections::BTreeSet;

use ringway::hub::queries::{Answer, Query, Want};
use ringway::hub::walk::{Cursor, Room};
use ringway::hub::{ConnId, Hub};

const SLOTS: u32 = 40;
const TOPICS: u32 = 6;
const USERS: u32 = 3;

/// A fact, as text: what is listed under which name.
type Facts = BTreeSet<String>;

/// A hub in which things change, and what was so all the time or at any time since the last
/// [`Story::begin`].
struct Story {
    rng: fastrand::Rng,
    hub: Hub,
    generation: u32,
    always: Facts,
    ever: Facts,
}

impl Story {
    fn new(seed: u64) -> Story {
        let rng = fastrand::Rng::with_seed(seed);
        let (always, ever) = (Facts::new(), Facts::new());
        let mut story = Story { rng, hub: Hub::new(), generation: 1, always, ever };
        (0..300).for_each(|_| story.change());
        story
    }

    /// Somebody comes, goes, joins, leaves, or gets another user.
    fn change(&mut self) {
        let slot = self.rng.u32(..SLOTS);
        let topic = format!("topic {}", self.rng.u32(..TOPICS));
        let here = self.hub.id_of(slot).is_some();
        match self.rng.u32(..20) {
            _ if !here => {
                self.generation += 1;
                self.hub.insert(ConnId::new(0, slot, self.generation));
            }
            0 => _ = self.hub.remove(slot),
            1 => self.hub.unsubscribe_all(slot),
            2 => {
                let user = self.rng.u32(..=USERS);
                let user = if user == USERS { String::new() } else { format!("user {user}") };
                self.hub.set_user(slot, &user);
            }
            3 if self.rng.u8(..10) == 0 => self.hub.delete_topic(&topic, &mut Vec::new()),
            4..=7 => _ = self.hub.unsubscribe(slot, &topic),
            _ => _ = self.hub.subscribe(slot, &topic),
        }
    }

    fn begin(&mut self, query: &Query) {
        self.always = facts(self.hub.answer(&basis(query)));
        self.ever = self.always.clone();
    }

    /// Some changes, or none.
    fn changes(&mut self, query: &Query) {
        for _ in 0..self.rng.u32(..4) {
            self.change();
            let now = facts(self.hub.answer(&basis(query)));
            self.always = self.always.intersection(&now).cloned().collect();
            self.ever.extend(now);
        }
    }
}

/// The query whose facts are those of single connections: a user of whom one connection leaves a
/// topic and another one enters it is there all the time, and may not be found.
fn basis(query: &Query) -> Query {
    match query {
        Query::TopicUsers(_) => Query::TopicUserConns(names("topic", TOPICS)),
        query => query.clone(),
    }
}

/// What follows from facts of the basis.
fn followed(query: &Query, facts: &Facts) -> Facts {
    let without_conn = |fact: &String| match query {
        Query::TopicUsers(_) => fact.rsplit_once(": ").map_or("", |(front, _)| front).to_owned(),
        _ => fact.clone(),
    };
    facts.iter().map(without_conn).collect()
}

fn conn(conn: &ConnId) -> String {
    format!("{}.{}", conn.slot(), conn.generation())
}

fn names(what: &str, count: u32) -> Vec<Box<str>> {
    (0..count).map(|number| format!("{what} {number}").into()).collect()
}

/// What an answer says, each thing once; fails if it says one twice.
fn facts(answer: Answer) -> Facts {
    let mut all = Vec::new();
    match answer {
        Answer::Conns(conns) => all.extend(conns.iter().map(conn)),
        Answer::Users(names) | Answer::Topics(names) => {
            all.extend(names.iter().map(|name| name.to_string()));
        }
        Answer::TopicConns(rows) | Answer::UserConns(rows) => {
            for (name, conns) in rows {
                all.extend(conns.iter().map(|id| format!("{name}: {}", conn(id))));
            }
        }
        Answer::TopicUsers(rows) => {
            for (name, users) in rows {
                all.extend(users.iter().map(|user| format!("{name}: {user}")));
            }
        }
        Answer::TopicUserConns(rows) => {
            for (name, users) in rows {
                for (user, conns) in users {
                    all.extend(conns.iter().map(|id| format!("{name}: {user}: {}", conn(id))));
                }
            }
        }
        Answer::ConnInfo(infos) => {
            for info in infos {
                let who = conn(&info.conn);
                all.extend(info.topics.iter().map(|topic| format!("{who}: {topic}")));
                all.push(who);
            }
        }
        Answer::UserInfo(rows) => {
            for (user, infos) in rows {
                for info in infos {
                    let who = format!("{user}: {}", conn(&info.conn));
                    all.extend(info.topics.iter().map(|topic| format!("{who}: {topic}")));
                    all.push(who);
                }
            }
        }
        other => panic!("no such query is asked: {other:?}"),
    }
    let facts: Facts = all.iter().cloned().collect();
    assert_eq!(facts.len(), all.len(), "something is there twice: {all:?}");
    facts
}

fn queries(hub: &Hub) -> Vec<Query> {
    let (topics, users) = (names("topic", TOPICS), names("user", USERS));
    let want = Want { session: true, user: true, topics: true };
    let conns = (0..SLOTS).filter_map(|slot| hub.id_of(slot)).collect();
    vec![
        Query::Conns,
        Query::Users,
        Query::Topics,
        Query::TopicConns(topics.clone()),
        Query::TopicUsers(Some(topics.clone())),
        Query::TopicUsers(None),
        Query::TopicUserConns(topics),
        Query::UserConns(users.clone()),
        Query::ConnInfo { conns, want },
        Query::UserInfo { users, want },
    ]
}

fn walk(story: &mut Story, query: &Query) -> usize {
    story.begin(query);
    let (mut whole, mut from, mut pieces) = (Answer::empty(query), Cursor::default(), 0);
    loop {
        let mut room = Room::things(story.rng.usize(1..12));
        let (part, next) = story.hub.walk(query, from, &mut room);
        assert!(part.weight() <= 14, "{part:?} is more than there was room for");
        whole.merge(part);
        pieces += 1;
        assert!(pieces < 10_000, "no end of {query:?}");
        let Some(next) = next else { break };
        from = next;
        story.changes(query);
    }
    let found = facts(whole.once().finish(query));
    let (always, ever) = (followed(query, &story.always), followed(query, &story.ever));
    let missing: Vec<_> = always.difference(&found).collect();
    assert!(missing.is_empty(), "{query:?} has not found {missing:?}");
    let invented: Vec<_> = found.difference(&ever).collect();
    assert!(invented.is_empty(), "{query:?} has found {invented:?}");
    pieces
}

#[test]
fn what_is_there_all_the_time_is_found_once_and_what_never_was_is_not() {
    let mut pieces = 0;
    for seed in 0..150 {
        let mut story = Story::new(seed);
        for query in queries(&story.hub) {
            pieces += walk(&mut story, &query.distinct());
        }
    }
    assert!(pieces > 10_000, "{pieces} pieces");
}

#[test]
fn whatever_the_room_the_pieces_of_what_does_not_change_make_the_answer() {
    for seed in 0..50 {
        let mut story = Story::new(seed);
        for query in queries(&story.hub).into_iter().map(Query::distinct) {
            let expected = facts(story.hub.answer(&query));
            let (mut whole, mut from) = (Answer::empty(&query), Some(Cursor::default()));
            while let Some(cursor) = from {
                let mut room = Room::things(story.rng.usize(1..40));
                let (part, next) = story.hub.walk(&query, cursor, &mut room);
                whole.merge(part);
                from = next;
            }
            assert_eq!(facts(whole.once().finish(&query)), expected, "{query:?}");
        }
    }
}
