//! Limits of IM (IM specification section 15).

use super::Limit;

/// The rows.
pub(super) const ROWS: &[Limit] = &[];
