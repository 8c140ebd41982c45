//! A bounded channel for a thread that waits in its ring, with the eventfd that wakes it.
//!
//! When a mailbox is full the message comes back to the sender, which keeps it and reads nothing
//! that would make more until there is room. Costs: a slot per message that the mailbox may hold,
//! taken when it is made, and those of the [`Waker`].

use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TrySendError};

use super::Waker;
use crate::life::Gone;

/// The sending side; one clone per thread that writes to the receiver.
#[derive(Debug)]
pub struct MailSender<M> {
    sender: Sender<M>,
    waker: Arc<Waker>,
    gone: Gone,
}

impl<M> Clone for MailSender<M> {
    fn clone(&self) -> MailSender<M> {
        let MailSender { sender, waker, gone } = self;
        MailSender { sender: sender.clone(), waker: waker.clone(), gone: gone.clone() }
    }
}

impl<M> MailSender<M> {
    /// Puts a message into the mailbox and wakes the receiver if it waits. A full mailbox gives the
    /// message back.
    pub fn send(&self, mail: M) -> Result<(), M> {
        match self.sender.try_send(mail) {
            Ok(()) => self.waker.wake(),
            Err(TrySendError::Full(mail)) => return Err(mail),
            Err(TrySendError::Disconnected(_)) => self.gone.notice(),
        }
        Ok(())
    }

    /// Puts in messages while there is room and wakes the receiver once. The message that found
    /// none comes back; those behind it have not been asked for.
    pub fn send_all(&self, mails: impl IntoIterator<Item = M>) -> Option<M> {
        let mut full = None;
        for mail in mails {
            match self.sender.try_send(mail) {
                Ok(()) => {}
                Err(TrySendError::Full(mail)) => {
                    full = Some(mail);
                    break;
                }
                Err(TrySendError::Disconnected(_)) => self.gone.notice(),
            }
        }
        self.waker.wake();
        full
    }

    /// [`MailSender::send`] for threads that have nothing better to do than to wait for room
    /// (those that decrypt keys).
    pub fn send_blocking(&self, mail: M) {
        match self.sender.send(mail) {
            Ok(()) => self.waker.wake(),
            Err(_) => self.gone.notice(),
        }
    }

    /// The same, but no longer than until then; returns whether there was room.
    pub fn send_until(&self, mail: M, deadline: Instant) -> bool {
        match self.sender.send_deadline(mail, deadline) {
            Ok(()) => self.waker.wake(),
            Err(SendTimeoutError::Timeout(_)) => return false,
            Err(SendTimeoutError::Disconnected(_)) => self.gone.notice(),
        }
        true
    }
}

/// The receiving side, owned by the thread that waits in its ring.
#[derive(Debug)]
pub struct Mailbox<M> {
    receiver: Receiver<M>,
    waker: Arc<Waker>,
}

impl<M> Mailbox<M> {
    /// A mailbox for `messages_max` messages. Fails if the process has no descriptor left.
    pub fn new(messages_max: usize, gone: Gone) -> io::Result<(MailSender<M>, Mailbox<M>)> {
        let (sender, receiver) = crossbeam_channel::bounded(messages_max);
        let waker = Waker::new()?;
        Ok((MailSender { sender, waker: waker.clone(), gone }, Mailbox { receiver, waker }))
    }

    /// The next message, if there is one.
    pub fn take(&self) -> Option<M> {
        self.receiver.try_recv().ok()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// What wakes the receiver.
    pub fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::time::Timespec;

    use super::*;

    fn mailbox(messages_max: usize) -> (MailSender<u32>, Mailbox<u32>) {
        Mailbox::new(messages_max, Gone::default()).expect("an eventfd")
    }

    /// Whether the eventfd is written to within that time; takes the mark away.
    fn is_woken(mailbox: &Mailbox<u32>, patience: Duration) -> bool {
        let fd = mailbox.waker().fd();
        let patience = Timespec::try_from(patience).expect("a short time");
        let ready = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&patience));
        let woken = ready.expect("an eventfd can be polled") > 0;
        if woken {
            rustix::io::read(fd, &mut [0; 8]).expect("there is a mark");
        }
        woken
    }

    #[test]
    fn a_full_mailbox_gives_the_message_back() {
        let (sender, mailbox) = mailbox(2);
        assert_eq!([1, 2, 3].map(|mail| sender.send(mail)), [Ok(()), Ok(()), Err(3)]);
        assert!(!sender.send_until(3, Instant::now()));
        assert_eq!(mailbox.take(), Some(1));
        // What did not fit comes back, and what is behind it stays where it is.
        let mut mails = [3, 4, 5].into_iter();
        assert_eq!(sender.send_all(&mut mails), Some(4));
        assert_eq!(mails.next(), Some(5));
        assert_eq!([mailbox.take(), mailbox.take(), mailbox.take()], [Some(2), Some(3), None]);
        assert!(mailbox.is_empty());
    }

    #[test]
    fn only_a_receiver_that_rests_is_woken_and_only_once() {
        let (sender, mailbox) = mailbox(64);
        let ways: [fn(&MailSender<u32>); 4] = [
            |sender| sender.send(1).expect("room"),
            |sender| assert!(sender.send_all([1, 2, 3]).is_none()),
            |sender| sender.send_blocking(1),
            |sender| assert!(sender.send_until(1, Instant::now())),
        ];
        for way in ways {
            way(&sender);
            assert!(!is_woken(&mailbox, Duration::ZERO), "it is awake");
            mailbox.waker().rest();
            way(&sender);
            assert!(is_woken(&mailbox, Duration::ZERO), "it rests");
            way(&sender);
            assert!(!is_woken(&mailbox, Duration::ZERO), "it was woken already");
            mailbox.waker().rest();
            mailbox.waker().awake();
            way(&sender);
            assert!(!is_woken(&mailbox, Duration::ZERO), "it is awake again");
        }
    }

    /// A receiver that rests whenever it finds nothing gets everything from several threads, each
    /// in its order, and is never left waiting.
    #[test]
    fn nothing_is_left_lying_while_the_receiver_rests() {
        const SENDERS: u32 = 3;
        const EACH: u32 = 20_000;
        let (sender, mailbox) = mailbox(8);
        for first in 0..SENDERS {
            let sender = sender.clone();
            std::thread::spawn(move || {
                (0..EACH).for_each(|number| sender.send_blocking(number * SENDERS + first));
            });
        }
        let mut next: Vec<u32> = (0..SENDERS).collect();
        while next.iter().any(|mail| *mail < EACH * SENDERS) {
            if let Some(mail) = mailbox.take() {
                let next = &mut next[(mail % SENDERS) as usize];
                assert_eq!(mail, *next);
                *next += SENDERS;
                continue;
            }
            mailbox.waker().rest();
            if mailbox.is_empty() {
                assert!(is_woken(&mailbox, Duration::from_secs(60)), "a message is left lying");
            }
            mailbox.waker().awake();
        }
    }
}
