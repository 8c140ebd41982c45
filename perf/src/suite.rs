//! Many scenarios at once: the figures to reach, and the smoke test.

use crate::nats::Nats;
use crate::options::{Options, Scenario, Size};
use crate::run::Entry;
use crate::{Result, measure};

type Results = Vec<(Options, Vec<Entry>)>;

/// Every scenario once, at a size that shows that it works and no more.
pub fn smoke(options: &Options) -> Result<Results> {
    let size = Size {
        clients: Some(60),
        first: Some(30),
        rest: Some(0.5),
        members: Some(20),
        topics: Some(5),
        scale: Some(0.001),
        window: Some(8),
        ..Size::default()
    };
    let (runs, seconds, warmup) = (1, 0.2, 0.05);
    let tiny = Options { size, runs, seconds, warmup, ..options.clone() };
    let mut results = Vec::new();
    for scenario in Scenario::ALL {
        if scenario == Scenario::CrossShard && options.load_cpu == Some(options.server_cpu) {
            println!("{} needs two CPUs; left out\n", scenario.name());
            continue;
        }
        if scenario == Scenario::Mesh && !Nats::is_installed() {
            println!("{} needs nats-server in PATH; left out\n", scenario.name());
            continue;
        }
        results.push(measure(&Options { scenario, ..tiny.clone() })?);
    }
    // Encrypted, with helpers of both kinds, and both.
    let (echo, broadcast) = (Scenario::Echo, Scenario::Broadcast);
    let keys = Size { encrypted: true, ..tiny.size.clone() };
    for options in [
        Options { scenario: Scenario::Xxim, size: keys, ..tiny.clone() },
        Options { scenario: echo, tls: true, ..tiny.clone() },
        Options { scenario: echo, threads: 2, processes: 2, ..tiny.clone() },
        Options { scenario: broadcast, tls: true, processes: 2, ..tiny.clone() },
    ] {
        results.push(measure(&options)?);
    }
    Ok(results)
}

/// The figures of the table in RESULTS.md, as a table in Markdown.
pub fn suite(options: &Options) -> Result<Results> {
    let mut results = Results::new();
    let mut of = |scenario, size| -> Result<usize> {
        results.push(measure(&Options { scenario, size, ..options.clone() })?);
        Ok(results.len() - 1)
    };
    let clients = |clients| Size { clients: Some(clients), ..Size::default() };
    let broadcast = of(Scenario::Broadcast, clients(1000))?;
    let broadcast_10k = of(Scenario::Broadcast, clients(10_000))?;
    let broadcast_19k = of(Scenario::Broadcast, clients(19_000))?;
    let ten = of(Scenario::Broadcast, Size { publishes: Some(10), ..clients(1000) })?;
    let echo = of(Scenario::Echo, clients(1000))?;
    let roundtrip = of(Scenario::Roundtrip, clients(1000))?;
    let transfer = of(Scenario::Transfer, clients(1000))?;
    let unicast = of(Scenario::Unicast, clients(1000))?;
    let topics = of(Scenario::Topics, clients(5000))?;
    let cross = of(Scenario::CrossShard, Size::default())?;
    let room = of(Scenario::Room, Size::default())?;
    let churn = of(Scenario::Churn, Size::default())?;
    let idle = of(Scenario::Idle, clients(19_000))?;
    let groupchat = of(Scenario::Groupchat, Size::default())?;
    let slow = of(Scenario::Slow, clients(1000))?;
    let api_send = of(Scenario::ApiSend, Size::default())?;
    let api_publish = of(Scenario::ApiPublish, Size::default())?;
    let queue = of(Scenario::Queue, Size::default())?;
    let flood = of(Scenario::XximFlood, Size::default())?;
    let [tls_echo, tls_broadcast] = encrypted(options, &mut results)?;
    let memory = memory(options, &mut results)?;
    let table = Table { results: &results };
    table.head();
    table.floor("broadcast to 1,000, 128 B, ratio to the floor", broadcast, 1.10);
    table.floor("broadcast to 10,000, 128 B, ratio to the floor", broadcast_10k, 1.10);
    table.line("10 publishes per turn, us per delivery", table.cpu(ten), 0.30);
    table.line("the same, against one per turn", table.over(ten, broadcast), 0.16);
    table.floor("echo, 1,000 connections, 64 B, ratio to the floor", echo, 1.15);
    table.line("user-space share in broadcast", table.value(broadcast, "user_share"), 0.06);
    table.memory(memory);
    table.line("topics against broadcast", table.over_by_floor(topics, broadcast), 1.10);
    table.line("roundtrip against echo", table.over_by_floor(roundtrip, echo), 2.2);
    table.line("cross-shard against same shard", table.value(cross, "cross_to_same_ratio"), 1.10);
    table.floor("churn, ratio to the floor", churn, 1.30);
    table.line("19,000 members against 1,000", table.over(broadcast_19k, broadcast), 1.35);
    table.line("idle CPU with 19,000, percent", table.value(idle, "cpu_percent"), 0.3);
    table.line("IM room of 10,000, us per delivered message", table.cpu(room), 0.5);
    let p99 = table.value(room, "last_member_p99_ms");
    table.line("IM room of 10,000, p99 to the last member, ms", p99, 100.0);
    table.line("transfer, us per message", table.cpu(transfer), f64::NAN);
    table.line("unicast, us per message", table.cpu(unicast), f64::NAN);
    table.line("groupchat, us per delivery", table.cpu(groupchat), f64::NAN);
    table.line("connmix mesh/send over HTTP, us", table.cpu(api_send), 10.0);
    table.line("connmix mesh/publish over HTTP, us", table.cpu(api_publish), 10.0);
    table.line("connmix queue, us per message", table.cpu(queue), f64::NAN);
    let flood = table.value(flood, "flood_p99_ratio");
    table.line("p99 in a flood of 10,000 wrong xxim keys/s, against calm", flood, 2.0);
    table.line("slow clients, us per delivery", table.cpu(slow), f64::NAN);
    table.line("echo over TLS against plain", table.to("plain", tls_echo), f64::NAN);
    table.line("broadcast over TLS against plain", table.to("plain", tls_broadcast), f64::NAN);
    Ok(results)
}

/// Echo and broadcast over TLS, with 1,000 clients.
fn encrypted(options: &Options, results: &mut Results) -> Result<[usize; 2]> {
    for scenario in [Scenario::Echo, Scenario::Broadcast] {
        let size = Size { clients: Some(1000), ..Size::default() };
        results.push(measure(&Options { scenario, size, tls: true, ..options.clone() })?);
    }
    Ok([results.len() - 2, results.len() - 1])
}

/// What idle connections take: many, few, bound with a session, encrypted, in very many topics.
fn memory(options: &Options, results: &mut Results) -> Result<[usize; 5]> {
    let bare = |clients| Size { clients: Some(clients), bare: true, ..Size::default() };
    let sessions = Size { bare: false, session: Some(2048), ..bare(19_000) };
    let topics = Size { bare: false, topics: Some(1000), ..bare(1000) };
    for (size, tls) in [
        (bare(19_000), false),
        (bare(1000), false),
        (sessions, false),
        (bare(19_000), true),
        (topics, false),
    ] {
        let scenario = Scenario::Idle;
        results.push(measure(&Options { scenario, size, tls, ..options.clone() })?);
    }
    Ok(std::array::from_fn(|number| results.len() - 5 + number))
}

struct Table<'a> {
    results: &'a Results,
}

impl Table<'_> {
    fn head(&self) {
        println!("| figure | measured | target |\n|---|---|---|");
    }

    fn line(&self, name: &str, value: Option<f64>, target: f64) {
        let value = value.map_or("-".to_owned(), crate::report::number);
        let target = if target.is_nan() { "-".to_owned() } else { format!("<= {target}") };
        println!("| {name} | {value} | {target} |");
    }

    fn memory(&self, [many, few, sessions, tls, topics]: [usize; 5]) {
        const MB: f64 = 1e6 / (1 << 20) as f64;
        let whole = |result| self.value(result, "rss_whole_bytes");
        let left = |result| self.value(result, "rss_left_mib");
        self.line("empty gateway, MiB", self.value(many, "rss_empty_mib"), 20.0 * MB);
        self.line("idle connection of 1,000, all included, bytes", whole(few), 2000.0);
        self.line("of 19,000, bytes", whole(many), 456.0);
        self.line("with user, topic and a 2 KiB session, bytes", whole(sessions), 2600.0);
        self.line("encrypted, bytes", whole(tls), 3000.0);
        self.line("left 10 s after 19,000 connections, MiB", left(many), 5.0 * MB);
        self.line("left 10 s after 1,000,000 topics, MiB", left(topics), 5.0 * MB);
    }

    fn floor(&self, name: &str, result: usize, target: f64) {
        self.line(name, self.to_floor(result), target);
    }

    fn to_floor(&self, result: usize) -> Option<f64> {
        self.to("floor", result)
    }

    fn to(&self, other: &str, result: usize) -> Option<f64> {
        let (_, entries) = &self.results[result];
        let other = entries.iter().find(|entry| entry.name == other)?;
        entries[0].ratio(other, "cpu_us")
    }

    /// One scenario against another with the same floor, each against the floor of its own time.
    fn over_by_floor(&self, one: usize, other: usize) -> Option<f64> {
        Some(self.to_floor(one)? / self.to_floor(other)?)
    }

    fn value(&self, result: usize, name: &str) -> Option<f64> {
        self.results[result].1[0].median(name)
    }

    fn cpu(&self, result: usize) -> Option<f64> {
        self.value(result, "cpu_us")
    }

    fn over(&self, one: usize, other: usize) -> Option<f64> {
        Some(self.cpu(one)? / self.cpu(other)?)
    }
}
