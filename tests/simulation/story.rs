//! A story: what the clients do, how time passes, how it ends. What the backends do is in
//! [`commands`](crate::commands).

use std::collections::HashMap;

use fastrand::Rng;
use prost::Message;
use ringway::engine::ops::Machine;
use ringway::lists::letters::Mail;
use ringway::protocols::netsvr::wire::Generation;
use ringway::sim::{Peer, World};
use ringway::wire::worker::UniqIds;
use ringway::wire::worker::proto::{Cmd, RegisterResp};

use crate::peers::{Business, Client, Expect, Kind, REFUSED};
use crate::plan::{
    CLIENTS, Ending, PAYLOAD_BYTES_MAX, Plan, VERDICT_SESSION, VERDICT_TOPIC, VERDICT_USER,
};
use crate::streams::{self, Frame, Told, told};

/// Rounds of turns after which the gateway must have come to rest.
const ROUNDS_MAX: usize = 50_000;
/// The largest frame that a backend makes the gateway push.
const FRAME_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + 100;
/// Longest time-out of the configuration.
const TIMEOUT_MS_MAX: u64 = 120_000;

/// Whom a push may reach.
#[derive(Clone, Debug)]
pub enum To {
    Clients(Vec<usize>),
    Anyone,
}

/// A numbered payload of a backend.
#[derive(Clone, Debug)]
pub struct Push {
    pub to: To,
    /// How often one client may get it.
    pub copies: usize,
    /// It is carried out later, in no order with the others.
    pub delayed: bool,
}

/// A push that a steady client must get.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    pub client: usize,
    pub push: (usize, usize),
    pub copies: usize,
}

/// See the module.
pub struct Story {
    pub plan: Plan,
    pub rng: Rng,
    pub world: World,
    pub ids: UniqIds,
    pub clients: Vec<Client>,
    pub businesses: Vec<Business>,
    /// By backend connection and number.
    pub pushes: HashMap<(usize, usize), Push>,
    pub dues: Vec<Due>,
    pub generation5: bool,
    pub rested: bool,
}

impl Story {
    pub fn new(seed: u64) -> Story {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::new(&mut rng);
        let (config, listeners) = (plan.config.clone(), Plan::listeners(&plan.config));
        let world = World::new(seed, plan.shards, config, listeners, plan.weather);
        let netsvr = &plan.config.netsvr;
        Story {
            rng,
            world,
            ids: UniqIds::new(netsvr.advertise),
            clients: Vec::new(),
            businesses: Vec::new(),
            pushes: HashMap::new(),
            dues: Vec::new(),
            generation5: netsvr.generation == Generation::G5,
            rested: false,
            plan,
        }
    }

    /// Everything, up to the moment at which nobody is left.
    pub fn tell(&mut self) {
        if self.rng.u8(..5) > 0 {
            self.first_worker();
        }
        for _ in 0..self.plan.actions {
            match self.rng.bool() {
                true => self.client_action(),
                false => self.business_action(),
            }
            let turns = self.rng.usize(..8);
            self.turns(turns);
        }
        match self.plan.ending {
            Ending::Leave => {
                self.rest();
                self.leave();
            }
            Ending::Drain => self.drain(),
        }
        self.world.shards().for_each(|shard| shard.audit_empty());
        assert_eq!(self.world.counts(), (0, 0), "connections and clients online are left");
    }

    /// Lets time pass; who reads, reads.
    pub fn turns(&mut self, turns: usize) {
        for _ in 0..turns {
            self.world.step();
            self.read();
            self.write();
        }
        self.observe();
        self.audit();
    }

    fn audit(&self) {
        self.world.audit(FRAME_BYTES_MAX, self.businesses.len());
        for shard in self.world.shards().filter(|shard| shard.drained()) {
            let (_, gauges) = shard.report();
            assert_eq!((gauges.clients, gauges.event_queue_frames), (0, 0), "drained too early");
        }
    }

    fn peers(&self) -> impl Iterator<Item = (Peer, bool)> + use<'_> {
        let clients = self.clients.iter().map(|client| (client.peer, client.reading));
        clients.chain(self.businesses.iter().map(|business| (business.peer, business.reading)))
    }

    /// Whoever reads does; says whether there was anything.
    fn read(&mut self) -> bool {
        let reading: Vec<Peer> =
            self.peers().filter(|(_, reading)| *reading).map(|(peer, _)| peer).collect();
        let mut any = false;
        for peer in reading {
            let whole = self.rested || self.rng.bool();
            let bytes_max = if whole { usize::MAX } else { self.rng.usize(..300) };
            any |= !self.world.read(peer, bytes_max).is_empty();
        }
        any
    }

    /// Peers write what they have begun.
    fn write(&mut self) {
        let clients = self.clients.iter_mut().map(|client| (client.peer, &mut client.pending));
        let businesses = self.businesses.iter_mut().map(|b| (b.peer, &mut b.pending));
        for (peer, pending) in clients.chain(businesses) {
            let bytes = match self.rested {
                true => pending.take_all(),
                false => pending.take(&mut self.rng),
            };
            self.world.write(peer, &bytes);
        }
    }

    /// Looks at what came to the business connections.
    pub fn observe(&mut self) {
        for index in 0..self.businesses.len() {
            loop {
                let business = &mut self.businesses[index];
                let written = &self.world.socket(business.peer).written;
                let Some((frame, size)) = told(&written[business.seen..], self.generation5) else {
                    break;
                };
                business.seen += size;
                let Told::Answer { cmd, body } = frame else { continue };
                let place = business.answers;
                business.answers += 1;
                let Some(question) = business.questions.get(place) else { continue };
                match question.expect {
                    Expect::Registered(0) if cmd == Cmd::Register => {
                        let answer = RegisterResp::decode(body).expect("checked at the end");
                        business.name = Some(answer.conn_id);
                    }
                    Expect::Unregistered(Some(worker)) => {
                        let peer = self.businesses[worker].peer;
                        let len = self.world.socket(peer).written.len();
                        self.businesses[worker].silent_from.get_or_insert(len);
                    }
                    _ => {}
                }
            }
        }
    }

    /// A client or business connection of those that the filter wants.
    pub fn any_client(&mut self, wanted: impl Fn(&Client) -> bool) -> Option<usize> {
        let wanted = self.clients.iter().filter(|client| wanted(client));
        let found: Vec<usize> = wanted.map(|client| client.number).collect();
        (!found.is_empty()).then(|| found[self.rng.usize(..found.len())])
    }

    fn client_action(&mut self) {
        match self.rng.u8(..100) {
            0..30 => self.connect(),
            30..70 => {
                if let Some(client) = self.any_client(Client::talks) {
                    for _ in 0..self.rng.usize(1..5) {
                        self.message(client);
                    }
                }
            }
            70..78 => {
                if let Some(client) = self.any_client(Client::talks) {
                    self.alive(client);
                }
            }
            78..84 => {
                if let Some(client) = self.any_client(|client| !client.steady) {
                    self.clients[client].reading ^= true;
                }
            }
            84..92 => {
                if let Some(client) = self.any_client(|client| !client.steady && !client.left) {
                    self.go(client);
                }
            }
            92..97 => {
                let rude = |c: &Client| !c.steady && c.kind == Kind::Netsvr && c.talks();
                if let Some(client) = self.any_client(rude) {
                    self.break_the_protocol(client);
                }
            }
            _ => {}
        }
    }

    fn connect(&mut self) {
        if self.clients.iter().filter(|client| !client.gone).count() >= self.plan.clients_max {
            return;
        }
        let calm = !self.plan.hasty && self.plan.ending == Ending::Leave;
        let kind = match self.rng.u8(..100) {
            0..8 if calm => Kind::Echo,
            8..14 => Kind::Refused(self.rng.usize(..REFUSED.len())),
            14..17 => Kind::Silent,
            _ => Kind::Netsvr,
        };
        let steady = match kind {
            Kind::Netsvr => calm && self.rng.bool(),
            Kind::Echo => true,
            Kind::Refused(_) | Kind::Silent => false,
        };
        let peer = self.world.connect(CLIENTS);
        let mut client = Client::new(peer, self.clients.len(), kind, steady);
        client.deflate = self.rng.bool();
        if self.plan.verdicts && self.plan.config.netsvr.customer.on_open_callback_api.is_some() {
            client.known.session = VERDICT_SESSION.to_owned();
            client.known.user = VERDICT_USER.to_owned();
            client.known.topics.insert(VERDICT_TOPIC.to_owned());
        }
        let request = client.request();
        client.pending.push(&request);
        let number = client.number;
        self.clients.push(client);
        // Often the first messages come right behind the request.
        if self.clients[number].talks() && self.rng.u8(..3) == 0 {
            self.message(number);
        }
    }

    fn message(&mut self, client: usize) {
        let len = match self.rng.u8(..10) {
            0 => self.rng.usize(..900),
            _ => self.rng.usize(..40),
        };
        let deflated = self.plan.config.netsvr.customer.compression_level != 0;
        self.clients[client].message(&mut self.rng, len, deflated);
    }

    fn alive(&mut self, client: usize) {
        let client = &mut self.clients[client];
        if self.plan.heartbeats && client.kind == Kind::Netsvr {
            let text = self.plan.config.netsvr.customer.heartbeat_message.clone();
            client.heartbeats += 1;
            client.frame(&mut self.rng, 0x82, &text);
        } else if !self.plan.heartbeats {
            client.pings += 1;
            let payload = format!("ping {}", client.pings);
            client.frame(&mut self.rng, 0x89, payload.as_bytes());
        }
    }

    /// A client leaves, in one way or the other.
    fn go(&mut self, client: usize) {
        let client = &mut self.clients[client];
        let whole = self.rng.bool();
        match self.rng.u8(..4) {
            0 if client.talks() => {
                let payload: &[u8] = if self.rng.bool() { b"\x03\xe8bye" } else { b"" };
                client.closes.push(payload.to_vec());
                client.frame(&mut self.rng, 0x88, payload);
                client.done = true;
            }
            1 => {
                self.world.write(client.peer, &client.pending.take_all());
                self.world.end(client.peer);
                client.left = true;
                client.ended_open = self.world.is_open(client.peer);
            }
            way => {
                if whole {
                    self.world.write(client.peer, &client.pending.take_all());
                }
                match way {
                    2 => self.world.reset(client.peer),
                    _ => self.world.hang_up(client.peer),
                }
                client.pending.take_all();
                (client.left, client.gone) = (true, true);
            }
        }
    }

    fn break_the_protocol(&mut self, client: usize) {
        let limit = self.plan.config.netsvr.customer.receive_pack_limit as u64;
        let negotiated = self.plan.config.netsvr.customer.compression_level != 0;
        let client = &mut self.clients[client];
        let rsv = match negotiated && client.deflate {
            true => "RSV1 must be 0 or 4",
            false => "RSV1 bits must be 0 without extensions",
        };
        let masked = |first: u8, payload: &[u8]| {
            ringway::wire::websocket::mask_frame(first, [1, 2, 3, 4], payload)
        };
        let long = |len: u64| [&[0x82, 0xff][..], &len.to_be_bytes()].concat();
        let shortest = |len: u64| match u16::try_from(len) {
            Ok(len) => [&[0x82, 0xfe][..], &len.to_be_bytes()].concat(),
            Err(_) => long(len),
        };
        let inside = [masked(0x01, b"a"), masked(0x81, b"b")].concat();
        let (bytes, code, text): (Vec<u8>, u16, &str) = match self.rng.u8(..14) {
            0 => (b"\x81\x02hi".to_vec(), 1002, "client must mask data"),
            1 => (masked(0x83, b"a"), 1002, "unsupported opcode"),
            2 => (masked(0xa1, b"a"), 1002, rsv),
            3 => (masked(0x09, b"a"), 1002, "control message MUST NOT be fragmented"),
            4 => {
                let text = "unexpected continuation frame: no message to continue";
                (masked(0x80, b"a"), 1002, text)
            }
            5 => (inside, 1002, "non-first fragment must be continuation"),
            6 => (masked(0x89, &[7; 126]), 1002, "control frame too long"),
            7 => (masked(0x81, b"\xff\xfe"), 1007, "invalid utf8 in text message"),
            8 => (masked(0x88, b"\x03"), 1002, "close frame payload length invalid"),
            9 => (masked(0x88, b"\x03\xe7"), 1002, "invalid close status code"),
            10 => (masked(0x88, b"\x03\xe8\xff"), 1007, "invalid utf8 in text message"),
            11 => (shortest(limit + 1), 1009, "message too big"),
            12 => (long(65_535), 1002, "payload length must have its shortest form"),
            _ => (long(1 << 63), 1002, "the most significant bit must be 0"),
        };
        client.pending.push(&bytes);
        client.closes.push([&code.to_be_bytes()[..], text.as_bytes()].concat());
        client.done = true;
    }

    /// Everybody reads and nobody writes, until nothing moves any more.
    fn calm(&mut self) {
        self.rested = true;
        self.clients.iter_mut().for_each(|client| client.reading = true);
        self.businesses.iter_mut().for_each(|business| business.reading = true);
        let mut quiet = 0;
        while quiet < 10 {
            self.write();
            self.world.settle(ROUNDS_MAX);
            let moved = self.read() || self.world.questions() > 0;
            quiet = if moved { 0 } else { quiet + 1 };
            self.world.pass(7);
            self.observe();
        }
        self.audit();
    }

    /// With everybody reading, nothing waits.
    fn rest(&mut self) {
        self.calm();
        for (_, gauges) in self.world.shards().map(|shard| shard.report()) {
            assert_eq!(gauges.event_queue_frames, 0, "events wait though all workers read");
            assert_eq!(gauges.clients_waiting, 0, "clients wait though there is room");
            assert_eq!(gauges.connections_stalled, 0, "sends are stalled though all read");
        }
        for (peer, _) in self.peers() {
            let socket = self.world.socket(peer);
            let read = socket.inbound.is_empty() && !socket.paused;
            assert!(socket.closed || read, "a peer is not read: {peer:?}");
        }
        for client in &mut self.clients {
            let socket = self.world.socket(client.peer);
            client.survived = match client.kind {
                Kind::Netsvr => {
                    let frames = streams::client(&socket.sent).frames;
                    let closing = matches!(frames.last(), Some(Frame::Close(_)));
                    client.steady && !closing && self.world.is_open(client.peer)
                }
                Kind::Echo => !socket.closed,
                Kind::Refused(_) | Kind::Silent => socket.id.is_some() && !self.plan.hasty,
            };
        }
        for business in &mut self.businesses {
            business.lost |= self.world.socket(business.peer).closed;
        }
        self.clients.iter_mut().for_each(|client| client.survived &= !client.left);
    }

    /// Everybody leaves, or stays away until the time is up.
    fn leave(&mut self) {
        let backends_first = self.rng.u8(..4) == 0;
        for turn in 0..2 {
            if backends_first == (turn == 0) {
                for index in 0..self.businesses.len() {
                    let peer = self.businesses[index].peer;
                    let way = self.rng.u8(..3);
                    match way {
                        0 => self.world.hang_up(peer),
                        1 => self.world.reset(peer),
                        _ => {}
                    }
                    self.businesses[index].leaves |= way < 2;
                    self.turns(1);
                }
            } else {
                for client in 0..self.clients.len() {
                    if !self.clients[client].left && self.rng.u8(..4) > 0 {
                        self.go(client);
                    }
                    self.turns(1);
                }
            }
            self.calm();
        }
        self.run_out();
    }

    /// All that is due happens, until nobody is left.
    fn run_out(&mut self) {
        let end_ms = self.world.now_ms() + TIMEOUT_MS_MAX + 15_000;
        while self.world.now_ms() < end_ms || self.world.questions() > 0 {
            self.world.pass(2500);
            self.world.settle(ROUNDS_MAX);
            self.read();
        }
        self.observe();
    }

    /// SIGTERM in the middle of it all (netsvr section 9.1).
    fn drain(&mut self) {
        self.world.tell_all(|| Mail::Drain(Box::default()));
        let turns = self.rng.usize(..30);
        self.turns(turns);
        self.calm();
        // Nobody answers the close frames, so this takes until `close_timeout`.
        for _ in 0..10 {
            self.world.pass(250);
            self.calm();
        }
        for shard in self.world.shards() {
            assert!(shard.drained(), "the gateway does not finish draining");
        }
        self.world.tell_all(|| Mail::Stop);
        for _ in 0..10 {
            self.calm();
            self.world.pass(250);
        }
        for shard in self.world.shards() {
            assert!(shard.engine.stopped(), "the gateway does not end");
        }
        self.run_out();
    }

    /// The uniqId of a client that was accepted.
    pub fn uniq_id(&self, client: usize) -> Option<String> {
        let id = self.world.socket(self.clients[client].peer).id?;
        let text = self.ids.encode(id);
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// Whether a client is registered and well.
    pub fn is_open(&self, client: usize) -> bool {
        let client = &self.clients[client];
        client.kind == Kind::Netsvr && !client.left && self.world.is_open(client.peer)
    }
}
