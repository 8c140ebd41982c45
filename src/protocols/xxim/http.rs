//! xxim requests over HTTP, `http_api` (xxim section 7.1): a POST to the method's path, on the port
//! of the WebSocket. The body is a CommonReq with the request in it, the answer a CommonResp.
//!
//! Invariants: one request of a connection is under way at a time, and nothing is read meanwhile;
//! each is answered once. Only the path is the method. Who the client says it is, is verified with
//! every request that needs a login, and left out of those that need none; address and user agent
//! are what the gateway sees. A request for workers is a Transfer, and the first cast to its uniqId
//! the answer; it is a member of nothing, so no other push reaches it. It is the last of its
//! connection: the uniqId names the connection, and a cast that comes late must not become the
//! answer to another request.
//! Costs: a head, a body and an answer per request; nothing between two.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::http_answers::{Form, failure, success};
use super::requests;
use crate::engine::Engine;
use crate::engine::conns::Flags;
use crate::engine::links::EventKind;
use crate::hub::ConnId;
use crate::hub::login::{Login, Question, Verdict};
use crate::lists::numbers::kind;
use crate::protocols::xxim::config::upstream::{XximMode, XximTarget};
use crate::protocols::xxim::letters::{ServiceRequest, UpstreamCall, UpstreamResult};
use crate::protocols::xxim::rules::{cors, first_values};
use crate::protocols::xxim::wire::proto::{CommonReq, CommonResp};
use crate::protocols::xxim::wire::{self, Identity, LocalMethod, code, text};
use crate::wire::http;
use crate::wire::http::answer::Manner;
use crate::wire::http::machine::{CONTINUE, Event, Machine};
use crate::wire::worker;

/// What the shard keeps of one connection.
#[derive(Debug)]
pub struct HttpConn {
    peer: SocketAddr,
    machine: Machine,
    /// What the head says of the request whose body is to come.
    plan: Option<Box<Plan>>,
    /// When the first bytes of the request came, milliseconds of the process clock.
    since_ms: Option<u64>,
    pending: Option<Pending>,
    /// Of the question that is under way.
    number: u32,
}

/// What became of a piece of a request.
pub enum Piece<'a> {
    Handled,
    /// It is a request for a WebSocket.
    Upgrade(http::Request<'a>),
    /// There is none, or the connection must wait.
    None,
}

/// What the head of a request says.
#[derive(Debug)]
struct Plan {
    method: Box<str>,
    form: Form,
    ip: String,
    user_agent: String,
    headers: Vec<(String, String)>,
}

/// A request that is not answered.
#[derive(Debug)]
enum Pending {
    /// Its client is being verified.
    Verified(Box<(Plan, CommonReq)>),
    /// An upstream has it.
    Answered(Form),
    /// A worker has it until this time, milliseconds of the process clock.
    WithWorker(Form, u64),
}

impl Pending {
    fn form(&mut self) -> &mut Form {
        match self {
            Pending::Verified(asked) => &mut asked.0.form,
            Pending::Answered(form) | Pending::WithWorker(form, _) => form,
        }
    }
}

impl HttpConn {
    /// A connection whose first request has begun.
    fn new(peer: SocketAddr) -> HttpConn {
        HttpConn {
            peer,
            machine: Machine::default(),
            plan: None,
            since_ms: None,
            pending: None,
            number: 0,
        }
    }

    /// Whether an upstream has a request of it.
    pub(crate) fn is_forwarded(&self) -> bool {
        matches!(self.pending, Some(Pending::Answered(_)))
    }

    /// Whether a worker has a request of it.
    pub(crate) fn is_with_worker(&self) -> bool {
        matches!(self.pending, Some(Pending::WithWorker(..)))
    }
}

impl super::Xxim {
    fn http(&mut self, engine: &Engine, slot: u32) -> Option<&mut HttpConn> {
        self.https.of_mut(engine.index(slot, kind::XXIM_HTTP))
    }

    /// A connection whose first request is none for a WebSocket.
    pub(crate) fn over_http(&mut self, engine: &mut Engine, slot: u32, peer: SocketAddr) {
        let index = self.https.insert(HttpConn::new(peer));
        engine.turn_into(slot, kind::XXIM_HTTP, index, self.http_row);
    }

    /// A connection asks for a WebSocket: it is none of those any more. Returns its peer.
    pub(crate) fn http_upgraded(&mut self, engine: &Engine, slot: u32) -> Option<SocketAddr> {
        let index = engine.index(slot, kind::XXIM_HTTP)?;
        self.https.remove(index).map(|conn| conn.peer)
    }

    /// Bytes have come. Takes what reads them, until `http_end`.
    pub(crate) fn http_begin(&mut self, engine: &mut Engine, slot: u32) -> Option<Machine> {
        engine.conns[slot].active_ms = engine.now.ms;
        self.http(engine, slot).map(|conn| std::mem::take(&mut conn.machine))
    }

    /// Handles the next piece of a request.
    pub(crate) fn http_next<'a>(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        machine: &mut Machine,
        rest: &mut &'a [u8],
    ) -> Piece<'a> {
        let body_bytes_max = self.config.xxim.message_bytes_max as usize;
        if !self.http_goes_on(engine, slot, machine, rest) {
            return Piece::None;
        }
        match machine.next(rest, body_bytes_max) {
            None => return Piece::None,
            Some(Event::Request(request)) if request.is_get() => return Piece::Upgrade(request),
            Some(Event::Request(request)) => self.http_head(engine, slot, &request, machine),
            Some(Event::Expect) => engine.push(slot, Bytes::from_static(CONTINUE)),
            Some(Event::Body(body)) => {
                if let Some(plan) = self.http(engine, slot).and_then(|conn| conn.plan.take()) {
                    self.http_request(engine, slot, *plan, &body);
                }
            }
            Some(Event::Refuse(fault)) => self.http_fault(engine, slot, fault),
        }
        Piece::Handled
    }

    /// What has come was handled, but for so many bytes at its end.
    pub(crate) fn http_end(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        mut machine: Machine,
        bytes: Cow<'_, [u8]>,
        unread: usize,
    ) {
        let now_ms = engine.now.ms;
        machine.keep(bytes, unread);
        let Some(conn) = self.http(engine, slot) else { return };
        let runs = machine.is_partial();
        conn.since_ms = runs.then(|| conn.since_ms.unwrap_or(now_ms));
        conn.machine = machine;
        self.http_rearm(engine, slot);
    }

    /// Whether there is something to read, and it is to be read now.
    fn http_goes_on(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        machine: &Machine,
        rest: &[u8],
    ) -> bool {
        let stopped = Flags::GONE | Flags::DEAF;
        let more = !rest.is_empty() || machine.is_partial();
        more && !engine.conns[slot].flags.has(stopped)
            && engine.takes(slot)
            && !engine.outbox_blocks(slot)
    }

    /// A request begins; its body is to come.
    fn http_head(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        request: &http::Request<'_>,
        machine: &mut Machine,
    ) {
        let config = self.config.clone();
        let Some(peer) = self.http(engine, slot).map(|conn| conn.peer) else { return };
        let manner = request.manner();
        if let Some(conn) = self.http(engine, slot) {
            conn.since_ms = None;
        }
        let Some(cors) = cors(request, &config.xxim.allow_origin) else {
            machine.end();
            let text =
                "pages of this origin are not let in: xxim.allow_origin lists those that are";
            return self.http_refuse(engine, slot, "403 Forbidden", "", text);
        };
        if request.method == "OPTIONS" {
            // The body of a preflight is not read, so nothing behind it can be a request.
            let manner = Manner { ends: manner.ends || request.has_body(), ..manner };
            if manner.ends {
                machine.end();
            }
            return self.http_options(engine, slot, &Form { manner, cors });
        }
        if request.method != "POST" {
            machine.end();
            let allow = "Allow: GET, HEAD, POST, OPTIONS\r\n";
            return self.http_refuse(
                engine,
                slot,
                "405 Method Not Allowed",
                allow,
                "method not allowed",
            );
        }
        let value = |name: &str| {
            let line = request.header(name).unwrap_or_default();
            String::from_utf8_lossy(line).into_owned()
        };
        let client = engine.settings.proxies.client(peer, request);
        let headers = request.headers();
        let headers = headers
            .map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into_owned()));
        let plan = Plan {
            method: String::from_utf8_lossy(request.path).into(),
            form: Form { manner, cors },
            ip: client.ip().to_canonical().to_string(),
            user_agent: value("User-Agent"),
            headers: headers.collect(),
        };
        if let Some(conn) = self.http(engine, slot) {
            conn.plan = Some(Box::new(plan));
        }
    }

    /// A request is complete.
    fn http_request(&mut self, engine: &mut Engine, slot: u32, plan: Plan, body: &[u8]) {
        engine.counters.xxim_requests += 1;
        let config = self.config.clone();
        if let Some(conn) = self.http(engine, slot) {
            conn.since_ms = None;
        }
        let Ok(mut request) = CommonReq::decode(body) else {
            let text = "the body is not a CommonReq";
            return self.http_answer(engine, slot, &plan.form, failure(code::REQUEST, text));
        };
        let local = wire::local_method(&plan.method, config.xxim.legacy_paths);
        if matches!(local, Some(LocalMethod::SetParams(_) | LocalMethod::SetUser)) {
            // There is no connection whose parameters could be set.
            return self.http_answer(engine, slot, &plan.form, success(Bytes::new()));
        }
        let known = wire::is_method(&plan.method);
        let route = config.xxim_upstreams.route(&plan.method).filter(|_| known);
        let white = match (local, route) {
            (Some(_), _) => false,
            (None, Some((_, route))) => route.white || wire::is_white(&plan.method),
            (None, None) => {
                let unknown = failure(code::REQUEST, text::REQUEST);
                return self.http_answer(engine, slot, &plan.form, unknown);
            }
        };
        if white {
            // Nobody has verified who it is.
            request.user_id.clear();
            request.token.clear();
            return self.http_forward(engine, slot, plan, request);
        }
        if request.user_id.is_empty() || request.token.is_empty() {
            return self.http_answer(
                engine,
                slot,
                &plan.form,
                failure(code::AUTH, text::NOT_LOGGED_IN),
            );
        }
        let login = Login {
            protocol: "xxim",
            question: Question::BeforeConnect,
            user: request.user_id.clone(),
            token: request.token.clone(),
            ip: plan.ip.clone(),
            platform: request.platform.clone(),
            device: request.device_id.clone(),
            network: String::new(),
            headers: first_values(plan.headers.clone()).to_vec(),
        };
        engine.hold_back(slot);
        engine.owes(slot, true);
        let Some(conn) = self.http(engine, slot) else { return };
        conn.number = conn.number.wrapping_add(1);
        let number = conn.number;
        conn.pending = Some(Pending::Verified(Box::new((plan, request))));
        engine.verify(slot, number, Box::new(login));
    }

    /// The verifier has decided about the client of a request.
    pub(crate) fn http_verified(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        number: u32,
        verdict: Verdict,
    ) {
        let Some(conn) = self.http(engine, slot).filter(|conn| conn.number == number) else {
            return;
        };
        let (plan, request) = match conn.pending.take() {
            Some(Pending::Verified(asked)) => *asked,
            other => {
                conn.pending = other;
                return;
            }
        };
        match verdict {
            Verdict::Accepted { .. } => self.http_forward(engine, slot, plan, request),
            Verdict::Refused { message, .. } => {
                self.http_answer(engine, slot, &plan.form, failure(code::AUTH, &message));
            }
            Verdict::Unavailable(_) => {
                self.http_answer(engine, slot, &plan.form, failure(code::RETRY, text::RETRY));
            }
        }
        self.http_resume(engine, slot);
    }

    /// Hands a request to its upstream, or to a worker.
    fn http_forward(&mut self, engine: &mut Engine, slot: u32, plan: Plan, request: CommonReq) {
        let config = self.config.clone();
        let upstreams = &config.xxim_upstreams;
        if wire::local_method(&plan.method, config.xxim.legacy_paths).is_some() {
            return self.http_answer(engine, slot, &plan.form, success(Bytes::new()));
        }
        let data = request.data.clone();
        let identity = identity(&plan, request);
        let Some((route_number, route)) = upstreams.route(&plan.method) else { return };
        let envelope = match route.to {
            XximTarget::Upstream(upstream) => {
                let upstream = upstreams.upstreams.get(usize::from(upstream));
                upstream.is_some_and(|upstream| upstream.mode == XximMode::Envelope)
            }
            XximTarget::Worker => false,
        };
        let inner = wire::ClientRequest { req_id: "", method: &plan.method, data: &data };
        let own = (!envelope).then(|| wire::common_req(&identity));
        let rewrite = config.xxim.v1_sendmsg_rewrite;
        let Ok(body) = requests::body(&inner, route, rewrite, own.as_deref()) else {
            let text = "the request in the CommonReq is not a message";
            return self.http_answer(engine, slot, &plan.form, failure(code::REQUEST, text));
        };
        if route.to == XximTarget::Worker {
            return self.http_transfer(engine, slot, plan, &identity.user_id, &body, route.timeout);
        }
        if self.under_way >= config.xxim.shard_requests_max {
            let full = failure(code::RETRY, text::RETRY);
            return self.http_answer(engine, slot, &plan.form, full);
        }
        engine.hold_back(slot);
        engine.owes(slot, true);
        self.under_way += 1;
        engine.counters.xxim_forwarded += 1;
        let conn = engine.conns.id(slot);
        let Some(own) = self.http(engine, slot) else { return };
        own.number = own.number.wrapping_add(1);
        let number = own.number;
        own.pending = Some(Pending::Answered(plan.form));
        let call = Box::new(UpstreamCall {
            method: plan.method,
            route: route_number,
            body,
            identity: Arc::new(identity),
            req_id: Bytes::new(),
        });
        self.outgoing.push_back(ServiceRequest::Upstream { conn, number, call });
    }

    /// Gives a request to a netsvr worker, which has so much time to send something back.
    fn http_transfer(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        mut plan: Plan,
        user: &str,
        body: &[u8],
        time_max: Duration,
    ) {
        let id = engine.conns.id(slot);
        let wanted = engine.links.wanted(EventKind::Message);
        if !wanted || !engine.links.ready(EventKind::Message, id, None) {
            let nobody = failure(code::RETRY, text::RETRY);
            return self.http_answer(engine, slot, &plan.form, nobody);
        }
        let message = wire::request_body("", &plan.method, body);
        let uniq_id = engine.uniq_ids.encode(id);
        let until_ms = engine.now.ms + time_max.as_millis() as u64;
        engine.hold_back(slot);
        engine.owes(slot, true);
        plan.form.manner.ends = true;
        let Some(conn) = self.http(engine, slot) else { return };
        conn.pending = Some(Pending::WithWorker(plan.form, until_ms));
        self.with_workers += 1;
        engine.counters.xxim_forwarded += 1;
        engine.event(slot, EventKind::Message, |_| {
            worker::transfer(&uniq_id, user, "", std::iter::empty(), &message)
        });
        self.http_rearm(engine, slot);
    }

    /// A backend casts to these connections: for those whose request a worker has it is the
    /// answer. Returns how many these were.
    #[inline]
    pub(crate) fn http_cast(&mut self, engine: &mut Engine, conns: &[ConnId], data: &Bytes) -> u64 {
        match self.with_workers {
            0 => 0,
            _ => self.http_end_casts(engine, conns, data),
        }
    }

    fn http_end_casts(&mut self, engine: &mut Engine, conns: &[ConnId], data: &Bytes) -> u64 {
        let slots: Vec<u32> = conns.iter().filter_map(|&id| engine.conns.slot(id)).collect();
        let ended = |slot| self.http_end_cast(engine, slot, success(data.clone()));
        slots.into_iter().map(ended).filter(|ended| *ended).count() as u64
    }

    /// Answers a request that a worker has; false: it has none of this connection.
    fn http_end_cast(&mut self, engine: &mut Engine, slot: u32, answer: CommonResp) -> bool {
        let Some(conn) = self.http(engine, slot).filter(|conn| conn.is_with_worker()) else {
            return false;
        };
        let Some(mut pending) = conn.pending.take() else { return false };
        self.with_workers -= 1;
        let too_large = answer.data.len() > self.config.xxim.response_bytes_max as usize;
        let answer = if too_large { failure(code::INTERNAL, text::BUSY) } else { answer };
        self.http_answer(engine, slot, pending.form(), answer);
        self.http_resume(engine, slot);
        true
    }

    /// The time of a connection is up: of a request that a worker has, or of its own.
    pub(crate) fn http_due(&mut self, engine: &mut Engine, slot: u32) {
        if self.http_deadline_ms(engine, slot) > engine.now.ms {
            return self.http_rearm(engine, slot);
        }
        if !self.http_end_cast(engine, slot, failure(code::RETRY, text::RETRY)) {
            engine.finish(slot);
        }
    }

    /// The gateway ends: the request that is under way is the last of its connection.
    pub(crate) fn http_drain(&mut self, engine: &mut Engine, slot: u32) {
        match self.http(engine, slot).and_then(|conn| conn.pending.as_mut()) {
            Some(pending) => pending.form().manner.ends = true,
            None => engine.linger(slot),
        }
    }

    /// An upstream has answered.
    pub(crate) fn http_answered(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        number: u32,
        result: &UpstreamResult,
    ) {
        let Some(conn) = self.http(engine, slot).filter(|conn| conn.number == number) else {
            return;
        };
        let form = match conn.pending.take() {
            Some(Pending::Answered(form)) => form,
            other => {
                conn.pending = other;
                return;
            }
        };
        self.under_way -= 1;
        let too_large = result.data.len() > self.config.xxim.response_bytes_max as usize;
        let answer = match result.code {
            code::SUCCESS if too_large => failure(code::INTERNAL, text::BUSY),
            code::SUCCESS => success(result.data.clone()),
            other => {
                let told = CommonResp::decode(result.data.clone()).unwrap_or_default();
                failure(other, told.msg.as_deref().unwrap_or_default())
            }
        };
        self.http_answer(engine, slot, &form, answer);
        self.http_resume(engine, slot);
    }

    fn http_resume(&mut self, engine: &mut Engine, slot: u32) {
        let flags = engine.conns[slot].flags;
        let waits = self.http(engine, slot).is_some_and(|conn| conn.pending.is_some());
        engine.owes(slot, waits);
        if !waits && flags.has(Flags::BLOCKED) && !flags.has(Flags::GONE | Flags::LINGER) {
            // It was not being read.
            engine.conns[slot].active_ms = engine.now.ms;
            engine.read_on(slot);
        }
        self.http_rearm(engine, slot);
    }

    fn http_rearm(&mut self, engine: &mut Engine, slot: u32) {
        let due_ms = self.http_deadline_ms(engine, slot);
        engine.set_due(slot, due_ms);
    }

    /// When something is due, milliseconds of the process clock.
    fn http_deadline_ms(&self, engine: &Engine, slot: u32) -> u64 {
        let Some(conn) = self.https.of(engine.index(slot, kind::XXIM_HTTP)) else {
            return u64::MAX;
        };
        let request_ms = engine.settings.handshake_timeout.as_millis() as u64;
        let idle_ms = self.config.xxim.http_idle_timeout.as_millis() as u64;
        match (conn.since_ms, &conn.pending) {
            (_, Some(Pending::WithWorker(_, until_ms))) => *until_ms,
            // Verifier and upstream have time limits of their own.
            (_, Some(_)) => u64::MAX,
            (Some(since_ms), None) => since_ms.saturating_add(request_ms),
            (None, None) => engine.conns[slot].active_ms.saturating_add(idle_ms),
        }
    }

    /// The connection is gone.
    pub(crate) fn http_gone(&mut self, engine: &mut Engine, slot: u32) {
        let index = engine.index(slot, kind::XXIM_HTTP);
        let Some(conn) = index.and_then(|index| self.https.remove(index)) else { return };
        let under_way = conn.is_forwarded().then_some(conn.number);
        self.leave(engine.conns.id(slot), under_way.into_iter());
        self.with_workers -= u32::from(conn.is_with_worker());
    }
}

/// Who asks, as far as the client and the gateway know.
fn identity(plan: &Plan, request: CommonReq) -> Identity {
    Identity {
        user_id: request.user_id,
        token: request.token,
        platform: request.platform,
        device_id: request.device_id,
        package_id: request.package_id,
        device_model: request.device_model,
        os_version: request.os_version,
        app_version: request.app_version,
        language: request.language,
        ip: plan.ip.clone(),
        user_agent: plan.user_agent.clone(),
        ..Identity::default()
    }
}
