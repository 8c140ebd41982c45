//! What arrives: from the shards, to be sent to other nodes, and from other nodes, to be carried
//! out by the shards.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use async_nats::{Event, Message, Subscriber};
use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;

use super::asks::{Asker, Over};
use super::claims::Claim;
use super::codec::{self, Lane, Part};
use super::link::{self, Sources};
use super::members::News;
use super::shards::Done;
use super::{Mesh, take_ready};
use crate::hub::push::{Command, Outcome};
use crate::lists::letters::{Mail, MeshRequest, Reach, Reply};
use crate::log::target;
use crate::wire::mesh::{self as wire, Body, Envelope, Hello, MeshError, proto};

/// Inputs of one kind that are taken before the next kind has its turn.
const ROUND_MAX: usize = 64;

/// Something to handle.
pub(super) enum Input {
    Event(Event),
    /// Which lane brought it, the bytes, and whether they are counted as inbound.
    Message(From, Bytes, bool),
    Request(MeshRequest),
}

/// Where a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    Hello,
    Replies,
    Lane(Lane),
}

/// Waits for something to handle, or until `due`. What says who is there and what it wants comes
/// first, then answers, then the rest: the link brings them in an order in which an answer never
/// comes before the change that it reports.
pub(super) async fn inputs(
    sources: &mut Sources,
    requests: &mut mpsc::UnboundedReceiver<MeshRequest>,
    due: Instant,
) -> Vec<Input> {
    // The timer counts whole milliseconds.
    let over = due <= Instant::now();
    let mut timer = pin!(tokio::time::sleep_until(due.into()));
    poll_fn(|cx| {
        let mut found = Vec::new();
        let mut some = |poll: &mut dyn FnMut() -> Poll<Option<Input>>| {
            take_ready(&mut found, ROUND_MAX, poll);
        };
        some(&mut || sources.events.poll_recv(cx).map(|event| event.map(Input::Event)));
        let subscribed: [(From, &mut Subscriber); 4] = [
            (From::Hello, &mut sources.hello),
            (From::Replies, &mut sources.replies),
            (From::Lane(Lane::Node(0)), &mut sources.requests),
            (From::Lane(Lane::All), &mut sources.all),
        ];
        for (from, source) in subscribed {
            let input = |message: Message| Input::Message(from, message.payload, false);
            some(&mut || pin!(&mut *source).poll_next(cx).map(|message| message.map(input)));
        }
        let input = |(bucket, bytes)| Input::Message(From::Lane(Lane::Bucket(bucket)), bytes, true);
        some(&mut || sources.buckets.poll_recv(cx).map(|message| message.map(input)));
        some(&mut || requests.poll_recv(cx).map(|r| r.map(Input::Request)));
        let timed_out = over || timer.as_mut().poll(cx).is_ready();
        match found.is_empty() && !timed_out {
            true => Poll::Pending,
            false => Poll::Ready(found),
        }
    })
    .await
}

impl Mesh {
    /// A shard says something.
    pub(super) fn request(&mut self, request: MeshRequest) {
        match request {
            MeshRequest::Turned { turns, .. } => self.turned(&turns),
            MeshRequest::Command { reach, command, reply, room } => {
                let parts = match reach {
                    Reach::Node(node) => vec![codec::whole(node, &command)],
                    Reach::Members => codec::parts(&command),
                };
                match reply {
                    None => self.send(parts, None, room),
                    Some((shard, number)) => self.ask(Asker { shard, number }, parts, room),
                }
            }
            MeshRequest::Replied { number, reply: Reply::Outcome(part) } => {
                if let Some(done) = self.shards.outcome(number, part) {
                    self.reply(done);
                }
            }
            MeshRequest::Replied { number, reply: Reply::Answer(part, next) } => {
                self.found(number, part, next.is_some());
            }
            // Shards say that to nobody.
            MeshRequest::Replied { reply: Reply::Elsewhere(..), .. } => {}
            MeshRequest::Ask { to, query, reply: (shard, number) } => {
                self.question(to, query, Asker { shard, number });
            }
            MeshRequest::Claim { login, conn, at_ms } => {
                if !self.claims.claim(Claim { login, conn, at_ms, again: false }) {
                    self.meters.dropped_full.increment(1);
                }
            }
            MeshRequest::Displaced { login, conn } => {
                self.shards.carry_out(Command::Displace { conn, login }, 0, 0, 0);
            }
            MeshRequest::Logins { logins, next } => self.compare(logins, next),
            MeshRequest::Call { method, body, answer } => self.call(method, body, answer),
            MeshRequest::Called { node, number, body } => self.called(node, number, body),
            MeshRequest::Stop => self.stopping = true,
        }
    }

    /// Asks every node that the parts concern, or answers at once that they can not be reached.
    fn ask(&mut self, asker: Asker, parts: Vec<Part>, room: usize) {
        self.meters.asked.increment(1);
        let outcome = Outcome::default();
        let reachable = self.link.is_up() && self.rival.is_none();
        let ask = if reachable { self.asks.begin(asker, Instant::now()) } else { None };
        let Some(ask) = ask else {
            self.settings.interest.release(room);
            let missing = parts.into_iter().flat_map(|part| {
                let nodes = self.members.expected(part.lane);
                nodes.into_iter().map(move |node| (node, part.name.clone()))
            });
            let missing = missing.collect();
            return self.answer(Over { asker, outcome, missing });
        };
        self.send(parts, Some(ask), room);
        if let Some(over) = self.asks.sent(ask) {
            self.answer(over);
        }
    }

    /// Sends what another node wants to hear, or may. `room` is given back when it is out.
    fn send(&mut self, parts: Vec<Part>, ask: Option<u64>, mut room: usize) {
        // Who will not answer: the number of the message, the node, members that count as failed.
        let mut silent: Vec<(u64, u16, u64)> = Vec::new();
        let reachable = self.link.is_up() && self.rival.is_none();
        if !reachable {
            self.meters.dropped_down.increment(parts.len() as u64);
        }
        for part in parts.into_iter().filter(|_| reachable) {
            let expected = self.members.expected(part.lane);
            if expected.is_empty()
                && (self.members.is_sure() || !matches!(part.lane, Lane::Bucket(_)))
            {
                continue;
            }
            let (nodes, name) = (expected.clone(), part.name.clone());
            let number = match ask {
                Some(ask) if !expected.is_empty() => self.asks.message(ask, expected, part.name),
                _ => 0,
            };
            let envelope = self.envelope(number, Body::Command(part.command));
            let bytes = wire::encode(&envelope);
            if bytes.len() > self.link.payload_max() {
                silent.extend(nodes.into_iter().map(|node| (number, node, 1)));
                self.too_large(bytes.len());
                continue;
            }
            for node in nodes.into_iter().filter(|node| self.members.stands_still(*node)) {
                silent.push((number, node, self.members.last_count(node, name.as_deref())));
            }
            let subject = match part.lane {
                Lane::Node(node) => self.subjects.node(node),
                Lane::Bucket(bucket) => link::subject(&self.subjects, bucket),
                Lane::All => self.subjects.all(),
            };
            self.link.publish(subject, bytes, std::mem::take(&mut room));
        }
        self.settings.interest.release(room);
        // Not before every message has its number, or the question would be over too early.
        for (number, node, failed) in silent {
            let outcome = Outcome { done: 0, failed };
            if let Some((_, Some(over))) = self.asks.answered(number, node, outcome) {
                self.answer(over);
            }
        }
    }

    /// The server would not take it: it counts as not answered.
    fn too_large(&mut self, bytes: usize) {
        self.meters.dropped_large.increment(1);
        if let Some(unsaid) = self.complain() {
            let max = self.link.payload_max();
            tracing::warn!(
                target: target::MESH,
                bytes, max, unsaid, "too large for NATS; raise its max_payload"
            );
        }
    }

    /// Splits nodes into those that will answer and those that stand still. The latter count as not
    /// answering.
    pub(super) fn who_answers(&mut self, nodes: &[u16]) -> Vec<u16> {
        let turns = |node: &&u16| !self.members.stands_still(**node);
        let answering: Vec<u16> = nodes.iter().filter(turns).copied().collect();
        if answering.len() < nodes.len() {
            self.meters.unanswered.increment(1);
            if let Some(unsaid) = self.complain() {
                tracing::warn!(
                    target: target::MESH,
                    ?nodes, ?answering, unsaid, "nodes of the mesh stand still"
                );
            }
        }
        answering
    }

    /// Answers a question of a shard; who has not answered counts as failed.
    pub(super) fn answer(&mut self, over: Over) {
        let Over { asker, mut outcome, missing } = over;
        for (node, name) in &missing {
            outcome.failed += self.members.last_count(*node, name.as_deref());
        }
        if !missing.is_empty() {
            self.meters.unanswered.increment(1);
            let mut nodes: Vec<u16> = missing.iter().map(|(node, _)| *node).collect();
            nodes.sort_unstable();
            nodes.dedup();
            if let Some(unsaid) = self.complain() {
                tracing::warn!(
                    target: target::MESH,
                    ?nodes, unsaid, "nodes of the mesh did not answer"
                );
            }
        }
        let reply = Reply::Outcome(outcome);
        self.shards.post(asker.shard.into(), Mail::Replied { number: asker.number, reply }, 0);
    }

    /// Answers a question of another node.
    fn reply(&mut self, done: Done) {
        if !self.link.is_up() {
            return;
        }
        let Outcome { done: queued, failed } = done.outcome;
        let reply = proto::Reply { done: queued, failed, ..Default::default() };
        let envelope = self.envelope(done.number, Body::Reply(reply));
        self.link.publish(self.subjects.reply(done.node), wire::encode(&envelope), 0);
    }

    /// The link brought a message.
    pub(super) fn received(&mut self, from: From, bytes: Bytes, counted: bool) {
        let len = bytes.len();
        if counted {
            self.inbound.fetch_sub(len, Ordering::Relaxed);
            self.questions.count_message();
        }
        self.meters.received.increment(1);
        self.meters.received_bytes.increment(len as u64);
        let taken = wire::decode(bytes).and_then(|(envelope, body)| {
            if u32::from(self.settings.node) == envelope.node {
                self.namesake(&envelope, &body);
                return Ok(());
            }
            match (self.rival.is_some(), from, body) {
                (true, ..) => Ok(()),
                (_, From::Hello, Body::Hello(hello)) => {
                    let taken = self.hello(&envelope, &hello);
                    self.meters.wanted.set(self.settings.interest.wanted());
                    taken
                }
                (_, From::Hello, Body::Buckets(buckets)) => {
                    if !self.members.buckets(&envelope, &buckets, &self.settings.interest) {
                        self.say_hello(true, false);
                    }
                    self.meters.wanted.set(self.settings.interest.wanted());
                    Ok(())
                }
                (_, From::Replies, Body::Reply(reply)) => {
                    self.replied(&envelope, &reply);
                    Ok(())
                }
                (_, From::Replies, Body::Piece(piece)) => {
                    self.piece(&envelope, piece);
                    Ok(())
                }
                (_, From::Lane(lane @ Lane::Node(_)), Body::Query(query)) => {
                    self.asked(&envelope, lane, query)
                }
                (_, From::Lane(lane), Body::Command(command)) => {
                    self.carry_out(&envelope, lane, command, len)
                }
                (_, From::Lane(Lane::All), Body::Call(call)) => self.serve_call(&envelope, call),
                _ => Err(MeshError::Wrong("this does not belong to its subject")),
            }
        });
        if let Err(error) = taken {
            self.meters.dropped_invalid.increment(1);
            if let Some(unsaid) = self.complain() {
                tracing::warn!(
                    target: target::MESH,
                    %error, unsaid, "a message of the mesh is not understood"
                );
            }
        }
    }

    fn hello(&mut self, envelope: &Envelope, hello: &Hello) -> Result<(), MeshError> {
        let interest = &self.settings.interest;
        let node = u16::try_from(envelope.node).unwrap_or_default();
        let before = self.members.stands_still(node);
        let news = self.members.hello(envelope, hello, Instant::now(), interest)?;
        match (before, self.members.stands_still(node)) {
            (false, true) => {
                tracing::warn!(target: target::MESH, node, "a node of the mesh stands still")
            }
            (true, false) => {
                tracing::info!(
                    target: target::MESH,
                    node, "a node of the mesh stands still no more"
                )
            }
            _ => {}
        }
        if news != News::Stays {
            let (node, version) = (envelope.node, &*hello.program_version);
            match news {
                News::Came => {
                    tracing::info!(
                        target: target::MESH,
                        node, version, "a node of the mesh has come"
                    );
                    if std::mem::take(&mut self.lost_nodes) {
                        self.recheck_logins();
                    }
                }
                _ => tracing::info!(target: target::MESH, node, "a node of the mesh has left"),
            }
        }
        self.nodes_changed();
        if hello.asks {
            self.say_hello(false, false);
        }
        Ok(())
    }

    /// Somebody has the number of this node.
    fn namesake(&mut self, envelope: &Envelope, body: &Body) {
        let Body::Hello(hello) = body else { return };
        if envelope.instance == self.instance {
            return;
        }
        if (hello.started_ms, envelope.instance) > (self.started_ms, self.instance) {
            // It is younger: let it know.
            return self.say_hello(false, false);
        }
        if hello.leaves {
            self.rival = None;
            return self.members.tell(&self.settings.interest);
        }
        let addresses = hello.addresses.iter().map(|address| address.address.as_str());
        let known = addresses.filter(|address| address.parse::<SocketAddr>().is_ok());
        let at = known.collect::<Vec<_>>().join(", ");
        if self.rival.is_none() {
            tracing::error!(
                target: target::MESH,
                node = self.settings.node,
                at,
                "another node has this number and is older; this one stays out of the mesh"
            );
        }
        self.rival = Some((at, Instant::now()));
        self.settings.interest.set_nodes(0, false);
    }

    fn replied(&mut self, envelope: &Envelope, reply: &proto::Reply) {
        if self.call_answered(envelope, &reply.body) {
            return;
        }
        let outcome = Outcome { done: reply.done, failed: reply.failed };
        let node = envelope.node as u16;
        let Some((name, over)) = self.asks.answered(envelope.number, node, outcome) else { return };
        if let Some(name) = name {
            self.members.count(node, &name, outcome.done.saturating_add(outcome.failed));
        }
        if let Some(over) = over {
            self.answer(over);
        }
    }

    /// A command of another node.
    fn carry_out(
        &mut self,
        envelope: &Envelope,
        lane: Lane,
        command: proto::Command,
        bytes: usize,
    ) -> Result<(), MeshError> {
        if !self.members.knows(envelope) {
            // It has announced itself before this, but not to us: its bits come with the answer.
            self.say_hello(true, false);
        } else if !self.members.takes(envelope, lane) {
            self.meters.dropped_repeated.increment(1);
            return Ok(());
        }
        let (node, number) = (envelope.node as u16, envelope.number);
        if self.shards.is_full() {
            self.meters.dropped_full.increment(1);
            if number != 0 {
                self.reply(Done { node, number, outcome: Outcome { done: 0, failed: 1 } });
            }
            return Ok(());
        }
        let command: Command = codec::decode(command)?;
        if let Some(done) = self.shards.carry_out(command, bytes, node, number) {
            self.reply(done);
        }
        Ok(())
    }
}
