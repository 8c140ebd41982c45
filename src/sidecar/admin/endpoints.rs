//! The table of what the admin interface can be asked, below `/api/v1`. Requests are checked
//! against it, and the OpenAPI document is made of it.

use serde_json::{Map, Value, json};

use super::fault::Fault;

/// What a user of the interface may do. Who steers may read as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Read,
    Steer,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Overview,
    Shards,
    Connections,
    Connection,
    Users,
    User,
    Topics,
    Topic,
    Workers,
    Nodes,
    Version,
    Publish,
    Send,
    CloseConnection,
    CloseUser,
    Document,
}

/// One row of the table.
pub(super) struct Endpoint {
    pub method: &'static str,
    /// A segment in braces is any one.
    pub path: &'static str,
    pub call: Call,
    pub role: Role,
    /// One sentence.
    pub what: &'static str,
    /// Names of its query parameters.
    pub params: &'static [&'static str],
    /// Names of the fields of its body.
    pub body: &'static [&'static str],
}

const fn get(path: &'static str, call: Call, what: &'static str) -> Endpoint {
    Endpoint {
        method: "GET",
        path,
        call,
        role: Role::Read,
        what,
        params: &["cluster", "node"],
        body: &[],
    }
}

const fn steer(
    method: &'static str,
    path: &'static str,
    call: Call,
    what: &'static str,
    body: &'static [&'static str],
) -> Endpoint {
    Endpoint { method, path, call, role: Role::Steer, what, params: &["cluster", "node"], body }
}

const LISTED: &[&str] = &["cluster", "node", "prefix", "sort", "limit", "after"];

const MEMBERS: &[&str] = &["cluster", "node", "sort", "limit", "after"];

/// Everything that can be asked.
pub(super) const ENDPOINTS: &[Endpoint] = &[
    get("/overview", Call::Overview, "The node at a glance: state, load, counts."),
    get("/shards", Call::Shards, "The load of each shard."),
    Endpoint {
        params: &[
            "cluster", "node", "protocol", "user", "topic", "address", "listener", "state", "sort",
            "limit", "after",
        ],
        ..get("/connections", Call::Connections, "Connections, filtered and sorted.")
    },
    get("/connections/{id}", Call::Connection, "All that is known of one connection."),
    Endpoint {
        params: LISTED,
        ..get("/users", Call::Users, "Users, with how many connections each has.")
    },
    Endpoint { params: MEMBERS, ..get("/users/{id}", Call::User, "A user and its connections.") },
    Endpoint {
        params: LISTED,
        ..get("/topics", Call::Topics, "Topics, with how many members each has.")
    },
    Endpoint { params: MEMBERS, ..get("/topics/{name}", Call::Topic, "A topic and its members.") },
    get("/workers", Call::Workers, "Registered workers, with what waits for each."),
    get("/nodes", Call::Nodes, "This node and the others of the mesh."),
    get("/version", Call::Version, "Version of the program and of this interface."),
    Endpoint {
        params: &[],
        ..get("/openapi.json", Call::Document, "This interface, as an OpenAPI document.")
    },
    steer(
        "POST",
        "/publish",
        Call::Publish,
        "Sends a text to every member of a topic on the node.",
        &["topic", "data"],
    ),
    steer(
        "POST",
        "/send",
        Call::Send,
        "Sends a text to a client, or to every connection of a user on the node.",
        &["connection", "user", "data"],
    ),
    steer(
        "DELETE",
        "/connections/{id}",
        Call::CloseConnection,
        "Closes a client. Without a WebSocket, and by IM, code and reason are not told.",
        &["code", "reason"],
    ),
    steer(
        "DELETE",
        "/users/{id}",
        Call::CloseUser,
        "Closes every connection of a user on the node.",
        &["code", "reason"],
    ),
];

/// What a query parameter or a field of a body is.
fn about(name: &str) -> (&'static str, &'static str) {
    match name {
        "cluster" => ("string", "`1`: every node of the mesh, each for itself."),
        "node" => ("integer", "The node of the mesh that is meant; else the one that is asked."),
        "protocol" => ("string", "What the connection speaks: a word of the log, as `netsvr`."),
        "user" => ("string", "The user."),
        "topic" => ("string", "The topic."),
        "address" => ("string", "An address or network, as 192.0.2.0/24."),
        "listener" => ("string", "The address of the listener."),
        "state" => ("string", "opening, open, blocked or closing."),
        "sort" => ("string", "What stands first; connections: age, idle, outbox, in, out."),
        "limit" => ("integer", "Rows at the most, up to 1000; 100 if it is not said."),
        "after" => ("string", "The `next` of the page before."),
        "prefix" => ("string", "Names begin so."),
        "data" => ("string", "The text."),
        "connection" => ("string", "The id of a connection."),
        "code" => ("integer", "Close code: 1000 to 1014 as RFC 6455 has them, or 3000 to 4999."),
        "reason" => ("string", "Close reason, at most 123 bytes."),
        _ => ("string", ""),
    }
}

impl Endpoint {
    /// What stands for the segments in braces, if the path is this one's.
    fn matches(&self, segments: &[String]) -> Option<Vec<String>> {
        let own: Vec<&str> = self.path.split('/').skip(1).collect();
        if own.len() != segments.len() {
            return None;
        }
        let mut found = Vec::new();
        for (own, segment) in own.into_iter().zip(segments) {
            match own.starts_with('{') {
                true => found.push(segment.clone()),
                false if own == segment => {}
                false => return None,
            }
        }
        Some(found)
    }
}

/// The row that a request is for, and what stands for its segments in braces.
pub(super) fn find(
    method: &str,
    segments: &[String],
) -> Result<(&'static Endpoint, Vec<String>), Fault> {
    let mut methods = Vec::new();
    for endpoint in ENDPOINTS {
        match endpoint.matches(segments) {
            Some(found) if endpoint.method == method => {
                return match found.iter().all(|name| !name.is_empty()) {
                    true => Ok((endpoint, found)),
                    false => Err(Fault::bad("the path has an empty name")),
                };
            }
            Some(_) => methods.push(endpoint.method),
            None => {}
        }
    }
    Err(match methods.is_empty() {
        true => Fault::not_found("there is no such path; /api/v1/openapi.json has all of them"),
        false => Fault::method(methods.join(", ")),
    })
}

/// The interface as an OpenAPI document.
pub(super) fn document(version: &str) -> Value {
    let mut paths = Map::new();
    for endpoint in ENDPOINTS {
        let path = paths.entry(format!("/api/v1{}", endpoint.path)).or_insert_with(|| json!({}));
        if let Value::Object(path) = path {
            path.insert(endpoint.method.to_lowercase(), operation(endpoint));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Ringway", "version": version },
        "paths": paths,
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let in_path = endpoint.path.split('/').filter_map(|part| part.strip_prefix('{'));
    let in_path = in_path.map(|part| {
        json!({ "name": part.trim_end_matches('}'), "in": "path", "required": true,
            "schema": { "type": "string" } })
    });
    let in_query = endpoint.params.iter().map(|name| {
        let (kind, what) = about(name);
        json!({ "name": name, "in": "query", "description": what, "schema": { "type": kind } })
    });
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    let mut operation = json!({
        "summary": endpoint.what,
        "x-role": if endpoint.role == Role::Read { "read" } else { "steer" },
        "parameters": parameters,
        "responses": {
            "200": { "description": "The answer." },
            "default": { "description": "What is wrong: `error` with `code` and `message`." },
        },
    });
    if !endpoint.body.is_empty() {
        let fields = endpoint.body.iter().map(|name| {
            let (kind, what) = about(name);
            ((*name).to_owned(), json!({ "type": kind, "description": what }))
        });
        let properties: Map<String, Value> = fields.collect();
        let schema = json!({ "type": "object", "properties": properties });
        operation["requestBody"] =
            json!({ "content": { "application/json": { "schema": schema } } });
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(path: &str) -> Vec<String> {
        path.split('/').skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn requests_find_their_rows() {
        let found = |method, path| find(method, &segments(path)).map(|(e, found)| (e.call, found));
        let id = vec!["a b".to_owned()];
        assert_eq!(found("GET", "/users/a b").ok(), Some((Call::User, id.clone())));
        assert_eq!(found("DELETE", "/users/a b").ok(), Some((Call::CloseUser, id)));
        assert_eq!(found("GET", "/nothing").expect_err("no path").status, 404);
        assert_eq!(found("PUT", "/users").expect_err("no method").status, 405);
    }

    #[test]
    fn every_name_is_explained() {
        for endpoint in ENDPOINTS {
            for name in endpoint.params.iter().chain(endpoint.body) {
                assert!(!about(name).1.is_empty(), "{name} of {}", endpoint.path);
            }
        }
    }
}
