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

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use crate::life::Life;
use crate::life::peer::Peers;
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};
use crate::metrics::Registry;
use crate::outside::origin::is_foreign;
use crate::outside::places::{Place, Places, Tracked};
use crate::rsa_keys::RsaKey;

const INDEX: &str = "Ringway\n\n/metrics  Prometheus metrics\n/healthz  the process is alive\n\
                     /readyz   the process takes clients\n";
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
}

/// Serves until it is dropped. The time for a head is what a connection may take in all.
pub(super) async fn serve(listener: TcpListener, facts: Facts, places: Arc<Places>, peers: Peers) {
    let pages = pages(facts);
    let time_max = places.head_time();
    let begin = |stream, _, place: Place| {
        let pages = pages.clone();
        peers.spawn(async move {
            let answered = place.carry(answer(stream, place.service(pages)));
            let _ = tokio::time::timeout(time_max, answered).await;
        });
    };
    places.serve(listener, "admin server", begin).await;
}

/// What goes wrong on one connection concerns nobody else and is not worth a line.
async fn answer(stream: TcpStream, pages: Tracked) -> Result<(), hyper::Error> {
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
        .fallback(|| async { text(StatusCode::NOT_FOUND, "not found\n") })
        .layer(from_fn(no_strangers))
        .with_state(facts)
}

async fn no_strangers(request: Request, next: Next) -> Response {
    match is_foreign(&request) {
        true => text(StatusCode::FORBIDDEN, "not for pages of another origin\n"),
        false => next.run(request).await,
    }
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

fn text(status: StatusCode, body: impl Into<std::borrow::Cow<'static, str>>) -> Response {
    (status, [(header::CONTENT_TYPE, TEXT)], body.into()).into_response()
}
