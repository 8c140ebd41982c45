//! A sidecar whose shards are nothing but mailboxes, and backends that speak HTTP/1.1 byte by byte.

// Each test file uses its own part.
#![allow(dead_code)]

pub mod server;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringway::config::model::LoginSettings;
use ringway::hub::ConnId;
use ringway::life::{Gone, Life};
use ringway::lists::letters::{Mail, SidecarRequest};
use ringway::mail::{BoundedSender, Mailbox};
use ringway::metrics::Registry;
use ringway::protocols::netsvr::service::CallbackSettings;
use ringway::protocols::xxim;
use ringway::protocols::xxim::config::upstream::{
    XximMode, XximRoute, XximTarget, XximUpstream, XximUpstreams,
};
use ringway::protocols::xxim::letters::{Letter, ServiceRequest, UpstreamCall, UpstreamResult};
use ringway::protocols::xxim::wire::Identity;
use ringway::sidecar::{self, SidecarSettings};

/// Nothing takes that long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Reply that says success.
pub const OK: &[u8] = b"";

/// One request as a backend sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// An HTTP server on a port of its own; its connections end when it is dropped.
pub struct Backend {
    pub address: SocketAddr,
    pub seen: Receiver<Seen>,
    pub connections: Arc<AtomicUsize>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    /// `answer` makes the whole response, or `None` to stay silent.
    pub fn start(answer: impl Fn(&Seen) -> Option<Vec<u8>> + Send + Sync + 'static) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Backend::on(listener, answer)
    }

    /// The same on a socket that listens already.
    pub fn on(
        listener: TcpListener,
        answer: impl Fn(&Seen) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Backend {
        let address = listener.local_addr().expect("it is bound");
        let (sender, seen) = channel();
        let connections = Arc::new(AtomicUsize::new(0));
        let (open, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (answer, count) = (Arc::new(answer), connections.clone());
        let (kept, stopped) = (open.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                stream.set_nodelay(true).expect("a TCP socket");
                kept.lock().unwrap().push(stream.try_clone().expect("a descriptor"));
                let (answer, sender) = (answer.clone(), sender.clone());
                std::thread::spawn(move || converse(stream, &*answer, &sender));
            }
        });
        Backend { address, seen, connections, open, stop, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn next(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("a request")
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread, which then lets go of the port.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn converse(
    mut stream: TcpStream,
    answer: &(impl Fn(&Seen) -> Option<Vec<u8>> + ?Sized),
    sender: &Sender<Seen>,
) {
    let mut input = BufReader::new(stream.try_clone().expect("a descriptor"));
    while let Some(request) = read_request(&mut input) {
        let response = answer(&request);
        let _ = sender.send(request);
        match response {
            Some(response) if stream.write_all(&response).is_ok() => {}
            Some(_) => return,
            // Silent, but open until the peer closes.
            None => drop(input.read(&mut [0])),
        }
    }
}

/// Reads one request; `None` at the end of the connection.
fn read_request(stream: &mut impl BufRead) -> Option<Seen> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(key, value)| (key.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(key, _)| key == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().expect("a number"))];
    stream.read_exact(&mut body).ok()?;
    Some(Seen { line: lines[0].clone(), headers, body })
}

/// A whole response of protobuf.
pub fn response(status: &str, body: &[u8]) -> Option<Vec<u8>> {
    response_with(status, "Content-Type: application/x-protobuf\r\n", body)
}

/// The same with these header lines.
pub fn response_with(status: &str, headers: &str, body: &[u8]) -> Option<Vec<u8>> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    Some([head.as_bytes(), body].concat())
}

/// An upstream with the defaults of the configuration.
pub fn upstream(name: &str, url: impl Into<String>, mode: XximMode) -> XximUpstream {
    XximUpstream {
        name: name.to_owned(),
        url: url.into(),
        mode,
        http2: false,
        grpc_generic: false,
        connections_max: 256,
        connect_timeout: Duration::from_secs(2),
        reply_bytes_max: 1 << 20,
        circuit_failures: 16,
        circuit_pause: Duration::from_millis(100),
    }
}

/// All methods to this upstream.
pub fn only(upstream: XximUpstream) -> XximUpstreams {
    let route = XximRoute::new("/", XximTarget::Upstream(0), Duration::from_secs(10));
    XximUpstreams { upstreams: vec![upstream], routes: vec![route], ..XximUpstreams::default() }
}

/// Settings of a sidecar that has nobody to call.
pub fn settings() -> SidecarSettings {
    SidecarSettings {
        life: Life::default(),
        sidecar: ringway::config::model::Sidecar::default(),
        admin: None,
        admin_time_max: Duration::from_secs(1),
        admin_connections_max: 64,
        readiness: Arc::default(),
        callbacks: CallbackSettings { deadline: PATIENCE, ..CallbackSettings::default() },
        login: LoginSettings::default(),
        xxim: xxim::service::Settings::default(),
        shown_key: None,
        mesh: None,
        admin_socket: None,
        namer: Default::default(),
    }
}

/// A running sidecar.
pub struct Sidecar {
    pub sender: BoundedSender<SidecarRequest>,
    pub registry: Arc<Registry>,
    pub mailboxes: Vec<Mailbox<Mail>>,
    thread: Option<JoinHandle<()>>,
}

impl Sidecar {
    /// With two shards.
    pub fn start(settings: SidecarSettings) -> Sidecar {
        let (senders, mailboxes): (Vec<_>, Vec<_>) =
            (0..2).map(|_| Mailbox::new(4096, Gone::default()).expect("a descriptor")).unzip();
        let registry = Arc::new(Registry::new(2));
        let (sender, requests) = sidecar::channel(4096, &settings.life);
        let thread = sidecar::start(settings, requests, senders, registry.clone());
        let thread = thread.expect("it starts");
        Sidecar { sender, registry, mailboxes, thread: Some(thread) }
    }

    pub fn with(upstreams: XximUpstreams) -> Sidecar {
        let xxim = xxim::service::Settings { upstreams, ..Default::default() };
        Sidecar::start(SidecarSettings { xxim, ..settings() })
    }

    pub fn request(&self, request: SidecarRequest) {
        self.sender.send(request).expect("room for it");
    }

    /// Begins a call for a connection of shard 0.
    pub fn begin(&self, number: u32, call: UpstreamCall) {
        let request = ServiceRequest::Upstream { conn: conn(), number, call: Box::new(call) };
        self.request(SidecarRequest::Xxim(request));
    }

    /// The next answer.
    pub fn answer(&self) -> (u32, UpstreamResult) {
        match self.mail(0) {
            Mail::Xxim(Letter::UpstreamAnswered { conn: to, number, result }) => {
                assert_eq!(to, conn());
                (number, result)
            }
            other => panic!("{other:?}"),
        }
    }

    /// One call and its result.
    pub fn call(&self, call: UpstreamCall) -> UpstreamResult {
        self.begin(7, call);
        let (number, result) = self.answer();
        assert_eq!(number, 7);
        result
    }

    /// The next mail of a shard.
    pub fn mail(&self, shard: usize) -> Mail {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(mail) = self.mailboxes[shard].take() {
                return mail;
            }
            assert!(Instant::now() < deadline, "no mail");
            std::thread::yield_now();
        }
    }

    /// The value of a series, e.g. `name{label="value"}`.
    pub fn metric(&self, series: &str) -> f64 {
        let text = self.registry.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} in {text}")).parse().expect("a number")
    }

    /// Asks for a metric until it has this value.
    pub fn await_metric(&self, series: &str, value: f64) {
        let deadline = Instant::now() + PATIENCE;
        while self.metric(series) != value {
            let now = self.metric(series);
            assert!(Instant::now() < deadline, "{series} is {now}, not {value}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.sender.send(SidecarRequest::Stop);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_some_and(|ended| ended.is_ok()) || std::thread::panicking());
    }
}

/// The connection that asks.
pub fn conn() -> ConnId {
    ConnId::new(0, 5, 1_700_000_000)
}

/// The client of the vectors.
pub fn identity() -> Identity {
    Identity {
        user_id: "test123456".into(),
        token: "tok.en.sig".into(),
        platform: "windows".into(),
        device_id: "xxxx".into(),
        device_model: "DeviceModel".into(),
        os_version: "OsVersion".into(),
        app_version: "AppVersion".into(),
        language: "Language".into(),
        network_used: "NetworkUsed".into(),
        ip: "203.0.113.7".into(),
        ..Identity::default()
    }
}

/// A call on route 0.
pub fn call(method: &str, body: impl Into<Bytes>) -> UpstreamCall {
    UpstreamCall {
        method: method.into(),
        route: 0,
        body: body.into(),
        identity: Arc::new(identity()),
        req_id: Bytes::from_static(b"r1"),
    }
}

pub fn hex(text: &str) -> Vec<u8> {
    let text: String = text.split_whitespace().collect();
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}
