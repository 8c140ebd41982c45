//! `[xxim]`: xxim clients (xxim specification section 0.5). Their backends are in [`upstream`].

pub mod push;
pub mod upstream;

use std::path::PathBuf;
use std::time::Duration;

use crate::config::choice::words;
use crate::config::error::{Complaint, ConfigError};
use crate::config::keys::{Key, Section, ValueType, choice, flag, text};
use crate::config::origins;
use crate::config::places::pem;
use crate::config::settings::Settings;
use crate::pem::Wanted;
use crate::wire::origin::{OriginMode, Origins};

/// `xxim.era`: what a client may say of itself (section 0.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XximEra {
    /// Document 2: neither platforms nor device ids are checked, and set-user may come first.
    #[default]
    B,
    /// The last version of the original: 3002 and 3003.
    C,
}

words!(XximEra { B = "B", C = "C" });

/// `xxim.auth_fail`.
#[derive(Clone, Copy, PartialEq)]
enum AuthFail {
    RespondThenClose,
    CloseOnly,
}

words!(AuthFail { RespondThenClose = "respond_then_close", CloseOnly = "close_only" });

/// `xxim.auth_unavailable`.
#[derive(Clone, Copy, PartialEq)]
enum AuthUnavailable {
    Retry,
    Close,
}

words!(AuthUnavailable { Retry = "retry", Close = "close" });

/// `xxim.crypto.iv_mode`.
#[derive(Clone, Copy, PartialEq)]
enum IvMode {
    Client,
    Server,
}

words!(IvMode { Client = "client", Server = "server" });

/// `[xxim]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Xxim {
    pub era: XximEra,
    /// Accept the set-params body of one document on the path of the other (section 2.9).
    pub lenient_params: bool,
    /// Accept path and layout of the era between the documents (section 2.9).
    pub legacy_paths: bool,
    /// Answer set-params and set-user with what they said (section 2.4).
    pub echo_params: bool,
    /// Wrap event 1 into a list for clients of document 1 (section 2.9).
    pub v1_notice_wrap: bool,
    /// Turn `sendMsgList` of document 1 into that of document 2 (section 4.3).
    pub v1_sendmsg_rewrite: bool,
    /// Refused logins are answered before the connection is closed (section 1.8).
    pub respond_then_close: bool,
    /// A verifier that can not be reached closes the connection (section 5.2).
    pub close_when_unavailable: bool,
    /// Log in through the query of the handshake (section 1.1).
    pub query_auth: bool,
    /// Pages whose clients may come in.
    pub allow_origin: Origins,
    /// Bytes of one message of a client.
    pub message_bytes_max: u32,
    /// Bytes of one message to a client.
    pub response_bytes_max: u32,
    /// Requests of one connection that may be under way.
    pub requests_max: u32,
    /// Requests of one shard that may be under way.
    pub shard_requests_max: u32,
    /// Between two pings; zero: none.
    pub ping_interval: Duration,
    /// For the first set-params; zero: no limit.
    pub params_timeout: Duration,
    /// For the first login; zero: no limit.
    pub login_timeout: Duration,
    /// For one write to a client.
    pub write_timeout: Duration,
    /// Without a request over HTTP.
    pub http_idle_timeout: Duration,
    pub tcp: XximTcp,
    pub crypto: XximCrypto,
}

/// `[xxim.tcp]`: the TCP variant (section 7.2).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct XximTcp {
    pub message_bytes_max: u32,
    /// Connections of one shard.
    pub connections_max: u32,
}

/// `[xxim.crypto]` (section 3).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct XximCrypto {
    /// The RSA key; `None`: clients can not encrypt.
    pub private_key: Option<XximKey>,
    /// The server chooses the seed of the IV (section 3.7).
    pub server_iv: bool,
    /// Refuse everything but a set-params with keys until the connection is encrypted.
    pub require_encryption: bool,
    /// Refuse seeds shorter than 16 bytes.
    pub strict_seeds: bool,
    /// Threads that decrypt keys.
    pub threads: u32,
    /// Decryptions of one shard that may be under way.
    pub under_way_max: u32,
    /// Set-params with keys on one connection.
    pub keyed_max: u32,
    /// Decryptions per second of one shard for clients of one address; 0: no limit.
    pub ip_rate: u32,
    /// The same for all clients.
    pub rate: u32,
}

/// Where the RSA key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XximKey {
    /// A PEM file.
    File(PathBuf),
    /// A new one at every start, whose public part the admin server shows.
    Made,
}

const fn off(key: &'static str, what: &'static str) -> Key {
    Key { default: "false", ..flag(key, what) }
}

/// The keys that are no plain limits.
const KEYS: &[Key] = &[
    choice::<XximEra>(
        "xxim.era",
        "\"B\"",
        "What clients may say of themselves. B: as document 2, which checks nothing; C: as the \
         last version of the original, which refuses platforms outside its list (3002), empty \
         device ids (3003) and logins before the parameters.",
    ),
    flag(
        "xxim.lenient_params",
        "Accept the connection parameters of one document on the path of the other.",
    ),
    off(
        "xxim.legacy_paths",
        "Accept the path and the flat layout of connection parameters between the two documents.",
    ),
    off("xxim.echo_params", "Answer connection and user parameters with what they said."),
    off(
        "xxim.v1_notice_wrap",
        "Wrap notices into a list for clients that use the paths of document 1.",
    ),
    flag(
        "xxim.v1_sendmsg_rewrite",
        "Hand sendMsgList requests of document 1 to backends in the layout of document 2.",
    ),
    choice::<AuthFail>(
        "xxim.auth_fail",
        "\"respond_then_close\"",
        "What a client gets whose login is refused.",
    ),
    choice::<AuthUnavailable>(
        "xxim.auth_unavailable",
        "\"retry\"",
        "What a client gets whose login could not be verified: code 8, or the end.",
    ),
    off("xxim.query_auth", "Log clients in by `userId` and `token` in the query of the handshake."),
    origins::key(
        "xxim.allow_origin",
        "Origins of the web pages that may connect, and call methods over HTTP. Empty: no check.",
    ),
    Key {
        kind: ValueType::Texts,
        allowed: "list of addresses and networks, e.g. \"10.0.0.0/8\"",
        ..text("xxim.trusted_proxies", "[]", "Another name of `trust.proxies`, for all protocols.")
    },
    Key {
        allowed: "path of a PEM file (PKCS#8 or PKCS#1), \"generate\", or empty",
        ..text(
            "xxim.crypto.private_key",
            "\"\"",
            "RSA key that clients encrypt their keys for (`ringway keygen xxim` makes one). Empty: \
             clients can not encrypt. generate: a new one at every start, whose public part is \
             at `/demo/xxim.pub.pem` of the admin server.",
        )
    },
    choice::<IvMode>(
        "xxim.crypto.iv_mode",
        "\"client\"",
        "Who chooses the seed of the IV. server: as the last version of the original does.",
    ),
    off(
        "xxim.crypto.require_encryption",
        "Refuse everything on a connection that is not encrypted but the parameters with its keys.",
    ),
    off("xxim.crypto.strict_seeds", "Refuse seeds of keys that are shorter than 16 bytes."),
];

/// The tables of the reference: name, title, what is said above it.
const TITLES: &[(&str, &str, &str)] = &[
    ("xxim", "`[xxim]`", "xxim clients."),
    ("xxim.tcp", "`[xxim.tcp]`", "xxim clients over TCP."),
    ("xxim.crypto", "`[xxim.crypto]`", "Encryption of xxim clients."),
];

/// The section of the tables.
pub(crate) const SECTION: Section = Section { keys: KEYS, lists: &[], titles: TITLES };

/// Reads it.
pub(crate) fn read(settings: &Settings) -> Result<Xxim, ConfigError> {
    let key = |name: &str| format!("xxim.{name}");
    Ok(Xxim {
        era: settings.choice(&key("era"))?,
        lenient_params: settings.flag(&key("lenient_params"))?,
        legacy_paths: settings.flag(&key("legacy_paths"))?,
        echo_params: settings.flag(&key("echo_params"))?,
        v1_notice_wrap: settings.flag(&key("v1_notice_wrap"))?,
        v1_sendmsg_rewrite: settings.flag(&key("v1_sendmsg_rewrite"))?,
        respond_then_close: settings.choice::<AuthFail>(&key("auth_fail"))?
            == AuthFail::RespondThenClose,
        close_when_unavailable: settings.choice::<AuthUnavailable>(&key("auth_unavailable"))?
            == AuthUnavailable::Close,
        query_auth: settings.flag(&key("query_auth"))?,
        allow_origin: origins::read(settings, &key("allow_origin"), OriginMode::Origin)?,
        message_bytes_max: settings.number(&key("message_bytes_max"))?,
        response_bytes_max: settings.number(&key("response_bytes_max"))?,
        requests_max: settings.number(&key("requests_max"))?,
        shard_requests_max: settings.number(&key("shard_requests_max"))?,
        ping_interval: settings.duration(&key("ping_interval"))?,
        params_timeout: settings.duration(&key("params_timeout"))?,
        login_timeout: settings.duration(&key("login_timeout"))?,
        write_timeout: settings.duration(&key("write_timeout"))?,
        http_idle_timeout: settings.duration(&key("http_idle_timeout"))?,
        tcp: XximTcp {
            message_bytes_max: settings.number(&key("tcp.message_bytes_max"))?,
            connections_max: settings.number(&key("tcp.connections_max"))?,
        },
        crypto: crypto(settings)?,
    })
}

fn crypto(settings: &Settings) -> Result<XximCrypto, ConfigError> {
    let key = |name: &str| format!("xxim.crypto.{name}");
    let private_key = settings.text(&key("private_key"))?;
    let require_encryption = settings.flag(&key("require_encryption"))?;
    if require_encryption && private_key.is_empty() {
        let complaint = Complaint::new("clients can not encrypt without a key of the gateway")
            .advise("Set xxim.crypto.private_key; `ringway keygen xxim` makes a key");
        return Err(settings.error(&key("require_encryption"), complaint));
    }
    Ok(XximCrypto {
        private_key: match private_key.as_str() {
            "" => None,
            "generate" => Some(XximKey::Made),
            _ => Some(XximKey::File(pem(settings, &key("private_key"), Wanted::RsaKey)?)),
        },
        server_iv: settings.choice::<IvMode>(&key("iv_mode"))? == IvMode::Server,
        require_encryption,
        strict_seeds: settings.flag(&key("strict_seeds"))?,
        threads: settings.number(&key("threads"))?,
        under_way_max: settings.number(&key("under_way_max"))?,
        keyed_max: settings.number(&key("keyed_max"))?,
        ip_rate: settings.number(&key("ip_rate"))?,
        rate: settings.number(&key("rate"))?,
    })
}
