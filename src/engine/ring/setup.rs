//! Making the kernel's ring, and saying what is in the way when it cannot be made.
//!
//! Flags: `SINGLE_ISSUER | DEFER_TASKRUN` (6.1) run completions inside our own `io_uring_enter` and
//! nowhere else; without them the same server was slower than epoll. `TASKRUN_FLAG` (5.19) shows
//! without a system call whether there is anything to run. `SUBMIT_ALL` (5.18) goes on behind a bad
//! entry. `CLAMP` cuts queue sizes to what the kernel allows.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use io_uring::squeue::Flags;
use io_uring::types::BufRingEntry;
use io_uring::{IoUring, types};
use socket2::SockRef;

use super::queue::Queue;
use super::sockets::inline_entry;
use crate::allocator::page_bytes;
use crate::config::model::Runtime;
use crate::engine::ops::Batch;
use crate::limits;

/// Sizes of a ring. Each shard has one.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Operations that fit between two system calls: 1 to 32768, rounded up to a power of two.
    /// More of them cost one more system call, nothing else.
    pub submission_entries: u32,
    /// Completions that the kernel can lay down between two looks: at least `submission_entries`,
    /// cut to what the kernel allows (65536). Overflow loses nothing but ends multishot operations,
    /// which then have to be made again.
    pub completion_entries: u32,
    /// Receive buffers that all connections share: a power of two, at most 32768.
    pub buffers: u16,
    /// Bytes of each receive buffer: 64 to 16 MiB. The most that one `Received` carries.
    pub buffer_bytes: u32,
}

/// Locked memory: what the kernel charges to a user, who may have `RLIMIT_MEMLOCK` of it in all his
/// processes together, unless the process has CAP_IPC_LOCK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Bytes of registered buffers.
    pub buffers: u64,
    /// Bytes of rings, which Linux 6.14 and newer charge as well.
    pub rings: u64,
}

impl Locked {
    /// Bytes that are charged, with or without rings.
    pub fn charged(&self, with_rings: bool) -> u64 {
        self.buffers + if with_rings { self.rings } else { 0 }
    }

    pub fn times(&self, count: u64) -> Locked {
        Locked { buffers: self.buffers * count, rings: self.rings * count }
    }
}

impl std::ops::Add for Locked {
    type Output = Locked;

    fn add(self, other: Locked) -> Locked {
        Locked { buffers: self.buffers + other.buffers, rings: self.rings + other.rings }
    }
}

/// What a ring of these sizes, both powers of two, takes in whole pages: one block for the
/// submissions of 64 bytes, one for a head, the completions of 16 bytes, and an index of 4 bytes
/// for each submission.
pub fn ring_bytes(submission_entries: u32, completion_entries: u32) -> u64 {
    const HEAD: u64 = 320;
    let (submissions, completions) = (u64::from(submission_entries), u64::from(completion_entries));
    let page = page_bytes() as u64;
    (submissions * 64).next_multiple_of(page)
        + (HEAD + completions * 16 + submissions * 4).next_multiple_of(page)
}

/// What the kernel cuts a longer queue of completions to (`IORING_MAX_CQ_ENTRIES`).
const COMPLETION_ENTRIES_MAX: u32 = 65_536;

impl Settings {
    /// Those of a gateway's shards.
    pub fn of(runtime: &Runtime) -> Settings {
        let for_buffers = u32::from(runtime.receive_buffers) * limits::RING_COMPLETIONS_PER_BUFFER;
        Settings {
            submission_entries: limits::RING_SUBMISSION_ENTRIES,
            completion_entries: limits::RING_COMPLETION_ENTRIES
                .max(for_buffers)
                .min(COMPLETION_ENTRIES_MAX),
            buffers: runtime.receive_buffers,
            buffer_bytes: runtime.receive_buffer_bytes,
        }
    }

    /// What a [`Ring`](super::Ring) of these sizes takes of the user's locked memory.
    pub fn locked(&self) -> Locked {
        let group = u64::from(self.buffers) * size_of::<BufRingEntry>() as u64;
        let group = group.next_multiple_of(page_bytes() as u64);
        let rings = ring_bytes(
            self.submission_entries.next_power_of_two(),
            self.completion_entries.next_power_of_two().min(COMPLETION_ENTRIES_MAX),
        );
        Locked { buffers: 0, rings: rings + group }
    }
}

/// How a system call filter is told to let io_uring through.
const SECCOMP: &str = "Allow io_uring_setup, io_uring_enter and io_uring_register (systemd: \
    SystemCallFilter=@aio; Docker: --security-opt seccomp=profile.json with these three, or \
    seccomp=unconfined; Kubernetes: securityContext.seccompProfile of type Localhost with such a \
    profile, or Unconfined)";

/// Why a ring cannot be had. The process cannot work without: it shows the text and exits.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A value of [`Settings`] is out of range.
    #[error("the socket ring cannot be made: {name} is {value}, allowed is {allowed}")]
    Size { name: &'static str, value: u64, allowed: &'static str },
    /// The kernel lacks a feature of 6.1.
    #[error(
        "this kernel ({release}) is too old for the socket ring: {missing} is missing. \
         Linux 6.1 or newer is needed; upgrade the kernel, in a container that of the host"
    )]
    TooOld { release: String, missing: &'static str },
    /// `kernel.io_uring_disabled` is 1 or 2.
    #[error(
        "io_uring is switched off on this machine (kernel.io_uring_disabled = {level}). \
         Allow it, for systemd, Docker and Kubernetes alike on the host or node, with: \
         sysctl -w kernel.io_uring_disabled=0{}",
        if *.level == 1 {
            ", or add this user to the group in kernel.io_uring_group, or run with CAP_SYS_ADMIN"
        } else {
            ""
        }
    )]
    Disabled { level: u32 },
    /// A system call filter answers instead of the kernel.
    #[error(
        "io_uring is forbidden to this process ({call}: {error}), usually by a seccomp profile, as \
         that of Docker and containerd. {SECCOMP}"
    )]
    Forbidden { call: &'static str, error: io::Error },
    /// No such system call.
    #[error(
        "there is no io_uring here ({call}: {error}): a seccomp profile hides it, or this kernel \
         ({release}) was built without CONFIG_IO_URING. {SECCOMP}, or use Linux 6.1 or newer with \
         CONFIG_IO_URING"
    )]
    Missing { release: String, call: &'static str, error: io::Error },
    /// `RLIMIT_MEMLOCK`, the memory limit of a control group, or no memory.
    #[error(
        "not enough memory for the socket ring ({call}: {error}). Raise the limit for locked \
         memory (shell: ulimit -l unlimited; systemd: LimitMEMLOCK=infinity; Docker: \
         --ulimit memlock=-1; Kubernetes: LimitMEMLOCK of the container runtime on the node, or \
         the capability IPC_LOCK) or the memory limit of the container, or use fewer buffers"
    )]
    Memory { call: &'static str, error: io::Error },
    /// `RLIMIT_NOFILE` or `fs.file-max`.
    #[error(
        "no file descriptor is left for the socket ring ({error}). Raise the limit \
         (shell: ulimit -n 1048576; systemd: LimitNOFILE=1048576; Docker: \
         --ulimit nofile=1048576; Kubernetes: LimitNOFILE of the container runtime on the node), \
         and fs.file-max if it is the limit of the machine"
    )]
    Descriptors { error: io::Error },
    /// Inline sends do not work as the ring relies on; see the module documentation.
    #[error(
        "this kernel ({release}) does not treat inline sends as the socket ring needs it: {what}. \
         Use another kernel, and report this one"
    )]
    Unfit { release: String, what: &'static str },
    /// Anything else.
    #[error("the socket ring cannot be made ({call}: {error})")]
    Other { call: &'static str, error: io::Error },
}

impl SetupError {
    /// Whether time can be the remedy: the kernel takes the charge of a killed process back some
    /// 10 ms late, and makes room for queues of many pages when it has none.
    pub fn is_memory(&self) -> bool {
        matches!(self, SetupError::Memory { .. })
    }
}

/// The system calls.
pub(super) const SETUP: &str = "io_uring_setup";
pub(super) const ENTER: &str = "io_uring_enter";
pub(super) const REGISTER: &str = "io_uring_register";

/// Makes the ring, without its buffers.
pub(super) fn build(settings: &Settings) -> Result<IoUring, SetupError> {
    check(settings)?;
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_clamp()
        .setup_cqsize(settings.completion_entries)
        .build(settings.submission_entries)
        .map_err(|error| explain(SETUP, error, &System::read()))?;
    let features = ring.params();
    let needed = [
        (features.is_feature_nodrop(), "IORING_FEAT_NODROP"),
        (features.is_feature_submit_stable(), "IORING_FEAT_SUBMIT_STABLE"),
        (features.is_feature_fast_poll(), "IORING_FEAT_FAST_POLL"),
        (features.is_feature_ext_arg(), "IORING_FEAT_EXT_ARG"),
        (features.is_feature_skip_cqe_on_success(), "IORING_FEAT_CQE_SKIP"),
    ];
    match needed.iter().find(|(present, _)| !present) {
        Some((_, missing)) => Err(SetupError::TooOld { release: System::read().release, missing }),
        None => Ok(ring),
    }
}

/// Tries inline sends on a pair of sockets: one that fits completes silently, one that does not
/// says how much of it did, and then nothing is written behind our back.
pub(super) fn prove(queue: &mut Queue) -> Result<(), SetupError> {
    const LARGE: i32 = 1 << 20;
    let failed = |call| move |error| explain(call, error, &System::read());
    let (socket, _peer) = UnixStream::pair().map_err(failed("socketpair"))?;
    SockRef::from(&socket).set_send_buffer_size(4096).map_err(failed("SO_SNDBUF"))?;
    let target = types::Fd(socket.as_raw_fd());
    let mut attempt = |len: i32| {
        let batch = Batch::Own(vec![0; len as usize]);
        let mut result = None;
        if let Some((entry, _)) = inline_entry(target, &batch, &mut Vec::new()) {
            // SAFETY: the batch is there until the operation is consumed, and over with that.
            unsafe { queue.push(entry.flags(Flags::SKIP_SUCCESS)) };
            queue.enter().map_err(failed(ENTER))?;
            queue.drain(|completion| result = Some(completion.result));
        }
        Ok(result)
    };
    let results = [attempt(16)?, attempt(LARGE)?, attempt(LARGE)?];
    let what = match results {
        [None, Some(1..LARGE), Some(error)] if error == -libc::EAGAIN => return Ok(()),
        [Some(_), ..] => "a send that fits completes with an error or not silently",
        [_, Some(1..LARGE), _] => "a send into a full socket does not fail",
        _ => "a short send does not say how short it is",
    };
    Err(SetupError::Unfit { release: System::read().release, what })
}

fn check(settings: &Settings) -> Result<(), SetupError> {
    let Settings { submission_entries, completion_entries, buffers, buffer_bytes } = *settings;
    let size = |name, value: u32, allowed| {
        Err(SetupError::Size { name, value: u64::from(value), allowed })
    };
    if !(1..=32768).contains(&submission_entries) {
        return size("submission_entries", submission_entries, "1 to 32768");
    }
    if completion_entries < submission_entries {
        return size("completion_entries", completion_entries, "at least submission_entries");
    }
    if !buffers.is_power_of_two() {
        return size("buffers", u32::from(buffers), "a power of two from 1 to 32768");
    }
    if !(64..=1 << 24).contains(&buffer_bytes) {
        return size("buffer_bytes", buffer_bytes, "64 to 16777216");
    }
    Ok(())
}

/// What the machine says about itself, to tell the causes of one error number apart.
pub struct System {
    /// Of the kernel, as `uname -r` shows it.
    pub release: String,
    /// `kernel.io_uring_disabled` (6.6), if there is such a thing.
    pub disabled: Option<u32>,
}

impl System {
    /// Asks the kernel.
    pub fn read() -> System {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
        System { release, disabled: disabled.and_then(|text| text.trim().parse().ok()) }
    }

    /// Major and minor version; 0.0 if the release cannot be read.
    pub fn version(&self) -> (u32, u32) {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
            _ => (0, 0),
        }
    }
}

/// The likely cause of an error that `call` returned.
pub(super) fn explain(call: &'static str, error: io::Error, system: &System) -> SetupError {
    let release = system.release.clone();
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => match system.disabled {
            // The switch concerns new rings only.
            Some(level) if level > 0 && call == SETUP => SetupError::Disabled { level },
            _ => SetupError::Forbidden { call, error },
        },
        Some(libc::ENOSYS) => SetupError::Missing { release, call, error },
        Some(libc::EINVAL) if system.version() < (6, 1) => {
            let missing = "IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN";
            SetupError::TooOld { release, missing }
        }
        Some(libc::ENOMEM) => SetupError::Memory { call, error },
        Some(libc::EMFILE | libc::ENFILE) => SetupError::Descriptors { error },
        _ => SetupError::Other { call, error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(errno: i32, release: &str, disabled: Option<u32>) -> String {
        let system = System { release: release.to_owned(), disabled };
        explain(SETUP, io::Error::from_raw_os_error(errno), &system).to_string()
    }

    #[test]
    fn every_cause_names_its_remedy() {
        let cases = [
            (libc::EPERM, "6.6.1", Some(2), "sysctl -w kernel.io_uring_disabled=0"),
            (libc::EPERM, "6.6.1", Some(1), "kernel.io_uring_group"),
            (libc::EPERM, "6.6.1", Some(0), "seccomp"),
            (libc::EPERM, "6.1.0", None, "seccomp"),
            (libc::ENOSYS, "6.6.1", None, "CONFIG_IO_URING"),
            (libc::EINVAL, "5.15.0-91-generic", None, "Linux 6.1 or newer"),
            (libc::EINVAL, "6.6.1", Some(0), "io_uring_setup: Invalid argument"),
            (libc::ENOMEM, "6.6.1", Some(0), "ulimit -l"),
            (libc::EMFILE, "6.6.1", Some(0), "ulimit -n"),
            (libc::ENFILE, "6.6.1", Some(0), "fs.file-max"),
        ];
        for (errno, release, disabled, remedy) in cases {
            let text = text(errno, release, disabled);
            assert!(text.contains(remedy), "{errno} on {release}: {text}");
        }
    }

    #[test]
    fn disabled_for_all_does_not_advise_a_group() {
        assert!(!text(libc::EPERM, "6.6.1", Some(2)).contains("io_uring_group"));
    }

    #[test]
    fn releases_compare_as_numbers() {
        let version =
            |release: &str| System { release: release.to_owned(), disabled: None }.version();
        assert_eq!(version("6.18.44-generic"), (6, 18));
        assert_eq!(version("6.1"), (6, 1));
        assert_eq!(version("10.0.0"), (10, 0));
        assert_eq!(version("odd"), (0, 0));
    }
}
