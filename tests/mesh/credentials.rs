//! How a node logs in to NATS, and what it says when it may not.

use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::binary::{Binary, File, LISTENERS, serve};
use crate::common::*;
use crate::nats::Nats;

const CREDENTIALS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/mesh/user.creds");
const OPERATOR: &str = include_str!("../vectors/mesh/server.conf");
const WRONG: &str = "wr0ng-secret";

/// Every node of these tests has a number of its own.
static NODE: AtomicU16 = AtomicU16::new(1);

/// A node with these keys of `[mesh]`, which logs as much as it can.
fn node(url: &str, keys: &str) -> Binary {
    let text = LISTENERS.replace("[log]", "[log]\nfilter = \"debug\"");
    let file = File::new(&format!("{text}\n[mesh]\nnats = [\"{url}\"]\n{keys}\n"));
    let mut command = serve(&file);
    command.env("RINGWAY_NODE", NODE.fetch_add(1, Ordering::Relaxed).to_string());
    Binary::spawn(command, file)
}

fn await_link(node: &Binary) {
    wait_until("a link to NATS", || node.metric("ringway_mesh_connected", "") == 1);
}

/// Nothing that is to be kept is in the log.
fn check_log(node: &Binary, secrets: &[&str]) {
    let log: String = node.log().iter().map(|line| line.to_string()).collect();
    for secret in secrets {
        assert!(!log.contains(secret), "{secret} was logged: {log}");
    }
}

/// The node is told what to do, more than once, and serves its own clients.
fn check_refused(node: &mut Binary, advice: &str) {
    let said = |node: &Binary| {
        let log = node.log();
        let advised = log
            .iter()
            .filter(|line| line["advice"].as_str().is_some_and(|text| text.contains(advice)));
        advised.count()
    };
    wait_until("advice in the log, again and again", || said(node) >= 2);
    assert_eq!(node.metric("ringway_mesh_connected", ""), 0);
    node.check_serves();
}

#[test]
fn user_and_password() {
    let users = |password: &str| format!("authorization {{ user: u, password: \"{password}\" }}");
    let mut nats = Nats::start_with(Some(&users("right@=secret")));
    let right = node(&nats.url(), "user = \"u\"\npassword = \"right@=secret\"");
    await_link(&right);
    let in_url = node(&nats.url().replace("//", "//u:right%40=secret@"), "");
    await_link(&in_url);
    let mut wrong = node(&nats.url(), &format!("user = \"u\"\npassword = \"{WRONG}\""));
    check_refused(&mut wrong, "check mesh.user and mesh.password");
    // It becomes the right one.
    nats.stop();
    nats.set(&users(WRONG));
    nats.resume();
    await_link(&wrong);
    for node in [&right, &in_url, &wrong] {
        check_log(node, &["right@=secret", "right%40", WRONG]);
    }
}

#[test]
fn a_token() {
    let nats = Nats::start_with(Some("authorization { token: \"right-secret\" }"));
    let right = node(&nats.url(), "token = \"right-secret\"");
    await_link(&right);
    let mut wrong = node(&nats.url(), &format!("token = \"{WRONG}\""));
    check_refused(&mut wrong, "mesh.token");
    for node in [&right, &wrong] {
        check_log(node, &["right-secret", WRONG]);
    }
}

#[test]
fn a_file_with_jwt_and_key() {
    let nats = Nats::start_with(Some(OPERATOR));
    let right = node(&nats.url(), &format!("credentials = \"{CREDENTIALS}\""));
    await_link(&right);
    let mut none = node(&nats.url(), "");
    check_refused(&mut none, "mesh.credentials");
    let text = std::fs::read_to_string(CREDENTIALS).expect("a vector");
    let secrets: Vec<&str> = text.lines().filter(|l| l.len() > 50 && !l.contains(' ')).collect();
    assert_eq!(secrets.len(), 2, "the token and the key");
    check_log(&right, &secrets);
}

/// An authority, and what it has signed, in files.
struct Certificates {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    fn new() -> Certificates {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).expect("a valid key");
        let directory = TempDir::new().expect("a directory for temporary files");
        std::fs::write(directory.path().join("ca.pem"), authority.pem()).expect("ours");
        let certificates = Certificates { directory, issuer: Issuer::new(params, key) };
        certificates.sign("server");
        certificates.sign("client");
        certificates
    }

    fn sign(&self, name: &str) {
        let key = KeyPair::generate().expect("a key");
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let params = CertificateParams::new(names).expect("valid names");
        let certificate = params.signed_by(&key, &self.issuer).expect("a valid key");
        let write = |end: &str, text: String| {
            let file = self.directory.path().join(format!("{name}.{end}"));
            std::fs::write(file, text).expect("ours");
        };
        write("pem", certificate.pem());
        write("key", key.serialize_pem());
    }

    /// A path as a text in quotation marks.
    fn path(&self, name: &str) -> String {
        let path: &Path = self.directory.path();
        format!("{:?}", path.join(name))
    }

    /// Settings of the server.
    fn server(&self, verify: bool) -> String {
        let [cert, key, ca] = ["server.pem", "server.key", "ca.pem"].map(|name| self.path(name));
        format!("tls {{ cert_file: {cert}, key_file: {key}, ca_file: {ca}, verify: {verify} }}")
    }
}

#[test]
fn tls_with_an_authority_of_ones_own() {
    let certificates = Certificates::new();
    let nats = Nats::start_with(Some(&certificates.server(false)));
    let trusts = format!("[mesh.tls]\nca = {}", certificates.path("ca.pem"));
    for url in [nats.url(), nats.url().replace("nats:", "tls:")] {
        await_link(&node(&url, &trusts));
    }
    let mut stranger = node(&nats.url(), "");
    check_refused(&mut stranger, "mesh.tls");
}

#[test]
fn nats_lets_in_who_has_a_certificate() {
    let certificates = Certificates::new();
    let nats = Nats::start_with(Some(&certificates.server(true)));
    let [ca, cert, key] =
        ["ca.pem", "client.pem", "client.key"].map(|name| certificates.path(name));
    await_link(&node(&nats.url(), &format!("[mesh.tls]\nca = {ca}\ncert = {cert}\nkey = {key}")));
    let mut without = node(&nats.url(), &format!("[mesh.tls]\nca = {ca}"));
    check_refused(&mut without, "mesh.tls");
}
