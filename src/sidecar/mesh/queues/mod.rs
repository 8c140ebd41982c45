//! Queue topics of a cluster (connmix section 3 over several machines), in JetStream.
//!
//! One thread with a NATS connection of its own, so that neither the mesh nor anything local waits
//! for it. All topics of a cluster are one work-queue stream with a subject and a consumer each,
//! which the nodes share. `pushes` brings to the stream what clients push; `supplies` fetches
//! what homes of topics want, and acknowledges it when it is written to a consumer's socket.
//!
//! * **A push is accepted** when JetStream has stored it. Until then it takes room in
//!   [`crate::hub::queues::Room`], and is lost if this process dies.
//! * **At least once.** An accepted message stays in JetStream until a node acknowledges it as
//!   written. A node that dies, or loses its link, or says nothing for `QUEUE_ACK_TIME`, loses its
//!   messages to another one: what it had written and not acknowledged is delivered twice, and so
//!   is what it goes on delivering while it has no link. So does a shard that stands still.
//! * **Without a link** pushes wait or are refused, and consumers keep their connections.
//!   Afterwards everything is asked for, sent and acknowledged again; JetStream knows repeated
//!   pushes by their number for `QUEUE_REPEAT_TIME`.
//!
//! Order: of one client to one topic as pushed; of a topic as JetStream stored it, except for what
//! is delivered again. Costs: two messages to NATS per push and per delivery.

mod meters;
mod names;
mod nats;
mod pushes;
mod supplies;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_nats::{Client, Event, Message};
use bytes::Bytes;
use serde_json::Value;
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use super::shards::Shards;
use super::{LOG_INTERVAL_MS, MAILBOX_PAUSE, MeshStartError};
use crate::config::model;
use crate::hub::queues::{Queues, Room};
use crate::life::{Heart, Life, shard_name};
use crate::limits::QUEUE_ANSWER_TIME;
use crate::lists::letters::{Mail, QueueMail, QueueRequest};
use crate::log::{Every, target};
use crate::mail::MailSender;
use crate::metrics::Registry;
use crate::protocols::connmix::config::Queue;
use crate::spare::Look;
use meters::Meters;
use names::{About, Names, Refusal, Stored, answer};
use nats::{Input, Out, Sources, Writer};
use pushes::{Pushes, Settled};
use supplies::{Supplied, Supplies};

/// Name of the thread; metrics show its CPU time under it.
pub const THREAD: &str = "queues";
/// Between two looks at the clock, while something waits for JetStream and while nothing does.
const TICK_MS: u64 = 20;
const IDLE_TICK_MS: u64 = 500;
/// Between two questions for the stream, while it is there and while it is not.
const INFO_MS: u64 = 5_000;
const AGAIN_MS: u64 = 500;
/// What a publish has beside its event: the number by which JetStream knows it.
const HEADER_BYTES: usize = 80;
/// `Status` of messages of the server: no consumer, nobody listens.
const CONFLICT: u16 = 409;
const NO_RESPONDERS: u16 = 503;
const HEARTBEAT: u16 = 100;

/// What the thread needs to know.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    pub mesh: model::Mesh,
    pub node: u16,
    pub queue: Queue,
    /// Shared with the shards.
    pub room: Arc<Room>,
    pub life: Life,
}

/// Starts the thread, which ends at [`QueueRequest::Stop`]. Fails if the settings of NATS can not
/// be used; a server that does not answer is waited for.
pub fn start(
    settings: QueueSettings,
    requests: mpsc::UnboundedReceiver<QueueRequest>,
    shards: Vec<MailSender<Mail>>,
    registry: &Registry,
) -> Result<JoinHandle<()>, MeshStartError> {
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
    let runtime = runtime.map_err(MeshStartError::Thread)?;
    let (worker, sources) = runtime
        .block_on(Worker::new(settings, requests, shards, registry))
        .map_err(MeshStartError::Settings)?;
    let life = worker.life.clone();
    let run = move |heart| {
        runtime.block_on(worker.run(sources, heart));
        // Dropping it would wait for name lookups.
        runtime.shutdown_background();
    };
    life.spawn(THREAD, &[], run).map_err(MeshStartError::Thread)
}

/// See the module.
struct Worker {
    queue: Queue,
    room: Arc<Room>,
    life: Life,
    client: Client,
    writer: Writer,
    names: Names,
    meters: Meters,
    started: Instant,
    /// Begins the numbers of this process's pushes.
    instance: u64,
    pushes: Pushes,
    supplies: Supplies,
    shards: Shards,
    shard_count: usize,
    linked: bool,
    /// The stream is there.
    stream: bool,
    /// When the stream was last asked for.
    info_ms: u64,
    /// What was last heard of it.
    stored: Stored,
    tick_ms: u64,
    /// Of this round: for NATS, for homes, topics that may want more.
    out: Vec<Out>,
    supplied: Vec<Supplied>,
    touched: BTreeSet<Box<str>>,
    complaints: Every,
    /// Until when what is under way may still be finished.
    stops: Option<Instant>,
}

impl Worker {
    async fn new(
        settings: QueueSettings,
        requests: mpsc::UnboundedReceiver<QueueRequest>,
        shards: Vec<MailSender<Mail>>,
        registry: &Registry,
    ) -> Result<(Worker, Sources), String> {
        let QueueSettings { mesh, node, queue, room, life } = settings;
        let (client, inbox, events) = nats::connect(&mesh, node).await?;
        let names = Names::new(&mesh.cluster, inbox);
        let (writer, sources) = nats::open(&client, &names, events, requests).await?;
        let messages_max = queue.topic_messages_max.into();
        let bytes_max = mesh.queue_bytes_max;
        let shard_count = shards.len();
        let worker = Worker {
            pushes: Pushes::new(queue.full, room.clone()),
            supplies: Supplies::new(bytes_max, shards.len()),
            shards: Shards::new(shards, Arc::new(AtomicUsize::new(0)), bytes_max),
            shard_count,
            queue,
            room,
            life,
            client,
            writer,
            names,
            meters: Meters::new(registry),
            started: Instant::now(),
            instance: fastrand::u64(..),
            linked: false,
            stream: false,
            info_ms: 0,
            stored: Stored { messages: 0, messages_max },
            tick_ms: 0,
            out: Vec::new(),
            supplied: Vec::new(),
            touched: BTreeSet::new(),
            complaints: Every::new(LOG_INTERVAL_MS),
            stops: None,
        };
        Ok((worker, sources))
    }

    async fn run(mut self, mut sources: Sources, heart: Heart) {
        while !self.is_over() {
            heart.beat();
            self.look_at_homes();
            let due = self.due();
            for input in nats::inputs(&mut sources, due).await {
                match input {
                    Input::Event(event) => self.event(&event),
                    Input::Message(message) => self.message(&message),
                    Input::Request(request) => self.request(request),
                }
            }
            self.tick();
            self.flush();
        }
        let lost = self.pushes.len();
        if lost > 0 {
            self.meters.dropped_unstored.increment(lost as u64);
            tracing::warn!(
                target: target::QUEUES,
                lost, "JetStream did not store these pushes before the end"
            );
        }
        self.writer.close().await;
    }

    /// What is held for a home that stands still is no longer held for it.
    fn look_at_homes(&mut self) {
        let still = |shard: &usize| self.life.is_still(&shard_name(*shard));
        self.supplies.still = match self.life.stands_still() {
            Some(_) => (0..self.shard_count).filter(still).collect(),
            None => Vec::new(),
        };
    }

    /// Whether the process ends and nothing is left to do, or no time.
    fn is_over(&self) -> bool {
        let done = self.pushes.len() == 0 && self.supplies.is_settled();
        self.stops.is_some_and(|until| done || until <= Instant::now())
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn is_ready(&self) -> bool {
        self.linked && self.stream
    }

    /// When something is to be done without any input.
    fn due(&self) -> Instant {
        let tick_ms = if self.pushes.len() == 0 { IDLE_TICK_MS } else { TICK_MS };
        let mut due = Instant::now() + Duration::from_millis(tick_ms);
        if self.shards.is_behind() {
            due = due.min(Instant::now() + MAILBOX_PAUSE);
        }
        if let Some(until) = self.stops {
            due = due.min(until);
        }
        due
    }

    fn request(&mut self, request: QueueRequest) {
        let now_ms = self.now_ms();
        match request {
            QueueRequest::Push { from, topic, messages } => {
                let messages_max = self.stored.messages_max;
                for push in messages {
                    self.pushes.push(from, &topic, push, messages_max, now_ms);
                }
            }
            QueueRequest::Report(report) => {
                let token = self.supplies.report(report, &self.names, now_ms, &mut self.out);
                self.touched.insert(token);
            }
            QueueRequest::Stop => {
                self.stops = Some(Instant::now() + QUEUE_ANSWER_TIME);
                self.supplies.give_up(&mut self.out);
            }
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Connected => {
                self.linked = true;
                // The largest message must fit, or it would never come.
                let least = 2 * self.client.max_payload();
                self.supplies.pull_bytes = self.supplies.pull_bytes.max(least);
                self.pushes.lost();
                self.supplies.linked(self.now_ms());
                self.ask_for_stream();
            }
            Event::Disconnected => {
                self.linked = false;
                self.stream = false;
                tracing::warn!(
                    target: target::QUEUES,
                    "the link of the queues to NATS is lost; pushes are not stored"
                );
            }
            other => {
                if let Some(unsaid) = self.complain() {
                    tracing::warn!(target: target::QUEUES, %other, unsaid, "NATS, for the queues");
                }
            }
        }
    }

    /// JetStream has said something.
    fn message(&mut self, message: &Message) {
        let now_ms = self.now_ms();
        let body = &message.payload;
        let Some(about) = self.names.about(&message.subject) else {
            let Some(token) = self.names.token(&message.subject) else { return };
            let Some(ack) = &message.reply else { return };
            let supplied = self.supplies.message(token, ack, body, now_ms, &mut self.out);
            self.supplied.extend(supplied);
            if !self.touched.contains(token) {
                self.touched.insert(token.into());
            }
            return;
        };
        let status = message.status.map(|status| status.as_u16());
        if let About::Pull(token, number) = about {
            return self.pull_ended(token, number, status, message.description.as_deref());
        }
        let result = match status {
            Some(NO_RESPONDERS) => Err(Refusal::NoStream),
            // Confirmations are empty.
            _ if body.is_empty() => Ok(Value::Null),
            _ => answer(body),
        };
        if result == Err(Refusal::NoStream) && std::mem::replace(&mut self.stream, false) {
            self.info_ms = now_ms.saturating_sub(INFO_MS);
        }
        match about {
            About::Push(number) => self.pushes.answered(number, result.map(drop), now_ms),
            About::Pull(..) => {}
            About::Done(token, place) => self.supplies.confirmed(&token, place),
            About::Consumer(token) => {
                self.complain_of(&result, "a consumer of a queue topic can not be made");
                self.supplies.consumer(&token, result.is_ok(), now_ms);
                self.touched.insert(token);
            }
            About::Oldest(token) => self.oldest_told(token, result),
            About::Removed(token, _) => match result {
                Ok(_) => self.pushes.room(&token, true),
                // Somebody was faster.
                Err(Refusal::NoMessage) => self.pushes.room(&token, false),
                Err(_) => {
                    self.complain_of(&result, "the oldest message of a queue can not be removed");
                    self.pushes.no_room(&token, now_ms);
                }
            },
            About::Info | About::Made => self.stream_told(&about, result),
        }
    }

    fn pull_ended(
        &mut self,
        token: Box<str>,
        number: u64,
        status: Option<u16>,
        description: Option<&str>,
    ) {
        let Some(status) = status.filter(|status| *status != HEARTBEAT) else { return };
        let says = |word| description.is_some_and(|text| text.contains(word));
        let gone = status == NO_RESPONDERS || (status == CONFLICT && says("Deleted"));
        self.supplies.pull_ended(&token, number, gone);
        // Its time is over, or it has brought enough bytes. After anything else the next tick is
        // early enough.
        if status < CONFLICT || says("MaxBytes") {
            self.touched.insert(token);
        }
    }

    /// What JetStream says of the stream.
    fn stream_told(&mut self, about: &About, result: Result<Value, Refusal>) {
        match result {
            Ok(answer) => {
                self.stored = names::stored(&answer);
                self.meters.stored.set(self.stored.messages as f64);
                if !std::mem::replace(&mut self.stream, true) {
                    tracing::info!(
                        target: target::QUEUES,
                        stream = self.names.stream(), "queue topics are in JetStream"
                    );
                    self.tick_ms = self.now_ms().saturating_sub(IDLE_TICK_MS);
                }
                if let Some((subject, body)) = self.names.raise(&self.queue, &answer) {
                    let reply = self.names.reply(&About::Made);
                    self.out.push(Out::say(subject, Some(reply), body));
                }
            }
            Err(Refusal::NoStream) if *about == About::Info => {
                let (subject, body) = self.names.create(&self.queue);
                self.out.push(Out::say(subject, Some(self.names.reply(&About::Made)), body));
            }
            refused => {
                let what = "JetStream has no stream for queue topics; is it switched on (-js)?";
                self.complain_of(&refused, what);
            }
        }
    }

    /// The oldest message of a topic is to make room.
    fn oldest_told(&mut self, token: Box<str>, result: Result<Value, Refusal>) {
        match result.as_ref().map(names::number) {
            Ok(Some(number)) => {
                let (subject, body) = self.names.remove(number);
                let reply = self.names.reply(&About::Removed(token, number));
                self.out.push(Out::say(subject, Some(reply), body));
            }
            Err(Refusal::NoMessage) => self.pushes.room(&token, false),
            _ => {
                self.complain_of(&result, "the oldest message of a queue can not be found");
                let now_ms = self.now_ms();
                self.pushes.no_room(&token, now_ms);
            }
        }
    }

    fn ask_for_stream(&mut self) {
        self.info_ms = self.now_ms();
        let reply = Some(self.names.reply(&About::Info));
        self.out.push(Out::say(self.names.info(), reply, Bytes::new()));
    }

    /// Does what is due.
    fn tick(&mut self) {
        let now_ms = self.now_ms();
        if self.shards.is_behind() {
            self.shards.catch_up();
        }
        self.pushes.tick(now_ms);
        let pause = if self.stream { INFO_MS } else { AGAIN_MS };
        if self.linked && now_ms >= self.info_ms + pause {
            self.ask_for_stream();
        }
        if now_ms < self.tick_ms + IDLE_TICK_MS {
            return;
        }
        self.tick_ms = now_ms;
        let mut look = Look::default();
        self.pushes.give_back(&mut look);
        self.supplies.give_back(&mut look);
        self.shards.give_back(&mut look);
        if self.is_ready() {
            self.supplies.tick(&self.names, now_ms, &mut self.out);
        }
        let meters = &self.meters;
        meters.connected.set(f64::from(u8::from(self.linked && self.stream)));
        meters.unstored.set(self.pushes.len() as f64);
        meters.unstored_bytes.set(self.room.taken() as f64);
        let (held, held_bytes) = self.supplies.held();
        meters.held.set(held as f64);
        meters.held_bytes.set(held_bytes as f64);
        let tally = self.supplies.tally;
        meters.taken.absolute(tally.taken);
        meters.redelivered.absolute(tally.redelivered);
        meters.repeated.absolute(tally.repeated);
        meters.returned.absolute(tally.returned);
        meters.acknowledged.absolute(tally.acknowledged);
        meters.dropped_invalid.absolute(tally.invalid);
    }

    /// Ends a round: everything that it led to goes out.
    fn flush(&mut self) {
        let now_ms = self.now_ms();
        if self.is_ready() {
            self.publish(now_ms);
            for token in std::mem::take(&mut self.touched) {
                self.supplies.advance(&token, &self.names, now_ms, &mut self.out);
            }
        }
        self.meters.dropped_oldest.increment(self.pushes.take_dropped());
        self.writer.write(&mut self.out);
        for Settled { from, topic, count, outcomes } in self.pushes.take_settled() {
            let mail = QueueMail::Settled { topic, count, outcomes };
            self.shards.post(from.into(), Mail::Queue(mail), 0);
        }
        self.hand_over();
    }

    fn publish(&mut self, now_ms: u64) {
        let payload_max = self.client.max_payload();
        while let Some(publish) = self.pushes.next(now_ms) {
            if publish.event.len() + HEADER_BYTES > payload_max {
                self.pushes.too_large(publish.number);
                continue;
            }
            let subject = self.names.subject(&publish.token);
            let reply = self.names.reply(&About::Push(publish.number));
            let id = format!("{:x}-{:x}", self.instance, publish.number);
            self.out.push(Out::Store { subject, reply, id, payload: publish.event });
        }
        for token in self.pushes.full_topics(now_ms) {
            let (subject, body) = self.names.oldest(&token);
            let reply = self.names.reply(&About::Oldest(token));
            self.out.push(Out::say(subject, Some(reply), body));
        }
    }

    /// Mails what has come to the homes of its topics, one letter per run of a topic.
    fn hand_over(&mut self) {
        let mut supplied = std::mem::take(&mut self.supplied).into_iter().peekable();
        while let Some(Supplied { topic, number, event }) = supplied.next() {
            let mut bytes = event.len();
            let mut messages = vec![(number, event)];
            while let Some(next) = supplied.next_if(|next| next.topic == topic) {
                bytes += next.event.len();
                messages.push((next.number, next.event));
            }
            let home = Queues::home(&topic, self.shard_count);
            let mail = Mail::Queue(QueueMail::Supplied { topic, messages });
            self.shards.post(home.into(), mail, bytes);
        }
    }

    fn complain_of(&mut self, result: &Result<Value, Refusal>, what: &str) {
        let Err(refusal) = result else { return };
        if let Some(unsaid) = self.complain() {
            tracing::warn!(target: target::QUEUES, ?refusal, unsaid, "{what}");
        }
    }

    /// Whether a line may be logged now, and how many were not.
    fn complain(&mut self) -> Option<u64> {
        self.complaints.allow(self.started.elapsed().as_millis() as u64)
    }
}
