//! A real gateway on free ports of 127.0.0.1, and peers that speak its protocols byte by byte.
//!
//! Every wait has a limit ([`PATIENCE`]) after which the test fails with what it was waiting for;
//! nothing sleeps for a fixed time.

// Each test file uses its own part.
#![allow(dead_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use prost::Message;
use ringway::config::all::Config;
use ringway::config::model::{ClientProtocol, Route, Service};
use ringway::gateway::Gateway;
use ringway::hub::ConnId;
use ringway::wire::websocket::mask_frame;
use ringway::wire::worker::proto;

/// Longest wait for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Listeners of [`config`], by number.
pub const CLIENTS: usize = 0;
pub const WORKERS: usize = 1;
pub const TASKS: usize = 2;

/// The demo's configuration on free ports, with two shards, no compression and no admin server.
pub fn config() -> Config {
    let mut config = Config::demo();
    config.listeners.iter_mut().for_each(|listener| listener.bind.set_port(0));
    config.netsvr.advertise.set_port(0);
    config.admin.bind = None;
    if let Some(push) = &mut config.xxim_upstreams.push {
        push.bind.set_port(0);
    }
    config.netsvr.customer.compression_level = 0;
    let first = config.runtime.cpus[0];
    let second = *config.runtime.cpus.last().expect("there is a first");
    config.runtime.cpus = vec![first, second];
    config.netsvr.worker.register_delay = Duration::from_millis(20);
    assert!(matches!(config.listeners[CLIENTS].service, Service::Http(_)));
    assert_eq!(config.listeners[WORKERS].service, Service::NetsvrWorker);
    assert_eq!(config.listeners[TASKS].service, Service::NetsvrTask);
    config
}

/// A drain begins at once and says goodbye to all together. How it does so otherwise is tested with
/// processes.
pub fn without_waiting(config: &mut Config) {
    config.runtime.drain.delay = Duration::ZERO;
    config.runtime.drain.spread = Duration::ZERO;
}

/// Routes of the client listener: netsvr and echo.
pub fn routes() -> Vec<Route> {
    let route = |path: &str, protocol| Route { path: path.to_owned(), protocol };
    vec![route("/netsvr", ClientProtocol::Netsvr), route("/echo", ClientProtocol::Echo)]
}

/// A running gateway; shut down when dropped.
pub struct Server {
    gateway: Option<Gateway>,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Starts it; at its end nobody waits, see [`without_waiting`].
    pub fn start(mut config: Config) -> Server {
        without_waiting(&mut config);
        let gateway = Gateway::start(config).expect("the gateway starts");
        let addresses = gateway.addresses();
        Server { gateway: Some(gateway), addresses }
    }

    pub fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().expect("it runs until dropped")
    }

    pub fn address(&self, listener: usize) -> SocketAddr {
        self.addresses[listener]
    }

    /// A client whose upgrade was accepted, on whichever shard.
    pub fn client(&self) -> Client {
        Client::open(self.address(CLIENTS), "/netsvr")
    }

    /// A registered worker for these events.
    pub fn worker(&self, events: i32) -> Business {
        let mut worker = Business::connect(self.address(WORKERS));
        worker.register(events);
        worker
    }

    pub fn task(&self) -> Business {
        Business::connect(self.address(TASKS))
    }

    /// Stops the gateway; returns whether it could drain in time.
    pub fn stop(mut self) -> bool {
        self.gateway.take().expect("it runs until dropped").shut_down()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.shut_down();
        }
    }
}

/// A WebSocket client that shows every frame.
pub struct Client {
    pub socket: TcpStream,
    buffer: Vec<u8>,
}

/// One frame from the gateway: first byte (FIN, RSV, opcode) and payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a text")
    }

    /// Code and reason of a close frame.
    pub fn close(&self) -> (u16, &str) {
        assert_eq!(self.first, 0x88, "a close frame was expected, not {self:?}");
        let code = u16::from_be_bytes([self.payload[0], self.payload[1]]);
        (code, std::str::from_utf8(&self.payload[2..]).expect("a reason"))
    }
}

impl Client {
    /// A TCP connection, nothing sent.
    pub fn tcp(address: SocketAddr) -> Client {
        Client::over(connect(address))
    }

    /// A connection of the test's own making, nothing received.
    pub fn over(socket: TcpStream) -> Client {
        Client { socket, buffer: Vec::new() }
    }

    /// Connects and upgrades; fails if the answer is not 101.
    pub fn open(address: SocketAddr, target: &str) -> Client {
        Client::open_with(address, target, "")
    }

    /// The same with more header lines, each ended by CRLF.
    pub fn open_with(address: SocketAddr, target: &str, headers: &str) -> Client {
        let mut client = Client::tcp(address);
        client.upgrade(target, headers);
        client
    }

    /// Upgrades what was connected; fails if the answer is not 101.
    pub fn upgrade(&mut self, target: &str, headers: &str) {
        self.write(upgrade_request(target, headers).as_bytes());
        let head = self.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "not upgraded: {head}");
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the gateway reads");
    }

    /// The response head, up to the empty line.
    pub fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return String::from_utf8(head).expect("an ASCII head");
            }
            assert!(self.fill(), "closed inside of the response head: {:?}", self.buffer);
        }
    }

    pub fn send_text(&mut self, text: &str) {
        self.write(&mask_frame(0x81, [1, 2, 3, 4], text.as_bytes()));
    }

    pub fn send_close(&mut self, code: u16) {
        self.write(&mask_frame(0x88, [9, 8, 7, 6], &code.to_be_bytes()));
    }

    /// Whether something has come that was not read.
    pub fn has_input(&self) -> bool {
        !self.buffer.is_empty() || has_input(&self.socket)
    }

    /// The next frame; fails at the end of the stream.
    pub fn frame(&mut self) -> Frame {
        self.try_frame().expect("the gateway closed without another frame")
    }

    /// The next frame, or `None` at the end of the stream.
    pub fn try_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = take_frame(&mut self.buffer) {
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
        assert_eq!(self.try_frame(), None);
    }

    /// All bytes until the gateway closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }

    /// The next bytes, as many as wanted.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill(), "closed after {:?}", self.buffer);
        }
        self.buffer.drain(..count).collect()
    }

    /// A connection that was reset counts as closed.
    fn fill(&mut self) -> bool {
        fill(&mut self.socket, &mut self.buffer)
    }
}

/// The head of an upgrade request.
pub fn upgrade_request(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

fn take_frame(buffer: &mut Vec<u8>) -> Option<Frame> {
    let first = *buffer.first()?;
    let second = *buffer.get(1)?;
    assert_eq!(second & 0x80, 0, "a gateway does not mask");
    let (start, len) = match second {
        126 => (4, u16::from_be_bytes(buffer.get(2..4)?.try_into().ok()?) as usize),
        127 => (10, u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?) as usize),
        len => (2, len as usize),
    };
    let payload = buffer.get(start..start + len)?.to_vec();
    buffer.drain(..start + len);
    Some(Frame { first, payload })
}

/// Connects; the socket gives up after [`PATIENCE`].
pub fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect_timeout(&address, PATIENCE).expect("the gateway listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a valid timeout");
    socket.set_write_timeout(Some(PATIENCE)).expect("a valid timeout");
    socket.set_nodelay(true).expect("a TCP socket");
    socket
}

fn has_input(socket: &TcpStream) -> bool {
    socket.set_nonblocking(true).expect("a socket");
    let count = socket.peek(&mut [0]);
    socket.set_nonblocking(false).expect("a socket");
    count.is_ok()
}

fn fill(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> bool {
    let mut piece = [0; 65536];
    let read = loop {
        match socket.read(&mut piece) {
            // A socket with a deadline is not read again by the kernel.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => break other,
        }
    };
    match read {
        Ok(0) => false,
        Ok(count) => {
            buffer.extend_from_slice(&piece[..count]);
            true
        }
        Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
        Err(error) => panic!("nothing came for {PATIENCE:?}: {error}"),
    }
}

/// A business connection, to a worker or a task listener.
pub struct Business {
    pub socket: TcpStream,
    buffer: Vec<u8>,
}

impl Business {
    pub fn connect(address: SocketAddr) -> Business {
        Business { socket: connect(address), buffer: Vec::new() }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the gateway reads");
    }

    /// One command frame.
    pub fn send(&mut self, cmd: u32, message: &impl Message) {
        self.write(&business_frame(cmd, &message.encode_to_vec()));
    }

    /// Whether something has come that was not read.
    pub fn has_input(&self) -> bool {
        !self.buffer.is_empty() || has_input(&self.socket)
    }

    /// The next frame: command number and body.
    pub fn frame(&mut self) -> (u32, Vec<u8>) {
        self.try_frame().expect("the gateway closed without another frame")
    }

    /// The next frame, or `None` when the gateway has closed.
    pub fn try_frame(&mut self) -> Option<(u32, Vec<u8>)> {
        loop {
            if let Some(frame) = take_business_frame(&mut self.buffer) {
                return Some(frame);
            }
            if !fill(&mut self.socket, &mut self.buffer) {
                assert!(self.buffer.is_empty(), "closed inside of a frame");
                return None;
            }
        }
    }

    /// The next frame, which must have this number.
    pub fn expect<M: Message + Default>(&mut self, cmd: u32) -> M {
        let (number, body) = self.frame();
        assert_eq!(number, cmd, "another frame was expected");
        M::decode(&*body).expect("a body of this command")
    }

    /// A query and its answer.
    pub fn ask<M: Message + Default>(&mut self, cmd: u32, message: &impl Message) -> M {
        self.send(cmd, message);
        self.expect(cmd)
    }

    pub fn register(&mut self, events: i32) -> proto::RegisterResp {
        let request = proto::RegisterReq { events, ..Default::default() };
        let response: proto::RegisterResp = self.ask(cmd::REGISTER, &request);
        assert_eq!(response.code, 0, "{response:?}");
        response
    }

    /// The next event, which must be the open of a client; returns its uniqId.
    pub fn opened(&mut self) -> String {
        self.expect::<proto::ConnOpen6>(cmd::CONN_OPEN).uniq_id
    }

    pub fn transfer(&mut self) -> proto::Transfer {
        self.expect(cmd::TRANSFER)
    }

    pub fn closed(&mut self) -> proto::ConnClose {
        self.expect(cmd::CONN_CLOSE)
    }

    pub fn single_cast(&mut self, uniq_id: &str, data: impl Into<Vec<u8>>) {
        let data = data.into().into();
        self.send(cmd::SINGLE_CAST, &proto::SingleCast { uniq_id: uniq_id.to_owned(), data });
    }

    pub fn subscribe(&mut self, uniq_id: &str, topics: &[&str]) {
        let topics = topics.iter().map(|&topic| topic.to_owned()).collect();
        let uniq_id = uniq_id.to_owned();
        self.send(
            cmd::TOPIC_SUBSCRIBE,
            &proto::TopicSubscribe { uniq_id, topics, ..Default::default() },
        );
    }

    pub fn online_count(&mut self) -> i32 {
        self.ask::<proto::UniqIdCountResp>(cmd::UNIQ_ID_COUNT, &()).count
    }
}

/// A frame of the business protocol.
pub fn business_frame(cmd: u32, body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as u32 + 4).to_be_bytes().to_vec();
    frame.extend_from_slice(&cmd.to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

fn take_business_frame(buffer: &mut Vec<u8>) -> Option<(u32, Vec<u8>)> {
    let len = u32::from_be_bytes(buffer.get(..4)?.try_into().ok()?) as usize;
    let frame = buffer.get(4..4 + len)?;
    assert!(len >= 4, "the gateway never sends a frame without a command");
    let cmd = u32::from_be_bytes(frame[..4].try_into().expect("four bytes"));
    let body = frame[4..].to_vec();
    buffer.drain(..4 + len);
    Some((cmd, body))
}

/// The shard that owns a connection (its uniqId tells).
pub fn shard_of(uniq_id: &str) -> u8 {
    let number = |range: std::ops::Range<usize>| {
        u32::from_str_radix(&uniq_id[range], 16).expect("hexadecimal digits")
    };
    ConnId::from_parts(number(12..20), number(20..28)).shard()
}

/// Asks again until the answer is right.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::yield_now();
    }
}

/// Stops a process without ending it, or lets it go on. All of its threads stand when this returns:
/// the signal alone leaves one that runs on another CPU time for some more work.
pub fn freeze(child: &std::process::Child, frozen: bool) {
    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
    let id = Pid::from_child(child);
    kill_process(id, if frozen { Signal::STOP } else { Signal::CONT }).expect("it runs");
    if frozen {
        let stands = waitpid(Some(id), WaitOptions::UNTRACED).expect("it is our child");
        assert!(stands.is_some_and(|(_, status)| status.stopped()), "it ended: {stands:?}");
    }
}

/// Command numbers of netsvr section 4.1.
pub mod cmd {
    pub const CONN_OPEN: u32 = 900001001;
    pub const CONN_CLOSE: u32 = 900001002;
    pub const TRANSFER: u32 = 900001003;
    pub const CONN_INFO_UPDATE: u32 = 900002001;
    pub const CONN_INFO_DELETE: u32 = 900002002;
    pub const BROADCAST: u32 = 900002003;
    pub const MULTICAST: u32 = 900002004;
    pub const MULTICAST_BY_CUSTOMER_ID: u32 = 900002005;
    pub const SINGLE_CAST: u32 = 900002006;
    pub const SINGLE_CAST_BULK: u32 = 900002007;
    pub const SINGLE_CAST_BY_CUSTOMER_ID: u32 = 900002008;
    pub const SINGLE_CAST_BULK_BY_CUSTOMER_ID: u32 = 900002009;
    pub const TOPIC_SUBSCRIBE: u32 = 900002010;
    pub const TOPIC_UNSUBSCRIBE: u32 = 900002011;
    pub const TOPIC_DELETE: u32 = 900002012;
    pub const TOPIC_PUBLISH: u32 = 900002013;
    pub const TOPIC_PUBLISH_BULK: u32 = 900002014;
    pub const FORCE_OFFLINE: u32 = 900002015;
    pub const FORCE_OFFLINE_BY_CUSTOMER_ID: u32 = 900002016;
    pub const FORCE_OFFLINE_GUEST: u32 = 900002017;
    pub const REGISTER: u32 = 900003001;
    pub const UNREGISTER: u32 = 900003002;
    pub const CHECK_ONLINE: u32 = 900003003;
    pub const CUSTOMER_ID_LIST: u32 = 900003004;
    pub const CUSTOMER_ID_COUNT: u32 = 900003005;
    pub const UNIQ_ID_LIST: u32 = 900003006;
    pub const UNIQ_ID_COUNT: u32 = 900003007;
    pub const TOPIC_LIST: u32 = 900003008;
    pub const TOPIC_COUNT: u32 = 900003009;
    pub const TOPIC_UNIQ_ID_LIST: u32 = 900003010;
    pub const TOPIC_UNIQ_ID_COUNT: u32 = 900003011;
    pub const TOPIC_CUSTOMER_ID_LIST: u32 = 900003012;
    pub const TOPIC_CUSTOMER_ID_TO_UNIQ_IDS_LIST: u32 = 900003013;
    pub const TOPIC_CUSTOMER_ID_COUNT: u32 = 900003014;
    pub const CONN_INFO: u32 = 900003015;
    pub const CONN_INFO_BY_CUSTOMER_ID: u32 = 900003016;
    pub const METRICS: u32 = 900003017;
    pub const LIMIT: u32 = 900003018;
}
