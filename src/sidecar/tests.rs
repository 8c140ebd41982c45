//! Callbacks against real HTTP servers, seen from the shards: requests in, mail out.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::hub::ConnId;
use crate::life::Gone;
use crate::mail::Mailbox;
use crate::protocols::netsvr::letters::{Letter, ServiceRequest};
use crate::protocols::netsvr::service::CallbackSettings;
use crate::protocols::netsvr::wire::Verdict;

/// netsvr section 12, V38.
const ALLOW: &[u8] = b"\x08\x01\x12\x01s\x1a\x0242\x22\x04room\x2a\x02hi";
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Nothing here takes that long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// One request as an application sees it.
#[derive(Debug)]
struct Seen {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// An HTTP server on a port of its own.
struct Application {
    address: SocketAddr,
    seen: Receiver<Seen>,
    connections: Arc<AtomicUsize>,
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
    let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    Some(Seen { line: lines[0].clone(), headers, body })
}

/// Serves until the test process ends. `answer` makes the whole response, or `None` to stay silent.
fn application(answer: impl Fn(&Seen) -> Option<Vec<u8>> + Send + Sync + 'static) -> Application {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, seen) = channel();
    let connections = Arc::new(AtomicUsize::new(0));
    let (answer, count) = (Arc::new(answer), connections.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            let (answer, sender) = (answer.clone(), sender.clone());
            std::thread::spawn(move || converse(stream, &*answer, &sender));
        }
    });
    Application { address, seen, connections }
}

fn converse(
    mut stream: TcpStream,
    answer: &(impl Fn(&Seen) -> Option<Vec<u8>> + ?Sized),
    sender: &Sender<Seen>,
) {
    let mut input = BufReader::new(stream.try_clone().unwrap());
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

fn response(status: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut response = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
    response.insert_str(response.len() - 2, "Content-Type: application/x-protobuf\r\n");
    Some([response.as_bytes(), body].concat())
}

fn redirect(status: &str, target: &str) -> Option<Vec<u8>> {
    Some(format!("HTTP/1.1 {status}\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n").into())
}

/// A sidecar with two shards that are nothing but mailboxes.
struct Gateway {
    sender: BoundedSender<SidecarRequest>,
    thread: Option<JoinHandle<()>>,
    mailboxes: Vec<Mailbox<Mail>>,
    registry: Arc<Registry>,
}

fn settings(callbacks: CallbackSettings) -> SidecarSettings {
    SidecarSettings {
        sidecar: Sidecar::default(),
        login: LoginSettings::default(),
        xxim: Default::default(),
        admin: None,
        admin_time_max: Duration::from_secs(1),
        admin_connections_max: 64,
        readiness: Arc::default(),
        life: Life::default(),
        callbacks,
        shown_key: None,
        mesh: None,
        admin_socket: None,
        namer: Default::default(),
    }
}

impl Gateway {
    fn start(on_open: Option<String>, on_close: Option<String>, deadline: Duration) -> Gateway {
        let (senders, mailboxes): (Vec<_>, Vec<_>) =
            (0..2).map(|_| Mailbox::new(2, Gone::default()).unwrap()).unzip();
        let registry = Arc::new(Registry::new(2));
        let answer_bytes_max = ANSWER_BYTES_MAX;
        let settings = settings(CallbackSettings { on_open, on_close, deadline, answer_bytes_max });
        let (sender, requests) = super::channel(64, &settings.life);
        let thread = start(settings, requests, senders, registry.clone()).unwrap();
        Gateway { sender, thread: Some(thread), mailboxes, registry }
    }

    fn opening(address: SocketAddr) -> Gateway {
        Gateway::start(Some(format!("http://{address}/onopen")), None, PATIENCE)
    }

    /// Waits for the next mail of a shard.
    fn mail(&self, shard: usize) -> Mail {
        let mailbox = &self.mailboxes[shard];
        let start = Instant::now();
        loop {
            if let Some(mail) = mailbox.take() {
                return mail;
            }
            mailbox.waker().rest();
            if mailbox.is_empty() {
                let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
                let mut waker = [PollFd::from_borrowed_fd(mailbox.waker().fd(), PollFlags::IN)];
                poll(&mut waker, Some(&timeout)).unwrap();
            }
            mailbox.waker().awake();
            assert!(start.elapsed() < PATIENCE, "no mail");
        }
    }

    fn ask(&self, request: ServiceRequest) {
        self.sender.send(SidecarRequest::Netsvr(request)).unwrap();
    }

    /// Asks once, from shard 1.
    fn open(&self) -> Option<Box<Verdict>> {
        let asked = ConnId::new(1, 5, 1_700_000_000);
        let body = Bytes::from_static(b"\x0a\x04open");
        self.ask(ServiceRequest::OnOpen { conn: asked, body });
        match self.mail(1) {
            Mail::Netsvr(Letter::Opened { conn, verdict }) if conn == asked => verdict,
            other => panic!("{other:?}"),
        }
    }

    fn failures(&self, callback: &str, reason: &str) -> u64 {
        let name = "ringway_callback_failures_total";
        let series = format!("{name}{{callback=\"{callback}\",reason=\"{reason}\"}} ");
        let text = self.registry.render();
        let line = text.lines().find_map(|line| line.strip_prefix(&series));
        line.expect(&series).parse().unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.sender.send(SidecarRequest::Stop).unwrap();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

#[test]
fn an_open_is_a_post_as_specified_and_its_answer_reaches_the_shard_that_asked() {
    let application = application(|_| response("200 OK", ALLOW));
    let gateway = Gateway::opening(application.address);
    let verdict = gateway.open().unwrap();
    assert!(verdict.allow);
    assert_eq!(&verdict.data[..], b"hi");
    assert!(gateway.mailboxes[0].is_empty());

    let seen = application.seen.recv().unwrap();
    assert_eq!(seen.line, "POST /onopen HTTP/1.1");
    assert_eq!(seen.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(seen.header("accept"), Some("application/x-protobuf"));
    assert_eq!(seen.header("content-length"), Some("6"));
    assert_eq!(seen.header("transfer-encoding"), None);
    assert_eq!(seen.body, b"\x0a\x04open");
}

#[test]
fn an_empty_answer_is_a_denial_and_not_a_failure() {
    let application = application(|_| response("200 OK", b""));
    let gateway = Gateway::opening(application.address);
    assert!(!gateway.open().unwrap().allow);
    for reason in ["timeout", "unreachable", "transport", "status", "answer"] {
        assert_eq!(gateway.failures("on_open", reason), 0);
    }
}

#[test]
fn every_status_but_200_is_a_failure() {
    for status in ["204 No Content", "201 Created", "500 Oops", "404 No", "301 Nowhere"] {
        let application = application(move |_| response(status, b""));
        let gateway = Gateway::opening(application.address);
        assert!(gateway.open().is_none(), "{status}");
        assert_eq!(gateway.failures("on_open", "status"), 1, "{status}");
    }
}

#[test]
fn redirects_turn_into_a_get_or_repeat_the_post() {
    let rows = [("301 Moved", "GET"), ("302 Found", "GET"), ("303 See Other", "GET")]
        .into_iter()
        .chain([("307 Temporary Redirect", "POST"), ("308 Permanent Redirect", "POST")]);
    for (status, method) in rows {
        let application = application(move |request| match request.line.contains("/onopen") {
            true => redirect(status, "/other?x=1"),
            false => response("200 OK", ALLOW),
        });
        let gateway = Gateway::opening(application.address);
        assert!(gateway.open().unwrap().allow, "{status}");
        application.seen.recv().unwrap();
        let second = application.seen.recv().unwrap();
        assert_eq!(second.line, format!("{method} /other?x=1 HTTP/1.1"), "{status}");
        let repeated: &[u8] = if method == "POST" { b"\x0a\x04open" } else { b"" };
        assert_eq!(second.body, repeated, "{status}");
        assert_eq!(second.header("referer"), None);
    }
}

#[test]
fn a_redirect_loop_ends() {
    let application = application(|_| redirect("307 Again", "/onopen"));
    let gateway = Gateway::opening(application.address);
    assert!(gateway.open().is_none());
    assert_eq!(application.seen.try_iter().count(), 11);
    assert_eq!(gateway.failures("on_open", "transport"), 1);
}

#[test]
fn an_undecodable_answer_is_a_failure() {
    let application = application(|_| response("200 OK", b"\xff\xff\xff"));
    let gateway = Gateway::opening(application.address);
    assert!(gateway.open().is_none());
    assert_eq!(gateway.failures("on_open", "answer"), 1);
}

#[test]
fn an_answer_may_be_as_long_as_the_limit_and_no_longer() {
    // Field 5 with 4 bytes of length in front of it.
    let of_length = |length: usize| {
        let data = length - 4;
        let varint = [data as u8 | 0x80, (data >> 7) as u8 | 0x80, (data >> 14) as u8];
        [&[0x2a][..], &varint[..], &vec![b'x'; data][..]].concat()
    };
    let longest = of_length(ANSWER_BYTES_MAX);
    let application_of_limit = application(move |_| response("200 OK", &longest));
    let gateway = Gateway::opening(application_of_limit.address);
    assert_eq!(gateway.open().unwrap().data.len(), ANSWER_BYTES_MAX - 4);

    let longer = of_length(ANSWER_BYTES_MAX + 1);
    let announced = application(move |_| response("200 OK", &longer));
    let chunks = std::iter::repeat_n(format!("10000\r\n{}\r\n", "x".repeat(0x10000)), 17);
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        chunks.collect::<String>()
    );
    let unannounced = application(move |_| Some(chunked.clone().into()));
    for application in [announced, unannounced] {
        let gateway = Gateway::opening(application.address);
        assert!(gateway.open().is_none());
        assert_eq!(gateway.failures("on_open", "answer"), 1);
    }
}

#[test]
fn the_deadline_covers_the_answer_and_its_body() {
    let silent = application(|_| None);
    let half = application(|_| Some(b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n\x08".to_vec()));
    for application in [silent, half] {
        let url = Some(format!("http://{}/", application.address));
        let gateway = Gateway::start(url.clone(), url, Duration::from_millis(200));
        assert!(gateway.open().is_none());
        assert_eq!(gateway.failures("on_open", "timeout"), 1);
    }
}

#[test]
fn a_refused_connection_is_a_failure() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Gateway::opening(closed);
    assert!(gateway.open().is_none());
    assert_eq!(gateway.failures("on_open", "unreachable"), 1);
}

#[test]
fn a_connection_that_ends_without_an_answer_is_a_failure() {
    let application = application(|_| Some(Vec::from(b"HTTP/1.1 what is this\r\n\r\n")));
    let gateway = Gateway::opening(application.address);
    assert!(gateway.open().is_none());
    assert_eq!(gateway.failures("on_open", "transport"), 1);
}

#[test]
fn without_an_address_an_open_fails_instead_of_hanging() {
    let gateway = Gateway::start(None, None, PATIENCE);
    assert!(gateway.open().is_none());
    assert_eq!(gateway.failures("on_open", "unset"), 1);
}

#[test]
fn a_close_is_a_post_without_accept_of_ours_and_any_answer_will_do() {
    for status in ["204 No Content", "200 OK", "500 Oops"] {
        let application = application(move |_| response(status, b""));
        let url = format!("http://{}/onclose", application.address);
        let gateway = Gateway::start(None, Some(url), PATIENCE);
        let body = Bytes::from_static(b"\x0a\x04gone");
        gateway.ask(ServiceRequest::OnClose { shard: 0, number: 7, body });
        assert!(matches!(gateway.mail(0), Mail::Netsvr(Letter::ClosedCallback { number: 7 })));
        let seen = application.seen.recv().unwrap();
        assert_eq!(seen.line, "POST /onclose HTTP/1.1");
        assert_eq!(seen.header("content-type"), Some("application/x-protobuf"));
        assert_ne!(seen.header("accept"), Some("application/x-protobuf"));
        assert_eq!(seen.body, b"\x0a\x04gone");
        assert_eq!(gateway.failures("on_close", "status"), 0);
    }
}

#[test]
fn a_close_is_over_when_its_deadline_is() {
    let application = application(|_| None);
    let url = format!("http://{}/onclose", application.address);
    let gateway = Gateway::start(None, Some(url), Duration::from_millis(200));
    gateway.ask(ServiceRequest::OnClose { shard: 1, number: 1, body: Bytes::new() });
    assert!(matches!(gateway.mail(1), Mail::Netsvr(Letter::ClosedCallback { number: 1 })));
    assert_eq!(gateway.failures("on_close", "timeout"), 1);
}

#[test]
fn connections_to_the_application_are_kept() {
    let application = application(|_| response("200 OK", ALLOW));
    let gateway = Gateway::opening(application.address);
    for _ in 0..20 {
        assert!(gateway.open().unwrap().allow);
    }
    assert_eq!(application.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn answers_wait_for_room_in_a_full_mailbox() {
    let application = application(|_| response("200 OK", ALLOW));
    let gateway = Gateway::opening(application.address);
    let conns: Vec<_> = (0..40).map(|slot| ConnId::new(0, slot, 1)).collect();
    for &conn in &conns {
        gateway.ask(ServiceRequest::OnOpen { conn, body: Bytes::new() });
    }
    // The mailbox has two places; all requests are answered before anyone looks into it.
    (0..40).for_each(|_| drop(application.seen.recv().unwrap()));
    let mut answered: Vec<_> = (0..40)
        .map(|_| match gateway.mail(0) {
            Mail::Netsvr(Letter::Opened { conn, verdict: Some(_) }) => conn,
            other => panic!("{other:?}"),
        })
        .collect();
    answered.sort();
    assert_eq!(answered, conns);
}

#[test]
fn a_full_channel_gives_the_request_back() {
    let (sender, mut requests) = BoundedSender::new(1, Gone::default());
    sender.send(SidecarRequest::Stop).unwrap();
    let body = Bytes::from_static(b"x");
    let close = ServiceRequest::OnClose { shard: 3, number: 9, body };
    let returned = sender.send(SidecarRequest::Netsvr(close)).unwrap_err();
    assert!(matches!(
        returned,
        SidecarRequest::Netsvr(ServiceRequest::OnClose { shard: 3, number: 9, .. })
    ));
    assert!(matches!(requests.try_recv(), Ok(SidecarRequest::Stop)));
    drop(requests);
    sender.send(returned).unwrap();
}

#[test]
fn a_stop_does_not_wait_for_callbacks() {
    let application = application(|_| None);
    let gateway = Gateway::opening(application.address);
    let conn = ConnId::new(0, 1, 1);
    gateway.ask(ServiceRequest::OnOpen { conn, body: Bytes::new() });
    application.seen.recv().unwrap();
    let start = Instant::now();
    drop(gateway);
    assert!(start.elapsed() < PATIENCE / 2);
}

#[test]
fn a_bad_address_is_an_error_that_does_not_repeat_it() {
    for bad in ["/onopen", "ftp://user:secret@host/", "http://", "secret host"] {
        let callbacks =
            CallbackSettings { on_open: Some(bad.to_owned()), ..CallbackSettings::default() };
        let settings = settings(callbacks);
        let (_sender, requests) = super::channel(1, &settings.life);
        let Err(error) = start(settings, requests, Vec::new(), Arc::new(Registry::new(0))) else {
            panic!("{bad}")
        };
        let text = error.to_string();
        assert!(text.starts_with("on_open: ") && !text.contains("secret"), "{text}");
    }
}

#[test]
fn one_blocked_thread_of_several_has_no_turns_while_the_others_have() {
    let (runtime, life) = (runtime(4).expect("threads"), Life::default());
    let mut workers = Workers::of(&runtime, &life);
    let (release, held) = channel::<()>();
    let (begin, begun) = channel();
    runtime.spawn(async move {
        begin.send(()).expect("the test waits");
        held.recv()
    });
    begun.recv().expect("it begins");
    let names = ["sidecar-1", "sidecar-2", "sidecar-3"];
    let turns = || names.map(|name| life.turns(name).expect("it has a pulse"));
    let mut await_turns_of = |count: usize| {
        // What was before the hold counts once.
        (0..2).for_each(|_| workers.look());
        let (before, deadline) = (turns(), Instant::now() + PATIENCE);
        loop {
            workers.look();
            let turned = (0..names.len()).filter(|n| turns()[*n] > before[*n]).count();
            if turned == count {
                break;
            }
            assert!(turned < count && Instant::now() < deadline, "{turned} have turns");
        }
        (0..100).for_each(|_| workers.look());
        (0..names.len()).filter(|n| turns()[*n] > before[*n]).count()
    };
    assert_eq!(await_turns_of(2), 2);
    release.send(()).expect("it is held");
    assert_eq!(await_turns_of(3), 3);
    life.stop();
}
