//! One upstream: how it is reached, whether its circuit is open, and what is counted about it.
//!
//! Invariant: every call that was admitted is reported once, or was cancelled. Costs: one lock and
//! one counter per call.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use metrics::{Counter, Gauge};

use super::Failure;
use super::breaker::{Admission, Breaker, Change};
use super::grpc::GrpcUpstream;
use super::http1::Http1;
use super::other::Other;
use super::result;
use crate::config::model::Sidecar;
use crate::log::{Every, target};
use crate::metrics::{Registry, rows};
use crate::outside::http_client::url;
use crate::protocols::xxim::config::upstream::{XximMode, XximUpstream};
use crate::protocols::xxim::letters::{UpstreamCall, UpstreamResult};
use crate::protocols::xxim::wire as xxim;

const LOG_INTERVAL_MS: u64 = 1000;

/// What became of a call that was admitted.
#[derive(Debug)]
pub(super) enum Carried {
    Answered(UpstreamResult),
    /// It answered that it can not answer (502 to 504).
    Unwell(UpstreamResult),
    NoSuchMethod,
    Failed(Failure),
}

/// Values of the label `result`.
const RESULTS: [&str; 9] = [
    "success",
    "refused",
    "unwell",
    "timeout",
    "unreachable",
    "transport",
    "nonsense",
    "circuit_open",
    "cancelled",
];

/// See the module.
pub(super) struct Upstream {
    name: String,
    way: Way,
    breaker: Mutex<Breaker>,
    started: Instant,
    results: [Counter; RESULTS.len()],
    open: Gauge,
    opened: Counter,
    log: Mutex<Every>,
}

enum Way {
    Raw(Http),
    Envelope(Http),
    Grpc(GrpcUpstream),
}

enum Http {
    Small(Http1),
    Other(Other),
}

impl Upstream {
    /// Fails if the URL is none, or if there is no entropy for TLS. Needs the context of a runtime.
    pub(super) fn new(
        settings: &XximUpstream,
        sidecar: Sidecar,
        registry: &Registry,
    ) -> io::Result<Upstream> {
        let name = settings.name.clone();
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("xxim.upstream {name:?}: {error}"))
        };
        let way = Way::new(settings, sidecar).map_err(named)?;
        let pause_ms = u64::try_from(settings.circuit_pause.as_millis()).unwrap_or(u64::MAX);
        let label = ("upstream", &*settings.name);
        let open = registry.gauge(&rows::UPSTREAM_CIRCUIT_OPEN, &[label]);
        open.set(0.0);
        Ok(Upstream {
            way,
            breaker: Mutex::new(Breaker::new(settings.circuit_failures, pause_ms)),
            started: Instant::now(),
            results: RESULTS.map(|result| {
                registry.counter(&rows::UPSTREAM_CALLS, &[label, ("result", result)])
            }),
            open,
            opened: registry.counter(&rows::UPSTREAM_CIRCUIT_OPENED, &[label]),
            log: Mutex::new(Every::new(LOG_INTERVAL_MS)),
            name,
        })
    }

    /// Whether a call may begin.
    pub(super) fn admit(&self) -> Admission {
        let admission = self.breaker().admit(self.now_ms());
        if admission == Admission::Refuse {
            self.results[7].increment(1);
        }
        admission
    }

    /// A call that was admitted did not take place.
    pub(super) fn unused(&self) {
        self.results[1].increment(1);
    }

    /// A call that was admitted was given up with its connection, or by a fault in this program.
    pub(super) fn given_up(&self) {
        self.results[8].increment(1);
    }

    /// Carries a call; no time limit but its caller's.
    pub(super) async fn carry(&self, call: &UpstreamCall, lines: &[u8], tag: u32) -> Carried {
        let (http, envelope) = match &self.way {
            Way::Raw(http) => (http, false),
            Way::Envelope(http) => (http, true),
            Way::Grpc(grpc) => {
                let reply = grpc.call(&call.method, lines, &call.req_id, call.body.clone()).await;
                return match reply {
                    None => Carried::NoSuchMethod,
                    Some(Ok(Ok(body))) => match result::response(body, tag) {
                        Ok(result) => Carried::Answered(result),
                        Err(nonsense) => Carried::Failed(nonsense),
                    },
                    Some(Ok(Err(status))) => Carried::Answered(result::by_grpc(status.code())),
                    Some(Err(failure)) => Carried::Failed(failure),
                };
            }
        };
        // The envelope says who asks; its upstreams interpret no headers.
        let reply = if envelope {
            let body = xxim::envelope(&call.identity, call.body.clone());
            http.post(&call.method, &[], None, body).await
        } else {
            http.post(&call.method, lines, Some(&call.req_id), call.body.clone()).await
        };
        match reply {
            Ok(reply) => {
                let unwell = matches!(reply.status, 502..=504);
                let result =
                    if envelope { result::envelope(reply) } else { result::raw(reply, tag) };
                match result {
                    Ok(result) if unwell => Carried::Unwell(result),
                    Ok(result) => Carried::Answered(result),
                    Err(nonsense) => Carried::Failed(nonsense),
                }
            }
            Err(failure) => Carried::Failed(failure),
        }
    }

    /// Counts a call that is over, and opens or closes the circuit.
    pub(super) fn report(&self, admission: Admission, carried: &Carried) {
        let number = match carried {
            Carried::Answered(result) if result.code == 0 => 0,
            Carried::Answered(_) | Carried::NoSuchMethod => 1,
            Carried::Unwell(_) => 2,
            Carried::Failed(Failure::Timeout) => 3,
            Carried::Failed(Failure::Unreachable(_)) => 4,
            Carried::Failed(Failure::Transport(_)) => 5,
            Carried::Failed(Failure::Nonsense(_)) => 6,
        };
        self.results[number].increment(1);
        let well = matches!(carried, Carried::Answered(_) | Carried::NoSuchMethod);
        // Nonsense is an answer: the upstream is there.
        let well = well || matches!(carried, Carried::Failed(Failure::Nonsense(_)));
        let now_ms = self.now_ms();
        let mut breaker = self.breaker();
        let change = if well { breaker.succeeded() } else { breaker.failed(admission, now_ms) };
        match change {
            Change::None => {}
            Change::Opened => {
                self.open.set(1.0);
                self.opened.increment(1);
                tracing::warn!(
                    target: target::XXIM,
                    upstream = %self.name, "circuit opened: its requests fail at once"
                );
            }
            Change::Closed => {
                self.open.set(0.0);
                tracing::info!(
                    target: target::XXIM,
                    upstream = %self.name, "circuit closed: the upstream is back"
                );
            }
        }
        drop(breaker);
        if let Carried::Failed(failure) = carried {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(suppressed) = log.allow(now_ms) {
                let upstream = &*self.name;
                tracing::warn!(
                    target: target::XXIM,
                    upstream, reason = %failure, suppressed, "upstream call failed"
                );
            }
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Way {
    fn new(settings: &XximUpstream, sidecar: Sidecar) -> io::Result<Way> {
        let http = || {
            let url = url(&settings.url)?;
            Ok::<_, io::Error>(if url.scheme() == "http" && !settings.http2 {
                Http::Small(Http1::new(settings, sidecar, &url))
            } else {
                Http::Other(Other::new(settings, sidecar, url)?)
            })
        };
        Ok(match settings.mode {
            XximMode::Raw => Way::Raw(http()?),
            XximMode::Envelope => Way::Envelope(http()?),
            XximMode::Grpc => Way::Grpc(GrpcUpstream::new(settings)?),
        })
    }
}

impl Http {
    async fn post(
        &self,
        method: &str,
        lines: &[u8],
        req_id: Option<&[u8]>,
        body: bytes::Bytes,
    ) -> Result<result::Reply, Failure> {
        match self {
            Http::Small(http) => http.post(method, lines, req_id, &body).await,
            Http::Other(http) => http.post(method, lines, req_id, body).await,
        }
    }
}
