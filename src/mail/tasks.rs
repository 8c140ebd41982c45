//! The ways to threads that run a tokio runtime: their receivers are tasks, which tokio wakes.

use tokio::sync::mpsc;

use crate::life::Gone;

/// The sending side of a channel with a bound; one clone per thread.
#[derive(Debug)]
pub struct BoundedSender<M> {
    sender: mpsc::Sender<M>,
    gone: Gone,
}

impl<M> Clone for BoundedSender<M> {
    fn clone(&self) -> BoundedSender<M> {
        BoundedSender { sender: self.sender.clone(), gone: self.gone.clone() }
    }
}

impl<M> BoundedSender<M> {
    /// A channel for so many messages.
    pub fn new(messages_max: usize, gone: Gone) -> (BoundedSender<M>, mpsc::Receiver<M>) {
        let (sender, receiver) = mpsc::channel(messages_max);
        (BoundedSender { sender, gone }, receiver)
    }

    /// Hands a message over without waiting. A full channel gives it back.
    pub fn send(&self, message: M) -> Result<(), M> {
        match self.sender.try_send(message) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(message)) => return Err(message),
            Err(mpsc::error::TrySendError::Closed(_)) => self.gone.notice(),
        }
        Ok(())
    }
}

/// The sending side of a channel without a bound of its own: what is sent takes room elsewhere
/// first, or is bounded by what it answers. One clone per thread.
#[derive(Debug)]
pub struct UnboundedSender<M> {
    sender: mpsc::UnboundedSender<M>,
    gone: Gone,
}

impl<M> Clone for UnboundedSender<M> {
    fn clone(&self) -> UnboundedSender<M> {
        UnboundedSender { sender: self.sender.clone(), gone: self.gone.clone() }
    }
}

impl<M> UnboundedSender<M> {
    /// The channel.
    pub fn new(gone: Gone) -> (UnboundedSender<M>, mpsc::UnboundedReceiver<M>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (UnboundedSender { sender, gone }, receiver)
    }

    /// Hands a message over without waiting.
    pub fn send(&self, message: M) {
        if self.sender.send(message).is_err() {
            self.gone.notice();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_channel_gives_the_message_back() {
        let (sender, mut receiver) = BoundedSender::new(1, Gone::default());
        assert_eq!([1, 2].map(|message| sender.send(message)), [Ok(()), Err(2)]);
        assert_eq!(receiver.try_recv(), Ok(1));
        assert_eq!(sender.send(2), Ok(()));
        assert_eq!(receiver.try_recv(), Ok(2));
    }

    #[test]
    fn a_channel_without_a_bound_takes_everything_in_order() {
        let (sender, mut receiver) = UnboundedSender::new(Gone::default());
        (0..10_000).for_each(|number| sender.send(number));
        let taken: Vec<i32> = std::iter::from_fn(|| receiver.try_recv().ok()).collect();
        assert!(taken.into_iter().eq(0..10_000));
    }
}
