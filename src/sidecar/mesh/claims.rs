//! Who holds each login of xxim in the whole cluster (xxim section 5.2, step 4): one key per (user,
//! platform, device) in a JetStream key-value bucket, written with compare-and-set.
//!
//! A login that has displaced its predecessor on its own node writes itself under the key. Whoever
//! overwrites another node's connection tells that node to close it; who finds a newer connection
//! there gives way. Newer is what was accepted later, by the clocks of the nodes, in one
//! millisecond the one at the node with the higher number. Writes of one key are put into one order
//! by the server, and each overwritten holder is told by the one who overwrote it: of any number of
//! logins one stays. A connection is closed only if it still has that login. A stale key costs one
//! message to an older connection, and an older connection that finds a newer one asks whether that
//! is still there before it gives way, so keys are not deleted but expire.
//!
//! Nodes of older versions write the time of the login in place of that of accepting, which is
//! later: while both kinds run, a login at such a node wins over one that was accepted after it and
//! before its verification. That their connections are still there is asked in the same way.
//!
//! What the link loses is made good by a comparison ([`Recheck`]): after the link or a node was
//! away each login of this node is held against its key, at a bounded rate; whoever finds a newer
//! one there gives way, and a login that was never written is written then.
//!
//! What is not covered: which of two connections at two nodes is the newer one is as exact as their
//! clocks; a node that does not say in time whether it still has a newer one is taken to have none
//! until the next comparison; while a node has no link its logins are written late; a login that
//! lasts longer than [`AGE_MAX`] is forgotten. Costs: two round trips to NATS per login, in
//! [`LANES`] tasks; logins never wait for it. A comparison is one round trip per login.

use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::jetstream::kv::{Operation, Store};
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use prost::Message;
use sha1::{Digest, Sha1};
use tokio::sync::mpsc;

use super::Mesh;
use crate::hub::ConnId;
use crate::hub::push::Command;
use crate::limits::{MESH_LOGINS_INTERVAL, MESH_REQUEST_TIME};
use crate::lists::letters::{Mail, MeshRequest, Reach};
use crate::log::target;
use crate::mail::UnboundedSender;
use crate::outside::nodes;
use crate::protocols::xxim::letters::Letter;
use crate::protocols::xxim::service::push::cluster as push;
use crate::protocols::xxim::wire::proto as pb;

/// Tasks; the claims of one key are in one of them, in order.
const LANES: usize = 16;
/// Claims that wait in one task.
const WAITING_MAX: usize = 4096;
/// With more than so many in one task a comparison pauses: new logins go first.
const BEHIND: usize = 64;
/// How often a claim is tried while there is no answer, and the pause between.
const ATTEMPTS_MAX: usize = 60;
const PAUSE: Duration = Duration::from_millis(500);
/// Keys that were not written for so long are forgotten by the server.
const AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// A connection that has logged in: user, platform, device.
#[derive(Debug)]
pub(super) struct Claim {
    pub login: [Box<str>; 3],
    pub conn: ConnId,
    /// Unix milliseconds at which the connection was accepted: an older one displaces no newer one.
    pub at_ms: u64,
    /// It is compared with what was written; if this node has written a later one, nothing is.
    pub again: bool,
}

/// A comparison of all logins of this node, shard by shard.
#[derive(Debug)]
pub(super) struct Recheck {
    shard: usize,
    from: u32,
    /// When to ask for the next ones; `None` while they are awaited.
    due: Option<Instant>,
    /// Something was lost meanwhile: it begins anew with the next answer.
    anew: bool,
    count: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Claims {
    lanes: Vec<mpsc::Sender<Claim>>,
}

impl Claims {
    /// Starts the tasks; they do nothing before the first claim. Needs the runtime's context.
    pub fn start(
        client: &Client,
        cluster: &str,
        node: u16,
        mesh: &UnboundedSender<MeshRequest>,
    ) -> Claims {
        let lanes = (0..LANES).map(|_| {
            let (sender, claims) = mpsc::channel(WAITING_MAX);
            let lane = Lane {
                context: jetstream::new(client.clone()),
                bucket: format!("ringway-{cluster}-logins"),
                store: None,
                node,
                mesh: mesh.clone(),
                complained: false,
            };
            tokio::spawn(lane.run(claims));
            sender
        });
        Claims { lanes: lanes.collect() }
    }

    /// Writes a login, some time later. False if too many wait.
    pub fn claim(&self, claim: Claim) -> bool {
        let digest = digest(&claim.login);
        let lane = self.lanes.get(usize::from(digest[0]) % LANES);
        lane.is_some_and(|lane| lane.try_send(claim).is_ok())
    }

    /// Whether new logins would have to wait behind many others.
    fn is_behind(&self) -> bool {
        self.lanes.iter().any(|lane| lane.max_capacity() - lane.capacity() > BEHIND)
    }
}

struct Lane {
    context: Context,
    bucket: String,
    store: Option<Store>,
    node: u16,
    mesh: UnboundedSender<MeshRequest>,
    /// That JetStream is missing is said once.
    complained: bool,
}

/// Something must be tried again: another write came between, or the server does not answer.
struct Again;

impl Lane {
    async fn run(mut self, mut claims: mpsc::Receiver<Claim>) {
        self.context.set_timeout(MESH_REQUEST_TIME);
        while let Some(claim) = claims.recv().await {
            let (key, mut attempts) = (key(&claim.login), 0);
            while self.write(&key, &claim).await.is_err() {
                attempts += 1;
                if attempts == ATTEMPTS_MAX {
                    tracing::warn!(
                        target: target::MESH,
                        "a login could not be told to the other nodes"
                    );
                    break;
                }
                tokio::time::sleep(PAUSE.mul_f64(attempts.min(10) as f64 / 10.0)).await;
            }
        }
    }

    /// Writes the claim over whatever holds the key.
    async fn write(&mut self, key: &str, claim: &Claim) -> Result<(), Again> {
        let value = encode(self.node, claim);
        let (own, mesh) = (self.node, self.mesh.clone());
        let store = self.store().await?;
        let entry = store.entry(key).await.map_err(|_| Again)?;
        let held = entry.filter(|entry| entry.operation == Operation::Put);
        let Some(entry) = held else {
            return store.create(key, value).await.map(drop).map_err(|_| Again);
        };
        let holder = decode(&entry.value);
        if claim.again && holder.is_some_and(|(node, ..)| node == own) {
            return Ok(());
        }
        let newer = holder
            .is_some_and(|(node, _, at_ms)| node != own && (at_ms, node) > (claim.at_ms, own));
        let found = if newer { Some(abroad(&mesh, &claim.login).await) } else { None };
        if let Some(found) = &found
            && found.iter().any(|at_ms| *at_ms >= claim.at_ms)
        {
            let (conn, login) = (claim.conn, claim.login.clone());
            self.mesh.send(MeshRequest::Displaced { login, conn });
            return Ok(());
        }
        store.update(key, value, entry.revision).await.map_err(|_| Again)?;
        let Some((node, conn, _)) = holder else { return Ok(()) };
        // A newer one that nobody has seen is left alone: it is gone, or was not heard and will
        // compare itself later.
        if node != own && found.is_none_or(|found| !found.is_empty()) {
            let command = Command::Displace { conn, login: claim.login.clone() };
            let (reach, command) = (Reach::Node(node), std::sync::Arc::new(command));
            self.mesh.send(MeshRequest::Command { reach, command, reply: None, room: 0 });
        }
        Ok(())
    }

    async fn store(&mut self) -> Result<&Store, Again> {
        if self.store.is_none() {
            if let Ok(store) = self.context.get_key_value(&self.bucket).await {
                return Ok(self.store.insert(store));
            }
            // What a key-value bucket is to the server. The library's own way to make one asks for
            // the account first, whose answer it can not read from servers before 2.10.
            let stream = Config {
                name: format!("KV_{}", self.bucket),
                subjects: vec![format!("$KV.{}.>", self.bucket)],
                max_messages_per_subject: 1,
                max_age: AGE_MAX,
                discard: DiscardPolicy::New,
                allow_rollup: true,
                deny_delete: true,
                allow_direct: true,
                ..Config::default()
            };
            self.context.create_stream(stream).await.map_err(|error| {
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!(
                        target: target::MESH,
                        %error, "JetStream has no room for logins; is it switched on?"
                    );
                }
                Again
            })?;
            let store = self.context.get_key_value(&self.bucket).await.map_err(|_| Again)?;
            self.complained = false;
            self.store = Some(store);
        }
        self.store.as_ref().ok_or(Again)
    }
}

impl Recheck {
    fn new() -> Recheck {
        Recheck { shard: 0, from: 0, due: Some(Instant::now()), anew: false, count: 0 }
    }
}

impl Mesh {
    /// Messages about logins may have been lost: compares all of them, from the start.
    pub(super) fn recheck_logins(&mut self) {
        match &mut self.recheck {
            Some(Recheck { due: None, anew, .. }) => *anew = true,
            recheck => *recheck = Some(Recheck::new()),
        }
    }

    /// When the next logins are to be compared.
    pub(super) fn recheck_due(&self) -> Option<Instant> {
        self.recheck.as_ref().and_then(|recheck| recheck.due).filter(|_| self.link.is_up())
    }

    /// Asks a shard for its next logins, if it is time.
    pub(super) fn recheck(&mut self, now: Instant) {
        if self.recheck_due().is_none_or(|due| due > now) {
            return;
        }
        let behind = self.claims.is_behind();
        match &mut self.recheck {
            Some(Recheck { due, .. }) if behind => *due = Some(now + MESH_LOGINS_INTERVAL),
            Some(Recheck { shard, from, due, .. }) => {
                *due = None;
                self.shards.post(*shard, Mail::Xxim(Letter::Logins { from: *from }), 0);
            }
            None => {}
        }
    }

    /// A shard has told some of its logins.
    pub(super) fn compare(&mut self, logins: Vec<([Box<str>; 3], ConnId, u64)>, next: Option<u32>) {
        let Some(recheck) = &mut self.recheck else { return };
        recheck.count += logins.len();
        recheck.due = Some(Instant::now() + MESH_LOGINS_INTERVAL);
        match next {
            Some(next) => recheck.from = next,
            None => (recheck.shard, recheck.from) = (recheck.shard + 1, 0),
        }
        if recheck.anew {
            *recheck = Recheck::new();
        }
        let (done, count) = (recheck.shard >= self.shard_count, recheck.count);
        for (login, conn, at_ms) in logins {
            if !self.claims.claim(Claim { login, conn, at_ms, again: true }) {
                self.meters.dropped_full.increment(1);
            }
        }
        if done {
            self.recheck = None;
            if count > 0 {
                tracing::info!(
                    target: target::MESH,
                    count, "logins compared with those of other nodes"
                );
            }
        }
    }
}

/// When the connections of this login at all other nodes were accepted, Unix milliseconds.
async fn abroad(mesh: &UnboundedSender<MeshRequest>, login: &[Box<str>; 3]) -> Vec<u64> {
    let [user, platform, device] = login;
    let list = |text: &str| vec![text.to_owned()];
    let request = pb::GetUserConnReq {
        user_ids: list(user),
        platforms: list(platform),
        devices: list(device),
    };
    let answers = nodes::call(mesh, push::GET, request.encode_to_vec().into()).await;
    let answers = answers.into_iter().filter_map(|body| pb::GetUserConnResp::decode(body).ok());
    let found = answers.flat_map(|answer| answer.conn_params);
    found.map(|conn| u64::try_from(conn.timestamp).unwrap_or(0)).collect()
}

fn digest(login: &[Box<str>; 3]) -> [u8; 20] {
    let mut hash = Sha1::new();
    for text in login {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hash.finalize().into()
}

fn key(login: &[Box<str>; 3]) -> String {
    digest(login).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encode(node: u16, claim: &Claim) -> Bytes {
    let mut value = node.to_le_bytes().to_vec();
    value.extend_from_slice(&claim.conn.generation().to_le_bytes());
    value.extend_from_slice(&claim.conn.index().to_le_bytes());
    value.extend_from_slice(&claim.at_ms.to_le_bytes());
    value.into()
}

/// Node, connection, and time of the login.
fn decode(value: &[u8]) -> Option<(u16, ConnId, u64)> {
    let (node, rest) = value.split_first_chunk()?;
    let (generation, rest) = rest.split_first_chunk()?;
    let (index, at_ms) = rest.split_first_chunk()?;
    let (generation, index) = (u32::from_le_bytes(*generation), u32::from_le_bytes(*index));
    let at_ms = u64::from_le_bytes(at_ms.try_into().ok()?);
    Some((u16::from_le_bytes(*node), ConnId::from_parts(generation, index), at_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_read_as_it_was_written() {
        let conn = ConnId::new(3, 77, 1_700_000_000);
        let claim =
            Claim { login: ["a", "b", "c"].map(Box::from), conn, at_ms: 1 << 40, again: false };
        assert_eq!(decode(&encode(1023, &claim)), Some((1023, conn, 1 << 40)));
        assert_eq!(decode(b"short"), None);
        assert_eq!(decode(&[0; 11]), None);
    }

    #[test]
    fn different_logins_have_different_keys() {
        let login = |parts: [&str; 3]| key(&parts.map(Box::from));
        assert_eq!(login(["a", "b", "c"]).len(), 40);
        assert_ne!(login(["a", "b", "c"]), login(["ab", "", "c"]));
        assert_eq!(login(["a", "b", "c"]), login(["a", "b", "c"]));
    }
}
