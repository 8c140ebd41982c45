//! Hooks: what backends are asked and told about clients that come and go (netsvr section 7, xxim
//! section 5.2).
//!
//! netsvr's callbacks allow or deny an open, and tell of a close: one attempt each. xxim's hooks
//! tell of a login and a departure: a bounded number of attempts, with pauses that double and vary,
//! so that a backend that returns is not met by everybody at once; of one connection the next hook
//! is told when the one before was taken or given up. How many callbacks run is bounded by the
//! shards, how many xxim hooks wait by this file; a hook for which there is no room is dropped and
//! counted. A failed attempt is counted and logged (one line a second at the most,
//! without the URL); what the client sees does not depend on the reason.
//! Costs: a task and the answer's body per hook.

mod checks;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use metrics::Counter;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{StatusCode, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::config::model::{Sidecar, XximHooks};
use crate::hub::ConnId;
use crate::hub::login::Permission;
use crate::log::{Every, target};
use crate::metrics::{Registry, rows};
use crate::outside::http_client::{self, HttpClient};
use crate::protocols::netsvr::wire::Verdict;
use crate::protocols::xxim::letters::HookKind;
use crate::protocols::xxim::service::dispatch::{self, grpc};
use crate::protocols::xxim::wire::Identity;
use crate::spare;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const LOG_INTERVAL_MS: u64 = 1000;
/// Longest pause after the first failed attempt of a hook; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Whom to call about netsvr clients and how long to wait.
#[derive(Clone, Debug, Default)]
pub struct Callbacks {
    /// Asked before a client is let in. `None` if nobody is to be asked; then shards do not either.
    pub on_open: Option<String>,
    /// Told when a client has gone.
    pub on_close: Option<String>,
    /// For everything from the name lookup to the last byte of the answer.
    pub deadline: Duration,
    /// Longest answer that is read.
    pub answer_bytes_max: usize,
}

/// Why an attempt failed. The client of an open is closed with 1011 and a fixed text.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no address is configured")]
    Unset,
    #[error(transparent)]
    Upstream(#[from] http_client::Failure),
    #[error("status {0} instead of 200")]
    Status(StatusCode),
    #[error("gRPC status {0:?}")]
    Grpc(Code),
    #[error("the answer makes no sense: {0}")]
    Undecodable(String),
    #[error("too many hooks wait")]
    NoRoom,
}

/// The hooks of one process.
pub(crate) struct Hooks {
    open: Hook,
    close: Hook,
    before_request: Hook,
    deadline: Duration,
    answer_bytes_max: usize,
    told: Arc<Told>,
}

/// The xxim hooks, and what is still to be told.
struct Told {
    connected: Hook,
    disconnected: Hook,
    /// Places for hooks that wait, and for those that are carried.
    waiting: Arc<Semaphore>,
    under_way: Semaphore,
    /// What waits behind the hook of a connection that is being told.
    behind: Mutex<HashMap<ConnId, VecDeque<Untold>>>,
}

/// A hook that waits, with its place.
struct Untold {
    kind: HookKind,
    body: Bytes,
    place: OwnedSemaphorePermit,
}

/// One thing that is asked or told.
struct Hook {
    name: &'static str,
    target: Target,
    deadline: Duration,
    attempts_max: u32,
    failures: [Counter; REASONS.len()],
    log: Mutex<Every>,
    started: Instant,
}

enum Target {
    Unset,
    Http(HttpClient, Url),
    Grpc(Channel, PathAndQuery),
}

/// Values of the label `reason`, in the order of [`Failure::number`].
const REASONS: [&str; 7] =
    ["unset", "timeout", "unreachable", "transport", "status", "answer", "no_room"];

impl Hooks {
    /// Fails if an address is not a URL, or if there is no entropy for TLS. Needs the context of a
    /// runtime.
    pub(crate) fn new(
        callbacks: Callbacks,
        hooks: &XximHooks,
        sidecar: Sidecar,
        registry: &Registry,
    ) -> io::Result<Hooks> {
        let urls = [&callbacks.on_open, &callbacks.on_close, &hooks.url];
        let client = match urls.iter().any(|url| url.is_some()) {
            true => Some(HttpClient::new(sidecar)?),
            false => None,
        };
        let http = |name: &str, url: &str| Target::http(name, url, client.as_ref());
        let single = |name, url: Option<String>| {
            let target = url.map_or(Ok(Target::Unset), |url| http(name, &url))?;
            Ok::<_, io::Error>(Hook::new(name, target, callbacks.deadline, 1, registry))
        };
        let repeated = |name, path, method: &'static str| {
            let target = match &hooks.url {
                None => Target::Unset,
                Some(url) if hooks.grpc => {
                    let channel = grpc::channel(url, hooks.timeout)?;
                    Target::Grpc(channel, PathAndQuery::from_static(method))
                }
                Some(url) => http(name, &format!("{url}{path}"))?,
            };
            Ok::<_, io::Error>(Hook::new(name, target, hooks.timeout, hooks.attempts_max, registry))
        };
        let asked = match hooks.before_request {
            true => repeated("before_request", "/beforeRequest", "/pb.imService/BeforeRequest")?,
            false => Hook::new("before_request", Target::Unset, hooks.timeout, 1, registry),
        };
        Ok(Hooks {
            before_request: asked,
            open: single("on_open", callbacks.on_open)?,
            close: single("on_close", callbacks.on_close)?,
            deadline: callbacks.deadline,
            answer_bytes_max: callbacks.answer_bytes_max,
            told: Arc::new(Told {
                connected: repeated(
                    "after_connect",
                    "/afterConnect",
                    "/pb.imService/AfterConnect",
                )?,
                disconnected: repeated(
                    "after_disconnect",
                    "/afterDisconnect",
                    "/pb.imService/AfterDisconnect",
                )?,
                waiting: Arc::new(Semaphore::new(hooks.waiting_max as usize)),
                under_way: Semaphore::new(hooks.under_way_max as usize),
                behind: Mutex::default(),
            }),
        })
    }

    /// Asks whether the client may enter (netsvr section 7.1). `body` is a `ConnOpen`. `None`: it
    /// failed.
    pub(crate) async fn on_open(&self, body: Bytes) -> Option<Box<Verdict>> {
        match self.ask(body).await {
            Ok(verdict) => Some(Box::new(verdict)),
            Err(failure) => {
                self.open.failed(&failure);
                None
            }
        }
    }

    /// Tells that a client has gone (netsvr section 7.2). `body` is a `ConnClose`. Any answer will
    /// do.
    pub(crate) async fn on_close(&self, body: Bytes) {
        match self.close.attempt(body).await {
            Ok(()) | Err(Failure::Status(_)) => {}
            Err(failure) => self.close.failed(&failure),
        }
    }

    /// Tells that an xxim client has logged in or left, as often as it takes within the limits; of
    /// one connection in order. Returns at once. Needs the context of a runtime.
    pub(crate) fn tell(&self, conn: ConnId, kind: HookKind, body: Bytes) {
        let hook = self.told.hook(kind);
        if matches!(hook.target, Target::Unset) {
            return;
        }
        let Ok(place) = self.told.waiting.clone().try_acquire_owned() else {
            return hook.failed(&Failure::NoRoom);
        };
        let untold = Untold { kind, body, place };
        match self.told.behind().entry(conn) {
            Entry::Occupied(behind) => behind.into_mut().push_back(untold),
            Entry::Vacant(entry) => {
                entry.insert(VecDeque::new());
                tokio::spawn(self.told.clone().tell_all(conn, untold));
            }
        }
    }

    /// Asks whether an xxim client may call a method (xxim section 4.1, step 6).
    pub(crate) async fn before_request(&self, identity: &Identity, method: &str) -> Permission {
        let hook = &self.before_request;
        match checks::ask(&hook.target, identity, method, hook.deadline).await {
            Ok(permission) => permission,
            Err(failure) => {
                hook.failed(&failure);
                Permission::Unavailable
            }
        }
    }

    async fn ask(&self, body: Bytes) -> Result<Verdict, Failure> {
        let Target::Http(upstream, url) = &self.open.target else { return Err(Failure::Unset) };
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, PROTOBUF), (ACCEPT, PROTOBUF)]);
        let response = upstream.post(url.clone(), headers, body, self.deadline).await?;
        if !http_client::is_ok(&response) {
            return Err(Failure::Status(response.status()));
        }
        let answer = http_client::body(response, self.answer_bytes_max).await?;
        Verdict::decode(&answer).map_err(|error| Failure::Undecodable(error.to_string()))
    }
}

impl Told {
    /// Tells of a connection until nothing more waits.
    async fn tell_all(self: Arc<Self>, conn: ConnId, first: Untold) {
        let mut next = Some(first);
        while let Some(Untold { kind, body, place }) = next {
            self.hook(kind).repeat(body, &self.under_way).await;
            drop(place);
            let mut all = self.behind();
            next = all.get_mut(&conn).and_then(VecDeque::pop_front);
            if next.is_none() {
                all.remove(&conn);
                spare::emptied(&mut *all);
            }
        }
    }

    fn hook(&self, kind: HookKind) -> &Hook {
        match kind {
            HookKind::AfterConnect => &self.connected,
            HookKind::AfterDisconnect => &self.disconnected,
        }
    }

    fn behind(&self) -> MutexGuard<'_, HashMap<ConnId, VecDeque<Untold>>> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target {
    fn http(name: &str, url: &str, client: Option<&HttpClient>) -> io::Result<Target> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
        let url = http_client::url(url).map_err(named)?;
        Ok(client.map_or(Target::Unset, |client| Target::Http(client.clone(), url)))
    }
}

impl Hook {
    fn new(
        name: &'static str,
        target: Target,
        deadline: Duration,
        attempts_max: u32,
        registry: &Registry,
    ) -> Hook {
        let counter = |reason| {
            registry.counter(&rows::CALLBACK_FAILURES, &[("callback", name), ("reason", reason)])
        };
        Hook {
            name,
            target,
            deadline,
            attempts_max,
            failures: REASONS.map(counter),
            log: Mutex::new(Every::new(LOG_INTERVAL_MS)),
            started: Instant::now(),
        }
    }

    /// Tells it until it was taken, will never be, or was tried often enough.
    async fn repeat(&self, body: Bytes, under_way: &Semaphore) {
        for attempt in 1..=self.attempts_max {
            let Ok(turn) = under_way.acquire().await else { return };
            let result = self.attempt(body.clone()).await;
            drop(turn);
            let Err(failure) = result else { return };
            self.failed(&failure);
            if failure.is_final() || attempt == self.attempts_max {
                return;
            }
            tokio::time::sleep(pause(attempt)).await;
        }
    }

    async fn attempt(&self, body: Bytes) -> Result<(), Failure> {
        match &self.target {
            Target::Unset => Err(Failure::Unset),
            Target::Http(upstream, url) => {
                let headers = HeaderMap::from_iter([(CONTENT_TYPE, PROTOBUF)]);
                let response = upstream.post(url.clone(), headers, body, self.deadline).await?;
                let status = response.status();
                if status.is_success() { Ok(()) } else { Err(Failure::Status(status)) }
            }
            Target::Grpc(channel, path) => {
                let call = grpc::unary(
                    channel.clone(),
                    path.clone(),
                    Request::new(body),
                    crate::limits::CALLBACK_ANSWER_BYTES_MAX,
                );
                let timeout = |_| Failure::Upstream(http_client::Failure::Timeout);
                let reply = tokio::time::timeout(self.deadline, call).await.map_err(timeout)?;
                match reply {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(status)) => Err(Failure::Grpc(status.code())),
                    Err(dispatch::Failure::Unreachable(text)) => {
                        Err(Failure::Upstream(http_client::Failure::Unreachable(text)))
                    }
                    Err(failure) => {
                        Err(Failure::Upstream(http_client::Failure::Transport(failure.to_string())))
                    }
                }
            }
        }
    }

    fn failed(&self, failure: &Failure) {
        self.failures[failure.number()].increment(1);
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(suppressed) = log.allow(now_ms) {
            tracing::warn!(
                target: target::SIDECAR,
                callback = self.name, reason = %failure, suppressed, "callback failed"
            );
        }
    }
}

/// How long to wait after so many failed attempts: at least half of what it could be.
fn pause(attempts: u32) -> Duration {
    let factor = 1_u32.checked_shl(attempts - 1).unwrap_or(u32::MAX);
    let longest = FIRST_PAUSE.saturating_mul(factor).min(PAUSE_MAX);
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

impl Failure {
    fn number(&self) -> usize {
        match self {
            Failure::Unset => 0,
            Failure::Upstream(http_client::Failure::Timeout) => 1,
            Failure::Upstream(http_client::Failure::Unreachable(_)) => 2,
            Failure::Upstream(
                http_client::Failure::Transport(_) | http_client::Failure::Nonsense(_),
            ) => 3,
            Failure::Status(_) | Failure::Grpc(_) => 4,
            Failure::Upstream(http_client::Failure::TooLong(_)) | Failure::Undecodable(_) => 5,
            Failure::NoRoom => 6,
        }
    }

    /// Whether another attempt would meet the same.
    fn is_final(&self) -> bool {
        match self {
            Failure::Status(status) => {
                let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
                !status.is_server_error() && !later.contains(status)
            }
            Failure::Grpc(status) => {
                matches!(status, Code::Unimplemented | Code::InvalidArgument | Code::NotFound)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_vary_and_have_an_end() {
        for attempt in 1..100 {
            let longest = FIRST_PAUSE.saturating_mul(1 << (attempt - 1).min(20)).min(PAUSE_MAX);
            let pause = pause(attempt);
            assert!(pause <= longest && pause >= longest / 2, "{attempt}: {pause:?}");
        }
    }
}
