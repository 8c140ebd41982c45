//! TLS through sockets: clients on `wss`, workers with certificates of their own. What the TLS
//! layer does with single bytes is in `tests/tls.rs`.

use std::io::{Read, Write};
use std::sync::Arc;

use prost::Message;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use ringway::config::all::Config;
use ringway::config::model::TlsFiles;
use ringway::wire::worker::proto;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::common::*;
use crate::support::*;

type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// A certificate for `localhost` in files, and an authority whose clients are welcome.
struct Certificates {
    _directory: TempDir,
    files: TlsFiles,
    server: Certificate,
    authority: Issuer<'static, KeyPair>,
}

fn certificates() -> Certificates {
    let directory = TempDir::new().expect("a directory for temporary files");
    let path = |name: &str| directory.path().join(name);
    let write = |name, pem: String| std::fs::write(path(name), pem).expect("it is ours");
    let key = KeyPair::generate().expect("entropy");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let server = params.self_signed(&key).expect("a valid key");
    write("server.pem", server.pem());
    write("server.key", key.serialize_pem());
    let key = KeyPair::generate().expect("entropy");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    write("clients.pem", params.self_signed(&key).expect("a valid key").pem());
    let files = TlsFiles {
        cert: path("server.pem"),
        key: path("server.key"),
        client_ca: Some(path("clients.pem")),
    };
    let authority = Issuer::new(params, key);
    Certificates { _directory: directory, files, server, authority }
}

impl Certificates {
    fn identity(&self) -> Identity {
        let key = KeyPair::generate().expect("entropy");
        let params = CertificateParams::new(vec!["worker".to_owned()]).expect("a name");
        let cert = params.signed_by(&key, &self.authority).expect("an authority");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        (cert.der().clone(), key)
    }

    /// The configuration with TLS for clients, and with certificates demanded from workers.
    fn config(&self) -> Config {
        let mut config = config();
        config.listeners[CLIENTS].tls = Some(TlsFiles { client_ca: None, ..self.files.clone() });
        config.listeners[WORKERS].tls = Some(self.files.clone());
        config
    }

    fn connect(
        &self,
        server: &Server,
        listener: usize,
        identity: Option<Identity>,
    ) -> StreamOwned<ClientConnection, std::net::TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.server.der().clone()).expect("a certificate");
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                builder.with_client_auth_cert(vec![cert], key).expect("they belong together")
            }
        };
        let name = "localhost".try_into().expect("a name");
        let tls = ClientConnection::new(Arc::new(config), name).expect("a valid configuration");
        StreamOwned::new(tls, connect(server.address(listener)))
    }
}

/// Reads exactly so many bytes.
fn read(stream: &mut impl Read, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).expect("the gateway goes on");
    bytes
}

/// Reads a frame of the business protocol.
fn read_frame(stream: &mut impl Read) -> (u32, Vec<u8>) {
    let len = u32::from_be_bytes(read(stream, 4).try_into().expect("four bytes"));
    let frame = read(stream, len as usize);
    (u32::from_be_bytes(frame[..4].try_into().expect("four bytes")), frame[4..].to_vec())
}

#[test]
fn clients_and_workers_talk_over_tls() {
    let certificates = certificates();
    let server = Server::start(certificates.config());
    let mut worker = certificates.connect(&server, WORKERS, Some(certificates.identity()));
    let register = proto::RegisterReq { events: ALL, ..Default::default() };
    worker.write_all(&framed(cmd::REGISTER, &register)).expect("the gateway reads");
    let (number, body) = read_frame(&mut worker);
    let response = proto::RegisterResp::decode(&*body).expect("a RegisterResp");
    assert_eq!((number, &*response.message), (cmd::REGISTER, "Success"));

    let mut client = certificates.connect(&server, CLIENTS, None);
    let long = "x".repeat(100_000);
    let mut bytes = upgrade_request("/netsvr", "").into_bytes();
    bytes.extend(masked(0x81, long.as_bytes()));
    client.write_all(&bytes).expect("the gateway reads");
    let expected = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
                    Upgrade: websocket\r\n\r\n";
    assert_eq!(read(&mut client, expected.len()), expected.as_bytes());
    let (number, body) = read_frame(&mut worker);
    assert_eq!(number, cmd::CONN_OPEN);
    let id = id_of(&body);
    let (_, body) = read_frame(&mut worker);
    let transfer = proto::Transfer::decode(&*body).expect("a Transfer");
    assert_eq!((&*transfer.uniq_id, transfer.data.len()), (&*id, long.len()));

    // And back, from the worker and from a plain task connection.
    let cast = proto::SingleCast { uniq_id: id.clone(), data: long.clone().into_bytes().into() };
    worker.write_all(&framed(cmd::SINGLE_CAST, &cast)).expect("the gateway reads");
    let frame = read(&mut client, 10 + long.len());
    assert_eq!(frame[..2], [0x81, 127]);
    assert!(frame[10..] == *long.as_bytes());
    let force = proto::ForceOffline { uniq_ids: vec![id.clone()], data: b"bye"[..].into() };
    server.task().send(cmd::FORCE_OFFLINE, &force);
    let frames = read(&mut client, 5 + 16);
    assert_eq!(&frames[..5], b"\x81\x03bye");
    assert_eq!(&frames[5..9], b"\x88\x0e\x03\xf0");
    drop(client);
    let (number, body) = read_frame(&mut worker);
    assert_eq!((number, id_of(&body)), (cmd::CONN_CLOSE, id));
}

#[test]
fn a_worker_without_a_certificate_is_not_served() {
    let certificates = certificates();
    let server = Server::start(certificates.config());
    let mut stranger = certificates.connect(&server, WORKERS, None);
    let register = proto::RegisterReq { events: ALL, ..Default::default() };
    // With TLS 1.3 the client may have finished its handshake before it hears of it.
    let written = stranger.write_all(&framed(cmd::REGISTER, &register));
    let error = match written {
        Ok(()) => stranger.read(&mut [0; 100]).map(drop),
        error => error,
    };
    let error = error.expect_err("an alert");
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    // Nor is one without TLS.
    let mut plain = Business::connect(server.address(WORKERS));
    plain.write(&framed(cmd::REGISTER, &register));
    let answer = read_to_end(&mut plain.socket);
    assert!(answer.len() <= 7, "an alert at the most: {answer:02x?}");
    // Those with one are.
    let mut worker = certificates.connect(&server, WORKERS, Some(certificates.identity()));
    worker.write_all(&framed(cmd::REGISTER, &register)).expect("the gateway reads");
    assert_eq!(read_frame(&mut worker).0, cmd::REGISTER);
}
