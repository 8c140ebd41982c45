//! What operators see of a shard: answers to the questions of the admin interface, in pieces.
//!
//! A piece touches so much at the most ([`ROOM`]), so that a turn is not held up: notes 0.2 ms.
//! Nothing is kept between two pieces.

use crate::engine::Engine;
use crate::engine::conns::{Flags, Kind};
use crate::engine::look::{
    Details, Filter, Found, Names, Notes, Piece, Question, Row, Shard as Load, Sort, State, What,
    sort_names,
};
use crate::hub::{ConnId, Hub};
use crate::lists::numbers::kind;
use crate::shard::tenants::{Tenants, hook};

/// What a piece may touch: a place of a table costs 1, what is there [`THERE`].
const ROOM: usize = 16_384;
const THERE: usize = 16;
/// Topics of one connection that are shown.
const TOPICS_MAX: usize = 1000;

/// Places of a table from one on, as far as the room of a piece goes.
struct Walk {
    at: u32,
    end: u32,
    room: usize,
}

impl Walk {
    fn new(from: u32, end: u32) -> Walk {
        Walk { at: from, end, room: ROOM }
    }

    /// Gathers what is at the places.
    fn gather<T>(&mut self, mut at: impl FnMut(u32) -> Visit<T>) -> Vec<T> {
        let mut all = Vec::new();
        while self.at < self.end && self.room > 0 {
            let visit = at(self.at);
            self.at += 1;
            self.room = self.room.saturating_sub(if visit.is_nothing() { 1 } else { THERE });
            if let Visit::Wanted(found) = visit {
                all.push(found);
            }
        }
        all
    }

    fn next(&self) -> Option<u32> {
        (self.at < self.end).then_some(self.at)
    }
}

/// What is at a place.
enum Visit<T> {
    Nothing,
    Other,
    Wanted(T),
}

impl<T> Visit<T> {
    fn is_nothing(&self) -> bool {
        matches!(self, Visit::Nothing)
    }

    fn of(wanted: Option<T>) -> Visit<T> {
        wanted.map_or(Visit::Other, Visit::Wanted)
    }
}

/// A shard as operators see it.
pub(super) struct View<'a> {
    pub engine: &'a Engine,
    pub tenants: &'a mut Tenants,
}

impl View<'_> {
    /// Answers a question from a place on, with at most `max` rows.
    pub fn look(&mut self, question: &Question, from: u32, max: usize) -> Piece {
        let hub = &self.engine.hub;
        match question {
            Question::Shard => Piece { found: Found::Shard(Box::new(self.load())), next: None },
            Question::Connections { filter, sort, below } => {
                self.connections(filter, *sort, *below, from, max)
            }
            Question::Connection(conn) => {
                Piece { found: Found::Connection(self.details(*conn).map(Box::new)), next: None }
            }
            Question::Names(asked) => names(hub, asked, from, max),
            Question::Nodes => {
                let nodes = self.engine.mesh.as_ref().map(|mesh| mesh.nodes.clone());
                Piece { found: Found::Nodes(nodes.unwrap_or_default()), next: None }
            }
            Question::Workers => {
                Piece { found: Found::Workers(self.engine.links.workers()), next: None }
            }
        }
    }

    fn connections(
        &self,
        filter: &Filter,
        sort: Option<Sort>,
        below: Option<(u64, ConnId)>,
        from: u32,
        max: usize,
    ) -> Piece {
        let engine = self.engine;
        let place = |row: &Row| (row.key(sort), row.conn);
        let mut walk = Walk::new(from, engine.conns.slots());
        let mut rows = walk.gather(|slot| {
            if engine.conns[slot].kind == Kind::FREE {
                return Visit::Nothing;
            }
            let row = passes(engine, slot, filter).then(|| row(engine, slot));
            Visit::of(row.filter(|row| below.is_none_or(|below| place(row) < below)))
        });
        if sort.is_some() {
            rows.sort_unstable_by_key(|row| std::cmp::Reverse(place(row)));
        } else if let Some(first) = rows.get(max) {
            walk.at = first.conn.slot();
        }
        rows.truncate(max);
        Piece { found: Found::Connections(rows), next: walk.next() }
    }

    fn details(&mut self, conn: ConnId) -> Option<Details> {
        let slot = self.engine.conns.slot(conn)?;
        let mut notes = Notes::default();
        let kind = self.engine.conns[slot].kind;
        hook!(self.tenants, kind, describe(self.engine, slot, &mut notes), else {});
        let engine = self.engine;
        let conn = &engine.conns[slot];
        let stalled = conn.flags.has(Flags::STALLED);
        let worker = conn.worker().and_then(|worker| engine.links.name_of(worker));
        Some(Details {
            row: row(engine, slot),
            topics: engine.hub.topics_of(slot).take(TOPICS_MAX).cloned().collect(),
            session_bytes: engine.hub.session(slot).len(),
            tls: conn.tls.as_ref().and_then(|tls| tls.describe()),
            websocket: conn.flags.has(Flags::WEBSOCKET),
            held_bytes: conn.held(),
            stalled_ms: stalled.then(|| engine.now.ms - conn.stalled_since(engine.now.ms)),
            reasons: reasons(conn.flags, conn.goes()),
            worker,
            notes,
        })
    }

    fn load(&self) -> Load {
        let engine = self.engine;
        Load {
            connections: engine.conns.by_kind(),
            clients: engine.hub.len() as u64,
            users: engine.hub.users() as u64,
            topics: engine.hub.topics() as u64,
            subscriptions: engine.hub.subscriptions() as u64,
            waiting: engine.waiting.len() as u64,
            stalled: engine.stalls as u64,
            mail: engine.mail.iter().map(|queue| queue.len() as u64).sum(),
            draining: engine.is_draining(),
        }
    }
}

/// Whether a connection is meant.
fn passes(engine: &Engine, slot: u32, filter: &Filter) -> bool {
    let conn = &engine.conns[slot];
    let Filter { kinds, user, topic, network, listeners, state } = filter;
    kinds.as_ref().is_none_or(|kinds| kinds.contains(&conn.kind))
        && listeners.as_ref().is_none_or(|listeners| listeners.contains(&conn.listener))
        && network.is_none_or(|network| network.contains(engine.conns.peer(slot).ip()))
        && state.is_none_or(|state| state == state_of(engine, slot))
        && user.as_ref().is_none_or(|user| engine.hub.user(slot) == &**user)
        && topic.as_ref().is_none_or(|topic| engine.hub.is_in(slot, topic))
}

fn state_of(engine: &Engine, slot: u32) -> State {
    let kind = engine.conns[slot].kind;
    let opens = kind == kind::GREETING || kind == kind::LEAVING || engine.row(slot).opening;
    State::of(&engine.conns[slot], opens)
}

fn row(engine: &Engine, slot: u32) -> Row {
    let conn = &engine.conns[slot];
    Row {
        conn: engine.conns.id(slot),
        kind: conn.kind,
        state: state_of(engine, slot),
        client: engine.hub.id_of(slot).is_some(),
        peer: engine.conns.peer(slot),
        listener: conn.listener,
        user: engine.hub.user(slot).into(),
        topics: engine.hub.topics_of(slot).len() as u32,
        // A generation is the second in which it began, or one soon after.
        age_s: u64::from(engine.now.unix.saturating_sub(conn.generation)),
        active_ms: conn.active_ms,
        idle_ms: engine.now.ms.saturating_sub(conn.active_ms),
        outbox_bytes: conn.charge(),
        traffic: engine.conns.traffic(slot),
    }
}

/// What the flags of a connection say notes why it is not read, or how far its end is.
fn reasons(flags: Flags, goes: bool) -> Vec<&'static str> {
    let said = [
        (flags.has(Flags::WAITING), "no worker has room for its events"),
        (flags.has(Flags::FULL), "its outbox is full: it does not read"),
        (flags.has(Flags::STALLED), "a send waits until it reads"),
        (flags.has(Flags::PAUSED), "its socket is not read"),
        (goes, "its goodbye waits for answers under way"),
        (flags.has(Flags::ENDED), "it has ended its side"),
        (flags.has(Flags::CLOSING) && !flags.has(Flags::HANG_UP), "waits for its close frame"),
        (flags.has(Flags::HANG_UP), "closes when everything is written"),
        (flags.has(Flags::LINGER), "waits for its end when everything is written"),
    ];
    said.into_iter().filter_map(|(is, reason)| is.then_some(reason)).collect()
}

/// A piece of the table of users or topics.
fn names(hub: &Hub, asked: &Names, from: u32, max: usize) -> Piece {
    let end = match asked.what {
        What::Users => hub.user_places(),
        What::Topics => hub.topic_places(),
    };
    let at = |place| match asked.what {
        What::Users => hub.user_at(place),
        What::Topics => hub.topic_at(place),
    };
    let mut walk = Walk::new(from, end);
    let mut found = walk.gather(|place| {
        let Some((name, count)) = at(place) else { return Visit::Nothing };
        let after = asked.after.as_ref().is_none_or(|after| **name > **after);
        let wanted = after && name.starts_with(&*asked.prefix);
        Visit::of(wanted.then(|| (name.clone(), count as u64)))
    });
    sort_names(&mut found, asked.by_count);
    found.truncate(max);
    Piece { found: Found::Names(found), next: walk.next() }
}
