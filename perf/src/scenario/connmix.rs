//! connmix's API: requests over HTTP with keep-alive, and a queue from clients to one consumer.

use std::time::Duration;

use ringway::hub::ConnId;
use ringway::hub::client_id::ClientIds;

use super::{Figure, Load};
use crate::Result;
use crate::net;
use crate::options::Size;
use crate::rig::{Rig, STAMP, payload, stamp};

/// Which requests are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `mesh/send`, to one client after the other.
    Send,
    /// `mesh/publish`, to a channel with `--members` members (default: none).
    Publish,
}

/// Every connection has one request under way, and the next one when it is answered.
pub struct Http {
    method: Method,
    /// What a request looks like, by receiver.
    requests: Vec<Vec<u8>>,
    turn: usize,
    /// When the request of each connection was sent, by connection number.
    sent: Vec<u64>,
}

impl Http {
    pub fn prepare(size: &Size, rig: &mut Rig, method: Method) -> Result<Http> {
        let receivers = match method {
            Method::Send => size.members.unwrap_or(64),
            Method::Publish => size.members.unwrap_or(0),
        };
        let clients = rig.netsvr_clients(0, receivers)?;
        let ids = client_ids(&clients.uniq_ids, rig.server.shards)?;
        let data = ".".repeat(size.payload.unwrap_or(64));
        let bodies: Vec<(&str, String)> = match method {
            Method::Send => {
                let body = |id| ("/v1/mesh/send", format!(r#"{{"c":"{id}","d":"{data}"}}"#));
                ids.iter().map(body).collect()
            }
            Method::Publish => {
                let task = rig.task()?;
                rig.update(task, &clients.uniq_ids, |_| crate::netsvr::ConnInfoUpdate {
                    new_topics: vec!["perf".to_owned()],
                    ..Default::default()
                })?;
                vec![("/v1/mesh/publish", format!(r#"{{"c":"perf","d":"{data}"}}"#))]
            }
        };
        let requests = bodies.iter().map(|(path, body)| request(path, body)).collect();
        let mut http = Http { method, requests, turn: 0, sent: Vec::new() };
        let api = rig.server.api.ok_or("this scenario needs a gateway, not --addr")?;
        for _ in 0..size.clients.unwrap_or(64) {
            let peer = rig.net.connect_http(api)?;
            http.ask(rig, peer)?;
        }
        Ok(http)
    }

    fn ask(&mut self, rig: &mut Rig, peer: u32) -> Result<()> {
        let number = peer as usize;
        if self.sent.len() <= number {
            self.sent.resize(number + 1, 0);
        }
        self.sent[number] = rig.tally.now();
        let request = &self.requests[self.turn % self.requests.len()];
        self.turn += 1;
        rig.net.send(peer, request)
    }
}

impl Load for Http {
    fn step(&mut self, rig: &mut Rig) -> Result<()> {
        let ready = rig.net.wait(Duration::from_secs(5))?;
        if ready.is_empty() {
            return Err("no answer within 5 s".into());
        }
        for peer in ready {
            let (mut answers, mut wrong) = (0, false);
            let asks = self.sent.get(peer as usize).is_some_and(|&sent| sent > 0);
            rig.net.read(peer, |body| {
                answers += 1;
                wrong |= asks && !body.starts_with(br#"{"E":null,"#);
            })?;
            if wrong {
                return Err(format!("{:?} was refused", self.method).into());
            }
            if asks && answers > 0 {
                rig.tally.count(self.sent[peer as usize], rig.tally.now());
                self.ask(rig, peer)?;
            }
        }
        rig.net.closed.is_empty().then_some(()).ok_or_else(|| "the server closed a peer".into())
    }
}

fn request(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: perf\r\nAccept: */*\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The client_ids of connections whose uniqIds are known.
fn client_ids(uniq_ids: &[String], shards: usize) -> Result<Vec<i64>> {
    // So many connections leave the layout of the ids as it is.
    let ids = ClientIds::new(1, shards, 1_000_000);
    let client_id = |uniq_id: &String| -> Result<i64> {
        let part = |range| -> Result<u32> {
            Ok(u32::from_str_radix(uniq_id.get(range).ok_or("a short uniqId")?, 16)?)
        };
        Ok(ids.encode(ConnId::from_parts(part(12..20)?, part(20..28)?)))
    };
    uniq_ids.iter().map(client_id).collect()
}

/// Clients push messages to a queue, which one connection consumes. Each client has `--window`
/// messages under way.
pub struct Queue {
    consumer: u32,
    clients: Vec<u32>,
    payload: usize,
    /// Messages of each client that may be sent now.
    due: Vec<usize>,
    events: usize,
    reads: usize,
}

impl Queue {
    pub fn prepare(size: &Size, rig: &mut Rig) -> Result<Queue> {
        let api = rig.server.api.ok_or("this scenario needs a gateway, not --addr")?;
        let consumer = rig.net.connect_clients(api, 1, |_| "/ws/v1".to_owned())?[0];
        rig.net.send(consumer, &net::text(br#"{"m":"queue.pop","p":{"t":["perf"]},"i":1}"#))?;
        rig.await_messages(consumer, 1)?;
        let count = size.clients.unwrap_or(100);
        let clients = rig.net.connect_clients(rig.server.client, count, |_| "/chat".to_owned())?;
        let due = vec![size.window.unwrap_or(16); count];
        let payload = size.payload.unwrap_or(64);
        Ok(Queue { consumer, clients, payload, due, events: 0, reads: 0 })
    }
}

impl Load for Queue {
    fn step(&mut self, rig: &mut Rig) -> Result<()> {
        for (number, &client) in self.clients.iter().enumerate() {
            let due = std::mem::take(&mut self.due[number]);
            if due == 0 {
                continue;
            }
            let now = rig.tally.now();
            let message = net::text(&payload(self.payload, now, number));
            rig.net.send(client, &message.repeat(due))?;
        }
        let ready = rig.net.wait(Duration::from_secs(5))?;
        if ready.is_empty() {
            return Err("no event within 5 s".into());
        }
        for peer in ready {
            let now = rig.tally.now();
            let (consumer, due, tally) = (self.consumer, &mut self.due, &mut rig.tally);
            let before = self.events;
            let events = &mut self.events;
            rig.net.read(peer, |event| {
                let Some((sent, sender)) = data(event).and_then(stamp) else { return };
                if peer == consumer {
                    tally.count(sent, now);
                    due[sender] += 1;
                    *events += 1;
                }
            })?;
            self.reads += usize::from(self.events > before);
        }
        rig.net.closed.is_empty().then_some(()).ok_or_else(|| "the server closed a peer".into())
    }

    fn finish(&mut self, _rig: &mut Rig) -> Result<Vec<Figure>> {
        let per_read = self.events as f64 / self.reads.max(1) as f64;
        Ok(vec![Figure::new("events_per_read", per_read)])
    }
}

/// The text of the client's message in an event.
fn data(event: &[u8]) -> Option<&[u8]> {
    const BEFORE: &[u8] = br#""data":""#;
    let at = event.windows(BEFORE.len()).position(|window| window == BEFORE)? + BEFORE.len();
    event.get(at..at + STAMP)
}
