//! More load than one thread makes, or than one process may have descriptors for: helpers hold a
//! part of the clients.
//!
//! The first thread leads. It starts the server, is its backends, connects clients of its own, and
//! tells each helper over a TCP connection what to do. Helpers are threads of this process
//! (`--threads`) or of others (`--processes`); to the leader they are all the same. A helper says
//! how many messages it has counted whenever it has looked at its sockets, and at the end with what
//! latencies; all of them use the machine's monotonic clock. Each has source addresses of its own.
//!
//! Costs: one small message to the leader per `epoll_wait` of a helper that brought something.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::net::Net;
use crate::options::{Options, Size};
use crate::rig::{Rig, Tally, stamp};
use crate::scenario::Load;
use crate::scenario::client::{Churn, Echo};
use crate::server::{self, Server};
use crate::tls;

/// How long helpers may take until they are there.
const ARRIVAL: Duration = Duration::from_secs(10);
/// How long a helper that only receives waits for something.
const LOOK: Duration = Duration::from_millis(100);

/// What the leader tells a helper.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Order {
    /// The first: where the server is, and which member this is.
    Begin { server: SocketAddr, place: u8, trusted: Option<PathBuf> },
    /// Connects clients, which count what they receive. The request target of each ends in its
    /// number, if there is a first one. Answered with `Connected`.
    Connect { count: usize, path: String, first: Option<usize> },
    /// Every client sends a message, and the next one when an answer is there; or so many per
    /// second in all.
    Converse { payload: usize, rate: Option<f64> },
    /// Opens and closes connections.
    Churn { path: String, window: usize },
    /// Forgets latencies.
    Reset,
    /// Answered with `Latencies`.
    Report,
}

/// What a helper tells the leader.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Note {
    Connected,
    /// Messages since the last time.
    Counted(u64),
    /// Nanoseconds, and how many messages took so long.
    Latencies(Vec<(u64, u64)>),
    /// It can not go on.
    Failed(String),
}

/// All members but the leader.
pub struct Team {
    /// Their connections.
    pub helpers: Vec<u32>,
    threads: Vec<JoinHandle<Result<()>>>,
    processes: Vec<Child>,
}

impl Team {
    /// The leader alone.
    pub fn alone() -> Team {
        Team { helpers: Vec::new(), threads: Vec::new(), processes: Vec::new() }
    }

    /// Starts the helpers that the options ask for.
    pub fn start(options: &Options, server: &Server, net: &mut Net) -> Result<Team> {
        let mut team = Team::alone();
        let (threads, processes) = (options.threads.max(1), options.processes.max(1));
        let count = u8::try_from(threads * processes - 1)
            .ok()
            .filter(|&count| count < 250)
            .ok_or("threads times processes must be 250 at the most")?;
        if count == 0 {
            return Ok(team);
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let leader = listener.local_addr()?;
        for thread in 1..threads {
            let cpu = options.cpu_of(thread);
            team.threads.push(std::thread::spawn(move || help(leader, cpu)));
        }
        for process in 1..processes {
            let mut command = Command::new(std::env::current_exe()?);
            command.args([&options.scenario.name(), "--leader", &leader.to_string()]);
            command.args(["--threads", &threads.to_string()]);
            command.args(["--server-cpu", &options.server_cpu.to_string()]);
            let cpu = options.cpu_of(process * threads);
            command.args(["--load-cpu", &cpu.to_string()]);
            team.processes.push(server::on_all_cpus(|| command.spawn())?);
        }
        listener.set_nonblocking(true)?;
        let deadline = Instant::now() + ARRIVAL;
        while team.helpers.len() < usize::from(count) {
            match listener.accept() {
                Ok((socket, _)) => team.helpers.push(net.add_member(socket)?),
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(format!("a helper has not come: {error}").into()),
            }
        }
        for (place, &helper) in (1..).zip(&team.helpers) {
            let trusted = server.trusted.clone();
            tell(net, helper, &Order::Begin { server: server.client, place, trusted })?;
        }
        Ok(team)
    }

    /// How many of `count` each has, the leader first.
    pub fn shares(&self, count: usize) -> Vec<usize> {
        let members = self.helpers.len() + 1;
        (0..members).map(|member| (count + members - 1 - member) / members).collect()
    }
}

impl Drop for Team {
    /// By now their connections to the leader are closed, which ends them.
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Sends an order or a note.
pub fn tell(net: &mut Net, to: u32, what: &impl Serialize) -> Result<()> {
    let body = serde_json::to_vec(what)?;
    let mut frame = (body.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&body);
    net.send(to, &frame)
}

/// A process of helpers.
pub fn help_all(leader: SocketAddr, options: &Options) -> Result<()> {
    let more = (1..options.threads).map(|thread| {
        let cpu = options.cpu_of(thread);
        std::thread::spawn(move || help(leader, cpu))
    });
    let more: Vec<_> = more.collect();
    let result = help(leader, options.cpu_of(0));
    for thread in more {
        let _ = thread.join();
    }
    result
}

/// One helper, until the leader has gone. What goes wrong is told to the leader.
fn help(leader: SocketAddr, cpu: usize) -> Result<()> {
    server::pin(cpu)?;
    let mut net = Net::new()?;
    let leader = net.add_member(TcpStream::connect(leader)?)?;
    let mut helper = loop {
        net.wait(LOOK)?;
        if net.closed.contains(&leader) {
            return Ok(());
        }
        let Some((_, order)) = net.notes.pop_front() else { continue };
        let Order::Begin { server, place, trusted } = serde_json::from_slice(&order)? else {
            return Err("the first order is to begin".into());
        };
        net.place = place;
        net.tls = trusted.map(|path| tls::trust(&path)).transpose()?;
        let server = Server::elsewhere(server);
        let rig = Rig { server, net, tally: Tally::new(), team: Team::alone(), answers: 0 };
        break Helper { rig, leader, clients: Vec::new(), load: Box::new(Receive) };
    };
    let Err(error) = helper.run() else { return Ok(()) };
    tell(&mut helper.rig.net, leader, &Note::Failed(error.to_string()))
}

struct Helper {
    rig: Rig,
    leader: u32,
    clients: Vec<u32>,
    load: Box<dyn Load>,
}

impl Helper {
    fn run(&mut self) -> Result<()> {
        while !self.rig.net.closed.contains(&self.leader) {
            self.load.step(&mut self.rig)?;
            let counted = std::mem::take(&mut self.rig.tally.messages);
            if counted > 0 {
                tell(&mut self.rig.net, self.leader, &Note::Counted(counted))?;
            }
            while let Some((_, order)) = self.rig.net.notes.pop_front() {
                self.obey(serde_json::from_slice(&order)?)?;
            }
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) -> Result<()> {
        let rig = &mut self.rig;
        match order {
            Order::Begin { .. } => return Err("it has begun".into()),
            Order::Connect { count, path, first } => {
                let target = |number: usize| match first {
                    Some(first) => format!("{path}{}", first + number),
                    None => path.clone(),
                };
                self.clients.extend(rig.net.connect_clients(rig.server.client, count, target)?);
                tell(&mut rig.net, self.leader, &Note::Connected)?;
            }
            Order::Converse { payload, rate } => {
                let size = Size { payload: Some(payload), rate, ..Size::default() };
                self.load = Box::new(Echo::over(self.clients.clone(), &size, rig)?);
            }
            Order::Churn { path, window } => self.load = Box::new(Churn { path, window }),
            Order::Reset => rig.tally.reset(),
            Order::Report => {
                let recorded = rig.tally.latency.iter_recorded();
                let times = recorded.map(|step| (step.value_iterated_to(), step.count_at_value()));
                let latencies = Note::Latencies(times.collect());
                tell(&mut rig.net, self.leader, &latencies)?;
            }
        }
        Ok(())
    }
}

/// Counts what arrives.
struct Receive;

impl Load for Receive {
    fn step(&mut self, rig: &mut Rig) -> Result<()> {
        for client in rig.net.wait(LOOK)? {
            let now = rig.tally.now();
            rig.net.read(client, |data| {
                if let Some((sent, _)) = stamp(data) {
                    rig.tally.count(sent, now);
                }
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_the_leader_has_the_largest() {
        let mut team = Team::alone();
        assert_eq!(team.shares(7), [7]);
        team.helpers = vec![1, 2];
        assert_eq!(team.shares(7), [3, 2, 2]);
        assert_eq!(team.shares(6), [2, 2, 2]);
        assert_eq!(team.shares(1), [1, 0, 0]);
    }
}
