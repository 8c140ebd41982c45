//! The command line: `serve`, `demo`, `check`, `keygen`.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand};
use ringway::allocator;
use ringway::config::all::Loaded;
use ringway::config::model::Service;
use ringway::config::{self, ConfigError};
use ringway::ctl;
use ringway::demo::{self, Business};
use ringway::engine::ring::PageAllocator;
use ringway::gateway::{Gateway, supervisor};
use ringway::import;
use ringway::life::{self, panics};
use ringway::log::{self, target};
use ringway::machine::{self, MachineError, Verdict};
use ringway::rsa_keys;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

#[global_allocator]
static ALLOCATOR: PageAllocator<mimalloc::MiMalloc> = PageAllocator(mimalloc::MiMalloc);

/// Exit codes beside 0 (everything was drained), 1 (it could not start, could not go on, or did not
/// drain in time) and 2 (the command line).
const STOOD_STILL: i32 = 70;
const PANICKED: i32 = 101;

#[derive(Parser)]
#[command(version, about = "Long-connection gateway: WebSocket and TCP clients on io_uring")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway with a configuration file.
    Serve {
        /// The TOML file. RINGWAY_* environment variables override its keys.
        #[arg(long, env = config::FILE_VARIABLE, value_parser = file_parser())]
        config: PathBuf,
    },
    /// Run every protocol on 127.0.0.1 with a built-in business process; needs no configuration.
    Demo,
    /// See what a running gateway does, and steer it.
    Ctl(Box<ctl::Ctl>),
    /// Check a configuration file or the machine, or print the reference of all keys.
    Check {
        /// The TOML file.
        #[arg(
            long,
            env = config::FILE_VARIABLE,
            value_parser = file_parser(),
            required_unless_present_any = ["machine", "print_reference"],
        )]
        config: Option<PathBuf>,
        /// Try what the gateway needs of this machine, and tell what will hurt later. Without a
        /// file: for the demo.
        #[arg(long)]
        machine: bool,
        /// Print the Markdown tables of all configuration keys and limits.
        #[arg(long)]
        print_reference: bool,
    },
    /// Make a configuration of the one of another gateway.
    Import {
        #[command(subcommand)]
        what: Import,
    },
    /// Make keys.
    Keygen {
        #[command(subcommand)]
        what: Keygen,
    },
}

#[derive(Subcommand)]
enum Import {
    /// Of netsvr, generations 5 and 6. What has no counterpart becomes a comment.
    Netsvr {
        /// Its netsvr.toml.
        file: PathBuf,
        /// Where the configuration goes; an existing file is not overwritten. Without it: to
        /// standard output.
        #[arg(long)]
        output: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum Keygen {
    /// Make the RSA key pair of xxim clients: PKCS#8 and SubjectPublicKeyInfo, both PEM.
    Xxim {
        /// Where the private key goes, for xxim.crypto.private_key; only its owner may read it.
        #[arg(long, default_value = "xxim.pem")]
        private_key: PathBuf,
        /// Where the public key goes, for the clients.
        #[arg(long, default_value = "xxim.pub.pem")]
        public_key: PathBuf,
        /// Size of the key, 2048 to 8192.
        #[arg(long, default_value_t = rsa_keys::BITS)]
        bits: usize,
    },
}

/// Reads the path of the configuration. The empty one is mostly that of a variable without a value.
fn file_parser() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|value: OsString| {
        let variable = config::FILE_VARIABLE;
        match (value.is_empty(), std::env::var_os(variable).is_some_and(|value| value.is_empty())) {
            (false, _) => Ok(PathBuf::from(value)),
            (true, true) => Err(format!(
                "the environment variable {variable} is empty; set it to the path of a TOML file, \
                 or unset it"
            )),
            (true, false) => Err("the path of a TOML file belongs here".to_owned()),
        }
    })
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    allocator::avoid_huge_pages();
    run(Args::parse().command).unwrap_or_else(|error| {
        eprintln!("ringway: {error}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve { config } => gateway(move || load(&config), false),
        Command::Ctl(asked) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(ctl::run(*asked))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Demo => gateway(|| Ok(config::all::demo_with_env()?), true),
        Command::Check { print_reference: true, .. } => {
            print!("{}", config::all::reference());
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { config, machine, .. } => check(config.as_deref(), machine),
        Command::Import { what: Import::Netsvr { file, output } } => {
            let text = std::fs::read_to_string(&file)
                .map_err(|error| format!("{}: it can not be read: {error}", file.display()))?;
            let made = import::netsvr(&text, &file.display().to_string())?;
            match output {
                Some(output) => import::write_new(&output, &made)?,
                None => print!("{made}"),
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Keygen { what: Keygen::Xxim { private_key, public_key, bits } } => {
            if !rsa_keys::BITS_ALLOWED.contains(&bits) {
                return Err(format!("--bits {bits}: allowed are 2048 to 8192").into());
            }
            rsa_keys::generate(&private_key, &public_key, bits)?;
            println!("wrote {} and {}", private_key.display(), public_key.display());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Reads the file; if the environment names one that can not be read, the error says so.
fn load(path: &Path) -> Result<Loaded, Failure> {
    let variable = config::FILE_VARIABLE;
    let named = std::env::var_os(variable).is_some_and(|value| value == path);
    let unreadable = |error: &ConfigError| {
        error.is_about_the_file() && *error.file == *path.display().to_string()
    };
    config::all::load(path).map_err(|error| match named && unreadable(&error) {
        true => format!("environment variable {variable} = {error}").into(),
        false => error.into(),
    })
}

/// Checks the file, and the machine if that is wanted; the exit code tells whether a gateway would
/// start.
fn check(path: Option<&Path>, machine: bool) -> Result<ExitCode, Failure> {
    let loaded = match path {
        Some(path) => load(path)?,
        None => config::all::demo_with_env()?,
    };
    loaded.warnings.iter().for_each(|warning| println!("warning: {warning}"));
    if let Some(path) = path {
        println!("{} is valid", path.display());
    }
    let findings = if machine { machine::inspect(&loaded.config) } else { Vec::new() };
    findings.iter().for_each(|finding| println!("{finding}"));
    let fatal = findings.iter().any(|finding| finding.verdict == Verdict::Fatal);
    Ok(if fatal { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs until a signal or a failure; the exit code tells whether everything was drained.
fn gateway(
    load: impl FnOnce() -> Result<Loaded, Failure> + Send + 'static,
    demo: bool,
) -> Result<ExitCode, Failure> {
    machine::check_first_descriptors()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Before anything that can take time, so that no signal finds the default action, which for the
    // first process of a container is none.
    let mut signals = runtime.block_on(async { Signals::new() })?;
    let Some(started) = runtime.block_on(signals.starting(move || start(load()?, demo))) else {
        // Perhaps there is no log yet.
        eprintln!("ringway: ended by a signal before the gateway was ready");
        runtime.shutdown_background();
        return Ok(ExitCode::SUCCESS);
    };
    let Started { gateway, upstream, business, consumer } = started?;
    announce(&gateway);
    runtime.spawn(supervisor::keep_informed(gateway.life().clone()));
    supervisor::ready();
    runtime.block_on(signals.watch(&gateway));
    let drained = runtime.block_on(signals.drain(gateway));
    if drained {
        drop(consumer);
        drop(upstream);
        business.into_iter().for_each(Business::stop);
        tracing::info!(target: target::GATEWAY, "drained");
    } else {
        tracing::error!(target: target::GATEWAY, "ended before everything was drained");
    }
    runtime.shutdown_background();
    Ok(if drained { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The gateway, and what the demo has beside it.
struct Started {
    gateway: Gateway,
    upstream: Option<demo::xxim::Business>,
    business: Option<Business>,
    consumer: Option<demo::connmix::Worker>,
}

fn start(loaded: Loaded, demo: bool) -> Result<Started, Failure> {
    let Loaded { mut config, warnings } = loaded;
    log::init(&config.log.filter, config.log.json)?;
    panics::end_by(|| std::process::exit(PANICKED));
    warnings.iter().for_each(|warning| tracing::warn!(target: target::GATEWAY, "{warning}"));
    let upstream = if demo { Some(demo::xxim::Upstream::bind()?) } else { None };
    upstream.iter().for_each(|upstream| upstream.join(&mut config.xxim_upstreams));
    let gateway = Gateway::start(config)?;
    gateway.life().on_failure(end_process);
    let push = gateway.push_address();
    let upstream = upstream.map(|upstream| upstream.start(push)).transpose()?;
    let business = if demo { Some(start_demo(&gateway)?) } else { None };
    let consumer = if demo { start_consumer(&gateway)? } else { None };
    Ok(Started { gateway, upstream, business, consumer })
}

/// Ends the process, on whichever thread finds out that the gateway can not go on: the others may
/// be waiting for the one that is gone.
fn end_process(failure: &life::Failure) {
    tracing::error!(target: target::GATEWAY, reason = %failure, "the gateway can not go on");
    std::process::exit(match failure {
        life::Failure::StandsStill { .. } => STOOD_STILL,
        life::Failure::Failed { .. } => 1,
        life::Failure::Ended { .. } | life::Failure::Undeliverable { .. } => PANICKED,
    })
}

fn announce(gateway: &Gateway) {
    for (listener, address) in gateway.config().listeners.iter().zip(gateway.addresses()) {
        let tls = listener.tls.is_some();
        tracing::info!(
            target: target::GATEWAY,
            %address, tls, service = ?listener.service, "listening"
        );
    }
    if let Some(address) = gateway.admin_address() {
        tracing::info!(target: target::GATEWAY, %address, "admin: /metrics /healthz /readyz");
    }
    if let Some(address) = gateway.push_address() {
        tracing::info!(target: target::GATEWAY, %address, "push service of xxim backends");
    }
    tracing::info!(target: target::GATEWAY, cpus = ?gateway.config().runtime.cpus, "ready");
}

/// Starts the built-in business process and waits until it has registered.
fn start_demo(gateway: &Gateway) -> Result<Business, Failure> {
    let config = gateway.config();
    let find = |service: &Service| -> Option<SocketAddr> {
        let mut listeners = config.listeners.iter().zip(gateway.addresses());
        listeners.find(|(listener, _)| listener.service == *service).map(|(_, address)| address)
    };
    let worker = find(&Service::NetsvrWorker).ok_or("the demo needs a netsvr-worker listener")?;
    let task = find(&Service::NetsvrTask).ok_or("the demo needs a netsvr-task listener")?;
    let business = demo::start(worker, task, &config.netsvr)?;
    if !business.wait_registered(Duration::from_secs(5)) {
        return Err("the built-in business process could not register within 5 s".into());
    }
    Ok(business)
}

/// Starts the built-in connmix worker.
fn start_consumer(gateway: &Gateway) -> Result<Option<demo::connmix::Worker>, Failure> {
    let mut listeners = gateway.config().listeners.iter().zip(gateway.addresses());
    let api = listeners.find(|(listener, _)| listener.service == Service::ConnmixApi);
    Ok(api.map(|(_, address)| demo::connmix::start(address)).transpose()?)
}

fn no_meaning(signal: &'static str) {
    tracing::warn!(target: target::GATEWAY, signal, "this signal means nothing to the gateway");
}

fn reload(gateway: &Gateway) {
    supervisor::reloading();
    match gateway.reload_certificates() {
        Ok(()) => tracing::info!(target: target::GATEWAY, "certificates reloaded"),
        Err(error) => {
            tracing::error!(target: target::GATEWAY, %error, "certificates not reloaded");
        }
    }
    supervisor::ready();
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hangup: Signal,
    /// They mean nothing, and their default action is the end.
    user: [Signal; 2],
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
        })
    }

    /// Starts something in a thread of its own; `None` if a signal that ends the process comes
    /// before that is done.
    async fn starting<T: Send + 'static>(
        &mut self,
        start: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Option<Result<T, Failure>> {
        let (sender, receiver) = oneshot::channel();
        let thread = std::thread::Builder::new().name("start".into());
        // It fails to send if a signal was faster.
        let thread = thread.spawn(move || _ = sender.send(start()));
        if let Err(error) = thread {
            return Some(Err(MachineError::Threads { needed: 1, error }.into()));
        }
        tokio::select! {
            started = receiver => {
                Some(started.unwrap_or_else(|_| Err("the start ended in a panic".into())))
            }
            () = self.end() => None,
        }
    }

    /// A signal that ends the process.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }

    /// Drains. Returns whether everything was. A signal has it hurry, a further one ends it.
    async fn drain(&mut self, gateway: Gateway) -> bool {
        let hurry = gateway.hurry();
        tracing::info!(
            target: target::GATEWAY,
            "draining; a second signal hurries, and ends the process at once if nothing is left to \
             hurry"
        );
        let mut drain = tokio::task::spawn_blocking(move || gateway.shut_down());
        loop {
            tokio::select! {
                drained = &mut drain => return drained.unwrap_or(false),
                () = self.end() => {}
            }
            if !hurry.hurry() {
                return false;
            }
            tracing::info!(
                target: target::GATEWAY,
                "the drain hurries; a further signal ends the process at once"
            );
        }
    }

    /// Waits for the end; SIGHUP reloads certificates meanwhile, and memory that is free goes back
    /// to the system.
    async fn watch(&mut self, gateway: &Gateway) {
        let [first, second] = &mut self.user;
        let mut memory = tokio::time::interval(allocator::INTERVAL);
        memory.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = memory.tick() => allocator::give_back(),
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.quit.recv() => return,
                _ = first.recv() => no_meaning("SIGUSR1"),
                _ = second.recv() => no_meaning("SIGUSR2"),
                _ = self.hangup.recv() => reload(gateway),
            }
        }
    }
}
