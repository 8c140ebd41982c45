//! Queue topics of one home against a naive model: exactly once, in order, bounded, nothing left.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use ringway::hub::ConnId;
use ringway::hub::queues::{Full, PushError, QueueLimits, Queues, TopicCount, Window};

const LIMITS: QueueLimits =
    QueueLimits { messages_max: 20, bytes_max: 10_000, topics_max: 3, full: Full::Error };

fn consumer(number: u32) -> ConnId {
    ConnId::new(0, number, 1)
}

fn queues(limits: QueueLimits) -> Queues {
    Queues::new(limits, Arc::new(TopicCount::default()))
}

fn names(topics: &[&str]) -> Vec<Arc<str>> {
    topics.iter().map(|&topic| topic.into()).collect()
}

fn push(queues: &mut Queues, topic: &str, text: &str) -> Result<(), PushError> {
    queues.push(0, topic, Bytes::copy_from_slice(text.as_bytes()), 0)
}

/// What is handed out, by consumer.
fn given(queues: &mut Queues) -> HashMap<ConnId, Vec<String>> {
    let mut given: HashMap<ConnId, Vec<String>> = HashMap::new();
    queues.hand_out(|conn, event| {
        let text = String::from_utf8(event.to_vec()).expect("a text");
        given.entry(conn).or_default().push(text);
    });
    queues.check();
    given
}

const WIDE: Window = Window { events: 1000, bytes: 1 << 20 };

#[test]
fn consumers_compete_in_turn_and_each_sees_the_order_of_the_pushes() {
    // connmix W36
    let mut queues = queues(LIMITS);
    for number in [1, 2] {
        assert!(queues.join(consumer(number), &names(&["t"])));
        queues.start(consumer(number), WIDE);
    }
    (0..10).for_each(|i| push(&mut queues, "t", &i.to_string()).expect("there is room"));
    let given = given(&mut queues);
    assert_eq!(given[&consumer(1)], ["0", "2", "4", "6", "8"]);
    assert_eq!(given[&consumer(2)], ["1", "3", "5", "7", "9"]);
}

/// Messages that come and consumers that write at any pace: `(messages, hand_outs, written)`.
fn paces() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
    proptest::collection::vec((0u8..5, 0u8..3, any::<u8>()), 1..80)
}

/// Lets `count` consumers take turns over several epochs, each with one consumer more or less.
/// `bring` brings a message.
fn take_turns(
    mut queues: Queues,
    count: u32,
    epochs: &[Vec<(u8, u8, u8)>],
    mut bring: impl FnMut(&mut Queues),
) -> Result<(), TestCaseError> {
    let mut there: Vec<u32> = Vec::new();
    let mut held: HashMap<ConnId, u32> = HashMap::new();
    for (epoch, paces) in epochs.iter().enumerate() {
        if epoch % 3 == 2 && there.len() > 1 {
            let left = there.remove(epoch % there.len());
            queues.gone(consumer(left), held.remove(&consumer(left)).unwrap_or_default());
        } else {
            let more = if epoch == 0 { count } else { 1 };
            for number in (0..more).map(|more| epoch as u32 * 100 + more) {
                // Other topics of some do not matter.
                let topics = if number % 2 == 0 { &["t"][..] } else { &["other", "t"] };
                prop_assert!(queues.join(consumer(number), &names(topics)));
                queues.start(consumer(number), WIDE);
                there.push(number);
            }
        }
        let mut shares: HashMap<ConnId, u32> = there.iter().map(|&n| (consumer(n), 0)).collect();
        for &(messages, hand_outs, writes) in paces {
            (0..messages).for_each(|_| bring(&mut queues));
            for _ in 0..=hand_outs {
                queues.hand_out(|conn, _| {
                    *shares.entry(conn).or_default() += 1;
                    *held.entry(conn).or_default() += 1;
                });
            }
            let (least, most) = (shares.values().min(), shares.values().max());
            let even = least.zip(most).is_some_and(|(least, most)| most - least <= 1);
            prop_assert!(even, "epoch {}: {:?}", epoch, shares);
            let writer = consumer(there[usize::from(writes) % there.len()]);
            queues.written(writer, held.remove(&writer).unwrap_or_default());
        }
        queues.check();
    }
    Ok(())
}

proptest! {
    /// connmix section 3.1: whatever the pace, n messages to k consumers with open windows are n/k
    /// for each, give or take one; from pushers or from a store.
    #[test]
    fn consumers_take_turns_at_every_pace(
        count in 1u32..6,
        epochs in proptest::collection::vec(paces(), 1..8),
    ) {
        take_turns(queues(QueueLimits { topics_max: 9, ..LIMITS }), count, &epochs, |queues| {
            push(queues, "t", "x").expect("there is room");
        })?;
        let limits = QueueLimits { topics_max: 9, ..LIMITS };
        let cluster = Queues::of_cluster(limits, Arc::new(TopicCount::default()));
        let mut number = 0;
        take_turns(cluster, count, &epochs, |queues| {
            number += 1;
            queues.supply(&"t".into(), vec![(number, Bytes::from_static(b"x"))], 0);
            queues.take_reports(true, |_| {});
        })?;
    }
}

#[test]
fn a_full_topic_refuses_and_keeps_what_it_has() {
    // connmix W37
    let mut queues = queues(QueueLimits { messages_max: 2000, bytes_max: 1 << 20, ..LIMITS });
    (0..2000).for_each(|i| push(&mut queues, "t", &i.to_string()).expect("there is room"));
    assert_eq!(push(&mut queues, "t", "2000"), Err(PushError::Full));
    assert!(queues.join(consumer(1), &names(&["t"])));
    assert!(given(&mut queues).is_empty(), "its window is closed");
    queues.start(consumer(1), Window { events: 3000, bytes: 1 << 20 });
    let all: Vec<String> = (0..2000).map(|i| i.to_string()).collect();
    assert_eq!(given(&mut queues)[&consumer(1)], all);
    assert_eq!((queues.tally.pushed, queues.tally.refused), (2000, 1));
}

#[test]
fn bytes_are_limited_too_and_the_oldest_may_make_room() {
    let mut strict = queues(QueueLimits { bytes_max: 10, ..LIMITS });
    push(&mut strict, "t", "a message of more bytes").expect("nothing else waits");
    assert_eq!(push(&mut strict, "t", "b"), Err(PushError::Full));
    let mut dropping = queues(QueueLimits { messages_max: 3, full: Full::DropOldest, ..LIMITS });
    (0..5).for_each(|i| push(&mut dropping, "t", &i.to_string()).expect("room is made"));
    dropping.check();
    assert!(dropping.join(consumer(1), &names(&["t"])));
    dropping.start(consumer(1), WIDE);
    assert_eq!(given(&mut dropping)[&consumer(1)], ["2", "3", "4"]);
    assert_eq!(dropping.tally.dropped, 2);
}

#[test]
fn a_pusher_that_must_wait_is_told_when_its_message_has_its_place() {
    let mut queues = queues(QueueLimits { messages_max: 2, full: Full::Block, ..LIMITS });
    (0..3).for_each(|i| push(&mut queues, "t", &i.to_string()).expect("it waits"));
    let accepted = |queues: &mut Queues| {
        let mut count = 0;
        queues.take_accepted(|from, topic| {
            assert_eq!((from, &**topic), (0, "t"));
            count += 1;
        });
        count
    };
    assert_eq!(accepted(&mut queues), 2);
    assert!(queues.join(consumer(1), &names(&["t"])));
    queues.start(consumer(1), Window { events: 1, bytes: 100 });
    assert_eq!(given(&mut queues)[&consumer(1)], ["0"]);
    assert_eq!(accepted(&mut queues), 1);
}

#[test]
fn what_a_dead_consumer_was_not_written_goes_back_in_the_original_order() {
    let mut queues = queues(LIMITS);
    for number in [1, 2] {
        assert!(queues.join(consumer(number), &names(&["t"])));
        queues.start(consumer(number), Window { events: 3, bytes: 1000 });
    }
    (0..10).for_each(|i| push(&mut queues, "t", &i.to_string()).expect("there is room"));
    given(&mut queues);
    // 1 has 0, 2, 4; 2 has 1, 3, 5. Each dies after its first message was written.
    queues.written(consumer(1), 1);
    queues.gone(consumer(1), 0);
    queues.gone(consumer(2), 1);
    queues.check();
    assert!(queues.join(consumer(3), &names(&["t"])));
    queues.start(consumer(3), WIDE);
    let rest: Vec<String> = (2..10).map(|i| i.to_string()).collect();
    assert_eq!(given(&mut queues)[&consumer(3)], rest);
    assert_eq!((queues.tally.delivered, queues.tally.returned), (2, 4));
}

#[test]
fn a_slow_consumer_is_skipped_until_half_of_its_window_is_written() {
    let mut queues = queues(LIMITS);
    assert!(queues.join(consumer(1), &names(&["t"])));
    queues.start(consumer(1), Window { events: 4, bytes: 1000 });
    (0..10).for_each(|i| push(&mut queues, "t", &i.to_string()).expect("there is room"));
    assert_eq!(given(&mut queues)[&consumer(1)].len(), 4);
    queues.written(consumer(1), 1);
    assert!(given(&mut queues).is_empty());
    queues.written(consumer(1), 1);
    assert_eq!(given(&mut queues)[&consumer(1)], ["4", "5"]);
}

#[test]
fn one_busy_topic_does_not_starve_the_others() {
    let mut queues = queues(QueueLimits { messages_max: 1000, ..LIMITS });
    assert!(queues.join(consumer(1), &names(&["busy", "quiet"])));
    (0..900).for_each(|i| push(&mut queues, "busy", &i.to_string()).expect("there is room"));
    push(&mut queues, "quiet", "at last").expect("there is room");
    queues.start(consumer(1), Window { events: 256, bytes: 1 << 20 });
    let mut seen = false;
    for _ in 0..3 {
        let given = given(&mut queues).remove(&consumer(1)).unwrap_or_default();
        seen |= given.iter().any(|text| text == "at last");
        queues.written(consumer(1), given.len() as u32);
    }
    assert!(seen);
}

#[test]
fn topics_are_counted_over_all_homes_and_freed_when_nobody_needs_them() {
    let count = Arc::new(TopicCount::default());
    let mut one = Queues::new(LIMITS, count.clone());
    let mut two = Queues::new(LIMITS, count);
    push(&mut one, "a", "x").expect("the first topic");
    assert!(two.join(consumer(1), &names(&["b", "c"])));
    assert_eq!(push(&mut one, "d", "x"), Err(PushError::TooManyTopics));
    assert!(!one.join(consumer(2), &names(&["a", "e"])), "all or none");
    one.check();
    two.leave(consumer(1));
    assert_eq!(two.topics(), 0);
    assert!(one.join(consumer(2), &names(&["a", "e"])));
    one.start(consumer(2), WIDE);
    assert_eq!(given(&mut one)[&consumer(2)], ["x"]);
    one.leave(consumer(2));
    assert_eq!(one.topics(), 1, "a message of it is not written");
    one.written(consumer(2), 1);
    assert_eq!((one.topics(), one.consumers(), one.depth()), (0, 0, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8),
    Join(u8, u8),
    Leave(u8),
    Written(u8, u8),
    Gone(u8, u8),
    HandOut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..4).prop_map(Step::Push),
        2 => (0u8..4, 1u8..16).prop_map(|(consumer, topics)| Step::Join(consumer, topics)),
        1 => (0u8..4).prop_map(Step::Leave),
        4 => (0u8..4, any::<u8>()).prop_map(|(consumer, count)| Step::Written(consumer, count)),
        1 => (0u8..4, any::<u8>()).prop_map(|(consumer, count)| Step::Gone(consumer, count)),
        5 => Just(Step::HandOut),
    ]
}

/// The end: whoever is there dies, and one consumer takes everything that is left, each topic in
/// its order.
fn rest_of(queues: &mut Queues, accepted: &BTreeMap<u32, u8>) -> Result<Vec<u32>, TestCaseError> {
    (0..4).for_each(|who| queues.gone(consumer(who), 0));
    let topics = names(&["t0", "t1", "t2", "t3"]);
    prop_assert!(queues.join(consumer(9), &topics));
    queues.start(consumer(9), Window { events: 100_000, bytes: 1 << 30 });
    let mut rest = Vec::new();
    queues.hand_out(|_, event| {
        rest.push(u32::from_be_bytes((*event).try_into().expect("four bytes")));
    });
    for topic in 0..4u8 {
        let mine: Vec<u32> =
            rest.iter().copied().filter(|number| accepted[number] == topic).collect();
        prop_assert!(mine.is_sorted(), "topic {topic}: {mine:?}");
    }
    Ok(rest)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Every accepted message is written exactly once, or still there; what is taken back keeps its
    /// order; a topic never refuses while it has room.
    #[test]
    fn nothing_is_lost_and_nothing_doubled(steps in proptest::collection::vec(step(), 1..200)) {
        let mut queues = queues(QueueLimits { topics_max: 4, ..LIMITS });
        let mut accepted: BTreeMap<u32, u8> = BTreeMap::new();
        let mut written: Vec<u32> = Vec::new();
        let mut held: HashMap<ConnId, VecDeque<u32>> = HashMap::new();
        let mut joined = [false; 4];
        let mut number = 0u32;
        for step in steps {
            match step {
                Step::Push(topic) => {
                    number += 1;
                    let event = Bytes::copy_from_slice(&number.to_be_bytes());
                    if queues.push(0, &format!("t{topic}"), event, 0).is_ok() {
                        accepted.insert(number, topic);
                    }
                }
                Step::Join(who, topics) if !joined[who as usize] => {
                    let topics: Vec<Arc<str>> = (0..4u8)
                        .filter(|topic| topics >> topic & 1 == 1)
                        .map(|topic| format!("t{topic}").into())
                        .collect();
                    prop_assert!(queues.join(consumer(who.into()), &topics));
                    queues.start(consumer(who.into()), Window { events: 5, bytes: 1000 });
                    joined[who as usize] = true;
                }
                Step::Join(..) => {}
                Step::Leave(who) => {
                    queues.leave(consumer(who.into()));
                    joined[who as usize] = false;
                }
                Step::Written(who, count) | Step::Gone(who, count) => {
                    let conn = consumer(who.into());
                    let mine = held.entry(conn).or_default();
                    let count = usize::from(count) % (mine.len() + 1);
                    written.extend(mine.drain(..count));
                    if matches!(step, Step::Gone(..)) {
                        queues.gone(conn, count as u32);
                        mine.clear();
                        joined[who as usize] = false;
                    } else {
                        queues.written(conn, count as u32);
                    }
                }
                Step::HandOut => queues.hand_out(|conn, event| {
                    let number = u32::from_be_bytes((*event).try_into().expect("four bytes"));
                    held.entry(conn).or_default().push_back(number);
                }),
            }
            queues.check();
            for mine in held.values() {
                prop_assert!(mine.len() <= 5);
            }
        }
        let rest = rest_of(&mut queues, &accepted)?;
        written.extend(rest.iter());
        written.sort_unstable();
        prop_assert!(written.iter().eq(accepted.keys()), "{written:?} of {accepted:?}");
        queues.gone(consumer(9), rest.len() as u32);
        prop_assert_eq!((queues.topics(), queues.consumers(), queues.depth()), (0, 0, 0));
    }
}
