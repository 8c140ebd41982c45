//! What the gateway consists of: parts with threads of their own.

use std::thread::JoinHandle;

use super::StartError;
use super::drain::End;
use crate::config::all::Config;
use crate::mail::UnboundedSender;
use crate::tls_files::TlsFilesError;

/// A running part of the gateway. Its threads are started by [`crate::life::Life::spawn`], so the
/// watchdog sees each of them, and the end of any of them is the end of the gateway.
pub(super) trait Service: Send + Sync {
    /// Reads its certificates again. What can not be read stays as it was.
    ///
    /// # Errors
    /// What is wrong with the first of them.
    fn reload(&self, _config: &Config) -> Result<(), TlsFilesError> {
        Ok(())
    }

    /// Finishes what has begun, while all other services still run.
    fn drain(&self, _end: &mut End) {}

    /// Ends its threads. Those of services behind it in the list have ended, if the end goes well.
    fn stop(self: Box<Self>, end: &mut End);
}

/// What starting a service comes to; `None`: there is none with this configuration, or it ends by
/// itself.
pub(super) type Started = Result<Option<Box<dyn Service>>, StartError>;

/// A service of one thread that ends soon after its last message, however much it has to do.
pub(super) struct Thread<M> {
    pub way: UnboundedSender<M>,
    pub last: M,
    pub thread: JoinHandle<()>,
}

impl<M: Send + Sync> Service for Thread<M> {
    fn stop(self: Box<Self>, _end: &mut End) {
        self.way.send(self.last);
        let _ = self.thread.join();
    }
}
