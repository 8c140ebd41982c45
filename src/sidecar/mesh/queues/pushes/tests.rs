//! Pushes against every kind of answer, and against none.

use super::*;

const FULL: Result<(), Refusal> = Err(Refusal::Full);
const MAX: u64 = 3;

fn pushes(full: QueueFull) -> Pushes {
    Pushes::new(full, Arc::new(Room::new(1 << 20)))
}

fn push(pushes: &mut Pushes, client: u32, text: &'static str, now_ms: u64) {
    let event = Bytes::from_static(text.as_bytes());
    assert!(pushes.room.take(event.len()));
    let client = ConnId::new(0, client, 1);
    pushes.push(0, &"t".into(), Push { client, event, waiter: Waiter::Nobody }, MAX, now_ms);
}

/// What is published, and under which number.
fn published(pushes: &mut Pushes, now_ms: u64) -> Vec<(u64, String)> {
    let next = || pushes.next(now_ms);
    let text =
        |publish: Publish| (publish.number, String::from_utf8_lossy(&publish.event).into_owned());
    std::iter::from_fn(next).map(text).collect()
}

/// How many were stored, and why others were refused.
fn settled(pushes: &mut Pushes) -> (u32, Vec<PushError>) {
    let mut sum = (0, Vec::new());
    for settled in pushes.take_settled() {
        let refused = settled.outcomes.into_iter().filter_map(|outcome| outcome.result.err());
        let before = sum.1.len();
        sum.1.extend(refused);
        sum.0 += settled.count - (sum.1.len() - before) as u32;
    }
    sum
}

fn assert_empty(pushes: &Pushes) {
    assert_eq!((pushes.len(), pushes.room.taken()), (0, 0));
    assert!(pushes.lanes.is_empty() && pushes.index.is_empty() && pushes.flying.is_empty());
    assert!(pushes.topics.is_empty() && pushes.names.is_empty());
}

fn texts(published: &[(u64, String)]) -> Vec<&str> {
    published.iter().map(|(_, text)| text.as_str()).collect()
}

#[test]
fn of_each_client_one_message_is_under_way_and_all_go_in_order() {
    let mut pushes = pushes(QueueFull::Error);
    for (client, text) in [(1, "a1"), (1, "a2"), (2, "b1"), (1, "a3"), (2, "b2")] {
        push(&mut pushes, client, text, 0);
    }
    let mut order = Vec::new();
    loop {
        let flying = published(&mut pushes, 0);
        if flying.is_empty() {
            break;
        }
        assert!(flying.len() <= 2);
        for (number, text) in flying {
            pushes.answered(number, Ok(()), 0);
            order.push(text);
        }
    }
    assert_eq!(order, ["a1", "b1", "a2", "b2", "a3"]);
    assert_eq!(settled(&mut pushes), (5, vec![]));
    assert_empty(&pushes);
}

#[test]
fn what_is_not_stored_in_time_is_refused() {
    let mut pushes = pushes(QueueFull::Error);
    push(&mut pushes, 1, "flies", 0);
    push(&mut pushes, 1, "waits", 100);
    let flying = published(&mut pushes, 0);
    assert_eq!(texts(&flying), ["flies"]);
    pushes.tick(PUSH_MS - 1);
    assert_eq!(settled(&mut pushes), (0, vec![]));
    pushes.tick(PUSH_MS);
    assert_eq!(settled(&mut pushes), (0, vec![PushError::Unstored]));
    // Its answer comes too late to count.
    pushes.answered(flying[0].0, Ok(()), PUSH_MS);
    pushes.tick(PUSH_MS + 100);
    assert_eq!(settled(&mut pushes), (0, vec![PushError::Unstored]));
    assert_empty(&pushes);
    push(&mut pushes, 1, "refused", 0);
    let flying = published(&mut pushes, 0);
    pushes.answered(flying[0].0, FULL, 0);
    assert_eq!(settled(&mut pushes), (0, vec![PushError::Full]));
    assert_empty(&pushes);
}

#[test]
fn with_block_a_refused_message_goes_before_the_next_one_of_its_client() {
    let mut pushes = pushes(QueueFull::Block);
    for text in ["1", "2", "3"] {
        push(&mut pushes, 1, text, 0);
    }
    let mut now_ms = 0;
    for refused in 0..5 {
        let flying = published(&mut pushes, now_ms);
        assert_eq!(texts(&flying), ["1"], "after {refused} refusals");
        pushes.answered(flying[0].0, FULL, now_ms);
        assert!(published(&mut pushes, now_ms).is_empty());
        now_ms += FULL_MS_MAX;
        pushes.tick(now_ms);
    }
    for text in ["1", "2", "3"] {
        let flying = published(&mut pushes, now_ms);
        assert_eq!(texts(&flying), [text]);
        pushes.answered(flying[0].0, Ok(()), now_ms);
    }
    assert_eq!(settled(&mut pushes), (3, vec![]));
    assert_empty(&pushes);
}

#[test]
fn after_the_link_was_lost_everything_under_way_is_sent_again_under_its_number() {
    let mut pushes = pushes(QueueFull::Block);
    for (client, text) in [(1, "a"), (2, "b"), (3, "c"), (1, "d")] {
        push(&mut pushes, client, text, 0);
    }
    let before = published(&mut pushes, 0);
    pushes.answered(before[1].0, Ok(()), 0);
    pushes.lost();
    let again = published(&mut pushes, 0);
    assert_eq!(again, [before[0].clone(), before[2].clone()]);
    // No answer, and no loss that was noticed.
    pushes.tick(ANSWER_MS);
    let mut third = published(&mut pushes, ANSWER_MS);
    third.sort();
    assert_eq!(third, again);
    // No leader.
    pushes.answered(again[0].0, Err(Refusal::Other(String::new())), ANSWER_MS);
    assert!(published(&mut pushes, ANSWER_MS).is_empty());
    pushes.tick(ANSWER_MS + AGAIN_MS);
    assert_eq!(published(&mut pushes, ANSWER_MS + AGAIN_MS), again[..1]);
    pushes.answered(again[0].0, Ok(()), ANSWER_MS);
    pushes.too_large(again[1].0);
    assert_eq!(texts(&published(&mut pushes, ANSWER_MS)), ["d"]);
    assert_eq!(settled(&mut pushes), (2, vec![PushError::TooLarge]));
}

#[test]
fn with_drop_oldest_the_oldest_makes_room_for_one_after_the_other() {
    let mut pushes = pushes(QueueFull::DropOldest);
    push(&mut pushes, 1, "a", 0);
    push(&mut pushes, 2, "b", 0);
    for (number, _) in published(&mut pushes, 0) {
        pushes.answered(number, FULL, 0);
    }
    for text in ["a", "b"] {
        assert_eq!(pushes.full_topics(0), ["t".into()]);
        assert_eq!(pushes.full_topics(0), []);
        pushes.room("t", text == "a");
        let flying = published(&mut pushes, 0);
        assert_eq!(texts(&flying), [text]);
        pushes.answered(flying[0].0, Ok(()), 0);
    }
    assert_eq!(pushes.take_dropped(), 1, "the other time somebody was faster");
    assert_eq!(settled(&mut pushes), (2, vec![]));
    assert_empty(&pushes);
    // Without a link the oldest of what waits here makes room.
    for text in ["1", "2", "3", "4", "5"] {
        push(&mut pushes, 1, text, 0);
    }
    assert_eq!((pushes.take_dropped(), pushes.len()), (2, 3));
    for text in ["3", "4", "5"] {
        let flying = published(&mut pushes, 0);
        assert_eq!(texts(&flying), [text]);
        pushes.answered(flying[0].0, Ok(()), 0);
    }
    assert_empty(&pushes);
}

/// A store that refuses, is lost and stays silent at random.
struct Story {
    rng: fastrand::Rng,
    pushes: Pushes,
    now_ms: u64,
    pushed: u32,
    /// The last number that was stored, by lane.
    stored: HashMap<u32, u32>,
    flying: Vec<Publish>,
}

impl Story {
    fn push(&mut self) {
        let lane = self.rng.u32(..8);
        let event = Bytes::from(format!("{lane} {}", self.pushed));
        self.pushed += 1;
        assert!(self.pushes.room.take(event.len()));
        let (topic, client) = (["t", "u"][lane as usize % 2], ConnId::new(0, lane / 2, 1));
        let waiter = if lane % 3 == 0 { Waiter::Client } else { Waiter::Nobody };
        let push = Push { client, event, waiter };
        self.pushes.push(0, &topic.into(), push, MAX, self.now_ms);
    }

    fn lose_link(&mut self) {
        self.pushes.lost();
        // Some of them had been stored.
        self.flying.truncate(self.rng.usize(..=self.flying.len()));
    }

    fn make_room(&mut self, calm: bool) {
        for token in self.pushes.full_topics(self.now_ms) {
            match self.rng.usize(..3) {
                0 if !calm => self.pushes.no_room(&token, self.now_ms),
                1 if !calm => {}
                _ => self.pushes.room(&token, true),
            }
        }
    }

    fn answer(&mut self, calm: bool) {
        if self.flying.is_empty() {
            return;
        }
        let publish = self.flying.swap_remove(self.rng.usize(..self.flying.len()));
        let answer = match self.rng.usize(..6) {
            0 if !calm => FULL,
            1 if !calm => Err(Refusal::NoStream),
            2 if !calm => return,
            _ => Ok(()),
        };
        if answer.is_ok() && self.pushes.flying.contains_key(&publish.number) {
            let text = String::from_utf8_lossy(&publish.event).into_owned();
            let mut numbers = text.split(' ').map(|n| n.parse::<u32>().expect("a number"));
            let (lane, number) = (numbers.next(), numbers.next());
            let (lane, number) = lane.zip(number).expect("two numbers");
            let before = self.stored.insert(lane, number);
            assert!(before.is_none_or(|before| before < number), "{text} after {before:?}");
        }
        self.pushes.answered(publish.number, answer, self.now_ms);
    }

    fn step(&mut self, calm: bool) {
        match self.rng.usize(..10) {
            0..4 if !calm => self.push(),
            4 if !calm && self.rng.usize(..20) == 0 => self.lose_link(),
            5 => self.now_ms += self.rng.u64(..if calm { 1000 } else { 100 }),
            6 => {
                let next = || self.pushes.next(self.now_ms);
                self.flying.extend(std::iter::from_fn(next));
            }
            7 => self.pushes.tick(self.now_ms),
            8 => self.make_room(calm),
            _ => self.answer(calm),
        }
    }
}

#[test]
fn whatever_happens_every_message_is_settled_and_each_client_keeps_its_order() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let full = [QueueFull::Error, QueueFull::Block, QueueFull::DropOldest][rng.usize(..3)];
        let (pushes, stored, flying) = (pushes(full), HashMap::new(), Vec::new());
        let mut story = Story { rng, pushes, now_ms: 0, pushed: 0, stored, flying };
        (0..1000).for_each(|_| story.step(false));
        (0..5000).for_each(|_| story.step(true));
        let (stored, refused) = settled(&mut story.pushes);
        let dropped = story.pushes.take_dropped();
        assert_empty(&story.pushes);
        // What was removed from the store had been counted as stored before.
        if full != QueueFull::DropOldest {
            let sum = stored + refused.len() as u32;
            assert_eq!((sum, dropped), (story.pushed, 0), "seed {seed}");
        }
    }
}
