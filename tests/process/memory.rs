//! Locked memory, which only a user without privileges has a limit of. So these tests need root, to
//! become such a user; without it they say so and pass.
//!
//! The kernel counts per user, so each trial has a user of its own.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use ringway::config::all::Config;
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

/// A command as that user, who has a limit, as the shell's `ulimit` takes it.
fn as_user(user: u32, ulimit: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("bash");
    command.arg("-c").arg(format!(
        "ulimit {ulimit} && exec setpriv --reuid {user} --regid {user} --clear-groups \"$0\" \"$@\""
    ));
    command.arg(program).current_dir(PROGRAMS.directory.path());
    command
}

/// So much locked memory; the shell counts in KiB.
fn locked(bytes: u64) -> String {
    format!("-l {}", bytes / 1024)
}

/// Another process that has a gateway with so many shards; on any number of CPUs.
fn gateway_of(user: u32, limit: u64, shards: usize) -> Command {
    let mut command = as_user(user, &locked(limit), PROGRAMS.path("tests"));
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
    for (shards, enough) in [(1, MIB), (2, 3 * MIB), (4, 8 * MIB), (8, 4 * MIB)] {
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
        let mut command = as_user(user, &locked(limit), PROGRAMS.path("ringway"));
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
    ringway::engine::ring::System::read().version() >= (6, 14)
}

/// The figures of a start are measured above; the texts that people and scripts go by repeat them.
#[test]
fn what_is_stated_is_what_the_check_prints() {
    let output = Command::new(RINGWAY).args(["check", "--machine"]).output();
    let text = String::from_utf8(output.expect("it can be started").stdout).expect("UTF-8");
    let line = text.lines().find(|line| line.contains("locked memory: ")).expect("it is looked at");
    let number = |after: &str| -> u64 {
        let before = line.split_once(after).expect(after).0;
        let number = before.rsplit([' ', '(']).next().unwrap_or_default();
        number.parse().expect("a number")
    };
    let (each, start) = (number(" KiB each"), number(" KiB for the start"));
    let read = |file: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        std::fs::read_to_string(path).expect("it is there")
    };
    let setup = read("scripts/setup.sh");
    assert!(setup.contains(&format!("\nmemlock_shard={each}\nmemlock_start={start}\n")), "{line}");
    let unit = format!("{each} KiB per shard (CPU) and {start} KiB for the start");
    assert!(read("scripts/ringway.service").contains(&unit), "{line}");
    let readme = format!("{each} KiB per shard and {start} KiB");
    assert!(read("README.md").contains(&readme), "{line}");
}

/// `scripts/setup.sh` computes the need before anything is built, and says what is missing.
#[test]
fn the_set_up_of_a_user_with_too_little_memory_ends_before_it_builds() {
    if !is_root() {
        return;
    }
    let script = PROGRAMS.path("setup.sh");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/setup.sh");
    std::fs::copy(source, &script).expect("there is room");
    let need = Need::of(&config_of(2));
    let need_kib = need.limit_min(charges_rings()) / 1024;
    let set_up = |kib: u64| {
        let commands = "source \"$0\"; build_tools() { echo builds; }; rust() { :; }; set_up 1 2";
        let mut command = as_user(new_user(), &locked(kib * 1024), "bash");
        finish(command.args(["-c", commands]).arg(&script))
    };
    let (code, text) = set_up(need_kib);
    assert_eq!((code, text.as_str()), (Some(0), "builds\n"));
    let (code, text) = set_up(need_kib - 4);
    assert_eq!(code, Some(1), "{text}");
    let says = format!("may lock only {} KiB of memory, {need_kib} are needed", need_kib - 4);
    assert!(text.contains(&says) && !text.contains("builds"), "{text}");
}

/// The limit of threads is one of users, too.
#[test]
fn a_user_with_too_few_threads_gets_a_sentence() {
    if !is_root() {
        return;
    }
    let file = PROGRAMS.path("threads.toml");
    std::fs::write(&file, crate::binary::LISTENERS).expect("the directory is ours");
    for threads in [1, 2, 8, 12] {
        let program = PROGRAMS.path("ringway");
        let mut command = as_user(new_user(), &format!("-u {threads}"), program);
        command.args(["serve", "--config"]).arg(&file);
        let (code, text) = finish(&mut command);
        assert_eq!(code, Some(1), "{threads} threads: {text}");
        assert!(text.contains("ringway: the system starts no further thread ("), "{text}");
        assert!(text.contains("TasksMax") && !text.contains("panicked"), "{text}");
    }
}
