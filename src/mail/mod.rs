//! What threads say to each other goes through here: channels and the waker, whatever they carry.
//!
//! * A thread that waits in its socket ring has a [`Mailbox`]: bounded, with a [`Waker`].
//! * A thread that runs a tokio runtime is reached by a [`BoundedSender`] or an
//!   [`UnboundedSender`].
//!
//! Common to all: no sender waits unless the name of the method says so, a full channel gives the
//! message back, what one thread sends to one receiver arrives in order, and a receiver that has
//! ended is the end of the gateway ([`crate::life::Gone`]): then messages are dropped, unless the
//! gateway stops anyway.

mod mailbox;
mod tasks;
mod waker;

pub use mailbox::{MailSender, Mailbox};
pub use tasks::{BoundedSender, UnboundedSender};
pub use waker::Waker;
