//! The list of all limits: the tables of the process and those of the protocols.

use super::{Limit, fixed, login, mesh, runtime, sidecar};
use crate::protocols::connmix::limits as connmix;
use crate::protocols::im::limits as im;
use crate::protocols::netsvr::limits as netsvr;
use crate::protocols::xxim::limits as xxim;

/// The rows of every area, in the order of the reference.
pub(crate) const TABLES: &[&[Limit]] = &[
    runtime::ROWS,
    netsvr::ROWS,
    xxim::CLIENTS,
    sidecar::ROWS,
    xxim::UPSTREAMS,
    login::ROWS,
    connmix::API,
    connmix::CLIENTS,
    im::ROWS,
    mesh::ROWS,
    xxim::HEADS,
    login::FIXED,
    connmix::TABLES,
    xxim::TABLES,
    fixed::PEERS,
    netsvr::ANSWERS,
    fixed::WAITING,
    netsvr::KICKS,
    connmix::UNDER_WAY,
    fixed::PROCESS,
];

/// Every limit of the process.
pub fn rows() -> impl Iterator<Item = &'static Limit> + Clone {
    TABLES.iter().flat_map(|rows| rows.iter())
}

/// The row of a configuration key.
pub fn find(key: &str) -> Option<&'static Limit> {
    super::find(TABLES, key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::FIXED;

    #[test]
    fn every_key_has_one_row() {
        for (index, limit) in rows().enumerate() {
            let twin = rows().take(index).find(|l| l.key == limit.key && l.key != FIXED);
            assert!(twin.is_none(), "{} has two rows", limit.key);
            assert!(limit.what.ends_with('.'), "{}: {}", limit.key, limit.what);
        }
        assert!(find(FIXED).is_none());
        assert_eq!(find("node").map(|limit| limit.max), Some(1023));
    }
}
