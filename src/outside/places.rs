//! Connections of peers to an HTTP server beside the shards: how many there are, and how long each
//! may let the gateway wait.
//!
//! Invariants: at most so many at once, and so many descriptors are kept free for them; whoever
//! comes finds a place, unless the gateway works for all that are there: of those that are waited
//! for (idle, in the middle of a head or a body, not reading) the one that has been for the longest
//! is closed. A peer has one span of time from accept to the end of its first head, its TLS
//! handshake included, and one for each body.
//! Costs: an allocation per connection and two per request; a walk over all places per connection
//! that comes when all are taken.

use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hyper::Request;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, unix};
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};

use crate::log::{Every, target};

/// Pause after a failed accept: nearly always there is no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const LOG_INTERVAL_MS: u64 = 10_000;

/// The places of one server.
pub struct Places {
    max: usize,
    head_time: Duration,
    body_time: Duration,
    started: Instant,
    seats: Mutex<Vec<Arc<Seat>>>,
    left: Notify,
}

/// A connection as those see it who look for a place.
#[derive(Default)]
struct Seat {
    /// When the peer last did something that the gateway waited for, or was answered.
    since_ms: AtomicU64,
    /// Requests that the gateway works for: they are there in full and not answered.
    works: AtomicU32,
    /// The first head was there in time.
    greeted: AtomicBool,
    evicted: Notify,
}

/// The place of one connection; dropping it gives it back.
pub struct Place {
    seat: Arc<Seat>,
    places: Arc<Places>,
}

/// What connections come from: a port, or a socket in the file system.
pub trait Accept {
    /// A connection.
    type Stream;
    /// The other end's address.
    type Peer;

    /// Waits for the next connection.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Self::Peer)>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;
    type Peer = SocketAddr;

    fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send {
        TcpListener::accept(self)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;
    type Peer = unix::SocketAddr;

    fn accept(&self) -> impl Future<Output = io::Result<(UnixStream, unix::SocketAddr)>> + Send {
        UnixListener::accept(self)
    }
}

/// Takes over a listener that was bound before the runtime existed. Needs the runtime's context.
pub fn listener(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

impl Places {
    /// `max` places; `head_time` is from accept to the end of the first head.
    pub fn new(max: usize, head_time: Duration, body_time: Duration) -> Arc<Places> {
        Arc::new(Places {
            max,
            head_time,
            body_time,
            started: Instant::now(),
            seats: Mutex::default(),
            left: Notify::new(),
        })
    }

    /// From accept to the end of the first head.
    pub fn head_time(&self) -> Duration {
        self.head_time
    }

    /// Accepts connections until it is dropped, and gives each a place. `what` names the server.
    pub async fn serve<L: Accept>(
        self: Arc<Places>,
        listener: L,
        what: &'static str,
        begin: impl Fn(L::Stream, L::Peer, Place),
    ) {
        let mut log = Every::new(LOG_INTERVAL_MS);
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let place = self.clone().take().await;
                    begin(stream, peer, place);
                }
                Err(error) => {
                    if let Some(suppressed) = log.allow(self.now_ms()) {
                        tracing::warn!(
                            target: target::SIDECAR,
                            %error, suppressed, "{what} cannot accept"
                        );
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn take(self: Arc<Places>) -> Place {
        loop {
            if let Some(seat) = self.find() {
                return Place { seat, places: self };
            }
            self.left.notified().await;
        }
    }

    /// A free place, or that of the peer that has been waited for the longest.
    fn find(&self) -> Option<Arc<Seat>> {
        let mut seats = self.seats();
        if seats.len() >= self.max {
            let waited = |seat: &&Arc<Seat>| seat.works.load(Ordering::Relaxed) == 0;
            let since = |seat: &&Arc<Seat>| seat.since_ms.load(Ordering::Relaxed);
            let longest = seats.iter().filter(waited).min_by_key(since)?.clone();
            seats.retain(|seat| !Arc::ptr_eq(seat, &longest));
            longest.evicted.notify_one();
        }
        let seat = Arc::new(Seat::default());
        seat.since_ms.store(self.now_ms(), Ordering::Relaxed);
        seats.push(seat.clone());
        Some(seat)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn seats(&self) -> MutexGuard<'_, Vec<Arc<Seat>>> {
        // Nothing panics while it is held; if something did, the list would still be whole.
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Carries a connection to its end, or until its place is given to another one, or its first
    /// head does not come in time.
    pub async fn carry(&self, connection: impl Future) {
        let head_is_late = async {
            sleep(self.places.head_time).await;
            if self.seat.greeted.load(Ordering::Relaxed) {
                pending::<()>().await;
            }
        };
        tokio::select! {
            _ = connection => {}
            () = self.seat.evicted.notified() => {}
            () = head_is_late => {}
        }
    }

    /// The same service for requests of this connection.
    pub fn service(&self, router: Router) -> Tracked {
        Tracked { router, seat: self.seat.clone(), places: self.places.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.seats().retain(|seat| !Arc::ptr_eq(seat, &self.seat));
        self.places.left.notify_one();
    }
}

/// A service that knows when the gateway works for a connection.
#[derive(Clone)]
pub struct Tracked {
    router: Router,
    seat: Arc<Seat>,
    places: Arc<Places>,
}

impl Service<Request<Incoming>> for Tracked {
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.seat.greeted.store(true, Ordering::Relaxed);
        self.seat.since_ms.store(self.places.now_ms(), Ordering::Relaxed);
        let work = Arc::new(Work {
            seat: self.seat.clone(),
            places: self.places.clone(),
            begun: AtomicBool::new(false),
        });
        let late = Box::pin(sleep(self.places.body_time));
        let request = request.map(|body| {
            if body.is_end_stream() {
                work.begin();
            }
            Body::new(Timed { body, late, work: work.clone() })
        });
        let answer = TowerToHyperService::new(self.router.clone()).call(request);
        Box::pin(async move {
            let answer = answer.await;
            work.end();
            answer
        })
    }
}

/// What the gateway does for one request. It begins when the request is there in full.
struct Work {
    seat: Arc<Seat>,
    places: Arc<Places>,
    begun: AtomicBool,
}

impl Work {
    fn begin(&self) {
        if !self.begun.swap(true, Ordering::Relaxed) {
            self.seat.works.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn end(&self) {
        if self.begun.swap(false, Ordering::Relaxed) {
            self.seat.works.fetch_sub(1, Ordering::Relaxed);
        }
        self.seat.since_ms.store(self.places.now_ms(), Ordering::Relaxed);
    }
}

/// A request that is given up in the middle, a stream that is reset.
impl Drop for Work {
    fn drop(&mut self) {
        self.end();
    }
}

/// A body that has to be there in time.
struct Timed {
    body: Incoming,
    late: Pin<Box<Sleep>>,
    work: Arc<Work>,
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_pending() && self.late.as_mut().poll(context).is_ready() {
            let error = io::Error::new(io::ErrorKind::TimedOut, "the body did not come in time");
            return Poll::Ready(Some(Err(error.into())));
        }
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.work.begin();
        }
        frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
