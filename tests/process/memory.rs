//! Locked memory, which only a user without privileges has a limit of. So these tests need root, to
//! become such a user; without it they say so and pass.
//!
//! The kernel counts per user, so each trial has a user of its own.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use ringway::config::model::Config;
use ringway::gateway::Gateway;
use ringway::machine::memory::Need;
use tempfile::TempDir;

use crate::binary::RINGWAY;
use crate::common::*;
use crate::start::{Killed, finish};

const MIB: u64 = 1 << 20;
const SHARDS: &str = "SHARDS";

/// Copies of the programs that every user may run: where cargo puts them they may not be reached.
struct Programs {
    directory: TempDir,
}

static PROGRAMS: LazyLock<Programs> = LazyLock::new(|| {
    let directory = TempDir::new().expect("a directory for temporary files");
    let open = |path: &Path| {
        let everybody = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, everybody).expect("it is ours");
    };
    open(directory.path());
    let this = std::env::current_exe().expect("Linux tells it");
    for (from, name) in [(Path::new(RINGWAY), "ringway"), (&*this, "tests")] {
        let copy = directory.path().join(name);
        std::fs::copy(from, &copy).expect("there is room");
        open(&copy);
    }
    Programs { directory }
});

impl Programs {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root can become a user with a limit for locked memory");
    }
    root
}

/// A user that nobody else is.
fn new_user() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    1_000_000_000 + std::process::id() % 4_000_000 * 256 + number
}

/// 16 MiB, or the hard limit if that is lower and even root may not raise it.
fn highest_mib() -> u64 {
    let status = Command::new("sh").args(["-c", "ulimit -l 16384"]).stderr(Stdio::null()).status();
    if status.expect("a shell is there").success() {
        return 16;
    }
    let hard = rustix::process::getrlimit(rustix::process::Resource::Memlock).maximum;
    let highest = hard.unwrap_or(u64::MAX) / MIB;
    eprintln!("this process can not raise its limit: no more than {highest} MiB are tried");
    highest.min(16)
}

/// A command as that user, who may lock so many bytes. The shell's limits count in KiB.
fn as_user(user: u32, limit: u64, program: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!(
        "ulimit -l {} && exec setpriv --reuid {user} --regid {user} --clear-groups \"$0\" \"$@\"",
        limit / 1024
    ));
    command.arg(PROGRAMS.path(program)).current_dir(PROGRAMS.directory.path());
    command
}

/// Another process that has a gateway with so many shards; on any number of CPUs.
fn gateway_of(user: u32, limit: u64, shards: usize) -> Command {
    let mut command = as_user(user, limit, "tests");
    command.args(["--ignored", "--exact", "--nocapture", "memory::a_gateway_for_the_others"]);
    command.env(SHARDS, shards.to_string());
    command
}

fn config_of(shards: usize) -> Config {
    let mut config = config();
    let cpus = config.runtime.cpus.clone();
    config.runtime.cpus = cpus.into_iter().cycle().take(shards).collect();
    config
}

const SERVES: &str = "it serves";
const REFUSED: &str = "it is refused: ";

#[test]
#[ignore = "other tests run it as another user"]
fn a_gateway_for_the_others() {
    let shards = std::env::var(SHARDS).ok().and_then(|count| count.parse().ok());
    let config = config_of(shards.expect("the other test says how many"));
    match Gateway::start(config) {
        Err(error) => println!("\n{REFUSED}{error}"),
        Ok(gateway) => {
            let mut client = Client::open(gateway.addresses()[CLIENTS], "/echo");
            client.send_text("there?");
            assert_eq!(client.frame().text(), "there?");
            println!("\n{SERVES}");
            // Until the other test closes the pipe.
            let _ = std::io::stdin().read_line(&mut String::new());
            drop(client);
            gateway.shut_down();
        }
    }
}

/// Whether a gateway starts under a limit; if not, it must say why.
fn serves(limit: u64, shards: usize) -> bool {
    let (code, text) = finish(&mut gateway_of(new_user(), limit, shards));
    assert_eq!(code, Some(0), "{shards} shards with {limit} bytes: {text}");
    let refused = text.lines().find_map(|line| line.strip_prefix(REFUSED));
    if let Some(line) = refused {
        let limit = format!("RLIMIT_MEMLOCK is {} KiB. Raise the limit to ", limit / 1024);
        assert!(line.contains("of locked memory (") && line.contains(&limit), "{line}");
    }
    let serves = text.lines().any(|line| line == SERVES);
    assert_ne!(serves, refused.is_some(), "{text}");
    serves
}

#[test]
fn eight_mib_are_enough_for_four_shards_three_for_two_and_more_never_fails() {
    if !is_root() {
        return;
    }
    for (shards, enough) in [(1, 2 * MIB), (2, 3 * MIB), (4, 8 * MIB)] {
        let need = Need::of(&config_of(shards));
        assert!(need.limit_min(true) <= enough, "{shards} shards: {}", need.show(true));
        let mut fewer = false;
        for mib in 1..=highest_mib() {
            let serves = serves(mib * MIB, shards);
            assert!(serves || !fewer, "{shards} shards with {mib} MiB, although less was enough");
            assert!(serves || mib * MIB < enough, "{shards} shards with {mib} MiB");
            fewer = serves;
        }
        assert!(serves(need.limit_min(true), shards), "exactly what is stated is enough");
    }
}

/// What a gateway has locked is found out by another process of its user, which can not have the
/// rest of the limit: it tells how much is left.
#[test]
fn a_shard_takes_exactly_what_is_stated() {
    if !is_root() {
        return;
    }
    let (user, file) = (new_user(), PROGRAMS.path("one-shard.toml"));
    let cpu = config().runtime.cpus[0];
    let text = format!(
        "[runtime]\ncpus = \"{cpu}\"\n[[listener]]\nbind = \"127.0.0.1:0\"\n\
         routes = [ {{ path = \"/echo\", protocol = \"echo\" }} ]\n[admin]\nbind = \"\"\n"
    );
    std::fs::write(&file, text).expect("the directory is ours");
    let need = Need::of(&config_of(1));
    let with_rings = charges_rings();
    let limit = need.each.times(2).charged(with_rings) + need.all().charged(with_rings) - 4096;
    let left = || {
        let mut command = as_user(user, limit, "ringway");
        let (_, text) = finish(command.args(["check", "--machine", "--config"]).arg(&file));
        let line = text.lines().find_map(|line| line.split_once("RLIMIT_MEMLOCK only "));
        line.map(|(_, rest)| rest.split(' ').next().unwrap_or_default().to_owned())
    };
    assert_eq!(left(), None, "enough for one");
    let mut command = gateway_of(user, limit, 2);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Killed(command.spawn().expect("it can be started"));
    // Open until its end, as it has more to say then.
    let mut lines = BufReader::new(child.0.stdout.take().expect("piped")).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line == SERVES));
    let expected = (need.all().charged(with_rings) - 4096) / 1024;
    // What the start took is free a moment later.
    wait_until("two shards less", || left() == Some(expected.to_string()));
    let mut pipe = child.0.stdin.take().expect("piped");
    pipe.write_all(b"\n").expect("it reads");
    wait_until("everything again", || left().is_none());
}

/// Linux 6.14 and newer.
fn charges_rings() -> bool {
    ringway::shard::ring::System::read().version() >= (6, 14)
}
