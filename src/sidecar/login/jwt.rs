//! Signed tokens (RFC 7519): signature, times, issuer and audience, and whose they are.
//!
//! Invariants: the algorithm is the configured one, whatever the token says; a token without an
//! expiry is refused. Costs: one signature per login.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::{EXPIRED, REFUSED, refused, same};
use crate::config::model::{Jwt, JwtAlgorithm};
use crate::hub::login::{Login, Profile, Verdict};
use crate::wire::json;

/// Tags of a user that are kept.
const TAGS_MAX: usize = 64;

/// The verifier.
pub(super) struct Tokens {
    key: DecodingKey,
    validation: Validation,
    claims: Jwt,
}

impl Tokens {
    /// Fails if the key file can not be read or has no such key.
    pub(super) fn new(settings: &Jwt) -> io::Result<Tokens> {
        let file = || {
            std::fs::read(&settings.key_file).map_err(|error| {
                let file = settings.key_file.display();
                io::Error::new(error.kind(), format!("login.jwt.key_file {file}: {error}"))
            })
        };
        let wrong = |error: jsonwebtoken::errors::Error| {
            let file = settings.key_file.display();
            io::Error::other(format!("login.jwt.key_file {file} has no key for it: {error}"))
        };
        let (algorithm, key) = match settings.algorithm {
            JwtAlgorithm::Hs256 => {
                (Algorithm::HS256, DecodingKey::from_secret(settings.secret.as_bytes()))
            }
            JwtAlgorithm::Rs256 => {
                (Algorithm::RS256, DecodingKey::from_rsa_pem(&file()?).map_err(wrong)?)
            }
            JwtAlgorithm::Es256 => {
                (Algorithm::ES256, DecodingKey::from_ec_pem(&file()?).map_err(wrong)?)
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
        Ok(Tokens { key, validation, claims: settings.clone() })
    }

    /// Whether the token is that of the client.
    pub(super) fn verify(&self, login: &Login) -> Verdict {
        let claims = match decode::<IgnoredAny>(&login.token, &self.key, &self.validation) {
            Ok(_) => claims(&login.token).unwrap_or_default(),
            Err(error) if matches!(error.kind(), ErrorKind::ExpiredSignature) => {
                return refused(EXPIRED);
            }
            Err(_) => return refused(REFUSED),
        };
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let bound = |name: &str, value: &str| {
            name.is_empty() || text(name).is_some_and(|claim| same(claim, value))
        };
        let names = &self.claims;
        let own = !login.user.is_empty() && text(&names.user_claim) == Some(&*login.user);
        let here = bound(&names.platform_claim, &login.platform)
            && bound(&names.device_claim, &login.device);
        if !own || !here {
            return refused(REFUSED);
        }
        Verdict::Accepted { profile: profile(names, &claims) }
    }
}

/// What a token claims that has been verified.
fn claims(token: &str) -> Option<Map<String, Value>> {
    let claims = token.split('.').nth(1)?;
    match json::tree(&URL_SAFE_NO_PAD.decode(claims).ok()?)? {
        Value::Object(claims) => Some(claims),
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
    let tags = tags.into_iter().flatten().filter_map(Value::as_str).take(TAGS_MAX);
    Some(Profile {
        level: level.and_then(|level| u32::try_from(level).ok()).unwrap_or(0),
        nickname: nickname.unwrap_or_default().to_owned(),
        tags: tags.map(str::to_owned).collect(),
    })
}
