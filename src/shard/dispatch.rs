//! What the engine cannot do by itself goes to the protocol of the connection from here, and the
//! list of wants is emptied here.

use std::sync::atomic::Ordering;

use crate::config::model::WorkerPick;
use crate::engine::closing::SHUTDOWN;
use crate::engine::conns::Flags;
use crate::engine::drain::Order;
use crate::engine::due::Due;
use crate::engine::ops::Op;
use crate::engine::wants::Want;
use crate::hub::{ConnId, Departed};
use crate::lists::numbers::kind;
use crate::shard::Shard;
use crate::shard::tenants::hook;

/// Clients that are given room in one turn, so that a turn stays short.
const GIVEN_PER_TURN: usize = 256;

impl Shard {
    /// Empties the list of wants, those of wants included.
    #[inline(always)]
    pub(super) fn settle(&mut self) {
        if !self.engine.wants.is_empty() {
            self.settle_wants();
        }
    }

    #[inline(never)]
    fn settle_wants(&mut self) {
        while let Some(want) = self.engine.wants.pop() {
            match want {
                Want::Left { slot, departed } => self.left_hub(slot, &departed),
                Want::Shut { slot } => self.shut(slot),
                Want::Gone { slot } => self.gone(slot),
                Want::Written { slot } => self.written(slot),
                Want::QueueRoom { client } => self.queue_room(client),
                Want::Queue(mail) => self.queue_mail(mail),
                Want::CarryOn => self.tenants.connmix.carry_on(&mut self.engine),
                Want::Command(command) => self.dispatch(command),
                Want::Wide(command) => self.dispatch_wide(command),
                Want::Outcome { number, part } => self.outcome_of(number, part),
            }
        }
    }

    /// The same, and then those read on that may, as many as one turn allows.
    #[inline(always)]
    pub(super) fn settle_all(&mut self) {
        self.settle();
        if self.engine.wants.has_readers() {
            self.serve_readers();
        }
    }

    #[inline(never)]
    fn serve_readers(&mut self) {
        while self.engine.reading_left > 0
            && let Some(conn) = self.engine.wants.reader()
        {
            if let Some(slot) = self.engine.conns.slot(conn) {
                self.reads_on(slot);
                self.settle();
            }
        }
    }

    /// Goes on with a connection that was blocked: first what was kept, then its socket.
    fn reads_on(&mut self, slot: u32) {
        let flags = &mut self.engine.conns[slot].flags;
        if !flags.clear(Flags::READS_ON) || flags.has(Flags::GONE) {
            return;
        }
        flags.clear(Flags::BLOCKED | Flags::WAITING | Flags::FULL);
        self.engine.reader = Some(slot);
        self.feed(slot, &mut []);
        let stops = Flags::BLOCKED | Flags::GONE;
        if !self.engine.conns[slot].flags.has(stops)
            && let Some(mut held) = self.engine.conns[slot].take_held()
        {
            self.take_in(slot, &mut held);
        }
        self.engine.reader = None;
        let conn = &self.engine.conns[slot];
        if conn.flags.has(stops) {
            return;
        }
        if conn.flags.has(Flags::ENDED) {
            return self.engine.touch(slot);
        }
        if conn.flags.has(Flags::LEAVES) {
            self.engine.close(slot, self.engine.drain.reason());
        }
        if self.engine.conns[slot].flags.clear(Flags::PAUSED) {
            self.engine.ops.push(Op::Resume { slot });
        }
    }

    /// The end of a client has begun.
    fn left_hub(&mut self, slot: u32, departed: &Departed) {
        let kind = self.engine.conns[slot].kind;
        hook!(self.tenants, kind, left(&mut self.engine, slot, departed), else {
            debug_assert!(false, "{kind:?} was a client");
        });
    }

    /// Nothing more can be written to a backend: it is given no further events.
    fn shut(&mut self, slot: u32) {
        if self.engine.conns[slot].kind == kind::BUSINESS {
            self.lost(slot);
            // Whoever waited for it may go on.
            self.engine.room_left = true;
        }
    }

    /// The connection is gone.
    fn gone(&mut self, slot: u32) {
        self.lost(slot);
        self.engine.conns[slot].extra = None;
        self.engine.conns.set_seal(slot, None);
    }

    /// What the protocol keeps of a connection is taken away.
    fn lost(&mut self, slot: u32) {
        let engine = &mut self.engine;
        match engine.conns[slot].kind {
            kind::GREETING => _ = self.greetings.remove(engine.conns[slot].index),
            kind::PROXY => self.preludes.remove(engine.conns[slot].index),
            kind => hook!(self.tenants, kind, gone(engine, slot), else {}),
        }
        engine.conns.set_kind(slot, kind::LEAVING, 0);
        let conn = &mut engine.conns[slot];
        if conn.flags.clear(Flags::ONLINE) {
            engine.shared.online.fetch_sub(1, Ordering::Relaxed);
        }
        let extra = conn.extra.as_mut();
        if let Some(flight) = extra.and_then(|extra| extra.flight.take()) {
            engine.reckon(flight.source, flight.own_bytes(), 0);
        }
    }

    /// What was sent to a connection that waits is written.
    fn written(&mut self, slot: u32) {
        let kind = self.engine.conns[slot].kind;
        hook!(self.tenants, kind, written(&mut self.engine, slot), else {});
    }

    /// The queue that a client's message found full has room again.
    fn queue_room(&mut self, client: ConnId) {
        let Some(slot) = self.engine.conns.slot(client) else { return };
        let kind = self.engine.conns[slot].kind;
        hook!(self.tenants, kind, queue_room(&mut self.engine, slot), else {});
    }

    /// The timer of a connection has fired.
    pub(super) fn timed_out(&mut self, slot: u32) {
        match self.engine.due(slot) {
            Due::Nothing => {}
            Due::Own => self.own_due(slot),
            Due::Silence => self.silent(slot),
            Due::Goodbye => {
                let kind = self.engine.conns[slot].kind;
                hook!(self.tenants, kind, give_up(&mut self.engine, slot), else {});
                self.engine.say_last(slot);
                self.engine.give_time(slot);
            }
        }
    }

    fn own_due(&mut self, slot: u32) {
        let engine = &mut self.engine;
        match engine.conns[slot].kind {
            kind::GREETING | kind::PROXY => engine.handshake_timed_out(slot),
            kind => {
                hook!(self.tenants, kind, due(engine, slot), else engine.set_due(slot, u64::MAX))
            }
        }
    }

    fn silent(&mut self, slot: u32) {
        let kind = self.engine.conns[slot].kind;
        let engine = &mut self.engine;
        hook!(self.tenants, kind, silent(engine, slot), else engine.too_silent(slot));
    }

    /// A drain begins. Nothing follows the one with which the gateway ends.
    pub(super) fn drain(&mut self, order: Order) {
        let engine = &mut self.engine;
        if engine.is_draining() {
            return;
        }
        if order.last {
            let listeners = 0..engine.listeners.len();
            engine.ops.extend(listeners.map(|listener| Op::Unlisten { listener }));
        }
        let stays = |slot| engine.row(slot).backend || engine.conns[slot].flags.has(Flags::GONE);
        let clients = engine.conns.iter().filter(|(slot, _)| !stays(*slot));
        let clients = clients.map(|(slot, conn)| (conn.active_ms, engine.conns.id(slot))).collect();
        engine.drain.begin(order, clients, engine.now.ms, engine.seed as u64);
        self.see_off();
    }

    /// Says goodbye to the clients whose turn has come. Backends stay for the events.
    pub(super) fn see_off(&mut self) {
        if !self.engine.drain.is_on() {
            return;
        }
        let now_ms = self.engine.now.ms;
        while let Some(slot) = self.engine.drain.leaver(&mut self.engine.conns, now_ms) {
            let conn = &self.engine.conns[slot];
            let (kind, waits) = (conn.kind, conn.flags.has(Flags::WAITING));
            let engine = &mut self.engine;
            let client = !matches!(kind, kind::GREETING | kind::PROXY);
            engine.counters.clients_drained += u64::from(client);
            match kind {
                kind::GREETING | kind::PROXY => engine.finish(slot),
                _ if hook!(self.tenants, kind, drain(engine, slot), else false) => {}
                // What it has sent comes first; it is closed when it has read on.
                _ if waits || engine.keeps_input(slot) => self.hear_out(slot),
                _ => engine.close(slot, engine.drain.reason()),
            }
            self.settle();
        }
        while let Some(slot) = self.engine.drain.heard_out(&self.engine.conns, now_ms) {
            // Who waits for room is heard when there is some.
            match self.engine.conns[slot].flags.has(Flags::WAITING) {
                true => self.hear_out(slot),
                false => self.engine.close(slot, self.engine.drain.reason()),
            }
            self.settle();
        }
    }

    /// A client whose turn has come has some time for what it still has to say.
    fn hear_out(&mut self, slot: u32) {
        let engine = &mut self.engine;
        if engine.row(slot).drains {
            let time_ms = engine.settings.close_timeout.as_millis() as u64;
            engine.drain.hear_out(engine.conns.id(slot), engine.now.ms + time_ms);
        }
    }

    /// Closes every connection that is left, after what is queued for it.
    pub(super) fn stop(&mut self) {
        self.engine.stopping = true;
        for slot in self.engine.conns.iter().map(|(slot, _)| slot).collect::<Vec<_>>() {
            let conn = &self.engine.conns[slot];
            if conn.flags.has(Flags::GONE) {
                continue;
            }
            if conn.kind == kind::CONNMIX_API && conn.flags.has(Flags::WEBSOCKET) {
                // Nobody waits for the answers that are missing.
                self.engine.owes(slot, false);
                self.engine.close(slot, SHUTDOWN);
            }
            self.engine.hang_up(slot);
            self.settle();
        }
    }

    /// Gives the room in the workers' queues to the backlog, then to the clients that wait.
    pub(super) fn give_room(&mut self) {
        while let Some((worker, frame)) = self.engine.links.unkeep() {
            self.engine.send_event(worker, frame);
        }
        let sticky = self.engine.settings.workers.pick == WorkerPick::Sticky;
        let mut given = 0;
        for _ in 0..self.engine.waiting.len() {
            if self.engine.reading_left == 0 {
                // Nobody would use the room now, and each has its turn.
                given = GIVEN_PER_TURN;
                break;
            }
            let Some(id) = self.engine.waiting.pop_front() else { break };
            let Some(slot) = self.engine.conns.slot(id) else { continue };
            let flags = self.engine.conns[slot].flags;
            if flags.has(Flags::GONE) || !flags.has(Flags::WAITING) {
                continue;
            }
            if !self.engine.has_room(id, slot) {
                // Others may have another worker only if workers are sticky.
                if !sticky {
                    self.engine.waiting.push_front(id);
                    break;
                }
                self.engine.waiting.push_back(id);
                continue;
            }
            self.engine.conns[slot].flags.clear(Flags::WAITING);
            let kind = self.engine.conns[slot].kind;
            let engine = &mut self.engine;
            hook!(self.tenants, kind, worker_room(engine, slot), else engine.read_on(slot));
            // The next one finds what this one has left.
            self.settle_all();
            given += 1;
            if given == GIVEN_PER_TURN {
                break;
            }
        }
        self.engine.room_left = given == GIVEN_PER_TURN;
    }
}
