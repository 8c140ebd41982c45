//! Who holds each (user, platform, device): one connection, the one that logged in last
//! (specification section 5.2, step 4).
//!
//! Each triple has a home, which alone decides about it; so of any number of simultaneous logins
//! exactly one stays. Invariant: a release by a connection that was displaced changes nothing.
//! Costs: one hash and one comparison per login and per logout.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use crate::hub::ConnId;
use crate::wire::xxim::Identity;

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

    /// The user.
    pub fn user(&self) -> &str {
        &self.0.0
    }

    /// Which of so many places decides about it; the same everywhere in a process.
    pub fn home(&self, places: usize) -> usize {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(self);
        // The remainder is below `places`.
        (hash % places.max(1) as u64) as usize
    }
}

/// The triples of one home and their holders.
#[derive(Debug, Default)]
pub struct Holders(HashMap<Triple, ConnId>);

impl Holders {
    /// Makes a connection the holder; returns the one that was.
    pub fn claim(&mut self, triple: Triple, conn: ConnId) -> Option<ConnId> {
        self.0.insert(triple, conn).filter(|before| *before != conn)
    }

    /// The connection gives its triple up, if it still holds it.
    pub fn release(&mut self, triple: Triple, conn: ConnId) {
        if let Entry::Occupied(entry) = self.0.entry(triple)
            && *entry.get() == conn
        {
            entry.remove();
        }
    }

    /// Triples that are held.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
    fn the_last_one_holds_and_a_late_release_of_another_is_nothing() {
        let mut holders = Holders::default();
        let (one, two) = (ConnId::new(0, 1, 1), ConnId::new(1, 1, 1));
        assert_eq!(holders.claim(triple("a", "d"), one), None);
        assert_eq!(holders.claim(triple("a", "d"), one), None);
        assert_eq!(holders.claim(triple("a", "e"), two), None);
        assert_eq!(holders.claim(triple("a", "d"), two), Some(one));
        holders.release(triple("a", "d"), one);
        assert_eq!(holders.len(), 2);
        holders.release(triple("a", "d"), two);
        holders.release(triple("a", "e"), two);
        assert!(holders.is_empty());
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
