//! A part of the gateway that stands still or dies is seen from outside, and takes the process with
//! it in time. What happens on purpose here can only happen in debug builds.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use prost::Message;
use ringway::life::{Failure, Fault, Life, Phase};
use ringway::lists::letters::{Mail, MeshRequest, SidecarRequest};
use ringway::mail::{BoundedSender, Mailbox, UnboundedSender};
use ringway::protocols::connmix::config::QueueScope;
use ringway::protocols::xxim::wire::proto::{RequestBody, SetCxnParamsReq};
use ringway::wire::websocket::mask_frame;
use rustix::process::Signal;
use serde_json::Value;

use crate::binary::{Binary, File, LISTENERS, RINGWAY, run};
use crate::common::*;

const HOUR_MS: u64 = 3_600_000;
/// The watchdog's shortest limit.
const IMPATIENT: &str = "[runtime]\nwatchdog = \"3s\"\n";
const KEY_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/xxim/test-key.pem");

/// One request to the admin server: status and body. `None`: no answer.
fn ask(server: &Binary, head: &str, body: &str) -> Option<(u16, String)> {
    let mut client = Client::tcp(server.admin());
    let length = body.len();
    let head = format!("{head} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}");
    client.socket.write_all(head.as_bytes()).ok()?;
    let answer = String::from_utf8(client.rest()).expect("UTF-8");
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn page(server: &Binary, path: &str) -> (u16, String) {
    ask(server, &format!("GET {path}"), "").expect("an answer")
}

/// Lines of the log whose message begins like this, about this thread.
fn lines(server: &Binary, start: &str, thread: &str) -> Vec<Value> {
    let about = |line: &Value| {
        let says = line["message"].as_str().is_some_and(|text| text.starts_with(start));
        says && line["thread"].as_str().is_some_and(|name| name.starts_with(thread))
    };
    server.log().into_iter().filter(about).collect()
}

fn await_line(server: &Binary, start: &str, thread: &str) -> Value {
    wait_until(start, || !lines(server, start, thread).is_empty());
    lines(server, start, thread).remove(0)
}

/// The end after a panic: soon, its code, and one line that says all.
fn expect_panic(mut server: Binary, thread: &str) {
    let begun = Instant::now();
    assert_eq!(server.exit_code(), Some(101), "{thread}");
    // It is meant to be one second, on a machine that has time for it.
    assert!(begun.elapsed() < Duration::from_secs(10), "{thread}: {:?}", begun.elapsed());
    let line = await_line(&server, "a thread panicked", thread);
    assert!(line["place"].as_str().is_some_and(|place| place.contains("pulse.rs:")), "{line}");
    assert!(line["panic"].as_str().is_some_and(|text| text.starts_with("a fault")), "{line}");
    assert_eq!(line["version"].as_str(), Some(env!("CARGO_PKG_VERSION")));
    let log = server.log();
    let panics = log.iter().filter(|line| line.to_string().contains("panicked"));
    assert_eq!(panics.count(), 1, "one line: {log:?}");
}

#[test]
fn a_panic_of_one_shard_ends_the_process() {
    for shard in ["shard-0", "shard-1"] {
        let server = Binary::start("");
        server.order(&format!("{shard} mail 1 panic"));
        expect_panic(server, shard);
    }
}

#[test]
fn a_panic_of_the_sidecar_ends_the_process() {
    let server = Binary::start("");
    server.order("sidecar work 1 panic");
    expect_panic(server, "sidecar");
}

/// The task that panics is one of several threads of the runtime, none of which ends by it.
#[test]
fn a_panic_of_a_task_that_serves_all_ends_the_process() {
    let server = Binary::start("[sidecar]\nthreads = 3\n");
    server.order("sidecar-workers work 1 panic");
    expect_panic(server, "sidecar");
}

/// Nobody answers there; both threads wait for a link.
const CLUSTER: &str = "[mesh]\nnats = [\"nats://127.0.0.1:9\"]\n\
                       [connmix.queue]\nscope = \"cluster\"\n";

#[test]
fn a_panic_of_the_mesh_or_the_queues_ends_the_process() {
    for thread in ["mesh", "queues"] {
        let server = Binary::start(CLUSTER);
        server.order(&format!("{thread} work 1 panic"));
        expect_panic(server, thread);
    }
}

/// The end by the watchdog, and who is named.
fn expect_end_of(mut server: Binary, thread: &str) {
    assert_eq!(server.exit_code(), Some(70), "{thread}");
    await_line(&server, "no turn", thread);
    assert_eq!(lines(&server, "", "").len(), 1, "nobody else: {:?}", server.log());
}

#[test]
fn the_mesh_or_the_queues_that_stand_still_end_the_process() {
    for thread in ["mesh", "queues"] {
        let server = Binary::start(&format!("{IMPATIENT}{CLUSTER}"));
        server.order(&format!("{thread} work 1 {HOUR_MS}"));
        expect_end_of(server, thread);
    }
}

/// A gateway with one thread for keys, at which this happens with the first key.
fn with_key_thread(settings: &str, fault: &str) -> Binary {
    let settings = format!(
        "{settings}[[listener]]\nbind = \"127.0.0.1:0\"\n\
         routes = [ {{ path = \"/ws\", protocol = \"xxim\" }} ]\n\
         [xxim.crypto]\nprivate_key = \"{KEY_FILE}\"\nthreads = 1\n"
    );
    let server = Binary::start(&settings);
    server.order(&format!("xxim-rsa-0 work 1 {fault}"));
    let mut client = Client::open(server.address(3), "/ws");
    let params = SetCxnParamsReq {
        package_id: "p".into(),
        platform: "web".into(),
        // No ciphertext; somebody has to find that out.
        aes_key: vec![7; 256].into(),
        ..Default::default()
    };
    let request = RequestBody {
        req_id: "r".into(),
        method: "/v1/conn/white/setCxnParams".into(),
        data: params.encode_to_vec().into(),
    };
    client.write(&mask_frame(0x82, [1, 2, 3, 4], &request.encode_to_vec()));
    server
}

#[test]
fn a_panic_of_a_thread_for_keys_ends_the_process() {
    expect_panic(with_key_thread("", "panic"), "xxim-rsa-0");
}

#[test]
fn a_thread_for_keys_that_stands_still_ends_the_process() {
    expect_end_of(with_key_thread(IMPATIENT, &HOUR_MS.to_string()), "xxim-rsa-0");
}

/// A gateway whose thread for large answers suffers this with the first one; a client that the
/// answer is about.
fn with_large_answer(settings: &str, fault: &str) -> (Binary, Client) {
    const TOPICS: usize = 2 * ringway::protocols::netsvr::limits::ANSWER_PIECE;
    let server = Binary::start(settings);
    server.order(&format!("answers work 1 {fault}"));
    let mut worker = server.worker(1);
    let client = server.client();
    let topics: Vec<String> = (0..TOPICS).map(|number| number.to_string()).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let uniq_id = worker.opened();
    let mut task = server.task();
    task.subscribe(&uniq_id, &topics);
    task.send(cmd::TOPIC_LIST, &());
    (server, client)
}

#[test]
fn a_panic_of_the_thread_for_large_answers_ends_the_process() {
    let (server, _client) = with_large_answer("", "panic");
    expect_panic(server, "answers");
}

#[test]
fn a_thread_for_large_answers_that_stands_still_ends_the_process() {
    let (server, _client) = with_large_answer(IMPATIENT, &HOUR_MS.to_string());
    expect_end_of(server, "answers");
}

/// An idle thread would be taken for dead.
#[test]
fn a_watchdog_that_no_idle_thread_could_please_is_refused() {
    for (time, code) in [("1s", 1), ("2s", 1), ("2999ms", 1), ("3s", 0), ("0s", 0)] {
        let file = File::new(&format!("{LISTENERS}[runtime]\nwatchdog = \"{time}\"\n"));
        let (ended, _, error) =
            run(Command::new(RINGWAY).args(["check", "--config"]).arg(file.path()));
        assert_eq!(ended, Some(code), "{time}: {error}");
        let advised = error.contains("runtime.watchdog") && error.contains("Use at least 3s");
        assert_eq!(advised, code == 1, "{time}: {error}");
    }
}

#[test]
fn a_fault_that_can_not_be_understood_is_refused_and_does_not_happen() {
    let server = Binary::start("");
    for order in [
        "",
        "peers",
        "peer now",
        "shard-0",
        "shard-0 mail",
        "shard-0 mail 1",
        "shard-0 mail 1 ",
        "shard-0 mail 1 soon",
        "shard-0 mail 1 -1",
        "shard-0 mail 1 10 10",
        "shard-0 mail 0 panic",
        "shard-0 mail many panic",
        "shard-0 mails 1 panic",
        "shard-9 mail 1 panic",
        " shard-0 mail 1 panic",
    ] {
        let (status, text) = ask(&server, "POST /debug/fault", order).expect("an answer");
        assert_eq!(status, 400, "{order:?}: {text}");
    }
    server.check_serves();
}

#[test]
fn a_panic_that_concerns_a_single_peer_ends_that_peer_and_is_counted() {
    let server = Binary::start("");
    assert_eq!(ask(&server, "POST /debug/fault", "peer"), None);
    assert_eq!(server.metric("ringway_peer_panics_total", "service=\"admin\""), 1);
    let line = server.log().into_iter().find(|line| line["panic"].is_string());
    let line = line.expect("a line in the log");
    assert_eq!(
        (&line["service"], &line["message"]),
        (&Value::from("admin"), &Value::from("a task panicked; its peer is gone"),)
    );
    server.check_serves();
}

#[test]
fn a_shard_that_stands_still_is_named_and_not_ready_until_it_turns_again() {
    let server = Binary::start("");
    assert_eq!(page(&server, "/readyz"), (200, "ready\n".to_owned()));
    server.order("shard-1 submit 1 8000");
    let line = await_line(&server, "no turn", "shard-1");
    assert_eq!((line["phase"].as_str(), line["conn"].as_str()), (Some("submit"), Some("-")));
    wait_until("not ready", || page(&server, "/readyz").0 == 503);
    let (_, who) = page(&server, "/readyz");
    assert!(who.starts_with("shard-1 stands still since"), "{who}");
    assert!(server.metric("ringway_shard_turn_age_seconds", "shard=\"1\"") >= 2);
    assert!(server.metric("ringway_shard_turn_age_seconds", "shard=\"0\"") < 5);
    assert_eq!(page(&server, "/healthz").0, 200);
    await_line(&server, "turns again", "shard-1");
    wait_until("ready again", || page(&server, "/readyz").0 == 200);
    assert!(lines(&server, "", "shard-0").is_empty(), "{:?}", server.log());
    for what in ["no turn", "stands still", "turns again"] {
        assert_eq!(lines(&server, what, "shard-1").len(), 1, "{what}");
    }
    server.check_serves();
}

#[test]
fn a_shard_that_stands_still_for_good_ends_the_process_with_a_code_of_its_own() {
    let mut server = Binary::start(IMPATIENT);
    // One of the two has this client.
    for shard in ["shard-0", "shard-1"] {
        server.order(&format!("{shard} handle 1 {HOUR_MS}"));
    }
    let mut client = Client::tcp(server.address(CLIENTS));
    client.write(upgrade_request("/echo", "").as_bytes());
    let line = await_line(&server, "no turn", "shard");
    assert_eq!((line["phase"].as_str(), line["protocol"].as_str()), (Some("handle"), Some("http")));
    let shard = line["thread"].as_str().and_then(|name| name.strip_prefix("shard-"));
    let conn = line["conn"].as_str().expect("the connection in hand");
    assert!(conn.starts_with(&format!("{}/", shard.expect("a shard"))), "{line}");
    let mut health = (200, String::new());
    wait_until("not healthy", || {
        health = page(&server, "/healthz");
        health.0 == 503
    });
    assert!(health.1.contains("stands still since"), "{health:?}");
    assert_eq!(server.exit_code(), Some(70));
    server.await_log("the gateway can not go on");
}

/// Whoever answers health checks is watched as well.
#[test]
fn a_sidecar_that_stands_still_ends_the_process() {
    let mut server = Binary::start(IMPATIENT);
    server.order(&format!("sidecar work 1 {HOUR_MS}"));
    assert_eq!(server.exit_code(), Some(70));
    await_line(&server, "no turn", "sidecar");
}

#[test]
fn a_process_that_was_stopped_is_not_taken_for_dead() {
    let server = Binary::start(IMPATIENT);
    server.freeze(true);
    // Nothing can be waited for: what is shown is that this time does not count.
    std::thread::sleep(Duration::from_secs(5));
    server.freeze(false);
    server.check_serves();
    assert!(lines(&server, "", "s").is_empty(), "{:?}", server.log());
    assert_eq!(page(&server, "/healthz").0, 200);
}

#[test]
fn a_shard_that_stands_still_does_not_hold_up_the_end() {
    let mut server = Binary::start("[runtime]\nshutdown_timeout = \"500ms\"\n");
    server.order(&format!("shard-0 mail 1 {HOUR_MS}"));
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(1));
    server.await_log("ended before everything was drained");
}

/// Without anything to do, too: every wait is bounded.
#[test]
fn every_thread_has_turns_while_there_is_nothing_to_do() {
    let server = Server::start(config());
    let life = server.gateway().life();
    for thread in ["shard-0", "shard-1", "sidecar"] {
        let turns = || life.turns(thread).expect("it has a pulse");
        let first = turns();
        wait_until(thread, || turns() >= first + 3);
    }
}

#[test]
fn a_gateway_that_was_shut_down_leaves_no_thread() {
    let mut config = config();
    config.sidecar.threads = 2;
    config.mesh.nats = vec!["nats://127.0.0.1:9".to_owned()];
    config.connmix.queue.scope = QueueScope::Cluster;
    let server = Server::start(config);
    let life = server.gateway().life().clone();
    for thread in ["shard-1", "sidecar", "sidecar-workers", "mesh", "queues", "answers"] {
        assert!(life.turns(thread).is_some(), "{thread}");
    }
    assert!(server.stop());
    // Those that the sidecar has beside its own end right after it.
    wait_until("the end of all threads", || format!("{life:?}").contains("threads: 0"));
    assert_eq!(life.failure(Duration::ZERO), None);
}

/// A thread that is off its CPU, wherever it is, for longer than any library's timer runs.
#[test]
fn a_shard_that_is_interrupted_anywhere_answers_everything() {
    const PHASES: [Phase; 6] =
        [Phase::Receive, Phase::Handle, Phase::Mail, Phase::Flush, Phase::Submit, Phase::Wait];
    const TIMES: u32 = 40;
    let hold = Some(Duration::from_millis(150));
    let interrupted = PHASES.map(|phase| {
        std::thread::spawn(move || {
            let mut config = config();
            config.runtime.cpus.truncate(1);
            let server = Server::start(config);
            let mut client = Client::open(server.address(CLIENTS), "/echo");
            let life = server.gateway().life();
            assert!(life.inject("shard-0", Fault { phase, times: TIMES, hold }));
            let mut number = 0;
            while life.suffers("shard-0") {
                number += 1;
                client.send_text(&number.to_string());
                assert_eq!(client.frame().text(), number.to_string(), "{phase:?}");
            }
            number
        })
    });
    for thread in interrupted {
        assert!(thread.join().expect("everything is answered") > 0);
    }
}

#[test]
fn what_is_meant_for_nobody_is_noticed_unless_the_gateway_stops() {
    let senders: [fn(&Life); 4] = [
        |life| {
            let (sender, mailbox) = Mailbox::new(1, life.gone("test")).expect("a descriptor");
            drop(mailbox);
            assert!(sender.send(Mail::Drain(Box::default())).is_ok());
        },
        |life| {
            let (sender, mailbox) = Mailbox::new(1, life.gone("test")).expect("a descriptor");
            drop(mailbox);
            assert!(sender.send_all([Mail::Drain(Box::default()), Mail::Stop]).is_none());
            sender.send_blocking(Mail::Stop);
            assert!(sender.send_until(Mail::Stop, Instant::now()));
        },
        |life| {
            let (sender, receiver) = BoundedSender::new(1, life.gone("test"));
            drop(receiver);
            assert!(sender.send(SidecarRequest::Stop).is_ok());
        },
        |life| {
            let (sender, receiver) = UnboundedSender::new(life.gone("test"));
            drop(receiver);
            sender.send(MeshRequest::Stop);
        },
    ];
    for send in senders {
        let life = Life::default();
        life.stop();
        send(&life);
        assert_eq!(life.failure(Duration::ZERO), None);
        let life = Life::default();
        send(&life);
        let failure = Failure::Undeliverable { receiver: "test".into() };
        assert_eq!(life.failure(Duration::ZERO), Some(failure));
    }
}
