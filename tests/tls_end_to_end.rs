//! TLS through real sockets: `wss` clients with two client libraries, workers with certificates,
//! a reload, and how sessions end. What is done with single bytes is in `tests/tls.rs`.

mod common;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use common::*;
use prost::Message as _;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use ringway::config::all::Config;
use ringway::config::model::{Listener, ProxyProtocol, Service, TlsFiles};
use ringway::wire::network::Network;
use ringway::wire::websocket::mask_frame;
use ringway::wire::worker::proto;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);
type Stream = StreamOwned<ClientConnection, std::net::TcpStream>;

const LARGE: usize = 1 << 20;

/// Certificates in files, and an authority whose workers are let in.
struct Certificates {
    directory: TempDir,
    server: Certificate,
    workers: Issuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Certificates {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).expect("a valid key");
        let directory = TempDir::new().expect("a directory for temporary files");
        std::fs::write(directory.path().join("workers.pem"), authority.pem()).expect("ours");
        let server = server_certificate(&directory);
        Certificates { directory, server, workers: Issuer::new(params, key) }
    }

    /// Writes a new certificate over the old one.
    fn replace(&mut self) {
        self.server = server_certificate(&self.directory);
    }

    fn files(&self, mutual: bool) -> TlsFiles {
        let path = |name| self.directory.path().join(name);
        let client_ca = mutual.then(|| path("workers.pem"));
        TlsFiles { cert: path("server.pem"), key: path("server.key"), client_ca }
    }

    fn config(&self) -> Config {
        let mut config = config();
        config.listeners[CLIENTS].tls = Some(self.files(false));
        config.listeners[WORKERS].tls = Some(self.files(true));
        config
    }

    /// A certificate for a worker, signed by the authority.
    fn identity(&self) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["worker".to_owned()]).expect("a name");
        let cert = params.signed_by(&key, &self.workers).expect("an authority");
        (cert.der().clone(), private(&key))
    }

    /// Trusts the present certificate only.
    fn client_config(&self, identity: Option<Identity>, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.server.der().clone()).expect("a certificate");
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("rustls has some")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => builder.with_client_auth_cert(vec![cert], key).expect("a pair"),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    fn stream(&self, server: &Server, listener: usize, identity: Option<Identity>) -> Stream {
        stream(server, listener, self.client_config(identity, &["http/1.1"]))
    }
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(key.serialize_der()).expect("a key")
}

fn server_certificate(directory: &TempDir) -> Certificate {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let cert = params.self_signed(&key).expect("a valid key");
    let write = |name, text| std::fs::write(directory.path().join(name), text).expect("ours");
    write("server.pem", cert.pem());
    write("server.key", key.serialize_pem());
    cert
}

fn stream(server: &Server, listener: usize, config: Arc<ClientConfig>) -> Stream {
    let name = "localhost".try_into().expect("a name");
    let connection = ClientConnection::new(config, name).expect("a configuration");
    StreamOwned::new(connection, connect(server.address(listener)))
}

fn exactly(stream: &mut Stream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).expect("the gateway writes");
    bytes
}

/// Upgrades; the response head is read to its end and not further.
fn upgrade(mut stream: Stream) -> Stream {
    stream.write_all(upgrade_request("/netsvr", "").as_bytes()).expect("the gateway reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(exactly(&mut stream, 1));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

/// The next WebSocket frame: first byte and payload.
fn frame(stream: &mut Stream) -> (u8, Vec<u8>) {
    let head = exactly(stream, 2);
    let len = match head[1] {
        126 => u16::from_be_bytes(exactly(stream, 2).try_into().expect("two bytes")) as usize,
        127 => u64::from_be_bytes(exactly(stream, 8).try_into().expect("eight bytes")) as usize,
        len => len as usize,
    };
    (head[0], exactly(stream, len))
}

/// The next frame of the business protocol.
fn business(stream: &mut Stream) -> (u32, Vec<u8>) {
    let number = |bytes: Vec<u8>| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    let len = number(exactly(stream, 4)) as usize;
    let cmd = number(exactly(stream, 4));
    (cmd, exactly(stream, len - 4))
}

fn send(stream: &mut Stream, cmd: u32, message: &impl prost::Message) {
    let frame = business_frame(cmd, &message.encode_to_vec());
    stream.write_all(&frame).expect("the gateway reads");
}

/// A registered worker with a certificate.
fn worker(certificates: &Certificates, server: &Server, events: i32) -> Stream {
    let mut worker = certificates.stream(server, WORKERS, Some(certificates.identity()));
    send(&mut worker, cmd::REGISTER, &proto::RegisterReq { events, ..Default::default() });
    let (number, body) = business(&mut worker);
    assert_eq!(number, cmd::REGISTER);
    assert_eq!(proto::RegisterResp::decode(&*body).map(|answer| answer.code), Ok(0));
    worker
}

#[test]
fn large_messages_go_both_ways_between_an_encrypted_client_and_an_encrypted_worker() {
    let certificates = Certificates::new();
    let server = Server::start(certificates.config());
    let mut worker = worker(&certificates, &server, 4);
    let mut client = upgrade(certificates.stream(&server, CLIENTS, None));
    for round in 0..3u8 {
        let text = vec![b'a' + round; LARGE + round as usize];
        client.write_all(&mask_frame(0x81, [1, 2, 3, 4], &text)).expect("the gateway reads");
        let (number, body) = business(&mut worker);
        assert_eq!(number, cmd::TRANSFER);
        let transfer = proto::Transfer::decode(&*body).expect("it decodes");
        assert!(transfer.data == text, "the message arrives unchanged");
        let data = text.iter().rev().map(|byte| byte.to_ascii_uppercase()).collect::<Vec<_>>();
        let answer = proto::SingleCast { uniq_id: transfer.uniq_id, data: data.clone().into() };
        send(&mut worker, cmd::SINGLE_CAST, &answer);
        let (first, payload) = frame(&mut client);
        assert!(first == 0x81 && payload == data, "the answer arrives unchanged");
    }
}

#[test]
fn a_client_library_talks_wss() {
    let certificates = Certificates::new();
    let server = Server::start(certificates.config());
    let stream = certificates.stream(&server, CLIENTS, None);
    let (mut client, _) =
        tungstenite::client("wss://localhost/echo", stream).expect("the gateway upgrades");
    for len in [0, 1, 125, 126, 65_535, 65_536, LARGE, 8 * LARGE] {
        let message = tungstenite::Message::binary(vec![b'z'; len]);
        client.send(message.clone()).expect("the gateway reads");
        assert!(client.read().expect("the gateway answers") == message, "{len} bytes");
    }
    client.close(None).expect("it is open");
    let end = loop {
        match client.read() {
            Ok(tungstenite::Message::Close(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(end, tungstenite::Error::ConnectionClosed), "{end}");
}

/// Sends and expects nothing but the end, by an alert or by the end of the stream.
fn expect_refusal(mut stream: Stream) {
    let register = proto::RegisterReq { events: 7, ..Default::default() };
    let bytes = business_frame(cmd::REGISTER, &register.encode_to_vec());
    let written = stream.write_all(&bytes);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    assert!(written.is_err() || read.is_err(), "it was let in");
    assert!(answer.is_empty(), "{answer:?}");
}

#[test]
fn workers_without_the_right_certificate_are_not_let_in() {
    let certificates = Certificates::new();
    let server = Server::start(certificates.config());
    expect_refusal(certificates.stream(&server, WORKERS, None));
    let stranger = Certificates::new().identity();
    expect_refusal(certificates.stream(&server, WORKERS, Some(stranger)));
    let mut plain = Business::connect(server.address(WORKERS));
    let register = proto::RegisterReq { events: 7, ..Default::default() };
    plain.write(&business_frame(cmd::REGISTER, &register.encode_to_vec()));
    let mut answer = Vec::new();
    // Either way the connection is over; an alert is all that may come.
    let _ = plain.socket.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    let _ = worker(&certificates, &server, 7);
}

#[test]
fn a_plain_client_on_an_encrypted_port_gets_an_alert_and_the_end() {
    let certificates = Certificates::new();
    let server = Server::start(certificates.config());
    let mut client = Client::tcp(server.address(CLIENTS));
    client.write(upgrade_request("/netsvr", "").as_bytes());
    let answer = client.rest();
    // A fatal alert record, and not a word of HTTP.
    assert_eq!((answer[0], answer.len(), answer[5]), (21, 7, 2), "{answer:?}");
    upgrade(certificates.stream(&server, CLIENTS, None));
}

#[test]
fn new_certificates_are_for_new_connections_and_old_ones_live_on() {
    let mut certificates = Certificates::new();
    let server = Server::start(certificates.config());
    let mut worker = worker(&certificates, &server, 4);
    let mut old = upgrade(certificates.stream(&server, CLIENTS, None));
    let old_config = certificates.client_config(None, &[]);
    certificates.replace();
    server.gateway().reload_certificates().expect("the files are good");
    // Each shard learns of it by mail; the connections go to either.
    let trusted = certificates.client_config(None, &[]);
    let handshake = |config: &Arc<ClientConfig>| {
        let mut stream = stream(&server, CLIENTS, config.clone());
        let Stream { conn, sock } = &mut stream;
        conn.complete_io(sock).is_ok()
    };
    wait_until("20 connections with the new certificate", || (0..20).all(|_| handshake(&trusted)));
    assert!(!handshake(&old_config), "who trusts the old one only finds it no more");
    old.write_all(&mask_frame(0x81, [1, 2, 3, 4], b"still here")).expect("the gateway reads");
    let (_, body) = business(&mut worker);
    let transfer = proto::Transfer::decode(&*body).expect("a Transfer");
    assert_eq!(&*transfer.data, b"still here");
    let data = b"so am I"[..].into();
    let answer = proto::SingleCast { uniq_id: transfer.uniq_id, data };
    send(&mut worker, cmd::SINGLE_CAST, &answer);
    assert_eq!(frame(&mut old), (0x81, b"so am I".to_vec()));
}

#[test]
fn a_reload_of_bad_files_changes_nothing() {
    let certificates = Certificates::new();
    let server = Server::start(certificates.config());
    std::fs::write(certificates.directory.path().join("server.key"), "no key").expect("ours");
    let error = server.gateway().reload_certificates().expect_err("there is no key");
    assert!(error.to_string().contains("server.key"), "{error}");
    upgrade(certificates.stream(&server, CLIENTS, None));
}

/// The times of a protocol run from the end of the handshake, not from the start of the gateway.
#[test]
fn a_slow_handshake_with_an_old_gateway_is_waited_for() {
    let certificates = Certificates::new();
    let mut config = certificates.config();
    let xxim = config.listeners.len();
    let (bind, tls) = (config.listeners[0].bind, Some(certificates.files(false)));
    config.listeners.push(Listener {
        bind,
        proxy: ProxyProtocol::Off,
        socket: None,
        tls,
        service: Service::XximTcp,
    });
    config.xxim.params_timeout = Duration::from_millis(200);
    config.xxim.login_timeout = Duration::from_millis(200);
    let server = Server::start(config);
    // Older than the time for the parameters, and the handshake begins late as well.
    std::thread::sleep(Duration::from_millis(300));
    let mut client = certificates.stream(&server, xxim, None);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(exactly(&mut client, 17), b"\x09\0\0\0\x01\0\0\0connected");
    // From now on they do.
    assert!(client.read(&mut [0]).is_ok_and(|count| count == 0), "closed with close_notify");
}

/// The load balancer says it before the client says anything.
#[test]
fn a_proxy_header_stands_before_the_handshake() {
    let certificates = Certificates::new();
    let mut config = certificates.config();
    config.listeners[CLIENTS].proxy = ProxyProtocol::Require;
    config.trust.trusted.push(Network::parse("127.0.0.1").expect("an address"));
    let server = Server::start(config);
    let mut worker = worker(&certificates, &server, 7);
    let name = "localhost".try_into().expect("a name");
    let client = certificates.client_config(None, &["http/1.1"]);
    let connection = ClientConnection::new(client, name).expect("a configuration");
    let mut socket = connect(server.address(CLIENTS));
    socket.write_all(b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n").expect("it reads");
    let client = upgrade(StreamOwned::new(connection, socket));
    let (number, body) = business(&mut worker);
    assert_eq!(number, cmd::CONN_OPEN);
    let open = proto::ConnOpen6::decode(&*body).expect("it decodes");
    assert_eq!(open.remote_addr, "203.0.113.7");
    drop(client);
}

/// Without the alert `close_notify` a client can not tell an end from a cut cable.
#[test]
fn encrypted_streams_end_with_close_notify() {
    let certificates = Certificates::new();
    let server = Server::start(certificates.config());
    let end = |mut stream: Stream, what: &str| {
        let mut rest = Vec::new();
        let result = stream.read_to_end(&mut rest);
        assert!(result.is_ok(), "{what}: {result:?}");
        rest
    };
    let mut client = upgrade(certificates.stream(&server, CLIENTS, None));
    client.write_all(&mask_frame(0x88, [1, 2, 3, 4], &1000u16.to_be_bytes())).expect("it reads");
    assert_eq!(frame(&mut client), (0x88, 1000u16.to_be_bytes().to_vec()));
    assert_eq!(end(client, "after the close handshake"), b"");
    let mut client = upgrade(certificates.stream(&server, CLIENTS, None));
    client.write_all(&[0xff; 8]).expect("it reads");
    assert_eq!(frame(&mut client).1[..2], 1002u16.to_be_bytes());
    assert_eq!(end(client, "after a violation"), b"");
    let mut client = certificates.stream(&server, CLIENTS, None);
    client.write_all(b"GET /nowhere HTTP/1.1\r\nHost: test\r\n\r\n").expect("it reads");
    assert!(!end(client, "after a refused upgrade").is_empty());
    let worker = worker(&certificates, &server, 7);
    let mut client = upgrade(certificates.stream(&server, CLIENTS, None));
    let waiting = std::thread::spawn(move || {
        let goodbye = frame(&mut client);
        assert_eq!(goodbye.1[..2], 1001u16.to_be_bytes());
        client.write_all(&mask_frame(0x88, [1, 2, 3, 4], &goodbye.1)).expect("it reads");
        client
    });
    assert!(server.stop(), "drained in time");
    end(waiting.join().expect("the client was told"), "after a shutdown");
    end(worker, "of a worker after a shutdown");
}

#[test]
fn http_1_1_is_chosen_and_nothing_else() {
    let certificates = Certificates::new();
    let server = Server::start(certificates.config());
    for (offered, chosen) in [
        (&["http/1.1"][..], Some(&b"http/1.1"[..])),
        (&["h2", "http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let config = certificates.client_config(None, offered);
        let client = upgrade(stream(&server, CLIENTS, config));
        assert_eq!(client.conn.alpn_protocol(), chosen, "{offered:?}");
    }
    let mut client = stream(&server, CLIENTS, certificates.client_config(None, &["h2"]));
    assert!(client.read(&mut [0]).is_err(), "HTTP/2 only is refused");
}
