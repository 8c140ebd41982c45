//! Configuration: defaults, a TOML file, `RINGWAY_*` environment variables over it, checked.
//!
//! [`load`] and [`demo_with_env`] give a [`model::Config`] in which every value is within the
//! bounds of [`crate::limits`], or a [`ConfigError`] that says where which value is wrong, what is
//! allowed and what to do. Invariant: a key is described in one place (`keys` or the limits table),
//! from which parser, error messages and [`reference()`] are made. Read once, at start.

mod check;
pub mod choice;
pub mod connmix;
mod connmix_server;
mod env;
mod error;
mod file;
mod im;
mod keys;
mod listeners;
mod log_filter;
mod login;
mod machine;
mod mesh;
pub mod model;
mod origins;
mod reference;
mod settings;
pub mod xxim;
mod xxim_push;
mod xxim_upstream;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

pub use self::error::ConfigError;
pub use self::file::{free as toml_value, line_at};
pub use self::keys::{all as keys, secret_keys};
pub use self::machine::{first_ipv4, push_connections_max, raise_nofile, reserve_descriptors};
pub use self::model::Config;
pub use self::reference::reference;

use self::error::Complaint;
use self::machine::Machine;
use self::settings::Settings;

/// The environment variable that names the configuration file.
pub const FILE_VARIABLE: &str = "RINGWAY_CONFIG";

/// A configuration that may be used, and what its owner should know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub config: Config,
    /// One sentence each, for the log.
    pub warnings: Vec<String>,
}

/// What `ringway demo` starts from.
const DEMO: &str = r#"
[[listener]]
bind = "127.0.0.1:6060"
routes = [ { path = "/netsvr", protocol = "netsvr" }, { path = "/echo", protocol = "echo" } ]

[[listener]]
bind = "127.0.0.1:6061"
protocol = "netsvr-worker"

[[listener]]
bind = "127.0.0.1:6062"
protocol = "netsvr-task"

[[listener]]
bind = "127.0.0.1:6787"
protocol = "connmix-api"

[[listener]]
bind = "127.0.0.1:6789"
protocol = "connmix-api"

[[listener]]
bind = "127.0.0.1:6701"
routes = [
    { path = "/ws", protocol = "xxim" },
    { path = "/", protocol = "xxim" },
    { path = "/im", protocol = "im" },
]

[[listener]]
bind = "127.0.0.1:6791"
protocol = "im"

[[listener]]
bind = "127.0.0.1:6790"
routes = [ { path = "/chat", protocol = "connmix", server = "demo" } ]

[[connmix.server]]
name = "demo"
text_ping = true

# Some channels are open to everybody, without the worker.
[[connmix.server.rule]]
on = "message"
type = "text"
when = { data = "re:^subscribe (news|open_[A-Za-z0-9]{1,32})$" }
do = [ { subscribe = ["${m.1}"] }, { send = "subscribed ${m.1}" } ]

[[connmix.server.rule]]
on = "message"
type = "text"
when = { data = "re:^unsubscribe (news|open_[A-Za-z0-9]{1,32})$" }
do = [ { unsubscribe = ["${m.1}"] }, { send = "unsubscribed ${m.1}" } ]

[[connmix.server.rule]]
on = "message"
type = "text"
when = { "json.op" = "auth" }
do = [
    { push = { topic = "demo", event = "message", include = ["uid=ctx.uid", "frame"] } },
    { wait = { key = "uid", timeout = 10 } },
]

[[connmix.server.rule]]
on = "message"
type = "text"
do = [ { push = { topic = "demo", event = "message", include = ["uid=ctx.uid", "frame"] } } ]

[netsvr.customer]
compression_level = 1

[xxim.push]
bind = "127.0.0.1:6700"

[im]
announce_join = true
forward = "message"

[xxim.crypto]
private_key = "generate"
"#;
const DEMO_FILE: &str = "built-in demo configuration";

/// Reads a file and the environment of the process. Raises the soft limit of descriptors.
pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
    load_with(path, std::env::vars_os())
}

/// As [`load`], with these environment variables.
pub fn load_with(
    path: &Path,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, ConfigError> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let settings = Settings { file: file.clone(), ..Settings::default() };
        let complaint = Complaint::new(format!("the configuration can not be read: {error}"));
        settings.error("", complaint.advise("Pass the path of a TOML file that ringway may read"))
    })?;
    let mut settings = file::parse(&text, &file)?;
    let unknown = env::overlay(&mut settings, variables)?;
    let mut loaded = check::build(&settings, &Machine::here())?;
    loaded.warnings.extend(unknown);
    Ok(loaded)
}

/// A configuration that is in memory, without environment. `name` is what errors call it.
pub fn from_text(text: &str, name: &str) -> Result<Loaded, ConfigError> {
    check::build(&file::parse(text, name)?, &Machine::here())
}

/// The configuration of `ringway demo`, with the environment of the process over it. Everything
/// stays on loopback.
pub fn demo_with_env() -> Result<Loaded, ConfigError> {
    demo_with(std::env::vars_os())
}

/// As [`demo_with_env`], with these environment variables.
pub fn demo_with(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, ConfigError> {
    let mut settings = file::parse(DEMO, DEMO_FILE)?;
    let unknown = env::overlay(&mut settings, variables)?;
    let mut loaded = check::build(&settings, &Machine::here())?;
    loaded.warnings.extend(unknown);
    let outside = |bind: SocketAddr| !bind.ip().is_loopback();
    let binds = loaded.config.listeners.iter().map(|listener| listener.bind);
    let listener = binds.enumerate().find(|(_, bind)| outside(*bind));
    let path = listener.map(|(index, _)| format!("listener.{index}.bind"));
    let admin = loaded.config.admin.bind.filter(|bind| outside(*bind));
    let push = loaded.config.xxim_upstreams.push.as_ref().filter(|push| outside(push.bind));
    let path = path.or(admin.map(|_| "admin.bind".to_owned()));
    match path.or(push.map(|_| "xxim.push.bind".to_owned())) {
        None => Ok(loaded),
        Some(path) => {
            let complaint = Complaint::new("the demo lets everybody in")
                .allowed("addresses on loopback")
                .advise("Write a configuration file and use `ringway serve --config <file>`");
            Err(settings.error(&path, complaint))
        }
    }
}

impl Config {
    /// The configuration of `ringway demo`, whatever the environment says.
    pub fn demo() -> Config {
        let settings = file::parse(DEMO, DEMO_FILE);
        let loaded = settings.and_then(|settings| check::build(&settings, &Machine::here()));
        loaded.expect("DEMO is a constant that depends on nothing of the machine").config
    }
}
