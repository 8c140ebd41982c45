//! Who holds each (user, platform, device): one connection, of those that logged in the one that
//! was accepted last (specification section 5.2, step 4).
//!
//! Each triple has a home, which alone decides about it; so of any number of simultaneous logins
//! exactly one stays, and a login that is verified late displaces nobody who came later. Invariant:
//! a release by a connection that was displaced changes nothing. Costs: one hash and one comparison
//! per login and per logout.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use crate::hub::ConnId;
use crate::protocols::xxim::wire::Identity;
use crate::spare::Look;

/// What a connection is known by after login. Cheap to copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Triple(Arc<(Box<str>, Box<str>, Box<str>)>);

impl Triple {
    /// Of an identity that has logged in.
    pub fn of(identity: &Identity) -> Triple {
        let text = |text: &String| Box::<str>::from(text.as_str());
        Triple(Arc::new((
            text(&identity.user_id),
            text(&identity.platform),
            text(&identity.device_id),
        )))
    }

    /// User, platform and device.
    pub fn parts(&self) -> [Box<str>; 3] {
        let (user, platform, device) = &*self.0;
        [user.clone(), platform.clone(), device.clone()]
    }

    /// Which of so many places decides about it; the same everywhere in a process.
    pub fn home(&self, places: usize) -> usize {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(self);
        // The remainder is below `places`.
        (hash % places.max(1) as u64) as usize
    }
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// Nobody else held it.
    Free,
    /// It was this older connection's.
    From(ConnId),
    /// A newer connection holds it, and still does.
    Kept,
}

/// The triples of one home and their holders, with their places in the order of accepting.
#[derive(Debug, Default)]
pub struct Holders(HashMap<Triple, (ConnId, u64)>);

impl Holders {
    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.0);
    }

    /// Makes a connection the holder, unless one that was accepted later is. `order` is the same
    /// for no two connections.
    pub fn claim(&mut self, triple: Triple, conn: ConnId, order: u64) -> Claimed {
        match self.0.entry(triple) {
            Entry::Vacant(entry) => {
                entry.insert((conn, order));
                Claimed::Free
            }
            Entry::Occupied(entry) if entry.get().1 > order => Claimed::Kept,
            Entry::Occupied(mut entry) => match entry.insert((conn, order)) {
                (before, _) if before == conn => Claimed::Free,
                (before, _) => Claimed::From(before),
            },
        }
    }

    /// The connection gives its triple up, if it still holds it.
    pub fn release(&mut self, triple: Triple, conn: ConnId) {
        if let Entry::Occupied(entry) = self.0.entry(triple)
            && entry.get().0 == conn
        {
            entry.remove();
        }
    }

    /// Triples that are held.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn triple(user: &str, device: &str) -> Triple {
        Triple::of(&Identity {
            user_id: user.into(),
            platform: "web".into(),
            device_id: device.into(),
            ..Identity::default()
        })
    }

    #[test]
    fn the_newest_one_holds_and_a_late_release_of_another_is_nothing() {
        let mut holders = Holders::default();
        let (one, two) = (ConnId::new(0, 1, 1), ConnId::new(1, 1, 1));
        assert_eq!(holders.claim(triple("a", "d"), one, 1), Claimed::Free);
        assert_eq!(holders.claim(triple("a", "d"), one, 1), Claimed::Free);
        assert_eq!(holders.claim(triple("a", "e"), two, 2), Claimed::Free);
        assert_eq!(holders.claim(triple("a", "d"), two, 2), Claimed::From(one));
        holders.release(triple("a", "d"), one);
        assert_eq!(holders.count(), 2);
        holders.release(triple("a", "d"), two);
        holders.release(triple("a", "e"), two);
        assert_eq!(holders.count(), 0);
    }

    #[test]
    fn an_older_connection_displaces_no_newer_one_until_that_has_gone() {
        let mut holders = Holders::default();
        let (old, new) = (ConnId::new(0, 1, 1), ConnId::new(1, 1, 1));
        assert_eq!(holders.claim(triple("a", "d"), new, 2), Claimed::Free);
        assert_eq!(holders.claim(triple("a", "d"), old, 1), Claimed::Kept);
        holders.release(triple("a", "d"), old);
        assert_eq!(holders.count(), 1);
        holders.release(triple("a", "d"), new);
        assert_eq!(holders.claim(triple("a", "d"), old, 1), Claimed::Free);
    }

    #[test]
    fn parts_are_told_apart_and_homes_are_spread() {
        assert_ne!(triple("ab", "c"), triple("a", "bc"));
        let homes: std::collections::HashSet<_> =
            (0..100).map(|n| triple(&n.to_string(), "d").home(4)).collect();
        assert_eq!(homes, (0..4).collect());
        assert_eq!(triple("a", "b").home(1), 0);
    }
}
