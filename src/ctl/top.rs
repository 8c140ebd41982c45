//! `ringway ctl top`: the load of a gateway, redrawn in the terminal.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::Value;

use super::client::Client;
use super::table::{self, Table};
use super::{CtlError, out};

/// Cursor to the upper left corner, and what is below it gone.
const CLEAR: &str = "\u{1b}[H\u{1b}[J";
/// Connections that are shown.
const BUSIEST: &str = "15";

/// Looks again and again; into a pipe without moving the cursor.
pub(super) async fn run(client: &Client, every: u64, times: Option<u64>) -> Result<(), CtlError> {
    let mut turns = tokio::time::interval(Duration::from_secs(every));
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut left = times;
    while left != Some(0) {
        turns.tick().await;
        let overview = client.ask("GET", &["overview"], &[], None).await?;
        let shards = client.ask("GET", &["shards"], &[], None).await?;
        let query = [("sort", "outbox"), ("limit", BUSIEST)];
        let fullest = client.ask("GET", &["connections"], &query, None).await?;
        if std::io::stdout().is_terminal() {
            out(CLEAR)?;
        }
        head(&overview)?;
        Table { columns: table::SHARDS, title: true }.print(&shards)?;
        out("\nConnections with most in their outbox:")?;
        Table { columns: table::CONNECTIONS, title: true }.print(&fullest)?;
        left = left.map(|left| left - 1);
    }
    Ok(())
}

fn head(overview: &Value) -> Result<(), CtlError> {
    let nodes = match overview["nodes"].as_array() {
        Some(nodes) => nodes.iter().map(|node| &node["answer"]).collect(),
        None => vec![overview],
    };
    for node in nodes {
        let field = |name: &str| match &node[name] {
            Value::String(text) => table::plain(text),
            other => other.to_string(),
        };
        out(&format!(
            "node {}  {}  up {} s  {} connections  {} clients  {} subscriptions  {} waiting  \
             {} stalled",
            field("node"),
            field("state"),
            field("uptime_seconds"),
            field("connections"),
            field("clients"),
            field("subscriptions"),
            field("clients_waiting_for_workers"),
            field("stalled_sends"),
        ))?;
    }
    out("")
}
