//! Whose turn it is, when many wait for something dear: the sources in turn, each at its rate
//! (specification section 9.2).
//!
//! A source is an IPv4 address, or an IPv6 network of 64 bits, which is what one customer has.
//! Invariants: who waits is served before any other source is served twice, unless its own source
//! is over its rate; the entries of one source keep their order; no source is forgotten while it
//! waits or its bucket is not full. Costs: a source that waits, or that was served within the time
//! in which its bucket fills, is an entry of a table; one turn is one look-up.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

use crate::hub::limits::{Bucket, BucketRules};
use crate::spare::Look;

/// Sources that may be in the table before it is searched for those that can be forgotten.
const SOURCES_KEPT: usize = 1024;
/// Bits of an IPv6 address that tell customers apart.
const CUSTOMER_BITS: u32 = 64;

/// How fast turns come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnRules {
    /// Of one source.
    pub source: BucketRules,
    /// Of all together.
    pub all: BucketRules,
}

/// Who waits. `T` is what a source waits with.
#[derive(Debug)]
pub struct Turns<T> {
    sources: HashMap<IpAddr, Source<T>>,
    /// Sources that wait and are within their rate, in the order of their turns.
    ready: VecDeque<IpAddr>,
    /// Sources that wait and are over their rate, by the time at which they are not any more.
    limited: BTreeSet<(u64, IpAddr)>,
    all: Bucket,
    len: usize,
    /// The table is searched when it has grown to this.
    search_at: usize,
}

#[derive(Debug)]
struct Source<T> {
    waiting: VecDeque<T>,
    bucket: Bucket,
}

impl<T> Default for Turns<T> {
    fn default() -> Turns<T> {
        Turns {
            sources: HashMap::new(),
            ready: VecDeque::new(),
            limited: BTreeSet::new(),
            all: Bucket::default(),
            len: 0,
            search_at: SOURCES_KEPT,
        }
    }
}

impl<T> Turns<T> {
    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        look.at(&mut self.sources);
        look.at(&mut self.ready);
    }

    /// Entries that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sources in the table.
    #[cfg(test)]
    fn sources(&self) -> usize {
        self.sources.len()
    }

    /// Lets somebody wait. Times are milliseconds of one clock.
    pub fn push(&mut self, ip: IpAddr, entry: T, now_ms: u64, rules: &TurnRules) {
        let key = source(ip);
        if self.sources.len() >= self.search_at && !self.sources.contains_key(&key) {
            let kept =
                |source: &Source<T>| !source.waiting.is_empty() || !source.bucket.is_full(now_ms);
            self.sources.retain(|_, source| kept(source));
            self.search_at = SOURCES_KEPT.max(2 * self.sources.len());
        }
        let new = || Source { waiting: VecDeque::new(), bucket: Bucket::default() };
        let source = self.sources.entry(key).or_insert_with(new);
        let first = source.waiting.is_empty();
        source.waiting.push_back(entry);
        self.len += 1;
        if first {
            self.enlist(key, now_ms, rules);
        }
    }

    /// Who is next, among those who are still there. `None`: nobody waits, or all have to wait
    /// until [`Turns::due_ms`].
    pub fn next(
        &mut self,
        now_ms: u64,
        rules: &TurnRules,
        is_there: impl Fn(&T) -> bool,
    ) -> Option<T> {
        loop {
            while let Some(&(due_ms, key)) = self.limited.first()
                && due_ms <= now_ms
            {
                self.limited.pop_first();
                self.ready.push_back(key);
            }
            let key = *self.ready.front()?;
            let Some(source) = self.sources.get_mut(&key) else {
                self.ready.pop_front();
                continue;
            };
            while let Some(entry) = source.waiting.front()
                && !is_there(entry)
            {
                source.waiting.pop_front();
                self.len -= 1;
            }
            if !source.waiting.is_empty() && !self.all.take(now_ms, rules.all) {
                return None;
            }
            self.ready.pop_front();
            let Some(entry) = source.waiting.pop_front() else { continue };
            self.len -= 1;
            // It is in `ready`, so there is a token.
            source.bucket.take(now_ms, rules.source);
            if !source.waiting.is_empty() {
                self.enlist(key, now_ms, rules);
            }
            return Some(entry);
        }
    }

    /// From when on [`Turns::next`] may have somebody; `None`: nobody waits.
    pub fn due_ms(&self, rules: &TurnRules) -> Option<u64> {
        let source_ms = match self.ready.is_empty() {
            true => self.limited.first().map(|(due_ms, _)| *due_ms)?,
            false => 0,
        };
        Some(source_ms.max(self.all.due_ms(rules.all)))
    }

    /// Forgets those who are not there any more.
    pub fn retain(&mut self, is_there: impl Fn(&T) -> bool) {
        let sources = self.sources.values_mut();
        self.len = sources
            .map(|source| {
                source.waiting.retain(&is_there);
                source.waiting.len()
            })
            .sum();
        let sources = &self.sources;
        let waits = |key: &IpAddr| sources.get(key).is_some_and(|one| !one.waiting.is_empty());
        self.ready.retain(waits);
        self.limited.retain(|(_, key)| waits(key));
    }

    /// Puts a source that waits where it belongs.
    fn enlist(&mut self, key: IpAddr, now_ms: u64, rules: &TurnRules) {
        let Some(source) = self.sources.get(&key) else { return };
        let due_ms = source.bucket.due_ms(rules.source);
        match due_ms <= now_ms {
            true => self.ready.push_back(key),
            false => _ = self.limited.insert((due_ms, key)),
        }
    }
}

/// What an address is counted under.
fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let own = ip.to_bits() >> (128 - CUSTOMER_BITS) << (128 - CUSTOMER_BITS);
            IpAddr::V6(Ipv6Addr::from_bits(own))
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OFF: BucketRules = BucketRules { rate: 0, burst: 0 };
    const FREE: TurnRules = TurnRules { source: OFF, all: OFF };

    fn ip(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    fn all(turns: &mut Turns<u32>, now_ms: u64, rules: &TurnRules) -> Vec<u32> {
        std::iter::from_fn(|| turns.next(now_ms, rules, |_| true)).collect()
    }

    #[test]
    fn one_who_floods_lets_every_other_go_first() {
        let mut turns = Turns::default();
        (0..1000).for_each(|entry| turns.push(ip(1), entry, 0, &FREE));
        turns.push(ip(2), 5000, 0, &FREE);
        turns.push(ip(3), 6000, 0, &FREE);
        turns.push(ip(2), 5001, 0, &FREE);
        let order = all(&mut turns, 0, &FREE);
        assert_eq!(order[..6], [0, 5000, 6000, 1, 5001, 2]);
        assert_eq!(order[6..], (3..1000).collect::<Vec<_>>());
        assert!(turns.is_empty() && turns.due_ms(&FREE).is_none());
    }

    #[test]
    fn a_source_over_its_rate_waits_and_holds_nobody_up() {
        let rules = TurnRules { source: BucketRules { rate: 10, burst: 2 }, all: OFF };
        let mut turns = Turns::default();
        (0..5).for_each(|entry| turns.push(ip(1), entry, 0, &rules));
        assert_eq!(all(&mut turns, 0, &rules), [0, 1]);
        turns.push(ip(2), 100, 1, &rules);
        assert_eq!(all(&mut turns, 1, &rules), [100]);
        assert_eq!(turns.due_ms(&rules), Some(100));
        assert!(all(&mut turns, 99, &rules).is_empty());
        assert_eq!(all(&mut turns, 100, &rules), [2]);
        assert_eq!(all(&mut turns, 1000, &rules), [3, 4]);
    }

    #[test]
    fn all_together_have_a_rate_too() {
        let rules = TurnRules { source: OFF, all: BucketRules { rate: 10, burst: 3 } };
        let mut turns = Turns::default();
        (0..5).for_each(|entry| turns.push(ip(entry as u8), entry, 0, &rules));
        assert_eq!(all(&mut turns, 0, &rules), [0, 1, 2]);
        assert_eq!(turns.due_ms(&rules), Some(100));
        assert_eq!(all(&mut turns, 100, &rules), [3]);
        // Whoever has left takes nothing from the others.
        turns.push(ip(9), 9, 100, &rules);
        assert_eq!(turns.next(200, &rules, |entry| *entry == 9), Some(9));
        assert!(turns.is_empty());
    }

    #[test]
    fn addresses_of_one_customer_are_one_source() {
        let mut turns = Turns::default();
        for entry in 0..100 {
            let address = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, entry as u16);
            turns.push(address.into(), entry, 0, &FREE);
        }
        turns.push(IpAddr::from([0x2001, 0xdb8, 1, 3, 0, 0, 0, 1_u16]), 500, 0, &FREE);
        turns.push("::ffff:192.0.2.1".parse().expect("an address"), 600, 0, &FREE);
        turns.push(ip(1), 601, 0, &FREE);
        assert_eq!(turns.sources(), 3);
        assert_eq!(all(&mut turns, 0, &FREE)[..4], [0, 500, 600, 1]);
    }

    #[test]
    fn sources_are_forgotten_when_their_buckets_are_full_again() {
        let rules = TurnRules { source: BucketRules { rate: 1, burst: 1 }, all: OFF };
        let mut turns = Turns::default();
        for number in 0..100_000_u32 {
            let ip = IpAddr::from(number.to_be_bytes());
            turns.push(ip, number, u64::from(number), &rules);
            assert_eq!(turns.next(u64::from(number), &rules, |_| true), Some(number));
        }
        assert!(turns.sources() <= 4 * SOURCES_KEPT, "{} sources", turns.sources());
    }

    proptest! {
        /// Whatever comes and goes: everybody who stays is served once, in the order of its
        /// source, and never faster than the rates.
        #[test]
        fn everybody_who_stays_is_served_once(
            steps in proptest::collection::vec((0..4_u8, 0..6_u8, 0..120_u64), 1..200),
            rate in prop_oneof![Just(0), 1..40_u32],
            rate_of_all in prop_oneof![Just(0), 1..40_u32],
        ) {
            let source = BucketRules { rate, burst: 3 };
            let rules = TurnRules { source, all: BucketRules { rate: rate_of_all, burst: 5 } };
            let mut turns: Turns<(u8, u32)> = Turns::default();
            let (mut now_ms, mut number) = (0, 0);
            let mut served: Vec<(u64, (u8, u32))> = Vec::new();
            let mut there: Vec<(u8, u32)> = Vec::new();
            for (what, who, pause_ms) in steps {
                match what {
                    0 | 1 => {
                        turns.push(ip(who), (who, number), now_ms, &rules);
                        there.push((who, number));
                        number += 1;
                    }
                    2 => {
                        there.retain(|(other, _)| *other != who);
                        turns.retain(|(other, _)| *other != who);
                    }
                    _ => {}
                }
                now_ms += pause_ms;
                while let Some(entry) = turns.next(now_ms, &rules, |_| true) {
                    served.push((now_ms, entry));
                    there.retain(|other| *other != entry);
                }
                prop_assert_eq!(turns.len(), there.len());
            }
            while let Some(due_ms) = turns.due_ms(&rules) {
                prop_assert!(due_ms > now_ms, "asked at {} again at {}", now_ms, due_ms);
                now_ms = due_ms;
                let entry = turns.next(now_ms, &rules, |_| true).expect("it is due");
                served.push((now_ms, entry));
                there.retain(|other| *other != entry);
                while let Some(entry) = turns.next(now_ms, &rules, |_| true) {
                    served.push((now_ms, entry));
                    there.retain(|other| *other != entry);
                }
            }
            prop_assert!(there.is_empty(), "{:?} were forgotten", there);
            for who in 0..6 {
                let own = served.iter().filter(|(_, (other, _))| *other == who);
                let own: Vec<_> = own.map(|(at_ms, (_, number))| (*at_ms, *number)).collect();
                prop_assert!(own.is_sorted_by(|one, two| one.1 < two.1));
                // Any four take the time of one token at the least.
                let fast = own.windows(4).find(|four| {
                    rate > 0 && four[3].0 - four[0].0 < 1000 / u64::from(rate) - 1
                });
                prop_assert!(fast.is_none(), "{:?}", fast);
            }
        }
    }
}
