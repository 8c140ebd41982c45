//! Lists: filters, order, pages, over two shards.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::common::*;
use crate::http::{Door, server};

const CLIENTS: usize = 40;

fn ids(answer: &Value) -> Vec<String> {
    let rows = answer["rows"].as_array().expect("rows");
    rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
}

/// All rows of a list, page by page.
fn pages(door: &Door, path: &str, limit: usize) -> Vec<Value> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let answer = door.get(&format!("{path}limit={limit}&after={after}"));
        let rows = answer["rows"].as_array().expect("rows");
        assert!(rows.len() <= limit);
        all.extend(rows.iter().cloned());
        match answer["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => return all,
        }
    }
}

#[test]
fn every_connection_is_on_one_page_and_passes_the_filters() {
    let server = server();
    let door = Door::of(&server);
    let mut worker = server.worker(1 | 2);
    let clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    let opened: BTreeSet<String> = (0..CLIENTS).map(|_| worker.opened()).collect();
    for sort in ["", "sort=age&", "sort=idle&", "sort=outbox&", "sort=in&", "sort=out&"] {
        for limit in [1, 7, CLIENTS, 1000] {
            let rows = pages(&door, &format!("/connections?protocol=netsvr&{sort}"), limit);
            let found: Vec<_> = rows.iter().map(|row| row["id"].as_str().expect("id")).collect();
            assert_eq!(found.len(), CLIENTS, "{sort}{limit}");
            assert_eq!(found.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), opened);
        }
    }
    let first = opened.first().expect("there are some").clone();
    worker.subscribe(&first, &["one"]);
    wait_until("it is in the topic", || ids(&door.get("/connections?topic=one")).len() == 1);
    assert_eq!(ids(&door.get("/connections?topic=one"))[0], first);
    assert_eq!(ids(&door.get("/topics/one")), [first]);
    for (filter, count) in [
        ("address=127.0.0.0/8&protocol=netsvr", CLIENTS),
        ("address=127.0.0.1&protocol=netsvr", CLIENTS),
        ("address=192.0.2.1", 0),
        ("state=open&protocol=netsvr", CLIENTS),
        ("state=closing", 0),
        ("user=nobody", 0),
        ("topic=none", 0),
    ] {
        assert_eq!(ids(&door.get(&format!("/connections?{filter}"))).len(), count, "{filter}");
    }
    let listener = server.address(0);
    let there = pages(&door, &format!("/connections?listener={listener}&"), 1000);
    assert_eq!(there.len(), CLIENTS);
    drop(clients);
    wait_until("all are gone", || ids(&door.get("/connections?protocol=netsvr")).is_empty());
}

#[test]
fn a_row_says_what_went_over_the_connection() {
    let server = server();
    let door = Door::of(&server);
    let mut worker = server.worker(1 | 2 | 4);
    let mut client = server.client();
    let id = worker.opened();
    for text in ["a", "bc", "def"] {
        client.send_text(text);
        worker.transfer();
    }
    worker.single_cast(&id, "0123456789");
    assert_eq!(client.frame().text(), "0123456789");
    let row = door.get(&format!("/connections/{id}"));
    assert_eq!(row["received_messages"], 3);
    // Three frames of 6 bytes and their payloads, behind the request.
    assert!(row["received_bytes"].as_u64().expect("a number") > 24, "{row}");
    assert_eq!(row["sent_messages"], 1);
    assert!(row["sent_bytes"].as_u64().expect("a number") > 12, "{row}");
    assert_eq!((&row["protocol"], &row["state"]), (&json!("netsvr"), &json!("open")));
    assert_eq!(row["address"], client.socket.local_addr().expect("an address").to_string());
    assert_eq!(
        (&row["tls"], &row["session_bytes"], &row["reasons"]),
        (&json!(null), &json!(0), &json!([]))
    );
    let of_worker = &door.get("/connections?protocol=netsvr-business")["rows"][0];
    // Its registration and the cast.
    assert_eq!(of_worker["received_messages"], 2);
}

#[test]
fn names_are_counted_over_all_shards() {
    let server = server();
    let door = Door::of(&server);
    let mut worker = server.worker(1 | 2);
    let _clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for number in 0..CLIENTS {
        let id = worker.opened();
        let topics: Vec<String> = (0..=number).map(|topic| format!("t{topic:02}")).collect();
        worker.subscribe(&id, &topics.iter().map(String::as_str).collect::<Vec<_>>());
        topics.into_iter().for_each(|topic| *expected.entry(topic).or_default() += 1);
    }
    let counts = |rows: &[Value]| -> Vec<(String, u64)> {
        let of = |row: &Value| {
            (
                row["name"].as_str().expect("a name").to_owned(),
                row["connections"].as_u64().expect("n"),
            )
        };
        rows.iter().map(of).collect()
    };
    let expected: Vec<(String, u64)> = expected.into_iter().collect();
    wait_until("all are subscribed", || counts(&pages(&door, "/topics?", 1000)) == expected);
    assert_eq!(counts(&pages(&door, "/topics?", 7)), expected);
    assert_eq!(counts(&pages(&door, "/topics?prefix=t1&", 3)), expected[10..20]);
    let largest = door.get("/topics?sort=members&limit=2");
    assert_eq!(counts(largest["rows"].as_array().expect("rows")), expected[..2]);
    let members = pages(&door, "/topics/t00?", 9);
    assert_eq!(members.len(), CLIENTS);
}

#[test]
fn what_stands_first_is_what_was_asked_for() {
    let server = server();
    let door = Door::of(&server);
    let mut worker = server.worker(1 | 2 | 4);
    let mut clients: Vec<Client> = (0..6).map(|_| server.client()).collect();
    (0..6).for_each(|_| _ = worker.opened());
    for (number, client) in clients.iter_mut().enumerate() {
        for _ in 0..=number {
            client.send_text("0123456789");
            worker.transfer();
        }
    }
    let rows = pages(&door, "/connections?protocol=netsvr&sort=in&", 2);
    let sent: Vec<_> = rows.iter().map(|row| row["received_messages"].as_u64()).collect();
    assert_eq!(sent, [6, 5, 4, 3, 2, 1].map(Some));
}

#[test]
fn users_are_counted_and_their_connections_shown() {
    let server = server();
    let door = Door::of(&server);
    let mut worker = server.worker(1 | 2);
    let _clients: Vec<Client> = (0..5).map(|_| server.client()).collect();
    for number in 0..5 {
        let uniq_id = worker.opened();
        let user = if number < 3 { "anna" } else { "bert" };
        let update = ringway::wire::worker::proto::ConnInfoUpdate {
            uniq_id,
            new_customer_id: user.to_owned(),
            ..Default::default()
        };
        worker.send(cmd::CONN_INFO_UPDATE, &update);
    }
    let expected = json!([
        { "name": "anna", "connections": 3 }, { "name": "bert", "connections": 2 }
    ]);
    wait_until("they have their users", || door.get("/users")["rows"] == expected);
    assert_eq!(pages(&door, "/users/anna?", 2).len(), 3);
    assert_eq!(ids(&door.get("/connections?user=bert")).len(), 2);
    let (status, answer) = door.ask("DELETE", "/users/anna", "{}");
    assert_eq!((status, answer), (200, json!({ "done": 3, "failed": 0 })));
}

#[test]
fn the_load_of_the_shards_adds_up() {
    let server = server();
    let door = Door::of(&server);
    let mut worker = server.worker(1 | 2);
    let _clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    (0..CLIENTS).for_each(|_| _ = worker.opened());
    let overview = door.get("/overview");
    assert_eq!((&overview["state"], &overview["clients"]), (&json!("ready"), &json!(CLIENTS)));
    assert_eq!(overview["shards"], 2);
    let shards = door.get("/shards");
    let of_netsvr = |row: &Value| row["connections"]["netsvr"].as_u64().unwrap_or_default();
    let shards = shards["rows"].as_array().expect("rows");
    assert_eq!(shards.iter().map(of_netsvr).sum::<u64>(), CLIENTS as u64);
    assert_eq!(door.get("/nodes")["rows"].as_array().map(Vec::len), Some(1));
    let wide = door.get("/overview?cluster=1");
    assert_eq!(wide["nodes"][0]["answer"]["clients"], CLIENTS);
}
