//! What operators see and do: the admin interface over both of its sockets, and `ringway ctl`.

mod common;

#[path = "operators/http.rs"]
mod http;
#[path = "operators/lists.rs"]
mod lists;
#[path = "operators/steer.rs"]
mod steer;
#[path = "operators/wrong.rs"]
mod wrong;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::*;
use http::{Door, server, server_with};
use serde_json::{Value, json};

#[test]
fn the_socket_is_for_this_user_and_answers_as_the_port_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("admin.sock");
    // Left by a process that is gone.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let server = server_with(|config| config.admin.socket = Some(path.clone()));
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let (client, mut worker) = (server.client(), server.worker(1));
    let socket = Door::Socket(path.clone());
    for door in [&socket, &Door::of(&server)] {
        let (status, answer) = door.ask("GET", "/connections?protocol=netsvr", "");
        assert_eq!((status, answer["rows"].as_array().map(Vec::len)), (200, Some(1)), "{answer}");
        assert_eq!(door.get("/version")["version"], env!("CARGO_PKG_VERSION"));
        assert!(door.page("/metrics").1.contains("ringway_connections"));
    }
    drop(client);
    let _ = &mut worker;
    // A second gateway does not take it from the first.
    let mut config = http::configured(|config| config.admin.socket = Some(path.clone()));
    config.admin.bind = None;
    let refused = ringway::gateway::Gateway::start(config).err().expect("it is taken").to_string();
    assert!(refused.contains("admin.sock"), "{refused}");
    assert_eq!(socket.get("/version")["api"], 1);
}

#[test]
fn a_file_at_the_place_of_the_socket_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("precious");
    std::fs::write(&path, "keep me").expect("the folder is ours");
    let config = http::configured(|config| config.admin.socket = Some(path.clone()));
    let refused = ringway::gateway::Gateway::start(config).err().expect("a file").to_string();
    assert!(refused.contains("no socket"), "{refused}");
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "keep me");
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 1);
}

#[test]
fn outside_loopback_there_are_pages_and_no_interface() {
    let server = server_with(|config| {
        config.admin.bind = Some(([0, 0, 0, 0], 0).into());
    });
    let door = Door::of(&server);
    assert_eq!(door.page("/healthz").0, 200);
    let (status, answer) = door.ask("GET", "/version", "");
    assert_eq!(status, 403);
    let message = answer["error"]["message"].as_str().expect("a message");
    assert!(message.contains("admin.socket"), "{message}");
}

fn ctl(socket: &std::path::Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.arg("ctl").arg("--socket").arg(socket).args(arguments);
    let output = command.output().expect("it can be started");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_lists_shows_and_closes() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("admin.sock");
    let server = server_with(|config| config.admin.socket = Some(path.clone()));
    let (mut worker, mut client) = (server.worker(1 | 2), server.client());
    let id = worker.opened();
    worker.subscribe(&id, &["news"]);
    wait_until("it is in the topic", || Door::of(&server).get("/topics")["rows"] != json!([]));
    let ctl = |arguments: &[&str]| ctl(&path, arguments);
    let (code, out, error) = ctl(&["ls", "connections", "--protocol", "netsvr"]);
    assert_eq!((code, &*error), (Some(0), ""));
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("ID") && lines[1].starts_with(&id), "{out}");
    let (_, out, _) = ctl(&["--json", "show", "connection", &id]);
    let shown: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&shown["id"], &shown["topic_names"]), (&json!(id), &json!(["news"])));
    let (_, out, _) = ctl(&["ls", "topics"]);
    assert_eq!(
        out.lines().nth(1).map(|line| line.split_whitespace().collect()),
        Some(vec!["news", "1"])
    );
    let (code, out, _) = ctl(&["top", "--times", "1"]);
    assert!(code == Some(0) && out.contains("SHARD") && out.contains(&id), "{out}");
    let (code, _, error) = ctl(&["show", "connection", "nobody"]);
    assert!(code == Some(1) && error.contains("names no connection of node"), "{error}");
    let (code, _, error) = ctl(&["ls", "connections", "--state", "asleep"]);
    assert!(code == Some(1) && error.contains("opening, open, blocked, closing"), "{error}");
    let (_, out, _) = ctl(&["publish", "news", "hello"]);
    assert_eq!(client.frame().text(), "hello");
    assert!(out.contains("done"), "{out}");
    assert_eq!(ctl(&["kick", &id, "--code", "4001", "--reason", "bye"]).0, Some(0));
    assert_eq!(client.frame().close(), (4001, "bye"));
}

#[test]
fn the_command_says_when_there_is_no_gateway() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, _, error) = ctl(&folder.path().join("nothing.sock"), &["version"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("no gateway answers at") && error.contains("nothing.sock"), "{error}");
}

#[test]
fn every_protocol_describes_its_connections() {
    let server = server();
    let door = Door::of(&server);
    let (mut worker, _client) = (server.worker(1), server.client());
    worker.opened();
    let rows = door.get("/connections?protocol=netsvr-business");
    let worker_id = rows["rows"][0]["id"].as_str().expect("the worker").to_owned();
    let shown = door.get(&format!("/connections/{worker_id}"));
    assert_eq!(
        (&shown["facts"]["port"], &shown["facts"]["events"]),
        (&json!("worker"), &json!("1"))
    );
    assert_eq!(shown["websocket"], false);
    let workers = door.get("/workers");
    assert_eq!(
        (&workers["rows"][0]["id"], &workers["rows"][0]["events"]),
        (&json!(worker_id), &json!(1))
    );
    for (protocol, fact) in [("xxim", "encrypted"), ("connmix", "client_id"), ("im", "login")] {
        let (listener, path) = http::listener_of(&server, protocol);
        let _client = Client::open(listener, &path);
        let find = || door.get(&format!("/connections?protocol={protocol}"));
        wait_until("the client is there", || {
            find()["rows"].as_array().is_some_and(|r| !r.is_empty())
        });
        let id = find()["rows"][0]["id"].as_str().expect("an id").to_owned();
        let shown = door.get(&format!("/connections/{id}"));
        assert!(shown["facts"][fact].is_string(), "{protocol}: {shown}");
        assert_eq!(shown["websocket"], true);
    }
}
