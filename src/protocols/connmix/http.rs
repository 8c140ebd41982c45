//! The connmix API over HTTP: requests with their bodies, and answers (connmix section 1.2).
//!
//! A connection carries any number of requests, one after the other or pipelined. What can not be
//! understood, or has a body that nobody reads, is answered and ends the connection. Costs: those
//! of the HTTP machine; nothing is kept of a connection between two requests.

use std::borrow::Cow;

use bytes::Bytes;

use crate::config::model::Service;
use crate::engine::Engine;
use crate::engine::conns::Flags;
use crate::engine::tenant::Tenant;
use crate::protocols::connmix::api::Asked;
use crate::protocols::connmix::limits::METRICS_REQUESTS_MAX;
use crate::protocols::connmix::requests::{self, About, Endpoint, Refusal};
use crate::protocols::connmix::wire::{self, Answer};
use crate::wire::http::Request;
use crate::wire::http::answer::{self, Manner};
use crate::wire::http::date::Date;
use crate::wire::http::machine::{CONTINUE, Event, Machine};

const JSON: &str = "application/json; charset=utf-8";
/// What Prometheus expects of its text format.
const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The request of a connection that is being read.
#[derive(Debug, Default)]
pub struct Reading {
    pub(crate) machine: Machine,
    /// What becomes of the request whose body is to come.
    plan: Option<Plan>,
    /// When its first bytes came, milliseconds of the process clock.
    since_ms: Option<u64>,
}

/// What becomes of a request when its body is there.
#[derive(Debug)]
struct Plan {
    endpoint: Endpoint,
    manner: Manner,
}

/// A piece of a request that was read.
pub(crate) enum Piece {
    /// Nothing is left to be done for it.
    Handled,
    /// The shard is to carry this out.
    Asks(Asked),
}

/// How an answer that is not known yet is to be written.
#[derive(Debug)]
pub enum Form {
    WebSocket {
        id: Box<str>,
    },
    Http(Manner),
    /// It is written already.
    Raw {
        ends: bool,
    },
}

impl Reading {
    /// Since when the request is being read, if there is one.
    pub fn since_ms(&self) -> Option<u64> {
        self.since_ms
    }

    /// Whether the next request waits until all those before it are answered: nothing may come
    /// between the 101 and them.
    pub fn waits(&self) -> bool {
        matches!(&self.plan, Some(Plan { endpoint: Endpoint::WebSocket { .. }, .. }))
    }

    /// Bytes that are kept.
    pub fn held(&self) -> usize {
        self.machine.held()
    }
}

impl Form {
    /// Whether the connection ends after the answer.
    pub fn ends(&self) -> bool {
        match self {
            Form::WebSocket { .. } => false,
            Form::Http(manner) => manner.ends,
            Form::Raw { ends } => *ends,
        }
    }

    /// The answer in this form.
    pub fn encode(&self, answer: Answer, date: &Date) -> Bytes {
        match self {
            Form::WebSocket { id } => wire::text_frame(answer, id),
            _ => self.http(JSON, &wire::http_body(answer), date),
        }
    }

    /// The text of the metrics in this form.
    pub fn metrics(&self, text: &str, date: &Date) -> Bytes {
        self.http(METRICS_TEXT, text.as_bytes(), date)
    }

    fn http(&self, media: &str, body: &[u8], date: &Date) -> Bytes {
        let manner = match self {
            Form::Http(manner) => *manner,
            _ => Manner { ends: self.ends(), ..Manner::default() },
        };
        let content = Some((media, body));
        let answer = answer::Answer { status: "200 OK", content, ..answer::Answer::default() };
        Bytes::from(answer.encode(manner, date))
    }
}

impl super::api::Api {
    /// Bytes have come. Takes what is known of the request that is being read, until
    /// `end`.
    pub(crate) fn begin(&mut self, engine: &mut Engine, slot: u32, data: &[u8]) -> Option<Reading> {
        // How long one request may take has a deadline of its own.
        if !data.is_empty() {
            engine.conns[slot].active_ms = engine.now.ms;
        }
        self.api(engine, slot).map(|conn| std::mem::take(&mut conn.reading))
    }

    /// Handles the next piece of a request. `None`: there is none, or the connection must wait.
    #[inline]
    pub(crate) fn next(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        reading: &mut Reading,
        rest: &mut &[u8],
    ) -> Option<Piece> {
        let body_bytes_max = self.config.connmix.api.message_bytes_max as usize;
        if !self.http_goes_on(engine, slot, reading, rest) {
            return None;
        }
        match reading.machine.next(rest, body_bytes_max)? {
            Event::Request(request) => self.http_head(engine, slot, reading, &request),
            Event::Expect => self.send(engine, slot, Bytes::from_static(CONTINUE), false),
            Event::Body(body) => {
                reading.since_ms = None;
                if let Some(plan) = reading.plan.take()
                    && let Some(asked) = self.http_request(engine, slot, reading, plan, &body)
                {
                    return Some(Piece::Asks(asked));
                }
            }
            Event::Refuse(fault) => {
                self.http_refuse(engine, slot, reading, fault.into(), Manner::LAST)
            }
        }
        Some(Piece::Handled)
    }

    /// What has come was handled, but for so many bytes at its end. True: the connection is a
    /// WebSocket now, whose decoder has what is left.
    #[inline]
    pub(crate) fn end(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        mut reading: Reading,
        bytes: Cow<'_, [u8]>,
        unread: usize,
    ) -> bool {
        if engine.conns[slot].flags.has(Flags::WEBSOCKET) {
            engine.conns[slot].decoder.stash(&bytes[bytes.len() - unread..]);
            engine.set_due(slot, u64::MAX);
            return true;
        }
        reading.machine.keep(bytes, unread);
        let runs = reading.machine.is_partial() && !reading.waits();
        reading.since_ms = runs.then(|| reading.since_ms.unwrap_or(engine.now.ms));
        if let Some(conn) = self.api(engine, slot) {
            conn.reading = reading;
        }
        if runs {
            self.rearm(engine, slot);
        } else {
            // The timer finds out when it fires.
            engine.conns[slot].due_ms = u64::MAX;
        }
        false
    }

    /// Whether there is something to read, and it is to be read now.
    fn http_goes_on(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        reading: &Reading,
        rest: &[u8],
    ) -> bool {
        let gone = Flags::GONE | Flags::DEAF | Flags::WEBSOCKET;
        if engine.conns[slot].flags.has(gone) || rest.is_empty() && !reading.machine.is_partial() {
            return false;
        }
        if reading.waits() && self.api(engine, slot).is_some_and(|conn| !conn.is_settled()) {
            engine.block(slot);
            return false;
        }
        // Whether there is room for it depends on what the request before it left behind; of one
        // that has begun that is known.
        reading.plan.is_some() || self.ready(engine, slot)
    }

    /// A request begins; its body is to come.
    fn http_head(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        reading: &mut Reading,
        request: &Request<'_>,
    ) {
        let Some(peer) = self.api(engine, slot).map(|conn| conn.peer) else { return };
        let client = engine.settings.proxies.client(peer, request).ip();
        let manner = request.manner();
        match requests::endpoint(request, client, &self.config.connmix.api) {
            Ok(endpoint) => reading.plan = Some(Plan { endpoint, manner }),
            Err(refusal) => {
                // Nobody reads its body.
                let ends = manner.ends || request.has_body();
                self.http_refuse(engine, slot, reading, refusal, Manner { ends, ..manner });
            }
        }
    }

    /// Answers with something else than what was asked for.
    fn http_refuse(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        reading: &mut Reading,
        refusal: Refusal,
        manner: Manner,
    ) {
        engine.counters.api_requests += 1;
        engine.counters.api_faults += 1;
        let body = requests::refusal_body(refusal);
        let Refusal { status, headers, upgrade, .. } = refusal;
        let answer = answer::Answer { status, headers, upgrade, content: Some((JSON, &body)) };
        let answer = answer.encode(manner, &engine.http_date());
        if manner.ends {
            reading.machine.end();
        }
        self.send(engine, slot, Bytes::from(answer), manner.ends);
    }

    /// Carries out a request, or returns what the shard is to do for it.
    fn http_request(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        reading: &mut Reading,
        plan: Plan,
        body: &[u8],
    ) -> Option<Asked> {
        let Plan { endpoint, manner } = plan;
        if manner.ends {
            reading.machine.end();
        }
        let form = |_: &str| Form::Http(manner);
        match endpoint {
            Endpoint::Send => {
                let mut index = std::mem::take(&mut self.json);
                let request = wire::send(body, &mut index);
                let action = requests::action(request, true, |id| engine.client(id));
                self.json = index;
                return self.action(engine, slot, action, "", form);
            }
            Endpoint::Publish => {
                let mut index = std::mem::take(&mut self.json);
                let request = wire::publish(body, &mut index);
                let action = requests::action(request, true, |id| engine.client(id));
                self.json = index;
                return self.action(engine, slot, action, "", form);
            }
            Endpoint::Version => self.http_json(engine, slot, requests::VERSION, manner),
            Endpoint::Nodes { host } => {
                let config = self.config.clone();
                let bind = self.address(engine, slot);
                let api = &config.connmix.api;
                let others = engine.other_apis();
                let others = others.into_iter();
                let nodes =
                    requests::nodes(engine.settings.node, api, bind, host.as_deref(), others);
                self.http_json(engine, slot, &nodes, manner);
            }
            Endpoint::Metrics => self.http_metrics(engine, slot, reading, manner),
            Endpoint::WebSocket { response, may_write } => {
                engine.counters.api_requests += 1;
                engine.push(slot, Bytes::from(response));
                if let Some(conn) = self.api(engine, slot) {
                    conn.may_write = may_write;
                }
                engine.conns[slot].flags.set(Flags::WEBSOCKET);
            }
        }
        None
    }

    fn http_json(&mut self, engine: &mut Engine, slot: u32, json: &[u8], manner: Manner) {
        engine.counters.api_requests += 1;
        let answer = Form::Http(manner).http(JSON, json, &engine.http_date());
        self.send(engine, slot, answer, manner.ends);
    }

    /// The metrics are text that the sidecar makes.
    fn http_metrics(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        reading: &mut Reading,
        manner: Manner,
    ) {
        if self.rendering >= METRICS_REQUESTS_MAX {
            return self.http_refuse(engine, slot, reading, requests::BUSY, manner);
        }
        engine.counters.api_requests += 1;
        let number = engine.tells.number();
        engine.tells.open(number, engine.conns.id(slot), 1);
        self.rendering += 1;
        self.to_render.push_back(number);
        self.expect(engine, slot, number, About::Send, Form::Http(manner));
    }

    /// The address of the last listener of the API: where backends are to connect.
    fn address(&self, engine: &Engine, slot: u32) -> std::net::SocketAddr {
        let mut listeners = engine.listeners.iter().rev();
        let api = listeners.find(|listener| listener.service == Service::ConnmixApi);
        let own = &engine.listeners[engine.conns[slot].listener as usize];
        api.unwrap_or(own).bound
    }
}
