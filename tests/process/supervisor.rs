//! What a supervisor hears (`NOTIFY_SOCKET`), and sockets that it passes on (`LISTEN_FDS`), as
//! systemd does both.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::binary::{Binary, File, LISTENERS, RINGWAY, run, serve};
use crate::common::*;

/// The end of a supervisor where notifications come in.
struct Supervisor {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Supervisor {
    fn new() -> Supervisor {
        let directory = TempDir::new().expect("a directory for temporary files");
        let socket = UnixDatagram::bind(directory.path().join("notify")).expect("it is ours");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Supervisor { socket, directory }
    }

    /// A gateway that has it as its supervisor, with more in its environment.
    fn start(&self, text: &str, more: &[(&str, &str)]) -> Binary {
        let file = File::new(text);
        let mut command = serve(&file);
        command.env("NOTIFY_SOCKET", self.directory.path().join("notify"));
        command.envs(more.iter().copied());
        Binary::spawn(command, file)
    }

    /// The next notification.
    fn told(&self) -> String {
        let mut message = [0; 4096];
        let size = self.socket.recv(&mut message).expect("a notification");
        String::from_utf8(message[..size].to_vec()).expect("UTF-8")
    }

    /// Waits for one that begins like this.
    fn await_told(&self, start: &str) -> String {
        loop {
            let told = self.told();
            if told.starts_with(start) {
                return told;
            }
        }
    }
}

#[test]
fn a_supervisor_hears_of_each_part_of_a_life() {
    let supervisor = Supervisor::new();
    let without = LISTENERS.split("[runtime.drain]").next().unwrap_or_default();
    let text = format!("{without}[runtime.drain]\ndelay = \"0s\"\nspread = \"1h\"\n");
    let mut server = supervisor.start(&text, &[]);
    assert_eq!(supervisor.told(), "READY=1\nSTATUS=Ready\n");
    let clients: Vec<Client> = (0..4).map(|_| server.client()).collect();
    server.signal(Signal::HUP);
    let told = supervisor.told();
    let time = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").map(str::trim_end);
    assert!(time.is_some_and(|time| time.parse::<u64>().is_ok()), "{told:?}");
    assert_eq!(supervisor.told(), "READY=1\nSTATUS=Ready\n");
    server.signal(Signal::TERM);
    assert_eq!(supervisor.told(), "STOPPING=1\n");
    let status = supervisor.await_told("STATUS=Draining: ");
    assert!(status.contains(" clients left, "), "{status}");
    server.signal(Signal::TERM);
    drop(clients);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_supervisor_that_does_not_listen_is_no_obstacle() {
    let supervisor = Supervisor::new();
    std::fs::remove_file(supervisor.directory.path().join("notify")).expect("it is there");
    let mut server = supervisor.start(LISTENERS, &[("WATCHDOG_USEC", "20000")]);
    server.check_serves();
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_start_that_fails_is_never_ready() {
    let supervisor = Supervisor::new();
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("it is bound").to_string();
    let file = File::new(&LISTENERS.replacen("127.0.0.1:0", &address, 1));
    let mut command = serve(&file);
    command.env("NOTIFY_SOCKET", supervisor.directory.path().join("notify"));
    let (code, _, errors) = run(&mut command);
    assert_eq!(code, Some(1), "{errors}");
    supervisor.socket.set_nonblocking(true).expect("a socket");
    assert!(supervisor.socket.recv(&mut [0; 16]).is_err(), "nothing was told");
}

/// The sign of life is one of the threads, not of the main thread alone.
#[cfg(debug_assertions)]
#[test]
fn there_is_no_sign_of_life_while_a_shard_stands_still() {
    let supervisor = Supervisor::new();
    let mut server = supervisor.start(LISTENERS, &[("WATCHDOG_USEC", "20000")]);
    (0..3).for_each(|_| _ = supervisor.await_told("WATCHDOG=1"));
    server.order("shard-1 submit 1 9000");
    server.await_log("stands still; not ready");
    supervisor.socket.set_nonblocking(true).expect("a socket");
    while supervisor.socket.recv(&mut [0; 64]).is_ok() {}
    server.await_log("turns again");
    let mut signs = 0;
    while supervisor.socket.recv(&mut [0; 64]).is_ok() {
        signs += 1;
    }
    // It stood still for seconds longer, which would have been hundreds.
    assert!(signs < 50, "{signs} signs of life");
    supervisor.socket.set_nonblocking(false).expect("a socket");
    supervisor.await_told("WATCHDOG=1");
}

/// `ringway serve` with sockets that are passed on under these names.
fn serve_with(file: &File, sockets: &[(&str, &TcpListener)]) -> Command {
    let mut script = String::new();
    for (place, (_, socket)) in sockets.iter().enumerate() {
        script += &format!("exec {}<&{}; ", place + 3, socket.as_raw_fd());
    }
    let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
    let (count, names) = (sockets.len(), names.join(":"));
    script += &format!("LISTEN_FDS={count} LISTEN_FDNAMES={names} LISTEN_PID=$$ ");
    let mut command = Command::new("bash");
    command.arg("-c").arg(script + "exec \"$0\" serve --config \"$1\"");
    command.arg(RINGWAY).arg(file.path());
    let passed: Vec<RawFd> = sockets.iter().map(|(_, socket)| socket.as_raw_fd()).collect();
    // In the child alone: what tests beside this one start must not have them.
    let keep = move || {
        // SAFETY: they are numbers; nothing is read or written through a pointer.
        let kept = passed.iter().all(|&fd| unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } == 0);
        if kept { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it makes a system call for each and allocates nothing.
    unsafe { command.pre_exec(keep) };
    command
}

/// Far above the numbers that the tests pass on.
fn listen(address: &str) -> TcpListener {
    let socket = TcpListener::bind(address).expect("a free port");
    let high = rustix::io::fcntl_dupfd_cloexec(&socket, 100).expect("there is a descriptor");
    high.into()
}

/// The configuration of a gateway whose first listener has a socket of this name.
fn named(name: &str, address: SocketAddr) -> String {
    let bind = format!("bind = \"{address}\"\nsocket = \"{name}\"");
    LISTENERS.replacen("bind = \"127.0.0.1:0\"", &bind, 1)
}

#[test]
fn nobody_is_refused_while_a_gateway_follows_another_one_on_a_passed_socket() {
    let socket = listen("127.0.0.1:0");
    let address = socket.local_addr().expect("it is bound");
    let start = || {
        let file = File::new(&named("web", address));
        let command = serve_with(&file, &[("web", &socket)]);
        Binary::spawn(command, file)
    };
    let mut first = start();
    assert_eq!(first.address(CLIENTS), address);
    let clients: Vec<Client> = (0..50).map(|_| Client::open(address, "/echo")).collect();
    first.signal(Signal::TERM);
    drop(clients);
    assert_eq!(first.exit_code(), Some(0));
    // Nobody serves now.
    let waiting: Vec<TcpStream> = (0..50).map(|_| connect(address)).collect();
    let second = start();
    for socket in waiting {
        let mut client = Client::over(socket);
        client.upgrade("/echo", "");
        client.send_text("at last");
        assert_eq!(client.frame().text(), "at last");
    }
    second.check_serves();
}

/// One of its own for each shard is what the kernel spreads connections over.
#[test]
fn each_shard_has_one_of_several_sockets_of_a_name() {
    let first = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let first = first.expect("a socket");
    first.set_reuse_port(true).expect("a socket");
    first.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    first.listen(128).expect("it is bound");
    let address = first.local_addr().expect("it is bound").as_socket().expect("IPv4");
    let second = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let second = second.expect("a socket");
    second.set_reuse_port(true).expect("a socket");
    second.bind(&address.into()).expect("it is shared");
    second.listen(128).expect("it is bound");
    let high = |socket: &socket2::Socket| -> TcpListener {
        rustix::io::fcntl_dupfd_cloexec(socket, 100).expect("there is a descriptor").into()
    };
    let sockets = [high(&first), high(&second)];
    let cpus = ringway::config::all::Config::demo().runtime.cpus;
    if cpus.len() < 2 {
        return;
    }
    let cpus = format!("[runtime]\ncpus = \"{},{}\"\n", cpus[0], cpus[1]);
    let file = File::new(&format!("{}{cpus}", named("web", address)));
    let command = serve_with(&file, &[("web", &sockets[0]), ("web", &sockets[1])]);
    let server = Binary::spawn(command, file);
    // Whichever the kernel chooses.
    (0..40).for_each(|_| _ = Client::open(address, "/echo"));
    drop(server);
}

#[test]
fn what_is_wrong_with_passed_sockets_is_said() {
    let [first, second] = [listen("127.0.0.1:0"), listen("127.0.0.1:0")];
    let address = |socket: &TcpListener| socket.local_addr().expect("it is bound");
    let refused = |text: &str, sockets: &[(&str, &TcpListener)]| {
        let file = File::new(text);
        let (code, _, errors) = run(&mut serve_with(&file, sockets));
        assert_eq!(code, Some(1), "{errors}");
        errors
    };
    let errors = refused(&named("api", address(&first)), &[("web", &first)]);
    assert!(errors.contains("socket \"api\"") && errors.contains("[\"web\"]"), "{errors}");
    assert!(errors.contains("FileDescriptorName"), "{errors}");
    let errors = refused(&named("web", address(&second)), &[("web", &first)]);
    let [bound, wanted] = [address(&first), address(&second)].map(|address| address.to_string());
    assert!(errors.contains(&bound) && errors.contains(&wanted), "{errors}");
    let many = vec![("web", &first); 80];
    let errors = refused(&named("web", address(&first)), &many);
    assert!(errors.contains("80 of them"), "{errors}");
}

#[test]
fn a_passed_socket_that_nobody_wants_is_named_in_the_log() {
    let socket = listen("127.0.0.1:0");
    let file = File::new(LISTENERS);
    let command = serve_with(&file, &[("left", &socket)]);
    let server = Binary::spawn(command, file);
    assert!(server.log().iter().any(|line| line["name"] == "left"), "{:?}", server.log());
    server.check_serves();
}

/// As with other supervisors and in a shell.
#[test]
fn without_any_passed_socket_a_named_listener_is_bound() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = free.local_addr().expect("it is bound");
    drop(free);
    let server = Binary::start_as(&named("web", address));
    assert_eq!(server.address(CLIENTS), address);
    server.check_serves();
}
