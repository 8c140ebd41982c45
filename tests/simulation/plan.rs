//! What a seed decides before its story begins: configuration, weather, who takes part.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use ringway::config::all::Config;
use ringway::config::model::{Listener, MessageType, SlowClient, WorkerFull, WorkerPick};
use ringway::engine::ListenerSettings;
use ringway::protocols::netsvr::limits::ANSWER_PIECE;
use ringway::protocols::netsvr::wire::{Generation, Verdict};
use ringway::sim::Weather;

/// Listeners of the demo, by number.
pub const CLIENTS: usize = 0;
pub const WORKERS: usize = 1;
pub const TASKS: usize = 2;

/// What the open callback gives a client that it lets in, if it gives anything.
pub const VERDICT_SESSION: &str = "session of the verdict";
pub const VERDICT_USER: &str = "user of the verdict";
pub const VERDICT_TOPIC: &str = "topic of the verdict";
pub const VERDICT_DATA: &str = "data of the verdict";

/// The longest payload of a backend.
pub const PAYLOAD_BYTES_MAX: usize = 2000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everybody leaves.
    Leave,
    /// The gateway is told to end in the middle of it.
    Drain,
}

/// See the module.
#[derive(Debug)]
pub struct Plan {
    pub shards: usize,
    pub config: Config,
    pub weather: Weather,
    pub ending: Ending,
    pub actions: usize,
    pub clients_max: usize,
    pub businesses_max: usize,
    /// Clients show that they are alive with messages; otherwise with pings.
    pub heartbeats: bool,
    /// Workers unregister, stop reading and die.
    pub faults: bool,
    /// Every worker wants every event.
    pub whole_masks: bool,
    /// Backends change the limiters.
    pub limits: bool,
    /// Time-outs are so short that they strike in the middle of the story.
    pub hasty: bool,
    /// The callback says more than yes.
    pub verdicts: bool,
    /// Backends push much to few clients.
    pub fat: bool,
}

static DEMO: LazyLock<Config> = LazyLock::new(Config::demo);

fn verdict() -> Verdict {
    Verdict {
        session: VERDICT_SESSION.into(),
        customer_id: VERDICT_USER.into(),
        topics: vec![VERDICT_TOPIC.into()],
        data: Bytes::from_static(VERDICT_DATA.as_bytes()),
        ..Verdict::default()
    }
}

fn percent(rng: &mut Rng, chance: u8) -> bool {
    rng.u8(..100) < chance
}

fn pick<T: Copy>(rng: &mut Rng, choices: &[T]) -> T {
    choices[rng.usize(..choices.len())]
}

impl Plan {
    pub fn new(rng: &mut Rng) -> Plan {
        let mut config = DEMO.clone();
        let hasty = percent(rng, 15);
        let verdicts = rng.bool();
        runtime(&mut config, rng, hasty);
        customers(&mut config, rng, hasty);
        businesses(&mut config, rng, hasty);
        let limits = percent(rng, 20);
        if limits {
            config.netsvr.limit.on_open = pick(rng, &[0, 3, 1000]);
            config.netsvr.limit.on_message = pick(rng, &[0, 5, 50]);
            config.netsvr.customer.limit_zero_window_max_requests = rng.u32(..10);
            config.netsvr.customer.limit_window_max_requests = 1 + rng.u32(..5);
        }
        let large = percent(rng, 15);
        Plan {
            shards: rng.usize(1..=4),
            config,
            weather: weather(rng, verdicts),
            ending: if percent(rng, 25) { Ending::Drain } else { Ending::Leave },
            actions: rng.usize(40..if large { 300 } else { 120 }),
            clients_max: rng.usize(5..if large { 40 } else { 16 }),
            businesses_max: rng.usize(1..=5),
            heartbeats: rng.bool(),
            faults: percent(rng, 60),
            whole_masks: percent(rng, 70),
            limits,
            hasty,
            verdicts,
            fat: percent(rng, 20),
        }
    }

    /// The listeners of the demo.
    pub fn listeners(config: &Config) -> Vec<ListenerSettings> {
        let address = config.netsvr.advertise;
        let settings = |listener: &Listener| ListenerSettings {
            proxy: Default::default(),
            service: listener.service.clone(),
            address,
            bound: listener.bind,
            tls: None,
        };
        config.listeners.iter().map(settings).collect()
    }
}

fn runtime(config: &mut Config, rng: &mut Rng, hasty: bool) {
    let runtime = &mut config.runtime;
    runtime.connections_max = if percent(rng, 10) { 12 } else { 400 };
    runtime.outbox_bytes_max = pick(rng, &[4096, 16_384, 1 << 20, 1 << 20]);
    runtime.slow_client = if rng.bool() { SlowClient::Close } else { SlowClient::Drop };
    runtime.close_timeout = Duration::from_millis(pick(rng, &[50, 2000]));
    runtime.handshake_timeout = Duration::from_millis(if hasty { 150 } else { 10_000 });
}

fn customers(config: &mut Config, rng: &mut Rng, hasty: bool) {
    let customer = &mut config.netsvr.customer;
    if hasty && rng.bool() {
        customer.heartbeat_interval = Duration::from_millis(rng.u64(100..1000));
    }
    if percent(rng, 15) {
        customer.max_online = rng.u32(1..8);
    }
    customer.receive_pack_limit = pick(rng, &[1024, 1024, 2 << 20]);
    customer.send_message_type = if rng.bool() { MessageType::Text } else { MessageType::Binary };
    customer.compression_level = pick(rng, &[0, 0, 1, 6]);
    if percent(rng, 25) {
        customer.on_open_callback_api = Some("http://application/open".to_owned());
    }
    if percent(rng, 25) {
        customer.on_close_callback_api = Some("http://application/close".to_owned());
    }
    customer.callbacks_max = pick(rng, &[1, 3, 256]);
}

fn businesses(config: &mut Config, rng: &mut Rng, hasty: bool) {
    let netsvr = &mut config.netsvr;
    netsvr.generation = if rng.bool() { Generation::G5 } else { Generation::G6 };
    let worker = &mut netsvr.worker;
    worker.pick = if rng.bool() { WorkerPick::RoundRobin } else { WorkerPick::Sticky };
    worker.on_full = if percent(rng, 70) { WorkerFull::Wait } else { WorkerFull::Drop };
    worker.queue_frames_max = pick(rng, &[1, 4, 20, 65_536]);
    worker.queue_bytes_max = pick(rng, &[500, 64 << 20, 64 << 20]);
    worker.transfer_session = rng.bool();
    worker.transfer_topics = rng.bool();
    worker.register_delay = Duration::from_millis(pick(rng, &[0, 30]));
    worker.receive_pack_limit = pick(rng, &[16_384, 2 << 20]);
    netsvr.task.receive_pack_limit = worker.receive_pack_limit;
    if hasty {
        let read_ms = pick(rng, &[200, 120_000]);
        worker.read_deadline = Duration::from_millis(read_ms);
        worker.send_deadline = Duration::from_millis(pick(rng, &[100, 10_000]));
        netsvr.task.read_deadline = worker.read_deadline;
        netsvr.task.send_deadline = worker.send_deadline;
    }
}

fn weather(rng: &mut Rng, verdicts: bool) -> Weather {
    let calls = percent(rng, 50);
    Weather {
        answer_piece: pick(rng, &[1, 2, 5, ANSWER_PIECE]),
        read_on: pick(rng, &[1, 3, 256]),
        mailbox_messages_max: pick(rng, &[1, 5, 100]),
        socket_bytes_max: pick(rng, &[60, 700, 5000, 200_000]),
        piece_bytes_max: pick(rng, &[20, 150, 3000]),
        calm: false,
        jump_every: pick(rng, &[0, 40, 300]),
        jump_ms_max: pick(rng, &[60, 1000]),
        callback_fails_percent: if calls { 10 } else { 0 },
        callback_denies_percent: if calls { 20 } else { 0 },
        callback_verdict: if verdicts { verdict } else { Verdict::default },
    }
}
