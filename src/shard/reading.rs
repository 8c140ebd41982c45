//! Reading loops: the engine hands out one message, one call of its protocol handles it, and the
//! list of wants is emptied before the next one.

use crate::config::model::{ClientProtocol, Route, Service};
use crate::engine::conns::Flags;
use crate::engine::manners::Life;
use crate::engine::tenant::Upgrade;
use crate::hub::ConnId;
use crate::hub::login;
use crate::lists::numbers::kind;
use crate::log::target;
use crate::protocols::connmix;
use crate::protocols::netsvr::business::Asked;
use crate::protocols::xxim::Piece;
use crate::shard::Shard;
use crate::shard::prelude::Heard;
use crate::shard::tenants::hook;
use crate::shard::upgrade::{self, Refusal};
use crate::wire::http::Request;
use crate::wire::http::machine::{Event as Said, Machine};
use crate::wire::websocket::{self, Decoder, Event, Opcode, Rules};
use std::net::SocketAddr;

use bytes::Bytes;

/// A connection whose request head is incomplete.
#[derive(Debug)]
pub struct Greeting {
    pub peer: SocketAddr,
    machine: Machine,
}

impl Greeting {
    /// Nothing has come yet.
    pub fn new(peer: SocketAddr) -> Greeting {
        Greeting { peer, machine: Machine::default() }
    }

    /// For tests: bytes of the head.
    pub fn held(&self) -> usize {
        self.machine.held()
    }
}

impl Shard {
    /// Handles bytes of a connection that is being read.
    pub(super) fn take_in(&mut self, slot: u32, data: &mut [u8]) {
        let Some(mut tls) = self.engine.conns[slot].tls.take() else {
            return self.feed(slot, data);
        };
        let mut plain = std::mem::take(&mut self.engine.plain);
        let was_handshaking = tls.handshaking();
        let mut shaken = false;
        let result = tls.read(data, &mut plain);
        if was_handshaking && !tls.handshaking() {
            self.engine.counters.tls_handshakes += 1;
            shaken = true;
        }
        let ended = tls.peer_closed();
        self.engine.conns[slot].tls = Some(tls);
        self.engine.touch(slot);
        if shaken {
            self.stream_opened(slot);
            self.settle();
        }
        if !plain.is_empty() {
            self.feed(slot, &mut plain);
        }
        plain.clear();
        plain.shrink_to(crate::limits::TLS_CHUNK_BYTES * 4);
        self.engine.plain = plain;
        if let Err(error) = result {
            self.engine.counters.tls_failures += 1;
            tracing::debug!(target: target::SHARD, slot, %error, "TLS error");
            self.engine.linger(slot);
        } else if ended {
            self.engine.ended(slot);
        }
    }

    /// A connection without HTTP can be spoken to: it was accepted, or its TLS handshake is over.
    pub(super) fn stream_opened(&mut self, slot: u32) {
        let kind = self.engine.conns[slot].kind;
        hook!(self.tenants, kind, opened(&mut self.engine, slot), else {});
    }

    /// Handles bytes as the protocol sees them. With no bytes it goes on with what was kept.
    pub(super) fn feed(&mut self, slot: u32, data: &mut [u8]) {
        let conn = &mut self.engine.conns[slot];
        match conn.kind {
            kind::GREETING => self.greet(slot, data),
            kind::PROXY => {
                let heard = self.preludes.read(&mut self.engine, slot, data);
                self.heard(slot, heard);
            }
            kind::OPENING => conn.decoder.stash(data),
            kind::NETSVR | kind::LEAVING => self.read_frames(slot, data),
            _ if conn.flags.has(Flags::WEBSOCKET) => self.read_frames(slot, data),
            kind::CONNMIX_API => self.read_api(slot, data),
            kind::XXIM_HTTP => self.read_xxim_http(slot, data),
            kind::IM => {
                self.read_stream(slot, data);
                self.tenants.im.end_of_bytes(&mut self.engine, slot);
            }
            _ => self.read_stream(slot, data),
        }
    }

    /// The protocol of its listener takes a connection when it is known whom it comes from.
    pub(super) fn heard(&mut self, slot: u32, heard: Heard) {
        let Heard::Client(client, mut rest) = heard else { return };
        let listener = usize::from(self.engine.conns[slot].listener);
        self.greet_with(slot, listener, client);
        if rest.is_empty() {
            return;
        }
        self.settle();
        if !self.engine.holds(slot, &rest) {
            self.take_in(slot, &mut rest);
        }
    }

    /// Reads the request that a connection begins with.
    fn greet(&mut self, slot: u32, data: &[u8]) {
        let index = self.engine.index(slot, kind::GREETING);
        let Some(greeting) = self.greetings.of_mut(index) else { return };
        let mut machine = std::mem::take(&mut greeting.machine);
        let bytes = machine.resume(data);
        let mut rest = &*bytes;
        let Some(event) = machine.next(&mut rest, usize::MAX) else {
            let unread = rest.len();
            machine.keep(bytes, unread);
            greeting.machine = machine;
            return;
        };
        match event {
            Said::Request(request) if !request.is_get() && self.takes_xxim_http(slot) => {
                let index = self.engine.index(slot, kind::GREETING);
                if let Some(Greeting { peer, .. }) = self.greetings.remove_of(index) {
                    self.tenants.xxim.over_http(&mut self.engine, slot, peer);
                }
                self.read_xxim_http(slot, &bytes);
            }
            Said::Request(request) => self.greeted(slot, &request, rest),
            Said::Refuse(fault) => self.turn_away(slot, Refusal::of(fault), None),
            Said::Expect | Said::Body(_) => debug_assert!(false, "a request begins first"),
        }
    }

    /// Upgrades to a WebSocket, or says why not and ends the connection; a body is not read then.
    /// The bytes behind the request belong to the WebSocket.
    pub(super) fn greeted(&mut self, slot: u32, request: &Request<'_>, rest: &[u8]) {
        let config = self.config.clone();
        let routes = self.routes(slot);
        let refusal = upgrade::xxim_refusal(request, routes, &config.xxim.allow_origin);
        let customer = &config.netsvr.customer;
        let decided = refusal.map_or_else(|| upgrade::upgrade(request, routes, customer), Err);
        match decided {
            Ok(upgrade) => self.upgraded(slot, upgrade, request, rest),
            Err(refusal) => self.turn_away(slot, refusal, Some(request)),
        }
    }

    fn turn_away(&mut self, slot: u32, refusal: Refusal, request: Option<&Request<'_>>) {
        self.engine.counters.upgrades_refused += 1;
        let date = self.engine.http_date();
        let path = request.map(|request| request.path);
        let bodiless = request.is_some_and(|request| request.manner().bodiless);
        let answer = refusal.encode(path, self.routes(slot), bodiless, &date);
        self.engine.push(slot, Bytes::from(answer));
        self.engine.linger(slot);
    }

    /// What the listener of a connection serves.
    pub(super) fn routes(&self, slot: u32) -> &[Route] {
        match &self.engine.listeners[self.engine.conns[slot].listener as usize].service {
            Service::Http(routes) => routes,
            _ => &[],
        }
    }

    fn upgraded(&mut self, slot: u32, mut upgrade: Upgrade, request: &Request<'_>, rest: &[u8]) {
        let peer = match self.greetings.remove_of(self.engine.index(slot, kind::GREETING)) {
            Some(greeting) => Some(greeting.peer),
            None => self.tenants.xxim.http_upgraded(&self.engine, slot),
        };
        let Some(peer) = peer else { return };
        let peer = self.engine.settings.proxies.client(peer, request);
        let conn = &mut self.engine.conns[slot];
        conn.decoder.stash(rest);
        conn.active_ms = self.engine.now.ms;
        if upgrade.deflate {
            conn.flags.set(Flags::DEFLATE);
        }
        conn.flags.set(Flags::WEBSOCKET);
        self.engine.turn_away(slot);
        self.engine.push(slot, Bytes::from_owner(std::mem::take(&mut upgrade.response)));
        self.tenants.upgraded(&mut self.engine, slot, peer, upgrade);
        self.settle();
        // What came with the request.
        self.feed(slot, &mut []);
    }

    pub(super) fn read_frames(&mut self, slot: u32, mut input: &mut [u8]) {
        let mut decoder = std::mem::take(&mut self.engine.conns[slot].decoder);
        let mut inflater = std::mem::take(&mut self.engine.inflater);
        loop {
            if !self.wants_frames(slot) {
                // A connection that is gone needs nothing any more.
                if self.engine.conns[slot].flags.has(Flags::BLOCKED) {
                    decoder.stash(input);
                }
                break;
            }
            let rules = self.rules(slot);
            match decoder.next(&mut input, rules, &mut inflater) {
                Ok(None) => break,
                Ok(Some(event)) => {
                    self.frame(slot, event);
                    self.handled(slot);
                }
                Err(violation) => {
                    self.engine.violated(slot, violation);
                    // Nothing is read any more; what was read does not wait for the end.
                    if self.engine.conns[slot].flags.has(Flags::DEAF) {
                        decoder = Decoder::default();
                    }
                    break;
                }
            }
        }
        self.engine.inflater = inflater;
        self.engine.conns[slot].decoder = decoder;
    }

    /// Whether the next frame of a client can be handled; blocks the client if it has to wait.
    fn wants_frames(&mut self, slot: u32) -> bool {
        let conn = &self.engine.conns[slot];
        let kind = conn.kind;
        if conn.flags.has(Flags::GONE | Flags::DEAF) || !self.engine.takes(slot) {
            return false;
        }
        if kind == kind::IM {
            return self.im_ready(slot);
        }
        let engine = &mut self.engine;
        hook!(self.tenants, kind, ready(engine, slot), else !engine.outbox_blocks(slot))
    }

    fn rules(&self, slot: u32) -> Rules {
        let row = self.engine.row(slot);
        Rules {
            message_bytes_max: row.message_bytes_max,
            deflate: self.engine.conns[slot].flags.has(Flags::DEFLATE),
            close_codes: row.close_codes,
        }
    }

    fn frame(&mut self, slot: u32, event: Event<'_>) {
        let closing = self.engine.conns[slot].flags.has(Flags::CLOSING);
        match event {
            Event::Close(payload) => {
                if self.engine.says_last(slot, || websocket::close_echo(payload)) {
                    return;
                }
                if !closing {
                    self.engine.say_goodbye(slot, websocket::close_echo(payload));
                }
                self.engine.hang_up(slot);
            }
            // After a close frame from here nothing of the client counts any more (netsvr W9).
            _ if closing => {}
            Event::Pong(_) => self.engine.shows_life(slot),
            Event::Ping(payload) => {
                match self.engine.row(slot).life {
                    Life::Own => {}
                    Life::Messages => self.engine.conns[slot].active_ms = self.engine.now.ms,
                    Life::Frames => self.engine.shows_life(slot),
                }
                self.engine.counters.heartbeats += 1;
                let pong = websocket::pong(payload);
                self.engine.push_pong(slot, pong);
            }
            Event::Message { opcode, data } => self.message(slot, opcode, data),
        }
    }

    fn message(&mut self, slot: u32, opcode: Opcode, data: &[u8]) {
        let conn = &mut self.engine.conns[slot];
        // IM counts what its frames say, and only they keep a connection alive.
        if conn.kind == kind::IM {
            return self.read_im_message(slot, opcode, data);
        }
        conn.active_ms = self.engine.now.ms;
        // A message is a sign of life whatever the protocol takes for one.
        conn.flags.clear(Flags::PINGED);
        let engine = &mut self.engine;
        engine.message_came(slot, data.len());
        match engine.conns[slot].kind {
            kind::CONNMIX_API => {
                if let Some(asked) = self.tenants.api.request(engine, slot, data) {
                    self.tell(slot, asked);
                }
            }
            kind => hook!(self.tenants, kind, message(engine, slot, opcode, data), else {}),
        }
    }

    /// A verifier has decided about a login.
    pub(super) fn verified(&mut self, id: ConnId, number: u32, verdict: login::Verdict) {
        self.engine.logins.done();
        let Some(slot) = self.engine.conns.slot(id) else { return };
        if self.engine.conns[slot].flags.has(Flags::GONE | Flags::CLOSING) {
            return;
        }
        let kind = self.engine.conns[slot].kind;
        let engine = &mut self.engine;
        hook!(self.tenants, kind, verified(engine, slot, number, verdict), else {});
    }

    /// Whether the listener of a connection takes requests of xxim.
    pub(in crate::shard) fn takes_xxim_http(&self, slot: u32) -> bool {
        let mut routes = self.routes(slot).iter();
        self.config.xxim_upstreams.http_api
            && routes.any(|route| route.protocol == ClientProtocol::Xxim)
    }

    /// A message was handled: the list is emptied before the next one.
    fn handled(&mut self, slot: u32) {
        if self.engine.reader == Some(slot) {
            self.engine.reading_left = self.engine.reading_left.saturating_sub(1);
        }
        self.settle();
    }

    /// Reads messages of a protocol that runs on a bare stream.
    fn read_stream(&mut self, slot: u32, mut input: &[u8]) {
        loop {
            let more = match self.engine.conns[slot].kind {
                kind::BUSINESS => self.next_command(slot, &mut input),
                kind => {
                    let engine = &mut self.engine;
                    hook!(self.tenants, kind, next(engine, slot, &mut input), else false)
                }
            };
            if !more {
                return self.settle();
            }
            self.handled(slot);
        }
    }

    /// Handles the next frame of a business process, and carries out what it asks for.
    fn next_command(&mut self, slot: u32, input: &mut &[u8]) -> bool {
        let Asked { more, commands, wide } =
            self.tenants.netsvr.business_next(&mut self.engine, slot, input);
        for command in commands {
            match wide {
                true => self.dispatch_wide(command),
                false => self.dispatch(command),
            }
        }
        more
    }

    /// Reads requests over HTTP of the connmix API.
    fn read_api(&mut self, slot: u32, data: &[u8]) {
        let Some(mut reading) = self.tenants.api.begin(&mut self.engine, slot, data) else {
            return;
        };
        let bytes = reading.machine.resume(data);
        let mut rest = &*bytes;
        while let Some(piece) =
            self.tenants.api.next(&mut self.engine, slot, &mut reading, &mut rest)
        {
            if let connmix::http::Piece::Asks(asked) = piece {
                self.tell(slot, asked);
            }
            self.handled(slot);
        }
        let unread = rest.len();
        if self.tenants.api.end(&mut self.engine, slot, reading, bytes, unread) {
            // What came with the request.
            self.feed(slot, &mut []);
        }
    }

    /// Reads requests over HTTP of xxim.
    fn read_xxim_http(&mut self, slot: u32, data: &[u8]) {
        let Some(mut machine) = self.tenants.xxim.http_begin(&mut self.engine, slot) else {
            return;
        };
        let bytes = machine.resume(data);
        let mut rest = &*bytes;
        loop {
            match self.tenants.xxim.http_next(&mut self.engine, slot, &mut machine, &mut rest) {
                Piece::Handled => self.handled(slot),
                // The WebSocket is on the same port, and a proxy may have kept the connection.
                Piece::Upgrade(request) => return self.greeted(slot, &request, rest),
                Piece::None => break,
            }
        }
        let unread = rest.len();
        self.tenants.xxim.http_end(&mut self.engine, slot, machine, bytes, unread);
    }

    /// One WebSocket message of an IM client.
    fn read_im_message(&mut self, slot: u32, opcode: Opcode, data: &[u8]) {
        if self.tenants.im.begins(&mut self.engine, slot, opcode) {
            self.read_stream(slot, data);
            self.tenants.im.end_of_message(&mut self.engine, slot, data.is_empty());
        }
    }

    /// Whether the next message of an IM client can be handled now; if not, it is blocked. What is
    /// left of the message before comes first.
    fn im_ready(&mut self, slot: u32) -> bool {
        if self.engine.conns[slot].flags.has(Flags::CLOSING) {
            return true;
        }
        if self.tenants.im.mid_frame(&mut self.engine, slot) {
            self.read_stream(slot, &[]);
            self.tenants.im.end_of_message(&mut self.engine, slot, false);
        }
        self.tenants.im.may_read(&mut self.engine, slot)
            || self.engine.conns[slot].flags.has(Flags::CLOSING)
    }
}
