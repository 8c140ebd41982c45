//! `[login]`: who decides whether clients of xxim and IM are who they say (xxim specification
//! section 5.2, IM specification section 10).
//!
//! Invariant: a configuration that lets everybody in is accepted for loopback only.

use std::path::PathBuf;
use std::time::Duration;

use super::choice::words;
use super::error::{Complaint, ConfigError};
use super::keys::{Key, Section, ValueType, choice, secret, text, url};
use super::model::{ClientProtocol, Listener, Service};
use super::places::base;
use super::places::pem;
use super::settings::Settings;
use crate::pem::Wanted;

/// `[login]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginSettings {
    pub verifier: Verifier,
    /// Time for a call of a backend.
    pub timeout: Duration,
    /// Time for a call of a backend that takes JSON (IM).
    pub json_timeout: Duration,
    /// Logins of one shard that are being verified at the same time.
    pub under_way_max: u32,
}

/// How logins are verified.
#[derive(Clone, PartialEq, Eq)]
pub enum Verifier {
    /// Everybody is let in: demo and development.
    Open,
    /// Users and their tokens.
    Static(Vec<(String, String)>),
    Jwt(Box<Jwt>),
    /// IM: POST of JSON to the URL; xxim: POST of BeforeConnectReq to url/beforeConnect.
    Http(String),
    /// `/pb.imService/BeforeConnect`.
    Grpc(String),
}

/// `[login.jwt]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Jwt {
    pub algorithm: JwtAlgorithm,
    /// Secret of HS256.
    pub secret: String,
    /// Public key of the other algorithms.
    pub key_file: PathBuf,
    /// Claims that hold user, level, nickname, tags, platform and device; empty: there is none.
    pub user_claim: String,
    pub level_claim: String,
    pub nickname_claim: String,
    pub tags_claim: String,
    pub platform_claim: String,
    pub device_claim: String,
    /// Values of `iss` and `aud`; empty: any.
    pub issuer: String,
    pub audience: String,
    /// How far clocks may differ.
    pub leeway: Duration,
}

/// Signature of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtAlgorithm {
    Hs256,
    Rs256,
    Es256,
}

words!(JwtAlgorithm { Hs256 = "HS256", Rs256 = "RS256", Es256 = "ES256" });

/// `login.verifier`.
#[derive(Clone, Copy, PartialEq)]
enum VerifierKind {
    Open,
    Static,
    Jwt,
    Http,
    Grpc,
}

words!(VerifierKind {
    Open = "open",
    Static = "static",
    Jwt = "jwt",
    Http = "http",
    Grpc = "grpc",
});

impl Default for LoginSettings {
    fn default() -> LoginSettings {
        LoginSettings {
            verifier: Verifier::Open,
            timeout: Duration::from_secs(5),
            json_timeout: Duration::from_secs(3),
            under_way_max: 256,
        }
    }
}

/// Without secrets.
impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verifier::Open => f.write_str("Open"),
            Verifier::Static(users) => write!(f, "Static({} users)", users.len()),
            Verifier::Jwt(jwt) => write!(f, "Jwt({:?})", jwt.algorithm),
            Verifier::Http(_) => f.write_str("Http"),
            Verifier::Grpc(_) => f.write_str("Grpc"),
        }
    }
}

/// Without secrets.
impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwt").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

/// The keys that are no plain limits.
const KEYS: &[Key] = &[
    choice::<VerifierKind>(
        "login.verifier",
        "\"open\"",
        "Who verifies clients of xxim and IM. open: nobody, on loopback only; static: \
         `login.tokens`; jwt: signed tokens; http, grpc: the backend at `login.url`.",
    ),
    Key {
        kind: ValueType::Texts,
        allowed: "list of \"user:token\"",
        ..secret("login.tokens", "[]", "Users and their tokens, for `verifier = \"static\"`.")
    },
    Key {
        allowed: "`http://` or `https://` URL, or empty",
        ..url(
            "login.url",
            "\"\"",
            "Backend that verifies. http: IM posts JSON to it, xxim posts a BeforeConnectReq to \
             url/beforeConnect; grpc: `pb.imService`.",
        )
    },
    choice::<JwtAlgorithm>("login.jwt.algorithm", "\"HS256\"", "Signature of tokens."),
    Key {
        allowed: "text of at least 32 bytes",
        ..secret("login.jwt.secret", "\"\"", "Secret of HS256.")
    },
    Key {
        allowed: "path of a PEM file, relative to the working directory",
        ..text("login.jwt.key_file", "\"\"", "Public key of RS256 and ES256.")
    },
    claim(
        "login.jwt.user_claim",
        "\"sub\"",
        "Claim that must be the user id of the client: a text, or a whole number of 64 bits \
         without fraction and exponent.",
    ),
    claim("login.jwt.level_claim", "\"level\"", "Claim with the level of the user, a number."),
    claim("login.jwt.nickname_claim", "\"nickname\"", "Claim with the nickname of the user."),
    claim("login.jwt.tags_claim", "\"tags\"", "Claim with the tags of the user, a list of texts."),
    claim(
        "login.jwt.platform_claim",
        "\"\"",
        "Claim that must be the platform of the client. Empty: any platform.",
    ),
    claim(
        "login.jwt.device_claim",
        "\"\"",
        "Claim that must be the device id of the client. Empty: any device.",
    ),
    Key {
        allowed: "text, or empty",
        ..text("login.jwt.issuer", "\"\"", "What `iss` must be. Empty: anything.")
    },
    Key {
        allowed: "text, or empty",
        ..text("login.jwt.audience", "\"\"", "What `aud` must contain. Empty: anything.")
    },
];

/// The tables of the reference.
const TITLES: &[(&str, &str, &str)] =
    &[("login", "`[login]`", "For clients of xxim and IM."), ("login.jwt", "`[login.jwt]`", "")];

/// The section of the tables.
pub(crate) const SECTION: Section = Section { keys: KEYS, lists: &[], titles: TITLES };

const fn claim(key: &'static str, default: &'static str, what: &'static str) -> Key {
    Key { allowed: "name of a claim, or empty", ..text(key, default, what) }
}

/// Reads it. The listeners tell whether it matters.
pub(crate) fn read(
    settings: &Settings,
    listeners: &[Listener],
) -> Result<LoginSettings, ConfigError> {
    // What is not used is checked as well.
    let leeway = settings.duration("login.jwt.leeway")?;
    let verifier = match settings.choice("login.verifier")? {
        VerifierKind::Open => open(settings, listeners)?,
        VerifierKind::Static => Verifier::Static(tokens(settings)?),
        VerifierKind::Jwt => Verifier::Jwt(Box::new(jwt(settings, leeway)?)),
        VerifierKind::Http => Verifier::Http(base(settings, "login.url")?),
        VerifierKind::Grpc => Verifier::Grpc(base(settings, "login.url")?),
    };
    Ok(LoginSettings {
        verifier,
        timeout: settings.duration("login.timeout")?,
        json_timeout: settings.duration("login.json_timeout")?,
        under_way_max: settings.number("login.under_way_max")?,
    })
}

/// Whether clients log in on this listener.
fn has_login(service: &Service) -> bool {
    match service {
        Service::Http(routes) => routes
            .iter()
            .any(|route| matches!(route.protocol, ClientProtocol::Xxim | ClientProtocol::Im)),
        Service::XximTcp | Service::Im => true,
        _ => false,
    }
}

fn open(settings: &Settings, listeners: &[Listener]) -> Result<Verifier, ConfigError> {
    let outside =
        |listener: &Listener| has_login(&listener.service) && !listener.bind.ip().is_loopback();
    let Some(index) = listeners.iter().position(outside) else { return Ok(Verifier::Open) };
    let complaint = Complaint::new(format!(
        "listener.{index} takes clients of xxim or IM from other machines, and everybody could log \
         in as anybody"
    ));
    let complaint = complaint.allowed("static, jwt, http or grpc, or listeners on loopback");
    let advice = "Choose who verifies clients, e.g. verifier = \"jwt\" with [login.jwt]";
    Err(settings.error("login.verifier", complaint.advise(advice)))
}

fn tokens(settings: &Settings) -> Result<Vec<(String, String)>, ConfigError> {
    const KEY: &str = "login.tokens";
    let mut users: Vec<(String, String)> = Vec::new();
    for (index, line) in settings.texts(KEY)?.iter().enumerate() {
        match line.split_once(':') {
            Some((user, token)) if !user.is_empty() && !token.is_empty() => {
                users.push((user.to_owned(), token.to_owned()));
            }
            _ => {
                return Err(refused(
                    settings,
                    KEY,
                    &format!("number {} is no user:token", index + 1),
                ));
            }
        }
    }
    if users.is_empty() {
        return Err(refused(settings, KEY, "there is no user who could log in"));
    }
    Ok(users)
}

fn refused(settings: &Settings, key: &str, problem: &str) -> ConfigError {
    let allowed = settings.allowed(key);
    settings.error(key, Complaint::new(problem).allowed(allowed))
}

fn jwt(settings: &Settings, leeway: Duration) -> Result<Jwt, ConfigError> {
    let algorithm = settings.choice("login.jwt.algorithm")?;
    let shared = settings.text("login.jwt.secret")?;
    let key_file = match algorithm {
        JwtAlgorithm::Hs256 if shared.len() < 32 => {
            return Err(refused(settings, "login.jwt.secret", "this is too short for HS256"));
        }
        JwtAlgorithm::Hs256 => PathBuf::new(),
        _ => pem(settings, "login.jwt.key_file", Wanted::PublicKey)?,
    };
    let user_claim = settings.text("login.jwt.user_claim")?;
    if user_claim.is_empty() {
        let complaint = Complaint::new("a token must say whose it is").allowed("name of a claim");
        return Err(settings.error("login.jwt.user_claim", complaint));
    }
    Ok(Jwt {
        algorithm,
        secret: shared,
        key_file,
        user_claim,
        level_claim: settings.text("login.jwt.level_claim")?,
        nickname_claim: settings.text("login.jwt.nickname_claim")?,
        tags_claim: settings.text("login.jwt.tags_claim")?,
        platform_claim: settings.text("login.jwt.platform_claim")?,
        device_claim: settings.text("login.jwt.device_claim")?,
        issuer: settings.text("login.jwt.issuer")?,
        audience: settings.text("login.jwt.audience")?,
        leeway,
    })
}
