//! Connections of backends to the push service: HTTP/1.1 and HTTP/2, with or without TLS.
//!
//! Invariants: whoever comes finds a place, however many connections are silent ([`Places`]); a
//! connection that does not finish its handshake and a head, or a body, in time is closed; without
//! the secret nothing but a head is read; who needs none and is a page of a stranger is refused.
//! Costs: a task per connection and, for HTTP/2, per request.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tonic::service::Routes;

use super::{Pushes, http};
use crate::config::raise_nofile;
use crate::life::peer::Peers;
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};
use crate::outside::origin::is_foreign;
use crate::outside::places::{Place, Places, Tracked};
use crate::outside::secrets::same;
use crate::protocols::xxim::config::push::{PushBounds, XximPushService, push_connections_max};
use crate::protocols::xxim::service::grpc::conn_service_server::ConnServiceServer;
use crate::protocols::xxim::wire::code;

/// How often an HTTP/2 backend that is silent is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// The certificates of a server, which may change while it runs. `None`: no TLS.
pub type Certificates = Option<watch::Receiver<Arc<ServerConfig>>>;

/// Serves until it is dropped. A connection has the certificates of the moment at which it came.
pub(in crate::protocols::xxim::service) async fn serve(
    listener: TcpListener,
    tls: Certificates,
    pushes: Pushes,
    peers: Peers,
) {
    let bounds = pushes.settings.bounds;
    let doors = Doors::new(pushes);
    let max = push_connections_max(bounds.connections_max, raise_nofile()) as usize;
    let places = Places::new(max, bounds.head_timeout, bounds.body_timeout);
    let begin = |stream: TcpStream, peer: SocketAddr, place: Place| {
        let acceptor = tls.as_ref().map(|tls| TlsAcceptor::from(tls.borrow().clone()));
        let (routes, tasks) = (doors.of(peer.ip()), peers.clone());
        peers.spawn(async move {
            // What goes wrong on one connection concerns nobody else.
            place.carry(connection(stream, acceptor, place.service(routes), bounds, tasks)).await;
        });
    };
    places.serve(listener, "push service", begin).await;
}

async fn connection(
    stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
    routes: Tracked,
    bounds: PushBounds,
    tasks: Peers,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(acceptor) = acceptor else { return answer(stream, routes, bounds, tasks).await };
    answer(acceptor.accept(stream).await?, routes, bounds, tasks).await
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: Tracked,
    bounds: PushBounds,
    tasks: Peers,
) -> io::Result<()> {
    let mut builder = Builder::new(tasks);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        // Who says that it has said everything still waits for the answer.
        .half_close(true)
        .max_buf_size(HTTP_HEAD_BYTES_MAX)
        .max_headers(HTTP_HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.requests_max)
        .keep_alive_interval(PING_INTERVAL);
    let served = builder.serve_connection(TokioIo::new(stream), routes).await;
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
        let grpc = TowerToHyperService::new(Routes::new(grpc).into_axum_router());
        let both = http::routes(pushes).layer(from_fn_with_state(grpc, by_kind));
        let guarded = both.clone().layer(from_fn_with_state(secret, check));
        Doors { open: both.layer(from_fn(no_strangers)), guarded, settings }
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
    if is_grpc(&request) {
        return Status::unauthenticated(TEXT).into_http::<Body>();
    }
    http::refusal(StatusCode::UNAUTHORIZED, code::AUTH, TEXT)
}

/// Where nothing has to be shown: refuses pages of strangers.
async fn no_strangers(request: Request, next: Next) -> Response {
    const TEXT: &str = "pages of another origin may not push; backends send no Origin";
    match is_foreign(&request) {
        false => next.run(request).await,
        true if is_grpc(&request) => Status::permission_denied(TEXT).into_http::<Body>(),
        true => http::refusal(StatusCode::FORBIDDEN, code::AUTH, TEXT),
    }
}

/// Hands gRPC to its router, whose answers have forms of their own, and all else to that of HTTP.
async fn by_kind(
    State(grpc): State<TowerToHyperService<Router>>,
    request: Request,
    next: Next,
) -> Response {
    if !is_grpc(&request) {
        return next.run(request).await;
    }
    let Ok(answer) = grpc.call(request).await;
    answer
}

/// Whether the message is protobuf of gRPC; other codecs are not spoken.
fn is_grpc(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).map(|kind| kind.as_bytes());
    let kind = kind.unwrap_or_default().split(|byte| *byte == b';').next().unwrap_or_default();
    ["application/grpc", "application/grpc+proto"]
        .iter()
        .any(|grpc| kind.trim_ascii().eq_ignore_ascii_case(grpc.as_bytes()))
}
