//! Limits of connmix (connmix specification sections 3 to 5, 8).

use super::Limit;

/// The rows.
pub(super) const ROWS: &[Limit] = &[];
