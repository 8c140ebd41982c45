//! Rooms: topics that clients join by themselves, with messages in batches (IM section 11).
//!
//! Room X is the topic `cr:X`. Every message of a room passes through the room's [`home`] shard,
//! which puts them into one order for the whole process and carries each to all shards; a shard
//! collects what came for a room in an open [`Batch`] until it is due.
//!
//! Invariants: a batch has at least one message, at most [`Bounds::messages_max`], and more than
//! [`Bounds::bytes_max`] only if it has one; the messages are in the order in which they came. A
//! room without an open batch takes no memory here.
//! Costs: adding a message is one hash of the room's name; the message itself is shared.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hashbrown::HashMap;

use crate::hub::ConnId;
use crate::hub::limits::{BucketRules, SharedBucket};
use crate::hub::names::Names;
use crate::hub::push::Payload;

/// What the topics of rooms begin with.
pub const PREFIX: &str = "cr:";

/// The room of a topic; `None` if it is an ordinary topic.
pub fn room_of(topic: &str) -> Option<&str> {
    topic.strip_prefix(PREFIX)
}

/// The topic of a room.
pub fn topic_of(room: &str) -> String {
    [PREFIX, room].concat()
}

/// The shard that puts the messages of a room into their order (FNV-1a over the topic).
pub fn home(topic: &str, shards: usize) -> u8 {
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let hash = topic.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    ((hash ^ hash >> 32) % shards.max(1) as u64) as u8
}

/// One message for a room, as every shard gets it.
#[derive(Debug)]
pub struct RoomMessage {
    pub topic: Box<str>,
    /// The message as a batch carries it, encoded once.
    pub element: Bytes,
    /// What members that speak other protocols get; `None` if it reaches them another way.
    pub content: Option<Arc<Payload>>,
    /// The connection that sent it, which gets no copy.
    pub sender: Option<ConnId>,
}

/// When a batch is due before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub messages_max: usize,
    /// Serialized size with the name of the room.
    pub bytes_max: usize,
    /// Nothing waits for anything.
    pub at_once: bool,
}

/// Messages of one room that leave in one notification.
#[derive(Debug, Default)]
pub struct Batch {
    pub messages: Vec<Arc<RoomMessage>>,
    /// Serialized size with the name of the room.
    pub bytes: usize,
}

/// What became of a message.
#[derive(Debug, Default)]
pub struct Added {
    /// Was open and has no room for it: to be sent first.
    pub before: Option<Batch>,
    /// Is full with it: to be sent now.
    pub full: Option<Batch>,
    /// Number of the room, for the timer of its batch.
    pub room: u32,
    /// It has opened a batch, whose time begins.
    pub opened: bool,
}

/// The open batches of one shard.
#[derive(Default)]
pub struct Rooms {
    open: Names<Batch>,
}

impl Rooms {
    /// Adds a message to the batch of its room. `name_bytes` is what the name of the room takes in
    /// a notification.
    pub fn add(&mut self, message: Arc<RoomMessage>, name_bytes: usize, bounds: Bounds) -> Added {
        let room = self.open.open(&message.topic);
        let batch = self.open.thing_mut(room);
        let mut added = Added { room, ..Added::default() };
        let size = message.element.len();
        if !batch.messages.is_empty() && batch.bytes + size > bounds.bytes_max {
            added.before = Some(std::mem::take(batch));
        }
        if batch.messages.is_empty() {
            added.opened = true;
            batch.bytes = name_bytes;
        }
        batch.bytes += size;
        batch.messages.push(message);
        let many = batch.messages.len() >= bounds.messages_max;
        if bounds.at_once || many || batch.bytes > bounds.bytes_max {
            added.full = self.take(room);
            added.opened = false;
        }
        added
    }

    /// Takes the open batch of a room, by its number. The number is free after that.
    pub fn take(&mut self, room: u32) -> Option<Batch> {
        let batch = self.open.remove(room);
        (!batch.messages.is_empty()).then_some(batch)
    }

    /// Open batches.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether no batch is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// For tests: panics if an invariant does not hold.
    pub fn check(&self, bounds: Bounds) {
        self.open.check();
        for (_, topic, batch) in self.open.iter() {
            let count = batch.messages.len();
            assert!(count > 0 && count < bounds.messages_max.max(2), "{topic}: {count} messages");
            assert!(batch.bytes <= bounds.bytes_max, "{topic}: {} bytes", batch.bytes);
            assert!(!bounds.at_once, "{topic} waits");
            assert!(batch.messages.iter().all(|message| message.topic[..] == topic[..]));
        }
    }
}

/// What the shards of a process share about rooms, where a limit on members or messages is set:
/// how many members a room has, and how many messages it may take. Locked when a shard gets its
/// first member of a room or loses the last one; otherwise one atomic operation.
#[derive(Debug, Default)]
pub struct RoomLimits {
    rooms: Mutex<HashMap<Box<str>, Arc<Share>>>,
}

#[derive(Debug, Default)]
struct Share {
    members: AtomicU32,
    messages: SharedBucket,
}

/// One shard's part in [`RoomLimits`]: of each room with members here, how many it has counted.
#[derive(Default)]
pub struct Counted {
    rooms: Names<Count>,
}

#[derive(Default)]
struct Count {
    members: u32,
    share: Option<Arc<Share>>,
}

impl RoomLimits {
    /// Rooms that have members.
    pub fn len(&self) -> usize {
        self.locked().len()
    }

    /// Whether no room has members.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<Box<str>, Arc<Share>>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, topic: &str) -> Arc<Share> {
        self.locked().entry_ref(topic).or_default().clone()
    }

    /// Gives a share back; the last one takes the room with it.
    fn close(&self, topic: &str, share: Arc<Share>) {
        let mut rooms = self.locked();
        // Only the table and this one: nobody can take another while the table is locked.
        if Arc::strong_count(&share) == 2 {
            rooms.remove(topic);
        }
    }
}

impl Counted {
    /// Counts one more member, unless the room has `members_max` on all shards together; 0 is no
    /// limit.
    pub fn enter(&mut self, limits: &RoomLimits, topic: &str, members_max: u32) -> bool {
        let room = self.rooms.open(topic);
        let count = self.rooms.thing_mut(room);
        let share = count.share.get_or_insert_with(|| limits.open(topic));
        let one_more = |members| (members_max == 0 || members < members_max).then_some(members + 1);
        let relaxed = Ordering::Relaxed;
        let entered = share.members.fetch_update(relaxed, relaxed, one_more).is_ok();
        count.members += u32::from(entered);
        if count.members == 0 {
            self.forget(limits, topic, room);
        }
        entered
    }

    /// The room has so many members on this shard, whatever was counted before.
    pub fn settle(&mut self, limits: &RoomLimits, topic: &str, members: usize) {
        let members = u32::try_from(members).unwrap_or(u32::MAX);
        if members == 0 && self.rooms.find(topic).is_none() {
            return;
        }
        let room = self.rooms.open(topic);
        let count = self.rooms.thing_mut(room);
        let share = count.share.get_or_insert_with(|| limits.open(topic));
        // Wrapping, so that it is one addition whichever way the count goes.
        share.members.fetch_add(members.wrapping_sub(count.members), Ordering::Relaxed);
        count.members = members;
        if members == 0 {
            self.forget(limits, topic, room);
        }
    }

    /// Takes a token for a message to a room that has members here.
    pub fn message(&self, topic: &str, now_ms: u64, rules: BucketRules) -> bool {
        let room = self.rooms.find(topic);
        let share = room.and_then(|room| self.rooms.thing(room).share.as_ref());
        share.is_none_or(|share| share.messages.take(now_ms, rules))
    }

    /// Rooms that have members here.
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Whether no room has members here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn forget(&mut self, limits: &RoomLimits, topic: &str, room: u32) {
        if let Some(share) = self.rooms.remove(room).share {
            limits.close(topic, share);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { messages_max: 4, bytes_max: 100, at_once: false };
    const NAME_BYTES: usize = 6;

    fn message(topic: &str, bytes: usize) -> Arc<RoomMessage> {
        let element = Bytes::from(vec![0; bytes]);
        Arc::new(RoomMessage { topic: topic.into(), element, content: None, sender: None })
    }

    #[test]
    fn a_batch_ends_at_its_bounds() {
        let mut rooms = Rooms::default();
        let mut add = |bytes, bounds| {
            let added = rooms.add(message("cr:a", bytes), NAME_BYTES, bounds);
            rooms.check(bounds);
            let sizes = |batch: Option<Batch>| batch.map(|batch| batch.messages.len());
            (sizes(added.before), sizes(added.full), added.opened)
        };
        assert_eq!(add(10, BOUNDS), (None, None, true));
        assert_eq!(add(84, BOUNDS), (None, None, false), "exactly the bound");
        assert_eq!(add(1, BOUNDS), (Some(2), None, true));
        assert_eq!(add(1, BOUNDS), (None, None, false));
        assert_eq!(add(1, BOUNDS), (None, None, false));
        assert_eq!(add(1, BOUNDS), (None, Some(4), false));
        assert_eq!(add(95, BOUNDS), (None, Some(1), false), "a larger one travels alone");
        assert_eq!(add(1, BOUNDS), (None, None, true));
        assert_eq!(add(95, BOUNDS), (Some(1), Some(1), false));
        assert_eq!(add(1, Bounds { at_once: true, ..BOUNDS }), (None, Some(1), false));
        assert!(rooms.is_empty());
    }

    #[test]
    fn homes_are_spread_over_the_shards() {
        let mut counts = [0; 8];
        (0..8000).for_each(|n| counts[usize::from(home(&format!("cr:room-{n}"), 8))] += 1);
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        assert_eq!(home("cr:x", 1), 0);
    }

    #[test]
    fn members_of_all_shards_share_one_limit() {
        let limits = RoomLimits::default();
        let mut shards = [Counted::default(), Counted::default()];
        assert!((0..3).all(|_| shards[0].enter(&limits, "cr:a", 5)));
        assert!((0..2).all(|_| shards[1].enter(&limits, "cr:a", 5)));
        assert!(!shards[0].enter(&limits, "cr:a", 5) && !shards[1].enter(&limits, "cr:a", 5));
        assert!(shards[1].enter(&limits, "cr:b", 5));
        // A backend has taken two members away and added one elsewhere.
        shards[0].settle(&limits, "cr:a", 1);
        shards[1].settle(&limits, "cr:a", 3);
        assert!(shards[1].enter(&limits, "cr:a", 5) && !shards[0].enter(&limits, "cr:a", 5));
        shards[0].settle(&limits, "cr:a", 0);
        shards[1].settle(&limits, "cr:a", 0);
        assert_eq!((shards[0].len(), shards[1].len(), limits.len()), (0, 1, 1));
        shards[1].settle(&limits, "cr:b", 0);
        assert!(limits.is_empty() && shards[1].is_empty());
        assert!(shards[0].enter(&limits, "cr:a", 1) && !shards[1].enter(&limits, "cr:a", 1));
        assert_eq!(shards[1].len(), 0, "who was refused leaves nothing behind");
    }

    #[test]
    fn messages_of_all_shards_take_from_one_bucket() {
        let limits = RoomLimits::default();
        let mut shards = [Counted::default(), Counted::default()];
        shards.iter_mut().for_each(|shard| shard.settle(&limits, "cr:a", 1));
        let rules = BucketRules { rate: 10, burst: 3 };
        let passed = (0..10).filter(|n| shards[n % 2].message("cr:a", 0, rules)).count();
        assert_eq!(passed, 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Whatever is added comes out once, in order, per room.
        #[test]
        fn batches_keep_every_message_in_order(
            steps in prop::collection::vec((0..3_usize, 1..120_usize, any::<bool>()), 0..200),
        ) {
            let mut rooms = Rooms::default();
            let mut sent: Vec<Vec<usize>> = vec![Vec::new(); 3];
            let mut seen = sent.clone();
            let mut open: HashMap<u32, usize> = HashMap::new();
            let mut take = |room: usize, batch: Option<Batch>| {
                let Some(batch) = batch else { return };
                assert!(batch.messages.len() == 1 || batch.bytes <= BOUNDS.bytes_max);
                assert!((1..=BOUNDS.messages_max).contains(&batch.messages.len()));
                seen[room].extend(batch.messages.iter().map(|message| message.element.len()));
            };
            for (room, bytes, flush) in steps {
                sent[room].push(bytes);
                let added = rooms.add(message(&format!("cr:{room}"), bytes), NAME_BYTES, BOUNDS);
                take(room, added.before);
                if added.opened {
                    open.insert(added.room, room);
                }
                if added.full.is_some() {
                    open.remove(&added.room);
                }
                take(room, added.full);
                if flush && let Some((key, room)) = open.iter().next().map(|(k, r)| (*k, *r)) {
                    open.remove(&key);
                    take(room, rooms.take(key));
                }
                prop_assert_eq!(rooms.len(), open.len());
            }
            for (key, room) in open {
                take(room, rooms.take(key));
            }
            prop_assert_eq!(sent, seen);
        }
    }
}
