//! Locked memory: what a gateway needs of it, and whether its user may have so much.
//!
//! The kernel counts it for all processes of a user together, less what is still charged to one
//! that was killed. So the limit alone does not tell; `check` locks as much as will be needed,
//! for a moment.

use std::fmt;

use rustix::process::{Resource, Rlimit};

use super::MachineError;
use crate::config::all::Config;
use crate::engine::driver;
use crate::engine::ring::{Locked, Probe, Settings, SetupError};
use crate::patience::Patience;

/// The user may not lock what the gateway needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Shortage {
    pub need: Need,
    /// Whether this kernel charges rings.
    pub with_rings: bool,
    /// Bytes of `RLIMIT_MEMLOCK`.
    pub limit: u64,
    /// Bytes that the user could lock when asked.
    pub free: u64,
}

/// What a gateway takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    pub shards: u64,
    /// Each of them.
    pub each: Locked,
    /// Its start.
    pub start: Locked,
}

impl Need {
    pub fn of(config: &Config) -> Need {
        let each = Settings::of(&config.runtime).locked() + driver::executor_locked();
        Need { shards: config.runtime.cpus.len() as u64, each, start: Probe::locked() }
    }

    pub fn all(&self) -> Locked {
        self.each.times(self.shards) + self.start
    }

    /// Bytes that the limit must be at the least. glommio refuses to run below a limit of its own.
    pub fn limit_min(&self, with_rings: bool) -> u64 {
        self.all().charged(with_rings).max(driver::EXECUTOR_MEMLOCK_MIN)
    }

    /// The figures, for people.
    pub fn show(&self, with_rings: bool) -> String {
        let kib = |locked: Locked| locked.charged(with_rings).div_ceil(1024);
        let (all, each, start) = (kib(self.all()), kib(self.each), kib(self.start));
        let shards = if self.shards == 1 { "shard needs" } else { "shards need" };
        format!(
            "{} {shards} {all} KiB of locked memory ({each} KiB each, {start} KiB for the start)",
            self.shards
        )
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortage { need, with_rings, limit, free } = self;
        let wanted = need.limit_min(*with_rings);
        let missing = need.all().charged(*with_rings).saturating_sub(*free);
        write!(f, "{}", need.show(*with_rings))?;
        let (limit_kib, free_kib) = (limit / 1024, free / 1024);
        let raise = if *limit < wanted {
            write!(f, ", but RLIMIT_MEMLOCK is {limit_kib} KiB")?;
            wanted
        } else {
            write!(
                f,
                ", but of the {limit_kib} KiB of RLIMIT_MEMLOCK only {free_kib} KiB are left; \
                 other processes of this user have locked the rest"
            )?;
            limit + missing
        };
        let kib = raise.div_ceil(1024);
        write!(
            f,
            ". Raise the limit to {kib} KiB or more (shell: ulimit -l {kib}; systemd: \
             LimitMEMLOCK={kib}K; Docker: --ulimit memlock={}; Kubernetes: LimitMEMLOCK of the \
             container runtime on the node, or the capability IPC_LOCK), or use fewer CPUs \
             (runtime.cpus)",
            kib * 1024
        )
    }
}

/// `RLIMIT_MEMLOCK` in bytes; `u64::MAX` is no limit.
pub fn limit() -> u64 {
    rustix::process::getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX)
}

/// Raises the soft limit to the hard one, and both to what is needed where that is allowed.
pub(super) fn raise_limit(config: &Config) {
    let wanted = Need::of(config).limit_min(true);
    let limit = rustix::process::getrlimit(Resource::Memlock);
    let hard = limit.maximum;
    if hard.is_some_and(|hard| hard < wanted) {
        let both = Rlimit { current: Some(wanted), maximum: Some(wanted) };
        // Refused without CAP_SYS_RESOURCE; what is in force then is what counts.
        if rustix::process::setrlimit(Resource::Memlock, both).is_ok() {
            return;
        }
    }
    if limit.current != hard {
        // Can not fail for want of rights.
        let _ = rustix::process::setrlimit(Resource::Memlock, Rlimit { current: hard, ..limit });
    }
}

/// Not even the probe could be made.
pub(super) fn nothing_left(config: &Config, error: SetupError) -> MachineError {
    let need = Need::of(config);
    match limit() {
        // Then the machine is short of memory.
        u64::MAX => MachineError::Ring(error),
        limit => MachineError::Memory(Shortage { need, with_rings: true, limit, free: 0 }),
    }
}

/// Whether the user may lock what the gateway needs, now or within the patience.
pub(super) fn check(
    probe: &Probe,
    config: &Config,
    patience: Patience,
) -> Result<(), MachineError> {
    let need = Need::of(config);
    // The probe has taken its part.
    let rest = |with_rings| {
        let taken = Probe::taken().charged(with_rings);
        need.all().charged(with_rings).saturating_sub(taken)
    };
    loop {
        let limit = limit();
        if limit < driver::EXECUTOR_MEMLOCK_MIN {
            return Err(Shortage { need, with_rings: true, limit, free: limit }.into());
        }
        if probe.can_lock(rest(true))? {
            return Ok(());
        }
        let with_rings = probe.rings_are_charged(rest(true))?;
        if !with_rings && probe.can_lock(rest(false))? {
            return Ok(());
        }
        if limit < need.all().charged(with_rings) || !patience.pause() {
            let free = probe.lockable(rest(true))? + Probe::taken().charged(with_rings);
            return Err(Shortage { need, with_rings, limit, free }.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    fn need() -> Need {
        let each = Locked { buffers: 192 * KIB, rings: 1200 * KIB };
        Need { shards: 2, each, start: Locked { buffers: 0, rings: 20 * KIB } }
    }

    #[test]
    fn the_need_of_a_start_is_that_of_its_shards_and_its_own() {
        let text = "2 shards need 2804 KiB of locked memory (1392 KiB each, 20 KiB for the start)";
        assert_eq!(need().show(true), text);
        assert_eq!(need().all().charged(false), 384 * KIB);
        // What glommio insists on.
        assert_eq!(need().limit_min(false), 512 * KIB);
    }

    #[test]
    fn a_shortage_names_limit_and_remedy() {
        let shortage =
            Shortage { need: need(), with_rings: true, limit: 1024 * KIB, free: 1000 * KIB };
        let text = shortage.to_string();
        for piece in [
            "RLIMIT_MEMLOCK is 1024 KiB",
            "ulimit -l 2804",
            "LimitMEMLOCK=2804K",
            "--ulimit memlock=2871296",
            "Kubernetes",
        ] {
            assert!(text.contains(piece), "{piece}: {text}");
        }
        assert_eq!(text.matches(". ").count(), 1, "cause and remedy: {text}");
    }

    #[test]
    fn what_other_processes_hold_is_told_apart_from_a_low_limit() {
        let shortage =
            Shortage { need: need(), with_rings: true, limit: 4096 * KIB, free: 2000 * KIB };
        let text = shortage.to_string();
        assert!(
            text.contains("of the 4096 KiB of RLIMIT_MEMLOCK only 2000 KiB are left"),
            "{text}"
        );
        // As much more as is missing.
        assert!(text.contains("ulimit -l 4900"), "{text}");
    }
}
