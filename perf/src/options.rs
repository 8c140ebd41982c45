//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures a Ringway gateway, or any server that speaks plain WebSocket echo or broadcast.
#[derive(Clone, Debug, Parser)]
#[command(name = "ringway-perf", version)]
pub struct Options {
    /// What to measure; `suite` measures the figures of RESULTS.md, `smoke` runs everything once
    /// at a tiny size.
    pub scenario: Scenario,
    /// The `ringway` program; by default the one beside this program.
    #[arg(long)]
    pub server: Option<PathBuf>,
    /// A second `ringway` program, measured in turn with the first; ratios are to it as well.
    #[arg(long)]
    pub against: Option<PathBuf>,
    /// A running server instead of `--server`; `echo`, `churn` and `broadcast` only.
    #[arg(long, requires = "pid")]
    pub addr: Option<SocketAddr>,
    /// The process behind `--addr`.
    #[arg(long, requires = "addr")]
    pub pid: Option<u32>,
    /// Request target of clients with `--addr`.
    #[arg(long, default_value = "/")]
    pub path: String,
    /// The `floor` program; by default the one beside this program.
    #[arg(long)]
    pub floor: Option<PathBuf>,
    /// Do not measure the floor.
    #[arg(long)]
    pub no_floor: bool,
    /// CPU of the server; `cross-shard` uses the load's as well.
    #[arg(long, default_value_t = 0)]
    pub server_cpu: usize,
    /// CPU of the load's first thread; by default the last one. Others get those above it, then
    /// those below, without the server's.
    #[arg(long)]
    pub load_cpu: Option<usize>,
    /// Runs of each server, in turn; reported are medians.
    #[arg(long, default_value_t = 5)]
    pub runs: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Seconds of load before it.
    #[arg(long, default_value_t = 1.0)]
    pub warmup: f64,
    /// Writes the results to a file as well; `-` is standard output.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Writes a chart.
    #[arg(long)]
    pub svg: Option<PathBuf>,
    /// Counts system calls with `perf stat`, in one more run.
    #[arg(long)]
    pub syscalls: bool,
    /// Says on standard error when a measurement begins.
    #[arg(long)]
    pub announce: bool,
    /// Clients speak TLS; the gateway is compared with itself without.
    #[arg(long)]
    pub tls: bool,
    /// Certificates (PEM) that clients trust; with `--addr` and `--tls`.
    #[arg(long)]
    pub ca: Option<PathBuf>,
    /// Threads of each process of the load.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Processes of the load; together they may have more connections than one has descriptors.
    #[arg(long, default_value_t = 1)]
    pub processes: usize,
    /// This is such a process, and whom it belongs to.
    #[arg(long, hide = true)]
    pub leader: Option<SocketAddr>,
    /// What `--load-cpu` and the machine give; one for each thread, in turn.
    #[arg(skip)]
    pub load_cpus: Vec<usize>,
    #[command(flatten)]
    pub size: Size,
}

impl Options {
    /// The CPU of a thread of the load.
    pub fn cpu_of(&self, thread: usize) -> usize {
        self.load_cpus.get(thread % self.load_cpus.len().max(1)).copied().unwrap_or(0)
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Memory and CPU of connections that do nothing.
    Idle,
    /// Every client has one message under way that comes back.
    Echo,
    /// A backend sends to everybody.
    Broadcast,
    /// A backend sends to random clients.
    Unicast,
    /// Clients send to a worker.
    Transfer,
    /// Clients send to a worker, which answers.
    Roundtrip,
    /// Connect, upgrade, disconnect.
    Churn,
    /// Clients send to a worker, which publishes to the sender's group.
    Groupchat,
    /// `broadcast` while some clients do not read.
    Slow,
    /// A backend publishes to a topic; each client is in many.
    Topics,
    /// Members of one IM room speak; messages leave in batches.
    Room,
    /// connmix: `POST /v1/mesh/send` on connections that are kept alive.
    ApiSend,
    /// connmix: `POST /v1/mesh/publish`.
    ApiPublish,
    /// connmix: clients push to a queue, which one connection consumes.
    Queue,
    /// Many requests under way on one xxim connection, to an upstream that answers at once.
    Xxim,
    /// xxim: clients with requests, without and with a flood of wrong keys from elsewhere.
    XximFlood,
    /// Publisher and members on different shards, against the same shard.
    CrossShard,
    /// A backend of one node publishes to members on another one, over NATS.
    Mesh,
    Suite,
    Smoke,
}

impl Scenario {
    /// Everything that is measured by itself.
    pub const ALL: [Scenario; 18] = [
        Scenario::Idle,
        Scenario::Echo,
        Scenario::Broadcast,
        Scenario::Unicast,
        Scenario::Transfer,
        Scenario::Roundtrip,
        Scenario::Churn,
        Scenario::Groupchat,
        Scenario::Slow,
        Scenario::Topics,
        Scenario::Room,
        Scenario::ApiSend,
        Scenario::ApiPublish,
        Scenario::Queue,
        Scenario::Xxim,
        Scenario::XximFlood,
        Scenario::CrossShard,
        Scenario::Mesh,
    ];

    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Sizes; each scenario has its own defaults (see README.md).
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Size {
    /// Connections.
    #[arg(long)]
    pub clients: Option<usize>,
    /// `idle`: connections at the first look; the slope is from there to `--clients`.
    #[arg(long)]
    pub first: Option<usize>,
    /// `idle`: seconds after the clients have gone until the last look.
    #[arg(long)]
    pub rest: Option<f64>,
    /// Bytes of a message, at least 24.
    #[arg(long)]
    pub payload: Option<usize>,
    /// Publishes at a time.
    #[arg(long)]
    pub publishes: Option<usize>,
    /// Messages under way at a time (`unicast`, `groupchat`, `mesh`; `xxim`: per connection),
    /// connections (`churn`).
    #[arg(long)]
    pub window: Option<usize>,
    /// Messages per second in all, at their times whatever the answers do (`echo`, `roundtrip`,
    /// `room`, `xxim-flood`); publishes of the part at half load (`mesh`).
    #[arg(long)]
    pub rate: Option<f64>,
    /// Topics of each client (`idle`: of its own); of all members together (`mesh`).
    #[arg(long)]
    pub topics: Option<usize>,
    /// Members of the topic that is published to.
    #[arg(long)]
    pub members: Option<usize>,
    /// `topics`: publish to topics as they are popular, not to the one of `--members`. `mesh`:
    /// nodes beyond the second have a member of another topic in the same bucket.
    #[arg(long)]
    pub mixed: bool,
    /// Bytes of a client's session.
    #[arg(long)]
    pub session: Option<usize>,
    /// `idle`: plain connections without user and topic.
    #[arg(long)]
    pub bare: bool,
    /// `groupchat`: part of 40 groups of 2,500.
    #[arg(long)]
    pub scale: Option<f64>,
    /// `churn`: clients of netsvr instead of echo.
    #[arg(long)]
    pub netsvr: bool,
    /// `mesh`: nodes; those beyond the publisher's and the members' have nobody.
    #[arg(long)]
    pub nodes: Option<usize>,
    /// `mesh`: CPU of the members' node; by default that of the others, `--server-cpu`.
    #[arg(long)]
    pub members_cpu: Option<usize>,
    /// `xxim`: clients encrypt.
    #[arg(long)]
    pub encrypted: bool,
    /// `xxim-flood`: wrong RSA ciphertexts per second.
    #[arg(long)]
    pub flood: Option<f64>,
}
