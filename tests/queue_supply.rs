//! Topics of a cluster at one home: what it wants of the store, and what it tells of it.

use std::collections::{BTreeSet, HashMap, VecDeque};
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
    assert!(!queues.is_ready(), "reports are taken once");
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

/// Everything that a seeded story supplies is reported once, as written or as released; what a
/// consumer is given ascends as long as nothing comes back.
#[test]
fn every_message_is_reported_once() {
    for seed in 0..500 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut queues = queues();
        let topics = ["a", "b", "c"];
        let mut number = 0u64;
        // By topic: wanted and not supplied. By consumer: given and not written.
        let mut wanted: HashMap<String, u64> = HashMap::new();
        let mut open: HashMap<(String, u64), ()> = HashMap::new();
        let mut unwritten: HashMap<u32, VecDeque<u64>> = HashMap::new();
        let mut consuming = BTreeSet::new();
        let take = |queues: &mut Queues,
                    wanted: &mut HashMap<String, u64>,
                    open: &mut HashMap<(String, u64), ()>| {
            for report in reports(queues) {
                let topic = report.topic.to_string();
                for number in report.written.iter().chain(&report.released) {
                    let known = open.remove(&(topic.clone(), *number));
                    assert!(known.is_some(), "seed {seed}: {number} of {topic} twice");
                }
                let wants = wanted.entry(topic).or_default();
                *wants = if report.idle { 0 } else { *wants } + u64::from(report.wanted);
            }
        };
        for _ in 0..300 {
            let who = rng.u32(0..3);
            match rng.usize(..7) {
                0 if consuming.insert(who) => {
                    assert!(queues.join(consumer(who), &names(&topics[..=rng.usize(..3)])));
                    let events = rng.usize(1..20);
                    queues.start(consumer(who), Window { events, bytes: 1 << 20 });
                }
                1 if consuming.remove(&who) => {
                    queues.leave(consumer(who));
                    // One that leaves consumes again only when it is through.
                    let count = unwritten.remove(&who).unwrap_or_default().len();
                    queues.written(consumer(who), count as u32);
                }
                2 if consuming.remove(&who) => {
                    let left = unwritten.remove(&who).unwrap_or_default().len();
                    queues.gone(consumer(who), rng.usize(..=left) as u32);
                }
                3 => {
                    let ready = unwritten.entry(who).or_default();
                    let count = rng.usize(..=ready.len());
                    ready.drain(..count);
                    queues.written(consumer(who), count as u32);
                }
                4 | 5 => {
                    let topic = topics[rng.usize(..3)];
                    let wants = wanted.get(topic).copied().unwrap_or_default();
                    // Now and then more than is wanted: it was on its way when all had left.
                    let count = rng.u64(..=wants) + u64::from(rng.usize(..10) == 0);
                    let numbers: Vec<u64> = (number..number + count).collect();
                    number += count;
                    numbers.iter().for_each(|n| _ = open.insert((topic.to_owned(), *n), ()));
                    wanted.insert(topic.to_owned(), wants.saturating_sub(count));
                    supply(&mut queues, topic, &numbers);
                }
                _ => {
                    for (conn, number) in given(&mut queues) {
                        unwritten.entry(conn.slot()).or_default().push_back(number);
                    }
                    take(&mut queues, &mut wanted, &mut open);
                }
            }
            assert!(wanted.values().all(|wants| *wants <= 256), "seed {seed}: {wanted:?}");
        }
        for who in consuming {
            queues.gone(consumer(who), 0);
        }
        take(&mut queues, &mut wanted, &mut open);
        assert!(open.is_empty(), "seed {seed}: {open:?} are forgotten");
        assert_eq!((queues.topics(), queues.consumers(), queues.depth()), (0, 0, 0));
    }
}
