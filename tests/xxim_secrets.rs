//! Nothing that is secret is in the log, whatever its level, and what is secret is wiped.
//!
//! One test: it takes the log of the whole process.

mod common;
#[path = "xxim/support.rs"]
mod support;
#[path = "xxim/vectors.rs"]
mod vectors;

use std::io::Write;
use std::sync::{Arc, Mutex};

use ringway::config::all::Config;
use ringway::config::model::Verifier;
use ringway::protocols::xxim::config::push::XximPushService;
use ringway::protocols::xxim::config::upstream::XximHooks;
use ringway::protocols::xxim::wire::cipher::Cipher;
use tracing_subscriber::fmt::MakeWriter;

use common::{Client, Server, wait_until};
use support::{IV_SEED, KEY_SEED, Xxim, config, user_params};
use vectors::vector;

const TOKEN: &str = "token-that-nobody-may-see";
const HEADER: &str = "cookie-that-nobody-may-see";
const BODY: &str = "words-that-nobody-may-see";
const PUSH_SECRET: &str = "push-secret-of-the-backends";
/// Of the seeds of section 3.8.
const KEY: &str = "82599137a1907ce221403cfc29efaab6";
const IV: &str = "e25e3057caa2b787";

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

/// The bytes as `{:?}` of a slice shows them, and in hex.
fn spellings(secret: &[u8]) -> [String; 3] {
    let numbers = format!("{secret:?}");
    [
        String::from_utf8_lossy(secret).into_owned(),
        numbers.trim_matches(['[', ']']).to_owned(),
        secret.iter().map(|byte| format!("{byte:02x}")).collect(),
    ]
}

/// Backends that are not there, and a push service with a secret.
fn settings() -> Config {
    let mut config = config("http://127.0.0.1:9");
    config.login.verifier = Verifier::Http("http://127.0.0.1:9/verify".into());
    config.xxim_upstreams.hooks =
        XximHooks { url: Some("http://127.0.0.1:9/hooks".into()), ..XximHooks::default() };
    config.xxim_upstreams.push = Some(XximPushService {
        bind: "127.0.0.1:0".parse().expect("an address"),
        secret: PUSH_SECRET.into(),
        allow_from: Vec::new(),
        tls: None,
        allow_broadcast: false,
        cluster: false,
        expose_secrets: false,
        request_bytes_max: 1 << 20,
        bounds: Default::default(),
    });
    config.xxim.query_auth = true;
    config
}

/// Everything that is worth a line, by a client that has secrets.
fn complain(server: &Server) {
    let headers = format!("Cookie: {HEADER}\r\n");
    let client = Client::open_with(support::address(server), "/ws", &headers);
    let mut client = Xxim { client, cipher: None };
    assert_eq!(client.client.frame().payload, b"connected");
    client.send_raw(&vector("E01"));
    client.cipher = Some(Cipher::new(KEY_SEED, IV_SEED));
    assert_eq!(client.receive(), vector("E02p"));
    let login = user_params("ann", TOKEN);
    assert_eq!(client.ask("a", "/v1/conn/white/setUserParams", &login).code, 8);
    let data = [&[0x7a, BODY.len() as u8], BODY.as_bytes()].concat();
    assert_eq!(client.ask("b", "/v1/user/white/login", &data).code, 8);
    client.send_raw(b"no ciphertext");
    client.expect_close("C06");
    let target = format!("/ws?userId=ann&token={TOKEN}&platform=web&deviceId=d");
    let mut refused = Client::open(support::address(server), &target);
    assert_eq!(refused.frame().close().0, 3000);
}

#[test]
fn no_seed_key_token_or_secret_is_ever_logged() {
    let log = Log::default();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .init();
    let mut config = settings();
    let server = Server::start(config.clone());
    // Keys, a login that can not be verified, a request that can not be carried, a ciphertext that
    // is none: each of them is worth a line.
    complain(&server);
    // And one that is let in, for the hooks.
    config.login.verifier = Verifier::Open;
    config.xxim_upstreams.push = None;
    let open = Server::start(config);
    let mut client = Xxim::open(&open);
    client.set_params("d");
    let login = user_params("ann", TOKEN);
    assert_eq!(client.ask("u", "/v1/conn/white/setUserParams", &login).code, 0);
    drop(client);
    wait_until("everything that goes wrong is logged", || {
        let lines = ["could not be verified", "upstream call failed", "callback failed"];
        lines.iter().all(|line| log.text().contains(line))
    });
    // A shard complains once a second.
    wait_until("a damaged ciphertext is logged", || {
        let mut client = Xxim::encrypted(&server);
        client.send_raw(b"no ciphertext");
        client.expect_close("C06");
        log.text().contains("not under its keys")
    });
    drop((server, open));
    let text = log.text();
    let secrets = [KEY_SEED, IV_SEED, KEY.as_bytes(), IV.as_bytes()];
    let texts = [TOKEN, HEADER, BODY, PUSH_SECRET].map(str::as_bytes);
    for secret in secrets.into_iter().chain(texts) {
        for spelling in spellings(secret) {
            assert!(!text.contains(&spelling), "{spelling} is in the log");
        }
    }
}
