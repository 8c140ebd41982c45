//! `[trust]`: whom the gateway believes where a client comes from.

use super::choice::words;
use super::error::{Complaint, ConfigError};
use super::keys::{Key, Section, ValueType, choice, text};
use super::places::networks;
use super::settings::Settings;
use crate::wire::forwarded::{Proxies, Saying};

words!(Saying { Any = "any", XForwardedFor = "x-forwarded-for", Forwarded = "forwarded" });

const PROXIES: &str = "trust.proxies";

const KEYS: &[Key] = &[
    Key {
        kind: ValueType::Texts,
        allowed: "list of addresses and networks, e.g. \"10.0.0.0/8\"",
        ..text(
            PROXIES,
            "[]",
            "Proxies and load balancers in front of the gateway, which say where a client comes \
             from. It has that address in logs, rules, hooks, callbacks and limits.",
        )
    },
    choice::<Saying>(
        "trust.header",
        "\"any\"",
        "The header in which they say it. any: `X-Forwarded-For` if there is one, else \
         `Forwarded`; they have to remove the one that they do not write. If neither says it, \
         `X-Real-IP` does.",
    ),
];

/// The section of the tables.
pub(crate) const SECTION: Section = Section { keys: KEYS, lists: &[], titles: TITLES };

const TITLES: &[(&str, &str, &str)] = &[("trust", "`[trust]`", "")];

/// Reads `[trust]`. `other` is another name of the list.
pub(crate) fn read(settings: &Settings, other: &str) -> Result<Proxies, ConfigError> {
    let saying = settings.choice("trust.header")?;
    let mut trusted = networks(settings, PROXIES)?;
    if settings.is_set(other) {
        let named = networks(settings, other)?;
        if settings.is_set(PROXIES) && named != trusted {
            let complaint = Complaint::new(format!("{PROXIES} says otherwise, for all protocols"));
            return Err(settings.error(other, complaint.advise("Remove one of the two")));
        }
        trusted = named;
    }
    Ok(Proxies { trusted, saying })
}
