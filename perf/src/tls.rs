//! TLS for the load's clients: a certificate for the server, made at run time, and the client side
//! of a session.
//!
//! Every client makes a full handshake: none goes on with the session of another, so that `churn`
//! shows what a stranger costs.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::Result;

/// A self-signed certificate for 127.0.0.1 and its key, in files that go away with this.
pub struct Identity {
    directory: tempfile::TempDir,
}

impl Identity {
    pub fn new() -> Result<Identity> {
        let directory = tempfile::tempdir()?;
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names)?;
        let identity = Identity { directory };
        std::fs::write(identity.certificate(), made.cert.pem())?;
        std::fs::write(identity.key(), made.signing_key.serialize_pem())?;
        Ok(identity)
    }

    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("server.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.directory.path().join("server.key")
    }
}

/// What clients need to trust the certificates in a file.
pub fn trust(path: &Path) -> Result<Arc<ClientConfig>> {
    let complaint = |error| format!("{}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(complaint)? {
        roots.add(certificate.map_err(complaint)?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// One client's session.
pub struct Session(ClientConnection);

impl Session {
    pub fn new(config: &Arc<ClientConfig>, server: IpAddr) -> Result<Session> {
        Ok(Session(ClientConnection::new(config.clone(), server.into())?))
    }

    /// Decrypts what has arrived; `out` gets what the session answers of itself.
    pub fn read(&mut self, mut data: &[u8], plain: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<()> {
        while !data.is_empty() {
            self.0.read_tls(&mut data)?;
            let state = self.0.process_new_packets()?;
            let start = plain.len();
            plain.resize(start + state.plaintext_bytes_to_read(), 0);
            self.0.reader().read_exact(&mut plain[start..])?;
        }
        self.flush(out)
    }

    /// Encrypts into `out`. Before the handshake is over the session keeps what it is given.
    pub fn write(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.0.writer().write_all(plain)?;
        self.flush(out)
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<()> {
        while self.0.wants_write() {
            self.0.write_tls(out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_starts_with_a_handshake_and_keeps_what_it_has_to_say() {
        let identity = Identity::new().expect("a certificate can be made");
        let config = trust(&identity.certificate()).expect("it can be read");
        let server = IpAddr::from([127, 0, 0, 1]);
        let mut session = Session::new(&config, server).expect("an address is a name");
        let mut out = Vec::new();
        session.write(b"secret", &mut out).expect("it is kept");
        // A handshake record; RFC 8446 section 5.1.
        assert_eq!(out[0], 22);
        assert!(!out.windows(6).any(|six| six == b"secret"));
        assert!(session.read(b"not TLS at all", &mut Vec::new(), &mut out).is_err());
    }
}
