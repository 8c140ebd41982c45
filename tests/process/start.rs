//! A start serves, or says why not: a kernel that refuses io_uring, too few descriptors, signals
//! before it is ready, a predecessor that was killed a moment ago.

use std::io::{self, BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};

use crate::binary::{Binary, File, LISTENERS, RINGWAY, serve};
use crate::common::*;

/// Runs a process to its end, which must come: exit code and everything that it wrote.
pub fn finish(command: &mut Command) -> (Option<i32>, String) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Killed(command.spawn().expect("it can be started")).finish()
}

/// A child that does not outlive the test.
pub struct Killed(pub Child);

impl Killed {
    /// Waits for its end: exit code and everything that it wrote.
    pub fn finish(&mut self) -> (Option<i32>, String) {
        let code = self.exit_code();
        let mut text = String::new();
        if let Some(mut pipe) = self.0.stdout.take() {
            pipe.read_to_string(&mut text).expect("UTF-8");
        }
        self.0.stderr.take().expect("piped").read_to_string(&mut text).expect("UTF-8");
        (code, text)
    }

    pub fn exit_code(&mut self) -> Option<i32> {
        wait_until("the end of the process", || {
            self.0.try_wait().expect("it is our child").is_some()
        });
        self.0.wait().expect("it is our child").code()
    }

    /// Waits for a line on standard error with this in it.
    pub fn await_line(&mut self, what: &str) {
        let lines = BufReader::new(self.0.stderr.as_mut().expect("piped")).lines();
        let found = lines.map_while(Result::ok).any(|line| line.contains(what));
        assert!(found, "it ended before {what}");
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.0), signal).expect("it is running");
    }

    /// Whether the process handles a signal itself.
    fn catches(&self, signal: Signal) -> bool {
        let path = format!("/proc/{}/status", self.0.id());
        let status = std::fs::read_to_string(path).expect("it is running");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.expect("Linux tells it").trim(), 16);
        caught.expect("a mask") & (1 << (signal.as_raw() - 1)) != 0
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Answers a system call with an error, as the seccomp profile of a container does.
fn forbid(command: &mut Command, call: libc::c_long, errno: i32) {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let program = [
        // Loads the number of the call, which comes first in `seccomp_data`.
        step((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0, 0, 0),
        step((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 1, 0, call as u32),
        step((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, libc::SECCOMP_RET_ALLOW),
        step((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
    ];
    let install = move || {
        let mut program = program;
        let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
        // SAFETY: the program is there during the call, which copies it.
        let failed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) != 0
        };
        if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: between fork and exec it makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}

const CALLS: [(libc::c_long, &str); 3] = [
    (libc::SYS_io_uring_setup, "io_uring_setup"),
    (libc::SYS_io_uring_register, "io_uring_register"),
    (libc::SYS_io_uring_enter, "io_uring_enter"),
];

/// The one line of a start that failed.
pub fn sentence(code: Option<i32>, text: &str) -> &str {
    assert_eq!(code, Some(1), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("ringway: ")).collect();
    assert_eq!(lines.len(), 1, "one sentence: {text}");
    lines[0]
}

#[test]
fn a_kernel_that_refuses_io_uring_ends_the_start_with_cause_and_remedy() {
    for (number, call) in CALLS {
        for errno in [libc::EPERM, libc::ENOSYS] {
            let file = File::new(LISTENERS);
            let mut command = serve(&file);
            forbid(&mut command, number, errno);
            let (code, text) = finish(&mut command);
            let line = sentence(code, &text);
            let cause = format!("({call}: {}", io::Error::from_raw_os_error(errno));
            for piece in [
                &*cause,
                "seccomp profile",
                "systemd: SystemCallFilter=@aio",
                "Docker: --security-opt seccomp=",
                "Kubernetes: securityContext.seccompProfile",
            ] {
                assert!(line.contains(piece), "{piece}: {line}");
            }
        }
    }
}

#[test]
fn the_check_of_the_machine_tells_the_same_and_goes_on() {
    for (number, call) in CALLS {
        let file = File::new(LISTENERS);
        let mut command = Command::new(RINGWAY);
        command.args(["check", "--machine", "--config"]).arg(file.path());
        forbid(&mut command, number, libc::EPERM);
        let (code, text) = finish(&mut command);
        assert_eq!(code, Some(1), "{text}");
        let error = text.lines().find(|line| line.starts_with("error: io_uring: "));
        assert!(error.is_some_and(|line| line.contains(call)), "{text}");
        assert!(text.contains("ok: port: 127.0.0.1:0 (admin) is free"), "{text}");
    }
}

fn with_descriptors(count: u64) -> (Command, File) {
    let file = File::new(LISTENERS);
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -n {count} && exec \"$0\" serve --config \"$1\""));
    command.arg(RINGWAY).arg(file.path());
    (command, file)
}

#[test]
fn too_few_descriptors_end_the_start_with_a_sentence_and_just_enough_serve() {
    let mut enough = 0;
    for count in [8, 12, 16, 20, 30, 40, 50] {
        let (mut command, _file) = with_descriptors(count);
        let (code, text) = finish(&mut command);
        let line = sentence(code, &text);
        assert!(line.contains(&format!("the process may open {count} ")), "{line}");
        for piece in ["ulimit -n", "LimitNOFILE", "--ulimit nofile", "Kubernetes"] {
            assert!(line.contains(piece), "{piece}: {line}");
        }
        let number = |before: &str| -> u64 {
            let rest = line.split_once(before).expect(before).1;
            rest.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
        };
        enough = number("ringway: ") + number("has ");
    }
    let (command, file) = with_descriptors(enough);
    let server = Binary::spawn(command, file);
    let mut client = Client::open(server.address(CLIENTS), "/echo");
    client.send_text("just enough");
    assert_eq!(client.frame().text(), "just enough");
}

/// A start that waits for ever: nobody writes to the named pipe that takes the place of a file.
fn starts_for_ever(settings: &str) -> (Killed, File) {
    let file = File::new("");
    let pipe = file.path().with_extension("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("coreutils are there");
    assert!(made.success());
    let text = settings.replace("PIPE", &pipe.display().to_string());
    std::fs::write(file.path(), text).expect("the directory is ours");
    let mut command = serve(&file);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    (Killed(command.spawn().expect("it can be started")), file)
}

#[test]
fn a_signal_ends_a_start_that_hangs() {
    let certificate = "\ntls = { cert = \"PIPE\", key = \"PIPE\" }\n[[";
    let settings = [
        // While the configuration is checked.
        LISTENERS.replacen("\n\n[[", certificate, 1),
        // While the gateway is put together.
        format!("{LISTENERS}[mesh]\nnats = [\"nats://127.0.0.1:9\"]\ncredentials = \"PIPE\"\n"),
    ];
    for settings in settings {
        for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
            let (mut child, _file) = starts_for_ever(&settings);
            wait_until("a process that catches signals", || child.catches(signal));
            child.signal(signal);
            assert_eq!(child.exit_code(), Some(0), "{signal:?}");
            let mut text = String::new();
            child.0.stderr.take().expect("piped").read_to_string(&mut text).expect("UTF-8");
            assert!(text.contains("ended by a signal before the gateway was ready"), "{text}");
            assert!(!text.contains("listening"), "{text}");
        }
    }
}

/// The kernel frees the listening sockets of a killed process when its rings are gone, which takes
/// some 10 ms; nothing but a new attempt helps.
#[test]
fn a_gateway_that_was_killed_can_be_started_again_at_once() {
    let mut server = Binary::start("");
    let mut text = LISTENERS.to_owned();
    for listener in [CLIENTS, WORKERS, TASKS] {
        let address = server.address(listener).to_string();
        text = text.replacen("127.0.0.1:0", &address, 1);
    }
    text = text.replacen("127.0.0.1:0", &server.admin().to_string(), 1);
    for _ in 0..10 {
        let clients: Vec<Client> = (0..50).map(|_| server.client()).collect();
        server.signal(Signal::KILL);
        assert_eq!(server.exit_code(), None, "killed");
        let file = File::new(&text);
        server = Binary::spawn(serve(&file), file);
        drop(clients);
    }
    server.check_serves();
}

/// What the ten restarts rely on, without the chance in it: each listener in turn, then admin.
#[test]
fn a_port_that_becomes_free_during_the_start_is_taken() {
    for at in 0..4 {
        let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = other.local_addr().expect("it is bound").to_string();
        let mut pieces = LISTENERS.split("127.0.0.1:0");
        let mut text = pieces.next().unwrap_or_default().to_owned();
        for (number, piece) in pieces.enumerate() {
            text += if number == at { &address } else { "127.0.0.1:0" };
            text += piece;
        }
        let file = File::new(&text);
        let mut command = serve(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = Killed(command.spawn().expect("it can be started"));
        // Open until its end, as it has more to say.
        let mut lines = BufReader::new(child.0.stderr.take().expect("piped")).lines();
        let mut said = |what: &str| lines.by_ref().map_while(Result::ok).any(|l| l.contains(what));
        assert!(said("the port is still in use"), "it tries {address}");
        drop(other);
        assert!(said("\"message\":\"ready\""), "{address} is free");
        child.signal(Signal::TERM);
        assert_eq!(child.exit_code(), Some(0));
    }
}
