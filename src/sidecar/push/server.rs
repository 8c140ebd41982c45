//! Connections of backends to the push service: HTTP/1.1 and HTTP/2, with or without TLS.
//!
//! Invariants: at most [`CONNECTIONS_MAX`] connections, further ones wait in the backlog; a
//! connection that does not finish its handshake or a request head in time is closed.
//! Costs: a task per connection and, for HTTP/2, per request.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tonic::service::Routes;

use super::service::conn_service_server::ConnServiceServer;
use super::{Pushes, http};
use crate::config::model::XximPushService;
use crate::limits::HTTP_HEADERS_MAX;
use crate::log::Every;
use crate::sidecar::login::same;
use crate::wire::xxim::code;

/// Connections served at once.
const CONNECTIONS_MAX: usize = 1024;
/// Requests of one HTTP/2 connection that are under way.
const STREAMS_MAX: u32 = 1024;
/// Time for a TLS handshake and for the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// How often an HTTP/2 backend that is silent is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Pause after a failed accept: nearly always there is no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const LOG_INTERVAL_MS: u64 = 10_000;

/// The certificates of a server, which may change while it runs. `None`: no TLS.
pub type Certificates = Option<watch::Receiver<Arc<ServerConfig>>>;

/// Serves until it is dropped. A connection has the certificates of the moment at which it came.
pub(in crate::sidecar) async fn serve(listener: TcpListener, tls: Certificates, pushes: Pushes) {
    let doors = Doors::new(pushes);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let started = std::time::Instant::now();
    let mut log = Every::new(LOG_INTERVAL_MS);
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let acceptor = tls.as_ref().map(|tls| TlsAcceptor::from(tls.borrow().clone()));
                let routes = doors.of(peer.ip());
                tokio::spawn(async move {
                    let _place = place;
                    // What goes wrong on one connection concerns nobody else.
                    let _ = connection(stream, acceptor, routes).await;
                });
            }
            Err(error) => {
                let now_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                if let Some(suppressed) = log.allow(now_ms) {
                    tracing::warn!(%error, suppressed, "push service cannot accept");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    routes: Router,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(acceptor) = acceptor else { return answer(stream, routes).await };
    let handshake = tokio::time::timeout(HEAD_TIME_MAX, acceptor.accept(stream));
    let stream = handshake.await.map_err(|_| io::ErrorKind::TimedOut)??;
    answer(stream, routes).await
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Router,
) -> io::Result<()> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_headers(HTTP_HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PING_INTERVAL);
    let service = TowerToHyperService::new(routes);
    let served = builder.serve_connection(TokioIo::new(stream), service).await;
    served.map_err(|error| io::Error::other(error.to_string()))
}

/// The routes, for those who must show the secret and for those who need not.
struct Doors {
    open: Router,
    guarded: Router,
    settings: Arc<XximPushService>,
}

impl Doors {
    fn new(pushes: Pushes) -> Doors {
        let settings = pushes.settings.clone();
        let bytes_max = settings.request_bytes_max as usize;
        let secret: Arc<str> = settings.secret.as_str().into();
        let grpc = ConnServiceServer::new(pushes.clone()).max_decoding_message_size(bytes_max);
        let open = Routes::new(grpc).into_axum_router().merge(http::routes(pushes));
        let guarded = open.clone().layer(from_fn_with_state(secret, check));
        Doors { open, guarded, settings }
    }

    /// The door of a peer with this address (`xxim.push.allow_from`). No header counts.
    fn of(&self, peer: IpAddr) -> Router {
        let XximPushService { secret, allow_from, tls, .. } = &*self.settings;
        let verified = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let guarded = !secret.is_empty() || !allow_from.is_empty() && !verified;
        match guarded && !allow_from.iter().any(|network| network.contains(peer)) {
            true => self.guarded.clone(),
            false => self.open.clone(),
        }
    }
}

/// Lets a request through that shows the secret; without one nobody can.
async fn check(State(secret): State<Arc<str>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION);
    let shown = shown.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if !secret.is_empty() && shown.is_some_and(|shown| same(shown, &secret)) {
        return next.run(request).await;
    }
    const TEXT: &str = "show the secret of the push service (Authorization: Bearer <secret>), or \
                        push from an address in xxim.push.allow_from";
    let kind = request.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return Status::unauthenticated(TEXT).into_http::<Body>();
    }
    http::refusal(StatusCode::UNAUTHORIZED, code::AUTH, TEXT)
}
