//! Answers that leave in the order of their questions, whenever each comes to be known.

use std::collections::VecDeque;

/// The questions of one connection that are not answered, or whose answers wait for those before
/// them. `Q` is what is kept of a question, `A` its answer.
#[derive(Debug)]
pub struct InOrder<Q, A> {
    queue: VecDeque<Entry<Q, A>>,
}

#[derive(Debug)]
struct Entry<Q, A> {
    /// 0: the answer does not come by number.
    number: u64,
    question: Q,
    answer: Option<A>,
}

impl<Q, A> Default for InOrder<Q, A> {
    fn default() -> InOrder<Q, A> {
        InOrder { queue: VecDeque::new() }
    }
}

impl<Q, A> InOrder<Q, A> {
    /// A question was asked whose answer comes under this number.
    pub fn ask(&mut self, number: u64, question: Q) {
        self.queue.push_back(Entry { number, question, answer: None });
    }

    /// A question was asked whose answer is known.
    pub fn answered(&mut self, question: Q, answer: A) {
        self.queue.push_back(Entry { number: 0, question, answer: Some(answer) });
    }

    /// The answer to the question of this number is known, if there is such a question.
    pub fn answer(&mut self, number: u64, make: impl FnOnce(&Q) -> A) {
        if let Some(entry) = self.queue.iter_mut().find(|entry| entry.number == number) {
            entry.answer = Some(make(&entry.question));
        }
    }

    /// The answer to the last question is known, if there is one.
    pub fn answer_last(&mut self, make: impl FnOnce(&Q) -> A) {
        if let Some(entry) = self.queue.back_mut() {
            entry.answer = Some(make(&entry.question));
        }
    }

    /// Takes the first question if it is answered.
    pub fn take_first(&mut self) -> Option<(u64, Q, A)> {
        self.queue.front()?.answer.as_ref()?;
        let Entry { number, question, answer } = self.queue.pop_front()?;
        Some((number, question, answer?))
    }

    /// Forgets the questions that are not answered; returns their numbers.
    pub fn give_up(&mut self) -> Vec<u64> {
        let numbers = self.open().collect();
        self.queue.retain(|entry| entry.answer.is_some());
        numbers
    }

    /// The number of the first question.
    pub fn first(&self) -> Option<u64> {
        self.queue.front().map(|entry| entry.number)
    }

    /// The last question.
    pub fn last(&self) -> Option<&Q> {
        self.queue.back().map(|entry| &entry.question)
    }

    /// The numbers of the questions that are not answered.
    pub fn open(&self) -> impl Iterator<Item = u64> {
        self.queue.iter().filter(|entry| entry.answer.is_none()).map(|entry| entry.number)
    }

    /// The numbers of all questions.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.queue.iter().map(|entry| entry.number)
    }

    /// The answers that are known.
    pub fn answers(&self) -> impl Iterator<Item = &A> {
        self.queue.iter().filter_map(|entry| entry.answer.as_ref())
    }

    /// Questions that are there.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether every question is answered, and every answer has left.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_wait_for_those_before_them() {
        let mut answers = InOrder::default();
        answers.ask(1, "a");
        answers.ask(2, "b");
        answers.answered("c", "C".to_owned());
        answers.answer(2, |question| question.to_uppercase());
        assert_eq!((answers.take_first(), answers.first(), answers.len()), (None, Some(1), 3));
        answers.answer(7, |_| String::new());
        answers.answer(1, |question| question.to_uppercase());
        let next = |answers: &mut InOrder<_, _>| answers.take_first().map(|(_, _, answer)| answer);
        let all: Vec<String> = std::iter::from_fn(|| next(&mut answers)).collect();
        assert_eq!((all.concat().as_str(), answers.is_empty()), ("ABC", true));
    }

    #[test]
    fn what_is_not_answered_can_be_given_up() {
        let mut answers = InOrder::default();
        answers.ask(1, "a");
        answers.answered("b", "B");
        answers.ask(2, "c");
        assert_eq!(answers.give_up(), [1, 2]);
        assert_eq!((answers.take_first(), answers.take_first()), (Some((0, "b", "B")), None));
        answers.ask(3, "d");
        answers.answer_last(|_| "D");
        assert_eq!(answers.take_first(), Some((3, "d", "D")));
    }
}
