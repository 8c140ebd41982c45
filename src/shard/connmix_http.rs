//! The connmix API over HTTP: requests with their bodies, and answers (connmix section 1.2).
//!
//! A connection carries any number of requests, one after the other or pipelined. A request that
//! lies complete in what arrived is handled where it lies; of any other the head is kept until it
//! is complete, then the body is collected. What can not be understood, or has a body that nobody
//! reads, is answered and ends the connection. Costs: nothing is kept of a connection between two
//! requests.

use bytes::Bytes;

use crate::config::model::Service;
use crate::control::connmix_api::{self as control, Endpoint, Refusal};
use crate::limits::METRICS_REQUESTS_MAX;
use crate::shard::Shard;
use crate::shard::conns::Flags;
use crate::wire::connmix::{self as wire, Answer};
use crate::wire::http::body::{self, Body, BodyError, Framing};
use crate::wire::http::{self, Head};

const JSON: &str = "application/json; charset=utf-8";
/// What Prometheus expects of its text format.
const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The request of a connection that is being read.
#[derive(Debug, Default)]
pub struct Reading {
    /// Bytes of a head that is not complete, or of requests that are not read yet.
    buffer: Vec<u8>,
    /// How many of them were searched for the end of the head.
    seen: usize,
    /// The head is complete, the body is not.
    body: Option<Box<(Plan, Body)>>,
    /// When its first bytes came, milliseconds of the process clock.
    since_ms: Option<u64>,
    /// The next request waits until all those before it are answered.
    waits: bool,
    /// Nothing is read any more.
    over: bool,
}

/// What becomes of a request when its body is there.
#[derive(Debug)]
struct Plan {
    endpoint: Endpoint,
    /// The connection ends after it.
    ends: bool,
}

/// How an answer that is not known yet is to be written.
#[derive(Debug)]
pub enum Form {
    WebSocket {
        id: Box<str>,
    },
    Http {
        ends: bool,
    },
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

    /// Whether the next request waits until all those before it are answered.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// Bytes that are kept.
    pub fn held(&self) -> usize {
        self.buffer.len() + self.body.as_ref().map_or(0, |body| body.1.bytes().len())
    }
}

impl Form {
    /// Whether the connection ends after the answer.
    pub fn ends(&self) -> bool {
        match self {
            Form::WebSocket { .. } => false,
            Form::Http { ends } | Form::Raw { ends } => *ends,
        }
    }

    /// The answer in this form.
    pub fn encode(&self, answer: Answer) -> Bytes {
        match self {
            Form::WebSocket { id } => wire::text_frame(answer, id),
            Form::Http { ends } | Form::Raw { ends } => {
                let body = wire::http_body(answer);
                Bytes::from(body::answer("200 OK", JSON, "", *ends, &body))
            }
        }
    }

    /// The text of the metrics in this form.
    pub fn metrics(&self, text: &str) -> Bytes {
        Bytes::from(body::answer("200 OK", METRICS_TEXT, "", self.ends(), text.as_bytes()))
    }
}

fn refusal_of(error: BodyError) -> Refusal {
    match error {
        BodyError::Bad => control::BAD_REQUEST,
        BodyError::Unsupported => control::UNKNOWN_CODING,
        BodyError::TooLarge => control::BODY_TOO_LARGE,
    }
}

impl Shard {
    /// Bytes of a connection that is no WebSocket, behind those that are kept.
    pub(super) fn read_http(&mut self, slot: u32, data: &[u8]) {
        let Some(conn) = self.api(slot) else { return };
        if conn.reading.over {
            return;
        }
        let mut reading = std::mem::take(&mut conn.reading);
        let mut buffer = std::mem::take(&mut reading.buffer);
        let input = match buffer.is_empty() {
            true => data,
            false => {
                buffer.extend_from_slice(data);
                &buffer
            }
        };
        let mut rest = input;
        let gone = Flags::GONE | Flags::DEAF | Flags::WEBSOCKET;
        while !rest.is_empty() && !reading.over && !self.conns[slot].flags.has(gone) {
            // Whether there is room for it depends on what the request before it left behind.
            if let Some(conn) = self.api(slot) {
                conn.reading.waits = reading.waits;
            }
            if !self.connmix_api_ready(slot) || !self.http_step(slot, &mut reading, &mut rest) {
                break;
            }
        }
        let websocket = self.conns[slot].flags.has(Flags::WEBSOCKET);
        if websocket {
            self.conns[slot].decoder.stash(rest);
        } else if rest.len() == buffer.len() {
            reading.buffer = buffer;
        } else {
            reading.buffer = rest.to_vec();
        }
        if let Some(conn) = self.api(slot) {
            conn.reading = if websocket { Reading::default() } else { reading };
        }
        if websocket {
            self.rearm(slot);
            // What came with the request.
            self.feed(slot, &mut []);
        } else if self.api(slot).is_some_and(|conn| conn.reading.since_ms.is_some()) {
            self.rearm(slot);
        }
    }

    /// Reads one request, or a part of one. False: more bytes are needed, or none.
    fn http_step(&mut self, slot: u32, reading: &mut Reading, rest: &mut &[u8]) -> bool {
        let now_ms = self.now.ms;
        if let Some(mut incomplete) = reading.body.take() {
            return match incomplete.1.read(rest) {
                Ok(true) => {
                    reading.since_ms = None;
                    let (plan, body) = *incomplete;
                    self.http_request(slot, reading, plan, body.bytes());
                    true
                }
                Ok(false) => {
                    reading.body = Some(incomplete);
                    false
                }
                Err(error) => self.http_refuse(slot, reading, refusal_of(error), true),
            };
        }
        let config = self.config.clone();
        let api = &config.connmix.api;
        let head = *rest;
        match http::resume(head, std::mem::take(&mut reading.seen)) {
            Head::Partial => {
                reading.seen = head.len();
                reading.since_ms.get_or_insert(now_ms);
                false
            }
            Head::Bad => self.http_refuse(slot, reading, control::BAD_REQUEST, true),
            Head::TooLarge => self.http_refuse(slot, reading, control::HEAD_TOO_LARGE, true),
            Head::Complete { request, len } => {
                let Some(peer) = self.api(slot).map(|conn| conn.peer.ip()) else { return false };
                let framing = match body::framing(&request, api.message_bytes_max as usize) {
                    Ok(framing) => framing,
                    Err(error) => {
                        return self.http_refuse(slot, reading, refusal_of(error), true);
                    }
                };
                let ends = !request.keeps_alive();
                let endpoint = match control::endpoint(&request, peer, api) {
                    Ok(endpoint) => endpoint,
                    Err(refusal) => {
                        *rest = &head[len..];
                        let ends = ends || framing != Framing::Length(0);
                        reading.since_ms = None;
                        return self.http_refuse(slot, reading, refusal, ends);
                    }
                };
                // Nothing may come between the 101 and the answers before it.
                if matches!(endpoint, Endpoint::WebSocket { .. }) && !self.api_settled(slot) {
                    reading.waits = true;
                    return true;
                }
                reading.waits = false;
                let expects = request.has_token("Expect", "100-continue");
                *rest = &head[len..];
                self.http_body(slot, reading, Plan { endpoint, ends }, (framing, expects), rest)
            }
        }
    }

    /// Handles a request whose head is read, if its body is there; else it is collected.
    fn http_body(
        &mut self,
        slot: u32,
        reading: &mut Reading,
        plan: Plan,
        (framing, expects): (Framing, bool),
        rest: &mut &[u8],
    ) -> bool {
        if let Framing::Length(length) = framing
            && let Some((body, after)) = rest.split_at_checked(length)
        {
            *rest = after;
            reading.since_ms = None;
            self.http_request(slot, reading, plan, body);
            return true;
        }
        if expects && rest.is_empty() {
            self.api_send(slot, Bytes::from_static(CONTINUE), false);
        }
        let bytes_max = self.config.connmix.api.message_bytes_max as usize;
        reading.since_ms.get_or_insert(self.now.ms);
        reading.body = Some(Box::new((plan, Body::new(framing, bytes_max))));
        true
    }

    fn api_settled(&mut self, slot: u32) -> bool {
        self.api(slot).is_some_and(|conn| conn.is_settled())
    }

    /// Answers with something else than what was asked for. Says whether to read on.
    fn http_refuse(
        &mut self,
        slot: u32,
        reading: &mut Reading,
        refusal: Refusal,
        ends: bool,
    ) -> bool {
        self.counters.api_requests += 1;
        self.counters.api_faults += 1;
        let body = control::refusal_body(refusal);
        let answer = body::answer(refusal.status, JSON, refusal.headers, ends, &body);
        self.api_send(slot, Bytes::from(answer), ends);
        reading.over |= ends;
        !ends
    }

    /// Carries out a request.
    fn http_request(&mut self, slot: u32, reading: &mut Reading, plan: Plan, body: &[u8]) {
        let Plan { endpoint, ends } = plan;
        reading.over |= ends;
        let form = |_: &str| Form::Http { ends };
        match endpoint {
            Endpoint::Send => {
                let mut index = std::mem::take(&mut self.connmix.json);
                let request = wire::send(body, &mut index);
                let action = control::action(request, true, |id| self.client(id));
                self.connmix.json = index;
                self.api_action(slot, action, "", form);
            }
            Endpoint::Publish => {
                let mut index = std::mem::take(&mut self.connmix.json);
                let request = wire::publish(body, &mut index);
                let action = control::action(request, true, |id| self.client(id));
                self.connmix.json = index;
                self.api_action(slot, action, "", form);
            }
            Endpoint::Version => self.http_json(slot, control::VERSION, ends),
            Endpoint::Nodes { host } => {
                let config = self.config.clone();
                let bind = self.api_address(slot);
                let api = &config.connmix.api;
                let others = self.other_apis();
                let others = others.into_iter();
                let nodes = control::nodes(config.node, api, bind, host.as_deref(), others);
                self.http_json(slot, &nodes, ends);
            }
            Endpoint::Metrics => self.http_metrics(slot, reading, ends),
            Endpoint::WebSocket { response, may_write } => {
                self.counters.api_requests += 1;
                self.push(slot, Bytes::from(response));
                if let Some(conn) = self.api(slot) {
                    conn.may_write = may_write;
                }
                reading.over = false;
                self.conns[slot].flags.set(Flags::WEBSOCKET);
            }
        }
    }

    fn http_json(&mut self, slot: u32, json: &[u8], ends: bool) {
        self.counters.api_requests += 1;
        let answer = body::answer("200 OK", JSON, "", ends, json);
        self.api_send(slot, Bytes::from(answer), ends);
    }

    /// The metrics are text that the sidecar makes.
    fn http_metrics(&mut self, slot: u32, reading: &mut Reading, ends: bool) {
        if self.hooks.renders() >= METRICS_REQUESTS_MAX {
            self.http_refuse(slot, reading, control::BUSY, ends);
            return;
        }
        self.counters.api_requests += 1;
        let number = self.asks.number(self.conns.id(slot));
        self.hooks.render(self.id, number);
        self.api_wait(slot, number, Form::Http { ends });
    }

    /// The address of the last listener of the API: where backends are to connect.
    fn api_address(&self, slot: u32) -> std::net::SocketAddr {
        let mut listeners = self.listeners.iter().rev();
        let api = listeners.find(|listener| listener.service == Service::ConnmixApi);
        let own = &self.listeners[self.conns[slot].listener as usize];
        api.unwrap_or(own).bound
    }
}
