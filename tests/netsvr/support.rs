//! What the tests of netsvr share: a gateway with one known client on each shard, and marks.
//!
//! That something was *not* sent is shown by what comes after it: commands of one backend
//! connection reach a client in order (specification section 3.6), so what was sent before a mark
//! comes before it, and what is not there by then never comes.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use prost::Message;
use ringway::config::all::Config;
use ringway::wire::websocket::mask_frame;
use ringway::wire::worker::proto;

use crate::common::*;

/// Events (section 4.2).
pub const OPEN: i32 = 1;
pub const CLOSE: i32 = 2;
pub const MESSAGE: i32 = 4;
pub const ALL: i32 = 7;

/// The heartbeat text of the default configuration.
pub const HEARTBEAT: &str = "~6YOt5rW35piO~";

/// A request header that asks for compression.
pub const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

const MARK: &str = "the mark";

/// A frame as a client sends it.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    mask_frame(first, [1, 2, 3, 4], payload)
}

/// Owned strings for the fields of messages.
pub fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// For lists that have no order (section 3.5). Fails if an element occurs twice.
pub fn set<T: Ord + Clone>(list: &[T]) -> BTreeSet<T> {
    let set: BTreeSet<T> = list.iter().cloned().collect();
    assert_eq!(set.len(), list.len(), "an element is listed twice");
    set
}

/// A gateway, a client on each of its two shards, and a connection for commands.
pub struct Stage {
    /// `clients[n]` is on shard `n`.
    pub clients: [Client; 2],
    pub ids: [String; 2],
    pub task: Business,
    /// Dropped last, so that it has nobody to wait for.
    pub server: Server,
}

impl Stage {
    pub fn new(config: Config) -> Stage {
        Stage::with_headers(config, "")
    }

    /// Clients that send these header lines as well.
    pub fn with_headers(config: Config, headers: &str) -> Stage {
        let server = Server::start(config);
        let [(first, first_id), (second, second_id)] = client_pair(&server, headers);
        let task = server.task();
        Stage { clients: [first, second], ids: [first_id, second_id], task, server }
    }

    /// Both ids and one that is unknown in between.
    pub fn all_ids(&self) -> Vec<String> {
        vec![self.ids[0].clone(), unknown_id(&self.ids[0]), self.ids[1].clone()]
    }

    /// The texts that each client was sent up to now.
    pub fn received(&mut self) -> [Vec<String>; 2] {
        let [first, second] = &mut self.clients;
        [
            texts_until_mark(&mut self.task, first, &self.ids[0]),
            texts_until_mark(&mut self.task, second, &self.ids[1]),
        ]
    }

    /// What a query says about one client: session, customer, topics.
    pub fn info(&mut self, client: usize) -> (String, String, BTreeSet<String>) {
        let info = info(&mut self.task, &self.ids[client]).expect("the client is registered");
        (info.session, info.customer_id, set(&info.topics))
    }

    /// Sets session, customer and topics of a client; empty ones are left as they are.
    pub fn update(&mut self, client: usize, session: &str, customer: &str, topics: &[&str]) {
        let message = proto::ConnInfoUpdate {
            uniq_id: self.ids[client].clone(),
            new_session: session.to_owned(),
            new_customer_id: customer.to_owned(),
            new_topics: strings(topics),
            ..Default::default()
        };
        self.task.send(cmd::CONN_INFO_UPDATE, &message);
    }
}

/// One client on each shard, the only ones that are registered, and no worker.
pub fn client_pair(server: &Server, headers: &str) -> [(Client, String); 2] {
    let mut worker = Business::connect(server.address(WORKERS));
    let name = worker.register(OPEN).conn_id;
    let pair = [0, 1].map(|shard| client_on(server, &mut worker, shard, headers));
    unregister(&mut worker, &name);
    wait_until("only the two are left", || worker.online_count() == 2);
    pair
}

/// A client of the wanted shard and its uniqId. Its `ConnOpen` and those of clients that came to
/// another shard go to `worker`.
pub fn client_on(
    server: &Server,
    worker: &mut Business,
    shard: u8,
    headers: &str,
) -> (Client, String) {
    for _ in 0..200 {
        let client = Client::open_with(server.address(CLIENTS), "/netsvr", headers);
        let uniq_id = worker.opened();
        if shard_of(&uniq_id) == shard {
            return (client, uniq_id);
        }
    }
    panic!("no connection came to shard {shard}");
}

/// A uniqId like this one that names nobody.
pub fn unknown_id(like: &str) -> String {
    format!("{}{}", &like[..20], "00fffff0")
}

/// What `ConnInfo` says about a connection, everything asked.
pub fn info(task: &mut Business, uniq_id: &str) -> Option<proto::ConnInfoRespItem> {
    let request = proto::ConnInfoReq {
        uniq_ids: strings(&[uniq_id]),
        req_session: true,
        req_customer_id: true,
        req_topic: true,
    };
    task.ask::<proto::ConnInfoResp>(cmd::CONN_INFO, &request).items.remove(uniq_id)
}

/// Those of the connections that are registered, in the order asked.
pub fn online(task: &mut Business, uniq_ids: &[&str]) -> Vec<String> {
    let request = proto::CheckOnlineReq { uniq_ids: strings(uniq_ids) };
    task.ask::<proto::CheckOnlineResp>(cmd::CHECK_ONLINE, &request).uniq_ids
}

/// Ends a registration, of this or another connection.
pub fn unregister(business: &mut Business, conn_id: &str) {
    let request = proto::UnRegisterReq { conn_id: conn_id.to_owned() };
    let _: proto::UnRegisterResp = business.ask(cmd::UNREGISTER, &request);
}

/// The texts that a client is sent before a mark that `task` sends now.
pub fn texts_until_mark(task: &mut Business, client: &mut Client, uniq_id: &str) -> Vec<String> {
    task.single_cast(uniq_id, MARK);
    let mut texts = Vec::new();
    loop {
        let frame = client.frame();
        assert_eq!(frame.first, 0x81, "a text was expected, not {frame:?}");
        if frame.text() == MARK {
            return texts;
        }
        texts.push(frame.text().to_owned());
    }
}

/// Checks that whatever the client has sent until now was handled without an answer.
pub fn expect_silence(client: &mut Client) {
    client.write(&masked(0x89, b"still there?"));
    assert_eq!(client.frame(), Frame { first: 0x8a, payload: b"still there?".to_vec() });
}

/// Metric items with their counts.
pub fn metrics(task: &mut Business) -> std::collections::BTreeMap<i32, i64> {
    let items = task.ask::<proto::MetricsResp>(cmd::METRICS, &()).items;
    items.into_iter().map(|(item, value)| (item, value.count)).collect()
}

/// Reads until the peer closes; fails after [`PATIENCE`]. A reset counts as closing.
pub fn read_to_end(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match socket.read(&mut piece) {
            Ok(0) => return bytes,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return bytes,
            Err(error) => panic!("not closed for {PATIENCE:?}: {error}"),
        }
    }
}

/// Writes one byte now and then until the peer closes; returns how long that took.
pub fn trickle_until_closed(socket: &mut TcpStream, byte: u8) -> Duration {
    let start = Instant::now();
    socket.set_read_timeout(Some(Duration::from_millis(20))).expect("a valid timeout");
    loop {
        // Fails when the peer has closed, which the read will say as well.
        let _ = socket.write_all(&[byte]);
        match socket.read(&mut [0]) {
            Ok(0) => return start.elapsed(),
            Ok(_) => panic!("an answer came"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(start.elapsed() < PATIENCE, "it is never closed");
            }
            Err(_) => return start.elapsed(),
        }
    }
}

/// One page of the admin server: the whole response.
pub fn page(address: SocketAddr, path: &str) -> String {
    let mut socket = connect(address);
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    socket.write_all(request.as_bytes()).expect("the gateway reads");
    String::from_utf8(read_to_end(&mut socket)).expect("text")
}

/// The values of a family on `/metrics`, by what stands between its braces.
pub fn prometheus(server: &Server, family: &str) -> Vec<(String, f64)> {
    let address = server.gateway().admin_address().expect("admin is on");
    let text = page(address, "/metrics");
    let lines = text.lines().filter_map(|line| line.strip_prefix(family)?.strip_prefix('{'));
    let values = lines.filter_map(|line| line.split_once("} "));
    values.map(|(labels, value)| (labels.to_owned(), value.parse().expect("a number"))).collect()
}

/// The sum of a family over the shards, of lines with this label (`""`: all).
pub fn prometheus_sum(server: &Server, family: &str, label: &str) -> f64 {
    let values = prometheus(server, family);
    values.iter().filter(|(labels, _)| labels.contains(label)).map(|(_, value)| value).sum()
}

/// The configuration with an admin server on a free port.
pub fn config_with_admin() -> Config {
    let mut config = config();
    config.admin.bind = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    config
}

/// Two registered workers, the first on shard 0 and the second on shard 1, with their names; there
/// must be no others. Needs the admin server, which tells where they are.
pub fn worker_pair(server: &Server, events: i32) -> [(Business, String); 2] {
    let counts = || {
        let mut counts = prometheus(server, "ringway_workers");
        counts.sort_by(|a, b| a.0.cmp(&b.0));
        [counts[0].1, counts[1].1]
    };
    let mut expected = [0.0; 2];
    wait_until("earlier workers are gone", || counts() == expected);
    [0, 1].map(|shard| {
        expected[shard] += 1.0;
        for _ in 0..200 {
            let mut worker = Business::connect(server.address(WORKERS));
            let name = worker.register(events).conn_id;
            let total: f64 = expected.iter().sum();
            wait_until("the worker is counted", || counts().iter().sum::<f64>() == total);
            if counts() == expected {
                return (worker, name);
            }
            drop(worker);
            let total = total - 1.0;
            wait_until("the worker is gone", || counts().iter().sum::<f64>() == total);
        }
        panic!("no worker came to shard {shard}");
    })
}

/// Several workers that are read at the same time.
pub struct Readers {
    events: Receiver<(usize, u32, Vec<u8>)>,
    sockets: Vec<TcpStream>,
}

impl Readers {
    pub fn new(workers: Vec<Business>) -> Readers {
        let (sender, events) = std::sync::mpsc::channel();
        let sockets = (0..).zip(workers).map(|(number, mut worker)| {
            let (socket, sender) = (worker.socket.try_clone(), sender.clone());
            // It ends with the connection.
            worker.socket.set_read_timeout(None).expect("none is valid");
            std::thread::spawn(move || {
                while let Some((cmd, body)) = worker.try_frame() {
                    let _ = sender.send((number, cmd, body));
                }
            });
            socket.expect("a descriptor is left")
        });
        Readers { sockets: sockets.collect(), events }
    }

    /// The next frame: number of the worker, command number, body.
    pub fn next(&self) -> (usize, u32, Vec<u8>) {
        self.events.recv_timeout(PATIENCE).expect("no event came")
    }

    /// So many frames.
    pub fn take(&self, count: usize) -> Vec<(usize, u32, Vec<u8>)> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Ends the connection of a worker at once.
    pub fn kill(&self, worker: usize) {
        self.sockets[worker].shutdown(Shutdown::Both).expect("it is connected");
    }
}

/// The uniqId of an event; it is field 1 of all of them.
pub fn id_of(body: &[u8]) -> String {
    assert_eq!(body[..2], [0x0a, 28]);
    String::from_utf8(body[2..30].to_vec()).expect("hexadecimal digits")
}

/// The complete frames at the front of these bytes, and how many bytes of another follow.
pub fn whole_frames(bytes: &[u8]) -> (Vec<(u32, Vec<u8>)>, usize) {
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    let (mut frames, mut rest) = (Vec::new(), bytes);
    while rest.len() >= 8 && rest.len() - 4 >= number(&rest[..4]) as usize {
        let (frame, next) = rest.split_at(4 + number(&rest[..4]) as usize);
        frames.push((number(&frame[4..8]), frame[8..].to_vec()));
        rest = next;
    }
    (frames, rest.len())
}

/// A message as the frame that carries it to the gateway.
pub fn framed(cmd: u32, message: &impl Message) -> Vec<u8> {
    business_frame(cmd, &message.encode_to_vec())
}

/// Bytes from hexadecimal digits; white space does not count.
pub fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("ASCII digits");
        u8::from_str_radix(pair, 16).expect("hexadecimal digits")
    };
    digits.chunks(2).map(byte).collect()
}
