//! Users and their connections.
//!
//! Invariants: a user exists while it has a connection; a connection stands at most once in all
//! lists together, at the place that its [`UserSeat`] names.
//! Costs: bind and unbind are O(1). A user with one connection owns its name and no other heap
//! memory; one with more has a dense array of slots.

use std::sync::Arc;

use crate::hub::names::{Names, VEC_KEPT, give_back};

/// All users of a shard.
pub(super) struct Users(Names<Conns>);

/// Where a connection stands: its user, and the place in the user's list. 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UserSeat {
    user: u32,
    place: u32,
}

impl UserSeat {
    /// The seat of a connection without a user.
    pub const NONE: UserSeat = UserSeat { user: u32::MAX, place: 0 };

    /// A place in the list of a user.
    pub fn at(user: u32, place: u32) -> UserSeat {
        UserSeat { user, place }
    }

    /// Whether it is the first of its user.
    pub fn is_first(self) -> bool {
        self.place == 0 && self != UserSeat::NONE
    }

    pub fn user(self) -> Option<u32> {
        (self != UserSeat::NONE).then_some(self.user)
    }
}

impl Users {
    pub fn new() -> Users {
        Users(Names::new())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn find(&self, name: &str) -> Option<u32> {
        self.0.find(name)
    }

    /// Those that exist, each once.
    pub fn find_all(&self, names: &[Box<str>]) -> Vec<u32> {
        self.0.find_all(names)
    }

    /// The name of the user, if there is one of this index.
    pub fn get(&self, user: u32) -> Option<&Arc<str>> {
        self.0.get(user)
    }

    /// No user has this index or a larger one.
    pub fn end(&self) -> u32 {
        self.0.end()
    }

    /// Of a user that exists.
    pub fn name(&self, user: u32) -> &Arc<str> {
        self.0.name(user)
    }

    /// Slots of the connections of a user that exists.
    pub fn conns(&self, user: u32) -> &[u32] {
        self.0.thing(user).as_slice()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Arc<str>, &[u32])> {
        let users = self.0.iter();
        users.map(|(user, name, conns)| (user, name, conns.as_slice()))
    }

    /// `name` must not be empty, the connection must not have a user.
    pub fn bind(&mut self, name: &str, slot: u32) -> UserSeat {
        debug_assert!(!name.is_empty());
        let user = self.0.open(name);
        let place = self.0.thing_mut(user).push(slot);
        UserSeat::at(user, place)
    }

    /// Leaves a seat that is taken. The connection that is returned moved into it.
    pub fn unbind(&mut self, seat: UserSeat) -> Option<u32> {
        let conns = self.0.thing_mut(seat.user);
        let moved = conns.swap_remove(seat.place as usize);
        if conns.as_slice().is_empty() {
            self.0.remove(seat.user);
        }
        moved
    }

    /// Panics if an invariant that concerns the users alone does not hold.
    pub fn check(&self) {
        self.0.check();
        for (_, name, conns) in self.0.iter() {
            assert!(!name.is_empty() && !conns.as_slice().is_empty());
            if let Conns::Many(list) = conns {
                assert!(list.len() > 1 && list.capacity() <= VEC_KEPT.max(4 * list.len() + 4));
            }
        }
    }
}

/// One connection, or several. `Many` has two at least, but for a user that is just made.
enum Conns {
    One(u32),
    Many(Vec<u32>),
}

impl Default for Conns {
    fn default() -> Conns {
        Conns::Many(Vec::new())
    }
}

impl Conns {
    fn as_slice(&self) -> &[u32] {
        match self {
            Conns::One(slot) => std::slice::from_ref(slot),
            Conns::Many(list) => list,
        }
    }

    /// Returns the place.
    fn push(&mut self, slot: u32) -> u32 {
        match self {
            Conns::One(first) => *self = Conns::Many(vec![*first, slot]),
            Conns::Many(list) if list.is_empty() => *self = Conns::One(slot),
            Conns::Many(list) => list.push(slot),
        }
        self.as_slice().len() as u32 - 1
    }

    /// Returns the slot that stands in the place now.
    fn swap_remove(&mut self, place: usize) -> Option<u32> {
        match self {
            Conns::One(_) => {
                *self = Conns::default();
                None
            }
            Conns::Many(list) => {
                list.swap_remove(place);
                let moved = list.get(place).copied();
                match list[..] {
                    [only] => *self = Conns::One(only),
                    _ => give_back(list),
                }
                moved
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_lives_from_first_to_last_connection() {
        let mut users = Users::new();
        let seats = [7, 8, 9].map(|slot| users.bind("u", slot));
        users.check();
        let user = users.find("u").unwrap();
        assert_eq!(users.conns(user), [7, 8, 9]);
        assert_eq!(users.unbind(seats[0]), Some(9));
        assert_eq!(users.conns(user), [9, 8]);
        assert_eq!(users.unbind(seats[1]), None);
        users.check();
        assert_eq!(users.conns(user), [9]);
        assert_eq!(users.unbind(seats[0]), None);
        assert_eq!((users.find("u"), users.len()), (None, 0));
    }

    #[test]
    fn a_user_that_shrank_gives_memory_back() {
        let mut users = Users::new();
        (0..1000).for_each(|slot| _ = users.bind("u", slot));
        let user = users.find("u").unwrap();
        for place in (1..1000).rev() {
            users.unbind(UserSeat::at(user, place));
            users.check();
        }
        assert_eq!(users.conns(user), [0]);
    }
}
