//! `ringway-perf`: puts load on a gateway and says what a message costs it.
//!
//! One thread, pinned to a CPU that the server does not have, drives all connections with epoll;
//! more threads and processes can help it.
//! The figure that counts is the server's CPU time per message: on a shared machine it is steadier
//! than time on the clock. Every scenario is measured in turn with the floor (`src/bin/floor.rs`),
//! and what is reported are medians and the ratio to it. README.md has the scenarios and the
//! figures, RESULTS.md what was measured.

#![forbid(unsafe_code)]

mod nats;
mod net;
mod netsvr;
mod options;
mod report;
mod rig;
mod run;
mod scenario;
mod server;
mod suite;
mod team;
mod tls;
mod upstream;
mod usage;

use std::process::ExitCode;

use clap::Parser;

use crate::options::{Options, Scenario};
use crate::run::Entry;

/// What can go wrong is told to whoever started this, and ends it.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    match start(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringway-perf: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(mut options: Options) -> Result<()> {
    options.load_cpus = load_cpus(&options)?;
    options.load_cpu = Some(options.cpu_of(0));
    server::pin(options.cpu_of(0))?;
    if let Some(leader) = options.leader {
        // The leader tells what went wrong.
        return team::help_all(leader, &options).or(Ok(()));
    }
    let results = match options.scenario {
        Scenario::Suite => suite::suite(&options)?,
        Scenario::Smoke => suite::smoke(&options)?,
        _ => vec![measure(&options)?],
    };
    report::write(&options, &results)
}

/// CPUs of the load: the first one, then those above it, then those below, without the server's.
fn load_cpus(options: &Options) -> Result<Vec<usize>> {
    let mut cpus = server::cpus()?;
    let first = options.load_cpu.or(cpus.last().copied()).unwrap_or(0);
    cpus.retain(|&cpu| cpu != options.server_cpu && cpu != first);
    let below = cpus.iter().take_while(|&&cpu| cpu < first).count();
    cpus.rotate_left(below);
    cpus.insert(0, first);
    Ok(cpus)
}

/// Measures one scenario and prints its table.
fn measure(options: &Options) -> Result<(Options, Vec<Entry>)> {
    let mut entries = run::entries(options)?;
    run::all(&mut entries, options.runs)?;
    println!("{}", report::table(options, &entries));
    if let Some(note) = scenario::note(options) {
        println!("{note}\n");
    }
    Ok((options.clone(), entries))
}
