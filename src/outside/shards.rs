//! The mailboxes of the shards, as the tasks of the sidecar use them.
//!
//! An answer to a full mailbox is tried again until it fits. Answers of upstreams come in bursts,
//! since one look at the sockets finds many of them. They pass through a task per shard, which has
//! its turn behind all tasks that are ready when the first answer comes; so a burst wakes the shard
//! once. Bound: what passes through it are answers, at most one per request under way.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::lists::letters::Mail;
use crate::mail::MailSender;

/// Pause before an answer to a full mailbox is tried again.
const MAILBOX_PAUSE: Duration = Duration::from_millis(1);
/// Answers that a shard is woken for at a time.
const BATCH: usize = 64;

/// The mailboxes of all shards.
#[derive(Clone, Debug)]
pub struct Shards(Arc<[Way]>);

/// The ways to one shard.
#[derive(Debug)]
struct Way {
    mailbox: MailSender<Mail>,
    answers: mpsc::UnboundedSender<Mail>,
}

impl Shards {
    /// Starts the tasks that carry answers. Needs the context of a runtime.
    pub fn start(mailboxes: Vec<MailSender<Mail>>) -> Shards {
        let ways = mailboxes.into_iter().map(|mailbox| {
            let (answers, receiver) = mpsc::unbounded_channel();
            tokio::spawn(carry(receiver, mailbox.clone()));
            Way { mailbox, answers }
        });
        Shards(ways.collect())
    }

    /// The number of every shard.
    pub fn numbers(&self) -> impl Iterator<Item = u8> + use<> {
        (0..=u8::MAX).take(self.0.len())
    }

    /// Puts an answer into a mailbox, together with others that come now.
    pub fn post(&self, shard: u8, mail: Mail) {
        if let Some(way) = self.way(shard) {
            // Fails only when the runtime ends, and the process with it.
            let _ = way.answers.send(mail);
        }
    }

    /// Puts a message into a mailbox; for threads that have nothing better to do than to wait for
    /// room.
    pub fn hand_over(&self, shard: u8, mail: Mail) {
        if let Some(way) = self.way(shard) {
            way.mailbox.send_blocking(mail);
        }
    }

    /// Puts a message into a mailbox, now or as soon as there is room.
    pub async fn deliver(&self, shard: u8, mut mail: Mail) {
        let Some(way) = self.way(shard) else { return };
        while let Err(returned) = way.mailbox.send(mail) {
            mail = returned;
            tokio::time::sleep(MAILBOX_PAUSE).await;
        }
    }

    /// Works on an answer beside all else; it goes into the mailbox as soon as there is room. Needs
    /// the context of a runtime.
    pub fn answer(&self, shard: u8, work: impl Future<Output = Mail> + Send + 'static) {
        let shards = self.clone();
        tokio::spawn(async move { shards.deliver(shard, work.await).await });
    }

    fn way(&self, shard: u8) -> Option<&Way> {
        let way = self.0.get(usize::from(shard));
        debug_assert!(way.is_some(), "a request from shard {shard} of {}", self.0.len());
        way
    }
}

/// Carries answers to one shard, in order, until nobody can give any more.
async fn carry(mut answers: mpsc::UnboundedReceiver<Mail>, mailbox: MailSender<Mail>) {
    let mut batch = Vec::with_capacity(BATCH);
    while answers.recv_many(&mut batch, BATCH).await > 0 {
        let mut rest = batch.drain(..);
        let mut unsent = mailbox.send_all(&mut rest);
        while let Some(mail) = unsent {
            tokio::time::sleep(MAILBOX_PAUSE).await;
            unsent = mailbox.send_all(std::iter::once(mail).chain(&mut rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::ConnId;
    use crate::life::Gone;
    use crate::mail::Mailbox;

    /// Answers arrive in order and all of them, also through a mailbox that is smaller than what
    /// is on its way.
    #[tokio::test]
    async fn answers_pass_a_full_mailbox_in_order() {
        let (sender, mailbox) = Mailbox::new(2, Gone::default()).expect("an eventfd");
        let shards = Shards::start(vec![sender]);
        let worker = ConnId::new(0, 1, 1);
        for count in 0..200 {
            shards.post(0, Mail::EventsWritten { worker, count });
        }
        let mut next = 0;
        while next < 200 {
            match mailbox.take() {
                Some(Mail::EventsWritten { count, .. }) => {
                    assert_eq!(count, next);
                    next += 1;
                }
                Some(other) => panic!("nobody sent {other:?}"),
                None => tokio::task::yield_now().await,
            }
        }
        assert!(mailbox.is_empty());
    }
}
