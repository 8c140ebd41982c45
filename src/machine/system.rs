//! What the kernel says about itself below `/proc` and `/sys`.

use std::str::FromStr;

/// Facts that a start does not depend on. `None`: this kernel does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// `net.core.somaxconn`: connections that may wait to be accepted.
    pub somaxconn: Option<u64>,
    /// `fs.nr_open`: what RLIMIT_NOFILE can be at the most.
    pub nr_open: Option<u64>,
    /// `fs.file-max`: open files of the machine.
    pub file_max: Option<u64>,
    /// The mode of transparent huge pages: always, madvise or never.
    pub huge_pages: Option<String>,
    /// `net.netfilter.nf_conntrack_max`, and how many are tracked now.
    pub conntrack: Option<(u64, u64)>,
}

impl Facts {
    pub fn read() -> Facts {
        const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
        let conntrack = || {
            let max = number("/proc/sys/net/netfilter/nf_conntrack_max")?;
            Some((max, number("/proc/sys/net/netfilter/nf_conntrack_count").unwrap_or(0)))
        };
        Facts {
            somaxconn: number("/proc/sys/net/core/somaxconn"),
            nr_open: number("/proc/sys/fs/nr_open"),
            file_max: number("/proc/sys/fs/file-max"),
            huge_pages: std::fs::read_to_string(HUGE_PAGES).ok().as_deref().and_then(chosen),
            conntrack: conntrack(),
        }
    }
}

fn number<T: FromStr>(path: &str) -> Option<T> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The word in brackets: `always [madvise] never`.
fn chosen(line: &str) -> Option<String> {
    let (_, rest) = line.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// Descriptors that this process has open; those of standard input and output if none is left to
/// find out.
pub(super) fn open_descriptors() -> u64 {
    // Listing them takes one.
    std::fs::read_dir("/proc/self/fd").map_or(3, |entries| entries.count().max(1) as u64 - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_in_brackets_is_the_chosen_one() {
        assert_eq!(chosen("always [madvise] never\n").as_deref(), Some("madvise"));
        assert_eq!(chosen("[always] madvise never").as_deref(), Some("always"));
        assert_eq!(chosen("always"), None);
    }

    #[test]
    fn this_machine_tells_what_every_linux_does() {
        let facts = Facts::read();
        assert!(facts.somaxconn.is_some() && facts.nr_open.is_some() && facts.file_max.is_some());
        assert!((1..100_000).contains(&open_descriptors()));
    }
}
