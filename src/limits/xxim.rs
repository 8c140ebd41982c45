//! Limits of xxim (xxim specification sections 1 to 4).

use super::Limit;

/// The rows.
pub(super) const ROWS: &[Limit] = &[];
