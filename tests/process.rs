//! The program as an operator meets it: command line, exit codes, signals.

mod common;

#[path = "faults/binary.rs"]
mod binary;
#[path = "process/drain.rs"]
mod drain;
#[cfg(debug_assertions)]
#[path = "process/life.rs"]
mod life;
#[path = "process/memory.rs"]
mod memory;
#[path = "process/rings.rs"]
mod rings;
#[path = "process/secrets.rs"]
mod secrets;
#[path = "process/start.rs"]
mod start;
#[path = "process/supervisor.rs"]
mod supervisor;
#[path = "process/tokens.rs"]
mod tokens;

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use binary::{Binary, File, LISTENERS, RINGWAY, run, serve};
use common::*;
use prost::Message;
use ringway::engine::ring::PageAllocator;
use ringway::wire::websocket::mask_frame;
use ringway::wire::worker::proto;
use rustix::process::Signal;

/// That of the program, as the tests of locked memory have gateways of their own.
#[global_allocator]
static ALLOCATOR: PageAllocator<mimalloc::MiMalloc> = PageAllocator(mimalloc::MiMalloc);

const CLIENTS_COUNT: usize = 200;
const ALL: i32 = 7;

/// Reads until the gateway's close frame, answers it and waits for the end.
fn say_goodbye(mut client: Client) {
    let frame = loop {
        let frame = client.frame();
        if frame.first == 0x88 {
            break frame;
        }
    };
    assert_eq!(frame.close(), (1001, "server shutdown"));
    // What it had on the way may have been answered by the end already.
    let _ = client.socket.write_all(&mask_frame(0x88, [9, 8, 7, 6], &1001u16.to_be_bytes()));
    client.expect_end();
}

#[test]
fn sigterm_under_load_says_goodbye_to_every_client_and_tells_the_worker() {
    // So long that nobody is cut off on a slow machine; it is over when everybody has answered.
    let settings = "[runtime]\nclose_timeout = \"15s\"\nshutdown_timeout = \"20s\"\n";
    let mut server = Binary::start(settings);
    let mut worker = server.worker(ALL);
    let stop = Arc::new(AtomicBool::new(false));
    let mut open: HashSet<String> = HashSet::new();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS_COUNT {
        clients.push(server.client());
        open.insert(worker.opened());
    }
    let mut threads = Vec::new();
    while !clients.is_empty() {
        let mine = clients.split_off(clients.len().saturating_sub(CLIENTS_COUNT / 4));
        let stop = stop.clone();
        threads.push(std::thread::spawn(move || {
            let mut writers: Vec<_> =
                mine.iter().map(|client| client.socket.try_clone().expect("a socket")).collect();
            let message = mask_frame(0x81, [1, 2, 3, 4], b"under load");
            while !stop.load(Ordering::Relaxed) {
                for writer in &mut writers {
                    // Fails when the gateway has closed the connection; the test goes on there.
                    let _ = writer.write_all(&message);
                }
            }
            mine.into_iter().for_each(say_goodbye);
        }));
    }
    let mut transfers = 0;
    while let Some((number, body)) = worker.try_frame() {
        if number == cmd::TRANSFER {
            transfers += 1;
            if transfers == 1000 {
                server.signal(Signal::TERM);
                server.await_log(DRAINING);
                stop.store(true, Ordering::Relaxed);
            }
        } else {
            assert_eq!(number, cmd::CONN_CLOSE);
            let closed = proto::ConnClose::decode(&*body).expect("it decodes");
            assert!(open.remove(&closed.uniq_id), "closed once");
        }
    }
    assert!(open.is_empty(), "{} clients were not reported", open.len());
    threads.into_iter().for_each(|thread| thread.join().expect("every client was served"));
    assert_eq!(server.exit_code(), Some(0));
}

const DRAINING: &str = "draining; a second signal";

/// A gateway with events for a worker that reads none of them.
fn stuck(settings: &str) -> (Binary, Business, Client) {
    let customer = "[netsvr.customer]\nlimit_zero_window_max_requests = 1000000\n";
    let server = Binary::start(&format!("{settings}{customer}"));
    let worker = server.worker(4);
    let socket = socket2::SockRef::from(&worker.socket);
    socket.set_recv_buffer_size(256 << 10).expect("a TCP socket");
    let mut client = server.client();
    let frame = mask_frame(0x82, [1, 2, 3, 4], &[b'x'; 1 << 20]);
    for _ in 0..20 {
        client.write(&frame);
    }
    // More than the kernel takes for the worker.
    let stalled = || server.metric("ringway_connections_stalled", "");
    wait_until("a worker that does not read", || stalled() == 1);
    (server, worker, client)
}

#[test]
fn what_can_not_be_drained_in_time_ends_with_exit_code_1() {
    let (mut server, worker, client) = stuck("[runtime]\nshutdown_timeout = \"500ms\"\n");
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(1));
    server.await_log("messages that nobody took before the end of the process");
    server.await_log("ended before everything was drained");
    drop((worker, client));
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let (mut server, worker, client) = stuck("[runtime]\nshutdown_timeout = \"1h\"\n");
    server.signal(Signal::TERM);
    server.await_log(DRAINING);
    server.signal(Signal::INT);
    assert_eq!(server.exit_code(), Some(1));
    drop((worker, client));
}

#[test]
fn each_signal_that_asks_for_the_end_ends_an_idle_gateway_well() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut server = Binary::start("");
        let worker = server.worker(ALL);
        server.signal(signal);
        assert_eq!(server.exit_code(), Some(0), "{signal:?}");
        drop(worker);
    }
}

#[test]
fn sighup_leaves_everything_as_it_is() {
    let mut server = Binary::start("");
    let mut worker = server.worker(4);
    let mut client = server.client();
    server.signal(Signal::HUP);
    server.await_log("certificates reloaded");
    client.send_text("still here");
    let transfer = worker.transfer();
    assert_eq!(&*transfer.data, b"still here");
    worker.single_cast(&transfer.uniq_id, "so am I");
    assert_eq!(client.frame().text(), "so am I");
}

/// Runs `serve` with a configuration that it can not run with; gives its only line.
fn refusal(text: &str) -> String {
    let file = File::new(text);
    one_line(&mut serve(&file), &file)
}

fn one_line(command: &mut Command, file: &File) -> String {
    let (code, _, errors) = run(command);
    assert_eq!(code, Some(1), "{errors}");
    let lines: Vec<&str> = errors.lines().filter(|line| line.starts_with("ringway: ")).collect();
    assert_eq!(lines.len(), 1, "one sentence: {errors}");
    lines[0].replace(&file.path().display().to_string(), "FILE")
}

#[test]
fn a_port_in_use_is_named_with_what_to_do() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("it is bound").to_string();
    for at in 0..4 {
        let mut free = 0;
        // The first, second, third listener or the admin server gets the port that is taken.
        let text: String = LISTENERS
            .split_inclusive("127.0.0.1:0")
            .map(|piece| {
                free += 1;
                if free == at + 1 { piece.replace("127.0.0.1:0", &address) } else { piece.into() }
            })
            .collect();
        let line = refusal(&text);
        assert!(line.contains(&address), "{line}");
        assert!(line.contains("another process has this port: end it or change `bind`"), "{line}");
    }
}

/// `SO_REUSEPORT` would let a second gateway take connections of the first (netsvr W23).
#[test]
fn a_second_gateway_on_the_same_ports_ends_and_the_first_keeps_every_connection() {
    let server = Binary::start("");
    let address = server.address(CLIENTS).to_string();
    for _ in 0..3 {
        let line = refusal(&LISTENERS.replacen("127.0.0.1:0", &address, 1));
        assert!(line.contains(&address) && line.contains("another process"), "{line}");
    }
    let clients: Vec<Client> = (0..50).map(|_| server.client()).collect();
    let gauge = || server.metric("ringway_clients", "");
    wait_until("all of them with the first", || gauge() == clients.len() as u64);
}

#[test]
fn an_address_of_another_machine_is_refused() {
    // TEST-NET-1 of RFC 5737.
    let line = refusal(&LISTENERS.replacen("127.0.0.1:0", "192.0.2.1:6060", 1));
    assert!(line.contains("192.0.2.1:6060"), "{line}");
    assert!(line.contains("this machine has no such address: change `bind`"), "{line}");
}

#[test]
fn mistakes_in_the_configuration_are_named_with_place_and_advice() {
    for (text, expected) in [
        ("[netsvr.customer]\nmax_onlin = 5\n", "max_online"),
        ("[runtime]\nshutdown_timeout = 5\n", "runtime.shutdown_timeout"),
        ("[runtime]\nmailbox_messages_max = 1\n", "16 to "),
        ("[runtime\n", "FILE"),
        ("[log]\nfilter = \"ringway=loud\"\n", "log.filter"),
    ] {
        let text = format!("{}{text}", LISTENERS.replace("[log]\njson = true\n", ""));
        let line = refusal(&text);
        assert!(line.contains(expected), "{line}");
        assert!(line.contains("FILE:"), "the place in the file: {line}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let file = File::new("");
    std::fs::remove_file(file.path()).expect("it was made");
    let line = one_line(&mut serve(&file), &file);
    assert!(line.contains("FILE: the configuration can not be read"), "{line}");
}

#[test]
fn the_environment_can_name_the_file() {
    let file = File::new(LISTENERS);
    let mut command = Command::new(RINGWAY);
    command.arg("serve").env("RINGWAY_CONFIG", file.path());
    let server = Binary::spawn(command, file);
    server.check_serves();
    let other = File::new(LISTENERS);
    let mut check = Command::new(RINGWAY);
    check.args(["check"]).env("RINGWAY_CONFIG", other.path());
    let (code, out, _) = run(&mut check);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.ends_with(&format!("{} is valid\n", other.path().display())), "{out}");
    std::fs::remove_file(other.path()).expect("it was made");
    let line = one_line(&mut check, &other);
    assert!(
        line.contains("environment variable RINGWAY_CONFIG = FILE: the configuration can"),
        "{line}"
    );
    // The command line goes first, and is named by itself.
    let line = one_line(check.arg("--config").arg("/no/such/file"), &other);
    assert!(line.starts_with("ringway: /no/such/file: the configuration can not be"), "{line}");
}

#[test]
fn an_empty_variable_for_the_file_is_named() {
    for args in [&["serve"][..], &["check"], &["check", "--machine"]] {
        let (code, out, errors) = run(Command::new(RINGWAY).args(args).env("RINGWAY_CONFIG", ""));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}: {errors}");
        let said = "the environment variable RINGWAY_CONFIG is empty; set it to the path of a TOML";
        assert!(errors.contains(said), "{args:?}: {errors}");
    }
    // It does not matter where the command line says which file.
    let file = File::new(LISTENERS);
    let mut check = Command::new(RINGWAY);
    check.args(["check", "--config"]).arg(file.path()).env("RINGWAY_CONFIG", "");
    let (code, _, errors) = run(&mut check);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let (code, _, errors) = run(Command::new(RINGWAY).args(["serve", "--config", ""]));
    assert_eq!(code, Some(2), "{errors}");
    assert!(errors.contains("--config") && !errors.contains("environment"), "{errors}");
}

#[test]
fn missing_certificates_are_named() {
    let tls = "\ntls = { cert = \"/nowhere/server.pem\", key = \"/nowhere/server.key\" }\n[[";
    let line = refusal(&LISTENERS.replacen("\n\n[[", tls, 1));
    assert!(line.contains("/nowhere/server.pem"), "{line}");
}

#[test]
fn too_few_descriptors_for_the_wanted_connections_are_refused() {
    let file = File::new(&format!("[runtime]\nconnections_max = 1000\n{LISTENERS}"));
    let mut command = Command::new("sh");
    command.arg("-c").arg("ulimit -n 1024 && exec \"$0\" serve --config \"$1\"");
    let line = one_line(command.arg(RINGWAY).arg(file.path()), &file);
    assert!(line.contains("FILE:2: runtime.connections_max = 1000"), "{line}");
    assert!(line.contains("RLIMIT_NOFILE") && line.contains("ulimit -n"), "{line}");
}

#[test]
fn check_says_whether_a_file_is_good() {
    let file = File::new(LISTENERS);
    let check =
        |file: &File| run(Command::new(RINGWAY).args(["check", "--config"]).arg(file.path()));
    let (code, out, errors) = check(&file);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(out.ends_with(&format!("{} is valid\n", file.path().display())), "{out}");
    let file = File::new(&format!("{LISTENERS}\n[netsvr.worker]\npick = \"random\"\n"));
    let (code, out, errors) = check(&file);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(errors.contains("sticky"), "{errors}");
}

#[test]
fn the_command_line_explains_itself() {
    let ringway = |args: &[&str]| run(Command::new(RINGWAY).args(args));
    let version = format!("ringway {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(ringway(&["--version"]), (Some(0), version, String::new()));
    let (code, out, _) = ringway(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(["serve", "demo", "check"].iter().all(|word| out.contains(word)), "{out}");
    let (code, out, _) = ringway(&["check", "--print-reference"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("runtime.connections_max"), "{out}");
    for wrong in [&["serve"][..], &["fly"], &[], &["serve", "--config"]] {
        let (code, out, errors) = ringway(wrong);
        assert_eq!(code, Some(2), "{wrong:?}");
        assert!(out.is_empty() && errors.contains("--help"), "{wrong:?}: {errors}");
    }
}

#[test]
fn a_configuration_of_netsvr_is_imported_once() {
    use std::os::unix::fs::PermissionsExt;
    let netsvr = File::new(
        "[Customer]\nListenAddress = \"127.0.0.1:0\"\nHeartbeatMessage = \"a\"\n\
         [Worker]\nListenAddress = \"127.0.0.1:0\"\nHeartbeatMessage = \"b\"\n",
    );
    let import = || {
        let mut command = Command::new(RINGWAY);
        command.args(["import", "netsvr"]).arg(netsvr.path());
        command
    };
    let (code, printed, errors) = run(&mut import());
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let made = netsvr.path().with_extension("made");
    let (code, out, errors) = run(import().arg("--output").arg(&made));
    assert_eq!((code, out.as_str(), errors.as_str()), (Some(0), "", ""));
    assert_eq!(std::fs::read_to_string(&made).expect("it was written"), printed);
    let mode = std::fs::metadata(&made).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o7, 0, "it may have secrets in it");
    let (code, _, errors) = run(Command::new(RINGWAY).args(["check", "--config"]).arg(&made));
    assert_eq!(code, Some(0), "{errors}");
    std::fs::write(&made, "mine").expect("it is ours");
    let line = one_line(import().arg("--output").arg(&made), &netsvr);
    assert!(line.contains("exists already"), "{line}");
    assert_eq!(std::fs::read_to_string(&made).expect("it is there"), "mine");
    std::fs::write(netsvr.path(), "[Customer]\nListenAddress = 1\n").expect("it is ours");
    let line = one_line(&mut import(), &netsvr);
    assert!(line.contains("FILE:2: Customer.ListenAddress: a text belongs here"), "{line}");
}

#[test]
fn the_environment_overrides_the_file() {
    let file = File::new(LISTENERS);
    let mut command = serve(&file);
    command.env("RINGWAY_NETSVR__CUSTOMER__MAX_ONLINE", "1");
    let server = Binary::spawn(command, file);
    let _first = server.client();
    let mut second = server.client();
    assert_eq!(second.frame().close().0, 1013);
}
