//! Operators see and steer every node from any of them.

use serde_json::json;

use crate::cluster::*;
use crate::http::Door;
use crate::nats::Nats;
use crate::operations::settled;

#[test]
fn one_node_shows_and_closes_connections_of_all() {
    let nats = Nats::start();
    let mut nodes = cluster::<3>(&nats);
    let mut members = settled(&mut nodes);
    let door = Door::Port(nodes[0].binary.admin());
    let numbers: Vec<u64> = (0..3)
        .map(|node| {
            let own = Door::Port(nodes[node].binary.admin());
            own.get("/version")["node"].as_u64().expect("a number")
        })
        .collect();
    assert_eq!(door.get("/nodes")["rows"].as_array().map(Vec::len), Some(3));
    let all = door.get("/connections?protocol=netsvr&cluster=1");
    let all = all["nodes"].as_array().expect("nodes");
    for (node, number) in numbers.iter().enumerate() {
        let of_node = all.iter().find(|part| part["node"] == *number).expect("each answers");
        let id = &of_node["answer"]["rows"][0]["id"];
        assert_eq!(*id, json!(members[node].uniq_id), "node {number}");
        let alone = door.get(&format!("/connections?protocol=netsvr&node={number}"));
        assert_eq!(alone["rows"][0]["id"], *id);
    }
    // A connection of another node is named by its id alone, and the node is said.
    let (id, number) = (members[2].uniq_id.clone(), numbers[2]);
    assert_eq!(door.ask("GET", &format!("/connections/{id}"), "").0, 404);
    let shown = door.get(&format!("/connections/{id}?node={number}"));
    assert_eq!((&shown["id"], &shown["user"]), (&json!(id), &json!("user 2")));
    // What that node says is wrong is said here.
    let (status, answer) = door.ask("GET", &format!("/connections/nobody?node={number}"), "");
    assert_eq!(status, 404, "{answer}");
    let body = json!({ "topic": "common", "data": "to all" }).to_string();
    let (_, answer) = door.ask("POST", "/publish?cluster=1", &body);
    let parts = answer["nodes"].as_array().expect("nodes");
    assert!(parts.iter().all(|part| part["answer"]["done"] == 1), "{answer}");
    for member in &mut members {
        assert_eq!(member.client.frame().text(), "to all");
    }
    let path = format!("/connections/{id}?node={number}");
    let (status, answer) = door.ask("DELETE", &path, r#"{"code":4000,"reason":"from afar"}"#);
    assert_eq!((status, answer), (200, json!({ "done": 1, "failed": 0 })));
    assert_eq!(members[2].client.frame().close(), (4000, "from afar"));
}
