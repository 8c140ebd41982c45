//! The link to NATS: connecting, what goes out in order, what comes in.
//!
//! What goes out waits in one queue and is written by one task, so that a stalled connection never
//! holds up the rest of the mesh; subscriptions stand in the same queue, so that a node that hears
//! an answer hears of it after the subscription that came before it has taken effect. Each bucket
//! is one NATS subscription, whose messages a task moves into one inbox; the library repeats them
//! after a reconnect. Bounds: the queue by [`Interest`], the inbox by bytes; what exceeds the inbox
//! is dropped and counted. While there is no connection nothing is queued that would be stale
//! afterwards: it is dropped and counted.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ClientError, ConnectOptions, Event, ServerAddr, ServerError, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use percent_encoding::percent_decode_str;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};

use super::meters::Meters;
use crate::config::model::Mesh;
use crate::hub::mesh::{Bucket, Interest, Space};
use crate::wire::mesh::Subjects;

/// A connection that does not answer for about three of these is lost.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const CONNECT_TIME: Duration = Duration::from_secs(2);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(500);
/// Messages between the writing task and the connection.
const OUT_MESSAGES_MAX: usize = 512;
/// Messages of one subscription that nobody has taken; tasks take them at once.
const IN_MESSAGES_MAX: usize = 65_536;

/// What goes out.
#[derive(Debug)]
enum Out {
    Publish { subject: String, payload: Bytes, room: usize },
    Subscribe(Bucket),
    Unsubscribe(Bucket),
}

/// What came for a bucket.
pub(super) type Incoming = (Bucket, Bytes);

/// See the module.
#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    out: Option<mpsc::UnboundedSender<Out>>,
    writer: JoinHandle<()>,
}

/// What came from NATS.
pub(super) struct Sources {
    pub events: mpsc::UnboundedReceiver<Event>,
    pub hello: Subscriber,
    pub replies: Subscriber,
    pub requests: Subscriber,
    pub all: Subscriber,
    pub buckets: mpsc::UnboundedReceiver<Incoming>,
}

/// Where the messages of all buckets come together.
#[derive(Clone)]
struct Inbox {
    sender: mpsc::UnboundedSender<Incoming>,
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    meters: Arc<Meters>,
}

impl Link {
    /// Begins to connect, and to reconnect whenever the connection is lost. Fails only if the
    /// settings can not be used; the sentence says why.
    pub async fn new(
        mesh: &Mesh,
        node: u16,
        interest: Arc<Interest>,
        bytes: Arc<AtomicUsize>,
        meters: Arc<Meters>,
    ) -> Result<(Link, Sources), String> {
        let (event_sender, events) = mpsc::unbounded_channel();
        let options = options(mesh, node).await?.event_callback(move |event| {
            let _ = event_sender.send(event);
            async {}
        });
        let refused = |error: &dyn std::error::Error| format!("NATS can not be used: {error}");
        let client = options.connect(&servers(mesh)[..]).await.map_err(|error| refused(&error))?;
        let subjects = Subjects::new(&mesh.cluster);
        let subscribe = async |subject: String| {
            client.subscribe(subject).await.map_err(|error| refused(&error))
        };
        let (inbox_sender, buckets) = mpsc::unbounded_channel();
        let sources = Sources {
            events,
            hello: subscribe(subjects.hello()).await?,
            replies: subscribe(subjects.reply(node)).await?,
            requests: subscribe(subjects.node(node)).await?,
            all: subscribe(subjects.all()).await?,
            buckets,
        };
        let bytes_max = mesh.queue_bytes_max;
        let inbox = Inbox { sender: inbox_sender, bytes, bytes_max, meters };
        let (out, queue) = mpsc::unbounded_channel();
        let writer = tokio::spawn(write(client.clone(), subjects, queue, interest, inbox));
        Ok((Link { client, out: Some(out), writer }, sources))
    }

    /// The connection, for what goes beside the queue.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Longest message that the server takes.
    pub fn payload_max(&self) -> usize {
        self.client.max_payload()
    }

    /// Queues a message; `room` of [`Interest`] is given back when it is out.
    pub fn publish(&self, subject: String, payload: Bytes, room: usize) {
        self.queue(Out::Publish { subject, payload, room });
    }

    /// Begins to listen to a bucket.
    pub fn subscribe(&self, bucket: Bucket) {
        self.queue(Out::Subscribe(bucket));
    }

    /// Ends it.
    pub fn unsubscribe(&self, bucket: Bucket) {
        self.queue(Out::Unsubscribe(bucket));
    }

    /// Writes what is queued, within the time.
    pub async fn close(&mut self, time: Duration) {
        self.out = None;
        let done = async {
            let _ = (&mut self.writer).await;
            let _ = self.client.flush().await;
        };
        let _ = tokio::time::timeout(time, done).await;
    }

    fn queue(&self, out: Out) {
        if let Some(queue) = &self.out {
            // Fails only when the process ends.
            let _ = queue.send(out);
        }
    }
}

/// What to do about something that NATS or the library says.
pub(super) fn advice(event: &Event) -> &'static str {
    let refused = "authorization violation";
    match event {
        Event::ServerError(ServerError::AuthorizationViolation) => REFUSED,
        Event::ClientError(ClientError::Other(text)) if text.contains(refused) => REFUSED,
        Event::ClientError(ClientError::Other(_)) => {
            "no server of mesh.nats can be used; is one running, and do both sides trust each \
             other's certificates (mesh.tls)? It is tried again and again"
        }
        _ => "",
    }
}

const REFUSED: &str = "NATS does not let this node in: check mesh.user and mesh.password, \
                       mesh.token or mesh.credentials. It is tried again and again";

/// User and password in the first URL that has them: the library leaves them out. They may be
/// percent-encoded there (RFC 3986 section 2.1).
fn in_urls(mesh: &Mesh) -> Option<(String, String)> {
    let address = |url: &String| ServerAddr::from_str(url).ok();
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut servers = mesh.nats.iter().filter_map(address);
    servers.find_map(|server| Some((plain(server.username()?), plain(server.password()?))))
}

/// The servers, without user and password: the library would write them into its log.
pub(super) fn servers(mesh: &Mesh) -> Vec<String> {
    let bare = |url: &String| match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.clone(),
    };
    mesh.nats.iter().map(bare).collect()
}

/// How a node connects.
pub(super) async fn options(mesh: &Mesh, node: u16) -> Result<ConnectOptions, String> {
    let mut options = ConnectOptions::new()
        .name(format!("ringway node {node}"))
        .no_echo()
        .retry_on_initial_connect()
        .ping_interval(PING_INTERVAL)
        .connection_timeout(CONNECT_TIME)
        .client_capacity(OUT_MESSAGES_MAX)
        .subscription_capacity(IN_MESSAGES_MAX)
        .reconnect_delay_callback(|attempts| {
            RECONNECT_PAUSE_MAX.min(Duration::from_millis(attempts as u64 * 50))
        });
    if let Some(path) = &mesh.credentials {
        options = options.credentials_file(path).await.map_err(|error| {
            format!("mesh.credentials: {} can not be used: {error}", path.display())
        })?;
    }
    if let Some((user, password)) = mesh.user.clone().or_else(|| in_urls(mesh)) {
        options = options.user_and_password(user, password);
    }
    if let Some(token) = &mesh.token {
        options = options.token(token.clone());
    }
    if let Some(ca) = &mesh.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let Some((cert, key)) = &mesh.certificate {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    Ok(options)
}

async fn write(
    client: Client,
    subjects: Subjects,
    mut queue: mpsc::UnboundedReceiver<Out>,
    interest: Arc<Interest>,
    inbox: Inbox,
) {
    let mut tasks: HashMap<Bucket, AbortHandle> = HashMap::new();
    let meters = inbox.meters.clone();
    while let Some(out) = queue.recv().await {
        match out {
            Out::Publish { subject, payload, room } => {
                let bytes = payload.len();
                if client.connection_state() != State::Connected {
                    meters.dropped_down.increment(1);
                } else if client.publish(subject, payload).await.is_ok() {
                    meters.sent.increment(1);
                    meters.sent_bytes.increment(bytes as u64);
                } else {
                    meters.dropped_down.increment(1);
                }
                interest.release(room);
            }
            Out::Subscribe(bucket) => {
                // Fails only if the subject were none or the client had ended.
                if let Ok(subscriber) = client.subscribe(subject(&subjects, bucket)).await {
                    let task = tokio::spawn(forward(bucket, subscriber, inbox.clone()));
                    tasks.insert(bucket, task.abort_handle());
                }
            }
            Out::Unsubscribe(bucket) => {
                // With the task its subscription ends.
                if let Some(task) = tasks.remove(&bucket) {
                    task.abort();
                }
            }
        }
        meters.buckets.set(tasks.len() as f64);
    }
}

/// The subject of a bucket.
pub(super) fn subject(subjects: &Subjects, bucket: Bucket) -> String {
    match bucket.space {
        Space::Topics => subjects.topic(bucket.number),
        Space::Users => subjects.user(bucket.number),
    }
}

async fn forward(bucket: Bucket, mut subscriber: Subscriber, inbox: Inbox) {
    while let Some(message) = subscriber.next().await {
        let payload = message.payload;
        let before = inbox.bytes.fetch_add(payload.len(), Ordering::Relaxed);
        if before > inbox.bytes_max {
            inbox.bytes.fetch_sub(payload.len(), Ordering::Relaxed);
            inbox.meters.dropped_full.increment(1);
        } else if inbox.sender.send((bucket, payload)).is_err() {
            return;
        }
    }
}
