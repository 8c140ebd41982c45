//! netsvr's HTTP callbacks (netsvr section 7): the application allows or denies an open, and learns
//! of a close.
//!
//! One request per event, no retry, one deadline each. How many run at once is bounded by the
//! shards. A failed callback is counted and logged (one line a second at the most, without the
//! URL); what the client sees does not depend on the reason.
//! Costs: a task and the answer's body per callback.

use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::{Counter, Unit};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{StatusCode, Url};

use crate::log::Every;
use crate::metrics::{Kind, Registry, Row};
use crate::sidecar::upstream::{self, Upstream};
use crate::wire::netsvr::Verdict;

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const LOG_INTERVAL_MS: u64 = 1000;

/// Whom to call and how long to wait.
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

/// Why a callback failed. The client of an open is closed with 1011 and a fixed text.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no address is configured")]
    Unset,
    #[error(transparent)]
    Upstream(#[from] upstream::Failure),
    #[error("status {0} instead of 200")]
    Status(StatusCode),
    #[error("the answer is not a ConnOpenResp: {0}")]
    Undecodable(String),
}

/// The callbacks of one process.
pub(super) struct Hooks {
    /// `None` if there is nothing to call.
    upstream: Option<Upstream>,
    open: Hook,
    close: Hook,
    deadline: Duration,
    answer_bytes_max: usize,
    started: Instant,
}

/// One of the two.
struct Hook {
    name: &'static str,
    url: Option<Url>,
    failures: [Counter; REASONS.len()],
    log: Mutex<Every>,
}

const FAILURES: Row = Row {
    name: "ringway_callback_failures_total",
    help: "HTTP callbacks that failed, by callback and reason",
    kind: Kind::Counter,
    unit: Unit::Count,
};

/// Values of the label `reason`, in the order of [`Failure::number`].
const REASONS: [&str; 6] = ["unset", "timeout", "unreachable", "transport", "status", "answer"];

impl Hooks {
    /// Fails if an address is not a URL, or if there is no entropy for TLS.
    pub(super) fn new(callbacks: Callbacks, registry: &Registry) -> io::Result<Hooks> {
        let open = Hook::new("on_open", callbacks.on_open, registry)?;
        let close = Hook::new("on_close", callbacks.on_close, registry)?;
        let called = open.url.is_some() || close.url.is_some();
        Ok(Hooks {
            upstream: if called { Some(Upstream::new()?) } else { None },
            open,
            close,
            deadline: callbacks.deadline,
            answer_bytes_max: callbacks.answer_bytes_max,
            started: Instant::now(),
        })
    }

    /// Asks whether the client may enter (section 7.1). `body` is a `ConnOpen`. `None`: it failed.
    pub(super) async fn on_open(&self, body: Bytes) -> Option<Box<Verdict>> {
        match self.ask(body).await {
            Ok(verdict) => Some(Box::new(verdict)),
            Err(failure) => {
                self.open.failed(&failure, self.started.elapsed());
                None
            }
        }
    }

    /// Tells that a client has gone (section 7.2). `body` is a `ConnClose`. Any answer will do.
    pub(super) async fn on_close(&self, body: Bytes) {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, PROTOBUF)]);
        if let Err(failure) = self.post(&self.close, headers, body).await {
            self.close.failed(&failure, self.started.elapsed());
        }
    }

    async fn ask(&self, body: Bytes) -> Result<Verdict, Failure> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, PROTOBUF), (ACCEPT, PROTOBUF)]);
        let response = self.post(&self.open, headers, body).await?;
        if !upstream::is_ok(&response) {
            return Err(Failure::Status(response.status()));
        }
        let answer = upstream::body(response, self.answer_bytes_max).await?;
        Verdict::decode(&answer).map_err(|error| Failure::Undecodable(error.to_string()))
    }

    async fn post(
        &self,
        hook: &Hook,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<reqwest::Response, Failure> {
        let (Some(upstream), Some(url)) = (&self.upstream, &hook.url) else {
            return Err(Failure::Unset);
        };
        Ok(upstream.post(url.clone(), headers, body, self.deadline).await?)
    }
}

impl Hook {
    fn new(name: &'static str, url: Option<String>, registry: &Registry) -> io::Result<Hook> {
        let url = url.map(|url| upstream::url(&url)).transpose();
        let url = url.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        let counter =
            |reason| registry.counter(&FAILURES, &[("callback", name), ("reason", reason)]);
        let log = Mutex::new(Every::new(LOG_INTERVAL_MS));
        Ok(Hook { name, url, failures: REASONS.map(counter), log })
    }

    fn failed(&self, failure: &Failure, now: Duration) {
        self.failures[failure.number()].increment(1);
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let mut log = self.log.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(suppressed) = log.allow(now_ms) {
            tracing::warn!(callback = self.name, reason = %failure, suppressed, "callback failed");
        }
    }
}

impl Failure {
    fn number(&self) -> usize {
        match self {
            Failure::Unset => 0,
            Failure::Upstream(upstream::Failure::Timeout) => 1,
            Failure::Upstream(upstream::Failure::Unreachable(_)) => 2,
            Failure::Upstream(upstream::Failure::Transport(_)) => 3,
            Failure::Status(_) => 4,
            Failure::Upstream(upstream::Failure::TooLong(_)) | Failure::Undecodable(_) => 5,
        }
    }
}
