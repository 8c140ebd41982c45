//! `[connmix]`: connmix backends (connmix specification).

use super::error::ConfigError;
use super::keys::Key;
use super::settings::Settings;

/// The keys that are no plain limits.
pub(super) const KEYS: &[Key] = &[];

/// The tables of the reference: name, title, what is said above it.
pub(super) const TABLES: &[(&str, &str, &str)] = &[];

/// `[connmix]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Connmix {}

/// Reads it.
pub(super) fn read(_settings: &Settings) -> Result<Connmix, ConfigError> {
    Ok(Connmix {})
}
