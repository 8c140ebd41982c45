//! Connections that begin with a header of the PROXY protocol: a load balancer in front says whom
//! they come from, before TLS and everything else. Who may say so stands in `trust.proxies`.
//!
//! A peer that must not say it, says it in pieces for longer than `runtime.handshake_timeout`, or
//! says something else costs its own connection. A load balancer that speaks for itself (its health
//! checks) keeps its own address, and leaves no line in the log.

use std::net::SocketAddr;

use crate::config::model::ProxyProtocol;
use crate::engine::Engine;
use crate::engine::slots::Slots;
use crate::lists::numbers::kind;
use crate::log::target;
use crate::wire::proxy::{self, Said};

/// What is known of a connection.
#[derive(Debug)]
pub enum Heard {
    /// Its header is incomplete.
    More,
    /// It has no good one, and ends.
    Refused,
    /// Whom it comes from, and what it has sent behind that.
    Client(SocketAddr, Vec<u8>),
}

/// A connection whose header is incomplete.
#[derive(Debug)]
struct Prelude {
    peer: SocketAddr,
    bytes: Vec<u8>,
}

/// Those of a shard.
#[derive(Debug, Default)]
pub struct Preludes(Slots<Prelude>);

impl Preludes {
    /// A connection was accepted: its header comes first, if it is to have one. `row`: how it
    /// behaves meanwhile.
    pub fn begin(&mut self, engine: &mut Engine, slot: u32, peer: SocketAddr, row: u16) -> Heard {
        let trusted = engine.settings.proxies.trust(peer.ip());
        match (wanted(engine, slot), trusted) {
            (ProxyProtocol::Off, _) | (ProxyProtocol::Accept, false) => {
                Heard::Client(peer, Vec::new())
            }
            (ProxyProtocol::Require, false) => {
                refuse(engine, slot, peer, "its peer is not in trust.proxies")
            }
            (ProxyProtocol::Accept | ProxyProtocol::Require, true) => {
                let index = self.0.insert(Prelude { peer, bytes: Vec::new() });
                engine.turn_into(slot, kind::PROXY, index, row);
                let time_ms = engine.settings.handshake_timeout.as_millis() as u64;
                engine.set_due(slot, engine.now.ms + time_ms);
                Heard::More
            }
        }
    }

    /// Bytes of a connection whose header is incomplete.
    pub fn read(&mut self, engine: &mut Engine, slot: u32, data: &[u8]) -> Heard {
        let index = engine.index(slot, kind::PROXY);
        let Some(prelude) = self.0.of_mut(index) else { return Heard::More };
        prelude.bytes.extend_from_slice(data);
        let said = proxy::read(&prelude.bytes);
        if said == Said::More {
            return Heard::More;
        }
        let Some(Prelude { peer, mut bytes }) = self.0.remove_of(index) else {
            return Heard::More;
        };
        engine.turn_away(slot);
        match said {
            Said::Header { client, bytes: header } => {
                Heard::Client(client.unwrap_or(peer), bytes.split_off(header))
            }
            Said::Nothing if wanted(engine, slot) == ProxyProtocol::Accept => {
                Heard::Client(peer, bytes)
            }
            Said::Nothing => refuse(engine, slot, peer, "there is none"),
            Said::Broken | Said::More => refuse(engine, slot, peer, "it can not be read"),
        }
    }

    /// The connection is gone.
    pub fn remove(&mut self, index: u32) {
        self.0.remove(index);
    }

    /// Whether there are none; for tests.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For tests: bytes of the header of a connection.
    pub fn held(&self, engine: &Engine, slot: u32) -> usize {
        self.0.of(engine.index(slot, kind::PROXY)).map_or(0, |prelude| prelude.bytes.len())
    }
}

/// Whether the listener of a connection wants a header.
fn wanted(engine: &Engine, slot: u32) -> ProxyProtocol {
    engine.listeners[usize::from(engine.conns[slot].listener)].proxy
}

fn refuse(engine: &mut Engine, slot: u32, peer: SocketAddr, why: &'static str) -> Heard {
    engine.counters.proxy_headers_refused += 1;
    if let Some(unsaid) = engine.complaints.allow(engine.now.ms) {
        tracing::warn!(
            target: target::SHARD,
            %peer, why, unsaid, "closed for want of a PROXY header"
        );
    }
    engine.finish(slot);
    Heard::Refused
}
