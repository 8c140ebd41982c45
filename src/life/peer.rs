//! Tasks that serve a single peer. A panic in one ends that peer and is counted; a panic anywhere
//! else ends the process, because others would wait for what has ended.

use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll};

use metrics::Counter;

thread_local! {
    /// The service whose peer this thread serves right now.
    static SERVED: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// The service whose peer the calling thread serves right now.
pub fn served() -> Option<&'static str> {
    SERVED.get()
}

/// Starts tasks for the peers of one service.
#[derive(Clone)]
pub struct Peers {
    service: &'static str,
    panics: Counter,
}

impl Peers {
    /// Panics are counted in `panics`.
    pub fn new(service: &'static str, panics: Counter) -> Peers {
        Peers { service, panics }
    }

    /// Starts a task. Needs the context of a runtime.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(Peer { peers: self.clone(), future: Box::pin(future) });
    }
}

/// So that what a connection starts belongs to its peer, too.
impl<F> hyper::rt::Executor<F> for Peers
where
    F: Future + Send + 'static,
{
    fn execute(&self, future: F) {
        self.spawn(async move {
            future.await;
        });
    }
}

struct Peer {
    peers: Peers,
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Future for Peer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let _serving = Serving {
            before: SERVED.replace(Some(self.peers.service)),
            by: self.peers.panics.clone(),
        };
        self.future.as_mut().poll(cx)
    }
}

/// While it is there the thread serves a peer.
struct Serving {
    before: Option<&'static str>,
    by: Counter,
}

impl Drop for Serving {
    fn drop(&mut self) {
        SERVED.set(self.before);
        if std::thread::panicking() {
            self.by.increment(1);
        }
    }
}
