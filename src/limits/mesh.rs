//! Limits of the mesh.

use super::Limit;

/// The rows.
pub(super) const ROWS: &[Limit] = &[];
