//! `ringway ctl`: what operators see and do, from a terminal. It speaks with a gateway that runs,
//! over its admin interface: the Unix socket of the machine, or an address.
//!
//! Everything is one request and one answer; `--json` prints the answer as it came.

mod client;
mod table;
mod top;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use client::Client;
pub use client::CtlError;
use table::Table;

/// Where a packaged gateway has its socket.
const SOCKET: &str = "/run/ringway/admin.sock";
/// Where a gateway has its admin server unless it is told otherwise.
const URL: &str = "http://127.0.0.1:9464";

/// What is asked, and whom.
#[derive(Args, Debug)]
pub struct Ctl {
    /// The Unix socket of the gateway: `admin.socket` of its configuration. Without it and --url:
    /// /run/ringway/admin.sock if that is there, else http://127.0.0.1:9464.
    #[arg(long, env = "RINGWAY_CTL_SOCKET", global = true)]
    socket: Option<std::path::PathBuf>,
    /// The address of the admin server, as http://127.0.0.1:9464. It counts before --socket.
    #[arg(long, env = "RINGWAY_CTL_URL", global = true)]
    url: Option<String>,
    /// Another node of the mesh, by its number; `all` is every one.
    #[arg(long, global = true)]
    node: Option<String>,
    /// Print the answers as JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The gateway at a glance, again and again.
    Top {
        /// Seconds between two looks.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
        every: u64,
        /// How many looks; without it until it is interrupted.
        #[arg(long)]
        times: Option<u64>,
    },
    /// List what there is.
    Ls(Listing),
    /// Show one thing.
    Show {
        /// What it is.
        what: Thing,
        /// Its id or name.
        id: String,
    },
    /// Close a connection, or every connection of a user.
    Kick {
        /// The id of the connection, or the user with --user.
        id: String,
        /// It is a user.
        #[arg(long)]
        user: bool,
        /// Close code.
        #[arg(long, default_value_t = 1000)]
        code: u16,
        /// Close reason.
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Send a text to every member of a topic.
    Publish {
        /// The topic.
        topic: String,
        /// The text.
        data: String,
    },
    /// Send a text to a connection, or to every connection of a user.
    Send {
        /// The id of the connection, or the user with --user.
        id: String,
        /// The text.
        data: String,
        /// It is a user.
        #[arg(long)]
        user: bool,
    },
    /// The version of the gateway.
    Version,
}

#[derive(Args, Debug)]
struct Listing {
    /// What is listed.
    what: Things,
    /// Connections that speak this, as `netsvr`.
    #[arg(long)]
    protocol: Option<String>,
    /// Connections of this user.
    #[arg(long)]
    user: Option<String>,
    /// Connections in this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Connections from this address or network.
    #[arg(long)]
    address: Option<String>,
    /// Connections of the listener at this address.
    #[arg(long)]
    listener: Option<String>,
    /// Connections that are opening, open, blocked or closing.
    #[arg(long)]
    state: Option<String>,
    /// Users and topics whose name begins so.
    #[arg(long)]
    prefix: Option<String>,
    /// What stands first: age, idle, outbox, in, out; of users and topics: members.
    #[arg(long)]
    sort: Option<String>,
    /// Rows at the most.
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Things {
    Connections,
    Users,
    Topics,
    Workers,
    Nodes,
    Shards,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Thing {
    Connection,
    User,
    Topic,
}

/// Rows of one page.
const PAGE: usize = 1000;

/// Asks the gateway and prints what it says.
pub async fn run(ctl: Ctl) -> Result<(), CtlError> {
    let client = Client::new(ctl.socket.as_deref(), ctl.url.as_deref(), ctl.node.as_deref())?;
    let json = ctl.json;
    match ctl.what {
        What::Top { every, times } => top::run(&client, every, times).await,
        What::Ls(listing) => list(&client, &listing, json).await,
        What::Show { what, id } => {
            let (path, rows) = match what {
                Thing::Connection => (vec!["connections", &id], None),
                Thing::User => (vec!["users", &id], Some(table::CONNECTIONS)),
                Thing::Topic => (vec!["topics", &id], Some(table::CONNECTIONS)),
            };
            let limit = PAGE.to_string();
            let query: &[_] = if rows.is_some() { &[("limit", &*limit)] } else { &[] };
            let answer = client.ask("GET", &path, query, None).await?;
            print(&answer, rows, json)
        }
        What::Kick { id, user, code, reason } => {
            let path = [if user { "users" } else { "connections" }, &*id];
            let body = json!({ "code": code, "reason": reason });
            print(&client.ask("DELETE", &path, &[], Some(body)).await?, None, json)
        }
        What::Publish { topic, data } => {
            let body = json!({ "topic": topic, "data": data });
            print(&client.ask("POST", &["publish"], &[], Some(body)).await?, None, json)
        }
        What::Send { id, data, user } => {
            let to = if user { "user" } else { "connection" };
            let body = json!({ to: id, "data": data });
            print(&client.ask("POST", &["send"], &[], Some(body)).await?, None, json)
        }
        What::Version => print(&client.ask("GET", &["version"], &[], None).await?, None, json),
    }
}

/// Prints rows, page after page, until there are as many as are wanted.
async fn list(client: &Client, listing: &Listing, json: bool) -> Result<(), CtlError> {
    let (path, table) = match listing.what {
        Things::Connections => ("connections", table::CONNECTIONS),
        Things::Users => ("users", table::NAMES),
        Things::Topics => ("topics", table::NAMES),
        Things::Workers => ("workers", table::WORKERS),
        Things::Nodes => ("nodes", table::NODES),
        Things::Shards => ("shards", table::SHARDS),
    };
    let pages = matches!(listing.what, Things::Connections | Things::Users | Things::Topics);
    let mut left = listing.limit;
    let mut after: Option<String> = None;
    let mut title = true;
    loop {
        let limit = left.min(PAGE).to_string();
        let mut query = listing.query();
        if pages {
            query.push(("limit", &limit));
            query.extend(after.as_deref().map(|after| ("after", after)));
        }
        let answer = client.ask("GET", &[path], &query, None).await?;
        let rows = answer["rows"].as_array().map_or(0, Vec::len);
        match json {
            true => out(&answer.to_string())?,
            false => Table { columns: table, title }.print(&answer)?,
        }
        faults(&answer)?;
        (title, left) = (false, left.saturating_sub(rows));
        after = answer["next"].as_str().map(str::to_owned);
        if after.is_none() || left == 0 {
            return Ok(());
        }
    }
}

impl Listing {
    fn query(&self) -> Vec<(&str, &str)> {
        let all = [
            ("protocol", &self.protocol),
            ("user", &self.user),
            ("topic", &self.topic),
            ("address", &self.address),
            ("listener", &self.listener),
            ("state", &self.state),
            ("prefix", &self.prefix),
            ("sort", &self.sort),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
}

/// What single nodes could not do.
fn faults(answer: &Value) -> Result<(), CtlError> {
    let nodes = answer["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let fault = |node: &Value| {
        let message = node["answer"]["error"]["message"].as_str()?;
        Some(format!("node {}: {}", node["node"], table::plain(message)))
    };
    let faults: Vec<String> = nodes.iter().filter_map(fault).collect();
    if faults.is_empty() { Ok(()) } else { Err(CtlError::Refused(faults.join("; "))) }
}

fn print(answer: &Value, rows: Option<table::Columns>, json: bool) -> Result<(), CtlError> {
    match rows {
        _ if json => out(&answer.to_string())?,
        Some(columns) => Table { columns, title: true }.print(answer)?,
        None => table::fields(answer)?,
    }
    faults(answer)
}

/// Writes a line. A reader that has seen enough ends the process.
fn out(line: &str) -> Result<(), CtlError> {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.map_err(CtlError::Output),
    }
}
