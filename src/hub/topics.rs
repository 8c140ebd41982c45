//! Topics, their subscribers, and what each connection is subscribed to.
//!
//! Both ends of a subscription know where the other stands: the topic's array holds (slot, place in
//! the connection's list), the connection's list holds (topic, place in the topic's array).
//! Invariants: the two ends name each other; a topic exists while it has a subscriber; a connection
//! stands at most once in a topic.
//! Costs: a publish walks one dense array, 8 bytes per subscriber. Subscribe and unsubscribe are
//! O(1) and touch at most one other subscription at each end. A connection with one topic owns no
//! heap memory for it, one with more 8 bytes per topic, above [`SCAN_MAX`] a hash index as well.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::hub::names::{Names, VEC_KEPT, give_back, give_back_table};

/// Longest list that is scanned for a topic: 256 bytes, four cache lines.
const SCAN_MAX: usize = 32;

/// The topic's end of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscriber {
    pub slot: u32,
    /// In the connection's [`Subscriptions`].
    pub place: u32,
}

/// The connection's end of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub topic: u32,
    /// In the topic's array.
    pub place: u32,
}

/// All topics of a shard.
pub(super) struct Topics {
    names: Names<Vec<Subscriber>>,
    subscriptions: usize,
}

impl Topics {
    pub fn new() -> Topics {
        Topics { names: Names::new(), subscriptions: 0 }
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Subscriptions of all topics together.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions
    }

    pub fn find(&self, name: &str) -> Option<u32> {
        self.names.find(name)
    }

    /// The name of the topic, if there is one of this index.
    pub fn get(&self, topic: u32) -> Option<&Arc<str>> {
        self.names.get(topic)
    }

    /// No topic has this index or a larger one.
    pub fn end(&self) -> u32 {
        self.names.end()
    }

    /// Of a topic that exists; so for all that follow.
    pub fn name(&self, topic: u32) -> &Arc<str> {
        self.names.name(topic)
    }

    pub fn subscribers(&self, topic: u32) -> &[Subscriber] {
        self.names.thing(topic)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Arc<str>, &[Subscriber])> {
        let topics = self.names.iter();
        topics.map(|(topic, name, list)| (topic, name, list.as_slice()))
    }

    /// Finds or makes the topic. A new one must be joined or closed at once. `name` must not be
    /// empty.
    pub fn open(&mut self, name: &str) -> u32 {
        debug_assert!(!name.is_empty());
        self.names.open(name)
    }

    /// Adds a connection that is not in the topic; returns its place.
    pub fn join(&mut self, topic: u32, subscriber: Subscriber) -> u32 {
        let list = self.names.thing_mut(topic);
        let place = list.len() as u32;
        list.push(subscriber);
        self.subscriptions += 1;
        place
    }

    /// Gives up a place; the subscriber that is returned moved into it. With the last one the
    /// topic ends.
    pub fn leave(&mut self, gone: Subscription) -> Option<Subscriber> {
        let list = self.names.thing_mut(gone.topic);
        list.swap_remove(gone.place as usize);
        let moved = list.get(gone.place as usize).copied();
        if list.is_empty() {
            self.names.remove(gone.topic);
        } else {
            give_back(list);
        }
        self.subscriptions -= 1;
        moved
    }

    /// Ends the topic if nobody has joined it.
    pub fn close_unused(&mut self, topic: u32) {
        if self.names.thing(topic).is_empty() {
            self.names.remove(topic);
        }
    }

    /// Ends the topic; returns those who were in it.
    pub fn take(&mut self, topic: u32) -> Vec<Subscriber> {
        let list = self.names.remove(topic);
        self.subscriptions -= list.len();
        list
    }

    /// A connection's end of a subscription moved to `place` in its list.
    pub fn moved(&mut self, subscription: Subscription, place: u32) {
        self.names.thing_mut(subscription.topic)[subscription.place as usize].place = place;
    }

    /// Panics if an invariant that concerns the topics alone does not hold.
    pub fn check(&self) {
        self.names.check();
        let mut subscriptions = 0;
        for (_, name, list) in self.names.iter() {
            assert!(!name.is_empty() && !list.is_empty());
            assert!(list.capacity() <= VEC_KEPT.max(4 * list.len() + 4));
            subscriptions += list.len();
        }
        assert_eq!(subscriptions, self.subscriptions);
    }
}

/// What one connection is subscribed to. `Few` has two at least, or none.
pub(super) enum Subscriptions {
    One(Subscription),
    Few(Vec<Subscription>),
    Many(Box<Indexed>),
}

const _: () = assert!(size_of::<Subscriptions>() <= 24);

impl Default for Subscriptions {
    fn default() -> Subscriptions {
        Subscriptions::Few(Vec::new())
    }
}

impl Subscriptions {
    pub fn as_slice(&self) -> &[Subscription] {
        match self {
            Subscriptions::One(only) => std::slice::from_ref(only),
            Subscriptions::Few(list) => list,
            Subscriptions::Many(indexed) => &indexed.list,
        }
    }

    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub fn contains(&self, topic: u32) -> bool {
        self.place_of(topic).is_some()
    }

    /// Where the topic stands in the list.
    pub fn place_of(&self, topic: u32) -> Option<u32> {
        match self {
            Subscriptions::Many(indexed) => indexed.place_of(topic),
            _ => {
                let mut topics = self.as_slice().iter().map(|s| s.topic);
                topics.position(|t| t == topic).map(|at| at as u32)
            }
        }
    }

    /// Adds a topic that is not in the list, at its end.
    pub fn push(&mut self, new: Subscription) {
        match self {
            Subscriptions::One(first) => *self = Subscriptions::Few(vec![*first, new]),
            Subscriptions::Few(list) if list.is_empty() => *self = Subscriptions::One(new),
            Subscriptions::Few(list) if list.len() < SCAN_MAX => list.push(new),
            Subscriptions::Few(list) => {
                let mut indexed = Box::new(Indexed::new(std::mem::take(list)));
                indexed.push(new);
                *self = Subscriptions::Many(indexed);
            }
            Subscriptions::Many(indexed) => indexed.push(new),
        }
    }

    /// Removes what stands at `place`; returns it, and what stands there now.
    pub fn swap_remove(&mut self, place: u32) -> (Subscription, Option<Subscription>) {
        let at = place as usize;
        match self {
            Subscriptions::One(only) => {
                let gone = *only;
                *self = Subscriptions::default();
                (gone, None)
            }
            Subscriptions::Few(list) => {
                let gone = list.swap_remove(at);
                let moved = list.get(at).copied();
                match list[..] {
                    [only] => *self = Subscriptions::One(only),
                    _ => give_back(list),
                }
                (gone, moved)
            }
            Subscriptions::Many(indexed) => {
                let gone = indexed.swap_remove(at);
                let moved = indexed.list.get(at).copied();
                // Half of the bound, so that a list around it is not converted over and over.
                if indexed.list.len() <= SCAN_MAX / 2 {
                    let mut list = std::mem::take(&mut indexed.list);
                    give_back(&mut list);
                    *self = Subscriptions::Few(list);
                }
                (gone, moved)
            }
        }
    }

    /// The topic's end of what stands at `at` moved to `place` in the topic's array.
    pub fn moved(&mut self, at: u32, place: u32) {
        let list = match self {
            Subscriptions::One(only) => std::slice::from_mut(only),
            Subscriptions::Few(list) => list,
            Subscriptions::Many(indexed) => &mut indexed.list,
        };
        list[at as usize].place = place;
    }

    /// Panics if the list has the wrong form for its length or its index is wrong.
    pub fn check(&self) {
        match self {
            Subscriptions::One(_) => {}
            Subscriptions::Few(list) => {
                assert!(list.len() != 1 && list.len() <= SCAN_MAX);
                assert!(list.capacity() <= VEC_KEPT.max(4 * list.len() + 4));
            }
            Subscriptions::Many(indexed) => {
                let list = &indexed.list;
                assert!(list.len() > SCAN_MAX / 2 && indexed.index.len() == list.len());
                for (at, subscription) in list.iter().enumerate() {
                    assert_eq!(indexed.place_of(subscription.topic), Some(at as u32));
                }
            }
        }
    }
}

/// A list with an index from topic to place in the list.
pub(super) struct Indexed {
    list: Vec<Subscription>,
    index: HashTable<u32>,
}

impl Indexed {
    fn new(list: Vec<Subscription>) -> Indexed {
        let mut indexed = Indexed {
            list: Vec::with_capacity(2 * list.len()),
            index: HashTable::with_capacity(2 * list.len()),
        };
        list.into_iter().for_each(|old| indexed.push(old));
        indexed
    }

    fn place_of(&self, topic: u32) -> Option<u32> {
        let is_it = |&at: &u32| self.list[at as usize].topic == topic;
        self.index.find(scatter(topic), is_it).copied()
    }

    fn push(&mut self, new: Subscription) {
        let at = self.list.len() as u32;
        self.list.push(new);
        let list = &self.list;
        let rehash = |&at: &u32| scatter(list[at as usize].topic);
        self.index.insert_unique(scatter(new.topic), at, rehash);
    }

    fn swap_remove(&mut self, at: usize) -> Subscription {
        let last = self.list.len() - 1;
        let (gone, moved) = (self.list[at], self.list[last]);
        let entry = self.index.find_entry(scatter(gone.topic), |&p| p as usize == at);
        debug_assert!(entry.is_ok());
        if let Ok(entry) = entry {
            entry.remove();
        }
        let place = self.index.find_mut(scatter(moved.topic), |&p| p as usize == last);
        if let Some(place) = place {
            *place = at as u32;
        }
        self.list.swap_remove(at);
        give_back(&mut self.list);
        let list = &self.list;
        give_back_table(&mut self.index, |&at| scatter(list[at as usize].topic));
        gone
    }
}

/// Topic indexes are small numbers that the gateway gives out; this only spreads them.
fn scatter(topic: u32) -> u64 {
    let product = u64::from(topic).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ product >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(topic: u32) -> Subscription {
        Subscription { topic, place: topic }
    }

    #[test]
    fn a_list_keeps_its_form_at_every_length() {
        let mut list = Subscriptions::default();
        for topic in 0..5000 {
            assert!(!list.contains(topic));
            list.push(numbered(topic));
            assert_eq!(list.place_of(topic), Some(topic));
            if topic < 100 {
                list.check();
            }
        }
        list.check();
        assert!(matches!(list, Subscriptions::Many(_)));
        for left in (0..5000).rev() {
            let (gone, moved) = list.swap_remove(left / 2);
            assert!(!list.contains(gone.topic));
            assert_eq!(moved, list.as_slice().get(left as usize / 2).copied());
            assert_eq!(list.len(), left as usize);
            if left < 100 {
                list.check();
            }
        }
    }

    #[test]
    fn an_indexed_list_that_shrank_gives_memory_back() {
        let mut list = Subscriptions::default();
        (0..5000).for_each(|topic| list.push(numbered(topic)));
        while list.len() > 100 {
            list.swap_remove(0);
        }
        let Subscriptions::Many(indexed) = &list else {
            panic!("100 topics without an index");
        };
        assert!(indexed.list.capacity() <= 400 && indexed.index.capacity() <= 900);
        list.check();
    }

    #[test]
    fn a_topic_that_shrank_gives_memory_back() {
        let mut topics = Topics::new();
        let topic = topics.open("t");
        for slot in 0..1000 {
            let place = topics.join(topic, Subscriber { slot, place: 0 });
            assert_eq!(place, slot);
        }
        for place in (1..1000).rev() {
            assert_eq!(topics.leave(Subscription { topic, place }), None);
            topics.check();
        }
        assert_eq!(topics.subscribers(topic), [Subscriber { slot: 0, place: 0 }]);
        assert_eq!(topics.leave(Subscription { topic, place: 0 }), None);
        assert_eq!((topics.find("t"), topics.subscriptions()), (None, 0));
    }
}
