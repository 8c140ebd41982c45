//! `[xxim]`: xxim clients (xxim specification).

use super::error::ConfigError;
use super::keys::Key;
use super::settings::Settings;

/// The keys that are no plain limits.
pub(super) const KEYS: &[Key] = &[];

/// The tables of the reference: name, title, what is said above it.
pub(super) const TABLES: &[(&str, &str, &str)] = &[];

/// `[xxim]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Xxim {}

/// Reads it.
pub(super) fn read(_settings: &Settings) -> Result<Xxim, ConfigError> {
    Ok(Xxim {})
}
