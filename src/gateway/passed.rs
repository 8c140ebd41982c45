//! Listening sockets that a supervisor has opened and passes on (systemd's socket activation), by
//! name: `FileDescriptorName` of the socket unit is `socket` of a `[[listener]]`. They stay open
//! while one gateway ends and the next one starts, so nobody is refused meanwhile.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use socket2::SockRef;

use super::StartError;
use crate::config::model::Listener;
use crate::log::target;

/// The names of the sockets, with `:` between them.
const NAMES: &str = "LISTEN_FDNAMES";

/// What was passed on and not taken yet; `None` if no supervisor does so.
pub(super) struct Passed(Option<Vec<(String, TcpListener)>>);

impl Passed {
    /// Takes everything. What is no listening TCP socket is left alone.
    pub fn take() -> Passed {
        let mut all = ListenFd::from_env();
        if all.len() == 0 {
            return Passed(None);
        }
        let names = std::env::var(NAMES).unwrap_or_default();
        let names = names.split(':').chain(std::iter::repeat(""));
        let mut sockets = Vec::new();
        for (index, name) in (0..all.len()).zip(names) {
            match all.take_tcp_listener(index) {
                Ok(Some(socket)) => sockets.push((name.to_owned(), socket)),
                Ok(None) => {}
                Err(error) => tracing::warn!(
                    target: target::GATEWAY,
                    name, %error, "this was passed on, and is no listening TCP socket"
                ),
            }
        }
        Passed(Some(sockets))
    }

    /// One socket of a listener for each shard, if its sockets are passed on. Fewer sockets than
    /// shards are shared. `None`: it has to be bound.
    ///
    /// # Errors
    /// There is none of its name, they are bound to another address, or there are more of them than
    /// shards: clients of some would wait for ever.
    pub fn of(
        &mut self,
        listener: &Listener,
        shards: usize,
    ) -> Result<Option<(SocketAddr, Vec<OwnedFd>)>, StartError> {
        let (Some(name), Some(passed)) = (&listener.socket, &mut self.0) else { return Ok(None) };
        let error = |problem: String| StartError::Passed { name: name.clone(), problem };
        let mine: Vec<_> = passed.extract_if(.., |(of, _)| of == name).collect();
        if mine.is_empty() {
            let names: Vec<&str> = passed.iter().map(|(name, _)| name.as_str()).collect();
            return Err(error(format!(
                "the supervisor has passed on {names:?} and none of this name; set \
                 FileDescriptorName of its unit to that of `socket`"
            )));
        }
        if mine.len() > shards {
            return Err(error(format!(
                "the supervisor has passed on {} of them, for {shards} shards; give its unit as \
                 many ListenStream lines as there are CPUs in runtime.cpus, or one",
                mine.len()
            )));
        }
        let mut address = listener.bind;
        for (_, socket) in &mine {
            let system = |problem: std::io::Error| error(problem.to_string());
            let bound = socket.local_addr().map_err(system)?;
            if address.port() == 0 {
                address = bound;
            }
            if bound != address {
                return Err(error(format!(
                    "it is bound to {bound}, and `bind` says {address}; have both say the same"
                )));
            }
            // As those that are bound here; accepted sockets inherit it.
            SockRef::from(socket).set_tcp_nodelay(true).map_err(system)?;
        }
        let shared = (0..shards).map(|shard| mine[shard % mine.len()].1.try_clone());
        let shared: Result<Vec<_>, _> = shared.collect();
        let shared = shared.map_err(|problem| error(problem.to_string()))?;
        Ok(Some((address, shared.into_iter().map(OwnedFd::from).collect())))
    }

    /// Says which ones nobody wanted; clients of these would wait for ever.
    pub fn complain(self) {
        for (name, socket) in self.0.into_iter().flatten() {
            let address = socket.local_addr().map_or(String::new(), |address| address.to_string());
            tracing::warn!(
                target: target::GATEWAY,
                name, address, "this socket was passed on, and no listener has it as its `socket`"
            );
        }
    }
}
