//! The hub against a naive model that keeps each connection's data as plain strings and searches
//! all of it: random changes, every query, every push target, and the merge of several shards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use ringway::hub::push::{Change, Target, TopicChange};
use ringway::hub::queries::{Answer, ByName, Info, Query, Want};
use ringway::hub::rooms::RoomLimits;
use ringway::hub::{ConnId, Departed, Hub};

/// Slots on both sides of word boundaries.
const SLOTS: [u32; 12] = [0, 1, 2, 3, 62, 63, 64, 65, 127, 128, 129, 300];
const USERS: u8 = 5;
/// Enough that a connection can have more than a list without an index may hold.
const TOPICS: u8 = 48;
const SHARDS: u8 = 3;

#[derive(Clone, Debug)]
enum Step {
    Insert(u32),
    Remove(u32),
    Change(u32, Change),
    SetUser(u32, Box<str>),
    Subscribe(u32, Box<str>),
    Unsubscribe(u32, Box<str>),
    UnsubscribeAll(u32),
    DeleteTopics(Vec<Box<str>>),
}

fn user() -> impl Strategy<Value = Box<str>> {
    (0..USERS).prop_map(|n| if n == 0 { "".into() } else { format!("u{n}").into() })
}

/// Half of the time one of five topics, so that some are crowded.
fn topic() -> impl Strategy<Value = Box<str>> {
    prop_oneof![0..5_u8, 0..TOPICS].prop_map(|n| if n == 0 { "".into() } else { topic_name(n) })
}

/// One of four is a room.
fn topic_name(n: u8) -> Box<str> {
    if n % 4 == 1 { format!("cr:r{n}").into() } else { format!("t{n}").into() }
}

fn topics() -> impl Strategy<Value = Vec<Box<str>>> {
    let many = (0..TOPICS, 0..TOPICS)
        .prop_map(|(from, to)| (from..to.max(from)).map(topic_name).collect::<Vec<Box<str>>>());
    prop_oneof![4 => prop::collection::vec(topic(), 0..6), 1 => many]
}

fn session() -> impl Strategy<Value = Box<str>> {
    (0..4_usize).prop_map(|n| "s".repeat(n).into())
}

fn change() -> impl Strategy<Value = Change> {
    let topics = (0..3, topics()).prop_map(|(kind, names)| match kind {
        0 => TopicChange::Replace(names),
        1 => TopicChange::Add(names),
        _ => TopicChange::Remove(names),
    });
    (prop::option::of(topics), prop::option::of(session()), prop::option::of(user()))
        .prop_map(|(topics, session, user)| Change { topics, session, user })
}

fn step() -> impl Strategy<Value = Step> {
    let slot = || prop::sample::select(&SLOTS[..]);
    prop_oneof![
        8 => slot().prop_map(Step::Insert),
        2 => slot().prop_map(Step::Remove),
        6 => (slot(), change()).prop_map(|(slot, change)| Step::Change(slot, change)),
        6 => (slot(), user()).prop_map(|(slot, user)| Step::SetUser(slot, user)),
        9 => (slot(), topic()).prop_map(|(slot, topic)| Step::Subscribe(slot, topic)),
        5 => (slot(), topic()).prop_map(|(slot, topic)| Step::Unsubscribe(slot, topic)),
        1 => slot().prop_map(Step::UnsubscribeAll),
        1 => topics().prop_map(Step::DeleteTopics),
    ]
}

#[derive(Clone, Debug, Default)]
struct Model {
    conns: BTreeMap<u32, ModelConn>,
    generation: u32,
}

#[derive(Clone, Debug)]
struct ModelConn {
    id: ConnId,
    user: String,
    session: String,
    topics: BTreeSet<String>,
}

impl Model {
    /// Every slot belongs to one shard, so that one hub can hold the connections of all.
    fn next_id(&mut self, slot: u32) -> ConnId {
        self.generation += 1;
        ConnId::new(shard_of(slot), slot, self.generation)
    }

    fn change(&mut self, slot: u32, change: &Change) {
        let Some(conn) = self.conns.get_mut(&slot) else {
            return;
        };
        if let Some(session) = &change.session {
            conn.session = session.to_string();
        }
        if let Some(user) = &change.user {
            conn.user = user.to_string();
        }
        let names = |names: &[Box<str>]| -> BTreeSet<String> {
            names.iter().filter(|name| !name.is_empty()).map(|name| name.to_string()).collect()
        };
        match &change.topics {
            None => {}
            Some(TopicChange::Replace(new)) => conn.topics = names(new),
            Some(TopicChange::Add(new)) => conn.topics.extend(names(new)),
            Some(TopicChange::Remove(old)) => {
                conn.topics.retain(|topic| !names(old).contains(topic));
            }
        }
    }

    /// How often each slot is reached.
    fn reached(&self, target: &Target) -> BTreeMap<u32, usize> {
        let times = |conn: &ModelConn| match target {
            Target::Conns(ids) => ids.iter().filter(|&&id| id == conn.id).count(),
            Target::Users(names) => {
                let named = names.iter().any(|name| **name == conn.user);
                usize::from(named && !conn.user.is_empty())
            }
            Target::Topics(names) => {
                names.iter().filter(|&name| conn.topics.contains(&**name)).count()
            }
            Target::All => 1,
        };
        let reached = self.conns.iter().map(|(&slot, conn)| (slot, times(conn)));
        reached.filter(|&(_, times)| times > 0).collect()
    }

    fn all_topics(&self) -> BTreeSet<&str> {
        self.conns.values().flat_map(|conn| conn.topics.iter().map(String::as_str)).collect()
    }

    fn all_users(&self) -> BTreeSet<&str> {
        let users = self.conns.values().map(|conn| conn.user.as_str());
        users.filter(|user| !user.is_empty()).collect()
    }

    fn members<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = &'a ModelConn> {
        self.conns.values().filter(move |conn| conn.topics.contains(topic))
    }

    fn info(&self, conn: &ModelConn, want: Want) -> Info {
        Info {
            conn: conn.id,
            session: if want.session { conn.session.as_str().into() } else { "".into() },
            user: if want.user { conn.user.as_str().into() } else { "".into() },
            topics: conn.topics.iter().filter(|_| want.topics).map(|t| t.as_str().into()).collect(),
        }
    }

    /// The answer in the order of [`sorted`].
    fn answer(&self, query: &Query) -> Answer {
        let online = |id: &ConnId| self.conns.get(&id.slot()).is_some_and(|conn| conn.id == *id);
        let topics = |names| among(self.all_topics(), names);
        let users_of = |topic: &str| -> BTreeSet<String> {
            let users = self.members(topic).map(|conn| conn.user.clone());
            users.filter(|user| !user.is_empty()).collect()
        };
        let conns_of = |user: &str| -> Vec<&ModelConn> {
            self.conns.values().filter(|conn| conn.user == user).collect()
        };
        let answer = match query {
            Query::Online(ids) => {
                return Answer::Online(ids.iter().copied().filter(online).collect());
            }
            Query::Conns => Answer::Conns(self.conns.values().map(|conn| conn.id).collect()),
            Query::ConnCount => Answer::ConnCount(self.conns.len() as u64),
            Query::Users => Answer::Users(self.all_users().into_iter().map(Into::into).collect()),
            Query::Topics => {
                Answer::Topics(self.all_topics().into_iter().map(Into::into).collect())
            }
            Query::TopicConns(names) => Answer::TopicConns(keyed(topics(Some(names)), |topic| {
                self.members(topic).map(|conn| conn.id).collect()
            })),
            Query::TopicConnCount(names) => {
                let count = |topic: &str| self.members(topic).count() as u64;
                Answer::TopicConnCount(keyed(topics(names.as_deref()), count))
            }
            Query::TopicUsers(names) => {
                Answer::TopicUsers(keyed(topics(names.as_deref()), |topic| {
                    users_of(topic).into_iter().map(Into::into).collect()
                }))
            }
            Query::TopicUserConns(names) => {
                Answer::TopicUserConns(keyed(topics(Some(names)), |topic| {
                    keyed(users_of(topic), |user| {
                        let conns = self.members(topic).filter(|conn| conn.user == user);
                        conns.map(|conn| conn.id).collect()
                    })
                }))
            }
            Query::UserConns(names) => {
                Answer::UserConns(keyed(among(self.all_users(), Some(names)), |user| {
                    conns_of(user).into_iter().map(|conn| conn.id).collect()
                }))
            }
            Query::ConnInfo { conns, want } => {
                let known = self.conns.values().filter(|conn| conns.contains(&conn.id));
                Answer::ConnInfo(known.map(|conn| self.info(conn, *want)).collect())
            }
            Query::UserInfo { users, want } => {
                Answer::UserInfo(keyed(among(self.all_users(), Some(users)), |user| {
                    conns_of(user).into_iter().map(|conn| self.info(conn, *want)).collect()
                }))
            }
        };
        sorted(answer)
    }
}

/// Those of `all` that are named; `None` names all.
fn among(all: BTreeSet<&str>, names: Option<&[Box<str>]>) -> Vec<String> {
    let asked = |name: &&str| names.is_none_or(|names| names.iter().any(|n| **n == **name));
    all.into_iter().filter(asked).map(str::to_string).collect()
}

fn keyed<T>(names: impl IntoIterator<Item = String>, part: impl Fn(&str) -> T) -> ByName<T> {
    names.into_iter().map(|name| (name.as_str().into(), part(&name))).collect()
}

/// Lists that have no order, in order. Keeps what occurs twice; `Online` stays as it is.
fn sorted(mut answer: Answer) -> Answer {
    let infos = |list: &mut Vec<Info>| {
        list.sort_unstable_by_key(|info| info.conn);
        list.iter_mut().for_each(|info| info.topics.sort_unstable());
    };
    match &mut answer {
        Answer::Online(_) | Answer::ConnCount(_) => {}
        Answer::Conns(list) => list.sort_unstable(),
        Answer::Users(list) | Answer::Topics(list) => list.sort_unstable(),
        Answer::TopicConnCount(list) => list.sort_unstable(),
        Answer::TopicConns(list) | Answer::UserConns(list) => {
            list.iter_mut().for_each(|entry| entry.1.sort_unstable());
            list.sort_unstable();
        }
        Answer::TopicUsers(list) => {
            list.iter_mut().for_each(|entry| entry.1.sort_unstable());
            list.sort_unstable();
        }
        Answer::TopicUserConns(list) => {
            for (_, users) in list.iter_mut() {
                users.iter_mut().for_each(|user| user.1.sort_unstable());
                users.sort_unstable();
            }
            list.sort_unstable();
        }
        Answer::ConnInfo(list) => infos(list),
        Answer::UserInfo(list) => {
            list.iter_mut().for_each(|entry| infos(&mut entry.1));
            list.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        }
    }
    answer
}

fn shard_of(slot: u32) -> u8 {
    slot as u8 % SHARDS
}

/// Does the same to the model and to the hub, and compares what the hub returns.
fn apply(step: &Step, model: &mut Model, hub: &mut Hub) {
    match step {
        Step::Insert(slot) => {
            if !model.conns.contains_key(slot) {
                let id = model.next_id(*slot);
                hub.insert(id);
                let (user, session) = (String::new(), String::new());
                model.conns.insert(*slot, ModelConn { id, user, session, topics: BTreeSet::new() });
            }
        }
        Step::Remove(slot) => {
            let expected = model.conns.remove(slot).map(|conn| Departed {
                user: conn.user.as_str().into(),
                session: conn.session.as_str().into(),
                topics: conn.topics.iter().map(|topic| topic.as_str().into()).collect(),
            });
            let departed = hub.remove(*slot).map(|mut departed| {
                departed.topics.sort_unstable();
                departed
            });
            assert_eq!(departed, expected);
        }
        Step::Change(slot, change) => {
            hub.change(*slot, change);
            model.change(*slot, change);
        }
        Step::SetUser(slot, user) => {
            hub.set_user(*slot, user);
            model.change(*slot, &Change { user: Some(user.clone()), ..Change::default() });
        }
        Step::Subscribe(slot, topic) => {
            let conn = model.conns.get_mut(slot).filter(|_| !topic.is_empty());
            let expected = conn.is_some_and(|conn| conn.topics.insert(topic.to_string()));
            assert_eq!(hub.subscribe(*slot, topic), expected);
        }
        Step::Unsubscribe(slot, topic) => {
            let conn = model.conns.get_mut(slot);
            let expected = conn.is_some_and(|conn| conn.topics.remove(&**topic));
            assert_eq!(hub.unsubscribe(*slot, topic), expected);
        }
        Step::UnsubscribeAll(slot) => {
            hub.unsubscribe_all(*slot);
            model.conns.entry(*slot).and_modify(|conn| conn.topics.clear());
        }
        Step::DeleteTopics(topics) => {
            let (mut lost, mut expected) = (Vec::new(), Vec::new());
            topics.iter().for_each(|topic| hub.delete_topic(topic, &mut lost));
            for topic in topics {
                for (&slot, conn) in &mut model.conns {
                    expected.extend(conn.topics.remove(&**topic).then_some(slot));
                }
            }
            lost.sort_unstable();
            expected.sort_unstable();
            assert_eq!(lost, expected);
        }
    }
}

/// Everything that can be seen of single connections, and the counts.
fn compare(model: &Model, hub: &Hub) {
    hub.check();
    for slot in SLOTS {
        let conn = model.conns.get(&slot);
        assert_eq!(hub.id_of(slot), conn.map(|conn| conn.id));
        assert_eq!(hub.user(slot), conn.map_or("", |conn| &conn.user));
        assert_eq!(hub.session(slot), conn.map_or("", |conn| &conn.session));
        let topics: BTreeSet<String> = hub.topics_of(slot).map(|topic| topic.to_string()).collect();
        assert_eq!(topics.len(), hub.topics_of(slot).count());
        assert_eq!(topics, conn.map_or(BTreeSet::new(), |conn| conn.topics.clone()));
        if let Some(conn) = conn {
            let id = conn.id;
            assert_eq!(hub.slot_of(id), Some(slot));
            let stale = ConnId::new(id.shard(), slot, id.generation() - 1);
            let elsewhere = ConnId::new(id.shard() + 1, slot, id.generation());
            assert_eq!((hub.slot_of(stale), hub.slot_of(elsewhere)), (None, None));
        }
    }
    let subscriptions: usize = model.conns.values().map(|conn| conn.topics.len()).sum();
    assert_eq!((hub.len(), hub.is_empty()), (model.conns.len(), model.conns.is_empty()));
    assert_eq!((hub.users(), hub.topics()), (model.all_users().len(), model.all_topics().len()));
    assert_eq!(hub.subscriptions(), subscriptions);
}

/// Ids that were registered at some time, and one that never was.
fn ids(model: &Model, picks: &[(u32, u32)]) -> Vec<ConnId> {
    let id = |&(slot, back): &(u32, u32)| match model.conns.get(&slot) {
        Some(conn) if back > 0 => conn.id,
        _ => ConnId::new(shard_of(slot), slot, model.generation.saturating_sub(back)),
    };
    picks.iter().map(id).collect()
}

/// One of each kind.
fn queries(conns: Vec<ConnId>, users: &[Box<str>], topics: &[Box<str>], want: Want) -> Vec<Query> {
    let (users, topics) = (users.to_vec(), topics.to_vec());
    vec![
        Query::Online(conns.clone()),
        Query::Conns,
        Query::ConnCount,
        Query::Users,
        Query::Topics,
        Query::TopicConns(topics.clone()),
        Query::TopicConnCount(Some(topics.clone())),
        Query::TopicConnCount(None),
        Query::TopicUsers(Some(topics.clone())),
        Query::TopicUsers(None),
        Query::TopicUserConns(topics),
        Query::UserConns(users.clone()),
        Query::ConnInfo { conns, want },
        Query::UserInfo { users, want },
    ]
}

#[derive(Clone, Debug)]
struct Questions {
    picks: Vec<(u32, u32)>,
    users: Vec<Box<str>>,
    topics: Vec<Box<str>>,
    want: Want,
}

fn questions() -> impl Strategy<Value = Questions> {
    let picks = prop::collection::vec((prop::sample::select(&SLOTS[..]), 0..4_u32), 0..12);
    let want = any::<(bool, bool, bool)>();
    let all_users = (0..USERS).map(|n| format!("u{n}").into()).collect();
    let users = prop_oneof![prop::collection::vec(user(), 0..4), Just(all_users)];
    let topics = prop_oneof![topics(), Just((0..TOPICS).map(topic_name).collect())];
    (picks, users, topics, want).prop_map(|(picks, users, topics, (session, user, topic))| {
        Questions { picks, users, topics, want: Want { session, user, topics: topic } }
    })
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_hub_behaves_like_the_model(
        steps in prop::collection::vec(step(), 1..80),
        questions in questions(),
    ) {
        let (mut model, mut hub) = (Model::default(), Hub::new());
        hub.count_buckets();
        for step in &steps {
            apply(step, &mut model, &mut hub);
            compare(&model, &hub);
        }
        let Questions { picks, users, topics, want } = questions;
        let conns = ids(&model, &picks);
        let targets =
            [Target::Conns(conns.clone()), Target::Users(users.clone()),
             Target::Topics(topics.clone()), Target::All];
        for target in &targets {
            let mut reached = BTreeMap::new();
            hub.for_each(target, |slot| *reached.entry(slot).or_insert(0) += 1);
            prop_assert_eq!(reached, model.reached(target), "{:?}", target);
        }
        for query in queries(conns, &users, &topics, want) {
            let answer = hub.answer(&query);
            prop_assert_eq!(sorted(answer.clone()), model.answer(&query), "{:?}", query);
            prop_assert_eq!(answer.clone().finish(&query), answer, "one shard's is finished");
        }
        for slot in SLOTS {
            apply(&Step::Remove(slot), &mut model, &mut hub);
            compare(&model, &hub);
        }
        prop_assert!(hub.is_empty());
    }

    #[test]
    fn the_merged_answers_of_shards_are_those_of_one_hub(
        steps in prop::collection::vec(step(), 20..160),
        questions in questions(),
        first in 0..SHARDS,
    ) {
        let (mut model, mut whole) = (Model::default(), Hub::new());
        steps.iter().for_each(|step| apply(step, &mut model, &mut whole));
        let mut shards: Vec<Hub> = (0..SHARDS).map(|_| Hub::new()).collect();
        for (&slot, conn) in &model.conns {
            let hub = &mut shards[usize::from(shard_of(slot))];
            hub.insert(conn.id);
            hub.set_user(slot, &conn.user);
            hub.set_session(slot, &conn.session);
            conn.topics.iter().for_each(|topic| _ = hub.subscribe(slot, topic));
        }
        let Questions { picks, users, topics, want } = questions;
        for query in queries(ids(&model, &picks), &users, &topics, want) {
            let mut merged = Answer::empty(&query);
            for turn in 0..SHARDS {
                merged.merge(shards[usize::from((first + turn) % SHARDS)].answer(&query));
            }
            let merged = sorted(merged.finish(&query));
            prop_assert_eq!(&merged, &sorted(whole.answer(&query)), "{:?}", query);
            prop_assert_eq!(&merged, &model.answer(&query), "{:?}", query);
        }
    }
}

/// At the door of a room: slot, topic, and the members that it may have; 0 is no limit.
type Join = (u32, Box<str>, u32);

fn join() -> impl Strategy<Value = Join> {
    (prop::sample::select(&SLOTS[..]), topic(), 0..4_u32)
}

/// Members of every room over all shards.
fn rooms(shards: &[(Model, Hub)]) -> BTreeMap<&str, u32> {
    let mut rooms = BTreeMap::new();
    let conns = shards.iter().flat_map(|(model, _)| model.conns.values());
    for topic in conns.flat_map(|conn| &conn.topics).filter(|topic| topic.starts_with("cr:")) {
        *rooms.entry(topic.as_str()).or_insert(0) += 1;
    }
    rooms
}

/// Enters as a member does, and compares.
fn enter((slot, topic, members_max): &Join, shards: &mut [(Model, Hub)], shard: usize) {
    let members = rooms(shards).get(&**topic).copied().unwrap_or_default();
    let full = topic.starts_with("cr:") && *members_max > 0 && members >= *members_max;
    let (model, hub) = &mut shards[shard];
    let conn = model.conns.get_mut(slot).filter(|_| !topic.is_empty() && !full);
    let expected = conn.is_some_and(|conn| conn.topics.insert(topic.to_string()));
    assert_eq!(hub.join(*slot, topic, *members_max), expected, "{members} in {topic}");
}

proptest! {
    #![proptest_config(config())]

    /// Whoever brings them in and however they leave, members count while they are there.
    #[test]
    fn members_of_rooms_are_counted_over_all_shards(
        steps in prop::collection::vec(
            (0..usize::from(SHARDS), prop::option::weighted(0.7, step()), join()),
            1..80,
        ),
    ) {
        let limits = Arc::<RoomLimits>::default();
        let mut shards = Vec::from_iter((0..SHARDS).map(|_| (Model::default(), Hub::new())));
        shards.iter_mut().for_each(|(_, hub)| hub.count_rooms(limits.clone()));
        let empty = SLOTS.map(|slot| (Some(Step::Remove(slot)), (slot, "".into(), 0)));
        let empty = (0..shards.len()).flat_map(|shard| {
            empty.clone().map(|(step, join)| (shard, step, join))
        });
        for (shard, step, join) in steps.into_iter().chain(empty) {
            match step {
                None => enter(&join, &mut shards, shard),
                Some(step) => {
                    let (model, hub) = &mut shards[shard];
                    apply(&step, model, hub);
                }
            }
            shards[shard].1.check();
            let rooms = rooms(&shards);
            prop_assert_eq!(limits.len(), rooms.len());
            for (room, members) in rooms {
                prop_assert_eq!(limits.members(room), members, "{}", room);
            }
        }
        prop_assert!(limits.is_empty());
    }
}

#[test]
fn an_empty_hub_answers_as_nobody_would() {
    let hub = Hub::new();
    let names = ["".into(), "x".into()];
    for query in queries(vec![ConnId::new(0, 0, 1)], &names, &names, Want::default()) {
        assert_eq!(hub.answer(&query), Answer::empty(&query));
        assert_eq!(Answer::empty(&query).finish(&query), Answer::empty(&query));
    }
}

/// netsvr section 6.7: a topic whose members have no user is present, with nobody in it.
#[test]
fn a_topic_of_guests_has_an_entry_without_users() {
    let mut hub = Hub::new();
    hub.insert(ConnId::new(0, 4, 1));
    hub.subscribe(4, "t");
    let names = || vec!["t".into(), "unknown".into(), "".into()];
    let users = hub.answer(&Query::TopicUsers(Some(names())));
    assert_eq!(users, Answer::TopicUsers(vec![("t".into(), vec![])]));
    let conns = hub.answer(&Query::TopicUserConns(names()));
    assert_eq!(conns, Answer::TopicUserConns(vec![("t".into(), vec![])]));
}

/// netsvr section 6.5: topics in the order of the list, each as often as it is listed.
#[test]
fn topics_are_walked_in_the_order_of_the_list() {
    let mut hub = Hub::new();
    for slot in 0..3 {
        hub.insert(ConnId::new(0, slot, 1));
    }
    hub.subscribe(2, "a");
    hub.subscribe(1, "b");
    hub.subscribe(0, "b");
    let mut walked = Vec::new();
    let target = Target::Topics(["b", "a", "", "b"].map(Into::into).into());
    hub.for_each(&target, |slot| walked.push(slot));
    assert_eq!(walked, [1, 0, 2, 1, 0]);
}

#[test]
fn a_connection_in_a_thousand_topics_leaves_no_trace() {
    let mut hub = Hub::new();
    let names: Vec<Box<str>> = (0..1000).map(|n| format!("topic {n}").into()).collect();
    for slot in 0..4 {
        hub.insert(ConnId::new(0, slot, 1));
        let topics = Some(TopicChange::Add(names.clone()));
        hub.change(slot, &Change { topics, ..Change::default() });
    }
    hub.check();
    for left in (0..4).rev() {
        assert_eq!(hub.remove(left).expect("registered").topics.len(), 1000);
        hub.check();
        assert_eq!(hub.topic_len("topic 7"), left as usize);
        assert_eq!(hub.subscriptions(), left as usize * 1000);
    }
    assert_eq!((hub.topics(), hub.len()), (0, 0));
}
