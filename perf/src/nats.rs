//! A NATS server for the nodes of a mesh, on the CPUs of the thread that starts it: the load's.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::Result;
use crate::server::{await_listener, free_address};

const PROGRAM: &str = "nats-server";

/// A server that ends with this.
pub struct Nats {
    address: SocketAddr,
    child: Child,
}

impl Nats {
    /// Starts it and waits until it listens.
    pub fn start() -> Result<Nats> {
        let address = free_address()?;
        let child = spawn(address)?;
        Ok(Nats { address, child })
    }

    /// Whether the program is there.
    pub fn is_installed() -> bool {
        let mut command = Command::new(PROGRAM);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again on the same port, after [`Nats::kill`].
    pub fn restart(&mut self) -> Result<()> {
        self.child = spawn(self.address)?;
        Ok(())
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(address: SocketAddr) -> Result<Child> {
    let mut command = Command::new(PROGRAM);
    command.args(["-a", &address.ip().to_string(), "-p", &address.port().to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            format!("{PROGRAM} is not in PATH: install it (apt-get install {PROGRAM})")
        }
        _ => format!("{PROGRAM}: {error}"),
    })?;
    await_listener(address)?;
    Ok(child)
}
