//! Signed tokens (RFC 7519): signature, times, issuer and audience, and whose they are.
//!
//! Invariants: the algorithm is the configured one, whatever the token says; a token without an
//! expiry is refused, and so is one with `crit` (RFC 7515 section 4.1.11), as no extension is known
//! here. Why is logged, for each reason once a second at the most, and never what the token says.
//! Costs: one signature per login.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::{EXPIRED, REFUSED, refused};
use crate::config::choice::Choice;
use crate::config::model::{Jwt, JwtAlgorithm};
use crate::hub::login::{Login, Profile, Verdict};
use crate::limits::LOGIN_TAGS_MAX;
use crate::log::{Every, target};
use crate::outside::secrets::same;
use crate::pem::{self, Wanted};
use crate::wire::json;

const LOG_INTERVAL_MS: u64 = 1000;

/// The verifier.
pub(super) struct Tokens {
    key: DecodingKey,
    validation: Validation,
    claims: Jwt,
    log: [Mutex<Every>; REFUSALS],
    started: Instant,
}

/// Why a token lets nobody in. The client is told no more than that it has expired, if it has.
#[derive(Debug, thiserror::Error)]
enum Refusal<'a> {
    #[error("it is no signed token")]
    Shape,
    #[error("its algorithm is not `login.jwt.algorithm`")]
    Algorithm,
    #[error("its header has `crit`, and no extension is known")]
    Critical,
    #[error("its signature is not of the configured key")]
    Signature,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    Early,
    #[error("a claim is missing that it must have: {0}")]
    Missing(String),
    #[error("a claim is not what it must be: {0}")]
    Claim(String),
    #[error("`iss` is not `login.jwt.issuer`")]
    Issuer,
    #[error("`aud` has not `login.jwt.audience`")]
    Audience,
    #[error("the claim {0} is not the user id of the login")]
    User(&'a str),
    #[error("the claim {0} is not the platform of the login")]
    Platform(&'a str),
    #[error("the claim {0} is not the device id of the login")]
    Device(&'a str),
    #[error("it could not be verified")]
    Other,
}

/// Kinds of [`Refusal`].
const REFUSALS: usize = 14;

impl Tokens {
    /// Fails if the key file can not be read or has no such key; says which file and why.
    pub(super) fn new(settings: &Jwt) -> io::Result<Tokens> {
        let name = settings.algorithm.word();
        let file = || {
            let blocks = pem::read(&settings.key_file, Wanted::PublicKey);
            let blocks = blocks.map_err(|error| format!("login.jwt.key_file {error}"));
            // There is one at least.
            blocks.map(|blocks| blocks[0].text()).map_err(io::Error::other)
        };
        let wrong = |_: jsonwebtoken::errors::Error| {
            let file = settings.key_file.display();
            io::Error::other(format!(
                "login.jwt.key_file {file}: the public key in it is damaged or not one of {name}"
            ))
        };
        let (algorithm, key) = match settings.algorithm {
            JwtAlgorithm::Hs256 => {
                (Algorithm::HS256, DecodingKey::from_secret(settings.secret.as_bytes()))
            }
            JwtAlgorithm::Rs256 => {
                (Algorithm::RS256, DecodingKey::from_rsa_pem(file()?.as_bytes()).map_err(wrong)?)
            }
            JwtAlgorithm::Es256 => {
                (Algorithm::ES256, DecodingKey::from_ec_pem(file()?.as_bytes()).map_err(wrong)?)
            }
        };
        let mut validation = Validation::new(algorithm);
        validation.leeway = settings.leeway.as_secs();
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        if !settings.issuer.is_empty() {
            validation.set_issuer(&[&settings.issuer]);
            required.push("iss");
        }
        if settings.audience.is_empty() {
            validation.validate_aud = false;
        } else {
            validation.set_audience(&[&settings.audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        let log = std::array::from_fn(|_| Mutex::new(Every::new(LOG_INTERVAL_MS)));
        Ok(Tokens { key, validation, claims: settings.clone(), log, started: Instant::now() })
    }

    /// Whether the token is that of the client.
    pub(super) fn verify(&self, login: &Login) -> Verdict {
        match self.check(login) {
            Ok(profile) => Verdict::Accepted { profile },
            Err(refusal) => {
                self.tell(login.protocol, &refusal);
                refused(if matches!(refusal, Refusal::Expired) { EXPIRED } else { REFUSED })
            }
        }
    }

    fn check(&self, login: &Login) -> Result<Option<Profile>, Refusal<'_>> {
        let token = &*login.token;
        decode::<IgnoredAny>(token, &self.key, &self.validation).map_err(Refusal::of)?;
        if part(token, 0).ok_or(Refusal::Shape)?.contains_key("crit") {
            return Err(Refusal::Critical);
        }
        let claims = part(token, 1).ok_or(Refusal::Shape)?;
        let bound = |name: &str, value: &str| {
            let claim = claims.get(name).and_then(Value::as_str);
            name.is_empty() || claim.is_some_and(|claim| same(claim, value))
        };
        let names = &self.claims;
        let own = claims.get(&names.user_claim).is_some_and(|claim| is_user(claim, &login.user));
        if !own || login.user.is_empty() {
            return Err(Refusal::User(&names.user_claim));
        }
        if !bound(&names.platform_claim, &login.platform) {
            return Err(Refusal::Platform(&names.platform_claim));
        }
        if !bound(&names.device_claim, &login.device) {
            return Err(Refusal::Device(&names.device_claim));
        }
        Ok(profile(names, &claims))
    }

    fn tell(&self, protocol: &str, refusal: &Refusal<'_>) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let log = &self.log[refusal.number()];
        if let Some(suppressed) = log.lock().unwrap_or_else(PoisonError::into_inner).allow(now_ms) {
            tracing::info!(
                target: target::LOGIN,
                protocol, reason = %refusal, suppressed, "a token was refused"
            );
        }
    }
}

impl Refusal<'_> {
    fn of(error: jsonwebtoken::errors::Error) -> Self {
        match error.into_kind() {
            ErrorKind::InvalidSignature => Refusal::Signature,
            ErrorKind::ExpiredSignature => Refusal::Expired,
            ErrorKind::ImmatureSignature => Refusal::Early,
            ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Refusal::Algorithm,
            // These are names of the validation, not of the token.
            ErrorKind::MissingRequiredClaim(name) => Refusal::Missing(name),
            ErrorKind::InvalidClaimFormat(name) => Refusal::Claim(name),
            ErrorKind::InvalidIssuer => Refusal::Issuer,
            ErrorKind::InvalidAudience => Refusal::Audience,
            ErrorKind::InvalidToken
            | ErrorKind::Base64(_)
            | ErrorKind::Json(_)
            | ErrorKind::Utf8(_) => Refusal::Shape,
            _ => Refusal::Other,
        }
    }

    fn number(&self) -> usize {
        match self {
            Refusal::Shape => 0,
            Refusal::Algorithm => 1,
            Refusal::Critical => 2,
            Refusal::Signature => 3,
            Refusal::Expired => 4,
            Refusal::Early => 5,
            Refusal::Missing(_) => 6,
            Refusal::Claim(_) => 7,
            Refusal::Issuer => 8,
            Refusal::Audience => 9,
            Refusal::User(_) => 10,
            Refusal::Platform(_) => 11,
            Refusal::Device(_) => 12,
            Refusal::Other => 13,
        }
    }
}

/// Whether a claim names this user: as a text, or as a whole number that is written without
/// fraction and exponent and fits 64 bits. Others have no spelling that all libraries share, and
/// two users could be one.
fn is_user(claim: &Value, user: &str) -> bool {
    match claim {
        Value::String(text) => same(text, user),
        Value::Number(number) if number.is_u64() || number.is_i64() => {
            same(&number.to_string(), user)
        }
        _ => false,
    }
}

/// The header (0) or the claims (1) of a token that has been verified.
fn part(token: &str, number: usize) -> Option<Map<String, Value>> {
    let part = token.split('.').nth(number)?;
    match json::tree(&URL_SAFE_NO_PAD.decode(part).ok()?)? {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// What a token tells about its user; `None`: nothing.
fn profile(names: &Jwt, claims: &Map<String, Value>) -> Option<Profile> {
    let level = claims.get(&names.level_claim).and_then(Value::as_u64);
    let nickname = claims.get(&names.nickname_claim).and_then(Value::as_str);
    let tags = claims.get(&names.tags_claim).and_then(Value::as_array);
    if level.is_none() && nickname.is_none() && tags.is_none() {
        return None;
    }
    let tags = tags.into_iter().flatten().filter_map(Value::as_str).take(LOGIN_TAGS_MAX);
    Some(Profile {
        level: level.and_then(|level| u32::try_from(level).ok()).unwrap_or(0),
        nickname: nickname.unwrap_or_default().to_owned(),
        tags: tags.map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_users_as_they_are_written() {
        let claim = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        for (text, user) in [
            ("42", "42"),
            ("\"42\"", "42"),
            ("0", "0"),
            ("-7", "-7"),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
        ] {
            assert!(is_user(&claim(text), user), "{text}");
        }
        for (text, user) in [
            ("42", "042"),
            ("42", "42.0"),
            ("42", ""),
            ("42.0", "42"),
            ("42.0", "42.0"),
            ("1e3", "1000"),
            ("1e3", "1e3"),
            ("-0", "0"),
            ("18446744073709551616", "18446744073709551616"),
            ("18446744073709551616", "18446744073709551615"),
            ("true", "true"),
            ("null", ""),
            ("[42]", "42"),
            ("{}", ""),
        ] {
            assert!(!is_user(&claim(text), user), "{text}");
        }
    }
}
