//! What the tests of IM share: a gateway, and a client that shows every frame.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use prost::Message;
use ringway::config::all::Config;
use ringway::config::model::{ClientProtocol, Service, Verifier};
use ringway::protocols::im::config::Forward;
use ringway::protocols::im::wire::proto::{
    ChatroomRequest, CrMessage, CrMessageResponse, cr_message::UserInfo,
};
use ringway::protocols::im::wire::{ByteOrder, Gzip, HEADER_BYTES, Header, LenMode, LoginFields};
use ringway::wire::websocket::mask_frame;

use crate::common::{self, Client, PATIENCE, Server, connect};

/// Commands (section 0).
pub const LOGIN: u8 = 1;
pub const LOGOUT: u8 = 2;
pub const PING: u8 = 3;
pub const PONG: u8 = 4;
pub const JOIN: u8 = 5;
pub const LEAVE: u8 = 6;
pub const CMS: u8 = 7;
pub const NOTIFY: u8 = 8;
pub const KICK: u8 = 9;

/// The tests' configuration: everybody who has its token may log in; nothing is forwarded or
/// announced.
pub fn config() -> Config {
    let mut config = common::config();
    let users = ["u1001:tok-42", "u2002:tok", "u3003:tok", "u4004:tok"];
    let users = users.iter().filter_map(|user| user.split_once(':'));
    let users = users.map(|(user, token)| (user.to_owned(), token.to_owned())).collect();
    config.login.verifier = Verifier::Static(users);
    config.im.forward = Forward::No;
    config.im.announce_join = false;
    config
}

/// The same, and everybody may log in.
pub fn open_config() -> Config {
    let mut config = config();
    config.login.verifier = Verifier::Open;
    config
}

/// Where IM clients connect over TCP.
pub fn address(server: &Server) -> SocketAddr {
    listener(server, |service| *service == Service::Im)
}

/// Where IM clients connect over WebSocket.
pub fn websocket_address(server: &Server) -> SocketAddr {
    listener(server, |service| match service {
        Service::Http(routes) => routes.iter().any(|route| route.protocol == ClientProtocol::Im),
        _ => false,
    })
}

fn listener(server: &Server, is_it: impl Fn(&Service) -> bool) -> SocketAddr {
    // The order is that of the demo's configuration, which the tests start from.
    let listeners = Config::demo().listeners;
    let index = listeners.iter().position(|listener| is_it(&listener.service));
    server.address(index.expect("the demo has such a listener"))
}

/// A frame from the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub header: Header,
    pub body: Vec<u8>,
}

impl Frame {
    /// Sequence number, command, status of a frame without body.
    pub fn bare(&self) -> (u32, u8, u8) {
        assert!(self.body.is_empty(), "{self:?}");
        (self.header.seq, self.header.command, self.header.status)
    }

    /// The body, inflated if the flag says so.
    pub fn plain(&self) -> Vec<u8> {
        match self.header.flag >> 2 & 3 {
            0 => self.body.clone(),
            1 => Gzip::new().inflate(&self.body, 1 << 20).expect("a gzip member").to_vec(),
            other => panic!("compression {other}"),
        }
    }

    /// The messages of a notification.
    pub fn notify(&self) -> CrMessageResponse {
        assert_eq!(self.header.command, NOTIFY, "{self:?}");
        assert_eq!((self.header.seq, self.header.status, self.header.flag & 3), (0, 0, 2));
        let notify = CrMessageResponse::decode(&*self.plain()).expect("a CRMessageResponse");
        assert!(!notify.messages.is_empty(), "an empty batch");
        assert!(notify.messages.iter().all(|message| message.to == notify.chatroom));
        notify
    }
}

/// What a fleet of clients has made of what the document leaves open.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dialect {
    pub mode: LenMode,
    pub order: ByteOrder,
    pub fields: LoginFields,
}

/// An IM client, over TCP or WebSocket.
pub struct Im {
    socket: Socket,
    buffer: Vec<u8>,
    pub dialect: Dialect,
    /// Version and compression that it announces.
    pub flag: u8,
    seq: u32,
    /// Notifications that came while a response was awaited.
    early: Vec<Frame>,
}

enum Socket {
    Tcp(TcpStream),
    WebSocket(Client),
}

impl Im {
    /// A connection over TCP, nothing sent.
    pub fn tcp(server: &Server) -> Im {
        Im::over(Socket::Tcp(connect(address(server))))
    }

    /// A connection over WebSocket, nothing sent.
    pub fn websocket(server: &Server) -> Im {
        Im::over(Socket::WebSocket(Client::open(websocket_address(server), "/im")))
    }

    /// Over a socket that is connected already.
    pub fn of(socket: TcpStream) -> Im {
        Im::over(Socket::Tcp(socket))
    }

    fn over(socket: Socket) -> Im {
        let dialect = Dialect::default();
        Im { socket, buffer: Vec::new(), dialect, flag: 0x10, seq: 0, early: Vec::new() }
    }

    /// A guest over TCP.
    pub fn guest(server: &Server) -> Im {
        let mut im = Im::tcp(server);
        im.log_in_as_guest();
        im
    }

    /// A user over TCP.
    pub fn user(server: &Server, user: &str) -> Im {
        let mut im = Im::tcp(server);
        im.log_in(user);
        im
    }

    /// A user over TCP that is in a room.
    pub fn member(server: &Server, user: &str, room: &str) -> Im {
        let mut im = Im::user(server, user);
        im.join(room);
        im
    }

    pub fn log_in_as_guest(&mut self) {
        assert_eq!(self.ask(LOGIN, &[]), 0);
    }

    pub fn log_in(&mut self, user: &str) {
        assert_eq!(self.try_log_in(user, token_of(user)), 0);
    }

    /// The status of a LOGIN.
    pub fn try_log_in(&mut self, user: &str, token: &str) -> u8 {
        let mut body = Vec::new();
        for (field, text) in
            [(self.dialect.fields.token, token), (self.dialect.fields.user_id, user)]
        {
            if !text.is_empty() {
                prost::encoding::string::encode(field, &text.to_owned(), &mut body);
            }
        }
        self.ask(LOGIN, &body)
    }

    pub fn join(&mut self, room: &str) {
        assert_eq!(self.try_join(room), 0);
    }

    /// The status of a JOIN_CR.
    pub fn try_join(&mut self, room: &str) -> u8 {
        self.ask(JOIN, &ChatroomRequest { chatroom_id: room.to_owned() }.encode_to_vec())
    }

    pub fn leave(&mut self, room: &str) {
        let body = ChatroomRequest { chatroom_id: room.to_owned() }.encode_to_vec();
        assert_eq!(self.ask(LEAVE, &body), 0);
    }

    /// Sends a CMS.
    pub fn say(&mut self, room: &str, content: &str) {
        self.send(CMS, &message(room, content).encode_to_vec());
    }

    /// Sends a PING and awaits its PONG: what came before is read after that.
    pub fn fence(&mut self) {
        self.send(PING, &[]);
        let seq = self.seq;
        assert_eq!(self.response().bare(), (seq, PONG, 0));
    }

    /// Sends a request and awaits its response; gives the status.
    pub fn ask(&mut self, command: u8, body: &[u8]) -> u8 {
        self.send(command, body);
        let (seq, answered, status) = self.response().bare();
        assert_eq!((seq, answered), (self.seq, command));
        status
    }

    /// Sends a frame.
    pub fn send(&mut self, command: u8, body: &[u8]) {
        let frame = self.framed(command, body);
        self.write(&frame);
    }

    /// The next frame as bytes.
    pub fn framed(&mut self, command: u8, body: &[u8]) -> Vec<u8> {
        self.seq += 1;
        let len = self.dialect.mode.len(body.len());
        let header = Header { len, seq: self.seq, command, flag: self.flag, status: 0 };
        [&header.bytes(self.dialect.order)[..], body].concat()
    }

    /// Sends bytes: over WebSocket as one binary message.
    pub fn write(&mut self, bytes: &[u8]) {
        match &mut self.socket {
            Socket::Tcp(socket) => socket.write_all(bytes).expect("the gateway reads"),
            Socket::WebSocket(client) => client.write(&mask_frame(0x82, [1, 2, 3, 4], bytes)),
        }
    }

    /// Ends this side.
    pub fn end(&mut self) {
        if let Socket::Tcp(socket) = &self.socket {
            socket.shutdown(Shutdown::Write).expect("a connected socket");
        }
    }

    /// The WebSocket below.
    pub fn client(&mut self) -> &mut Client {
        match &mut self.socket {
            Socket::WebSocket(client) => client,
            Socket::Tcp(_) => panic!("not over WebSocket"),
        }
    }

    /// The next frame that is no notification.
    pub fn response(&mut self) -> Frame {
        loop {
            let frame = self.frame();
            if frame.header.flag & 3 == 1 {
                return frame;
            }
            self.early.push(frame);
        }
    }

    /// The next frame, or one that came early.
    pub fn next(&mut self) -> Frame {
        if self.early.is_empty() { self.frame() } else { self.early.remove(0) }
    }

    /// The next frame of the stream.
    pub fn frame(&mut self) -> Frame {
        self.try_frame().expect("the gateway closed without another frame")
    }

    /// The next frame, or `None` at the end of the stream.
    pub fn try_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            if !self.fill() {
                assert!(self.buffer.is_empty(), "closed inside of a frame: {:?}", self.buffer);
                return None;
            }
        }
    }

    /// Checks that the gateway closes the connection, with nothing more before that.
    pub fn expect_end(&mut self) {
        assert_eq!(self.early, []);
        assert_eq!(self.try_frame(), None);
    }

    /// Over WebSocket: checks that the gateway closes with this code, with nothing before that.
    pub fn expect_close(&mut self, code: u16) {
        assert_eq!(self.early, []);
        assert_eq!(self.client().frame().close().0, code);
    }

    /// Reads so many messages of a room, as (sender, content).
    pub fn messages(&mut self, room: &str, count: usize) -> Vec<(String, String)> {
        let mut messages = Vec::new();
        while messages.len() < count {
            let notify = self.next().notify();
            assert_eq!(notify.chatroom, room);
            messages.extend(notify.messages.into_iter().map(|message| {
                let content = String::from_utf8(message.message_content.to_vec());
                (message.from, content.expect("a text"))
            }));
        }
        assert_eq!(messages.len(), count, "{messages:?}");
        messages
    }

    /// Reads the messages of the next notification.
    pub fn messages_any(&mut self, room: &str) -> Vec<(String, String)> {
        let notify = self.next().notify();
        assert_eq!(notify.chatroom, room);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("a text");
        let messages = notify.messages.into_iter();
        messages.map(|message| (message.from, text(&message.message_content))).collect()
    }

    /// Forgets notifications that came while a response was awaited.
    pub fn forget(&mut self) {
        self.early.clear();
    }

    /// The TCP socket, shared.
    pub fn socket(&self) -> TcpStream {
        match &self.socket {
            Socket::Tcp(socket) => socket.try_clone().expect("a descriptor is left"),
            Socket::WebSocket(_) => panic!("over TCP only"),
        }
    }

    /// Checks that nothing has come.
    pub fn expect_nothing(&mut self) {
        self.fence();
        assert_eq!(self.early, []);
    }

    /// Whether the gateway has closed the connection by now.
    pub fn is_closed(&mut self) -> bool {
        let Socket::Tcp(socket) = &mut self.socket else { panic!("over TCP only") };
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a valid timeout");
        let closed = match socket.read(&mut [0; 100]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        socket.set_read_timeout(Some(PATIENCE)).expect("a valid timeout");
        closed
    }

    /// Takes a complete frame from what has come.
    fn take(&mut self) -> Option<Frame> {
        let Dialect { mode, order, .. } = self.dialect;
        let header = Header::parse(self.buffer.first_chunk::<HEADER_BYTES>()?, order);
        let len = header.len.checked_sub(mode.extra()).expect("`len` counts the header") as usize;
        let body = self.buffer.get(HEADER_BYTES..HEADER_BYTES + len)?.to_vec();
        self.buffer.drain(..HEADER_BYTES + len);
        Some(Frame { header, body })
    }

    fn fill(&mut self) -> bool {
        match &mut self.socket {
            Socket::Tcp(socket) => {
                let mut piece = [0; 65536];
                let count = match socket.read(&mut piece) {
                    Ok(count) => count,
                    Err(error) => panic!("nothing came: {error}"),
                };
                self.buffer.extend_from_slice(&piece[..count]);
                count > 0
            }
            Socket::WebSocket(client) => {
                let Some(frame) = client.try_frame() else { return false };
                assert_eq!(frame.first, 0x82, "one frame, one binary message: {frame:?}");
                self.buffer.extend_from_slice(&frame.payload);
                true
            }
        }
    }
}

/// The token of the tests' users.
pub fn token_of(user: &str) -> &'static str {
    if user == "u1001" { "tok-42" } else { "tok" }
}

/// A CMS as a client makes it.
pub fn message(room: &str, content: &str) -> CrMessage {
    CrMessage {
        message_content: content.as_bytes().to_vec().into(),
        to: room.to_owned(),
        ..CrMessage::default()
    }
}

/// The user info of the vectors.
pub fn ann() -> UserInfo {
    let tag = vec!["vip".to_owned(), "mod".to_owned()];
    UserInfo { level: 12, room_level: 3, nickname: "Ann".to_owned(), tag }
}

/// What the client sends and what it gets.
pub type Exchange = (Vec<Vec<u8>>, Vec<Vec<u8>>);

/// The vectors of section 17, by number.
pub fn vectors() -> BTreeMap<String, Exchange> {
    let mut vectors: BTreeMap<String, Exchange> = BTreeMap::new();
    let mut last: Option<(String, bool)> = None;
    let text = include_str!("../vectors/im.txt");
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, hex) = line.split_once(':').expect("`name: hex`");
        let fresh = name.trim().split_once(' ');
        if let Some((number, side)) = fresh {
            last = Some((number.to_owned(), side == "client"));
        }
        let (number, client) = last.clone().expect("a vector before its continuation");
        let (sent, got) = vectors.entry(number).or_default();
        let list = if client { sent } else { got };
        if fresh.is_some() {
            list.push(Vec::new());
        }
        let digits: String = hex.chars().filter(|c| !c.is_whitespace()).collect();
        let bytes = (0..digits.len()).step_by(2);
        let bytes = bytes.map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex"));
        list.last_mut().expect("just made").extend(bytes);
    }
    vectors
}

/// The only frame that the client sends in a vector.
pub fn sent(number: &str) -> Vec<u8> {
    vectors()[number].0[0].clone()
}

/// The only frame that the client gets in a vector.
pub fn got(number: &str) -> Vec<u8> {
    vectors()[number].1[0].clone()
}
