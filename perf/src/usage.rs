//! What a process has used, from `/proc`: CPU time of its threads and resident memory.
//!
//! CPU time is that of the scheduler (`schedstat`, nanoseconds), brought up to date at each tick
//! and each switch, so over a second it is right within one percent. The share of user space comes
//! from `stat`, which samples at ticks: it needs some seconds to be right.

use std::fs;
use std::io;

/// CPU time of a process since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Threads named `shard-*`, and the kernel's workers for their rings. For a process without
    /// such threads: all of them.
    pub shards_ns: u64,
    /// All other threads.
    pub others_ns: u64,
    /// Time of the shards in user space and in the kernel, in clock ticks.
    pub user_ticks: u64,
    pub system_ticks: u64,
}

impl Usage {
    /// Reads the usage of a process.
    ///
    /// # Errors
    /// The process does not exist, or belongs to somebody else.
    pub fn of(pid: u32) -> io::Result<Usage> {
        let mut usage = Usage::default();
        let mut named = false;
        let threads = threads(pid)?;
        for thread in &threads {
            let ours = thread.name.starts_with("shard-") || thread.name.starts_with("iou-");
            named |= thread.name.starts_with("shard-");
            if ours {
                usage.add(thread);
            } else {
                usage.others_ns += thread.cpu_ns;
            }
        }
        if !named {
            usage = Usage::default();
            threads.iter().for_each(|thread| usage.add(thread));
        }
        Ok(usage)
    }

    fn add(&mut self, thread: &Thread) {
        self.shards_ns += thread.cpu_ns;
        self.user_ticks += thread.user_ticks;
        self.system_ticks += thread.system_ticks;
    }

    /// What was used since `earlier`.
    pub fn since(&self, earlier: &Usage) -> Usage {
        Usage {
            shards_ns: self.shards_ns.saturating_sub(earlier.shards_ns),
            others_ns: self.others_ns.saturating_sub(earlier.others_ns),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
        }
    }

    /// Share of user space in the CPU time of the shards; 0 if there was none.
    pub fn user_share(&self) -> f64 {
        let ticks = self.user_ticks + self.system_ticks;
        if ticks == 0 { 0.0 } else { self.user_ticks as f64 / ticks as f64 }
    }
}

/// One thread of a process.
#[derive(Clone, Debug)]
pub struct Thread {
    pub id: u32,
    pub name: String,
    pub cpu_ns: u64,
    pub user_ticks: u64,
    pub system_ticks: u64,
}

/// All threads of a process; one that ends while they are read is left out.
pub fn threads(pid: u32) -> io::Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        let id = path.file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap_or(0);
        let read = |file: &str| fs::read_to_string(path.join(file)).unwrap_or_default();
        let (name, times, stat) = (read("comm"), read("schedstat"), read("stat"));
        let cpu_ns = times.split_whitespace().next().and_then(|text| text.parse().ok());
        // The fields follow the name, which is in parentheses and may contain anything.
        let fields: Vec<&str> =
            stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field).and_then(|text| text.parse().ok());
        if let (Some(cpu_ns), Some(user_ticks), Some(system_ticks)) = (cpu_ns, ticks(11), ticks(12))
        {
            let name = name.trim().to_owned();
            threads.push(Thread { id, name, cpu_ns, user_ticks, system_ticks });
        }
    }
    Ok(threads)
}

/// Resident bytes of a process. Counted page by page: the cheap counters of `status` are off by up
/// to some hundred pages.
pub fn resident(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")).map(str::trim);
    let kib: u64 = kib.and_then(|kib| kib.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_process_uses_time_and_memory() {
        let pid = std::process::id();
        let before = Usage::of(pid).expect("this process exists");
        let began = std::time::Instant::now();
        while began.elapsed().as_millis() < 50 {
            std::hint::spin_loop();
        }
        let used = Usage::of(pid).expect("this process exists").since(&before);
        assert!(used.shards_ns + used.others_ns > 1_000_000, "{used:?}");
        assert!(resident(pid).expect("this process exists") > 100_000);
    }
}
