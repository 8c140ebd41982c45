//! PEM files of TLS listeners: the kinds of keys, a reload, and what an operator reads about a
//! mistake.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{CertificateParams, KeyPair};
use ringway::config::model::TlsFiles;
use ringway::tls_files;
use ringway::wire::tls::{ServerConfig, Tls};
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, Error, RootCertStore};
use tempfile::TempDir;

/// Made for this test; rcgen cannot make RSA keys with ring.
const RSA_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQDC7pxRXoXUbbFu
SZMqYGqfYRobEywWJnR0qXnb2Cif2JaxPC0ePgNVrb2ewBOdjSBErPU3K0kb+Cv1
WdD/3p5DdToYSZnKZRpKOP4LS2mwp+rr5f3WCOiQ/wJ4rrTn2LC1weLthWrQ7DRp
WqaD8MAvSPAat2Ae0kCOLLlw2lcybUF4I6/EUfvlHVWFSWtmix2lkysEEZ2LOiun
rbage6EiyD5HtIlqchhp28Mb2WxsFG08vS5jKanmsBPZT3MMeC+cG+Jldy8h7O66
7ZKIps99bZtPwA0RGtpQCn1g2OGHinoUZ0GwBfSQx+GAez4CXlzAhgpTpodsyxhM
6GJOk+6ZAgMBAAECggEADTy7tUPZtd9Sv0ue7dpZII8XwShtY+itxlapkt4MLi9S
AQxLf7mpgM84/feLAssuBTPd6BFCrZ6jSjiUmoI2gEa3kKV+MdIT9bUxPTjxtFXG
0cj5vT04ISaMDKrH1/8CoFPKXPj51Aus6HhH2qmwkgAeO/Y2wF5klLML+bz9/bYd
L2aSNLPo5eJrwQRDn3WXAY/nHjzYKjVz2HsUbUdTfWk9rN7UfZ/ZOhoXMyuTbYaX
wZ+ts9cMRw7hOVb8qKRQsI4fAJSRBx9RbrEOxAlWFddJziUnCq5Z2S84jwMBTgv6
tmmKLUj8m1b6itQaOf+ZJX9wIoiCY+hf1zSZ0KjIzQKBgQD/4fWk2Pex+e5XMFwt
J3wwOR+UvaRhXR9IHX39NCLbrtgF61K1xD9XVxUeVCB0Skynh1rRuECr7nVIZiOk
0+9BgicoagYD54vWCjNSXp/JaF7/z0Uo6nUDHJBch3GEYx7j2oWKDWi+krl0zuvv
38FImShLbmsq2RVsH1daAZL93QKBgQDDBX7Z47NHuH9PqbCwDAOLcu2VEZH+LpPg
B6q6QEZM96+FdXduAlvfTyWdj3kzIA7r1qLXLimbdfD3n9DWmOzdxbwD8KScpaw7
egTsH3ThXOywe3kj8ZHzUWxY5EgO3YHWhgb6MbsTgghQle5UXabL6MlFnrv7ZHG/
eOaSghJ97QKBgQC8hSGRnjh/a3/pxLtkmR6p+KwHzeB5yz3sx623Ct5Ts/F8CvAY
8skn9ASfH6P5iXQISXTj5jffdAP8nyPLoEk5nkZzRAnCfqlLvKArI4Pdw4OaPH7b
skEbVcQWJ8O+obh0bt7L4y00mq0AHiM9y0B/2DcTu/pAy0c5La4Rpe9CEQKBgBRP
/DhhmQi9VLVNbVPIzI23uLswC064Nzq8UbH4g9n8alGyPHA+2qbVrYtNqEgE7Mjv
oCJdcoP4stJ32N6hKvqmX8DhTaPrNZc0TFLzq87VSOnQ0ntF6/e14V0Y2dCCjcV0
TEG+8EdF4evS0fIDlx3h7yTLNbUnbxmMVCeqWJa5AoGBALBzQdPG7iU1rgSiZoo6
RwYuO3P2O98O3XPGknjEmSOI2cSMwVMrZ4w2csRiRXLOtn72DWjbzvm4a1vjMPj8
a4oK6ynNay/fpW+pB4GjQnS+s7kL212jPHVoPjmnLalCwWxa+s6BEtIrBsHUYKnW
jk/fUR7ag8YukudIqqnfeDOy
-----END PRIVATE KEY-----
";

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
        let files = Files { directory, paths };
        files.write(cert, key);
        files
    }

    fn write(&self, cert: &str, key: &str) {
        fs::write(&self.paths.cert, cert).unwrap();
        fs::write(&self.paths.key, key).unwrap();
    }

    fn load(&self) -> Arc<ServerConfig> {
        tls_files::load(&self.paths, &[]).unwrap()
    }

    /// What is wrong, with the directory taken out.
    fn error(&self) -> String {
        let text = tls_files::load(&self.paths, &[]).unwrap_err().to_string();
        let directory = format!("{}/", self.directory.path().display());
        assert!(text.contains(&directory), "{text}");
        text.replace(&directory, "")
    }
}

fn certificate(key: &KeyPair) -> String {
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.self_signed(key).unwrap().pem()
}

fn identity() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    (certificate(&key), key.serialize_pem())
}

/// The key inside a PKCS#8 `SEQUENCE { version, algorithm, OCTET STRING }`: PKCS#1 for RSA, SEC1
/// for elliptic curves.
fn inner_key(pkcs8: &[u8]) -> &[u8] {
    let (sequence, _) = der_value(pkcs8);
    let (_, rest) = der_value(sequence);
    let (_, rest) = der_value(rest);
    der_value(rest).0
}

/// The content of the first DER element, and what follows it.
fn der_value(der: &[u8]) -> (&[u8], &[u8]) {
    let (length, begin) = match der[1] {
        0x81 => (usize::from(der[2]), 3),
        0x82 => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
        short => (usize::from(short), 2),
    };
    der[begin..].split_at(length)
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// Whether a client that trusts only `cert` gets through the handshake.
fn trusts(config: &Arc<ServerConfig>, cert: &str) -> bool {
    let der = BASE64_STANDARD
        .decode(cert.lines().filter(|l| !l.starts_with('-')).collect::<String>().trim())
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(der.into()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut client =
        ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
    let mut server = Tls::new(Arc::clone(config)).unwrap();
    let (mut bytes, mut plain) = (Vec::new(), Vec::new());
    while server.handshaking() {
        bytes.clear();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        server.read(&bytes, &mut plain).unwrap();
        bytes.clear();
        server.output(&mut bytes);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            match client.process_new_packets() {
                Ok(_) => {}
                Err(Error::InvalidCertificate(_)) => return false,
                Err(error) => panic!("{error}"),
            }
        }
    }
    true
}

#[test]
fn pkcs8_rsa_and_sec1_keys_are_taken() {
    let elliptic = KeyPair::generate().unwrap();
    let rsa = KeyPair::from_pem(RSA_KEY).unwrap();
    let sec1 = inner_key(elliptic.serialized_der());
    let pkcs1 = inner_key(rsa.serialized_der());
    let (elliptic_cert, rsa_cert) = (certificate(&elliptic), certificate(&rsa));
    for (cert, key) in [
        (&elliptic_cert, elliptic.serialize_pem()),
        (&elliptic_cert, pem("EC PRIVATE KEY", sec1)),
        (&rsa_cert, RSA_KEY.to_owned()),
        (&rsa_cert, pem("RSA PRIVATE KEY", pkcs1)),
    ] {
        assert!(trusts(&Files::new(cert, &key).load(), cert), "{key}");
    }
}

#[test]
fn a_reload_gives_the_new_certificate_and_leaves_the_old_configuration_alone() {
    let (old, old_key) = identity();
    let (new, new_key) = identity();
    let files = Files::new(&old, &old_key);
    let before = files.load();
    files.write(&new, &new_key);
    let after = files.load();
    assert!(trusts(&before, &old) && !trusts(&before, &new));
    assert!(trusts(&after, &new) && !trusts(&after, &old));
}

#[test]
fn text_around_the_sections_and_one_file_for_all_are_fine() {
    let (cert, key) = identity();
    let all = format!("subject=CN = x\n{cert}\nsome text\n{key}");
    assert!(trusts(&Files::new(&all, &all).load(), &cert));
}

#[test]
fn errors_name_the_file_and_what_is_wrong() {
    let (cert, key) = identity();
    let (_, other_key) = identity();
    let damaged_cert = pem("CERTIFICATE", b"not DER");
    let encrypted = pem("ENCRYPTED PRIVATE KEY", b"secret");
    let cut = &cert[..cert.len() / 2];
    for (cert, key, begin) in [
        ("", &key[..], "server.pem: the file is empty"),
        (&key, &key, "server.pem: no certificate in it"),
        (cut, &key, "server.pem: it ends inside of a block"),
        (&damaged_cert, &key, "certificate 1 of server.pem cannot be used"),
        (&format!("{cert}{damaged_cert}"), &key, "certificate 2 of server.pem cannot be used"),
        (&cert, "", "server.key: the file is empty"),
        (&cert, &cert, "server.key: no private key in it"),
        (&cert, &encrypted, "server.key: the private key of line 1 is encrypted"),
        (&cert, &pem("PRIVATE KEY", b"not DER"), "the private key in server.key cannot be used"),
        (
            &cert,
            &other_key,
            "the private key in server.key does not belong to the first certificate of server.pem",
        ),
    ] {
        let error = Files::new(cert, key).error();
        assert!(error.starts_with(begin), "{error}");
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let (cert, key) = identity();
    let mut files = Files::new(&cert, &key);
    let directory = files.directory.path().to_owned();
    let missing = |path: &Path| path.with_file_name("missing.pem");

    files.paths.client_ca = Some(missing(&files.paths.cert));
    let error = files.error();
    assert!(error.starts_with("missing.pem: the file can not be read: "), "{error}");

    files.paths.client_ca = Some(files.paths.key.clone());
    let error = files.error();
    assert!(error.starts_with("server.key: no certificate in it"), "{error}");

    let broken = directory.join("clients.pem");
    fs::write(&broken, format!("{cert}{}", pem("CERTIFICATE", b"x"))).unwrap();
    files.paths.client_ca = Some(broken);
    let error = files.error();
    let begin = "certificate 2 of clients.pem cannot be used";
    assert!(error.starts_with(begin), "{error}");

    files.paths.key = missing(&files.paths.key);
    let error = files.error();
    assert!(error.starts_with("missing.pem: the file can not be read: "), "{error}");

    fs::create_dir(directory.join("folder")).unwrap();
    files.paths.cert = directory.join("folder");
    let error = files.error();
    assert!(error.starts_with("folder: the file can not be read: "), "{error}");
}
