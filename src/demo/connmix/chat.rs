//! The chat of connmix's examples (connmix section 7.3), played by a queue worker: events of the
//! gateway in, requests out. No socket and no clock.
//!
//! Who a client is stands in its context, in the gateway, and comes back with every event; nothing
//! grows here with their number. The order of the requests is the order of their effects: a sender
//! first sees its own message in the room and then that it was sent.

use serde_json::{Value, json};

use crate::demo::PASSWORD;
use crate::log::target;
use crate::wire::json as wire;

/// The channel of every client that has logged in.
const EVERYBODY: &str = "everybody";
/// The context value of a client whose login has failed; it lets the client go on.
const NOBODY: u32 = 0;

/// The worker without its connection.
#[derive(Debug, Default)]
pub(super) struct Chat {
    /// Of the last request; 1 is that of `queue.pop`.
    number: u64,
}

impl Chat {
    /// A message of the gateway. Requests that follow from it are appended to `out`.
    pub fn message(&mut self, text: &str, out: &mut Vec<String>) {
        let message: Value = serde_json::from_str(text).unwrap_or_default();
        if message["e"] == "queue.pop" {
            return self.event(&message["p"], out);
        }
        // A client that has left is no reason to worry, a refused consumption is.
        if let (Some(code), true) = (message["E"]["c"].as_i64(), message["i"] == 1) {
            tracing::error!(
                target: target::DEMO,
                code, "the gateway does not let the connmix worker consume"
            );
        }
    }

    fn event(&mut self, event: &Value, out: &mut Vec<String>) {
        let d = &event["d"];
        let (Some(client), "text") =
            (event["c"].as_str(), d["frame"]["type"].as_str().unwrap_or(""))
        else {
            return;
        };
        let said = d["frame"]["data"].as_str().unwrap_or_default();
        let said = wire::tree(said.as_bytes()).unwrap_or_default();
        let op = said["op"].as_str().unwrap_or_default();
        let user = d["uid"].as_str();
        let mut to = Requests { chat: self, client, out };
        let answer = match (op, user) {
            ("ping", _) => json!({"op": "pong"}),
            ("auth", _) => to.auth(&said["args"]),
            (_, None) => error(op, "log in first: {\"op\":\"auth\",\"args\":[\"name\",\"demo\"]}"),
            (_, Some(user)) => to.command(op, user, &said["args"]),
        };
        to.send(&answer);
    }
}

/// Requests about one client.
struct Requests<'a> {
    chat: &'a mut Chat,
    client: &'a str,
    out: &'a mut Vec<String>,
}

impl Requests<'_> {
    fn auth(&mut self, args: &Value) -> Value {
        let name = args[0].as_str().unwrap_or_default();
        let legal = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
        if !legal || args[1] != PASSWORD {
            self.call("set_context_value", json!(["uid", NOBODY]));
            return error("auth", "unknown name or wrong password (it is \"demo\")");
        }
        self.call("set_context_value", json!(["uid", name]));
        self.call("subscribe", json!([EVERYBODY, format!("user_{name}")]));
        success("auth")
    }

    fn command(&mut self, op: &str, user: &str, args: &Value) -> Value {
        let first = args[0].as_str().unwrap_or_default();
        let second = args[1].as_str().unwrap_or_default();
        match op {
            "subscribe" | "unsubscribe" => {
                let rooms: Vec<&str> = args
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    // Only rooms: the channels of users are theirs.
                    .filter(|room| room.starts_with("room_") && !room.contains(' '))
                    .collect();
                if rooms.is_empty() {
                    return error(op, "names of rooms begin with room_");
                }
                self.call(op, json!(rooms));
                success(op)
            }
            "sendtoroom" | "sendtouser" if !first.is_empty() => {
                self.publish(first, user, second);
                success(op)
            }
            "sendbroadcast" => {
                self.publish(EVERYBODY, user, first);
                success(op)
            }
            _ => error(op, "unknown op, or arguments are missing"),
        }
    }

    fn call(&mut self, function: &str, arguments: Value) {
        let params = json!({"c": self.client, "f": function, "a": arguments});
        self.request("conn.call", params);
    }

    fn publish(&mut self, channel: &str, user: &str, message: &str) {
        let data = format!("uid:{user},message:{message}");
        let data = json!({"event": "subscribe", "channel": channel, "data": data}).to_string();
        self.request("mesh.publish", json!({"c": channel, "d": data}));
    }

    fn send(&mut self, answer: &Value) {
        self.request("mesh.send", json!({"c": self.client, "d": answer.to_string()}));
    }

    fn request(&mut self, method: &str, params: Value) {
        // 1 is that of `queue.pop`.
        self.chat.number = self.chat.number.max(1) + 1;
        let request = json!({"m": method, "p": params, "i": self.chat.number});
        self.out.push(request.to_string());
    }
}

fn success(op: &str) -> Value {
    json!({"op": op, "success": true})
}

fn error(op: &str, problem: &str) -> Value {
    json!({"op": op, "error": problem})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The requests that follow when a client says something: method and parameters.
    fn after(uid: Value, said: &Value) -> Vec<(String, Value)> {
        let frame = json!({"type": "text", "data": said.to_string(), "finish": true});
        let d = json!({"event": "message", "uid": uid, "frame": frame});
        let event = json!({"e": "queue.pop", "p": {"n": 1, "c": "77", "t": "demo", "d": d}});
        let mut out = Vec::new();
        Chat::default().message(&event.to_string(), &mut out);
        let request = |text: &String| {
            let request: Value = serde_json::from_str(text).expect("a request is JSON");
            (request["m"].as_str().expect("a method").to_owned(), request["p"].clone())
        };
        out.iter().map(request).collect()
    }

    fn said(requests: &[(String, Value)]) -> Value {
        let (method, params) = requests.last().expect("there is an answer");
        assert_eq!((method.as_str(), &params["c"]), ("mesh.send", &json!("77")));
        serde_json::from_str(params["d"].as_str().expect("a text")).expect("an answer is JSON")
    }

    #[test]
    fn a_login_sets_the_context_before_it_is_confirmed() {
        let requests = after(Value::Null, &json!({"op": "auth", "args": ["ann", PASSWORD]}));
        let set = json!({"c": "77", "f": "set_context_value", "a": ["uid", "ann"]});
        assert_eq!(requests[0], ("conn.call".to_owned(), set));
        assert_eq!(requests[1].1["a"], json!(["everybody", "user_ann"]));
        assert_eq!(said(&requests), json!({"op": "auth", "success": true}));
        let failed = after(Value::Null, &json!({"op": "auth", "args": ["ann", "wrong"]}));
        assert_eq!(failed[0].1["a"], json!(["uid", 0]), "the client must not wait for ever");
        assert!(said(&failed)["error"].is_string());
    }

    #[test]
    fn only_who_has_logged_in_may_join_and_speak() {
        for uid in [Value::Null, json!(0)] {
            let requests = after(uid, &json!({"op": "subscribe", "args": ["room_1"]}));
            assert_eq!(requests.len(), 1);
            assert!(said(&requests)["error"].is_string());
        }
        let requests = after(json!("ann"), &json!({"op": "subscribe", "args": ["room_1"]}));
        assert_eq!(requests[0].1, json!({"c": "77", "f": "subscribe", "a": ["room_1"]}));
        let spied = after(json!("ann"), &json!({"op": "subscribe", "args": ["user_bob"]}));
        assert!(said(&spied)["error"].is_string());
        let spoken = after(json!("ann"), &json!({"op": "sendtoroom", "args": ["room_1", "hi"]}));
        let published =
            json!({"event": "subscribe", "channel": "room_1", "data": "uid:ann,message:hi"});
        assert_eq!(spoken[0].1, json!({"c": "room_1", "d": published.to_string()}));
        assert_eq!(said(&spoken), json!({"op": "sendtoroom", "success": true}));
    }

    #[test]
    fn what_makes_no_sense_is_answered_or_ignored() {
        assert_eq!(said(&after(Value::Null, &json!({"op": "ping"}))), json!({"op": "pong"}));
        assert!(said(&after(json!("ann"), &json!([1, 2])))["error"].is_string());
        let mut out = Vec::new();
        for text in ["", "pong", "{}", r#"{"E":null,"r":{"s":true},"i":2}"#] {
            Chat::default().message(text, &mut out);
        }
        assert!(out.is_empty());
    }
}
