//! `[mesh]`: several machines as one gateway.

use super::error::ConfigError;
use super::keys::Key;
use super::settings::Settings;

/// The keys that are no plain limits.
pub(super) const KEYS: &[Key] = &[];

/// The tables of the reference: name, title, what is said above it.
pub(super) const TABLES: &[(&str, &str, &str)] = &[];

/// `[mesh]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mesh {}

/// Reads it.
pub(super) fn read(_settings: &Settings) -> Result<Mesh, ConfigError> {
    Ok(Mesh {})
}
