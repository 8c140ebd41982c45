//! The timer wheel: compared with a map over random lives, and its cost counted in visited timers.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ringway::engine::timers::Wheel;

const TICK_MS: u64 = 16;
const TURN_OF_THE_WHEEL_MS: u64 = TICK_MS << 30;

/// What the wheel promises, done naively.
#[derive(Default)]
struct Model {
    now_ms: u64,
    /// Deadline and tick of expiry by key.
    armed: BTreeMap<u32, (u64, u64)>,
}

impl Model {
    fn arm(&mut self, key: u32, deadline_ms: u64) {
        let tick = deadline_ms.div_ceil(TICK_MS).max(self.now_ms / TICK_MS + 1);
        self.armed.insert(key, (deadline_ms, tick));
    }

    fn first_ms(&self) -> Option<u64> {
        let tick = self.armed.values().map(|&(_, tick)| tick).min()?;
        Some(tick * TICK_MS)
    }

    fn due(&self) -> impl Iterator<Item = (&u32, &(u64, u64))> {
        let now = self.now_ms / TICK_MS;
        self.armed.iter().filter(move |(_, (_, tick))| *tick <= now)
    }
}

/// Takes up to `max` expired keys and compares order and content with the model.
fn take(wheel: &mut Wheel, model: &mut Model, max: usize) {
    let mut last = 0;
    for _ in 0..max {
        let Some(key) = wheel.expired() else {
            assert_eq!(model.due().next(), None, "forgotten at {}", model.now_ms);
            return;
        };
        let (deadline_ms, tick) = model.armed.remove(&key).expect("was armed");
        assert!(deadline_ms <= model.now_ms, "key {key} is early");
        assert!(tick * TICK_MS <= model.now_ms);
        assert!(tick >= last, "key {key} is out of order");
        last = tick;
        assert!(!wheel.armed(key));
    }
}

fn compare(wheel: &Wheel, model: &Model) {
    assert_eq!(wheel.len(), model.armed.len());
    assert_eq!(wheel.is_empty(), model.armed.is_empty());
    for key in 0..40 {
        let deadline_ms = model.armed.get(&key).map(|&(deadline_ms, _)| deadline_ms);
        assert_eq!(wheel.deadline(key), deadline_ms);
        assert_eq!(wheel.armed(key), deadline_ms.is_some());
    }
    match (wheel.next_ms(), model.first_ms()) {
        (None, None) => {}
        (Some(next), Some(first)) => {
            let first = first.max(model.now_ms);
            assert!(next <= first, "{next} is after {first}");
            if model.due().next().is_none() {
                assert!(next > model.now_ms, "nothing is due but {next} is over");
            }
        }
        (next, first) => panic!("next {next:?}, first {first:?}"),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Arm { key: u32, after_ms: u64 },
    ArmOver { key: u32, ago_ms: u64 },
    Cancel(u32),
    Advance(u64),
    Backward(u64),
    ToNext,
    Take(usize),
}

/// Spans of every level, so that all of them are crossed.
fn span_ms() -> impl Strategy<Value = u64> {
    (0u32..38).prop_flat_map(|bits| 0..1u64 << bits)
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u32..40;
    prop_oneof![
        6 => (key.clone(), span_ms()).prop_map(|(key, after_ms)| Step::Arm { key, after_ms }),
        1 => (key.clone(), span_ms()).prop_map(|(key, ago_ms)| Step::ArmOver { key, ago_ms }),
        2 => key.prop_map(Step::Cancel),
        3 => span_ms().prop_map(Step::Advance),
        1 => span_ms().prop_map(Step::Backward),
        4 => Just(Step::ToNext),
        3 => (0usize..50).prop_map(Step::Take),
    ]
}

fn act(wheel: &mut Wheel, model: &mut Model, step: Step) {
    match step {
        Step::Arm { key, after_ms } => {
            wheel.arm(key, model.now_ms + after_ms);
            model.arm(key, model.now_ms + after_ms);
        }
        Step::ArmOver { key, ago_ms } => {
            let deadline_ms = model.now_ms.saturating_sub(ago_ms);
            wheel.arm(key, deadline_ms);
            model.arm(key, deadline_ms);
        }
        Step::Cancel(key) => {
            wheel.cancel(key);
            model.armed.remove(&key);
        }
        Step::Advance(by_ms) => {
            // Keys expired earlier and not taken come first, so the order holds per advance.
            take(wheel, model, usize::MAX);
            model.now_ms += by_ms;
            wheel.advance(model.now_ms);
        }
        Step::Backward(by_ms) => wheel.advance(model.now_ms.saturating_sub(by_ms)),
        Step::ToNext => {
            take(wheel, model, usize::MAX);
            if let Some(next) = wheel.next_ms() {
                model.now_ms = model.now_ms.max(next);
                wheel.advance(model.now_ms);
            }
        }
        Step::Take(max) => take(wheel, model, max),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn agrees_with_a_map(steps in prop::collection::vec(step(), 1..150)) {
        let (mut wheel, mut model) = (Wheel::new(), Model::default());
        for step in steps {
            act(&mut wheel, &mut model, step);
            compare(&wheel, &model);
        }
        // Waking up at `next_ms` alone lets every timer expire in its own tick.
        take(&mut wheel, &mut model, usize::MAX);
        while let Some(next) = wheel.next_ms() {
            prop_assert!(next > model.now_ms);
            model.now_ms = next;
            wheel.advance(next);
            for (_, (_, tick)) in model.due() {
                prop_assert_eq!(tick * TICK_MS, next);
            }
            take(&mut wheel, &mut model, usize::MAX);
        }
        prop_assert!(model.armed.is_empty());
    }
}

#[test]
fn is_never_early_and_at_most_a_tick_late() {
    for deadline_ms in 1..200 {
        let mut wheel = Wheel::new();
        wheel.arm(0, deadline_ms);
        for now_ms in 0..deadline_ms {
            wheel.advance(now_ms);
            assert_eq!(wheel.expired(), None, "{deadline_ms} at {now_ms}");
        }
        wheel.advance(deadline_ms + TICK_MS - 1);
        assert_eq!(wheel.expired(), Some(0));
        assert_eq!(wheel.next_ms(), None);
    }
}

#[test]
fn a_loop_that_rearms_with_deadlines_that_are_over_ends() {
    let mut wheel = Wheel::new();
    wheel.arm(3, 10);
    wheel.arm(4, 10);
    wheel.advance(1000);
    let mut taken = Vec::new();
    while let Some(key) = wheel.expired() {
        taken.push(key);
        wheel.arm(key, 500);
    }
    assert_eq!(taken, [3, 4]);
    assert_eq!(wheel.len(), 2);
    wheel.advance(1000);
    assert_eq!(wheel.expired(), None);
    wheel.advance(1000 + TICK_MS);
    assert_eq!(wheel.expired(), Some(3));
}

#[test]
fn an_expired_timer_can_be_cancelled_or_rearmed_before_it_is_taken() {
    let mut wheel = Wheel::new();
    for key in 0..3 {
        wheel.arm(key, 100);
    }
    wheel.advance(200);
    wheel.cancel(0);
    wheel.arm(1, 300);
    assert!(wheel.next_ms() <= Some(200), "an expired timer waits");
    assert_eq!(wheel.expired(), Some(2));
    assert_eq!(wheel.expired(), None);
    assert_eq!(wheel.len(), 1);
    wheel.advance(304);
    assert_eq!(wheel.expired(), Some(1));
}

#[test]
fn far_deadlines_survive_turns_of_the_whole_wheel() {
    let mut wheel = Wheel::new();
    let deadline_ms = 5 * TURN_OF_THE_WHEEL_MS + 12_345;
    wheel.arm(0, deadline_ms);
    wheel.arm(1, u64::MAX);
    wheel.arm(2, TURN_OF_THE_WHEEL_MS);
    let mut now_ms = 0;
    let mut order = Vec::new();
    while wheel.len() > 1 {
        now_ms = wheel.next_ms().expect("armed");
        wheel.advance(now_ms);
        while let Some(key) = wheel.expired() {
            order.push((key, now_ms));
        }
    }
    let expected = deadline_ms.next_multiple_of(TICK_MS);
    assert_eq!(order, [(2, TURN_OF_THE_WHEEL_MS), (0, expected)]);
    assert!(wheel.work() < 40, "{} visits", wheel.work());
    assert!(wheel.armed(1));
    assert!(now_ms < deadline_ms + TICK_MS);
}

#[test]
fn a_million_far_timers_cost_nothing_while_none_expires() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut wheel = Wheel::new();
    let hour_ms = 3_600_000;
    for key in 0..1_000_000 {
        wheel.arm(key, random.u64(hour_ms..30 * 24 * hour_ms));
    }
    let mut now_ms = 0;
    while now_ms < hour_ms / 60 {
        now_ms += TICK_MS;
        wheel.advance(now_ms);
        assert_eq!(wheel.expired(), None);
    }
    wheel.advance(hour_ms / 60 * 55);
    assert_eq!(wheel.expired(), None);
    assert_eq!(wheel.work(), 0);
    assert_eq!(wheel.len(), 1_000_000);
}

#[test]
fn a_timer_is_looked_at_once_per_level_in_its_life() {
    let mut random = fastrand::Rng::with_seed(2);
    let mut wheel = Wheel::new();
    let count = 100_000;
    for key in 0..count {
        wheel.arm(key, random.u64(0..100_000_000));
    }
    let mut expired = 0;
    while let Some(now_ms) = wheel.next_ms() {
        wheel.advance(now_ms);
        expired += std::iter::from_fn(|| wheel.expired()).count() as u32;
    }
    assert_eq!(expired, count);
    assert!(wheel.work() <= 5 * u64::from(count), "{}", wheel.work());
}

#[test]
fn rearming_with_every_message_moves_the_timer_once_per_timeout() {
    let mut wheel = Wheel::new();
    let timeout_ms = 60_000;
    let mut now_ms = 0;
    while now_ms < 100 * timeout_ms {
        wheel.arm(0, now_ms + timeout_ms);
        now_ms += 5;
        wheel.advance(now_ms);
        assert_eq!(wheel.expired(), None);
    }
    assert!(wheel.work() <= 300, "{} visits", wheel.work());
    wheel.advance(now_ms + timeout_ms + TICK_MS);
    assert_eq!(wheel.expired(), Some(0));
}

#[test]
fn jumping_a_year_ahead_passes_only_occupied_buckets() {
    let mut wheel = Wheel::new();
    for key in 0..10 {
        wheel.arm(key, 1 << (10 + 2 * key));
    }
    wheel.advance(366 * 24 * 3_600_000);
    let order: Vec<u32> = std::iter::from_fn(|| wheel.expired()).collect();
    assert_eq!(order, Vec::from_iter(0..10));
    assert!(wheel.work() <= 50);
}
