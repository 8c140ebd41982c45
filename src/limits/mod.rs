//! Limits: queues, buffers, batches, names, timeouts.
//!
//! A protocol has its rows in its folder; [`all`] is the list of all tables, and nothing else here
//! knows a protocol.
//!
//! One row per limit, and nothing else says what a limit is: the configuration parser takes default
//! and bounds from here, the reference in the README is generated from it, and tests walk it. Rows
//! whose key is [`FIXED`] can not be configured; their value is a constant that the code uses.
//!
//! Invariants: `min <= default <= max`; every key occurs once. Costs: none at run time, the table
//! is read while the configuration is.

pub mod all;
mod fixed;
mod login;
mod mesh;
mod runtime;
mod sidecar;

pub use fixed::*;
pub use login::*;
pub use mesh::*;

/// One limit.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Configuration key, or [`FIXED`].
    pub key: &'static str,
    pub unit: Unit,
    pub default: i64,
    pub min: i64,
    pub max: i64,
    /// What the limit is about, in one line.
    pub what: &'static str,
    /// What happens when it is reached; empty if nothing can reach it.
    pub when_hit: &'static str,
    /// Whether SIGHUP applies a change. Today only certificates are read again.
    pub reload: bool,
}

/// What the numbers of a row count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    /// Written as a duration in the configuration: `"100ms"`, `"5s"`, `"2m"`, `"1h"`.
    Milliseconds,
    /// Things of this name, e.g. `frames`.
    Count(&'static str),
    /// A plain number.
    Number,
}

impl Unit {
    /// The value as it is written in a configuration file.
    pub fn show(self, value: i64) -> String {
        match self {
            Unit::Milliseconds => format!("\"{}\"", duration(value)),
            _ => value.to_string(),
        }
    }

    /// The name of the unit; empty where the number speaks for itself.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Bytes => "bytes",
            Unit::Count(name) => name,
            Unit::Milliseconds | Unit::Number => "",
        }
    }
}

/// The key of limits that can not be configured.
pub const FIXED: &str = "-";

pub(crate) const SECOND: i64 = 1000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;
pub(crate) const KIB: i64 = 1024;
pub(crate) const MIB: i64 = 1024 * KIB;
pub(crate) const U32_MAX: i64 = u32::MAX as i64;

/// The row of a configuration key in these tables.
pub fn find(tables: &[&'static [Limit]], key: &str) -> Option<&'static Limit> {
    let mut rows = tables.iter().copied().flatten();
    rows.find(|limit| limit.key == key && key != FIXED)
}

/// A number of milliseconds as the configuration writes it, in the largest unit that divides it.
pub fn duration(milliseconds: i64) -> String {
    match milliseconds {
        0 => "0s".to_owned(),
        ms if ms % HOUR == 0 => format!("{}h", ms / HOUR),
        ms if ms % MINUTE == 0 => format!("{}m", ms / MINUTE),
        ms if ms % SECOND == 0 => format!("{}s", ms / SECOND),
        ms => format!("{ms}ms"),
    }
}

/// A configurable limit; the numbers are default, minimum and maximum.
pub(crate) const fn row(
    key: &'static str,
    unit: Unit,
    [default, min, max]: [i64; 3],
    what: &'static str,
    when_hit: &'static str,
) -> Limit {
    assert!(min <= default && default <= max);
    Limit { key, unit, default, min, max, what, when_hit, reload: false }
}

pub(crate) const fn fixed(
    unit: Unit,
    value: i64,
    what: &'static str,
    when_hit: &'static str,
) -> Limit {
    row(FIXED, unit, [value; 3], what, when_hit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_in_their_largest_unit() {
        let written: Vec<_> = [0, 1, 1500, 2000, 120_000, 7_200_000].map(duration).into();
        assert_eq!(written, ["0s", "1ms", "1500ms", "2s", "2m", "2h"]);
        assert_eq!(Unit::Milliseconds.show(2000), "\"2s\"");
        assert_eq!(Unit::Bytes.show(2000), "2000");
    }
}
