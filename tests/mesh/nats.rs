//! A real NATS server on a free port, with a store in a directory of its own.

// Each test file uses its own part.
#![allow(dead_code)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::common::*;

/// See the module; killed when dropped.
pub struct Nats {
    child: Option<Child>,
    port: u16,
    store: TempDir,
}

impl Nats {
    /// Starts it and waits until it listens.
    pub fn start() -> Nats {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let store = TempDir::new().expect("a directory for temporary files");
        let mut nats = Nats { child: None, port, store };
        nats.resume();
        nats
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
        command.args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-js", "-sd"]);
        command.arg(self.store.path()).stdin(Stdio::null());
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
        let signal =
            if frozen { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        let child = self.child.as_ref().expect("it runs");
        let id = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(id, signal).expect("it runs");
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.stop();
    }
}
