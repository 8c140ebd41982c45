//! From settings to the typed configuration: every key read, every value within its bounds, and
//! what only shows when several of them are seen together.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use super::Loaded;
use super::error::{Complaint, ConfigError};
use super::listeners::{address, check_overlap, listeners};
use super::machine::{Machine, push_connections_max};
use super::model::*;
use super::settings::{Settings, allowed};
use super::{connmix, connmix_server, im, log_filter, login, mesh, origins, xxim, xxim_upstream};
use crate::limits::all::default;
use crate::limits::{DESCRIPTORS_RESERVED, DESCRIPTORS_RESERVED_PER_SHARD, SHARDS_MAX};

/// A default of connections below this is worth a warning.
const CONNECTIONS_FEW: u32 = 1000;

/// Reads everything. The machine is asked for what was left open.
pub(super) fn build(settings: &Settings, machine: &Machine) -> Result<Loaded, ConfigError> {
    settings.check_keys()?;
    let connmix_servers = connmix_server::read(settings)?;
    let listeners = listeners(settings, &connmix_servers)?;
    let config = Config {
        node: settings.number("node")?,
        runtime: runtime(settings, machine)?,
        netsvr: netsvr(settings, &listeners, machine)?,
        sidecar: Sidecar {
            threads: settings.number("sidecar.threads")?,
            redirects_max: settings.number("sidecar.redirects_max")?,
            idle_timeout: settings.duration("sidecar.idle_timeout")?,
        },
        login: login::read(settings, &listeners)?,
        xxim: xxim::read(settings)?,
        xxim_upstreams: xxim_upstream::read(settings)?,
        connmix: connmix::read(settings, &listeners)?,
        connmix_servers,
        im: im::read(settings)?,
        mesh: mesh::read(settings)?,
        admin: admin(settings)?,
        log: log(settings)?,
        listeners,
    };
    check_overlap(settings, &config.listeners, config.admin.bind)?;
    let warnings = warnings(settings, &config);
    Ok(Loaded { config, warnings })
}

fn runtime(settings: &Settings, machine: &Machine) -> Result<Runtime, ConfigError> {
    let cpus = cpus(settings, machine)?;
    let receive_buffers: u16 = settings.number("runtime.receive_buffers")?;
    if !receive_buffers.is_power_of_two() {
        let next = receive_buffers.next_power_of_two();
        let complaint = Complaint::new("this is not a power of two");
        let complaint = complaint.advise(format!("Use {} or {next}", next / 2));
        return Err(settings.error("runtime.receive_buffers", complaint));
    }
    Ok(Runtime {
        connections_max: connections_max(settings, machine, cpus.len())?,
        cpus,
        outbox_bytes_max: settings.number("runtime.outbox_bytes_max")?,
        slow_client: settings.choice("runtime.slow_client")?,
        mailbox_messages_max: settings.number("runtime.mailbox_messages_max")?,
        receive_buffers,
        receive_buffer_bytes: settings.number("runtime.receive_buffer_bytes")?,
        handshake_timeout: settings.duration("runtime.handshake_timeout")?,
        close_timeout: settings.duration("runtime.close_timeout")?,
        shutdown_timeout: settings.duration("runtime.shutdown_timeout")?,
        watchdog: watchdog(settings)?,
    })
}

/// An idle shard turns once in a second.
fn watchdog(settings: &Settings) -> Result<Duration, ConfigError> {
    const LEAST: Duration = Duration::from_secs(3);
    let watchdog = settings.duration("runtime.watchdog")?;
    if watchdog.is_zero() || watchdog >= LEAST {
        return Ok(watchdog);
    }
    let complaint = Complaint::new("a shard without work has a turn once in a second");
    let complaint =
        complaint.advise("Use at least 3s, or 0s to switch the watchdog off".to_owned());
    Err(settings.error("runtime.watchdog", complaint))
}

fn cpus(settings: &Settings, machine: &Machine) -> Result<Vec<usize>, ConfigError> {
    let text = settings.text("runtime.cpus")?;
    if text.trim().is_empty() {
        return Ok(machine.cpus.iter().copied().take(SHARDS_MAX).collect());
    }
    let usable = || format!("CPUs that this process may use: {}", cpu_list(&machine.cpus));
    let complaint = match parse_cpus(&text) {
        None => Complaint::new("this is not a list of CPUs").allowed(format!(
            "{}. {}",
            allowed("runtime.cpus"),
            usable()
        )),
        Some(cpus) => match cpus.iter().find(|cpu| !machine.cpus.contains(cpu)) {
            Some(cpu) => Complaint::new(format!("this process may not use CPU {cpu}"))
                .allowed(usable())
                .advise("Look at taskset, cpuset or AllowedCPUs, or take other CPUs"),
            None if cpus.len() > SHARDS_MAX => Complaint::new(format!("these are {}", cpus.len()))
                .allowed(format!("at most {SHARDS_MAX} CPUs")),
            None => return Ok(cpus.into_iter().collect()),
        },
    };
    Err(settings.error("runtime.cpus", complaint))
}

/// `"0-3,6"`. `None` if it is not a list, is empty, or names a CPU twice.
fn parse_cpus(text: &str) -> Option<BTreeSet<usize>> {
    /// No machine that Linux runs on has a higher number.
    const CPU_MAX: usize = 8191;
    let mut cpus = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().ok()?;
        let last: usize = last.trim().parse().ok().filter(|last| *last <= CPU_MAX)?;
        if first > last || !(first..=last).all(|cpu| cpus.insert(cpu)) {
            return None;
        }
    }
    Some(cpus)
}

/// The inverse of [`parse_cpus`]; `cpus` ascends.
fn cpu_list(cpus: &[usize]) -> String {
    let runs = cpus.chunk_by(|a, b| a + 1 == *b).filter_map(|run| {
        let (first, last) = (run.first()?, run.last()?);
        Some(if first == last { first.to_string() } else { format!("{first}-{last}") })
    });
    runs.collect::<Vec<_>>().join(",")
}

fn connections_max(
    settings: &Settings,
    machine: &Machine,
    shards: usize,
) -> Result<u32, ConfigError> {
    const KEY: &str = "runtime.connections_max";
    let mut reserve = DESCRIPTORS_RESERVED + DESCRIPTORS_RESERVED_PER_SHARD * shards as u64;
    reserve += admin_descriptors(settings)?;
    if !settings.text("xxim.push.bind")?.is_empty() {
        let max = settings.number("xxim.push.connections_max")?;
        reserve += push_connections_max(max, machine.descriptors_max);
    }
    let permitted = machine.descriptors_max.saturating_sub(reserve);
    let wanted: u32 = settings.number(KEY)?;
    if u64::from(wanted) <= permitted {
        return Ok(wanted);
    }
    if !settings.is_set(KEY) {
        // Not above `wanted`, so it fits.
        return Ok(u32::try_from(permitted).unwrap_or(wanted).max(1));
    }
    let needed = u64::from(wanted) + reserve;
    let complaint = Complaint::new(format!(
        "this needs {needed} descriptors ({reserve} of them for ringway itself), but the process \
         may open {} (RLIMIT_NOFILE)",
        machine.descriptors_max
    ));
    let complaint = complaint.allowed(format!("1 to {permitted} connections")).advise(format!(
        "Raise the limit (systemd: LimitNOFILE={needed}; shell: ulimit -n {needed}, and \
         /etc/security/limits.conf), or lower the value"
    ));
    Err(settings.error(KEY, complaint))
}

/// Those of the admin server beyond the default, for which there is room in any case.
fn admin_descriptors(settings: &Settings) -> Result<u64, ConfigError> {
    let max: u64 = settings.number("admin.connections_max")?;
    Ok(max.saturating_sub(default("admin.connections_max").unsigned_abs()))
}

fn netsvr(
    settings: &Settings,
    listeners: &[Listener],
    machine: &Machine,
) -> Result<Netsvr, ConfigError> {
    let generation = match settings.number("netsvr.generation")? {
        5u8 => Generation::G5,
        _ => Generation::G6,
    };
    let metrics_items: BTreeSet<u8> =
        settings.numbers("netsvr.metrics_items")?.into_iter().collect();
    Ok(Netsvr {
        generation,
        advertise: advertise(settings, listeners, generation, machine)?,
        customer: customer(settings)?,
        worker: worker(settings, generation)?,
        task: NetsvrTask {
            read_deadline: settings.duration("netsvr.task.read_deadline")?,
            send_deadline: settings.duration("netsvr.task.send_deadline")?,
            receive_pack_limit: settings.number("netsvr.task.receive_pack_limit")?,
            heartbeat_message: settings.text("netsvr.task.heartbeat_message")?.into_bytes(),
        },
        limit: NetsvrLimit {
            on_open: settings.number("netsvr.limit.on_open")?,
            on_message: settings.number("netsvr.limit.on_message")?,
        },
        cluster: settings.flag("netsvr.cluster")?,
        metrics_items: metrics_items.into_iter().collect(),
    })
}

fn customer(settings: &Settings) -> Result<NetsvrCustomer, ConfigError> {
    let key = |name: &str| format!("netsvr.customer.{name}");
    let mode = settings.choice(&key("allow_origin_mode"))?;
    Ok(NetsvrCustomer {
        allow_origin: origins::read(settings, &key("allow_origin"), mode)?,
        heartbeat_interval: settings.duration(&key("heartbeat_interval"))?,
        heartbeat_message: settings.text(&key("heartbeat_message"))?.into_bytes(),
        max_online: settings.number(&key("max_online"))?,
        receive_pack_limit: settings.number(&key("receive_pack_limit"))?,
        send_message_type: settings.choice(&key("send_message_type"))?,
        compression_level: settings.number(&key("compression_level"))?,
        on_open_callback_api: url(settings, &key("on_open_callback_api"))?,
        on_close_callback_api: url(settings, &key("on_close_callback_api"))?,
        callback_api_deadline: settings.duration(&key("callback_api_deadline"))?,
        callbacks_max: settings.number(&key("callbacks_max"))?,
        close_callbacks_max: settings.number(&key("close_callbacks_max"))?,
        limit_window: settings.duration(&key("limit_window_size"))?,
        limit_window_max_requests: settings.number(&key("limit_window_max_requests"))?,
        limit_zero_window_max_requests: settings.number(&key("limit_zero_window_max_requests"))?,
    })
}

fn worker(settings: &Settings, generation: Generation) -> Result<NetsvrWorker, ConfigError> {
    let key = |name: &str| format!("netsvr.worker.{name}");
    Ok(NetsvrWorker {
        read_deadline: settings.duration(&key("read_deadline"))?,
        send_deadline: settings.duration(&key("send_deadline"))?,
        receive_pack_limit: settings.number(&key("receive_pack_limit"))?,
        heartbeat_message: settings.text(&key("heartbeat_message"))?.into_bytes(),
        pick: settings.choice(&key("pick"))?,
        on_full: settings.choice(&key("on_full"))?,
        commands: commands(settings, generation)?,
        queue_frames_max: settings.number(&key("queue_frames_max"))?,
        queue_bytes_max: settings.number(&key("queue_bytes_max"))?,
        transfer_session: settings.flag(&key("transfer_session"))?,
        transfer_topics: settings.flag(&key("transfer_topics"))?,
        register_delay: settings.duration(&key("register_delay"))?,
    })
}

fn commands(settings: &Settings, generation: Generation) -> Result<WorkerCommands, ConfigError> {
    const KEY: &str = "netsvr.worker.commands";
    match settings.choice(KEY)? {
        WorkerCommands::Own if generation == Generation::G5 => {
            let complaint = Complaint::new("SDKs of generation 5 send all commands to one port")
                .allowed("\"both\" with netsvr.generation = 5");
            Err(settings.error(KEY, complaint))
        }
        commands => Ok(commands),
    }
}

/// The URL of a callback; `None` if it is empty.
pub(super) fn url(settings: &Settings, path: &str) -> Result<Option<String>, ConfigError> {
    let url = settings.text(path)?;
    if url.is_empty() {
        return Ok(None);
    }
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic());
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let authority = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    if plain && !name.is_empty() && port.is_none_or(|port| port.parse::<u16>().is_ok()) {
        return Ok(Some(url));
    }
    let complaint = Complaint::new("this is not a URL of an HTTP server")
        .allowed("http://host:port/path or https://host:port/path, or empty for no callback")
        .advise("Write other characters than printable ASCII as %XX");
    Err(settings.error(path, complaint))
}

/// The address in uniqIds (netsvr sections 1 and 2.9).
fn advertise(
    settings: &Settings,
    listeners: &[Listener],
    generation: Generation,
    machine: &Machine,
) -> Result<SocketAddrV4, ConfigError> {
    const KEY: &str = "netsvr.advertise";
    if !settings.text(KEY)?.is_empty() {
        return match address(settings, KEY, true)? {
            SocketAddr::V4(address) if !address.ip().is_unspecified() && address.port() != 0 => {
                Ok(address)
            }
            _ => Err(settings.error(
                KEY,
                Complaint::new("business processes can not connect to this address")
                    .advise("Write the address and port that the SDKs are configured with"),
            )),
        };
    }
    let first = |service: Service| listeners.iter().find(|listener| listener.service == service);
    let (worker, task) = (first(Service::NetsvrWorker), first(Service::NetsvrTask));
    let listener = match generation {
        Generation::G5 => worker.or(task),
        Generation::G6 => task.or(worker),
    };
    match listener.map(|listener| listener.bind) {
        Some(SocketAddr::V4(bind)) if !bind.ip().is_unspecified() => Ok(bind),
        Some(bind) => match machine.ipv4 {
            Some(ip) => Ok(SocketAddrV4::new(ip, bind.port())),
            None => Err(settings.error(
                KEY,
                Complaint::new("it is missing, and this machine has no IPv4 but loopback")
                    .advise("Set it to the address and port that the SDKs are configured with"),
            )),
        },
        None if has_netsvr_route(listeners) => Err(settings.error(
            KEY,
            Complaint::new("netsvr clients are served, but no business process can connect").advise(
                "Add a [[listener]] with protocol = \"netsvr-worker\" and one with \"netsvr-task\"",
            ),
        )),
        // Nobody sees it.
        None => Ok(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)),
    }
}

fn has_netsvr_route(listeners: &[Listener]) -> bool {
    let is_netsvr = |route: &Route| route.protocol == ClientProtocol::Netsvr;
    listeners.iter().any(|listener| match &listener.service {
        Service::Http(routes) => routes.iter().any(is_netsvr),
        _ => false,
    })
}

fn admin(settings: &Settings) -> Result<Admin, ConfigError> {
    let off = settings.text("admin.bind")?.is_empty();
    Ok(Admin {
        bind: if off { None } else { Some(address(settings, "admin.bind", false)?) },
        connections_max: settings.number("admin.connections_max")?,
        request_timeout: settings.duration("admin.request_timeout")?,
    })
}

fn log(settings: &Settings) -> Result<Log, ConfigError> {
    Ok(Log { filter: log_filter::read(settings)?, json: settings.flag("log.json")? })
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
    use super::*;
    use crate::config::file;

    fn build_on(machine: &Machine, text: &str) -> Result<Loaded, ConfigError> {
        let listener = "[[listener]]\nbind = \"0.0.0.0:6062\"\nprotocol = \"netsvr-task\"\n\
                        trusted = true\n";
        build(&file::parse(&format!("{text}\n{listener}"), "a.toml")?, machine)
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
