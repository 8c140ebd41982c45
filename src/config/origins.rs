//! `allow_origin` of every protocol: which web pages may come in ([`Origins`]).

use super::choice::words;
use super::error::{Complaint, ConfigError};
use super::keys::{Key, ValueType, text};
use super::settings::Settings;
use crate::wire::origin::{OriginError, OriginMode, Origins};

words!(OriginMode { Origin = "origin", Contains = "contains" });

/// The row of such a key.
pub(crate) const fn key(key: &'static str, what: &'static str) -> Key {
    Key { kind: ValueType::Texts, allowed: ALLOWED, ..text(key, "[]", what) }
}

const ALLOWED: &str = "list of origins (\"https://example.com\") and hosts (\"example.com\", or \
                       \".example.com\" with its subdomains)";

/// Reads the list of this key.
pub(crate) fn read(
    settings: &Settings,
    key: &str,
    mode: OriginMode,
) -> Result<Origins, ConfigError> {
    let texts = settings.texts(key)?;
    Origins::read(texts.iter().map(String::as_str), mode).map_err(|(text, error)| {
        let allowed = match mode {
            OriginMode::Origin => ALLOWED,
            OriginMode::Contains => "list of texts that are not empty",
        };
        let advice = match error {
            OriginError::Empty => "Remove it; where nothing is to be checked, leave the list empty",
            _ => "Write an origin as browsers send it, in the header Origin",
        };
        let complaint = Complaint::new(format!("{text:?}: {error}"));
        settings.error(key, complaint.allowed(allowed).advise(advice))
    })
}
