//! What is known about each registered connection, by slot.
//!
//! Invariants: a bit of `live` is set exactly where a member is.
//! Costs: 56 bytes per slot and one bit, plus the session's bytes. A lookup is one array access; a
//! walk over all reads one bit per slot, in the order of the slots. The arrays are as long as the
//! highest slot that was registered since somebody has looked for room that nobody needs.

use crate::hub::ConnId;
use crate::hub::topics::Subscriptions;
use crate::hub::users::UserSeat;
use crate::spare::Look;

/// One registered connection.
pub(super) struct Member {
    pub id: ConnId,
    pub user: UserSeat,
    /// What the application remembers; `None` when empty.
    pub session: Option<Box<str>>,
    pub topics: Subscriptions,
}

const _: () = assert!(size_of::<Option<Member>>() <= 56);

/// All registered connections of a shard.
#[derive(Default)]
pub(super) struct Members {
    slots: Vec<Option<Member>>,
    live: Vec<u64>,
    len: usize,
}

impl Members {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn get(&self, slot: u32) -> Option<&Member> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Member> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// The slot must be free.
    pub fn insert(&mut self, id: ConnId) {
        let at = id.slot() as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
            self.live.resize(at / 64 + 1, 0);
        }
        self.slots[at] = Some(Member {
            id,
            user: UserSeat::NONE,
            session: None,
            topics: Subscriptions::default(),
        });
        self.live[at / 64] |= 1 << (at % 64);
        self.len += 1;
    }

    pub fn remove(&mut self, slot: u32) -> Option<Member> {
        let at = slot as usize;
        let member = self.slots.get_mut(at)?.take()?;
        self.live[at / 64] &= !(1 << (at % 64));
        self.len -= 1;
        Some(member)
    }

    /// Gives back what is behind the last member.
    pub fn give_back(&mut self, look: &mut Look) {
        let end = self.slots.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        self.slots.truncate(end);
        self.live.truncate(end.div_ceil(64));
        look.at(&mut self.slots);
        look.at(&mut self.live);
    }

    /// No member has this slot or a larger one.
    pub fn end(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Slots of all members, ascending.
    pub fn for_each_slot(&self, mut f: impl FnMut(u32)) {
        for (at, &word) in self.live.iter().enumerate() {
            let mut rest = word;
            while rest != 0 {
                f(at as u32 * 64 + rest.trailing_zeros());
                rest &= rest - 1;
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.slots.iter().flatten()
    }

    /// Panics if an invariant of the module does not hold.
    pub fn check(&self) {
        assert_eq!(self.iter().count(), self.len);
        assert_eq!(self.slots.len().div_ceil(64), self.live.len());
        let mut walked = Vec::new();
        self.for_each_slot(|slot| walked.push(slot));
        assert!(walked.iter().copied().eq(self.iter().map(|member| member.id.slot())));
        for &slot in &walked {
            assert_eq!(self.get(slot).map(|member| member.id.slot()), Some(slot));
        }
    }
}
