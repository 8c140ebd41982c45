//! PEM files of a TLS listener, made into a rustls configuration. Read at start and at every
//! reload; connections keep the configuration that they began with.
//!
//! TLS 1.2 and 1.3 with the cipher suites of the ring provider, in the client's order. Resumption
//! is by tickets only: the server keeps nothing per client, and shards share nothing but the ticket
//! keys, which live in memory, change every six hours and end with the configuration. So after a
//! reload each client makes one full handshake, and its certificate is checked against the new
//! authorities. One ticket per handshake: a client holds one connection. No 0-RTT data, which could
//! be replayed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};

use crate::config::model::TlsFiles;

/// What is wrong with the files of a TLS listener. At start the operator corrects the file, at a
/// reload the old configuration stays in force.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    /// The file is missing, a directory, or may not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The file has a PEM section that is cut off or not base64.
    #[error("{} is not valid PEM: {source}", path.display())]
    Pem { path: PathBuf, source: pem::Error },
    /// The file has no `CERTIFICATE` section.
    #[error("{} has no certificate (PEM, BEGIN CERTIFICATE) in it", path.display())]
    NoCertificate { path: PathBuf },
    /// A certificate cannot be used.
    #[error("certificate {number} of {} cannot be used: {source}", path.display())]
    Certificate {
        path: PathBuf,
        /// Counted from 1 in the order of the file.
        number: usize,
        source: rustls::Error,
    },
    /// The file has no private key that could be read without a password.
    #[error(
        "{} has no private key (PEM; PKCS#8, RSA or SEC1, not encrypted) in it",
        path.display()
    )]
    NoKey { path: PathBuf },
    /// The key is damaged or of a kind that is not supported.
    #[error("the private key in {} cannot be used: {source}", path.display())]
    Key { path: PathBuf, source: rustls::Error },
    /// The key belongs to another certificate than the first one of the chain.
    #[error(
        "the private key in {} does not belong to the first certificate of {}",
        key.display(),
        cert.display()
    )]
    Mismatch { cert: PathBuf, key: PathBuf },
    /// rustls cannot serve with this, for instance because the system gives no random numbers.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Reads the files. `alpn` lists the application protocols in the order of preference, for example
/// `http/1.1`; a client that offers only others is refused, one that offers none is not. An empty
/// list ignores what clients offer.
pub fn load(files: &TlsFiles, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsFilesError> {
    let provider = Arc::new(ring::default_provider());
    let identity = identity(files, &provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])?;
    let builder = match &files.client_ca {
        Some(path) => builder.with_client_cert_verifier(client_verifier(path, provider)?),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(identity));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// The chain and its key, checked to belong together.
fn identity(
    files: &TlsFiles,
    provider: &CryptoProvider,
) -> Result<SingleCertAndKey, TlsFilesError> {
    let chain = certificates(&files.cert)?;
    for (index, der) in chain.iter().enumerate() {
        if let Err(source) = ParsedCertificate::try_from(der) {
            return Err(unusable(&files.cert, index, source));
        }
    }
    let key = private_key(&files.key)?;
    let certified =
        CertifiedKey::from_der(chain, key, provider).map_err(|source| match source {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsFilesError::Mismatch { cert: files.cert.clone(), key: files.key.clone() }
            }
            source => TlsFilesError::Key { path: files.key.clone(), source },
        })?;
    Ok(SingleCertAndKey::from(certified))
}

/// Requires a certificate of every client, signed by an authority in the file.
fn client_verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsFilesError> {
    let mut roots = RootCertStore::empty();
    for (index, der) in certificates(path)?.into_iter().enumerate() {
        roots.add(der).map_err(|source| unusable(path, index, source))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| TlsFilesError::Setup(rustls::Error::General(error.to_string())))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFilesError> {
    let text = read(path)?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| broken(path, source))?;
    if chain.is_empty() {
        return Err(TlsFilesError::NoCertificate { path: path.into() });
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsFilesError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsFilesError::NoKey { path: path.into() },
        source => broken(path, source),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsFilesError> {
    fs::read(path).map_err(|source| TlsFilesError::Read { path: path.into(), source })
}

fn broken(path: &Path, source: pem::Error) -> TlsFilesError {
    TlsFilesError::Pem { path: path.into(), source }
}

fn unusable(path: &Path, index: usize, source: rustls::Error) -> TlsFilesError {
    TlsFilesError::Certificate { path: path.into(), number: index + 1, source }
}
