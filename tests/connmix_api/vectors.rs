//! Every vector of connmix sections 10.1 and 10.2, in order, on one connection.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::common::Client;
use crate::support::{Api, Http, Peer, Reply, assert_answer, connmix};
use ringway::wire::websocket::mask_frame;

const VECTORS: &str = include_str!("../vectors/connmix_api.txt");

/// What the clients' entry logic does in the vectors.
const RULES: &str = r#"
[[connmix.server.rule]]
on = "open"
do = [ { send = "${client_id}" } ]

[[connmix.server.rule]]
on = "message"
when = { "data" = "bye" }
do = [ { push = { topic = "topic1", event = "close", include = ["uid=ctx.user_id"] } } ]

[[connmix.server.rule]]
on = "message"
when = { "data" = "context" }
do = [ { send = '{"user_id":${ctx.user_id|json},"lang":${ctx.lang|json}}' } ]

[[connmix.server.rule]]
on = "message"
do = [ { push = { topic = "topic1", include = ["frame"] } } ]
"#;

struct Story {
    peer: Peer,
    http: Http,
    a: (Client, i64),
    b: (Client, i64),
    reply: Option<Reply>,
    api: Api,
}

#[test]
fn every_vector_is_answered_as_specified() {
    let api = connmix(RULES, "");
    let mut story = Story {
        peer: api.peer(),
        http: api.http(),
        a: api.client("/chat"),
        b: api.client("/chat"),
        reply: None,
        api,
    };
    let mut vectors = 0;
    let mut name = "";
    for line in VECTORS.lines() {
        match line.split_once(' ') {
            _ if line.starts_with('#') || line.is_empty() => {}
            Some(("@", title)) => {
                name = title;
                vectors += 1;
            }
            _ => story.step(name, line),
        }
    }
    assert_eq!(vectors, 43, "W1 to W35 without W15, H1 to H10 without H9");
}

impl Story {
    fn step(&mut self, name: &str, line: &str) {
        let line = line.replace("$API", &self.api.address.to_string());
        let line = line.replace("$A", &self.a.1.to_string()).replace("$B", &self.b.1.to_string());
        let line = line.replace("$R", "1458271556210786304");
        let (mark, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match mark {
            ">" => self.peer.send(rest),
            "<text" => assert_eq!(self.peer.text(), rest, "{name}"),
            "<" => self.answer(name, rest),
            "=" => self.delivered(name, rest),
            "!" => self.said(name, rest),
            "?" => {
                self.a.0.send_text("context");
                let context: Value = serde_json::from_str(self.a.0.frame().text()).expect("JSON");
                let expected = rest.strip_prefix("A ").expect("only A has a context");
                let expected: Value = serde_json::from_str(expected).expect("JSON");
                assert_eq!(context, expected, "{name}");
            }
            "GET" | "POST" => {
                let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
                self.reply = Some(self.http.ask(mark, path, body));
            }
            _ => panic!("{name}: {line}"),
        }
    }

    fn answer(&mut self, name: &str, rest: &str) {
        let (actual, expected) = match self.reply.take() {
            None => (self.peer.json(), rest),
            Some(reply) => {
                let (status, body) = rest.split_once(' ').expect("status and body");
                assert_eq!(reply.status.to_string(), status, "{name}");
                (reply.json(), body)
            }
        };
        assert_answer(actual, serde_json::from_str(expected).expect("JSON"), name);
    }

    /// Client, kind and content of a message.
    fn message(&mut self, rest: &str) -> (&mut Client, u8, Vec<u8>) {
        let mut parts = rest.splitn(3, ' ');
        let client = match parts.next() {
            Some("A") => &mut self.a.0,
            _ => &mut self.b.0,
        };
        let binary = parts.next() == Some("binary");
        let text: String = serde_json::from_str(parts.next().expect("a string")).expect("a string");
        match binary {
            true => (client, 0x82, STANDARD.decode(text).expect("base64")),
            false => (client, 0x81, text.into_bytes()),
        }
    }

    fn delivered(&mut self, name: &str, rest: &str) {
        let (client, first, content) = self.message(rest);
        let frame = client.frame();
        assert_eq!((frame.first, frame.payload), (first, content), "{name}");
    }

    fn said(&mut self, name: &str, rest: &str) {
        let (client, first, content) = self.message(rest);
        client.write(&mask_frame(first, [1, 2, 3, 4], &content));
        assert!(!name.is_empty());
    }
}
