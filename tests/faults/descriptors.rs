//! The process runs out of descriptors.

use std::process::Command;

use crate::binary::{Binary, File, LISTENERS, RINGWAY};
use crate::common::*;

/// Descriptors that are open in the process.
fn open_descriptors(server: &Binary) -> usize {
    let path = format!("/proc/{}/fd", server.id().as_raw_nonzero());
    std::fs::read_dir(path).expect("it is running").count()
}

/// The gateway keeps so many descriptors for itself that clients can not use all of them up. So it
/// inherits some that it knows nothing of.
fn nearly_full() -> Binary {
    const SCRIPT: &str = "for fd in {10..409}; do eval \"exec $fd</dev/null\"; done; \
                          ulimit -n 500 && exec \"$0\" serve --config \"$1\"";
    let file = File::new(LISTENERS);
    let mut command = Command::new("bash");
    command.arg("-c").arg(SCRIPT).arg(RINGWAY).arg(file.path());
    Binary::spawn(command, file)
}

#[test]
fn without_descriptors_new_connections_wait_until_old_ones_end() {
    const OLD: usize = 20;
    let mut server = nearly_full();
    let free = 500 - open_descriptors(&server);
    assert!((OLD..90).contains(&free), "{free} descriptors are free");
    let old: Vec<Client> = (0..OLD).map(|_| server.client()).collect();
    let new: Vec<Client> = (0..free)
        .map(|_| {
            let mut client = Client::tcp(server.address(CLIENTS));
            client.write(upgrade_request("/netsvr", "").as_bytes());
            client
        })
        .collect();
    let mut worker = Business::connect(server.address(WORKERS));
    server.await_log("can not accept");
    // The first of the new ones have found descriptors, the others get those of the old ones.
    drop(old);
    for mut client in new {
        assert!(client.head().starts_with("HTTP/1.1 101 "));
    }
    worker.register(7);
    let failures = || server.metric("ringway_accept_failures_total", "");
    wait_until("the failures to be counted", || failures() > 0);
    drop(worker);
    server.check_serves();
}

#[test]
fn the_default_of_connections_leaves_descriptors_for_the_gateway_itself() {
    let file = File::new(LISTENERS);
    let mut command = Command::new("sh");
    command.arg("-c").arg("ulimit -n 500 && exec \"$0\" serve --config \"$1\"");
    command.arg(RINGWAY).arg(file.path());
    let server = Binary::spawn(command, file);
    let refused = || server.metric("ringway_connections_refused_total", "");
    let connections: Vec<Client> = (0..400).map(|_| Client::tcp(server.address(CLIENTS))).collect();
    wait_until("refused ones", || {
        refused() + server.metric("ringway_connections", "") == connections.len() as u64
    });
    assert!(refused() > 0, "500 descriptors are not enough for 400 connections and the reserve");
    assert_eq!(server.metric("ringway_accept_failures_total", ""), 0);
    drop(connections);
    wait_until("room again", || server.metric("ringway_connections", "") == 0);
    server.check_serves();
}
