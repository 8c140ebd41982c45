//! The connection of the queues to NATS: what goes out in order, what comes in.
//!
//! One task writes, so that a stalled connection does not hold up the clock of the queues. Without
//! a connection what goes out is dropped: everything that matters is sent again when there is one.
//! Each topic that is consumed here is one subscription, which ends with the consumption, and with
//! it whatever JetStream was still asked for; what is under way then is still received.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Instant;

use async_nats::connection::State;
use async_nats::{Client, Event, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::names::Names;
use crate::config::model::Mesh;
use crate::lists::letters::QueueRequest;
use crate::sidecar::mesh::{CLOSE_TIME, link, take_ready};

/// Inputs of one kind that are taken before the next kind has its turn.
const ROUND_MAX: usize = 256;

/// What goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Out {
    /// A message, whose answer is to come to `reply`.
    Say { subject: String, reply: Option<String>, payload: Bytes },
    /// A message to be stored; JetStream knows it by `id` when it is repeated.
    Store { subject: String, reply: String, id: String, payload: Bytes },
    /// Messages of the topic with this token are to be received.
    Listen(Box<str>),
    /// They are not any more.
    Deafen(Box<str>),
}

impl Out {
    pub fn say(subject: String, reply: Option<String>, payload: Bytes) -> Out {
        Out::Say { subject, reply, payload }
    }
}

/// Something to handle.
pub(super) enum Input {
    Event(Event),
    Message(Message),
    Request(QueueRequest),
}

/// Where it comes from.
pub(super) struct Sources {
    events: mpsc::UnboundedReceiver<Event>,
    answers: Subscriber,
    messages: mpsc::UnboundedReceiver<Message>,
    requests: mpsc::UnboundedReceiver<QueueRequest>,
}

/// Begins to connect, and to reconnect whenever the connection is lost. Gives the connection, a
/// subject of its own, and what happens to it. Fails only if the settings can not be used.
pub(super) async fn connect(
    mesh: &Mesh,
    node: u16,
) -> Result<(Client, String, mpsc::UnboundedReceiver<Event>), String> {
    let (sender, events) = mpsc::unbounded_channel();
    let options = link::options(mesh, node).await?.name(format!("ringway node {node} queues"));
    let options = options.event_callback(move |event| {
        let _ = sender.send(event);
        async {}
    });
    let client = options.connect(&link::servers(mesh)[..]).await.map_err(refused)?;
    let inbox = client.new_inbox();
    Ok((client, inbox, events))
}

/// Starts the writing task. Needs the runtime's context.
pub(super) async fn open(
    client: &Client,
    names: &Names,
    events: mpsc::UnboundedReceiver<Event>,
    requests: mpsc::UnboundedReceiver<QueueRequest>,
) -> Result<(Writer, Sources), String> {
    let answers = client.subscribe(names.answers()).await.map_err(refused)?;
    let (inbox, messages) = mpsc::unbounded_channel();
    let (out, rounds) = mpsc::unbounded_channel();
    let task = tokio::spawn(write(client.clone(), names.clone(), rounds, inbox));
    let writer = Writer { client: client.clone(), out: Some(out), task };
    Ok((writer, Sources { events, answers, messages, requests }))
}

fn refused(error: impl std::error::Error) -> String {
    format!("NATS can not be used: {error}")
}

/// See the module.
#[derive(Debug)]
pub(super) struct Writer {
    client: Client,
    out: Option<mpsc::UnboundedSender<Vec<Out>>>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Writes what a round led to; nothing is left of it here.
    pub fn write(&self, round: &mut Vec<Out>) {
        if let Some(out) = &self.out
            && !round.is_empty()
        {
            // Fails only when the process ends.
            let _ = out.send(std::mem::take(round));
        }
    }

    /// Writes what waits, within the time that a link has for its last words.
    pub async fn close(&mut self) {
        self.out = None;
        let done = async {
            let _ = (&mut self.task).await;
            let _ = self.client.flush().await;
        };
        let _ = tokio::time::timeout(CLOSE_TIME, done).await;
    }
}

async fn write(
    client: Client,
    names: Names,
    mut rounds: mpsc::UnboundedReceiver<Vec<Out>>,
    inbox: mpsc::UnboundedSender<Message>,
) {
    // With the end that is kept here a subscription ends.
    let mut topics: HashMap<Box<str>, oneshot::Sender<()>> = HashMap::new();
    while let Some(round) = rounds.recv().await {
        for out in round {
            let connected = client.connection_state() == State::Connected;
            match out {
                // These fail only if the subject were none or the client had ended.
                Out::Say { subject, reply, payload } if connected => {
                    let _ = match reply {
                        Some(reply) => client.publish_with_reply(subject, reply, payload).await,
                        None => client.publish(subject, payload).await,
                    };
                }
                Out::Store { subject, reply, id, payload } if connected => {
                    let mut headers = HeaderMap::new();
                    headers.insert("Nats-Msg-Id", id);
                    let (client, reply) = (&client, reply);
                    let _ = client
                        .publish_with_reply_and_headers(subject, reply, headers, payload)
                        .await;
                }
                Out::Say { .. } | Out::Store { .. } => {}
                Out::Listen(token) => {
                    if let Ok(subscriber) = client.subscribe(names.pulls(&token)).await {
                        let (end, ends) = oneshot::channel();
                        tokio::spawn(forward(subscriber, ends, inbox.clone()));
                        topics.insert(token, end);
                    }
                }
                Out::Deafen(token) => drop(topics.remove(&token)),
            }
        }
    }
}

/// Moves the messages of one subscription into the inbox, until it has ended and is drained.
async fn forward(
    mut subscriber: Subscriber,
    mut ends: oneshot::Receiver<()>,
    inbox: mpsc::UnboundedSender<Message>,
) {
    let mut ending = false;
    loop {
        tokio::select! {
            message = subscriber.next() => {
                let sent = message.and_then(|message| inbox.send(message).ok());
                if sent.is_none() {
                    return;
                }
            }
            _ = &mut ends, if !ending => {
                ending = true;
                if subscriber.drain().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Waits for something to handle, or until `due`.
pub(super) async fn inputs(sources: &mut Sources, due: Instant) -> Vec<Input> {
    let mut timer = pin!(tokio::time::sleep_until(due.into()));
    poll_fn(|cx| {
        let mut found = Vec::new();
        let mut some = |poll: &mut dyn FnMut() -> Poll<Option<Input>>| {
            take_ready(&mut found, ROUND_MAX, poll);
        };
        some(&mut || sources.events.poll_recv(cx).map(|event| event.map(Input::Event)));
        let answers = &mut sources.answers;
        some(&mut || Pin::new(&mut *answers).poll_next(cx).map(|m| m.map(Input::Message)));
        some(&mut || sources.messages.poll_recv(cx).map(|m| m.map(Input::Message)));
        some(&mut || sources.requests.poll_recv(cx).map(|r| r.map(Input::Request)));
        let timed_out = timer.as_mut().poll(cx).is_ready();
        match found.is_empty() && !timed_out {
            true => Poll::Pending,
            false => Poll::Ready(found),
        }
    })
    .await
}
