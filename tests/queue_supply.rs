//! Topics of a cluster at one home: what it wants of the store, and what it tells of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use ringway::hub::ConnId;
use ringway::hub::queues::{Full, QueueLimits, Queues, Report, TopicCount, Window};

const LIMITS: QueueLimits =
    QueueLimits { messages_max: 1, bytes_max: 1, topics_max: 3, full: Full::Error };
const WIDE: Window = Window { events: 1000, bytes: 1 << 20 };

fn consumer(number: u32) -> ConnId {
    ConnId::new(0, number, 1)
}

fn queues() -> Queues {
    Queues::of_cluster(LIMITS, Arc::new(TopicCount::default()))
}

fn names(topics: &[&str]) -> Vec<Arc<str>> {
    topics.iter().map(|&topic| topic.into()).collect()
}

fn supply(queues: &mut Queues, topic: &str, numbers: &[u64]) {
    let message = |number: &u64| (*number, Bytes::from(number.to_string()));
    queues.supply(&topic.into(), numbers.iter().map(message).collect(), 0);
}

fn reports(queues: &mut Queues) -> Vec<Report> {
    let mut reports = Vec::new();
    queues.take_reports(true, |report| reports.push(report));
    queues.check();
    queues.take_reports(true, |report| panic!("{report:?} is told twice"));
    reports
}

/// The only report.
fn report(queues: &mut Queues) -> Report {
    let mut reports = reports(queues);
    assert_eq!(reports.len(), 1, "{reports:?}");
    reports.remove(0)
}

fn given(queues: &mut Queues) -> Vec<(ConnId, u64)> {
    let mut given = Vec::new();
    queues.hand_out(|conn, event| {
        let text = String::from_utf8(event.to_vec()).expect("a text");
        given.push((conn, text.parse().expect("a number")));
    });
    given
}

#[test]
fn a_home_asks_for_what_its_consumers_can_take_and_tells_what_is_written() {
    let mut queues = queues();
    assert!(queues.join(consumer(1), &names(&["t"])));
    assert_eq!(reports(&mut queues), [], "the window is closed");
    queues.start(consumer(1), Window { events: 20, bytes: 1 << 20 });
    let first = report(&mut queues);
    assert_eq!((&*first.topic, first.wanted, first.idle), ("t", 20, false));
    supply(&mut queues, "t", &[3, 5, 8]);
    assert_eq!(given(&mut queues), [3, 5, 8].map(|number| (consumer(1), number)));
    assert_eq!(reports(&mut queues), [], "as much as it can take is still to come");
    queues.written(consumer(1), 2);
    assert_eq!(report(&mut queues).written, [3, 5]);
    supply(&mut queues, "t", &(10..27).collect::<Vec<_>>());
    given(&mut queues);
    queues.written(consumer(1), 18);
    let last = report(&mut queues);
    assert_eq!((last.wanted, last.written.len()), (20, 18));
    queues.leave(consumer(1));
    let idle = Report { topic: "t".into(), idle: true, ..Report::default() };
    assert_eq!(reports(&mut queues), [idle]);
    assert_eq!((queues.topics(), queues.consumers()), (0, 0));
}

#[test]
fn what_is_not_written_when_the_last_consumer_goes_is_released() {
    let mut queues = queues();
    for number in [1, 2] {
        assert!(queues.join(consumer(number), &names(&["t"])));
        queues.start(consumer(number), Window { events: 2, bytes: 1 << 20 });
    }
    assert_eq!(report(&mut queues).wanted, 4);
    supply(&mut queues, "t", &[1, 2, 3, 4, 5, 6]);
    let took = |number: u32, numbers: [u64; 2]| numbers.map(|n| (consumer(number), n));
    let mut given_first = given(&mut queues);
    given_first.sort();
    assert_eq!(given_first, [took(1, [1, 3]), took(2, [2, 4])].concat());
    // The other one is still there: what comes back is for it, in the order of the store.
    queues.gone(consumer(1), 1);
    assert_eq!(report(&mut queues).written, [1]);
    queues.written(consumer(2), 2);
    assert_eq!(given(&mut queues), [(consumer(2), 3), (consumer(2), 5)]);
    assert_eq!(report(&mut queues).written, [2, 4]);
    queues.gone(consumer(2), 0);
    let last = report(&mut queues);
    assert!(last.idle && last.written.is_empty());
    assert_eq!(last.released.into_iter().collect::<BTreeSet<_>>(), [3, 5, 6].into());
    // What was on its way is released when it comes.
    supply(&mut queues, "t", &[7]);
    assert_eq!(report(&mut queues).released, [7]);
    assert_eq!((queues.topics(), queues.depth()), (0, 0));
}

#[test]
fn one_consumer_of_many_topics_shares_its_window_among_them() {
    let limits = QueueLimits { topics_max: 1000, ..LIMITS };
    let mut queues = Queues::of_cluster(limits, Arc::new(TopicCount::default()));
    let topics: Vec<Arc<str>> = (0..1000).map(|n| format!("topic{n}").into()).collect();
    assert!(queues.join(consumer(1), &topics));
    queues.start(consumer(1), WIDE);
    let wanted: Vec<u32> = reports(&mut queues).iter().map(|report| report.wanted).collect();
    assert_eq!(wanted, [16; 1000]);
    queues.leave(consumer(1));
    assert_eq!(reports(&mut queues).len(), 1000);
    // While the process ends nothing more is wanted.
    assert!(queues.join(consumer(1), &topics[..1]));
    queues.start(consumer(1), WIDE);
    queues.take_reports(false, |report| panic!("{report:?}"));
}

/// A home, a store and three consumers that come, read, leave and die at random.
struct Story {
    rng: fastrand::Rng,
    queues: Queues,
    number: u64,
    /// Wanted and not supplied, by topic.
    wanted: HashMap<&'static str, u64>,
    /// Supplied and not reported.
    open: BTreeSet<(&'static str, u64)>,
    /// Given and not written, by consumer.
    unwritten: HashMap<u32, usize>,
    consuming: BTreeSet<u32>,
}

const TOPICS: [&str; 3] = ["a", "b", "c"];

impl Story {
    fn new(seed: u64) -> Story {
        Story {
            rng: fastrand::Rng::with_seed(seed),
            queues: queues(),
            number: 0,
            wanted: HashMap::new(),
            open: BTreeSet::new(),
            unwritten: HashMap::new(),
            consuming: BTreeSet::new(),
        }
    }

    fn come(&mut self, who: u32) {
        assert!(self.queues.join(consumer(who), &names(&TOPICS[..=self.rng.usize(..3)])));
        let events = self.rng.usize(1..20);
        self.queues.start(consumer(who), Window { events, bytes: 1 << 20 });
    }

    fn leave(&mut self, who: u32) {
        self.queues.leave(consumer(who));
        // One that leaves consumes again only when it is through.
        let count = self.unwritten.remove(&who).unwrap_or_default();
        self.queues.written(consumer(who), count as u32);
    }

    fn die(&mut self, who: u32) {
        let left = self.unwritten.remove(&who).unwrap_or_default();
        self.queues.gone(consumer(who), self.rng.usize(..=left) as u32);
    }

    fn read(&mut self, who: u32) {
        let unwritten = self.unwritten.entry(who).or_default();
        let count = self.rng.usize(..=*unwritten);
        *unwritten -= count;
        self.queues.written(consumer(who), count as u32);
    }

    fn supply(&mut self) {
        let topic = TOPICS[self.rng.usize(..3)];
        let wanted = self.wanted.entry(topic).or_default();
        // Now and then more than is wanted: it was on its way when all had left.
        let count = self.rng.u64(..=*wanted) + u64::from(self.rng.usize(..10) == 0);
        *wanted = wanted.saturating_sub(count);
        let numbers: Vec<u64> = (self.number..self.number + count).collect();
        self.number += count;
        self.open.extend(numbers.iter().map(|number| (topic, *number)));
        supply(&mut self.queues, topic, &numbers);
    }

    fn take(&mut self) {
        for (conn, _) in given(&mut self.queues) {
            *self.unwritten.entry(conn.slot()).or_default() += 1;
        }
        for report in reports(&mut self.queues) {
            let topic = TOPICS.into_iter().find(|topic| **topic == *report.topic);
            let topic = topic.expect("a known one");
            for number in report.written.iter().chain(&report.released) {
                assert!(self.open.remove(&(topic, *number)), "{number} of {topic} twice");
            }
            let wanted = self.wanted.entry(topic).or_default();
            *wanted = if report.idle { 0 } else { *wanted } + u64::from(report.wanted);
        }
    }

    fn step(&mut self) {
        let who = self.rng.u32(0..3);
        match self.rng.usize(..7) {
            0 if self.consuming.insert(who) => self.come(who),
            1 if self.consuming.remove(&who) => self.leave(who),
            2 if self.consuming.remove(&who) => self.die(who),
            3 => self.read(who),
            4 | 5 => self.supply(),
            _ => self.take(),
        }
        assert!(self.wanted.values().all(|wanted| *wanted <= 256), "{:?}", self.wanted);
    }
}

#[test]
fn every_message_is_reported_once() {
    for seed in 0..500 {
        let mut story = Story::new(seed);
        (0..300).for_each(|_| story.step());
        for who in std::mem::take(&mut story.consuming) {
            story.die(who);
        }
        story.take();
        assert!(story.open.is_empty(), "seed {seed}: {:?} are forgotten", story.open);
        let Story { queues, .. } = story;
        assert_eq!((queues.topics(), queues.consumers(), queues.depth()), (0, 0, 0));
    }
}
