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

use hashbrown::HashMap;

use crate::hub::limits::{BucketRules, SharedBucket};
use crate::hub::names::Names;
use crate::hub::push::RoomMessage;

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

/// One shard's part in [`RoomLimits`]: a share of each room that has members here. How many these
/// are is what the hub's topics say; the hub tells of every change.
pub(super) struct Counted {
    limits: Arc<RoomLimits>,
    shares: Names<Option<Arc<Share>>>,
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

    /// Members of the room of this topic on all shards together.
    pub fn members(&self, topic: &str) -> u32 {
        self.locked().get(topic).map_or(0, |share| share.members.load(Ordering::Relaxed))
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
    pub fn new(limits: Arc<RoomLimits>) -> Counted {
        Counted { limits, shares: Names::new() }
    }

    /// A connection is about to enter a topic that has so many members here. False: the room has
    /// `members_max` on all shards together; 0 is no limit.
    pub fn enter(&mut self, topic: &str, here: usize, members_max: u32) -> bool {
        if room_of(topic).is_none() {
            return true;
        }
        let room = self.shares.open(topic);
        let limits = &self.limits;
        let share = self.shares.thing_mut(room).get_or_insert_with(|| limits.open(topic));
        let one_more = |members| (members_max == 0 || members < members_max).then_some(members + 1);
        let relaxed = Ordering::Relaxed;
        let entered = share.members.fetch_update(relaxed, relaxed, one_more).is_ok();
        if !entered && here == 0 {
            self.forget(topic, room);
        }
        entered
    }

    /// So many have left a topic, and so many are left in it here.
    pub fn leave(&mut self, topic: &str, gone: usize, here: usize) {
        // Most topics are no rooms, and then there is nothing to be found.
        let Some(room) = room_of(topic).and_then(|_| self.shares.find(topic)) else { return };
        if let Some(share) = self.shares.thing(room) {
            share.members.fetch_sub(gone as u32, Ordering::Relaxed);
        }
        if here == 0 {
            self.forget(topic, room);
        }
    }

    /// Takes a token for a message to a room that has members here.
    pub fn message(&self, topic: &str, now_ms: u64, rules: BucketRules) -> bool {
        let room = self.shares.find(topic);
        let share = room.and_then(|room| self.shares.thing(room).as_ref());
        share.is_none_or(|share| share.messages.take(now_ms, rules))
    }

    /// Panics unless there is a share of each of these rooms and of no other.
    pub fn check<'a>(&self, rooms: impl Iterator<Item = &'a str>) {
        self.shares.check();
        let mut count = 0;
        for topic in rooms {
            let share = self.shares.find(topic).and_then(|room| self.shares.thing(room).as_ref());
            let members = share.map_or(0, |share| share.members.load(Ordering::Relaxed));
            assert!(members > 0, "{topic} is not counted");
            count += 1;
        }
        assert_eq!(self.shares.len(), count, "rooms without members are counted");
    }

    fn forget(&mut self, topic: &str, room: u32) {
        if let Some(share) = self.shares.remove(room) {
            self.limits.close(topic, share);
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
        let element = bytes::Bytes::from(vec![0; bytes]);
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
        let limits = Arc::<RoomLimits>::default();
        let mut shards = [(); 2].map(|()| Counted::new(limits.clone()));
        assert!((0..3).all(|here| shards[0].enter("cr:a", here, 5)));
        assert!((0..2).all(|here| shards[1].enter("cr:a", here, 5)));
        assert!(!shards[0].enter("cr:a", 3, 5) && !shards[1].enter("cr:a", 2, 5));
        assert!(shards[1].enter("cr:b", 0, 5) && shards[1].enter("no room", 9, 5));
        assert!(shards[1].enter("cr:a", 2, 0), "a backend knows no limit");
        shards[0].leave("cr:a", 2, 1);
        assert_eq!(limits.members("cr:a"), 4);
        assert!(shards[1].enter("cr:a", 3, 5) && !shards[0].enter("cr:a", 1, 5));
        shards[0].leave("cr:a", 1, 0);
        shards[1].leave("cr:a", 4, 0);
        shards[0].check([].into_iter());
        shards[1].check(["cr:b"].into_iter());
        assert_eq!(limits.len(), 1);
        shards[1].leave("cr:b", 1, 0);
        assert!(limits.is_empty());
        assert!(shards[0].enter("cr:a", 0, 1) && !shards[1].enter("cr:a", 0, 1));
        shards[1].check([].into_iter());
    }

    #[test]
    fn messages_of_all_shards_take_from_one_bucket() {
        let limits = Arc::<RoomLimits>::default();
        let mut shards = [(); 2].map(|()| Counted::new(limits.clone()));
        assert!(shards.iter_mut().all(|shard| shard.enter("cr:a", 0, 0)));
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
