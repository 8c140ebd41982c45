//! What holds for every message and every split of a stream.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use ringway::wire::framing::{Framer, Framing, encode};
use serde_json::Value;

use crate::Client;

/// JSON of few levels with awkward strings and numbers.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i32>().prop_map(|quarters| Value::from(f64::from(quarters) / 4.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-c]{1,2}|\\PC{0,4}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn rule(rest: &str) -> String {
    format!("[[connmix.server.rule]]\non = \"message\"\n{rest}\n")
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() }
}

/// What was pushed to `t`.
fn d_of(effects: &[String]) -> Value {
    let d = effects[0].strip_prefix("push t ").expect("a push");
    serde_json::from_str(d).expect("JSON")
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_found_is_what_serde_finds(value in json(), pretty in any::<bool>()) {
        let message = serde_json::json!({ "x": [value, 1], "y": "last" });
        let text = if pretty { format!("{message:#}") } else { message.to_string() };
        let mut client = Client::new(&rule(r#"do = [ { send = "${json.x.0|json}" } ]"#));
        let effects = client.text(&text);
        match effects[0].strip_prefix("send ") {
            Some(sent) => {
                let found: Value = serde_json::from_str(sent).expect("JSON");
                prop_assert_eq!(&found, &message["x"][0]);
            }
            None => prop_assert!(message["x"][0].is_null(), "{effects:?}"),
        }
    }

    #[test]
    fn a_message_is_json_for_rules_if_it_is_json(text in "[\\[\\]{},:\"\\\\ue0-9a.+\\- tn]{0,12}") {
        let mut client = Client::new(&rule(r#"when = { json = "exists" }
            do = [ { send = "${json|json}" } ]"#));
        let sent = client.text(&text);
        match serde_json::from_str::<Value>(&text) {
            Ok(Value::Null) => prop_assert_eq!(&sent[0], "no rule"),
            Ok(value) => {
                let raw = sent[0].strip_prefix("send ").expect("it is JSON");
                prop_assert_eq!(serde_json::from_str::<Value>(raw).expect("JSON"), value);
            }
            // A number that no f64 holds is still JSON.
            Err(error) if error.to_string().contains("out of range") => {}
            Err(_) => prop_assert_eq!(&sent[0], "no rule"),
        }
    }

    #[test]
    fn what_is_pushed_is_json_with_the_message_in_it(
        text in any::<String>(),
        bytes in any::<Vec<u8>>(),
    ) {
        let mut client = Client::new(&rule(
            r#"do = [ { push = { topic = "t", event = "${data}", include = ["frame"] } } ]"#,
        ));
        let pushed = client.text(&text);
        let d = d_of(&pushed);
        prop_assert_eq!(&d["frame"]["data"], &Value::from(text.clone()));
        prop_assert_eq!(&d["event"], &Value::from(text));
        let push = r#"do = [ { push = { topic = "t", include = ["frame"] } } ]"#;
        let mut client = Client::new(&rule(push));
        let pushed = client.binary(&bytes);
        let d = d_of(&pushed);
        let data = STANDARD.decode(d["frame"]["data"].as_str().expect("a text"));
        prop_assert_eq!(data.expect("base64"), bytes);
    }

    #[test]
    fn templates_are_taken_or_refused_but_never_panic(text in "[${}a-z.|:\\[\\]*0-9 ]{0,24}") {
        let quoted = serde_json::to_string(&text).expect("a text");
        let actions = format!("do = [ {{ send = {quoted} }}, {{ subscribe = [{quoted}] }} ]");
        let _ = crate::read(&rule(&actions));
    }

    #[test]
    fn messages_do_not_depend_on_how_the_stream_is_cut(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
        cuts in prop::collection::vec(1usize..30, 0..60),
        stash in any::<u64>(),
        length in any::<bool>(),
    ) {
        let framing = if length { Framing::Length } else { Framing::Line };
        let plain = |message: &[u8]| !message.contains(&b'\n') && !message.ends_with(b"\r");
        let messages: Vec<_> = messages.into_iter().filter(|m| length || plain(m)).collect();
        let stream: Vec<u8> = messages
            .iter()
            .flat_map(|message| encode(framing, message).expect("it can be told"))
            .collect();
        let mut framer = Framer::default();
        let mut found: Vec<Vec<u8>> = Vec::new();
        let mut rest = &stream[..];
        let mut cuts = cuts.into_iter().chain(std::iter::repeat(7));
        let mut piece = 0u32;
        while !rest.is_empty() {
            let (mut input, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
            rest = later;
            piece = (piece + 1) % 64;
            if stash >> piece & 1 == 1 {
                framer.stash(input);
                input = &[];
            }
            while let Some(message) = framer.next(&mut input, framing, 40).expect("short enough") {
                found.push(message.to_vec());
            }
            prop_assert!(input.is_empty());
        }
        let mut input = &[][..];
        while let Some(message) = framer.next(&mut input, framing, 40).expect("short enough") {
            found.push(message.to_vec());
        }
        prop_assert_eq!(found, messages);
        prop_assert_eq!(framer.held(), 0);
    }

    #[test]
    fn garbage_never_makes_a_framer_hold_more_than_it_may(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
        length in any::<bool>(),
    ) {
        let framing = if length { Framing::Length } else { Framing::Line };
        let mut framer = Framer::default();
        for piece in &pieces {
            let mut input = &piece[..];
            loop {
                match framer.next(&mut input, framing, 300) {
                    Ok(Some(message)) => prop_assert!(message.len() <= 300),
                    Ok(None) => break,
                    Err(_) => return Ok(()),
                }
            }
            prop_assert!(framer.held() <= 305);
        }
    }
}
