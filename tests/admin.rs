//! The admin server over real sockets, and how it fares with peers that are slow or hostile.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringway::config::model::LoginSettings;
use ringway::life::{Gone, Life};
use ringway::lists::letters::SidecarRequest;
use ringway::mail::{BoundedSender, Mailbox};
use ringway::metrics::{Counters, Gauges, Registry};
use ringway::protocols::netsvr::service::CallbackSettings;
use ringway::sidecar::{self, Phase, Readiness, SidecarSettings};

/// Nothing here takes that long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

struct Admin {
    address: SocketAddr,
    registry: Arc<Registry>,
    readiness: Arc<Readiness>,
    sidecar: BoundedSender<SidecarRequest>,
    thread: Option<JoinHandle<()>>,
}

impl Admin {
    fn start(admin_time_max: Duration) -> Admin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let registry = Arc::new(Registry::new(1));
        let readiness = Arc::new(Readiness::default());
        let settings = SidecarSettings {
            admin: Some(listener),
            admin_time_max,
            admin_connections_max: 64,
            readiness: readiness.clone(),
            life: Life::default(),
            sidecar: ringway::config::model::Sidecar::default(),
            callbacks: CallbackSettings::default(),
            login: LoginSettings::default(),
            xxim: Default::default(),
            shown_key: None,
            mesh: None,
            admin_socket: None,
            namer: Default::default(),
        };
        let (mailbox, _) = Mailbox::new(1, Gone::default()).unwrap();
        let (sidecar, requests) = sidecar::channel(1, &settings.life);
        let thread = sidecar::start(settings, requests, vec![mailbox], registry.clone()).unwrap();
        Admin { address, registry, readiness, sidecar, thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends the bytes and reads until the server closes.
    fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        read_all(&mut stream)
    }

    /// Status, head and body of the answer to a GET.
    fn page(&self, path: &str) -> (u16, String, String) {
        let answer = self.exchange(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
        (status(head), head.to_ascii_lowercase(), body.to_owned())
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.sidecar.send(SidecarRequest::Stop).unwrap();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn read_all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        // The server closed while there was unread input.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}"),
    }
    String::from_utf8(answer).unwrap()
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).expect(head).parse().unwrap()
}

#[test]
fn metrics_show_what_a_shard_published() {
    let admin = Admin::start(PATIENCE);
    let counters = Counters { opens: 42, ..Default::default() };
    let gauges = Gauges { clients: 41, ..Default::default() };
    admin.registry.shard(0).unwrap().publish(&counters, &gauges);
    let (status, head, body) = admin.page("/metrics");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("\nringway_clients_opened_total{shard=\"0\"} 42\n"));
    assert!(body.contains("\nringway_clients{shard=\"0\"} 41\n"));
    assert!(body.contains("\nringway_build_info{version="));
    for thread in ["sidecar", "answers"] {
        let line = format!("\nringway_thread_cpu_seconds_total{{thread=\"{thread}\"}} ");
        assert!(body.contains(&line), "{body}");
    }
    for row in Counters::ROWS.iter().chain(Gauges::ROWS) {
        assert!(body.contains(&format!("# TYPE {} {}\n", row.name, row.kind.name())));
    }
    let known = |line: &&str| {
        Registry::rows().any(|row| **line == *format!("# TYPE {} {}", row.name, row.kind.name()))
    };
    let types = body.lines().filter(|line| line.starts_with("# TYPE "));
    assert_eq!(types.filter(|line| !known(line)).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn readiness_follows_the_phase_and_health_does_not() {
    let admin = Admin::start(PATIENCE);
    for (phase, expected) in [
        (None, (503, "starting\n")),
        (Some(Phase::Ready), (200, "ready\n")),
        (Some(Phase::Draining), (503, "draining\n")),
    ] {
        if let Some(phase) = phase {
            admin.readiness.set(phase);
        }
        let (status, _, body) = admin.page("/readyz");
        assert_eq!((status, body.as_str()), expected);
        let (status, _, body) = admin.page("/healthz");
        assert_eq!((status, body.as_str()), (200, "ok\n"));
    }
}

#[test]
fn the_index_names_the_pages_and_nothing_else_exists() {
    let admin = Admin::start(PATIENCE);
    let (status, _, body) = admin.page("/");
    assert_eq!(status, 200);
    for page in ["/metrics", "/healthz", "/readyz"] {
        assert!(body.contains(page));
        assert_ne!(admin.page(page).0, 404);
    }
    for path in ["/nothing", "/metrics/", "/..", "//", "/metrics/x"] {
        assert_eq!(admin.page(path).0, 404, "{path}");
    }
    assert_eq!(admin.page("/metrics?name=x").0, 200);
}

#[test]
fn only_reading_is_possible() {
    let admin = Admin::start(PATIENCE);
    for method in ["POST", "PUT", "DELETE"] {
        let request = format!("{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(status(&admin.exchange(request.as_bytes())), 405, "{method}");
    }
    let head = admin.exchange(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(status(&head), 200);
    assert!(head.ends_with("\r\n\r\n"), "no body: {head}");
}

#[test]
fn pages_of_strangers_are_refused() {
    let admin = Admin::start(PATIENCE);
    let ask = |host: &str, origin: &str| {
        let lines = format!("Host: {host}\r\nOrigin: {origin}\r\n\r\n");
        status(&admin.exchange(format!("GET /metrics HTTP/1.1\r\n{lines}").as_bytes()))
    };
    for (host, origin) in [
        ("127.0.0.1:9464", "https://evil.example"),
        ("127.0.0.1:9464", "http://localhost:9464"),
        ("evil.example:9464", "http://evil.example:9464"),
        ("localhost", "null"),
    ] {
        assert_eq!(ask(host, origin), 403, "{host} {origin}");
    }
    assert_eq!(ask("localhost:9464", "http://localhost:3000"), 200);
}

#[test]
fn what_is_not_a_request_is_answered_with_400_or_not_at_all() {
    let admin = Admin::start(PATIENCE);
    for junk in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"hello\r\n\r\n"] {
        let answer = admin.exchange(junk);
        assert!(answer.is_empty() || status(&answer) == 400, "{answer}");
    }
    assert_eq!(admin.page("/healthz").0, 200);
}

#[test]
fn a_long_head_is_refused() {
    let admin = Admin::start(PATIENCE);
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(100));
    for head in [long, many] {
        let mut stream = admin.connect();
        // The server may close before everything is written.
        let _ = stream.write_all(head.as_bytes());
        let answer = read_all(&mut stream);
        assert!(answer.is_empty() || status(&answer) == 431, "{answer}");
    }
}

#[test]
fn a_connection_carries_one_request() {
    let admin = Admin::start(PATIENCE);
    let two = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2);
    assert_eq!(admin.exchange(&two).matches("HTTP/1.1 200").count(), 1);
}

#[test]
fn a_fin_behind_the_request_changes_nothing() {
    let admin = Admin::start(PATIENCE);
    for _ in 0..200 {
        let mut stream = admin.connect();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(status(&read_all(&mut stream)), 200);
    }
}

#[test]
fn a_body_is_not_waited_for() {
    let admin = Admin::start(PATIENCE);
    let request =
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9223372036854775807\r\n\r\n";
    assert_eq!(status(&admin.exchange(request)), 200);
}

#[test]
fn a_silent_connection_is_closed_in_time() {
    let admin = Admin::start(Duration::from_millis(200));
    let start = Instant::now();
    for sent in [&b""[..], b"GET / HTT", b"GET / HTTP/1.1\r\nHost: x\r\n"] {
        let answer = admin.exchange(sent);
        assert!(answer.is_empty() || status(&answer) == 408, "{answer}");
    }
    assert!(start.elapsed() >= Duration::from_millis(600), "closed too early");
}

/// However many connections say nothing, or not enough, or do not read.
#[test]
fn whoever_asks_finds_a_place() {
    let admin = Admin::start(PATIENCE);
    let halves =
        ["", "G", "GET /metrics HTTP/1.1\r\n", "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nx"];
    let idle: Vec<TcpStream> = (0..300)
        .map(|number| {
            let mut stream = admin.connect();
            // Those that came first may have to go meanwhile.
            let _ = stream.write_all(halves[number % halves.len()].as_bytes());
            stream
        })
        .collect();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_ne!(admin.page(path).0, 404, "{path}");
    }
    assert_eq!(admin.page("/healthz").0, 200);
    drop(idle);
}
