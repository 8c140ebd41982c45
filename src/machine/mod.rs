//! Whether this machine lets a gateway run: asked before it starts, and by `ringway check
//! --machine`.
//!
//! [`prepare`] tries what a start needs and gives the first thing that is in the way, as a sentence
//! with cause and remedy. What it lets through can still fail, but only in a race with others.
//! [`inspect`] goes on where `prepare` ends, and also tells what will hurt later. Costs: a few
//! milliseconds, once per start.

pub mod memory;
mod report;
pub mod sockets;
mod system;

use std::io;

use crossbeam_channel::Sender;

use crate::config;
use crate::config::all::Config;
use crate::engine::ring::{Probe, SetupError};
use crate::patience::Patience;

pub use self::report::{Finding, Verdict, inspect};

use self::memory::Shortage;

/// Why a gateway can not run here. Nothing recovers from it; the process prints it and ends.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    #[error(transparent)]
    Ring(#[from] SetupError),
    #[error(transparent)]
    Memory(#[from] Shortage),
    #[error(
        "{needed} descriptors are needed for a start, but the process may open {limit} and has \
         {open} open (RLIMIT_NOFILE). Raise the limit (shell: ulimit -n 1048576; systemd: \
         LimitNOFILE=1048576; Docker: --ulimit nofile=1048576; Kubernetes: LimitNOFILE of the \
         container runtime on the node)"
    )]
    Descriptors { needed: u64, limit: u64, open: u64 },
    #[error(
        "the system starts no further thread ({error}); {needed} are needed. Raise the limit \
         (shell: ulimit -u; systemd: TasksMax=infinity; Docker: --pids-limit=-1; Kubernetes: \
         podPidsLimit of the kubelet), or use fewer CPUs (runtime.cpus)"
    )]
    Threads { needed: usize, error: io::Error },
}

/// Raises the limits that the process may raise by itself, and tries everything that a gateway
/// needs, before it has threads.
///
/// # Errors
/// The first thing that is in the way.
pub fn prepare(config: &Config, patience: Patience) -> Result<(), MachineError> {
    config::raise_nofile();
    memory::raise_limit(config);
    descriptors(config)?;
    threads(config)?;
    // The end of a ring interrupts a system call of the thread that made it. This one makes none.
    let prober = std::thread::Builder::new().name("probe".into());
    std::thread::scope(|scope| {
        let needed = threads_needed(config);
        let thread = prober.spawn_scoped(scope, || rings(config, patience));
        let thread = thread.map_err(|error| MachineError::Threads { needed, error })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// io_uring, and locked memory for it. What the probe holds is freed late, so it is counted.
fn rings(config: &Config, patience: Patience) -> Result<(), MachineError> {
    let probe = match patience.retry(SetupError::is_memory, Probe::new) {
        Err(error) if error.is_memory() => return Err(memory::nothing_left(config, error)),
        probe => probe?,
    };
    memory::check(&probe, config, patience)
}

/// What a shard opens beside its listeners: an executor's three rings and eventfd, the socket ring,
/// the mailbox's eventfd and its copies.
const DESCRIPTORS_PER_SHARD: u64 = 10;
/// What the other threads open: event loops, the admin server, the mesh, a connection.
const DESCRIPTORS_SHARED: u64 = 24;
/// What a process opens before its gateway: an event loop that waits for signals.
const DESCRIPTORS_FIRST: u64 = 10;

/// Whether enough descriptors are left to wait for signals and to read a configuration, which tells
/// how many are needed in all.
///
/// # Errors
/// They are not.
pub fn check_first_descriptors() -> Result<(), MachineError> {
    descriptors_left(DESCRIPTORS_FIRST + DESCRIPTORS_SHARED)
}

fn descriptors(config: &Config) -> Result<(), MachineError> {
    let shards = config.runtime.cpus.len() as u64;
    let listeners = config.listeners.len() as u64;
    descriptors_left(DESCRIPTORS_SHARED + shards * (DESCRIPTORS_PER_SHARD + listeners))
}

fn descriptors_left(needed: u64) -> Result<(), MachineError> {
    let (limit, open) = (config::raise_nofile(), system::open_descriptors());
    if needed.saturating_add(open) > limit {
        return Err(MachineError::Descriptors { needed, limit, open });
    }
    Ok(())
}

/// Threads of a gateway: a shard has one and its executor another.
fn threads_needed(config: &Config) -> usize {
    const SHARED: usize = 8;
    let keys = config.xxim.crypto.threads as usize;
    SHARED + config.runtime.cpus.len() * 2 + config.sidecar.threads as usize + keys
}

/// Starts as many threads as a gateway has, which wait for each other and end.
fn threads(config: &Config) -> Result<(), MachineError> {
    const STACK_BYTES: usize = 16 << 10;
    let needed = threads_needed(config);
    let (all_there, wait): (Sender<()>, _) = crossbeam_channel::bounded(0);
    let start = |_| {
        let wait = wait.clone();
        // An error is what it waits for: the sender is gone.
        let body = move || _ = wait.recv();
        std::thread::Builder::new().name("probe".into()).stack_size(STACK_BYTES).spawn(body)
    };
    let started: io::Result<Vec<_>> = (0..needed).map(start).collect();
    drop(all_there);
    for thread in started.map_err(|error| MachineError::Threads { needed, error })? {
        let _ = thread.join();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn this_machine_can_run_the_demo() {
        let config = Config::demo();
        prepare(&config, Patience::new(Duration::from_secs(2))).expect("it can");
    }

    #[test]
    fn what_is_refused_is_told_with_the_remedy_for_each_supervisor() {
        let error = || io::Error::from_raw_os_error(libc::EAGAIN);
        let errors = [
            MachineError::Descriptors { needed: 60, limit: 20, open: 3 },
            MachineError::Threads { needed: 12, error: error() },
        ];
        for text in errors.map(|error| error.to_string()) {
            for name in ["shell", "systemd", "Docker", "Kubernetes"] {
                assert!(text.contains(name), "{name}: {text}");
            }
        }
    }
}
