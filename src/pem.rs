//! PEM files (RFC 7468): certificates and keys, read in one place, and what is wrong with a file
//! said in words.
//!
//! Text around blocks is nobody's business, as are blocks that are not wanted. Errors never repeat
//! what stands in a block. Costs: files are read at start and at a reload.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Bytes of a file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Characters of a label that an error shows.
const LABEL_SHOWN_MAX: usize = 40;

/// What a file must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One certificate or more.
    Certificates,
    /// A private key without password: PKCS#8, PKCS#1 or SEC1.
    PrivateKey,
    /// An RSA key without password: PKCS#8 or PKCS#1.
    RsaKey,
    /// A public key: SubjectPublicKeyInfo or, of RSA, PKCS#1.
    PublicKey,
}

impl Wanted {
    const fn labels(self) -> &'static [&'static str] {
        match self {
            Wanted::Certificates => &["CERTIFICATE"],
            Wanted::PrivateKey => &["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"],
            Wanted::RsaKey => &["PRIVATE KEY", "RSA PRIVATE KEY"],
            Wanted::PublicKey => &["PUBLIC KEY", "RSA PUBLIC KEY"],
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wanted::Certificates => "certificate",
            Wanted::PrivateKey => "private key",
            Wanted::RsaKey => "RSA private key",
            Wanted::PublicKey => "public key",
        })
    }
}

/// One block that was wanted.
pub struct Block {
    /// What stands behind `BEGIN`.
    pub label: &'static str,
    pub der: Zeroizing<Vec<u8>>,
}

impl Block {
    /// The block alone, as a text.
    pub fn text(&self) -> Zeroizing<String> {
        let body = Zeroizing::new(STANDARD.encode(&self.der));
        let label = self.label;
        Zeroizing::new(format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", *body))
    }
}

/// What is wrong with a file. The operator corrects it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct PemError {
    pub path: PathBuf,
    pub problem: Problem,
}

/// The same without the name of the file. Lines count from 1.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("the file can not be read: {0}")]
    Read(io::Error),
    #[error("the file is larger than {FILE_BYTES_MAX} bytes")]
    Large,
    #[error("the file is empty: a block `{}` is expected", .wanted.begin())]
    Empty { wanted: Wanted },
    #[error(
        "no {wanted} in it: this is not text. A block `{}` is expected; openssl makes PEM of DER \
         with -inform der", .wanted.begin()
    )]
    Binary { wanted: Wanted },
    #[error("no {wanted} in it: a block `{}` is expected{found}", .wanted.begin())]
    Missing { wanted: Wanted, found: Found },
    #[error(
        "the {wanted} of line {line} is encrypted with a password; decrypt it, e.g. with openssl \
         pkey, and let only the user of the gateway read it"
    )]
    Encrypted { wanted: Wanted, line: usize },
    #[error(
        "it ends inside of a block: the block `-----BEGIN {label}-----` of line {line} has no \
         `-----END {label}-----`"
    )]
    Unended { label: String, line: usize },
    #[error("the block `-----BEGIN {label}-----` of line {begin} is damaged: line {line} {what}")]
    Damaged { label: &'static str, begin: usize, line: usize, what: &'static str },
}

/// Labels of the blocks that are there in place of what is expected.
#[derive(Debug)]
pub struct Found(Vec<String>);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, ", and there is only {}", self.0.join(", "))
    }
}

/// Reads a file: all blocks of the wanted kind, one or more.
pub fn read(path: &Path, wanted: Wanted) -> Result<Vec<Block>, PemError> {
    let failed = |problem| PemError { path: path.to_owned(), problem };
    let mut bytes = Zeroizing::new(Vec::new());
    let file =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match file {
        Err(error) => Err(failed(Problem::Read(error))),
        Ok(_) if bytes.len() as u64 > FILE_BYTES_MAX => Err(failed(Problem::Large)),
        Ok(_) => blocks(&bytes, wanted).map_err(failed),
    }
}

/// The blocks of the wanted kind in a text.
fn blocks(text: &[u8], wanted: Wanted) -> Result<Vec<Block>, Problem> {
    // Text around blocks is nobody's business, in whatever encoding it is.
    let is_text = std::str::from_utf8(text).is_ok();
    let text = Zeroizing::new(String::from_utf8_lossy(text).into_owned());
    if !is_text && !text.contains("-----BEGIN ") {
        return Err(Problem::Binary { wanted });
    }
    // What some editors put before everything.
    let text = text.trim_start_matches('\u{feff}');
    if text.trim().is_empty() {
        return Err(Problem::Empty { wanted });
    }
    let mut found = Vec::new();
    let mut others = Vec::new();
    let mut lines = text.lines().map(str::trim).zip(1..);
    while let Some((line, begin)) = lines.next() {
        let Some(label) = marked(line, "BEGIN") else { continue };
        let end = format!("-----END {label}-----");
        let mut body = Vec::new();
        loop {
            match lines.next() {
                Some((line, _)) if line == end => break,
                Some((line, _)) if marked(line, "BEGIN").is_some() => {
                    return Err(Problem::Unended { label: shown(label), line: begin });
                }
                Some(line) => body.push(line),
                None => return Err(Problem::Unended { label: shown(label), line: begin }),
            }
        }
        let encrypted = body.iter().any(|(line, _)| line.starts_with("Proc-Type:"));
        match wanted.labels().iter().find(|wanted| **wanted == label) {
            Some(_) if encrypted => return Err(Problem::Encrypted { wanted, line: begin }),
            Some(label) => found.push(Block { label, der: decode(label, begin, &body)? }),
            None if label == "ENCRYPTED PRIVATE KEY" && wanted.is_private() => {
                return Err(Problem::Encrypted { wanted, line: begin });
            }
            None if !others.contains(&shown(label)) => others.push(shown(label)),
            None => {}
        }
    }
    match found.is_empty() {
        true => Err(Problem::Missing { wanted, found: Found(others) }),
        false => Ok(found),
    }
}

impl Wanted {
    /// The usual first line.
    fn begin(self) -> String {
        format!("-----BEGIN {}-----", self.labels()[0])
    }

    fn is_private(self) -> bool {
        matches!(self, Wanted::PrivateKey | Wanted::RsaKey)
    }
}

/// The label of a line like `-----BEGIN label-----`.
fn marked<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    let label = line.strip_prefix("-----")?.strip_suffix("-----")?.strip_prefix(mark)?;
    label.strip_prefix(' ')
}

/// A label as an error may show it: who writes a secret there shall not read it again.
fn shown(label: &str) -> String {
    let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == ' ';
    match label.len() <= LABEL_SHOWN_MAX && label.chars().all(plain) {
        true => label.to_owned(),
        false => "...".to_owned(),
    }
}

/// The bytes of a block, whose lines have their numbers beside them.
fn decode(
    label: &'static str,
    begin: usize,
    body: &[(&str, usize)],
) -> Result<Zeroizing<Vec<u8>>, Problem> {
    let damaged = |line, what| Problem::Damaged { label, begin, line, what };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    if let Some((_, line)) = body.iter().find(|(text, _)| !text.bytes().all(plain)) {
        return Err(damaged(*line, "is not base64"));
    }
    let text = Zeroizing::new(body.iter().map(|(text, _)| *text).collect::<String>());
    let last = body.last().map_or(begin, |(_, line)| *line);
    let der = STANDARD.decode(text.as_bytes()).map(Zeroizing::new);
    match der {
        Ok(der) if der.is_empty() => Err(damaged(last, "is followed by nothing")),
        Ok(der) => Ok(der),
        Err(_) => Err(damaged(last, "is not the end of its base64: characters are missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str, wanted: Wanted) -> String {
        match blocks(text.as_bytes(), wanted) {
            Ok(blocks) => panic!("{text:?} has {} blocks", blocks.len()),
            Err(problem) => problem.to_string(),
        }
    }

    #[test]
    fn blocks_are_found_between_other_text() {
        let text = "subject=/CN=a\r\n-----BEGIN CERTIFICATE-----\r\nAAEC\r\nAwQ=\r\n\
                    -----END CERTIFICATE-----\r\n\n  -----BEGIN CERTIFICATE-----  \n BQ== \n\
                    -----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n?\n\
                    -----END PRIVATE KEY-----";
        let found = blocks(text.as_bytes(), Wanted::Certificates).expect("two are in it");
        let ders: Vec<&[u8]> = found.iter().map(|block| &block.der[..]).collect();
        assert_eq!(ders, [&[0, 1, 2, 3, 4][..], &[5]]);
    }

    #[test]
    fn text_around_blocks_may_have_any_encoding() {
        let block = b"-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n";
        let text = [&b"friendlyName: M\xfcller\n"[..], block].concat();
        assert_eq!(blocks(&text, Wanted::Certificates).map(|found| found.len()).ok(), Some(1));
        let inside = [&block[..28], b"\xfc", &block[28..]].concat();
        assert!(blocks(&inside, Wanted::Certificates).is_err());
        let der = blocks(b"\x30\x82\xff", Wanted::Certificates);
        assert!(matches!(der, Err(Problem::Binary { .. })));
    }

    #[test]
    fn what_is_missing_is_said() {
        use Wanted::{Certificates, PrivateKey, PublicKey, RsaKey};
        let block = |label: &str, body: &str| {
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
        };
        let certificate = block("CERTIFICATE", "AAEC");
        let key = "no private key in it: a block `-----BEGIN PRIVATE KEY-----` is expected";
        let only = format!("{key}, and there is only CERTIFICATE");
        let cut = "it ends inside of a block: the block `-----BEGIN PRIVATE KEY-----` of line 2 \
                   has no `-----END PRIVATE KEY-----`";
        for (text, wanted, said) in [
            ("hello".to_owned(), PrivateKey, key),
            (format!("{certificate}{certificate}"), PrivateKey, &only),
            (block("PUBLIC KEY", "AAEC"), RsaKey, "no RSA private key in it"),
            (certificate.clone(), PublicKey, "a block `-----BEGIN PUBLIC KEY-----` is expected"),
            (" \n\n".to_owned(), Certificates, "the file is empty"),
            ("x\n-----BEGIN PRIVATE KEY-----\nAAEC\n".to_owned(), PrivateKey, cut),
            (format!("x\n-----BEGIN PRIVATE KEY-----\nAAEC\n{certificate}"), PrivateKey, cut),
            (format!("x\n-----BEGIN PRIVATE KEY-----\nAAEC\n{certificate}"), Certificates, cut),
            (block("ENCRYPTED PRIVATE KEY", "AAEC"), RsaKey, "line 1 is encrypted with a password"),
            (
                block("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED\nDEK-Info: x\n\nAAEC"),
                PrivateKey,
                "line 1 is encrypted with a password",
            ),
            (block("PRIVATE KEY", "AAEC\nAA?C\nAAEC"), PrivateKey, "damaged: line 3 is not base64"),
            (block("PRIVATE KEY", "A?"), PrivateKey, "the block `-----BEGIN PRIVATE KEY-----` of"),
            (block("PRIVATE KEY", "AAEC\nAA"), PrivateKey, "line 3 is not the end of its base64"),
            (block("PRIVATE KEY", ""), PrivateKey, "line 2 is followed by nothing"),
            (block("my SECRET", "AAEC"), PrivateKey, "there is only ..."),
        ] {
            let problem = problem(&text, wanted);
            assert!(problem.contains(said), "{text:?}: {problem}");
        }
        let binary = blocks(&[0x30, 0x82, 0xff], Certificates).err().expect("no text");
        assert!(binary.to_string().contains("this is not text"), "{binary}");
    }

    /// Wherever a file is cut or a character of it damaged, none of its key is repeated.
    #[test]
    fn no_damage_makes_an_error_repeat_a_key() {
        let body = "TUFSS0VSTUFSS0VSTUFSS0VS";
        let whole = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        let repeated = |text: &[u8]| {
            blocks(text, Wanted::PrivateKey).err().is_some_and(|problem| {
                let said = problem.to_string();
                body.as_bytes().windows(8).any(|part| said.as_bytes().windows(8).any(|w| w == part))
            })
        };
        for at in 0..whole.len() {
            assert!(!repeated(&whole.as_bytes()[..at]), "cut at {at}");
            for byte in [b'-', b'\n', b' ', b'?', b'A', 0xff] {
                let mut text = whole.clone().into_bytes();
                text[at] = byte;
                assert!(!repeated(&text), "{byte} at {at}");
                text = whole.clone().into_bytes();
                text.insert(at, byte);
                assert!(!repeated(&text), "{byte} before {at}");
            }
        }
    }
}
