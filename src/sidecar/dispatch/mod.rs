//! Requests of xxim clients on their way to upstreams and back (xxim sections 4.4 to 4.6).
//!
//! Invariants: every call is answered exactly once, unless its connection has gone; whatever goes
//! wrong, panics included, costs that call alone. A call is cancelled with its connection unless
//! its route says `detach`. No URL and no text of a transport reaches a client.
//! Costs: one task, one timer and a place in the table of the connection per call; a call of an
//! upstream whose circuit is open costs none of them.

mod breaker;
pub(super) mod grpc;
mod head;
mod http1;
mod other;
mod reply;
mod result;
mod upstream;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use self::breaker::Admission;
use self::upstream::{Carried, Upstream};
use crate::config::model::{XximRoute, XximTarget, XximUpstreams};
use crate::hub::ConnId;
use crate::limits::XXIM_DETACHED_MAX;
use crate::metrics::Registry;
use crate::shard::mailbox::{Mail, UpstreamCall, UpstreamResult};
use crate::sidecar::Shards;
use crate::wire::xxim::Identity;
use crate::wire::xxim::code::{INTERNAL, REQUEST, RETRY};

/// Why a call brought no reply. The texts are for the log and never name a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("no reply in time")]
    Timeout,
    #[error("can not connect: {0}")]
    Unreachable(String),
    #[error("the connection failed: {0}")]
    Transport(String),
    #[error("no sense in the reply: {0}")]
    Nonsense(String),
}

/// All upstreams, and the calls that are under way.
pub(super) struct Dispatch {
    upstreams: Vec<Arc<Upstream>>,
    routes: Vec<XximRoute>,
    calls: Mutex<HashMap<ConnId, Calls>>,
    /// Places for calls that outlive their connection.
    detached: Arc<Semaphore>,
    shards: Shards,
}

/// The calls of one connection that can be cancelled. Never empty.
struct Calls {
    under_way: Vec<(u32, AbortHandle)>,
    /// Whose header lines these are; `None`: they are too long.
    identity: Arc<Identity>,
    lines: Option<Bytes>,
}

impl Dispatch {
    /// Fails if an upstream has no usable URL. Needs the context of a runtime.
    pub(super) fn new(
        settings: &XximUpstreams,
        shards: Shards,
        registry: &Registry,
    ) -> io::Result<Dispatch> {
        let upstreams = settings.upstreams.iter();
        let upstreams = upstreams.map(|settings| Upstream::new(settings, registry).map(Arc::new));
        Ok(Dispatch {
            upstreams: upstreams.collect::<io::Result<_>>()?,
            routes: settings.routes.clone(),
            calls: Mutex::default(),
            detached: Arc::new(Semaphore::new(XXIM_DETACHED_MAX)),
            shards,
        })
    }

    /// Begins a call. Needs the context of a runtime.
    pub(super) fn begin(self: &Arc<Self>, conn: ConnId, number: u32, call: Box<UpstreamCall>) {
        let answer = Answer { shards: self.shards.clone(), conn, number, given: false };
        let route = self.routes.get(usize::from(call.route));
        let Some((route, upstream)) = route.and_then(|route| match route.to {
            XximTarget::Upstream(index) => {
                Some((route, self.upstreams.get(usize::from(index))?.clone()))
            }
            XximTarget::Worker => None,
        }) else {
            return answer.give(result::own(REQUEST));
        };
        let admission = upstream.admit();
        if admission == Admission::Refuse {
            return answer.give(result::own(RETRY));
        }
        let task = Task { upstream, admission, tag: route.tags(&call.method).response, call };
        let time_max = route.timeout;
        let place = match route.detach {
            true => self.detached.clone().try_acquire_owned().ok(),
            false => None,
        };
        let detach = place.is_some();
        let mut calls = self.calls();
        let known =
            calls.get(&conn).filter(|calls| Arc::ptr_eq(&calls.identity, &task.call.identity));
        let lines = match known {
            Some(calls) => calls.lines.clone(),
            None => head::identity_lines(conn, &task.call.identity),
        };
        let identity = task.call.identity.clone();
        let (dispatch, told) = (self.clone(), lines.clone());
        let running = tokio::spawn(async move {
            let result = task.run(told, time_max).await;
            drop(place);
            if !detach {
                dispatch.finish(conn, number);
            }
            answer.give(result);
        });
        if detach {
            return;
        }
        let entry = calls.entry(conn).or_insert_with(|| Calls {
            under_way: Vec::new(),
            identity: identity.clone(),
            lines: lines.clone(),
        });
        if !Arc::ptr_eq(&entry.identity, &identity) {
            (entry.identity, entry.lines) = (identity, lines);
        }
        entry.under_way.push((number, running.abort_handle()));
    }

    /// Gives up the calls of a connection that has gone.
    pub(super) fn cancel(&self, conn: ConnId) {
        let calls = self.calls().remove(&conn);
        for (_, call) in calls.into_iter().flat_map(|calls| calls.under_way) {
            call.abort();
        }
    }

    fn finish(&self, conn: ConnId, number: u32) {
        let mut calls = self.calls();
        let Some(entry) = calls.get_mut(&conn) else { return };
        if let Some(at) = entry.under_way.iter().position(|(other, _)| *other == number) {
            entry.under_way.swap_remove(at);
        }
        if entry.under_way.is_empty() {
            calls.remove(&conn);
        }
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, HashMap<ConnId, Calls>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call on its way.
struct Task {
    upstream: Arc<Upstream>,
    admission: Admission,
    tag: u32,
    call: Box<UpstreamCall>,
}

impl Task {
    async fn run(self, lines: Option<Bytes>, time_max: std::time::Duration) -> UpstreamResult {
        let Some(lines) = lines else {
            // Nobody would take such a head.
            self.upstream.unused();
            return result::own(REQUEST);
        };
        let carrying = self.upstream.carry(&self.call, &lines, self.tag);
        let carried = match tokio::time::timeout(time_max, carrying).await {
            Ok(carried) => carried,
            Err(_) => Carried::Failed(Failure::Timeout),
        };
        self.upstream.report(self.admission, &carried);
        match carried {
            Carried::Answered(result) | Carried::Unwell(result) => result,
            Carried::NoSuchMethod => result::own(REQUEST),
            Carried::Failed(Failure::Nonsense(_)) => result::own(INTERNAL),
            Carried::Failed(_) => result::own(RETRY),
        }
    }
}

/// The duty to answer one call.
struct Answer {
    shards: Shards,
    conn: ConnId,
    number: u32,
    given: bool,
}

impl Answer {
    fn give(mut self, result: UpstreamResult) {
        self.given = true;
        self.send(result);
    }

    fn send(&self, result: UpstreamResult) {
        let mail = Mail::UpstreamAnswered { conn: self.conn, number: self.number, result };
        self.shards.post(self.conn.shard(), mail);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // A call that was cancelled needs no answer; one that panicked does.
        if !self.given && std::thread::panicking() {
            self.send(result::own(INTERNAL));
        }
    }
}

/// Header lines as a header map, for those who do not take them as they are.
fn headers(identity: &[u8], req_id: Option<&[u8]>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(24);
    let lines = identity.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = line.strip_suffix(b"\r")?;
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], line.get(colon + 2..)?))
    });
    let mut put = |name: &[u8], value: &[u8]| {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    };
    lines.for_each(|(name, value)| put(name, value));
    if let Some(req_id) = req_id {
        let mut value = Vec::new();
        head::push_encoded(&mut value, head::req_id(req_id));
        put(b"x-xxim-req-id", &value);
    }
    put(b"traceparent", head::traceparent().as_bytes());
    headers
}
