//! A real NATS server on a free port, with a store in a directory of its own.

// Each test file uses its own part.
#![allow(dead_code)]

use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::common::*;

/// See the module; killed when dropped.
pub struct Nats {
    child: Option<Child>,
    port: u16,
    store: TempDir,
    settings: Option<String>,
}

impl Nats {
    /// Starts it and waits until it listens.
    pub fn start() -> Nats {
        Nats::start_with(None)
    }

    /// The same with settings of its own, in the words of its configuration file; they also decide
    /// about JetStream.
    pub fn start_with(settings: Option<&str>) -> Nats {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let store = TempDir::new().expect("a directory for temporary files");
        let settings = settings.map(str::to_owned);
        let mut nats = Nats { child: None, port, store, settings };
        nats.resume();
        nats
    }

    /// From the next start on it has other settings.
    pub fn set(&mut self, settings: &str) {
        self.settings = Some(settings.to_owned());
    }

    /// Starts it in a network namespace, where it listens on port 4222 of every address.
    pub fn start_in(namespace: &str, address: &str) -> Nats {
        let store = TempDir::new().expect("a directory for temporary files");
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, "nats-server", "-a", "0.0.0.0", "-js", "-sd"]);
        command.arg(store.path()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("there is a namespace");
        let there = format!("{address}:4222").parse().expect("an address");
        wait_until("NATS listens", || TcpStream::connect_timeout(&there, PATIENCE).is_ok());
        Nats { child: Some(child), port: 4222, store, settings: None }
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }

    /// Ends it, as a crash would.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again on the same port, with the same store.
    pub fn resume(&mut self) {
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-p", &self.port.to_string()]).stdin(Stdio::null());
        match &self.settings {
            None => _ = command.arg("-js").arg("-sd").arg(self.store.path()),
            Some(settings) => {
                let file = self.store.path().join("server.conf");
                std::fs::write(&file, settings).expect("the directory is ours");
                command.arg("-c").arg(file);
            }
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("nats-server can not be started ({error}); install the package nats-server")
        });
        self.child = Some(child);
        let address = self.address();
        wait_until("NATS listens", || TcpStream::connect(address).is_ok());
    }

    /// Stops it without ending it: its connections stay, and nothing comes through them.
    pub fn freeze(&self, frozen: bool) {
        freeze(self.child.as_ref().expect("it runs"), frozen);
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The way of one node to NATS, which can be cut.
pub struct Cable {
    address: SocketAddr,
    state: Arc<Mutex<Plug>>,
}

#[derive(Default)]
struct Plug {
    cut: bool,
    /// Both ends of every connection.
    ends: Vec<TcpStream>,
}

impl Cable {
    /// A way to this server.
    pub fn to(nats: &Nats) -> Cable {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (server, state) = (nats.address(), Arc::new(Mutex::new(Plug::default())));
        let shared = state.clone();
        // Ends with the process.
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let mut plug = shared.lock().expect("no panic");
                let Ok(far) = TcpStream::connect(server) else { continue };
                if plug.cut {
                    continue;
                }
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let copy = |socket: &TcpStream| socket.try_clone().expect("a descriptor");
                    let (mut from, mut to) = (copy(from), copy(to));
                    plug.ends.push(copy(&from));
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Cable { address, state }
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Nothing comes through any more, or it does again.
    pub fn cut(&self, cut: bool) {
        let mut plug = self.state.lock().expect("no panic");
        plug.cut = cut;
        if cut {
            plug.ends.drain(..).for_each(|end| _ = end.shutdown(Shutdown::Both));
        }
    }
}
