//! RSA keys of the gateway: clients of xxim encrypt their seeds for them (xxim sections 3.1, 9.3).
//!
//! Bad padding is not an error here: the library answers it with a made-up plaintext that only the
//! holder of the key could tell from a real one, and what follows fails in the same way as with any
//! other wrong key. What is no ciphertext at all (wrong length, not below the modulus) is public
//! and is refused. Costs: about a millisecond of CPU per decryption, so never on a shard.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rsa::pkcs1::DecodeRsaPrivateKey;
use rsa::pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding};
use rsa::rand_core::{TryCryptoRng, TryRng};
use rsa::traits::PublicKeyParts;
use rsa::{Pkcs1v15Encrypt, RsaPrivateKey, RsaPublicKey};
use rustls::crypto::SecureRandom;
use zeroize::Zeroizing;

use crate::pem::{self, PemError, Wanted};

/// Bits of a key that is made here, unless told otherwise.
pub const BITS: usize = 2048;
/// Bits that a key must have at least.
const BITS_MIN: usize = 1024;
/// Bits of a key that is made on request.
pub const BITS_ALLOWED: std::ops::RangeInclusive<usize> = 2048..=8192;

/// What is wrong with a key file. The operator corrects it; nothing is served before.
#[derive(Debug, thiserror::Error)]
pub enum RsaKeyError {
    /// The file can not be read, or has no such key.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// What is in its place is not a key, or one of another kind.
    #[error(
        "{}: the private key in it is damaged or no RSA key; `ringway keygen xxim` makes one",
        path.display()
    )]
    NotRsa { path: PathBuf },
    /// The key is too short to be safe for even a day.
    #[error("the RSA key in {} has {bits} bits; use one of 2048 or more", path.display())]
    Short { path: PathBuf, bits: usize },
    /// A new file can not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// The library could not make a key.
    #[error("no key could be made: {0}")]
    Make(rsa::Error),
    /// The library could not write a key as PEM.
    #[error("the key could not be written as PEM")]
    Encode,
}

/// A private key, read from a file or made when it is first needed.
pub struct RsaKey {
    key: OnceLock<RsaPrivateKey>,
}

impl RsaKey {
    /// Reads a PEM file: PKCS#8 or PKCS#1, without password.
    pub fn load(path: &Path) -> Result<RsaKey, RsaKeyError> {
        let blocks = pem::read(path, Wanted::RsaKey)?;
        let key = blocks.iter().find_map(|block| match block.label {
            "RSA PRIVATE KEY" => RsaPrivateKey::from_pkcs1_der(&block.der).ok(),
            _ => RsaPrivateKey::from_pkcs8_der(&block.der).ok(),
        });
        let key = key.ok_or_else(|| RsaKeyError::NotRsa { path: path.to_owned() })?;
        let bits = key.size() * 8;
        if bits < BITS_MIN {
            return Err(RsaKeyError::Short { path: path.to_owned(), bits });
        }
        Ok(RsaKey { key: OnceLock::from(key) })
    }

    /// A key that is made when it is first needed, which takes about a second. For the demo.
    pub fn made_when_needed() -> RsaKey {
        RsaKey { key: OnceLock::new() }
    }

    fn key(&self) -> &RsaPrivateKey {
        self.key.get_or_init(|| make(BITS).expect("keys of this size can be made"))
    }

    /// Decrypts a PKCS#1 v1.5 ciphertext. `None`: its length or value can not be one of this key.
    pub fn decrypt(&self, ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        self.decrypt_with(&mut random(), ciphertext)
    }

    /// Blinded (section 9.3): the time that it takes tells nothing about the ciphertext or the key.
    fn decrypt_with(&self, random: &mut Random, ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let key = self.key();
        if ciphertext.len() != key.size() {
            return None;
        }
        key.decrypt_blinded(random, Pkcs1v15Encrypt, ciphertext).ok().map(Zeroizing::new)
    }

    /// The public key as clients get it: PEM, SubjectPublicKeyInfo.
    pub fn public_pem(&self) -> Result<String, RsaKeyError> {
        let public = RsaPublicKey::from(self.key());
        public.to_public_key_pem(LineEnding::LF).map_err(|_| RsaKeyError::Encode)
    }
}

/// Shows nothing.
impl std::fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RsaKey(..)")
    }
}

/// Makes a key pair: the private key as PKCS#8, readable by its owner only, and the public key as
/// SubjectPublicKeyInfo, both PEM. Files that exist are not touched.
pub fn generate(private: &Path, public: &Path, bits: usize) -> Result<(), RsaKeyError> {
    let key = make(bits).map_err(RsaKeyError::Make)?;
    let text = key.to_pkcs8_pem(LineEnding::LF).map_err(|_| RsaKeyError::Encode)?;
    write_new(private, text.as_bytes(), 0o600)?;
    let key = RsaKey { key: OnceLock::from(key) };
    write_new(public, key.public_pem()?.as_bytes(), 0o644)
}

fn write_new(path: &Path, text: &[u8], mode: u32) -> Result<(), RsaKeyError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text)
    };
    write().map_err(|source| RsaKeyError::Write { path: path.to_owned(), source })
}

fn make(bits: usize) -> Result<RsaPrivateKey, rsa::Error> {
    RsaPrivateKey::new(&mut random(), bits)
}

fn random() -> Random {
    Random(rustls::crypto::ring::default_provider().secure_random)
}

/// The random numbers of the kernel, by way of the TLS library.
struct Random(&'static dyn SecureRandom);

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(out).expect("the kernel has random numbers");
        Ok(())
    }
}

impl TryCryptoRng for Random {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn the_key_wipes_itself_and_shows_nothing() {
        fn wiped<T: zeroize::ZeroizeOnDrop>() {}
        wiped::<RsaPrivateKey>();
        wiped::<Zeroizing<Vec<u8>>>();
        assert_eq!(format!("{:?}", RsaKey::made_when_needed()), "RsaKey(..)");
    }

    /// Random numbers that are counted.
    #[derive(Debug, Default)]
    struct Counted(AtomicUsize);

    impl SecureRandom for Counted {
        fn fill(&self, out: &mut [u8]) -> Result<(), rustls::crypto::GetRandomFailed> {
            self.0.fetch_add(out.len(), Ordering::Relaxed);
            random().0.fill(out)
        }
    }

    #[test]
    fn each_decryption_is_blinded_with_random_numbers_of_its_own() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/xxim/test-key.pem");
        let key = RsaKey::load(Path::new(file)).expect("the test key");
        let public = RsaPublicKey::from(key.key());
        let sealed = public.encrypt(&mut random(), Pkcs1v15Encrypt, b"seed").expect("short enough");
        let counted: &'static Counted = Box::leak(Box::default());
        for turn in 1..=3 {
            let seed = key.decrypt_with(&mut Random(counted), &sealed).expect("its own ciphertext");
            assert_eq!(**seed, *b"seed");
            assert!(counted.0.load(Ordering::Relaxed) >= turn * key.key().size(), "not blinded");
        }
    }
}
