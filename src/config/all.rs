//! The whole configuration: the list of all sections, those of the protocols among them, and how
//! it is read. Who needs one section is given that, and does not come here.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

use super::error::{Complaint, ConfigError};
use super::keys::Section;
use super::login::LoginSettings;
use super::machine::Machine;
use super::mesh::Mesh;
use super::model::{Admin, Listener, Log, Runtime, Service, Sidecar};
use super::settings::Settings;
use super::tables::Tables;
use super::{env, file, listeners, login, mesh, process, reference, trust};
use crate::limits;
use crate::protocols::connmix::config::server::{self as connmix_server, ConnmixServer};
use crate::protocols::connmix::config::{self as connmix, Connmix};
use crate::protocols::im::config::{self as im, Im};
use crate::protocols::netsvr::config::{self as netsvr, Netsvr};
use crate::protocols::xxim::config::upstream::{self as xxim_upstream, XximUpstreams};
use crate::protocols::xxim::config::{self as xxim, Xxim, push as xxim_push};
use crate::wire::forwarded::Proxies;

/// The sections, in the order of the reference.
const SECTIONS: &[Section] = &[
    process::FIRST,
    listeners::SECTION,
    trust::SECTION,
    netsvr::SECTION,
    process::ADMIN,
    login::SECTION,
    xxim::SECTION,
    xxim_upstream::SECTION,
    xxim_push::SECTION,
    connmix::SECTION,
    connmix_server::SECTION,
    im::SECTION,
    mesh::SECTION,
    process::LAST,
];

/// All tables.
pub(crate) static TABLES: Tables =
    Tables { sections: SECTIONS, limits: limits::all::TABLES, former: netsvr::former };

/// A default of connections below this is worth a warning.
const CONNECTIONS_FEW: u32 = 1000;

/// Everything `ringway serve` needs to know. Built by [`load`] or
/// [`Config::demo`]; every value is within the bounds of [`crate::limits`].
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Number of this machine in the mesh, 1..=1023; part of connmix client ids.
    pub node: u16,
    pub runtime: Runtime,
    pub listeners: Vec<Listener>,
    /// `[trust]`.
    pub trust: Proxies,
    pub netsvr: Netsvr,
    pub sidecar: Sidecar,
    pub login: LoginSettings,
    pub xxim: Xxim,
    /// `[[xxim.upstream]]`, `[[xxim.route]]`, `[xxim.hooks]`, `[xxim.push]`.
    pub xxim_upstreams: XximUpstreams,
    pub connmix: Connmix,
    /// `[[connmix.server]]`, in order.
    pub connmix_servers: Vec<ConnmixServer>,
    pub im: Im,
    pub mesh: Mesh,
    pub admin: Admin,
    pub log: Log,
}

/// A configuration that may be used, and what its owner should know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub config: Config,
    /// One sentence each, for the log.
    pub warnings: Vec<String>,
}

/// Every configuration key, those that are limits included, each once.
pub fn keys() -> impl Iterator<Item = &'static str> {
    TABLES.all()
}

/// Every key of whose value errors repeat nothing, or only a part.
pub fn secret_keys() -> impl Iterator<Item = &'static str> {
    TABLES.secret_keys()
}

/// All keys and all limits as Markdown tables, with a line feed at the end.
pub fn reference() -> String {
    reference::reference(&TABLES)
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

# Whoever tries it out does not want to wait for its end.
[runtime.drain]
delay = "0s"
spread = "0s"

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
        let settings = Settings::new(&file, &TABLES);
        let complaint = Complaint::new(format!("the configuration can not be read: {error}"));
        settings.error("", complaint.advise("Pass the path of a TOML file that ringway may read"))
    })?;
    let mut settings = file::parse(&text, &file, &TABLES)?;
    let unknown = env::overlay(&mut settings, variables)?;
    let mut loaded = build(&settings, &Machine::here())?;
    loaded.warnings.extend(unknown);
    Ok(loaded)
}

/// A configuration that is in memory, without environment. `name` is what errors call it.
pub fn from_text(text: &str, name: &str) -> Result<Loaded, ConfigError> {
    build(&file::parse(text, name, &TABLES)?, &Machine::here())
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
    let mut settings = file::parse(DEMO, DEMO_FILE, &TABLES)?;
    let unknown = env::overlay(&mut settings, variables)?;
    let mut loaded = build(&settings, &Machine::here())?;
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
        let settings = file::parse(DEMO, DEMO_FILE, &TABLES);
        let loaded = settings.and_then(|settings| build(&settings, &Machine::here()));
        loaded.expect("DEMO is a constant that depends on nothing of the machine").config
    }
}

/// Reads everything. The machine is asked for what was left open.
fn build(settings: &Settings, machine: &Machine) -> Result<Loaded, ConfigError> {
    settings.check_keys()?;
    let connmix_servers = connmix_server::read(settings)?;
    let number = |path: &str| connmix_server::number(settings, path, &connmix_servers);
    let trust = trust::read(settings, "xxim.trusted_proxies")?;
    let listeners = listeners::read(settings, &number, !trust.trusted.is_empty())?;
    let taken = || xxim_push::descriptors(settings, machine.descriptors_max);
    let config = Config {
        node: settings.number("node")?,
        runtime: process::runtime(settings, machine, &taken)?,
        trust,
        netsvr: netsvr::read(settings, &listeners, machine)?,
        sidecar: process::sidecar(settings)?,
        login: login::read(settings, &listeners)?,
        xxim: xxim::read(settings)?,
        xxim_upstreams: xxim_upstream::read(settings)?,
        connmix: connmix::read(settings, &listeners)?,
        connmix_servers,
        im: im::read(settings)?,
        mesh: mesh::read(settings)?,
        admin: process::admin(settings)?,
        log: process::log(settings)?,
        listeners,
    };
    listeners::check_overlap(settings, &config.listeners, config.admin.bind)?;
    let warnings = warnings(settings, &config);
    Ok(Loaded { config, warnings })
}

fn warnings(settings: &Settings, config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let shown = |key: &str| settings.show(&format!("listener.{index}.{key}"));
        let bind = listener.bind;
        match listener.service {
            _ if !listener.lets_everybody_in() => {}
            // It would have been refused otherwise.
            Service::NetsvrWorker | Service::NetsvrTask => warnings.push(format!(
                "{} = true: whoever can reach {} = {bind} ({}) can read and control every client",
                shown("trusted"),
                shown("bind"),
                listener.service.describe()
            )),
            Service::ConnmixApi if listener.tls.is_none() => warnings.push(format!(
                "{} = {bind}: the passwords of the connmix API cross the network as they are. Set \
                 tls, or bind it to a private network",
                shown("bind")
            )),
            _ => {}
        }
    }
    if let Some(bind) = config.admin.bind.filter(|bind| !bind.ip().is_loopback()) {
        let key = settings.show("admin.bind");
        warnings
            .push(format!("{key} = {bind}: whoever can reach this address can read the metrics"));
    }
    let connections_max = config.runtime.connections_max;
    if !settings.is_set("runtime.connections_max") && connections_max < CONNECTIONS_FEW {
        warnings.push(format!(
            "RLIMIT_NOFILE permits only {connections_max} connections. Raise it (systemd: \
             LimitNOFILE, shell: ulimit -n)"
        ));
    }
    let max_online = config.netsvr.customer.max_online;
    if settings.is_set("netsvr.customer.max_online") && max_online > connections_max {
        let key = settings.show("netsvr.customer.max_online");
        warnings.push(format!(
            "{key} = {max_online} can not be reached: runtime.connections_max is {connections_max}"
        ));
    }
    if config.runtime.shutdown_timeout < config.runtime.close_timeout {
        warnings.push(
            "runtime.shutdown_timeout is shorter than runtime.close_timeout: clients that do not \
             answer a close frame make every shutdown end with code 1"
                .to_owned(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::limits::SHARDS_MAX;

    fn build_on(machine: &Machine, text: &str) -> Result<Loaded, ConfigError> {
        let listener = "[[listener]]\nbind = \"0.0.0.0:6062\"\nprotocol = \"netsvr-task\"\n\
                        trusted = true\n";
        build(&file::parse(&format!("{text}\n{listener}"), "a.toml", &TABLES)?, machine)
    }

    fn machine() -> Machine {
        let ipv4 = Some(Ipv4Addr::new(10, 0, 0, 5));
        Machine { cpus: vec![0, 1, 2, 5], descriptors_max: 20_000, ipv4 }
    }

    #[test]
    fn what_is_left_open_is_taken_from_the_machine() {
        let loaded = build_on(&machine(), "").expect("this is complete");
        let config = loaded.config;
        assert_eq!(config.runtime.cpus, [0, 1, 2, 5]);
        assert_eq!(config.runtime.connections_max, 20_000 - 256 - 4 * 64);
        assert_eq!(config.netsvr.advertise.to_string(), "10.0.0.5:6062");
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
        let large = Machine { descriptors_max: u64::MAX, ..machine() };
        let config = build_on(&large, "").expect("this is complete").config;
        assert_eq!(config.runtime.connections_max, 1_000_000);
        let many = Machine { cpus: (0..300).collect(), ..machine() };
        let config = build_on(&many, "").expect("this is complete").config;
        assert_eq!(config.runtime.cpus.len(), SHARDS_MAX);
    }

    #[test]
    fn few_descriptors_are_worth_a_warning_and_no_error() {
        let small = Machine { descriptors_max: 256, ..machine() };
        let loaded = build_on(&small, "").expect("this is complete");
        assert_eq!(loaded.config.runtime.connections_max, 1);
        assert!(loaded.warnings[1].contains("RLIMIT_NOFILE"), "{:?}", loaded.warnings);
    }

    #[test]
    fn more_connections_than_descriptors_are_refused_with_the_figures() {
        let text = "[runtime]\ncpus = \"0-2\"\nconnections_max = ";
        build_on(&machine(), &format!("{text}19552")).expect("20000 descriptors are enough");
        let error = build_on(&machine(), &format!("{text}19553")).expect_err("one too many");
        assert_eq!(
            error.to_string(),
            "a.toml:3: runtime.connections_max = 19553: this needs 20001 descriptors (448 of them \
             for ringway itself), but the process may open 20000 (RLIMIT_NOFILE). Allowed: 1 to \
             19552 connections. Raise the limit (systemd: LimitNOFILE=20001; shell: ulimit -n \
             20001, and /etc/security/limits.conf), or lower the value."
        );
    }

    #[test]
    fn only_cpus_of_the_process_can_be_chosen() {
        let with = |cpus: &str| build_on(&machine(), &format!("[runtime]\ncpus = \"{cpus}\""));
        assert_eq!(with("5, 0-1").expect("these exist").config.runtime.cpus, [0, 1, 5]);
        let error = with("0-3").expect_err("there is no CPU 3").to_string();
        assert!(error.contains("may not use CPU 3") && error.contains("0-2,5"), "{error}");
        for text in ["0,0", "1-0", "-", "0-", "0-99999999999", ","] {
            let error = with(text).expect_err(text).to_string();
            assert!(error.contains("not a list of CPUs"), "{error}");
        }
    }

    #[test]
    fn a_machine_without_addresses_must_be_told_what_to_advertise() {
        let lonely = Machine { ipv4: None, ..machine() };
        let error = build_on(&lonely, "").expect_err("there is no address");
        assert_eq!(&*error.key, "netsvr.advertise");
        let told = build_on(&lonely, "[netsvr]\nadvertise = \"192.0.2.1:62\"").expect("it is told");
        assert_eq!(told.config.netsvr.advertise.to_string(), "192.0.2.1:62");
    }
}
