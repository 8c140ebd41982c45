//! The timers of one shard: a hierarchical timer wheel over dense small keys.
//!
//! Time is an argument: milliseconds since the shard started. A clock that stands still or jumps
//! forward is fine, one that goes backward is taken as standing still.
//!
//! A tick is 16 ms. `LEVELS` levels of 64 buckets cover one digit (base 64) of the tick each; a
//! timer is in the bucket of the highest digit in which its tick differs from the current one, so
//! that the first occupied bucket of the lowest occupied level is always the next one to look at.
//! Timers more than a top level away (198 days) share one more bucket and are looked at once per
//! turn of the top level.
//!
//! Invariants:
//! * An occupied bucket begins after the current tick, and no later than any timer in it is due. It
//!   may be earlier: moving a deadline back only writes the deadline, the timer is moved when its
//!   bucket begins. A connection that re-arms its timer with every message costs one write each.
//! * A list is circular and doubly linked through `nodes`; `occupied` has the bit of a bucket
//!   exactly while its head is not `NONE`.
//!
//! Costs: 24 bytes per key up to the highest one ever armed, no other allocation, no system call.
//! `arm`, `cancel`, `expired` are O(1); `advance` is O(levels) per occupied bucket that it passes,
//! plus the timers in those: each timer is looked at no more than once per level.

use crate::spare::Look;

/// Milliseconds in a tick, as a power of two: timers expire up to 15 ms late, never early.
const TICK_SHIFT: u32 = 4;
/// Bits of a tick that select the bucket in one level.
const DIGIT_BITS: u32 = 6;
/// Buckets in one level; one bit each in a `u64`.
const SLOTS: u16 = 1 << DIGIT_BITS;
/// 64^5 ticks are 198 days.
const LEVELS: u16 = 5;
/// The bucket of what is further away than the top level reaches.
const FAR: u16 = LEVELS * SLOTS;
/// The list of what has expired and is not yet taken by [`Wheel::expired`].
const DUE: u16 = FAR + 1;
const BUCKETS: usize = DUE as usize + 1;
/// Bucket of a timer that is not armed.
const DISARMED: u16 = u16::MAX;
/// No key: an empty list.
const NONE: u32 = u32::MAX;

/// The timers of one shard, at most one per key. See the module for time and costs.
pub struct Wheel {
    nodes: Vec<Node>,
    heads: [u32; BUCKETS],
    occupied: [u64; LEVELS as usize],
    tick: u64,
    armed: usize,
    work: u64,
}

impl Wheel {
    /// A wheel at time 0 without timers. Allocates nothing yet.
    pub fn new() -> Wheel {
        Wheel {
            nodes: Vec::new(),
            heads: [NONE; BUCKETS],
            occupied: [0; LEVELS as usize],
            tick: 0,
            armed: 0,
            work: 0,
        }
    }

    /// Arms or re-arms the timer of `key`. Keys are dense small integers such as slots: memory
    /// grows to the highest one. A deadline that is already over expires at the next tick, so that
    /// a loop over [`Wheel::expired`] that re-arms ends. `u64::MAX` never expires.
    pub fn arm(&mut self, key: u32, deadline_ms: u64) {
        debug_assert!(key != NONE, "the highest key marks the end of a list");
        let index = key as usize;
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, Node::DISARMED);
        }
        let tick = due_tick(deadline_ms).max(self.tick + 1);
        self.nodes[index].deadline_ms = deadline_ms;
        match self.nodes[index].bucket {
            DISARMED => self.armed += 1,
            DUE => self.unlink(key),
            bucket if self.begin(bucket) <= tick => return,
            _ => self.unlink(key),
        }
        self.link(key, self.bucket(tick));
    }

    /// Disarms the timer of `key`, also if it expired and was not yet taken. No effect on a key
    /// without a timer.
    pub fn cancel(&mut self, key: u32) {
        if self.armed(key) {
            self.unlink(key);
            self.armed -= 1;
        }
    }

    /// Whether `key` has a timer that [`Wheel::expired`] did not yet give out.
    pub fn armed(&self, key: u32) -> bool {
        self.deadline(key).is_some()
    }

    /// The time for which the timer of `key` is armed.
    pub fn deadline(&self, key: u32) -> Option<u64> {
        let node = self.nodes.get(key as usize)?;
        (node.bucket != DISARMED).then_some(node.deadline_ms)
    }

    /// Moves the clock to `now_ms`. What is due by then is given out by [`Wheel::expired`].
    pub fn advance(&mut self, now_ms: u64) {
        let now = now_ms >> TICK_SHIFT;
        while let Some(bucket) = self.first() {
            let begin = self.begin(bucket);
            if begin > now {
                break;
            }
            self.tick = begin;
            self.spill(bucket);
        }
        self.tick = self.tick.max(now);
    }

    /// Takes the next expired key, disarmed, in the order of deadlines up to the length of a tick.
    /// Re-arming and cancelling between calls is fine.
    pub fn expired(&mut self) -> Option<u32> {
        let key = self.heads[DUE as usize];
        if key == NONE {
            return None;
        }
        self.unlink(key);
        self.armed -= 1;
        Some(key)
    }

    /// A time by which [`Wheel::advance`] must be called; `None` if nothing is armed. It may be
    /// before the first deadline, because timers are moved between levels, but never after it by
    /// more than the length of a tick. In the past while expired timers wait to be taken.
    pub fn next_ms(&self) -> Option<u64> {
        let tick = match self.heads[DUE as usize] {
            NONE => self.begin(self.first()?),
            _ => self.tick,
        };
        Some(tick.saturating_mul(1 << TICK_SHIFT))
    }

    /// Armed timers, with those that expired and were not yet taken.
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Whether no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Timers that [`Wheel::advance`] has looked at so far: the measure of its cost.
    pub fn work(&self) -> u64 {
        self.work
    }

    /// Gives back the room for keys that have had a timer, while none has.
    pub fn give_back(&mut self, look: &mut Look) {
        if self.is_empty() {
            self.nodes.clear();
            look.at(&mut self.nodes);
        }
    }

    /// The occupied bucket that begins first.
    fn first(&self) -> Option<u16> {
        for (level, &bits) in (0..).zip(&self.occupied) {
            if bits != 0 {
                return Some(level * SLOTS + bits.trailing_zeros() as u16);
            }
        }
        (self.heads[FAR as usize] != NONE).then_some(FAR)
    }

    /// The tick with which an occupied bucket of the wheel begins.
    fn begin(&self, bucket: u16) -> u64 {
        let digit = u32::from(bucket / SLOTS) * DIGIT_BITS;
        if bucket == FAR {
            return ((self.tick >> digit) + 1) << digit;
        }
        let above = digit + DIGIT_BITS;
        (self.tick >> above << above) | u64::from(bucket % SLOTS) << digit
    }

    /// The bucket for a tick: [`DUE`] unless it is in the future.
    fn bucket(&self, tick: u64) -> u16 {
        if tick <= self.tick {
            return DUE;
        }
        let level = (tick ^ self.tick).ilog2() / DIGIT_BITS;
        if level >= u32::from(LEVELS) {
            return FAR;
        }
        let slot = (tick >> (level * DIGIT_BITS)) as u16 % SLOTS;
        level as u16 * SLOTS + slot
    }

    /// Moves every timer of a bucket that begins now to where it belongs.
    fn spill(&mut self, bucket: u16) {
        let first = self.heads[bucket as usize];
        self.set_head(bucket, NONE);
        let mut key = first;
        loop {
            let node = &self.nodes[key as usize];
            let next = node.next;
            let target = self.bucket(due_tick(node.deadline_ms));
            self.link(key, target);
            self.work += 1;
            if next == first {
                break;
            }
            key = next;
        }
    }

    /// Appends a timer, which is in no list, to that of a bucket.
    fn link(&mut self, key: u32, bucket: u16) {
        let head = self.heads[bucket as usize];
        let (next, prev) = if head == NONE {
            self.set_head(bucket, key);
            (key, key)
        } else {
            let tail = self.nodes[head as usize].prev;
            self.nodes[tail as usize].next = key;
            self.nodes[head as usize].prev = key;
            (head, tail)
        };
        let node = &mut self.nodes[key as usize];
        node.next = next;
        node.prev = prev;
        node.bucket = bucket;
    }

    /// Takes a timer out of its list.
    fn unlink(&mut self, key: u32) {
        let node = &mut self.nodes[key as usize];
        let (next, prev, bucket) = (node.next, node.prev, node.bucket);
        node.bucket = DISARMED;
        if next == key {
            self.set_head(bucket, NONE);
            return;
        }
        self.nodes[prev as usize].next = next;
        self.nodes[next as usize].prev = prev;
        if self.heads[bucket as usize] == key {
            self.heads[bucket as usize] = next;
        }
    }

    fn set_head(&mut self, bucket: u16, key: u32) {
        self.heads[bucket as usize] = key;
        if let Some(bits) = self.occupied.get_mut(usize::from(bucket / SLOTS)) {
            let bit = 1 << (bucket % SLOTS);
            *bits = if key == NONE { *bits & !bit } else { *bits | bit };
        }
    }
}

impl Default for Wheel {
    fn default() -> Wheel {
        Wheel::new()
    }
}

/// The timer of one key. `next` and `prev` mean something only in a list.
#[derive(Clone)]
struct Node {
    deadline_ms: u64,
    next: u32,
    prev: u32,
    bucket: u16,
}

impl Node {
    const DISARMED: Node = Node { deadline_ms: 0, next: NONE, prev: NONE, bucket: DISARMED };
}

// One per connection, whether it has a timer or not.
const _: () = assert!(size_of::<Node>() <= 24);

/// The first tick that is not before the deadline.
fn due_tick(deadline_ms: u64) -> u64 {
    deadline_ms.div_ceil(1 << TICK_SHIFT)
}
