//! A kernel that has no memory for a ring for a moment, as while the page cache fills the machine:
//! the start tries again. A system call filter hands each `io_uring_setup` to the test, which lets
//! it through or answers in the place of the kernel (seccomp_unotify(2)).

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};

use crate::binary::{File, LISTENERS, RINGWAY};
use crate::start::{Killed, sentence};

/// Where the process keeps the descriptor with which its calls are answered.
const LISTENER: RawFd = 200;
/// `SECCOMP_IOCTL_NOTIF_RECV` and `SECCOMP_IOCTL_NOTIF_SEND`.
const RECEIVE: libc::Ioctl = 0xc050_2100u32 as libc::Ioctl;
const ANSWER: libc::Ioctl = 0xc018_2101u32 as libc::Ioctl;
/// glommio asks once in the life of a process which operations there are, with a ring of this size,
/// and keeps a refusal for ever. It has a page for each queue, and pages there are.
const ASKS: u64 = 2;

/// Hands every `io_uring_setup` of the process to whoever has its [`LISTENER`].
fn hand_over(command: &mut Command) {
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let program = [
        step((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0, 0, 0),
        step(
            (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            1,
            0,
            libc::SYS_io_uring_setup as u32,
        ),
        step((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, libc::SECCOMP_RET_ALLOW),
        step((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
    ];
    let install = move || {
        let mut program = program;
        let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
        // SAFETY: the program is there during the call, which copies it.
        let listener = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &filter,
            )
        };
        // SAFETY: the copy is left open for this process and its program.
        if listener < 0 || unsafe { libc::dup2(listener as RawFd, LISTENER) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}

/// Answers the calls of a process until its end. `has_memory` is asked with the number of a call.
fn answer(child: &Child, has_memory: impl Fn(usize) -> bool + Send + 'static) -> Arc<AtomicUsize> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("it is our child");
    let listener = pidfd_getfd(&process, LISTENER, PidfdGetfdFlags::empty()).expect("it is there");
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    std::thread::spawn(move || {
        while let Some(call) = receive(&listener) {
            let counts = call.data.args[0] != ASKS;
            let refused = counts && !has_memory(seen.fetch_add(1, Ordering::SeqCst));
            // SAFETY: all of it may be zero.
            let mut response: libc::seccomp_notif_resp = unsafe { zeroed() };
            response.id = call.id;
            match refused {
                true => response.error = -libc::ENOMEM,
                false => response.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
            }
            // SAFETY: the kernel reads the structure during the call. It fails if the process is
            // gone.
            unsafe { libc::ioctl(listener.as_raw_fd(), ANSWER, &raw const response) };
        }
    });
    calls
}

/// The next call; `None` when the process is gone.
fn receive(listener: &OwnedFd) -> Option<libc::seccomp_notif> {
    loop {
        let mut ready = [PollFd::new(listener, PollFlags::IN)];
        poll(&mut ready, None).ok()?;
        if !ready[0].revents().contains(PollFlags::IN) {
            return None;
        }
        // SAFETY: all of it may be zero, and the kernel requires that.
        let mut call: libc::seccomp_notif = unsafe { zeroed() };
        // SAFETY: the kernel writes the structure during the call.
        if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut call) } == 0 {
            return Some(call);
        }
    }
}

/// A start on one CPU whose rings depend on `has_memory`, and how many it has asked for.
fn start(
    arguments: &[&str],
    has_memory: impl Fn(usize) -> bool + Send + 'static,
) -> (Killed, File, Arc<AtomicUsize>) {
    let cpu = ringway::config::all::Config::demo().runtime.cpus[0];
    let file = File::new(&format!("{LISTENERS}[runtime]\ncpus = \"{cpu}\"\n"));
    let mut command = Command::new(RINGWAY);
    command.args(arguments).arg("--config").arg(file.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    hand_over(&mut command);
    let child = command.spawn().expect("it can be started");
    let calls = answer(&child, has_memory);
    (Killed(child), file, calls)
}

/// How many rings a start on one CPU makes.
fn rings() -> usize {
    let (mut server, _file, calls) = start(&["serve"], |_| true);
    server.await_line("\"message\":\"ready\"");
    calls.load(Ordering::SeqCst)
}

#[test]
fn a_kernel_without_memory_for_a_moment_is_asked_again_whatever_the_ring_is_for() {
    let rings = rings();
    assert!(rings >= 5, "those of the probe, the executor and the shard: {rings}");
    for from in 0..rings {
        let begun = std::sync::OnceLock::new();
        let has_memory = move |call: usize| {
            call < from || begun.get_or_init(Instant::now).elapsed() > Duration::from_millis(200)
        };
        let (mut server, _file, calls) = start(&["serve"], has_memory);
        server.await_line("\"message\":\"ready\"");
        assert!(calls.load(Ordering::SeqCst) > rings, "it was asked again for ring {from}");
        server.signal(Signal::TERM);
        assert_eq!(server.exit_code(), Some(0));
    }
}

#[test]
fn a_kernel_without_memory_for_long_ends_the_start_with_a_sentence() {
    let rings = rings();
    for from in [0, 1, rings - 1] {
        let begun = Instant::now();
        let (mut server, _file, calls) = start(&["serve"], move |call| call < from);
        let (code, text) = server.finish();
        let line = sentence(code, &text);
        // What a limit for locked memory allows may be used up as well.
        let names = ["Cannot allocate memory", "RLIMIT_MEMLOCK"];
        assert!(names.iter().any(|name| line.contains(name)), "{line}");
        // The time that it is tried for at the least.
        assert!(begun.elapsed() >= ringway::limits::RESTART_PATIENCE, "ring {from}: {line}");
        assert!(calls.load(Ordering::SeqCst) > from + 1, "ring {from}: {line}");
    }
}
