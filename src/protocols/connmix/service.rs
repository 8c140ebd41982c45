//! What connmix has done away from the shards: requests that its rules make (connmix section 7.4,
//! `http`), and the metrics as text.
//!
//! A good answer has a status of 200 to 299. Failures are counted by reason and logged (one line a
//! second at the most, without the URL); the rule says what the client is told.
//! Costs: a task per request, and the answer's body if somebody wants it.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::Counter;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Method, StatusCode};

use crate::config::model::Sidecar;
use crate::lists::letters::Mail;
use crate::log::{Every, target};
use crate::metrics::{Registry, rows};
use crate::outside::Outside;
use crate::outside::http_client::{self, Failure as HttpFailure};
use crate::outside::shards::Shards;
use crate::protocols::connmix::letters::{HttpCall, Letter, ServiceRequest};

/// Time for the connection alone: no limit, as the rule's timeout covers everything.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(24 * 3600);
const LOG_INTERVAL_MS: u64 = 1000;

/// Values of the label `reason`, in the order of [`Failure::number`].
const REASONS: [&str; 5] = ["request", "timeout", "unreachable", "transport", "status"];

/// Why a request brought no good answer. The rule's `on_error` is run.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the URL or content type that the rule makes is not valid")]
    Request,
    #[error(transparent)]
    Http(#[from] HttpFailure),
    #[error("status {0}")]
    Status(StatusCode),
}

/// What carries requests.
pub struct Service {
    calls: Arc<Calls>,
    registry: Arc<Registry>,
    shards: Shards,
}

impl Service {
    /// Fails if there is no entropy for TLS.
    pub fn start(outside: &Outside) -> io::Result<Service> {
        Ok(Service {
            calls: Arc::new(Calls::new(outside.settings, &outside.registry)?),
            registry: outside.registry.clone(),
            shards: outside.shards.clone(),
        })
    }

    /// Begins to carry a request. Needs the context of a runtime.
    pub fn begin(&self, request: ServiceRequest) {
        match request {
            ServiceRequest::HttpCall { conn, call } => {
                let calls = self.calls.clone();
                self.shards.answer(conn.shard(), async move {
                    let answer = calls.call(*call).await;
                    Mail::Connmix(Letter::HttpCalled { conn, answer })
                });
            }
            ServiceRequest::Metrics { shard, number } => {
                let registry = self.registry.clone();
                self.shards.answer(shard, async move {
                    Mail::Connmix(Letter::Rendered { number, text: registry.render() })
                });
            }
        }
    }
}

/// The client for requests of rules.
struct Calls {
    client: Client,
    failures: [Counter; REASONS.len()],
    log: Mutex<Every>,
    started: Instant,
}

impl Calls {
    /// Fails if there is no entropy for TLS.
    fn new(settings: Sidecar, registry: &Registry) -> io::Result<Calls> {
        Ok(Calls {
            client: http_client::calls(settings, false, CONNECT_TIME_MAX)?,
            failures: REASONS
                .map(|reason| registry.counter(&rows::RULE_CALL_FAILURES, &[("reason", reason)])),
            log: Mutex::new(Every::new(LOG_INTERVAL_MS)),
            started: Instant::now(),
        })
    }

    /// Makes a request; the body of a good answer, empty if nobody wants it.
    async fn call(&self, call: HttpCall) -> Option<Bytes> {
        match self.answer(call).await {
            Ok(body) => Some(body),
            Err(failure) => {
                self.failed(&failure);
                None
            }
        }
    }

    async fn answer(&self, call: HttpCall) -> Result<Bytes, Failure> {
        let method = Method::from_bytes(call.method.as_bytes()).map_err(|_| Failure::Request)?;
        let url = http_client::url(&call.url).map_err(|_| Failure::Request)?;
        let kind = HeaderValue::from_str(&call.content_type).map_err(|_| Failure::Request)?;
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind)]);
        let request = self.client.request(method, url).headers(headers).body(call.body);
        let response = request.timeout(call.timeout).send().await.map_err(HttpFailure::from)?;
        if !response.status().is_success() {
            return Err(Failure::Status(response.status()));
        }
        if call.answer_bytes_max == 0 {
            return Ok(Bytes::new());
        }
        Ok(http_client::body(response, call.answer_bytes_max).await?)
    }

    fn failed(&self, failure: &Failure) {
        self.failures[failure.number()].increment(1);
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut log = self.log.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(suppressed) = log.allow(now_ms) {
            tracing::warn!(
                target: target::CONNMIX,
                reason = %failure, suppressed, "request of a connmix rule failed"
            );
        }
    }
}

impl Failure {
    fn number(&self) -> usize {
        match self {
            Failure::Request => 0,
            Failure::Http(HttpFailure::Timeout) => 1,
            Failure::Http(HttpFailure::Unreachable(_)) => 2,
            Failure::Http(
                HttpFailure::Transport(_) | HttpFailure::Nonsense(_) | HttpFailure::TooLong(_),
            ) => 3,
            Failure::Status(_) => 4,
        }
    }
}
