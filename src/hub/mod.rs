//! The state and the rules that all protocols share, for one shard: which connections are
//! registered, which user each belongs to, what the application remembers about it, and which
//! topics it is in. Everything is addressed by slot.
//!
//! Invariants: users and topics exist while they have a connection; every position that one side
//! keeps of the other is right ([`Hub::check`]); empty names are nobody's.
//! Costs: registering, binding, subscribing, leaving and looking up are O(1), disconnecting is
//! O(own topics), a push walks one dense array per topic. Walks allocate nothing, except for a
//! target of several users (one list of their indexes).
//! Nothing depends on the order of a hash table, so a simulation replays exactly.

pub mod client_id;
pub mod context;
pub mod heaps;
mod id;
pub mod limits;
pub mod login;
pub mod mesh;
mod names;
pub mod push;
pub mod queries;
pub mod queues;
pub mod rooms;
mod segments;
mod sessions;
mod topics;
mod users;
pub mod walk;

use std::sync::Arc;

pub use id::{ConnId, Rotation};
use limits::BucketRules;
use mesh::{Bucket, Occupancy, Space};
use push::{Change, Target, TopicChange};
use rooms::{Counted, RoomLimits, room_of};
use sessions::Members;
use topics::{Subscriber, Subscription, Topics};
use users::{UserSeat, Users};

use crate::spare::Look;

/// See the module. Methods that take a slot do nothing, or return nothing, when no connection is
/// registered there.
pub struct Hub {
    members: Members,
    users: Users,
    topics: Topics,
    /// Buckets of the names here; only in a mesh.
    occupancy: Option<Box<Occupancy>>,
    /// Members of rooms; only where they are limited.
    rooms: Option<Box<Counted>>,
}

/// What a connection had when it was removed (netsvr section 5.1, `ConnClose`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departed {
    /// Empty when it had none.
    pub user: Arc<str>,
    pub session: Box<str>,
    pub topics: Vec<Arc<str>>,
}

impl Default for Hub {
    fn default() -> Hub {
        Hub::new()
    }
}

impl Hub {
    /// A hub without connections; allocates nothing.
    pub fn new() -> Hub {
        Hub {
            members: Members::default(),
            users: Users::new(),
            topics: Topics::new(),
            occupancy: None,
            rooms: None,
        }
    }

    /// Begins to count the buckets of topics and users, for a mesh. Only while nobody is here.
    pub fn count_buckets(&mut self) {
        debug_assert!(self.is_empty());
        self.occupancy = Some(Occupancy::new());
    }

    /// The buckets of the names here; `None` unless they are counted.
    pub fn occupancy(&mut self) -> Option<&mut Occupancy> {
        self.occupancy.as_deref_mut()
    }

    /// Begins to count the members of rooms together with other hubs. Only while nobody is here.
    pub fn count_rooms(&mut self, limits: Arc<RoomLimits>) {
        debug_assert!(self.is_empty());
        self.rooms = Some(Box::new(Counted::new(limits)));
    }

    /// Takes a token for a message to a room that has members here; true if rooms are not counted.
    pub fn room_message(&self, topic: &str, now_ms: u64, rules: BucketRules) -> bool {
        self.rooms.as_ref().is_none_or(|rooms| rooms.message(topic, now_ms, rules))
    }

    /// Gives back what a peak took, beside the users and topics, whose tables shrink by themselves.
    pub fn give_back(&mut self, look: &mut Look) {
        self.members.give_back(look);
        if let Some(occupancy) = &mut self.occupancy {
            occupancy.give_back(look);
        }
    }

    /// Registers a connection, without user, session and topics. Its slot must be free.
    pub fn insert(&mut self, id: ConnId) {
        let stale = self.remove(id.slot());
        debug_assert!(stale.is_none(), "slot of {id:?} is taken");
        self.members.insert(id);
    }

    /// Ends the registration: the connection leaves its user and its topics. `None` if there was
    /// none.
    pub fn remove(&mut self, slot: u32) -> Option<Departed> {
        let member = self.members.remove(slot)?;
        let user = match member.user.user() {
            Some(user) => self.users.name(user).clone(),
            None => Arc::default(),
        };
        self.unbind(member.user);
        let left = member.topics.as_slice();
        let topics = left.iter().map(|s| self.topics.name(s.topic).clone()).collect();
        left.iter().for_each(|&s| self.leave(s));
        let session = member.session.unwrap_or_default();
        Some(Departed { user, session, topics })
    }

    /// The slot of a connection, if it is registered here and is still the one that the id names.
    pub fn slot_of(&self, id: ConnId) -> Option<u32> {
        let slot = id.slot();
        (self.id_of(slot)? == id).then_some(slot)
    }

    /// The id of the connection that is registered in the slot.
    pub fn id_of(&self, slot: u32) -> Option<ConnId> {
        Some(self.members.get(slot)?.id)
    }

    /// Registered connections.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether no connection is registered.
    pub fn is_empty(&self) -> bool {
        self.members.len() == 0
    }

    /// The connection's user; empty when it has none.
    pub fn user(&self, slot: u32) -> &str {
        let user = self.members.get(slot).and_then(|member| member.user.user());
        user.map_or("", |user| self.users.name(user))
    }

    /// What the application remembers about the connection; empty when nothing.
    pub fn session(&self, slot: u32) -> &str {
        let member = self.members.get(slot);
        member.and_then(|member| member.session.as_deref()).unwrap_or_default()
    }

    /// The connection's topics, in no useful order.
    pub fn topics_of(&self, slot: u32) -> impl ExactSizeIterator<Item = &Arc<str>> + Clone {
        let member = self.members.get(slot);
        let subscriptions = member.map_or(&[][..], |member| member.topics.as_slice());
        subscriptions.iter().map(|s| self.topics.name(s.topic))
    }

    /// Applies the change: session, then user, then topics (netsvr section 6.3). Empty strings
    /// clear the session and the user; empty topic names are skipped.
    pub fn change(&mut self, slot: u32, change: &Change) {
        if let Some(session) = &change.session {
            self.set_session(slot, session);
        }
        if let Some(user) = &change.user {
            self.set_user(slot, user);
        }
        match &change.topics {
            None => {}
            Some(TopicChange::Replace(names)) => {
                self.unsubscribe_all(slot);
                names.iter().for_each(|name| _ = self.subscribe(slot, name));
            }
            Some(TopicChange::Add(names)) => {
                names.iter().for_each(|name| _ = self.subscribe(slot, name));
            }
            Some(TopicChange::Remove(names)) => {
                names.iter().for_each(|name| _ = self.unsubscribe(slot, name));
            }
        }
    }

    /// Replaces the session; the empty string clears it.
    pub fn set_session(&mut self, slot: u32, session: &str) {
        if let Some(member) = self.members.get_mut(slot) {
            member.session = (!session.is_empty()).then(|| session.into());
        }
    }

    /// Moves the connection to a user; the empty string leaves it without one.
    pub fn set_user(&mut self, slot: u32, user: &str) {
        let Some(member) = self.members.get_mut(slot) else {
            return;
        };
        let old = member.user;
        if old.user().is_some_and(|old| **self.users.name(old) == *user) {
            return;
        }
        member.user = UserSeat::NONE;
        self.unbind(old);
        if user.is_empty() {
            return;
        }
        let seat = self.users.bind(user, slot);
        if let Some(occupancy) = &mut self.occupancy
            && seat.is_first()
        {
            occupancy.enter(Space::Users, user);
        }
        if let Some(member) = self.members.get_mut(slot) {
            member.user = seat;
        }
    }

    /// Adds the connection to a topic. False if it was in it already or the name is empty.
    pub fn subscribe(&mut self, slot: u32, topic: &str) -> bool {
        self.join(slot, topic, 0)
    }

    /// Like [`Hub::subscribe`]. False as well if the topic is a room with `members_max` members in
    /// all hubs that count together; 0 is no limit.
    pub fn join(&mut self, slot: u32, topic: &str, members_max: u32) -> bool {
        let Some(member) = self.members.get_mut(slot) else {
            return false;
        };
        if topic.is_empty() {
            return false;
        }
        let name = topic;
        let topic = self.topics.open(name);
        if member.topics.contains(topic) {
            return false;
        }
        let here = self.topics.subscribers(topic).len();
        if let Some(rooms) = &mut self.rooms
            && !rooms.enter(name, here, members_max)
        {
            self.topics.close_unused(topic);
            return false;
        }
        let place = member.topics.len() as u32;
        let place = self.topics.join(topic, Subscriber { slot, place });
        member.topics.push(Subscription { topic, place });
        if let Some(occupancy) = &mut self.occupancy
            && place == 0
        {
            occupancy.enter(Space::Topics, name);
        }
        true
    }

    /// Takes the connection out of a topic. False if it was not in it.
    pub fn unsubscribe(&mut self, slot: u32, topic: &str) -> bool {
        let Some(member) = self.members.get_mut(slot) else {
            return false;
        };
        let topic = self.topics.find(topic);
        let Some(place) = topic.and_then(|topic| member.topics.place_of(topic)) else {
            return false;
        };
        let (gone, moved) = member.topics.swap_remove(place);
        if let Some(moved) = moved {
            self.topics.moved(moved, place);
        }
        self.leave(gone);
        true
    }

    /// Takes the connection out of all its topics.
    pub fn unsubscribe_all(&mut self, slot: u32) {
        if let Some(member) = self.members.get_mut(slot) {
            let left = std::mem::take(&mut member.topics);
            left.as_slice().iter().for_each(|&gone| self.leave(gone));
        }
    }

    /// Ends a topic and appends the slots of those who were in it. Over several topics a slot can
    /// come several times.
    pub fn delete_topic(&mut self, topic: &str, lost: &mut Vec<u32>) {
        let name = topic;
        let Some(topic) = self.topics.find(name) else {
            return;
        };
        if let Some(occupancy) = &mut self.occupancy {
            occupancy.leave(Space::Topics, name);
        }
        let subscribers = self.topics.take(topic);
        if let Some(rooms) = &mut self.rooms {
            rooms.leave(name, subscribers.len(), 0);
        }
        lost.reserve(subscribers.len());
        for Subscriber { slot, place } in subscribers {
            lost.push(slot);
            let Some(member) = self.members.get_mut(slot) else {
                continue;
            };
            let (_, moved) = member.topics.swap_remove(place);
            if let Some(moved) = moved {
                self.topics.moved(moved, place);
            }
        }
    }

    /// Calls `f` with the slot of each connection that the target reaches here, as often as the
    /// target's rules say (netsvr sections 6.4 and 6.5).
    pub fn for_each(&self, target: &Target, mut f: impl FnMut(u32)) {
        match target {
            Target::Conns(ids) => {
                ids.iter().filter_map(|&id| self.slot_of(id)).for_each(f);
            }
            Target::Users(names) => {
                if let [name] = &names[..] {
                    let user = self.users.find(name);
                    user.iter().for_each(|&user| self.for_each_of(user, &mut f));
                } else {
                    let users = self.users.find_all(names);
                    users.iter().for_each(|&user| self.for_each_of(user, &mut f));
                }
            }
            Target::Topics(names) => {
                names.iter().for_each(|name| self.for_each_in(name, &mut f));
            }
            Target::All => self.members.for_each_slot(f),
        }
    }

    /// Calls `f` with the slot of each member of a topic.
    pub fn for_each_in(&self, topic: &str, mut f: impl FnMut(u32)) {
        if let Some(topic) = self.topics.find(topic) {
            let subscribers = self.topics.subscribers(topic);
            subscribers.iter().for_each(|subscriber| f(subscriber.slot));
        }
    }

    /// Whether the connection is in a topic.
    pub fn is_in(&self, slot: u32, topic: &str) -> bool {
        let member = self.members.get(slot);
        let topic = self.topics.find(topic);
        member.zip(topic).is_some_and(|(member, topic)| member.topics.contains(topic))
    }

    /// Members of a topic; 0 if there is none of this name.
    pub fn topic_len(&self, topic: &str) -> usize {
        let topic = self.topics.find(topic);
        topic.map_or(0, |topic| self.topics.subscribers(topic).len())
    }

    /// Users with at least one connection.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Topics with at least one member.
    pub fn topics(&self) -> usize {
        self.topics.len()
    }

    /// Every user is at a place below this one.
    pub fn user_places(&self) -> u32 {
        self.users.end()
    }

    /// The user at a place, and how many connections it has.
    pub fn user_at(&self, place: u32) -> Option<(&Arc<str>, usize)> {
        Some((self.users.get(place)?, self.users.conns(place).len()))
    }

    /// Every topic is at a place below this one.
    pub fn topic_places(&self) -> u32 {
        self.topics.end()
    }

    /// The topic at a place, and how many members it has.
    pub fn topic_at(&self, place: u32) -> Option<(&Arc<str>, usize)> {
        Some((self.topics.get(place)?, self.topics.subscribers(place).len()))
    }

    /// Members of all topics together.
    pub fn subscriptions(&self) -> usize {
        self.topics.subscriptions()
    }

    /// For tests: panics if any invariant of the hub does not hold. Walks everything.
    pub fn check(&self) {
        self.members.check();
        self.users.check();
        self.topics.check();
        let (mut bound, mut subscriptions) = (0, 0);
        for member in self.members.iter() {
            member.topics.check();
            bound += usize::from(member.user.user().is_some());
            subscriptions += member.topics.len();
        }
        for (user, name, conns) in self.users.iter() {
            bound -= conns.len();
            for (place, &slot) in conns.iter().enumerate() {
                let seat = self.members.get(slot).map(|member| member.user);
                let expected = UserSeat::at(user, place as u32);
                assert_eq!(seat, Some(expected), "user {name}, slot {slot}");
            }
        }
        for (topic, name, subscribers) in self.topics.iter() {
            subscriptions -= subscribers.len();
            for (place, &Subscriber { slot, place: at }) in subscribers.iter().enumerate() {
                let member = self.members.get(slot).expect("a subscriber is registered");
                let place = place as u32;
                let expected = Subscription { topic, place };
                assert_eq!(member.topics.as_slice()[at as usize], expected, "{name}, {slot}");
            }
        }
        assert_eq!((bound, subscriptions), (0, 0), "connections that no list has");
        self.check_buckets();
        if let Some(rooms) = &self.rooms {
            let topics = self.topics.iter().map(|(_, name, _)| &**name);
            rooms.check(topics.filter(|name| room_of(name).is_some()));
        }
    }

    fn check_buckets(&self) {
        let Some(occupancy) = &self.occupancy else { return };
        let mut counts = hashbrown::HashMap::<Bucket, u32>::new();
        for (_, name, _) in self.topics.iter() {
            *counts.entry(Bucket::of(Space::Topics, name)).or_default() += 1;
        }
        for (_, name, _) in self.users.iter() {
            *counts.entry(Bucket::of(Space::Users, name)).or_default() += 1;
        }
        for space in [Space::Topics, Space::Users] {
            for number in 0..mesh::BUCKETS as u16 {
                let bucket = Bucket { space, number };
                let names = counts.get(&bucket).copied().unwrap_or_default();
                assert_eq!(occupancy.names(bucket), names, "{bucket:?}");
            }
        }
    }

    fn for_each_of(&self, user: u32, f: impl FnMut(u32)) {
        self.users.conns(user).iter().copied().for_each(f);
    }

    /// Gives up a seat that no member holds any more.
    fn unbind(&mut self, seat: UserSeat) {
        let Some(user) = seat.user() else {
            return;
        };
        if let Some(occupancy) = &mut self.occupancy
            && self.users.conns(user).len() == 1
        {
            occupancy.leave(Space::Users, self.users.name(user));
        }
        let moved = self.users.unbind(seat);
        if let Some(member) = moved.and_then(|slot| self.members.get_mut(slot)) {
            member.user = seat;
        }
    }

    /// Gives up the topic's end of a subscription that no member's list holds any more.
    fn leave(&mut self, gone: Subscription) {
        if let Some(occupancy) = &mut self.occupancy
            && self.topics.subscribers(gone.topic).len() == 1
        {
            occupancy.leave(Space::Topics, self.topics.name(gone.topic));
        }
        if let Some(rooms) = &mut self.rooms {
            let here = self.topics.subscribers(gone.topic).len() - 1;
            rooms.leave(self.topics.name(gone.topic), 1, here);
        }
        let Some(moved) = self.topics.leave(gone) else {
            return;
        };
        if let Some(member) = self.members.get_mut(moved.slot) {
            member.topics.moved(moved.place, gone.place);
        }
    }
}
