//! The shards as the mesh sees them: mail to them, in order and without waiting, and the commands
//! of other nodes that they carry out.
//!
//! Mail to a full mailbox waits here and is counted; [`Shards::is_full`] says when nothing more may
//! be taken from the link. Costs: one entry in a hash table per command whose outcome is wanted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::hub::push::{Command, Outcome};
use crate::hub::queries::Query;
use crate::hub::rooms;
use crate::hub::walk::Cursor;
use crate::lists::letters::{Mail, ReplyTo};
use crate::mail::MailSender;
use crate::spare::Look;

/// What a message in a queue costs beside its payload.
const MAIL_BYTES: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Shards {
    senders: Vec<MailSender<Mail>>,
    waiting: Vec<VecDeque<(Mail, usize)>>,
    /// Bytes in `waiting`, and of what the link has brought and nobody has handled.
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    number: u64,
    served: HashMap<u64, Served>,
}

/// A command of another node that wants to know what it came to.
#[derive(Debug)]
struct Served {
    node: u16,
    number: u64,
    /// Shards that have not said.
    missing: usize,
    outcome: Outcome,
    /// Of the answer to a question, so far.
    pieces: u32,
}

/// Where a part of an answer belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub node: u16,
    pub number: u64,
    /// Number of its first piece.
    pub first: u32,
    /// No further part follows.
    pub last: bool,
}

/// What it came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub node: u16,
    pub number: u64,
    pub outcome: Outcome,
}

impl Shards {
    /// `bytes` is shared with who takes messages from the link.
    pub fn new(
        senders: Vec<MailSender<Mail>>,
        bytes: Arc<AtomicUsize>,
        bytes_max: usize,
    ) -> Shards {
        let waiting = senders.iter().map(|_| VecDeque::new()).collect();
        Shards { senders, waiting, bytes, bytes_max, number: 0, served: HashMap::new() }
    }

    /// Gives back what a peak took.
    pub fn give_back(&mut self, look: &mut Look) {
        self.waiting.iter_mut().for_each(|queue| look.at(queue));
        look.at(&mut self.served);
    }

    /// Whether too much waits.
    pub fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.bytes_max
    }

    /// Whether mail waits for a mailbox to have room.
    pub fn is_behind(&self) -> bool {
        self.waiting.iter().any(|queue| !queue.is_empty())
    }

    /// Mails to a shard, behind what waits for it. `bytes` is the size of what it carries.
    pub fn post(&mut self, shard: usize, mail: Mail, bytes: usize) {
        let (Some(sender), Some(queue)) = (self.senders.get(shard), self.waiting.get_mut(shard))
        else {
            debug_assert!(false, "there is no shard {shard}");
            return;
        };
        let mail = match queue.is_empty() {
            true => sender.send(mail).err(),
            false => Some(mail),
        };
        if let Some(mail) = mail {
            let bytes = bytes + MAIL_BYTES;
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            queue.push_back((mail, bytes));
        }
    }

    /// The same mail for every shard.
    pub fn post_all(&mut self, mail: impl Fn() -> Mail) {
        (0..self.senders.len()).for_each(|shard| self.post(shard, mail(), 0));
    }

    /// Tries again what waits.
    pub fn catch_up(&mut self) {
        for (sender, queue) in self.senders.iter().zip(&mut self.waiting) {
            while let Some((mail, bytes)) = queue.pop_front() {
                if let Err(mail) = sender.send(mail) {
                    queue.push_front((mail, bytes));
                    break;
                }
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
    }

    /// Carries out a command of another node. With `number` not 0 the node wants to know what it
    /// came to; if it concerns no shard, that is known at once.
    pub fn carry_out(
        &mut self,
        command: Command,
        bytes: usize,
        node: u16,
        number: u64,
    ) -> Option<Done> {
        // The room's home here puts it among what is said here; there is nothing to tell of it.
        if let Command::Room(message) = command {
            let home = rooms::home(&message.topic, self.senders.len());
            self.post(home.into(), Mail::Room(message), bytes);
            return None;
        }
        let shards = self.concerned(&command);
        let command = Arc::new(command);
        if number == 0 {
            for shard in shards {
                self.post(shard, Mail::Abroad(command.clone()), bytes);
            }
            return None;
        }
        if shards.is_empty() {
            return Some(Done { node, number, outcome: Outcome::default() });
        }
        self.number += 1;
        let served = self.number;
        let (missing, outcome) = (shards.len(), Outcome::default());
        self.served.insert(served, Served { node, number, missing, outcome, pieces: 0 });
        for shard in shards {
            let reply = ReplyTo::Mesh { number: served };
            self.post(shard, Mail::Tell { command: command.clone(), reply }, bytes);
        }
        None
    }

    /// A shard has carried out its part.
    pub fn outcome(&mut self, served: u64, part: Outcome) -> Option<Done> {
        let open = self.served.get_mut(&served)?;
        open.outcome.add(part);
        open.missing -= 1;
        if open.missing > 0 {
            return None;
        }
        let Served { node, number, outcome, .. } = self.served.remove(&served)?;
        Some(Done { node, number, outcome })
    }

    /// Asks all shards something that another node wants to know.
    pub fn ask(&mut self, query: Query, node: u16, number: u64) {
        self.number += 1;
        let (served, missing, outcome) = (self.number, self.senders.len(), Outcome::default());
        self.served.insert(served, Served { node, number, missing, outcome, pieces: 0 });
        let query = Arc::new(query.distinct());
        let reply = ReplyTo::Mesh { number: served };
        let from = Cursor::default();
        self.post_all(|| Mail::Ask { query: query.clone(), from, reply: reply.clone() });
    }

    /// A shard has answered such a question, in so many pieces; with `more` it goes on.
    pub fn answered(&mut self, served: u64, pieces: usize, more: bool) -> Option<Place> {
        let open = self.served.get_mut(&served)?;
        let (node, number, first) = (open.node, open.number, open.pieces);
        open.missing = open.missing.saturating_sub(usize::from(!more));
        open.pieces = open.pieces.saturating_add(pieces as u32);
        let last = open.missing == 0;
        if last {
            self.served.remove(&served);
        }
        Some(Place { node, number, first, last })
    }

    /// The shards that a command concerns.
    fn concerned(&self, command: &Command) -> Vec<usize> {
        let conns = command.conns();
        let is_concerned = |shard: &usize| {
            conns.is_none_or(|conns| conns.iter().any(|conn| usize::from(conn.shard()) == *shard))
        };
        (0..self.senders.len()).filter(is_concerned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::netsvr::letters::Letter;

    use crate::hub::ConnId;
    use crate::hub::push::{Change, Target};
    use crate::life::Gone;
    use crate::mail::Mailbox;

    fn shards(count: usize) -> (Shards, Vec<Mailbox<Mail>>) {
        let pairs = (0..count).map(|_| Mailbox::new(2, Gone::default()).expect("a descriptor"));
        let (senders, mailboxes) = pairs.unzip();
        (Shards::new(senders, Arc::default(), 1000), mailboxes)
    }

    fn update(shard: u8) -> Command {
        let conn = ConnId::new(shard, 1, 1);
        Command::Update { conn, change: Change::default(), payload: None }
    }

    #[test]
    fn mail_waits_in_order_for_a_full_mailbox_and_is_counted() {
        let (mut shards, mailboxes) = shards(1);
        for number in 1..=4 {
            shards.post(0, Mail::Netsvr(Letter::ClosedCallback { number }), 400);
        }
        assert!(shards.is_behind() && shards.is_full());
        let mut seen = Vec::new();
        while let Some(mail) = mailboxes[0].take() {
            let Mail::Netsvr(Letter::ClosedCallback { number }) = mail else { panic!("{mail:?}") };
            seen.push(number);
            shards.catch_up();
        }
        assert_eq!(seen, [1, 2, 3, 4]);
        assert!(!shards.is_behind() && !shards.is_full());
        assert_eq!(shards.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_answers_of_all_shards_are_pieces_of_one() {
        let (mut shards, mailboxes) = shards(2);
        shards.ask(Query::Conns, 7, 5);
        let numbers = mailboxes.iter().map(|mailbox| match mailbox.take() {
            Some(Mail::Ask { reply: ReplyTo::Mesh { number }, .. }) => number,
            other => panic!("a question was expected, not {other:?}"),
        });
        let numbers: Vec<u64> = numbers.collect();
        assert_eq!(numbers[0], numbers[1]);
        let place = |first, last| Some(Place { node: 7, number: 5, first, last });
        assert_eq!(shards.answered(numbers[0], 3, false), place(0, false));
        assert_eq!(shards.answered(numbers[0], 2, true), place(3, false), "that shard goes on");
        assert_eq!(shards.answered(numbers[0], 1, false), place(5, true));
        assert_eq!(shards.answered(numbers[0], 1, false), None);
    }

    #[test]
    fn a_command_goes_to_the_shards_that_it_concerns_and_is_done_when_all_have_said_so() {
        let (mut shards, mailboxes) = shards(3);
        assert_eq!(shards.carry_out(update(2), 1, 7, 5), None);
        let Some(Mail::Tell { reply: ReplyTo::Mesh { number }, .. }) = mailboxes[2].take() else {
            panic!("it goes to the shard of the connection");
        };
        assert!(mailboxes[0].is_empty() && mailboxes[1].is_empty());
        let outcome = Outcome { done: 1, failed: 0 };
        assert_eq!(shards.outcome(number, outcome), Some(Done { node: 7, number: 5, outcome }));
        assert_eq!(shards.outcome(number, outcome), None);
        // No shard of this number: it names nobody.
        let nobody = Done { node: 7, number: 6, outcome: Outcome::default() };
        assert_eq!(shards.carry_out(update(9), 1, 7, 6), Some(nobody));
        let all = Command::Push { target: Target::All, payloads: Vec::new() };
        assert_eq!(shards.carry_out(all, 1, 7, 8), None);
        for (shard, mailbox) in mailboxes.iter().enumerate() {
            let Some(Mail::Tell { reply: ReplyTo::Mesh { number }, .. }) = mailbox.take() else {
                panic!("shard {shard} is concerned");
            };
            let done = shards.outcome(number, outcome);
            let sum = Outcome { done: 3, failed: 0 };
            let expected = (shard == 2).then_some(Done { node: 7, number: 8, outcome: sum });
            assert_eq!(done, expected);
        }
    }
}
