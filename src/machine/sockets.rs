//! Listening sockets, and what to do when one can not be had.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::limits;
use crate::log::target;
use crate::patience::Patience;

/// A socket that is bound and not listening. `shared`: with SO_REUSEPORT, one for each shard.
pub(super) fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // Accepted sockets inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A listening socket of a shard, or alone at its address. Waits for a predecessor's to go.
pub fn listen(address: SocketAddr, shared: bool, patience: Patience) -> io::Result<Socket> {
    wait_for(address, patience, || {
        let socket = bind(address, shared)?;
        socket.listen(limits::BACKLOG)?;
        Ok(socket)
    })
}

/// A listening socket of the sidecar. Waits for a predecessor's to go.
pub fn listen_alone(address: SocketAddr, patience: Patience) -> io::Result<TcpListener> {
    wait_for(address, patience, || TcpListener::bind(address))
}

/// Tries again while the port is in use, and says once that it does.
fn wait_for<T>(
    address: SocketAddr,
    patience: Patience,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    let mut said = false;
    patience.retry(in_use, || {
        let result = attempt();
        if result.as_ref().is_err_and(in_use) && !said {
            said = true;
            tracing::info!(
                target: target::GATEWAY,
                %address, "the port is still in use; trying again for a moment"
            );
        }
        result
    })
}

/// The error with what to do about it.
pub fn advice(error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "another process has this port: end it or change `bind`",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: change `bind`",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE"
        }
        _ => "see the error of the system",
    };
    format!("{error}; {advice}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_port_that_becomes_free_is_waited_for() {
        let first = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = first.local_addr().expect("it is bound");
        let none = Patience::new(Duration::ZERO);
        let error = listen(address, true, none).expect_err("it is in use");
        assert!(advice(&error).contains("another process has this port"), "{error}");
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Patience::PAUSE * 3);
            drop(first);
        });
        let patience = Patience::new(Duration::from_secs(20));
        listen(address, true, patience).expect("it is free then");
        thread.join().expect("it closes");
        let second = TcpListener::bind(address).expect("nobody has it");
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Patience::PAUSE * 3);
            drop(second);
        });
        listen_alone(address, patience).expect("it is free then");
        thread.join().expect("it closes");
    }
}
