//! The mesh: several machines as one gateway, over NATS (connmix sections 4, 5 and 8.2; xxim
//! section 6).
//!
//! One thread with one tokio runtime of its own, beside the sidecar's: what arrives from other
//! nodes never waits for an upstream or a login, and within one thread the order in which the link
//! brings messages can be kept. Shards hand a command over and go on; they read two shared maps
//! ([`Interest`]) to know whether anybody elsewhere wants it, so that what stays local costs a bit.
//!
//! * **Addressing.** A connection of another node is reached through the subject of its node. What
//!   is for topics and users goes to the subject of their bucket, and a node listens to a bucket
//!   while it has a member in it. Names are hashed onto buckets because NATS then holds at most
//!   8,192 subscriptions per node, however many topics there are.
//! * **Who wants what** is told twice: to NATS by the subscription, which decides what is carried,
//!   and to the other nodes by a bit, so that they know whom to expect an answer from and need not
//!   publish what nobody wants. Both leave on one connection, in this order and before what this
//!   node sends later: whom another node tells that a subscribe is done here reaches the new member
//!   from there. Whoever is told by this node may be faster than NATS. After a reconnect bits are
//!   in doubt until their node has said them anew; meanwhile everything is published.
//! * **One link.** All of this leaves by one connection to NATS. Several would have to wait for
//!   each other wherever a subscription and the word of it, or a command and a question behind it,
//!   went different ways: a round trip per new bucket instead of none. One carries 200,000
//!   publishes per second with half of this thread, which would serve the others as well.
//! * **Answers.** A command whose outcome is wanted carries a number; every node that has a bit for
//!   it answers with what its shards queued. Who does not answer within two seconds counts as
//!   failed with the last number of members it told, at least one, and is named in the log.
//! * **Questions** about connections, users and topics go to the subject of each node that they
//!   concern and are answered in pieces; who has not answered completely in two seconds is left out
//!   of the answer and named in the log.
//! * **No message twice.** NATS delivers at most once; besides, each envelope has a sequence, and
//!   of each lane (bucket, node, all) a node takes only later ones. A request that failed for want
//!   of an answer may still have been carried out.
//! * **Two nodes of one number.** The one that started later refuses to start. If they meet only
//!   later (they started without a link), the younger stays out of the mesh, serves its own
//!   clients, and says so in the log until the other has gone.
//!
//! Order: what one node publishes to one topic or user arrives in order, and what it sends to one
//! node; between these there is no order. Costs: an envelope is encoded once per bucket that it
//! names; a received one is one message per shard.

mod asks;
mod calls;
mod claims;
mod codec;
mod finds;
mod link;
mod members;
mod meters;
mod questions;
pub mod queues;
mod serve;
mod shards;
mod wants;

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::Event;
use tokio::runtime::Builder;
use tokio::sync::mpsc;

use crate::allocator;
use crate::config::model;
use crate::hub::mesh::Interest;
use crate::life::{Heart, Life};
use crate::limits::{MESH_FORGET_TIME, MESH_HELLO_INTERVAL, MESH_JOIN_TIME};
use crate::lists::letters::{Mail, MeshCall, MeshRequest};
use crate::log::{Every, target};
use crate::mail::{MailSender, UnboundedSender};
use crate::metrics::Registry;
use crate::spare::Look;
use crate::wire::mesh::{self as wire, Body, Envelope, Hello, Subjects};
use asks::Asks;
use calls::Calls;
use claims::{Claims, Recheck};
use link::{Link, Sources};
use members::Members;
use meters::Meters;
use questions::Questions;
use serve::Input;
use shards::Shards;
use wants::Wants;

/// Name of the thread; metrics show its CPU time under it.
pub const THREAD: &str = "mesh";
/// How long a start waits for the link; without one the node serves its own clients.
const LINK_TIME: Duration = Duration::from_secs(2);
/// What a node that ends gives its last words.
const CLOSE_TIME: Duration = Duration::from_millis(500);
/// The longest time without a turn.
const TURN_TIME: Duration = Duration::from_secs(1);
/// Pause before mail to a full mailbox is tried again.
const MAILBOX_PAUSE: Duration = Duration::from_millis(1);
const LOG_INTERVAL_MS: u64 = 1000;

/// What the mesh needs to know of this node.
#[derive(Clone, Debug)]
pub struct MeshSettings {
    pub mesh: model::Mesh,
    pub node: u16,
    /// What it listens for and where.
    pub addresses: Vec<(&'static str, SocketAddr)>,
    /// The address in its uniqIds.
    pub netsvr: SocketAddrV4,
    pub slots_max: u32,
    /// Where the rotation of its public ids begins.
    pub ids_start: u32,
    /// Shared with the shards.
    pub interest: Arc<Interest>,
    /// Where calls of other nodes go, to be answered by [`MeshRequest::Called`].
    pub calls: mpsc::Sender<MeshCall>,
    /// The way to this very mesh, for what its tasks find out.
    pub sender: UnboundedSender<MeshRequest>,
    pub life: Life,
}

/// Why a node can not be part of the mesh.
#[derive(Debug, thiserror::Error)]
pub enum MeshStartError {
    #[error("{0}")]
    Settings(String),
    #[error("the thread of the mesh can not start: {0}")]
    Thread(std::io::Error),
    #[error(
        "node {node} is in the mesh `{cluster}` already, at {at}; give this machine another \
         `node` (1 to 1023), or end the other one"
    )]
    Taken { node: u16, cluster: String, at: String },
}

/// Joins the mesh and starts its thread, which ends at [`MeshRequest::Stop`]. Takes up to half a
/// second to see whether the number of the node is free; without a link it goes on after two and
/// joins later.
pub fn start(
    settings: MeshSettings,
    requests: mpsc::UnboundedReceiver<MeshRequest>,
    shards: Vec<MailSender<Mail>>,
    registry: Arc<Registry>,
) -> Result<JoinHandle<()>, MeshStartError> {
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
    let runtime = runtime.map_err(MeshStartError::Thread)?;
    let (mut mesh, mut sources) = runtime
        .block_on(Mesh::new(settings, shards, registry))
        .map_err(MeshStartError::Settings)?;
    let mut requests = requests;
    if let Err(error) = runtime.block_on(mesh.join(&mut sources, &mut requests)) {
        // Subscriptions end in the context of their runtime.
        let _context = runtime.enter();
        drop((mesh, sources));
        return Err(error);
    }
    let life = mesh.settings.life.clone();
    let run = move |heart| {
        runtime.block_on(mesh.run(sources, requests, heart));
        // Dropping it would wait for name lookups.
        runtime.shutdown_background();
    };
    life.spawn(THREAD, &[], run).map_err(MeshStartError::Thread)
}

/// Appends what a source has ready, `most` of it.
fn take_ready<T>(found: &mut Vec<T>, most: usize, poll: &mut dyn FnMut() -> Poll<Option<T>>) {
    for _ in 0..most {
        match poll() {
            Poll::Ready(Some(input)) => found.push(input),
            _ => return,
        }
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// See the module.
struct Mesh {
    settings: MeshSettings,
    subjects: Subjects,
    link: Link,
    registry: Arc<Registry>,
    meters: Arc<Meters>,
    instance: u64,
    started: Instant,
    started_ms: u64,
    sequence: u64,
    members: Members,
    wants: Wants,
    asks: Asks,
    calls: Calls,
    questions: Questions,
    claims: Claims,
    /// Logins are being compared with those of other nodes.
    recheck: Option<Recheck>,
    /// A node was forgotten because it was silent: when one comes back, logins are compared.
    lost_nodes: bool,
    shards: Shards,
    shard_count: usize,
    /// Bytes that came from the link and are not handled.
    inbound: Arc<AtomicUsize>,
    /// Another node with this number that started earlier: where it is, and when it was heard.
    rival: Option<(String, Instant)>,
    /// Whether there has been a link.
    linked: bool,
    hello_at: Instant,
    complaints: Every,
    stopping: bool,
    /// A thread of this node stands still.
    still: bool,
}

impl Mesh {
    async fn new(
        settings: MeshSettings,
        shards: Vec<MailSender<Mail>>,
        registry: Arc<Registry>,
    ) -> Result<(Mesh, Sources), String> {
        let meters = Arc::new(Meters::new(&registry));
        let inbound = Arc::new(AtomicUsize::new(0));
        let (link, sources) = Link::new(
            &settings.mesh,
            settings.node,
            settings.interest.clone(),
            inbound.clone(),
            meters.clone(),
        )
        .await?;
        let (cluster, own) = (&settings.mesh.cluster, &settings.sender);
        let claims = Claims::start(link.client(), cluster, settings.node, own);
        let shard_count = shards.len();
        let mesh = Mesh {
            subjects: Subjects::new(&settings.mesh.cluster),
            link,
            registry,
            meters,
            instance: fastrand::u64(1..),
            started: Instant::now(),
            started_ms: unix_ms(),
            sequence: 0,
            members: Members::default(),
            wants: Wants::new(),
            asks: Asks::new(fastrand::u64(..)),
            calls: Calls::default(),
            questions: Questions::default(),
            claims,
            recheck: None,
            lost_nodes: false,
            shards: Shards::new(shards, inbound.clone(), settings.mesh.queue_bytes_max),
            shard_count,
            inbound,
            rival: None,
            linked: false,
            hello_at: Instant::now(),
            complaints: Every::new(LOG_INTERVAL_MS),
            stopping: false,
            still: false,
            settings,
        };
        Ok((mesh, sources))
    }

    /// Waits for the link and listens for another node of this number.
    async fn join(
        &mut self,
        sources: &mut Sources,
        requests: &mut mpsc::UnboundedReceiver<MeshRequest>,
    ) -> Result<(), MeshStartError> {
        let mut until = Instant::now() + LINK_TIME;
        let mut listening = false;
        while Instant::now() < until && self.rival.is_none() {
            let inputs = serve::inputs(sources, requests, until).await;
            self.take(inputs);
            if self.linked && !listening {
                listening = true;
                until = Instant::now() + MESH_JOIN_TIME;
            }
        }
        if !self.linked {
            let servers = self.settings.mesh.nats.len();
            tracing::warn!(
                target: target::MESH,
                servers, "no NATS server answers; the mesh is joined when one does"
            );
        }
        match self.rival.take() {
            None => Ok(()),
            Some((at, _)) => {
                let (node, cluster) = (self.settings.node, self.settings.mesh.cluster.clone());
                Err(MeshStartError::Taken { node, cluster, at })
            }
        }
    }

    async fn run(
        mut self,
        mut sources: Sources,
        mut requests: mpsc::UnboundedReceiver<MeshRequest>,
        heart: Heart,
    ) {
        while !self.stopping {
            heart.beat();
            let due = self.due();
            if self.questions.wait() {
                // What came before them for buckets moves into its inbox.
                tokio::task::yield_now().await;
                self.questions.await_messages(sources.buckets.len());
            }
            let inputs = serve::inputs(&mut sources, &mut requests, due).await;
            self.take(inputs);
            self.ask_shards();
            self.tick();
        }
        self.say_hello(false, true);
        self.link.close(CLOSE_TIME).await;
    }

    /// When something is to be done without any input.
    fn due(&self) -> Instant {
        let mut due = self.hello_at.min(Instant::now() + TURN_TIME);
        let asks = [self.asks.due(), self.calls.due(), self.questions.due(), self.recheck_due()];
        for ask in asks.into_iter().flatten() {
            due = due.min(ask);
        }
        if self.questions.wait() {
            due = Instant::now();
        }
        if self.shards.is_behind() {
            due = due.min(Instant::now() + MAILBOX_PAUSE);
        }
        due
    }

    fn take(&mut self, inputs: Vec<Input>) {
        for input in inputs {
            match input {
                Input::Event(event) => self.event(&event),
                Input::Message(from, bytes, counted) => self.received(from, bytes, counted),
                Input::Request(request) => self.request(request),
            }
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        if self.shards.is_behind() {
            self.shards.catch_up();
        }
        while let Some(over) = self.asks.expired(now) {
            self.answer(over);
        }
        self.expire_calls(now);
        self.expire_questions(now);
        self.recheck(now);
        self.say_whether_it_turns();
        if now < self.hello_at {
            return;
        }
        self.hello_at = now + MESH_HELLO_INTERVAL;
        if self.rival.as_ref().is_some_and(|(_, heard)| now - *heard > MESH_FORGET_TIME) {
            self.rival = None;
            tracing::info!(
                target: target::MESH,
                node = self.settings.node, "the number of this node is free again"
            );
            self.members.tell(&self.settings.interest);
        }
        let gone = self.members.forget(now, &self.settings.interest);
        for node in &gone {
            tracing::warn!(target: target::MESH, node, "a node of the mesh is silent; forgotten");
        }
        if !gone.is_empty() {
            self.lost_nodes = true;
            self.nodes_changed();
        }
        self.retire_buckets(now);
        self.give_back(&mut Look::default());
        self.say_hello(false, false);
        self.meters.connected.set(f64::from(u8::from(self.link.is_up())));
        self.meters.queued.set(self.settings.interest.queued() as f64);
    }

    /// Gives back what a peak took.
    fn give_back(&mut self, look: &mut Look) {
        self.asks.give_back(look);
        self.calls.give_back(look);
        self.questions.give_back(look);
        self.shards.give_back(look);
        allocator::let_go();
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Connected => {
                if self.linked {
                    self.meters.reconnects.increment(1);
                    self.members.doubt(&self.settings.interest);
                }
                self.linked = true;
                self.recheck_logins();
                self.meters.connected.set(1.0);
                tracing::info!(target: target::MESH, "linked to NATS");
                self.say_hello(true, false);
            }
            Event::Disconnected => {
                self.meters.connected.set(0.0);
                tracing::warn!(
                    target: target::MESH,
                    "the link to NATS is lost; other nodes are not reached"
                );
            }
            Event::SlowConsumer(_) => {
                self.meters.dropped_full.increment(1);
                self.recheck_logins();
            }
            other => {
                if let Some(unsaid) = self.complain() {
                    let advice = link::advice(other);
                    tracing::warn!(target: target::MESH, %other, advice, unsaid, "NATS");
                }
            }
        }
    }

    /// Tells the other nodes at once when a thread of this one stands still, or turns again.
    fn say_whether_it_turns(&mut self) {
        let still = self.settings.life.stands_still().is_some();
        if std::mem::replace(&mut self.still, still) != still {
            self.say_hello(false, false);
        }
    }

    /// Announces this node. A node whose number another one has says nothing.
    fn say_hello(&mut self, asks: bool, leaves: bool) {
        if self.rival.is_some() || !self.link.is_up() {
            return;
        }
        let [connections, clients] = self.registry.load();
        let (topics, users) = self.wants.maps();
        let address = |(protocol, address): &(&str, SocketAddr)| wire::proto::Address {
            protocol: (*protocol).to_owned(),
            address: address.to_string(),
        };
        let hello = Hello {
            started_ms: self.started_ms,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            addresses: self.settings.addresses.iter().map(address).collect(),
            netsvr_ip: (*self.settings.netsvr.ip()).into(),
            netsvr_port: self.settings.netsvr.port().into(),
            shards: self.shard_count as u32,
            slots_max: self.settings.slots_max,
            ids_start: self.settings.ids_start,
            connections,
            clients,
            topics: topics.to_bytes().into(),
            users: users.to_bytes().into(),
            asks,
            leaves,
            stands_still: self.still,
        };
        let envelope = self.envelope(0, Body::Hello(hello));
        self.link.publish(self.subjects.hello(), wire::encode(&envelope), 0);
    }

    fn envelope(&mut self, number: u64, body: Body) -> Envelope {
        self.sequence += 1;
        Envelope {
            version: wire::VERSION,
            node: self.settings.node.into(),
            instance: self.instance,
            sequence: self.sequence,
            number,
            body: Some(body),
        }
    }

    /// Tells the shards who is there.
    fn nodes_changed(&mut self) {
        self.meters.nodes.set(self.members.len() as f64);
        let nodes = Arc::new(self.members.nodes());
        self.shards.post_all(|| Mail::Nodes(nodes.clone()));
    }

    /// Whether a line may be logged now, and how many were not.
    fn complain(&mut self) -> Option<u64> {
        self.complaints.allow(self.started.elapsed().as_millis() as u64)
    }
}
