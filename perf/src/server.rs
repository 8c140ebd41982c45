//! The server under test: a gateway or a floor that is started here, or one that runs already.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Result;
use crate::nats::Nats;
use crate::options::Options;
use crate::tls::Identity;

/// How long a server may take until it listens.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// What a floor does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Floor {
    Echo,
    Broadcast,
}

/// A server that can be measured.
#[derive(Clone, Debug)]
pub enum Contender {
    /// A `ringway` program.
    Gateway(PathBuf),
    /// The `floor` program.
    Floor(PathBuf, Floor),
    /// A running process that somebody else controls.
    Running { client: SocketAddr, pid: u32, path: String },
}

/// What a gateway needs beside itself.
#[derive(Default)]
pub struct Surroundings {
    /// It serves xxim clients on `/ws` and carries their requests there.
    pub upstream: Option<SocketAddr>,
    /// It is the node of this number in the mesh of the NATS server at this URL.
    pub mesh: Option<(u16, String)>,
}

/// A server that runs. Ends with this, unless it belongs to somebody else.
pub struct Server {
    pub pid: u32,
    pub client: SocketAddr,
    /// Request target of clients for the scenarios `echo` and `churn`.
    pub echo_path: String,
    /// The backend listeners of a gateway.
    pub worker: Option<SocketAddr>,
    pub task: Option<SocketAddr>,
    /// The connmix API of a gateway.
    pub api: Option<SocketAddr>,
    /// Where a node of a mesh shows its metrics.
    pub admin: Option<SocketAddr>,
    /// The program of a gateway.
    pub program: Option<PathBuf>,
    /// CPUs of a gateway.
    pub shards: usize,
    /// Certificates that clients trust; `None`: they speak plain WebSocket.
    pub trusted: Option<PathBuf>,
    _child: Option<Started>,
    /// What the nodes of a mesh are linked by; ends after them.
    pub nats: Option<Nats>,
    _config: Option<tempfile::NamedTempFile>,
    _key: Option<tempfile::NamedTempFile>,
    _identity: Option<Identity>,
}

impl Server {
    /// Starts a server on the given CPUs, or finds the running one.
    pub fn start(
        contender: &Contender,
        cpus: &[usize],
        options: &Options,
        around: &Surroundings,
    ) -> Result<Server> {
        match contender {
            Contender::Gateway(program) => Server::gateway(program, cpus, options.tls, around),
            Contender::Floor(program, floor) => start_floor(program, *floor, cpus[0]),
            Contender::Running { client, pid, path } => {
                let trusted = options.ca.clone().filter(|_| options.tls);
                if options.tls && trusted.is_none() {
                    return Err("--tls with --addr needs --ca: what clients are to trust".into());
                }
                let echo_path = path.clone();
                Ok(Server { pid: *pid, echo_path, trusted, ..Server::elsewhere(*client) })
            }
        }
    }

    /// Starts a gateway.
    pub fn gateway(
        program: &Path,
        cpus: &[usize],
        tls: bool,
        around: &Surroundings,
    ) -> Result<Server> {
        let (mut client, worker, task) = (free_address()?, free_address()?, free_address()?);
        let api = free_address()?;
        let admin = around.mesh.is_some().then(free_address).transpose()?;
        let identity = tls.then(Identity::new).transpose()?;
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile()?;
        let text = config([client, worker, task, api], cpus, identity.as_ref());
        file.write_all(text.as_bytes())?;
        let key = around.upstream.map(|_| xxim_key()).transpose()?;
        if let (Some(upstream), Some(key)) = (around.upstream, &key) {
            client = free_address()?;
            let text = xxim_config(client, upstream, key.path(), identity.as_ref());
            file.write_all(text.as_bytes())?;
        }
        let mut command = Command::new(program);
        command.args(["serve", "--config"]).arg(file.path()).stdout(Stdio::null());
        command.stderr(Stdio::inherit());
        if let (Some((node, nats)), Some(admin)) = (&around.mesh, admin) {
            write!(file, "\n[mesh]\nnats = [{nats:?}]\n")?;
            command.env("RINGWAY_NODE", node.to_string());
            command.env("RINGWAY_NETSVR__CLUSTER", "true");
            command.env("RINGWAY_ADMIN__BIND", admin.to_string());
        }
        let child = on_all_cpus(|| command.spawn())?;
        let server = Server {
            pid: child.id(),
            echo_path: "/echo".to_owned(),
            worker: Some(worker),
            task: Some(task),
            api: Some(api),
            admin,
            program: Some(program.to_owned()),
            shards: cpus.len(),
            trusted: identity.as_ref().map(Identity::certificate),
            _child: Some(Started(child)),
            _config: Some(file),
            _key: key,
            _identity: identity,
            ..Server::elsewhere(client)
        };
        for address in [client, worker, task, api].into_iter().chain(admin) {
            await_listener(address)?;
        }
        Ok(server)
    }

    /// A server of which only the address is known.
    pub fn elsewhere(client: SocketAddr) -> Server {
        Server {
            pid: 0,
            client,
            echo_path: "/".to_owned(),
            worker: None,
            task: None,
            api: None,
            admin: None,
            program: None,
            nats: None,
            shards: 1,
            trusted: None,
            _child: None,
            _config: None,
            _key: None,
            _identity: None,
        }
    }

    /// The worker listener.
    pub fn worker(&self) -> Result<SocketAddr> {
        self.worker.ok_or_else(|| "this scenario needs a gateway, not --addr".into())
    }
}

/// A process that was started here, and ends with this.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a gateway does without while it is measured.
const QUIET: &str = r#"[admin]
bind = ""

[log]
filter = "warn"
"#;

/// Limits that would stop the load are out of the way; everything else is the default.
fn config(
    [client, worker, task, api]: [SocketAddr; 4],
    cpus: &[usize],
    identity: Option<&Identity>,
) -> String {
    let tls = tls_line(identity);
    let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
    let cpus = cpus.join(",");
    format!(
        r#"
[runtime]
cpus = "{cpus}"

[[listener]]
bind = "{client}"
routes = [
  {{ path = "/netsvr", protocol = "netsvr" }},
  {{ path = "/echo", protocol = "echo" }},
  {{ path = "/im", protocol = "im" }},
  {{ path = "/chat", protocol = "connmix" }},
]
{tls}

[[listener]]
bind = "{worker}"
protocol = "netsvr-worker"

[[listener]]
bind = "{task}"
protocol = "netsvr-task"

[[listener]]
bind = "{api}"
protocol = "connmix-api"

[[connmix.server]]
name = "perf"
read_timeout = "1h"

[[connmix.server.rule]]
on = "message"
do = [ {{ push = {{ topic = "perf", include = ["frame"] }} }} ]

[connmix.queue]
full = "block"

[netsvr.customer]
heartbeat_interval = "1h"
max_online = 19000
limit_window_max_requests = 4294967295
limit_zero_window_max_requests = 4294967295

[im]
idle_timeout = "1h"

{QUIET}"#
    )
}

/// The line of a listener that encrypts.
fn tls_line(identity: Option<&Identity>) -> String {
    identity.map_or(String::new(), |identity| {
        format!("tls = {{ cert = {:?}, key = {:?} }}", identity.certificate(), identity.key())
    })
}

/// The key of the xxim specification's section 3.8, for which the load has ciphertexts.
fn xxim_key() -> Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(include_bytes!("../../tests/vectors/xxim/test-key.pem"))?;
    Ok(file)
}

/// One more listener, for xxim clients.
fn xxim_config(
    client: SocketAddr,
    upstream: SocketAddr,
    key: &Path,
    identity: Option<&Identity>,
) -> String {
    let tls = tls_line(identity);
    format!(
        r#"
[[listener]]
bind = "{client}"
routes = [ {{ path = "/ws", protocol = "xxim" }} ]
{tls}

[xxim.crypto]
private_key = {key:?}

[[xxim.upstream]]
name = "load"
url = "http://{upstream}"

[[xxim.route]]
prefix = "/v1/"
upstream = "load"
"#
    )
}

fn start_floor(program: &Path, floor: Floor, cpu: usize) -> Result<Server> {
    let mode = match floor {
        Floor::Echo => "echo",
        Floor::Broadcast => "broadcast",
    };
    let mut command = Command::new(program);
    command.args([mode, &cpu.to_string()]).stdout(Stdio::piped());
    let mut child = on_all_cpus(|| command.spawn())
        .map_err(|error| format!("{}: {error} (build it, or --no-floor)", program.display()))?;
    let mut line = String::new();
    let output = child.stdout.take().ok_or("the floor has no output")?;
    BufReader::new(output).read_line(&mut line)?;
    let client = line.trim().parse().map_err(|_| format!("the floor said {line:?}"))?;
    Ok(Server { pid: child.id(), _child: Some(Started(child)), ..Server::elsewhere(client) })
}

/// An address that nobody listens on, as far as is known.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Waits until somebody listens on it.
pub fn await_listener(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + START_PATIENCE;
    while TcpStream::connect(address).is_err() {
        if Instant::now() > deadline {
            return Err(format!("nothing listens on {address} after {START_PATIENCE:?}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Runs the calling thread on one CPU.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// CPUs that this process could use when it started.
pub fn cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// A child inherits the CPUs of its parent, which is pinned to one.
pub fn on_all_cpus<T>(action: impl FnOnce() -> std::io::Result<T>) -> Result<T> {
    let own = sched_getaffinity(None)?;
    let mut all = CpuSet::new();
    (0..CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    sched_setaffinity(None, &all)?;
    let result = action();
    sched_setaffinity(None, &own)?;
    Ok(result?)
}
