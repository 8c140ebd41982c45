//! Supplies against JetStream as it behaves when it is well, and as it may.

use serde_json::Value;

use super::*;

const TOPIC: &str = "t";

fn names() -> Names {
    Names::new("c", "_INBOX.x".to_owned())
}

/// Supplies with one topic, and what they say.
struct Fixture {
    supplies: Supplies,
    out: Vec<Out>,
    now_ms: u64,
}

impl Fixture {
    fn wanting(wanted: u32) -> Fixture {
        let mut topic = Fixture { supplies: Supplies::new(1000, 2), out: Vec::new(), now_ms: 0 };
        topic.report(Report { wanted, ..Report::default() });
        topic
    }

    fn report(&mut self, report: Report) {
        let report = Report { topic: TOPIC.into(), ..report };
        let token = self.supplies.report(report, &names(), self.now_ms, &mut self.out);
        assert_eq!(&*token, TOPIC);
        self.supplies.advance(TOPIC, &names(), self.now_ms, &mut self.out);
    }

    fn wants(&mut self, wanted: u32) {
        self.report(Report { wanted, ..Report::default() });
    }

    fn made(&mut self) {
        self.supplies.consumer(TOPIC, true, self.now_ms);
        self.supplies.advance(TOPIC, &names(), self.now_ms, &mut self.out);
    }

    /// The numbers of what is handed over, of messages that are delivered for the nth time.
    fn delivered(&mut self, numbers: &[u64], times: u64) -> Vec<u64> {
        let mut taken = Vec::new();
        for number in numbers {
            let (now_ms, out) = (self.now_ms, &mut self.out);
            let supplied = self.supplies.message(TOPIC, &ack(*number, times), b"{}", now_ms, out);
            taken.extend(supplied.map(|supplied| supplied.number));
        }
        self.supplies.advance(TOPIC, &names(), self.now_ms, &mut self.out);
        taken
    }

    fn tick(&mut self, pass_ms: u64) {
        self.now_ms += pass_ms;
        self.supplies.tick(&names(), self.now_ms, &mut self.out);
    }

    /// What went out: the last part of the subject, and the first word of the message.
    fn said(&mut self) -> Vec<String> {
        let word = |out: Out| match out {
            Out::Say { subject, reply, payload } => {
                let text = String::from_utf8_lossy(&payload).into_owned();
                let api = subject.strip_prefix("$JS.API.");
                let confirm = if reply.is_some() { "?" } else { "" };
                match api {
                    Some(api) => {
                        let verb = api.split(".ringway").next().unwrap_or_default();
                        let body: Value = serde_json::from_slice(&payload).expect("JSON");
                        let number = body["batch"].as_u64().or(body["seq"].as_u64());
                        format!("{verb} {}", number.unwrap_or_default())
                    }
                    None => {
                        let (number, _) = delivery(&subject).expect("an acknowledgement");
                        let word = text.split(' ').next().unwrap_or_default();
                        format!("{word} {number}{confirm}")
                    }
                }
            }
            Out::Listen(_) => "listen".to_owned(),
            Out::Deafen(_) => "deafen".to_owned(),
            Out::Store { .. } => panic!("nothing is stored"),
        };
        std::mem::take(&mut self.out).into_iter().map(word).collect()
    }

    fn assert_empty(&self) {
        assert!(self.supplies.topics.is_empty(), "{:?}", self.supplies.topics);
        assert_eq!(self.supplies.held(), (0, 0));
    }
}

fn ack(number: u64, times: u64) -> String {
    format!("$JS.ACK.S.{TOPIC}.{times}.{number}.7.1795280079211270716.0")
}

fn written(numbers: &[u64]) -> Report {
    Report { written: numbers.to_vec(), ..Report::default() }
}

#[test]
fn a_consumer_is_made_then_messages_are_asked_for_and_acknowledged_when_they_are_written() {
    let mut topic = Fixture::wanting(3);
    assert_eq!(topic.said(), ["CONSUMER.CREATE 0"]);
    topic.wants(1);
    assert_eq!(topic.said(), Vec::<String>::new(), "it is asked for already");
    topic.made();
    assert_eq!(topic.said(), ["listen", "CONSUMER.MSG.NEXT 4"]);
    assert_eq!(topic.delivered(&[5, 6, 7], 1), [5, 6, 7]);
    topic.wants(2);
    assert_eq!(topic.said(), Vec::<String>::new(), "one pull at a time");
    assert_eq!(topic.delivered(&[8], 1), [8]);
    assert_eq!(topic.said(), ["CONSUMER.MSG.NEXT 2"]);
    topic.report(written(&[5, 6]));
    assert_eq!(topic.said(), ["+ACK 5", "+ACK 6?"]);
    topic.report(written(&[7, 8]));
    assert_eq!(topic.said(), ["+ACK 7", "+ACK 8?"]);
    assert!(!topic.supplies.is_settled());
    let place = topic.supplies.topics[TOPIC].done.back().expect("not confirmed").place;
    topic.supplies.confirmed(TOPIC, place);
    assert!(topic.supplies.is_settled());
    topic.report(Report { idle: true, ..Report::default() });
    assert_eq!(topic.said(), ["deafen"]);
    topic.tick(0);
    topic.assert_empty();
}

#[test]
fn what_is_known_is_not_handed_over_again() {
    let mut topic = Fixture::wanting(10);
    topic.made();
    assert_eq!(topic.delivered(&[1, 2], 1), [1, 2]);
    topic.report(written(&[1]));
    topic.said();
    // Written and not confirmed; held; new.
    assert_eq!(topic.delivered(&[1, 2], 2), [0; 0]);
    assert_eq!(topic.said(), ["+ACK 1"]);
    assert_eq!(topic.delivered(&[3], 2), [3]);
    let tally = topic.supplies.tally;
    assert_eq!((tally.taken, tally.redelivered, tally.repeated), (3, 3, 2));
    // The credit that they took comes back: 10 of the home's are still open.
    topic.supplies.pull_ended(TOPIC, 0, false);
    let pull = topic.supplies.topics[TOPIC].pull.as_ref().expect("it is open");
    assert_eq!((pull.left, topic.supplies.topics[TOPIC].credit), (5, 2));
}

#[test]
fn a_confirmation_is_none_of_what_was_lost_with_an_earlier_link() {
    let mut topic = Fixture::wanting(10);
    topic.made();
    assert_eq!(topic.delivered(&[1, 2, 3, 4], 1), [1, 2, 3, 4]);
    let last = |topic: &Fixture| topic.supplies.topics[TOPIC].done.back().expect("one").place;
    // It is said, and lost; what asks for its confirmation may have been said on the next link.
    topic.report(written(&[1, 2]));
    topic.said();
    let before = last(&topic);
    topic.supplies.linked(topic.now_ms);
    topic.supplies.confirmed(TOPIC, before);
    assert!(!topic.supplies.is_settled());
    // The home is faster than the clock.
    topic.report(written(&[3]));
    assert_eq!(topic.said(), ["+ACK 1", "+ACK 2", "+ACK 3?", "CONSUMER.CREATE 0"]);
    topic.report(written(&[4]));
    assert_eq!(topic.said(), ["+ACK 4?"]);
    topic.supplies.confirmed(TOPIC, last(&topic));
    assert!(topic.supplies.is_settled());
}

#[test]
fn what_is_held_is_in_progress_and_what_is_not_confirmed_is_repeated() {
    let mut topic = Fixture::wanting(10);
    topic.made();
    topic.delivered(&[1, 2, 3], 1);
    topic.report(written(&[1, 2]));
    topic.said();
    topic.tick(WORD_MS - 1);
    assert_eq!(topic.said(), Vec::<String>::new());
    topic.tick(1);
    assert_eq!(topic.said(), ["+WPI 3", "+ACK 1", "+ACK 2?"]);
    topic.supplies.linked(topic.now_ms);
    topic.tick(0);
    assert_eq!(topic.said(), ["+ACK 1", "+ACK 2?", "CONSUMER.CREATE 0"]);
    topic.made();
    assert_eq!(topic.said(), ["CONSUMER.MSG.NEXT 7"], "what the old link was asked for is gone");
}

#[test]
fn pulls_and_consumers_that_are_gone_are_asked_for_again() {
    let mut topic = Fixture::wanting(10);
    topic.made();
    topic.delivered(&[1], 1);
    topic.said();
    let number = topic.supplies.topics[TOPIC].pull.as_ref().expect("it is open").number;
    topic.supplies.pull_ended(TOPIC, number + 1, false);
    topic.tick(0);
    assert_eq!(topic.said(), Vec::<String>::new(), "that was another pull");
    topic.supplies.pull_ended(TOPIC, number, false);
    topic.tick(0);
    assert_eq!(topic.said(), ["CONSUMER.MSG.NEXT 9"]);
    // No word of its end.
    topic.report(written(&[1]));
    topic.supplies.confirmed(TOPIC, u64::MAX);
    topic.said();
    topic.tick(PULL_MS + PULL_GRACE_MS);
    assert_eq!(topic.said(), ["CONSUMER.CREATE 0"]);
    topic.tick(CONSUMER_MS - 1);
    assert_eq!(topic.said(), Vec::<String>::new());
    topic.tick(1);
    assert_eq!(topic.said(), ["CONSUMER.CREATE 0"]);
    topic.made();
    assert_eq!(topic.said(), ["CONSUMER.MSG.NEXT 9"]);
    let number = topic.supplies.topics[TOPIC].pull.as_ref().expect("it is open").number;
    topic.supplies.pull_ended(TOPIC, number, true);
    topic.tick(0);
    assert_eq!(topic.said(), ["CONSUMER.CREATE 0"]);
}

#[test]
fn what_nobody_here_consumes_is_given_back_at_once() {
    let mut topic = Fixture::wanting(10);
    topic.made();
    topic.delivered(&[1, 2, 3], 1);
    topic.said();
    let released = vec![1, 3];
    topic.report(Report { idle: true, released, ..Report::default() });
    assert_eq!(topic.said(), ["deafen", "-NAK 1", "-NAK 3"]);
    assert_eq!(topic.delivered(&[4], 1), [0; 0]);
    assert_eq!(topic.said(), ["-NAK 4"], "it was under way");
    topic.tick(0);
    assert_eq!(topic.supplies.held().0, 1, "one is still being written");
    topic.report(written(&[2]));
    topic.supplies.confirmed(TOPIC, u64::MAX);
    topic.tick(0);
    topic.assert_empty();
    assert_eq!(topic.delivered(&[5], 1), [0; 0]);
    let said = topic.said();
    assert_eq!(said, ["+ACK 2?", "-NAK 5"]);
}

#[test]
fn more_than_may_be_held_is_given_back_and_not_asked_for() {
    let mut topic = Fixture::wanting(100);
    topic.made();
    let text = "x".repeat(600);
    for number in [1, 2] {
        let taken =
            topic.supplies.message(TOPIC, &ack(number, 1), text.as_bytes(), 0, &mut topic.out);
        assert!(taken.is_some());
    }
    topic.said();
    assert_eq!(topic.delivered(&[3], 1), [0; 0]);
    assert_eq!(topic.said(), ["-NAK 3"]);
    let number = topic.supplies.topics[TOPIC].pull.as_ref().expect("it is open").number;
    topic.supplies.pull_ended(TOPIC, number, false);
    topic.tick(0);
    assert_eq!(topic.said(), Vec::<String>::new());
    topic.report(written(&[1, 2]));
    assert_eq!(topic.said(), ["+ACK 1", "+ACK 2?", "CONSUMER.MSG.NEXT 98"]);
    // What is no text is nobody's.
    let taken = topic.supplies.message(TOPIC, &ack(9, 1), b"\xff", 0, &mut topic.out);
    assert!(taken.is_none());
    assert_eq!(topic.said(), ["+TERM 9"]);
}

/// Other nodes get what it would have got.
#[test]
fn for_a_home_that_stands_still_nothing_is_prolonged_or_asked_for() {
    let mut topic = Fixture::wanting(10);
    topic.made();
    topic.delivered(&[1], 1);
    topic.said();
    let home = usize::from(Queues::home(TOPIC, 2));
    topic.supplies.still = vec![1 - home];
    topic.tick(WORD_MS);
    assert_eq!(topic.said(), ["+WPI 1"], "another home concerns nobody here");
    topic.supplies.still = vec![home];
    topic.tick(WORD_MS);
    assert_eq!(topic.said(), Vec::<String>::new());
    assert_eq!(topic.delivered(&[2], 1), [0; 0]);
    assert_eq!(topic.said(), ["-NAK 2"]);
    let number = topic.supplies.topics[TOPIC].pull.as_ref().expect("it is open").number;
    topic.supplies.pull_ended(TOPIC, number, false);
    topic.tick(0);
    assert_eq!(topic.said(), Vec::<String>::new());
    topic.supplies.still.clear();
    topic.tick(0);
    assert_eq!(topic.said(), ["+WPI 1", "CONSUMER.MSG.NEXT 9"]);
}
