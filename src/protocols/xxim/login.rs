//! Set-params and set-user of xxim clients: decrypting keys and verifying logins elsewhere, and who
//! holds which (user, platform, device) over all shards (xxim sections 3.4, 5.2 and 9.3).
//!
//! A triple has a home shard, which decides alone: of two connections the one that was accepted
//! later holds it, whenever their logins were verified. It tells the old holder and the new one.
//! Mail between two shards keeps its order, so a connection hears that it holds its triple before
//! it hears that it does not any more. Invariant: every claim is followed by one release, by the
//! connection itself or at its end. Costs: two messages per login when the home is another shard,
//! none else.

use std::sync::Arc;

use bytes::Bytes;

use crate::engine::Engine;
use crate::engine::LEFT_SPARE;
use crate::engine::conns::Flags;
use crate::hub::ConnId;
use crate::hub::limits::BucketRules;
use crate::hub::login::{Login, Verdict};
use crate::hub::push::Outcome;
use crate::limits::{MESH_LOGIN_SLOTS_MAX, MESH_LOGINS_MAX};
use crate::lists::letters::{Mail, MeshRequest};
use crate::lists::numbers::kind;
use crate::log::target;
use crate::protocols::xxim::config::XximCrypto;
use crate::protocols::xxim::letters::{HookKind, Letter, ServiceRequest};
use crate::protocols::xxim::rules::{Claimed, Close, Triple, TurnRules, Turns};
use crate::protocols::xxim::wire::cipher::Seeds;
use crate::protocols::xxim::wire::{Identity, after_connect, after_disconnect};
use crate::spare::Look;

/// Decryptions of keys that wait, and how many are under way (sections 9.2 and 9.3).
#[derive(Debug, Default)]
pub(crate) struct Unwraps {
    under_way: u32,
    waiting: Turns<Unwrap>,
}

#[derive(Debug)]
struct Unwrap {
    conn: ConnId,
    number: u32,
    key: Option<Bytes>,
    iv: Option<Bytes>,
}

impl Unwraps {
    /// Gives back what a peak took.
    pub(crate) fn give_back(&mut self, look: &mut Look) {
        self.waiting.give_back(look);
    }

    /// Whether nothing waits or is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way == 0 && self.waiting.is_empty()
    }

    /// Clients whose keys wait for their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When the next turn comes that no other event brings about, milliseconds of the process
    /// clock.
    pub(crate) fn next_ms(&self, crypto: &XximCrypto) -> Option<u64> {
        let room = self.under_way < crypto.under_way_max;
        self.waiting.due_ms(&turn_rules(crypto)).filter(|_| room)
    }
}

/// A bucket holds what comes in during so many seconds.
const BURST_SECONDS: u32 = 10;

fn turn_rules(crypto: &XximCrypto) -> TurnRules {
    let rules = |rate: u32| BucketRules { rate, burst: rate.saturating_mul(BURST_SECONDS) };
    TurnRules { source: rules(crypto.ip_rate), all: rules(crypto.rate) }
}

impl super::Xxim {
    /// A question begins whose answer the barrier waits for; returns its number. The connection is
    /// still received from, to notice its end: whoever has left takes nobody's turn.
    pub(crate) fn ask(&mut self, engine: &mut Engine, slot: u32) -> u32 {
        engine.hold_back(slot);
        let Some(conn) = self.xxim(engine, slot) else { return 0 };
        conn.number = conn.number.wrapping_add(1);
        conn.number
    }

    /// The slot of a connection that still waits for the answer with this number.
    fn asked(&mut self, engine: &mut Engine, id: ConnId, number: u32) -> Option<u32> {
        let slot = engine.conns.slot(id)?;
        if engine.conns[slot].flags.has(Flags::GONE | Flags::CLOSING) || engine.conns[slot].goes() {
            return None;
        }
        let conn = self.xxim(engine, slot)?;
        (conn.number == number && conn.client.at_barrier()).then_some(slot)
    }

    /// Has the seeds of a client decrypted, in its turn.
    pub(crate) fn unwrap(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        key: Option<Bytes>,
        iv: Option<Bytes>,
    ) {
        let number = self.ask(engine, slot);
        let (id, now_ms, rules) =
            (engine.conns.id(slot), engine.now.ms, turn_rules(&self.config.xxim.crypto));
        let Some(conn) = self.xxim(engine, slot) else { return };
        // As far as proxies tell it; what they say was read as an address.
        let ip = conn.client.identity().ip.parse().unwrap_or(conn.peer.ip());
        let unwrap = Unwrap { conn: id, number, key, iv };
        self.unwraps.waiting.push(ip, unwrap, now_ms, &rules);
        // Of those who have left only so many stay in the list.
        if self.unwraps.waiting.len() > 2 * engine.conns.len() + LEFT_SPARE {
            let conns = &engine.conns;
            self.unwraps.waiting.retain(|unwrap| conns.slot(unwrap.conn).is_some());
        }
        self.next_unwrap(engine);
    }

    /// Hands on whose turn it is.
    pub(crate) fn next_unwrap(&mut self, engine: &mut Engine) {
        let crypto = &self.config.xxim.crypto;
        let rules = turn_rules(crypto);
        while self.unwraps.under_way < crypto.under_way_max {
            let conns = &engine.conns;
            let is_there = |unwrap: &Unwrap| conns.slot(unwrap.conn).is_some();
            let next = self.unwraps.waiting.next(engine.now.ms, &rules, is_there);
            let Some(Unwrap { conn, number, key, iv }) = next else { return };
            self.unwraps.under_way += 1;
            engine.counters.xxim_unwraps += 1;
            self.outgoing.push_back(ServiceRequest::Unwrap { conn, number, key, iv });
        }
    }

    /// Seeds were decrypted, or were nothing of the kind.
    pub(crate) fn unwrapped(
        &mut self,
        engine: &mut Engine,
        id: ConnId,
        number: u32,
        seeds: Option<Box<Seeds>>,
    ) {
        self.unwraps.under_way -= 1;
        engine.counters.xxim_unwraps_failed += u64::from(seeds.is_none());
        self.next_unwrap(engine);
        let Some(slot) = self.asked(engine, id, number) else { return };
        let config = self.config.clone();
        let Some(conn) = self.xxim(engine, slot) else { return };
        let step = conn.client.unwrapped(seeds.as_deref(), &config.xxim);
        self.step(engine, slot, step);
        self.resume(engine, slot);
    }

    pub(crate) fn verify(&mut self, engine: &mut Engine, slot: u32, login: Box<Login>) {
        let number = self.ask(engine, slot);
        engine.verify(slot, number, login);
    }

    /// The verifier has decided about a login.
    pub(crate) fn login_verified(
        &mut self,
        engine: &mut Engine,
        slot: u32,
        number: u32,
        verdict: Verdict,
    ) {
        if let Verdict::Unavailable(why) = &verdict
            && let Some(unsaid) = engine.complaints.allow(engine.now.ms)
        {
            tracing::warn!(
                target: target::XXIM,
                %why, unsaid, "an xxim login could not be verified"
            );
        }
        let id = engine.conns.id(slot);
        let Some(slot) = self.asked(engine, id, number) else { return };
        let config = self.config.clone();
        let Some(conn) = self.xxim(engine, slot) else { return };
        let step = conn.client.verified(verdict, &config.xxim);
        self.step(engine, slot, step);
        self.resume(engine, slot);
    }

    /// Claims a triple for the connection; its barrier waits until the home has decided.
    pub(crate) fn claim(&mut self, engine: &mut Engine, slot: u32, triple: Triple) {
        let id = engine.conns.id(slot);
        let Some(conn) = self.xxim(engine, slot) else { return };
        let order = conn.order;
        let before = conn.held.replace(triple.clone());
        if let Some(before) = before.filter(|before| *before != triple) {
            self.release(engine, before, id);
        }
        let home = triple.home(engine.mail.len()) as u8;
        if home == engine.id {
            let held = self.claimed_here(engine, &triple, id, order);
            return self.settled(engine, slot, held);
        }
        if !engine.conns[slot].flags.has(Flags::BLOCKED) {
            engine.block(slot);
        }
        engine.post(home, Mail::Xxim(Letter::Claim { triple, conn: id, order }));
    }

    /// Another shard's connection wants a triple that is at home here.
    pub(crate) fn claim_from(
        &mut self,
        engine: &mut Engine,
        triple: Triple,
        conn: ConnId,
        order: u64,
    ) {
        let held = self.claimed_here(engine, &triple, conn, order);
        engine.post(conn.shard(), Mail::Xxim(Letter::Claimed { triple, conn, held }));
    }

    /// Whether the connection holds it now: a newer one keeps it.
    fn claimed_here(
        &mut self,
        engine: &mut Engine,
        triple: &Triple,
        conn: ConnId,
        order: u64,
    ) -> bool {
        let before = match self.holders.claim(triple.clone(), conn, order) {
            Claimed::Kept => return false,
            Claimed::Free => None,
            Claimed::From(before) => Some(before),
        };
        engine.claim_everywhere(triple.parts(), conn, order);
        let Some(before) = before else { return true };
        if before.shard() == engine.id {
            self.displaced(engine, triple, before);
        } else {
            let triple = triple.clone();
            engine.post(before.shard(), Mail::Xxim(Letter::Displaced { triple, conn: before }));
        }
        true
    }

    /// The home has decided about the triple that the connection claimed, unless it claimed another
    /// one meanwhile.
    pub(crate) fn claimed(&mut self, engine: &mut Engine, triple: &Triple, id: ConnId, held: bool) {
        let Some(slot) = engine.conns.slot(id) else { return };
        let waits = |conn: &&mut super::Conn| {
            conn.client.at_barrier() && conn.held.as_ref() == Some(triple)
        };
        if engine.conns[slot].flags.has(Flags::GONE | Flags::CLOSING)
            || self.xxim(engine, slot).as_ref().is_none_or(|conn| !waits(conn))
        {
            return;
        }
        self.settled(engine, slot, held);
        self.resume(engine, slot);
    }

    /// What the barrier wanted is true now. If a newer connection holds the triple, the request is
    /// answered and this one is displaced; backends hear nothing of it.
    fn settled(&mut self, engine: &mut Engine, slot: u32, held: bool) {
        let Some(conn) = self.xxim(engine, slot) else { return };
        // It was for another token, or device.
        conn.permitted_ms = 0;
        let step = conn.client.claimed();
        if !held {
            self.step(engine, slot, step);
            engine.counters.xxim_displaced += 1;
            return self.close(engine, slot, &Close::DUPLICATE);
        }
        let identity = conn.client.identity().clone();
        if engine.hub.user(slot) != identity.user_id {
            engine.counters.xxim_logins += 1;
            engine.hub.set_user(slot, &identity.user_id);
            self.announce(engine, slot, identity);
        } else if let Some((announced, _)) =
            self.xxim(engine, slot).and_then(|conn| conn.announced.as_mut())
        {
            // The departure is told with what is true then, the newest token above all.
            *announced = identity;
        }
        self.rearm(engine, slot);
        self.step(engine, slot, step);
    }

    /// Another connection holds the triple of this one now.
    pub(crate) fn displaced(&mut self, engine: &mut Engine, triple: &Triple, id: ConnId) {
        let Some(slot) = engine.conns.slot(id) else { return };
        if engine.conns[slot].flags.has(Flags::GONE | Flags::CLOSING) {
            return;
        }
        if self.xxim(engine, slot).is_some_and(|conn| conn.held.as_ref() == Some(triple)) {
            engine.counters.xxim_displaced += 1;
            self.close(engine, slot, &Close::DUPLICATE);
        }
    }

    /// Another node holds this login now.
    pub(crate) fn displaced_elsewhere(
        &mut self,
        engine: &mut Engine,
        id: ConnId,
        login: &[Box<str>; 3],
    ) -> Outcome {
        let held = engine.conns.slot(id).and_then(|slot| self.xxim(engine, slot)?.held.clone());
        let Some(triple) = held.filter(|held| held.parts() == *login) else {
            return Outcome::default();
        };
        self.displaced(engine, &triple, id);
        Outcome { done: 1, failed: 0 }
    }

    /// Tells the mesh some of the logins of this shard, from this slot on.
    pub(crate) fn tell_logins(&mut self, engine: &mut Engine, from: u32) {
        let mut logins = Vec::new();
        let end = engine.conns.slots().min(from.saturating_add(MESH_LOGIN_SLOTS_MAX));
        let mut slot = from;
        while slot < end && logins.len() < MESH_LOGINS_MAX {
            let conn = &engine.conns[slot];
            let index = (conn.kind == kind::XXIM).then_some(conn.index);
            if let Some(xxim) = self.conns.of(index)
                && let Some(triple) = &xxim.held
                && !conn.flags.has(Flags::GONE | Flags::CLOSING)
            {
                logins.push((triple.parts(), engine.conns.id(slot), xxim.order / 1000));
            }
            slot += 1;
        }
        let next = (slot < engine.conns.slots()).then_some(slot);
        engine.tell_mesh(MeshRequest::Logins { logins, next });
    }

    /// A connection gives up its triple, at whichever shard that is at home.
    pub(crate) fn release(&mut self, engine: &mut Engine, triple: Triple, conn: ConnId) {
        let home = triple.home(engine.mail.len()) as u8;
        if home == engine.id {
            self.holders.release(triple, conn);
        } else {
            engine.post(home, Mail::Xxim(Letter::Release { triple, conn }));
        }
    }

    /// Tells the hooks that a client has come, and that the user it was before has gone.
    fn announce(&mut self, engine: &mut Engine, slot: u32, identity: Arc<Identity>) {
        if self.config.xxim_upstreams.hooks.url.is_none() {
            return;
        }
        let now_ms = engine.now.unix_ms;
        let pod = *engine.settings.advertise.ip();
        let conn = engine.conns.id(slot);
        let Some(own) = self.xxim(engine, slot) else { return };
        let before = own.announced.replace((identity.clone(), now_ms));
        if let Some(before) = before {
            self.tell_departure(engine, conn, before);
        }
        let body = after_connect(&identity, pod, now_ms);
        self.outgoing.push_back(ServiceRequest::Hook { conn, kind: HookKind::AfterConnect, body });
    }

    /// Tells the hooks that a client that they know has gone.
    pub(crate) fn tell_departure(
        &mut self,
        engine: &mut Engine,
        conn: ConnId,
        (identity, since_ms): (Arc<Identity>, u64),
    ) {
        let pod = *engine.settings.advertise.ip();
        let body = after_disconnect(&identity, pod, since_ms, engine.now.unix_ms);
        self.outgoing.push_back(ServiceRequest::Hook {
            conn,
            kind: HookKind::AfterDisconnect,
            body,
        });
    }
}
