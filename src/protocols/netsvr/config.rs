//! `[netsvr]` (netsvr specification section 8).

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use crate::config::choice::words;
use crate::config::error::{Complaint, ConfigError};
use crate::config::keys::{Key, Section, ValueType, choice, flag, text, url as url_key};
use crate::config::machine::Machine;
use crate::config::model::{
    ClientProtocol, Listener, MessageType, OriginMode, Origins, Route, Service, WorkerFull,
    WorkerPick,
};
use crate::config::origins;
use crate::config::places::{address, url};
use crate::config::settings::Settings;
use crate::config::tables::Tables;
use crate::protocols::netsvr::wire::Generation;

/// `[netsvr]`: netsvr specification section 8, with its defaults unless the document says
/// otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct Netsvr {
    pub generation: Generation,
    /// The address that uniqIds carry and SDKs are configured with: by default that of the task
    /// listener (generation 6) or of the worker listener (generation 5).
    pub advertise: SocketAddrV4,
    pub customer: NetsvrCustomer,
    pub worker: NetsvrWorker,
    pub task: NetsvrTask,
    pub limit: NetsvrLimit,
    /// Commands reach the clients of every node of the mesh, and queries are about them.
    pub cluster: bool,
    /// Metric items (1..=13) that the `Metrics` command reports.
    pub metrics_items: Vec<u8>,
}

/// Client side of netsvr.
#[derive(Clone, Debug, PartialEq)]
pub struct NetsvrCustomer {
    /// Pages whose clients may come in.
    pub allow_origin: Origins,
    /// A client that sends nothing for longer is closed with 1001.
    pub heartbeat_interval: Duration,
    pub heartbeat_message: Vec<u8>,
    /// Accepted WebSocket connections of the process; more are refused with 1013.
    pub max_online: u32,
    /// Bytes of one client message, after inflating.
    pub receive_pack_limit: u32,
    pub send_message_type: MessageType,
    /// -2..=9; 0 switches permessage-deflate off.
    pub compression_level: i8,
    pub on_open_callback_api: Option<String>,
    pub on_close_callback_api: Option<String>,
    pub callback_api_deadline: Duration,
    /// Callbacks of one shard that may be under way at the same time; further ones wait.
    pub callbacks_max: u32,
    /// Closes of one shard that may wait for their callback; further ones go without.
    pub close_callbacks_max: u32,
    pub limit_window: Duration,
    pub limit_window_max_requests: u32,
    pub limit_zero_window_max_requests: u32,
}

/// Connections of business processes that register for events.
#[derive(Clone, Debug, PartialEq)]
pub struct NetsvrWorker {
    pub read_deadline: Duration,
    pub send_deadline: Duration,
    pub receive_pack_limit: u32,
    pub heartbeat_message: Vec<u8>,
    pub pick: WorkerPick,
    pub on_full: WorkerFull,
    pub commands: WorkerCommands,
    /// Frames that may wait for one worker.
    pub queue_frames_max: u32,
    /// Bytes that may wait for one worker.
    pub queue_bytes_max: u32,
    /// Repeat the session in every Transfer (netsvr W12).
    pub transfer_session: bool,
    /// Repeat the topics in every Transfer (netsvr W12).
    pub transfer_topics: bool,
    /// Time after the answer to Register during which events wait (netsvr section 6.2).
    pub register_delay: Duration,
}

/// Which commands the listeners for business processes take (netsvr section 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerCommands {
    /// Each takes all.
    Both,
    /// A connection that sends the other listener's is closed.
    Own,
}

words!(WorkerCommands { Both = "both", Own = "own" });

/// Connections of business processes that send commands.
#[derive(Clone, Debug, PartialEq)]
pub struct NetsvrTask {
    pub read_deadline: Duration,
    pub send_deadline: Duration,
    pub receive_pack_limit: u32,
    pub heartbeat_message: Vec<u8>,
}

/// The two global limiters (netsvr section 6.8); 0 is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetsvrLimit {
    pub on_open: u32,
    pub on_message: u32,
}

const HEARTBEAT: &str = "\"~6YOt5rW35piO~\"";

/// The keys that are no plain limits.
const KEYS: &[Key] = &[
    Key {
        allowed: "IPv4 address and port",
        ..text(
            "netsvr.advertise",
            "\"\"",
            "Address that uniqIds carry and SDKs are configured with. Empty: that of the task \
             listener (generation 6) or worker listener (generation 5); 0.0.0.0 stands for the \
             first IPv4 of the machine that is not loopback.",
        )
    },
    Key {
        kind: ValueType::Numbers,
        ..text("netsvr.metrics_items", "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]", "")
    },
    Key {
        default: "false",
        ..flag(
            "netsvr.cluster",
            "Commands of business processes reach clients of every node of the mesh, not only of \
             this one, and queries are answered for all.",
        )
    },
    origins::key(
        "netsvr.customer.allow_origin",
        "Origins of the web pages that may connect. Empty: no check.",
    ),
    choice::<OriginMode>(
        "netsvr.customer.allow_origin_mode",
        "\"origin\"",
        "How `allow_origin` is meant. contains: as the original, by texts one of which must occur \
         in the origin; other hosts may have them in their names.",
    ),
    text("netsvr.customer.heartbeat_message", HEARTBEAT, ""),
    choice::<MessageType>(
        "netsvr.customer.send_message_type",
        "\"text\"",
        "Opcode of messages to clients.",
    ),
    Key {
        allowed: "`http://` or `https://` URL",
        ..url_key(
            "netsvr.customer.on_open_callback_api",
            "\"\"",
            "URL that decides whether a client may open. Empty: every client may.",
        )
    },
    Key {
        allowed: "`http://` or `https://` URL",
        ..url_key(
            "netsvr.customer.on_close_callback_api",
            "\"\"",
            "URL that is told of every close. Empty: none.",
        )
    },
    text("netsvr.worker.heartbeat_message", HEARTBEAT, ""),
    choice::<WorkerPick>(
        "netsvr.worker.pick",
        "\"round-robin\"",
        "Which worker gets an event. sticky: all events of one client go to one worker while it \
         lives.",
    ),
    choice::<WorkerFull>(
        "netsvr.worker.on_full",
        "\"wait\"",
        "What happens to events while every worker's queue is full. wait: the clients that feed \
         them are not read; drop: the event is dropped and counted.",
    ),
    choice::<WorkerCommands>(
        "netsvr.worker.commands",
        "\"both\"",
        "Which commands netsvr-worker and netsvr-task take. both: each takes all; own: \
         netsvr-worker takes `Register` and `Unregister`, netsvr-task all others, and a connection \
         that sends another is closed, as generation 6 of the original does.",
    ),
    flag("netsvr.worker.transfer_session", "Repeat the session of the client in every `Transfer`."),
    flag("netsvr.worker.transfer_topics", "Repeat the topics of the client in every `Transfer`."),
    text("netsvr.task.heartbeat_message", HEARTBEAT, ""),
];

/// The tables of the reference.
const TITLES: &[(&str, &str, &str)] = &[
    ("netsvr", "`[netsvr]`", ""),
    ("netsvr.customer", "`[netsvr.customer]`", ""),
    ("netsvr.worker", "`[netsvr.worker]`", ""),
    ("netsvr.task", "`[netsvr.task]`", ""),
    ("netsvr.limit", "`[netsvr.limit]`", ""),
];

/// The section of the tables.
pub(crate) const SECTION: Section = Section { keys: KEYS, lists: &[], titles: TITLES };

/// Keys of the Go gateway (netsvr specification section 8) that have no namesake here; lower case,
/// without underscores, without the table `netsvr`.
const FORMER: &[(&str, &str)] = &[
    ("loglevel", "Use log.filter, e.g. \"info\""),
    ("logfile", "The log goes to standard error; let systemd or the shell redirect it"),
    ("shutdownwaittime", "Use runtime.shutdown_timeout"),
    ("pproflistenaddress", "Remove it; /metrics on admin.bind and `perf` take its place"),
    ("autobahn", "Use a route with protocol = \"echo\""),
    ("metrics.item", "Use netsvr.metrics_items"),
    ("customer.multicore", "Use runtime.cpus"),
    ("customer.listenaddress", "Use a [[listener]] with bind and routes"),
    ("customer.handlepattern", "Use the path of a route in [[listener]]"),
    ("customer.maxonlinenum", "Use netsvr.customer.max_online"),
    ("customer.readdeadline", "Use netsvr.customer.heartbeat_interval"),
    ("customer.senddeadline", "Use runtime.outbox_bytes_max and runtime.slow_client"),
    ("customer.iomod", "Remove it; there is one mode, io_uring"),
    ("customer.maxblockingonline", "Remove it; no connection blocks a thread"),
    ("customer.tlscert", "Use tls = { cert, key } in [[listener]]"),
    ("customer.tlskey", "Use tls = { cert, key } in [[listener]]"),
    ("customer.callbackscriptfile", "Use netsvr.customer.on_open_callback_api"),
    ("worker.listenaddress", "Use a [[listener]] with protocol = \"netsvr-worker\""),
    ("worker.readbuffersize", "Use runtime.receive_buffer_bytes"),
    ("worker.sendchancap", "Use netsvr.worker.queue_frames_max"),
    ("worker.sendchandeadline", "Use netsvr.worker.on_full"),
    ("task.listenaddress", "Use a [[listener]] with protocol = \"netsvr-task\""),
    ("task.readbuffersize", "Use runtime.receive_buffer_bytes"),
];

/// What takes the place of a key of the Go gateway; `None` if it is not one.
pub(crate) fn former(tables: &Tables, unknown: &str) -> Option<String> {
    let plain = |key: &str| key.to_lowercase().replace('_', "");
    let wanted = plain(unknown);
    let wanted = wanted.strip_prefix("netsvr.").unwrap_or(&wanted);
    if let Some((_, advice)) = FORMER.iter().find(|(key, _)| *key == wanted) {
        return Some((*advice).to_owned());
    }
    let same = |key: &&str| key.strip_prefix("netsvr.").is_some_and(|key| plain(key) == wanted);
    tables.all().find(same).map(|key| format!("Here it is called {key}"))
}

/// Reads it. The machine is asked for an address if none is given.
pub(crate) fn read(
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
