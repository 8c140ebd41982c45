//! One scenario over the simulated gateway, for counting instructions: `instructions SCENARIO N`
//! carries N messages and ends. Runs with two different N under callgrind differ by what the shards
//! did for the messages between them; `perf/instructions.sh` does that.
//!
//! The gateway has one shard and the allocator of the real program. Nothing is random: what peers
//! write arrives whole and in the next turn. What peers, "kernel" and simulation do is not counted
//! (`sim::of_shard`). A message is what the table of SCENARIOS says.

#![forbid(unsafe_code)]

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;

use prost::Message;
use ringway::engine::ListenerSettings;
use ringway::engine::ring::PageAllocator;
use ringway::lists::letters::Mail;
use ringway::protocols::im::wire::proto::{ChatroomRequest, CrMessage, LoginRequest};
use ringway::protocols::im::wire::{ByteOrder, Header};
use ringway::protocols::netsvr::wire::Verdict;
use ringway::protocols::xxim::letters::{Letter, UpstreamResult};
use ringway::protocols::xxim::wire::proto as xxim;
use ringway::sim::{Call, Peer, Weather, World};
use ringway::wire::websocket::mask_frame;
use ringway::wire::worker::Cmd;
use ringway::wire::worker::proto::{
    ConnInfoUpdate, ConnOpen6, RegisterReq, SingleCast, TopicPublish, Transfer,
};

#[global_allocator]
static ALLOCATOR: PageAllocator<mimalloc::MiMalloc> = PageAllocator(mimalloc::MiMalloc);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const CONFIG: &str = r#"
[[listener]]
bind = "127.0.0.1:1"
routes = [
  { path = "/netsvr", protocol = "netsvr" },
  { path = "/echo", protocol = "echo" },
  { path = "/chat", protocol = "connmix" },
  { path = "/ws", protocol = "xxim" },
]

[[listener]]
bind = "127.0.0.1:2"
protocol = "netsvr-worker"

[[listener]]
bind = "127.0.0.1:3"
protocol = "connmix-api"

[[listener]]
bind = "127.0.0.1:4"
protocol = "im"

[[connmix.server]]
name = "chat"
read_timeout = "1h"

[[connmix.server.rule]]
on = "message"
do = [ { push = { topic = "perf", include = ["frame"] } } ]

[netsvr.customer]
heartbeat_interval = "1h"
limit_window_max_requests = 4294967295
limit_zero_window_max_requests = 4294967295

[[xxim.upstream]]
name = "msg"
url = "http://127.0.0.1:5"

[[xxim.route]]
prefix = "/v1/msg/"
upstream = "msg"

[im]
idle_timeout = "1h"
login_timeout = "1h"
announce_join = false
forward = "no"
cms_rate = 0
request_rate = 0
"#;

const CLIENTS: usize = 0;
const WORKERS: usize = 1;
const API: usize = 2;
const IM: usize = 3;

const WEATHER: Weather = Weather {
    answer_piece: ringway::protocols::netsvr::limits::ANSWER_PIECE,
    read_on: 256,
    mailbox_messages_max: 1 << 20,
    socket_bytes_max: 1 << 30,
    piece_bytes_max: 4096,
    calm: true,
    jump_every: 0,
    jump_ms_max: 0,
    callback_fails_percent: 0,
    callback_denies_percent: 0,
    callback_verdict: Verdict::default,
};

/// Turns until nothing moves, at the most.
const ROUNDS_MAX: usize = 100_000;
/// Members, and receivers of casts. Messages come in multiples of it.
const MANY: usize = 1000;
/// Clients whose messages arrive in the same turn, and requests of one that do.
const CROWD: usize = 100;
const REQUESTS: usize = 50;
const PAYLOAD: [u8; 64] = [b'.'; 64];

/// A scenario: its name, what one message is, how many are carried, and who carries them.
type Scenario = (&'static str, &'static str, fn(&mut Rig, usize) -> Result<()>);

const SCENARIOS: &[Scenario] = &[
    ("echo", "a message to a client and back", echo),
    ("transfer", "a message of a client that a worker gets", transfer),
    ("roundtrip", "a message to a worker and its answer to the client", roundtrip),
    ("publish", "a delivery of a publish to 1,000 members", publish),
    ("unicast", "a message of a worker to one of 1,000 clients", unicast),
    ("room", "a delivery in a room of 1,000 members", room),
    ("queue", "a message of a client that a consumer gets", queue),
    ("api-publish", "a request over HTTP, to a channel that nobody has", api_publish),
    ("xxim", "a request of a client and the answer of its upstream", xxim),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let chosen = match &arguments[..] {
        [name, count] => {
            let scenario = SCENARIOS.iter().find(|(known, ..)| known == name);
            scenario.zip(count.parse().ok().filter(|count| count % MANY == 0))
        }
        _ => None,
    };
    let Some((&(.., carry), count)) = chosen else {
        SCENARIOS.iter().for_each(|(name, message, _)| println!("{name}\t{message}"));
        eprintln!("usage: instructions SCENARIO MESSAGES, a multiple of {MANY}");
        return ExitCode::FAILURE;
    };
    match Rig::new().and_then(|mut rig| carry(&mut rig, count)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A gateway of one shard and its peers.
struct Rig {
    world: World,
    clients: Vec<Peer>,
}

impl Rig {
    fn new() -> Result<Rig> {
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile()?;
        file.write_all(CONFIG.as_bytes())?;
        let config = ringway::config::all::load_with(file.path(), [])?.config;
        let settings = |listener: &ringway::config::model::Listener| ListenerSettings {
            service: listener.service.clone(),
            proxy: listener.proxy,
            address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1),
            bound: listener.bind,
            tls: None,
        };
        let listeners = config.listeners.iter().map(settings).collect();
        let world = World::new(1, 1, config, listeners, WEATHER);
        Ok(Rig { world, clients: Vec::new() })
    }

    /// Until nothing moves.
    fn settle(&mut self) {
        self.world.settle(ROUNDS_MAX);
    }

    /// Until what is to happen soon has happened, and nothing moves.
    fn rest(&mut self) {
        for _ in 0..3 {
            self.settle();
            self.world.pass(500);
        }
        self.settle();
    }

    fn client(&mut self, path: &str) -> Peer {
        self.websocket(CLIENTS, path)
    }

    fn websocket(&mut self, listener: usize, path: &str) -> Peer {
        let peer = self.world.connect(listener);
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        self.world.write(peer, head.as_bytes());
        self.clients.push(peer);
        peer
    }

    /// So many clients of a path; what they were told so far is read.
    fn clients(&mut self, count: usize, path: &str) {
        (0..count).for_each(|_| _ = self.client(path));
        self.settle();
        self.read_all();
    }

    /// A worker that hears what `events` says. The clients that come later are told to it.
    fn worker(&mut self, events: i32) -> Peer {
        let worker = self.world.connect(WORKERS);
        let register = RegisterReq { events, ..RegisterReq::default() };
        self.world.write(worker, &command(Cmd::Register, &register));
        self.settle();
        // The gateway holds events back for a moment after it.
        self.rest();
        self.world.read(worker, usize::MAX);
        worker
    }

    /// The uniqIds of netsvr clients, as a worker is told of them.
    fn netsvr_clients(&mut self, count: usize, worker: Peer) -> Result<Vec<String>> {
        self.clients(count, "/netsvr");
        let told = self.world.read(worker, usize::MAX);
        let mut uniq_ids = Vec::new();
        for (cmd, body) in commands(&told) {
            if cmd == Cmd::ConnOpen.number() {
                uniq_ids.push(ConnOpen6::decode(body)?.uniq_id);
            }
        }
        expect("clients that were opened", uniq_ids.len(), count)?;
        Ok(uniq_ids)
    }

    /// All clients write the same.
    fn write_all(&mut self, bytes: &[u8]) {
        let Rig { world, clients } = self;
        clients.iter().for_each(|&client| world.write(client, bytes));
    }

    /// Everybody reads; gives how many bytes came.
    fn read_all(&mut self) -> usize {
        let Rig { world, clients } = self;
        clients.iter().map(|&client| world.read(client, usize::MAX).len()).sum()
    }
}

fn expect(what: &str, found: usize, wanted: usize) -> Result<()> {
    (found == wanted).then_some(()).ok_or_else(|| format!("{what}: {found}, not {wanted}").into())
}

fn command(cmd: Cmd, message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let length = (4 + body.len() as u32).to_be_bytes();
    [&length[..], &cmd.number().to_be_bytes(), &body].concat()
}

/// Numbers and bodies of the frames of a business connection.
fn commands(mut bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (frame, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let (number, body) = frame.split_first_chunk::<4>()?;
        bytes = rest;
        Some((u32::from_be_bytes(*number), body))
    })
}

/// How often a part occurs that does not overlap itself.
fn occurrences(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).filter(|&found| found == part).count()
}

fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    mask_frame(opcode, [0x5a, 0x17, 0xc3, 0x99], payload)
}

const ON_OPEN: i32 = 1;
const ON_MESSAGE: i32 = 4;
/// Length of a frame to a client whose payload is `PAYLOAD`.
const FRAME_BYTES: usize = 2 + PAYLOAD.len();

fn echo(rig: &mut Rig, count: usize) -> Result<()> {
    rig.clients(CROWD, "/echo");
    let message = masked(0x82, &PAYLOAD);
    for _ in 0..count / CROWD {
        rig.write_all(&message);
        rig.settle();
        expect("bytes of echoes", rig.read_all(), CROWD * FRAME_BYTES)?;
    }
    Ok(())
}

fn transfer(rig: &mut Rig, count: usize) -> Result<()> {
    let worker = rig.worker(ON_OPEN | ON_MESSAGE);
    rig.netsvr_clients(CROWD, worker)?;
    let message = masked(0x82, &PAYLOAD);
    for _ in 0..count / CROWD {
        rig.write_all(&message);
        rig.settle();
        let told = rig.world.read(worker, usize::MAX);
        expect("events", commands(&told).count(), CROWD)?;
    }
    Ok(())
}

fn roundtrip(rig: &mut Rig, count: usize) -> Result<()> {
    let worker = rig.worker(ON_OPEN | ON_MESSAGE);
    rig.netsvr_clients(CROWD, worker)?;
    let message = masked(0x82, &PAYLOAD);
    for _ in 0..count / CROWD {
        rig.write_all(&message);
        rig.settle();
        let told = rig.world.read(worker, usize::MAX);
        for (_, body) in commands(&told) {
            let Transfer { uniq_id, data, .. } = Transfer::decode(body)?;
            let answer = command(Cmd::SingleCast, &SingleCast { uniq_id, data });
            rig.world.write(worker, &answer);
        }
        rig.settle();
        expect("bytes of answers", rig.read_all(), CROWD * FRAME_BYTES)?;
    }
    Ok(())
}

fn publish(rig: &mut Rig, count: usize) -> Result<()> {
    let worker = rig.worker(ON_OPEN);
    for uniq_id in rig.netsvr_clients(MANY, worker)? {
        let new_topics = vec!["perf".to_owned()];
        let update = ConnInfoUpdate { uniq_id, new_topics, ..ConnInfoUpdate::default() };
        rig.world.write(worker, &command(Cmd::ConnInfoUpdate, &update));
    }
    rig.settle();
    let topics = vec!["perf".to_owned()];
    let publish = TopicPublish { topics, data: PAYLOAD.to_vec().into() };
    let publish = command(Cmd::TopicPublish, &publish);
    for _ in 0..count / MANY {
        rig.world.write(worker, &publish);
        rig.settle();
        expect("bytes of a publish", rig.read_all(), MANY * FRAME_BYTES)?;
    }
    Ok(())
}

fn unicast(rig: &mut Rig, count: usize) -> Result<()> {
    let worker = rig.worker(ON_OPEN);
    let uniq_ids = rig.netsvr_clients(MANY, worker)?;
    let cast = |uniq_id: &String| {
        let data = PAYLOAD.to_vec().into();
        command(Cmd::SingleCast, &SingleCast { uniq_id: uniq_id.clone(), data })
    };
    let all = uniq_ids.iter().map(cast).collect::<Vec<_>>().concat();
    for _ in 0..count / MANY {
        rig.world.write(worker, &all);
        rig.settle();
        expect("bytes of casts", rig.read_all(), MANY * FRAME_BYTES)?;
    }
    Ok(())
}

fn im_frame(command: u8, message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let header = Header { len: body.len() as u32, seq: 1, command, flag: 0x10, status: 0 };
    [&header.bytes(ByteOrder::Big)[..], &body].concat()
}

fn room(rig: &mut Rig, count: usize) -> Result<()> {
    const LOGIN: u8 = 1;
    const JOIN: u8 = 5;
    const CMS: u8 = 7;
    let room = "perf".to_owned();
    for number in 0..MANY {
        let member = rig.world.connect(IM);
        let login = LoginRequest { token: "token".to_owned(), user_id: format!("user-{number}") };
        rig.world.write(member, &im_frame(LOGIN, &login));
        let join = ChatroomRequest { chatroom_id: room.clone() };
        rig.world.write(member, &im_frame(JOIN, &join));
        rig.clients.push(member);
    }
    rig.rest();
    rig.read_all();
    let message_content = PAYLOAD.to_vec().into();
    let message = CrMessage { message_content, to: room, ..CrMessage::default() };
    let message = im_frame(CMS, &message);
    for number in 0..count / MANY {
        rig.world.write(rig.clients[number % MANY], &message);
        rig.rest();
        let heard = rig.read_all();
        if heard < (MANY - 1) * PAYLOAD.len() {
            return Err(format!("the room heard {heard} bytes").into());
        }
    }
    Ok(())
}

fn queue(rig: &mut Rig, count: usize) -> Result<()> {
    let consumer = rig.websocket(API, "/ws/v1");
    let pop = br#"{"m":"queue.pop","p":{"t":["perf"]},"i":1}"#;
    rig.world.write(consumer, &masked(0x81, pop));
    rig.clients(CROWD, "/chat");
    rig.clients.retain(|&client| client != consumer);
    let message = masked(0x81, &PAYLOAD);
    for _ in 0..count / CROWD {
        rig.write_all(&message);
        rig.settle();
        let told = rig.world.read(consumer, usize::MAX);
        expect("events", occurrences(&told, &PAYLOAD), CROWD)?;
    }
    Ok(())
}

fn api_publish(rig: &mut Rig, count: usize) -> Result<()> {
    rig.clients.extend((0..CROWD).map(|_| rig.world.connect(API)));
    let body = format!(r#"{{"c":"perf","d":"{}"}}"#, ".".repeat(PAYLOAD.len()));
    let request = format!(
        "POST /v1/mesh/publish HTTP/1.1\r\nHost: localhost\r\nUser-Agent: perf\r\n\
         Accept: */*\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..count / CROWD {
        rig.write_all(request.as_bytes());
        rig.settle();
        for &client in &rig.clients {
            let answer = rig.world.read(client, usize::MAX);
            if !answer.starts_with(b"HTTP/1.1 200 ") {
                return Err(format!("answer: {}", String::from_utf8_lossy(&answer)).into());
            }
        }
    }
    Ok(())
}

fn xxim_request(method: &str, data: Vec<u8>) -> Vec<u8> {
    let (req_id, method, data) = ("r".repeat(32), method.to_owned(), data.into());
    masked(0x82, &xxim::RequestBody { req_id, method, data }.encode_to_vec())
}

fn xxim(rig: &mut Rig, count: usize) -> Result<()> {
    rig.clients(1, "/ws");
    let params = xxim::SetCxnParamsReq {
        package_id: "device".to_owned(),
        platform: "windows".to_owned(),
        ..Default::default()
    };
    let user = xxim::SetUserParamsReq {
        user_id: "test123456".to_owned(),
        token: "tok.en.sig".to_owned(),
        ..Default::default()
    };
    let client = rig.clients[0];
    let params = params.encode_to_vec();
    rig.world.write(client, &xxim_request("/v1/conn/white/setCxnParams", params));
    rig.world.write(client, &xxim_request("/v1/conn/white/setUserParams", user.encode_to_vec()));
    rig.rest();
    rig.read_all();
    // A field of bytes.
    let message = [&[0x12, PAYLOAD.len() as u8], &PAYLOAD[..]].concat();
    let request = xxim_request("/v1/msg/sendMsgList", message);
    for _ in 0..count / REQUESTS {
        rig.world.write(client, &request.repeat(REQUESTS));
        rig.settle();
        let calls = std::mem::take(&mut rig.world.calls);
        expect("calls of the upstream", calls.len(), REQUESTS)?;
        for Call { conn, number, call } in calls {
            let result = UpstreamResult { code: 0, data: call.body };
            rig.world
                .tell(conn.shard(), Mail::Xxim(Letter::UpstreamAnswered { conn, number, result }));
        }
        rig.settle();
        let told = rig.world.read(client, usize::MAX);
        expect("responses", occurrences(&told, &PAYLOAD), REQUESTS)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_carries_its_messages() {
        for (name, _, carry) in SCENARIOS {
            let carried = Rig::new().and_then(|mut rig| carry(&mut rig, MANY));
            assert!(carried.is_ok(), "{name}: {carried:?}");
        }
    }
}
