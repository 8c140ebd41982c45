//! Rooms in the simulation: a gateway of several shards in one thread, from one seed.
//!
//! What is checked: every member that stays gets every message of the others exactly once, its own
//! never, those of each sender in their order, and all members of a room in one and the same order,
//! whatever mailboxes, pieces of bytes, stalled sends, joins, leaves and resets do; when everybody
//! has left nothing remains. And rooms of 50,000 members work.
//!
//! A failure prints its seed: `RINGWAY_SEED=123 cargo test --test im_simulation replay`.

#[path = "digests/mod.rs"]
mod digests;

use std::time::Duration;

use prost::Message;
use ringway::config::all::Config;
use ringway::config::model::{Listener, Service};
use ringway::engine::ListenerSettings;
use ringway::protocols::im::config::Forward;
use ringway::protocols::im::wire::proto::{ChatroomRequest, CrMessage, CrMessageResponse};
use ringway::protocols::im::wire::{
    ByteOrder, HEADER_BYTES, Header, LenMode, LenRule, LoginFields, Modes,
};
use ringway::protocols::netsvr::wire::Verdict;
use ringway::sim::{Peer, Weather, World};

const LOGIN: u8 = 1;
const LOGOUT: u8 = 2;
const JOIN: u8 = 5;
const LEAVE: u8 = 6;
const CMS: u8 = 7;
const NOTIFY: u8 = 8;
const FRAME_BYTES_MAX: usize = 100_000;

fn config() -> Config {
    let mut config = Config::demo();
    let im = &mut config.im;
    im.forward = Forward::No;
    im.announce_join = false;
    // Time and rates have tests of their own; here nothing may be lost.
    im.idle_timeout = Duration::from_secs(86_400);
    im.login_timeout = im.idle_timeout;
    im.frame_timeout = im.idle_timeout;
    im.write_timeout = im.idle_timeout;
    im.cms_rate = 0;
    im.request_rate = 0;
    config
}

fn world(seed: u64, shards: usize, config: Config, weather: Weather) -> (World, usize) {
    let address = config.netsvr.advertise;
    let settings = |listener: &Listener| ListenerSettings {
        proxy: Default::default(),
        service: listener.service.clone(),
        address,
        bound: listener.bind,
        tls: None,
    };
    let listeners: Vec<_> = config.listeners.iter().map(settings).collect();
    let is_im = |listener: &ListenerSettings| listener.service == Service::Im;
    let im = listeners.iter().position(is_im).expect("the demo has one");
    (World::new(seed, shards, config, listeners, weather), im)
}

const FAIR: Weather = Weather {
    answer_piece: ringway::protocols::netsvr::limits::ANSWER_PIECE,
    read_on: 3,
    mailbox_messages_max: 1000,
    socket_bytes_max: 1 << 30,
    piece_bytes_max: 100_000,
    calm: false,
    jump_every: 0,
    jump_ms_max: 0,
    callback_fails_percent: 0,
    callback_denies_percent: 0,
    callback_verdict: Verdict::default,
};

/// How a client writes what the document leaves open.
#[derive(Clone, Copy, Debug, Default)]
struct Dialect {
    mode: LenMode,
    order: ByteOrder,
    fields: LoginFields,
}

impl Dialect {
    fn frame(self, command: u8, body: &[u8]) -> Vec<u8> {
        let header =
            Header { len: self.mode.len(body.len()), seq: 1, command, flag: 0x10, status: 0 };
        [&header.bytes(self.order)[..], body].concat()
    }

    fn login(self, user: &str) -> Vec<u8> {
        let mut body = Vec::new();
        if !user.is_empty() {
            let (token, user) = ("a-token-of-usual-length".to_owned(), user.to_owned());
            prost::encoding::string::encode(self.fields.token, &token, &mut body);
            prost::encoding::string::encode(self.fields.user_id, &user, &mut body);
        }
        self.frame(LOGIN, &body)
    }

    fn room(self, command: u8, room: &str) -> Vec<u8> {
        let request = ChatroomRequest { chatroom_id: room.to_owned() };
        self.frame(command, &request.encode_to_vec())
    }

    fn say(self, room: &str, content: &str) -> Vec<u8> {
        let message_content = content.as_bytes().to_vec().into();
        let message = CrMessage { message_content, to: room.to_owned(), ..CrMessage::default() };
        self.frame(CMS, &message.encode_to_vec())
    }
}

/// The messages that a client got, as (room, sender, content); fails if a frame is wrong or a
/// response is an error.
fn heard(dialect: Dialect, mut written: &[u8], whole: bool) -> Vec<(String, String, String)> {
    let mut heard = Vec::new();
    while let Some(head) = written.first_chunk::<HEADER_BYTES>() {
        let header = Header::parse(head, dialect.order);
        let body_bytes = header.len.checked_sub(dialect.mode.extra()).expect("the client's mode");
        let Some(frame) = written.get(..HEADER_BYTES + body_bytes as usize) else { break };
        written = &written[frame.len()..];
        if header.command != NOTIFY {
            assert_eq!((header.flag, header.status), (0x11, 0), "{header:?}");
            continue;
        }
        assert_eq!((header.flag, header.seq), (0x12, 0));
        let batch = CrMessageResponse::decode(&frame[HEADER_BYTES..]).expect("messages");
        assert!((1..=64).contains(&batch.messages.len()));
        heard.extend(batch.messages.into_iter().map(|message| {
            assert_eq!(message.to, batch.chatroom);
            let content = String::from_utf8(message.message_content.to_vec()).expect("a text");
            (message.to, message.from, content)
        }));
    }
    assert!(written.is_empty() || !whole, "the stream ends inside of a frame");
    heard
}

#[test]
fn a_room_of_fifty_thousand_members_on_four_shards() {
    const MEMBERS: usize = 50_000;
    const SENDERS: usize = 10;
    const MESSAGES: usize = 2;
    let usual = Dialect::default();
    let mut config = config();
    config.runtime.connections_max = MEMBERS as u32;
    let (mut world, im) = world(1, 4, config, FAIR);
    let members: Vec<Peer> = (0..MEMBERS).map(|_| world.connect(im)).collect();
    for (number, &member) in members.iter().enumerate() {
        let user = if number < SENDERS { format!("user-{number}") } else { String::new() };
        world.write(member, &[usual.login(&user), usual.room(JOIN, "arena")].concat());
    }
    world.settle(10_000);
    // Logins are verified outside; their frames behind it come after that.
    world.pass(100);
    world.settle(10_000);
    for number in 0..MESSAGES {
        for (sender, &member) in members.iter().enumerate().take(SENDERS) {
            world.write(member, &usual.say("arena", &format!("{sender}.{number}")));
        }
        world.settle(10_000);
        world.pass(100);
        world.settle(10_000);
    }
    world.audit(FRAME_BYTES_MAX, 1);
    let mut order: Option<Vec<String>> = None;
    for (number, &member) in members.iter().enumerate() {
        let heard = heard(usual, &world.socket(member).written, true);
        let contents: Vec<String> = heard.into_iter().map(|heard| heard.2).collect();
        if number < SENDERS {
            let own = format!("{number}.");
            assert!(!contents.iter().any(|content| content.starts_with(&own)));
            assert_eq!(contents.len(), MESSAGES * (SENDERS - 1));
            continue;
        }
        assert_eq!(contents.len(), MESSAGES * SENDERS, "member {number}");
        assert_eq!(order.get_or_insert_with(|| contents.clone()), &contents, "member {number}");
    }
    members.iter().for_each(|&member| world.hang_up(member));
    world.settle(10_000);
    world.shards().for_each(|shard| shard.audit_empty());
}

/// One client of a story.
struct Member {
    peer: Peer,
    dialect: Dialect,
    user: String,
    /// It stays, reads and is in every room.
    steady: bool,
    gone: bool,
    /// What it said, by room.
    said: Vec<(String, String)>,
}

const ROOMS: [&str; 3] = ["a", "b", "a-room-with-a-longer-name"];

struct Story {
    world: World,
    im: usize,
    /// What members may count in `len`.
    modes: Vec<LenMode>,
    order: ByteOrder,
    fields: LoginFields,
    members: Vec<Member>,
    rng: fastrand::Rng,
}

impl Story {
    fn new(seed: u64) -> Story {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut config = config();
        config.im.batch_delay = Duration::from_millis(*pick(&mut rng, &[0, 1, 50, 400]));
        config.im.batch_max_messages = *pick(&mut rng, &[1, 2, 5, 64]);
        config.im.batch_max_bytes = *pick(&mut rng, &[64, 300, 32_768]);
        let modes = dialect(&mut rng, &mut config);
        if rng.bool() {
            config.im.max_room_members = 1000;
            config.im.room_rate = 1_000_000;
            config.im.room_burst = 1_000_000;
        }
        let weather = Weather {
            answer_piece: ringway::protocols::netsvr::limits::ANSWER_PIECE,
            read_on: 3,
            mailbox_messages_max: *pick(&mut rng, &[1, 3, 100]),
            socket_bytes_max: *pick(&mut rng, &[30, 500, 100_000]),
            piece_bytes_max: *pick(&mut rng, &[1, 7, 50, 3000]),
            calm: false,
            jump_every: *pick(&mut rng, &[0, 50]),
            jump_ms_max: 500,
            ..FAIR
        };
        let shards = rng.usize(1..=4);
        let (order, fields) = (config.im.byte_order, config.im.login_fields);
        let (world, im) = world(seed, shards, config, weather);
        Story { world, im, modes, order, fields, members: Vec::new(), rng }
    }

    fn enter(&mut self, steady: bool) {
        let peer = self.world.connect(self.im);
        // Some users have several devices.
        let number = self.rng.usize(..=self.members.len());
        let user = if steady { format!("s{}", self.members.len()) } else { format!("u{number}") };
        let mode = *pick(&mut self.rng, &self.modes);
        let dialect = Dialect { mode, order: self.order, fields: self.fields };
        let mut bytes = dialect.login(&user);
        for name in ROOMS.into_iter().filter(|_| steady) {
            bytes.extend(dialect.room(JOIN, name));
        }
        self.world.write(peer, &bytes);
        self.members.push(Member { peer, dialect, user, steady, gone: false, said: Vec::new() });
    }

    /// Everybody who stays reads; the gateway goes on.
    fn go_on(&mut self, steps: usize) {
        for _ in 0..steps {
            self.world.step();
            for member in &self.members {
                if member.steady || self.rng.u8(..4) == 0 {
                    self.world.read(member.peer, 1 << 20);
                }
            }
        }
    }

    /// Until nothing moves and every batch has been sent.
    fn rest(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            self.world.settle(50_000);
            let mut read = 0;
            for member in &self.members {
                read += self.world.read(member.peer, usize::MAX).len();
            }
            // Verdicts and batches take their time.
            self.world.pass(if read == 0 { 500 } else { 1 });
            quiet = if read == 0 { quiet + 1 } else { 0 };
        }
        self.world.settle(50_000);
        self.world.audit(FRAME_BYTES_MAX, 1);
    }

    fn act(&mut self) {
        let at = self.rng.usize(..self.members.len());
        let name = ROOMS[self.rng.usize(..ROOMS.len())];
        let what = self.rng.u8(..20);
        let member = &mut self.members[at];
        if member.gone {
            return;
        }
        let content = format!("{at}.{}", member.said.len());
        let padding = "x".repeat(self.rng.usize(..60));
        match what {
            0..12 => {
                let content = format!("{content}.{padding}");
                self.world.write(member.peer, &member.dialect.say(name, &content));
                member.said.push((name.to_owned(), content));
            }
            12..17 if !member.steady => {
                let command = if what < 15 { JOIN } else { LEAVE };
                self.world.write(member.peer, &member.dialect.room(command, name));
            }
            17 if !member.steady => {
                self.world.write(member.peer, &member.dialect.frame(LOGOUT, &[]));
                member.gone = true;
            }
            18 if !member.steady => {
                self.world.reset(member.peer);
                member.gone = true;
            }
            19 => self.enter(false),
            _ => {}
        }
    }

    fn tell(&mut self) {
        (0..6).for_each(|_| self.enter(true));
        self.rest();
        let actions = self.rng.usize(50..250);
        for _ in 0..actions {
            self.act();
            let steps = self.rng.usize(..6);
            self.go_on(steps);
        }
        self.go_on(50);
        self.rest();
    }

    fn check(&mut self) {
        let all: Vec<Vec<(String, String, String)>> = self
            .members
            .iter()
            .map(|member| {
                heard(member.dialect, &self.world.socket(member.peer).written, member.steady)
            })
            .collect();
        for (at, member) in self.members.iter().enumerate() {
            self.check_senders(at, member, &all[at]);
        }
        // One order for all.
        let steady = || (0..self.members.len()).filter(|&at| self.members[at].steady);
        for (one, other) in steady().flat_map(|one| steady().map(move |other| (one, other))) {
            let of_others = |at: usize| {
                let skip = [format!("{one}."), format!("{other}.")];
                let foreign = all[at]
                    .iter()
                    .filter(move |heard| !skip.iter().any(|own| heard.2.starts_with(own)));
                ROOMS.map(|room| foreign.clone().filter(|h| h.0 == room).collect::<Vec<_>>())
            };
            assert_eq!(of_others(one), of_others(other), "members {one} and {other}");
        }
        for member in &self.members {
            self.world.hang_up(member.peer);
        }
        self.rest();
        self.world.shards().for_each(|shard| shard.audit_empty());
    }

    /// What a member heard of each sender: in order, at most once, and all of it if both stay.
    fn check_senders(&self, at: usize, member: &Member, heard: &[(String, String, String)]) {
        for (from, sender) in self.members.iter().enumerate() {
            let own = format!("{from}.");
            for name in ROOMS {
                let of = heard.iter().filter(|h| h.0 == name && h.2.starts_with(&own));
                let of: Vec<&str> = of
                    .map(|h| {
                        assert_eq!(h.1, sender.user, "the server says who");
                        &*h.2
                    })
                    .collect();
                if from == at {
                    assert!(of.is_empty(), "{at} heard itself: {of:?}");
                    continue;
                }
                let said: Vec<&str> =
                    sender.said.iter().filter(|s| s.0 == name).map(|s| &*s.1).collect();
                let mut rest = said.iter();
                let ordered = of.iter().all(|content| rest.any(|said| said == content));
                assert!(ordered, "{at} heard {of:?} of {said:?}");
                if member.steady && sender.steady {
                    assert_eq!(of, said, "{at} of {from} in {name}");
                }
            }
        }
    }
}

/// Chooses what is left open; gives the modes that clients may have.
fn dialect(rng: &mut fastrand::Rng, config: &mut Config) -> Vec<LenMode> {
    const MODES: [LenMode; 3] = [LenMode::Frame, LenMode::Rest, LenMode::Body];
    let modes = match rng.u8(..6) {
        0..2 => vec![LenMode::Body],
        2 => vec![LenMode::Rest],
        3 => vec![LenMode::Frame],
        4 => MODES[rng.usize(..2)..].to_vec(),
        _ => {
            let mut modes = MODES.to_vec();
            rng.shuffle(&mut modes);
            modes
        }
    };
    config.im.len_mode = match modes[..] {
        [mode] => LenRule::Always(mode),
        _ => LenRule::Auto(Modes::of(&modes).expect("they differ")),
    };
    config.im.byte_order = *pick(rng, &[ByteOrder::Big, ByteOrder::Little]);
    let (token, user_id) = *pick(rng, &[(1, 2), (1, 2), (2, 1), (3, 70_000)]);
    config.im.login_fields = LoginFields { token, user_id };
    modes
}

fn pick<'a, T>(rng: &mut fastrand::Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
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

/// Tells the story of a seed; gives how many messages were heard.
fn run(seed: u64) -> usize {
    let _seed = Seed(seed);
    let mut story = Story::new(seed);
    story.tell();
    story.check();
    let written = |member: &Member| &story.world.socket(member.peer).written;
    let heard = |member: &Member| heard(member.dialect, written(member), false).len();
    story.members.iter().map(heard).sum()
}

fn chapter(number: u64) {
    let heard: usize = (number * 100..(number + 1) * 100).map(run).sum();
    assert!(heard > 20_000, "{heard} messages were heard");
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
    digests::check("im", |seed| {
        let mut story = Story::new(seed);
        story.tell();
        story.check();
        story.world.digest()
    });
}

/// `RINGWAY_SEED`; without it there is nothing to replay.
#[test]
fn replay() {
    if let Ok(seed) = std::env::var("RINGWAY_SEED") {
        println!("{} messages", run(seed.trim().parse().expect("a seed is a number")));
    }
}
