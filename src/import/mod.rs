//! Configurations of other gateways, made into one of Ringway's.
//!
//! What has no counterpart here becomes a comment that says why. Invariant: what is printed passes
//! `ringway check` as it is, on the machine on which it was made.

mod netsvr;
mod original;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub use self::netsvr::netsvr;

/// What is wrong with a configuration of another gateway. Its owner corrects it. Values are not
/// repeated: they may be secrets.
#[derive(Debug, thiserror::Error)]
#[error(
    "{file}{}{}: {problem}",
    .line.map(|line| format!(":{line}")).unwrap_or_default(),
    .key.as_ref().map(|key| format!(": {key}")).unwrap_or_default()
)]
pub struct ImportError {
    pub file: String,
    /// Counts from 1; `None` if it is about no line.
    pub line: Option<u32>,
    /// As the file writes it, with its table; `None` if it is about the whole file.
    pub key: Option<String>,
    pub problem: String,
}

/// Writes a new file that its owner and group may read, as it may have secrets in it. One that
/// exists is not touched.
///
/// # Errors
/// A sentence.
pub fn write_new(path: &Path, text: &str) -> Result<(), String> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o640).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{} exists already; remove it, or choose another name", path.display())
        }
        _ => format!("{} can not be written: {error}", path.display()),
    })
}
