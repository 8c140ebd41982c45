//! Encryption of messages: AES-256-CBC with PKCS#7 padding under one key and one IV per connection
//! (specification sections 3.2, 3.3 and 3.6).
//!
//! The wire format has no integrity and repeats its IV; it hides messages from those who only look
//! (section 9.2), and nothing here can change that. Invariants: secrets are wiped when they are
//! dropped and no type here shows them; padding is checked in the same time whatever it is.
//! Costs: no allocation; encrypting and decrypting work in place. CBC makes every block wait for
//! the one before it, so one message goes at the latency of AES-NI, not at its throughput; the
//! blocks of a message that is decrypted go side by side.

use std::fmt;

use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use aes::{Aes256Dec, Aes256Enc};
use md5::{Digest, Md5};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of a block.
pub const BLOCK: usize = 16;

/// The key schedules and the IV of one connection.
pub struct Cipher {
    encrypt: Aes256Enc,
    decrypt: Aes256Dec,
    iv: Iv,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct Iv([u8; BLOCK]);

/// The seeds that a client has sent, decrypted. Wiped when dropped.
#[derive(Default)]
pub struct Seeds {
    pub key: Option<Zeroizing<Vec<u8>>>,
    pub iv: Option<Zeroizing<Vec<u8>>>,
}

/// Shows nothing.
impl fmt::Debug for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seeds(..)")
    }
}

/// What was received is not a ciphertext under this key: wrong length or wrong padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a ciphertext under the key of the connection")]
pub struct NotCiphertext;

impl Cipher {
    /// Derives key and IV from the seeds: the key is the MD5 of its seed in hex, the IV the middle
    /// of the MD5 of its own (section 3.2).
    pub fn new(key_seed: &[u8], iv_seed: &[u8]) -> Cipher {
        let key = md5_hex(key_seed);
        let iv_hex = md5_hex(iv_seed);
        let mut iv = Iv([0; BLOCK]);
        iv.0.copy_from_slice(&iv_hex[8..24]);
        Cipher {
            encrypt: Aes256Enc::new((&*key).into()),
            decrypt: Aes256Dec::new((&*key).into()),
            iv,
        }
    }

    /// Bytes of the ciphertext of so many bytes: 1 to 16 more, a whole number of blocks.
    pub const fn encrypted_len(len: usize) -> usize {
        len - len % BLOCK + BLOCK
    }

    /// Pads what stands in `out` from `start` on and encrypts it in place. Without room for the
    /// padding, `out` grows.
    pub fn encrypt(&self, out: &mut Vec<u8>, start: usize) {
        let len = out.len() - start;
        let padding = BLOCK - len % BLOCK;
        // 1 to 16.
        out.resize(out.len() + padding, padding as u8);
        let mut mode = cbc::Encryptor::inner_iv_init(&self.encrypt, (&self.iv.0).into());
        let (blocks, rest) = InOutBuf::from(&mut out[start..]).into_chunks();
        debug_assert!(rest.is_empty());
        mode.encrypt_blocks_inout(blocks);
    }

    /// Decrypts in place; returns the length of the plaintext that `data` now begins with.
    ///
    /// # Errors
    /// The same for every kind of damage; `data` is of no use then.
    pub fn decrypt(&self, data: &mut [u8]) -> Result<usize, NotCiphertext> {
        if data.is_empty() || !data.len().is_multiple_of(BLOCK) {
            return Err(NotCiphertext);
        }
        let mut mode = cbc::Decryptor::inner_iv_init(&self.decrypt, (&self.iv.0).into());
        let (blocks, _) = InOutBuf::from(&mut *data).into_chunks();
        mode.decrypt_blocks_inout(blocks);
        let padding = padding(&data[data.len() - BLOCK..])?;
        Ok(data.len() - padding)
    }
}

/// Shows nothing.
impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

/// Bytes of padding at the end of the last block, found without a branch that depends on it.
fn padding(last: &[u8]) -> Result<usize, NotCiphertext> {
    let padding = last[BLOCK - 1];
    let mut wrong = u8::from(padding == 0) | u8::from(padding > BLOCK as u8);
    for (distance, byte) in (1..).zip(last.iter().rev()) {
        let counts = u8::from(distance <= padding).wrapping_neg();
        wrong |= counts & (byte ^ padding);
    }
    if wrong == 0 { Ok(padding.into()) } else { Err(NotCiphertext) }
}

/// MD5 in lower-case hex.
fn md5_hex(seed: &[u8]) -> Zeroizing<[u8; 32]> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digest: Zeroizing<[u8; 16]> = Zeroizing::new(Md5::digest(seed).into());
    let mut hex = Zeroizing::new([0; 32]);
    for (pair, byte) in hex.chunks_exact_mut(2).zip(digest.iter()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    digest.zeroize();
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY_SEED: &[u8] = b"9f86d081884c7d659a2feaa0c55ad015";
    const IV_SEED: &[u8] = b"3c6e0b8a9c15224a8228b9a98ca1531d";

    #[test]
    fn key_and_iv_are_those_of_the_specification() {
        assert_eq!(&*md5_hex(KEY_SEED), b"82599137a1907ce221403cfc29efaab6");
        assert_eq!(&*md5_hex(IV_SEED), b"56f3db44e25e3057caa2b78751fa212c");
        assert_eq!(&Cipher::new(KEY_SEED, IV_SEED).iv.0, b"e25e3057caa2b787");
    }

    #[test]
    fn padding_is_right_for_every_length_and_every_damage_is_seen() {
        let cipher = Cipher::new(b"key", b"iv");
        for len in 0..100_usize {
            let plain: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
            let mut data = b"head".to_vec();
            data.extend_from_slice(&plain);
            cipher.encrypt(&mut data, 4);
            assert_eq!(&data[..4], b"head");
            assert_eq!(data.len() - 4, Cipher::encrypted_len(len));
            let found = cipher.decrypt(&mut data[4..]).expect("it was encrypted here");
            assert_eq!(&data[4..4 + found], plain);
        }
        let mut last = [7; BLOCK];
        last[3] = 9;
        assert_eq!(padding(&last), Ok(7));
        for (place, byte) in [(15, 0), (15, 17), (15, 8), (9, 1), (15, 255)] {
            let mut last = last;
            last[place] = byte;
            assert_eq!(padding(&last), Err(NotCiphertext), "{place} {byte}");
        }
        assert_eq!(padding(&[16; BLOCK]), Ok(16));
        for len in [0, 1, 15, 17, 31] {
            assert_eq!(cipher.decrypt(&mut vec![0; len]), Err(NotCiphertext));
        }
    }

    /// Everything that a connection keeps of its keys wipes itself when it is dropped.
    #[test]
    fn secrets_are_wiped() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<Aes256Enc>();
        wiped::<Aes256Dec>();
        wiped::<Iv>();
        wiped::<Zeroizing<Vec<u8>>>();
        // A field more would have to be in the list above.
        let Cipher { encrypt: Aes256Enc { .. }, decrypt: Aes256Dec { .. }, iv: Iv(_) } =
            &Cipher::new(KEY_SEED, IV_SEED);
        let Seeds { key: None::<Zeroizing<Vec<u8>>>, iv: None } = Seeds::default() else {
            panic!("seeds that nobody has given");
        };
        // And seeds in a box behind a pointer that is dropped are dropped with it.
        let mut seeds = Seeds { key: Some(Zeroizing::new(vec![7; 32])), iv: None };
        seeds.key.as_mut().expect("one").zeroize();
        assert!(seeds.key.is_some_and(|key| key.is_empty()));
    }

    #[test]
    fn nothing_shows_a_secret() {
        assert_eq!(format!("{:?}", Cipher::new(KEY_SEED, IV_SEED)), "Cipher(..)");
    }
}
