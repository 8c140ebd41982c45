//! Callbacks: what applications are asked or told about their clients, over HTTP or gRPC.
//!
//! A failed attempt is counted and logged (one line a second at the most, without the URL).
//! Costs: the answer's body per attempt.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::uri::PathAndQuery;
use metrics::Counter;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{StatusCode, Url};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::grpc;
use super::http_client::{self, HttpClient};
use crate::limits::CALLBACK_ANSWER_BYTES_MAX;
use crate::log::{Every, target};
use crate::metrics::{Registry, rows};

/// The content type of all that is asked and told.
pub const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const LOG_INTERVAL_MS: u64 = 1000;

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("no address is configured")]
    Unset,
    #[error(transparent)]
    Http(#[from] http_client::Failure),
    #[error("status {0} instead of 200")]
    Status(StatusCode),
    #[error("gRPC status {0:?}")]
    Grpc(Code),
    #[error("the answer makes no sense: {0}")]
    Undecodable(String),
    #[error("too many calls wait")]
    NoRoom,
}

/// Values of the label `reason`, in the order of [`Failure::number`].
const REASONS: [&str; 7] =
    ["unset", "timeout", "unreachable", "transport", "status", "answer", "no_room"];

/// One thing that is asked or told.
pub struct Callback {
    name: &'static str,
    pub target: Target,
    /// For everything from the name lookup to the last byte of the answer.
    pub deadline: Duration,
    failures: [Counter; REASONS.len()],
    log: Mutex<Every>,
    started: Instant,
}

/// Where an application is asked.
pub enum Target {
    Unset,
    Http(HttpClient, Url),
    Grpc(Channel, PathAndQuery),
}

impl Target {
    /// An address of an application; unset without a client. Fails if it is not a URL; `name` says
    /// which callback is meant.
    pub fn http(name: &str, url: &str, client: Option<&HttpClient>) -> io::Result<Target> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
        let url = http_client::url(url).map_err(named)?;
        Ok(client.map_or(Target::Unset, |client| Target::Http(client.clone(), url)))
    }
}

impl Callback {
    /// Its failures are counted under its name.
    pub fn new(
        name: &'static str,
        target: Target,
        deadline: Duration,
        registry: &Registry,
    ) -> Callback {
        let counter = |reason| {
            registry.counter(&rows::CALLBACK_FAILURES, &[("callback", name), ("reason", reason)])
        };
        Callback {
            name,
            target,
            deadline,
            failures: REASONS.map(counter),
            log: Mutex::new(Every::new(LOG_INTERVAL_MS)),
            started: Instant::now(),
        }
    }

    /// Tells it once; what the answer says does not matter.
    pub async fn attempt(&self, body: Bytes) -> Result<(), Failure> {
        match &self.target {
            Target::Unset => Err(Failure::Unset),
            Target::Http(client, url) => {
                let headers = HeaderMap::from_iter([(CONTENT_TYPE, PROTOBUF)]);
                let response = client.post(url.clone(), headers, body, self.deadline).await?;
                let status = response.status();
                if status.is_success() { Ok(()) } else { Err(Failure::Status(status)) }
            }
            Target::Grpc(channel, path) => match self.call(channel, path, body).await? {
                Ok(_) => Ok(()),
                Err(status) => Err(Failure::Grpc(status.code())),
            },
        }
    }

    /// One gRPC call. `Ok(Err(status))`: the application said no.
    pub async fn call(
        &self,
        channel: &Channel,
        path: &PathAndQuery,
        body: Bytes,
    ) -> Result<Result<Bytes, Status>, Failure> {
        let request = Request::new(body);
        let call = grpc::unary(channel.clone(), path.clone(), request, CALLBACK_ANSWER_BYTES_MAX);
        let timeout = |_| http_client::Failure::Timeout;
        Ok(tokio::time::timeout(self.deadline, call).await.map_err(timeout)??)
    }

    /// Counts an attempt that failed, and logs it.
    pub fn failed(&self, failure: &Failure) {
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

impl From<grpc::Failure> for Failure {
    fn from(failure: grpc::Failure) -> Failure {
        Failure::Http(match failure {
            grpc::Failure::Unreachable(text) => http_client::Failure::Unreachable(text),
            failure => http_client::Failure::Transport(failure.to_string()),
        })
    }
}

impl Failure {
    fn number(&self) -> usize {
        match self {
            Failure::Unset => 0,
            Failure::Http(http_client::Failure::Timeout) => 1,
            Failure::Http(http_client::Failure::Unreachable(_)) => 2,
            Failure::Http(
                http_client::Failure::Transport(_) | http_client::Failure::Nonsense(_),
            ) => 3,
            Failure::Status(_) | Failure::Grpc(_) => 4,
            Failure::Http(http_client::Failure::TooLong(_)) | Failure::Undecodable(_) => 5,
            Failure::NoRoom => 6,
        }
    }

    /// Whether another attempt would meet the same.
    pub fn is_final(&self) -> bool {
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
