//! The scenarios. Each prepares a server and then makes steps, which the run repeats: first to
//! warm up, then to measure.

pub mod client;
mod connmix;
mod cross;
pub mod mesh;
mod push;
mod room;
mod worker;
mod xxim;
mod xxim_flood;

use crate::Result;
use crate::options::{Options, Scenario};
use crate::rig::Rig;
use crate::server::Floor;

/// A scenario that is ready to be measured.
pub trait Load {
    /// Some messages, counted in the tally.
    fn step(&mut self, rig: &mut Rig) -> Result<()>;

    /// After the measurement: further figures.
    fn finish(&mut self, _rig: &mut Rig) -> Result<Vec<Figure>> {
        Ok(Vec::new())
    }
}

/// A figure besides those that every scenario has.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    pub name: &'static str,
    pub value: f64,
}

impl Figure {
    pub fn new(name: &'static str, value: f64) -> Figure {
        Figure { name, value }
    }
}

/// Brings a server into the state in which a scenario is measured.
pub fn prepare(options: &Options, rig: &mut Rig) -> Result<Box<dyn Load>> {
    let size = &options.size;
    Ok(match options.scenario {
        Scenario::Idle => Box::new(client::Idle::prepare(size, rig)?),
        Scenario::Echo => Box::new(client::Echo::prepare(size, rig)?),
        Scenario::Churn => Box::new(client::Churn::prepare(size, rig)?),
        Scenario::Broadcast => Box::new(push::Broadcast::prepare(size, rig, 0)?),
        Scenario::Slow => Box::new(push::Broadcast::slow(size, rig)?),
        Scenario::Topics => Box::new(push::Topics::prepare(size, rig)?),
        Scenario::Unicast => Box::new(push::Unicast::prepare(size, rig)?),
        Scenario::Transfer => Box::new(worker::Transfers::prepare(size, rig, false)?),
        Scenario::Roundtrip => Box::new(worker::Transfers::prepare(size, rig, true)?),
        Scenario::Groupchat => Box::new(worker::Groups::prepare(size, rig)?),
        Scenario::Room => Box::new(room::Room::prepare(size, rig)?),
        Scenario::ApiSend => Box::new(connmix::Http::prepare(size, rig, connmix::Method::Send)?),
        Scenario::ApiPublish => {
            Box::new(connmix::Http::prepare(size, rig, connmix::Method::Publish)?)
        }
        Scenario::Queue => Box::new(connmix::Queue::prepare(size, rig)?),
        Scenario::Xxim => Box::new(xxim::Requests::prepare(size, rig)?),
        Scenario::XximFlood => Box::new(xxim_flood::Flood::prepare(options, rig)?),
        Scenario::CrossShard => Box::new(cross::Cross::prepare(options, rig)?),
        Scenario::Mesh => Box::new(mesh::Mesh::prepare(options, rig)?),
        Scenario::Suite | Scenario::Smoke => return Err("not a single scenario".into()),
    })
}

/// What the floor does against which a scenario is held, and in which scenario it is measured.
pub fn floor(scenario: Scenario) -> (Floor, Scenario) {
    match scenario {
        Scenario::Idle => (Floor::Echo, Scenario::Idle),
        Scenario::Churn => (Floor::Echo, Scenario::Churn),
        Scenario::Echo
        | Scenario::Unicast
        | Scenario::Transfer
        | Scenario::Roundtrip
        | Scenario::ApiSend
        | Scenario::ApiPublish
        | Scenario::Queue
        | Scenario::Xxim
        | Scenario::XximFlood => (Floor::Echo, Scenario::Echo),
        _ => (Floor::Broadcast, Scenario::Broadcast),
    }
}

/// Whether helpers can hold a part of a scenario's clients.
pub fn spreads(scenario: Scenario) -> bool {
    use Scenario::{Broadcast, Churn, Echo, Idle, Roundtrip, Topics, Unicast};
    matches!(scenario, Broadcast | Churn | Echo | Idle | Roundtrip | Topics | Unicast)
}

/// CPUs that the server of a scenario runs on.
pub fn server_cpus(options: &Options) -> Vec<usize> {
    let members_cpu = options.size.members_cpu.filter(|_| options.scenario == Scenario::Mesh);
    let mut cpus = vec![members_cpu.unwrap_or(options.server_cpu)];
    if options.scenario == Scenario::CrossShard {
        // Members are on the first; the publisher's shard shares the load's CPU.
        cpus.extend(options.load_cpu.filter(|&cpu| cpu != options.server_cpu));
    }
    cpus
}

/// What must be known of where a scenario ran to read its figures.
pub fn note(options: &Options) -> Option<String> {
    (options.scenario == Scenario::Mesh).then(|| {
        let (publisher, load) = (options.server_cpu, options.cpu_of(0));
        let members = options.size.members_cpu.unwrap_or(publisher);
        format!(
            "shards: the members' node on CPU {members}, all others on CPU {publisher}; \
             nats-server with the load on CPU {load}; other threads of the nodes on any CPU"
        )
    })
}
