//! xxim clients in the simulation: a gateway of several shards in one thread, from one seed.
//!
//! What is checked, whatever mailboxes, pieces of bytes, stalled sends, upstreams, verifiers and
//! resets do: each request has one answer, or its connection ends, and never two; what follows new
//! keys is under them and what came before is not; who says goodbye, or breaks the protocol, has
//! its answers first, and so has who is there when the gateway drains; no more requests are under
//! way than may be; of all connections with one user, platform and device one is left; pushes keep
//! their order and come once; when everybody has left nothing remains.
//!
//! A failure prints its seed: `RINGWAY_SEED=123 cargo test --test xxim_simulation replay`;
//! `RINGWAY_SEEDS=1000..2000` makes a range of it.

#[path = "digests/mod.rs"]
mod digests;
#[path = "xxim_simulation/heard.rs"]
mod heard;

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use ringway::config::all::Config;
use ringway::config::model::{ClientProtocol, Listener, Service};
use ringway::engine::ListenerSettings;
use ringway::engine::ops::Machine;
use ringway::hub::ConnId;
use ringway::lists::letters::Mail;
use ringway::protocols::netsvr::wire::Verdict;
use ringway::protocols::xxim::config::upstream::{XximRoute, XximTarget};
use ringway::protocols::xxim::config::{XximEra, XximKey};
use ringway::protocols::xxim::letters::{
    Letter, PushFilter, PushRequest, PushResult, UpstreamResult,
};
use ringway::protocols::xxim::wire::cipher::Cipher;
use ringway::protocols::xxim::wire::{common_resp, proto as pb};
use ringway::sim::{Peer, REFUSED, SEALED, UNAVAILABLE, Weather, World};
use ringway::wire::network::Network;
use ringway::wire::websocket::mask_frame;
use tokio::sync::mpsc;

use heard::{Heard, heard};

const FRAME_BYTES_MAX: usize = 200_000;
const RESPONSE_BYTES_MAX: usize = 4096;
const V1_PARAMS: &str = "/v1/conn/setCxnParams";
const V2_PARAMS: &str = "/v1/conn/white/setCxnParams";
const V1_USER: &str = "/v1/conn/setUserParams";
const V2_USER: &str = "/v1/conn/white/setUserParams";
/// Methods that clients call: answered by the gateway, by an upstream, by nobody.
const METHODS: [&str; 6] = [
    "/v1/conn/keepAlive",
    "/v1/relation/getFriendList",
    "/v1/msg/sendMsgList",
    "/v1/user/white/login",
    "/v1/nobody/has/it",
    "no method",
];
const USERS: [&str; 3] = ["ann", "bob", "eve"];
const DEVICES: [&str; 2] = ["phone", "pad"];

type Keys = Option<Rc<Cipher>>;

/// One client and what it has said.
struct Client {
    peer: Peer,
    v1: bool,
    /// What its next message is encrypted with.
    keys: Keys,
    /// Set-params that are not known to be answered, with the keys that they lead to.
    changes: VecDeque<(String, Keys)>,
    asked: HashSet<String>,
    number: usize,
    /// It has left, or said what must end the connection.
    over: bool,
    /// It does not read for now.
    deaf: bool,
}

struct Story {
    world: World,
    listener: usize,
    requests_max: usize,
    /// Goodbyes wait for answers as long as they take.
    patient: bool,
    /// It ends with a drain.
    drains: bool,
    clients: Vec<Client>,
    pushed: u32,
    pushes: Vec<mpsc::UnboundedReceiver<PushResult>>,
    rng: fastrand::Rng,
}

fn pick<'a, T>(rng: &mut fastrand::Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}

fn config(rng: &mut fastrand::Rng) -> Config {
    let mut config = Config::demo();
    config.trust.trusted = vec![Network::parse("127.0.0.0/8").expect("a network")];
    let upstreams = &mut config.xxim_upstreams;
    let route = |prefix| XximRoute::new(prefix, XximTarget::Upstream(0), Duration::from_secs(10));
    upstreams.upstreams = Vec::new();
    upstreams.routes = ["/v1/relation/", "/v1/msg/", "/v1/user/"].map(route).into();
    upstreams.routes[0].detach = false;
    upstreams.hooks.before_request = rng.bool();
    upstreams.hooks.before_request_cache = Duration::from_millis(*pick(rng, &[0, 500]));
    let xxim = &mut config.xxim;
    xxim.era = *pick(rng, &[XximEra::B, XximEra::C]);
    // Time has tests of its own.
    xxim.ping_interval = Duration::ZERO;
    xxim.params_timeout = Duration::ZERO;
    xxim.login_timeout = Duration::ZERO;
    xxim.write_timeout = Duration::from_secs(86_400);
    xxim.response_bytes_max = RESPONSE_BYTES_MAX as u32;
    xxim.requests_max = *pick(rng, &[1, 3, 256]);
    xxim.shard_requests_max = *pick(rng, &[1, 20, 16_384]);
    let crypto = &mut xxim.crypto;
    crypto.private_key = Some(XximKey::Made);
    crypto.keyed_max = 1000;
    crypto.under_way_max = *pick(rng, &[1, 64]);
    crypto.ip_rate = *pick(rng, &[0, 5]);
    crypto.rate = *pick(rng, &[0, 20]);
    config
}

impl Story {
    fn new(seed: u64) -> Story {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut config = config(&mut rng);
        let patient = seed.is_multiple_of(2);
        if patient {
            config.runtime.close_timeout = Duration::from_secs(86_400);
        }
        let requests_max = config.xxim.requests_max as usize;
        let weather = Weather {
            answer_piece: ringway::protocols::netsvr::limits::ANSWER_PIECE,
            read_on: 3,
            mailbox_messages_max: *pick(&mut rng, &[1, 3, 100]),
            socket_bytes_max: *pick(&mut rng, &[30, 500, 100_000]),
            piece_bytes_max: *pick(&mut rng, &[1, 7, 50, 3000]),
            calm: false,
            jump_every: *pick(&mut rng, &[0, 50]),
            jump_ms_max: 500,
            callback_fails_percent: 0,
            callback_denies_percent: 0,
            callback_verdict: Verdict::default,
        };
        let address = config.netsvr.advertise;
        let settings = |listener: &Listener| ListenerSettings {
            proxy: Default::default(),
            service: listener.service.clone(),
            address,
            bound: listener.bind,
            tls: None,
        };
        let listeners: Vec<_> = config.listeners.iter().map(settings).collect();
        let speaks = |listener: &ListenerSettings| match &listener.service {
            Service::Http(routes) => {
                routes.iter().any(|route| route.protocol == ClientProtocol::Xxim)
            }
            _ => false,
        };
        let listener = listeners.iter().position(speaks).expect("the demo has one");
        let world = World::new(seed, rng.usize(1..=4), config, listeners, weather);
        let (clients, pushes, pushed) = (Vec::new(), Vec::new(), 0);
        let drains = !seed.is_multiple_of(3);
        Story { world, listener, requests_max, patient, drains, clients, pushed, pushes, rng }
    }

    fn enter(&mut self) {
        let peer = self.world.connect(self.listener);
        let ip = self.rng.u8(..3);
        let head = format!(
            "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             X-Forwarded-For: 192.0.2.{ip}\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.world.write(peer, head.as_bytes());
        self.clients.push(Client {
            peer,
            v1: self.rng.bool(),
            keys: None,
            changes: VecDeque::new(),
            asked: HashSet::new(),
            number: 0,
            over: false,
            deaf: false,
        });
        let at = self.clients.len() - 1;
        if self.rng.u8(..4) > 0 {
            self.set_params(at);
            self.set_user(at, "token");
        }
    }

    /// Sends a request under the keys of the moment; gives its reqId.
    fn ask(&mut self, at: usize, method: &str, data: Vec<u8>) -> String {
        let client = &mut self.clients[at];
        let req_id = format!("{at}.{}", client.number);
        client.number += 1;
        client.asked.insert(req_id.clone());
        let (data, method) = (Bytes::from(data), method.to_owned());
        let body = pb::RequestBody { req_id: req_id.clone(), method, data };
        let mut message = body.encode_to_vec();
        if let Some(keys) = &client.keys {
            keys.encrypt(&mut message, 0);
        }
        self.world.write(client.peer, &mask_frame(0x82, [1, 2, 3, 4], &message));
        req_id
    }

    fn set_params(&mut self, at: usize) {
        let device = (*pick(&mut self.rng, &DEVICES)).to_owned();
        if self.clients[at].v1 {
            let inner = pb::CxnParams {
                platform: "ios".to_owned(),
                device_id: device,
                ..Default::default()
            };
            let body = pb::SetCxnParamsReqV1 { cxn_params: Some(inner) }.encode_to_vec();
            let req_id = self.ask(at, V1_PARAMS, body);
            return self.changes(at, req_id, None);
        }
        let mut body = pb::SetCxnParamsReq {
            package_id: device,
            platform: "web".to_owned(),
            ..Default::default()
        };
        let mut keys = None;
        if self.rng.bool() {
            let mut seed = || self.rng.u128(..).to_be_bytes();
            let (key, iv) = (seed(), seed());
            let sealed = |seed: [u8; 16]| Bytes::from([&[SEALED], &seed[..]].concat());
            (body.aes_key, body.aes_iv) = (sealed(key), sealed(iv));
            keys = Some(Rc::new(Cipher::new(&key, &iv)));
        }
        let req_id = self.ask(at, V2_PARAMS, body.encode_to_vec());
        self.changes(at, req_id, keys);
    }

    fn changes(&mut self, at: usize, req_id: String, keys: Keys) {
        let client = &mut self.clients[at];
        client.keys.clone_from(&keys);
        client.changes.push_back((req_id, keys));
    }

    fn set_user(&mut self, at: usize, token: &str) {
        let user_id = (*pick(&mut self.rng, &USERS)).to_owned();
        let body = pb::SetUserParamsReq { user_id, token: token.to_owned(), ..Default::default() };
        let method = if self.clients[at].v1 { V1_USER } else { V2_USER };
        self.ask(at, method, body.encode_to_vec());
    }

    /// A client does something.
    fn act(&mut self) {
        let at = self.rng.usize(..self.clients.len());
        if self.clients[at].over {
            return;
        }
        match self.rng.u8(..40) {
            0..22 => {
                let method = *pick(&mut self.rng, &METHODS);
                let filler = vec![b'x'; self.rng.usize(..40)];
                // A field that nobody knows.
                let data = [&[0x7a, filler.len() as u8], &filler[..]].concat();
                self.ask(at, method, data);
            }
            22..26 => self.set_params(at),
            26..29 => self.set_user(at, "token"),
            29 => self.set_user(at, UNAVAILABLE),
            30 => self.clients[at].deaf ^= true,
            31..34 => self.enter(),
            34 => self.push(),
            35 => self.misbehave(at),
            36 => {
                self.world.hang_up(self.clients[at].peer);
                self.clients[at].over = true;
            }
            37 => {
                self.world.reset(self.clients[at].peer);
                self.clients[at].over = true;
            }
            38 => {
                self.world.write(self.clients[at].peer, &mask_frame(0x81, [0; 4], b"ping"));
            }
            _ => {
                let close = mask_frame(0x88, [9; 4], &1000_u16.to_be_bytes());
                self.world.write(self.clients[at].peer, &close);
                self.clients[at].over = true;
            }
        }
    }

    /// What the gateway must end a connection for.
    fn misbehave(&mut self, at: usize) {
        match self.rng.u8(..3) {
            0 => self.set_user(at, REFUSED),
            1 => {
                let body = pb::SetCxnParamsReq {
                    platform: "web".to_owned(),
                    aes_key: Bytes::from_static(b"no ciphertext"),
                    ..Default::default()
                };
                self.ask(at, V2_PARAMS, body.encode_to_vec());
            }
            _ => {
                let client = &self.clients[at];
                self.world.write(client.peer, &mask_frame(0x82, [5; 4], b"no request"));
                if client.keys.is_none() {
                    // Answered with code 2, under a reqId that is empty.
                    return;
                }
            }
        }
        self.clients[at].over = true;
    }

    fn push(&mut self) {
        let users = match self.rng.bool() {
            true => vec![Box::from(*pick(&mut self.rng, &USERS))],
            false => Vec::new(),
        };
        let filter = PushFilter { users, ..PushFilter::default() };
        self.pushed += 1;
        let data = Bytes::copy_from_slice(&self.pushed.to_be_bytes());
        self.tell(PushRequest::Send { filter, event: 0, data });
    }

    fn tell(&mut self, work: PushRequest) {
        let (reply, replies) = mpsc::unbounded_channel();
        let work = Arc::new(work);
        for shard in 0..self.world.shards().count() {
            let (work, reply) = (work.clone(), reply.clone());
            self.world.tell(shard as u8, Mail::Xxim(Letter::Push { work, reply }));
        }
        self.pushes.push(replies);
    }

    /// Upstreams answer some of their calls, with all kinds of things.
    fn answer(&mut self) {
        let mut under_way: HashMap<ConnId, usize> = HashMap::new();
        for call in &self.world.calls {
            *under_way.entry(call.conn).or_default() += 1;
        }
        let most = under_way.values().max().copied().unwrap_or(0);
        assert!(most <= self.requests_max, "{most} requests of one connection are under way");
        if self.world.calls.is_empty() || self.rng.bool() {
            return;
        }
        let at = self.rng.usize(..self.world.calls.len());
        let call = self.world.calls.swap_remove(at);
        let answer = |number, result| {
            Mail::Xxim(Letter::UpstreamAnswered { conn: call.conn, number, result })
        };
        let result = match self.rng.u8(..6) {
            0 => UpstreamResult { code: 8, data: common_resp(8, Some("later")) },
            1 => {
                let data = vec![0; RESPONSE_BYTES_MAX + 1].into();
                UpstreamResult { code: 0, data }
            }
            _ => UpstreamResult { code: 0, data: call.call.body.clone() },
        };
        let shard = call.conn.shard();
        self.world.tell(shard, answer(call.number, result.clone()));
        // Answers that nobody asked for: again, and under another number.
        match self.rng.u8(..8) {
            0 => self.world.tell(shard, answer(call.number, result)),
            1 => self.world.tell(shard, answer(call.number.wrapping_add(1 << 20), result)),
            _ => {}
        }
    }

    fn go_on(&mut self, steps: usize) {
        for _ in 0..steps {
            self.world.step();
            self.answer();
            for client in &self.clients {
                if !client.deaf && self.rng.u8(..3) > 0 {
                    self.world.read(client.peer, 1 << 20);
                }
            }
        }
    }

    /// Until nothing moves: upstreams have given up, whoever waits for its turn has had it.
    fn rest(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            self.world.settle(50_000);
            let mut moved = 0;
            for client in &self.clients {
                moved += self.world.read(client.peer, usize::MAX).len();
            }
            for call in std::mem::take(&mut self.world.calls) {
                let result = UpstreamResult { code: 8, data: common_resp(8, None) };
                let mail = Mail::Xxim(Letter::UpstreamAnswered {
                    conn: call.conn,
                    number: call.number,
                    result,
                });
                self.world.tell(call.conn.shard(), mail);
                moved += 1;
            }
            moved += self
                .world
                .shards()
                .map(|shard| shard.report().1.xxim_keys_waiting as usize)
                .sum::<usize>();
            // A client that has left is seen by nobody while it is asked about.
            moved += self.world.questions();
            self.world.pass(if moved == 0 { 300 } else { 100 });
            quiet = if moved == 0 { quiet + 1 } else { 0 };
        }
        self.world.audit(FRAME_BYTES_MAX, 1);
    }

    fn tell_story(&mut self) {
        (0..4).for_each(|_| self.enter());
        for _ in 0..self.rng.usize(50..200) {
            self.act();
            let steps = self.rng.usize(..6);
            self.go_on(steps);
        }
        self.rest();
    }

    /// Whether the gateway still serves this client.
    fn is_served(&self, client: &Client) -> bool {
        let socket = self.world.socket(client.peer);
        !client.over && !socket.closed && !socket.outbound_ended
    }

    fn check(&mut self) -> usize {
        let (mut answers, mut pushed) = (0, 0);
        let heard: Vec<Heard> = self
            .clients
            .iter()
            .map(|client| heard(client, &self.world.socket(client.peer).written))
            .collect();
        for (client, heard) in self.clients.iter().zip(&heard) {
            answers += heard.codes.len();
            pushed += heard.pushes.len();
            assert!(heard.pushes.is_sorted_by(|one, two| one < two), "{:?}", heard.pushes);
            let parted = |close: &(u16, String)| close.0 == 1008 || *close == (1000, String::new());
            let parted = self.patient && heard.close.as_ref().is_some_and(parted);
            if parted || self.is_served(client) && heard.close.is_none() {
                let missing: Vec<_> =
                    client.asked.iter().filter(|id| !heard.codes.contains_key(*id)).collect();
                assert!(missing.is_empty(), "no answer to {missing:?}");
            }
        }
        self.check_places(&heard);
        self.drain();
        for mut replies in std::mem::take(&mut self.pushes) {
            let mut shards = 0;
            while replies.try_recv().is_ok() {
                shards += 1;
            }
            assert_eq!(shards, self.world.shards().count(), "shards that say what became of it");
        }
        self.clients.iter().for_each(|client| self.world.hang_up(client.peer));
        self.rest();
        self.world.shards().for_each(|shard| shard.audit_empty());
        answers + pushed
    }

    /// The gateway drains: what upstreams have is answered before the goodbye.
    fn drain(&mut self) {
        if !self.drains {
            return;
        }
        for at in 0..self.clients.len() {
            (0..self.rng.usize(..4)).for_each(|_| _ = self.ask(at, METHODS[1], Vec::new()));
        }
        let turns = self.rng.usize(..20);
        (0..turns).for_each(|_| self.world.step());
        let served: Vec<_> = self.clients.iter().map(|client| self.is_served(client)).collect();
        let asked: Vec<_> =
            self.world.calls.iter().map(|call| (call.conn, call.call.req_id.clone())).collect();
        self.world.tell_all(|| Mail::Drain(Box::default()));
        self.rest();
        for (client, served) in self.clients.iter().zip(served).filter(|_| self.patient) {
            let socket = self.world.socket(client.peer);
            let heard = heard(client, &socket.written);
            let own = asked.iter().filter(|(conn, _)| Some(*conn) == socket.id);
            for (_, req_id) in own.filter(|_| !client.over) {
                let req_id = String::from_utf8_lossy(req_id);
                assert!(heard.codes.contains_key(&*req_id), "no answer to {req_id}");
            }
            assert!(!served || heard.close.is_some(), "no goodbye");
        }
    }

    /// One connection for each user, platform and device, and it is one that is served.
    fn check_places(&mut self, heard: &[Heard]) {
        self.tell(PushRequest::Get { filter: PushFilter::default() });
        self.world.settle(50_000);
        let mut replies = self.pushes.pop().expect("it was just asked");
        let mut found = Vec::new();
        while let Ok(part) = replies.try_recv() {
            found.extend(part.success);
        }
        let places: HashSet<_> = found
            .iter()
            .map(|one| (&one.identity.user_id, &one.identity.platform, &one.identity.device_id))
            .collect();
        assert_eq!(places.len(), found.len(), "two connections hold one place");
        let served: HashSet<Option<ConnId>> = self
            .clients
            .iter()
            .zip(heard)
            .filter(|(client, heard)| self.is_served(client) && heard.close.is_none())
            .map(|(client, _)| self.world.socket(client.peer).id)
            .collect();
        // Those that have left in the middle of a close handshake hold theirs a moment longer.
        let held: usize = self.world.shards().map(|shard| shard.xxim_held()).sum();
        assert!(held >= found.len(), "{held} places for {} connections", found.len());
        for one in &found {
            let gone = self
                .clients
                .iter()
                .any(|client| client.over && self.world.socket(client.peer).id == Some(one.conn));
            assert!(gone || served.contains(&Some(one.conn)), "{one:?} is not served");
        }
    }
}

/// Says on the way out of a failure which seed it was.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

/// Tells the story of a seed; gives how many answers and pushes there were.
fn run(seed: u64) -> usize {
    let _seed = Seed(seed);
    let mut story = Story::new(seed);
    story.tell_story();
    story.check()
}

fn chapter(number: u64) {
    let heard: usize = (number * 100..(number + 1) * 100).map(run).sum();
    assert!(heard > 2000, "only {heard} answers and pushes");
}

/// Stories that have shown something: connections that were never read again when their keys or
/// logins came while the shard was full, and a push behind the answer to a close frame.
#[test]
fn stories_that_ended_badly_once() {
    [66, 163, 223, 1868].into_iter().for_each(|seed| _ = run(seed));
}

#[test]
fn stories_0_to_99() {
    chapter(0);
}

#[test]
fn stories_100_to_199() {
    chapter(1);
}

#[test]
fn stories_200_to_299() {
    chapter(2);
}

#[test]
fn digests() {
    digests::check("xxim", |seed| {
        let mut story = Story::new(seed);
        story.tell_story();
        story.check();
        story.world.digest()
    });
}

/// `RINGWAY_SEED` or `RINGWAY_SEEDS`; without them there is nothing to replay.
#[test]
fn replay() {
    let number = |text: &str| text.trim().parse::<u64>().expect("a seed is a number");
    if let Ok(seed) = std::env::var("RINGWAY_SEED") {
        println!("{} answers and pushes", run(number(&seed)));
    }
    if let Ok(seeds) = std::env::var("RINGWAY_SEEDS") {
        let (first, end) = seeds.split_once("..").expect("RINGWAY_SEEDS is first..end");
        println!("{} answers and pushes", (number(first)..number(end)).map(run).sum::<usize>());
    }
}
