//! A bounded channel for a thread that waits in its ring, with the eventfd that wakes it.
//!
//! When a mailbox is full the message comes back to the sender, which keeps it and reads nothing
//! that would make more until there is room. Costs: memory for the messages that wait, in blocks of
//! some 30, however many may wait; two counts per message, and those of the [`Waker`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::Waker;
use crate::life::Gone;

/// How often who waits for room looks for it.
const LOOK: Duration = Duration::from_millis(1);

/// The messages that a mailbox has and may have. A channel of crossbeam with a bound of its own
/// would take and touch the memory of all of them when it is made.
#[derive(Debug)]
struct Room {
    taken: AtomicUsize,
    /// Without a bound when the receiver is gone: who sends is to find out.
    max: AtomicUsize,
}

impl Room {
    /// Takes a place; false if there is none. The channel orders what is in the messages.
    fn take(&self) -> bool {
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let free = before < self.max.load(Ordering::Relaxed);
        if !free {
            self.give_back();
        }
        free
    }

    fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The sending side; one clone per thread that writes to the receiver.
#[derive(Debug)]
pub struct MailSender<M> {
    sender: Sender<M>,
    room: Arc<Room>,
    waker: Arc<Waker>,
    gone: Gone,
}

impl<M> Clone for MailSender<M> {
    fn clone(&self) -> MailSender<M> {
        let MailSender { sender, room, waker, gone } = self;
        let (sender, room) = (sender.clone(), room.clone());
        MailSender { sender, room, waker: waker.clone(), gone: gone.clone() }
    }
}

impl<M> MailSender<M> {
    /// Puts a message into the mailbox and wakes the receiver if it waits. A full mailbox gives the
    /// message back.
    pub fn send(&self, mail: M) -> Result<(), M> {
        self.put(mail)?;
        self.waker.wake();
        Ok(())
    }

    /// Puts in messages while there is room and wakes the receiver once. The message that found
    /// none comes back; those behind it have not been asked for.
    pub fn send_all(&self, mails: impl IntoIterator<Item = M>) -> Option<M> {
        let full = mails.into_iter().find_map(|mail| self.put(mail).err());
        self.waker.wake();
        full
    }

    /// [`MailSender::send`] for threads that have nothing better to do than to wait for room
    /// (those that decrypt keys).
    pub fn send_blocking(&self, mut mail: M) {
        while let Err(full) = self.send(mail) {
            mail = full;
            thread::sleep(LOOK);
        }
    }

    /// The same, but no longer than until then; returns whether there was room.
    pub fn send_until(&self, mut mail: M, deadline: Instant) -> bool {
        while let Err(full) = self.send(mail) {
            if Instant::now() >= deadline {
                return false;
            }
            mail = full;
            thread::sleep(LOOK);
        }
        true
    }

    fn put(&self, mail: M) -> Result<(), M> {
        if !self.room.take() {
            return Err(mail);
        }
        if self.sender.send(mail).is_err() {
            self.gone.notice();
        }
        Ok(())
    }
}

/// The receiving side, owned by the thread that waits in its ring.
#[derive(Debug)]
pub struct Mailbox<M> {
    receiver: Receiver<M>,
    room: Arc<Room>,
    waker: Arc<Waker>,
}

impl<M> Mailbox<M> {
    /// A mailbox for `messages_max` messages. Fails if the process has no descriptor left.
    pub fn new(messages_max: usize, gone: Gone) -> io::Result<(MailSender<M>, Mailbox<M>)> {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let room =
            Arc::new(Room { taken: AtomicUsize::new(0), max: AtomicUsize::new(messages_max) });
        let mailbox = Mailbox { receiver, room: room.clone(), waker: Waker::new()? };
        Ok((MailSender { sender, room, waker: mailbox.waker.clone(), gone }, mailbox))
    }

    /// The next message, if there is one.
    pub fn take(&self) -> Option<M> {
        let mail = self.receiver.try_recv().ok()?;
        self.room.give_back();
        Some(mail)
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

impl<M> Drop for Mailbox<M> {
    fn drop(&mut self) {
        self.room.max.store(usize::MAX, Ordering::Relaxed);
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
    fn who_waits_for_room_does_not_wait_for_a_receiver_that_is_gone() {
        let (sender, mailbox) = mailbox(1);
        assert_eq!([1, 2].map(|mail| sender.send(mail)), [Ok(()), Err(2)]);
        let waits = std::thread::spawn(move || sender.send_blocking(2));
        drop(mailbox);
        waits.join().expect("it returns");
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
