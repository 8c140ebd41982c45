//! The configuration: what is read, what is refused and how, and that documents agree with it.

#[path = "config/door.rs"]
mod door;
#[path = "config/environment.rs"]
mod environment;
#[path = "config/import.rs"]
mod import;
#[path = "config/limits.rs"]
mod limits_table;
#[path = "config/origins.rs"]
mod origins;
#[path = "config/process.rs"]
mod process;
#[path = "config/secrets.rs"]
mod secrets;

use process::LISTENERS;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringway::config::all::{Config, Loaded};
use ringway::config::model::{
    Drain, Log, MessageType, OriginMode, Origins, Runtime, SlowClient, WorkerFull, WorkerPick,
};
use ringway::config::{self, ConfigError};
use ringway::limits::{self, Limit, Unit};
use ringway::protocols::netsvr::config::{
    Netsvr, NetsvrCustomer, NetsvrLimit, NetsvrTask, NetsvrWorker, WorkerCommands,
};
use ringway::protocols::netsvr::wire::Generation;
use ringway::wire::forwarded::{Proxies, Saying};
use ringway::wire::network::Network;

fn root(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn load_in(dir: &Path, text: &str, env: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let file = dir.join("ringway.toml");
    std::fs::write(&file, text).expect("the directory can be written");
    config::all::load_with(&file, env.iter().map(|(name, value)| (name.into(), value.into())))
}

fn load_env(text: &str, env: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().expect("there is a directory for temporary files");
    load_in(dir.path(), text, env)
}

fn load(text: &str) -> Result<Loaded, ConfigError> {
    load_env(text, &[])
}

/// The listeners and more; `more` goes first, it may have keys without a table.
fn load_with(more: &str) -> Result<Loaded, ConfigError> {
    load(&format!("{more}\n{LISTENERS}"))
}

fn good(more: &str) -> Config {
    load_with(more).unwrap_or_else(|error| panic!("{more}: {error}")).config
}

fn bad(text: &str) -> ConfigError {
    load(text).map(|loaded| panic!("{text}: {loaded:?}")).unwrap_or_else(|error| error)
}

/// `key = value` with its table, in front of the listeners.
fn with_key(key: &str, value: &str) -> String {
    match key.rsplit_once('.') {
        Some((table, name)) => match lists(table) {
            Some(needed) => format!("[[{table}]]\n{name} = {value}\n{needed}\n"),
            None => format!("[{table}]\n{name} = {value}\n"),
        },
        None => format!("{key} = {value}\n"),
    }
}

/// What one table of a list of tables can not do without; `None`: it is a plain table.
fn lists(table: &str) -> Option<&'static str> {
    match table {
        "xxim.upstream" => Some("name = \"im\"\nurl = \"http://127.0.0.1:1\""),
        "xxim.route" => Some("prefix = \"/v1/\"\nupstream = \"worker\""),
        "connmix.server" => Some("name = \"ws\""),
        _ => None,
    }
}

/// The key of a path: without the indices of lists of tables.
fn key_of(path: &str) -> String {
    let names = path.split('.').filter(|part| part.parse::<u16>().is_err());
    names.collect::<Vec<_>>().join(".")
}

/// A value of every key, none of them the default; CPU and PEM are filled in.
const EVERYTHING: &str = r#"
node = 7
[runtime]
cpus = "CPU"
connections_max = 11
outbox_bytes_max = 65536
slow_client = "drop"
mailbox_messages_max = 1024
receive_buffers = 64
receive_buffer_bytes = 2048
handshake_timeout = "3s"
close_timeout = "500ms"
shutdown_timeout = "1m30s"
drain = { delay = "1s", spread = "2m", code = 4000, jitter = 10 }
watchdog = "45s"
[[listener]]
bind = "[::1]:7000"
socket = "web"
proxy_protocol = "require"
tls = { cert = "PEM", key = "PEM", client_ca = "PEM" }
routes = [
    { path = "/a", protocol = "netsvr" },
    { path = "/b", protocol = "echo" },
    { path = "/c", protocol = "connmix", server = "second" },
]
[[listener]]
bind = "127.0.0.1:0"
protocol = "netsvr-worker"
trusted = true
[[connmix.server]]
name = "first"
[[connmix.server]]
name = "second"
[trust]
proxies = ["10.0.0.0/8"]
header = "forwarded"
[netsvr]
generation = 5
advertise = "10.9.8.7:6543"
metrics_items = [13, 1, 1]
cluster = false
[netsvr.customer]
allow_origin = ["a.example"]
allow_origin_mode = "contains"
heartbeat_interval = "1h"
heartbeat_message = "a"
max_online = 10
receive_pack_limit = 4096
send_message_type = "binary"
compression_level = -2
on_open_callback_api = "http://127.0.0.1:6064/onopen"
on_close_callback_api = "https://[::1]/onclose?a=b"
callback_api_deadline = "1s"
callbacks_max = 8
close_callbacks_max = 9
limit_window_size = "250ms"
limit_window_max_requests = 5
limit_zero_window_max_requests = 0
[netsvr.worker]
read_deadline = "11s"
send_deadline = "12s"
receive_pack_limit = 8192
heartbeat_message = "b"
pick = "sticky"
on_full = "drop"
commands = "both"
queue_frames_max = 100
queue_bytes_max = 100000
transfer_session = false
transfer_topics = false
register_delay = "0s"
[netsvr.task]
read_deadline = "13s"
send_deadline = "14s"
receive_pack_limit = 16384
heartbeat_message = "c"
[netsvr.limit]
on_open = 21
on_message = 22
[admin]
socket = "admin.sock"
bind = ""
connections_max = 16
request_timeout = "3s"
[log]
filter = "warn,ringway::shard=debug"
json = true
"#;

fn everything(dir: &Path) -> String {
    let pem = dir.join("both.pem");
    let block = |label| format!("-----BEGIN {label}-----\nAAEC\n-----END {label}-----\n");
    std::fs::write(&pem, block("CERTIFICATE") + &block("PRIVATE KEY"))
        .expect("the directory can be written");
    let cpu = Config::demo().runtime.cpus[0];
    EVERYTHING.replace("PEM", &pem.display().to_string()).replace("CPU", &cpu.to_string())
}

fn everything_else() -> (Runtime, NetsvrCustomer, NetsvrWorker) {
    let seconds = Duration::from_secs;
    let runtime = Runtime {
        cpus: vec![Config::demo().runtime.cpus[0]],
        connections_max: 11,
        outbox_bytes_max: 65536,
        slow_client: SlowClient::Drop,
        mailbox_messages_max: 1024,
        receive_buffers: 64,
        receive_buffer_bytes: 2048,
        handshake_timeout: seconds(3),
        close_timeout: Duration::from_millis(500),
        shutdown_timeout: seconds(90),
        drain: Drain { delay: seconds(1), spread: seconds(120), code: 4000, jitter: 10 },
        watchdog: seconds(45),
    };
    let customer = NetsvrCustomer {
        allow_origin: Origins::read(["a.example"], OriginMode::Contains).expect("a list"),
        heartbeat_interval: seconds(3600),
        heartbeat_message: b"a".to_vec(),
        max_online: 10,
        receive_pack_limit: 4096,
        send_message_type: MessageType::Binary,
        compression_level: -2,
        on_open_callback_api: Some("http://127.0.0.1:6064/onopen".to_owned()),
        on_close_callback_api: Some("https://[::1]/onclose?a=b".to_owned()),
        callback_api_deadline: seconds(1),
        callbacks_max: 8,
        close_callbacks_max: 9,
        limit_window: Duration::from_millis(250),
        limit_window_max_requests: 5,
        limit_zero_window_max_requests: 0,
    };
    let worker = NetsvrWorker {
        read_deadline: seconds(11),
        send_deadline: seconds(12),
        receive_pack_limit: 8192,
        heartbeat_message: b"b".to_vec(),
        pick: WorkerPick::Sticky,
        on_full: WorkerFull::Drop,
        commands: WorkerCommands::Both,
        queue_frames_max: 100,
        queue_bytes_max: 100_000,
        transfer_session: false,
        transfer_topics: false,
        register_delay: Duration::ZERO,
    };
    (runtime, customer, worker)
}

#[test]
fn every_key_reaches_the_configuration() {
    let dir = tempfile::tempdir().expect("there is a directory for temporary files");
    let text = everything(dir.path());
    let here = ["node", "runtime.", "listener.", "netsvr.", "admin.", "log."];
    for key in config::all::keys().filter(|key| here.iter().any(|area| key.starts_with(area))) {
        let name = key.rsplit('.').next().unwrap_or(key);
        assert!(text.contains(&format!("{name} = ")), "{key} is not in the text of this test");
    }
    let loaded = load_in(dir.path(), &text, &[]).unwrap_or_else(|error| panic!("{error}"));
    let (runtime, customer, worker) = everything_else();
    let trusted = vec![Network::parse("10.0.0.0/8").expect("a network")];
    let expected = Config {
        node: 7,
        runtime,
        trust: Proxies { trusted, saying: Saying::Forwarded },
        listeners: door::listeners(dir.path()),
        netsvr: Netsvr {
            generation: Generation::G5,
            advertise: "10.9.8.7:6543".parse().expect("this is an address"),
            customer,
            worker,
            task: NetsvrTask {
                read_deadline: Duration::from_secs(13),
                send_deadline: Duration::from_secs(14),
                receive_pack_limit: 16384,
                heartbeat_message: b"c".to_vec(),
            },
            limit: NetsvrLimit { on_open: 21, on_message: 22 },
            metrics_items: vec![1, 13],
            cluster: false,
        },
        admin: process::admin(),
        log: Log { filter: "warn,ringway::shard=debug".to_owned(), json: true },
        // What the other protocols have is tested beside them.
        connmix_servers: loaded.config.connmix_servers.clone(),
        ..good("")
    };
    assert_eq!(loaded, Loaded { config: expected, warnings: Vec::new() });
}

#[test]
fn the_defaults_are_those_of_the_specification() {
    let config = good("");
    let mut demo = Config::demo();
    // What the demo has on purpose: its listeners, compression to be seen, and a quick end.
    demo.listeners = config.listeners.clone();
    demo.netsvr.customer.compression_level = 0;
    let seconds = Duration::from_secs;
    let drain = Drain { delay: seconds(5), spread: seconds(30), code: 1001, jitter: 100 };
    demo.runtime.drain = drain;
    demo.xxim.crypto.private_key = None;
    demo.xxim_upstreams.push = None;
    demo.im.announce_join = false;
    demo.im.forward = config.im.forward;
    demo.connmix_servers.clear();
    // For the connections of its push service the demo keeps descriptors free.
    let of_push =
        ringway::protocols::xxim::config::push::push_connections_max(1024, config::raise_nofile())
            as u32;
    demo.runtime.connections_max = (demo.runtime.connections_max + of_push).min(1_000_000);
    assert_eq!(config, demo);
    let customer = &config.netsvr.customer;
    assert_eq!(customer.heartbeat_interval, Duration::from_secs(120));
    assert_eq!(customer.heartbeat_message, b"~6YOt5rW35piO~");
    assert_eq!(customer.max_online, 100_000);
    assert_eq!(customer.receive_pack_limit, 2 << 20);
    assert_eq!(customer.compression_level, 0);
    assert_eq!(customer.callback_api_deadline, Duration::from_secs(3));
    assert_eq!(config.netsvr.limit, NetsvrLimit { on_open: 0, on_message: 0 });
    assert_eq!(config.netsvr.worker.queue_frames_max, 65_536);
    assert_eq!(config.netsvr.worker.queue_bytes_max, 64 << 20);
    assert_eq!(config.netsvr.metrics_items, Vec::from_iter(1..=13));
    assert_eq!(config.netsvr.advertise.to_string(), "127.0.0.1:6062");
    assert_eq!(config.runtime.outbox_bytes_max, 1 << 20);
    assert_eq!(config.runtime.mailbox_messages_max, 65_536);
    assert_eq!(config.admin.bind.map(|bind| bind.to_string()).as_deref(), Some("127.0.0.1:9464"));
}

#[test]
fn the_demo_listens_on_loopback_only() {
    let config = Config::demo();
    let binds: Vec<_> = config.listeners.iter().map(|listener| listener.bind.to_string()).collect();
    let ports = [6060, 6061, 6062, 6787, 6789, 6701, 6791, 6790];
    let push = config.xxim_upstreams.push.as_ref().expect("the demo has one");
    assert_eq!(push.bind.to_string(), "127.0.0.1:6700");
    assert_eq!(binds, ports.map(|port| format!("127.0.0.1:{port}")));
    let variable = |name: &str, value: &str| [(OsString::from(name), OsString::from(value))];
    let loaded = config::all::demo_with(variable("RINGWAY_LISTENER__0__BIND", "127.0.0.1:16060"));
    assert_eq!(loaded.expect("this is allowed").config.listeners[0].bind.port(), 16060);
    for (name, says) in [
        ("RINGWAY_LISTENER__0__BIND", "serve --config"),
        ("RINGWAY_LISTENER__2__BIND", "trusted = true"),
        ("RINGWAY_ADMIN__BIND", "serve --config"),
        ("RINGWAY_XXIM__PUSH__BIND", "xxim.push.secret"),
    ] {
        let error =
            config::all::demo_with(variable(name, "0.0.0.0:9000")).expect_err("not loopback");
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(says), "{text}");
    }
}

/// A valid value for a row of the limits table, as it is written; `None` where the number alone
/// does not decide.
fn written(limit: &Limit, value: i64) -> Option<String> {
    match limit.key {
        "runtime.receive_buffers" | "runtime.connections_max" => None,
        "netsvr.metrics_items" | "im.versions" => Some(format!("[{value}]")),
        // Two requests, or two fields, may not have one number.
        key if key.starts_with("im.commands.") || key.starts_with("im.login_fields.") => None,
        key if key.ends_with("heartbeat_message") => {
            Some(format!("{:?}", "x".repeat(usize::try_from(value).ok()?)))
        }
        _ => Some(limit.unit.show(value)),
    }
}

#[test]
fn every_limit_is_kept_and_named_when_it_is_not() {
    let mut checked = 0;
    for limit in limits::all::rows().filter(|limit| limit.key != limits::FIXED) {
        for value in [limit.min, limit.max] {
            if let Some(text) = written(limit, value) {
                good(&with_key(limit.key, &text));
                checked += 1;
            }
        }
        for value in [limit.min - 1, limit.max + 1] {
            let negative_time = limit.unit == Unit::Milliseconds && value < 0;
            let Some(text) = written(limit, value).filter(|_| !negative_time) else {
                continue;
            };
            let error = bad(&format!("{}{LISTENERS}", with_key(limit.key, &text)));
            let bounds = [limit.min, limit.max].map(|bound| limit.unit.show(bound));
            assert_eq!(key_of(&error.key), limit.key);
            assert!(bounds.iter().all(|bound| error.allowed.contains(bound)), "{error}");
            assert!(error.line.is_some() && !error.to_do.is_empty(), "{error}");
        }
    }
    assert!(checked > 50, "only {checked} values were checked");
}

/// A configuration and what its refusal says: line, key and pieces of the sentence.
type Refusal = (&'static str, u32, &'static str, &'static [&'static str]);

const REFUSALS: &[Refusal] = &[
    ("nod = 1", 1, "nod", &["no such key", "`node`"]),
    ("[netsvr.customer]\nmax_onlin = 1", 2, "netsvr.customer.max_onlin", &["customer.max_online`"]),
    ("[customer]\nIOMod = 1", 2, "customer.IOMod", &["io_uring"]),
    ("[netsvr.worker]\nsend_chan_cap = 1", 2, "netsvr.worker.send_chan_cap", &["queue_frames_max"]),
    ("[runtim]", 1, "runtim", &["no such key"]),
    ("runtime = 1", 1, "runtime", &["a number where a table", "cpus"]),
    ("node = \"1\"", 1, "node", &["a text where a whole number", "1 to 1023"]),
    ("node = 1.5", 1, "node", &["a number with a fraction"]),
    ("node = 99999999999999999999", 1, "node", &["more than 64 bits"]),
    ("[log]\njson = 1", 2, "log.json", &["true or false"]),
    ("[admin]\nbind = 9464", 2, "admin.bind", &["a number where a text"]),
    ("[admin]\nbind = \"9464\"", 2, "admin.bind", &["no port"]),
    ("[admin]\nbind = \":9464\"", 2, "admin.bind", &["no address", "0.0.0.0"]),
    ("[admin]\nbind = \"::1:9464\"", 2, "admin.bind", &["no address", "[::]"]),
    ("[admin]\nbind = \"127.0.0.1:99999\"", 2, "admin.bind", &["not a port"]),
    ("[admin]\nbind = \"not a host:1\"", 2, "admin.bind", &["can not be resolved"]),
    ("[admin]\nbind = \"127.0.0.1:6062\"", 2, "admin.bind", &["listener.2.bind has port 6062"]),
    ("[log]\nfilter = \"ringway=verbose\"", 2, "log.filter", &["not a log filter"]),
    ("[log]\nfilter = \"inof\"", 2, "log.filter", &["\"inof\"", "nearest is \"info\""]),
    ("[runtime]\nhandshake_timeout = 10", 2, "runtime.handshake_timeout", &["\"5s\""]),
    ("[runtime]\nhandshake_timeout = \"10\"", 2, "runtime.handshake_timeout", &["not a duration"]),
    ("[runtime]\nslow_client = \"wait\"", 2, "runtime.slow_client", &["\"close\" or \"drop\""]),
    ("[runtime]\nreceive_buffers = 1000", 2, "runtime.receive_buffers", &["Use 512 or 1024"]),
    ("[runtime]\nreceive_buffers = 8", 2, "runtime.receive_buffers", &["too small"]),
    ("[runtime]\ncpus = \"a\"", 2, "runtime.cpus", &["not a list of CPUs", "may use: "]),
    ("[runtime]\ncpus = \"0,0\"", 2, "runtime.cpus", &["not a list of CPUs"]),
    ("[runtime]\ncpus = \"3-1\"", 2, "runtime.cpus", &["not a list of CPUs"]),
    ("[runtime]\ncpus = \"8000\"", 2, "runtime.cpus", &["may not use CPU 8000", "taskset"]),
    ("[netsvr]\ngeneration = 7", 2, "netsvr.generation", &["5 to 6"]),
    (
        "[netsvr]\ngeneration = 5\n[netsvr.worker]\ncommands = \"own\"",
        4,
        "netsvr.worker.commands",
        &["one port", "\"both\""],
    ),
    ("[netsvr]\nadvertise = \"[::1]:6062\"", 2, "netsvr.advertise", &["IPv4"]),
    ("[netsvr]\nadvertise = \"0.0.0.0:6062\"", 2, "netsvr.advertise", &["can not connect"]),
    ("[netsvr]\nmetrics_items = [1, 14]", 2, "netsvr.metrics_items", &["numbers, 1 to 13"]),
    ("[netsvr]\nmetrics_items = [\"1\"]", 2, "netsvr.metrics_items", &["list of whole numbers"]),
    ("[netsvr.customer]\nallow_origin = \"a\"", 2, "netsvr.customer.allow_origin", &["a list"]),
    (
        "[netsvr.customer]\nsend_message_type = 1",
        2,
        "netsvr.customer.send_message_type",
        &["\"text\" or \"binary\""],
    ),
    (
        "[netsvr.customer]\non_open_callback_api = \"127.0.0.1/onopen\"",
        2,
        "netsvr.customer.on_open_callback_api",
        &["http://", "https://"],
    ),
    (
        "[netsvr.customer]\non_close_callback_api = \"http://a:b/\"",
        2,
        "netsvr.customer.on_close_callback_api",
        &["not a URL"],
    ),
];

fn check_refusal(text: &str, (line, key, pieces): (u32, &str, &[&str])) {
    let error = bad(text);
    let sentence = error.to_string();
    assert_eq!((error.line, &*error.key), (Some(line), key), "{sentence}");
    assert!(error.file.ends_with("ringway.toml"), "{sentence}");
    for piece in pieces {
        assert!(sentence.contains(piece), "{sentence} does not say {piece:?}");
    }
}

#[test]
fn what_is_wrong_is_named_with_what_is_allowed() {
    for (text, line, key, pieces) in REFUSALS {
        check_refusal(&format!("{text}\n{LISTENERS}"), (*line, key, pieces));
    }
}

#[test]
fn listeners_are_checked_together() {
    let listener = |rest: &str| format!("[[listener]]\n{rest}\n");
    let worker = |bind: &str| listener(&format!("bind = \"{bind}\"\nprotocol = \"netsvr-worker\""));
    let trusted = |bind: &str| worker(bind) + "trusted = true\n";
    let echo = |path: &str| format!("{{ path = \"{path}\", protocol = \"echo\" }}");
    let at = |bind: &str, rest: &str| listener(&format!("bind = \"{bind}\"\n{rest}"));
    let tls = "tls = { cert = \"/no/such.pem\", key = \"k\" }\nprotocol = \"netsvr-worker\"";
    let two = format!("routes = [{}, {}]", echo("/a"), echo("/a"));
    for (text, key, pieces) in [
        (String::new(), "listener", &["no listener"][..]),
        ("[listener]\nbind = \"127.0.0.1:1\"".into(), "listener.bind", &["[[listener]]"]),
        (listener("protocol = \"netsvr-worker\""), "listener.0.bind", &["missing"]),
        (at("127.0.0.1:1", ""), "listener.0", &["no route", "netsvr-worker"]),
        (at("127.0.0.1:1", "routes = []"), "listener.0", &["no route"]),
        (at("127.0.0.1:1", "protocol = \"xxim\""), "listener.0.protocol", &["\"netsvr-worker\""]),
        (at("127.0.0.1:1", "routes = [1]"), "listener.0.routes", &["a list where a table"]),
        (at("127.0.0.1:1", "tls = \"a\"\nprotocol = \"netsvr-task\""), "listener.0.tls", &["cert"]),
        (at("127.0.0.1:1", tls), "listener.0.tls.cert", &["can not be read", "No such file"]),
        (at("127.0.0.1:1", &two), "listener.0.routes.1.path", &["route already"]),
        (
            at("127.0.0.1:1", &format!("routes = [{}]", echo("a"))),
            "listener.0.routes.0.path",
            &["`/`"],
        ),
        (worker("[::1]:6061"), "listener.0.bind", &["not an IPv4"]),
        (
            at("0.0.0.0:6789", "protocol = \"connmix-api\""),
            "listener.0.bind",
            &["connmix.user", "loopback"],
        ),
        (worker("127.0.0.1:6061") + &trusted("0.0.0.0:6061"), "listener.1.bind", &["port 6061"]),
        (worker("0.0.0.0:6061"), "listener.0.bind", &["client_ca", "trusted = true", "loopback"]),
        (
            at("10.0.0.1:6062", "protocol = \"netsvr-task\"\ntrusted = false"),
            "listener.0.bind",
            &["client_ca", "trusted = true"],
        ),
        (
            at("10.0.0.1:6789", "protocol = \"connmix-api\"\ntrusted = true"),
            "listener.0.trusted",
            &["only netsvr-worker and netsvr-task"],
        ),
        (
            at("127.0.0.1:1", "routes = [{ path = \"/\", protocol = \"netsvr\" }]"),
            "netsvr.advertise",
            &["no business process can connect"],
        ),
    ] {
        let error = bad(&text);
        assert_eq!(&*error.key, key, "{error}");
        let sentence = error.to_string();
        assert!(pieces.iter().all(|piece| sentence.contains(piece)), "{sentence}");
    }
}

#[test]
fn a_host_name_and_the_unspecified_address_are_resolved() {
    let text = LISTENERS.replace("127.0.0.1:6061", "localhost:6061");
    let config = load(&text).expect("localhost is known").config;
    assert_eq!(config.listeners[1].bind.to_string(), "127.0.0.1:6061");
    let text = LISTENERS.replace("\"127.0.0.1:6062\"", "\"0.0.0.0:6062\"\ntrusted = true");
    match load(&text) {
        Ok(Loaded { config, warnings }) => {
            let advertise = config.netsvr.advertise;
            assert_eq!(advertise.port(), 6062);
            assert!(!advertise.ip().is_unspecified() && !advertise.ip().is_loopback());
            let said = &warnings[0];
            assert!(said.starts_with("listener.2.trusted = true: whoever can reach"), "{said}");
            assert!(said.contains("listener.2.bind = 0.0.0.0:6062"), "{said}");
        }
        // A machine without a network.
        Err(error) => assert_eq!(&*error.key, "netsvr.advertise", "{error}"),
    }
    let g5 = good("[netsvr]\ngeneration = 5");
    assert_eq!(g5.netsvr.advertise.to_string(), "127.0.0.1:6061");
}

/// Lines like `#key = value` are defaults, lines like `# text` are not.
#[test]
fn the_example_names_every_key_with_its_default() {
    let example = std::fs::read_to_string(root("ringway.example.toml")).expect("it is there");
    let spelled_out: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let config = |text| load(text).unwrap_or_else(|error| panic!("{error}")).config;
    assert_eq!(config(&spelled_out), config(&example));
    for key in config::all::keys() {
        let name = key.rsplit('.').next().unwrap_or(key);
        assert!(example.contains(&format!("{name} = ")), "{key} is not in the example");
    }
}

#[test]
fn the_readme_has_the_current_reference() {
    let readme = std::fs::read_to_string(root("README.md")).expect("it is there");
    let between = readme
        .split_once("<!-- reference -->")
        .and_then(|(_, rest)| rest.split_once("<!-- /reference -->"))
        .map(|(reference, _)| reference.trim());
    assert!(
        between == Some(config::all::reference().trim()),
        "run scripts/reference.sh: the README does not have what the code says"
    );
}
