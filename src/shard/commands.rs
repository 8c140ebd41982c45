//! What backends ask for: commands find their shards, and are applied to the connections here
//! (netsvr sections 6.0, 6.3 to 6.6). How a push reaches its connections is in `fan_out`.

use std::sync::Arc;

use crate::hub::ConnId;
use crate::hub::push::{CloseReason, Command, Outcome, Payload, Target};
use crate::limits::GUEST_KICKS_WAITING_MAX;
use crate::metrics::DropReason;
use crate::shard::Shard;
use crate::shard::conns::Role;
use crate::shard::mailbox::Mail;

/// A command that waits for its time.
#[derive(Debug)]
pub(super) struct Job {
    /// The node that it is for, if that is another one.
    pub node: Option<u16>,
    pub command: Command,
}

/// A command by shard.
pub(super) enum Spread {
    One(u8, Command),
    /// None, if it names no connection that can exist.
    Parts(Vec<(u8, Command)>),
    /// The same for every shard.
    All(Arc<Command>),
}

impl Shard {
    /// Carries a command to every shard that it concerns, this one included.
    pub(super) fn dispatch(&mut self, command: Command) {
        if self.engine.mail.len() == 1 {
            self.apply(&command);
            return;
        }
        match self.spread(command) {
            Spread::One(shard, command) => self.dispatch_part(shard, command),
            Spread::Parts(parts) => {
                for (shard, command) in parts {
                    self.dispatch_part(shard, command);
                }
            }
            Spread::All(command) => {
                for shard in self.engine.others() {
                    self.engine.post(shard, Mail::Command(command.clone()));
                }
                self.apply(&command);
            }
        }
    }

    fn dispatch_part(&mut self, shard: u8, command: Command) {
        if shard == self.engine.id {
            self.apply(&command);
        } else {
            self.engine.post(shard, Mail::Part(command));
        }
    }

    /// What each of the shards is to do that a command concerns. Parts keep the order of the list.
    pub(super) fn spread(&self, command: Command) -> Spread {
        let shards = self.engine.mail.len();
        let conns = match command.conns() {
            None => return Spread::All(Arc::new(command)),
            Some([conn]) if usize::from(conn.shard()) < shards => {
                return Spread::One(conn.shard(), command);
            }
            Some(conns) => conns,
        };
        let mut parts: Vec<Vec<ConnId>> = vec![Vec::new(); shards];
        for conn in conns {
            // An id of a shard that does not exist names nobody.
            if let Some(part) = parts.get_mut(usize::from(conn.shard())) {
                part.push(*conn);
            }
        }
        let parts = (0u8..).zip(parts).filter(|(_, conns)| !conns.is_empty());
        Spread::Parts(parts.map(|(shard, conns)| (shard, command.part(conns))).collect())
    }

    /// Keeps a command for later (`ForceOfflineGuest` with a delay).
    pub(super) fn later(&mut self, delay_s: u32, job: Job) {
        if self.jobs.len() >= GUEST_KICKS_WAITING_MAX {
            if let Some(unsaid) = self.engine.complaints.allow(self.engine.now.ms) {
                tracing::warn!(GUEST_KICKS_WAITING_MAX, unsaid, "too many delayed kicks; dropped");
            }
            return self.engine.dropped(DropReason::TooManyJobs, 1);
        }
        let job = self.jobs.insert(job) as u32;
        self.job_timers.arm(job, self.engine.now.ms + delay_s as u64 * 1000);
    }

    /// Applies a command to the connections of this shard.
    pub(super) fn apply(&mut self, command: &Command) -> Outcome {
        match command {
            Command::Push { target, payloads } => {
                let mut outcome = Outcome::default();
                if let Target::Topics(topics) = target {
                    payloads.iter().for_each(|payload| self.im_published(topics, payload));
                }
                payloads.iter().for_each(|payload| outcome.add(self.push_to(target, payload)));
                outcome
            }
            Command::Update { conn, change, payload } => {
                let Some(slot) = self.engine.hub.slot_of(*conn) else { return Outcome::default() };
                self.engine.hub.change(slot, change);
                if let Some(payload) = payload {
                    self.push_all(&[slot], payload);
                }
                Outcome { done: 1, failed: 0 }
            }
            Command::Call { conn, call } => self.call(*conn, call),
            Command::DeleteTopics { topics, payload } => {
                let mut lost = Vec::new();
                topics.iter().for_each(|topic| self.engine.hub.delete_topic(topic, &mut lost));
                lost.sort_unstable();
                lost.dedup();
                if let Some(payload) = payload {
                    self.push_all(&lost, payload);
                }
                Outcome { done: lost.len() as u64, failed: 0 }
            }
            Command::Kick { target, payload, reason, guests_only } => {
                self.kick(target, payload.as_deref(), *reason, *guests_only)
            }
            Command::Room(message) => self.im_room(message),
            Command::Displace { conn, login } => self.xxim_displaced_elsewhere(*conn, login),
            Command::Replace(session) => Outcome { done: self.im_replace(session), failed: 0 },
        }
    }

    fn kick(
        &mut self,
        target: &Target,
        payload: Option<&Payload>,
        reason: CloseReason,
        guests_only: bool,
    ) -> Outcome {
        let mut slots = Vec::new();
        let mut outcome = Outcome::default();
        self.engine.hub.for_each(target, |slot| slots.push(slot));
        for slot in slots {
            // It was named twice, or went because of one before it.
            if self.engine.hub.id_of(slot).is_none() {
                continue;
            }
            let guest =
                self.engine.hub.user(slot).is_empty() && self.engine.hub.session(slot).is_empty();
            if guests_only && !guest {
                continue;
            }
            if let Some(payload) = payload {
                self.push_all(&[slot], payload);
            }
            self.send_away(slot, reason);
            outcome.done += 1;
        }
        outcome
    }

    /// Closes a client that a backend does not want any more, in the words of its protocol.
    fn send_away(&mut self, slot: u32, reason: CloseReason) {
        match self.engine.conns[slot].role {
            Role::Im(_) => self.im_kicked(slot, reason),
            _ => self.engine.close(slot, reason),
        }
    }
}
