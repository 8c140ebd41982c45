//! Requests of xxim clients on their way to upstreams, and the answers (xxim sections 4.3 to 4.6).
//!
//! Invariants: each request is answered once, while its connection lives; the shard has at most
//! `shard_requests_max` under way. Costs per request: the decrypted message if there are keys (in
//! a buffer of the shard), the body for the upstream, the head of the response, the name of the
//! method and the call itself (one allocation each); per response one.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::COMMON_MESSAGE_BYTES;
use super::login::Unwraps;
use crate::engine::Engine;
use crate::engine::conns::Flags;
use crate::engine::links::EventKind;
use crate::engine::manners::{Life, Manners, Slow};
use crate::engine::slots::Slots;
use crate::hub::ConnId;
use crate::lists::numbers::kind;
use crate::log::target;
use crate::protocols::xxim::config::Xxim as Rules;
use crate::protocols::xxim::config::upstream::{XximMode, XximRoute, XximTarget, XximUpstreams};
use crate::protocols::xxim::letters::{ServiceRequest, UpstreamCall, UpstreamResult};
use crate::protocols::xxim::limits::XXIM_HELD_BYTES_MAX;
use crate::protocols::xxim::rules::{Client, Close, Holders, Step, refuse};
use crate::protocols::xxim::wire::{self, Body, Malformed, Response, code, text};
use crate::wire::worker;

/// What xxim needs to know of the configuration.
#[derive(Debug)]
pub struct Sections {
    pub xxim: Rules,
    pub xxim_upstreams: XximUpstreams,
}

/// What a shard keeps for all its xxim clients together.
#[derive(Debug)]
pub struct Xxim {
    pub(super) config: Arc<Sections>,
    /// How clients behave that speak xxim's own protocol, and those over HTTP.
    pub(crate) row: u16,
    pub(crate) http_row: u16,
    pub(crate) conns: Slots<super::Conn>,
    pub(crate) https: Slots<super::HttpConn>,
    /// Triples that are at home here.
    pub(crate) holders: Holders,
    pub(crate) unwraps: Unwraps,
    /// What the sidecar is to be asked, in order.
    pub(crate) outgoing: VecDeque<ServiceRequest>,
    /// Requests that upstreams have, or will have.
    pub(crate) under_way: u32,
    /// Those of them whose connection has left.
    pub(crate) left: HashSet<(ConnId, u32)>,
    /// Requests over HTTP that a worker has.
    pub(crate) with_workers: u32,
    /// Connections that wait for room among the requests of upstreams.
    pub(crate) waiting: VecDeque<ConnId>,
    /// Connections over TCP.
    pub(crate) over_tcp: u32,
    /// Where messages are decrypted.
    scratch: Vec<u8>,
}

impl Xxim {
    /// Nobody is connected.
    pub fn new(engine: &mut Engine, config: Arc<Sections>) -> Xxim {
        let rules = &config.xxim;
        let message_bytes_max = rules.message_bytes_max;
        let too_large = format!("read limited at {} bytes", u64::from(message_bytes_max) + 1);
        let write = rules.write_timeout;
        let http = Manners {
            // Its requests have time limits of their own.
            drains: false,
            held_bytes_max: XXIM_HELD_BYTES_MAX,
            ..Manners::new(
                message_bytes_max,
                engine.settings.outbox_bytes_max,
                write,
                Duration::ZERO,
            )
        };
        let manners = Manners {
            drains: true,
            stream: true,
            too_large: Some(too_large.into()),
            life: Life::Frames,
            slow: Slow::Finish,
            ..http.clone()
        };
        Xxim {
            config: config.clone(),
            row: engine.add_row(manners),
            http_row: engine.add_row(http),
            conns: Slots::default(),
            https: Slots::default(),
            holders: Holders::default(),
            unwraps: Unwraps::default(),
            outgoing: VecDeque::new(),
            under_way: 0,
            left: HashSet::new(),
            with_workers: 0,
            waiting: VecDeque::new(),
            over_tcp: 0,
            scratch: Vec::new(),
        }
    }

    /// Requests that upstreams have, or will have.
    pub fn under_way(&self) -> u32 {
        self.under_way
    }

    /// Triples that are at home here and held by somebody.
    pub fn held(&self) -> usize {
        self.holders.count()
    }
}

/// Bytes of the shard's buffer for decryption that are kept between messages.
const SCRATCH_KEPT: usize = 64 * 1024;

impl Xxim {
    /// A binary message of a client.
    pub(crate) fn request(&mut self, engine: &mut Engine, slot: u32, data: &[u8]) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let Some(conn) = self.conns.of_mut(engine.index(slot, kind::XXIM)) else { return };
        let plain = match conn.client.cipher() {
            None => Some(data),
            Some(cipher) => {
                scratch.clear();
                scratch.extend_from_slice(data);
                let len = cipher.decrypt(&mut scratch);
                len.ok().and_then(|len| scratch.get(..len))
            }
        };
        let encrypted = conn.client.cipher().is_some();
        let asks = self.config.xxim_upstreams.hooks.before_request;
        let asks = asks && engine.now.ms >= conn.permitted_ms;
        let step = match plain {
            Some(plain) => read(&mut conn.client, plain, &self.config, asks),
            None => Step::Close(Close::PROTOCOL),
        };
        engine.counters.xxim_requests += 1;
        if encrypted && step == Step::Close(Close::PROTOCOL) {
            engine.counters.xxim_decrypt_failures += 1;
            if let Some(unsaid) = engine.complaints.allow(engine.now.ms) {
                let peer = conn.peer;
                tracing::warn!(
                    target: target::XXIM,
                    %peer, unsaid, "a message of an xxim client is not under its keys"
                );
            }
        }
        self.step(engine, slot, step);
        scratch.shrink_to(SCRATCH_KEPT);
        self.scratch = scratch;
    }

    /// A request that the gateway does not answer itself.
    pub(crate) fn forward(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        request: &wire::ClientRequest<'_>,
    ) {
        let config = self.config.clone();
        let Some(conn) = self.xxim(engine, slot) else { return };
        let (head, req_id) = wire::head(request.req_id, request.method);
        let refused = |code, msg| refuse(head.clone(), code, msg, None);
        let route = match wire::is_method(request.method) {
            true => config.xxim_upstreams.route(request.method),
            false => None,
        };
        let Some((index, route)) = route else {
            let step = refused(code::REQUEST, None);
            return self.step(engine, slot, step);
        };
        let identity = conn.client.identity().clone();
        let rewrite = config.xxim.v1_sendmsg_rewrite;
        let envelope = match route.to {
            XximTarget::Upstream(upstream) => {
                let upstream = config.xxim_upstreams.upstreams.get(usize::from(upstream));
                upstream.is_some_and(|upstream| upstream.mode == XximMode::Envelope)
            }
            XximTarget::Worker => false,
        };
        let own = (!envelope).then(|| &**conn.client.common_req());
        let Ok(body) = body(request, route, rewrite, own) else {
            let step = refused(code::REQUEST, None);
            return self.step(engine, slot, step);
        };
        if route.to == XximTarget::Worker {
            let code = self.transfer(engine, slot, request, &body);
            let step = match code {
                code::SUCCESS => return self.respond(engine, slot, &head, code, &[]),
                code => refused(code, Some(text::RETRY)),
            };
            return self.step(engine, slot, step);
        }
        let Some(number) =
            self.xxim(engine, slot).and_then(|conn| conn.in_flight.begin(head.clone()))
        else {
            // `ready` holds requests back before it comes to this.
            let step = refused(code::RETRY, Some(text::RETRY));
            return self.step(engine, slot, step);
        };
        engine.owes(slot, true);
        self.under_way += 1;
        engine.counters.xxim_forwarded += 1;
        let (method, req_id) = (request.method.into(), head.slice(req_id));
        let call = Box::new(UpstreamCall { method, route: index, body, identity, req_id });
        let conn = engine.conns.id(slot);
        self.outgoing.push_back(ServiceRequest::Upstream { conn, number, call });
    }

    /// Gives a request to a netsvr worker: the client's RequestBody, its data without anything
    /// that the client says of itself. Returns the code of the response.
    fn transfer(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        request: &wire::ClientRequest<'_>,
        body: &[u8],
    ) -> i32 {
        let id = engine.conns.id(slot);
        let sticky = engine.conns[slot].worker();
        let wanted = engine.links.wanted(EventKind::Message);
        if !wanted || !engine.links.ready(EventKind::Message, id, sticky) {
            return code::RETRY;
        }
        let message = wire::request_body(request.req_id, request.method, body);
        let worker = &engine.settings.workers;
        let (with_session, with_topics) = (worker.transfer_session, worker.transfer_topics);
        let uniq_id = engine.uniq_ids.encode(id);
        engine.counters.xxim_forwarded += 1;
        engine.event(slot, EventKind::Message, |hub| {
            let session = if with_session { hub.session(slot) } else { "" };
            let topics = hub.topics_of(slot).filter(|_| with_topics).map(|topic| &**topic);
            worker::transfer(&uniq_id, hub.user(slot), session, topics, &message)
        });
        code::SUCCESS
    }

    /// An upstream has answered, or the sidecar in its place.
    pub(crate) fn answered(
        &mut self,
        engine: &mut Engine,
        id: ConnId,
        number: u32,
        result: &UpstreamResult,
    ) {
        if !self.left.is_empty() && self.left.remove(&(id, number)) {
            self.under_way -= 1;
            return;
        }
        let Some(slot) = engine.conns.slot(id) else { return };
        if engine.conns[slot].kind == kind::XXIM_HTTP {
            return self.http_answered(engine, slot, number, result);
        }
        let Some(head) = self.xxim(engine, slot).and_then(|conn| conn.in_flight.end(number)) else {
            return;
        };
        self.under_way -= 1;
        self.respond(engine, slot, &head, result.code, &result.data);
        let owes = self.xxim(engine, slot).is_some_and(|conn| conn.owes_answers());
        engine.owes(slot, owes);
        self.resume(engine, slot);
    }

    /// For tests: panics if an invariant does not hold.
    pub(crate) fn audit(&self, engine: &Engine) {
        let (mut under_way, mut with_workers, mut over_tcp, mut waiting) =
            (self.left.len() as u32, 0, 0, 0);
        for (_, conn) in engine.conns.iter() {
            let http = (conn.kind == kind::XXIM_HTTP).then_some(conn.index);
            if let Some(http) = self.https.of(http) {
                under_way += u32::from(http.is_forwarded());
                with_workers += u32::from(http.is_with_worker());
            }
            let own = (conn.kind == kind::XXIM).then_some(conn.index);
            let Some(own) = self.conns.of(own) else { continue };
            let most = self.config.xxim.requests_max as usize;
            assert!(own.in_flight.len() <= most, "requests of {:?}", own.peer);
            let ending = conn.flags.has(Flags::CLOSING);
            let blocked = conn.flags.has(Flags::BLOCKED);
            let asked = own.client.at_barrier() || own.check.is_some();
            assert!(!asked || blocked || ending, "a barrier and still read");
            under_way += own.in_flight.len() as u32;
            over_tcp += u32::from(own.greeted && !conn.flags.has(Flags::WEBSOCKET));
            waiting += usize::from(own.waiting);
        }
        let counted = (self.under_way, self.with_workers, self.over_tcp);
        assert_eq!(counted, (under_way, with_workers, over_tcp), "counts");
        assert!(self.waiting.len() >= waiting, "clients that wait and are forgotten");
    }

    /// The connection is gone, its requests that are under way are not: those that may go on
    /// without it do, and take room among the requests of the shard until they are answered.
    pub(crate) fn leave(&mut self, conn: ConnId, requests: impl Iterator<Item = u32>) {
        let before = self.left.len();
        self.left.extend(requests.map(|number| (conn, number)));
        if self.left.len() > before {
            self.outgoing.push_back(ServiceRequest::CancelUpstream { conn });
        }
    }

    /// Queues the response to a request. A client that does not take its responses is closed.
    pub(crate) fn respond(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        head: &[u8],
        code: i32,
        data: &[u8],
    ) {
        if engine.conns[slot].flags.has(Flags::CLOSING | Flags::GONE) {
            return;
        }
        let bytes_max = self.config.xxim.response_bytes_max;
        let too_large = data.len() > bytes_max as usize;
        let error = too_large.then(|| wire::common_resp(code::INTERNAL, Some(text::BUSY)));
        let response = match &error {
            Some(data) => Response { head, code: code::INTERNAL, data },
            None => Response { head, code, data },
        };
        let size = response.size();
        engine.counters.xxim_large += u64::from(size > COMMON_MESSAGE_BYTES);
        // Its requests are not taken any more once the outbox is full, so what comes beyond that
        // are the answers to those that were.
        let room = engine.settings.outbox_bytes_max.max(2 * bytes_max.min(u32::MAX / 4));
        if engine.conns[slot].charge() > room {
            return engine.too_slow(slot);
        }
        self.send(engine, slot, &response);
    }
}

/// What a decrypted message of a client means; `asks` as [`Client::message`] has it.
pub(crate) fn read<'a>(
    client: &mut Client,
    plain: &'a [u8],
    config: &Sections,
    asks: bool,
) -> Step<'a> {
    let upstreams = &config.xxim_upstreams;
    let white = |method: &str| upstreams.route(method).is_some_and(|(_, route)| route.white);
    client.message(plain, &config.xxim, asks, white)
}

/// The body for an upstream (section 4.3). `common_req`: `None` in mode `envelope`, where the
/// identity is around the request and none may be in it.
pub(crate) fn body(
    request: &wire::ClientRequest<'_>,
    route: &XximRoute,
    rewrite: bool,
    common_req: Option<&[u8]>,
) -> Result<Bytes, Malformed> {
    let (method, data) = (request.method, request.data);
    let tag = match common_req {
        Some(_) => route.tags(method).request,
        None => route.inner_tag(method),
    };
    let send_msg_list = tag == 11 && method == wire::SEND_MSG_LIST;
    match common_req {
        _ if tag == 0 => Ok(Bytes::copy_from_slice(data)),
        Some(own) if send_msg_list => wire::inject_send_msg_list(data, rewrite, own),
        Some(own) => wire::inject(data, tag, own),
        None if send_msg_list => wire::strip_send_msg_list(data, rewrite),
        None => wire::strip(data, tag),
    }
}

/// Shares the identity of a connection; for tests of the whole.
pub(crate) fn identity(conn: &super::Conn) -> Arc<wire::Identity> {
    conn.client.identity().clone()
}
