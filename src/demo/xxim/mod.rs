//! The xxim upstream of `ringway demo`: it takes the requests of xxim clients over HTTP, as a
//! backend of that system would, and pushes what they send to the members of the conversation
//! through the gateway's push service.
//!
//! It has a thread of its own. Pushes leave one after another in the order in which their messages
//! were accepted; while they wait, no more messages are accepted, so nothing grows without a bound.
//! The conversations are in memory and forgotten with the process.
//!
//! Costs: one thread; per request one message decoded and one encoded; one call per push.

mod state;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use prost::Message;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

use self::state::{Chats, Outcome};
pub use self::state::{GROUP, PASSWORD};
use crate::log::target;
use crate::protocols::xxim::config::upstream::{
    XximMode, XximRoute, XximTarget, XximUpstream, XximUpstreams,
};
use crate::protocols::xxim::wire::proto::SendMsgReq;

/// Pushes that may wait; above, no more messages are accepted.
const PUSHES_MAX: usize = 1024;
const PUSH_TIMEOUT: Duration = Duration::from_secs(5);
const PROTOBUF: &str = "application/x-protobuf";

/// The upstream before it serves: its address is known, so that the gateway can be told.
#[derive(Debug)]
pub struct Upstream {
    listener: TcpListener,
    address: SocketAddr,
}

impl Upstream {
    /// Takes a free port of loopback.
    ///
    /// # Errors
    /// There is none.
    pub fn bind() -> io::Result<Upstream> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Upstream { listener, address })
    }

    /// Adds it to the upstreams, with a route for every method, unless there are routes already.
    pub fn join(&self, upstreams: &mut XximUpstreams) {
        if !upstreams.routes.is_empty() {
            return;
        }
        let number = u16::try_from(upstreams.upstreams.len()).unwrap_or(0);
        let upstream = XximUpstream {
            name: "demo".to_owned(),
            url: format!("http://{}", self.address),
            mode: XximMode::Raw,
            http2: false,
            grpc_generic: false,
            connections_max: 256,
            connect_timeout: Duration::from_secs(2),
            reply_bytes_max: 1 << 20,
            circuit_failures: 16,
            circuit_pause: Duration::from_secs(1),
        };
        upstreams.upstreams.push(upstream);
        let timeout = Duration::from_secs(10);
        upstreams.routes.push(XximRoute::new("/v1/", XximTarget::Upstream(number), timeout));
    }

    /// Serves on a thread of its own. `push` is the address of the gateway's push service; without
    /// one nobody gets messages.
    ///
    /// # Errors
    /// The thread or its runtime can not be made.
    pub fn start(self, push: Option<SocketAddr>) -> io::Result<Business> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let (stop, stopped) = oneshot::channel();
        let listener = {
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(self.listener)?
        };
        let (pushes, waiting) = mpsc::channel(PUSHES_MAX);
        let pusher = push.map(Pusher::new).transpose()?;
        let thread = thread::Builder::new().name("demo-xxim".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::spawn(forward(waiting, pusher));
                let chats = Arc::new(Mutex::new(Chats::default()));
                let routes = Router::new().fallback(answer).with_state(Facts { chats, pushes });
                let serving = axum::serve(listener, routes);
                tokio::select! {
                    _ = stopped => {}
                    served = serving => {
                        if let Err(error) = served {
                            tracing::error!(
                                target: target::DEMO,
                                %error, "the demo's xxim upstream has ended"
                            );
                        }
                    }
                }
            });
        })?;
        Ok(Business { stop: Some(stop), thread: Some(thread) })
    }
}

/// The running upstream. Dropping it ends it; what is under way is given up.
#[derive(Debug)]
pub struct Business {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Business {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // If the thread is gone already there is nobody to tell.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(target: target::DEMO, "the demo's xxim upstream has panicked");
        }
    }
}

#[derive(Clone)]
struct Facts {
    chats: Arc<Mutex<Chats>>,
    pushes: mpsc::Sender<SendMsgReq>,
}

/// One request of a client, from the gateway.
async fn answer(State(facts): State<Facts>, method: Method, uri: Uri, body: Bytes) -> Response {
    if method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
    // Room first: pushes must follow in the order in which their messages were accepted.
    let Ok(mut room) = facts.pushes.reserve_many(state::PUSHES_PER_REQUEST_MAX).await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let outcome = {
        let mut chats = facts.chats.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = chats.request(uri.path(), body, now_ms);
        if let Outcome::Done { pushes, .. } = &outcome {
            for push in pushes {
                match room.next() {
                    Some(place) => place.send(push.clone()),
                    None => debug_assert!(false, "more pushes than a request may have"),
                }
            }
        }
        outcome
    };
    match outcome {
        Outcome::Done { response, .. } => {
            ([(header::CONTENT_TYPE, PROTOBUF)], response).into_response()
        }
        Outcome::NoSuchMethod => StatusCode::NOT_FOUND.into_response(),
        Outcome::Malformed => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// The way to the push service, over HTTP.
struct Pusher {
    client: reqwest::Client,
    url: String,
}

impl Pusher {
    fn new(push: SocketAddr) -> io::Result<Pusher> {
        // reqwest panics without a provider. Fails if there is one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder().tls_certs_only([]).no_proxy();
        let client = builder.timeout(PUSH_TIMEOUT).build().map_err(io::Error::other)?;
        Ok(Pusher { client, url: format!("http://{push}/v1/internal/conn/sendMsg") })
    }

    async fn push(&self, request: &SendMsgReq) {
        let call = self.client.post(&self.url).body(request.encode_to_vec());
        match call.send().await {
            Ok(response) if response.status() == reqwest::StatusCode::OK => {}
            Ok(response) => {
                let status = response.status().as_u16();
                tracing::warn!(
                    target: target::DEMO,
                    status, "the push service refuses the demo's push"
                );
            }
            Err(error) => {
                tracing::warn!(
                    target: target::DEMO,
                    error = %error.without_url(), "the demo's push has failed"
                );
            }
        }
    }
}

async fn forward(mut waiting: mpsc::Receiver<SendMsgReq>, pusher: Option<Pusher>) {
    while let Some(request) = waiting.recv().await {
        if let Some(pusher) = &pusher {
            pusher.push(&request).await;
        }
    }
}
