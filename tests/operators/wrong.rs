//! Requests with something wrong in them: each is told what, and what is allowed.

use crate::http::{Door, server};

#[test]
fn what_is_wrong_is_said() {
    let server = server();
    let door = Door::of(&server);
    for (method, path, body, status, says) in [
        ("GET", "/connections?colour=red", "", 400, "there are: cluster, node, protocol, user"),
        ("GET", "/connections?limit=0", "", 400, "1 to 1000"),
        ("GET", "/connections?limit=1001", "", 400, "1 to 1000"),
        ("GET", "/connections?limit=ten", "", 400, "1 to 1000"),
        ("GET", "/connections?limit=1&limit=2", "", 400, "twice"),
        ("GET", "/connections?after=x", "", 400, "`next`"),
        ("GET", "/connections?after=1-2-99999999999", "", 400, "`next`"),
        ("GET", "/connections?protocol=smtp", "", 400, "netsvr"),
        ("GET", "/connections?state=asleep", "", 400, "opening, open, blocked, closing"),
        ("GET", "/connections?sort=colour", "", 400, "age, idle, outbox, in, out"),
        ("GET", "/connections?address=here", "", 400, "192.0.2.0/24"),
        ("GET", "/connections?listener=1.2.3.4:5", "", 400, "there are: 127.0.0.1:"),
        ("GET", "/connections?cluster=yes", "", 400, "1 or 0"),
        ("GET", "/connections?cluster=1&after=0-1-1", "", 400, "ask each node"),
        ("GET", "/connections?cluster=1&node=3", "", 400, "ask each node"),
        ("GET", "/users/", "", 400, "empty name"),
        ("GET", "/connections?node=0", "", 400, "1 to 1023"),
        ("GET", "/connections?node=77", "", 404, "node 77 is not there"),
        ("GET", "/connections/nobody", "", 404, "names no connection of node"),
        ("GET", "/topics?sort=members&after=x", "", 400, "sort by name"),
        ("GET", "/nothing", "", 404, "openapi.json"),
        ("PUT", "/connections", "", 405, "GET"),
        ("POST", "/publish", "{}", 400, "\"topic\""),
        ("POST", "/publish", "{\"topic\":\"t\"}", 400, "\"data\""),
        ("POST", "/publish", "{\"topic\":\"t\",\"data\":7}", 400, "no text"),
        ("POST", "/publish", "{\"topic\":\"t\",\"text\":\"x\"}", 400, "there are: topic, data"),
        ("POST", "/publish", "[]", 400, "JSON object"),
        ("POST", "/send", "{\"data\":\"x\"}", 400, "either connection or user"),
        ("DELETE", "/users/u", "{\"code\":1005}", 400, "3000 to 4999"),
        ("DELETE", "/users/u", "{\"code\":99}", 400, "3000 to 4999"),
    ] {
        let (got, answer) = door.ask(method, path, body);
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(got, status, "{method} {path}: {message}");
        assert!(message.contains(says), "{method} {path}: {message}");
    }
    let long = format!("{{\"reason\":\"{}\"}}", "x".repeat(124));
    assert_eq!(door.ask("DELETE", "/users/u", &long).0, 400);
    let large = format!("{{\"topic\":\"t\",\"data\":\"{}\"}}", "x".repeat(2 << 20));
    assert_eq!(door.ask("POST", "/publish", &large).0, 413);
}

#[test]
fn pages_of_strangers_are_refused() {
    let server = server();
    let door = Door::of(&server);
    let foreign = "Origin: https://example.com\r\n";
    for (method, path) in [("GET", "/api/v1/connections"), ("DELETE", "/api/v1/users/u")] {
        assert_eq!(door.send(method, path, foreign, "").0, 403, "{method} {path}");
    }
    // A name that was made to lead here.
    let request =
        "GET /api/v1/version HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\n\r\n";
    assert!(door.exchange(request.as_bytes()).starts_with("HTTP/1.1 403"));
}

#[test]
fn the_document_has_every_path_and_what_it_takes() {
    let server = server();
    let document = Door::of(&server).get("/openapi.json");
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() > 10);
    let connections = &paths["/api/v1/connections"]["get"];
    let names: Vec<_> =
        connections["parameters"].as_array().expect("a list").iter().map(|p| &p["name"]).collect();
    assert!(names.iter().any(|name| **name == "address"), "{names:?}");
    assert_eq!(paths["/api/v1/publish"]["post"]["x-role"], "steer");
}
