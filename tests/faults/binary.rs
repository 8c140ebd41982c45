//! The real binary as a child process: its log, its ports, its memory, its end.
//!
//! The gateway holds one end of each connection in a process of its own, so a test can look at its
//! memory and can use its descriptors up.

// Each test file uses its own part.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::*;

/// The binary under test.
pub const RINGWAY: &str = env!("CARGO_BIN_EXE_ringway");

/// Listeners of every protocol on free ports.
pub const LISTENERS: &str = r#"
[[listener]]
bind = "127.0.0.1:0"
routes = [ { path = "/netsvr", protocol = "netsvr" }, { path = "/echo", protocol = "echo" } ]

[[listener]]
bind = "127.0.0.1:0"
protocol = "netsvr-worker"

[[listener]]
bind = "127.0.0.1:0"
protocol = "netsvr-task"

[admin]
bind = "127.0.0.1:0"

[log]
json = true

[runtime.drain]
delay = "0s"
spread = "0s"
"#;

/// A configuration file in a directory of its own.
pub struct File {
    directory: TempDir,
}

impl File {
    pub fn new(text: &str) -> File {
        let file = File { directory: TempDir::new().expect("a directory for temporary files") };
        std::fs::write(file.path(), text).expect("the directory is ours");
        file
    }

    pub fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("ringway.toml")
    }
}

/// Runs the binary to its end: exit code, standard output, standard error.
pub fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("it can be started");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// `ringway serve` with a configuration file.
pub fn serve(file: &File) -> Command {
    let mut command = Command::new(RINGWAY);
    command.args(["serve", "--config"]).arg(file.path());
    command
}

/// A running gateway process; killed when dropped.
pub struct Binary {
    child: Child,
    log: Arc<Mutex<Vec<Value>>>,
    addresses: Vec<SocketAddr>,
    admin: SocketAddr,
    _file: File,
}

impl Binary {
    /// Starts it with [`LISTENERS`] and these further tables, and waits until it is ready.
    pub fn start(settings: &str) -> Binary {
        Binary::start_as(&format!("{LISTENERS}{settings}"))
    }

    /// The same with the whole file.
    pub fn start_as(text: &str) -> Binary {
        let file = File::new(text);
        let command = serve(&file);
        Binary::spawn(command, file)
    }

    /// The same with another command line for the same file.
    pub fn spawn(mut command: Command, file: File) -> Binary {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = child.spawn().expect("it can be started");
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let written = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                written.lock().expect("no panic").push(line);
            }
        });
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let addresses = Vec::new();
        let mut binary = Binary { child, log, addresses, admin: address, _file: file };
        binary.await_log("ready");
        let log = binary.log();
        let address = |line: &Value| line["address"].as_str().and_then(|text| text.parse().ok());
        let said = |line: &&Value, what: &str| {
            line["message"].as_str().is_some_and(|text| text.starts_with(what))
        };
        binary.addresses =
            log.iter().filter(|line| said(line, "listening")).filter_map(address).collect();
        binary.admin =
            log.iter().find(|line| said(line, "admin")).and_then(address).expect("an admin server");
        binary
    }

    /// Every line that it has logged.
    pub fn log(&self) -> Vec<Value> {
        self.log.lock().expect("no panic").clone()
    }

    /// Waits for a line whose message begins like this.
    pub fn await_log(&mut self, start: &str) {
        let log = self.log.clone();
        let said = || {
            let log = log.lock().expect("no panic");
            log.iter().any(|line| line["message"].as_str().is_some_and(|m| m.starts_with(start)))
        };
        wait_until(&format!("a log line {start:?}"), || {
            assert!(said() || !self.ended(), "it ended before {start:?}: {:?}", self.log());
            said()
        });
    }

    pub fn address(&self, listener: usize) -> SocketAddr {
        self.addresses[listener]
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub fn client(&self) -> Client {
        Client::open(self.address(CLIENTS), "/netsvr")
    }

    pub fn worker(&self, events: i32) -> Business {
        let mut worker = Business::connect(self.address(WORKERS));
        worker.register(events);
        worker
    }

    pub fn task(&self) -> Business {
        Business::connect(self.address(TASKS))
    }

    /// Process id.
    pub fn id(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.id(), signal).expect("it is running");
    }

    /// See [`freeze`].
    pub fn freeze(&self, frozen: bool) {
        freeze(&self.child, frozen);
    }

    fn ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Waits for the end; gives the exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        wait_until("the end of the process", || self.ended());
        self.child.wait().expect("it is our child").code()
    }

    /// Memory that the process occupies, in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.status_number("VmRSS:")
    }

    /// The most that it ever occupied.
    pub fn peak_kib(&self) -> u64 {
        self.status_number("VmHWM:")
    }

    /// The part of it that is neither the program nor shared.
    pub fn own_kib(&self) -> u64 {
        self.status_number("RssAnon:")
    }

    /// A number that the kernel shows of the process.
    pub fn status_number(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("it is running");
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).expect("Linux tells it")
    }

    /// The sum of a metric over shards, and over the lines that contain `label`.
    pub fn metric(&self, name: &str, label: &str) -> u64 {
        metric(self.admin, name, label)
    }

    /// Has a fault happen in the process, as `POST /debug/fault` understands it (debug builds).
    pub fn order(&self, order: &str) {
        let mut admin = Client::tcp(self.admin);
        let length = order.len();
        let head = "POST /debug/fault HTTP/1.1\r\nHost: test\r\nContent-Length:";
        admin.write(format!("{head} {length}\r\n\r\n{order}").as_bytes());
        let answer = String::from_utf8(admin.rest()).expect("UTF-8");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{order}: {answer}");
    }

    /// Shows that the gateway still serves: a message to a worker, an answer to the client.
    pub fn check_serves(&self) {
        check_serves(self.address(CLIENTS), self.address(WORKERS));
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sum of a metric over the lines of `/metrics` that contain `label`.
pub fn metric(admin: SocketAddr, name: &str, label: &str) -> u64 {
    let mut socket = connect(admin);
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").expect("it reads");
    let mut page = String::new();
    socket.read_to_string(&mut page).expect("it answers");
    let lines = page.lines().filter(|line| {
        let rest = line.strip_prefix(name).unwrap_or("#");
        (rest.starts_with('{') || rest.starts_with(' ')) && rest.contains(label)
    });
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>() as u64
}

/// A client says something, a worker hears it and answers.
pub fn check_serves(clients: SocketAddr, workers: SocketAddr) {
    let mut worker = Business::connect(workers);
    worker.register(4);
    let mut client = Client::open(clients, "/netsvr");
    client.send_text("still there?");
    let transfer = worker.transfer();
    assert_eq!(&*transfer.data, b"still there?");
    worker.single_cast(&transfer.uniq_id, "yes");
    assert_eq!(client.frame().text(), "yes");
}
