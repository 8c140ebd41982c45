//! Requests of xxim clients on their way to upstreams and back (xxim sections 4.4 to 4.6).
//!
//! Invariants: every call is answered exactly once; whatever goes wrong, panics included, costs
//! that call alone. A call goes on when its connection has gone, unless its route says otherwise:
//! then it is cancelled, counted and answered at once. No URL and no text of a transport reaches a
//! client. Costs: one task, one timer and a place in the table of the connection per call; a call
//! of an upstream whose circuit is open costs none of them.

mod breaker;
mod grpc;
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
use tokio::task::AbortHandle;

use self::breaker::Admission;
use self::upstream::{Carried, Upstream};
use crate::hub::ConnId;
use crate::lists::letters::Mail;
use crate::outside::Outside;
use crate::outside::shards::Shards;
use crate::protocols::xxim::config::upstream::{XximRoute, XximTarget, XximUpstreams};
use crate::protocols::xxim::letters::{Letter, UpstreamCall, UpstreamResult};
use crate::protocols::xxim::wire::Identity;
use crate::protocols::xxim::wire::code::{INTERNAL, REQUEST, RETRY};
use crate::spare;

/// Why a call brought no reply. The texts are for the log and never name a URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
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
    shards: Shards,
}

/// The calls of one connection. Never empty.
struct Calls {
    /// `None`: it goes on when the connection has gone.
    under_way: Vec<(u32, Option<AbortHandle>)>,
    /// Whose header lines these are; `None`: they are too long.
    identity: Arc<Identity>,
    lines: Option<Bytes>,
}

impl Dispatch {
    /// Fails if an upstream has no usable URL. Needs the context of a runtime.
    pub(super) fn new(settings: &XximUpstreams, outside: &Outside) -> io::Result<Dispatch> {
        let Outside { settings: sidecar, registry, shards, .. } = outside;
        let upstream = |settings| Upstream::new(settings, *sidecar, registry).map(Arc::new);
        let upstreams = settings.upstreams.iter().map(upstream);
        Ok(Dispatch {
            upstreams: upstreams.collect::<io::Result<_>>()?,
            routes: settings.routes.clone(),
            calls: Mutex::default(),
            shards: shards.clone(),
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
        let admitted = Admitted { upstream, admission, reported: false };
        let task = Task { admitted, tag: route.tags(&call.method).response, call };
        let (time_max, detach) = (route.timeout, route.detach);
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
            dispatch.finish(conn, number);
            answer.give(result);
        });
        let entry = calls.entry(conn).or_insert_with(|| Calls {
            under_way: Vec::new(),
            identity: identity.clone(),
            lines: lines.clone(),
        });
        if !Arc::ptr_eq(&entry.identity, &identity) {
            (entry.identity, entry.lines) = (identity, lines);
        }
        entry.under_way.push((number, (!detach).then(|| running.abort_handle())));
    }

    /// The connection has gone: gives up those of its calls that do not go on without it.
    pub(super) fn cancel(&self, conn: ConnId) {
        let calls = {
            let mut all = self.calls();
            let calls = all.remove(&conn);
            spare::emptied(&mut *all);
            calls
        };
        let calls = calls.into_iter().flat_map(|calls| calls.under_way);
        calls.filter_map(|(_, call)| call).for_each(|call| call.abort());
    }

    fn finish(&self, conn: ConnId, number: u32) {
        let mut calls = self.calls();
        let Some(entry) = calls.get_mut(&conn) else { return };
        if let Some(at) = entry.under_way.iter().position(|(other, _)| *other == number) {
            entry.under_way.swap_remove(at);
        }
        if entry.under_way.is_empty() {
            calls.remove(&conn);
            spare::emptied(&mut *calls);
        }
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, HashMap<ConnId, Calls>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call on its way.
struct Task {
    admitted: Admitted,
    tag: u32,
    call: Box<UpstreamCall>,
}

impl Task {
    async fn run(self, lines: Option<Bytes>, time_max: std::time::Duration) -> UpstreamResult {
        let Task { mut admitted, tag, call } = self;
        let Some(lines) = lines else {
            // Nobody would take such a head.
            admitted.unused();
            return result::own(REQUEST);
        };
        let carrying = admitted.upstream.carry(&call, &lines, tag);
        let carried = match tokio::time::timeout(time_max, carrying).await {
            Ok(carried) => carried,
            Err(_) => Carried::Failed(Failure::Timeout),
        };
        admitted.report(&carried);
        match carried {
            Carried::Answered(result) | Carried::Unwell(result) => result,
            Carried::NoSuchMethod => result::own(REQUEST),
            Carried::Failed(Failure::Nonsense(_)) => result::own(INTERNAL),
            Carried::Failed(_) => result::own(RETRY),
        }
    }
}

/// The duty to say what became of a call that was admitted.
struct Admitted {
    upstream: Arc<Upstream>,
    admission: Admission,
    reported: bool,
}

impl Admitted {
    fn report(&mut self, carried: &Carried) {
        self.reported = true;
        self.upstream.report(self.admission, carried);
    }

    fn unused(&mut self) {
        self.reported = true;
        self.upstream.unused();
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if !self.reported {
            self.upstream.given_up();
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
        let mail =
            Mail::Xxim(Letter::UpstreamAnswered { conn: self.conn, number: self.number, result });
        self.shards.post(self.conn.shard(), mail);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // It panicked, or was cancelled: nobody reads that, but the shard counts.
        if !self.given {
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
