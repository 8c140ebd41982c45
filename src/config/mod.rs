//! Configuration: defaults, a TOML file, `RINGWAY_*` environment variables over it, checked.
//!
//! [`all::load`] and [`all::demo_with_env`] give an [`all::Config`] in which every value is within
//! the bounds of [`crate::limits`], or a [`ConfigError`] that says where which value is wrong, what
//! is allowed and what to do. Invariant: a key is described in one place (the keys of its section,
//! or the limits), from which parser, error messages and [`all::reference()`] are made.
//!
//! A protocol has its section in its folder; [`all`] is the list of all sections, and nothing else
//! here imports a protocol. Read once, at start.

pub mod all;
pub mod choice;
mod env;
pub(crate) mod error;
mod file;
pub(crate) mod keys;
pub(crate) mod listeners;
mod log_filter;
mod login;
pub(crate) mod machine;
mod mesh;
pub mod model;
pub(crate) mod origins;
pub(crate) mod places;
mod process;
mod reference;
pub(crate) mod settings;
pub(crate) mod tables;
mod trust;

pub use self::error::ConfigError;
pub use self::file::{free as toml_value, line_at};
pub use self::machine::{first_ipv4, raise_nofile, reserve_descriptors};

/// The environment variable that names the configuration file.
pub const FILE_VARIABLE: &str = "RINGWAY_CONFIG";
