//! What operators do to connections.

use serde_json::json;

use crate::common::*;
use crate::http::{Door, server};

#[test]
fn a_client_is_closed_in_the_words_of_the_operator() {
    let server = server();
    let door = Door::of(&server);
    let mut worker = server.worker(1 | 2);
    let (mut one, mut other) = (server.client(), server.client());
    let first = worker.opened();
    let second = worker.opened();
    let (status, answer) = door.ask(
        "DELETE",
        &format!("/connections/{first}"),
        r#"{"code": 4321, "reason": "maintenance of your room"}"#,
    );
    assert_eq!((status, &answer), (200, &json!({ "done": 1, "failed": 0 })));
    assert_eq!(worker.closed().uniq_id, first);
    wait_until("a close frame", || one.has_input() || other.has_input());
    let (closed, open) = match one.has_input() {
        true => (&mut one, &mut other),
        false => (&mut other, &mut one),
    };
    let shown = door.get(&format!("/connections/{first}"));
    assert_eq!(shown["state"], "closing");
    assert_eq!(shown["reasons"], json!(["waits for its close frame"]));
    assert_eq!(closed.frame().close(), (4321, "maintenance of your room"));
    closed.send_close(4321);
    let is_gone = || door.ask("GET", &format!("/connections/{first}"), "").0 == 404;
    wait_until("it is gone", is_gone);
    // Nobody is there a second time, and the other one still is.
    let (status, answer) = door.ask("DELETE", &format!("/connections/{first}"), "");
    assert_eq!(status, 404, "{answer}");
    let body = json!({ "connection": second, "data": "still here" }).to_string();
    assert_eq!(door.ask("POST", "/send", &body), (200, json!({ "done": 1, "failed": 0 })));
    assert_eq!(open.frame().text(), "still here");
}

#[test]
fn topics_and_users_are_reached_on_every_shard() {
    const CLIENTS: usize = 20;
    let server = server();
    let door = Door::of(&server);
    let mut worker = server.worker(1 | 2);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    for _ in 0..CLIENTS {
        let id = worker.opened();
        worker.subscribe(&id, &["all"]);
    }
    let members = || door.get("/topics/all")["rows"].as_array().map(Vec::len);
    wait_until("all are members", || members() == Some(CLIENTS));
    let body = json!({ "topic": "all", "data": "ünïcode" }).to_string();
    assert_eq!(door.ask("POST", "/publish", &body), (200, json!({ "done": CLIENTS, "failed": 0 })));
    clients.iter_mut().for_each(|client| assert_eq!(client.frame().text(), "ünïcode"));
    let body = json!({ "user": "nobody", "data": "x" }).to_string();
    assert_eq!(door.ask("POST", "/send", &body), (200, json!({ "done": 0, "failed": 0 })));
    let (status, answer) = door.ask("DELETE", "/users/nobody", "");
    assert_eq!((status, answer), (200, json!({ "done": 0, "failed": 0 })));
}

#[test]
fn only_clients_are_closed_and_sent_to() {
    let server = server();
    let door = Door::of(&server);
    let _worker = server.worker(1);
    let id = door.get("/connections?protocol=netsvr-business")["rows"][0]["id"].clone();
    let id = id.as_str().expect("the worker");
    let (status, answer) = door.ask("DELETE", &format!("/connections/{id}"), "");
    assert_eq!((status, &answer["error"]["code"]), (409, &json!("conflict")), "{answer}");
    let body = json!({ "connection": id, "data": "x" }).to_string();
    assert_eq!(door.ask("POST", "/send", &body).0, 409);
}
