//! What is wrong with a configuration, said so that it can be put right without the source.

use std::fmt;

/// One thing that is wrong. The process prints it and exits with code 1; nothing recovers from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the value comes from: the path of the file, or the name of the environment variable.
    pub file: Box<str>,
    /// Line in the file, if one line is to blame.
    pub line: Option<u32>,
    /// The key with all its tables, e.g. `netsvr.customer.max_online`; empty if it is the whole
    /// file.
    pub key: Box<str>,
    /// The value as it was written, shortened; empty if there is none.
    pub value: Box<str>,
    /// What is wrong with it.
    pub problem: Box<str>,
    /// What would be right; may be empty.
    pub allowed: Box<str>,
    /// What to do about it; may be empty.
    pub to_do: Box<str>,
}

impl ConfigError {
    /// Whether there is nothing to be read, rather than something that is wrong.
    pub fn is_about_the_file(&self) -> bool {
        self.key.is_empty() && self.line.is_none()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        if !self.value.is_empty() {
            write!(f, " = {}", self.value)?;
        }
        write!(f, ": {}.", self.problem)?;
        if !self.allowed.is_empty() {
            write!(f, " Allowed: {}.", self.allowed)?;
        }
        if !self.to_do.is_empty() {
            write!(f, " {}.", self.to_do)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// What is said about a value, before its place is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Complaint {
    pub problem: String,
    pub allowed: String,
    pub to_do: String,
}

impl Complaint {
    pub fn new(problem: impl Into<String>) -> Complaint {
        Complaint { problem: problem.into(), ..Complaint::default() }
    }

    pub fn allowed(self, allowed: impl Into<String>) -> Complaint {
        Complaint { allowed: allowed.into(), ..self }
    }

    pub fn advise(self, to_do: impl Into<String>) -> Complaint {
        Complaint { to_do: to_do.into(), ..self }
    }
}
