//! The peers of a story: what each has written, and what may come back.

use std::collections::BTreeSet;

use prost::Message;
use ringway::sim::Peer;
use ringway::wire::deflate::Deflater;
use ringway::wire::websocket::mask_frame;
use ringway::wire::worker::proto::Cmd;

/// Bytes of which a peer writes a part now and the rest later.
#[derive(Debug, Default)]
pub struct Pending(Vec<u8>);

impl Pending {
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Takes some or all of it.
    pub fn take(&mut self, rng: &mut fastrand::Rng) -> Vec<u8> {
        let whole = self.0.is_empty() || rng.u8(..4) > 0;
        let count = if whole { self.0.len() } else { rng.usize(..self.0.len()) };
        self.0.drain(..count).collect()
    }

    pub fn take_all(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Netsvr,
    Echo,
    /// A row of [`REFUSED`].
    Refused(usize),
    /// Begins a request and never ends it.
    Silent,
}

/// Requests that are no upgrade and the exact answers (netsvr section 2.2).
pub const REFUSED: &[(&str, &str)] = &[
    ("GET /health HTTP/1.1\r\nHost: a\r\n\r\n", "200 OK\r\nConnection: close\r\n\r\nHello netsvr"),
    (
        "POST /netsvr HTTP/1.1\r\nHost: a\r\n\r\n",
        "405 Method Not Allowed\r\nConnection: close\r\n\r\nMethod Not Allowed",
    ),
    (
        "GET /nothing HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "404 Not Found\r\nConnection: close\r\n\r\nNot Found",
    ),
    (
        "GET /netsvr HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        "400 Bad Request\r\nConnection: close\r\n\r\ninvalid Connection header",
    ),
    ("\u{1}\u{2} nonsense\r\n\r\n", "400 Bad Request\r\nConnection: close\r\n\r\nBad Request"),
];

/// What a backend has made of a steady client, if only one backend connection ever touched it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub session: String,
    pub user: String,
    pub topics: BTreeSet<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    pub peer: Peer,
    pub number: usize,
    pub kind: Kind,
    /// It reads, behaves, is not sent away, and stays.
    pub steady: bool,
    pub reading: bool,
    /// It has ended its side or is gone.
    pub left: bool,
    /// It was registered when it ended its side after its last message.
    pub ended_open: bool,
    /// It does not wait for what the gateway still has to say.
    pub gone: bool,
    pub deflate: bool,
    pub pending: Pending,
    /// Lengths of the numbered messages, by number.
    pub sent: Vec<usize>,
    pub heartbeats: usize,
    pub pings: usize,
    /// Close frames that it may get because of what it or a backend did.
    pub closes: Vec<Vec<u8>>,
    /// Its own close frame or its breach of the protocol is on the way: it sends no more.
    pub done: bool,
    /// The backend connection that owns it, and what that made of it.
    pub owner: Option<usize>,
    pub known: Known,
    /// It was registered when everybody had come to rest.
    pub survived: bool,
}

impl Client {
    pub fn new(peer: Peer, number: usize, kind: Kind, steady: bool) -> Client {
        Client {
            peer,
            number,
            kind,
            steady,
            reading: true,
            left: false,
            ended_open: false,
            gone: false,
            deflate: false,
            pending: Pending::default(),
            sent: Vec::new(),
            heartbeats: 0,
            pings: 0,
            closes: Vec::new(),
            done: false,
            owner: None,
            known: Known::default(),
            survived: false,
        }
    }

    /// Its request; the number of the client is in the query.
    pub fn request(&self) -> Vec<u8> {
        let path = match self.kind {
            Kind::Netsvr => "/netsvr",
            Kind::Echo => "/echo",
            Kind::Refused(row) => return REFUSED[row].0.as_bytes().to_vec(),
            Kind::Silent => return b"GET /netsvr HTTP/1.1\r\nHost: ".to_vec(),
        };
        let extensions = match self.deflate {
            true => "Sec-WebSocket-Extensions: permessage-deflate\r\n",
            false => "",
        };
        let number = self.number;
        format!(
            "GET {path}?c={number} HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extensions}\r\n"
        )
        .into_bytes()
    }

    /// Whether it can be sent more frames by the story.
    pub fn talks(&self) -> bool {
        !self.left && !self.done && matches!(self.kind, Kind::Netsvr | Kind::Echo)
    }

    /// Payload of its message with this number.
    pub fn payload(&self, seq: usize) -> Vec<u8> {
        payload('m', self.number, seq, self.sent[seq])
    }

    /// Queues its next numbered message: as one frame or in fragments, now and then compressed.
    pub fn message(&mut self, rng: &mut fastrand::Rng, len: usize, deflated: bool) {
        self.sent.push(len);
        let payload = self.payload(self.sent.len() - 1);
        let opcode = 1 + rng.u8(..2);
        let (payload, first) = match deflated && self.deflate && rng.bool() {
            true => (Deflater::new(1).deflate(&payload).to_vec(), opcode | 0x40),
            false => (payload, opcode),
        };
        if rng.u8(..4) > 0 {
            return self.frame(rng, first | 0x80, &payload);
        }
        let cut = rng.usize(..=payload.len());
        self.frame(rng, first, &payload[..cut]);
        if rng.bool() {
            self.frame(rng, 0x8a, b"a pong that nobody asked for");
        }
        self.frame(rng, 0x80, &payload[cut..]);
    }

    pub fn frame(&mut self, rng: &mut fastrand::Rng, first: u8, payload: &[u8]) {
        let mask = rng.u32(..).to_ne_bytes();
        self.pending.push(&mask_frame(first, mask, payload));
    }
}

/// A numbered payload: `<kind><who>.<number>.<length>.` and so many more bytes.
pub fn payload(kind: char, who: usize, seq: usize, len: usize) -> Vec<u8> {
    let mut bytes = format!("{kind}{who}.{seq}.{len}.").into_bytes();
    bytes.resize(bytes.len() + len, b'a' + (seq % 26) as u8);
    bytes
}

/// The inverse of [`payload`]; fails the test if a byte is wrong.
pub fn parse(kind: char, bytes: &[u8]) -> (usize, usize) {
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
    let mut numbers = head.strip_prefix(kind).into_iter().flat_map(|rest| rest.split('.'));
    let mut number = || numbers.next().and_then(|number| number.parse::<usize>().ok());
    let (Some(who), Some(seq), Some(len)) = (number(), number(), number()) else {
        panic!("a payload that nobody sent: {head}");
    };
    assert!(bytes == payload(kind, who, seq, len), "a payload was changed: {head}");
    (who, seq)
}

/// What the answer to a question must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    /// Anything that can be read.
    Any,
    /// The bare header (netsvr section 3.6).
    Empty,
    /// A registration: code of netsvr section 4.3.
    Registered(i32),
    /// The registration of this backend connection has ended, if it survived.
    Unregistered(Option<usize>),
    /// Those of the listed that exist, in order; these surviving clients are among them.
    Online { asked: Vec<String>, clients: Vec<usize> },
    /// What is known about a client, if it survived.
    Info { client: usize, known: Known },
    /// Members of a topic of this backend connection; exactly these of the steady clients.
    Members { topic: String, clients: Vec<usize> },
    /// At least these many.
    AtLeast(usize),
}

#[derive(Clone, Debug)]
pub struct Question {
    pub cmd: Cmd,
    pub expect: Expect,
}

/// A business connection.
#[derive(Debug)]
pub struct Business {
    pub peer: Peer,
    pub number: usize,
    pub reading: bool,
    /// It was killed, or has sent what costs it the connection.
    pub lost: bool,
    pub pending: Pending,
    /// The mask of its successful registration.
    pub mask: i32,
    /// Its name, once the answer to Register was seen.
    pub name: Option<String>,
    /// Somebody has asked to end its registration.
    pub leaves: bool,
    /// Length of its stream when the end of its registration was answered: no event after that.
    pub silent_from: Option<usize>,
    pub questions: Vec<Question>,
    pub pushes: usize,
    /// How far its stream was looked at, and how many answers that were.
    pub seen: usize,
    pub answers: usize,
}

impl Business {
    pub fn new(peer: Peer, number: usize) -> Business {
        Business {
            peer,
            number,
            reading: true,
            lost: false,
            pending: Pending::default(),
            mask: 0,
            name: None,
            leaves: false,
            silent_from: None,
            questions: Vec::new(),
            pushes: 0,
            seen: 0,
            answers: 0,
        }
    }

    /// Queues a one-way command.
    pub fn command(&mut self, cmd: Cmd, message: &impl Message) {
        self.raw(cmd, &message.encode_to_vec());
    }

    /// Queues a question.
    pub fn ask(&mut self, cmd: Cmd, message: &impl Message, expect: Expect) {
        self.ask_raw(cmd, &message.encode_to_vec(), expect);
    }

    pub fn ask_raw(&mut self, cmd: Cmd, body: &[u8], expect: Expect) {
        self.questions.push(Question { cmd, expect });
        self.raw(cmd, body);
    }

    pub fn raw(&mut self, cmd: Cmd, body: &[u8]) {
        let len = body.len() as u32 + 4;
        self.pending.push(&len.to_be_bytes());
        self.pending.push(&(cmd as u32).to_be_bytes());
        self.pending.push(body);
    }

    /// Queues a heartbeat.
    pub fn heartbeat(&mut self, text: &[u8]) {
        self.pending.push(&(text.len() as u32).to_be_bytes());
        self.pending.push(text);
    }

    /// Topic, user or session that only this connection assigns.
    pub fn own(&self, what: &str, number: usize) -> String {
        format!("{what} {number} of {}", self.number)
    }
}
