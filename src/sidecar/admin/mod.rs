//! The admin HTTP server: `/metrics`, `/healthz`, `/readyz`, an index at `/`, and in the demo the
//! public key of xxim clients.
//!
//! `/healthz` is 200 until the watchdog gives a thread up, right before the process ends. `/readyz`
//! is 200 while clients are welcome: after all shards listen, until the process drains, and while
//! no thread stands still. Both ask nobody: they read what the threads and the watchdog have left.
//! Every connection carries one request and lives no longer than the time limit; when all places
//! are taken, peers that are slow or silent make room for whoever comes ([`Places`]). So the pages
//! always answer. What a page of another origin asks for is refused. Costs: nothing between
//! requests.

mod api;
mod asks;
mod endpoints;
mod fault;
mod params;
mod rows;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::life::Life;
use crate::life::peer::Peers;
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};
use crate::metrics::Registry;
use crate::outside::origin::is_foreign;
use crate::outside::places::{Place, Places, Tracked};
use crate::rsa_keys::RsaKey;

pub(super) use api::{Api, METHOD, QUESTIONS_MAX};
pub(super) use asks::Asks;
pub use endpoints::Role;
use fault::Fault;
pub use rows::{ListenerFacts, Namer};

const INDEX: &str = "Ringway\n\n/metrics  Prometheus metrics\n/healthz  the process is alive\n\
                     /readyz   the process takes clients\n\
                     /api/v1/openapi.json  what else can be asked and done\n";
/// Bytes of the body of a request to the interface.
const BODY_BYTES_MAX: usize = 1 << 20;
const TEXT: &str = "text/plain; charset=utf-8";
/// What Prometheus expects of its text format.
const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where the process stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not every shard listens yet.
    Starting,
    /// Clients are welcome.
    Ready,
    /// The process is about to end.
    Draining,
}

/// The phase, shared between the main thread, which sets it, and the admin server.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// Enters a phase.
    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Relaxed);
    }

    /// The phase that was entered last; at first [`Phase::Starting`].
    fn phase(&self) -> Phase {
        match self.0.load(Ordering::Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }
}

/// What the pages show.
#[derive(Clone)]
pub(super) struct Facts {
    pub registry: Arc<Registry>,
    pub readiness: Arc<Readiness>,
    pub life: Life,
    /// The key whose public part is shown at `/demo/xxim.pub.pem`.
    pub key: Option<Arc<RsaKey>>,
    pub api: Api,
    /// What the connection may do; `None`: only read the pages.
    pub role: Option<Role>,
}

/// A way to the server. What a connection may do depends on which it came.
pub(super) enum Door {
    /// Anybody on the machine; `None`: anybody at all, who gets the pages but not the interface.
    Port(TcpListener, Option<Role>),
    /// The user of this process, and root.
    Socket(UnixListener),
}

/// Serves until it is dropped. The time for a head is what a connection may take in all.
pub(super) async fn serve(door: Door, facts: Facts, places: Arc<Places>, peers: Peers) {
    let time_max = places.head_time();
    match door {
        Door::Port(listener, role) => {
            let pages = pages(Facts { role, ..facts });
            let begin = |stream: TcpStream, _, place: Place| {
                let pages = pages.clone();
                peers.spawn(async move {
                    let answered = place.carry(answer(stream, place.service(pages)));
                    let _ = tokio::time::timeout(time_max, answered).await;
                });
            };
            places.serve(listener, "admin server", begin).await;
        }
        Door::Socket(listener) => {
            let pages =
                [None, Some(Role::Steer)].map(|role| pages(Facts { role, ..facts.clone() }));
            let begin = |stream: UnixStream, _, place: Place| {
                let pages = pages[usize::from(is_trusted(&stream))].clone();
                peers.spawn(async move {
                    let answered = place.carry(answer(stream, place.service(pages)));
                    let _ = tokio::time::timeout(time_max, answered).await;
                });
            };
            places.serve(listener, "admin socket", begin).await;
        }
    }
}

/// Whether the other end is a process of root, or of the user of this one.
fn is_trusted(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

/// What goes wrong on one connection concerns nobody else and is not worth a line.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    pages: Tracked,
) -> Result<(), hyper::Error> {
    http1::Builder::new()
        .keep_alive(false)
        // Who says that it has said everything still waits for the answer.
        .half_close(true)
        .max_buf_size(HTTP_HEAD_BYTES_MAX)
        .max_headers(HTTP_HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), pages)
        .await
}

fn pages(facts: Facts) -> Router {
    let router = Router::new();
    #[cfg(debug_assertions)]
    let router = router.route("/debug/fault", axum::routing::post(fault));
    router
        .route("/", get(|| async { text(StatusCode::OK, INDEX) }))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/demo/xxim.pub.pem", get(public_key))
        .route("/api/v1", any(asked))
        .route("/api/v1/", any(asked))
        .route("/api/v1/{*path}", any(asked))
        .fallback(|| async { text(StatusCode::NOT_FOUND, "not found\n") })
        .layer(from_fn(no_strangers))
        .with_state(facts)
}

/// Whether a request names this machine, and is none of a page of another server on it. A name that
/// a stranger has made to lead here names the stranger.
fn is_near(request: &Request) -> bool {
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let host = header(header::HOST).unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    let name = name.unwrap_or_default();
    let loopback = name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let own = header(header::ORIGIN)
        .is_none_or(|origin| origin.split_once("://").is_some_and(|(_, of)| of == host));
    (loopback || name.eq_ignore_ascii_case("localhost")) && own
}

async fn no_strangers(request: Request, next: Next) -> Response {
    let interface = request.uri().path().starts_with("/api/");
    match is_foreign(&request) || interface && !is_near(&request) {
        true => text(StatusCode::FORBIDDEN, "not for pages of another origin\n"),
        false => next.run(request).await,
    }
}

/// A request to the interface.
async fn asked(State(facts): State<Facts>, request: Request) -> Response {
    match ask(&facts, request).await {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(fault) => fault.into_response(),
    }
}

async fn ask(facts: &Facts, request: Request<Body>) -> Result<serde_json::Value, Fault> {
    let role = facts.role.ok_or_else(|| {
        Fault::forbidden(
            "the interface is for the machine itself: admin.bind on loopback, or admin.socket as \
             root or as the user of the gateway",
        )
    })?;
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await;
    let body = body.map_err(|error| match error.to_string().contains("length limit") {
        true => Fault::too_large(BODY_BYTES_MAX),
        false => Fault::bad("the body did not come whole, or not in time"),
    })?;
    let body = String::from_utf8(body.into()).map_err(|_| Fault::bad("the body is not UTF-8"))?;
    let path = head.uri.path().strip_prefix("/api/v1").unwrap_or_default().to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let method = head.method.to_string();
    facts.api.answer(api::Request { method, path, query, body, node: None }, role).await
}

async fn metrics(State(facts): State<Facts>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, METRICS_TEXT)], facts.registry.render())
}

async fn health(State(facts): State<Facts>) -> impl IntoResponse {
    match facts.life.is_dead() {
        Some(who) => text(StatusCode::SERVICE_UNAVAILABLE, who + "\n"),
        None => text(StatusCode::OK, "ok\n"),
    }
}

async fn ready(State(facts): State<Facts>) -> impl IntoResponse {
    match (facts.readiness.phase(), facts.life.stands_still()) {
        (Phase::Starting, _) => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        (Phase::Draining, _) => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        (Phase::Ready, Some(who)) => text(StatusCode::SERVICE_UNAVAILABLE, who + "\n"),
        (Phase::Ready, None) => text(StatusCode::OK, "ready\n"),
    }
}

/// Has a fault happen to a thread, for tests of what follows: `thread phase times milliseconds`,
/// or `panic` for the last. To `peer` it happens right here. Debug builds only.
#[cfg(debug_assertions)]
async fn fault(State(facts): State<Facts>, order: String) -> impl IntoResponse {
    assert_ne!(order, "peer", "a fault that was asked for, of a peer");
    let order =
        order.split_once(' ').and_then(|(thread, fault)| Some((thread, fault.parse().ok()?)));
    match order.is_some_and(|(thread, fault)| facts.life.inject(thread, fault)) {
        true => text(StatusCode::OK, "so be it\n"),
        false => text(
            StatusCode::BAD_REQUEST,
            "thread, phase, number of times, milliseconds or panic; or: peer\n",
        ),
    }
}

/// The demo's key is made when it is first asked for, which takes too long for this thread.
async fn public_key(State(facts): State<Facts>) -> Response {
    let Some(key) = facts.key else {
        return text(StatusCode::NOT_FOUND, "not found\n");
    };
    match tokio::task::spawn_blocking(move || key.public_pem()).await {
        Ok(Ok(pem)) => ([(header::CONTENT_TYPE, "application/x-pem-file")], pem).into_response(),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// An answer of the interface.
fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn text(status: StatusCode, body: impl Into<std::borrow::Cow<'static, str>>) -> Response {
    (status, [(header::CONTENT_TYPE, TEXT)], body.into()).into_response()
}
