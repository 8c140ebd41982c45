//! `ringway import netsvr`: what it makes of the configurations of both generations, and that the
//! result is always one that Ringway takes.

use proptest::prelude::*;
use ringway::config::all::Config;
use ringway::config::model::{MessageType, Service};
use ringway::import;
use ringway::protocols::netsvr::wire::Generation;
use ringway::wire::origin::{OriginMode, Origins};

use crate::load;

/// The example values of generation 6 (netsvr specification section 8).
const SIX: &str = r#"
LogLevel = "info"
LogFile = "log/netSvr.log"
ShutdownWaitTime = "5s"
PprofListenAddress = "127.0.0.1:6063"
Autobahn = false
[Limit]
OnOpen = 10000
OnMessage = 50000
[Customer]
Multicore = 100
ListenAddress = "127.0.0.1:6060"
HandlePattern = "/netsvr"
AllowOrigin = []
HeartbeatInterval = "120s"
MaxOnlineNum = 100000
ReceivePackLimit = 2097152
SendMessageType = 1
OnOpenCallbackApi = "http://127.0.0.1:6064/onopen"
OnCloseCallbackApi = "http://127.0.0.1:6064/onclose"
CallbackApiDeadline = "3s"
HeartbeatMessage = "~6YOt5rW35piO~"
CompressionLevel = 1
LimitWindowSize = "1s"
LimitWindowMaxRequests = 100
LimitZeroWindowMaxRequests = 1000
[Worker]
ListenAddress = "127.0.0.1:6061"
ReadDeadline = "120s"
SendDeadline = "10s"
ReceivePackLimit = 2097152
ReadBufferSize = 4096
SendChanCap = 1024
HeartbeatMessage = "~6YOt5rW35piO~"
[Task]
ListenAddress = "127.0.0.1:6062"
ReadDeadline = "120s"
SendDeadline = "10s"
ReceivePackLimit = 2097152
ReadBufferSize = 65536
HeartbeatMessage = "~6YOt5rW35piO~"
[Metrics]
Item = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]
"#;

/// The same of generation 5, with the keys that only it has.
const FIVE: &str = r#"
LogLevel = "debug"
ShutdownWaitTime = "5s"
PprofListenAddress = "127.0.0.1:6062"
[Limit]
OnOpen = 10000
OnMessage = 50000
[Customer]
ListenAddress = "127.0.0.1:6060"
HandlePattern = "/netsvr"
AllowOrigin = ["example.com"]
ReadDeadline = "90s"
SendDeadline = "1s"
MaxOnlineNum = 100000
IOMod = 0
MaxBlockingOnline = 1000
ReceivePackLimit = 2097152
SendMessageType = 2
HeartbeatMessage = "~6YOt5rW35piO~"
CompressionLevel = 0
TLSCert = "/no/such/cert.pem"
TLSKey = "/no/such/key.pem"
CallbackScriptFile = "configs/callback.go"
[Worker]
ListenAddress = "127.0.0.1:6061"
ReadDeadline = "120s"
SendDeadline = "10s"
ReceivePackLimit = 2097152
ReadBufferSize = 4096
SendChanCap = 2048
SendChanDeadline = "100ms"
HeartbeatMessage = "~6YOt5rW35piO~"
"#;

fn made(text: &str) -> String {
    import::netsvr(text, "netsvr.toml").unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What is made, as `ringway check` reads it.
fn taken(text: &str) -> (String, Config) {
    let made = made(text);
    let loaded = load(&made).unwrap_or_else(|error| panic!("{text}\n{made}: {error}"));
    (made, loaded.config)
}

fn refusal(text: &str) -> String {
    match import::netsvr(text, "netsvr.toml") {
        Ok(made) => panic!("{text}: {made}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_example_of_generation_6_keeps_its_meaning() {
    let (text, config) = taken(SIX);
    assert_eq!(config.netsvr.generation, Generation::G6);
    let binds: Vec<_> = config.listeners.iter().map(|listener| listener.bind.port()).collect();
    assert_eq!(binds, [6060, 6061, 6062]);
    let Service::Http(routes) = &config.listeners[0].service else { panic!("{text}") };
    assert_eq!(routes[0].path, "/netsvr");
    let customer = &config.netsvr.customer;
    assert_eq!((customer.max_online, customer.compression_level), (100_000, 1));
    assert_eq!(customer.send_message_type, MessageType::Text);
    assert_eq!(customer.on_open_callback_api.as_deref(), Some("http://127.0.0.1:6064/onopen"));
    assert_eq!(config.netsvr.limit.on_message, 50_000);
    assert_eq!(config.netsvr.worker.queue_frames_max, 1024);
    assert_eq!(config.netsvr.metrics_items, Vec::from_iter(1..=13));
    assert_eq!(config.log.filter, "info");
    for name in ["LogFile", "PprofListenAddress", "Autobahn", "Customer.Multicore"] {
        assert!(text.contains(&format!("# {name}: ")), "{name}: {text}");
    }
    assert!(!text.contains("trusted"), "all of it is on loopback: {text}");
}

#[test]
fn the_example_of_generation_5_keeps_its_meaning() {
    let (text, config) = taken(FIVE);
    assert_eq!(config.netsvr.generation, Generation::G5);
    assert_eq!(config.listeners.len(), 2);
    let customer = &config.netsvr.customer;
    assert_eq!(customer.heartbeat_interval.as_secs(), 90);
    assert_eq!(customer.send_message_type, MessageType::Binary);
    let origins = Origins::read(["example.com"], OriginMode::Contains);
    assert_eq!(Ok(&customer.allow_origin), origins.as_ref());
    assert!(text.contains("allow_origin_mode = \"contains\"\n"), "{text}");
    // The defaults of netsvr, where they are others.
    assert_eq!(customer.callback_api_deadline.as_secs(), 600);
    assert!(config.netsvr.metrics_items.is_empty());
    for line in [
        "# TLSCert and TLSKey can not be used here: /no/such/cert.pem: ",
        "# Customer.IOMod: ",
        "# Customer.SendDeadline: ",
        "# Customer.CallbackScriptFile: ",
        "# Worker.SendChanDeadline: ",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

/// The least that netsvr starts with.
const LEAST: &str = "[Customer]\nListenAddress = \"127.0.0.1:1\"\nHeartbeatMessage = \"a\"\n\
                     [Worker]\nListenAddress = \"127.0.0.1:2\"\nHeartbeatMessage = \"b\"\n";

#[test]
fn a_file_with_what_netsvr_needs_and_no_more_is_enough() {
    let (text, config) = taken(LEAST);
    assert_eq!(config.log.filter, "error");
    assert!(text.contains("# ShutdownWaitTime is without end in netsvr.\n"), "{text}");
    assert_eq!(config.runtime.shutdown_timeout.as_secs(), 3600);
    // Go takes keys in any case.
    assert_eq!(taken(&LEAST.to_lowercase()).1, config);
}

#[test]
fn backends_on_other_machines_stay_possible() {
    let outside = LEAST.replace("127.0.0.1:2", "10.1.2.3:2");
    let (text, config) = taken(&format!("{outside}Unknown = 1\n[Odd]\n\"a\\nb\" = 1\n"));
    assert!(!config.listeners[1].bind.ip().is_loopback());
    assert!(text.contains("commands the gateway, as with netsvr"), "{text}");
    assert_eq!(text.matches("\ntrusted = true\n").count(), 1, "{text}");
    assert!(
        text.contains("# Worker.Unknown: this is no key of netsvr v5 or v8 that is known here."),
        "{text}"
    );
    assert!(text.contains("# Odd.a?b: "), "{text}");
}

#[test]
fn a_port_of_the_admin_server_that_netsvr_has_is_given_up() {
    let text = LEAST.replace("127.0.0.1:1", "127.0.0.1:9464").replace(".1:2\"", ".1:9465\"");
    let (_, config) = taken(&text);
    assert_eq!(config.admin.bind.map(|bind| bind.port()), Some(9466));
}

/// netsvr takes its default for a value that is not above 0, and does not say so.
#[test]
fn what_is_not_above_0_is_the_default_of_netsvr() {
    let task = "[Task]\nListenAddress = \"127.0.0.1:3\"\nHeartbeatMessage = \"c\"\n";
    let least = format!("{LEAST}{task}");
    let both = "ReadDeadline = \"0s\"\nSendDeadline = \"-1s\"\nReceivePackLimit = 0\n";
    let customer = "HeartbeatInterval = \"0s\"\nLimitWindowMaxRequests = 0\n\
                    LimitWindowSize = \"0s\"\nLimitZeroWindowMaxRequests = -3\n\
                    ReceivePackLimit = 0\n";
    let text = least
        .replace("[Customer]\n", &format!("[Customer]\n{customer}"))
        .replace("[Worker]\n", &format!("[Worker]\n{both}SendChanCap = 0\n"))
        .replace("[Task]\n", &format!("[Task]\n{both}"));
    let (made, config) = taken(&text);
    assert_eq!(config, taken(&least).1);
    assert!(made.contains("# Worker.SendChanCap = 0: netsvr takes 1024 then.\n"), "{made}");
}

/// What netsvr makes of `0.0.0.0` for backends: the command port is not open to everybody.
#[test]
fn a_port_of_backends_at_every_address_is_one_at_the_first_address() {
    for address in ["0.0.0.0:2", ":2"] {
        let text = LEAST.replace("127.0.0.1:2", address);
        match ringway::config::first_ipv4() {
            Some(ip) => {
                let (_, config) = taken(&text);
                assert_eq!(config.listeners[1].bind.to_string(), format!("{ip}:2"));
            }
            None => assert!(refusal(&text).contains("Worker.ListenAddress: this machine has no")),
        }
    }
}

#[test]
fn what_is_wrong_is_named_with_file_line_and_key() {
    let with = |key: &str| LEAST.replace("[Worker]", &format!("{key}\n[Worker]"));
    for (text, says) in [
        ("[Customer".to_owned(), "netsvr.toml:1: this is not TOML: "),
        (String::new(), "netsvr.toml: Customer.ListenAddress: it is missing"),
        (LEAST.replace("HeartbeatMessage = \"b\"", ""), "Worker.HeartbeatMessage: it is missing"),
        (with("MaxOnlineNum = \"9\""), "netsvr.toml:4: Customer.MaxOnlineNum: a whole number"),
        (with("HeartbeatMessage = 9"), "netsvr.toml:4: this is not TOML: "),
        (with("HandlePattern = 9"), "netsvr.toml:4: Customer.HandlePattern: a text belongs here"),
        (with("HandlePattern = \"a\""), "netsvr.toml:4: Customer.HandlePattern: this is not the"),
        (with("AllowOrigin = [1]"), "netsvr.toml:4: Customer.AllowOrigin: a list of texts"),
        (with("CallbackApiDeadline = \"3\""), "4: Customer.CallbackApiDeadline: this is no dur"),
        (with("SendMessageType = 3"), "netsvr.toml:4: Customer.SendMessageType: netsvr knows 1"),
        (with("OnOpenCallbackApi = \"x\""), "4: Customer.OnOpenCallbackApi: this is not a URL"),
        (LEAST.replace(".1:2", ".1"), "netsvr.toml:5: Worker.ListenAddress: this is not address"),
        (LEAST.replace("127.0.0.1:2", "[::1]:2"), "5: Worker.ListenAddress: this is not an IPv4"),
        (LEAST.replace("127.0.0.1:2", "127.0.0.1:1"), "netsvr.toml:5: Worker.ListenAddress: "),
    ] {
        let error = refusal(&text);
        assert!(error.contains(says), "{text}: {error}");
    }
}

/// A duration as people write it for Go.
fn duration() -> impl Strategy<Value = String> {
    let unit = prop::sample::select(vec!["ns", "us", "ms", "s", "m", "h"]);
    prop_oneof![
        (0u32..100_000, unit.clone()).prop_map(|(number, unit)| format!("\"{number}{unit}\"")),
        (0u32..100, 0u32..1000, unit).prop_map(|(a, b, unit)| format!("\"{a}.{b}{unit}\"")),
    ]
}

fn address(hosts: &'static [&'static str], port: u16) -> impl Strategy<Value = String> {
    let hosts = hosts.to_vec();
    prop::sample::select(hosts).prop_map(move |host| format!("\"{host}:{port}\""))
}

/// Any value that a key may have in netsvr.
fn value(key: &'static str) -> BoxedStrategy<String> {
    let texts = |list: &'static [&'static str]| {
        prop::sample::select(list.to_vec()).prop_map(|text| format!("{text:?}")).boxed()
    };
    match key.rsplit('.').next().unwrap_or(key) {
        "LogLevel" => texts(&["debug", "info", "warn", "error", "loud", ""]),
        "LogFile" | "CallbackScriptFile" | "TLSCert" | "TLSKey" => texts(&["", "a/b", "a b"]),
        "HandlePattern" => texts(&["", "/", "/netsvr", "/a/b-c"]),
        "OnOpenCallbackApi" | "OnCloseCallbackApi" => {
            texts(&["", "http://a", "https://u:p@a.example:8443/x?y=z"])
        }
        "PprofListenAddress" => texts(&["", "127.0.0.1:6063"]),
        "AllowOrigin" => prop::collection::vec("[a-z.:/]{0,12}", 0..4)
            .prop_map(|list| format!("{list:?}"))
            .boxed(),
        "HeartbeatMessage" => "[a-zA-Z0-9~ \\\\\"]{1,1000}".prop_map(|t| format!("{t:?}")).boxed(),
        "Item" => {
            prop::collection::vec(-2i64..20, 0..20).prop_map(|list| format!("{list:?}")).boxed()
        }
        "Autobahn" => any::<bool>().prop_map(|flag| flag.to_string()).boxed(),
        "SendMessageType" => (1i64..=2).prop_map(|number| number.to_string()).boxed(),
        "CompressionLevel" => (-2i64..=9).prop_map(|number| number.to_string()).boxed(),
        name if name.ends_with("Deadline") || name.ends_with("Time") => duration().boxed(),
        "HeartbeatInterval" | "LimitWindowSize" => duration().boxed(),
        _ => any::<i64>().prop_map(|number| number.to_string()).boxed(),
    }
}

/// Every key of both generations but the addresses; with tables in front.
const KEYS: &[&str] = &[
    "LogLevel",
    "LogFile",
    "ShutdownWaitTime",
    "PprofListenAddress",
    "Autobahn",
    "Limit.OnOpen",
    "Limit.OnMessage",
    "Customer.Multicore",
    "Customer.HandlePattern",
    "Customer.AllowOrigin",
    "Customer.HeartbeatInterval",
    "Customer.MaxOnlineNum",
    "Customer.ReceivePackLimit",
    "Customer.SendMessageType",
    "Customer.OnOpenCallbackApi",
    "Customer.OnCloseCallbackApi",
    "Customer.CallbackApiDeadline",
    "Customer.CompressionLevel",
    "Customer.LimitWindowSize",
    "Customer.LimitWindowMaxRequests",
    "Customer.LimitZeroWindowMaxRequests",
    "Customer.ReadDeadline",
    "Customer.SendDeadline",
    "Customer.IOMod",
    "Customer.MaxBlockingOnline",
    "Customer.TLSCert",
    "Customer.TLSKey",
    "Customer.CallbackScriptFile",
    "Worker.ReadDeadline",
    "Worker.SendDeadline",
    "Worker.ReceivePackLimit",
    "Worker.ReadBufferSize",
    "Worker.SendChanCap",
    "Worker.SendChanDeadline",
    "Metrics.Item",
];
const TASK_KEYS: &[&str] =
    &["Task.ReadDeadline", "Task.SendDeadline", "Task.ReceivePackLimit", "Task.ReadBufferSize"];

/// Lines of a file of either generation, in which any of the keys may be missing.
fn file() -> impl Strategy<Value = String> {
    let keys = KEYS.iter().chain(TASK_KEYS);
    let lines: Vec<_> = keys.map(|&key| prop::option::of(value(key))).collect();
    // Where backends are to connect to 0.0.0.0, this machine must have another address.
    const NEAR: &[&str] = &["127.0.0.1", "10.1.2.3", "localhost"];
    let needed = (
        address(&["127.0.0.1", "0.0.0.0", "10.1.2.3", "localhost", ""], 6060),
        address(NEAR, 6061),
        address(NEAR, 6062),
        [value("HeartbeatMessage"), value("HeartbeatMessage"), value("HeartbeatMessage")],
        any::<bool>(),
    );
    (lines, needed).prop_map(|(values, (customer, worker, task, beats, two_ports))| {
        let keys = KEYS.iter().chain(TASK_KEYS).zip(values);
        let mut text = String::new();
        for (key, value) in keys.filter(|(key, _)| two_ports || !key.starts_with("Task.")) {
            text.extend(value.map(|value| format!("{key} = {value}\n")));
        }
        let tables = [("Customer", customer), ("Worker", worker), ("Task", task)];
        for ((table, address), beat) in tables.into_iter().zip(beats).take(2 + two_ports as usize) {
            text += &format!("{table}.ListenAddress = {address}\n");
            text += &format!("{table}.HeartbeatMessage = {beat}\n");
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_netsvr_starts_with_becomes_a_configuration_that_is_taken(text in file()) {
        taken(&text);
    }
}
