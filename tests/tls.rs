//! TLS: the sans-io server against the client of rustls over a pipe in memory.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use ringway::config::model::TlsFiles;
use ringway::tls_files;
use ringway::wire::tls::{Tls, TlsError};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, RootCertStore,
    ServerConfig, SupportedProtocolVersion,
};
use tempfile::TempDir;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// Files of a listener in a directory of their own.
struct Files {
    directory: TempDir,
    paths: TlsFiles,
}

impl Files {
    fn new(cert: &str, key: &str) -> Files {
        let directory = TempDir::new().unwrap();
        let paths = TlsFiles {
            cert: directory.path().join("server.pem"),
            key: directory.path().join("server.key"),
            client_ca: None,
        };
        fs::write(&paths.cert, cert).unwrap();
        fs::write(&paths.key, key).unwrap();
        Files { directory, paths }
    }

    fn with_client_ca(mut self, pem: &str) -> Files {
        let path = self.directory.path().join("clients.pem");
        fs::write(&path, pem).unwrap();
        self.paths.client_ca = Some(path);
        self
    }

    fn load(&self) -> Arc<ServerConfig> {
        tls_files::load(&self.paths, &[b"http/1.1"]).unwrap()
    }
}

/// A self-signed certificate for `localhost`, and its key.
fn identity() -> (Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap(), key)
}

fn authority() -> (Certificate, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.self_signed(&key).unwrap(), Issuer::new(params, key))
}

/// A certificate of a client, signed by `issuer`.
fn client_identity(
    issuer: &Issuer<'_, KeyPair>,
) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
    let cert = params.signed_by(&key, issuer).unwrap();
    (cert.der().clone(), key_der(&key))
}

fn key_der(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(key.serialize_der()).unwrap()
}

fn client_config(
    trusted: &Certificate,
    version: &'static SupportedProtocolVersion,
    identity: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder.with_client_auth_cert(vec![cert], key).unwrap(),
    }
}

/// The error of the server, and what the client made of its alert.
type Failure = (TlsError, Result<(), Error>);

/// A client and a server with a pipe between them that splits what it carries.
struct Pair {
    client: ClientConnection,
    server: Tls,
    random: fastrand::Rng,
    pieces: Range<usize>,
    /// What the client sent, as the server decrypted it.
    received: Vec<u8>,
    /// What the server sent, as the client decrypted it, and whether that was the end.
    answer: Vec<u8>,
    ended: bool,
}

impl Pair {
    fn new(server: &Arc<ServerConfig>, client: impl Into<Arc<ClientConfig>>) -> Pair {
        let name = "localhost".try_into().unwrap();
        let mut client = ClientConnection::new(client.into(), name).unwrap();
        client.set_buffer_limit(None);
        Pair {
            client,
            server: Tls::new(Arc::clone(server)).unwrap(),
            random: fastrand::Rng::with_seed(7),
            pieces: 1..5000,
            received: Vec::new(),
            answer: Vec::new(),
            ended: false,
        }
    }

    /// A pair with everything usual, after the handshake.
    fn connected(version: &'static SupportedProtocolVersion) -> Pair {
        let (cert, key) = identity();
        let files = Files::new(&cert.pem(), &key.serialize_pem());
        let mut pair = Pair::new(&files.load(), client_config(&cert, version, None));
        pair.pump().unwrap();
        assert!(!pair.server.handshaking() && !pair.client.is_handshaking());
        pair
    }

    fn split<'a>(&mut self, bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut rest = bytes;
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let length = self.random.usize(self.pieces.clone()).min(rest.len());
            pieces.push(&rest[..length]);
            rest = &rest[length..];
        }
        pieces
    }

    /// Carries bytes until both sides are quiet. An error of the server does not keep its alert
    /// from the client.
    fn pump(&mut self) -> Result<(), Box<Failure>> {
        loop {
            let bytes = self.client_bytes();
            let mut result = Ok(());
            for piece in self.split(&bytes) {
                result = result.and_then(|()| self.server.read(piece, &mut self.received));
            }
            let answered = self.carry_back();
            match (result, answered) {
                (Err(error), answered) => return Err(Box::new((error, answered.map(|_| ())))),
                (Ok(()), Err(error)) => panic!("client: {error}"),
                (Ok(()), Ok(0)) if bytes.is_empty() && !self.client.wants_write() => return Ok(()),
                _ => {}
            }
        }
    }

    fn client_bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Hands the output of the server to the client. Returns the number of bytes.
    fn carry_back(&mut self) -> Result<usize, Error> {
        let mut bytes = Vec::new();
        self.server.output(&mut bytes);
        for mut piece in self.split(&bytes) {
            while !piece.is_empty() && self.client.read_tls(&mut piece).unwrap() > 0 {
                self.client.process_new_packets()?;
                match self.client.reader().read_to_end(&mut self.answer) {
                    Ok(_) => self.ended = true,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
        }
        Ok(bytes.len())
    }

    fn send(&mut self, plain: &[u8]) {
        self.client.writer().write_all(plain).unwrap();
    }

    /// Takes what the client decrypted, and whether it saw the end.
    fn answer(&mut self) -> (Vec<u8>, bool) {
        (mem::take(&mut self.answer), self.ended)
    }
}

#[test]
fn echo_survives_any_split() {
    for version in VERSIONS {
        for largest in [1, 2, 7, 100, 40_000] {
            let (cert, key) = identity();
            let files = Files::new(&cert.pem(), &key.serialize_pem());
            let mut pair = Pair::new(&files.load(), client_config(&cert, version, None));
            pair.pieces = 1..largest + 1;
            pair.pump().unwrap();
            for length in [1, 200, 16_384, 16_385, 40_000] {
                let message = Vec::from_iter((0..length).map(|i| i as u8));
                pair.send(&message);
                pair.pump().unwrap();
                assert_eq!(pair.received, message);
                pair.received.clear();
                pair.server.write(&message).unwrap();
                pair.pump().unwrap();
                assert_eq!(pair.answer(), (message, false));
            }
        }
    }
}

#[test]
fn a_mebibyte_goes_both_ways() {
    for version in VERSIONS {
        let mut pair = Pair::connected(version);
        let message = Vec::from_iter((0..1 << 20).map(|i: u32| (i / 251) as u8));
        pair.send(&message);
        pair.pump().unwrap();
        assert!(pair.received == message);
        // Several writes and one output, as a connection does with what it gathered in a turn.
        for chunk in message.chunks(300_000) {
            pair.server.write(chunk).unwrap();
        }
        let bytes = pair.carry_back().unwrap();
        assert!(bytes < message.len() + 70 * 32);
        assert!(pair.answer() == (message, false));
    }
}

#[test]
fn output_is_appended_and_given_out_once() {
    let mut pair = Pair::connected(&TLS13);
    pair.server.write(b"one").unwrap();
    pair.server.write(b"").unwrap();
    let mut out = b"before".to_vec();
    pair.server.output(&mut out);
    assert!(out.starts_with(b"before") && out.len() > 9);
    let length = out.len();
    pair.server.output(&mut out);
    assert_eq!(out.len(), length);
}

#[test]
fn client_certificates_are_required_and_checked() {
    let (cert, key) = identity();
    let (ca, issuer) = authority();
    let (_, stranger) = authority();
    let files = Files::new(&cert.pem(), &key.serialize_pem()).with_client_ca(&ca.pem());
    let config = files.load();
    for version in VERSIONS {
        let good = client_config(&cert, version, Some(client_identity(&issuer)));
        let mut pair = Pair::new(&config, good);
        pair.send(b"hello");
        pair.pump().unwrap();
        assert_eq!(pair.received, b"hello");

        let strange = client_config(&cert, version, Some(client_identity(&stranger)));
        let (error, seen) = *Pair::new(&config, strange).pump().unwrap_err();
        assert!(matches!(error, TlsError::Protocol(Error::InvalidCertificate(_))));
        assert!(matches!(seen, Err(Error::AlertReceived(_))), "{seen:?}");

        let mut pair = Pair::new(&config, client_config(&cert, version, None));
        pair.send(b"hello");
        let (error, seen) = *pair.pump().unwrap_err();
        assert!(matches!(error, TlsError::Protocol(Error::NoCertificatesPresented)));
        assert!(matches!(seen, Err(Error::AlertReceived(_))), "{seen:?}");
        assert_eq!(pair.received, b"");
    }
}

#[test]
fn only_the_listed_application_protocol_is_accepted() {
    let (cert, key) = identity();
    let files = Files::new(&cert.pem(), &key.serialize_pem());
    let config = files.load();
    for version in VERSIONS {
        let offer = |names: &[&[u8]]| {
            let mut client = client_config(&cert, version, None);
            client.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
            Pair::new(&config, client)
        };
        let mut pair = offer(&[b"h2", b"http/1.1"]);
        pair.pump().unwrap();
        assert_eq!(pair.client.alpn_protocol(), Some(&b"http/1.1"[..]));

        let mut pair = offer(&[]);
        pair.pump().unwrap();
        assert_eq!(pair.client.alpn_protocol(), None);

        let (error, seen) = *offer(&[b"h2"]).pump().unwrap_err();
        assert!(matches!(error, TlsError::Protocol(Error::NoApplicationProtocol)));
        let alert = AlertDescription::NoApplicationProtocol;
        assert_eq!(seen, Err(Error::AlertReceived(alert)));
    }
}

fn server() -> Tls {
    let (cert, key) = identity();
    Tls::new(Files::new(&cert.pem(), &key.serialize_pem()).load()).unwrap()
}

#[test]
fn garbage_instead_of_a_client_hello_gets_an_alert() {
    let mut server = server();
    let mut plain = Vec::new();
    let result = server.read(b"GET / HTTP/1.1\r\n\r\n", &mut plain);
    assert!(matches!(result, Err(TlsError::Protocol(Error::InvalidMessage(_)))));
    let mut out = Vec::new();
    server.output(&mut out);
    // Content type alert, any version, two bytes: fatal, decode_error.
    assert_eq!((out[0], out.len(), &out[5..]), (21, 7, &[2, 50][..]));
    assert!(matches!(server.read(b"more", &mut plain), Err(TlsError::Closed)));
    assert!(matches!(server.write(b"more"), Err(TlsError::Closed)));
    server.close_notify();
    out.clear();
    server.output(&mut out);
    assert!(out.is_empty() && plain.is_empty());
}

#[test]
fn no_damage_gets_plaintext_or_panics() {
    let (cert, key) = identity();
    let config = Files::new(&cert.pem(), &key.serialize_pem()).load();
    let clients = VERSIONS.map(|version| Arc::new(client_config(&cert, version, None)));
    for seed in 0..1500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pair = Pair::new(&config, Arc::clone(&clients[seed as usize % 2]));
        pair.send(b"hello");
        let flight = random.usize(0..3);
        for number in 0..3 {
            let mut bytes = pair.client_bytes();
            if number == flight && !bytes.is_empty() {
                damage(&mut random, &mut bytes);
            }
            let pieces = pair.split(&bytes);
            let mut results =
                pieces.into_iter().map(|piece| pair.server.read(piece, &mut pair.received));
            let failed = results.any(|result| result.is_err());
            // A client may well find fault with the answer.
            if pair.carry_back().is_err() || failed {
                break;
            }
        }
        assert!(b"hello".starts_with(&pair.received), "seed {seed}");
    }
}

/// Overwrites a few bytes, inserts some, or cuts some off.
fn damage(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    let at = random.usize(0..bytes.len());
    match random.u8(0..4) {
        0 => bytes[at] = random.u8(..),
        1 => bytes[at..].iter_mut().for_each(|byte| *byte = random.u8(..)),
        2 => drop(bytes.splice(at..at, (0..100).map(|_| random.u8(..)))),
        _ => bytes.truncate(at),
    }
}

#[test]
fn a_truncated_handshake_waits_and_can_be_given_up() {
    let (cert, key) = identity();
    let config = Files::new(&cert.pem(), &key.serialize_pem()).load();
    let hello = Pair::new(&config, client_config(&cert, &TLS13, None)).client_bytes();
    for length in 0..hello.len() {
        let mut server = Tls::new(Arc::clone(&config)).unwrap();
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        server.read(&hello[..length], &mut plain).unwrap();
        assert!(server.handshaking() && !server.peer_closed());
        assert!(matches!(server.write(b"early"), Err(TlsError::Handshaking)));
        server.close_notify();
        server.output(&mut out);
        assert!(out.is_empty() && plain.is_empty());
    }
    let mut server = Tls::new(config).unwrap();
    let (mut plain, mut out) = (Vec::new(), Vec::new());
    server.read(&hello, &mut plain).unwrap();
    server.output(&mut out);
    assert!(server.handshaking() && !out.is_empty());
    assert!(matches!(server.write(b"early"), Err(TlsError::Handshaking)));
}

#[test]
fn a_handshake_message_without_end_is_bounded() {
    // ClientHello of 65,000 bytes in fragments of one byte: six bytes on the wire for each.
    let mut server = server();
    let mut plain = Vec::new();
    let mut sent = 0;
    let message = [1, 0, 0xfd, 0xe8].into_iter().chain(std::iter::repeat(0));
    let error = message
        .map(|byte| {
            sent += 6;
            server.read(&[22, 3, 1, 0, 1, byte], &mut plain)
        })
        .find_map(Result::err)
        .unwrap();
    assert!(matches!(error, TlsError::HandshakeTooLong), "{error}");
    assert!(sent < 66_000, "{sent}");
}

#[test]
fn damage_on_the_wire_is_noticed_and_told() {
    for version in VERSIONS {
        let mut pair = Pair::connected(version);
        pair.send(b"first");
        let mut bytes = pair.client_bytes();
        pair.send(b"second");
        let second = pair.client_bytes();
        let at = bytes.len() + second.len() - 1;
        bytes.extend(second);
        bytes[at] ^= 1;
        let result = pair.server.read(&bytes, &mut pair.received);
        assert!(matches!(result, Err(TlsError::Protocol(Error::DecryptError))));
        assert_eq!(pair.received, b"first");
        let alert = AlertDescription::BadRecordMac;
        assert_eq!(pair.carry_back(), Err(Error::AlertReceived(alert)));
    }
}

#[test]
fn the_end_is_told_in_both_directions() {
    for version in VERSIONS {
        let mut pair = Pair::connected(version);
        pair.send(b"last words");
        pair.client.send_close_notify();
        pair.pump().unwrap();
        assert_eq!(pair.received, b"last words");
        assert!(pair.server.peer_closed());
        pair.server.read(b"ignored", &mut pair.received).unwrap();

        // The other direction is still open.
        pair.server.write(b"answer").unwrap();
        pair.server.close_notify();
        pair.server.close_notify();
        assert!(matches!(pair.server.write(b"no"), Err(TlsError::Closed)));
        pair.pump().unwrap();
        assert_eq!(pair.answer(), (b"answer".to_vec(), true));
        assert_eq!(pair.received, b"last words");
    }
}

#[test]
fn after_our_end_input_is_ignored() {
    let mut pair = Pair::connected(&TLS13);
    pair.server.close_notify();
    assert!(!pair.server.peer_closed());
    pair.server.read(&[0; 1000], &mut pair.received).unwrap();
    pair.send(b"late");
    pair.pump().unwrap();
    assert_eq!(pair.received, b"");
    assert_eq!(pair.answer(), (Vec::new(), true));
}

#[test]
fn the_client_may_change_its_keys() {
    let mut pair = Pair::connected(&TLS13);
    for round in 0..50 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.send(&[round]);
        pair.pump().unwrap();
        // The answer to the key update goes out before this.
        pair.server.write(&[round; 20_000]).unwrap();
        pair.pump().unwrap();
        assert_eq!(pair.answer(), (vec![round; 20_000], false));
    }
    assert_eq!(pair.received, Vec::from_iter(0..50));
    // Changing keys without sending anything is an attack.
    let error = (0..100).find_map(|_| {
        pair.client.refresh_traffic_keys().unwrap();
        let bytes = pair.client_bytes();
        pair.server.read(&bytes, &mut pair.received).err()
    });
    assert!(matches!(error, Some(TlsError::Protocol(Error::PeerMisbehaved(_)))));
}

#[test]
fn a_client_resumes_until_the_files_are_loaded_again() {
    let (cert, key) = identity();
    let files = Files::new(&cert.pem(), &key.serialize_pem());
    let config = files.load();
    for version in VERSIONS {
        let client = Arc::new(client_config(&cert, version, None));
        let kind = |config: &Arc<ServerConfig>| {
            let mut pair = Pair::new(config, Arc::clone(&client));
            pair.send(b"hello");
            pair.pump().unwrap();
            assert_eq!(pair.received, b"hello");
            pair.client.handshake_kind().unwrap()
        };
        assert_eq!(kind(&config), HandshakeKind::Full);
        assert_eq!(kind(&config), HandshakeKind::Resumed);
        assert_eq!(kind(&config), HandshakeKind::Resumed);
        assert_eq!(kind(&files.load()), HandshakeKind::Full);
    }
}
