//! PEM files of a TLS listener, made into a rustls configuration. Read at start and at every
//! reload; connections keep the configuration that they began with.
//!
//! TLS 1.2 and 1.3 with the cipher suites of the ring provider, in the client's order. Resumption
//! is by tickets only: the server keeps nothing per client, and shards share nothing but the ticket
//! keys, which live in memory, change every six hours and end with the configuration. So after a
//! reload each client makes one full handshake, and its certificate is checked against the new
//! authorities. One ticket per handshake: a client holds one connection. No 0-RTT data, which could
//! be replayed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};

use crate::config::model::TlsFiles;
use crate::pem::{self, PemError, Wanted};

/// What is wrong with the files of a TLS listener. At start the operator corrects the file, at a
/// reload the old configuration stays in force.
#[derive(Debug, thiserror::Error)]
pub enum TlsFilesError {
    /// A file can not be read, or what it must have is not in it.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A certificate cannot be used.
    #[error("certificate {number} of {} cannot be used: {source}", path.display())]
    Certificate {
        path: PathBuf,
        /// Counted from 1 in the order of the file.
        number: usize,
        source: rustls::Error,
    },
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

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let blocks = pem::read(path, Wanted::Certificates)?;
    Ok(blocks.iter().map(|block| CertificateDer::from(block.der.to_vec())).collect())
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let mut blocks = pem::read(path, Wanted::PrivateKey)?;
    // There is one at least.
    let block = blocks.swap_remove(0);
    let der = block.der.to_vec();
    Ok(match block.label {
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(der.into()),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(der.into()),
        _ => PrivateKeyDer::Pkcs8(der.into()),
    })
}

fn unusable(path: &Path, index: usize, source: rustls::Error) -> TlsFilesError {
    TlsFilesError::Certificate { path: path.into(), number: index + 1, source }
}
