//! The admin interface: what its requests are answered with.
//!
//! A request is for this node, for another one (`node=3`), or for all (`cluster=1`): then each node
//! answers for itself, over the mesh, and the answer lists them. Whoever may ask this node may ask
//! the others: nodes of a mesh trust each other.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::asks::{Asks, Place};
use super::endpoints::{self, Call, Role, find};
use super::fault::Fault;
use super::params::{Fields, LIMIT_MAX, Params, place_text};
use super::rows::Namer;
use super::{Phase, Readiness};
use crate::engine::look::{Filter, Names, Sort, What};
use crate::hub::ConnId;
use crate::hub::push::{CloseReason, Command, Outcome, Payload, PayloadKind, Target};
use crate::life::Life;
use crate::limits::MESH_REQUEST_TIME;
use crate::lists::letters::MeshRequest;
use crate::mail::UnboundedSender;
use crate::outside::nodes;

/// The method of calls between nodes.
pub(in crate::sidecar) const METHOD: &str = "admin/v1";
/// Topics with most members are found among so many of each shard.
const MOST: usize = 10_000;
/// Requests that are answered at once: each may have a piece of work with a shard.
pub(in crate::sidecar) const QUESTIONS_MAX: usize = 8;

/// See the module.
#[derive(Clone)]
pub(in crate::sidecar) struct Api {
    pub asks: Asks,
    pub namer: Arc<Namer>,
    /// The way to other nodes.
    pub mesh: Option<UnboundedSender<MeshRequest>>,
    pub readiness: Arc<Readiness>,
    pub life: Life,
    pub started: Instant,
    /// For requests at once.
    pub turns: Arc<Semaphore>,
}

/// One request, as it also travels between nodes.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(in crate::sidecar) struct Request {
    pub method: String,
    /// Below `/api/v1`.
    pub path: String,
    pub query: String,
    #[serde(default)]
    pub body: String,
    /// The node that is meant; `None`: each that gets it.
    #[serde(default)]
    pub node: Option<u16>,
}

/// A request that was checked against the table.
struct Asked {
    call: Call,
    role: Role,
    named: Vec<String>,
    params: Params,
    fields: Fields,
}

impl Asked {
    fn read(request: &Request) -> Result<Asked, Fault> {
        let (endpoint, named) = find(&request.method, &segments(&request.path)?)?;
        Ok(Asked {
            call: endpoint.call,
            role: endpoint.role,
            named,
            params: Params::parse(&request.query, endpoint.params)?,
            fields: Fields::parse(request.body.as_bytes(), endpoint.body)?,
        })
    }
}

/// The answer of one node to another.
#[derive(Deserialize, Serialize)]
struct Answer {
    node: u16,
    #[serde(default)]
    fault: Option<(u16, String)>,
    answer: Value,
}

impl Api {
    /// Answers a request of somebody with this role.
    pub async fn answer(&self, mut request: Request, role: Role) -> Result<Value, Fault> {
        let _turn = self.turns.try_acquire().map_err(|_| {
            Fault::unavailable(format!("{QUESTIONS_MAX} requests are being answered; try again"))
        })?;
        let asked = Asked::read(&request)?;
        if asked.role > role {
            return Err(Fault::forbidden("this needs the role steer"));
        }
        let (wide, node) = (asked.params.is_wide()?, asked.params.node()?);
        if wide && (node.is_some() || asked.params.get("after").is_some()) {
            return Err(Fault::bad("with cluster=1 there is no node and no after: ask each node"));
        }
        request.query = asked.params.local();
        match node.filter(|node| *node != self.namer.node) {
            Some(node) => self.of_node(Request { node: Some(node), ..request }, node).await,
            None if wide => self.of_all(request, &asked).await,
            None => self.call(&asked).await,
        }
    }

    /// What the other nodes say to a request.
    async fn elsewhere(&self, request: &Request) -> Result<Vec<Answer>, Fault> {
        let Some(mesh) = &self.mesh else { return Ok(Vec::new()) };
        let body = serde_json::to_vec(request).map_err(Fault::unavailable)?;
        let answers = nodes::call(mesh, METHOD, body.into()).await;
        Ok(answers.iter().filter_map(|body| serde_json::from_slice(body).ok()).collect())
    }

    async fn of_node(&self, request: Request, node: u16) -> Result<Value, Fault> {
        let answers = self.elsewhere(&request).await?;
        let answer = answers.into_iter().find(|answer| answer.node == node);
        let answer = answer.ok_or_else(|| {
            Fault::not_found(format!(
                "node {node} is not there, did not answer in time, or has no such interface"
            ))
        })?;
        match answer.fault {
            None => Ok(answer.answer),
            Some((status, message)) => Err(Fault::of(status, message)),
        }
    }

    /// The answers of all nodes; of those that did not answer it says so.
    async fn of_all(&self, request: Request, asked: &Asked) -> Result<Value, Fault> {
        let known = self.asks.nodes().await.map_err(Fault::unavailable)?;
        let mut answers = self.elsewhere(&request).await?;
        answers.push(self.as_node(self.call(asked).await));
        for node in known.iter().map(|node| node.number) {
            if answers.iter().all(|answer| answer.node != node) {
                let fault = Fault::unavailable("it did not answer in time, or is older than this");
                answers.push(Answer { node, fault: None, answer: fault.json() });
            }
        }
        answers.sort_by_key(|answer| answer.node);
        let nodes = answers
            .into_iter()
            .map(|Answer { node, answer, .. }| json!({ "node": node, "answer": answer }));
        Ok(json!({ "nodes": nodes.collect::<Vec<_>>() }))
    }

    fn as_node(&self, result: Result<Value, Fault>) -> Answer {
        let node = self.namer.node;
        match result {
            Ok(answer) => Answer { node, fault: None, answer },
            Err(fault) => {
                let answer = fault.json();
                Answer { node, fault: Some((fault.status, fault.message)), answer }
            }
        }
    }

    /// Answers a request of another node for this one alone; nothing if it is not meant. It was
    /// asked there whether they may.
    pub async fn for_another_node(&self, body: &[u8]) -> Bytes {
        let Ok(request) = serde_json::from_slice::<Request>(body) else { return Bytes::new() };
        if request.node.is_some_and(|node| node != self.namer.node) {
            return Bytes::new();
        }
        let answer = match Asked::read(&request) {
            Ok(asked) => {
                let answer = tokio::time::timeout(MESH_REQUEST_TIME, self.call(&asked)).await;
                answer.unwrap_or_else(|_| Err(Fault::unavailable("it takes too long")))
            }
            Err(fault) => Err(fault),
        };
        serde_json::to_vec(&self.as_node(answer)).map(Bytes::from).unwrap_or_default()
    }

    async fn call(&self, asked: &Asked) -> Result<Value, Fault> {
        let Asked { call, named, params, fields, .. } = asked;
        let name = named.first().map(String::as_str).unwrap_or_default();
        match *call {
            Call::Overview => self.overview().await,
            Call::Shards => self.shards().await,
            Call::Connections => self.connections(params.filter(&self.listeners())?, params).await,
            Call::Connection => self.connection(name).await,
            Call::Users => self.names(What::Users, params).await,
            Call::Topics => self.names(What::Topics, params).await,
            Call::User => {
                let filter = Filter { user: Some(name.into()), ..Filter::default() };
                self.connections(filter, params).await
            }
            Call::Topic => {
                let filter = Filter { topic: Some(name.into()), ..Filter::default() };
                self.connections(filter, params).await
            }
            Call::Workers => {
                let workers = self.asks.workers().await.map_err(Fault::unavailable)?;
                let rows = workers.iter().map(|worker| self.namer.worker(worker));
                Ok(json!({ "rows": rows.collect::<Vec<_>>() }))
            }
            Call::Nodes => self.nodes().await,
            Call::Version => Ok(json!({ "version": VERSION, "api": 1, "node": self.namer.node })),
            Call::Document => Ok(endpoints::document(VERSION)),
            Call::Publish => {
                let target = Target::Topics(vec![fields.needed("topic")?.into()]);
                self.push(target, fields).await
            }
            Call::Send => self.send(fields).await,
            Call::CloseConnection => {
                let conn = self.client(name).await?;
                self.close(Target::Conns(vec![conn]), fields).await
            }
            Call::CloseUser => self.close(Target::Users(vec![name.into()]), fields).await,
        }
    }

    async fn overview(&self) -> Result<Value, Fault> {
        let load = self.asks.load().await;
        let shards = load.len();
        // What a shard has that stands still is not known; `state` names it.
        let load: Vec<_> = load.into_iter().filter_map(Result::ok).collect();
        let sum = |of: fn(&crate::engine::look::Shard) -> u64| load.iter().map(of).sum::<u64>();
        let connections =
            load.iter().flat_map(|shard| &shard.connections).map(|(_, count)| count).sum::<u64>();
        Ok(json!({
            "node": self.namer.node,
            "version": VERSION,
            "state": self.state(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "shards": shards,
            "connections": connections,
            "clients": sum(|shard| shard.clients),
            "subscriptions": sum(|shard| shard.subscriptions),
            "clients_waiting_for_workers": sum(|shard| shard.waiting),
            "stalled_sends": sum(|shard| shard.stalled),
            "listeners":
                self.namer.listeners.iter().map(|listener| listener.json()).collect::<Vec<_>>(),
        }))
    }

    /// In the words of `/readyz`.
    fn state(&self) -> String {
        match (self.readiness.phase(), self.life.stands_still()) {
            (Phase::Starting, _) => "starting".to_owned(),
            (Phase::Draining, _) => "draining".to_owned(),
            (Phase::Ready, Some(who)) => who,
            (Phase::Ready, None) => "ready".to_owned(),
        }
    }

    async fn shards(&self) -> Result<Value, Fault> {
        let rows =
            self.asks.load().await.into_iter().enumerate().map(|(number, load)| match load {
                Ok(load) => self.namer.shard(number, &load),
                Err(error) => json!({ "shard": number, "error": error.to_string() }),
            });
        Ok(json!({ "rows": rows.collect::<Vec<_>>() }))
    }

    /// The addresses of the listeners, by number.
    fn listeners(&self) -> Vec<String> {
        self.namer.listeners.iter().map(|listener| listener.bound.to_string()).collect()
    }

    async fn connections(&self, filter: Filter, params: &Params) -> Result<Value, Fault> {
        let (sort, limit) = (params.sort()?, params.limit()?);
        let found = self.asks.connections(filter, sort, params.place()?, limit).await;
        let (rows, more) = found.map_err(Fault::unavailable)?;
        let place = |sort: Option<Sort>| {
            let last = rows.last()?;
            Some(place_text(Place { key: last.key(sort), conn: last.conn }))
        };
        let next = if more { place(sort) } else { None };
        let rows: Vec<Value> = rows.iter().map(|row| self.namer.row(row)).collect();
        Ok(json!({ "rows": rows, "next": next }))
    }

    /// The connection of a name that is one of this node.
    fn named(&self, id: &str) -> Result<ConnId, Fault> {
        self.namer.ids.decode(id).ok_or_else(|| {
            let node = self.namer.node;
            Fault::not_found(format!(
                "{id:?} names no connection of node {node}; cluster=1 asks the others too"
            ))
        })
    }

    async fn connection(&self, id: &str) -> Result<Value, Fault> {
        let details = self.asks.details(self.named(id)?).await.map_err(Fault::unavailable)?;
        let gone = || Fault::not_found(format!("connection {id} is gone"));
        details.map(|details| self.namer.details(&details)).ok_or_else(gone)
    }

    /// The client of a name: what can be sent to and closed.
    async fn client(&self, id: &str) -> Result<ConnId, Fault> {
        let conn = self.named(id)?;
        let details = self.asks.details(conn).await.map_err(Fault::unavailable)?;
        let gone = || Fault::not_found(format!("connection {id} is gone"));
        let row = details.ok_or_else(gone)?.row;
        match row.client {
            true => Ok(conn),
            false => Err(Fault::conflict(format!(
                "connection {id} is no client that is open: only these are sent to and closed"
            ))),
        }
    }

    async fn names(&self, what: What, params: &Params) -> Result<Value, Fault> {
        let (by_count, limit) = (params.by_count()?, params.limit()?);
        let after = params.get("after");
        if by_count && after.is_some() {
            let most = LIMIT_MAX;
            return Err(Fault::bad(format!(
                "sorted by their number there is one page, of up to {most}; sort by name to go on"
            )));
        }
        let asked = Names {
            what,
            prefix: params.get("prefix").unwrap_or_default().into(),
            after: after.map(Box::from),
            by_count,
        };
        let found = self.asks.names(asked, limit, MOST).await.map_err(Fault::unavailable)?;
        let (names, more) = found;
        let next = names.last().filter(|_| more && !by_count).map(|(name, _)| name.to_string());
        let rows =
            names.iter().map(|(name, count)| json!({ "name": **name, "connections": count }));
        Ok(json!({ "rows": rows.collect::<Vec<_>>(), "next": next }))
    }

    async fn nodes(&self) -> Result<Value, Fault> {
        let nodes = self.asks.nodes().await.map_err(Fault::unavailable)?;
        let others = nodes.iter().map(|node| self.namer.other(node));
        let own = json!({ "node": self.namer.node, "version": VERSION, "own": true });
        Ok(json!({ "rows": std::iter::once(own).chain(others).collect::<Vec<_>>() }))
    }

    async fn push(&self, target: Target, fields: &Fields) -> Result<Value, Fault> {
        let data = Bytes::copy_from_slice(fields.needed("data")?.as_bytes());
        let payloads = vec![Payload::of_kind(data, PayloadKind::Text)];
        let outcome = self.asks.order(Command::Push { target, payloads }).await;
        outcome.map(came_to).map_err(Fault::unavailable)
    }

    async fn send(&self, fields: &Fields) -> Result<Value, Fault> {
        let target = match (fields.text("connection")?, fields.text("user")?) {
            (Some(id), None) => Target::Conns(vec![self.client(id).await?]),
            (None, Some(user)) if !user.is_empty() => Target::Users(vec![user.into()]),
            _ => return Err(Fault::bad("the body needs either connection or user")),
        };
        self.push(target, fields).await
    }

    async fn close(&self, target: Target, fields: &Fields) -> Result<Value, Fault> {
        let (code, reason) = fields.close()?;
        let reason = CloseReason { code, text: reason.to_owned().into() };
        let command = Command::Kick { target, payload: None, reason, guests_only: false };
        self.asks.order(command).await.map(came_to).map_err(Fault::unavailable)
    }
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn came_to(outcome: Outcome) -> Value {
    json!({ "done": outcome.done, "failed": outcome.failed })
}

/// The segments of a path, decoded.
fn segments(path: &str) -> Result<Vec<String>, Fault> {
    let decoded = |part: &str| percent_decode_str(part).decode_utf8().map(|text| text.into_owned());
    let parts: Result<_, _> = path.split('/').skip(1).map(decoded).collect();
    parts.map_err(|_| Fault::bad("the path is not UTF-8"))
}
